//! 20,000 files of 4 KiB in 100 directories.
//!
//! Nothing is removed between runs: ext4 hands out inodes slowly after many were freed. Each run has a store or an
//! output of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::{Content, Tree};

use super::{FULL, MIB, NOT_SYNCED};
use crate::measure::{Bench, Side, Spec, StoreSize, Target};
use crate::operation::{Between, Operation, Place};
use crate::process::{cp, sync_filesystem};
use crate::{Result, say, settle};

/// What its rows' names begin with.
pub(crate) const NAME: &str = "small-20k";

const FILES: u64 = 20_000;
const IN_DIRECTORY: u64 = 200;
const SIZE: u64 = 4096;
const MEMORY: u64 = 150 * MIB;

/// Runs it.
pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let small = Small::set_up(bench)?;
    small.snapshots(bench)?;
    small.restores(bench)?;
    small.travels(bench)
}

struct Small {
    dir: PathBuf,
    data: u64,
}

/// The source: `directory-00/file-000`, every file with bytes of its own.
pub(super) fn tree(files: u64, size: u64) -> Tree {
    let path = |index| {
        let (directory, file) = (index / IN_DIRECTORY, index % IN_DIRECTORY);
        format!("directory-{directory:02}/file-{file:03}")
    };
    let content = |seed| Content::Random { seed, len: size };
    (0..files).fold(Tree::new(), |tree, index| {
        tree.file(path(index), content(index))
    })
}

impl Small {
    fn set_up(bench: &Bench) -> Result<Self> {
        let files = FILES / bench.divisor;
        let small = Self {
            dir: bench.dir.join(NAME),
            data: files * SIZE,
        };
        say(&format!("{NAME}: writing {files} files"));
        tree(files, SIZE).write_to(&small.source())?;
        Ok(small)
    }

    fn source(&self) -> PathBuf {
        self.dir.join("source")
    }

    fn spec(&self, title: &'static str, durability: &'static str, target: Target) -> Spec {
        let durable = durability == FULL;
        Spec {
            case: NAME.into(),
            title: title.into(),
            durability: durability.into(),
            peer: if durable { "cp + sync -f" } else { "cp" }.into(),
            target,
            data: self.data,
            memory: MEMORY,
        }
    }

    fn snapshots(&self, bench: &mut Bench) -> Result<()> {
        self.snapshot(bench, "snapshot, writable", Operation::clone, 1.2)?;
        let read_only = |taken: &Operation| taken.clone().read_only(true);
        self.snapshot(bench, "snapshot, read-only", read_only, 1.2)?;
        let paged = |taken: &Operation| taken.clone().paged(false);
        self.snapshot(bench, "snapshot, format v2", paged, 1.0)
    }

    fn snapshot(
        &self,
        bench: &mut Bench,
        title: &'static str,
        how: impl Fn(&Operation) -> Operation,
        ratio: f64,
    ) -> Result<()> {
        let source = self.source();
        let place = |run| self.dir.join(format!("{title} {run}"));
        let prepare = |_| settled(&source);
        let peer = Side::new(prepare, |run| {
            self.copy(&place(run).with_extension("cp"), true)
        });
        let ours = Side::new(prepare, |run| {
            how(&Operation::snapshot(&place(run), "v1", &source))
        });
        let spec = self.spec(title, FULL, Target::Ratio(ratio));
        if bench.compare(spec, Some(&peer), &ours)? {
            bench.stores.push(StoreSize {
                case: NAME.into(),
                title: title.into(),
                allocated: testkit::fsstat::allocated_bytes(&place(1).join("storage"))?,
                source: testkit::fsstat::allocated_bytes(&source)?,
            });
        }
        Ok(())
    }

    fn restores(&self, bench: &mut Bench) -> Result<()> {
        self.restore(bench, "restore, writable", Operation::clone, 1.3)?;
        let read_only = |taken: &Operation| taken.clone().read_only(true);
        self.restore(bench, "restore, read-only", read_only, 1.0)?;
        let paged = |taken: &Operation| taken.clone().paged(false);
        self.restore(bench, "restore, format v2", paged, 1.0)
    }

    fn restore(
        &self,
        bench: &mut Bench,
        title: &'static str,
        how: impl Fn(&Operation) -> Operation,
        ratio: f64,
    ) -> Result<()> {
        let spec = self.spec(title, NOT_SYNCED, Target::Ratio(ratio));
        if !bench.wants(&spec) {
            return Ok(());
        }
        let store = self.dir.join(format!("store for {title}"));
        super::take(&how(&Operation::snapshot(&store, "v1", &self.source())))?;
        let place = |run| self.dir.join(format!("{title} {run}"));
        let peer = Side::new(
            |_| settled(&self.source()),
            |run| self.copy(&place(run).with_extension("cp"), false),
        );
        let ours = Side::new(
            |_| settled(&store.join("storage")),
            |run| Operation::restore(&store, "v1", &place(run)),
        );
        bench.compare(spec, Some(&peer), &ours)?;
        super::check(&self.source(), &place(1))
    }

    /// To another node through a directory.
    fn travels(&self, bench: &mut Bench) -> Result<()> {
        let between = |run| -> Result<Between> {
            let between = self.dir.join(format!("between {run}"));
            let objects = between.join("objects");
            std::fs::create_dir_all(&objects)?;
            let place = Place::Directory(objects);
            Ok(Between::layouts(&between.join("layouts"), place))
        };
        let title = "publishing what is stored, to a directory";
        let spec = self.spec(title, FULL, Target::None);
        let title = "first restore on a second node, from a directory";
        let restored = self.spec(title, NOT_SYNCED, Target::None);
        if !bench.wants(&spec) && !bench.wants(&restored) {
            return Ok(());
        }
        let store = self.dir.join("store to travel from");
        super::take(&Operation::snapshot(&store, "v1", &self.source()))?;
        let place = |run| self.dir.join(format!("travel {run}"));
        let peer = Side::new(
            |_| settled(&self.source()),
            |run| self.copy(&place(run).with_extension("cp"), true),
        );
        let ours = Side::new(
            |run| {
                between(run)?;
                settled(&store.join("storage"))
            },
            |run| {
                let between = between(run).expect("it was made before");
                Operation::push(&store, "v1").between(&between)
            },
        );
        bench.compare(spec, Some(&peer), &ours)?;
        let full = between(0)?;
        super::take(&Operation::push(&store, "v1").between(&full))?;
        let peer = Side::new(
            |_| settled(&self.source()),
            |run| self.copy(&place(run).with_extension("first-cp"), false),
        );
        let ours = Side::new(
            |_| settled(&self.dir.join("between 0")),
            |run| {
                let node = place(run).with_extension("node");
                Operation::restore(&node, "v1", &place(run)).between(&full)
            },
        );
        if bench.compare(restored, Some(&peer), &ours)? {
            super::check(&self.source(), &place(1))?;
        }
        Ok(())
    }

    fn copy(&self, to: &Path, synced: bool) -> Vec<Command> {
        let mut commands = vec![cp(&[], &self.source(), to)];
        if synced {
            commands.push(sync_filesystem(&self.dir));
        }
        commands
    }
}

fn settled(read: &Path) -> Result<()> {
    settle::warm(read)?;
    settle::sync();
    settle::wait_for_quiet()
}

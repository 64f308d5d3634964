//! One large file: dense, and sparse.
//!
//! What a run made is removed before the next, so that no run is slowed by a memory or disk that fills up.

use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::{Content, Tree};

use super::{BACKGROUND, FULL, MIB, NOT_SYNCED, small};
use crate::measure::{Bench, Side, Spec, StoreSize, Target};
use crate::operation::Operation;
use crate::process::{cp, sync_filesystem};
use crate::{Result, say, settle};

/// 1 GiB of random bytes.
pub(crate) const DENSE: &str = "dense-1g";

/// 4 GiB with 512 MiB of random bytes in 2,048 places.
pub(crate) const SPARSE: &str = "sparse-4g";

const MEMORY: u64 = 64 * MIB;
const EXTENTS: u64 = 2048;
const CROWD: u64 = 100_000;
const SOON: f64 = 0.020;

/// Runs the dense file.
pub(crate) fn dense(bench: &mut Bench) -> Result<()> {
    let len = 1024 * MIB / bench.divisor;
    let large = Large {
        case: DENSE,
        dir: bench.dir.join(DENSE),
        tree: Tree::new().file("memory", Content::Random { seed: 1, len }),
        data: len,
        cp_options: &[],
    };
    large.run(bench)?;
    large.restore_from_a_crowd(bench)
}

/// Runs the sparse file.
pub(crate) fn sparse(bench: &mut Bench) -> Result<()> {
    let count = EXTENTS / bench.divisor;
    let (step, len) = (2 * MIB, MIB / 4);
    let extents = (0..count).map(|index| (index * step, index, len)).collect();
    let size = count * step;
    let large = Large {
        case: SPARSE,
        dir: bench.dir.join(SPARSE),
        tree: Tree::new().file("memory", Content::Sparse { size, extents }),
        data: count * len,
        cp_options: &["--sparse=always"],
    };
    large.run(bench)
}

struct Large {
    case: &'static str,
    dir: PathBuf,
    tree: Tree,
    data: u64,
    cp_options: &'static [&'static str],
}

impl Large {
    fn run(&self, bench: &mut Bench) -> Result<()> {
        say(&format!("{}: writing the source", self.case));
        self.tree.write_to(&self.source())?;
        self.snapshot_clean(bench)?;
        self.snapshot_dirty(bench)?;
        self.snapshot_writable(bench)?;
        self.snapshot_again(bench)?;
        self.restore(bench, false)?;
        self.restore(bench, true)
    }

    fn source(&self) -> PathBuf {
        self.dir.join("source")
    }

    /// What is removed before every run.
    fn scratch(&self) -> PathBuf {
        self.dir.join("scratch")
    }

    fn output(&self) -> PathBuf {
        self.scratch().join("output")
    }

    fn spec(&self, title: &'static str, durability: &'static str, target: Target) -> Spec {
        let peer = match (self.cp_options.is_empty(), durability == FULL) {
            (true, true) => "cp + sync -f",
            (true, false) => "cp",
            (false, true) => "cp --sparse=always + sync -f",
            (false, false) => "cp --sparse=always",
        };
        Spec {
            case: self.case.into(),
            title: title.into(),
            durability: durability.into(),
            peer: peer.into(),
            target,
            data: self.data,
            memory: MEMORY,
        }
    }

    /// An empty scratch directory, `read` in the page cache, and nothing left to write to disk.
    fn settle(&self, read: &Path) -> Result<()> {
        settle::remove(&self.scratch())?;
        std::fs::create_dir_all(self.scratch())?;
        settle::warm(read)?;
        settle::sync();
        settle::wait_for_quiet()
    }

    fn copy(&self, from: &Path, synced: bool) -> Vec<Command> {
        let mut commands = vec![cp(self.cp_options, from, &self.output())];
        if synced {
            commands.push(sync_filesystem(&self.dir));
        }
        commands
    }

    fn snapshot_clean(&self, bench: &mut Bench) -> Result<()> {
        let title = "snapshot, read-only, of a clean source";
        let spec = self.spec(title, BACKGROUND, Target::Ratio(0.65));
        let source = self.source();
        let settle = |_| self.settle(&source);
        let peer = Side::new(settle, |_| self.copy(&source, false));
        let ours = Side::new(settle, |_| {
            Operation::snapshot(&self.output(), "v1", &source)
                .read_only(true)
                .background()
        });
        bench.compare(spec, Some(&peer), &ours)?;
        Ok(())
    }

    fn snapshot_dirty(&self, bench: &mut Bench) -> Result<()> {
        let title = "snapshot, read-only, of a source just written";
        let spec = self.spec(title, FULL, Target::Ratio(0.75));
        let source = self.scratch().join("source");
        let settle = |_| {
            self.settle(&self.source())?;
            Ok(self.tree.write_to(&source)?)
        };
        let peer = Side::new(settle, |_| self.copy(&source, true));
        let ours = Side::new(settle, |_| {
            Operation::snapshot(&self.output(), "v1", &source).read_only(true)
        });
        bench.compare(spec, Some(&peer), &ours)?;
        Ok(())
    }

    fn snapshot_writable(&self, bench: &mut Bench) -> Result<()> {
        let title = "snapshot, writable";
        let spec = self.spec(title, FULL, Target::Ratio(1.15));
        let source = self.source();
        let settle = |_| self.settle(&source);
        let peer = Side::new(settle, |_| self.copy(&source, true));
        let ours = Side::new(settle, |_| {
            Operation::snapshot(&self.output(), "v1", &source)
        });
        if bench.compare(spec, Some(&peer), &ours)? {
            bench.stores.push(StoreSize {
                case: self.case.into(),
                title: title.into(),
                allocated: testkit::fsstat::allocated_bytes(&self.output().join("storage"))?,
                source: testkit::fsstat::allocated_bytes(&source)?,
            });
        }
        Ok(())
    }

    fn snapshot_again(&self, bench: &mut Bench) -> Result<()> {
        let title = "snapshot, writable, of a file already stored";
        let mut spec = self.spec(title, FULL, Target::Ratio(0.65));
        spec.peer = self.spec(title, NOT_SYNCED, spec.target).peer;
        if !bench.wants(&spec) {
            return Ok(());
        }
        let (source, store) = (self.source(), self.dir.join("stored"));
        super::take(&Operation::snapshot(&store, "first", &source))?;
        let settle = |_| self.settle(&source);
        let peer = Side::new(settle, |_| self.copy(&source, false));
        let ours = Side::new(settle, |run| {
            Operation::snapshot(&store, &format!("v{run}"), &source)
        });
        bench.compare(spec, Some(&peer), &ours)?;
        Ok(())
    }

    fn restore(&self, bench: &mut Bench, read_only: bool) -> Result<()> {
        let (title, target) = if read_only {
            ("restore, read-only", Target::Seconds(SOON))
        } else {
            ("restore, writable", Target::Ratio(1.1))
        };
        let spec = self.spec(title, NOT_SYNCED, target);
        if !bench.wants(&spec) {
            return Ok(());
        }
        let store = self.dir.join(title);
        super::take(&Operation::snapshot(&store, "v1", &self.source()).read_only(read_only))?;
        self.restore_from(bench, spec, &store)
    }

    /// The same file from a store that holds many others.
    fn restore_from_a_crowd(&self, bench: &mut Bench) -> Result<()> {
        let title = "restore, read-only, from a store of 100,000 blobs";
        let spec = self.spec(title, NOT_SYNCED, Target::Seconds(SOON));
        if !bench.wants(&spec) {
            return Ok(());
        }
        let (store, crowd) = (self.dir.join("crowded"), self.dir.join("crowd"));
        let count = CROWD / bench.divisor;
        say(&format!("{}: storing {count} other files", self.case));
        small::tree(count, 16).write_to(&crowd)?;
        super::take(&Operation::snapshot(&store, "crowd", &crowd).read_only(true))?;
        super::take(&Operation::snapshot(&store, "v1", &self.source()).read_only(true))?;
        self.restore_from(bench, spec, &store)
    }

    /// Restores version `v1` of a store against a copy of the source.
    fn restore_from(&self, bench: &mut Bench, spec: Spec, store: &Path) -> Result<()> {
        let peer = Side::new(
            |_| self.settle(&self.source()),
            |_| self.copy(&self.source(), false),
        );
        let ours = Side::new(
            |_| self.settle(&self.source()),
            |_| Operation::restore(store, "v1", &self.output()),
        );
        bench.compare(spec, Some(&peer), &ours)?;
        super::check(&self.source(), &self.output())
    }
}

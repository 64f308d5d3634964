//! What goes to another node: 1 GiB through a directory, and through a real S3 server on this machine; and 32 GiB, nearly
//! all holes, for its memory.
//!
//! The second node has an empty store, so a restore there fetches, verifies, stores and materializes. Registries are
//! image layouts in a directory: metadata is two small files, whatever the size.

use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::dragonfly::{Cluster, FakeDaemon, Options as DaemonOptions};
use testkit::s3::{ACCESS_KEY, S3, SECRET_KEY};
use testkit::{Content, Tree};

use super::{BACKGROUND, MIB, NOT_SYNCED};
use crate::measure::{Bench, Side, Spec, Target};
use crate::operation::{Between, Operation, Place};
use crate::process::{cp, sync_filesystem};
use crate::{Result, say};

/// 1 GiB of random bytes.
pub(crate) const NAME: &str = "travel-1g";

/// 32 GiB with 1 GiB of random bytes in 65,536 places.
pub(crate) const HUGE: &str = "travel-32g";

const MEMORY: u64 = 96 * MIB;

/// Runs all of it.
pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let len = 1024 * MIB / bench.divisor;
    let dir = bench.dir.join(NAME);
    let travel = Travel {
        case: NAME,
        tree: Tree::new().file("memory", Content::Random { seed: 7, len }),
        data: len,
        cp_options: &[],
        s3: S3::start("bench"),
        dir,
    };
    say(&format!("{NAME}: writing the source"));
    travel.tree.write_to(&travel.source())?;
    travel.restore(bench, WRITABLE, Target::Ratio(1.3))?;
    travel.restore(bench, READ_ONLY, Target::Ratio(1.2))?;
    travel.publish(bench)?;
    travel.dragonfly(bench)?;
    if Command::new("rclone").arg("version").output().is_err() {
        say(&format!("{NAME}: rclone is not here to compare with"));
        return Ok(());
    }
    travel.up(bench)?;
    travel.down(bench)
}

/// Runs the file that is nearly all holes.
pub(crate) fn huge(bench: &mut Bench) -> Result<()> {
    let count = 65_536 / bench.divisor;
    let (step, len) = (MIB / 2, MIB / 64);
    let extents = (0..count).map(|index| (index * step, index, len)).collect();
    let size = count * step;
    let travel = Travel {
        case: HUGE,
        tree: Tree::new().file("memory", Content::Sparse { size, extents }),
        data: count * len,
        cp_options: &["--sparse=always"],
        s3: S3::start("bench"),
        dir: bench.dir.join(HUGE),
    };
    say(&format!("{HUGE}: writing the source"));
    travel.tree.write_to(&travel.source())?;
    travel.restore(bench, WRITABLE, Target::None)
}

const WRITABLE: &str = "first restore on a second node, writable, from a directory";
const READ_ONLY: &str = "first restore on a second node, read-only, from a directory";

struct Travel {
    case: &'static str,
    cp_options: &'static [&'static str],
    dir: PathBuf,
    tree: Tree,
    data: u64,
    s3: S3,
}

impl Travel {
    fn source(&self) -> PathBuf {
        self.dir.join("source")
    }

    fn scratch(&self) -> PathBuf {
        self.dir.join("scratch")
    }

    fn output(&self) -> PathBuf {
        self.scratch().join("output")
    }

    fn node(&self) -> PathBuf {
        self.scratch().join("node")
    }

    fn directories(&self, name: &str) -> Result<Between> {
        let between = self.dir.join(name);
        let objects = between.join("objects");
        std::fs::create_dir_all(&objects)?;
        let place = Place::Directory(objects);
        Ok(Between::layouts(&between.join("layouts"), place))
    }

    fn bucket(&self, name: &str) -> Between {
        let place = super::bucket(&self.s3, self.s3.endpoint(), None);
        Between::layouts(&self.dir.join(name).join("layouts"), place)
    }

    fn spec(
        &self,
        title: &'static str,
        durability: &'static str,
        peer: &'static str,
        target: Target,
    ) -> Spec {
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

    fn settle(&self, read: &Path) -> Result<()> {
        super::settled(&self.scratch(), read)
    }

    fn restore(&self, bench: &mut Bench, title: &'static str, target: Target) -> Result<()> {
        let spec = self.spec(title, NOT_SYNCED, "cp", target);
        if !bench.wants(&spec) {
            return Ok(());
        }
        let between = self.directories(title)?;
        let first = self.dir.join(title).join("first");
        let publish = Operation::snapshot(&first, "v1", &self.source())
            .read_only(title == READ_ONLY)
            .between(&between);
        super::take(&publish)?;
        let objects = self.dir.join(title).join("objects");
        let peer = Side::new(
            |_| self.settle(&self.source()),
            |_| vec![cp(self.cp_options, &self.source(), &self.output())],
        );
        let ours = Side::new(
            |_| self.settle(&objects),
            |_| Operation::restore(&self.node(), "v1", &self.output()).between(&between),
        );
        bench.compare(spec, Some(&peer), &ours)?;
        super::check(&self.source(), &self.output())
    }

    /// Taking and publishing, against two copies, of which the second is synced.
    fn publish(&self, bench: &mut Bench) -> Result<()> {
        let title = "snapshot, writable, published to a directory";
        let spec = self.spec(title, BACKGROUND, "cp + sync -f", Target::Ratio(2.2));
        let source = self.source();
        let peer = Side::new(
            |_| self.settle(&source),
            |_| vec![cp(&[], &source, &self.output()), sync_filesystem(&self.dir)],
        );
        let ours = Side::new(
            |_| {
                self.settle(&source)?;
                std::fs::create_dir_all(self.scratch().join("objects"))?;
                Ok(())
            },
            |_| {
                let place = Place::Directory(self.scratch().join("objects"));
                let between = Between::layouts(&self.scratch().join("layouts"), place);
                Operation::snapshot(&self.node(), "v1", &source).between(&between)
            },
        );
        bench.compare(spec, Some(&peer), &ours)?;
        Ok(())
    }

    /// Through a daemon that hardlinks, and has what is asked for in its cache: what the network takes is not ours.
    fn dragonfly(&self, bench: &mut Bench) -> Result<()> {
        let rows = [
            ("snapshot, writable, published through Dragonfly", false),
            (
                "first restore on a second node, writable, through Dragonfly",
                false,
            ),
            (
                "first restore on a second node, read-only, through Dragonfly",
                true,
            ),
        ];
        let taken = self.spec(rows[0].0, BACKGROUND, "cp + sync -f", Target::Ratio(2.2));
        if bench.wants(&taken) {
            self.publish_through_daemon(bench, taken)?;
        }
        for (title, read_only) in &rows[1..] {
            let spec = self.spec(title, NOT_SYNCED, "cp", Target::Ratio(1.25));
            if bench.wants(&spec) {
                self.restore_through_daemon(bench, spec, *read_only)?;
            }
        }
        Ok(())
    }

    fn daemon(&self, cluster: &Cluster) -> FakeDaemon {
        let dir = Some(self.dir.join("daemon"));
        let piece_length = 4 * MIB;
        FakeDaemon::start(
            cluster,
            DaemonOptions {
                dir,
                piece_length,
                ..DaemonOptions::default()
            },
        )
    }

    fn through(&self, daemon: &FakeDaemon, name: &str) -> Between {
        let mut between = self.bucket(name);
        if let Place::S3 { daemon: way, .. } = &mut between.place {
            *way = Some(daemon.endpoint().to_owned());
        }
        between
    }

    fn publish_through_daemon(&self, bench: &mut Bench, spec: Spec) -> Result<()> {
        let cluster = Cluster::over(self.s3.bucket(), self.s3.dir());
        let daemon = self.daemon(&cluster);
        let source = self.source();
        let peer = Side::new(
            |_| self.settle(&source),
            |_| vec![cp(&[], &source, &self.output()), sync_filesystem(&self.dir)],
        );
        let ours = Side::new(
            |_| {
                self.s3.clear();
                daemon.clear_cache();
                cluster.expire_tasks();
                self.settle(&source)
            },
            |run| {
                let between = self.through(&daemon, &format!("published-{run}"));
                Operation::snapshot(&self.node(), "v1", &source).between(&between)
            },
        );
        bench.compare(spec, Some(&peer), &ours)?;
        Ok(())
    }

    fn restore_through_daemon(&self, bench: &mut Bench, spec: Spec, read_only: bool) -> Result<()> {
        self.s3.clear();
        let cluster = Cluster::over(self.s3.bucket(), self.s3.dir());
        let daemon = self.daemon(&cluster);
        let between = self.through(&daemon, &spec.title);
        let first = self.dir.join(&spec.title).join("first");
        let publish = Operation::snapshot(&first, "v1", &self.source()).read_only(read_only);
        super::take(&publish.between(&between))?;
        let cache = daemon.dir().to_owned();
        let peer = Side::new(
            |_| self.settle(&self.source()),
            |_| vec![cp(&[], &self.source(), &self.output())],
        );
        let ours = Side::new(
            |_| self.settle(&cache),
            |_| Operation::restore(&self.node(), "v1", &self.output()).between(&between),
        );
        bench.compare(spec, Some(&peer), &ours)?;
        super::check(&self.source(), &self.output())
    }

    fn rclone(&self, from: &str, to: &str) -> Command {
        rclone(&self.s3.endpoint(), from, to)
    }

    fn put_whole(&self, from: &Path, to: &str) -> Result<()> {
        put_whole(&self.s3, from, to)
    }

    fn up(&self, bench: &mut Bench) -> Result<()> {
        let title = "publishing what is stored, to S3";
        let spec = self.spec(title, NOT_SYNCED, "rclone copy", Target::Ratio(1.3));
        if !bench.wants(&spec) {
            return Ok(());
        }
        let stored = self.dir.join("stored");
        super::take(&Operation::snapshot(&stored, "v1", &self.source()))?;
        let source = self.source();
        let bucket = format!(":s3:{}/up", self.s3.bucket());
        let empty = |read: &Path| {
            self.s3.clear();
            self.settle(read)
        };
        let peer = Side::new(
            |_| empty(&source),
            |_| vec![self.rclone(&source.to_string_lossy(), &bucket)],
        );
        let ours = Side::new(
            |_| empty(&stored),
            |run| Operation::push(&stored, "v1").between(&self.bucket(&format!("up-{run}"))),
        );
        bench.compare(spec, Some(&peer), &ours)?;
        Ok(())
    }

    fn down(&self, bench: &mut Bench) -> Result<()> {
        let title = "fetching into the store, from S3";
        let spec = self.spec(title, NOT_SYNCED, "rclone copy", Target::Ratio(1.3));
        if !bench.wants(&spec) {
            return Ok(());
        }
        self.s3.clear();
        let first = self.dir.join("first");
        let between = self.directories("down")?;
        super::take(&Operation::snapshot(&first, "v1", &self.source()).between(&between))?;
        let between = self.bucket("down");
        // Without the slash rclone asks whether it is an object, and this server fails at what is a directory: rclone
        // would spend most of its time between one try and the next.
        let bucket = format!(":s3:{}/down/", self.s3.bucket());
        self.put_whole(&self.source(), &bucket)?;
        let objects = self.dir.join("down").join("objects");
        self.put_whole(&objects, &format!(":s3:{}", self.s3.bucket()))?;
        let kept = self.s3.dir();
        let peer = Side::new(
            |_| self.settle(&kept),
            |_| vec![self.rclone(&bucket, &self.output().to_string_lossy())],
        );
        let ours = Side::new(
            |_| self.settle(&kept),
            |_| Operation::pull(&self.node(), "v1").between(&between),
        );
        bench.compare(spec, Some(&peer), &ours)?;
        Ok(())
    }
}

/// `rclone copy`, of which one side is `:s3:BUCKET/…`.
pub(super) fn rclone(endpoint: &str, from: &str, to: &str) -> Command {
    let mut command = Command::new("rclone");
    // rclone cannot use one that the environment names.
    command.env_remove("AWS_CA_BUNDLE");
    command.args(["copy", "--config", "/dev/null", "--s3-provider", "Other"]);
    command.args(["--s3-access-key-id", ACCESS_KEY]);
    command.args(["--s3-secret-access-key", SECRET_KEY]);
    command.args(["--s3-endpoint", endpoint]);
    command.args(["--s3-force-path-style", "--s3-no-check-bucket"]);
    command.args([from, to]);
    command
}

/// Each file in one request: of an object that came in parts, this server reads all and computes the MD5 anew for every
/// part that is asked for.
pub(super) fn put_whole(s3: &S3, from: &Path, to: &str) -> Result<()> {
    let mut copy = rclone(&s3.endpoint(), &from.to_string_lossy(), to);
    copy.args(["--s3-upload-cutoff", "5G"]);
    crate::process::timed(&mut [copy])?;
    Ok(())
}

//! A chain of checkpoints between nodes: what each of them sends and fetches, and how long that takes.
//!
//! The guest is that of [`chain`](super::chain). "Far" is 25 ms to the first byte and 150 MB/s a connection, to the registry
//! and to the bucket alike; both are real servers on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::dragonfly::{Cluster, FakeDaemon, Options as DaemonOptions};
use testkit::far::{Distance, Far};
use testkit::registry::{Kind, RegistryServer};
use testkit::s3::S3;

use super::chain::STEPS;
use super::travel::{put_whole, rclone};
use super::{FULL, MIB, NOT_SYNCED, bucket};
use crate::guest::Guest;
use crate::measure::{Bench, Side, Spec, Target, median};
use crate::operation::{Between, Operation, Place};
use crate::process::cp;
use crate::{Result, say, settle};

/// What its rows' names begin with.
pub(crate) const NAME: &str = "nodes";

const NODES: usize = 8;
const FAR: Distance = Distance {
    first_byte: Duration::from_millis(25),
    bytes_per_second: 150_000_000,
};
const NEAR: Distance = Distance {
    first_byte: Duration::ZERO,
    bytes_per_second: u64::MAX,
};

/// Runs it.
pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let dir = bench.dir.join(NAME);
    say(&format!("{NAME}: a guest and ten checkpoints"));
    let guest = Guest::start(&dir.join("source"), bench.divisor)?;
    let mut nodes = Nodes {
        data: guest.data(),
        guest,
        dir,
        s3: S3::start("bench"),
    };
    nodes.chain(bench)?;
    nodes.restores(bench)?;
    nodes.through_daemons(bench)?;
    nodes.far(bench)?;
    nodes.small(bench)
}

struct Nodes {
    dir: PathBuf,
    guest: Guest,
    data: u64,
    s3: S3,
}

impl Nodes {
    fn source(&self) -> &Path {
        &self.guest.dir
    }

    fn scratch(&self) -> PathBuf {
        self.dir.join("scratch")
    }

    fn first(&self) -> PathBuf {
        self.dir.join("v2")
    }

    /// Where the chain is, in a format of this name.
    fn published(&self, format: &str) -> Between {
        let place = Place::Directory(self.objects(format));
        Between::layouts(&self.dir.join(format!("{format}-layouts")), place)
    }

    fn objects(&self, format: &str) -> PathBuf {
        self.dir.join(format!("{format}-objects"))
    }

    /// The chain's layouts, with a bucket.
    fn in_bucket(&self, daemon: Option<String>) -> Between {
        let place = bucket(&self.s3, self.s3.endpoint(), daemon);
        Between::layouts(&self.dir.join("v2-layouts"), place)
    }

    fn spec(&self, title: &'static str, peer: &'static str, target: Target) -> Spec {
        Spec {
            case: NAME.into(),
            title: title.into(),
            durability: NOT_SYNCED.into(),
            peer: peer.into(),
            target,
            data: self.data,
            memory: 96 * MIB + self.data / 4096 * 24,
        }
    }

    fn settled(&self, read: &Path) -> Result<()> {
        super::settled(&self.scratch(), read)
    }

    /// Ten checkpoints, published to a directory in both formats.
    fn chain(&mut self, bench: &mut Bench) -> Result<()> {
        let mut sent: [Vec<u64>; 2] = Default::default();
        for number in 1..=STEPS.len() + 1 {
            if number > 1 {
                self.guest.work(STEPS[number - 2])?;
            }
            for (format, sent) in ["v2", "v1"].into_iter().zip(&mut sent) {
                std::fs::create_dir_all(self.objects(format))?;
                let before = length(&self.objects(format))?;
                let version = format!("v{number}");
                let taken = Operation::snapshot(&self.dir.join(format), &version, self.source());
                let taken = match format {
                    "v2" => taken.paged(false),
                    _ => taken,
                };
                super::take(&taken.between(&self.published(format)))?;
                sent.push(length(&self.objects(format))? - before);
            }
        }
        let later = |sent: &[u64]| sent[1..].iter().sum::<u64>() as f64;
        let what = "sent by checkpoints 2–10 ÷ v1's";
        bench.figure(NAME, what, later(&sent[0]) / later(&sent[1]), 1.0 / 70.0);
        for (line, sent) in ["v2", "v1"].into_iter().zip(sent) {
            let sent = sent.iter().map(|&sent| sent as f64 / MIB as f64).collect();
            bench.series(NAME, "sent by each checkpoint", line, "MiB", sent);
        }
        settle::remove(&self.dir.join("v1"))?;
        settle::remove(&self.objects("v1"))
    }

    fn restores(&self, bench: &mut Bench) -> Result<()> {
        let output = self.scratch().join("output");
        let node = self.scratch().join("node");
        let title = "generation 10 on an empty node, from a directory";
        let spec = self.spec(title, "cp --sparse=always", Target::Ratio(2.2));
        let peer = Side::new(
            |_| self.settled(self.source()),
            |_| vec![cp(&["--sparse=always"], self.source(), &output)],
        );
        let ours = Side::new(
            |_| self.settled(&self.objects("v2")),
            |_| Operation::restore(&node, "v10", &output).between(&self.published("v2")),
        );
        if bench.compare(spec, Some(&peer), &ours)? {
            super::check(self.source(), &output)?;
        }
        put_whole(
            &self.s3,
            &self.objects("v2"),
            &format!(":s3:{}", self.s3.bucket()),
        )?;
        self.increment(bench)?;
        if Command::new("rclone").arg("version").output().is_err() {
            say(&format!("{NAME}: rclone is not here to compare with"));
            return Ok(());
        }
        let kept = self.s3.dir();
        let packs = format!(":s3:{}/", self.s3.bucket());
        let peer = Side::new(
            |_| self.settled(&kept),
            |_| {
                let to = output.to_string_lossy();
                vec![rclone(&self.s3.endpoint(), &packs, &to)]
            },
        );
        let ours = Side::new(
            |_| self.settled(&kept),
            |_| Operation::restore(&node, "v10", &output).between(&self.in_bucket(None)),
        );
        let title = "generation 10 on an empty node, from S3";
        let spec = self.spec(title, "rclone copy of its packs", Target::Ratio(1.2));
        bench.compare(spec, Some(&peer), &ours)?;
        Ok(())
    }

    /// What a node fetches that has the generation before.
    fn increment(&self, bench: &mut Bench) -> Result<()> {
        self.settled(&self.s3.dir())?;
        let way = Far::from(self.s3.address(), NEAR);
        let place = bucket(&self.s3, way.endpoint(), None);
        let between = Between::layouts(&self.dir.join("v2-layouts"), place);
        let node = self.scratch().join("node");
        let mut came = [0; 2];
        let mut stored = [0; 2];
        for (index, version) in ["v9", "v10"].into_iter().enumerate() {
            super::take(&Operation::pull(&node, version).between(&between))?;
            came[index] = way.came();
            stored[index] = length(&node.join("storage"))?;
        }
        let (fetched, increment) = (came[1] - came[0], stored[1] - stored[0]);
        let what = "generation 10 where 9 is: fetched ÷ the increment";
        bench.figure(NAME, what, fetched as f64 / increment as f64, 1.05);
        Ok(())
    }

    /// Eight nodes, each with a daemon, restore at once.
    fn through_daemons(&self, bench: &mut Bench) -> Result<()> {
        self.settled(&self.s3.dir())?;
        let cluster = Cluster::over(self.s3.bucket(), self.s3.dir());
        let way = Far::from(self.s3.address(), NEAR);
        let daemons: Vec<_> = (0..NODES)
            .map(|number| self.daemon(&cluster, number))
            .collect();
        let restore = |(number, daemon): (usize, &FakeDaemon)| {
            let place = bucket(&self.s3, way.endpoint(), Some(daemon.endpoint().to_owned()));
            let between = Between::layouts(&self.dir.join("v2-layouts"), place);
            let node = self.scratch().join(format!("node-{number}"));
            let output = self.scratch().join(format!("output-{number}"));
            Operation::restore(&node, "v10", &output)
                .between(&between)
                .command()
        };
        for eight in daemons.iter().enumerate().map(restore) {
            crate::process::timed(&mut [eight?])?;
        }
        let packs = length(&self.s3.dir())? as f64;
        let what = "eight nodes through daemons: from the bucket ÷ its packs";
        let from_bucket = cluster.downloaded() + way.came();
        bench.figure(NAME, what, from_bucket as f64 / packs, 1.1);
        Ok(())
    }

    fn daemon(&self, cluster: &Cluster, number: usize) -> FakeDaemon {
        let options = DaemonOptions {
            dir: Some(self.dir.join(format!("daemon-{number}"))),
            piece_length: 4 * MIB,
            ..DaemonOptions::default()
        };
        FakeDaemon::start(cluster, options)
    }

    /// A checkpoint of 4 % that is published far away, against taking it alone.
    fn far(&mut self, bench: &mut Bench) -> Result<()> {
        let registry = match RegistryServer::start(Kind::default()) {
            Ok(registry) => registry,
            Err(why) => {
                say(&format!("{NAME}: no registry: {why:?}"));
                return Ok(());
            }
        };
        self.s3.clear();
        let address = registry.address().parse()?;
        let (to_registry, to_bucket) = (Far::from(address, FAR), Far::from(self.s3.address(), FAR));
        let between = Between {
            registry: to_registry.endpoint(),
            place: bucket(&self.s3, to_bucket.endpoint(), None),
        };
        super::take(&Operation::push(&self.first(), "v10").between(&between))?;
        let mut ratios = Vec::new();
        for run in 0..bench.runs() {
            self.guest.work(0.04)?;
            let taken = |version: String| {
                Operation::snapshot(&self.first(), &version, self.source())
                    .paged(false)
                    .parent("v10")
            };
            let alone = taken(format!("alone-{run}"));
            self.settled(self.source())?;
            let alone = crate::process::timed(&mut [alone.command()?])?.seconds;
            super::take(&Operation::remove(&self.first(), &format!("alone-{run}")))?;
            let before = length(&self.s3.dir())?;
            let whole = taken(format!("far-{run}")).between(&between);
            self.settled(self.source())?;
            let whole = crate::process::timed(&mut [whole.command()?])?.seconds;
            let sent = (length(&self.s3.dir())? - before) as f64;
            let least = alone + sent / FAR.bytes_per_second as f64 + 0.1;
            say(&format!(
                "{NAME}: far: {whole:.3} s; alone {alone:.3} s, sent {sent}"
            ));
            ratios.push(whole / least);
        }
        let what = "publishing 4 % far ÷ (taking it + bytes ÷ bandwidth + 4 × 25 ms)";
        bench.figure(NAME, what, median(&ratios), 1.3);
        Ok(())
    }

    /// 20,000 files through a bucket, in both formats.
    fn small(&self, bench: &mut Bench) -> Result<()> {
        let titles = [
            "20,000 files of 4 KiB: published to S3",
            "20,000 files of 4 KiB: first restored elsewhere, from S3",
        ];
        let specs = titles
            .into_iter()
            .zip([0.3, 0.5])
            .map(|(title, most)| Spec {
                durability: if most < 0.4 { FULL } else { NOT_SYNCED }.into(),
                ..self.spec(title, "the same in format v1", Target::Ratio(most))
            });
        let [published, restored]: [Spec; 2] = specs.collect::<Vec<_>>().try_into().expect("two");
        if !bench.wants(&published) && !bench.wants(&restored) {
            return Ok(());
        }
        let source = self.dir.join("small");
        super::small::tree(20_000 / bench.divisor, 4096).write_to(&source)?;
        let stores = ["small-v1", "small-v2"].map(|name| self.dir.join(name));
        super::take(&Operation::snapshot(&stores[0], "v1", &source))?;
        super::take(&Operation::snapshot(&stores[1], "v1", &source).paged(false))?;
        let between = |what: &str, run: usize| {
            let layouts = self.dir.join(format!("small-layouts-{what}-{run}"));
            Between::layouts(&layouts, bucket(&self.s3, self.s3.endpoint(), None))
        };
        let push = |index: usize, run| {
            Operation::push(&stores[index], "v1").between(&between(&index.to_string(), run))
        };
        let empty = |_| {
            self.s3.clear();
            self.settled(&stores[0].join("storage"))
        };
        let peer = Side::new(empty, |run| commands(&push(0, run)));
        let ours = Side::new(empty, |run| push(1, run));
        bench.compare(published, Some(&peer), &ours)?;
        self.s3.clear();
        for index in 0..2 {
            super::take(&push(index, usize::MAX))?;
        }
        let settled = |_| self.settled(&self.s3.dir());
        let restore = |index: usize, run| {
            let node = self.dir.join(format!("small-node-{index}-{run}"));
            let output = self.dir.join(format!("small-output-{index}-{run}"));
            Operation::restore(&node, "v1", &output)
                .between(&between(&index.to_string(), usize::MAX))
        };
        let peer = Side::new(settled, |run| commands(&restore(0, run)));
        let ours = Side::new(settled, |run| restore(1, run));
        if bench.compare(restored, Some(&peer), &ours)? {
            super::check(&source, &self.dir.join("small-output-1-1"))?;
        }
        Ok(())
    }
}

fn commands(operation: &Operation) -> Vec<Command> {
    vec![operation.command().expect("this program has a path")]
}

/// Bytes of all files below a directory, by their lengths.
fn length(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += match metadata.is_dir() {
            true => length(&entry.path())?,
            false => metadata.len(),
        };
    }
    Ok(sum)
}

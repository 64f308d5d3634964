//! A guest that is paused ten times, and two hundred times: what its checkpoints store, and how long they and their restores take.
//!
//! All rows are of format v2 but where they say v1. "Packs alone" means that no file is cached; the rows with an entry say so.

use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::fsstat::allocated_bytes;
use testkit::mount::{Kind, LoopMount};

use super::{FULL, MIB, NOT_SYNCED};
use crate::guest::Guest;
use crate::measure::{Bench, Side, Spec, Target};
use crate::operation::Operation;
use crate::process::{cp, sync_filesystem};
use crate::{Result, say, settle};

/// What its rows' names begin with.
pub(crate) const NAME: &str = "chain";

/// The part of the pages that change before each of the checkpoints 2 to 10.
pub(super) const STEPS: [f64; 9] = [0.04, 0.02, 0.14, 0.03, 0.002, 0.22, 0.05, 0.07, 0.04];
const IDLE: usize = 4;
const MANY: u64 = 200;

/// Runs it.
pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let dir = bench.dir.join(NAME);
    say(&format!("{NAME}: writing the guest"));
    let guest = Guest::start(&dir.join("source"), bench.divisor)?;
    let mut chain = Chain { dir, guest };
    chain.first(bench)?;
    chain.ten(bench)?;
    chain.restores(bench)?;
    chain.near(bench, Kind::Xfs)?;
    chain.near(bench, Kind::Ext4)?;
    chain.two_hundred(bench)
}

struct Chain {
    dir: PathBuf,
    guest: Guest,
}

impl Chain {
    fn source(&self) -> &Path {
        &self.guest.dir
    }

    fn store(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn scratch(&self) -> PathBuf {
        self.dir.join("scratch")
    }

    fn spec(&self, title: &'static str, durability: &'static str, target: Target) -> Spec {
        let data = self.guest.data();
        Spec {
            case: NAME.into(),
            title: title.into(),
            durability: durability.into(),
            peer: match durability {
                FULL => "cp --sparse=always + sync -f",
                _ => "cp --sparse=always",
            }
            .into(),
            target,
            data,
            memory: 96 * MIB + data / 4096 * 24,
        }
    }

    fn settled(&self, read: &Path) -> Result<()> {
        super::settled(&self.scratch(), read)
    }

    fn copy(&self, to: &Path, synced: bool) -> Vec<Command> {
        let mut commands = vec![cp(&["--sparse=always"], self.source(), to)];
        if synced {
            commands.push(sync_filesystem(to.parent().unwrap_or(&self.dir)));
        }
        commands
    }

    /// The first checkpoint, compressed and not.
    fn first(&self, bench: &mut Bench) -> Result<()> {
        let rows = [
            ("first capture, zstd:1", false, 5.0),
            ("first capture, not compressed", true, 1.8),
        ];
        for (title, plain, ratio) in rows {
            let spec = self.spec(title, FULL, Target::Ratio(ratio));
            let output = self.scratch().join("output");
            let peer = Side::new(
                |_| self.settled(self.source()),
                |_| self.copy(&output, true),
            );
            let ours = Side::new(
                |_| self.settled(self.source()),
                |_| Operation::snapshot(&output, "v1", self.source()).paged(plain),
            );
            bench.compare(spec, Some(&peer), &ours)?;
        }
        Ok(())
    }

    /// Ten checkpoints in a store of each format, and in restic's, if it is here.
    fn ten(&mut self, bench: &mut Bench) -> Result<()> {
        let (v2, v1) = (self.store("v2"), self.store("v1"));
        let restic = Restic::new(&self.store("restic"))?;
        let mut grown: [Vec<f64>; 3] = Default::default();
        let mut take = |source: &Path, number: usize| -> Result<[f64; 3]> {
            let version = format!("v{number}");
            let before = [&v2, &v1].map(|store| stored(store));
            super::take(&Operation::snapshot(&v2, &version, source).paged(false))?;
            super::take(&Operation::snapshot(&v1, &version, source))?;
            let [two, one] = [0, 1].map(|index| stored([&v2, &v1][index]) - before[index]);
            let stored = [two, one, restic.backup(source)?];
            for (grown, stored) in grown.iter_mut().zip(stored) {
                grown.push(stored / MIB as f64);
            }
            Ok(stored)
        };
        say(&format!("{NAME}: ten checkpoints"));
        let first = take(self.source(), 1)?;
        let mut sums = [0.0; 3];
        let mut idle = 0.0;
        for (index, part) in STEPS.into_iter().enumerate() {
            self.guest.work(part)?;
            let stored = take(self.source(), index + 2)?;
            for (sum, stored) in sums.iter_mut().zip(stored) {
                *sum += stored;
            }
            if index == IDLE {
                idle = stored[0];
            }
            if index + 2 == STEPS.len() {
                self.capture(bench, &v2)?;
            }
        }
        let here = if restic.is_here { 3 } else { 2 };
        for (line, grown) in ["v2", "v1", "restic"].into_iter().zip(grown).take(here) {
            bench.series(NAME, "stored by each checkpoint", line, "MiB", grown);
        }
        let gib = self.guest.memory_data() as f64 / (400.0 * MIB as f64);
        bench.figure(
            NAME,
            "first checkpoint, stored ÷ data",
            first[0] / self.guest.data() as f64,
            0.42,
        );
        bench.figure(
            NAME,
            "checkpoints 2–10, stored ÷ v1's",
            sums[0] / sums[1],
            1.0 / 70.0,
        );
        if restic.is_here {
            bench.figure(
                NAME,
                "checkpoints 2–10, stored ÷ restic's",
                sums[0] / sums[2],
                0.35,
            );
        }
        let of_idle = idle / MIB as f64 / gib;
        bench.figure(
            NAME,
            "checkpoint of an idle guest (0.2 %), MiB a GiB",
            of_idle,
            1.0,
        );
        Ok(())
    }

    /// A checkpoint of 4 % that changed, again and again against the same parent.
    fn capture(&mut self, bench: &mut Bench, store: &Path) -> Result<()> {
        let spec = self.spec("capture of 4 % changed", FULL, Target::Ratio(1.5));
        let spec = Spec {
            peer: "cp --sparse=always".into(),
            ..spec
        };
        if !bench.wants(&spec) {
            return Ok(());
        }
        let parent = format!("v{}", STEPS.len());
        let (source, output) = (self.source(), self.scratch().join("output"));
        let peer = Side::new(|_| self.settled(source), |_| self.copy(&output, false));
        let ours = Side::new(
            |run| {
                if run > 0 {
                    super::take(&Operation::remove(store, &format!("again-{}", run - 1)))?;
                }
                self.settled(source)
            },
            |run| {
                Operation::snapshot(store, &format!("again-{run}"), source)
                    .paged(false)
                    .parent(&parent)
            },
        );
        bench.compare(spec, Some(&peer), &ours)?;
        Ok(())
    }

    /// Restores of the last of ten.
    fn restores(&self, bench: &mut Bench) -> Result<()> {
        let store = self.store("v2");
        let title = "restore from packs alone, ten checkpoints";
        self.restore(bench, title, &store, "v10", 2.2)?;
        self.extents(bench, &store, "v10")?;
        let spec = self.spec(
            "restore, read-only, with an entry",
            NOT_SYNCED,
            Target::Seconds(0.010),
        );
        if !bench.wants(&spec) {
            return Ok(());
        }
        super::take(
            &Operation::snapshot(&store, "frozen", self.source())
                .paged(false)
                .read_only(true),
        )?;
        let output = self.scratch().join("output");
        self.settled(self.source())?;
        super::take(&Operation::restore(&store, "frozen", &output))?;
        let peer = Side::new(
            |_| self.settled(self.source()),
            |_| self.copy(&output, false),
        );
        let ours = Side::new(
            |_| self.settled(self.source()),
            |_| Operation::restore(&store, "frozen", &output),
        );
        bench.compare(spec, Some(&peer), &ours)?;
        super::check(self.source(), &output)
    }

    fn restore(
        &self,
        bench: &mut Bench,
        title: &'static str,
        store: &Path,
        version: &str,
        ratio: f64,
    ) -> Result<()> {
        let spec = self.spec(title, NOT_SYNCED, Target::Ratio(ratio));
        if !bench.wants(&spec) {
            return Ok(());
        }
        let output = self.scratch().join("output");
        let peer = Side::new(
            |_| self.settled(self.source()),
            |_| self.copy(&output, false),
        );
        let ours = Side::new(
            |_| self.settled(&store.join("storage")),
            |_| Operation::restore(store, version, &output).without_cache(),
        );
        bench.compare(spec, Some(&peer), &ours)?;
        super::check(self.source(), &output)
    }

    /// In how many pieces the filesystem has a restored memory.
    fn extents(&self, bench: &mut Bench, store: &Path, version: &str) -> Result<()> {
        self.settled(self.source())?;
        let (copied, restored) = (
            self.scratch().join("copied"),
            self.scratch().join("restored"),
        );
        crate::process::timed(&mut self.copy(&copied, true))?;
        super::take(&Operation::restore(store, version, &restored).without_cache())?;
        settle::sync();
        let pieces = |dir: &Path| pieces(&dir.join("memory"));
        if let (Some(ours), Some(theirs)) = (pieces(&restored), pieces(&copied)) {
            let what = "extents of a restored memory ÷ of one that cp made";
            bench.figure(NAME, what, ours / theirs.max(1.0), 4.0);
        }
        Ok(())
    }

    /// A restore that clones, or copies, what it knows of the parent.
    fn near(&mut self, bench: &mut Bench, kind: Kind) -> Result<()> {
        let (title, ratio) = match kind {
            Kind::Ext4 => ("restore, an entry of the parent here, copied (ext4)", 1.5),
            _ => ("restore, an entry of the parent here, cloned (XFS)", 0.8),
        };
        let spec = self.spec(title, NOT_SYNCED, Target::Ratio(ratio));
        if !bench.wants(&spec) {
            return Ok(());
        }
        let mount = match LoopMount::new(kind, 12 << 30, &[]) {
            Ok(mount) => mount,
            Err(why) => {
                say(&format!("{NAME}: no {kind:?}: {why:?}"));
                return Ok(());
            }
        };
        let (store, output) = (mount.path().join("store"), mount.path().join("output"));
        super::take(&Operation::snapshot(&store, "v1", self.source()).paged(false))?;
        let restore = |version: &str| {
            let restore = Operation::restore(&store, version, &output);
            match kind {
                Kind::Ext4 => restore.copying(),
                _ => restore,
            }
        };
        super::take(&restore("v1"))?;
        self.guest.work(0.03)?;
        super::take(
            &Operation::snapshot(&store, "v2", self.source())
                .paged(false)
                .parent("v1"),
        )?;
        let prepare = |_| {
            settle::remove(&output)?;
            self.settled(self.source())
        };
        let peer = Side::new(prepare, |_| self.copy(&output, false));
        let ours = Side::new(prepare, |_| restore("v2"));
        bench.compare(spec, Some(&peer), &ours)?;
        super::check(self.source(), &output)
    }

    /// Two hundred checkpoints of one per cent.
    fn two_hundred(&mut self, bench: &mut Bench) -> Result<()> {
        let title = "restore from packs alone, two hundred checkpoints";
        if !bench.wants(&self.spec(title, NOT_SYNCED, Target::None)) {
            return Ok(());
        }
        say(&format!("{NAME}: two hundred checkpoints"));
        let store = self.store("many");
        super::take(&Operation::snapshot(&store, "v0", self.source()).paged(false))?;
        let (mut written, mut changed, mut seconds) = (0.0, 0.0, Vec::new());
        let mut packs = 0;
        for number in 1..=MANY {
            changed += self.guest.work(0.01)? as f64 * 4096.0 + 390_000.0;
            let before = stored(&store);
            let take =
                Operation::snapshot(&store, &format!("v{number}"), self.source()).paged(false);
            let timed = crate::process::timed(&mut [take.command()?])?;
            seconds.push(timed.seconds);
            packs = timed.outcome()?.packs;
            written += stored(&store) - before;
        }
        let last = format!("v{MANY}");
        self.restore(bench, title, &store, &last, 3.5)?;
        let what = "200 checkpoints: packs that the last one names";
        bench.figure(NAME, what, packs as f64, 160.0);
        let slowest = seconds.iter().copied().fold(0.0, f64::max);
        // What was written is compressed; as much as a first capture compresses.
        bench.figure(
            NAME,
            "200 checkpoints of 1 %: stored ÷ changed",
            written / changed,
            1.5,
        );
        bench.figure(
            NAME,
            "200 checkpoints: slowest ÷ tenth",
            slowest / seconds[9],
            2.0,
        );
        let what = "time of each of 200 checkpoints";
        bench.series(NAME, what, "v2", "seconds", seconds);
        for number in 0..MANY {
            super::take(&Operation::remove(&store, &format!("v{number}")))?;
        }
        let alone = self.store("alone");
        super::take(&Operation::snapshot(&alone, "v1", self.source()).paged(false))?;
        let left = stored(&store) / stored(&alone);
        bench.figure(
            NAME,
            "then all but the last removed: stored ÷ a first capture's",
            left,
            2.0,
        );
        Ok(())
    }
}

/// Bytes allocated in a store, without what is cached.
fn stored(store: &Path) -> f64 {
    allocated_bytes(&store.join("storage")).unwrap_or_default() as f64
}

/// By `filefrag`, where that is.
fn pieces(file: &Path) -> Option<f64> {
    let said = Command::new("filefrag").arg(file).output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    let (_, after) = said.rsplit_once(": ")?;
    after.split(' ').next()?.parse().ok()
}

/// Debian's restic, if it is installed.
struct Restic {
    repository: PathBuf,
    is_here: bool,
}

impl Restic {
    fn new(repository: &Path) -> Result<Self> {
        let restic = Self {
            repository: repository.into(),
            is_here: Command::new("restic").arg("version").output().is_ok(),
        };
        if restic.is_here {
            restic.run(&["init"])?;
        } else {
            say("restic is not installed: no row against it");
        }
        Ok(restic)
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new("restic");
        command.env("RESTIC_PASSWORD", "bench").arg("--no-cache");
        let status = command.arg("-q").arg("-r").arg(&self.repository);
        let status = status.args(arguments).status()?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("restic {arguments:?} failed").into()),
        }
    }

    /// What its repository gained, in bytes.
    fn backup(&self, source: &Path) -> Result<f64> {
        if !self.is_here {
            return Ok(0.0);
        }
        let before = allocated_bytes(&self.repository)?;
        self.run(&["backup", &source.display().to_string()])?;
        Ok((allocated_bytes(&self.repository)? - before) as f64)
    }
}

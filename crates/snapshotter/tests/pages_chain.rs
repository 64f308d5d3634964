//! Chains of checkpoints in pages, by random edits of random files: any of them comes back as it was, whichever others were
//! removed and collected meanwhile, whatever its parent was, and where some of the chain are of format v1.

#![expect(
    clippy::print_stderr,
    reason = "counts and seeds are for whoever reads the log"
)]

use crate::support_b;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use snapshotter::{Format, GcRequest, ParentChoice, SnapshotRequest, WarningKind};
use support_b::Handle;
use support_b::outside::{assert_at_rest, assert_rows_and_files_agree};
use support_b::steps::quick_dir;
use testkit::mount::{Kind, LoopMount, or_skip};
use testkit::prng::Prng;

/// Chains, each of its own seed.
const CHAINS: u64 = 3;
const STEPS: u64 = 60;
const FILES: u64 = 5;
const PAGE: u64 = 4096;

/// What a directory has: each file's bytes.
type Files = BTreeMap<String, Vec<u8>>;

fn read(dir: &Path) -> Files {
    let entries = fs::read_dir(dir).unwrap();
    let read = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read(entry.path()).unwrap())
    };
    entries.map(|entry| read(entry.unwrap())).collect()
}

struct Chain {
    random: Prng,
    dir: PathBuf,
    root: PathBuf,
    output: PathBuf,
    /// What each snapshot has to give back.
    taken: BTreeMap<String, Files>,
}

impl Chain {
    fn file(&mut self) -> PathBuf {
        self.dir.join(format!("file-{}", self.random.below(FILES)))
    }

    fn open(&mut self) -> (File, u64) {
        let path = self.file();
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        let file = file.unwrap();
        let size = file.metadata().unwrap().len();
        (file, size)
    }

    /// A page's place in a file, or behind its end.
    fn place(&mut self, size: u64) -> u64 {
        self.random.below(size / PAGE + 4) * PAGE
    }

    fn edit(&mut self) {
        match self.random.below(12) {
            0..3 => self.write(),
            3 => self.write_a_few_bytes(),
            4 => self.move_pages(),
            5 => self.zero(),
            6 => self.resize(),
            7 => self.swap(),
            8 => self.punch(),
            9 => self.link(),
            10 => self.write_again(),
            _ => self.remove(),
        }
    }

    fn write(&mut self) {
        let (file, size) = self.open();
        let at = self.place(size);
        let mut bytes = vec![0; (1 + self.random.below(40)) as usize * PAGE as usize];
        self.random.fill(&mut bytes);
        file.write_all_at(&bytes, at).unwrap();
    }

    fn write_a_few_bytes(&mut self) {
        let (file, size) = self.open();
        let at = self.random.below(size + 5000);
        file.write_all_at(b"a few bytes", at).unwrap();
    }

    /// From one file to another, perhaps the same.
    fn move_pages(&mut self) {
        let ((from, size), (to, other)) = (self.open(), self.open());
        let (at, place) = (self.place(size), self.place(other));
        let mut bytes = vec![0; 8 * PAGE as usize];
        let read = from.read_at(&mut bytes, at).unwrap();
        to.write_all_at(&bytes[..read], place).unwrap();
    }

    fn zero(&mut self) {
        let (file, size) = self.open();
        let at = self.place(size);
        file.write_all_at(&[0; 3 * PAGE as usize], at).unwrap();
    }

    fn punch(&mut self) {
        let (file, size) = self.open();
        let (at, length) = (self.random.below(size + 1), 1 + self.random.below(6 * PAGE));
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, flags, at, length).unwrap();
    }

    /// A second name of one file, or the only name of it from then on.
    fn link(&mut self) {
        let (one, other) = (self.file(), self.file());
        if one.exists() && !other.exists() {
            fs::hard_link(&one, &other).unwrap();
            if self.random.below(2) == 0 {
                fs::remove_file(&one).unwrap();
            }
        }
    }

    /// The same bytes, in another inode and without holes.
    fn write_again(&mut self) {
        let path = self.file();
        if path.exists() {
            let bytes = fs::read(&path).unwrap();
            fs::remove_file(&path).unwrap();
            fs::write(&path, bytes).unwrap();
        }
    }

    fn resize(&mut self) {
        let (file, size) = self.open();
        file.set_len(self.random.below(size * 3 / 2 + 10_000))
            .unwrap();
    }

    fn swap(&mut self) {
        let (one, other) = (self.file(), self.file());
        if one.exists() && other.exists() {
            let aside = self.dir.join("aside");
            fs::rename(&one, &aside).unwrap();
            if other.exists() {
                fs::rename(&other, &one).unwrap();
            }
            fs::rename(&aside, &other).unwrap();
        }
    }

    fn remove(&mut self) {
        if self.random.below(4) == 0 {
            let _ = fs::remove_file(self.file());
        }
    }

    /// One of those that were taken and are still here.
    fn any(&mut self) -> String {
        let any = self.random.below(self.taken.len() as u64) as usize;
        self.taken.keys().nth(any).unwrap().clone()
    }

    /// Takes a checkpoint, from whatever parent.
    fn take(&mut self, handle: &Handle, step: u64) {
        let parent = match self.random.below(6) {
            0 => ParentChoice::None,
            1 => ParentChoice::Latest,
            2 if !self.taken.is_empty() => ParentChoice::Snapshot(self.any().parse().unwrap()),
            _ => ParentChoice::Origin,
        };
        let format = match self.random.below(8) {
            0 => Format::V1,
            _ => Format::V2,
        };
        let name = ["vm", "fork"][self.random.below(2) as usize];
        let request = SnapshotRequest::new(name, format!("v{step:03}"), &self.dir)
            .format(format)
            .parent(if format == Format::V1 {
                ParentChoice::default()
            } else {
                parent
            });
        let report = handle.snapshot(&request).unwrap();
        // A parent of format v1 has nothing to take over.
        for warning in &report.warnings {
            assert_eq!(warning.kind, WarningKind::ParentIncomplete, "{warning:?}");
            assert!(warning.message.contains("of format v1"), "{warning:?}");
        }
        let taken = read(&self.dir);
        self.taken.insert(format!("{name}:v{step:03}"), taken);
    }

    fn restore(&self, handle: &Handle, reference: &str) {
        handle.restore(reference, &self.output).unwrap();
        let found = read(&self.output);
        let wanted = &self.taken[reference];
        let names: Vec<_> = found.keys().collect();
        assert_eq!(names, wanted.keys().collect::<Vec<_>>(), "{reference}");
        for (name, bytes) in &found {
            assert!(
                *bytes == wanted[name],
                "{reference}: {name} is another file"
            );
        }
        fs::remove_dir_all(&self.output).unwrap();
    }

    /// What happens between two checkpoints.
    fn live(&mut self, handle: &Handle) {
        let reference = self.any();
        match self.random.below(7) {
            0 | 1 => self.restore(handle, &reference),
            2 => {
                handle.remove(&reference).unwrap();
                self.taken.remove(&reference);
            }
            3 => drop(fs::remove_dir_all(self.root.join("digests"))),
            4 => self.collect(handle),
            // It goes on from an older one.
            5 => {
                fs::remove_dir_all(&self.dir).unwrap();
                handle.restore(&reference, &self.dir).unwrap();
            }
            _ => {}
        }
    }

    /// Gives up what was used least recently.
    fn collect(&mut self, handle: &Handle) {
        let stored = handle.usage().unwrap().stored_bytes;
        let request = GcRequest::new()
            .max_bytes(stored - stored / 4)
            .min_retention_period(std::time::Duration::ZERO)
            .include_unpublished(true);
        let report = handle.gc(&request).unwrap();
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
        for released in report.released {
            let reference = released.reference.to_string();
            assert!(self.taken.remove(&reference).is_some(), "{reference}");
        }
    }

    /// Everything that is left comes back, and then nothing is left.
    fn end(&self, handle: Handle) {
        handle.assert_clean();
        for reference in self.taken.keys() {
            self.restore(&handle, reference);
        }
        for reference in self.taken.keys() {
            handle.remove(reference).unwrap();
        }
        handle.close().unwrap();
        assert_at_rest(&self.root);
        assert_rows_and_files_agree(&self.root);
    }
}

fn run(seed: u64, home: &Path) {
    eprintln!("SNAPSHOTTER_CHAIN_SEED={seed}");
    let place = |name| home.join(name);
    let mut chain = Chain {
        random: Prng::new(seed),
        dir: place("dir"),
        root: place("root"),
        output: place("output"),
        taken: BTreeMap::new(),
    };
    fs::create_dir(&chain.dir).unwrap();
    let mut handle = Handle::open(&chain.root).unwrap();
    for step in 0..STEPS {
        for _ in 0..1 + chain.random.below(6) {
            chain.edit();
        }
        chain.take(&handle, step);
        chain.live(&handle);
        if chain.taken.is_empty() {
            chain.take(&handle, STEPS + step);
        }
        if step % 20 == 19 {
            handle.assert_clean();
            handle.close().unwrap();
            handle = Handle::open(&chain.root).unwrap();
        }
    }
    chain.end(handle);
}

/// The one that is asked for, or so many.
fn seeds(count: u64) -> std::ops::Range<u64> {
    match std::env::var("SNAPSHOTTER_CHAIN_SEED") {
        Ok(seed) => seed.parse().map(|seed| seed..seed + 1).unwrap(),
        Err(_) => 7..7 + count,
    }
}

#[test]
fn any_checkpoint_of_a_chain_comes_back_whatever_was_removed() {
    for seed in seeds(CHAINS) {
        run(seed, quick_dir().path());
    }
}

/// Restores are clones of cache entries there, with the pages written that differ.
#[test]
fn any_checkpoint_of_a_chain_comes_back_where_files_are_cloned() {
    if let Some(mount) = or_skip(LoopMount::new(Kind::Xfs, 512 << 20, &[])) {
        for seed in seeds(CHAINS - 1) {
            let home = mount.path().join(seed.to_string());
            fs::create_dir(&home).unwrap();
            run(seed, &home);
        }
    }
}

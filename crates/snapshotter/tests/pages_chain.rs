//! Chains of checkpoints in pages, by random edits of random files: any of them comes back as it was, whichever others were
//! removed and collected meanwhile.

#![expect(
    clippy::print_stderr,
    reason = "counts and seeds are for whoever reads the log"
)]

mod support_b;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use snapshotter::{Format, ParentChoice, SnapshotRequest};
use support_b::Handle;
use support_b::outside::{assert_at_rest, assert_rows_and_files_agree};
use support_b::steps::quick_dir;
use testkit::prng::Prng;

const STEPS: u64 = 80;
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
        match self.random.below(9) {
            0..3 => self.write(),
            3 => self.write_a_few_bytes(),
            4 => self.move_pages(),
            5 => self.zero(),
            6 => self.resize(),
            7 => self.swap(),
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

    /// Takes a checkpoint, from whatever parent.
    fn take(&mut self, handle: &Handle, step: u64) {
        let parent = match self.random.below(6) {
            0 => ParentChoice::None,
            1 => ParentChoice::Latest,
            2 if !self.taken.is_empty() => {
                let any = self.random.below(self.taken.len() as u64) as usize;
                let reference = self.taken.keys().nth(any).unwrap();
                ParentChoice::Snapshot(reference.parse().unwrap())
            }
            _ => ParentChoice::Origin,
        };
        let request = SnapshotRequest::new("vm", format!("v{step:03}"), &self.dir)
            .format(Format::V2)
            .parent(parent);
        let report = handle.snapshot(&request).unwrap();
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
        self.taken.insert(format!("vm:v{step:03}"), read(&self.dir));
    }

    fn restore(&self, handle: &Handle, reference: &str, output: &Path) {
        handle.restore(reference, output).unwrap();
        let found = read(output);
        let wanted = &self.taken[reference];
        let names: Vec<_> = found.keys().collect();
        assert_eq!(names, wanted.keys().collect::<Vec<_>>(), "{reference}");
        for (name, bytes) in &found {
            assert!(
                *bytes == wanted[name],
                "{reference}: {name} is another file"
            );
        }
        fs::remove_dir_all(output).unwrap();
    }
}

#[test]
fn any_checkpoint_of_a_chain_comes_back_whatever_was_removed() {
    let seed = std::env::var("SNAPSHOTTER_CHAIN_SEED").map_or(7, |seed| seed.parse().unwrap());
    eprintln!("SNAPSHOTTER_CHAIN_SEED={seed}");
    let home = quick_dir();
    let (root, output) = (home.path().join("root"), home.path().join("output"));
    let dir = home.path().join("dir");
    fs::create_dir(&dir).unwrap();
    let mut chain = Chain {
        random: Prng::new(seed),
        dir,
        taken: BTreeMap::new(),
    };
    let handle = Handle::open(&root).unwrap();
    for step in 0..STEPS {
        for _ in 0..1 + chain.random.below(6) {
            chain.edit();
        }
        chain.take(&handle, step);
        let any = chain.random.below(chain.taken.len() as u64) as usize;
        let reference = chain.taken.keys().nth(any).unwrap().clone();
        match chain.random.below(5) {
            0 | 1 => chain.restore(&handle, &reference, &output),
            2 => {
                handle.remove(&reference).unwrap();
                chain.taken.remove(&reference);
            }
            3 => drop(fs::remove_dir_all(root.join("digests"))),
            _ => {}
        }
    }
    handle.assert_clean();
    for reference in chain.taken.keys() {
        chain.restore(&handle, reference, &output);
    }
    for reference in chain.taken.keys() {
        handle.remove(reference).unwrap();
    }
    handle.close().unwrap();
    assert_at_rest(&root);
    assert_rows_and_files_agree(&root);
}

//! Random operations, by several handles at once, against a model that is a map of names to trees.

use crate::support_a;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use snapshotter::{
    Durability, ErrorKind, File, LinkMode, Reference, RestoreRequest, SnapshotRequest, Snapshotter,
};
use support_a::*;
use testkit::compare::assert_same_with;
use testkit::prng::Prng;
use testkit::{Content, Tree};

const NAMES: [&str; 3] = ["vm", "vm/disk", "a-b"];
const VERSIONS: u64 = 4;
const SLOTS: u64 = 8;
const MODES: [LinkMode; 4] = [
    LinkMode::Auto,
    LinkMode::Hardlink,
    LinkMode::Reflink,
    LinkMode::Copy,
];

/// A directory that changes a little from snapshot to snapshot, as plain data: what each of its paths is now.
#[derive(Clone, Default)]
struct Changing(BTreeMap<u64, Thing>);

#[derive(Clone, Copy)]
enum Thing {
    /// One of few contents, one of few modes, one of few times: so that bytes, or all, are equal by chance.
    File(u64, u32, i64),
    Link(u64),
    SecondName(u64),
    Directory(u32),
}

impl Changing {
    fn change(&mut self, random: &mut Prng) {
        for _ in 0..=random.below(4) {
            let slot = random.below(SLOTS);
            let thing = match random.below(8) {
                0 => Thing::Link(random.below(SLOTS)),
                1 => Thing::SecondName(random.below(SLOTS)),
                2 => Thing::Directory(*random.pick(&[0o755, 0o700])),
                _ => Thing::File(
                    random.below(7),
                    *random.pick(&[0o644, 0o600]),
                    *random.pick(&[1000, 2000]),
                ),
            };
            if random.below(6) == 0 {
                self.0.remove(&slot);
            } else {
                self.0.insert(slot, thing);
            }
        }
    }

    fn tree(&self) -> Tree {
        let path = |slot: u64| format!("d{}/{slot}", slot % 3);
        let mut tree = Tree::new();
        for (slot, thing) in &self.0 {
            let at = path(*slot);
            tree = match *thing {
                Thing::File(content, mode, seconds) => tree
                    .file(&at, contents(content))
                    .mode(&at, mode)
                    .mtime(&at, seconds, 7),
                Thing::Link(to) => tree.symlink(&at, path(to)).mtime(&at, 3000, 1),
                Thing::Directory(mode) => tree.dir(&at).mode(&at, mode).mtime(&at, 4000, 2),
                Thing::SecondName(_) => tree,
            };
        }
        for (slot, thing) in &self.0 {
            if let Thing::SecondName(to) = *thing
                && let Some(Thing::File(..)) = self.0.get(&to)
            {
                tree = tree.hardlink(path(*slot), path(to));
            }
        }
        for directory in 0..3 {
            let at = format!("d{directory}");
            tree = tree.dir(&at).mtime(&at, 5000 + directory, 3);
        }
        tree
    }
}

fn contents(number: u64) -> Content {
    match number {
        0 => Content::Bytes(Vec::new()),
        1 => Content::Sparse {
            size: 3 << 20,
            extents: vec![(1 << 20, 1, 100_000)],
        },
        2 => Content::Random {
            seed: 2,
            len: (1 << 20) + 1,
        },
        number => Content::Random {
            seed: number,
            len: 1000 * number,
        },
    }
}

/// Says which seed it was, if a test fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let line = format!("failed with seed {}\n", self.0);
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }
}

struct World {
    random: Prng,
    place: Place,
    handles: [Snapshotter; 2],
    changing: Changing,
    /// What each snapshot must restore to.
    model: BTreeMap<(String, String), Tree>,
    outputs: Vec<PathBuf>,
    steps: usize,
}

impl World {
    async fn new(seed: u64) -> Self {
        let place = Place::new();
        let handles = [place.open().await, place.open().await];
        Self {
            random: Prng::new(seed),
            place,
            handles,
            changing: Changing::default(),
            model: BTreeMap::new(),
            outputs: Vec::new(),
            steps: 0,
        }
    }

    fn handle(&mut self) -> Snapshotter {
        let number = self.random.below(2);
        self.handles[usize::from(number == 1)].clone()
    }

    fn any_name(&mut self) -> (String, String) {
        let name = *self.random.pick(&NAMES);
        (name.to_owned(), format!("v{}", self.random.below(VERSIONS)))
    }

    /// A snapshot there is, if there is any.
    fn some_name(&mut self) -> (String, String) {
        let names: Vec<_> = self.model.keys().cloned().collect();
        if names.is_empty() || self.random.below(10) == 0 {
            return self.any_name();
        }
        self.random.pick(&names).clone()
    }

    fn written(&mut self) -> (Tree, PathBuf) {
        self.changing.change(&mut self.random);
        let tree = self.changing.tree();
        let base = self.place.fresh();
        tree.write_to(&base).unwrap();
        (tree, base)
    }

    fn request(&mut self, (name, version): &(String, String), base: &Path) -> SnapshotRequest {
        SnapshotRequest::new(name, version, base)
            .file(File::new(".").read_only(self.random.below(2) == 0))
            .link_mode(*self.random.pick(&MODES))
    }

    async fn step(&mut self) {
        self.steps += 1;
        match self.random.below(12) {
            0..=3 => self.snapshot().await,
            4 | 5 => self.restore().await,
            6 => self.remove().await,
            7 => self.give_up().await,
            8 => self.reopen().await,
            9 => self.verify().await,
            10 => self.restore_while_removing().await,
            _ => self.snapshot_while_removing().await,
        }
        self.check_list().await;
    }

    async fn snapshot(&mut self) {
        let name = self.any_name();
        let (tree, base) = self.written();
        let request = self.request(&name, &base);
        let result = self.handle().snapshot(&request).await;
        self.expect_taken(name, tree, result);
        self.drop_source(&base);
    }

    fn expect_taken(
        &mut self,
        name: (String, String),
        tree: Tree,
        result: snapshotter::Result<snapshotter::SnapshotReport>,
    ) {
        match result {
            Ok(report) => {
                assert_eq!(report.reference.name(), name.0);
                assert!(!self.model.contains_key(&name), "taken twice");
                self.model.insert(name, tree);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
                assert!(self.model.contains_key(&name), "{error}");
            }
        }
    }

    /// The caller goes on with its life: the source stays, goes, or is replaced by other files.
    fn drop_source(&mut self, base: &Path) {
        match self.random.below(3) {
            0 => fs::remove_dir_all(base).unwrap(),
            1 => self.outputs.push(base.to_owned()),
            _ => {}
        }
    }

    async fn restore(&mut self) {
        let name = self.some_name();
        let handle = self.handle();
        // Over an old output, a source that is perhaps linked into the store, or into nothing.
        let output = match self.outputs.len() as u64 {
            0 => self.place.fresh(),
            count if self.random.below(2) == 0 => {
                let index = self.random.below(count);
                self.outputs[usize::try_from(index).unwrap()].clone()
            }
            _ => self.place.fresh(),
        };
        let request = self.restore_request(&name, &output);
        match (self.model.get(&name), handle.restore(&request).await) {
            (Some(tree), Ok(_)) => {
                self.check_output(tree, &output, true);
                self.outputs.push(output);
            }
            (None, Err(error)) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
            // A directory of an old output is where the snapshot has something else.
            (Some(_), Err(error)) if error.kind() == ErrorKind::AlreadyExists => {
                assert!(self.outputs.contains(&output), "{error}");
            }
            (_, result) => panic!("{name:?}: {result:?}"),
        }
    }

    fn restore_request(&mut self, name: &(String, String), output: &Path) -> RestoreRequest {
        let reference = Reference::new(&name.0, &name.1).unwrap();
        RestoreRequest::new(reference, output).link_mode(*self.random.pick(&MODES))
    }

    fn check_output(&self, tree: &Tree, output: &Path, may_have_more: bool) {
        let expected = self.place.fresh();
        tree.write_to(&expected).unwrap();
        let mut options = shared();
        options.subset = may_have_more;
        assert_same_with(&expected, output, &options);
        assert_no_litter(output);
        fs::remove_dir_all(expected).unwrap();
    }

    async fn remove(&mut self) {
        let name = self.some_name();
        let reference = Reference::new(&name.0, &name.1).unwrap();
        let result = self.handle().remove(&reference).await;
        match self.model.remove(&name) {
            Some(_) => drop(result.unwrap()),
            None => assert_eq!(result.unwrap_err().kind(), ErrorKind::NotFound),
        }
    }

    /// A snapshot whose future is dropped: it is there whole, or not at all.
    async fn give_up(&mut self) {
        let name = self.any_name();
        let (tree, base) = self.written();
        let request = self.request(&name, &base);
        let gate = Arc::new(Gate::default());
        let handle = self.handle().observed_by(gate.clone());
        let result = tokio::select! {
            biased;
            () = gate.reached() => None,
            result = handle.snapshot(&request) => Some(result),
        };
        gate.open();
        let weak = Arc::downgrade(&gate);
        drop((gate, handle));
        gone(weak).await;
        if let Some(result) = result {
            self.expect_taken(name, tree, result);
        }
    }

    async fn reopen(&mut self) {
        let number = usize::from(self.random.below(2) == 1);
        if self.random.below(2) == 0 {
            self.handles[number].close().await.unwrap();
        }
        let durability = *self
            .random
            .pick(&[Durability::Full, Durability::Background]);
        self.handles[number] = self
            .place
            .open_with(|config| config.durability(durability))
            .await;
    }

    async fn verify(&mut self) {
        assert_sound(&self.handle()).await;
    }

    async fn restore_while_removing(&mut self) {
        let name = self.some_name();
        let output = self.place.fresh();
        let request = self.restore_request(&name, &output);
        let reference = request.reference.clone();
        let [one, other] = &self.handles;
        let (restored, removed) = tokio::join!(one.restore(&request), other.remove(&reference));
        match self.model.remove(&name) {
            Some(tree) => {
                removed.unwrap();
                match restored {
                    Ok(_) => self.check_output(&tree, &output, false),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
                }
            }
            None => {
                assert_eq!(removed.unwrap_err().kind(), ErrorKind::NotFound);
                assert_eq!(restored.unwrap_err().kind(), ErrorKind::NotFound);
            }
        }
    }

    /// The removed snapshot very likely has bytes in common with the new ones.
    async fn snapshot_while_removing(&mut self) {
        let doomed = self.some_name();
        let names = [self.any_name(), self.any_name()];
        if names.contains(&doomed) || names[0] == names[1] {
            return;
        }
        let (tree, base) = self.written();
        let requests = names.each_ref().map(|name| self.request(name, &base));
        let reference = Reference::new(&doomed.0, &doomed.1).unwrap();
        let [one, other] = &self.handles;
        let (first, second, removed) = tokio::join!(
            one.snapshot(&requests[0]),
            other.snapshot(&requests[1]),
            other.remove(&reference)
        );
        assert_eq!(removed.is_ok(), self.model.remove(&doomed).is_some());
        for (name, result) in names.into_iter().zip([first, second]) {
            self.expect_taken(name, tree.clone(), result);
        }
    }

    async fn check_list(&mut self) {
        for handle in &self.handles {
            let listed: Vec<(String, String)> = handle
                .list()
                .await
                .unwrap()
                .into_iter()
                .map(|one| {
                    let version = one.reference.version().unwrap().to_owned();
                    (one.reference.name().to_owned(), version)
                })
                .collect();
            let names: Vec<&String> = listed.iter().map(|(name, _)| name).collect();
            assert!(names.is_sorted());
            let listed: BTreeSet<_> = listed.iter().collect();
            let expected: BTreeSet<_> = self.model.keys().collect();
            assert_eq!(listed, expected, "after {} steps", self.steps);
        }
    }

    /// One blob a content, one file a blob.
    async fn check_store(&self) {
        let mut checksums = BTreeSet::new();
        for (name, version) in self.model.keys() {
            let reference = Reference::new(name, version).unwrap();
            let details = self.handles[0].inspect(&reference).await.unwrap();
            checksums.extend(
                details
                    .files
                    .iter()
                    .map(|file| file.checksum.unwrap().hex()),
            );
        }
        let stored: BTreeSet<String> = self
            .place
            .blobs()
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(stored, checksums);
        let usage = self.handles[1].usage().await.unwrap();
        assert_eq!(usage.blobs, checksums.len() as u64);
        assert_eq!(usage.snapshots, self.model.len() as u64);
    }

    async fn finish(mut self) {
        self.check_store().await;
        for (name, tree) in self.model.clone() {
            let output = self.place.fresh();
            let request = self.restore_request(&name, &output);
            self.handle().restore(&request).await.unwrap();
            self.check_output(&tree, &output, false);
        }
        assert_sound(&self.handles[0]).await;
        for (name, version) in std::mem::take(&mut self.model).into_keys() {
            let reference = Reference::new(name, version).unwrap();
            self.handle().remove(&reference).await.unwrap();
        }
        let usage = self.handles[0].usage().await.unwrap();
        assert_eq!(
            (usage.snapshots, usage.blobs, usage.stored_bytes),
            (0, 0, 0)
        );
        for handle in &self.handles {
            handle.close().await.unwrap();
        }
        self.place.assert_empty();
        assert!(files_in(&self.place.root().join("leases")).is_empty());
    }
}

async fn run(seed: u64, steps: usize) {
    let seed = Seed(seed);
    let mut world = World::new(seed.0).await;
    for _ in 0..steps {
        world.step().await;
        if world.steps.is_multiple_of(10) {
            world.check_store().await;
        }
    }
    world.finish().await;
}

#[tokio::test]
async fn random_operations_do_what_the_model_does_1() {
    run(1, 60).await;
}

#[tokio::test]
async fn random_operations_do_what_the_model_does_2() {
    run(2, 60).await;
}

#[tokio::test]
async fn random_operations_do_what_the_model_does_3() {
    run(3, 60).await;
}

#[tokio::test]
async fn random_operations_do_what_the_model_does_4() {
    run(4, 60).await;
}

/// Another one each time; a failure says which.
#[tokio::test]
async fn random_operations_do_what_the_model_does_whatever_they_are() {
    for number in 0..2_u64 {
        run(RandomState::new().hash_one(number), 40).await;
    }
}

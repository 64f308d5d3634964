//! A store that lost its catalog: what becomes of its files, which snapshots get their names back, and that nothing is
//! ever deleted on the way.

use crate::support_a;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use snapshotter::{
    Config, Content, ContentProvider, ErrorKind, LinkMode, RebuildReport, RebuildRequest, Registry,
    RestoreRequest, SnapshotRequest, SnapshotState, Snapshotter, VerifyRequest,
};
use support_a::*;
use testkit::compare::assert_same;
use testkit::{Content as Bytes, Tree};

fn random(seed: u64) -> Bytes {
    Bytes::Random { seed, len: 100_000 }
}

fn vm(seed: u64) -> Tree {
    let sparse = Bytes::Sparse {
        size: 4 << 20,
        extents: vec![(0, seed, 65536), (3 << 20, seed + 1, 4096)],
    };
    Tree::new()
        .file("memory", sparse)
        .file("disk", random(seed))
        .file("base", random(1000))
        .file("state.json", "{}")
        .mtime("memory", OLD.0, OLD.1)
        .mtime("disk", OLD.0, OLD.1)
}

/// A node with `test:v1` and `test:v2`, which share two files; a registry and a place of contents beside it.
struct Scene {
    place: Place,
    one: PathBuf,
    two: PathBuf,
}

impl Scene {
    async fn new() -> Self {
        let place = Place::new();
        fs::create_dir(place.path("objects")).unwrap();
        Self {
            one: place.write("one", &vm(1)),
            two: place.write("two", &vm(10)),
            place,
        }
    }

    fn config(&self, remote: bool) -> Config {
        let config = Config::new(self.place.root());
        if !remote {
            return config;
        }
        let mut content = Content::new(ContentProvider::Fs);
        content.root = self.place.path("objects");
        let layouts = self.place.path("layouts");
        let registry = Registry::new(format!("oci-layout:{}", layouts.display()), "snapshots");
        config.registry(registry).content(content)
    }

    async fn open(&self, remote: bool) -> Snapshotter {
        Snapshotter::open(self.config(remote)).await.unwrap()
    }

    /// Takes `v1`, published if there is a registry, and `v2`, which stays here.
    async fn fill(&self, remote: bool) {
        let store = self.open(remote).await;
        let request = all_read_only("v1", &self.one).link_mode(LinkMode::Copy);
        store.snapshot(&request).await.unwrap();
        store
            .snapshot(&all("v2", &self.two).local(true))
            .await
            .unwrap();
        give(&store, "v1", &self.place.fresh()).await;
        store.close().await.unwrap();
    }

    fn metadata(&self) -> PathBuf {
        self.place.root().join("metadata")
    }

    fn lose_catalog(&self) {
        fs::remove_dir_all(self.metadata()).unwrap();
    }

    /// Zeroes the root page of an index: the tables can be read, and the database is damaged.
    fn break_index(&self) {
        break_index(&self.metadata().join("catalog.db"));
    }

    async fn rebuild(&self, remote: bool) -> RebuildReport {
        let config = self.config(remote);
        Snapshotter::rebuild(&config, &RebuildRequest::new())
            .await
            .unwrap()
    }

    /// What is stored, by name.
    fn stored(&self) -> BTreeSet<PathBuf> {
        self.place.blobs().into_iter().collect()
    }
}

fn names(report: &RebuildReport) -> Vec<String> {
    let mut names: Vec<String> = report
        .snapshots
        .iter()
        .map(|snapshot| snapshot.reference.to_string())
        .collect();
    names.sort();
    names
}

async fn assert_restores(store: &Snapshotter, version: &str, base: &Path, output: PathBuf) {
    give(store, version, &output).await;
    assert_same(base, &output);
}

#[tokio::test]
async fn what_no_known_snapshot_needs_becomes_one() {
    let scene = Scene::new().await;
    scene.fill(false).await;
    let before = scene.stored();
    scene.lose_catalog();
    let error = Snapshotter::open(scene.config(false)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.hint().unwrap().contains("`rebuild`"), "{error:?}");

    let report = scene.rebuild(false).await;
    assert_eq!(names(&report), [""; 0]);
    assert_eq!((report.checked_blobs, report.unnamed_blobs), (6, 6));
    assert_eq!(report.lost_and_found.len(), 1);
    assert_eq!((report.quarantined.len(), &report.old_catalog), (0, &None));
    assert_eq!(scene.stored(), before);

    let store = scene.open(false).await;
    assert_sound(&store).await;
    let listed = store.list().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].state, SnapshotState::Unpublished);
    let output = scene.place.fresh();
    let request = RestoreRequest::new(report.lost_and_found[0].clone(), &output);
    store.restore(&request).await.unwrap();
    for file in ["memory", "disk", "base", "state.json"] {
        let (_, checksum) = spf1(&scene.one.join(file));
        let found = output.join(checksum.strip_prefix("blake3:").unwrap());
        assert_eq!(
            fs::read(found).unwrap(),
            fs::read(scene.one.join(file)).unwrap()
        );
    }
    // What is taken again is here already; what is not wanted goes when it is asked for.
    let taken = take(&store, "v1", &scene.one).await;
    assert_eq!((taken.blobs_stored, taken.blobs_reused), (0, 4));
    store.remove(&report.lost_and_found[0]).await.unwrap();
    assert_eq!(store.usage().await.unwrap().blobs, 4);
    assert_restores(&store, "v1", &scene.one, scene.place.fresh()).await;
}

#[tokio::test]
async fn published_snapshots_get_their_names_back_from_the_registry() {
    let scene = Scene::new().await;
    scene.fill(true).await;
    // Another node's: it has one file in common with what is here.
    let elsewhere = Place::new();
    let mut config = scene.config(true);
    config.root_dir = elsewhere.root();
    let other = Snapshotter::open(config).await.unwrap();
    let base = elsewhere.write("base", &vm(30));
    let request = SnapshotRequest::new("other", "v1", &base);
    other.snapshot(&request).await.unwrap();

    scene.lose_catalog();
    let report = scene.rebuild(true).await;
    assert_eq!(names(&report), ["test:v1"]);
    assert!(report.snapshots[0].from_registry);
    assert_eq!(report.incomplete, [reference("other:v1")]);
    assert_eq!((report.unnamed_blobs, report.warnings.len()), (2, 0));
    let store = scene.open(true).await;
    assert_sound(&store).await;
    assert_restores(&store, "v1", &scene.one, scene.place.fresh()).await;
    let pull = snapshotter::PullRequest::new(reference("other:v1"));
    let pulled = store.pull(&pull).await.unwrap();
    assert_eq!((pulled.fetched_blobs, pulled.reused_blobs), (2, 2));
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_a_warning() {
    let scene = Scene::new().await;
    scene.fill(true).await;
    scene.lose_catalog();
    let mut config = scene.config(true);
    config.registry = Some(Registry::new("http://127.0.0.1:9", "snapshots").retries(0));
    let request = RebuildRequest::new();
    let report = Snapshotter::rebuild(&config, &request).await.unwrap();
    assert_eq!((report.snapshots.len(), report.warnings.len()), (0, 1));
    assert_eq!(report.warnings[0].kind.as_str(), "unrepaired");
    assert_eq!(report.unnamed_blobs, 6);
}

#[tokio::test]
async fn snapshots_that_a_damaged_catalog_still_says_are_kept() {
    let scene = Scene::new().await;
    scene.fill(true).await;
    scene.break_index();
    let store = Snapshotter::open(scene.config(false)).await;
    if let Ok(store) = store {
        let report = store.verify(&VerifyRequest::all()).await.unwrap();
        assert!(!report.catalog.is_empty(), "{report:?}");
        assert_eq!(report.swept_names, 0);
        store.close().await.unwrap();
    }
    let report = scene.rebuild(false).await;
    assert_eq!(names(&report), ["test:v1", "test:v2"]);
    assert!(
        report
            .snapshots
            .iter()
            .all(|one| !one.from_registry && one.missing_blobs == 0)
    );
    assert_eq!(report.unnamed_blobs, 0);
    assert!(
        report
            .old_catalog
            .as_ref()
            .unwrap()
            .join("catalog.db")
            .exists()
    );
    let store = scene.open(false).await;
    let states: Vec<_> = store
        .list()
        .await
        .unwrap()
        .iter()
        .map(|one| one.state)
        .collect();
    assert!(
        states.contains(&SnapshotState::Published) && states.contains(&SnapshotState::Unpublished)
    );
    assert_sound(&store).await;
    assert_restores(&store, "v1", &scene.one, scene.place.fresh()).await;
    assert_restores(&store, "v2", &scene.two, scene.place.fresh()).await;
}

#[tokio::test]
async fn wrong_files_are_set_aside_and_what_they_were_is_missing_until_it_is_fetched() {
    let scene = Scene::new().await;
    scene.fill(true).await;
    scene.break_index();
    let (_, checksum) = spf1(&scene.one.join("disk"));
    let hex = checksum.strip_prefix("blake3:").unwrap();
    let blob = scene.place.content().join(hex);
    overwrite(&blob, 7, b"wrong");
    fs::write(scene.place.content().join("stranger"), "kept too").unwrap();
    let report = scene.rebuild(false).await;
    assert_eq!(report.quarantined.len(), 2);
    let kept: Vec<Vec<u8>> = report
        .quarantined
        .iter()
        .map(|path| fs::read(path).unwrap())
        .collect();
    assert!(kept.iter().any(|bytes| bytes.get(7..12) == Some(b"wrong")));
    assert!(kept.iter().any(|bytes| bytes == b"kept too"));
    let missing = |version: &str| {
        let mut all = report.snapshots.iter();
        let named = format!("test:{version}");
        all.find(|one| one.reference.to_string() == named)
            .unwrap()
            .missing_blobs
    };
    assert_eq!((missing("v1"), missing("v2")), (1, 0));
    let store = scene.open(false).await;
    let error = give_fails(&store, "v1", &scene.place.fresh()).await;
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert_eq!(error.path(), Some(Path::new("disk")));
    assert_restores(&store, "v2", &scene.two, scene.place.fresh()).await;
    store.close().await.unwrap();
    let store = scene.open(true).await;
    let request = VerifyRequest::all().repair(true);
    let report = store.verify(&request).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.repaired.len(), 1);
    assert_restores(&store, "v1", &scene.one, scene.place.fresh()).await;
}

#[tokio::test]
async fn a_repair_that_cannot_reach_the_registry_says_why_and_repairs_the_rest() {
    let scene = Scene::new().await;
    scene.fill(true).await;
    for (base, file) in [(&scene.one, "disk"), (&scene.two, "disk")] {
        let (_, checksum) = spf1(&base.join(file));
        let hex = checksum.strip_prefix("blake3:").unwrap();
        overwrite(&scene.place.content().join(hex), 7, b"wrong");
    }
    let mut config = scene.config(true);
    config.registry = Some(Registry::new("http://127.0.0.1:9", "snapshots").retries(0));
    config.content.as_mut().unwrap().root = scene.place.path("elsewhere");
    fs::create_dir(scene.place.path("elsewhere")).unwrap();
    let store = Snapshotter::open(config).await.unwrap();
    let request = VerifyRequest::all().repair(true);
    let report = store.verify(&request).await.unwrap();
    // The published one could have been fetched; of the other there never was a second copy.
    assert_eq!(
        (report.damaged.len(), report.warnings.len()),
        (2, 1),
        "{report:?}"
    );
    assert_eq!(report.warnings[0].kind.as_str(), "unrepaired");
    assert!(report.warnings[0].message.contains("test:v1"), "{report:?}");
    assert!(report.damaged.iter().all(|bad| bad.quarantined.is_some()));
    store.close().await.unwrap();
    // Moved aside or not: it is fetched when it can be.
    let store = scene.open(true).await;
    let report = store.verify(&request).await.unwrap();
    assert_eq!(
        (report.repaired.len(), report.missing.len()),
        (1, 1),
        "{report:?}"
    );
    assert_restores(&store, "v1", &scene.one, scene.place.fresh()).await;
}

#[tokio::test]
async fn a_view_can_be_the_only_copy() {
    let place = Place::new();
    let base = place.write("base", &vm(1));
    let store = place.open().await;
    let other = place.write("other", &vm(1).mode("disk", 0o600));
    take_read_only(&store, "v0", &other).await;
    take_read_only(&store, "v1", &base).await;
    give(&store, "v1", &place.fresh()).await;
    assert!(!files_in(&place.views()).is_empty());
    let (_, checksum) = spf1(&base.join("disk"));
    let blob = place
        .content()
        .join(checksum.strip_prefix("blake3:").unwrap());
    fs::remove_file(&blob).unwrap();
    let request = VerifyRequest::all().repair(true);
    let report = store.verify(&request).await.unwrap();
    assert_eq!(
        (report.is_sound(), report.repaired.len()),
        (true, 1),
        "{report:?}"
    );
    assert_restores(&store, "v0", &other, place.fresh()).await;
    store.close().await.unwrap();

    fs::remove_file(&blob).unwrap();
    fs::remove_dir_all(place.root().join("metadata")).unwrap();
    let config = Config::new(place.root());
    let report = Snapshotter::rebuild(&config, &RebuildRequest::new())
        .await
        .unwrap();
    assert_eq!(report.checked_blobs, 4);
    assert!(blob.exists());
    // The other views are caches, which nothing knows any more.
    let report = verify(&place.open().await).await;
    assert!(report.is_sound() && report.swept_names > 0, "{report:?}");
}

#[tokio::test]
async fn what_needs_no_rebuilding_is_refused() {
    let scene = Scene::new().await;
    scene.fill(false).await;
    let config = scene.config(false);
    let request = RebuildRequest::new();
    let error = Snapshotter::rebuild(&config, &request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error:?}");
    let store = scene.open(false).await;
    let error = Snapshotter::rebuild(&config, &request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
    store.close().await.unwrap();
    fs::write(scene.metadata().join("snapshotter.db"), "bolt").unwrap();
    let error = Snapshotter::rebuild(&config, &request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
}

fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp")
        .args(["-a", "--"])
        .args([from, to])
        .status()
        .unwrap();
    assert!(status.success());
}

/// A byte of the database's file changes, anywhere: what can still be restored is right, and a rebuild ends well.
#[tokio::test]
async fn a_byte_flipped_anywhere_in_the_catalog_never_gives_wrong_bytes() {
    let scene = Scene::new().await;
    scene.fill(false).await;
    let catalog = scene.metadata().join("catalog.db");
    let connection = Connection::open(&catalog).unwrap();
    connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    drop(connection);
    for left in ["catalog.db-wal", "catalog.db-shm"] {
        fs::remove_file(scene.metadata().join(left)).ok();
    }
    let root = scene.place.root();
    let kept = scene.place.path("kept");
    copy(&root, &kept);
    let size = stat(&catalog).len();
    let (mut right, mut refused) = (0, 0);
    for round in 0..200_u64 {
        // Spread over all pages, and in each over header, cells and their ends.
        let at = (round * size / 200 + round * 7919 % 4096) % size;
        fs::remove_dir_all(&root).unwrap();
        copy(&kept, &root);
        let byte = fs::read(&catalog).unwrap()[usize::try_from(at).unwrap()];
        overwrite(&catalog, at, &[byte ^ (1 << (round % 8))]);
        for (version, base) in [("v1", &scene.one), ("v2", &scene.two)] {
            let output = scene.place.fresh();
            let restored = match Snapshotter::open(scene.config(false)).await {
                Ok(store) => {
                    let restored = store.restore(&to(version, &output)).await.map(drop);
                    store.close().await.ok();
                    restored
                }
                Err(error) => Err(error),
            };
            match restored {
                Ok(()) => {
                    assert_same(base, &output);
                    right += 1;
                }
                Err(error) => {
                    // Named, and of a kind that says where to look.
                    assert!(
                        error.path().is_some() || error.reference().is_some(),
                        "byte {at}: {error:?}"
                    );
                    refused += 1;
                }
            }
            fs::remove_dir_all(&output).ok();
        }
    }
    assert!(
        right > 100 && refused > 2,
        "{right} right, {refused} refused"
    );
}

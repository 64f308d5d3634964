//! What a capture in pages starts from: a parent that is sound and is said not to be, one that is bad, one that lies, and one that
//! goes meanwhile. The snapshot is right whatever its parent is, and keeps nothing of one that it has taken nothing from.

use crate::support_a;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use snapshotter::{
    ErrorKind, Format, PagedReport, ParentChoice, SnapshotReport, SnapshotRequest, Snapshotter,
    WarningKind,
};
use support_a::*;
use testkit::Tree;
use testkit::compare::assert_same;

const PAGE: u64 = 4096;
const PAGES: u64 = 700;

fn paged(version: &str, base: &Path) -> SnapshotRequest {
    all(version, base).format(Format::V2)
}

fn packs(place: &Place) -> Vec<PathBuf> {
    files_in(&place.content())
}

/// A directory of which `test:v1` was taken, and of which a page has changed since.
struct Scene {
    place: Place,
    base: PathBuf,
    store: Snapshotter,
    pack: PathBuf,
}

impl Scene {
    async fn new() -> Self {
        let place = Place::new();
        let tree = Tree::new()
            .file("memory", random(1, PAGES * PAGE))
            .file("state", "{}");
        let base = place.write("base", &tree);
        let store = place.open().await;
        store.snapshot(&paged("v1", &base)).await.unwrap();
        let pack = place.only_blob();
        overwrite(&base.join("memory"), 5 * PAGE, b"changed");
        Self {
            place,
            base,
            store,
            pack,
        }
    }

    /// Takes `test:v2`, which is right.
    async fn take(&self) -> SnapshotReport {
        self.take_with(paged("v2", &self.base)).await
    }

    async fn take_with(&self, request: SnapshotRequest) -> SnapshotReport {
        let report = self.store.snapshot(&request).await.unwrap();
        let output = self.place.fresh();
        give(&self.store, "v2", &output).await;
        assert_same(&self.base, &output);
        assert!(report.warnings.len() < 2, "{report:?}");
        report
    }

    /// `test:v1` and all that it needed go, and `test:v2` is right without it.
    async fn end(self) {
        self.store.remove(&reference("test:v1")).await.unwrap();
        assert!(!self.pack.exists());
        assert_eq!(packs(&self.place).len(), 1);
        assert_sound(&self.store).await;
        let output = self.place.fresh();
        give(&self.store, "v2", &output).await;
        assert_same(&self.base, &output);
    }
}

fn of(report: &SnapshotReport) -> &PagedReport {
    report.paged.as_ref().unwrap()
}

fn stored(report: &SnapshotReport) -> u64 {
    of(report).stored_pages
}

#[track_caller]
fn assert_incomplete(report: &SnapshotReport, text: &str) {
    let [warning] = &report.warnings[..] else {
        panic!("{report:?}")
    };
    assert_eq!(warning.kind, WarningKind::ParentIncomplete);
    assert!(warning.message.contains(text), "{warning:?}");
}

/// A verification at once after the capture left the row without a time, because that may still have been the present: so the
/// pack was said to be bad, and all of its pages were stored again.
#[tokio::test]
async fn a_parent_that_was_verified_just_now_is_sound() {
    let scene = Scene::new().await;
    let sql = "UPDATE objects SET mtime_seconds = NULL, mtime_nanoseconds = NULL";
    catalog(&scene.place).execute(sql, []).unwrap();
    let report = scene.take().await;
    assert_eq!((stored(&report), report.warnings.len()), (1, 0));
}

fn catalog(place: &Place) -> Connection {
    Connection::open(place.root().join("metadata/catalog.db")).unwrap()
}

/// Its time has changed, and its bytes have not.
#[tokio::test]
async fn a_parent_whose_pack_was_touched_is_read_and_is_sound() {
    let scene = Scene::new().await;
    age(&scene.pack);
    // A list would have to be made of it too.
    fs::remove_dir_all(scene.place.root().join("digests")).unwrap();
    let report = scene.take().await;
    assert_eq!((stored(&report), report.warnings.len()), (1, 0));
}

#[tokio::test]
async fn of_a_parent_with_a_changed_pack_everything_is_stored_again() {
    let scene = Scene::new().await;
    overwrite(&scene.pack, 100_000, b"something else");
    let report = scene.take().await;
    assert_eq!(stored(&report), PAGES + 1);
    assert_incomplete(&report, "are not here or are bad: 1");
    scene.end().await;
}

/// What was referenced of a parent that turned out to be damaged stayed referenced: its packs went with the child only.
#[tokio::test]
async fn nothing_is_kept_of_a_parent_that_nothing_is_taken_over_from() {
    let scene = Scene::new().await;
    // Nobody sees it until it is read: the map is behind the data, and the list is not here.
    fs::remove_dir_all(scene.place.root().join("digests")).unwrap();
    overwrite_secretly(&scene.pack, 100_000, b"something else");
    let report = scene.take().await;
    assert_eq!(
        (stored(&report), of(&report).parent.is_none()),
        (PAGES + 1, true)
    );
    assert_incomplete(&report, "nothing is taken over from test:v1");
    scene.end().await;
}

#[tokio::test]
async fn a_parent_that_is_gone_from_the_disk_is_none_and_an_error_where_it_was_asked_for() {
    let scene = Scene::new().await;
    fs::remove_file(&scene.pack).unwrap();
    let given = paged("v2", &scene.base).parent(ParentChoice::Snapshot(reference("test:v1")));
    let refused = scene.store.snapshot(&given).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Damaged, "{refused:?}");
    assert_eq!(refused.reference().unwrap().to_string(), "test:v1");
    let report = scene.take().await;
    assert_eq!(stored(&report), PAGES + 1);
    assert_incomplete(&report, "nothing is taken over from test:v1");
    scene.end().await;
}

#[tokio::test]
async fn a_parent_of_format_v1_has_nothing_to_take_over() {
    let place = Place::new();
    let base = place.write("base", &Tree::new().file("memory", random(1, 9 * PAGE)));
    let store = place.open().await;
    take(&store, "v1", &base).await;
    for (version, parent) in [
        ("v2", ParentChoice::Origin),
        ("v3", ParentChoice::Snapshot(reference("test:v1"))),
    ] {
        let request = paged(version, &base).parent(parent);
        let report = store.snapshot(&request).await.unwrap();
        assert_eq!(stored(&report), 9);
        assert_incomplete(&report, "of format v1");
        let output = place.fresh();
        give(&store, version, &output).await;
        assert_same(&base, &output);
    }
}

/// A list of page digests is a cache: lost, cut, of other pages or of another snapshot it is made again.
#[tokio::test]
async fn without_the_parents_digests_a_page_costs_a_page_all_the_same() {
    for number in 0..6 {
        let scene = Scene::new().await;
        let [list] = &files_in(&scene.place.root().join("digests"))[..] else {
            panic!()
        };
        let good = fs::read(list).unwrap();
        let (first, rest) = good.split_at(32);
        let (second, others) = rest.split_at(32);
        match number {
            0 => fs::remove_file(list).unwrap(),
            1 => fs::write(list, &good[..good.len() / 2]).unwrap(),
            2 => fs::write(list, "").unwrap(),
            3 => fs::write(list, [second, first, others].concat()).unwrap(),
            // Of the page that has changed by now: it would look as if it had not.
            4 => {
                let page = fs::File::open(scene.base.join("memory")).unwrap();
                let mut bytes = [0; PAGE as usize];
                page.read_exact_at(&mut bytes, 5 * PAGE).unwrap();
                let mut lie = good.clone();
                lie[5 * 32..6 * 32].copy_from_slice(blake3::hash(&bytes).as_bytes());
                fs::write(list, lie).unwrap();
            }
            _ => {
                fs::remove_file(list).unwrap();
                fs::create_dir(list).unwrap();
            }
        }
        let report = scene.take().await;
        assert_eq!((stored(&report), report.warnings.len()), (1, 0), "{number}");
    }
}

/// Takes the parent away while its child is captured.
#[tokio::test(flavor = "multi_thread")]
async fn a_parent_may_go_while_its_child_is_taken() {
    let scene = Scene::new().await;
    let gate = Arc::new(Gate::default());
    let observed = scene.store.observed_by(Arc::clone(&gate) as Arc<_>);
    let request = paged("v2", &scene.base);
    let taking = tokio::spawn(async move { observed.snapshot(&request).await });
    gate.reached().await;
    scene.store.remove(&reference("test:v1")).await.unwrap();
    gate.open();
    let report = taking.await.unwrap().unwrap();
    assert_eq!((stored(&report), report.warnings.len()), (1, 0));
    assert_eq!(packs(&scene.place).len(), 2);
    let output = scene.place.fresh();
    give(&scene.store, "v2", &output).await;
    assert_same(&scene.base, &output);
    scene.store.remove(&reference("test:v2")).await.unwrap();
    scene.place.assert_empty();
}

/// The times of a file say nothing in pages: every page is read and compared.
#[tokio::test]
async fn a_file_that_was_written_in_place_and_has_its_time_put_back_is_taken_as_it_is() {
    let scene = Scene::new().await;
    let fork = scene.place.path("fork");
    give(&scene.store, "v1", &fork).await;
    for at in [0, 300, PAGES - 1] {
        overwrite_secretly(&fork.join("memory"), at * PAGE + 9, b"written secretly");
    }
    let report = scene.store.snapshot(&paged("v2", &fork)).await.unwrap();
    assert_eq!(stored(&report), 3);
    let output = scene.place.fresh();
    give(&scene.store, "v2", &output).await;
    assert_same(&fork, &output);
}

/// The digest of a snapshot's document.
async fn document(store: &Snapshotter, version: &str) -> String {
    let details = store.inspect(&reference(&format!("test:{version}"))).await;
    let manifest: serde_json::Value = serde_json::from_slice(&details.unwrap().manifest).unwrap();
    manifest["config"]["digest"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_same_capture_twice_is_the_same_packs_and_the_same_document() {
    let scene = Scene::new().await;
    let parent = ParentChoice::Snapshot(reference("test:v1"));
    let mut documents = Vec::new();
    for version in ["v2", "v3"] {
        let request = paged(version, &scene.base).parent(parent.clone());
        scene.store.snapshot(&request).await.unwrap();
        documents.push(document(&scene.store, version).await);
    }
    assert_eq!(documents[0], documents[1]);
    assert_eq!(packs(&scene.place).len(), 2);
    // Another store, and no parent of the same name.
    let other = Place::new();
    let store = other.open().await;
    for version in ["v1", "v2"] {
        let request = paged(version, &scene.base).parent(ParentChoice::None);
        store.snapshot(&request).await.unwrap();
    }
    assert_eq!(packs(&other).len(), 1);
    let [one, two] = [document(&store, "v1").await, document(&store, "v2").await];
    assert_eq!(one, two);
}

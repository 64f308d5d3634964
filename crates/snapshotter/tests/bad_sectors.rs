//! Disks that do not give back what was written: btrfs, whose checksums of some data are made wrong beneath it, says of
//! reading them what it and other filesystems say of a bad sector.

use crate::support_a;

use std::fs;
use std::path::{Path, PathBuf};

use snapshotter::{
    Config, Content, ContentProvider, Error, ErrorKind, Registry, Snapshotter, VerifyRequest,
};
use support_a::*;
use testkit::Tree;
use testkit::compare::assert_same;
use testkit::mount::{Kind, LoopMount, or_skip};

/// What the bytes on the disk are found by.
const MARK: &[u8] = b"there is nothing like this elsewhere: 0123456789";

fn btrfs() -> Option<LoopMount> {
    or_skip(LoopMount::new(Kind::Btrfs, 128 << 20, &[]))
}

/// One file that begins with the mark and is longer than what a pass reads at once, and another one.
fn vm(at: &Path) {
    let data = Tree::new()
        .file("data", random(7, 3 << 20))
        .file("other", random(8, 100_000));
    data.write_to(at).unwrap();
    overwrite(&at.join("data"), 0, MARK);
}

/// A place on an ordinary filesystem, with a store on a bad disk and, perhaps, directories to publish to.
struct Scene {
    disk: LoopMount,
    place: Place,
    source: PathBuf,
    published: bool,
}

impl Scene {
    /// With `test:v1` in the store, of which the largest blob cannot be read any more.
    async fn new(published: bool) -> Option<Self> {
        let disk = btrfs()?;
        let place = Place::new();
        let source = place.path("source");
        fs::create_dir(place.path("objects")).unwrap();
        vm(&source);
        let scene = Self {
            disk,
            place,
            source,
            published,
        };
        let store = scene.open().await;
        take(&store, "v1", &scene.source).await;
        store.close().await.unwrap();
        or_skip(scene.disk.spoil(MARK))?;
        Some(scene)
    }

    async fn open(&self) -> Snapshotter {
        let mut config = Config::new(self.disk.path().join("store"));
        if self.published {
            let mut content = Content::new(ContentProvider::Fs);
            content.root = self.place.path("objects");
            let layouts = format!("oci-layout:{}", self.place.path("layouts").display());
            config = config
                .registry(Registry::new(layouts, "ns"))
                .content(content);
        }
        Snapshotter::open(config).await.unwrap()
    }
}

/// An error and its causes.
fn said(error: &Error) -> String {
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        said += &format!(": {inner}");
        cause = inner.source();
    }
    said
}

/// A blob on a bad sector was an `internal` error and stayed good in the catalog: a restore failed each time, and nobody
/// fetched again what was published. What the disk does not give back is damaged like bytes that changed.
#[tokio::test]
async fn a_published_blob_on_a_bad_sector_is_fetched_again() {
    let Some(scene) = Scene::new(true).await else {
        return;
    };
    let store = scene.open().await;
    let output = scene.place.fresh();
    let given = give(&store, "v1", &output).await;
    assert_eq!(given.fetched_blobs, 1);
    assert_same(&scene.source, &output);
    assert_sound(&store).await;
}

/// The same without another copy: it is damaged, by name, in every verb, and set aside by a repair.
#[tokio::test]
async fn a_blob_on_a_bad_sector_is_damaged_and_named() {
    let Some(scene) = Scene::new(false).await else {
        return;
    };
    let store = scene.open().await;
    let error = give_fails(&store, "v1", &scene.place.fresh()).await;
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert_eq!(error.path(), Some(Path::new("data")));
    let text = said(&error);
    let names_both = text.contains("data cannot be restored") && text.contains("storage/content");
    assert!(names_both && text.contains("os error 5"), "{text}");
    let found = verify(&store).await;
    assert_eq!((found.damaged.len(), found.missing.len()), (1, 0));
    let repaired = store.verify(&VerifyRequest::all().repair(true)).await;
    let damaged = &repaired.unwrap().damaged;
    assert!(damaged[0].quarantined.is_some(), "{damaged:?}");
    // The same bytes mend it, as they mend all damage.
    take(&store, "v2", &scene.source).await;
    give(&store, "v1", &scene.place.fresh()).await;
    assert_sound(&store).await;
}

/// Verification found it before; a repair fetches it.
#[tokio::test]
async fn a_repair_fetches_what_is_on_a_bad_sector() {
    let Some(scene) = Scene::new(true).await else {
        return;
    };
    let store = scene.open().await;
    let report = store.verify(&VerifyRequest::all().repair(true)).await;
    let report = report.unwrap();
    assert_eq!((report.repaired.len(), report.is_sound()), (1, true));
    let output = scene.place.fresh();
    assert_eq!(give(&store, "v1", &output).await.fetched_blobs, 0);
    assert_same(&scene.source, &output);
}

/// A push read such a blob and failed with an `internal` error too, and the next one read it again.
#[tokio::test]
async fn a_blob_on_a_bad_sector_is_not_published() {
    let Some(mut scene) = Scene::new(false).await else {
        return;
    };
    scene.published = true;
    let store = scene.open().await;
    let push = snapshotter::PushRequest::new(reference("test:v1"));
    let error = store.push(&push).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(said(&error).contains("os error 5"), "{}", said(&error));
    let again = store.push(&push).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Damaged);
}

/// What is to be taken and cannot be read is an error that names it, and nothing of the store's.
#[tokio::test]
async fn a_source_on_a_bad_sector_is_named() {
    let Some(disk) = btrfs() else { return };
    let place = Place::new();
    let source = disk.path().join("source");
    vm(&source);
    let Some(()) = or_skip(disk.spoil(MARK)) else {
        return;
    };
    let store = place.open().await;
    let error = store.snapshot(&all("v1", &source)).await.unwrap_err();
    assert_eq!(error.path(), Some(&*source.join("data")));
    assert_ne!(error.kind(), ErrorKind::Damaged);
    assert!(said(&error).contains("os error 5"), "{}", said(&error));
    place.assert_empty();
}

/// A restore compares what is in the output already. A file there that could not be read ended it, at every further try;
/// one that cannot be compared is replaced.
#[tokio::test]
async fn a_restored_file_on_a_bad_sector_is_replaced() {
    let Some(disk) = btrfs() else { return };
    let place = Place::new();
    let source = place.path("source");
    vm(&source);
    let store = place.open().await;
    take(&store, "v1", &source).await;
    let output = disk.path().join("output");
    give(&store, "v1", &output).await;
    let Some(()) = or_skip(disk.spoil(MARK)) else {
        return;
    };
    let given = give(&store, "v1", &output).await;
    assert_eq!(given.placements.present.files, 1);
    assert_same(&source, &output);
}

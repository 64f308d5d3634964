//! The store's own directories are nobody's output, source or place of contents, whatever path or mount leads to them.

use crate::support_a;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use snapshotter::{
    Config, Content, ContentProvider, Error, ErrorKind, File, PullRequest, Registry,
    RestoreRequest, SnapshotRequest, Snapshotter, WarningKind,
};
use support_a::*;
use testkit::Tree;
use testkit::mount::{BindMount, or_skip};

/// What is in the store: paths and bytes, but for the catalog's and the counters, which every call changes, and leases.
fn look(place: &Place) -> BTreeMap<PathBuf, Vec<u8>> {
    let root = place.root();
    let files = files_below(&root).into_iter();
    let changing = ["metadata", "leases", "counters"];
    let kept = files.filter(|file| !changing.iter().any(|name| file.starts_with(name)));
    kept.map(|file| (file.clone(), fs::read(root.join(&file)).unwrap()))
        .collect()
}

/// A snapshot, `test:evil`, of what an attacker made, with `first` before everything else; and a good one, `test:good`.
async fn with_evil(place: &Place, evil: &Tree) -> Snapshotter {
    let evil = place.write("evil", &evil.clone().file("first", "written"));
    let good = place.write("good", &Tree::new().file("file", "precious"));
    let store = place.open().await;
    take(&store, "evil", &evil).await;
    take(&store, "good", &good).await;
    store
}

fn assert_refused(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().contains("inside the store"), "{error}");
}

/// The store is whole, and nothing was made in it or in the output.
async fn assert_untouched(
    store: &Snapshotter,
    place: &Place,
    before: &BTreeMap<PathBuf, Vec<u8>>,
    output: &Path,
) {
    assert!(!output.join("first").exists());
    assert_eq!(look(place), *before);
    assert_eq!(store.list().await.unwrap().len(), 2);
    assert_sound(store).await;
}

#[tokio::test]
async fn the_store_of_another_tenant_is_no_output_either() {
    let place = Place::new();
    let source = place.write("source", &Tree::new().file("file", "bytes"));
    let tenant =
        |name: &'static str| place.open_with(move |config| config.tenant(Some(name.to_owned())));
    let (one, _other) = (tenant("one").await, tenant("other").await);
    one.snapshot(&SnapshotRequest::new("one", "v1", &source))
        .await
        .unwrap();
    for inside in ["tenants/other/storage", "tenants/other", "tenants", "new"] {
        let output = place.root().join(inside);
        let request = RestoreRequest::new(reference("one:v1"), &output);
        assert_refused(&one.restore(&request).await.unwrap_err());
    }
}

/// A restore into a directory above the store opened what was below it without looking: a snapshot with a file
/// `store/metadata/catalog.db` replaced the store's own catalog, and the call said that all was well.
#[tokio::test]
async fn a_restore_above_the_store_is_refused_before_anything_is_written() {
    for inside in [
        "store/metadata/catalog.db",
        "store/reserve",
        "store/storage/content/blake3/file",
        "store/storage/new/file",
        "store/staging/new/file",
        "store/trash/new/file",
        "store/leases/file",
        "store/quarantine/file",
        "store/new/file",
    ] {
        let place = Place::new();
        let store = with_evil(&place, &Tree::new().file(inside, "evil")).await;
        let (above, before) = (place.path(""), look(&place));
        let plan = store.plan_restore(&to("evil", &above)).await;
        assert_refused(&plan.unwrap_err());
        assert_refused(&give_fails(&store, "evil", &above).await);
        let with = to("evil", &above).no_clobber(true);
        assert_refused(&store.restore(&with).await.unwrap_err());
        assert_untouched(&store, &place, &before, &above).await;
        // The rest of it may be had.
        let rest = to("evil", &above).path("first");
        store.restore(&rest).await.unwrap();
    }
}

/// The attributes of a directory are set too: a snapshot could open the store to everybody.
#[tokio::test]
async fn a_restore_does_not_set_the_attributes_of_the_store() {
    let place = Place::new();
    let store = with_evil(&place, &Tree::new().dir("store").mode("store", 0o777)).await;
    let above = place.path("");
    assert_refused(&give_fails(&store, "evil", &above).await);
    assert!(!above.join("first").exists());
}

/// A mount leads to the same inodes by another path, and a look at paths sees nothing of it.
#[tokio::test]
async fn a_restore_into_a_mount_of_the_store_is_refused() {
    for part in [
        "",
        "metadata",
        "storage",
        "storage/content",
        "storage/content/blake3",
        "staging",
        "leases",
    ] {
        let place = Place::new();
        let evil = Tree::new().file("mounted/catalog.db", "evil");
        let store = with_evil(&place, &evil).await;
        let (output, before) = (place.fresh(), look(&place));
        let point = output.join("mounted");
        fs::create_dir_all(&point).unwrap();
        let Some(_mount) = or_skip(BindMount::new(&place.root().join(part), &point)) else {
            return;
        };
        assert_refused(&give_fails(&store, "evil", &output).await);
        assert_refused(&give_fails(&store, "evil", &point).await);
        assert_refused(&give_fails(&store, "evil", &point.join("new")).await);
        assert_untouched(&store, &place, &before, &output).await;
    }
}

/// Directories on the way to an output were made before it was seen that they are in the store.
#[tokio::test]
async fn an_output_in_the_store_is_refused_and_not_made() {
    let place = Place::new();
    let store = with_evil(&place, &Tree::new()).await;
    for inside in ["new", "storage/new/deep", "metadata/new"] {
        let output = place.root().join(inside);
        assert_refused(&give_fails(&store, "evil", &output).await);
        assert!(!output.exists());
        assert!(!place.root().join("storage/new").exists());
    }
}

/// A snapshot of a directory above the store left the store out, but not a part of it that was asked for by its path: to
/// open the catalog drops the locks on it.
#[tokio::test]
async fn a_snapshot_of_what_is_above_the_store_leaves_the_store_out() {
    let place = Place::new();
    let store = with_evil(&place, &Tree::new()).await;
    let above = place.path("");
    let mounted = place.path("mounted");
    fs::create_dir(&mounted).unwrap();
    let _mount = or_skip(BindMount::new(&place.root().join("metadata"), &mounted));
    let parts = [
        ("whole", File::new(".")),
        ("part", File::new("store/metadata")),
        ("file", File::new("store/metadata/catalog.db")),
        ("deep", File::new("store/storage/content/blake3")),
    ];
    for (version, part) in parts {
        let report = store
            .snapshot(&all(version, &above).file(part))
            .await
            .unwrap();
        let skipped = |warning: &&snapshotter::Warning| warning.kind == WarningKind::Skipped;
        assert!(
            report.warnings.iter().any(|warning| skipped(&warning)),
            "{version}"
        );
        let details = store.inspect(&reference(&format!("test:{version}"))).await;
        let files = details.unwrap().files;
        let inside = files
            .iter()
            .filter(|file| file.entry.relative_path.starts_with("store"));
        assert_eq!(inside.count(), 0, "{version}");
        let mounted = files
            .iter()
            .filter(|file| file.entry.relative_path.starts_with("mounted"));
        assert_eq!(mounted.count(), 0, "{version}");
    }
    assert_sound(&store).await;
}

/// Contents or image layouts in the store's directories would be taken for the store's own, and be swept.
#[tokio::test]
async fn what_nodes_share_is_not_in_the_store() {
    let place = Place::new();
    let registry = |at: &Path| Registry::new(format!("oci-layout:{}", at.display()), "snapshots");
    let content = |at: &Path| {
        let mut content = Content::new(ContentProvider::Fs);
        content.root = at.to_owned();
        content
    };
    let (inside, outside) = (place.root().join("staging/new"), place.path("between"));
    for (registry, content) in [
        (registry(&inside), content(&outside)),
        (registry(&outside), content(&inside)),
    ] {
        let config = Config::new(place.root())
            .registry(registry.clone())
            .content(content.clone());
        assert_refused(&Snapshotter::open(config).await.unwrap_err());
        let store = place.open().await;
        let reference = reference("test:v1");
        let pull = PullRequest::new(reference.clone()).registry(registry.clone());
        let pull = store.pull(&pull.content(content.clone())).await;
        assert_refused(&pull.unwrap_err());
        let restore = RestoreRequest::new(reference, place.fresh()).registry(registry.clone());
        let restore = store.restore(&restore.content(content.clone())).await;
        assert_refused(&restore.unwrap_err());
        let source = place.fresh();
        fs::create_dir(&source).unwrap();
        let taken = SnapshotRequest::new("test", "v1", &source).registry(registry);
        let taken = store.snapshot(&taken.content(content)).await;
        assert_refused(&taken.unwrap_err());
        assert!(!inside.exists());
    }
}

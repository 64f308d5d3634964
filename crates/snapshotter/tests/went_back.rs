//! A catalog that went back in time: its log lost its end, or an old copy was put in its place. What it then does not know
//! is not litter.
//!
//! The bug: one flipped bit in `catalog.db-wal` made snapshots vanish; `verify` said that all was well, and it or a plain
//! collection deleted their bytes, because a name without a row was always litter.

use crate::support_a;
use crate::support_b;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;
use snapshotter::{
    Config, ErrorKind, Format, GcRequest, RebuildReport, RebuildRequest, RestoreRequest,
    Snapshotter, VerifyRequest, WarningKind,
};
use support_a::*;
use support_b::outside::{catalog, content, names_in_shards};
use testkit::compare::assert_same;
use testkit::{Content, Tree};

/// Six snapshots, each of one file of its own.
const VERSIONS: [&str; 6] = ["v1", "v2", "v3", "v4", "v5", "v6"];

fn tree(seed: usize) -> Tree {
    let bytes = Content::Random {
        seed: seed as u64 + 1,
        len: 100_000,
    };
    Tree::new().file("f", bytes)
}

async fn take(store: &Snapshotter, version: &str, base: &Path) {
    let request = all(version, base).format(support_b::format());
    store.snapshot(&request).await.unwrap();
}

async fn take_all(place: &Place, store: &Snapshotter) {
    for (seed, version) in VERSIONS.iter().enumerate() {
        let base = place.write(version, &tree(seed));
        take(store, version, &base).await;
    }
}

fn copy(from: &Path, to: &Path) {
    let mut command = Command::new("cp");
    let copied = command.args(["-a", "--"]).arg(from).arg(to).status();
    assert!(copied.unwrap().success());
}

fn flip_bit(file: &Path, offset: u64) {
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(file)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

async fn open(root: &Path) -> Snapshotter {
    let mut config = Config::new(root);
    config.gc.background = false;
    Snapshotter::open(config).await.unwrap()
}

async fn rebuild(root: &Path) -> RebuildReport {
    let config = Config::new(root);
    Snapshotter::rebuild(&config, &RebuildRequest::new())
        .await
        .unwrap()
}

/// Whatever may go does; nothing may while the catalog is older than the store.
async fn collect(store: &Snapshotter) {
    let request = GcRequest::new()
        .max_bytes(0)
        .min_retention_period(std::time::Duration::ZERO)
        .include_unpublished(store.warnings().len() == 1);
    let collected = store.gc(&request).await;
    let refused = collected.is_err_and(|error| error.kind() == ErrorKind::Damaged);
    assert_eq!(refused, store.warnings().len() == 1);
    if refused {
        let first = store.list().await.unwrap().into_iter().next();
        if let Some(first) = first {
            assert!(store.remove(&first.reference).await.is_err());
        }
    }
}

/// Every blob that was ever stored still is.
#[track_caller]
fn assert_all_kept(root: &Path, before: &BTreeSet<String>) {
    let after = names_in_shards(&content(root));
    assert!(after.is_superset(before), "lost {:?}", before - &after);
}

/// A store as a crash leaves it, with everything in the log.
async fn crashed(place: &Place) -> PathBuf {
    let store = place.open().await;
    take_all(place, &store).await;
    let root = place.path("crashed");
    copy(&place.root(), &root);
    store.close().await.unwrap();
    root
}

#[tokio::test]
async fn a_bit_flipped_anywhere_in_the_log_loses_no_bytes_and_is_said() {
    let place = Place::new();
    let crashed = crashed(&place).await;
    let log = fs::metadata(crashed.join("metadata/catalog.db-wal"))
        .unwrap()
        .len();
    let mut said = 0;
    for part in 0..20 {
        let root = place.path(&format!("flipped-{part}"));
        copy(&crashed, &root);
        let before = names_in_shards(&content(&root));
        flip_bit(
            &root.join("metadata/catalog.db-wal"),
            40 + part * (log - 40) / 20,
        );
        let Ok(store) = Snapshotter::open(Config::new(&root)).await else {
            // The flip took the schema itself: the store says that it has lost its catalog.
            rebuild(&root).await;
            assert_all_kept(&root, &before);
            continue;
        };
        let left = store.list().await.unwrap().len();
        assert_eq!(
            store.warnings().is_empty(),
            left == VERSIONS.len(),
            "{left}"
        );
        said += store.warnings().len();
        let report = store.verify(&VerifyRequest::all()).await.unwrap();
        assert_eq!(report.is_sound(), left == VERSIONS.len(), "{report:?}");
        assert_eq!(report.unknown_blobs as usize, VERSIONS.len() - left);
        collect(&store).await;
        store.verify(&VerifyRequest::all()).await.unwrap();
        assert_all_kept(&root, &before);
        store.close().await.unwrap();
        assert_all_kept(&root, &before);
        assert_taken_in(&root, left < VERSIONS.len()).await;
        assert_all_kept(&root, &before);
        fs::remove_dir_all(root).unwrap();
    }
    assert!(said > 5, "{said}");
}

/// Rebuilds if something was lost; then whatever is swept is swept.
///
/// The bug: what was being taken where the log ended had rows, and no snapshot that was finished, so after a rebuild the
/// next sweep took its files.
async fn assert_taken_in(root: &Path, lost: bool) {
    if lost {
        rebuild(root).await;
    }
    let store = open(root).await;
    assert_eq!(store.warnings(), []);
    for _ in 0..2 {
        store.gc(&GcRequest::new()).await.unwrap();
        let report = store.verify(&VerifyRequest::all()).await.unwrap();
        assert!(report.is_sound() && report.unknown_blobs == 0, "{report:?}");
    }
    store.close().await.unwrap();
}

/// `metadata/` put back from a copy of the time when there was only `v1`.
async fn put_back(place: &Place, change: impl FnOnce(&Connection)) -> PathBuf {
    let root = place.root();
    let store = place.open().await;
    let base = place.write("v1", &tree(0));
    take(&store, "v1", &base).await;
    store.close().await.unwrap();
    copy(&root.join("metadata"), &place.path("old"));
    let store = place.open().await;
    for (seed, version) in VERSIONS.iter().enumerate().skip(1) {
        let base = place.write(version, &tree(seed));
        take(&store, version, &base).await;
    }
    store.close().await.unwrap();
    fs::remove_dir_all(root.join("metadata")).unwrap();
    fs::rename(place.path("old"), root.join("metadata")).unwrap();
    change(&catalog(&root));
    root
}

#[tokio::test]
async fn a_catalog_put_back_from_a_copy_takes_in_what_it_does_not_know() {
    let place = Place::new();
    let root = put_back(&place, |_| {}).await;
    let before = names_in_shards(&content(&root));
    let store = open(&root).await;
    let said = store.warnings();
    assert_eq!(said[0].kind, WarningKind::CatalogOlder);
    assert!(said[0].message.contains("`rebuild`"), "{said:?}");
    assert_eq!(store.list().await.unwrap().len(), 1);
    let report = store.verify(&VerifyRequest::all()).await.unwrap();
    assert_eq!(report.unknown_blobs, 5);
    assert!(report.unknown_bytes >= 500_000);
    assert_eq!(report.swept_names, 0);
    assert!(!report.is_sound() && report.warnings[0].kind == WarningKind::Unknown);
    // It is said until somebody does something about it, however much is written meanwhile.
    for version in ["w1", "w2", "w3", "w4", "w5", "w6", "w7", "w8"] {
        take(&store, version, &place.path("v1")).await;
    }
    collect(&store).await;
    store.close().await.unwrap();
    let store = open(&root).await;
    assert_eq!(store.warnings().len(), 1);
    store.close().await.unwrap();
    assert_all_kept(&root, &before);

    let report = rebuild(&root).await;
    match support_b::format() {
        Format::V2 => assert_eq!((report.unnamed_blobs, report.unnamed_packs), (0, 5)),
        _ => assert_eq!((report.unnamed_blobs, report.unnamed_bytes), (5, 500_000)),
    }
    assert_eq!((report.quarantined.len(), report.old_catalog), (0, None));
    assert_all_kept(&root, &before);
    let store = open(&root).await;
    assert_eq!(store.warnings(), []);
    assert_sound(&store).await;
    assert_eq!(store.list().await.unwrap().len(), 1 + 8 + 1);
    // Which pages of a pack are a file only its documents say.
    if support_b::format() == Format::V1 {
        let output = place.fresh();
        let found = RestoreRequest::new(report.lost_and_found[0].clone(), &output);
        store.restore(&found).await.unwrap();
        let taken: BTreeSet<Vec<u8>> = files_in(&output)
            .iter()
            .map(|file| fs::read(file).unwrap())
            .collect();
        let lost = VERSIONS[1..].iter();
        let lost = lost.map(|version| fs::read(place.path(version).join("f")).unwrap());
        assert_eq!(taken, lost.collect());
    }
    let output = place.fresh();
    give(&store, "v1", &output).await;
    assert_same(&place.path("v1"), &output);
    // Now it lacks nothing.
    store.close().await.unwrap();
    let config = Config::new(&root);
    let again = Snapshotter::rebuild(&config, &RebuildRequest::new()).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);
}

/// What an old catalog holds for an orphan may have been stored again since.
#[tokio::test]
async fn orphans_of_an_old_catalog_are_not_swept() {
    let place = Place::new();
    let root = put_back(&place, |old| {
        for name in names_in_shards(&content(&place.root())) {
            old.execute("INSERT INTO orphans VALUES (0, ?1)", [name])
                .unwrap();
        }
    })
    .await;
    let before = names_in_shards(&content(&root));
    assert_eq!(before.len(), VERSIONS.len());
    let store = open(&root).await;
    collect(&store).await;
    store.verify(&VerifyRequest::all()).await.unwrap();
    store.close().await.unwrap();
    assert_all_kept(&root, &before);
}

/// The log has no second copy: what has to last is in the database when nobody has it open.
#[tokio::test]
async fn closing_empties_the_log_of_what_has_to_last() {
    let place = Place::new();
    let store = place.open().await;
    take_all(&place, &store).await;
    store.close().await.unwrap();
    // Its file stays, so that there is room for it on a full disk, and nothing in it counts.
    let log = place.root().join("metadata/catalog.db-wal");
    let size = fs::metadata(&log).unwrap().len();
    for part in 0..20 {
        let root = place.path(&format!("flipped-{part}"));
        copy(&place.root(), &root);
        flip_bit(&root.join("metadata/catalog.db-wal"), part * size / 20);
        let store = open(&root).await;
        assert_eq!(store.warnings(), []);
        assert_eq!(store.list().await.unwrap().len(), 6, "part {part}");
        assert_sound(&store).await;
    }
}

in_pages_too!(
    a_bit_flipped_anywhere_in_the_log_loses_no_bytes_and_is_said,
    a_catalog_put_back_from_a_copy_takes_in_what_it_does_not_know,
    orphans_of_an_old_catalog_are_not_swept,
);

//! Packs as those see them who look and mend: verification, repair, rebuilds, comparisons, collections, and what is refused
//! because format v2 is local so far.

use crate::support_a;

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};
use snapshotter::{
    BadBlob, Compression, Config, ErrorKind, Format, GcRequest, ParentChoice, RebuildRequest,
    SnapshotRequest, Snapshotter, VerifyReport, VerifyRequest,
};
use support_a::*;
use testkit::compare::assert_same;
use testkit::{Content as Bytes, Tree};

const PAGE: u64 = 4096;

fn machine() -> Tree {
    let memory = Bytes::Sparse {
        size: 300 * PAGE + 17,
        extents: vec![(0, 1, 100 * PAGE), (150 * PAGE, 2, 150 * PAGE + 17)],
    };
    Tree::new()
        .file("memory", memory)
        .file("state", random(3, 5000))
        .mtime("memory", OLD.0, OLD.1)
        .mtime("state", OLD.0, OLD.1)
}

fn paged(version: &str, base: &Path) -> SnapshotRequest {
    all(version, base).format(Format::V2)
}

async fn take_paged(store: &Snapshotter, version: &str, base: &Path) {
    store.snapshot(&paged(version, base)).await.unwrap();
}

fn packs(place: &Place) -> Vec<PathBuf> {
    let content = place.root().join("storage/content/blake3");
    let mut found = files_below(&content);
    found.retain(|path| path.extension().is_some_and(|end| end == "pack"));
    found.iter().map(|path| content.join(path)).collect()
}

fn only_pack(place: &Place) -> PathBuf {
    let found = packs(place);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

fn lists(place: &Place) -> Vec<PathBuf> {
    files_in(&place.root().join("digests"))
}

fn catalog(place: &Place) -> Connection {
    Connection::open(place.root().join("metadata/catalog.db")).unwrap()
}

fn names(bad: &[BadBlob]) -> Vec<String> {
    let name = |bad: &BadBlob| {
        assert_eq!((bad.digest, bad.checksum), (None, None));
        bad.pack.unwrap().hex()
    };
    bad.iter().map(name).collect()
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into_owned()
}

async fn repair(store: &Snapshotter) -> VerifyReport {
    store
        .verify(&VerifyRequest::all().repair(true))
        .await
        .unwrap()
}

/// `test:v1` in format v2, in one pack.
struct One {
    place: Place,
    store: Snapshotter,
    base: PathBuf,
    pack: PathBuf,
}

impl One {
    async fn new() -> Self {
        let place = Place::new();
        let base = place.write("base", &machine());
        let store = place.open().await;
        take_paged(&store, "v1", &base).await;
        let pack = only_pack(&place);
        Self {
            place,
            store,
            base,
            pack,
        }
    }

    async fn assert_given(&self) {
        let output = self.place.fresh();
        give(&self.store, "v1", &output).await;
        assert_same(&self.base, &output);
    }
}

#[tokio::test]
async fn all_of_a_pack_is_read() {
    let one = One::new().await;
    let report = verify(&one.store).await;
    assert!(report.is_sound(), "{report:?}");
    let length = stat(&one.pack).len();
    assert_eq!((report.checked_packs, report.checked_blobs), (1, 0));
    assert_eq!(report.checked_bytes, length);
}

// A byte in each part: the first bytes, a frame, the map behind the data, the table, the footer, the last bytes.
#[tokio::test]
async fn damage_anywhere_in_a_pack_is_found_and_what_is_right_again_is_unmarked() {
    let one = One::new().await;
    let good = fs::read(&one.pack).unwrap();
    let length = good.len();
    for at in [
        0,
        8,
        9000,
        length - 200,
        length - 100,
        length - 60,
        length - 1,
    ] {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(&one.pack, &bad).unwrap();
        let report = verify(&one.store).await;
        assert_eq!(names(&report.damaged), [stem(&one.pack)], "byte {at}");
        assert_eq!(report.damaged[0].snapshots, [reference("test:v1")]);
        assert_eq!(report.damaged[0].size, length as u64);
        assert!(report.missing.is_empty() && report.damaged_snapshots.is_empty());
        assert_eq!(
            give_fails(&one.store, "v1", &one.place.fresh())
                .await
                .kind(),
            ErrorKind::Damaged
        );
        fs::write(&one.pack, &good).unwrap();
        let report = verify(&one.store).await;
        assert_eq!((report.is_sound(), report.mended), (true, 1), "byte {at}");
    }
    for cut in [0, 7, 80, length - 1] {
        fs::write(&one.pack, &good[..cut]).unwrap();
        assert_eq!(
            names(&verify(&one.store).await.damaged).len(),
            1,
            "cut at {cut}"
        );
    }
    fs::write(&one.pack, [&good[..], b"more"].concat()).unwrap();
    assert_eq!(names(&verify(&one.store).await.damaged).len(), 1);
    fs::remove_file(&one.pack).unwrap();
    assert_eq!(names(&verify(&one.store).await.missing), [stem(&one.pack)]);
    fs::write(&one.pack, &good).unwrap();
    assert!(verify(&one.store).await.is_sound());
    one.assert_given().await;
}

#[tokio::test]
async fn verifying_a_snapshot_reads_its_packs_alone() {
    let one = One::new().await;
    let other = one
        .place
        .write("other", &Tree::new().file("disk", random(9, 90_000)));
    take_paged(&one.store, "v2", &other).await;
    fs::write(&one.pack, "no pack").unwrap();
    let of = async |name| {
        let request = VerifyRequest::all().reference(reference(name));
        one.store.verify(&request).await.unwrap()
    };
    let report = of("test:v2").await;
    assert_eq!((report.is_sound(), report.checked_packs), (true, 1));
    assert_eq!(names(&of("test:v1").await.damaged), [stem(&one.pack)]);
}

type Change = fn(String) -> String;

/// Replaces a snapshot's document by what `change` makes of its text, and pins it as the one that was stored.
fn rewrite(place: &Place, change: impl Fn(String) -> String) {
    let catalog = catalog(place);
    let (id, manifest, document): (i64, Vec<u8>, Vec<u8>) = catalog
        .query_row(
            "SELECT snapshot, manifest, document FROM artifacts",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .unwrap();
    let text = String::from_utf8(zstd::decode_all(&document[..]).unwrap()).unwrap();
    let changed = change(text.clone());
    assert_ne!(changed, text);
    let mut frame = zstd::bulk::Compressor::new(3).unwrap();
    let new = frame.compress(changed.as_bytes()).unwrap();
    let manifest = String::from_utf8(manifest).unwrap();
    let [was, is] = [&document, &new].map(|bytes| sha256(bytes));
    let manifest = manifest.replace(&was, &is).replace(
        &format!("\"size\":{}", document.len()),
        &format!("\"size\":{}", new.len()),
    );
    catalog
        .execute(
            "UPDATE artifacts SET manifest = ?2, document = ?3 WHERE snapshot = ?1",
            params![id, manifest.as_bytes(), new],
        )
        .unwrap();
    let digest = <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(manifest.as_bytes()));
    catalog
        .execute(
            "UPDATE snapshots SET manifest_digest = ?2 WHERE id = ?1",
            params![id, digest],
        )
        .unwrap();
}

fn sha256(bytes: &[u8]) -> String {
    let digest = <sha2::Sha256 as sha2::Digest>::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Puts another 64 digits behind the first place where `key` is.
fn other_hash(text: &str, key: &str) -> String {
    let at = text.find(key).unwrap() + key.len();
    format!("{}{}{}", &text[..at], "ab".repeat(32), &text[at + 64..])
}

// Packs vouch for their frames, and documents for the packs: that the two fit is what content ids are for.
#[tokio::test]
async fn packs_that_do_not_have_what_the_document_says_are_found() {
    let changes: [(&str, Change); 4] = [
        ("the contents of files: 1, memory", |text| {
            other_hash(&text, "\"content\":\"blake3:")
        }),
        // One byte of the last page is behind the end then.
        ("the contents of files: 1, state", |text| {
            text.replace("\"size\":\"5000\"", "\"size\":\"4999\"")
                .replace("\"size\":5000", "\"size\":4999")
        }),
        ("the map in the pack", |text| {
            text.replace("\"size\":\"1228817\"", "\"size\":\"900000\"")
                .replace("\"size\":1228817", "\"size\":900000")
        }),
        ("disagree about its pages", |text| {
            let at = text.find("\"pages\":").unwrap() + 8;
            format!("{}1{}", &text[..at], &text[at..])
        }),
    ];
    for (problem, change) in changes {
        let one = One::new().await;
        rewrite(&one.place, change);
        for repairs in [false, true] {
            let report = one
                .store
                .verify(&VerifyRequest::all().repair(repairs))
                .await
                .unwrap();
            assert!(
                report.damaged.is_empty() && report.missing.is_empty(),
                "{report:?}"
            );
            let [bad] = &report.damaged_snapshots[..] else {
                panic!("{problem}: {report:?}")
            };
            assert!(bad.problem.contains(problem), "{bad:?} is not: {problem}");
        }
    }
}

#[tokio::test]
async fn a_document_that_names_a_pack_nobody_has_is_damage() {
    let one = One::new().await;
    rewrite(&one.place, |text| other_hash(&text, "\"id\":\"blake3:"));
    let report = repair(&one.store).await;
    assert!(
        report.damaged_snapshots[0]
            .problem
            .contains("has lost packs: 1"),
        "{report:?}"
    );
}

#[tokio::test]
async fn a_wrong_list_of_page_digests_is_dropped_and_made_again() {
    let one = One::new().await;
    let [list] = &lists(&one.place)[..] else {
        panic!()
    };
    let good = fs::read(list).unwrap();
    for wrong in [
        &good[..good.len() - 32],
        &[&good[..32], &good[..good.len() - 32]].concat(),
    ] {
        fs::write(list, wrong).unwrap();
        assert!(verify(&one.store).await.is_sound());
        assert!(!list.exists());
    }
    let report = one.store.snapshot(&paged("v2", &one.base)).await.unwrap();
    let paged = report.paged.unwrap();
    assert_eq!((paged.changed_pages, paged.stored_pages), (0, 0));
    fs::write(list, &good).unwrap();
    assert!(verify(&one.store).await.is_sound());
}

/// The first child took its parent's list away: for each further child of the same parent all packs were read.
#[tokio::test]
async fn a_name_has_two_lists_of_page_digests_the_newest_and_its_parents() {
    let one = One::new().await;
    let [first] = &lists(&one.place)[..] else {
        panic!()
    };
    for fork in ["fork-1", "fork-2", "fork-3"] {
        let request = paged(fork, &one.base).parent(ParentChoice::Snapshot(reference("test:v1")));
        one.store.snapshot(&request).await.unwrap();
        assert!(first.exists(), "{fork}");
        assert_eq!(lists(&one.place).len(), 2, "{fork}");
    }
    one.store.snapshot(&paged("next", &one.base)).await.unwrap();
    assert!(!first.exists());
    assert_eq!(lists(&one.place).len(), 2);
    // Who starts there once more makes it again, once.
    let request = paged("late", &one.base).parent(ParentChoice::Snapshot(reference("test:v1")));
    one.store.snapshot(&request).await.unwrap();
    assert!(first.exists());
    assert_eq!(lists(&one.place).len(), 2);
}

#[tokio::test]
async fn a_repair_takes_a_pack_where_it_is_and_moves_wrong_ones_aside() {
    let one = One::new().await;
    let good = fs::read(&one.pack).unwrap();
    // Only the row was wrong.
    let sql = "UPDATE objects SET length = 5, mtime_seconds = 1, state = 1";
    catalog(&one.place).execute(sql, []).unwrap();
    assert_eq!(names(&verify(&one.store).await.damaged).len(), 1);
    assert_eq!(names(&repair(&one.store).await.repaired), [stem(&one.pack)]);
    one.assert_given().await;
    // It is in another shard.
    let shard = one.place.root().join("storage/content/blake3/0007");
    fs::create_dir(&shard).unwrap();
    let moved = shard.join(one.pack.file_name().unwrap());
    fs::rename(&one.pack, &moved).unwrap();
    assert_eq!(names(&repair(&one.store).await.repaired).len(), 1);
    one.assert_given().await;
    // The reference and the row are gone.
    let catalog = catalog(&one.place);
    catalog
        .execute("DELETE FROM object_references", [])
        .unwrap();
    catalog.execute("DELETE FROM objects", []).unwrap();
    let report = repair(&one.store).await;
    assert_eq!(
        report.repaired_snapshots,
        [reference("test:v1")],
        "{report:?}"
    );
    one.assert_given().await;
    // It has other bytes.
    fs::write(&moved, &good[..good.len() / 2]).unwrap();
    let report = repair(&one.store).await;
    let aside = report.damaged[0].quarantined.clone().unwrap();
    assert_eq!(fs::read(aside).unwrap().len(), good.len() / 2);
    assert!(!moved.exists() && !repair(&one.store).await.missing.is_empty());
    // A snapshot of the same pages brings it back.
    one.store
        .snapshot(&paged("v2", &one.base).parent(ParentChoice::None))
        .await
        .unwrap();
    assert!(verify(&one.store).await.is_sound());
    one.assert_given().await;
}

#[tokio::test]
async fn a_snapshot_says_its_packs_and_what_it_alone_needs() {
    let one = One::new().await;
    let details = one.store.inspect(&reference("test:v1")).await.unwrap();
    assert_eq!(details.summary.format, Format::V2);
    let [memory, state] = &details.files[..] else {
        panic!()
    };
    for file in [memory, state] {
        assert_eq!((file.digest, file.checksum), (None, None));
        assert!(file.content.is_some());
    }
    let [pack] = details.packs[..] else { panic!() };
    let length = stat(&one.pack).len();
    assert_eq!((pack.length, pack.exclusive), (length, true));
    assert_eq!(
        (pack.pages, details.exclusive_bytes),
        (100 + 151 + 2, length)
    );
    overwrite(&one.base.join("memory"), 10 * PAGE, b"changed");
    take_paged(&one.store, "v2", &one.base).await;
    let details = one.store.inspect(&reference("test:v2")).await.unwrap();
    let [new, old] = details.packs[..] else {
        panic!()
    };
    assert_eq!((new.pages, new.exclusive, old.exclusive), (1, true, false));
    assert_eq!(details.exclusive_bytes, new.length);
    let usage = one.store.usage().await.unwrap();
    assert_eq!((usage.packs, usage.blobs), (2, 0));
    assert_eq!(usage.stored_bytes, new.length + old.length);
    let all = one.store.usage_details().await.unwrap();
    let [second, first] = &all.snapshots[..] else {
        panic!()
    };
    assert_eq!(
        (second.shared_bytes, second.exclusive_bytes),
        (old.length, new.length)
    );
    assert_eq!((first.shared_bytes, first.exclusive_bytes), (old.length, 0));
}

#[tokio::test]
async fn pages_that_differ_are_counted_and_nothing_else_is_read() {
    let one = One::new().await;
    let memory = one.base.join("memory");
    overwrite(&memory, 10 * PAGE + 5, b"changed");
    overwrite(&memory, 120 * PAGE, b"new");
    fs::File::options()
        .write(true)
        .open(&memory)
        .unwrap()
        .set_len(299 * PAGE)
        .unwrap();
    fs::write(one.base.join("new"), "new").unwrap();
    fs::remove_file(one.base.join("state")).unwrap();
    take_paged(&one.store, "v2", &one.base).await;
    // The same bytes, in packs of its own.
    let alone = paged("v3", &one.base)
        .parent(ParentChoice::None)
        .compression(Compression::None);
    one.store.snapshot(&alone).await.unwrap();
    let differ = async |from: &str, to: &str| {
        let (from, to) = (reference(from), reference(to));
        let changed = one.store.changed_pages(&from, &to).await.unwrap();
        let changed = changed
            .into_iter()
            .map(|one| (one.relative_path, one.pages));
        changed.collect::<Vec<_>>()
    };
    // One changed, one came, and two went with the end.
    let expected = vec![(PathBuf::from("memory"), 4)];
    for (from, to) in [("v1", "v2"), ("v2", "v1"), ("v1", "v3"), ("v3", "v1")] {
        assert_eq!(
            differ(&format!("test:{from}"), &format!("test:{to}")).await,
            expected
        );
    }
    assert_eq!(differ("test:v2", "test:v3").await, []);
    take(&one.store, "old", &one.base).await;
    let refused = one
        .store
        .changed_pages(&reference("test:old"), &reference("test:v2"))
        .await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unsupported);
}

/// `test:v1`, and `other:v1`, which needs its pack and one more.
async fn related() -> One {
    let one = One::new().await;
    overwrite(&one.base.join("memory"), 0, b"changed");
    let other = SnapshotRequest::new("other", "v1", &one.base).format(Format::V2);
    one.store.snapshot(&other).await.unwrap();
    assert_eq!((packs(&one.place).len(), lists(&one.place).len()), (2, 2));
    one
}

#[tokio::test]
async fn a_pack_goes_with_the_last_snapshot_that_needs_it_and_lists_with_theirs() {
    let one = related().await;
    let test = reference("test:v1");
    let planned = one.store.plan_removal(&test).await.unwrap();
    let removed = one.store.remove(&test).await.unwrap();
    assert_eq!((planned.blobs_removed, removed.freed_bytes), (0, 0));
    assert_eq!((packs(&one.place).len(), lists(&one.place).len()), (2, 1));
    let output = one.place.fresh();
    let request = snapshotter::RestoreRequest::new(reference("other:v1"), &output);
    one.store.restore(&request).await.unwrap();
    assert_same(&one.base, &output);
    let removed = one.store.remove(&reference("other:v1")).await.unwrap();
    assert_eq!(removed.blobs_removed, 2);
    assert!(lists(&one.place).is_empty());
    one.place.assert_empty();
}

#[tokio::test]
async fn a_collection_counts_packs_and_frees_one_with_its_last_snapshot() {
    let one = related().await;
    let request = GcRequest::new()
        .max_bytes(1)
        .min_retention_period(std::time::Duration::ZERO)
        .include_unpublished(true);
    one.store.pin(&reference("other:v1")).await.unwrap();
    let report = one.store.gc(&request).await.unwrap();
    // All that `test:v1` has the other one needs.
    assert_eq!((report.released.len(), packs(&one.place).len()), (0, 2));
    let stored = one.store.usage().await.unwrap().stored_bytes;
    assert_eq!(report.wanted.store_bytes, stored - 1);
    one.store.unpin(&reference("other:v1")).await.unwrap();
    let report = one.store.gc(&request).await.unwrap();
    assert_eq!((report.released.len(), report.blobs_released), (2, 2));
    assert_eq!(report.released_bytes, stored);
    assert!(lists(&one.place).is_empty());
    one.place.assert_empty();
}

#[tokio::test]
async fn packs_of_a_lost_catalog_are_kept_and_removed_when_somebody_says_so() {
    let One {
        place, store, pack, ..
    } = One::new().await;
    store.close().await.unwrap();
    let stray = place
        .root()
        .join("storage/content/blake3/0000")
        .join(format!("{}.pack", "ab".repeat(32)));
    fs::write(&stray, "no pack").unwrap();
    fs::remove_dir_all(place.root().join("metadata")).unwrap();
    let config = Config::new(place.root());
    let report = Snapshotter::rebuild(&config, &RebuildRequest::new())
        .await
        .unwrap();
    assert_eq!(
        (
            report.checked_packs,
            report.unnamed_packs,
            report.unnamed_blobs
        ),
        (1, 1, 0)
    );
    assert_eq!(report.unnamed_bytes, stat(&pack).len());
    assert_eq!(
        (report.lost_and_found.len(), report.quarantined.len()),
        (1, 1)
    );
    assert!(pack.exists() && !stray.exists());
    let store = place.open().await;
    let report = verify(&store).await;
    assert_eq!(
        (
            report.is_sound(),
            report.checked_packs,
            report.unknown_blobs
        ),
        (true, 1, 0)
    );
    assert!(repair(&store).await.is_sound());
    let lost = store.list().await.unwrap().remove(0).reference;
    let removed = store.remove(&lost).await.unwrap();
    assert_eq!((removed.blobs_removed, pack.exists()), (1, false));
}

/// Zeroes the root page of an index: the tables can be read, and the database is damaged.
fn break_index(place: &Place) {
    let connection = catalog(place);
    let truncate = "PRAGMA wal_checkpoint(TRUNCATE)";
    connection.query_row(truncate, [], |_| Ok(())).unwrap();
    let sql = "SELECT rootpage FROM sqlite_master WHERE name = 'snapshots_by_name'";
    let page: i64 = connection.query_row(sql, [], |row| row.get(0)).unwrap();
    drop(connection);
    let path = place.root().join("metadata/catalog.db");
    overwrite(&path, (page.cast_unsigned() - 1) * 4096, &[0xff; 4096]);
}

#[tokio::test]
async fn snapshots_in_pages_that_a_damaged_catalog_still_says_are_kept() {
    for is_lost in [false, true] {
        let one = One::new().await;
        let data = one.store.list().await.unwrap()[0].data_bytes;
        one.store.close().await.unwrap();
        break_index(&one.place);
        let bytes = fs::read(&one.pack).unwrap();
        if is_lost {
            fs::remove_file(&one.pack).unwrap();
        }
        let config = Config::new(one.place.root());
        let report = Snapshotter::rebuild(&config, &RebuildRequest::new())
            .await
            .unwrap();
        assert_eq!(report.snapshots.len(), 1, "{report:?}");
        assert_eq!(report.snapshots[0].missing_blobs, u64::from(is_lost));
        assert!(report.lost_and_found.is_empty());
        let one = One {
            store: one.place.open().await,
            ..one
        };
        let summary = one.store.list().await.unwrap().remove(0);
        assert_eq!((summary.format, summary.data_bytes), (Format::V2, data));
        if is_lost {
            assert_eq!(names(&verify(&one.store).await.missing), [stem(&one.pack)]);
            fs::create_dir_all(one.pack.parent().unwrap()).unwrap();
            fs::write(&one.pack, bytes).unwrap();
            repair(&one.store).await;
        }
        assert_sound(&one.store).await;
        one.assert_given().await;
    }
}

//! Rows that come to stand for other files while somebody works with what was read of them.
//!
//! The bug: a row was known by its id, and SQLite gives the highest id out again once its row is deleted. So what was found
//! out about one file was written into the row of another.

use std::collections::HashSet;
use std::sync::Arc;

use super::*;
use crate::catalog::{Blob, BlobState, Sync, Unsynced, ViewInode};
use crate::format::spf;
use crate::metrics::Operation as Verb;
use crate::pass::Hashes;
use crate::words::digest::{Checksum, Digest};
use crate::words::entry::Mtime;
use crate::words::extent::{Extent, ExtentMap};

pub(crate) fn open(dir: &Path) -> Arc<Store> {
    Arc::new(Store::open(&dir.join("root"), None, Duration::from_secs(5)).unwrap())
}

/// A pending snapshot, which goes with the operation.
fn pending(store: &Arc<Store>, version: &str) -> (Operation, i64) {
    let reference = format!("a:{version}").parse().unwrap();
    let operation = store.begin(Verb::Snapshot).unwrap();
    let begun = store
        .catalog
        .write(Sync::Normal, |txn| operation.pending(txn, &reference));
    let snapshot = begun.unwrap();
    (operation, snapshot)
}

pub(crate) fn put(store: &Arc<Store>, version: &str, bytes: &[u8]) -> (Operation, i64) {
    let (operation, snapshot) = pending(store, version);
    let outcomes = store.commit(snapshot, &mut [ingest(bytes)]).unwrap();
    assert_eq!(outcomes, [Ingested::Stored]);
    (operation, snapshot)
}

fn ingest(bytes: &[u8]) -> Ingest<'static> {
    let map = ExtentMap::dense(bytes.len() as u64).unwrap();
    let mut stream = spf::header(bytes.len() as u64, 1).to_vec();
    stream.extend(spf::descriptor(map.extents()[0]));
    stream.extend(bytes);
    Ingest {
        payload: Payload::Bytes(bytes.to_vec()),
        hashes: Hashes {
            digest: Digest::of(&stream),
            checksum: Checksum::of(&stream),
        },
        map,
        mtime: None,
        probe: None,
    }
}

fn unsynced(store: &Store, snapshot: i64) -> Vec<Unsynced> {
    let found = store.catalog.read(|txn| txn.unsynced_blobs(snapshot));
    found.unwrap()
}

/// A sync that ends when its snapshot is gone and another one is there.
fn sync_late(old: &[u8], new: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (operation, before) = put(&store, "v1", old);
    let synced = store.make_durable(before, &HashSet::new()).unwrap();
    assert_eq!(synced.len(), 1);
    drop(operation);
    let (_operation, after) = put(&store, "v2", new);
    let noted = store
        .catalog
        .write(Sync::Full, |txn| txn.mark_synced(&synced));
    noted.unwrap();
    assert_eq!(unsynced(&store, after).len(), 1, "it was never synced");
}

#[test]
fn a_sync_that_ends_late_leaves_the_marks_of_other_files() {
    sync_late(b"old bytes", b"other new bytes");
}

/// Their names are the same, and the file is not.
#[test]
fn a_sync_that_ends_late_leaves_the_mark_of_the_same_bytes_stored_again() {
    sync_late(b"the same bytes", b"the same bytes");
}

// So many of a snapshot's files were listed as decide for one call that syncs all of the filesystem. Where that call tells of no
// failure the listed ones alone were synced, and all counted as synced.
#[test]
fn where_syncfs_tells_nothing_every_file_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut operations = Vec::new();
    let mut all = Vec::new();
    for number in 0..40 {
        let (operation, snapshot) = put(&store, &format!("v{number}"), &[number; 100]);
        operations.push(operation);
        all.extend(unsynced(&store, snapshot));
    }
    let last = store.root.content.path_of(&all[39].name());
    std::fs::remove_file(&last).unwrap();
    std::os::unix::fs::symlink("nowhere", &last).unwrap();
    store.sync_blobs(all.iter(), &all, true).unwrap();
    let error = store.sync_blobs(all.iter(), &all, false).unwrap_err();
    assert!(error.to_string().contains("cannot open"), "{error}");
}

/// A blob whose map is too long to come along with its row.
fn put_long_map(store: &Arc<Store>) -> (Operation, Blob) {
    let (operation, snapshot) = pending(store, "v1");
    let mut map = ExtentMap::hole(1 << 30).unwrap();
    for at in 0..200_u64 {
        let (offset, len) = (at * 8192, 4096);
        map.push(Extent { offset, len }).unwrap();
    }
    let (slot, file) = store.create_slot().unwrap();
    file.set_len(1 << 30).unwrap();
    let ingest = Ingest {
        payload: Payload::Slot(slot),
        hashes: Hashes {
            digest: Digest::from_u64(7),
            checksum: Checksum::of(b"7"),
        },
        map,
        mtime: None,
        probe: None,
    };
    store.commit(snapshot, &mut [ingest]).unwrap();
    let blobs = store.catalog.read(|txn| txn.blobs_after(None, 10));
    (operation, blobs.unwrap().remove(0))
}

#[test]
fn what_is_looked_up_for_a_blob_that_has_gone_marks_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (operation, stale) = put_long_map(&store);
    drop(operation);
    let _operation = put(&store, "v2", b"good bytes");
    assert!(store.extents(&stale).is_err());
    store.found_missing(&stale).unwrap();
    store.mark_unreadable(&stale).unwrap();
    let blobs = store.catalog.read(|txn| txn.blobs_after(None, 10)).unwrap();
    assert_eq!(blobs.len(), 1);
    assert_eq!(blobs[0].state, BlobState::Good);
}

/// The bug: `verify` could not be cancelled while SQLite looked at the whole catalog.
#[test]
fn looking_at_the_whole_catalog_ends_when_it_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let _operation = put(&store, "v1", b"bytes");
    let cancelled = Arc::new(AtomicBool::new(false));
    assert!(store.catalog.problems(&cancelled).unwrap().is_empty());
    cancelled.store(true, Ordering::Relaxed);
    let error = store.catalog.problems(&cancelled).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    // The connection is as good as before.
    cancelled.store(false, Ordering::Relaxed);
    assert!(store.catalog.problems(&cancelled).unwrap().is_empty());
}

// Names were given up and swept in the order in which their files had been taken, and in that each is on another page of the
// catalog. Where there are more pages than are kept in memory, they are read and written again and again.
#[test]
fn names_are_given_up_in_the_order_the_catalog_has_them_in() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (_operation, snapshot) = pending(&store, "v1");
    let mut items: Vec<_> = (0..100_u8).map(|number| ingest(&[number])).collect();
    store.commit(snapshot, &mut items).unwrap();
    let inode = ViewInode {
        number: 1,
        mtime: Mtime::default(),
    };
    let doomed = store.catalog.write(Sync::Full, |txn| {
        for item in items.iter().step_by(3) {
            let view = (item.hashes.checksum, [7; 16]);
            assert!(txn.put_view(&view, inode, "boot")?);
        }
        txn.doom_blobs_of(snapshot)
    });
    let doomed = doomed.unwrap();
    assert_eq!((doomed.objects, doomed.bytes), (100, 100));
    let orphans = store.catalog.read(|txn| txn.orphans_after(None, 1000));
    let orphans = orphans.unwrap();
    assert_eq!(orphans.len(), 134);
    assert_eq!(doomed.names().collect::<Vec<_>>(), orphans);
    let rest = store
        .catalog
        .read(|txn| txn.orphans_after(Some(&orphans[120]), 1000));
    assert_eq!(rest.unwrap(), orphans[121..]);
}

//! Rows that come to stand for other files while somebody works with what was read of them.
//!
//! The bug: a row was known by its id, and SQLite gives the highest id out again once its row is deleted. So what was found
//! out about one file was written into the row of another.

use std::collections::HashSet;

use super::stream::Hashes;
use super::*;
use crate::catalog::{Blob, BlobState, Unsynced};
use crate::format::spf;
use crate::words::digest::{Checksum, Digest};
use crate::words::extent::{Extent, ExtentMap};

fn open(dir: &Path) -> Store {
    Store::open(&dir.join("root"), Duration::from_secs(5)).unwrap()
}

/// A pending snapshot that an operation leases.
fn pending(store: &Store, version: &str, operation: i64) -> i64 {
    let reference = format!("a:{version}").parse().unwrap();
    let begun = store.catalog.write(Sync::Normal, |txn| {
        let snapshot = txn.insert_pending(&reference, now())?;
        txn.insert_lease(store.owner.name(), operation, snapshot)?;
        Ok(snapshot)
    });
    begun.unwrap()
}

fn put(store: &Store, version: &str, operation: i64, bytes: &[u8]) -> i64 {
    let snapshot = pending(store, version, operation);
    let map = ExtentMap::dense(bytes.len() as u64).unwrap();
    let mut stream = spf::header(bytes.len() as u64, 1).to_vec();
    stream.extend(spf::descriptor(map.extents()[0]));
    stream.extend(bytes);
    let ingest = Ingest {
        payload: Payload::Bytes(bytes.to_vec()),
        hashes: Hashes {
            digest: Digest::of(&stream),
            checksum: Checksum::of(&stream),
        },
        map,
        mtime: None,
        probe: None,
    };
    let outcomes = store.commit(snapshot, &mut [ingest]).unwrap();
    assert_eq!(outcomes, [Ingested::Stored]);
    snapshot
}

fn unsynced(store: &Store, snapshot: i64) -> Vec<Unsynced> {
    let found = store.catalog.read(|txn| txn.unsynced_blobs(snapshot));
    found.unwrap()
}

/// A sync that ends when its snapshot is gone and another one is there.
fn sync_late(old: &[u8], new: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let before = put(&store, "v1", 1, old);
    let synced = store.make_durable(before, &HashSet::new()).unwrap();
    assert_eq!(synced.len(), 1);
    store.release(1).unwrap();
    let after = put(&store, "v2", 2, new);
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

/// A blob whose map is too long to come along with its row.
fn put_long_map(store: &Store) -> Blob {
    let snapshot = pending(store, "v1", 1);
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
    blobs.unwrap().remove(0)
}

#[test]
fn what_is_looked_up_for_a_blob_that_has_gone_marks_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let stale = put_long_map(&store);
    store.release(1).unwrap();
    put(&store, "v2", 2, b"good bytes");
    assert!(store.extents(&stale).is_err());
    store.found_missing(&stale).unwrap();
    store.mark_unreadable(&stale).unwrap();
    let blobs = store.catalog.read(|txn| txn.blobs_after(None, 10)).unwrap();
    assert_eq!(blobs.len(), 1);
    assert_eq!(blobs[0].state, BlobState::Good);
}

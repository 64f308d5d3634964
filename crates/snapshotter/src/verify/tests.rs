//! Verdicts on what others remove and store meanwhile.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::store::tests::{open, put};

// A file that was gone when it was opened, because somebody removed its snapshot, was told as missing once somebody else
// had stored the same bytes again: every name had its file, and `verify` failed.
#[test]
fn what_was_removed_and_stored_again_meanwhile_is_not_missing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (operation, _) = put(&store, "v1", b"bytes");
    let blobs = store.catalog.read(|txn| txn.blobs_after(None, 10));
    let seen = blobs.unwrap().remove(0);
    let activity = Activity::new(Arc::new(AtomicBool::new(false)), None);
    let records = PageRecords::default();
    let check = Check {
        store: &store,
        activity: &activity,
        records: &records,
        subset: None,
        found: Mutex::new(Found::default()),
    };
    let verdict = || {
        check
            .confirmed(&Object::Blob(seen.clone()), Verdict::Missing)
            .unwrap()
    };
    drop(operation);
    assert_eq!(verdict(), Verdict::Gone);
    let _operation = put(&store, "v2", b"bytes");
    assert_eq!(verdict(), Verdict::Right);
    std::fs::remove_file(store.content_path(&seen, seen.form)).unwrap();
    assert_eq!(check.judge(&seen).unwrap(), Verdict::Missing);
    assert_eq!(verdict(), Verdict::Missing);
}

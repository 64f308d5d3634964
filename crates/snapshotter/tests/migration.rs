//! From an older catalog to this one's schema: nobody who still uses the old one is cut off, the old one is kept, and
//! wherever it is interrupted it can be done again.

mod support_b;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rusqlite::Connection;
use snapshotter::hook::{self, Action};
use snapshotter::{Config, ErrorKind};
use support_b::outside::{assert_at_rest, assert_rows_and_files_agree, catalog};
use support_b::{Handle, refusal};
use testkit::compare::{Options, assert_same_with};

/// A store as the release with schema 2 wrote it.
fn unpack(to: &Path) {
    fs::create_dir_all(to).unwrap();
    let archive =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/stores/schema-2.tar.gz");
    let mut tar = Command::new("tar");
    tar.arg("--extract").arg("--file").arg(archive);
    assert!(tar.arg("--directory").arg(to).status().unwrap().success());
}

#[test]
fn processes_of_an_older_release_are_waited_for_and_named() {
    let dir = tempfile::tempdir().unwrap();
    unpack(dir.path());
    let root = dir.path().join("root");
    let lease = fs::File::create(root.join("leases/0123456789abcdef")).unwrap();
    rustix::fs::flock(&lease, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let impatient = Config::new(&root).busy_timeout(Duration::from_millis(50));
    let error = refusal(Handle::with(impatient.clone()));
    assert_eq!(error.kind(), ErrorKind::Busy);
    let named = format!("process {}", std::process::id());
    assert!(error.to_string().contains(&named), "{error}");
    let schema = |catalog: &Connection| -> i64 {
        catalog
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap()
    };
    assert_eq!(schema(&catalog(&root)), 2, "nothing was changed");
    drop(lease);
    let handle = Handle::with(impatient).unwrap();
    assert_eq!(handle.listed(), ["vm:v2", "vm:v1"]);
    assert_eq!(schema(&catalog(&root)), 3);
    handle.assert_clean();
    handle.close().unwrap();

    // The old catalog is kept as it was, and is what an older release would open.
    let kept = root.join("metadata/before-schema-3.db");
    let kept = Connection::open(kept).unwrap();
    assert_eq!(schema(&kept), 2);
    let check: String = kept
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    let blobs: i64 = kept
        .query_row("SELECT count(*) FROM blobs", [], |row| row.get(0))
        .unwrap();
    assert_eq!((check.as_str(), blobs > 0), ("ok", true));
}

#[test]
fn what_was_published_somewhere_is_known_to_be_somewhere() {
    let dir = tempfile::tempdir().unwrap();
    unpack(dir.path());
    let root = dir.path().join("root");
    let change = "UPDATE snapshots SET state = 2 WHERE version = 'v1'";
    assert_eq!(catalog(&root).execute(change, []).unwrap(), 1);
    let handle = Handle::open(&root).unwrap();
    let found = handle.list().unwrap();
    let places: Vec<_> = found.iter().map(|one| one.publications.len()).collect();
    assert_eq!(places, [0, 1]);
    assert_eq!(found[1].state, snapshotter::SnapshotState::Published);
    assert_eq!(found[1].publications[0].registry, None);
    assert_eq!(found[0].state, snapshotter::SnapshotState::Unpublished);
    handle.close().unwrap();
}

#[test]
fn a_migration_that_fails_anywhere_can_be_done_again() {
    let dir = tempfile::tempdir().unwrap();
    unpack(dir.path());
    let trees = dir.path().join("trees");
    let mut failed = 0;
    for step in 1.. {
        let place = dir.path().join(format!("step-{step}"));
        unpack(&place);
        let root = place.join("root");
        hook::arm(Action::NoSpace, step);
        let opened = Handle::open(&root);
        let reached = hook::count() >= step;
        hook::arm(Action::NoSpace, u64::MAX);
        failed += u64::from(opened.is_err());
        drop(opened);
        let handle = Handle::open(&root).unwrap_or_else(|error| panic!("step {step}: {error:?}"));
        assert_eq!(handle.listed(), ["vm:v2", "vm:v1"], "step {step}");
        let output = place.join("output");
        handle.restore("vm:v1", &output).unwrap();
        let but_for_owners = Options {
            owner: false,
            ..Options::default()
        };
        assert_same_with(&trees.join("vm-v1"), &output, &but_for_owners);
        handle.assert_clean();
        for version in ["vm:v1", "vm:v2"] {
            handle.remove(version).unwrap();
        }
        handle.close().unwrap();
        assert_at_rest(&root);
        assert_rows_and_files_agree(&root);
        let drafts = fs::read_dir(root.join("metadata"))
            .unwrap()
            .filter(|entry| {
                let name = entry.as_ref().unwrap().file_name();
                name.to_string_lossy().starts_with("before-schema-3.db.")
            });
        assert_eq!(drafts.count(), 0, "step {step}");
        fs::remove_dir_all(&place).unwrap();
        if !reached {
            break;
        }
    }
    assert!(failed > 3, "{failed}");
}

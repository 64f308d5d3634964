//! From an older catalog to this one's schema: nobody who still uses the old one is cut off, the old one is kept, and
//! wherever it is interrupted it can be done again.

use crate::support_b;

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
use testkit::mount::{Kind, LoopMount, or_skip};

/// A store as the release with schema 2 wrote it.
fn unpack(to: &Path) {
    unpack_schema(2, to);
}

fn unpack_schema(schema: u32, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let stores = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/stores");
    let archive = stores.join(format!("schema-{schema}.tar.gz"));
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
    let line = std::fs::read_to_string("/proc/self/cmdline").unwrap();
    let named = format!(
        "process {} ({}",
        std::process::id(),
        line.split('\0').next().unwrap()
    );
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
    assert_eq!(schema(&catalog(&root)), 4);
    handle.assert_clean();
    handle.close().unwrap();

    // The old catalog is kept as it was, and is what an older release would open.
    let kept = root.join("metadata/before-schema-4.db");
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

// Rows of references that name nothing, which an older release put up with, were refused for ever.
#[test]
fn rows_that_name_what_is_not_there_stay_behind() {
    let dir = tempfile::tempdir().unwrap();
    unpack(dir.path());
    let root = dir.path().join("root");
    let damage = "PRAGMA foreign_keys = OFF;
        INSERT INTO leases (owner, operation, snapshot) VALUES ('somebody', 1, 777);
        INSERT INTO artifacts (snapshot, manifest, document) VALUES (777, x'00', x'00');
        INSERT INTO blob_references (snapshot, blob) VALUES (777, 1), (1, 777);
        INSERT INTO views (blob, attributes, mtime_seconds, mtime_nanoseconds, inode, boot)
        VALUES (777, zeroblob(16), 0, 0, 0, '');";
    catalog(&root).execute_batch(damage).unwrap();
    let handle = Handle::open(&root).unwrap();
    assert_eq!(handle.listed(), ["vm:v2", "vm:v1"]);
    handle.assert_clean();
    handle.close().unwrap();
}

// A full disk could not be brought up to date, and did not say how much it takes; and what a crash had left of earlier tries
// was never removed.
#[test]
fn a_full_disk_is_told_how_much_room_it_takes_and_has_the_reserve_for_it() {
    let mount = LoopMount::new(Kind::Ext4, 64 << 20, &[]);
    let Some(mount) = or_skip(mount) else { return };
    unpack(mount.path());
    let root = mount.path().join("root");
    let draft = root.join("metadata/before-schema-4.db.0123456789abcdef");
    fs::write(&draft, vec![1; 64 << 10]).unwrap();
    fs::write(root.join("metadata/before-schema-3.db"), "of long ago").unwrap();
    let rows = "PRAGMA foreign_keys = OFF;
        INSERT INTO artifacts VALUES (777, zeroblob(1000000), x'00')";
    catalog(&root).execute_batch(rows).unwrap();
    let filler = fs::File::create(mount.path().join("filler")).unwrap();
    let mut at = 0;
    for length in [16 << 20, 1 << 20, 64 << 10, 4096] {
        let flags = rustix::fs::FallocateFlags::empty();
        while rustix::fs::fallocate(&filler, flags, at, length).is_ok() {
            at += length;
        }
    }
    // Enough for the log's index, and not for a copy.
    filler.set_len(at - (256 << 10)).unwrap();
    let error = refusal(Handle::open(&root));
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
    let text = error.to_string();
    assert!(text.contains(" bytes") && error.hint().is_some(), "{text}");
    assert!(!draft.exists());
    assert!(!root.join("metadata/before-schema-3.db").exists());

    // A reserve of the older release, one file, is enough for what is small.
    filler.set_len(at - (6 << 20)).unwrap();
    let reserve = fs::File::create(root.join("reserve")).unwrap();
    let all = (1..).take_while(|blocks| {
        let flags = rustix::fs::FallocateFlags::empty();
        rustix::fs::fallocate(&reserve, flags, 0, blocks * 4096).is_ok()
    });
    assert!(all.count() > 1000);
    drop(reserve);
    let handle = Handle::open(&root).unwrap();
    assert_eq!(handle.listed(), ["vm:v2", "vm:v1"]);
    handle.close().unwrap();
}

#[test]
fn a_migration_that_fails_anywhere_can_be_done_again() {
    fails_anywhere(2);
}

#[test]
fn a_migration_from_schema_3_that_fails_anywhere_can_be_done_again() {
    fails_anywhere(3);
}

#[test]
fn ids_of_schema_3_are_not_given_out_again_and_what_names_nothing_stays_behind() {
    let dir = tempfile::tempdir().unwrap();
    unpack_schema(3, dir.path());
    let root = dir.path().join("root");
    let before = "UPDATE sqlite_sequence SET seq = 7000 WHERE name = 'snapshots';
        UPDATE generation SET number = 70;
        INSERT INTO orphans VALUES (0, 'name');
        PRAGMA foreign_keys = OFF;
        INSERT INTO object_references (snapshot, object) VALUES (777, 1), (1, 777);
        INSERT INTO leases (owner, operation, snapshot) VALUES ('somebody', 1, 777);";
    catalog(&root).execute_batch(before).unwrap();
    let handle = Handle::open(&root).unwrap();
    assert_eq!(handle.listed(), ["vm:v2", "vm:v1"]);
    let says = |sql: &str| -> i64 { catalog(&root).query_row(sql, [], |row| row.get(0)).unwrap() };
    assert_eq!(
        says("SELECT seq FROM sqlite_sequence WHERE name = 'snapshots'"),
        7000
    );
    assert!(says("SELECT number FROM generation") >= 70);
    assert_eq!(says("SELECT count(*) FROM orphans WHERE name = 'name'"), 1);
    handle.assert_clean();
    handle.close().unwrap();
}

fn fails_anywhere(schema: u32) {
    let dir = tempfile::tempdir().unwrap();
    unpack_schema(schema, dir.path());
    let trees = dir.path().join("trees");
    let mut failed = 0;
    for step in 1.. {
        let place = dir.path().join(format!("step-{step}"));
        unpack_schema(schema, &place);
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
                name.to_string_lossy().starts_with("before-schema-4.db.")
            });
        assert_eq!(drafts.count(), 0, "step {step}");
        fs::remove_dir_all(&place).unwrap();
        if !reached {
            break;
        }
    }
    assert!(failed > 3, "{failed}");
}

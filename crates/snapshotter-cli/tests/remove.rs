//! `snapshotter remove`.

use crate::support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use support::Place;

#[test]
fn removes_and_says_what_it_gave_back() {
    let place = Place::with_snapshot();
    place.run(["snapshot", "vm:v2", "vm", "memory"]).succeeded();
    assert_session!("text", place.run(["remove", "vm:v1"]).succeeded());
    assert_eq!(place.run(["list", "-q"]).succeeded().out, "vm:v2\n");
    place.run(["rm", "-q", "vm:v2"]).succeeded();
    place.assert_tidy();
}

#[test]
fn one_json_document_says_it_to_programs() {
    let place = Place::with_snapshot();
    let said = place.run(["remove", "vm:v1", "--json"]).succeeded();
    assert_eq!(said.json()["freedBytes"], 370_003);
    assert_session!("json", said);
}

#[test]
fn a_dry_run_removes_nothing() {
    let place = Place::with_snapshot();
    assert_session!(
        "dry_run",
        place.run(["remove", "vm:v1", "--dry-run"]).succeeded()
    );
    place.run(["inspect", "vm:v1"]).succeeded();
}

#[test]
fn nothing_is_removed_unless_all_are_there() {
    let place = Place::with_snapshot();
    place.run(["remove", "vm:v1", "vm:v2"]).exited(3);
    place.run(["remove", "vm:v1", "vm"]).exited(2);
    place.run(["inspect", "vm:v1"]).succeeded();
}

/// What had been removed before one could not be was told nowhere, and looking for it found nothing.
#[test]
fn what_was_removed_before_one_could_not_be_is_told() {
    let refusing = |version: &str| {
        let place = Place::with_snapshot();
        place.run(["snapshot", "vm:v2", "vm", "memory"]).succeeded();
        let refuse = format!(
            "CREATE TRIGGER refuse BEFORE UPDATE ON snapshots WHEN OLD.version = '{version}' \
             BEGIN SELECT RAISE(ABORT, 'not this one'); END"
        );
        let catalog = rusqlite::Connection::open(place.path("root/metadata/catalog.db"));
        catalog.unwrap().execute_batch(&refuse).unwrap();
        place
    };
    let said = refusing("v2").run(["remove", "vm:v1", "vm:v2"]).exited(1);
    assert!(said.out.starts_with("removed vm:v1"), "{said:#?}");
    assert!(said.err.contains("not this one"), "{said:#?}");
    let place = refusing("v2");
    let json = place.run(["remove", "vm:v1", "vm:v2", "--json"]).exited(1);
    let json = json.json();
    assert_eq!(json["removed"].as_array().unwrap().len(), 1);
    assert_eq!(json["error"]["kind"], "internal");
    assert_eq!(place.run(["list", "-q"]).succeeded().out, "vm:v2\n");
    // Where nothing was, the error is all there is to say.
    let json = refusing("v1").run(["remove", "vm:v1", "vm:v2", "--json"]);
    assert_eq!(json.exited(1).json().get("removed"), None);
}

#[test]
fn one_that_is_named_twice_is_removed_once() {
    let place = Place::with_snapshot();
    let json = place
        .run(["remove", "vm:v1", "vm:v1", "--json"])
        .succeeded()
        .json();
    assert_eq!(json["removed"].as_array().unwrap().len(), 1);
}

#[test]
fn a_snapshot_is_removed_from_the_registry_and_stays_here() {
    let place = Place::with_published();
    let second = ["snapshot", "vm:v2", "vm", "memory"];
    place.on("other", second).succeeded();
    let listed = || place.run(["list", "--remote", "-q"]).succeeded().out;
    let dry = place.run(["remove", "--remote", "vm:v1", "--dry-run"]);
    assert_session!("remote_dry_run", dry.succeeded());
    place
        .run(["remove", "--remote", "vm:v1", "vm:v3"])
        .exited(3);
    assert_eq!(listed(), "vm:v1\nvm:v2\n", "nothing unless all are there");
    let said = place.run(["remove", "--remote", "vm:v1", "vm:v1"]);
    assert_session!("remote", said.succeeded());
    assert_eq!(listed(), "vm:v2\n");
    let said = place.run(["remove", "--remote", "vm:v2", "--json"]);
    said.json();
    assert_session!("remote_json", said.succeeded());
    place.run(["remove", "--remote", "vm:v2"]).exited(3);
    assert!(!place.path("root").exists(), "removing made a root");
    let left = place.on("other", ["list", "-q"]).succeeded();
    assert_eq!(left.out, "vm:v2\nvm:v1\n");
    assert!(!place.contents().is_empty(), "others may need them");
}

#[test]
fn one_whose_description_is_damaged_can_be_removed_from_the_registry() {
    let place = Place::with_published();
    let json = place.run(["inspect", "--remote", "vm:v1", "--json"]).json();
    let manifest = json["manifestDigest"].as_str().unwrap();
    for entry in fs::read_dir(place.path("registry/team/vm/blobs/sha256")).unwrap() {
        let file = entry.unwrap();
        if !manifest.ends_with(file.file_name().to_str().unwrap()) {
            let size = usize::try_from(file.metadata().unwrap().len()).unwrap();
            fs::set_permissions(file.path(), Permissions::from_mode(0o644)).unwrap();
            fs::write(file.path(), vec![b' '; size]).unwrap();
        }
    }
    place.run(["inspect", "--remote", "vm:v1"]).exited(5);
    place.run(["remove", "--remote", "vm:v1"]).succeeded();
    let left = place.run(["list", "--remote", "-q"]).succeeded();
    assert_eq!(left.out, "");
}

#[test]
fn a_held_catalog_is_eight() {
    let place = Place::with_snapshot();
    let _held = place.hold_catalog();
    let mut command = place.command(["remove", "vm:v1"]);
    place
        .said(command.env("SNAPSHOTTER_BUSY_TIMEOUT", "10ms"))
        .exited(8);
}

#[test]
fn the_other_codes() {
    Place::new().run(["remove", "vm:v1"]).exited(3);
    Place::new().run(["remove"]).exited(2);
}

/// The bug: bytes that a repair had moved to `quarantine/`, where nothing removes them, counted as freed.
#[test]
fn what_was_moved_aside_is_not_freed() {
    let place = Place::with_snapshot();
    fs::write(place.largest_blob(), [8; 300_000]).unwrap();
    place.run(["verify", "--repair"]).exited(5);
    for args in [
        &["remove", "vm:v1", "--dry-run", "--json"][..],
        &["remove", "vm:v1", "--json"],
    ] {
        let json = place.run(args).succeeded().json();
        assert_eq!(
            (&json["blobsRemoved"], &json["freedBytes"]),
            (&3.into(), &70_003.into())
        );
    }
}

#[test]
fn help() {
    assert_session!("help", Place::new().run(["remove", "--help"]).succeeded());
}

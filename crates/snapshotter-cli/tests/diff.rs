//! `snapshotter diff`.

use crate::support;

use std::fs;

use support::Place;

fn two() -> Place {
    let place = Place::with_snapshot();
    place.write("vm/memory", &[8; 300_001]);
    place.write("vm/new", b"new");
    fs::remove_file(place.path("vm/state.json")).unwrap();
    fs::remove_file(place.path("vm/latest")).unwrap();
    place.write("vm/latest", b"no symlink any more");
    place.chmod("vm/images/disk.img", 0o600);
    place.run(["snapshot", "vm:v2", "vm"]).succeeded();
    place
}

#[test]
fn what_was_added_removed_and_changed() {
    let place = two();
    assert_session!("text", place.run(["diff", "vm:v1", "vm:v2"]).succeeded());
}

#[test]
fn one_json_document_for_programs() {
    let place = two();
    let said = place.run(["diff", "vm:v1", "vm:v2", "--json"]).succeeded();
    said.json();
    assert_session!("json", said);
}

#[test]
fn a_snapshot_does_not_differ_from_itself() {
    let place = Place::with_snapshot();
    let json = place
        .run(["diff", "vm:v1", "vm:v1", "--json"])
        .succeeded()
        .json();
    assert_eq!(
        (&json["changed"], &json["unchanged"]),
        (&serde_json::json!([]), &5.into())
    );
}

/// What has changed in a directory since could only be seen by taking one more snapshot of it.
#[test]
fn a_snapshot_and_a_directory() {
    let place = two();
    let said = place.run(["diff", "vm:v1", "vm"]).succeeded();
    assert_session!("directory", said);
    let json = place
        .run(["diff", "vm:v1", "./vm", "--json"])
        .succeeded()
        .json();
    let snapshots = place.run(["diff", "vm:v1", "vm:v2", "--json"]).json();
    for list in ["added", "removed", "changed", "unchanged", "from"] {
        assert_eq!(json[list], snapshots[list], "{list}");
    }
    assert_eq!(json["to"], serde_json::json!({"path": "./vm"}));
    let same = place
        .run(["diff", "vm:v2", "vm", "--json"])
        .succeeded()
        .json();
    assert_eq!(
        (&same["unchanged"], &same["changed"]),
        (&5.into(), &serde_json::json!([]))
    );
    // What is called as a snapshot is one, unless it is written as a path.
    fs::rename(place.path("vm"), place.path("vm:v2")).unwrap();
    place.write("vm:v2/memory", b"other");
    let json = place
        .run(["diff", "vm:v2", "vm:v2", "--json"])
        .succeeded()
        .json();
    assert_eq!(json["changed"], serde_json::json!([]));
    let json = place
        .run(["diff", "vm:v2", "./vm:v2", "--json"])
        .succeeded()
        .json();
    assert_eq!(json["changed"][0]["what"][0], "content");
}

#[test]
fn the_codes() {
    let place = Place::with_snapshot();
    place.run(["diff", "vm:v1"]).exited(2);
    place.run(["diff", "vm:v1", "nothing"]).exited(2);
    place.run(["diff", "vm", "vm:v1"]).exited(2);
    place.run(["diff", "vm:v2", "vm"]).exited(3);
    place.run(["diff", "vm:v1", "./nothing"]).exited(3);
    place.run(["diff", "vm:v1", "vm:v2"]).exited(3);
}

#[test]
fn help() {
    assert_session!("help", Place::new().run(["diff", "--help"]).succeeded());
}

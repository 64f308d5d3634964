//! `snapshotter remove`.

mod support;

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

#[test]
fn help() {
    assert_session!("help", Place::new().run(["remove", "--help"]).succeeded());
}

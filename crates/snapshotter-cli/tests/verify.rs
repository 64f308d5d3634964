//! `snapshotter verify`.

mod support;

use std::fs;

use support::Place;

#[test]
fn says_that_all_is_well() {
    let place = Place::with_snapshot();
    assert_session!("text", place.run(["verify"]).succeeded());
    assert_session!("json", place.run(["verify", "--json"]).succeeded());
}

#[test]
fn damage_is_five_and_names_the_snapshots() {
    let place = Place::with_snapshot();
    fs::write(place.largest_blob(), [8; 300_000]).unwrap();
    assert_session!("damaged", place.run(["verify"]).exited(5));
    let said = place.run(["verify", "vm:v1", "--json"]).exited(5);
    assert_eq!(said.json()["damaged"][0]["snapshots"][0], "vm:v1");
    assert_session!("damaged_json", said);
}

#[test]
fn a_missing_file_is_five() {
    let place = Place::with_snapshot();
    fs::remove_file(place.largest_blob()).unwrap();
    let json = place.run(["verify", "--json"]).exited(5).json();
    assert_eq!(json["missing"].as_array().unwrap().len(), 1);
}

#[test]
fn a_snapshot_of_the_same_bytes_mends_it() {
    let place = Place::with_snapshot();
    fs::remove_file(place.largest_blob()).unwrap();
    place.run(["verify"]).exited(5);
    place.run(["snapshot", "vm:v2", "vm"]).succeeded();
    place.run(["verify"]).succeeded();
    place.run(["restore", "vm:v1", "out"]).succeeded();
}

#[test]
fn the_other_codes() {
    let place = Place::with_snapshot();
    place.run(["verify", "vm"]).exited(2);
    place.run(["verify", "vm:v2"]).exited(3);
    Place::new().run(["verify"]).exited(3);
}

#[test]
fn help() {
    assert_session!("help", Place::new().run(["verify", "--help"]).succeeded());
}

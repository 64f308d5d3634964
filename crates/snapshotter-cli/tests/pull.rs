//! `snapshotter pull`.

use crate::support;

use std::fs;

use support::Place;

#[test]
fn fetches_and_says_what_it_did() {
    let place = Place::with_published();
    assert_session!("text", place.run(["pull", "vm:v1"]).succeeded());
    let json = place.run(["inspect", "vm:v1", "--json"]).succeeded().json();
    assert_eq!(json["state"], "fetched");
    // From now on the registry is not needed.
    fs::remove_dir_all(place.path("registry")).unwrap();
    fs::remove_dir_all(place.path("contents")).unwrap();
    place.run(["restore", "vm:v1", "out"]).succeeded();
    testkit::compare::assert_same(&place.path("vm"), &place.path("out"));
    place.assert_tidy();
    place.run(["remove", "vm:v1"]).succeeded();
    let json = place.run(["df", "--json"]).succeeded().json();
    assert_eq!(json["storedBytes"], 0);
}

#[test]
fn one_json_document_says_it_to_programs() {
    let place = Place::with_published();
    let said = place.run(["pull", "vm:v1", "--json"]).succeeded();
    assert_eq!(said.json()["pulled"][0]["fetchedBlobs"], 3);
    assert_session!("json", said);
    assert_eq!(place.run(["pull", "-q", "vm:v1"]).succeeded().out, "");
}

#[test]
fn what_is_here_is_not_fetched_and_what_is_damaged_is_fetched_again() {
    let place = Place::with_published();
    let mine = ["snapshot", "mine:v1", "vm", "memory", "--local"];
    place.run(mine).succeeded();
    let fetched = || {
        let json = place.run(["pull", "vm:v1", "--json"]).succeeded().json();
        json["pulled"][0]["fetchedBlobs"].as_u64().unwrap()
    };
    assert_eq!(fetched(), 2);
    assert_eq!(fetched(), 0);
    fs::write(place.largest_blob(), [8; 300_000]).unwrap();
    assert_eq!(fetched(), 1);
    fs::remove_file(place.largest_blob()).unwrap();
    assert_eq!(fetched(), 1);
    place.assert_tidy();
}

#[test]
fn a_digest_is_that_snapshot_and_no_other() {
    let place = Place::with_published();
    let json = place.on("other", ["inspect", "vm:v1", "--json"]).json();
    let digest = json["manifestDigest"].as_str().unwrap();
    let pull = |root: &str, reference: &str| place.on(root, ["pull", reference]);
    pull("second", &format!("vm:v1@{digest}")).succeeded();
    pull("third", &format!("vm:v1@sha256:{}", "0".repeat(64))).exited(3);
}

#[test]
fn a_name_that_moved_is_said_and_followed_when_told_to() {
    let place = Place::with_published();
    place.run(["pull", "vm:v1"]).succeeded();
    fs::write(place.path("vm/memory"), "another").unwrap();
    let force = ["snapshot", "vm:v1", "vm", "--force"];
    place.on("other", force).succeeded();
    let json = place.run(["pull", "vm:v1", "--json"]).succeeded().json();
    assert_eq!(json["warnings"][0]["kind"], "moved", "{json}");
    place.run(["pull", "vm:v1", "--strict"]).exited(9);
    place.run(["pin", "vm:v1"]).succeeded();
    place.run(["pull", "vm:v1", "--update"]).exited(4);
    place.run(["unpin", "vm:v1"]).succeeded();
    let json = place
        .run(["pull", "vm:v1", "--update", "--json"])
        .succeeded()
        .json();
    assert!(json["pulled"][0]["replaced"].is_string(), "{json}");
    let kept_as = json["pulled"][0]["keptAs"].as_str().unwrap();
    place.run(["restore", kept_as, "before"]).succeeded();
    place.run(["restore", "vm:v1", "out"]).succeeded();
    testkit::compare::assert_same(&place.path("vm"), &place.path("out"));
    fs::remove_dir_all(place.path("registry")).unwrap();
    let json = place.run(["pull", "vm:v1", "--json"]).succeeded().json();
    assert_eq!(json["warnings"][0]["kind"], "unchecked", "{json}");
}

#[test]
fn what_is_altered_on_the_way_is_five_and_leaves_nothing() {
    let place = Place::with_published();
    place.alter_an_object();
    place.run(["pull", "vm:v1"]).exited(5);
    assert_eq!(place.run(["list", "-q"]).succeeded().out, "");
    place.assert_tidy();
}

#[test]
fn the_codes() {
    let place = Place::with_published();
    place.run(["pull"]).exited(2);
    place.run(["pull", "vm"]).exited(2);
    place.run(["pull", "vm:v2"]).exited(3);
    Place::new().run(["pull", "vm:v1"]).exited(2);
    assert_eq!(place.run(["list", "-q"]).succeeded().out, "");
}

#[test]
fn help() {
    assert_session!("help", Place::new().run(["pull", "--help"]).succeeded());
}

//! `snapshotter push`.

use crate::support;

use std::fs;

use support::Place;

/// With `vm:v1` here and published nowhere.
fn unpublished() -> Place {
    let place = Place::with_registry();
    let args = ["snapshot", "vm:v1", "vm", "--link-mode", "copy", "--local"];
    place.run(args).succeeded();
    place
}

fn state(place: &Place) -> serde_json::Value {
    let json = place.run(["inspect", "vm:v1", "--json"]).succeeded().json();
    json["state"].clone()
}

fn pushed(place: &Place, more: &[&str]) -> serde_json::Value {
    let args = ["push", "vm:v1", "--json"];
    let json = place.run(args.iter().chain(more)).succeeded().json();
    json["pushed"][0].clone()
}

#[test]
fn publishes_what_is_here_and_says_where() {
    let place = unpublished();
    assert_eq!(state(&place), "unpublished");
    assert_session!("text", place.run(["push", "vm:v1"]).succeeded());
    assert_eq!(state(&place), "published");
    assert_eq!(place.contents().len(), 3);
    place.on("other", ["restore", "vm:v1", "out"]).succeeded();
    testkit::compare::assert_same(&place.path("vm"), &place.path("out"));
    assert_eq!(place.run(["push", "-q", "vm:v1"]).succeeded().out, "");
}

#[test]
fn one_json_document_says_it_to_programs() {
    let place = unpublished();
    let said = place.run(["push", "vm:v1", "--json"]).succeeded();
    assert_eq!(said.json()["pushed"][0]["sentBlobs"], 3);
    assert_session!("json", said);
}

#[test]
fn what_is_there_is_not_sent_again() {
    let place = unpublished();
    place.run(["push", "vm:v1"]).succeeded();
    let objects = place.contents();
    fs::remove_file(&objects[0]).unwrap();
    assert_eq!(pushed(&place, &[])["sentBlobs"], 1);
    assert_eq!(place.contents(), objects);
    let said = place.run(["push", "vm:v1"]).succeeded();
    let nothing = "where all blobs were already";
    assert!(said.out.contains(nothing), "{said:#?}");
}

#[test]
fn verify_reads_everything_back() {
    let place = unpublished();
    let said = place.run(["push", "vm:v1", "--verify"]).succeeded();
    assert_session!("verify", said);
    assert_eq!(pushed(&place, &["--verify"])["verifiedBlobs"], 3);
    place.alter_an_object();
    place.run(["push", "vm:v1"]).succeeded();
    place.run(["push", "vm:v1", "--verify"]).exited(5);
}

#[test]
fn a_version_that_is_another_snapshot_there_is_replaced_with_force_alone() {
    let place = unpublished();
    let other = ["snapshot", "vm:v1", "vm/images"];
    place.on("other", other).succeeded();
    place.run(["push", "vm:v1"]).exited(4);
    assert_eq!(state(&place), "unpublished");
    place.run(["push", "vm:v1", "--force"]).succeeded();
    place.on("third", ["restore", "vm:v1", "out"]).succeeded();
    testkit::compare::assert_same(&place.path("vm"), &place.path("out"));
}

#[test]
fn nothing_is_sent_unless_all_are_here() {
    let place = unpublished();
    place.run(["push", "vm:v1", "vm:v2"]).exited(3);
    assert!(place.contents().is_empty());
    let listed = place.run(["list", "--remote", "-q"]).succeeded();
    assert_eq!(listed.out, "");
}

#[test]
fn several_are_sent_and_each_once() {
    let place = unpublished();
    let second = ["snapshot", "vm:v2", "vm", "memory", "--local"];
    place.run(second).succeeded();
    let said = place.run(["push", "vm:v1", "vm:v2", "vm:v1", "--json"]);
    let json = said.succeeded().json();
    assert_eq!(json["pushed"].as_array().unwrap().len(), 2);
    let listed = place.run(["list", "--remote", "-q"]).succeeded();
    assert_eq!(listed.out, "vm:v1\nvm:v2\n");
}

#[test]
fn the_registry_itself_can_have_the_bytes() {
    let place = unpublished()
        .unset("SNAPSHOTTER_CONTENT_ROOT")
        .set("SNAPSHOTTER_CONTENT_PROVIDER", "registry");
    place.run(["push", "vm:v1", "--verify"]).succeeded();
    // Found from the manifest: the other node's configuration says nothing of it.
    let place = place.unset("SNAPSHOTTER_CONTENT_PROVIDER");
    place.on("other", ["restore", "vm:v1", "out"]).succeeded();
    testkit::compare::assert_same(&place.path("vm"), &place.path("out"));
}

#[test]
fn the_codes() {
    let place = unpublished();
    place.run(["push"]).exited(2);
    place.run(["push", "vm"]).exited(2);
    place.run(["push", "vm:v2"]).exited(3);
    place.on("nowhere", ["push", "vm:v1"]).exited(3);
    assert!(!place.path("nowhere").exists(), "looking made a root");
    Place::with_snapshot().run(["push", "vm:v1"]).exited(2);
    fs::write(place.largest_blob(), [8; 300_000]).unwrap();
    place.run(["push", "vm:v1"]).exited(5);
    let listed = place.run(["list", "--remote", "-q"]).succeeded();
    assert_eq!(listed.out, "");
}

#[test]
fn help() {
    assert_session!("help", Place::new().run(["push", "--help"]).succeeded());
}

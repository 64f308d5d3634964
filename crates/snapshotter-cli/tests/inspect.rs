//! `snapshotter inspect`.

use crate::support;

use support::Place;

#[test]
fn everything_for_people() {
    let place = Place::with_snapshot();
    assert_session!("text", place.run(["inspect", "vm:v1"]).succeeded());
    assert_session!("verbose", place.run(["inspect", "vm:v1", "-v"]).succeeded());
}

#[test]
fn one_json_document_for_programs() {
    let place = Place::new();
    std::fs::hard_link(place.path("vm/memory"), place.path("vm/other")).unwrap();
    place
        .run(["snapshot", "vm:v1", "vm", "--annotation", "k=v"])
        .succeeded();
    let said = place.run(["inspect", "vm:v1", "--json"]).succeeded();
    assert_eq!(said.json()["files"][2]["hardlinkOf"], "memory");
    assert_session!("json", said);
}

#[test]
fn what_is_published_says_where() {
    let place = Place::with_registry();
    place
        .run(["snapshot", "vm:v1", "vm", "--link-mode", "copy"])
        .succeeded();
    let said = place.run(["inspect", "vm:v1"]).succeeded();
    assert_session!("published", said);
    let json = place.run(["inspect", "vm:v1", "--json"]).succeeded().json();
    let at = &json["publications"][0];
    assert_eq!(at["manifestDigest"], json["manifestDigest"]);
    for field in ["registry", "content", "seenAt"] {
        assert!(at[field].is_string(), "{field}");
    }
}

#[test]
fn a_manifest_digest_is_enough_and_has_to_be_right() {
    let place = Place::with_snapshot();
    let json = place.run(["inspect", "vm:v1", "--json"]).succeeded().json();
    let digest = json["manifestDigest"].as_str().unwrap();
    place.run(["inspect", &format!("vm@{digest}")]).succeeded();
    place
        .run(["inspect", &format!("vm:v1@{digest}")])
        .succeeded();
    let other = format!("vm:v1@sha256:{}", "0".repeat(64));
    let said = place.run(["inspect", &other]).exited(3);
    assert!(said.err.contains("other contents"), "{said:#?}");
}

#[test]
fn what_the_registry_says_needs_no_root() {
    let place = Place::with_published();
    let said = place.run(["inspect", "--remote", "vm:v1"]).succeeded();
    assert_session!("remote", said);
    let said = place
        .run(["inspect", "--remote", "vm:v1", "--json"])
        .succeeded();
    assert_session!("remote_json", said);
    let here = place.on("other", ["inspect", "vm:v1", "--json"]).json();
    let there = said.json();
    for field in [
        "files",
        "directories",
        "symlinks",
        "whiteouts",
        "logicalBytes",
        "manifestDigest",
        "annotations",
    ] {
        assert_eq!(there[field], here[field], "{field}");
    }
    place.run(["inspect", "--remote", "vm:v2"]).exited(3);
    assert!(!place.path("root").exists(), "looking made a root");
}

#[test]
fn the_codes() {
    let place = Place::with_snapshot();
    place.run(["inspect", "vm"]).exited(2);
    place.run(["inspect", "vm:v2"]).exited(3);
    place.run(["inspect"]).exited(2);
}

#[test]
fn help() {
    assert_session!("help", Place::new().run(["inspect", "--help"]).succeeded());
}

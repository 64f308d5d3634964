//! `snapshotter copy`.

use crate::support;

use std::fs;

use support::Place;

/// With `vm:v1` published to what `near.toml` says; nothing is at what `far.toml` says.
fn two_ends() -> Place {
    let place = Place::new();
    for (end, provider) in [("near", "fs"), ("far", "registry")] {
        fs::create_dir(place.path(format!("{end}-objects"))).unwrap();
        let dir = place.path("").display().to_string();
        let dir = dir.trim_end_matches('/');
        let root = match provider {
            "fs" => format!("root = \"{dir}/{end}-objects\"\n"),
            _ => String::new(),
        };
        let text = format!(
            "[registry]\nendpoint = \"oci-layout:{dir}/{end}\"\nnamespace = \"team\"\n[content]\nprovider = \"{provider}\"\n{root}"
        );
        fs::write(place.path(format!("{end}.toml")), text).unwrap();
    }
    let args = [
        "snapshot",
        "vm:v1",
        "vm",
        "--link-mode",
        "copy",
        "--config",
        "near.toml",
    ];
    place.on("other", args).succeeded();
    place
}

const ENDS: [&str; 4] = ["--from", "near.toml", "--to", "far.toml"];

#[test]
fn a_snapshot_is_at_the_other_end_and_no_store_is_made() {
    let place = two_ends();
    let copy = |more: &[&str]| {
        let args = ["copy", "vm:v1"].into_iter().chain(ENDS);
        place.run(args.chain(more.iter().copied()))
    };
    assert_session!("text", copy(&[]).succeeded());
    assert!(!place.path("root").exists() && !place.path("home").exists());
    let again = copy(&["--json"]).succeeded();
    assert_eq!(again.json()["copied"][0]["reusedBlobs"], 3);
    assert_eq!(again.json()["copied"][0]["sentBlobs"], 0);
    assert_session!("json", again);
    fs::remove_dir_all(place.path("near")).unwrap();
    fs::remove_dir_all(place.path("near-objects")).unwrap();
    let restore = ["restore", "vm:v1", "out", "--config", "far.toml"];
    place.run(restore).succeeded();
    testkit::compare::assert_same(&place.path("vm"), &place.path("out"));
    assert_eq!(copy(&["-q"]).exited(3).out, "");
}

/// Variables are for one configuration, and here are two.
#[test]
fn variables_do_not_reach_into_either_end() {
    let place = two_ends().set("SNAPSHOTTER_REGISTRY_ENDPOINT", "http://127.0.0.1:1");
    let args = ["copy", "vm:v1"].into_iter().chain(ENDS);
    place.run(args).succeeded();
}

#[test]
fn the_codes() {
    let place = two_ends();
    let run = |args: &[&str]| place.run(args.iter().copied());
    run(&["copy", "vm:v1", "--from", "near.toml"]).exited(2);
    run(&["copy", "vm", "--from", "near.toml", "--to", "far.toml"]).exited(2);
    run(&["copy", "vm:v2", "--from", "near.toml", "--to", "far.toml"]).exited(3);
    run(&[
        "copy",
        "vm:v1",
        "--from",
        "near.toml",
        "--to",
        "absent.toml",
    ])
    .exited(3);
    fs::write(place.path("empty.toml"), "").unwrap();
    run(&["copy", "vm:v1", "--from", "empty.toml", "--to", "far.toml"]).exited(2);
    // Another snapshot of that name is there.
    fs::write(place.path("vm/state.json"), "another").unwrap();
    place
        .on(
            "far-node",
            ["snapshot", "vm:v1", "vm", "--config", "far.toml"],
        )
        .succeeded();
    run(&["copy", "vm:v1", "--from", "near.toml", "--to", "far.toml"]).exited(4);
    run(&[
        "copy",
        "vm:v1",
        "--force",
        "--from",
        "near.toml",
        "--to",
        "far.toml",
    ])
    .succeeded();
}

#[test]
fn help() {
    assert_session!("help", Place::new().run(["copy", "--help"]).succeeded());
}

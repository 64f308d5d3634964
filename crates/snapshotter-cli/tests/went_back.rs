//! A catalog that is older than its store, as a person meets it: every verb says so, and `verify --rebuild` mends it.
//!
//! The bug: `metadata/` put back from a backup, as the hint says, made newer snapshots vanish without a word, and `verify`
//! said "All is well" and deleted their files.

mod support;

use std::fs;
use std::process::Command;

use support::Place;

/// With `vm:v1`, and the files of `vm:v2`, which the catalog does not know.
fn older_than_its_store() -> Place {
    let place = Place::new();
    for version in ["v1", "v2"] {
        fs::write(place.path("vm/state"), version.repeat(1000)).unwrap();
        let reference = format!("vm:{version}");
        place.run(["snapshot", &reference, "vm"]).succeeded();
        if version == "v1" {
            let (from, to) = (place.path("root/metadata"), place.path("backup"));
            let mut copy = Command::new("cp");
            assert!(copy.arg("-a").args([from, to]).status().unwrap().success());
        }
    }
    fs::remove_dir_all(place.path("root/metadata")).unwrap();
    fs::rename(place.path("backup"), place.path("root/metadata")).unwrap();
    place
}

#[test]
fn every_verb_says_that_the_catalog_is_older_and_a_rebuild_takes_the_rest_in() {
    let place = older_than_its_store();
    fs::write(place.path("vm/state"), "v3".repeat(1000)).unwrap();
    let older = "the catalog is older than the store";
    for verb in [
        &["list"][..],
        &["inspect", "vm:v1"],
        &["df"],
        &["pin", "vm:v1"],
        &["restore", "vm:v1", "out"],
        &["snapshot", "vm:v3", "vm"],
    ] {
        let said = place.run(verb.iter().copied()).succeeded();
        assert!(said.err.contains(older), "{verb:?}: {}", said.err);
    }
    // What fails may fail because of it, and what would give up files is refused.
    for (verb, code) in [
        (&["restore", "vm:v2", "out"][..], 3),
        (&["remove", "vm:v1"], 5),
        (&["gc"], 5),
        (&["verify"], 5),
    ] {
        let said = place.run(verb.iter().copied()).exited(code);
        assert!(said.err.contains(older), "{verb:?}: {}", said.err);
    }
    let rebuilt = place.run(["verify", "--rebuild"]).succeeded();
    assert!(rebuilt.out.contains("lost-and-found:"), "{}", rebuilt.out);
    let listed = place.run(["list", "-q"]).succeeded();
    assert!(!listed.err.contains(older) && listed.out.contains("vm:v3"));
    place.run(["verify"]).succeeded();
}

//! A catalog that is older than its store, as a person meets it: every verb says so, and `verify --rebuild` mends it.
//!
//! The bug: `metadata/` put back from a backup, as the hint says, made newer snapshots vanish without a word, and `verify`
//! said "All is well" and deleted their files.

use crate::support;

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
    for said in [
        "lost-and-found:",
        "The catalog is trusted again: kept 2 snapshots; 1 file that none of them needs is in lost-and-found:",
        "names of unpublished snapshots taken since cannot be recovered\n",
    ] {
        assert!(rebuilt.out.contains(said), "{}", rebuilt.out);
    }
    let listed = place.run(["list", "-q"]).succeeded();
    assert!(!listed.err.contains(older) && listed.out.contains("vm:v3"));
    place.run(["verify"]).succeeded();
}

/// The bug: the sentence came without what to do, twice in errors, and `verify` called the catalog damaged. `remove
/// --dry-run` promised what would have been refused.
#[test]
fn it_is_said_once_with_the_way_out() {
    let place = older_than_its_store();
    let sentence = "the catalog is older than the store: snapshots taken since are not shown, and nothing is lost; \
                    `snapshotter verify --rebuild` takes their files in\n";
    for (verb, code) in [
        (&["list"][..], 0),
        (&["restore", "vm:v2", "out"], 3),
        (&["remove", "vm:v1"], 5),
        (&["remove", "vm:v1", "--dry-run"], 5),
        (&["gc"], 5),
        (&["verify"], 5),
        (&["verify", "--repair"], 5),
    ] {
        let said = place.run(verb.iter().copied()).exited(code);
        let all = format!("{}{}", said.out, said.err);
        assert_eq!(all.matches("older than").count(), 1, "{verb:?}: {all}");
        assert!(said.err.contains(sentence), "{verb:?}: {all}");
        assert!(!all.contains("catalog is damaged"), "{verb:?}: {all}");
    }
    for verb in [&["list", "--json"][..], &["verify", "--json"]] {
        let json = place.run(verb.iter().copied()).json();
        let warnings = json["warnings"].as_array().unwrap();
        let older = |one: &&serde_json::Value| one["kind"] == "catalog_older";
        assert_eq!(warnings.iter().filter(older).count(), 1, "{json}");
    }
}

/// The bug: when the right `metadata/` was back, a rebuild spoke of a catalog that it had made, with 0 blobs.
#[test]
fn one_that_lacks_nothing_is_trusted_again() {
    let place = Place::with_snapshot();
    let copy = |from: &str, to: &str| {
        let _ = fs::remove_dir_all(place.path(to));
        let mut copy = Command::new("cp");
        let paths = [place.path(from), place.path(to)];
        assert!(copy.arg("-a").args(paths).status().unwrap().success());
    };
    copy("root/metadata", "backup");
    fs::write(place.path("vm/state"), "v2".repeat(1000)).unwrap();
    place.run(["snapshot", "vm:v2", "vm"]).succeeded();
    copy("root/metadata", "right");
    copy("backup", "root/metadata");
    place.run(["verify"]).exited(5);
    copy("right", "root/metadata");
    place.run(["verify"]).exited(5);
    let rebuilt = place.run(["verify", "--rebuild"]).succeeded();
    assert_eq!(
        rebuilt.out,
        "The catalog lacks nothing and is trusted again: kept 2 snapshots\n"
    );
    place.run(["verify"]).succeeded();
}

/// The bug: nothing was said of what to do with a catalog that is no database.
#[test]
fn a_catalog_that_is_no_database_has_a_way_out() {
    for verb in [&["list"][..], &["verify"], &["restore", "vm:v1", "out"]] {
        let place = Place::with_snapshot();
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(place.path(format!("root/metadata/catalog.db{suffix}")));
        }
        let catalog = place.path("root/metadata/catalog.db");
        fs::write(catalog, "this is no database at all".repeat(1000)).unwrap();
        let said = place.run(verb.iter().copied()).exited(5);
        let hint = "let `snapshotter verify --rebuild` make a new one";
        assert!(said.err.contains(hint), "{verb:?}: {said:?}");
        place.run(["verify", "--rebuild"]).succeeded();
    }
}

//! `snapshotter verify`.

use crate::support;

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
fn a_part_can_be_verified_and_is_named() {
    let place = Place::with_snapshot();
    let said = place.run(["verify", "--subset", "2/2"]).succeeded();
    assert!(said.out.starts_with("Part 2 of 2 is well:"), "{said:?}");
    let parts = [1, 2].map(|part| {
        let json = place
            .run(["verify", "--subset", &format!("{part}/2"), "--json"])
            .succeeded()
            .json();
        assert_eq!(json["subset"], serde_json::json!({"part": part, "of": 2}));
        json["checkedBlobs"].as_u64().unwrap()
    });
    let all = place.run(["verify", "--json"]).succeeded().json();
    assert_eq!(all["checkedBlobs"], parts[0] + parts[1]);
    let chance = place
        .run(["verify", "--subset", "5%", "--json"])
        .succeeded()
        .json();
    assert_eq!(chance["subset"]["of"], 20);
    place.run(["verify", "--subset", "5"]).exited(2);
}

#[test]
fn the_other_codes() {
    let place = Place::with_snapshot();
    place.run(["verify", "vm"]).exited(2);
    place.run(["verify", "vm:v2"]).exited(3);
    Place::new().run(["verify"]).exited(3);
}

#[test]
fn a_repair_fetches_what_was_published_again() {
    let place = Place::with_published();
    place.run(["pull", "vm:v1"]).succeeded();
    fs::write(place.largest_blob(), [8; 300_000]).unwrap();
    let said = place.run(["verify", "--repair", "--json"]).succeeded();
    assert_session!("repaired_json", said);
    fs::write(place.largest_blob(), [8; 300_000]).unwrap();
    assert_session!("repaired", place.run(["verify", "--repair"]).succeeded());
    place.run(["verify"]).succeeded();
}

#[test]
fn a_repair_moves_aside_what_has_no_other_copy() {
    let place = Place::with_snapshot();
    fs::write(place.largest_blob(), [8; 300_000]).unwrap();
    let said = place.run(["verify", "--repair", "--json"]).exited(5);
    let aside = said.json()["damaged"][0]["quarantined"]["path"].clone();
    let aside = place.path(aside.as_str().unwrap());
    assert_eq!(fs::read(aside).unwrap(), [8; 300_000]);
    let json = place.run(["verify", "--json"]).exited(5).json();
    assert_eq!(json["missing"].as_array().unwrap().len(), 1);
}

#[test]
fn a_lost_catalog_is_rebuilt_from_the_registry() {
    let place = Place::with_published();
    place.run(["pull", "vm:v1"]).succeeded();
    place
        .run(["snapshot", "vm:v2", "vm", "--local"])
        .succeeded();
    let metadata = place.path("root/metadata");
    fs::remove_dir_all(&metadata).unwrap();
    fs::create_dir(&metadata).unwrap();
    let said = place.run(["list"]).exited(5);
    assert!(said.err.contains("verify --rebuild"), "{said:?}");
    assert_session!("rebuilt", place.run(["verify", "--rebuild"]).succeeded());
    place.run(["verify"]).succeeded();
    place.run(["restore", "vm:v1", "out"]).succeeded();
    place.run(["verify", "--rebuild"]).exited(4);
}

#[test]
fn without_a_registry_what_is_found_is_kept() {
    let place = Place::with_snapshot();
    fs::remove_dir_all(place.path("root/metadata")).unwrap();
    let said = place.run(["verify", "--rebuild", "--json"]).succeeded();
    let json = said.json();
    assert_eq!(json["unnamedBlobs"], 3);
    let reference = json["lostAndFound"][0].as_str().unwrap();
    assert!(reference.starts_with("lost-and-found:"), "{reference}");
    place.run(["restore", reference, "found"]).succeeded();
    assert_eq!(fs::read_dir(place.path("found")).unwrap().count(), 3);
    place.run(["remove", reference]).succeeded();
    place.run(["verify", "--rebuild", "--repair"]).exited(2);
}

#[test]
fn help() {
    assert_session!("help", Place::new().run(["verify", "--help"]).succeeded());
}

/// Whatever stands where the catalog was, the way out is said: not every kind of it was known for what it is.
#[test]
fn a_catalog_that_is_no_database_names_the_way_out() {
    type Spoil = fn(&std::path::Path);
    let spoils: [(&str, Spoil); 6] = [
        ("text", |path| fs::write(path, "not a database").unwrap()),
        ("much text", |path| {
            fs::write(path, "text ".repeat(9000)).unwrap()
        }),
        ("nothing", |path| fs::write(path, "").unwrap()),
        ("zeros", |path| fs::write(path, [0; 65_536]).unwrap()),
        ("its beginning", |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("a directory", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
    ];
    for (what, spoil) in spoils {
        let place = Place::with_snapshot();
        spoil(&place.path("root/metadata/catalog.db"));
        for args in [&["list"][..], &["restore", "vm:v1", "out"], &["verify"]] {
            let said = place.run(args).exited(5);
            let hint = "`snapshotter verify --rebuild`";
            assert!(said.err.contains(hint), "{what}: {said:#?}");
        }
        place.run(["verify", "--rebuild"]).succeeded();
        place.run(["verify"]).succeeded();
    }
}

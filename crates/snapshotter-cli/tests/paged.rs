//! Snapshots of format v2 as people and scripts see them: flags, settings, texts and documents.

use crate::support;

use std::fs;
use std::os::unix::fs::FileExt;

use support::Place;

fn write_at(place: &Place, name: &str, at: u64, bytes: &[u8]) {
    let file = fs::File::options().write(true).open(place.path(name));
    file.unwrap().write_all_at(bytes, at).unwrap();
}

/// `vm:v1` in pages, and `vm:v2` of the same directory after one page of `memory` changed.
fn two() -> Place {
    let place = Place::new();
    place.write("vm/memory", &[7; 40_000]);
    place
        .run(["snapshot", "vm:v1", "vm", "--format", "v2"])
        .succeeded();
    write_at(&place, "vm/memory", 5000, b"changed");
    place
        .run(["snapshot", "vm:v2", "vm", "--format", "v2"])
        .succeeded();
    place
}

#[test]
fn a_snapshot_in_pages_says_what_it_took_over() {
    let place = two();
    let take = |version: &str, more: &[&str]| {
        let args = ["snapshot", version, "vm", "--json", "--format", "v2"];
        place.run(args.iter().chain(more)).succeeded().json()
    };
    write_at(&place, "vm/memory", 9000, b"changed again");
    let json = take("vm:v3", &[]);
    assert_eq!(
        (&json["format"], &json["changedPages"]),
        (&"v2".into(), &1.into())
    );
    assert_eq!(
        (&json["changedBytes"], &json["storedPages"]),
        (&4096.into(), &1.into())
    );
    assert_eq!(
        (&json["packs"], &json["blobsStored"]),
        (&3.into(), &1.into())
    );
    assert!(json["storedBytes"].as_u64().unwrap() > 0 && json["reusedPages"].as_u64().unwrap() > 0);
    let parent = |json: &serde_json::Value| {
        let parent = &json["parent"];
        let reference = parent["reference"].as_str().unwrap().to_owned();
        (reference, parent["chosen"].as_str().unwrap().to_owned())
    };
    assert_eq!(parent(&json), ("vm:v2".into(), "origin".into()));
    let named = take("vm:v4", &["--parent", "vm:v1"]);
    assert_eq!(parent(&named), ("vm:v1".into(), "given".into()));
    let latest = take("vm:v5", &["--parent", "latest"]);
    assert_eq!(parent(&latest), ("vm:v4".into(), "latest".into()));
    let alone = take("vm:v6", &["--parent", "none", "--compression", "none"]);
    assert_eq!(
        (&alone["parent"], &alone["packs"]),
        (&serde_json::Value::Null, &1.into())
    );
    let text = place
        .run(["snapshot", "vm:v7", "vm", "--format", "v2"])
        .succeeded();
    assert!(
        text.out
            .contains("0 pages (0 B) changed since vm:v6, what the directory came from"),
        "{text:#?}"
    );
    let v1 = place
        .run(["snapshot", "vm:v8", "vm", "--json"])
        .succeeded()
        .json();
    assert_eq!((&v1["format"], v1.get("parent")), (&"v1".into(), None));
}

#[test]
fn settings_say_how_snapshots_are_taken_and_flags_win() {
    let place = Place::new()
        .set("SNAPSHOTTER_SNAPSHOT_FORMAT", "v2")
        .set("SNAPSHOTTER_SNAPSHOT_PARENT", "none")
        .set("SNAPSHOTTER_SNAPSHOT_COMPRESSION", "none");
    let take = |version: &str, more: &[&str]| {
        let args = ["snapshot", version, "vm", "--json"];
        place.run(args.iter().chain(more)).succeeded().json()
    };
    let first = take("vm:v1", &[]);
    assert_eq!(first["format"], "v2");
    let second = take("vm:v2", &[]);
    assert!(second["parent"].is_null());
    assert_eq!(
        take("vm:v3", &["--parent", "latest"])["parent"]["reference"],
        "vm:v2"
    );
    assert_eq!(take("vm:v4", &["--format", "v1"])["format"], "v1");
    let compressed = take("vm:v5", &["--compression", "zstd:3"]);
    assert!(compressed["storedBytes"].as_u64() < first["storedBytes"].as_u64());
    for [flag, wrong] in [
        ["--format", "v3"],
        ["--parent", "nothing"],
        ["--compression", "zstd:20"],
    ] {
        place
            .run(["snapshot", "vm:v6", "vm", flag, wrong])
            .exited(2);
    }
}

#[test]
fn a_snapshot_is_converted_there_and_back() {
    let place = two().set("SNAPSHOTTER_SNAPSHOT_FRAME_PAGES", "4");
    let convert = |from: &str, to: &str, more: &[&str]| {
        let args = ["convert", from, to, "--json"];
        place.run(args.iter().chain(more)).succeeded().json()
    };
    let files = convert("vm:v2", "vm:v2-files", &["--format", "v1"]);
    assert_eq!((&files["format"], files.get("packs")), (&"v1".into(), None));
    assert!(files["publication"].is_null());
    let source = files["source"].as_str().unwrap();
    assert!(source.starts_with("vm:v2@sha256:"), "{source}");
    let how = ["--format", "v2", "--compression", "none"];
    let pages = convert("vm:v2-files", "vm:v2-pages", &how);
    assert_eq!(
        (&pages["format"], &pages["packs"]),
        (&"v2".into(), &1.into())
    );
    assert!(pages["parent"].is_null());
    let differs = |from: &str, to: &str| {
        let json = place.run(["diff", from, to, "--json"]).succeeded().json();
        json["changed"].as_array().unwrap().len()
    };
    assert_eq!(differs("vm:v2", "vm:v2-pages"), 0);
    let again = ["convert", "vm:v2", "vm:v2-files", "--format", "v1"];
    let refused = place.run(again).exited(4);
    assert!(refused.err.contains("--force"), "{refused:#?}");
    let text = place.run(again.iter().chain(&["--force"])).succeeded();
    assert!(text.out.contains("converted from vm:v2"), "{text:#?}");
    place.run(["convert", "vm:v2", "vm:x"]).exited(2);
    let absent = ["convert", "vm:v9", "vm:x", "--format", "v1"];
    assert!(place.run(absent).exited(3).err.contains("versions of vm"));
    let wrong = place.set("SNAPSHOTTER_SNAPSHOT_FRAME_PAGES", "8");
    wrong.run(["list"]).exited(2);
}

#[test]
fn a_difference_says_what_it_left_to_the_parent() {
    let place = two();
    let listed = place.run(["inspect", "vm:v2", "--json"]).succeeded().json();
    let parent = format!("vm:v2@{}", listed["manifestDigest"].as_str().unwrap());
    let length = fs::metadata(place.path("vm/memory")).unwrap().len();
    let memory = fs::File::create(place.path("vm/memory")).unwrap();
    memory.set_len(length).unwrap();
    memory.write_all_at(&[8; 4096], 8192).unwrap();
    let args = |version: &str, parent: &str| {
        let args = [
            "snapshot", version, "vm", "--format", "v2", "--parent", parent,
        ];
        let args = args.into_iter().chain(["--diff", "memory"]);
        args.map(str::to_owned).collect::<Vec<_>>()
    };
    let json = args("vm:v3", &parent)
        .into_iter()
        .chain(["--json".to_owned()]);
    let json = place.run(json).succeeded().json();
    assert_eq!(json["changedPages"], 1);
    // Ten pages, of which one is not inherited.
    assert_eq!(json["inheritedBytes"], 9 * 4096);
    place.run(["restore", "vm:v3", "out"]).succeeded();
    let out = fs::read(place.path("out/memory")).unwrap();
    assert_eq!((out[8192], out[100], out.len() as u64), (8, 7, length));
    let text = place.run(args("vm:v4", &parent)).succeeded();
    assert!(text.out.contains("which was not read"), "{text:#?}");
    let refused = place.run(args("vm:v5", "vm:v2")).exited(2);
    assert!(
        refused.err.contains("named with its digest"),
        "{refused:#?}"
    );
}

#[test]
fn lists_and_details_know_the_format() {
    let place = two();
    let listed = place.run(["list", "--json"]).succeeded().json();
    assert_eq!(listed["snapshots"][0]["format"], "v2");
    let json = place.run(["inspect", "vm:v2", "--json"]).succeeded().json();
    assert_eq!(json["format"], "v2");
    let packs = json["packs"].as_array().unwrap();
    assert_eq!(
        (packs.len(), &packs[0]["exclusive"], &packs[1]["exclusive"]),
        (2, &true.into(), &false.into())
    );
    assert_eq!(json["exclusiveBytes"], packs[0]["sizeBytes"]);
    for file in json["files"].as_array().unwrap() {
        assert!(file["digest"].is_null() && file["checksum"].is_null());
        assert!(file["content"].as_str().unwrap().starts_with("blake3:"));
    }
    let text = place.run(["inspect", "vm:v2", "-v"]).succeeded().out;
    assert!(text.contains("format v2, 2 packs"), "{text}");
    assert!(
        text.contains(json["files"][0]["content"].as_str().unwrap()),
        "{text}"
    );
    let df = place.run(["df", "--json"]).succeeded().json();
    assert_eq!((&df["packs"], &df["blobs"]), (&2.into(), &0.into()));
}

#[test]
fn pages_that_differ_are_counted() {
    let place = two();
    let json = place
        .run(["diff", "vm:v1", "vm:v2", "--json"])
        .succeeded()
        .json();
    let changed = json["changed"].as_array().unwrap();
    let memory = changed
        .iter()
        .find(|one| one["relativePath"] == "memory")
        .unwrap();
    assert_eq!(
        (&memory["changedPages"], &json["contentsCompared"]),
        (&1.into(), &true.into())
    );
    let text = place.run(["diff", "vm:v1", "vm:v2"]).succeeded().out;
    assert!(text.contains("memory  content (1 page)"), "{text}");
}

#[test]
fn what_cannot_be_compared_is_said() {
    let place = two();
    place.run(["snapshot", "vm:old", "vm"]).succeeded();
    let json = place
        .run(["diff", "vm:old", "vm:v2", "--json"])
        .succeeded()
        .json();
    assert_eq!(
        (&json["contentsCompared"], &json["changed"]),
        (&false.into(), &serde_json::json!([]))
    );
    let text = place.run(["diff", "vm:old", "vm:v2"]).succeeded().out;
    assert!(text.contains("only the sizes were compared"), "{text}");
}

#[test]
fn a_damaged_pack_is_named() {
    let place = two();
    let sound = place.run(["verify"]).succeeded();
    assert!(sound.out.contains("0 blobs and 2 packs"), "{sound:#?}");
    let inspected = place.run(["inspect", "vm:v1", "--json"]).succeeded().json();
    let pack = inspected["packs"][0]["pack"].as_str().unwrap().to_owned();
    let (_, hex) = pack.split_once(':').unwrap();
    let name = format!("root/storage/content/blake3/0000/{hex}.pack");
    write_at(&place, &name, 20, b"damage");
    let json = place.run(["verify", "--json"]).exited(5).json();
    let bad = &json["damaged"][0];
    assert_eq!(
        (&bad["pack"], &bad["digest"], &bad["checksum"]),
        (
            &pack.clone().into(),
            &serde_json::Value::Null,
            &serde_json::Value::Null
        )
    );
    assert_eq!(bad["snapshots"], serde_json::json!(["vm:v1", "vm:v2"]));
    let said = place.run(["verify"]).exited(5);
    assert!(
        said.out.contains(&format!("damaged pack {pack}")),
        "{said:#?}"
    );
}

#[test]
fn a_checkpoint_is_published_and_its_pack_is_all_that_is_sent() {
    let place = Place::with_registry();
    let first = place
        .run(["snapshot", "vm:v1", "vm", "--format", "v2", "--json"])
        .succeeded();
    let first: serde_json::Value = serde_json::from_str(&first.out).unwrap();
    assert_eq!(first["publication"]["sentBlobs"], 1, "{first:#}");
    place
        .run(["snapshot", "vm:v2", "vm", "--format", "v2", "--local"])
        .succeeded();
    let pushed = place
        .run(["push", "vm:v2", "--verify", "--json"])
        .succeeded();
    let pushed: serde_json::Value = serde_json::from_str(&pushed.out).unwrap();
    let pushed = &pushed["pushed"][0];
    assert_eq!(pushed["sentBlobs"], 0, "{pushed:#}");
    assert_eq!(pushed["verifiedBlobs"], 1, "{pushed:#}");
}

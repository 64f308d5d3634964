//! `snapshotter list`.

use crate::support;

use support::Place;
use testkit::weather::{Reply, Weather};

fn several() -> Place {
    let place = Place::with_snapshot();
    for name in ["vm:v2", "sandboxes/a:v1", "sandboxes/b:v1"] {
        place.run(["snapshot", name, "vm", "memory"]).succeeded();
    }
    place
}

#[test]
fn a_table_for_people() {
    let place = several();
    assert_session!("text", place.run(["list"]).succeeded());
    assert_session!("verbose", place.run(["ls", "-v"]).succeeded());
    assert_session!("quiet", place.run(["list", "-q"]).succeeded());
}

/// A line of `list --remote` had a whole digest, and went over the edge of each terminal.
#[test]
fn a_line_is_within_80_columns() {
    let place = Place::with_registry();
    let name = "sandboxes/worker-1:v20261201";
    place.run(["snapshot", name, "vm"]).succeeded();
    for args in [&["list"][..], &["list", "--remote", "sandboxes/worker-1"]] {
        let said = place.run(args).succeeded();
        let is_within = |line: &str| line.chars().count() <= 80;
        assert!(
            said.out.contains(name) && said.out.lines().all(is_within),
            "{said:#?}"
        );
    }
}

#[test]
fn one_json_document_for_programs() {
    let place = Place::with_snapshot();
    let said = place.run(["list", "--json"]).succeeded();
    said.json();
    assert_session!("json", said);
}

#[test]
fn what_is_published_says_where() {
    let place = Place::with_registry();
    place
        .run(["snapshot", "vm:v1", "vm", "--link-mode", "copy"])
        .succeeded();
    assert_session!("published", place.run(["list", "-v"]).succeeded());
    let said = place.run(["list", "--json"]).succeeded();
    said.json();
    assert_session!("published_json", said);
}

#[test]
fn a_glob_chooses_by_name_or_reference() {
    let place = several();
    let names = |glob: &str| {
        place
            .run(["list", "-q", glob])
            .succeeded()
            .out
            .replace('\n', " ")
    };
    assert_eq!(names("vm"), "vm:v2 vm:v1 ");
    assert_eq!(names("vm:v1"), "vm:v1 ");
    assert_eq!(names("sandboxes/*"), "sandboxes/a:v1 sandboxes/b:v1 ");
    assert_eq!(names("*:v1"), "sandboxes/a:v1 sandboxes/b:v1 vm:v1 ");
    assert_eq!(names("nothing"), "");
    let said = place.run(["list", "nothing"]).succeeded();
    assert_eq!(said.out, "No snapshot matches nothing.\n");
    place.run(["list", "["]).exited(2);
}

#[test]
fn what_is_in_the_registry_needs_no_root() {
    let place = Place::with_published();
    let taken = |name, paths: &[&str]| {
        let args = ["snapshot", name, "vm"];
        place.on("other", args.iter().chain(paths)).succeeded();
    };
    taken("vm:v2", &["memory"]);
    taken("sandboxes/a:v1", &[]);
    taken(
        "vm:v3",
        &[
            "--format",
            "v2",
            "--annotation",
            "org.opencontainers.image.created=9026-01-02T03:04:05Z",
        ],
    );
    let mut verbose = place.run(["list", "--remote", "-v"]).succeeded();
    // What it does, it does side by side.
    verbose.err.clear();
    assert_session!("remote_verbose", verbose);
    assert_session!("remote", place.run(["list", "--remote"]).succeeded());
    let said = place.run(["list", "--remote", "--json"]).succeeded();
    said.json();
    assert_session!("remote_json", said);
    let names = |glob: &str| {
        let said = place.run(["list", "--remote", "-q", glob]).succeeded();
        said.out.replace('\n', " ")
    };
    assert_eq!(names("vm"), "vm:v1 vm:v2 vm:v3 ");
    assert_eq!(names("vm:v2"), "vm:v2 ");
    assert_eq!(names("vm:*1"), "vm:v1 ");
    assert_eq!(names("sandboxes/*"), "sandboxes/a:v1 ");
    assert_eq!(names("*:v1"), "sandboxes/a:v1 vm:v1 ");
    assert_eq!(names("nothing*"), "");
    let said = place.run(["list", "--remote", "nothing*"]).succeeded();
    assert_eq!(said.out, "No snapshot matches nothing*.\n");
    // What is named and is not there is no empty list.
    let said = place.run(["list", "--remote", "nothing"]).exited(3);
    let text = "there is no snapshot of the name nothing";
    assert!(said.err.contains(text), "{said:#?}");
    let said = Place::with_registry().run(["list", "--remote"]).succeeded();
    assert_eq!(said.out, "No snapshots in oci-layout:[DIR]/registry.\n");
    assert!(!place.path("root").exists(), "looking made a root");
}

/// Not every registry tells its names; the versions of a name all do.
#[test]
fn a_name_is_asked_for_by_name() {
    let registry = Weather::new(|asked, _| match asked.path() {
        "/v2/team/vm/tags/list" => Reply::ok(r#"{"name":"team/vm","tags":["v1"]}"#),
        _ => Reply::status(404),
    });
    let place = Place::new()
        .set("SNAPSHOTTER_REGISTRY_ENDPOINT", registry.url())
        .set("SNAPSHOTTER_REGISTRY_NAMESPACE", "team");
    for glob in ["vm", "vm:*"] {
        let said = place.run(["list", "--remote", "-q", glob]).succeeded();
        assert_eq!(said.out, "vm:v1\n", "{said:#?}");
    }
    place.run(["list", "--remote"]).exited(11);
}

/// A manifest that cannot be read costs its columns; a registry that is too busy is left alone, and a name alone reads none.
#[test]
fn what_the_registry_does_not_say_is_left_out_of_the_list() {
    let list = |status| {
        let tags: Vec<_> = (0..90).map(|nth| format!("v{nth}")).collect();
        let tags = serde_json::json!({"name": "team/vm", "tags": tags}).to_string();
        let registry = Weather::new(move |asked, _| match asked.path() {
            "/v2/team/vm/tags/list" => Reply::ok(tags.clone()),
            "/v2/team/vm/manifests/v1" => Reply::ok("{}"),
            _ => Reply::status(status),
        });
        let place = Place::new()
            .set("SNAPSHOTTER_REGISTRY_ENDPOINT", registry.url())
            .set("SNAPSHOTTER_REGISTRY_NAMESPACE", "team")
            .set("SNAPSHOTTER_REGISTRY_RETRIES", "0");
        (registry, place)
    };
    for (status, least) in [(404, 90), (403, 90), (500, 3)] {
        let (registry, place) = list(status);
        let said = place.run(["list", "--remote", "vm", "--json"]).succeeded();
        let said = said.json();
        assert_eq!(said["snapshots"].as_array().unwrap().len(), 90);
        assert_eq!(said["warnings"].as_array().unwrap().len(), 1, "{said}");
        assert_eq!(said["warnings"][0]["kind"], "unchecked");
        let asked = registry.asked();
        let manifests = asked
            .iter()
            .filter(|asked| asked.path().contains("/manifests/"));
        let count = manifests.count();
        assert!(
            (least..=90).contains(&count) && (status != 500 || count < 30),
            "{status}: {count}"
        );
    }
    let (registry, place) = list(500);
    let said = place.run(["list", "--remote", "vm", "-q"]).succeeded();
    assert_eq!((said.out.lines().count(), &*said.err), (90, ""));
    let asked = registry.asked();
    assert!(
        !asked
            .iter()
            .any(|asked| asked.path().contains("/manifests/"))
    );
}

#[test]
fn somebody_who_writes_is_not_waited_for() {
    let place = Place::with_snapshot();
    let _held = place.hold_catalog();
    assert_eq!(place.run(["list", "-q"]).succeeded().err, "");
}

#[test]
fn the_codes() {
    let place = Place::new();
    place.run(["list"]).exited(3);
    assert!(!place.path("root").exists(), "looking made a root");
    let place = Place::with_snapshot();
    if rustix::process::geteuid().is_root() {
        place.run_unprivileged(["list"]).exited(10);
    }
}

#[test]
fn help() {
    assert_session!("help", Place::new().run(["list", "--help"]).succeeded());
}

/// The bug: an empty last column left blanks at the end of the line.
#[test]
fn no_line_ends_with_blanks() {
    let said = several().run(["list", "-v"]).succeeded();
    let ends = |line: &str| line.ends_with(' ');
    assert!(!said.out.lines().any(ends), "{said:#?}");
}

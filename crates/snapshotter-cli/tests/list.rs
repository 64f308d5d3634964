//! `snapshotter list`.

mod support;

use support::Place;

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

#[test]
fn one_json_document_for_programs() {
    let place = Place::with_snapshot();
    let said = place.run(["list", "--json"]).succeeded();
    said.json();
    assert_session!("json", said);
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

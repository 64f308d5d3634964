//! `snapshotter tag`.

use crate::support;

use support::Place;

#[test]
fn a_snapshot_gets_one_more_name_here() {
    let place = Place::with_snapshot();
    let said = place.run(["tag", "vm:v1", "golden/vm:stable"]).succeeded();
    assert_eq!(said.out, "vm:v1 is golden/vm:stable too\n");
    place.write("vm/state.json", b"new");
    place.run(["snapshot", "vm:v2", "vm"]).succeeded();
    let taken = place.run(["tag", "vm:v2", "golden/vm:stable"]).exited(4);
    assert!(
        taken.err.contains("golden/vm:stable already exists"),
        "{taken:#?}"
    );
    let moved = ["tag", "vm:v2", "golden/vm:stable", "--force", "--json"];
    assert_session!("json", place.run(moved).succeeded());
    place.run(["remove", "vm:v1", "vm:v2"]).succeeded();
    place
        .run(["restore", "golden/vm:stable", "out"])
        .succeeded();
    assert_eq!(std::fs::read(place.path("out/state.json")).unwrap(), b"new");
    place.run(["tag", "vm:v9", "vm:v1"]).exited(3);
    place.run(["tag", "golden/vm:stable", "vm"]).exited(2);
    place
        .run(["tag", "golden/vm:stable", "vm:v1", "--remote"])
        .exited(2);
    place.assert_tidy();
}

#[test]
fn and_one_in_the_registry() {
    let place = Place::with_published();
    let said = place
        .run(["tag", "--remote", "vm:v1", "vm:stable"])
        .succeeded();
    let end = "/registry/team/vm too\n";
    let begin = "vm:v1 is vm:stable in oci-layout:";
    assert!(
        said.out.starts_with(begin) && said.out.ends_with(end),
        "{said:#?}"
    );
    let there = place.run(["list", "--remote", "-q", "vm"]).succeeded().out;
    assert_eq!(there, "vm:stable\nvm:v1\n");
    place.run(["restore", "vm:stable", "out"]).succeeded();
    place.run(["tag", "--remote", "vm:v9", "vm:v10"]).exited(3);
}

#[test]
fn help() {
    assert_session!("help", Place::new().run(["tag", "--help"]).succeeded());
}

#[test]
fn a_name_is_of_one_tenant_and_so_is_the_snapshot() {
    let place = Place::new().set("SNAPSHOTTER_ISOLATION", "name");
    place.run(["snapshot", "a/vm:v1", "vm"]).succeeded();
    place.run(["tag", "a/vm:v1", "b/vm:v1"]).exited(2);
    let said = place.run(["tag", "--tenant", "a", "a/vm:v1", "b/vm:v1"]);
    assert!(
        said.exited(2)
            .err
            .contains("is not a snapshot of the tenant a")
    );
    place.run(["tag", "a/vm:v1", "a/vm:v2"]).succeeded();
    let prune = ["prune", "a/*", "--keep-last", "1", "--include-unpublished"];
    let json = place
        .run(prune.into_iter().chain(["--json"]))
        .succeeded()
        .json();
    assert_eq!(json["removed"].as_array().unwrap().len(), 1);
    place.run(["prune", "--all", "--keep-last", "1"]).exited(2);
}

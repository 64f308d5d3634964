//! `snapshotter pin` and `snapshotter unpin`, and the help of `ps` (`signals.rs` has what it shows).

use crate::support;

use support::Place;

#[test]
fn a_pinned_snapshot_is_kept_and_shown() {
    let place = Place::with_snapshot();
    assert_eq!(
        place.run(["pin", "vm:v1"]).succeeded().out,
        "vm:v1 is pinned\n"
    );
    assert_eq!(
        place.run(["list", "--json"]).succeeded().json()["snapshots"][0]["pinned"],
        true
    );
    assert!(
        place
            .run(["list", "-v"])
            .succeeded()
            .out
            .contains("unpublished, pinned")
    );
    assert!(
        place
            .run(["inspect", "vm:v1"])
            .succeeded()
            .out
            .contains(", pinned\n")
    );
    let gc = [
        "gc",
        "--max-bytes",
        "0",
        "--retention",
        "0",
        "--include-unpublished",
    ];
    assert!(place.run(gc).succeeded().err.contains("1 pinned"));
    let json = place.run(["unpin", "vm:v1", "--json"]).succeeded().json();
    assert_eq!(json["snapshots"][0]["reference"], "vm:v1");
    assert_eq!(json["snapshots"][0]["pinned"], false);
    place.run(gc).succeeded();
    place.run(["inspect", "vm:v1"]).exited(3);
}

#[test]
fn nothing_is_pinned_unless_all_are_there() {
    let place = Place::with_snapshot();
    place.run(["pin", "vm:v1", "vm:v2"]).exited(3);
    place.run(["pin", "vm:v1", "vm"]).exited(2);
    place.run(["unpin"]).exited(2);
    let json = place.run(["list", "--json"]).succeeded().json();
    assert_eq!(json["snapshots"][0]["pinned"], false);
}

#[test]
fn help() {
    let place = Place::new();
    assert_session!("help", place.run(["pin", "--help"]).succeeded());
    assert_session!("help_unpin", place.run(["unpin", "--help"]).succeeded());
    assert_session!("help_ps", place.run(["ps", "--help"]).succeeded());
}

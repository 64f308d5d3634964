//! `snapshotter df`.

use crate::support;

use support::Place;

#[test]
fn what_is_stored_and_what_is_left() {
    let place = Place::with_snapshot();
    place.run(["snapshot", "vm:v2", "vm"]).succeeded();
    assert_session!("text", place.run(["df"]).succeeded());
    let said = place.run(["df", "--json"]).succeeded();
    assert_eq!(said.json()["storedBytes"], 370_003);
    assert_session!("json", said);
}

#[test]
fn the_codes() {
    Place::new().run(["df"]).exited(3);
    Place::new().run(["df", "more"]).exited(2);
}

#[test]
fn help() {
    assert_session!("help", Place::new().run(["df", "--help"]).succeeded());
}

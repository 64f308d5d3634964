//! `snapshotter doctor`. What it finds is the machine's, so only the form is compared.

mod support;

use support::Place;

#[test]
fn says_what_the_machine_can_do() {
    let place = Place::new();
    let said = place.run(["doctor", "vm"]).succeeded();
    for line in [
        "root (root)",
        "filesystem",
        "safe paths",
        "open files",
        "hardlinks",
        "reflinks",
    ] {
        assert!(said.out.contains(line), "{line}: {said:#?}");
    }
    let json = place.run(["doctor", "vm", "--json"]).succeeded().json();
    assert_eq!(json["root"]["path"], "root");
    assert_eq!(json["output"]["hardlink"]["works"], true);
    assert_eq!(json["output"]["sameFilesystem"], true);
    assert!(json["availableBytes"].is_u64() && json["openFilesLimit"].is_u64());
    let left: Vec<_> = std::fs::read_dir(place.path("vm")).unwrap().collect();
    assert_eq!(left.len(), 4, "it left something: {left:?}");
}

#[test]
fn another_filesystem_is_seen() {
    let place = Place::new();
    let Some(other) = testkit::mount::or_skip(testkit::mount::TmpfsMount::new(1 << 20)) else {
        return;
    };
    let json = place
        .run(["doctor", other.path().to_str().unwrap(), "--json"])
        .succeeded()
        .json();
    assert_eq!(json["output"]["sameFilesystem"], false);
    assert_eq!(json["output"]["hardlink"]["works"], false);
}

#[test]
fn the_codes() {
    let place = Place::new();
    place.run(["doctor", "nowhere"]).exited(3);
    place.run(["doctor", "vm/memory"]).exited(2);
}

#[test]
fn help() {
    assert_session!("help", Place::new().run(["doctor", "--help"]).succeeded());
}

//! The limits of the process that the command runs in.

use crate::support;

use std::fs;

use support::Place;

/// 300 read-only files of different bytes and owners' modes, so that each takes a blob and a view.
fn many(place: &Place) {
    fs::create_dir(place.path("many")).unwrap();
    place.chmod("many", 0o755);
    for number in 0..300 {
        place.write(
            &format!("many/{number}"),
            format!("file {number}").as_bytes(),
        );
    }
}

// A file above `ulimit -f` is a signal that ends a process: the command was gone without a word, in the middle.
#[test]
fn a_file_that_may_not_be_so_large_is_no_space_and_ends_no_process() {
    let place = Place::new();
    place.write("vm/memory", &[7; 3_000_000]);
    let taken = place
        .run_in_shell("ulimit -f 1024; exec snapshotter snapshot vm:v1 vm --link-mode copy --json");
    assert_eq!(taken.code, Some(7), "{taken:#?}");
    let json = taken.json();
    assert_eq!(json["error"]["kind"], "no_space", "{json}");
    assert!(
        json["error"]["hint"]
            .as_str()
            .unwrap()
            .contains("ulimit -f"),
        "{json}"
    );
    place
        .run(["snapshot", "vm:v1", "vm", "--link-mode", "copy"])
        .succeeded();
    let restored = place
        .run_in_shell("ulimit -f 1024; exec snapshotter restore vm:v1 output --link-mode copy");
    assert_eq!(restored.code, Some(7), "{restored:#?}");
    assert!(restored.err.contains("ulimit -f"), "{restored:#?}");
    place.run(["verify"]).succeeded();
}

// The catalog is a file too.
#[test]
fn a_catalog_that_may_not_grow_is_no_space_and_stays_whole() {
    let place = Place::with_snapshot();
    many(&place);
    let taken = place.run_in_shell("ulimit -f 8; exec snapshotter snapshot many:v1 many --json");
    assert_eq!(taken.json()["error"]["kind"], "no_space", "{taken:#?}");
    place.run(["verify"]).succeeded();
    place.run(["restore", "vm:v1", "output"]).succeeded();
}

// A restore held some 290 files open with default settings, and failed in the middle where fewer were allowed.
#[test]
fn a_low_limit_on_open_files_is_raised_or_kept_to() {
    let place = Place::new();
    many(&place);
    let rounds = [
        ("soft", "ulimit -Sn 40"),
        ("hard", "ulimit -n 64"),
        ("both", "ulimit -n 128; ulimit -Sn 32"),
    ];
    for (name, limit) in rounds {
        let line = |verb: &str| format!("{limit}; exec snapshotter {verb}");
        let taken = format!("snapshot many:{name} many --read-only '*' --link-mode copy");
        place.run_in_shell(&line(&taken)).succeeded();
        let restored = format!("restore many:{name} {name}");
        place.run_in_shell(&line(&restored)).succeeded();
        assert_eq!(fs::read_dir(place.path(name)).unwrap().count(), 300);
        place.run_in_shell(&line("verify")).succeeded();
    }
}

// Where not even one file at a time fits, what was said was that the catalog could not be opened for want of a right.
#[test]
fn too_few_open_files_are_said_with_a_way_out() {
    let place = Place::with_snapshot();
    let mut refused = 0;
    for limit in [10, 14, 18, 22] {
        let said = place.run_in_shell(&format!(
            "ulimit -n {limit}; exec snapshotter restore vm:v1 output-{limit} --json"
        ));
        if said.code == Some(0) {
            continue;
        }
        let json = said.json();
        assert_eq!(json["error"]["kind"], "internal", "{limit}: {json}");
        let hint = json["error"]["hint"].as_str().unwrap_or_default();
        assert!(hint.contains("ulimit -n"), "{limit}: {json}");
        refused += 1;
    }
    assert!(refused > 0);
}

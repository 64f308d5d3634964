//! The mistakes people are most likely to make, and what they are told: what is wrong, and what to do next. Each
//! message is pinned word for word.

mod support;

use std::fs;

use support::{Place, Said};

macro_rules! mistakes {
    ($($name:ident: $run:expr;)*) => {$(
        #[test]
        fn $name() {
            let place = Place::with_snapshot();
            let run: fn(&Place) -> Option<Said> = $run;
            let Some(said) = run(&place) else { return };
            assert_ne!(said.code, Some(0), "{said:#?}");
            assert!(said.err.contains("hint:") || said.err.contains("tip:") || said.err.contains("Usage:"), "{said:#?}");
            assert_session!(stringify!($name), said);
        }
    )*};
}

mistakes! {
    a_version_is_missing: |place| Some(place.run(["restore", "vm", "out"]));
    a_version_is_missing_from_a_new_snapshot: |place| Some(place.run(["snapshot", "vm", "vm"]));
    a_name_has_capitals: |place| Some(place.run(["snapshot", "VM:v1", "vm"]));
    a_reference_names_a_registry: |place| Some(place.run(["restore", "localhost:5000/vm:v1", "out"]));
    the_directory_comes_first: |place| Some(place.run(["snapshot", "./vm", "vm:v1"]));
    the_version_exists: |place| Some(place.run(["snapshot", "vm:v1", "vm"]));
    the_version_is_not_there: |place| Some(place.run(["restore", "vm:v2", "out"]));
    the_name_is_not_there: |place| Some(place.run(["restore", "mv:v1", "out"]));
    the_base_directory_is_not_there: |place| Some(place.run(["snapshot", "vm:v2", "vn"]));
    the_base_directory_is_a_file: |place| Some(place.run(["snapshot", "vm:v2", "vm/memory"]));
    a_path_is_relative_to_the_working_directory: |place| Some(place.run(["snapshot", "vm:v2", "vm", "vm/memory"]));
    a_path_is_absolute: |place| {
        let path = place.path("vm/memory");
        let base = place.path("vm");
        Some(place.run(["snapshot", "vm:v2", base.to_str().unwrap(), path.to_str().unwrap()]))
    };
    a_path_is_a_pattern: |place| Some(place.run(["snapshot", "vm:v2", "vm", "*.json"]));
    a_pattern_is_malformed: |place| Some(place.run(["snapshot", "vm:v2", "vm", "--exclude", "a["]));
    the_root_is_not_there: |place| Some(place.run(["--root", "rot", "list"]));
    the_root_is_a_go_librarys: |place| {
        fs::create_dir_all(place.path("go/metadata")).unwrap();
        place.write("go/metadata/snapshotter.db", b"");
        Some(place.run(["--root", "go", "list"]))
    };
    the_root_is_a_file: |place| Some(place.run(["--root", "vm/memory", "list"]));
    the_root_may_not_be_written: |place| {
        place.chmod("vm", 0o555);
        let said = place.run_unprivileged(["--root", "vm/root", "snapshot", "a:v1", "vm/images"]);
        Some(said)
    };
    the_output_is_a_file: |place| Some(place.run(["restore", "vm:v1", "vm/memory"]));
    the_output_has_something_that_may_not_be_replaced: |place| Some(place.run(["restore", "vm:v1", "vm", "--no-clobber"]));
    a_path_is_not_in_the_snapshot: |place| Some(place.run(["restore", "vm:v1", "out", "memroy"]));
    the_store_is_damaged: |place| {
        fs::write(place.largest_blob(), [8; 300_000]).unwrap();
        Some(place.run(["restore", "vm:v1", "out"]))
    };
    the_disk_is_full: |place| {
        let small = testkit::mount::or_skip(testkit::mount::TmpfsMount::new(9 << 20))?;
        place.write("vm/large", &vec![1; 20 << 20]);
        let root = small.path().join("root");
        let said = place.said(place.command(["snapshot", "vm:v1", "vm"]).env("SNAPSHOTTER_ROOT_DIR", root));
        Some(said)
    };
    a_key_is_misspelt: |place| {
        place.write("c.toml", b"root-dir = \"/store\"\n");
        Some(place.run(["--config", "c.toml", "list"]))
    };
    a_command_is_misspelt: |place| Some(place.run(["snaphot", "vm:v2", "vm"]));
    a_flag_is_misspelt: |place| Some(place.run(["snapshot", "vm:v2", "vm", "--readonly", "memory"]));
    the_list_of_files_is_empty: |place| Some(place.run(["snapshot", "vm:v2", "vm", "--files-from", "-"]));
}

/// What a person is told is what a program is told.
#[test]
fn json_has_the_same_words() {
    let place = Place::with_snapshot();
    for args in [
        &["restore", "vm", "out"][..],
        &["snapshot", "vm:v1", "vm"],
        &["restore", "vm:v2", "out"],
        &["--root", "rot", "list"],
    ] {
        let text = place.run(args);
        let json = place.run(args.iter().copied().chain(["--json"]));
        assert_eq!(text.code, json.code);
        assert_eq!(json.err, "");
        let error = &json.json()["error"];
        let said = format!(
            "error: {}\n   hint: {}\n",
            error["message"].as_str().unwrap(),
            error["hint"].as_str().unwrap()
        );
        assert_eq!(text.err, said);
    }
}

#[test]
fn a_wrong_command_line_is_json_too() {
    let place = Place::new();
    assert_session!("usage_json", place.run(["snaphot", "--json"]).exited(2));
}

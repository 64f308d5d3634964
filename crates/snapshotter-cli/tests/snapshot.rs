//! `snapshotter snapshot`.

use crate::support;

use std::fs;

use support::Place;
use testkit::fuse::{FuseMount, Node};
use testkit::mount::or_skip;

#[test]
fn takes_a_snapshot_and_says_what_it_did() {
    let place = Place::new();
    let said = place
        .run(["snapshot", "vm:v1", "vm", "--link-mode", "copy"])
        .succeeded();
    assert_session!("text", said);
    assert!(said.err.is_empty(), "{said:#?}");
}

#[test]
fn one_json_document_says_it_to_programs() {
    let place = Place::new();
    let said = place
        .run([
            "snapshot",
            "vm:v1",
            "vm",
            "--json",
            "--link-mode",
            "copy",
            "--read-only",
            "memory",
        ])
        .succeeded();
    said.json();
    assert_session!("json", said);
}

#[test]
fn a_dry_run_takes_nothing_and_makes_no_root() {
    let place = Place::new();
    let said = place
        .run([
            "snapshot",
            "vm:v1",
            "vm",
            "--dry-run",
            "--read-only",
            "images",
        ])
        .succeeded();
    assert_session!("dry_run", said);
    assert!(!place.path("root").exists());
    let json = place
        .run(["snapshot", "vm:v1", "vm", "--dry-run", "--json"])
        .succeeded()
        .json();
    assert_eq!(
        (&json["dryRun"], &json["exists"], &json["files"]),
        (&true.into(), &false.into(), &3.into())
    );
}

#[test]
fn a_dry_run_of_a_version_that_exists_says_so() {
    let place = Place::with_snapshot();
    place
        .run(["snapshot", "vm:v1", "vm", "--dry-run"])
        .exited(4);
    place
        .run(["snapshot", "vm:v1", "vm", "--dry-run", "--force"])
        .succeeded();
}

#[test]
fn globs_and_paths_choose_what_is_taken() {
    let place = Place::new();
    let files = |extra: &[&str]| {
        let args = ["snapshot", "vm:v1", "vm", "--dry-run", "--json"]
            .iter()
            .chain(extra);
        let json = place.run(args).succeeded().json();
        let entries = json["entries"].as_array().unwrap().clone();
        let paths = entries
            .iter()
            .map(|entry| entry["relativePath"].as_str().unwrap().to_owned());
        paths.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        files(&[]),
        "images images/disk.img latest memory state.json"
    );
    assert_eq!(files(&["**"]), files(&[]));
    assert_eq!(files(&["images"]), "images images/disk.img");
    assert_eq!(
        files(&["--exclude", "images", "--exclude", "*.json"]),
        "latest memory"
    );
    assert_eq!(
        files(&["--exclude", "**/*.img", "images", "memory"]),
        "images memory"
    );
}

#[test]
fn a_pattern_that_matches_nothing_is_a_warning_that_names_the_flag() {
    let place = Place::new();
    place.write("list", b"# sockets\n*.sock\n");
    let args = ["snapshot", "vm:v1", "vm", "--exclude-from", "list"];
    let said = place.run(args).succeeded();
    assert!(
        said.err.contains(r#"--exclude "*.sock" matches nothing"#),
        "{said:?}"
    );
    let args = ["snapshot", "vm:v2", "vm", "--read-only", "m*", "--exclude"];
    place
        .run([&args[..], &["*.img", "--strict"]].concat())
        .succeeded();
    place
        .run([&args[..], &["x", "--strict", "--force"]].concat())
        .exited(9);
}

#[test]
fn one_file_comes_from_the_standard_input() {
    let place = Place::new();
    for format in ["v1", "v2"] {
        let name = format!("dump:{format}");
        let args = [
            "snapshot",
            &name,
            "--stdin",
            "d/all.sql",
            "--format",
            format,
            "--json",
        ];
        let json = place.run_with_input(args, b"bytes").succeeded().json();
        assert_eq!(
            (&json["files"], &json["logicalBytes"]),
            (&1.into(), &5.into())
        );
        let said = place.run(["cat", &name, "d/all.sql"]).succeeded();
        assert_eq!(said.out, "bytes");
    }
    place
        .run(["snapshot", "dump:v3", "vm", "--stdin", "x"])
        .exited(2);
    place
        .run(["snapshot", "dump:v3", "--stdin", "x", "--exclude", "y"])
        .exited(2);
    place.run(["snapshot", "dump:v3"]).exited(2);
    place
        .run_with_input(["snapshot", "dump:v3", "--stdin", "/x"], b"")
        .exited(2);
    place
        .run_with_input(["snapshot", "dump:v1", "--stdin", "x"], b"")
        .exited(4);
}

/// Escapes were taken out of what went to a pipe: of text that is right, and of bytes it is damage.
#[test]
fn a_file_is_printed_byte_for_byte() {
    let place = Place::new();
    let bytes: Vec<u8> = [b"\x1b[31mred\x1b[0m\n".as_slice(), &[0xff, 0, 7]].concat();
    place.write("vm/bytes", &bytes);
    place.run(["snapshot", "vm:v1", "vm"]).succeeded();
    let printed = place
        .command(["cat", "vm:v1", "bytes", "--json"])
        .output()
        .unwrap();
    assert!(
        printed.status.success() && printed.stdout == bytes,
        "{printed:?}"
    );
    place.run(["cat", "vm:v1", "images"]).exited(3);
    let said = place.run(["cat", "vm:v1", "nothing"]).exited(3);
    assert!(
        said.err
            .contains("`snapshotter inspect vm:v1` shows its files"),
        "{said:?}"
    );
    place.run(["cat", "vm:v2", "bytes"]).exited(3);
    // Whoever reads half of it has seen enough.
    let said = place.run_in_shell("snapshotter cat vm:v1 memory | head -c 10 | wc -c");
    assert_eq!((said.out.trim(), said.err.as_str()), ("10", ""));
    fs::write(place.largest_blob(), [8; 300_000]).unwrap();
    let said = place.run(["cat", "vm:v1", "memory"]).exited(5);
    assert_eq!(said.out, "");
}

#[test]
fn a_file_of_a_snapshot_that_is_not_here_is_fetched_first() {
    let place = Place::with_published();
    let said = place.run(["cat", "vm:v1", "state.json"]).succeeded();
    assert_eq!(said.out, "{}\n");
    place.run(["inspect", "vm:v1"]).succeeded();
}

#[test]
fn what_may_not_be_read_is_left_out_where_that_is_asked_for() {
    let place = Place::new();
    place.chmod("", 0o777);
    fs::create_dir_all(place.path("vm/closed/in")).unwrap();
    place.chmod("vm/closed", 0o700);
    place.chmod("vm/memory", 0o600);
    if place.run_unprivileged(["snapshot", "vm:v0", "vm"]).code == Some(0) {
        testkit::skip!("this user may read everything");
    }
    for format in ["v2", "v1"] {
        let name = format!("vm:{format}");
        let skipping = [
            "snapshot",
            &name,
            "vm",
            "--format",
            format,
            "--skip-unreadable",
        ];
        place.run_unprivileged(skipping[..5].iter()).exited(10);
        let said = place.run_unprivileged(skipping.iter().chain(&["--json", "--strict"]));
        let json = said.exited(9).json();
        assert_eq!(
            (&json["files"], &json["directories"]),
            (&2.into(), &1.into())
        );
        let warnings = json["warnings"].as_array().unwrap();
        let mut paths: Vec<_> = warnings
            .iter()
            .map(|warning| {
                assert_eq!(warning["kind"], "unreadable", "{json}");
                warning["path"].as_str().unwrap()
            })
            .collect();
        paths.sort_unstable();
        assert_eq!(paths, ["closed", "memory"]);
        // One that is named, too.
        let named = [
            &skipping[..3],
            &["memory", "--force", "--skip-unreadable", "--json"],
        ]
        .concat();
        assert_eq!(place.run_unprivileged(named).succeeded().json()["files"], 0);
    }
}

#[test]
fn paths_come_from_a_file_or_the_standard_input() {
    let place = Place::new();
    place.write("list", b"memory\nstate.json\n");
    let args = ["snapshot", "vm:v1", "vm", "--json", "--files-from", "list"];
    assert_eq!(place.run(args).succeeded().json()["files"], 2);
    let args = ["snapshot", "vm:v2", "vm", "--json", "--files-from0", "-"];
    let json = place
        .run_with_input(args, b"memory\0images/disk.img\0")
        .succeeded()
        .json();
    assert_eq!(json["files"], 2);
    place
        .run_with_input(["snapshot", "vm:v3", "vm", "--files-from", "-"], b"")
        .exited(2);
}

#[test]
fn annotations_travel_with_it() {
    let place = Place::new();
    place
        .run([
            "snapshot",
            "vm:v1",
            "vm",
            "--annotation",
            "kernel=6.18",
            "--annotation",
            "a=b=c",
        ])
        .succeeded();
    let json = place.run(["inspect", "vm:v1", "--json"]).succeeded().json();
    assert_eq!(json["annotations"]["kernel"], "6.18");
    assert_eq!(json["annotations"]["a"], "b=c");
}

#[test]
fn force_replaces_what_exists() {
    let place = Place::with_snapshot();
    place.run(["snapshot", "vm:v1", "vm"]).exited(4);
    place.write("vm/state.json", b"{\"new\":1}\n");
    place
        .run(["snapshot", "vm:v1", "vm", "--force"])
        .succeeded();
    place.run(["restore", "vm:v1", "out"]).succeeded();
    assert_eq!(
        fs::read(place.path("out/state.json")).unwrap(),
        b"{\"new\":1}\n"
    );
}

#[test]
fn with_a_registry_it_is_published_unless_it_is_to_stay_here() {
    let place = Place::with_registry();
    let taken = |version: &str, more: &[&str]| {
        let args = ["snapshot", version, "vm", "--link-mode", "copy"];
        place.run(args.iter().chain(more)).succeeded()
    };
    assert_session!("published", taken("vm:v1", &[]));
    let said = taken("vm:v2", &["--json"]);
    assert_eq!(said.json()["publication"]["sentBlobs"], 0);
    assert_session!("published_json", said);
    let said = taken("vm:v3", &["--local", "--json"]);
    assert!(said.json()["publication"].is_null());
    let listed = place.run(["list", "--remote", "-q"]).succeeded();
    assert_eq!(listed.out, "vm:v1\nvm:v2\n");
    for (name, state) in [("vm:v1", "published"), ("vm:v3", "unpublished")] {
        let json = place.run(["inspect", name, "--json"]).json();
        assert_eq!(json["state"], state);
    }
}

#[test]
fn a_version_that_is_taken_in_the_registry_is_four_before_anything_is_stored() {
    let place = Place::with_published();
    place.write("vm/memory", b"other");
    place.run(["snapshot", "vm:v1", "vm"]).exited(4);
    assert_eq!(place.run(["list", "-q"]).succeeded().out, "");
    let taken = |flag| place.run(["snapshot", "vm:v1", "vm", flag]).succeeded();
    taken("--local");
    place.run(["push", "vm:v1"]).exited(4);
    taken("--force");
}

#[test]
fn what_cannot_be_published_is_kept_here() {
    let place = Place::with_registry();
    std::fs::remove_dir(place.path("contents")).unwrap();
    let said = place.run(["snapshot", "vm:v1", "vm"]);
    assert_ne!(said.code, Some(0), "{said:#?}");
    assert!(said.err.contains("`snapshotter push`"), "{said:#?}");
    assert_eq!(place.run(["list", "-q"]).succeeded().out, "vm:v1\n");
    std::fs::create_dir(place.path("contents")).unwrap();
    place.run(["push", "vm:v1"]).succeeded();
}

#[test]
fn a_name_that_is_not_utf8_is_there_in_bytes() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    let name = std::ffi::OsStr::from_bytes(b"odd\xff");
    fs::write(place.path("vm").join(name), "x").unwrap();
    let json = place
        .run(["snapshot", "vm:v1", "vm", "--dry-run", "--json"])
        .succeeded()
        .json();
    let entries = json["entries"].as_array().unwrap();
    let odd = entries
        .iter()
        .find(|entry| entry["relativePathBytes"] != serde_json::Value::Null);
    assert_eq!(odd.unwrap()["relativePath"], "odd\u{fffd}");
    assert_eq!(odd.unwrap()["relativePathBytes"], "b2Rk/w==");
    place.run(["snapshot", "vm:v1", "vm"]).succeeded();
    place.run(["restore", "vm:v1", "out"]).succeeded();
    assert!(place.path("out").join(name).exists());
}

#[test]
fn a_warning_is_said_and_strict_makes_it_nine() {
    let place = Place::new();
    testkit::Tree::new()
        .fifo("pipe")
        .write_to(&place.path("vm"))
        .unwrap();
    let said = place
        .run(["snapshot", "vm:v1", "vm", "--link-mode", "copy"])
        .succeeded();
    assert!(said.err.starts_with("warning: pipe: "), "{said:#?}");
    let said = place.run(["snapshot", "vm:v2", "vm", "--strict"]).exited(9);
    assert!(said.err.contains("--strict"), "{said:#?}");
    let json = place
        .run(["snapshot", "vm:v3", "vm", "--json", "--strict"])
        .exited(9)
        .json();
    assert_eq!(json["warnings"][0]["kind"], "skipped");
    assert_eq!(json["warnings"][0]["path"], "pipe");
    let said = place.run(["snapshot", "vm:v4", "vm", "-q"]).succeeded();
    assert_eq!((said.out, said.err), (String::new(), String::new()));
}

#[test]
fn a_full_disk_is_seven() {
    let place = Place::new();
    let Some(small) = testkit::mount::or_skip(testkit::mount::TmpfsMount::new(9 << 20)) else {
        return;
    };
    place.write("vm/large", &vec![1; 20 << 20]);
    let root = small.path().join("root");
    let said = place
        .run(["--root", root.to_str().unwrap(), "snapshot", "vm:v1", "vm"])
        .exited(7);
    assert!(said.err.contains("hint:"), "{said:#?}");
    let listed = place
        .run(["--root", root.to_str().unwrap(), "list", "-q"])
        .succeeded();
    assert_eq!(listed.out, "");
}

#[test]
fn a_held_catalog_is_eight() {
    let place = Place::with_snapshot();
    let _held = place.hold_catalog();
    let mut command = place.command(["snapshot", "vm:v2", "vm"]);
    place
        .said(command.env("SNAPSHOTTER_BUSY_TIMEOUT", "10ms"))
        .exited(8);
}

#[test]
fn a_file_that_may_not_be_read_is_ten() {
    let place = Place::new();
    place.chmod("vm/memory", 0);
    place.chmod("", 0o777);
    let said = place
        .run_unprivileged(["snapshot", "vm:v1", "vm"])
        .exited(10);
    assert!(said.err.contains("vm/memory"), "{said:#?}");
}

#[test]
fn the_other_codes() {
    let place = Place::new();
    place.run(["snapshot", "vm", "vm"]).exited(2);
    place.run(["snapshot", "vm:v1", "nowhere"]).exited(3);
    fs::create_dir_all(place.path("go/metadata")).unwrap();
    place.write("go/metadata/snapshotter.db", b"");
    place
        .run(["--root", "go", "snapshot", "vm:v1", "vm"])
        .exited(11);
}

#[test]
fn help() {
    assert_session!("help", Place::new().run(["snapshot", "--help"]).succeeded());
}

/// A file that went between the walk and the copy failed the whole command with 3, and no word of what to do.
#[test]
fn what_goes_meanwhile_is_a_warning() {
    let file = Node::File {
        says: 5,
        bytes: b"bytes".to_vec(),
    };
    let names = vec![
        ("goes", vec![file.clone(), Node::Gone]),
        ("stays", vec![file]),
    ];
    let Some(mount) = or_skip(FuseMount::new(names)) else {
        return;
    };
    let place = Place::new();
    let base = mount.path().to_str().unwrap();
    let said = place.run(["snapshot", "vm:v1", base, "--json"]).succeeded();
    let json = said.json();
    assert_eq!(json["files"], 1);
    assert_eq!(json["warnings"][0]["kind"], "vanished");
    assert_eq!(json["warnings"][0]["path"], "goes");
    let stays = ["snapshot", "vm:v2", base, "--strict", "stays"];
    place.run(stays).succeeded();
}

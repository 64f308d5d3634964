//! `snapshotter restore`.

use crate::support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;

use support::Place;

#[test]
fn restores_and_says_what_it_did() {
    let place = Place::with_snapshot();
    let said = place
        .run(["restore", "vm:v1", "out", "--link-mode", "copy"])
        .succeeded();
    assert_session!("text", said);
    testkit::compare::assert_same(&place.path("vm"), &place.path("out"));
}

#[test]
fn one_json_document_says_it_to_programs() {
    let place = Place::with_snapshot();
    let said = place
        .run(["--json", "restore", "vm:v1", "out", "--link-mode", "copy"])
        .succeeded();
    said.json();
    assert_session!("json", said);
}

#[test]
fn a_dry_run_writes_nothing_and_shows_what_is_in_the_way() {
    let place = Place::with_snapshot();
    place
        .run(["restore", "vm:v1", "out", "--dry-run"])
        .succeeded();
    assert!(!place.path("out").exists());
    fs::create_dir(place.path("out")).unwrap();
    place.write("out/memory", b"other");
    assert_session!(
        "dry_run",
        place
            .run(["restore", "vm:v1", "out", "--dry-run"])
            .succeeded()
    );
    let said = place
        .run([
            "restore",
            "vm:v1",
            "out",
            "--dry-run",
            "--no-clobber",
            "--json",
        ])
        .exited(4);
    assert_eq!(said.json()["existing"][0]["relativePath"], "memory");
    assert_eq!(fs::read(place.path("out/memory")).unwrap(), b"other");
}

#[test]
fn what_is_not_here_is_fetched() {
    let place = Place::with_published();
    let args = ["restore", "vm:v1", "out", "--link-mode", "copy"];
    assert_session!("fetched", place.run(args).succeeded());
    testkit::compare::assert_same(&place.path("vm"), &place.path("out"));
    let again = place.run(["restore", "vm:v1", "again", "--json"]);
    assert_eq!(again.succeeded().json()["fetchedBlobs"], 0);
    let other = place.on("third", ["restore", "vm:v1", "elsewhere", "--json"]);
    let json = other.succeeded().json();
    assert_eq!(json["fetchedBlobs"], 3);
    assert!(json["fetchedBytes"].as_u64().unwrap() > 0);
}

/// A dry run looked at what was here alone: on a fresh node it failed for want of a store, whatever the registry had.
#[test]
fn a_dry_run_asks_the_registry_and_makes_nothing() {
    let place = Place::with_published();
    let dry = ["restore", "vm:v1", "out", "--dry-run", "--json"];
    let there = place.run(dry).succeeded().json();
    assert!(!place.path("root").exists() && !place.path("out").exists());
    let missing = place.run(["restore", "vm:v2", "out", "--dry-run"]);
    let hint = "`snapshotter list --remote vm` shows its versions there";
    assert!(missing.exited(3).err.contains(hint));
    assert!(!place.path("root").exists());
    // With a store that has others, and with one that has it.
    let other = ["snapshot", "other:v1", "vm", "--local"];
    place.run(other).succeeded();
    assert_eq!(place.run(dry).succeeded().json(), there);
    assert_eq!(place.run(["list", "-q"]).succeeded().out, "other:v1\n");
    place.run(["pull", "vm:v1"]).succeeded();
    assert_eq!(place.run(dry).succeeded().json(), there);
}

#[test]
fn a_damaged_file_is_fetched_again() {
    let place = Place::with_published();
    place.run(["pull", "vm:v1"]).succeeded();
    fs::write(place.largest_blob(), [8; 300_000]).unwrap();
    let said = place.run(["restore", "vm:v1", "out", "--json"]);
    assert_eq!(said.succeeded().json()["fetchedBlobs"], 1);
    testkit::compare::assert_same(&place.path("vm"), &place.path("out"));
}

#[test]
fn paths_choose_what_is_restored() {
    let place = Place::with_snapshot();
    place.run(["restore", "vm:v1", "out", "images"]).succeeded();
    assert!(place.path("out/images/disk.img").exists() && !place.path("out/memory").exists());
    place.run(["restore", "vm:v1", "all", "."]).succeeded();
    assert!(place.path("all/memory").exists());
    let said = place.run(["restore", "vm:v1", "out", "nothing"]).exited(3);
    assert!(said.err.contains("snapshotter inspect vm:v1"), "{said:#?}");
}

#[test]
fn what_is_there_is_replaced_unless_that_is_forbidden() {
    let place = Place::with_snapshot();
    fs::create_dir(place.path("out")).unwrap();
    place.write("out/memory", b"other");
    place
        .run(["restore", "vm:v1", "out", "--no-clobber"])
        .exited(4);
    assert_eq!(fs::read(place.path("out/memory")).unwrap(), b"other");
    place.run(["restore", "vm:v1", "out"]).succeeded();
    assert_eq!(
        fs::metadata(place.path("out/memory")).unwrap().len(),
        300_000
    );
}

#[test]
fn a_damaged_file_is_five_and_named() {
    let place = Place::with_snapshot();
    fs::write(place.largest_blob(), [8; 300_000]).unwrap();
    let said = place.run(["restore", "vm:v1", "out"]).exited(5);
    assert!(
        said.err.contains("memory") && said.err.contains("snapshotter verify"),
        "{said:#?}"
    );
    assert!(!place.path("out/memory").exists());
}

#[test]
fn the_wanted_link_mode_across_filesystems_is_a_warning() {
    let place = Place::new();
    let Some(other) = testkit::mount::or_skip(testkit::mount::TmpfsMount::new(9 << 20)) else {
        return;
    };
    place
        .run(["snapshot", "vm:v1", "vm", "--read-only", "**"])
        .succeeded();
    let out = other.path().join("out");
    let args = [
        "restore",
        "vm:v1",
        out.to_str().unwrap(),
        "--link-mode",
        "hardlink",
        "--strict",
        "--json",
    ];
    let json = place.run(args).exited(9).json();
    assert_eq!(json["placements"]["copy"]["files"], 3);
    assert_eq!(json["warnings"][0]["kind"], "link_mode");
}

#[test]
fn a_full_disk_is_seven() {
    let place = Place::new();
    place.write("vm/large", &vec![1; 20 << 20]);
    place.run(["snapshot", "vm:v1", "vm"]).succeeded();
    let Some(small) = testkit::mount::or_skip(testkit::mount::TmpfsMount::new(9 << 20)) else {
        return;
    };
    place
        .run([
            "restore",
            "vm:v1",
            small.path().join("out").to_str().unwrap(),
        ])
        .exited(7);
}

#[test]
fn an_output_that_may_not_be_written_is_ten() {
    let place = Place::new();
    place.chmod("", 0o777);
    place
        .run_unprivileged(["snapshot", "vm:v1", "vm"])
        .succeeded();
    fs::create_dir(place.path("closed")).unwrap();
    place.chmod("closed", 0o555);
    place
        .run_unprivileged(["restore", "vm:v1", "closed/out"])
        .exited(10);
}

/// One name that could not be deleted ended the restore before directories had their modes and times.
#[test]
fn what_cannot_be_deleted_leaves_the_rest_right() {
    let place = Place::new();
    place.chmod("", 0o777);
    place.chmod("vm/images", 0o750);
    if rustix::process::geteuid().is_root() {
        for name in ["vm", "vm/images", "vm/images/disk.img"] {
            std::os::unix::fs::chown(place.path(name), Some(65534), Some(65534)).unwrap();
        }
    }
    let run = |args: &[&str]| place.run_unprivileged(args);
    run(&["snapshot", "vm:v1", "vm"]).succeeded();
    run(&["restore", "vm:v1", "out"]).succeeded();
    let line = "mkdir out/closed && touch out/closed/file && chmod 555 out/closed";
    place.run_in_shell(line).succeeded();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(place.path("out/closed"), Some(65534), Some(65534)).unwrap();
    }
    run(&["restore", "vm:v1", "out", "--delete"]).exited(10);
    let mode = |name: &str| fs::metadata(place.path(name)).unwrap().permissions().mode();
    assert_eq!(mode("out/images") & 0o777, 0o750);
}

#[test]
fn the_other_codes() {
    let place = Place::with_snapshot();
    place.run(["restore", "vm", "out"]).exited(2);
    place.run(["restore", "vm:v9", "out"]).exited(3);
    place.run(["restore", "vm:v1", "vm/memory"]).exited(2);
    place
        .run(["--root", "nowhere", "restore", "vm:v1", "out"])
        .exited(3);
    assert!(!place.path("nowhere").exists());
}

#[test]
fn patterns_and_deletion_are_shown_before_they_are_done() {
    let place = Place::with_snapshot();
    place.run(["restore", "vm:v1", "out"]).succeeded();
    place.write("out/images/old", b"old");
    place.write("out/older", b"older");
    let args = ["restore", "vm:v1", "out", "--delete", "--exclude", "older"];
    let dry = place.run(args.iter().chain(&["--dry-run", "--json"]));
    let json = dry.succeeded().json();
    assert_eq!(
        json["toDelete"],
        serde_json::json!([{"relativePath": "images/old"}])
    );
    let dry = place.run(args.iter().chain(&["--dry-run"])).succeeded();
    assert!(
        dry.out.contains("would be deleted: images/old\n"),
        "{dry:?}"
    );
    assert!(place.path("out/images/old").exists());
    let done = place
        .run(args.iter().chain(&["--json", "--strict"]))
        .succeeded()
        .json();
    assert_eq!(done["deleted"], 1);
    assert!(!place.path("out/images/old").exists() && place.path("out/older").exists());
    let args = [
        "restore",
        "vm:v1",
        "part",
        "--include",
        "*.img",
        "--include",
        "x",
        "--strict",
    ];
    let said = place.run(args).exited(9);
    assert!(
        said.err.contains(r#"--include "x" matches nothing"#),
        "{said:?}"
    );
    let made: Vec<_> = fs::read_dir(place.path("part")).unwrap().collect();
    assert!(made.len() == 1 && place.path("part/images/disk.img").exists());
    place
        .run(["restore", "vm:v1", "out", "--delete", "--no-clobber"])
        .exited(2);
}

#[test]
fn help() {
    assert_session!("help", Place::new().run(["restore", "--help"]).succeeded());
}

/// The bug: an output on another filesystem, and full, was answered with which space was missing, not where, and with the
/// hint to remove snapshots, which gives none back there.
#[test]
fn no_space_says_where_and_removing_snapshots_is_no_way_out_elsewhere() {
    let place = Place::new();
    let Some(small) = testkit::mount::or_skip(testkit::mount::TmpfsMount::new(1 << 20)) else {
        return;
    };
    place.write("vm/large", &vec![7; 4 << 20]);
    place.run(["snapshot", "vm:v1", "vm", "large"]).succeeded();
    let output = small.path().join("out");
    let said = place.run(["restore", "vm:v1", output.to_str().unwrap()]);
    let said = said.exited(7);
    let text = "4 MiB are needed and 1 MiB are free on the filesystem of ";
    assert!(said.err.contains(text), "{said:#?}");
    assert!(said.err.contains(output.to_str().unwrap()), "{said:#?}");
    assert!(!said.err.contains("hint"), "{said:#?}");
}

#[test]
fn setuid_bits_come_back_where_they_are_asked_for() {
    let place = Place::new();
    place.chmod("vm/memory", 0o4755);
    place.run(["snapshot", "vm:v1", "vm"]).succeeded();
    let mode = |name: &str| fs::metadata(place.path(name)).unwrap().mode() & 0o7777;
    let said = place.run(["restore", "vm:v1", "out", "--json"]).succeeded();
    assert_eq!(said.json()["warnings"][0]["kind"], "attribute");
    assert_eq!(mode("out/memory"), 0o755);
    let shown = place.run(["inspect", "vm:v1"]).succeeded();
    assert!(shown.out.contains("-rwsr-xr-x"), "{shown:#?}");
    if rustix::process::geteuid().is_root() {
        let restore = ["restore", "vm:v1", "all", "--setid", "--strict"];
        place.run(restore).succeeded();
        assert_eq!(mode("all/memory"), 0o4755);
    }
}

//! `snapshotter gc`.

use crate::support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use support::Place;

const ALL: [&str; 5] = ["gc", "--max-bytes", "0", "--retention", "0"];

/// The machine's own disk may be as full as it likes.
fn calm(place: Place) -> Place {
    place
        .set("SNAPSHOTTER_GC_DISK_HIGH_THRESHOLD_PERCENT", "100")
        .set("SNAPSHOTTER_GC_DISK_LOW_THRESHOLD_PERCENT", "100")
}

#[test]
fn frees_nothing_where_nothing_is_too_full() {
    let place = calm(Place::with_snapshot());
    let said = place.run(["gc"]).succeeded();
    assert_eq!(
        said.out,
        "Nothing to free: neither the disk nor the store is too full.\n"
    );
    place.run(["inspect", "vm:v1"]).succeeded();
}

#[test]
fn what_is_published_goes_and_comes_back() {
    let place = calm(Place::with_registry());
    let taken = ["snapshot", "vm:v1", "vm", "--link-mode", "copy"];
    place.run(taken).succeeded();
    let said = place.run(ALL).succeeded();
    assert!(
        said.out.starts_with(
            "released vm:v1: 361.3 KiB in 3 blobs, used just now\n1 snapshot released:"
        ),
        "{}",
        said.out
    );
    assert_eq!(place.run(["list", "-q"]).succeeded().out, "");
    place.run(["restore", "vm:v1", "out"]).succeeded();
}

// `remove --remote vm:v1`, then gc: the copy here was the last by then, and was deleted as one that is published.
// Removing it there makes it an only copy here, which gc keeps, and push makes it one of two again.
#[test]
fn what_was_removed_from_the_registry_stays() {
    let place = calm(Place::with_registry());
    place.run(["snapshot", "vm:v1", "vm"]).succeeded();
    let state = || {
        let json = place.run(["list", "--json"]).succeeded().json();
        json["snapshots"][0]["state"].clone()
    };
    assert_eq!(state(), "published");
    place.run(["remove", "--remote", "vm:v1"]).succeeded();
    assert_eq!(state(), "unpublished");
    let said = place.run(ALL).succeeded();
    assert!(said.err.contains("1 only here (push them"), "{}", said.err);
    place.run(["restore", "vm:v1", "out"]).succeeded();
    place.run(["push", "vm:v1"]).succeeded();
    place.run(ALL).succeeded();
    assert_eq!(place.run(["list", "-q"]).succeeded().out, "");
}

#[test]
fn what_is_not_confirmed_to_be_elsewhere_stays_and_that_is_a_warning() {
    let place = calm(Place::with_registry());
    place.run(["snapshot", "vm:v1", "vm"]).succeeded();
    place
        .on("other", ["remove", "--remote", "vm:v1"])
        .succeeded();
    let more = ["--dry-run", "--json"];
    let args: Vec<_> = ALL.into_iter().chain(more).collect();
    let json = place.run(args).succeeded().json();
    assert_eq!(json["kept"]["unconfirmed"], 1);
    assert_eq!(json["kept"]["onlyCopies"], 0);
    assert_eq!(json["warnings"][0]["kind"], "kept");
    assert!(json["released"].as_array().unwrap().is_empty());
    place.run(["restore", "vm:v1", "out"]).succeeded();
}

#[test]
fn df_says_that_it_is_only_here_where_another_registry_is_configured() {
    let place = calm(Place::with_registry()).set("SNAPSHOTTER_GC_MIN_RETENTION_PERIOD", "0");
    place.run(["snapshot", "vm:v1", "vm"]).succeeded();
    let kept = |place: &Place| {
        let json = place.run(["df", "--json"]).succeeded().json();
        json["bySnapshot"][0]["kept"].clone()
    };
    assert!(kept(&place).is_null());
    let elsewhere = format!("oci-layout:{}", place.path("elsewhere").display());
    let place = place.set("SNAPSHOTTER_REGISTRY_ENDPOINT", elsewhere);
    assert_eq!(kept(&place), "only_copy");
}

#[test]
fn an_only_copy_stays_and_that_is_a_warning() {
    let place = calm(Place::with_snapshot());
    let said = place.run(ALL).succeeded();
    assert_eq!(said.out, "No snapshot released.\n");
    assert!(
        said.err.contains("361.3 KiB too much in the store")
            && said
                .err
                .contains("1 only here (push them, or --include-unpublished)"),
        "{}",
        said.err
    );
    let strict: Vec<_> = ALL.into_iter().chain(["--strict"]).collect();
    place.run(strict).exited(9);
    let included: Vec<_> = ALL.into_iter().chain(["--include-unpublished"]).collect();
    place.run(included).succeeded();
    place.assert_tidy();
}

#[test]
fn a_dry_run_says_it_in_json_and_does_nothing() {
    let place = calm(Place::with_snapshot());
    let more = ["--include-unpublished", "--dry-run", "--json"];
    let args: Vec<_> = ALL.into_iter().chain(more).collect();
    let json = place.run(args).succeeded().json();
    assert_eq!(json["dryRun"], true);
    assert_eq!(json["wanted"]["storeBytes"], 370_003);
    assert_eq!(json["released"][0]["reference"], "vm:v1");
    assert_eq!(json["released"][0]["bytes"], 370_003);
    assert_eq!(
        (&json["blobsReleased"], &json["releasedBytes"]),
        (&3.into(), &370_003.into())
    );
    assert!(json["freedBytes"].as_u64().unwrap() >= 370_003);
    assert_eq!(json["kept"]["onlyCopies"], 0);
    assert!(json["shortfall"].is_null());
    for field in ["sweptNames", "durationSeconds"] {
        assert!(json[field].is_number(), "{field}");
    }
    place.run(["inspect", "vm:v1"]).succeeded();
    let short: Vec<_> = ALL.into_iter().chain(["--json"]).collect();
    let json = place.run(short).succeeded().json();
    assert_eq!(json["shortfall"]["reason"], "nothing_left");
    assert_eq!(json["shortfall"]["storeBytes"], 370_003);
    assert_eq!(json["warnings"][0]["kind"], "gc_shortfall");
}

#[test]
fn settings_say_it_too_and_no_other_command_collects() {
    let place = calm(Place::with_registry())
        .set("SNAPSHOTTER_GC_MAX_BYTES", "0")
        .set("SNAPSHOTTER_GC_MIN_RETENTION_PERIOD", "0")
        .set("SNAPSHOTTER_GC_INTERVAL", "1ms");
    place.run(["snapshot", "vm:v1", "vm"]).succeeded();
    place.run(["verify"]).succeeded();
    assert_eq!(place.run(["list", "-q"]).succeeded().out, "vm:v1\n");
    place.run(["gc"]).succeeded();
    assert_eq!(place.run(["list", "-q"]).succeeded().out, "");
}

#[test]
fn watching_collects_until_a_signal_and_writes_metrics_that_others_can_read() {
    let place = calm(Place::with_registry()).set("SNAPSHOTTER_GC_INTERVAL", "1ms");
    place.run(["snapshot", "vm:v1", "vm"]).succeeded();
    let more = ["--watch", "--json", "--metrics-file", "gc.prom"];
    let mut child = place
        .command(ALL.into_iter().chain(more))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let json: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert_eq!(json["released"][0]["reference"], "vm:v1");
    // The metrics of the first look are written before the second is told.
    let _ = lines.next().unwrap().unwrap();
    let path = place.path("gc.prom");
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.contains("\nsnapshotter_evicted_snapshots_total 1\n"),
        "{text}"
    );
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::TERM).unwrap();
    drop(lines);
    assert_eq!(child.wait().unwrap().code(), Some(143));
    place.assert_tidy();
    let left: Vec<_> = fs::read_dir(place.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(".tmp"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The value of a metric, as node_exporter reads it.
fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|value| value.trim().parse().ok());
    value.unwrap_or_else(|| panic!("{name} in\n{text}"))
}

// Each command counted for itself, and forgot it when it ended: a node of commands had no metrics.
#[test]
fn commands_add_up_and_a_single_collection_writes_what_all_have_done() {
    let place = Place::new();
    place.run(["snapshot", "vm:v1", "vm"]).succeeded();
    place.run(["snapshot", "vm:v2", "vm"]).succeeded();
    place.run(["restore", "vm:v9", "none"]).exited(3);
    place.run(["pin", "vm:v1"]).succeeded();
    place.run(["prune", "vm", "--keep-last", "9"]).succeeded();
    place.run(["gc", "--metrics-file", "gc.prom"]).succeeded();
    let text = fs::read_to_string(place.path("gc.prom")).unwrap();
    for (name, value) in [
        (
            "snapshotter_operations_total{operation=\"snapshot\",outcome=\"ok\"}",
            2.0,
        ),
        (
            "snapshotter_operations_total{operation=\"gc\",outcome=\"ok\"}",
            1.0,
        ),
        (
            "snapshotter_failures_total{operation=\"restore\",kind=\"not_found\"}",
            1.0,
        ),
        ("snapshotter_snapshots ", 2.0),
        ("snapshotter_unpublished_snapshots", 2.0),
        ("snapshotter_pinned_snapshots", 1.0),
        ("snapshotter_damaged_objects", 0.0),
        ("snapshotter_packs", 0.0),
        ("snapshotter_gc_failing", 0.0),
    ] {
        assert_eq!(metric(&text, name), value, "{name}");
    }
    let last = "snapshotter_last_success_timestamp_seconds{operation=";
    assert!(metric(&text, &format!("{last}\"prune\"}}")) > 1.7e9);
    assert!(!text.contains(&format!("{last}\"restore\"}}")), "{text}");
    assert!(!text.contains("registry_last_seen"), "{text}");
}

#[test]
fn who_is_killed_has_counted_all_calls_that_ended() {
    let place = Place::new().set("SNAPSHOTTER_GC_INTERVAL", "1ms");
    place.run(["snapshot", "vm:v1", "vm"]).succeeded();
    let mut child = place
        .command(["gc", "--watch", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.take(3).filter(Result::is_ok).count(), 3);
    child.kill().unwrap();
    child.wait().unwrap();
    place.run(["gc", "--metrics-file", "gc.prom"]).succeeded();
    let text = fs::read_to_string(place.path("gc.prom")).unwrap();
    let collected = "snapshotter_operations_total{operation=\"gc\",outcome=\"ok\"}";
    assert!(metric(&text, collected) >= 4.0, "{text}");
}

// Of processes that add at once, none takes another's number back.
#[test]
fn commands_at_once_lose_no_count() {
    let place = Place::new();
    place.run(["snapshot", "vm:v1", "vm"]).succeeded();
    let restore = |version: usize| {
        let name = format!("vm:none{version}");
        let mut command = place.command(["restore", &name, "none"]);
        command.stderr(Stdio::null()).spawn().unwrap()
    };
    let children: Vec<_> = (0..24).map(restore).collect();
    for mut child in children {
        assert_eq!(child.wait().unwrap().code(), Some(3));
    }
    place.run(["gc", "--metrics-file", "gc.prom"]).succeeded();
    let text = fs::read_to_string(place.path("gc.prom")).unwrap();
    let failed = "snapshotter_failures_total{operation=\"restore\",kind=\"not_found\"}";
    assert_eq!(metric(&text, failed), 24.0);
}

#[test]
fn the_codes() {
    let place = Place::new();
    place.run(["gc"]).exited(3);
    place.run(["gc", "--max-bytes", "many"]).exited(2);
    place.run(["gc", "--retention", "1"]).exited(2);
    place
        .run(["gc", "--remote", "--metrics-file", "f"])
        .exited(2);
    place.run(["gc", "--watch", "--dry-run"]).exited(2);
    let nowhere = ["gc", "--watch", "--metrics-file", "not/there"];
    place.run(nowhere).exited(3);
}

#[test]
fn help() {
    assert_session!("help", Place::new().run(["gc", "--help"]).succeeded());
}

/// An object of nobody's goes by the second call, and what somebody needs does not.
#[test]
fn what_nothing_names_goes_from_the_place_of_contents() {
    let place = Place::with_registry();
    let collect = ["gc", "--remote", "--no-other-publishers", "--grace", "0"];
    place.run(["snapshot", "vm:v1", "vm"]).succeeded();
    let garbage = place.path("contents/xxh3/abc");
    let file = fs::File::create(&garbage).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    let refused = place.run(["gc", "--remote"]).exited(2);
    assert!(
        refused.err.contains("say --no-other-publishers"),
        "{}",
        refused.err
    );
    let dry = place.run(["gc", "--remote", "--dry-run", "--json"]);
    assert_eq!(dry.succeeded().json()["objects"], 4);
    let first = place.run(collect.into_iter().chain(["--json"])).succeeded();
    let first = first.json();
    assert_eq!(
        (&first["removed"], &first["candidates"]),
        (&0.into(), &1.into())
    );
    let waiting = ["gc", "--remote", "--no-other-publishers"];
    let waiting = place.run(waiting).succeeded();
    assert!(waiting.out.contains("too young"), "{}", waiting.out);
    let second = place.run(collect).succeeded();
    assert!(
        second.out.contains("1 object (0 B) removed"),
        "{}",
        second.out
    );
    assert!(!garbage.exists());
    // No store was made or opened for that.
    place.on("other", ["restore", "vm:v1", "out"]).succeeded();
    place.run(["gc", "--grace", "1h"]).exited(2);
    place.run(["gc", "--no-other-publishers"]).exited(2);
    place.run(["gc", "--remote", "--max-bytes", "0"]).exited(2);
}

//! Progress: a bar for a terminal, events for a program, nothing for a pipe.

use crate::support;

use std::process::Stdio;

use support::{Place, read_all, terminal};

/// What a command that succeeds draws on a terminal.
fn drawn(place: &Place, columns: u16, args: &[&str]) -> (String, String) {
    let (ours, theirs) = terminal(columns);
    let mut command = place.command(args);
    command
        .env("TERM", "xterm")
        .stdout(Stdio::piped())
        .stderr(theirs);
    let child = command.spawn().unwrap();
    drop(command);
    let drawn = read_all(ours);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{drawn}");
    (drawn, String::from_utf8(output.stdout).unwrap())
}

/// What stays on the terminal: what comes after its lines were cleared, but for going back to the first.
fn left(drawn: &str) -> &str {
    let last = drawn.rsplit("\x1b[2K").next().unwrap();
    last.strip_prefix("\x1b[1A").unwrap_or(last)
}

#[test]
fn a_terminal_gets_a_bar_that_is_gone_at_the_end() {
    let place = Place::new();
    for (args, title) in [
        (&["snapshot", "vm:v1", "vm"][..], "vm:v1 ["),
        (&["restore", "vm:v1", "out"], "vm:v1 ["),
        (&["verify"], "verify ["),
    ] {
        let (drawn, out) = drawn(&place, 100, args);
        assert!(
            drawn.contains(title) && drawn.contains(" of 361.3 KiB"),
            "{args:?}: {drawn:?}"
        );
        assert!(
            drawn.contains("/s, ") && drawn.contains(" left"),
            "{drawn:?}"
        );
        assert_eq!(left(&drawn), "", "something is left: {drawn:?}");
        assert!(!out.contains('\x1b') || out.contains("\x1b[1m"), "{out:?}");
    }
}

#[test]
fn no_terminal_is_wrapped() {
    let place = Place::new();
    for columns in [40, 80, 200] {
        let name = format!("a-name-that-is-rather-long-in-itself:v{columns}");
        let (drawn, _) = drawn(&place, columns, &["snapshot", &name, "vm"]);
        for line in drawn.split(['\r', '\n']) {
            let text = line.replace("\x1b[2K", "");
            let up = text.split("\x1b[").next().unwrap();
            assert!(up.chars().count() < columns.into(), "{line:?} in {drawn:?}");
        }
    }
}

/// The bar said nothing of what a call was at but the file that was done last: while a large file was read, some small one.
#[test]
fn the_second_line_says_what_the_call_is_at() {
    let place = Place::with_registry();
    for columns in [40, 80, 200] {
        let name = format!("vm:v{columns}");
        let (taken, _) = drawn(&place, columns, &["snapshot", &name, "vm"]);
        // How soon each file is done is a matter of time, and so which of them is drawn.
        let is_named = |file: &str| taken.contains(&format!("\nreading {file}"));
        let files = ["images/disk.img", "memory", "state.json"];
        assert!(files.into_iter().any(is_named), "{taken:?}");
        assert!(taken.contains("\nsending"), "{taken:?}");
        let other = format!("other{columns}");
        let args = ["--root", &other, "restore", &name, &name];
        let (restored, _) = drawn(&place, columns, &args);
        for at in ["fetching", "writing"] {
            assert!(restored.contains(&format!("\n{at}")), "{at}: {restored:?}");
        }
    }
}

#[test]
fn never_quiet_and_dumb_terminals_get_none() {
    let place = Place::with_snapshot();
    for extra in ["--progress=never", "-q"] {
        let (drawn, _) = drawn(&place, 100, &["restore", "vm:v1", "out", extra]);
        assert_eq!(drawn, "");
    }
    let (ours, theirs) = terminal(100);
    let mut command = place.command(["verify"]);
    let status = command
        .env("TERM", "dumb")
        .stderr(theirs)
        .stdout(Stdio::null())
        .status();
    drop(command);
    assert!(status.unwrap().success());
    assert_eq!(read_all(ours), "");
}

#[test]
fn a_pipe_gets_none_unless_it_is_asked_for() {
    let place = Place::with_snapshot();
    assert_eq!(place.run(["restore", "vm:v1", "out"]).succeeded().err, "");
    let said = place
        .run(["restore", "vm:v1", "out2", "--progress", "always"])
        .succeeded();
    assert!(said.err.contains("vm:v1 ["), "{said:#?}");
}

/// Taking and then publishing, fetching and then placing, sending and then reading back: what there is to do adds up.
#[test]
fn each_part_of_a_call_adds_to_what_is_planned() {
    let place = Place::with_registry();
    for (parts, args) in [
        (2, &["snapshot", "vm:v1", "vm"][..]),
        (2, &["push", "vm:v1", "--verify"]),
        (1, &["--root", "other", "pull", "vm:v1"]),
        (2, &["--root", "third", "restore", "vm:v1", "out"]),
    ] {
        let said = place
            .run(args.iter().chain(&["--progress", "json"]))
            .succeeded();
        let events: Vec<serde_json::Value> = said
            .err
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let bytes = |name: &str, field: &str| {
            let named = events.iter().filter(|event| event["event"] == name);
            named
                .map(|event| event[field].as_u64().unwrap())
                .collect::<Vec<_>>()
        };
        let planned = bytes("planned", "totalBytes");
        assert_eq!(planned.len(), parts, "{args:?} {events:?}");
        let grows = planned.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(grows && planned[0] > 0, "{args:?} {events:?}");
        let done = bytes("progressed", "doneBytes");
        let totals = bytes("progressed", "totalBytes");
        assert!(*done.last().unwrap() > 0, "{args:?} {events:?}");
        let within = done.iter().zip(totals).all(|(done, total)| *done <= total);
        assert!(within, "{args:?} {events:?}");
    }
}

#[test]
fn push_and_pull_have_a_bar() {
    let place = Place::with_published();
    for args in [
        &["--root", "other", "push", "vm:v1", "--verify"][..],
        &["pull", "vm:v1"],
    ] {
        let (drawn, _) = drawn(&place, 100, args);
        assert!(drawn.contains("vm:v1 ["), "{args:?}: {drawn:?}");
        assert_eq!(left(&drawn), "", "something is left: {drawn:?}");
    }
}

/// The files that a call says it began with, each once.
fn started(events: &str) -> Vec<String> {
    let events = events
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let began = |event: serde_json::Value| {
        let is_start = event["event"] == "fileStarted" && event["bytes"].is_u64();
        is_start.then(|| event["relativePath"].as_str().unwrap().to_owned())
    };
    let began: std::collections::BTreeSet<String> = events.filter_map(began).collect();
    began.into_iter().collect()
}

#[test]
fn events_are_an_object_a_line() {
    let place = Place::new();
    let said = place
        .run([
            "snapshot",
            "vm:v1",
            "vm",
            "--progress",
            "json",
            "--link-mode",
            "copy",
        ])
        .succeeded();
    let events: Vec<serde_json::Value> = said
        .err
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let named = |name: &str| {
        events
            .iter()
            .filter(|event| event["event"] == name)
            .collect::<Vec<_>>()
    };
    assert_eq!(events[0]["event"], "planned");
    assert_eq!(events[0]["files"], 3);
    assert!(events[0]["totalBytes"].as_u64().unwrap() >= 370_003);
    assert_eq!(named("progressed").last().unwrap()["doneBytes"], 370_003);
    let mut paths: Vec<_> = named("fileFinished")
        .iter()
        .map(|event| event["relativePath"].as_str().unwrap())
        .collect();
    paths.sort_unstable();
    assert_eq!(paths, ["images/disk.img", "memory", "state.json"]);
    assert_eq!(events[0]["phase"], "read");
    assert_eq!(started(&said.err), paths);
    for args in [
        &[
            "snapshot", "vm:v2", "vm", "--format", "v2", "--parent", "none",
        ][..],
        &["restore", "vm:v1", "files"],
        &["restore", "vm:v2", "pages"],
    ] {
        let said = place.run(args.iter().chain(&["--progress", "json"]));
        assert_eq!(started(&said.succeeded().err), paths, "{args:?}");
    }
    assert_eq!(named("fileFinished")[0]["placement"], "copy");
    assert_eq!(events.last().unwrap()["event"], "syncing");
}

//! `snapshotter prune`.

use crate::support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use support::Place;

const CREATED: &str = "org.opencontainers.image.created";

/// With `vm:v1` to `vm:v3`, one a day, and `other:v1`.
fn with_versions(place: Place) -> Place {
    for day in 1..=3 {
        place.write("vm/state.json", format!("{day}").as_bytes());
        let (version, time) = (
            format!("vm:v{day}"),
            format!("{CREATED}=2026-03-0{day}T00:00:00Z"),
        );
        place
            .run(["snapshot", &version, "vm", "--annotation", &time])
            .succeeded();
    }
    place.run(["snapshot", "other:v1", "vm"]).succeeded();
    place
}

fn versions(place: &Place) -> Vec<String> {
    let out = place.run(["list", "-q"]).succeeded().out;
    let mut versions: Vec<_> = out.lines().map(str::to_owned).collect();
    versions.sort();
    versions
}

#[test]
fn what_is_kept_is_shown_with_its_reasons_and_the_rest_goes() {
    let place = with_versions(Place::new());
    let prune = ["prune", "vm", "--keep-last", "1", "--keep-version", "*1"];
    let planned: Vec<_> = prune
        .into_iter()
        .chain(["--include-unpublished", "--dry-run"])
        .collect();
    assert_session!("dry_run", place.run(&planned).succeeded());
    assert_eq!(versions(&place).len(), 4);
    let said = place.run(prune).succeeded();
    assert!(
        said.out.contains("vm:v2") && said.out.contains("only here"),
        "{said:#?}"
    );
    assert_eq!(versions(&place).len(), 4);
    let included: Vec<_> = prune
        .into_iter()
        .chain(["--include-unpublished", "--json"])
        .collect();
    assert_session!("json", place.run(included).succeeded());
    assert_eq!(versions(&place), ["other:v1", "vm:v1", "vm:v3"]);
    let said = place
        .run(["forget", "--all", "--keep-last=-1", "nothing"])
        .exited(2);
    assert!(said.err.contains("--all"), "{said:#?}");
    let said = place.run(["forget", "nothing*", "--keep-last", "unlimited"]);
    assert_eq!(
        said.succeeded().out,
        "No snapshot matches nothing*.\n0 snapshots removed, 0 kept; 0 B freed\n"
    );
}

#[test]
fn what_says_not_what_to_keep_is_refused() {
    let place = Place::with_snapshot();
    for wrong in [
        &["prune", "vm"][..],
        &["prune", "--keep-last", "1"],
        &["prune", "vm", "--keep-last", "0"],
        &["prune", "vm", "--keep-last", "few"],
        &["prune", "vm", "--keep-within", "long"],
        &["prune", "vm", "--keep-version", "["],
        &["prune", "[", "--keep-last", "1"],
    ] {
        place.run(wrong).exited(2);
    }
    assert_eq!(versions(&place).len(), 1);
    Place::new()
        .run(["prune", "vm", "--keep-last", "1"])
        .exited(3);
    place
        .run(["prune", "vm", "--keep-last", "1", "--remote"])
        .exited(2);
}

#[test]
fn the_registry_is_pruned_and_what_is_here_stays() {
    let place = with_versions(Place::with_registry());
    let prune = ["prune", "--remote", "vm", "--keep-daily", "2"];
    let said = place.run(prune).succeeded();
    assert!(
        said.out.contains("removed vm:v1, taken")
            && said.out.ends_with("1 snapshot removed, 2 kept\n"),
        "{said:#?}"
    );
    let there = place.run(["list", "--remote", "-q", "vm"]).succeeded().out;
    assert_eq!(there, "vm:v2\nvm:v3\n");
    assert_eq!(versions(&place).len(), 4);
    // It says no time.
    let prune = ["prune", "--remote", "other", "--keep-last", "1", "--json"];
    let json = place.run(prune).succeeded().json();
    assert_eq!(json["undated"], 1);
    assert_eq!(json["kept"][0]["reasons"][0], "undated");
    assert_eq!(
        place
            .run(["prune", "--remote", "nothing", "--keep-last", "1"])
            .exited(3)
            .out,
        ""
    );
}

#[test]
fn watching_prunes_as_the_settings_say_and_tells_so() {
    let place = with_versions(Place::new());
    let rules = "gc.interval = \"1s\"\n[[prune.rule]]\nnames = [\"vm\"]\nkeep_last = 1\ninclude_unpublished = true\n";
    place.write("c.toml", rules.as_bytes());
    let shown = place.run(["config", "--config", "c.toml"]).succeeded().out;
    assert!(shown.contains("{ names = [\"vm\"], keep_last = 1, include_unpublished = true }"));
    // Once, and nothing goes by the rules.
    let json = place
        .run(["gc", "--config", "c.toml", "--json"])
        .succeeded();
    assert_eq!(json.json()["pruned"].as_array().unwrap().len(), 0);
    assert_eq!(versions(&place).len(), 4);
    let mut child = place
        .command(["gc", "--watch", "--json", "--config", "c.toml"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    let json: serde_json::Value = serde_json::from_str(&line).unwrap();
    let pruned = json["pruned"].as_array().unwrap();
    assert_eq!(pruned.len(), 2, "{line}");
    assert_eq!(pruned[0]["reference"], "vm:v2");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(versions(&place), ["other:v1", "vm:v3"]);
}

#[test]
fn a_rule_that_is_wrong_is_named_with_its_line() {
    let place = Place::new();
    for (text, line, what) in [
        (
            "[[prune.rule]]\nnames = [\"vm\"]\nkeep_first = 1\n",
            3,
            "keep_first",
        ),
        (
            "[[prune.rule]]\nnames = [\"vm\"]\nkeep_last = -5\n",
            3,
            "keep_last",
        ),
        ("\n[[prune.rule]]\nkeep_last = 1\n", 2, "names"),
        ("[prune]\nrule = 7\n", 2, "prune.rule"),
    ] {
        fs::write(place.path("c.toml"), text).unwrap();
        let said = place.run(["config", "--config", "c.toml"]).exited(2);
        let begin = format!("error: c.toml:{line}: ");
        assert!(
            said.err.starts_with(&begin) && said.err.contains(what),
            "{said:#?}"
        );
    }
}

#[test]
fn help() {
    assert_session!("help", Place::new().run(["prune", "--help"]).succeeded());
}

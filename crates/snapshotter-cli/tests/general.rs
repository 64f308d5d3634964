//! What all commands share: `--help`, `--version`, colours, quietness, closed pipes, a full output.

use crate::support;

use std::fs::File;
use std::process::Stdio;

use support::Place;
use testkit::weather::{Reply, Weather};

#[test]
fn help_has_an_example_and_the_exit_codes() {
    let place = Place::new();
    assert_session!("help", place.run(["--help"]).succeeded());
    assert_session!("help_short", place.run(["-h"]).succeeded());
    assert_session!("nothing", place.run::<&str>([]).exited(2));
}

/// Two thirds of each command's help were the options that all of them have.
#[test]
fn global_options_are_on_one_page() {
    let place = Place::new();
    for arg in ["-h", "--help"] {
        let all = place.run([arg]).succeeded().out;
        let one = place.run(["list", arg]).succeeded().out;
        assert!(all.contains("--limit-upload <BYTES>"), "{all}");
        assert!(!one.contains("--limit-upload <BYTES>"), "{one}");
        assert!(
            one.ends_with(
                "`snapshotter --help` has the global options, such as --root, --json, -q and -v.\n"
            ),
            "{one}"
        );
    }
    let said = place.run(["list", "--limit-uplod", "1"]).exited(2);
    assert!(said.err.contains("'--limit-upload'"), "{said:#?}");
}

#[test]
fn help_and_version_are_commands_too() {
    let place = Place::new();
    for (asked, known) in [
        (&["help"][..], &["--help"][..]),
        (&["help", "list"], &["list", "--help"]),
        (&["version"], &["--version"]),
    ] {
        let said = place.run(asked).succeeded();
        assert_eq!(said.out, place.run(known).succeeded().out);
    }
    place.run(["help", "nothing"]).exited(2);
}

/// A page began with all options by the alphabet and ended with what is always given; each page had the global options.
#[test]
fn manual_pages_have_the_usage_and_global_options_once() {
    let place = Place::new();
    std::fs::create_dir(place.path("man")).unwrap();
    place.run(["man", "man"]).succeeded();
    let page = |name: &str| {
        let text = std::fs::read_to_string(place.path(name)).unwrap();
        text.replace("\\fR", "")
            .replace("\\fB", "")
            .replace("\\-", "-")
    };
    let list = page("man/snapshotter-list.1");
    assert!(
        list.contains("\n.SH SYNOPSIS\nsnapshotter list [OPTIONS] [GLOB]\n"),
        "{list}"
    );
    assert!(!list.contains("GLOBAL OPTIONS"), "{list}");
    let all = page("man/snapshotter.1");
    assert!(
        all.contains("\n.SH SYNOPSIS\nsnapshotter [OPTIONS] <COMMAND>\n"),
        "{all}"
    );
    assert!(all.contains("\n.SH \"GLOBAL OPTIONS\"\n"), "{all}");
}

#[test]
fn each_command_has_examples() {
    let place = Place::new();
    for verb in [
        "snapshot",
        "restore",
        "push",
        "pull",
        "list",
        "inspect",
        "diff",
        "convert",
        "remove",
        "verify",
        "df",
        "config",
        "doctor",
        "completions",
    ] {
        let said = place.run([verb, "--help"]).succeeded();
        assert!(
            said.out.contains("\nExamples:\n  snapshotter") || verb == "completions",
            "{said:#?}"
        );
        assert!(said.out.contains("Examples:"), "{said:#?}");
    }
}

#[test]
fn version() {
    let said = Place::new().run(["--version"]).succeeded();
    assert_eq!(
        said.out,
        format!("snapshotter {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn a_pipe_gets_no_colour_unless_it_is_asked_for() {
    let place = Place::with_snapshot();
    assert!(!place.run(["list"]).succeeded().out.contains('\x1b'));
    assert!(
        place
            .run(["list", "--color", "always"])
            .succeeded()
            .out
            .contains('\x1b')
    );
    assert!(!place.run(["nothing"]).exited(2).err.contains('\x1b'));
    assert!(
        place
            .run(["--color=always", "inspect", "vm"])
            .exited(2)
            .err
            .contains('\x1b')
    );
}

#[test]
fn names_do_nothing_to_a_terminal() {
    let place = Place::new();
    place.write("vm/\x1b[31mred", b"");
    place.run(["snapshot", "vm:v1", "vm"]).succeeded();
    let said = place.run(["inspect", "vm:v1"]).succeeded();
    assert!(
        said.out.contains(r"\u{1b}[31mred") && !said.out.contains('\x1b'),
        "{said:#?}"
    );
    let said = place.run(["restore", "vm:v1", "out", "\x1b[31m"]).exited(3);
    assert!(!said.err.contains('\x1b'), "{said:#?}");
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let place = Place::with_snapshot();
    for args in [
        &["list"][..],
        &["inspect", "vm:v1", "--json"],
        &["completions", "bash"],
        &["--help"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let said = place
            .command(args)
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(said.status.code(), Some(0), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&said.stderr), "", "{args:?}");
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let said = place
        .command(["inspect", "vm"])
        .stderr(writer)
        .output()
        .unwrap();
    assert_eq!(said.status.code(), Some(2));
}

#[test]
fn a_result_that_cannot_be_written_is_an_error() {
    let place = Place::with_snapshot();
    for extra in [&[][..], &["--json"]] {
        let full = File::create("/dev/full").unwrap();
        let mut command = place.command(["list"].iter().chain(extra));
        let said = command
            .stdout(full)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(said.status.code(), Some(1));
    }
}

#[test]
fn logging_is_on_stderr_and_only_where_asked_for() {
    let place = Place::new();
    testkit::Tree::new()
        .fifo("pipe")
        .write_to(&place.path("vm"))
        .unwrap();
    let said = place
        .run([
            "snapshot",
            "vm:v1",
            "vm",
            "-vv",
            "--log-format",
            "json",
            "--json",
        ])
        .succeeded();
    said.json();
    for line in said.err.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["level"].is_string());
    }
    assert!(!said.err.is_empty());
    assert_eq!(
        place
            .run(["snapshot", "vm:v2", "vm", "--json"])
            .succeeded()
            .err,
        ""
    );
}

#[test]
fn quiet_and_verbose_exclude_each_other() {
    Place::new().run(["list", "-q", "-v"]).exited(2);
}

#[test]
fn a_deadline_ends_a_command_that_waits_for_a_silent_server() {
    ends_in_time(Reply::Silence);
}

#[test]
fn a_deadline_ends_a_command_that_a_server_asks_to_come_back_later() {
    ends_in_time(Reply::status(503).with("Retry-After", "3600"));
}

fn ends_in_time(reply: Reply) {
    let server = Weather::new(move |_, _| reply.clone());
    let place = Place::with_snapshot()
        .set("SNAPSHOTTER_REGISTRY_ENDPOINT", server.url())
        .set("SNAPSHOTTER_CONTENT_PROVIDER", "registry");
    for args in [
        &["list", "--remote", "vm"][..],
        &["push", "vm:v1"],
        &["pull", "vm:v2"],
        &["snapshot", "vm:v2", "vm"],
    ] {
        let said = place
            .run(args.iter().chain(&["--timeout", "200ms"]))
            .exited(6);
        let expected = "error: no result within 200ms\n   hint: the call was given up and has cleaned up after itself; \
                        --timeout says how long it may take\n";
        // That the server asked to wait is said before.
        assert!(said.err.ends_with(expected), "{args:?}: {said:#?}");
    }
    let said = place
        .run(["pull", "vm:v2", "--timeout", "200ms", "--json"])
        .exited(6);
    assert_eq!(said.json()["error"]["kind"], "unavailable");
    assert_eq!(place.run(["list", "-q"]).succeeded().out, "vm:v1\n");
    place.assert_tidy();
}

#[test]
fn a_deadline_that_is_not_reached_changes_nothing() {
    let place = Place::new();
    place
        .run(["snapshot", "vm:v1", "vm", "--timeout", "1h30m"])
        .succeeded();
    for wrong in ["0", "5", "soon", "-1s"] {
        place.run(["list", &format!("--timeout={wrong}")]).exited(2);
    }
}

#[test]
fn manual_pages_are_written_for_each_command() {
    let place = Place::new();
    std::fs::create_dir(place.path("man")).unwrap();
    place.run(["man", "man"]).succeeded();
    let mut names: Vec<_> = std::fs::read_dir(place.path("man"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), 26, "{names:?}");
    let page = std::fs::read_to_string(place.path("man/snapshotter.1")).unwrap();
    assert!(
        page.contains("stopped by SIGTERM") && page.contains("snapshotter restore vm:v1"),
        "{page}"
    );
    place.run(["man", "nowhere"]).exited(3);
}

/// Programs took references apart themselves, and each did it in another way at `@` and at ports.
#[test]
fn whatever_names_a_snapshot_says_its_name_and_version_too() {
    let place = support::Place::with_snapshot();
    place.write("vm/state.json", b"{}");
    let lines = [
        "snapshot vm:v2 vm",
        "snapshot vm:v3 vm --dry-run",
        "list",
        "inspect vm:v1",
        "restore vm:v1 out",
        "restore vm:v1 out --dry-run",
        "diff vm:v1 vm:v2",
        "diff vm:v1 vm",
        "convert vm:v1 vm:paged --format v2",
        "tag vm:v1 vm:latest",
        "df",
        "pin vm:v1",
        "prune vm --keep-last 1 --dry-run",
        "remove vm:v2 --dry-run",
        "restore vm:none out",
        "remove vm:v1 vm:v2",
    ];
    for line in lines {
        let said = place.run(line.split(' ').chain(["--json"]));
        assert!(named(&said.json(), line) > 0, "{line}: {said:?}");
    }
}

/// How many objects name a snapshot.
fn named(value: &serde_json::Value, line: &str) -> usize {
    use serde_json::Value::{Array, Object};
    match value {
        Array(all) => all.iter().map(|one| named(one, line)).sum(),
        Object(fields) => {
            let below: usize = fields.values().map(|one| named(one, line)).sum();
            let Some(reference) = fields.get("reference") else {
                return below;
            };
            let reference = reference.as_str().unwrap();
            let whole = reference
                .split_once('@')
                .map_or(reference, |(whole, _)| whole);
            let parts = [&fields["name"], &fields["version"]].map(|part| part.as_str().unwrap());
            assert_eq!(parts.join(":"), whole, "{line}");
            below + 1
        }
        _ => 0,
    }
}

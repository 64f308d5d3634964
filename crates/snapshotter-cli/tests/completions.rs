//! `snapshotter completions`: the scripts are not only printed, shells load them and TAB is pressed.

use crate::support;

use std::io::{Read, Write};
use std::path::Path;

use support::{Place, read_all, terminal};

/// A place with snapshots and a script; none, which is told of, if the shell is not here.
fn place_for(shell: &str) -> Option<Place> {
    let place = Place::with_snapshot();
    if let Err(error) = place.program(shell, ["--version"]).output() {
        testkit::mount::report_skip(format!("{shell} is not here: {error}"));
        return None;
    }
    for name in ["sandboxes/a:v1", "sandboxes/b:v1"] {
        place.run(["snapshot", name, "vm", "memory"]).succeeded();
    }
    let printed = place.run(["completions", shell]).succeeded().out;
    place.write("script", printed.as_bytes());
    Some(place)
}

/// What a shell on a terminal has on its line when these keys have been pressed. `^T` is bound to saying that.
fn line(place: &Place, shell: &[&str], keys: &str) -> String {
    let (mut ours, theirs) = terminal(200);
    let built = Path::new(env!("CARGO_BIN_EXE_snapshotter")).parent();
    let path = std::env::var("PATH").unwrap();
    let mut command = place.program(shell[0], &shell[1..]);
    command
        .env("PATH", format!("{}:{path}", built.unwrap().display()))
        .env("ZDOTDIR", place.path(""))
        .env("TERM", "xterm")
        .stdin(theirs.try_clone().unwrap())
        .stdout(theirs.try_clone().unwrap())
        .stderr(theirs);
    let mut child = command.spawn().unwrap();
    drop(command);
    let (mut shown, mut byte) = (Vec::new(), [0]);
    while !shown.ends_with(b"READY> ") {
        ours.read_exact(&mut byte).unwrap();
        shown.extend(byte);
    }
    ours.write_all(format!("{keys}\x14\r").as_bytes()).unwrap();
    let drawn = read_all(ours);
    assert!(child.wait().unwrap().success(), "{drawn}");
    let line = std::fs::read_to_string(place.path("line"));
    line.unwrap_or_else(|error| panic!("{error}: {drawn}"))
}

/// `vm:<TAB>` inserted `-`: names, versions and paths were not known, and bash takes what follows a colon for a word of its own.
fn completes(place: &Place, shell: &[&str]) {
    for (keys, completed) in [
        ("rest\t", "restore "),
        ("restore --link-m\t", "restore --link-mode "),
        ("restore --ro\t", "restore --root "),
        ("restore v\t", "restore vm:v1 "),
        ("restore vm:\t", "restore vm:v1 "),
        ("restore s\t", "restore sandboxes/"),
        ("restore sandboxes/b:\t", "restore sandboxes/b:v1 "),
        ("diff vm:v1 sandboxes/a\t", "diff vm:v1 sandboxes/a:v1 "),
        ("remove vm:v1 sandboxes/a\t", "remove vm:v1 sandboxes/a:v1 "),
        ("list sandboxes/a\t", "list sandboxes/a "),
        ("cat vm:v1 im\t", "cat vm:v1 images/"),
        ("cat vm:v1 images/\t", "cat vm:v1 images/disk.img "),
        ("restore vm:v1 vm/im\t", "restore vm:v1 vm/images/"),
        ("inspect --root=root vm:\t", "inspect --root=root vm:v1 "),
        ("inspect --root=nowhere vm:\t", "inspect --root=nowhere vm:"),
        ("inspect nothing:\t", "inspect nothing:"),
    ] {
        let line = line(place, shell, &format!("snapshotter {keys}"));
        assert_eq!(line, format!("snapshotter {completed}"), "{keys:?}");
    }
}

#[test]
fn bash_completes_what_is_typed() {
    let Some(place) = place_for("bash") else {
        return;
    };
    let rc = "PS1='READY> '; source ./script; bind -x '\"\\C-t\": finish'\n\
              finish() { printf %s \"$READLINE_LINE\" >line; READLINE_LINE=exit; }\n";
    place.write("rc", rc.as_bytes());
    completes(&place, &["bash", "--rcfile", "rc", "-i"]);
}

#[test]
fn zsh_completes_what_is_typed() {
    let Some(place) = place_for("zsh") else {
        return;
    };
    let rc = "PS1='READY> '; autoload -Uz compinit; compinit -u -d ./dump; source ./script; zle -N finish; bindkey '^T' finish\n\
              finish() { print -rn -- \"$BUFFER\" >line; BUFFER=exit }\n";
    place.write(".zshrc", rc.as_bytes());
    completes(&place, &["zsh", "-d", "-i"]);
}

#[test]
fn fish_completes_what_is_typed() {
    let Some(place) = place_for("fish") else {
        return;
    };
    let built = Path::new(env!("CARGO_BIN_EXE_snapshotter")).parent();
    let path = built.unwrap().display();
    for (typed, candidates) in [
        ("restore vm:", "vm:v1\n"),
        ("restore s", "sandboxes/a:\nsandboxes/b:\n"),
        ("cat vm:v1 images/", "images/disk.img\n"),
        ("restore --root nowhere vm:", ""),
    ] {
        let script =
            format!("set -p PATH {path}; source script; complete -C 'snapshotter {typed}'");
        let mut shell = place.program("fish", ["--no-config", "-c", &script]);
        let output = shell.output().unwrap();
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.stderr.is_empty(), "{output:?}");
        assert_eq!(out, candidates, "{typed}");
    }
}

/// A TAB waits half a second for a catalog that somebody keeps locked, and not until it is free.
#[test]
fn a_locked_store_completes_to_nothing() {
    let place = Place::with_snapshot();
    let catalog = rusqlite::Connection::open(place.path("root/metadata/catalog.db")).unwrap();
    let lock = "PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE";
    catalog.execute_batch(lock).unwrap();
    let words = ["complete", "--", "snapshotter", "restore", "vm:"];
    let said = place.run(words).succeeded();
    assert_eq!((said.out.as_str(), said.err.as_str()), ("", ""));
    drop(catalog);
    assert_eq!(place.run(words).succeeded().out, "vm:v1\n");
}

/// Whoever is typing has not asked for errors, nor for a store to be made.
#[test]
fn what_is_wrong_completes_to_nothing() {
    let place = Place::with_snapshot();
    place.write("broken.toml", b"[[[");
    std::fs::create_dir_all(place.path("root2/metadata")).unwrap();
    for line in [
        "--config broken.toml restore vm:",
        "--config nowhere.toml restore vm:",
        "--root nowhere restore vm:",
        "--root root2 restore vm:",
        "cat nonsense m",
        "cat vm:v9 m",
    ] {
        let words = line.split(' ');
        let said = place
            .run(["complete", "--", "snapshotter"].into_iter().chain(words))
            .succeeded();
        assert_eq!((said.out.as_str(), said.err.as_str()), ("", ""), "{line}");
    }
    assert!(!place.path("nowhere").exists());
    assert_eq!(place.run(["complete", "--"]).succeeded().out, "");
}

#[test]
fn other_shells_have_one_too() {
    let place = Place::new();
    for shell in ["elvish", "powershell"] {
        assert!(
            place
                .run(["completions", shell])
                .succeeded()
                .out
                .contains("snapshotter")
        );
    }
    place.run(["completions", "csh"]).exited(2);
    place.run(["completions"]).exited(2);
}

#[test]
fn help() {
    assert_session!(
        "help",
        Place::new().run(["completions", "--help"]).succeeded()
    );
}

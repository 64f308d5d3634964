//! The command where the system gives it few threads, or none besides its own.

use crate::support;

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use support::{Place, Said};
use testkit::registry::{Kind, RegistryServer, or_skip};

/// Nobody else, whichever process or thread a test is: the limit counts all that a user runs.
fn somebody() -> u32 {
    thread_local! {
        static SOMEBODY: u32 = {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            1_000_000 + 100 * std::process::id() + NEXT.fetch_add(1, Ordering::Relaxed)
        };
    }
    SOMEBODY.with(|somebody| *somebody)
}

/// Runs the command as somebody who may have so many threads.
fn run(place: &Place, threads: u32, root: &str, args: &[&str]) -> Said {
    let args = args.iter().chain(&["--json", "--progress", "always"]);
    let command = place.command(args);
    let mut limited = Command::new("prlimit");
    limited
        .arg(format!("--nproc={threads}"))
        .arg(place.path("snapshotter"))
        .args(command.get_args())
        .current_dir(place.path(""))
        .env_clear();
    for (name, value) in command.get_envs() {
        limited.env(name, value.unwrap());
    }
    limited.env("SNAPSHOTTER_ROOT_DIR", root);
    limited.uid(somebody()).gid(somebody());
    place.said(&mut limited)
}

fn give(path: &Path) {
    chown(path, Some(somebody()), Some(somebody())).unwrap();
    for entry in fs::read_dir(path).into_iter().flatten() {
        let entry = entry.unwrap();
        if !entry.file_type().unwrap().is_symlink() {
            give(&entry.path());
        }
    }
}

/// With so many threads each command works, or says that there are too few and how to have more.
fn works_or_says_why(place: &Place, threads: u32) -> bool {
    let reference = &*format!("vm:v{threads}");
    let (node, other) = (&*format!("node-{threads}"), &*format!("other-{threads}"));
    let output = &*format!("out-{threads}");
    let commands: [(&str, &[&str]); 6] = [
        (node, &["snapshot", reference, "vm"]),
        (node, &["verify", "--repair"]),
        (other, &["restore", "vm:golden", output]),
        (other, &["pull", "vm:golden"]),
        (node, &["list", "--remote"]),
        (node, &["gc"]),
    ];
    let mut all = true;
    for (root, args) in commands {
        let said = run(place, threads, root, args);
        if said.code == Some(0) {
            continue;
        }
        all = false;
        let json = said.json();
        let kind = json["error"]["kind"].as_str().unwrap_or_default();
        // Of what was asked of a store that could not be made there is nothing to say.
        let expected = ["busy", "unavailable", "not_found"].contains(&kind);
        assert!(expected, "{threads} threads: {said:#?}");
        assert!(
            json["error"]["hint"].is_string(),
            "{threads} threads: {said:#?}"
        );
        assert!(
            !said.err.contains("panicked"),
            "{threads} threads: {said:#?}"
        );
    }
    all
}

/// Where no thread was to be had for a call, for the network or for looking up a name, the command panicked (101); and where
/// there was one for each of some and none for the rest, it waited for ever for one that was never to end.
fn every_number_of_threads_is_enough_or_too_few(place: &Place) {
    let copy = place.path("snapshotter");
    fs::copy(env!("CARGO_BIN_EXE_snapshotter"), &copy).unwrap();
    place.chmod("snapshotter", 0o755);
    let golden = ["snapshot", "vm:golden", "vm", "--link-mode", "copy"];
    place.on("first", golden).succeeded();
    give(&place.path(""));
    let works: Vec<bool> = (1..16)
        .map(|threads| works_or_says_why(place, threads))
        .collect();
    assert!(!works[0] && works[14], "{works:?}");
}

#[test]
fn directories() {
    let Some(place) = as_root(Place::with_registry()) else {
        return;
    };
    every_number_of_threads_is_enough_or_too_few(&place);
}

#[test]
fn servers() {
    let Some(place) = as_root(Place::with_registry()) else {
        return;
    };
    let Some(registry) = or_skip(RegistryServer::start(Kind::default())) else {
        return;
    };
    let place = place
        // A name, which has to be looked up.
        .set(
            "SNAPSHOTTER_REGISTRY_ENDPOINT",
            registry.url().replace("127.0.0.1", "localhost"),
        )
        .set("SNAPSHOTTER_REGISTRY_RETRIES", "0")
        .set("SNAPSHOTTER_CONTENT_PROVIDER", "registry")
        .unset("SNAPSHOTTER_CONTENT_ROOT");
    every_number_of_threads_is_enough_or_too_few(&place);
}

fn as_root(place: Place) -> Option<Place> {
    if rustix::process::geteuid().is_root() {
        return Some(place);
    }
    testkit::mount::report_skip("to be somebody else takes root");
    None
}

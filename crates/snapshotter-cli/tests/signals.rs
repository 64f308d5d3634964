//! SIGINT and SIGTERM in the middle of each verb: the exit code says which, and nothing half done is left.
//!
//! Timing decides nothing here. The command is given a stderr that takes no more bytes and told to write events there,
//! so one of its threads stops inside `write`, in the middle of the work, with the lock on the events. The signal is sent
//! then. The main thread gives the work up when it notices, and waits for that lock: which system call it is in shows it.
//! Only then is the pipe emptied.

use crate::support;

use std::fs;
use std::io::{PipeReader, Read};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use support::Place;

/// System calls as `/proc/PID/task/TID/syscall` has them.
#[cfg(target_arch = "x86_64")]
const WRITE: &str = "1";
#[cfg(target_arch = "x86_64")]
const FUTEX: &str = "202";
#[cfg(not(target_arch = "x86_64"))]
const WRITE: &str = "64";
#[cfg(not(target_arch = "x86_64"))]
const FUTEX: &str = "98";

/// A command that is stuck writing to its stderr.
struct Stuck {
    child: Child,
    stderr: PipeReader,
}

impl Stuck {
    fn start(mut command: Command) -> Self {
        let (stderr, writer) = std::io::pipe().unwrap();
        let flags = fcntl_getfl(&writer).unwrap();
        fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
        while rustix::io::write(&writer, &[b'\n'; 512]).is_ok() {}
        while rustix::io::write(&writer, b"\n").is_ok() {}
        fcntl_setfl(&writer, flags).unwrap();
        let child = command
            .stderr(writer)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        drop(command);
        let stuck = Self { child, stderr };
        stuck.wait_until(|stuck| stuck.threads().iter().any(|call| is_write_to_stderr(call)));
        stuck
    }

    /// The system call each thread is in.
    fn threads(&self) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let tasks = tasks.into_iter().flatten().flatten();
        tasks
            .filter_map(|task| fs::read_to_string(task.path().join("syscall")).ok())
            .collect()
    }

    /// The system call the main thread is in.
    fn main_thread(&self) -> String {
        let id = self.child.id();
        fs::read_to_string(format!("/proc/{id}/task/{id}/syscall")).unwrap_or_default()
    }

    fn wait_until(&self, condition: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !condition(self) {
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "{:?}",
                self.threads()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends a signal and waits until the main thread has noticed. Where that thread itself is the one that writes, it
    /// notices when it can go on.
    fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.wait_until(|stuck| {
            let call = stuck.main_thread();
            call.starts_with(&format!("{FUTEX} ")) || is_write_to_stderr(&call)
        });
    }

    /// Interrupts it, lets it write, and returns its exit code and what it wrote.
    fn interrupt(mut self, signal: Signal) -> (Option<i32>, String, String) {
        self.send(signal);
        let mut err = String::new();
        self.stderr.read_to_string(&mut err).unwrap();
        let output = self.child.wait_with_output().unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), out, err.trim_start().to_owned())
    }
}

fn is_write_to_stderr(call: &str) -> bool {
    call.starts_with(&format!("{WRITE} 0x2 "))
}

/// Files that take a while to read.
fn large() -> Place {
    let place = Place::new();
    fill(&place);
    place
}

fn large_with_registry() -> Place {
    let place = Place::with_registry();
    fill(&place);
    place
}

fn fill(place: &Place) {
    for name in ["a", "b", "c", "d"] {
        let bytes: Vec<u8> = (0..16u32 << 20)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        place.write(&format!("vm/{name}"), &[name.as_bytes(), &bytes].concat());
    }
}

fn events(place: &Place, args: &[&str]) -> Stuck {
    Stuck::start(place.command(args.iter().chain(&["--progress", "json"])))
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default()
}

#[test]
fn a_snapshot_leaves_nothing() {
    for (signal, name, code) in [(Signal::INT, "SIGINT", 130), (Signal::TERM, "SIGTERM", 143)] {
        let place = large();
        let (ended, out, err) = events(&place, &["snapshot", "vm:v1", "vm"]).interrupt(signal);
        assert_eq!((ended, out.as_str()), (Some(code), ""), "{err}");
        assert_eq!(last_line(&err), format!("error: stopped by {name}"));
        assert_eq!(place.run(["list", "-q"]).succeeded().out, "");
        place.assert_tidy();
        let content = place.blobs();
        assert!(content.is_empty(), "{content:?}");
        place.run(["snapshot", "vm:v1", "vm"]).succeeded();
    }
}

#[test]
fn a_restore_leaves_whole_files_alone() {
    let place = large();
    place
        .run(["snapshot", "vm:v1", "vm", "--link-mode", "copy"])
        .succeeded();
    let args = ["restore", "vm:v1", "out", "--link-mode", "copy"];
    let (ended, _, err) = events(&place, &args).interrupt(Signal::TERM);
    assert_eq!(ended, Some(143), "{err}");
    for entry in fs::read_dir(place.path("out")).unwrap() {
        let name = entry.unwrap().file_name();
        let (original, restored) = (place.path("vm").join(&name), place.path("out").join(&name));
        let size = |path| fs::symlink_metadata(path).unwrap().size();
        assert!(
            original.is_dir() || size(original) == size(restored),
            "{name:?}"
        );
    }
    place.assert_tidy();
    place.run(args).succeeded();
    testkit::compare::assert_same(&place.path("vm"), &place.path("out"));
}

#[test]
fn who_holds_a_snapshot_is_shown_and_named_until_it_is_dead() {
    let place = large();
    let args = ["snapshot", "vm:v1", "vm", "--link-mode", "copy"];
    place.run(args).succeeded();
    let nobody = place.run(["ps"]).succeeded().out;
    assert_eq!(nobody, "No other process has the store open.\n");
    let restore = ["restore", "vm:v1", "out", "--link-mode", "copy"];
    let mut stuck = events(&place, &restore);
    let pid = stuck.child.id();
    let holders = || place.run(["ps", "--json"]).succeeded().json()["holders"].clone();
    let found = holders();
    assert_eq!(found.as_array().map(Vec::len), Some(1), "{found}");
    let holder = &found[0];
    assert_eq!(holder["pid"], pid);
    assert_eq!(holder["verb"], "restore");
    assert_eq!(holder["reference"], "vm:v1");
    assert!(
        holder["since"]
            .as_str()
            .is_some_and(|since| since.starts_with("20"))
    );
    let command = holder["command"].as_str().unwrap_or_default();
    assert!(command.contains(&restore.join(" ")), "{command}");
    let shown = place.run(["ps"]).succeeded().out;
    assert!(
        shown.contains(&format!("{pid}  restore  vm:v1 ")),
        "{shown}"
    );
    // Who needs the store for itself is told who has it, and with what.
    let refused = place.run(["verify", "--rebuild"]).exited(8).err;
    assert!(refused.contains(&format!("process {pid} (")), "{refused}");
    assert!(refused.contains("restore vm:v1"), "{refused}");
    stuck.child.kill().unwrap();
    stuck.child.wait().unwrap();
    assert_eq!(holders(), serde_json::json!([]));
}

#[test]
fn a_push_publishes_nothing_and_another_goes_on() {
    let place = large_with_registry();
    let args = ["snapshot", "vm:v1", "vm", "--local", "--link-mode", "copy"];
    place.run(args).succeeded();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let (ended, out, err) = events(&place, &["push", "vm:v1"]).interrupt(signal);
        assert_eq!((ended, out.as_str()), (Some(code), ""), "{err}");
        let listed = place.run(["list", "--remote", "-q"]).succeeded();
        assert_eq!(listed.out, "");
        place.assert_tidy();
    }
    let json = place.run(["inspect", "vm:v1", "--json"]).json();
    assert_eq!(json["state"], "unpublished");
    place.run(["push", "vm:v1", "--verify"]).succeeded();
}

#[test]
fn a_pull_leaves_nothing() {
    let place = large_with_registry();
    place.on("other", ["snapshot", "vm:v1", "vm"]).succeeded();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let (ended, out, err) = events(&place, &["pull", "vm:v1"]).interrupt(signal);
        assert_eq!((ended, out.as_str()), (Some(code), ""), "{err}");
        assert_eq!(place.run(["list", "-q"]).succeeded().out, "");
        place.assert_tidy();
        let content = place.blobs();
        assert!(content.is_empty(), "{content:?}");
    }
    place.run(["restore", "vm:v1", "out"]).succeeded();
    testkit::compare::assert_same(&place.path("vm"), &place.path("out"));
}

#[test]
fn a_verification_leaves_the_store_as_it_is() {
    let place = large();
    place.run(["snapshot", "vm:v1", "vm"]).succeeded();
    let (ended, out, err) = events(&place, &["verify"]).interrupt(Signal::TERM);
    assert_eq!((ended, out.as_str()), (Some(143), ""), "{err}");
    place.assert_tidy();
}

#[test]
fn a_removal_that_waits_for_somebody_removes_nothing() {
    let place = Place::with_snapshot();
    let held = place.hold_catalog();
    let mut command = place.command(["remove", "vm:v1"]);
    command
        .env("SNAPSHOTTER_BUSY_TIMEOUT", "1s")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    wait_for_handler(&child);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{output:?}");
    drop(held);
    assert_eq!(place.run(["list", "-q"]).succeeded().out, "vm:v1\n");
    place.assert_tidy();
}

/// Every command that opens the store is stopped while it waits to clean up after one that was killed.
#[test]
fn whoever_waits_for_the_catalog_stops() {
    let place = large_with_registry();
    let mut killed = events(&place, &["snapshot", "vm:v1", "vm"]);
    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    let held = place.hold_catalog();
    for args in [
        &["snapshot", "vm:v2", "vm", "--dry-run"][..],
        &["restore", "vm:v1", "out"],
        &["list"],
        &["inspect", "vm:v1"],
        &["diff", "vm:v1", "vm:v1"],
        &["remove", "vm:v1"],
        &["verify"],
        &["df"],
        &["doctor"],
        &["push", "vm:v1"],
        &["pull", "vm:v1"],
    ] {
        let mut command = place.command(args);
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        wait_for_handler(&child);
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            (output.status.code(), &*err),
            (Some(130), "error: stopped by SIGINT\n"),
            "{args:?}"
        );
    }
    drop(held);
    place.assert_tidy();
}

/// Until the command has its own handler for SIGTERM, the last that is installed.
fn wait_for_handler(child: &Child) {
    let status = format!("/proc/{}/status", child.id());
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < Duration::from_secs(60));
        let text = fs::read_to_string(&status).unwrap();
        let caught = text
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))
            .unwrap();
        let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
        if caught >> (Signal::TERM.as_raw() - 1) & 1 == 1 {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn json_says_that_it_was_stopped() {
    let place = large();
    let (ended, out, _) =
        events(&place, &["snapshot", "vm:v1", "vm", "--json"]).interrupt(Signal::TERM);
    assert_eq!(ended, Some(143));
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["error"]["kind"], "cancelled");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let place = large();
    // Nobody empties the pipe, so there is no clean end to wait for.
    let mut stuck = events(&place, &["snapshot", "vm:v1", "vm"]);
    stuck.send(Signal::INT);
    kill_process(Pid::from_child(&stuck.child), Signal::INT).unwrap();
    assert_eq!(stuck.child.wait().unwrap().code(), Some(130));
    place.assert_tidy();
}

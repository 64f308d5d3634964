//! What many files cost in memory: each verb in a process of its own, which says its peak at its end.

#![expect(clippy::print_stdout, reason = "a child tells its parent")]

use crate::support_b;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use snapshotter::{
    Config, Content, ContentProvider, ErrorKind, Event, File, LinkMode, Observer, Registry,
    RestoreRequest, SnapshotRequest,
};
use support_b::children::{part, playing, start, tell, told};
use support_b::steps::quick_dir;
use support_b::{Handle, restore_request};
use testkit::child::State;
use testkit::compare::assert_same;

/// Files of two trees, whose documents are both too long to be held whole, so that what a verb takes grows with the files
/// alone from one to the other.
const SOME: usize = 16_000;
const MORE: usize = 26_000;
const A_DIRECTORY: usize = 1000;

/// What the command has when it does nothing, in bytes: its code, above all.
const COMMAND: u64 = 14 << 20;

/// How many files must fit into how many bytes.
const PROMISES: [(u64, u64); 2] = [(100_000, 64 << 20), (800_000, 384 << 20)];

/// Every file has bytes of its own.
fn many_files(dir: &Path, files: usize) {
    for directory in 0..files / A_DIRECTORY {
        let path = dir.join(format!("directory-{directory:04}"));
        fs::create_dir_all(&path).unwrap();
        for file in 0..A_DIRECTORY {
            let bytes = (directory * A_DIRECTORY + file).to_string();
            fs::write(path.join(format!("file-{file:06}.txt")), bytes).unwrap();
        }
    }
}

fn node(dir: &Path, root: &str) -> Handle {
    let mut content = Content::new(ContentProvider::Fs);
    content.root = dir.join("objects");
    let layouts = format!("oci-layout:{}", dir.join("layouts").display());
    // What each thread has, a connection to the catalog above all, does not grow with the files, and how many are at work
    // at once is a matter of time.
    let config = Config::new(dir.join(root))
        .snapshot_concurrency(1)
        .restore_concurrency(1)
        .registry(Registry::new(layouts, "ns"))
        .content(content);
    Handle::with(config).unwrap()
}

fn copied(version: &str, source: &Path) -> SnapshotRequest {
    SnapshotRequest::new("many", version, source).local(true)
}

fn linked(version: &str, source: &Path) -> SnapshotRequest {
    copied(version, source).file(File::new(".").read_only(true))
}

fn restore(output: PathBuf, reference: &str, mode: LinkMode) -> RestoreRequest {
    restore_request(reference, &output).link_mode(mode)
}

#[test]
fn children_start_here() {
    let Some(part) = part() else { return };
    let dir = told("DIR");
    let (source, output) = (dir.join("source"), dir.join("output"));
    let here = || node(&dir, "here");
    match part.as_str() {
        "nothing" => here().close().unwrap(),
        "snapshot by copies" => drop(here().snapshot(&copied("v1", &source)).unwrap()),
        "snapshot by hardlinks" => drop(here().snapshot(&linked("v2", &source)).unwrap()),
        "restore by copies" => {
            let request = restore(output, "many:v1", LinkMode::Copy);
            drop(here().restore_with(&request).unwrap());
        }
        "restore by hardlinks" => {
            let request = restore(output, "many:v2", LinkMode::Hardlink);
            drop(here().restore_with(&request).unwrap());
        }
        "push" => drop(here().push("many:v1").unwrap()),
        "pull" => drop(node(&dir, "there").pull("many:v1").unwrap()),
        "restore from elsewhere" => {
            let request = restore(output, "many:v1", LinkMode::Auto);
            drop(node(&dir, "elsewhere").restore_with(&request).unwrap());
        }
        "verify" => drop(here().verify().unwrap()),
        "inspect" => drop(here().inspect("many:v1").unwrap()),
        "remove" => drop(node(&dir, "there").remove("many:v1").unwrap()),
        other => panic!("{other}"),
    }
    println!("\npeak {}", peak());
}

/// Of this process, resident, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().trim_end_matches("kB").trim();
    kib.parse::<u64>().unwrap() << 10
}

/// Has a child do it, and says the child's peak.
fn peak_of(part: &str, dir: &Path) -> u64 {
    let mut command = playing(module_path!(), part);
    tell(&mut command, "DIR", dir);
    // As the command has it.
    command.env("MALLOC_ARENA_MAX", "1");
    let mut child = start(command.stdout(Stdio::piped()));
    let mut said = String::new();
    let mut stdout = child.stdout().unwrap();
    stdout.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap(), State::Exited(0), "{part}: {said}");
    let peak = said.lines().find_map(|line| line.strip_prefix("peak "));
    peak.unwrap().parse().unwrap()
}

/// What each verb has at its peak with so many files, above a process that does nothing.
fn peaks(files: usize) -> Vec<(&'static str, u64)> {
    let home = quick_dir();
    let dir = home.path();
    many_files(&dir.join("source"), files);
    fs::create_dir(dir.join("objects")).unwrap();
    let nothing = peak_of("nothing", dir);
    let parts = [
        "snapshot by copies",
        "restore by copies",
        "push",
        "pull",
        "remove",
        "restore from elsewhere",
        "verify",
        "inspect",
        "snapshot by hardlinks",
        "restore by hardlinks",
    ];
    let peaks = parts.map(|part| {
        let peak = peak_of(part, dir).saturating_sub(nothing);
        if part == "restore from elsewhere" {
            assert_same(&dir.join("source"), &dir.join("output"));
        }
        let _ = fs::remove_dir_all(dir.join("output"));
        (part, peak)
    });
    peaks.into()
}

// A file cost 1.4 KiB of memory: its name, its attributes and its row were kept several times over, and all of the
// document's bytes three times, so that a hundred thousand files took 180 MiB and a million more than most nodes spare.
#[test]
fn many_files_fit_into_little_memory() {
    let measured = || {
        std::thread::scope(|scope| {
            let some = scope.spawn(|| peaks(SOME));
            let more = peaks(MORE);
            (some.join().unwrap(), more)
        })
    };
    let (mut some, mut more) = measured();
    // Threads that wait for each other hold more for a moment: that only adds, so the least of several times counts.
    for _ in 0..3 {
        if over(&some, &more).is_empty() {
            return;
        }
        let (again, more_again) = measured();
        for (least, again) in [(&mut some, again), (&mut more, more_again)] {
            for ((_, peak), (_, again)) in least.iter_mut().zip(again) {
                *peak = again.min(*peak);
            }
        }
    }
    assert_eq!(over(&some, &more), Vec::<String>::new());
}

/// Which verbs take more than was promised, by what they have with some files and with more.
fn over(some: &[(&str, u64)], more: &[(&str, u64)]) -> Vec<String> {
    let mut over = Vec::new();
    for ((part, some), (_, more)) in some.iter().zip(more) {
        let a_file = more.saturating_sub(*some) / (MORE - SOME) as u64;
        println!("{part}: {some} bytes with {SOME} files, {more} with {MORE}: {a_file} a file");
        for (files, limit) in PROMISES {
            let all = COMMAND + some + a_file * (files - SOME as u64);
            if all > limit {
                let (all, limit) = (all >> 20, limit >> 20);
                over.push(format!(
                    "{part}: {files} files in {all} MiB instead of {limit}"
                ));
            }
        }
    }
    over
}

/// What a call tells.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Observer for Told {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
}

// That a tree has more names than a document holds was found out when all of its files had been read and stored: after
// minutes, and with as much to take away again.
#[test]
fn a_tree_that_no_document_can_list_is_refused_before_a_file_is_read() {
    let home = quick_dir();
    let (root, source) = (home.path().join("root"), home.path().join("source"));
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "bytes").unwrap();
    // Each byte of it takes six in a document.
    let target = "\u{1}".repeat(4095);
    let link = |number: usize| {
        std::os::unix::fs::symlink(&target, source.join(format!("{number:06}"))).unwrap();
    };
    let fitting = (256 << 20) / (6 * 4095 + 200);
    (0..fitting).for_each(link);
    let told = Arc::new(Told::default());
    let handle = Handle::open(&root).unwrap().observed_by(told.clone());
    let request = |version| SnapshotRequest::new("many", version, &source);
    let taken = handle.snapshot(&request("v1")).unwrap();
    assert_eq!(taken.symlinks, fitting as u64);
    assert!(!told.0.lock().unwrap().is_empty());
    told.0.lock().unwrap().clear();
    (fitting..fitting + 200).for_each(link);
    let refused = handle.snapshot(&request("v2")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused:?}");
    assert!(refused.hint().unwrap().contains("several snapshots"));
    assert_eq!(*told.0.lock().unwrap(), Vec::<String>::new());
    handle.close().unwrap();
}

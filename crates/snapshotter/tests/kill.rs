//! `kill -9` at random moments, under several processes that do everything at once. The seed is printed, and
//! `SNAPSHOTTER_KILL_ROUNDS` and `SNAPSHOTTER_KILL_SEED` make a longer run or the same one again.

#![expect(
    clippy::print_stderr,
    reason = "counts and seeds are for whoever reads the log"
)]

use crate::support_b;

use std::fs;
use std::path::Path;
use std::time::Duration;

use snapshotter::{
    Config, Content, ContentProvider, Error, ErrorKind, Format, ParentChoice, Registry,
    SnapshotRequest,
};
use support_b::children::{part, playing, start, tell, told, told_number};
use support_b::outside::{assert_at_rest, assert_nothing_temporary, assert_rows_and_files_agree};
use support_b::steps::{quick_dir, reap_until_nobody_is_left};
use support_b::{Handle, checkpoint, format, request};
use testkit::child::Child;
use testkit::compare::assert_same;
use testkit::prng::Prng;

const ROUNDS: u64 = 20;
const WORKERS: u64 = 3;

fn node(dir: &Path, root: &str) -> Result<Handle, Error> {
    let mut content = Content::new(ContentProvider::Fs);
    content.root = dir.join("objects");
    let layouts = format!("oci-layout:{}", dir.join("layouts").display());
    Handle::with(
        Config::new(dir.join(root))
            .registry(Registry::new(layouts, "ns"))
            .content(content),
    )
}

#[test]
fn children_start_here() {
    if part().is_some() {
        work(&told("DIR"), told_number("SEED"));
    }
}

/// Everything, in any order, until killed. Others remove what this one wants, so it may be gone.
fn work(dir: &Path, seed: u64) {
    let mut random = Prng::new(seed);
    let output = dir.join(format!("output-{seed}"));
    loop {
        let handle = node(dir, "root").unwrap();
        for _ in 0..4 {
            let reference = format!("vm:v{}", random.below(4));
            let version = reference.trim_start_matches("vm:");
            let done = match random.below(6) {
                0 => handle.snapshot(&taken(&mut random, version, dir)).map(drop),
                1 => handle.restore(&reference, &output).map(|_| {
                    assert_same(&dir.join("source"), &output);
                }),
                2 => handle.push(&reference).map(drop),
                3 => handle.pull(&reference).map(drop),
                4 => handle.remove(&reference).map(drop),
                _ => handle.verify().map(|report| {
                    let whole = report.damaged.is_empty() && report.missing.is_empty();
                    assert!(whole, "{report:?}");
                }),
            };
            let _ = fs::remove_dir_all(&output);
            if let Err(error) = done {
                let expected = [
                    ErrorKind::NotFound,
                    ErrorKind::AlreadyExists,
                    ErrorKind::Busy,
                ];
                assert!(expected.contains(&error.kind()), "{error:?}");
            }
        }
        handle.close().unwrap();
    }
}

/// A snapshot of the source: in pages it has a parent or none.
fn taken(random: &mut Prng, version: &str, dir: &Path) -> SnapshotRequest {
    let request = request("vm", version, &dir.join("source"));
    if format() == Format::V1 {
        return request;
    }
    let parents = [
        ParentChoice::Origin,
        ParentChoice::Latest,
        ParentChoice::None,
    ];
    let parent = parents[random.below(3) as usize].clone();
    request.parent(parent)
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

#[test]
fn processes_killed_at_random_under_a_mixed_load_leave_a_whole_store() {
    let seed = number("SNAPSHOTTER_KILL_SEED", u64::from(std::process::id()));
    let some = if format() == Format::V2 {
        ROUNDS / 2
    } else {
        ROUNDS
    };
    let rounds = number("SNAPSHOTTER_KILL_ROUNDS", some);
    eprintln!("SNAPSHOTTER_KILL_SEED={seed} SNAPSHOTTER_KILL_ROUNDS={rounds}");
    let home = quick_dir();
    let dir = home.path();
    let source = dir.join("source");
    checkpoint().write_to(&source).unwrap();
    fs::create_dir(dir.join("objects")).unwrap();
    node(dir, "root").unwrap().close().unwrap();
    let mut random = Prng::new(seed);
    for round in 0..rounds {
        let mut workers: Vec<Child> = (0..WORKERS)
            .map(|worker| {
                let mut command = playing(module_path!(), "worker");
                tell(&mut command, "DIR", dir);
                tell(
                    &mut command,
                    "SEED",
                    (seed + round * WORKERS + worker).to_string(),
                );
                start(&mut command)
            })
            .collect();
        for worker in &mut workers {
            std::thread::sleep(Duration::from_millis(50 + random.below(250)));
            let early = worker.poll().unwrap();
            assert_eq!(early, None, "round {round}: a worker ended by itself");
            worker.kill().unwrap();
        }
        let handle = Handle::open(&dir.join("root")).unwrap();
        let listed = handle.listed();
        let expected: Vec<(&str, &Path)> = listed
            .iter()
            .map(|reference| (reference.as_str(), source.as_path()))
            .collect();
        handle.assert_all_restore(&expected, dir);
        handle.assert_clean();
        handle.close().unwrap();
        reap_until_nobody_is_left(&dir.join("root"));
        assert_at_rest(&dir.join("root"));
        assert_rows_and_files_agree(&dir.join("root"));
    }
    // A push reaps what dead pushers left.
    let handle = node(dir, "root").unwrap();
    handle.snapshot(&request("vm", "last", &source)).unwrap();
    handle.close().unwrap();
    assert_nothing_temporary(&dir.join("layouts"));
}

in_pages_too!(processes_killed_at_random_under_a_mixed_load_leave_a_whole_store);

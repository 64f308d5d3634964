//! A process that publishes what it has just taken, and another one that takes the name away meanwhile.

use crate::support_b;

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use snapshotter::hook::{self, Action};
use snapshotter::{Config, Content, ContentProvider, ErrorKind, Registry};
use support_b::children::{part, playing, start, stopped, tell, told, told_number};
use support_b::steps::{NEVER, for_each_step, quick_dir};
use support_b::{Handle, checkpoint, keepsake, request, unless_busy};
use testkit::child::{Child, State};
use testkit::compare::assert_same;
use testkit::quirks::{Quirk, Quirky};

const NOT_FOUND: i32 = 3;

/// Children.
#[test]
fn children_start_here() {
    match part().as_deref() {
        Some("publish") => publish(),
        Some("be refused") => be_refused(),
        _ => {}
    }
}

/// Replaces `base:v1` by force and publishes it.
fn publish() -> ! {
    let dir = told("DIR");
    hook::arm(Action::Stop, told_number("AT"));
    let handle = Handle::with(config(&dir)).unwrap();
    let result = handle.snapshot(&request("base", "v1", &dir.join("new")).force(true));
    std::fs::write(dir.join("count"), hook::count().to_string()).unwrap();
    std::process::exit(match result.map_err(|error| error.kind()) {
        Ok(_) => 0,
        Err(ErrorKind::NotFound) => NOT_FOUND,
        Err(kind) => panic!("{kind:?}"),
    })
}

/// One file at a time, so that the steps have one order.
fn config(dir: &Path) -> Config {
    let mut content = Content::new(ContentProvider::Fs);
    content.root = dir.join("objects");
    let layouts = format!("oci-layout:{}", dir.join("layouts").display());
    Config::new(dir.join("root"))
        .snapshot_concurrency(1)
        .registry(Registry::new(layouts, "ns"))
        .content(content)
}

fn publishing(dir: &Path, at: u64) -> Child {
    let mut command = playing(module_path!(), "publish");
    tell(&mut command, "DIR", dir);
    tell(&mut command, "AT", at.to_string());
    start(&mut command)
}

/// A store with a `base:v1` that is to be replaced, whose files are then given up.
fn prepare(dir: &Path) {
    keepsake().write_to(&dir.join("old")).unwrap();
    checkpoint().write_to(&dir.join("new")).unwrap();
    std::fs::create_dir(dir.join("objects")).unwrap();
    let handle = Handle::open(&dir.join("root")).unwrap();
    handle
        .snapshot(&request("base", "v1", &dir.join("old")))
        .unwrap();
    handle.close().unwrap();
}

/// A snapshot that another process removed between being taken and being published was `cancelled`, and nobody had
/// cancelled anything: scripts took it for a signal. It is said what happened, wherever the other process comes in.
#[test]
fn a_snapshot_that_is_taken_away_before_it_is_published_is_not_cancelled() {
    let dir = quick_dir();
    prepare(dir.path());
    let mut counted = publishing(dir.path(), NEVER);
    assert_eq!(counted.wait().unwrap(), State::Exited(0));
    let steps = std::fs::read_to_string(dir.path().join("count")).unwrap();
    let ends = Mutex::new(Vec::new());
    for_each_step(steps.parse().unwrap(), |step| {
        let dir = quick_dir();
        prepare(dir.path());
        let mut child = publishing(dir.path(), step);
        stopped(&mut child);
        // While the other one is in a transaction, nobody can: then it goes on as if nothing had been.
        let quick = Config::new(dir.path().join("root")).busy_timeout(Duration::from_millis(50));
        if let Some(handle) = unless_busy(Handle::with(quick)) {
            unless_busy(handle.remove("base:v1"));
        }
        child.resume().unwrap();
        ends.lock().unwrap().push(child.wait().unwrap());
    });
    let ends = ends.into_inner().unwrap();
    let as_it_may = |end: &State| [0, NOT_FOUND].map(State::Exited).contains(end);
    assert!(ends.iter().all(as_it_may), "{ends:?}");
    assert!(ends.contains(&State::Exited(NOT_FOUND)), "{ends:?}");
}

/// A registry whose tags do not move, in a repository of its own.
fn refusing(dir: &Path, url: &str) -> Config {
    let namespace = dir.file_name().unwrap().to_str().unwrap().to_lowercase();
    Config::new(dir.join("root"))
        .snapshot_concurrency(1)
        .registry(Registry::new(
            url,
            format!("ns-{}", namespace.trim_start_matches('.')),
        ))
        .content(Content::new(ContentProvider::Registry))
}

/// Replaces `base:v1` by force, which the registry refuses.
fn be_refused() -> ! {
    let (dir, url) = (told("DIR"), told("URL"));
    hook::arm(Action::Abort, told_number("AT"));
    let handle = Handle::with(refusing(&dir, url.to_str().unwrap())).unwrap();
    let refused = handle.snapshot(&request("base", "v1", &dir.join("new")).force(true));
    std::fs::write(dir.join("count"), hook::count().to_string()).unwrap();
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unsupported);
    std::process::exit(0)
}

/// Whoever is killed while a name that the registry refused goes back leaves it to one of the two, and both are whole.
#[test]
fn a_name_that_goes_back_is_one_snapshots_wherever_that_is_killed() {
    const LAST: u64 = 24;
    let server = Quirky::new(Quirk::Immutable);
    let prepare = |dir: &Path| {
        keepsake().write_to(&dir.join("old")).unwrap();
        checkpoint().write_to(&dir.join("new")).unwrap();
        let handle = Handle::with(refusing(dir, &server.url())).unwrap();
        let taking = request("base", "v1", &dir.join("old"));
        handle.snapshot(&taking).unwrap();
        handle.close().unwrap();
    };
    let refused = |dir: &Path, at: u64| {
        let mut command = playing(module_path!(), "be refused");
        tell(&mut command, "DIR", dir);
        tell(&mut command, "URL", server.url());
        tell(&mut command, "AT", at.to_string());
        start(&mut command).wait().unwrap()
    };
    let dir = quick_dir();
    prepare(dir.path());
    assert_eq!(refused(dir.path(), NEVER), State::Exited(0));
    let steps = std::fs::read_to_string(dir.path().join("count")).unwrap();
    let first: u64 = steps.parse::<u64>().unwrap().saturating_sub(LAST);
    // The new one has the name, nothing happened, the name went back.
    let ends = Mutex::new([0; 3]);
    for_each_step(LAST, |step| {
        let dir = quick_dir();
        prepare(dir.path());
        // The disk's part is done by another thread, so the last steps may not come.
        refused(dir.path(), first + step);
        let handle = Handle::open(&dir.path().join("root")).unwrap();
        handle.assert_clean();
        let listed = handle.list().unwrap();
        let went_back = usize::from(listed.len() == 2);
        for one in listed {
            // What is published is the old one: the registry had that alone.
            let is_old = !one.publications.is_empty();
            let name = one.reference.to_string();
            assert!(went_back == 1 || name == "base:v1", "{name}");
            if name == "base:v1" {
                assert!(went_back == 0 || is_old);
                ends.lock().unwrap()[went_back + usize::from(is_old)] += 1;
            }
            let source = dir.path().join(if is_old { "old" } else { "new" });
            let output = dir.path().join(format!("out-{is_old}"));
            handle.restore(&name, &output).unwrap();
            assert_same(&source, &output);
        }
    });
    let ends = ends.into_inner().unwrap();
    assert!(ends.iter().all(|count| *count > 0), "{ends:?}");
}

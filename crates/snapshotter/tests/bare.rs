//! A process that has little around it: no `/proc`, and no threads to be had.

use crate::support_a;

use std::fs;
use std::os::unix::fs::{chown, chroot};
use std::os::unix::process::CommandExt;
use std::path::Path;

use rustix::process::{Resource, Rlimit, setrlimit};
use snapshotter::{Config, RestoreRequest, SnapshotRequest, Snapshotter};
use support_a::*;
use testkit::child::{Child, State, this_test};
use testkit::compare::assert_same;
use testkit::{Content as Bytes, Tree};

/// Names a directory for a test that runs itself in a process of its own.
const CHILD: &str = "BARE_TEST_DIRECTORY";

fn tree() -> Tree {
    (0..40).fold(Tree::new(), |tree, index| {
        let len = 1000 * index;
        tree.file(format!("{index}"), Bytes::Random { seed: index, len })
    })
}

/// Takes a snapshot and restores it, on one thread and those that the library makes.
fn round(directory: &Path, prepared: impl FnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut config = Config::new(directory.join("store"));
        config.gc.background = false;
        let store = Snapshotter::open(config).await.unwrap();
        prepared();
        let request = SnapshotRequest::new("vm", "v1", directory.join("source"));
        store.snapshot(&request).await.unwrap();
        let request = RestoreRequest::new(reference("vm:v1"), directory.join("output"));
        store.restore(&request).await.unwrap();
        assert_sound(&store).await;
        store.close().await.unwrap();
    });
}

/// Runs a test in a process of its own, and compares what it restored.
fn run(name: &str, place: &Place) {
    let source = place.write("source", &tree());
    let mut command = this_test(module_path!(), name);
    let mut child = Child::spawn(command.env(CHILD, place.path(""))).unwrap();
    assert_eq!(child.wait().unwrap(), State::Exited(0));
    assert_same(&source, &place.path("output"));
}

/// Files without names get theirs by way of /proc: in a chroot without it, making such a file succeeded and every restore
/// of a writable file failed.
#[test]
fn without_proc_files_get_their_names() {
    if let Some(directory) = std::env::var_os(CHILD) {
        chroot(Path::new(&directory)).unwrap();
        std::env::set_current_dir("/").unwrap();
        assert!(!Path::new("/proc").exists());
        round(Path::new("/"), || ());
        return;
    }
    if !is_root() {
        testkit::mount::report_skip("chroot takes root");
        return;
    }
    let place = Place::new();
    fs::create_dir(place.path("tmp")).unwrap();
    run("without_proc_files_get_their_names", &place);
}

/// Where no thread was to be had the library panicked, in the middle of a call that could as well have gone on with the
/// threads that it had.
#[test]
fn without_threads_to_be_had_calls_go_on_with_fewer() {
    const NOBODY_ELSE: u32 = 61_234;
    if let Some(directory) = std::env::var_os(CHILD) {
        // The threads that there are by then, and none besides.
        round(Path::new(&directory), || {
            let none = Rlimit {
                current: Some(1),
                maximum: Some(1),
            };
            setrlimit(Resource::Nproc, none).unwrap();
            let spawned = std::thread::Builder::new().spawn(|| ());
            assert!(spawned.is_err(), "a thread was to be had");
        });
        return;
    }
    if !is_root() {
        testkit::mount::report_skip("to be somebody else takes root");
        return;
    }
    let place = Place::new();
    let source = place.write("source", &tree());
    chown(place.path(""), Some(NOBODY_ELSE), Some(NOBODY_ELSE)).unwrap();
    for file in files_in(&source) {
        chown(file, Some(NOBODY_ELSE), Some(NOBODY_ELSE)).unwrap();
    }
    chown(&source, Some(NOBODY_ELSE), Some(NOBODY_ELSE)).unwrap();
    let mut command = this_test(
        module_path!(),
        "without_threads_to_be_had_calls_go_on_with_fewer",
    );
    command.uid(NOBODY_ELSE).gid(NOBODY_ELSE);
    let mut child = Child::spawn(command.env(CHILD, place.path(""))).unwrap();
    assert_eq!(child.wait().unwrap(), State::Exited(0));
    assert_same(&source, &place.path("output"));
}

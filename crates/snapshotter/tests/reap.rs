//! What cleaning up after a snapshot of many files costs that was killed before its end.

use crate::support_b;

use std::fs;
use std::path::Path;

use snapshotter::SnapshotRequest;
use snapshotter::hook::{self, Action};
use support_b::Handle;
use support_b::children::{part, playing, start, tell, told, told_number};
use support_b::outside::{blobs, content, names, names_in_shards};
use support_b::steps::{NEVER, quick_dir};
use testkit::child::State;

const FILES: u64 = 4000;

/// Names that go under one hold of the lock.
const BATCH: u64 = 512;

#[test]
fn children_start_here() {
    let Some(_) = part() else { return };
    let dir = told("DIR");
    let handle = Handle::open(&dir.join("root")).unwrap();
    hook::arm(Action::Abort, told_number("AT"));
    let request = SnapshotRequest::new("many", "v1", dir.join("source"));
    handle.snapshot(&request).unwrap();
    fs::write(dir.join("count"), hook::count().to_string()).unwrap();
    handle.close().unwrap();
}

fn snapshot(dir: &Path, at: u64) -> State {
    let mut command = playing(module_path!(), "snapshot");
    tell(&mut command, "DIR", dir);
    tell(&mut command, "AT", at.to_string());
    start(&mut command).wait().unwrap()
}

// Of a snapshot of a hundred thousand files, cleaning up is seconds as long as each is one change of a directory, and many
// share a transaction: a transaction for each would be minutes.
#[test]
fn what_a_killed_snapshot_left_goes_in_one_change_a_file() {
    let home = quick_dir();
    let (dir, root) = (home.path(), home.path().join("root"));
    fs::create_dir(dir.join("source")).unwrap();
    for file in 0..FILES {
        fs::write(dir.join(format!("source/{file}")), file.to_string()).unwrap();
    }
    assert_eq!(snapshot(dir, NEVER), State::Exited(0));
    let count = fs::read_to_string(dir.join("count")).unwrap();
    let changes: u64 = count.parse().unwrap();
    fs::remove_dir_all(&root).unwrap();
    assert_ne!(snapshot(dir, changes / 10 * 9), State::Exited(0));
    let left = names_in_shards(&content(&root)).len() as u64;
    assert!(left > FILES / 2, "{left}");
    hook::arm(Action::Abort, NEVER);
    Handle::open(&root).unwrap().close().unwrap();
    let made = hook::count();
    assert!(names_in_shards(&content(&root)).is_empty());
    assert_eq!(blobs(&root), 0);
    assert!(names(&root.join("leases")).is_empty());
    // Those names too that were about to be given.
    let most = FILES + FILES / BATCH + 50;
    assert!(made <= most, "{made} changes for {left} files");
}

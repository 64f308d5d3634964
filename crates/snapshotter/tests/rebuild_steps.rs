//! Rebuilding a catalog on a disk that is full at any step. A binary of its own: the test hook counts for a process.

use crate::support_a;

use std::fs;
use std::path::Path;

use snapshotter::hook::{self, Action};
use snapshotter::{Config, RebuildRequest, Snapshotter};
use support_a::*;
use testkit::Tree;
use testkit::compare::assert_same;

fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp")
        .args(["-a", "--"])
        .args([from, to])
        .status()
        .unwrap();
    assert!(status.success());
}

#[tokio::test]
async fn a_rebuild_that_fails_anywhere_can_be_done_again() {
    let place = Place::new();
    let files = Tree::new().file("a", "good").file("d/b", "damaged below");
    let base = place.write("base", &files);
    let good = place.write("good", &Tree::new().file("a", "good"));
    let store = place.open().await;
    take(&store, "v1", &base).await;
    take(&store, "v2", &good).await;
    store.close().await.unwrap();
    let root = place.root();
    break_index(&root.join("metadata/catalog.db"));
    let (_, checksum) = spf1(&base.join("d/b"));
    let hex = checksum.strip_prefix("blake3:").unwrap();
    overwrite(&place.content().join(hex), 0, b"D");
    let kept = place.path("kept");
    copy(&root, &kept);
    let config = Config::new(&root);
    let request = RebuildRequest::new();
    let mut failed = 0;
    for step in 1.. {
        fs::remove_dir_all(&root).unwrap();
        copy(&kept, &root);
        hook::arm(Action::NoSpace, step);
        let first = Snapshotter::rebuild(&config, &request).await;
        let reached = hook::count() >= step;
        hook::arm(Action::NoSpace, u64::MAX);
        if first.is_err() {
            failed += 1;
            let again = Snapshotter::rebuild(&config, &request).await;
            let again = again.unwrap_or_else(|error| panic!("step {step}: {error:?}"));
            assert_eq!(again.snapshots.len(), 2, "step {step}");
        }
        assert_eq!(files_in(&root.join("quarantine")).len(), 1, "step {step}");
        let store = place.open().await;
        let output = place.fresh();
        give(&store, "v2", &output).await;
        assert_same(&good, &output);
        store.close().await.unwrap();
        if !reached {
            break;
        }
    }
    assert!(failed > 5, "{failed}");
}

//! Upper layers of overlayfs: what they hide stays hidden.

use crate::support_a;

use std::fs;
use std::path::Path;

use snapshotter::{EntryKind, ErrorKind, Snapshotter};
use support_a::*;
use testkit::Tree;
use testkit::compare::{Options, assert_same_with};
use testkit::mount::{OverlayMount, or_skip};

/// Changes a layer as a container does: a file is removed, a directory is removed and made anew, another one emptied.
fn change(merged: &Path) {
    fs::remove_file(merged.join("removed")).unwrap();
    fs::remove_dir_all(merged.join("anew")).unwrap();
    fs::create_dir(merged.join("anew")).unwrap();
    fs::write(merged.join("anew/new"), "new").unwrap();
    fs::remove_file(merged.join("emptied/file")).unwrap();
    fs::write(merged.join("changed"), "changed").unwrap();
}

fn names(options: &Options) -> Options {
    Options {
        holes: testkit::compare::Holes::Ignore,
        directories: false,
        ..options.clone()
    }
}

async fn planned(store: &Snapshotter, upper: &Path) -> Vec<String> {
    let plan = store.plan_snapshot(&all("v1", upper)).await.unwrap();
    assert_eq!((plan.whiteouts, plan.warnings), (2, vec![]));
    let whiteouts = plan.entries.iter();
    let whiteouts = whiteouts.filter(|entry| entry.kind == EntryKind::Whiteout);
    whiteouts
        .map(|entry| entry.path.to_str().unwrap().to_owned())
        .collect()
}

/// A whiteout was left out as a device of the host's, with a warning among many: over its lower layer the restored layer had all
/// files again that had been removed.
#[tokio::test]
async fn an_upper_layer_comes_back_with_all_that_it_hides() {
    let place = Place::new();
    let lower = Tree::new()
        .file("removed", "old")
        .file("kept", "old")
        .file("changed", "old")
        .file("anew/old", "old")
        .file("emptied/file", "old");
    let lower = place.write("lower", &lower);
    let upper = place.write("upper", &Tree::new());
    let work = place.write("work", &Tree::new());
    let Some(mount) = or_skip(OverlayMount::new(&lower, &upper, &work)) else {
        return;
    };
    change(mount.path());
    let store = place.open().await;
    assert_eq!(planned(&store, &upper).await, ["emptied/file", "removed"]);
    let taken = take(&store, "v1", &upper).await;
    assert_eq!((taken.whiteouts, taken.warnings), (2, vec![]));
    let details = store.inspect(&reference("test:v1")).await.unwrap();
    assert_eq!(details.whiteouts.len(), 2);

    // Where something else has the name, and where all is there already.
    let output = place.write("output", &Tree::new().file("removed", "in the way"));
    for _ in 0..2 {
        let given = give(&store, "v1", &output).await;
        assert_eq!((given.whiteouts, given.warnings), (2, vec![]));
    }
    let work = place.write("work-again", &Tree::new());
    let again = OverlayMount::new(&lower, &output, &work).unwrap();
    assert_same_with(mount.path(), again.path(), &names(&shared()));
    assert!(!again.path().join("removed").exists());
    assert!(!again.path().join("anew/old").exists());
    assert!(again.path().join("kept").exists());

    let refused = store.restore(&to("v1", &output).no_clobber(true)).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let part = place.fresh();
    let request = to("v1", &part).path("emptied");
    assert_eq!(store.restore(&request).await.unwrap().whiteouts, 1);
    assert_sound(&store).await;
}

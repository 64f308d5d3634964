//! Restores over names that something is mounted on.

use crate::support_a;

use std::fs;
use std::path::PathBuf;

use snapshotter::{LinkMode, WarningKind};
use support_a::*;
use testkit::Tree;
use testkit::mount::{BindMount, or_skip};

// A name that something is mounted on cannot be renamed over: a restore failed there, with half of the files in place.
#[tokio::test]
async fn what_something_is_mounted_on_is_left_with_a_word_and_the_rest_is_restored() {
    let place = Place::new();
    let tree = Tree::new()
        .file("a", random(1, 5000))
        .file("linked", random(2, 300_000))
        .hardlink("also", "linked")
        .hardlink("again", "linked")
        .file("large", random(3, 3_000_000))
        .file("read-only", random(4, 70_000))
        .file("z", random(5, 100))
        .dir("dir")
        .file("dir/inside", random(6, 100))
        .symlink("symlink", "a");
    let source = place.write("source", &tree);
    let store = place.open().await;
    let request = all("v1", &source)
        .read_only("read-only")
        .link_mode(LinkMode::Copy);
    store.snapshot(&request).await.unwrap();
    let (output, other) = (place.path("output"), place.path("other"));
    fs::create_dir_all(output.join("dir")).unwrap();
    fs::create_dir(&other).unwrap();
    // "again" is the first of three names of one file.
    let left = ["again", "large", "linked", "read-only", "symlink"];
    let mut mounts = Vec::new();
    for name in left {
        fs::write(output.join(name), "below").unwrap();
        fs::write(other.join(name), "mounted").unwrap();
        let Some(mount) = or_skip(BindMount::new(&other.join(name), &output.join(name))) else {
            return;
        };
        mounts.push(mount);
    }
    let Some(_dir) = or_skip(BindMount::new(&other, &output.join("dir"))) else {
        return;
    };
    let report = give(&store, "v1", &output).await;
    let warned: Vec<_> = report
        .warnings
        .iter()
        .map(|one| (one.kind, one.path.clone().unwrap()))
        .collect();
    let expected = left.map(|name| (WarningKind::Mounted, PathBuf::from(name)));
    assert_eq!(warned, expected);
    for name in left {
        assert_eq!(fs::read(output.join(name)).unwrap(), b"mounted", "{name}");
    }
    assert_eq!((report.files, report.symlinks), (4, 0));
    assert_eq!(report.data_bytes, 5000 + 300_000 + 100 + 100);
    drop(mounts);
    assert_no_litter(&output);
    for name in ["a", "z", "also", "dir/inside"] {
        assert_eq!(
            fs::read(output.join(name)).unwrap(),
            fs::read(source.join(name)).unwrap(),
            "{name}"
        );
    }
    assert_eq!(fs::read(other.join("inside")).unwrap().len(), 100);
    for name in left {
        assert_eq!(fs::read(output.join(name)).unwrap(), b"below", "{name}");
    }
    // Nothing is mounted any more: now they are replaced.
    assert_eq!(give(&store, "v1", &output).await.warnings, []);
    assert_no_litter(&output);
}

//! Stores that earlier releases wrote (`testdata/stores`, made by `scripts/lib/keep-store`): this one reads all of them,
//! restores what is in them byte for byte, and goes on working with them.

mod support_b;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support_b::outside::{assert_at_rest, assert_rows_and_files_agree};
use support_b::{Handle, request};
use tempfile::TempDir;
use testkit::compare::{Options, assert_same_with};

fn archives() -> Vec<PathBuf> {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/stores");
    let mut found: Vec<PathBuf> = fs::read_dir(kept)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "gz"))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "this release is kept too");
    found
}

fn unpack(archive: &Path) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut tar = Command::new("tar");
    tar.arg("--extract").arg("--file").arg(archive);
    tar.arg("--directory").arg(dir.path());
    assert!(tar.status().unwrap().success(), "{}", archive.display());
    dir
}

/// Files belong to whoever unpacked them, and restores to the snapshot's owner where that is allowed.
fn but_for_owners() -> Options {
    Options {
        owner: false,
        ..Options::default()
    }
}

#[test]
fn a_store_of_every_release_is_read_and_used_on() {
    for archive in archives() {
        let dir = unpack(&archive);
        let (root, trees) = (dir.path().join("root"), dir.path().join("trees"));
        let handle = Handle::open(&root).unwrap();
        assert_eq!(handle.listed(), ["vm:v2", "vm:v1"], "{}", archive.display());
        let pinned: Vec<bool> = handle
            .list()
            .unwrap()
            .iter()
            .map(|one| one.pinned)
            .collect();
        assert_eq!(pinned, [true, false]);
        let details = handle.inspect("vm:v1").unwrap();
        assert_eq!(details.annotations["kernel"], "6.18");
        for version in ["v1", "v2"] {
            let output = dir.path().join(version);
            handle.restore(&format!("vm:{version}"), &output).unwrap();
            let tree = trees.join(format!("vm-{version}"));
            assert_same_with(&tree, &output, &but_for_owners());
        }
        assert_eq!(handle.assert_clean().swept_names, 0);
        // What it has is not stored again, and what it has not is.
        let report = handle
            .snapshot(&request("vm", "v3", &trees.join("vm-v1")))
            .unwrap();
        assert_eq!((report.blobs_stored, report.blobs_reused), (0, 3));
        for version in ["v1", "v2", "v3"] {
            handle.remove(&format!("vm:{version}")).unwrap();
        }
        handle.close().unwrap();
        assert_at_rest(&root);
        assert_rows_and_files_agree(&root);
    }
}

//! Stores that earlier releases wrote (`testdata/stores`, made by `scripts/lib/keep-store`): this one reads all of them,
//! restores what is in them byte for byte, and goes on working with them.

use crate::support_b;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use snapshotter::{ErrorKind, Format, ParentChoice, SnapshotSummary};
use support_b::outside::{
    assert_at_rest, assert_rows_and_files_agree, catalog, content, names_in_shards,
};
use support_b::{Handle, refusal, request};
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

/// Two snapshots in pages, of which the second names the first one's pack.
fn use_pages(handle: &Handle, trees: &Path, into: &Path) {
    let packs = handle.inspect("pages:v2").unwrap().packs;
    assert_eq!((packs.len(), packs[1].exclusive), (2, false));
    let last = trees.join("pages-v2");
    for (version, tree) in [("v1", "pages-v1"), ("v2", "pages-v2")] {
        let output = into.join(format!("pages-{version}"));
        handle
            .restore(&format!("pages:{version}"), &output)
            .unwrap();
        assert_same_with(&trees.join(tree), &output, &but_for_owners());
    }
    // Nothing of what it has is stored again, and a page that it has not is.
    let take = |version| {
        let request = request("pages", version, &last)
            .format(Format::V2)
            .parent(ParentChoice::Snapshot("pages:v2".parse().unwrap()));
        let report = handle.snapshot(&request).unwrap();
        assert_eq!(report.warnings, []);
        report.paged.unwrap().stored_pages
    };
    assert_eq!(take("v3"), 0);
    fs::write(last.join("more"), "a page").unwrap();
    assert_eq!(take("v4"), 1);
    handle.assert_clean();
    for version in ["v1", "v2", "v3", "v4"] {
        handle.remove(&format!("pages:{version}")).unwrap();
    }
    assert_eq!(handle.usage().unwrap().packs, 0);
}

#[test]
fn a_store_of_every_release_is_read_and_used_on() {
    for archive in archives() {
        let dir = unpack(&archive);
        let (root, trees) = (dir.path().join("root"), dir.path().join("trees"));
        let handle = Handle::open(&root).unwrap();
        let listed = handle.list().unwrap();
        let (vm, pages): (Vec<_>, Vec<_>) =
            listed.iter().partition(|one| one.reference.name() == "vm");
        let names = |of: &[&SnapshotSummary]| -> Vec<String> {
            of.iter().map(|one| one.reference.to_string()).collect()
        };
        assert_eq!(names(&vm), ["vm:v2", "vm:v1"], "{}", archive.display());
        let pinned: Vec<bool> = vm.iter().map(|one| one.pinned).collect();
        assert_eq!(pinned, [true, false]);
        // Those of schema 4 have snapshots in pages.
        if !pages.is_empty() {
            assert_eq!(names(&pages), ["pages:v2", "pages:v1"]);
            use_pages(&handle, &trees, dir.path());
        }
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

/// Every file below a directory, with what tells whether it was moved or written.
fn look(dir: &Path) -> Vec<String> {
    let entries = testkit::fsstat::entries(dir).unwrap();
    let seen = entries.into_iter().map(|(path, stat)| {
        let written = (stat.len(), stat.mtime(), stat.mtime_nsec());
        format!("{} {} {written:?}", path.display(), stat.ino())
    });
    let mut seen: Vec<String> = seen.collect();
    // The log's index is made by whoever reads the catalog.
    seen.retain(|path| !path.contains("catalog.db-") && !path.starts_with("metadata "));
    seen
}

/// A release knows the schemas up to its own, by their number, and that is what keeps the one before this from snapshots in
/// pages: it looks at the number and at nothing else.
#[test]
fn a_store_with_pages_is_refused_by_the_release_before_and_nothing_in_it_is_moved() {
    let mut with_pages = 0;
    for archive in archives() {
        let dir = unpack(&archive);
        let root = dir.path().join("root");
        let version: u32 = catalog(&root)
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .unwrap();
        let name = archive.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(name, format!("schema-{version}.tar.gz"));
        let packs = names_in_shards(&content(&root));
        let packs = packs.iter().filter(|name| name.ends_with(".pack")).count();
        if packs == 0 {
            continue;
        }
        with_pages += 1;
        assert!(
            version >= 4,
            "{name} would be opened by a release without pages"
        );
        // As one looks to this release that the next one wrote.
        catalog(&root)
            .pragma_update(None, "user_version", version + 1)
            .unwrap();
        let before = look(&root);
        let error = refusal(Handle::open(&root));
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        assert_eq!(look(&root), before);
    }
    assert!(with_pages > 0);
}

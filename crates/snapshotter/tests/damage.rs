//! Stored bytes that change, shrink or go: found, named, never given out, and mended by a snapshot of the same bytes.

use crate::support_a;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Once;

use snapshotter::{
    BadBlob, Config, ErrorKind, File, GcRequest, LinkMode, Snapshotter, VerifyReport, VerifyRequest,
};
use support_a::*;
use testkit::compare::{Holes, Options, assert_same, assert_same_with};
use testkit::{Content, Tree};

const MIB: u64 = 1 << 20;

/// One small, one that is read in pieces, one with a hole in the middle.
const FILES: [&str; 3] = ["small", "large", "sparse"];

fn content(name: &str) -> Content {
    match name {
        "small" => Content::Random { seed: 1, len: 5000 },
        "large" => Content::Random {
            seed: 2,
            len: 3 * MIB,
        },
        // Longer than what all threads of a pass have read when the first tells of progress.
        "long" => Content::Random {
            seed: 5,
            len: 16 * MIB,
        },
        _ => Content::Sparse {
            size: 4 * MIB,
            extents: vec![(0, 3, 65536), (3 * MIB, 4, 65536)],
        },
    }
}

fn tree(name: &str) -> Tree {
    Tree::new()
        .file("file", content(name))
        .mtime("file", 1_000_000, 1)
}

/// A store whose only snapshot, `test:v1`, has one file, and what that is.
struct One {
    place: Place,
    store: Snapshotter,
    base: PathBuf,
    /// What must come back.
    good: PathBuf,
    blob: PathBuf,
}

impl One {
    async fn new(name: &str, read_only: bool, mode: LinkMode) -> Self {
        let place = Place::new();
        let base = place.write("base", &tree(name));
        let good = place.write("good", &tree(name));
        let store = place.open().await;
        let request = all("v1", &base)
            .file(File::new("file").read_only(read_only))
            .link_mode(mode);
        store.snapshot(&request).await.unwrap();
        let blob = place.only_blob();
        Self {
            place,
            store,
            base,
            good,
            blob,
        }
    }

    /// Writable: the blob is the store's own file.
    async fn writable(name: &str) -> Self {
        Self::new(name, false, LinkMode::Auto).await
    }

    /// Read-only: the blob is the caller's file.
    async fn linked(name: &str) -> Self {
        let one = Self::new(name, true, LinkMode::Auto).await;
        assert_eq!(inode(&one.blob), inode(&one.base.join("file")));
        one
    }

    /// However it is asked for, it is not given.
    async fn assert_not_given(&self) {
        for mode in [LinkMode::Auto, LinkMode::Copy] {
            let output = self.place.fresh();
            let error = self
                .store
                .restore(&to("v1", &output).link_mode(mode))
                .await
                .unwrap_err();
            assert_damaged(&error);
            assert!(!output.join("file").exists());
            assert_no_litter(&output);
        }
    }

    async fn assert_given(&self) {
        for mode in [LinkMode::Auto, LinkMode::Copy] {
            let output = self.place.fresh();
            self.store
                .restore(&to("v1", &output).link_mode(mode))
                .await
                .unwrap();
            assert_same(&self.good, &output);
        }
    }

    /// A snapshot of the same bytes makes it whole.
    async fn assert_mended_by_a_snapshot(&self, read_only: bool, what: &str) {
        let again = self.place.path("again");
        if !again.exists() {
            tree_like(&self.good).write_to(&again).unwrap();
        }
        let version = format!("again-{read_only}");
        let request = all(&version, &again).file(File::new("file").read_only(read_only));
        let taken = self.store.snapshot(&request).await.unwrap();
        assert_eq!(
            taken.blobs_stored + taken.blobs_reused,
            1,
            "{what}: {taken:?}"
        );
        self.assert_given().await;
        assert_sound(&self.store).await;
    }
}

/// The same file once more, from its size.
fn tree_like(good: &Path) -> Tree {
    let size = stat(&good.join("file")).len();
    let name = FILES.into_iter().find(|name| content(name).size() == size);
    tree(name.unwrap())
}

fn assert_damaged(error: &snapshotter::Error) {
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert_eq!(error.path(), Some(Path::new("file")), "{error}");
    assert!(error.hint().is_some_and(|hint| !hint.is_empty()));
    assert_eq!(error.reference(), Some(&reference("test:v1")));
}

fn names(blob: &BadBlob) -> Vec<String> {
    blob.snapshots.iter().map(ToString::to_string).collect()
}

fn assert_lists(report: &VerifyReport, damaged: usize, missing: usize) {
    let found = (report.damaged.len(), report.missing.len());
    assert_eq!(found, (damaged, missing), "{report:?}");
    for blob in report.damaged.iter().chain(&report.missing) {
        assert_eq!(names(blob), ["test:v1"]);
    }
}

type Tamper = fn(&Path);

fn middle(path: &Path) -> u64 {
    stat(path).len() / 2
}

/// Changes that the inode betrays.
const OPEN: [(&str, Tamper); 5] = [
    ("appended", |path| {
        use std::io::Write;
        let mut file = fs::File::options().append(true).open(path).unwrap();
        file.write_all(b"more").unwrap();
    }),
    ("first byte changed", |path| {
        let first = fs::read(path).unwrap()[0];
        overwrite(path, 0, &[!first]);
    }),
    ("middle changed", |path| {
        overwrite(path, middle(path), b"other bytes");
    }),
    ("truncated", |path| {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_len(middle(path)).unwrap();
    }),
    ("emptied", |path| fs::write(path, "").unwrap()),
];

/// Changes after which the modification time was put back and the size is the same.
const HIDDEN: [(&str, Tamper); 2] = [
    ("first byte changed", |path| {
        let first = fs::read(path).unwrap()[0];
        overwrite_secretly(path, 0, &[!first]);
    }),
    ("one bit flipped", |path| {
        let byte = fs::read(path).unwrap()[4500];
        overwrite_secretly(path, 4500, &[byte ^ 1]);
    }),
];

#[tokio::test]
async fn a_source_that_breaks_its_promise_is_found_by_the_next_restore() {
    for name in FILES {
        for (what, tamper) in OPEN {
            let one = One::linked(name).await;
            tamper(&one.base.join("file"));
            one.assert_not_given().await;
            assert_lists(&verify(&one.store).await, 1, 0);
            // What is now in the file is not touched, and is another snapshot.
            let taken = take_read_only(&one.store, "v2", &one.base).await;
            assert_eq!(taken.blobs_stored, 1, "{what}");
            let output = one.place.fresh();
            give(&one.store, "v2", &output).await;
            assert_same(&one.base, &output);
            one.assert_mended_by_a_snapshot(true, what).await;
        }
    }
}

#[tokio::test]
async fn a_stored_file_that_changed_is_found_by_the_next_restore() {
    for name in FILES {
        for (what, tamper) in OPEN {
            let one = One::writable(name).await;
            tamper(&one.blob);
            one.assert_not_given().await;
            assert_lists(&verify(&one.store).await, 1, 0);
            one.assert_mended_by_a_snapshot(false, what).await;
        }
    }
}

#[tokio::test]
async fn verify_finds_a_change_before_any_restore_does() {
    for (_, tamper) in OPEN {
        let one = One::writable("small").await;
        tamper(&one.blob);
        let report = verify(&one.store).await;
        assert_lists(&report, 1, 0);
        let bad = &report.damaged[0];
        assert_eq!(
            bad.checksum.unwrap().to_string(),
            spf1(&one.good.join("file")).1
        );
        assert_eq!(
            bad.digest.unwrap().to_string(),
            spf1(&one.good.join("file")).0
        );
        assert_eq!(bad.size, 5000);
        one.assert_not_given().await;
    }
}

/// A copy is hashed while it is made; a hardlink of an inode that looks right is not, and the docs say so.
#[tokio::test]
async fn a_hidden_change_is_found_by_every_copy_and_by_verify() {
    for name in FILES {
        for (what, tamper) in HIDDEN {
            for linked in [false, true] {
                let one = if linked {
                    One::linked(name).await
                } else {
                    One::writable(name).await
                };
                tamper(&one.blob);
                let output = one.place.fresh();
                let error = one
                    .store
                    .restore(&to("v1", &output).link_mode(LinkMode::Copy))
                    .await
                    .unwrap_err();
                assert_damaged(&error);
                assert!(!output.join("file").exists(), "{what}");
                one.assert_not_given().await;

                let one = if linked {
                    One::linked(name).await
                } else {
                    One::writable(name).await
                };
                tamper(&one.blob);
                assert_lists(&verify(&one.store).await, 1, 0);
                one.assert_not_given().await;
                one.assert_mended_by_a_snapshot(linked, what).await;
            }
        }
    }
}

#[tokio::test]
async fn a_hole_that_was_written_is_found_or_not_given() {
    for linked in [false, true] {
        let hole = 2 * MIB;
        // In the open: the time says so.
        let one = One::new("sparse", linked, LinkMode::Auto).await;
        overwrite(&one.blob, hole, b"no hole");
        one.assert_not_given().await;
        assert_lists(&verify(&one.store).await, 1, 0);
        one.assert_mended_by_a_snapshot(linked, "written hole")
            .await;
        // Hidden: a copy takes the stored extents only, and is right.
        let one = One::new("sparse", linked, LinkMode::Auto).await;
        overwrite_secretly(&one.blob, hole, b"no hole");
        let output = one.place.fresh();
        one.store
            .restore(&to("v1", &output).link_mode(LinkMode::Copy))
            .await
            .unwrap();
        assert_same(&one.good, &output);
        assert_lists(&verify(&one.store).await, 1, 0);
        one.assert_not_given().await;
    }
}

/// Zeros written into a hole change no byte, though a clone has them too.
#[tokio::test]
async fn a_hole_that_was_filled_with_zeros_is_no_damage() {
    let one = One::writable("sparse").await;
    overwrite(&one.blob, 2 * MIB, &[0; 8192]);
    let output = one.place.fresh();
    give(&one.store, "v1", &output).await;
    let options = Options {
        holes: Holes::Ignore,
        ..Options::default()
    };
    assert_same_with(&one.good, &output, &options);
    assert_sound(&one.store).await;
}

#[tokio::test]
async fn a_stored_file_that_is_gone_is_missing() {
    for name in FILES {
        for read_only in [false, true] {
            let one = One::new(name, read_only, LinkMode::Copy).await;
            fs::remove_file(&one.blob).unwrap();
            if read_only {
                one.assert_not_given().await;
            }
            assert_lists(&verify(&one.store).await, 0, 1);
            one.assert_not_given().await;
            one.assert_mended_by_a_snapshot(read_only, "gone").await;
        }
    }
}

#[tokio::test]
async fn a_stored_file_that_was_swapped_is_damaged() {
    let swaps: [(&str, Tamper); 4] = [
        ("another file", |path| {
            let size = stat(path).len();
            fs::remove_file(path).unwrap();
            fs::write(path, vec![7; usize::try_from(size).unwrap()]).unwrap();
        }),
        ("another file that looks the same", |path| {
            let (size, time) = (stat(path).len(), mtime(path));
            fs::remove_file(path).unwrap();
            fs::write(path, vec![7; usize::try_from(size).unwrap()]).unwrap();
            testkit::tree::set_mtime(path, time).unwrap();
        }),
        ("a symlink to other bytes", |path| {
            fs::rename(path, path.with_extension("away")).unwrap();
            symlink("/etc/passwd", path).unwrap();
        }),
        ("a directory", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
    ];
    for (what, swap) in swaps {
        let one = One::writable("small").await;
        swap(&one.blob);
        let output = one.place.fresh();
        let request = to("v1", &output).link_mode(LinkMode::Copy);
        let error = one.store.restore(&request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{what}: {error}");
        assert!(!output.join("file").exists(), "{what}");
        let report = one.store.verify(&VerifyRequest::all()).await;
        let report = report.unwrap_or_else(|error| panic!("{what}: {error}"));
        let listed = report.damaged.len() + report.missing.len();
        assert_eq!(listed, 1, "{what}: {report:?}");
        // Litter, which stays while a blob is missing.
        fs::remove_file(one.blob.with_extension("away")).ok();
        one.assert_mended_by_a_snapshot(false, what).await;
    }
}

/// Nobody has looked since the change: the snapshot itself must not trust what is there.
#[tokio::test]
async fn a_snapshot_of_the_same_bytes_mends_what_nobody_found_yet() {
    for name in FILES {
        for read_only in [false, true] {
            for (what, tamper) in OPEN {
                let one = One::new(name, read_only, LinkMode::Copy).await;
                tamper(&one.blob);
                one.assert_mended_by_a_snapshot(read_only, what).await;
            }
            let one = One::new(name, read_only, LinkMode::Copy).await;
            fs::remove_file(&one.blob).unwrap();
            one.assert_mended_by_a_snapshot(read_only, "gone").await;
        }
    }
}

#[tokio::test]
async fn a_repair_keeps_wrong_bytes_aside_and_names_the_snapshots() {
    let one = One::writable("large").await;
    overwrite(&one.blob, 9, b"changed");
    let wrong = fs::read(&one.blob).unwrap();
    let request = VerifyRequest::all().repair(true);
    let report = one.store.verify(&request).await.unwrap();
    assert_lists(&report, 1, 0);
    let aside = report.damaged[0].quarantined.as_ref().unwrap();
    assert!(aside.starts_with(one.place.root().join("quarantine")));
    assert!(fs::read(aside).unwrap() == wrong);
    assert!(!one.blob.exists());
    one.assert_not_given().await;
    // Nothing there is anybody's, and nothing takes it away.
    let report = one.store.verify(&request).await.unwrap();
    assert_lists(&report, 0, 1);
    assert!(report.missing[0].quarantined.is_none() && aside.exists());
    one.assert_mended_by_a_snapshot(false, "quarantined").await;
    one.store.close().await.unwrap();
    assert!(one.place.open().await.list().await.is_ok() && aside.exists());
}

/// Collecting garbage does not read anything; what a row lost is there for whoever does.
#[tokio::test]
async fn nothing_is_swept_while_a_row_has_no_file() {
    let one = One::writable("large").await;
    let catalog = one.place.root().join("metadata/catalog.db");
    let change = "UPDATE objects SET key = CAST(x'00' || substr(key, 2) AS BLOB)";
    let connection = rusqlite::Connection::open(catalog).unwrap();
    connection.execute(change, []).unwrap();
    let litter = one.place.content().join("litter");
    fs::write(&litter, "of nobody").unwrap();
    let collected = one.store.gc(&GcRequest::new()).await.unwrap();
    assert_eq!(collected.swept_names, 0);
    assert!(one.blob.exists());
    let request = VerifyRequest::all().repair(true);
    let report = one.store.verify(&request).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
    one.assert_given().await;
    let report = one.store.verify(&VerifyRequest::all()).await.unwrap();
    assert_eq!(report.swept_names, 1);
    assert!(!litter.exists());
    one.assert_given().await;
}

#[tokio::test]
async fn a_writable_mapping_that_is_held_open_is_not_linked() {
    for name in FILES {
        let place = Place::new();
        let base = place.write("base", &tree(name));
        let good = place.write("good", &tree(name));
        let mut mapped = testkit::Mapped::new(&base.join("file"));
        let store = place.open().await;
        let taken = take_read_only(&store, "v1", &base).await;
        assert_eq!(taken.placements.hardlink.files, 0);
        assert_eq!(taken.warnings[0].kind.as_str(), "writer", "{taken:?}");
        mapped.write(100, b"after the snapshot");
        let output = place.fresh();
        give(&store, "v1", &output).await;
        assert_same(&good, &output);
        assert_sound(&store).await;
    }
}

/// The kernel refuses no mapping that is made later; a write through it moves the time, when the page is first dirtied.
#[tokio::test]
async fn a_writable_mapping_that_is_made_later_is_found() {
    for name in FILES {
        let one = One::linked(name).await;
        let mut mapped = testkit::Mapped::new(&one.base.join("file"));
        mapped.write(100, b"through the mapping");
        mapped.flush();
        one.assert_not_given().await;
        assert_lists(&verify(&one.store).await, 1, 0);
    }
}

#[tokio::test]
async fn bytes_that_come_back_are_mended_by_verify() {
    let one = One::writable("large").await;
    let kept = one.place.path("kept");
    fs::rename(&one.blob, &kept).unwrap();
    assert_lists(&verify(&one.store).await, 0, 1);
    fs::rename(&kept, &one.blob).unwrap();
    let report = verify(&one.store).await;
    assert_lists(&report, 0, 0);
    assert_eq!(report.mended, 1);
    one.assert_given().await;
    assert_eq!(verify(&one.store).await.mended, 0);

    let first = fs::read(&one.blob).unwrap()[0];
    overwrite(&one.blob, 0, &[!first]);
    one.assert_not_given().await;
    overwrite(&one.blob, 0, &[first]);
    let report = verify(&one.store).await;
    assert_eq!((report.mended, report.damaged.len()), (1, 0));
    one.assert_given().await;
}

#[tokio::test]
async fn a_touched_file_of_the_right_bytes_is_given() {
    for linked in [false, true] {
        let one = One::new("large", linked, LinkMode::Auto).await;
        testkit::tree::set_mtime(&one.blob, (5, 5)).unwrap();
        one.assert_given().await;
        assert_sound(&one.store).await;
    }
}

/// Whoever owns a hardlinked file may take its mode away; the rest of the store must not suffer.
#[tokio::test]
async fn a_source_made_unreadable_spoils_neither_verify_nor_other_snapshots() {
    use std::os::unix::fs::PermissionsExt;
    if is_root() {
        testkit::skip!("root may read everything");
    }
    let one = One::linked("small").await;
    let other = one.place.write("other", &Tree::new().file("f", "other"));
    take(&one.store, "other", &other).await;
    let source = one.base.join("file");
    fs::set_permissions(&source, fs::Permissions::from_mode(0o000)).unwrap();
    let error = give_fails(&one.store, "v1", &one.place.fresh()).await;
    assert_eq!(error.path(), Some(Path::new("file")), "{error}");
    let report = verify(&one.store).await;
    assert_lists(&report, 1, 0);
    assert_eq!(report.checked_blobs, 2);
    give(&one.store, "other", &one.place.fresh()).await;
    one.assert_mended_by_a_snapshot(false, "unreadable").await;
    fs::set_permissions(&source, fs::Permissions::from_mode(0o644)).unwrap();
}

#[tokio::test]
async fn damage_is_remembered_by_the_next_handle() {
    let one = One::writable("small").await;
    overwrite_secretly(&one.blob, 0, b"hidden");
    assert_lists(&verify(&one.store).await, 1, 0);
    one.store.close().await.unwrap();
    let store = one.place.open().await;
    let error = give_fails(&store, "v1", &one.place.fresh()).await;
    assert_damaged(&error);
    store.remove(&reference("test:v1")).await.unwrap();
    assert_eq!(store.usage().await.unwrap().blobs, 0);
    assert_lists(&verify(&store).await, 0, 0);
    let taken = take(&store, "v1", &one.good).await;
    assert_eq!(taken.blobs_stored, 1);
    let output = one.place.fresh();
    give(&store, "v1", &output).await;
    assert_same(&one.good, &output);
}

#[tokio::test]
async fn damage_names_every_snapshot_it_is_in_and_spares_the_others() {
    let place = Place::new();
    let files = Tree::new().file("a", "shared").file("d/b", "own of one");
    let one = place.write("one", &files);
    let two = place.write("two", &Tree::new().file("c", "shared"));
    let three = place.write("three", &Tree::new().file("a", "of three"));
    let store = place.open().await;
    for (version, base) in [("2", &two), ("1", &one), ("3", &three)] {
        take(&store, version, base).await;
    }
    let checksum = spf1(&two.join("c")).1;
    let blob = place
        .content()
        .join(checksum.strip_prefix("blake3:").unwrap());
    overwrite(&blob, 0, b"S");
    let report = verify(&store).await;
    assert_eq!(report.checked_blobs, 3);
    assert_eq!(report.checked_bytes, (6 + 10 + 8) as u64);
    assert_eq!(report.damaged.len(), 1);
    assert_eq!(names(&report.damaged[0]), ["test:1", "test:2"]);

    let of_three = VerifyRequest::all().reference(reference("test:3"));
    let report = store.verify(&of_three).await.unwrap();
    assert_eq!((report.checked_blobs, report.damaged.len()), (1, 0));
    let of_one = VerifyRequest::all().reference(reference("test:1"));
    let report = store.verify(&of_one).await.unwrap();
    assert_eq!((report.checked_blobs, report.damaged.len()), (2, 1));

    let output = place.fresh();
    give(&store, "3", &output).await;
    assert_same(&three, &output);
    let output = place.fresh();
    store.restore(&to("1", &output).path("d")).await.unwrap();
    assert_eq!(fs::read(output.join("d/b")).unwrap(), b"own of one");
    let error = give_fails(&store, "1", &place.fresh()).await;
    assert_eq!(error.path(), Some(Path::new("a")));
}

#[tokio::test]
async fn bytes_that_change_during_a_restore_get_no_name() {
    for read_only in [false, true] {
        let one = One::new("long", read_only, LinkMode::Copy).await;
        let changed = Once::new();
        let blob = one.blob.clone();
        let observer = OnProgress::new(move |_| {
            changed.call_once(|| overwrite(&blob, 16 * MIB - 10, b"changed!!!"));
        });
        let output = one.place.fresh();
        let request = to("v1", &output).link_mode(LinkMode::Copy);
        let error = one
            .store
            .observed_by(observer)
            .restore(&request)
            .await
            .unwrap_err();
        assert_damaged(&error);
        assert!(!output.join("file").exists());
        assert_no_litter(&output);
        one.assert_not_given().await;
    }
}

#[tokio::test]
async fn a_file_in_the_way_survives_a_restore_that_finds_damage() {
    for read_only in [false, true] {
        let one = One::new("large", read_only, LinkMode::Copy).await;
        overwrite(&one.blob, 9, b"changed");
        let output = one.place.write("output", &Tree::new().file("file", "mine"));
        assert_damaged(&give_fails(&one.store, "v1", &output).await);
        assert_eq!(fs::read(output.join("file")).unwrap(), b"mine");
    }
}

/// A store with `test:v1`, restored read-only from a view: the output is a hardlink of it.
async fn with_a_view(name: &str, relaxed: bool) -> (Place, Snapshotter, PathBuf, PathBuf) {
    let place = Place::new();
    // The blob's own inode has other attributes.
    let first = tree(name).mode("file", 0o600);
    let base = place.write("base", &first);
    let store = place
        .open_with(|config| config.relaxed_times(relaxed))
        .await;
    take_read_only(&store, "v0", &base).await;
    let good = place.write("good", &tree(name));
    take_read_only(&store, "v1", &good).await;
    let output = place.fresh();
    give(&store, "v1", &output).await;
    let views = files_in(&place.views());
    assert_eq!(views.len(), 1);
    assert_eq!(inode(&views[0]), inode(&output.join("file")));
    (place, store, good, output)
}

#[tokio::test]
async fn a_view_that_was_changed_through_an_output_is_not_given_again() {
    for relaxed in [false, true] {
        for name in FILES {
            for (what, tamper) in OPEN {
                let (place, store, good, output) = with_a_view(name, relaxed).await;
                tamper(&output.join("file"));
                let again = place.fresh();
                give(&store, "v1", &again).await;
                let right =
                    fs::read(again.join("file")).unwrap() == fs::read(good.join("file")).unwrap();
                assert!(right, "{what}, relaxed times: {relaxed}");
                assert_same(&good, &again);
                assert_sound(&store).await;
            }
        }
    }
}

#[tokio::test]
async fn a_view_that_was_changed_secretly_is_found_by_verify() {
    for name in FILES {
        for (_, tamper) in HIDDEN {
            let (place, store, good, output) = with_a_view(name, false).await;
            tamper(&output.join("file"));
            verify(&store).await;
            let again = place.fresh();
            give(&store, "v1", &again).await;
            assert_same(&good, &again);
        }
    }
    let (place, store, good, output) = with_a_view("sparse", false).await;
    overwrite_secretly(&output.join("file"), 2 * MIB, b"no hole");
    verify(&store).await;
    let again = place.fresh();
    give(&store, "v1", &again).await;
    assert_same(&good, &again);
}

#[tokio::test]
async fn a_view_that_is_gone_is_made_again() {
    let (place, store, good, _) = with_a_view("large", false).await;
    for view in files_in(&place.views()) {
        fs::remove_file(view).unwrap();
    }
    for _ in 0..2 {
        let output = place.fresh();
        give(&store, "v1", &output).await;
        assert_same(&good, &output);
    }
    assert_eq!(files_in(&place.views()).len(), 1);
    for view in files_in(&place.views()) {
        fs::remove_file(view).unwrap();
    }
    verify(&store).await;
    let output = place.fresh();
    give(&store, "v1", &output).await;
    assert_same_with(&good, &output, &shared());
}

#[tokio::test]
async fn verify_sweeps_what_belongs_to_nothing() {
    let place = Place::new();
    let base = place.write("base", &Tree::random(5, 40));
    let store = place.open().await;
    let request = all_read_only("v1", &base).link_mode(LinkMode::Copy);
    store.snapshot(&request).await.unwrap();
    give(&store, "v1", &place.fresh()).await;
    let before = (place.blobs(), files_in(&place.views()));
    let litter = [
        place.content().join("abc"),
        place.content().join(".hidden"),
        place.views().join("x"),
        place.views().join("0".repeat(64)),
    ];
    // What has a blob's name may be what the catalog lost, even if it can be read no more, or has other bytes by now.
    let strange = [
        place.content().join("0".repeat(64)),
        place.content().join(format!("{}.spf", "1".repeat(64))),
        place
            .views()
            .join(format!("{}.{}", "0".repeat(64), "0".repeat(32))),
    ];
    for path in litter.iter().chain(&strange) {
        fs::write(path, "litter").unwrap();
    }
    fs::create_dir_all(place.content().join("directory/in/it")).unwrap();
    fs::write(place.content().join("directory/in/file"), "x").unwrap();
    for part in ["staging", "trash"] {
        fs::create_dir(place.root().join(part).join("nobody")).unwrap();
        fs::write(place.root().join(part).join("nobody/file"), "x").unwrap();
    }
    let report = verify(&store).await;
    assert_eq!(report.swept_names, litter.len() as u64 + 1);
    assert_eq!(report.unknown_blobs, strange.len() as u64);
    for path in &strange {
        assert_eq!(fs::read(path).unwrap(), b"litter");
        fs::remove_file(path).unwrap();
    }
    assert_eq!((place.blobs(), files_in(&place.views())), before);
    for part in ["staging", "trash"] {
        assert!(files_below(&place.root().join(part)).is_empty());
        assert!(!place.root().join(part).join("nobody").exists());
    }
    assert_sound(&store).await;
    let output = place.fresh();
    give(&store, "v1", &output).await;
    assert_same_with(&base, &output, &shared());
}

#[tokio::test]
async fn verifying_one_snapshot_sweeps_nothing() {
    let place = Place::new();
    let base = place.write("base", &Tree::new().file("f", "x"));
    let store = place.open().await;
    take(&store, "v1", &base).await;
    fs::write(place.content().join("litter"), "x").unwrap();
    let request = VerifyRequest::all().reference(reference("test:v1"));
    let report = store.verify(&request).await.unwrap();
    assert_eq!((report.swept_names, report.checked_blobs), (0, 1));
    assert!(place.content().join("litter").exists());
}

#[tokio::test]
async fn a_catalog_that_is_no_database_is_damaged_and_named() {
    let place = Place::new();
    let base = place.write("base", &Tree::new().file("f", "x"));
    let store = place.open().await;
    take(&store, "v1", &base).await;
    store.close().await.unwrap();
    drop(store);
    let catalog = place.root().join("metadata/catalog.db");
    for path in files_in(&place.root().join("metadata")) {
        fs::remove_file(path).unwrap();
    }
    fs::write(&catalog, vec![b'x'; 8192]).unwrap();
    let error = Snapshotter::open(Config::new(place.root()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert_eq!(error.path(), Some(catalog.as_path()), "{error}");
    // Nothing was thrown away for it.
    assert_eq!(place.blobs().len(), 1);
}

#[tokio::test]
async fn a_catalog_that_is_gone_is_damage_and_nothing_is_thrown_away() {
    let place = Place::new();
    let base = place.write("base", &Tree::new().file("f", "x"));
    let store = place.open().await;
    take(&store, "v1", &base).await;
    store.close().await.unwrap();
    drop(store);
    for path in files_in(&place.root().join("metadata")) {
        fs::remove_file(path).unwrap();
    }
    for _ in 0..2 {
        let error = Snapshotter::open(Config::new(place.root()))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        assert!(error.hint().is_some());
    }
    assert_eq!(place.blobs().len(), 1);
}

//! What may be asked, what is answered, and what a call that fails or is given up leaves: nothing.

use crate::support_a;

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use snapshotter::{
    Config, Durability, ErrorKind, File, Format, Gc, LinkMode, ParentChoice, Reference,
    RestoreRequest, SnapshotDetails, SnapshotRequest, SnapshotState, Snapshotter, Subset,
    VerifyRequest, WarningKind,
};
use support_a::*;
use testkit::compare::{assert_same, assert_same_with};
use testkit::mount::{BindMount, LoopDevice, TmpfsMount, or_skip};
use testkit::{Content, Tree};

const MIB: u64 = 1 << 20;

fn some() -> Tree {
    Tree::new()
        .file("a/1", "one")
        .file("a/b/2", "two")
        .file("a/b/3", "three")
        .dir("a/empty")
        .symlink("a/link", "b/2")
        .symlink("to-a", "a")
        .file("top", "top")
}

/// Paths of a snapshot; read-only ones have a `!`.
fn contents(details: &SnapshotDetails) -> Vec<String> {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let mut found: Vec<String> = details
        .files
        .iter()
        .map(|file| {
            let mark = if file.read_only { "!" } else { "" };
            text(&file.entry.relative_path) + mark
        })
        .collect();
    let directories = details.directories.iter();
    found.extend(directories.map(|directory| text(&directory.relative_path) + "/"));
    let symlinks = details.symlinks.iter();
    found.extend(symlinks.map(|symlink| text(&symlink.entry.relative_path) + "@"));
    found.sort();
    found
}

async fn selected(files: Vec<File>) -> Vec<String> {
    let place = Place::new();
    let base = place.write("base", &some());
    let store = place.open().await;
    let taken = store
        .snapshot(&all("v1", &base).files(files))
        .await
        .unwrap();
    contents(&store.inspect(&taken.reference).await.unwrap())
}

#[tokio::test]
async fn no_files_means_everything_and_so_does_a_dot() {
    let everything = [
        "a/", "a/1", "a/b/", "a/b/2", "a/b/3", "a/empty/", "a/link@", "to-a@", "top",
    ];
    assert_eq!(selected(vec![]).await, everything);
    assert_eq!(selected(vec![File::new(".")]).await, everything);
    assert_eq!(selected(vec![File::new("./.")]).await, everything);
}

#[tokio::test]
async fn a_directory_means_its_descendants() {
    let files = vec![File::new("a/b"), File::new("top").read_only(true)];
    assert_eq!(selected(files).await, ["a/b/", "a/b/2", "a/b/3", "top!"]);
    let files = vec![File::new("./a//b/")];
    assert_eq!(selected(files).await, ["a/b/", "a/b/2", "a/b/3"]);
    assert_eq!(selected(vec![File::new("a/empty")]).await, ["a/empty/"]);
    assert_eq!(selected(vec![File::new("a/1")]).await, ["a/1"]);
}

#[tokio::test]
async fn the_nearest_promise_counts() {
    let files = vec![
        File::new(".").read_only(true),
        File::new("a/b"),
        File::new("a/b/3").read_only(true),
    ];
    let expected = [
        "a/", "a/1!", "a/b/", "a/b/2", "a/b/3!", "a/empty/", "a/link@", "to-a@", "top!",
    ];
    assert_eq!(selected(files.clone()).await, expected);
    assert_eq!(selected(files.into_iter().rev().collect()).await, expected);
}

#[tokio::test]
async fn a_path_listed_twice_is_taken_once() {
    let files = vec![File::new("top"), File::new("./top"), File::new("top/")];
    assert_eq!(selected(files).await, ["top"]);
}

#[tokio::test]
async fn a_symlink_is_kept_and_not_followed() {
    assert_eq!(selected(vec![File::new("to-a")]).await, ["to-a@"]);
    assert_eq!(selected(vec![File::new("a/link")]).await, ["a/link@"]);
}

#[tokio::test]
async fn base_dir_itself_may_be_a_symlink() {
    let place = Place::new();
    let base = place.write("base", &some());
    symlink("base", place.path("way")).unwrap();
    let store = place.open().await;
    take(&store, "v1", &place.path("way")).await;
    let output = place.fresh();
    give(&store, "v1", &output).await;
    assert_same(&base, &output);
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_and_leave_nothing() {
    let place = Place::new();
    let base = place.write("base", &some());
    let store = place.open().await;
    let request = || all("v1", &base);
    let file = |path: &str| request().file(File::new(path));
    use ErrorKind::{InvalidInput, NotFound};
    let cases = [
        (file("../base/top"), InvalidInput, ".."),
        (file("a/../top"), InvalidInput, ".."),
        (file("/etc/passwd"), InvalidInput, "/etc/passwd"),
        (file(""), InvalidInput, "empty"),
        (file("a\0b"), InvalidInput, "NUL"),
        (file("missing"), NotFound, "missing"),
        (file("a/b/missing"), NotFound, "a/b/missing"),
        (file("gone/away"), NotFound, "gone"),
        (
            file("a").file(File::new("a/missing")),
            NotFound,
            "a/missing",
        ),
        (file(".").file(File::new("nowhere")), NotFound, "nowhere"),
        (file("to-a/1"), InvalidInput, "to-a"),
        (file("to-a/b/2"), InvalidInput, "to-a"),
        (file(".").file(File::new("to-a/1")), InvalidInput, "to-a"),
        (
            file("top").file(File::new("./top").read_only(true)),
            InvalidInput,
            "top",
        ),
        (
            file(".").file(File::new("./.").read_only(true)),
            InvalidInput,
            "read-only",
        ),
        (
            all("v1", &place.path("no/such/base")),
            NotFound,
            "no/such/base",
        ),
        (all("v1", &base.join("top")), InvalidInput, "top"),
        (all("v1", Path::new("")), NotFound, ""),
        (request().annotation("", "x"), InvalidInput, "annotations"),
    ];
    for (request, kind, named) in cases {
        let error = store.snapshot(&request).await.unwrap_err();
        let text = error.to_string();
        let path = error.path().map(Path::to_path_buf);
        let case = format!("{:?}: {text} ({path:?})", request.files);
        assert!(
            error.kind() == kind || request.base_dir == Path::new(""),
            "{case}: {:?}",
            error.kind()
        );
        assert!(text.contains(named), "{case}");
        assert!(!error.kind().is_retryable(), "{case}");
    }
    assert!(store.list().await.unwrap().is_empty());
    assert_eq!(store.usage().await.unwrap().blobs, 0);
    take(&store, "v1", &base).await;
}

#[tokio::test]
async fn a_bad_name_or_version_is_refused_with_the_rule() {
    let place = Place::new();
    let base = place.write("base", &Tree::new());
    let store = place.open().await;
    for name in [
        "",
        "A",
        "a//b",
        "/a",
        "a/",
        "a:b",
        "a b",
        "-a",
        "a..b",
        &"a".repeat(256),
    ] {
        let request = SnapshotRequest::new(name, "v1", &base);
        let error = store.snapshot(&request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}");
        assert!(error.to_string().contains("lower-case letters"), "{error}");
    }
    for version in ["", ".v", "-v", "v/1", "v 1", "v@1", &"v".repeat(129)] {
        let request = SnapshotRequest::new("name", version, &base);
        let error = store.snapshot(&request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{version}");
        assert!(error.to_string().contains("128 letters"), "{error}");
    }
    let long = "v".repeat(128);
    let request = SnapshotRequest::new("a.b/c__d/e---f", &long, &base);
    store.snapshot(&request).await.unwrap();
}

#[tokio::test]
async fn a_version_is_immutable_until_it_is_removed() {
    let place = Place::new();
    let base = place.write("base", &some());
    let other = place.write("other", &Tree::new().file("x", "other"));
    let store = place.open().await;
    take(&store, "v1", &base).await;
    let error = store.snapshot(&all("v1", &other)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("test:v1"), "{error}");
    assert_eq!(error.reference(), Some(&reference("test:v1")));
    let output = place.fresh();
    give(&store, "v1", &output).await;
    assert_same(&base, &output);

    store.remove(&reference("test:v1")).await.unwrap();
    take(&store, "v1", &other).await;
    let output = place.fresh();
    give(&store, "v1", &output).await;
    assert_same(&other, &output);
    assert_sound(&store).await;
}

// Many names are taken away by several threads.
#[tokio::test]
async fn of_many_files_that_go_none_is_left_and_what_another_needs_stays() {
    let place = Place::new();
    let many = |from: u32| {
        let files = (from..from + 300).map(|number| format!("{number}"));
        files.fold(Tree::new(), |tree, name| {
            tree.file(name.as_str(), name.as_str())
        })
    };
    let (one, two) = (place.write("one", &many(0)), place.write("two", &many(150)));
    let store = place.open().await;
    take(&store, "1", &one).await;
    take(&store, "2", &two).await;
    let removed = store.remove(&reference("test:1")).await.unwrap();
    assert_eq!((removed.blobs_removed, place.blobs().len()), (150, 300));
    let output = place.fresh();
    give(&store, "2", &output).await;
    assert_same(&two, &output);
    store.remove(&reference("test:2")).await.unwrap();
    assert!(place.blobs().is_empty());
}

#[tokio::test]
async fn removing_gives_back_the_name_and_what_nothing_else_needs() {
    let place = Place::new();
    let one = place.write("one", &Tree::new().file("a", "shared").file("b", "one"));
    let two = place.write("two", &Tree::new().file("a", "shared").file("b", "two"));
    let store = place.open().await;
    take_read_only(&store, "1", &one).await;
    take(&store, "2", &two).await;
    give(&store, "1", &place.fresh()).await;
    assert_eq!(store.usage().await.unwrap().blobs, 3);
    store.remove(&reference("test:1")).await.unwrap();
    let usage = store.usage().await.unwrap();
    assert_eq!(
        (usage.snapshots, usage.blobs, usage.stored_bytes),
        (1, 2, 9)
    );
    assert_eq!(place.blobs().len(), 2);
    let output = place.fresh();
    give(&store, "2", &output).await;
    assert_same(&two, &output);
    store.remove(&reference("test:2")).await.unwrap();
    let usage = store.usage().await.unwrap();
    assert_eq!(
        (usage.snapshots, usage.blobs, usage.stored_bytes),
        (0, 0, 0)
    );
    store.close().await.unwrap();
    place.assert_empty();
    assert_eq!(fs::read(one.join("b")).unwrap(), b"one");
}

#[tokio::test]
async fn what_is_not_there_is_not_found_by_name() {
    let place = Place::new();
    let base = place.write("base", &some());
    let store = place.open().await;
    let taken = take(&store, "v1", &base).await;
    store.remove(&reference("test:v1")).await.unwrap();
    let missing = [
        reference("test:v1"),
        reference("test:v2"),
        reference("other:v1"),
        taken.reference.clone(),
        Reference::by_digest("test", taken.manifest_digest).unwrap(),
    ];
    for missing in missing {
        let request = RestoreRequest::new(missing.clone(), place.fresh());
        let errors = [
            store.restore(&request).await.unwrap_err(),
            store.inspect(&missing).await.unwrap_err(),
            store.remove(&missing).await.unwrap_err(),
            store
                .verify(&VerifyRequest::all().reference(missing.clone()))
                .await
                .unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            assert!(error.to_string().contains(&missing.to_string()), "{error}");
            assert_eq!(error.reference(), Some(&missing));
        }
        assert!(!request.output_dir.exists());
    }
}

#[tokio::test]
async fn a_reference_may_carry_the_manifest_digest() {
    let place = Place::new();
    let base = place.write("base", &some());
    let other = place.write("other", &Tree::new().file("x", "other"));
    let store = place.open().await;
    let one = take(&store, "v1", &base).await;
    let two = take(&store, "v2", &other).await;
    let by_digest = Reference::by_digest("test", one.manifest_digest).unwrap();
    for found in [&one.reference, &by_digest] {
        let output = place.fresh();
        let request = RestoreRequest::new(found.clone(), &output);
        let given = store.restore(&request).await.unwrap();
        assert_eq!(given.reference, one.reference);
        assert_same(&base, &output);
    }
    let mixed = reference("test:v1").with_digest(two.manifest_digest);
    for error in [
        store.inspect(&mixed).await.unwrap_err(),
        store.remove(&mixed).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    store.remove(&by_digest).await.unwrap();
    assert_eq!(store.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_list_is_by_name_and_the_newest_version_first() {
    let place = Place::new();
    let base = place.write("base", &some());
    let store = place.open().await;
    for (name, version) in [("b", "z"), ("b", "a"), ("a/x", "1"), ("c", "1"), ("b", "m")] {
        let request = SnapshotRequest::new(name, version, &base);
        store.snapshot(&request).await.unwrap();
    }
    let list = store.list().await.unwrap();
    let names: Vec<String> = list.iter().map(|one| one.reference.to_string()).collect();
    let short: Vec<&str> = names
        .iter()
        .map(|name| name.split('@').next().unwrap())
        .collect();
    assert_eq!(short, ["a/x:1", "b:m", "b:a", "b:z", "c:1"]);
    for one in list {
        assert_eq!(one.state, SnapshotState::Unpublished);
        assert_eq!((one.files, one.logical_bytes, one.data_bytes), (4, 14, 14));
        assert!(!one.pinned);
        assert!(one.last_accessed_at >= one.created_at);
    }
}

#[tokio::test]
async fn a_restore_is_an_access() {
    let place = Place::new();
    let base = place.write("base", &some());
    let store = place.open().await;
    take(&store, "v1", &base).await;
    let before = store.list().await.unwrap().remove(0);
    give(&store, "v1", &place.fresh()).await;
    let after = store.list().await.unwrap().remove(0);
    assert!(after.last_accessed_at > before.last_accessed_at);
    assert_eq!(after.created_at, before.created_at);
}

#[tokio::test]
async fn inspect_tells_everything() {
    let place = Place::new();
    let tree = Tree::new()
        .file("d/file", "bytes")
        .mode("d/file", 0o640)
        .mtime("d/file", -5, 7)
        .xattr("d/file", "user.x", b"\0\xff")
        .hardlink("second", "d/file")
        .symlink("link", "d/file")
        .mtime("link", 100, 0)
        .mode("d", 0o711)
        .mtime("d", 200, 1);
    let base = place.write("base", &tree);
    let store = place.open().await;
    let taken = store
        .snapshot(&all("v1", &base).file(File::new(".")).annotation("k", "v"))
        .await
        .unwrap();
    let details = store.inspect(&reference("test:v1")).await.unwrap();
    assert_eq!(details.summary, store.list().await.unwrap()[0]);
    assert_eq!(details.summary.manifest_digest, taken.manifest_digest);
    assert_eq!(details.annotations["k"], "v");
    let [first, second] = details.files.as_slice() else {
        panic!("{:?}", details.files)
    };
    let (digest, checksum) = spf1(&base.join("second"));
    for file in [first, second] {
        assert_eq!((file.entry.mode, file.size), (0o640, 5));
        let there = file.digest.map(|digest| digest.to_string());
        assert_eq!(there.as_ref(), Some(&digest));
        assert_eq!(file.checksum.unwrap().to_string(), checksum);
        assert_eq!(file.entry.xattrs["user.x"], b"\0\xff");
        let before_1970 = std::time::UNIX_EPOCH - Duration::from_secs(5) + Duration::from_nanos(7);
        assert_eq!(file.entry.modified, before_1970);
        let own = stat(&base.join("second"));
        use std::os::unix::fs::MetadataExt;
        assert_eq!((file.entry.uid, file.entry.gid), (own.uid(), own.gid()));
    }
    assert_eq!(first.entry.relative_path, Path::new("d/file"));
    assert_eq!(second.hardlink_of.as_deref(), Some(Path::new("d/file")));
    let [directory] = details.directories.as_slice() else {
        panic!("{:?}", details.directories)
    };
    assert_eq!(
        (directory.relative_path.as_path(), directory.mode),
        (Path::new("d"), 0o711)
    );
    let [link] = details.symlinks.as_slice() else {
        panic!("{:?}", details.symlinks)
    };
    assert_eq!(link.target, Path::new("d/file"));
    assert_eq!(
        link.entry.modified,
        std::time::UNIX_EPOCH + Duration::from_secs(100)
    );
}

#[tokio::test]
async fn usage_counts_shared_bytes_once_and_asked_for_bytes_always() {
    let place = Place::new();
    let tree = Tree::new()
        .file(
            "a",
            Content::Random {
                seed: 1,
                len: 100_000,
            },
        )
        .file(
            "b",
            Content::Sparse {
                size: 10 * MIB,
                extents: vec![(MIB, 1, 65536)],
            },
        );
    let base = place.write("base", &tree);
    let store = place.open().await;
    let empty = store.usage().await.unwrap();
    assert_eq!(
        (empty.snapshots, empty.blobs, empty.stored_bytes),
        (0, 0, 0)
    );
    take(&store, "v1", &base).await;
    take(&store, "v2", &base).await;
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.snapshots, usage.blobs), (2, 2));
    assert_eq!(usage.logical_bytes, 2 * (100_000 + 10 * MIB));
    assert_eq!(usage.data_bytes, 2 * (100_000 + 65536));
    assert_eq!(usage.stored_bytes, 100_000 + 65536);
    assert!(usage.available_bytes <= usage.filesystem_bytes);
    assert!(usage.filesystem_bytes > 0);
}

#[tokio::test]
async fn opening_names_the_bad_field() {
    let place = Place::new();
    let good = || Config::new(place.root());
    let gc = |change: fn(&mut Gc)| {
        let mut gc = Gc::default();
        change(&mut gc);
        good().gc(gc)
    };
    let cases = [
        (Config::new(""), "root_dir"),
        (good().snapshot_concurrency(0), "snapshot_concurrency"),
        (good().restore_concurrency(0), "restore_concurrency"),
        (good().busy_timeout(Duration::MAX), "busy_timeout"),
        (gc(|gc| gc.interval = Duration::ZERO), "gc.interval"),
        (gc(|gc| gc.batch_size = 0), "gc.batch_size"),
        (
            gc(|gc| gc.disk_high_threshold_percent = 101.0),
            "gc.disk_high_threshold_percent",
        ),
        (
            gc(|gc| gc.disk_low_threshold_percent = -1.0),
            "gc.disk_low_threshold_percent",
        ),
    ];
    for (config, field) in cases {
        let error = Snapshotter::open(config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().starts_with(field), "{error}");
    }
    assert!(!place.root().exists());
}

#[tokio::test]
async fn roots_that_cannot_be_used_are_refused_and_named() {
    let place = Place::new();
    fs::write(place.path("file"), "").unwrap();
    let error = Snapshotter::open(Config::new(place.path("file")))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert_eq!(error.path(), Some(place.path("file").as_path()));

    let go = place.write("go", &Tree::new().file("metadata/snapshotter.db", "bolt"));
    let error = Snapshotter::open(Config::new(&go)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("Go library"), "{error}");

    let lost = place.write("lost", &Tree::new().file("storage/content/blake3/abc", "x"));
    let error = Snapshotter::open(Config::new(&lost)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert!(error.hint().is_some());
}

#[tokio::test]
async fn the_root_is_private() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::new();
    let _store = place.open().await;
    assert_eq!(stat(&place.root()).mode() & 0o777, 0o700);
}

#[tokio::test]
async fn a_closed_handle_says_so() {
    let place = Place::new();
    let base = place.write("base", &some());
    let store = place.open().await;
    let clone = store.clone();
    take(&store, "v1", &base).await;
    clone.close().await.unwrap();
    store.close().await.unwrap();
    let v1 = reference("test:v1");
    let errors = [
        store.snapshot(&all("v2", &base)).await.unwrap_err(),
        give_fails(&store, "v1", &place.fresh()).await,
        store.list().await.unwrap_err(),
        store.inspect(&v1).await.unwrap_err(),
        store.remove(&v1).await.unwrap_err(),
        store.verify(&VerifyRequest::all()).await.unwrap_err(),
        store.usage().await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
        assert!(error.to_string().contains("closed"), "{error}");
    }
    for part in ["leases", "staging", "trash"] {
        assert!(files_in(&place.root().join(part)).is_empty(), "{part}");
    }
    let store = place.open().await;
    give(&store, "v1", &place.fresh()).await;
}

#[tokio::test]
async fn closing_waits_for_what_is_running() {
    let place = Place::new();
    let base = place.write(
        "base",
        &Tree::new().file(
            "f",
            Content::Random {
                seed: 1,
                len: 3 * MIB,
            },
        ),
    );
    let store = place.open().await;
    let gate = Arc::new(Gate::default());
    let call = {
        let (store, request) = (store.observed_by(gate.clone()), all("v1", &base));
        tokio::spawn(async move { store.snapshot(&request).await })
    };
    gate.reached().await;
    let close = {
        let store = store.clone();
        tokio::spawn(async move { store.close().await })
    };
    // The handle is closed to new calls before the running one ends.
    while store.list().await.is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!close.is_finished());
    gate.open();
    call.await.unwrap().unwrap();
    close.await.unwrap().unwrap();
    let store = place.open().await;
    assert_eq!(store.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn dropping_the_last_handle_closes_the_store() {
    let place = Place::new();
    let store = place.open().await;
    take(&store, "v1", &place.write("base", &some())).await;
    drop(store);
    assert!(files_in(&place.root().join("leases")).is_empty());
}

#[tokio::test]
async fn two_handles_see_each_others_snapshots() {
    let place = Place::new();
    let base = place.write("base", &some());
    let (one, other) = (place.open().await, place.open().await);
    take(&one, "v1", &base).await;
    let error = other.snapshot(&all("v1", &base)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let again = take(&other, "v2", &base).await;
    assert_eq!(again.stored_bytes, 0);
    other.remove(&reference("test:v1")).await.unwrap();
    assert_eq!(one.list().await.unwrap().len(), 1);
    one.close().await.unwrap();
    let output = place.fresh();
    give(&other, "v2", &output).await;
    assert_same(&base, &output);
    assert_sound(&other).await;
}

/// One handle's call is running when the other removes all it could need.
#[tokio::test]
async fn what_a_running_snapshot_relies_on_stays() {
    let place = Place::new();
    let tree = Tree::new().file(
        "f",
        Content::Random {
            seed: 1,
            len: 3 * MIB,
        },
    );
    let base = place.write("base", &tree);
    let (one, other) = (place.open().await, place.open().await);
    take(&one, "v1", &base).await;
    let gate = Arc::new(Gate::default());
    let call = {
        let (store, request) = (one.observed_by(gate.clone()), all("v2", &base));
        tokio::spawn(async move { store.snapshot(&request).await })
    };
    gate.reached().await;
    other.remove(&reference("test:v1")).await.unwrap();
    verify(&other).await;
    gate.open();
    call.await.unwrap().unwrap();
    let output = place.fresh();
    give(&other, "v2", &output).await;
    assert_same(&base, &output);
    assert_sound(&other).await;
}

#[tokio::test]
async fn a_restore_outlives_the_removal_of_its_snapshot() {
    let place = Place::new();
    let tree = (0..20_u64).fold(Tree::new(), |tree, number| {
        let content = Content::Random {
            seed: number,
            len: MIB,
        };
        tree.file(format!("d{}/f{number}", number % 3), content)
    });
    let base = place.write("base", &tree);
    let (one, other) = (place.open().await, place.open().await);
    for read_only in [false, true] {
        let request = all("v1", &base)
            .file(File::new(".").read_only(read_only))
            .link_mode(LinkMode::Copy);
        one.snapshot(&request).await.unwrap();
        let gate = Arc::new(Gate::default());
        let output = place.fresh();
        let call = {
            let (store, request) = (one.observed_by(gate.clone()), to("v1", &output));
            tokio::spawn(async move { store.restore(&request).await })
        };
        gate.reached().await;
        other.remove(&reference("test:v1")).await.unwrap();
        verify(&other).await;
        assert!(other.list().await.unwrap().is_empty());
        gate.open();
        call.await.unwrap().unwrap();
        assert_same(&base, &output);
        assert_eq!(other.usage().await.unwrap().blobs, 0);
    }
    one.close().await.unwrap();
    other.close().await.unwrap();
    place.assert_empty();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clones_work_at_once() {
    let place = Place::new();
    let trees: Vec<PathBuf> = (0..10_u64)
        .map(|number| {
            let tree = Tree::random(50, 30).file(
                "own",
                Content::Random {
                    seed: number / 2,
                    len: 700_000 + number / 2,
                },
            );
            place.write(&format!("base-{number}"), &tree)
        })
        .collect();
    let (one, other) = (place.open().await, place.open().await);
    let mut calls = tokio::task::JoinSet::new();
    for (number, base) in trees.iter().enumerate() {
        let store = if number % 3 == 0 { &other } else { &one }.clone();
        let read_only = number % 2 == 0;
        let request = all(&number.to_string(), base).file(File::new(".").read_only(read_only));
        let outputs = [place.fresh(), place.fresh()];
        let base = base.clone();
        calls.spawn(async move {
            store.snapshot(&request).await.unwrap();
            let [first, second] = outputs
                .each_ref()
                .map(|output| to(&number.to_string(), output));
            let (one, two) = tokio::join!(store.restore(&first), store.restore(&second));
            one.unwrap();
            two.unwrap();
            for output in outputs {
                assert_same_with(&base, &output, &shared());
            }
        });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
    assert_eq!(one.list().await.unwrap().len(), 10);
    assert_sound(&one).await;
    for number in 0..10 {
        other
            .remove(&reference(&format!("test:{number}")))
            .await
            .unwrap();
    }
    assert_eq!(one.usage().await.unwrap().blobs, 0);
    one.close().await.unwrap();
    other.close().await.unwrap();
    place.assert_empty();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_snapshots_of_one_name_one_succeeds() {
    let place = Place::new();
    let base = place.write("base", &some());
    let (one, other) = (place.open().await, place.open().await);
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..8 {
        let store = if number % 2 == 0 { &one } else { &other }.clone();
        let request = all("v1", &base);
        calls.spawn(async move { store.snapshot(&request).await });
    }
    let mut succeeded = 0;
    while let Some(result) = calls.join_next().await {
        match result.unwrap() {
            Ok(_) => succeeded += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}"),
        }
    }
    assert_eq!(succeeded, 1);
    let output = place.fresh();
    give(&one, "v1", &output).await;
    assert_same(&base, &output);
    assert_sound(&other).await;
}

/// Each links the files into the store and so moves their change times while others read them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_snapshots_of_one_directory_at_once_all_succeed() {
    let place = Place::new();
    let base = place.write("base", &large());
    for path in files_below(&base) {
        age(&base.join(path));
    }
    let (one, other) = (place.open().await, place.open().await);
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..10 {
        let store = if number % 2 == 0 { &one } else { &other }.clone();
        let version = number.to_string();
        let request = all(&version, &base).file(File::new(".").read_only(number % 5 != 0));
        calls.spawn(async move { store.snapshot(&request).await.map(|_| ()) });
    }
    while let Some(result) = calls.join_next().await {
        result.unwrap().unwrap();
    }
    assert_eq!(one.usage().await.unwrap().blobs, 12);
    for number in 0..10 {
        let output = place.fresh();
        give(&one, &number.to_string(), &output).await;
        assert_same_with(&base, &output, &shared());
    }
    assert_sound(&other).await;
}

/// The one that is given up brought bytes that the other found there.
#[tokio::test]
async fn giving_up_a_snapshot_takes_nothing_from_another() {
    let place = Place::new();
    let base = place.write("base", &large());
    let (one, other) = (
        place
            .open_with(|config| config.snapshot_concurrency(1))
            .await,
        place.open().await,
    );
    for (version, read_only) in [("w", false), ("r", true)] {
        let request = |version: &str| all(version, &base).file(File::new(".").read_only(read_only));
        // At its last file but one it has committed most.
        let given_up = Arc::new(tokio::sync::Notify::new());
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let wait = std::sync::Mutex::new(wait);
        let observer = {
            let given_up = given_up.clone();
            OnProgress::new(move |number| {
                if number == 20 {
                    given_up.notify_one();
                    let _ = wait.lock().unwrap().recv();
                }
            })
        };
        let weak = Arc::downgrade(&observer);
        let observed = one.observed_by(observer);
        let doomed = request("doomed");
        tokio::select! {
            biased;
            () = async {
                given_up.notified().await;
                let taken = other.snapshot(&request(version)).await.unwrap();
                assert!(taken.blobs_reused > 0, "{taken:?}");
            } => {}
            result = observed.snapshot(&doomed) => panic!("it was to be given up: {result:?}"),
        }
        drop((go_on, observed));
        gone(weak).await;
        let output = place.fresh();
        give(&one, version, &output).await;
        assert_same_with(&base, &output, &shared());
        assert_eq!(one.list().await.unwrap().len(), 1);
        assert_sound(&one).await;
        one.remove(&reference(&format!("test:{version}")))
            .await
            .unwrap();
        assert_eq!(one.usage().await.unwrap().blobs, 0);
    }
}

#[tokio::test]
async fn what_may_not_be_read_is_an_error_that_names_it() {
    if is_root() {
        testkit::skip!("root may read everything");
    }
    let place = Place::new();
    let store = place.open().await;
    for path in ["d/file", "d"] {
        let tree = Tree::new().file("d/file", "x").mode(path, 0o000);
        let base = place.write(&path.replace('/', "-"), &tree);
        let error = store.snapshot(&all("v1", &base)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert_eq!(error.path(), Some(base.join(path).as_path()));
        assert_eq!(store.usage().await.unwrap().blobs, 0);
    }
}

fn large() -> Tree {
    (0..12_u64).fold(Tree::new(), |tree, number| {
        let len = if number % 2 == 0 { 2 * MIB } else { 5000 };
        tree.file(format!("f{number}"), Content::Random { seed: number, len })
    })
}

#[tokio::test]
async fn a_dropped_snapshot_leaves_nothing() {
    let place = Place::new();
    let base = place.write("base", &large());
    let store = place.open().await;
    for (read_only, after) in [(false, 0), (false, 9), (true, 0), (true, 9), (false, 17)] {
        let request = all("v1", &base).file(File::new(".").read_only(read_only));
        // The event at which the call is given up: before, or after, files were committed.
        let given_up = Arc::new(tokio::sync::Notify::new());
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let wait = std::sync::Mutex::new(Some(wait));
        let observer = {
            let given_up = given_up.clone();
            OnProgress::new(move |number| {
                if number == after {
                    given_up.notify_one();
                    let wait = wait.lock().unwrap().take().unwrap();
                    let _ = wait.recv();
                }
            })
        };
        let weak = Arc::downgrade(&observer);
        let observed = store.observed_by(observer);
        tokio::select! {
            biased;
            () = given_up.notified() => {}
            result = observed.snapshot(&request) => panic!("it was to be given up: {result:?}"),
        }
        drop(go_on);
        drop(observed);
        gone(weak).await;
        assert!(store.list().await.unwrap().is_empty());
        let usage = store.usage().await.unwrap();
        assert_eq!(
            (usage.snapshots, usage.blobs),
            (0, 0),
            "{read_only} {after}"
        );
        place.assert_empty();
    }
    take(&store, "v1", &base).await;
    let output = place.fresh();
    give(&store, "v1", &output).await;
    assert_same(&base, &output);
    assert_sound(&store).await;
}

#[tokio::test]
async fn a_dropped_restore_leaves_whole_files_alone() {
    let place = Place::new();
    let base = place.write("base", &large());
    let store = place.open().await;
    take(&store, "v1", &base).await;
    let gate = Arc::new(Gate::default());
    let output = place.fresh();
    let observed = store.observed_by(gate.clone());
    let request = to("v1", &output);
    tokio::select! {
        biased;
        () = gate.reached() => {}
        result = observed.restore(&request) => panic!("it was to be given up: {result:?}"),
    }
    gate.open();
    let weak = Arc::downgrade(&gate);
    drop((gate, observed));
    gone(weak).await;
    assert_no_litter(&output);
    for path in files_below(&output) {
        let same = fs::read(output.join(&path)).unwrap() == fs::read(base.join(&path)).unwrap();
        assert!(same, "{}", path.display());
    }
    give(&store, "v1", &output).await;
    assert_same(&base, &output);
    store.remove(&reference("test:v1")).await.unwrap();
    assert_eq!(store.usage().await.unwrap().blobs, 0);
}

#[tokio::test]
async fn a_call_dropped_before_it_started_does_nothing() {
    let place = Place::new();
    let base = place.write("base", &some());
    let store = place.open().await;
    drop(store.snapshot(&all("v1", &base)));
    assert!(store.list().await.unwrap().is_empty());
}

/// Changes a file at chosen events of a snapshot of it. The file is old, so each change moves its time.
async fn changed_meanwhile(
    read_only: bool,
    change: impl Fn(&Path, usize) + Send + Sync + 'static,
) -> (Place, PathBuf, Snapshotter, Result<(), snapshotter::Error>) {
    let place = Place::new();
    let tree = Tree::new().file("quiet", "quiet").file(
        "busy",
        Content::Random {
            seed: 1,
            len: 3 * MIB,
        },
    );
    let base = place.write("base", &tree);
    age(&base.join("busy"));
    age(&base.join("quiet"));
    let store = place
        .open_with(|config| config.snapshot_concurrency(1))
        .await;
    let path = base.join("busy");
    let observer = OnProgress::new(move |number| change(&path, number));
    // A clone is taken in one step and then read at leisure: nothing could change meanwhile.
    let mode = if read_only {
        LinkMode::Auto
    } else {
        LinkMode::Copy
    };
    let request = all("v1", &base)
        .file(File::new(".").read_only(read_only))
        .link_mode(mode);
    let taken = store.observed_by(observer).snapshot(&request).await;
    (place, base, store, taken.map(|_| ()))
}

async fn assert_taken_as_it_is_now(
    (place, base, store, taken): (Place, PathBuf, Snapshotter, Result<(), snapshotter::Error>),
) {
    taken.unwrap();
    let output = place.fresh();
    give(&store, "v1", &output).await;
    assert_same(&base, &output);
    assert_sound(&store).await;
}

async fn assert_busy(
    (place, base, store, taken): (Place, PathBuf, Snapshotter, Result<(), snapshotter::Error>),
) {
    let error = taken.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(error.to_string().contains("busy"), "{error}");
    assert_eq!(error.path(), Some(base.join("busy").as_path()));
    assert!(error.kind().is_retryable() && error.hint().is_some());
    assert_eq!(store.usage().await.unwrap().blobs, 0);
    place.assert_empty();
    take(&store, "v1", &base).await;
}

fn append(path: &Path) {
    use std::io::Write;
    let mut file = fs::File::options().append(true).open(path).unwrap();
    file.write_all(b"more").unwrap();
}

#[tokio::test]
async fn a_file_that_changes_once_is_read_again() {
    for read_only in [false, true] {
        // Events of one pass over the file: a piece each.
        for event in [0, 1] {
            let at = move |number: usize| number == event;
            let grown = changed_meanwhile(read_only, move |path, number| {
                if at(number) {
                    append(path);
                }
            });
            assert_taken_as_it_is_now(grown.await).await;
            let rewritten = changed_meanwhile(read_only, move |path, number| {
                if at(number) {
                    overwrite(path, 0, b"rewritten");
                }
            });
            assert_taken_as_it_is_now(rewritten.await).await;
            let shrunk = changed_meanwhile(read_only, move |path, number| {
                if at(number) {
                    let file = fs::File::options().write(true).open(path).unwrap();
                    file.set_len(MIB + 5).unwrap();
                }
            });
            assert_taken_as_it_is_now(shrunk.await).await;
            let replaced = changed_meanwhile(read_only, move |path, number| {
                if at(number) {
                    fs::write(path.with_extension("new"), "new bytes").unwrap();
                    fs::rename(path.with_extension("new"), path).unwrap();
                }
            });
            let (place, _, store, taken) = replaced.await;
            // The old inode, or the new one: whole.
            taken.unwrap();
            let output = place.fresh();
            give(&store, "v1", &output).await;
            let size = stat(&output.join("busy")).len();
            assert!(size == 3 * MIB || size == 9, "{size}");
        }
    }
}

#[tokio::test]
async fn a_file_that_keeps_changing_is_an_error_that_names_it() {
    for read_only in [false, true] {
        assert_busy(changed_meanwhile(read_only, |path, _| append(path)).await).await;
        let rewritten = changed_meanwhile(read_only, |path, number| {
            overwrite(path, 0, &[number as u8; 9])
        });
        assert_busy(rewritten.await).await;
    }
}

/// The change time betrays who puts the modification time back.
#[tokio::test]
async fn a_change_that_hides_is_seen_while_reading() {
    for read_only in [false, true] {
        let hidden = changed_meanwhile(read_only, |path, number| {
            overwrite_secretly(path, 100, &[number as u8; 9]);
        });
        let (place, base, store, taken) = hidden.await;
        match taken {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Busy),
            // Its last state, if the two last reads agreed.
            Ok(()) => {
                let output = place.fresh();
                give(&store, "v1", &output).await;
                assert_same(&base, &output);
            }
        }
    }
}

/// Linking a file elsewhere, or setting an attribute, changes no byte.
#[tokio::test]
async fn a_file_that_is_only_linked_meanwhile_is_taken() {
    for read_only in [false, true] {
        let links = AtomicUsize::new(0);
        let linked = changed_meanwhile(read_only, move |path, _| {
            let number = links.fetch_add(1, Ordering::SeqCst);
            let elsewhere = path
                .parent()
                .unwrap()
                .with_file_name(format!("link-{number}"));
            fs::hard_link(path, elsewhere).unwrap();
        });
        let (place, base, store, taken) = linked.await;
        taken.unwrap();
        let output = place.fresh();
        give(&store, "v1", &output).await;
        let (one, other) = (base.join("busy"), output.join("busy"));
        assert!(fs::read(one).unwrap() == fs::read(other).unwrap());
    }
}

#[tokio::test]
async fn a_file_that_was_asked_for_and_goes_away_is_an_error_that_names_it() {
    let place = Place::new();
    let tree = Tree::new()
        .file(
            "a",
            Content::Random {
                seed: 1,
                len: 2 * MIB,
            },
        )
        .file("z", "gone soon");
    let base = place.write("base", &tree);
    let store = place
        .open_with(|config| config.snapshot_concurrency(1))
        .await;
    let path = base.join("z");
    let observer = OnProgress::new(move |number| {
        if number == 0 {
            fs::remove_file(&path).unwrap();
        }
    });
    let error = store
        .observed_by(observer)
        .snapshot(&all("v1", &base).files([File::new("."), File::new("z")]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.path(), Some(base.join("z").as_path()));
    assert_eq!(store.usage().await.unwrap().blobs, 0);
    place.assert_empty();
}

#[tokio::test]
async fn a_file_swapped_for_a_symlink_is_not_followed() {
    let place = Place::new();
    let tree = Tree::new()
        .file(
            "a",
            Content::Random {
                seed: 1,
                len: 2 * MIB,
            },
        )
        .file("z", "swapped soon");
    let base = place.write("base", &tree);
    fs::write(place.path("secret"), "secret").unwrap();
    let store = place
        .open_with(|config| config.snapshot_concurrency(1))
        .await;
    let (path, secret) = (base.join("z"), place.path("secret"));
    let observer = OnProgress::new(move |number| {
        if number == 0 {
            fs::remove_file(&path).unwrap();
            symlink(&secret, &path).unwrap();
        }
    });
    let observed = store.observed_by(observer);
    let request = all("v1", &base).files([File::new("."), File::new("z")]);
    let error = observed.snapshot(&request).await.unwrap_err();
    assert_eq!(error.path(), Some(base.join("z").as_path()), "{error}");
    assert_eq!(store.usage().await.unwrap().blobs, 0);
}

#[tokio::test]
async fn relaxed_times_let_files_that_differ_in_time_share_an_inode() {
    let place = Place::new();
    let at = |seconds| Tree::new().file("f", "same bytes").mtime("f", seconds, 0);
    let (one, two) = (place.write("one", &at(1000)), place.write("two", &at(2000)));
    for relaxed in [false, true] {
        let root = place.path(&format!("root-{relaxed}"));
        let store = Snapshotter::open(Config::new(root).relaxed_times(relaxed))
            .await
            .unwrap();
        for (version, base) in [("1", &one), ("2", &two)] {
            let request = all_read_only(version, base).link_mode(LinkMode::Copy);
            store.snapshot(&request).await.unwrap();
        }
        let outputs = [place.fresh(), place.fresh()];
        give(&store, "1", &outputs[0]).await;
        give(&store, "2", &outputs[1]).await;
        let [first, second] = outputs.each_ref().map(|output| inode(&output.join("f")));
        assert_eq!(first == second, relaxed);
        assert_eq!(fs::read(outputs[1].join("f")).unwrap(), b"same bytes");
        if !relaxed {
            assert_eq!(mtime(&outputs[1].join("f")), (2000, 0));
        }
        // Other attributes are never shared.
        let request = all_read_only("3", &one).link_mode(LinkMode::Copy);
        fs::set_permissions(
            one.join("f"),
            std::os::unix::fs::PermissionsExt::from_mode(0o600),
        )
        .unwrap();
        store.snapshot(&request).await.unwrap();
        fs::set_permissions(
            one.join("f"),
            std::os::unix::fs::PermissionsExt::from_mode(0o644),
        )
        .unwrap();
        let output = place.fresh();
        give(&store, "3", &output).await;
        assert_ne!(inode(&output.join("f")), first);
        // A writable file gets its own time whatever is relaxed.
        take(&store, "4", &two).await;
        let output = place.fresh();
        give(&store, "4", &output).await;
        assert_eq!(mtime(&output.join("f")), (2000, 0));
    }
}

#[tokio::test]
async fn a_background_snapshot_is_synced_when_the_handle_is_closed() {
    let place = Place::new();
    let base = place.write("base", &large());
    let store = place
        .open_with(|config| config.durability(Durability::Background))
        .await;
    for version in ["v1", "v2", "v3"] {
        take(&store, version, &base).await;
    }
    store.remove(&reference("test:v2")).await.unwrap();
    store.close().await.unwrap();
    assert!(files_in(&place.root().join("leases")).is_empty());
    let store = place.open().await;
    assert_eq!(store.list().await.unwrap().len(), 2);
    assert_sound(&store).await;
}

#[tokio::test]
async fn directories_inside_the_store_are_refused() {
    let place = Place::new();
    let base = place.write("base", &Tree::new().file("file", "bytes"));
    let store = place.open().await;
    take(&store, "v1", &base).await;
    for inside in ["", "storage", "storage/content/blake3"] {
        let inside = place.path("store").join(inside);
        let error = store.snapshot(&all("v2", &inside)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        let error = store.restore(&to("v1", &inside)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains("inside the store"), "{error}");
    }
    assert_sound(&store).await;
}

#[tokio::test]
async fn excluded_paths_are_left_out_and_read_only_patterns_are_promises() {
    let place = Place::new();
    let tree = Tree::new()
        .file("memory", "m")
        .file("disk.img", "d")
        .file("cache/a/b", "c")
        .file("logs/x.log", "l")
        .file("logs/keep", "k");
    let base = place.write("base", &tree);
    let store = place.open().await;
    let request = all("v1", &base)
        .exclude("cache")
        .exclude("**/*.log")
        .read_only("mem*");
    let plan = store.plan_snapshot(&request).await.unwrap();
    let taken = store.snapshot(&request).await.unwrap();
    assert_eq!((plan.files, taken.files), (3, 3));
    let details = store.inspect(&taken.reference).await.unwrap();
    let found: Vec<_> = details
        .files
        .iter()
        .map(|file| (file.entry.relative_path.to_str().unwrap(), file.read_only))
        .collect();
    let wanted = [("disk.img", false), ("logs/keep", false), ("memory", true)];
    assert_eq!(found, wanted);
    assert_eq!(details.directories.len(), 1);
}

/// What patterns leave of a tree, and what is said of them.
async fn left_by(
    request: impl FnOnce(SnapshotRequest) -> SnapshotRequest,
) -> (Vec<String>, Vec<String>) {
    let place = Place::new();
    let tree = Tree::new()
        .file("a.log", "1")
        .file("src/b.log", "2")
        .file("src/keep.log", "3")
        .file("src/log/c", "4")
        .file("log", "5")
        .file("#draft#", "6");
    let base = place.write("base", &tree);
    let store = place.open().await;
    let taken = store.snapshot(&request(all("v1", &base))).await.unwrap();
    let details = store.inspect(&taken.reference).await.unwrap();
    let warnings = taken.warnings.into_iter().map(|warning| {
        assert_eq!(warning.kind, WarningKind::Unmatched);
        warning.message
    });
    (contents(&details), warnings.collect())
}

/// A pattern without a slash was matched at the top alone, which nobody who knows `.gitignore` expects.
#[tokio::test]
async fn patterns_are_gitignores_and_one_that_matches_nothing_is_told_of() {
    let (left, said) = left_by(|request| {
        let request = request.exclude("*.log").exclude("!keep.log");
        request.exclude("log/").exclude("#*#").exclude("/b.log")
    })
    .await;
    assert_eq!(left, ["log", "src/", "src/keep.log"]);
    assert_eq!(said, [r#"exclude: "/b.log" matches nothing"#]);
    // A promise does not spread: these are from the top.
    let (left, said) = left_by(|request| request.read_only("*.log").read_only("src/log")).await;
    let promised: Vec<_> = left.iter().filter(|path| path.ends_with('!')).collect();
    assert_eq!(promised, ["a.log!", "src/log/c!"]);
    assert_eq!(said, [""; 0]);
    let (_, said) = left_by(|request| request.read_only("memory")).await;
    assert_eq!(said, [r#"read_only: "memory" matches nothing"#]);
}

#[tokio::test]
async fn patterns_come_from_files_too() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("list");
    fs::write(&list, "# what nobody needs\n\n*.log\n\\#draft#\n").unwrap();
    let (left, said) = left_by(|request| request.exclude_from(&list).exclude("!a.log")).await;
    assert_eq!(left, ["a.log", "log", "src/", "src/log/", "src/log/c"]);
    assert_eq!(said, [""; 0]);
    let place = Place::new();
    let base = place.write("base", &some());
    let store = place.open().await;
    for (bytes, kind) in [
        (Some(b"a\xff".as_slice()), ErrorKind::InvalidInput),
        (None, ErrorKind::NotFound),
    ] {
        let list = dir.path().join("other");
        if let Some(bytes) = bytes {
            fs::write(&list, bytes).unwrap();
        }
        let request = all("v1", &base).exclude_from(&list);
        let error = store.snapshot(&request).await.unwrap_err();
        assert_eq!((error.kind(), error.path()), (kind, Some(list.as_path())));
        let _ = fs::remove_file(&list);
    }
}

#[tokio::test]
async fn one_file_system_is_not_left_but_where_a_path_is_named() {
    let Some(other) = or_skip(TmpfsMount::new(MIB)) else {
        return;
    };
    fs::create_dir(other.path().join("in")).unwrap();
    fs::write(other.path().join("in/file"), "x").unwrap();
    let place = Place::new();
    let base = place.write("base", &Tree::new().file("a", "a").dir("mounted"));
    let Some(_bound) = or_skip(BindMount::new(other.path(), &base.join("mounted"))) else {
        return;
    };
    let store = place.open().await;
    let stays = all("v1", &base).one_file_system(true);
    let taken = store.snapshot(&stays).await.unwrap();
    let found = contents(&store.inspect(&taken.reference).await.unwrap());
    assert_eq!(found, ["a", "mounted/"]);
    let named = all("v2", &base).one_file_system(true);
    let named = named.file(File::new("mounted/in")).file(File::new("a"));
    let taken = store.snapshot(&named).await.unwrap();
    let found = contents(&store.inspect(&taken.reference).await.unwrap());
    assert_eq!(found, ["a", "mounted/in/", "mounted/in/file"]);
}

#[tokio::test]
async fn a_block_device_that_is_named_is_read_like_a_file_of_its_size() {
    let mut bytes = vec![0; 3 * MIB as usize];
    bytes[5000..9000].fill(7);
    bytes[2 << 20..].fill(9);
    let Some(device) = or_skip(LoopDevice::new(&bytes)) else {
        return;
    };
    let place = Place::new();
    let store = place.open().await;
    let name = device.path().file_name().unwrap();
    let named = |version: &str| all(version, Path::new("/dev")).file(File::new(name));
    let error = store.snapshot(&named("v1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.hint().unwrap().contains("`devices`"), "{error}");
    for (version, format) in [("v1", Format::V1), ("v2", Format::V2)] {
        let request = named(version).devices(true).format(format);
        // A promise makes no link of a device's node.
        let request = request.read_only("*").link_mode(LinkMode::Hardlink);
        assert_eq!(
            store.plan_snapshot(&request).await.unwrap().logical_bytes,
            3 * MIB
        );
        let taken = store.snapshot(&request).await.unwrap();
        let output = place.path(version);
        store
            .restore(&RestoreRequest::new(taken.reference, &output))
            .await
            .unwrap();
        let restored = output.join(name);
        assert!(fs::symlink_metadata(&restored).unwrap().is_file());
        assert!(fs::read(&restored).unwrap() == bytes, "{format:?}");
    }
    assert_sound(&store).await;
}

const FORMATS: [(&str, Format); 2] = [("v1", Format::V1), ("v2", Format::V2)];

/// A store with a tree in both formats, and where that is.
async fn in_both_formats(tree: &Tree) -> (Place, PathBuf, Snapshotter) {
    let place = Place::new();
    let base = place.write("base", tree);
    let store = place.open().await;
    for (version, format) in FORMATS {
        let request = all(version, &base)
            .format(format)
            .parent(ParentChoice::None);
        store.snapshot(&request).await.unwrap();
    }
    (place, base, store)
}

#[tokio::test]
async fn a_file_is_read_without_being_restored_once_it_is_verified() {
    let tree = some()
        .file("d/large", random(1, 2 * MIB))
        .hardlink("second", "d/large");
    let (place, base, store) = in_both_formats(&tree).await;
    for (version, _) in FORMATS {
        let reference = reference(&format!("test:{version}"));
        for path in ["d/large", "second", "./top"] {
            let opened = store.open_snapshot(&reference).await.unwrap();
            let reader = opened.verified_reader(path).await.unwrap();
            let wanted = fs::read(base.join(path)).unwrap();
            let mut found = vec![0; wanted.len() + 1];
            let length = reader.read_at(&mut found, 0).unwrap();
            assert!(found[..length] == wanted, "{path}");
        }
        for path in ["nothing", "a", "a/link"] {
            let opened = store.open_snapshot(&reference).await.unwrap();
            let error = opened.verified_reader(path).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            assert_eq!(error.path(), Some(Path::new(path)));
        }
    }
    // One byte of the large file in each format: nothing of it is handed out.
    for object in objects_below(&place.content()) {
        let object = place.content().join(object);
        overwrite_secretly(&object, stat(&object).len() / 2, b"!");
    }
    for (version, _) in FORMATS {
        let reference = reference(&format!("test:{version}"));
        let opened = store.open_snapshot(&reference).await.unwrap();
        let error = opened.verified_reader("d/large").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    }
}

#[tokio::test]
async fn a_directory_is_compared_with_a_snapshot_and_nothing_is_stored() {
    let holes = Tree::new()
        .file("same", random(1, MIB))
        .file("zeros", vec![0; MIB as usize])
        .file("gone", "g")
        .file("longer", "1")
        .file("other", random(2, MIB))
        .hardlink("third", "same");
    let (place, base, store) = in_both_formats(&holes).await;
    let before = store.usage().await.unwrap();
    fs::remove_file(base.join("gone")).unwrap();
    fs::write(base.join("longer"), "12").unwrap();
    overwrite(&base.join("other"), 70_000, b"!");
    // As bytes, a hole and zeros are the same.
    fs::remove_file(base.join("zeros")).unwrap();
    fs::File::create(base.join("zeros"))
        .unwrap()
        .set_len(MIB)
        .unwrap();
    fs::write(base.join("new"), "n").unwrap();
    for (version, _) in FORMATS {
        let reference = reference(&format!("test:{version}"));
        let found = store.compare_directory(&reference, &base).await.unwrap();
        assert_eq!(
            found.changed,
            ["longer", "other"].map(PathBuf::from),
            "{version}"
        );
        let paths: Vec<_> = found
            .files
            .iter()
            .map(|file| file.entry.relative_path.to_str().unwrap())
            .collect();
        assert_eq!(paths, ["longer", "new", "other", "same", "third", "zeros"]);
        let nowhere = store
            .compare_directory(&reference, place.path("nowhere"))
            .await;
        assert_eq!(nowhere.unwrap_err().kind(), ErrorKind::NotFound);
    }
    let after = store.usage().await.unwrap();
    assert_eq!((after.blobs, after.packs), (before.blobs, before.packs));
    assert_eq!(
        files_below(&place.root().join("staging")),
        [""; 0].map(PathBuf::from)
    );
}

#[tokio::test]
async fn a_stream_becomes_a_file_of_a_snapshot() {
    let place = Place::new();
    let store = place.open().await;
    let bytes: Vec<u8> = (0..3 * MIB + 5).map(|n| (n / 4096) as u8).collect();
    for (version, format) in FORMATS {
        let request = SnapshotRequest::new("test", version, "").format(format);
        let reader = std::io::Cursor::new(bytes.clone());
        let report = store
            .snapshot_stream(&request, "d/file", reader)
            .await
            .unwrap();
        assert_eq!(
            (report.files, report.logical_bytes),
            (1, bytes.len() as u64)
        );
        let output = place.fresh();
        give(&store, version, &output).await;
        assert!(fs::read(output.join("d/file")).unwrap() == bytes);
        assert_eq!(
            stat(&output.join("d/file")).permissions().mode() & 0o7777,
            0o644
        );
        // Nothing is read for a name that is taken.
        let taken = store.snapshot_stream(&request, "d/file", Unread).await;
        assert_eq!(taken.unwrap_err().kind(), ErrorKind::AlreadyExists);
        let broken = SnapshotRequest::new("test", "broken", "").format(format);
        let error = store
            .snapshot_stream(&broken, "f", Broken)
            .await
            .unwrap_err();
        assert!(
            std::error::Error::source(&error)
                .unwrap()
                .to_string()
                .contains("torn")
        );
        let outside = store.snapshot_stream(&broken, "../f", Unread).await;
        assert_eq!(outside.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(store.list().await.unwrap().len(), 2);
    assert_sound(&store).await;
    assert_eq!(
        files_below(&place.root().join("staging")),
        [""; 0].map(PathBuf::from)
    );
}

/// A writer that writes no more and does not end kept the call, and the store open, for ever.
#[tokio::test]
async fn a_stream_that_nobody_writes_can_be_given_up() {
    let place = Place::new();
    let store = place.open().await;
    let (reader, writer) = std::io::pipe().unwrap();
    let request = SnapshotRequest::new("test", "v1", "");
    let call = store.snapshot_stream(&request, "f", reader);
    let given_up = tokio::time::timeout(Duration::from_millis(50), call).await;
    assert!(given_up.is_err());
    store.close().await.unwrap();
    drop(writer);
    let store = place.open().await;
    assert!(store.list().await.unwrap().is_empty());
}

/// A reader that nobody may ask.
struct Unread;

impl Read for Unread {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        panic!("it was read")
    }
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("torn"))
    }
}

#[tokio::test]
async fn a_store_is_verified_a_part_at_a_time() {
    let tree = (0..40).fold(Tree::new(), |tree, n| {
        tree.file(format!("f{n}"), random(n, 5000))
    });
    let (place, _, store) = in_both_formats(&tree).await;
    let usage = store.usage().await.unwrap();
    let damaged = place.content().join(&objects_below(&place.content())[0]);
    overwrite_secretly(&damaged, 7, b"!");
    let (mut blobs, mut packs, mut found) = (0, 0, 0);
    for part in 1..=4 {
        let subset = Subset::new(part, 4).unwrap();
        let report = store
            .verify(&VerifyRequest::all().subset(subset))
            .await
            .unwrap();
        assert_eq!(report.subset, Some(subset));
        assert!(report.checked_blobs < usage.blobs && report.missing.is_empty());
        blobs += report.checked_blobs;
        packs += report.checked_packs;
        found += report.damaged.len();
    }
    assert_eq!((blobs, packs, found), (usage.blobs, usage.packs, 1));
    // Chance goes through all parts.
    let parts = (0..1000).map(|_| "25%".parse::<Subset>().unwrap().part());
    assert_eq!(
        parts.collect::<std::collections::BTreeSet<_>>(),
        (1..=4).collect()
    );
    for wrong in [
        "0/4", "5/4", "1/0", "5", "0%", "101%", "-5%", "x%", "NaN%", "",
    ] {
        assert!(wrong.parse::<Subset>().is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn force_replaces_a_version_and_gives_back_what_only_it_needed() {
    let place = Place::new();
    let old = place.write("old", &Tree::new().file("file", "old").file("same", "s"));
    let new = place.write("new", &Tree::new().file("file", "new!").file("same", "s"));
    let store = place.open().await;
    take(&store, "v1", &old).await;
    let refused = store.snapshot(&all("v1", &new)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    let taken = store.snapshot(&all("v1", &new).force(true)).await.unwrap();
    assert_eq!((taken.blobs_stored, taken.blobs_reused), (1, 1));
    let usage = store.usage().await.unwrap();
    assert_eq!(
        (usage.snapshots, usage.blobs, usage.stored_bytes),
        (1, 2, 5)
    );
    let output = place.fresh();
    store.restore(&to("v1", &output)).await.unwrap();
    assert_same(&new, &output);
    assert_sound(&store).await;
}

#[tokio::test]
async fn plans_change_nothing_and_say_what_would_be_done() {
    let place = Place::new();
    let base = place.write(
        "base",
        &Tree::new().file("d/file", "bytes").symlink("l", "d"),
    );
    let store = place.open().await;
    let plan = store.plan_snapshot(&all("v1", &base)).await.unwrap();
    assert_eq!((plan.files, plan.directories, plan.symlinks), (1, 1, 1));
    assert!(!plan.exists);
    assert_eq!(store.usage().await.unwrap().blobs, 0);
    take(&store, "v1", &base).await;
    assert!(store.plan_snapshot(&all("v1", &base)).await.unwrap().exists);
    let output = place.path("output");
    let plan = store.plan_restore(&to("v1", &output)).await.unwrap();
    assert_eq!(
        (plan.files, plan.entries.len(), plan.existing.len()),
        (1, 3, 0)
    );
    assert!(!output.exists());
    store.restore(&to("v1", &output)).await.unwrap();
    let plan = store.plan_restore(&to("v1", &output)).await.unwrap();
    assert_eq!(plan.existing, [Path::new("d/file"), Path::new("l")]);
    let reference = "test:v1".parse().unwrap();
    let planned = store.plan_removal(&reference).await.unwrap();
    assert_eq!((planned.blobs_removed, planned.freed_bytes), (1, 5));
    assert_eq!(store.remove(&reference).await.unwrap(), planned);
}

#[tokio::test]
async fn a_diagnosis_is_what_a_restore_then_does() {
    let place = Place::new();
    let base = place.write("base", &Tree::new().file("file", "bytes"));
    let store = place.open().await;
    let request = all("v1", &base).file(File::new("file").read_only(true));
    store.snapshot(&request).await.unwrap();
    let output = place.fresh();
    std::fs::create_dir_all(&output).unwrap();
    let found = store.diagnose(Some(&output)).await.unwrap().output.unwrap();
    assert_eq!(std::fs::read_dir(&output).unwrap().count(), 0);
    let given = store.restore(&to("v1", &output)).await.unwrap();
    let linked = given.placements.hardlink.files == 1;
    assert_eq!(found.hardlink == snapshotter::Capability::Yes, linked);
}

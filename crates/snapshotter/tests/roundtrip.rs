//! What goes in comes out: bytes, holes, shared inodes, modes, times, links and extended attributes.

use crate::support_a;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use snapshotter::{
    Config, Durability, Event, File, LinkMode, Placement, SnapshotRequest, Snapshotter, WarningKind,
};
use support_a::*;
use testkit::compare::{assert_same, assert_same_with};
use testkit::{Content, Shape, Tree, fsstat};

const MIB: u64 = 1 << 20;

fn random(seed: u64, len: u64) -> Content {
    Content::Random { seed, len }
}

#[tokio::test]
async fn every_random_tree_comes_back_as_it_was() {
    let place = Place::new();
    let store = place.open().await;
    for seed in 0..25 {
        let version = format!("v{seed}");
        let source = place.write(&format!("source-{seed}"), &Tree::random(seed, 50));
        let taken = take(&store, &version, &source).await;
        assert_eq!(taken.warnings, [], "seed {seed}");
        let output = place.fresh();
        let given = give(&store, &version, &output).await;
        assert_eq!(given.warnings, [], "seed {seed}");
        assert_same(&source, &output);
        assert_no_litter(&output);
    }
    assert_sound(&store).await;
}

#[tokio::test]
async fn every_random_tree_comes_back_read_only() {
    let place = Place::new();
    let store = place.open().await;
    for seed in 100..108 {
        let source = place.write(&format!("source-{seed}"), &Tree::random(seed, 50));
        // Linked, the outputs are the source's own inodes; copied, they are views.
        for mode in [LinkMode::Auto, LinkMode::Copy] {
            let version = format!("v{seed}-{mode:?}");
            let request = all_read_only(&version, &source).link_mode(mode);
            store.snapshot(&request).await.unwrap();
            let output = place.fresh();
            let given = give(&store, &version, &output).await;
            assert_eq!(given.warnings, [], "seed {seed}");
            assert_same_with(&source, &output, &shared());
        }
    }
    assert_sound(&store).await;
}

#[tokio::test]
async fn views_hold_what_the_source_held() {
    let place = Place::new();
    let store = place.open().await;
    for seed in 200..204 {
        let source = place.write(&format!("source-{seed}"), &Tree::random(seed, 50));
        let copy = place.write(&format!("copy-{seed}"), &Tree::random(seed, 50));
        let version = format!("v{seed}");
        let request = all_read_only(&version, &source).link_mode(LinkMode::Copy);
        store.snapshot(&request).await.unwrap();
        testkit::tree::unlock(&source).unwrap();
        fs::remove_dir_all(&source).unwrap();
        for _ in 0..2 {
            let output = place.fresh();
            give(&store, &version, &output).await;
            assert_same_with(&copy, &output, &shared());
        }
    }
}

#[tokio::test]
async fn every_link_mode_gives_the_same_tree() {
    const MODES: [LinkMode; 4] = [
        LinkMode::Auto,
        LinkMode::Hardlink,
        LinkMode::Reflink,
        LinkMode::Copy,
    ];
    let place = Place::new();
    let source = place.write("source", &Tree::random(7, 40));
    for (number, taken) in MODES.into_iter().enumerate() {
        for read_only in [false, true] {
            // A store each: otherwise the first mode's blobs would do for all.
            let store =
                Snapshotter::open(Config::new(place.path(&format!("{number}-{read_only}"))))
                    .await
                    .unwrap();
            let request = all("v1", &source)
                .file(File::new(".").read_only(read_only))
                .link_mode(taken);
            store.snapshot(&request).await.unwrap();
            for given in MODES {
                let output = place.fresh();
                store
                    .restore(&to("v1", &output).link_mode(given))
                    .await
                    .unwrap();
                assert_same_with(&source, &output, &shared());
                if !read_only || given == LinkMode::Copy {
                    assert_same(&source, &output);
                }
            }
            assert_sound(&store).await;
        }
    }
}

#[tokio::test]
async fn a_mode_that_is_not_possible_is_a_warning_and_a_copy() {
    let place = Place::new();
    let source = place.write("source", &Tree::new().file("f", random(1, 10_000)));
    let store = place.open().await;
    let taken = store
        .snapshot(&all("v1", &source).link_mode(LinkMode::Reflink))
        .await
        .unwrap();
    let output = place.fresh();
    let given = store
        .restore(&to("v1", &output).link_mode(LinkMode::Reflink))
        .await
        .unwrap();
    assert_eq!(
        taken.placements.reflink.files + taken.placements.copy.files,
        1
    );
    for (placements, warnings) in [
        (taken.placements, taken.warnings),
        (given.placements, given.warnings),
    ] {
        let warned = warnings
            .iter()
            .filter(|warning| warning.kind == WarningKind::LinkMode)
            .count() as u64;
        assert_eq!(placements.copy.files, warned, "{warnings:?}");
        assert_eq!(placements.hardlink.files, 0);
    }
    assert_same(&source, &output);
}

#[tokio::test]
async fn an_empty_base_is_a_snapshot_too() {
    let place = Place::new();
    let source = place.write("source", &Tree::new());
    let store = place.open().await;
    let taken = take(&store, "v1", &source).await;
    assert_eq!(
        (taken.files, taken.directories, taken.logical_bytes),
        (0, 0, 0)
    );
    let output = place.fresh();
    let given = give(&store, "v1", &output).await;
    assert_eq!(given.files, 0);
    assert!(fsstat::paths(&output).unwrap().is_empty());
}

#[tokio::test]
async fn deep_paths_come_back() {
    let place = Place::new();
    let deep: PathBuf = (0..60).map(|level| format!("{level:050}")).collect();
    let tree = Tree::new()
        .file(deep.join("file"), "at the bottom")
        .symlink(deep.join("link"), "file")
        .dir(deep.join("empty"))
        .mode(deep.join("empty"), 0o700)
        .mtime(&deep, -1, 5);
    let source = place.write("source", &tree);
    let store = place.open().await;
    let taken = take(&store, "v1", &source).await;
    assert_eq!(taken.directories, 61);
    let output = place.fresh();
    give(&store, "v1", &output).await;
    assert_same(&source, &output);
}

#[tokio::test]
async fn two_thousand_files_come_back() {
    let place = Place::new();
    let tree = (0..2000_u64).fold(Tree::new(), |tree, number| {
        tree.file(
            format!("dir-{}/file-{number}", number % 37),
            random(number, number % 5000),
        )
    });
    let source = place.write("source", &tree);
    let store = place.open().await;
    let taken = take(&store, "v1", &source).await;
    assert_eq!((taken.files, taken.directories), (2000, 37));
    let output = place.fresh();
    let given = give(&store, "v1", &output).await;
    assert_eq!((given.files, given.directories), (2000, 37));
    assert_same(&source, &output);

    let again = take_read_only(&store, "v2", &source).await;
    assert_eq!((again.stored_bytes, again.blobs_stored), (0, 0));
    let output = place.fresh();
    give(&store, "v2", &output).await;
    assert_same_with(&source, &output, &shared());
}

#[tokio::test]
async fn names_are_bytes() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let place = Place::new();
    let long = "x".repeat(255);
    let odd = OsStr::from_bytes(b"\xff\xfe\n\x01");
    let dir = Path::new(OsStr::from_bytes(b"d\xc3\x28"));
    let tree = Tree::new()
        .file(&long, "long")
        .file(dir.join(odd), "odd")
        .file(dir.join("\u{fffd}"), "what a lossy name would be")
        .file(dir.join(OsStr::from_bytes(b"\xf0")), "one")
        .file(dir.join(OsStr::from_bytes(b"\xf1")), "other")
        .hardlink(OsStr::from_bytes(b"second \x80"), dir.join(odd))
        .symlink("to", OsStr::from_bytes(b"anywhere \xfd"));
    let source = place.write("source", &tree);
    let store = place.open().await;
    take(&store, "v1", &source).await;
    let output = place.fresh();
    give(&store, "v1", &output).await;
    assert_same(&source, &output);

    let details = store.inspect(&reference("test:v1")).await.unwrap();
    let names: Vec<&Path> = details
        .files
        .iter()
        .map(|file| file.entry.relative_path.as_path())
        .collect();
    assert!(names.contains(&dir.join(odd).as_path()), "{names:?}");
    let output = place.fresh();
    store
        .restore(&to("v1", &output).path(dir.join(odd)))
        .await
        .unwrap();
    assert_eq!(files_below(&output), [dir.join(odd)]);
}

#[tokio::test]
async fn four_gibibytes_of_hole_cost_nothing() {
    let place = Place::new();
    let content = Content::Sparse {
        size: 4 << 30,
        extents: vec![
            (0, 1, 4096),
            (2 << 30, 2, 2 * MIB),
            ((4 << 30) - 4096, 3, 4096),
        ],
    };
    let tree = Tree::new().file("memory", content).file(
        "nothing",
        Content::Sparse {
            size: (4 << 30) + 1,
            extents: vec![],
        },
    );
    let source = place.write("source", &tree);
    let store = place.open().await;
    for read_only in [false, true] {
        let version = format!("{read_only}");
        let request = all(&version, &source).file(File::new(".").read_only(read_only));
        let taken = store.snapshot(&request).await.unwrap();
        assert_eq!(taken.logical_bytes, (8 << 30) + 1);
        assert_eq!(taken.data_bytes, data_bytes(&source));
        let output = place.fresh();
        give(&store, &version, &output).await;
        assert_same(&source, &output);
    }
    assert!(fsstat::allocated_bytes(&place.root()).unwrap() < 16 * MIB);
}

/// The stream is worked on in pieces of 1 MiB, and in one go up to 256 KiB: sizes and extents around these.
#[tokio::test]
async fn pieces_of_any_length_are_hashed_and_copied_right() {
    const HEADERS: u64 = 20 + 16;
    let place = Place::new();
    let mut tree = Tree::new();
    for boundary in [256 << 10, MIB, 2 * MIB, 4 * MIB, 5 * MIB] {
        for size in [
            boundary - HEADERS - 1,
            boundary - HEADERS,
            boundary - HEADERS + 1,
            boundary - 1,
            boundary,
            boundary + 1,
        ] {
            tree = tree.file(format!("dense-{size}"), random(size, size));
        }
    }
    // The 255th extent's descriptor lies across the end of the first piece: 20 + 254 * 16 + 255 * 4096 = 1 MiB - 12.
    let straddling = (0..300_u64)
        .map(|number| {
            let blocks = if number == 7 { 2 } else { 1 };
            (number * 4 * 4096, number, blocks * 4096)
        })
        .collect();
    let sparse = |size, extents| Content::Sparse { size, extents };
    tree = tree
        .file("straddling", sparse(5 * MIB, straddling))
        // Two extents of data that end where a piece does, and one of a byte.
        .file(
            "ends",
            sparse(
                8 * MIB,
                vec![
                    (0, 1, MIB - 4096),
                    (3 * MIB, 2, 2 * MIB),
                    (8 * MIB - 1, 3, 1),
                ],
            ),
        )
        .file("leading", sparse(4 * MIB, vec![(3 * MIB, 5, MIB)]))
        .file("trailing", sparse(4 * MIB + 17, vec![(0, 6, MIB)]));
    let source = place.write("source", &tree);
    let before: Vec<(PathBuf, (String, String))> = files_below(&source)
        .into_iter()
        .map(|path| (path.clone(), spf1(&source.join(path))))
        .collect();

    let store = place.open().await;
    take(&store, "v1", &source).await;
    let details = store.inspect(&reference("test:v1")).await.unwrap();
    assert_eq!(details.files.len(), before.len());
    for (file, (path, (digest, checksum))) in details.files.iter().zip(&before) {
        assert_eq!(&file.entry.relative_path, path);
        assert_eq!(
            &file.digest.unwrap().to_string(),
            digest,
            "{}",
            path.display()
        );
        let found = file.checksum.unwrap().to_string();
        assert_eq!(&found, checksum, "{}", path.display());
    }
    let output = place.fresh();
    give(&store, "v1", &output).await;
    assert_same(&source, &output);

    // Read-only captures hash without copying, and known files without either: by other code.
    let other = place.path("other");
    for (root, version) in [(&other, "v1"), (&other, "v2"), (&place.root(), "v2")] {
        let store = Snapshotter::open(Config::new(root)).await.unwrap();
        take_read_only(&store, version, &source).await;
        let now = store.inspect(&reference("test:v1")).await.unwrap();
        let digests = |details: &snapshotter::SnapshotDetails| -> Vec<_> {
            let files = details.files.iter();
            files.map(|file| (file.digest, file.checksum)).collect()
        };
        assert_eq!(digests(&now), digests(&details));
    }
}

#[tokio::test]
async fn reading_needs_no_write_permission() {
    let place = Place::new();
    let tree = Tree::new()
        .file("d/r--", random(1, 3 * MIB))
        .mode("d/r--", 0o400)
        .xattr("d/r--", "user.x", b"1")
        .file("d/r--r--r--", random(2, 100))
        .mode("d/r--r--r--", 0o444)
        .mode("d", 0o500);
    let source = place.write("source", &tree);
    let store = place.open().await;
    for read_only in [false, true] {
        let version = format!("{read_only}");
        let request = all(&version, &source).file(File::new("d").read_only(read_only));
        let taken = store.snapshot(&request).await.unwrap();
        assert_eq!(taken.warnings, []);
        let output = place.fresh();
        let given = give(&store, &version, &output).await;
        assert_eq!(given.warnings, []);
        assert_same(&source, &output);
    }
}

fn counted() -> Tree {
    Tree::new()
        .file("dense", random(1, 2 * MIB))
        .file(
            "sparse",
            Content::Sparse {
                size: 8 * MIB,
                extents: vec![(MIB, 2, MIB)],
            },
        )
        .hardlink("dir/second", "dense")
        .file("dir/twin", random(1, 2 * MIB))
        .file("small", "small")
        .file("dir/empty", "")
        .symlink("dir/link", "twin")
        .dir("void")
}

#[tokio::test]
async fn a_report_counts_what_was_done() {
    let place = Place::new();
    let source = place.write("source", &counted());
    for path in files_below(&source) {
        age(&source.join(path));
    }
    let dense = 2 * MIB;
    let data = 2 * dense + MIB + 5;
    let stored = dense + MIB + 5;
    for read_only in [false, true] {
        let store = Snapshotter::open(Config::new(place.path(&format!("root-{read_only}"))))
            .await
            .unwrap();
        let request =
            |version: &str| all(version, &source).file(File::new(".").read_only(read_only));
        let taken = store.snapshot(&request("v1")).await.unwrap();
        assert_eq!((taken.files, taken.directories, taken.symlinks), (6, 2, 1));
        assert_eq!(taken.logical_bytes, 2 * dense + 8 * MIB + 5);
        assert_eq!((taken.data_bytes, taken.stored_bytes), (data, stored));
        assert_eq!((taken.blobs_stored, taken.blobs_reused), (4, 0));
        assert_eq!(taken.placements.present.files, 1);
        assert_eq!(taken.placements.present.bytes, dense);
        let by = taken.placements;
        let linked = (by.hardlink.files, by.hardlink.bytes);
        let moved = (
            by.reflink.files + by.copy.files,
            by.reflink.bytes + by.copy.bytes,
        );
        let (all_of_it, nothing) = ((4, stored), (0, 0));
        if read_only {
            assert_eq!((linked, moved), (all_of_it, nothing));
        } else {
            assert_eq!((linked, moved), (nothing, all_of_it));
        }
        assert_eq!(taken.reference.version(), Some("v1"));
        assert_eq!(
            taken.reference.manifest_digest(),
            Some(taken.manifest_digest)
        );

        let again = store.snapshot(&request("v2")).await.unwrap();
        assert_eq!(
            (again.stored_bytes, again.blobs_stored, again.blobs_reused),
            (0, 0, 4)
        );
        assert_eq!(
            (again.data_bytes, again.placements.present.files),
            (data, 5)
        );
        assert_eq!(again.manifest_digest, taken.manifest_digest);

        let output = place.fresh();
        let given = give(&store, "v1", &output).await;
        assert_eq!((given.files, given.directories, given.symlinks), (6, 2, 1));
        assert_eq!(
            (given.logical_bytes, given.data_bytes),
            (taken.logical_bytes, data)
        );
        let all_of_them = [
            given.placements.hardlink,
            given.placements.reflink,
            given.placements.copy,
            given.placements.present,
        ];
        assert_eq!(all_of_them.iter().map(|count| count.files).sum::<u64>(), 5);
        assert_eq!(
            all_of_them.iter().map(|count| count.bytes).sum::<u64>(),
            data
        );
        assert_eq!(
            given.placements.hardlink.files,
            if read_only { 5 } else { 0 }
        );
        assert_eq!(given.manifest_digest, taken.manifest_digest);
    }
}

#[tokio::test]
async fn a_second_snapshot_stores_nothing() {
    let place = Place::new();
    let source = place.write("source", &Tree::random(11, 60));
    let store = place.open().await;
    let taken = take(&store, "v1", &source).await;
    assert!(taken.stored_bytes > 0);
    let before = fsstat::allocated_bytes(&place.root().join("storage")).unwrap();
    for (version, read_only) in [("v2", false), ("v3", true)] {
        let request = all(version, &source).file(File::new(".").read_only(read_only));
        let taken = store.snapshot(&request).await.unwrap();
        assert_eq!(
            (taken.stored_bytes, taken.blobs_stored),
            (0, 0),
            "{version}"
        );
    }
    let after = fsstat::allocated_bytes(&place.root().join("storage")).unwrap();
    assert_eq!(before, after);
}

/// The recorded time vouches for a hardlinked blob only if it is past: bytes are stored once all the same.
#[tokio::test]
async fn a_read_only_file_from_the_future_is_stored_once() {
    let place = Place::new();
    let tree = Tree::new()
        .file("one", random(1, 10_000))
        .mtime("one", 4_000_000_000, 0)
        .file("other", random(1, 10_000))
        .mtime("other", 4_000_000_000, 0);
    let source = place.write("source", &tree);
    let store = place.open().await;
    let taken = take_read_only(&store, "v1", &source).await;
    assert_eq!((taken.stored_bytes, taken.blobs_stored), (10_000, 1));
    let again = take_read_only(&store, "v2", &source).await;
    assert_eq!((again.stored_bytes, again.blobs_stored), (0, 0));
}

#[tokio::test]
async fn the_store_keeps_bytes_once() {
    let place = Place::new();
    let tree = Tree::new()
        .file("dense", random(1, 8 * MIB))
        .file("twin", random(1, 8 * MIB))
        .file(
            "sparse",
            Content::Sparse {
                size: 256 * MIB,
                extents: vec![(64 * MIB, 2, 2 * MIB)],
            },
        );
    let source = place.write("source", &tree);
    let store = place.open().await;
    take(&store, "v1", &source).await;
    take(&store, "v2", &source).await;
    for _ in 0..2 {
        give(&store, "v1", &place.fresh()).await;
    }
    store.close().await.unwrap();
    let allocated = fsstat::allocated_bytes(&place.root().join("storage")).unwrap();
    assert!((10 * MIB..11 * MIB).contains(&allocated), "{allocated}");
    assert!(files_below(&place.root().join("staging")).is_empty());
}

#[tokio::test]
async fn a_read_only_file_is_its_own_blob_and_all_restores_share_it() {
    let place = Place::new();
    let source = place.write("source", &Tree::new().file("memory", random(1, 4 * MIB)));
    age(&source.join("memory"));
    let store = place.open().await;
    let taken = take_read_only(&store, "v1", &source).await;
    assert_eq!(taken.warnings, []);
    assert_eq!(taken.placements.hardlink.files, 1);
    let own = inode(&source.join("memory"));
    assert_eq!(inode(&place.only_blob()), own);
    for _ in 0..3 {
        let output = place.fresh();
        let given = give(&store, "v1", &output).await;
        assert_eq!(given.placements.hardlink.files, 1);
        assert_eq!(inode(&output.join("memory")), own);
    }
    assert!(files_in(&place.views()).is_empty());
}

#[tokio::test]
async fn a_file_open_for_writing_is_not_linked() {
    let place = Place::new();
    let source = place.write("source", &Tree::new().file("memory", random(1, 100_000)));
    age(&source.join("memory"));
    let store = place.open().await;
    let writer = fs::File::options()
        .write(true)
        .open(source.join("memory"))
        .unwrap();
    let taken = take_read_only(&store, "v1", &source).await;
    drop(writer);
    assert_eq!(taken.placements.hardlink.files, 0);
    assert_eq!(taken.warnings.len(), 1, "{:?}", taken.warnings);
    assert_eq!(taken.warnings[0].kind, WarningKind::Writer);
    assert_eq!(taken.warnings[0].path.as_deref(), Some(Path::new("memory")));
    assert_ne!(inode(&place.only_blob()), inode(&source.join("memory")));
    let output = place.fresh();
    give(&store, "v1", &output).await;
    assert_same(&source, &output);
}

#[tokio::test]
async fn a_writable_restore_never_shares_an_inode_with_the_store() {
    let place = Place::new();
    let source = place.write("source", &Tree::random(13, 40));
    let store = place.open().await;
    take_read_only(&store, "r", &source).await;
    give(&store, "r", &place.fresh()).await;
    take(&store, "w", &source).await;
    for mode in [LinkMode::Auto, LinkMode::Hardlink] {
        let output = place.fresh();
        store
            .restore(&to("w", &output).link_mode(mode))
            .await
            .unwrap();
        let stored: Vec<(u64, u64)> = place
            .blobs()
            .iter()
            .chain(&files_in(&place.views()))
            .map(|path| inode(path))
            .collect();
        for path in files_below(&output) {
            let path = output.join(path);
            assert!(!stored.contains(&inode(&path)), "{}", path.display());
        }
    }
}

#[tokio::test]
async fn a_writable_capture_never_shares_an_inode_with_the_store() {
    let place = Place::new();
    let source = place.write("source", &Tree::new().file("disk", random(1, 2 * MIB)));
    let store = place.open().await;
    let request = all("v1", &source).link_mode(LinkMode::Hardlink);
    store.snapshot(&request).await.unwrap();
    assert_ne!(inode(&place.only_blob()), inode(&source.join("disk")));
    assert_eq!(stat(&source.join("disk")).nlink(), 1);
}

#[tokio::test]
async fn sockets_fifos_and_devices_are_left_out_and_named() {
    let place = Place::new();
    let source = place.write(
        "source",
        &Tree::new().fifo("d/pipe").file("d/file", "bytes"),
    );
    let _socket = UnixListener::bind(source.join("socket")).unwrap();
    let mut left_out = vec!["d/pipe", "socket"];
    if is_root() {
        let made = rustix::fs::mknodat(
            rustix::fs::CWD,
            source.join("null"),
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::RUSR,
            rustix::fs::makedev(1, 3),
        );
        if made.is_ok() {
            left_out.insert(1, "null");
        }
    }
    let store = place.open().await;
    let taken = take(&store, "v1", &source).await;
    let named: Vec<&str> = taken
        .warnings
        .iter()
        .map(|warning| {
            assert_eq!(warning.kind, WarningKind::Skipped);
            warning.path.as_ref().unwrap().to_str().unwrap()
        })
        .collect();
    assert_eq!(named, left_out);
    assert_eq!((taken.files, taken.directories), (1, 1));
    let output = place.fresh();
    give(&store, "v1", &output).await;
    assert_eq!(files_below(&output), [Path::new("d/file")]);
}

#[tokio::test]
async fn a_requested_fifo_is_left_out_and_named() {
    let place = Place::new();
    let source = place.write("source", &Tree::new().fifo("pipe"));
    let store = place.open().await;
    let request = all("v1", &source).file(File::new("pipe"));
    let taken = store.snapshot(&request).await.unwrap();
    assert_eq!(taken.files, 0);
    assert_eq!(taken.warnings[0].path.as_deref(), Some(Path::new("pipe")));
}

#[tokio::test]
async fn a_store_inside_the_base_is_left_out_and_named() {
    let place = Place::new();
    let source = place.write("source", &Tree::new().file("a/file", "bytes"));
    let root = source.join("a/store");
    let store = Snapshotter::open(Config::new(&root)).await.unwrap();
    for version in ["v1", "v2"] {
        let taken = take(&store, version, &source).await;
        assert_eq!((taken.files, taken.directories), (1, 1));
        assert_eq!(taken.warnings.len(), 1, "{:?}", taken.warnings);
        assert_eq!(taken.warnings[0].kind, WarningKind::Skipped);
        assert_eq!(
            taken.warnings[0].path.as_deref(),
            Some(Path::new("a/store"))
        );
    }
    let output = place.fresh();
    give(&store, "v2", &output).await;
    assert_eq!(files_below(&output), [Path::new("a/file")]);
}

#[tokio::test]
async fn an_observer_hears_of_every_file_and_every_byte_of_a_snapshot() {
    let place = Place::new();
    let source = place.write("source", &counted());
    for path in files_below(&source) {
        age(&source.join(path));
    }
    let store = place.open().await;
    for (version, read_only) in [("v1", false), ("v2", true)] {
        let seen = Arc::new(Recorder::default());
        let request = all(version, &source).file(File::new(".").read_only(read_only));
        let taken = store
            .observed_by(seen.clone())
            .snapshot(&request)
            .await
            .unwrap();
        assert_eq!(seen.planned(), (5, taken.data_bytes));
        assert_eq!(seen.progressed(), taken.data_bytes);
        let paths: Vec<PathBuf> = seen.finished().into_iter().map(|(path, _)| path).collect();
        let first_names = ["dense", "dir/empty", "dir/twin", "small", "sparse"];
        assert_eq!(paths, first_names.map(PathBuf::from));
        let events = seen.events();
        assert!(matches!(events.first(), Some(Event::Planned { .. })));
        assert_eq!(events.last(), Some(&Event::Syncing));
    }
}

#[tokio::test]
async fn an_observer_hears_of_every_file_and_every_byte_of_a_restore() {
    let place = Place::new();
    let source = place.write("source", &counted());
    let store = place.open().await;
    take(&store, "v1", &source).await;
    // Views are to be made for the second.
    let request = all_read_only("v2", &source).link_mode(LinkMode::Copy);
    store.snapshot(&request).await.unwrap();
    for version in ["v1", "v2"] {
        let output = place.fresh();
        for placement in [None, Some(Placement::Present)] {
            let seen = Arc::new(Recorder::default());
            let given = store
                .observed_by(seen.clone())
                .restore(&to(version, &output))
                .await
                .unwrap();
            assert_eq!(seen.planned(), (5, given.data_bytes));
            assert_eq!(
                seen.progressed(),
                given.data_bytes,
                "{version} {placement:?}"
            );
            let finished = seen.finished();
            assert_eq!(finished.len(), 5);
            if let Some(placement) = placement {
                assert!(finished.iter().all(|(_, found)| *found == placement));
            }
        }
    }
}

/// A view is a copy where nothing can be cloned: its bytes are not to be counted twice.
#[tokio::test]
async fn an_observer_hears_of_the_bytes_of_a_new_view_once() {
    let place = Place::new();
    let tree = Tree::new()
        .file("one", random(1, 3 * MIB))
        .mode("one", 0o644)
        .file("other", random(1, 3 * MIB))
        .mode("other", 0o600);
    let source = place.write("source", &tree);
    let store = place.open().await;
    take_read_only(&store, "v1", &source).await;
    let seen = Arc::new(Recorder::default());
    let given = store
        .observed_by(seen.clone())
        .restore(&to("v1", &place.fresh()))
        .await
        .unwrap();
    assert_eq!(given.data_bytes, 6 * MIB);
    assert_eq!(seen.progressed(), 6 * MIB);
}

#[tokio::test]
async fn the_planned_bytes_are_about_those_of_the_data() {
    let place = Place::new();
    let many = (0..500_u64).map(|number| (number * 16384, number, 4096));
    let tree = Tree::new()
        .file(
            "scattered",
            Content::Sparse {
                size: 500 * 16384,
                extents: many.collect(),
            },
        )
        .file(
            "hole",
            Content::Sparse {
                size: MIB,
                extents: vec![],
            },
        )
        .xattr("hole", "user.large", vec![7; 2000]);
    let source = place.write("source", &tree);
    let store = place.open().await;
    let seen = Arc::new(Recorder::default());
    let taken = store
        .observed_by(seen.clone())
        .snapshot(&all("v1", &source))
        .await
        .unwrap();
    assert_eq!(seen.progressed(), taken.data_bytes);
    let about = taken.data_bytes..taken.data_bytes + 64 * 1024;
    assert!(about.contains(&seen.planned().1), "{:?}", seen.planned());
}

#[tokio::test]
async fn second_names_come_back_as_second_names() {
    let place = Place::new();
    let tree = Tree::new()
        .file("z/first", random(1, 10_000))
        .hardlink("a/second", "z/first")
        .hardlink("third", "z/first")
        .file("twin", random(1, 10_000))
        .xattr("z/first", "user.x", b"")
        .mode("z/first", 0o640);
    let source = place.write("source", &tree);
    let store = place.open().await;
    for read_only in [false, true] {
        let version = format!("{read_only}");
        let request = all(&version, &source).file(File::new(".").read_only(read_only));
        let taken = store.snapshot(&request).await.unwrap();
        assert_eq!((taken.files, taken.logical_bytes), (4, 20_000));
        let output = place.fresh();
        give(&store, &version, &output).await;
        assert_same(&source, &output);
    }
    let details = store.inspect(&reference("test:false")).await.unwrap();
    let of: Vec<Option<&Path>> = details
        .files
        .iter()
        .map(|file| file.hardlink_of.as_deref())
        .collect();
    let first = Some(Path::new("a/second"));
    assert_eq!(of, [None, first, None, first]);
}

#[tokio::test]
async fn a_promise_for_one_name_only_is_none() {
    let place = Place::new();
    let tree = Tree::new().file("a", "bytes").hardlink("b", "a");
    let source = place.write("source", &tree);
    age(&source.join("a"));
    let store = place.open().await;
    let request = all("v1", &source)
        .file(File::new("a").read_only(true))
        .file(File::new("b"));
    store.snapshot(&request).await.unwrap();
    let details = store.inspect(&reference("test:v1")).await.unwrap();
    assert!(details.files.iter().all(|file| !file.read_only));
    assert_ne!(inode(&place.only_blob()), inode(&source.join("a")));
}

#[tokio::test]
async fn many_attributes_come_back() {
    let place = Place::new();
    let mut tree = Tree::new().file("f", "bytes").dir("d");
    for path in ["f", "d"] {
        for number in 0..15 {
            let name = format!("user.{}{number}", "n".repeat(60));
            tree = tree.xattr(path, name, vec![number; 50]);
        }
        tree = tree
            .xattr(path, "user.empty", b"")
            .xattr(path, "user.\u{e9}", b"\0");
    }
    let source = place.write("source", &tree);
    let store = place.open().await;
    take(&store, "w", &source).await;
    let request = all_read_only("r", &source).link_mode(LinkMode::Copy);
    store.snapshot(&request).await.unwrap();
    for version in ["w", "r"] {
        let output = place.fresh();
        let given = give(&store, version, &output).await;
        assert_eq!(given.warnings, []);
        assert_same(&source, &output);
    }
}

#[tokio::test]
async fn root_keeps_owners() {
    if !is_root() {
        testkit::skip!("only root gives files away");
    }
    let place = Place::new();
    let shape = Shape {
        owners: true,
        ..Shape::default()
    };
    let source = place.write("source", &Tree::random_with(5, 60, &shape));
    let store = place.open().await;
    take(&store, "w", &source).await;
    let request = all_read_only("r", &source).link_mode(LinkMode::Copy);
    store.snapshot(&request).await.unwrap();
    for version in ["w", "r"] {
        let output = place.fresh();
        let given = give(&store, version, &output).await;
        assert_eq!(given.warnings, []);
        assert_same_with(&source, &output, &shared());
    }
}

/// Access rights for one more user, as `setfacl -m u:1234:rw` writes them.
fn acl() -> Vec<u8> {
    let mut acl = 2_u32.to_le_bytes().to_vec();
    let anybody = u32::MAX;
    for (tag, rights, id) in [
        (0x01_u16, 6_u16, anybody),
        (0x02, 6, 1234),
        (0x04, 4, anybody),
        (0x10, 6, anybody),
        (0x20, 0, anybody),
    ] {
        acl.extend(tag.to_le_bytes());
        acl.extend(rights.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 4096];
    let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}

#[tokio::test]
async fn root_keeps_access_lists_and_trusted_attributes() {
    if !is_root() {
        testkit::skip!("only root reads and writes trusted attributes");
    }
    let place = Place::new();
    let tree = Tree::new()
        .file("d/file", "bytes")
        .owner("d/file", 1000, 1000);
    let source = place.write("source", &tree);
    let (file, dir) = (source.join("d/file"), source.join("d"));
    let set = |path: &Path, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty())
    };
    if set(&file, "trusted.t", b"trust").is_err() {
        testkit::skip!("the filesystem has no trusted attributes");
    }
    let mut expected = vec![(&file, "trusted.t"), (&dir, "trusted.t")];
    set(&dir, "trusted.t", b"me").unwrap();
    if set(&file, "system.posix_acl_access", &acl()).is_ok() {
        set(&dir, "system.posix_acl_default", &acl()).unwrap();
        expected.push((&file, "system.posix_acl_access"));
        expected.push((&dir, "system.posix_acl_default"));
    }
    let store = place.open().await;
    take(&store, "w", &source).await;
    let request = all_read_only("r", &source).link_mode(LinkMode::Copy);
    store.snapshot(&request).await.unwrap();
    for version in ["w", "r"] {
        let output = place.fresh();
        let given = give(&store, version, &output).await;
        assert_eq!(given.warnings, []);
        for (path, name) in &expected {
            let restored = output.join(path.strip_prefix(&source).unwrap());
            assert_eq!(
                xattr(&restored, name),
                xattr(path, name),
                "{version} {name}"
            );
        }
        assert_same_with(&source, &output, &shared());
    }
    // A file that has no list of its own must not inherit one from its directory.
    let plain = place.write("plain", &Tree::new().file("d/file", "bytes"));
    if set(&plain.join("d"), "system.posix_acl_default", &acl()).is_ok() {
        take(&store, "plain", &plain).await;
        let output = place.write("taken", &Tree::new().dir("d"));
        set(&output.join("d"), "system.posix_acl_default", &acl()).unwrap();
        give(&store, "plain", &output).await;
        let restored = output.join("d/file");
        assert_eq!(xattr(&restored, "system.posix_acl_access"), None);
        assert_same(&plain, &output);
    }
}

/// A `/tmp` of mode 1777 came back as 777, where everybody may remove everybody's files, and a `sudo` of mode 4755 as 755, for
/// good: neither was written down.
#[tokio::test]
async fn sticky_bits_are_kept_and_setuid_bits_where_they_are_asked_for() {
    let place = Place::new();
    let tree = Tree::new()
        .file("program", "bytes")
        .mode("program", 0o4755)
        .hardlink("same-program", "program")
        .file("d/script", "bytes")
        .mode("d/script", 0o2711)
        .mode("d", 0o2775)
        .dir("tmp")
        .mode("tmp", 0o1777);
    let source = place.write("source", &tree);
    testkit::tree::set_mtime(&source.join("program"), OLD).unwrap();
    let store = place.open().await;
    assert_eq!(take_read_only(&store, "r", &source).await.warnings, []);
    assert_eq!(take(&store, "w", &source).await.warnings, []);
    let paths = ["program", "same-program", "d/script", "d", "tmp"];
    let modes = |output: &Path| paths.map(|path| stat(&output.join(path)).mode() & 0o7777);
    for version in ["r", "w", "r"] {
        let output = place.fresh();
        let given = give(&store, version, &output).await;
        assert_eq!(modes(&output), [0o755, 0o755, 0o711, 0o775, 0o1777]);
        let warnings = given.warnings.iter();
        let warned: Vec<_> = warnings
            .map(|warning| (warning.kind, warning.path.as_deref().unwrap()))
            .collect();
        let expected = ["d", "d/script", "program"];
        assert_eq!(
            warned,
            expected.map(|path| (WarningKind::Attribute, Path::new(path)))
        );

        if !is_root() {
            continue;
        }
        let output = place.fresh();
        let request = to(version, &output).setid(true);
        assert_eq!(store.restore(&request).await.unwrap().warnings, []);
        assert_same_with(&source, &output, &shared());
        // What is there with too much is not what is wanted.
        give(&store, version, &output).await;
        assert_eq!(modes(&output), [0o755, 0o755, 0o711, 0o775, 0o1777]);
    }
    assert_sound(&store).await;
}

#[tokio::test]
async fn a_background_snapshot_is_whole_at_once_and_after_reopening() {
    let place = Place::new();
    let source = place.write("source", &Tree::random(21, 40));
    let store = place
        .open_with(|config| config.durability(Durability::Background))
        .await;
    take(&store, "v1", &source).await;
    let output = place.fresh();
    give(&store, "v1", &output).await;
    assert_same(&source, &output);
    store.close().await.unwrap();

    let store = place.open().await;
    let output = place.fresh();
    give(&store, "v1", &output).await;
    assert_same(&source, &output);
    assert_sound(&store).await;
}

#[tokio::test]
async fn removing_the_source_takes_nothing_from_the_snapshot() {
    let place = Place::new();
    let source = place.write("source", &Tree::random(31, 40));
    let copy = place.write("copy", &Tree::random(31, 40));
    let store = place.open().await;
    take_read_only(&store, "r", &source).await;
    take(&store, "w", &source).await;
    testkit::tree::unlock(&source).unwrap();
    fs::remove_dir_all(&source).unwrap();
    for version in ["r", "w"] {
        let output = place.fresh();
        give(&store, version, &output).await;
        assert_same_with(&copy, &output, &shared());
    }
}

#[tokio::test]
async fn a_restored_tree_can_be_taken_again_and_is_the_same_snapshot() {
    let place = Place::new();
    let source = place.write("source", &Tree::random(41, 50));
    let store = place.open().await;
    let first = take(&store, "v1", &source).await;
    let output = place.fresh();
    give(&store, "v1", &output).await;
    let second = store
        .snapshot(&SnapshotRequest::new("other/name", "v9", &output))
        .await
        .unwrap();
    assert_eq!(second.manifest_digest, first.manifest_digest);
    assert_eq!(second.stored_bytes, 0);
}

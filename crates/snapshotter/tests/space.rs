//! A disk that is really full: what cannot be done says so and leaves nothing, and what gives space back works.

use crate::support_b;

use std::fs::{self, File};
use std::io::{ErrorKind as IoErrorKind, Write};
use std::path::{Path, PathBuf};

use snapshotter::{Config, Durability, Error, ErrorKind, LinkMode, SnapshotRequest};
use support_b::outside::{
    assert_at_rest, assert_nothing_partial, assert_nothing_temporary, assert_rows_and_files_agree,
    names,
};
use support_b::{Handle, checkpoint, refusal, request, restore_request};
use tempfile::TempDir;
use testkit::compare::assert_same;
use testkit::mount::{Kind, LoopMount, or_skip};
use testkit::{Content, Tree};

const MIB: u64 = 1 << 20;

/// A small ext4, and sources elsewhere.
struct Scene {
    mount: LoopMount,
    elsewhere: TempDir,
}

impl Scene {
    /// None where nothing can be mounted, which has been said then.
    fn new() -> Option<Self> {
        Some(Self {
            mount: or_skip(LoopMount::new(Kind::Ext4, 32 * MIB, &[]))?,
            elsewhere: tempfile::tempdir().unwrap(),
        })
    }

    /// A path on the small filesystem.
    fn small(&self, name: &str) -> PathBuf {
        self.mount.path().join(name)
    }

    /// A path with room.
    fn roomy(&self, name: &str) -> PathBuf {
        self.elsewhere.path().join(name)
    }

    fn root(&self) -> PathBuf {
        self.small("root")
    }

    fn open(&self) -> Handle {
        Handle::open(&self.root()).unwrap()
    }

    /// A tree with room, of this many random bytes in files of at most `each`.
    fn source(&self, name: &str, seed: u64, bytes: u64, each: u64) -> PathBuf {
        let tree = (0..bytes.div_ceil(each)).fold(Tree::new(), |tree, number| {
            let content = Content::Random {
                seed: seed * 1000 + number,
                len: each.min(bytes - number * each),
            };
            let path = format!("{number:03}");
            tree.file(&path, content).mtime(&path, 1_700_000_000, 1)
        });
        tree.write_to(&self.roomy(name)).unwrap();
        self.roomy(name)
    }

    /// Takes every block there is: the last one may be too little for a large file, which would have to describe it too.
    fn fill(&self) {
        fill(&self.small("filler"));
        fill(&self.small("filler-rest"));
    }

    fn drain(&self) {
        fs::remove_file(self.small("filler")).unwrap();
        let _ = fs::remove_file(self.small("filler-rest"));
    }

    /// Nothing failed half-way, as seen by the next handle and from outside.
    fn assert_whole(&self, expected: &[(&str, &Path)]) {
        let handle = self.open();
        assert_eq!(handle.listed().len(), expected.len());
        handle.assert_all_restore(expected, self.elsewhere.path());
        let report = handle.assert_clean();
        assert_eq!(report.swept_names, 0);
        handle.close().unwrap();
        assert_at_rest(&self.root());
        assert_rows_and_files_agree(&self.root());
    }
}

/// Writes to a file until nothing more goes in, to the last byte.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    let mut piece = vec![1_u8; 1 << 20];
    while !piece.is_empty() {
        match file.write_all(&piece).and_then(|()| file.sync_data()) {
            Ok(()) => {}
            Err(error) if error.kind() == IoErrorKind::StorageFull => {
                piece.truncate(piece.len() / 2);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[track_caller]
fn assert_no_space<T>(result: Result<T, Error>) {
    let error = refusal(result);
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
    assert!(!error.to_string().is_empty());
}

fn free(handle: &Handle) -> u64 {
    handle.usage().unwrap().available_bytes
}

#[test]
fn a_file_that_cannot_fit_is_refused_before_it_is_read() {
    let Some(scene) = Scene::new() else { return };
    let source = scene.source("large", 1, 40 * MIB, 40 * MIB);
    let handle = scene.open();
    let before = free(&handle);
    let error = refusal(handle.snapshot(&SnapshotRequest::new("large", "v1", &source)));
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    assert!(error.to_string().contains("40 MiB are needed"), "{error}");
    assert!(error.hint().is_some() && error.path().is_some());
    assert_eq!(handle.usage().unwrap().blobs, 0);
    assert!(handle.listed().is_empty());
    handle.close().unwrap();
    scene.assert_whole(&[]);
    assert!(free(&scene.open()) + MIB > before);
}

/// Too small, each, to be looked at before they are copied: the disk fills while they are.
fn files_that_together_do_not_fit(durability: Durability) {
    let Some(scene) = Scene::new() else { return };
    let source = scene.source("many", 2, 40 * MIB, 700_000);
    let fits = scene.source("fits", 3, 3 * MIB, MIB);
    let handle = Handle::with(Config::new(scene.root()).durability(durability)).unwrap();
    let before = free(&handle);
    for _ in 0..2 {
        assert_no_space(handle.snapshot(&SnapshotRequest::new("many", "v1", &source)));
        assert_eq!(handle.usage().unwrap().blobs, 0);
        assert!(handle.listed().is_empty());
        assert!(before - free(&handle).min(before) < 2 * MIB, "{before}");
    }
    handle
        .snapshot(&SnapshotRequest::new("fits", "v1", &fits))
        .unwrap();
    handle.close().unwrap();
    scene.assert_whole(&[("fits:v1", &fits)]);
}

#[test]
fn a_disk_that_fills_during_a_snapshot_is_given_back() {
    files_that_together_do_not_fit(Durability::Full);
}

#[test]
fn a_disk_that_fills_during_a_background_snapshot_is_given_back() {
    files_that_together_do_not_fit(Durability::Background);
}

#[test]
fn a_snapshot_that_fails_for_space_takes_nothing_from_the_others() {
    let Some(scene) = Scene::new() else { return };
    let kept = scene.source("kept", 4, 4 * MIB, 500_000);
    // The same files, and more than there is room for.
    let more = scene.source("more", 4, 40 * MIB, 500_000);
    let handle = scene.open();
    handle
        .snapshot(&SnapshotRequest::new("kept", "v1", &kept))
        .unwrap();
    let blobs = handle.usage().unwrap().blobs;
    assert_no_space(handle.snapshot(&SnapshotRequest::new("more", "v1", &more)));
    assert_eq!(handle.usage().unwrap().blobs, blobs);
    handle.close().unwrap();
    scene.assert_whole(&[("kept:v1", &kept)]);
}

#[test]
fn removing_works_on_a_full_disk_and_gives_the_space_back() {
    let Some(scene) = Scene::new() else { return };
    let one = scene.source("one", 5, 6 * MIB, 300_000);
    let other = scene.source("other", 6, 3 * MIB, MIB);
    let handle = scene.open();
    for (name, source) in [("one", &one), ("other", &other)] {
        handle
            .snapshot(&SnapshotRequest::new(name, "v1", source))
            .unwrap();
    }
    scene.fill();
    assert_eq!(free(&handle), 0);
    handle.remove("one:v1").unwrap();
    assert_eq!(handle.listed(), ["other:v1"]);
    let back = free(&handle);
    assert!(back > 4 * MIB, "{back}");
    handle.close().unwrap();
    scene.drain();
    scene.assert_whole(&[("other:v1", &other)]);
    // The reserve, if it was used, is there for the next time.
    drop(scene.open());
    assert!(names(&scene.root()).contains("reserve"));
}

#[test]
fn a_store_on_a_full_disk_can_be_opened_and_emptied() {
    let Some(scene) = Scene::new() else { return };
    let sources: Vec<PathBuf> = (0..4)
        .map(|number| scene.source(&format!("s{number}"), 10 + number, 2 * MIB, 200_000))
        .collect();
    let handle = scene.open();
    for (number, source) in sources.iter().enumerate() {
        let name = format!("s{number}");
        handle
            .snapshot(&SnapshotRequest::new(name, "v1", source))
            .unwrap();
    }
    handle.close().unwrap();
    scene.fill();
    let handle = scene.open();
    assert_eq!(handle.listed().len(), 4);
    for number in 0..4 {
        handle.remove(&format!("s{number}:v1")).unwrap();
    }
    assert_eq!(handle.usage().unwrap().blobs, 0);
    assert!(free(&handle) > 6 * MIB);
    handle.close().unwrap();
    scene.drain();
    scene.assert_whole(&[]);
}

/// Who wants to store on a full disk must not use up what removing needs.
#[test]
fn removing_works_on_a_full_disk_after_snapshots_and_restores_were_tried_there() {
    let Some(scene) = Scene::new() else { return };
    let kept = scene.source("kept", 20, 4 * MIB, 300_000);
    let tiny = scene.source("tiny", 21, 400_000, 100_000);
    let handle = scene.open();
    handle
        .snapshot(&SnapshotRequest::new("kept", "v1", &kept))
        .unwrap();
    scene.fill();
    for round in 0..4 {
        let version = format!("v{round}");
        let output = scene.roomy(&format!("output-{round}"));
        // Each may fail: it is full. What room there is goes too.
        let _ = handle.snapshot(&SnapshotRequest::new("tiny", version, &tiny));
        let _ = handle.restore("kept:v1", &output);
        fill(&scene.small(&format!("filler-{round}")));
    }
    handle.remove("kept:v1").unwrap();
    // What came back filled the reserve up first.
    assert!(free(&handle) > MIB);
    handle.assert_clean();
}

#[test]
fn a_restore_onto_a_full_disk_says_so_and_leaves_no_partial_file() {
    let Some(scene) = Scene::new() else { return };
    for (name, each) in [("small", 300_000), ("large", 20 * MIB)] {
        let source = scene.source(name, 7, 20 * MIB, each);
        let handle = Handle::open(&scene.roomy("root")).unwrap();
        handle
            .snapshot(&SnapshotRequest::new(name, "v1", &source))
            .unwrap();
        let reference = format!("{name}:v1");
        let output = scene.small(&format!("{name}-output"));
        fs::write(scene.small("filler"), vec![1; 15 << 20]).unwrap();
        assert_no_space(handle.restore(&reference, &output));
        if output.exists() {
            assert_nothing_partial(&source, &output);
            assert_nothing_temporary(&output);
        }
        // With room again the same call finishes what was begun.
        scene.drain();
        handle.restore(&reference, &output).unwrap();
        assert_same(&source, &output);
        handle.close().unwrap();
        fs::remove_dir_all(&output).unwrap();
    }
}

#[test]
fn a_restore_that_fails_for_space_leaves_what_was_there() {
    let Some(scene) = Scene::new() else { return };
    let source = scene.source("source", 8, 24 * MIB, 24 * MIB);
    let handle = Handle::open(&scene.roomy("root")).unwrap();
    handle
        .snapshot(&SnapshotRequest::new("base", "v1", &source))
        .unwrap();
    let output = scene.small("output");
    fs::create_dir(&output).unwrap();
    fs::write(output.join("000"), "what was there").unwrap();
    fs::write(scene.small("filler"), vec![1; 10 << 20]).unwrap();
    assert_no_space(handle.restore("base:v1", &output));
    assert_eq!(fs::read(output.join("000")).unwrap(), b"what was there");
    assert_nothing_temporary(&output);
}

/// Resuming a VM takes no bytes: it must work where nothing else does.
#[test]
fn read_only_files_are_restored_from_a_full_disk_by_hardlink() {
    let Some(scene) = Scene::new() else { return };
    let source = scene.small("source");
    checkpoint().write_to(&source).unwrap();
    let handle = scene.open();
    handle.snapshot(&request("base", "v1", &source)).unwrap();
    // Directories take a block each: these are there from an earlier time.
    let output = scene.small("output");
    handle.restore("base:v1", &output).unwrap();
    for name in ["memory", "state", "state-again"] {
        fs::remove_file(output.join("ro").join(name)).unwrap();
    }
    scene.fill();
    let report = handle
        .restore_with(&restore_request("base:v1", &output).path("ro"))
        .unwrap();
    assert_eq!(report.placements.hardlink.files, 2);
    assert_same(&source.join("ro"), &output.join("ro"));
    handle.close().unwrap();
    scene.drain();
    let handle = scene.open();
    handle.assert_clean();
}

#[test]
fn a_full_disk_is_no_reason_to_forget_what_was_stored() {
    let Some(scene) = Scene::new() else { return };
    let source = scene.source("source", 9, 4 * MIB, MIB);
    // More than the reserve, in files too small to be looked at before they are copied.
    let more = scene.source("more", 90, 12 * MIB, MIB / 2);
    let handle = scene.open();
    handle
        .snapshot(&SnapshotRequest::new("base", "v1", &source))
        .unwrap();
    handle.close().unwrap();
    scene.fill();
    let handle = scene.open();
    // To where there is room.
    let output = scene.roomy("output");
    let request = restore_request("base:v1", &output).link_mode(LinkMode::Copy);
    handle.restore_with(&request).unwrap();
    assert_same(&source, &output);
    assert_no_space(handle.snapshot(&SnapshotRequest::new("more", "v1", &more)));
    assert_eq!(handle.listed(), ["base:v1"]);
    handle.close().unwrap();
    scene.drain();
    scene.assert_whole(&[("base:v1", &source)]);
}

#[test]
fn a_root_cannot_be_made_on_a_full_disk_and_can_be_made_later() {
    let Some(scene) = Scene::new() else { return };
    scene.fill();
    assert_no_space(Handle::open(&scene.root()));
    scene.drain();
    let source = scene.source("source", 11, MIB, MIB);
    let handle = scene.open();
    handle
        .snapshot(&SnapshotRequest::new("base", "v1", &source))
        .unwrap();
    handle.close().unwrap();
    scene.assert_whole(&[("base:v1", &source)]);
}

/// Two sizes: one that is known not to fit before anything is asked for, and many small files that fill the disk while
/// they come.
#[cfg(feature = "registry")]
#[test]
fn a_fetch_onto_a_full_disk_says_so_gives_all_back_and_works_when_there_is_room() {
    use snapshotter::{Content as Place, ContentProvider, Registry};

    for (bytes, each) in [(40 * MIB, 40 * MIB), (40 * MIB, 700_000)] {
        let Some(scene) = Scene::new() else { return };
        let layouts = format!("oci-layout:{}", scene.roomy("layouts").display());
        let mut objects = Place::new(ContentProvider::Fs);
        objects.root = scene.roomy("objects");
        fs::create_dir(&objects.root).unwrap();
        let node = |root: PathBuf| {
            let config = Config::new(root).registry(Registry::new(&layouts, "ns"));
            Handle::with(config.content(objects.clone())).unwrap()
        };
        let source = scene.source("large", 7, bytes, each);
        let fits = scene.source("fits", 8, 3 * MIB, MIB);
        let first = node(scene.roomy("first"));
        for (name, source) in [("large", &source), ("fits", &fits)] {
            let request = SnapshotRequest::new(name, "v1", source);
            first.snapshot(&request).unwrap();
        }
        let second = node(scene.root());
        let before = free(&second);
        assert_no_space(second.pull("large:v1"));
        assert_no_space(second.restore("large:v1", &scene.small("output")));
        assert!(second.listed().is_empty());
        assert!(!scene.small("output").exists());
        assert_eq!(second.usage().unwrap().blobs, 0);
        // Closing shortens the catalog's log.
        second.close().unwrap();
        let second = node(scene.root());
        assert!(free(&second) + MIB > before, "{bytes} in files of {each}");
        second.pull("fits:v1").unwrap();
        second.close().unwrap();
        scene.assert_whole(&[("fits:v1", &fits)]);
    }
}

//! Snapshots of what is in use: paths that go while the snapshot is taken, files that are written through mappings. And of
//! files that are not as long as they say.

use crate::support_a;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use snapshotter::{
    Error, ErrorKind, Event, File, Observer, SnapshotReport, SnapshotRequest, Snapshotter,
    WarningKind,
};
use support_a::*;
use testkit::compare::{Options, assert_same_with};
use testkit::fuse::{FuseMount, Node};
use testkit::mount::{TmpfsMount, or_skip};
use testkit::{Mapped, Tree};

type Act = Box<dyn FnOnce() + Send>;

/// Does something between the walk, which has found all files by then, and the first of them being opened.
struct AfterWalk(Mutex<Option<Act>>);

impl Observer for AfterWalk {
    fn event(&self, event: &Event) {
        if matches!(event, Event::Planned { .. })
            && let Some(act) = self.0.lock().unwrap().take()
        {
            act();
        }
    }
}

async fn take_while(
    store: &Snapshotter,
    request: &SnapshotRequest,
    act: impl FnOnce() + Send + 'static,
) -> Result<SnapshotReport, Error> {
    let observer = AfterWalk(Mutex::new(Some(Box::new(act))));
    store
        .observed_by(Arc::new(observer))
        .snapshot(request)
        .await
}

/// Kinds and paths of what a report warns of.
fn warned(report: &SnapshotReport) -> Vec<(WarningKind, &Path)> {
    let warnings = report.warnings.iter();
    let pairs = warnings.map(|warning| (warning.kind, warning.path.as_deref().unwrap()));
    pairs.collect()
}

fn vanished<'p>(paths: &[&'p str]) -> Vec<(WarningKind, &'p Path)> {
    let pairs = paths
        .iter()
        .map(|path| (WarningKind::Vanished, Path::new(*path)));
    pairs.collect()
}

fn busy_tree() -> Tree {
    Tree::new()
        .file("stays", "stays")
        .file("goes", "goes")
        .file("becomes-a-link", "bytes")
        .file("becomes-a-directory", "bytes")
        .file("becomes-a-pipe", "bytes")
        .file("d/below", "bytes")
        .file("e/below", "bytes")
}

fn disturb(source: &Path) {
    fs::remove_file(source.join("goes")).unwrap();
    fs::remove_dir_all(source.join("d")).unwrap();
    fs::rename(source.join("e"), source.join("f")).unwrap();
    symlink("f", source.join("e")).unwrap();
    for name in ["becomes-a-link", "becomes-a-directory", "becomes-a-pipe"] {
        fs::remove_file(source.join(name)).unwrap();
    }
    symlink("stays", source.join("becomes-a-link")).unwrap();
    fs::create_dir(source.join("becomes-a-directory")).unwrap();
    Tree::new()
        .fifo("p")
        .write_to(&source.join("pipes"))
        .unwrap();
    fs::rename(source.join("pipes/p"), source.join("becomes-a-pipe")).unwrap();
}

/// A tree in use lost a temporary file between the walk and the copy, and the whole snapshot failed with `not_found`: of a
/// busy tree none could be taken at all.
#[tokio::test]
async fn what_goes_while_a_snapshot_is_taken_is_left_out_with_a_warning() {
    for read_only in [false, true] {
        let place = Place::new();
        let source = place.write("source", &busy_tree());
        let store = place.open().await;
        let request = all("v1", &source).file(File::new(".").read_only(read_only));
        let moved = source.clone();
        let taken = take_while(&store, &request, move || disturb(&moved)).await;
        let taken = taken.unwrap();
        let gone = [
            "becomes-a-directory",
            "becomes-a-link",
            "becomes-a-pipe",
            "d/below",
            "e/below",
            "goes",
        ];
        assert_eq!(warned(&taken), vanished(&gone));
        assert_eq!((taken.files, taken.directories), (1, 2));
        let output = place.fresh();
        give(&store, "v1", &output).await;
        assert_eq!(files_below(&output), [Path::new("stays")]);
        assert_sound(&store).await;
    }
}

#[tokio::test]
async fn what_was_asked_for_by_name_and_goes_is_an_error() {
    let place = Place::new();
    let store = place.open().await;
    for (name, kind) in [
        ("goes", ErrorKind::NotFound),
        ("becomes-a-directory", ErrorKind::Busy),
        ("becomes-a-link", ErrorKind::InvalidInput),
    ] {
        let source = place.write(name, &busy_tree());
        let request = all("v1", &source).files([File::new("."), File::new(name)]);
        let moved = source.clone();
        let taken = take_while(&store, &request, move || disturb(&moved)).await;
        let error = taken.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(error.path(), Some(source.join(name).as_path()));
        assert!(error.hint().is_some(), "{error}");
    }
    place.assert_empty();
}

/// Of an inode with several names the first was read for all: when it had gone, so had the others, and when it was another
/// file by then, the others got that one's bytes.
#[tokio::test]
async fn the_other_names_of_what_goes_or_is_replaced_keep_their_bytes() {
    let place = Place::new();
    let tree = Tree::new()
        .file("one/a", "one")
        .hardlink("one/b", "one/a")
        .hardlink("one/c", "one/a")
        .file("two/a", "two")
        .hardlink("two/b", "two/a")
        .hardlink("two/c", "two/a");
    let source = place.write("source", &tree);
    let store = place.open().await;
    let moved = source.clone();
    let replace = move || {
        fs::remove_file(moved.join("one/a")).unwrap();
        fs::write(moved.join("two/new"), "new").unwrap();
        fs::rename(moved.join("two/new"), moved.join("two/a")).unwrap();
    };
    let taken = take_while(&store, &all("v1", &source), replace)
        .await
        .unwrap();
    assert_eq!(warned(&taken), vanished(&["one/a"]));
    assert_eq!(taken.files, 5);
    let output = place.fresh();
    give(&store, "v1", &output).await;
    // Directories have other times by now.
    for (path, bytes) in [
        ("one/b", "one"),
        ("one/c", "one"),
        ("two/a", "new"),
        ("two/b", "two"),
        ("two/c", "two"),
    ] {
        assert_eq!(
            fs::read_to_string(output.join(path)).unwrap(),
            bytes,
            "{path}"
        );
    }
    assert_eq!(inode(&output.join("one/b")), inode(&output.join("one/c")));
    assert_eq!(inode(&output.join("two/b")), inode(&output.join("two/c")));
    assert_ne!(inode(&output.join("two/a")), inode(&output.join("two/b")));
}

fn file(bytes: &str) -> Node {
    Node::File {
        says: bytes.len() as u64,
        bytes: bytes.into(),
    }
}

/// The same for what goes during the walk: between being listed, looked at and opened, each look sees something else.
#[tokio::test]
async fn what_goes_between_two_looks_of_the_walk_is_left_out_with_a_warning() {
    let place = Place::new();
    let store = place.open().await;
    let names = vec![
        ("stays", vec![file("stays")]),
        ("was-never-seen", vec![Node::Gone]),
        ("file-goes", vec![file("x"), Node::Gone]),
        ("file-becomes-a-directory", vec![file("x"), Node::Directory]),
        ("directory-goes", vec![Node::Directory, Node::Gone]),
        ("directory-becomes-a-file", vec![Node::Directory, file("x")]),
        (
            "directory-becomes-a-link",
            vec![Node::Directory, Node::Symlink("stays")],
        ),
        ("link-goes", vec![Node::Symlink("stays"), Node::Gone]),
        (
            "link-becomes-a-file",
            vec![Node::Symlink("stays"), file("x")],
        ),
    ];
    let mut gone: Vec<&str> = names.iter().map(|(name, _)| *name).skip(2).collect();
    gone.sort_unstable();
    let Some(mount) = or_skip(FuseMount::new(names.clone())) else {
        return;
    };
    let taken = take(&store, "v1", mount.path()).await;
    assert_eq!(warned(&taken), vanished(&gone));
    let output = place.fresh();
    give(&store, "v1", &output).await;
    let left: Vec<PathBuf> = testkit::fsstat::paths(&output).unwrap();
    assert_eq!(left, [Path::new("stays")]);

    for name in gone {
        let mount = or_skip(FuseMount::new(names.clone())).unwrap();
        let request = all("v2", mount.path()).file(File::new(name));
        let error = store.snapshot(&request).await.unwrap_err();
        assert_eq!(
            error.path(),
            Some(mount.path().join(name).as_path()),
            "{error}"
        );
    }
}

/// What was asked for is there for its own sake; what is in it is not.
#[tokio::test]
async fn what_goes_in_a_directory_that_was_asked_for_is_left_out() {
    let place = Place::new();
    let source = place.write(
        "source",
        &Tree::new().file("d/goes", "x").file("d/stays", "y"),
    );
    let store = place.open().await;
    let moved = source.clone();
    let go = move || fs::remove_file(moved.join("d/goes")).unwrap();
    let request = all("v1", &source).file(File::new("d"));
    let taken = take_while(&store, &request, go).await.unwrap();
    assert_eq!(warned(&taken), vanished(&["d/goes"]));
    let output = place.fresh();
    give(&store, "v1", &output).await;
    assert_eq!(files_below(&output), [Path::new("d/stays")]);
}

/// Two memory files of equal pages, too small and large enough to be copied piece by piece, on a filesystem where writing
/// through a mapping moves no time.
fn mapped_files(dir: &Path) -> Vec<Mapped> {
    let sizes = [("small", 3 * 4096_u64), ("large", 5 << 20)];
    let mapped = sizes.map(|(name, size)| {
        fs::write(dir.join(name), vec![0; usize::try_from(size).unwrap()]).unwrap();
        Mapped::new(&dir.join(name))
    });
    mapped.into()
}

/// Read-only files that somebody could write were warned of; writable ones were read while they were written through a mapping,
/// and kept with half of the old bytes and half of the new, without a word.
#[tokio::test]
async fn a_file_that_is_written_through_a_mapping_while_it_is_read_is_warned_of() {
    let Some(memory) = or_skip(TmpfsMount::new(64 << 20)) else {
        return;
    };
    let place = Place::new();
    let store = place.open().await;
    let mapped = Mutex::new(mapped_files(memory.path()));
    // One byte of each page, with each piece that was read.
    let write = OnProgress::new(move |event| {
        for file in mapped.lock().unwrap().iter_mut() {
            for page in 0..file.len() / 4096 {
                file.write(page * 4096, &[u8::try_from(event % 250).unwrap() + 1]);
            }
        }
    });
    let observed = store.observed_by(write);
    let taken = take(&observed, "v1", memory.path()).await;
    let torn = ["large", "small"].map(|name| (WarningKind::Writer, Path::new(name)));
    assert_eq!(warned(&taken), torn);
    give(&store, "v1", &place.fresh()).await;
    assert_sound(&store).await;
}

/// A paused machine has its disk open and its memory mapped, and writes neither: a warning at each pause would be noise.
#[tokio::test]
async fn a_file_that_is_open_for_writing_and_rests_is_taken_without_a_word() {
    let Some(memory) = or_skip(TmpfsMount::new(64 << 20)) else {
        return;
    };
    let place = Place::new();
    let store = place.open().await;
    let _mapped = mapped_files(memory.path());
    let taken = take(&store, "v1", memory.path()).await;
    assert_eq!(taken.warnings, []);
    let output = place.fresh();
    give(&store, "v1", &output).await;
    assert_same_with(memory.path(), &output, &Options::contents());
}

/// Files of `/proc` and of FUSE filesystems that say they are empty were kept empty, and those of `/sys`, which say they have a
/// page, could not be taken at all.
#[tokio::test]
async fn files_that_are_not_as_long_as_they_say_are_read_to_their_end() {
    let place = Place::new();
    let store = place.open().await;
    for (base, name, says) in [
        ("/proc/sys/kernel", "ostype", 0),
        ("/sys/kernel", "fscaps", 4096),
    ] {
        let path = Path::new(base).join(name);
        assert_eq!(stat(&path).len(), says);
        for (version, read_only) in [("w", false), ("r", true)] {
            let version = format!("{name}-{version}");
            let request = all(&version, Path::new(base)).file(File::new(name).read_only(read_only));
            let taken = store.snapshot(&request).await.unwrap();
            let bytes = fs::read(&path).unwrap();
            assert_eq!(taken.logical_bytes, bytes.len() as u64);
            let output = place.fresh();
            give(&store, &version, &output).await;
            assert_eq!(fs::read(output.join(name)).unwrap(), bytes);
        }
    }
    assert_sound(&store).await;
}

#[tokio::test]
async fn whatever_a_size_says_all_bytes_of_a_file_are_taken() {
    let bytes = |len: usize| (0..len).map(|at| (at % 251) as u8).collect::<Vec<u8>>();
    let lies = [
        ("nothing", 0, 0),
        ("empty", 0, 5),
        ("short", 10, 100),
        ("just", 4096, 4096),
        ("long", 4096, 5),
        ("large", 0, 3 << 20),
        ("larger", 1 << 20, (2 << 20) + 1),
        ("void", 2 << 20, 0),
    ];
    let names = lies.map(|(name, says, len)| {
        (
            name,
            vec![Node::File {
                says,
                bytes: bytes(len),
            }],
        )
    });
    let Some(mount) = or_skip(FuseMount::new(names.into())) else {
        return;
    };
    let place = Place::new();
    let store = place.open().await;
    let taken = take(&store, "v1", mount.path()).await;
    assert_eq!(taken.warnings, []);
    take_read_only(&store, "v2", mount.path()).await;
    for version in ["v1", "v2"] {
        let output = place.fresh();
        give(&store, version, &output).await;
        for (name, _, len) in lies {
            assert!(fs::read(output.join(name)).unwrap() == bytes(len), "{name}");
        }
    }
    assert_sound(&store).await;
}

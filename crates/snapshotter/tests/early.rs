//! The first restore of a snapshot on a node: its copies are written while their bytes are fetched.

use crate::support_a;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use snapshotter::{
    Config, Content, ContentProvider, ErrorKind, Registry, RestoreReport, RestoreRequest,
    SnapshotRequest, Snapshotter,
};
use support_a::*;
use testkit::child::{Child, State, this_test};
use testkit::compare::assert_same;
use testkit::mount::{BindMount, TmpfsMount, or_skip};
use testkit::{Content as Bytes, Tree};

const MIB: u64 = 1 << 20;
const DATA: u64 = 32 * MIB;

/// Names a directory with what two nodes share, for a test that runs itself in a process of its own.
const CHILD: &str = "EARLY_TEST_DIRECTORY";

fn tree() -> Tree {
    let disk = Bytes::Random { seed: 1, len: DATA };
    Tree::new()
        .file("disk.img", disk)
        .mode("disk.img", 0o640)
        .mtime("disk.img", OLD.0, OLD.1)
        .file(
            "sub/sparse.img",
            Bytes::Sparse {
                size: 8 * MIB,
                extents: vec![(MIB, 2, 2 * MIB), (6 * MIB, 3, 4096)],
            },
        )
        .file("state.json", "{}")
}

async fn node(between: &Path, root: &Path) -> Snapshotter {
    let mut content = Content::new(ContentProvider::Fs);
    content.root = between.join("objects");
    fs::create_dir_all(&content.root).unwrap();
    let layouts = format!("oci-layout:{}", between.join("layouts").display());
    let config = Config::new(root).registry(Registry::new(layouts, "snapshots"));
    Snapshotter::open(config.content(content)).await.unwrap()
}

/// Publishes the tree and says where it is.
async fn published(place: &Place, tree: &Tree, read_only: bool) -> std::path::PathBuf {
    let source = place.write("source", tree);
    let first = node(&place.path("between"), &place.path("first")).await;
    let files = snapshotter::File::new(".").read_only(read_only);
    let request = SnapshotRequest::new("vm", "v1", &source).file(files);
    first.snapshot(&request).await.unwrap();
    source
}

async fn restore(store: &Snapshotter, output: &Path) -> snapshotter::Result<RestoreReport> {
    store
        .restore(&RestoreRequest::new(reference("vm:v1"), output))
        .await
}

/// Bytes this process has asked the kernel for.
fn read_so_far() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_first_restore_reads_each_byte_once() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let directory = Path::new(&directory);
        let store = node(&directory.join("between"), &directory.join("second")).await;
        let before = read_so_far();
        restore(&store, &directory.join("output")).await.unwrap();
        let read = read_so_far() - before;
        assert!(
            read > DATA && read < DATA + DATA / 2,
            "{read} bytes were read"
        );
        return;
    }
    let place = Place::new();
    let source = published(&place, &tree(), false).await;
    let mut command = this_test(module_path!(), "a_first_restore_reads_each_byte_once");
    let mut child = Child::spawn(command.env(CHILD, place.path(""))).unwrap();
    assert_eq!(child.wait().unwrap(), State::Exited(0));
    assert_same(&source, &place.path("output"));
}

#[tokio::test]
async fn what_was_written_early_is_nobody_elses_inode() {
    let place = Place::new();
    let source = published(&place, &tree(), false).await;
    let second = node(&place.path("between"), &place.path("second")).await;
    let output = place.fresh();
    let given = restore(&second, &output).await.unwrap();
    assert_same(&source, &output);
    assert_eq!(given.placements.copy.files, 3);
    assert_eq!(stat(&output.join("disk.img")).nlink(), 1);
    overwrite(&output.join("disk.img"), 5, b"written by the sandbox");
    let again = place.fresh();
    restore(&second, &again).await.unwrap();
    assert_same(&source, &again);
    assert_sound(&second).await;
}

#[tokio::test]
async fn an_output_on_another_filesystem_gets_copies() {
    let Some(mount) = or_skip(TmpfsMount::new(256 * MIB)) else {
        return;
    };
    for read_only in [false, true] {
        let place = Place::new();
        let source = published(&place, &tree(), read_only).await;
        let second = node(&place.path("between"), &place.path("second")).await;
        let output = mount.path().join(format!("output-{read_only}"));
        let given = restore(&second, &output).await.unwrap();
        assert_eq!(given.placements.copy.files, 3);
        assert_same(&source, &output);
    }
}

#[tokio::test]
async fn a_mount_within_the_output_gets_copies() {
    let place = Place::new();
    let source = published(&place, &tree(), false).await;
    let output = place.fresh();
    let (point, elsewhere) = (output.join("sub"), place.path("elsewhere"));
    fs::create_dir_all(&point).unwrap();
    fs::create_dir_all(&elsewhere).unwrap();
    let Some(_mounted) = or_skip(BindMount::new(&elsewhere, &point)) else {
        return;
    };
    let second = node(&place.path("between"), &place.path("second")).await;
    restore(&second, &output).await.unwrap();
    assert_same(&source, &output);
}

#[tokio::test]
async fn a_first_restore_that_finds_damage_leaves_no_output() {
    let place = Place::new();
    published(&place, &tree(), false).await;
    let objects = place.path("between/objects/xxh3");
    let largest = files_in(&objects)
        .into_iter()
        .max_by_key(|object| stat(object).len())
        .unwrap();
    overwrite(&largest, DATA / 2, b"altered");
    let second = node(&place.path("between"), &place.path("second")).await;
    let output = place.path("not/there/yet");
    let error = restore(&second, &output).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(!place.path("not").exists());
}

/// What is written early is written by a document that nothing in the store has checked yet.
#[tokio::test]
async fn a_first_restore_by_a_document_that_changed_leaves_no_output() {
    let place = Place::new();
    published(&place, &tree(), false).await;
    let is_document = |bytes: &[u8]| find(bytes, b"disk.img").is_some();
    let layouts = place.path("between/layouts");
    let documents = files_below(&layouts);
    let mut documents = documents.iter().map(|file| layouts.join(file));
    let document = documents
        .find(|file| is_document(&fs::read(file).unwrap()))
        .unwrap();
    // Valid as before, of the same length: another name.
    let at = find(&fs::read(&document).unwrap(), b"disk.img").unwrap();
    overwrite(&document, at as u64, b"dusk");
    let second = node(&place.path("between"), &place.path("second")).await;
    let error = restore(&second, &place.path("not/there/yet")).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Damaged);
    assert!(!place.path("not").exists());
    assert!(second.list().await.unwrap().is_empty());
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|part| part == what)
}

#[tokio::test]
async fn only_what_is_asked_for_is_written_early() {
    let place = Place::new();
    let source = published(&place, &tree(), false).await;
    let second = node(&place.path("between"), &place.path("second")).await;
    let output = place.fresh();
    let request = RestoreRequest::new(reference("vm:v1"), &output).path("sub");
    second.restore(&request).await.unwrap();
    assert_eq!(files_below(&output), [Path::new("sub/sparse.img")]);
    assert_same(&source.join("sub"), &output.join("sub"));
}

#[tokio::test]
async fn what_does_not_fit_twice_is_fetched_all_the_same() {
    let Some(mount) = or_skip(TmpfsMount::new(64 * MIB)) else {
        return;
    };
    let place = Place::new();
    let holes = Bytes::Sparse {
        size: 256 * MIB,
        extents: vec![(MIB, 2, 8 * MIB), (200 * MIB, 3, 4096)],
    };
    let source = published(&place, &Tree::new().file("memory", holes), false).await;
    let second = node(&place.path("between"), &mount.path().join("second")).await;
    let output = mount.path().join("output");
    restore(&second, &output).await.unwrap();
    assert_same(&source, &output);
    fs::remove_dir_all(&output).unwrap();

    let place = Place::new();
    published(&place, &tree(), false).await;
    let third = node(&place.path("between"), &mount.path().join("third")).await;
    let error = restore(&third, &output).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    assert_eq!(third.list().await.unwrap().len(), 1);
}

//! The same promises on xfs, ext4, btrfs and tmpfs, between two filesystems, and where an inode's links are used up.
//! What this machine cannot mount is said to be skipped.

use crate::support_b;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use snapshotter::{
    File, Format, LinkMode, Placements, RestoreReport, SnapshotReport, SnapshotRequest, Warning,
    WarningKind,
};
use support_b::outside::{self, assert_at_rest, assert_rows_and_files_agree, names_in_shards};
use support_b::{Handle, checkpoint, format, request, restore_request};
use testkit::compare::{Holes, Options, Sharing, assert_same, assert_same_with};
use testkit::fsstat::filesystem_used;
use testkit::mount::{Kind, LoopMount, TmpfsMount, or_skip, report_skip};
use testkit::{Content, Tree};

const XFS: u64 = 300 << 20;
const MIB: u64 = 1 << 20;

/// Files in one of the four ways: hardlink, reflink, copy, present.
fn files(placements: &Placements) -> [u64; 4] {
    [
        placements.hardlink.files,
        placements.reflink.files,
        placements.copy.files,
        placements.present.files,
    ]
}

fn kinds(warnings: &[Warning]) -> Vec<WarningKind> {
    warnings.iter().map(|warning| warning.kind).collect()
}

/// Snapshots `source` into `root` and restores it into `output`, comparing everything.
fn round_trip(
    root: &Path,
    source: &Path,
    output: &Path,
    mode: LinkMode,
) -> (SnapshotReport, RestoreReport) {
    let handle = Handle::open(root).unwrap();
    let taken = handle
        .snapshot(&request("base", "v1", source).link_mode(mode))
        .unwrap();
    let restored = handle
        .restore_with(&restore_request("base:v1", output).link_mode(mode))
        .unwrap();
    let options = Options {
        // Written zeros come back as a hole in pages.
        holes: match format() {
            Format::V2 => Holes::NoMoreDataThan,
            _ => Holes::default(),
        },
        ..Options::default()
    };
    assert_same_with(source, output, &options);
    handle.assert_clean();
    handle.close().unwrap();
    assert_at_rest(root);
    assert_rows_and_files_agree(root);
    (taken, restored)
}

fn mounted(kind: Kind, size: u64) -> Option<LoopMount> {
    or_skip(LoopMount::new(kind, size, &[]))
}

/// A tree of one writable file of this many random bytes.
fn large(bytes: u64) -> Tree {
    let content = Content::Random {
        seed: 5,
        len: bytes,
    };
    Tree::new()
        .file("disk", content)
        .mtime("disk", 1_700_000_000, 1)
}

fn reflinks_cost_nothing(mount: &LoopMount) {
    let at = |name: &str| mount.path().join(name);
    large(48 * MIB).write_to(&at("source")).unwrap();
    let handle = Handle::open(&at("root")).unwrap();
    rustix::fs::syncfs(fs::File::open(mount.path()).unwrap()).unwrap();
    let before = filesystem_used(mount.path()).unwrap();
    let request = SnapshotRequest::new("base", "v1", at("source"));
    let taken = handle.snapshot(&request).unwrap();
    assert_eq!(files(&taken.placements), [0, 1, 0, 0]);
    assert_eq!(taken.placements.reflink.bytes, 48 * MIB);
    for output in ["one", "two", "three"] {
        let restored = handle.restore("base:v1", &at(output)).unwrap();
        assert_eq!(files(&restored.placements), [0, 1, 0, 0]);
        assert_same(&at("source"), &at(output));
    }
    rustix::fs::syncfs(fs::File::open(mount.path()).unwrap()).unwrap();
    let grown = filesystem_used(mount.path())
        .unwrap()
        .saturating_sub(before);
    assert!(grown < 16 * MIB, "{grown} bytes for four copies of 48 MiB");
    // They share until one is written: no other changes with it.
    fs::write(at("one/disk"), "written").unwrap();
    assert_same(&at("source"), &at("two"));
    handle.assert_clean();
}

#[test]
fn writable_files_are_reflinked_in_and_out_on_xfs_and_cost_nothing() {
    if let Some(mount) = mounted(Kind::Xfs, XFS) {
        reflinks_cost_nothing(&mount);
    }
}

#[test]
fn writable_files_are_reflinked_in_and_out_on_btrfs_and_cost_nothing() {
    if let Some(mount) = mounted(Kind::Btrfs, XFS) {
        reflinks_cost_nothing(&mount);
    }
}

fn every_mode_comes_back_right(mount: &LoopMount, reflinks: bool) {
    let source = mount.path().join("source");
    checkpoint().write_to(&source).unwrap();
    for (name, mode) in [
        ("auto", LinkMode::Auto),
        ("hardlink", LinkMode::Hardlink),
        ("reflink", LinkMode::Reflink),
        ("copy", LinkMode::Copy),
    ] {
        let at = |what: &str| mount.path().join(format!("{name}-{what}"));
        let (taken, restored) = round_trip(&at("root"), &source, &at("output"), mode);
        // The writable file is too small to be worth a clone unless clones are asked for.
        let expected = match mode {
            LinkMode::Reflink if reflinks => [0, 3, 0, 0],
            LinkMode::Reflink | LinkMode::Copy => [0, 0, 3, 0],
            _ => [2, 0, 1, 0],
        };
        assert_eq!(files(&taken.placements), expected, "{name} in");
        assert_eq!(files(&restored.placements), expected, "{name} out");
        let warned = mode == LinkMode::Reflink && !reflinks;
        for warnings in [&taken.warnings, &restored.warnings] {
            let expected = if warned {
                vec![WarningKind::LinkMode; 3]
            } else {
                Vec::new()
            };
            assert_eq!(kinds(warnings), expected, "{name}: {warnings:?}");
        }
    }
}

#[test]
fn every_link_mode_comes_back_right_on_xfs() {
    if let Some(mount) = mounted(Kind::Xfs, XFS) {
        every_mode_comes_back_right(&mount, true);
    }
}

#[test]
fn every_link_mode_comes_back_right_on_btrfs() {
    if let Some(mount) = mounted(Kind::Btrfs, XFS) {
        every_mode_comes_back_right(&mount, true);
    }
}

#[test]
fn every_link_mode_comes_back_right_on_ext4() {
    if let Some(mount) = mounted(Kind::Ext4, 128 * MIB) {
        every_mode_comes_back_right(&mount, false);
    }
}

#[test]
fn xfs_without_reflinks_and_with_small_blocks_copies() {
    let mkfs = ["-m", "reflink=0", "-b", "size=1024"];
    let mount = or_skip(LoopMount::formatted(Kind::Xfs, XFS, &mkfs, &[]));
    if let Some(mount) = mount {
        every_mode_comes_back_right(&mount, false);
    }
}

fn random_trees_come_back(base: &Path) {
    for seed in 0..4 {
        let at = |what: &str| base.join(format!("{seed}-{what}"));
        let shape = testkit::Shape {
            fifos: false,
            ..testkit::Shape::default()
        };
        let tree = Tree::random_with(seed, 60, &shape);
        if tree.write_to(&at("source")).is_err() {
            report_skip("this filesystem does not take every random tree");
            return;
        }
        round_trip(&at("root"), &at("source"), &at("output"), LinkMode::Auto);
    }
}

#[test]
fn random_trees_come_back_exactly_on_xfs() {
    if let Some(mount) = mounted(Kind::Xfs, XFS) {
        random_trees_come_back(mount.path());
    }
}

#[test]
fn random_trees_come_back_exactly_on_ext4() {
    if let Some(mount) = mounted(Kind::Ext4, 256 * MIB) {
        random_trees_come_back(mount.path());
    }
}

#[test]
fn random_trees_come_back_exactly_on_btrfs() {
    if let Some(mount) = mounted(Kind::Btrfs, XFS) {
        random_trees_come_back(mount.path());
    }
}

#[test]
fn random_trees_come_back_exactly_on_tmpfs() {
    if let Some(mount) = or_skip(TmpfsMount::new(256 * MIB)) {
        random_trees_come_back(mount.path());
    }
}

#[test]
fn a_store_can_live_on_tmpfs() {
    let Some(mount) = or_skip(TmpfsMount::new(64 * MIB)) else {
        return;
    };
    let at = |name: &str| mount.path().join(name);
    checkpoint().write_to(&at("source")).unwrap();
    let (taken, restored) = round_trip(&at("root"), &at("source"), &at("output"), LinkMode::Auto);
    assert_eq!(files(&taken.placements)[3], 0);
    assert_eq!(files(&restored.placements)[3], 0);
    assert_eq!(kinds(&restored.warnings), []);
}

#[test]
fn another_filesystem_than_the_stores_gets_copies_without_a_word() {
    let Some(mount) = or_skip(TmpfsMount::new(64 * MIB)) else {
        return;
    };
    let store = tempfile::tempdir().unwrap();
    let at = |name: &str| mount.path().join(name);
    checkpoint().write_to(&at("source")).unwrap();
    let root = store.path().join("root");
    let (taken, restored) = round_trip(&root, &at("source"), &at("output"), LinkMode::Auto);
    assert_eq!(files(&taken.placements), [0, 0, 3, 0]);
    assert_eq!(files(&restored.placements), [0, 0, 3, 0]);
    assert_eq!(kinds(&taken.warnings), []);
    assert_eq!(kinds(&restored.warnings), []);
}

#[test]
fn who_insists_on_hardlinks_is_told_where_there_are_none() {
    let Some(mount) = or_skip(TmpfsMount::new(64 * MIB)) else {
        return;
    };
    let store = tempfile::tempdir().unwrap();
    let at = |name: &str| mount.path().join(name);
    checkpoint().write_to(&at("source")).unwrap();
    let root = store.path().join("root");
    let (taken, restored) = round_trip(&root, &at("source"), &at("output"), LinkMode::Hardlink);
    for (placements, warnings) in [
        (taken.placements, taken.warnings),
        (restored.placements, restored.warnings),
    ] {
        assert_eq!(files(&placements), [0, 0, 3, 0]);
        assert_eq!(kinds(&warnings), [WarningKind::LinkMode; 2], "{warnings:?}");
    }
}

#[test]
fn a_restore_to_another_filesystem_and_one_beside_the_store_are_both_right() {
    let Some(mount) = or_skip(TmpfsMount::new(64 * MIB)) else {
        return;
    };
    let here = tempfile::tempdir().unwrap();
    let at = |name: &str| here.path().join(name);
    checkpoint().write_to(&at("source")).unwrap();
    let handle = Handle::open(&at("root")).unwrap();
    handle
        .snapshot(&request("base", "v1", &at("source")))
        .unwrap();
    let far = mount.path().join("output");
    for _ in 0..2 {
        handle.restore("base:v1", &far).unwrap();
        handle.restore("base:v1", &at("output")).unwrap();
        assert_same(&at("source"), &far);
        assert_same(&at("source"), &at("output"));
    }
    let inode = |path: &Path| fs::metadata(path.join("ro/memory")).unwrap().ino();
    let shares = inode(&at("output")) == inode(&at("source"));
    assert_eq!(shares, format() == Format::V1);
}

#[test]
fn a_directory_that_is_a_mount_point_inside_the_output_gets_its_files() {
    let Some(mount) = or_skip(TmpfsMount::new(64 * MIB)) else {
        return;
    };
    // The mount point is the read-only directory of the tree, its parent the output.
    let output = tempfile::tempdir().unwrap();
    checkpoint()
        .write_to(&output.path().join("source"))
        .unwrap();
    let handle = Handle::open(&output.path().join("root")).unwrap();
    let taken = request("base", "v1", &output.path().join("source"));
    handle.snapshot(&taken).unwrap();
    let parent = mount.path().parent().unwrap();
    let inside = output.path().join("inside");
    Tree::new()
        .file("mounted/state", Content::Random { seed: 3, len: 5000 })
        .mtime("mounted/state", 1_700_000_000, 1)
        .write_to(&inside)
        .unwrap();
    let taken = SnapshotRequest::new("inside", "v1", &inside).file(File::new(".").read_only(true));
    handle.snapshot(&taken).unwrap();
    let report = handle.restore("inside:v1", parent).unwrap();
    assert_eq!(files(&report.placements), [0, 0, 1, 0]);
    assert_eq!(
        fs::read(mount.path().join("state")).unwrap(),
        fs::read(inside.join("mounted/state")).unwrap()
    );
}

/// Links `file` into `dir` until the filesystem has had enough, but for `spare` links. False: there is no such limit.
fn use_links_up(file: &Path, dir: &Path, spare: u64) -> bool {
    const EXT4: u64 = 65_000;
    fs::create_dir_all(dir).unwrap();
    for number in fs::metadata(file).unwrap().nlink()..EXT4 - spare {
        if let Err(error) = fs::hard_link(file, dir.join(number.to_string())) {
            panic!("{error} at {number}");
        }
    }
    spare > 0 || fs::hard_link(file, dir.join("more")).is_err()
}

/// The one file of the store.
fn only_blob(root: &Path) -> std::path::PathBuf {
    let dir = outside::content(root);
    let names = names_in_shards(&dir);
    assert_eq!(names.len(), 1);
    dir.join(names.first().unwrap())
}

#[test]
fn restores_go_on_when_the_links_of_an_inode_are_used_up() {
    let Some(mount) = mounted(Kind::Ext4, 128 * MIB) else {
        return;
    };
    let at = |name: &str| mount.path().join(name);
    let tree = (0..10).fold(Tree::new(), |tree, number| {
        let path = format!("ro/{number}");
        tree.file(&path, "the same bytes")
            .mtime(&path, 1_700_000_000, 1)
    });
    tree.write_to(&at("source")).unwrap();
    let handle = Handle::open(&at("root")).unwrap();
    handle
        .snapshot(&request("base", "v1", &at("source")))
        .unwrap();
    let asked = Options {
        sharing: Sharing::MayShareMore,
        ..Options::default()
    };
    // The limit is met in the middle of a restore, then by the view that took over.
    let blob = only_blob(&at("root"));
    assert!(use_links_up(&blob, &at("links"), 4));
    for round in 0..3 {
        let output = at(&format!("output-{round}"));
        let report = handle.restore("base:v1", &output).unwrap();
        assert_eq!(files(&report.placements), [10, 0, 0, 0]);
        assert_eq!(kinds(&report.warnings), []);
        assert_same_with(&at("source"), &output, &asked);
        let view = fs::metadata(output.join("ro/9")).unwrap();
        let taken_over = names_in_shards(&outside::views(&at("root"))).len();
        assert_eq!(
            taken_over, 1,
            "one view took over from the blob's own inode"
        );
        if round == 1 {
            assert!(view.nlink() > 10, "the second restore shares the view");
            let view = outside::views(&at("root"));
            let name = names_in_shards(&view).into_iter().next().unwrap();
            assert!(use_links_up(&view.join(name), &at("view-links"), 0));
        }
    }
    handle.assert_clean();
    handle.close().unwrap();
    assert_rows_and_files_agree(&at("root"));
}

#[test]
fn a_read_only_file_whose_links_are_used_up_is_taken_by_copy() {
    let Some(mount) = mounted(Kind::Ext4, 128 * MIB) else {
        return;
    };
    let at = |name: &str| mount.path().join(name);
    Tree::new()
        .file("ro/file", "bytes")
        .mtime("ro/file", 1_700_000_000, 1)
        .write_to(&at("source"))
        .unwrap();
    assert!(use_links_up(&at("source/ro/file"), &at("links"), 0));
    let (taken, restored) = round_trip(&at("root"), &at("source"), &at("output"), LinkMode::Auto);
    assert_eq!(files(&taken.placements), [0, 0, 1, 0]);
    assert_eq!(files(&restored.placements), [1, 0, 0, 0]);
}

#[test]
fn second_names_get_a_fresh_inode_where_links_are_used_up() {
    let Some(mount) = mounted(Kind::Ext4, 128 * MIB) else {
        return;
    };
    let at = |name: &str| mount.path().join(name);
    Tree::new()
        .file("ro/file", "bytes")
        .hardlink("ro/again", "ro/file")
        .mtime("ro/file", 1_700_000_000, 1)
        .write_to(&at("source"))
        .unwrap();
    let handle = Handle::open(&at("root")).unwrap();
    handle
        .snapshot(&request("base", "v1", &at("source")))
        .unwrap();
    // Room for the first name of the next restore and not for the second.
    assert!(use_links_up(&only_blob(&at("root")), &at("links"), 1));
    handle.restore("base:v1", &at("output")).unwrap();
    assert_same(&at("source"), &at("output"));
}

/// Gives files, which it makes beside, names in a directory, such as blobs have, until the directory takes no more, and says
/// how many.
fn fill_with_names(directory: &Path, beside: &Path) -> u64 {
    // With its own, as many as an inode of ext4 can have.
    const LINKS: u64 = 64_999;
    let name = |number: u64| {
        // Spread over the directory's tree as checksums are.
        let spread = [1, 2, 3, 4].map(|salt: u64| {
            (number + 1)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(17)
                .wrapping_mul(0xbf58_476d_1ce4_e5b9 + 2 * salt)
        });
        directory.join(spread.map(|part| format!("{part:016x}")).concat())
    };
    // One part of its tree is full before another.
    let (mut given, mut refused) = (0, 0);
    for number in 0.. {
        let file = beside.join(format!("names-{}", number / LINKS));
        if number % LINKS == 0 {
            fs::write(&file, "").unwrap();
        }
        match fs::hard_link(&file, name(number)) {
            Ok(()) => (given, refused) = (given + 1, 0),
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => refused += 1,
            Err(error) => panic!("{error}"),
        }
        if refused == 300 {
            break;
        }
    }
    given
}

/// All blobs were in one directory, and a directory has a largest size: from then on a store with room for more said that
/// the disk was full. The smallest of those that ext4 makes takes more names than are ever given in one.
#[test]
fn a_directory_that_is_full_is_not_the_store() {
    const GIVEN: u64 = 65_536;
    let mkfs = ["-b", "1024", "-O", "^large_dir"];
    let Some(mount) = or_skip(LoopMount::formatted(Kind::Ext4, 128 << 20, &mkfs, &[])) else {
        return;
    };
    let root = mount.path().join("root");
    let take = |handle: &Handle, version: u64| {
        let source = mount.path().join(format!("source-{version}"));
        // So many that not all of them find room in what is left of the directory's blocks.
        let tree = (0..500).fold(Tree::new(), |tree, file| {
            let seed = version * 1000 + file;
            tree.file(format!("{file}"), Content::Random { seed, len: 100 })
        });
        tree.write_to(&source).unwrap();
        handle.snapshot(&request("vm", &format!("v{version}"), &source))
    };
    let handle = Handle::open(&root).unwrap();
    take(&handle, 1).unwrap();
    let first = outside::content(&root).join("0000");
    let full = fill_with_names(&first, mount.path());
    assert!(full >= GIVEN, "{full} names fill a directory");
    let error = take(&handle, 2).unwrap_err();
    assert_eq!(error.kind(), snapshotter::ErrorKind::NoSpace);
    // As after so many blobs: the next one is in another directory, and there is room for it.
    let given = "UPDATE sqlite_sequence SET seq = 65536 WHERE name = 'objects'";
    outside::catalog(&root).execute(given, []).unwrap();
    take(&handle, 3).unwrap();
    assert!(
        names_in_shards(&outside::content(&root))
            .iter()
            .any(|name| name.starts_with("0001/"))
    );
    let output = mount.path().join("output");
    handle.restore("vm:v3", &output).unwrap();
    assert_same(&mount.path().join("source-3"), &output);
    handle.remove("vm:v1").unwrap();
    handle.close().unwrap();
}

in_pages_too!(
    random_trees_come_back_exactly_on_xfs,
    random_trees_come_back_exactly_on_ext4,
    random_trees_come_back_exactly_on_btrfs,
    random_trees_come_back_exactly_on_tmpfs,
    a_store_can_live_on_tmpfs,
    second_names_get_a_fresh_inode_where_links_are_used_up,
    a_directory_that_is_a_mount_point_inside_the_output_gets_its_files,
    a_restore_to_another_filesystem_and_one_beside_the_store_are_both_right,
);

//! Filesystems are really mounted, are what was asked for, and are gone afterwards.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::mount::{Kind, LoopMount, REQUIRE, TmpfsMount, or_skip};
use testkit::{Tree, compare::assert_same, fsstat, golden};

const XFS_SIZE: u64 = 300 << 20;

/// The filesystem mounted at `path`, if one is.
fn mounted(path: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut rows = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    rows.find(|row| Path::new(row[1]) == path)
        .map(|row| row[2].into())
}

fn reflink(dir: &Path) -> rustix::io::Result<()> {
    fs::write(dir.join("one"), vec![1; 1 << 16]).unwrap();
    let (one, other) = (
        File::open(dir.join("one")).unwrap(),
        File::create(dir.join("other")).unwrap(),
    );
    rustix::fs::ioctl_ficlone(other, one)
}

#[test]
fn xfs_has_reflinks() {
    let Some(mount) = or_skip(LoopMount::new(Kind::Xfs, XFS_SIZE, &["noatime"])) else {
        return;
    };
    assert_eq!(mounted(mount.path()).as_deref(), Some("xfs"));
    assert_eq!(reflink(mount.path()), Ok(()));
    let gone: PathBuf = mount.path().into();
    drop(mount);
    assert_eq!(mounted(&gone), None);
    assert!(!gone.exists() && !gone.parent().unwrap().exists());
}

#[test]
fn xfs_without_reflinks_and_with_small_blocks() {
    let mkfs = ["-m", "reflink=0", "-b", "size=1024"];
    let Some(mount) = or_skip(LoopMount::formatted(Kind::Xfs, XFS_SIZE, &mkfs, &[])) else {
        return;
    };
    assert!(reflink(mount.path()).is_err());
    assert_eq!(fsstat::block_size(mount.path()).unwrap(), 1024);
}

#[test]
fn ext4_has_no_reflinks_and_fills_up() {
    let Some(mount) = or_skip(LoopMount::new(Kind::Ext4, 16 << 20, &[])) else {
        return;
    };
    assert_eq!(mounted(mount.path()).as_deref(), Some("ext4"));
    assert!(reflink(mount.path()).is_err());
    let full = fs::write(mount.path().join("big"), vec![1; 20 << 20]).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
}

#[test]
fn mkfs_arguments_win() {
    let Some(mount) = or_skip(LoopMount::formatted(
        Kind::Ext4,
        16 << 20,
        &["-b", "1024"],
        &[],
    )) else {
        return;
    };
    assert_eq!(fsstat::block_size(mount.path()).unwrap(), 1024);
}

#[test]
fn tmpfs_fills_up() {
    let Some(mount) = or_skip(TmpfsMount::new(1 << 20)) else {
        return;
    };
    assert_eq!(mounted(mount.path()).as_deref(), Some("tmpfs"));
    assert!(fsstat::filesystem_used(mount.path()).unwrap() < 1 << 16);
    let full = fs::write(mount.path().join("big"), vec![1; 2 << 20]).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
}

#[test]
fn random_trees_and_golden_inputs_are_the_same_on_every_filesystem() {
    let here = tempfile::tempdir().unwrap();
    Tree::random(5, 80).write_to(here.path()).unwrap();
    for kind in [Kind::Xfs, Kind::Ext4] {
        let Some(mount) = or_skip(LoopMount::new(kind, XFS_SIZE, &[])) else {
            return;
        };
        Tree::random(5, 80)
            .write_to(&mount.path().join("tree"))
            .unwrap();
        assert_same(here.path(), &mount.path().join("tree"));
        golden::write_inputs(&mount.path().join("golden")).unwrap();
        for input in golden::index().inputs {
            let path = mount.path().join("golden").join(&input.name);
            assert_eq!(
                testkit::extents::of_path(&path).unwrap(),
                input.extents,
                "{kind:?} {}",
                input.name
            );
        }
    }
}

#[test]
fn a_busy_mount_goes_too() {
    let Some(mount) = or_skip(LoopMount::new(Kind::Ext4, 16 << 20, &[])) else {
        return;
    };
    let gone: PathBuf = mount.path().into();
    let busy = File::create(gone.join("open")).unwrap();
    drop(mount);
    assert_eq!(mounted(&gone), None);
    assert_eq!(busy.metadata().unwrap().nlink(), 1);
}

#[test]
fn many_mounts_at_once_do_not_collide() {
    let mount = || {
        LoopMount::new(Kind::Ext4, 8 << 20, &[])
            .map(|mount| assert_eq!(mounted(mount.path()).as_deref(), Some("ext4")))
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..12).map(|_| scope.spawn(mount)).collect();
        for thread in threads {
            if or_skip(thread.join().unwrap()).is_none() {
                return;
            }
        }
    });
}

#[test]
fn what_cannot_be_is_a_skip_that_says_why() {
    let too_small = LoopMount::new(Kind::Xfs, 1 << 20, &[]).unwrap_err();
    let why = too_small.to_string();
    assert!(why.contains("mkfs.xfs") || why.contains("root"), "{why}");
}

#[test]
fn skips_are_loud_and_fail_where_mounts_are_required() {
    if std::env::var_os("SKIP_NOW").is_some() {
        // Too small for xfs on every machine.
        assert!(or_skip(LoopMount::new(Kind::Xfs, 1 << 20, &[])).is_none());
        return;
    }
    let run = |required: &str| {
        let mut test = testkit::child::this_test(
            module_path!(),
            "skips_are_loud_and_fail_where_mounts_are_required",
        );
        run_quietly(test.env("SKIP_NOW", "1").env(REQUIRE, required))
    };
    let (succeeded, stdout, stderr) = run("0");
    assert!(
        succeeded && stdout.contains("skipped: ") && stderr.contains("skipped: "),
        "{stdout}{stderr}"
    );
    assert!(!run("1").0);
}

fn run_quietly(command: &mut Command) -> (bool, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.success(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

//! Whatever is full, bytes or inodes, of a filesystem or of a quota: what takes nothing works, what gives back works, and
//! what fails gives back what it took.

use crate::support_b;

use std::fs::{self, File};
use std::io::{ErrorKind as IoErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::FallocateFlags;
use snapshotter::{Error, ErrorKind, Format, GcRequest, SnapshotRequest};
use support_b::outside::{assert_at_rest, assert_rows_and_files_agree, content, names};
use support_b::{Handle, checkpoint, format, keepsake, refusal, request, restore_request};
use testkit::compare::assert_same;
use testkit::mount::{Kind, LoopMount, Skip, or_skip};
use testkit::{Content, Tree};

const MIB: u64 = 1 << 20;

/// What there is an end of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    Bytes,
    Inodes,
}

/// A filesystem, or a directory with a quota, that can be filled.
struct Case {
    mount: LoopMount,
    full: Full,
}

/// One kind of fullness: what makes it, and of what there is an end.
type Make = (&'static str, fn() -> Result<LoopMount, Skip>, Full);

const KINDS: [Make; 8] = [
    (
        "ext4",
        || LoopMount::new(Kind::Ext4, 96 * MIB, &[]),
        Full::Bytes,
    ),
    (
        "ext4, blocks of 1 KiB",
        || LoopMount::formatted(Kind::Ext4, 96 * MIB, &["-b", "1024"], &[]),
        Full::Bytes,
    ),
    (
        "ext4 without inodes",
        || LoopMount::formatted(Kind::Ext4, 100 * MIB, &["-N", "700"], &[]),
        Full::Inodes,
    ),
    (
        "XFS",
        || LoopMount::new(Kind::Xfs, 300 * MIB, &[]),
        Full::Bytes,
    ),
    (
        "btrfs",
        || LoopMount::new(Kind::Btrfs, 200 * MIB, &[]),
        Full::Bytes,
    ),
    (
        "btrfs, mixed",
        || LoopMount::formatted(Kind::Btrfs, 200 * MIB, &["--mixed"], &[]),
        Full::Bytes,
    ),
    ("a group's quota on XFS", || with_group_quota(), Full::Bytes),
    ("a quota on btrfs", with_subvolume_quota, Full::Bytes),
];

/// Nobody's group, to whose files nothing but the test adds.
const GROUP: u32 = 42_042;

/// A group's, because nothing limits root itself.
fn with_group_quota() -> Result<LoopMount, Skip> {
    // XFS counts quotas there where the kernel was built with them.
    if !Path::new("/proc/fs/xfs/xqmstat").exists() {
        return Err(Skip::lacking("this kernel's XFS has no quotas"));
    }
    let mount = LoopMount::new(Kind::Xfs, 300 * MIB, &["gquota"])?;
    let home = mount.path().join("home");
    fs::create_dir(&home).unwrap();
    chown(&home, None, Some(GROUP)).unwrap();
    // What is made in it is of its group too.
    fs::set_permissions(&home, fs::Permissions::from_mode(0o2755)).unwrap();
    let limit = format!("limit -g bhard=80m {GROUP}");
    let mut command = Command::new("xfs_quota");
    testkit::mount::run(command.args(["-x", "-c", &limit]).arg(mount.path()))?;
    Ok(mount)
}

fn with_subvolume_quota() -> Result<LoopMount, Skip> {
    let mount = LoopMount::new(Kind::Btrfs, 400 * MIB, &[])?;
    let home = mount.path().join("home");
    let btrfs =
        |arguments: &[&str]| testkit::mount::run(Command::new("btrfs").args(arguments).arg(&home));
    btrfs(&["subvolume", "create"])?;
    btrfs(&["quota", "enable"])?;
    btrfs(&["qgroup", "limit", "80M"])?;
    Ok(mount)
}

impl Case {
    /// A path where the end is felt.
    fn path(&self, name: &str) -> PathBuf {
        let home = self.mount.path().join("home");
        fs::create_dir_all(&home).unwrap();
        home.join(name)
    }

    fn root(&self) -> PathBuf {
        self.path("root")
    }

    fn open(&self) -> Result<Handle, Error> {
        Handle::open(&self.root())
    }

    /// Takes all there is: what a large file cannot have, small ones do.
    fn fill(&self) {
        let filler = self.path("filler");
        fs::create_dir_all(&filler).unwrap();
        for _ in 0..2 {
            let there = names(&filler).len();
            if self.full == Full::Bytes {
                fill_bytes(&filler.join(format!("{there}-bytes")));
            }
            fill_inodes(&filler, there, self.full);
        }
    }

    fn drain(&self) {
        fs::remove_dir_all(self.path("filler")).unwrap();
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        IoErrorKind::StorageFull | IoErrorKind::QuotaExceeded
    )
}

fn fill_bytes(path: &Path) {
    let Ok(mut file) = File::create(path) else {
        return;
    };
    let (mut at, mut length) = (0, 64 * MIB);
    while length >= 4096 {
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), at, length) {
            Ok(()) => at += length,
            Err(_) => length /= 2,
        }
    }
    let _ = file.sync_all();
    file.seek(SeekFrom::End(0)).unwrap();
    while file
        .write_all(&[1; 4096])
        .and_then(|()| file.sync_data())
        .is_ok()
    {}
}

/// Makes files until none can be made, each of a few bytes where bytes are what there is an end of.
fn fill_inodes(dir: &Path, prefix: usize, full: Full) {
    for number in 0_u32.. {
        let made =
            File::create(dir.join(format!("{prefix}-{number}"))).and_then(|mut file| match full {
                Full::Bytes => file.write_all(&[1; 1500]),
                Full::Inodes => Ok(()),
            });
        match made {
            Ok(()) => {}
            Err(error) if is_full(&error) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Many files, and more bytes than what a case has of either.
fn too_much() -> Tree {
    (0..900).fold(Tree::new(), |tree, number| {
        let content = Content::Random {
            seed: 1000 + number,
            len: 150_000,
        };
        tree.file(format!("{number:03}"), content)
    })
}

/// Something to make room with.
fn ballast(name: &str) -> Tree {
    let seed = name
        .bytes()
        .fold(7, |seed, byte| seed * 31 + u64::from(byte));
    (0..40).fold(Tree::new(), |tree, number| {
        let content = Content::Random {
            seed: seed + number,
            len: 300_000,
        };
        tree.file(format!("{number:03}"), content)
    })
}

fn all(name: &str, base: &Path) -> SnapshotRequest {
    SnapshotRequest::new(name, "v1", base).format(format())
}

/// What went wrong in one case, step by step.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn step<T>(&mut self, name: &str, result: Result<T, impl std::fmt::Debug>) -> Option<T> {
        result
            .map_err(|error| self.0.push(format!("{name}: {error:?}")))
            .ok()
    }

    fn expect(&mut self, name: &str, holds: bool) {
        if !holds {
            self.0.push(name.to_owned());
        }
    }
}

fn everything() -> GcRequest {
    GcRequest::new()
        .max_bytes(0)
        .min_retention_period(Duration::ZERO)
        .include_unpublished(true)
}

fn staged(root: &Path) -> usize {
    let staged = testkit::fsstat::entries(&root.join("staging")).unwrap();
    staged.iter().filter(|(_, found)| found.is_file()).count()
}

/// One kind of fullness, and what went wrong there.
struct Trial<'a> {
    case: &'a Case,
    /// Where there is room.
    elsewhere: &'a Path,
    faults: Faults,
}

impl Trial<'_> {
    fn roomy(&self, name: &str) -> PathBuf {
        self.elsewhere.join(name)
    }

    fn run(mut self) -> Vec<String> {
        self.prepare();
        self.case.fill();
        for round in 0..2 {
            let Some(handle) = self.faults.step("open", self.case.open()) else {
                return self.faults.0;
            };
            self.take_nothing(&handle, round);
            self.fail(&handle);
            self.case.fill();
            if round == 1 {
                self.give_back(&handle);
            }
            self.faults.step("close", handle.close());
            self.case.fill();
        }
        self.look_afterwards();
        self.faults.0
    }

    /// Snapshots, and an output from an earlier time: directories take room.
    fn prepare(&self) {
        let source = self.case.path("source");
        checkpoint().write_to(&source).unwrap();
        too_much().write_to(&self.roomy("much")).unwrap();
        keepsake().write_to(&self.roomy("keepsake")).unwrap();
        let handle = self.case.open().unwrap();
        handle.snapshot(&request("base", "v1", &source)).unwrap();
        for name in ["one", "other", "third"] {
            ballast(name).write_to(&self.roomy(name)).unwrap();
            let request = all(name, &self.roomy(name));
            handle.snapshot(&request).unwrap();
        }
        let keepsake = request("keepsake", "v1", &self.roomy("keepsake"));
        handle.snapshot(&keepsake).unwrap();
        let output = self.case.path("output");
        handle.restore("base:v1", &output).unwrap();
        for name in ["memory", "state", "state-again"] {
            fs::remove_file(output.join("ro").join(name)).unwrap();
        }
        handle.close().unwrap();
    }

    fn take_nothing(&mut self, handle: &Handle, round: u32) {
        let roomy = self.roomy(&format!("output-{round}"));
        let faults = &mut self.faults;
        faults.step("list", handle.list());
        faults.step("inspect", handle.inspect("base:v1"));
        faults.step("usage", handle.usage());
        faults.step("restore elsewhere", handle.restore("one:v1", &roomy));
        // What comes out of packs is written.
        if format() == Format::V2 {
            return;
        }
        let output = self.case.path("output");
        let read_only = restore_request("base:v1", &output).path("ro");
        if let Some(report) = faults.step("restore", handle.restore_with(&read_only)) {
            let linked = report.placements.hardlink.files;
            faults.expect("hardlinked", linked == if round == 0 { 2 } else { 0 });
            assert_same(&self.case.path("source/ro"), &output.join("ro"));
        }
    }

    /// What cannot be done says so, and gives back what it took.
    fn fail(&mut self, handle: &Handle) {
        let root = self.case.root();
        let before = names(&content(&root));
        let much = all("much", &self.roomy("much"));
        let error = refusal(handle.snapshot(&much));
        let faults = &mut self.faults;
        faults.expect(
            &format!("{error:?}"),
            error.kind() == ErrorKind::NoSpace && error.path().is_some(),
        );
        faults.expect("stored nothing", names(&content(&root)) == before);
        faults.expect("staged nothing", staged(&root) == 0);
        faults.expect("an empty trash", names(&root.join("trash")).is_empty());
    }

    fn give_back(&mut self, handle: &Handle) {
        let again = all("again", &self.roomy("one"));
        let faults = &mut self.faults;
        faults.step("remove", handle.remove("keepsake:v1"));
        faults.step("remove", handle.remove("other:v1"));
        // Whatever came back, somebody else was quicker.
        self.case.fill();
        faults.step("gc", handle.gc(&everything()));
        let stored = handle.usage().map(|usage| usage.blobs + usage.packs);
        faults.expect("collected all", stored.is_ok_and(|stored| stored == 0));
        faults.step("snapshot again", handle.snapshot(&again));
    }

    /// With room again.
    fn look_afterwards(&mut self) {
        self.case.drain();
        let (handle, output) = (self.case.open().unwrap(), self.roomy("again"));
        let restored = handle.restore("again:v1", &output);
        if self.faults.step("restore again", restored).is_some() {
            assert_same(&self.roomy("one"), &output);
        }
        let swept = handle.assert_clean().swept_names;
        self.faults.expect("nothing to sweep", swept == 0);
        handle.close().unwrap();
        if self.faults.0.is_empty() {
            assert_at_rest(&self.case.root());
            assert_rows_and_files_agree(&self.case.root());
        }
    }
}

// A full XFS or btrfs, a quota, no free inodes: `list`, `remove`, `gc` and `restore` all failed, the reserve was not used,
// a failed snapshot gave nothing back, and `remove` failed after it had removed.
#[test]
fn whatever_is_full_what_takes_nothing_and_what_gives_back_works() {
    let mut failed = Vec::new();
    let is_tried = |name: &str| match format() {
        // A snapshot in pages is a handful of files: what goes makes no room where inodes are short.
        Format::V2 => ["ext4", "XFS", "btrfs"].contains(&name),
        _ => true,
    };
    for (name, make, full) in KINDS.into_iter().filter(|(name, ..)| is_tried(name)) {
        let Some(mount) = or_skip(make()) else {
            continue;
        };
        let elsewhere = tempfile::tempdir().unwrap();
        let trial = Trial {
            case: &Case { mount, full },
            elsewhere: elsewhere.path(),
            faults: Faults::default(),
        };
        failed.extend(
            trial
                .run()
                .into_iter()
                .map(|fault| format!("{name}: {fault}")),
        );
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

// Collection looked at bytes alone: a filesystem that ran out of inodes with most of its bytes free was never collected.
#[test]
fn collection_begins_when_inodes_run_short_and_ends_when_there_are_enough() {
    let mount = LoopMount::formatted(Kind::Ext4, 100 * MIB, &["-N", "700"], &[]);
    let Some(mount) = or_skip(mount) else { return };
    let elsewhere = tempfile::tempdir().unwrap();
    let handle = Handle::open(&mount.path().join("root")).unwrap();
    for version in 0..5_u64 {
        let source = elsewhere.path().join(version.to_string());
        let tree = (0..125).fold(Tree::new(), |tree, number| {
            let content = Content::Random {
                seed: version * 1000 + number,
                len: 100,
            };
            tree.file(format!("{number:03}"), content)
        });
        tree.write_to(&source).unwrap();
        let request = SnapshotRequest::new("vm", format!("v{version}"), &source);
        handle.snapshot(&request).unwrap();
    }
    let used = || {
        let stat = rustix::fs::statvfs(mount.path()).unwrap();
        (stat.f_files - stat.f_favail) * 100 / stat.f_files
    };
    assert!(used() >= 90, "{}", used());
    let request = GcRequest::new()
        .min_retention_period(Duration::ZERO)
        .include_unpublished(true);
    let report = handle.gc(&request).unwrap();
    assert!(report.wanted.inodes > 0 && report.wanted.disk_bytes == 0);
    assert_eq!(report.released.len(), 2, "{report:#?}");
    assert_eq!(report.shortfall, None);
    assert!(used() <= 70, "{}", used());
    assert_eq!(handle.gc(&request).unwrap().released, []);
    handle.close().unwrap();
}

/// A small filesystem, with so much left.
fn nearly_full(block: &str, left: u64) -> Result<LoopMount, Skip> {
    let mount = LoopMount::formatted(Kind::Ext4, 16 * MIB, &["-b", block], &[])?;
    let filler = File::create(mount.path().join("filler")).unwrap();
    let length = available(mount.path()) - left;
    rustix::fs::fallocate(&filler, FallocateFlags::empty(), 0, length).unwrap();
    filler.sync_all().unwrap();
    Ok(mount)
}

fn available(path: &Path) -> u64 {
    let stat = rustix::fs::statvfs(path).unwrap();
    stat.f_bavail * stat.f_frsize
}

// With blocks smaller than a page the catalog's index, which is mapped, had holes: on a nearly full disk the kernel killed
// whoever wrote there. And the first opening of a store took all of a few MiB for its reserve, and kept them.
#[test]
fn a_store_that_is_first_opened_on_a_nearly_full_disk_works_or_says_so() {
    let elsewhere = tempfile::tempdir().unwrap();
    let source = elsewhere.path().join("source");
    let tree = Tree::new().file("small", Content::Random { seed: 1, len: 3 });
    tree.write_to(&source).unwrap();
    for block in ["1024", "4096"] {
        for left in [
            20, 40, 50, 60, 70, 80, 99, 130, 200, 400, 1000, 3000, 7000_u64,
        ] {
            let Some(mount) = or_skip(nearly_full(block, left << 10)) else {
                return;
            };
            let root = mount.path().join("root");
            let used: Result<(), Error> = (0..3).try_for_each(|version| {
                let handle = Handle::open(&root)?;
                let request = SnapshotRequest::new("vm", format!("v{version}"), &source);
                handle.snapshot(&request)?;
                handle.list()?;
                handle.close()
            });
            let context = format!("{left} KiB in blocks of {block} bytes: {used:?}");
            assert!(left < 1000 || used.is_ok(), "{context}");
            if let Err(error) = used {
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{context}");
                assert!(error.hint().is_some(), "{context}");
            }
            let kept = available(mount.path());
            assert!(left < 1000 || kept >= (left << 10) / 2, "{context}: {kept}");
        }
    }
}

in_pages_too!(whatever_is_full_what_takes_nothing_and_what_gives_back_works);

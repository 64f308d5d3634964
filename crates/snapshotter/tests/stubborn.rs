//! Files that the system does not let go: they are named and left, and everything else goes on.

use crate::support_b;

use std::fs::{self, File, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use snapshotter::{GcRequest, Warning, WarningKind};
use support_b::outside::{assert_at_rest, assert_rows_and_files_agree, content, names, views};
use support_b::{Handle, checkpoint, keepsake, request};
use testkit::compare::assert_same;
use testkit::mount::{Kind, LoopMount, Skip, or_skip};

/// An ext4 of one's own, which is sure to have such flags.
struct Scene {
    mount: LoopMount,
}

impl Scene {
    fn new() -> Option<Self> {
        let mount = or_skip(LoopMount::new(Kind::Ext4, 64 << 20, &[]))?;
        Some(Self { mount })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.mount.path().join(name)
    }

    fn root(&self) -> PathBuf {
        self.path("root")
    }

    /// With two snapshots that share a blob.
    fn open(&self) -> Handle {
        checkpoint().write_to(&self.path("one")).unwrap();
        keepsake().write_to(&self.path("other")).unwrap();
        let handle = Handle::open(&self.root()).unwrap();
        for name in ["one", "other"] {
            let request = request(name, "v1", &self.path(name));
            handle.snapshot(&request).unwrap();
        }
        handle
    }

    /// Nothing is left of anything, once everything lets go.
    fn assert_swept(&self, handle: Handle) {
        let swept = handle.gc(&everything()).unwrap();
        assert_eq!(swept.warnings, []);
        assert_eq!(handle.usage().unwrap().blobs, 0);
        handle.close().unwrap();
        assert_at_rest(&self.root());
        assert_rows_and_files_agree(&self.root());
    }
}

/// A file or directory with a flag that root does not get past either, until this is dropped.
struct Flagged {
    path: PathBuf,
    flag: &'static str,
}

impl Flagged {
    fn new(path: PathBuf, flag: &'static str) -> Result<Self, Skip> {
        assert!(path.exists(), "{}", path.display());
        let flagged = Self { path, flag };
        flagged.change('+')?;
        Ok(flagged)
    }

    fn change(&self, sign: char) -> Result<(), Skip> {
        let mut command = Command::new("chattr");
        let flag = format!("{sign}{}", self.flag);
        testkit::mount::run(command.arg(flag).arg(&self.path))
    }
}

impl Drop for Flagged {
    fn drop(&mut self) {
        let _ = self.change('-');
    }
}

fn everything() -> GcRequest {
    GcRequest::new()
        .max_bytes(0)
        .min_retention_period(Duration::ZERO)
        .include_unpublished(true)
}

#[track_caller]
fn assert_named(warnings: &[Warning], left: &Path) {
    let is_it = |warning: &Warning| {
        let path = warning.path.as_ref();
        warning.kind == WarningKind::Deferred && path.is_some_and(|path| path.starts_with(left))
    };
    let named = warnings.iter().any(is_it);
    assert!(named, "{}: {warnings:#?}", left.display());
}

/// What is stored of a file, by its size.
fn stored(dir: &Path, size: u64) -> PathBuf {
    let mut paths = names(dir).into_iter().map(|name| dir.join(name));
    let is_it = |path: &PathBuf| fs::metadata(path).unwrap().len() == size;
    paths.find(is_it).expect("a file of that size")
}

fn spoil(path: &Path) {
    let mut file = File::options().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(4200)).unwrap();
    file.write_all(b"wrong").unwrap();
}

// Somebody made a restored file immutable, and with it the blob it is a hardlink of: `remove`, garbage collection and
// verification of the whole root failed from then on.
#[test]
fn a_blob_that_cannot_be_unlinked_is_named_and_left_and_goes_later() {
    let Some(scene) = Scene::new() else { return };
    let handle = scene.open();
    handle.restore("one:v1", &scene.path("output")).unwrap();
    let blob = stored(&content(&scene.root()).join("0000"), 3 << 20);
    let flagged = Flagged::new(scene.path("output/ro/memory"), "i");
    let Some(flagged) = or_skip(flagged) else {
        return;
    };
    let removed = handle.remove("one:v1").unwrap();
    assert_named(&removed.warnings, &blob);
    assert!(blob.exists());
    let verified = handle.verify().unwrap();
    assert!(verified.is_sound());
    assert_named(&verified.warnings, &blob);
    let collected = handle.gc(&everything()).unwrap();
    assert_named(&collected.warnings, &blob);
    assert_eq!(names(&content(&scene.root()).join("0000")).len(), 1);
    drop(flagged);
    scene.assert_swept(handle);
}

// The same in a directory that only grows, where nothing can be unlinked at all, and with a file that something is
// mounted on.
#[test]
fn a_directory_that_only_grows_and_a_mount_are_left_and_everything_else_goes_on() {
    let Some(scene) = Scene::new() else { return };
    let handle = scene.open();
    // With views.
    for name in ["one", "other"] {
        let output = scene.path(&format!("{name}-earlier"));
        handle.restore(&format!("{name}:v1"), &output).unwrap();
    }
    let flagged = [
        content(&scene.root()).join("0000"),
        views(&scene.root()).join("0000"),
    ];
    let flagged = flagged.map(|dir| or_skip(Flagged::new(dir, "a")));
    if flagged.iter().any(Option::is_none) {
        return;
    }
    let removed = handle.remove("one:v1").unwrap();
    assert_named(&removed.warnings, &content(&scene.root()).join("0000"));
    assert!(handle.verify().unwrap().is_sound());
    handle.restore("other:v1", &scene.path("output")).unwrap();
    assert_same(&scene.path("other"), &scene.path("output"));
    drop(flagged);
    let blob = stored(&content(&scene.root()).join("0000"), 7000);
    let mut mount = Command::new("mount");
    let mounted = mount.arg("--bind").args([&scene.path("one/disk"), &blob]);
    if or_skip(testkit::mount::run(mounted)).is_none() {
        return;
    }
    let removed = handle.remove("other:v1");
    let verified = handle.verify();
    testkit::mount::run(Command::new("umount").arg(&blob)).unwrap();
    assert_named(&removed.unwrap().warnings, &blob);
    assert_named(&verified.unwrap().warnings, &blob);
    scene.assert_swept(handle);
}

// One immutable name in the staging or the trash of a process that died kept everybody from opening the store.
#[test]
fn what_a_dead_owner_left_and_cannot_be_removed_keeps_nobody_out() {
    let Some(scene) = Scene::new() else { return };
    scene.open().close().unwrap();
    let owner = "0123456789abcdef";
    let left = [
        format!("staging/{owner}/0/1"),
        format!("trash/{owner}.fedcba9876543210"),
        // As the release before left it.
        format!("trash/{owner}/fedcba9876543210"),
    ]
    .map(|name| scene.root().join(name));
    let mut flagged = Vec::new();
    for path in &left {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "left").unwrap();
        flagged.push(or_skip(Flagged::new(path.clone(), "i")));
    }
    if flagged.iter().any(Option::is_none) {
        return;
    }
    fs::write(scene.root().join("leases").join(owner), "").unwrap();
    let beside = scene.root().join("staging").join(owner).join("0/2");
    fs::write(&beside, "goes").unwrap();
    let handle = Handle::open(&scene.root()).unwrap();
    assert!(!beside.exists());
    let verified = handle.verify().unwrap();
    assert!(verified.is_sound());
    for path in &left {
        assert_named(&verified.warnings, path);
    }
    drop(flagged);
    scene.assert_swept(handle);
}

// A repair that met one bad file it could not replace left all the others bad.
#[test]
fn a_bad_file_that_cannot_be_replaced_is_left_and_the_others_are_repaired() {
    let Some(scene) = Scene::new() else { return };
    let handle = scene.open();
    // With a view of the shared file to mend it from.
    handle.restore("one:v1", &scene.path("output-1")).unwrap();
    handle.restore("other:v1", &scene.path("output-2")).unwrap();
    let content = content(&scene.root()).join("0000");
    let (stuck, mended) = (stored(&content, 3 << 20), stored(&content, 5000));
    spoil(&stuck);
    spoil(&mended);
    let Some(flagged) = or_skip(Flagged::new(stuck.clone(), "i")) else {
        return;
    };
    let report = handle.repair().unwrap();
    assert_eq!(report.damaged.len(), 1, "{report:#?}");
    assert_eq!(report.damaged[0].quarantined, None);
    assert_eq!(report.repaired.len(), 1, "{report:#?}");
    assert_named(&report.warnings, &stuck);
    drop(flagged);
    let report = handle.repair().unwrap();
    assert!(report.damaged[0].quarantined.is_some(), "{report:#?}");
    handle.close().unwrap();
}

// A view that drifted and could not be replaced failed every restore that wanted it.
#[test]
fn a_view_that_cannot_be_made_anew_is_left_and_its_files_are_copied() {
    let Some(scene) = Scene::new() else { return };
    let handle = scene.open();
    for name in ["one", "other"] {
        let output = scene.path("output");
        handle.restore(&format!("{name}:v1"), &output).unwrap();
        fs::remove_dir_all(output).unwrap();
    }
    let view = views(&scene.root()).join("0000").join(
        names(&views(&scene.root()).join("0000"))
            .first()
            .expect("a view"),
    );
    fs::set_permissions(&view, Permissions::from_mode(0o777)).unwrap();
    let Some(flagged) = or_skip(Flagged::new(view.clone(), "i")) else {
        return;
    };
    for name in ["one", "other"] {
        let output = scene.path(&format!("{name}-output"));
        handle.restore(&format!("{name}:v1"), &output).unwrap();
        assert_same(&scene.path(name), &output);
    }
    let mut warnings = handle.remove("other:v1").unwrap().warnings;
    warnings.extend(handle.remove("one:v1").unwrap().warnings);
    assert_named(&warnings, &view);
    drop(flagged);
    scene.assert_swept(handle);
}

//! Several processes, and several users, on one root: what they may do to each other, and what is left when one dies.

use crate::support_b;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use snapshotter::{ErrorKind, Event, Format, Observer, SnapshotRequest, WarningKind};
use support_b::children::{
    NOBODY, ends_well, part, playing, playing_as_nobody, start, stop_here, stopped, tell, told,
    told_number,
};
use support_b::outside::{
    assert_at_rest, assert_nothing_partial, assert_rows_and_files_agree, assert_rows_have_files,
    blobs, catalog, content, names, names_in_shards, remove_temporaries,
};
use support_b::{Handle, checkpoint, format, keepsake, kind, refusal, request, unless_busy};
use tempfile::TempDir;
use testkit::child::{Child, State};
use testkit::compare::{Options, assert_same, assert_same_with};
use testkit::mount::report_skip;
use testkit::prng::Prng;
use testkit::{Content, Tree};

/// Where children start: which part they play is in the environment.
#[test]
fn children_start_here() {
    match part().as_deref() {
        None => {}
        Some("worker") => work(),
        Some("stopping snapshot") => snapshot_and_stop(),
        Some("late snapshot") => be_late(),
        Some("stopping restore") => restore_and_stop(),
        Some("owner") => own_and_stop(),
        Some("refused") => be_refused(),
        Some("ordinary user") => live_as_an_ordinary_user(),
        Some(part) => panic!("nobody plays {part}"),
    }
}

/// A root, and trees to take.
struct Scene {
    dir: TempDir,
}

impl Scene {
    fn new() -> Self {
        let scene = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        checkpoint().write_to(&scene.source()).unwrap();
        keepsake().write_to(&scene.keepsake()).unwrap();
        scene
    }

    /// With `kept:v1` in the store.
    fn with_a_snapshot() -> Self {
        let scene = Self::new();
        let handle = scene.open();
        handle
            .snapshot(&request("kept", "v1", &scene.keepsake()))
            .unwrap();
        handle.close().unwrap();
        scene
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn root(&self) -> PathBuf {
        self.at("root")
    }

    fn source(&self) -> PathBuf {
        self.at("source")
    }

    fn keepsake(&self) -> PathBuf {
        self.at("keepsake")
    }

    fn output(&self) -> PathBuf {
        self.at("output")
    }

    fn open(&self) -> Handle {
        Handle::open(&self.root()).unwrap()
    }

    fn child(&self, part: &str) -> Command {
        let mut command = playing(module_path!(), part);
        tell(&mut command, "ROOT", self.root());
        tell(&mut command, "SOURCE", self.source());
        tell(&mut command, "OUTPUT", self.output());
        command
    }

    /// Nobody is at work any more, and nothing is left of those who were.
    fn assert_whole(&self) {
        let handle = self.open();
        handle.assert_clean();
        handle.close().unwrap();
        assert_at_rest(&self.root());
        assert_rows_and_files_agree(&self.root());
    }
}

const ROUNDS: u64 = 8;

/// How many blobs there are, or packs.
fn stored(handle: &Handle) -> u64 {
    let usage = handle.usage().unwrap();
    usage.blobs + usage.packs
}

/// Of so many files of one snapshot.
fn objects(blobs: u64) -> u64 {
    match format() {
        Format::V2 => 1,
        _ => blobs,
    }
}

/// Takes the same tree as everybody under its own names, restores what it and others took, removes what it took.
fn work() {
    let (root, source, output) = (told("ROOT"), told("SOURCE"), told("OUTPUT"));
    let me = told_number("NUMBER");
    let name = format!("worker-{me}");
    let endless = told_number("ROUNDS") == 0;
    let mut round = 0;
    while endless || round < ROUNDS {
        // A new handle now and then: openers and closers meet too.
        let handle = Handle::open(&root).unwrap();
        for _ in 0..2 {
            handle
                .snapshot(&request(&name, &format!("v{round}"), &source))
                .unwrap();
            let into = output.join(format!("{me}-{round}"));
            let own = format!("{name}:v{round}");
            handle.restore(&own, &into).unwrap();
            assert_same(&source, &into);
            restore_somebody_elses(&handle, &source, &into);
            fs::remove_dir_all(&into).unwrap();
            if round >= 2 {
                handle.remove(&format!("{name}:v{}", round - 2)).unwrap();
            }
            round += 1;
        }
        if me.is_multiple_of(2) {
            handle.assert_clean();
        }
        handle.close().unwrap();
    }
}

/// It may be removed at any moment: then it is not found, or complete.
fn restore_somebody_elses(handle: &Handle, source: &Path, into: &Path) {
    let listed = handle.listed();
    let foreign = listed
        .iter()
        .find(|reference| !reference.starts_with(&format!("worker-{}:", told_number("NUMBER"))));
    if let Some(reference) = foreign {
        match handle.restore(reference, into) {
            Ok(_) if reference.starts_with("worker") => assert_same(source, into),
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}"),
        }
    }
}

fn workers(scene: &Scene, count: u64, rounds: u64) -> Vec<Child> {
    (0..count)
        .map(|number| {
            let mut command = scene.child("worker");
            tell(&mut command, "NUMBER", number.to_string());
            tell(&mut command, "ROUNDS", rounds.to_string());
            start(&mut command)
        })
        .collect()
}

#[test]
fn processes_on_one_root_do_not_disturb_each_other() {
    let scene = Scene::new();
    for child in &mut workers(&scene, 3, ROUNDS) {
        assert_eq!(child.wait().unwrap(), State::Exited(0));
    }
    let handle = scene.open();
    let listed = handle.listed();
    assert_eq!(listed.len(), 6, "{listed:?}");
    let source = scene.source();
    let expected: Vec<(&str, &Path)> = listed
        .iter()
        .map(|reference| (reference.as_str(), source.as_path()))
        .collect();
    handle.assert_all_restore(&expected, scene.dir.path());
    assert_eq!(stored(&handle), objects(3));
    let report = handle.assert_clean();
    assert_eq!(report.swept_names, 0, "nobody died: there is no litter");
    handle.close().unwrap();
    assert_at_rest(&scene.root());
    assert_rows_and_files_agree(&scene.root());
}

const DEATHS: u64 = 25;

#[test]
fn processes_killed_at_any_moment_leave_nothing_behind() {
    let scene = Scene::with_a_snapshot();
    let mut random = Prng::new(1);
    for round in 0..DEATHS {
        let mut pair = workers(&scene, 2, 0);
        // When it dies decides what is found, never what must hold.
        std::thread::sleep(Duration::from_millis(5 + random.below(120)));
        for child in &mut pair {
            child.kill().unwrap();
        }
        assert_rows_have_files(&scene.root());
        let handle = scene.open();
        // Those of the dead are gone; there is one of this handle's if it had to sweep.
        let leases = names(&scene.root().join("leases"));
        assert!(leases.len() <= 1, "round {round}: {leases:?}");
        let (source, keepsake) = (scene.source(), scene.keepsake());
        let listed = handle.listed();
        let expected: Vec<(&str, &Path)> = listed
            .iter()
            .map(|reference| match reference.as_str() {
                "kept:v1" => ("kept:v1", keepsake.as_path()),
                other => (other, source.as_path()),
            })
            .collect();
        handle.assert_all_restore(&expected, scene.dir.path());
        handle.assert_clean();
        for reference in listed.iter().filter(|reference| *reference != "kept:v1") {
            handle.remove(reference).unwrap();
        }
        assert_eq!(stored(&handle), objects(2));
        handle.close().unwrap();
        assert_at_rest(&scene.root());
        assert_rows_and_files_agree(&scene.root());
        let _ = fs::remove_dir_all(scene.output());
    }
}

/// Stops the whole process when the first file is done.
#[derive(Default)]
struct StopAtFirstFile(AtomicBool);

impl Observer for StopAtFirstFile {
    fn event(&self, event: &Event) {
        let first =
            matches!(event, Event::FileFinished { .. }) && !self.0.swap(true, Ordering::Relaxed);
        if first {
            stop_here();
        }
    }
}

/// A handle for one file at a time that stops after the first.
fn stopping() -> Handle {
    let config = snapshotter::Config::new(told("ROOT"))
        .snapshot_concurrency(1)
        .restore_concurrency(1);
    Handle::with(config)
        .unwrap()
        .observed_by(Arc::new(StopAtFirstFile::default()))
}

fn snapshot_and_stop() {
    let handle = stopping();
    handle
        .snapshot(&request("base", "v1", &told("SOURCE")))
        .unwrap();
    handle.close().unwrap();
}

fn be_late() {
    let handle = stopping();
    let result = handle.snapshot(&request("base", "v1", &told("SOURCE")));
    assert_eq!(kind(result), ErrorKind::AlreadyExists);
    handle.close().unwrap();
}

fn restore_and_stop() {
    let handle = stopping();
    handle.restore("base:v1", &told("OUTPUT")).unwrap();
    handle.close().unwrap();
}

#[test]
fn an_owner_that_lives_is_not_cleaned_up_by_others() {
    let scene = Scene::with_a_snapshot();
    let mut child = start(&mut scene.child("stopping snapshot"));
    stopped(&mut child);
    let at_work = || {
        let leases = names(&scene.root().join("leases"));
        let catalog = catalog(&scene.root());
        let pending: i64 = catalog
            .query_row(
                "SELECT count(*) FROM snapshots WHERE state = 0",
                [],
                |row| row.get(0),
            )
            .unwrap();
        (leases, names(&scene.root().join("staging")), pending)
    };
    let before = at_work();
    assert_eq!((before.0.len(), before.2), (1, 1));
    for _ in 0..3 {
        let handle = scene.open();
        assert_eq!(handle.listed(), ["kept:v1"]);
        assert_eq!(handle.assert_clean().swept_names, 0);
        handle.close().unwrap();
    }
    assert_eq!(at_work(), before);
    ends_well(&mut child);
    let handle = scene.open();
    let (source, keepsake) = (scene.source(), scene.keepsake());
    let expected: [(&str, &Path); 2] = [("base:v1", &source), ("kept:v1", &keepsake)];
    assert_eq!(handle.listed(), ["base:v1", "kept:v1"]);
    handle.assert_all_restore(&expected, scene.dir.path());
    handle.close().unwrap();
    scene.assert_whole();
}

#[test]
fn what_a_dead_owner_began_is_gone_at_the_next_open() {
    let scene = Scene::with_a_snapshot();
    let usage = blobs(&scene.root());
    let mut child = start(&mut scene.child("stopping snapshot"));
    stopped(&mut child);
    let has_begun = match format() {
        // Packs get their names at the end.
        Format::V2 => !names(&scene.root().join("staging")).is_empty(),
        _ => blobs(&scene.root()) > usage,
    };
    assert!(has_begun, "it had begun");
    child.kill().unwrap();
    let handle = scene.open();
    assert_eq!(stored(&handle), usage as u64);
    assert_eq!(names_in_shards(&content(&scene.root())).len(), usage);
    // Its name is free again.
    handle
        .snapshot(&request("base", "v1", &scene.source()))
        .unwrap();
    handle.close().unwrap();
    scene.assert_whole();
}

#[test]
fn two_processes_may_not_both_have_one_version() {
    let scene = Scene::new();
    let mut child = start(&mut scene.child("late snapshot"));
    stopped(&mut child);
    // It has announced `base:v1`, and somebody else is quicker.
    let handle = scene.open();
    handle
        .snapshot(&request("base", "v1", &scene.source()))
        .unwrap();
    ends_well(&mut child);
    handle.restore("base:v1", &scene.output()).unwrap();
    assert_same(&scene.source(), &scene.output());
    handle.close().unwrap();
    scene.assert_whole();
}

#[test]
fn a_snapshot_removed_while_another_process_restores_it_comes_out_whole() {
    let scene = Scene::new();
    let handle = scene.open();
    handle
        .snapshot(&request("base", "v1", &scene.source()))
        .unwrap();
    let mut child = start(&mut scene.child("stopping restore"));
    stopped(&mut child);
    handle.remove("base:v1").unwrap();
    assert!(handle.listed().is_empty());
    assert_eq!(stored(&handle), objects(3), "the restore needs them");
    handle.assert_clean();
    ends_well(&mut child);
    assert_same(&scene.source(), &scene.output());
    assert_eq!(stored(&handle), 0, "now nobody does");
    assert!(names_in_shards(&content(&scene.root())).is_empty());
    handle.close().unwrap();
    scene.assert_whole();
}

#[test]
fn what_a_restore_that_was_killed_kept_goes_at_the_next_open() {
    let scene = Scene::new();
    let handle = scene.open();
    handle
        .snapshot(&request("base", "v1", &scene.source()))
        .unwrap();
    let mut child = start(&mut scene.child("stopping restore"));
    stopped(&mut child);
    handle.remove("base:v1").unwrap();
    child.kill().unwrap();
    assert_nothing_partial(&scene.source(), &scene.output());
    let other = scene.open();
    assert_eq!(stored(&other), 0);
    assert!(names_in_shards(&content(&scene.root())).is_empty());
    other.close().unwrap();
    handle.close().unwrap();
    scene.assert_whole();
    remove_temporaries(&scene.output());
}

#[test]
fn a_version_can_be_taken_again_while_the_removed_one_is_still_restored() {
    let scene = Scene::new();
    let handle = scene.open();
    handle
        .snapshot(&request("base", "v1", &scene.source()))
        .unwrap();
    let mut child = start(&mut scene.child("stopping restore"));
    stopped(&mut child);
    handle.remove("base:v1").unwrap();
    handle
        .snapshot(&request("base", "v1", &scene.keepsake()))
        .unwrap();
    ends_well(&mut child);
    assert_same(&scene.source(), &scene.output());
    let keepsake = scene.keepsake();
    handle.assert_all_restore(&[("base:v1", &keepsake)], scene.dir.path());
    handle.close().unwrap();
    scene.assert_whole();
}

#[test]
fn a_lease_ends_with_its_process_and_never_by_the_clock() {
    let scene = Scene::new();
    let handle = scene.open();
    handle
        .snapshot(&request("base", "v1", &scene.source()))
        .unwrap();
    let mut child = start(&mut scene.child("stopping restore"));
    stopped(&mut child);
    // As if it had been stopped for fifty years.
    let leases = scene.root().join("leases");
    for name in names(&leases) {
        testkit::tree::set_mtime(&leases.join(name), (1, 0)).unwrap();
    }
    catalog(&scene.root())
        .execute_batch("UPDATE snapshots SET created_at = 1, last_accessed_at = 1")
        .unwrap();
    handle.remove("base:v1").unwrap();
    handle.assert_clean();
    scene.open().close().unwrap();
    assert_eq!(stored(&handle), objects(3), "it lives");
    child.kill().unwrap();
    // And no time at all after its death.
    scene.open().close().unwrap();
    assert_eq!(stored(&handle), 0);
    handle.close().unwrap();
    scene.assert_whole();
    remove_temporaries(&scene.output());
}

fn own_and_stop() {
    let handle = Handle::open(&told("ROOT")).unwrap();
    stop_here();
    handle.close().unwrap();
}

#[test]
fn a_lease_file_somebody_deleted_costs_its_owner_no_visible_snapshot() {
    let scene = Scene::with_a_snapshot();
    let mut child = start(&mut scene.child("owner"));
    stopped(&mut child);
    for name in names(&scene.root().join("leases")) {
        fs::remove_file(scene.root().join("leases").join(name)).unwrap();
    }
    let handle = scene.open();
    handle.assert_clean();
    handle.close().unwrap();
    ends_well(&mut child);
    assert!(scene.open().listed().contains(&"kept:v1".to_owned()));
    scene.assert_whole();
}

#[test]
fn a_root_of_a_newer_release_is_refused_by_its_number() {
    let scene = Scene::with_a_snapshot();
    catalog(&scene.root())
        .pragma_update(None, "user_version", 99)
        .unwrap();
    let error = refusal(Handle::open(&scene.root()));
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let text = error.to_string();
    assert!(text.contains("99") && text.contains("knows 4"), "{text}");
    assert!(error.hint().is_some());
    // And it is left alone.
    catalog(&scene.root())
        .pragma_update(None, "user_version", 4)
        .unwrap();
    assert_eq!(scene.open().listed(), ["kept:v1"]);
    scene.assert_whole();
}

#[test]
fn a_go_librarys_root_is_refused_by_name() {
    let scene = Scene::new();
    let metadata = scene.root().join("metadata");
    fs::create_dir_all(&metadata).unwrap();
    fs::write(metadata.join("snapshotter.db"), "bolt").unwrap();
    for _ in 0..2 {
        let error = refusal(Handle::open(&scene.root()));
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("Go library"), "{error}");
    }
    assert_eq!(fs::read(metadata.join("snapshotter.db")).unwrap(), b"bolt");
}

/// Deletes the catalog, with its log.
fn lose_the_catalog(root: &Path) {
    for name in names(&root.join("metadata")) {
        fs::remove_file(root.join("metadata").join(name)).unwrap();
    }
}

#[test]
fn a_store_that_lost_its_catalog_is_damaged_and_stays_as_it_is() {
    let scene = Scene::with_a_snapshot();
    let before = names_in_shards(&content(&scene.root()));
    lose_the_catalog(&scene.root());
    for _ in 0..2 {
        let error = refusal(Handle::open(&scene.root()));
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
        assert!(error.hint().is_some());
    }
    assert_eq!(names_in_shards(&content(&scene.root())), before);
}

#[test]
fn an_empty_file_is_no_catalog_of_a_store_with_bytes() {
    let scene = Scene::with_a_snapshot();
    lose_the_catalog(&scene.root());
    fs::write(scene.root().join("metadata/catalog.db"), "").unwrap();
    assert_eq!(kind(Handle::open(&scene.root())), ErrorKind::Damaged);
}

#[test]
fn a_catalog_that_is_no_database_is_damaged() {
    let scene = Scene::with_a_snapshot();
    lose_the_catalog(&scene.root());
    fs::write(
        scene.root().join("metadata/catalog.db"),
        "this is no database at all".repeat(1000),
    )
    .unwrap();
    let error = refusal(Handle::open(&scene.root()));
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
}

#[test]
fn a_root_whose_catalog_was_lost_before_anything_was_stored_starts_anew() {
    let scene = Scene::new();
    scene.open().close().unwrap();
    lose_the_catalog(&scene.root());
    let handle = scene.open();
    assert!(handle.listed().is_empty());
    handle.close().unwrap();
    scene.assert_whole();
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A directory everybody may write to, as `/tmp` is.
fn world_writable() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let everybody = fs::Permissions::from_mode(0o1777);
    fs::set_permissions(dir.path(), everybody).unwrap();
    dir
}

fn be_refused() {
    let error = refusal(Handle::open(&told("ROOT")));
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    assert!(error.hint().is_some() && error.path().is_some());
}

#[test]
fn a_root_of_another_user_is_permission_denied() {
    if !is_root() {
        report_skip("becoming another user takes root");
        return;
    }
    let dir = world_writable();
    let root = dir.path().join("root");
    let source = dir.path().join("source");
    checkpoint().write_to(&source).unwrap();
    let handle = Handle::open(&root).unwrap();
    handle.snapshot(&request("base", "v1", &source)).unwrap();
    handle.close().unwrap();
    assert_eq!(fs::metadata(&root).unwrap().mode() & 0o7777, 0o700);
    let locked = dir.path().join("locked");
    fs::create_dir(&locked).unwrap();
    // One that is there, and one that cannot be made; whatever modes the first has inside.
    for root in [&root, &locked.join("new/root")] {
        let mut command = playing_as_nobody(module_path!(), "refused");
        tell(&mut command, "ROOT", root);
        assert_eq!(start(&mut command).wait().unwrap(), State::Exited(0));
    }
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = playing_as_nobody(module_path!(), "refused");
    tell(&mut command, "ROOT", &root);
    assert_eq!(start(&mut command).wait().unwrap(), State::Exited(0));
    assert!(!locked.join("new").exists());
}

/// Files of its own and of another user, in and out.
fn live_as_an_ordinary_user() {
    let (root, output) = (told("ROOT"), told("OUTPUT"));
    let (own, foreign) = (told("OWN"), told("FOREIGN"));
    let handle = Handle::open(&root).unwrap();
    let taken = handle.snapshot(&request("own", "v1", &own)).unwrap();
    assert_eq!(taken.placements.hardlink.files, 2, "{:?}", taken.warnings);
    assert_eq!(taken.warnings, []);
    let restored = handle.restore("own:v1", &output.join("own")).unwrap();
    assert_eq!(restored.placements.hardlink.files, 2);
    assert_eq!(restored.warnings, []);
    assert_same(&own, &output.join("own"));
    if foreign.exists() {
        live_with_somebody_elses_files(&handle, &foreign, &output.join("foreign"));
    }
    handle.remove("own:v1").unwrap();
    handle.assert_clean();
    handle.close().unwrap();
    assert_at_rest(&root);
    assert_rows_and_files_agree(&root);
}

fn live_with_somebody_elses_files(handle: &Handle, foreign: &Path, output: &Path) {
    let taken = handle.snapshot(&request("foreign", "v1", foreign)).unwrap();
    assert_eq!(taken.placements.hardlink.files, 0);
    let warned: Vec<_> = taken
        .warnings
        .iter()
        .filter_map(|warning| Some((warning.kind, warning.path.as_deref()?.to_str()?)))
        .collect();
    let writer = WarningKind::Writer;
    assert_eq!(warned, [(writer, "ro/memory"), (writer, "ro/state")]);
    let asked = Options {
        owner: false,
        ..Options::default()
    };
    for _ in 0..2 {
        let restored = handle.restore("foreign:v1", output).unwrap();
        assert_eq!(restored.warnings, [], "an owner is not theirs to set");
        assert_same_with(foreign, output, &asked);
    }
    let owner = fs::metadata(output.join("disk")).unwrap().uid();
    assert_eq!(owner, rustix::process::geteuid().as_raw());
    handle.remove("foreign:v1").unwrap();
}

/// A checkpoint everybody can read.
fn readable() -> Tree {
    checkpoint().mode("ro/memory", 0o644).mode("disk", 0o644)
}

#[test]
fn an_ordinary_user_takes_and_restores_its_own_files_and_others() {
    let dir = world_writable();
    let at = |name: &str| dir.path().join(name);
    readable().write_to(&at("own")).unwrap();
    let mut command = if is_root() {
        readable().write_to(&at("foreign")).unwrap();
        for (path, _) in readable().nodes() {
            std::os::unix::fs::lchown(at("own").join(path), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        playing_as_nobody(module_path!(), "ordinary user")
    } else {
        report_skip("files of another user take root");
        playing(module_path!(), "ordinary user")
    };
    tell(&mut command, "ROOT", at("root"));
    tell(&mut command, "OUTPUT", at("output"));
    tell(&mut command, "OWN", at("own"));
    tell(&mut command, "FOREIGN", at("foreign"));
    assert_eq!(start(&mut command).wait().unwrap(), State::Exited(0));
}

#[test]
fn a_file_this_user_may_not_read_is_named() {
    if is_root() {
        report_skip("root may read everything");
        return;
    }
    let scene = Scene::new();
    let secret = scene.source().join("disk");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    let handle = scene.open();
    let error = refusal(handle.snapshot(&request("base", "v1", &scene.source())));
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(error.path(), Some(secret.as_path()));
}

#[test]
fn privileged_restores_give_files_back_to_their_owners() {
    if !is_root() {
        report_skip("giving files away takes root");
        return;
    }
    let scene = Scene::new();
    let tree = Tree::new()
        .file("ro/a", "bytes")
        .owner("ro/a", 1234, 5678)
        .file("b", Content::Random { seed: 1, len: 9 })
        .owner("b", 4321, 8765)
        .symlink("l", "b")
        .owner("l", 11, 12)
        .owner("ro", 13, 14);
    let source = scene.at("owned");
    tree.write_to(&source).unwrap();
    let handle = scene.open();
    handle.snapshot(&request("base", "v1", &source)).unwrap();
    // Into a view too: the blob's own inode has other attributes by now.
    Tree::new()
        .file("ro/a", "bytes")
        .write_to(&scene.at("plain"))
        .unwrap();
    let other = SnapshotRequest::new("other", "v1", scene.at("plain"));
    handle.snapshot(&other).unwrap();
    handle.restore("base:v1", &scene.output()).unwrap();
    assert_same(&source, &scene.output());
    handle
        .restore("other:v1", &scene.at("other-output"))
        .unwrap();
    assert_same(&scene.at("plain"), &scene.at("other-output"));
}

/// Two handles in one process are two owners.
#[test]
fn a_handle_that_closes_leaves_another_of_its_process_alone() {
    let scene = Scene::with_a_snapshot();
    let (one, other) = (scene.open(), scene.open());
    one.snapshot(&request("base", "v1", &scene.source()))
        .unwrap();
    other.restore("base:v1", &scene.output()).unwrap();
    fs::remove_dir_all(scene.output()).unwrap();
    one.close().unwrap();
    assert_eq!(names(&scene.root().join("leases")).len(), 1);
    other.restore("base:v1", &scene.output()).unwrap();
    assert_same(&scene.source(), &scene.output());
    assert!(unless_busy(other.remove("base:v1")).is_some());
    other.close().unwrap();
    scene.assert_whole();
}

// Every opener made a lease file, so on a filesystem without inodes not even `list` worked. Nobody else can tell by lease
// files alone any more who has the store open.
#[test]
fn who_only_reads_leaves_no_lease_file_and_keeps_a_rebuild_out_all_the_same() {
    let scene = Scene::with_a_snapshot();
    let leases = scene.root().join("leases");
    let reader = scene.open();
    reader.listed();
    reader.inspect("kept:v1").unwrap();
    assert_eq!(names(&leases).len(), 0);
    let config = snapshotter::Config::new(scene.root());
    let rebuilt = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let request = snapshotter::RebuildRequest::new();
        runtime
            .unwrap()
            .block_on(snapshotter::Snapshotter::rebuild(&config, &request))
    };
    let busy = rebuilt().unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Busy);
    let named = format!("process {} (", std::process::id());
    assert!(busy.to_string().contains(&named), "{busy}");
    reader.close().unwrap();
    assert_eq!(kind(rebuilt()), ErrorKind::AlreadyExists);
}

in_pages_too!(
    processes_on_one_root_do_not_disturb_each_other,
    processes_killed_at_any_moment_leave_nothing_behind,
    an_owner_that_lives_is_not_cleaned_up_by_others,
    what_a_dead_owner_began_is_gone_at_the_next_open,
    two_processes_may_not_both_have_one_version,
    a_snapshot_removed_while_another_process_restores_it_comes_out_whole,
    what_a_restore_that_was_killed_kept_goes_at_the_next_open,
    a_version_can_be_taken_again_while_the_removed_one_is_still_restored,
    a_lease_ends_with_its_process_and_never_by_the_clock,
    a_lease_file_somebody_deleted_costs_its_owner_no_visible_snapshot,
    an_ordinary_user_takes_and_restores_its_own_files_and_others,
    privileged_restores_give_files_back_to_their_owners,
);

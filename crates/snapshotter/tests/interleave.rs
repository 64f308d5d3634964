//! Every state another process, or the next start, can ever see: a child is stopped, killed or told that the disk is
//! full at its first, second, … last change of the filesystem or commit, and what the others find is looked at.
//!
//! Each of these tests counts the steps first and then visits each of them on a fresh copy of one store, so that
//! nothing depends on the clock.

use crate::support_b;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use snapshotter::hook::{self, Action};
use snapshotter::{Config, Error, ErrorKind, Format, Warning};
use support_b::children::{ends_well, part, playing, start, stopped, tell, told, told_number};
use support_b::outside::{
    assert_at_rest, assert_nothing_partial, assert_nothing_temporary, assert_rows_and_files_agree,
    assert_rows_have_files, blobs, catalog, names, remove_temporaries,
};
use support_b::steps::{NEVER, for_each_step, quick_dir, reap_until_nobody_is_left};
use support_b::{Handle, checkpoint, format, keepsake, request, unless_busy};
use tempfile::TempDir;
use testkit::child::State;
use testkit::compare::{Options, assert_same, assert_same_with};

type Warnings = Vec<Warning>;

/// Exit codes of a child whose call failed as it may.
const NOT_FOUND: i32 = 3;
const NO_SPACE: i32 = 7;

/// What is done step by step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    /// Opens the root and closes it.
    Open,
    /// Takes `base:v1`, or what the paths say.
    Snapshot,
    /// Restores `base:v1`.
    Restore,
    /// Removes `base:v1`.
    Remove,
    /// Verifies the whole store.
    Verify,
}

impl Verb {
    const ALL: [Self; 5] = [
        Self::Open,
        Self::Snapshot,
        Self::Restore,
        Self::Remove,
        Self::Verify,
    ];

    fn name(self) -> String {
        format!("{self:?}")
    }

    fn told() -> Self {
        let told = told("VERB");
        let found = Self::ALL
            .into_iter()
            .find(|verb| Path::new(&verb.name()) == told);
        found.expect("a verb")
    }

    /// The whole life of a process that does this. One file at a time, so that the steps have one order.
    fn act(self, stage: &Paths) -> Result<Warnings, Error> {
        let config = Config::new(&stage.root)
            .snapshot_concurrency(1)
            .restore_concurrency(1);
        let handle = Handle::with(config)?;
        let warnings = self.call(&handle, stage)?;
        handle.close()?;
        Ok(warnings)
    }

    fn call(self, handle: &Handle, stage: &Paths) -> Result<Warnings, Error> {
        match self {
            Self::Open => {}
            Self::Snapshot => {
                let request = request(stage.name, "v1", &stage.source);
                return Ok(handle.snapshot(&request)?.warnings);
            }
            Self::Restore => return Ok(handle.restore(BASE, &stage.output)?.warnings),
            Self::Remove => drop(handle.remove(BASE)?),
            Self::Verify => drop(handle.verify()?),
        }
        Ok(Vec::new())
    }
}

const BASE: &str = "base:v1";
const KEPT: &str = "kept:v1";
const OTHER: &str = "other:v1";

/// Where a process works.
struct Paths {
    /// What a snapshot that is taken is called.
    name: &'static str,
    root: PathBuf,
    source: PathBuf,
    output: PathBuf,
}

impl Paths {
    fn told() -> Self {
        let lost = told("NAME") == Path::new("lost");
        Self {
            name: if lost { "lost" } else { "base" },
            root: told("ROOT"),
            source: told("SOURCE"),
            output: told("OUTPUT"),
        }
    }
}

/// Children: the part is what they do, and when what happens to them is in the environment.
#[test]
fn children_start_here() {
    let Some(part) = part() else { return };
    if let Some(verb) = Verb::ALL.into_iter().find(|verb| verb.name() == part) {
        live_once(verb);
    }
    match part.as_str() {
        "first" => live_once_in_a_new_root(),
        "full disk" => without_space_at_every_step(false),
        "full disk, packed" => without_space_at_every_step(true),
        "full disk at birth" => without_space_for_a_new_root(),
        "full disk, handle kept" => without_space_and_with_the_handle_kept(),
        part => panic!("nobody plays {part}"),
    }
}

fn live_once(verb: Verb) {
    finish(verb.act(&armed_paths()));
}

fn live_once_in_a_new_root() {
    let paths = armed_paths();
    finish(
        Verb::Open
            .act(&paths)
            .and_then(|_| Verb::Snapshot.act(&paths)),
    );
}

fn armed_paths() -> Paths {
    let action = match told("ACTION").to_str() {
        Some("stop") => Action::Stop,
        _ => Action::Abort,
    };
    let paths = Paths::told();
    hook::arm(action, told_number("AT"));
    paths
}

fn finish(result: Result<Warnings, Error>) -> ! {
    let steps = hook::count();
    fs::write(told("COUNT"), steps.to_string()).unwrap();
    std::process::exit(match result {
        Ok(_) => 0,
        Err(error) if error.kind() == ErrorKind::NotFound => NOT_FOUND,
        Err(error) if error.kind() == ErrorKind::NoSpace => NO_SPACE,
        Err(error) => panic!("{error:?}"),
    })
}

/// A store in which something is about to happen, and the trees it was and will be made of.
struct Scene {
    dir: TempDir,
    /// What `base:v1` is a snapshot of.
    source: PathBuf,
    /// The same bytes and attributes in other inodes.
    twin: PathBuf,
    /// What `kept:v1` is a snapshot of.
    keepsake: PathBuf,
}

impl Scene {
    /// With `kept:v1` alone in the store.
    fn new() -> Self {
        let dir = quick_dir();
        let at = |name: &str| dir.path().join(name);
        let scene = Self {
            source: at("source"),
            twin: at("twin"),
            keepsake: at("keepsake"),
            dir,
        };
        checkpoint().write_to(&scene.source).unwrap();
        checkpoint().write_to(&scene.twin).unwrap();
        keepsake().write_to(&scene.keepsake).unwrap();
        scene.prepare(|handle| {
            handle
                .snapshot(&request("kept", "v1", &scene.keepsake))
                .unwrap();
        });
        scene
    }

    /// With `base:v1` too.
    fn taken() -> Self {
        let scene = Self::new();
        scene.prepare(|handle| {
            handle
                .snapshot(&request("base", "v1", &scene.source))
                .unwrap();
        });
        scene
    }

    /// With `base:v1` as a daemon delivered it, every blob packed. `fetched`: its bytes are elsewhere too.
    fn packed(fetched: bool) -> Self {
        let scene = Self::taken();
        let cache = scene.dir.path().join("cache");
        fs::create_dir(&cache).unwrap();
        let root = scene.template();
        hook::pack(&root, &cache, &BASE.parse().unwrap()).unwrap();
        let _ = fs::remove_dir_all(root.join("reserve"));
        if fetched {
            catalog(&root)
                .execute_batch(
                    "UPDATE snapshots SET state = 3;
                     INSERT INTO places (kind, address) VALUES (0, 'https://registry.example.com/base');
                     INSERT INTO publications SELECT id, 1, 1, manifest_digest, 0 FROM snapshots;",
                )
                .unwrap();
        }
        let blobs = names(&root.join("storage/content/blake3/0000"));
        assert!(blobs.iter().filter(|name| name.ends_with(".spf")).count() == 3);
        scene
    }

    /// With `base:v1` and what a process left that died in the middle of a snapshot.
    fn bereaved() -> Self {
        let scene = Self::taken();
        let lost = scene.dir.path().join("lost");
        let large = testkit::Content::Random {
            seed: 77,
            len: 2 << 20,
        };
        testkit::Tree::new()
            .file("a", large)
            .file("ro/b", "bytes")
            .write_to(&lost)
            .unwrap();
        let at_lost = |mut stage: Stage| {
            stage.paths.name = "lost";
            stage.paths.source.clone_from(&lost);
            stage
        };
        let counted = at_lost(scene.stage());
        let mut child = start(&mut life("Snapshot", &counted.paths, "stop", NEVER));
        assert_eq!(child.wait().unwrap(), State::Exited(0));
        for step in 1..counted.counted() {
            let dying = at_lost(scene.stage());
            let mut child = start(&mut life("Snapshot", &dying.paths, "abort", step));
            assert_eq!(child.wait().unwrap(), State::Signaled(6));
            let root = &dying.paths.root;
            let staged = testkit::fsstat::usage(&root.join("staging")).unwrap();
            if staged.logical > 0 && blobs(root) > objects(true) {
                fs::remove_dir_all(scene.template()).unwrap();
                fs::rename(root, scene.template()).unwrap();
                let _ = fs::remove_dir_all(scene.template().join("reserve"));
                return scene;
            }
        }
        panic!("no step leaves a row and a staged file");
    }

    fn template(&self) -> PathBuf {
        self.dir.path().join("template")
    }

    fn prepare(&self, with: impl FnOnce(&Handle)) {
        let handle = Handle::open(&self.template()).unwrap();
        with(&handle);
        handle.close().unwrap();
        // A few MiB to copy each time for nothing; opening makes it again.
        let _ = fs::remove_dir_all(self.template().join("reserve"));
    }

    /// A copy of the store for one visit.
    fn stage(&self) -> Stage {
        let dir = TempDir::new_in(self.dir.path()).unwrap();
        let root = dir.path().join("root");
        let copied = Command::new("cp")
            .arg("-a")
            .args([&self.template(), &root])
            .status()
            .unwrap();
        assert!(copied.success());
        Stage {
            paths: Paths {
                name: "base",
                root,
                source: self.source.clone(),
                output: dir.path().join("output"),
            },
            dir,
        }
    }

    /// How many steps a verb takes here, from opening to closing.
    fn steps(&self, verb: Verb) -> u64 {
        let stage = self.stage();
        let mut child = start(&mut life(&verb.name(), &stage.paths, "stop", NEVER));
        assert_eq!(child.wait().unwrap(), State::Exited(0));
        stage.counted()
    }

    fn expected(&self) -> [(&str, &Path); 3] {
        [
            (BASE, &self.source),
            (KEPT, &self.keepsake),
            (OTHER, &self.twin),
        ]
    }

    /// Everything that must hold once nobody is at work, whatever happened before.
    fn assert_whole(&self, stage: &Stage) -> Vec<String> {
        let handle = Handle::open(&stage.paths.root).unwrap();
        let listed = handle.listed();
        assert!(listed.contains(&KEPT.to_owned()), "{listed:?}");
        handle.assert_all_restore(&self.expected(), stage.dir.path());
        handle.assert_clean();
        handle.close().unwrap();
        reap_until_nobody_is_left(&stage.paths.root);
        assert_at_rest(&stage.paths.root);
        assert_rows_and_files_agree(&stage.paths.root);
        listed
    }
}

/// One visit's store and output.
struct Stage {
    paths: Paths,
    dir: TempDir,
}

impl Stage {
    fn counted(&self) -> u64 {
        let text = fs::read_to_string(self.dir.path().join("count")).unwrap();
        text.parse().unwrap()
    }
}

/// A child's life, with something that happens at a step of it.
fn life(part: &str, paths: &Paths, action: &str, at: u64) -> Command {
    let mut command = playing(module_path!(), part);
    tell(&mut command, "NAME", paths.name);
    tell(&mut command, "ROOT", &paths.root);
    tell(&mut command, "SOURCE", &paths.source);
    tell(&mut command, "OUTPUT", &paths.output);
    tell(&mut command, "ACTION", action);
    tell(&mut command, "AT", at.to_string());
    tell(&mut command, "COUNT", paths.output.with_file_name("count"));
    command
}

/// Stops `verb` at each step, has `meddle` do as it likes with another handle, lets `verb` go on, which must end as
/// `ends` says, and looks whether everything is whole.
fn interleave(
    scene: &Scene,
    verb: Verb,
    may_be_gone: bool,
    meddle: impl Fn(&Stage, &Handle) + Sync,
) {
    let steps = scene.steps(verb);
    for_each_step(steps, |step| {
        let stage = scene.stage();
        let mut child = start(&mut life(&verb.name(), &stage.paths, "stop", step));
        stopped(&mut child);
        let config =
            Config::new(&stage.paths.root).busy_timeout(std::time::Duration::from_millis(15));
        if let Some(other) = unless_busy(Handle::with(config)) {
            meddle(&stage, &other);
            unless_busy(other.close());
        }
        child.resume().unwrap();
        let end = child.wait().unwrap();
        let gone = may_be_gone && end == State::Exited(NOT_FOUND);
        assert!(gone || end == State::Exited(0), "{end:?}");
        let listed = scene.assert_whole(&stage);
        match verb {
            Verb::Snapshot => assert!(listed.contains(&BASE.to_owned())),
            Verb::Remove => assert!(!listed.contains(&BASE.to_owned())),
            Verb::Restore if gone => assert!(!stage.paths.output.exists()),
            Verb::Restore => {
                assert_same(&stage.paths.source, &stage.paths.output);
                assert_nothing_temporary(&stage.paths.output);
            }
            Verb::Open | Verb::Verify => {}
        }
    });
}

/// Ingests `source` under another name, restores that, removes it and verifies (which sweeps).
fn ingest_restore_remove_verify(stage: &Stage, other: &Handle, source: &Path) {
    if unless_busy(other.snapshot(&request("other", "v1", source))).is_some() {
        let output = stage.dir.path().join("other-output");
        if unless_busy(other.restore(OTHER, &output)).is_some() {
            assert_same(source, &output);
        }
        unless_busy(other.remove(OTHER));
    }
    if let Some(report) = unless_busy(other.verify()) {
        assert!(
            report.damaged.is_empty() && report.missing.is_empty(),
            "{report:?}"
        );
    }
}

#[test]
fn a_snapshot_stopped_anywhere_survives_others_ingesting_and_removing_its_files() {
    let scene = Scene::new();
    interleave(&scene, Verb::Snapshot, false, |stage, other| {
        ingest_restore_remove_verify(stage, other, &scene.source);
    });
}

#[test]
fn a_snapshot_stopped_anywhere_survives_others_ingesting_and_removing_its_bytes() {
    let scene = Scene::new();
    interleave(&scene, Verb::Snapshot, false, |stage, other| {
        ingest_restore_remove_verify(stage, other, &scene.twin);
    });
}

#[test]
fn a_snapshot_stopped_anywhere_shares_bytes_others_ingest_meanwhile() {
    let scene = Scene::new();
    interleave(&scene, Verb::Snapshot, false, |_, other| {
        unless_busy(other.snapshot(&request("other", "v1", &scene.twin)));
        unless_busy(other.verify());
    });
}

#[test]
fn a_restore_stopped_anywhere_survives_others_restoring_removing_and_sweeping() {
    let scene = Scene::taken();
    interleave(&scene, Verb::Restore, false, |stage, other| {
        let output = stage.dir.path().join("base-output");
        if unless_busy(other.restore(BASE, &output)).is_some() {
            assert_same(&scene.source, &output);
        }
        ingest_restore_remove_verify(stage, other, &scene.twin);
    });
}

/// The other restores the same packed blobs, makes them plain, removes and sweeps.
fn restore_packed_meanwhile(fetched: bool) {
    let scene = Scene::packed(fetched);
    interleave(&scene, Verb::Restore, false, |stage, other| {
        let output = stage.dir.path().join("base-output");
        if unless_busy(other.restore(BASE, &output)).is_some() {
            assert_same(&scene.source, &output);
        }
        ingest_restore_remove_verify(stage, other, &scene.twin);
    });
}

#[test]
fn a_restore_of_packed_blobs_stopped_anywhere_survives_others_making_them_plain() {
    restore_packed_meanwhile(false);
}

#[test]
fn a_restore_of_fetched_packed_blobs_stopped_anywhere_survives_others_making_them_plain() {
    restore_packed_meanwhile(true);
}

#[test]
fn a_verification_of_packed_blobs_stopped_anywhere_survives_others_making_them_plain() {
    let scene = Scene::packed(true);
    interleave(&scene, Verb::Verify, false, |stage, other| {
        let output = stage.dir.path().join("base-output");
        if unless_busy(other.restore(BASE, &output)).is_some() {
            assert_same(&scene.source, &output);
        }
    });
}

#[test]
fn a_restore_stopped_anywhere_survives_the_removal_of_its_snapshot() {
    let scene = Scene::taken();
    interleave(&scene, Verb::Restore, true, |_, other| {
        unless_busy(other.remove(BASE));
        unless_busy(other.verify());
    });
}

#[test]
fn a_restore_stopped_anywhere_survives_another_into_the_same_directory() {
    let scene = Scene::taken();
    interleave(&scene, Verb::Restore, false, |stage, other| {
        if unless_busy(other.restore(BASE, &stage.paths.output)).is_some() {
            assert_nothing_partial(&scene.source, &stage.paths.output);
        }
    });
}

#[test]
fn a_removal_stopped_anywhere_survives_others_ingesting_the_same_bytes() {
    let scene = Scene::taken();
    interleave(&scene, Verb::Remove, false, |stage, other| {
        ingest_restore_remove_verify(stage, other, &scene.twin);
    });
}

#[test]
fn a_removal_stopped_anywhere_takes_nothing_others_came_to_need() {
    let scene = Scene::taken();
    interleave(&scene, Verb::Remove, false, |_, other| {
        unless_busy(other.snapshot(&request("other", "v1", &scene.twin)));
    });
}

#[test]
fn a_verification_stopped_anywhere_survives_the_others() {
    let scene = Scene::taken();
    interleave(&scene, Verb::Verify, false, |stage, other| {
        ingest_restore_remove_verify(stage, other, &scene.twin);
        unless_busy(other.remove(BASE));
    });
}

#[test]
fn reaping_stopped_anywhere_survives_another_reaper() {
    let scene = Scene::bereaved();
    interleave(&scene, Verb::Open, false, |stage, other| {
        ingest_restore_remove_verify(stage, other, &scene.twin);
    });
}

/// How many there are in the store, with `base:v1` or without.
fn objects(there: bool) -> usize {
    match (format(), there) {
        (Format::V2, false) => 1,
        (Format::V2, true) | (_, false) => 2,
        (_, true) => 4,
    }
}

/// Kills `verb` at each step and looks at what the next start makes of it.
fn crash(scene: &Scene, verb: Verb) {
    let steps = scene.steps(verb);
    for_each_step(steps, |step| {
        let stage = scene.stage();
        let mut child = start(&mut life(&verb.name(), &stage.paths, "abort", step));
        assert_eq!(child.wait().unwrap(), State::Signaled(6));
        assert_rows_have_files(&stage.paths.root);
        assert_nothing_partial(&scene.source, &stage.paths.output);
        let handle = Handle::open(&stage.paths.root).unwrap();
        let own = names(&stage.paths.root.join("leases"));
        // The dead one's is gone; there is one of this handle's if it had to sweep.
        assert!(own.len() <= 1, "{own:?}");
        handle.close().unwrap();
        assert_at_rest(&stage.paths.root);
        assert_rows_have_files(&stage.paths.root);
        let listed = scene.assert_whole(&stage);
        let there = listed.contains(&BASE.to_owned());
        assert_eq!(blobs(&stage.paths.root), objects(there));
        match verb {
            Verb::Restore => restore_after(&stage),
            Verb::Snapshot if !there => {
                verb.act(&stage.paths).unwrap();
                scene.assert_whole(&stage);
            }
            Verb::Remove if there => {
                verb.act(&stage.paths).unwrap();
                scene.assert_whole(&stage);
            }
            _ => {}
        }
    });
}

/// Into what a killed restore left.
fn restore_after(stage: &Stage) {
    remove_temporaries(&stage.paths.output);
    Verb::Restore.act(&stage.paths).unwrap();
    assert_same(&stage.paths.source, &stage.paths.output);
}

#[test]
fn a_snapshot_killed_anywhere_is_there_whole_or_leaves_nothing() {
    crash(&Scene::new(), Verb::Snapshot);
}

#[test]
fn a_restore_killed_anywhere_leaves_whole_files_and_a_good_store() {
    crash(&Scene::taken(), Verb::Restore);
}

#[test]
fn a_restore_of_packed_blobs_killed_anywhere_leaves_one_form_of_each_and_a_good_store() {
    for fetched in [false, true] {
        crash(&Scene::packed(fetched), Verb::Restore);
    }
}

#[test]
fn a_removal_of_packed_blobs_killed_anywhere_has_happened_or_not() {
    crash(&Scene::packed(false), Verb::Remove);
}

#[test]
fn a_removal_killed_anywhere_has_happened_or_not() {
    crash(&Scene::taken(), Verb::Remove);
}

#[test]
fn a_verification_killed_anywhere_changes_nothing() {
    crash(&Scene::taken(), Verb::Verify);
}

#[test]
fn a_reaper_killed_anywhere_is_reaped_with_the_rest() {
    crash(&Scene::bereaved(), Verb::Open);
}

#[test]
fn a_root_whose_maker_was_killed_anywhere_can_be_opened() {
    let scene = Scene::new();
    let new_root = || {
        let mut stage = scene.stage();
        stage.paths.root = stage.dir.path().join("new/root");
        stage
    };
    let counting = new_root();
    let mut child = start(&mut life("first", &counting.paths, "stop", NEVER));
    assert_eq!(child.wait().unwrap(), State::Exited(0));
    for_each_step(counting.counted(), |step| {
        let stage = new_root();
        let mut child = start(&mut life("first", &stage.paths, "abort", step));
        assert_eq!(child.wait().unwrap(), State::Signaled(6));
        let handle = Handle::open(&stage.paths.root).unwrap();
        if handle.listed().is_empty() {
            handle
                .snapshot(&request("base", "v1", &scene.source))
                .unwrap();
        }
        handle.assert_all_restore(&[(BASE, &scene.source)], stage.dir.path());
        handle.assert_clean();
        handle.close().unwrap();
        reap_until_nobody_is_left(&stage.paths.root);
        assert_at_rest(&stage.paths.root);
        assert_rows_and_files_agree(&stage.paths.root);
    });
}

#[test]
fn makers_of_one_root_stopped_anywhere_do_not_disturb_each_other() {
    let scene = Scene::new();
    let new_root = || {
        let mut stage = scene.stage();
        stage.paths.root = stage.dir.path().join("new/root");
        stage
    };
    let counting = new_root();
    let mut child = start(&mut life("first", &counting.paths, "stop", NEVER));
    assert_eq!(child.wait().unwrap(), State::Exited(0));
    for_each_step(counting.counted(), |step| {
        let stage = new_root();
        let mut child = start(&mut life("first", &stage.paths, "stop", step));
        stopped(&mut child);
        let config =
            Config::new(&stage.paths.root).busy_timeout(std::time::Duration::from_millis(15));
        if let Some(other) = unless_busy(Handle::with(config)) {
            ingest_restore_remove_verify(&stage, &other, &scene.twin);
            unless_busy(other.close());
        }
        ends_well(&mut child);
        let handle = Handle::open(&stage.paths.root).unwrap();
        let expected: [(&str, &Path); 2] = [(BASE, &scene.source), (OTHER, &scene.twin)];
        handle.assert_all_restore(&expected, stage.dir.path());
        handle.assert_clean();
        handle.close().unwrap();
        reap_until_nobody_is_left(&stage.paths.root);
        assert_at_rest(&stage.paths.root);
        assert_rows_and_files_agree(&stage.paths.root);
    });
}

/// The hook is the process's, so a full disk is for a child of its own, which tells by panicking.
fn fill_disk_step_by_step(part: &str, verb: Verb) {
    let mut command = playing(module_path!(), part);
    tell(&mut command, "VERB", verb.name());
    let mut child = start(&mut command);
    assert_eq!(child.wait().unwrap(), State::Exited(0));
}

fn without_space_at_every_step(packed: bool) {
    let verb = Verb::told();
    let scene = match verb {
        _ if packed => Scene::packed(false),
        Verb::Snapshot => Scene::new(),
        Verb::Open => Scene::bereaved(),
        _ => Scene::taken(),
    };
    let mut step = 0;
    let mut fired = true;
    while fired {
        step += 1;
        let stage = scene.stage();
        hook::arm(Action::NoSpace, step);
        let result = verb.act(&stage.paths);
        fired = hook::count() >= step;
        hook::arm(Action::NoSpace, NEVER);
        let outcome = format!("{verb:?} with no space at step {step}: {result:?}");
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            after_no_space(&scene, &stage, verb, result);
        }));
        assert!(checked.is_ok(), "{outcome}");
    }
    assert!(step > 6, "{step}");
    std::process::exit(0);
}

fn after_no_space(scene: &Scene, stage: &Stage, verb: Verb, result: Result<Warnings, Error>) {
    if let Err(error) = &result {
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        // Of pages it said "cannot write to the output", and not which file of it.
        assert!(error.path().is_none_or(Path::is_absolute), "{error:?}");
    }
    assert_rows_have_files(&stage.paths.root);
    let done = result.is_ok();
    // An attribute that could not be set is a warning, and the file's only flaw.
    let flawless = result.is_ok_and(|warnings| warnings.is_empty());
    if stage.paths.output.exists() {
        assert_nothing_temporary(&stage.paths.output);
        let asked = Options {
            subset: true,
            ..Options::contents()
        };
        // The other way round: whatever is there is in the source.
        assert_same_with(&stage.paths.output, &scene.source, &asked);
    }
    let there = scene.assert_whole(stage).contains(&BASE.to_owned());
    assert_eq!(blobs(&stage.paths.root), objects(there));
    match verb {
        // A failure may also be one to close the handle afterwards: then either is right.
        Verb::Snapshot if done => assert!(there),
        Verb::Remove if done => assert!(!there),
        Verb::Restore => {
            if flawless {
                assert_same(&stage.paths.source, &stage.paths.output);
            }
            restore_after(stage);
        }
        _ => {}
    }
}

/// The handle stays open: what a failed call gives back does not wait for its end.
fn without_space_and_with_the_handle_kept() {
    let verb = Verb::told();
    let scene = match verb {
        Verb::Snapshot => Scene::new(),
        _ => Scene::taken(),
    };
    let mut step = 0;
    let mut fired = true;
    while fired {
        step += 1;
        let stage = scene.stage();
        let handle = Handle::open(&stage.paths.root).unwrap();
        hook::arm(Action::NoSpace, step);
        let result = verb.call(&handle, &stage.paths);
        fired = hook::count() >= step;
        hook::arm(Action::NoSpace, NEVER);
        let kept = blobs(&stage.paths.root);
        let leases: i64 = catalog(&stage.paths.root)
            .query_row("SELECT count(*) FROM leases", [], |row| row.get(0))
            .unwrap();
        let context = format!("{verb:?} with no space at step {step}: {result:?}");
        match (verb, result) {
            (Verb::Snapshot, Err(_)) => {
                assert_eq!((kept, leases), (objects(false), 0), "{context}")
            }
            (Verb::Remove, result) => {
                assert!(result.is_ok(), "{context}");
                assert_eq!((kept, leases), (objects(false), 0), "{context}");
            }
            _ => assert_eq!(kept, objects(true), "{context}"),
        }
        // Views that a failed restore made wait for the next whole sweep.
        if verb == Verb::Snapshot {
            assert_rows_and_files_agree(&stage.paths.root);
        }
        // The handle is as good as before.
        if !handle.listed().contains(&BASE.to_owned()) {
            Verb::Snapshot.call(&handle, &stage.paths).unwrap();
        }
        Verb::Restore.call(&handle, &stage.paths).unwrap();
        assert_same(&stage.paths.source, &stage.paths.output);
        handle.close().unwrap();
        scene.assert_whole(&stage);
    }
    assert!(step > 6, "{step}");
    std::process::exit(0);
}

fn without_space_for_a_new_root() {
    let scene = Scene::new();
    let mut step = 0;
    let mut fired = true;
    while fired {
        step += 1;
        let mut stage = scene.stage();
        stage.paths.root = stage.dir.path().join("new/root");
        hook::arm(Action::NoSpace, step);
        let result = Verb::Open.act(&stage.paths);
        fired = hook::count() >= step;
        hook::arm(Action::NoSpace, NEVER);
        if let Err(error) = &result {
            assert_eq!(error.kind(), ErrorKind::NoSpace, "step {step}: {error:?}");
        }
        Verb::Snapshot.act(&stage.paths).unwrap();
        assert_at_rest(&stage.paths.root);
        assert_rows_and_files_agree(&stage.paths.root);
    }
    assert!(step > 6, "{step}");
    std::process::exit(0);
}

#[test]
fn a_snapshot_without_space_anywhere_says_so_and_gives_all_back() {
    fill_disk_step_by_step("full disk", Verb::Snapshot);
}

#[test]
fn a_restore_without_space_anywhere_says_so_and_leaves_no_partial_file() {
    fill_disk_step_by_step("full disk", Verb::Restore);
}

#[test]
fn a_restore_of_packed_blobs_without_space_anywhere_says_so_and_leaves_a_good_store() {
    fill_disk_step_by_step("full disk, packed", Verb::Restore);
}

#[test]
fn a_snapshot_that_fails_for_space_gives_back_before_its_handle_closes() {
    fill_disk_step_by_step("full disk, handle kept", Verb::Snapshot);
}

#[test]
fn a_restore_that_fails_for_space_leaves_its_handle_as_good_as_before() {
    fill_disk_step_by_step("full disk, handle kept", Verb::Restore);
}

#[test]
fn a_removal_goes_through_wherever_space_runs_out() {
    fill_disk_step_by_step("full disk, handle kept", Verb::Remove);
}

#[test]
fn a_removal_without_space_anywhere_leaves_a_good_store() {
    fill_disk_step_by_step("full disk", Verb::Remove);
}

#[test]
fn a_verification_without_space_anywhere_leaves_a_good_store() {
    fill_disk_step_by_step("full disk", Verb::Verify);
}

#[test]
fn reaping_without_space_anywhere_leaves_a_good_store() {
    fill_disk_step_by_step("full disk", Verb::Open);
}

#[test]
fn a_root_that_could_not_be_made_for_want_of_space_can_be_made_later() {
    fill_disk_step_by_step("full disk at birth", Verb::Open);
}

in_pages_too!(
    a_snapshot_stopped_anywhere_survives_others_ingesting_and_removing_its_files,
    a_snapshot_stopped_anywhere_survives_others_ingesting_and_removing_its_bytes,
    a_snapshot_stopped_anywhere_shares_bytes_others_ingest_meanwhile,
    a_restore_stopped_anywhere_survives_others_restoring_removing_and_sweeping,
    a_restore_stopped_anywhere_survives_the_removal_of_its_snapshot,
    a_restore_stopped_anywhere_survives_another_into_the_same_directory,
    a_removal_stopped_anywhere_survives_others_ingesting_the_same_bytes,
    a_removal_stopped_anywhere_takes_nothing_others_came_to_need,
    a_verification_stopped_anywhere_survives_the_others,
    a_snapshot_killed_anywhere_is_there_whole_or_leaves_nothing,
    a_restore_killed_anywhere_leaves_whole_files_and_a_good_store,
    a_removal_killed_anywhere_has_happened_or_not,
    a_verification_killed_anywhere_changes_nothing,
    a_snapshot_without_space_anywhere_says_so_and_gives_all_back,
    a_restore_without_space_anywhere_says_so_and_leaves_no_partial_file,
    a_snapshot_that_fails_for_space_gives_back_before_its_handle_closes,
    a_restore_that_fails_for_space_leaves_its_handle_as_good_as_before,
    a_removal_goes_through_wherever_space_runs_out,
    a_removal_without_space_anywhere_leaves_a_good_store,
    a_verification_without_space_anywhere_leaves_a_good_store,
);

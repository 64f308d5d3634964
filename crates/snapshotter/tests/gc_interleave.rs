//! Garbage collection against everything else, at every state another process can see: one process is stopped at its
//! first, second, … last change of the filesystem or commit, another collects all it may (or the other way round), and
//! what comes of it is looked at. Nothing depends on the clock.

use crate::support_b;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use snapshotter::hook::{self, Action};
use snapshotter::{
    Config, Content, ContentProvider, Error, ErrorKind, Format, Gc, GcRequest, ParentChoice,
    Registry, SnapshotRequest, Snapshotter,
};
use support_b::children::{part, playing, start, stopped, tell, told, told_number};
use support_b::outside::{
    assert_at_rest, assert_nothing_partial, assert_rows_and_files_agree, assert_rows_have_files,
};
use support_b::steps::quick_dir;
use support_b::{Handle, checkpoint, format, keepsake, request, unless_busy};
use tempfile::TempDir;
use testkit::child::State;
use testkit::compare::assert_same;

const NEVER: u64 = u64::MAX;
/// The exit code of a child that did not find its snapshot.
const NOT_FOUND: i32 = 3;

const BASE: &str = "base:v1";
const KEPT: &str = "kept:v1";

/// What is done step by step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    /// Takes `base:v1`.
    Snapshot,
    /// Restores `base:v1`.
    Restore,
    /// Releases everything but what is pinned: `base:v1`, and `kept:v1` stays.
    Collect,
    /// Releases what is published, `base:v1`, after asking whether it is.
    CollectPublished,
}

impl Verb {
    const ALL: [Self; 4] = [
        Self::Snapshot,
        Self::Restore,
        Self::Collect,
        Self::CollectPublished,
    ];

    fn name(self) -> String {
        format!("{self:?}")
    }

    fn act(self, paths: &Paths, config: Config) -> Result<(), Error> {
        match self {
            Self::Collect => return collect(config),
            Self::CollectPublished => return collect_published(paths.with_remote()),
            _ => {}
        }
        let handle = Handle::with(config)?;
        match self {
            Self::Snapshot => drop(handle.snapshot(&base(&paths.source))?),
            _ => drop(handle.restore(BASE, &paths.output)?),
        }
        handle.close()
    }
}

/// In pages it shares a pack with `kept:v1`, as it does a blob in format v1.
fn base(source: &Path) -> SnapshotRequest {
    let request = request("base", "v1", source);
    match format() {
        Format::V2 => request.parent(ParentChoice::Snapshot(KEPT.parse().unwrap())),
        _ => request,
    }
}

/// Opens, collects all that may go, closes.
fn collect(config: Config) -> Result<(), Error> {
    collect_with(config, true)
}

/// The same, without what is only here.
fn collect_published(config: Config) -> Result<(), Error> {
    collect_with(config, false)
}

fn collect_with(config: Config, include_unpublished: bool) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Snapshotter::open(config).await?;
        let all = GcRequest::new()
            .max_bytes(0)
            .min_retention_period(Duration::ZERO)
            .include_unpublished(include_unpublished);
        store.gc(&all).await?;
        store.close().await
    })
}

/// Where a process works.
struct Paths {
    root: PathBuf,
    source: PathBuf,
    output: PathBuf,
    /// Where snapshots are published.
    between: PathBuf,
}

impl Paths {
    /// With directories to publish to.
    fn with_remote(&self) -> Config {
        with_remote(self.config(), &self.between)
    }

    /// One file at a time, so that the steps have one order.
    fn config(&self) -> Config {
        // The machine's own disk may be as full as it likes: else there would be a sync more, now and then.
        let mut gc = Gc::default();
        gc.disk_high_threshold_percent = 100.0;
        gc.disk_low_threshold_percent = 100.0;
        Config::new(&self.root)
            .snapshot_concurrency(1)
            .restore_concurrency(1)
            .gc(gc)
    }

    /// For who must not wait for one that is stopped.
    fn impatient(&self) -> Config {
        self.config().busy_timeout(Duration::from_millis(15))
    }
}

fn with_remote(config: Config, between: &Path) -> Config {
    let layouts = format!("oci-layout:{}", between.join("layouts").display());
    let mut content = Content::new(ContentProvider::Fs);
    content.root = between.join("objects");
    config
        .registry(Registry::new(layouts, "snapshots"))
        .content(content)
}

/// Children: the part is what they do, and when what happens to them is in the environment.
#[test]
fn children_start_here() {
    let Some(part) = part() else { return };
    let verb = Verb::ALL.into_iter().find(|verb| verb.name() == part);
    let verb = verb.unwrap_or_else(|| panic!("nobody plays {part}"));
    let paths = Paths {
        root: told("ROOT"),
        source: told("SOURCE"),
        output: told("OUTPUT"),
        between: told("BETWEEN"),
    };
    let action = match told("ACTION").to_str() {
        Some("stop") => Action::Stop,
        Some("full") => Action::NoSpace,
        _ => Action::Abort,
    };
    hook::arm(action, told_number("AT"));
    let result = verb.act(&paths, paths.config());
    fs::write(told("COUNT"), hook::count().to_string()).unwrap();
    std::process::exit(match result {
        Ok(()) => 0,
        Err(error) if error.kind() == ErrorKind::NotFound => NOT_FOUND,
        Err(error) if error.kind() == ErrorKind::NoSpace => 7,
        Err(error) => panic!("{error:?}"),
    })
}

/// A store with `kept:v1`, pinned, and, if it is taken, `base:v1`, which shares a blob with it.
struct Scene {
    dir: TempDir,
    source: PathBuf,
    keepsake: PathBuf,
}

impl Scene {
    fn new(taken: bool) -> Self {
        let dir = quick_dir();
        let scene = Self {
            source: dir.path().join("source"),
            keepsake: dir.path().join("keepsake"),
            dir,
        };
        checkpoint().write_to(&scene.source).unwrap();
        keepsake().write_to(&scene.keepsake).unwrap();
        let template = scene.template();
        let handle = Handle::open(&template).unwrap();
        let kept = request("kept", "v1", &scene.keepsake);
        handle.snapshot(&kept).unwrap();
        handle.close().unwrap();
        if taken {
            let base = base(&scene.source);
            fs::create_dir_all(scene.between().join("objects")).unwrap();
            let config = with_remote(Config::new(&template), &scene.between());
            let publisher = Handle::with(config).unwrap();
            publisher.snapshot(&base).unwrap();
            publisher.close().unwrap();
        }
        pin(&template, KEPT);
        // A few MiB to copy each time for nothing; opening makes it again.
        let _ = fs::remove_dir_all(template.join("reserve"));
        scene
    }

    fn between(&self) -> PathBuf {
        self.dir.path().join("between")
    }

    fn template(&self) -> PathBuf {
        self.dir.path().join("template")
    }

    fn stage(&self) -> (TempDir, Paths) {
        let dir = TempDir::new_in(self.dir.path()).unwrap();
        let root = dir.path().join("root");
        let copied = Command::new("cp")
            .arg("-a")
            .args([&self.template(), &root])
            .status();
        assert!(copied.unwrap().success());
        let paths = Paths {
            root,
            source: self.source.clone(),
            output: dir.path().join("output"),
            between: self.between(),
        };
        (dir, paths)
    }

    /// Visits each step of a verb: the child is at it, and `meddle` does as it likes.
    fn for_each_step(&self, verb: Verb, action: &str, visit: impl Fn(u64, &Paths, Command)) {
        let (_dir, paths) = self.stage();
        let mut child = start(&mut life(verb, &paths, "stop", NEVER));
        assert_eq!(child.wait().unwrap(), State::Exited(0));
        let counted = fs::read_to_string(paths.output.with_file_name("count")).unwrap();
        let steps: u64 = counted.parse().unwrap();
        assert!(steps > 5, "{steps}");
        for step in 1..=steps {
            let (_dir, paths) = self.stage();
            visit(step, &paths, life(verb, &paths, action, step));
        }
    }

    /// Everything that must hold once nobody is at work. `base:v1` is there and whole, or not there at all.
    fn assert_whole(&self, paths: &Paths, step: u64) -> bool {
        let handle = Handle::open(&paths.root).unwrap();
        let listed = handle.listed();
        assert!(listed.contains(&KEPT.to_owned()), "at {step}: {listed:?}");
        let expected: [(&str, &Path); 2] = [(BASE, &self.source), (KEPT, &self.keepsake)];
        handle.assert_all_restore(&expected, paths.output.parent().unwrap());
        handle.assert_clean();
        handle.close().unwrap();
        assert_at_rest(&paths.root);
        assert_rows_and_files_agree(&paths.root);
        listed.contains(&BASE.to_owned())
    }
}

fn pin(root: &Path, reference: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Snapshotter::open(Config::new(root)).await.unwrap();
        store.pin(&reference.parse().unwrap()).await.unwrap();
        store.close().await.unwrap();
    });
}

fn life(verb: Verb, paths: &Paths, action: &str, at: u64) -> Command {
    let mut command = playing(module_path!(), &verb.name());
    tell(&mut command, "ROOT", &paths.root);
    tell(&mut command, "SOURCE", &paths.source);
    tell(&mut command, "OUTPUT", &paths.output);
    tell(&mut command, "BETWEEN", &paths.between);
    tell(&mut command, "ACTION", action);
    tell(&mut command, "AT", at.to_string());
    tell(&mut command, "COUNT", paths.output.with_file_name("count"));
    command
}

#[test]
fn a_snapshot_stopped_anywhere_survives_a_collection() {
    let scene = Scene::new(false);
    scene.for_each_step(Verb::Snapshot, "stop", |step, paths, mut life| {
        let mut child = start(&mut life);
        stopped(&mut child);
        unless_busy(collect(paths.impatient()));
        child.resume().unwrap();
        assert_eq!(child.wait().unwrap(), State::Exited(0), "at {step}");
        // Once it is visible it may go: then all of it went.
        scene.assert_whole(paths, step);
    });
}

#[test]
fn a_restore_stopped_anywhere_survives_a_collection() {
    let scene = Scene::new(true);
    scene.for_each_step(Verb::Restore, "stop", |step, paths, mut life| {
        let mut child = start(&mut life);
        stopped(&mut child);
        unless_busy(collect(paths.impatient()));
        child.resume().unwrap();
        match child.wait().unwrap() {
            State::Exited(0) => assert_same(&paths.source, &paths.output),
            // Collected before it was leased.
            State::Exited(NOT_FOUND) => assert!(!paths.output.exists(), "at {step}"),
            end => panic!("at {step}: {end:?}"),
        }
        scene.assert_whole(paths, step);
    });
}

#[test]
fn a_collection_stopped_anywhere_takes_nothing_others_came_to_need() {
    let scene = Scene::new(true);
    scene.for_each_step(Verb::Collect, "stop", |step, paths, mut life| {
        let mut child = start(&mut life);
        stopped(&mut child);
        let mut again = false;
        if let Some(other) = unless_busy(Handle::with(paths.impatient())) {
            // The same bytes under another name, pinned by nobody: taken after the choice, so not part of it.
            let taken = other.snapshot(&request("again", "v1", &scene.source));
            again = unless_busy(taken).is_some();
            let output = paths.output.with_file_name("again");
            match other.restore("again:v1", &output) {
                Ok(_) => assert_same(&scene.source, &output),
                Err(error) if !again => {
                    let kind = error.kind();
                    assert!(
                        matches!(kind, ErrorKind::NotFound | ErrorKind::Busy),
                        "{error:?}"
                    );
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}"),
            }
            unless_busy(other.close());
        }
        child.resume().unwrap();
        assert_eq!(child.wait().unwrap(), State::Exited(0), "at {step}");
        let handle = Handle::open(&paths.root).unwrap();
        // A later round may have released it too, and then all of it.
        if again && handle.listed().contains(&"again:v1".to_owned()) {
            let output = paths.output.with_file_name("after");
            handle.restore("again:v1", &output).unwrap();
            assert_same(&scene.source, &output);
            handle.remove("again:v1").unwrap();
        }
        handle.close().unwrap();
        assert!(!scene.assert_whole(paths, step), "{BASE} goes");
    });
}

#[test]
fn a_collection_stopped_anywhere_survives_another_and_a_restore() {
    let scene = Scene::new(true);
    scene.for_each_step(Verb::Collect, "stop", |step, paths, mut life| {
        let mut child = start(&mut life);
        stopped(&mut child);
        if let Some(other) = unless_busy(Handle::with(paths.impatient())) {
            match other.restore(BASE, &paths.output) {
                Ok(_) => assert_same(&paths.source, &paths.output),
                Err(error) => {
                    let kind = error.kind();
                    assert!(
                        matches!(kind, ErrorKind::NotFound | ErrorKind::Busy),
                        "{error:?}"
                    );
                }
            }
            unless_busy(other.close());
        }
        unless_busy(collect(paths.impatient()));
        child.resume().unwrap();
        assert_eq!(child.wait().unwrap(), State::Exited(0), "at {step}");
        assert_nothing_partial(&scene.source, &paths.output);
        scene.assert_whole(paths, step);
    });
}

#[test]
fn a_collection_killed_anywhere_leaves_a_good_store() {
    let scene = Scene::new(true);
    scene.for_each_step(Verb::Collect, "abort", |step, paths, mut life| {
        let mut child = start(&mut life);
        assert_eq!(child.wait().unwrap(), State::Signaled(6), "at {step}");
        assert_rows_have_files(&paths.root);
        scene.assert_whole(paths, step);
        collect(paths.config()).unwrap();
        assert!(!scene.assert_whole(paths, step));
    });
}

#[test]
fn a_collection_without_space_anywhere_leaves_a_good_store() {
    let scene = Scene::new(true);
    scene.for_each_step(Verb::Collect, "full", |step, paths, mut life| {
        let mut child = start(&mut life);
        let end = child.wait().unwrap();
        assert!(matches!(end, State::Exited(0 | 7)), "at {step}: {end:?}");
        assert_rows_have_files(&paths.root);
        scene.assert_whole(paths, step);
        collect(paths.config()).unwrap();
        assert!(!scene.assert_whole(paths, step));
    });
}

#[test]
fn a_collection_of_what_is_published_killed_anywhere_loses_nothing() {
    let scene = Scene::new(true);
    scene.for_each_step(Verb::CollectPublished, "abort", |step, paths, mut life| {
        let mut child = start(&mut life);
        assert_eq!(child.wait().unwrap(), State::Signaled(6), "at {step}");
        assert_rows_have_files(&paths.root);
        scene.assert_whole(paths, step);
        collect_published(paths.with_remote()).unwrap();
        assert!(!scene.assert_whole(paths, step), "at {step}: {BASE} goes");
        let handle = Handle::with(paths.with_remote()).unwrap();
        let output = paths.output.with_file_name("again");
        handle.restore(BASE, &output).unwrap();
        assert_same(&paths.source, &output);
        handle.close().unwrap();
    });
}

in_pages_too!(
    a_snapshot_stopped_anywhere_survives_a_collection,
    a_restore_stopped_anywhere_survives_a_collection,
    a_collection_stopped_anywhere_takes_nothing_others_came_to_need,
    a_collection_stopped_anywhere_survives_another_and_a_restore,
    a_collection_killed_anywhere_leaves_a_good_store,
    a_collection_without_space_anywhere_leaves_a_good_store,
    a_collection_of_what_is_published_killed_anywhere_loses_nothing,
);

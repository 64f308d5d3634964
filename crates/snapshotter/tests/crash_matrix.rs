//! What travels, at every step: a child that pushes, pulls or restores from elsewhere is killed, or told that the disk
//! is full, at its first, second, … last change of the filesystem or commit, here and in what is between the nodes (an
//! image layout and a directory of objects). What stays here alone is `interleave.rs`'s.

#![expect(
    clippy::print_stderr,
    reason = "counts and seeds are for whoever reads the log"
)]

use crate::support_b;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use snapshotter::hook::{self, Action};
use snapshotter::{
    CollectReport, CollectRequest, Config, Content, ContentProvider, Error, ErrorKind, Registry,
    Snapshotter, Warning, WarningKind,
};
use support_b::children::{part, playing, start, tell, told, told_number};
use support_b::outside::{
    assert_at_rest, assert_nothing_partial, assert_nothing_temporary, assert_rows_and_files_agree,
    assert_rows_have_files, remove_temporaries,
};
use support_b::steps::{NEVER, for_each_step, quick_dir, reap_until_nobody_is_left};
use support_b::{Handle, checkpoint, keepsake, request};
use tempfile::TempDir;
use testkit::child::State;
use testkit::compare::assert_same;

const BASE: &str = "base:v1";
const KEPT: &str = "kept:v1";

/// What is done step by step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    /// Publishes `base:v1`, which the node took.
    Push,
    /// Fetches `base:v1`, which is published.
    Pull,
    /// Restores `base:v1`, which is published and not here.
    Restore,
}

impl Verb {
    // A verb that is added here is visited by every test of this file that names it.
    const ALL: [Self; 3] = [Self::Push, Self::Pull, Self::Restore];

    fn told() -> Self {
        let told = told("VERB");
        let found = Self::ALL
            .into_iter()
            .find(|verb| Path::new(&format!("{verb:?}")) == told);
        found.expect("a verb")
    }

    /// The whole life of a process that does this. What could not be done and does not fail it, is returned.
    fn act(self, at: &Paths) -> Result<Vec<Warning>, Error> {
        let handle = at.node()?;
        let warnings = match self {
            Self::Push => handle.push(BASE)?.warnings,
            Self::Pull => handle.pull(BASE)?.warnings,
            Self::Restore => handle.restore(BASE, &at.output())?.warnings,
        };
        handle.close()?;
        Ok(warnings)
    }
}

/// One visit's node, and what is between it and others.
#[derive(Clone)]
struct Paths {
    dir: PathBuf,
}

impl Paths {
    fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    fn output(&self) -> PathBuf {
        self.dir.join("output")
    }

    fn between(&self) -> PathBuf {
        self.dir.join("between")
    }

    fn node(&self) -> Result<Handle, Error> {
        self.node_at(&self.root())
    }

    fn node_at(&self, root: &Path) -> Result<Handle, Error> {
        Handle::with(self.config(root))
    }

    fn config(&self, root: &Path) -> Config {
        let layouts = self.between().join("layouts");
        let mut content = Content::new(ContentProvider::Fs);
        content.root = self.between().join("objects");
        let layouts = format!("oci-layout:{}", layouts.display());
        Config::new(root)
            .snapshot_concurrency(1)
            .restore_concurrency(1)
            .registry(Registry::new(layouts, "ns"))
            .content(content)
    }
}

/// The state before a verb, to be copied for each visit.
struct Scene {
    dir: TempDir,
    verb: Verb,
}

impl Scene {
    /// `kept:v1` is here and published. `base:v1` is one of the two, as the verb needs it.
    fn new(verb: Verb) -> Self {
        let scene = Self {
            dir: quick_dir(),
            verb,
        };
        checkpoint().write_to(&scene.source()).unwrap();
        keepsake().write_to(&scene.keepsake()).unwrap();
        let at = scene.template();
        fs::create_dir_all(at.between().join("objects")).unwrap();
        let handle = at.node().unwrap();
        handle
            .snapshot(&request("kept", "v1", &scene.keepsake()))
            .unwrap();
        handle.close().unwrap();
        let taker = if verb == Verb::Push {
            // Without a remote: nothing is published yet.
            Handle::open(&at.root())
        } else {
            at.node_at(&at.dir.join("taker"))
        }
        .unwrap();
        taker
            .snapshot(&request("base", "v1", &scene.source()))
            .unwrap();
        taker.close().unwrap();
        let _ = fs::remove_dir_all(at.dir.join("taker"));
        let _ = fs::remove_dir_all(at.root().join("reserve"));
        scene
    }

    fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    fn keepsake(&self) -> PathBuf {
        self.dir.path().join("keepsake")
    }

    fn template(&self) -> Paths {
        Paths {
            dir: self.dir.path().join("template"),
        }
    }

    fn stage(&self) -> (TempDir, Paths) {
        let kept = TempDir::new_in(self.dir.path()).unwrap();
        let dir = kept.path().join("stage");
        let copied = Command::new("cp")
            .arg("-a")
            .args([&self.template().dir, &dir])
            .status()
            .unwrap();
        assert!(copied.success());
        (kept, Paths { dir })
    }

    fn child(&self, at: &Paths, step: u64) -> State {
        let mut command = playing(module_path!(), "once");
        tell(&mut command, "VERB", format!("{:?}", self.verb));
        tell(&mut command, "DIR", &at.dir);
        tell(&mut command, "AT", step.to_string());
        start(&mut command).wait().unwrap()
    }

    fn steps(&self) -> u64 {
        let (_kept, at) = self.stage();
        assert_eq!(self.child(&at, NEVER), State::Exited(0));
        let text = fs::read_to_string(at.dir.join("count")).unwrap();
        text.parse().unwrap()
    }

    /// What must hold after whatever happened, and that the same call then does what it should.
    fn assert_recovers(&self, at: &Paths) {
        assert_rows_have_files(&at.root());
        self.assert_between_is_whole(at);
        assert_nothing_partial(&self.source(), &at.output());
        self.assert_here_is_whole(at);
        remove_temporaries_if_any(&at.output());
        self.verb.act(at).unwrap();
        self.assert_here_is_whole(at);
        if self.verb == Verb::Restore {
            assert_same(&self.source(), &at.output());
        }
        if self.verb == Verb::Push {
            assert_nothing_temporary(&at.between());
        }
        self.assert_arrives_elsewhere(at);
    }

    /// Every blob of the layout is what its name says, every object is one that belongs to a snapshot, whole.
    fn assert_between_is_whole(&self, at: &Paths) {
        for path in testkit::fsstat::paths(&at.between()).unwrap() {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let whole = at.between().join(&path);
            if name.starts_with('.') || !whole.is_file() {
                continue;
            }
            let bytes = fs::read(&whole).unwrap();
            match path.parent().and_then(Path::file_name) {
                Some(dir) if dir == "sha256" => assert_eq!(sha256(&bytes), name),
                Some(dir) if dir == "xxh3" => assert_eq!(xxh3(&bytes), name),
                Some(dir) if dir == "packs" => assert_eq!(pack(&bytes), name),
                _ => assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_ok()),
            }
        }
    }

    fn assert_here_is_whole(&self, at: &Paths) {
        // Without a remote: what is listed is restored from here alone.
        let handle = Handle::open(&at.root()).unwrap();
        let (source, keepsake) = (self.source(), self.keepsake());
        assert!(handle.listed().contains(&KEPT.to_owned()));
        handle.assert_all_restore(&[(BASE, &source), (KEPT, &keepsake)], &at.dir);
        handle.assert_clean();
        handle.close().unwrap();
        reap_until_nobody_is_left(&at.root());
        assert_at_rest(&at.root());
        assert_rows_and_files_agree(&at.root());
    }

    fn assert_arrives_elsewhere(&self, at: &Paths) {
        let other = at.node_at(&at.dir.join("other")).unwrap();
        let output = at.dir.join("other-output");
        other.restore(BASE, &output).unwrap();
        assert_same(&self.source(), &output);
        other.close().unwrap();
    }
}

fn remove_temporaries_if_any(output: &Path) {
    if output.exists() {
        remove_temporaries(output);
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn xxh3(bytes: &[u8]) -> String {
    format!("{:x}", twox_hash::XxHash3_64::oneshot(bytes))
}

/// What a pack is called that is whole: its id, which is over its table, whose checksums are those of its frames.
fn pack(bytes: &[u8]) -> String {
    let (rest, footer) = bytes.split_last_chunk::<80>().unwrap();
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
    let (rest, table) = rest.split_at(rest.len() - 44 * number(&footer[12..]));
    let mut frames = rest.strip_prefix(b"SNAPPACK").unwrap();
    for row in table.chunks(44) {
        let (frame, after) = frames.split_at(number(row));
        assert_eq!(blake3::hash(frame), row[12..]);
        frames = after;
    }
    assert!(frames.is_empty() && footer.ends_with(b"SNAPPACK"));
    let mut id = blake3::Hasher::new_derive_key("io.d7y.snapshotter 2026 pack v2");
    id.update(&footer[..24]).update(table);
    id.finalize().to_hex().to_string()
}

/// Children: what they do is in the environment.
#[test]
fn children_start_here() {
    match part().as_deref() {
        None => {}
        Some("once") => live_once(),
        Some("collect") => collect_once(),
        Some("full disk") => without_space_at_every_step(),
        Some(part) => panic!("nobody plays {part}"),
    }
}

fn collect(at: &Paths) -> Result<CollectReport, Error> {
    let config = at.config(&at.root());
    let request = CollectRequest::new().grace(Duration::ZERO);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime
        .expect("a runtime")
        .block_on(Snapshotter::collect_remote(
            &config,
            &request.no_other_publishers(true),
        ))
}

fn collect_once() {
    let at = Paths { dir: told("DIR") };
    hook::arm(Action::Abort, told_number("AT"));
    collect(&at).unwrap();
    fs::write(at.dir.join("count"), hook::count().to_string()).unwrap();
    std::process::exit(0);
}

/// Ends the leases of whoever is dead: nobody waits for five minutes here.
fn end_leases(at: &Paths) {
    let dir = at.between().join("objects/snapshotter/collection");
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "lease") {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }
    }
}

fn live_once() {
    let at = Paths { dir: told("DIR") };
    hook::arm(Action::Abort, told_number("AT"));
    Verb::told().act(&at).unwrap();
    fs::write(at.dir.join("count"), hook::count().to_string()).unwrap();
    std::process::exit(0);
}

fn without_space_at_every_step() {
    let scene = Scene::new(Verb::told());
    let (mut step, mut fired) = (0, true);
    while fired {
        step += 1;
        let (_kept, at) = scene.stage();
        hook::arm(Action::NoSpace, step);
        let result = scene.verb.act(&at);
        fired = hook::count() >= step;
        hook::arm(Action::NoSpace, NEVER);
        match &result {
            Err(error) => assert_eq!(error.kind(), ErrorKind::NoSpace, "step {step}: {error:?}"),
            // A time that could not be set is said, and the file is there all the same, whole but for that.
            Ok(warnings) if !warnings.is_empty() => {
                let unset = |warning: &Warning| warning.kind == WarningKind::Attribute;
                assert!(warnings.iter().all(unset), "step {step}: {warnings:?}");
                fs::remove_dir_all(at.output()).unwrap();
            }
            Ok(_) => {}
        }
        let outcome = format!("{:?} with no space at step {step}: {result:?}", scene.verb);
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            scene.assert_recovers(&at);
        }));
        assert!(checked.is_ok(), "{outcome}");
    }
    assert!(step > 6, "{step}");
    eprintln!("{:?}: {} points without space", scene.verb, step - 1);
    std::process::exit(0);
}

/// Kills the verb at each step. Threads share the steps, so their number differs a little from life to life: a child
/// that ends before its step comes is looked at like the others.
fn crash(verb: Verb) {
    let scene = Scene::new(verb);
    let steps = scene.steps();
    eprintln!("{verb:?}: {steps} crash points");
    for_each_step(steps, |step| {
        let (_kept, at) = scene.stage();
        let end = scene.child(&at, step);
        assert!(
            matches!(end, State::Signaled(6) | State::Exited(0)),
            "{end:?}"
        );
        scene.assert_recovers(&at);
    });
}

fn fill_disk(verb: Verb) {
    let mut command = playing(module_path!(), "full disk");
    tell(&mut command, "VERB", format!("{verb:?}"));
    assert_eq!(start(&mut command).wait().unwrap(), State::Exited(0));
}

#[test]
fn a_push_killed_anywhere_leaves_nothing_partial_and_is_resumed() {
    crash(Verb::Push);
}

#[test]
fn a_pull_killed_anywhere_is_there_whole_or_leaves_nothing() {
    crash(Verb::Pull);
}

#[test]
fn a_restore_from_elsewhere_killed_anywhere_leaves_whole_files_and_a_good_store() {
    crash(Verb::Restore);
}

#[test]
fn a_push_without_space_anywhere_says_so_and_is_resumed() {
    fill_disk(Verb::Push);
}

#[test]
fn a_pull_without_space_anywhere_says_so_and_gives_all_back() {
    fill_disk(Verb::Pull);
}

#[test]
fn a_restore_from_elsewhere_without_space_anywhere_says_so_and_leaves_no_partial_file() {
    fill_disk(Verb::Restore);
}

#[test]
fn a_collection_killed_anywhere_takes_nothing_that_is_needed_and_the_next_one_ends_it() {
    let scene = Scene::new(Verb::Push);
    let objects = |at: &Paths| at.between().join("objects/xxh3");
    for garbage in ["abc", "abd"] {
        let path = objects(&scene.template()).join(garbage);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = fs::File::create(path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    }
    let first = collect(&scene.template()).unwrap();
    assert_eq!((first.removed, first.candidates), (0, 2));
    let child = |at: &Paths, step: u64| {
        let mut command = playing(module_path!(), "collect");
        tell(&mut command, "DIR", &at.dir);
        tell(&mut command, "AT", step.to_string());
        start(&mut command).wait().unwrap()
    };
    let (_kept, at) = scene.stage();
    assert_eq!(child(&at, NEVER), State::Exited(0));
    let steps = fs::read_to_string(at.dir.join("count")).unwrap();
    assert!(!objects(&at).join("abc").exists());
    for_each_step(steps.parse().unwrap(), |step| {
        let (_kept, at) = scene.stage();
        let end = child(&at, step);
        assert!(
            matches!(end, State::Signaled(6) | State::Exited(0)),
            "{end:?}"
        );
        end_leases(&at);
        // Who publishes does not wait for the dead.
        Verb::Push.act(&at).unwrap();
        // The lists may be of one instant of the clock: then what they name stays for one more.
        let left = |_: &u32| collect(&at).unwrap().candidates > 0;
        assert!((0..9).take_while(left).count() < 9);
        assert!(!objects(&at).join("abc").exists() && !objects(&at).join("abd").exists());
        scene.assert_arrives_elsewhere(&at);
    });
}

in_pages_too!(
    a_collection_killed_anywhere_takes_nothing_that_is_needed_and_the_next_one_ends_it,
    a_push_killed_anywhere_leaves_nothing_partial_and_is_resumed,
    a_pull_killed_anywhere_is_there_whole_or_leaves_nothing,
    a_restore_from_elsewhere_without_space_anywhere_says_so_and_leaves_no_partial_file,
);

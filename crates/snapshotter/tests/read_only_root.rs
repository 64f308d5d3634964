//! A root on a read-only mount: what is there can be read, and nothing is written.

use crate::support_a;
use crate::support_b;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use snapshotter::{
    Config, ErrorKind, GcRequest, LinkMode, RestoreRequest, SnapshotRequest, Snapshotter,
    VerifyRequest, WarningKind,
};
use support_a::*;
use testkit::child::{Child, State, this_test};
use testkit::compare::assert_same;
use testkit::mount::{BindMount, Kind, LoopMount, TmpfsMount, or_skip, run};
use testkit::{Content as Bytes, Tree};

fn tree() -> Tree {
    (0..200).fold(Tree::new(), |tree, index| {
        let len = 400 * index;
        tree.file(format!("{index}"), Bytes::Random { seed: index, len })
    })
}

async fn open(root: &Path) -> Snapshotter {
    let mut config = Config::new(root);
    config.gc.background = false;
    Snapshotter::open(config).await.unwrap()
}

async fn take(store: &Snapshotter, version: &str, source: &Path) {
    let request = SnapshotRequest::new("vm", version, source)
        .read_only("7")
        .link_mode(LinkMode::Copy)
        .format(support_b::format());
    store.snapshot(&request).await.unwrap();
}

fn remount(path: &Path, how: &str) {
    let how = format!("remount,{how}");
    run(Command::new("mount").args(["-o", &how]).arg(path)).unwrap();
}

/// Every name below a directory, with what tells whether it was written.
fn look(dir: &Path) -> Vec<String> {
    let mut seen = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let stat = fs::symlink_metadata(entry.path()).unwrap();
            let modified = stat.modified().unwrap();
            seen.push(format!("{:?} {} {modified:?}", entry.path(), stat.len()));
            if stat.is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    seen.sort();
    seen
}

/// All that only reads.
async fn reads(store: &Snapshotter, source: &Path, output: &Path) {
    let vm = reference("vm:v1");
    assert!(!store.list().await.unwrap().is_empty());
    assert_eq!(store.inspect(&vm).await.unwrap().files.len(), 200);
    assert!(store.usage().await.unwrap().snapshots > 0);
    assert!(!store.usage_details().await.unwrap().snapshots.is_empty());
    let verified = store.verify(&VerifyRequest::all()).await.unwrap();
    assert!(
        verified.is_sound() && verified.checked_blobs + verified.checked_packs > 0,
        "{verified:#?}"
    );
    for mode in [LinkMode::Auto, LinkMode::Reflink, LinkMode::Hardlink] {
        let output = output.join(format!("{mode:?}"));
        let request = RestoreRequest::new(vm.clone(), &output).link_mode(mode);
        store.plan_restore(&request).await.unwrap();
        let report = store.restore(&request).await.unwrap();
        assert_eq!((report.files, report.placements.hardlink.files), (200, 0));
        assert_same(source, &output);
    }
    let dry = store.gc(&GcRequest::new().dry_run(true)).await.unwrap();
    assert!(dry.dry_run);
    let diagnosis = store.diagnose(Some(output)).await.unwrap();
    assert!(diagnosis.read_only);
}

/// All that has to write says why it cannot.
async fn refusals(store: &Snapshotter, source: &Path) {
    let vm = reference("vm:v1");
    let errors = [
        store
            .snapshot(&SnapshotRequest::new("vm", "v9", source))
            .await
            .err(),
        store.remove(&vm).await.err(),
        store.pin(&vm).await.err(),
        store.gc(&GcRequest::new()).await.err(),
        store.verify(&VerifyRequest::all().repair(true)).await.err(),
    ];
    for error in errors {
        let error = error.expect("it wrote to a read-only mount");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
        assert!(
            error.to_string().ends_with("is on a read-only mount"),
            "{error}"
        );
    }
}

struct Scene {
    mount: LoopMount,
    source: PathBuf,
    place: Place,
}

impl Scene {
    async fn new() -> Option<Self> {
        let mount = or_skip(LoopMount::new(Kind::Ext4, 64 << 20, &[]))?;
        let place = Place::new();
        let source = place.write("source", &tree());
        let scene = Self {
            mount,
            source,
            place,
        };
        let store = open(&scene.root()).await;
        take(&store, "v1", &scene.source).await;
        store.close().await.unwrap();
        Some(scene)
    }

    fn root(&self) -> PathBuf {
        self.mount.path().join("root")
    }

    async fn is_only_read(&self) {
        remount(self.mount.path(), "ro");
        let before = look(&self.root());
        let store = open(&self.root()).await;
        let output = self.place.path("output");
        fs::create_dir_all(&output).unwrap();
        reads(&store, &self.source, &output).await;
        refusals(&store, &self.source).await;
        store.close().await.unwrap();
        assert_eq!(look(&self.root()), before);
    }
}

// A store on a filesystem that had been mounted read-only, or had become so after an error, could not even be listed.
#[tokio::test]
async fn what_is_on_a_read_only_filesystem_is_read_and_not_written() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    scene.is_only_read().await;
    remount(scene.mount.path(), "rw");
    assert_sound(&open(&scene.root()).await).await;
}

// What is in the log alone counts there too: without the log's index SQLite cannot share it, and left it out.
#[tokio::test]
async fn a_catalog_whose_log_has_no_index_is_read_with_its_log() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    // What a restore writes stays in the log.
    let store = open(&scene.root()).await;
    let request = RestoreRequest::new(reference("vm:v1"), scene.place.path("first"));
    store.restore(&request).await.unwrap();
    let used = store.list().await.unwrap();
    store.close().await.unwrap();
    fs::remove_file(scene.root().join("metadata/catalog.db-shm")).unwrap();
    remount(scene.mount.path(), "ro");
    let store = open(&scene.root()).await;
    assert_eq!(store.list().await.unwrap(), used);
    store.close().await.unwrap();
    remount(scene.mount.path(), "rw");
    fs::remove_file(scene.root().join("metadata/catalog.db-wal")).unwrap();
    scene.is_only_read().await;
}

/// Names the root, and what is done with it, for a test that runs itself in other processes.
const CHILD: &str = "READ_ONLY_ROOT_TEST";

/// What another process does, with the root mounted writable.
async fn write_elsewhere(what: &str) {
    let (what, place) = what.split_once(' ').unwrap();
    let store = open(&Path::new(place).join("root")).await;
    match what {
        "take" => take(&store, "v2", &Path::new(place).join("source")).await,
        "hold" => {
            fs::write(Path::new(place).join("held"), "").unwrap();
            std::future::pending().await
        }
        version => drop(store.remove(&reference(version)).await.unwrap()),
    }
    store.close().await.unwrap();
}

// A root that is mounted read-only into a sandbox while an agent uses it could not be opened there.
#[tokio::test]
async fn a_root_is_read_by_a_read_only_mount_while_others_write_it() {
    const NAME: &str = "a_root_is_read_by_a_read_only_mount_while_others_write_it";
    if let Ok(what) = std::env::var(CHILD) {
        return write_elsewhere(&what).await;
    }
    let Some(scene) = Scene::new().await else {
        return;
    };
    let bind = scene.place.path("bind");
    fs::create_dir(&bind).unwrap();
    let Some(bind) = or_skip(BindMount::new(scene.mount.path(), &bind)) else {
        return;
    };
    remount(&scene.place.path("bind"), "bind,ro");
    tree().write_to(&scene.mount.path().join("source")).unwrap();
    let elsewhere = |what: &str| {
        let what = format!("{what} {}", scene.mount.path().display());
        Child::spawn(this_test(module_path!(), NAME).env(CHILD, what)).unwrap()
    };
    let done = |what: &str| assert_eq!(elsewhere(what).wait().unwrap(), State::Exited(0));

    let root = scene.place.path("bind/root");
    let mut holder = elsewhere("hold");
    while !scene.mount.path().join("held").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let store = open(&root).await;
    reads(&store, &scene.source, &scene.place.path("")).await;
    refusals(&store, &scene.source).await;
    // It sees what is written meanwhile, and whoever writes goes on.
    done("take");
    assert_eq!(store.list().await.unwrap().len(), 2);
    holder.kill().unwrap();
    assert_eq!(store.list().await.unwrap().len(), 2);
    let late = open(&root).await;
    assert_eq!(late.list().await.unwrap().len(), 2);
    done("vm:v2");
    for store in [&store, &late] {
        assert_eq!(store.list().await.unwrap().len(), 1);
    }
    // What somebody removes is not there any more, and that is said.
    done("vm:v1");
    let request = RestoreRequest::new(reference("vm:v1"), scene.place.path("late"));
    let error = store.restore(&request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error.hint().unwrap().contains("read-only mount"),
        "{error:?}"
    );
    store.close().await.unwrap();
    late.close().await.unwrap();
    // Without the log's index, somebody could begin to write at any moment and not be noticed.
    fs::remove_file(scene.root().join("metadata/catalog.db-shm")).unwrap();
    let error = Snapshotter::open(Config::new(&root)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error.hint().unwrap().contains("mounted writable"),
        "{error:?}"
    );
    drop(bind);
    assert_sound(&open(&scene.root()).await).await;
}

#[tokio::test]
async fn damage_is_found_on_a_read_only_mount_too() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let content = scene.root().join("storage/content");
    let blobs: Vec<_> = files_below(&content)
        .iter()
        .map(|name| content.join(name))
        .collect();
    let large = blobs
        .iter()
        .max_by_key(|blob| fs::metadata(blob).unwrap().len());
    let mut bytes = fs::read(large.unwrap()).unwrap();
    bytes[5] ^= 1;
    fs::write(large.unwrap(), bytes).unwrap();
    let small = blobs
        .iter()
        .find(|blob| fs::metadata(blob).unwrap().len() == 400);
    fs::remove_file(small.unwrap()).unwrap();
    remount(scene.mount.path(), "ro");
    let store = open(&scene.root()).await;
    for _ in 0..2 {
        let found = store.verify(&VerifyRequest::all()).await.unwrap();
        assert_eq!(
            (found.damaged.len(), found.missing.len()),
            (1, 1),
            "{found:#?}"
        );
    }
    let request = RestoreRequest::new(reference("vm:v1"), scene.place.path("output"));
    let error = store.restore(&request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
}

#[tokio::test]
async fn where_there_is_no_store_none_is_made() {
    let Some(mount) = or_skip(TmpfsMount::new(1 << 20)) else {
        return;
    };
    fs::create_dir(mount.path().join("empty")).unwrap();
    remount(mount.path(), "ro");
    for (root, kind) in [
        ("empty", ErrorKind::NotFound),
        ("none", ErrorKind::PermissionDenied),
    ] {
        let config = Config::new(mount.path().join(root));
        let error = Snapshotter::open(config.clone()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.hint().unwrap().contains("read-only"), "{error:?}");
    }
}

// A catalog that was a symlink was followed, and so was a shard: what is at the other end was written and removed.
#[tokio::test]
async fn symlinks_in_the_root_are_refused_and_one_to_the_root_is_not() {
    let place = Place::new();
    let source = place.write("source", &tree());
    let root = place.path("root");
    let store = open(&root).await;
    take(&store, "v1", &source).await;
    store.close().await.unwrap();
    let shard = fs::read_dir(root.join("storage/content/blake3")).unwrap();
    let shard = shard.map(|entry| entry.unwrap().path()).next().unwrap();
    let own = [
        "metadata",
        "metadata/catalog.db",
        "metadata/catalog.db-wal",
        "metadata/catalog.db-shm",
        "storage",
        "storage/content",
        "storage/content/blake3",
        "storage/snapshot",
        "staging",
        "trash",
        "leases",
    ];
    let own = own.iter().map(|name| root.join(name)).chain([shard]);
    let elsewhere = place.path("elsewhere");
    for name in own {
        fs::rename(&name, &elsewhere).unwrap();
        symlink(&elsewhere, &name).unwrap();
        let error = Snapshotter::open(Config::new(&root)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        assert_eq!(error.path(), Some(&*name));
        assert!(error.to_string().contains("is a symlink"), "{error}");
        fs::remove_file(&name).unwrap();
        fs::rename(&elsewhere, &name).unwrap();
    }
    // One that leads nowhere would be a way to make a file there.
    symlink(&elsewhere, root.join("metadata/catalog.db-journal")).unwrap();
    assert!(Snapshotter::open(Config::new(&root)).await.is_err());
    fs::remove_file(root.join("metadata/catalog.db-journal")).unwrap();
    fs::rename(&root, place.path("real")).unwrap();
    symlink("real", &root).unwrap();
    symlink(place.path(""), place.path("above")).unwrap();
    let store = open(&place.path("above/root")).await;
    take(&store, "v2", &source).await;
    assert_sound(&store).await;
    store.close().await.unwrap();
}

// Whoever can write the root can have anything restored; a root with such a mode, or somebody else's, was used without a word.
#[tokio::test]
async fn a_root_that_others_can_change_is_warned_of() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let place = Place::new();
    let root = place.path("root");
    let said = |warnings: &[snapshotter::Warning]| {
        let exposed = warnings
            .iter()
            .filter(|one| one.kind == WarningKind::Exposed);
        exposed.map(|one| one.message.clone()).collect::<Vec<_>>()
    };
    let store = open(&root).await;
    assert_eq!(store.warnings(), []);
    for (mode, is_said) in [(0o777, true), (0o770, true), (0o1777, true), (0o755, false)] {
        fs::set_permissions(&root, fs::Permissions::from_mode(mode)).unwrap();
        let said = said(&store.warnings());
        assert_eq!(!said.is_empty(), is_said, "{mode:o} {said:?}");
    }
    if is_root() {
        chown(&root, Some(61_234), None).unwrap();
        let said = said(&store.warnings());
        assert!(said[0].contains("belongs to the user 61234"), "{said:?}");
    }
    store.close().await.unwrap();
}

in_pages_too!(
    what_is_on_a_read_only_filesystem_is_read_and_not_written,
    a_catalog_whose_log_has_no_index_is_read_with_its_log,
);

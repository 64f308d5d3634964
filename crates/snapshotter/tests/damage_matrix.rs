//! Everything that can be damaged, damaged in every way, before everything that may be done next: what comes back is
//! right, or the call says `damaged` and names what is; with a remote it is right. Never wrong bytes.
//!
//! A kind of thing is one line in [`KINDS`]: what it is called and how each damage is done to it.

use crate::support_a;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::{Connection, params};
use snapshotter::{
    Content, ContentProvider, Error, ErrorKind, File, PullRequest, Registry, RestoreRequest,
    SnapshotRequest, Snapshotter, VerifyReport, VerifyRequest, hook,
};
use support_a::*;
use testkit::compare::assert_same_with;
use testkit::{Content as Bytes, Tree};

const SIZE: u64 = 96 << 10;

/// What is done to a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Delete,
    Truncate,
    Flip,
    Swap,
    /// Something where there was nothing.
    Hole,
}

const HOW: [How; 5] = [How::Delete, How::Truncate, How::Flip, How::Swap, How::Hole];

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Restore,
    SnapshotAgain,
    Verify,
    Pull,
}

const VERBS: [Verb; 4] = [Verb::Restore, Verb::SnapshotAgain, Verb::Verify, Verb::Pull];

/// A damage: to a closed store.
type Damage = fn(&Scene);

/// A kind of thing, and for each way to damage it one or more damages.
struct Kind {
    name: &'static str,
    form: Form,
    damages: fn(How) -> Vec<Damage>,
}

/// How the blobs of a store are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As files, with views.
    Plain,
    /// As the packed streams that a daemon delivered; then there is no view that would have the bytes too.
    Packed,
}

const KINDS: [Kind; 5] = [
    Kind {
        name: "plain blob",
        form: Form::Plain,
        damages: plain_blob,
    },
    Kind {
        name: "packed blob",
        form: Form::Packed,
        damages: packed_blob,
    },
    Kind {
        name: "view",
        form: Form::Plain,
        damages: view,
    },
    Kind {
        name: "catalog row",
        form: Form::Plain,
        damages: catalog_row,
    },
    Kind {
        name: "document",
        form: Form::Plain,
        damages: document,
    },
];

/// A closed store with `test:v1`, and `test:v0`, in which the same files have other modes: so those of `v1` are restored
/// from views.
struct Scene {
    place: Place,
    base: PathBuf,
    remote: bool,
    form: Form,
}

fn files() -> Tree {
    let random = |seed| Bytes::Random { seed, len: SIZE };
    let sparse = Bytes::Sparse {
        size: SIZE,
        extents: vec![(0, 1, 8192), (SIZE - 8192, 2, 8192)],
    };
    Tree::new()
        .file("memory", sparse)
        .file("disk", random(3))
        .file("other", random(4))
        .file("state.json", "{}")
        .mtime("memory", OLD.0, OLD.1)
        .mtime("disk", OLD.0, OLD.1)
        .mtime("other", OLD.0, OLD.1)
}

impl Scene {
    async fn new(remote: bool, form: Form) -> Self {
        let place = Place::new();
        let scene = Self {
            base: place.write("base", &files()),
            place,
            remote,
            form,
        };
        let mut others = files().file("more", "of v0");
        for file in ["memory", "disk", "other", "state.json"] {
            others = others.mode(file, 0o600);
        }
        let elsewhere = scene.place.write("elsewhere", &others);
        let store = scene.open().await;
        for (version, base) in [("v0", &elsewhere), ("v1", &scene.base)] {
            // Copied: the blobs are the store's own files, with the attributes they have in v0.
            let request = SnapshotRequest::new("test", version, base)
                .file(File::new(".").read_only(true))
                .link_mode(snapshotter::LinkMode::Copy);
            store.snapshot(&request).await.unwrap();
        }
        if form == Form::Plain {
            let output = scene.place.fresh();
            give(&store, "v1", &output).await;
        }
        let has_views = !files_in(&scene.place.views()).is_empty();
        assert_eq!(has_views, form == Form::Plain);
        store.close().await.unwrap();
        if form == Form::Packed {
            scene.pack();
        }
        scene
    }

    /// A daemon delivers everything.
    fn pack(&self) {
        let cache = self.place.path("cache");
        fs::create_dir(&cache).unwrap();
        for version in ["v0", "v1"] {
            let reference = reference(&format!("test:{version}"));
            hook::pack(&self.place.root(), &cache, &reference).unwrap();
        }
    }

    async fn open(&self) -> Snapshotter {
        self.open_as(self.remote).await
    }

    async fn open_as(&self, remote: bool) -> Snapshotter {
        let place = &self.place;
        place
            .open_with(|config| {
                if !remote {
                    return config;
                }
                let objects = place.path("objects");
                fs::create_dir_all(&objects).unwrap();
                let mut content = Content::new(ContentProvider::Fs);
                content.root = objects;
                let layouts = place.path("layouts");
                let registry =
                    Registry::new(format!("oci-layout:{}", layouts.display()), "snapshots");
                config.registry(registry).content(content)
            })
            .await
    }

    fn catalog(&self) -> Connection {
        let connection = Connection::open(self.place.root().join("metadata/catalog.db")).unwrap();
        connection
            .pragma_update(None, "foreign_keys", false)
            .unwrap();
        connection
    }

    fn checksum(&self, file: &str) -> String {
        let (_, checksum) = spf1(&self.base.join(file));
        checksum.strip_prefix("blake3:").unwrap().to_owned()
    }

    fn blob(&self, file: &str) -> PathBuf {
        let mut name = self.checksum(file);
        if self.form == Form::Packed {
            name.push_str(".spf");
        }
        self.place.content().join(name)
    }

    fn view(&self, file: &str) -> PathBuf {
        let checksum = self.checksum(file);
        let of = |path: &PathBuf| path.to_string_lossy().contains(&checksum);
        files_in(&self.place.views()).into_iter().find(of).unwrap()
    }

    /// Runs SQL whose `?1` is the row of `disk` and `?2` that of `other` or `memory`.
    fn sql(&self, sql: &str, second: &str) {
        let connection = self.catalog();
        let id = |file: &str| -> i64 {
            let checksum = self.checksum(file);
            connection
                .query_row(
                    "SELECT id FROM objects WHERE lower(hex(key)) = ?1",
                    [checksum],
                    |row| row.get(0),
                )
                .unwrap()
        };
        let (one, two) = (id("disk"), id(second));
        for statement in sql.split(';') {
            let mut statement = connection.prepare(statement).unwrap();
            let count = statement.parameter_count();
            let ids = [one, two];
            statement
                .execute(rusqlite::params_from_iter(&ids[..count]))
                .unwrap();
        }
    }

    fn document(&self, version: &str) -> (i64, Vec<u8>) {
        self.catalog()
            .query_row(
                "SELECT s.id, a.document FROM snapshots s JOIN artifacts a ON a.snapshot = s.id
                 WHERE s.version = ?1",
                [version],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .unwrap()
    }

    fn set_document(&self, id: i64, document: &[u8]) {
        let sql = "UPDATE artifacts SET document = ?2 WHERE snapshot = ?1";
        self.catalog().execute(sql, params![id, document]).unwrap();
    }

    /// Restores `test:v1`, or says what it says. What comes back is right.
    async fn restored(&self, store: &Snapshotter, version: &str, what: &str) -> Option<Error> {
        let output = self.place.fresh();
        match store.restore(&to(version, &output)).await {
            Ok(_) => {
                assert_same_with(&self.base, &output, &shared());
                None
            }
            Err(error) => {
                for file in ["memory", "disk", "other", "state.json"] {
                    if let Ok(bytes) = fs::read(output.join(file)) {
                        let right = fs::read(self.base.join(file)).unwrap();
                        assert!(bytes == right, "{what}: {file} has wrong bytes");
                    }
                }
                Some(error)
            }
        }
    }
}

fn change_file(path: &Path, other: &Path, hole: u64, how: How) {
    match how {
        How::Delete => fs::remove_file(path).unwrap(),
        How::Truncate => {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_len(SIZE / 2).unwrap();
        }
        How::Flip => {
            let byte = fs::read(path).unwrap()[5000];
            overwrite(path, 5000, &[byte ^ 1]);
        }
        How::Swap => {
            let away = path.with_extension("away");
            fs::rename(path, &away).unwrap();
            fs::rename(other, path).unwrap();
            fs::rename(&away, other).unwrap();
        }
        How::Hole => overwrite(path, hole, b"something"),
    }
}

fn plain_blob(how: How) -> Vec<Damage> {
    fn change(scene: &Scene, how: How) {
        let file = if how == How::Hole { "memory" } else { "disk" };
        change_file(&scene.blob(file), &scene.blob("other"), SIZE / 2, how);
    }
    vec![match how {
        How::Delete => |scene| change(scene, How::Delete),
        How::Truncate => |scene| change(scene, How::Truncate),
        How::Flip => |scene| change(scene, How::Flip),
        How::Swap => |scene| change(scene, How::Swap),
        How::Hole => |scene| change(scene, How::Hole),
    }]
}

/// The same of the stream, and a row that says that it is none. There are no holes in a stream: something is written behind
/// its end.
fn packed_blob(how: How) -> Vec<Damage> {
    let mut damages = plain_blob(how);
    if how == How::Flip {
        damages.push(|scene| scene.sql("UPDATE objects SET kind = 0 WHERE id = ?1", "other"));
    }
    damages
}

fn view(how: How) -> Vec<Damage> {
    fn change(scene: &Scene, how: How) {
        let file = if how == How::Hole { "memory" } else { "disk" };
        change_file(&scene.view(file), &scene.view("other"), SIZE / 2, how);
    }
    vec![match how {
        How::Delete => |scene| change(scene, How::Delete),
        How::Truncate => |scene| change(scene, How::Truncate),
        How::Flip => |scene| change(scene, How::Flip),
        How::Swap => |scene| change(scene, How::Swap),
        How::Hole => |scene| change(scene, How::Hole),
    }]
}

fn catalog_row(how: How) -> Vec<Damage> {
    match how {
        How::Delete => vec![
            |scene| scene.sql("DELETE FROM objects WHERE id = ?1", "other"),
            |scene| scene.sql("DELETE FROM contents WHERE object = ?1", "other"),
            |scene| scene.sql("DELETE FROM object_references WHERE object = ?1", "other"),
            |scene| scene.sql("DELETE FROM views WHERE object = ?1", "other"),
        ],
        How::Truncate => vec![
            |scene| {
                scene.sql(
                    "UPDATE contents SET extents = x'' WHERE object = ?1",
                    "other",
                )
            },
            |scene| {
                scene.sql(
                    "UPDATE contents SET extents = substr(extents, 1, length(extents) - 1) WHERE object = ?1",
                    "other",
                );
            },
            |scene| {
                scene.sql(
                    "UPDATE contents SET size = size / 2 WHERE object = ?1",
                    "other",
                )
            },
        ],
        How::Flip => vec![
            |scene| {
                scene.sql(
                    "UPDATE contents SET digest = digest + 1 WHERE object = ?1",
                    "other",
                )
            },
            |scene| {
                scene.sql(
                    "UPDATE objects SET key = CAST(x'00' || substr(key, 2) AS BLOB) WHERE id = ?1",
                    "other",
                );
            },
            |scene| {
                scene.sql(
                    "UPDATE contents SET size = size + 1 WHERE object = ?1",
                    "other",
                )
            },
            |scene| {
                scene.sql(
                    "UPDATE objects SET data_size = data_size + 1 WHERE id = ?1",
                    "other",
                );
            },
            |scene| {
                scene.sql(
                    "UPDATE objects SET mtime_seconds = mtime_seconds + 1 WHERE id = ?1",
                    "other",
                )
            },
            |scene| scene.sql("UPDATE objects SET state = 2 WHERE id = ?1", "other"),
            |scene| scene.sql("UPDATE objects SET kind = 1 WHERE id = ?1", "other"),
        ],
        How::Swap => vec![
            |scene| {
                scene.sql(
                    "CREATE TEMP TABLE t AS SELECT id, key FROM objects;
                     UPDATE objects SET key = randomblob(32) WHERE id = ?1;
                     UPDATE objects SET key = (SELECT key FROM t WHERE id = ?1) WHERE id = ?2;
                     UPDATE objects SET key = (SELECT key FROM t WHERE id = ?2) WHERE id = ?1",
                    "other",
                );
            },
            |scene| {
                scene.sql(
                    "CREATE TEMP TABLE t AS SELECT object, extents FROM contents;
                     UPDATE contents SET extents = (SELECT extents FROM t WHERE object = ?1) WHERE object = ?2;
                     UPDATE contents SET extents = (SELECT extents FROM t WHERE object = ?2) WHERE object = ?1",
                    "memory",
                );
            },
            |scene| {
                scene.sql(
                    "CREATE TEMP TABLE t AS SELECT object, digest FROM contents;
                     UPDATE contents SET digest = (SELECT digest FROM t WHERE object = ?1) WHERE object = ?2;
                     UPDATE contents SET digest = (SELECT digest FROM t WHERE object = ?2) WHERE object = ?1",
                    "other",
                );
            },
        ],
        // A hole in the map where the file has data.
        How::Hole => vec![|scene| {
            scene.sql(
                "UPDATE contents SET extents = (SELECT extents FROM contents WHERE object = ?2) WHERE object = ?1;
                 UPDATE objects SET data_size = (SELECT data_size FROM objects WHERE id = ?2) WHERE id = ?1",
                "memory",
            );
        }],
    }
}

fn document(how: How) -> Vec<Damage> {
    match how {
        How::Delete => vec![|scene| {
            let (id, _) = scene.document("v1");
            let sql = "DELETE FROM artifacts WHERE snapshot = ?1";
            scene.catalog().execute(sql, [id]).unwrap();
        }],
        How::Truncate => vec![|scene| {
            let (id, document) = scene.document("v1");
            scene.set_document(id, &document[..document.len() / 2]);
        }],
        // Bytes that leave it a valid document: of a mode, of a name, of a time.
        How::Flip => vec![
            |scene| flip_after(scene, "\"mode\":"),
            |scene| flip_after(scene, "disk"),
            |scene| flip_after(scene, "2020-09-1"),
        ],
        How::Swap => vec![|scene| {
            let (one, two) = (scene.document("v0"), scene.document("v1"));
            scene.set_document(one.0, &two.1);
            scene.set_document(two.0, &one.1);
        }],
        // Space, which means nothing, and a key that nobody knows.
        How::Hole => vec![
            |scene| {
                let (id, mut document) = scene.document("v1");
                document.push(b'\n');
                scene.set_document(id, &document);
            },
            |scene| {
                let (id, document) = scene.document("v1");
                let text = String::from_utf8(document).unwrap();
                let text = text.replacen('{', "{\"unknown\":0,", 1);
                scene.set_document(id, text.as_bytes());
            },
        ],
    }
}

fn flip_after(scene: &Scene, what: &str) {
    let (id, mut document) = scene.document("v1");
    let text = String::from_utf8(document.clone()).unwrap();
    let at = text
        .find(what)
        .unwrap_or_else(|| panic!("{what} is not in {text}"))
        + what.len();
    document[at - 1 + usize::from(what.ends_with(':'))] ^= 1;
    scene.set_document(id, &document);
}

fn assert_names_it(error: &Error, what: &str) {
    assert_eq!(error.kind(), ErrorKind::Damaged, "{what}: {error:?}");
    assert!(
        error.path().is_some() || error.reference().is_some(),
        "{what}: {error:?} names nothing"
    );
}

/// What is there is right, or damaged and named; with a remote it is right.
async fn assert_right(scene: &Scene, store: &Snapshotter, version: &str, what: &str) {
    if let Some(error) = scene.restored(store, version, what).await {
        assert!(!scene.remote, "{what}: {error:?}");
        assert_names_it(&error, what);
    }
}

async fn restore(scene: &Scene, what: &str) {
    let store = scene.open().await;
    assert_right(scene, &store, "v1", what).await;
    // Once more: what was remembered of the first time is no excuse.
    assert_right(scene, &store, "v1", what).await;
}

/// One that is to be published may be the first to find the damage, or take the row for another file's with the same
/// address. It goes through once that is repaired.
async fn snapshot_again(scene: &Scene, what: &str) {
    let store = scene.open().await;
    let mut version = "v2";
    if let Err(error) = store.snapshot(&all_read_only(version, &scene.base)).await {
        if error.kind() == ErrorKind::AlreadyExists {
            assert!(
                error.to_string().contains("two different files"),
                "{what}: {error:?}"
            );
        } else {
            assert_names_it(&error, what);
        }
        let request = VerifyRequest::all().repair(true);
        store.verify(&request).await.unwrap();
        version = "v3";
        let taken = store.snapshot(&all_read_only(version, &scene.base)).await;
        taken.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    }
    assert_right(scene, &store, version, what).await;
    assert_right(scene, &store, "v1", what).await;
}

fn names(report: &VerifyReport) -> bool {
    let blobs = report.damaged.iter().chain(&report.missing);
    let named = blobs.flat_map(|blob| &blob.snapshots).count();
    named + report.damaged_snapshots.len() + report.catalog.len() > 0
}

/// `finds`: whether there is something for a verification to find; views are made anew without a word.
async fn verify_and_repair(scene: &Scene, finds: bool, what: &str) {
    let store = scene.open().await;
    let report = verify(&store).await;
    assert_eq!(!report.is_sound(), finds, "{what}: {report:?}");
    assert!(!finds || names(&report), "{what}: {report:?}");
    let request = VerifyRequest::all().repair(true);
    let report = store.verify(&request).await.unwrap();
    if scene.remote {
        assert!(report.is_sound(), "{what}: {report:?}");
        assert_eq!(report.warnings, [], "{what}");
    }
    let sound = report.is_sound();
    let again = verify(&store).await;
    assert_eq!(
        again.is_sound(),
        sound,
        "{what}: {again:?} after {report:?}"
    );
    // Nobody is asked any more.
    store.close().await.unwrap();
    let store = scene.open_as(false).await;
    match scene.restored(&store, "v1", what).await {
        Some(error) => {
            assert!(!sound, "{what}: {error:?} after {report:?}");
            assert_names_it(&error, what);
        }
        None => assert!(sound || what.contains("row"), "{what}: {report:?}"),
    }
}

async fn pull(scene: &Scene, what: &str) {
    let store = scene.open().await;
    let pulled = store.pull(&PullRequest::new(reference("test:v1"))).await;
    let pulled = pulled.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert_eq!(pulled.files, 4, "{what}");
    let output = scene.place.fresh();
    let request = RestoreRequest::new(reference("test:v1"), &output);
    store.restore(&request).await.unwrap();
    assert_same_with(&scene.base, &output, &shared());
}

/// Damages that change nothing that a verification would have to tell.
fn is_silent(kind: &Kind, how: How, number: usize) -> bool {
    // A view is a cache. A blob is looked at when its time is another; marked missing, it is found again.
    kind.name == "view"
        || (kind.name == "catalog row" && how == How::Delete && number == 3)
        || (kind.name == "catalog row" && how == How::Flip && matches!(number, 4 | 5))
}

static CASES: AtomicUsize = AtomicUsize::new(0);

async fn run(name: &str) -> usize {
    let kind = KINDS.iter().find(|kind| kind.name == name).unwrap();
    for how in HOW {
        for (number, damage) in (kind.damages)(how).into_iter().enumerate() {
            for verb in VERBS {
                for remote in [false, true] {
                    if verb == Verb::Pull && !remote {
                        continue;
                    }
                    let what = format!("{name} {how:?} {number}, {verb:?}, remote: {remote}");
                    let scene = Scene::new(remote, kind.form).await;
                    damage(&scene);
                    match verb {
                        Verb::Restore => restore(&scene, &what).await,
                        Verb::SnapshotAgain => snapshot_again(&scene, &what).await,
                        Verb::Verify => {
                            let finds = !is_silent(kind, how, number);
                            verify_and_repair(&scene, finds, &what).await;
                        }
                        Verb::Pull => pull(&scene, &what).await,
                    }
                    CASES.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
    CASES.load(Ordering::Relaxed)
}

#[tokio::test]
async fn a_damaged_plain_blob_never_gives_wrong_bytes() {
    assert_eq!(run("plain blob").await, 35);
}

#[tokio::test]
async fn a_damaged_packed_blob_never_gives_wrong_bytes() {
    assert_eq!(run("packed blob").await, 42);
}

#[tokio::test]
async fn a_damaged_view_never_gives_wrong_bytes() {
    assert_eq!(run("view").await, 35);
}

#[tokio::test]
async fn a_damaged_catalog_row_never_gives_wrong_bytes() {
    assert_eq!(run("catalog row").await, 126);
}

#[tokio::test]
async fn a_damaged_document_never_gives_wrong_bytes() {
    assert_eq!(run("document").await, 56);
}

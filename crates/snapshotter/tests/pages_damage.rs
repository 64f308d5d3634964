//! Everything of a snapshot in pages that can be damaged, damaged in every way, before everything that may be done next: what
//! comes back is right, or the call says `damaged` and names what is; a snapshot that is taken next is right, unless a pack was
//! changed so that its inode does not tell, and then once a verification has seen it. Never wrong bytes.
//!
//! A kind of thing is one list of damages: what each is called, how it is done, and who can see it.

use crate::support_a;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};
use snapshotter::{
    Error, ErrorKind, Format, ParentChoice, SnapshotRequest, Snapshotter, VerifyReport,
    VerifyRequest,
};
use support_a::*;
use testkit::Tree;
use testkit::compare::assert_same;

const PAGE: u64 = 4096;

/// Who notices a damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// Whoever looks at the thing.
    Everybody,
    /// Whoever reads all of it: the inode does not tell.
    Readers,
    /// Nobody is told, for nothing is lost.
    Nobody,
}

struct Damage {
    name: String,
    seen: Seen,
    act: Box<dyn Fn(&Scene)>,
}

fn damage(name: impl Into<String>, seen: Seen, act: impl Fn(&Scene) + 'static) -> Damage {
    Damage {
        name: name.into(),
        seen,
        act: Box::new(act),
    }
}

/// A closed store with `test:v1` in one pack, `test:v2`, which needs that and one more, and `other:v1`, of as many pages as
/// `test:v1`.
struct Scene {
    place: Place,
    bases: [PathBuf; 2],
    /// Of `test:v1`, of `test:v2` alone, of `other:v1`.
    packs: [PathBuf; 3],
}

fn tree(seed: u64) -> Tree {
    Tree::new()
        .file("memory", random(seed, 40 * PAGE))
        .file("disk", random(seed + 1, 9 * PAGE + 5))
        .file("state", "{\"a\":1}")
}

impl Scene {
    async fn new() -> Self {
        let place = Place::quick();
        let bases = ["base1", "base2"].map(|name| place.write(name, &tree(1)));
        let other = place.write("other", &tree(11));
        for at in [3, 4, 30] {
            overwrite(&bases[1].join("memory"), at * PAGE, b"changed");
        }
        fs::write(bases[1].join("state"), "{\"a\":2}").unwrap();
        let store = place.open().await;
        let mut packs = Vec::new();
        for (name, version, base) in [
            ("test", "v1", &bases[0]),
            ("test", "v2", &bases[1]),
            ("other", "v1", &other),
        ] {
            let request = SnapshotRequest::new(name, version, base)
                .format(Format::V2)
                .parent(ParentChoice::Latest);
            store.snapshot(&request).await.unwrap();
            packs.extend(files_in(&place.content()));
            packs.dedup();
            let mut seen = std::collections::HashSet::new();
            packs.retain(|pack| seen.insert(pack.clone()));
        }
        store.close().await.unwrap();
        let packs = <[PathBuf; 3]>::try_from(packs).unwrap();
        Self {
            place,
            bases,
            packs,
        }
    }

    fn catalog(&self) -> Connection {
        let connection = Connection::open(self.place.root().join("metadata/catalog.db")).unwrap();
        connection
            .pragma_update(None, "foreign_keys", false)
            .unwrap();
        connection
    }

    fn snapshot_id(&self, version: &str) -> i64 {
        let sql = "SELECT id FROM snapshots WHERE name = 'test' AND version = ?1";
        let catalog = self.catalog();
        catalog.query_row(sql, [version], |row| row.get(0)).unwrap()
    }

    fn artifact(&self, version: &str, which: &str) -> Vec<u8> {
        let sql = format!("SELECT {which} FROM artifacts WHERE snapshot = ?1");
        let id = self.snapshot_id(version);
        let catalog = self.catalog();
        catalog.query_row(&sql, [id], |row| row.get(0)).unwrap()
    }

    fn set_artifact(&self, version: &str, which: &str, bytes: &[u8]) {
        let sql = format!("UPDATE artifacts SET {which} = ?2 WHERE snapshot = ?1");
        let id = self.snapshot_id(version);
        self.catalog().execute(&sql, params![id, bytes]).unwrap();
    }

    fn list(&self, version: &str) -> PathBuf {
        let sql = "SELECT lower(hex(manifest_digest)) FROM snapshots WHERE id = ?1";
        let id = self.snapshot_id(version);
        let catalog = self.catalog();
        let name: String = catalog.query_row(sql, [id], |row| row.get(0)).unwrap();
        self.place.root().join("digests").join(name)
    }

    /// Runs SQL in which `?1` is the key of the pack of `test:v1`, and `?2` that of `test:v2` alone.
    fn sql(&self, sql: &str) {
        let catalog = self.catalog();
        let key = |pack: &PathBuf| {
            let name = pack.file_stem().unwrap().to_str().unwrap().to_owned();
            (0..32)
                .map(|at| u8::from_str_radix(&name[2 * at..][..2], 16).unwrap())
                .collect::<Vec<u8>>()
        };
        let keys = [key(&self.packs[0]), key(&self.packs[1])];
        for statement in sql.split(';') {
            let mut statement = catalog.prepare(statement).unwrap();
            let count = statement.parameter_count();
            statement
                .execute(rusqlite::params_from_iter(&keys[..count]))
                .unwrap();
        }
    }

    /// Restores a version, or says what it says. What comes back is right, and so is every file that has its name.
    async fn restored(
        &self,
        store: &Snapshotter,
        version: &str,
        base: &Path,
        what: &str,
    ) -> Option<Error> {
        let output = self.place.fresh();
        let result = store.restore(&to(version, &output)).await;
        if result.is_ok() {
            assert_same(base, &output);
        } else {
            for file in ["memory", "disk", "state"] {
                if let Ok(bytes) = fs::read(output.join(file)) {
                    let right = fs::read(base.join(file)).unwrap();
                    assert!(bytes == right, "{what}: {file} has wrong bytes");
                }
            }
        }
        testkit::tree::unlock(&output).ok();
        fs::remove_dir_all(&output).ok();
        result.err()
    }

    /// Both snapshots are right, or damaged and named. Says whether both are right.
    async fn look(&self, store: &Snapshotter, what: &str) -> bool {
        let mut all = true;
        for (version, base) in [("v1", &self.bases[0]), ("v2", &self.bases[1])] {
            if let Some(error) = self.restored(store, version, base, what).await {
                assert_eq!(error.kind(), ErrorKind::Damaged, "{what}: {error:?}");
                let named = error.path().is_some() || error.reference().is_some();
                assert!(named, "{what}: {error:?} names nothing");
                all = false;
            }
        }
        all
    }
}

fn rewrite(path: &Path, secretly: bool, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let before = mtime(path);
    fs::write(path, change(fs::read(path).unwrap())).unwrap();
    if secretly {
        testkit::tree::set_mtime(path, before).unwrap();
    } else {
        // Whatever the clock's tick is.
        age(path);
    }
}

/// The parts of a pack, by what is in them, from its own footer.
fn parts(pack: &[u8]) -> [(&'static str, Range<usize>); 5] {
    let footer = pack.len() - 80;
    let at = |at: usize| u32::from_le_bytes(pack[at..at + 4].try_into().unwrap()) as usize;
    let (frames, data) = (at(footer + 12), at(footer + 16));
    let table = footer - frames * 44;
    let stored: usize = (0..data).map(|number| at(table + number * 44)).sum();
    [
        ("header", 0..8),
        ("data", 8..8 + stored),
        ("map", 8 + stored..table),
        ("table", table..footer),
        ("footer", footer..pack.len()),
    ]
}

/// Damages of the pack with this number.
fn of_pack(number: usize) -> Vec<Damage> {
    let mut all = vec![
        damage("removed", Seen::Everybody, move |scene| {
            fs::remove_file(&scene.packs[number]).unwrap();
        }),
        damage("a directory", Seen::Everybody, move |scene| {
            fs::remove_file(&scene.packs[number]).unwrap();
            fs::create_dir(&scene.packs[number]).unwrap();
        }),
        damage("exchanged with another", Seen::Everybody, move |scene| {
            let (one, other) = (&scene.packs[number], &scene.packs[2]);
            let away = one.with_extension("away");
            fs::rename(one, &away).unwrap();
            fs::rename(other, one).unwrap();
            fs::rename(&away, other).unwrap();
        }),
        damage(
            "as long as another, and that",
            Seen::Readers,
            move |scene| {
                let other = fs::read(&scene.packs[2]).unwrap();
                rewrite(&scene.packs[number], true, |_| other);
                let sql = "UPDATE objects SET length = (SELECT max(length) FROM objects)";
                let length = fs::metadata(&scene.packs[number]).unwrap().len();
                scene.sql(&sql.replace("(SELECT max(length) FROM objects)", &length.to_string()));
            },
        ),
    ];
    for secretly in [false, true] {
        let seen = if secretly {
            Seen::Readers
        } else {
            Seen::Everybody
        };
        for part in 0..5 {
            for place in if secretly { 0..3 } else { 1..2 } {
                let name = format!("a bit of part {part} at {place}, secretly: {secretly}");
                all.push(damage(name, seen, move |scene| {
                    rewrite(&scene.packs[number], secretly, |mut bytes| {
                        let range = parts(&bytes)[part].1.clone();
                        let at = range.start + (range.len() - 1) * place / 2;
                        bytes[at] ^= 0x10;
                        bytes
                    });
                }));
            }
        }
    }
    for cut in 0..3 {
        let name = format!("cut at {cut}");
        all.push(damage(name, Seen::Everybody, move |scene| {
            rewrite(&scene.packs[number], true, |bytes| {
                let at = [0, bytes.len() / 2, bytes.len() - 1][cut];
                bytes[..at].to_vec()
            });
        }));
    }
    all.push(damage("longer", Seen::Everybody, move |scene| {
        rewrite(&scene.packs[number], true, |bytes| {
            [&bytes[..], b"more"].concat()
        });
    }));
    all
}

/// Of what the catalog has of `test:v2`: the document, or the manifest.
fn of_artifact(which: &'static str) -> Vec<Damage> {
    let mut all = vec![
        damage("that of v1", Seen::Everybody, move |scene| {
            let other = scene.artifact("v1", which);
            scene.set_artifact("v2", which, &other);
        }),
        damage("both are of v1", Seen::Everybody, move |scene| {
            for which in ["document", "manifest"] {
                let other = scene.artifact("v1", which);
                scene.set_artifact("v2", which, &other);
            }
        }),
        damage("empty", Seen::Everybody, move |scene| {
            scene.set_artifact("v2", which, b"")
        }),
        damage("removed", Seen::Everybody, move |scene| {
            let sql = "DELETE FROM artifacts WHERE snapshot = ?1";
            let id = scene.snapshot_id("v2");
            scene.catalog().execute(sql, [id]).unwrap();
        }),
        damage("more follows", Seen::Everybody, move |scene| {
            let mut bytes = scene.artifact("v2", which);
            bytes.push(b' ');
            scene.set_artifact("v2", which, &bytes);
        }),
    ];
    for place in 0..5 {
        all.push(damage(
            format!("a bit at {place}"),
            Seen::Everybody,
            move |scene| {
                let mut bytes = scene.artifact("v2", which);
                let at = (bytes.len() - 1) * place / 4;
                bytes[at] ^= 1;
                scene.set_artifact("v2", which, &bytes);
            },
        ));
        all.push(damage(
            format!("cut at {place}"),
            Seen::Everybody,
            move |scene| {
                let bytes = scene.artifact("v2", which);
                let at = bytes.len() * place / 5;
                scene.set_artifact("v2", which, &bytes[..at]);
            },
        ));
    }
    all
}

/// A list is a cache.
fn of_list() -> Vec<Damage> {
    let change = |name: &str, change: fn(&Scene, Vec<u8>) -> Vec<u8>| {
        damage(name, Seen::Nobody, move |scene| {
            rewrite(&scene.list("v2"), true, |bytes| change(scene, bytes));
        })
    };
    vec![
        damage("removed", Seen::Nobody, |scene| {
            fs::remove_file(scene.list("v2")).unwrap()
        }),
        damage("no lists", Seen::Nobody, |scene| {
            fs::remove_dir_all(scene.place.root().join("digests")).unwrap();
        }),
        change("empty", |_, _| Vec::new()),
        change("a bit", |_, mut bytes| {
            bytes[32 * 5] ^= 1;
            bytes
        }),
        change("cut", |_, bytes| bytes[..bytes.len() / 2].to_vec()),
        change("longer", |_, bytes| [&bytes[..], &[7; 32]].concat()),
        change("turned", |_, bytes| [&bytes[32..], &bytes[..32]].concat()),
        // The pages of the base, which are other ones.
        change("another's", |scene, _| {
            let mut list = Vec::new();
            for file in ["disk", "memory", "state"] {
                let bytes = fs::read(scene.bases[0].join(file)).unwrap();
                for page in bytes.chunks(4096) {
                    let mut whole = [0; 4096];
                    whole[..page.len()].copy_from_slice(page);
                    list.extend(blake3::hash(&whole).as_bytes());
                }
            }
            list
        }),
    ]
}

/// Rows of packs.
fn of_rows() -> Vec<Damage> {
    let rows = |name: &str, seen: Seen, sql: &'static str| {
        damage(name, seen, move |scene: &Scene| scene.sql(sql))
    };
    vec![
        rows(
            "no row",
            Seen::Everybody,
            "DELETE FROM objects WHERE key = ?1",
        ),
        rows(
            "no references",
            Seen::Everybody,
            "DELETE FROM object_references",
        ),
        rows(
            "another length",
            Seen::Everybody,
            "UPDATE objects SET length = length + 1 WHERE key = ?1",
        ),
        rows(
            "marked",
            Seen::Nobody,
            "UPDATE objects SET state = 1 WHERE key = ?1",
        ),
        rows(
            "missing",
            Seen::Nobody,
            "UPDATE objects SET state = 2 WHERE key = ?1",
        ),
        rows(
            "another time",
            Seen::Nobody,
            "UPDATE objects SET mtime_seconds = mtime_seconds + 1",
        ),
        rows(
            "no time",
            Seen::Nobody,
            "UPDATE objects SET mtime_seconds = NULL",
        ),
        rows(
            "another inode",
            Seen::Nobody,
            "UPDATE objects SET inode = inode + 1",
        ),
        rows(
            "another key",
            Seen::Everybody,
            "UPDATE objects SET key = CAST(x'00' || substr(key, 2) AS BLOB) WHERE key = ?1",
        ),
        rows(
            "exchanged",
            Seen::Everybody,
            "UPDATE objects SET key = zeroblob(32) WHERE key = ?1;
             UPDATE objects SET key = (SELECT ?1) WHERE key = ?2;
             UPDATE objects SET key = (SELECT ?2 FROM (SELECT ?1)) WHERE key = zeroblob(32)",
        ),
    ]
}

fn names_something(report: &VerifyReport) -> bool {
    let bad = report.damaged.iter().chain(&report.missing);
    let named = bad.flat_map(|bad| &bad.snapshots).count();
    named + report.damaged_snapshots.len() + report.catalog.len() > 0
}

async fn restore(scene: &Scene, damage: &Damage, what: &str) {
    let store = scene.place.open().await;
    let is_right = scene.look(&store, what).await;
    // Once more: what was remembered of the first time is no excuse.
    assert_eq!(scene.look(&store, what).await, is_right, "{what}");
    let lists_only = damage.seen == Seen::Nobody && !what.contains("row");
    assert!(is_right || !lists_only, "{what}");
}

async fn verify_and_repair(scene: &Scene, damage: &Damage, what: &str) {
    let store = scene.place.open().await;
    let report = verify(&store).await;
    let finds = damage.seen != Seen::Nobody;
    assert_eq!(!report.is_sound(), finds, "{what}: {report:?}");
    assert!(!finds || names_something(&report), "{what}: {report:?}");
    let request = VerifyRequest::all().repair(true);
    let sound = store.verify(&request).await.unwrap().is_sound();
    let again = verify(&store).await;
    assert_eq!(again.is_sound(), sound, "{what}: {again:?}");
    assert_eq!(scene.look(&store, what).await, sound, "{what}: {again:?}");
    take_again(scene, &store, true, what).await;
}

/// Takes both directories once more, one of them in packs of its own: the first comes to the very pack that `test:v1` has.
async fn take_again(scene: &Scene, store: &Snapshotter, is_known: bool, what: &str) {
    for (version, base, parent) in [
        (
            "v3",
            &scene.bases[1],
            ParentChoice::Snapshot(reference("test:v2")),
        ),
        ("v4", &scene.bases[1], ParentChoice::Latest),
        ("v5", &scene.bases[0], ParentChoice::None),
        ("v6", &scene.bases[0], ParentChoice::Latest),
    ] {
        let is_given = matches!(parent, ParentChoice::Snapshot(_));
        let request = all(version, base).format(Format::V2).parent(parent);
        match store.snapshot(&request).await {
            Ok(_) => {}
            // Somebody who names a parent wants that one.
            Err(error) if is_given => {
                assert_eq!(error.kind(), ErrorKind::Damaged, "{what}: {error:?}");
                continue;
            }
            Err(error) => panic!("{what}: {version}: {error:?}"),
        }
        if let Some(error) = scene.restored(store, version, base, what).await {
            assert!(!is_known, "{what}: {version}: {error:?}");
            assert_eq!(error.kind(), ErrorKind::Damaged, "{what}: {error:?}");
        }
    }
}

async fn snapshot_again(scene: &Scene, damage: &Damage, what: &str) {
    let store = scene.place.open().await;
    let is_known = damage.seen != Seen::Readers;
    take_again(scene, &store, is_known, what).await;
    scene.look(&store, what).await;
    if is_known {
        return;
    }
    // What was seen by now is marked, and what is taken next is right.
    verify(&store).await;
    let request = all("v7", &scene.bases[0])
        .format(Format::V2)
        .parent(ParentChoice::Latest);
    store.snapshot(&request).await.unwrap();
    let error = scene.restored(&store, "v7", &scene.bases[0], what).await;
    assert!(error.is_none(), "{what}: {error:?}");
}

async fn run(name: &str, damages: Vec<Damage>) {
    for damage in &damages {
        for verb in ["restore", "verify", "snapshot"] {
            let what = format!("{name} {}, {verb}", damage.name);
            let scene = Scene::new().await;
            (damage.act)(&scene);
            match verb {
                "restore" => restore(&scene, damage, &what).await,
                "verify" => verify_and_repair(&scene, damage, &what).await,
                _ => snapshot_again(&scene, damage, &what).await,
            }
        }
    }
}

#[tokio::test]
async fn a_damaged_pack_never_gives_wrong_bytes() {
    run("pack of v1:", of_pack(0)).await;
}

#[tokio::test]
async fn a_damaged_pack_with_the_map_never_gives_wrong_bytes() {
    run("pack of v2:", of_pack(1)).await;
}

#[tokio::test]
async fn a_damaged_document_in_pages_never_gives_wrong_bytes() {
    run("document:", of_artifact("document")).await;
}

#[tokio::test]
async fn a_damaged_manifest_in_pages_never_gives_wrong_bytes() {
    run("manifest:", of_artifact("manifest")).await;
}

#[tokio::test]
async fn a_damaged_list_of_digests_never_gives_wrong_bytes() {
    run("list:", of_list()).await;
}

#[tokio::test]
async fn a_damaged_row_of_a_pack_never_gives_wrong_bytes() {
    run("row:", of_rows()).await;
}

/// What read-only restores are links of.
fn entries(place: &Place) -> Vec<PathBuf> {
    let boots = files_in(&place.root().join("cache"));
    boots.iter().flat_map(|boot| files_in(boot)).collect()
}

/// Ways to damage a cache entry, of which its inode tells, and of which only whoever reads it can know.
/// What is done to the files of the cache.
type ToEntries = fn(&[PathBuf]);

fn of_entry() -> Vec<(&'static str, Seen, ToEntries)> {
    vec![
        ("removed", Seen::Everybody, |all| {
            fs::remove_file(&all[0]).unwrap()
        }),
        ("all removed", Seen::Everybody, |all| {
            fs::remove_dir_all(all[0].parent().unwrap().parent().unwrap()).unwrap();
        }),
        ("a bit", Seen::Everybody, |all| {
            rewrite(&all[0], false, |mut bytes| {
                bytes[0] ^= 1;
                bytes
            });
        }),
        ("cut", Seen::Everybody, |all| {
            rewrite(&all[0], true, |bytes| bytes[..bytes.len() / 2].to_vec());
        }),
        ("longer", Seen::Everybody, |all| {
            rewrite(&all[0], true, |bytes| [&bytes[..], b"more"].concat());
        }),
        ("exchanged", Seen::Everybody, |all| {
            let away = all[0].with_extension("away");
            fs::rename(&all[0], &away).unwrap();
            fs::rename(&all[1], &all[0]).unwrap();
            fs::rename(&away, &all[1]).unwrap();
        }),
        ("a directory", Seen::Everybody, |all| {
            fs::remove_file(&all[0]).unwrap();
            fs::create_dir(&all[0]).unwrap();
        }),
        ("a symlink", Seen::Everybody, |all| {
            fs::remove_file(&all[0]).unwrap();
            std::os::unix::fs::symlink(&all[1], &all[0]).unwrap();
        }),
        ("a bit, secretly", Seen::Readers, |all| {
            rewrite(&all[0], true, |mut bytes| {
                bytes[0] ^= 1;
                bytes
            });
        }),
    ]
}

/// A directory in the place of an entry could not be unlinked, and made every restore of the file fail. What is in a cache is
/// never a reason to fail.
#[tokio::test]
async fn a_damaged_cache_entry_never_gives_wrong_bytes() {
    for (name, seen, act) in of_entry() {
        let place = Place::quick();
        let base = place.write("base", &tree(1).file("second", random(8, 40 * PAGE)));
        let store = place.open().await;
        let request = all_read_only("v1", &base).format(Format::V2);
        store.snapshot(&request).await.unwrap();
        let first = place.fresh();
        give(&store, "v1", &first).await;
        store.close().await.unwrap();
        // Nobody else has its inode.
        fs::remove_dir_all(&first).unwrap();
        let all = entries(&place);
        assert!(all.len() > 1, "{all:?}");
        act(&all);
        let store = place.open().await;
        if seen == Seen::Readers {
            assert!(verify(&store).await.is_sound(), "{name}");
        }
        for _ in 0..2 {
            let output = place.fresh();
            give(&store, "v1", &output).await;
            assert_same(&base, &output);
        }
        assert!(verify(&store).await.is_sound(), "{name}");
    }
}

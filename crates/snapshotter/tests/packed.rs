//! Blobs that are kept as the packed streams a daemon delivered: read in one verifying pass, never touched, made plain
//! when a read-only file is to be linked to.
//!
//! A directory stands for the daemon's cache (`hook::pack`): files in it are hardlinked into the store.

use crate::support_a;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use snapshotter::{
    Config, Content, ContentProvider, ErrorKind, File, LinkMode, PushRequest, RebuildReport,
    RebuildRequest, Registry, RestoreRequest, Snapshotter, VerifyReport, VerifyRequest, hook,
};
use support_a::*;
use testkit::compare::{Options, assert_same, assert_same_with};
use testkit::{Content as Bytes, Tree, fsstat, golden};

const MIB: u64 = 1 << 20;

/// Delivers the blobs of `test:<version>`, and says where the daemon's own names of them are.
fn pack(place: &Place, version: &str) -> PathBuf {
    let cache = place.path("cache");
    fs::create_dir_all(&cache).unwrap();
    hook::pack(
        &place.root(),
        &cache,
        &reference(&format!("test:{version}")),
    )
    .unwrap();
    cache
}

/// How many blobs are packed, and how many plain.
fn forms(place: &Place) -> (usize, usize) {
    let blobs = place.blobs();
    let is_packed = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "spf");
    let packed = blobs.iter().filter(is_packed).count();
    (packed, blobs.len() - packed)
}

/// What a file is as far as anybody can see: bytes, mode, owner and group, modification time.
type Look = (Vec<u8>, u32, (u32, u32), (i64, u32));

/// What the files of the cache are.
fn looks(cache: &Path) -> Vec<Look> {
    let look = |file: &PathBuf| {
        let stat = stat(file);
        let owner = (stat.uid(), stat.gid());
        (fs::read(file).unwrap(), stat.mode(), owner, mtime(file))
    };
    files_in(cache).iter().map(look).collect()
}

/// Memory with holes, a disk that is read in pieces, something small, something empty, and a hole alone.
fn checkpoint() -> Tree {
    let memory = Bytes::Sparse {
        size: 24 * MIB,
        extents: vec![(0, 1, 65536), (5 * MIB, 2, 3 * MIB), (20 * MIB, 3, 4096)],
    };
    let hole = Bytes::Sparse {
        size: 5 * MIB,
        extents: vec![],
    };
    Tree::new()
        .file("memory", memory)
        .file(
            "disk",
            Bytes::Random {
                seed: 4,
                len: 5 * MIB + 7,
            },
        )
        .file("state", "{}")
        .file("empty", "")
        .file("hole", hole)
        .mode("memory", 0o400)
        .mtime("memory", OLD.0, OLD.1)
        .mtime("disk", OLD.0, 5)
}

/// Takes `test:v1` of a checkpoint, `memory` read-only, and packs it.
async fn packed(place: &Place) -> (Snapshotter, PathBuf, PathBuf) {
    let base = place.write("base", &checkpoint());
    let store = place.open().await;
    store
        .snapshot(&all("v1", &base).read_only("memory"))
        .await
        .unwrap();
    let cache = pack(place, "v1");
    assert_eq!(forms(place), (5, 0));
    (store, base, cache)
}

#[tokio::test]
async fn golden_streams_are_packed_blobs_and_come_back_writable_and_read_only() {
    let place = Place::new();
    let base = place.path("inputs");
    golden::write_inputs(&base).unwrap();
    if fsstat::block_size(&base).unwrap() != 4096 {
        testkit::mount::report_skip("the filesystem's blocks aren't 4 KiB");
        return;
    }
    let index = golden::index();
    let store = place.open().await;
    for read_only in [false, true] {
        let files = index.inputs.iter();
        let request = all(&format!("{read_only}"), &base)
            .files(files.map(|input| File::new(&input.name).read_only(read_only)));
        store.snapshot(&request).await.unwrap();
    }
    let cache = pack(&place, "false");
    let count = place.blobs().len();
    assert_eq!(forms(&place), (count, 0));
    for input in &index.inputs {
        let checksum = blake3::hash(&input.spf1()).to_hex().to_string();
        let delivered = cache.join(&checksum);
        // The Go library's stream is the blob, and it is the daemon's own file.
        assert!(
            fs::read(&delivered).unwrap() == input.spf1(),
            "{}",
            input.name
        );
        let blob = place.content().join(format!("{checksum}.spf"));
        assert_eq!(inode(&blob), inode(&delivered));
    }
    let before = looks(&cache);
    let without_parents = Options {
        directories: false,
        ..shared()
    };
    let writable = place.fresh();
    give(&store, "false", &writable).await;
    assert_same_with(&base, &writable, &without_parents);
    assert_eq!(forms(&place), (count, 0));
    assert_sound(&store).await;

    let read_only = place.fresh();
    give(&store, "true", &read_only).await;
    assert_same_with(&base, &read_only, &without_parents);
    assert_eq!(forms(&place), (0, count));
    assert_sound(&store).await;
    assert!(looks(&cache) == before);
}

#[tokio::test]
async fn what_is_writable_stays_packed_and_what_is_linked_to_becomes_plain() {
    let place = Place::new();
    let (store, base, cache) = packed(&place).await;
    let before = looks(&cache);
    let usage = store.usage().await.unwrap();
    let output = place.fresh();
    let report = give(&store, "v1", &output).await;
    assert_eq!(report.warnings, []);
    assert_eq!(report.placements.hardlink.files, 1);
    assert_eq!(report.placements.copy.files, 4);
    assert_same(&base, &output);
    assert_eq!(forms(&place), (4, 1));
    // The plain blob's own inode is the view.
    assert_eq!(files_in(&place.views()), Vec::<PathBuf>::new());
    let again = place.fresh();
    give(&store, "v1", &again).await;
    assert_eq!(inode(&again.join("memory")), inode(&output.join("memory")));
    assert_same(&base, &again);

    let after = store.usage().await.unwrap();
    assert_eq!(
        (usage.blobs, usage.stored_bytes),
        (after.blobs, after.stored_bytes)
    );
    assert_sound(&store).await;
    assert!(looks(&cache) == before);
    let removed = store.remove(&reference("test:v1")).await.unwrap();
    assert_eq!(removed.blobs_removed, 5);
    place.assert_empty();
    assert!(looks(&cache) == before);
    assert!(files_in(&cache).iter().all(|file| stat(file).nlink() == 1));
}

#[tokio::test]
async fn a_read_only_file_that_is_not_linked_to_leaves_its_blob_packed() {
    let place = Place::new();
    let (store, base, _) = packed(&place).await;
    for mode in [LinkMode::Copy, LinkMode::Reflink] {
        let output = place.fresh();
        let report = store
            .restore(&to("v1", &output).link_mode(mode))
            .await
            .unwrap();
        assert_same(&base, &output);
        assert_eq!(report.placements.copy.files, 5);
        assert_eq!(forms(&place), (5, 0));
    }
}

#[tokio::test]
async fn twins_with_one_digest_are_packed_apart() {
    let place = Place::new();
    let base = place.path("base");
    fs::create_dir(&base).unwrap();
    for (name, from) in ["a", "b"].iter().zip(golden::COLLISION) {
        fs::copy(from, base.join(name)).unwrap();
    }
    let store = place.open().await;
    take_read_only(&store, "v1", &base).await;
    take(&store, "v2", &base).await;
    pack(&place, "v1");
    assert_eq!(forms(&place), (2, 0));
    for version in ["v2", "v1"] {
        let output = place.fresh();
        give(&store, version, &output).await;
        assert_same(&base, &output);
    }
    assert_eq!(forms(&place), (0, 2));
    assert_sound(&store).await;
}

#[tokio::test]
async fn a_capture_of_packed_bytes_uses_the_packed_blob() {
    let place = Place::new();
    let (store, _, _) = packed(&place).await;
    let twin = place.write("twin", &checkpoint());
    let writable = take(&store, "v2", &twin).await;
    let read_only = take_read_only(&store, "v3", &twin).await;
    for report in [writable, read_only] {
        assert_eq!((report.blobs_stored, report.blobs_reused), (0, 5));
    }
    assert_eq!(forms(&place), (5, 0));
    store.remove(&reference("test:v1")).await.unwrap();
    assert_eq!(forms(&place), (5, 0));
    for version in ["v2", "v3"] {
        let output = place.fresh();
        give(&store, version, &output).await;
        assert_same_with(&twin, &output, &shared());
    }
    assert_eq!(forms(&place), (0, 5));
    assert_sound(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn restores_at_once_share_the_inode_that_a_packed_blob_becomes() {
    let place = Place::new();
    let (store, base, _) = packed(&place).await;
    let outputs: Vec<PathBuf> = (0..6).map(|_| place.fresh()).collect();
    let other = place.open().await;
    let mut running = Vec::new();
    for (number, output) in outputs.iter().enumerate() {
        let handle = if number % 2 == 0 { &store } else { &other };
        let (handle, request) = (handle.clone(), to("v1", output));
        running.push(tokio::spawn(async move { handle.restore(&request).await }));
    }
    for restore in running {
        restore.await.unwrap().unwrap();
    }
    let first = inode(&outputs[0].join("memory"));
    for output in &outputs {
        assert_same(&base, output);
        assert_eq!(inode(&output.join("memory")), first);
    }
    assert_eq!(forms(&place), (4, 1));
    assert_sound(&store).await;
}

/// What may happen to a packed file.
const DAMAGES: [&str; 7] = [
    "flip", "size", "count", "offset", "truncate", "trailing", "gone",
];

fn damage(blob: &Path, how: &str, secretly: bool) {
    let before = mtime(blob);
    let most = [0xff; 8];
    match how {
        "flip" => overwrite(blob, stat(blob).len() / 2, b"?!"),
        "size" => overwrite(blob, 4, &[0, 0, 0, 0, 0, 1, 0, 0]),
        "count" => overwrite(blob, 12, &most),
        "offset" => overwrite(blob, 20, &most),
        "truncate" => {
            let file = fs::File::options().write(true).open(blob).unwrap();
            file.set_len(stat(blob).len() - 1).unwrap();
        }
        "trailing" => overwrite(blob, stat(blob).len(), b"x"),
        _ => return fs::remove_file(blob).unwrap(),
    }
    if secretly {
        testkit::tree::set_mtime(blob, before).unwrap();
    }
}

async fn verified(store: &Snapshotter) -> VerifyReport {
    store.verify(&VerifyRequest::all()).await.unwrap()
}

#[tokio::test]
async fn damaged_packed_blobs_are_found_by_every_reader_and_mended_by_a_snapshot() {
    let tree = Tree::new()
        .file(
            "file",
            Bytes::Random {
                seed: 2,
                len: 2 * MIB,
            },
        )
        .mtime("file", OLD.0, OLD.1);
    for how in DAMAGES {
        for secretly in [false, true] {
            for mode in [Some(LinkMode::Auto), Some(LinkMode::Copy), None] {
                let context = format!("{how}, secretly {secretly}, {mode:?}");
                let place = Place::new();
                let base = place.write("base", &tree);
                let store = place.open().await;
                take_read_only(&store, "v1", &base).await;
                pack(&place, "v1");
                damage(&place.only_blob(), how, secretly);
                let output = place.fresh();
                if let Some(mode) = mode {
                    let request = to("v1", &output).link_mode(mode);
                    let error = store.restore(&request).await.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Damaged, "{context}: {error}");
                    assert!(!output.join("file").exists(), "{context}");
                    assert_no_litter(&output);
                }
                let report = verified(&store).await;
                let found = (report.damaged.len(), report.missing.len());
                let expected = if how == "gone" { (0, 1) } else { (1, 0) };
                assert_eq!(found, expected, "{context}");

                let good = place.write("good", &tree);
                take(&store, "v2", &good).await;
                assert_eq!(forms(&place), (0, 1), "{context}");
                let output = place.fresh();
                give(&store, "v1", &output).await;
                assert_same(&base, &output);
                assert_sound(&store).await;
            }
        }
    }
}

#[tokio::test]
async fn a_packed_blob_that_was_only_touched_is_right() {
    let place = Place::new();
    let (store, base, cache) = packed(&place).await;
    for file in files_in(&cache) {
        age(&file);
    }
    let output = place.fresh();
    give(&store, "v1", &output).await;
    assert_same(&base, &output);
    // Having been read they count as known again.
    let twin = place.write("twin", &checkpoint());
    assert_eq!(take(&store, "v2", &twin).await.blobs_stored, 0);
    assert_sound(&store).await;
}

/// As crashes leave it: the packed file of a plain blob, something plain beside a packed one.
fn litter(place: &Place, cache: &Path) {
    for blob in place.blobs() {
        let plain = place.content().join(blob.file_stem().unwrap());
        if blob == plain {
            let delivered = cache.join(plain.file_name().unwrap());
            fs::hard_link(delivered, plain.with_extension("spf")).unwrap();
        } else {
            fs::write(plain, "litter").unwrap();
        }
    }
}

#[tokio::test]
async fn a_verification_sweeps_the_file_of_the_form_that_no_row_says() {
    let place = Place::new();
    let (store, base, cache) = packed(&place).await;
    give(&store, "v1", &place.fresh()).await;
    litter(&place, &cache);
    assert_eq!(forms(&place), (5, 5));
    let report = verified(&store).await;
    assert_eq!(report.swept_names, 5);
    assert_eq!((report.damaged, report.missing), (vec![], vec![]));
    assert_eq!(forms(&place), (4, 1));
    let output = place.fresh();
    give(&store, "v1", &output).await;
    assert_same(&base, &output);
}

/// Two nodes with directories between them.
struct Between(Registry, Content);

impl Between {
    fn new(place: &Place) -> Self {
        let (layouts, objects) = (place.path("layouts"), place.path("objects"));
        fs::create_dir_all(&objects).unwrap();
        let mut content = Content::new(ContentProvider::Fs);
        content.root = objects;
        let registry = Registry::new(format!("oci-layout:{}", layouts.display()), "snapshots");
        Self(registry, content)
    }

    async fn node(&self, place: &Place) -> Snapshotter {
        place
            .open_with(|config| config.registry(self.0.clone()).content(self.1.clone()))
            .await
    }

    fn objects(&self) -> Vec<PathBuf> {
        let objects = objects_below(&self.1.root).into_iter();
        objects.map(|object| self.1.root.join(object)).collect()
    }
}

#[tokio::test]
async fn packed_blobs_are_published_as_they_are() {
    let (middle, here, there) = (Place::new(), Place::new(), Place::new());
    let between = Between::new(&middle);
    let base = here.write("base", &checkpoint());
    let store = between.node(&here).await;
    let request = all("v1", &base).local(true);
    store.snapshot(&request).await.unwrap();
    let cache = pack(&here, "v1");
    let push = PushRequest::new(reference("test:v1"));
    assert_eq!(store.push(&push).await.unwrap().publication.sent_blobs, 5);
    let sorted = |files: Vec<PathBuf>| {
        let mut bytes: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
        bytes.sort();
        bytes
    };
    assert!(sorted(between.objects()) == sorted(files_in(&cache)));
    assert_eq!(forms(&here), (5, 0));

    let other = between.node(&there).await;
    let output = there.fresh();
    give(&other, "v1", &output).await;
    assert_same(&base, &output);
}

#[tokio::test]
async fn a_damaged_packed_blob_is_not_published() {
    for how in DAMAGES {
        let (middle, here) = (Place::new(), Place::new());
        let between = Between::new(&middle);
        let bytes = Bytes::Random {
            seed: 3,
            len: 2 * MIB,
        };
        let base = here.write("base", &Tree::new().file("file", bytes));
        let store = between.node(&here).await;
        let request = all("v1", &base).local(true);
        store.snapshot(&request).await.unwrap();
        pack(&here, "v1");
        damage(&here.only_blob(), how, true);
        let push = PushRequest::new(reference("test:v1"));
        match store.push(&push).await {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Damaged, "{how}: {error}");
                assert_eq!(between.objects(), Vec::<PathBuf>::new(), "{how}");
            }
            // What follows the stream is not part of it.
            Ok(_) => assert_eq!(how, "trailing"),
        }
    }
}

/// A node that fetched `test:v1`, with the blobs packed.
async fn fetched(between: &Between, here: &Place, there: &Place) -> (Snapshotter, PathBuf) {
    let base = here.write("base", &checkpoint());
    let store = between.node(here).await;
    let request = all("v1", &base).read_only("memory");
    store.snapshot(&request).await.unwrap();
    let other = between.node(there).await;
    other
        .pull(&snapshotter::PullRequest::new(reference("test:v1")))
        .await
        .unwrap();
    pack(there, "v1");
    (other, base)
}

#[tokio::test]
async fn a_fetched_snapshot_kept_packed_restores_either_way() {
    let (middle, here, there) = (Place::new(), Place::new(), Place::new());
    let (store, base) = fetched(&Between::new(&middle), &here, &there).await;
    assert_eq!(forms(&there), (5, 0));
    let output = there.fresh();
    let report = give(&store, "v1", &output).await;
    assert_eq!(report.fetched_blobs, 0);
    assert_same(&base, &output);
    assert_eq!(forms(&there), (4, 1));
    assert_sound(&store).await;
}

/// Whether the plain blobs are marked as perhaps not on the disk.
fn marks(place: &Place) -> Vec<bool> {
    let catalog = rusqlite::Connection::open(place.root().join("metadata/catalog.db")).unwrap();
    let mut statement = catalog
        .prepare("SELECT unsynced IS NOT NULL FROM objects WHERE kind = 0")
        .unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

#[tokio::test]
async fn what_was_promised_to_be_on_the_disk_is_there_when_it_becomes_plain() {
    // A snapshot of this node alone.
    let place = Place::new();
    let (store, _, _) = packed(&place).await;
    give(&store, "v1", &place.fresh()).await;
    assert_eq!(marks(&place), [false]);

    // What is elsewhere too is no more promised plain than it was packed, and no less.
    for synced in [false, true] {
        let (middle, here, there) = (Place::new(), Place::new(), Place::new());
        let (store, _) = fetched(&Between::new(&middle), &here, &there).await;
        if synced {
            let catalog = there.root().join("metadata/catalog.db");
            let catalog = rusqlite::Connection::open(catalog).unwrap();
            let cleared = catalog.execute("UPDATE objects SET unsynced = NULL", []);
            assert_eq!(cleared.unwrap(), 5);
        }
        give(&store, "v1", &there.fresh()).await;
        assert_eq!(marks(&there), [!synced]);
    }
}

#[tokio::test]
async fn damaged_packed_blobs_are_fetched_again() {
    for no_clobber in [false, true] {
        let (middle, here, there) = (Place::new(), Place::new(), Place::new());
        let (store, base) = fetched(&Between::new(&middle), &here, &there).await;
        for blob in there.blobs() {
            damage(&blob, "trailing", false);
        }
        let output = there.fresh();
        let request = to("v1", &output).no_clobber(no_clobber);
        let report = store.restore(&request).await.unwrap();
        assert!(report.fetched_blobs > 0);
        assert_same(&base, &output);
        assert_sound(&store).await;
        assert_eq!(forms(&there), (0, 5));
    }
}

/// The row of each blob, with its file: the number of the inode, and its modification time.
type Recorded = (PathBuf, Option<i64>, (Option<i64>, Option<u32>));

fn recorded(place: &Place) -> Vec<Recorded> {
    let connection = Connection::open(place.root().join("metadata/catalog.db")).unwrap();
    let sql = "SELECT lower(hex(key)) || iif(kind = 1, '.spf', ''), inode, mtime_seconds, mtime_nanoseconds
               FROM objects";
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| {
        let name: String = row.get(0)?;
        let time = (row.get(2)?, row.get(3)?);
        Ok((place.content().join(name), row.get(1)?, time))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// Every row has the inode of the file that it has now, so none of them is hashed before it is used.
fn assert_inodes_are_recorded(place: &Place) {
    for (file, inode, time) in recorded(place) {
        let stat = stat(&file);
        assert_eq!(inode, Some(stat.ino().cast_signed()), "{}", file.display());
        let (seconds, nanoseconds) = mtime(&file);
        assert_eq!(
            time,
            (Some(seconds), Some(nanoseconds)),
            "{}",
            file.display()
        );
    }
}

#[tokio::test]
async fn whatever_replaces_a_blobs_file_records_the_new_inode() {
    let place = Place::new();
    let (store, base, _) = packed(&place).await;
    assert_inodes_are_recorded(&place);
    give(&store, "v1", &place.fresh()).await;
    assert_eq!(forms(&place), (4, 1));
    assert_inodes_are_recorded(&place);
    // Another file under the same name, with the same size and time: a rename, and a copy back.
    let plain = place.blobs();
    let plain = plain
        .iter()
        .find(|path| path.extension().is_none())
        .unwrap();
    let moved = place.path("moved");
    fs::rename(plain, &moved).unwrap();
    let status = std::process::Command::new("cp")
        .args(["-a", "--"])
        .args([&moved, plain])
        .status();
    assert!(status.unwrap().success());
    let output = place.fresh();
    give(&store, "v1", &output).await;
    assert_same_with(&base, &output, &shared());
    assert_inodes_are_recorded(&place);
}

/// Zeroes the root page of an index: the tables can be read, and the database is damaged.
fn break_index(place: &Place) {
    let catalog = place.root().join("metadata/catalog.db");
    let connection = Connection::open(&catalog).unwrap();
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    connection.query_row(checkpoint, [], |_| Ok(())).unwrap();
    let sql = "SELECT rootpage FROM sqlite_master WHERE name = 'snapshots_by_name'";
    let page: i64 = connection.query_row(sql, [], |row| row.get(0)).unwrap();
    drop(connection);
    overwrite(&catalog, (page.cast_unsigned() - 1) * 4096, &[0xff; 4096]);
}

async fn rebuild(place: &Place) -> RebuildReport {
    let config = Config::new(place.root());
    Snapshotter::rebuild(&config, &RebuildRequest::new())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_rebuild_keeps_packed_blobs_as_they_are() {
    let place = Place::new();
    let (store, base, cache) = packed(&place).await;
    let before = looks(&cache);
    store.close().await.unwrap();
    break_index(&place);
    let report = rebuild(&place).await;
    assert_eq!((report.checked_blobs, report.unnamed_blobs), (5, 0));
    assert!(report.quarantined.is_empty(), "{report:?}");
    assert_eq!(report.snapshots[0].missing_blobs, 0);
    assert_eq!((forms(&place), looks(&cache)), ((5, 0), before));
    assert_inodes_are_recorded(&place);
    let store = place.open().await;
    let output = place.fresh();
    give(&store, "v1", &output).await;
    assert_same_with(&base, &output, &shared());
    assert_eq!(forms(&place), (4, 1));
    store.close().await.unwrap();

    // Without any catalog they are found too, in whatever form.
    fs::remove_dir_all(place.root().join("metadata")).unwrap();
    let report = rebuild(&place).await;
    assert_eq!((report.checked_blobs, report.unnamed_blobs), (5, 5));
    assert_eq!(forms(&place), (4, 1));
    let store = place.open().await;
    assert_sound(&store).await;
    let found = store.list().await.unwrap();
    let output = place.fresh();
    let request = RestoreRequest::new(found[0].reference.clone(), &output);
    store.restore(&request).await.unwrap();
    let memory = |path: &PathBuf| stat(path).len() == 24 * MIB;
    let restored = files_in(&output).into_iter().find(memory).unwrap();
    assert!(fs::read(restored).unwrap() == fs::read(base.join("memory")).unwrap());
}

#[tokio::test]
async fn a_rebuild_takes_one_form_where_both_are_there_and_moves_wrong_streams_aside() {
    let place = Place::new();
    let (store, base, _) = packed(&place).await;
    let kept = place.path("kept");
    let packed_memory = blob_of(&place, &base.join("memory"));
    fs::hard_link(&packed_memory, &kept).unwrap();
    give(&store, "v1", &place.fresh()).await;
    store.close().await.unwrap();
    // As a crash leaves it between the row and the sweep.
    fs::hard_link(&kept, &packed_memory).unwrap();
    let disk = blob_of(&place, &base.join("disk"));
    overwrite(&disk, 5000, b"wrong");
    break_index(&place);
    let report = rebuild(&place).await;
    assert_eq!(report.checked_blobs, 4);
    let [aside] = &report.quarantined[..] else {
        panic!("{report:?}");
    };
    let name = aside.file_name().unwrap().to_str().unwrap();
    let was = disk.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with(was), "{name}");
    assert_eq!(report.snapshots[0].missing_blobs, 1);
    let store = place.open().await;
    let output = place.fresh();
    let memory = RestoreRequest::new(reference("test:v1"), &output).path("memory");
    store.restore(&memory).await.unwrap();
    assert!(fs::read(output.join("memory")).unwrap() == fs::read(base.join("memory")).unwrap());
    // A snapshot of the same bytes brings back what is missing; then the other form of the memory is litter.
    store.snapshot(&all("v2", &base)).await.unwrap();
    let report = verify(&store).await;
    assert!(report.is_sound(), "{report:?}");
    assert!(!packed_memory.exists());
    assert_eq!(forms(&place), (3, 2));
}

fn blob_of(place: &Place, file: &Path) -> PathBuf {
    let (_, checksum) = spf1(file);
    let hex = checksum.strip_prefix("blake3:").unwrap();
    place.content().join(format!("{hex}.spf"))
}

#[tokio::test]
async fn a_repair_keeps_a_wrong_stream_aside() {
    let place = Place::new();
    let (store, base, cache) = packed(&place).await;
    let disk = blob_of(&place, &base.join("disk"));
    overwrite(&disk, 5000, b"wrong");
    let request = VerifyRequest::all().repair(true);
    let report = store.verify(&request).await.unwrap();
    let [bad] = &report.damaged[..] else {
        panic!("{report:?}");
    };
    let aside = bad.quarantined.as_ref().unwrap();
    // The daemon's own name of it is the daemon's.
    assert!(!disk.exists() && aside.exists());
    assert_eq!(files_in(&cache).len(), 5);
    let error = store.restore(&to("v1", &place.fresh())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
    store.snapshot(&all("v2", &base)).await.unwrap();
    let output = place.fresh();
    give(&store, "v1", &output).await;
    assert_same_with(&base, &output, &shared());
    assert_sound(&store).await;
}

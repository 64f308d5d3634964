//! Packs, maps and documents that are well-formed as far as they go and evil, in a store as if they had been fetched there, and in a registry. Each
//! is damaged to whoever restores, verifies or compares it, and a capture that has it as its parent is right all the same; none
//! of them takes memory or time for what it says rather than for what it is.
//!
//! What writes them is this file's own and takes whatever it is given.

#![expect(
    clippy::type_complexity,
    reason = "tables of cases, each with what is done to it"
)]

use crate::support_a;

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use rusqlite::{Connection, params};
use serde_json::{Value, json};
use sha2::Digest as _;
use snapshotter::{
    Config, Content, ContentProvider, ErrorKind, Format, RebuildRequest, Registry, Snapshotter,
    VerifyRequest,
};
use support_a::*;
use testkit::Tree;
use testkit::compare::assert_same;
use testkit::mount::{TmpfsMount, or_skip};

const PAGE: usize = 4096;
const CONTEXT: &str = "io.d7y.snapshotter 2026 pack v2";

/// A frame, and what its row says of it.
#[derive(Clone)]
struct Frame {
    bytes: Vec<u8>,
    stored: u32,
    length: u32,
    kind: u8,
    codec: u8,
}

impl Frame {
    fn raw(kind: u8, bytes: Vec<u8>) -> Self {
        let length = bytes.len() as u32;
        Self {
            bytes,
            stored: length,
            length,
            kind,
            codec: 0,
        }
    }

    /// Compressed, or raw where that is longer.
    fn of(kind: u8, bytes: &[u8]) -> Self {
        let compressed = zstd::bulk::compress(bytes, 1).unwrap();
        if compressed.len() > bytes.len() {
            return Self::raw(kind, bytes.to_vec());
        }
        Self::zstd(kind, compressed, bytes.len() as u32)
    }

    fn zstd(kind: u8, bytes: Vec<u8>, length: u32) -> Self {
        Self {
            stored: bytes.len() as u32,
            bytes,
            length,
            kind,
            codec: 1,
        }
    }
}

/// A pack, and what its footer says of it.
#[derive(Clone)]
struct Pack {
    frames: Vec<Frame>,
    count: Option<u32>,
    data: Option<u32>,
    table_at: Option<u64>,
    id: Option<[u8; 32]>,
}

impl Pack {
    fn new(frames: Vec<Frame>) -> Self {
        Self {
            frames,
            count: None,
            data: None,
            table_at: None,
            id: None,
        }
    }

    fn write(&self) -> (Vec<u8>, [u8; 32]) {
        let mut bytes = b"SNAPPACK".to_vec();
        let mut table = Vec::new();
        for frame in &self.frames {
            bytes.extend(&frame.bytes);
            table.extend(frame.stored.to_le_bytes());
            table.extend(frame.length.to_le_bytes());
            table.extend([frame.kind, frame.codec, 0, 0]);
            table.extend(blake3::hash(&frame.bytes).as_bytes());
        }
        let data = self.frames.iter().filter(|frame| frame.kind == 0).count() as u32;
        let mut footer = vec![1, 0, 0, 0];
        for number in [
            4096,
            16,
            self.count.unwrap_or(self.frames.len() as u32),
            self.data.unwrap_or(data),
            0,
        ] {
            footer.extend(number.to_le_bytes());
        }
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(&footer).update(&table);
        let id = self.id.unwrap_or(*hasher.finalize().as_bytes());
        let length = (bytes.len() + table.len() + 80) as u64;
        let table_at = self.table_at.unwrap_or(bytes.len() as u64);
        footer.extend(table_at.to_le_bytes());
        footer.extend(length.to_le_bytes());
        footer.extend(id);
        footer.extend(b"SNAPPACK");
        (([bytes, table, footer].concat()), id)
    }
}

fn leb128(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Gap, length less one, pack, zig-zag of the page's difference: of each extent.
fn map(extents: &[[u64; 4]]) -> Vec<u8> {
    let mut bytes = (extents.len() as u32).to_le_bytes().to_vec();
    for column in 0..4 {
        let mut numbers = Vec::new();
        for extent in extents {
            leb128(extent[column], &mut numbers);
        }
        bytes.extend((numbers.len() as u32).to_le_bytes());
        bytes.extend(numbers);
    }
    bytes
}

/// Frames with so many pages, each of which has bytes of its own.
fn pages(count: usize) -> Vec<Frame> {
    let bytes: Vec<u8> = (1..=count)
        .flat_map(|page| [page as u8 | 1; PAGE])
        .collect();
    bytes
        .chunks(16 * PAGE)
        .map(|bytes| Frame::of(0, bytes))
        .collect()
}

/// A frame of some bytes and one more for so many MiB, made without having them all.
fn bomb(start: &[u8], byte: u8, mib: usize) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    let length = (start.len() + (mib << 20)) as u64;
    encoder.set_pledged_src_size(Some(length)).unwrap();
    encoder.include_contentsize(true).unwrap();
    encoder.write_all(start).unwrap();
    for _ in 0..mib {
        encoder.write_all(&vec![byte; 1 << 20]).unwrap();
    }
    encoder.finish().unwrap()
}

fn without_size(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_contentsize(false).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A snapshot that somebody made.
#[derive(Clone)]
struct Evil {
    /// The first has the map.
    packs: Vec<Pack>,
    map: Vec<u8>,
    pages: Vec<u64>,
    /// Of the file `memory`.
    size: u64,
    change: fn(&mut Value),
    /// What is put in the place of the document's bytes.
    raw: fn(Vec<u8>) -> Vec<u8>,
}

impl Evil {
    /// So far it is honest.
    fn new(count: usize) -> Self {
        Self {
            packs: vec![Pack::new(pages(count))],
            map: map(&[[0, count as u64 - 1, 0, 0]]),
            pages: vec![count as u64],
            size: (count * PAGE) as u64,
            change: |_| {},
            raw: |json| zstd::bulk::compress(&json, 1).unwrap(),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn with_map(self, extents: &[[u64; 4]]) -> Self {
        let bytes = map(extents);
        self.with(|evil| evil.map = bytes)
    }

    fn with_document(self, change: fn(&mut Value)) -> Self {
        self.with(|evil| evil.change = change)
    }

    fn with_raw(self, raw: fn(Vec<u8>) -> Vec<u8>) -> Self {
        self.with(|evil| evil.raw = raw)
    }

    fn write(&self) -> (Vec<(Vec<u8>, [u8; 32])>, Vec<u8>) {
        let mut packs = self.packs.clone();
        let place = packs[0].frames.len();
        let map_frames = self.map.chunks(1 << 20).map(|bytes| Frame::of(1, bytes));
        packs[0].frames.extend(map_frames);
        let map_place = json!({"pack": 0, "frame": place, "frames": packs[0].frames.len() - place});
        let packs: Vec<_> = packs.iter().map(Pack::write).collect();
        let named = packs.iter().zip(&self.pages).map(|((_, id), pages)| {
            let id = blake3::Hash::from_bytes(*id).to_hex();
            json!({"id": format!("blake3:{id}"), "pages": pages})
        });
        let mut document = json!({
            "format": 2, "needs": [], "packs": named.collect::<Vec<_>>(), "map": map_place,
            "entries": [{
                "relativePath": "memory", "readOnly": false,
                "metadata": {"mode": 420, "uid": 0, "gid": 0, "size": self.size,
                             "mtime": "2023-11-14T22:13:20Z", "typeflag": 0},
            }],
        });
        (self.change)(&mut document);
        (packs, (self.raw)(serde_json::to_vec(&document).unwrap()))
    }
}

/// A closed store whose `test:v1` is evil, and was taken of a directory.
struct Scene {
    place: Place,
    base: PathBuf,
}

impl Scene {
    async fn new(evil: &Evil) -> Self {
        let place = Place::quick();
        let base = place.write("base", &Tree::new().file("memory", random(1, 50_000)));
        let store = place.open().await;
        let request = all("v1", &base).format(Format::V2);
        store.snapshot(&request).await.unwrap();
        store.close().await.unwrap();
        let scene = Self { place, base };
        scene.put(evil);
        scene
    }

    fn put(&self, evil: &Evil) {
        let root = self.place.root();
        let (packs, document) = evil.write();
        fs::remove_dir_all(root.join("digests")).unwrap();
        fs::remove_file(self.place.only_blob()).unwrap();
        let catalog = Connection::open(root.join("metadata/catalog.db")).unwrap();
        catalog.pragma_update(None, "foreign_keys", false).unwrap();
        let delete = "DELETE FROM objects; DELETE FROM object_references";
        catalog.execute_batch(delete).unwrap();
        for (bytes, id) in packs {
            let name = format!("{}.pack", blake3::Hash::from_bytes(id).to_hex());
            fs::write(self.place.content().join(name), &bytes).unwrap();
            let sql = "INSERT INTO objects (key, kind, shard, length, data_size, created_at) VALUES (?1, 2, 0, ?2, 0, 1)";
            if catalog
                .execute(sql, params![id, bytes.len() as i64])
                .is_ok()
            {
                let sql = "INSERT INTO object_references SELECT s.id, ?1 FROM snapshots s";
                let object = catalog.last_insert_rowid();
                catalog.execute(sql, [object]).unwrap();
            }
        }
        let sha256 = sha2::Sha256::digest(&document);
        let hex: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        let manifest: Vec<u8> = catalog
            .query_row("SELECT manifest FROM artifacts", [], |row| row.get(0))
            .unwrap();
        let mut manifest: Value = serde_json::from_slice(&manifest).unwrap();
        manifest["config"]["digest"] = format!("sha256:{hex}").into();
        manifest["config"]["size"] = document.len().into();
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let sql = "UPDATE artifacts SET manifest = ?1, document = ?2";
        catalog.execute(sql, params![manifest, document]).unwrap();
        let digest = sha2::Sha256::digest(&manifest).to_vec();
        let sql = "UPDATE snapshots SET manifest_digest = ?1";
        catalog.execute(sql, [digest]).unwrap();
    }

    /// A capture with it as its parent is right.
    async fn take(&self, store: &Snapshotter, what: &str) {
        let request = all("v2", &self.base).format(Format::V2);
        let taken = store.snapshot(&request).await;
        taken.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let output = self.place.fresh();
        give(store, "v2", &output).await;
        assert_same(&self.base, &output);
    }

    async fn rebuild(self) {
        fs::remove_dir_all(self.place.root().join("metadata")).unwrap();
        let config = Config::new(self.place.root());
        Snapshotter::rebuild(&config, &RebuildRequest::new())
            .await
            .unwrap();
        let store = self.place.open().await;
        assert!(verify(&store).await.is_sound());
    }
}

/// This process's peak so far, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let kib = line.trim().strip_suffix(" kB").unwrap();
    kib.parse::<u64>().unwrap() << 10
}

fn sha256(bytes: &[u8]) -> String {
    let digest = sha2::Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The registry that hands it out: an image layout, of whose manifest everything fits, as whoever may push can make one.
struct Layout {
    place: Place,
}

impl Layout {
    async fn new(evil: &Evil) -> Self {
        let layout = Self {
            place: Place::quick(),
        };
        let base = layout
            .place
            .write("base", &Tree::new().file("memory", random(1, 50_000)));
        let store = layout.node("honest").await;
        let request = all("v1", &base).format(Format::V2);
        store.snapshot(&request).await.unwrap();
        store.close().await.unwrap();
        layout.put(evil);
        layout
    }

    async fn node(&self, root: &str) -> Snapshotter {
        let layouts = format!("oci-layout:{}", self.place.path("layouts").display());
        let config = Config::new(self.place.path(root))
            .registry(Registry::new(layouts, ""))
            .content(Content::new(ContentProvider::Registry));
        Snapshotter::open(config).await.unwrap()
    }

    fn put(&self, evil: &Evil) {
        let layout = self.place.path("layouts/test");
        let blob = |bytes: &[u8]| {
            let digest = sha256(bytes);
            fs::write(layout.join("blobs/sha256").join(&digest), bytes).unwrap();
            (format!("sha256:{digest}"), bytes.len())
        };
        let index = layout.join("index.json");
        let mut list: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
        let named = list["manifests"][0]["digest"].as_str().unwrap();
        let named = named.strip_prefix("sha256:").unwrap();
        let manifest = fs::read(layout.join("blobs/sha256").join(named)).unwrap();
        let mut manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let (packs, document) = evil.write();
        let (digest, size) = blob(&document);
        manifest["config"]["digest"] = digest.into();
        manifest["config"]["size"] = size.into();
        let model = manifest["layers"][0].clone();
        let layers = packs.iter().map(|(bytes, id)| {
            let mut layer = model.clone();
            let (digest, size) = blob(bytes);
            layer["digest"] = digest.into();
            layer["size"] = size.into();
            let id = blake3::Hash::from_bytes(*id).to_hex();
            layer["annotations"]["io.d7y.snapshotter.pack"] = format!("blake3:{id}").into();
            layer
        });
        manifest["layers"] = layers.collect::<Vec<_>>().into();
        let (digest, size) = blob(&serde_json::to_vec(&manifest).unwrap());
        list["manifests"][0]["digest"] = digest.into();
        list["manifests"][0]["size"] = size.into();
        fs::write(index, serde_json::to_vec(&list).unwrap()).unwrap();
    }
}

/// Restores it on another node, which has nothing and fetches it.
async fn run_from_layout(what: &str, expected: Result<(), &[ErrorKind]>, evil: &Evil) {
    let layout = Layout::new(evil).await;
    let store = layout.node("other").await;
    let output = layout.place.fresh();
    for _ in 0..2 {
        let restored = store.restore(&to("v1", &output)).await;
        match (&restored, expected) {
            (Ok(_), Ok(())) => {
                let length = stat(&output.join("memory")).len();
                assert_eq!(length, evil.size, "{what}");
            }
            (Err(error), Err(kinds)) => {
                let is_lacking = what == "a pack that nobody has";
                let is_said = kinds.contains(&error.kind())
                    || (is_lacking && error.kind() == ErrorKind::NotFound);
                assert!(is_said, "{what}: {error:?}");
                assert!(!output.join("memory").exists(), "{what}");
            }
            (restored, _) => panic!("{what}, from a layout: {restored:?}"),
        }
    }
    store.verify(&VerifyRequest::all()).await.unwrap();
    store.close().await.unwrap();
    let staged = files_below(&layout.place.path("other/staging"));
    assert!(staged.is_empty(), "{what}: {staged:?}");
}

/// Everything that may be done with it. `expected`: how a restore ends.
async fn run(what: &str, expected: Result<(), &[ErrorKind]>, evil: &Evil) {
    let scene = Scene::new(evil).await;
    let store = scene.place.open().await;
    let output = scene.place.fresh();
    let restored = store.restore(&to("v1", &output)).await;
    match (&restored, expected) {
        (Ok(_), Ok(())) => {
            let length = stat(&output.join("memory")).len();
            assert_eq!(length, evil.size, "{what}");
        }
        (Err(error), Err(kinds)) => {
            assert!(kinds.contains(&error.kind()), "{what}: {error:?}");
            assert!(!output.join("memory").exists(), "{what}");
        }
        (restored, _) => panic!("{what}: {restored:?}"),
    }
    drop(fs::remove_dir_all(&output));
    let is_sound = restored.is_ok();
    let report = verify(&store).await;
    assert_eq!(report.is_sound(), is_sound, "{what}: {report:?}");
    let request = VerifyRequest::all().repair(true);
    store.verify(&request).await.unwrap();
    scene.take(&store, what).await;
    let _ = store.inspect(&reference("test:v1")).await;
    let (one, other) = (reference("test:v1"), reference("test:v2"));
    let compared = store.changed_pages(&one, &other).await;
    // Which pages a pack has is not asked where none of them is named.
    let kind = compared.as_ref().map_err(snapshotter::Error::kind).err();
    let is_right = match kind {
        None => is_sound || ["more pages", "a size that ends in a page"].contains(&what),
        Some(kind) => matches!(kind, ErrorKind::Damaged | ErrorKind::Unsupported),
    };
    assert!(is_right, "{what}: {compared:?}");
    store.close().await.unwrap();
    scene.rebuild().await;
}

const DAMAGED: Result<(), &[ErrorKind]> = Err(&[ErrorKind::Damaged]);
const UNSUPPORTED: Result<(), &[ErrorKind]> = Err(&[ErrorKind::Unsupported]);

async fn all_of(cases: Vec<(&str, Result<(), &[ErrorKind]>, Evil)>) {
    let before = peak();
    for (what, expected, evil) in cases {
        run(what, expected, &evil).await;
        run_from_layout(what, expected, &evil).await;
    }
    let grown = peak() - before;
    assert!(grown < 96 << 20, "{} MiB more", grown >> 20);
}

#[tokio::test]
async fn what_is_in_order_is_restored_however_often_a_page_is_named() {
    let again: Vec<[u64; 4]> = (0..20_000).map(|at| [0, 0, 0, u64::from(at > 0)]).collect();
    all_of(vec![
        ("honest", Ok(()), Evil::new(40)),
        (
            "one page again and again",
            Ok(()),
            Evil::new(1)
                .with_map(&again)
                .with(|evil| evil.size = 20_000 * PAGE as u64),
        ),
        (
            "a page at the end of 8 TiB",
            Ok(()),
            Evil::new(1)
                .with_map(&[[(1 << 31) - 1, 0, 0, 0]])
                .with(|evil| evil.size = 1 << 43),
        ),
    ])
    .await;
}

#[tokio::test]
async fn evil_maps_are_damage() {
    let map_of = |extents: &[[u64; 4]]| Evil::new(40).with_map(extents);
    let bytes_of = |change: fn(&mut Vec<u8>)| Evil::new(40).with(|evil| change(&mut evil.map));
    let mut cases = vec![
        ("past its pack", map_of(&[[0, 39, 0, 2]])),
        ("longer than its pack", map_of(&[[0, 40, 0, 0]])),
        ("past the page space", map_of(&[[1, 39, 0, 0]])),
        (
            "past its pack, of which more is said",
            map_of(&[[0, 40, 0, 0]]).with(|evil| {
                evil.pages[0] = 41;
                evil.size = 41 * PAGE as u64;
            }),
        ),
        ("another pack", map_of(&[[0, 39, 1, 0]])),
        ("before the pack", map_of(&[[0, 38, 0, 1]])),
        ("not one", map_of(&[[0, 19, 0, 0], [0, 19, 0, 0]])),
        ("no extents", map_of(&[])),
        ("a byte follows", bytes_of(|map| map.push(0))),
        ("cut", bytes_of(|map| map.truncate(map.len() - 1))),
        ("count", bytes_of(|map| map[..4].fill(0xff))),
        ("a column's length", bytes_of(|map| map[4..8].fill(0xff))),
        (
            "a number of 70 bits",
            bytes_of(|map| {
                map.splice(8..9, [0xff; 10]);
            }),
        ),
        (
            "nothing but ones",
            bytes_of(|map| {
                map.resize(3 << 20, 0xff);
                map.fill(0xff);
            }),
        ),
        (
            "nothing but zeros",
            bytes_of(|map| {
                map.resize(3 << 20, 0);
                map.fill(0);
            }),
        ),
    ];
    for number in [u64::MAX, u64::MAX - 1, 1 << 63, 1 << 51] {
        for column in 0..4 {
            let mut extent = [0, 39, 0, 0];
            extent[column] = number;
            cases.push(("overflow", map_of(&[extent])));
            cases.push(("overflow later", map_of(&[[0, 1, 0, 0], extent])));
        }
    }
    // More packs, of which one is not used, or used before one that comes first.
    for extents in [&[[0, 39, 0, 0]][..], &[[0, 19, 2, 0], [0, 19, 1, 0]]] {
        cases.push((
            "three packs",
            map_of(extents).with(|evil| {
                for count in [41, 42] {
                    evil.packs.push(Pack::new(pages(count)));
                    evil.pages.push(count as u64);
                }
            }),
        ));
    }
    let cases = cases.into_iter().map(|(what, evil)| (what, DAMAGED, evil));
    all_of(cases.collect()).await;
}

#[tokio::test]
async fn evil_packs_are_damage() {
    let pack_of = |change: fn(&mut Pack)| Evil::new(40).with(|evil| change(&mut evil.packs[0]));
    let cases: Vec<(&str, fn(&mut Pack))> = vec![
        ("frames without end", |pack| pack.count = Some(u32::MAX)),
        ("more frames than may be", |pack| {
            pack.count = Some((1 << 20) + 1)
        }),
        ("data frames without end", |pack| pack.data = Some(u32::MAX)),
        ("fewer data frames", |pack| pack.data = Some(1)),
        ("a table past everything", |pack| {
            pack.table_at = Some(u64::MAX)
        }),
        ("a table that overlaps", |pack| pack.table_at = Some(8)),
        ("another name", |pack| pack.id = Some([7; 32])),
        ("a stored length", |pack| pack.frames[0].stored = u32::MAX),
        ("both lengths", |pack| {
            pack.frames[0].stored = u32::MAX;
            pack.frames[0].length = u32::MAX;
        }),
        ("no length", |pack| pack.frames[0].length = 0),
        ("a frame of more pages", |pack| {
            pack.frames[0].length = 17 * 4096
        }),
        ("a frame of a part of a page", |pack| {
            pack.frames[2].length = 4097
        }),
        ("a kind", |pack| pack.frames[0].kind = 7),
        ("a codec", |pack| pack.frames[0].codec = 7),
        ("a map where pages are", |pack| pack.frames[0].kind = 1),
        // 64 MiB of zeros, where 64 KiB were promised.
        ("more than was promised", |pack| {
            let much = bomb(&[], 0, 64);
            pack.frames[0] = Frame::zstd(0, much, 16 * 4096);
        }),
        ("less than was promised", |pack| {
            let less = zstd::bulk::compress(&[1; 100], 1).unwrap();
            pack.frames[0] = Frame::zstd(0, less, 16 * 4096);
        }),
        ("no size of its content", |pack| {
            pack.frames[0] = Frame::zstd(0, without_size(&[1; 16 * 4096]), 16 * 4096);
        }),
        ("two frames", |pack| {
            let half = zstd::bulk::compress(&[1; 8 * 4096], 1).unwrap();
            pack.frames[0] = Frame::zstd(0, [half.clone(), half].concat(), 16 * 4096);
        }),
        ("a frame to be skipped", |pack| {
            let skipped = [0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
            let frame = zstd::bulk::compress(&[1; 16 * 4096], 1).unwrap();
            pack.frames[0] = Frame::zstd(0, [&skipped[..], &frame].concat(), 16 * 4096);
        }),
        ("no zstd", |pack| {
            pack.frames[0] = Frame::zstd(0, vec![7; 100], 16 * 4096);
        }),
        // A window of 2 GiB, in a header that says its content's size.
        ("a window without end", |pack| {
            let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x80, 0xa8];
            frame.extend(65_536_u32.to_le_bytes());
            frame.extend([0x01, 0x00, 0x00]);
            pack.frames[0] = Frame::zstd(0, frame, 16 * 4096);
        }),
        ("a byte behind the frame", |pack| {
            pack.frames[0].bytes.push(0);
            pack.frames[0].stored += 1;
        }),
        ("a map frame that is too long", |pack| {
            pack.frames.push(Frame::of(1, &vec![0; (1 << 20) + 1]));
        }),
    ];
    let cases = cases
        .into_iter()
        .map(|(what, change)| (what, DAMAGED, pack_of(change)));
    all_of(cases.collect()).await;
}

#[tokio::test]
async fn evil_documents_are_damage() {
    let cases: Vec<(&str, fn(&mut Value))> = vec![
        ("pages without end", |json| {
            json["packs"][0]["pages"] = u64::MAX.into()
        }),
        ("more pages", |json| json["packs"][0]["pages"] = 41.into()),
        ("fewer pages", |json| json["packs"][0]["pages"] = 39.into()),
        ("no pages", |json| json["packs"][0]["pages"] = 0.into()),
        ("the map is elsewhere", |json| {
            json["map"]["frame"] = 0.into()
        }),
        ("the map is behind all", |json| {
            json["map"]["frame"] = u32::MAX.into()
        }),
        ("maps without end", |json| {
            json["map"]["frames"] = u32::MAX.into()
        }),
        ("no frame with the map", |json| {
            json["map"]["frames"] = 0.into()
        }),
        ("no map", |json| {
            drop(json.as_object_mut().unwrap().remove("map"))
        }),
        ("no packs", |json| json["packs"] = json!([])),
        ("a pack twice", |json| {
            let pack = json["packs"][0].clone();
            json["packs"].as_array_mut().unwrap().push(pack);
        }),
        ("a pack that nobody has", |json| {
            json["packs"][0]["id"] = format!("blake3:{}", "ab".repeat(32)).into();
        }),
        ("257 packs", |json| {
            let more =
                (0..256).map(|number| json!({"id": format!("blake3:{number:064x}"), "pages": 1}));
            let more: Vec<_> = more.collect();
            json["packs"].as_array_mut().unwrap().extend(more);
        }),
        ("a size without end", |json| {
            json["entries"][0]["metadata"]["size"] = u64::MAX.into();
        }),
        ("a size below nothing", |json| {
            json["entries"][0]["metadata"]["size"] = (-1).into();
        }),
        ("a size that ends in a page", |json| {
            json["entries"][0]["metadata"]["size"] = (40 * 4096 - 1).into();
        }),
        ("sizes beyond the page space", |json| {
            let mut other = json["entries"][0].clone();
            other["relativePath"] = "other".into();
            other["metadata"]["size"] = i64::MAX.into();
            json["entries"].as_array_mut().unwrap().push(other);
        }),
        ("a file of another's", |json| {
            json["entries"][0]["hardlinkOf"] = "other".into();
            let mut other = json["entries"][0].clone();
            other["relativePath"] = "other".into();
            other["hardlinkOf"] = "memory".into();
            json["entries"].as_array_mut().unwrap().push(other);
        }),
        ("a path that leads out", |json| {
            json["entries"][0]["relativePath"] = "../memory".into();
        }),
        ("the same path twice", |json| {
            let other = json["entries"][0].clone();
            json["entries"].as_array_mut().unwrap().push(other);
        }),
    ];
    let damaged = cases
        .into_iter()
        .map(|(what, change)| (what, DAMAGED, Evil::new(40).with_document(change)));
    let raw: Vec<(&str, fn(Vec<u8>) -> Vec<u8>)> = vec![
        ("no zstd", |json| json),
        ("no size of its content", |json| without_size(&json)),
        ("256 MiB of spaces", |json| bomb(&json, b' ', 256)),
        ("brackets without end", |_| {
            bomb(b"{\"format\":2,\"unknown\":", b'[', 1)
        }),
        ("a size that it has not", |json| {
            let mut frame = zstd::bulk::compress(&json, 1).unwrap();
            frame.splice(4..5 + 2, [0xe0, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0]);
            frame
        }),
        ("two of them", |json| {
            let frame = zstd::bulk::compress(&json, 1).unwrap();
            [&frame[..], &frame].concat()
        }),
    ];
    let raw = raw
        .into_iter()
        .map(|(what, raw)| (what, DAMAGED, Evil::new(40).with_raw(raw)));
    let unsupported: Vec<(&str, fn(&mut Value))> = vec![
        ("a format to come", |json| json["format"] = 3.into()),
        ("something it needs", |json| {
            json["needs"] = json!(["encryption"])
        }),
    ];
    let unsupported = unsupported
        .into_iter()
        .map(|(what, change)| (what, UNSUPPORTED, Evil::new(40).with_document(change)));
    all_of(damaged.chain(raw).chain(unsupported).collect()).await;
}

/// So many pages, in frames that are all the same one.
fn long_pack(frames: usize) -> Pack {
    Pack::new(vec![pages(16).remove(0); frames])
}

/// A pack of 64 Ki pages that is named 200,000 times, in less than a MiB: 50 TiB.
#[tokio::test]
async fn what_a_small_map_makes_of_a_pack_is_refused_before_it_is_written_where_it_does_not_fit() {
    let extents: Vec<[u64; 4]> = (0..200_000)
        .map(|at| [0, 65_535, 0, if at > 0 { 2 * 65_536 - 1 } else { 0 }])
        .collect();
    let evil = Evil::new(1).with_map(&extents).with(|evil| {
        evil.packs = vec![long_pack(4096)];
        evil.pages = vec![65_536];
        evil.size = 200_000 * (65_536 << 12);
    });
    let scene = Scene::new(&evil).await;
    let Some(small) = or_skip(TmpfsMount::new(16 << 20)) else {
        return;
    };
    let store = scene.place.open().await;
    let before = peak();
    let refused = give_fails(&store, "v1", &small.path().join("output")).await;
    assert_eq!(refused.kind(), ErrorKind::NoSpace, "{refused:?}");
    assert_eq!(
        files_below(&small.path().join("output")),
        [] as [PathBuf; 0]
    );
    let grown = peak() - before;
    assert!(grown < 96 << 20, "{} MiB more", grown >> 20);
}

/// Pages without end are read for as long as somebody waits for it: that was asked between two files alone.
#[tokio::test(flavor = "multi_thread")]
async fn who_gives_up_is_not_kept_by_pages_without_end() {
    let extents: Vec<[u64; 4]> = (0..50_000)
        .map(|at| [0, 65_535, 0, if at > 0 { 2 * 65_536 - 1 } else { 0 }])
        .collect();
    let evil = Evil::new(1).with_map(&extents).with(|evil| {
        evil.packs = vec![long_pack(4096)];
        evil.pages = vec![65_536];
        evil.size = 50_000 * (65_536 << 12);
    });
    for verb in ["verify", "snapshot"] {
        let scene = Scene::new(&evil).await;
        let store = scene.place.open().await;
        let request = all("v2", &scene.base).format(Format::V2);
        let call = async {
            match verb {
                "verify" => drop(store.verify(&VerifyRequest::all()).await),
                _ => drop(store.snapshot(&request).await),
            }
        };
        let patience = std::time::Duration::from_secs(2);
        let ended = tokio::time::timeout(patience, call).await;
        assert!(ended.is_err(), "{verb} has ended");
        // It waits for what runs.
        store.close().await.unwrap();
    }
}

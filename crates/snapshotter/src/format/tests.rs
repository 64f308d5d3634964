//! The golden vectors of format v2: what a release wrote, every later one reads, and writes alike wherever no compressor has a
//! say. `testdata/golden-v2/read.py`, which was written from the page alone, has to make the same files of them.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::artifact::paged::{Facts, PackLayer, PagedManifest};
use super::content::{ContentHasher, ContentId, PageDigest, has_clean_tail, page_digest};
use super::document::paged::{MapPlace, PackEntry, PagedDocument, PagedFile};
use super::document::{DirectoryEntry, Document, SymlinkEntry, WhiteoutEntry};
use super::map::{Decoder, Extent, Map};
use super::pack::{
    Compression, FOOTER_BYTES, Footer, FrameDecoder, FrameEncoder, FramePages, Layout, Writer,
};
use crate::words::digest::Sha256;
use crate::words::entry::{Attributes, Mtime};
use crate::words::page::{PAGE_BYTES, bytes_in_page, pages};
use crate::words::relpath::RelPath;

fn vectors() -> PathBuf {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../testdata/golden-v2"
    ))
    .to_owned()
}

fn path(bytes: &[u8]) -> RelPath {
    RelPath::from_bytes(bytes).unwrap()
}

/// Bytes that do not compress, the same for the same seed.
fn random(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut stream = blake3::Hasher::new();
    stream.update(&seed.to_le_bytes());
    stream.finalize_xof().fill(&mut bytes);
    bytes
}

/// Bytes that do.
fn text(seed: u64, length: usize) -> Vec<u8> {
    let lines = (0..).flat_map(|at: u64| format!("{seed} {}\n", at * at % 977).into_bytes());
    lines.take(length).collect()
}

/// `size` bytes of zeros, but for these pieces.
fn sparse(size: usize, pieces: &[(usize, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![0; size];
    for (at, piece) in pieces {
        bytes[*at..at + piece.len()].copy_from_slice(piece);
    }
    bytes
}

/// What a vector is of.
#[derive(Default)]
struct Input {
    name: &'static str,
    files: Vec<(PagedFile, Vec<u8>)>,
    others: Document<Option<ContentId>>,
    /// Where the map is cut.
    cuts: &'static [usize],
}

fn attributes(mode: u32) -> Attributes {
    Attributes {
        mode,
        uid: 1000,
        gid: 100,
        mtime: Mtime {
            seconds: 1_700_000_000,
            nanoseconds: 5_000_000,
        },
        ..Attributes::default()
    }
}

impl Input {
    fn file(mut self, name: &[u8], bytes: Vec<u8>) -> Self {
        let entry = PagedFile {
            path: path(name),
            content: None,
            read_only: false,
            size: bytes.len() as u64,
            attributes: attributes(0o644),
            hardlink_of: None,
        };
        self.files.push((entry, bytes));
        self
    }

    /// Changes the last file.
    fn with(mut self, change: impl FnOnce(&mut PagedFile)) -> Self {
        change(&mut self.files.last_mut().unwrap().0);
        self
    }

    /// A second name of the last file.
    fn link(mut self, name: &[u8]) -> Self {
        let (first, bytes) = self.files.last().cloned().unwrap();
        let entry = PagedFile {
            path: path(name),
            hardlink_of: Some(first.path.clone()),
            ..first
        };
        self.files.push((entry, bytes));
        self
    }
}

fn empty() -> Input {
    Input {
        name: "empty",
        ..Input::default()
    }
}

/// Only holes: there is nothing to map.
fn holes() -> Input {
    Input {
        name: "holes",
        ..Input::default()
    }
    .file(b"nothing", Vec::new())
    .file(b"zeros", vec![0; 10_000])
}

fn base() -> Input {
    let xattrs = [
        ("user.empty".to_owned(), Vec::new()),
        ("user.note".to_owned(), b"\xff<&>".to_vec()),
    ];
    let others = Document {
        files: Vec::new(),
        directories: vec![DirectoryEntry {
            path: path(b"bin"),
            attributes: attributes(0o755),
        }],
        symlinks: vec![SymlinkEntry {
            path: path(b"link"),
            target: b"bin/\xfe".to_vec(),
            attributes: attributes(0o777),
        }],
        whiteouts: vec![WhiteoutEntry {
            path: path(b"gone"),
            attributes: attributes(0),
        }],
    };
    let disk = [
        (0, text(1, 9 * PAGE_BYTES)),
        (PAGE_BYTES * 300, random(2, 3 * PAGE_BYTES)),
        // Zeros that were written, between data: they are not kept.
        (PAGE_BYTES * 304, text(3, PAGE_BYTES)),
        (PAGE_BYTES * 2000, b"the tail".to_vec()),
    ];
    Input {
        name: "base",
        others,
        cuts: &[],
        ..Input::default()
    }
    .file(b"bin/tool", text(4, 40 * PAGE_BYTES + 77))
    .with(|file| file.read_only = true)
    .with(|file| file.attributes.xattrs = xattrs.into())
    .link(b"bin/tool-again")
    .file(b"disk.img", sparse(PAGE_BYTES * 2000 + 8, &disk))
    .file(b"empty", Vec::new())
    .file(b"hole", vec![0; 5000])
    .file(b"name-\xff", b"x".to_vec())
    .file(b"random", random(5, 36 * PAGE_BYTES))
    .file("r\u{e9}sum\u{e9} <&>\u{2028}".as_bytes(), text(6, 100))
}

/// Some pages later: changed, moved, twice, and gone.
fn next() -> Input {
    let before = base();
    let bytes = |name: &[u8]| {
        let found = before
            .files
            .iter()
            .find(|(file, _)| file.path.as_bytes() == name);
        found.unwrap().1.clone()
    };
    let tool = bytes(b"bin/tool");
    let mut disk = bytes(b"disk.img");
    disk[..PAGE_BYTES].fill(0);
    disk[PAGE_BYTES * 50..PAGE_BYTES * 58].copy_from_slice(&tool[PAGE_BYTES * 8..PAGE_BYTES * 16]);
    for at in (100..140).step_by(2) {
        let piece = if at % 4 == 0 {
            text(at as u64, 50)
        } else {
            tool[..PAGE_BYTES].to_vec()
        };
        disk[PAGE_BYTES * at..][..piece.len()].copy_from_slice(&piece);
    }
    let mut random_again = bytes(b"random");
    random_again.truncate(7 * PAGE_BYTES + 1);
    random_again[7 * PAGE_BYTES] = 9;
    Input {
        name: "next",
        cuts: &[1, 30, 31, 100],
        ..Input::default()
    }
    .file(b"disk.img", disk)
    .file(b"random", random_again)
    .file(b"tool-moved", tool)
}

/// A file with nothing that was not there before: a pack with a map alone.
fn moved() -> Input {
    let (_, bytes) = next().files.remove(1);
    Input {
        name: "moved",
        ..Input::default()
    }
    .file(b"only", bytes)
}

/// A pack and its bytes.
struct Pack {
    layout: Layout,
    bytes: Vec<u8>,
}

/// What was taken so far: packs and where pages are in them.
#[derive(Default)]
struct Taken {
    packs: Vec<Pack>,
    pages: HashMap<PageDigest, (u32, u64)>,
}

fn padded(bytes: &[u8], index: u64) -> [u8; PAGE_BYTES] {
    let start = index as usize * PAGE_BYTES;
    let own = bytes_in_page(bytes.len() as u64, index);
    let mut page = [0; PAGE_BYTES];
    page[..own].copy_from_slice(&bytes[start..start + own]);
    page
}

/// Pages with their places in a file.
fn file_pages(bytes: &[u8]) -> impl Iterator<Item = (u64, [u8; PAGE_BYTES])> + '_ {
    (0..pages(bytes.len() as u64)).map(|index| (index, padded(bytes, index)))
}

fn content_of(bytes: &[u8]) -> ContentId {
    let mut hasher = ContentHasher::new(bytes.len() as u64);
    for (index, page) in file_pages(bytes) {
        if let Some(digest) = page_digest(&page) {
            hasher.page(index, &digest);
        }
    }
    hasher.finish()
}

/// The way of packs from pages: few enough in each that there are several.
fn capture(taken: &mut Taken, input: &Input, frame_pages: FramePages) -> PagedDocument {
    const CUT: usize = 48;
    let (mut map, mut start) = (Map::default(), 0);
    let mut fresh: Vec<Vec<u8>> = Vec::new();
    let known = taken.packs.len() as u32;
    for (file, bytes) in input
        .files
        .iter()
        .filter(|(file, _)| file.hardlink_of.is_none())
    {
        for (index, page) in file_pages(bytes) {
            let Some(digest) = page_digest(&page) else {
                continue;
            };
            let next = (
                known + (fresh.len() / CUT) as u32,
                (fresh.len() % CUT) as u64,
            );
            let (pack, at) = *taken.pages.entry(digest).or_insert_with(|| {
                fresh.push(page.to_vec());
                next
            });
            let extent = Extent {
                start: start + index,
                pages: 1,
                pack,
                page: at,
            };
            map.push(extent).unwrap();
        }
        start += pages(file.size);
    }
    let packs = fresh.chunks(CUT).count().max(usize::from(!map.is_empty()));
    let (map, order) = map.in_order((known as usize + packs).saturating_sub(1) as u32);
    let place = write_packs(taken, &fresh, packs, CUT, &map, input.cuts, frame_pages);
    let mut entries = input.others.clone();
    entries.files = input
        .files
        .iter()
        .map(|(file, bytes)| PagedFile {
            // One of them was captured where not all of its pages were.
            content: (file.path.as_bytes() != b"tool-moved").then(|| content_of(bytes)),
            ..file.clone()
        })
        .collect();
    let named = |number: &u32| {
        let layout = &taken.packs[*number as usize].layout;
        PackEntry {
            id: layout.id(),
            pages: layout.pages(),
        }
    };
    PagedDocument {
        packs: place.map_or(Vec::new(), |_| order.iter().map(named).collect()),
        map: place,
        entries,
    }
}

fn write_packs(
    taken: &mut Taken,
    fresh: &[Vec<u8>],
    packs: usize,
    cut: usize,
    map: &Map,
    cuts: &[usize],
    frame_pages: FramePages,
) -> Option<MapPlace> {
    let mut place = None;
    let mut encoder = FrameEncoder::new(Compression::Zstd(1)).unwrap();
    for number in 0..packs {
        let mut writer = Writer::new(Vec::new(), frame_pages).unwrap();
        let own = fresh.chunks(cut).nth(number).unwrap_or_default();
        for frame in own.concat().chunks(frame_pages.bytes()) {
            writer
                .push_data(&encoder.encode(frame.to_vec()).unwrap())
                .unwrap();
        }
        let frame = own.len().div_ceil(frame_pages.count() as usize) as u32;
        if number + 1 == packs {
            let mut bytes = Vec::new();
            map.write(&mut bytes).unwrap();
            let bounds = [&[0], cuts, &[bytes.len()]].concat();
            for bounds in bounds.windows(2) {
                let part = bytes[bounds[0]..bounds[1]].to_vec();
                writer.push_map(&encoder.encode(part).unwrap()).unwrap();
            }
            let frames = bounds.len() as u32 - 1;
            place = Some(MapPlace { frame, frames });
        }
        let (bytes, layout) = writer.finish().unwrap();
        taken.packs.push(Pack { layout, bytes });
    }
    place
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a vector, and says of it what a reader should find.
fn write_vector(
    dir: &Path,
    taken: &Taken,
    input: &Input,
    document: &PagedDocument,
) -> serde_json::Value {
    let bytes = document.encode().unwrap();
    let name = input.name;
    let facts = Facts {
        created: Some(attributes(0).mtime),
        files: Some(input.files.len() as u64),
        bytes: Some(input.files.iter().map(|(file, _)| file.size).sum()),
        parent: None,
    };
    let annotations = facts.annotations(&BTreeMap::from([("note".to_owned(), name.to_owned())]));
    let layers: Vec<_> = document
        .packs
        .iter()
        .map(|entry| {
            let pack = taken
                .packs
                .iter()
                .find(|pack| pack.layout.id() == entry.id)
                .unwrap();
            fs::write(dir.join("packs").join(entry.id.hex()), &pack.bytes).unwrap();
            PackLayer {
                sha256: Sha256::of(&pack.bytes),
                size: pack.bytes.len() as u64,
                id: entry.id,
            }
        })
        .collect();
    let config = (Sha256::of(&bytes), bytes.len() as u64);
    let manifest = PagedManifest::build(config, &layers, &annotations.unwrap()).unwrap();
    fs::write(dir.join(format!("{name}.manifest.json")), &manifest).unwrap();
    fs::write(dir.join(format!("{name}.document.json.zst")), &bytes).unwrap();
    let files = input.files.iter().map(|(file, bytes)| {
        json!({
            "path": hex(file.path.as_bytes()),
            "size": file.size,
            "sha256": Sha256::of(bytes).hex(),
            "content": content_of(bytes).to_string(),
        })
    });
    json!({
        "name": name,
        "manifest_sha256": Sha256::of(&manifest).to_string(),
        "packs": document.packs.iter().map(|pack| pack.id.to_string()).collect::<Vec<_>>(),
        "files": files.collect::<Vec<_>>(),
    })
}

fn inputs() -> [Input; 5] {
    [empty(), holes(), base(), next(), moved()]
}

#[test]
#[ignore = "makes the vectors, which was done once: they are what was written, not what is written now"]
fn make_golden_vectors() {
    let dir = vectors();
    assert!(!dir.join("index.json").exists(), "they are there");
    fs::create_dir_all(dir.join("packs")).unwrap();
    let mut taken = Taken::default();
    let snapshots: Vec<_> = inputs()
        .iter()
        .map(|input| {
            // The second generation is made to be read a page here and a page there.
            let few = input.name == "next";
            let frame_pages = if few {
                FramePages::Four
            } else {
                FramePages::Sixteen
            };
            let document = capture(&mut taken, input, frame_pages);
            write_vector(&dir, &taken, input, &document)
        })
        .collect();
    let index = serde_json::to_string_pretty(&json!({ "snapshots": snapshots })).unwrap();
    fs::write(dir.join("index.json"), index + "\n").unwrap();
}

/// A vector as it is read.
struct Found {
    document: PagedDocument,
    json: Vec<u8>,
    manifest: (Vec<u8>, PagedManifest),
    packs: Vec<Pack>,
    map: Map,
    map_bytes: Vec<u8>,
}

fn read_pack(bytes: Vec<u8>) -> Pack {
    Layout::check_start(bytes.first_chunk().unwrap()).unwrap();
    let last: &[u8; FOOTER_BYTES] = bytes.last_chunk().unwrap();
    let footer = Footer::parse(last, bytes.len() as u64).unwrap();
    let table = footer.table();
    let table = bytes[table.start as usize..table.end as usize].to_vec();
    let layout = Layout::parse(footer, &table).unwrap();
    Pack { layout, bytes }
}

impl Pack {
    fn frame(&self, number: usize) -> Vec<u8> {
        let frame = self.layout.frames()[number];
        let range = frame.range();
        let stored = &self.bytes[range.start as usize..range.end as usize];
        FrameDecoder::new()
            .unwrap()
            .decode(&frame, stored)
            .unwrap()
            .to_vec()
    }
}

impl Found {
    fn read(name: &str) -> Self {
        let dir = vectors();
        let file = |name: String| fs::read(dir.join(name)).unwrap();
        let manifest_bytes = file(format!("{name}.manifest.json"));
        let manifest = PagedManifest::parse(&manifest_bytes).unwrap();
        let bytes = file(format!("{name}.document.json.zst"));
        assert_eq!(Sha256::of(&bytes), manifest.config);
        let document = PagedDocument::parse(&bytes).unwrap();
        let packs: Vec<_> = document
            .packs
            .iter()
            .map(|entry| read_pack(file(format!("packs/{}", entry.id.hex()))))
            .collect();
        let layouts: Vec<_> = packs.iter().map(|pack| pack.layout.clone()).collect();
        let length = document.check_packs(&layouts).unwrap();
        let pages: Vec<_> = document.packs.iter().map(|entry| entry.pages).collect();
        let mut map_bytes = Vec::new();
        let mut map = Map::default();
        if let Some(place) = document.map {
            let mut decoder = Decoder::new(length, document.page_space(), &pages);
            for number in place.frame..place.frame + place.frames {
                let part = packs[0].frame(number as usize);
                decoder.push(&part).unwrap();
                map_bytes.extend(part);
            }
            map = decoder.finish().unwrap();
        }
        Self {
            json: ::zstd::bulk::decompress(&bytes, 1 << 20).unwrap(),
            document,
            manifest: (manifest_bytes, manifest),
            packs,
            map,
            map_bytes,
        }
    }

    fn page(&self, page: u64) -> [u8; PAGE_BYTES] {
        let Some((pack, page)) = self.map.at(page) else {
            return [0; PAGE_BYTES];
        };
        let pack = &self.packs[pack as usize];
        let in_frame = u64::from(pack.layout.frame_pages().count());
        let frame = pack.frame((page / in_frame) as usize);
        let (all, _) = frame.as_chunks::<PAGE_BYTES>();
        all[(page % in_frame) as usize]
    }

    /// The bytes of each file with pages of its own.
    fn files(&self) -> BTreeMap<RelPath, Vec<u8>> {
        let files = self.document.places().map(|(file, places)| {
            let mut bytes = Vec::new();
            for (index, page) in (0..).zip(places) {
                let page = self.page(page);
                assert!(has_clean_tail(&page, file.size, index));
                bytes.extend(&page[..bytes_in_page(file.size, index)]);
            }
            (file.path.clone(), bytes)
        });
        files.collect()
    }
}

#[test]
fn golden_vectors_of_format_v2_are_read() {
    for input in inputs() {
        let found = Found::read(input.name);
        let files = found.files();
        assert_eq!(found.document.entries.files.len(), input.files.len());
        for (entry, (file, bytes)) in found.document.entries.files.iter().zip(&input.files) {
            let own = entry.hardlink_of.as_ref().unwrap_or(&entry.path);
            assert!(files[own] == *bytes, "{}", entry.path);
            let content = (file.path.as_bytes() != b"tool-moved").then(|| content_of(bytes));
            let expected = PagedFile {
                content,
                ..file.clone()
            };
            assert_eq!(*entry, expected);
        }
        let others = Document {
            files: Vec::new(),
            ..found.document.entries.clone()
        };
        assert_eq!(others, input.others);
        let facts = Facts::of(&found.manifest.1.annotations);
        assert_eq!(facts.files, Some(input.files.len() as u64));
    }
}

#[test]
fn golden_vectors_of_format_v2_are_written_again() {
    for input in inputs() {
        let found = Found::read(input.name);
        let mut bytes = Vec::new();
        found.map.write(&mut bytes).unwrap();
        assert_eq!(bytes, found.map_bytes, "{}", input.name);
        let again = PagedDocument::parse(&found.document.encode().unwrap()).unwrap();
        assert_eq!(again, found.document);
        let again = ::zstd::bulk::decompress(&found.document.encode().unwrap(), 1 << 20).unwrap();
        assert!(again == found.json, "{}", input.name);
        let (bytes, manifest) = &found.manifest;
        let config = (manifest.config, manifest.config_size);
        let again = PagedManifest::build(config, &manifest.packs, &manifest.annotations).unwrap();
        assert!(again == *bytes, "{}", input.name);
        for pack in &found.packs {
            assert!(pack.bytes.ends_with(&pack.layout.tail()));
        }
    }
}

#[test]
fn golden_vectors_of_format_v2_have_all_that_there_is() {
    let found = inputs().map(|input| Found::read(input.name));
    let [empty, holes, base, next, moved] = &found;
    assert!(empty.packs.is_empty() && holes.packs.is_empty() && holes.document.page_space() > 0);
    assert_eq!(
        (base.packs.len(), next.packs.len(), moved.packs.len()),
        (2, 3, 3)
    );
    assert_eq!(moved.packs[0].layout.pages(), 0);
    assert_eq!(next.packs[0].layout.frame_pages(), FramePages::Four);
    assert!(next.packs[0].layout.map_frames().len() > 1);
    let frames = found
        .iter()
        .flat_map(|found| &found.packs)
        .flat_map(|pack| pack.layout.frames());
    let codecs: std::collections::HashSet<_> = frames
        .map(|frame| format!("{:?} {:?}", frame.kind, frame.codec))
        .collect();
    assert_eq!(codecs.len(), 4, "{codecs:?}");
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

#[test]
fn a_reader_written_from_the_page_makes_the_same_files() {
    if !is_there("python3") || !is_there("zstd") {
        testkit::skip!("python3 or zstd is not installed");
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("python3");
    command.arg(vectors().join("read.py")).arg(vectors());
    let output = command.arg(dir.path()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    for input in inputs() {
        for (file, bytes) in &input.files {
            let name = OsStr::from_bytes(file.path.as_bytes());
            let made = fs::read(dir.path().join(input.name).join(name)).unwrap();
            assert!(made == *bytes, "{} {}", input.name, file.path);
        }
    }
}

//! The golden vectors that the Go library made: the inputs written again, the index of what it
//! made of them, the artifacts themselves. `testdata/golden/README.md` describes them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::tree::{Content, Node, Tree};

/// Where the golden files are.
pub const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/golden");

/// The index itself.
pub const INDEX: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../testdata/golden/index.json"
);

/// Two files that differ and have one XXH3-64 digest.
pub const COLLISION: [&str; 2] = [
    concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../testdata/golden/collision/a.bin"
    ),
    concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../testdata/golden/collision/b.bin"
    ),
];

const BLOCK: u64 = 4096;
const MODES: [u32; 4] = [0o644, 0o600, 0o755, 0o444];
const TIMES: [(i64, u32); 6] = [
    (1_700_000_000, 0),
    (1_700_000_001, 500_000_000),
    (1_700_000_002, 123_456_789),
    (1_700_000_003, 1000),
    (1, 0),
    (-86_400, 250_000_000),
];
const ODD_NAMES: [&str; 5] = [
    "a&b<c>.txt",
    "quote\"back\\slash.txt",
    "accent-é-日本.txt",
    "ls-\u{2028}.txt",
    "tab\tname.txt",
];

/// What the Go library made.
#[derive(Debug, Clone, Deserialize)]
pub struct Index {
    /// The files it was given.
    pub inputs: Vec<Input>,
    /// The snapshots it took of them.
    pub snapshots: Vec<Snapshot>,
}

impl Index {
    /// The input of this name.
    ///
    /// # Panics
    /// If there is none.
    pub fn input(&self, name: &str) -> &Input {
        self.inputs
            .iter()
            .find(|input| input.name == name)
            .unwrap_or_else(|| panic!("no input {name:?}"))
    }
}

/// One file, and its encoding.
#[derive(Debug, Clone, Deserialize)]
pub struct Input {
    /// Path relative to the inputs' directory.
    pub name: String,
    /// Size with the holes.
    pub logical_size: u64,
    /// Offset and length of each run of data.
    pub extents: Vec<(u64, u64)>,
    /// How many those are.
    pub extent_count: u64,
    spf1_file: Option<String>,
    spf1_hex: Option<String>,
    /// Size of the SPF1 encoding.
    pub spf1_size: u64,
    /// SHA-256 of the SPF1 encoding, in hex.
    pub spf1_sha256: String,
    /// SHA-256 of the file's bytes, holes as zeros, in hex.
    pub input_sha256: String,
    /// `xxh3:` and the hash of the SPF1 encoding.
    pub digest: String,
    /// The name under `storage/content/xxh3/`.
    pub store_filename: String,
    /// Where the blob was published.
    pub object_url: String,
    /// Permission bits.
    pub mode: u32,
    /// Nanoseconds since 1970, negative before.
    pub mtime_ns: i64,
}

impl Input {
    /// The SPF1 encoding.
    ///
    /// # Panics
    /// If its file can't be read or it is in no file and no index.
    pub fn spf1(&self) -> Vec<u8> {
        match (&self.spf1_file, &self.spf1_hex) {
            (Some(path), _) => read(path),
            (None, Some(hex)) => from_hex(hex),
            (None, None) => panic!("{}: no SPF1 encoding", self.name),
        }
    }
}

/// One snapshot: the artifact's bytes and where its blobs went.
#[derive(Debug, Clone, Deserialize)]
pub struct Snapshot {
    /// `<namespace>/<name>`.
    pub repository: String,
    /// The version.
    pub tag: String,
    /// How it was taken.
    pub note: String,
    manifest_file: String,
    /// `sha256:` and hex.
    pub manifest_sha256: String,
    /// Bytes.
    pub manifest_size: u64,
    config_file: String,
    /// `sha256:` and hex.
    pub config_sha256: String,
    /// Bytes.
    pub config_size: u64,
    /// The manifest's media type.
    pub content_type: String,
    /// Digest and URL of each blob.
    pub objects: Vec<(String, String)>,
}

impl Snapshot {
    /// The manifest's bytes.
    ///
    /// # Panics
    /// If they can't be read.
    pub fn manifest(&self) -> Vec<u8> {
        read(&self.manifest_file)
    }

    /// The bytes of the config blob: the document.
    ///
    /// # Panics
    /// If they can't be read.
    pub fn config(&self) -> Vec<u8> {
        read(&self.config_file)
    }
}

/// What the Go library made of the inputs.
///
/// # Panics
/// If the index can't be read.
pub fn index() -> Index {
    serde_json::from_slice(&read("index.json")).expect("the golden index is JSON of this shape")
}

/// Writes every input into `dir`, holes, modes and times included, and has it reach the disk.
///
/// # Errors
/// If the filesystem refuses.
pub fn write_inputs(dir: &Path) -> io::Result<()> {
    let tree = inputs();
    tree.write_to(dir)?;
    for (path, _) in tree
        .nodes()
        .filter(|(_, node)| matches!(node, Node::File(_)))
    {
        File::open(dir.join(path))?.sync_all()?;
    }
    Ok(())
}

/// The inputs as plain data.
pub fn inputs() -> Tree {
    let mut table = table();
    table.sort_by_key(|(name, _)| *name);
    let mut tree = Tree::new();
    for (number, (name, content)) in table.into_iter().enumerate() {
        tree = with_attributes(tree.file(name, content), Path::new(name), number);
    }
    for (number, name) in ODD_NAMES.iter().enumerate() {
        let path = PathBuf::from("sub dir").join(name);
        let text = format!("name test {number}\n");
        tree = with_attributes(tree.file(&path, text.as_str()), &path, number);
    }
    tree
}

fn with_attributes(tree: Tree, path: &Path, number: usize) -> Tree {
    let (seconds, nanos) = TIMES[number % TIMES.len()];
    tree.mode(path, MODES[number % MODES.len()])
        .mtime(path, seconds, nanos)
}

fn table() -> Vec<(&'static str, Content)> {
    let sparse = |size, pieces: Vec<(u64, Vec<u8>)>| Content::Pieces { size, pieces };
    let mib = 1 << 20;
    let many = |i: u64| (i * 3 * BLOCK, stream(&format!("many{i}"), BLOCK as usize));
    vec![
        ("empty.bin", "".into()),
        ("one_byte.bin", "A".into()),
        ("b5000.bin", stream("b5000", 5000).into()),
        ("b4096.bin", stream("b4096", 4096).into()),
        ("all_hole_1m.bin", sparse(mib, vec![])),
        (
            "data_hole_data.bin",
            sparse(
                mib,
                vec![
                    (0, stream("dhd0", 4096)),
                    (mib - 8192, stream("dhd1", 8192)),
                ],
            ),
        ),
        (
            "leading_hole.bin",
            sparse(65536 + 8192, vec![(65536, stream("lead", 8192))]),
        ),
        (
            "trailing_hole.bin",
            sparse(65536 + 123, vec![(0, stream("trail", 8192))]),
        ),
        (
            "many_extents.bin",
            sparse(64 * 3 * BLOCK, (0..64).map(many).collect()),
        ),
        ("written_zeros.bin", vec![0; 8192].into()),
        (
            "unaligned_write.bin",
            sparse(20000, vec![(5000, b"0123456789".into())]),
        ),
        (
            "partial_tail.bin",
            sparse(mib + 100, vec![(mib, stream("tail", 100))]),
        ),
        ("zero_nibble1.txt", "zero nibble seed 5\n".into()),
        ("zero_nibble2.txt", "zero nibble seed 315\n".into()),
    ]
}

/// SHA-256 of `seed` and a big-endian counter, block after block.
fn stream(seed: &str, len: usize) -> Vec<u8> {
    let block = |counter: u64| {
        Sha256::new()
            .chain_update(seed)
            .chain_update(counter.to_be_bytes())
            .finalize()
    };
    (0..).flat_map(block).take(len).collect()
}

fn read(path: &str) -> Vec<u8> {
    let path = Path::new(DIR).join(path);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().as_chunks::<2>().0;
    let byte =
        |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).expect("hex"), 16).expect("hex");
    digits.iter().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{extents, fsstat};
    use std::os::unix::fs::MetadataExt;

    fn sha256(bytes: &[u8]) -> String {
        Sha256::digest(bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    fn written() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        write_inputs(dir.path()).unwrap();
        dir
    }

    #[test]
    fn the_inputs_are_those_of_the_index() {
        let dir = written();
        let index = index();
        assert_eq!(index.inputs.len(), 19);
        for input in &index.inputs {
            let path = dir.path().join(&input.name);
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!(metadata.len(), input.logical_size, "{}", input.name);
            assert_eq!(metadata.mode() & 0o7777, input.mode, "{}", input.name);
            assert_eq!(
                metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
                input.mtime_ns,
                "{}",
                input.name
            );
            assert_eq!(
                sha256(&fs::read(&path).unwrap()),
                input.input_sha256,
                "{}",
                input.name
            );
        }
    }

    #[test]
    fn the_extents_are_those_of_the_index() {
        let dir = written();
        if fsstat::block_size(dir.path()).unwrap() != BLOCK {
            crate::skip!("the filesystem's blocks aren't 4 KiB");
        }
        for input in index().inputs {
            let found = extents::of_path(&dir.path().join(&input.name)).unwrap();
            assert_eq!(found, input.extents, "{}", input.name);
            assert_eq!(found.len() as u64, input.extent_count);
        }
    }

    #[test]
    fn the_artifacts_are_those_of_the_index() {
        let index = index();
        for input in &index.inputs {
            assert_eq!(input.spf1().len() as u64, input.spf1_size);
            assert_eq!(sha256(&input.spf1()), input.spf1_sha256, "{}", input.name);
        }
        for snapshot in &index.snapshots {
            assert_eq!(
                format!("sha256:{}", sha256(&snapshot.manifest())),
                snapshot.manifest_sha256
            );
            assert_eq!(
                format!("sha256:{}", sha256(&snapshot.config())),
                snapshot.config_sha256
            );
        }
        assert_eq!(index.input("one_byte.bin").logical_size, 1);
    }

    #[test]
    fn the_colliding_files_differ() {
        let [a, b] = COLLISION.map(|path| fs::read(path).unwrap());
        assert!(a != b && a.len() == b.len());
    }
}

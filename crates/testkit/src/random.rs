//! Trees that nobody would think of: every kind of path under odd names, the same for one seed.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::prng::{Prng, random_bytes};
use crate::tree::{Content, Tree};

const PAGE: u64 = 4096;

/// `#` stands for a number, which makes a name the only one of its kind.
const NAMES: &[&[u8]] = &[
    b"plain-#",
    b"with space #",
    b"new\nline #",
    b"\xff\xfe#",
    "日本-é-#".as_bytes(),
    "e\u{301}-#".as_bytes(),
    b"-#",
    b" lead #",
    b"trail # ",
    b"#..",
    b".hidden #",
    b"tab\t#",
    b"quote\"#\\",
    b"a&b<c>#",
    "ls\u{2028}#".as_bytes(),
    b"*?[#]",
    b"caf\xe9 #",
    b"\x01\x7f#",
];

const FILE_MODES: &[u32] = &[0o644, 0o400, 0o600, 0o755, 0o444, 0o640, 0o777, 0o555];
const DIR_MODES: &[u32] = &[0o755, 0o555, 0o700, 0o750, 0o500, 0o777];

/// Seconds and nanoseconds: before 1970, at the edges of a second, and past 2038.
const MTIMES: &[(i64, u32)] = &[
    (1_700_000_002, 123_456_789),
    (-86_400, 250_000_000),
    (0, 0),
    (-1, 999_999_999),
    (1_700_000_001, 500_000_000),
    (2_000_000_000, 1),
    (-2_000_000_000, 1_000),
    (1, 0),
];

#[derive(Debug, Clone, Copy)]
enum Kind {
    Plain,
    Empty,
    Directory,
    Sparse,
    AllHole,
    HardLink,
    Dangling,
    EmptyDirectory,
    Absolute,
    Zeros,
    Climbing,
    Sibling,
    Fifo,
}

const KINDS: &[Kind] = &[
    Kind::Plain,
    Kind::Empty,
    Kind::Directory,
    Kind::Sparse,
    Kind::AllHole,
    Kind::HardLink,
    Kind::Dangling,
    Kind::EmptyDirectory,
    Kind::Absolute,
    Kind::Zeros,
    Kind::Climbing,
    Kind::Sibling,
    Kind::Fifo,
];

/// What a random tree may hold. The default has all that a snapshot is to keep for anyone: no
/// fifos, and no owners, which take root.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Named pipes.
    pub fifos: bool,
    /// Names and link targets that aren't UTF-8.
    pub non_utf8: bool,
    /// Symlinks.
    pub symlinks: bool,
    /// Second names of files.
    pub hardlinks: bool,
    /// Directories that hold nothing. Those that hold something are always there.
    pub empty_dirs: bool,
    /// `user.*` attributes, which not every tmpfs has.
    pub xattrs: bool,
    /// Owners and groups other than the writer's: writing them takes root.
    pub owners: bool,
    /// No file is larger than this, holes included.
    pub max_size: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            fifos: false,
            non_utf8: true,
            symlinks: true,
            hardlinks: true,
            empty_dirs: true,
            xattrs: true,
            owners: false,
            max_size: 1 << 20,
        }
    }
}

impl Shape {
    fn allows(&self, kind: Kind) -> bool {
        match kind {
            Kind::Dangling | Kind::Absolute | Kind::Climbing | Kind::Sibling => self.symlinks,
            Kind::HardLink => self.hardlinks,
            Kind::EmptyDirectory => self.empty_dirs,
            Kind::Fifo => self.fifos,
            Kind::Plain
            | Kind::Empty
            | Kind::Directory
            | Kind::Sparse
            | Kind::AllHole
            | Kind::Zeros => true,
        }
    }
}

impl Tree {
    /// A tree of `n` paths with all that [`Shape::default`] allows; from about 20 paths on, each
    /// kind is in it.
    pub fn random(seed: u64, n: usize) -> Self {
        Self::random_with(seed, n, &Shape::default())
    }

    /// A tree of `n` paths with what `shape` allows.
    pub fn random_with(seed: u64, n: usize, shape: &Shape) -> Self {
        let mut growth = Growth::new(seed, shape);
        let kinds: Vec<Kind> = KINDS
            .iter()
            .copied()
            .filter(|kind| shape.allows(*kind))
            .collect();
        for number in 0..n {
            let kind = kinds
                .get(number)
                .copied()
                .unwrap_or_else(|| *growth.stream.pick(&kinds));
            growth.add(number, kind);
        }
        growth.tree
    }
}

/// A tree while it grows.
struct Growth<'a> {
    stream: Prng,
    shape: &'a Shape,
    names: Vec<&'static [u8]>,
    tree: Tree,
    dirs: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl<'a> Growth<'a> {
    fn new(seed: u64, shape: &'a Shape) -> Self {
        let allowed = |name: &&[u8]| shape.non_utf8 || str::from_utf8(name).is_ok();
        Self {
            stream: Prng::new(seed),
            shape,
            names: NAMES.iter().copied().filter(allowed).collect(),
            tree: Tree::new(),
            dirs: vec![PathBuf::new()],
            files: Vec::new(),
        }
    }

    fn add(&mut self, number: usize, kind: Kind) {
        let path = self.stream.pick(&self.dirs).join(self.name(number));
        let tree = std::mem::take(&mut self.tree);
        self.tree = match kind {
            Kind::Directory | Kind::EmptyDirectory => tree.dir(&path),
            Kind::Fifo => tree.fifo(&path),
            Kind::HardLink => tree.hardlink(&path, self.stream.pick(&self.files)),
            Kind::Dangling | Kind::Absolute | Kind::Climbing | Kind::Sibling => {
                tree.symlink(&path, self.target(kind))
            }
            Kind::Plain | Kind::Empty | Kind::Sparse | Kind::AllHole | Kind::Zeros => {
                tree.file(&path, self.content(kind))
            }
        };
        self.remember(kind, &path);
        if !matches!(kind, Kind::HardLink) {
            self.set_attributes(number, kind, &path);
        }
    }

    fn name(&self, number: usize) -> OsString {
        let pattern = self.names[number % self.names.len()];
        let mut name = Vec::new();
        for byte in pattern {
            match byte {
                b'#' => name.extend(number.to_string().into_bytes()),
                _ => name.push(*byte),
            }
        }
        OsString::from_vec(name)
    }

    fn remember(&mut self, kind: Kind, path: &Path) {
        match kind {
            Kind::Directory => self.dirs.push(path.into()),
            Kind::Plain | Kind::Empty | Kind::Sparse | Kind::AllHole | Kind::Zeros => {
                self.files.push(path.into())
            }
            _ => {}
        }
    }

    fn target(&mut self, kind: Kind) -> PathBuf {
        let odd = if self.shape.non_utf8 {
            OsStr::from_bytes(b"no such \xff")
        } else {
            OsStr::new("no such")
        };
        match kind {
            Kind::Absolute => PathBuf::from("/etc/hostname"),
            Kind::Climbing => PathBuf::from("../../outside"),
            Kind::Sibling => self
                .stream
                .pick(&self.files)
                .file_name()
                .expect("files have names")
                .into(),
            _ => PathBuf::from(odd),
        }
    }

    fn content(&mut self, kind: Kind) -> Content {
        let seed = self.stream.number();
        match kind {
            Kind::Empty => Content::Bytes(Vec::new()),
            Kind::AllHole => Content::Sparse {
                size: self.size(),
                extents: Vec::new(),
            },
            Kind::Zeros => Content::Bytes(vec![0; (2 * PAGE).min(self.shape.max_size) as usize]),
            Kind::Sparse => self.sparse(seed),
            _ => Content::Random {
                seed,
                len: self.len(),
            },
        }
    }

    fn size(&mut self) -> u64 {
        1 + self.stream.below(self.shape.max_size)
    }

    fn len(&mut self) -> u64 {
        let small = [1, PAGE - 1, PAGE, PAGE + 1, 100];
        let len = match self.stream.below(2) {
            0 => *self.stream.pick(&small),
            _ => self.stream.below(16 * PAGE),
        };
        len.min(self.shape.max_size)
    }

    /// Extents a hole apart, some of them starting or ending within a page.
    fn sparse(&mut self, seed: u64) -> Content {
        let size = self.size();
        let mut extents = Vec::new();
        let mut at = self.stream.below(4) * PAGE;
        while at < size && extents.len() < 8 {
            let len = (1 + self.stream.below(4 * PAGE)).min(size - at);
            extents.push((at, seed ^ at, len));
            at = (at + len).next_multiple_of(PAGE)
                + (1 + self.stream.below(8)) * PAGE
                + self.stream.below(2) * 100;
        }
        Content::Sparse { size, extents }
    }

    fn set_attributes(&mut self, number: usize, kind: Kind, path: &Path) {
        let mut tree = std::mem::take(&mut self.tree);
        let (seconds, nanos) = MTIMES[number % MTIMES.len()];
        tree = tree.mtime(path, seconds, nanos);
        if let Some(modes) = modes(kind) {
            tree = tree.mode(path, *self.stream.pick(modes));
        }
        if self.shape.xattrs && takes_xattrs(kind) && number.is_multiple_of(3) {
            tree = tree.xattr(
                path,
                "user.random",
                random_bytes(number as u64, number % 40),
            );
            tree = tree.xattr(path, "user.empty", b"");
        }
        if self.shape.owners && number % 4 == 1 {
            tree = tree.owner(path, 1000 + number as u32, 65534);
        }
        self.tree = tree;
    }
}

fn modes(kind: Kind) -> Option<&'static [u32]> {
    match kind {
        Kind::Directory | Kind::EmptyDirectory => Some(DIR_MODES),
        Kind::Dangling | Kind::Absolute | Kind::Climbing | Kind::Sibling | Kind::HardLink => None,
        _ => Some(FILE_MODES),
    }
}

fn takes_xattrs(kind: Kind) -> bool {
    modes(kind).is_some() && !matches!(kind, Kind::Fifo)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::compare;
    use crate::tree::{Node, unlock};

    #[test]
    fn a_seed_writes_the_same_tree_each_time() {
        for seed in 0..4 {
            let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            Tree::random(seed, 120).write_to(one.path()).unwrap();
            Tree::random(seed, 120).write_to(other.path()).unwrap();
            assert_eq!(compare(one.path(), other.path()), []);
            assert_eq!(crate::fsstat::paths(one.path()).unwrap().len(), 120);
            for dir in [one, other] {
                unlock(dir.path()).unwrap();
            }
        }
    }

    #[test]
    fn seeds_differ() {
        let nodes = |seed| format!("{:?}", Tree::random(seed, 40));
        assert_ne!(nodes(1), nodes(2));
    }

    #[test]
    fn every_kind_is_there() {
        let everything = Shape {
            fifos: true,
            ..Shape::default()
        };
        let tree = Tree::random_with(7, 40, &everything);
        let count =
            |wanted: fn(&Node) -> bool| tree.nodes().filter(|(_, node)| wanted(node)).count();
        assert!(count(|node| *node == Node::Fifo) > 0);
        assert!(count(|node| *node == Node::Directory) > 1);
        assert!(count(|node| matches!(node, Node::HardLink(_))) > 0);
        assert!(count(|node| matches!(node, Node::Symlink(target) if target.is_absolute())) > 0);
        assert!(
            count(|node| matches!(node, Node::Symlink(target) if target.starts_with(".."))) > 0
        );
        assert!(count(|node| matches!(node, Node::File(content) if content.size() == 0)) > 0);
        assert!(
            count(
                |node| matches!(node, Node::File(Content::Sparse { extents, .. }) if extents.len() > 1)
            ) > 0
        );
        assert!(tree.nodes().any(|(path, _)| path.to_str().is_none()));
    }

    #[test]
    fn what_the_shape_forbids_is_not_there() {
        let shape = Shape {
            non_utf8: false,
            symlinks: false,
            hardlinks: false,
            max_size: 5000,
            ..Shape::default()
        };
        for (path, node) in Tree::random_with(3, 200, &shape).nodes() {
            assert!(path.to_str().is_some());
            match node {
                Node::File(content) => assert!(content.size() <= 5000),
                other => assert_eq!(*other, Node::Directory),
            }
        }
    }
}

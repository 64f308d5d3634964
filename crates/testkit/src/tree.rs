//! Directory trees as plain data, and the writing of them: contents first, attributes last.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps, XattrFlags};

use crate::prng::Prng;

const CHUNK: usize = 1 << 20;

/// The bytes and holes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// The first `len` bytes of the stream of `seed`.
    Random {
        /// Decides the bytes.
        seed: u64,
        /// How many.
        len: u64,
    },
    /// Random bytes in a hole.
    Sparse {
        /// Size of the file.
        size: u64,
        /// What is written: offset, seed, length.
        extents: Vec<(u64, u64, u64)>,
    },
    /// Given bytes in a hole.
    Pieces {
        /// Size of the file.
        size: u64,
        /// What is written: offset, bytes.
        pieces: Vec<(u64, Vec<u8>)>,
    },
}

impl Content {
    /// The size of the file.
    pub fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Random { len, .. } => *len,
            Self::Sparse { size, .. } | Self::Pieces { size, .. } => *size,
        }
    }

    /// Writes it to an empty file.
    ///
    /// # Errors
    /// If the filesystem refuses.
    pub fn write_to(&self, file: &File) -> io::Result<()> {
        file.set_len(self.size())?;
        match self {
            Self::Bytes(bytes) => file.write_all_at(bytes, 0),
            Self::Random { seed, len } => write_random(file, (0, *seed, *len)),
            Self::Sparse { extents, .. } => extents
                .iter()
                .try_for_each(|extent| write_random(file, *extent)),
            Self::Pieces { pieces, .. } => pieces
                .iter()
                .try_for_each(|(at, bytes)| file.write_all_at(bytes, *at)),
        }
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::Bytes(text.into())
    }
}

impl From<&[u8]> for Content {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl<const N: usize> From<&[u8; N]> for Content {
    fn from(bytes: &[u8; N]) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

fn write_random(file: &File, (start, seed, len): (u64, u64, u64)) -> io::Result<()> {
    let mut stream = Prng::new(seed);
    let mut buffer = vec![0; CHUNK.min(len as usize)];
    let mut done = 0;
    while done < len {
        let now = (CHUNK as u64).min(len - done) as usize;
        stream.fill(&mut buffer[..now]);
        file.write_all_at(&buffer[..now], start + done)?;
        done += now as u64;
    }
    Ok(())
}

/// What one path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A regular file.
    File(Content),
    /// A directory.
    Directory,
    /// A symlink to this target.
    Symlink(PathBuf),
    /// Another name of this path of the tree.
    HardLink(PathBuf),
    /// A named pipe.
    Fifo,
}

#[derive(Debug, Clone, Default)]
struct Attributes {
    mode: Option<u32>,
    mtime: Option<(i64, u32)>,
    owner: Option<(u32, u32)>,
    xattrs: BTreeMap<OsString, Vec<u8>>,
}

/// A directory tree. Paths are relative to wherever it gets written; a parent that isn't named
/// becomes a directory. Modes are 0644 and 0755 unless said, whatever the umask is.
///
/// The methods panic on what can't be written: absolute paths, `..`, a path named twice,
/// attributes of a path that isn't there yet or of a hard link (its target has them).
#[derive(Debug, Clone, Default)]
pub struct Tree {
    nodes: BTreeMap<PathBuf, (Node, Attributes)>,
}

impl Tree {
    /// An empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a regular file.
    pub fn file(self, path: impl AsRef<Path>, content: impl Into<Content>) -> Self {
        self.with(path.as_ref(), Node::File(content.into()))
    }

    /// Adds a directory.
    pub fn dir(self, path: impl AsRef<Path>) -> Self {
        self.with(path.as_ref(), Node::Directory)
    }

    /// Adds a symlink; the target is any text.
    pub fn symlink(self, path: impl AsRef<Path>, target: impl AsRef<Path>) -> Self {
        self.with(path.as_ref(), Node::Symlink(target.as_ref().into()))
    }

    /// Adds a second name of `to`, a path of this tree.
    pub fn hardlink(self, path: impl AsRef<Path>, to: impl AsRef<Path>) -> Self {
        let to = match &self
            .nodes
            .get(to.as_ref())
            .expect("a hard link's target comes first")
            .0
        {
            Node::Directory => panic!("{:?}: a directory has one name", to.as_ref()),
            Node::HardLink(first) => first.clone(),
            _ => to.as_ref().into(),
        };
        self.with(path.as_ref(), Node::HardLink(to))
    }

    /// Adds a named pipe.
    pub fn fifo(self, path: impl AsRef<Path>) -> Self {
        self.with(path.as_ref(), Node::Fifo)
    }

    /// Sets the permission bits of `path`, setuid and its like included.
    pub fn mode(mut self, path: impl AsRef<Path>, mode: u32) -> Self {
        let (node, attributes) = self.owning(path.as_ref());
        assert!(
            !matches!(node, Node::Symlink(_)),
            "{:?}: a symlink has no mode",
            path.as_ref()
        );
        attributes.mode = Some(mode);
        self
    }

    /// Sets when `path` was modified (a symlink's own time): seconds since 1970, which may be
    /// negative, and nanoseconds after them.
    pub fn mtime(mut self, path: impl AsRef<Path>, seconds: i64, nanos: u32) -> Self {
        assert!(nanos < 1_000_000_000, "{nanos} nanoseconds");
        self.owning(path.as_ref()).1.mtime = Some((seconds, nanos));
        self
    }

    /// Sets an extended attribute; `name` has its namespace: `user.x`.
    pub fn xattr(
        mut self,
        path: impl AsRef<Path>,
        name: impl AsRef<OsStr>,
        value: impl AsRef<[u8]>,
    ) -> Self {
        let xattrs = &mut self.owning(path.as_ref()).1.xattrs;
        xattrs.insert(name.as_ref().into(), value.as_ref().into());
        self
    }

    /// Sets the owner and group (a symlink's own). Writing it takes root.
    pub fn owner(mut self, path: impl AsRef<Path>, uid: u32, gid: u32) -> Self {
        self.owning(path.as_ref()).1.owner = Some((uid, gid));
        self
    }

    /// Every path and what it is, parents before children.
    pub fn nodes(&self) -> impl Iterator<Item = (&Path, &Node)> {
        self.nodes
            .iter()
            .map(|(path, (node, _))| (path.as_path(), node))
    }

    /// Writes the tree into `dir`, which is made where missing. Directories may exist already,
    /// other paths not.
    ///
    /// # Errors
    /// With the path that the filesystem refused.
    pub fn write_to(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        let (links, rest): (Vec<_>, Vec<_>) = self
            .nodes()
            .partition(|(_, node)| matches!(node, Node::HardLink(_)));
        for (path, node) in rest.into_iter().chain(links) {
            named(path, create(dir, path, node))?;
        }
        for (path, (node, attributes)) in self.nodes.iter().rev() {
            named(path, attributes.apply(&dir.join(path), node))?;
        }
        Ok(())
    }

    fn with(mut self, path: &Path, node: Node) -> Self {
        check(path);
        for parent in path
            .ancestors()
            .skip(1)
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            self.make_directory(parent);
        }
        if node == Node::Directory {
            self.make_directory(path);
        } else {
            let before = self
                .nodes
                .insert(path.into(), (node, Attributes::default()));
            assert!(before.is_none(), "{path:?} is there already");
        }
        self
    }

    fn make_directory(&mut self, path: &Path) {
        let new = || (Node::Directory, Attributes::default());
        let (present, _) = self.nodes.entry(path.into()).or_insert_with(new);
        assert_eq!(*present, Node::Directory, "{path:?} is no directory");
    }

    fn owning(&mut self, path: &Path) -> &mut (Node, Attributes) {
        let found = self
            .nodes
            .get_mut(path)
            .unwrap_or_else(|| panic!("{path:?} isn't there yet"));
        assert!(
            !matches!(found.0, Node::HardLink(_)),
            "{path:?}: its target has the attributes"
        );
        found
    }
}

impl Attributes {
    /// Owner first, for chown drops setuid; times last, for all else changes them.
    fn apply(&self, path: &Path, node: &Node) -> io::Result<()> {
        if let Some((uid, gid)) = self.owner {
            lchown(path, Some(uid), Some(gid))?;
        }
        for (name, value) in &self.xattrs {
            rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())?;
        }
        if let Some(mode) = self.mode.or(default_mode(node)) {
            fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        self.mtime.map_or(Ok(()), |mtime| set_mtime(path, mtime))
    }
}

/// Sets when `path` was modified and read, without following a symlink.
///
/// # Errors
/// If the filesystem refuses.
pub fn set_mtime(path: &Path, (seconds, nanos): (i64, u32)) -> io::Result<()> {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanos.into(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(rustix::fs::utimensat(
        CWD,
        path,
        &times,
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

/// Makes every directory under `dir` writable, so that who isn't root can remove it.
///
/// # Errors
/// If the filesystem refuses.
pub fn unlock(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            unlock(&entry.path())?;
        }
    }
    Ok(())
}

fn check(path: &Path) {
    let plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    assert!(
        plain && !path.as_os_str().is_empty(),
        "{path:?} isn't a plain relative path"
    );
}

fn create(dir: &Path, path: &Path, node: &Node) -> io::Result<()> {
    let at = dir.join(path);
    match node {
        Node::File(content) => {
            content.write_to(&OpenOptions::new().write(true).create_new(true).open(at)?)
        }
        Node::Directory => fs::create_dir_all(at),
        Node::Symlink(target) => symlink(target, at),
        Node::HardLink(first) => fs::hard_link(dir.join(first), at),
        Node::Fifo => Ok(rustix::fs::mkfifoat(CWD, at, Mode::RUSR | Mode::WUSR)?),
    }
}

fn default_mode(node: &Node) -> Option<u32> {
    match node {
        Node::File(_) | Node::Fifo => Some(0o644),
        Node::Directory => Some(0o755),
        Node::Symlink(_) | Node::HardLink(_) => None,
    }
}

fn named(path: &Path, result: io::Result<()>) -> io::Result<()> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{extents, prng::random_bytes};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    fn written(tree: &Tree) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        tree.write_to(dir.path()).unwrap();
        dir
    }

    #[test]
    fn every_kind_is_written() {
        let odd = OsStr::from_bytes(b"dir/new\nline \xff");
        let tree = Tree::new()
            .file(odd, b"bytes")
            .symlink("absolute", "/nowhere/at all")
            .hardlink("dir/again", odd)
            .hardlink("third", "dir/again")
            .fifo("pipe")
            .dir("empty");
        let dir = written(&tree);
        let stat = |path: &OsStr| fs::symlink_metadata(dir.path().join(path)).unwrap();
        assert_eq!(fs::read(dir.path().join("third")).unwrap(), b"bytes");
        assert_eq!(stat(odd).nlink(), 3);
        assert_eq!(
            fs::read_link(dir.path().join("absolute")).unwrap(),
            Path::new("/nowhere/at all")
        );
        assert!(stat("pipe".as_ref()).file_type().is_fifo());
        assert!(stat("empty".as_ref()).is_dir());
    }

    #[test]
    fn contents_are_written_with_their_holes() {
        let tree = Tree::new()
            .file(
                "random",
                Content::Random {
                    seed: 3,
                    len: (1 << 20) + 5,
                },
            )
            .file(
                "sparse",
                Content::Sparse {
                    size: 1 << 22,
                    extents: vec![(1 << 16, 4, 65536)],
                },
            )
            .file(
                "pieces",
                Content::Pieces {
                    size: 10,
                    pieces: vec![(4, b"abc".into())],
                },
            );
        let dir = written(&tree);
        let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
        assert!(read("random") == random_bytes(3, (1 << 20) + 5));
        assert_eq!(read("pieces"), b"\0\0\0\0abc\0\0\0");
        assert!(read("sparse")[1 << 16..1 << 17] == random_bytes(4, 65536));
        assert_eq!(
            extents::of_path(&dir.path().join("sparse")).unwrap(),
            [(1 << 16, 65536)]
        );
    }

    #[test]
    fn attributes_survive_the_writing_of_children() {
        let tree = Tree::new()
            .file("d/e/file", "x")
            .mode("d/e/file", 0o4711)
            .mtime("d/e/file", -5, 7)
            .xattr("d/e/file", "user.note", b"\0\xff")
            .mode("d/e", 0o555)
            .mtime("d/e", 1, 2)
            .mtime("d", -1_000_000_000, 999_999_999)
            .symlink("d/link", "e")
            .mtime("d/link", 3, 4);
        let dir = written(&tree);
        let stat = |path: &str| fs::symlink_metadata(dir.path().join(path)).unwrap();
        let time = |path: &str| (stat(path).mtime(), stat(path).mtime_nsec());
        assert_eq!(stat("d/e/file").mode() & 0o7777, 0o4711);
        assert_eq!(stat("d/e").mode() & 0o7777, 0o555);
        assert_eq!(time("d/e/file"), (-5, 7));
        assert_eq!(time("d/e"), (1, 2));
        assert_eq!(time("d"), (-1_000_000_000, 999_999_999));
        assert_eq!(time("d/link"), (3, 4));
        unlock(dir.path()).unwrap();
        assert_eq!(stat("d/e").mode() & 0o7777, 0o700);
    }

    #[test]
    fn a_refused_path_is_named() {
        let dir = written(&Tree::new().file("a", ""));
        let error = Tree::new().file("a", "").write_to(dir.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(error.to_string().starts_with("a: "), "{error}");
    }

    #[test]
    #[should_panic(expected = "isn't a plain relative path")]
    fn a_path_may_not_climb() {
        let _ = Tree::new().file("a/../../b", "");
    }

    #[test]
    #[should_panic(expected = "is there already")]
    fn a_path_is_named_once() {
        let _ = Tree::new().file("a", "").symlink("a", "b");
    }

    #[test]
    #[should_panic(expected = "its target has the attributes")]
    fn a_hard_link_has_no_attributes_of_its_own() {
        let _ = Tree::new()
            .file("a", "")
            .hardlink("b", "a")
            .mode("b", 0o600);
    }
}

//! The names of a mounted snapshot and their inodes, all of which are known before the first is asked for. The names of one file of
//! the document are one inode, and every file is one of its own: two that are alike are not hardlinks of each other, since who
//! copies them with their links would get one file that was two.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use fuser::{FileAttr, FileType, INodeNo};

use crate::inspect::{self, FileDetails, PathDetails};
use crate::opened::Opened;
use crate::words::total::total;

/// What `st_blksize` says: what is well read at once.
const BLOCK_BYTES: u32 = 128 << 10;

/// All inodes.
#[derive(Debug)]
pub(super) struct Tree {
    /// That of inode 1 first.
    nodes: Vec<Node>,
    /// Sizes of all files, in bytes.
    pub(super) bytes: u64,
    /// When the snapshot was taken, or fetched.
    created: SystemTime,
}

/// An inode.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) attributes: FileAttr,
    pub(super) kind: Kind,
    pub(super) xattrs: BTreeMap<String, Vec<u8>>,
}

/// What it is.
#[derive(Debug)]
pub(super) enum Kind {
    Directory {
        parent: INodeNo,
        /// By their names.
        names: Vec<(OsString, INodeNo)>,
    },
    /// By its first name.
    File(PathBuf),
    Symlink(PathBuf),
    Whiteout,
}

/// Directories that were made, while a tree is.
type Made = HashMap<PathBuf, INodeNo>;

impl Tree {
    /// That of a snapshot.
    pub(super) fn new(opened: &Opened) -> Self {
        let mut tree = Self {
            nodes: Vec::new(),
            bytes: total(opened.files().iter().map(|file| file.size)),
            created: inspect::time(opened.snapshot().created_at),
        };
        let mut made = Made::new();
        tree.add(implied(tree.created), root(), BTreeMap::new());
        made.insert(PathBuf::new(), INodeNo::ROOT);
        for directory in opened.directories() {
            let at = tree.directory(&mut made, &directory.relative_path);
            tree.dress(at, directory);
        }
        tree.add_files(&mut made, opened);
        for link in opened.symlinks() {
            let attributes = attributes(&link.entry, FileType::Symlink, length(&link.target));
            let kind = Kind::Symlink(link.target.clone());
            let at = tree.add(attributes, kind, link.entry.xattrs.clone());
            tree.name(&mut made, &link.entry.relative_path, at);
        }
        for whiteout in opened.whiteouts() {
            let attributes = attributes(whiteout, FileType::CharDevice, 0);
            let at = tree.add(attributes, Kind::Whiteout, whiteout.xattrs.clone());
            tree.name(&mut made, &whiteout.relative_path, at);
        }
        for node in &mut tree.nodes {
            if let Kind::Directory { names, .. } = &mut node.kind {
                names.sort_unstable();
            }
        }
        tree
    }

    fn add_files(&mut self, made: &mut Made, opened: &Opened) {
        let mut firsts: HashMap<&Path, INodeNo> = HashMap::new();
        let is_first = |file: &&FileDetails| file.hardlink_of.is_none();
        for file in opened.files().iter().filter(is_first) {
            let path = &file.entry.relative_path;
            let mut attributes = attributes(&file.entry, FileType::RegularFile, file.size);
            let data_bytes = opened.data_bytes(path).unwrap_or(0);
            attributes.blocks = data_bytes.div_ceil(512);
            let kind = Kind::File(path.clone());
            let at = self.add(attributes, kind, file.entry.xattrs.clone());
            self.name(made, path, at);
            firsts.insert(path, at);
        }
        for file in opened.files() {
            let first = file
                .hardlink_of
                .as_deref()
                .and_then(|first| firsts.get(first));
            if let Some(at) = first {
                self.name(made, &file.entry.relative_path, *at);
                self.nodes[index(*at)].attributes.nlink += 1;
            }
        }
    }

    /// The inode with this number.
    pub(super) fn get(&self, number: INodeNo) -> Option<&Node> {
        self.nodes.get(index(number))
    }

    /// The inode with a name in a directory.
    pub(super) fn lookup(&self, parent: INodeNo, name: &OsStr) -> Option<&Node> {
        let Kind::Directory { names, .. } = &self.get(parent)?.kind else {
            return None;
        };
        let found = names.binary_search_by(|(other, _)| other.as_os_str().cmp(name));
        self.get(names[found.ok()?].1)
    }

    /// How many inodes there are.
    pub(super) fn len(&self) -> u64 {
        self.nodes.len() as u64
    }

    fn add(
        &mut self,
        mut attributes: FileAttr,
        kind: Kind,
        xattrs: BTreeMap<String, Vec<u8>>,
    ) -> INodeNo {
        let number = INodeNo(self.nodes.len() as u64 + 1);
        attributes.ino = number;
        self.nodes.push(Node {
            attributes,
            kind,
            xattrs,
        });
        number
    }

    fn dress(&mut self, at: INodeNo, said: &PathDetails) {
        let node = &mut self.nodes[index(at)];
        let nlink = node.attributes.nlink;
        node.attributes = FileAttr {
            ino: at,
            nlink,
            ..attributes(said, FileType::Directory, 0)
        };
        node.xattrs = said.xattrs.clone();
    }

    /// The directory with a path, which is made with those above it where it is not there.
    fn directory(&mut self, made: &mut Made, path: &Path) -> INodeNo {
        let path: PathBuf = path
            .components()
            .filter(|part| matches!(part, Component::Normal(_)))
            .collect();
        if let Some(there) = made.get(&path) {
            return *there;
        }
        let parent = self.directory(made, path.parent().unwrap_or(Path::new("")));
        let kind = Kind::Directory {
            parent,
            names: Vec::new(),
        };
        let at = self.add(implied(self.created), kind, BTreeMap::new());
        self.name(made, &path, at);
        self.nodes[index(parent)].attributes.nlink += 1;
        made.insert(path, at);
        at
    }

    /// Gives an inode a name.
    fn name(&mut self, made: &mut Made, path: &Path, at: INodeNo) {
        let above = self.directory(made, path.parent().unwrap_or(Path::new("")));
        let name = path.file_name().unwrap_or_default().to_owned();
        if let Kind::Directory { names, .. } = &mut self.nodes[index(above)].kind {
            names.push((name, at));
        }
    }
}

fn index(number: INodeNo) -> usize {
    usize::try_from(number.0.wrapping_sub(1)).unwrap_or(usize::MAX)
}

fn length(target: &Path) -> u64 {
    target.as_os_str().len() as u64
}

fn root() -> Kind {
    Kind::Directory {
        parent: INodeNo::ROOT,
        names: Vec::new(),
    }
}

/// Of a directory of which the snapshot says nothing: as a restore makes it, and as old as the snapshot.
fn implied(modified: SystemTime) -> FileAttr {
    let (uid, gid) = crate::fs::own_ids();
    let said = PathDetails {
        relative_path: PathBuf::new(),
        mode: 0o755,
        uid,
        gid,
        modified,
        xattrs: BTreeMap::new(),
    };
    attributes(&said, FileType::Directory, 0)
}

fn attributes(said: &PathDetails, kind: FileType, size: u64) -> FileAttr {
    FileAttr {
        ino: INodeNo::ROOT,
        size,
        blocks: 0,
        atime: said.modified,
        mtime: said.modified,
        ctime: said.modified,
        crtime: said.modified,
        kind,
        // Its lowest 12 bits.
        perm: (said.mode & 0o7777) as u16,
        nlink: if kind == FileType::Directory { 2 } else { 1 },
        uid: said.uid,
        gid: said.gid,
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

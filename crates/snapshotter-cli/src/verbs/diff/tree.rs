//! The two sides of a comparison, path by path.

use std::path::Path;

use snapshotter::{FileDetails, PathDetails, SnapshotDetails, SymlinkDetails};

/// What is compared.
pub struct Tree {
    pub files: Vec<FileDetails>,
    pub directories: Vec<PathDetails>,
    pub symlinks: Vec<SymlinkDetails>,
    pub whiteouts: Vec<PathDetails>,
}

impl Tree {
    /// A snapshot's, sorted.
    pub fn of(snapshot: SnapshotDetails) -> Self {
        let tree = Self {
            files: snapshot.files,
            directories: snapshot.directories,
            symlinks: snapshot.symlinks,
            whiteouts: snapshot.whiteouts,
        };
        tree.sorted()
    }

    /// Two documents may list a million paths each, so their lists are sorted where they are.
    pub fn sorted(mut self) -> Self {
        let by_path = |a: &PathDetails, b: &PathDetails| a.relative_path.cmp(&b.relative_path);
        let (files, symlinks) = (&mut self.files, &mut self.symlinks);
        files.sort_unstable_by(|a, b| by_path(&a.entry, &b.entry));
        symlinks.sort_unstable_by(|a, b| by_path(&a.entry, &b.entry));
        self.directories.sort_unstable_by(by_path);
        self.whiteouts.sort_unstable_by(by_path);
        self
    }
}

/// What is in a sorted tree, by path.
pub fn items(snapshot: &Tree) -> impl Iterator<Item = Item<'_>> {
    let files = snapshot.files.iter().map(|file| Item {
        details: &file.entry,
        body: Body::File(file),
    });
    let directories = snapshot.directories.iter().map(|details| Item {
        details,
        body: Body::Directory,
    });
    let whiteouts = snapshot.whiteouts.iter().map(|details| Item {
        details,
        body: Body::Whiteout,
    });
    let symlinks = snapshot.symlinks.iter().map(|symlink| Item {
        details: &symlink.entry,
        body: Body::Symlink(&symlink.target),
    });
    merged(merged(files, directories), merged(symlinks, whiteouts))
}

fn merged<'a>(
    one: impl Iterator<Item = Item<'a>>,
    other: impl Iterator<Item = Item<'a>>,
) -> impl Iterator<Item = Item<'a>> {
    let (mut one, mut other) = (one.peekable(), other.peekable());
    std::iter::from_fn(move || match (one.peek(), other.peek()) {
        (Some(first), Some(second)) if first.path() > second.path() => other.next(),
        (None, _) => other.next(),
        _ => one.next(),
    })
}

impl Item<'_> {
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.details.relative_path
    }

    /// Its kind.
    pub fn kind(&self) -> &'static str {
        match self.body {
            Body::File(_) => "file",
            Body::Directory => "directory",
            Body::Symlink(_) => "symlink",
            Body::Whiteout => "whiteout",
        }
    }

    /// Its size.
    pub fn size(&self) -> u64 {
        match self.body {
            Body::File(file) => file.size,
            _ => 0,
        }
    }

    /// What two entries of one path differ in; of different kinds, that alone.
    pub fn differences(&self, other: &Self, is_changed: bool) -> Vec<&'static str> {
        let mut found = Vec::new();
        match (&self.body, &other.body) {
            (Body::File(old), Body::File(new)) => {
                let is_same = !is_changed && same_bytes(old, new);
                found.extend((!is_same).then_some("content"));
                found.extend((old.read_only != new.read_only).then_some("readOnly"));
                found.extend((old.hardlink_of != new.hardlink_of).then_some("hardlinkOf"));
            }
            (Body::Symlink(old), Body::Symlink(new)) => {
                found.extend((old != new).then_some("target"));
            }
            (Body::Directory, Body::Directory) | (Body::Whiteout, Body::Whiteout) => {}
            _ => return vec!["kind"],
        }
        let (old, new) = (self.details, other.details);
        found.extend((old.mode != new.mode).then_some("mode"));
        found.extend(((old.uid, old.gid) != (new.uid, new.gid)).then_some("owner"));
        found.extend((old.modified != new.modified).then_some("modifiedAt"));
        found.extend((old.xattrs != new.xattrs).then_some("xattrs"));
        found
    }
}

/// As far as names of contents say: the digest alone where a snapshot of the Go library has no checksum, and the size where the
/// two have no names in common, or pages were counted.
fn same_bytes(old: &FileDetails, new: &FileDetails) -> bool {
    match (old.checksum, new.checksum, old.digest, new.digest) {
        (Some(old), Some(new), ..) => old == new,
        (.., Some(old_digest), Some(new_digest)) => {
            old.size == new.size && old_digest == new_digest
        }
        _ => old.size == new.size,
    }
}

/// A path of a snapshot, of whatever kind.
pub struct Item<'a> {
    details: &'a PathDetails,
    body: Body<'a>,
}

enum Body<'a> {
    File(&'a FileDetails),
    Directory,
    Symlink(&'a Path),
    Whiteout,
}

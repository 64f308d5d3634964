//! What a directory holds and costs: its paths, its inodes and names, the bytes allocated for it.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a tree holds, without the base directory itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes the filesystem says it allocated, each inode counted once. Reflinked extents count
    /// for each inode: see [`filesystem_used`] for the truth about those.
    pub allocated: u64,
    /// Sizes of the regular files, each inode counted once.
    pub logical: u64,
    /// Inodes of any kind.
    pub inodes: u64,
    /// Names of any kind: more than `inodes` where there are hard links.
    pub names: u64,
}

/// Measures the tree under `dir`.
///
/// # Errors
/// If part of it can't be read.
pub fn usage(dir: &Path) -> io::Result<Usage> {
    let mut seen = HashSet::new();
    let mut usage = Usage::default();
    for metadata in entries(dir)?.values() {
        usage.names += 1;
        if seen.insert((metadata.dev(), metadata.ino())) {
            add_inode(&mut usage, metadata);
        }
    }
    Ok(usage)
}

fn add_inode(usage: &mut Usage, metadata: &Metadata) {
    usage.inodes += 1;
    usage.allocated += metadata.blocks() * 512;
    if metadata.is_file() {
        usage.logical += metadata.len();
    }
}

/// Bytes allocated for the tree under `dir`, each inode once.
///
/// # Errors
/// If part of it can't be read.
pub fn allocated_bytes(dir: &Path) -> io::Result<u64> {
    Ok(usage(dir)?.allocated)
}

/// Every path under `dir`, relative to it and sorted, parents before children.
///
/// # Errors
/// If part of it can't be read.
pub fn paths(dir: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(entries(dir)?.into_keys().collect())
}

/// Every path under `dir`, relative to it, with its own metadata (a symlink's, not its target's).
///
/// # Errors
/// If part of it can't be read.
pub fn entries(dir: &Path) -> io::Result<BTreeMap<PathBuf, Metadata>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(inside) = waiting.pop() {
        for name in names(&dir.join(&inside))? {
            let path = inside.join(name);
            let metadata = fs::symlink_metadata(dir.join(&path))?;
            if metadata.is_dir() {
                waiting.push(path.clone());
            }
            found.insert(path, metadata);
        }
    }
    Ok(found)
}

fn names(dir: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", dir.display()));
    fs::read_dir(dir)
        .map_err(named)?
        .map(|entry| Ok(entry?.file_name()))
        .collect()
}

/// Bytes in use on the whole filesystem of `path`.
///
/// # Errors
/// If the filesystem refuses to say.
pub fn filesystem_used(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok((stat.f_blocks - stat.f_bfree) * stat.f_frsize)
}

/// The block size of the filesystem of `path`: holes come in multiples of it.
///
/// # Errors
/// If the filesystem refuses to say.
pub fn block_size(path: &Path) -> io::Result<u64> {
    Ok(rustix::fs::statvfs(path)?.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Content, Tree};

    fn written(tree: &Tree) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        tree.write_to(dir.path()).unwrap();
        dir
    }

    #[test]
    fn an_inode_counts_once_and_each_of_its_names() {
        let tree = Tree::new()
            .file(
                "d/one",
                Content::Random {
                    seed: 1,
                    len: 1 << 20,
                },
            )
            .hardlink("other", "d/one")
            .file(
                "hole",
                Content::Sparse {
                    size: 1 << 30,
                    extents: vec![],
                },
            );
        let dir = written(&tree);
        let usage = usage(dir.path()).unwrap();
        assert_eq!((usage.inodes, usage.names), (3, 4));
        assert_eq!(usage.logical, (1 << 20) + (1 << 30));
        assert!((1 << 20..2 << 20).contains(&usage.allocated), "{usage:?}");
    }

    #[test]
    fn paths_are_relative_and_sorted_and_symlinks_are_not_entered() {
        let dir = written(&Tree::new().file("b/c", "x").symlink("a", "b").dir("d"));
        let expected: Vec<PathBuf> = ["a", "b", "b/c", "d"].map(PathBuf::from).into();
        assert_eq!(paths(dir.path()).unwrap(), expected);
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = paths(Path::new("/nonexistent/x")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/x"));
    }
}

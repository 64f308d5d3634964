//! What no entry shows alone. Paths are sorted component by component once, so that everything below a path follows it
//! at once: neighbours then tell duplicates and entries below files, in O(n log n) however deep a hostile path is.

use std::cmp::Ordering;

use super::{
    Document, DocumentError, FileEntry, MAX_ENTRIES, MAX_TARGET_BYTES, MAX_XATTRS, SymlinkEntry,
};
use crate::words::digest::excerpt;
use crate::words::entry::{Attributes, MODE_BITS};
use crate::words::extent::MAX_SIZE;
use crate::words::relpath::RelPath;

// Linux's own limits: XATTR_NAME_MAX, XATTR_SIZE_MAX and XATTR_LIST_MAX.
const MAX_XATTR_NAME_BYTES: usize = 255;
const MAX_XATTR_VALUE_BYTES: usize = 65536;
const MAX_XATTR_LIST_BYTES: usize = 65536;

enum Kind<'a, C> {
    File(&'a FileEntry<C>),
    Directory,
    /// A symlink or a whiteout.
    Other,
}

struct Named<'a, C> {
    path: &'a RelPath,
    kind: Kind<'a, C>,
}

pub(super) fn validate<C: PartialEq>(document: &Document<C>) -> Result<(), DocumentError> {
    check_counts(document)?;
    check_each(document)?;
    let named = sorted(document);
    check_neighbours(&named)?;
    let mut links = document
        .files
        .iter()
        .filter_map(|file| file.hardlink_of.as_ref().map(|target| (file, target)));
    links.try_for_each(|(file, target)| check_hardlink(file, target, &named))
}

fn check_counts<C>(document: &Document<C>) -> Result<(), DocumentError> {
    let leaves = document.files.len() + document.symlinks.len() + document.whiteouts.len();
    if leaves + document.directories.len() > MAX_ENTRIES {
        return Err(DocumentError::TooManyEntries);
    }
    let xattrs: usize = all_attributes(document)
        .map(|(_, attributes)| attributes.xattrs.len())
        .sum();
    if xattrs > MAX_XATTRS {
        Err(DocumentError::TooManyXattrs)
    } else {
        Ok(())
    }
}

fn check_each<C>(document: &Document<C>) -> Result<(), DocumentError> {
    all_attributes(document)
        .try_for_each(|(path, attributes)| check_attributes(path, attributes))?;
    document.files.iter().try_for_each(check_size)?;
    document.symlinks.iter().try_for_each(check_target)
}

fn all_attributes<C>(document: &Document<C>) -> impl Iterator<Item = (&RelPath, &Attributes)> {
    let files = document
        .files
        .iter()
        .map(|entry| (&entry.path, &entry.attributes));
    let directories = document
        .directories
        .iter()
        .map(|entry| (&entry.path, &entry.attributes));
    let symlinks = document
        .symlinks
        .iter()
        .map(|entry| (&entry.path, &entry.attributes));
    let whiteouts = document
        .whiteouts
        .iter()
        .map(|entry| (&entry.path, &entry.attributes));
    files.chain(directories).chain(symlinks).chain(whiteouts)
}

fn check_size<C>(file: &FileEntry<C>) -> Result<(), DocumentError> {
    if file.size > MAX_SIZE {
        Err(DocumentError::Size {
            path: file.path.clone(),
            size: file.size,
        })
    } else {
        Ok(())
    }
}

fn check_target(symlink: &SymlinkEntry) -> Result<(), DocumentError> {
    let valid =
        (1..=MAX_TARGET_BYTES).contains(&symlink.target.len()) && !symlink.target.contains(&0);
    if valid {
        Ok(())
    } else {
        Err(DocumentError::Target {
            path: symlink.path.clone(),
        })
    }
}

fn check_attributes(path: &RelPath, attributes: &Attributes) -> Result<(), DocumentError> {
    if attributes.mode > MODE_BITS {
        return Err(DocumentError::Mode {
            path: path.clone(),
            mode: attributes.mode,
        });
    }
    let mut listed = 0;
    for (name, value) in &attributes.xattrs {
        listed += name.len() + 1;
        let named = (1..=MAX_XATTR_NAME_BYTES).contains(&name.len()) && !name.contains('\0');
        if !named || value.len() > MAX_XATTR_VALUE_BYTES || listed > MAX_XATTR_LIST_BYTES {
            return Err(DocumentError::Xattr {
                path: path.clone(),
                name: excerpt(name),
            });
        }
    }
    Ok(())
}

fn sorted<C>(document: &Document<C>) -> Vec<Named<'_, C>> {
    let files = document.files.iter().map(|file| Named {
        path: &file.path,
        kind: Kind::File(file),
    });
    let directories = document.directories.iter().map(|entry| Named {
        path: &entry.path,
        kind: Kind::Directory,
    });
    let symlinks = document.symlinks.iter().map(|entry| Named {
        path: &entry.path,
        kind: Kind::Other,
    });
    let whiteouts = document.whiteouts.iter().map(|entry| Named {
        path: &entry.path,
        kind: Kind::Other,
    });
    let others = symlinks.chain(whiteouts);
    let mut named: Vec<_> = files.chain(directories).chain(others).collect();
    named.sort_unstable_by(|a, b| by_component(a.path.as_bytes(), b.path.as_bytes()));
    named
}

/// Orders as if `/` were the lowest byte: a directory's whole subtree follows it, before `dir.x` and the like.
pub(super) fn by_component(a: &[u8], b: &[u8]) -> Ordering {
    let rank = |byte: u8| if byte == b'/' { 0 } else { byte };
    match first_difference(a, b) {
        Some(at) => rank(a[at]).cmp(&rank(b[at])),
        None => a.len().cmp(&b.len()),
    }
}

fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    // Whole blocks compare as fast as memory is read, which matters for long common prefixes.
    const BLOCK: usize = 32;
    let equal_blocks = a
        .chunks_exact(BLOCK)
        .zip(b.chunks_exact(BLOCK))
        .take_while(|(x, y)| x == y)
        .count();
    let start = equal_blocks * BLOCK;
    a[start..]
        .iter()
        .zip(&b[start..])
        .position(|(x, y)| x != y)
        .map(|at| start + at)
}

fn check_neighbours<C>(named: &[Named<'_, C>]) -> Result<(), DocumentError> {
    for (first, second) in named.iter().zip(named.iter().skip(1)) {
        if first.path == second.path {
            return Err(DocumentError::Duplicate {
                path: first.path.clone(),
            });
        }
        if !matches!(first.kind, Kind::Directory) && second.path.starts_with(first.path) {
            return Err(DocumentError::NotADirectory {
                path: first.path.clone(),
                below: second.path.clone(),
            });
        }
    }
    Ok(())
}

fn check_hardlink<C: PartialEq>(
    file: &FileEntry<C>,
    target: &RelPath,
    named: &[Named<'_, C>],
) -> Result<(), DocumentError> {
    let at = named.binary_search_by(|entry| by_component(entry.path.as_bytes(), target.as_bytes()));
    let found = at.ok().map(|at| &named[at].kind);
    match hardlink_fault(file, found) {
        Some(why) => Err(DocumentError::Hardlink {
            path: file.path.clone(),
            target: target.clone(),
            why,
        }),
        None => Ok(()),
    }
}

fn hardlink_fault<C: PartialEq>(
    file: &FileEntry<C>,
    found: Option<&Kind<'_, C>>,
) -> Option<&'static str> {
    let Some(Kind::File(other)) = found else {
        return Some("that is not a regular file of the document");
    };
    if other.path == file.path {
        return Some("it is the same entry");
    }
    if other.hardlink_of.is_some() {
        return Some("that is a hard link itself");
    }
    let equal = other.content == file.content
        && other.size == file.size
        && other.read_only == file.read_only
        && other.attributes == file.attributes;
    (!equal).then_some("they differ")
}

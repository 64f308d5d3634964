//! What a walk found: each list in the byte order of its paths, names of one inode together.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;

use super::selection::Selection;
use crate::format::document::{DirectoryEntry, FileEntry, SymlinkEntry, WhiteoutEntry};
use crate::words::error::{Error, Result};
use crate::words::relpath::RelPath;
use crate::words::total::total;

/// What a snapshot consists of, each list in the byte order of its paths.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(super) files: Vec<PlannedFile>,
    pub(super) directories: Vec<DirectoryEntry>,
    pub(super) symlinks: Vec<SymlinkEntry>,
    pub(super) whiteouts: Vec<WhiteoutEntry>,
    pub(super) selection: Selection,
    /// The inodes with several names, by their numbers.
    pub(super) inodes: Vec<(u64, u64)>,
}

/// A regular file: one inode. There may be a million of them.
#[derive(Debug)]
pub(super) struct PlannedFile {
    pub(super) path: RelPath,
    /// Its further names in the snapshot.
    pub(super) others: Vec<RelPath>,
    pub(super) read_only: bool,
    /// Its holes are as the parent has them.
    pub(super) diff: bool,
    /// It is read from a block device.
    pub(super) is_device: bool,
    /// Holes included, in bytes.
    pub(super) size: u64,
    /// What it occupies on its disk, in bytes.
    pub(super) allocated: u64,
    /// The number of its inode, if that has several names.
    pub(super) inode: Option<NonZeroU32>,
}

impl PlannedFile {
    /// One that a document lists, with so many bytes of data.
    pub(super) fn of<C>(entry: &FileEntry<C>, data: u64) -> Self {
        Self {
            path: entry.path.clone(),
            others: Vec::new(),
            read_only: entry.read_only,
            diff: false,
            is_device: false,
            size: entry.size,
            allocated: data,
            inode: None,
        }
    }

    /// It under its first name alone; `left` gets its other names, as a file of their own.
    pub(super) fn only(mut self, left: &mut Vec<Self>) -> Self {
        let mut others = std::mem::take(&mut self.others).into_iter();
        if let Some(path) = others.next() {
            left.push(Self {
                path,
                others: others.collect(),
                ..self
            });
        }
        self
    }
}

impl Plan {
    /// Bytes the files occupy: what there is to read, about.
    pub(super) fn allocated(&self) -> u64 {
        total(self.files.iter().map(|file| file.allocated.min(file.size)))
    }

    /// Which inode a file was found to be; known where it matters, which is where it has several names.
    pub(super) fn identity(&self, file: &PlannedFile) -> Option<(u64, u64)> {
        let number = file.inode?.get() as usize;
        self.inodes.get(number - 1).copied()
    }

    /// How many names the files have.
    pub(super) fn names(&self) -> usize {
        self.files.iter().map(|file| 1 + file.others.len()).sum()
    }
}

/// Says of the files that are differences that they are.
pub(super) fn mark_diffs(plan: &mut Plan) -> Result<()> {
    for path in plan.selection.diffs() {
        let is_it = |file: &&mut PlannedFile| file.path == *path || file.others.contains(path);
        let Some(file) = plan.files.iter_mut().find(is_it) else {
            let text = format!("{path} is said to be a difference, and no file of it is taken");
            return Err(Error::invalid(text).with_path(path.as_path()));
        };
        file.diff = true;
    }
    Ok(())
}

/// Makes files that are names of one inode one file with further names.
pub(super) fn join_hardlinks(files: &mut Vec<PlannedFile>) {
    let mut seen = HashSet::new();
    let is_further = |file: &mut PlannedFile| file.inode.is_some_and(|inode| !seen.insert(inode));
    let further: Vec<PlannedFile> = files.extract_if(.., is_further).collect();
    if further.is_empty() {
        return;
    }
    let mut first: HashMap<NonZeroU32, &mut PlannedFile> = files
        .iter_mut()
        .filter_map(|file| Some((file.inode?, file)))
        .collect();
    for file in further {
        if let Some(first) = file.inode.and_then(|inode| first.get_mut(&inode)) {
            // The promise must hold for every name: the bytes are the same.
            first.read_only &= file.read_only;
            first.others.push(file.path);
        }
    }
}

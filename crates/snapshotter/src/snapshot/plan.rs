//! What a snapshot would take, without taking it: the same walk, and nothing after it.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Context, SnapshotRequest, open_base, pages, planned, walk};
use crate::activity::Activity;
use crate::limit::Limits;
use crate::store::Store;
use crate::words::error::Result;
use crate::words::progress::Warning;
use crate::words::reference::Reference;
use crate::words::total::total;

/// What a snapshot would take.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotPlan {
    /// What it would be called.
    pub reference: Reference,
    /// Whether that version exists already.
    pub exists: bool,
    /// What would be in it, by path.
    pub entries: Vec<PlannedEntry>,
    /// Regular files, second names of one inode included.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Whiteouts of overlayfs.
    pub whiteouts: u64,
    /// Sizes of the files, holes included, each inode once, in bytes.
    pub logical_bytes: u64,
    /// What the filesystem says they occupy, in bytes: about what there is to read.
    pub data_bytes: u64,
    /// What the caller may care about.
    pub warnings: Vec<Warning>,
}

/// A path of a snapshot to be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedEntry {
    /// Relative to the base or output directory.
    pub path: PathBuf,
    /// What it is.
    pub kind: EntryKind,
    /// Whether it is promised not to change.
    pub read_only: bool,
    /// Size in bytes, holes included; zero for what is not a regular file.
    pub size: u64,
}

/// What a path of a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A whiteout of overlayfs, which hides what a lower layer has there.
    Whiteout,
}

impl PlannedEntry {
    pub(crate) fn new(
        path: impl Into<PathBuf>,
        kind: EntryKind,
        read_only: bool,
        size: u64,
    ) -> Self {
        Self {
            path: path.into(),
            kind,
            read_only,
            size,
        }
    }
}

/// Walks and reports. Blocks.
pub(crate) fn run(
    store: &Arc<Store>,
    limits: &Limits,
    request: &SnapshotRequest,
    activity: &Activity,
) -> Result<SnapshotPlan> {
    let reference = request.reference()?;
    pages::check_request(request)?;
    let exists = store.catalog.read(|txn| txn.find(&reference))?.is_some();
    let plan = walked(store, limits, request, activity, |_, plan| Ok(plan))?;
    Ok(SnapshotPlan {
        reference,
        exists,
        files: plan.names() as u64,
        directories: plan.directories.len() as u64,
        symlinks: plan.symlinks.len() as u64,
        whiteouts: plan.whiteouts.len() as u64,
        logical_bytes: total(plan.files.iter().map(|file| file.size)),
        data_bytes: plan.allocated(),
        entries: entries(&plan),
        warnings: Vec::new(),
    })
}

/// Walks, and does something with what was found, of which nothing is stored.
pub(super) fn walked<T>(
    store: &Store,
    limits: &Limits,
    request: &SnapshotRequest,
    activity: &Activity,
    work: impl FnOnce(&Context<'_>, planned::Plan) -> Result<T>,
) -> Result<T> {
    let base = open_base(store, &request.base_dir)?;
    let context = Context {
        store,
        limit: &limits.of_device(base.device()?),
        activity,
        base: &base,
        contents: None,
        link_mode: request.link_mode,
        skip_unreadable: request.skip_unreadable,
        durable: false,
        hidden: false,
    };
    let plan = walk::plan(&context, request)?;
    work(&context, plan)
}

fn entries(plan: &planned::Plan) -> Vec<PlannedEntry> {
    let mut entries = Vec::new();
    for file in &plan.files {
        for path in std::iter::once(&file.path).chain(&file.others) {
            let (size, read_only) = (file.size, file.read_only);
            entries.push(PlannedEntry::new(
                path.as_path(),
                EntryKind::File,
                read_only,
                size,
            ));
        }
    }
    for directory in &plan.directories {
        entries.push(PlannedEntry::new(
            directory.path.as_path(),
            EntryKind::Directory,
            false,
            0,
        ));
    }
    for symlink in &plan.symlinks {
        let path = symlink.path.as_path();
        entries.push(PlannedEntry::new(path, EntryKind::Symlink, false, 0));
    }
    for whiteout in &plan.whiteouts {
        let path = whiteout.path.as_path();
        entries.push(PlannedEntry::new(path, EntryKind::Whiteout, false, 0));
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries
}

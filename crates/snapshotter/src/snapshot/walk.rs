//! What there is to take: the requested paths turned into files, directories and symlinks.
//!
//! Nothing is read but directories. Paths are opened beneath the base directory without following any symlink, so the
//! walk stays inside it, also while somebody changes it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroU32;

use super::describe::cannot_describe;
use super::globs::Globs;
use super::{Context, File, SnapshotRequest, is_base, os_name};
use crate::format::document::{
    Content, DirectoryEntry, DocumentError, FileEntry, MAX_DOCUMENT_BYTES, MAX_ENTRIES,
    SymlinkEntry,
};
use crate::fs::dir::Kind;
use crate::fs::{Dir, Stat, attributes, beneath};
use crate::store::OwnDirectories;
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::progress::WarningKind;
use crate::words::relpath::RelPath;

/// What to do about a tree that one document cannot list.
pub(super) const IN_PARTS: &str = "take several snapshots, each of a part";

/// What a snapshot consists of, each list in the byte order of its paths.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) files: Vec<PlannedFile>,
    pub(super) directories: Vec<DirectoryEntry>,
    pub(super) symlinks: Vec<SymlinkEntry>,
}

/// A regular file: one inode. There may be a million of them.
#[derive(Debug)]
pub(super) struct PlannedFile {
    pub(super) path: RelPath,
    /// Its further names in the snapshot.
    pub(super) others: Vec<RelPath>,
    pub(super) read_only: bool,
    /// Holes included, in bytes.
    pub(super) size: u64,
    /// What it occupies on its disk, in bytes.
    allocated: u64,
    /// Which of the inodes with several names has this one.
    inode: Option<NonZeroU32>,
}

impl Plan {
    /// Bytes the files occupy: what there is to read, about.
    pub(super) fn allocated(&self) -> u64 {
        self.files
            .iter()
            .map(|file| file.allocated.min(file.size))
            .sum()
    }
}

/// Turns a request's files into a plan.
pub(super) fn plan(context: &Context<'_>, request: &SnapshotRequest) -> Result<Plan> {
    let selection = Selection::new(&request.files)?;
    let mut walk = Walk {
        context,
        selection: &selection,
        own: context.store.root.own_directories()?,
        read_only: Globs::new("read_only", &request.read_only)?,
        exclude: Globs::new("exclude", &request.exclude)?,
        plan: Plan::default(),
        pending: Vec::new(),
        inodes: HashMap::new(),
        length: 0,
    };
    for start in selection.starts() {
        walk.start(start)?;
    }
    while let Some(directory) = walk.pending.pop() {
        context.activity.check()?;
        walk.list(directory.as_ref())?;
    }
    let mut plan = walk.plan;
    selection.require_all_found(context.base)?;
    plan.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    plan.directories
        .sort_unstable_by(|a, b| a.path.cmp(&b.path));
    plan.symlinks.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    join_hardlinks(&mut plan.files);
    Ok(plan)
}

/// The requested paths and the promise made for each. The base directory itself is `None`.
struct Selection(BTreeMap<Option<RelPath>, bool>);

impl Selection {
    fn new(files: &[File]) -> Result<Self> {
        let mut selected = BTreeMap::new();
        for file in files {
            let path = selected_path(file)?;
            match selected.insert(path, file.read_only) {
                Some(other) if other != file.read_only => {
                    return Err(Error::invalid(format!(
                        "files lists {} both as read-only and as writable",
                        file.relative_path.display()
                    ))
                    .with_path(&file.relative_path));
                }
                _ => {}
            }
        }
        if selected.is_empty() {
            selected.insert(None, false);
        }
        Ok(Self(selected))
    }

    /// The paths that no other selected path contains: where walking starts.
    fn starts(&self) -> impl Iterator<Item = Option<&RelPath>> {
        self.0.keys().map(Option::as_ref).filter(|path| {
            path.is_none_or(|path| !self.0.contains_key(&None) && !self.contains_ancestor(path))
        })
    }

    fn contains_ancestor(&self, path: &RelPath) -> bool {
        let mut parent = path.parent();
        while let Some(path) = parent {
            parent = path.parent();
            if self.0.contains_key(&Some(path)) {
                return true;
            }
        }
        false
    }

    /// The promise of the nearest selected path at or above this one.
    fn read_only(&self, path: &RelPath) -> bool {
        let mut at = Some(path.clone());
        loop {
            if let Some(read_only) = self.0.get(&at) {
                return *read_only;
            }
            match at {
                Some(path) => at = path.parent(),
                None => return false,
            }
        }
    }

    /// A selected path inside a selected directory was not started from: it must exist all the same.
    fn require_all_found(&self, base: &Dir) -> Result<()> {
        for path in self.0.keys().flatten() {
            if self.0.contains_key(&None) || self.contains_ancestor(path) {
                stat_beneath(base, path)?;
            }
        }
        Ok(())
    }
}

fn selected_path(file: &File) -> Result<Option<RelPath>> {
    let given = &file.relative_path;
    if is_base(given) {
        return Ok(None);
    }
    RelPath::normalize(given).map(Some).map_err(|error| {
        Error::invalid(format!("files: {error}"))
            .with_path(given)
            .with_hint("paths are relative to base_dir and stay inside it")
    })
}

struct Walk<'a> {
    context: &'a Context<'a>,
    selection: &'a Selection,
    /// The store's own directories: opening its catalog would drop the locks on it.
    own: OwnDirectories,
    read_only: Globs,
    exclude: Globs,
    plan: Plan,
    pending: Vec<Option<RelPath>>,
    /// Inodes with several names.
    inodes: HashMap<(u64, u64), NonZeroU32>,
    /// What the document has at least, in bytes.
    length: u64,
}

impl Walk<'_> {
    fn start(&mut self, path: Option<&RelPath>) -> Result<()> {
        let Some(path) = path else {
            self.pending.push(None);
            return Ok(());
        };
        let (parent, stat) = stat_beneath(self.context.base, path)?;
        if parent
            .is_within(|dir| self.own.contains(dir))
            .unwrap_or(false)
        {
            self.skip(Some(path), "it is in the store");
            return Ok(());
        }
        if self.exclude.covers(path) {
            return Ok(());
        }
        self.take(&parent, path.clone(), &stat)
    }

    fn list(&mut self, path: Option<&RelPath>) -> Result<()> {
        let base = self.context.base;
        let opened;
        let dir = match path {
            Some(path) => {
                opened = beneath::open_dir(base, path)?;
                &opened
            }
            None => base,
        };
        let stat = Stat::of_file(dir).at("examine", dir.path())?;
        if self.own.contains(&stat) {
            self.skip(path, "the directory is the store's");
            return Ok(());
        }
        if let Some(path) = path {
            let attributes =
                attributes::of_file(dir, &stat).at("read the attributes of", dir.path())?;
            let path = path.clone();
            let entry = DirectoryEntry { path, attributes };
            self.count(entry.encoded_length())?;
            self.plan.directories.push(entry);
        }
        dir.for_each_name(|name| {
            use std::os::unix::ffi::OsStrExt;
            let name = name.as_bytes();
            let child = match path {
                Some(path) => path.join(name),
                None => RelPath::from_bytes(name),
            }
            .map_err(|error| {
                Error::invalid(error.to_string()).with_path(dir.path_of(os_name(name)))
            })?;
            // A name that is gone by now was not there when the snapshot was taken.
            match dir
                .stat_if_any(os_name(name))
                .at("examine", dir.path_of(os_name(name)))?
            {
                Some(stat) => self.take(dir, child, &stat),
                None => Ok(()),
            }
        })
    }

    fn take(&mut self, parent: &Dir, path: RelPath, stat: &Stat) -> Result<()> {
        if self.exclude.matches(&path) {
            return Ok(());
        }
        let entries =
            self.plan.files.len() + self.plan.directories.len() + self.plan.symlinks.len();
        if entries + self.pending.len() >= MAX_ENTRIES {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("a snapshot cannot have more than {MAX_ENTRIES} entries"),
            )
            .with_hint(IN_PARTS));
        }
        if stat.mode > 0o777 && matches!(stat.kind, Kind::File | Kind::Directory) {
            self.context.activity.warn(
                WarningKind::Attribute,
                Some(path.as_path()),
                "setuid, setgid and sticky bits are not kept",
            );
        }
        match stat.kind {
            Kind::File => self.take_file(path, stat)?,
            Kind::Directory => self.pending.push(Some(path)),
            Kind::Symlink => self.take_symlink(parent, path, stat)?,
            Kind::Socket => self.skip(Some(&path), "a socket cannot be restored"),
            Kind::Fifo => self.skip(Some(&path), "a fifo holds no bytes to restore"),
            Kind::Device => self.skip(Some(&path), "a device belongs to its host"),
        }
        Ok(())
    }

    fn take_file(&mut self, path: RelPath, stat: &Stat) -> Result<()> {
        let entry = FileEntry {
            read_only: self.selection.read_only(&path) || self.read_only.covers(&path),
            path,
            content: Content::SHORTEST,
            size: stat.size,
            attributes: attributes::of_stat(stat),
            hardlink_of: None,
        };
        self.count(entry.encoded_length())?;
        let inode = if stat.nlink > 1 {
            // Counted from one, up to the limit on entries.
            let next = NonZeroU32::MIN.saturating_add(self.inodes.len() as u32);
            Some(*self.inodes.entry(stat.identity()).or_insert(next))
        } else {
            None
        };
        self.plan.files.push(PlannedFile {
            path: entry.path,
            others: Vec::new(),
            read_only: entry.read_only,
            size: stat.size,
            allocated: stat.allocated,
            inode,
        });
        Ok(())
    }

    /// Refuses what no document can list, before any file is read. What an entry is found to have besides comes on top.
    fn count(&mut self, entry: std::result::Result<u64, DocumentError>) -> Result<()> {
        // With a comma, or what is around the lists.
        self.length += entry.map_err(cannot_describe)? + 1;
        if self.length <= MAX_DOCUMENT_BYTES {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unsupported,
            "the list of the snapshot's files would be longer than 256 MiB",
        )
        .with_hint(IN_PARTS))
    }

    fn take_symlink(&mut self, parent: &Dir, path: RelPath, stat: &Stat) -> Result<()> {
        let name = os_name(path.file_name());
        let target = parent
            .read_link(name)
            .at("read the link", parent.path_of(name))?;
        let entry = SymlinkEntry {
            path,
            target,
            attributes: attributes::of_stat(stat),
        };
        self.count(entry.encoded_length())?;
        self.plan.symlinks.push(entry);
        Ok(())
    }

    fn skip(&self, path: Option<&RelPath>, why: &str) {
        let path = path.map(RelPath::as_path);
        self.context
            .activity
            .warn(WarningKind::Skipped, path, format!("skipped: {why}"));
    }
}

/// What is at a path below the base directory, and its parent, opened.
fn stat_beneath(base: &Dir, path: &RelPath) -> Result<(Dir, Stat)> {
    let parent = match path.parent() {
        Some(parent) => beneath::open_dir(base, &parent)?,
        None => base.reopen()?,
    };
    let name = os_name(path.file_name());
    let stat = parent.stat(name).at("examine", parent.path_of(name))?;
    Ok((parent, stat))
}

/// Makes files that are names of one inode one file with further names.
fn join_hardlinks(files: &mut Vec<PlannedFile>) {
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

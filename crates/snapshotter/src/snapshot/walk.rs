//! What there is to take: the requested paths turned into files, directories and symlinks.
//!
//! Nothing is read but directories. Paths are opened beneath the base directory without following any symlink, so the
//! walk stays inside it, also while somebody changes it. A tree that is in use changes all the time: what was found and is
//! gone, or something else, a moment later is left out with a warning, unless it was asked for by name.

use std::collections::{BTreeMap, HashMap};
use std::io;

use super::globs::Globs;
use super::{Context, File, SnapshotRequest};
use crate::fs::beneath::has_gone;
use crate::fs::dir::Kind;
use crate::fs::{Dir, Stat, attributes, beneath};
use crate::store::OwnDirectories;
use crate::words::entry::Attributes;
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::progress::WarningKind;
use crate::words::relpath::{RelPath, is_base, os_name};
use crate::words::total::total;

/// Entries a document can hold.
const MAX_ENTRIES: usize = 1 << 20;

/// What a snapshot consists of, each list in the byte order of its paths.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) files: Vec<PlannedFile>,
    pub(super) directories: Vec<(RelPath, Attributes)>,
    pub(super) symlinks: Vec<PlannedSymlink>,
    pub(super) whiteouts: Vec<(RelPath, Attributes)>,
    pub(super) selection: Selection,
}

/// A regular file: one inode.
#[derive(Debug)]
pub(super) struct PlannedFile {
    pub(super) path: RelPath,
    /// Its further names in the snapshot.
    pub(super) others: Vec<RelPath>,
    pub(super) read_only: bool,
    pub(super) stat: Stat,
}

impl PlannedFile {
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

#[derive(Debug)]
pub(super) struct PlannedSymlink {
    pub(super) path: RelPath,
    pub(super) target: Vec<u8>,
    pub(super) attributes: Attributes,
}

impl Plan {
    /// Bytes the files occupy: what there is to read, about.
    pub(super) fn allocated(&self) -> u64 {
        let files = self.files.iter();
        total(files.map(|file| file.stat.allocated.min(file.stat.size)))
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
    plan.selection = selection;
    plan.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    plan.directories.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    plan.symlinks.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    plan.whiteouts.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    plan.files = join_hardlinks(plan.files);
    Ok(plan)
}

/// The requested paths and the promise made for each. The base directory itself is `None`.
#[derive(Debug, Default)]
pub(super) struct Selection(BTreeMap<Option<RelPath>, bool>);

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

    /// Whether a path was asked for by name, and not for being in a directory.
    pub(super) fn names(&self, path: &RelPath) -> bool {
        self.0.contains_key(&Some(path.clone()))
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
            Some(path) => match beneath::try_open_dir(base, path) {
                Err(error) if has_gone(&error) => {
                    let path_of = base.path().join(path);
                    return self.vanished(path, Error::io("open the directory", &path_of, error));
                }
                result => {
                    opened = result.at("open the directory", base.path().join(path))?;
                    &opened
                }
            },
            None => base,
        };
        let stat = Stat::of_file(dir).at("examine", dir.path())?;
        if self.own.contains(&stat) {
            self.skip(path, "the directory is the store's");
            return Ok(());
        }
        let attributes =
            attributes::of_file(dir, &stat).at("read the attributes of", dir.path())?;
        match (self.names(dir, path), path) {
            (Err(error), Some(path)) if is_removed(&error, dir) => self.vanished(path, error),
            (result, None) => result,
            (result, Some(path)) => {
                self.plan.directories.push((path.clone(), attributes));
                result
            }
        }
    }

    fn names(&mut self, dir: &Dir, path: Option<&RelPath>) -> Result<()> {
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
        let plan = &self.plan;
        let leaves = plan.files.len() + plan.symlinks.len() + plan.whiteouts.len();
        if leaves + plan.directories.len() + self.pending.len() >= MAX_ENTRIES {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("a snapshot cannot have more than {MAX_ENTRIES} entries"),
            )
            .with_hint("take several snapshots, each of a part"));
        }
        match stat.kind {
            Kind::File => self.plan.files.push(PlannedFile {
                read_only: self.selection.read_only(&path) || self.read_only.covers(&path),
                path,
                others: Vec::new(),
                stat: *stat,
            }),
            Kind::Directory => self.pending.push(Some(path)),
            Kind::Symlink => self.take_symlink(parent, path, stat)?,
            Kind::Whiteout => {
                let attributes = attributes::of_stat(stat);
                self.plan.whiteouts.push((path, attributes));
            }
            Kind::Socket => self.skip(Some(&path), "a socket cannot be restored"),
            Kind::Fifo => self.skip(Some(&path), "a fifo holds no bytes to restore"),
            Kind::Device => self.skip(Some(&path), "a device belongs to its host"),
        }
        Ok(())
    }

    fn take_symlink(&mut self, parent: &Dir, path: RelPath, stat: &Stat) -> Result<()> {
        let name = os_name(path.file_name());
        let target = match parent.read_link(name) {
            Err(error) if has_gone(&error) || error.kind() == io::ErrorKind::InvalidInput => {
                let error = Error::io("read the link", &parent.path_of(name), error);
                return self.vanished(&path, error);
            }
            result => result.at("read the link", parent.path_of(name))?,
        };
        self.plan.symlinks.push(PlannedSymlink {
            path,
            target,
            attributes: attributes::of_stat(stat),
        });
        Ok(())
    }

    fn vanished(&self, path: &RelPath, error: Error) -> Result<()> {
        vanished(self.context, self.selection, path, error)
    }

    fn skip(&self, path: Option<&RelPath>, why: &str) {
        let path = path.map(RelPath::as_path);
        self.context
            .activity
            .warn(WarningKind::Skipped, path, format!("skipped: {why}"));
    }
}

/// Leaves out, with a warning, what was found and is not there any more. What was asked for by name is the error it gave.
pub(super) fn vanished(
    context: &Context<'_>,
    selection: &Selection,
    path: &RelPath,
    error: Error,
) -> Result<()> {
    if selection.names(path) {
        return Err(error.with_hint("it was there when the snapshot began; take it again"));
    }
    let message = match error.kind() {
        ErrorKind::NotFound => "left out: it went while the snapshot was taken",
        _ => "left out: it became something else while the snapshot was taken",
    };
    let path = Some(path.as_path());
    context.activity.warn(WarningKind::Vanished, path, message);
    Ok(())
}

/// Whether a directory could not be listed because it has no name any more.
fn is_removed(error: &Error, dir: &Dir) -> bool {
    error.kind() == ErrorKind::NotFound && error.path() == Some(dir.path())
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
fn join_hardlinks(files: Vec<PlannedFile>) -> Vec<PlannedFile> {
    let mut first: HashMap<(u64, u64), usize> = HashMap::new();
    let mut joined: Vec<PlannedFile> = Vec::with_capacity(files.len());
    for file in files {
        if file.stat.nlink > 1 {
            if let Some(&index) = first.get(&file.stat.identity()) {
                // The promise must hold for every name: the bytes are the same.
                joined[index].read_only &= file.read_only;
                joined[index].others.push(file.path);
                continue;
            }
            first.insert(file.stat.identity(), joined.len());
        }
        joined.push(file);
    }
    joined
}

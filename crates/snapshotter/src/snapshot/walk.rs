//! What there is to take: the requested paths turned into files, directories and symlinks.
//!
//! Nothing is read but directories. Paths are opened beneath the base directory without following any symlink, so the
//! walk stays inside it, also while somebody changes it. A tree that is in use changes all the time: what was found and is
//! gone, or something else, a moment later is left out with a warning, unless it was asked for by name.

use std::collections::HashMap;
use std::io;
use std::num::NonZeroU32;

use super::describe::cannot_describe;
use super::planned::{self, Plan, PlannedFile};
use super::selection::Selection;
use super::{Context, SnapshotRequest};
use crate::format::document::{
    Content, DirectoryEntry, DocumentError, FileEntry, MAX_DOCUMENT_BYTES, MAX_ENTRIES,
    SymlinkEntry, WhiteoutEntry,
};
use crate::fs::beneath::has_gone;
use crate::fs::dir::Kind;
use crate::fs::{Dir, Stat, attributes, beneath};
use crate::store::OwnDirectories;
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::patterns::{Patterns, Reach};
use crate::words::progress::WarningKind;
use crate::words::relpath::{RelPath, os_name};

/// What to do about a tree that one document cannot list.
pub(super) const IN_PARTS: &str = "take several snapshots, each of a part";

/// Turns a request's files into a plan.
pub(super) fn plan(context: &Context<'_>, request: &SnapshotRequest) -> Result<Plan> {
    let selection = Selection::new(&request.files)?;
    let mut walk = Walk {
        context,
        request,
        selection: &selection,
        own: context.store.root.own_directories()?,
        read_only: Patterns::new("read_only", &request.read_only, Reach::Top)?,
        exclude: request.excluded()?,
        filesystem: context.base.device()?,
        plan: Plan::default(),
        pending: Vec::new(),
        inodes: HashMap::new(),
        length: 0,
    };
    for start in selection.starts() {
        walk.start(start)?;
        while let Some(directory) = walk.pending.pop() {
            context.activity.check()?;
            walk.list(directory.as_ref())?;
        }
    }
    walk.complain();
    let mut plan = walk.plan;
    let mut inodes: Vec<_> = walk.inodes.into_iter().collect();
    inodes.sort_unstable_by_key(|(_, number)| *number);
    plan.inodes = inodes.into_iter().map(|(identity, _)| identity).collect();
    match selection.require_all_found(context.base) {
        Err(error) if context.leaves_out(&error) => {}
        found => found?,
    }
    plan.selection = selection;
    plan.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    plan.directories
        .sort_unstable_by(|a, b| a.path.cmp(&b.path));
    plan.symlinks.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    plan.whiteouts.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    planned::join_hardlinks(&mut plan.files);
    planned::mark_diffs(&mut plan)?;
    Ok(plan)
}

struct Walk<'a> {
    context: &'a Context<'a>,
    request: &'a SnapshotRequest,
    selection: &'a Selection,
    /// The store's own directories: opening its catalog would drop the locks on it.
    own: OwnDirectories,
    read_only: Patterns,
    exclude: Patterns,
    /// The device of what is walked from.
    filesystem: u64,
    plan: Plan,
    pending: Vec<Option<RelPath>>,
    /// Inodes with several names, numbered from one.
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
        let (parent, stat) = match stat_beneath(self.context.base, path) {
            Err(error) if self.context.leaves_out(&error) => return self.vanished(path, error),
            found => found?,
        };
        self.filesystem = stat.dev;
        if parent
            .is_within(|dir| self.own.contains(dir))
            .unwrap_or(false)
        {
            self.skip(Some(path), "it is in the store");
            return Ok(());
        }
        if self.exclude.excludes(path, stat.kind == Kind::Directory) {
            return Ok(());
        }
        self.take(&parent, path.clone(), &stat)
    }

    fn list(&mut self, path: Option<&RelPath>) -> Result<()> {
        let base = self.context.base;
        let opened;
        let dir = match path {
            Some(path) => match beneath::try_open_dir(base, path) {
                Err(error) if has_gone(&error) || self.context.is_left_out(&error) => {
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
        let Some(path) = path else {
            return self.names(dir, None);
        };
        let before = self.reached();
        let entry = DirectoryEntry {
            path: path.clone(),
            attributes: attributes::of_file(dir, &stat).at("read the attributes of", dir.path())?,
        };
        self.count(entry.encoded_length())?;
        self.plan.directories.push(entry);
        if self.request.one_file_system && stat.dev != self.filesystem {
            return Ok(());
        }
        match self.names(dir, Some(path)) {
            Err(error) if is_removed(&error, dir) => {
                self.forget_since(before);
                self.vanished(path, error)
            }
            result => result,
        }
    }

    /// How many of each sort were found.
    fn reached(&self) -> [usize; 5] {
        let plan = &self.plan;
        [
            plan.files.len(),
            plan.directories.len(),
            plan.symlinks.len(),
            plan.whiteouts.len(),
            self.pending.len(),
        ]
    }

    /// Leaves out what was found in a directory that went while it was listed.
    fn forget_since(&mut self, [files, directories, symlinks, whiteouts, pending]: [usize; 5]) {
        self.plan.files.truncate(files);
        self.plan.directories.truncate(directories);
        self.plan.symlinks.truncate(symlinks);
        self.plan.whiteouts.truncate(whiteouts);
        self.pending.truncate(pending);
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
            let stat = dir.stat_if_any(os_name(name));
            match stat.at("examine", dir.path_of(os_name(name))) {
                Ok(Some(stat)) => self.take(dir, child, &stat),
                Ok(None) => Ok(()),
                Err(error) if self.context.leaves_out(&error) => self.vanished(&child, error),
                Err(error) => Err(error),
            }
        })
    }

    fn take(&mut self, parent: &Dir, path: RelPath, stat: &Stat) -> Result<()> {
        if self.exclude.matches(&path, stat.kind == Kind::Directory) {
            return Ok(());
        }
        let plan = &self.plan;
        let leaves = plan.files.len() + plan.symlinks.len() + plan.whiteouts.len();
        if leaves + plan.directories.len() + self.pending.len() >= MAX_ENTRIES {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("a snapshot cannot have more than {MAX_ENTRIES} entries"),
            )
            .with_hint(IN_PARTS));
        }
        match stat.kind {
            Kind::File => self.take_file(path, stat)?,
            Kind::Directory => self.pending.push(Some(path)),
            Kind::Symlink => self.take_symlink(parent, path, stat)?,
            Kind::Whiteout => self.take_whiteout(path, stat)?,
            Kind::Socket => self.skip(Some(&path), "a socket cannot be restored"),
            Kind::Fifo => self.skip(Some(&path), "a fifo holds no bytes to restore"),
            Kind::BlockDevice if self.selection.names(&path) => self.take_device(path)?,
            Kind::BlockDevice | Kind::Device => {
                self.skip(Some(&path), "a device belongs to its host")
            }
        }
        Ok(())
    }

    fn take_file(&mut self, path: RelPath, stat: &Stat) -> Result<()> {
        let entry = FileEntry {
            read_only: self.selection.read_only(&path) || self.read_only.covers(&path, false),
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
            diff: false,
            is_device: stat.kind == Kind::BlockDevice,
            size: stat.size,
            allocated: stat.allocated,
            inode,
        });
        Ok(())
    }

    /// A device that was asked for by name: how much it holds is known once it is open.
    fn take_device(&mut self, path: RelPath) -> Result<()> {
        let base = self.context.base;
        let whole = base.path().join(&path);
        if !self.request.devices {
            let text = format!("{} is a block device", whole.display());
            return Err(Error::invalid(text)
                .with_path(whole)
                .with_hint("with `devices`, one that is named is read like a file of its size"));
        }
        let opened = beneath::open_file(base, &path, &|| self.context.activity.advance(0));
        match opened
            .and_then(|file| Stat::of_file(&file))
            .at("open", whole)
        {
            Err(error) if self.context.leaves_out(&error) => self.vanished(&path, error),
            stat => self.take_file(path, &stat?),
        }
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
        let target = match parent.read_link(name) {
            Err(error) if has_gone(&error) || error.kind() == io::ErrorKind::InvalidInput => {
                let error = Error::io("read the link", &parent.path_of(name), error);
                return self.vanished(&path, error);
            }
            result => result.at("read the link", parent.path_of(name))?,
        };
        let entry = SymlinkEntry {
            path,
            target,
            attributes: attributes::of_stat(stat),
        };
        self.count(entry.encoded_length())?;
        self.plan.symlinks.push(entry);
        Ok(())
    }

    fn take_whiteout(&mut self, path: RelPath, stat: &Stat) -> Result<()> {
        let attributes = attributes::of_stat(stat);
        let entry = WhiteoutEntry { path, attributes };
        self.count(entry.encoded_length())?;
        self.plan.whiteouts.push(entry);
        Ok(())
    }

    fn vanished(&self, path: &RelPath, error: Error) -> Result<()> {
        vanished(self.context, self.selection, path, error)
    }

    /// Tells of patterns that matched nothing.
    fn complain(&self) {
        let complaints = self.exclude.complaints().into_iter();
        for text in complaints.chain(self.read_only.complaints()) {
            self.context
                .activity
                .warn(WarningKind::Unmatched, None, text);
        }
    }

    fn skip(&self, path: Option<&RelPath>, why: &str) {
        let path = path.map(RelPath::as_path);
        self.context
            .activity
            .warn(WarningKind::Skipped, path, format!("skipped: {why}"));
    }
}

/// Leaves out, with a warning, what was found and is not there any more, or cannot be read. What has gone and was asked for by
/// name is the error it gave.
pub(super) fn vanished(
    context: &Context<'_>,
    selection: &Selection,
    path: &RelPath,
    error: Error,
) -> Result<()> {
    if context.leaves_out(&error) {
        let text = format!("left out: {}", error.line());
        let path = Some(path.as_path());
        context.activity.warn(WarningKind::Unreadable, path, text);
        return Ok(());
    }
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
pub(super) fn stat_beneath(base: &Dir, path: &RelPath) -> Result<(Dir, Stat)> {
    let parent = match path.parent() {
        Some(parent) => beneath::open_dir(base, &parent)?,
        None => base.reopen()?,
    };
    let name = os_name(path.file_name());
    let stat = parent.stat(name).at("examine", parent.path_of(name))?;
    Ok((parent, stat))
}

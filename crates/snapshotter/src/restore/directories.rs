//! Directories: made before their contents, given their attributes after them.
//!
//! Every directory that a restore works in is opened by [`OutputDir::open`], which refuses those of the store itself. A document may
//! name them where the output is above the store, or where the store, or a part of it, is mounted within the output.

use std::collections::HashSet;
use std::io;

use super::Context;
use super::plan::{Plan, PlannedDirectory};
use crate::fs::dir::Kind;
use crate::fs::{Dir, Stat, attributes, beneath};
use crate::store::layout::Root;
use crate::store::{OwnDirectories, Store};
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::progress::WarningKind;
use crate::words::relpath::{RelPath, os_name};

/// A directory nobody but us looks into until it is complete.
const UNFINISHED: u32 = 0o700;

/// A parent the snapshot says nothing of.
const PLAIN: u32 = 0o755;

/// The output of a restore.
pub(super) struct OutputDir<'a> {
    dir: Dir,
    root: &'a Root,
    /// The store's directories, in which nothing is restored.
    own: OwnDirectories,
}

impl<'a> OutputDir<'a> {
    /// Takes a directory that is outside the store.
    ///
    /// # Errors
    /// `InvalidInput` for one inside; the filesystem's.
    pub(super) fn new(store: &'a Store, dir: Dir) -> Result<Self> {
        let root = &store.root;
        let own = root.require_outside("output_dir", &dir)?;
        Ok(Self { dir, root, own })
    }

    /// Opens a directory below the output; `None` is the output itself.
    pub(super) fn open(&self, path: Option<&RelPath>) -> Result<Dir> {
        let Some(path) = path else {
            return self.dir.reopen();
        };
        let dir = beneath::open_dir(&self.dir, path).map_err(|error| match error.kind() {
            ErrorKind::InvalidInput => self.not_a_directory(path).with_source(error),
            _ => error,
        })?;
        let stat = Stat::of_file(&dir).at("examine", dir.path())?;
        if self.own.contains(&stat) {
            return Err(self.root.is_inside(dir.path().display(), dir.path()));
        }
        Ok(dir)
    }

    /// Whether a directory is one of the store's own.
    pub(super) fn is_own(&self, stat: &Stat) -> bool {
        self.own.contains(stat)
    }

    /// The same, or `None` where there is none.
    pub(super) fn open_if_any(&self, path: Option<&RelPath>) -> Result<Option<Dir>> {
        match self.open(path) {
            Ok(dir) => Ok(Some(dir)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Refuses, before anything is written, a plan that leads into the store, or through something that is no directory.
    pub(super) fn require_foreign(&self, plan: &Plan) -> Result<()> {
        let mut absent: Option<&RelPath> = None;
        for PlannedDirectory { path, .. } in &plan.directories {
            // What is in a directory that is not there comes after it.
            if absent.is_some_and(|absent| path.starts_with(absent)) {
                continue;
            }
            match self.open_if_any(Some(path)) {
                Ok(Some(_)) => {}
                Ok(None) => absent = Some(path),
                // The store's own can be opened.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn not_a_directory(&self, path: &RelPath) -> Error {
        let path = self.dir.path().join(path);
        Error::new(
            ErrorKind::AlreadyExists,
            format!(
                "{} must be a directory and is something else",
                path.display()
            ),
        )
        .with_path(path)
        .with_hint("move it away, or restore into another directory")
    }
}

/// Makes the directories that are missing and returns which those were.
pub(super) fn make(context: &Context<'_>, plan: &Plan) -> Result<HashSet<RelPath>> {
    let mut made = HashSet::new();
    for directory in &plan.directories {
        context.activity.check()?;
        let path = &directory.path;
        let parent = context.output.open(path.parent().as_ref())?;
        let name = os_name(path.file_name());
        let mode = if directory.attributes.is_some() {
            UNFINISHED
        } else {
            PLAIN
        };
        if parent
            .make_dir(name, mode)
            .at("create the directory", parent.path_of(name))?
        {
            made.insert(path.clone());
        } else {
            require_directory(context, &parent, path)?;
        }
    }
    Ok(made)
}

fn require_directory(context: &Context<'_>, parent: &Dir, path: &RelPath) -> Result<()> {
    let name = os_name(path.file_name());
    let stat = parent.stat(name).at("examine", parent.path_of(name))?;
    if stat.kind == Kind::Directory {
        return Ok(());
    }
    Err(context.output.not_a_directory(path))
}

/// Sets the attributes of directories, the deepest first, since changing what is inside moves their times. Those that
/// were there before and were not asked for keep theirs.
pub(super) fn finish(context: &Context<'_>, plan: &Plan, made: &HashSet<RelPath>) -> Result<()> {
    for directory in plan.directories.iter().rev() {
        let new = made.contains(&directory.path);
        let wanted = new || (directory.selected && !context.no_clobber);
        if wanted {
            set_attributes(context, directory)?;
        }
    }
    Ok(())
}

fn set_attributes(context: &Context<'_>, directory: &PlannedDirectory) -> Result<()> {
    let Some(wanted) = &directory.attributes else {
        return Ok(());
    };
    let dir = context.output.open(Some(&directory.path))?;
    let unset = attributes::set(&dir, wanted, context.privileged);
    warn_unset(context, &directory.path, unset);
    Ok(())
}

/// Attributes are best effort: what could not be set is in the report.
pub(super) fn warn_unset(context: &Context<'_>, path: &RelPath, unset: Vec<attributes::Unset>) {
    for attributes::Unset { what, error } in unset {
        context.activity.warn(
            WarningKind::Attribute,
            Some(path.as_path()),
            format!("{what} could not be set: {error}"),
        );
    }
}

/// Refuses, before anything is written, to replace what exists.
pub(super) fn refuse_existing(context: &Context<'_>, plan: &Plan) -> Result<()> {
    let mut parent: Option<(Option<RelPath>, Option<Dir>)> = None;
    for path in plan.names() {
        let of = path.parent();
        if parent.as_ref().is_none_or(|(open, _)| *open != of) {
            let dir = context.output.open_if_any(of.as_ref())?;
            parent = Some((of, dir));
        }
        if let Some((_, Some(dir))) = &parent {
            let name = os_name(path.file_name());
            let found = dir.stat_if_any(name).at("examine", dir.path_of(name))?;
            if found.is_some() {
                return Err(exists(&dir.path_of(name)));
            }
        }
    }
    Ok(())
}

/// The error of `no_clobber`.
pub(super) fn exists(path: &std::path::Path) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        format!("{} exists and was not to be replaced", path.display()),
    )
    .with_path(path)
    .with_hint("restore without no_clobber, or into another directory")
}

/// What nobody can rename anything over, because something is mounted on it, is left, with a warning: it may be a file that
/// was put there on purpose, and the rest is wanted all the same.
pub(super) fn unless_mounted<T>(
    context: &Context<'_>,
    path: &RelPath,
    result: Result<T>,
) -> Result<Option<T>> {
    match result {
        Err(error) if is_busy(&error) && is_mounted(context, path)? => {
            let text = "not replaced, and left as it is: something is mounted on it";
            let path = Some(path.as_path());
            context.activity.warn(WarningKind::Mounted, path, text);
            Ok(None)
        }
        result => result.map(Some),
    }
}

/// Other filesystems say that of a file which somebody has open.
fn is_mounted(context: &Context<'_>, path: &RelPath) -> Result<bool> {
    let parent = context.output.open(path.parent().as_ref())?;
    let name = os_name(path.file_name());
    parent.is_mount(name).at("examine", parent.path_of(name))
}

pub(super) fn is_busy(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref());
    source.and_then(io::Error::raw_os_error) == Some(libc::EBUSY)
}

/// Puts a path on the error of giving a file its final name.
pub(super) fn published(result: io::Result<()>, dir: &Dir, name: &[u8]) -> Result<()> {
    let path = dir.path_of(os_name(name));
    match result {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists(&path)),
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => Err(Error::new(
            ErrorKind::AlreadyExists,
            format!(
                "{} is a directory and a file must replace it",
                path.display()
            ),
        )
        .with_path(path)
        .with_hint("move it away, or restore into another directory")),
        result => result.at("create", path),
    }
}

//! What is neither a directory nor a file with bytes: symlinks and whiteouts.

use std::ffi::OsStr;
use std::io;

use super::Context;
use super::directories::{self, published, warn_unset};
use crate::format::document::{SymlinkEntry, WhiteoutEntry};
use crate::fs::dir::Kind;
use crate::fs::{Dir, Stat, attributes, temporary};
use crate::words::entry::Attributes;
use crate::words::error::{At, ErrorKind, Result};
use crate::words::relpath::{RelPath, os_name};

/// Makes a symlink, unless it is there.
pub(super) fn symlink(context: &Context<'_>, entry: &SymlinkEntry) -> Result<()> {
    let target = os_name(&entry.target);
    make(
        context,
        (&entry.path, &entry.attributes),
        |parent, name, stat| {
            let is_symlink = stat.kind == Kind::Symlink;
            Ok(is_symlink && parent.read_link(name)? == entry.target)
        },
        |parent, name| parent.symlink(name, target),
    )
}

/// Makes a whiteout, unless it is there. One that cannot be made is an error: what it hides would be back.
pub(super) fn whiteout(context: &Context<'_>, entry: &WhiteoutEntry) -> Result<()> {
    make(
        context,
        (&entry.path, &entry.attributes),
        |_, _, stat| Ok(stat.kind == Kind::Whiteout),
        |parent, name| parent.whiteout(name, entry.attributes.mode),
    )
    .map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => {
            error.with_hint("a whiteout takes Linux 5.8, or the privilege to make devices")
        }
        _ => error,
    })
}

fn make(
    context: &Context<'_>,
    (path, wanted): (&RelPath, &Attributes),
    is_right: impl FnOnce(&Dir, &OsStr, &Stat) -> io::Result<bool>,
    make: impl Fn(&Dir, &OsStr) -> io::Result<()>,
) -> Result<()> {
    context.activity.check()?;
    let parent = context.output.open(path.parent().as_ref())?;
    let name = os_name(path.file_name());
    let full = || parent.path_of(name);
    let there = parent.stat_if_any(name).at("examine", full())?;
    let result = match there {
        None => make(&parent, name),
        Some(_) if context.no_clobber => return Err(directories::exists(&full())),
        Some(stat) if is_right(&parent, name, &stat).at("examine", full())? => Ok(()),
        Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
    };
    let result = context.or_replace(result, || {
        temporary::replace(&parent, name, |temporary| make(&parent, temporary))
    });
    published(result, &parent, path.file_name())?;
    let unset = attributes::set_unopened(&parent, name, wanted, context.privileged);
    warn_unset(context, path, unset);
    Ok(())
}

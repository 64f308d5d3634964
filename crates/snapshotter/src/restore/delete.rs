//! What is in the output and not in the snapshot goes, where that is asked for.
//!
//! First all of it is found, before anything is written, from the output down and through directories alone: a symlink is a name like
//! any other; what something is mounted on, and a directory that is a store, this one or another, is left with all that is in it. So
//! are sockets, fifos and devices, which no snapshot has (a block device only where it was asked for): they are somebody's who runs.
//! Then the names go, the deepest first, each in a directory that is opened beneath the output without following anything; a
//! directory that something is left in stays.

use std::ffi::OsStr;
use std::io;

use super::Context;
use super::directories::{OutputDir, is_busy};
use super::plan::Plan;
use crate::activity::Activity;
use crate::fs::dir::Kind;
use crate::fs::{Dir, Stat};
use crate::words::error::{At, Error, Result};
use crate::words::progress::WarningKind;
use crate::words::relpath::{RelPath, os_name};

/// What is to go: paths in their order, so that a directory comes before what is in it.
pub(super) type Extra = Vec<(RelPath, Kind)>;

/// Deletes it, and says how many names that were.
pub(super) fn extra(context: &Context<'_>, found: Extra) -> Result<u64> {
    let mut deleted = 0;
    for (path, kind) in found.into_iter().rev() {
        context.activity.check()?;
        deleted += u64::from(delete(context, &path, kind)?);
    }
    Ok(deleted)
}

/// Finds it; nothing, where it is to stay.
pub(super) fn find(output: &OutputDir<'_>, plan: &Plan, activity: &Activity) -> Result<Extra> {
    let Some(listed) = &plan.all else {
        return Ok(Vec::new());
    };
    let (mut found, mut pending) = (Vec::new(), vec![None]);
    while let Some(directory) = pending.pop() {
        activity.check()?;
        let Some(dir) = output.open_if_any(directory.as_ref())? else {
            continue;
        };
        dir.for_each_name(|name| {
            let at = || dir.path_of(name);
            let bytes = std::os::unix::ffi::OsStrExt::as_bytes(name);
            let path = match &directory {
                Some(directory) => directory.join(bytes),
                None => RelPath::from_bytes(bytes),
            };
            let path = path.map_err(|error| Error::invalid(error.to_string()).with_path(at()))?;
            let Some(stat) = dir.stat_if_any(name).at("examine", at())? else {
                return Ok(());
            };
            let is_dir = stat.kind == Kind::Directory;
            let is_extra = !listed.has(&path) && plan.selection.contains(&path, is_dir);
            if is_dir && output.is_own(&stat) || !is_dir && !is_extra {
                return Ok(());
            }
            if let Some((kind, why)) = why_left(&dir, name, &stat)? {
                if is_extra || is_dir {
                    let text = format!("not deleted: {why}");
                    activity.warn(kind, Some(path.as_path()), &text);
                }
                return Ok(());
            }
            if is_dir {
                pending.push(Some(path.clone()));
            }
            if is_extra {
                found.push((path, stat.kind));
            }
            Ok(())
        })?;
    }
    found.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

/// Why a name stays, with all that is below it.
fn why_left(dir: &Dir, name: &OsStr, stat: &Stat) -> Result<Option<(WarningKind, &'static str)>> {
    let at = || dir.path_of(name);
    if dir.is_mount(name).at("examine", at())? {
        return Ok(Some((WarningKind::Mounted, MOUNTED)));
    }
    Ok(match stat.kind {
        Kind::Directory if is_store(dir, name)? => {
            Some((WarningKind::Kept, "it is a store of snapshots"))
        }
        Kind::Socket | Kind::Fifo | Kind::BlockDevice | Kind::Device => {
            Some((WarningKind::Skipped, "it is a socket, a fifo or a device"))
        }
        _ => None,
    })
}

/// Whether a directory is somebody's store.
fn is_store(dir: &Dir, name: &OsStr) -> Result<bool> {
    let metadata =
        dir.open_dir(name)
            .and_then(|inner| match inner.stat_if_any(OsStr::new("metadata")) {
                Ok(Some(stat)) if stat.kind == Kind::Directory => {
                    inner.open_dir(OsStr::new("metadata")).map(Some)
                }
                _ => Ok(None),
            });
    let Some(metadata) = metadata? else {
        return Ok(false);
    };
    let catalog = metadata.stat_if_any(OsStr::new("catalog.db"));
    Ok(catalog.at("examine", metadata.path())?.is_some())
}

fn delete(context: &Context<'_>, path: &RelPath, kind: Kind) -> Result<bool> {
    let Some(parent) = context.output.open_if_any(path.parent().as_ref())? else {
        return Ok(false);
    };
    let name = os_name(path.file_name());
    let gone = match kind {
        Kind::Directory => parent.remove_dir(name),
        _ => parent.unlink(name),
    };
    match gone {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
        gone => match gone.at("delete", parent.path_of(name)) {
            Err(error) if is_busy(&error) => {
                let text = format!("not deleted: {MOUNTED}");
                let path = Some(path.as_path());
                context.activity.warn(WarningKind::Mounted, path, &text);
                Ok(false)
            }
            gone => gone.map(|()| true),
        },
    }
}

const MOUNTED: &str = "something is mounted on it";

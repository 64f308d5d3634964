//! What is in the output and not in the snapshot goes, where that is asked for.
//!
//! First all of it is found, from the output down, through directories alone: a symlink is a name like any other, and a directory on
//! which something is mounted, or that is the store's, is left with all that is in it. Then the names go, the deepest first, each in a
//! directory that is opened beneath the output without following anything; a directory that something is left in stays.

use std::io;

use super::Context;
use super::directories::{OutputDir, is_busy};
use super::plan::Plan;
use crate::activity::Activity;
use crate::fs::dir::Kind;
use crate::words::error::{At, Error, Result};
use crate::words::progress::WarningKind;
use crate::words::relpath::{RelPath, os_name};

/// Deletes it, and says how many names that were.
pub(super) fn extra(context: &Context<'_>, plan: &Plan) -> Result<u64> {
    let mut deleted = 0;
    for (path, kind) in find(context.output, plan, context.activity)?
        .into_iter()
        .rev()
    {
        context.activity.check()?;
        deleted += u64::from(delete(context, &path, kind)?);
    }
    Ok(deleted)
}

/// Finds it: paths in their order, so that a directory comes before what is in it. Nothing, where it is to stay.
pub(super) fn find(
    output: &OutputDir<'_>,
    plan: &Plan,
    activity: &Activity,
) -> Result<Vec<(RelPath, Kind)>> {
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
            if is_dir {
                if output.is_own(&stat) {
                    return Ok(());
                }
                if dir.is_mount(name).at("examine", at())? {
                    leave(activity, &path);
                    return Ok(());
                }
                pending.push(Some(path.clone()));
            }
            if !listed.has(&path) && plan.selection.contains(&path, is_dir) {
                found.push((path, stat.kind));
            }
            Ok(())
        })?;
    }
    found.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
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
                leave(context.activity, path);
                Ok(false)
            }
            gone => gone.map(|()| true),
        },
    }
}

fn leave(activity: &Activity, path: &RelPath) {
    let text = "not deleted, nor anything in it: something is mounted on it";
    activity.warn(WarningKind::Mounted, Some(path.as_path()), text);
}

//! Files that are differences: data are pages that changed, and holes are as the parent has them. Such a file is worth as much as
//! its holes: copied by a program that fills them with zeros it would zero a guest's memory, so whatever makes them doubtful is
//! refused. What is written there is what is meant, zeros included.
//!
//! The parent is named with its digest, and has the file in the same size and under the same names; the filesystem tells holes page
//! by page; there are holes, and no more data than the file has blocks. A copy that lost its holes has none. What nobody can see is
//! left to who writes the file: a copy that made holes of zeros that were written, and blocks that a write through a mapping brought
//! along, which are zeros where nothing was written.

use super::origin::Origin;
use crate::fs::space::hides_pages;
use crate::snapshot::opened::Opened;
use crate::snapshot::planned::{Plan, PlannedFile};
use crate::snapshot::{Format, ParentChoice, SnapshotRequest};
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::extent::ExtentMap;
use crate::words::page::{PAGE_BYTES, pages};
use crate::words::relpath::RelPath;

const PAGE: u64 = PAGE_BYTES as u64;

/// Refuses a request that says of a file that it is a difference, and not from what.
pub(in crate::snapshot) fn check_request(request: &SnapshotRequest) -> Result<()> {
    let Some(file) = request.files.iter().find(|file| file.diff) else {
        return Ok(());
    };
    let is_named = match &request.parent {
        ParentChoice::Snapshot(reference) => reference.manifest_digest().is_some(),
        _ => false,
    };
    let why = match request.format {
        Format::V2 if is_named => return Ok(()),
        Format::V2 => "the parent has to be named with its digest: NAME:VERSION@sha256:…",
        _ => "the snapshot is of format v1, which has no differences",
    };
    Err(refused(ErrorKind::InvalidInput, &file.relative_path, why))
}

/// Refuses differences to what the parent has not.
pub(super) fn check_plan(plan: &Plan, origin: Option<&Origin>) -> Result<()> {
    for file in plan.files.iter().filter(|file| file.diff) {
        let why = match origin.map(|origin| origin.parent.size(&file.path)) {
            Some(Some(size)) if size == file.size => {
                match origin.is_none_or(|origin| is_one_file(origin, file)) {
                    true => continue,
                    false => "it has further names that are not names of it in the parent",
                }
            }
            Some(Some(_)) => "the parent has it in another size",
            Some(None) => "the parent does not have it",
            None => "the parent is of format v1: `convert` makes one of format v2 of it",
        };
        let path = file.path.as_path();
        return Err(refused(ErrorKind::InvalidInput, path, why));
    }
    Ok(())
}

/// Whether the parent has all names of a file as names of it: the holes of another one are as that one was.
fn is_one_file(origin: &Origin, file: &PlannedFile) -> bool {
    let is_further = |name: &RelPath| {
        let mut files = origin.document.entries.files.iter();
        files.any(|entry| entry.path == *name && entry.hardlink_of.as_ref() == Some(&file.path))
    };
    file.others.iter().all(is_further)
}

/// Refuses a file whose holes do not say where it is as the parent's.
pub(super) fn check_holes(path: &RelPath, opened: &Opened<'_>, map: &ExtentMap) -> Result<()> {
    if let Some(why) = hides_pages(&opened.file).at("examine", &opened.path)? {
        return Err(refused(ErrorKind::Unsupported, path.as_path(), why));
    }
    let size = map.size();
    let is_whole = |at: u64| at.is_multiple_of(PAGE) || at == size;
    let extents = map.extents();
    let data: u64 = extents.iter().map(|one| pages(one.len) * PAGE).sum();
    let why = if extents
        .iter()
        .any(|one| !is_whole(one.offset) || !is_whole(one.end()))
    {
        "its holes do not begin and end where pages do"
    } else if map.data_size() == size && size > 0 {
        "it has no holes: it may be a copy that lost them"
    } else if data > opened.before.allocated {
        "it has more data than blocks: the filesystem does not tell its holes"
    } else {
        return Ok(());
    };
    Err(refused(ErrorKind::InvalidInput, path.as_path(), why))
}

/// Whether the file that was opened can still be the difference that was planned.
pub(super) fn is_as_planned(planned: &PlannedFile, opened: &Opened<'_>, to_end: bool) -> bool {
    !planned.diff || (!to_end && opened.before.size == planned.size)
}

fn refused(kind: ErrorKind, path: &std::path::Path, why: &str) -> Error {
    let text = format!("{} cannot be taken as a difference: {why}", path.display());
    Error::new(kind, text)
        .with_path(path)
        .with_hint("take all of the file: which of its pages changed is found by comparing")
}

//! A snapshot out of another one's document: the plan is what the document lists, no directory is walked, and the files are
//! given one by one ([`Contents`]). From there on it is a snapshot like any other.

use std::sync::Arc;
use std::time::Instant;

use super::opened::Contents;
use super::planned::{Plan, PlannedFile};
use super::{Context, SnapshotReport, SnapshotRequest, Until, begin, check_annotations, complete};
use crate::activity::Activity;
use crate::catalog::Sync;
use crate::config::Durability;
use crate::format::document::{Document, FileEntry};
use crate::limit::Limits;
use crate::store::{Operation, Store};
use crate::words::error::Result;

/// What a snapshot is made of.
pub(crate) struct Material<'a> {
    pub(crate) plan: Plan,
    pub(crate) contents: &'a dyn Contents,
    /// What keeps the files where they are.
    pub(crate) operation: &'a Operation,
    /// It is nobody's to find: it has no name here, and goes with the operation.
    pub(crate) hidden: bool,
}

/// What a document lists, and those of its files that have bytes of their own. `data` says how many these are.
pub(crate) fn plan_of<C>(
    document: Document<C>,
    data: impl Fn(&FileEntry<C>) -> u64,
) -> (Plan, Vec<FileEntry<C>>) {
    let (own, further): (Vec<_>, Vec<_>) = document
        .files
        .into_iter()
        .partition(|file| file.hardlink_of.is_none());
    let further = further
        .into_iter()
        .filter_map(|file| Some((file.hardlink_of?, file.path)));
    let planned = own
        .iter()
        .map(|file| PlannedFile::of(file, data(file)))
        .collect();
    let mut plan = Plan {
        files: planned,
        directories: document.directories,
        symlinks: document.symlinks,
        whiteouts: document.whiteouts,
        ..Plan::default()
    };
    plan.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    for (first, path) in further {
        // A document that names no first one was not read.
        if let Ok(at) = plan.files.binary_search_by(|file| file.path.cmp(&first)) {
            plan.files[at].others.push(path);
        }
    }
    (plan, own)
}

/// Takes it; says which row it has. Blocks.
pub(crate) fn from_document(
    store: &Arc<Store>,
    limits: &Limits,
    durability: Durability,
    request: &SnapshotRequest,
    material: Material<'_>,
    activity: &Activity,
) -> Result<(i64, SnapshotReport)> {
    let started = Instant::now();
    let reference = request.reference()?;
    check_annotations(&request.annotations)?;
    let (operation, hidden) = (material.operation, material.hidden);
    let snapshot = match hidden {
        true => store
            .catalog
            .write(Sync::Normal, |txn| operation.pending(txn, &reference))?,
        false => begin(store, operation, &reference, request.force)?,
    };
    let base = &store.root.staging;
    let context = Context {
        store,
        limit: &limits.of_device(base.device()?),
        activity,
        base,
        contents: Some(material.contents),
        link_mode: request.link_mode,
        skip_unreadable: request.skip_unreadable,
        durable: durability == Durability::Full && !hidden,
        hidden,
    };
    let until = match hidden {
        true => Until::Published(operation),
        false => Until::Visible(operation),
    };
    let taken = complete(&context, snapshot, until, request, material.plan)?;
    if !context.durable && !hidden {
        store.sync_later(snapshot);
    }
    Ok((snapshot, taken.report(reference, None, started.elapsed())))
}

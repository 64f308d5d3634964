//! A directory as a document would list it, without anything being stored: somebody else looks at the bytes.

use std::fs::File;
use std::sync::Mutex;

use super::opened::Opened;
use super::plan::walked;
use super::planned::{Plan, PlannedFile};
use super::{Context, SnapshotRequest};
use crate::activity::Activity;
use crate::format::document::{Document, FileEntry};
use crate::limit::Limits;
use crate::lock::lock;
use crate::store::Store;
use crate::words::error::Result;
use crate::words::relpath::RelPath;

/// Looks at a file of so many bytes, under the first of its names.
pub(crate) type Look<'a, C> = dyn Fn(&RelPath, &File, u64) -> Result<C> + Sync + 'a;

/// Lists what a request asks for; a file's content is what `look` says. What has gone meanwhile is left out. Blocks.
pub(crate) fn listed<C: Clone + Send>(
    store: &Store,
    limits: &Limits,
    request: &SnapshotRequest,
    activity: &Activity,
    look: &Look<'_, C>,
) -> Result<Document<C>> {
    walked(store, limits, request, activity, |context, mut plan| {
        let planned = std::mem::take(&mut plan.files);
        let found = Mutex::new(Vec::new());
        context.limit.for_each(activity, planned.len(), |index| {
            let file = seen(context, &planned[index], look)?;
            lock(&found).extend(file.into_iter().flatten());
            Ok(())
        })?;
        let mut files = std::mem::take(&mut *lock(&found));
        files.sort_unstable_by(|a: &FileEntry<C>, b| a.path.cmp(&b.path));
        Ok(document(plan, files))
    })
}

/// A file under each of its names.
fn seen<C: Clone>(
    context: &Context<'_>,
    planned: &PlannedFile,
    look: &Look<'_, C>,
) -> Result<Option<Vec<FileEntry<C>>>> {
    let Ok(opened) = Opened::open(context, planned)? else {
        return Ok(None);
    };
    let size = opened.before.size;
    let first = FileEntry {
        content: look(&planned.path, &opened.file, size)?,
        path: planned.path.clone(),
        read_only: planned.read_only,
        size,
        attributes: opened.attributes,
        hardlink_of: None,
    };
    let further = planned.others.iter().map(|path| FileEntry {
        path: path.clone(),
        hardlink_of: Some(planned.path.clone()),
        ..first.clone()
    });
    let further: Vec<_> = further.collect();
    Ok(Some([vec![first], further].concat()))
}

fn document<C>(plan: Plan, files: Vec<FileEntry<C>>) -> Document<C> {
    Document {
        files,
        directories: plan.directories,
        symlinks: plan.symlinks,
        whiteouts: plan.whiteouts,
    }
}

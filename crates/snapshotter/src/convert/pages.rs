//! Files out of packs, in staging: each frame is verified before it is decoded, and the whole file by its content id. What is
//! made is the new snapshot's blob as it is.

use std::collections::HashMap;

use super::{LARGE, blame, not_listed};
use crate::activity::Activity;
use crate::catalog::Snapshot;
use crate::format::content::ContentId;
use crate::format::document::FileEntry;
use crate::pass::content_of;
use crate::restore::{self, Content, Packs};
use crate::snapshot::{Contents, Given, Plan, plan_of};
use crate::store::{Slot, Store};
use crate::words::entry::Attributes;
use crate::words::error::{At, Error, Result};
use crate::words::relpath::RelPath;

/// Those of a snapshot of format v2.
pub(super) struct Pages<'s> {
    store: &'s Store,
    packs: Packs<'s>,
    /// Nobody hears of bytes while a file is made: they are told of when it is read.
    unobserved: Activity,
    files: HashMap<RelPath, Whole>,
}

/// A file, and where in the page space it begins.
#[derive(Debug)]
struct Whole {
    first: u64,
    size: u64,
    data_size: u64,
    content: Option<ContentId>,
    attributes: Attributes,
}

impl<'s> Pages<'s> {
    pub(super) fn open(
        store: &'s Store,
        source: &Snapshot,
        activity: &Activity,
    ) -> Result<(Plan, Self)> {
        let document = store.catalog.read(|txn| txn.paged_document(source.id))?;
        let packs = Packs::open(store, &document)?;
        let data_size = |file: &FileEntry<Content>| match file.content {
            Content::Pages { first, .. } => packs.data_size(first, file.size),
            Content::Blob { .. } => 0,
        };
        let (plan, files) = plan_of(restore::of_pages(document), data_size);
        let whole = |file: FileEntry<Content>| {
            let data_size = data_size(&file);
            let (first, content) = match file.content {
                Content::Pages { first, id } => (first, id),
                Content::Blob { .. } => (0, None),
            };
            let whole = Whole {
                first,
                size: file.size,
                data_size,
                content,
                attributes: file.attributes,
            };
            (file.path, whole)
        };
        let files = files.into_iter().map(whole).collect();
        let pages = Self {
            store,
            packs,
            unobserved: activity.unobserved(),
            files,
        };
        Ok((plan, pages))
    }

    fn make(&self, whole: &Whole) -> Result<(Slot<'s>, std::fs::File)> {
        let (slot, file) = self.store.create_slot()?;
        let _claim = (whole.data_size >= LARGE)
            .then(|| self.store.claim_space(whole.data_size, &file))
            .transpose()?;
        let activity = &self.unobserved;
        let place = (&file, self.store.root.staging.path());
        self.packs.fill(place, whole.first, whole.size, activity)?;
        let Some(wanted) = whole.content else {
            // What its pages are is all that anybody knew.
            return Ok((slot, file));
        };
        let found = content_of(&file, whole.size, &|| activity.advance(0));
        activity.check()?;
        if found.at("read", self.store.root.staging.path())? != wanted {
            let text = "its pages are not the content that the document says";
            return Err(Error::damaged(text));
        }
        Ok((slot, file))
    }
}

impl Contents for Pages<'_> {
    fn open(&self, path: &RelPath) -> Result<Given<'_>> {
        let whole = self.files.get(path).ok_or_else(|| not_listed(path))?;
        let (slot, file) = self.make(whole).map_err(|error| blame(error, path))?;
        Ok(Given {
            file,
            slot: Some(slot),
            attributes: whole.attributes.clone(),
        })
    }
}

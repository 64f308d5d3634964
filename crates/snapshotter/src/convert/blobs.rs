//! Files out of blobs. A plain one is read where it is, once its bytes were found right and as long as nobody has it open for
//! writing; of any other one a copy is made and verified in the same pass, which nobody else can reach.

use std::collections::HashMap;
use std::fs::File;

use super::{blame, not_listed};
use crate::activity::Activity;
use crate::catalog::Snapshot;
use crate::format::document::FileEntry;
use crate::opened::{self, Verified};
use crate::snapshot::{Contents, Given, Plan, plan_of};
use crate::store::Store;
use crate::words::digest::Checksum;
use crate::words::entry::Attributes;
use crate::words::error::{Error, Result};
use crate::words::relpath::RelPath;

/// Those of a snapshot of format v1.
pub(super) struct Blobs<'s> {
    store: &'s Store,
    activity: &'s Activity,
    snapshot: i64,
    files: HashMap<RelPath, (Option<Checksum>, Attributes)>,
}

impl<'s> Blobs<'s> {
    pub(super) fn open(
        store: &'s Store,
        source: &Snapshot,
        activity: &'s Activity,
    ) -> Result<(Plan, Self)> {
        let (document, known) = store.catalog.read(|txn| {
            Ok((
                txn.document(source.id)?,
                txn.contents_of_snapshot(source.id)?,
            ))
        })?;
        let document = document.map(|file| {
            let found = known.find(&file.content, file.size);
            found.map(|content| (content.checksum, content.data_size))
        });
        let (plan, files) = plan_of(document, |file| {
            file.content.map_or(0, |(_, data_size)| data_size)
        });
        let file = |file: FileEntry<Option<(Checksum, u64)>>| {
            let checksum = file.content.map(|(checksum, _)| checksum);
            (file.path, (checksum, file.attributes))
        };
        let files = files.into_iter().map(file).collect();
        let blobs = Self {
            store,
            activity,
            snapshot: source.id,
            files,
        };
        Ok((plan, blobs))
    }

    fn verified(&self, checksum: &Checksum) -> Result<File> {
        let verified = opened::verified(self.store, self.snapshot, checksum, self.activity)?;
        Ok(match verified {
            Verified::Plain(_, opened) => opened.file,
            Verified::Copy(file) => file,
        })
    }
}

impl Contents for Blobs<'_> {
    fn open(&self, path: &RelPath) -> Result<Given<'_>> {
        let (checksum, attributes) = self.files.get(path).ok_or_else(|| not_listed(path))?;
        let file = checksum.as_ref().ok_or_else(disagree);
        let file = file.and_then(|checksum| self.verified(checksum));
        Ok(Given {
            file: file.map_err(|error| blame(error, path))?,
            slot: None,
            attributes: attributes.clone(),
        })
    }
}

fn disagree() -> Error {
    Error::damaged("the snapshot's document and its blobs disagree")
}

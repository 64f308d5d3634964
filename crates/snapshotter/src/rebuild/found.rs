//! The files under `storage/`, read for what they are.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::activity::Activity;
use crate::catalog::{Form, Salvage};
use crate::format::document::FileEntry;
use crate::fs::Dir;
use crate::limit::Limit;
use crate::store::layout::{Root, content_name, parse_content_name, parse_view_name};
use crate::store::{ReadBlob, read_blob};
use crate::words::digest::{Checksum, Digest};
use crate::words::error::{At, Result};

/// A file with the bytes its name says.
#[derive(Debug)]
pub(super) struct FoundBlob {
    pub(super) read: ReadBlob,
    /// The view it was found as, where the blob's own file is gone or bad.
    view: Option<OsString>,
}

/// What is under `storage/`.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) blobs: BTreeMap<Checksum, FoundBlob>,
    by_digest: HashMap<(Digest, u64), Checksum>,
    /// Names of the content directory that are no blobs.
    wrong: Vec<OsString>,
}

/// Reads everything. Changes nothing.
pub(super) fn read_all(
    root: &Root,
    limit: &Limit,
    salvage: &Salvage,
    activity: &Activity,
) -> Result<Found> {
    let reading = Reading {
        salvage,
        activity,
        found: Mutex::default(),
    };
    let names = root.content.names()?;
    limit.for_each(activity, names.len(), |index| {
        reading.name(&root.content, &names[index], None)
    })?;
    let views = root.views.names()?;
    limit.for_each(activity, views.len(), |index| {
        let name = &views[index];
        match parse_view_name(name) {
            Some((checksum, _)) if !reading.has(&checksum) => {
                reading.name(&root.views, name, Some(checksum))
            }
            _ => Ok(()),
        }
    })?;
    let mut found = reading
        .found
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let rows = found.blobs.iter().map(|(checksum, blob)| {
        let read = &blob.read;
        ((read.hashes.digest, read.map.size()), *checksum)
    });
    found.by_digest = rows.collect();
    Ok(found)
}

struct Reading<'a> {
    salvage: &'a Salvage,
    activity: &'a Activity,
    found: Mutex<Found>,
}

impl Reading<'_> {
    fn found(&self) -> std::sync::MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, checksum: &Checksum) -> bool {
        self.found().blobs.contains_key(checksum)
    }

    /// Reads a blob's file, or the view of the blob with this checksum.
    fn name(&self, dir: &Dir, name: &OsString, view_of: Option<Checksum>) -> Result<()> {
        self.activity.check()?;
        let stands_for = match view_of {
            Some(checksum) => Some((checksum, Form::Plain)),
            None => parse_content_name(name),
        };
        let read = match &stands_for {
            Some((checksum, form)) => {
                let known = self.salvage.maps.get(checksum).cloned();
                read_blob(dir, name, *form, checksum, known, self.activity)?
            }
            None => None,
        };
        let mut found = self.found();
        match (stands_for, read) {
            (Some((checksum, _)), Some(read)) => {
                self.activity.advance(read.map.data_size()).ok();
                let view = view_of.map(|_| name.clone());
                found.add(checksum, FoundBlob { read, view });
            }
            _ if view_of.is_none() => found.wrong.push(name.clone()),
            // A view is a cache: the next sweep takes it.
            _ => {}
        }
        Ok(())
    }
}

impl Found {
    /// Where a crash left both forms, the plain file is the blob, as it is after the change of a form; the other is litter.
    fn add(&mut self, checksum: Checksum, blob: FoundBlob) {
        if blob.read.form == Form::Plain || !self.blobs.contains_key(&checksum) {
            self.blobs.insert(checksum, blob);
        }
    }

    pub(super) fn data_bytes(&self) -> u64 {
        let blobs = self.blobs.values();
        blobs.map(|blob| blob.read.map.data_size()).sum()
    }

    /// The blob with a file's bytes.
    pub(super) fn of(&self, file: &FileEntry) -> Option<(&Checksum, &ReadBlob)> {
        let digest = file.content.digest();
        let checksum = file
            .content
            .checksum()
            .or_else(|| self.by_digest.get(&(digest, file.size)).copied())?;
        let (checksum, blob) = self.blobs.get_key_value(&checksum)?;
        let read = &blob.read;
        let same = read.hashes.digest == digest && read.map.size() == file.size;
        same.then_some((checksum, read))
    }

    /// Moves what is no blob aside and gives views that are now the only copy the blob's name. The caller holds the names
    /// lock. Says where what was moved is.
    pub(super) fn settle(&self, root: &Root) -> Result<Vec<PathBuf>> {
        let aside = self
            .wrong
            .iter()
            .map(|name| root.set_aside(&root.content, name));
        let aside = aside.collect::<Result<_>>()?;
        for (checksum, blob) in &self.blobs {
            if let Some(view) = &blob.view {
                let name = content_name(checksum, Form::Plain);
                root.views
                    .rename(view, &root.content, &name)
                    .at("store", root.content.path_of(&name))?;
            }
        }
        Ok(aside)
    }
}

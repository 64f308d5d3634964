//! Whether cache entries have the contents that they are named by. One that has not is forgotten: the next restore makes it
//! anew, out of packs.

use std::io;

use crate::activity::Activity;
use crate::format::content::ContentId;
use crate::fs::is_bad_medium;
use crate::limit::Limit;
use crate::pass::content_of;
use crate::store::{CacheEntry, Key, PathHash, Store, path_hash};
use crate::words::digest::Sha256;
use crate::words::error::{At, ErrorKind, Result};

/// Reads all entries, and forgets those that are not right.
pub(super) fn verify(store: &Store, limit: &Limit, activity: &Activity) -> Result<()> {
    if store.is_read_only() {
        // Where none can be forgotten, none is used.
        return Ok(());
    }
    let entries = store.cache_entries()?;
    limit.for_each(activity, entries.len(), |index| {
        let entry = &entries[index];
        activity.check()?;
        if is_right(store, entry, activity)? {
            return Ok(());
        }
        tracing::warn!(entry = ?entry.entry.key, "a cache entry was not right and is forgotten");
        store.drop_cache_entry(entry)
    })
}

/// One of a snapshot that is not here any more is of no use, and not right.
fn is_right(store: &Store, entry: &CacheEntry, activity: &Activity) -> Result<bool> {
    let content = match entry.entry.key {
        Key::Linked { content, .. } => Some(content),
        Key::Base { path } => content_of_file(store, &entry.entry.manifest, path)?,
    };
    let (Some(content), Some(file)) = (content, store.open_cache_entry(entry)?) else {
        return Ok(false);
    };
    let found = content_of(&file, entry.stat.size, &|| activity.advance(0));
    activity.check()?;
    match found {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof || is_bad_medium(&error) => {
            Ok(false)
        }
        found => Ok(found.at("read", store.root.dir.path())? == content),
    }
}

/// What a file of a snapshot is called, where that is known.
fn content_of_file(store: &Store, manifest: &Sha256, path: PathHash) -> Result<Option<ContentId>> {
    let document = store.catalog.read(|txn| match txn.of_manifest(manifest)? {
        Some(snapshot) => txn.paged_document(snapshot.id).map(Some),
        None => Ok(None),
    });
    let document = match document {
        // That is told of where snapshots are looked at.
        Err(error) if error.kind() == ErrorKind::Damaged => return Ok(None),
        document => document?,
    };
    let Some(document) = document else {
        return Ok(None);
    };
    let mut files = document.entries.files.iter();
    Ok(files
        .find(|file| path_hash(&file.path) == path)
        .and_then(|file| file.content))
}

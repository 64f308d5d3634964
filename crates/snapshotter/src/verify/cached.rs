//! Whether cache entries have the contents that they are named by. One that has not is forgotten: the next restore makes it
//! anew, out of packs.

use std::collections::{HashMap, HashSet};
use std::io;

use crate::activity::Activity;
use crate::format::content::ContentId;
use crate::format::document::paged::PagedDocument;
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
    let contents = contents_of(store, &entries)?;
    limit.for_each(activity, entries.len(), |index| {
        let entry = &entries[index];
        activity.check()?;
        if is_right(store, entry, &contents, activity)? {
            return Ok(());
        }
        tracing::warn!(entry = ?entry.entry.key, "a cache entry was not right and is forgotten");
        store.drop_cache_entry(entry)
    })
}

/// One of a snapshot that is not here any more is of no use, and not right.
fn is_right(
    store: &Store,
    entry: &CacheEntry,
    contents: &Contents,
    activity: &Activity,
) -> Result<bool> {
    let content = match entry.entry.key {
        Key::Linked { content, .. } => Some(content),
        Key::Base { path } => contents.get(&(entry.entry.manifest, path)).copied(),
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

/// What files of snapshots are called, where that is known.
type Contents = HashMap<(Sha256, PathHash), ContentId>;

/// Those that entries are of. Each document is read once.
fn contents_of(store: &Store, entries: &[CacheEntry]) -> Result<Contents> {
    let mut wanted = HashMap::<Sha256, HashSet<PathHash>>::new();
    for entry in entries {
        if let Key::Base { path } = entry.entry.key {
            wanted.entry(entry.entry.manifest).or_default().insert(path);
        }
    }
    let mut contents = Contents::new();
    for (manifest, paths) in wanted {
        let Some(document) = document(store, &manifest)? else {
            continue;
        };
        let files = document.entries.files.iter().filter_map(|file| {
            let path = path_hash(&file.path);
            let content = file.content.filter(|_| paths.contains(&path))?;
            Some(((manifest, path), content))
        });
        contents.extend(files);
    }
    Ok(contents)
}

fn document(store: &Store, manifest: &Sha256) -> Result<Option<PagedDocument>> {
    let document = store.catalog.read(|txn| match txn.of_manifest(manifest)? {
        Some(snapshot) => txn.paged_document(snapshot.id).map(Some),
        None => Ok(None),
    });
    match document {
        // That is told of where snapshots are looked at.
        Err(error) if error.kind() == ErrorKind::Damaged => Ok(None),
        document => document,
    }
}

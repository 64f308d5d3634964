//! Whether the catalog holds together: the database itself, and for each snapshot that its description is the one it was
//! stored with and that every file in it has its blob.

use std::collections::{HashMap, HashSet};

use crate::catalog::{Blob, Snapshot};
use crate::format::document::{Document, FileEntry};
use crate::store::Store;
use crate::words::digest::{Checksum, Digest};
use crate::words::error::{ErrorKind, Result};

/// What is wrong with a snapshot's rows.
pub(super) struct Fault {
    pub(super) snapshot: Snapshot,
    /// For people.
    pub(super) problem: String,
    /// Contents that have no row, or one that says something else of them.
    pub(super) lost: Vec<(Digest, Option<Checksum>)>,
}

/// A snapshot's document, if it is what was stored, and the rows of its blobs.
type Read = (std::result::Result<Document, String>, Vec<Blob>);

/// `None`: it was removed meanwhile.
fn read(store: &Store, snapshot: &Snapshot) -> Result<Option<Read>> {
    let read = store.catalog.read(|txn| {
        if txn.snapshot(snapshot.id)?.is_none() {
            return Ok(None);
        }
        let blobs = txn.blobs_of_snapshot(snapshot.id)?;
        Ok(Some((txn.document(snapshot.id), blobs)))
    })?;
    let Some((document, blobs)) = read else {
        return Ok(None);
    };
    let document = match document {
        Ok(document) => Document::parse(&document)
            .map_err(|error| format!("the snapshot's document is not valid: {error}")),
        Err(error) if error.kind() == ErrorKind::Damaged => Err(error.line()),
        Err(error) => return Err(error),
    };
    Ok(Some((document, blobs)))
}

/// Looks at one snapshot; `None`: all is well, or it was removed meanwhile.
pub(super) fn fault(store: &Store, snapshot: &Snapshot) -> Result<Option<Fault>> {
    let Some((document, blobs)) = read(store, snapshot)? else {
        return Ok(None);
    };
    let fault = |problem, lost| Fault {
        snapshot: snapshot.clone(),
        problem,
        lost,
    };
    let document = match document {
        Ok(document) => document,
        Err(problem) => return Ok(Some(fault(problem, Vec::new()))),
    };
    let lost: Vec<&FileEntry> = lost(&document, &blobs).collect();
    let Some(first) = lost.first() else {
        return Ok(None);
    };
    let problem = format!(
        "the catalog has lost the contents of files: {}, {} for one",
        lost.len(),
        first.path
    );
    let contents = lost.iter().map(|file| {
        let content = &file.content;
        (content.digest(), content.checksum())
    });
    Ok(Some(fault(problem, contents.collect())))
}

/// The blobs of a snapshot that its document does not name; `None` while something is wrong with it.
pub(super) fn unnamed(store: &Store, snapshot: &Snapshot) -> Result<Option<Vec<Checksum>>> {
    let Some((Ok(document), blobs)) = read(store, snapshot)? else {
        return Ok(None);
    };
    if lost(&document, &blobs).next().is_some() {
        return Ok(None);
    }
    let contents = || document.files.iter().map(|file| &file.content);
    let named: HashSet<Checksum> = contents()
        .filter_map(|content| content.checksum())
        .collect();
    // Those of the Go library have no checksums.
    let by_digest: HashSet<Digest> = contents()
        .filter(|content| content.checksum().is_none())
        .map(|content| content.digest())
        .collect();
    let is_named = |blob: &Blob| named.contains(&blob.checksum) || by_digest.contains(&blob.digest);
    let unnamed = blobs.iter().filter(|blob| !is_named(blob));
    Ok(Some(unnamed.map(|blob| blob.checksum).collect()))
}

/// The files whose contents the snapshot's blobs do not have. By the rules by which a restore finds them.
fn lost<'d>(document: &'d Document, blobs: &[Blob]) -> impl Iterator<Item = &'d FileEntry> {
    let by_checksum: HashMap<Checksum, (Digest, u64)> = blobs
        .iter()
        .map(|blob| (blob.checksum, (blob.digest, blob.size)))
        .collect();
    let by_digest: HashMap<Digest, Checksum> = blobs
        .iter()
        .map(|blob| (blob.digest, blob.checksum))
        .collect();
    let files = document.files.iter();
    let is_lost = move |file: &&FileEntry| {
        let digest = file.content.digest();
        let checksum = file.content.checksum();
        let blob = checksum
            .or_else(|| by_digest.get(&digest).copied())
            .and_then(|checksum| by_checksum.get(&checksum));
        blob != Some(&(digest, file.size))
    };
    files.filter(is_lost)
}

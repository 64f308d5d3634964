//! Whether the catalog holds together: the database itself, and for each snapshot that its description is the one it was
//! stored with and that every file in it has its blob.

use std::collections::HashSet;

use crate::catalog::{Content, Contents, Snapshot};
use crate::format::document::paged::PagedDocument;
use crate::format::document::{Document, FileEntry};
use crate::store::{Store, pack_key};
use crate::words::digest::{Checksum, Digest};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::format::Format;

/// What is wrong with a snapshot's rows.
pub(super) struct Fault {
    pub(super) snapshot: Snapshot,
    /// For people.
    pub(super) problem: String,
    /// Contents that have no row, or one that says something else of them.
    pub(super) lost: Vec<(Digest, Option<Checksum>)>,
    /// Packs that the snapshot does not reference.
    pub(super) lost_packs: Vec<Checksum>,
    /// All packs are here and right, and do not have the contents.
    pub(super) is_of_contents: bool,
}

impl Fault {
    fn new(snapshot: &Snapshot, problem: String) -> Self {
        Self {
            snapshot: snapshot.clone(),
            problem,
            lost: Vec::new(),
            lost_packs: Vec::new(),
            is_of_contents: false,
        }
    }

    pub(super) fn of_contents(snapshot: &Snapshot, problem: String) -> Self {
        Self {
            is_of_contents: true,
            ..Self::new(snapshot, problem)
        }
    }
}

/// A snapshot's document, if it is what was stored, and the contents that it may name.
type Read = (std::result::Result<Document, String>, Contents);

/// `None`: it was removed meanwhile.
fn read(store: &Store, snapshot: &Snapshot) -> Result<Option<Read>> {
    store.catalog.read(|txn| {
        if txn.snapshot(snapshot.id)?.is_none() {
            return Ok(None);
        }
        let contents = txn.contents_of_snapshot(snapshot.id)?;
        let document = match txn.document(snapshot.id) {
            Err(error) if error.kind() == ErrorKind::Damaged => Err(error.to_string()),
            document => Ok(document?),
        };
        Ok(Some((document, contents)))
    })
}

/// The document of a snapshot of format v2, if it is what was stored. `None`: it was removed meanwhile.
pub(super) fn paged(
    store: &Store,
    snapshot: &Snapshot,
) -> Result<Option<std::result::Result<PagedDocument, String>>> {
    store.catalog.read(|txn| {
        if txn.snapshot(snapshot.id)?.is_none() {
            return Ok(None);
        }
        match txn.paged_document(snapshot.id) {
            Err(error) if is_about_it(&error) => Ok(Some(Err(error.to_string()))),
            document => Ok(Some(Ok(document?))),
        }
    })
}

/// The document is damaged, or of a release to come: no reason to leave the others unread.
fn is_about_it(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported)
}

fn paged_fault(store: &Store, snapshot: &Snapshot) -> Result<Option<Fault>> {
    let document = match paged(store, snapshot)? {
        None => return Ok(None),
        Some(Err(problem)) => return Ok(Some(Fault::new(snapshot, problem))),
        Some(Ok(document)) => document,
    };
    let there = store
        .catalog
        .read(|txn| txn.packs_of_snapshot(snapshot.id))?;
    let there: HashSet<Checksum> = there.iter().map(|pack| pack.key).collect();
    let named = document.packs.iter().map(|pack| pack_key(pack.id));
    let lost_packs: Vec<Checksum> = named.filter(|key| !there.contains(key)).collect();
    Ok(lost_packs.first().map(|first| {
        let problem = format!(
            "the catalog has lost packs: {}, {first} for one",
            lost_packs.len()
        );
        Fault {
            lost_packs: lost_packs.clone(),
            ..Fault::new(snapshot, problem)
        }
    }))
}

/// Looks at one snapshot; `None`: all is well, or it was removed meanwhile.
pub(super) fn fault(store: &Store, snapshot: &Snapshot) -> Result<Option<Fault>> {
    if snapshot.format == Format::V2 {
        return paged_fault(store, snapshot);
    }
    let Some((document, contents)) = read(store, snapshot)? else {
        return Ok(None);
    };
    let fault = |problem, lost| Fault {
        lost,
        ..Fault::new(snapshot, problem)
    };
    let document = match document {
        Ok(document) => document,
        Err(problem) => return Ok(Some(fault(problem, Vec::new()))),
    };
    let lost: Vec<&FileEntry> = lost(&document, &contents).collect();
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
    if snapshot.format == Format::V2 {
        return unnamed_packs(store, snapshot);
    }
    let Some((Ok(document), there)) = read(store, snapshot)? else {
        return Ok(None);
    };
    if lost(&document, &there).next().is_some() {
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
    let is_named =
        |one: &&Content| named.contains(&one.checksum) || by_digest.contains(&one.digest);
    let unnamed = there.all().iter().filter(|one| !is_named(one));
    Ok(Some(unnamed.map(|one| one.checksum).collect()))
}

fn unnamed_packs(store: &Store, snapshot: &Snapshot) -> Result<Option<Vec<Checksum>>> {
    let Some(Ok(document)) = paged(store, snapshot)? else {
        return Ok(None);
    };
    let named: HashSet<Checksum> = document
        .packs
        .iter()
        .map(|pack| pack_key(pack.id))
        .collect();
    let there = store
        .catalog
        .read(|txn| txn.packs_of_snapshot(snapshot.id))?;
    let there: Vec<Checksum> = there.iter().map(|pack| pack.key).collect();
    if named.iter().any(|key| !there.contains(key)) {
        return Ok(None);
    }
    Ok(Some(
        there
            .into_iter()
            .filter(|key| !named.contains(key))
            .collect(),
    ))
}

/// The files whose contents the snapshot does not reference. By the rules by which a restore finds them.
fn lost<'d>(document: &'d Document, contents: &'d Contents) -> impl Iterator<Item = &'d FileEntry> {
    let is_lost = |file: &&FileEntry| contents.find(&file.content, file.size).is_none();
    document.files.iter().filter(is_lost)
}

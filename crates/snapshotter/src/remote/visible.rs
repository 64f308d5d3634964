//! How a fetched snapshot becomes visible: what it is called here, what it amounts to, and where it was seen, in one
//! transaction.

use super::fetch::Context;
use super::resolve::Resolved;
use crate::catalog::{Finished, Snapshot, State, Sync, Totals, Txn};
use crate::format::document::{Document, FileEntry};
use crate::store::{Operation, Store, now};
use crate::words::digest::Sha256;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::reference::Reference;

/// A snapshot that is asked for by digest alone has no version, but needs a name here: the one that OCI's referrers
/// fallback uses for tags that stand for a digest.
pub(super) fn versioned(reference: &Reference) -> Result<Reference> {
    match (reference.version(), reference.manifest_digest()) {
        (None, Some(digest)) => digest_reference(reference.name(), digest),
        _ => Ok(reference.clone()),
    }
}

/// What a snapshot is called that has no other name.
pub(super) fn digest_reference(name: &str, digest: Sha256) -> Result<Reference> {
    Reference::new(name, format!("sha256-{}", digest.hex())).map_err(invalid)
}

fn invalid(error: crate::words::reference::ReferenceError) -> Error {
    Error::invalid(error.to_string())
}

/// Refuses to replace a snapshot that is pinned, or is nowhere else, or that could not be called by its digest.
pub(super) fn require_replaceable(txn: &Txn<'_>, snapshot: i64) -> Result<()> {
    let Some(old) = txn.snapshot(snapshot)? else {
        return Ok(());
    };
    let why = match (old.pinned, txn.publications_of(old.id)?.is_empty()) {
        (true, _) => "is pinned",
        (_, true) => "is nowhere else",
        _ if by_digest(txn, &old)? == ByDigest::Taken => {
            "cannot be called by its digest: another one is"
        }
        _ => return Ok(()),
    };
    let text = format!(
        "{} is here as {}, which {why}: it is not replaced",
        old.reference, old.manifest_digest
    );
    Err(Error::new(ErrorKind::AlreadyExists, text)
        .with_reference(&old.reference)
        .with_hint("fetch the other one by its digest, or remove this one first"))
}

/// Who is called by a snapshot's digest.
#[derive(PartialEq)]
enum ByDigest {
    Nobody,
    /// The same snapshot, once more.
    Itself,
    /// Another one, or it has no other name.
    Taken,
}

fn by_digest(txn: &Txn<'_>, old: &Snapshot) -> Result<ByDigest> {
    let name = digest_reference(old.reference.name(), old.manifest_digest)?;
    Ok(match txn.find(&name)? {
        None => ByDigest::Nobody,
        Some(there) if there.id == old.id || there.manifest_digest != old.manifest_digest => {
            ByDigest::Taken
        }
        Some(_) => ByDigest::Itself,
    })
}

/// Takes the name from the snapshot that has it. That the name is another one's in the registry says that this one may be
/// nowhere else any more, so it stays, called by its digest, until a collection has asked.
fn make_way(txn: &Txn<'_>, old: i64, reference: &Reference) -> Result<()> {
    let old = txn.snapshot(old)?;
    // Somebody may have taken the name from it meanwhile.
    let Some(old) = old.filter(|old| old.reference.version() == reference.version()) else {
        return Ok(());
    };
    require_replaceable(txn, old.id)?;
    match by_digest(txn, &old)? {
        // Its files go with the call's lease.
        ByDigest::Itself => txn.mark_removed(old.id),
        _ => {
            let name = digest_reference(old.reference.name(), old.manifest_digest)?;
            txn.rename(old.id, name.version().unwrap_or_default())
        }
    }
}

/// Gives the name of a snapshot back to the one that it took it from, and calls it by its digest: it is nowhere else. Somebody
/// who removed or pinned it meanwhile has decided otherwise.
pub(super) fn give_back(txn: &Txn<'_>, taken: i64, old: i64) -> Result<Option<Reference>> {
    let Some(taken) = txn.snapshot(taken)?.filter(|taken| !taken.pinned) else {
        return Ok(None);
    };
    let name = digest_reference(taken.reference.name(), taken.manifest_digest)?;
    match by_digest(txn, &taken)? {
        ByDigest::Taken => return Ok(None),
        ByDigest::Itself => txn.mark_removed(taken.id)?,
        ByDigest::Nobody => txn.rename(taken.id, name.version().unwrap_or_default())?,
    }
    txn.mark_visible(old)?;
    Ok(Some(name))
}

/// Makes the snapshot visible, or gives way to one that somebody else fetched meanwhile.
pub(super) fn finish(
    context: &Context<'_>,
    operation: &Operation,
    snapshot: i64,
    resolved: &Resolved,
    (totals, replaces): (Totals, Option<i64>),
) -> Result<i64> {
    let store = context.store;
    let reference = &resolved.reference;
    let seen = context
        .remote
        .publication(reference, &resolved.manifest, now())?;
    let record = |txn: &Txn<'_>, id: i64| {
        txn.record_publication(id, &seen)?;
        let seen_by = context.remote.seen_by(&seen.content);
        txn.record_objects(id, &seen.content, seen_by)
    };
    // The last moment to give up: from here on the snapshot exists.
    context.activity.check()?;
    // What is replaced may be unlinked.
    let sync = replaces.map_or(Sync::Normal, |_| Sync::Full);
    store.catalog.write(sync, |txn| {
        if let Some(old) = replaces {
            make_way(txn, old, reference)?;
        }
        let by_digest = digest_reference(reference.name(), Sha256::of(&resolved.manifest))?;
        let taken = match reference.version() {
            Some(version) => {
                let bare = Reference::new(reference.name(), version).map_err(invalid)?;
                txn.find(&bare)?.is_some()
            }
            None => true,
        };
        let there = match txn.find(reference)? {
            None if taken => txn.find(&by_digest)?,
            there => there,
        };
        if let Some(there) = there {
            operation.lease(txn, there.id)?;
            if there.manifest_digest == seen.manifest_digest {
                record(txn, there.id)?;
            }
            return Ok(there.id);
        }
        if taken {
            txn.rename(snapshot, by_digest.version().unwrap_or_default())?;
        }
        txn.finish_snapshot(
            snapshot,
            &Finished {
                format: resolved.said.format(),
                state: State::Fetched,
                manifest: &resolved.manifest,
                document: &resolved.document,
                totals,
                now: now(),
            },
        )?;
        record(txn, snapshot)?;
        Ok(snapshot)
    })
}

/// What a snapshot of format v1 amounts to, whose blobs are here.
pub(super) fn totals(store: &Store, snapshot: i64, document: &Document) -> Result<Totals> {
    let contents = store
        .catalog
        .read(|txn| txn.contents_of_snapshot(snapshot))?;
    let data_size = |file: &FileEntry| {
        let content = contents.find(&file.content, file.size);
        content.map_or(0, |content| content.data_size)
    };
    Ok(Totals::of(document, data_size))
}

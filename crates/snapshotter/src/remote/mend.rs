//! Fetching again what is damaged or missing of a snapshot that is here, where it is known to be elsewhere.

use super::fetch::{self, Context, Fetched};
use super::resolve::{Said, resolve};
use super::runtime::wait;
use super::{Place, formats_differ, parse_manifest};
use crate::catalog::{Snapshot, Sync};
use crate::format::artifact::paged::AnyManifest;
use crate::words::error::{ErrorKind, Result};
use crate::words::format::Format;

/// Fetches what is damaged or missing of a snapshot that is here: blobs, and what describes it. What is nowhere else has
/// no other copy.
pub(crate) fn repair(context: &Context<'_>, snapshot: i64) -> Result<Fetched> {
    let row = context.store.catalog.read(|txn| txn.snapshot(snapshot))?;
    match row {
        Some(row) if is_elsewhere(context, &row)? => mend(context, &row),
        _ => {
            let here = context.store.catalog.read(|txn| {
                let blobs = txn.contents_of_snapshot(snapshot)?.all().len();
                Ok(blobs + txn.packs_of_snapshot(snapshot)?.len())
            })?;
            Ok(Fetched {
                snapshot,
                reused_blobs: here as u64,
                ..Fetched::default()
            })
        }
    }
}

/// Also where it was seen in another registry: this one may be that by another name, and what comes is checked.
fn is_elsewhere(context: &Context<'_>, row: &Snapshot) -> Result<bool> {
    let catalog = &context.store.catalog;
    catalog.read(|txn| Ok(!txn.publications_of(row.id)?.is_empty()))
}

/// Where something turns out not to be there, the snapshot is not known to be there any more.
fn mend(context: &Context<'_>, row: &Snapshot) -> Result<Fetched> {
    fetch_again(context, row).inspect_err(|error| {
        if error.kind() == ErrorKind::NotFound
            && is_in_sight(context, row)
            && let Err(error) = forget(context, row)
        {
            tracing::debug!(%error, "a snapshot that is not there is still noted");
        }
    })
}

/// A directory that is not mounted has lost nothing.
fn is_in_sight(context: &Context<'_>, row: &Snapshot) -> bool {
    let Context {
        remote, activity, ..
    } = context;
    let wanted = || activity.check();
    let seen = remote.repository(&row.reference).and_then(|repository| {
        wait(&wanted, remote.registry.check_sight(&repository))?;
        match &remote.content {
            Place::Elsewhere(way) => wait(&wanted, way.transport.check_sight()),
            Place::Unknown | Place::Registry => Ok(()),
        }
    });
    seen.is_ok()
}

fn forget(context: &Context<'_>, row: &Snapshot) -> Result<()> {
    let registry = context.remote.address(&row.reference)?;
    let catalog = &context.store.catalog;
    catalog.write(Sync::Normal, |txn| {
        txn.forget_publication(row.id, &registry)
    })?;
    context.store.sync_later(row.id);
    Ok(())
}

fn fetch_again(context: &Context<'_>, row: &Snapshot) -> Result<Fetched> {
    let said = described(context, row)?;
    let repository = context.remote.repository(&row.reference)?;
    fetch::objects(context, row.id, &repository, &said, None)
}

/// Puts back what describes a snapshot that is here; says whether it could, and was not right already.
pub(crate) fn repair_description(context: &Context<'_>, row: &Snapshot) -> Result<bool> {
    match is_elsewhere(context, row)? {
        true => described(context, row).map(|_| true),
        false => Ok(false),
    }
}

/// Manifest and document of a snapshot that is here; fetched again, by the digest in its row, where they are damaged.
fn described(context: &Context<'_>, row: &Snapshot) -> Result<Said> {
    let Context {
        store,
        remote,
        activity,
        ..
    } = context;
    let catalog = &store.catalog;
    match described_here(context, row) {
        Err(error) if error.kind() == ErrorKind::Damaged => {}
        here => return here,
    }
    let reference = row.reference.clone().with_digest(row.manifest_digest);
    let resolved = resolve(remote, &reference, Some(store), activity)?;
    catalog.write(Sync::Full, |txn| {
        txn.replace_artifacts(row.id, &resolved.manifest, &resolved.document)
    })?;
    Ok(resolved.said)
}

fn described_here(context: &Context<'_>, row: &Snapshot) -> Result<Said> {
    context.store.catalog.read(|txn| {
        let manifest = parse_manifest(&txn.manifest(row.id)?, &row.reference)?;
        match (manifest, row.format) {
            (AnyManifest::V1(manifest), Format::V1) => {
                Ok(Said::Blobs(manifest, txn.document(row.id)?))
            }
            (AnyManifest::V2(manifest), Format::V2) => {
                Ok(Said::Packs(manifest, txn.paged_document(row.id)?))
            }
            _ => Err(formats_differ(&row.reference)),
        }
    })
}

//! Looking at what is stored, and taking it away: list, inspect, compare, usage, remove.

mod compare;
mod details;
mod tag;

use std::time::SystemTime;

pub use compare::ChangedFile;
pub(crate) use compare::changed_pages;
#[cfg(feature = "registry")]
pub(crate) use details::system_time;
pub(crate) use details::{Entries, entries};
pub use details::{
    FileDetails, PackDetails, PathDetails, PublishedAt, SnapshotDetails, SnapshotState,
    SnapshotSummary, SymlinkDetails,
};
pub(crate) use details::{annotations, document, inspect, time};
pub use tag::TagReport;
#[cfg(feature = "registry")]
pub(crate) use tag::new_name;
pub(crate) use tag::tag;

use crate::activity::Activity;
use crate::catalog::{Doomed, Snapshot, Sync, Txn};
use crate::fs::space;
use crate::store::{CacheEntry, Store};
use crate::words::digest::Sha256;
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::format::Format;
use crate::words::progress::Warning;
use crate::words::reference::Reference;
use crate::words::total::total;
use details::summary;

/// What a store holds and what its filesystem can still take, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Snapshots.
    pub snapshots: u64,
    /// Those that are nowhere else, as far as is known.
    pub unpublished: u64,
    /// Those that are pinned.
    pub pinned: u64,
    /// Blobs and packs that are known to be damaged or missing.
    pub damaged: u64,
    /// When a registry was last seen to have one of them.
    pub last_seen_at: Option<SystemTime>,
    /// Sizes of all files of all snapshots, holes included, as if nothing were shared.
    pub logical_bytes: u64,
    /// Bytes of data in them, holes excluded, as if nothing were shared.
    pub data_bytes: u64,
    /// Blobs.
    pub blobs: u64,
    /// Packs, which have the pages of snapshots of format v2.
    pub packs: u64,
    /// Bytes the store keeps, each once: data of blobs, whatever form they have, and stored bytes of packs. A hardlinked file's are counted, though they cost
    /// nothing while its other name exists: the one in the directory it was captured from, or in a daemon's cache.
    pub stored_bytes: u64,
    /// Cache entries.
    pub cache_entries: u64,
    /// Bytes that the filesystem keeps for those that have no name elsewhere. They go when there is need.
    pub cache_bytes: u64,
    /// Size of the filesystem the root is on.
    pub filesystem_bytes: u64,
    /// What this process could still write there.
    pub available_bytes: u64,
}

/// What removing a snapshot gave back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoveReport {
    /// The snapshot.
    pub reference: Reference,
    /// SHA-256 of its manifest.
    pub manifest_digest: Sha256,
    /// Blobs and packs that nothing else needed. None yet, if the snapshot is being restored: they go when that ends.
    pub blobs_removed: u64,
    /// Bytes of data in them, stored bytes of packs; those whose files are missing, or were moved to `quarantine/`, have none. The filesystem gets
    /// back less where another name keeps a hardlinked file.
    pub freed_bytes: u64,
    /// Files that could not be removed yet.
    pub warnings: Vec<Warning>,
}

pub(crate) fn list(store: &Store) -> Result<Vec<SnapshotSummary>> {
    let (snapshots, mut publications) = store
        .catalog
        .read(|txn| Ok((txn.snapshots()?, txn.publications()?)))?;
    let summaries = snapshots.into_iter().map(|snapshot| {
        let known = publications.remove(&snapshot.id).unwrap_or_default();
        summary(snapshot, known)
    });
    Ok(summaries.collect())
}

/// What a list says of one snapshot.
pub(crate) fn find(store: &Store, reference: &Reference) -> Result<SnapshotSummary> {
    let read = store.catalog.read(|txn| {
        let snapshot = txn.resolve(reference)?;
        let known = txn.publications_of(snapshot.id)?;
        Ok(summary(snapshot, known))
    });
    read.map_err(|error| error.with_reference(reference))
}

/// Removes a snapshot, and the blobs nothing else needs. One that is being restored loses its name at once and its
/// blobs when the restore ends.
pub(crate) fn remove(
    store: &Store,
    reference: &Reference,
    activity: &Activity,
) -> Result<RemoveReport> {
    let removed = remove_those(store, |txn| Ok(vec![txn.resolve(reference)?]), activity)?;
    removed.into_iter().next().ok_or_else(|| {
        let text = format!("there is no snapshot {reference}");
        Error::new(ErrorKind::NotFound, text).with_reference(reference)
    })
}

/// The same of all that one transaction chooses.
pub(crate) fn remove_those(
    store: &Store,
    choose: impl Fn(&Txn<'_>) -> Result<Vec<Snapshot>>,
    activity: &Activity,
) -> Result<Vec<RemoveReport>> {
    store.require_current()?;
    store.expect_orphans();
    let (removed, doomed) = store.with_reserve(|| {
        store.catalog.write(Sync::Full, |txn| {
            let (mut removed, mut all) = (Vec::new(), Doomed::default());
            for snapshot in choose(txn)? {
                txn.mark_removed(snapshot.id)?;
                let doomed = txn.doom_abandoned(&[snapshot.id])?;
                removed.push((snapshot, doomed.objects, doomed.bytes));
                all.add(doomed);
            }
            Ok((removed, all))
        })
    })?;
    // They are removed: what is left of them now is litter.
    store.sweep_removed(&doomed, activity);
    let paged = removed.iter().filter(|(one, ..)| one.format == Format::V2);
    let paged: Vec<_> = paged.map(|(one, ..)| one.manifest_digest).collect();
    store.drop_caches_of(&paged);
    let reports = removed.into_iter();
    let reports = reports.map(|(one, objects, bytes)| RemoveReport::new(one, objects, bytes));
    Ok(reports.collect())
}

/// Pins a snapshot or takes its pin away.
pub(crate) fn set_pinned(
    store: &Store,
    reference: &Reference,
    pinned: bool,
) -> Result<SnapshotSummary> {
    store.with_slice(|| {
        store.catalog.write(Sync::Full, |txn| {
            let snapshot = txn.resolve(reference)?;
            txn.set_pinned(snapshot.id, pinned)?;
            let known = txn.publications_of(snapshot.id)?;
            Ok(summary(Snapshot { pinned, ..snapshot }, known))
        })
    })
}

/// What [`remove`] would report, refused where that would be.
pub(crate) fn plan_removal(store: &Store, reference: &Reference) -> Result<RemoveReport> {
    store.require_current()?;
    let (snapshot, exclusive) = store.catalog.read(|txn| {
        let snapshot = txn.resolve(reference)?;
        let exclusive = txn.exclusive_blobs(snapshot.id)?;
        Ok((snapshot, exclusive))
    })?;
    let freed = total(exclusive.iter().map(|blob| blob.data_size));
    Ok(RemoveReport::new(snapshot, exclusive.len() as u64, freed))
}

impl RemoveReport {
    fn new(snapshot: Snapshot, blobs_removed: u64, freed_bytes: u64) -> Self {
        Self {
            reference: snapshot.reference,
            manifest_digest: snapshot.manifest_digest,
            blobs_removed,
            freed_bytes,
            warnings: Vec::new(),
        }
    }
}

pub(crate) fn usage(store: &Store) -> Result<Usage> {
    let (snapshots, (blobs, blob_bytes), (packs, pack_bytes), states) =
        store.catalog.read(|txn| {
            let totals = (txn.blob_totals()?, txn.pack_totals()?);
            Ok((txn.snapshots()?, totals.0, totals.1, txn.states()?))
        })?;
    let space = space::of(&store.root.dir).at("examine", store.root.dir.path())?;
    let entries = store.cache_entries()?;
    Ok(Usage {
        snapshots: snapshots.len() as u64,
        unpublished: states.unpublished,
        pinned: snapshots.iter().filter(|one| one.pinned).count() as u64,
        damaged: states.damaged,
        last_seen_at: states.last_seen_at.map(time),
        logical_bytes: total(snapshots.iter().map(|s| s.totals.logical_bytes)),
        data_bytes: total(snapshots.iter().map(|s| s.totals.data_bytes)),
        blobs,
        packs,
        stored_bytes: total([blob_bytes, pack_bytes]),
        cache_entries: entries.len() as u64,
        cache_bytes: total(entries.iter().map(CacheEntry::frees)),
        filesystem_bytes: space.total,
        available_bytes: space.available,
    })
}

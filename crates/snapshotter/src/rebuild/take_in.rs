//! What a catalog that is otherwise whole does not know: it went back in time, and files under `storage/` are from later.
//!
//! They are found as in a store that lost its catalog: read, named by the registry where that has their snapshot, else
//! kept as `lost-and-found`. The rows that are there stay as they are, but for those that have lost their files and find them
//! again; the new ones come in one transaction, which also says that the catalog is to be believed again. Nobody else has
//! the store open meanwhile.

use std::collections::HashSet;
use std::ffi::OsStr;

use super::found::read;
use super::naming::Naming;
use super::{RebuildReport, RebuildRequest, is_whole};
use crate::activity::Activity;
use crate::catalog::{Salvage, Sync};
use crate::config::Config;
use crate::limit::Limit;
use crate::remote::Remote;
use crate::store::Store;
use crate::words::error::{At, Result};

/// Adds to the catalog. Blocks.
///
/// # Errors
/// `AlreadyExists` where it lacks nothing.
pub(super) fn run(
    store: &Store,
    config: &Config,
    remote: Option<&Remote>,
    request: &RebuildRequest,
    activity: &Activity,
) -> Result<RebuildReport> {
    let started = std::time::Instant::now();
    // Where the catalog went back, what was being taken then may have been finished since: its rows go, and its files are
    // taken in like all that has none.
    store.sweep_whole()?.tell(activity);
    let names = store.names_without_a_row()?;
    if names.is_empty() && !store.went_back() {
        return Err(is_whole(&store.root));
    }
    let (blobs, taken) = store.catalog.read(|txn| {
        let taken = txn.snapshots()?.into_iter().map(|one| one.reference);
        Ok((
            txn.blobs_after(None, u32::MAX)?,
            taken.collect::<HashSet<_>>(),
        ))
    })?;
    let kept = taken.len() as u64;
    let limit = Limit::new(config.restore_concurrency);
    let nothing = Salvage::default();
    let mut found = read(&store.root, &names, &blobs, &limit, &nothing, activity)?;
    let naming = Naming::new(&found, nothing, taken, remote, request, activity)?;
    store.root.content.sync_filesystem()?;
    activity.check()?;
    let mut report = store.catalog.write(Sync::Full, |txn| {
        found.spare_known(txn)?;
        let quarantined = found.settle(&store.root)?;
        let is_there = |name: &OsStr| {
            let content = &store.root.content;
            let there = content.stat_if_any(name);
            Ok(there.at("examine", content.path_of(name))?.is_some())
        };
        let mut report = naming.write(txn, &found, &is_there)?;
        txn.forgive_going_back()?;
        report.quarantined = quarantined;
        report.kept_snapshots = Some(kept);
        Ok(report)
    })?;
    report.checked_blobs = found.blobs.len() as u64;
    report.checked_packs = found.packs.len() as u64;
    report.checked_bytes = found.data_bytes();
    report.duration = started.elapsed();
    store.close()?;
    Ok(report)
}

//! Garbage collection: measure → choose (pure) → confirm → release, a batch at a time, until it is enough or does not help.
//!
//! It releases snapshots, never blobs: a blob goes with the last snapshot that needs it. What is not confirmed to be
//! elsewhere stays. A dry run is the same code up to the first release.

mod choose;
mod confirm;
mod measure;
mod policy;
mod release;
mod report;
mod worker;

pub use report::{
    GcAmount, GcReport, GcRequest, GcShortfall, GcStop, KeptFor, KeptSnapshots, ReleasedSnapshot,
    SnapshotUsage, UsageDetails,
};
pub(crate) use worker::Worker;

use std::sync::Arc;
use std::time::Instant;

use choose::{Amount, Choice, Refusal, choose, refusal};
use confirm::Confirming;
use measure::{Exclusive, Files, Survey, survey};
use policy::{Policy, TooFull, is_stuck};

use crate::activity::Activity;
use crate::catalog::{Snapshot, Sync};
use crate::config::Gc;
use crate::fs::space::Space;
use crate::inspect;
use crate::remote::Remote;
use crate::store::Store;
use crate::words::error::Result;
use crate::words::total::total;

/// Collects, or says what would be collected. Blocks.
pub(crate) fn run(
    store: &Arc<Store>,
    remote: Option<&Remote>,
    config: &Gc,
    request: &GcRequest,
    activity: &Activity,
) -> Result<GcReport> {
    let started = Instant::now();
    if !request.dry_run {
        store.catalog.require_writable()?;
    }
    store.require_current()?;
    let mut report = GcReport {
        dry_run: request.dry_run,
        ..GcReport::default()
    };
    if !request.dry_run {
        report.swept_names = store.sweep_whole()?.tell(activity);
    }
    let collection = Collection {
        store,
        remote,
        policy: Policy::new(config, request),
        activity,
    };
    if !request.dry_run {
        collection.end_uses_to_come()?;
    }
    let trust_daemon = config.trust_daemon;
    let mut confirming = Confirming::new(store, remote, activity, trust_daemon, !request.dry_run);
    collection.run(&mut confirming, &mut report)?;
    report.kept.unconfirmed = confirming.unconfirmed();
    if !request.dry_run {
        shrink_catalog(store);
    }
    report.duration = started.elapsed();
    Ok(report)
}

/// A catalog that cannot be made smaller is as good as it was.
fn shrink_catalog(store: &Store) {
    match store.catalog.shrink() {
        Ok(0) => {}
        Ok(bytes) => tracing::info!(bytes, "the catalog was made smaller"),
        Err(error) => tracing::warn!(%error, "the catalog was not made smaller"),
    }
}

struct Collection<'a> {
    store: &'a Arc<Store>,
    remote: Option<&'a Remote>,
    policy: Policy,
    activity: &'a Activity,
}

impl Collection<'_> {
    /// A use after the present is of a time when the clock was ahead. It counts as one now, and from then on as one of
    /// today: else what was used then would be young until the clock is there again.
    fn end_uses_to_come(&self) -> Result<()> {
        let (store, now) = (self.store, self.policy.now);
        if store.catalog.read(|txn| txn.has_uses_after(now))? {
            store.with_slice(|| {
                store
                    .catalog
                    .write(Sync::Normal, |txn| txn.end_uses_after(now))
            })?;
        }
        Ok(())
    }

    fn run(&self, confirming: &mut Confirming<'_>, report: &mut GcReport) -> Result<()> {
        let mut files = Files::default();
        let mut space = release::space(self.store)?;
        let was_too_full = self.policy.too_full(space);
        let stored = self.store.catalog.read(|txn| txn.stored_bytes())?;
        let wanted = self.policy.goal(space, was_too_full, stored);
        report.wanted = wanted.into();
        space = self.entries_first(space, wanted, report)?;
        let mut first = true;
        loop {
            self.activity.check()?;
            let mut seen = survey(self.store, self.remote, &mut files, self.policy.now)?;
            let goal = self.policy.goal(space, was_too_full, seen.stored_bytes);
            if first {
                report.kept = self.kept(&seen);
                first = false;
            }
            let choice = self.choose(&mut seen, goal, report.dry_run, confirming)?;
            if report.dry_run {
                plan(report, &seen, &choice);
                return Ok(());
            }
            if choice.release.is_empty() {
                report.shortfall = shortfall(choice.short, GcStop::NothingLeft);
                return Ok(());
            }
            let expected = self.release_batch(&seen, &choice, confirming, report)?;
            let after = if was_too_full != TooFull::default() {
                release::space_after(self.store, space, expected)?
            } else {
                release::space(self.store)?
            };
            let gained = after.available.saturating_sub(space.available);
            report.freed_bytes += gained;
            let stored = self.store.catalog.read(|txn| txn.stored_bytes())?;
            let left = self.policy.goal(after, was_too_full, stored);
            if is_stuck(space, after, expected, left) {
                report.shortfall = shortfall(left, GcStop::NotHelping);
                return Ok(());
            }
            space = after;
        }
    }

    /// Takes cache entries away, which cost time at most. In a dry run the space is what would be.
    fn entries_first(&self, space: Space, wanted: Amount, report: &mut GcReport) -> Result<Space> {
        if wanted.disk == 0 && wanted.inodes == 0 {
            return Ok(space);
        }
        let dry_run = report.dry_run;
        let (entries, bytes) =
            self.store
                .drop_cache_entries(wanted.disk, wanted.inodes, dry_run)?;
        (report.cache_entries, report.cache_bytes) = (entries, bytes);
        if entries == 0 {
            return Ok(space);
        }
        if dry_run {
            let (available, available_inodes) =
                (space.available + bytes, space.available_inodes + entries);
            return Ok(Space {
                available,
                available_inodes,
                ..space
            });
        }
        let expected = Amount {
            disk: bytes,
            inodes: entries,
            ..Amount::default()
        };
        let after = release::space_after(self.store, space, expected)?;
        report.freed_bytes += after.available.saturating_sub(space.available);
        Ok(after)
    }

    /// Chooses until all that go next are confirmed to be elsewhere, or their only copies may go. What goes later is
    /// asked for then.
    fn choose(
        &self,
        seen: &mut Survey,
        goal: Amount,
        is_all: bool,
        confirming: &mut Confirming<'_>,
    ) -> Result<Choice> {
        let rules = self.policy.rules(goal);
        let most = if is_all {
            usize::MAX
        } else {
            self.policy.config.batch_size
        };
        confirming.keep(seen);
        loop {
            let choice = choose(&seen.measured, &rules);
            let next = &choice.release[..choice.release.len().min(most)];
            if rules.include_unpublished || confirming.confirm(next, seen, &rules)? {
                return Ok(choice);
            }
        }
    }

    /// Lets the first of those that were chosen go, and says what should come free with them.
    fn release_batch(
        &self,
        seen: &Survey,
        choice: &Choice,
        confirming: &mut Confirming<'_>,
        report: &mut GcReport,
    ) -> Result<Amount> {
        let mut expected = Amount::default();
        for id in choice.release.iter().take(self.policy.config.batch_size) {
            self.activity.check()?;
            let Some(snapshot) = seen.snapshots.iter().find(|one| one.id == *id) else {
                continue;
            };
            let relied = confirming.relied(*id);
            if relied.is_none() && !self.policy.config.include_unpublished {
                continue;
            }
            let Some(doomed) = release::release(self.store, snapshot, relied, self.activity)?
            else {
                tracing::debug!(reference = %snapshot.reference, "no more as it was, and kept");
                confirming.doubt(*id);
                continue;
            };
            let (blobs, bytes) = (doomed.objects, doomed.bytes);
            tracing::info!(reference = %snapshot.reference, bytes, "released");
            expected.disk = total([expected.disk, bytes]);
            expected.inodes += blobs;
            let went = Exclusive { blobs, bytes };
            add(report, snapshot, went);
        }
        Ok(expected)
    }

    fn kept(&self, seen: &Survey) -> KeptSnapshots {
        let rules = self.policy.rules(Amount::default());
        let mut kept = KeptSnapshots::default();
        for snapshot in &seen.measured.snapshots {
            match refusal(snapshot, &rules) {
                None => {}
                Some(Refusal::Pinned) => kept.pinned += 1,
                Some(Refusal::Leased) => kept.in_use += 1,
                Some(Refusal::Young) => kept.recent += 1,
                Some(Refusal::OnlyCopy) => kept.only_copies += 1,
            }
        }
        kept
    }
}

fn add(report: &mut GcReport, snapshot: &Snapshot, went: Exclusive) {
    report.blobs_released += went.blobs;
    report.released_bytes = total([report.released_bytes, went.bytes]);
    report.released.push(ReleasedSnapshot {
        reference: snapshot.reference.clone(),
        manifest_digest: snapshot.manifest_digest,
        last_accessed_at: inspect::time(snapshot.last_accessed_at),
        blobs: went.blobs,
        bytes: went.bytes,
    });
}

/// What would be done. Blobs that only those share that go together go with none of them alone: the sum has them.
fn plan(report: &mut GcReport, seen: &Survey, choice: &Choice) {
    for id in &choice.release {
        let exclusive = seen.exclusive.get(id).copied().unwrap_or_default();
        if let Some(snapshot) = seen.snapshots.iter().find(|one| one.id == *id) {
            add(report, snapshot, exclusive);
        }
    }
    report.blobs_released = choice.blobs;
    report.released_bytes = choice.frees.stored;
    report.freed_bytes = total([choice.frees.disk, report.cache_bytes]);
    report.shortfall = shortfall(choice.short, GcStop::NothingLeft);
}

fn shortfall(missing: Amount, reason: GcStop) -> Option<GcShortfall> {
    (missing != Amount::default()).then(|| GcShortfall {
        missing: missing.into(),
        reason,
    })
}

impl From<Amount> for GcAmount {
    fn from(amount: Amount) -> Self {
        Self {
            disk_bytes: amount.disk,
            store_bytes: amount.stored,
            inodes: amount.inodes,
        }
    }
}

/// What the store holds, snapshot by snapshot. Blocks.
pub(crate) fn usage_details(
    store: &Store,
    remote: Option<&Remote>,
    config: &Gc,
) -> Result<UsageDetails> {
    let usage = inspect::usage(store)?;
    let policy = Policy::new(config, &GcRequest::new());
    let seen = survey(store, remote, &mut Files::default(), policy.now)?;
    let everything = Amount {
        disk: u64::MAX,
        stored: u64::MAX,
        inodes: u64::MAX,
    };
    let rules = policy.rules(everything);
    let snapshots = seen.snapshots.iter().zip(&seen.measured.snapshots);
    let snapshots = snapshots.map(|(snapshot, candidate)| {
        let weights = candidate.blobs.iter();
        let weights = weights.filter_map(|blob| seen.measured.blobs.get(blob));
        let all = total(weights.map(|weight| weight.frees.stored));
        let exclusive = seen.exclusive.get(&snapshot.id).map_or(0, |own| own.bytes);
        SnapshotUsage {
            reference: snapshot.reference.clone(),
            logical_bytes: snapshot.totals.logical_bytes,
            shared_bytes: all.saturating_sub(exclusive),
            exclusive_bytes: exclusive,
            kept: refusal(candidate, &rules).map(Into::into),
        }
    });
    let disk = store.disk_usage()?;
    let frees = choose(&seen.measured, &rules).frees.disk;
    Ok(UsageDetails {
        snapshots: snapshots.collect(),
        reclaimable_bytes: frees.min(disk.total()),
        disk,
        usage,
    })
}

impl From<Refusal> for KeptFor {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Pinned => Self::Pinned,
            Refusal::Leased => Self::InUse,
            Refusal::Young => Self::Recent,
            Refusal::OnlyCopy => Self::OnlyCopy,
        }
    }
}

#[cfg(test)]
mod tests;

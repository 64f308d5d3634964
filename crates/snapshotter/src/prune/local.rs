//! Pruning what is here. A snapshot that was taken here has the time of its row; one that was fetched was taken when its manifest
//! says, and where that says nothing, when it came.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::elsewhere::Elsewhere;
use super::{Judged, KeepReason, PruneReport, PruneRequest, PrunedSnapshot, Rules, judge};
use crate::activity::Activity;
use crate::catalog::{PublicationRow, Snapshot, State, Txn};
use crate::format::artifact::paged::{AnyManifest, Facts};
use crate::inspect::{self, RemoveReport, remove_those};
use crate::remote::Remote;
use crate::store::{Store, now};
use crate::words::entry::Mtime;
use crate::words::error::Result;
use crate::words::total::total;

/// Snapshots that go in one transaction: others who write wait for no more than this, some tenths of a second, and a disk syncs
/// once for all of them.
const BATCH: usize = 2048;

/// Prunes. Blocks. A call that fails or is given up has removed what it has removed, the oldest first.
pub(crate) fn run(
    store: &Arc<Store>,
    remote: Option<&Remote>,
    request: &PruneRequest,
    activity: &Activity,
) -> Result<PruneReport> {
    let rules = Rules::new(&request.rules)?;
    store.require_current()?;
    let elsewhere = Elsewhere::new(store, remote, !request.dry_run, activity);
    let (mut kept, going) = plan(store, &rules, elsewhere)?;
    let mut gone = if request.dry_run {
        foresee(store, &going)?
    } else {
        remove(store, &rules, (&kept, &going), activity)?
    };
    let mut removed = Vec::with_capacity(gone.len());
    for mut one in going {
        match gone.remove(&one.snapshot.id) {
            Some(pruned) => removed.push(pruned),
            None => {
                one.reasons.push(KeepReason::Changed);
                kept.push(one);
            }
        }
    }
    Ok(PruneReport {
        dry_run: request.dry_run,
        kept: kept.into_iter().map(Judged::into_kept).collect(),
        removed,
        warnings: Vec::new(),
    })
}

/// What went, or would go, by the ids of the rows.
type Gone = HashMap<i64, PrunedSnapshot>;

type Snapshots = Vec<Judged<Snapshot>>;

/// What stays and what goes.
fn plan(
    store: &Store,
    rules: &Rules,
    mut elsewhere: Elsewhere<'_>,
) -> Result<(Snapshots, Snapshots)> {
    let (snapshots, publications) = store.catalog.read(|txn| {
        let mut found = Vec::new();
        for snapshot in txn.snapshots()? {
            if rules.of(snapshot.reference.name()).is_some() {
                let taken_at = taken_at(txn, &snapshot)?;
                let reference = snapshot.reference.clone();
                found.push(Judged::new(snapshot, reference, taken_at));
            }
        }
        Ok((found, txn.publications()?))
    })?;
    let (mut kept, mut going, now) = (Vec::new(), Vec::new(), now());
    let mut rest = snapshots.into_iter().peekable();
    while let Some(first) = rest.next() {
        let name = first.reference.name().to_owned();
        let Some(rule) = rules.of(&name) else {
            continue;
        };
        let mut all = vec![first];
        while let Some(next) = rest.next_if(|next| next.reference.name() == name) {
            all.push(next);
        }
        judge(&rule.policy, &mut all, now);
        for mut one in all {
            let known = publications.get(&one.snapshot.id);
            let known = known.map_or(&[][..], Vec::as_slice);
            if one.goes() {
                one.reasons
                    .extend(spared(&one.snapshot, known, rule.include_unpublished));
            }
            if one.goes() && !rule.include_unpublished && !elsewhere.has(&one.snapshot, known)? {
                one.reasons.push(KeepReason::OnlyCopy);
            }
            if one.goes() { &mut going } else { &mut kept }.push(one);
        }
    }
    Ok((kept, going))
}

fn taken_at(txn: &Txn<'_>, snapshot: &Snapshot) -> Result<i64> {
    if snapshot.state == State::Taken {
        return Ok(snapshot.created_at);
    }
    // What is damaged is `verify`'s to find: it came when it came.
    let said = txn.manifest(snapshot.id).ok();
    Ok(said
        .and_then(|manifest| created(&manifest))
        .unwrap_or(snapshot.created_at))
}

/// When a manifest says that its snapshot was taken, in nanoseconds since 1970.
pub(super) fn created(manifest: &[u8]) -> Option<i64> {
    let annotations = AnyManifest::parse(manifest).ok()?.into_annotations();
    let Mtime {
        seconds,
        nanoseconds,
    } = Facts::of(&annotations).created?;
    seconds
        .checked_mul(1_000_000_000)?
        .checked_add(nanoseconds.into())
}

/// Why a snapshot stays that no rule keeps.
fn spared(
    snapshot: &Snapshot,
    known: &[PublicationRow],
    include_unpublished: bool,
) -> Option<KeepReason> {
    if snapshot.pinned {
        return Some(KeepReason::Pinned);
    }
    (known.is_empty() && !include_unpublished).then_some(KeepReason::OnlyCopy)
}

/// What would come free with each of them alone.
fn foresee(store: &Store, going: &Snapshots) -> Result<Gone> {
    store.catalog.read(|txn| {
        let each = going.iter().map(|one| {
            let exclusive = txn.exclusive_blobs(one.snapshot.id)?;
            let freed = total(exclusive.iter().map(|blob| blob.data_size));
            Ok(pruned(one, exclusive.len() as u64, freed))
        });
        each.collect()
    })
}

/// Removes them, if nobody pinned them meanwhile or learnt that they are nowhere else.
/// Nor is a name left without a version by somebody who removed what was to stay.
fn remove(
    store: &Store,
    rules: &Rules,
    (kept, going): (&Snapshots, &Snapshots),
    activity: &Activity,
) -> Result<Gone> {
    let mut staying = HashMap::<&str, Vec<i64>>::new();
    for one in kept {
        let of_name = staying.entry(one.reference.name()).or_default();
        of_name.push(one.snapshot.id);
    }
    let mut removed = Gone::new();
    let mut oldest_first: Vec<_> = going.iter().collect();
    oldest_first.sort_by_key(|one| one.taken_at);
    for batch in oldest_first.chunks(BATCH) {
        activity.check()?;
        let still = |txn: &Txn<'_>| {
            let mut found = Vec::new();
            let mut is_safe = HashMap::<&str, bool>::new();
            for one in batch {
                let name = one.reference.name();
                if let Entry::Vacant(vacant) = is_safe.entry(name) {
                    vacant.insert(any_visible(txn, staying.get(name))?);
                }
                if is_safe[name]
                    && let Some(rule) = rules.of(one.reference.name())
                    && let Some(now) = txn.snapshot(one.snapshot.id)?
                    && now.reference == one.reference
                    && spared(
                        &now,
                        &txn.publications_of(now.id)?,
                        rule.include_unpublished,
                    )
                    .is_none()
                {
                    found.push(now);
                }
            }
            Ok(found)
        };
        let by_name: HashMap<_, _> = batch.iter().map(|one| (&one.reference, *one)).collect();
        for report in remove_those(store, still, activity)? {
            let RemoveReport {
                reference,
                blobs_removed,
                freed_bytes,
                ..
            } = report;
            if let Some(one) = by_name.get(&reference) {
                tracing::info!(%reference, freed_bytes, "pruned");
                removed.extend([pruned(one, blobs_removed, freed_bytes)]);
            }
        }
    }
    Ok(removed)
}

fn any_visible(txn: &Txn<'_>, ids: Option<&Vec<i64>>) -> Result<bool> {
    for id in ids.into_iter().flatten() {
        if txn.snapshot(*id)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn pruned(one: &Judged<Snapshot>, blobs_removed: u64, freed_bytes: u64) -> (i64, PrunedSnapshot) {
    let pruned = PrunedSnapshot {
        reference: one.reference.clone(),
        manifest_digest: one.snapshot.manifest_digest,
        taken_at: inspect::time(one.taken_at),
        blobs_removed,
        freed_bytes,
    };
    (one.snapshot.id, pruned)
}

//! Pruning in the registry, by the time that each manifest says. What says none stays, and so does what would take with it a
//! version that stays, since versions that are the same snapshot are one manifest there.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;

use super::local::created;
use super::{
    Judged, KeepReason, KeptSnapshot, PruneReport, PruneRequest, PrunedSnapshot, Rules, judge,
};
use crate::activity::Activity;
use crate::inspect;
use crate::limit::Limit;
use crate::lock::lock;
use crate::remote::{self, Remote};
use crate::store::{Store, now};
use crate::words::digest::Sha256;
use crate::words::error::{ErrorKind, Result};
use crate::words::reference::Reference;

type Versions = Vec<Judged<Sha256>>;

/// Prunes there. Blocks. A call that fails or is given up has removed what it has removed, name by name, the oldest first.
pub(crate) fn run(
    store: &Store,
    remote: &Remote,
    limit: &Limit,
    request: &PruneRequest,
    activity: &Activity,
) -> Result<PruneReport> {
    let rules = Rules::new(&request.rules)?;
    let mut report = PruneReport {
        dry_run: request.dry_run,
        ..PruneReport::default()
    };
    for (name, references) in list(remote, &request.rules, &rules, activity)? {
        let Some(rule) = rules.of(&name) else {
            continue;
        };
        let listed = references.iter().cloned().collect();
        let (mut all, undated) = look(remote, limit, references, activity)?;
        judge(&rule.policy, &mut all, now());
        let staying = staying(&all, &undated);
        report
            .kept
            .extend(undated.into_iter().map(|(kept, _)| kept));
        let (going, kept) = part(all, &staying);
        report.kept.extend(kept.into_iter().map(Judged::into_kept));
        let (gone, left) = if request.dry_run {
            (going, Versions::new())
        } else {
            remove(store, remote, going, listed, activity)?
        };
        report.kept.extend(left.into_iter().map(Judged::into_kept));
        report.removed.extend(gone.into_iter().map(pruned));
    }
    Ok(report)
}

/// The versions of all names that a rule is for. Names are listed one by one where that says which there are.
fn list(
    remote: &Remote,
    given: &[super::PruneRule],
    rules: &Rules,
    activity: &Activity,
) -> Result<BTreeMap<String, Vec<Reference>>> {
    let names: Vec<_> = given.iter().flat_map(|rule| &rule.names).collect();
    let is_literal = |name: &&String| !name.contains(['*', '?', '[']);
    let found = if names.iter().all(is_literal) {
        let names: HashSet<_> = names.into_iter().collect();
        let each = names
            .into_iter()
            .map(|name| remote.list(Some(name), activity));
        each.collect::<Result<Vec<_>>>()?.concat()
    } else {
        remote.list(None, activity)?
    };
    let mut by_name = BTreeMap::<String, Vec<Reference>>::new();
    for found in found {
        let name = found.reference.name();
        if rules.of(name).is_some() {
            let versions = by_name.entry(name.to_owned()).or_default();
            versions.push(found.reference);
        }
    }
    Ok(by_name)
}

/// What there is no date of, and which manifest that is, as far as it can be read.
type Undated = Vec<(KeptSnapshot, Option<Sha256>)>;

/// Reads all manifests of a name. What has gone since it was listed is left out.
fn look(
    remote: &Remote,
    limit: &Limit,
    references: Vec<Reference>,
    activity: &Activity,
) -> Result<(Versions, Undated)> {
    let found = Mutex::new((Versions::new(), Undated::new()));
    limit.for_each(activity, references.len(), |index| {
        let reference = &references[index];
        let manifest = match remote.manifest(reference, activity) {
            Ok(None) => return Ok(()),
            Ok(Some(manifest)) => Some(manifest),
            // It stays: `verify` and `push` are for what is wrong with it.
            Err(error) if error.kind() == ErrorKind::Damaged => None,
            Err(error) => return Err(error),
        };
        let taken_at = manifest.as_ref().and_then(|(_, bytes)| created(bytes));
        let digest = manifest.map(|(digest, _)| digest);
        let mut found = lock(&found);
        match (digest, taken_at) {
            (Some(digest), Some(taken_at)) => {
                found
                    .0
                    .push(Judged::new(digest, reference.clone(), taken_at));
            }
            _ => found.1.push((undated(reference), digest)),
        }
        Ok(())
    })?;
    let (mut all, mut undated) = found
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    all.sort_by(|a, b| a.reference.version().cmp(&b.reference.version()));
    undated.sort_by(|(a, _), (b, _)| a.reference.version().cmp(&b.reference.version()));
    Ok((all, undated))
}

fn undated(reference: &Reference) -> KeptSnapshot {
    KeptSnapshot {
        reference: reference.clone(),
        taken_at: None,
        reasons: vec![KeepReason::Undated],
    }
}

fn staying(all: &Versions, undated: &Undated) -> HashSet<Sha256> {
    let dated = all.iter().filter(|one| !one.goes());
    let dated = dated.map(|one| one.snapshot);
    dated
        .chain(undated.iter().filter_map(|(_, digest)| *digest))
        .collect()
}

/// What goes, and what stays.
fn part(all: Versions, staying: &HashSet<Sha256>) -> (Versions, Versions) {
    let judged = all.into_iter().map(|mut one| {
        if one.goes() && staying.contains(&one.snapshot) {
            one.reasons.push(KeepReason::Same);
        }
        one
    });
    judged.partition(Judged::goes)
}

/// Deletes each manifest once: that takes all its names, and so not one that has got another name since the versions were listed.
/// Says what went and what did not.
fn remove(
    store: &Store,
    remote: &Remote,
    going: Versions,
    mut listed: HashSet<Reference>,
    activity: &Activity,
) -> Result<(Versions, Versions)> {
    let (mut deleted, mut named_anew) = (HashSet::new(), HashSet::new());
    let (mut gone, mut left) = (Versions::new(), Versions::new());
    for mut one in going.into_iter().rev() {
        activity.check()?;
        let exactly = one.reference.clone().with_digest(one.snapshot);
        if deleted.contains(&one.snapshot) {
            gone.push(one);
            continue;
        }
        named_anew.extend(new_names(
            remote,
            one.reference.name(),
            &mut listed,
            activity,
        )?);
        if named_anew.contains(&one.snapshot) {
            one.reasons.push(KeepReason::Same);
            left.push(one);
            continue;
        }
        match remote::remove(store, remote, &exactly, activity) {
            Ok(_) => {
                tracing::info!(reference = %exactly, "pruned in the registry");
                deleted.insert(one.snapshot);
                gone.push(one);
            }
            // Somebody else removed it, or moved its name: then the name is another snapshot's.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                one.reasons.push(KeepReason::Changed);
                left.push(one);
            }
            Err(error) => return Err(error),
        }
    }
    gone.reverse();
    Ok((gone, left))
}

/// The manifests that versions have which were not listed before.
fn new_names(
    remote: &Remote,
    name: &str,
    listed: &mut HashSet<Reference>,
    activity: &Activity,
) -> Result<Vec<Sha256>> {
    let now = match remote.list(Some(name), activity) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        now => now?,
    };
    let mut found = Vec::new();
    for one in now {
        if listed.insert(one.reference.clone())
            && let Some((digest, _)) = remote.manifest(&one.reference, activity)?
        {
            found.push(digest);
        }
    }
    Ok(found)
}

fn pruned(one: Judged<Sha256>) -> PrunedSnapshot {
    PrunedSnapshot {
        reference: one.reference,
        manifest_digest: one.snapshot,
        taken_at: inspect::time(one.taken_at),
        blobs_removed: 0,
        freed_bytes: 0,
    }
}

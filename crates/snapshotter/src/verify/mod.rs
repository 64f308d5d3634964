//! The whole-store check: the catalog holds together, every blob is read and compared, every name has a row, every row
//! a file. Names without a row are swept only where every row has a file and nothing is wrong with the catalog: else they
//! may be what it lost.

mod cached;
mod contents;
mod describe;
mod object;
mod repair;
mod report;
#[cfg(test)]
mod tests;

pub use report::{BadBlob, BadSnapshot, Subset, VerifyReport, VerifyRequest};

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::activity::Activity;
use crate::catalog::{Blob, BlobState, Snapshot};
use crate::limit::Limit;
use crate::lock::lock;
use crate::remote;
use crate::store::{PageRecords, Store, Strangers, WENT_BACK};
use crate::words::digest::Checksum;
use crate::words::error::{ErrorKind, Result};
use crate::words::format::Format;
use crate::words::progress::WarningKind;
use crate::words::reference::Reference;
use describe::Fault;
use object::Object;
use repair::{Outcome, Repair};

/// Said of files without a row.
const UNKNOWN: &str = "there are files in the store that its catalog does not know; rebuilding it takes them in, and they \
     stay until then";

/// Rows read in one go.
const PAGE: u32 = 1000;

/// Verifies, and repairs where that is asked for. Blocks.
pub(crate) fn run(
    store: &Store,
    limit: &Limit,
    request: &VerifyRequest,
    remote: Option<&remote::Context<'_>>,
    activity: &Activity,
) -> Result<VerifyReport> {
    let started = Instant::now();
    if request.repair {
        store.catalog.require_writable()?;
    }
    let whole = request.references.is_empty();
    let mut report = VerifyReport {
        subset: request.subset,
        ..VerifyReport::default()
    };
    if whole {
        report.catalog = problems(store, activity)?;
    }
    match check(store, limit, request, remote, activity, &mut report) {
        // So broken that the rows cannot be read: what is known of it is the report.
        Err(error) if error.kind() == ErrorKind::Damaged && !report.catalog.is_empty() => {
            report.catalog.push(error.line());
        }
        result => result?,
    }
    if request.repair && !report.catalog.is_empty() {
        report.catalog = problems(store, activity)?;
    }
    report.duration = started.elapsed();
    Ok(report)
}

/// What is wrong with the catalog as a whole.
fn problems(store: &Store, activity: &Activity) -> Result<Vec<String>> {
    let mut problems = store.catalog.problems(activity.cancelled())?;
    problems.extend(store.went_back().then(|| WENT_BACK.to_owned()));
    Ok(problems)
}

fn check(
    store: &Store,
    limit: &Limit,
    request: &VerifyRequest,
    remote: Option<&remote::Context<'_>>,
    activity: &Activity,
    report: &mut VerifyReport,
) -> Result<()> {
    let whole = request.references.is_empty();
    let records = PageRecords::default();
    let check = Check {
        store,
        activity,
        records: &records,
        subset: request.subset,
        found: Mutex::new(Found::default()),
    };
    let snapshots = check.chosen(&request.references)?;
    let mut faults = check.faults(&snapshots)?;
    if whole {
        check.whole_store(limit)?;
    } else {
        check.snapshots(limit, &snapshots)?;
    }
    faults.extend(check.contents(limit, &snapshots)?);
    let found = check
        .found
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    report.checked_blobs = found.checked_blobs;
    report.checked_packs = found.checked_packs;
    report.checked_bytes = found.checked_bytes;
    report.mended = found.mended;
    let bad: Vec<(Object, BadBlob, Verdict)> = found.bad.into_values().collect();
    let lost_nothing = report.catalog.is_empty() && faults.is_empty() && bad.is_empty();
    let sweeps = lost_nothing && request.subset.is_none() && !store.is_read_only();
    if whole && sweeps {
        report.swept_names = store.sweep_whole()?.tell(activity);
    }
    let repair = Repair {
        store,
        remote,
        activity,
    };
    let all_is_well = bad.is_empty() && faults.is_empty() && report.catalog.is_empty();
    let outcomes = if request.repair && !all_is_well {
        let objects: Vec<Object> = bad.iter().map(|(object, ..)| object.clone()).collect();
        repair.run(&objects, &faults)?
    } else {
        let bad = bad.iter();
        bad.map(|_| Outcome::Bad { quarantined: None }).collect()
    };
    // After the repair: what was lost may have been one of them.
    if whole {
        let strangers = store.look_for_strangers(sweeps, activity)?;
        report.tell_of(strangers, activity);
    }
    for ((_, bad, verdict), outcome) in bad.into_iter().zip(outcomes) {
        report.tell(bad, verdict, outcome);
    }
    report.describe(store, request.repair, faults)
}

impl VerifyReport {
    fn tell_of(&mut self, strangers: Strangers, activity: &Activity) {
        self.swept_names += strangers.swept.tell(activity);
        self.unknown_blobs = strangers.names.len() as u64;
        self.unknown_bytes = strangers.bytes;
        if !strangers.names.is_empty() {
            activity.warn(WarningKind::Unknown, None, UNKNOWN);
        }
    }

    /// Tells what became of a blob that was bad.
    fn tell(&mut self, mut bad: BadBlob, verdict: Verdict, outcome: Outcome) {
        match outcome {
            Outcome::Gone => {}
            Outcome::Repaired => self.repaired.push(bad),
            Outcome::Bad { quarantined } => {
                bad.quarantined = quarantined;
                match verdict {
                    Verdict::Missing => self.missing.push(bad),
                    _ => self.damaged.push(bad),
                }
            }
        }
    }

    /// Tells of the snapshots that were found faulty; after a repair each is looked at again.
    fn describe(&mut self, store: &Store, repaired: bool, faults: Vec<Fault>) -> Result<()> {
        for fault in faults {
            let reference = fault.snapshot.reference.clone();
            // What packs do not have, no repair brings.
            let now = if repaired && !fault.is_of_contents {
                describe::fault(store, &fault.snapshot)?
            } else {
                Some(fault)
            };
            match now {
                None => self.repaired_snapshots.push(reference),
                Some(fault) => self.damaged_snapshots.push(BadSnapshot {
                    reference,
                    problem: fault.problem,
                }),
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Found {
    checked_blobs: u64,
    checked_packs: u64,
    checked_bytes: u64,
    bad: BTreeMap<Checksum, (Object, BadBlob, Verdict)>,
    mended: u64,
}

struct Check<'a> {
    store: &'a Store,
    activity: &'a Activity,
    /// What the pages are of packs that were read and are right.
    records: &'a PageRecords,
    /// Which objects are read, if not all.
    subset: Option<Subset>,
    found: Mutex<Found>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Right,
    Damaged,
    Missing,
    /// Removed while it was looked at.
    Gone,
}

impl Check<'_> {
    fn whole_store(&self, limit: &Limit) -> Result<()> {
        let catalog = &self.store.catalog;
        let blobs = |after: Option<Checksum>| {
            let page = catalog.read(|txn| txn.blobs_after(after.as_ref(), PAGE))?;
            Ok(page.into_iter().map(Object::Blob).collect())
        };
        self.pages(limit, &blobs)?;
        let packs = |after: Option<Checksum>| {
            let page = catalog.read(|txn| txn.packs_after(after.as_ref(), PAGE))?;
            Ok(page.into_iter().map(Object::Pack).collect())
        };
        self.pages(limit, &packs)?;
        match self.subset {
            None => cached::verify(self.store, limit, self.activity),
            Some(_) => Ok(()),
        }
    }

    fn pages(
        &self,
        limit: &Limit,
        next: &dyn Fn(Option<Checksum>) -> Result<Vec<Object>>,
    ) -> Result<()> {
        let mut after = None;
        loop {
            let page = next(after)?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some(last.key());
            self.objects(limit, &page)?;
        }
    }

    /// The snapshots asked for, or all.
    fn chosen(&self, references: &[Reference]) -> Result<Vec<Snapshot>> {
        self.store.catalog.read(|txn| {
            if references.is_empty() {
                return txn.snapshots();
            }
            references
                .iter()
                .map(|reference| txn.resolve(reference))
                .collect()
        })
    }

    fn faults(&self, snapshots: &[Snapshot]) -> Result<Vec<Fault>> {
        let mut faults = Vec::new();
        for snapshot in snapshots {
            self.activity.check()?;
            faults.extend(describe::fault(self.store, snapshot)?);
        }
        Ok(faults)
    }

    fn snapshots(&self, limit: &Limit, snapshots: &[Snapshot]) -> Result<()> {
        let mut objects = BTreeMap::new();
        for snapshot in snapshots {
            let (blobs, packs) = self.store.catalog.read(|txn| {
                let blobs = txn.blobs_of_snapshot(snapshot.id)?;
                Ok((blobs, txn.packs_of_snapshot(snapshot.id)?))
            })?;
            let blobs = blobs.into_iter().map(Object::Blob);
            let all = blobs.chain(packs.into_iter().map(Object::Pack));
            objects.extend(all.map(|object| (object.key(), object)));
        }
        self.objects(limit, &objects.into_values().collect::<Vec<_>>())
    }

    /// Snapshots of format v2 whose packs are right and do not have what their documents say.
    fn contents(&self, limit: &Limit, snapshots: &[Snapshot]) -> Result<Vec<Fault>> {
        let faults = Mutex::new(Vec::new());
        limit.for_each(self.activity, snapshots.len(), |index| {
            let snapshot = &snapshots[index];
            if snapshot.format == Format::V2 {
                let fault = contents::fault(self.store, snapshot, self.records, self.activity)?;
                lock(&faults).extend(fault);
            }
            Ok(())
        })?;
        Ok(faults.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn judge(&self, blob: &Blob) -> Result<Verdict> {
        let object = || Object::Blob(blob.clone());
        let found = match self.store.open_current(blob, self.activity) {
            Ok(Some((blob, opened))) => match self.store.rehash(&blob, &opened, self.activity) {
                Ok(true) => {
                    self.verify_views(&blob)?;
                    return Ok(Verdict::Right);
                }
                found => found.map(|_| Verdict::Damaged),
            },
            Ok(None) => self.store.found_missing(blob).map(|_| Verdict::Missing),
            Err(error) => Err(error),
        };
        match found {
            // It cannot be opened, or the row's map cannot be a map of it. What is wrong with the catalog is heard below.
            Err(error) if error.kind() == ErrorKind::Damaged => {
                self.confirmed(&object(), Verdict::Damaged)
            }
            found => self.confirmed(&object(), found?),
        }
    }

    /// A verdict that is not good, by what is there now: others remove and store while this reads.
    fn confirmed(&self, object: &Object, bad: Verdict) -> Result<Verdict> {
        Ok(match object.state(self.store)? {
            // Nobody marked it, and so it was replaced, where it could have been marked.
            Some(BlobState::Good) if !self.store.is_read_only() => Verdict::Right,
            Some(_) => bad,
            None => Verdict::Gone,
        })
    }

    /// A view that is not right is forgotten: the next restore makes it anew.
    fn verify_views(&self, blob: &Blob) -> Result<()> {
        if self.store.is_read_only() {
            // Where none can be forgotten, none is used.
            return Ok(());
        }
        let views = self
            .store
            .catalog
            .read(|txn| txn.views_of_blob(&blob.checksum))?;
        for attributes in views {
            if !self.store.view_is_right(blob, &attributes, self.activity)? {
                self.store.drop_view(blob, &attributes)?.tell(self.activity);
            }
        }
        Ok(())
    }
}

//! The whole-store check: the catalog holds together, every blob is read and compared, every name has a row, every row
//! a file. Names without a row are swept only where every row has a file and nothing is wrong with the catalog: else they
//! may be what it lost.

mod describe;
mod repair;
mod report;
#[cfg(test)]
mod tests;

pub use report::{BadBlob, BadSnapshot, VerifyReport, VerifyRequest};

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::activity::Activity;
use crate::catalog::{Blob, BlobState, Snapshot};
use crate::limit::Limit;
use crate::remote;
use crate::store::{Store, Strangers, WENT_BACK};
use crate::words::digest::Checksum;
use crate::words::error::{ErrorKind, Result};
use crate::words::progress::WarningKind;
use crate::words::reference::Reference;
use crate::words::total::total;
use describe::Fault;
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
    let mut report = VerifyReport::default();
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
    let check = Check {
        store,
        activity,
        found: Mutex::new(Found::default()),
    };
    let snapshots = check.chosen(&request.references)?;
    let faults = check.faults(&snapshots)?;
    if whole {
        check.whole_store(limit)?;
    } else {
        check.snapshots(limit, &snapshots)?;
    }
    let found = check
        .found
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    report.checked_blobs = found.checked_blobs;
    report.checked_bytes = found.checked_bytes;
    report.mended = found.mended;
    let bad: Vec<(Blob, BadBlob, Verdict)> = found.bad.into_values().collect();
    let lost_nothing = report.catalog.is_empty() && faults.is_empty() && bad.is_empty();
    let sweeps = lost_nothing && !store.is_read_only();
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
        let blobs: Vec<Blob> = bad.iter().map(|(blob, ..)| blob.clone()).collect();
        repair.run(&blobs, &faults)?
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
            let now = if repaired {
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
    checked_bytes: u64,
    bad: BTreeMap<Checksum, (Blob, BadBlob, Verdict)>,
    mended: u64,
}

struct Check<'a> {
    store: &'a Store,
    activity: &'a Activity,
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
        let mut after = None;
        loop {
            let page = self
                .store
                .catalog
                .read(|txn| txn.blobs_after(after.as_ref(), PAGE))?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some(last.checksum);
            self.blobs(limit, &page)?;
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
        let mut blobs = BTreeMap::new();
        for snapshot in snapshots {
            let found = self
                .store
                .catalog
                .read(|txn| txn.blobs_of_snapshot(snapshot.id))?;
            blobs.extend(found.into_iter().map(|blob| (blob.checksum, blob)));
        }
        self.blobs(limit, &blobs.into_values().collect::<Vec<_>>())
    }

    fn blobs(&self, limit: &Limit, blobs: &[Blob]) -> Result<()> {
        limit.for_each(self.activity, blobs.len(), |index| self.blob(&blobs[index]))
    }

    fn blob(&self, blob: &Blob) -> Result<()> {
        self.activity.check()?;
        let verdict = self.judge(blob)?;
        self.activity.advance(blob.data_size).ok();
        let bad = match verdict {
            Verdict::Damaged | Verdict::Missing => Some(self.describe(blob)?),
            Verdict::Right | Verdict::Gone => None,
        };
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        match (verdict, bad) {
            (Verdict::Gone, _) => return Ok(()),
            (verdict, Some(bad)) => {
                let entry = (blob.clone(), bad, verdict);
                found.bad.insert(blob.checksum, entry);
            }
            _ => found.mended += u64::from(blob.state != BlobState::Good),
        }
        found.checked_blobs += 1;
        found.checked_bytes = total([found.checked_bytes, blob.data_size]);
        Ok(())
    }

    fn judge(&self, blob: &Blob) -> Result<Verdict> {
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
                self.confirmed(blob, Verdict::Damaged)
            }
            found => self.confirmed(blob, found?),
        }
    }

    /// A verdict that is not good, by what is there now: others remove and store while this reads.
    fn confirmed(&self, blob: &Blob, bad: Verdict) -> Result<Verdict> {
        let now = self.store.catalog.read(|txn| txn.blob(&blob.checksum))?;
        Ok(match now {
            // Nobody marked it, and so it was replaced, where it could have been marked.
            Some(now) if now.state == BlobState::Good && !self.store.is_read_only() => {
                Verdict::Right
            }
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

    fn describe(&self, blob: &Blob) -> Result<BadBlob> {
        Ok(BadBlob {
            digest: blob.digest,
            checksum: blob.checksum,
            size: blob.size,
            snapshots: self
                .store
                .catalog
                .read(|txn| txn.snapshots_of_blob(&blob.checksum))?,
            quarantined: None,
        })
    }
}

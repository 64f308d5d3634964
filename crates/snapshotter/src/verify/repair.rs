//! Mending what a verification found, from the nearest place that has the bytes: the file itself where only its row was
//! wrong, a view of it, the registry and the place of contents. What cannot be mended and has wrong bytes is moved aside.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::describe::{self, Fault};
use super::object::Object;
use crate::activity::Activity;
use crate::catalog::{BlobState, Doomed, Snapshot, Sync};
use crate::metrics::Operation as Verb;
use crate::remote;
use crate::store::{NamesOfBlobs, Store};
use crate::words::error::{ErrorKind, Result};
use crate::words::progress::WarningKind;

/// What a repair works with.
pub(super) struct Repair<'a> {
    pub(super) store: &'a Store,
    pub(super) remote: Option<&'a remote::Context<'a>>,
    pub(super) activity: &'a Activity,
}

/// What became of a bad object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Repaired,
    /// Removed meanwhile.
    Gone,
    Bad {
        quarantined: Option<PathBuf>,
    },
}

impl Repair<'_> {
    /// Does what can be done for these; afterwards each is looked at again.
    pub(super) fn run(&self, objects: &[Object], faults: &[Fault]) -> Result<Vec<Outcome>> {
        let contents = faults.iter().flat_map(|fault| &fault.lost);
        let contents = contents.filter_map(|(_, checksum)| *checksum);
        let packs = faults.iter().flat_map(|fault| &fault.lost_packs).copied();
        let lost = contents.chain(packs);
        let wanted = objects.iter().map(Object::key).chain(lost).collect();
        let names = self.store.names_of_blobs(&wanted)?;
        for fault in faults {
            self.adopt(fault, &names)?;
        }
        let mut left = Vec::new();
        for object in objects {
            self.activity.check()?;
            let mended = object.mend(self.store, &names, self.activity);
            if !self.or_warn(mended, false)? {
                left.push(object);
            }
        }
        let snapshots = self.affected(objects, faults)?;
        let still_bad = self.affected(left, faults)?;
        for (id, snapshot) in &snapshots {
            if still_bad.contains_key(id) {
                self.fetch(snapshot)?;
            }
            self.store.sync_now(*id);
        }
        self.drop_what_nobody_names(faults)?;
        objects.iter().map(|object| self.outcome(object)).collect()
    }

    /// References of a repaired snapshot to blobs that its document does not name, and rows that only those kept: what a
    /// row became whose checksum was changed. And references to rows that are gone.
    fn drop_what_nobody_names(&self, faults: &[Fault]) -> Result<()> {
        if self.store.went_back() {
            return Ok(());
        }
        self.store.expect_orphans();
        let mut doomed = Doomed::default();
        for fault in faults {
            let snapshot = fault.snapshot.id;
            if let Some(unnamed) = describe::unnamed(self.store, &fault.snapshot)? {
                doomed.add(
                    self.store
                        .catalog
                        .write(Sync::Full, |txn| txn.drop_references(snapshot, &unnamed))?,
                );
            }
        }
        let catalog = &self.store.catalog;
        catalog.write(Sync::Full, |txn| txn.drop_references_to_nothing())?;
        self.store.sweep_removed(&doomed, self.activity);
        Ok(())
    }

    /// Contents that a document names and no row does, where their files are still there.
    fn adopt(&self, fault: &Fault, names: &NamesOfBlobs) -> Result<()> {
        for (digest, checksum) in &fault.lost {
            if let Some(checksum) = checksum {
                let snapshot = fault.snapshot.id;
                let adopted = self
                    .store
                    .adopt(snapshot, *digest, checksum, names, self.activity);
                self.or_warn(adopted, false)?;
            }
        }
        for key in &fault.lost_packs {
            let snapshot = fault.snapshot.id;
            let adopted = self.store.adopt_pack(snapshot, key, names, self.activity);
            self.or_warn(adopted, false)?;
        }
        Ok(())
    }

    /// That one cannot be helped (its file is immutable, say) is no reason to leave the others.
    fn or_warn<T>(&self, result: Result<T>, otherwise: T) -> Result<T> {
        match result {
            Err(error) if !matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::Busy) => {
                let text = format!("it stays as it is for now: {}", error.line());
                self.activity
                    .warn(WarningKind::Deferred, error.path(), text);
                Ok(otherwise)
            }
            result => result,
        }
    }

    fn affected<'b>(
        &self,
        objects: impl IntoIterator<Item = &'b Object>,
        faults: &[Fault],
    ) -> Result<BTreeMap<i64, Snapshot>> {
        let mut affected = BTreeMap::new();
        self.store.catalog.read(|txn| {
            for object in objects {
                for reference in txn.snapshots_of_blob(&object.key())? {
                    if let Some(snapshot) = txn.find(&reference)? {
                        affected.insert(snapshot.id, snapshot);
                    }
                }
            }
            Ok(())
        })?;
        for fault in faults {
            if describe::fault(self.store, &fault.snapshot)?.is_some() {
                affected.insert(fault.snapshot.id, fault.snapshot.clone());
            }
        }
        Ok(affected)
    }

    /// Fetches what is bad of one snapshot. That this one cannot be fetched is no reason to leave the others.
    fn fetch(&self, snapshot: &Snapshot) -> Result<()> {
        let Some(context) = self.remote else {
            return Ok(());
        };
        let operation = context.store.begin(Verb::Verify)?;
        let leased = self.store.catalog.write(Sync::Normal, |txn| {
            let there = txn.snapshot(snapshot.id)?.is_some();
            if there {
                operation.lease(txn, snapshot.id)?;
            }
            Ok(there)
        })?;
        if !leased {
            return Ok(());
        }
        match remote::repair(context, snapshot.id) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
            Err(error) => {
                let reference = &snapshot.reference;
                let why = error.line();
                let text = format!("{reference} could not be fetched again: {why}");
                self.activity.warn(WarningKind::Unrepaired, None, text);
                Ok(())
            }
        }
    }

    fn outcome(&self, object: &Object) -> Result<Outcome> {
        Ok(match object.state(self.store)? {
            None => Outcome::Gone,
            Some(BlobState::Good) => Outcome::Repaired,
            Some(_) => Outcome::Bad {
                quarantined: self.or_warn(object.quarantine(self.store), None)?,
            },
        })
    }
}

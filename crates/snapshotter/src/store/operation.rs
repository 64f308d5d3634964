//! Leases as values: what a call relies on, from its first transaction to its last, however it ends.
//!
//! A call begins an operation, leases snapshots in its transactions, and drops the operation when it is over. Dropping
//! ends what is left of its leases and deletes what only they kept. That is done by unwinding too, so neither an error, nor
//! a cancelled call, nor a panic leaves anything leased; only a process that dies does, and its reaper ends the owner's
//! leases. What cannot be ended for want of anything but space stays until the handle is closed, and the log says so.

use std::sync::Arc;

use super::{Store, now};
use crate::catalog::{Snapshot, Sync, Txn};
use crate::metrics::Operation as Verb;
use crate::words::error::Result;
use crate::words::reference::Reference;

/// The leases of one call. It owns its store, so it may outlive the call that began it.
#[derive(Debug)]
pub(crate) struct Operation {
    store: Arc<Store>,
    owner: String,
    /// Tells its leases from those of the handle's other operations, and says what it is.
    number: i64,
}

impl Store {
    /// Begins an operation of this verb, which leases nothing yet.
    ///
    /// # Errors
    /// Those of making this handle an owner.
    pub(crate) fn begin(self: &Arc<Self>, verb: Verb) -> Result<Operation> {
        let owner = self.owner()?;
        Ok(Operation {
            store: Arc::clone(self),
            owner: owner.name().to_owned(),
            number: owner.next_operation(verb),
        })
    }

    /// Ends an operation's leases. Most keep nothing alive and go in one transaction that is not waited for; what another
    /// one keeps alone, a pending or a removed snapshot, goes with its blobs, and that is on the disk before any file is
    /// unlinked.
    fn end(&self, owner: &str, operation: i64) -> Result<()> {
        let has_leases = || {
            self.catalog
                .read(|txn| txn.has_leases(owner, Some(operation)))
        };
        if !has_leases()? {
            return Ok(());
        }
        self.with_slice(|| {
            self.catalog.write(Sync::Normal, |txn| {
                txn.end_harmless_leases(owner, operation)
            })
        })?;
        if !has_leases()? {
            return Ok(());
        }
        let doomed = self.with_reserve(|| {
            self.catalog
                .write(Sync::Full, |txn| txn.release_operation(owner, operation))
        })?;
        let swept = self.with_reserve(|| self.sweep_doomed(&doomed));
        self.set_aside_space();
        swept.map(|_| ())
    }
}

impl Operation {
    /// Keeps a snapshot, and with it its blobs, until the operation ends.
    pub(crate) fn lease(&self, txn: &Txn<'_>, snapshot: i64) -> Result<()> {
        txn.insert_lease(&self.owner, self.number, snapshot)
    }

    /// Finds a snapshot, which cannot go away from then on until the operation ends.
    pub(crate) fn find(&self, reference: &Reference) -> Result<Snapshot> {
        self.store.with_slice(|| {
            self.store.catalog.write(Sync::Normal, |txn| {
                let snapshot = txn.resolve(reference)?;
                self.lease(txn, snapshot.id)?;
                txn.touch(snapshot.id, now())?;
                Ok(snapshot)
            })
        })
    }

    /// Makes the pending snapshot that keeps what is taken in, leased: it goes with the operation unless it has become
    /// visible by then.
    pub(crate) fn pending(&self, txn: &Txn<'_>, reference: &Reference) -> Result<i64> {
        self.store.root.require_own(reference)?;
        let snapshot = txn.insert_pending(reference, now())?;
        self.lease(txn, snapshot)?;
        Ok(snapshot)
    }

    /// The snapshot that it keeps and that has lost its name.
    #[cfg(feature = "registry")]
    pub(crate) fn removed(&self, txn: &Txn<'_>) -> Result<Option<i64>> {
        txn.removed_of_operation(&self.owner, self.number)
    }

    /// Ends the operation's leases within a call's last transaction, which saves one of its own. Those that keep something
    /// alive are left for the drop.
    pub(crate) fn finish(&self, txn: &Txn<'_>) -> Result<()> {
        txn.end_harmless_leases(&self.owner, self.number)
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if let Err(error) = self.store.end(&self.owner, self.number) {
            tracing::warn!(%error, "a lease, and what only it keeps, stays until this handle is closed");
        }
    }
}

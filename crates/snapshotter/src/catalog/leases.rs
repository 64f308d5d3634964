//! Rows of leases, and what is deleted when the last one goes.
//!
//! A blob's row lives while a snapshot's row references it, whatever that snapshot's state. So one kind of lease is
//! enough: a capture or fetch leases its pending snapshot, a restore the one it reads. A pending snapshot whose lease
//! goes was abandoned; a removed one whose last lease goes is needed by nobody any more.

use rusqlite::params;

use super::{Doomed, Result, Txn, bad_column};
use crate::words::reference::Reference;

/// A lease, with the name of the snapshot that it keeps.
pub(crate) struct Leased {
    pub(crate) owner: String,
    pub(crate) operation: i64,
    pub(crate) reference: Reference,
}

impl Txn<'_> {
    /// All leases.
    pub(crate) fn leased(&self) -> Result<Vec<Leased>> {
        self.all(
            "SELECT l.owner, l.operation, s.name, s.version
             FROM leases l JOIN snapshots s ON s.id = l.snapshot",
            [],
            |row| {
                let (name, version): (String, String) = (row.get(2)?, row.get(3)?);
                Ok(Leased {
                    owner: row.get(0)?,
                    operation: row.get(1)?,
                    reference: Reference::new(&name, &version)
                        .map_err(|error| bad_column(2, error))?,
                })
            },
        )
    }

    pub(crate) fn insert_lease(&self, owner: &str, operation: i64, snapshot: i64) -> Result<()> {
        self.execute(
            "INSERT INTO leases (owner, operation, snapshot) VALUES (?1, ?2, ?3)",
            params![owner, operation, snapshot],
        )?;
        Ok(())
    }

    /// A removed snapshot that an operation leases.
    #[cfg(feature = "registry")]
    pub(crate) fn removed_of_operation(&self, owner: &str, operation: i64) -> Result<Option<i64>> {
        self.first(
            "SELECT snapshot FROM leases WHERE owner = ?1 AND operation = ?2
             AND snapshot IN (SELECT id FROM snapshots WHERE removed = 1) LIMIT 1",
            params![owner, operation],
            |row| row.get(0),
        )
    }

    /// Ends those leases of an operation that keep nothing alive: of snapshots that people see.
    pub(crate) fn end_harmless_leases(&self, owner: &str, operation: i64) -> Result<()> {
        self.execute(
            "DELETE FROM leases WHERE owner = ?1 AND operation = ?2
             AND snapshot IN (SELECT id FROM snapshots WHERE state != 0 AND removed = 0)",
            params![owner, operation],
        )?;
        Ok(())
    }

    /// Ends the leases of one operation and deletes what only they kept.
    pub(crate) fn release_operation(&self, owner: &str, operation: i64) -> Result<Doomed> {
        let snapshots = self.all(
            "SELECT snapshot FROM leases WHERE owner = ?1 AND operation = ?2",
            params![owner, operation],
            |row| row.get(0),
        )?;
        self.execute(
            "DELETE FROM leases WHERE owner = ?1 AND operation = ?2",
            params![owner, operation],
        )?;
        self.doom_abandoned(&snapshots)
    }

    /// Whether an owner, or one of its operations, has any lease.
    pub(crate) fn has_leases(&self, owner: &str, operation: Option<i64>) -> Result<bool> {
        let found = self.first(
            "SELECT 1 FROM leases WHERE owner = ?1 AND operation = ifnull(?2, operation) LIMIT 1",
            params![owner, operation],
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    }

    /// Ends all leases of an owner and deletes what only they kept.
    pub(crate) fn release_owner(&self, owner: &str) -> Result<Doomed> {
        let snapshots = self.all(
            "SELECT DISTINCT snapshot FROM leases WHERE owner = ?1",
            [owner],
            |row| row.get(0),
        )?;
        self.execute("DELETE FROM leases WHERE owner = ?1", [owner])?;
        self.doom_abandoned(&snapshots)
    }

    /// Owners that have leases, live or dead.
    pub(crate) fn lease_owners(&self) -> Result<Vec<String>> {
        self.all("SELECT DISTINCT owner FROM leases", [], |row| row.get(0))
    }

    /// Pending and removed snapshots that nobody leases: what a lost lease file leaves behind.
    pub(crate) fn abandoned(&self) -> Result<Vec<i64>> {
        self.all(
            "SELECT s.id FROM snapshots s WHERE (s.state = 0 OR s.removed = 1)
             AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.snapshot = s.id)",
            [],
            |row| row.get(0),
        )
    }

    /// Deletes those of these snapshots that are pending or removed and have no lease left.
    pub(crate) fn doom_abandoned(&self, snapshots: &[i64]) -> Result<Doomed> {
        let mut doomed = Doomed::default();
        for &snapshot in snapshots {
            if self.is_abandoned(snapshot)? {
                doomed.add(self.doom_blobs_of(snapshot)?);
                self.delete_snapshot(snapshot)?;
            }
        }
        Ok(doomed)
    }

    fn is_abandoned(&self, snapshot: i64) -> Result<bool> {
        let found = self.first(
            "SELECT 1 FROM snapshots s WHERE s.id = ?1 AND (s.state = 0 OR s.removed = 1)
             AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.snapshot = s.id)",
            [snapshot],
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    }
}

//! What garbage collection asks of the catalog, and how a snapshot loses its row and its name to it.

use rusqlite::params;

use super::blobs::form;
use super::{Doomed, Form, Result, Snapshot, State, Txn, unsigned};
use crate::words::digest::Checksum;

/// A blob's file, as far as its size matters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredBlob {
    pub(crate) id: i64,
    pub(crate) checksum: Checksum,
    pub(crate) form: Form,
    pub(crate) data_size: u64,
}

impl Txn<'_> {
    /// All blobs, by their ids.
    pub(crate) fn stored_blobs(&self) -> Result<Vec<StoredBlob>> {
        self.all(
            "SELECT id, checksum, data_size, form FROM blobs ORDER BY id",
            [],
            |row| {
                Ok(StoredBlob {
                    id: row.get(0)?,
                    checksum: row.get(1).map(Checksum::from_bytes)?,
                    form: form(row, 3)?,
                    data_size: unsigned(row, 2)?,
                })
            },
        )
    }

    /// Which snapshot needs which blob, those included that are pending or removed and not visible.
    pub(crate) fn all_references(&self) -> Result<Vec<(i64, i64)>> {
        self.all("SELECT snapshot, blob FROM blob_references", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
    }

    /// Snapshots that somebody leases.
    pub(crate) fn leased_snapshots(&self) -> Result<Vec<i64>> {
        self.all("SELECT DISTINCT snapshot FROM leases", [], |row| row.get(0))
    }

    /// Deletes a snapshot, and the rows of the blobs that nothing else needs, if it is as it was when it was chosen: not
    /// pinned, not leased, not used since, and no less published. `None`: it is not, and stays.
    pub(crate) fn release_unused(&self, chosen: &Snapshot) -> Result<Option<Vec<Doomed>>> {
        let Some(now) = self.snapshot(chosen.id)? else {
            return Ok(None);
        };
        let unpublished = |snapshot: &Snapshot| snapshot.state == State::Unpublished;
        let changed = now.pinned
            || now.last_accessed_at != chosen.last_accessed_at
            || now.reference != chosen.reference
            || (unpublished(&now) && !unpublished(chosen))
            || self.is_leased(chosen.id)?;
        if changed {
            return Ok(None);
        }
        self.mark_removed(chosen.id)?;
        self.doom_abandoned(&[chosen.id]).map(Some)
    }

    fn is_leased(&self, snapshot: i64) -> Result<bool> {
        let found = self.first(
            "SELECT 1 FROM leases WHERE snapshot = ?1 LIMIT 1",
            [snapshot],
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    }

    pub(crate) fn set_pinned(&self, snapshot: i64, pinned: bool) -> Result<()> {
        self.execute(
            "UPDATE snapshots SET pinned = ?2 WHERE id = ?1",
            params![snapshot, pinned],
        )?;
        Ok(())
    }
}

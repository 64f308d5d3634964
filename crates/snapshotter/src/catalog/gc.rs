//! What garbage collection asks of the catalog, and how a snapshot loses its row and its name to it.

use std::collections::HashSet;

use rusqlite::params;

use super::names::Shard;
use super::objects::{checksum, kind, shard};
use super::references::ExclusiveBlob;
use super::{Doomed, PublicationRow, Result, Snapshot, Txn, unsigned};
use crate::words::digest::Checksum;
use crate::words::form::ObjectKind;

/// A blob's file, as far as its size matters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredBlob {
    pub(crate) checksum: Checksum,
    pub(crate) kind: ObjectKind,
    pub(crate) shard: Shard,
    pub(crate) data_size: u64,
}

/// What a release relies on: the snapshot is where this row says, and the contents' place has these objects.
#[derive(Clone, Debug)]
pub(crate) struct Relied {
    pub(crate) publication: PublicationRow,
    pub(crate) objects: HashSet<Checksum>,
}

/// In what state the store is, in numbers.
pub(crate) struct States {
    /// Snapshots that are nowhere else, as far as is known.
    pub(crate) unpublished: u64,
    /// Objects that are damaged or missing.
    pub(crate) damaged: u64,
    /// When a snapshot was last seen in a registry.
    pub(crate) last_seen_at: Option<i64>,
}

impl Txn<'_> {
    pub(crate) fn states(&self) -> Result<States> {
        let found = self.first(
            "SELECT (SELECT count(*) FROM snapshots s WHERE s.state > 0 AND s.removed = 0
                     AND NOT EXISTS (SELECT 1 FROM publications p WHERE p.snapshot = s.id)),
                    (SELECT count(*) FROM objects WHERE state <> 0),
                    (SELECT max(seen_at) FROM publications)",
            [],
            |row| {
                Ok(States {
                    unpublished: unsigned(row, 0)?,
                    damaged: unsigned(row, 1)?,
                    last_seen_at: row.get(2)?,
                })
            },
        )?;
        // There always is such a row.
        Ok(found.unwrap_or(States {
            unpublished: 0,
            damaged: 0,
            last_seen_at: None,
        }))
    }

    /// All blobs, by their checksums.
    pub(crate) fn stored_blobs(&self) -> Result<Vec<StoredBlob>> {
        self.all(
            "SELECT key, kind, shard, data_size FROM objects ORDER BY key",
            [],
            |row| {
                Ok(StoredBlob {
                    checksum: checksum(row, 0)?,
                    kind: kind(row, 1)?,
                    shard: shard(row, 2)?,
                    data_size: unsigned(row, 3)?,
                })
            },
        )
    }

    /// Number of blobs, and the bytes of data the store keeps for them.
    pub(crate) fn blob_totals(&self) -> Result<(u64, u64)> {
        self.first(
            "SELECT count(*), coalesce(sum(o.data_size), 0)
             FROM objects o JOIN contents c ON c.object = o.id",
            [],
            |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?)),
        )
        .map(Option::unwrap_or_default)
    }

    /// Bytes that the store keeps: of data in blobs, and of packs as they are.
    pub(crate) fn stored_bytes(&self) -> Result<u64> {
        let sum = self.first(
            "SELECT coalesce(sum(data_size), 0) FROM objects",
            [],
            |row| unsigned(row, 0),
        )?;
        Ok(sum.unwrap_or_default())
    }

    /// Which snapshot needs which blob, those included that are pending or removed and not visible.
    pub(crate) fn all_references(&self) -> Result<Vec<(i64, Checksum)>> {
        self.all(
            "SELECT r.snapshot, o.key FROM object_references r JOIN objects o ON o.id = r.object",
            [],
            |row| Ok((row.get(0)?, checksum(row, 1)?)),
        )
    }

    /// Snapshots that somebody leases.
    pub(crate) fn leased_snapshots(&self) -> Result<Vec<i64>> {
        self.all("SELECT DISTINCT snapshot FROM leases", [], |row| row.get(0))
    }

    /// Deletes a snapshot, and the rows of the blobs that nothing else needs, if it is as it was when it was chosen: not
    /// pinned, not leased, not used since, and where it is relied on to be. `None`: it is not, and stays.
    pub(crate) fn release_unused(
        &self,
        chosen: &Snapshot,
        relied: Option<&Relied>,
    ) -> Result<Option<Doomed>> {
        let Some(now) = self.snapshot(chosen.id)? else {
            return Ok(None);
        };
        let changed = now.pinned
            || now.last_accessed_at != chosen.last_accessed_at
            || now.reference != chosen.reference
            || self.is_leased(chosen.id)?;
        if changed || !self.still_holds(chosen.id, relied)? {
            return Ok(None);
        }
        self.mark_removed(chosen.id)?;
        self.doom_abandoned(&[chosen.id]).map(Some)
    }

    /// Whether the publication is still recorded, and every blob that would go was asked for: another snapshot that needed
    /// one may have gone meanwhile.
    fn still_holds(&self, snapshot: i64, relied: Option<&Relied>) -> Result<bool> {
        let Some(relied) = relied else {
            return Ok(true);
        };
        let known = self.publications_of(snapshot)?;
        let is_relied = |row: &PublicationRow| row.is_same_place(&relied.publication);
        let blobs = self.exclusive_blobs(snapshot)?;
        let was_asked = |blob: &ExclusiveBlob| relied.objects.contains(&blob.checksum);
        Ok(known.iter().any(is_relied) && blobs.iter().all(was_asked))
    }

    /// Whether a snapshot's last use is later than this.
    pub(crate) fn has_uses_after(&self, now: i64) -> Result<bool> {
        let found = self.first(
            "SELECT 1 FROM snapshots WHERE last_accessed_at > ?1 LIMIT 1",
            [now],
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    }

    /// Moves every later last use to this time.
    pub(crate) fn end_uses_after(&self, now: i64) -> Result<()> {
        self.execute(
            "UPDATE snapshots SET last_accessed_at = ?1 WHERE last_accessed_at > ?1",
            [now],
        )?;
        Ok(())
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

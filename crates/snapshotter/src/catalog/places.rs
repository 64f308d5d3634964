//! Where snapshots and objects are besides this store, as far as is known: rows, revised whenever somebody looks and finds
//! otherwise.
//!
//! A row is a memory and not a promise: others remove manifests, move tags and empty buckets, and nobody tells this store.
//! So garbage collection asks before it relies on one, and a row that turned out to be wrong is deleted. Addresses are
//! written by those who know the places, one spelling each, and hold no secrets.
//! Where objects are is read by a collection that trusts a daemon alone (`gc.trust_daemon`, `Txn::objects_at`), where the
//! bucket cannot be asked.
//!
//! A store from before schema 3 knows that a snapshot is somewhere (`Address::Unknown`): that counts for any registry until one
//! confirms it.

use std::collections::HashMap;
#[cfg(feature = "registry")]
use std::ops::RangeInclusive;

use rusqlite::{Row, params};

use super::{Result, Txn, bad_column};
#[cfg(feature = "registry")]
use crate::words::digest::Checksum;
use crate::words::digest::Sha256;
use crate::words::error::Error;

/// A place, by the one spelling of its address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    /// A repository of a registry.
    Repository(String),
    /// A bucket or directory of contents.
    Contents(String),
    /// Somewhere: a store that knew no places did not note it.
    Unknown,
}

/// Where a snapshot was last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicationRow {
    pub(crate) registry: Address,
    pub(crate) content: Address,
    pub(crate) manifest_digest: Sha256,
    /// Nanoseconds since 1970 UTC.
    pub(crate) seen_at: i64,
}

/// Who saw an object at its place.
#[cfg(feature = "registry")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SeenBy {
    Ourselves = 0,
    Daemon = 1,
}

impl Address {
    fn columns(&self) -> (i64, &str) {
        match self {
            Self::Repository(address) => (0, address),
            Self::Contents(address) => (1, address),
            Self::Unknown => (2, ""),
        }
    }

    /// From the columns `kind` and `address`.
    fn read(row: &Row<'_>, index: usize) -> rusqlite::Result<Self> {
        match row.get(index)? {
            0_i64 => Ok(Self::Repository(row.get(index + 1)?)),
            1 => Ok(Self::Contents(row.get(index + 1)?)),
            2 => Ok(Self::Unknown),
            kind => Err(bad_column(
                index,
                Error::damaged(format!("no place is of kind {kind}")),
            )),
        }
    }

    /// As people read it; nothing where it is not known.
    pub(crate) fn shown(&self) -> Option<&str> {
        match self {
            Self::Repository(address) | Self::Contents(address) => Some(address),
            Self::Unknown => None,
        }
    }
}

impl PublicationRow {
    /// Whether both say the same, but for when that was seen.
    pub(super) fn is_same_place(&self, other: &Self) -> bool {
        self.registry == other.registry
            && self.content == other.content
            && self.manifest_digest == other.manifest_digest
    }
}

/// Publications; what is left out says of which snapshots.
macro_rules! publications {
    ($rest:literal) => {
        concat!(
            "SELECT p.snapshot, r.kind, r.address, c.kind, c.address, p.manifest_digest, p.seen_at
             FROM publications p JOIN places r ON r.id = p.registry JOIN places c ON c.id = p.content",
            $rest
        )
    };
}
pub(super) use publications;

pub(super) fn publication(row: &Row<'_>) -> rusqlite::Result<(i64, PublicationRow)> {
    let seen = PublicationRow {
        registry: Address::read(row, 1)?,
        content: Address::read(row, 3)?,
        manifest_digest: Sha256::from_bytes(row.get(5)?),
        seen_at: row.get(6)?,
    };
    Ok((row.get(0)?, seen))
}

impl Txn<'_> {
    /// Where all snapshots are, by their ids; what is nowhere else is left out.
    pub(crate) fn publications(&self) -> Result<HashMap<i64, Vec<PublicationRow>>> {
        let mut found: HashMap<i64, Vec<PublicationRow>> = HashMap::new();
        for (snapshot, seen) in self.all(publications!(""), [], publication)? {
            found.entry(snapshot).or_default().push(seen);
        }
        Ok(found)
    }

    /// Where a snapshot is.
    pub(crate) fn publications_of(&self, snapshot: i64) -> Result<Vec<PublicationRow>> {
        self.all(publications!(" WHERE p.snapshot = ?1"), [snapshot], |row| {
            publication(row).map(|(_, seen)| seen)
        })
    }

    /// A snapshot was seen where this says; so it is known where it is.
    pub(crate) fn record_publication(&self, snapshot: i64, seen: &PublicationRow) -> Result<()> {
        if seen.registry != Address::Unknown {
            self.forget_publication(snapshot, &Address::Unknown)?;
        }
        let (registry, content) = (self.place(&seen.registry)?, self.place(&seen.content)?);
        self.execute(
            "INSERT INTO publications (snapshot, registry, content, manifest_digest, seen_at) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (snapshot, registry) DO UPDATE SET
                 content = excluded.content, manifest_digest = excluded.manifest_digest, seen_at = excluded.seen_at",
            params![snapshot, registry, content, seen.manifest_digest.as_bytes(), seen.seen_at],
        )?;
        Ok(())
    }

    /// A snapshot is not there any more.
    pub(crate) fn forget_publication(&self, snapshot: i64, registry: &Address) -> Result<()> {
        let (kind, address) = registry.columns();
        self.execute(
            "DELETE FROM publications
             WHERE snapshot = ?1 AND registry = (SELECT id FROM places WHERE kind = ?2 AND address = ?3)",
            params![snapshot, kind, address],
        )?;
        Ok(())
    }

    /// Deletes what is known of snapshots, blobs and places whose rows are gone.
    pub(super) fn drop_places_of_nothing(&self) -> Result<()> {
        self.execute(
            "DELETE FROM publications WHERE snapshot NOT IN (SELECT id FROM snapshots)
                 OR registry NOT IN (SELECT id FROM places) OR content NOT IN (SELECT id FROM places)",
            [],
        )?;
        self.execute(
            "DELETE FROM object_places WHERE object NOT IN (SELECT id FROM objects)
                 OR place NOT IN (SELECT id FROM places)",
            [],
        )?;
        Ok(())
    }

    /// What stores knew before there were places: that a snapshot is somewhere else too.
    pub(super) fn places_from_states(&self) -> Result<()> {
        let unknown = self.place(&Address::Unknown)?;
        self.execute(
            "INSERT INTO publications (snapshot, registry, content, manifest_digest, seen_at)
             SELECT id, ?1, ?1, manifest_digest, created_at FROM snapshots
             WHERE state IN (2, 3) AND length(manifest_digest) = 32",
            [unknown],
        )?;
        self.execute("UPDATE snapshots SET state = 1 WHERE state = 2", [])?;
        Ok(())
    }

    /// The row of a place, made if it is not there.
    fn place(&self, address: &Address) -> Result<i64> {
        let (kind, text) = address.columns();
        let found = self.first(
            "SELECT id FROM places WHERE kind = ?1 AND address = ?2",
            params![kind, text],
            |row| row.get(0),
        )?;
        match found {
            Some(id) => Ok(id),
            None => self.insert(
                "INSERT INTO places (kind, address) VALUES (?1, ?2)",
                params![kind, text],
            ),
        }
    }
}

#[cfg(feature = "registry")]
impl Txn<'_> {
    /// A place does not have the blobs with these checksums.
    pub(crate) fn forget_objects(&self, place: &Address, checksums: &[Checksum]) -> Result<()> {
        let (kind, address) = place.columns();
        for checksum in checksums {
            self.execute(
                "DELETE FROM object_places WHERE object = (SELECT id FROM objects WHERE key = ?1)
                     AND place = (SELECT id FROM places WHERE kind = ?2 AND address = ?3)",
                params![checksum.as_bytes(), kind, address],
            )?;
        }
        Ok(())
    }

    /// A manifest has gone from a repository: no snapshot of this name is there that it describes.
    pub(crate) fn forget_manifest(
        &self,
        registry: &Address,
        name: &str,
        manifest_digest: Sha256,
    ) -> Result<()> {
        let (kind, address) = registry.columns();
        self.execute(
            "DELETE FROM publications WHERE manifest_digest = ?1
                 AND registry IN (SELECT id FROM places WHERE (kind = ?2 AND address = ?3) OR kind = 2)
                 AND snapshot IN (SELECT id FROM snapshots WHERE name = ?4)",
            params![manifest_digest.as_bytes(), kind, address, name],
        )?;
        Ok(())
    }

    /// The snapshots of a name that are known to be somewhere under this manifest.
    pub(crate) fn snapshots_of_manifest(
        &self,
        name: &str,
        manifest_digest: Sha256,
    ) -> Result<Vec<i64>> {
        self.all(
            "SELECT DISTINCT p.snapshot FROM publications p JOIN snapshots s ON s.id = p.snapshot
             WHERE s.name = ?1 AND p.manifest_digest = ?2",
            params![name, manifest_digest.as_bytes()],
            |row| row.get(0),
        )
    }

    /// A place is said to have all objects of a snapshot. When each was seen there is for whoever saw it to say: until then it
    /// was never.
    pub(crate) fn record_objects(
        &self,
        snapshot: i64,
        place: &Address,
        seen_by: SeenBy,
    ) -> Result<()> {
        let place = self.place(place)?;
        self.execute(
            "INSERT INTO object_places (object, place, seen_at, seen_by)
             SELECT object, ?2, 0, ?3 FROM object_references WHERE snapshot = ?1
             ON CONFLICT (object, place) DO NOTHING",
            params![snapshot, place, seen_by as i64],
        )?;
        Ok(())
    }

    /// A place was seen to have these objects. What we saw ourselves is not forgotten for a daemon's word.
    pub(crate) fn record_seen(
        &self,
        place: &Address,
        keys: &[Checksum],
        seen_by: SeenBy,
        now: i64,
    ) -> Result<()> {
        let place = self.place(place)?;
        for key in keys {
            self.execute(
                "INSERT INTO object_places (object, place, seen_at, seen_by)
                 SELECT id, ?2, ?3, ?4 FROM objects WHERE key = ?1
                 ON CONFLICT (object, place) DO UPDATE SET seen_at = excluded.seen_at, seen_by = excluded.seen_by
                     WHERE excluded.seen_by <= seen_by",
                params![key.as_bytes(), place, now, seen_by as i64],
            )?;
        }
        Ok(())
    }

    /// Nothing is believed of a repository any more: somebody is about to collect what nothing names there.
    pub(crate) fn doubt_objects_at(&self, place: &Address) -> Result<()> {
        let (kind, address) = place.columns();
        self.execute(
            "UPDATE object_places SET seen_at = 0
             WHERE place = (SELECT id FROM places WHERE kind = ?1 AND address = ?2)",
            params![kind, address],
        )?;
        Ok(())
    }

    /// The keys of those of a snapshot's objects that we saw at a place within a time, by ourselves: what was seen the longest time
    /// ago comes first.
    pub(crate) fn objects_seen_at(
        &self,
        snapshot: i64,
        place: &Address,
        within: RangeInclusive<i64>,
    ) -> Result<Vec<Checksum>> {
        let (kind, address) = place.columns();
        self.all(
            "SELECT o.key FROM object_references r JOIN objects o ON o.id = r.object
             JOIN object_places e ON e.object = o.id JOIN places p ON p.id = e.place
             WHERE r.snapshot = ?1 AND p.kind = ?2 AND p.address = ?3 AND e.seen_by = 0 AND e.seen_at BETWEEN ?4 AND ?5
             ORDER BY e.seen_at, o.key",
            params![snapshot, kind, address, within.start(), within.end()],
            |row| row.get(0).map(Checksum::from_bytes),
        )
    }

    /// The checksums of those of a snapshot's blobs that a place is known to have.
    pub(crate) fn objects_at(&self, snapshot: i64, place: &Address) -> Result<Vec<Checksum>> {
        let (kind, address) = place.columns();
        self.all(
            "SELECT o.key FROM object_references r JOIN objects o ON o.id = r.object
             JOIN object_places e ON e.object = o.id JOIN places p ON p.id = e.place
             WHERE r.snapshot = ?1 AND p.kind = ?2 AND p.address = ?3",
            params![snapshot, kind, address],
            |row| row.get(0).map(Checksum::from_bytes),
        )
    }
}

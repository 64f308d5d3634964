//! Which snapshot needs which object, what goes when nothing needs one, and the names that it leaves behind.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rusqlite::params;

use super::names::{
    Shard, StoredName, Tree, content_name, parse_content_name, parse_view_name, view_name,
};
use super::objects::{checksum, kind, shard};
use super::{Result, Txn, bad_column, unsigned};
use crate::words::digest::Checksum;
use crate::words::form::ObjectKind;
use crate::words::reference::Reference;

/// An object that one snapshot alone needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExclusiveBlob {
    pub(crate) checksum: Checksum,
    pub(crate) data_size: u64,
    kind: ObjectKind,
    shard: Shard,
}

/// An object whose row was deleted, with the names it had under `storage/`: each is an orphan until it is seen to go.
#[derive(Clone, Debug)]
pub(crate) struct Doomed {
    pub(crate) data_size: u64,
    pub(crate) names: Vec<StoredName>,
}

impl Txn<'_> {
    pub(crate) fn reference_object(&self, snapshot: i64, checksum: &Checksum) -> Result<()> {
        self.execute(
            "INSERT OR IGNORE INTO object_references (snapshot, object)
             SELECT ?1, id FROM objects WHERE key = ?2",
            params![snapshot, checksum.as_bytes()],
        )?;
        Ok(())
    }

    /// Whether a call promised, or is about to promise, that the blob outlives a power cut: a snapshot needs it whose
    /// bytes need not be anywhere else.
    pub(crate) fn is_promised(&self, checksum: &Checksum) -> Result<bool> {
        let found = self.first(
            "SELECT 1 FROM objects o JOIN object_references r ON r.object = o.id
             WHERE o.key = ?1 AND NOT EXISTS (SELECT 1 FROM publications p WHERE p.snapshot = r.snapshot) LIMIT 1",
            [checksum.as_bytes()],
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    }

    /// A snapshot's objects that no other snapshot needs.
    pub(crate) fn exclusive_blobs(&self, snapshot: i64) -> Result<Vec<ExclusiveBlob>> {
        self.all(
            "SELECT o.key, CASE o.state WHEN 2 THEN 0 ELSE o.data_size END, o.kind, o.shard
             FROM object_references r JOIN objects o ON o.id = r.object
             WHERE r.snapshot = ?1
               AND NOT EXISTS (SELECT 1 FROM object_references e WHERE e.object = r.object AND e.snapshot <> ?1)",
            [snapshot],
            |row| {
                Ok(ExclusiveBlob {
                    checksum: checksum(row, 0)?,
                    data_size: unsigned(row, 1)?,
                    kind: kind(row, 2)?,
                    shard: shard(row, 3)?,
                })
            },
        )
    }

    /// Deletes the rows of a snapshot's objects that no other snapshot needs, and says what they were called.
    pub(crate) fn doom_blobs_of(&self, snapshot: i64) -> Result<Vec<Doomed>> {
        let exclusive = self.exclusive_blobs(snapshot)?;
        self.execute(
            "DELETE FROM object_references WHERE snapshot = ?1",
            [snapshot],
        )?;
        exclusive.iter().map(|blob| self.doom_blob(blob)).collect()
    }

    pub(super) fn doom_blob(&self, blob: &ExclusiveBlob) -> Result<Doomed> {
        let views = self.views_of_blob(&blob.checksum)?;
        self.execute(
            "DELETE FROM objects WHERE key = ?1",
            [blob.checksum.as_bytes()],
        )?;
        let content = StoredName::content(content_name(&blob.checksum, blob.kind, blob.shard));
        let views = views
            .iter()
            .map(|attributes| StoredName::view(view_name(&blob.checksum, attributes, blob.shard)));
        let names: Vec<StoredName> = std::iter::once(content).chain(views).collect();
        for name in &names {
            self.orphan(name)?;
        }
        Ok(Doomed {
            data_size: blob.data_size,
            names,
        })
    }

    /// Notes that no row stands for a name any more, by this store's own hand, so that it may be swept. A catalog that went
    /// back in time cannot say that: something it does not know may need the file.
    pub(crate) fn orphan(&self, name: &StoredName) -> Result<()> {
        self.execute(
            "INSERT OR IGNORE INTO orphans (tree, name) SELECT ?1, ?2 FROM generation WHERE went_back = 0",
            params![name.tree.column(), name.name.to_string_lossy()],
        )?;
        Ok(())
    }

    /// Whether a row stands for a name.
    pub(crate) fn has_row(&self, name: &StoredName) -> Result<bool> {
        match name.tree {
            Tree::Content => match parse_content_name(&name.name) {
                Some((key, kind, shard)) => self.has_object(&key, kind, shard),
                None => Ok(false),
            },
            Tree::Views => match parse_view_name(&name.name) {
                Some((checksum, attributes, shard)) => {
                    self.has_view(&(checksum, attributes), shard)
                }
                None => Ok(false),
            },
        }
    }

    /// An orphan is gone, or is none any more.
    pub(crate) fn forget_orphan(&self, name: &StoredName) -> Result<()> {
        self.execute(
            "DELETE FROM orphans WHERE tree = ?1 AND name = ?2",
            params![name.tree.column(), name.name.to_string_lossy()],
        )?;
        Ok(())
    }

    /// All names that wait for being swept.
    pub(crate) fn orphans(&self) -> Result<Vec<StoredName>> {
        self.all("SELECT tree, name FROM orphans", [], |row| {
            let name: String = row.get(1)?;
            Ok(StoredName {
                tree: match row.get(0)? {
                    0_i64 => Tree::Content,
                    _ => Tree::Views,
                },
                name: OsStr::from_bytes(name.as_bytes()).to_owned(),
            })
        })
    }

    /// Names of the snapshots that need a blob.
    pub(crate) fn snapshots_of_blob(&self, checksum: &Checksum) -> Result<Vec<Reference>> {
        let found = self.all(
            "SELECT s.name, s.version
             FROM objects o JOIN object_references r ON r.object = o.id JOIN snapshots s ON s.id = r.snapshot
             WHERE o.key = ?1 AND s.state > 0 AND s.removed = 0 ORDER BY s.name, s.version",
            [checksum.as_bytes()],
            |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)),
        )?;
        found
            .iter()
            .map(|(name, version)| {
                Reference::new(name, version).map_err(|error| self.error(bad_column(0, error)))
            })
            .collect()
    }
}

impl Tree {
    fn column(self) -> i64 {
        match self {
            Self::Content => 0,
            Self::Views => 1,
        }
    }
}

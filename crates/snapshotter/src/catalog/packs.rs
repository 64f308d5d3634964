//! Rows of packs: objects that have pages of the files of many snapshots (format v2), under their ids.
//!
//! A pack is referenced as a whole, by each snapshot of whose files it has pages; which pages, only documents say.

use rusqlite::{Row, params};

use super::names::{Shard, content_name};
use super::objects::{BlobState, checksum, shard, state};
use super::{Result, Txn, signed, unsigned};
use crate::fs::Stat;
use crate::words::digest::Checksum;
use crate::words::entry::Mtime;
use crate::words::form::ObjectKind;

/// A pack's row.
#[derive(Clone, Debug)]
pub(crate) struct Pack {
    /// Its id.
    pub(crate) key: Checksum,
    pub(crate) shard: Shard,
    pub(crate) state: BlobState,
    /// Of its file, in bytes.
    pub(crate) length: u64,
    mtime: Option<Mtime>,
    inode: Option<u64>,
    pub(crate) unsynced: Option<String>,
}

/// A pack about to get its row.
#[derive(Debug)]
pub(crate) struct NewPack<'a> {
    pub(crate) key: Checksum,
    pub(crate) shard: Shard,
    pub(crate) length: u64,
    pub(crate) mtime: Option<Mtime>,
    pub(crate) inode: u64,
    pub(crate) unsynced: Option<&'a str>,
    pub(crate) now: i64,
}

impl Pack {
    /// What its file is called.
    pub(crate) fn name(&self) -> std::ffi::OsString {
        content_name(&self.key, ObjectKind::Pack, self.shard)
    }

    /// Whether an inode is the one that was recorded when its bytes were known to be right.
    pub(crate) fn is_recorded(&self, stat: &Stat) -> bool {
        self.length == stat.size
            && self.mtime == Some(stat.mtime)
            && self.inode.is_none_or(|inode| inode == stat.ino)
    }
}

macro_rules! select_packs {
    ($rest:literal) => {
        concat!(
            "SELECT o.key, o.shard, o.state, o.length, o.mtime_seconds, o.mtime_nanoseconds, o.inode, o.unsynced
             FROM objects o ",
            $rest
        )
    };
}

fn pack(row: &Row<'_>) -> rusqlite::Result<Pack> {
    let time: Option<(i64, u32)> = row.get::<_, Option<i64>>(4)?.zip(row.get(5)?);
    Ok(Pack {
        key: checksum(row, 0)?,
        shard: shard(row, 1)?,
        state: state(row, 2)?,
        length: unsigned(row, 3)?,
        mtime: time.map(|(seconds, nanoseconds)| Mtime {
            seconds,
            nanoseconds,
        }),
        inode: row.get::<_, Option<i64>>(6)?.map(i64::cast_unsigned),
        unsynced: row.get(7)?,
    })
}

impl Txn<'_> {
    pub(crate) fn pack(&self, key: &Checksum) -> Result<Option<Pack>> {
        self.first(
            select_packs!("WHERE o.key = ?1 AND o.kind = 2"),
            [key.as_bytes()],
            pack,
        )
    }

    /// Up to `limit` packs, the first ones in the order of their ids that come after one; from the start without.
    pub(crate) fn packs_after(&self, after: Option<&Checksum>, limit: u32) -> Result<Vec<Pack>> {
        let after: &[u8] = after.map_or(&[], |key| key.as_bytes());
        self.all(
            select_packs!("WHERE o.key > ?1 AND o.kind = 2 ORDER BY o.key LIMIT ?2"),
            params![after, limit],
            pack,
        )
    }

    pub(crate) fn packs_of_snapshot(&self, snapshot: i64) -> Result<Vec<Pack>> {
        self.all(
            select_packs!(
                "JOIN object_references r ON r.object = o.id WHERE r.snapshot = ?1 AND o.kind = 2"
            ),
            [snapshot],
            pack,
        )
    }

    /// The visible snapshots that need packs which a snapshot needs too, the newest first.
    #[cfg(feature = "registry")]
    pub(crate) fn snapshots_sharing_packs(&self, snapshot: i64) -> Result<Vec<i64>> {
        self.all(
            "SELECT s.id FROM snapshots s WHERE s.id <> ?1 AND s.state > 0 AND s.removed = 0 AND s.format = 2
               AND EXISTS (SELECT 1 FROM object_references r JOIN object_references o ON o.object = r.object
                           WHERE r.snapshot = ?1 AND o.snapshot = s.id)
             ORDER BY s.id DESC LIMIT 64",
            [snapshot],
            |row| row.get(0),
        )
    }

    /// Number of packs, and their bytes.
    pub(crate) fn pack_totals(&self) -> Result<(u64, u64)> {
        self.first(
            "SELECT count(*), coalesce(sum(length), 0) FROM objects WHERE kind = 2",
            [],
            |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?)),
        )
        .map(Option::unwrap_or_default)
    }

    /// A row for a pack that a document names and that is not here.
    pub(crate) fn put_missing_pack(&self, key: &Checksum, shard: Shard, now: i64) -> Result<()> {
        self.put_pack(&NewPack {
            key: *key,
            shard,
            length: 0,
            mtime: None,
            inode: 0,
            unsynced: None,
            now,
        })?;
        self.mark_object(key, ObjectKind::Pack, BlobState::Missing)
    }

    /// Gives a pack its row, or the row the file that has its name from now on.
    pub(crate) fn put_pack(&self, new: &NewPack<'_>) -> Result<()> {
        self.execute(
            "INSERT INTO objects (key, kind, shard, length, data_size, mtime_seconds, mtime_nanoseconds, inode, unsynced,
                                  created_at)
             VALUES (?1, 2, ?2, ?3, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (key) DO UPDATE
             SET kind = 2, shard = excluded.shard, length = excluded.length, data_size = excluded.data_size, state = 0,
                 mtime_seconds = excluded.mtime_seconds, mtime_nanoseconds = excluded.mtime_nanoseconds,
                 inode = excluded.inode, unsynced = excluded.unsynced, created_at = excluded.created_at",
            params![
                new.key.as_bytes(),
                new.shard.0,
                signed(new.length),
                new.mtime.map(|mtime| mtime.seconds),
                new.mtime.map(|mtime| mtime.nanoseconds),
                new.inode.cast_signed(),
                new.unsynced,
                new.now,
            ],
        )?;
        Ok(())
    }
}

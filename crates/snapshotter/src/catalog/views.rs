//! Rows of views: further inodes with a blob's bytes, each with one set of attributes.

use rusqlite::{Row, params};

use super::names::Shard;
use super::{Result, Txn};
use crate::fs::Stat;
use crate::words::digest::Checksum;
use crate::words::entry::Mtime;

/// A view's inode, as it was when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ViewInode {
    pub(crate) number: u64,
    pub(crate) mtime: Mtime,
}

impl ViewInode {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self {
            number: stat.ino,
            mtime: stat.mtime,
        }
    }

    /// From the columns `mtime_seconds`, `mtime_nanoseconds` and `inode`.
    fn read(row: &Row<'_>, index: usize) -> rusqlite::Result<Self> {
        let number: i64 = row.get(index + 2)?;
        Ok(Self {
            number: number.cast_unsigned(),
            mtime: Mtime {
                seconds: row.get(index)?,
                nanoseconds: row.get(index + 1)?,
            },
        })
    }
}

/// What a view is of: the blob, and the fingerprint of the attributes.
pub(crate) type ViewKey = (Checksum, [u8; 16]);

impl Txn<'_> {
    pub(crate) fn views_of_blob(&self, checksum: &Checksum) -> Result<Vec<[u8; 16]>> {
        self.all(
            "SELECT v.attributes FROM objects o JOIN views v ON v.object = o.id WHERE o.key = ?1",
            [checksum.as_bytes()],
            |row| row.get(0),
        )
    }

    /// The inode of a view that counts under `boot`.
    pub(crate) fn view_inode(&self, view: &ViewKey, boot: &str) -> Result<Option<ViewInode>> {
        self.first(
            "SELECT v.mtime_seconds, v.mtime_nanoseconds, v.inode FROM objects o JOIN views v ON v.object = o.id
             WHERE o.key = ?1 AND v.attributes = ?2 AND v.boot = ?3",
            params![view.0.as_bytes(), view.1, boot],
            |row| ViewInode::read(row, 0),
        )
    }

    /// `false`: the blob has gone, and there is nothing to have a view of.
    pub(crate) fn put_view(&self, view: &ViewKey, inode: ViewInode, boot: &str) -> Result<bool> {
        let put = self.execute(
            "INSERT INTO views (object, attributes, mtime_seconds, mtime_nanoseconds, boot, inode)
             SELECT id, ?2, ?3, ?4, ?5, ?6 FROM objects WHERE key = ?1
             ON CONFLICT (object, attributes) DO UPDATE
             SET mtime_seconds = excluded.mtime_seconds, mtime_nanoseconds = excluded.mtime_nanoseconds,
                 boot = excluded.boot, inode = excluded.inode",
            params![
                view.0.as_bytes(),
                view.1,
                inode.mtime.seconds,
                inode.mtime.nanoseconds,
                boot,
                inode.number.cast_signed()
            ],
        )?;
        Ok(put > 0)
    }

    pub(crate) fn delete_view(&self, view: &ViewKey) -> Result<()> {
        self.execute(
            "DELETE FROM views WHERE object = (SELECT id FROM objects WHERE key = ?1) AND attributes = ?2",
            params![view.0.as_bytes(), view.1],
        )?;
        Ok(())
    }

    /// Whether a name under `storage/snapshot` is a view's.
    pub(crate) fn has_view(&self, view: &ViewKey, shard: Shard) -> Result<bool> {
        let found = self.first(
            "SELECT 1 FROM views v JOIN objects o ON o.id = v.object
             WHERE o.key = ?1 AND v.attributes = ?2 AND o.shard IS ?3",
            params![view.0.as_bytes(), view.1, shard.0],
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    }
}

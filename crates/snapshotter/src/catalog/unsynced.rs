//! Which files are not known to have reached the disk.
//!
//! A sync takes long, and afterwards the rows may be about other files: the same bytes may have been removed and stored
//! again. So a row keeps its mark unless it still is about the file that was synced: of its kind, with its inode, and made at
//! the same time.

use rusqlite::params;

use super::names::{Shard, content_name};
use super::objects::{checksum, kind, shard};
use super::{Result, Txn};
use crate::words::digest::Checksum;
use crate::words::form::ObjectKind;

/// A file that is not known to have reached the disk, as it was when it was looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unsynced {
    pub(crate) checksum: Checksum,
    kind: ObjectKind,
    pub(crate) shard: Shard,
    inode: Option<i64>,
    created_at: i64,
}

impl Unsynced {
    /// What its file is called.
    pub(crate) fn name(&self) -> std::ffi::OsString {
        content_name(&self.checksum, self.kind, self.shard)
    }
}

impl Txn<'_> {
    /// Objects of a snapshot that are not known to have reached the disk.
    pub(crate) fn unsynced_blobs(&self, snapshot: i64) -> Result<Vec<Unsynced>> {
        self.all(
            "SELECT o.key, o.kind, o.shard, o.inode, o.created_at
             FROM object_references r JOIN objects o ON o.id = r.object
             WHERE r.snapshot = ?1 AND o.unsynced IS NOT NULL",
            [snapshot],
            |row| {
                Ok(Unsynced {
                    checksum: checksum(row, 0)?,
                    kind: kind(row, 1)?,
                    shard: shard(row, 2)?,
                    inode: row.get(3)?,
                    created_at: row.get(4)?,
                })
            },
        )
    }

    /// These files are on the disk. A row that is about another file by now keeps the mark it has.
    pub(crate) fn mark_synced(&self, files: &[Unsynced]) -> Result<()> {
        self.mark_unsynced(files, None)
    }

    /// A sync failed: what the disk holds of these is unknown, so they are read before they are next used.
    pub(crate) fn mark_suspect(&self, files: &[Unsynced], mark: &str) -> Result<()> {
        self.mark_unsynced(files, Some(mark))
    }

    fn mark_unsynced(&self, files: &[Unsynced], mark: Option<&str>) -> Result<()> {
        for file in files {
            self.execute(
                "UPDATE objects SET unsynced = ?5
                 WHERE key = ?1 AND kind = ?2 AND inode IS ?3 AND created_at = ?4",
                params![
                    file.checksum.as_bytes(),
                    file.kind.column(),
                    file.inode,
                    file.created_at,
                    mark
                ],
            )?;
        }
        Ok(())
    }
}

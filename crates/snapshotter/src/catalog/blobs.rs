//! Rows of blobs, their views, and the references that keep them.

use rusqlite::{Row, params};

use super::{Result, Txn, bad_column, signed, unsigned};
use crate::fs::Stat;
use crate::words::digest::{Checksum, Digest};
use crate::words::entry::Mtime;
use crate::words::extent::ExtentMap;

/// A blob's row.
#[derive(Clone, Debug)]
pub(crate) struct Blob {
    pub(crate) id: i64,
    pub(crate) checksum: Checksum,
    pub(crate) digest: Digest,
    pub(crate) form: Form,
    pub(crate) state: BlobState,
    pub(crate) size: u64,
    pub(crate) data_size: u64,
    /// The inode's modification time when its bytes were known to be right; `None`: look at the bytes.
    pub(crate) mtime: Option<Mtime>,
    /// The number of that inode: of two files whose names were exchanged, size and time may be the same.
    inode: Option<u64>,
    /// The boot under which it was written, until it is synced.
    pub(crate) unsynced: Option<String>,
    /// The encoded extent map where it is short; [`Txn::extents`] has the others.
    short_extents: Option<Vec<u8>>,
}

/// How a blob's bytes are kept. A row names exactly one form, and the file of the other one is litter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As the sparse file itself.
    Plain,
    /// As a file with the SPF1 stream, of which others have names too.
    Packed,
}

impl Form {
    /// The one it is not.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Plain => Self::Packed,
            Self::Packed => Self::Plain,
        }
    }

    fn column(self) -> i64 {
        match self {
            Self::Plain => 0,
            Self::Packed => 1,
        }
    }
}

/// Whether a blob's file is known to be bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlobState {
    Good,
    Damaged,
    Missing,
}

impl Blob {
    /// Whether an inode is the one that was recorded when its bytes were known to be right.
    pub(crate) fn is_recorded(&self, stat: &Stat) -> bool {
        self.mtime == Some(stat.mtime) && self.inode.is_none_or(|inode| inode == stat.ino)
    }
}

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

/// What a view is of: the blob's row, and the fingerprint of the attributes.
pub(crate) type ViewKey = (i64, [u8; 16]);

/// A blob about to get a row.
#[derive(Debug)]
pub(crate) struct NewBlob<'a> {
    pub(crate) checksum: Checksum,
    pub(crate) digest: Digest,
    pub(crate) form: Form,
    pub(crate) map: &'a ExtentMap,
    pub(crate) mtime: Option<Mtime>,
    pub(crate) inode: Option<u64>,
    pub(crate) unsynced: &'a str,
    pub(crate) probe: Option<[u8; 32]>,
    pub(crate) now: i64,
}

/// A blob that is not known to have reached the disk, in the form it had when it was looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unsynced {
    pub(crate) id: i64,
    pub(crate) checksum: Checksum,
    pub(crate) form: Form,
}

/// A blob that one snapshot alone needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExclusiveBlob {
    pub(crate) id: i64,
    pub(crate) checksum: Checksum,
    pub(crate) data_size: u64,
}

/// A blob whose row was deleted, with the names it may have under `storage/`.
#[derive(Clone, Debug)]
pub(crate) struct Doomed {
    pub(crate) checksum: Checksum,
    pub(crate) data_size: u64,
    pub(crate) views: Vec<[u8; 16]>,
}

/// Maps up to this many encoded bytes come along with the row: all but those of large sparse files.
macro_rules! blob_columns {
    () => {
        "b.id, b.checksum, b.digest, b.form, b.state, b.size, b.data_size, b.mtime_seconds, b.mtime_nanoseconds, \
         b.unsynced, CASE WHEN length(b.extents) <= 64 THEN b.extents END, b.inode"
    };
}

pub(super) fn blob(row: &Row<'_>) -> rusqlite::Result<Blob> {
    let digest: i64 = row.get(2)?;
    let seconds: Option<i64> = row.get(7)?;
    let nanoseconds: Option<u32> = row.get(8)?;
    Ok(Blob {
        id: row.get(0)?,
        checksum: checksum(row, 1)?,
        digest: Digest::from_u64(digest.cast_unsigned()),
        form: form(row, 3)?,
        state: match row.get(4)? {
            0_i64 => BlobState::Good,
            1 => BlobState::Damaged,
            _ => BlobState::Missing,
        },
        size: unsigned(row, 5)?,
        data_size: unsigned(row, 6)?,
        mtime: seconds
            .zip(nanoseconds)
            .map(|(seconds, nanoseconds)| Mtime {
                seconds,
                nanoseconds,
            }),
        unsynced: row.get(9)?,
        short_extents: row.get(10)?,
        inode: row.get::<_, Option<i64>>(11)?.map(i64::cast_unsigned),
    })
}

pub(super) fn form(row: &Row<'_>, index: usize) -> rusqlite::Result<Form> {
    Ok(match row.get(index)? {
        0_i64 => Form::Plain,
        _ => Form::Packed,
    })
}

fn checksum(row: &Row<'_>, index: usize) -> rusqlite::Result<Checksum> {
    row.get(index).map(Checksum::from_bytes)
}

#[cfg(feature = "registry")]
pub(super) use blob_columns;

impl Txn<'_> {
    pub(crate) fn blob_by_checksum(&self, checksum: &Checksum) -> Result<Option<Blob>> {
        self.first(
            concat!(
                "SELECT ",
                blob_columns!(),
                " FROM blobs b WHERE b.checksum = ?1"
            ),
            [checksum.as_bytes()],
            blob,
        )
    }

    pub(crate) fn blob(&self, id: i64) -> Result<Option<Blob>> {
        self.first(
            concat!("SELECT ", blob_columns!(), " FROM blobs b WHERE b.id = ?1"),
            [id],
            blob,
        )
    }

    /// Good blobs whose size, extents and spread pages look like a file's.
    pub(crate) fn blobs_by_probe(&self, probe: &[u8; 32]) -> Result<Vec<Blob>> {
        self.all(
            concat!(
                "SELECT ",
                blob_columns!(),
                " FROM blobs b WHERE b.probe = ?1 AND b.state = 0 LIMIT 4"
            ),
            [probe],
            blob,
        )
    }

    pub(crate) fn blobs_of_snapshot(&self, snapshot: i64) -> Result<Vec<Blob>> {
        self.all(
            concat!(
                "SELECT ",
                blob_columns!(),
                " FROM blob_references r JOIN blobs b ON b.id = r.blob WHERE r.snapshot = ?1"
            ),
            [snapshot],
            blob,
        )
    }

    /// Up to `limit` blobs with an id above `after`, in the order of their ids.
    pub(crate) fn blobs_after(&self, after: i64, limit: u32) -> Result<Vec<Blob>> {
        self.all(
            concat!(
                "SELECT ",
                blob_columns!(),
                " FROM blobs b WHERE b.id > ?1 ORDER BY b.id LIMIT ?2"
            ),
            params![after, limit],
            blob,
        )
    }

    pub(crate) fn extents(&self, of: &Blob) -> Result<ExtentMap> {
        let decode = |bytes: &[u8]| ExtentMap::decode(bytes).map_err(|error| bad_column(0, error));
        let found = match &of.short_extents {
            Some(bytes) => Some(decode(bytes).map_err(|error| self.error(error))?),
            None => self.first("SELECT extents FROM blobs WHERE id = ?1", [of.id], |row| {
                decode(row.get_ref(0)?.as_blob()?)
            })?,
        };
        found.ok_or_else(|| self.error(rusqlite::Error::QueryReturnedNoRows))
    }

    pub(crate) fn insert_blob(&self, new: &NewBlob<'_>) -> Result<i64> {
        self.insert(
            "INSERT INTO blobs (checksum, digest, size, data_size, mtime_seconds, mtime_nanoseconds, unsynced, probe,
                                created_at, extents, inode, form)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            params![
                new.checksum.as_bytes(),
                new.digest.as_u64().cast_signed(),
                signed(new.map.size()),
                signed(new.map.data_size()),
                new.mtime.map(|mtime| mtime.seconds),
                new.mtime.map(|mtime| mtime.nanoseconds),
                new.unsynced,
                new.probe,
                new.now,
                new.map.encode(),
                new.inode.map(u64::cast_signed),
                new.form.column(),
            ],
        )
    }

    /// The blob's file was replaced by a verified one: clears every mark, records the new inode, and writes anew what
    /// follows from the bytes, which may be what was wrong.
    pub(crate) fn replace_blob(&self, id: i64, new: &NewBlob<'_>) -> Result<()> {
        self.execute(
            "UPDATE blobs SET form = ?11, state = 0, mtime_seconds = ?2, mtime_nanoseconds = ?3, unsynced = ?4,
                              probe = coalesce(?5, probe), digest = ?6, size = ?7, data_size = ?8, extents = ?9,
                              inode = ?10
             WHERE id = ?1",
            params![
                id,
                new.mtime.map(|mtime| mtime.seconds),
                new.mtime.map(|mtime| mtime.nanoseconds),
                new.unsynced,
                new.probe,
                new.digest.as_u64().cast_signed(),
                signed(new.map.size()),
                signed(new.map.data_size()),
                new.map.encode(),
                new.inode.map(u64::cast_signed),
                new.form.column(),
            ],
        )?;
        Ok(())
    }

    /// The blob has a plain file now, with its bytes. `unsynced` is `None` where it is known to be on the disk.
    pub(crate) fn make_plain(
        &self,
        id: i64,
        inode: u64,
        mtime: Option<Mtime>,
        unsynced: Option<&str>,
    ) -> Result<()> {
        self.execute(
            "UPDATE blobs SET form = 0, state = 0, mtime_seconds = ?2, mtime_nanoseconds = ?3, unsynced = ?4, inode = ?5
             WHERE id = ?1",
            params![
                id,
                mtime.map(|mtime| mtime.seconds),
                mtime.map(|mtime| mtime.nanoseconds),
                unsynced,
                inode.cast_signed()
            ],
        )?;
        Ok(())
    }

    /// Whether a call promised, or is about to promise, that the blob outlives a power cut: a snapshot needs it whose
    /// bytes need not be anywhere else.
    pub(crate) fn is_promised(&self, blob: i64) -> Result<bool> {
        let found = self.first(
            "SELECT 1 FROM blob_references r JOIN snapshots s ON s.id = r.snapshot
             WHERE r.blob = ?1 AND NOT EXISTS (SELECT 1 FROM publications p WHERE p.snapshot = s.id) LIMIT 1",
            [blob],
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    }

    /// The blob's bytes were read in this form and are right. Nothing changes if it has another form by now.
    pub(crate) fn confirm_blob(
        &self,
        id: i64,
        form: Form,
        inode: u64,
        mtime: Option<Mtime>,
        unsynced: Option<&str>,
    ) -> Result<()> {
        self.execute(
            "UPDATE blobs SET state = 0, mtime_seconds = ?2, mtime_nanoseconds = ?3, unsynced = ?4, inode = ?6
             WHERE id = ?1 AND form = ?5",
            params![
                id,
                mtime.map(|mtime| mtime.seconds),
                mtime.map(|mtime| mtime.nanoseconds),
                unsynced,
                form.column(),
                inode.cast_signed()
            ],
        )?;
        Ok(())
    }

    /// Nothing changes if the blob has another form by now.
    pub(crate) fn mark_blob(&self, id: i64, form: Form, state: BlobState) -> Result<()> {
        let state = match state {
            BlobState::Good => 0,
            BlobState::Damaged => 1,
            BlobState::Missing => 2,
        };
        self.execute(
            "UPDATE blobs SET state = ?2 WHERE id = ?1 AND form = ?3",
            params![id, state, form.column()],
        )?;
        Ok(())
    }

    pub(crate) fn reference_blob(&self, snapshot: i64, blob: i64) -> Result<()> {
        self.execute(
            "INSERT OR IGNORE INTO blob_references (snapshot, blob) VALUES (?1, ?2)",
            [snapshot, blob],
        )?;
        Ok(())
    }

    /// Blobs of a snapshot that are not known to have reached the disk.
    pub(crate) fn unsynced_blobs(&self, snapshot: i64) -> Result<Vec<Unsynced>> {
        self.all(
            "SELECT b.id, b.checksum, b.form FROM blob_references r JOIN blobs b ON b.id = r.blob
             WHERE r.snapshot = ?1 AND b.unsynced IS NOT NULL",
            [snapshot],
            |row| {
                Ok(Unsynced {
                    id: row.get(0)?,
                    checksum: checksum(row, 1)?,
                    form: form(row, 2)?,
                })
            },
        )
    }

    /// These are on the disk, in the form they had when they were synced. What got another form meanwhile has the mark
    /// that the change of form gave it.
    pub(crate) fn mark_synced(&self, blobs: &[Unsynced]) -> Result<()> {
        for blob in blobs {
            self.execute(
                "UPDATE blobs SET unsynced = NULL WHERE id = ?1 AND form = ?2",
                params![blob.id, blob.form.column()],
            )?;
        }
        Ok(())
    }

    /// A sync failed: what the disk holds of these is unknown, so they are read before they are next used.
    pub(crate) fn mark_suspect(&self, blobs: &[Unsynced], mark: &str) -> Result<()> {
        for blob in blobs {
            self.execute(
                "UPDATE blobs SET unsynced = ?2 WHERE id = ?1 AND form = ?3",
                params![blob.id, mark, blob.form.column()],
            )?;
        }
        Ok(())
    }

    /// A snapshot's blobs that no other snapshot needs.
    pub(crate) fn exclusive_blobs(&self, snapshot: i64) -> Result<Vec<ExclusiveBlob>> {
        self.all(
            "SELECT b.id, b.checksum, b.data_size FROM blob_references r JOIN blobs b ON b.id = r.blob
             WHERE r.snapshot = ?1
               AND NOT EXISTS (SELECT 1 FROM blob_references o WHERE o.blob = r.blob AND o.snapshot <> ?1)",
            [snapshot],
            |row| {
                Ok(ExclusiveBlob {
                    id: row.get(0)?,
                    checksum: checksum(row, 1)?,
                    data_size: unsigned(row, 2)?,
                })
            },
        )
    }

    /// Deletes the rows of a snapshot's blobs that no other snapshot needs, and says what they were called.
    pub(crate) fn doom_blobs_of(&self, snapshot: i64) -> Result<Vec<Doomed>> {
        let exclusive = self.exclusive_blobs(snapshot)?;
        self.execute(
            "DELETE FROM blob_references WHERE snapshot = ?1",
            [snapshot],
        )?;
        exclusive
            .into_iter()
            .map(|blob| self.doom_blob(&blob))
            .collect()
    }

    pub(super) fn doom_blob(&self, blob: &ExclusiveBlob) -> Result<Doomed> {
        let views = self.views_of_blob(blob.id)?;
        self.execute("DELETE FROM blobs WHERE id = ?1", [blob.id])?;
        Ok(Doomed {
            checksum: blob.checksum,
            data_size: blob.data_size,
            views,
        })
    }

    /// The views that count under `boot`, of all blobs of a snapshot, and their inodes.
    pub(crate) fn views_of_snapshot(
        &self,
        snapshot: i64,
        boot: &str,
    ) -> Result<Vec<(ViewKey, ViewInode)>> {
        self.all(
            "SELECT v.blob, v.attributes, v.mtime_seconds, v.mtime_nanoseconds, v.inode
             FROM blob_references r JOIN views v ON v.blob = r.blob WHERE r.snapshot = ?1 AND v.boot = ?2",
            params![snapshot, boot],
            |row| Ok(((row.get(0)?, row.get(1)?), ViewInode::read(row, 2)?)),
        )
    }

    pub(crate) fn views_of_blob(&self, blob: i64) -> Result<Vec<[u8; 16]>> {
        self.all(
            "SELECT attributes FROM views WHERE blob = ?1",
            [blob],
            |row| row.get(0),
        )
    }

    /// The inode of a view that counts under `boot`.
    pub(crate) fn view_inode(&self, view: &ViewKey, boot: &str) -> Result<Option<ViewInode>> {
        self.first(
            "SELECT mtime_seconds, mtime_nanoseconds, inode FROM views WHERE blob = ?1 AND attributes = ?2 AND boot = ?3",
            params![view.0, view.1, boot],
            |row| ViewInode::read(row, 0),
        )
    }

    pub(crate) fn put_view(&self, view: &ViewKey, inode: ViewInode, boot: &str) -> Result<()> {
        self.execute(
            "INSERT INTO views (blob, attributes, mtime_seconds, mtime_nanoseconds, boot, inode)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (blob, attributes) DO UPDATE
             SET mtime_seconds = excluded.mtime_seconds, mtime_nanoseconds = excluded.mtime_nanoseconds,
                 boot = excluded.boot, inode = excluded.inode",
            params![
                view.0,
                view.1,
                inode.mtime.seconds,
                inode.mtime.nanoseconds,
                boot,
                inode.number.cast_signed()
            ],
        )?;
        Ok(())
    }

    pub(crate) fn delete_view(&self, blob: i64, attributes: &[u8; 16]) -> Result<()> {
        self.execute(
            "DELETE FROM views WHERE blob = ?1 AND attributes = ?2",
            params![blob, attributes],
        )?;
        Ok(())
    }

    /// Whether a name under `storage/content` is a blob's, in the form that its row says.
    pub(crate) fn has_blob(&self, checksum: &Checksum, form: Form) -> Result<bool> {
        let found = self.first(
            "SELECT 1 FROM blobs WHERE checksum = ?1 AND form = ?2",
            params![checksum.as_bytes(), form.column()],
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    }

    /// Whether a name under `storage/snapshot` is a view's.
    pub(crate) fn has_view(&self, checksum: &Checksum, attributes: &[u8; 16]) -> Result<bool> {
        let found = self.first(
            "SELECT 1 FROM views v JOIN blobs b ON b.id = v.blob WHERE b.checksum = ?1 AND v.attributes = ?2",
            params![checksum.as_bytes(), attributes],
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    }

    /// Number of blobs, their logical bytes, and the bytes of data the store keeps for them.
    pub(crate) fn blob_totals(&self) -> Result<(u64, u64, u64)> {
        self.first(
            "SELECT count(*), coalesce(sum(size), 0), coalesce(sum(data_size), 0) FROM blobs",
            [],
            |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?, unsigned(row, 2)?)),
        )
        .map(Option::unwrap_or_default)
    }
}

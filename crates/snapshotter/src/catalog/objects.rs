//! Rows of objects, which have names and bytes under `storage/`, and of the contents that are in them.
//!
//! A row is found by what its object is called, its key, and never by its id: between two transactions an id may have
//! come to stand for another row, and a key never stands for other bytes. What was found out about a *file* is written
//! down only where the row is still about that file: in the form it had, and where it matters with its inode.

use rusqlite::{Row, params};

use super::names::{Shard, StoredName, content_name};
use super::{Result, Txn, bad_column, signed, unsigned};
use crate::fs::Stat;
use crate::words::digest::{Checksum, Digest};
use crate::words::entry::Mtime;
use crate::words::extent::ExtentMap;
use crate::words::form::{Form, ObjectKind};

/// A file's bytes in the store: the rows of a content and of its object.
#[derive(Clone, Debug)]
pub(crate) struct Blob {
    /// The object's key, which in format v1 is the content's checksum.
    pub(crate) checksum: Checksum,
    pub(crate) digest: Digest,
    pub(crate) form: Form,
    pub(crate) shard: Shard,
    pub(crate) state: BlobState,
    pub(crate) size: u64,
    pub(crate) data_size: u64,
    /// Of the object's file, in bytes.
    pub(crate) length: u64,
    /// The inode's modification time when its bytes were known to be right; `None`: look at the bytes.
    pub(crate) mtime: Option<Mtime>,
    /// The number of that inode: of two files whose names were exchanged, size and time may be the same.
    inode: Option<u64>,
    /// The boot under which it was written, until it is synced.
    pub(crate) unsynced: Option<String>,
    /// The encoded extent map where it is short; [`Txn::extents`] has the others.
    short_extents: Option<Vec<u8>>,
}

/// Whether a blob's file is known to be bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlobState {
    Good,
    Damaged,
    Missing,
}

impl Blob {
    /// What its file is called.
    pub(crate) fn name(&self) -> std::ffi::OsString {
        self.name_as(self.form)
    }

    /// What its file would be called in that form.
    pub(crate) fn name_as(&self, form: Form) -> std::ffi::OsString {
        content_name(&self.checksum, form, self.shard)
    }

    /// Whether an inode is the one that was recorded when its bytes were known to be right.
    pub(crate) fn is_recorded(&self, stat: &Stat) -> bool {
        self.mtime == Some(stat.mtime) && self.inode.is_none_or(|inode| inode == stat.ino)
    }
}

/// A blob about to get its rows.
#[derive(Debug)]
pub(crate) struct NewBlob<'a> {
    pub(crate) checksum: Checksum,
    pub(crate) digest: Digest,
    pub(crate) form: Form,
    pub(crate) shard: Shard,
    pub(crate) map: &'a ExtentMap,
    pub(crate) mtime: Option<Mtime>,
    pub(crate) inode: Option<u64>,
    /// `None`: it is known to be on the disk.
    pub(crate) unsynced: Option<&'a str>,
    pub(crate) probe: Option<[u8; 32]>,
    pub(crate) now: i64,
}

impl NewBlob<'_> {
    fn length(&self) -> u64 {
        match self.form {
            Form::Plain => self.map.size(),
            Form::Packed => self.map.stream_size(),
        }
    }
}

/// What is known of an inode that was read and is right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Confirmed<'a> {
    pub(crate) inode: u64,
    pub(crate) mtime: Option<Mtime>,
    pub(crate) unsynced: Option<&'a str>,
}

/// Maps up to this many encoded bytes come along with the row: all but those of large sparse files.
macro_rules! blob_columns {
    () => {
        "o.key, c.digest, o.kind, o.state, c.size, o.data_size, o.mtime_seconds, o.mtime_nanoseconds, o.unsynced, \
         CASE WHEN length(c.extents) <= 64 THEN c.extents END, o.inode, o.shard, o.length"
    };
}

/// All columns of blobs, of which the rest of the statement says which.
macro_rules! select_blobs {
    ($rest:literal) => {
        concat!(
            "SELECT ",
            blob_columns!(),
            " FROM objects o JOIN contents c ON c.object = o.id ",
            $rest
        )
    };
}

pub(super) use blob_columns;
#[cfg(feature = "registry")]
pub(super) use select_blobs;

pub(super) fn blob(row: &Row<'_>) -> rusqlite::Result<Blob> {
    let digest: i64 = row.get(1)?;
    let seconds: Option<i64> = row.get(6)?;
    let nanoseconds: Option<u32> = row.get(7)?;
    Ok(Blob {
        checksum: checksum(row, 0)?,
        digest: Digest::from_u64(digest.cast_unsigned()),
        form: form(row, 2)?,
        shard: shard(row, 11)?,
        state: state(row, 3)?,
        size: unsigned(row, 4)?,
        data_size: unsigned(row, 5)?,
        length: unsigned(row, 12)?,
        mtime: seconds
            .zip(nanoseconds)
            .map(|(seconds, nanoseconds)| Mtime {
                seconds,
                nanoseconds,
            }),
        unsynced: row.get(8)?,
        short_extents: row.get(9)?,
        inode: row.get::<_, Option<i64>>(10)?.map(i64::cast_unsigned),
    })
}

fn form(row: &Row<'_>, index: usize) -> rusqlite::Result<Form> {
    // Only blobs have contents.
    Ok(kind(row, index)?.form().unwrap_or(Form::Plain))
}

pub(super) fn kind(row: &Row<'_>, index: usize) -> rusqlite::Result<ObjectKind> {
    Ok(match row.get(index)? {
        0_i64 => Form::Plain.into(),
        1 => Form::Packed.into(),
        _ => ObjectKind::Pack,
    })
}

pub(super) fn state(row: &Row<'_>, index: usize) -> rusqlite::Result<BlobState> {
    Ok(match row.get(index)? {
        0_i64 => BlobState::Good,
        1 => BlobState::Damaged,
        _ => BlobState::Missing,
    })
}

pub(super) fn shard(row: &Row<'_>, index: usize) -> rusqlite::Result<Shard> {
    row.get(index).map(Shard)
}

pub(super) fn checksum(row: &Row<'_>, index: usize) -> rusqlite::Result<Checksum> {
    row.get(index).map(Checksum::from_bytes)
}

impl Txn<'_> {
    pub(crate) fn blob(&self, checksum: &Checksum) -> Result<Option<Blob>> {
        self.first(
            select_blobs!("WHERE o.key = ?1"),
            [checksum.as_bytes()],
            blob,
        )
    }

    /// Good blobs whose size, extents and spread pages look like a file's.
    pub(crate) fn blobs_by_probe(&self, probe: &[u8; 32]) -> Result<Vec<Blob>> {
        self.all(
            select_blobs!("WHERE c.probe = ?1 AND o.state = 0 LIMIT 4"),
            [probe],
            blob,
        )
    }

    /// Up to `limit` blobs, the first ones in the order of their checksums that come after one; from the start without.
    pub(crate) fn blobs_after(&self, after: Option<&Checksum>, limit: u32) -> Result<Vec<Blob>> {
        let after: &[u8] = after.map_or(&[], |checksum| checksum.as_bytes());
        self.all(
            select_blobs!("WHERE o.key > ?1 ORDER BY o.key LIMIT ?2"),
            params![after, limit],
            blob,
        )
    }

    /// A blob's map; `None`: it has gone since its row was read.
    pub(crate) fn extents(&self, of: &Blob) -> Result<Option<ExtentMap>> {
        let decode = |bytes: &[u8]| ExtentMap::decode(bytes).map_err(|error| bad_column(0, error));
        match &of.short_extents {
            Some(bytes) => decode(bytes).map(Some).map_err(|error| self.error(error)),
            None => self.first(
                "SELECT c.extents FROM objects o JOIN contents c ON c.object = o.id WHERE o.key = ?1",
                [of.checksum.as_bytes()],
                |row| decode(row.get_ref(0)?.as_blob()?),
            ),
        }
    }

    /// The directory for the names of objects that this transaction inserts.
    pub(crate) fn shard_of_new(&self) -> Result<Shard> {
        let inserted = self.first(
            "SELECT seq FROM sqlite_sequence WHERE name = 'objects'",
            [],
            |row| row.get(0),
        )?;
        Ok(Shard::after(inserted.unwrap_or(0)))
    }

    /// Gives a blob its rows. One of an object that had lost its content is written anew.
    pub(crate) fn insert_blob(&self, new: &NewBlob<'_>) -> Result<()> {
        let id = self.first(
            "INSERT INTO objects (key, kind, shard, length, data_size, mtime_seconds, mtime_nanoseconds, inode, unsynced,
                                  created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (key) DO UPDATE
             SET kind = excluded.kind, shard = excluded.shard, length = excluded.length, data_size = excluded.data_size,
                 state = 0, mtime_seconds = excluded.mtime_seconds, mtime_nanoseconds = excluded.mtime_nanoseconds,
                 inode = excluded.inode, unsynced = excluded.unsynced, created_at = excluded.created_at
             RETURNING id",
            params![
                new.checksum.as_bytes(),
                ObjectKind::from(new.form).column(),
                new.shard.0,
                signed(new.length()),
                signed(new.map.data_size()),
                new.mtime.map(|mtime| mtime.seconds),
                new.mtime.map(|mtime| mtime.nanoseconds),
                new.inode.map(u64::cast_signed),
                new.unsynced,
                new.now,
            ],
            |row| row.get(0),
        )?;
        self.write_content(
            "INSERT INTO contents (object, digest, size, probe, extents) VALUES (?1, ?2, ?3, ?4, ?5)",
            id,
            new,
        )
    }

    /// The blob's file was replaced by a verified one: clears every mark, records the new inode, and writes anew what
    /// follows from the bytes, which may be what was wrong. The blob stays in its shard.
    pub(crate) fn replace_blob(&self, new: &NewBlob<'_>) -> Result<()> {
        let id = self.first(
            "UPDATE objects SET kind = ?2, state = 0, length = ?3, data_size = ?4, mtime_seconds = ?5,
                                mtime_nanoseconds = ?6, inode = ?7, unsynced = ?8
             WHERE key = ?1 RETURNING id",
            params![
                new.checksum.as_bytes(),
                ObjectKind::from(new.form).column(),
                signed(new.length()),
                signed(new.map.data_size()),
                new.mtime.map(|mtime| mtime.seconds),
                new.mtime.map(|mtime| mtime.nanoseconds),
                new.inode.map(u64::cast_signed),
                new.unsynced,
            ],
            |row| row.get(0),
        )?;
        self.write_content(
            "UPDATE contents SET digest = ?2, size = ?3, probe = coalesce(?4, probe), extents = ?5 WHERE object = ?1",
            id,
            new,
        )
    }

    /// Runs a statement on a blob's row in `contents`. Its parameters are its object's id, digest, size, probe and extents.
    fn write_content(&self, statement: &str, id: Option<i64>, new: &NewBlob<'_>) -> Result<()> {
        self.execute(
            statement,
            params![
                id,
                new.digest.as_u64().cast_signed(),
                signed(new.map.size()),
                new.probe,
                new.map.encode(),
            ],
        )?;
        Ok(())
    }

    /// The blob's file is another one from now on, perhaps in another shard; what it was called is an orphan.
    pub(crate) fn move_blob(&self, blob: &Blob, new: &NewBlob<'_>) -> Result<()> {
        self.replace_blob(new)?;
        self.execute(
            "UPDATE objects SET shard = ?2 WHERE key = ?1",
            params![new.checksum.as_bytes(), new.shard.0],
        )?;
        self.orphan(&StoredName::content(blob.name()))
    }

    /// The blob has a plain file now, with its bytes.
    pub(crate) fn make_plain(&self, blob: &Blob, file: &Confirmed<'_>) -> Result<()> {
        self.confirm_as(
            &blob.checksum,
            Form::Packed.into(),
            Form::Plain.into(),
            file,
        )?;
        self.execute(
            "UPDATE objects SET length = ?2 WHERE key = ?1",
            params![blob.checksum.as_bytes(), signed(blob.size)],
        )?;
        Ok(())
    }

    /// The object's bytes were read and are right. Nothing changes if it is of another kind by now.
    pub(crate) fn confirm_object(
        &self,
        key: &Checksum,
        kind: impl Into<ObjectKind>,
        file: &Confirmed<'_>,
    ) -> Result<()> {
        let kind = kind.into();
        self.confirm_as(key, kind, kind, file)
    }

    fn confirm_as(
        &self,
        key: &Checksum,
        before: ObjectKind,
        now: ObjectKind,
        file: &Confirmed<'_>,
    ) -> Result<()> {
        self.execute(
            "UPDATE objects SET kind = ?3, state = 0, mtime_seconds = ?4, mtime_nanoseconds = ?5, unsynced = ?6, inode = ?7
             WHERE key = ?1 AND kind = ?2",
            params![
                key.as_bytes(),
                before.column(),
                now.column(),
                file.mtime.map(|mtime| mtime.seconds),
                file.mtime.map(|mtime| mtime.nanoseconds),
                file.unsynced,
                file.inode.cast_signed(),
            ],
        )?;
        Ok(())
    }

    /// Nothing changes if the object is of another kind by now.
    pub(crate) fn mark_object(
        &self,
        key: &Checksum,
        kind: impl Into<ObjectKind>,
        state: BlobState,
    ) -> Result<()> {
        let state = match state {
            BlobState::Good => 0,
            BlobState::Damaged => 1,
            BlobState::Missing => 2,
        };
        self.execute(
            "UPDATE objects SET state = ?3 WHERE key = ?1 AND kind = ?2",
            params![key.as_bytes(), kind.into().column(), state],
        )?;
        Ok(())
    }

    /// Whether a name under `storage/content` is an object's, of the kind and in the shard that its row says.
    pub(super) fn has_object(
        &self,
        key: &Checksum,
        kind: ObjectKind,
        shard: Shard,
    ) -> Result<bool> {
        let found = self.first(
            "SELECT 1 FROM objects WHERE key = ?1 AND kind = ?2 AND shard IS ?3",
            params![key.as_bytes(), kind.column(), shard.0],
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    }
}

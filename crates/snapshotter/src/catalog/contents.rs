//! What a snapshot's files may contain, in as few bytes as can be: a snapshot of a million files is looked up here.

use rusqlite::params;

use super::objects::{Blob, blob, blob_columns, checksum};
use super::{Result, Txn, unsigned};
use crate::format::document;
use crate::words::digest::{Checksum, Digest};

/// The contents that a snapshot references, in the order of their digests.
#[derive(Debug, Default)]
pub(crate) struct Contents(Vec<Content>);

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content {
    pub(crate) digest: Digest,
    pub(crate) checksum: Checksum,
    pub(crate) size: u64,
    pub(crate) data_size: u64,
}

impl Contents {
    /// The content that an entry of this size names. One without a checksum was written by the Go library, whose snapshots
    /// cannot hold two files of one digest.
    pub(crate) fn find(&self, named: &document::Content, size: u64) -> Option<&Content> {
        self.find_named(named.digest(), named.checksum().as_ref(), size)
    }

    /// The same by its digest and checksum.
    pub(crate) fn find_named(
        &self,
        digest: Digest,
        checksum: Option<&Checksum>,
        size: u64,
    ) -> Option<&Content> {
        let first = self
            .0
            .partition_point(|content| content.digest.as_u64() < digest.as_u64());
        let alike = self.0[first..]
            .iter()
            .take_while(|content| content.digest == digest);
        let is_named = |content: &&Content| {
            content.size == size && checksum.is_none_or(|checksum| *checksum == content.checksum)
        };
        alike.into_iter().find(is_named)
    }

    /// All of them, in the order of their digests.
    pub(crate) fn all(&self) -> &[Content] {
        &self.0
    }
}

impl Txn<'_> {
    pub(crate) fn blobs_of_snapshot(&self, snapshot: i64) -> Result<Vec<Blob>> {
        self.all(
            concat!(
                "SELECT ",
                blob_columns!(),
                " FROM object_references r JOIN objects o ON o.id = r.object JOIN contents c ON c.object = o.id
                  WHERE r.snapshot = ?1"
            ),
            [snapshot],
            blob,
        )
    }

    /// One of a snapshot's blobs; `None`: the snapshot does not reference it.
    pub(crate) fn blob_of_snapshot(
        &self,
        snapshot: i64,
        checksum: &Checksum,
    ) -> Result<Option<Blob>> {
        self.first(
            concat!(
                "SELECT ",
                blob_columns!(),
                " FROM objects o JOIN contents c ON c.object = o.id
                  JOIN object_references r ON r.snapshot = ?1 AND r.object = o.id WHERE o.key = ?2"
            ),
            params![snapshot, checksum.as_bytes()],
            blob,
        )
    }

    /// What a snapshot's files may contain.
    pub(crate) fn contents_of_snapshot(&self, snapshot: i64) -> Result<Contents> {
        let mut found = self.all(
            "SELECT o.key, c.digest, c.size, o.data_size
             FROM object_references r JOIN objects o ON o.id = r.object JOIN contents c ON c.object = o.id
             WHERE r.snapshot = ?1",
            [snapshot],
            |row| {
                Ok(Content {
                    checksum: checksum(row, 0)?,
                    digest: Digest::from_u64(row.get::<_, i64>(1)?.cast_unsigned()),
                    size: unsigned(row, 2)?,
                    data_size: unsigned(row, 3)?,
                })
            },
        )?;
        found.sort_unstable_by_key(|content| content.digest.as_u64());
        Ok(Contents(found))
    }
}

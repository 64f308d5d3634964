//! What only snapshots that travel need of the catalog.

use rusqlite::params;

use super::blobs::{Blob, blob, blob_columns};
use super::{Result, Txn, signed};
use crate::words::digest::{Checksum, Digest, Sha256};

impl Txn<'_> {
    /// Blobs with a digest and a size: one, unless somebody made two files with one XXH3-64.
    pub(crate) fn blobs_by_digest(&self, digest: Digest, size: u64) -> Result<Vec<Blob>> {
        self.all(
            concat!(
                "SELECT ",
                blob_columns!(),
                " FROM blobs b WHERE b.digest = ?1 AND b.size = ?2 LIMIT 4"
            ),
            params![digest.as_u64().cast_signed(), signed(size)],
            blob,
        )
    }

    /// Another file with this digest that a snapshot needs which is elsewhere too: its bytes may be at the address that this
    /// one would be published at.
    pub(crate) fn published_twin(
        &self,
        digest: Digest,
        checksum: &Checksum,
    ) -> Result<Option<Checksum>> {
        self.first(
            "SELECT b.checksum FROM blobs b JOIN blob_references r ON r.blob = b.id JOIN snapshots s ON s.id = r.snapshot
             WHERE b.digest = ?1 AND b.checksum <> ?2
               AND EXISTS (SELECT 1 FROM publications p WHERE p.snapshot = s.id) LIMIT 1",
            params![digest.as_u64().cast_signed(), checksum.as_bytes()],
            |row| row.get(0).map(Checksum::from_bytes),
        )
    }

    /// The SHA-256 of those of a snapshot's blobs whose packed stream was in a registry, by the blob's id.
    pub(crate) fn sha256_of_blobs(&self, snapshot: i64) -> Result<Vec<(i64, Sha256)>> {
        self.all(
            "SELECT b.id, b.sha256 FROM blob_references r JOIN blobs b ON b.id = r.blob
             WHERE r.snapshot = ?1 AND b.sha256 IS NOT NULL",
            [snapshot],
            |row| Ok((row.get(0)?, Sha256::from_bytes(row.get(1)?))),
        )
    }

    pub(crate) fn set_sha256(&self, blob: i64, sha256: Sha256) -> Result<()> {
        self.execute(
            "UPDATE blobs SET sha256 = ?2 WHERE id = ?1",
            params![blob, sha256.as_bytes()],
        )?;
        Ok(())
    }

    /// Gives a pending snapshot another version, because somebody took its own meanwhile.
    pub(crate) fn rename_pending(&self, id: i64, version: &str) -> Result<()> {
        self.execute(
            "UPDATE snapshots SET version = ?2 WHERE id = ?1 AND state = 0",
            params![id, version],
        )?;
        Ok(())
    }

    /// A snapshot was published under the manifest that was pushed, and is known by it from now on.
    pub(crate) fn set_manifest(&self, id: i64, manifest: &[u8]) -> Result<()> {
        self.execute(
            "UPDATE snapshots SET manifest_digest = ?2 WHERE id = ?1 AND state > 0",
            params![id, Sha256::of(manifest).as_bytes()],
        )?;
        self.execute(
            "UPDATE artifacts SET manifest = ?2 WHERE snapshot = ?1",
            params![id, manifest],
        )?;
        Ok(())
    }
}

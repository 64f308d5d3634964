//! What only snapshots that travel need of the catalog.

use rusqlite::params;

use super::objects::{Blob, blob, blob_columns, checksum, select_blobs};
use super::{Result, Stored, Txn, signed};
use crate::words::digest::{Checksum, Digest, Sha256};

impl Txn<'_> {
    /// Blobs with a digest and a size: one, unless somebody made two files with one XXH3-64.
    pub(crate) fn blobs_by_digest(&self, digest: Digest, size: u64) -> Result<Vec<Blob>> {
        self.all(
            select_blobs!("WHERE c.digest = ?1 AND c.size = ?2 LIMIT 4"),
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
            "SELECT o.key FROM contents c JOIN objects o ON o.id = c.object JOIN object_references r ON r.object = o.id
             WHERE c.digest = ?1 AND o.key <> ?2
               AND EXISTS (SELECT 1 FROM publications p WHERE p.snapshot = r.snapshot) LIMIT 1",
            params![digest.as_u64().cast_signed(), checksum.as_bytes()],
            |row| row.get(0).map(Checksum::from_bytes),
        )
    }

    /// The SHA-256 of those of a snapshot's blobs whose packed stream was in a registry.
    pub(crate) fn sha256_of_blobs(&self, snapshot: i64) -> Result<Vec<(Checksum, Sha256)>> {
        self.all(
            "SELECT o.key, c.sha256
             FROM object_references r JOIN objects o ON o.id = r.object JOIN contents c ON c.object = o.id
             WHERE r.snapshot = ?1 AND c.sha256 IS NOT NULL",
            [snapshot],
            |row| Ok((checksum(row, 0)?, Sha256::from_bytes(row.get(1)?))),
        )
    }

    pub(crate) fn set_sha256(&self, blob: &Checksum, sha256: Sha256) -> Result<()> {
        self.execute(
            "UPDATE contents SET sha256 = ?2 WHERE object = (SELECT id FROM objects WHERE key = ?1)",
            params![blob.as_bytes(), sha256.as_bytes()],
        )?;
        Ok(())
    }

    /// Gives a snapshot another version, because its own is another one's.
    pub(crate) fn rename(&self, id: i64, version: &str) -> Result<()> {
        self.execute(
            "UPDATE snapshots SET version = ?2 WHERE id = ?1",
            params![id, version],
        )?;
        Ok(())
    }

    /// A snapshot was published under the manifest that was pushed, and is known by it from now on. SQLite changes a row by
    /// having all of it in memory, so a row with a document is made anew, and only where it has another manifest.
    pub(crate) fn set_manifest(
        &self,
        id: i64,
        manifest: &[u8],
        document: &dyn Stored,
    ) -> Result<()> {
        let changed = self.execute(
            "UPDATE snapshots SET manifest_digest = ?2 WHERE id = ?1 AND state > 0 AND manifest_digest <> ?2",
            params![id, Sha256::of(manifest).as_bytes()],
        )?;
        if changed == 0 {
            return Ok(());
        }
        self.replace_artifacts(id, manifest, document)
    }
}

//! One more name for a snapshot: a row of its own with the same manifest, document and objects. Where the snapshot is besides
//! here is not taken over, since places know it by its name.

use std::io::{self, Read};

use rusqlite::params;

use super::{Result, Txn, signed};
use crate::words::digest::Sha256;
use crate::words::reference::Reference;

impl Txn<'_> {
    /// Gives a snapshot, visible or leased, one more name, which has to be free. It was taken when that was.
    pub(crate) fn insert_tag(&self, of: i64, reference: &Reference, now: i64) -> Result<i64> {
        let id = self.insert(
            "INSERT INTO snapshots (name, version, state, format, manifest_digest, created_at, last_accessed_at,
                                    files, logical_bytes, data_bytes)
             SELECT ?2, ?3, state, format, manifest_digest, created_at, ?4, files, logical_bytes, data_bytes
             FROM snapshots WHERE id = ?1",
            params![of, reference.name(), reference.version(), now],
        )?;
        self.execute(
            "INSERT INTO object_references (snapshot, object)
             SELECT ?2, object FROM object_references WHERE snapshot = ?1",
            [of, id],
        )?;
        let manifest = self.manifest(of)?;
        self.read_document(of, |document, length| {
            self.keep_copy(id, &manifest, document, length)
        })??;
        Ok(id)
    }

    /// A document may have hundreds of megabytes: it goes through memory in pieces.
    fn keep_copy(
        &self,
        id: i64,
        manifest: &[u8],
        document: &mut dyn Read,
        length: u64,
    ) -> Result<()> {
        self.execute(
            "INSERT INTO artifacts (snapshot, manifest, document) VALUES (?1, ?2, zeroblob(?3))",
            params![id, manifest, signed(length)],
        )?;
        let blob = self
            .inner
            .blob_open("main", "artifacts", "document", id, false);
        let mut blob = blob.map_err(|error| self.error(error))?;
        let copied = io::copy(document, &mut blob);
        copied.map(|_| ()).map_err(|error| self.io_error(error))
    }

    /// The manifests of all visible snapshots.
    pub(crate) fn manifests(&self) -> Result<Vec<Sha256>> {
        self.all(
            "SELECT manifest_digest FROM snapshots NOT INDEXED WHERE state > 0 AND removed = 0",
            [],
            |row| row.get(0).map(Sha256::from_bytes),
        )
    }
}

//! What a publication writes down: where the snapshot is now, and what turned out to be otherwise than rows say.

use std::sync::Arc;

use super::Publishing;
use crate::catalog::{Address, Blob, SeenBy, Snapshot, Sync};
use crate::lock::lock;
use crate::remote::Remote;
use crate::remote::places::is_named_by_digest;
use crate::remote::text::Text;
use crate::store::{Store, now};
use crate::words::digest::{Checksum, Sha256};
use crate::words::error::Result;

/// The blobs whose objects were looked for.
#[derive(Debug, Default)]
pub(super) struct Seen {
    there: Vec<Checksum>,
    absent: Vec<Checksum>,
    /// Those that were sent.
    sent: Vec<Checksum>,
}

impl Publishing<'_> {
    /// A blob's object was looked for.
    pub(super) fn saw(&self, blob: &Blob, is_there: bool) {
        self.saw_pack(blob.checksum, is_there);
    }

    /// An object was looked for.
    pub(super) fn saw_pack(&self, key: Checksum, is_there: bool) {
        let mut seen = lock(&self.seen);
        let which = if is_there {
            &mut seen.there
        } else {
            &mut seen.absent
        };
        which.push(key);
    }

    /// An object was sent.
    pub(super) fn did_send(&self, key: Checksum) {
        lock(&self.seen).sent.push(key);
    }

    /// The snapshot is where it was published, and so are its objects; but seen were those alone that were looked for or sent.
    pub(super) fn record(&self, manifest: &[u8], document: &Text) -> Result<()> {
        let (id, now) = (self.snapshot.id, now());
        let row = self
            .remote
            .publication(&self.snapshot.reference, manifest, now)?;
        let seen_by = self.remote.seen_by(&row.content);
        let seen = std::mem::take(&mut *lock(&self.seen));
        self.store.catalog.write(Sync::Normal, |txn| {
            txn.set_manifest(id, manifest, document)?;
            txn.record_publication(id, &row)?;
            txn.record_objects(id, &row.content, seen_by)?;
            txn.record_seen(&row.content, &seen.sent, seen_by, now)?;
            txn.record_seen(&row.content, &seen.there, SeenBy::Ourselves, now)
        })
    }

    /// The registry was asked what has the snapshot's name there.
    pub(super) fn revise(&self, there: Option<Sha256>) -> Result<()> {
        revise(self.store, self.remote, self.snapshot, there)
    }

    /// The publication failed, and may have found before that objects are not there.
    pub(super) fn forget_absent(&self) {
        let absent = std::mem::take(&mut lock(&self.seen).absent);
        if absent.is_empty() {
            return;
        }
        if let Err(error) = self.forget(&absent) {
            // Whoever relies on them asks first.
            tracing::debug!(%error, "objects that are not there are still noted");
        }
    }

    fn forget(&self, absent: &[Checksum]) -> Result<()> {
        let registry: Address = self.remote.address(&self.snapshot.reference)?;
        let content = self.remote.address_of_contents(&self.repository);
        self.store.catalog.write(Sync::Normal, |txn| {
            txn.forget_publication(self.snapshot.id, &registry)?;
            txn.forget_objects(&content, absent)
        })?;
        self.store.sync_later(self.snapshot.id);
        Ok(())
    }
}

/// A snapshot that another one has the name of in the registry is not published there.
pub(in crate::remote) fn revise(
    store: &Arc<Store>,
    remote: &Remote,
    snapshot: &Snapshot,
    there: Option<Sha256>,
) -> Result<()> {
    let (id, reference) = (snapshot.id, &snapshot.reference);
    let registry = remote.address(reference)?;
    let known = store.catalog.read(|txn| txn.publications_of(id))?;
    let is_wrong = known.iter().any(|row| {
        row.registry == registry
            && there != Some(row.manifest_digest)
            && !is_named_by_digest(reference, row.manifest_digest)
    });
    if !is_wrong {
        return Ok(());
    }
    store
        .catalog
        .write(Sync::Normal, |txn| txn.forget_publication(id, &registry))?;
    store.sync_later(id);
    Ok(())
}

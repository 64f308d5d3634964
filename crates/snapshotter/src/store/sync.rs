//! Making blobs durable.
//!
//! The order is: bytes, then the directory that names them, then the row that says so. A few files are synced one by
//! one; for many, one `syncfs` is cheaper, although it waits for everybody's dirty pages, where the kernel is new enough to
//! tell what of that failed. A blob whose mark is not
//! cleared is hashed before it is used under another boot, so a lost sync is never served.

use std::collections::HashSet;
use std::io;

use super::Store;
use crate::catalog::{Shard, Sync, Unsynced};
use crate::fs::dir::{sync_file, syncfs_tells};
use crate::words::digest::Checksum;
use crate::words::error::{At, Result};

/// Up to this many files are synced one by one.
const FEW: usize = 16;

impl Store {
    /// Makes a snapshot's blobs durable and returns those whose marks can be cleared. The files of `done` have been
    /// synced already; their names have not.
    pub(crate) fn make_durable(
        &self,
        snapshot: i64,
        done: &HashSet<Checksum>,
    ) -> Result<Vec<Unsynced>> {
        let unsynced = self.catalog.read(|txn| txn.unsynced_blobs(snapshot))?;
        let left = unsynced
            .iter()
            .filter(|blob| !done.contains(&blob.checksum));
        let result = self.sync_blobs(left, &unsynced, syncfs_tells());
        if result.is_err() {
            let mark = self.failed_mark();
            self.catalog
                .write(Sync::Normal, |txn| txn.mark_suspect(&unsynced, &mark))?;
        }
        result.map(|()| unsynced)
    }

    /// Syncs files, or where they are more than a few all of the filesystem.
    pub(super) fn sync_blobs<'b>(
        &self,
        blobs: impl Iterator<Item = &'b Unsynced> + Clone,
        named: &[Unsynced],
        syncfs_tells: bool,
    ) -> Result<()> {
        if syncfs_tells && blobs.clone().nth(FEW).is_some() {
            return self.root.content.sync_filesystem();
        }
        for blob in blobs {
            self.sync_blob(blob)?;
        }
        let shards: HashSet<Shard> = named.iter().map(|blob| blob.shard).collect();
        shards
            .into_iter()
            .try_for_each(|shard| self.root.sync_names(shard))
    }

    fn sync_blob(&self, blob: &Unsynced) -> Result<()> {
        let name = blob.name();
        let path = || self.root.content.path_of(&name);
        match self.root.content.open_file(&name) {
            Ok(file) => sync_file(&file).at("sync", path()),
            // Somebody holds a lease on it, by another of its names, and a sync is not to wait for them.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && syncfs_tells() => {
                self.root.content.sync_filesystem()
            }
            // Removed meanwhile: there is nothing to keep. Or made plain: whoever did that has synced it, if it has to be.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).at("open", path()),
        }
    }

    /// Makes a snapshot durable, with the rows that say so; what fails stays marked.
    ///
    /// # Errors
    /// Those of the disk: the snapshot is here, and may not be after a power failure.
    pub(crate) fn sync_snapshot(&self, snapshot: i64) -> Result<()> {
        let synced = self.make_durable(snapshot, &HashSet::new())?;
        self.catalog
            .write(Sync::Full, |txn| txn.mark_synced(&synced))
    }

    /// The same where nobody relies on it yet.
    pub(crate) fn sync_now(&self, snapshot: i64) {
        if let Err(error) = self.sync_snapshot(snapshot) {
            tracing::warn!(%error, "a background sync failed: its blobs are hashed before they are next used");
        }
    }
}

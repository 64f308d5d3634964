//! Making blobs durable, now or in the background.
//!
//! The order is: bytes, then the directory that names them, then the row that says so. A few files are synced one by
//! one; for many, one `syncfs` is cheaper, although it waits for everybody's dirty pages. A blob whose mark is not
//! cleared is hashed before it is used under another boot, so a lost sync is never served.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::Store;
use super::layout::content_name;
use crate::catalog::{Sync, Unsynced};
use crate::fs::dir::sync_file;
use crate::words::error::{At, Result};

/// How long a handle has to live on before it syncs what is elsewhere too.
const IDLE: Duration = Duration::from_secs(5);

/// Up to this many files are synced one by one.
const FEW: usize = 16;

impl Store {
    /// Makes a snapshot's blobs durable and returns those whose marks can be cleared. The files of `done` have been
    /// synced already; their names have not.
    pub(crate) fn make_durable(&self, snapshot: i64, done: &HashSet<i64>) -> Result<Vec<Unsynced>> {
        let unsynced = self.catalog.read(|txn| txn.unsynced_blobs(snapshot))?;
        let left: Vec<Unsynced> = unsynced
            .iter()
            .filter(|blob| !done.contains(&blob.id))
            .copied()
            .collect();
        let result = self.sync_blobs(&left);
        if result.is_err() {
            let mark = self.failed_mark();
            self.catalog
                .write(Sync::Normal, |txn| txn.mark_suspect(&unsynced, &mark))?;
        }
        result.map(|()| unsynced)
    }

    fn sync_blobs(&self, blobs: &[Unsynced]) -> Result<()> {
        if blobs.len() > FEW {
            return self.root.content.sync_filesystem();
        }
        for blob in blobs {
            self.sync_blob(blob)?;
        }
        self.root.content.sync()
    }

    fn sync_blob(&self, blob: &Unsynced) -> Result<()> {
        let name = content_name(&blob.checksum, blob.form);
        let path = || self.root.content.path_of(&name);
        match self.root.content.open_file(&name) {
            Ok(file) => sync_file(&file).at("sync", path()),
            // Somebody holds a lease on it, by another of its names, and a sync is not to wait for them.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.root.content.sync_filesystem()
            }
            // Removed meanwhile: there is nothing to keep. Or made plain: whoever did that has synced it, if it has to be.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).at("open", path()),
        }
    }

    /// Makes a snapshot durable on a thread of its own; [`Store::close`] waits for it.
    pub(crate) fn sync_later(self: &Arc<Self>, snapshot: i64) {
        self.in_background(move |store| store.sync_now(snapshot));
    }

    fn in_background(self: &Arc<Self>, work: impl FnOnce(&Self) + Send + 'static) {
        let store = Arc::clone(self);
        let started = std::thread::Builder::new()
            .name("snapshotter-sync".to_owned())
            .spawn(move || work(&store));
        match started {
            Ok(thread) => {
                let mut background = self
                    .background
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                background.retain(|thread| !thread.is_finished());
                background.push(thread);
            }
            Err(error) => tracing::warn!(%error, "a background sync could not be started"),
        }
    }

    /// The same when nothing else has been going on for a while, for a snapshot whose bytes are elsewhere too: a handle
    /// that is closed before does not wait for it. Until then the blobs' marks stay, and after a reboot they are hashed
    /// before their first use.
    pub(crate) fn sync_when_idle(self: &Arc<Self>, snapshot: i64) {
        self.in_background(move |store| {
            if !store.closes_within(IDLE) {
                store.sync_now(snapshot);
            }
        });
    }

    fn closes_within(&self, time: Duration) -> bool {
        let closing = self.closing.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .closes
            .wait_timeout_while(closing, time, |closing| !*closing)
            .unwrap_or_else(PoisonError::into_inner);
        *waited.0
    }

    pub(crate) fn sync_now(&self, snapshot: i64) {
        let result = self
            .make_durable(snapshot, &HashSet::new())
            .and_then(|synced| {
                self.catalog
                    .write(Sync::Full, |txn| txn.mark_synced(&synced))
            });
        if let Err(error) = result {
            tracing::warn!(%error, "a background sync failed: its blobs are hashed before they are next used");
        }
    }

    /// Waits for background work; what has not begun does not begin any more.
    pub(crate) fn finish_background(&self) {
        *self.closing.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.closes.notify_all();
        let threads = std::mem::take(
            &mut *self
                .background
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        let own = std::thread::current().id();
        for thread in threads {
            // The last handle may be dropped by such a thread: it cannot wait for itself.
            if thread.thread().id() != own {
                let _ = thread.join();
            }
        }
    }
}

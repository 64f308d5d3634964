//! The content store: each file's bytes once, under their BLAKE3, found through the catalog, plain or packed.
//!
//! Files gain and lose names under `storage/` only inside [`Catalog::write`], which holds the one lock for names, and
//! only next to the row that says so. Hence: a name without a row is litter, a row has a file, and what a reader finds
//! by a row it may open for as long as it leases a snapshot that references it.

mod check;
mod copy;
#[cfg(any(feature = "dragonfly", feature = "test-hook"))]
mod delivery;
mod ingest;
mod lanes;
pub(crate) mod layout;
mod owner;
#[cfg(feature = "test-hook")]
pub(crate) mod pack;
mod packed;
mod recipient;
mod recover;
mod reserve;
pub(crate) mod stream;
mod sweep;
mod sync;
#[cfg(feature = "registry")]
pub(crate) mod travel;
mod tree;
mod unpack;
mod views;

#[cfg(feature = "registry")]
pub(crate) use check::damaged;
pub(crate) use check::{OpenBlob, settled};
#[cfg(feature = "registry")]
pub(crate) use copy::Offer;
#[cfg(feature = "dragonfly")]
pub(crate) use delivery::{Delivered, Delivery};
pub(crate) use ingest::{Ingest, Ingested, Payload, Slot, require_space};
pub(crate) use layout::OwnDirectories;
#[cfg(feature = "registry")]
pub(crate) use packed::pass_packed;
pub(crate) use recipient::Recipient;
pub(crate) use recover::{ReadBlob, read_blob};
pub(crate) use views::{Existing, KnownViews, Linkable, NewView, Told, Wanted};

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crate::catalog::{Catalog, Sync};
use crate::words::error::Result;
use layout::Root;
use owner::Owner;

/// An open store: the root's directories, the catalog, and this handle's owner.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) root: Root,
    pub(crate) catalog: Catalog,
    pub(crate) owner: Owner,
    /// The running boot; empty where the system does not tell, and then equal to no recorded one.
    boot: String,
    copying: AtomicU64,
    pub(crate) unpacking: unpack::Unpacking,
    background: Mutex<Vec<JoinHandle<()>>>,
    /// Set when nothing new is to begin in the background.
    closing: Mutex<bool>,
    closes: Condvar,
    closed: AtomicBool,
}

impl Store {
    /// Opens a root, or makes one, and cleans up after dead owners.
    pub(crate) fn open(path: &Path, busy_timeout: Duration) -> Result<Self> {
        let root = Root::open(path)?;
        let catalog = Catalog::open(&root.catalog_path(), busy_timeout, || root.require_unused())?;
        let store = Self {
            owner: Owner::create(&root)?,
            boot: crate::fs::boot_id().unwrap_or_default(),
            root,
            catalog,
            copying: AtomicU64::new(0),
            unpacking: unpack::Unpacking::default(),
            background: Mutex::default(),
            closing: Mutex::default(),
            closes: Condvar::new(),
            closed: AtomicBool::new(false),
        };
        store.make_reserve();
        for owner in store.reap_dead_owners()? {
            tracing::info!(owner, "cleaned up after an owner that died");
        }
        Ok(store)
    }

    /// Waits for background syncs and gives the owner's leases, staging and lock file up. Only the first call does.
    pub(crate) fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        self.finish_background();
        let forgotten = self.forget_owner(self.owner.name());
        self.catalog.shorten_log();
        forgotten
    }

    /// Ends one call's leases, deleting and sweeping what only they kept.
    pub(crate) fn release(&self, operation: i64) -> Result<()> {
        let owner = self.owner.name();
        let abandons = self
            .catalog
            .read(|txn| txn.would_abandon(owner, operation))?;
        let sync = if abandons { Sync::Full } else { Sync::Normal };
        let doomed = self
            .catalog
            .write(sync, |txn| txn.release_operation(owner, operation))?;
        self.sweep_doomed(&doomed)
    }

    /// The mark of a row written under this boot and not synced yet.
    fn unsynced_mark(&self) -> &str {
        if self.boot.is_empty() {
            "unknown"
        } else {
            &self.boot
        }
    }

    /// Whether what the disk holds behind such a mark is unknown: written under another boot, or after a failed sync.
    fn is_suspect(&self, unsynced: Option<&str>) -> bool {
        unsynced.is_some_and(|mark| self.boot.is_empty() || mark != self.boot)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // What fails here is the next opener's to clean up.
        if let Err(error) = self.close() {
            tracing::debug!(%error, "the store was not closed cleanly");
        }
    }
}

/// Nanoseconds since 1970 UTC.
pub(crate) fn now() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_nanos()).ok())
        .unwrap_or_default()
}

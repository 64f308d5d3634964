//! The content store: each file's bytes once, under their BLAKE3, found through the catalog, plain or packed.
//!
//! Files gain and lose names under `storage/` only inside [`Catalog::write`], which holds the one lock for names, and
//! only next to the row that says so. Hence: a row has a file, a name without a row is litter where this store itself
//! noted that (`sweep.rs`), and what a reader finds by a row it may open for as long as it leases a snapshot that
//! references it.

mod background;
mod cache;
mod cache_upkeep;
mod check;
mod claims;
#[cfg(any(feature = "dragonfly", feature = "test-hook"))]
mod delivery;
mod entries;
mod footprint;
mod holders;
mod ingest;
mod intents;
pub(crate) mod layout;
mod operation;
mod owner;
#[cfg(feature = "test-hook")]
pub(crate) mod pack;
mod pack_check;
mod pack_pass;
mod pack_reader;
mod pack_recover;
mod packs;
mod page_lists;
mod private;
mod recipient;
mod recover;
mod reserve;
mod sweep;
mod sync;
mod tenant;
mod trash;
mod unpack;
mod views;

pub(crate) use cache::{Cache, CacheEntry, WORTH_AN_ENTRY};
pub(crate) use check::{OpenBlob, is_unreadable, settled};
pub(crate) use claims::SpaceClaim;
#[cfg(feature = "dragonfly")]
pub(crate) use delivery::{Delivered, Delivery};
pub(crate) use entries::{Entry, Key, PathHash, path_hash};
pub use footprint::DiskUsage;
pub use holders::Holder;
pub(crate) use ingest::{Ingest, Ingested, Payload, Slot};
pub(crate) use layout::OwnDirectories;
pub(crate) use operation::Operation;
#[cfg(feature = "registry")]
pub(crate) use pack_pass::whole_pack;
pub(crate) use pack_pass::{PageRecord, PageRecords, RecordedPack};
pub(crate) use pack_reader::{PackReader, frame_decoder, key as pack_key};
pub(crate) use pack_recover::{ReadPack, read_pack_file};
pub(crate) use packs::{Held, OpenPack, StagedPack};
pub(crate) use recipient::Recipient;
pub(crate) use recover::{NamesOfBlobs, ReadBlob, read_blob};
pub(crate) use sweep::Strangers;
#[cfg(feature = "registry")]
pub(crate) use tenant::require_own;
pub(crate) use tenant::store_dir;
pub(crate) use trash::Swept;
pub(crate) use views::{Existing, Linkable, NewView, Told, Wanted};

use std::ffi::OsStr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use crate::catalog::{Catalog, Opening, StoredName, Sync, Txn};
use crate::fs::lock::Lock;
use crate::words::error::{At, Error, ErrorKind, Result};
use background::Background;
use claims::Claims;
use layout::Root;
use owner::Owner;
use reserve::Room;

/// Said of a catalog that is older than its store: an old copy was put in its place, or its log lost its end.
pub(crate) const WENT_BACK: &str = "the catalog is older than the store: snapshots taken since are not shown, and nothing \
     is lost; `rebuild` takes their files in";

/// An open store: the root's directories, the catalog, and this handle's owner.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) root: Root,
    pub(crate) catalog: Catalog,
    /// What this handle leases, stages and throws away by; none while it only reads.
    owner: OnceLock<Owner>,
    becoming: Mutex<()>,
    /// Says that somebody has the store open.
    _open: Lock,
    /// The running boot; empty where the system does not tell, and then equal to no recorded one.
    boot: String,
    claims: Claims,
    pub(crate) unpacking: unpack::Unpacking,
    background: Background,
    /// Which file the catalog is.
    catalog_file: Option<(u64, u64)>,
    /// Names that this owner gave up and could not sweep.
    unswept: Mutex<Vec<StoredName>>,
    /// The catalog is older than the store: what it does not know may be what it lost.
    went_back: bool,
    closed: AtomicBool,
}

impl Store {
    /// Opens a root, or a tenant's in it, or makes one, and cleans up after dead owners.
    pub(crate) fn open(path: &Path, tenant: Option<&str>, busy_timeout: Duration) -> Result<Self> {
        let root = Root::open(path, tenant)?;
        let open = root.share()?;
        Self::open_locked(root, open, busy_timeout)
    }

    /// The same for a caller that has the store for itself, or shares it.
    pub(crate) fn open_locked(root: Root, open: Lock, busy_timeout: Duration) -> Result<Self> {
        let Some(read_only) = root.read_only else {
            return Self::open_writable(root, open, busy_timeout);
        };
        let generation = root.generation()?;
        let catalog = Catalog::open_read_only(&root.metadata, read_only, generation, busy_timeout)?;
        Self::assemble(root, catalog, open)
    }

    fn open_writable(root: Root, open: Lock, busy_timeout: Duration) -> Result<Self> {
        let room = root.room()?;
        let opening = Opening {
            may_create: &|| root.require_unused(),
            wait_for_older: &|is_done| Self::wait_for_older(&root, busy_timeout, is_done),
            give_up_reserve: &|| root.give_up_reserve(),
            fill_index: room.as_ref().is_some_and(Room::has_holes),
        };
        let catalog = root.with_slice(|| {
            if let Some(room) = &room {
                room.make_first()?;
            }
            let path = root.catalog_path();
            Catalog::open(&path, root.generation()?, busy_timeout, &opening)
        })?;
        let catalog = match room {
            Some(room) => catalog.asking_first(move || room.make()),
            None => catalog,
        };
        let store = Self::assemble(root, catalog, open)?;
        store.set_aside_space();
        store.bury_the_dead()?;
        Ok(store)
    }

    fn assemble(root: Root, catalog: Catalog, open: Lock) -> Result<Self> {
        Ok(Self {
            catalog_file: catalog_file(&root)?,
            unswept: Mutex::default(),
            went_back: catalog.went_back()?,
            owner: OnceLock::new(),
            becoming: Mutex::default(),
            _open: open,
            boot: crate::fs::boot_id().unwrap_or_default(),
            root,
            catalog,
            claims: Claims::default(),
            unpacking: unpack::Unpacking::default(),
            background: Background::default(),
            closed: AtomicBool::new(false),
        })
    }

    fn bury_the_dead(&self) -> Result<()> {
        match self.reap_dead_owners() {
            Ok(reaped) => {
                for owner in reaped.owners {
                    tracing::info!(owner, "cleaned up after an owner that died");
                }
                Ok(())
            }
            // Who opens a store on a full disk may be about to make room in it.
            Err(error) if error.kind() == ErrorKind::NoSpace => {
                tracing::warn!(%error, "what dead owners left stays for the next opener");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Whether it is on a read-only mount: what is there can be read, and no lease keeps it.
    pub(crate) fn is_read_only(&self) -> bool {
        self.catalog.is_read_only()
    }

    /// Writes down what was found out, where that can be.
    fn note(&self, body: impl FnOnce(&Txn<'_>) -> Result<()>) -> Result<()> {
        if self.is_read_only() {
            return Ok(());
        }
        self.catalog.write(Sync::Normal, body)
    }

    /// Waits for background syncs and gives the owner's leases, staging and lock file up. Only the first call does.
    pub(crate) fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        self.finish_background();
        let forgotten = match self.owner.get() {
            Some(owner) => self.forget_owner(owner.name()).map(|_| ()),
            None => Ok(()),
        };
        self.catalog.close_log();
        forgotten
    }

    /// Whether the catalog was found to be older than the store.
    pub(crate) fn went_back(&self) -> bool {
        self.went_back
    }

    /// Refuses to give up what a catalog that went back in time may know nothing of.
    pub(crate) fn require_current(&self) -> Result<()> {
        if self.went_back {
            return Err(Error::damaged(WENT_BACK)
                .with_path(self.root.dir.path())
                .with_hint(
                    "until then nothing is given up: neither `remove` nor `gc` does anything",
                ));
        }
        // A handle that is open goes on by the file it opened.
        if self.catalog_file != catalog_file(&self.root)? {
            let text = "the catalog was replaced while this process had it open";
            return Err(Error::damaged(text)
                .with_path(self.root.catalog_path())
                .with_hint("stop what uses the store, and start it again"));
        }
        Ok(())
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

fn catalog_file(root: &Root) -> Result<Option<(u64, u64)>> {
    let there = root.metadata.stat_if_any(OsStr::new("catalog.db"));
    let there = there.at("examine", root.catalog_path())?;
    Ok(there.map(|stat| stat.identity()))
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

#[cfg(test)]
pub(crate) mod tests;

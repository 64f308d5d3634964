//! Owners: open handles, what they leave behind when they die, and who cleans it up.
//!
//! An owner is alive while `leases/<owner>` is locked. A reaper that gets the lock of a dead one holds it to the end,
//! deletes the owner's leases (and what only they kept), its staging and its trash, and unlinks the lease file last: if
//! the reaper dies half-way, the next one starts over.

use std::ffi::{OsStr, OsString};
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::Store;
use super::layout::Root;
use crate::fs::dir::ignore_absent;
use crate::fs::lock::{self, Lock};
use crate::fs::{Dir, random_name};
use crate::words::error::{At, Error, ErrorKind, Result};

/// Slots are spread over this many directories, because the kernel lets one thread at a time change a directory.
const SHARDS: usize = 8;

/// A live owner: this handle.
#[derive(Debug)]
pub(crate) struct Owner {
    name: String,
    _lock: Lock,
    staging: [OnceLock<Dir>; SHARDS],
    trash: OnceLock<Dir>,
    slots: AtomicU64,
    operations: AtomicI64,
}

impl Owner {
    /// Makes and locks a lease file.
    pub(crate) fn create(root: &Root) -> Result<Self> {
        for _ in 0..16 {
            let name = random_name().at("read random bytes for", root.leases.path())?;
            let made = lock::create(&root.leases, OsStr::new(&name))
                .at("create a lease in", root.leases.path())?;
            if let Some(lock) = made {
                return Ok(Self {
                    name,
                    _lock: lock,
                    staging: [const { OnceLock::new() }; SHARDS],
                    trash: OnceLock::new(),
                    slots: AtomicU64::new(0),
                    operations: AtomicI64::new(0),
                });
            }
        }
        Err(Error::new(
            ErrorKind::Busy,
            "other processes keep removing this one's lease file",
        )
        .with_path(root.leases.path()))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A number for one call, so that its leases can be told from those of other calls of the same handle.
    pub(crate) fn next_operation(&self) -> i64 {
        self.operations.fetch_add(1, Ordering::Relaxed)
    }

    /// A directory for an ingest slot, and a name no slot of this owner had before. Directories are made when first needed:
    /// to remove one can mean to wait for the disk.
    pub(crate) fn slot(&self, root: &Root) -> Result<(&Dir, OsString)> {
        let number = self.slots.fetch_add(1, Ordering::Relaxed);
        let name = format!("{number:x}").into();
        let shard = number as usize % SHARDS;
        if let Some(dir) = self.staging[shard].get() {
            return Ok((dir, name));
        }
        let own = root.staging.ensure_dir(OsStr::new(&self.name), 0o700)?;
        let dir = own.ensure_dir(OsStr::new(&format!("{shard:x}")), 0o700)?;
        Ok((self.staging[shard].get_or_init(|| dir), name))
    }

    /// The directory where this owner puts swept names, made when first needed.
    pub(crate) fn trash(&self, root: &Root) -> Result<&Dir> {
        if let Some(dir) = self.trash.get() {
            return Ok(dir);
        }
        let dir = root.trash.ensure_dir(OsStr::new(&self.name), 0o700)?;
        Ok(self.trash.get_or_init(|| dir))
    }
}

impl Store {
    /// The directory of this owner's slots, and of other files that go when it goes; it need not be there yet.
    #[cfg(feature = "dragonfly")]
    pub(crate) fn staging(&self) -> std::path::PathBuf {
        self.root.staging.path_of(OsStr::new(self.owner.name()))
    }

    /// Cleans up after owners that died. Names the ones it found.
    ///
    /// # Errors
    /// The catalog's and the filesystem's.
    pub(crate) fn reap_dead_owners(&self) -> Result<Vec<String>> {
        let mut reaped = Vec::new();
        for name in self.root.leases.names()? {
            if name == OsStr::new(self.owner.name()) {
                continue;
            }
            if let Some(lock) = lock::take_over(&self.root.leases, &name)
                .at("lock", self.root.leases.path_of(&name))?
            {
                let owner = name.to_string_lossy().into_owned();
                self.forget_owner(&owner)?;
                reaped.push(owner);
                drop(lock);
            }
        }
        Ok(reaped)
    }

    /// Deletes everything of an owner whose lock the caller holds; its lease file goes last. Nobody else gives that owner
    /// leases, so where it has none nothing is written, and nobody who writes is waited for.
    pub(crate) fn forget_owner(&self, owner: &str) -> Result<()> {
        if self.catalog.read(|txn| txn.has_leases(owner, None))? {
            let doomed = self
                .catalog
                .write(crate::catalog::Sync::Full, |txn| txn.release_owner(owner))?;
            self.sweep_doomed(&doomed)?;
        }
        let name = OsStr::new(owner);
        self.root.staging.remove_tree(name)?;
        self.root.trash.remove_tree(name)?;
        ignore_absent(self.root.leases.unlink(name)).at("remove", self.root.leases.path_of(name))
    }

    /// Staging, trash and leases of owners that have no lease file: what is left when somebody deleted it.
    pub(crate) fn forget_ownerless(&self) -> Result<()> {
        let mut owners = self.catalog.read(|txn| txn.lease_owners())?;
        for dir in [&self.root.staging, &self.root.trash] {
            owners.extend(
                dir.names()?
                    .iter()
                    .map(|name| name.to_string_lossy().into_owned()),
            );
        }
        owners.sort_unstable();
        owners.dedup();
        for owner in owners {
            let stat: io::Result<_> = self.root.leases.stat_if_any(OsStr::new(&owner));
            if stat.at("examine", self.root.leases.path())?.is_none() {
                self.forget_owner(&owner)?;
            }
        }
        Ok(())
    }
}

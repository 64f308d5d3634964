//! Owners: open handles, what they leave behind when they die, and who cleans it up.
//!
//! An owner is alive while `leases/<owner>` is locked. A reaper that gets the lock of a dead one holds it to the end,
//! deletes the owner's leases (and what only they kept), its staging and its trash, and unlinks the lease file last: if
//! the reaper dies half-way, the next one starts over.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::holders::number_after;
use super::intents::intended;
use super::layout::Root;
use super::trash::{Left, trash_owner};
use super::{Store, now};
use crate::catalog::IsDone;
use crate::fs::dir::ignore_absent;
use crate::fs::lock::{self, Lock};
use crate::fs::{Dir, random_name};
use crate::metrics::Operation as Verb;
use crate::words::error::{At, Error, ErrorKind, Result};

/// Slots are spread over this many directories, because the kernel lets one thread at a time change a directory.
const SHARDS: usize = 8;

/// A live owner: this handle.
#[derive(Debug)]
pub(crate) struct Owner {
    name: String,
    lock: Lock,
    staging: [OnceLock<Dir>; SHARDS],
    slots: AtomicU64,
    operations: AtomicI64,
}

impl Owner {
    /// Makes and locks a lease file.
    fn create(root: &Root) -> Result<Self> {
        for _ in 0..16 {
            let name = random_name().at("read random bytes for", root.leases.path())?;
            let made = lock::create(&root.leases, OsStr::new(&name))
                .at("create a lease in", root.leases.path())?;
            if let Some(lock) = made {
                return Ok(Self {
                    name,
                    lock,
                    staging: [const { OnceLock::new() }; SHARDS],
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

    /// Its lease file, which says what it is about to do.
    pub(super) fn lease(&self) -> &File {
        self.lock.file()
    }

    /// A number for one call, so that its leases can be told from those of other calls of the same handle. It says what the
    /// call is too, and since when (see `holders.rs`).
    pub(crate) fn next_operation(&self, verb: Verb) -> i64 {
        let mut number = 0;
        let next = |last| {
            number = number_after(last, now(), verb);
            Some(number)
        };
        // It always has a next one.
        let _ = (self.operations).fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        number
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
}

/// What cleaning up after dead owners came to.
#[derive(Debug, Default)]
pub(crate) struct Reaped {
    pub(crate) owners: Vec<String>,
    pub(crate) left: Vec<Left>,
}

impl Store {
    /// This handle as an owner, which it becomes when it first has something to lease, to stage or to throw away: who only
    /// reads needs no lease file, and no inode for one.
    ///
    /// # Errors
    /// The filesystem's.
    pub(crate) fn owner(&self) -> Result<&Owner> {
        if let Some(owner) = self.owner.get() {
            return Ok(owner);
        }
        let _one = self.becoming.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(owner) = self.owner.get() {
            return Ok(owner);
        }
        self.catalog.require_writable()?;
        let owner = self.with_slice(|| Owner::create(&self.root))?;
        Ok(self.owner.get_or_init(|| owner))
    }

    /// The directory of this owner's slots, and of other files that go when it goes; it need not be there yet.
    #[cfg(feature = "dragonfly")]
    pub(crate) fn staging(&self) -> Result<std::path::PathBuf> {
        let name = OsStr::new(self.owner()?.name());
        Ok(self.root.staging.path_of(name))
    }

    /// Cleans up after owners that died.
    ///
    /// # Errors
    /// The catalog's and the filesystem's.
    pub(crate) fn reap_dead_owners(&self) -> Result<Reaped> {
        let mut reaped = Reaped::default();
        for name in self.root.leases.names()? {
            if self
                .owner
                .get()
                .is_some_and(|own| name == OsStr::new(own.name()))
            {
                continue;
            }
            if let Some(lock) = lock::take_over(&self.root.leases, &name)
                .at("lock", self.root.leases.path_of(&name))?
            {
                let owner = name.to_string_lossy().into_owned();
                reaped.left.extend(self.bury_owner(&owner, &lock)?);
                reaped.owners.push(owner);
                drop(lock);
            }
        }
        if !reaped.owners.is_empty() {
            // What they gave up and did not come to sweeping.
            let swept = self.with_reserve(|| self.sweep_orphans())?;
            reaped.left.extend(swept.left);
        }
        Ok(reaped)
    }

    /// Cleans up after an owner that died; the names it was about to give are swept.
    fn bury_owner(&self, owner: &str, lock: &Lock) -> Result<Vec<Left>> {
        let names = intended(lock.file());
        let names = names.at("read a lease in", self.root.leases.path())?;
        let mut left = self.with_reserve(|| self.sweep(&names))?.left;
        left.extend(self.forget_owner(owner)?);
        Ok(left)
    }

    /// Deletes everything of an owner whose lock the caller holds; its lease file goes last. Nobody else gives that owner
    /// leases, so where it has none nothing is written, and nobody who writes is waited for. Names that cannot go stay, and
    /// are ownerless then.
    pub(crate) fn forget_owner(&self, owner: &str) -> Result<Vec<Left>> {
        let mut left = Vec::new();
        if self.catalog.read(|txn| txn.has_leases(owner, None))? {
            let doomed = self.with_reserve(|| {
                self.catalog
                    .write(crate::catalog::Sync::Full, |txn| txn.release_owner(owner))
            })?;
            left.extend(self.with_reserve(|| self.sweep_doomed(&doomed))?.left);
        }
        left.extend(self.empty(owner)?);
        let name = OsStr::new(owner);
        if let Err(error) = ignore_absent(self.root.leases.unlink(name)) {
            left.push(Left::new(&self.root.leases, name, error));
        }
        Ok(left)
    }

    /// Waits until no process of a release with an older schema uses the root, as long as for anybody who holds the
    /// catalog. Whoever has opened it has a lease file, and holds its lock; so may those of this release, once another has
    /// brought the catalog up to date, which `is_done` says.
    pub(super) fn wait_for_older(
        root: &Root,
        patience: Duration,
        is_done: IsDone<'_>,
    ) -> Result<()> {
        let until = Instant::now() + patience;
        for name in root.leases.names()? {
            let path = || root.leases.path_of(&name);
            while lock::take_over(&root.leases, &name)
                .at("lock", path())?
                .is_none()
            {
                let held = root.leases.stat_if_any(&name).at("examine", path())?;
                let Some(held) = held else { break };
                if is_done()? {
                    return Ok(());
                }
                if Instant::now() >= until {
                    return Err(in_use_by_older(root, &lock::holder(&held)));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Staging, trash and leases of owners that have no lease file: what is left when somebody deleted it.
    pub(crate) fn forget_ownerless(&self) -> Result<Vec<Left>> {
        let mut left = Vec::new();
        let mut owners = self.catalog.read(|txn| txn.lease_owners())?;
        for dir in [&self.root.staging, &self.root.trash] {
            owners.extend(dir.names()?.iter().map(|name| trash_owner(name)));
        }
        owners.sort_unstable();
        owners.dedup();
        for owner in owners {
            let stat: io::Result<_> = self.root.leases.stat_if_any(OsStr::new(&owner));
            if stat.at("examine", self.root.leases.path())?.is_none() {
                left.extend(self.forget_owner(&owner)?);
            }
        }
        Ok(left)
    }
}

fn in_use_by_older(root: &Root, who: &str) -> Error {
    let text = format!(
        "{who} uses the store {} by an older release's catalog, which this one is to bring up to date",
        root.dir.path().display()
    );
    Error::new(ErrorKind::Busy, text)
        .with_path(root.dir.path())
        .with_hint("stop it, or wait until it has ended, and try again")
}

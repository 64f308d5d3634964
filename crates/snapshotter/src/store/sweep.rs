//! Taking names away: only orphans, only under the names lock, through the trash.
//!
//! An orphan is a name whose row this store itself deleted or changed: the same transaction notes it in the catalog, and it
//! stays noted until the name is seen to be gone. The sweep looks at the rows again under the lock and moves names without
//! one to this owner's trash, where they are unlinked after the commit. Whoever ingested the same bytes in between made a
//! row, and keeps the name. Nothing returns from the trash.
//!
//! No other name is litter. A file under its right name that the catalog does not know may be what the catalog lost.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::Store;
use super::trash::{Swept, Thrown};
use crate::activity::Activity;
use crate::catalog::{Doomed, StoredName, Sync, Tree, Txn};
use crate::lock::lock;
use crate::pass::for_each;
use crate::words::error::{At, Result};

/// Names looked at under one hold of the lock, so that others get their turn.
const BATCH: usize = 512;

/// Threads that take names away.
const THREADS: usize = 4;

/// So many names are one thread's.
const WORTH_A_THREAD: usize = 64;

/// Names without a row that were not this store's to sweep.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    /// What was swept all the same, because nobody can have lost it.
    pub(crate) swept: Swept,
    /// Files that stay: they may be what the catalog lost.
    pub(crate) names: Vec<StoredName>,
    /// Bytes that the filesystem keeps for them.
    pub(crate) bytes: u64,
}

impl Store {
    /// Sweeps the names of objects whose rows were just deleted.
    pub(crate) fn sweep_doomed(&self, doomed: &Doomed) -> Result<Swept> {
        self.sweep_each(doomed.names())
    }

    /// Removes what nothing needs: dead owners and those whose lease files are gone, abandoned snapshots, orphans. Says
    /// how many of these there were.
    pub(crate) fn sweep_whole(&self) -> Result<Swept> {
        let mut left = self.reap_dead_owners()?.left;
        left.extend(self.forget_ownerless()?);
        let abandoned = self.catalog.read(|txn| txn.abandoned())?;
        if !abandoned.is_empty() {
            self.expect_orphans();
            let doomed = self
                .catalog
                .write(Sync::Full, |txn| txn.doom_abandoned(&txn.abandoned()?))?;
            left.extend(self.sweep_doomed(&doomed)?.left);
        }
        let mut swept = self.sweep_orphans()?;
        swept.left.extend(left);
        let (lists, left) = self.sweep_page_lists()?;
        swept.names += lists + self.sweep_cache()?;
        swept.left.extend(left);
        Ok(swept)
    }

    /// Sweeps all names that wait for it.
    pub(super) fn sweep_orphans(&self) -> Result<Swept> {
        let mut swept = Swept::default();
        let mut last = None;
        loop {
            let next = |txn: &Txn<'_>| txn.orphans_after(last.as_ref(), BATCH);
            let orphans = self.catalog.read(next)?;
            let some = self.sweep(&orphans)?;
            swept.names += some.names;
            swept.left.extend(some.left);
            match orphans.into_iter().next_back() {
                None => return Ok(swept),
                further => last = further,
            }
        }
    }

    /// Looks at every name without a row. Those that no blob or view can have, and those of bytes that have their row and a
    /// good file besides, are swept, if the caller has seen that nothing is lost or damaged. Whatever else it is, and whether
    /// its bytes are right or not, it stays: a rebuild reads it.
    pub(crate) fn look_for_strangers(
        &self,
        sweeps: bool,
        activity: &Activity,
    ) -> Result<Strangers> {
        let mut strangers = Strangers::default();
        let mut litter = Vec::new();
        for name in self.names_without_a_row()? {
            activity.check()?;
            if self.is_needless(&name)? {
                litter.push(name);
            } else {
                strangers.names.push(name);
            }
        }
        if sweeps {
            strangers.swept = self.sweep(&litter)?;
        }
        let look_again = |txn: &Txn<'_>| {
            for name in std::mem::take(&mut strangers.names) {
                if !txn.has_row(&name)? {
                    strangers.names.push(name);
                }
            }
            Ok(())
        };
        // Somebody may just have given a row to what he named.
        if self.is_read_only() {
            self.catalog.read(look_again)?;
        } else {
            self.catalog.write(Sync::Normal, look_again)?;
        }
        for name in &strangers.names {
            strangers.bytes = strangers.bytes.saturating_add(self.allocated(name)?);
        }
        Ok(strangers)
    }

    fn is_needless(&self, name: &StoredName) -> Result<bool> {
        let Some(checksum) = name.checksum() else {
            return Ok(true);
        };
        match self.catalog.read(|txn| txn.blob(&checksum))? {
            Some(blob) => self.looks_good(&blob),
            None => Ok(false),
        }
    }

    fn allocated(&self, name: &StoredName) -> Result<u64> {
        let dir = self.root.tree(name.tree);
        let stat = dir.stat_if_any(&name.name);
        let stat = stat.at("examine", dir.path_of(&name.name))?;
        Ok(stat.map_or(0, |stat| stat.allocated.min(stat.size)))
    }

    /// All names that have neither a row nor a note that they are to go, as far as that can be read without the lock: somebody
    /// may be about to insert the row.
    pub(crate) fn names_without_a_row(&self) -> Result<Vec<StoredName>> {
        let mut found = Vec::new();
        // Before the names are listed: what somebody sweeps meanwhile is no stranger.
        let orphans = |txn: &Txn<'_>| txn.orphans_after(None, usize::MAX);
        let orphans: HashSet<StoredName> = self.catalog.read(orphans)?.into_iter().collect();
        for tree in [Tree::Content, Tree::Views] {
            let names = self.root.names(tree)?;
            let names: Vec<_> = names
                .into_iter()
                .map(|name| StoredName { tree, name })
                .filter(|name| !orphans.contains(name))
                .collect();
            for batch in names.chunks(BATCH) {
                self.catalog.read(|txn| {
                    for name in batch {
                        if !txn.has_row(name)? {
                            found.push(name.clone());
                        }
                    }
                    Ok(())
                })?;
            }
        }
        Ok(found)
    }

    /// Becomes an owner before names are given up, and before the lock is held: who cleans up after one that died sweeps what
    /// it gave up. Where there is no room for a lease file, names are unlinked in place, and left ones wait for `gc` and
    /// `verify`.
    pub(crate) fn expect_orphans(&self) {
        if let Err(error) = self.owner() {
            tracing::debug!(%error, "nothing can be moved to the trash");
        }
    }

    /// Sweeps those of these names that have no row; none while the catalog is older than the store. What cannot go stays an
    /// orphan.
    pub(crate) fn sweep(&self, names: &[StoredName]) -> Result<Swept> {
        self.sweep_each(names.iter().cloned())
    }

    fn sweep_each(&self, mut names: impl Iterator<Item = StoredName>) -> Result<Swept> {
        let mut swept = Swept::default();
        if self.went_back {
            return Ok(swept);
        }
        loop {
            let batch: Vec<StoredName> = names.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return Ok(swept);
            }
            self.expect_orphans();
            let mut trashed = Vec::new();
            let result = self.catalog.write(Sync::Normal, |txn| {
                let (mut done, mut going) = (Vec::new(), Vec::new());
                for name in &batch {
                    match txn.has_row(name)? {
                        true => done.push(name),
                        false => going.push(name),
                    }
                }
                for (name, thrown) in self.throw_all(&going)? {
                    match thrown {
                        Thrown::Trashed(name) => trashed.push(name),
                        Thrown::Unlinked => swept.names += 1,
                        Thrown::Absent => {}
                        Thrown::Left(left) => {
                            swept.left.push(left);
                            continue;
                        }
                    }
                    done.push(name);
                }
                done.into_iter()
                    .try_for_each(|name| txn.forget_orphan(name))
            });
            // What was moved has no row, whether or not the transaction, which changed nothing else, went through.
            swept.names += trashed.len() as u64;
            for name in &trashed {
                self.unlink_trashed(name, &mut swept.left);
            }
            result?;
        }
    }

    /// Takes names away, many by several threads: a filesystem may tell the disk of each what is free now, and wait for it.
    fn throw_all<'n>(&self, names: &[&'n StoredName]) -> Result<Vec<(&'n StoredName, Thrown)>> {
        let thrown = Mutex::new(Vec::with_capacity(names.len()));
        let threads = names.len().div_ceil(WORTH_A_THREAD).min(THREADS);
        for_each(threads, names.len(), |index| {
            let name = names[index];
            let what = self.throw_away(self.root.tree(name.tree), &name.name);
            lock(&thrown).push((name, what));
            Ok(())
        })?;
        Ok(thrown.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

//! Taking names away: only orphans, only under the names lock, through the trash.
//!
//! An orphan is a name whose row this store itself deleted or changed: the same transaction notes it in the catalog, and it
//! stays noted until the name is seen to be gone. The sweep looks at the rows again under the lock and moves names without
//! one to this owner's trash, where they are unlinked after the commit. Whoever ingested the same bytes in between made a
//! row, and keeps the name. Nothing returns from the trash.
//!
//! No other name is litter. A file under its right name that the catalog does not know may be what the catalog lost.

use super::Store;
use super::recover::read_blob;
use super::trash::{Swept, Thrown};
use crate::activity::Activity;
use crate::catalog::{Doomed, Form, StoredName, Sync, Tree, parse_content_name, parse_view_name};
use crate::words::error::Result;

/// Names looked at under one hold of the lock, so that others get their turn.
const BATCH: usize = 512;

/// Names without a row that were not this store's to sweep.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    /// Names whose files had other bytes than they say, or that say nothing: those were swept.
    pub(crate) swept: Swept,
    /// Whole files, which may be what the catalog lost: those stay.
    pub(crate) whole: Vec<StoredName>,
    /// Bytes of data in them.
    pub(crate) whole_bytes: u64,
}

impl Store {
    /// Sweeps the names of objects whose rows were just deleted.
    pub(crate) fn sweep_doomed(&self, doomed: &[Doomed]) -> Result<Swept> {
        let names: Vec<StoredName> = doomed.iter().flat_map(|one| one.names.clone()).collect();
        self.sweep(&names)
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
        Ok(swept)
    }

    /// Sweeps all names that wait for it.
    pub(super) fn sweep_orphans(&self) -> Result<Swept> {
        let orphans = self.catalog.read(|txn| txn.orphans())?;
        self.sweep(&orphans)
    }

    /// Sweeps names that have no row by this store's own hand. What fails waits for the next whole sweep.
    pub(super) fn sweep_soon(&self, names: &[StoredName]) {
        if let Err(error) = self.sweep(names) {
            tracing::debug!(%error, "names without a row wait for the next whole sweep");
        }
    }

    /// Looks at every name without a row. Those that are no blob's, or whose files have other bytes, are swept, if the
    /// caller has seen that nothing is lost.
    pub(crate) fn look_for_strangers(
        &self,
        sweeps: bool,
        activity: &Activity,
    ) -> Result<Strangers> {
        let mut strangers = Strangers::default();
        let mut litter = Vec::new();
        for name in self.names_without_a_row()? {
            activity.check()?;
            match self.read_stranger(&name, activity)? {
                Some(bytes) => {
                    strangers.whole_bytes = strangers.whole_bytes.saturating_add(bytes);
                    strangers.whole.push(name);
                }
                None => litter.push(name),
            }
        }
        if sweeps {
            strangers.swept = self.sweep(&litter)?;
        }
        self.catalog.write(Sync::Normal, |txn| {
            let mut still = Vec::new();
            for name in std::mem::take(&mut strangers.whole) {
                if !txn.has_row(&name)? {
                    still.push(name);
                }
            }
            strangers.whole = still;
            Ok(())
        })?;
        Ok(strangers)
    }

    /// Bytes of data in a file that is what its name says; `None`: it is not, or the same bytes have their row and file.
    fn read_stranger(&self, name: &StoredName, activity: &Activity) -> Result<Option<u64>> {
        let dir = self.root.tree(name.tree);
        let said = match name.tree {
            Tree::Content => parse_content_name(&name.name).map(|(key, form, _)| (key, form)),
            Tree::Views => parse_view_name(&name.name).map(|(key, ..)| (key, Form::Plain)),
        };
        let Some((checksum, form)) = said else {
            return Ok(None);
        };
        let known = self.catalog.read(|txn| txn.blob(&checksum))?;
        if let Some(blob) = known
            && (name.tree == Tree::Views || self.looks_good(&blob)?)
        {
            return Ok(None);
        }
        let read = read_blob(dir, &name.name, form, &checksum, None, activity)?;
        Ok(read.map(|read| read.map.data_size()))
    }

    /// As far as names and rows can be read without the lock: somebody may be about to insert the row.
    pub(crate) fn names_without_a_row(&self) -> Result<Vec<StoredName>> {
        let mut found = Vec::new();
        for tree in [Tree::Content, Tree::Views] {
            let names = self.root.names(tree)?;
            let names: Vec<_> = names
                .into_iter()
                .map(|name| StoredName { tree, name })
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
        let mut swept = Swept::default();
        if names.is_empty() || self.went_back {
            return Ok(swept);
        }
        self.expect_orphans();
        for batch in names.chunks(BATCH) {
            let mut trashed = Vec::new();
            let result = self.catalog.write(Sync::Normal, |txn| {
                for name in batch {
                    if !txn.has_row(name)? {
                        let dir = self.root.tree(name.tree);
                        match self.throw_away(dir, &name.name) {
                            Thrown::Trashed(name) => trashed.push(name),
                            Thrown::Unlinked => swept.names += 1,
                            Thrown::Absent => {}
                            Thrown::Left(left) => {
                                swept.left.push(left);
                                continue;
                            }
                        }
                    }
                    txn.forget_orphan(name)?;
                }
                Ok(())
            });
            // What was moved has no row, whether or not the transaction, which changed nothing else, went through.
            swept.names += trashed.len() as u64;
            for name in &trashed {
                self.unlink_trashed(name, &mut swept.left);
            }
            result?;
        }
        Ok(swept)
    }
}

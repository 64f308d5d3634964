//! Taking names away: only orphans, only under the names lock, through the trash.
//!
//! An orphan is a name whose row this store itself deleted or changed: the same transaction notes it in the catalog, and it
//! stays noted until the name is seen to be gone. The sweep looks at the rows again under the lock and moves names without
//! one to this owner's trash, where they are unlinked after the commit. Whoever ingested the same bytes in between made a
//! row, and keeps the name. Nothing returns from the trash.
//!
//! No other name is litter. A file under its right name that the catalog does not know may be what the catalog lost.

use std::ffi::{OsStr, OsString};

use super::Store;
use super::recover::read_blob;
use crate::activity::Activity;
use crate::catalog::{Doomed, Form, StoredName, Sync, Tree, parse_content_name, parse_view_name};
use crate::fs::dir::ignore_absent;
use crate::fs::{Dir, random_name};
use crate::words::error::{At, Result};

/// Names looked at under one hold of the lock, so that others get their turn.
const BATCH: usize = 512;

/// Names without a row that were not this store's to sweep.
#[derive(Clone, Debug, Default)]
pub(crate) struct Strangers {
    /// Names whose files had other bytes than they say, or that say nothing: those were swept.
    pub(crate) swept: u64,
    /// Whole files, which may be what the catalog lost: those stay.
    pub(crate) whole: Vec<StoredName>,
    /// Bytes of data in them.
    pub(crate) whole_bytes: u64,
}

impl Store {
    /// Sweeps the names of objects whose rows were just deleted.
    pub(crate) fn sweep_doomed(&self, doomed: &[Doomed]) -> Result<()> {
        let names: Vec<StoredName> = doomed.iter().flat_map(|one| one.names.clone()).collect();
        self.sweep(&names).map(drop)
    }

    /// Removes what nothing needs: dead owners and those whose lease files are gone, abandoned snapshots, orphans. Says
    /// how many of these there were.
    pub(crate) fn sweep_whole(&self) -> Result<u64> {
        self.reap_dead_owners()?;
        self.forget_ownerless()?;
        let abandoned = self.catalog.read(|txn| txn.abandoned())?;
        if !abandoned.is_empty() {
            let doomed = self
                .catalog
                .write(Sync::Full, |txn| txn.doom_abandoned(&txn.abandoned()?))?;
            self.sweep_doomed(&doomed)?;
        }
        self.sweep_orphans()
    }

    /// Sweeps all names that wait for it.
    pub(super) fn sweep_orphans(&self) -> Result<u64> {
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

    /// Sweeps those of these names that have no row; none while the catalog is older than the store.
    pub(crate) fn sweep(&self, names: &[StoredName]) -> Result<u64> {
        if self.went_back {
            return Ok(0);
        }
        let mut swept = 0;
        for batch in names.chunks(BATCH) {
            let mut moved = Vec::new();
            let result = self.catalog.write(Sync::Normal, |txn| {
                for name in batch {
                    if !txn.has_row(name)? {
                        let dir = self.root.tree(name.tree);
                        moved.extend(self.throw_away(dir, &name.name)?);
                    }
                    txn.forget_orphan(name)?;
                }
                Ok(())
            });
            // What was moved has no row, whether or not the transaction, which changed nothing else, went through.
            for name in &moved {
                self.empty_trash(name)?;
            }
            result?;
            swept += moved.len() as u64;
        }
        Ok(swept)
    }

    fn empty_trash(&self, name: &OsStr) -> Result<()> {
        let trash = self.owner.trash(&self.root)?;
        match ignore_absent(trash.unlink(name)) {
            // Somebody made a directory under storage/: it is as much litter as a file.
            Err(error) if error.raw_os_error() == Some(libc::EISDIR) => trash.remove_tree(name),
            result => result.at("remove", trash.path_of(name)),
        }
    }

    /// Moves a name to the trash and returns what it is called there; `None`: it was gone. The caller holds the names
    /// lock.
    pub(super) fn throw_away(&self, dir: &Dir, name: &OsStr) -> Result<Option<OsString>> {
        let trash = self.owner.trash(&self.root)?;
        let to: OsString = random_name()
            .at("read random bytes for", trash.path())?
            .into();
        match dir.rename(name, trash, &to) {
            Ok(()) => Ok(Some(to)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).at("move to the trash", dir.path_of(name)),
        }
    }
}

//! Taking names away: only those without a row, only under the names lock, through the trash.
//!
//! Deleting the row comes first and is committed; then the sweep looks at the rows again under the lock and moves names
//! without one to this owner's trash, where they are unlinked after the commit. Whoever ingested the same bytes in
//! between made a row, and keeps the name. Nothing returns from the trash.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};

use super::Store;
use super::layout::{content_name, parse_content_name, parse_view_name, view_name};
use crate::catalog::{Doomed, Form, Sync, Txn};
use crate::fs::dir::ignore_absent;
use crate::fs::{Dir, random_name};
use crate::words::error::{At, Result};

/// Names looked at under one hold of the lock, so that others get their turn.
const BATCH: usize = 512;

impl Store {
    /// Sweeps the names of blobs whose rows were just deleted: of both forms, because a crash may have left the other.
    pub(crate) fn sweep_doomed(&self, doomed: &[Doomed]) -> Result<()> {
        let content: Vec<OsString> = doomed
            .iter()
            .flat_map(|blob| {
                [Form::Plain, Form::Packed].map(|form| content_name(&blob.checksum, form))
            })
            .collect();
        let views: Vec<OsString> = doomed
            .iter()
            .flat_map(|blob| {
                blob.views
                    .iter()
                    .map(|attributes| view_name(&blob.checksum, attributes))
            })
            .collect();
        self.sweep_views(&views)?;
        self.sweep_content(&content)?;
        Ok(())
    }

    /// Removes what nothing needs: dead owners and those whose lease files are gone, abandoned snapshots, names without a
    /// row. Says how many of these there were.
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
        self.sweep_all()
    }

    /// Sweeps every name under `storage/`; says how many were litter. None while something is lost: names without a row may
    /// be what it was.
    fn sweep_all(&self) -> Result<u64> {
        let views = self.root.views.names()?;
        let content = self.root.content.names()?;
        if self.has_lost(&content)? {
            tracing::warn!(
                "something is missing in the store, so nothing in it is swept: `verify` says what"
            );
            return Ok(0);
        }
        Ok(self.sweep_views(&views)? + self.sweep_content(&content)?)
    }

    /// Whether a reference has no row, or a row no file.
    fn has_lost(&self, content: &[OsString]) -> Result<bool> {
        let names: HashSet<&OsString> = content.iter().collect();
        let (lost, rows) = self
            .catalog
            .read(|txn| Ok((txn.has_references_to_nothing()?, txn.stored_blobs()?)))?;
        let absent = rows
            .into_iter()
            .filter(|row| !names.contains(&content_name(&row.checksum, row.form)));
        let absent: Vec<i64> = absent.map(|row| row.id).collect();
        if lost || absent.is_empty() {
            return Ok(lost);
        }
        // Rows and names were not read in the same moment.
        self.catalog.write(Sync::Normal, |txn| {
            for id in absent {
                if let Some(blob) = txn.blob(id)?
                    && self.stat_content(&blob)?.is_none()
                {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    /// Sweeps those of these names under `storage/content` that have no row.
    pub(crate) fn sweep_content(&self, names: &[OsString]) -> Result<u64> {
        self.sweep(&self.root.content, names, |txn, name| {
            parse_content_name(name)
                .map_or(Ok(false), |(checksum, form)| txn.has_blob(&checksum, form))
        })
    }

    /// Sweeps those of these names under `storage/snapshot` that have no row.
    pub(crate) fn sweep_views(&self, names: &[OsString]) -> Result<u64> {
        self.sweep(&self.root.views, names, |txn, name| {
            parse_view_name(name).map_or(Ok(false), |(checksum, attributes)| {
                txn.has_view(&checksum, &attributes)
            })
        })
    }

    fn sweep(
        &self,
        dir: &Dir,
        names: &[OsString],
        has_row: impl Fn(&Txn<'_>, &OsStr) -> Result<bool>,
    ) -> Result<u64> {
        let mut swept = 0;
        for batch in names.chunks(BATCH) {
            let mut moved = Vec::new();
            let result = self.catalog.write(Sync::Normal, |txn| {
                for name in batch {
                    if !has_row(txn, name)? {
                        moved.extend(self.throw_away(dir, name)?);
                    }
                }
                Ok(())
            });
            // What was moved has no row, whether or not the transaction, which changed nothing, went through.
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

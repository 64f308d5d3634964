//! Taking names away: only those without a row, only under the names lock, through the trash.
//!
//! Deleting the row comes first and is committed; then the sweep looks at the rows again under the lock and moves names
//! without one to this owner's trash, where they are unlinked after the commit. Whoever ingested the same bytes in
//! between made a row, and keeps the name. Nothing returns from the trash.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};

use super::Store;
use super::layout::{content_name, parse_content_name, parse_view_name, view_name};
use super::trash::{Swept, Thrown};
use crate::catalog::{Doomed, Form, Sync, Txn};
use crate::fs::Dir;
use crate::words::error::Result;

/// Names looked at under one hold of the lock, so that others get their turn.
const BATCH: usize = 512;

impl Store {
    /// Sweeps the names of blobs whose rows were just deleted: of both forms, because a crash may have left the other.
    pub(crate) fn sweep_doomed(&self, doomed: &[Doomed]) -> Result<Swept> {
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
        let mut swept = self.sweep_views(&views)?;
        swept.add(self.sweep_content(&content)?);
        Ok(swept)
    }

    /// Removes what nothing needs: dead owners and those whose lease files are gone, abandoned snapshots, names without a
    /// row. Says how many of these there were.
    pub(crate) fn sweep_whole(&self) -> Result<Swept> {
        let mut left = self.reap_dead_owners()?.left;
        left.extend(self.forget_ownerless()?);
        let abandoned = self.catalog.read(|txn| txn.abandoned())?;
        if !abandoned.is_empty() {
            let doomed = self
                .catalog
                .write(Sync::Full, |txn| txn.doom_abandoned(&txn.abandoned()?))?;
            left.extend(self.sweep_doomed(&doomed)?.left);
        }
        let mut swept = self.sweep_all()?;
        swept.left.extend(left);
        Ok(swept)
    }

    /// Sweeps every name under `storage/`; says how many were litter. None while something is lost: names without a row may
    /// be what it was.
    fn sweep_all(&self) -> Result<Swept> {
        let views = self.root.views.names()?;
        let content = self.root.content.names()?;
        if self.has_lost(&content)? {
            tracing::warn!(
                "something is missing in the store, so nothing in it is swept: `verify` says what"
            );
            return Ok(Swept::default());
        }
        let mut swept = self.sweep_views(&views)?;
        swept.add(self.sweep_content(&content)?);
        Ok(swept)
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
    pub(crate) fn sweep_content(&self, names: &[OsString]) -> Result<Swept> {
        self.sweep(&self.root.content, names, |txn, name| {
            parse_content_name(name)
                .map_or(Ok(false), |(checksum, form)| txn.has_blob(&checksum, form))
        })
    }

    /// Sweeps those of these names under `storage/snapshot` that have no row.
    pub(crate) fn sweep_views(&self, names: &[OsString]) -> Result<Swept> {
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
    ) -> Result<Swept> {
        let mut swept = Swept::default();
        if names.is_empty() {
            return Ok(swept);
        }
        // Before the lock is held. Without one, names are unlinked in place.
        if let Err(error) = self.owner() {
            tracing::debug!(%error, "nothing can be moved to the trash");
        }
        for batch in names.chunks(BATCH) {
            let mut trashed = Vec::new();
            let result = self.catalog.write(Sync::Normal, |txn| {
                for name in batch {
                    if !has_row(txn, name)? {
                        match self.throw_away(dir, name) {
                            Thrown::Trashed(name) => trashed.push(name),
                            Thrown::Unlinked => swept.names += 1,
                            Thrown::Absent => {}
                            Thrown::Left(left) => swept.left.push(left),
                        }
                    }
                }
                Ok(())
            });
            // What was moved has no row, whether or not the transaction, which changed nothing, went through.
            swept.names += trashed.len() as u64;
            for name in &trashed {
                self.unlink_trashed(name, &mut swept.left);
            }
            result?;
        }
        Ok(swept)
    }
}

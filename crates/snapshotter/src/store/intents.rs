//! Names that are about to be given, written down before they are.
//!
//! A file gets its name inside the transaction that inserts its row. Who dies between the two leaves a name without a row,
//! and a name without a row may also be what a damaged catalog has lost. So the names of a transaction are written into the
//! owner's lease file before the first is given; whoever cleans up after the owner sweeps those that have no row, and no
//! others. What is written replaces what the transaction before wrote: its names have their rows, or were swept, or are written
//! once more.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Store;
use crate::catalog::{StoredName, parse_content_name, parse_view_name};
use crate::fs::hook::step;
use crate::fs::{Dir, Stat};
use crate::words::error::{At, Result};

/// More than the longest list is long, in bytes.
const LONGEST: u64 = 1 << 20;

impl Store {
    /// Writes down names under `storage/` that the caller, who holds the names lock, is about to give. A name that is there
    /// is left out: if it has no row, it is not this owner's to sweep, and if it has one, it keeps it. The others are
    /// returned: what to sweep if the transaction fails.
    pub(super) fn intend(
        &self,
        names: impl Iterator<Item = StoredName>,
    ) -> Result<Vec<StoredName>> {
        let (mut list, mut intended) = (Vec::new(), Vec::new());
        let unswept = lock(&self.unswept).clone();
        for name in names {
            if !self.has_name(self.root.tree(name.tree), &name.name)? {
                append(&mut list, &name);
                intended.push(name);
            }
        }
        if list.is_empty() {
            return Ok(intended);
        }
        unswept.iter().for_each(|name| append(&mut list, name));
        // What is left of a longer list before it does not count.
        list.push(b'\n');
        let owner = self.owner()?;
        step("write")
            .and_then(|()| owner.lease().write_all_at(&list, 0))
            .at("write to a lease in", self.root.leases.path())?;
        Ok(intended)
    }

    /// Sweeps names that have no row by this owner's own hand, and those that could not be swept before. What cannot now
    /// stays in its lists until it can.
    pub(super) fn sweep_soon(&self, names: &[StoredName]) {
        let mut all = std::mem::take(&mut *lock(&self.unswept));
        all.extend_from_slice(names);
        if all.is_empty() {
            return;
        }
        if let Err(error) = self.with_reserve(|| self.sweep(&all)) {
            tracing::debug!(%error, "names without a row wait for the next sweep");
            lock(&self.unswept).extend(all);
        }
    }

    pub(super) fn has_name(&self, dir: &Dir, name: &OsStr) -> Result<bool> {
        let there = dir.stat_if_any(name).at("examine", dir.path_of(name))?;
        Ok(there.is_some())
    }
}

fn append(list: &mut Vec<u8>, name: &StoredName) {
    list.extend(name.name.as_bytes());
    list.push(b'\n');
}

fn lock(names: &Mutex<Vec<StoredName>>) -> MutexGuard<'_, Vec<StoredName>> {
    names.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The names that the owner of a lease file was about to give.
pub(super) fn intended(lease: &File) -> io::Result<Vec<StoredName>> {
    let size = Stat::of_file(lease)?.size.min(LONGEST);
    let mut list = vec![0; usize::try_from(size).unwrap_or(0)];
    lease.read_exact_at(&mut list, 0)?;
    let names = list.split(|byte| *byte == b'\n');
    // A power cut may leave anything: what is neither a blob's name nor a view's is no intention.
    let read = |name: &[u8]| {
        let name = OsStr::from_bytes(name).to_owned();
        if parse_content_name(&name).is_some() {
            return Some(StoredName::content(name));
        }
        parse_view_name(&name).map(|_| StoredName::view(name))
    };
    let names = names.take_while(|name| !name.is_empty());
    Ok(names.filter_map(read).collect())
}

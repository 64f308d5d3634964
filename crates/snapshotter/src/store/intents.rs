//! Names that are about to be given, written down before they are.
//!
//! A file gets its name inside the transaction that inserts its row. Who dies between the two leaves a name without a row,
//! and a name without a row may also be what a damaged catalog has lost. So the names of a transaction are written into the
//! owner's lease file before the first is given; whoever cleans up after the owner sweeps those that have no row, and no
//! others. What is written replaces what the transaction before wrote: its names have their rows, or were swept.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;

use super::Store;
use crate::catalog::{StoredName, parse_content_name};
use crate::fs::Stat;
use crate::fs::hook::step;
use crate::words::error::{At, Result};

/// More than the longest list is long, in bytes.
const LONGEST: u64 = 1 << 20;

impl Store {
    /// Writes down names under `storage/content` that the caller, who holds the names lock, is about to give.
    pub(super) fn intend(&self, names: impl Iterator<Item = OsString>) -> Result<()> {
        let mut list = Vec::new();
        for name in names {
            list.extend(name.into_vec());
            list.push(b'\n');
        }
        if list.is_empty() {
            return Ok(());
        }
        // What is left of a longer list before it does not count.
        list.push(b'\n');
        let owner = self.owner()?;
        step("write")
            .and_then(|()| owner.lease().write_all_at(&list, 0))
            .at("write to a lease in", self.root.leases.path())
    }
}

/// The names that the owner of a lease file was about to give.
pub(super) fn intended(lease: &File) -> io::Result<Vec<StoredName>> {
    let size = Stat::of_file(lease)?.size.min(LONGEST);
    let mut list = vec![0; usize::try_from(size).unwrap_or(0)];
    lease.read_exact_at(&mut list, 0)?;
    let names = list.split(|byte| *byte == b'\n');
    // A power cut may leave anything: what is no blob's name is no intention.
    let names = names
        .take_while(|name| !name.is_empty())
        .map(OsStr::from_bytes)
        .filter(|name| parse_content_name(name).is_some());
    Ok(names
        .map(|name| StoredName::content(name.to_owned()))
        .collect())
}

//! Giving the catalog's free pages back to the filesystem.
//!
//! Rows that went leave pages that later rows take, so a catalog is as large as it ever was. A collection makes it anew where
//! more than half of it is free: SQLite's `VACUUM`, one transaction, which a crash undoes. Whoever reads meanwhile goes on, and
//! whoever writes waits; so one with very many rows stays as it is. What is copied goes through a temporary file of SQLite's (in
//! `SQLITE_TMPDIR`, `/var/tmp` or `/tmp`), and where there is no room for that, or for the log, the catalog stays as it is too.

use std::sync::PoisonError;

use super::open::connection;
use super::{Catalog, Result};
use crate::fs::Dir;
use crate::fs::hook::step;
use crate::fs::space;
use crate::words::error::At;

/// Free pages that are worth it, in bytes.
const WORTH_IT: u64 = 16 << 20;

/// Pages in use that are copied, twice, while others still wait on a slow disk, in bytes.
const MOST: u64 = 128 << 20;

/// What others find free on the filesystem meanwhile, in bytes.
const LEFT: u64 = 256 << 20;

impl Catalog {
    /// Shrinks the catalog if that is worth it, and says by how many bytes.
    ///
    /// # Errors
    /// SQLite's; the catalog is as it was then.
    pub(crate) fn shrink(&self) -> Result<u64> {
        self.require_writable()?;
        let (used, free) = self.pages()?;
        if free < WORTH_IT || free < used || used > MOST || !self.has_room_for(used)? {
            return Ok(0);
        }
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        step("commit").at("commit to", &self.path)?;
        self.ask.first()?;
        let connection = connection(&self.path, self.access, self.busy_timeout)?;
        connection
            .execute_batch("PRAGMA synchronous = FULL; PRAGMA temp_store = FILE; VACUUM")
            .map_err(|error| self.error(error))?;
        // The file is cut when all of the log is in it.
        if self.checkpoint() {
            self.begin_log()?;
        }
        Ok(free)
    }

    /// How many bytes of the catalog are in use, and how many are not.
    fn pages(&self) -> Result<(u64, u64)> {
        self.read(|txn| {
            let number = |pragma| {
                let value = txn.inner.pragma_query_value(None, pragma, |row| row.get(0));
                value.map_err(|error| txn.error(error))
            };
            let (size, all): (u32, u32) = (number("page_size")?, number("page_count")?);
            let free = number("freelist_count")?.min(all);
            let bytes = |pages| u64::from(pages) * u64::from(size);
            Ok((bytes(all - free), bytes(free)))
        })
    }

    fn has_room_for(&self, used: u64) -> Result<bool> {
        let metadata = Dir::open(self.path.parent().unwrap_or(&self.path))?;
        let space = space::of(&metadata).at("examine", metadata.path())?;
        Ok(space.available > 2 * used + LEFT)
    }
}

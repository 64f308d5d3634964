//! The number that tells whether the catalog went back in time: a log that lost its end, an old copy put in place.
//!
//! Each transaction that has to last counts on, and when it is committed the number is written into a file outside as
//! well. So the number outside is never ahead of a catalog that kept all it ever promised to keep; where it is, the
//! catalog has lost something, and a name it does not know may be what it lost.

use super::{Catalog, Result, Sync, Txn};

impl Catalog {
    /// Whether the catalog was found to have gone back, now or by somebody before, and was not rebuilt since. From the
    /// moment it is found, names it holds for orphans are nobody's business any more: it may know them from before they
    /// were used again.
    ///
    /// # Errors
    /// Those of reading. That the finding cannot be written down is none: it is found again.
    pub(crate) fn went_back(&self) -> Result<bool> {
        let outside = self.generation.read();
        let (number, went_back) = self.read(|txn| txn.generation())?;
        if outside.is_none_or(|outside| outside <= number) {
            return Ok(went_back);
        }
        if self.is_read_only() {
            return Ok(true);
        }
        // Looked at again, where nobody writes at the same time.
        let noted = self.write(Sync::Full, |txn| {
            let outside = self.generation.read().unwrap_or_default();
            let (number, went_back) = txn.generation()?;
            if outside > number {
                tracing::error!(outside, number, "the catalog went back in time");
                txn.note_going_back(outside)?;
            }
            Ok(went_back || outside > number)
        });
        Ok(noted.unwrap_or_else(|error| {
            tracing::error!(outside, number, %error, "the catalog went back in time, which could not be written down");
            true
        }))
    }
}

impl Txn<'_> {
    fn generation(&self) -> Result<(u64, bool)> {
        let found = self.first("SELECT number, went_back FROM generation", [], |row| {
            Ok((super::unsigned(row, 0)?, row.get(1)?))
        })?;
        Ok(found.unwrap_or_default())
    }

    pub(super) fn next_generation(&self) -> Result<u64> {
        let number = self.first(
            "UPDATE generation SET number = number + 1 RETURNING number",
            [],
            |row| super::unsigned(row, 0),
        )?;
        Ok(number.unwrap_or_default())
    }

    fn note_going_back(&self, outside: u64) -> Result<()> {
        self.execute(
            "UPDATE generation SET number = ?1, went_back = 1",
            [super::signed(outside)],
        )?;
        self.execute("DELETE FROM orphans", [])?;
        Ok(())
    }

    /// A new catalog is no older than the one it replaces.
    pub(super) fn count_on_from(&self, number: u64) -> Result<()> {
        self.execute("UPDATE generation SET number = ?1", [super::signed(number)])?;
        Ok(())
    }

    /// What it did not know was taken in: it may be believed again.
    pub(crate) fn forgive_going_back(&self) -> Result<()> {
        self.execute("UPDATE generation SET went_back = 0", [])?;
        Ok(())
    }
}

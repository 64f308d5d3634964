//! A collector's lease: an object that it writes again and again while it is at work. Two collectors never remove at once, and
//! what one asked to be removed has gone before its lease ends by the place's clock.
//!
//! Whoever wants a lease, or goes on with one, writes his and then reads all: of two that do, one at least reads the other's, and
//! gives up. A collector that was stopped for longer than a lease may find that another one came and ended: then the lists
//! are others than it began with, and it gives up too. A removal begins within a quarter of a lease after that, and is
//! dropped, and not sent again, after another quarter; the rest is for what is on its way.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::rules::{self, Collections};
use super::shelf::{Shelf, new_lease};
use crate::lock::lock;
use crate::words::error::{Error, ErrorKind, Result};

/// A quarter of a lease.
pub(super) const QUARTER: Duration = Duration::from_nanos(rules::LEASE.unsigned_abs() / 4);

/// The right to remove.
pub(super) struct Lease<'a> {
    shelf: Shelf<'a>,
    key: String,
    /// What there was besides when it was taken.
    pub(super) found: Collections,
    /// When it was taken, by the place's clock.
    pub(super) now: i64,
    renewed: Mutex<Instant>,
}

impl<'a> Lease<'a> {
    /// # Errors
    /// `Busy` where another collector is at work.
    pub(super) fn take(shelf: Shelf<'a>) -> Result<Self> {
        let key = new_lease()?;
        let began = Instant::now();
        let found = renew(&shelf, &key).inspect_err(|_| give_up(&shelf, &key))?;
        let now = found.leases.get(&key).copied().unwrap_or_default();
        Ok(Self {
            shelf,
            key,
            found,
            now,
            renewed: Mutex::new(began),
        })
    }

    /// Whatever is removed from now on is removed under this lease.
    pub(super) fn hold(&self) -> Result<()> {
        let mut renewed = lock(&self.renewed);
        if renewed.elapsed() < QUARTER {
            return Ok(());
        }
        let began = Instant::now();
        let found = renew(&self.shelf, &self.key)?;
        if !found.lists.keys().eq(self.found.lists.keys()) {
            return Err(busy(&self.shelf));
        }
        *renewed = began;
        Ok(())
    }

    /// The end of a collection that has removed nothing, so that nobody has to know of it.
    pub(super) fn give_up(&self) {
        give_up(&self.shelf, &self.key);
    }

    /// The end of one that has left other lists than it found: its own lease goes, and those that somebody left.
    pub(super) fn end(self) -> Result<()> {
        for key in self.found.leases.keys() {
            self.shelf.wait(self.shelf.remove(key))?;
        }
        Ok(())
    }
}

fn renew(shelf: &Shelf<'_>, key: &String) -> Result<Collections> {
    shelf.write(key, b"a collector is at work\n".to_vec())?;
    let found = shelf.collections()?;
    match found.is_held_by_another(key) {
        true => Err(busy(shelf)),
        false => Ok(found),
    }
}

fn give_up(shelf: &Shelf<'_>, key: &str) {
    if let Err(error) = shelf.wait(shelf.remove(key)) {
        tracing::debug!(%error, "a lease is left to end by itself");
    }
}

fn busy(shelf: &Shelf<'_>) -> Error {
    let text = format!("another collection of {} is under way", shelf.place());
    Error::new(ErrorKind::Busy, text)
        .with_hint("one that was killed is waited for for five minutes by the clock of the place")
}

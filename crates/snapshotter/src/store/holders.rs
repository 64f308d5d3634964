//! Who has the root open, and what each holds there: which process, with which call, since when.
//!
//! A row of a lease says whose it is and which snapshot it keeps. What the call is and when it began is in the number that the
//! row has anyway, so nothing more is written for it: milliseconds since 1970 above, the verb in the lowest bits. Numbers of a
//! handle only grow, so two of its calls never have one, whatever the clock does. Earlier releases counted from 0, and say
//! neither. Which process it is the kernel knows, by the lock on the lease file; of one in another container it tells nothing.
//! A lease file that is not locked is a dead owner's: what it held is for the next opener to clean up, and not shown.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::time::{Duration, SystemTime};

use super::Store;
use crate::catalog::Leased;
use crate::fs::Stat;
use crate::fs::lock;
use crate::metrics::Operation as Verb;
use crate::words::error::{At, Result};
use crate::words::reference::Reference;

/// What a process holds in a root, or that it has it open and holds nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The process; `None` where the kernel does not tell, as of one in another container.
    pub pid: Option<u32>,
    /// Its command line, as much of it as a line of text has room for.
    pub command: Option<String>,
    /// The call that holds it; `None` for a process that only has the root open, and for earlier releases.
    pub operation: Option<Verb>,
    /// The snapshot that is kept, which a call that is about to make or fetch it calls so too.
    pub reference: Option<Reference>,
    /// When the call began.
    pub since: Option<SystemTime>,
}

/// Bits of a number for the verb.
const VERB: u32 = 6;

/// Bits of a number below its milliseconds.
const BELOW: u32 = 20;

/// The number of a handle's next call; `now` is in nanoseconds since 1970.
pub(super) fn number_after(last: i64, now: i64, verb: Verb) -> i64 {
    let next = (last >> VERB).saturating_add(1);
    let by_clock = (now / 1_000_000) << (BELOW - VERB);
    (next.max(by_clock) << VERB) | (verb as i64 + 1)
}

/// What a number says.
fn said(number: i64) -> (Option<Verb>, Option<SystemTime>) {
    let since = u64::try_from(number >> BELOW).unwrap_or(0);
    if since == 0 {
        return (None, None);
    }
    let verb = usize::try_from(number & ((1 << VERB) - 1)).unwrap_or(0);
    let verb = verb.checked_sub(1).and_then(|at| Verb::ALL.get(at));
    let since = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(since));
    (verb.copied(), since)
}

impl Store {
    /// Everybody who has the root open: first what is held, the oldest first, then who holds nothing. The caller itself is among
    /// them only if it holds something.
    ///
    /// # Errors
    /// The catalog's and the filesystem's.
    pub(crate) fn holders(&self) -> Result<Vec<Holder>> {
        let mut found = Vec::new();
        for leased in self.catalog.read(|txn| txn.leased())? {
            if let Some(pid) = self.process_of(&leased.owner)? {
                found.push(holder(pid, leased));
            }
        }
        found.sort_by_key(|one| (one.since, one.pid));
        let known: HashSet<_> = found.iter().filter_map(|one| one.pid).collect();
        let metadata = Stat::of_file(&self.root.metadata);
        let metadata = metadata.at("examine", self.root.metadata.path())?;
        let mut open = lock::processes(&metadata);
        open.retain(|pid| *pid != std::process::id() && !known.contains(pid));
        found.extend(open.into_iter().map(|pid| Holder {
            pid: Some(pid),
            command: lock::command_line(pid),
            operation: None,
            reference: None,
            since: None,
        }));
        Ok(found)
    }

    /// The process whose owner this is, as far as the kernel tells; `None`: it is dead.
    fn process_of(&self, owner: &str) -> Result<Option<Option<u32>>> {
        let name = OsStr::new(owner);
        let is_held = lock::is_held(&self.root.leases, name);
        if !is_held.at("examine a lease in", self.root.leases.path())? {
            return Ok(None);
        }
        let lease = self.root.leases.stat_if_any(name);
        let lease = lease.at("examine", self.root.leases.path_of(name))?;
        Ok(lease.map(|lease| lock::processes(&lease).into_iter().next()))
    }
}

fn holder(pid: Option<u32>, leased: Leased) -> Holder {
    let (operation, since) = said(leased.operation);
    Holder {
        pid,
        command: pid.and_then(lock::command_line),
        operation,
        reference: Some(leased.reference),
        since,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_grow_whatever_the_clock_does_and_say_verb_and_time() {
        let mut last = 0;
        let millis = |ms: i64| ms * 1_000_000;
        for now in [
            millis(1_790_000_000_000),
            millis(1_790_000_000_000),
            millis(7),
            0,
            -1,
        ] {
            let number = number_after(last, now, Verb::Push);
            assert!(number > last, "{number} after {last}");
            let since = Duration::from_millis(1_790_000_000_000);
            let since = SystemTime::UNIX_EPOCH + since;
            assert_eq!(said(number), (Some(Verb::Push), Some(since)));
            last = number;
        }
        // As earlier releases counted.
        assert_eq!(said(0), (None, None));
        assert_eq!(said(77), (None, None));
    }

    #[test]
    fn every_verb_has_room() {
        assert!(Verb::ALL.len() < (1 << VERB));
    }
}

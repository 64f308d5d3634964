//! Which snapshots go: a pure function of what was measured, so that what may never happen can be tested for every store
//! there could be.
//!
//! Candidates are what nobody pinned, leases or used lately, and whose bytes are somewhere else too, unless only copies
//! were asked for. They are taken least recently used first until enough would come free. A blob comes free with the last
//! snapshot that needs it, so what shares all its blobs with something that stays brings nothing: whatever is not needed
//! for the goal is then put back, most recently used first. No snapshot goes for nothing.

use std::collections::HashMap;

use crate::words::digest::Checksum;

/// What is limited: bytes, in two ways, and inodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    /// Bytes the filesystem would get back.
    pub(super) disk: u64,
    /// Bytes the store would hold less.
    pub(super) stored: u64,
    /// Inodes the filesystem would get back.
    pub(super) inodes: u64,
}

impl Amount {
    pub(super) fn covers(self, goal: Self) -> bool {
        self.short_of(goal).is_zero()
    }

    /// What is missing of `goal`.
    pub(super) fn short_of(self, goal: Self) -> Self {
        goal.each(self, u64::saturating_sub)
    }

    fn plus(self, other: Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    fn minus(self, other: Self) -> Self {
        self.each(other, u64::saturating_sub)
    }

    fn least(self, other: Self) -> Self {
        self.each(other, u64::min)
    }

    fn each(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            disk: of(self.disk, other.disk),
            stored: of(self.stored, other.stored),
            inodes: of(self.inodes, other.inodes),
        }
    }

    fn is_zero(self) -> bool {
        self == Self::default()
    }
}

/// A snapshot, as far as it matters here.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) id: i64,
    /// Nanoseconds since 1970 UTC.
    pub(super) last_accessed_at: i64,
    pub(super) pinned: bool,
    pub(super) leased: bool,
    /// The configured remote has it not, as far as is known.
    pub(super) only_copy: bool,
    /// The blobs it needs.
    pub(super) blobs: Vec<Checksum>,
}

/// A blob, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weight {
    pub(super) frees: Amount,
    /// Snapshots that need it, those included that are no candidates because nobody sees them.
    pub(super) needed_by: usize,
}

/// Everything a choice is made from.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    pub(super) snapshots: Vec<Candidate>,
    pub(super) blobs: HashMap<Checksum, Weight>,
}

/// What is wanted, and what may be given for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) goal: Amount,
    /// Nanoseconds since 1970 UTC: what was used later than this is young.
    pub(super) used_before: i64,
    pub(super) include_unpublished: bool,
}

/// Why a snapshot stays whatever is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Pinned,
    Leased,
    Young,
    OnlyCopy,
}

/// What goes, and what that is good for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// Ids in the order they go.
    pub(super) release: Vec<i64>,
    /// What would come free.
    pub(super) frees: Amount,
    /// The blobs that would.
    pub(super) blobs: u64,
    /// What is missing of the goal all the same.
    pub(super) short: Amount,
}

/// Why a snapshot may not go; `None`: it may.
pub(super) fn refusal(snapshot: &Candidate, rules: &Rules) -> Option<Refusal> {
    if snapshot.pinned {
        return Some(Refusal::Pinned);
    }
    if snapshot.leased {
        return Some(Refusal::Leased);
    }
    // What is said of it has to last: young it is for a while.
    if snapshot.only_copy && !rules.include_unpublished {
        return Some(Refusal::OnlyCopy);
    }
    (snapshot.last_accessed_at > rules.used_before).then_some(Refusal::Young)
}

/// Chooses. The same for the same, in whatever order it is given.
pub(super) fn choose(measured: &Measured, rules: &Rules) -> Choice {
    let mut may_go: Vec<&Candidate> = measured
        .snapshots
        .iter()
        .filter(|snapshot| refusal(snapshot, rules).is_none())
        .collect();
    may_go.sort_unstable_by_key(|snapshot| (snapshot.last_accessed_at, snapshot.id));
    let mut books = Books::new(measured);
    let mut going = Vec::new();
    for snapshot in may_go {
        if books.freed.covers(rules.goal) {
            break;
        }
        books.release(snapshot);
        going.push(snapshot);
    }
    let enough = books.freed.least(rules.goal);
    let mut release = Vec::with_capacity(going.len());
    for snapshot in going.into_iter().rev() {
        if books.is_spared(snapshot, enough) {
            books.keep(snapshot);
        } else {
            release.push(snapshot.id);
        }
    }
    release.reverse();
    Choice {
        release,
        frees: books.freed,
        blobs: books.blobs,
        short: books.freed.short_of(rules.goal),
    }
}

/// Who still needs what, while snapshots go and come back.
struct Books<'m> {
    weights: &'m HashMap<Checksum, Weight>,
    needed_by: HashMap<Checksum, usize>,
    freed: Amount,
    blobs: u64,
}

impl<'m> Books<'m> {
    fn new(measured: &'m Measured) -> Self {
        let needed_by = measured.blobs.iter();
        Self {
            needed_by: needed_by.map(|(id, blob)| (*id, blob.needed_by)).collect(),
            weights: &measured.blobs,
            freed: Amount::default(),
            blobs: 0,
        }
    }

    fn frees(&self, blob: Checksum) -> Amount {
        self.weights
            .get(&blob)
            .map(|blob| blob.frees)
            .unwrap_or_default()
    }

    fn release(&mut self, snapshot: &Candidate) {
        for blob in &snapshot.blobs {
            let Some(left) = self.needed_by.get_mut(blob) else {
                continue;
            };
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.freed = self.freed.plus(self.frees(*blob));
                self.blobs += 1;
            }
        }
    }

    fn keep(&mut self, snapshot: &Candidate) {
        self.freed = self.freed.minus(self.costs(snapshot));
        for blob in &snapshot.blobs {
            if let Some(left) = self.needed_by.get_mut(blob) {
                self.blobs -= u64::from(*left == 0);
                *left += 1;
            }
        }
    }

    /// What would not come free if this one stayed.
    fn costs(&self, snapshot: &Candidate) -> Amount {
        let only_its = |blob: &&Checksum| self.needed_by.get(blob) == Some(&0);
        let costs = snapshot.blobs.iter().filter(only_its);
        costs.fold(Amount::default(), |sum, blob| sum.plus(self.frees(*blob)))
    }

    fn is_spared(&self, snapshot: &Candidate, enough: Amount) -> bool {
        let costs = self.costs(snapshot);
        costs.is_zero() || self.freed.minus(costs).covers(enough)
    }
}

#[cfg(test)]
mod tests;

//! What a collector and a publisher decide, of nothing but what they read: `mod.rs` has the argument, and `tests.rs` runs
//! these very functions in every order that a few of both can come in. All times are the place's clock, in nanoseconds.

use std::collections::BTreeMap;

/// How long a lease counts from when it was last written: whoever holds it removes nothing later, and whatever he asked to be
/// removed before has gone by then. Requests end long before: see `lease.rs`.
pub(super) const LEASE: i64 = 5 * 60 * 1_000_000_000;

/// What there is of collections at a place: keys, and when each was last written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Collections<K: Ord = String> {
    /// Lists of what may go. A key is never used twice.
    pub(super) lists: BTreeMap<K, i64>,
    pub(super) leases: BTreeMap<K, i64>,
}

impl<K: Ord> Collections<K> {
    /// Whether another collector holds a lease, at the time when this one's was written.
    pub(super) fn is_held_by_another(&self, own: &K) -> bool {
        let Some(now) = self.leases.get(own) else {
            return true;
        };
        let others = self.leases.iter().filter(|(key, _)| *key != own);
        others.into_iter().any(|(_, at)| *at >= now - LEASE)
    }

    /// Whether what was asked to be removed before `now` may still go: then, or if nobody knows what time it is.
    pub(super) fn may_still_remove(&self, now: Option<i64>) -> bool {
        let alive = |at: &i64| now.is_none_or(|now| *at >= now - LEASE);
        self.leases.values().any(alive)
    }

    /// Whether nothing was removed since `before` was read, as far as its lists tell. A collection that has removed something
    /// leaves other lists, or its lease.
    pub(super) fn is_as(&self, before: &Self) -> bool {
        self.lists.keys().eq(before.lists.keys()) && self.leases.keys().eq(before.leases.keys())
    }
}

/// Whether a list is old enough to remove what it names.
pub(super) fn is_ripe(written: i64, now: i64, grace: i64) -> bool {
    now.saturating_sub(written) >= grace
}

/// Whether an object goes that no manifest needs, and that a list names which was written then: not if it was sent since.
pub(super) fn may_go(is_needed: bool, listed: Option<i64>, modified: i64) -> bool {
    !is_needed && listed.is_some_and(|written| modified < written)
}

/// What a publisher does whose manifest is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is published.
    Done,
    /// Everything that it names is looked for once more.
    LookAgain,
}

/// `before` was read before anything was looked for, `now` after the manifest was in. `is_doomed`: a list of `now` names
/// something that the manifest does and that was not sent since.
pub(super) fn next<K: Ord>(before: &Collections<K>, now: &Collections<K>, is_doomed: bool) -> Next {
    match now.is_as(before) && !is_doomed {
        true => Next::Done,
        false => Next::LookAgain,
    }
}

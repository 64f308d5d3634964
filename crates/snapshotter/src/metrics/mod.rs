//! What a handle has done since it was opened: counted once a call, when the call ends. The same of all handles of a root there
//! ever were is in the root (`kept.rs`).

mod kept;
mod prometheus;

pub(crate) use kept::Kept;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::words::error::{Error, ErrorKind};

/// What a handle and its clones have done since it was opened, or all that there ever were in a root. Counters only grow.
///
/// [`to_prometheus`](Self::to_prometheus) writes them for a scraper.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Metrics {
    /// Calls, an element an operation, in the order of [`Operation::ALL`].
    pub operations: Vec<OperationMetrics>,
    /// Bytes of data in the files of snapshots that were taken, holes excluded.
    pub captured_bytes: u64,
    /// Bytes of data the store did not have before.
    pub stored_bytes: u64,
    /// Bytes of data in the files that were restored, holes excluded.
    pub restored_bytes: u64,
    /// Bytes that were fetched, packed.
    pub fetched_bytes: u64,
    /// Bytes that were sent, packed.
    pub sent_bytes: u64,
    /// Blobs that a snapshot or a pull needed and the store had. A restore counts none: it asks for what is missing.
    pub blob_hits: u64,
    /// Blobs that a snapshot, pull or restore needed and the store had not, and that were captured or fetched.
    pub blob_misses: u64,
    /// Snapshots that garbage collection released.
    pub evicted_snapshots: u64,
    /// Blobs that went with them.
    pub evicted_blobs: u64,
    /// Bytes of data in these.
    pub evicted_bytes: u64,
    /// Bytes the filesystem got back for them, as it says.
    pub freed_bytes: u64,
    /// Collections that ended with less than was wanted.
    pub gc_shortfalls: u64,
    /// The text of the last collection's error; `None` after one that succeeded.
    pub gc_last_error: Option<String>,
}

/// How often an operation was called, and how long it took.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OperationMetrics {
    /// Which.
    pub operation: Operation,
    /// Calls that succeeded.
    pub succeeded: u64,
    /// Calls that failed, an element a kind that occurred, in the order in which they first did.
    pub failures: Vec<(ErrorKind, u64)>,
    /// How long they took, failed ones too.
    pub latency: Histogram,
    /// When the last one that succeeded ended.
    pub last_succeeded: Option<SystemTime>,
    /// When the last one that failed ended.
    pub last_failed: Option<SystemTime>,
}

/// An operation that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// [`Snapshotter::snapshot`](crate::Snapshotter::snapshot)
    Snapshot,
    /// [`Snapshotter::restore`](crate::Snapshotter::restore)
    Restore,
    /// `Snapshotter::push`
    Push,
    /// `Snapshotter::pull`
    Pull,
    /// [`Snapshotter::convert`](crate::Snapshotter::convert)
    Convert,
    /// [`Snapshotter::remove`](crate::Snapshotter::remove)
    Remove,
    /// [`Snapshotter::verify`](crate::Snapshotter::verify)
    Verify,
    /// [`Snapshotter::gc`](crate::Snapshotter::gc), and each round of the background worker.
    Gc,
    /// [`Snapshotter::prune`](crate::Snapshotter::prune), in the registry too.
    Prune,
    /// [`Snapshotter::tag`](crate::Snapshotter::tag), in the registry too.
    Tag,
    /// [`Snapshotter::changed_pages`](crate::Snapshotter::changed_pages) and
    /// [`Snapshotter::compare_directory`](crate::Snapshotter::compare_directory)
    Diff,
    /// [`Snapshotter::open_snapshot`](crate::Snapshotter::open_snapshot), and what it opened for as long as that is open.
    Read,
}

impl Operation {
    /// All of them. What is written into a root goes by their places, so new ones come last.
    pub const ALL: [Self; 12] = [
        Self::Snapshot,
        Self::Restore,
        Self::Push,
        Self::Pull,
        Self::Convert,
        Self::Remove,
        Self::Verify,
        Self::Gc,
        Self::Prune,
        Self::Tag,
        Self::Diff,
        Self::Read,
    ];

    /// The operation as scripts know it: `snake_case`, stable.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Restore => "restore",
            Self::Push => "push",
            Self::Pull => "pull",
            Self::Convert => "convert",
            Self::Remove => "remove",
            Self::Verify => "verify",
            Self::Gc => "gc",
            Self::Prune => "prune",
            Self::Tag => "tag",
            Self::Diff => "diff",
            Self::Read => "read",
        }
    }
}

/// How many calls took how long.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Histogram {
    /// Calls that took at most [`Histogram::BOUNDS`] and longer than the bound before; the last element has the others.
    pub counts: [u64; Self::BOUNDS.len() + 1],
    /// How long all of them took together.
    pub sum: Duration,
}

impl Histogram {
    /// Upper bounds: from a resume that links files to a fetch of many gigabytes.
    pub const BOUNDS: [Duration; 13] = [
        Duration::from_millis(1),
        Duration::from_millis(5),
        Duration::from_millis(10),
        Duration::from_millis(50),
        Duration::from_millis(100),
        Duration::from_millis(500),
        Duration::from_secs(1),
        Duration::from_secs(5),
        Duration::from_secs(10),
        Duration::from_secs(30),
        Duration::from_secs(60),
        Duration::from_secs(300),
        Duration::from_secs(1800),
    ];

    /// All calls.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn observe(&mut self, took: Duration) {
        let index = Self::BOUNDS.partition_point(|bound| *bound < took);
        self.counts[index] += 1;
        self.sum += took;
    }
}

/// Counts for a handle. One lock, taken once or twice a call.
#[derive(Debug)]
pub(crate) struct Recorder(Mutex<Metrics>);

impl Default for Recorder {
    fn default() -> Self {
        Self(Mutex::new(Metrics::none()))
    }
}

impl Metrics {
    fn none() -> Self {
        let operation = |operation| OperationMetrics {
            operation,
            succeeded: 0,
            failures: Vec::new(),
            latency: Histogram::default(),
            last_succeeded: None,
            last_failed: None,
        };
        Self {
            operations: Operation::ALL.map(operation).into(),
            ..Self::default()
        }
    }
}

impl Recorder {
    pub(crate) fn now(&self) -> Metrics {
        self.lock().clone()
    }

    /// A call is over.
    pub(crate) fn ended(&self, operation: Operation, took: Duration, failure: Option<&Error>) {
        let mut metrics = self.lock();
        if operation == Operation::Gc {
            metrics.gc_last_error = failure.map(ToString::to_string);
        }
        let of = &mut metrics.operations[operation as usize];
        of.latency.observe(took);
        let Some(error) = failure else {
            of.succeeded += 1;
            of.last_succeeded = Some(SystemTime::now());
            return;
        };
        of.last_failed = Some(SystemTime::now());
        let kind = error.kind();
        match of.failures.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += 1,
            None => of.failures.push((kind, 1)),
        }
    }

    /// Counts what a report says.
    pub(crate) fn count(&self, add: impl FnOnce(&mut Metrics)) {
        add(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Metrics> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_where_they_are_looked_for() {
        let metrics = Recorder::default().now();
        for (index, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, index);
            assert_eq!(metrics.operations[index].operation, operation);
        }
    }

    #[test]
    fn a_call_is_in_the_bucket_of_its_time_and_its_failure_under_its_kind() {
        let recorder = Recorder::default();
        let error = Error::invalid("no");
        recorder.ended(Operation::Pull, Duration::from_millis(5), None);
        recorder.ended(Operation::Pull, Duration::from_millis(6), Some(&error));
        recorder.ended(Operation::Pull, Duration::from_secs(9999), Some(&error));
        let metrics = recorder.now();
        let pull = &metrics.operations[Operation::Pull as usize];
        assert_eq!(pull.succeeded, 1);
        assert_eq!(pull.failures, [(ErrorKind::InvalidInput, 2)]);
        let counts = &pull.latency.counts;
        assert_eq!((counts[1], counts[2], counts[13]), (1, 1, 1));
        assert_eq!(pull.latency.count(), 3);
    }
}

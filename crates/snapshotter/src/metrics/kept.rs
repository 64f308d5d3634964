//! Counters in the root, so that a node where every call is a process of its own has totals.
//!
//! They are one page of numbers in one file, `counters`. Whoever ends a call locks the file, adds what was counted since it last
//! did, and writes the page in one piece: a process that is killed then has written all of it or nothing, and nobody's numbers
//! are lost to another's. No transaction is made and nothing is synced: after a power cut the numbers may be older. What cannot
//! be added, because the file is locked or cannot be written, is added with the next call or when the handle is closed. A call does not
//! wait for others; who closes or asks for the totals does, and not for long: one of them may be stopped.
//!
//! Each number has its place for ever. A release that knows fewer keeps the others as they are.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use super::{Metrics, Operation, OperationMetrics};
use crate::fs::Dir;
use crate::fs::hook::step;
use crate::fs::lock;
use crate::lock::lock as locked;
use crate::words::error::{At, ErrorKind, Result};

const NAME: &str = "counters";

/// Numbers of a page, which the kernel writes as one.
const NUMBERS: usize = 512;

type Numbers = [u64; NUMBERS];

/// The first number: what the file is.
const MARK: u64 = u64::from_le_bytes(*b"snapcnt1");

/// Where the operations begin, and how many numbers each has.
const OPERATIONS: usize = 64;
const EACH: usize = 32;

/// Their numbers: calls that succeeded, nanoseconds that all took, when the last one succeeded and failed (in nanoseconds since
/// 1970), the histogram, and failures by kind.
const SUCCEEDED: usize = 0;
const TOOK: usize = 1;
const LAST: [usize; 2] = [2, 3];
const HISTOGRAM: usize = 4;
const FAILURES: usize = 18;

/// Kinds of failures by their places: new ones come last.
const KINDS: [ErrorKind; 11] = [
    ErrorKind::InvalidInput,
    ErrorKind::NotFound,
    ErrorKind::AlreadyExists,
    ErrorKind::Damaged,
    ErrorKind::Unsupported,
    ErrorKind::PermissionDenied,
    ErrorKind::NoSpace,
    ErrorKind::Busy,
    ErrorKind::Unavailable,
    ErrorKind::Cancelled,
    ErrorKind::Internal,
];

/// How often who waits looks again.
const GLANCE: Duration = Duration::from_millis(1);

/// What of a handle's counters is in its root.
#[derive(Debug)]
pub(crate) struct Kept(Mutex<Box<Numbers>>);

impl Default for Kept {
    fn default() -> Self {
        Self(Mutex::new(Box::new([0; NUMBERS])))
    }
}

impl Kept {
    /// How long is waited for others who add, if at all: each takes some microseconds, where it has a core.
    pub(crate) const PATIENCE: Duration = Duration::from_millis(200);

    /// Adds what a handle counted and has not added yet, waiting no longer than this. Best effort.
    pub(crate) fn add(&self, patience: Duration, root: &Dir, counted: &Metrics) {
        let mut kept = locked(&self.0);
        let counted = numbers(counted);
        if *counted == **kept {
            return;
        }
        match change(root, patience, |all| add(all, &counted, &kept)) {
            Ok(()) => *kept = counted,
            Err(error) => tracing::debug!(%error, "counters are added later"),
        }
    }

    /// What all handles of a root have added.
    ///
    /// # Errors
    /// The filesystem's.
    pub(crate) fn all(root: &Dir) -> Result<Metrics> {
        let read = match root.open_file(OsStr::new(NAME)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Box::new([0; NUMBERS])),
            file => file.and_then(|file| read(&file)),
        };
        let numbers = read.at("read", root.path_of(OsStr::new(NAME)))?;
        Ok(metrics(&numbers))
    }
}

fn change(root: &Dir, patience: Duration, change: impl FnOnce(&mut Numbers)) -> io::Result<()> {
    let until = Instant::now() + patience;
    let lock = loop {
        match lock::try_shared_name(root, OsStr::new(NAME), 0o600)? {
            Some(lock) => break lock,
            None if Instant::now() < until => std::thread::sleep(GLANCE),
            None => return Err(io::ErrorKind::WouldBlock.into()),
        }
    };
    let mut numbers = read(lock.file())?;
    change(&mut numbers);
    numbers[0] = MARK;
    let bytes: Vec<u8> = numbers.iter().flat_map(|one| one.to_le_bytes()).collect();
    step("write")?;
    lock.file().write_all_at(&bytes, 0)
}

/// What is no page of counters has none.
fn read(file: &std::fs::File) -> io::Result<Box<Numbers>> {
    let (mut bytes, mut numbers) = ([0; NUMBERS * 8], Box::new([0; NUMBERS]));
    match file.read_exact_at(&mut bytes, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(numbers),
        read => read?,
    }
    let (words, _) = bytes.as_chunks::<8>();
    if u64::from_le_bytes(words[0]) == MARK {
        for (number, word) in numbers.iter_mut().zip(words) {
            *number = u64::from_le_bytes(*word);
        }
    }
    Ok(numbers)
}

/// Adds what was counted since `before`; of times the last one counts.
fn add(all: &mut Numbers, counted: &Numbers, before: &Numbers) {
    for (at, one) in all.iter_mut().enumerate() {
        *one = match is_time(at) {
            true => counted[at].max(*one),
            false => one.saturating_add(counted[at].saturating_sub(before[at])),
        };
    }
}

fn is_time(at: usize) -> bool {
    at >= OPERATIONS && LAST.contains(&((at - OPERATIONS) % EACH))
}

fn numbers(of: &Metrics) -> Box<Numbers> {
    let mut numbers = Box::new([0; NUMBERS]);
    let mut of = of.clone();
    for (number, field) in numbers[1..].iter_mut().zip(counters(&mut of)) {
        *number = *field;
    }
    for one in &of.operations {
        let own = &mut numbers[place(one.operation)..][..EACH];
        own[SUCCEEDED] = one.succeeded;
        own[TOOK] = u64::try_from(one.latency.sum.as_nanos()).unwrap_or(u64::MAX);
        for (at, time) in LAST.into_iter().zip([one.last_succeeded, one.last_failed]) {
            own[at] = time.map_or(0, nanoseconds);
        }
        own[HISTOGRAM..FAILURES].copy_from_slice(&one.latency.counts);
        for (kind, count) in &one.failures {
            if let Some(at) = KINDS.iter().position(|known| known == kind) {
                own[FAILURES + at] = *count;
            }
        }
    }
    numbers
}

fn metrics(numbers: &Numbers) -> Metrics {
    let mut all = Metrics::none();
    for (number, field) in numbers[1..].iter().zip(counters(&mut all)) {
        *field = *number;
    }
    for one in &mut all.operations {
        let own = &numbers[place(one.operation)..][..EACH];
        read_operation(one, own);
    }
    all
}

fn read_operation(one: &mut OperationMetrics, own: &[u64]) {
    one.succeeded = own[SUCCEEDED];
    one.latency.sum = Duration::from_nanos(own[TOOK]);
    [one.last_succeeded, one.last_failed] = LAST.map(|at| time(own[at]));
    one.latency
        .counts
        .copy_from_slice(&own[HISTOGRAM..FAILURES]);
    let failures = KINDS.into_iter().zip(&own[FAILURES..]);
    let there = failures.filter(|(_, count)| **count > 0);
    one.failures = there.map(|(kind, count)| (kind, *count)).collect();
}

/// The counters that are of no operation, by their places: new ones come last.
fn counters(of: &mut Metrics) -> [&mut u64; 12] {
    [
        &mut of.captured_bytes,
        &mut of.stored_bytes,
        &mut of.restored_bytes,
        &mut of.fetched_bytes,
        &mut of.sent_bytes,
        &mut of.blob_hits,
        &mut of.blob_misses,
        &mut of.evicted_snapshots,
        &mut of.evicted_blobs,
        &mut of.evicted_bytes,
        &mut of.freed_bytes,
        &mut of.gc_shortfalls,
    ]
}

const fn place(operation: Operation) -> usize {
    OPERATIONS + EACH * operation as usize
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

fn time(nanoseconds: u64) -> Option<SystemTime> {
    let since = (nanoseconds > 0).then(|| Duration::from_nanos(nanoseconds))?;
    SystemTime::UNIX_EPOCH.checked_add(since)
}

#[cfg(test)]
mod tests {
    use super::super::Recorder;
    use super::*;
    use crate::words::error::Error;

    #[test]
    fn all_has_a_place_of_its_own() {
        let end = Operation::ALL.map(place).into_iter().max().unwrap() + EACH;
        assert!(end <= NUMBERS);
        assert!(FAILURES + KINDS.len() <= EACH);
        let mut none = Metrics::none();
        assert!(counters(&mut none).len() < OPERATIONS);
    }

    #[test]
    fn what_two_handles_count_is_added_up_and_nothing_twice() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Dir::open(temporary.path()).unwrap();
        assert_eq!(Kept::all(&dir).unwrap(), Metrics::none());
        let handles = [(); 2].map(|()| (Recorder::default(), Kept::default()));
        let no = Error::new(ErrorKind::Busy, "no");
        for round in 0..10 {
            for (recorder, kept) in &handles {
                recorder.count(|metrics| metrics.gc_shortfalls += 3);
                let failure = (round % 2 == 1).then_some(&no);
                recorder.ended(Operation::Diff, Duration::from_millis(2), failure);
                kept.add(Kept::PATIENCE, &dir, &recorder.now());
                kept.add(Kept::PATIENCE, &dir, &recorder.now());
            }
        }
        let all = Kept::all(&dir).unwrap();
        let diff = &all.operations[Operation::Diff as usize];
        assert_eq!((all.gc_shortfalls, diff.succeeded), (60, 10));
        assert_eq!(diff.failures, [(ErrorKind::Busy, 10)]);
        assert_eq!(
            (diff.latency.counts[1], diff.latency.sum),
            (20, Duration::from_millis(40))
        );
        let last = handles[1].0.now().operations[Operation::Diff as usize].last_failed;
        assert_eq!(diff.last_failed.map(nanoseconds), last.map(nanoseconds));
    }

    #[test]
    fn what_is_no_page_of_counters_has_none_and_numbers_of_later_releases_stay() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Dir::open(temporary.path()).unwrap();
        let path = temporary.path().join(NAME);
        for odd in [vec![], vec![7; 100], vec![7; 4096]] {
            std::fs::write(&path, odd).unwrap();
            assert_eq!(Kept::all(&dir).unwrap(), Metrics::none());
        }
        let recorder = Recorder::default();
        recorder.count(|metrics| metrics.blob_hits += 1);
        Kept::default().add(Kept::PATIENCE, &dir, &recorder.now());
        let mut page = std::fs::read(&path).unwrap();
        page[4088..].copy_from_slice(&9_u64.to_le_bytes());
        std::fs::write(&path, &page).unwrap();
        Kept::default().add(Kept::PATIENCE, &dir, &recorder.now());
        assert_eq!(Kept::all(&dir).unwrap().blob_hits, 2);
        assert_eq!(std::fs::read(&path).unwrap()[4088..], page[4088..]);
    }

    // While somebody was stopped in the middle of adding, each call took half a second more: these would be minutes. Nothing is
    // lost.
    #[test]
    fn what_cannot_be_added_is_added_later() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Dir::open(temporary.path()).unwrap();
        let (recorder, kept) = (Recorder::default(), Kept::default());
        recorder.count(|metrics| metrics.sent_bytes += 5);
        let held = lock::try_shared_name(&dir, OsStr::new(NAME), 0o600).unwrap();
        for _ in 0..1000 {
            kept.add(Duration::ZERO, &dir, &recorder.now());
        }
        drop(held);
        assert_eq!(Kept::all(&dir).unwrap().sent_bytes, 0);
        recorder.count(|metrics| metrics.sent_bytes += 5);
        kept.add(Kept::PATIENCE, &dir, &recorder.now());
        assert_eq!(Kept::all(&dir).unwrap().sent_bytes, 10);
    }
}

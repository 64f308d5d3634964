//! How many files are worked on at once.
//!
//! A call spreads its files over threads of its own, and a thread works on a file while it holds a permit of a [`Limit`].
//! Nobody waits for another call while holding a permit, so every permit comes free by itself, unless what it is used on is
//! stuck. Therefore [`Limits`] has a limit for transfers and one for each filesystem: an output that takes nothing more
//! keeps the permits of its own filesystem and no others. Waiting for a permit ends when the caller gives up.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::activity::Activity;
use crate::fs::open_files_limit;
use crate::lock::lock;
use crate::pass::for_each;
use crate::words::error::Result;

/// How often a thread that waits looks whether its caller has given up.
pub(crate) const GLANCE: Duration = Duration::from_millis(20);

/// The limits of one kind of call of a handle.
#[derive(Debug)]
pub(crate) struct Limits {
    total: usize,
    /// Files that a thread holds open at once at most.
    files: usize,
    /// Of what comes from other nodes, or goes there.
    pub(crate) transfers: Limit,
    filesystems: Mutex<HashMap<u64, Weak<Limit>>>,
}

impl Limits {
    /// As many as wanted, or as this process may have files open for.
    pub(crate) fn new(wanted: usize) -> Self {
        let (total, files) = fit(wanted, open_files_limit());
        Self {
            total,
            files,
            transfers: Limit::new(total),
            filesystems: Mutex::default(),
        }
    }

    /// How many files one thread may hold open at once.
    pub(crate) fn files(&self) -> usize {
        self.files
    }

    /// Threads that are worth having for `count` files.
    pub(crate) fn threads(&self, count: usize) -> usize {
        self.total.min(count)
    }

    /// The limit of a filesystem, shared by all who use it at the moment.
    pub(crate) fn of_device(&self, device: u64) -> Arc<Limit> {
        let mut filesystems = lock(&self.filesystems);
        if let Some(limit) = filesystems.get(&device).and_then(Weak::upgrade) {
            return limit;
        }
        filesystems.retain(|_, limit| limit.strong_count() > 0);
        let limit = Arc::new(Limit::new(self.total));
        filesystems.insert(device, Arc::downgrade(&limit));
        limit
    }
}

/// Descriptors of a process besides those of threads that work on files: its own, the handle's, and idle connections.
const ALWAYS: u64 = 64;

/// Those of a thread besides the files it works on: a connection to the catalog, directories, what it writes, sockets.
const BESIDES: u64 = 12;

/// Files that a thread holds open at once where there is no need to save.
const FILES: u64 = 64;

/// How many threads, and how many files each may hold open, a limit on open files leaves room for. As many files as one
/// thread may hold are held for all of them together (`restore/early.rs`). One of each there is always: what does not fit
/// then is an error that says so.
fn fit(wanted: usize, open_files: u64) -> (usize, usize) {
    let spare = open_files.saturating_sub(ALWAYS);
    let threads = (spare / (BESIDES + 1)).clamp(1, wanted.max(1) as u64);
    let files = spare.saturating_sub(threads * BESIDES) / (threads + 1);
    (threads as usize, files.clamp(1, FILES) as usize)
}

/// How many files are worked on at once.
#[derive(Debug)]
pub(crate) struct Limit {
    free: Mutex<usize>,
    freed: Condvar,
    total: usize,
}

/// A place under a [`Limit`].
pub(crate) struct Permit<'a>(&'a Limit);

impl Limit {
    pub(crate) fn new(total: usize) -> Self {
        Self {
            free: Mutex::new(total),
            freed: Condvar::new(),
            total,
        }
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// `Cancelled` when the caller gives up first.
    pub(crate) fn permit(&self, activity: &Activity) -> Result<Permit<'_>> {
        let mut free = lock(&self.free);
        while *free == 0 {
            activity.check()?;
            free = wait_a_moment(&self.freed, free);
        }
        *free -= 1;
        Ok(Permit(self))
    }

    /// Calls `work` with every index below `count`, each under a permit. After a failure no further index is started; the
    /// failure with the lowest index is returned.
    pub(crate) fn for_each(
        &self,
        activity: &Activity,
        count: usize,
        work: impl Fn(usize) -> Result<()> + Sync,
    ) -> Result<()> {
        for_each(self.total.min(count), count, |index| {
            let _permit = self.permit(activity)?;
            work(index)
        })
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.freed.notify_one();
    }
}

/// Waits until it is told, or for as long as nobody need know that the caller has given up.
pub(crate) fn wait_a_moment<'a, T>(told: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    let waited = told.wait_timeout(guard, GLANCE);
    waited.unwrap_or_else(PoisonError::into_inner).0
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use crate::words::error::{Error, ErrorKind};

    fn activity() -> (Activity, Arc<AtomicBool>) {
        let cancelled = Arc::new(AtomicBool::new(false));
        (Activity::new(Arc::clone(&cancelled), None), cancelled)
    }

    #[test]
    fn every_index_is_visited_once() {
        let seen: Vec<AtomicUsize> = (0..100).map(|_| AtomicUsize::new(0)).collect();
        let work = |index: usize| {
            seen[index].fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        Limit::new(4)
            .for_each(&activity().0, seen.len(), work)
            .unwrap();
        assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    }

    // A restore held up to 64 files open a thread, whatever the limit on open files was, and failed half-way.
    #[test]
    fn what_is_done_at_once_fits_under_the_limit_on_open_files() {
        assert_eq!(fit(5, 1024), (5, 64));
        assert_eq!(fit(5, u64::MAX), (5, 64));
        assert_eq!(fit(5, 10), (1, 1));
        for open_files in (ALWAYS + 2 * (BESIDES + 1)..2000).step_by(7) {
            for wanted in [1, 5, 1024] {
                let (threads, files) = fit(wanted, open_files);
                let (threads, files) = (threads as u64, files as u64);
                assert!(threads >= 1 && threads <= wanted as u64 && files >= 1);
                let held = ALWAYS + threads * (BESIDES + files);
                assert!(
                    held <= open_files,
                    "{wanted} {open_files}: {threads} {files}"
                );
            }
        }
    }

    #[test]
    fn a_failure_stops_the_rest_and_is_returned() {
        let started = AtomicUsize::new(0);
        let result = Limit::new(1).for_each(&activity().0, 100, |index| {
            started.fetch_add(1, Ordering::Relaxed);
            if index == 3 {
                return Err(Error::invalid("three"));
            }
            Ok(())
        });
        assert_eq!(result.unwrap_err().to_string(), "three");
        assert_eq!(started.load(Ordering::Relaxed), 4);
    }

    /// Waiting for a permit did not look whether the caller had given up: behind a file that took an hour, a call that
    /// nobody wanted any more stayed for the hour.
    #[test]
    fn whoever_gives_up_waits_for_no_permit() {
        let limit = Limit::new(1);
        let (patient, _) = activity();
        let held = limit.permit(&patient).unwrap();
        let (impatient, cancelled) = activity();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| limit.for_each(&impatient, 3, |_| panic!("no permit")));
            cancelled.store(true, Ordering::Relaxed);
            let error = waiting.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Cancelled);
        });
        drop(held);
        drop(limit.permit(&patient).unwrap());
    }

    #[test]
    fn each_filesystem_has_permits_of_its_own_and_who_left_leaves_nothing() {
        let (activity, _) = activity();
        let limits = Limits::new(1);
        {
            let (one, other) = (limits.of_device(1), limits.of_device(2));
            let _held = one.permit(&activity).unwrap();
            drop(other.permit(&activity).unwrap());
            drop(limits.transfers.permit(&activity).unwrap());
            assert!(Arc::ptr_eq(&one, &limits.of_device(1)));
        }
        drop(limits.of_device(3));
        assert_eq!(lock(&limits.filesystems).len(), 1);
    }
}

//! One running call: its cancellation, its observer, the warnings it gathers; and the threads it may use.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::words::error::{Error, Result};
use crate::words::progress::{Event, Observer, Warning, WarningKind};

/// A running call, shared by its threads.
pub(crate) struct Activity {
    cancelled: Arc<AtomicBool>,
    observer: Option<Arc<dyn Observer>>,
    warnings: Arc<Warnings>,
}

/// What a call gathers for its report. Who works for a call on other threads may hold on to it.
#[derive(Debug, Default)]
pub(crate) struct Warnings(Mutex<Vec<Warning>>);

impl Warnings {
    pub(crate) fn warn(&self, kind: WarningKind, path: Option<&Path>, message: impl Into<String>) {
        let warning = Warning {
            kind,
            path: path.map(Path::to_owned),
            message: message.into(),
        };
        tracing::warn!(kind = kind.as_str(), path = ?warning.path, "{}", warning.message);
        self.lock().push(warning);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Warning>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Activity {
    pub(crate) fn new(cancelled: Arc<AtomicBool>, observer: Option<Arc<dyn Observer>>) -> Self {
        Self {
            cancelled,
            observer,
            warnings: Arc::default(),
        }
    }

    /// Fails once the caller has given up.
    pub(crate) fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::cancelled());
        }
        Ok(())
    }

    /// Tells the observer, if there is one.
    pub(crate) fn tell(&self, event: impl FnOnce() -> Event) {
        if let Some(observer) = &self.observer {
            observer.event(&event());
        }
    }

    /// Tells of more bytes and stops a pass when the caller has given up: the error's text does not matter, because
    /// [`Activity::check`] is asked before it is looked at.
    pub(crate) fn advance(&self, bytes: u64) -> io::Result<()> {
        if bytes > 0 {
            self.tell(|| Event::Progressed { bytes });
        }
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(())
    }

    pub(crate) fn warn(&self, kind: WarningKind, path: Option<&Path>, message: impl Into<String>) {
        self.warnings.warn(kind, path, message);
    }

    /// Adds a warning that the log has already.
    pub(crate) fn push(&self, warning: Warning) {
        self.warnings.lock().push(warning);
    }

    /// For those who work for this call.
    #[cfg(feature = "registry")]
    pub(crate) fn warnings(&self) -> &Arc<Warnings> {
        &self.warnings
    }

    /// The warnings so far, in the order of their paths.
    pub(crate) fn into_warnings(self) -> Vec<Warning> {
        let mut warnings = std::mem::take(&mut *self.warnings.lock());
        warnings.sort_by(|a, b| a.path.cmp(&b.path).then(a.message.cmp(&b.message)));
        warnings
    }
}

/// How many files of all calls of a handle are worked on at once.
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
    pub(crate) fn permit(&self) -> Permit<'_> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            free = self
                .freed
                .wait(free)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Permit(self)
    }

    /// Calls `work` with every index below `count`, on as many threads as there are places. After a failure no further
    /// index is started; the failure with the lowest index is returned.
    pub(crate) fn for_each(
        &self,
        count: usize,
        work: impl Fn(usize) -> Result<()> + Sync,
    ) -> Result<()> {
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<(usize, Error)>> = Mutex::new(None);
        let stop = AtomicBool::new(false);
        let run = || {
            while !stop.load(Ordering::Relaxed) {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return;
                }
                let permit = self.permit();
                let result = work(index);
                drop(permit);
                if let Err(error) = result {
                    stop.store(true, Ordering::Relaxed);
                    keep_first(&failed, index, error);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.total.min(count) {
                scope.spawn(run);
            }
            run();
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }
}

fn keep_first(failed: &Mutex<Option<(usize, Error)>>, index: usize, error: Error) {
    let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
    if failed.as_ref().is_none_or(|(first, _)| index < *first) {
        *failed = Some((index, error));
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_is_visited_once() {
        let seen: Vec<AtomicUsize> = (0..100).map(|_| AtomicUsize::new(0)).collect();
        Limit::new(4)
            .for_each(seen.len(), |index| {
                seen[index].fetch_add(1, Ordering::Relaxed);
                Ok(())
            })
            .unwrap();
        assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn a_failure_stops_the_rest_and_is_returned() {
        let started = AtomicUsize::new(0);
        let result = Limit::new(1).for_each(100, |index| {
            started.fetch_add(1, Ordering::Relaxed);
            if index == 3 {
                return Err(Error::invalid("three"));
            }
            Ok(())
        });
        assert_eq!(result.unwrap_err().to_string(), "three");
        assert_eq!(started.load(Ordering::Relaxed), 4);
    }
}

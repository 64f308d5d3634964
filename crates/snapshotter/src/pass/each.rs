//! The same work for many numbers, side by side: the caller's thread takes part, so it is done even where no other can be had.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, Scope};

use super::lanes::Helpers;
use crate::lock::lock;
use crate::words::error::{Error, Result};

/// [`for_each`] on all cores that are free, now or while it goes on: what another call leaves is taken up.
pub(crate) fn on_all_cores(count: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let all = Each::new(count, work);
    std::thread::scope(|scope| {
        all.run(|| {
            let helpers = Helpers::hire(1);
            if helpers.count() > 0 && all.has_more() {
                start(scope, || {
                    let _helpers = helpers;
                    all.run(|| ());
                });
            }
        });
    });
    all.finish()
}

/// Calls `work` with every index below `count`, on so many threads at most, of which the caller's is one. After a failure
/// no further index is started; the failure with the lowest index is returned.
pub(crate) fn for_each(
    threads: usize,
    count: usize,
    work: impl Fn(usize) -> Result<()> + Sync,
) -> Result<()> {
    let all = Each::new(count, work);
    std::thread::scope(|scope| {
        let others = (1..threads).take_while(|_| start(scope, || all.run(|| ())));
        others.for_each(drop);
        all.run(|| ());
    });
    all.finish()
}

/// Two pieces of work at once, for each of which somebody else is waited for. The first one's error comes before the other's.
#[cfg(feature = "registry")]
pub(crate) fn both<A, B: Send>(
    one: impl FnOnce() -> Result<A>,
    other: impl FnOnce() -> Result<B> + Send,
) -> Result<(A, B)> {
    let (waiting, second) = (Mutex::new(Some(other)), Mutex::new(None));
    let take = || {
        let work = lock(&waiting).take();
        if let Some(work) = work {
            let done = work();
            *lock(&second) = Some(done);
        }
    };
    let first = std::thread::scope(|scope| {
        start(scope, take);
        let first = one();
        // Without a thread it is done here.
        take();
        first
    })?;
    match lock(&second).take() {
        Some(second) => Ok((first, second?)),
        // A thread that panics makes the scope panic.
        None => Err(Error::cancelled()),
    }
}

/// Starts a thread. Out of threads: slower, and right.
fn start<'s>(scope: &'s Scope<'s, '_>, run: impl FnOnce() + Send + 's) -> bool {
    let thread = Builder::new().name("snapshotter-file".to_owned());
    thread.spawn_scoped(scope, run).is_ok()
}

/// Indices that threads take one after the other.
struct Each<W> {
    count: usize,
    work: W,
    next: AtomicUsize,
    failed: Mutex<Option<(usize, Error)>>,
    stop: AtomicBool,
}

impl<W: Fn(usize) -> Result<()> + Sync> Each<W> {
    fn new(count: usize, work: W) -> Self {
        Self {
            count,
            work,
            next: AtomicUsize::new(0),
            failed: Mutex::new(None),
            stop: AtomicBool::new(false),
        }
    }

    /// Works until nothing is left, and does this before each index.
    fn run(&self, before: impl Fn()) {
        while !self.stop.load(Ordering::Relaxed) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.count {
                return;
            }
            before();
            if let Err(error) = (self.work)(index) {
                self.stop.store(true, Ordering::Relaxed);
                keep_first(&self.failed, index, error);
            }
        }
    }

    fn has_more(&self) -> bool {
        self.next.load(Ordering::Relaxed) < self.count
    }

    fn finish(self) -> Result<()> {
        let failed = self.failed.into_inner();
        match failed.unwrap_or_else(PoisonError::into_inner) {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }
}

fn keep_first(failed: &Mutex<Option<(usize, Error)>>, index: usize, error: Error) {
    let mut failed = lock(failed);
    if failed.as_ref().is_none_or(|(first, _)| index < *first) {
        *failed = Some((index, error));
    }
}

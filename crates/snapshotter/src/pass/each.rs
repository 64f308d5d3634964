//! The same work for many numbers, side by side: the caller's thread takes part, so it is done even where no other can be had.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::Builder;

use super::lanes::Helpers;
use crate::lock::lock;
use crate::words::error::{Error, Result};

/// [`for_each`] on all cores that are free.
pub(crate) fn on_all_cores(count: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let helpers = Helpers::hire(count.saturating_sub(1));
    for_each(helpers.count() + 1, count, work)
}

/// Calls `work` with every index below `count`, on so many threads at most, of which the caller's is one. After a failure
/// no further index is started; the failure with the lowest index is returned.
pub(crate) fn for_each(
    threads: usize,
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
            if let Err(error) = work(index) {
                stop.store(true, Ordering::Relaxed);
                keep_first(&failed, index, error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            let thread = Builder::new().name("snapshotter-file".to_owned());
            // Out of threads: slower, and right.
            if thread.spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        run();
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

fn keep_first(failed: &Mutex<Option<(usize, Error)>>, index: usize, error: Error) {
    let mut failed = lock(failed);
    if failed.as_ref().is_none_or(|(first, _)| index < *first) {
        *failed = Some((index, error));
    }
}

//! The thread that collects while a handle is open.
//!
//! It holds the store only while it collects, so an idle worker keeps nothing open. What goes wrong in one round, a panic
//! included, is logged and counted, and the next round comes all the same.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{GcReport, GcRequest};
use crate::activity;
use crate::config::Gc;
use crate::lock::lock;
use crate::metrics::{Kept, Operation, Recorder};
use crate::remote::Remote;
use crate::store::Store;
use crate::words::error::{Error, ErrorKind, Result};

/// A running worker. Dropping it stops it and waits for it.
#[derive(Debug)]
pub(crate) struct Worker {
    stop: Arc<Stop>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// How a worker is told to stop, in whatever it is doing.
#[derive(Debug, Default)]
struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
    /// Looked at by the collection that is running.
    cancelled: Arc<AtomicBool>,
}

impl Worker {
    /// Starts one where the configuration wants it; without a thread for it there is none, which is said.
    pub(crate) fn start(
        store: &Arc<Store>,
        remote: Option<Remote>,
        config: Gc,
        (metrics, kept): (Arc<Recorder>, Arc<Kept>),
    ) -> Option<Self> {
        if !config.background || store.is_read_only() {
            return None;
        }
        let stop = Arc::new(Stop::default());
        let work = Work {
            store: Arc::downgrade(store),
            remote,
            config,
            metrics,
            kept,
            stop: Arc::clone(&stop),
        };
        let started = std::thread::Builder::new()
            .name("snapshotter-gc".to_owned())
            .spawn(move || work.run());
        match started {
            Ok(thread) => Some(Self {
                stop,
                thread: Mutex::new(Some(thread)),
            }),
            Err(error) => {
                tracing::warn!(%error, "garbage collection could not be started");
                None
            }
        }
    }

    /// Stops it and waits until it has stopped. Only the first call does.
    pub(crate) fn stop(&self) {
        self.stop.cancelled.store(true, Ordering::Relaxed);
        *lock(&self.stop.stopped) = true;
        self.stop.changed.notify_all();
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            // It has caught its own panics.
            let _ = thread.join();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Work {
    store: Weak<Store>,
    remote: Option<Remote>,
    config: Gc,
    metrics: Arc<Recorder>,
    kept: Arc<Kept>,
    stop: Arc<Stop>,
}

impl Work {
    fn run(&self) {
        while !self.stopped_within(self.config.interval) {
            let Some(store) = self.store.upgrade() else {
                return;
            };
            self.round(&store);
            self.kept
                .add(Duration::ZERO, &store.root.dir, &self.metrics.now());
        }
    }

    fn stopped_within(&self, time: Duration) -> bool {
        let stopped = lock(&self.stop.stopped);
        let waited = self
            .stop
            .changed
            .wait_timeout_while(stopped, time, |stopped| !*stopped)
            .unwrap_or_else(PoisonError::into_inner);
        *waited.0
    }

    fn round(&self, store: &Arc<Store>) {
        let started = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| self.collect(store))).unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Internal,
                "garbage collection panicked",
            ))
        });
        if let Err(error) = &result
            && error.kind() == ErrorKind::Cancelled
        {
            return;
        }
        self.metrics
            .ended(Operation::Gc, started.elapsed(), result.as_ref().err());
        match result {
            Ok(report) => {
                self.metrics.count(|metrics| report.count_in(metrics));
                tell(&report);
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "garbage collection failed, and will try again");
            }
        }
    }

    fn collect(&self, store: &Arc<Store>) -> Result<GcReport> {
        let (request, remote) = (GcRequest::new(), self.remote.as_ref());
        let cancelled = Arc::clone(&self.stop.cancelled);
        activity::run(cancelled, None, |activity| {
            super::run(store, remote, &self.config, &request, activity)
        })
    }
}

fn tell(report: &GcReport) {
    if !report.released.is_empty() {
        tracing::info!(
            snapshots = report.released.len(),
            freed_bytes = report.freed_bytes,
            "garbage collected"
        );
    }
    if let Some(shortfall) = &report.shortfall {
        tracing::warn!(
            disk_bytes = shortfall.missing.disk_bytes,
            store_bytes = shortfall.missing.store_bytes,
            reason = shortfall.reason.as_str(),
            kept = ?report.kept,
            "garbage collection could not free enough"
        );
    }
}

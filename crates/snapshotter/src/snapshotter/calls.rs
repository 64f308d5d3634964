//! The running calls of a handle: who closes waits for them, and who gives one up tells it so.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::thread::{self, ThreadId};

use crate::lock::lock;

/// The threads on which a handle's calls are running.
#[derive(Default)]
pub(super) struct Calls {
    running: Mutex<Vec<ThreadId>>,
    ended: Condvar,
}

/// A running call. It has the store for no longer than this.
pub(super) struct Running<'a>(&'a Calls);

impl Calls {
    pub(super) fn begin(&self) -> Running<'_> {
        lock(&self.running).push(thread::current().id());
        Running(self)
    }

    pub(super) fn has_this_thread(&self) -> bool {
        lock(&self.running).contains(&thread::current().id())
    }

    /// Waits until none is running.
    pub(super) fn wait(&self) {
        let running = lock(&self.running);
        let _none = self
            .ended
            .wait_while(running, |running| !running.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let own = thread::current().id();
        lock(&self.0.running).retain(|thread| *thread != own);
        self.0.ended.notify_all();
    }
}

/// Waits for a call's end, which drops the other side.
pub(super) struct WaitOnDrop(pub(super) mpsc::Receiver<()>);

impl Drop for WaitOnDrop {
    fn drop(&mut self) {
        let _ = self.0.recv();
    }
}

/// Tells a call to stop when its future is dropped; when the call is over, nobody listens any more.
pub(super) struct CancelOnDrop(pub(super) Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

//! What a handle does when nobody waits for it: snapshots are synced one after the other, by one thread that is there
//! while there is something to do.
//!
//! A snapshot whose bytes are nowhere else is synced as soon as can be, and closing waits for that; one whose bytes are
//! elsewhere too is synced if the handle is still open a while later. Until then its blobs' marks stay, and after a reboot
//! they are hashed before their first use.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Store;

/// How long a handle has to live on before it syncs what is elsewhere too.
const IDLE: Duration = Duration::from_secs(5);

/// Snapshots to be synced.
#[derive(Debug, Default)]
pub(super) struct Background {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    now: VecDeque<i64>,
    /// In the order they are due.
    later: VecDeque<(Instant, i64)>,
    /// What is for later is not to begin any more.
    closing: bool,
    thread: Option<JoinHandle<()>>,
    /// Whether the thread will look at the queue again.
    running: bool,
}

impl Background {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next snapshot, when it is due; `None` ends the thread.
    fn next(&self) -> Option<i64> {
        let mut queue = self.lock();
        loop {
            if queue.closing {
                queue.later.clear();
            }
            let now = Instant::now();
            match (queue.now.pop_front(), queue.later.front()) {
                (Some(snapshot), _) => return Some(snapshot),
                (None, None) => {
                    queue.running = false;
                    return None;
                }
                (None, Some(&(due, _))) if due > now => {
                    let waited = self.changed.wait_timeout(queue, due - now);
                    queue = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                (None, Some(_)) => {
                    let due = queue.later.pop_front();
                    return due.map(|(_, snapshot)| snapshot);
                }
            }
        }
    }
}

impl Store {
    /// Makes a snapshot durable in the background; [`Store::close`] waits for it.
    pub(crate) fn sync_later(self: &Arc<Self>, snapshot: i64) {
        self.in_background(|queue| queue.now.push_back(snapshot));
    }

    /// The same when nothing else has been going on for a while, for a snapshot whose bytes are elsewhere too: a handle that
    /// is closed before does not do it.
    pub(crate) fn sync_when_idle(self: &Arc<Self>, snapshot: i64) {
        let due = Instant::now() + IDLE;
        self.in_background(|queue| queue.later.push_back((due, snapshot)));
    }

    fn in_background(self: &Arc<Self>, add: impl FnOnce(&mut Queue)) {
        let mut queue = self.background.lock();
        add(&mut queue);
        self.background.changed.notify_all();
        if queue.running {
            return;
        }
        let store = Arc::clone(self);
        let started = std::thread::Builder::new()
            .name("snapshotter-sync".to_owned())
            .spawn(move || store.work_off());
        match started {
            Ok(thread) => {
                queue.running = true;
                queue.thread = Some(thread);
            }
            // The next one tries again, or closing does it.
            Err(error) => tracing::warn!(%error, "a background sync could not be started"),
        }
    }

    fn work_off(&self) {
        while let Some(snapshot) = self.background.next() {
            self.sync_now(snapshot);
        }
    }

    /// Waits for background work; what is for later does not begin any more.
    pub(crate) fn finish_background(&self) {
        let thread = {
            let mut queue = self.background.lock();
            queue.closing = true;
            queue.thread.take()
        };
        self.background.changed.notify_all();
        let own = std::thread::current().id();
        // The last handle may be dropped by that thread: it cannot wait for itself.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != own) {
            let _ = thread.join();
        }
        // What no thread could be started for.
        if !self.background.lock().running {
            self.work_off();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Each published or fetched snapshot kept a thread of its own asleep for five seconds: hundreds of pulls a second met the
    // limit on threads, and a call that could start none panicked.
    #[test]
    fn many_snapshots_are_synced_by_one_thread_and_closing_does_not_wait_for_the_idle() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("root"), None, Duration::from_secs(5)).unwrap();
        let store = Arc::new(store);
        for snapshot in 0..400 {
            store.sync_when_idle(snapshot);
        }
        let first = store
            .background
            .lock()
            .thread
            .as_ref()
            .map(|one| one.thread().id());
        store.sync_later(400);
        let started = Instant::now();
        {
            let queue = store.background.lock();
            let now = queue.thread.as_ref().map(|one| one.thread().id());
            assert!(first.is_some() && first == now);
            assert_eq!(queue.later.len(), 400);
        }
        store.finish_background();
        assert!(started.elapsed() < IDLE);
        let queue = store.background.lock();
        assert!(queue.now.is_empty() && queue.later.is_empty() && !queue.running);
    }
}

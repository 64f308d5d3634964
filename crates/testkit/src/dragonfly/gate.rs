//! Where a call waits for the test: it arrives, the test sees it there, the test lets it go.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(1);

/// Holds calls until it is opened; its clones are the same gate. One that is never opened is a stall.
#[derive(Debug, Clone)]
pub struct Gate(Arc<(watch::Sender<usize>, watch::Sender<bool>)>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new((watch::Sender::new(0), watch::Sender::new(false))))
    }
}

impl Gate {
    /// Lets all calls go, those here and those to come.
    pub fn open(&self) {
        self.0.1.send_replace(true);
    }

    /// How many calls have arrived so far.
    #[must_use]
    pub fn arrived(&self) -> usize {
        *self.0.0.borrow()
    }

    /// Waits until so many calls have arrived. Blocks the thread: [`Gate::reached`] is for async tests.
    ///
    /// # Panics
    /// When they have not after a minute.
    pub fn wait(&self, calls: usize) {
        let end = Instant::now() + PATIENCE;
        while self.arrived() < calls {
            assert!(Instant::now() < end, "{calls} calls never arrived");
            sleep(INTERVAL);
        }
    }

    /// The same without blocking, for as long as it takes.
    pub async fn reached(&self, calls: usize) {
        let mut arrived = self.0.0.subscribe();
        // The sender lives as long as this gate.
        let _ = arrived.wait_for(|arrived| *arrived >= calls).await;
    }

    pub(super) async fn pass(&self) {
        self.0.0.send_modify(|arrived| *arrived += 1);
        let mut open = self.0.1.subscribe();
        let _ = open.wait_for(|open| *open).await;
    }
}

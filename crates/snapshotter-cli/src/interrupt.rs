//! What ends a call before it is done: SIGINT, SIGTERM and the deadline.
//!
//! The first signal is waited for by whoever runs an operation ([`Interrupt::wait`]), who then drops it and lets it
//! clean up. The second ends the process inside the handler itself, so it works whatever the process is stuck in. The
//! handlers run in the order they were installed: "which", "end if one came before", "one has come".

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use snapshotter::ErrorKind;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::failure::Failure;
use crate::settings::duration_text;

/// What a signal means for the exit code.
const CODE: [(i32, &str, u8); 2] = [(SIGINT, "SIGINT", 130), (SIGTERM, "SIGTERM", 143)];

static PRESSED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From here on even the first signal ends the process: there is nothing left to clean up.
pub fn now_ends_at_once() {
    if let Some(pressed) = PRESSED.get() {
        pressed.store(true, Ordering::SeqCst);
    }
}

/// Signals, and a deadline that begins now. Lives on a Tokio runtime.
pub struct Stop {
    interrupt: Interrupt,
    deadline: Option<(Duration, Instant)>,
}

impl Stop {
    /// Installs the handlers. A deadline that is too far for the clock is none.
    pub fn new(timeout: Option<Duration>) -> io::Result<Self> {
        let deadline = timeout.and_then(|after| Some((after, Instant::now().checked_add(after)?)));
        Ok(Self {
            interrupt: Interrupt::install()?,
            deadline,
        })
    }

    /// Returns when the call should end, with what to say about it.
    pub async fn wait(&mut self) -> Failure {
        let Some((after, deadline)) = self.deadline else {
            return self.signal().await;
        };
        tokio::select! {
            biased;
            failure = self.interrupt.wait() => failure,
            () = tokio::time::sleep_until(deadline) => late(after),
        }
    }

    /// Returns when a signal has come: where the deadline does not matter any more.
    pub async fn signal(&mut self) -> Failure {
        self.interrupt.wait().await
    }
}

fn late(after: Duration) -> Failure {
    let text = format!("no result within {}", duration_text(after));
    Failure::new(ErrorKind::Unavailable, text).with_hint(
        "the call was given up and has cleaned up after itself; --timeout says how long it may take",
    )
}

/// Installed handlers, and the way to wait for them. Lives on a Tokio runtime.
struct Interrupt {
    which: Arc<AtomicUsize>,
    int: Signal,
    term: Signal,
}

impl Interrupt {
    /// Installs the handlers.
    fn install() -> io::Result<Self> {
        let pressed = PRESSED.get_or_init(Arc::default);
        let which = Arc::new(AtomicUsize::new(0));
        for (index, (number, _, code)) in CODE.iter().enumerate() {
            // First, so that no signal is caught and forgotten.
            flag::register_usize(*number, Arc::clone(&which), index + 1)?;
            flag::register_conditional_shutdown(*number, (*code).into(), Arc::clone(pressed))?;
            flag::register(*number, Arc::clone(pressed))?;
        }
        Ok(Self {
            which,
            int: signal(SignalKind::interrupt())?,
            term: signal(SignalKind::terminate())?,
        })
    }

    /// Returns when a signal has come, with what to say about it.
    async fn wait(&mut self) -> Failure {
        loop {
            // One may have come before the streams were there, so the flag is looked at first.
            if let Some(index) = self.which.load(Ordering::SeqCst).checked_sub(1) {
                let (_, name, code) = CODE[index];
                return Failure::interrupted(name, code);
            }
            tokio::select! {
                _ = self.int.recv() => {}
                _ = self.term.recv() => {}
            }
        }
    }
}

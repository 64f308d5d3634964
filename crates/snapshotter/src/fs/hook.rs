//! The counter that lets a test stop the world at the Nth change.
//!
//! Every call that changes a filesystem, and every commit of the catalog, passes [`step`] first. In a normal build it is
//! nothing; with the feature `test-hook` a test arms it to abort, stop (`SIGSTOP`) or fail with `ENOSPC` at the Nth, and
//! so visits every state another process, or the next start, can ever see.

use std::io;

/// What to do at the armed step.
#[cfg(feature = "test-hook")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Die at once, as by `kill -9`.
    Abort,
    /// Stop until somebody sends `SIGCONT`, then go on.
    Stop,
    /// Fail this one call with `ENOSPC`.
    NoSpace,
}

#[cfg(feature = "test-hook")]
mod armed {
    use super::Action;
    use std::io;
    use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

    static COUNT: AtomicU64 = AtomicU64::new(0);
    static AT: AtomicU64 = AtomicU64::new(u64::MAX);
    static ACTION: AtomicU8 = AtomicU8::new(0);

    /// Starts counting from zero and acts when the count reaches `at` (the first call is 1).
    pub fn arm(action: Action, at: u64) {
        ACTION.store(action as u8, Ordering::SeqCst);
        COUNT.store(0, Ordering::SeqCst);
        AT.store(at, Ordering::SeqCst);
    }

    /// How many changes were made since [`arm`].
    pub fn count() -> u64 {
        COUNT.load(Ordering::SeqCst)
    }

    pub(crate) fn step(_name: &'static str) -> io::Result<()> {
        if COUNT.fetch_add(1, Ordering::SeqCst) + 1 != AT.load(Ordering::SeqCst) {
            return Ok(());
        }
        match ACTION.load(Ordering::SeqCst) {
            0 => std::process::abort(),
            1 => stop(),
            _ => return Err(io::Error::from_raw_os_error(libc::ENOSPC)),
        }
        Ok(())
    }

    /// The signal goes to this thread, so that it stops here: one for the process would let it go on for a while.
    #[expect(unsafe_code, reason = "rustix cannot signal a single thread")]
    fn stop() {
        // SAFETY: raise takes a plain integer and touches no memory of ours.
        let raised = unsafe { libc::raise(libc::SIGSTOP) };
        assert_eq!(raised, 0, "a thread may stop itself");
    }
}

#[cfg(feature = "test-hook")]
pub use armed::{arm, count};

/// Counts one change that is about to be made.
pub(crate) fn step(name: &'static str) -> io::Result<()> {
    #[cfg(feature = "test-hook")]
    return armed::step(name);
    #[cfg(not(feature = "test-hook"))]
    {
        let _ = name;
        Ok(())
    }
}

//! The limits of this process, which the library leaves alone.

use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::SIGXFSZ;

/// More files than any setting keeps open at once. Some programs this one starts close all they might have.
const ENOUGH_FILES: u64 = 1 << 18;

/// Has as many files open as may be, and lives on when one would become too large: whoever writes it is told. Best effort:
/// what cannot be had is met later, and named there.
pub fn prepare() {
    share_arenas();
    let limit = getrlimit(Resource::Nofile);
    let most = limit
        .maximum
        .map_or(ENOUGH_FILES, |most| most.min(ENOUGH_FILES));
    if limit.current.is_some_and(|current| current < most) {
        let raised = Rlimit {
            current: Some(most),
            maximum: limit.maximum,
        };
        let _ = setrlimit(Resource::Nofile, raised);
    }
    // A handler, and not "ignore", which programs that this one starts would inherit.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
}

/// Arenas of the allocator. By itself it makes one for each thread, up to eight for each processor, and each keeps what its
/// threads needed at their peaks: a quarter of what a restore of many small files had in memory was free. Threads here
/// seldom allocate at once.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 1;

/// Has threads share few arenas. What cannot be set stays as it is.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "there is no safe way to mallopt")]
fn share_arenas() {
    // SAFETY: it takes two numbers, and no thread but this one is running yet.
    let _set = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
}

#[cfg(not(target_env = "gnu"))]
fn share_arenas() {}

//! The limits of this process, which the library leaves alone.

use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::SIGXFSZ;

/// More files than any setting keeps open at once. Some programs this one starts close all they might have.
const ENOUGH_FILES: u64 = 1 << 18;

/// Has as many files open as may be, and lives on when one would become too large: whoever writes it is told. Best effort:
/// what cannot be had is met later, and named there.
pub fn prepare() {
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

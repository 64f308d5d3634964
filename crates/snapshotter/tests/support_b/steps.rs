//! Visiting every step of a verb: what the tests of the test hook share.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

use super::Handle;
use super::outside::names;

/// A step that never comes.
pub const NEVER: u64 = u64::MAX;

/// Memory, where there is enough of it: thousands of syncs of a busy disk say nothing about interleaving.
pub fn quick_dir() -> TempDir {
    let memory = Path::new("/dev/shm");
    let roomy = rustix::fs::statvfs(memory)
        .is_ok_and(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) > 1 << 30);
    let made = roomy.then(|| TempDir::new_in(memory).ok()).flatten();
    made.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

/// A handle of this process that could not close leaves its lease to the next opener. While another thread is just
/// starting a child, that child holds all this process's locks too, so the next opener may have to come again.
pub fn reap_until_nobody_is_left(root: &Path) {
    for _ in 0..1000 {
        if names(&root.join("leases")).is_empty() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
        Handle::open(root).unwrap().close().unwrap();
    }
}

/// Visits steps 1 to `steps`, two at once, and says which one it was that failed.
pub fn for_each_step(steps: u64, visit: impl Fn(u64) + Sync) {
    assert!(steps > 5, "{steps}");
    let next = AtomicU64::new(1);
    let run = || {
        loop {
            let step = next.fetch_add(1, Ordering::Relaxed);
            if step > steps {
                return;
            }
            let visited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| visit(step)));
            if let Err(panic) = visited {
                next.store(steps + 1, Ordering::Relaxed);
                let text = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .unwrap_or_else(|| "a panic".to_owned());
                panic!("at step {step} of {steps}: {text}");
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(run);
        run();
    });
}

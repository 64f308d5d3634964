//! Opening a file on which somebody else holds a lease.
//!
//! Files are opened with `O_NONBLOCK`, so that a fifo does not hold anybody. For a file under a write lease (a file server
//! takes one when a client caches what it writes) the kernel then says `EAGAIN` and asks the holder to let go, which takes
//! the time that the holder needs, and `/proc/sys/fs/lease-break-time` seconds at most, 45 by default. There is no call that
//! waits for it and can be given up, so the file is tried again, at intervals that cost nothing.

use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;

/// How long a holder is waited for: more than the kernel gives it by default.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two tries.
const INTERVAL: Duration = Duration::from_millis(20);

/// Whether a call is still wanted.
pub(crate) type Wanted<'a> = &'a dyn Fn() -> io::Result<()>;

/// Opens a file, waiting for whoever holds a lease on it.
///
/// # Errors
/// `WouldBlock` when the holder does not let go; what `wanted` says; the operating system's.
pub(super) fn open<T>(
    wanted: Wanted<'_>,
    mut open: impl FnMut() -> Result<T, Errno>,
) -> io::Result<T> {
    let started = Instant::now();
    loop {
        match open() {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if started.elapsed() < PATIENCE => sleep(INTERVAL),
            result => return Ok(result?),
        }
        wanted()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_gives_up_is_not_held_by_a_lease() {
        let gives_up = || Err(io::ErrorKind::Interrupted.into());
        let error = open(&gives_up, || Err::<(), _>(Errno::AGAIN)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    }

    #[test]
    fn other_errors_are_not_waited_for() {
        let error = open(&|| Ok(()), || Err::<(), _>(Errno::NOENT)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}

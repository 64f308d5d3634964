//! Write leases, as a file server takes them on files that its clients cache.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use crate::mount::Skip;

const F_SETSIG: libc::c_int = 10;

/// A write lease: whoever opens the file waits until this is dropped, or until the kernel takes it.
#[derive(Debug)]
pub struct WriteLease(File);

impl WriteLease {
    /// Takes the lease of a file that nobody has open.
    ///
    /// # Errors
    /// If the filesystem has no leases: says why.
    pub fn take(path: &Path) -> Result<Self, Skip> {
        let file = File::open(path).map_err(|error| Skip::new(error.to_string()))?;
        // The signal that would be sent by default ends the process; this one is ignored.
        let taken = fcntl(&file, F_SETSIG, libc::SIGURG)
            .and_then(|_| fcntl(&file, libc::F_SETLEASE, libc::F_WRLCK));
        taken.map_err(|error| Skip::new(format!("a write lease: {error}")))?;
        Ok(Self(file))
    }

    /// Whether somebody wants to open the file, so that the kernel has asked for the lease.
    ///
    /// # Errors
    /// The operating system's.
    pub fn is_asked_for(&self) -> io::Result<bool> {
        Ok(fcntl(&self.0, libc::F_GETLEASE, 0)? != libc::F_WRLCK)
    }
}

#[expect(unsafe_code, reason = "rustix has no leases")]
fn fcntl(file: &File, command: libc::c_int, argument: libc::c_int) -> io::Result<libc::c_int> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the argument is a plain integer.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, argument) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

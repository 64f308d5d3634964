//! Sharing a file's bytes instead of copying them: reflinks, and the check before a hardlink.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::IFlags;

use super::Dir;
use super::hook::step;
use crate::words::placement::LinkMode;

/// Makes `to`, an empty file on the same filesystem, share all blocks of `from` until one is written.
///
/// # Errors
/// `EOPNOTSUPP`, `EXDEV` and the like where the filesystem cannot; [`cannot_share`] knows them.
pub(crate) fn reflink(from: &File, to: &File) -> io::Result<()> {
    step("reflink")?;
    Ok(rustix::fs::ioctl_ficlone(to, from)?)
}

/// Whether an error of a link or reflink means "not between these two", so that the next placement is to be tried.
pub(crate) fn cannot_share(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EXDEV
                | libc::EPERM
                | libc::EACCES
                | libc::EMLINK
                | libc::EOPNOTSUPP
                | libc::ENOTTY
                | libc::EINVAL
                | libc::ENOSYS
                | libc::ETXTBSY
        )
    )
}

/// Files with less data than this are copied even where they could be cloned: a clone first waits for the source to be
/// written to disk, and shares little, in bytes.
const WORTH_CLONING: u64 = 64 << 10;

/// Remembers which devices cannot clone, so that each is asked once.
#[derive(Debug, Default)]
pub(crate) struct Cloning(Mutex<HashSet<u64>>);

impl Cloning {
    /// Whether cloning a file of `bytes` to or from a device is worth a try.
    pub(crate) fn is_worth_it(&self, device: u64, bytes: u64, mode: LinkMode) -> bool {
        let wanted = match mode {
            LinkMode::Copy => false,
            LinkMode::Reflink => true,
            LinkMode::Auto | LinkMode::Hardlink => bytes >= WORTH_CLONING,
        };
        wanted && !self.lock().contains(&device)
    }

    /// Clones; `false`: not between these two.
    pub(crate) fn clone(&self, device: u64, from: &File, to: &File) -> io::Result<bool> {
        match reflink(from, to) {
            Ok(()) => Ok(true),
            Err(error) if cannot_share(&error) => {
                if is_for_good(&error) {
                    self.lock().insert(device);
                }
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the answer is about the filesystems and not about the file.
fn is_for_good(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EXDEV | libc::EOPNOTSUPP | libc::ENOTTY | libc::ENOSYS)
    )
}

/// Whether anybody could write a file through a descriptor or mapping opened before now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writers {
    /// Nobody has it open for writing or mapped writable.
    None,
    /// Somebody has.
    Some,
    /// The kernel would not say: another user's file, or a filesystem without leases.
    Unknown,
}

/// Asks by taking and dropping a read lease, which the kernel grants only when no writer exists (fcntl(2), "Leases").
///
/// A writer that opens the file in between waits for the moment the lease is held. The signal meant for the lease
/// holder is set to one that is ignored by default, because the default one would kill the process.
pub(crate) fn writers(file: &File) -> Writers {
    let taken = set_signal(file).and_then(|()| set_lease(file, libc::F_RDLCK));
    match taken {
        Ok(()) => match set_lease(file, libc::F_UNLCK) {
            Ok(()) => Writers::None,
            Err(_) => Writers::Unknown,
        },
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Writers::Some,
        Err(_) => Writers::Unknown,
    }
}

const F_SETSIG: libc::c_int = 10;

#[expect(unsafe_code, reason = "rustix has no F_SETSIG")]
fn set_signal(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the argument is a plain integer.
    check(unsafe { libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG) })
}

#[expect(unsafe_code, reason = "rustix has no F_SETLEASE")]
fn set_lease(file: &File, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the argument is a plain integer.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Gives a file `len` bytes of disk space without writing them.
pub(crate) fn allocate(file: &File, len: u64) -> io::Result<()> {
    step("allocate")?;
    Ok(rustix::fs::fallocate(
        file,
        rustix::fs::FallocateFlags::empty(),
        0,
        len,
    )?)
}

/// Makes a range of a file a hole.
///
/// # Errors
/// `EOPNOTSUPP` where the filesystem has no holes.
pub(crate) fn punch(file: &File, offset: u64, len: u64) -> io::Result<()> {
    step("punch a hole")?;
    let hole = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    Ok(rustix::fs::fallocate(file, hole, offset, len)?)
}

/// Gives a file of whatever length disk space for `len` bytes, unless it has it.
pub(crate) fn allocate_beyond(file: &File, len: u64) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    if file.metadata()?.blocks() * 512 >= len {
        return Ok(());
    }
    step("allocate")?;
    let keep = rustix::fs::FallocateFlags::KEEP_SIZE;
    Ok(rustix::fs::fallocate(file, keep, 0, len)?)
}

/// Has files that will be made in a directory overwritten where they are, where the filesystem does otherwise (btrfs).
pub(crate) fn overwrite_in_place(dir: &Dir) -> io::Result<()> {
    let flags = rustix::fs::ioctl_getflags(dir)?;
    if !flags.contains(IFlags::NOCOW) {
        step("set flags")?;
        rustix::fs::ioctl_setflags(dir, flags | IFlags::NOCOW)?;
    }
    Ok(())
}

/// Tries whether a file, which is empty before and after, takes so many bytes now.
pub(crate) fn try_to_write(file: &File, bytes: usize) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    file.write_all_at(&vec![1; bytes], 0).and(file.set_len(0))
}

/// Starts writing a range of dirty pages to the disk without waiting, so that a later sync finds little left to do.
#[expect(unsafe_code, reason = "rustix has no sync_file_range")]
pub(crate) fn start_writeback(file: &File, offset: u64, len: u64) {
    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else {
        return;
    };
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the other arguments are plain integers.
    // A failure loses only the head start: the sync that follows reports real errors.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;

    #[test]
    fn a_writer_is_seen_and_its_absence_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "bytes").unwrap();
        let file = File::open(&path).unwrap();
        assert_eq!(writers(&file), Writers::None);
        let writer = OpenOptions::new().write(true).open(&path).unwrap();
        assert_eq!(writers(&file), Writers::Some);
        drop(writer);
        assert_eq!(writers(&file), Writers::None);
    }
}

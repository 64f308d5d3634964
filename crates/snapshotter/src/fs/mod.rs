//! Everything that touches a filesystem, and the only home of `rustix`, `libc` and `unsafe`.
//!
//! Names are always relative to an open [`Dir`], so that a directory renamed or replaced underneath cannot redirect a
//! call; every change passes [`hook::step`]; every error carries its path.

pub(crate) mod ahead;
pub(crate) mod attributes;
pub(crate) mod beneath;
pub(crate) mod counter;
pub(crate) mod dir;
#[cfg(feature = "registry")]
pub(crate) mod durable;
pub(crate) mod end;
#[cfg(feature = "mount")]
pub(crate) mod fuse;
pub mod hook;
pub(crate) mod leased;
pub(crate) mod lock;
pub(crate) mod place;
pub(crate) mod scan;
pub(crate) mod shared;
pub mod small;
pub(crate) mod space;
mod stat;
pub(crate) mod temporary;

pub(crate) use dir::Dir;
pub(crate) use stat::Stat;

use std::io;

/// Sixteen random hexadecimal digits: owners, slots, temporaries and trash are named so.
///
/// # Errors
/// When the operating system gives no random bytes.
pub(crate) fn random_name() -> io::Result<String> {
    Ok(format!("{:016x}", random_u64()?))
}

/// An empty file in memory, for where none can be written.
///
/// # Errors
/// The operating system's.
pub(crate) fn in_memory() -> io::Result<std::fs::File> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    Ok(rustix::fs::memfd_create("snapshotter", flags)?.into())
}

/// A random number.
///
/// # Errors
/// When the operating system gives no random bytes.
pub(crate) fn random_u64() -> io::Result<u64> {
    let mut bytes = [0_u8; 8];
    let mut filled = 0;
    while filled < bytes.len() {
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(u64::from_ne_bytes(bytes))
}

/// Whether a filesystem says that what is on the disk is bad: a sector that cannot be read, or a checksum that is not right.
pub(crate) fn is_bad_medium(error: &io::Error) -> bool {
    #[cfg(target_os = "linux")]
    const BAD: &[i32] = &[libc::EIO, libc::EBADMSG, libc::EUCLEAN, libc::ENODATA];
    #[cfg(not(target_os = "linux"))]
    const BAD: &[i32] = &[libc::EIO, libc::EBADMSG];
    error.raw_os_error().is_some_and(|code| BAD.contains(&code))
}

/// Whether this process may give files to other owners and read every attribute.
pub(crate) fn is_privileged() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user and group new files of this process belong to.
pub(crate) fn own_ids() -> (u32, u32) {
    (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    )
}

/// Files this process may have open.
pub(crate) fn open_files_limit() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .current
        .unwrap_or(u64::MAX)
}

/// The running system's boot: what was written but not synced under another one may be lost.
///
/// # Errors
/// When `/proc` does not tell; callers then treat every unsynced blob as suspect.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

//! Which blocks of a file other files have too: FIEMAP.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// `_IOWR('f', 11, struct fiemap)`.
const FS_IOC_FIEMAP: u64 = 0xC020_660B;
const LAST: u32 = 1;
const SHARED: u32 = 0x2000;
/// Extents that are asked for at once.
const BATCH: usize = 128;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FoundExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    reserved_too: [u32; 3],
}

#[repr(C)]
struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [FoundExtent; BATCH],
}

/// Where on its disk a file has bytes that other files have too. Nothing where the filesystem does not tell.
///
/// # Errors
/// The operating system's.
pub(crate) fn shared(file: &File) -> io::Result<Vec<Range<u64>>> {
    let mut found = Vec::new();
    let mut from = 0;
    loop {
        let map = match ask(file, from) {
            Err(error) if super::place::cannot_share(&error) => return Ok(found),
            map => map?,
        };
        let mapped = usize::try_from(map.mapped).unwrap_or(BATCH).min(BATCH);
        let extents = &map.extents[..mapped];
        let shared = extents.iter().filter(|one| one.flags & SHARED != 0);
        found.extend(shared.map(|one| one.physical..one.physical.saturating_add(one.length)));
        let Some(last) = extents.last().filter(|last| last.flags & LAST == 0) else {
            return Ok(found);
        };
        let next = last.logical.saturating_add(last.length);
        if next <= from {
            return Ok(found);
        }
        from = next;
    }
}

#[expect(unsafe_code, reason = "rustix has no FIEMAP")]
fn ask(file: &File, from: u64) -> io::Result<Box<Fiemap>> {
    let mut map = Box::new(Fiemap {
        start: from,
        length: u64::MAX - from,
        flags: 0,
        mapped: 0,
        count: BATCH as u32,
        reserved: 0,
        extents: [FoundExtent::default(); BATCH],
    });
    let to: *mut Fiemap = &raw mut *map;
    // SAFETY: the structure is the kernel's `struct fiemap` with room for as many extents as it says, and outlives the call.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP as _, to) };
    match answer {
        0 => Ok(map),
        _ => Err(io::Error::last_os_error()),
    }
}

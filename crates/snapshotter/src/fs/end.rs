//! Files whose size is not where they end: those of `/proc` and of many FUSE filesystems say zero, those of `/sys` a page,
//! whatever they hold. A size says where a file ends only on filesystems that keep files. So after a file was opened one byte
//! behind its end is asked for; one that has it, or that ends early while its size and time stay, is read until there is no
//! more.

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::io::Errno;

use super::hook::step;
use crate::words::extent::MAX_SIZE;

/// Read at once, in bytes.
const PART: usize = 256 << 10;

/// Whether reading a file gives bytes after its first `size`. One that can only be read from its beginning may.
pub(crate) fn goes_beyond(file: &File, size: u64) -> io::Result<bool> {
    if size >= MAX_SIZE {
        return Ok(false);
    }
    loop {
        match rustix::io::pread(file, &mut [0_u8], size) {
            Ok(read) => return Ok(read > 0),
            Err(Errno::SPIPE) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Copies all that reading a file gives, which was opened a moment ago, and says how many bytes that were. `progress`
/// hears of them and can stop it.
pub(crate) fn copy_to_end(
    mut from: impl Read,
    mut to: &File,
    progress: &dyn Fn(u64) -> io::Result<()>,
) -> io::Result<u64> {
    let mut part = vec![0; PART];
    let mut total = 0;
    loop {
        let read = match from.read(&mut part) {
            Ok(0) => return Ok(total),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                progress(0)?;
                continue;
            }
            Err(error) => return Err(error),
        };
        step("write")?;
        to.write_all(&part[..read])?;
        total += read as u64;
        progress(read as u64)?;
    }
}

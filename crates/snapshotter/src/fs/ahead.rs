//! Disk space asked for a stretch at a time before the bytes that fill it are written.
//!
//! Where a filesystem reserves space block by block as a file's pages are made (ext4), asking once for many of them makes
//! writing about a quarter cheaper. Elsewhere it gains nothing (XFS) or costs (btrfs, tmpfs), and is left alone. Either
//! way a disk that is too full says so before a long extent is written, not after.

use std::fs::File;
use std::io;

use super::hook::step;
use super::space;
use crate::words::error::ErrorKind;

/// Bytes asked for at once. It bounds what a stream can take that claims more than it brings.
const STRETCH: u64 = 64 << 20;

/// A stretch shorter than this is not worth a call, in bytes.
const WORTH_IT: u64 = 1 << 20;

/// What of one file was asked for. Nothing is ever asked for outside an extent, so nothing has to be given back.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// Up to this offset.
    until: u64,
    /// Whether it helps on this filesystem, once that is known.
    helps: Option<bool>,
}

impl Ahead {
    /// Bytes are to be written from `at` to `end`, the end of their extent.
    ///
    /// # Errors
    /// `StorageFull` and the like: what will be written does not fit. A filesystem that cannot allocate is none.
    pub(crate) fn expect(&mut self, file: &File, at: u64, end: u64) -> io::Result<()> {
        let from = at.max(self.until);
        let is_near = at.saturating_add(WORTH_IT) > self.until;
        if !is_near || end < from.saturating_add(WORTH_IT) {
            return Ok(());
        }
        let helps = *self.helps.get_or_insert_with(|| space::is_ext4(file));
        if !helps {
            return Ok(());
        }
        let until = end.min(from + STRETCH);
        match allocate(file, from, until - from) {
            Err(error) if ErrorKind::of_io(&error) == ErrorKind::NoSpace => return Err(error),
            Err(_) => self.helps = Some(false),
            Ok(()) => self.until = until,
        }
        Ok(())
    }
}

/// The length of the file stays what it is.
fn allocate(file: &File, from: u64, len: u64) -> io::Result<()> {
    step("allocate ahead")?;
    let keep = rustix::fs::FallocateFlags::KEEP_SIZE;
    Ok(rustix::fs::fallocate(file, keep, from, len)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use testkit::mount::{Kind, LoopMount, or_skip};

    use super::*;

    const MIB: u64 = 1 << 20;

    /// Asks piece by piece, as a copy does, and returns what the file has got.
    fn asked(dir: &std::path::Path, start: u64, end: u64) -> u64 {
        let file = tempfile::tempfile_in(dir).unwrap();
        let mut ahead = Ahead::default();
        let mut at = start;
        while at < end {
            ahead.expect(&file, at, end).unwrap();
            at += MIB;
        }
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), 0);
        metadata.blocks() * 512
    }

    #[test]
    fn what_is_asked_for_on_ext4_is_the_extent_and_no_more() {
        let Some(mount) = or_skip(LoopMount::new(Kind::Ext4, 512 * MIB, &[])) else {
            return;
        };
        for (start, end) in [(0, 3 * MIB), (36, 150 * MIB), (5 * MIB, 200 * MIB - 4096)] {
            let got = asked(mount.path(), start, end);
            let len = end - start;
            assert!(got <= len + 8192, "{got} bytes for {len}");
            assert!(got + MIB >= len, "{got} bytes for {len}");
        }
        assert_eq!(asked(mount.path(), 0, MIB - 1), 0, "a short extent");
    }

    #[test]
    fn what_does_not_fit_is_said_before_it_is_written() {
        let Some(mount) = or_skip(LoopMount::new(Kind::Ext4, 32 * MIB, &[])) else {
            return;
        };
        let file = tempfile::tempfile_in(mount.path()).unwrap();
        let error = Ahead::default().expect(&file, 0, 64 * MIB).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn other_filesystems_are_left_alone() {
        let Some(mount) = or_skip(LoopMount::new(Kind::Xfs, 512 * MIB, &[])) else {
            return;
        };
        assert_eq!(asked(mount.path(), 0, 64 * MIB), 0);
    }
}

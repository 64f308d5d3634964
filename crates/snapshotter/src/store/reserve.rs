//! Four preallocated MiB that let the store get out of a full disk: deleting needs room in the database first.
//!
//! A removal may use all of it, because it gives space back. What only records something (a restore's lease) gets slices
//! of the first half, so that resuming works on a full disk and removing still does afterwards. It is filled up again
//! whenever there is room: after a removal, and when a root is opened.

use std::ffi::OsStr;
use std::fs::File;
use std::io;

use super::Store;
use crate::fs::{Stat, place};
use crate::words::error::{At, ErrorKind, Result};

const NAME: &str = "reserve";
const SIZE: u64 = 4 << 20;

/// Enough for the pages that a small transaction writes.
const SLICE: u64 = 256 << 10;

impl Store {
    /// Fills the reserve up. Without room for it the store works all the same.
    pub(crate) fn make_reserve(&self) {
        let filled = self.open_reserve().and_then(|file| {
            if Stat::of_file(&file)?.size < SIZE {
                place::allocate(&file, SIZE)?;
            }
            Ok(())
        });
        if let Err(error) = filled {
            tracing::debug!(%error, "there is no room for the whole reserve");
        }
    }

    fn open_reserve(&self) -> io::Result<File> {
        let name = OsStr::new(NAME);
        match self.root.dir.create_file(name, 0o600) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.root.dir.open_writable(name)
            }
            result => result,
        }
    }

    /// Does what gives space back; on a full disk, once more with the reserve given up.
    pub(crate) fn with_reserve<T>(&self, free: impl Fn() -> Result<T>) -> Result<T> {
        match free() {
            Err(error) if error.kind() == ErrorKind::NoSpace => {
                self.shrink_reserve(0)?;
                let result = free();
                self.make_reserve();
                result
            }
            result => result,
        }
    }

    /// Does what writes a few rows; on a full disk, once more with a slice of the reserve's first half.
    pub(crate) fn with_slice<T>(&self, record: impl Fn() -> Result<T>) -> Result<T> {
        match record() {
            Err(error) if error.kind() == ErrorKind::NoSpace => {
                let path = self.root.dir.path_of(OsStr::new(NAME));
                let size = self
                    .open_reserve()
                    .and_then(|file| Stat::of_file(&file))
                    .at("examine", path)?
                    .size;
                if size < SIZE / 2 + SLICE {
                    return Err(error);
                }
                self.shrink_reserve(size - SLICE)?;
                record()
            }
            result => result,
        }
    }

    fn shrink_reserve(&self, size: u64) -> Result<()> {
        let path = self.root.dir.path_of(OsStr::new(NAME));
        self.open_reserve()
            .and_then(|file| place::shrink(&file, size))
            .at("give up", path)
    }
}

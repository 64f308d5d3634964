//! Four preallocated MiB that let the store get out of a full disk: deleting needs room in the database first.

use std::ffi::OsStr;
use std::io;

use super::Store;
use crate::fs::{dir::ignore_absent, place};
use crate::words::error::{At, ErrorKind, Result};

const NAME: &str = "reserve";
const SIZE: u64 = 4 << 20;

impl Store {
    /// Makes the reserve where it is missing. Without room for it the store works all the same.
    pub(crate) fn make_reserve(&self) {
        let name = OsStr::new(NAME);
        let made = match self.root.dir.create_file(name, 0o600) {
            Ok(file) => place::allocate(&file, SIZE),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = made {
            tracing::debug!(%error, "there is no room for the reserve");
            let _ = self.root.dir.unlink(name);
        }
    }

    /// Does what gives space back; on a full disk, once more with the reserve given up.
    pub(crate) fn with_reserve<T>(&self, free: impl Fn() -> Result<T>) -> Result<T> {
        match free() {
            Err(error) if error.kind() == ErrorKind::NoSpace => {
                ignore_absent(self.root.dir.unlink(OsStr::new(NAME)))
                    .at("give up", self.root.dir.path_of(OsStr::new(NAME)))?;
                let result = free();
                self.make_reserve();
                result
            }
            result => result,
        }
    }
}

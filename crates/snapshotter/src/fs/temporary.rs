//! A file on its way to its final name.
//!
//! It has no name at all until it is complete (`O_TMPFILE`), so a crash leaves nothing; where the filesystem cannot do
//! that, and for the moment in which it replaces another file, it has a temporary one beside the target. Either way the
//! final name goes from what was there to the whole new file in one step, and what was there, perhaps a hardlink into the
//! store, keeps its bytes.
//!
//! Who makes a file under a temporary name holds a lock on the file itself, which goes with the process however it dies:
//! so [`reap`] tells the litter of the dead from the work of the living.

use std::borrow::Borrow;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;

use super::dir::ignore_absent;
use super::{Dir, lock, random_name};

const PREFIX: &str = ".snapshotter-";

/// A file being made in a directory. Dropping it before [`Temporary::publish`] removes it.
#[derive(Debug)]
pub(crate) struct Temporary<D: Borrow<Dir>> {
    dir: D,
    file: File,
    name: Option<OsString>,
}

impl<D: Borrow<Dir>> Temporary<D> {
    /// Makes an empty file, without a name if the filesystem can do that.
    pub(crate) fn create(dir: D, mode: u32) -> io::Result<Self> {
        match dir.borrow().create_unnamed(mode) {
            Ok(file) => Ok(Self::unnamed(dir, file)),
            Err(error) if cannot_be_unnamed(&error) => {
                let (file, name) = create_locked(dir.borrow(), mode)?;
                let name = Some(name);
                Ok(Self { dir, file, name })
            }
            Err(error) => Err(error),
        }
    }

    /// Takes over a file without a name.
    pub(crate) fn unnamed(dir: D, file: File) -> Self {
        let name = None;
        Self { dir, file, name }
    }

    #[cfg(feature = "registry")]
    pub(crate) fn dir(&self) -> &Dir {
        self.dir.borrow()
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its final name, replacing what is there unless `no_clobber`.
    ///
    /// # Errors
    /// `AlreadyExists` with `no_clobber`, where something has the name; the operating system's.
    pub(crate) fn publish(&mut self, target: &OsStr, no_clobber: bool) -> io::Result<()> {
        let dir = self.dir.borrow();
        if self.name.is_none() {
            match dir.link_file(&self.file, target) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !no_clobber => {}
                result => return result,
            }
            lock::claim(&self.file);
            let name = temporary_name()?;
            dir.link_file(&self.file, &name)?;
            self.name = Some(name);
        }
        let Some(name) = &self.name else {
            return Ok(());
        };
        if no_clobber {
            match dir.rename_new(name, dir, target) {
                // Some filesystems only replace. A link never does; dropping takes the temporary name away.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    return dir.link(name, dir, target);
                }
                result => result?,
            }
        } else {
            dir.rename(name, dir, target)?;
        }
        self.name = None;
        Ok(())
    }
}

impl<D: Borrow<Dir>> Drop for Temporary<D> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // An error is already on its way to the caller.
            let _ = self.dir.borrow().unlink(name);
        }
    }
}

fn create_locked(dir: &Dir, mode: u32) -> io::Result<(File, OsString)> {
    loop {
        let name = temporary_name()?;
        let file = dir.create_file(&name, mode)?;
        // A reaper may come between creating and locking; then another name is tried. Where a filesystem has no locks,
        // reapers get none either.
        if lock::claim_named(dir, &name, &file).unwrap_or(true) {
            return Ok((file, name));
        }
    }
}

/// Removes the temporary names of processes that died. Best effort: what cannot be removed now is removed another time,
/// and nobody reads a file of such a name.
#[cfg(feature = "registry")]
pub(crate) fn reap(dir: &Dir) {
    use crate::words::error::At;
    let reaped = dir.for_each_name(|name| {
        if name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            reap_one(dir, name).at("remove", dir.path_of(name))?;
        }
        Ok(())
    });
    if let Err(error) = reaped {
        tracing::debug!(%error, "temporary names of dead processes stay");
    }
}

#[cfg(feature = "registry")]
fn reap_one(dir: &Dir, name: &OsStr) -> io::Result<()> {
    match lock::take_over(dir, name)? {
        Some(_lock) => dir.unlink(name),
        None => Ok(()),
    }
}

/// Puts something made by `make` under a temporary name, then renames it over `target`.
pub(crate) fn replace(
    dir: &Dir,
    target: &OsStr,
    make: impl FnOnce(&OsStr) -> io::Result<()>,
) -> io::Result<()> {
    let name = temporary_name()?;
    make(&name)?;
    let renamed = dir.rename(&name, dir, target);
    // Renaming one name of an inode over another of the same inode does nothing and leaves both.
    if let Err(error) = ignore_absent(dir.unlink(&name)) {
        return renamed.and(Err(error));
    }
    renamed
}

fn temporary_name() -> io::Result<OsString> {
    Ok(format!("{PREFIX}{}", random_name()?).into())
}

/// Whether an error of [`Dir::create_unnamed`] means that the filesystem has no files without names.
pub(crate) fn cannot_be_unnamed(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL | libc::ENOENT)
    )
}

#[cfg(all(test, feature = "registry"))]
mod tests {
    use super::*;

    #[test]
    fn a_dead_writers_file_is_reaped_and_a_living_ones_is_not() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Dir::open(temporary.path()).unwrap();
        std::fs::write(temporary.path().join(".snapshotter-dead"), "half").unwrap();
        let (living, name) = create_locked(&dir, 0o600).unwrap();
        reap(&dir);
        assert_eq!(dir.names().unwrap(), [name]);
        drop(living);
        reap(&dir);
        assert!(dir.names().unwrap().is_empty());
    }
}

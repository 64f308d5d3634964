//! A file on its way to its final name.
//!
//! It has no name at all until it is complete (`O_TMPFILE`), so a crash leaves nothing; where the filesystem cannot do
//! that, it has a temporary one beside the target. Either way the final name goes from what was there to the whole new
//! file in one step, and what was there, perhaps a hardlink into the store, keeps its bytes.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::fs::dir::ignore_absent;
use crate::fs::{Dir, random_name};

/// A file being made in a directory. Dropping it before [`Temporary::publish`] removes it.
pub(super) struct Temporary<'d> {
    dir: &'d Dir,
    file: File,
    name: Option<OsString>,
}

impl<'d> Temporary<'d> {
    /// Makes an empty file. `no_unnamed` remembers that the filesystem cannot do without a name.
    pub(super) fn create(dir: &'d Dir, no_unnamed: &AtomicBool) -> io::Result<Self> {
        if !no_unnamed.load(Ordering::Relaxed) {
            match dir.create_unnamed(0o600) {
                Ok(file) => {
                    let name = None;
                    return Ok(Self { dir, file, name });
                }
                Err(error) if cannot_be_unnamed(&error) => {
                    no_unnamed.store(true, Ordering::Relaxed);
                }
                Err(error) => return Err(error),
            }
        }
        let name = temporary_name()?;
        let file = dir.create_file(&name, 0o600)?;
        let name = Some(name);
        Ok(Self { dir, file, name })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its final name, replacing what is there unless `no_clobber`.
    pub(super) fn publish(mut self, target: &OsStr, no_clobber: bool) -> io::Result<()> {
        let Some(name) = &self.name else {
            return self.publish_unnamed(target, no_clobber);
        };
        if no_clobber {
            self.dir.rename_new(name, self.dir, target)?;
        } else {
            self.dir.rename(name, self.dir, target)?;
        }
        self.name = None;
        Ok(())
    }

    fn publish_unnamed(mut self, target: &OsStr, no_clobber: bool) -> io::Result<()> {
        match self.dir.link_file(&self.file, target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !no_clobber => {}
            result => return result,
        }
        let name = temporary_name()?;
        self.dir.link_file(&self.file, &name)?;
        self.name = Some(name);
        self.publish(target, false)
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // An error is already on its way to the caller.
            let _ = self.dir.unlink(name);
        }
    }
}

/// Puts something made by `make` under a temporary name, then renames it over `target`.
pub(super) fn replace(
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
    Ok(format!(".snapshotter-{}", random_name()?).into())
}

fn cannot_be_unnamed(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL | libc::ENOENT)
    )
}

//! Opening paths so that they stay below a directory, whatever is on disk.
//!
//! One `openat2` with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS` does it where the kernel has it (Linux 5.6; seccomp may
//! hide it). Elsewhere each component is opened relative to the one before with `O_NOFOLLOW`, which reaches the same:
//! no component is `..` (a [`RelPath`] has none) and none is a symlink, also not one swapped in meanwhile.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::leased::Wanted;
use super::{Dir, leased};
use crate::words::error::{At, Result};
use crate::words::relpath::RelPath;

static HAVE_OPENAT2: AtomicBool = AtomicBool::new(true);

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Opens a file below `base` for reading, waiting for whoever holds a lease on it.
pub(crate) fn open_file(base: &Dir, path: &RelPath, wanted: Wanted<'_>) -> io::Result<File> {
    open(base, path, FILE, wanted).map(File::from)
}

/// Opens a directory below `base`.
pub(crate) fn open_dir(base: &Dir, path: &RelPath) -> Result<Dir> {
    try_open_dir(base, path).at("open the directory", base.path().join(path))
}

/// The same, for whoever looks at what went wrong.
pub(crate) fn try_open_dir(base: &Dir, path: &RelPath) -> io::Result<Dir> {
    let fd = open(base, path, DIRECTORY, &|| Ok(()))?;
    Ok(Dir::new(fd, base.path().join(path)))
}

/// Whether an error of opening what was there a moment ago means that it has gone since, or that it, or something on the
/// way to it, is something else by now.
pub(crate) fn has_gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ESTALE | libc::ESRCH | libc::ENOTDIR | libc::ELOOP | libc::ENXIO)
    )
}

/// Whether the kernel, and what is between it and us, has `openat2`.
pub(crate) fn has_openat2(dir: &Dir) -> bool {
    rustix::fs::openat2(dir, ".", DIRECTORY, Mode::empty(), ResolveFlags::BENEATH).is_ok()
}

fn open(base: &Dir, path: &RelPath, flags: OFlags, wanted: Wanted<'_>) -> io::Result<OwnedFd> {
    leased::open(wanted, || {
        if HAVE_OPENAT2.load(Ordering::Relaxed) {
            match open_in_one(base, path, flags) {
                Err(Errno::NOSYS | Errno::PERM) => {}
                result => return result,
            }
            // EPERM is also what some seccomp filters say for an unknown call; the walk below tells which it was.
            HAVE_OPENAT2.store(false, Ordering::Relaxed);
        }
        open_by_component(base, path, flags)
    })
}

fn open_in_one(base: &Dir, path: &RelPath, flags: OFlags) -> Result<OwnedFd, Errno> {
    const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
        .union(ResolveFlags::NO_SYMLINKS)
        .union(ResolveFlags::NO_MAGICLINKS);
    rustix::fs::openat2(base, path.as_bytes(), flags, Mode::empty(), RESOLVE)
}

fn open_by_component(base: &Dir, path: &RelPath, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut parent: Option<OwnedFd> = None;
    let mut components = path.components().peekable();
    while let Some(component) = components.next() {
        let last = components.peek().is_none();
        let flags = if last { flags } else { DIRECTORY } | OFlags::NOFOLLOW;
        let name = OsStr::from_bytes(component);
        let opened = match &parent {
            Some(fd) => rustix::fs::openat(fd, name, flags, Mode::empty())?,
            None => rustix::fs::openat(base, name, flags, Mode::empty())?,
        };
        parent = Some(opened);
    }
    parent.ok_or(Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Open = fn(&Dir, &RelPath, OFlags) -> Result<OwnedFd, Errno>;

    #[test]
    fn both_ways_open_what_is_below_and_refuse_symlinks_anywhere() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "s").unwrap();
        let inside = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(inside.path().join("a/b")).unwrap();
        std::fs::write(inside.path().join("a/b/file"), "f").unwrap();
        std::os::unix::fs::symlink(outside.path(), inside.path().join("a/out")).unwrap();
        std::os::unix::fs::symlink("b/file", inside.path().join("a/link")).unwrap();

        let base = Dir::open(inside.path()).unwrap();
        for open in [open_in_one as Open, open_by_component] {
            let path = |text: &str| RelPath::from_bytes(text).unwrap();
            assert!(open(&base, &path("a/b/file"), FILE).is_ok());
            assert!(open(&base, &path("a/b"), DIRECTORY).is_ok());
            assert!(open(&base, &path("a/out/secret"), FILE).is_err());
            assert!(open(&base, &path("a/link"), FILE).is_err());
            assert!(open(&base, &path("a/out"), DIRECTORY).is_err());
        }
    }
}

//! The lock that says an owner is alive, and the one that says somebody has the store open.
//!
//! `flock` belongs to the open file, so it goes when the last descriptor does: with the process, however it dies, and
//! not before. (`fcntl` locks go when *any* descriptor of the file is closed.) A name can be unlinked and made again
//! between opening and locking, so a lock counts only while the locked inode is still the one at its name.

use std::ffi::OsStr;
use std::fs::File;
use std::io;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::{Dir, Stat};

/// A held lock; dropping it lets go.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Lock {
    /// The locked file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

/// Makes a new lock file and locks it; `None` when a reaper was quicker, so that another name is to be tried.
pub(crate) fn create(dir: &Dir, name: &OsStr) -> io::Result<Option<Lock>> {
    let file = dir.create_file(name, 0o600)?;
    hold(dir, name, file)
}

/// Locks a file somebody else made; `None` while its owner lives, and when it has just been removed.
pub(crate) fn take_over(dir: &Dir, name: &OsStr) -> io::Result<Option<Lock>> {
    match dir.open_file(name) {
        Ok(file) => hold(dir, name, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Shares a directory with all who do the same, which takes no inode and nothing written; `None` while somebody has it for
/// themselves.
pub(crate) fn share(dir: &Dir) -> io::Result<Option<Lock>> {
    lock_dir(dir, FlockOperation::NonBlockingLockShared)
}

/// Has a directory for oneself; `None` while somebody shares it.
pub(crate) fn exclude(dir: &Dir) -> io::Result<Option<Lock>> {
    lock_dir(dir, FlockOperation::NonBlockingLockExclusive)
}

/// On a descriptor of its own: a lock goes with the last one.
fn lock_dir(dir: &Dir, how: FlockOperation) -> io::Result<Option<Lock>> {
    let file = dir.open_file(OsStr::new("."))?;
    match rustix::fs::flock(&file, how) {
        Ok(()) => Ok(Some(Lock { file })),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Locks a file that is never removed, made, with exactly this mode, where it is not there; `None` while somebody else
/// holds it.
#[cfg(feature = "registry")]
pub(crate) fn try_shared_name(dir: &Dir, name: &OsStr, mode: u32) -> io::Result<Option<Lock>> {
    let make = || -> io::Result<File> {
        let file = dir.create_file(name, mode)?;
        super::dir::unmask(&file, mode)?;
        Ok(file)
    };
    // Opened for writing: a network filesystem may do flock by way of fcntl, which wants that.
    let file = match dir.open_writable(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match make() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                dir.open_writable(name)?
            }
            result => result?,
        },
        result => result?,
    };
    hold(dir, name, file)
}

/// Locks a file nobody else can reach yet, where the filesystem has locks; the lock goes with the file.
pub(crate) fn claim(file: &File) {
    let _ = rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive);
}

/// Locks a file that was just made under a name; false when a reaper was quicker. The lock goes with the file.
pub(crate) fn claim_named(dir: &Dir, name: &OsStr, file: &File) -> io::Result<bool> {
    lock_named(dir, name, file)
}

/// The process that holds the lock of this file, where the kernel tells (proc(5), `/proc/locks`).
pub(crate) fn holder(file: &Stat) -> Option<u32> {
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let inode = file.ino.to_string();
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (kind, process, file) = (fields.get(1)?, fields.get(4)?, fields.get(5)?);
        let held = *kind == "FLOCK" && file.rsplit(':').next() == Some(&inode);
        held.then(|| process.parse().ok()).flatten()
    })
}

fn hold(dir: &Dir, name: &OsStr, file: File) -> io::Result<Option<Lock>> {
    Ok(lock_named(dir, name, &file)?.then_some(Lock { file }))
}

fn lock_named(dir: &Dir, name: &OsStr, file: &File) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    let locked = Stat::of_file(file)?;
    let named = dir.stat_if_any(name)?;
    Ok(named.is_some_and(|named| named.identity() == locked.identity()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_lock_cannot_be_taken_and_a_dropped_one_can() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Dir::open(temporary.path()).unwrap();
        let name = OsStr::new("owner");
        let lock = create(&dir, name).unwrap().unwrap();
        assert!(take_over(&dir, name).unwrap().is_none());
        let held = dir.stat(name).unwrap();
        assert_eq!(holder(&held), Some(std::process::id()));
        drop(lock);
        assert_eq!(holder(&held), None);
        assert!(take_over(&dir, name).unwrap().is_some());
        assert!(take_over(&dir, OsStr::new("nobody")).unwrap().is_none());
    }

    #[test]
    fn a_directory_is_shared_by_many_or_ones_own() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Dir::open(temporary.path()).unwrap();
        let (one, other) = (share(&dir).unwrap(), share(&dir).unwrap());
        assert!(one.is_some() && other.is_some());
        drop(one);
        assert!(exclude(&dir).unwrap().is_none());
        drop(other);
        let own = exclude(&dir).unwrap();
        assert!(own.is_some() && share(&dir).unwrap().is_none());
    }

    #[test]
    fn a_lock_on_an_inode_that_lost_its_name_does_not_count() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Dir::open(temporary.path()).unwrap();
        let name = OsStr::new("owner");
        let opened = dir.create_file(name, 0o600).unwrap();
        dir.unlink(name).unwrap();
        assert!(hold(&dir, name, opened).unwrap().is_none());
    }
}

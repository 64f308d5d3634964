//! The lock that says an owner is alive, and the one that says somebody has the store open.
//!
//! `flock` belongs to the open file, so it goes when the last descriptor does: with the process, however it dies, and
//! not before. (`fcntl` locks go when *any* descriptor of the file is closed.) A name can be unlinked and made again
//! between opening and locking, so a lock counts only while the locked inode is still the one at its name.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;

use rustix::fs::{FlockOperation, major, minor};
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

/// Whether somebody holds a lock alone; what is looked at is shared for a moment, and a reaper that comes then tries again later.
pub(crate) fn is_held(dir: &Dir, name: &OsStr) -> io::Result<bool> {
    let file = match dir.open_file(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Who holds a lock of this file, for an error: the process and its command line, where the kernel tells (proc(5)).
pub(crate) fn holder(file: &Stat) -> String {
    let Some(process) = processes(file).into_iter().next() else {
        return "another process".to_owned();
    };
    match command_line(process) {
        Some(line) => format!("process {process} ({line})"),
        None => format!("process {process}"),
    }
}

/// The processes that hold a lock of this file: the one that holds it alone first. Those that the kernel does not tell of,
/// because they are in other containers, are not among them.
pub(crate) fn processes(file: &Stat) -> Vec<u32> {
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    processes_of(&locks, (major(file.dev), minor(file.dev)), file.ino)
}

fn processes_of(locks: &str, (major, minor): (u32, u32), inode: u64) -> Vec<u32> {
    let wanted = format!("{major:02x}:{minor:02x}:{inode}");
    let held = locks.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, kind, _, how, process, file, ..] = fields[..] else {
            return None;
        };
        // Whoever waits for one has an arrow before the kind.
        let is_it = matches!(kind, "FLOCK" | "POSIX") && file == wanted;
        is_it.then(|| Some((how != "WRITE", process.parse().ok()?)))?
    });
    let held: BTreeSet<(bool, u32)> = held.collect();
    held.into_iter().map(|(_, process)| process).collect()
}

/// As much of it as a line of text has room for.
pub(crate) fn command_line(process: u32) -> Option<String> {
    let line = std::fs::read(format!("/proc/{process}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line);
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    let line: String = line.chars().map(shown).take(COMMAND_LINE).collect();
    let line = line.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

/// Characters of a command line that are shown.
const COMMAND_LINE: usize = 200;

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
        let own = format!("process {} (", std::process::id());
        assert!(holder(&held).starts_with(&own), "{}", holder(&held));
        drop(lock);
        assert_eq!(holder(&held), "another process");
        assert!(take_over(&dir, name).unwrap().is_some());
        assert!(take_over(&dir, OsStr::new("nobody")).unwrap().is_none());
    }

    #[test]
    fn of_several_the_one_that_writes_is_the_holder() {
        let locks = "1: POSIX  ADVISORY  READ  11 08:01:77 123 123\n\
            1: -> POSIX  ADVISORY  WRITE 12 08:01:77 120 120\n\
            2: POSIX  ADVISORY  WRITE 13 08:01:77 120 120\n\
            3: FLOCK  ADVISORY  WRITE 14 08:01:78 0 EOF\n";
        assert_eq!(processes_of(locks, (8, 1), 77), [13, 11]);
        assert_eq!(processes_of(locks, (8, 1), 78), [14]);
        assert!(processes_of(locks, (8, 1), 7).is_empty());
        // An inode of the same number on another filesystem.
        assert!(processes_of(locks, (8, 2), 78).is_empty());
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

//! An open directory and the operations on names in it.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, StatxAttributes, StatxFlags, Uid,
};
use rustix::io::Errno;

use super::hook::step;
use super::leased;
pub(crate) use super::stat::Kind;
use super::stat::Stat;
use crate::words::error::{At, Result};

/// An open directory. Names given to its methods are single components.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

impl Dir {
    pub(super) fn new(fd: OwnedFd, path: PathBuf) -> Self {
        Self { fd, path }
    }

    /// Opens a directory the caller named: symlinks in the path are the caller's own and are followed.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let fd = rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())
            .at("open the directory", path)?;
        Ok(Self::new(fd, path.to_owned()))
    }

    /// Makes a directory and its missing parents, then opens it.
    pub(crate) fn create_all(path: &Path, mode: u32) -> Result<Self> {
        match Self::open(path) {
            Err(error) if error.kind() == crate::ErrorKind::NotFound => {}
            result => return result,
        }
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            Self::create_all(parent, mode)?;
        }
        match make_dir(CWD, path.as_os_str(), mode) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(error).at("create the directory", path)
            }
            _ => Self::open(path),
        }
    }

    /// Opens it once more: the same inode, whatever is at its path by now.
    pub(crate) fn reopen(&self) -> Result<Self> {
        let fd = rustix::fs::openat(&self.fd, ".", DIRECTORY, Mode::empty())
            .at("open the directory", &self.path)?;
        Ok(Self::new(fd, self.path.clone()))
    }

    /// Opens a directory the caller named, or, where that is not there, the nearest one above it that is.
    pub(crate) fn nearest(path: &Path) -> Result<Self> {
        match Self::open(path) {
            Err(error) if error.kind() == crate::ErrorKind::NotFound => {}
            result => return result,
        }
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => Self::nearest(parent),
            _ => Self::open(Path::new(".")),
        }
    }

    /// Whether it is one of some directories, or in one however deep.
    pub(crate) fn is_within(&self, is_one: impl Fn(&Stat) -> bool) -> io::Result<bool> {
        let mut at = Stat::of_file(&self.fd)?;
        let mut dir = rustix::fs::openat(&self.fd, ".", DIRECTORY, Mode::empty())?;
        loop {
            if is_one(&at) {
                return Ok(true);
            }
            dir = rustix::fs::openat(&dir, "..", DIRECTORY, Mode::empty())?;
            let above = Stat::of_file(&dir)?;
            if above.identity() == at.identity() {
                return Ok(false);
            }
            at = above;
        }
    }

    /// Which inode it is.
    pub(crate) fn identity(&self) -> Result<(u64, u64)> {
        let stat = Stat::of_file(&self.fd).at("examine", &self.path)?;
        Ok(stat.identity())
    }

    /// The filesystem it is on.
    pub(crate) fn device(&self) -> Result<u64> {
        Ok(self.identity()?.0)
    }

    /// Where it was when it was opened: for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where a name in it is: for messages.
    pub(crate) fn path_of(&self, name: &OsStr) -> PathBuf {
        self.path.join(name)
    }

    /// Opens a directory in this one; a symlink is refused.
    pub(crate) fn open_dir(&self, name: &OsStr) -> Result<Self> {
        let path = self.path_of(name);
        let flags = DIRECTORY | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty())
            .at("open the directory", &path)?;
        Ok(Self::new(fd, path))
    }

    /// Makes a directory in this one if it is not there, then opens it.
    pub(crate) fn ensure_dir(&self, name: &OsStr, mode: u32) -> Result<Self> {
        match make_dir(&self.fd, name, mode) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(error).at("create the directory", self.path_of(name))
            }
            _ => self.open_dir(name),
        }
    }

    /// Makes a directory; says whether it was this call that made it.
    pub(crate) fn make_dir(&self, name: &OsStr, mode: u32) -> io::Result<bool> {
        match make_dir(&self.fd, name, mode) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Opens a file for reading, as [`open_file`](Self::open_file), waiting for whoever holds a lease on it.
    pub(crate) fn open_leased(&self, name: &OsStr, wanted: leased::Wanted<'_>) -> io::Result<File> {
        let open = || rustix::fs::openat(&self.fd, name, READ, Mode::empty());
        leased::open(wanted, open).map(File::from)
    }

    /// Gives a name in it to whoever owns it, where this process may. Best effort: it matters where root works for somebody.
    pub(crate) fn give_to_owner(&self, name: &OsStr) {
        if let Ok(own) = Stat::of_file(&self.fd)
            && (own.uid, own.gid) != super::own_ids()
        {
            let (uid, gid) = (Uid::from_raw(own.uid), Gid::from_raw(own.gid));
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let _ = rustix::fs::chownat(&self.fd, name, Some(uid), Some(gid), flags);
        }
    }

    /// Opens a file for reading; a symlink is refused and a fifo does not block, nor does somebody's lease.
    pub(crate) fn open_file(&self, name: &OsStr) -> io::Result<File> {
        Ok(rustix::fs::openat(&self.fd, name, READ, Mode::empty())?.into())
    }

    /// Opens a file for writing; a symlink is refused.
    pub(crate) fn open_writable(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.fd, name, flags, Mode::empty())?.into())
    }

    /// Creates a file that must not exist yet.
    pub(crate) fn create_file(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        step("create")?;
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(mode))?.into())
    }

    /// Creates a file that has no name yet: a crash leaves nothing of it.
    ///
    /// # Errors
    /// `EOPNOTSUPP` also where such a file could not be given a name afterwards.
    pub(crate) fn create_unnamed(&self, mode: u32) -> io::Result<File> {
        step("create")?;
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, ".", flags, Mode::from_raw_mode(mode))?.into();
        if !can_be_linked(&file) {
            return Err(Errno::OPNOTSUPP.into());
        }
        Ok(file)
    }

    /// Gives an open file (perhaps an unnamed one) a name that must not exist yet: by `/proc`, or, where that is not
    /// mounted, by the descriptor alone, which takes a privilege.
    pub(crate) fn link_file(&self, file: &File, name: &OsStr) -> io::Result<()> {
        step("link")?;
        let (source, flags) = (proc_path(file), AtFlags::SYMLINK_FOLLOW);
        match rustix::fs::linkat(CWD, source, &self.fd, name, flags) {
            Err(Errno::NOENT) => {
                rustix::fs::linkat(file, "", &self.fd, name, AtFlags::EMPTY_PATH)?;
            }
            result => result?,
        }
        Ok(())
    }

    /// Gives a file a second name that must not exist yet; a symlink is not followed.
    pub(crate) fn link(&self, name: &OsStr, to: &Self, to_name: &OsStr) -> io::Result<()> {
        step("link")?;
        rustix::fs::linkat(&self.fd, name, &to.fd, to_name, AtFlags::empty())?;
        Ok(())
    }

    /// Renames, replacing what is there.
    pub(crate) fn rename(&self, name: &OsStr, to: &Self, to_name: &OsStr) -> io::Result<()> {
        step("rename")?;
        rustix::fs::renameat(&self.fd, name, &to.fd, to_name)?;
        Ok(())
    }

    /// Renames unless something is there.
    pub(crate) fn rename_new(&self, name: &OsStr, to: &Self, to_name: &OsStr) -> io::Result<()> {
        step("rename")?;
        rustix::fs::renameat_with(&self.fd, name, &to.fd, to_name, RenameFlags::NOREPLACE)?;
        Ok(())
    }

    /// Removes a name that is not a directory's.
    pub(crate) fn unlink(&self, name: &OsStr) -> io::Result<()> {
        step("unlink")?;
        rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())?;
        Ok(())
    }

    /// Removes an empty directory.
    pub(crate) fn remove_dir(&self, name: &OsStr) -> io::Result<()> {
        step("rmdir")?;
        rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)?;
        Ok(())
    }

    /// Makes a symlink that must not exist yet.
    pub(crate) fn symlink(&self, name: &OsStr, target: &OsStr) -> io::Result<()> {
        step("symlink")?;
        rustix::fs::symlinkat(target, &self.fd, name)?;
        Ok(())
    }

    /// Makes a whiteout that must not exist yet: alone among devices it takes no privilege, from Linux 5.8 on.
    pub(crate) fn whiteout(&self, name: &OsStr, mode: u32) -> io::Result<()> {
        step("mknod")?;
        let mode = Mode::from_raw_mode(mode);
        rustix::fs::mknodat(&self.fd, name, FileType::CharacterDevice, mode, 0)?;
        Ok(())
    }

    /// Where a symlink points.
    pub(crate) fn read_link(&self, name: &OsStr) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(&self.fd, name, Vec::new())?.into_bytes())
    }

    /// What is at a name; a symlink is not followed.
    pub(crate) fn stat(&self, name: &OsStr) -> io::Result<Stat> {
        Ok(Stat::of(&rustix::fs::statat(
            &self.fd,
            name,
            AtFlags::SYMLINK_NOFOLLOW,
        )?))
    }

    /// What is at a name, or `None` where nothing is.
    pub(crate) fn stat_if_any(&self, name: &OsStr) -> io::Result<Option<Stat>> {
        match self.stat(name) {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether something is mounted there; before Linux 5.8, which does not tell, that may be.
    pub(crate) fn is_mount(&self, name: &OsStr) -> io::Result<bool> {
        const ROOT: StatxAttributes = StatxAttributes::MOUNT_ROOT;
        let wanted = StatxFlags::BASIC_STATS;
        let found = rustix::fs::statx(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW, wanted)?;
        Ok(!found.stx_attributes_mask.contains(ROOT) || found.stx_attributes.contains(ROOT))
    }

    /// Calls `each` with every name in it, in the filesystem's order, until it fails.
    pub(crate) fn for_each_name(&self, mut each: impl FnMut(&OsStr) -> Result<()>) -> Result<()> {
        let entries = rustix::fs::Dir::read_from(&self.fd).at("list the directory", &self.path)?;
        for entry in entries {
            let entry = entry.at("list the directory", &self.path)?;
            if let Some(name) = proper_name(entry.file_name()) {
                each(name)?;
            }
        }
        Ok(())
    }

    /// Every name in it, in byte order.
    pub(crate) fn names(&self) -> Result<Vec<std::ffi::OsString>> {
        let mut names = Vec::new();
        self.for_each_name(|name| {
            names.push(name.to_owned());
            Ok(())
        })?;
        names.sort_unstable();
        Ok(names)
    }

    /// Makes the names in it durable.
    pub(crate) fn sync(&self) -> Result<()> {
        step("sync")
            .and_then(|()| Ok(rustix::fs::fsync(&self.fd)?))
            .at("sync the directory", &self.path)
    }

    /// Makes everything on its filesystem durable: waits for everybody's dirty pages.
    pub(crate) fn sync_filesystem(&self) -> Result<()> {
        step("syncfs")
            .and_then(|()| Ok(rustix::fs::syncfs(&self.fd)?))
            .at("sync the filesystem of", &self.path)
    }
}

/// Treats "was not there" as success: somebody else removed it first.
pub(crate) fn ignore_absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Makes a file's bytes and length durable. A read-only descriptor will do.
pub(crate) fn sync_file(file: &File) -> io::Result<()> {
    step("fsync")?;
    Ok(rustix::fs::fsync(file)?)
}

/// Whether `syncfs` tells that something could not be written: since Linux 5.8. Before, it says that all is well. A
/// kernel of which nothing can be found out counts as one of those.
pub(crate) fn syncfs_tells() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
        release.is_ok_and(|release| is_at_least(&release, [5, 8]))
    })
}

/// Compares the first two numbers of a release, `5.10.0-8-amd64` for one.
fn is_at_least(release: &str, least: [u32; 2]) -> bool {
    let numbers = release.split(|c: char| !c.is_ascii_digit());
    let numbers = numbers.map_while(|number| number.parse::<u32>().ok());
    numbers.take(2).ge(least)
}

fn proc_path(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Whether this process can give a file without a name one. Asked with a target that cannot be: the kernel looks for the
/// source first.
fn can_be_linked(file: &File) -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    let ask = || {
        let by_proc = rustix::fs::statat(CWD, proc_path(file), AtFlags::SYMLINK_NOFOLLOW);
        let asked = rustix::fs::linkat(file, "", CWD, ".", AtFlags::EMPTY_PATH);
        by_proc.is_ok() || asked != Err(Errno::NOENT)
    };
    *ANSWER.get_or_init(ask)
}

fn make_dir(at: impl AsFd, name: &OsStr, mode: u32) -> io::Result<()> {
    step("mkdir")?;
    Ok(rustix::fs::mkdirat(at, name, Mode::from_raw_mode(mode))?)
}

/// Gives what was just made the mode that it is to have, of which the process's mask took bits; a directory goes on handing
/// down its group. What is for its owner alone is so already.
pub(crate) fn unmask(made: impl AsFd, mode: u32) -> io::Result<()> {
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let group = Stat::of_file(&made)?.mode & 0o2000;
    step("chmod")?;
    Ok(rustix::fs::fchmod(made, Mode::from_raw_mode(mode | group))?)
}

fn proper_name(name: &CStr) -> Option<&OsStr> {
    let bytes = name.to_bytes();
    (bytes != b"." && bytes != b"..").then(|| OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Any kernel's syncfs was believed, and before 5.8 it succeeds whatever could not be written.
    #[test]
    fn kernels_whose_syncfs_tells_nothing_are_known() {
        for old in [
            "5.7.19",
            "5.4.0-216-generic\n",
            "4.18.0-553.el8.x86_64",
            "3.10",
            "5",
            "",
        ] {
            assert!(!is_at_least(old, [5, 8]), "{old}");
        }
        for new in ["5.8", "5.10.0-35-amd64\n", "6.1.0+", "10.0-rc1"] {
            assert!(is_at_least(new, [5, 8]), "{new}");
        }
    }
}

//! temp → fsync → link or rename → fsync dir: a file that appears whole under its name, and is still there after a power
//! cut, once [`Draft::publish`] has returned.
//!
//! What it is until then, and what a crash leaves, is `temporary.rs`'s.

use std::borrow::Borrow;
use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::Dir;
use super::ahead::Ahead;
use super::dir::{Kind, sync_file, unmask};
use super::hook::step;
use super::place::start_writeback;
use super::temporary::Temporary;
use crate::words::error::{At, Result};

/// Written before the disk is set to work ahead of the sync, in bytes.
const WRITEBACK: u64 = 8 << 20;

/// A file being written. Dropping it before [`Draft::publish`] removes it.
#[derive(Debug)]
pub(crate) struct Draft<D: Borrow<Dir>> {
    file: Temporary<D>,
    /// What it has, and what of it is on its way to the disk, in bytes.
    len: u64,
    started: u64,
    ahead: Ahead,
}

impl<D: Borrow<Dir>> Draft<D> {
    /// Begins a file in the directory it will have its name in, with exactly this mode.
    pub(crate) fn create(dir: D, mode: u32) -> Result<Self> {
        let path = dir.borrow().path().to_owned();
        let file = Temporary::create(dir, mode).at("create a file in", &path)?;
        unmask(file.file(), mode).at("set the mode of a file in", &path)?;
        Ok(Self {
            file,
            len: 0,
            started: 0,
            ahead: Ahead::default(),
        })
    }

    pub(crate) fn dir(&self) -> &Dir {
        self.file.dir()
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Appends to a file that will have `size` bytes.
    pub(crate) fn append(&mut self, bytes: &[u8], size: u64) -> Result<()> {
        let (file, path) = (self.file.file(), self.file.dir().path());
        step("write")
            .and_then(|()| file.write_all_at(bytes, self.len))
            .at("write a file in", path)?;
        self.len += bytes.len() as u64;
        let space = self.ahead.expect(file, self.len, size);
        space.at("write a file in", path)?;
        if self.len - self.started >= WRITEBACK {
            start_writeback(file, self.started, self.len - self.started);
            self.started = self.len;
        }
        Ok(())
    }

    /// Makes the bytes durable, then the name. What has it is replaced, or else kept: then this says `false`.
    pub(crate) fn publish(&mut self, name: &OsStr, replace: bool) -> Result<bool> {
        let path = self.dir().path_of(name);
        sync_file(self.file.file()).at("sync", &path)?;
        match self.file.publish(name, !replace) {
            Err(error) if !replace && error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            named => {
                named.at("give a file the name", path)?;
                self.dir().sync().map(|()| true)
            }
        }
    }
}

/// Writes a whole file: what had the name is replaced in one step.
pub(crate) fn replace(dir: &Dir, name: &OsStr, bytes: &[u8], mode: u32) -> Result<()> {
    let mut draft = Draft::create(dir, mode)?;
    draft.append(bytes, bytes.len() as u64)?;
    draft.publish(name, true).map(drop)
}

/// Opens a directory in another one; makes it, with exactly this mode, where it is not there. Its name is durable either way:
/// another process may have made it just now and not have come to syncing it.
pub(crate) fn ensure_dir(dir: &Dir, name: &OsStr, mode: u32) -> Result<Dir> {
    let path = || dir.path_of(name);
    let is_new = dir
        .make_dir(name, mode)
        .at("create the directory", path())?;
    let inner = dir.open_dir(name)?;
    if is_new {
        unmask(&inner, mode).at("set the mode of", path())?;
    }
    dir.sync()?;
    Ok(inner)
}

/// Whether there is a directory of that name; a symlink is none.
pub(crate) fn is_dir(dir: &Dir, name: &OsStr) -> io::Result<bool> {
    Ok(dir
        .stat_if_any(name)?
        .is_some_and(|stat| stat.kind == Kind::Directory))
}

/// Whether this process may make names in a directory. Nothing is made.
pub(crate) fn may_write(path: &Path) -> io::Result<()> {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    let wanted = Access::WRITE_OK | Access::EXEC_OK;
    Ok(accessat(CWD, path, wanted, AtFlags::EACCESS)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_file_replaces_and_a_dropped_one_leaves_nothing() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Dir::open(temporary.path()).unwrap();
        let name = OsStr::new("a");
        replace(&dir, name, b"one", 0o600).unwrap();
        replace(&dir, name, b"two", 0o600).unwrap();
        let mut draft = Draft::create(&dir, 0o600).unwrap();
        draft.append(b"three", 5).unwrap();
        assert!(!draft.publish(name, false).unwrap());
        drop(draft);
        assert_eq!(dir.names().unwrap(), ["a"]);
        assert_eq!(std::fs::read(temporary.path().join("a")).unwrap(), b"two");
    }
}

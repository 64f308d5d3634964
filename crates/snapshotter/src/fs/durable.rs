//! temp → fsync → link or rename → fsync dir: a file that appears whole under its name, and is still there after a power
//! cut, once [`Draft::publish`] has returned.
//!
//! What it is until then, and what a crash leaves, is `temporary.rs`'s.

use std::borrow::Borrow;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::Path;

use super::Dir;
use super::dir::{Kind, sync_file, unmask};
use super::hook::step;
use super::temporary::Temporary;
use crate::words::error::{At, Result};

/// A file being written. Dropping it before [`Draft::publish`] removes it.
#[derive(Debug)]
pub(crate) struct Draft<D: Borrow<Dir>>(Temporary<D>);

impl<D: Borrow<Dir>> Draft<D> {
    /// Begins a file in the directory it will have its name in, with exactly this mode.
    pub(crate) fn create(dir: D, mode: u32) -> Result<Self> {
        let path = dir.borrow().path().to_owned();
        let temporary = Temporary::create(dir, mode).at("create a file in", &path)?;
        unmask(temporary.file(), mode).at("set the mode of a file in", &path)?;
        Ok(Self(temporary))
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        step("write")
            .and_then(|()| self.0.file().write_all(bytes))
            .at("write a file in", self.0.dir().path())
    }

    /// Makes the bytes durable, then the name, replacing what had it.
    pub(crate) fn publish(mut self, name: &OsStr) -> Result<()> {
        sync_file(self.0.file()).at("sync a file in", self.0.dir().path())?;
        let published = self.0.publish(name, false);
        let dir = self.0.dir();
        published.at("give a file the name", dir.path_of(name))?;
        dir.sync()
    }
}

/// Writes a whole file: what had the name is replaced in one step.
pub(crate) fn replace(dir: &Dir, name: &OsStr, bytes: &[u8], mode: u32) -> Result<()> {
    let mut draft = Draft::create(dir, mode)?;
    draft.write(bytes)?;
    draft.publish(name)
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
        draft.write(b"three").unwrap();
        drop(draft);
        assert_eq!(dir.names().unwrap(), ["a"]);
        assert_eq!(std::fs::read(temporary.path().join("a")).unwrap(), b"two");
    }
}

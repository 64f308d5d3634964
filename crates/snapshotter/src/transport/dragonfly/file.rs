//! Files that a daemon reads or makes, each under a name of its own.
//!
//! The daemon links what it reads into its cache and what it makes out of it: **one inode, and nobody may write it, or
//! change its mode or owner, ever again**. So a file is written before the daemon hears of it, a download gets a fresh
//! name every time, and all that is ever done to such a file is to rename and to unlink it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::daemon::Daemon;
use crate::fs::dir::ignore_absent;
use crate::fs::{Dir, Stat, place};
use crate::threads;
use crate::transport::Source;
use crate::words::error::{At, Error, Result};

/// A name that goes when this is dropped, with whatever has it by then, or nothing.
#[derive(Debug)]
pub(super) struct Named {
    dir: Arc<Dir>,
    name: OsString,
    is_kept: bool,
}

impl Named {
    /// One in the handle's staging.
    pub(super) fn staged(daemon: &Daemon) -> Result<Self> {
        let (dir, name) = daemon.slot()?;
        Ok(Self {
            dir,
            name,
            is_kept: false,
        })
    }

    /// One that is in the directory of `path` and will be renamed to it.
    pub(super) fn beside(path: &Path, daemon: &Daemon) -> Result<Self> {
        let mut beside = Self::at(path)?;
        beside.name.push(format!(".{}", daemon.name()));
        Ok(beside)
    }

    /// One that somebody else makes.
    pub(super) fn at(path: &Path) -> Result<Self> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::invalid("a download needs a name to be made under"));
        };
        Ok(Self {
            dir: Arc::new(Dir::open(parent)?),
            name: name.to_owned(),
            is_kept: false,
        })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.path_of(&self.name)
    }

    pub(super) fn create(&self) -> Result<File> {
        self.dir
            .create_file(&self.name, 0o600)
            .at("create", self.path())
    }

    pub(super) fn open(&self) -> Result<File> {
        self.dir.open_file(&self.name).at("open", self.path())
    }

    pub(super) fn stat_of(&self, file: &File) -> Result<Stat> {
        Stat::of_file(file).at("examine", self.path())
    }

    /// Gives the file its own name, which nothing has.
    pub(super) fn keep_as(mut self, name: &OsStr) -> Result<()> {
        self.dir
            .rename(&self.name, &self.dir, name)
            .at("rename to", self.dir.path_of(name))?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Err(error) = ignore_absent(self.dir.unlink(&self.name)) {
            // The sweep of a later start finds it.
            tracing::debug!(%error, "a file for the daemon stays for now");
        }
    }
}

/// A file being written.
pub(super) struct Written {
    file: File,
    path: PathBuf,
    len: u64,
}

impl Written {
    pub(super) fn new(file: File, path: PathBuf) -> Self {
        Self { file, path, len: 0 }
    }

    pub(super) fn append(mut self, bytes: &[u8]) -> Result<Self> {
        crate::fs::hook::step("write")
            .and_then(|()| self.file.write_all_at(bytes, self.len))
            .at("write", &self.path)?;
        self.len += bytes.len() as u64;
        Ok(self)
    }

    pub(super) async fn append_all(self, bytes: Bytes) -> Result<Self> {
        threads::run(move || self.append(&bytes)).await
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }
}

/// A stream as a file that the daemon can open. It is not synced: nobody reads it after a power cut. What is a file already,
/// which nobody ever writes, gets one more name.
pub(super) async fn stage(daemon: &Arc<Daemon>, source: &Source) -> Result<Named> {
    if let Some(file) = source.whole_file() {
        let named = Named::staged(daemon)?;
        match named.dir.link_file(file, &named.name) {
            Ok(()) => return Ok(named),
            Err(error) if !place::cannot_share(&error) => {
                return Err(error).at("link", named.path());
            }
            Err(_) => {}
        }
    }
    let size = source.size();
    let (named, file) = {
        let daemon = Arc::clone(daemon);
        threads::run(move || {
            let named = Named::staged(&daemon)?;
            let file = named.create()?;
            reserve(&file, size).at("write", named.path())?;
            Ok((named, file))
        })
        .await?
    };
    let mut written = Written::new(file, named.path());
    let mut pieces = source.begin().await?;
    while pieces.left() > 0 {
        let bytes = pieces.next(u64::MAX).await?;
        written = written.append_all(bytes).await?;
    }
    pieces.finish().await?;
    Ok(named)
}

/// Finds out that the disk is full before the stream is read. Where space cannot be reserved, writing finds out.
fn reserve(file: &File, size: u64) -> std::io::Result<()> {
    match place::allocate(file, size) {
        Err(error) if size > 0 && error.kind() == std::io::ErrorKind::StorageFull => Err(error),
        _ => Ok(()),
    }
}

//! A mounted snapshot: its inodes, and the files that are open.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use fuser::{Errno, FileHandle, INodeNo, ReplyDirectory};

use super::tree::{Kind, Node, Tree};
use crate::fs::fuse::{SEEK_DATA, SEEK_HOLE};
use crate::opened::{Opened, Reader};
use crate::words::error::{ErrorKind, Result};

/// A snapshot that is served.
pub(super) struct Served {
    opened: Opened,
    pub(super) tree: Tree,
    readers: RwLock<HashMap<u64, Arc<Reader>>>,
    next: AtomicU64,
}

impl Served {
    pub(super) fn new(opened: Opened) -> Self {
        Self {
            tree: Tree::new(&opened),
            opened,
            readers: RwLock::default(),
            next: AtomicU64::new(1),
        }
    }

    /// An inode.
    pub(super) fn node(&self, number: INodeNo) -> Result<&Node, Errno> {
        self.tree.get(number).ok_or(Errno::ENOENT)
    }

    /// Opens a file, which is read by its handle from then on.
    pub(super) fn open_file(&self, number: INodeNo) -> Result<FileHandle, Errno> {
        let Kind::File(path) = &self.node(number)?.kind else {
            return Err(Errno::EISDIR);
        };
        let reader = self.opened.reader(path).map_err(|error| {
            let cause = std::error::Error::source(&error);
            tracing::error!(path = %path.display(), %error, cause, "a file of a mounted snapshot cannot be opened");
            match error.kind() {
                ErrorKind::NoSpace => Errno::ENOSPC,
                _ => Errno::EIO,
            }
        })?;
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        let mut readers = self.readers.write().unwrap_or_else(PoisonError::into_inner);
        readers.insert(handle, Arc::new(reader));
        Ok(FileHandle(handle))
    }

    /// Closes a file.
    pub(super) fn close(&self, handle: FileHandle) {
        let mut readers = self.readers.write().unwrap_or_else(PoisonError::into_inner);
        let closed = readers.remove(&handle.0);
        drop(readers);
        // It may be the last that keeps a file, and nobody need wait for that.
        drop(closed);
    }

    /// An open file.
    pub(super) fn reader(&self, handle: FileHandle) -> Result<Arc<Reader>, Errno> {
        let readers = self.readers.read().unwrap_or_else(PoisonError::into_inner);
        readers.get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    /// Where the next data or hole is, from a place on.
    pub(super) fn seek(&self, handle: FileHandle, offset: i64, whence: i32) -> Result<i64, Errno> {
        let reader = self.reader(handle)?;
        let size = reader.details().size;
        let offset = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
        if offset >= size {
            return Err(Errno::ENXIO);
        }
        let extents = reader.extents().map_err(|_| Errno::EIO)?;
        let next = extents.partition_point(|range| range.end <= offset);
        let next = extents.get(next);
        let found = match (whence, next) {
            (SEEK_DATA, Some(data)) => data.start.max(offset),
            (SEEK_DATA, None) => return Err(Errno::ENXIO),
            (SEEK_HOLE, Some(data)) if data.start <= offset => data.end,
            (SEEK_HOLE, _) => offset,
            _ => return Err(Errno::EINVAL),
        };
        i64::try_from(found).map_err(|_| Errno::EOVERFLOW)
    }

    /// Lists names of a directory, after so many of them, for as long as there is room.
    pub(super) fn list(
        &self,
        number: INodeNo,
        offset: u64,
        reply: &mut ReplyDirectory,
    ) -> Result<(), Errno> {
        let Kind::Directory { parent, names } = &self.node(number)?.kind else {
            return Err(Errno::ENOTDIR);
        };
        let own = [(OsStr::new("."), number), (OsStr::new(".."), *parent)];
        let names = names.iter().map(|(name, at)| (name.as_os_str(), *at));
        let all = (1..).zip(own.into_iter().chain(names));
        for (after, (name, at)) in all.skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            let kind = self.node(at)?.attributes.kind;
            if reply.add(at, after, kind, name) {
                break;
            }
        }
        Ok(())
    }

    /// An extended attribute.
    pub(super) fn xattr(&self, number: INodeNo, name: &OsStr) -> Result<&[u8], Errno> {
        let xattrs = &self.node(number)?.xattrs;
        let value = name.to_str().and_then(|name| xattrs.get(name));
        value.map(Vec::as_slice).ok_or(Errno::NO_XATTR)
    }

    /// The names of all of them, each with a zero at its end.
    pub(super) fn xattr_names(&self, number: INodeNo) -> Result<Vec<u8>, Errno> {
        let names = self.node(number)?.xattrs.keys();
        Ok(names.flat_map(|name| name.bytes().chain([0])).collect())
    }
}

//! Content in a directory: `<root>/xxh3/<hex>`, for a disk or a network filesystem that nodes share.
//!
//! An object gets its name when it is complete and synced: it is written without a name (`O_TMPFILE`), or under a
//! temporary one where the filesystem cannot do that, then named, then the directory is synced. So a crash leaves the
//! old state or the new one, and at worst a file `.snapshotter-…` that nobody takes for an object; the next process that
//! sends something removes it.
//!
//! File calls run on blocking threads; a future that is dropped stops after the piece under way.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::budget::{self, Budget};
use super::files::{PIECE, read_into};
use super::source::Source;
use super::{Call, ContentTransport, Existing, Pieces, Published};
use super::{absent, other_size, wanted};
use crate::fs::Dir;
use crate::fs::ahead::Ahead;
use crate::fs::dir::{sync_file, unmask};
use crate::fs::durable::ensure_dir;
use crate::fs::hook::step;
use crate::fs::place::start_writeback;
use crate::fs::temporary::{Temporary, cannot_be_unnamed, reap};
use crate::pass::buffers::Buffers;
use crate::threads;
use crate::words::digest::Digest;
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::sharing::SharedWith;

/// Written before the disk is set to work ahead of the sync, in bytes.
const WRITEBACK: u64 = 8 << 20;

const OBJECTS: &str = "xxh3";

/// Objects in a directory.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    shared_with: SharedWith,
    budget: Budget,
    buffers: Buffers,
    reaped: AtomicBool,
}

impl Directory {
    pub(super) fn open(root: &Path, shared_with: SharedWith) -> Self {
        Self {
            root: root.to_owned(),
            shared_with,
            budget: Budget::new(budget::DEFAULT),
            buffers: Buffers::new(PIECE as usize),
            reaped: AtomicBool::new(false),
        }
    }

    async fn send(
        &self,
        digest: Digest,
        existing: Existing,
        mut source: Source,
    ) -> Result<Published> {
        let root = self.root.clone();
        // Once: a directory many nodes share may have very many names.
        let is_first = !self.reaped.swap(true, Ordering::Relaxed);
        let (size, shared_with) = (source.left(), self.shared_with);
        let create = move || Draft::create(&root, shared_with, digest, size, is_first);
        let mut draft = threads::run(create).await?;
        while source.left() > 0 {
            let bytes = source.next(u64::MAX).await?;
            draft = threads::run(move || draft.append(&bytes)).await?;
        }
        source.finish().await?;
        let place = self.place();
        threads::run(move || draft.publish(existing, &place)).await
    }

    /// The object, and what of it is wanted.
    async fn find(
        &self,
        digest: Digest,
        range: Option<Range<u64>>,
        limit: u64,
    ) -> Result<(File, Range<u64>)> {
        let root = self.root.clone();
        let (file, size) = threads::run(move || open_object(&root, digest))
            .await?
            .ok_or_else(|| absent(digest, &self.place()))?;
        let wanted = wanted(digest, &self.place(), size, range.as_ref(), limit)?;
        Ok((file, wanted))
    }

    async fn bring(
        &self,
        digest: Digest,
        range: Option<Range<u64>>,
        limit: u64,
        sink: mpsc::Sender<Bytes>,
    ) -> Result<u64> {
        let (file, wanted) = self.find(digest, range, limit).await?;
        let path = self.path(digest);
        let (budget, buffers) = (self.budget.clone(), self.buffers.clone());
        read_into(sink, file, path, wanted, budget, buffers).await
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.root.join(super::key(digest))
    }
}

impl ContentTransport for Directory {
    fn place(&self) -> String {
        format!("fs://{}", self.root.display())
    }

    fn size(&self, digest: Digest) -> Call<'_, Option<u64>> {
        let root = self.root.clone();
        Box::pin(threads::run(move || {
            Ok(open_object(&root, digest)?.map(|(_, size)| size))
        }))
    }

    fn publish(
        &self,
        digest: Digest,
        size: u64,
        existing: Existing,
        pieces: Pieces,
    ) -> Call<'_, Published> {
        Box::pin(async move {
            if existing == Existing::Keep {
                match self.size(digest).await? {
                    Some(found) if found == size => return Ok(Published::Already),
                    Some(found) => return Err(other_size(digest, &self.place(), found, size)),
                    None => {}
                }
            }
            self.send(digest, existing, Source::new(digest, size, pieces))
                .await
        })
    }

    fn fetch(
        &self,
        digest: Digest,
        range: Option<Range<u64>>,
        limit: u64,
        sink: mpsc::Sender<Bytes>,
    ) -> Call<'_, u64> {
        Box::pin(self.bring(digest, range, limit, sink))
    }

    fn open(&self, digest: Digest, limit: u64) -> Option<Call<'_, (File, PathBuf)>> {
        Some(Box::pin(async move {
            let (file, _) = self.find(digest, None, limit).await?;
            Ok((file, self.path(digest)))
        }))
    }

    /// A file without a name tells whether one could be written, and nobody ever sees it.
    fn check(&self) -> Call<'_, ()> {
        let root = self.root.clone();
        Box::pin(threads::run(move || {
            let dir = Dir::open(&root)?;
            match dir.create_unnamed(0o600) {
                Err(error) if !cannot_be_unnamed(&error) => Err(error).at("write to", &root),
                _ => Ok(()),
            }
        }))
    }

    /// A directory that is not mounted is empty, or not there.
    fn check_sight(&self) -> Call<'_, ()> {
        let root = self.root.clone();
        Box::pin(threads::run(move || {
            let dir = Dir::open(&root)?;
            let objects = OsStr::new(OBJECTS);
            let found = dir.stat_if_any(objects);
            if found.at("examine", dir.path_of(objects))?.is_some() {
                return Ok(());
            }
            let text = format!(
                "{} has no objects at all; it may not be mounted",
                root.display()
            );
            Err(Error::new(ErrorKind::Unavailable, text).with_path(root))
        }))
    }
}

/// An object on its way to its name. Dropping it before [`Draft::publish`] leaves nothing.
struct Draft {
    file: Temporary<Dir>,
    target: OsString,
    digest: Digest,
    /// What it will have, what it has, and what of it is on its way to the disk, in bytes.
    size: u64,
    len: u64,
    started: u64,
    ahead: Ahead,
}

impl Draft {
    fn create(
        root: &Path,
        shared_with: SharedWith,
        digest: Digest,
        size: u64,
        is_first: bool,
    ) -> Result<Self> {
        // The root itself is not made: where it is missing, something is not mounted.
        let root = Dir::open(root)?;
        let objects = OsStr::new(OBJECTS);
        let dir = match root.open_dir(objects) {
            Ok(dir) if !is_first => dir,
            _ => ensure_dir(&root, objects, shared_with.directory_mode())?,
        };
        if is_first {
            reap(&dir);
        }
        let (path, mode) = (dir.path().to_owned(), shared_with.file_mode());
        let file = Temporary::create(dir, mode).at("create a file in", &path)?;
        unmask(file.file(), mode).at("set the mode of a file in", path)?;
        Ok(Self {
            file,
            target: digest.hex().into(),
            digest,
            size,
            len: 0,
            started: 0,
            ahead: Ahead::default(),
        })
    }

    fn append(mut self, bytes: &[u8]) -> Result<Self> {
        let file = self.file.file();
        step("write")
            .and_then(|()| file.write_all_at(bytes, self.len))
            .at("write", self.path())?;
        self.len += bytes.len() as u64;
        self.ahead
            .expect(file, self.len, self.size)
            .at("write", self.path())?;
        if self.len - self.started >= WRITEBACK {
            start_writeback(file, self.started, self.len - self.started);
            self.started = self.len;
        }
        Ok(self)
    }

    fn publish(mut self, existing: Existing, place: &str) -> Result<Published> {
        sync_file(self.file.file()).at("sync", self.path())?;
        match self.file.publish(&self.target, existing == Existing::Keep) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.compare(place),
            named => {
                named.at("name", self.path())?;
                self.file.dir().sync()?;
                Ok(Published::Sent)
            }
        }
    }

    /// Somebody else published the same digest meanwhile.
    fn compare(&self, place: &str) -> Result<Published> {
        let there = self.file.dir().stat(&self.target);
        let found = there.at("look at", self.path())?.size;
        if found == self.len {
            return Ok(Published::Already);
        }
        Err(other_size(self.digest, place, found, self.len))
    }

    fn path(&self) -> PathBuf {
        self.file.dir().path_of(&self.target)
    }
}

fn hint_at_sharing(error: Error) -> Error {
    if error.kind() != ErrorKind::PermissionDenied {
        return error;
    }
    error.with_hint("content.shared_with, where it was published, says who else may read it")
}

/// An absent root is an error, an absent object is not.
fn open_object(root: &Path, digest: Digest) -> Result<Option<(File, u64)>> {
    let path = root.join(super::key(digest));
    let root = Dir::open(root)?;
    let opened = match root.open_dir(OsStr::new(OBJECTS)) {
        Ok(objects) => objects
            .open_file(OsStr::new(&digest.hex()))
            .at("open", &path),
        Err(error) => Err(error),
    }
    .map_err(hint_at_sharing);
    let file = match opened {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let metadata = file.metadata().at("look at", &path)?;
    if !metadata.is_file() {
        let text = format!("{} is not a regular file", path.display());
        return Err(Error::damaged(text).with_path(path));
    }
    Ok(Some((file, metadata.len())))
}

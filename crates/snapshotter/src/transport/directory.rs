//! Content in a directory, each object at its key (`<root>/xxh3/<hex>`), for a disk or a network filesystem that nodes share.
//!
//! An object gets its name when it is complete and synced: it is written without a name (`O_TMPFILE`), or under a
//! temporary one where the filesystem cannot do that, then named, then the directory is synced. So a crash leaves the
//! old state or the new one, and at worst a file `.snapshotter-…` that nobody takes for an object; the next process that
//! sends something removes it.
//!
//! File calls run on blocking threads; a future that is dropped stops after the piece under way.

mod records;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::budget::{self, Budget};
use super::files::{PIECE, read_into};
use super::{
    Call, ContentTransport, Existing, LocalFiles, Presence, Published, Ranges, Records, Sink,
    Source,
};
use super::{absent, kept, wanted};
use crate::fs::Dir;
use crate::fs::durable::{Draft, ensure_dir};
use crate::fs::temporary::{cannot_be_unnamed, reap};
use crate::lock::lock;
use crate::pass::buffers::Buffers;
use crate::threads;
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::object::{Object, ObjectName};
use crate::words::sharing::SharedWith;

/// Objects in a directory.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    shared_with: SharedWith,
    budget: Budget,
    buffers: Buffers,
    /// Directories that were looked through for what dead processes left.
    reaped: Mutex<BTreeSet<&'static str>>,
}

impl Directory {
    pub(super) fn open(root: &Path, shared_with: SharedWith) -> Self {
        Self {
            root: root.to_owned(),
            shared_with,
            budget: Budget::new(budget::DEFAULT),
            buffers: Buffers::new(PIECE as usize),
            reaped: Mutex::default(),
        }
    }

    async fn send(&self, object: Object, existing: Existing, source: Source) -> Result<Published> {
        let root = self.root.clone();
        // Once: a directory many nodes share may have very many names.
        let is_first = lock(&self.reaped).insert(object.name.prefix());
        let (size, shared_with) = (source.size(), self.shared_with);
        let create = move || NewObject::create(&root, shared_with, object, size, is_first);
        let mut new = threads::run(create).await?;
        let mut pieces = source.begin().await?;
        while pieces.left() > 0 {
            let bytes = pieces.next(u64::MAX).await?;
            new = threads::run(move || new.append(&bytes)).await?;
        }
        pieces.finish().await?;
        let place = self.place();
        threads::run(move || new.publish(existing, &place)).await
    }

    /// The object, and what of it is wanted.
    async fn find(&self, object: Object, ranges: Ranges) -> Result<(File, Vec<Range<u64>>)> {
        let root = self.root.clone();
        let (file, size) = threads::run(move || open_object(&root, object))
            .await?
            .ok_or_else(|| absent(object, &self.place()))?;
        let wanted = wanted(object, &self.place(), size, ranges)?;
        Ok((file, wanted))
    }

    async fn read(&self, object: Object, ranges: Ranges, sink: Sink) -> Result<u64> {
        let (file, wanted) = self.find(object, ranges).await?;
        let path = self.path(object);
        let (budget, buffers) = (self.budget.clone(), self.buffers.clone());
        read_into(sink, file, path, wanted, budget, buffers).await
    }

    fn path(&self, object: Object) -> PathBuf {
        self.root.join(object.key())
    }
}

impl ContentTransport for Directory {
    fn place(&self) -> String {
        format!("fs://{}", self.root.display())
    }

    fn size(&self, object: Object) -> Call<'_, Presence> {
        let root = self.root.clone();
        Box::pin(threads::run(move || {
            let found = open_object(&root, object)?;
            Ok(Presence::from(found.map(|(_, size)| size)))
        }))
    }

    fn publish(&self, object: Object, existing: Existing, source: Source) -> Call<'_, Published> {
        Box::pin(async move {
            if existing == Existing::Keep
                && let Presence::Size(found) = self.size(object).await?
            {
                return kept(object, &self.place(), found, source.size());
            }
            self.send(object, existing, source).await
        })
    }

    fn fetch(&self, object: Object, ranges: Ranges, sink: Sink) -> Call<'_, u64> {
        Box::pin(self.read(object, ranges, sink))
    }

    fn records(&self) -> Option<&dyn Records> {
        Some(self)
    }

    fn local_files(&self) -> Option<&dyn LocalFiles> {
        Some(self)
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
            for objects in ObjectName::PREFIXES.map(OsStr::new) {
                let found = dir.stat_if_any(objects);
                if found.at("examine", dir.path_of(objects))?.is_some() {
                    return Ok(());
                }
            }
            let text = format!(
                "{} has no objects at all; it may not be mounted",
                root.display()
            );
            Err(Error::new(ErrorKind::Unavailable, text).with_path(root))
        }))
    }
}

impl LocalFiles for Directory {
    fn open(&self, object: Object) -> Call<'_, (File, PathBuf)> {
        Box::pin(async move {
            let (file, _) = self.find(object, None).await?;
            Ok((file, self.path(object)))
        })
    }
}

/// An object on its way to its name. Dropping it before [`NewObject::publish`] leaves nothing.
struct NewObject {
    draft: Draft<Dir>,
    object: Object,
    /// What it will have, in bytes.
    size: u64,
}

impl NewObject {
    fn create(
        root: &Path,
        shared_with: SharedWith,
        object: Object,
        size: u64,
        is_first: bool,
    ) -> Result<Self> {
        // The root itself is not made: where it is missing, something is not mounted.
        let root = Dir::open(root)?;
        let objects = OsStr::new(object.name.prefix());
        let dir = match root.open_dir(objects) {
            Ok(dir) if !is_first => dir,
            _ => ensure_dir(&root, objects, shared_with.directory_mode())?,
        };
        if is_first {
            reap(&dir);
        }
        Ok(Self {
            draft: Draft::create(dir, shared_with.file_mode())?,
            object,
            size,
        })
    }

    fn append(mut self, bytes: &[u8]) -> Result<Self> {
        self.draft.append(bytes, self.size)?;
        Ok(self)
    }

    fn publish(mut self, existing: Existing, place: &str) -> Result<Published> {
        let name = OsString::from(self.object.name.hex());
        if self.draft.publish(&name, existing == Existing::Replace)? {
            return Ok(Published::unnamed(true));
        }
        // Somebody else published the same object meanwhile.
        let (there, path) = (
            self.draft.dir().stat(&name),
            self.draft.dir().path_of(&name),
        );
        kept(
            self.object,
            place,
            there.at("look at", path)?.size,
            self.draft.len(),
        )
    }
}

fn hint_at_sharing(error: Error) -> Error {
    if error.kind() != ErrorKind::PermissionDenied {
        return error;
    }
    error.with_hint("content.shared_with, where it was published, says who else may read it")
}

/// An absent root is an error, an absent object is not.
fn open_object(root: &Path, object: Object) -> Result<Option<(File, u64)>> {
    let path = root.join(object.key());
    let root = Dir::open(root)?;
    let opened = match root.open_dir(OsStr::new(object.name.prefix())) {
        Ok(objects) => objects
            .open_file(OsStr::new(&object.name.hex()))
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

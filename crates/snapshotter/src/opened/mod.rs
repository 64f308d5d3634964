//! A snapshot that is open: what it has, and any of its files read at any place, without being restored.
//!
//! It stays while it is open: the operation that leases it ends with the last reader. Nothing is handed out that was not verified.
//! A file of format v1 is hashed when it is opened first, since its one checksum is of all of it ([`blobs`]); of one of format
//! v2 each frame that a read touches is hashed before it is decoded ([`frames`]). What a read finds damaged is marked as
//! restores mark it, is said in the log, and is an error of that read alone. A read takes no permit and, unless it finds damage,
//! writes nothing.

mod blobs;
mod frames;
mod reader;

pub(crate) use blobs::{Verified, verified};
pub use reader::Reader;

use std::any::Any;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::activity::Activity;
use crate::catalog::Snapshot;
use crate::inspect::{self, Entries, FileDetails, PathDetails, SymlinkDetails};
use crate::limit::Limits;
use crate::metrics::Operation as Verb;
use crate::remote::{self, Flights, Remote};
use crate::store::{Operation, Store};
use crate::threads;
use crate::words::digest::{Checksum, Sha256};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::format::Format;
use crate::words::progress::Warning;
use crate::words::reference::Reference;
use crate::words::relpath::RelPath;
use blobs::Blobs;
use frames::Frames;

/// A snapshot that is open, and stays until this, its clones and all of its readers are dropped, or the handle is closed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Opened {
    /// What the caller may care about.
    pub warnings: Vec<Warning>,
    inner: Arc<Inner>,
}

/// What an open snapshot and its readers share.
#[derive(Debug)]
struct Inner {
    // Dropped first: it ends the lease, for which the store has to be open.
    _operation: Option<Operation>,
    store: Arc<Store>,
    snapshot: Snapshot,
    entries: Entries,
    /// Where the bytes of each file are, in the order of the entries.
    places: Vec<Place>,
    index: HashMap<PathBuf, usize>,
    bytes: Bytes,
    /// Keeps the store open.
    handle: OnceLock<Box<dyn Any + Send + Sync>>,
}

/// Where a file's bytes are.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In a blob, which has so many bytes of data.
    Blob(Checksum, u64),
    /// In no blob that the snapshot has.
    Lost,
    /// In pages, from this one of the page space on.
    Pages(u64),
}

#[derive(Debug)]
enum Bytes {
    Blobs(Blobs),
    Frames(Box<Frames>),
}

/// Opens a snapshot, fetching what is not here. Blocks.
pub(crate) fn open(
    store: &Arc<Store>,
    limits: &Limits,
    reference: &Reference,
    remote: Option<(&Remote, &Flights)>,
    activity: &Activity,
) -> Result<Opened> {
    // Where no lease can be written, nothing can be fetched into either.
    let operation = (!store.is_read_only())
        .then(|| store.begin(Verb::Read))
        .transpose()?;
    let remote = remote.filter(|_| operation.is_some());
    let remote = remote.map(|(remote, flights)| remote::Context {
        store,
        limit: &limits.transfers,
        flights,
        remote,
        activity,
    });
    let opened = obtain(store, operation.as_ref(), reference, remote.as_ref())
        .and_then(|snapshot| read(store, snapshot, remote.as_ref()));
    let (snapshot, (entries, places, bytes)) =
        opened.map_err(|error| error.with_reference(reference))?;
    let files = entries.files.iter().enumerate();
    let index = files.map(|(number, file)| (file.entry.relative_path.clone(), number));
    Ok(Opened {
        warnings: Vec::new(),
        inner: Arc::new(Inner {
            _operation: operation,
            store: Arc::clone(store),
            index: index.collect(),
            snapshot,
            entries,
            places,
            bytes,
            handle: OnceLock::new(),
        }),
    })
}

/// Finds the snapshot, which stays from then on, or fetches it.
fn obtain(
    store: &Store,
    operation: Option<&Operation>,
    reference: &Reference,
    remote: Option<&remote::Context<'_>>,
) -> Result<Snapshot> {
    let Some(operation) = operation else {
        return store.catalog.read(|txn| txn.resolve(reference));
    };
    match (operation.find(reference), remote) {
        (Err(error), Some(remote)) if error.kind() == ErrorKind::NotFound => {
            let fetched = remote::fetch(remote, operation, reference, None)?;
            let found = store.catalog.read(|txn| txn.snapshot(fetched.snapshot))?;
            found.ok_or_else(|| {
                let text = "the snapshot was removed while it was fetched";
                Error::new(ErrorKind::NotFound, text)
            })
        }
        (found, _) => found,
    }
}

type Contents = (Entries, Vec<Place>, Bytes);

/// What it has. What is damaged or missing is fetched again, where there is somewhere to fetch it from.
fn read(
    store: &Store,
    snapshot: Snapshot,
    remote: Option<&remote::Context<'_>>,
) -> Result<(Snapshot, Contents)> {
    let contents = match (contents(store, &snapshot), remote) {
        (Err(error), Some(remote)) if error.kind() == ErrorKind::Damaged => {
            remote::repair(remote, snapshot.id)?;
            contents(store, &snapshot)
        }
        (contents, _) => contents,
    }?;
    Ok((snapshot, contents))
}

fn contents(store: &Store, snapshot: &Snapshot) -> Result<Contents> {
    match snapshot.format {
        Format::V1 => in_blobs(store, snapshot),
        Format::V2 => in_pages(store, snapshot),
    }
}

fn in_blobs(store: &Store, snapshot: &Snapshot) -> Result<Contents> {
    let (document, known) = store.catalog.read(|txn| {
        Ok((
            txn.document(snapshot.id)?,
            txn.contents_of_snapshot(snapshot.id)?,
        ))
    })?;
    let place = |file: &crate::format::document::FileEntry| {
        let found = known.find(&file.content, file.size);
        found.map_or(Place::Lost, |found| {
            Place::Blob(found.checksum, found.data_size)
        })
    };
    let places = document.files.iter().map(place).collect();
    let bytes = Bytes::Blobs(Blobs::default());
    Ok((inspect::entries(document), places, bytes))
}

fn in_pages(store: &Store, snapshot: &Snapshot) -> Result<Contents> {
    let document = store.catalog.read(|txn| txn.paged_document(snapshot.id))?;
    let frames = Frames::open(store, &document)?;
    let firsts: HashMap<&RelPath, u64> = document
        .places()
        .map(|(file, pages)| (&file.path, pages.start))
        .collect();
    let files = document.entries.files.iter();
    let place = files.map(|file| {
        let first = file.hardlink_of.as_ref().unwrap_or(&file.path);
        firsts.get(first).copied().map_or(Place::Lost, Place::Pages)
    });
    let places = place.collect();
    let bytes = Bytes::Frames(Box::new(frames));
    Ok((inspect::entries(document.entries), places, bytes))
}

impl Opened {
    /// The snapshot, with its manifest's digest.
    #[must_use]
    pub fn reference(&self) -> Reference {
        let snapshot = &self.inner.snapshot;
        let reference = snapshot.reference.clone();
        reference.with_digest(snapshot.manifest_digest)
    }

    /// SHA-256 of its manifest.
    #[must_use]
    pub fn manifest_digest(&self) -> Sha256 {
        self.inner.snapshot.manifest_digest
    }

    /// How it is kept.
    #[must_use]
    pub fn format(&self) -> Format {
        self.inner.snapshot.format
    }

    /// Its regular files, by path.
    #[must_use]
    pub fn files(&self) -> &[FileDetails] {
        &self.inner.entries.files
    }

    /// Its directories, by path; those that are only the parent of something may be missing.
    #[must_use]
    pub fn directories(&self) -> &[PathDetails] {
        &self.inner.entries.directories
    }

    /// Its symbolic links, by path.
    #[must_use]
    pub fn symlinks(&self) -> &[SymlinkDetails] {
        &self.inner.entries.symlinks
    }

    /// Its whiteouts, by path.
    #[must_use]
    pub fn whiteouts(&self) -> &[PathDetails] {
        &self.inner.entries.whiteouts
    }

    /// Bytes of data in a file of it, holes excluded; `None` where it has no such file.
    #[must_use]
    pub fn data_bytes(&self, path: impl AsRef<Path>) -> Option<u64> {
        let number = *self.inner.index.get(path.as_ref())?;
        let size = self.inner.entries.files[number].size;
        Some(match (self.inner.places[number], &self.inner.bytes) {
            (Place::Blob(_, data_bytes), _) => data_bytes,
            (Place::Pages(first), Bytes::Frames(frames)) => frames.data_bytes(first, size),
            _ => 0,
        })
    }

    /// Opens a file of it. Blocks: one of format v1 is hashed first, once, and unpacked to a file that has no name where it is kept
    /// packed or somebody else has it open for writing.
    ///
    /// # Errors
    /// `NotFound` where it has no such file; `Damaged`, with the path, for wrong bytes; `NoSpace`.
    pub fn reader(&self, path: impl AsRef<Path>) -> Result<Reader> {
        let given = path.as_ref();
        let path = RelPath::normalize(given)
            .map_err(|error| Error::invalid(error.to_string()).with_path(given))?;
        let Some(number) = self.inner.index.get(path.as_path()) else {
            let text = format!("the snapshot has no file {path}");
            return Err(Error::new(ErrorKind::NotFound, text)
                .with_path(given)
                .with_reference(&self.inner.snapshot.reference));
        };
        Reader::open(&self.inner, *number)
    }

    /// The same, once all of its bytes were verified.
    ///
    /// # Errors
    /// Those of [`reader`](Self::reader), and `Damaged` for wrong bytes in format v2 too.
    pub async fn verified_reader(&self, path: impl Into<PathBuf>) -> Result<Reader> {
        let (opened, path) = (self.clone(), path.into());
        threads::run(move || {
            let mut reader = opened.reader(path)?;
            reader.verify()?;
            Ok(reader)
        })
        .await
    }

    /// Keeps the store open for as long as there is a reader.
    pub(crate) fn keep_open(&self, handle: impl Any + Send + Sync) {
        let _ = self.inner.handle.set(Box::new(handle));
    }
}

#[cfg(feature = "mount")]
impl Opened {
    /// The snapshot's row.
    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.inner.snapshot
    }

    /// Where it is kept.
    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }
}

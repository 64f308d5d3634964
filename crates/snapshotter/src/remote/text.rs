//! A document as a whole: on its way from a registry into the catalog, and back. A short one is in memory; a long one is in
//! a file without a name, and goes through memory in pieces.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::Remote;
use super::runtime::{self, receive, wait};
use crate::activity::Activity;
use crate::catalog::Stored;
use crate::format::document::paged::PagedDocument;
use crate::format::document::{Document, DocumentError, PIECE, SHORT};
use crate::fs::hook::step;
use crate::registry::{MetadataRegistry, Repository};
use crate::store::Store;
use crate::transport::{Presence, Source};
use crate::words::digest::Sha256;
use crate::words::error::{At, Error, ErrorKind, Result};

/// A document as it came.
#[derive(Debug)]
pub(super) enum Text {
    Short(Vec<u8>),
    /// In a file without a name.
    Long(File, u64),
}

impl Text {
    /// Fetches a long one.
    pub(super) fn fetch(
        store: &Store,
        remote: &Remote,
        repository: &Repository,
        (sha256, size): (Sha256, u64),
        activity: &Activity,
    ) -> Result<Self> {
        let file = store.scratch()?;
        let staging = store.root.staging.path();
        let (registry, repository) = (Arc::clone(&remote.registry), repository.clone());
        let start = |sink| {
            let call = async move {
                let pulled = registry.pull_stream(&repository, sha256, size, None, sink);
                pulled.await
            };
            Ok(runtime::start()?.spawn(call))
        };
        let mut write = |bytes: &Bytes| {
            let written = step("write").and_then(|()| (&file).write_all(bytes));
            written.at("write to", staging)
        };
        receive(start, &|| activity.check(), &mut write)?;
        Ok(Self::Long(file, size))
    }

    /// The one that the store keeps of a snapshot. A long one is copied into a file, because whoever reads it from the
    /// catalog keeps the catalog's log from being copied meanwhile.
    pub(super) fn kept(store: &Store, snapshot: i64) -> Result<Self> {
        let staging = || store.root.staging.path();
        store.catalog.read(|txn| {
            txn.read_document(snapshot, |bytes, length| {
                if length <= SHORT {
                    let mut short = Vec::with_capacity(length as usize);
                    bytes.read_to_end(&mut short).at("read", staging())?;
                    return Ok(Self::Short(short));
                }
                let file = store.scratch()?;
                let mut out = BufWriter::with_capacity(PIECE, &file);
                step("write").at("write to", staging())?;
                let copied = io::copy(bytes, &mut out).and_then(|_| out.flush());
                copied.at("write to", staging())?;
                drop(out);
                Ok(Self::Long(file, length))
            })
        })?
    }

    /// Sends it to a registry, under the name that the manifest gives it.
    pub(super) fn send(
        &self,
        registry: &Arc<dyn MetadataRegistry>,
        repository: &Repository,
        sha256: Sha256,
        activity: &Activity,
    ) -> Result<()> {
        let wanted = || activity.check();
        let (file, size) = match self {
            Self::Short(bytes) => {
                let bytes = Bytes::copy_from_slice(bytes);
                return wait(&wanted, registry.push_blob(repository, sha256, bytes));
            }
            Self::Long(file, size) => (file, *size),
        };
        let found = registry.has_blob(repository, sha256, size);
        if wait(&wanted, found)? == Presence::Size(size) {
            return Ok(());
        }
        let file = file
            .try_clone()
            .map_err(|error| unreadable(&error).with_source(error))?;
        let source = Source::file(file, PathBuf::from("the document"), 0..size);
        let sent = wait(&wanted, registry.push_stream(repository, source))?;
        if sent == sha256 {
            Ok(())
        } else {
            let text = format!("the document was sent as {sent} instead of {sha256}");
            Err(Error::new(ErrorKind::Internal, text))
        }
    }

    pub(super) fn entries(&self) -> std::result::Result<Document, DocumentError> {
        match self {
            Self::Short(bytes) => Document::parse(bytes),
            Self::Long(file, size) => {
                (&mut &*file).rewind()?;
                Document::read(file, *size)
            }
        }
    }

    pub(super) fn pages(&self) -> std::result::Result<PagedDocument, DocumentError> {
        match self {
            Self::Short(bytes) => PagedDocument::parse(bytes),
            Self::Long(file, size) => {
                (&mut &*file).rewind()?;
                PagedDocument::read(file, *size)
            }
        }
    }

    /// All of it, in memory.
    pub(super) fn into_bytes(self) -> Result<Vec<u8>> {
        if let Self::Short(bytes) = self {
            return Ok(bytes);
        }
        let mut bytes = Vec::new();
        let read = self.write(&mut bytes);
        read.map_err(|error| unreadable(&error).with_source(error))?;
        Ok(bytes)
    }
}

impl Stored for Text {
    fn length(&self) -> u64 {
        match self {
            Self::Short(bytes) => bytes.len() as u64,
            Self::Long(_, size) => *size,
        }
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Short(bytes) => out.write_all(bytes),
            Self::Long(file, size) => {
                let mut file = file;
                file.rewind()?;
                io::copy(&mut file.take(*size), out).map(|_| ())
            }
        }
    }
}

fn unreadable(error: &io::Error) -> Error {
    Error::new(ErrorKind::of_io(error), "the document could not be read")
}

//! What describes a snapshot, byte for byte: its manifest, and its document, which may have hundreds of megabytes and goes
//! through memory in pieces.
//!
//! A document may have 256 MiB and a million entries, so what a file costs is counted in bytes. Its entry is in memory once: a
//! capture fills it in, and its parts become the document's (`snapshot/describe.rs`). A long document's bytes never are: it is
//! written entry by entry, once to learn its name and length and once into the catalog (`format/document/encoded.rs`), and read
//! as it comes out of the catalog or a file in staging, hashed on the way. SQLite changes a row by having all of it in memory,
//! so a row with a document is made anew instead (`catalog/remote.rs`). A restore knows the digests and sizes of its snapshot's
//! blobs, to refuse a document that names others (`catalog/contents.rs`), and reads the rows of the files it is about to make.
//! What no document can list the walk refuses, by the least that the entries it has seen come to.

use std::fmt;
use std::io::{self, BufWriter, Read, Write};

use rusqlite::params;
use sha2::Digest as _;

use super::{Result, Txn, signed};
use crate::format::artifact::Manifest;
use crate::format::artifact::paged::PagedManifest;
use crate::format::document::paged::PagedDocument;
use crate::format::document::{Document, DocumentError, Encoded, PIECE};
use crate::words::digest::Sha256;
use crate::words::error::{Error, ErrorKind};

/// A document that is to be kept.
pub(crate) trait Stored: fmt::Debug {
    /// In bytes.
    fn length(&self) -> u64;

    /// Writes its bytes, as many as it said.
    fn write(&self, out: &mut dyn Write) -> io::Result<()>;
}

impl Stored for Vec<u8> {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(self)
    }
}

impl Stored for Encoded {
    fn length(&self) -> u64 {
        self.length()
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.write(out)
    }
}

fn changed(what: &str) -> Error {
    Error::damaged(format!(
        "the snapshot's {what} in the catalog is not what was stored"
    ))
    .with_hint(
        "`verify` with repair fetches it again where the snapshot was published; else take it anew",
    )
}

fn invalid(error: DocumentError) -> Error {
    if matches!(error, DocumentError::Unsupported { .. }) {
        let text = format!("the snapshot's document cannot be read: {error}");
        return Error::new(ErrorKind::Unsupported, text)
            .with_hint("use the release that wrote it, or a newer one")
            .with_source(error);
    }
    Error::damaged(format!("the snapshot's document is not valid: {error}")).with_source(error)
}

impl Txn<'_> {
    /// What the document says. The manifest pins it, the row pins the manifest, and both are looked at here, because
    /// SQLite has no checksums of its own: a document that changed in the file would put other bytes under right names.
    pub(crate) fn document(&self, snapshot: i64) -> Result<Document> {
        self.read_document(snapshot, |bytes, length| Document::read(bytes, length))?
            .map_err(invalid)
    }

    /// What the document of a snapshot of format v2 says.
    pub(crate) fn paged_document(&self, snapshot: i64) -> Result<PagedDocument> {
        self.read_document(snapshot, |bytes, length| PagedDocument::read(bytes, length))?
            .map_err(invalid)
    }

    /// The document, byte for byte.
    pub(crate) fn document_bytes(&self, snapshot: i64) -> Result<Vec<u8>> {
        let read = self.read_document(snapshot, |bytes, length| {
            let mut all = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
            bytes.read_to_end(&mut all).map(|_| all)
        })?;
        read.map_err(|_| changed("document"))
    }

    /// Looks whether the document is what was stored.
    #[cfg(feature = "registry")]
    pub(crate) fn check_document(&self, snapshot: i64) -> Result<()> {
        self.read_document(snapshot, |_, _| ())
    }

    /// Gives `read` the document's bytes as a stream, and how many there are; the result only if they are what was stored.
    pub(crate) fn read_document<T>(
        &self,
        snapshot: i64,
        read: impl FnOnce(&mut dyn Read, u64) -> T,
    ) -> Result<T> {
        let manifest = self.manifest(snapshot)?;
        let config = Manifest::parse(&manifest).map(|manifest| manifest.config);
        // What is no manifest of the one format is one of the other, or none.
        let config = config.or_else(|_| PagedManifest::parse(&manifest).map(|paged| paged.config));
        let config = config.map_err(|_| changed("document"))?;
        let blob = self
            .inner
            .blob_open("main", "artifacts", "document", snapshot, true)
            .map_err(|error| self.error(error))?;
        let length = blob.len() as u64;
        let mut bytes = Hashed::new(blob);
        let result = read(&mut bytes, length);
        // What `read` did not come to.
        let rest = io::copy(&mut bytes, &mut io::sink());
        match bytes.failed.take() {
            Some(error) => return Err(self.io_error(error)),
            None => rest.map_err(|error| self.io_error(error))?,
        };
        if Sha256::from_bytes(bytes.hasher.finalize().into()) == config {
            Ok(result)
        } else {
            Err(changed("document"))
        }
    }

    /// The manifest, which is the one that the snapshot is known by.
    pub(crate) fn manifest(&self, snapshot: i64) -> Result<Vec<u8>> {
        let found = self.first(
            "SELECT s.manifest_digest, a.manifest FROM artifacts a JOIN snapshots s ON s.id = a.snapshot
             WHERE a.snapshot = ?1",
            [snapshot],
            |row| Ok((Sha256::from_bytes(row.get(0)?), row.get::<_, Vec<u8>>(1)?)),
        )?;
        match found {
            None => Err(changed("document")),
            Some((digest, manifest)) if digest == Sha256::of(&manifest) => Ok(manifest),
            Some(_) => Err(changed("manifest")),
        }
    }

    /// Puts back what describes a snapshot, as it was.
    pub(crate) fn replace_artifacts(
        &self,
        snapshot: i64,
        manifest: &[u8],
        document: &dyn Stored,
    ) -> Result<()> {
        self.execute("DELETE FROM artifacts WHERE snapshot = ?1", [snapshot])?;
        self.insert_artifacts(snapshot, manifest, document)
    }

    /// The document is the last column: SQLite then makes room for it without having it in memory.
    pub(super) fn insert_artifacts(
        &self,
        snapshot: i64,
        manifest: &[u8],
        document: &dyn Stored,
    ) -> Result<()> {
        self.execute(
            "INSERT INTO artifacts (snapshot, manifest, document) VALUES (?1, ?2, zeroblob(?3))",
            params![snapshot, manifest, signed(document.length())],
        )?;
        let blob = self
            .inner
            .blob_open("main", "artifacts", "document", snapshot, false)
            .map_err(|error| self.error(error))?;
        let mut out = BufWriter::with_capacity(PIECE, blob);
        document
            .write(&mut out)
            .and_then(|()| out.flush())
            .map_err(|error| self.io_error(error))
    }

    /// SQLite's error behind one of a stream.
    pub(super) fn io_error(&self, error: io::Error) -> Error {
        match error.downcast::<rusqlite::Error>() {
            Ok(error) => self.error(error),
            Err(error) => Error::new(
                ErrorKind::of_io(&error),
                "the snapshot's document could not be moved",
            )
            .with_source(error),
        }
    }
}

/// What is read from it is hashed.
struct Hashed<R> {
    stream: R,
    hasher: sha2::Sha256,
    /// What it met, which whoever reads through others may never see.
    failed: Option<io::Error>,
}

impl<R> Hashed<R> {
    fn new(stream: R) -> Self {
        Self {
            stream,
            hasher: sha2::Sha256::new(),
            failed: None,
        }
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.stream.read(buffer) {
            Ok(length) => {
                self.hasher.update(&buffer[..length]);
                Ok(length)
            }
            Err(error) => {
                self.failed.get_or_insert(error);
                Err(io::Error::other("the catalog could not be read"))
            }
        }
    }
}

//! The document: format v1's list of entries, the artifact's config blob. A [`Document`] that came out of
//! [`Document::parse`] is within the limits and consistent: every path is unique and normal (what the Go library lists in other
//! ways is made so), nothing lies below a file
//! or symlink, and each hard link names a file equal to it. [`Document::encode`] runs the same checks, so what one side
//! writes the other reads; its bytes are those of Go's encoding/json wherever the Go library knows the key.

mod encoded;
mod entries;
mod error;
pub(crate) mod json;
mod names;
pub mod paged;
mod read;
mod validate;
mod write;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{BufReader, Read};

pub use encoded::Encoded;
pub use entries::{Content, DirectoryEntry, FileEntry, SymlinkEntry, WhiteoutEntry};
pub use error::DocumentError;
pub use names::Spelling;

use crate::words::relpath::RelPath;

/// The longest document, in bytes.
pub const MAX_DOCUMENT_BYTES: u64 = 256 * 1024 * 1024;
/// The most entries, all kinds together.
pub const MAX_ENTRIES: usize = 1024 * 1024;
/// The most extended attributes, all entries together: each costs many times its bytes in memory.
pub const MAX_XATTRS: usize = 4 * 1024 * 1024;
/// The longest target of a symlink, in bytes.
pub const MAX_TARGET_BYTES: usize = 4096;

/// Documents up to this length are held in memory where that is quicker, in bytes; of a longer one never more than a piece.
pub(crate) const SHORT: u64 = 4 << 20;

/// What is read or written of a document at once, in bytes.
pub(crate) const PIECE: usize = 64 << 10;

/// All entries of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document<C = Content> {
    /// Regular files.
    pub files: Vec<FileEntry<C>>,
    /// Directories. A parent that isn't listed is made with default attributes.
    pub directories: Vec<DirectoryEntry>,
    /// Symbolic links.
    pub symlinks: Vec<SymlinkEntry>,
    /// Whiteouts.
    pub whiteouts: Vec<WhiteoutEntry>,
}

impl<C> Document<C> {
    /// The same entries, of whose files the bytes are said in another way.
    pub fn map<D>(self, content: impl Fn(&FileEntry<C>) -> D) -> Document<D> {
        let files = self.files.into_iter().map(|file| FileEntry {
            content: content(&file),
            path: file.path,
            read_only: file.read_only,
            size: file.size,
            attributes: file.attributes,
            hardlink_of: file.hardlink_of,
        });
        Document {
            files: files.collect(),
            directories: self.directories,
            symlinks: self.symlinks,
            whiteouts: self.whiteouts,
        }
    }
}

impl Document {
    /// Reads and checks a document. Memory stays within a small multiple of the input's length.
    ///
    /// # Errors
    /// When it is malformed, inconsistent or over a limit.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        check_length(bytes.len() as u64)?;
        read::read(bytes, MAX_ENTRIES)?.usable()
    }

    /// Reads and checks a document of `length` bytes as it comes: a long one is never in memory but for its entries.
    ///
    /// # Errors
    /// Those of [`parse`](Self::parse), and of `stream`.
    pub fn read(mut stream: impl Read, length: u64) -> Result<Self, DocumentError> {
        check_length(length)?;
        if length <= SHORT {
            let mut bytes = Vec::with_capacity(length as usize);
            stream.take(length).read_to_end(&mut bytes)?;
            return Self::parse(&bytes);
        }
        let stream = BufReader::with_capacity(PIECE, stream.by_ref().take(length));
        read::read_stream(stream, length, MAX_ENTRIES)?.usable()
    }

    /// The Go library lists a file as often as it was asked for it, and restores it as often: listed twice alike, it is there
    /// once.
    fn usable(mut self) -> Result<Self, DocumentError> {
        match self.validate() {
            Err(DocumentError::Duplicate { .. }) => self.collapse(),
            validated => return validated.map(|()| self),
        }
        self.validate().map(|()| self)
    }

    fn collapse(&mut self) {
        let mut first: HashMap<&RelPath, &FileEntry> = HashMap::new();
        let kept: Vec<bool> = self
            .files
            .iter()
            .map(|file| match first.entry(&file.path) {
                Entry::Vacant(vacant) => {
                    vacant.insert(file);
                    true
                }
                Entry::Occupied(known) => *known.get() != file,
            })
            .collect();
        let mut kept = kept.into_iter();
        self.files.retain(|_| kept.next().unwrap_or(true));
    }

    /// Checks and writes the document, entries in the order they are in.
    ///
    /// # Errors
    /// When it is inconsistent or over a limit, or an mtime is outside the years 0 to 9999.
    pub fn encode(&self) -> Result<Vec<u8>, DocumentError> {
        self.validate()?;
        let mut bytes = Vec::new();
        write::write(self, &mut bytes)?;
        check_length(bytes.len() as u64)?;
        Ok(bytes)
    }

    /// The same without having its bytes in memory.
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode).
    pub fn into_encoded(self) -> Result<Encoded, DocumentError> {
        Encoded::new(self)
    }
}

impl<C> Document<C> {
    /// Sorts each list by the raw bytes of its paths, so that one input gives one document.
    pub fn sort(&mut self) {
        self.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        self.directories
            .sort_unstable_by(|a, b| a.path.cmp(&b.path));
        self.symlinks.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        self.whiteouts.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    }

    /// Checks everything that one entry alone can't show, and the limits.
    ///
    /// # Errors
    /// When paths repeat, an entry lies below a file or symlink, a hard link doesn't equal what it names, or a limit is
    /// passed.
    pub fn validate(&self) -> Result<(), DocumentError>
    where
        C: PartialEq,
    {
        validate::validate(self)
    }
}

impl<C> Default for Document<C> {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            directories: Vec::new(),
            symlinks: Vec::new(),
            whiteouts: Vec::new(),
        }
    }
}

fn check_length(bytes: u64) -> Result<(), DocumentError> {
    if bytes > MAX_DOCUMENT_BYTES {
        Err(DocumentError::TooLarge { bytes })
    } else {
        Ok(())
    }
}

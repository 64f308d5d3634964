//! What a document lists. A file says what its bytes are called in the way of its format: [`Content`] in format v1.

use super::write::{self, WriteFile};
use super::{DocumentError, Spelling};
use crate::words::digest::{Checksum, Digest};
use crate::words::entry::Attributes;
use crate::words::relpath::RelPath;

/// What a file's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// One packed stream, as the Go library has it.
    V1 {
        /// Its address.
        digest: Digest,
        /// What to trust; a document of the Go library has none.
        checksum: Option<Checksum>,
    },
}

impl Content {
    /// No content's name is written in fewer bytes, where it has both digests.
    pub(crate) const SHORTEST: Self = Self::V1 {
        digest: Digest::from_u64(0),
        checksum: Some(Checksum::from_bytes([0; 32])),
    };

    /// The stream's address.
    pub fn digest(&self) -> Digest {
        match self {
            Self::V1 { digest, .. } => *digest,
        }
    }

    /// The stream's checksum, where the document has one.
    pub fn checksum(&self) -> Option<Checksum> {
        match self {
            Self::V1 { checksum, .. } => *checksum,
        }
    }
}

/// A regular file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry<C = Content> {
    /// Where it is.
    pub path: RelPath,
    /// Its bytes.
    pub content: C,
    /// Whether it is restored as a shared, read-only file.
    pub read_only: bool,
    /// Its logical size in bytes.
    pub size: u64,
    /// Mode, owner, time, extended attributes.
    pub attributes: Attributes,
    /// The file it is a second name of.
    pub hardlink_of: Option<RelPath>,
}

/// A directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Where it is.
    pub path: RelPath,
    /// Mode, owner, time, extended attributes.
    pub attributes: Attributes,
}

/// A symbolic link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymlinkEntry {
    /// Where it is.
    pub path: RelPath,
    /// What it points at; any bytes but NUL.
    pub target: Vec<u8>,
    /// Mode, owner, time, extended attributes.
    pub attributes: Attributes,
}

/// A name that hides what a lower layer has there (overlayfs).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhiteoutEntry {
    /// Where it is.
    pub path: RelPath,
    /// Mode, owner, time.
    pub attributes: Attributes,
}

impl<C: WriteFile> FileEntry<C> {
    /// How many bytes it is in a document at most, its comma left out: fewer only where its name is not UTF-8.
    ///
    /// # Errors
    /// When its mtime is outside the years 0 to 9999.
    pub fn encoded_length(&self) -> Result<u64, DocumentError> {
        write::length(self, |file, out| C::write_file(file, Spelling::Long, out))
    }
}

impl DirectoryEntry {
    /// How many bytes it is in a document, its comma left out.
    ///
    /// # Errors
    /// When its mtime is outside the years 0 to 9999.
    pub fn encoded_length(&self) -> Result<u64, DocumentError> {
        write::length(self, write::write_directory)
    }
}

impl SymlinkEntry {
    /// How many bytes it is in a document, its comma left out.
    ///
    /// # Errors
    /// When its mtime is outside the years 0 to 9999.
    pub fn encoded_length(&self) -> Result<u64, DocumentError> {
        write::length(self, write::write_symlink)
    }
}

impl WhiteoutEntry {
    /// How many bytes it is in a document, its comma left out.
    ///
    /// # Errors
    /// When its mtime is outside the years 0 to 9999.
    pub fn encoded_length(&self) -> Result<u64, DocumentError> {
        write::length(self, write::write_whiteout)
    }
}

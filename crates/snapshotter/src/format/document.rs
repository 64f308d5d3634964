//! The document: format v1's list of entries, the artifact's config blob. A [`Document`] that came out of
//! [`Document::parse`] is within the limits and consistent: every path is unique and normal, nothing lies below a file
//! or symlink, and each hard link names a file equal to it. [`Document::encode`] runs the same checks, so what one side
//! writes the other reads; its bytes are those of Go's encoding/json wherever the Go library knows the key.

mod encoded;
pub(crate) mod json;
mod read;
mod validate;
mod write;

#[cfg(test)]
mod tests;

use std::io::{self, BufReader, Read};

pub use encoded::Encoded;
use thiserror::Error;

use crate::words::digest::{Checksum, Digest, DigestError};
use crate::words::entry::{Attributes, MtimeError};
use crate::words::relpath::{RelPath, RelPathError};

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

/// A document that is malformed, inconsistent or over a limit.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// More bytes than [`MAX_DOCUMENT_BYTES`].
    #[error("the document has {bytes} bytes; 256 MiB is the limit")]
    TooLarge {
        /// Its length in bytes.
        bytes: u64,
    },
    /// More entries than [`MAX_ENTRIES`].
    #[error("the document has more than 1,048,576 entries")]
    TooManyEntries,
    /// More extended attributes than [`MAX_XATTRS`].
    #[error("the document has more than 4,194,304 extended attributes")]
    TooManyXattrs,
    /// Not JSON, or not of the right shape.
    #[error("the document is not JSON of the right shape")]
    Json(#[source] serde_json::Error),
    /// Bytes that could not be read or written.
    #[error("the document's bytes could not be read or written")]
    Io(#[from] io::Error),
    /// A path that isn't one.
    #[error("a path in the document is not valid")]
    Path(#[from] RelPathError),
    /// Text that should be a digest or checksum.
    #[error("the content of \"{path}\" is not named by a valid digest")]
    Digest {
        /// The entry.
        path: RelPath,
        /// What is wrong with it.
        source: DigestError,
    },
    /// A time that isn't one.
    #[error("the mtime of \"{path}\" is not valid")]
    Mtime {
        /// The entry.
        path: RelPath,
        /// What is wrong with it.
        source: MtimeError,
    },
    /// An entry in the wrong list.
    #[error("\"{path}\" has typeflag {found}, where {expected} belongs")]
    TypeFlag {
        /// The entry.
        path: RelPath,
        /// Its typeflag.
        found: u32,
        /// What its list has.
        expected: u32,
    },
    /// A size that no file can have.
    #[error("\"{path}\" has {size} bytes, more than a file can have")]
    Size {
        /// The entry.
        path: RelPath,
        /// Its size in bytes.
        size: u64,
    },
    /// More than the bits that chmod(2) sets.
    #[error("\"{path}\" has mode {mode:o}, which is more than chmod can set")]
    Mode {
        /// The entry.
        path: RelPath,
        /// Its mode.
        mode: u32,
    },
    /// Base64 that isn't, or doesn't go with the text beside it.
    #[error("{key} of \"{near}\" is not valid base64 of the name beside it")]
    Bytes {
        /// The key in the document.
        key: &'static str,
        /// The text beside it, shortened.
        near: String,
    },
    /// An extended attribute that Linux wouldn't take.
    #[error("the extended attribute \"{name}\" of \"{path}\" is not valid")]
    Xattr {
        /// The entry.
        path: RelPath,
        /// The attribute's name, shortened.
        name: String,
    },
    /// A symlink's target that is empty, too long or holds a NUL.
    #[error("the target of the symlink \"{path}\" is empty, too long or holds a NUL byte")]
    Target {
        /// The entry.
        path: RelPath,
    },
    /// Two entries of one path.
    #[error("\"{path}\" is in the document twice")]
    Duplicate {
        /// The path.
        path: RelPath,
    },
    /// An entry below one that isn't a directory.
    #[error("\"{below}\" is below \"{path}\", which is not a directory")]
    NotADirectory {
        /// The file or symlink.
        path: RelPath,
        /// The entry below it.
        below: RelPath,
    },
    /// A hard link whose other name isn't a file equal to it.
    #[error("\"{path}\" can't be a hard link of \"{target}\": {why}")]
    Hardlink {
        /// The entry.
        path: RelPath,
        /// What it is said to be a second name of.
        target: RelPath,
        /// What is wrong.
        why: &'static str,
    },
}

impl From<serde_json::Error> for DocumentError {
    fn from(error: serde_json::Error) -> Self {
        if error.is_io() {
            Self::Io(error.into())
        } else {
            Self::Json(error)
        }
    }
}

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
pub struct FileEntry {
    /// Where it is.
    pub path: RelPath,
    /// Its bytes.
    pub content: Content,
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

impl FileEntry {
    /// How many bytes it is in a document, its comma left out.
    ///
    /// # Errors
    /// When its mtime is outside the years 0 to 9999.
    pub fn encoded_length(&self) -> Result<u64, DocumentError> {
        write::file_length(self)
    }
}

impl DirectoryEntry {
    /// How many bytes it is in a document, its comma left out.
    ///
    /// # Errors
    /// When its mtime is outside the years 0 to 9999.
    pub fn encoded_length(&self) -> Result<u64, DocumentError> {
        write::directory_length(self)
    }
}

impl SymlinkEntry {
    /// How many bytes it is in a document, its comma left out.
    ///
    /// # Errors
    /// When its mtime is outside the years 0 to 9999.
    pub fn encoded_length(&self) -> Result<u64, DocumentError> {
        write::symlink_length(self)
    }
}

impl WhiteoutEntry {
    /// How many bytes it is in a document, its comma left out.
    ///
    /// # Errors
    /// When its mtime is outside the years 0 to 9999.
    pub fn encoded_length(&self) -> Result<u64, DocumentError> {
        write::whiteout_length(self)
    }
}

/// All entries of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// Regular files.
    pub files: Vec<FileEntry>,
    /// Directories. A parent that isn't listed is made with default attributes.
    pub directories: Vec<DirectoryEntry>,
    /// Symbolic links.
    pub symlinks: Vec<SymlinkEntry>,
    /// Whiteouts.
    pub whiteouts: Vec<WhiteoutEntry>,
}

impl Document {
    /// Reads and checks a document. Memory stays within a small multiple of the input's length.
    ///
    /// # Errors
    /// When it is malformed, inconsistent or over a limit.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        check_length(bytes.len() as u64)?;
        let document = read::read(bytes, MAX_ENTRIES)?;
        document.validate()?;
        Ok(document)
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
        let document = read::read_stream(stream, length, MAX_ENTRIES)?;
        document.validate()?;
        Ok(document)
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
    pub fn validate(&self) -> Result<(), DocumentError> {
        validate::validate(self)
    }
}

fn check_length(bytes: u64) -> Result<(), DocumentError> {
    if bytes > MAX_DOCUMENT_BYTES {
        Err(DocumentError::TooLarge { bytes })
    } else {
        Ok(())
    }
}

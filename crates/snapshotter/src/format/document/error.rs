//! What can be wrong with a document.

use std::io;

use thiserror::Error;

use crate::format::zstd::ZstdError;
use crate::words::digest::DigestError;
use crate::words::entry::MtimeError;
use crate::words::relpath::{RelPath, RelPathError};

/// A document that is malformed, inconsistent or over a limit.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// More bytes than [`MAX_DOCUMENT_BYTES`](super::MAX_DOCUMENT_BYTES).
    #[error("the document has {bytes} bytes; 256 MiB is the limit")]
    TooLarge {
        /// Its length in bytes.
        bytes: u64,
    },
    /// More entries than [`MAX_ENTRIES`](super::MAX_ENTRIES).
    #[error("the document has more than 1,048,576 entries")]
    TooManyEntries,
    /// More extended attributes than [`MAX_XATTRS`](super::MAX_XATTRS).
    #[error("the document has more than 4,194,304 extended attributes")]
    TooManyXattrs,
    /// Not JSON, or not of the right shape.
    #[error("the document is not JSON of the right shape")]
    Json(#[source] serde_json::Error),
    /// Bytes that could not be read or written.
    #[error("the document's bytes could not be read or written")]
    Io(#[source] io::Error),
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
    /// A format, or something a reader has to know, that this release does not.
    #[error("the document needs {what}, which this release does not know")]
    Unsupported {
        /// What it is.
        what: String,
    },
    /// Not the one zstd frame that is allowed.
    #[error("the document is not compressed as it has to be")]
    Zstd(#[from] ZstdError),
    /// More pages than there can be.
    #[error("the files have more than 2^51 pages together")]
    PageSpace,
    /// Packs or a map that a document cannot have, or that are not those it names.
    #[error("the packs of the document are not valid: {what}")]
    Packs {
        /// What is wrong.
        what: &'static str,
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
    /// A file whose name is not UTF-8, and cannot be told from another one's as text.
    #[error("the name \"{path}\" is not UTF-8, and as text it is another file's too")]
    Spelling {
        /// Its path.
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
            Self::from(io::Error::from(error))
        } else {
            Self::Json(error)
        }
    }
}

impl From<io::Error> for DocumentError {
    fn from(error: io::Error) -> Self {
        let zstd = error.get_ref().and_then(|source| source.downcast_ref());
        match zstd {
            Some(fault) => Self::Zstd(ZstdError::clone(fault)),
            None => Self::Io(error),
        }
    }
}

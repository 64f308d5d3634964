//! The one error type of the public API.
//!
//! Callers branch on [`ErrorKind`]; people read the text. The text names what was being done and to what; the
//! cause stays in [`std::error::Error::source`] and is not repeated, so a printed chain says each thing once.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::reference::Reference;

/// What went wrong, as far as a caller can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request or the configuration is wrong; the text names the field.
    InvalidInput,
    /// The snapshot, the path or the directory is not there.
    NotFound,
    /// The snapshot, or a file that must not be replaced, is there already.
    AlreadyExists,
    /// Stored bytes or records are not what they were when they were stored.
    Damaged,
    /// This platform, filesystem, format or store version cannot do it.
    Unsupported,
    /// The operating system refused access.
    PermissionDenied,
    /// A filesystem, a quota or a limit is full.
    NoSpace,
    /// Somebody else holds what is needed; the same call may succeed later.
    Busy,
    /// A server or daemon could not be reached; the same call may succeed later.
    Unavailable,
    /// The caller gave the operation up.
    Cancelled,
    /// A mistake in this library, or an operating system error without a better kind.
    Internal,
}

impl ErrorKind {
    /// The kind as scripts know it: `snake_case`, stable.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid_input",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Damaged => "damaged",
            Self::Unsupported => "unsupported",
            Self::PermissionDenied => "permission_denied",
            Self::NoSpace => "no_space",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }

    /// Whether the same call may succeed later without anything being changed by the caller.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Busy | Self::Unavailable)
    }

    pub(crate) fn of_io(error: &io::Error) -> Self {
        if error.raw_os_error() == Some(libc::ELOOP) {
            return Self::InvalidInput;
        }
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::PermissionDenied
            }
            io::ErrorKind::AlreadyExists => Self::AlreadyExists,
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::NoSpace,
            io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::InvalidFilename => Self::InvalidInput,
            io::ErrorKind::Unsupported => Self::Unsupported,
            io::ErrorKind::WouldBlock => Self::Busy,
            _ => Self::Internal,
        }
    }
}

/// What helps against any full filesystem.
pub(crate) const FREE_SOME: &str =
    "make room on its filesystem (bytes, inodes, or a quota or limit), and try again";

/// What helps where a process may not open or write more, though the machine could.
const RAISE_OPEN_FILES: &str = "this process, or the machine, has no more files to open: raise `ulimit -n`, or lower \
     restore_concurrency and snapshot_concurrency";
const RAISE_FILE_SIZE: &str =
    "this process may not make a file so large, or the filesystem cannot: raise `ulimit -f`";

/// What to do about an error of the operating system, where there is something.
pub(crate) fn hint_of_io(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => Some(RAISE_OPEN_FILES),
        Some(libc::EFBIG) => Some(RAISE_FILE_SIZE),
        _ => (ErrorKind::of_io(error) == ErrorKind::NoSpace).then_some(FREE_SOME),
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The result of this library's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this library: a [kind](Error::kind) to act on, a text to read, the path or snapshot it is about, a hint
/// where there is a way out, and the cause.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    path: Option<PathBuf>,
    reference: Option<Reference>,
    hint: Option<Cow<'static, str>>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            path: None,
            reference: None,
            hint: None,
            source: None,
        }))
    }

    pub(crate) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    pub(crate) fn damaged(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Damaged, message)
    }

    pub(crate) fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "the operation was cancelled")
    }

    pub(crate) fn io(doing: &str, path: &Path, source: io::Error) -> Self {
        let kind = ErrorKind::of_io(&source);
        let hint = hint_of_io(&source);
        let made = Self::new(kind, format!("cannot {doing} {}", path.display()))
            .with_path(path)
            .with_source(source);
        match hint {
            Some(hint) => made.with_hint(hint),
            None => made,
        }
    }

    pub(crate) fn with_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.path.get_or_insert(path.into());
        self
    }

    pub(crate) fn with_reference(mut self, reference: &Reference) -> Self {
        self.0.reference.get_or_insert_with(|| reference.clone());
        self
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint.get_or_insert(hint.into());
        self
    }

    pub(crate) fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What went wrong, as far as a caller can act on it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The file or directory the error is about.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The snapshot the error is about.
    #[must_use]
    pub fn reference(&self) -> Option<&Reference> {
        self.0.reference.as_ref()
    }

    /// It and its causes in one line.
    pub(crate) fn line(&self) -> String {
        let mut line = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            line += &format!(": {cause}");
            source = cause.source();
        }
        line
    }

    /// What to do next, where there is something to do.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("path", &self.0.path)
            .field("reference", &self.0.reference)
            .field("source", &self.0.source)
            .finish_non_exhaustive()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// Puts what was being done, and to which path, on an I/O error.
pub(crate) trait At<T> {
    /// `doing` reads after "cannot": `open`, `sync`, `create the directory`.
    fn at(self, doing: &str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<io::Error>> At<T> for std::result::Result<T, E> {
    fn at(self, doing: &str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|error| Error::io(doing, path.as_ref(), error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn an_io_error_names_the_path_once_and_keeps_its_cause() {
        let cause = io::Error::from_raw_os_error(libc::ENOSPC);
        let error = Error::io("write", Path::new("/a/b"), cause);
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert_eq!(error.to_string(), "cannot write /a/b");
        assert_eq!(error.path(), Some(Path::new("/a/b")));
        let cause = error.source().unwrap();
        assert_eq!(error.line(), format!("cannot write /a/b: {cause}"));
    }

    #[test]
    fn only_busy_and_unavailable_are_worth_a_retry() {
        assert!(ErrorKind::Busy.is_retryable() && ErrorKind::Unavailable.is_retryable());
        assert!(!ErrorKind::Damaged.is_retryable() && !ErrorKind::NoSpace.is_retryable());
    }
}

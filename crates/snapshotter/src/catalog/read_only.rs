//! The catalog of a root on a read-only mount: SQLite reads it without writing anything, and nobody writes through it.
//!
//! Where the log's index is there, as it is in a store that was ever open, SQLite shares it with whoever writes by another
//! mount, and where nobody does it makes one in memory of the log. Without that file it can do so only alone: where nobody
//! can write, no lock is needed, and where somebody could, the catalog is refused.

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::Catalog;
use super::open::{SCHEMA_VERSION, connect_by, newer};
use crate::fs::Dir;
use crate::fs::counter::Counter;
use crate::fs::space::ReadOnly;
use crate::words::error::{At, Error, ErrorKind, Result};

/// How a catalog's file is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Read and written, and made where it is not there.
    Write,
    /// Read, together with whoever writes.
    Shared,
    /// Read with its log, where nobody can write.
    Alone,
    /// Read where nobody can write and there is no log.
    Immutable,
}

impl Access {
    /// Opens a connection; the path has no symlinks, and the file is none.
    pub(super) fn open(self, path: &Path) -> rusqlite::Result<Connection> {
        let reading = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NOFOLLOW
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let writing = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NOFOLLOW
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        match self {
            Self::Write => Connection::open_with_flags(path, writing),
            Self::Shared => Connection::open_with_flags(path, reading),
            Self::Alone => {
                let opened = Connection::open_with_flags_and_vfs(path, reading, c"unix-none")?;
                // The log's index is in memory then.
                opened.pragma_update_and_check(None, "locking_mode", "EXCLUSIVE", |_| Ok(()))?;
                Ok(opened)
            }
            Self::Immutable => {
                let uri = format!("file:{}?immutable=1", escaped(path));
                Connection::open_with_flags(uri, reading | OpenFlags::SQLITE_OPEN_URI)
            }
        }
    }

    fn of(metadata: &Dir, read_only: ReadOnly) -> Result<Self> {
        let there = |name: &str| -> Result<bool> {
            let name = OsStr::new(name);
            let found = metadata.stat_if_any(name);
            Ok(found.at("examine", metadata.path_of(name))?.is_some())
        };
        let (log, index) = (there("catalog.db-wal")?, there("catalog.db-shm")?);
        match (read_only, log, index) {
            (_, true, true) => Ok(Self::Shared),
            (ReadOnly::Everywhere, true, false) => Ok(Self::Alone),
            (ReadOnly::Everywhere, false, _) => Ok(Self::Immutable),
            (ReadOnly::Here, ..) => Err(to_be_opened(metadata)),
        }
    }
}

/// What a URI of SQLite's takes for a path.
fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.as_os_str().as_bytes() {
        let _ = match byte {
            b'/' | b'-' | b'_' | b'.' => write!(text, "{}", char::from(*byte)),
            _ if byte.is_ascii_alphanumeric() => write!(text, "{}", char::from(*byte)),
            _ => write!(text, "%{byte:02x}"),
        };
    }
    text
}

impl Catalog {
    /// Opens the catalog in `metadata` for reading alone.
    ///
    /// # Errors
    /// `NotFound` where there is none; `Unsupported` for one that has to be written first: of an older release, or without
    /// what those who read and those who write share.
    pub(crate) fn open_read_only(
        metadata: &Dir,
        read_only: ReadOnly,
        generation: Counter,
        busy_timeout: Duration,
    ) -> Result<Self> {
        let name = OsStr::new("catalog.db");
        let path = metadata.path_of(name);
        if metadata.stat_if_any(name).at("examine", &path)?.is_none() {
            let text = format!(
                "there is no catalog {}, and none can be made",
                path.display()
            );
            return Err(Error::new(ErrorKind::NotFound, text)
                .with_path(path)
                .with_hint("the root is on a read-only mount"));
        }
        let access = Access::of(metadata, read_only)?;
        let catalog = connect_by(&path, access, generation, busy_timeout)?;
        match catalog.read(|txn| txn.schema_version())? {
            SCHEMA_VERSION => Ok(catalog),
            0..SCHEMA_VERSION => Err(to_be_opened(metadata)),
            version => Err(newer(&path, version)),
        }
    }

    /// Whether nothing can be written through this handle.
    pub(crate) fn is_read_only(&self) -> bool {
        self.access != Access::Write
    }

    /// Refuses what has to write where nothing can be written.
    ///
    /// # Errors
    /// `PermissionDenied`, then.
    pub(crate) fn require_writable(&self) -> Result<()> {
        if !self.is_read_only() {
            return Ok(());
        }
        let root = self.path.parent().and_then(Path::parent);
        Err(is_read_only(root.unwrap_or(&self.path)))
    }
}

/// The error of what has to write.
pub(crate) fn is_read_only(root: &Path) -> Error {
    let text = format!("the root {} is on a read-only mount", root.display());
    Error::new(ErrorKind::PermissionDenied, text).with_path(root).with_hint(
        "what is there can be listed, verified and restored; everything else takes a writable mount",
    )
}

fn to_be_opened(metadata: &Dir) -> Error {
    let path = metadata.path();
    let text = format!(
        "the catalog in {} cannot be read without being written",
        path.display()
    );
    Error::new(ErrorKind::Unsupported, text)
        .with_path(path)
        .with_hint("it is of an older release, or was copied without its -shm: open it once with this release where it is mounted writable")
}

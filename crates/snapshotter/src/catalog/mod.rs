//! The embedded database: which snapshots exist, which blobs they need, who relies on what.
//!
//! Everything is one of two calls: [`Catalog::read`] sees one consistent state, [`Catalog::write`] starts with
//! `BEGIN IMMEDIATE`, because a read transaction cannot be upgraded once somebody else has written
//! (SQLITE_BUSY_SNAPSHOT). The write lock is also the store's *names lock*: files gain and lose names under `storage/`
//! only while it is held. No code but SQLite opens `catalog.db`, since closing any descriptor of it would drop
//! SQLite's POSIX locks.
//!
//! A call takes a connection that is idle, or opens another one, so nobody who reads waits for anybody who writes, or
//! waits to write. Rows are named by what they are about, never by their ids: see `objects.rs`.

mod artifacts;
mod contents;
mod gc;
mod generation;
mod leases;
mod migrate;
mod names;
mod objects;
mod open;
mod origins;
mod packs;
mod places;
mod problems;
mod read_only;
mod rebuild;
mod references;
#[cfg(feature = "registry")]
mod remote;
mod shrink;
mod snapshots;
mod tags;
mod unsynced;
mod views;

pub(crate) use artifacts::Stored;
pub(crate) use contents::{Content, Contents};
pub(crate) use gc::{Relied, StoredBlob};
pub(crate) use leases::Leased;
pub(crate) use names::{
    Shard, StoredName, Tree, content_name, parse_content_name, parse_view_name, view_name,
};
pub(crate) use objects::{Blob, BlobState, Confirmed, NewBlob};
pub(crate) use open::{IsDone, KEPT_LOG, Opening};
pub(crate) use origins::DirectoryId;
pub(crate) use packs::{NewPack, Pack};
pub(crate) use places::PublicationRow;
#[cfg(feature = "registry")]
pub(crate) use places::{Address, SeenBy};
use read_only::Access;
pub(crate) use read_only::is_read_only;
pub(crate) use rebuild::{Condition, Entries, Named, Salvage, salvage};
pub(crate) use references::{Doomed, ExclusiveBlob};
pub(crate) use snapshots::{Finished, Snapshot, State, Totals};
pub(crate) use unsynced::Unsynced;
pub(crate) use views::{ViewInode, ViewKey};

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::fs::counter::Counter;
use crate::fs::hook::step;
use crate::fs::{Dir, lock, space};
use crate::words::error::{At, Error, ErrorKind, FREE_SOME, Result, hint_of_io};

/// Whether a commit must survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// The call promises durability, or a file will be unlinked because of it.
    Full,
    /// A later commit or checkpoint makes it durable.
    Normal,
}

/// Connections kept open between calls: one for each thread that usually asks at once.
const KEPT: usize = 4;

/// An open catalog. Methods block. Any number of threads may read, one of a process writes at a time.
#[derive(Debug)]
pub(crate) struct Catalog {
    idle: Mutex<Vec<Connection>>,
    writing: Mutex<()>,
    path: PathBuf,
    access: Access,
    busy_timeout: Duration,
    /// The generation as it is known outside, raised after each commit that has to last.
    generation: Counter,
    /// Whether something was written through this handle that has to last.
    wrote: AtomicBool,
    ask: Ask,
}

/// Makes sure of something before a transaction begins, and before it is committed.
struct Ask(Option<Box<dyn Fn() -> Result<()> + Send + std::marker::Sync>>);

impl Ask {
    fn first(&self) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |ask| ask())
    }
}

impl std::fmt::Debug for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Ask").field(&self.0.is_some()).finish()
    }
}

/// A transaction, on which the row operations of this module's files are defined.
pub(crate) struct Txn<'c> {
    inner: Transaction<'c>,
    path: &'c Path,
}

impl Catalog {
    /// The same catalog, which asks before a transaction begins and before it is committed.
    pub(crate) fn asking_first(
        self,
        ask: impl Fn() -> Result<()> + Send + std::marker::Sync + 'static,
    ) -> Self {
        Self {
            ask: Ask(Some(Box::new(ask))),
            ..self
        }
    }

    /// Runs `body` in a transaction that sees one consistent state.
    pub(crate) fn read<T>(&self, body: impl FnOnce(&Txn<'_>) -> Result<T>) -> Result<T> {
        let mut connection = self.connection()?;
        let txn = self.begin(&mut connection, TransactionBehavior::Deferred)?;
        body(&txn)
    }

    /// Runs `body` holding the names lock and commits what it did, unless it fails.
    pub(crate) fn write<T>(
        &self,
        sync: Sync,
        body: impl FnOnce(&Txn<'_>) -> Result<T>,
    ) -> Result<T> {
        self.require_writable()?;
        // A panic inside a transaction rolled it back: there is nothing to be poisoned.
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut connection = self.connection()?;
        let synchronous = match sync {
            Sync::Full => "FULL",
            Sync::Normal => "NORMAL",
        };
        connection
            .pragma_update(None, "synchronous", synchronous)
            .map_err(|error| self.error(error))?;
        let txn = self.begin(&mut connection, TransactionBehavior::Immediate)?;
        let value = body(&txn)?;
        let generation = match sync {
            Sync::Full => Some(txn.next_generation()?),
            Sync::Normal => None,
        };
        step("commit").at("commit to", &self.path)?;
        self.ask.first()?;
        txn.inner.commit().map_err(|error| self.error(error))?;
        if let Some(number) = generation {
            self.generation.raise(number);
            self.wrote.store(true, Ordering::Relaxed);
        }
        Ok(value)
    }

    fn begin<'c>(
        &'c self,
        connection: &'c mut Connection,
        behavior: TransactionBehavior,
    ) -> Result<Txn<'c>> {
        self.ask.first()?;
        let inner = connection
            .transaction_with_behavior(behavior)
            .map_err(|error| self.error(error))?;
        Ok(Txn {
            inner,
            path: &self.path,
        })
    }

    /// A connection that nobody else uses meanwhile.
    fn connection(&self) -> Result<Lent<'_>> {
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => open::connection(&self.path, self.access, self.busy_timeout)?,
        };
        Ok(Lent {
            catalog: self,
            connection: Some(connection),
        })
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, error: rusqlite::Error) -> Error {
        sqlite_error(&self.path, error)
    }
}

/// A connection that goes back to the idle ones when it is dropped.
struct Lent<'c> {
    catalog: &'c Catalog,
    connection: Option<Connection>,
}

impl std::ops::Deref for Lent<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
            .as_ref()
            .unwrap_or_else(|| unreachable!("it goes back when it is dropped"))
    }
}

impl std::ops::DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection
            .as_mut()
            .unwrap_or_else(|| unreachable!("it goes back when it is dropped"))
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut idle = self.catalog.idle();
        if idle.len() < KEPT {
            idle.extend(self.connection.take());
        }
    }
}

impl Txn<'_> {
    fn error(&self, error: rusqlite::Error) -> Error {
        sqlite_error(self.path, error)
    }

    fn execute(&self, sql: &str, params: impl rusqlite::Params) -> Result<usize> {
        let mut statement = self
            .inner
            .prepare_cached(sql)
            .map_err(|error| self.error(error))?;
        statement.execute(params).map_err(|error| self.error(error))
    }

    /// The id it gives is for this transaction, but for a snapshot's, which its lease keeps.
    fn insert(&self, sql: &str, params: impl rusqlite::Params) -> Result<i64> {
        self.execute(sql, params)?;
        Ok(self.inner.last_insert_rowid())
    }

    fn first<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        row: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        use rusqlite::OptionalExtension;
        let mut statement = self
            .inner
            .prepare_cached(sql)
            .map_err(|error| self.error(error))?;
        statement
            .query_row(params, row)
            .optional()
            .map_err(|error| self.error(error))
    }

    fn all<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        row: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let mut statement = self
            .inner
            .prepare_cached(sql)
            .map_err(|error| self.error(error))?;
        statement
            .query_map(params, row)
            .and_then(Iterator::collect)
            .map_err(|error| self.error(error))
    }
}

/// The way to a catalog, where there is something else.
const BACK: &str =
    "put metadata/ back from a backup, or let `rebuild` make a new one of what is there";

/// The error of a catalog that somebody else holds: SQLite's locks are those of the log's index.
fn is_held(path: &Path) -> Error {
    let index = Dir::open(path.parent().unwrap_or(path)).ok();
    let index = index.and_then(|dir| dir.stat(OsStr::new("catalog.db-shm")).ok());
    let who = index.map_or("another process".to_owned(), |index| lock::holder(&index));
    Error::new(
        ErrorKind::Busy,
        format!("the catalog {} failed", path.display()),
    )
    .with_path(path)
    .with_hint(format!("{who} holds the catalog; try again"))
}

fn sqlite_error(path: &Path, error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode;
    // What SQLite met is what the system said last on this thread.
    let said = std::io::Error::last_os_error();
    let (kind, hint) = match error.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed,
        ) => return is_held(path).with_source(error),
        Some(ErrorCode::DiskFull) => (ErrorKind::NoSpace, Some(FREE_SOME)),
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) if is_for_space(&said, path) => {
            (ErrorKind::NoSpace, hint_of_io(&said))
        }
        Some(ErrorCode::CannotOpen) if is_for_descriptors(&said) => {
            (ErrorKind::Internal, hint_of_io(&said))
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            (ErrorKind::Damaged, Some(BACK))
        }
        Some(ErrorCode::CannotOpen) if path.metadata().is_ok_and(|found| !found.is_file()) => {
            (ErrorKind::Damaged, Some(BACK))
        }
        Some(
            ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::CannotOpen
            | ErrorCode::AuthorizationForStatementDenied,
        ) => (ErrorKind::PermissionDenied, None),
        None if is_bad_value(&error) => (ErrorKind::Damaged, None),
        _ => (ErrorKind::Internal, None),
    };
    let made = Error::new(kind, format!("the catalog {} failed", path.display()))
        .with_path(path)
        .with_source(error);
    match hint {
        Some(hint) => made.with_hint(hint),
        None => made,
    }
}

/// With less than this left, in bytes, a filesystem may have refused to give some.
const SCARCE: u64 = 64 << 20;

/// SQLite calls a full disk by its name where it writes a file's bytes, and nowhere else: making a file and setting a
/// length fail as input and output, quotas always do. Since what the system said last may have been said of something
/// earlier, a disk with plenty left is not believed to be full.
fn is_for_space(said: &std::io::Error, path: &Path) -> bool {
    if ErrorKind::of_io(said) != ErrorKind::NoSpace {
        return false;
    }
    let left = Dir::open(path.parent().unwrap_or(path))
        .and_then(|dir| space::of(&dir).at("examine", path));
    said.kind() != std::io::ErrorKind::StorageFull
        || left.map_or(true, |left| {
            left.available < SCARCE || (left.inodes > 0 && left.available_inodes == 0)
        })
}

fn is_for_descriptors(said: &std::io::Error) -> bool {
    matches!(said.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

fn is_bad_value(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
    )
}

/// A column that does not hold what the schema promises.
fn bad_column(
    index: usize,
    error: impl std::error::Error + Send + std::marker::Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Blob, Box::new(error))
}

/// SQLite's integers are signed: sizes fit, because no file is larger than `i64::MAX`.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The way back; a negative value cannot have been written by [`signed`].
fn unsigned(row: &rusqlite::Row<'_>, index: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(index)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(index, value))
}

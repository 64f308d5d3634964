//! The embedded database: which snapshots exist, which blobs they need, who relies on what.
//!
//! Everything is one of two calls: [`Catalog::read`] sees one consistent state, [`Catalog::write`] starts with
//! `BEGIN IMMEDIATE`, because a read transaction cannot be upgraded once somebody else has written
//! (SQLITE_BUSY_SNAPSHOT). The write lock is also the store's *names lock*: files gain and lose names under `storage/`
//! only while it is held. No code but SQLite opens `catalog.db`, since closing any descriptor of it would drop
//! SQLite's POSIX locks.

mod blobs;
mod gc;
mod leases;
mod open;
mod places;
mod problems;
mod rebuild;
#[cfg(feature = "registry")]
mod remote;
mod snapshots;

pub(crate) use blobs::{Blob, BlobState, Doomed, Form, NewBlob, Unsynced, ViewInode, ViewKey};
pub(crate) use gc::{Relied, StoredBlob};
pub(crate) use places::PublicationRow;
#[cfg(feature = "registry")]
pub(crate) use places::{Address, SeenBy};
pub(crate) use rebuild::{Condition, Named, Salvage, salvage};
pub(crate) use snapshots::{Finished, Snapshot, State, Totals};

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::fs::hook::step;
use crate::words::error::{At, Error, ErrorKind, Result};

/// Whether a commit must survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// The call promises durability, or a file will be unlinked because of it.
    Full,
    /// A later commit or checkpoint makes it durable.
    Normal,
}

/// An open catalog. Methods block, and only one thread of a process is inside at a time.
#[derive(Debug)]
pub(crate) struct Catalog {
    connection: Mutex<Connection>,
    path: PathBuf,
}

/// A transaction, on which the row operations of this module's files are defined.
pub(crate) struct Txn<'c> {
    inner: Transaction<'c>,
    path: &'c Path,
}

impl Catalog {
    /// Runs `body` in a transaction that sees one consistent state.
    pub(crate) fn read<T>(&self, body: impl FnOnce(&Txn<'_>) -> Result<T>) -> Result<T> {
        let mut connection = self.lock();
        let txn = self.begin(&mut connection, TransactionBehavior::Deferred)?;
        body(&txn)
    }

    /// Runs `body` holding the names lock and commits what it did, unless it fails.
    pub(crate) fn write<T>(
        &self,
        sync: Sync,
        body: impl FnOnce(&Txn<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut connection = self.lock();
        let synchronous = match sync {
            Sync::Full => "FULL",
            Sync::Normal => "NORMAL",
        };
        connection
            .pragma_update(None, "synchronous", synchronous)
            .map_err(|error| self.error(error))?;
        let txn = self.begin(&mut connection, TransactionBehavior::Immediate)?;
        let value = body(&txn)?;
        step("commit").at("commit to", &self.path)?;
        txn.inner.commit().map_err(|error| self.error(error))?;
        Ok(value)
    }

    fn begin<'c>(
        &'c self,
        connection: &'c mut Connection,
        behavior: TransactionBehavior,
    ) -> Result<Txn<'c>> {
        let inner = connection
            .transaction_with_behavior(behavior)
            .map_err(|error| self.error(error))?;
        Ok(Txn {
            inner,
            path: &self.path,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Connection> {
        // A panic inside a transaction rolled it back: the connection is good.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, error: rusqlite::Error) -> Error {
        sqlite_error(&self.path, error)
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

fn sqlite_error(path: &Path, error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode;
    let (kind, hint) = match error.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed,
        ) => (
            ErrorKind::Busy,
            Some("another process holds the catalog; try again"),
        ),
        Some(ErrorCode::DiskFull) => (ErrorKind::NoSpace, None),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => (ErrorKind::Damaged, None),
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

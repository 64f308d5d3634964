//! Opening, creating and migrating the catalog.

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::places::PLACES;
use super::{Catalog, Sync, Txn, sqlite_error};
use crate::words::error::{Error, ErrorKind, Result};

/// The schema this release writes.
pub(super) const SCHEMA_VERSION: i64 = 3;

const SCHEMA: &str = include_str!("schema.sql");

/// The page cache, in KiB: the rows of tens of thousands of blobs, so that a large snapshot does not read them back.
const CACHE_KIB: i64 = 16 << 10;

/// The log is copied into the database when it has this many pages (64 MiB). Each time costs a sync, which on ext4 waits
/// for the data of all files written meanwhile, so it must not happen in the middle of a snapshot of small files.
const CHECKPOINT_PAGES: i64 = 16 << 10;

/// A log shorter than this is left for the next opener, who reads it in about a millisecond, in bytes.
const SHORT_LOG: u64 = 1 << 20;

/// Compiled statements kept a connection: more than there are, so none is ever compiled twice.
const STATEMENTS: usize = 64;

impl Catalog {
    /// Opens the catalog at `path`, creating it where there is none and `may_create` allows it.
    ///
    /// # Errors
    /// `Unsupported` for a newer schema; whatever `may_create` says; the operating system's.
    pub(crate) fn open(
        path: &Path,
        busy_timeout: Duration,
        may_create: impl FnOnce() -> Result<()>,
    ) -> Result<Self> {
        let catalog = connect(path, busy_timeout)?;
        catalog.migrate(may_create)?;
        Ok(catalog)
    }

    /// Copies the log into the database if it has grown and nobody else is reading, so that the next opener does not have
    /// to read it. Best effort: it is only ever a matter of time.
    pub(crate) fn shorten_log(&self) {
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        let size = std::fs::symlink_metadata(&log).map_or(0, |metadata| metadata.len());
        if size < SHORT_LOG {
            return;
        }
        let connection = self.lock();
        let shortened = connection
            .busy_timeout(Duration::ZERO)
            .and_then(|()| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
        if let Err(error) = shortened {
            tracing::debug!(%error, "the catalog's log was not shortened");
        }
    }

    fn migrate(&self, may_create: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.read(|txn| txn.schema_version())? == SCHEMA_VERSION {
            return Ok(());
        }
        // Looked at again under the lock: another process may have been creating it.
        self.write(Sync::Full, |txn| match txn.schema_version()? {
            SCHEMA_VERSION => Ok(()),
            0 => {
                may_create()?;
                txn.create_schema()
            }
            1 => {
                txn.add_inodes()?;
                txn.add_places()
            }
            2 => txn.add_places(),
            version => Err(newer(&self.path, version)),
        })
    }
}

/// Connects to the database at `path`, whatever is in it; makes an empty one where there is none.
pub(super) fn connect(path: &Path, busy_timeout: Duration) -> Result<Catalog> {
    let fail = |error| sqlite_error(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(fail)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.busy_timeout(busy_timeout).map_err(fail)?;
    use_wal(&connection, busy_timeout).map_err(fail)?;
    configure(&connection).map_err(fail)?;
    Ok(Catalog {
        connection: Mutex::new(connection),
        path: path.to_owned(),
    })
}

pub(super) fn newer(path: &Path, version: i64) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "the catalog {} has schema {version}; this release knows {SCHEMA_VERSION}",
            path.display()
        ),
    )
    .with_path(path)
    .with_hint("use the release that wrote it, or a newer one")
}

impl Txn<'_> {
    pub(super) fn schema_version(&self) -> Result<i64> {
        self.inner
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(|error| self.error(error))
    }

    /// From version 1. No inode has the number 0, so a view of which none is known is made anew.
    fn add_inodes(&self) -> Result<()> {
        self.inner
            .execute_batch(
                "ALTER TABLE blobs ADD COLUMN inode INTEGER;
                 ALTER TABLE views ADD COLUMN inode INTEGER NOT NULL DEFAULT 0;",
            )
            .map_err(|error| self.error(error))
    }

    /// From version 2, whose snapshots had a state that said published, and not where.
    fn add_places(&self) -> Result<()> {
        self.inner
            .execute_batch(PLACES)
            .and_then(|()| {
                self.inner
                    .pragma_update(None, "user_version", SCHEMA_VERSION)
            })
            .map_err(|error| self.error(error))?;
        self.places_from_states()
    }

    pub(super) fn create_schema(&self) -> Result<()> {
        self.inner
            .execute_batch(SCHEMA)
            .and_then(|()| self.inner.execute_batch(PLACES))
            .and_then(|()| {
                self.inner
                    .pragma_update(None, "user_version", SCHEMA_VERSION)
            })
            .map_err(|error| self.error(error))
    }
}

/// Switching to WAL needs the file for itself and does not wait by the busy timeout, so two first openers retry here.
fn use_wal(connection: &Connection, patience: Duration) -> rusqlite::Result<()> {
    let until = Instant::now() + patience;
    loop {
        let result = connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()));
        match result {
            Err(error)
                if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
                    && Instant::now() < until =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    // Closing would copy the log and sync twice, which waits for other people's data: see `Catalog::shorten_log`.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    // The log is cut back to this after a checkpoint, so one huge transaction does not keep its disk space.
    connection.pragma_update(None, "journal_size_limit", 64 << 20)
}

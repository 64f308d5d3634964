//! Opening and creating the catalog, and closing it.

use std::ffi::OsStr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior};

use super::read_only::Access;
use super::{Ask, Catalog, Sync, Txn, sqlite_error};
use crate::fs::Dir;
use crate::fs::counter::Counter;
use crate::words::error::{At, Error, ErrorKind, Result};

/// The schema this release writes.
pub(super) const SCHEMA_VERSION: i64 = 4;

const SCHEMA: &str = include_str!("schema.sql");

/// The page cache of a connection, in KiB. There are as many connections as threads that read at once, and what is not in
/// it is in the system's own cache.
const CACHE_KIB: i64 = 2 << 10;

/// The log is copied into the database when it has this many pages (64 MiB). Each time costs a sync, which on ext4 waits
/// for the data of all files written meanwhile, so it must not happen in the middle of a snapshot of small files.
const CHECKPOINT_PAGES: i64 = 16 << 10;

/// A log shorter than this is left for the next opener, who reads it in about a millisecond, in pages.
const SHORT_LOG: u64 = 256;

/// A log that is begun anew is cut back to this, so that one huge transaction does not keep its disk space, and small
/// ones on a full disk have what they need, in bytes.
pub(crate) const KEPT_LOG: u32 = 4 << 20;

/// Compiled statements kept a connection: more than there are, so none is ever compiled twice.
const STATEMENTS: usize = 64;

/// Says whether what is waited for is needed no more.
pub(crate) type IsDone<'a> = &'a dyn Fn() -> Result<bool>;

/// What opening a catalog may have to ask of whoever knows the root.
pub(crate) struct Opening<'a> {
    /// Refuses to make a catalog where there is none and should be one.
    pub(crate) may_create: &'a dyn Fn() -> Result<()>,
    /// Waits until no process of an older release uses the root, or what it is given says that there is no more need to.
    pub(crate) wait_for_older: &'a dyn Fn(IsDone<'_>) -> Result<()>,
    /// Makes room with what is set aside for that; whether there was any.
    pub(crate) give_up_reserve: &'a dyn Fn() -> Result<bool>,
    /// Whether the log's index has holes, which are to be filled while there is room for it.
    pub(crate) fill_index: bool,
}

impl Catalog {
    /// Opens the catalog at `path`, creating it where there is none, and brings an older one up to date.
    ///
    /// # Errors
    /// `Unsupported` for a newer schema; whatever `opening` says; the operating system's.
    pub(crate) fn open(
        path: &Path,
        generation: Counter,
        busy_timeout: Duration,
        opening: &Opening<'_>,
    ) -> Result<Self> {
        let catalog = connect(path, generation, busy_timeout)?;
        if opening.fill_index {
            catalog.fill_index()?;
        }
        match catalog.read(|txn| txn.schema_version())? {
            SCHEMA_VERSION => {}
            0 => catalog.write(Sync::Full, |txn| txn.create(opening))?,
            1..SCHEMA_VERSION => catalog.migrate(opening)?,
            version => return Err(newer(path, version)),
        }
        Ok(catalog)
    }

    /// Copies the log into the database and begins it anew, if something in it has to last, or it is long: a log has no
    /// second copy, and one flipped bit in it takes all that comes after. Best effort, and nobody is waited for: what
    /// another process reads, that one copies when it closes.
    pub(crate) fn close_log(&self) {
        if self.require_writable().is_err() {
            return;
        }
        let has_to = self.wrote.load(Ordering::Relaxed) || self.is_log_long().unwrap_or(false);
        if has_to
            && self.checkpoint()
            && let Err(error) = self.begin_log()
        {
            tracing::debug!(%error, "the catalog's log was not begun anew");
        }
    }

    /// Has a log that was copied begun anew: what was in it does not count from then on, and what is beyond [`KEPT_LOG`] is
    /// cut.
    pub(super) fn begin_log(&self) -> Result<()> {
        let mut connection = self.connection()?;
        let begun = connection
            .busy_timeout(Duration::ZERO)
            .and_then(|()| change_nothing(&mut connection));
        connection
            .busy_timeout(self.busy_timeout)
            .and(begun)
            .map_err(|error| self.error(error))
    }

    /// The first page that a log's index is told of has all of it written. Where somebody else writes, they do.
    fn fill_index(&self) -> Result<()> {
        match self.begin_log() {
            Err(error) if error.kind() == ErrorKind::Busy => Ok(()),
            filled => filled,
        }
    }

    /// Copies the log into the database, without waiting for anybody; whether all of it is there now, so that the next
    /// transaction begins the log anew. The log is not cut: on a full disk its blocks would be somebody else's.
    pub(crate) fn checkpoint(&self) -> bool {
        let copied = self.ask.first().and_then(|()| {
            self.connection()?
                .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
                    Ok(row.get::<_, i64>(1)? == row.get::<_, i64>(2)?)
                })
                .map_err(|error| self.error(error))
        });
        copied.unwrap_or_else(|error| {
            tracing::debug!(%error, "the catalog's log was not copied");
            false
        })
    }

    /// Whether the log is longer than an opener should have to read. Its file's size does not tell, since that stays when a
    /// log is begun anew: a frame counts if it has the log's own salt (SQLite's file format, section 4.1).
    fn is_log_long(&self) -> Result<bool> {
        let metadata = Dir::open(self.path.parent().unwrap_or(&self.path))?;
        let log = metadata.open_file(OsStr::new("catalog.db-wal"));
        let is_long = log.and_then(|log| is_long(&log));
        is_long.at("read the log of", &self.path)
    }
}

fn is_long(log: &std::fs::File) -> std::io::Result<bool> {
    let (mut of_log, mut of_frame) = ([0; 8], [0; 8]);
    log.read_exact_at(&mut of_log, 16)?;
    log.read_exact_at(&mut of_frame, 32 + SHORT_LOG * (24 + 4096) + 8)?;
    Ok(of_log == of_frame)
}

/// Connects to the database at `path`, whatever is in it; makes an empty one where there is none.
pub(super) fn connect(path: &Path, generation: Counter, busy_timeout: Duration) -> Result<Catalog> {
    connect_by(path, Access::Write, generation, busy_timeout)
}

pub(super) fn connect_by(
    path: &Path,
    access: Access,
    generation: Counter,
    busy_timeout: Duration,
) -> Result<Catalog> {
    let first = connection(path, access, busy_timeout)?;
    Ok(Catalog {
        access,
        idle: Mutex::new(vec![first]),
        writing: Mutex::default(),
        path: path.to_owned(),
        busy_timeout,
        generation,
        wrote: AtomicBool::new(false),
        ask: Ask(None),
    })
}

/// Opens one connection.
pub(super) fn connection(
    path: &Path,
    access: Access,
    busy_timeout: Duration,
) -> Result<Connection> {
    let fail = |error| sqlite_error(path, error);
    let connection = access.open(&without_symlinks(path)?).map_err(fail)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.busy_timeout(busy_timeout).map_err(fail)?;
    if access == Access::Write {
        use_wal(&connection, busy_timeout).map_err(fail)?;
    }
    configure(&connection).map_err(fail)?;
    Ok(connection)
}

/// SQLite refuses a path with a symlink anywhere in it, and the root may be reached through some.
pub(super) fn without_symlinks(path: &Path) -> Result<PathBuf> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(path.to_owned());
    };
    let parent = std::fs::canonicalize(parent).at("find", parent)?;
    Ok(parent.join(name))
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

    /// Looked at again under the lock: another process may have been creating it.
    fn create(&self, opening: &Opening<'_>) -> Result<()> {
        if self.schema_version()? == 0 {
            (opening.may_create)()?;
            self.create_schema()?;
        }
        Ok(())
    }

    pub(super) fn create_schema(&self) -> Result<()> {
        self.inner
            .execute_batch(SCHEMA)
            .map_err(|error| self.error(error))?;
        self.set_schema_version(SCHEMA_VERSION)
    }

    fn set_schema_version(&self, version: i64) -> Result<()> {
        self.inner
            .pragma_update(None, "user_version", version)
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

/// Writes the first page as it is. What fails is rolled back.
fn change_nothing(connection: &mut Connection) -> rusqlite::Result<()> {
    let txn = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = txn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    txn.pragma_update(None, "user_version", version)?;
    txn.commit()
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    // Closing would copy the log and sync twice, which waits for other people's data: see `Catalog::checkpoint`.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // Without this a statement is compiled again whenever a parameter that the planner looked at is bound anew.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", KEPT_LOG)
}

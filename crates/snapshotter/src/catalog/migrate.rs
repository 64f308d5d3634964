//! From the schemas of older releases to this one's.
//!
//! The old database is copied beside the new one and kept there until the next release; the copy is also what the rows are
//! read from. Nobody is interrupted: processes of an older release, which would go on by a schema that is gone, are waited
//! for first. All tables are replaced in one transaction, so whoever opens the catalog finds the old one or the new one.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::PoisonError;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::open::{Opening, SCHEMA_VERSION, newer};
use super::{Catalog, Result, Sync, Txn, signed};
use crate::fs::dir::{ignore_absent, sync_file};
use crate::fs::hook::step;
use crate::fs::{Dir, random_name};
use crate::words::error::{At, Error, ErrorKind};
use crate::words::extent::ExtentMap;

/// What the old catalog is called from then on, beside the new one.
const BEFORE: &str = "before-schema-3.db";

/// Children before their parents.
const OLD_TABLES: [&str; 6] = [
    "leases",
    "blob_references",
    "artifacts",
    "views",
    "snapshots",
    "blobs",
];

/// The rows, from the copy. Names stay where they are, above all shards.
const ROWS: &str = "
    INSERT INTO objects (id, key, kind, state, length, data_size, mtime_seconds, mtime_nanoseconds, inode, unsynced,
                         created_at)
    SELECT id, checksum, form, state, size, data_size, mtime_seconds, mtime_nanoseconds, inode, unsynced, created_at
    FROM old.blobs;
    INSERT INTO contents (object, digest, size, sha256, probe, extents)
    SELECT id, digest, size, sha256, probe, extents FROM old.blobs;
    INSERT INTO views (object, attributes, mtime_seconds, mtime_nanoseconds, inode, boot)
    SELECT blob, attributes, mtime_seconds, mtime_nanoseconds, inode, boot FROM old.views;
    INSERT INTO snapshots (id, name, version, state, removed, pinned, manifest_digest, created_at, last_accessed_at, files,
                           logical_bytes, data_bytes)
    SELECT id, name, version, state, removed, pinned, manifest_digest, created_at, last_accessed_at, files,
           logical_bytes, data_bytes
    FROM old.snapshots;
    INSERT INTO artifacts (snapshot, manifest, document) SELECT snapshot, manifest, document FROM old.artifacts;
    INSERT INTO object_references (snapshot, object) SELECT snapshot, blob FROM old.blob_references;
    INSERT INTO leases (owner, operation, snapshot) SELECT owner, operation, snapshot FROM old.leases;
";

/// How often another process may get in between the copy and the transaction.
const TRIES: u32 = 16;

impl Catalog {
    /// Brings an older catalog up to date.
    pub(super) fn migrate(&self, opening: &Opening<'_>) -> Result<()> {
        for _ in 0..TRIES {
            (opening.wait_for_older)()?;
            self.write(Sync::Normal, |txn| txn.add_inodes())?;
            if self.migrate_once()? {
                return Ok(());
            }
        }
        Err(Error::new(
            ErrorKind::Busy,
            format!("others keep writing into {}", self.path.display()),
        ))
    }

    /// `false`: somebody wrote in between, and it is to be done again.
    fn migrate_once(&self) -> Result<bool> {
        let connection = self.connection()?;
        let fail = |error| self.error(error);
        let version = || connection.pragma_query_value(None, "data_version", |row| row.get(0));
        let seen: i64 = version().map_err(fail)?;
        if !self.keep_copy(&connection)? {
            return Ok(true);
        }
        let copy = self.path.with_file_name(BEFORE);
        connection
            .execute("ATTACH ?1 AS old", [in_sql(&copy)])
            .map_err(fail)?;
        let replaced = self.replace_tables(&connection, || Ok(version()? == seen));
        connection.execute_batch("DETACH old").map_err(fail)?;
        replaced
    }

    /// Copies the database; `false`: it is up to date by now.
    fn keep_copy(&self, connection: &Connection) -> Result<bool> {
        let metadata = Dir::open(self.path.parent().unwrap_or(&self.path))?;
        let draft = random_name().at("read random bytes for", &self.path)?;
        let draft = OsString::from(format!("{BEFORE}.{draft}"));
        let version = self.copy_to(connection, &metadata.path_of(&draft));
        if !matches!(version, Ok(1..SCHEMA_VERSION)) {
            ignore_absent(metadata.unlink(&draft)).at("remove", metadata.path_of(&draft))?;
        }
        match version? {
            SCHEMA_VERSION => return Ok(false),
            1..SCHEMA_VERSION => {}
            version => return Err(newer(&self.path, version)),
        }
        let kept = metadata
            .open_file(&draft)
            .and_then(|file| sync_file(&file))
            .and_then(|()| metadata.rename(&draft, &metadata, OsStr::new(BEFORE)));
        if kept.is_err() {
            // Best effort: what stays is in nobody's way.
            let _ = metadata.unlink(&draft);
        }
        kept.at("keep", metadata.path_of(&draft))?;
        metadata.sync()?;
        Ok(true)
    }

    /// Says which schema the copy has.
    fn copy_to(&self, connection: &Connection, path: &Path) -> Result<i64> {
        connection
            .execute("VACUUM INTO ?1", [in_sql(path)])
            .and_then(|_| Connection::open(path))
            .and_then(|copy| copy.pragma_query_value(None, "user_version", |row| row.get(0)))
            .map_err(|error| self.error(error))
    }

    fn replace_tables(
        &self,
        connection: &Connection,
        is_as_copied: impl FnOnce() -> rusqlite::Result<bool>,
    ) -> Result<bool> {
        let fail = |error| self.error(error);
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        connection
            .pragma_update(None, "synchronous", "FULL")
            .map_err(fail)?;
        let inner =
            Transaction::new_unchecked(connection, TransactionBehavior::Immediate).map_err(fail)?;
        let path = &self.path;
        let txn = Txn { inner, path };
        if !is_as_copied().map_err(fail)? {
            return Ok(false);
        }
        txn.replace_tables()?;
        step("commit").at("commit to", path)?;
        txn.inner.commit().map_err(fail)?;
        Ok(true)
    }
}

/// A path need not be UTF-8.
fn in_sql(path: &Path) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(ValueRef::Text(path.as_os_str().as_bytes()))
}

impl Txn<'_> {
    /// From version 1. No inode has the number 0, so a view of which none is known is made anew.
    fn add_inodes(&self) -> Result<()> {
        if self.schema_version()? != 1 {
            return Ok(());
        }
        self.batch(
            "ALTER TABLE blobs ADD COLUMN inode INTEGER;
             ALTER TABLE views ADD COLUMN inode INTEGER NOT NULL DEFAULT 0;
             PRAGMA user_version = 2;",
        )
    }

    fn replace_tables(&self) -> Result<()> {
        for table in OLD_TABLES {
            self.batch(&format!("DROP TABLE main.{table}"))?;
        }
        self.create_schema()?;
        self.batch(ROWS)?;
        self.places_from_states()?;
        self.measure_packed()
    }

    /// The length of a packed file follows from its map. One whose map cannot be read is damaged.
    fn measure_packed(&self) -> Result<()> {
        let packed = self.all(
            "SELECT id, extents FROM old.blobs WHERE form = 1",
            [],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)),
        )?;
        for (id, extents) in packed {
            let length = ExtentMap::decode(&extents).map(|map| signed(map.stream_size()));
            self.execute(
                "UPDATE objects SET length = coalesce(?2, length), state = CASE WHEN ?2 IS NULL THEN 1 ELSE state END
                 WHERE id = ?1",
                params![id, length.ok()],
            )?;
        }
        Ok(())
    }

    fn batch(&self, sql: &str) -> Result<()> {
        self.inner
            .execute_batch(sql)
            .map_err(|error| self.error(error))
    }
}

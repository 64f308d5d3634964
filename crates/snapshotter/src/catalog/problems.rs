//! Whether the database is one: its pages, its indexes, its constraints, its references.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{TransactionBehavior, params};

use super::{Catalog, Doomed, Result, Txn, sqlite_error};
use crate::words::digest::Checksum;
use crate::words::error::{Error, ErrorKind};

/// Instructions of SQLite's machine between two looks whether somebody has given up: some microseconds.
const GLANCE: i32 = 100;

/// Problems told at most.
const MOST: usize = 100;

impl Catalog {
    /// What SQLite finds wrong with the file, for people. Empty: nothing. Reads all of it.
    ///
    /// # Errors
    /// Those that are not damage; `Cancelled` soon after somebody has set `cancelled`.
    pub(crate) fn problems(&self, cancelled: &Arc<AtomicBool>) -> Result<Vec<String>> {
        let mut connection = self.connection()?;
        let flag = Arc::clone(cancelled);
        connection
            .progress_handler(GLANCE, Some(move || flag.load(Ordering::Relaxed)))
            .map_err(|error| self.error(error))?;
        let found = self
            .begin(&mut connection, TransactionBehavior::Deferred)
            .and_then(|txn| txn.problems());
        connection
            .progress_handler(0, None::<fn() -> bool>)
            .map_err(|error| self.error(error))?;
        match found {
            Err(_) if cancelled.load(Ordering::Relaxed) => Err(Error::cancelled()),
            Err(error) if error.kind() == ErrorKind::Damaged => {
                let cause = std::error::Error::source(&error);
                Ok(vec![cause.map_or(error.to_string(), ToString::to_string)])
            }
            problems => problems,
        }
    }
}

impl Txn<'_> {
    fn problems(&self) -> Result<Vec<String>> {
        let mut problems = Vec::new();
        let integrity = format!("PRAGMA integrity_check({MOST})");
        self.each(&integrity, |row| {
            let text: String = row.get(0)?;
            problems.extend((text != "ok").then_some(text));
            Ok(())
        })?;
        self.each("PRAGMA foreign_key_check", |row| {
            let (table, parent): (String, String) = (row.get(0)?, row.get(2)?);
            if problems.len() < MOST {
                problems.push(format!(
                    "a row of {table} names one of {parent} that is not there"
                ));
            }
            Ok(())
        })?;
        Ok(problems)
    }

    /// Deletes references of a snapshot, and the rows that only those kept; says what these were called.
    pub(crate) fn drop_references(&self, snapshot: i64, blobs: &[Checksum]) -> Result<Doomed> {
        let exclusive = self.exclusive_blobs(snapshot)?;
        for blob in blobs {
            self.execute(
                "DELETE FROM object_references
                 WHERE snapshot = ?1 AND object = (SELECT id FROM objects WHERE key = ?2)",
                params![snapshot, blob.as_bytes()],
            )?;
        }
        let mut doomed = exclusive;
        doomed.retain(|blob| blobs.contains(&blob.checksum));
        self.doom(&doomed)
    }

    /// Deletes what names a blob's row that is gone. What names a snapshot's row that is gone stays: it keeps the blobs.
    pub(crate) fn drop_references_to_nothing(&self) -> Result<()> {
        for table in ["object_references", "views", "contents"] {
            self.execute(
                &format!(
                    "DELETE FROM {table} WHERE NOT EXISTS (SELECT 1 FROM objects o WHERE o.id = {table}.object)"
                ),
                [],
            )?;
        }
        self.drop_places_of_nothing()
    }

    fn each(
        &self,
        sql: &str,
        mut row: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<()>,
    ) -> Result<()> {
        let fail = |error| sqlite_error(self.path, error);
        let mut statement = self.inner.prepare(sql).map_err(fail)?;
        let mut rows = statement.query([]).map_err(fail)?;
        while let Some(found) = rows.next().map_err(fail)? {
            row(found).map_err(fail)?;
        }
        Ok(())
    }
}

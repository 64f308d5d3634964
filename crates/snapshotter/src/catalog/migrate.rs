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

use super::open::{Opening, SCHEMA_VERSION, newer, without_symlinks};
use super::{Catalog, Result, Sync, Txn, signed};
use crate::fs::dir::{ignore_absent, sync_file};
use crate::fs::hook::step;
use crate::fs::{Dir, random_name};
use crate::words::error::{At, Error, ErrorKind};
use crate::words::extent::ExtentMap;

/// What the old catalog is called from then on, beside the new one.
const BEFORE: &str = "before-schema-4.db";

/// Tables of schemas 1 and 2, children before their parents.
const TABLES_OF_2: [&str; 6] = [
    "leases",
    "blob_references",
    "artifacts",
    "views",
    "snapshots",
    "blobs",
];

/// Those of schema 3.
const TABLES_OF_3: [&str; 12] = [
    "generation",
    "orphans",
    "object_places",
    "publications",
    "places",
    "leases",
    "object_references",
    "artifacts",
    "snapshots",
    "views",
    "contents",
    "objects",
];

/// The rows of schemas 1 and 2, from the copy. Names stay where they are, above all shards. Rows that name others which are not there stay
/// behind: they were damage, which the old release could live with, and a new one would refuse them.
const ROWS: &str = "
    INSERT INTO objects (id, key, kind, state, length, data_size, mtime_seconds, mtime_nanoseconds, inode, unsynced,
                         created_at)
    SELECT id, checksum, form, state, size, data_size, mtime_seconds, mtime_nanoseconds, inode, unsynced, created_at
    FROM old.blobs;
    INSERT INTO contents (object, digest, size, sha256, probe, extents)
    SELECT id, digest, size, sha256, probe, extents FROM old.blobs;
    INSERT INTO views (object, attributes, mtime_seconds, mtime_nanoseconds, inode, boot)
    SELECT blob, attributes, mtime_seconds, mtime_nanoseconds, inode, boot FROM old.views
    WHERE blob IN (SELECT id FROM old.blobs);
    INSERT INTO snapshots (id, name, version, state, removed, pinned, manifest_digest, created_at, last_accessed_at, files,
                           logical_bytes, data_bytes)
    SELECT id, name, version, state, removed, pinned, manifest_digest, created_at, last_accessed_at, files,
           logical_bytes, data_bytes
    FROM old.snapshots;
    INSERT INTO artifacts (snapshot, manifest, document) SELECT snapshot, manifest, document FROM old.artifacts
    WHERE snapshot IN (SELECT id FROM old.snapshots);
    INSERT INTO object_references (snapshot, object) SELECT snapshot, blob FROM old.blob_references
    WHERE snapshot IN (SELECT id FROM old.snapshots) AND blob IN (SELECT id FROM old.blobs);
    INSERT INTO leases (owner, operation, snapshot) SELECT owner, operation, snapshot FROM old.leases
    WHERE snapshot IN (SELECT id FROM old.snapshots);
";

/// How often another process may get in between the copy and the transaction.
const TRIES: u32 = 16;

impl Catalog {
    /// Brings an older catalog up to date, unless somebody else does meanwhile.
    pub(super) fn migrate(&self, opening: &Opening<'_>) -> Result<()> {
        for _ in 0..TRIES {
            (opening.wait_for_older)(&|| self.is_current())?;
            if self.is_current()? {
                return Ok(());
            }
            self.write(Sync::Normal, |txn| txn.add_inodes())?;
            match self.migrate_once() {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) if error.kind() == ErrorKind::NoSpace => {
                    if !(opening.give_up_reserve)()? {
                        return Err(self.too_small(error));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(
            ErrorKind::Busy,
            format!("others keep writing into {}", self.path.display()),
        ))
    }

    fn is_current(&self) -> Result<bool> {
        Ok(self.read(|txn| txn.schema_version())? == SCHEMA_VERSION)
    }

    /// Says how much room there has to be: for the copy, and for the new tables in the log.
    fn too_small(&self, error: Error) -> Error {
        let size = std::fs::metadata(&self.path).map_or(0, |catalog| catalog.len());
        let path = self.path.display();
        let text = format!(
            "to bring the catalog {path} up to date takes {} bytes",
            2 * size
        );
        Error::new(ErrorKind::NoSpace, text)
            .with_path(&self.path)
            .with_hint("make as much room on its filesystem, or remove snapshots with the release that wrote it")
            .with_source(error)
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
        let copy = without_symlinks(&self.path)?.with_file_name(BEFORE);
        connection
            .execute("ATTACH ?1 AS old", [in_sql(&copy)])
            .map_err(fail)?;
        let replaced = self.replace_tables(&connection, || Ok(version()? == seen));
        connection.execute_batch("DETACH old").map_err(fail)?;
        replaced
    }

    /// Copies the database; `false`: it is up to date by now. One does at a time, so all drafts that are there were left by
    /// a crash.
    fn keep_copy(&self, connection: &Connection) -> Result<bool> {
        let mut alone = self.connection()?;
        let alone = alone.transaction_with_behavior(TransactionBehavior::Immediate);
        let _alone = alone.map_err(|error| self.error(error))?;
        let catalog = without_symlinks(&self.path)?;
        let metadata = Dir::open(catalog.parent().unwrap_or(&catalog))?;
        remove_drafts(&metadata)?;
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

/// Drafts, and the copy that an earlier change of the schema kept for the release before this one's.
fn remove_drafts(metadata: &Dir) -> Result<()> {
    for name in metadata.names()? {
        if name.to_string_lossy().starts_with("before-schema-") && name != BEFORE {
            ignore_absent(metadata.unlink(&name)).at("remove", metadata.path_of(&name))?;
        }
    }
    Ok(())
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
        let is_3 = self.schema_version()? == 3;
        let tables: &[&str] = if is_3 { &TABLES_OF_3 } else { &TABLES_OF_2 };
        for table in tables {
            self.batch(&format!("DROP TABLE main.{table}"))?;
        }
        self.create_schema()?;
        if is_3 {
            return self.copy_rows();
        }
        self.batch(ROWS)?;
        self.places_from_states()?;
        self.measure_packed()
    }

    /// From version 3, whose columns are all there still. Its row of the generation replaces that of a new catalog, and no
    /// id is given out again.
    fn copy_rows(&self) -> Result<()> {
        self.batch("DELETE FROM generation")?;
        for table in TABLES_OF_3.iter().rev() {
            let columns = self.names_in(&format!(
                "SELECT name FROM pragma_table_info('{table}', 'old')"
            ))?;
            let columns = columns.join(", ");
            // Rows that name others which are not there stay behind here too.
            let parents = self.names_in(&format!(
                "SELECT format('%s IN (SELECT id FROM main.%s)', \"from\", \"table\")
                 FROM pragma_foreign_key_list('{table}')"
            ))?;
            let whole = parents
                .iter()
                .fold("1".to_owned(), |all, one| format!("{all} AND {one}"));
            self.batch(&format!(
                "INSERT INTO main.{table} ({columns}) SELECT {columns} FROM old.{table} WHERE {whole}"
            ))?;
        }
        self.batch(
            "DELETE FROM main.sqlite_sequence WHERE name IN (SELECT name FROM old.sqlite_sequence);
             INSERT INTO main.sqlite_sequence (name, seq) SELECT name, seq FROM old.sqlite_sequence;",
        )
    }

    fn names_in(&self, sql: &str) -> Result<Vec<String>> {
        self.all(sql, [], |row| row.get(0))
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

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::super::open::IsDone;
    use super::*;
    use crate::fs::counter::Counter;

    // Of two first openers the one that came later waited for the other's lease, and said that it was an older release's.
    #[test]
    fn whoever_finds_it_done_waits_for_nobody() {
        let temporary = tempfile::tempdir().unwrap();
        let archive = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../testdata/stores/schema-2.tar.gz"
        );
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--file", archive, "--directory"]);
        assert!(tar.arg(temporary.path()).status().unwrap().success());
        let root = Dir::open(&temporary.path().join("root")).unwrap();
        let path = root.path().join("metadata/catalog.db");
        let open = |wait_for_older: &dyn Fn(IsDone<'_>) -> Result<()>| {
            let opening = Opening {
                may_create: &|| Ok(()),
                wait_for_older,
                give_up_reserve: &|| Ok(false),
                fill_index: false,
            };
            let generation = Counter::new(&root, "generation").unwrap();
            Catalog::open(&path, generation, Duration::from_secs(30), &opening)
        };
        let late = open(&|is_done| {
            assert!(!is_done()?);
            open(&|_| Ok(()))?;
            assert!(is_done()?);
            Ok(())
        });
        assert!(late.unwrap().is_current().unwrap());
    }
}

//! Looks at a root and at an output from outside, not through the library.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

/// The catalog of a root.
pub fn catalog(root: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let catalog = Connection::open_with_flags(root.join("metadata/catalog.db"), flags)
        .expect("a catalog opens");
    catalog
        .busy_timeout(std::time::Duration::from_secs(30))
        .expect("patience");
    catalog
}

/// The names in a directory.
pub fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    entries
        .map(|entry| {
            let name = entry.expect("an entry").file_name();
            name.into_string().expect("a name in UTF-8")
        })
        .collect()
}

/// The names of files in a tree of names, those in a shard with its directory.
pub fn names_in_shards(tree: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for name in names(tree) {
        if tree.join(&name).is_dir() {
            let inner = names(&tree.join(&name));
            found.extend(inner.iter().map(|inner| format!("{name}/{inner}")));
        } else {
            found.insert(name);
        }
    }
    found
}

pub fn content(root: &Path) -> PathBuf {
    root.join("storage/content/blake3")
}

pub fn views(root: &Path) -> PathBuf {
    root.join("storage/snapshot/blake3")
}

fn texts(catalog: &Connection, sql: &str) -> BTreeSet<String> {
    let mut statement = catalog.prepare(sql).expect("a statement");
    let rows = statement.query_map([], |row| row.get(0)).expect("rows");
    rows.map(|row| row.expect("a row")).collect()
}

fn blob_rows(catalog: &Connection) -> BTreeSet<String> {
    texts(
        catalog,
        "SELECT CASE WHEN shard IS NULL THEN '' ELSE printf('%04x/', shard) END || lower(hex(key))
                || CASE kind WHEN 1 THEN '.spf' WHEN 2 THEN '.pack' ELSE '' END
         FROM objects",
    )
}

fn view_rows(catalog: &Connection) -> BTreeSet<String> {
    texts(
        catalog,
        "SELECT CASE WHEN o.shard IS NULL THEN '' ELSE printf('%04x/', o.shard) END || lower(hex(o.key)) || '.'
                || lower(hex(v.attributes))
         FROM views v JOIN objects o ON o.id = v.object",
    )
}

/// Every row has its file, every file its row, every row its reason, and SQLite finds nothing wrong.
#[track_caller]
pub fn assert_rows_and_files_agree(root: &Path) {
    let catalog = catalog(root);
    assert_eq!(
        blob_rows(&catalog),
        names_in_shards(&content(root)),
        "blobs"
    );
    assert_eq!(view_rows(&catalog), names_in_shards(&views(root)), "views");
    assert_rows_sound(&catalog);
}

/// Every row has its file. There may be names without a row: litter, until the next whole sweep.
#[track_caller]
pub fn assert_rows_have_files(root: &Path) {
    let catalog = catalog(root);
    let (content, views) = (
        names_in_shards(&content(root)),
        names_in_shards(&views(root)),
    );
    let blobs = blob_rows(&catalog);
    assert!(blobs.is_subset(&content), "{blobs:?} {content:?}");
    let rows = view_rows(&catalog);
    assert!(rows.is_subset(&views), "{rows:?} {views:?}");
    assert_rows_sound(&catalog);
}

#[track_caller]
fn assert_rows_sound(catalog: &Connection) {
    let checked = texts(catalog, "PRAGMA integrity_check");
    assert_eq!(checked, BTreeSet::from(["ok".to_owned()]));
    let nobodys = texts(
        catalog,
        "SELECT lower(hex(key)) FROM objects o
         WHERE NOT EXISTS (SELECT 1 FROM object_references r WHERE r.object = o.id)
            OR (kind < 2) <> EXISTS (SELECT 1 FROM contents c WHERE c.object = o.id)",
    );
    assert!(nobodys.is_empty(), "blobs nothing needs: {nobodys:?}");
    let bad = texts(
        catalog,
        "SELECT lower(hex(key)) FROM objects WHERE state <> 0",
    );
    assert!(bad.is_empty(), "blobs marked bad: {bad:?}");
}

/// Nobody has anything under way: no leases, nothing pending, nothing half removed, nothing staged or in the trash.
#[track_caller]
pub fn assert_at_rest(root: &Path) {
    for dir in ["leases", "staging", "trash"] {
        assert_eq!(names(&root.join(dir)), BTreeSet::new(), "{dir}");
    }
    let catalog = catalog(root);
    let open = texts(
        &catalog,
        "SELECT name || ':' || version || ' ' || state || ' ' || removed FROM snapshots WHERE state = 0 OR removed = 1
         UNION ALL SELECT 'a lease of ' || owner FROM leases
         UNION ALL SELECT 'an orphan ' || name FROM orphans",
    );
    assert_eq!(open, BTreeSet::new());
}

/// How many blobs have rows.
pub fn blobs(root: &Path) -> usize {
    blob_rows(&catalog(root)).len()
}

/// Whatever has a final name in `output` is complete: bytes, and a file's mode and time too. What is on its way has a
/// temporary name.
#[track_caller]
pub fn assert_nothing_partial(source: &Path, output: &Path) {
    if !output.exists() {
        return;
    }
    for (path, found) in testkit::fsstat::entries(output).expect("an output to look at") {
        let name = path.file_name().expect("a name").to_string_lossy();
        if name.starts_with(".snapshotter-") {
            continue;
        }
        let expected = fs::symlink_metadata(source.join(&path))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(
            expected.file_type(),
            found.file_type(),
            "{}",
            path.display()
        );
        if found.is_file() {
            let bytes = |base: &Path| fs::read(base.join(&path)).expect("a file to read");
            assert!(bytes(source) == bytes(output), "{}", path.display());
            let looks =
                |of: &fs::Metadata| (of.mode(), of.uid(), of.gid(), of.mtime(), of.mtime_nsec());
            assert_eq!(looks(&expected), looks(&found), "{}", path.display());
        } else if found.is_symlink() {
            let target = |base: &Path| fs::read_link(base.join(&path)).expect("a link to read");
            assert_eq!(target(source), target(output));
        }
    }
}

/// No name in `output` is a temporary one.
#[track_caller]
pub fn assert_nothing_temporary(output: &Path) {
    for path in testkit::fsstat::paths(output).expect("an output to look at") {
        let text = path.display().to_string();
        assert!(!text.contains(".snapshotter-"), "{text}");
    }
}

/// Removes what a dead process left under temporary names.
pub fn remove_temporaries(output: &Path) {
    if !output.exists() {
        return;
    }
    for path in testkit::fsstat::paths(output).expect("an output to look at") {
        let name = path.file_name().expect("a name").to_string_lossy();
        if name.starts_with(".snapshotter-") {
            fs::remove_file(output.join(&path)).expect("a temporary goes");
        }
    }
}

//! Rows of snapshots and their artifacts.

use rusqlite::{Row, params};

use super::{Result, Stored, Txn, bad_column, signed, unsigned};
use crate::format::document::{Document, FileEntry};
use crate::words::digest::Sha256;
use crate::words::error::{Error, ErrorKind};
use crate::words::format::Format;
use crate::words::reference::Reference;
use crate::words::total::total;

/// A visible snapshot's row.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) id: i64,
    pub(crate) reference: Reference,
    pub(crate) manifest_digest: Sha256,
    pub(crate) state: State,
    pub(crate) format: Format,
    pub(crate) pinned: bool,
    pub(crate) created_at: i64,
    pub(crate) last_accessed_at: i64,
    pub(crate) totals: Totals,
}

/// Where a snapshot came from. Where else it is, publications say (`places.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Taken = 1,
    Fetched = 3,
}

impl State {
    /// From the column: 2 was once written for what was taken here and published.
    pub(super) fn read(column: i64) -> Self {
        match column {
            3 => Self::Fetched,
            _ => Self::Taken,
        }
    }
}

/// What a snapshot amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) files: u64,
    pub(crate) logical_bytes: u64,
    pub(crate) data_bytes: u64,
}

impl Totals {
    /// Of so many names, and inodes with these sizes and bytes of data.
    pub(crate) fn new(names: usize, inodes: impl Iterator<Item = (u64, u64)> + Clone) -> Self {
        Self {
            files: names as u64,
            logical_bytes: total(inodes.clone().map(|(size, _)| size)),
            data_bytes: total(inodes.map(|(_, data)| data)),
        }
    }

    /// Of a document, whose files have so many bytes of data.
    pub(crate) fn of<C>(document: &Document<C>, data: impl Fn(&FileEntry<C>) -> u64) -> Self {
        let is_inode = |file: &&FileEntry<C>| file.hardlink_of.is_none();
        let inodes = document.files.iter().filter(is_inode);
        Self::new(
            document.files.len(),
            inodes.map(|file| (file.size, data(file))),
        )
    }
}

/// What a pending snapshot becomes when it is complete.
#[derive(Debug)]
pub(crate) struct Finished<'a> {
    pub(crate) state: State,
    pub(crate) format: Format,
    pub(crate) manifest: &'a [u8],
    pub(crate) document: &'a dyn Stored,
    pub(crate) totals: Totals,
    pub(crate) now: i64,
}

macro_rules! visible {
    ($rest:literal) => {
        visible!("", $rest)
    };
    ($how:literal, $rest:literal) => {
        concat!(
            "SELECT id, name, version, manifest_digest, state, pinned, created_at, last_accessed_at, files, \
             logical_bytes, data_bytes, format FROM snapshots",
            $how,
            " WHERE state > 0 AND removed = 0",
            $rest
        )
    };
}

fn snapshot(row: &Row<'_>) -> rusqlite::Result<Snapshot> {
    let name: String = row.get(1)?;
    let version: String = row.get(2)?;
    Ok(Snapshot {
        id: row.get(0)?,
        reference: Reference::new(&name, &version).map_err(|error| bad_column(1, error))?,
        manifest_digest: Sha256::from_bytes(row.get(3)?),
        state: State::read(row.get(4)?),
        pinned: row.get(5)?,
        created_at: row.get(6)?,
        last_accessed_at: row.get(7)?,
        totals: Totals {
            files: unsigned(row, 8)?,
            logical_bytes: unsigned(row, 9)?,
            data_bytes: unsigned(row, 10)?,
        },
        format: Format::of_number(row.get(11)?),
    })
}

impl Txn<'_> {
    /// All visible snapshots in the order of their names, newest version of a name first.
    ///
    /// Read in the order of the table and sorted here: looking each row up through the index takes longer.
    pub(crate) fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let mut found = self.all(visible!(" NOT INDEXED", ""), [], snapshot)?;
        found.sort_unstable_by(|a, b| {
            let names = a.reference.name().cmp(b.reference.name());
            names
                .then(b.created_at.cmp(&a.created_at))
                .then(b.id.cmp(&a.id))
        });
        Ok(found)
    }

    /// The snapshot a reference names, where it is here.
    pub(crate) fn find(&self, reference: &Reference) -> Result<Option<Snapshot>> {
        let Some(version) = reference.version() else {
            return self.find_by_digest(reference);
        };
        let found = self.first(
            visible!(" AND name = ?1 AND version = ?2"),
            [reference.name(), version],
            snapshot,
        )?;
        match (&found, reference.manifest_digest()) {
            // The version is another one's here: what was fetched by its digest, or had to make way, has that for a name. What
            // has a version of its own was not meant: it might be removed.
            (Some(other), Some(digest)) if other.manifest_digest != digest => self.first(
                visible!(" AND name = ?1 AND version = ?2 AND manifest_digest = ?3"),
                params![
                    reference.name(),
                    format!("sha256-{}", digest.hex()),
                    digest.as_bytes()
                ],
                snapshot,
            ),
            _ => Ok(found),
        }
    }

    fn find_by_digest(&self, reference: &Reference) -> Result<Option<Snapshot>> {
        let Some(digest) = reference.manifest_digest() else {
            return Ok(None);
        };
        self.first(
            visible!(" AND name = ?1 AND manifest_digest = ?2 ORDER BY created_at DESC LIMIT 1"),
            params![reference.name(), digest.as_bytes()],
            snapshot,
        )
    }

    /// The manifests of all visible snapshots of a name.
    pub(crate) fn manifests_of(&self, name: &str) -> Result<Vec<Sha256>> {
        let found = self.all(visible!(" AND name = ?1"), [name], snapshot)?;
        Ok(found.into_iter().map(|one| one.manifest_digest).collect())
    }

    /// A visible snapshot with this manifest.
    pub(crate) fn of_manifest(&self, digest: &Sha256) -> Result<Option<Snapshot>> {
        let sql = visible!(" AND manifest_digest = ?1 LIMIT 1");
        self.first(sql, [digest.as_bytes()], snapshot)
    }

    /// The visible snapshot with this id.
    pub(crate) fn snapshot(&self, id: i64) -> Result<Option<Snapshot>> {
        self.first(visible!(" AND id = ?1"), [id], snapshot)
    }

    /// The snapshot a reference names, or an error that says what is wrong with it.
    pub(crate) fn resolve(&self, reference: &Reference) -> Result<Snapshot> {
        self.find(reference)?.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("there is no snapshot {reference}"),
            )
            .with_reference(reference)
        })
    }

    /// Refuses a name that is taken.
    pub(crate) fn require_new(&self, reference: &Reference) -> Result<()> {
        match self.find(reference)? {
            None => Ok(()),
            Some(_) => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("the snapshot {reference} already exists"),
            )
            .with_reference(reference)
            .with_hint("versions are immutable: choose another version, or remove this one first")),
        }
    }

    /// A row to which a capture or fetch attaches its blobs; nobody sees it.
    pub(crate) fn insert_pending(&self, reference: &Reference, now: i64) -> Result<i64> {
        self.insert(
            "INSERT INTO snapshots (name, version, state, created_at, last_accessed_at) VALUES (?1, ?2, 0, ?3, ?3)",
            params![reference.name(), reference.version(), now],
        )
    }

    /// Makes a pending snapshot visible.
    pub(crate) fn finish_snapshot(&self, id: i64, finished: &Finished<'_>) -> Result<()> {
        let digest = Sha256::of(finished.manifest);
        self.execute(
            "UPDATE snapshots SET state = ?2, manifest_digest = ?3, created_at = ?4, last_accessed_at = ?4,
                                  files = ?5, logical_bytes = ?6, data_bytes = ?7, format = ?8
             WHERE id = ?1",
            params![
                id,
                finished.state as i64,
                digest.as_bytes(),
                finished.now,
                signed(finished.totals.files),
                signed(finished.totals.logical_bytes),
                signed(finished.totals.data_bytes),
                finished.format.number(),
            ],
        )?;
        self.insert_artifacts(id, finished.manifest, finished.document)
    }

    pub(crate) fn touch(&self, snapshot: i64, now: i64) -> Result<()> {
        self.execute(
            "UPDATE snapshots SET last_accessed_at = ?2 WHERE id = ?1",
            [snapshot, now],
        )?;
        Ok(())
    }

    /// Takes the name away; the row goes with its last lease.
    pub(crate) fn mark_removed(&self, snapshot: i64) -> Result<()> {
        self.execute("UPDATE snapshots SET removed = 1 WHERE id = ?1", [snapshot])?;
        Ok(())
    }

    /// Gives its name back, which has to be free.
    #[cfg(feature = "registry")]
    pub(crate) fn mark_visible(&self, snapshot: i64) -> Result<()> {
        self.execute("UPDATE snapshots SET removed = 0 WHERE id = ?1", [snapshot])?;
        Ok(())
    }

    pub(crate) fn delete_snapshot(&self, snapshot: i64) -> Result<()> {
        self.execute("DELETE FROM snapshots WHERE id = ?1", [snapshot])?;
        Ok(())
    }
}

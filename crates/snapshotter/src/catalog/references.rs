//! Which snapshot needs which object, what goes when nothing needs one, and the names that it leaves behind.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rusqlite::params;

use super::names::{
    Shard, StoredName, Tree, content_name, parse_content_name, parse_view_name, view_name,
};
use super::objects::{checksum, form, shard};
use super::{Result, Txn, bad_column, unsigned};
use crate::words::digest::Checksum;
use crate::words::form::Form;
use crate::words::reference::Reference;
use crate::words::total::total;

/// An object that one snapshot alone needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExclusiveBlob {
    /// Of its row, in this transaction.
    id: i64,
    pub(crate) checksum: Checksum,
    pub(crate) data_size: u64,
    form: Form,
    shard: Shard,
}

/// Objects whose rows were deleted, with the names they had under `storage/`: each is an orphan until it is seen to go.
#[derive(Debug, Default)]
pub(crate) struct Doomed {
    pub(crate) objects: u64,
    /// Of data in them.
    pub(crate) bytes: u64,
    names: Vec<DoomedName>,
}

/// One of those names in as few bytes as can be, since there may be a million. They are in the order that the catalog has
/// them in: in any other, each would be another page of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct DoomedName {
    /// Of a view.
    view: Option<[u8; 16]>,
    shard: Shard,
    checksum: Checksum,
    is_packed: bool,
}

impl Doomed {
    pub(crate) fn names(&self) -> impl Iterator<Item = StoredName> {
        self.names.iter().map(DoomedName::stored)
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.objects += other.objects;
        self.bytes = total([self.bytes, other.bytes]);
        self.names.extend(other.names);
    }
}

impl DoomedName {
    fn stored(&self) -> StoredName {
        let form = if self.is_packed {
            Form::Packed
        } else {
            Form::Plain
        };
        match &self.view {
            Some(attributes) => StoredName::view(view_name(&self.checksum, attributes, self.shard)),
            None => StoredName::content(content_name(&self.checksum, form, self.shard)),
        }
    }
}

impl Txn<'_> {
    pub(crate) fn reference_blob(&self, snapshot: i64, checksum: &Checksum) -> Result<()> {
        self.execute(
            "INSERT OR IGNORE INTO object_references (snapshot, object)
             SELECT ?1, id FROM objects WHERE key = ?2",
            params![snapshot, checksum.as_bytes()],
        )?;
        Ok(())
    }

    /// Whether a call promised, or is about to promise, that the blob outlives a power cut: a snapshot needs it whose
    /// bytes need not be anywhere else.
    pub(crate) fn is_promised(&self, checksum: &Checksum) -> Result<bool> {
        let found = self.first(
            "SELECT 1 FROM objects o JOIN object_references r ON r.object = o.id
             WHERE o.key = ?1 AND NOT EXISTS (SELECT 1 FROM publications p WHERE p.snapshot = r.snapshot) LIMIT 1",
            [checksum.as_bytes()],
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    }

    /// A snapshot's objects that no other snapshot needs.
    pub(crate) fn exclusive_blobs(&self, snapshot: i64) -> Result<Vec<ExclusiveBlob>> {
        self.all(
            "SELECT o.key, CASE o.state WHEN 2 THEN 0 ELSE o.data_size END, o.kind, o.shard, o.id
             FROM object_references r JOIN objects o ON o.id = r.object
             WHERE r.snapshot = ?1
               AND NOT EXISTS (SELECT 1 FROM object_references e WHERE e.object = r.object AND e.snapshot <> ?1)",
            [snapshot],
            |row| {
                Ok(ExclusiveBlob {
                    checksum: checksum(row, 0)?,
                    data_size: unsigned(row, 1)?,
                    form: form(row, 2)?,
                    shard: shard(row, 3)?,
                    id: row.get(4)?,
                })
            },
        )
    }

    /// Deletes the rows of a snapshot's objects that no other snapshot needs, and says what they were called.
    pub(crate) fn doom_blobs_of(&self, snapshot: i64) -> Result<Doomed> {
        let exclusive = self.exclusive_blobs(snapshot)?;
        self.execute(
            "DELETE FROM object_references WHERE snapshot = ?1",
            [snapshot],
        )?;
        self.doom(&exclusive)
    }

    /// Deletes the rows of objects that nothing references.
    pub(super) fn doom(&self, objects: &[ExclusiveBlob]) -> Result<Doomed> {
        let mut names = Vec::with_capacity(objects.len());
        for object in objects {
            self.note_names(object, &mut names)?;
            self.execute("DELETE FROM objects WHERE id = ?1", [object.id])?;
        }
        names.sort_unstable();
        for name in &names {
            self.orphan(&name.stored())?;
        }
        Ok(Doomed {
            objects: objects.len() as u64,
            bytes: total(objects.iter().map(|object| object.data_size)),
            names,
        })
    }

    fn note_names(&self, object: &ExclusiveBlob, names: &mut Vec<DoomedName>) -> Result<()> {
        let (checksum, shard) = (object.checksum, object.shard);
        let name = |view, is_packed| DoomedName {
            view,
            shard,
            checksum,
            is_packed,
        };
        names.push(name(None, object.form == Form::Packed));
        let views = self.all(
            "SELECT attributes FROM views WHERE object = ?1",
            [object.id],
            |row| row.get(0),
        )?;
        names.extend(views.into_iter().map(|view| name(Some(view), false)));
        Ok(())
    }

    /// Notes that no row stands for a name any more, by this store's own hand, so that it may be swept. A catalog that went
    /// back in time cannot say that: something it does not know may need the file.
    pub(crate) fn orphan(&self, name: &StoredName) -> Result<()> {
        self.execute(
            "INSERT OR IGNORE INTO orphans (tree, name) SELECT ?1, ?2 FROM generation WHERE went_back = 0",
            params![name.tree.column(), name.name.to_string_lossy()],
        )?;
        Ok(())
    }

    /// Whether a row stands for a name.
    pub(crate) fn has_row(&self, name: &StoredName) -> Result<bool> {
        match name.tree {
            Tree::Content => match parse_content_name(&name.name) {
                Some((checksum, form, shard)) => self.has_blob(&checksum, form, shard),
                None => Ok(false),
            },
            Tree::Views => match parse_view_name(&name.name) {
                Some((checksum, attributes, shard)) => {
                    self.has_view(&(checksum, attributes), shard)
                }
                None => Ok(false),
            },
        }
    }

    /// An orphan is gone, or is none any more.
    pub(crate) fn forget_orphan(&self, name: &StoredName) -> Result<()> {
        self.execute(
            "DELETE FROM orphans WHERE tree = ?1 AND name = ?2",
            params![name.tree.column(), name.name.to_string_lossy()],
        )?;
        Ok(())
    }

    /// The next names that wait for being swept, after that one, so many at most.
    pub(crate) fn orphans_after(
        &self,
        last: Option<&StoredName>,
        most: usize,
    ) -> Result<Vec<StoredName>> {
        let tree = last.map_or(-1, |last| last.tree.column());
        let name = last.map(|last| last.name.to_string_lossy());
        self.all(
            "SELECT tree, name FROM orphans WHERE (tree, name) > (?1, ?2) ORDER BY tree, name LIMIT ?3",
            params![tree, name.unwrap_or_default(), i64::try_from(most).unwrap_or(i64::MAX)],
            |row| {
                let name: String = row.get(1)?;
                Ok(StoredName {
                    tree: match row.get(0)? {
                        0_i64 => Tree::Content,
                        _ => Tree::Views,
                    },
                    name: OsStr::from_bytes(name.as_bytes()).to_owned(),
                })
            },
        )
    }

    /// Names of the snapshots that need a blob.
    pub(crate) fn snapshots_of_blob(&self, checksum: &Checksum) -> Result<Vec<Reference>> {
        let found = self.all(
            "SELECT s.name, s.version
             FROM objects o JOIN object_references r ON r.object = o.id JOIN snapshots s ON s.id = r.snapshot
             WHERE o.key = ?1 AND s.state > 0 AND s.removed = 0 ORDER BY s.name, s.version",
            [checksum.as_bytes()],
            |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)),
        )?;
        found
            .iter()
            .map(|(name, version)| {
                Reference::new(name, version).map_err(|error| self.error(bad_column(0, error)))
            })
            .collect()
    }
}

impl Tree {
    fn column(self) -> i64 {
        match self {
            Self::Content => 0,
            Self::Views => 1,
        }
    }
}

//! Making a catalog anew: what can still be read of a damaged one, and one transaction that writes all of the new one,
//! so that whoever opens the root meanwhile finds either no catalog or a whole one.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rusqlite::{Connection, Row, params};

use super::open::{SCHEMA_VERSION, connect};
use super::places::{PublicationRow, publication, publications};
use super::{Catalog, Result, State, Sync, Totals, Txn, signed, unsigned};
use crate::format::artifact::paged::AnyManifest;
use crate::format::document::Document;
use crate::format::document::paged::PagedDocument;
use crate::fs::counter::Counter;
use crate::words::digest::{Checksum, Sha256};
use crate::words::error::{Error, ErrorKind};
use crate::words::extent::ExtentMap;
use crate::words::reference::Reference;

/// A snapshot with what describes it, checked: document, manifest and digest belong together.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) reference: Reference,
    pub(crate) state: State,
    /// Where else it is.
    pub(crate) seen: Vec<PublicationRow>,
    pub(crate) pinned: bool,
    pub(crate) created_at: i64,
    pub(crate) last_accessed_at: i64,
    pub(crate) manifest: Vec<u8>,
    pub(crate) document: Vec<u8>,
    pub(crate) entries: Entries,
}

/// What a document says, by its format.
#[derive(Clone, Debug)]
pub(crate) enum Entries {
    V1(Document),
    /// With the bytes of data that the catalog said.
    V2(PagedDocument, u64),
}

impl Entries {
    fn format(&self) -> u8 {
        match self {
            Self::V1(_) => 1,
            Self::V2(..) => 2,
        }
    }
}

/// What a damaged catalog still says.
#[derive(Debug, Default)]
pub(crate) struct Salvage {
    pub(crate) snapshots: Vec<Named>,
    /// The maps of blobs: the filesystem's own may have changed since.
    pub(crate) maps: HashMap<Checksum, ExtentMap>,
}

/// How a root's catalog is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Nothing has been written into it.
    Empty,
    Broken,
    Whole,
}

impl Catalog {
    /// Looks at the database that is at `path`.
    ///
    /// # Errors
    /// `Unsupported` for a newer schema; `Busy`; the operating system's.
    pub(crate) fn condition(
        path: &Path,
        generation: Counter,
        busy_timeout: Duration,
        cancelled: &Arc<AtomicBool>,
    ) -> Result<Condition> {
        let looked = connect(path, generation, busy_timeout).and_then(|catalog| {
            let (version, tables) =
                catalog.read(|txn| Ok((txn.schema_version()?, txn.tables()?)))?;
            Ok(match version {
                1..=SCHEMA_VERSION if catalog.problems(cancelled)?.is_empty() => Condition::Whole,
                0 if tables == 0 => Condition::Empty,
                0..=SCHEMA_VERSION => Condition::Broken,
                newer => return Err(super::open::newer(path, newer)),
            })
        });
        match looked {
            Err(error) if error.kind() == ErrorKind::Damaged => Ok(Condition::Broken),
            looked => looked,
        }
    }

    /// Creates a catalog and fills it, or does neither.
    ///
    /// # Errors
    /// `AlreadyExists` where somebody else made one meanwhile; what `fill` says.
    pub(crate) fn create<T>(
        path: &Path,
        generation: Counter,
        busy_timeout: Duration,
        fill: impl FnOnce(&Txn<'_>) -> Result<T>,
    ) -> Result<T> {
        let seen = generation.read().unwrap_or_default();
        let catalog = connect(path, generation, busy_timeout)?;
        catalog.write(Sync::Full, |txn| {
            if txn.schema_version()? != 0 {
                let text = format!("the catalog {} was made meanwhile", path.display());
                return Err(Error::new(ErrorKind::AlreadyExists, text).with_path(path));
            }
            txn.create_schema()?;
            txn.count_on_from(seen)?;
            fill(txn)
        })
    }
}

/// Where maps are, in this schema and in older ones.
const MAPS: [&str; 2] = [
    "SELECT o.key, c.extents FROM contents c NOT INDEXED JOIN objects o ON o.id = c.object ORDER BY c.object",
    "SELECT checksum, extents FROM blobs NOT INDEXED ORDER BY id",
];

/// Reads what can be read: rows from both ends, up to where the file is broken, and of these what is right.
pub(crate) fn salvage(path: &Path) -> Salvage {
    let mut salvage = Salvage::default();
    let Ok(connection) = Connection::open(path) else {
        return salvage;
    };
    let mut snapshots = BTreeMap::new();
    for order in ["ASC", "DESC"] {
        let sql = format!(
            "SELECT s.id, s.name, s.version, s.state, s.pinned, s.created_at, s.last_accessed_at, s.manifest_digest,
                    a.manifest, a.document, s.data_bytes
             FROM snapshots s NOT INDEXED JOIN artifacts a ON a.snapshot = s.id
             WHERE s.state > 0 AND s.removed = 0 ORDER BY s.id {order}"
        );
        read_on(&connection, &sql, |row| {
            if let (Ok(id), Some(named)) = (row.get(0), named(row)) {
                let id: i64 = id;
                snapshots.insert(named.reference.to_string(), (id, named));
            }
        });
        for maps in MAPS {
            read_on(&connection, &format!("{maps} {order}"), |row| {
                let map = || ExtentMap::decode(row.get_ref(1).ok()?.as_blob().ok()?).ok();
                let checksum = row.get(0).ok().map(Checksum::from_bytes);
                salvage.maps.extend(checksum.zip(map()));
            });
        }
    }
    let seen = salvage_publications(&connection);
    let snapshots = snapshots.into_values().map(|(id, mut named)| {
        named.seen = seen.get(&id).cloned().unwrap_or_default();
        named
    });
    salvage.snapshots = snapshots.collect();
    salvage
}

/// Where snapshots are besides here, by their ids. A catalog that had no places says of some that they are somewhere.
fn salvage_publications(connection: &Connection) -> HashMap<i64, Vec<PublicationRow>> {
    let mut seen: HashMap<i64, Vec<PublicationRow>> = HashMap::new();
    let has_places = connection.prepare("SELECT 1 FROM publications").is_ok();
    let sql = match has_places {
        true => publications!(""),
        false => {
            "SELECT id, 2, '', 2, '', manifest_digest, created_at FROM snapshots NOT INDEXED WHERE state IN (2, 3)"
        }
    };
    read_on(connection, sql, |row| {
        if let Ok((snapshot, row)) = publication(row) {
            seen.entry(snapshot).or_default().push(row);
        }
    });
    seen
}

fn read_on(connection: &Connection, sql: &str, mut take: impl FnMut(&Row<'_>)) {
    let mut read = || -> rusqlite::Result<()> {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            take(row);
        }
        Ok(())
    };
    if let Err(error) = read() {
        tracing::warn!(%error, "the damaged catalog can be read up to here");
    }
}

fn named(row: &Row<'_>) -> Option<Named> {
    let (name, version): (String, String) = (row.get(1).ok()?, row.get(2).ok()?);
    let digest = Sha256::from_bytes(row.get(7).ok()?);
    let (manifest, document): (Vec<u8>, Vec<u8>) = (row.get(8).ok()?, row.get(9).ok()?);
    let parsed = AnyManifest::parse(&manifest).ok()?;
    let config = match &parsed {
        AnyManifest::V1(manifest) => manifest.config,
        AnyManifest::V2(manifest) => manifest.config,
    };
    if Sha256::of(&manifest) != digest || Sha256::of(&document) != config {
        return None;
    }
    Some(Named {
        reference: Reference::new(name, version).ok()?,
        state: State::read(row.get(3).ok()?),
        seen: Vec::new(),
        pinned: row.get(4).ok()?,
        created_at: row.get(5).ok()?,
        last_accessed_at: row.get(6).ok()?,
        entries: match parsed {
            AnyManifest::V1(_) => Entries::V1(Document::parse(&document).ok()?),
            AnyManifest::V2(_) => {
                let data = unsigned(row, 10).unwrap_or_default();
                Entries::V2(PagedDocument::parse(&document).ok()?, data)
            }
        },
        manifest,
        document,
    })
}

impl Txn<'_> {
    fn tables(&self) -> Result<i64> {
        let count = self.first("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
        Ok(count.unwrap_or(0))
    }

    /// A snapshot as it was.
    pub(crate) fn insert_named(&self, named: &Named, totals: Totals) -> Result<i64> {
        let reference = &named.reference;
        let id = self.insert(
            "INSERT INTO snapshots (name, version, state, pinned, manifest_digest, created_at, last_accessed_at, files,
                                    logical_bytes, data_bytes, format)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            params![
                reference.name(),
                reference.version(),
                named.state as i64,
                named.pinned,
                Sha256::of(&named.manifest).as_bytes(),
                named.created_at,
                named.last_accessed_at,
                signed(totals.files),
                signed(totals.logical_bytes),
                signed(totals.data_bytes),
                named.entries.format(),
            ],
        )?;
        self.replace_artifacts(id, &named.manifest, &named.document)?;
        for seen in &named.seen {
            self.record_publication(id, seen)?;
        }
        Ok(id)
    }
}

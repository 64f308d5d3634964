//! Looking at what is stored, and taking it away: list, inspect, usage, remove.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::activity::Activity;
use crate::catalog::{PublicationRow, Snapshot, State, Sync};
use crate::format::artifact::Manifest;
use crate::format::document::{DirectoryEntry, Document, FileEntry, SymlinkEntry, WhiteoutEntry};
use crate::fs::space;
use crate::store::Store;
use crate::words::digest::{Checksum, Digest, Sha256};
use crate::words::entry::{Attributes, Mtime};
use crate::words::error::{At, Error, Result};
use crate::words::progress::Warning;
use crate::words::reference::Reference;
use crate::words::relpath::RelPath;
use crate::words::total::total;

/// A snapshot in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotSummary {
    /// Its name and version.
    pub reference: Reference,
    /// SHA-256 of its manifest: its identity.
    pub manifest_digest: Sha256,
    /// How far it has travelled.
    pub state: SnapshotState,
    /// Where it is besides here, as far as is known.
    pub publications: Vec<PublishedAt>,
    /// Whether a person said it must be kept.
    pub pinned: bool,
    /// When it was taken, or fetched.
    pub created_at: SystemTime,
    /// When it was taken or last restored.
    pub last_accessed_at: SystemTime,
    /// Regular files, second names of one inode included.
    pub files: u64,
    /// Sizes of the files, holes included, each inode once, in bytes.
    pub logical_bytes: u64,
    /// Bytes of data in them, holes excluded.
    pub data_bytes: u64,
}

/// How far a snapshot has travelled, as far as is known: what others remove is found out when somebody looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SnapshotState {
    /// Nowhere else.
    Unpublished,
    /// Taken here, and complete in a registry.
    Published,
    /// Fetched from a registry.
    Fetched,
}

/// Where a snapshot was last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublishedAt {
    /// The registry and repository: `https://registry.example.com/sandboxes/vm`. `None` where a release noted it that knew
    /// no places.
    pub registry: Option<String>,
    /// Where its contents are: a bucket or directory, or the same as `registry`.
    pub content: Option<String>,
    /// SHA-256 of the manifest there.
    pub manifest_digest: Sha256,
    /// When that was seen: published, fetched, or asked for.
    pub seen_at: SystemTime,
}

impl From<PublicationRow> for PublishedAt {
    fn from(row: PublicationRow) -> Self {
        Self {
            registry: row.registry.shown().map(str::to_owned),
            content: row.content.shown().map(str::to_owned),
            manifest_digest: row.manifest_digest,
            seen_at: time(row.seen_at),
        }
    }
}

impl SnapshotState {
    /// The state as scripts know it: `snake_case`, stable.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unpublished => "unpublished",
            Self::Published => "published",
            Self::Fetched => "fetched",
        }
    }
}

/// Everything a snapshot says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotDetails {
    /// What a list says of it.
    pub summary: SnapshotSummary,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its regular files, by path.
    pub files: Vec<FileDetails>,
    /// Its directories, by path.
    pub directories: Vec<PathDetails>,
    /// Its symbolic links, by path.
    pub symlinks: Vec<SymlinkDetails>,
    /// Its whiteouts, by path.
    pub whiteouts: Vec<PathDetails>,
    /// The manifest, byte for byte.
    pub manifest: Vec<u8>,
}

/// A regular file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileDetails {
    /// Path and attributes.
    pub entry: PathDetails,
    /// Its format v1 address.
    pub digest: Digest,
    /// BLAKE3 of the same bytes; missing in snapshots of the Go library.
    pub checksum: Option<Checksum>,
    /// Whether it was promised not to change.
    pub read_only: bool,
    /// Its size, holes included, in bytes.
    pub size: u64,
    /// The file it is a second name of.
    pub hardlink_of: Option<PathBuf>,
}

/// A symbolic link of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SymlinkDetails {
    /// Path and attributes.
    pub entry: PathDetails,
    /// Where it points.
    pub target: PathBuf,
}

/// A path of a snapshot and its attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathDetails {
    /// Relative to the base directory.
    pub relative_path: PathBuf,
    /// Permission bits, and set-user-ID, set-group-ID and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time; years before 1970 included.
    pub modified: SystemTime,
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// What a store holds and what its filesystem can still take, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Snapshots.
    pub snapshots: u64,
    /// Sizes of all files of all snapshots, holes included, as if nothing were shared.
    pub logical_bytes: u64,
    /// Bytes of data in them, holes excluded, as if nothing were shared.
    pub data_bytes: u64,
    /// Blobs.
    pub blobs: u64,
    /// Bytes of data the store keeps, each once whatever form it has. A hardlinked file's are counted, though they cost
    /// nothing while its other name exists: the one in the directory it was captured from, or in a daemon's cache.
    pub stored_bytes: u64,
    /// Size of the filesystem the root is on.
    pub filesystem_bytes: u64,
    /// What this process could still write there.
    pub available_bytes: u64,
}

/// What removing a snapshot gave back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoveReport {
    /// The snapshot.
    pub reference: Reference,
    /// SHA-256 of its manifest.
    pub manifest_digest: Sha256,
    /// Blobs that nothing else needed. None yet, if the snapshot is being restored: they go when that ends.
    pub blobs_removed: u64,
    /// Bytes of data in them; those whose files are missing, or were moved to `quarantine/`, have none. The filesystem gets
    /// back less where another name keeps a hardlinked file.
    pub freed_bytes: u64,
    /// Files that could not be removed yet.
    pub warnings: Vec<Warning>,
}

pub(crate) fn list(store: &Store) -> Result<Vec<SnapshotSummary>> {
    let (snapshots, mut publications) = store
        .catalog
        .read(|txn| Ok((txn.snapshots()?, txn.publications()?)))?;
    let summaries = snapshots.into_iter().map(|snapshot| {
        let known = publications.remove(&snapshot.id).unwrap_or_default();
        summary(snapshot, known)
    });
    Ok(summaries.collect())
}

/// What a list says of one snapshot.
pub(crate) fn find(store: &Store, reference: &Reference) -> Result<SnapshotSummary> {
    let read = store.catalog.read(|txn| {
        let snapshot = txn.resolve(reference)?;
        let known = txn.publications_of(snapshot.id)?;
        Ok(summary(snapshot, known))
    });
    read.map_err(|error| error.with_reference(reference))
}

pub(crate) fn inspect(store: &Store, reference: &Reference) -> Result<SnapshotDetails> {
    let read = store.catalog.read(|txn| {
        let snapshot = txn.resolve(reference)?;
        let document = txn.document(snapshot.id)?;
        let manifest = txn.manifest(snapshot.id)?;
        let known = txn.publications_of(snapshot.id)?;
        Ok((summary(snapshot, known), document, manifest))
    });
    let (summary, document, manifest) = read.map_err(|error| error.with_reference(reference))?;
    let parsed = Manifest::parse(&manifest).map_err(|error| {
        Error::damaged(format!("the snapshot's manifest is not valid: {error}"))
            .with_reference(reference)
    })?;
    let Entries {
        files,
        directories,
        symlinks,
        whiteouts,
    } = entries(document);
    Ok(SnapshotDetails {
        summary,
        annotations: parsed.annotations,
        files,
        directories,
        symlinks,
        whiteouts,
        manifest,
    })
}

/// A snapshot's document, byte for byte.
pub(crate) fn document(store: &Store, reference: &Reference) -> Result<Vec<u8>> {
    let read = store.catalog.read(|txn| {
        let snapshot = txn.resolve(reference)?;
        txn.document_bytes(snapshot.id)
    });
    read.map_err(|error| error.with_reference(reference))
}

/// A document's entries for people.
pub(crate) struct Entries {
    pub(crate) files: Vec<FileDetails>,
    pub(crate) directories: Vec<PathDetails>,
    pub(crate) symlinks: Vec<SymlinkDetails>,
    pub(crate) whiteouts: Vec<PathDetails>,
}

pub(crate) fn entries(document: Document) -> Entries {
    let symlink = |entry: SymlinkEntry| SymlinkDetails {
        entry: path(entry.path, entry.attributes),
        target: PathBuf::from(OsString::from_vec(entry.target)),
    };
    let directory = |entry: DirectoryEntry| path(entry.path, entry.attributes);
    let whiteout = |entry: WhiteoutEntry| path(entry.path, entry.attributes);
    Entries {
        files: each(document.files, file),
        directories: each(document.directories, directory),
        symlinks: each(document.symlinks, symlink),
        whiteouts: each(document.whiteouts, whiteout),
    }
}

/// Entries made between two times that memory is given back.
const CHUNK: usize = 64 << 10;

/// Taken from the list's end, which becomes shorter meanwhile: a million files are not in memory twice.
fn each<T, U>(mut list: Vec<T>, into: impl Fn(T) -> U) -> Vec<U> {
    let mut made = Vec::with_capacity(list.len());
    while let Some(entry) = list.pop() {
        made.push(into(entry));
        if list.len().is_multiple_of(CHUNK) {
            list.shrink_to_fit();
        }
    }
    made.reverse();
    made
}

/// Removes a snapshot, and the blobs nothing else needs. One that is being restored loses its name at once and its
/// blobs when the restore ends.
pub(crate) fn remove(
    store: &Store,
    reference: &Reference,
    activity: &Activity,
) -> Result<RemoveReport> {
    store.require_current()?;
    store.expect_orphans();
    let (snapshot, doomed) = store.with_reserve(|| {
        store.catalog.write(Sync::Full, |txn| {
            let snapshot = txn.resolve(reference)?;
            txn.mark_removed(snapshot.id)?;
            let doomed = txn.doom_abandoned(&[snapshot.id])?;
            Ok((snapshot, doomed))
        })
    })?;
    // It is removed: what is left of it now is litter.
    store.sweep_removed(&doomed, activity);
    Ok(RemoveReport::new(snapshot, doomed.objects, doomed.bytes))
}

/// Pins a snapshot or takes its pin away.
pub(crate) fn set_pinned(
    store: &Store,
    reference: &Reference,
    pinned: bool,
) -> Result<SnapshotSummary> {
    store.with_slice(|| {
        store.catalog.write(Sync::Full, |txn| {
            let snapshot = txn.resolve(reference)?;
            txn.set_pinned(snapshot.id, pinned)?;
            let known = txn.publications_of(snapshot.id)?;
            Ok(summary(Snapshot { pinned, ..snapshot }, known))
        })
    })
}

/// What [`remove`] would report, refused where that would be.
pub(crate) fn plan_removal(store: &Store, reference: &Reference) -> Result<RemoveReport> {
    store.require_current()?;
    let (snapshot, exclusive) = store.catalog.read(|txn| {
        let snapshot = txn.resolve(reference)?;
        let exclusive = txn.exclusive_blobs(snapshot.id)?;
        Ok((snapshot, exclusive))
    })?;
    let freed = total(exclusive.iter().map(|blob| blob.data_size));
    Ok(RemoveReport::new(snapshot, exclusive.len() as u64, freed))
}

impl RemoveReport {
    fn new(snapshot: Snapshot, blobs_removed: u64, freed_bytes: u64) -> Self {
        Self {
            reference: snapshot.reference,
            manifest_digest: snapshot.manifest_digest,
            blobs_removed,
            freed_bytes,
            warnings: Vec::new(),
        }
    }
}

pub(crate) fn usage(store: &Store) -> Result<Usage> {
    let (snapshots, (blobs, stored_bytes)) = store
        .catalog
        .read(|txn| Ok((txn.snapshots()?, txn.blob_totals()?)))?;
    let space = space::of(&store.root.dir).at("examine", store.root.dir.path())?;
    Ok(Usage {
        snapshots: snapshots.len() as u64,
        logical_bytes: total(snapshots.iter().map(|s| s.totals.logical_bytes)),
        data_bytes: total(snapshots.iter().map(|s| s.totals.data_bytes)),
        blobs,
        stored_bytes,
        filesystem_bytes: space.total,
        available_bytes: space.available,
    })
}

fn summary(snapshot: Snapshot, known: Vec<PublicationRow>) -> SnapshotSummary {
    SnapshotSummary {
        reference: snapshot.reference,
        manifest_digest: snapshot.manifest_digest,
        state: match snapshot.state {
            _ if known.is_empty() => SnapshotState::Unpublished,
            State::Taken => SnapshotState::Published,
            State::Fetched => SnapshotState::Fetched,
        },
        publications: known.into_iter().map(PublishedAt::from).collect(),
        pinned: snapshot.pinned,
        created_at: time(snapshot.created_at),
        last_accessed_at: time(snapshot.last_accessed_at),
        files: snapshot.totals.files,
        logical_bytes: snapshot.totals.logical_bytes,
        data_bytes: snapshot.totals.data_bytes,
    }
}

pub(crate) fn time(nanoseconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}

/// Documents hold the years 0 to 9999, which Linux's `SystemTime` can represent.
fn system_time(mtime: Mtime) -> SystemTime {
    let since = Duration::from_secs(mtime.seconds.unsigned_abs());
    let whole = if mtime.seconds < 0 {
        SystemTime::UNIX_EPOCH - since
    } else {
        SystemTime::UNIX_EPOCH + since
    };
    whole + Duration::from_nanos(mtime.nanoseconds.into())
}

fn file(entry: FileEntry) -> FileDetails {
    FileDetails {
        entry: path(entry.path, entry.attributes),
        digest: entry.content.digest(),
        checksum: entry.content.checksum(),
        read_only: entry.read_only,
        size: entry.size,
        hardlink_of: entry.hardlink_of.map(PathBuf::from),
    }
}

fn path(relative_path: RelPath, attributes: Attributes) -> PathDetails {
    PathDetails {
        relative_path: relative_path.into(),
        mode: attributes.mode,
        uid: attributes.uid,
        gid: attributes.gid,
        modified: system_time(attributes.mtime),
        xattrs: attributes.xattrs,
    }
}

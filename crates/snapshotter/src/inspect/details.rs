//! What a snapshot says of itself, for people.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::catalog::{BlobState, ExclusiveBlob, Pack, PublicationRow, Snapshot, State};
use crate::format::artifact::paged::AnyManifest;
use crate::format::content::ContentId;
use crate::format::document::paged::PackEntry;
use crate::format::document::{
    Content, DirectoryEntry, Document, FileEntry, SymlinkEntry, WhiteoutEntry,
};
use crate::format::pack::PackId;
use crate::store::{Store, pack_key};
use crate::words::digest::{Checksum, Digest, Sha256};
use crate::words::entry::{Attributes, Mtime};
use crate::words::error::{Error, Result};
use crate::words::format::Format;
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
    /// How it is kept.
    pub format: Format,
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
    /// Bytes of data, or stored bytes of packs, that no other snapshot needs: what removing it gives back.
    pub exclusive_bytes: u64,
    /// The packs that a snapshot of format v2 needs, in the order of its document.
    pub packs: Vec<PackDetails>,
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
    /// Its format v1 address; missing in format v2.
    pub digest: Option<Digest>,
    /// BLAKE3 of the same bytes; missing in snapshots of the Go library, and in format v2.
    pub checksum: Option<Checksum>,
    /// What its bytes are called in format v2; missing in format v1, and where not all of its pages were captured.
    pub content: Option<ContentId>,
    /// Whether it was promised not to change.
    pub read_only: bool,
    /// Its size, holes included, in bytes.
    pub size: u64,
    /// The file it is a second name of.
    pub hardlink_of: Option<PathBuf>,
}

/// A pack of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PackDetails {
    /// Its name in the store.
    pub id: PackId,
    /// Pages in it, whether this snapshot uses them or not.
    pub pages: u64,
    /// Its length in bytes; 0 where it is not here.
    pub length: u64,
    /// Whether no other snapshot needs it.
    pub exclusive: bool,
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

pub(crate) fn inspect(store: &Store, reference: &Reference) -> Result<SnapshotDetails> {
    let read = store.catalog.read(|txn| {
        let snapshot = txn.resolve(reference)?;
        let mut exclusive = txn.exclusive_blobs(snapshot.id)?;
        let exclusive_bytes = total(exclusive.iter().map(|one| one.data_size));
        if snapshot.format != Format::V2 {
            // There may be a million, and the entries as well.
            exclusive = Vec::new();
        }
        let (entries, packs) = match snapshot.format {
            Format::V2 => {
                let document = txn.paged_document(snapshot.id)?;
                let here = txn.packs_of_snapshot(snapshot.id)?;
                let packs = document.packs.iter();
                let packs = packs.map(|named| PackDetails::new(named, &here, &exclusive));
                let packs = packs.collect();
                (entries(document.entries), packs)
            }
            Format::V1 => (entries(txn.document(snapshot.id)?), Vec::new()),
        };
        Ok(SnapshotDetails {
            annotations: annotations(&txn.manifest(snapshot.id)?)?,
            exclusive_bytes,
            packs,
            files: entries.files,
            directories: entries.directories,
            symlinks: entries.symlinks,
            whiteouts: entries.whiteouts,
            manifest: txn.manifest(snapshot.id)?,
            summary: {
                let known = txn.publications_of(snapshot.id)?;
                summary(snapshot, known)
            },
        })
    });
    read.map_err(|error| error.with_reference(reference))
}

/// What a manifest notes, the format's own notes included.
pub(crate) fn annotations(manifest: &[u8]) -> Result<BTreeMap<String, String>> {
    match AnyManifest::parse(manifest) {
        Ok(manifest) => Ok(manifest.into_annotations()),
        Err(error) => {
            let text = format!("the snapshot's manifest is not valid: {error}");
            Err(Error::damaged(text))
        }
    }
}

/// A snapshot's document, byte for byte.
pub(crate) fn document(store: &Store, reference: &Reference) -> Result<Vec<u8>> {
    let read = store.catalog.read(|txn| {
        let snapshot = txn.resolve(reference)?;
        txn.document_bytes(snapshot.id)
    });
    read.map_err(|error| error.with_reference(reference))
}

impl PackDetails {
    fn new(named: &PackEntry, here: &[Pack], exclusive: &[ExclusiveBlob]) -> Self {
        let key = pack_key(named.id);
        let here = here.iter().find(|pack| pack.key == key);
        let here = here.filter(|pack| pack.state != BlobState::Missing);
        Self {
            id: named.id,
            pages: named.pages,
            length: here.map_or(0, |pack| pack.length),
            exclusive: exclusive.iter().any(|one| one.checksum == key),
        }
    }
}

/// What a format calls the bytes of a file.
pub(crate) trait Called {
    fn names(&self) -> (Option<Digest>, Option<Checksum>, Option<ContentId>);
}

impl Called for Content {
    fn names(&self) -> (Option<Digest>, Option<Checksum>, Option<ContentId>) {
        (Some(self.digest()), self.checksum(), None)
    }
}

impl Called for Option<ContentId> {
    fn names(&self) -> (Option<Digest>, Option<Checksum>, Option<ContentId>) {
        (None, None, *self)
    }
}

/// A document's entries for people.
#[derive(Debug)]
pub(crate) struct Entries {
    pub(crate) files: Vec<FileDetails>,
    pub(crate) directories: Vec<PathDetails>,
    pub(crate) symlinks: Vec<SymlinkDetails>,
    pub(crate) whiteouts: Vec<PathDetails>,
}

pub(crate) fn entries<C: Called>(document: Document<C>) -> Entries {
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

pub(super) fn summary(snapshot: Snapshot, known: Vec<PublicationRow>) -> SnapshotSummary {
    SnapshotSummary {
        reference: snapshot.reference,
        manifest_digest: snapshot.manifest_digest,
        format: snapshot.format,
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
pub(crate) fn system_time(mtime: Mtime) -> SystemTime {
    let since = Duration::from_secs(mtime.seconds.unsigned_abs());
    let whole = if mtime.seconds < 0 {
        SystemTime::UNIX_EPOCH - since
    } else {
        SystemTime::UNIX_EPOCH + since
    };
    whole + Duration::from_nanos(mtime.nanoseconds.into())
}

fn file<C: Called>(entry: FileEntry<C>) -> FileDetails {
    let (digest, checksum, content) = entry.content.names();
    FileDetails {
        entry: path(entry.path, entry.attributes),
        digest,
        checksum,
        content,
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

//! What to verify, and what was found.

use std::path::PathBuf;
use std::time::Duration;

use crate::format::pack::PackId;
use crate::words::digest::{Checksum, Digest};
use crate::words::progress::Warning;
use crate::words::reference::Reference;

/// What to verify.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyRequest {
    /// The snapshots whose blobs and packs are read. Empty: all, and names without a row are swept.
    pub references: Vec<Reference>,
    /// Whether to mend what is found: from what is here, or by fetching it again where a registry is configured. What has
    /// wrong bytes and cannot be mended is moved to `quarantine/` in the root.
    pub repair: bool,
}

impl VerifyRequest {
    /// Verifies the whole store.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Adds a snapshot; the first one replaces "the whole store".
    #[must_use]
    pub fn reference(mut self, reference: Reference) -> Self {
        self.references.push(reference);
        self
    }

    /// Sets [`repair`](Self::repair).
    #[must_use]
    pub fn repair(mut self, repair: bool) -> Self {
        self.repair = repair;
        self
    }
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Blobs that were read.
    pub checked_blobs: u64,
    /// Packs that were read.
    pub checked_packs: u64,
    /// Bytes that were read: data of blobs, stored bytes of packs.
    pub checked_bytes: u64,
    /// Blobs and packs whose bytes are not what they were.
    pub damaged: Vec<BadBlob>,
    /// Blobs and packs whose files are gone.
    pub missing: Vec<BadBlob>,
    /// Blobs and packs that were marked damaged or missing and are right again.
    pub mended: u64,
    /// Blobs and packs that were damaged or missing and were repaired by this call; they are in neither list.
    pub repaired: Vec<BadBlob>,
    /// Snapshots whose description is damaged, whose contents or packs the catalog does not know any more, or, in format v2,
    /// whose packs are right and do not have their contents.
    pub damaged_snapshots: Vec<BadSnapshot>,
    /// Snapshots of which this was so and which this call repaired.
    pub repaired_snapshots: Vec<Reference>,
    /// What is wrong with the catalog as a database, for people, a hundred things at most; looked at with the whole store.
    /// Rebuilding it is the way out ([`Snapshotter::rebuild`](crate::Snapshotter::rebuild)).
    pub catalog: Vec<String>,
    /// Names under the store that belonged to nothing and were removed. None are while a blob is missing or the catalog is
    /// damaged: they may be what was lost.
    pub swept_names: u64,
    /// Files under blobs' names that the catalog does not know, looked for with the whole store. They stay: they may be what
    /// it lost, and rebuilding it reads them and takes them in ([`Snapshotter::rebuild`](crate::Snapshotter::rebuild)).
    pub unknown_blobs: u64,
    /// Bytes that the filesystem keeps for those.
    pub unknown_bytes: u64,
    /// How long the call took.
    pub duration: Duration,
    /// What could not be repaired, and why.
    pub warnings: Vec<Warning>,
}

impl VerifyReport {
    /// Whether nothing is damaged or missing, or is any more.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damaged.is_empty()
            && self.missing.is_empty()
            && self.damaged_snapshots.is_empty()
            && self.catalog.is_empty()
    }
}

/// A blob or a pack that cannot be restored from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BadBlob {
    /// A blob's format v1 address.
    pub digest: Option<Digest>,
    /// A blob's BLAKE3 checksum: its name in the store.
    pub checksum: Option<Checksum>,
    /// A pack's id: its name in the store. A pack has neither of the two others.
    pub pack: Option<PackId>,
    /// A blob's size, holes included; a pack's length; in bytes.
    pub size: u64,
    /// The snapshots that need it.
    pub snapshots: Vec<Reference>,
    /// Where its wrong bytes are now, if this call moved them out of the store. Nothing uses or removes them there.
    pub quarantined: Option<PathBuf>,
}

/// A snapshot that the catalog does not describe any more as it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BadSnapshot {
    /// Its name and version.
    pub reference: Reference,
    /// What is wrong, for people.
    pub problem: String,
}

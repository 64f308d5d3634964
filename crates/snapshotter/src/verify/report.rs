//! What to verify, and what was found.

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::format::pack::PackId;
use crate::words::digest::{Checksum, Digest};
use crate::words::error::{Error, Result};
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
    /// Reads a part of the blobs and packs alone. All records and descriptions are looked at all the same; nothing is swept, and
    /// cache entries are left out.
    pub subset: Option<Subset>,
}

/// A part of all blobs and packs, by their names, so that parts are about as large as each other, and each object is in one.
///
/// ```
/// use snapshotter::Subset;
///
/// let seventh: Subset = "7/20".parse()?;
/// assert_eq!((seventh.part(), seventh.of()), (7, 20));
/// // Any one of twenty parts.
/// assert_eq!("5%".parse::<Subset>()?.of(), 20);
/// # Ok::<(), snapshotter::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subset {
    part: u32,
    of: u32,
}

impl Subset {
    /// One of several parts, counted from one.
    ///
    /// # Errors
    /// `InvalidInput` where there is no such part.
    pub fn new(part: u32, of: u32) -> Result<Self> {
        match (1..=of).contains(&part) {
            true => Ok(Self { part, of }),
            false => Err(Error::invalid(format!("there is no part {part} of {of}"))),
        }
    }

    /// Any one of several parts: another one each time, if chance wants it.
    ///
    /// # Errors
    /// `InvalidInput` for none.
    pub fn any(of: u32) -> Result<Self> {
        let chance = RandomState::new().hash_one(of);
        let part = chance.checked_rem(of.into()).unwrap_or_default();
        Self::new(1 + part as u32, of)
    }

    /// Which part, counted from one.
    #[must_use]
    pub fn part(&self) -> u32 {
        self.part
    }

    /// Of how many.
    #[must_use]
    pub fn of(&self) -> u32 {
        self.of
    }

    pub(super) fn has(&self, key: &Checksum) -> bool {
        let (head, _) = key.as_bytes().split_at(8);
        let number = head.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        number % u64::from(self.of) == u64::from(self.part) - 1
    }
}

impl FromStr for Subset {
    type Err = Error;

    /// `7/20`, or `5%`: any part of those that are at least so large.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("{text:?} is no part: write 5%, or 7/20"));
        if let Some((part, of)) = text.split_once('/') {
            let number = |text: &str| text.trim().parse().map_err(|_| wrong());
            return Self::new(number(part)?, number(of)?);
        }
        let percent = text
            .strip_suffix('%')
            .and_then(|text| text.trim().parse().ok());
        match percent {
            Some(percent @ 0.001..=100.0) => Self::any((100.0_f64 / percent) as u32),
            _ => Err(wrong()),
        }
    }
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

    /// Sets [`subset`](Self::subset).
    #[must_use]
    pub fn subset(mut self, subset: Subset) -> Self {
        self.subset = Some(subset);
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
    /// Which part of the blobs and packs was read; `None`: all.
    pub subset: Option<Subset>,
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

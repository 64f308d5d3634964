//! What is asked of a collection and what it says it did.

use std::time::{Duration, SystemTime};

use crate::metrics::Metrics;
use crate::words::digest::Sha256;
use crate::words::progress::Warning;
use crate::words::reference::Reference;

/// What to collect. What is not said is as the configuration's [`Gc`](crate::Gc) has it.
///
/// ```
/// use snapshotter::GcRequest;
///
/// let request = GcRequest::new().max_bytes(100 << 30).dry_run(true);
/// assert_eq!(request.max_bytes, Some(100 << 30));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcRequest {
    /// Only say what would go. It is asked for all the same; nothing is written down.
    pub dry_run: bool,
    /// Bytes of data the store may hold, instead of [`Gc::max_bytes`](crate::Gc::max_bytes).
    pub max_bytes: Option<u64>,
    /// Instead of [`Gc::min_retention_period`](crate::Gc::min_retention_period).
    pub min_retention_period: Option<Duration>,
    /// Instead of [`Gc::include_unpublished`](crate::Gc::include_unpublished).
    pub include_unpublished: Option<bool>,
}

impl GcRequest {
    /// What the background worker does.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`dry_run`](Self::dry_run).
    #[must_use]
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Sets [`max_bytes`](Self::max_bytes).
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// Sets [`min_retention_period`](Self::min_retention_period).
    #[must_use]
    pub fn min_retention_period(mut self, period: Duration) -> Self {
        self.min_retention_period = Some(period);
        self
    }

    /// Sets [`include_unpublished`](Self::include_unpublished).
    #[must_use]
    pub fn include_unpublished(mut self, include: bool) -> Self {
        self.include_unpublished = Some(include);
        self
    }
}

/// What a collection did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcReport {
    /// Nothing was released or swept.
    pub dry_run: bool,
    /// What was wanted when it began: 0 of all where neither the disk nor the store was too full.
    pub wanted: GcAmount,
    /// The snapshots that went, in this order.
    pub released: Vec<ReleasedSnapshot>,
    /// Blobs that nothing needed any more.
    pub blobs_released: u64,
    /// Bytes of data in them.
    pub released_bytes: u64,
    /// Cache entries that went before any snapshot, where the disk was too full.
    pub cache_entries: u64,
    /// Bytes that the filesystem kept for them.
    pub cache_bytes: u64,
    /// Bytes the filesystem has more than before, as it says; in a dry run, as is expected. Less than `released_bytes`
    /// where files have other names or share their blocks, and whatever others write meanwhile counts against it.
    pub freed_bytes: u64,
    /// The snapshots that had to stay, by why.
    pub kept: KeptSnapshots,
    /// What is still wanted, and why nothing more was done for it; `None` where it is enough.
    pub shortfall: Option<GcShortfall>,
    /// Names under the store that belonged to nothing and were removed; 0 in a dry run, which does not look for them.
    pub swept_names: u64,
    /// How long the call took.
    pub duration: Duration,
    /// What the caller may care about: each snapshot that stayed because it was not confirmed to be elsewhere, and files
    /// that could not be removed yet.
    pub warnings: Vec<Warning>,
}

impl GcReport {
    /// Adds what it says to a handle's counters.
    pub(crate) fn count_in(&self, metrics: &mut Metrics) {
        metrics.gc_shortfalls += u64::from(self.shortfall.is_some());
        if !self.dry_run {
            metrics.evicted_snapshots += self.released.len() as u64;
            metrics.evicted_blobs += self.blobs_released;
            metrics.evicted_bytes += self.released_bytes;
            metrics.freed_bytes += self.freed_bytes;
        }
    }
}

/// What is too much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcAmount {
    /// On the filesystem, above the low threshold once the high one was reached.
    pub disk_bytes: u64,
    /// In the store, above `max_bytes`.
    pub store_bytes: u64,
    /// Inodes of the filesystem, above the low threshold once the high one was reached.
    pub inodes: u64,
}

/// A snapshot that went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReleasedSnapshot {
    /// Its name and version.
    pub reference: Reference,
    /// SHA-256 of its manifest.
    pub manifest_digest: Sha256,
    /// When it was taken or last restored.
    pub last_accessed_at: SystemTime,
    /// Blobs that went with it; in a dry run, those that it alone needs.
    pub blobs: u64,
    /// Bytes of data in them.
    pub bytes: u64,
}

/// How many snapshots must stay, whatever is wanted. Each counts once, for the first of these that holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeptSnapshots {
    /// Somebody pinned them.
    pub pinned: u64,
    /// They are being restored or published.
    pub in_use: u64,
    /// They were used within the retention period.
    pub recent: u64,
    /// Their only copy is here: the configured registry and place of contents have them not, as far as is known.
    pub only_copies: u64,
    /// They were said to be there, and were asked for: something of them was not there, or nobody answered.
    pub unconfirmed: u64,
}

/// Why a collection ended with less than was wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcShortfall {
    /// What is still too much.
    pub missing: GcAmount,
    /// Why nothing more was done.
    pub reason: GcStop,
}

/// Why a collection stopped early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GcStop {
    /// Nothing that may go would free anything: the rest is kept (see [`GcReport::kept`]), or its bytes have other names.
    NothingLeft,
    /// The filesystem had hardly more room after a release than before: the blocks belong to other files too, somebody holds
    /// the files open, or somebody writes as fast as space comes free.
    NotHelping,
}

impl GcStop {
    /// The reason as scripts know it: `snake_case`, stable.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NothingLeft => "nothing_left",
            Self::NotHelping => "not_helping",
        }
    }
}

/// What a store holds, snapshot by snapshot, and what could come free.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UsageDetails {
    /// The whole.
    pub usage: crate::Usage,
    /// What the root takes on the disk.
    pub disk: crate::DiskUsage,
    /// Bytes the filesystem would get back if everything went that garbage collection may release now: so many at most, where files
    /// share blocks.
    pub reclaimable_bytes: u64,
    /// By name, the newest version of each name first.
    pub snapshots: Vec<SnapshotUsage>,
}

/// What a snapshot costs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotUsage {
    /// Its name and version.
    pub reference: Reference,
    /// Sizes of the files, holes included, in bytes.
    pub logical_bytes: u64,
    /// Bytes of data that other snapshots need too.
    pub shared_bytes: u64,
    /// Bytes of data that it alone needs.
    pub exclusive_bytes: u64,
    /// Why garbage collection may not release it; `None`: it may.
    pub kept: Option<KeptFor>,
}

/// Why garbage collection may not release a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeptFor {
    /// Somebody pinned it.
    Pinned,
    /// It is being restored or published.
    InUse,
    /// It was used within the retention period.
    Recent,
    /// Its only copy is here: the configured registry and place of contents have it not, as far as is known.
    OnlyCopy,
}

impl KeptFor {
    /// The reason as scripts know it: `snake_case`, stable.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::InUse => "in_use",
            Self::Recent => "recent",
            Self::OnlyCopy => "only_copy",
        }
    }
}

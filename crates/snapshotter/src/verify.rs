//! The whole-store check: every blob is read and compared, every name has a row, every row a file.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::activity::{Activity, Limit};
use crate::catalog::{Blob, BlobState};
use crate::store::Store;
use crate::words::digest::{Checksum, Digest};
use crate::words::error::{ErrorKind, Result};
use crate::words::reference::Reference;

/// What to verify.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyRequest {
    /// The snapshots whose blobs are read. Empty: all blobs, and names without a row are swept.
    pub references: Vec<Reference>,
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
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Blobs that were read.
    pub checked_blobs: u64,
    /// Bytes of data that were read.
    pub checked_bytes: u64,
    /// Blobs whose bytes are not what they were.
    pub damaged: Vec<BadBlob>,
    /// Blobs whose files are gone.
    pub missing: Vec<BadBlob>,
    /// Blobs that were marked damaged or missing and are right again.
    pub mended: u64,
    /// Names under the store that belonged to nothing and were removed.
    pub swept_names: u64,
    /// How long the call took.
    pub duration: Duration,
}

/// A blob that cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BadBlob {
    /// Its format v1 address.
    pub digest: Digest,
    /// Its BLAKE3 checksum: its name in the store.
    pub checksum: Checksum,
    /// Its size, holes included, in bytes.
    pub size: u64,
    /// The snapshots that need it.
    pub snapshots: Vec<Reference>,
}

/// Rows read in one go.
const PAGE: u32 = 1000;

/// Verifies. Blocks.
pub(crate) fn run(
    store: &Store,
    limit: &Limit,
    request: &VerifyRequest,
    activity: &Activity,
) -> Result<VerifyReport> {
    let started = Instant::now();
    let check = Check {
        store,
        activity,
        found: Mutex::new(Found::default()),
    };
    let mut swept_names = 0;
    if request.references.is_empty() {
        swept_names = store.sweep_whole()?;
        check.whole_store(limit)?;
    } else {
        check.snapshots(limit, &request.references)?;
    }
    let found = check
        .found
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    Ok(VerifyReport {
        checked_blobs: found.checked_blobs,
        checked_bytes: found.checked_bytes,
        damaged: found.damaged.into_values().collect(),
        missing: found.missing.into_values().collect(),
        mended: found.mended,
        swept_names,
        duration: started.elapsed(),
    })
}

#[derive(Default)]
struct Found {
    checked_blobs: u64,
    checked_bytes: u64,
    damaged: BTreeMap<Checksum, BadBlob>,
    missing: BTreeMap<Checksum, BadBlob>,
    mended: u64,
}

struct Check<'a> {
    store: &'a Store,
    activity: &'a Activity,
    found: Mutex<Found>,
}

enum Verdict {
    Right,
    Damaged,
    Missing,
    /// Removed while it was looked at.
    Gone,
}

impl Check<'_> {
    fn whole_store(&self, limit: &Limit) -> Result<()> {
        let mut after = 0;
        loop {
            let page = self
                .store
                .catalog
                .read(|txn| txn.blobs_after(after, PAGE))?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = last.id;
            self.blobs(limit, &page)?;
        }
    }

    fn snapshots(&self, limit: &Limit, references: &[Reference]) -> Result<()> {
        let mut blobs = BTreeMap::new();
        for reference in references {
            let found = self.store.catalog.read(|txn| {
                let snapshot = txn.resolve(reference)?;
                txn.blobs_of_snapshot(snapshot.id)
            })?;
            blobs.extend(found.into_iter().map(|blob| (blob.id, blob)));
        }
        self.blobs(limit, &blobs.into_values().collect::<Vec<_>>())
    }

    fn blobs(&self, limit: &Limit, blobs: &[Blob]) -> Result<()> {
        limit.for_each(blobs.len(), |index| self.blob(&blobs[index]))
    }

    fn blob(&self, blob: &Blob) -> Result<()> {
        self.activity.check()?;
        let verdict = self.judge(blob)?;
        self.activity.advance(blob.data_size).ok();
        let bad = match verdict {
            Verdict::Damaged | Verdict::Missing => Some(self.describe(blob)?),
            Verdict::Right | Verdict::Gone => None,
        };
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        match (verdict, bad) {
            (Verdict::Gone, _) => return Ok(()),
            (Verdict::Damaged, Some(bad)) => {
                found.damaged.insert(blob.checksum, bad);
            }
            (Verdict::Missing, Some(bad)) => {
                found.missing.insert(blob.checksum, bad);
            }
            _ => found.mended += u64::from(blob.state != BlobState::Good),
        }
        found.checked_blobs += 1;
        found.checked_bytes += blob.data_size;
        Ok(())
    }

    fn judge(&self, blob: &Blob) -> Result<Verdict> {
        let still_there = || self.store.catalog.read(|txn| txn.blob(blob.id));
        let found = match self.store.open_current(blob) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                self.store.mark_unreadable(blob)?;
                return Ok(Verdict::Damaged);
            }
            result => result?,
        };
        let Some((blob, opened)) = found else {
            self.store.found_missing(blob)?;
            return Ok(match still_there()? {
                Some(_) => Verdict::Missing,
                None => Verdict::Gone,
            });
        };
        let right = self.store.rehash(&blob, &opened, self.activity)?;
        if right {
            self.verify_views(&blob)?;
            return Ok(Verdict::Right);
        }
        Ok(match still_there()? {
            Some(now) if now.state == BlobState::Good => Verdict::Right,
            Some(_) => Verdict::Damaged,
            None => Verdict::Gone,
        })
    }

    /// A view that is not right is forgotten: the next restore makes it anew.
    fn verify_views(&self, blob: &Blob) -> Result<()> {
        let views = self.store.catalog.read(|txn| txn.views_of_blob(blob.id))?;
        for attributes in views {
            if !self.store.view_is_right(blob, &attributes, self.activity)? {
                self.store.drop_view(blob, &attributes)?;
            }
        }
        Ok(())
    }

    fn describe(&self, blob: &Blob) -> Result<BadBlob> {
        Ok(BadBlob {
            digest: blob.digest,
            checksum: blob.checksum,
            size: blob.size,
            snapshots: self
                .store
                .catalog
                .read(|txn| txn.snapshots_of_blob(blob.id))?,
        })
    }
}

//! `pull`: brings a snapshot into the store and makes no files of it, so that a restore later finds it here.

use std::time::{Duration, Instant};

use super::{fetch, mend};
use crate::catalog::{Snapshot, Sync};
use crate::registry::Registry;
use crate::store::{Operation, now};
use crate::transport::Content;
use crate::words::digest::Sha256;
use crate::words::error::{ErrorKind, Result};
use crate::words::progress::Warning;
use crate::words::reference::Reference;

/// Which snapshot to fetch.
///
/// ```
/// use snapshotter::PullRequest;
///
/// let request = PullRequest::new("sandboxes/vm-1:v3".parse()?);
/// assert!(request.registry.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PullRequest {
    /// The snapshot.
    pub reference: Reference,
    /// The registry to use instead of the configured one, for this call.
    pub registry: Option<Registry>,
    /// The place of contents to use instead of the configured one, for this call.
    pub content: Option<Content>,
}

impl PullRequest {
    /// Fetches a snapshot from where the configuration says.
    #[must_use]
    pub fn new(reference: Reference) -> Self {
        Self {
            reference,
            registry: None,
            content: None,
        }
    }

    /// Sets [`registry`](Self::registry).
    #[must_use]
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = Some(registry);
        self
    }

    /// Sets [`content`](Self::content).
    #[must_use]
    pub fn content(mut self, content: Content) -> Self {
        self.content = Some(content);
        self
    }
}

/// What a pull call did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PullReport {
    /// The snapshot as it is called here, with its manifest's digest.
    pub reference: Reference,
    /// SHA-256 of the manifest.
    pub manifest_digest: Sha256,
    /// Regular files, second names of one inode included.
    pub files: u64,
    /// Sizes of the files, holes included, each inode once, in bytes.
    pub logical_bytes: u64,
    /// Bytes of data in them, holes excluded, each inode once.
    pub data_bytes: u64,
    /// Blobs that were fetched.
    pub fetched_blobs: u64,
    /// Their packed streams' lengths, in bytes.
    pub fetched_bytes: u64,
    /// Blobs the store had.
    pub reused_blobs: u64,
    /// How long the call took.
    pub duration: Duration,
    /// What the caller may care about.
    pub warnings: Vec<Warning>,
}

/// Fetches a snapshot, or what is damaged or missing of one that is here. Blocks.
pub(crate) fn run(context: &fetch::Context<'_>, request: &PullRequest) -> Result<PullReport> {
    let started = Instant::now();
    let operation = context.store.begin()?;
    let (fetched, snapshot) = obtain(context, &operation, &request.reference)
        .map_err(|error| error.with_reference(&request.reference))?;
    drop(operation);
    Ok(PullReport {
        reference: snapshot.reference.with_digest(snapshot.manifest_digest),
        manifest_digest: snapshot.manifest_digest,
        files: snapshot.totals.files,
        logical_bytes: snapshot.totals.logical_bytes,
        data_bytes: snapshot.totals.data_bytes,
        fetched_blobs: fetched.fetched_blobs,
        fetched_bytes: fetched.fetched_bytes,
        reused_blobs: fetched.reused_blobs,
        duration: started.elapsed(),
        warnings: Vec::new(),
    })
}

fn obtain(
    context: &fetch::Context<'_>,
    operation: &Operation,
    reference: &Reference,
) -> Result<(fetch::Fetched, Snapshot)> {
    let store = context.store;
    let here = store.catalog.write(Sync::Normal, |txn| {
        let found = txn.find(reference)?;
        if let Some(snapshot) = &found {
            operation.lease(txn, snapshot.id)?;
            txn.touch(snapshot.id, now())?;
        }
        Ok(found)
    })?;
    let fetched = match &here {
        Some(snapshot) => mend::repair(context, snapshot.id)?,
        None => fetch::run(context, operation, reference, None)?,
    };
    let snapshot = store.catalog.read(|txn| txn.snapshot(fetched.snapshot))?;
    let snapshot = snapshot.ok_or_else(|| {
        crate::Error::new(
            ErrorKind::NotFound,
            "the snapshot was removed while it was fetched",
        )
    })?;
    Ok((fetched, snapshot))
}

//! `pull`: brings a snapshot into the store and makes no files of it, so that a restore later finds it here. Of one that is
//! here it looks whether its name means another one in the registry by now, and takes that where the request says so.

use std::time::{Duration, Instant};

use super::runtime::{Wanted, wait};
use super::{fetch, mend, visible};
use crate::catalog::{Snapshot, Sync};
use crate::metrics::Operation as Verb;
use crate::registry::Registry;
use crate::store::{Operation, now};
use crate::transport::Content;
use crate::words::digest::Sha256;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::format::Format;
use crate::words::progress::{Warning, WarningKind};
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
    /// Takes what the registry has under this name, if that is another snapshot than the one that is here; that one is called by
    /// its digest from then on ([`PullReport::kept_as`]). One that is pinned or nowhere else keeps its name: that is an error.
    /// Default `false`: it is warned of.
    pub update: bool,
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
            update: false,
            registry: None,
            content: None,
        }
    }

    /// Sets [`update`](Self::update).
    #[must_use]
    pub fn update(mut self, update: bool) -> Self {
        self.update = update;
        self
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
    /// SHA-256 of the manifest that had this name here before, and was replaced.
    pub replaced: Option<Sha256>,
    /// What that one is called here from now on: `NAME:sha256-…`.
    pub kept_as: Option<Reference>,
    /// Regular files, second names of one inode included.
    pub files: u64,
    /// Sizes of the files, holes included, each inode once, in bytes.
    pub logical_bytes: u64,
    /// Bytes of data in them, holes excluded, each inode once.
    pub data_bytes: u64,
    /// Of the snapshot.
    pub format: Format,
    /// Blobs that were fetched, or packs in format v2.
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
    let operation = context.store.begin(Verb::Pull)?;
    let (fetched, snapshot, replaced) = obtain(context, &operation, request)
        .map_err(|error| error.with_reference(&request.reference))?;
    drop(operation);
    Ok(PullReport {
        reference: snapshot.reference.with_digest(snapshot.manifest_digest),
        manifest_digest: snapshot.manifest_digest,
        replaced,
        kept_as: replaced
            .map(|digest| visible::digest_reference(request.reference.name(), digest))
            .transpose()?,
        format: snapshot.format,
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
    request: &PullRequest,
) -> Result<(fetch::Fetched, Snapshot, Option<Sha256>)> {
    let (store, reference) = (context.store, &request.reference);
    let here = store.catalog.write(Sync::Normal, |txn| {
        let found = txn.find(reference)?;
        if let Some(snapshot) = &found {
            operation.lease(txn, snapshot.id)?;
            txn.touch(snapshot.id, now())?;
        }
        Ok(found)
    })?;
    let mut replaced = None;
    let fetched = match &here {
        Some(old) => match moved(context, request, old)? {
            Some(new) if request.update => {
                replaced = Some(old.manifest_digest);
                replace(context, operation, reference, old, new)?
            }
            new => {
                new.into_iter()
                    .for_each(|new| tell(context, reference, new));
                mend::repair(context, old.id)?
            }
        },
        None => fetch::run(context, operation, reference, None)?,
    };
    let snapshot = store.catalog.read(|txn| txn.snapshot(fetched.snapshot))?;
    let snapshot = snapshot.ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            "the snapshot was removed while it was fetched",
        )
    })?;
    Ok((fetched, snapshot, replaced))
}

/// How long a registry has to say what a name means by now, where all that was asked for may be here.
const GLIMPSE: Duration = Duration::from_secs(5);

/// The digest that the name of a snapshot that is here has in the registry, if it is another one. A registry out of reach is
/// no reason not to use what is here, nor to wait for it: only who wants what is there gives it all of its attempts.
fn moved(
    context: &fetch::Context<'_>,
    request: &PullRequest,
    here: &Snapshot,
) -> Result<Option<Sha256>> {
    let reference = &request.reference;
    if reference.manifest_digest().is_some() {
        return Ok(None);
    }
    let started = Instant::now();
    let wanted = || match started.elapsed() > GLIMPSE && !request.update {
        true => Err(Error::new(
            ErrorKind::Unavailable,
            format!("no answer within {GLIMPSE:?}"),
        )),
        false => context.activity.check(),
    };
    match meaning(context, reference, here, &wanted) {
        Ok(there) => Ok(there.filter(|digest| *digest != here.manifest_digest)),
        Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
        Err(error) => {
            let text = format!(
                "whether {reference} is another snapshot in the registry by now could not be looked up: {}",
                error.line()
            );
            context.activity.warn(WarningKind::Unchecked, None, text);
            Ok(None)
        }
    }
}

/// The digest that a name has in the registry. A directory that is not mounted has no names at all.
fn meaning(
    context: &fetch::Context<'_>,
    reference: &Reference,
    here: &Snapshot,
    wanted: Wanted<'_>,
) -> Result<Option<Sha256>> {
    let remote = context.remote;
    let there = remote.find_while(reference, wanted)?;
    let there = there.map(|found| found.digest);
    let catalog = &context.store.catalog;
    let was_there = catalog.read(|txn| Ok(!txn.publications_of(here.id)?.is_empty()))?;
    if there.is_none() && was_there {
        let repository = remote.repository(reference)?;
        wait(wanted, remote.registry.check_sight(&repository))?;
    }
    Ok(there)
}

fn tell(context: &fetch::Context<'_>, reference: &Reference, new: Sha256) {
    let place = &context.remote.endpoint;
    let text = format!(
        "{reference} is another snapshot in {place} by now, {new}; the one that is here stays, and an update would replace it"
    );
    context.activity.warn(WarningKind::Moved, None, text);
}

/// Looked at before anything is fetched, and once more in the transaction that replaces it.
fn replace(
    context: &fetch::Context<'_>,
    operation: &Operation,
    reference: &Reference,
    old: &Snapshot,
    new: Sha256,
) -> Result<fetch::Fetched> {
    let store = context.store;
    store.require_current()?;
    store
        .catalog
        .read(|txn| visible::require_replaceable(txn, old.id))?;
    let new = reference.clone().with_digest(new);
    fetch::replace(context, operation, &new, old.id)
}

//! `push`: publishes snapshots that are here and not in the registry yet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::contents::{layers_of, layers_of_packs};
use super::download::{Asked, Download};
use super::publish::{self, How};
use super::remove::give_up;
use super::{Remote, packs, visible};
use crate::activity::Activity;
use crate::catalog::{Snapshot, Sync};
use crate::format::artifact::paged::AnyManifest;
use crate::limit::Limit;
use crate::metrics::Operation as Verb;
use crate::registry::Registry;
use crate::store::{Operation, Store};
use crate::transport::Content;
use crate::words::digest::Sha256;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::format::Format;
use crate::words::progress::{Event, Phase, Warning};
use crate::words::publication::Publication;
use crate::words::reference::Reference;
use crate::words::total::total;

/// Which snapshot to publish.
///
/// ```
/// use snapshotter::PushRequest;
///
/// let request = PushRequest::new("sandboxes/vm-1:v3".parse()?).verify(true);
/// assert!(!request.force);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PushRequest {
    /// The snapshot.
    pub reference: Reference,
    /// Replaces the version in the registry, and sends all objects again, whatever is there: that mends what was damaged there
    /// without another size. Default `false`.
    pub force: bool,
    /// Reads everything back and compares it. Default `false`.
    pub verify: bool,
    /// In which format it is published. A snapshot of format v2 can be published in format v1, which the Go library reads: its
    /// files are made from its pages, sent, and do not stay here. Default `None`: in the one that it is kept in.
    pub format: Option<Format>,
    /// The registry to use instead of the configured one, for this call.
    pub registry: Option<Registry>,
    /// The place of contents to use instead of the configured one, for this call.
    pub content: Option<Content>,
}

impl PushRequest {
    /// Publishes a snapshot where the configuration says.
    #[must_use]
    pub fn new(reference: Reference) -> Self {
        Self {
            reference,
            force: false,
            verify: false,
            format: None,
            registry: None,
            content: None,
        }
    }

    /// Sets [`force`](Self::force).
    #[must_use]
    pub fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    /// Sets [`verify`](Self::verify).
    #[must_use]
    pub fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// Sets [`format`](Self::format).
    #[must_use]
    pub fn format(mut self, format: Option<Format>) -> Self {
        self.format = format;
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

/// What a push call did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PushReport {
    /// The snapshot, with its manifest's digest.
    pub reference: Reference,
    /// Where it is now.
    pub publication: Publication,
    /// Blobs that were read back and are right.
    pub verified_blobs: u64,
    /// How long the call took.
    pub duration: Duration,
    /// What the caller may care about.
    pub warnings: Vec<Warning>,
}

/// Makes a snapshot one of format v1, for as long as the operation lasts.
pub(crate) type AsV1<'a> = &'a dyn Fn(&Operation, &Snapshot) -> Result<Snapshot>;

/// Publishes a snapshot. Blocks.
pub(crate) fn run(
    store: &Arc<Store>,
    limit: &Limit,
    remote: &Remote,
    (request, as_v1): (&PushRequest, AsV1<'_>),
    activity: &Activity,
) -> Result<PushReport> {
    let started = Instant::now();
    let operation = store.begin(Verb::Push)?;
    let snapshot = store.catalog.write(Sync::Normal, |txn| {
        let snapshot = txn.resolve(&request.reference)?;
        operation.lease(txn, snapshot.id)?;
        Ok(snapshot)
    })?;
    let sent = match request.format {
        Some(format) if format != snapshot.format => {
            require_v1(&snapshot, format)
                .and_then(|()| refuse_v2_there(remote, &snapshot, request.force, activity))?;
            let form = as_v1(&operation, &snapshot)?;
            if request.force {
                // Whatever becomes of this call, the form that is kept here may have lost the name there.
                let digest = snapshot.manifest_digest;
                give_up(store, remote, &snapshot.reference, digest)?;
            }
            let sent = send(store, limit, remote, request, &form, activity);
            sent.and_then(|sent| {
                let there = Some(sent.0.manifest_digest);
                publish::revise(store, remote, &snapshot, there)?;
                Ok(sent)
            })
        }
        _ => send(store, limit, remote, request, &snapshot, activity),
    };
    let (publication, verified_blobs) =
        sent.map_err(|error| error.with_reference(&request.reference))?;
    drop(operation);
    Ok(PushReport {
        reference: snapshot.reference.with_digest(publication.manifest_digest),
        publication,
        verified_blobs,
        duration: started.elapsed(),
        warnings: Vec::new(),
    })
}

fn require_v1(snapshot: &Snapshot, wanted: Format) -> Result<()> {
    if (snapshot.format, wanted) == (Format::V2, Format::V1) {
        return Ok(());
    }
    let (reference, kept) = (&snapshot.reference, snapshot.format.as_str());
    let text = format!("{reference} is kept in format {kept}, and published in that or in v1");
    Err(Error::invalid(text)
        .with_reference(reference)
        .with_hint("`convert` makes another snapshot of it, which can be published"))
}

/// Said before a file is made: what is there already in format v2 is not what would be sent.
fn refuse_v2_there(
    remote: &Remote,
    snapshot: &Snapshot,
    force: bool,
    activity: &Activity,
) -> Result<()> {
    let there = remote.published(&snapshot.reference, activity)?;
    match there.filter(|there| *there == snapshot.manifest_digest && !force) {
        Some(there) => Err(remote.taken(&snapshot.reference, there)),
        None => Ok(()),
    }
}

fn send(
    store: &Arc<Store>,
    limit: &Limit,
    remote: &Remote,
    request: &PushRequest,
    snapshot: &Snapshot,
    activity: &Activity,
) -> Result<(Publication, u64)> {
    let how = How {
        force: request.force,
        again: request.force,
        verify: request.verify,
    };
    let publication = publish::run(store, limit, remote, snapshot, how, activity)?;
    let is_ours = || -> Result<bool> {
        let manifest = store.catalog.read(|txn| txn.manifest(snapshot.id))?;
        Ok(Sha256::of(&manifest) == publication.manifest_digest)
    };
    // What is there of somebody else's making is not what is here.
    let verified = if request.verify && is_ours()? {
        read_back(store, limit, remote, snapshot, activity)?
    } else {
        0
    };
    Ok((publication, verified))
}

/// Publishes a snapshot that was just taken, which the operation leases. Where the registry refuses it for good, the snapshot
/// that it replaced has the name again.
pub(crate) fn publish_new(
    store: &Arc<Store>,
    limit: &Limit,
    remote: &Remote,
    (operation, snapshot): (&Operation, i64),
    force: bool,
    activity: &Activity,
) -> Result<Publication> {
    let found = store.catalog.read(|txn| txn.snapshot(snapshot))?;
    let Some(snapshot) = found else {
        return Err(Error::new(
            ErrorKind::NotFound,
            "the snapshot was taken, and removed or replaced by another call before it was published",
        ));
    };
    // A version is replaced here, and most of it is as it was.
    let how = How {
        force,
        again: false,
        verify: false,
    };
    let published = publish::run(store, limit, remote, &snapshot, how, activity);
    published.map_err(|error| {
        let refused = (&snapshot, &error);
        let hint = give_back(store, remote, operation, refused, activity).inspect_err(
            |error| tracing::warn!(%error, "a name that the registry refused is not given back"),
        );
        let kept = || "the snapshot is kept here: `push` publishes it".to_owned();
        let hint = hint.ok().flatten().unwrap_or_else(kept);
        error.with_reference(&snapshot.reference).with_hint(hint)
    })
}

/// Gives the name that a refused snapshot took to the one that had it, and says what it is called itself from now on.
fn give_back(
    store: &Arc<Store>,
    remote: &Remote,
    operation: &Operation,
    (taken, refusal): (&Snapshot, &Error),
    activity: &Activity,
) -> Result<Option<String>> {
    let is_final = matches!(
        refusal.kind(),
        ErrorKind::Unsupported | ErrorKind::PermissionDenied | ErrorKind::AlreadyExists
    );
    if !is_final {
        return Ok(None);
    }
    let name = &taken.reference;
    // What was refused may be what comes after the manifest.
    let there = remote.published(name, activity).ok();
    let own = store.catalog.read(|txn| txn.snapshot(taken.id))?;
    let own = own.map(|own| own.manifest_digest);
    if own.is_some() && there == Some(own) {
        return Ok(None);
    }
    let called = store.catalog.write(Sync::Full, |txn| {
        let replaced = operation.removed(txn)?.filter(|old| *old != taken.id);
        replaced.map_or(Ok(None), |old| visible::give_back(txn, taken.id, old))
    })?;
    if let (Some(there), Some(_)) = (there, &called)
        && let Some(old) = store.catalog.read(|txn| txn.find(name))?
    {
        publish::revise(store, remote, &old, there)?;
    }
    Ok(called
        .map(|called| format!("{name} is here what it was; what was taken is kept as {called}")))
}

/// Compares every blob as others would get it.
fn read_back(
    store: &Store,
    limit: &Limit,
    remote: &Remote,
    snapshot: &Snapshot,
    activity: &Activity,
) -> Result<u64> {
    let manifest = store.catalog.read(|txn| txn.manifest(snapshot.id))?;
    let layers = match super::parse_manifest(&manifest, &snapshot.reference)? {
        AnyManifest::V1(manifest) => layers_of(&manifest),
        AnyManifest::V2(manifest) => {
            let layers = layers_of_packs(&manifest);
            return packs::read_back(store, limit, remote, (snapshot, layers), activity);
        }
    };
    let blobs = store
        .catalog
        .read(|txn| txn.blobs_of_snapshot(snapshot.id))?;
    activity.tell(|| Event::Planned {
        phase: Phase::ReadBack,
        files: blobs.len() as u64,
        bytes: total(blobs.iter().map(|blob| blob.data_size)),
    });
    let repository = remote.repository(&snapshot.reference)?;
    let contents = remote.contents(&repository, layers)?;
    // What a daemon on this node has in its cache is what it was given: others get what is behind it.
    let transport = contents.direct.as_ref().unwrap_or(&contents.transport);
    limit.for_each(activity, blobs.len(), |index| {
        let download = Download {
            transport,
            rate: &remote.rates.download,
            asked: Asked::of(&blobs[index]),
            len: None,
            wanted: &|| activity.check(),
        };
        download.compare(activity)
    })?;
    Ok(blobs.len() as u64)
}

//! Remote → store. Everything that comes is untrusted: the manifest is found by its digest or named by a tag, the
//! document is pinned by the manifest, each blob by the document, and all of it is checked before it gets a name. The
//! snapshot appears in one transaction when every blob is here, so a fetch that fails or dies leaves nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Remote;
use super::commit::{Uncommitted, in_store};
use super::contents::{Contents, layers_of, layers_of_packs};
use super::download::Download;
use super::flight::{Flights, Follow, Lead, Turn};
use super::packs;
use super::resolve::{Need, Said, by_content, needs, resolve};
use super::runtime::Wanted;
use super::stage::{Stage, StagedBlob};
use super::visible::{finish, totals, versioned};
use crate::activity::Activity;
use crate::catalog::{Blob, Sync};
use crate::format::document::Document;
use crate::limit::Limit;
use crate::lock::lock;
use crate::pass::Hashes;
use crate::registry::{Layers, Repository};
use crate::store::{Ingested, Operation, Recipient, Store};
use crate::transport::ContentTransport;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::progress::{Event, Phase, WarningKind};
use crate::words::reference::Reference;
use crate::words::total::total;

/// What a fetch brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fetched {
    /// The snapshot's row, leased by the operation.
    pub(crate) snapshot: i64,
    pub(crate) fetched_blobs: u64,
    pub(crate) fetched_bytes: u64,
    pub(crate) reused_blobs: u64,
}

/// What a fetch works with.
pub(crate) struct Context<'a> {
    pub(crate) store: &'a Arc<Store>,
    pub(crate) limit: &'a Limit,
    pub(crate) flights: &'a Flights,
    pub(crate) remote: &'a Remote,
    pub(crate) activity: &'a Activity,
}

/// Brings a snapshot into the store, unless it is here, and leases it for an operation.
pub(crate) fn run(
    context: &Context<'_>,
    operation: &Operation,
    reference: &Reference,
    recipient: Option<&dyn Recipient>,
) -> Result<Fetched> {
    bring(context, operation, reference, recipient, None)
}

/// The same in place of one that has the name here, and keeps it until the new one is whole.
pub(super) fn replace(
    context: &Context<'_>,
    operation: &Operation,
    reference: &Reference,
    old: i64,
) -> Result<Fetched> {
    bring(context, operation, reference, None, Some(old))
}

fn bring(
    context: &Context<'_>,
    operation: &Operation,
    reference: &Reference,
    recipient: Option<&dyn Recipient>,
    replaces: Option<i64>,
) -> Result<Fetched> {
    let resolved = resolve(
        context.remote,
        reference,
        Some(context.store),
        context.activity,
    )?;
    let repository = context.remote.repository(reference)?;
    let snapshot = context.store.catalog.write(Sync::Normal, |txn| {
        operation.pending(txn, &versioned(&resolved.reference)?)
    })?;
    let fetched = objects(context, snapshot, &repository, &resolved.said, recipient)?;
    let totals = match &resolved.said {
        Said::Blobs(_, document) => totals(context.store, snapshot, document)?,
        Said::Packs(_, document) => packs::totals(context.store, document)?,
    };
    let snapshot = finish(context, operation, snapshot, &resolved, (totals, replaces))?;
    context.store.sync_when_idle(snapshot);
    Ok(Fetched {
        snapshot,
        ..fetched
    })
}

/// Brings what a document names and is not here, for a snapshot that is to reference it.
pub(super) fn objects(
    context: &Context<'_>,
    snapshot: i64,
    repository: &Repository,
    said: &Said,
    recipient: Option<&dyn Recipient>,
) -> Result<Fetched> {
    match said {
        Said::Blobs(manifest, document) => {
            let from = (repository, &layers_of(manifest));
            blobs(context, snapshot, from, document, recipient)
        }
        Said::Packs(manifest, document) => {
            let from = (repository, layers_of_packs(manifest));
            packs::fetch(context, snapshot, from, document)
        }
    }
}

fn blobs(
    context: &Context<'_>,
    snapshot: i64,
    (repository, layers): (&Repository, &Layers),
    document: &Document,
    recipient: Option<&dyn Recipient>,
) -> Result<Fetched> {
    let fetching = Fetching::new(context, snapshot, repository, layers, recipient);
    let files = by_content(document);
    let needs = needs(&files);
    let missing = fetching.take_known(needs.iter().collect())?;
    fetching.fetch(&missing)?;
    Ok(fetching.fetched(snapshot, needs.len() - missing.len()))
}

pub(super) struct Fetching<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) snapshot: i64,
    repository: &'a Repository,
    layers: &'a Layers,
    pub(super) recipient: Option<&'a dyn Recipient>,
    pub(super) fetched_blobs: AtomicU64,
    pub(super) fetched_bytes: AtomicU64,
    /// Small blobs that are staged, and are committed together.
    pub(super) uncommitted: Mutex<Vec<Uncommitted<'a>>>,
    /// Small blobs that have not come.
    expected: AtomicUsize,
    /// Something failed, and no further blob is started: what has come waits for no more.
    failed: AtomicBool,
}

/// Blobs of one transaction at most.
pub(super) const BATCH: usize = 256;

impl<'a> Fetching<'a> {
    pub(super) fn new(
        context: &'a Context<'a>,
        snapshot: i64,
        repository: &'a Repository,
        layers: &'a Layers,
        recipient: Option<&'a dyn Recipient>,
    ) -> Self {
        Self {
            context,
            snapshot,
            repository,
            layers,
            recipient,
            fetched_blobs: AtomicU64::new(0),
            fetched_bytes: AtomicU64::new(0),
            uncommitted: Mutex::default(),
            expected: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
        }
    }

    pub(super) fn fetched(&self, snapshot: i64, reused: usize) -> Fetched {
        Fetched {
            snapshot,
            fetched_blobs: self.fetched_blobs.load(Ordering::Relaxed),
            fetched_bytes: self.fetched_bytes.load(Ordering::Relaxed),
            reused_blobs: reused as u64,
        }
    }

    /// References what the store has, and returns the rest.
    pub(super) fn take_known<'n>(&self, needs: Vec<&'n Need<'n>>) -> Result<Vec<&'n Need<'n>>> {
        let mut missing = Vec::new();
        for needs in needs.chunks(BATCH) {
            self.context.activity.check()?;
            let found: Vec<Option<Blob>> = self
                .context
                .store
                .catalog
                .read(|txn| needs.iter().map(|need| known(txn, need)).collect())?;
            let mut known = Vec::new();
            for (need, blob) in needs.iter().zip(found) {
                match blob {
                    Some(blob) => known.push((*need, in_store(blob.size, hashes(&blob))?)),
                    None => missing.push(*need),
                }
            }
            if known.is_empty() {
                continue;
            }
            let (needs, mut items): (Vec<_>, Vec<_>) = known.into_iter().unzip();
            let outcomes = self.context.store.commit(self.snapshot, &mut items)?;
            let gone = |(_, outcome): &(_, &Ingested)| **outcome == Ingested::Gone;
            missing.extend(
                needs
                    .into_iter()
                    .zip(&outcomes)
                    .filter(gone)
                    .map(|(need, _)| need),
            );
        }
        Ok(missing)
    }

    /// Fetches what nobody fetches, waits for what others do, and begins again with what those did not bring.
    pub(super) fn fetch(&self, missing: &[&Need<'_>]) -> Result<()> {
        if missing.is_empty() {
            return Ok(());
        }
        self.context.activity.tell(|| Event::Planned {
            phase: Phase::Fetch,
            files: missing.len() as u64,
            bytes: total(missing.iter().map(|need| need.size())),
        });
        let contents = self
            .context
            .remote
            .contents(self.repository, self.layers.clone())?;
        let mut left = missing.to_vec();
        // The small ones first: others may wait for them, and a few large ones would take all permits.
        left.sort_by_key(|need| !need.is_small());
        while !left.is_empty() {
            let followed = self.lead_all(&contents, &left)?;
            left = self.follow_all(followed)?;
        }
        Ok(())
    }

    /// Leads and lands every flight that this call can lead, and returns those that it follows.
    fn lead_all<'n>(
        &self,
        contents: &Contents,
        needs: &[&'n Need<'n>],
    ) -> Result<Vec<(Follow, &'n Need<'n>)>> {
        let small = needs.iter().filter(|need| need.is_small()).count();
        self.expected.store(small, Ordering::SeqCst);
        let followed = Mutex::new(Vec::new());
        let Context {
            limit, activity, ..
        } = self.context;
        let led = limit.for_each(activity, needs.len(), |index| {
            let need = needs[index];
            tracing::info!(
                "blob {} of {}: {}, {} bytes",
                index + 1,
                needs.len(),
                need.digest(),
                need.size()
            );
            let result = self.fetch_one(contents, need).map(|follow| {
                lock(&followed).extend(follow.map(|follow| (follow, need)));
            });
            let landed = self.land_in_time(need, result.is_err());
            result.and(landed)
        });
        // Others may wait for what came before a failure.
        led.and(self.commit_waiting())?;
        Ok(followed
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner))
    }

    /// Nobody is to wait for the last small blobs until large ones have come, or for any that came before a failure.
    fn land_in_time(&self, need: &Need<'_>, failed: bool) -> Result<()> {
        if failed {
            self.failed.store(true, Ordering::SeqCst);
        }
        let last = need.is_small() && self.expected.fetch_sub(1, Ordering::SeqCst) == 1;
        if last || self.failed.load(Ordering::SeqCst) {
            return self.commit_waiting();
        }
        Ok(())
    }

    /// Fetches a blob, unless another call does: then the flight to follow is returned.
    fn fetch_one(&self, contents: &Contents, need: &Need<'_>) -> Result<Option<Follow>> {
        self.context.activity.check()?;
        let object = need.asked().object();
        match self.context.flights.join(object, self.snapshot) {
            Turn::Follow(follow) => Ok(Some(follow)),
            Turn::Lead(lead) => {
                // Somebody may have led, and ended, since it was found missing.
                if !self.take_known(vec![need])?.is_empty() {
                    self.lead(contents, need, lead)?;
                }
                Ok(None)
            }
        }
    }

    /// Waits for flights of others, and returns what they did not bring. This call holds no permit and leads nothing.
    fn follow_all<'n>(&self, followed: Vec<(Follow, &'n Need<'n>)>) -> Result<Vec<&'n Need<'n>>> {
        for (follow, _) in &followed {
            follow.wait(self.context.activity)?;
        }
        self.take_known(followed.iter().map(|(_, need)| *need).collect())
    }

    /// Fetches a blob; once more where what came was damaged, which the way here may have done. A daemon would bring the
    /// same from its cache again: what is behind it is asked then.
    fn lead(&self, contents: &Contents, need: &Need<'_>, lead: Lead<'a>) -> Result<()> {
        let wanted = || match self.context.activity.check() {
            Err(cancelled) if !lead.has_followers() => Err(cancelled),
            _ => Ok(()),
        };
        let staged = match self.stage(contents, &contents.transport, need, &wanted) {
            Err(error) if error.kind() == ErrorKind::Damaged => {
                self.stage_again(contents, need, &wanted, &error)
            }
            result => result,
        }?;
        let one = Uncommitted {
            staged,
            sha256: contents.layer(need.name()).map(|layer| layer.sha256),
            lead,
        };
        if need.is_small() {
            self.add(one)
        } else {
            self.commit(vec![one])
        }
    }

    /// Where there is a detour, the straight way this time: who kept wrong bytes gives them again.
    fn stage_again(
        &self,
        contents: &Contents,
        need: &Need<'_>,
        wanted: Wanted<'_>,
        error: &Error,
    ) -> Result<StagedBlob<'a>> {
        tracing::warn!(%error, "what was fetched is damaged; it is fetched again");
        let Some(direct) = &contents.direct else {
            return self.stage(contents, &contents.transport, need, wanted);
        };
        let staged = self.stage(contents, direct, need, wanted)?;
        let message = format!("dragonfly brought wrong bytes, the bucket right ones: {error}");
        let activity = self.context.activity;
        activity.warn(WarningKind::Direct, None, message);
        Ok(staged)
    }

    fn stage(
        &self,
        contents: &Contents,
        transport: &Arc<dyn ContentTransport>,
        need: &Need<'_>,
        wanted: Wanted<'_>,
    ) -> Result<StagedBlob<'a>> {
        let stage = Stage {
            store: self.context.store,
            recipient: self.recipient,
            activity: self.context.activity,
        };
        let download = Download {
            transport,
            rate: &self.context.remote.rates.download,
            asked: need.asked(),
            len: contents.layer(need.name()).map(|layer| layer.size),
            wanted,
        };
        stage.fetch(need, &download)
    }
}

/// A blob of the store with the bytes that are needed. By the digest alone where a snapshot of the Go library says no
/// more: it would take any bytes with that digest itself.
fn known(txn: &crate::catalog::Txn<'_>, need: &Need<'_>) -> Result<Option<Blob>> {
    let found = match need.checksum() {
        Some(checksum) => txn.blob(&checksum)?,
        None => txn
            .blobs_by_digest(need.digest(), need.size())?
            .into_iter()
            .next(),
    };
    Ok(found.filter(|blob| blob.digest == need.digest() && blob.size == need.size()))
}

fn hashes(blob: &Blob) -> Hashes {
    Hashes {
        digest: blob.digest,
        checksum: blob.checksum,
    }
}

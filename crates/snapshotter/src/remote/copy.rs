//! `copy`: from one registry and place of contents to another, through this process's memory and no store. Contents first,
//! then the document, then the manifest, as when a store publishes. Each content is hashed on its way, and its last piece is
//! held back until the hash is right: what is damaged at one place never becomes whole at the other.

mod packs;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::announce::Announcing;
use super::collect::Watch;
use super::contents::{Contents, layers_of, layers_of_any, layers_of_packs};
use super::download::Download;
use super::resolve::{Need, Said, by_content, needs, resolve};
use super::runtime::wait;
use super::send::{Reading, existing, offer};
use super::{Place, Remote, publish};
use crate::activity::Activity;
use crate::format::artifact::{Layer, Manifest};
use crate::format::document::Document;
use crate::limit::Limit;
use crate::lock::lock;
use crate::registry::{Layers, Pulled, Repository};
use crate::transport::{ContentTransport, Presence, absent, look_first};
use crate::words::digest::Sha256;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::object::{Object, ObjectName};
use crate::words::progress::{Event, Observer, Phase, Warning};
use crate::words::publication::Publication;
use crate::words::reference::Reference;
use crate::words::total::total;

/// Which snapshot to copy.
///
/// ```
/// use snapshotter::CopyRequest;
///
/// let request = CopyRequest::new("sandboxes/vm-1:v3".parse()?);
/// assert!(!request.force);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct CopyRequest {
    /// The snapshot. It has to have a version, which it is called by there too.
    pub reference: Reference,
    /// Replaces the version there, and objects that are there. Default `false`.
    pub force: bool,
    /// Who hears how it gets on.
    pub observer: Option<Arc<dyn Observer>>,
}

impl CopyRequest {
    /// Copies a snapshot.
    #[must_use]
    pub fn new(reference: Reference) -> Self {
        Self {
            reference,
            force: false,
            observer: None,
        }
    }

    /// Sets [`force`](Self::force).
    #[must_use]
    pub fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    /// Sets [`observer`](Self::observer).
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }
}

impl std::fmt::Debug for CopyRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyRequest")
            .field("reference", &self.reference)
            .field("force", &self.force)
            .finish_non_exhaustive()
    }
}

/// What a copy call did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyReport {
    /// The snapshot as it is called there, with its manifest's digest there: another than before where its contents are in one
    /// of both registries.
    pub reference: Reference,
    /// Where it is now.
    pub publication: Publication,
    /// Contents that were there already.
    pub reused_blobs: u64,
    /// How long the call took.
    pub duration: Duration,
    /// What the caller may care about.
    pub warnings: Vec<Warning>,
}

/// What came of a snapshot's contents.
pub(super) struct Copied {
    /// How many there are.
    contents: u64,
    has_layers: bool,
    /// The manifest, where it is another one there.
    manifest: Option<Vec<u8>>,
}

/// A copy under way.
pub(super) struct Copying<'a> {
    to: &'a Remote,
    request: &'a CopyRequest,
    activity: &'a Activity,
    rate: &'a crate::rate::Rate,
    /// Where the contents come from.
    contents: Contents,
    /// What they are as layers, where that is known.
    known: Layers,
    /// Where they go.
    transport: Arc<dyn ContentTransport>,
    watch: &'a Watch<'a>,
    sent_blobs: AtomicU64,
    sent_bytes: AtomicU64,
}

/// Copies a snapshot. Blocks.
pub(crate) fn run(
    (from, to): (&Remote, &Remote),
    limit: &Limit,
    request: &CopyRequest,
    activity: &Activity,
) -> Result<CopyReport> {
    let started = Instant::now();
    let reference = &request.reference;
    let version = reference.version().ok_or_else(|| {
        Error::invalid("a copy needs a version to be called by").with_hint("say NAME:VERSION")
    })?;
    let name = Reference::new(reference.name(), version)
        .map_err(|error| Error::invalid(error.to_string()))?;
    let resolved = resolve(from, reference, None, activity)?;
    let repository = to.repository(&name)?;
    let announcing = Announcing {
        remote: to,
        repository: &repository,
        reference: &name,
        activity,
    };
    let there = to.find(&name, activity)?;
    let before = there.as_ref().map(|there| there.digest);
    let (config, layers) = match &resolved.said {
        Said::Blobs(manifest, _) => (manifest.config, layers_of(manifest)),
        Said::Packs(manifest, _) => (manifest.config, layers_of_packs(manifest)),
    };
    // Of other files it is another snapshot, however contents are named there.
    let is_other = |there: &&Pulled| {
        let parsed = super::parse_manifest(&there.bytes, &name);
        !parsed.is_ok_and(|parsed| parsed.config().0 == config)
    };
    if let Some(other) = there.as_ref().filter(is_other).filter(|_| !request.force) {
        return Err(to.taken(&name, other.digest));
    }
    let is_same_form = layers.is_empty() && matches!(to.content, Place::Elsewhere(_));
    if is_same_form {
        announcing.refuse_other(before, Sha256::of(&resolved.manifest), request.force)?;
    }
    let watch = Watch::new(to, &repository, activity);
    watch.begin()?;
    let copying = Copying::new((from, to), &repository, layers, request, &watch)?.knowing(
        there.as_ref(),
        config,
        &repository,
    );
    let copied = copying.all(limit, &resolved.said)?;
    let manifest = copied.manifest.as_ref().unwrap_or(&resolved.manifest);
    let digest = Sha256::of(manifest);
    announcing.refuse_other(before, digest, request.force)?;
    watch.moving(before, digest)?;
    announcing.send(manifest, &resolved.document, copied.has_layers, before)?;
    while watch.has_to_look_again(resolved.said.objects())? {
        copying.all(limit, &resolved.said)?;
    }
    let sent_blobs = copying.sent_blobs.into_inner();
    Ok(CopyReport {
        reference: name.with_digest(digest),
        publication: Publication {
            place: to.place_of(&repository),
            format: resolved.said.format(),
            manifest_digest: digest,
            sent_blobs,
            sent_bytes: copying.sent_bytes.into_inner(),
        },
        reused_blobs: copied.contents.saturating_sub(sent_blobs),
        duration: started.elapsed(),
        warnings: Vec::new(),
    })
}

impl<'a> Copying<'a> {
    pub(super) fn new(
        (from, to): (&'a Remote, &'a Remote),
        repository: &Repository,
        layers: Layers,
        request: &'a CopyRequest,
        watch: &'a Watch<'a>,
    ) -> Result<Self> {
        let contents = from.contents(&from.repository(&request.reference)?, layers)?;
        let transport = match &to.content {
            Place::Elsewhere(way) => Arc::clone(&way.transport),
            // What is a layer in one registry has the same name in any.
            Place::Registry => to.layers(repository, contents.layers.clone()),
            Place::Unknown => return Err(publish::nowhere()),
        };
        Ok(Self {
            to,
            request,
            activity: watch.activity,
            watch,
            rate: &from.rates.download,
            known: contents.layers.clone(),
            contents,
            transport,
            sent_blobs: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
        })
    }

    /// The same snapshot that is there says which layers its contents are: a copy that is made again sends nothing.
    fn knowing(mut self, there: Option<&Pulled>, config: Sha256, at: &Repository) -> Self {
        let reference = &self.request.reference;
        let parsed = there.and_then(|there| super::parse_manifest(&there.bytes, reference).ok());
        let same = parsed.filter(|parsed| parsed.config().0 == config);
        if let (Some(same), true) = (same, self.is_registry()) {
            self.known.extend(layers_of_any(&same));
            self.transport = self.to.layers(at, self.known.clone());
        }
        self
    }

    /// Copies all contents.
    pub(super) fn all(&self, limit: &Limit, said: &Said) -> Result<Copied> {
        match said {
            Said::Blobs(manifest, document) => self.blobs(limit, manifest, document),
            Said::Packs(manifest, document) => self.packs(limit, manifest, document),
        }
    }

    /// Copies the contents of a snapshot of format v1.
    fn blobs(&self, limit: &Limit, manifest: &Manifest, document: &Document) -> Result<Copied> {
        let files = by_content(document);
        let named = files.iter().map(|file| &file.content);
        publish::refuse_twins(
            named.filter_map(|content| Some((content.digest(), content.checksum()?))),
        )?;
        let needs = needs(&files);
        let layers = self.contents(limit, &needs)?;
        // The same bytes, unless contents are layers at one of both places.
        let is_same = layers.is_empty() && manifest.layers.is_empty();
        let build = || {
            let document = (manifest.config, manifest.config_size);
            Manifest::build_for(document, &layers, &manifest.annotations)
                .map_err(publish::too_many_layers)
        };
        Ok(Copied {
            contents: needs.len() as u64,
            has_layers: !layers.is_empty(),
            manifest: (!is_same).then(build).transpose()?,
        })
    }

    /// Copies what is not there, and says which layers that are, in the order of their digests.
    fn contents(&self, limit: &Limit, needs: &[Need<'_>]) -> Result<Vec<Layer>> {
        self.activity.tell(|| Event::Planned {
            phase: Phase::Copy,
            files: needs.len() as u64,
            bytes: total(needs.iter().map(Need::size)),
        });
        let layers = Mutex::new(Vec::new());
        limit.for_each(self.activity, needs.len(), |index| {
            let need = &needs[index];
            tracing::info!("blob {} of {}: {}", index + 1, needs.len(), need.digest());
            let layer = self.content(need)?;
            lock(&layers).extend(layer);
            Ok(())
        })?;
        let mut layers: Vec<Layer> = layers.into_inner().unwrap_or_else(PoisonError::into_inner);
        layers.sort_unstable_by_key(|layer| layer.digest.as_u64());
        Ok(layers)
    }

    fn content(&self, need: &Need<'_>) -> Result<Option<Layer>> {
        let size = self.size(need)?;
        let layer = |sha256| Layer {
            sha256,
            size,
            digest: need.digest(),
        };
        let asked = need.asked();
        let object = Object::stream(asked.digest, asked.checksum, size);
        if self.is_there(object, size)? {
            let bytes = need.size();
            self.activity.tell(|| Event::Progressed { bytes });
            return Ok(self.known_as(object.name).map(layer));
        }
        let download = Download {
            transport: &self.contents.transport,
            rate: self.rate,
            asked,
            len: Some(size),
            wanted: &|| self.activity.check(),
        };
        let read = |give: &mut dyn FnMut(Bytes) -> Result<()>| download.relay(self.activity, give);
        Ok(self.send(object, &read)?.map(layer))
    }

    fn is_forced(&self, object: Object) -> bool {
        self.request.force || self.watch.is_doomed(object.name)
    }

    /// Whether an object of this size need not be sent.
    fn is_there(&self, object: Object, size: u64) -> Result<bool> {
        if self.is_forced(object) {
            return Ok(false);
        }
        let found = look_first(&*self.transport, object);
        Ok(wait(&|| self.activity.check(), found)? == Presence::Size(size))
    }

    /// What an object that is there already is called as a layer, if contents are layers there.
    fn known_as(&self, name: ObjectName) -> Option<Sha256> {
        let known = self.known.get(&name).map(|layer| layer.sha256);
        known.filter(|_| self.is_registry())
    }

    /// Sends an object, and says what it is called as a layer.
    fn send(&self, object: Object, read: Reading<'_>) -> Result<Option<Sha256>> {
        let how = (existing(self.is_forced(object)), false);
        let wanted = || self.activity.check();
        let rate = &self.to.rates.upload;
        let published = offer(&self.transport, object, how, rate, &wanted, read)?;
        if published.sent {
            self.count(object.most);
        }
        Ok(published.sha256)
    }

    fn count(&self, bytes: u64) {
        self.sent_blobs.fetch_add(1, Ordering::Relaxed);
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn is_registry(&self) -> bool {
        matches!(self.to.content, Place::Registry)
    }

    /// How long a packed stream is where it comes from.
    fn size(&self, need: &Need<'_>) -> Result<u64> {
        if let Some(layer) = self.contents.layer(need.name()) {
            return Ok(layer.size);
        }
        let object = need.asked().object();
        match self.length_there(object)? {
            size if size <= object.most => Ok(size),
            size => Err(Error::damaged(format!(
                "{object} in {} has {size} bytes; at most {} were expected",
                self.contents.transport.place(),
                object.most
            ))),
        }
    }

    /// How long an object is where it comes from.
    fn length_there(&self, object: Object) -> Result<u64> {
        let transport = &self.contents.transport;
        match wait(&|| self.activity.check(), transport.size(object))? {
            Presence::Size(size) => Ok(size),
            Presence::Absent => Err(absent(object, &transport.place())),
            Presence::Unknown => Err(Error::new(
                ErrorKind::Unavailable,
                format!("{} does not say how long {object} is", transport.place()),
            )),
        }
    }
}

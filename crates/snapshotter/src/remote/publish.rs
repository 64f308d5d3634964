//! Store → remote. The order makes a name that resolves complete: contents and document, then the manifest. Whatever fails on the
//! way leaves the snapshot here as it was, and publishing it again sends only what is missing.

mod known;
mod packs;
mod record;
mod twins;

pub(super) use record::revise;
pub(super) use twins::refuse_twins;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::announce::Announcing;
use super::collect::Watch;
use super::runtime::wait;
use super::send::{Sending, existing, object};
use super::text::Text;
use super::{Place, Remote};
use crate::activity::Activity;
use crate::catalog::{Blob, BlobState, Content, Snapshot, Sync};
use crate::format::artifact::paged::AnyManifest;
use crate::format::artifact::{Layer, Manifest};
use crate::limit::Limit;
use crate::lock::lock;
use crate::pass::both;
use crate::registry::{Layers, Repository};
use crate::store::Store;
use crate::transport::{ContentTransport, Presence, look_first};
use crate::words::digest::{Digest, Sha256};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::format::Format;
use crate::words::object::{Object, ObjectName};
use crate::words::progress::{Event, Phase};
use crate::words::publication::Publication;
use crate::words::total::total;

/// A publication under way.
struct Publishing<'a> {
    store: &'a Arc<Store>,
    limit: &'a Limit,
    remote: &'a Remote,
    activity: &'a Activity,
    repository: Repository,
    /// Whether collections there know of it, and took something of it.
    watch: Watch<'a>,
    snapshot: &'a Snapshot,
    /// Replaces the version, and objects of another size.
    force: bool,
    /// Sends what is there too.
    again: bool,
    /// All is read back afterwards: nothing is believed to be there.
    verify: bool,
    sent_blobs: AtomicU64,
    sent_bytes: AtomicU64,
    seen: Mutex<record::Seen>,
    /// The bucket behind a daemon did not answer: once is enough.
    cannot_ask: AtomicBool,
}

/// How a snapshot is published.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    pub(super) force: bool,
    pub(super) again: bool,
    pub(super) verify: bool,
}

/// Publishes a snapshot that the caller leases.
pub(super) fn run(
    store: &Arc<Store>,
    limit: &Limit,
    remote: &Remote,
    snapshot: &Snapshot,
    how: How,
    activity: &Activity,
) -> Result<Publication> {
    let repository = remote.repository(&snapshot.reference)?;
    let publishing = Publishing {
        store,
        limit,
        remote,
        activity,
        watch: Watch::new(remote, &repository, activity),
        repository: repository.clone(),
        snapshot,
        force: how.force,
        again: how.again,
        verify: how.verify,
        sent_blobs: AtomicU64::new(0),
        sent_bytes: AtomicU64::new(0),
        seen: Mutex::default(),
        cannot_ask: AtomicBool::new(false),
    };
    publishing.run()
}

impl Publishing<'_> {
    fn run(&self) -> Result<Publication> {
        let (before, ()) = both(
            || {
                let reference = &self.snapshot.reference;
                let before = self.remote.published(reference, self.activity)?;
                self.revise(before)?;
                Ok(before)
            },
            || self.watch.begin(),
        )?;
        if self.snapshot.format == Format::V2 {
            return self.packs(before);
        }
        let id = self.snapshot.id;
        let (contents, manifest) = self.store.catalog.read(|txn| {
            // Found out before anything is sent.
            txn.check_document(id)?;
            Ok((txn.contents_of_snapshot(id)?, txn.manifest(id)?))
        })?;
        let contents = contents.all();
        let manifest = self.as_published(manifest)?;
        refuse_twins(contents.iter().map(|one| (one.digest, one.checksum)))?;
        if !matches!(self.remote.content, Place::Registry) {
            let ours = Sha256::of(&manifest);
            self.announcing().refuse_other(before, ours, self.force)?;
        }
        self.activity.tell(|| Event::Planned {
            phase: Phase::Send,
            files: contents.len() as u64,
            bytes: total(contents.iter().map(|content| content.data_size)),
        });
        let send = |manifest| {
            let sent = self.send_contents(contents, manifest);
            sent.inspect_err(|_| self.forget_absent())
        };
        let announcing = self.announcing();
        // OCI has no manifest without layers: where the contents are none, an empty one stands in.
        let has_layers = matches!(self.remote.content, Place::Registry) && !contents.is_empty();
        let document = Text::kept(self.store, id)?;
        let (config, _) = self.parse(&manifest)?.config();
        let (manifest, ()) = both(
            || send(manifest),
            || announcing.send_document(config, &document, has_layers),
        )?;
        let digest = Sha256::of(&manifest);
        announcing.refuse_other(before, digest, self.force)?;
        self.watch.moving(before, digest)?;
        announcing.send_manifest(&manifest, before)?;
        let names = || contents.iter().map(|one| ObjectName::Digest(one.digest));
        let look = || self.watch.has_to_look_again(names());
        let ((), mut again) = both(|| announcing.confirm(&manifest, before), look)?;
        while again {
            send(manifest.clone())?;
            again = look()?;
        }
        self.record(&manifest, &document)?;
        Ok(self.publication(digest))
    }

    fn publication(&self, manifest_digest: Sha256) -> Publication {
        Publication {
            place: self.remote.place_of(&self.repository),
            format: self.snapshot.format,
            manifest_digest,
            sent_blobs: self.sent_blobs.load(Ordering::Relaxed),
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
        }
    }

    fn parse(&self, manifest: &[u8]) -> Result<AnyManifest> {
        super::parse_manifest(manifest, &self.snapshot.reference)
    }

    /// Contents elsewhere are no layers, whatever they were in another registry.
    fn as_published(&self, manifest: Vec<u8>) -> Result<Vec<u8>> {
        match self.parse(&manifest)? {
            AnyManifest::V1(parsed)
                if !parsed.layers.is_empty()
                    && matches!(self.remote.content, Place::Elsewhere(_)) =>
            {
                let document = (parsed.config, parsed.config_size);
                Manifest::build_for(document, &[], &parsed.annotations).map_err(too_many_layers)
            }
            _ => Ok(manifest),
        }
    }

    fn announcing(&self) -> Announcing<'_> {
        Announcing {
            remote: self.remote,
            repository: &self.repository,
            reference: &self.snapshot.reference,
            activity: self.activity,
        }
    }

    /// Sends what is not there yet, and returns the manifest: with contents in the registry, they are its layers.
    fn send_contents(&self, contents: &[Content], manifest: Vec<u8>) -> Result<Vec<u8>> {
        match &self.remote.content {
            Place::Unknown => Err(nowhere()),
            Place::Elsewhere(way) => {
                self.refuse_published_twins(contents)?;
                self.publish_blobs(&way.transport, contents, &Layers::new())?;
                Ok(manifest)
            }
            Place::Registry => {
                let AnyManifest::V1(parsed) = self.parse(&manifest)? else {
                    return Err(super::formats_differ(&self.snapshot.reference));
                };
                let document = (parsed.config, parsed.config_size);
                let build = |layers: &[Layer]| {
                    Manifest::build_for(document, layers, &parsed.annotations)
                        .map_err(too_many_layers)
                };
                // Said before anything is sent.
                build(&vec![LONGEST; contents.len()])?;
                let known = self.known_layers()?;
                let transport = self.remote.layers(&self.repository, known.clone());
                build(&self.publish_blobs(&transport, contents, &known)?)
            }
        }
    }

    /// The rows of contents. There may be a million, so they are not read all at once.
    fn blobs(&self, contents: &[Content]) -> Result<Vec<Blob>> {
        let id = self.snapshot.id;
        let read = self.store.catalog.read(|txn| {
            let blob = |content: &Content| txn.blob_of_snapshot(id, &content.checksum);
            contents
                .iter()
                .filter_map(|content| blob(content).transpose())
                .collect()
        });
        let blobs: Vec<Blob> = read?;
        if blobs.len() == contents.len() {
            Ok(blobs)
        } else {
            // It is leased, so nobody takes them but whoever takes the snapshot.
            Err(Error::new(
                ErrorKind::NotFound,
                "the snapshot was removed while it was sent",
            ))
        }
    }

    /// Sends what is not there, and says which layers that are, in the order of their digests: one snapshot, one manifest.
    fn publish_blobs(
        &self,
        transport: &Arc<dyn ContentTransport>,
        contents: &[Content],
        known: &Layers,
    ) -> Result<Vec<Layer>> {
        let layers = Mutex::new(Vec::new());
        for (number, some) in contents.chunks(AT_ONCE).enumerate() {
            let blobs = self.blobs(some)?;
            self.limit.for_each(self.activity, blobs.len(), |index| {
                tracing::info!(
                    "blob {} of {}: {}, {} bytes",
                    number * AT_ONCE + index + 1,
                    contents.len(),
                    blobs[index].digest,
                    blobs[index].size
                );
                let layer = self.publish_blob(transport, &blobs[index], known)?;
                lock(&layers).extend(layer);
                Ok(())
            })?;
        }
        let mut layers = layers.into_inner().unwrap_or_else(PoisonError::into_inner);
        layers.sort_unstable_by_key(|layer| layer.digest.as_u64());
        Ok(layers)
    }

    fn publish_blob(
        &self,
        transport: &Arc<dyn ContentTransport>,
        blob: &Blob,
        known: &Layers,
    ) -> Result<Option<Layer>> {
        self.activity.check()?;
        let map = self.store.extents(blob)?;
        let (object, size) = (object(blob, &map), map.stream_size());
        // What is missing here cannot be sent again.
        let is_missing = blob.state == BlobState::Missing;
        let is_doomed = !is_missing && self.watch.is_doomed(object.name);
        let there = match self.again || is_doomed {
            true => Presence::Unknown,
            false => self.look(transport, object)?,
        };
        // Looked at before the file is opened: most of a second checkpoint is there already.
        let is_there = there == Presence::Size(size);
        if there != Presence::Unknown {
            self.saw(blob, is_there);
        }
        let layer = |sha256| Layer {
            sha256,
            size,
            digest: blob.digest,
        };
        if is_there {
            self.skip(blob);
            let known = known.get(&object.name);
            return Ok(known.map(|known| layer(known.sha256)));
        }
        let existing = existing(self.force || is_doomed);
        let rate = &self.remote.rates.upload;
        let sending = Sending::open(self.store, blob, &map, rate, self.activity)?;
        let published = sending.publish(transport, existing, there)?;
        if let Some(sha256) = published.sha256 {
            self.store
                .catalog
                .write(Sync::Normal, |txn| txn.set_sha256(&blob.checksum, sha256))?;
        }
        if published.sent {
            self.did_send(blob.checksum);
            self.count(size);
        }
        Ok(published.sha256.map(layer))
    }

    /// Whether it is there. A daemon sends it also where nobody else can ask, and says so by itself if it is.
    fn look(&self, transport: &Arc<dyn ContentTransport>, object: Object) -> Result<Presence> {
        let has_daemon = self.remote.has_daemon();
        if has_daemon && self.cannot_ask.load(Ordering::Relaxed) {
            return Ok(Presence::Unknown);
        }
        let asked = wait(&|| self.activity.check(), look_first(&**transport, object));
        if !has_daemon || asked.is_ok() {
            return asked;
        }
        self.activity.check()?;
        if let Err(error) = asked {
            tracing::debug!(%error, "the daemon is to look into the bucket");
        }
        self.cannot_ask.store(true, Ordering::Relaxed);
        Ok(Presence::Unknown)
    }

    fn skip(&self, blob: &Blob) {
        self.activity.tell(|| Event::Progressed {
            bytes: blob.data_size,
        });
    }

    fn count(&self, bytes: u64) {
        self.sent_blobs.fetch_add(1, Ordering::Relaxed);
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Blobs whose rows are read at once, where they are sent to a place that has room for any number.
const AT_ONCE: usize = 4096;

/// A layer as long as one can be written.
const LONGEST: Layer = Layer {
    sha256: Sha256::from_bytes([0; 32]),
    size: i64::MAX.unsigned_abs(),
    digest: Digest::from_u64(u64::MAX),
};

pub(super) fn nowhere() -> Error {
    Error::invalid("content says no place to publish the snapshot's bytes to")
        .with_hint("configure content: a bucket, a directory, or provider = \"registry\"")
}

pub(super) fn too_many_layers(error: crate::format::artifact::ManifestError) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "the snapshot has too many files to keep their contents in the registry",
    )
    .with_source(error)
    .with_hint("a bucket or a directory as content has no such limit")
}

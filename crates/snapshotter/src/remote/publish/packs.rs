//! Publishing a snapshot of format v2: the packs that are not there, document, manifest. A checkpoint sends three bodies,
//! however many packs it names: what this store has seen at the place a while ago is believed to be there, and one of those is
//! looked for.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::Publishing;
use super::known::Known;
use crate::catalog::{BlobState, Pack};
use crate::format::artifact::paged::{AnyManifest, PackLayer, PagedManifest};
use crate::format::document::paged::{AnyDocument, PackEntry, PagedDocument};
use crate::format::pack::PackError;
use crate::lock::lock;
use crate::pass::both;
use crate::registry::StoredLayer;
use crate::remote::Place;
use crate::remote::packs::cannot_describe;
#[cfg(feature = "dragonfly")]
use crate::remote::runtime::wait;
use crate::remote::send::{existing, offer};
use crate::remote::text::Text;
use crate::store::{pack_key, whole_pack};
#[cfg(feature = "dragonfly")]
use crate::transport::Source;
use crate::transport::{ContentTransport, Existing, Presence, Published};
use crate::words::digest::{Checksum, Sha256};
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::object::Object;
use crate::words::progress::{Event, Phase, WarningKind};
use crate::words::publication::Publication;
use crate::words::total::total;

/// A pack that the snapshot names.
pub(super) struct Named {
    entry: PackEntry,
    pub(super) row: Pack,
}

impl Named {
    /// Whether that is it. One that is missing here has no length to compare with.
    pub(super) fn is(&self, found: Presence) -> bool {
        match found {
            Presence::Size(size) => size == self.row.length || self.row.state == BlobState::Missing,
            Presence::Absent | Presence::Unknown => false,
        }
    }

    pub(super) fn object(&self) -> Object {
        Object::pack(*self.row.key.as_bytes(), self.row.length)
    }
}

impl Publishing<'_> {
    /// Publishes the snapshot, of which the registry has `before`.
    pub(super) fn packs(&self, before: Option<Sha256>) -> Result<Publication> {
        let id = self.snapshot.id;
        let (document, manifest) = self
            .store
            .catalog
            .read(|txn| Ok((txn.paged_document(id)?, txn.manifest(id)?)))?;
        let AnyManifest::V2(parsed) = self.parse(&manifest)? else {
            return Err(crate::remote::formats_differ(&self.snapshot.reference));
        };
        let other = before.filter(|there| *there != Sha256::of(&manifest) && !self.force);
        let adopted = match other.map(|there| self.equal_there(there, &document)) {
            None => None,
            Some(equal) => match equal? {
                Equal::SamePacks(manifest) => Some(manifest),
                Equal::OtherPacks(there) => return Ok(self.publication(there)),
            },
        };
        let packs = self.named(&document)?;
        self.activity.tell(|| Event::Planned {
            phase: Phase::Send,
            files: packs.len() as u64,
            bytes: total(packs.iter().map(|pack| pack.row.length)),
        });
        let announcing = self.announcing();
        let text = Text::kept(self.store, id)?;
        let has_layers = matches!(self.remote.content, Place::Registry) && !packs.is_empty();
        let announce = |believes: bool| {
            let (layers, ()) = both(
                || self.send_packs(&packs, believes),
                || announcing.send_document(parsed.config, &text, has_layers),
            )?;
            let manifest = match &adopted {
                Some(adopted) => adopted.clone(),
                None => build(&parsed, &layers)?,
            };
            self.watch.moving(before, Sha256::of(&manifest))?;
            announcing.send_manifest(&manifest, before)?;
            let look = || {
                let names = packs.iter().map(|pack| pack.object().name);
                self.watch.has_to_look_again(names)
            };
            let ((), mut again) = both(|| announcing.confirm(&manifest, before), look)?;
            while again {
                self.send_packs(&packs, false)?;
                again = look()?;
            }
            Ok(manifest)
        };
        let announced = match announce(true) {
            Err(error) if is_doubtful(&error) && self.doubt()? => {
                tracing::info!(%error, "what is believed to be there is looked for");
                announce(false)
            }
            announced => announced,
        };
        let manifest = announced.inspect_err(|_| self.forget_absent())?;
        let digest = Sha256::of(&manifest);
        self.record(&manifest, &text)?;
        self.store
            .move_caches(&self.snapshot.manifest_digest, &digest);
        Ok(self.publication(digest))
    }

    /// What has the version there, if it has the same files: a publication that got so far and did not hear of it, or the same
    /// out of other packs, to which nothing is missing.
    fn equal_there(&self, there: Sha256, document: &PagedDocument) -> Result<Equal> {
        let reference = &self.snapshot.reference;
        let taken = || self.remote.taken(reference, there);
        let (manifest, _, found) = self.remote.description(reference, self.activity)?;
        match found {
            AnyDocument::V2(found) if Sha256::of(&manifest) != there => {
                drop(found);
                Err(taken())
            }
            AnyDocument::V2(found) if found == *document => Ok(Equal::SamePacks(manifest)),
            AnyDocument::V2(found) if found.is_equal_to(document) => {
                let text = format!(
                    "{reference} is in {} with the same files out of other packs, {there}: those of this store are not sent",
                    self.remote.endpoint
                );
                self.activity.warn(WarningKind::Kept, None, text);
                Ok(Equal::OtherPacks(there))
            }
            _ => Err(taken()),
        }
    }

    /// The rows of the packs, in the order of the document.
    fn named(&self, document: &PagedDocument) -> Result<Vec<Named>> {
        let id = self.snapshot.id;
        let rows = self.store.catalog.read(|txn| txn.packs_of_snapshot(id))?;
        let mut rows: HashMap<Checksum, Pack> =
            rows.into_iter().map(|row| (row.key, row)).collect();
        let named = document.packs.iter().map(|entry| {
            let row = rows.remove(&pack_key(entry.id)).ok_or_else(|| {
                Error::damaged(format!("the catalog does not know the pack {}", entry.id))
            })?;
            Ok(Named { entry: *entry, row })
        });
        named.collect()
    }

    /// Sends what is not there, and says which layers they are, where they are layers.
    fn send_packs(&self, packs: &[Named], believes: bool) -> Result<Vec<PackLayer>> {
        let known = match &self.remote.content {
            Place::Registry => self.known_packs(packs)?,
            _ => Known::default(),
        };
        let transport = match &self.remote.content {
            Place::Unknown => return Err(super::nowhere()),
            Place::Elsewhere(way) => Arc::clone(&way.transport),
            Place::Registry => self.remote.layers(&self.repository, known.layers.clone()),
        };
        let believed = match believes {
            true => self.believed(&transport, packs, &known.layers)?,
            false => HashSet::new(),
        };
        let place = self.remote.address_of_contents(&self.repository);
        let id = self.snapshot.id;
        let ever = self.store.catalog.read(|txn| txn.objects_at(id, &place))?;
        let layers = Mutex::new(HashMap::new());
        self.limit.for_each(self.activity, packs.len(), |index| {
            let pack = &packs[index];
            let sent = if believed.contains(&pack.row.key) {
                self.activity.tell(|| Event::Progressed {
                    bytes: pack.row.length,
                });
                None
            } else if self.mount(&known, pack)? {
                None
            } else {
                // What this store never saw there is sent without a look, which sending it begins with: if it can be sent.
                let is_missing = pack.row.state == BlobState::Missing;
                let looks = is_missing
                    || !believes
                    || ever.contains(&pack.row.key)
                    || self.verify
                    || self.force;
                self.send_pack(&transport, pack, looks)?
            };
            let layer = sent.or_else(|| known.layers.get(&pack.object().name).copied());
            lock(&layers).extend(layer.map(|layer| (index, layer)));
            Ok(())
        })?;
        let layers = layers.into_inner().unwrap_or_else(PoisonError::into_inner);
        let layer = |(index, pack): (usize, &Named)| {
            layers.get(&index).map(|layer| PackLayer {
                sha256: layer.sha256,
                size: layer.size,
                id: pack.entry.id,
            })
        };
        let layers: Vec<PackLayer> = packs.iter().enumerate().filter_map(layer).collect();
        if matches!(self.remote.content, Place::Registry) && layers.len() < packs.len() {
            let text = "the registry has a pack and does not say what it calls it";
            return Err(Error::new(ErrorKind::Internal, text));
        }
        Ok(layers)
    }

    /// Sends a pack unless it is there; says what the registry calls it.
    fn send_pack(
        &self,
        transport: &Arc<dyn ContentTransport>,
        pack: &Named,
        looks: bool,
    ) -> Result<Option<StoredLayer>> {
        self.activity.check()?;
        let mut found = Presence::Unknown;
        // What is missing here cannot be sent again.
        let is_missing = pack.row.state == BlobState::Missing;
        let is_doomed = !is_missing && self.watch.is_doomed(pack.object().name);
        if looks && !self.again && !is_doomed {
            found = self.presence(transport, pack)?;
        }
        if pack.is(found) {
            self.activity.tell(|| Event::Progressed {
                bytes: pack.row.length,
            });
            return Ok(None);
        }
        let opened = self.store.open_pack(&pack.row.key)?;
        // Wrong bytes are nobody's to have. Most of it is in memory still.
        match whole_pack(&opened.file, pack.entry.id, &|| self.activity.check())? {
            Ok(_) => {}
            Err(PackError::Io(error)) if !crate::store::is_unreadable(&error) => {
                return Err(Error::io(
                    "read",
                    &self.store.pack_path(&opened.pack),
                    error,
                ));
            }
            Err(error) => return Err(self.store.found_bad_pack(&opened, error)?),
        }
        let path = self.store.pack_path(&opened.pack);
        let existing = existing(self.force || is_doomed);
        // Nobody looks twice.
        let how = (existing, found == Presence::Absent);
        let published = self.send_file(transport, pack, how, (opened.file, path))?;
        self.activity.tell(|| Event::Progressed {
            bytes: pack.row.length,
        });
        if published.sent {
            self.did_send(pack.row.key);
            self.count(pack.row.length);
        }
        let size = pack.row.length;
        Ok(published.sha256.map(|sha256| StoredLayer { sha256, size }))
    }

    /// A daemon takes the file itself; to others it is read, at the rate that there is.
    fn send_file(
        &self,
        transport: &Arc<dyn ContentTransport>,
        pack: &Named,
        how: (Existing, bool),
        (file, path): (File, PathBuf),
    ) -> Result<Published> {
        let wanted = || self.activity.check();
        #[cfg(feature = "dragonfly")]
        if transport.deliveries().is_some() {
            let source = Source::file(file, path, 0..pack.row.length);
            return wait(&wanted, transport.publish(pack.object(), how.0, source));
        }
        let read = |give: &mut dyn FnMut(Bytes) -> Result<()>| {
            let mut at = 0;
            while at < pack.row.length {
                let length = (pack.row.length - at).min(PIECE as u64);
                let mut piece = vec![0; length as usize];
                file.read_exact_at(&mut piece, at).at("read", &path)?;
                give(piece.into())?;
                at += length;
            }
            Ok(())
        };
        let rate = &self.remote.rates.upload;
        offer(transport, pack.object(), how, rate, &wanted, &read)
    }
}

/// What has the same files under the same name.
enum Equal {
    /// The manifest that is there.
    SamePacks(Vec<u8>),
    OtherPacks(Sha256),
}

/// Whether a registry may have refused a manifest for what it lacks.
fn is_doubtful(error: &Error) -> bool {
    !matches!(
        error.kind(),
        ErrorKind::Cancelled
            | ErrorKind::AlreadyExists
            | ErrorKind::PermissionDenied
            | ErrorKind::NoSpace
    )
}

/// A pack's bytes that are read at once.
const PIECE: usize = 1 << 20;

/// The manifest as it is there: contents elsewhere are no layers, whatever they were in another registry.
fn build(parsed: &PagedManifest, layers: &[PackLayer]) -> Result<Vec<u8>> {
    let document = (parsed.config, parsed.config_size);
    PagedManifest::build(document, layers, &parsed.annotations).map_err(cannot_describe)
}

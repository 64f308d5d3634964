//! What a publication knows of packs without asking: what they are called as layers, which repositories of the registry have
//! them, and which were seen at the place a while ago. A belief has an end, and the oldest one is tried each time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Publishing;
use super::packs::Named;
use crate::catalog::Sync;
use crate::format::artifact::paged::PagedManifest;
use crate::registry::{Layers, Repository, StoredLayer};
use crate::remote::Place;
use crate::remote::contents::layers_of_packs;
use crate::remote::runtime::wait;
use crate::store::now;
use crate::transport::{ContentTransport, Presence};
use crate::words::digest::{Checksum, Sha256};
use crate::words::error::{ErrorKind, Result};
use crate::words::object::ObjectName;

/// How long what was seen at a place is believed to be there, in nanoseconds: well below the time for which any collector
/// there lets what nothing names be.
const BELIEVED: i64 = 12 * 3600 * 1_000_000_000;

/// What packs are as layers, and the repositories that are said to have them.
#[derive(Default)]
pub(super) struct Known {
    pub(super) layers: Layers,
    of: HashMap<ObjectName, Repository>,
}

impl Publishing<'_> {
    /// What was a layer in some registry has the same name in any.
    pub(super) fn known_layers(&self) -> Result<Layers> {
        let id = self.snapshot.id;
        let (blobs, known) = self.store.catalog.read(|txn| {
            let known: HashMap<Checksum, Sha256> = txn.sha256_of_blobs(id)?.into_iter().collect();
            Ok((txn.blobs_of_snapshot(id)?, known))
        })?;
        let mut layers = Layers::new();
        for blob in &blobs {
            if let Some(sha256) = known.get(&blob.checksum) {
                let (sha256, size) = (*sha256, self.store.extents(blob)?.stream_size());
                layers.insert(
                    ObjectName::Digest(blob.digest),
                    StoredLayer { sha256, size },
                );
            }
        }
        Ok(layers)
    }

    /// Nothing is believed to be at this place any more. Says whether anything was.
    pub(super) fn doubt(&self) -> Result<bool> {
        let place = self.remote.address_of_contents(&self.repository);
        let id = self.snapshot.id;
        self.store.catalog.write(Sync::Normal, |txn| {
            let believed = txn.objects_seen_at(id, &place, 1..=i64::MAX)?;
            txn.doubt_objects_at(&place)?;
            Ok(!believed.is_empty())
        })
    }

    /// What packs are called as layers, as manifests say that are here: the snapshot's own, and those of others that name
    /// the same packs, the newest first.
    pub(super) fn known_packs(&self, packs: &[Named]) -> Result<Known> {
        let named = packs.iter().map(|pack| (pack.object().name, pack));
        let mut wanted: HashMap<_, _> = named.collect();
        let mut known = Known::default();
        let id = self.snapshot.id;
        let catalog = &self.store.catalog;
        let others = catalog.read(|txn| txn.snapshots_sharing_packs(id))?;
        for other in std::iter::once(id).chain(others) {
            if wanted.is_empty() {
                break;
            }
            let (manifest, snapshot) =
                catalog.read(|txn| Ok((txn.manifest(other)?, txn.snapshot(other)?)))?;
            let (Ok(manifest), Some(snapshot)) = (PagedManifest::parse(&manifest), snapshot) else {
                continue;
            };
            let of = self.remote.repository(&snapshot.reference)?;
            for (name, layer) in layers_of_packs(&manifest) {
                // What a manifest that was fetched says of another length is not it.
                let is_it = |pack: &&Named| pack.is(Presence::Size(layer.size));
                if wanted.get(&name).is_some_and(is_it) {
                    wanted.remove(&name);
                    known.layers.insert(name, layer);
                    known.of.insert(name, of.clone());
                }
            }
        }
        Ok(known)
    }

    /// Has the registry take a pack over from another repository of its own, where one has it.
    pub(super) fn mount(&self, known: &Known, pack: &Named) -> Result<bool> {
        let name = pack.object().name;
        let (Some(layer), Some(of)) = (known.layers.get(&name), known.of.get(&name)) else {
            return Ok(false);
        };
        if self.again || *of == self.repository {
            return Ok(false);
        }
        let (sha256, size) = (layer.sha256, layer.size);
        let call = self
            .remote
            .registry
            .mount(&self.repository, of, sha256, size);
        match wait(&|| self.activity.check(), call) {
            Ok(true) => {
                self.saw_pack(pack.row.key, true);
                Ok(true)
            }
            Ok(false) => Ok(false),
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
            Err(error) => {
                tracing::debug!(%error, "a pack is sent, because it was not mounted");
                Ok(false)
            }
        }
    }

    /// The packs that need not be looked for. One of them is, and where it has gone nothing is believed.
    pub(super) fn believed(
        &self,
        transport: &Arc<dyn ContentTransport>,
        packs: &[Named],
        known: &Layers,
    ) -> Result<HashSet<Checksum>> {
        if self.again || self.verify || !self.watch.may_believe() {
            return Ok(HashSet::new());
        }
        let id = self.snapshot.id;
        let place = self.remote.address_of_contents(&self.repository);
        // What a clock that was ahead saw is not believed until it is there again.
        let within = now().saturating_sub(BELIEVED)..=now();
        let seen = self
            .store
            .catalog
            .read(|txn| txn.objects_seen_at(id, &place, within))?;
        let oldest = seen.clone();
        let mut seen: HashSet<Checksum> = seen.into_iter().collect();
        if matches!(self.remote.content, Place::Registry) {
            // What it is called there has to be known too.
            let is_known = |pack: &&Named| known.contains_key(&pack.object().name);
            let known: HashSet<Checksum> = packs
                .iter()
                .filter(is_known)
                .map(|pack| pack.row.key)
                .collect();
            seen.retain(|key| known.contains(key));
        }
        // The one that was seen the longest time ago, which is then seen now: so each has its turn.
        let sample = oldest.iter().find(|key| seen.contains(*key));
        let sample = sample.and_then(|key| packs.iter().find(|pack| pack.row.key == *key));
        if let Some(sample) = sample
            && !sample.is(self.presence(transport, sample)?)
        {
            seen.clear();
        }
        Ok(seen)
    }

    pub(super) fn presence(
        &self,
        transport: &Arc<dyn ContentTransport>,
        pack: &Named,
    ) -> Result<Presence> {
        let found = self.look(transport, pack.object())?;
        if found != Presence::Unknown {
            self.saw_pack(pack.row.key, pack.is(found));
        }
        Ok(found)
    }
}

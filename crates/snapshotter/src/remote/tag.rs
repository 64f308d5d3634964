//! `tag_remote`: one more name for a snapshot that is in the registry. Its manifest is the same to the byte, and contents in a
//! bucket or directory stay where they are. Where they are layers and the new name has another repository, the registry is asked
//! to mount them there; a layer that it does not mount is sent, hashed on its way. A collection of the bucket is seen to as by
//! whoever publishes: the new name is known to it before it is given, and what it may be removing is sent again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;

use super::announce::Announcing;
use super::collect::Watch;
use super::copy::{CopyReport, CopyRequest, Copying};
use super::publish::nowhere;
use super::remove::give_up;
use super::resolve::{Said, resolve};
use super::runtime::{stream, wait};
use super::send::{existing, offer};
use super::{Place, Remote, contents};
use crate::activity::Activity;
use crate::inspect::new_name;
use crate::limit::Limit;
use crate::registry::{Layers, Repository, StoredLayer};
use crate::store::Store;
use crate::transport::{ContentTransport, Presence};
use crate::words::digest::Sha256;
use crate::words::error::Result;
use crate::words::object::Object;
use crate::words::publication::Publication;
use crate::words::reference::Reference;
use crate::words::total::total;

/// Gives it the name. Blocks.
pub(crate) fn run(
    store: &Store,
    remote: &Remote,
    limit: &Limit,
    request: &CopyRequest,
    name: &Reference,
    activity: &Activity,
) -> Result<CopyReport> {
    let started = Instant::now();
    let name = new_name(name)?;
    let to = remote.repository(&name)?;
    // Before what is there is believed to stay.
    let watch = Watch::new(remote, &to, activity);
    watch.begin()?;
    let resolved = resolve(remote, &request.reference, None, activity)?;
    let digest = Sha256::of(&resolved.manifest);
    let from = remote.repository(&request.reference)?;
    let announcing = Announcing {
        remote,
        repository: &to,
        reference: &name,
        activity,
    };
    let before = remote.published(&name, activity)?;
    announcing.refuse_other(before, digest, request.force)?;
    let objects = objects(&resolved.said);
    let is_elsewhere = objects.is_empty() && resolved.said.objects().next().is_some();
    if is_elsewhere && !matches!(remote.content, Place::Elsewhere(_)) {
        // No collection would know of the name.
        return Err(nowhere()
            .with_hint("its contents are in a bucket or directory: set content.provider to it"));
    }
    let mut sent = Vec::new();
    if from != to && !objects.is_empty() {
        let moving = Moving::new(remote, &from, &to, &resolved.said, activity);
        let bytes: Vec<_> = objects.iter().map(|_| AtomicU64::new(0)).collect();
        limit.for_each(activity, objects.len(), |index| {
            let moved = moving.give(objects[index])?;
            bytes[index].store(moved, Ordering::Relaxed);
            Ok(())
        })?;
        sent = bytes.into_iter().map(AtomicU64::into_inner).collect();
        sent.retain(|bytes| *bytes > 0);
    }
    // A tag sends only what has to be, whatever it replaces.
    let again = CopyRequest::new(request.reference.clone());
    let look = || -> Result<()> {
        let copying = Copying::new((remote, remote), &to, Layers::new(), &again, &watch)?;
        copying.all(limit, &resolved.said).map(drop)
    };
    if is_elsewhere && !watch.may_believe() {
        look()?;
    }
    watch.moving(before, digest)?;
    if let Some(before) = before.filter(|before| *before != digest) {
        give_up(store, remote, &name, before)?;
    }
    announcing.send(
        &resolved.manifest,
        &resolved.document,
        !objects.is_empty(),
        before,
    )?;
    while is_elsewhere && watch.has_to_look_again(resolved.said.objects())? {
        look()?;
    }
    let sent_blobs = sent.len() as u64;
    Ok(CopyReport {
        reference: name.with_digest(digest),
        publication: Publication {
            place: remote.place_of(&to),
            format: resolved.said.format(),
            manifest_digest: digest,
            sent_blobs,
            sent_bytes: total(sent),
        },
        reused_blobs: objects.len() as u64 - sent_blobs,
        duration: started.elapsed(),
        warnings: Vec::new(),
    })
}

/// Contents that are layers.
fn objects(said: &Said) -> Vec<(Object, StoredLayer)> {
    let stored = |sha256, size| StoredLayer { sha256, size };
    match said {
        Said::Blobs(manifest, _) => {
            let object = |layer: &crate::format::artifact::Layer| {
                let object = Object::stream(layer.digest, None, layer.size);
                (object, stored(layer.sha256, layer.size))
            };
            manifest.layers.iter().map(object).collect()
        }
        Said::Packs(manifest, _) => {
            let object = |pack: &crate::format::artifact::paged::PackLayer| {
                let object = Object::pack(*pack.id.as_bytes(), pack.size);
                (object, stored(pack.sha256, pack.size))
            };
            manifest.packs.iter().map(object).collect()
        }
    }
}

/// What goes from one repository to another one of the same registry.
struct Moving<'a> {
    remote: &'a Remote,
    from: &'a Repository,
    to: &'a Repository,
    source: Arc<dyn ContentTransport>,
    target: Arc<dyn ContentTransport>,
    activity: &'a Activity,
}

impl<'a> Moving<'a> {
    fn new(
        remote: &'a Remote,
        from: &'a Repository,
        to: &'a Repository,
        said: &Said,
        activity: &'a Activity,
    ) -> Self {
        let layers: Layers = match said {
            Said::Blobs(manifest, _) => contents::layers_of(manifest),
            Said::Packs(manifest, _) => contents::layers_of_packs(manifest),
        };
        Self {
            remote,
            from,
            to,
            source: remote.layers(from, layers.clone()),
            target: remote.layers(to, layers),
            activity,
        }
    }

    /// Gives the new repository a layer, and says how many bytes had to be sent for it.
    fn give(&self, (object, layer): (Object, StoredLayer)) -> Result<u64> {
        let wanted = || self.activity.check();
        let StoredLayer { sha256, size } = layer;
        if wait(&wanted, self.target.size(object))? == Presence::Size(size) {
            return Ok(0);
        }
        let registry = &self.remote.registry;
        if wait(&wanted, registry.mount(self.to, self.from, sha256, size))? {
            return Ok(0);
        }
        let read = |give: &mut dyn FnMut(Bytes) -> Result<()>| self.relay(object, give);
        let (how, rate) = ((existing(false), true), &self.remote.rates.upload);
        offer(&self.target, object, how, rate, &wanted, &read)?;
        Ok(size)
    }

    /// The last piece is held back until the SHA-256 of all is right.
    fn relay(&self, object: Object, give: &mut dyn FnMut(Bytes) -> Result<()>) -> Result<()> {
        let mut last: Option<Bytes> = None;
        let mut take = |bytes: &Bytes| last.replace(bytes.clone()).map_or(Ok(()), &mut *give);
        let rate = &self.remote.rates.download;
        let wanted = || self.activity.check();
        stream(&self.source, (object, None), rate, &wanted, &mut take)?;
        last.map_or(Ok(()), give)
    }
}

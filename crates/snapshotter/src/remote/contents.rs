//! Where the bytes of a snapshot are: what its manifest says, else what the configuration says.

use std::sync::Arc;

use super::{Place, Remote};
use crate::format::artifact::Manifest;
use crate::registry::{Layers, RegistryContent, Repository, StoredLayer};
use crate::transport::ContentTransport;
use crate::words::digest::Digest;
use crate::words::error::{Error, Result};
use crate::words::object::ObjectName;

/// The contents of one snapshot.
pub(super) struct Contents {
    pub(super) transport: Arc<dyn ContentTransport>,
    /// The place itself, where the way there is through somebody's cache.
    pub(super) direct: Option<Arc<dyn ContentTransport>>,
    pub(super) layers: Layers,
}

impl Contents {
    /// What a packed stream is in the registry, where it comes from there.
    pub(super) fn layer(&self, digest: Digest) -> Option<StoredLayer> {
        self.layers.get(&ObjectName::Digest(digest)).copied()
    }
}

impl Remote {
    pub(super) fn contents(
        &self,
        repository: &Repository,
        manifest: &Manifest,
    ) -> Result<Contents> {
        if !manifest.layers.is_empty() {
            let layers = layers(manifest);
            return Ok(Contents {
                transport: self.layers(repository, layers.clone()),
                direct: None,
                layers,
            });
        }
        match &self.content {
            Place::Elsewhere(way) => Ok(Contents {
                transport: Arc::clone(&way.transport),
                direct: way.direct.clone(),
                layers: Layers::new(),
            }),
            Place::Unknown | Place::Registry => Err(Error::invalid(format!(
                "the contents of {} are not in the registry, and content says no other place",
                self.place_of(repository)
            ))
            .with_hint(
                "configure content: the provider and bucket that the snapshot was published to",
            )),
        }
    }

    /// Contents in the registry, of which these layers are known.
    pub(super) fn layers(
        &self,
        repository: &Repository,
        layers: Layers,
    ) -> Arc<dyn ContentTransport> {
        Arc::new(RegistryContent::new(&self.registry, repository, layers))
    }
}

pub(super) fn layers(manifest: &Manifest) -> Layers {
    let layers = manifest.layers.iter().map(|layer| {
        let (sha256, size) = (layer.sha256, layer.size);
        (
            ObjectName::Digest(layer.digest),
            StoredLayer { sha256, size },
        )
    });
    layers.collect()
}

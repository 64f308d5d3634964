//! Where the bytes of a snapshot are: what its manifest says, else what the configuration says.

use std::sync::Arc;

use super::{Place, Remote};
use crate::format::artifact::Manifest;
use crate::format::artifact::paged::{AnyManifest, PagedManifest};
use crate::registry::{Layers, RegistryContent, Repository, StoredLayer};
use crate::transport::ContentTransport;
use crate::words::error::{Error, Result};
use crate::words::object::{Object, ObjectName};

/// The contents of one snapshot.
pub(super) struct Contents {
    pub(super) transport: Arc<dyn ContentTransport>,
    /// The place itself, where the way there is through somebody's cache.
    pub(super) direct: Option<Arc<dyn ContentTransport>>,
    pub(super) layers: Layers,
}

impl Contents {
    /// What an object is in the registry, where it comes from there.
    pub(super) fn layer(&self, name: ObjectName) -> Option<StoredLayer> {
        self.layers.get(&name).copied()
    }
}

impl Remote {
    pub(super) fn contents(&self, repository: &Repository, layers: Layers) -> Result<Contents> {
        if !layers.is_empty() {
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

/// The packed streams of a manifest of format v1.
pub(super) fn layers_of(manifest: &Manifest) -> Layers {
    let layers = manifest.layers.iter().map(|layer| {
        let (sha256, size) = (layer.sha256, layer.size);
        (
            ObjectName::Digest(layer.digest),
            StoredLayer { sha256, size },
        )
    });
    layers.collect()
}

/// What a manifest of either format has.
pub(super) fn layers_of_any(manifest: &AnyManifest) -> Layers {
    match manifest {
        AnyManifest::V1(manifest) => layers_of(manifest),
        AnyManifest::V2(manifest) => layers_of_packs(manifest),
    }
}

/// The packs of one of format v2.
pub(super) fn layers_of_packs(manifest: &PagedManifest) -> Layers {
    let layers = manifest.packs.iter().map(|layer| {
        let (sha256, size) = (layer.sha256, layer.size);
        (
            Object::pack(*layer.id.as_bytes(), size).name,
            StoredLayer { sha256, size },
        )
    });
    layers.collect()
}

//! Contents in a registry: [`RegistryContent`], a transport whose objects are layers of one snapshot's manifest.
//!
//! A registry knows a blob by its SHA-256, and a manifest says which of them has which object. So this knows the layers of
//! one manifest; what it publishes becomes one of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::{MetadataRegistry, Repository, TagOrDigest};
use crate::lock::lock;
use crate::transport::{
    Call, ContentTransport, Existing, Presence, Published, Ranges, Sink, Source, absent, kept,
    wanted,
};
use crate::words::digest::Sha256;
use crate::words::error::Result;
use crate::words::object::{Object, ObjectName};

/// What an object is in a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredLayer {
    pub(crate) sha256: Sha256,
    /// In bytes.
    pub(crate) size: u64,
}

/// The layers of one manifest.
pub(crate) type Layers = HashMap<ObjectName, StoredLayer>;

/// Contents in one repository: the layers of a manifest that is there, or is to be built.
#[derive(Debug)]
pub(crate) struct RegistryContent {
    registry: Arc<dyn MetadataRegistry>,
    repository: Repository,
    pub(super) layers: Mutex<Layers>,
}

impl RegistryContent {
    pub(crate) fn new(
        registry: &Arc<dyn MetadataRegistry>,
        repository: &Repository,
        layers: Layers,
    ) -> Self {
        Self {
            registry: Arc::clone(registry),
            repository: repository.clone(),
            layers: Mutex::new(layers),
        }
    }

    fn layer(&self, object: Object) -> Option<StoredLayer> {
        lock(&self.layers).get(&object.name).copied()
    }

    async fn find(&self, object: Object) -> Result<Presence> {
        let Some(layer) = self.layer(object) else {
            return Ok(Presence::Unknown);
        };
        let StoredLayer { sha256, size } = layer;
        self.registry.has_blob(&self.repository, sha256, size).await
    }

    async fn send(&self, object: Object, existing: Existing, source: Source) -> Result<Published> {
        let size = source.size();
        if existing == Existing::Keep
            && let Presence::Size(found) = self.find(object).await?
        {
            let sha256 = self.layer(object).map(|layer| layer.sha256);
            let kept = kept(object, &self.place(), found, size)?;
            return Ok(Published { sha256, ..kept });
        }
        let sha256 = self.registry.push_stream(&self.repository, source).await?;
        lock(&self.layers).insert(object.name, StoredLayer { sha256, size });
        Ok(Published {
            sent: true,
            sha256: Some(sha256),
        })
    }

    async fn receive(&self, object: Object, ranges: Ranges, sink: Sink) -> Result<u64> {
        let (registry, repository) = (&self.registry, &self.repository);
        let StoredLayer { sha256, size } = self
            .layer(object)
            .ok_or_else(|| absent(object, &self.place()))?;
        let is_all = ranges.is_none();
        let wanted = wanted(object, &self.place(), size, ranges)?;
        if is_all {
            let pulled = registry.pull_stream(repository, sha256, size, None, sink);
            return pulled.await.map(|()| size);
        }
        let mut bytes = 0;
        for range in wanted {
            bytes += range.end - range.start;
            let pulled = registry.pull_stream(repository, sha256, size, Some(range), sink.clone());
            pulled.await?;
        }
        Ok(bytes)
    }
}

impl ContentTransport for RegistryContent {
    fn place(&self) -> String {
        format!("the registry's {}", self.repository)
    }

    fn size(&self, object: Object) -> Call<'_, Presence> {
        Box::pin(self.find(object))
    }

    fn publish(&self, object: Object, existing: Existing, source: Source) -> Call<'_, Published> {
        Box::pin(self.send(object, existing, source))
    }

    fn fetch(&self, object: Object, ranges: Ranges, sink: Sink) -> Call<'_, u64> {
        Box::pin(self.receive(object, ranges, sink))
    }

    /// Asks for a manifest that is not there: reaching the registry and being let in is all that it takes. A directory also
    /// says whether it can be written.
    fn check(&self) -> Call<'_, ()> {
        Box::pin(async move {
            let nothing = TagOrDigest::tag("nothing")?;
            self.registry.manifest(&self.repository, &nothing).await?;
            self.registry.writable().await
        })
    }

    fn check_sight(&self) -> Call<'_, ()> {
        self.registry.check_sight(&self.repository)
    }
}

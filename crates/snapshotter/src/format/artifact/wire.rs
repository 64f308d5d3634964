//! The JSON of manifests, which is the same in both formats but for its types and for what names a layer.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::paged::PACK_ANNOTATION;
use super::{
    DIGEST_ANNOTATION, EMPTY_BYTES, EMPTY_MEDIA_TYPE, MANIFEST_MEDIA_TYPE, MAX_MANIFEST_BYTES,
    ManifestError,
};
use crate::format::document::MAX_DOCUMENT_BYTES;
use crate::format::document::json::{self, Object};
use crate::words::digest::{Sha256, excerpt};
use crate::words::extent::MAX_SIZE;

/// What tells the manifests of the formats apart.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) artifact_type: &'static str,
    pub(super) config_media_type: &'static str,
    pub(super) content_media_type: &'static str,
    /// The key of the annotation that names a layer.
    pub(super) annotation: &'static str,
}

/// A layer of ours.
#[derive(Debug)]
pub(super) struct Named<N> {
    pub(super) sha256: Sha256,
    pub(super) size: u64,
    pub(super) name: N,
}

/// Writes a manifest; without layers it has OCI's empty one.
pub(super) fn build(
    kind: &Kind,
    document: (Sha256, u64),
    layers: impl ExactSizeIterator<Item = Named<String>>,
    annotations: &BTreeMap<String, String>,
) -> Result<Vec<u8>, ManifestError> {
    let count = layers.len();
    let bytes = json::to_vec(&WrittenManifest {
        schema_version: 2,
        media_type: MANIFEST_MEDIA_TYPE,
        artifact_type: kind.artifact_type,
        config: WrittenDescriptor::plain(kind.config_media_type, document),
        layers: written_layers(kind, layers)?,
        annotations,
    })
    .map_err(ManifestError::Json)?;
    if bytes.len() > MAX_MANIFEST_BYTES {
        return Err(ManifestError::DoesNotFit {
            bytes: bytes.len(),
            layers: count,
        });
    }
    Ok(bytes)
}

/// Reads a manifest of whichever kind.
pub(super) fn read(bytes: &[u8]) -> Result<ReadManifest<'_>, ManifestError> {
    if bytes.len() > MAX_MANIFEST_BYTES {
        return Err(ManifestError::TooLarge { bytes: bytes.len() });
    }
    let Object(read) = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
    Ok(read)
}

/// Whether it says that it is of this kind, whatever else is wrong with it.
pub(super) fn is_of(kind: &Kind, read: &ReadManifest<'_>) -> bool {
    read.artifact_type.as_deref() == Some(kind.artifact_type)
}

/// The document's name and length, of what is a manifest of this kind.
pub(super) fn config(kind: &Kind, read: &ReadManifest<'_>) -> Result<(Sha256, u64), ManifestError> {
    let config = check_types(kind, read)?;
    if config.size > MAX_DOCUMENT_BYTES {
        return Err(ManifestError::ConfigTooLarge { bytes: config.size });
    }
    let digest = config.digest.parse().map_err(ManifestError::ConfigDigest)?;
    Ok((digest, config.size))
}

/// The layers of this kind, in their order.
pub(super) fn layers<'r>(
    kind: &Kind,
    read: &'r ReadManifest<'_>,
) -> Result<Vec<Named<&'r str>>, ManifestError> {
    let all = read.layers.iter().flatten();
    let ours = all.filter(|Object(it)| it.media_type.as_deref() == Some(kind.content_media_type));
    ours.map(|Object(layer)| read_layer(kind, layer)).collect()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenManifest<'a> {
    schema_version: u8,
    media_type: &'static str,
    artifact_type: &'static str,
    config: WrittenDescriptor,
    layers: Vec<WrittenDescriptor>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenDescriptor {
    media_type: &'static str,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, String>,
}

impl WrittenDescriptor {
    fn plain(media_type: &'static str, (sha256, size): (Sha256, u64)) -> Self {
        Self {
            media_type,
            digest: sha256.to_string(),
            size,
            annotations: BTreeMap::new(),
        }
    }

    fn content(kind: &Kind, layer: Named<String>) -> Result<Self, ManifestError> {
        Ok(Self {
            media_type: kind.content_media_type,
            digest: layer.sha256.to_string(),
            size: checked_size(layer.size)?,
            annotations: BTreeMap::from([(kind.annotation, layer.name)]),
        })
    }
}

fn written_layers(
    kind: &Kind,
    layers: impl ExactSizeIterator<Item = Named<String>>,
) -> Result<Vec<WrittenDescriptor>, ManifestError> {
    if layers.len() == 0 {
        let empty = (Sha256::of(EMPTY_BYTES), EMPTY_BYTES.len() as u64);
        return Ok(vec![WrittenDescriptor::plain(EMPTY_MEDIA_TYPE, empty)]);
    }
    let written = layers.map(|layer| WrittenDescriptor::content(kind, layer));
    written.collect()
}

fn checked_size(size: u64) -> Result<u64, ManifestError> {
    if size > MAX_SIZE {
        Err(ManifestError::Layer { field: "size" })
    } else {
        Ok(size)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReadManifest<'a> {
    schema_version: u64,
    #[serde(borrow)]
    media_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    artifact_type: Option<Cow<'a, str>>,
    /// Indexes have none, and are to be called by their name.
    #[serde(borrow)]
    config: Option<Object<ReadConfig<'a>>>,
    #[serde(borrow)]
    layers: Option<Vec<Object<ReadLayer<'a>>>>,
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadConfig<'a> {
    #[serde(borrow)]
    media_type: Cow<'a, str>,
    #[serde(borrow)]
    digest: Cow<'a, str>,
    size: u64,
}

/// Other layers than ours may be of any kind, so nothing is required until the media type is known.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadLayer<'a> {
    #[serde(borrow)]
    media_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    digest: Option<Cow<'a, str>>,
    size: Option<u64>,
    #[serde(borrow)]
    annotations: Option<Object<ReadAnnotations<'a>>>,
}

#[derive(Deserialize)]
struct ReadAnnotations<'a> {
    #[serde(borrow, rename = "io.d7y.snapshotter.digest")]
    digest: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "io.d7y.snapshotter.pack")]
    pack: Option<Cow<'a, str>>,
}

/// The config of what is a snapshot's manifest.
fn check_types<'r, 'a>(
    kind: &Kind,
    read: &'r ReadManifest<'a>,
) -> Result<&'r ReadConfig<'a>, ManifestError> {
    if read.schema_version != 2 {
        return Err(ManifestError::SchemaVersion {
            found: read.schema_version,
        });
    }
    let media_type = read.media_type.as_deref().unwrap_or(MANIFEST_MEDIA_TYPE);
    check_type("media type", media_type, MANIFEST_MEDIA_TYPE)?;
    check_type(
        "artifact type",
        read.artifact_type.as_deref().unwrap_or_default(),
        kind.artifact_type,
    )?;
    let missing = || ManifestError::Json(serde::de::Error::missing_field("config"));
    let Object(config) = read.config.as_ref().ok_or_else(missing)?;
    check_type(
        "config's media type",
        &config.media_type,
        kind.config_media_type,
    )?;
    Ok(config)
}

fn check_type(field: &'static str, found: &str, expected: &str) -> Result<(), ManifestError> {
    if found == expected {
        Ok(())
    } else {
        Err(ManifestError::NotASnapshot {
            field,
            found: excerpt(found),
        })
    }
}

fn read_layer<'r>(kind: &Kind, layer: &'r ReadLayer<'_>) -> Result<Named<&'r str>, ManifestError> {
    let missing = |field| ManifestError::Layer { field };
    let sha256 = layer.digest.as_ref().ok_or(missing("digest"))?;
    let annotations = layer.annotations.as_ref();
    let name = annotations.and_then(|Object(annotations)| annotations.get(kind.annotation));
    Ok(Named {
        sha256: sha256.parse().map_err(ManifestError::LayerDigest)?,
        size: checked_size(layer.size.ok_or(missing("size"))?)?,
        name: name.ok_or(missing(kind.annotation))?,
    })
}

impl ReadAnnotations<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            DIGEST_ANNOTATION => self.digest.as_deref(),
            PACK_ANNOTATION => self.pack.as_deref(),
            _ => None,
        }
    }
}

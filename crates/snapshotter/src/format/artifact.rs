//! The OCI manifest around a document. It is built from its parts alone, so one snapshot has one manifest digest.
//! Reading takes from it only what is checked: the config's digest and size, layers of our own media type, annotations.
//! `urls` and embedded data are never looked at. Here is the manifest of format v1; `paged` has that of format v2.

pub mod paged;
mod wire;

use std::collections::BTreeMap;

use thiserror::Error;

use self::wire::{Kind, Named};
use crate::words::digest::{Digest, DigestError, Sha256};
use crate::words::entry::MtimeError;

/// The manifest's own media type: OCI's.
pub const MANIFEST_MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// The artifact type of a snapshot.
pub const ARTIFACT_TYPE: &str = "application/vnd.cncf.dragonfly.snapshotter.manifest.v1+json";
/// The media type of the document.
pub const CONFIG_MEDIA_TYPE: &str = "application/vnd.cncf.dragonfly.snapshotter.config.v1+json";
/// The media type of a layer that is a blob's packed stream.
pub const CONTENT_MEDIA_TYPE: &str = "application/vnd.cncf.dragonfly.snapshotter.content.v1.spf";
/// OCI's media type for a layer that is not there.
pub const EMPTY_MEDIA_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// The bytes of the empty layer; a registry wants them uploaded before a manifest that names them.
pub const EMPTY_BYTES: &[u8] = b"{}";
/// The annotation of a layer that holds its blob's digest.
pub const DIGEST_ANNOTATION: &str = "io.d7y.snapshotter.digest";
/// The longest manifest, in bytes.
pub const MAX_MANIFEST_BYTES: usize = 4 * 1024 * 1024;

const V1: Kind = Kind {
    artifact_type: ARTIFACT_TYPE,
    config_media_type: CONFIG_MEDIA_TYPE,
    content_media_type: CONTENT_MEDIA_TYPE,
    annotation: DIGEST_ANNOTATION,
};

/// A manifest that isn't a snapshot's, or can't be one.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Too many layers or annotations to write: the snapshot can't be stored this way.
    #[error("the manifest would have {bytes} bytes with {layers} layers; 4 MiB is the limit")]
    DoesNotFit {
        /// Its length in bytes.
        bytes: usize,
        /// How many blobs are in it.
        layers: usize,
    },
    /// More than [`MAX_MANIFEST_BYTES`] to read.
    #[error("the manifest has {bytes} bytes; 4 MiB is the limit")]
    TooLarge {
        /// Its length in bytes.
        bytes: usize,
    },
    /// Not JSON, or not of the right shape.
    #[error("the manifest is not JSON of the right shape")]
    Json(#[source] serde_json::Error),
    /// Another schema version than 2.
    #[error("the manifest has schema version {found}, not 2")]
    SchemaVersion {
        /// The version it has.
        found: u64,
    },
    /// Some other artifact's manifest.
    #[error("it is not a snapshot: its {field} is \"{found}\"")]
    NotASnapshot {
        /// The field that tells.
        field: &'static str,
        /// What is there, shortened; empty when nothing is.
        found: String,
    },
    /// A config that is longer than a document may be.
    #[error("the document would have {bytes} bytes; 256 MiB is the limit")]
    ConfigTooLarge {
        /// The length that the manifest gives.
        bytes: u64,
    },
    /// The config's digest is malformed.
    #[error("the digest of the document is not valid")]
    ConfigDigest(#[source] DigestError),
    /// A layer's digest is malformed.
    #[error("a digest of a content layer is not valid")]
    LayerDigest(#[source] DigestError),
    /// A time of creation that cannot be written.
    #[error("the time of creation is not valid")]
    Created(#[source] MtimeError),
    /// An annotation of a caller that the format writes itself.
    #[error("the annotation {key} is the format's own")]
    Reserved {
        /// Its key.
        key: String,
    },
    /// A layer of ours without digest, size or annotation, or with an impossible size.
    #[error("a content layer has no valid {field}")]
    Layer {
        /// What is missing.
        field: &'static str,
    },
}

/// A blob's packed stream as a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layer {
    /// Its name in the registry.
    pub sha256: Sha256,
    /// The stream's length in bytes.
    pub size: u64,
    /// Its address in format v1.
    pub digest: Digest,
}

/// What a snapshot's manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The document's name in the registry.
    pub config: Sha256,
    /// The document's length in bytes, at most [`MAX_DOCUMENT_BYTES`](super::document::MAX_DOCUMENT_BYTES).
    pub config_size: u64,
    /// The layers that are content of ours, in their order.
    pub layers: Vec<Layer>,
    /// What the caller has noted.
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Writes the manifest of a document. Without layers it has OCI's empty one ([`EMPTY_BYTES`]).
    ///
    /// # Errors
    /// [`ManifestError::DoesNotFit`] when it would be longer than [`MAX_MANIFEST_BYTES`]; a layer too large to exist.
    pub fn build(
        document: &[u8],
        layers: &[Layer],
        annotations: &BTreeMap<String, String>,
    ) -> Result<Vec<u8>, ManifestError> {
        let config = (Sha256::of(document), document.len() as u64);
        Self::build_for(config, layers, annotations)
    }

    /// The same for a document of which the name and the length are known.
    ///
    /// # Errors
    /// Those of [`build`](Self::build).
    pub fn build_for(
        document: (Sha256, u64),
        layers: &[Layer],
        annotations: &BTreeMap<String, String>,
    ) -> Result<Vec<u8>, ManifestError> {
        let named = layers.iter().map(|layer| Named {
            sha256: layer.sha256,
            size: layer.size,
            name: layer.digest.to_string(),
        });
        wire::build(&V1, document, named, annotations)
    }

    /// Reads a manifest of ours or of the Go library (whose `layers` is null).
    ///
    /// # Errors
    /// When it is too long, malformed, some other artifact's, or one of our layers in it is malformed.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let read = wire::read(bytes)?;
        let (config, config_size) = wire::config(&V1, &read)?;
        let layers = wire::layers(&V1, &read)?.into_iter().map(|layer| {
            Ok(Layer {
                sha256: layer.sha256,
                size: layer.size,
                digest: layer.name.parse().map_err(ManifestError::LayerDigest)?,
            })
        });
        Ok(Self {
            config,
            config_size,
            layers: layers.collect::<Result<_, _>>()?,
            annotations: read.annotations.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use proptest::prelude::*;

    use super::*;

    const NO_LAYERS: &str = concat!(
        r#""layers":[{"mediaType":"application/vnd.oci.empty.v1+json","digest":"#,
        r#""sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}]"#
    );

    fn layer(seed: u8) -> Layer {
        Layer {
            sha256: Sha256::of(&[seed]),
            size: u64::from(seed),
            digest: Digest::of(&[seed]),
        }
    }

    fn notes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn built(layers: &[Layer], annotations: &BTreeMap<String, String>) -> String {
        String::from_utf8(Manifest::build(b"{\"files\":[]}", layers, annotations).unwrap()).unwrap()
    }

    fn registry() -> PathBuf {
        Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../testdata/golden"
        ))
        .to_owned()
    }

    #[test]
    fn golden_manifests() {
        let index = std::fs::read(registry().join("index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
        let snapshots = index["snapshots"].as_array().unwrap();
        assert_eq!(snapshots.len(), 5);
        for snapshot in snapshots {
            let read = |key: &str| {
                std::fs::read(registry().join(snapshot[key].as_str().unwrap())).unwrap()
            };
            let (bytes, document) = (read("manifest_file"), read("config_file"));
            assert_eq!(Sha256::of(&bytes).to_string(), snapshot["manifest_sha256"]);
            let manifest = Manifest::parse(&bytes).unwrap();
            assert_eq!(manifest.config.to_string(), snapshot["config_sha256"]);
            assert_eq!(manifest.config_size, document.len() as u64);
            assert!(manifest.layers.is_empty() && manifest.annotations.is_empty());
            let ours =
                String::from_utf8(Manifest::build(&document, &[], &BTreeMap::new()).unwrap())
                    .unwrap();
            assert_eq!(
                ours.replace(NO_LAYERS, r#""layers":null"#).as_bytes(),
                bytes
            );
        }
    }

    #[test]
    fn layers_and_annotations() {
        let annotations = notes(&[("b", "2"), ("a<&>", "\u{2028}\"")]);
        let text = built(&[layer(1)], &annotations);
        let (sha256, digest) = (layer(1).sha256, layer(1).digest);
        let tail = format!(
            r#""layers":[{{"mediaType":"{CONTENT_MEDIA_TYPE}","digest":"{sha256}","size":1,"annotations":{{"{DIGEST_ANNOTATION}":"{digest}"}}}}],"annotations":{{"a\u003c\u0026\u003e":"\u2028\"","b":"2"}}}}"#
        );
        assert!(text.ends_with(&tail), "{text}");
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        assert_eq!(manifest.layers, [layer(1)]);
        assert_eq!(manifest.annotations, annotations);
    }

    #[test]
    fn foreign_layers_are_ignored() {
        for layers in [
            "null",
            "[]",
            "[{}]",
            r#"[{"mediaType":null}]"#,
            r#"[{"mediaType":"x","digest":"y","size":1,"urls":["http://example.com"],"annotations":{"z":"w"}}]"#,
            r#"[{"mediaType":"x","annotations":null},{"mediaType":"x","annotations":{"io.d7y.snapshotter.digest":"no"}}]"#,
        ] {
            let text =
                built(&[], &BTreeMap::new()).replace(NO_LAYERS, &format!(r#""layers":{layers}"#));
            assert_eq!(
                Manifest::parse(text.as_bytes()).unwrap().layers,
                [],
                "{layers}"
            );
        }
        let missing = built(&[], &BTreeMap::new()).replace(&format!(",{NO_LAYERS}"), "");
        assert_eq!(Manifest::parse(missing.as_bytes()).unwrap().layers, []);
        let untyped = missing.replace(&format!(r#""mediaType":"{MANIFEST_MEDIA_TYPE}","#), "");
        assert!(Manifest::parse(untyped.as_bytes()).is_ok());
    }

    #[test]
    fn refuses_what_is_not_a_snapshot() {
        let good = built(&[layer(1)], &BTreeMap::new());
        assert!(Manifest::parse(good.as_bytes()).is_ok());
        let (sha256, digest) = (layer(1).sha256.to_string(), layer(1).digest.to_string());
        for (from, to) in [
            (r#""schemaVersion":2"#, r#""schemaVersion":1"#),
            (r#""schemaVersion":2,"#, ""),
            (
                MANIFEST_MEDIA_TYPE,
                "application/vnd.oci.image.index.v1+json",
            ),
            (ARTIFACT_TYPE, "x"),
            ("artifactType", "artifact"),
            (
                CONFIG_MEDIA_TYPE,
                "application/vnd.oci.image.config.v1+json",
            ),
            (r#""config":{"#, r#""config":[],"x":{"#),
            (r#""size":12"#, r#""size":268435457"#),
            (r#""size":12"#, r#""size":-1"#),
            ("sha256:602e", "sha256:602E"),
            ("sha256:602e", "sha512:602e"),
            (&sha256, "sha256:../../etc"),
            (&digest, "xxh3:00"),
            (&digest, "xxh3:../a"),
            ("io.d7y.snapshotter.digest", "other"),
            (r#""size":1,"#, ""),
            (r#""size":1,"#, r#""size":9223372036854775808,"#),
            (r#""layers":["#, r#""layers":[5,"#),
            (r#""layers":["#, r#""layers":[],"layers":["#),
            (r#"}]}"#, r#"}]}x"#),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good, "{from}");
            assert!(Manifest::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        for bad in ["", "null", "[]", "5", "{}", "[2]"] {
            assert!(Manifest::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_limit_holds_both_ways() {
        let many: Vec<_> = (0..20_000).map(|_| layer(255)).collect();
        let error = Manifest::build(b"", &many, &BTreeMap::new()).unwrap_err();
        assert!(matches!(
            error,
            ManifestError::DoesNotFit { layers: 20_000, .. }
        ));
        assert!(Manifest::build(b"", &many[..15_000], &BTreeMap::new()).is_ok());
        let padded = built(&[], &BTreeMap::new()) + &" ".repeat(MAX_MANIFEST_BYTES);
        assert!(matches!(
            Manifest::parse(padded.as_bytes()),
            Err(ManifestError::TooLarge { .. })
        ));
    }

    #[test]
    fn deep_nesting_is_harmless() {
        let depth = 200_000;
        for open in ["[", "{\"a\":"] {
            let deep = open.repeat(depth);
            assert!(Manifest::parse(deep.as_bytes()).is_err());
            let text =
                built(&[], &BTreeMap::new()).replace(NO_LAYERS, &format!(r#""layers":{deep}"#));
            assert!(Manifest::parse(text.as_bytes()).is_err());
        }
    }

    proptest! {
        #[test]
        fn round_trips(seeds in proptest::collection::vec(any::<u8>(), 0..6), annotations in proptest::collection::btree_map(".{0,8}", ".{0,8}", 0..4)) {
            let layers: Vec<_> = seeds.into_iter().map(layer).collect();
            let bytes = Manifest::build(b"document", &layers, &annotations).unwrap();
            let manifest = Manifest::parse(&bytes).unwrap();
            prop_assert_eq!(manifest.config, Sha256::of(b"document"));
            prop_assert_eq!(manifest.config_size, 8);
            prop_assert_eq!(manifest.layers, layers);
            prop_assert_eq!(manifest.annotations, annotations);
        }
    }
}

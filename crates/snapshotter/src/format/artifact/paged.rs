//! The manifest of format v2: the layers are packs, in the document's order, so that the registry's own collection of garbage
//! counts for us; annotations say what a list of snapshots shows, so that none of their documents has to be fetched.

use std::collections::BTreeMap;

use super::wire::{self, Kind, Named};
use super::{Manifest as V1Manifest, ManifestError};
use crate::format::pack::PackId;
use crate::words::digest::Sha256;
use crate::words::entry::Mtime;
#[cfg(feature = "registry")]
use crate::words::format::Format;

/// The artifact type of a snapshot of format v2.
pub const ARTIFACT_TYPE: &str = "application/vnd.cncf.dragonfly.snapshotter.manifest.v2+json";
/// The media type of its document.
pub const CONFIG_MEDIA_TYPE: &str =
    "application/vnd.cncf.dragonfly.snapshotter.config.v2+json+zstd";
/// The media type of a layer that is a pack.
pub const PACK_MEDIA_TYPE: &str = "application/vnd.cncf.dragonfly.snapshotter.content.v2.pack";
/// The annotation of a layer that holds its pack's id.
pub const PACK_ANNOTATION: &str = "io.d7y.snapshotter.pack";

const CREATED: &str = "org.opencontainers.image.created";
const FILES: &str = "io.d7y.snapshotter.files";
const BYTES: &str = "io.d7y.snapshotter.bytes";
const PARENT: &str = "io.d7y.snapshotter.parent";

const V2: Kind = Kind {
    artifact_type: ARTIFACT_TYPE,
    config_media_type: CONFIG_MEDIA_TYPE,
    content_media_type: PACK_MEDIA_TYPE,
    annotation: PACK_ANNOTATION,
};

/// A pack as a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PackLayer {
    /// Its name in the registry.
    pub sha256: Sha256,
    /// Its length in bytes.
    pub size: u64,
    /// Its name everywhere else.
    pub id: PackId,
}

/// What a list of snapshots shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// When it was taken.
    pub created: Option<Mtime>,
    /// How many files it has.
    pub files: Option<u64>,
    /// Their sizes together, in bytes.
    pub bytes: Option<u64>,
    /// The manifest of the snapshot it was made against.
    pub parent: Option<Sha256>,
}

impl Facts {
    /// These and what the caller notes. The time is the caller's where both have one.
    ///
    /// # Errors
    /// When the caller notes what is the format's own, or the time is outside the years 0 to 9999.
    pub fn annotations(
        &self,
        caller: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, ManifestError> {
        let own = [FILES, BYTES, PARENT];
        if let Some(key) = own.into_iter().find(|key| caller.contains_key(*key)) {
            let key = key.to_owned();
            return Err(ManifestError::Reserved { key });
        }
        let mut all = caller.clone();
        let created = self.created.map(Mtime::to_rfc3339).transpose();
        let created = created.map_err(ManifestError::Created)?;
        let facts = [
            (CREATED, created),
            (FILES, self.files.map(|files| files.to_string())),
            (BYTES, self.bytes.map(|bytes| bytes.to_string())),
            (PARENT, self.parent.map(|parent| parent.to_string())),
        ];
        for (key, fact) in facts {
            if let Some(fact) = fact {
                all.entry(key.to_owned()).or_insert(fact);
            }
        }
        Ok(all)
    }

    /// What of annotations is the caller's, or may be: a time may have been noted by either.
    pub fn callers(mut annotations: BTreeMap<String, String>) -> BTreeMap<String, String> {
        annotations.retain(|key, _| ![FILES, BYTES, PARENT].contains(&key.as_str()));
        annotations
    }

    /// What of them annotations say; what cannot be read is not said.
    pub fn of(annotations: &BTreeMap<String, String>) -> Self {
        let text = |key| annotations.get(key).map(String::as_str);
        let created = text(CREATED).and_then(|text| Mtime::parse_rfc3339(text).ok());
        Self {
            created,
            files: text(FILES).and_then(|text| text.parse().ok()),
            bytes: text(BYTES).and_then(|text| text.parse().ok()),
            parent: text(PARENT).and_then(|text| text.parse().ok()),
        }
    }
}

/// What the manifest of a snapshot of format v2 says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagedManifest {
    /// The document's name in the registry.
    pub config: Sha256,
    /// The document's length in bytes, compressed as it is.
    pub config_size: u64,
    /// The layers that are packs, in their order.
    pub packs: Vec<PackLayer>,
    /// What the caller has noted, and [`Facts`].
    pub annotations: BTreeMap<String, String>,
}

impl PagedManifest {
    /// Writes the manifest of a document of which the name and the length are known.
    ///
    /// # Errors
    /// When it would be too long, or a pack is too large to exist.
    pub fn build(
        document: (Sha256, u64),
        packs: &[PackLayer],
        annotations: &BTreeMap<String, String>,
    ) -> Result<Vec<u8>, ManifestError> {
        let named = packs.iter().map(|pack| Named {
            sha256: pack.sha256,
            size: pack.size,
            name: pack.id.to_string(),
        });
        wire::build(&V2, document, named, annotations)
    }

    /// Reads a manifest of format v2.
    ///
    /// # Errors
    /// When it is too long, malformed, some other artifact's, or one of our layers in it is malformed.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let read = wire::read(bytes)?;
        let (config, config_size) = wire::config(&V2, &read)?;
        let packs = wire::layers(&V2, &read)?.into_iter().map(|layer| {
            Ok(PackLayer {
                sha256: layer.sha256,
                size: layer.size,
                id: layer.name.parse().map_err(ManifestError::LayerDigest)?,
            })
        });
        Ok(Self {
            config,
            config_size,
            packs: packs.collect::<Result<_, _>>()?,
            annotations: read.annotations.unwrap_or_default(),
        })
    }
}

/// A manifest of whichever format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnyManifest {
    /// Of format v1.
    V1(V1Manifest),
    /// Of format v2.
    V2(PagedManifest),
}

impl AnyManifest {
    /// Reads a manifest as what it says that it is.
    ///
    /// # Errors
    /// Those of reading it as that; those of format v1 where it is neither.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if wire::is_of(&V2, &wire::read(bytes)?) {
            PagedManifest::parse(bytes).map(Self::V2)
        } else {
            V1Manifest::parse(bytes).map(Self::V1)
        }
    }

    /// The document's name in the registry, and its length in bytes.
    #[cfg(feature = "registry")]
    pub fn config(&self) -> (Sha256, u64) {
        match self {
            Self::V1(manifest) => (manifest.config, manifest.config_size),
            Self::V2(manifest) => (manifest.config, manifest.config_size),
        }
    }

    /// Whether contents are layers of it.
    #[cfg(feature = "registry")]
    pub fn has_layers(&self) -> bool {
        match self {
            Self::V1(manifest) => !manifest.layers.is_empty(),
            Self::V2(manifest) => !manifest.packs.is_empty(),
        }
    }

    /// Its format.
    #[cfg(feature = "registry")]
    pub(crate) fn format(&self) -> Format {
        match self {
            Self::V1(_) => Format::V1,
            Self::V2(_) => Format::V2,
        }
    }

    /// What the caller has noted, and in format v2 [`Facts`].
    #[cfg(feature = "registry")]
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        match self {
            Self::V1(manifest) => &manifest.annotations,
            Self::V2(manifest) => &manifest.annotations,
        }
    }

    /// The same for its owner.
    pub fn into_annotations(self) -> BTreeMap<String, String> {
        match self {
            Self::V1(manifest) => manifest.annotations,
            Self::V2(manifest) => manifest.annotations,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EMPTY_MEDIA_TYPE, MAX_MANIFEST_BYTES};
    use super::*;

    fn pack(seed: u8) -> PackLayer {
        PackLayer {
            sha256: Sha256::of(&[seed]),
            size: u64::from(seed),
            id: PackId::from_bytes([seed; 32]),
        }
    }

    fn document() -> (Sha256, u64) {
        (Sha256::of(b"document"), 8)
    }

    fn facts() -> Facts {
        Facts {
            created: Some(Mtime {
                seconds: 1_700_000_000,
                nanoseconds: 0,
            }),
            files: Some(3),
            bytes: Some(12_288),
            parent: Some(Sha256::of(b"parent")),
        }
    }

    fn notes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn packs_are_layers_and_facts_are_annotations() {
        let annotations = facts().annotations(&notes(&[("a", "b")])).unwrap();
        let bytes = PagedManifest::build(document(), &[pack(2), pack(1)], &annotations).unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap();
        let layer = |seed: u8| {
            format!(
                r#"{{"mediaType":"{PACK_MEDIA_TYPE}","digest":"{}","size":{seed},"annotations":{{"{PACK_ANNOTATION}":"{}"}}}}"#,
                pack(seed).sha256,
                pack(seed).id
            )
        };
        let expected = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"{ARTIFACT_TYPE}","config":{{"mediaType":"{CONFIG_MEDIA_TYPE}","digest":"{}","size":8}},"layers":[{},{}],"annotations":{{"a":"b","io.d7y.snapshotter.bytes":"12288","io.d7y.snapshotter.files":"3","io.d7y.snapshotter.parent":"{}","org.opencontainers.image.created":"2023-11-14T22:13:20Z"}}}}"#,
            document().0,
            layer(2),
            layer(1),
            Sha256::of(b"parent"),
        );
        assert_eq!(text, expected);
        let manifest = PagedManifest::parse(&bytes).unwrap();
        assert_eq!((manifest.config, manifest.config_size), document());
        assert_eq!(manifest.packs, [pack(2), pack(1)]);
        assert_eq!(Facts::of(&manifest.annotations), facts());
        assert_eq!(manifest.annotations["a"], "b");
        assert_eq!(
            AnyManifest::parse(&bytes).unwrap(),
            AnyManifest::V2(manifest)
        );
    }

    #[test]
    fn a_caller_notes_nothing_that_is_the_formats_own() {
        for key in [FILES, BYTES, PARENT] {
            let refused = Facts::default().annotations(&notes(&[(key, "1")]));
            assert!(
                matches!(refused, Err(ManifestError::Reserved { .. })),
                "{key}"
            );
        }
        let all = facts().annotations(&notes(&[(CREATED, "noon")])).unwrap();
        assert_eq!(all[CREATED], "noon");
        assert_eq!(Facts::of(&all).created, None);
        assert_eq!(Facts::of(&notes(&[])), Facts::default());
    }

    #[test]
    fn each_format_refuses_the_other() {
        let ours = PagedManifest::build(document(), &[], &BTreeMap::new()).unwrap();
        assert!(String::from_utf8_lossy(&ours).contains(EMPTY_MEDIA_TYPE));
        assert!(PagedManifest::parse(&ours).unwrap().packs.is_empty());
        let fault = V1Manifest::parse(&ours).unwrap_err();
        assert!(matches!(fault, ManifestError::NotASnapshot { .. }));
        let theirs = V1Manifest::build_for(document(), &[], &BTreeMap::new()).unwrap();
        let fault = PagedManifest::parse(&theirs).unwrap_err();
        assert!(matches!(fault, ManifestError::NotASnapshot { .. }));
        assert!(matches!(
            AnyManifest::parse(&theirs),
            Ok(AnyManifest::V1(_))
        ));
        assert!(AnyManifest::parse(b"{}").is_err());
        assert!(AnyManifest::parse(&vec![b' '; MAX_MANIFEST_BYTES + 1]).is_err());
    }

    #[test]
    fn refuses_packs_without_their_names() {
        let good = PagedManifest::build(document(), &[pack(1)], &BTreeMap::new()).unwrap();
        let good = String::from_utf8(good).unwrap();
        for (from, to) in [
            (PACK_ANNOTATION, "io.d7y.snapshotter.digest"),
            ("blake3:01", "blake3:0"),
            ("blake3:", "sha256:"),
            (r#""size":1,"#, ""),
            (r#""size":1,"#, r#""size":9223372036854775808,"#),
            (r#""size":8"#, r#""size":268435457"#),
            ("config.v2+json+zstd", "config.v1+json"),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good, "{from}");
            assert!(PagedManifest::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}

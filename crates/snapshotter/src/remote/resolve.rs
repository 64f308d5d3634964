//! What a snapshot is, as the registry says it: manifest and document, and the distinct contents that it names.

use super::download::Asked;
use super::packs::named_object;
use super::runtime::wait;
use super::text::Text;
use super::{Remote, parse_manifest};
use crate::activity::Activity;
use crate::catalog::Totals;
use crate::format::artifact::Manifest;
use crate::format::artifact::paged::{AnyManifest, PagedManifest};
use crate::format::document::paged::PagedDocument;
use crate::format::document::{Content, Document, DocumentError, FileEntry, SHORT};
use crate::store::Store;
use crate::words::digest::{Checksum, Digest};
use crate::words::entry::Attributes;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::format::Format;
use crate::words::object::ObjectName;
use crate::words::reference::Reference;

/// A snapshot as the registry describes it.
pub(super) struct Resolved {
    /// With its digest, and without a version where it was asked for without one.
    pub(super) reference: Reference,
    pub(super) manifest: Vec<u8>,
    pub(super) document: Text,
    pub(super) said: Said,
}

/// What manifest and document say, by their format.
pub(super) enum Said {
    Blobs(Manifest, Document),
    Packs(PagedManifest, PagedDocument),
}

impl Said {
    /// Reads a document as what its manifest says that it is.
    pub(super) fn new(
        manifest: AnyManifest,
        document: &Text,
    ) -> std::result::Result<Self, DocumentError> {
        Ok(match manifest {
            AnyManifest::V1(manifest) => Self::Blobs(manifest, document.entries()?),
            AnyManifest::V2(manifest) => Self::Packs(manifest, document.pages()?),
        })
    }

    /// What the files amount to, as far as the document says: not their data.
    pub(super) fn totals(&self) -> Totals {
        match self {
            Self::Blobs(_, document) => Totals::of(document, |_| 0),
            Self::Packs(_, document) => Totals::of(&document.entries, |_| 0),
        }
    }

    /// What the contents are called, some perhaps more than once.
    pub(super) fn objects(&self) -> Box<dyn Iterator<Item = ObjectName> + '_> {
        match self {
            Self::Blobs(_, document) => {
                let files = document.files.iter();
                Box::new(files.map(|file| ObjectName::Digest(file.content.digest())))
            }
            Self::Packs(_, document) => {
                let packs = document.packs.iter();
                Box::new(packs.map(|pack| named_object(pack).name))
            }
        }
    }

    pub(super) fn format(&self) -> Format {
        match self {
            Self::Blobs(..) => Format::V1,
            Self::Packs(..) => Format::V2,
        }
    }
}

/// Looks a snapshot up in the registry, document and all. A long document goes through a file of the store's, where there is
/// one.
pub(super) fn resolve(
    remote: &Remote,
    reference: &Reference,
    store: Option<&Store>,
    activity: &Activity,
) -> Result<Resolved> {
    let found = remote.find(reference, activity)?.ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!(
                "there is no snapshot {reference}, neither here nor in {}",
                remote.endpoint
            ),
        )
        .with_reference(reference)
    })?;
    let parsed = parse_manifest(&found.bytes, reference)?;
    let (config, size) = parsed.config();
    tracing::info!("GET list of files {config}, {size} bytes");
    let repository = remote.repository(reference)?;
    let name = (config, size);
    let document = match store {
        Some(store) if name.1 > SHORT => Text::fetch(store, remote, &repository, name, activity)?,
        _ => Text::Short(wait(
            &|| activity.check(),
            remote.registry.blob(&repository, name.0, name.1),
        )?),
    };
    let said = Said::new(parsed, &document).map_err(|error| {
        // One of a release to come is as it should be.
        let kind = match error {
            DocumentError::Unsupported { .. } => ErrorKind::Unsupported,
            _ => ErrorKind::Damaged,
        };
        Error::new(kind, format!("the document of {reference} cannot be used"))
            .with_reference(reference)
            .with_source(error)
    })?;
    Ok(Resolved {
        reference: reference.clone().with_digest(found.digest),
        manifest: found.bytes,
        document,
        said,
    })
}

/// A distinct content of a snapshot: what these files have, of which there is one at least.
pub(super) struct Need<'a> {
    pub(super) files: &'a [&'a FileEntry],
}

/// Files below this are committed many at once, in bytes.
const SMALL: u64 = 1 << 20;

impl Need<'_> {
    fn content(&self) -> &Content {
        &self.files[0].content
    }

    pub(super) fn digest(&self) -> Digest {
        self.content().digest()
    }

    pub(super) fn name(&self) -> ObjectName {
        ObjectName::Digest(self.digest())
    }

    pub(super) fn checksum(&self) -> Option<Checksum> {
        self.content().checksum()
    }

    /// Logical bytes.
    pub(super) fn size(&self) -> u64 {
        self.files[0].size
    }

    pub(super) fn is_small(&self) -> bool {
        self.size() < SMALL
    }

    /// Of the first read-only file with it: given to the blob's own inode, which is then that file's view.
    pub(super) fn attributes(&self) -> Option<&Attributes> {
        let file = self.files.iter().find(|file| file.read_only)?;
        Some(&file.attributes)
    }

    pub(super) fn asked(&self) -> Asked {
        Asked {
            digest: self.digest(),
            checksum: self.checksum(),
            size: self.size(),
        }
    }
}

/// A document's files, those with the same content together and in the document's order.
pub(super) fn by_content(document: &Document) -> Vec<&FileEntry> {
    let mut files: Vec<&FileEntry> = document.files.iter().collect();
    files.sort_by_key(|file| named(file));
    files
}

/// What there is to have for files that are in the order of their contents.
pub(super) fn needs<'a>(files: &'a [&'a FileEntry]) -> Vec<Need<'a>> {
    let alike = files.chunk_by(|a, b| a.content == b.content);
    let mut needs: Vec<Need<'_>> = alike.map(|files| Need { files }).collect();
    // As the document has them, which is how they were taken.
    needs.sort_by(|a, b| a.files[0].path.cmp(&b.files[0].path));
    needs
}

fn named(file: &FileEntry) -> (u64, Option<Checksum>) {
    let content = &file.content;
    (content.digest().as_u64(), content.checksum())
}

//! Where the bytes of a file that is restored are: in a blob of its own, or in pages of packs.

use std::collections::HashMap;

use crate::format::content::ContentId;
use crate::format::document::paged::PagedDocument;
use crate::format::document::{self, Document};
use crate::words::digest::{Checksum, Digest};
use crate::words::relpath::RelPath;

/// Where a file's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Blob {
        digest: Digest,
        checksum: Option<Checksum>,
    },
    Pages {
        /// The first of them in the page space; how many they are its size says.
        first: u64,
        id: Option<ContentId>,
    },
}

/// A file of a plan.
pub(super) type FileEntry = document::FileEntry<Content>;

impl Content {
    /// Of the blob.
    pub(super) fn checksum(&self) -> Option<Checksum> {
        match self {
            Self::Blob { checksum, .. } => *checksum,
            Self::Pages { .. } => None,
        }
    }
}

/// A document of format v1, for a plan.
pub(super) fn of_blobs(document: Document) -> Document<Content> {
    document.map(|file| Content::Blob {
        digest: file.content.digest(),
        checksum: file.content.checksum(),
    })
}

/// One of format v2. A second name has the pages of the first.
pub(crate) fn of_pages(document: PagedDocument) -> Document<Content> {
    let places = document.places();
    let places: HashMap<RelPath, u64> = places
        .map(|(file, pages)| (file.path.clone(), pages.start))
        .collect();
    document.entries.map(|file| {
        let first = file.hardlink_of.as_ref().unwrap_or(&file.path);
        Content::Pages {
            first: places.get(first).copied().unwrap_or_default(),
            id: file.content,
        }
    })
}

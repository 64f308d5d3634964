//! What a snapshot of format v2 took over and what it stored, for reports.

use super::origin::Origin;
use crate::words::digest::Sha256;
use crate::words::page::PAGE_BYTES;
use crate::words::reference::Reference;

/// What a snapshot of format v2 took over, and what it stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PagedReport {
    /// The snapshot it was compared with.
    pub parent: Option<ParentReport>,
    /// Pages that are not what the parent has at the same place; without a parent all that are not zero.
    pub changed_pages: u64,
    /// The same in bytes, 4,096 a page.
    pub changed_bytes: u64,
    /// Pages that packs had already: the parent's, or this snapshot's own.
    pub reused_pages: u64,
    /// The same in bytes, 4,096 a page.
    pub reused_bytes: u64,
    /// Of files that are differences: what was taken over without being read, in bytes, 4,096 a page that is not zero.
    pub inherited_bytes: u64,
    /// Pages in new packs.
    pub stored_pages: u64,
    /// Packs that the snapshot needs.
    pub packs: u64,
}

/// The snapshot that another one was compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParentReport {
    /// Its name and version.
    pub reference: Reference,
    /// SHA-256 of its manifest.
    pub manifest_digest: Sha256,
    /// How it was found.
    pub chosen: ParentChosen,
}

/// How a parent was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ParentChosen {
    /// It was asked for by name.
    Given,
    /// The directory was restored from it, or it was taken of the directory.
    Origin,
    /// It is the newest version of the name.
    Latest,
}

impl ParentChosen {
    /// As scripts know it: `snake_case`, stable.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::Origin => "origin",
            Self::Latest => "latest",
        }
    }
}

/// How many pages there are, those left out that are zero.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    pub(super) pages: u64,
    /// At the same place in the parent.
    pub(super) same: u64,
    pub(super) stored: u64,
    /// Of those at the same place, the ones that nobody read.
    pub(super) inherited: u64,
}

impl PagedReport {
    pub(super) fn new(counts: Counts, packs: usize, parent: Option<&Origin>) -> Self {
        let bytes = |pages: u64| pages.saturating_mul(PAGE_BYTES as u64);
        let changed = counts.pages - counts.same;
        // More may have been stored than there are, of a file that changed while it was read.
        let reused = counts.pages.saturating_sub(counts.stored);
        Self {
            parent: parent.map(|origin| ParentReport {
                reference: origin.reference.clone(),
                manifest_digest: origin.manifest_digest,
                chosen: origin.chosen,
            }),
            changed_pages: changed,
            changed_bytes: bytes(changed),
            reused_pages: reused,
            reused_bytes: bytes(reused),
            inherited_bytes: bytes(counts.inherited),
            stored_pages: counts.stored,
            packs: packs as u64,
        }
    }
}

//! What a snapshot became, in figures: for its report.

use std::time::Duration;

use super::capture;
use super::{Description, PagedReport, SnapshotReport};
use crate::catalog::Totals;
use crate::format::document::Document;
use crate::words::digest::Sha256;
use crate::words::placement::Placements;
use crate::words::publication::Publication;
use crate::words::reference::Reference;
use crate::words::total::total;

/// What becomes of the captured files, in figures.
#[derive(Default)]
pub(super) struct Figures {
    pub(super) stored_bytes: u64,
    pub(super) blobs_stored: u64,
    pub(super) blobs_reused: u64,
    pub(super) placements: Placements,
}

impl Figures {
    pub(super) fn of(files: &[capture::CapturedFile]) -> Self {
        let mut figures = Self::default();
        let mut blobs = Vec::with_capacity(files.len());
        for file in files {
            figures.placements.count(file.placement, file.data_size);
            if file.stored {
                figures.stored_bytes = total([figures.stored_bytes, file.data_size]);
            }
            blobs.push((&file.hashes.checksum, !file.stored));
        }
        // Of the files with one blob, one that brought it comes first.
        blobs.sort_unstable();
        blobs.dedup_by_key(|(checksum, _)| *checksum);
        let reused = blobs.iter().filter(|(_, reused)| *reused).count();
        figures.blobs_reused = reused as u64;
        figures.blobs_stored = (blobs.len() - reused) as u64;
        figures
    }
}

/// The figures of a report.
pub(super) struct Taken {
    pub(super) manifest_digest: Sha256,
    pub(super) totals: Totals,
    pub(super) directories: u64,
    pub(super) symlinks: u64,
    pub(super) whiteouts: u64,
    pub(super) figures: Figures,
    pub(super) paged: Option<PagedReport>,
}

impl Taken {
    pub(super) fn new<C>(
        figures: Figures,
        described: &Description<'_>,
        document: &Document<C>,
    ) -> Self {
        Self {
            paged: None,
            manifest_digest: Sha256::of(described.manifest),
            totals: described.totals,
            directories: document.directories.len() as u64,
            symlinks: document.symlinks.len() as u64,
            whiteouts: document.whiteouts.len() as u64,
            figures,
        }
    }

    pub(super) fn report(
        self,
        reference: Reference,
        publication: Option<Publication>,
        duration: Duration,
    ) -> SnapshotReport {
        let digest = publication
            .as_ref()
            .map_or(self.manifest_digest, |publication| {
                publication.manifest_digest
            });
        SnapshotReport {
            reference: reference.with_digest(digest),
            manifest_digest: digest,
            files: self.totals.files,
            directories: self.directories,
            symlinks: self.symlinks,
            whiteouts: self.whiteouts,
            logical_bytes: self.totals.logical_bytes,
            data_bytes: self.totals.data_bytes,
            stored_bytes: self.figures.stored_bytes,
            blobs_stored: self.figures.blobs_stored,
            blobs_reused: self.figures.blobs_reused,
            placements: self.figures.placements,
            paged: self.paged,
            publication,
            duration,
            warnings: Vec::new(),
        }
    }
}

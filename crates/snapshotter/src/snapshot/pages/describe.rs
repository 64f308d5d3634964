//! What was captured, as the map in the last pack, a document and a manifest.

use std::collections::BTreeMap;

use super::capture::Captured;
use super::origin::Origin;
use super::packing::Sealed;
use crate::catalog::Totals;
use crate::format::artifact::paged::{Facts, PagedManifest};
use crate::format::content::ContentId;
use crate::format::document::Document;
use crate::format::document::paged::{MapPlace, PackEntry, PagedDocument, PagedFile};
use crate::format::map::{Extent, Map};
use crate::snapshot::describe::cannot_describe;
use crate::snapshot::planned::{Plan, PlannedFile};
use crate::store::now;
use crate::words::digest::Sha256;
use crate::words::entry::Mtime;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::page::{PAGE_BYTES, pages};
use crate::words::placement::{Placement, Placements};
use crate::words::relpath::RelPath;

/// A snapshot's artifacts and what it amounts to.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) document: Vec<u8>,
    pub(super) manifest: Vec<u8>,
    pub(super) totals: Totals,
    pub(super) entries: Document<Option<ContentId>>,
}

/// The entries, and where their pages are; where the digests of their pages begin, and how many they are, in the order of the
/// page space.
pub(super) struct Entries {
    pub(super) document: Document<Option<ContentId>>,
    pub(super) map: Map,
    pub(super) digests: Vec<(u64, u64)>,
    pub(super) totals: Totals,
    /// Pages that the parent has at the same place.
    pub(super) same_pages: u64,
    /// Those of them that nobody read.
    pub(super) inherited: u64,
    pub(super) placements: Placements,
}

/// Lays the files one after the other in the order that the document has them.
pub(super) fn entries(plan: Plan, captured: Vec<Captured>) -> Result<Entries> {
    let data = |file: &Captured| {
        file.map
            .pages()
            .saturating_mul(PAGE_BYTES as u64)
            .min(file.size)
    };
    let inodes = captured.iter().map(|file| (file.size, data(file)));
    let totals = Totals::new(plan.names(), inodes);
    let mut placements = Placements::default();
    for file in &captured {
        let is_there = file.same_pages == file.map.pages();
        let placement = if is_there {
            Placement::Present
        } else {
            Placement::Copy
        };
        placements.count(placement, data(file));
    }
    let mut files: Vec<(PlannedFile, Captured)> = plan.files.into_iter().zip(captured).collect();
    files.sort_unstable_by(|(a, _), (b, _)| a.path.cmp(&b.path));
    let (mut map, mut digests, mut start) = (Map::default(), Vec::new(), 0_u64);
    for (_, file) in &files {
        for extent in file.map.iter() {
            let extent = Extent {
                start: start.saturating_add(extent.start),
                ..extent
            };
            map.push(extent).map_err(|error| not_in_v2(&error))?;
        }
        digests.push((file.digests, file.map.pages()));
        start = start.saturating_add(pages(file.size));
    }
    let same_pages = files.iter().map(|(_, file)| file.same_pages).sum();
    let inherited = files.iter().map(|(_, file)| file.inherited).sum();
    let mut document = Document {
        files: Vec::with_capacity(files.len()),
        directories: plan.directories,
        symlinks: plan.symlinks,
        whiteouts: plan.whiteouts,
    };
    for (planned, file) in files {
        let first = planned.path.clone();
        for other in planned.others {
            document
                .files
                .push(entry(other, Some(first.clone()), planned.read_only, &file));
        }
        document
            .files
            .push(entry(first, None, planned.read_only, &file));
    }
    document.sort();
    Ok(Entries {
        document,
        map,
        digests,
        totals,
        same_pages,
        inherited,
        placements,
    })
}

fn entry(
    path: RelPath,
    hardlink_of: Option<RelPath>,
    read_only: bool,
    file: &Captured,
) -> PagedFile {
    PagedFile {
        path,
        content: Some(file.content),
        read_only,
        size: file.size,
        attributes: file.attributes.clone(),
        hardlink_of,
    }
}

/// Which packs the document names, and where in the first of them the map is.
pub(super) type Named = (Vec<PackEntry>, Option<MapPlace>);

/// The packs by the numbers that a map has them by while it is made: the parent's, then those of this capture.
pub(super) fn all_packs(origin: Option<&Origin>, sealed: &[Sealed<'_>]) -> Vec<PackEntry> {
    let parents = origin.map_or(&[][..], |origin| &origin.document.packs);
    let own = sealed.iter().map(|pack| PackEntry {
        id: pack.layout.id(),
        pages: pack.layout.pages(),
    });
    parents.iter().copied().chain(own).collect()
}

/// Writes document and manifest.
pub(super) fn describe(
    entries: Entries,
    (packs, map): Named,
    origin: Option<&Origin>,
    annotations: &BTreeMap<String, String>,
) -> Result<Described> {
    let document = PagedDocument {
        packs,
        map,
        entries: entries.document,
    };
    let bytes = document.encode().map_err(cannot_describe)?;
    let facts = Facts {
        created: Some(Mtime {
            seconds: now() / 1_000_000_000,
            nanoseconds: 0,
        }),
        files: Some(entries.totals.files),
        bytes: Some(entries.totals.logical_bytes),
        parent: origin.map(|origin| origin.manifest_digest),
    };
    let annotations = facts
        .annotations(annotations)
        .map_err(|error| Error::invalid(error.to_string()))?;
    let name = (Sha256::of(&bytes), bytes.len() as u64);
    let manifest = PagedManifest::build(name, &[], &annotations);
    Ok(Described {
        document: bytes,
        manifest: manifest.map_err(|error| not_in_v2(&error))?,
        totals: entries.totals,
        entries: document.entries,
    })
}

pub(super) fn not_in_v2(error: &dyn std::error::Error) -> Error {
    let text = format!("the snapshot cannot be described in format v2: {error}");
    Error::new(ErrorKind::Unsupported, text)
}

//! The snapshot that a capture starts from: where its pages are, and the list of their digests. Nothing else of it is believed
//! or even read: not its files, which others may have written, and not what a filesystem says of them.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::Mutex;

use super::digests::DigestReader;
use super::index::{Index, Known};
use super::rescue::Rescued;
use crate::format::content::PageDigest;
use crate::format::map::{Extent, Map};
use crate::lock::lock;
use crate::words::page::PAGE_BYTES;
use crate::words::relpath::RelPath;

#[derive(Debug)]
pub(super) struct Parent {
    map: Map,
    /// Of each pack, whether what is in it is stored anew.
    given_up: Vec<bool>,
    /// How many pages are mapped before each extent.
    ranks: Vec<u64>,
    mapped: u64,
    /// The digests of the mapped pages, in the order of the page space.
    digests: Mutex<DigestReader>,
    /// Where each file is in the page space.
    files: HashMap<RelPath, Place>,
    /// Pages that are stored anew and that the input does not have.
    rescued: Option<Rescued>,
}

/// Where a file is in the page space, and its size in bytes.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) pages: Range<u64>,
    pub(super) size: u64,
}

impl Parent {
    pub(super) fn new(
        map: Map,
        given_up: Vec<bool>,
        digests: std::fs::File,
        files: HashMap<RelPath, Place>,
    ) -> Self {
        let mut mapped = 0;
        let before = |extent: Extent| {
            let before = mapped;
            mapped += extent.pages;
            before
        };
        let ranks = map.iter().map(before).collect();
        Self {
            given_up,
            ranks,
            mapped,
            digests: Mutex::new(DigestReader::new(digests)),
            files,
            rescued: None,
            map,
        }
    }

    /// How many packs it names.
    pub(super) fn packs(&self) -> u32 {
        u32::try_from(self.given_up.len()).unwrap_or(u32::MAX)
    }

    /// What is mapped of these pages and stored anew.
    pub(super) fn given_up(&self, pages: Range<u64>) -> impl Iterator<Item = (Extent, u64)> + '_ {
        let mapped = self.mapped(pages);
        mapped.filter(|(part, _)| !self.is_kept(part.pack))
    }

    pub(super) fn rescue(&mut self, rescued: Rescued) {
        self.rescued = Some(rescued);
    }

    /// Reads a page that is stored anew, by its number among those that are mapped.
    pub(super) fn rescued(&self, number: u64, page: &mut [u8; PAGE_BYTES]) -> io::Result<()> {
        let rescued = self.rescued.as_ref().ok_or(io::ErrorKind::NotFound)?;
        rescued.read(number, page)
    }

    pub(super) fn is_kept(&self, pack: u32) -> bool {
        self.given_up.get(pack as usize) == Some(&false)
    }

    pub(super) fn map(&self) -> &Map {
        &self.map
    }

    /// Makes its pages known.
    pub(super) fn fill(&self, index: &mut Index) -> io::Result<()> {
        let mut digests = lock(&self.digests);
        for number in 0..self.mapped {
            index.add(&digests.get(number, self.mapped)?, Known::Parent(number));
        }
        Ok(())
    }

    /// The digest of a mapped page, by its number among them.
    pub(super) fn digest(&self, number: u64) -> io::Result<PageDigest> {
        lock(&self.digests).one(number)
    }

    /// The pack and the page in it that a mapped page is; `None`: it is stored anew.
    pub(super) fn place(&self, number: u64) -> Option<(u32, u64)> {
        let after = self.ranks.partition_point(|rank| *rank <= number);
        let at = after.checked_sub(1)?;
        let extent = self.map.get(at)?;
        let within = number - self.ranks[at];
        let is_there = within < extent.pages && self.is_kept(extent.pack);
        is_there.then(|| (extent.pack, extent.page + within))
    }

    /// The size of the file of this path, if there is one.
    pub(super) fn size(&self, path: &RelPath) -> Option<u64> {
        self.files.get(path).map(|place| place.size)
    }

    /// Where the file of this path is in the page space.
    pub(super) fn pages_of(&self, path: &RelPath) -> Option<Range<u64>> {
        self.files.get(path).map(|place| place.pages.clone())
    }

    /// What is mapped of these pages, ascending, with the number of each one's first among the mapped pages.
    pub(super) fn mapped(&self, pages: Range<u64>) -> impl Iterator<Item = (Extent, u64)> + '_ {
        let first = self.map.first_after(pages.start);
        let parts = self.map.range(pages).zip(first..);
        parts.filter_map(|(part, at)| {
            let whole = self.map.get(at)?;
            Some((part, self.ranks[at] + (part.start - whole.start)))
        })
    }

    /// The digest of a mapped page, where those that follow it are asked for next.
    pub(super) fn next_digest(&self, number: u64) -> io::Result<PageDigest> {
        lock(&self.digests).get(number, self.mapped)
    }

    /// For comparing the file of this path page by page, if there is one.
    pub(super) fn same_place(&self, path: &RelPath) -> Option<SamePlace> {
        let range = self.pages_of(path)?;
        Some(SamePlace {
            extent: self.map.first_after(range.start),
            range,
        })
    }
}

/// Goes through the pages of a file of the parent.
#[derive(Debug)]
pub(super) struct SamePlace {
    range: Range<u64>,
    /// The number of the extent that is looked at.
    extent: usize,
}

impl SamePlace {
    /// Where the parent has the page that is at this place of the file, if it is the same. Places ascend.
    pub(super) fn find(
        &mut self,
        parent: &Parent,
        index: u64,
        digest: &PageDigest,
    ) -> io::Result<Option<(u32, u64)>> {
        let page = self.range.start + index;
        if page >= self.range.end {
            return Ok(None);
        }
        while parent
            .map
            .get(self.extent)
            .is_some_and(|extent| extent.end() <= page)
        {
            self.extent += 1;
        }
        let Some(extent) = parent
            .map
            .get(self.extent)
            .filter(|extent| extent.start <= page)
        else {
            return Ok(None);
        };
        let within = page - extent.start;
        let number = parent.ranks[self.extent] + within;
        let there = lock(&parent.digests).get(number, parent.mapped)?;
        let is_same = there == *digest && parent.is_kept(extent.pack);
        Ok(is_same.then(|| (extent.pack, extent.page + within)))
    }
}

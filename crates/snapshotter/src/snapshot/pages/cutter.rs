//! Where each page goes, decided in the order of the page space, so that the same files and the same parent give the same
//! packs whatever the threads do.
//!
//! A page that the parent has at the same place stays where it is. One that this capture has stored already, or that the parent
//! has anywhere, is referred to. Every other one is new and goes into the next frame. A page is the same only if all of its
//! digest is: the index alone is not believed.

use std::io;
use std::ops::Range;

use super::digests::Digests;
use super::index::{Index, Known};
use super::parent::{Parent, SamePlace};
use crate::format::content::{ContentHasher, ContentId, PageDigest, page_digest};
use crate::format::map::{Extent, Map, MapError};
use crate::snapshot::planned::PlannedFile;
use crate::words::page::PAGE_BYTES;

/// What is known of a file whose pages are being placed.
#[derive(Debug)]
pub(super) struct FilePages {
    /// Where its pages are, counted from its first. Packs of the parent have the parent's numbers, those of this capture the
    /// numbers after these.
    pub(super) map: Map,
    content: ContentHasher,
    /// Its first page's digest in the list of this capture.
    pub(super) digests: u64,
    same: Option<SamePlace>,
    /// How many pages the parent has at the same place.
    pub(super) same_pages: u64,
    /// What is left to take over unread, in the parent's page space.
    inherits: Range<u64>,
    /// Where its first page is there.
    first: u64,
    /// How many pages were taken over unread.
    pub(super) inherited: u64,
    /// Why its pages are not all there.
    short: Option<io::Error>,
}

impl FilePages {
    /// Gives up what comes of it.
    pub(super) fn end_short(&mut self, why: Option<io::Error>) {
        if let Some(why) = why {
            self.short.get_or_insert(why);
        }
    }

    pub(super) fn is_short(&self) -> bool {
        self.short.is_some()
    }

    pub(super) fn short(&mut self) -> Option<io::Error> {
        self.short.take()
    }

    /// What the file's bytes are called, once all of its pages have come.
    pub(super) fn content(&self) -> ContentId {
        self.content.finish()
    }
}

/// A page that is not zero.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page<'b> {
    /// Its place in its file.
    pub(super) index: u64,
    pub(super) digest: PageDigest,
    pub(super) bytes: &'b [u8],
}

/// A frame that is full, or the last.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) number: u64,
    pub(super) bytes: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Cutter<'a> {
    parent: Option<&'a Parent>,
    index: Index,
    /// Of all pages that are not zero, file after file.
    pub(super) all: Digests,
    /// Of those that are stored, in their order.
    stored: Digests,
    /// The number of the first new pack.
    first: u32,
    /// Pages of a pack.
    pack_pages: u64,
    frame_bytes: usize,
    frame: Vec<u8>,
    frames: u64,
}

impl<'a> Cutter<'a> {
    pub(super) fn new(
        parent: Option<&'a Parent>,
        index: Index,
        lists: [Digests; 2],
        pack_pages: u64,
        frame_bytes: usize,
    ) -> Self {
        let [all, stored] = lists;
        Self {
            parent,
            index,
            all,
            stored,
            first: parent.map_or(0, Parent::packs),
            pack_pages,
            frame_bytes,
            frame: Vec::new(),
            frames: 0,
        }
    }

    /// Begins a file of this size. What a difference does not have it takes over from the parent.
    pub(super) fn file(&self, planned: &PlannedFile, size: u64) -> FilePages {
        let path = &planned.path;
        let inherits = self.parent.filter(|_| planned.diff);
        let inherits = inherits.and_then(|parent| parent.pages_of(path));
        let inherits = inherits.unwrap_or_default();
        FilePages {
            first: inherits.start,
            inherits,
            inherited: 0,
            map: Map::default(),
            content: ContentHasher::new(size),
            digests: self.all.len(),
            same: self.parent.and_then(|parent| parent.same_place(path)),
            same_pages: 0,
            short: None,
        }
    }

    /// Takes over what a difference does not have before a page, from where that was last done.
    fn inherit(
        &mut self,
        file: &mut FilePages,
        before: u64,
        full: &mut Vec<Frame>,
    ) -> io::Result<()> {
        let end = file.first.saturating_add(before).min(file.inherits.end);
        let Some(parent) = self.parent.filter(|_| file.inherits.start < end) else {
            return Ok(());
        };
        for (part, number) in parent.mapped(file.inherits.start..end) {
            file.inherited += part.pages;
            if parent.is_kept(part.pack) {
                self.refer(parent, file, part, number)?;
            } else {
                self.store_anew(parent, file, part, number, full)?;
            }
        }
        file.inherits.start = end;
        Ok(())
    }

    /// Refers to pages of the parent at the same place.
    fn refer(
        &mut self,
        parent: &Parent,
        file: &mut FilePages,
        part: Extent,
        number: u64,
    ) -> io::Result<()> {
        let start = part.start - file.first;
        file.map.push(Extent { start, ..part }).map_err(in_map)?;
        for page in 0..part.pages {
            let digest = parent.next_digest(number + page)?;
            file.content.page(start + page, &digest);
            self.all.push(digest)?;
        }
        file.same_pages += part.pages;
        Ok(())
    }

    /// Places pages of packs that are given up as if the file had them.
    fn store_anew(
        &mut self,
        parent: &Parent,
        file: &mut FilePages,
        part: Extent,
        number: u64,
        full: &mut Vec<Frame>,
    ) -> io::Result<()> {
        let mut bytes = [0; PAGE_BYTES];
        for page in 0..part.pages {
            parent.rescued(number + page, &mut bytes)?;
            let digest = parent.next_digest(number + page)?;
            if page_digest(&bytes) != Some(digest) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let page = Page {
                index: part.start - file.first + page,
                digest,
                bytes: &bytes,
            };
            self.put(file, &page, full)?;
        }
        Ok(())
    }

    /// Places the next pages of a file, which were read. Behind the last of them is what a difference does not have. Frames that
    /// become full are appended to `full`.
    pub(super) fn place_all<'b>(
        &mut self,
        file: &mut FilePages,
        pages: impl Iterator<Item = (u64, Option<Page<'b>>)>,
        is_last: bool,
        full: &mut Vec<Frame>,
    ) -> io::Result<()> {
        for (index, page) in pages {
            self.inherit(file, index, full)?;
            let after = file.first.saturating_add(index).saturating_add(1);
            file.inherits.start = file.inherits.start.max(after);
            if let Some(page) = page {
                self.put(file, &page, full)?;
            }
        }
        if is_last {
            self.inherit(file, u64::MAX, full)?;
        }
        Ok(())
    }

    fn put(
        &mut self,
        file: &mut FilePages,
        page: &Page<'_>,
        full: &mut Vec<Frame>,
    ) -> io::Result<()> {
        let (pack, at) = self
            .find(file, page)?
            .map_or_else(|| self.store(page, full), Ok)?;
        file.content.page(page.index, &page.digest);
        self.all.push(page.digest)?;
        let extent = Extent {
            start: page.index,
            pages: 1,
            pack,
            page: at,
        };
        file.map.push(extent).map_err(in_map)
    }

    fn find(&mut self, file: &mut FilePages, page: &Page<'_>) -> io::Result<Option<(u32, u64)>> {
        if let (Some(parent), Some(same)) = (self.parent, &mut file.same)
            && let Some(place) = same.find(parent, page.index, &page.digest)?
        {
            file.same_pages += 1;
            return Ok(Some(place));
        }
        Ok(match (self.index.get(&page.digest), self.parent) {
            (Some(Known::Stored(number)), _) => {
                let is_same = self.stored.get(number)? == page.digest;
                is_same.then(|| self.stored_at(number))
            }
            (Some(Known::Parent(number)), Some(parent)) => {
                let is_same = parent.digest(number)? == page.digest;
                is_same.then(|| parent.place(number)).flatten()
            }
            _ => None,
        })
    }

    fn stored_at(&self, number: u64) -> (u32, u64) {
        // A document has fewer packs than that.
        let pack = u32::try_from(number / self.pack_pages).unwrap_or(u32::MAX);
        (self.first.saturating_add(pack), number % self.pack_pages)
    }

    fn store(&mut self, page: &Page<'_>, full: &mut Vec<Frame>) -> io::Result<(u32, u64)> {
        let number = self.stored.len();
        self.stored.push(page.digest)?;
        self.index.add(&page.digest, Known::Stored(number));
        if self.frame.capacity() == 0 {
            self.frame.reserve_exact(self.frame_bytes);
        }
        self.frame.extend_from_slice(page.bytes);
        let padded = self.frame.len().next_multiple_of(PAGE_BYTES);
        self.frame.resize(padded, 0);
        if self.frame.len() == self.frame_bytes {
            full.push(self.take_frame());
        }
        Ok(self.stored_at(number))
    }

    /// The last frame, if there is one that is not full.
    pub(super) fn last_frame(&mut self) -> Option<Frame> {
        (!self.frame.is_empty()).then(|| self.take_frame())
    }

    fn take_frame(&mut self) -> Frame {
        let number = self.frames;
        self.frames += 1;
        Frame {
            number,
            bytes: std::mem::take(&mut self.frame),
        }
    }

    /// How many pages are in new packs.
    pub(super) fn stored(&self) -> u64 {
        self.stored.len()
    }
}

fn in_map(error: MapError) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, error)
}

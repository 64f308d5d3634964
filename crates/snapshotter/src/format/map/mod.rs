//! The map: which page of which pack is at each place of the page space. It is flat, so nothing else has to be read to know
//! where a page is, and it is held as it is written: 16 bytes an extent, sorted, each extent as long as it can be.

mod decode;
mod encode;

#[cfg(test)]
mod tests;

pub use decode::Decoder;

use std::ops::Range;

use thiserror::Error;

use super::pack::MAX_PACK_PAGES;
use crate::words::page::MAX_PAGES;

/// The most extents of a map.
pub const MAX_EXTENTS: usize = 16 * 1024 * 1024;

/// How many bits of an extent's place are its first page.
const START_BITS: u32 = MAX_PAGES.trailing_zeros();
/// The most packs that a map can name while it is made; a document has fewer.
const MAX_MAP_PACKS: u32 = 1 << (u64::BITS - START_BITS);

/// A map that cannot be one, or bytes that are none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MapError {
    /// More extents than [`MAX_EXTENTS`].
    #[error("{count} extents are more than a map may have (16 Mi)")]
    TooMany {
        /// How many there are.
        count: u64,
    },
    /// An extent that cannot be where it is.
    #[error("extent {number} of the map is not valid: {what}")]
    Extent {
        /// Which, counted from 0.
        number: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// Bytes that are not a map's.
    #[error("the map is malformed: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// A pack that no extent uses.
    #[error("the map does not use the pack number {pack}")]
    Unused {
        /// Which, counted from 0.
        pack: u32,
    },
}

/// A run of pages that lie in a pack as they lie in the page space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its first page in the page space.
    pub start: u64,
    /// How many it has.
    pub pages: u64,
    /// The pack that has them.
    pub pack: u32,
    /// The first of them there.
    pub page: u64,
}

impl Extent {
    /// The first page after it.
    pub fn end(&self) -> u64 {
        self.start + self.pages
    }

    /// What of it is within `range`; nothing may be.
    fn within(self, range: &Range<u64>) -> Self {
        let start = self.start.max(range.start);
        Self {
            start,
            pages: self.end().min(range.end).saturating_sub(start),
            page: self.page + (start - self.start),
            ..self
        }
    }
}

/// An extent in two words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packed {
    /// The pack above, the first page below.
    place: u64,
    page: u32,
    pages: u32,
}

const _: () = assert!(size_of::<Packed>() == 16 && MAX_PACK_PAGES <= u32::MAX as u64);

impl Packed {
    fn start(self) -> u64 {
        self.place & (MAX_PAGES - 1)
    }

    fn pack(self) -> u32 {
        (self.place >> START_BITS) as u32
    }

    fn end(self) -> u64 {
        self.start() + u64::from(self.pages)
    }

    fn end_in_pack(self) -> u64 {
        u64::from(self.page) + u64::from(self.pages)
    }

    /// Whether `next` goes on where it ends, here and there.
    fn continues_in(self, next: Self) -> bool {
        self.end() == next.start()
            && self.pack() == next.pack()
            && self.end_in_pack() == u64::from(next.page)
    }

    fn with_pack(self, pack: u32) -> Self {
        Self {
            place: u64::from(pack) << START_BITS | self.start(),
            ..self
        }
    }
}

impl From<Packed> for Extent {
    fn from(packed: Packed) -> Self {
        Self {
            start: packed.start(),
            pages: packed.pages.into(),
            pack: packed.pack(),
            page: packed.page.into(),
        }
    }
}

/// Where every page is that is not zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map {
    extents: Vec<Packed>,
}

impl Map {
    /// Adds what comes next in the page space. It becomes a part of the last extent where it continues that.
    ///
    /// # Errors
    /// When it is empty, not after all others, more than a page space or pack can hold, or one too many.
    pub fn push(&mut self, extent: Extent) -> Result<(), MapError> {
        let packed = self.pack(extent).map_err(|what| MapError::Extent {
            number: self.extents.len(),
            what,
        })?;
        if let Some(last) = self.extents.last_mut()
            && last.continues_in(packed)
        {
            last.pages += packed.pages;
            return Ok(());
        }
        if self.extents.len() == MAX_EXTENTS {
            let count = MAX_EXTENTS as u64 + 1;
            return Err(MapError::TooMany { count });
        }
        self.extents.push(packed);
        Ok(())
    }

    fn pack(&self, extent: Extent) -> Result<Packed, &'static str> {
        let fits = |start: u64, pages: u64, limit: u64| {
            start.checked_add(pages).is_some_and(|end| end <= limit)
        };
        if extent.pages == 0 {
            return Err("it is empty");
        }
        if extent.start < self.end() {
            return Err("it does not come after the one before");
        }
        if !fits(extent.start, extent.pages, MAX_PAGES) {
            return Err("it passes the page space");
        }
        if !fits(extent.page, extent.pages, MAX_PACK_PAGES) || extent.pack >= MAX_MAP_PACKS {
            return Err("it passes its pack");
        }
        // Both are at most as many as a pack has.
        let packed = Packed {
            place: extent.start,
            page: extent.page as u32,
            pages: extent.pages as u32,
        };
        Ok(packed.with_pack(extent.pack))
    }

    /// The first page after the last extent.
    fn end(&self) -> u64 {
        self.extents.last().map_or(0, |last| last.end())
    }

    /// How many extents it has.
    pub fn len(&self) -> usize {
        self.extents.len()
    }

    /// Whether all pages are zero. Such a map is not written.
    pub fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// How many pages it maps, those of a pack that are mapped again counted again.
    pub fn pages(&self) -> u64 {
        self.extents
            .iter()
            .map(|extent| u64::from(extent.pages))
            .sum()
    }

    /// All extents, ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Extent> + '_ {
        self.extents.iter().map(|extent| Extent::from(*extent))
    }

    /// The extent with this number, from 0.
    pub fn get(&self, number: usize) -> Option<Extent> {
        self.extents.get(number).map(|extent| Extent::from(*extent))
    }

    /// The number of the first extent that ends after `page`.
    pub fn first_after(&self, page: u64) -> usize {
        self.extents.partition_point(|extent| extent.end() <= page)
    }

    /// The pack and the page in it that is at `page` of the page space; nothing: zeros.
    pub fn at(&self, page: u64) -> Option<(u32, u64)> {
        let extent = self.range(page..page.checked_add(1)?).next()?;
        Some((extent.pack, extent.page))
    }

    /// What is in `pages` of the page space, ascending. What is between the extents is zero.
    pub fn range(&self, pages: Range<u64>) -> impl Iterator<Item = Extent> + '_ {
        let first = self.first_after(pages.start);
        let from = self.extents[first..].iter();
        let end = if pages.is_empty() { 0 } else { pages.end };
        let inside = from.take_while(move |extent| extent.start() < end);
        inside.map(move |extent| Extent::from(*extent).within(&pages))
    }

    /// The same map with its packs numbered as a document has them: `first`, which has the map, before the others by the
    /// first page that uses them. Which those were is said beside it.
    pub fn in_order(mut self, first: u32) -> (Self, Vec<u32>) {
        let mut order = vec![first];
        let mut numbers = vec![None; MAX_MAP_PACKS as usize];
        let mut number = |pack: u32, order: &mut Vec<u32>| {
            *numbers[pack as usize].get_or_insert_with(|| {
                if pack == first {
                    return 0;
                }
                order.push(pack);
                order.len() as u32 - 1
            })
        };
        for extent in &mut self.extents {
            *extent = extent.with_pack(number(extent.pack(), &mut order));
        }
        (self, order)
    }
}

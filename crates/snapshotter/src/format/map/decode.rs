//! A map out of bytes that come in pieces, cut anywhere. The columns fill the extents one after the other, so that nothing is
//! held but what is known of them, and what is known is refused as soon as it is wrong.

use super::encode::{COLUMNS, Column};
use super::{MAX_EXTENTS, Map, MapError, Packed};
use crate::format::pack::MAX_PACK_PAGES;
use crate::words::page::MAX_PAGES;

/// Of the count and of each column's length, in bytes.
const NUMBER_BYTES: usize = 4;

/// Decodes a map of a document with these packs.
#[derive(Debug)]
pub struct Decoder<'p> {
    packs: &'p [u64],
    page_space: u64,
    /// Bytes that are still to come.
    left: u64,
    state: State,
    /// A number that is not complete yet.
    number: u64,
    filled: usize,
    pub(super) extents: Vec<Packed>,
    count: usize,
    /// The columns before this one are complete.
    column: usize,
    column_left: usize,
    /// The extent that the next number is of.
    at: usize,
    end: u64,
    ends: Vec<u64>,
    /// The highest pack that was named.
    highest: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Count,
    Length,
    Numbers,
    Done,
}

impl<'p> Decoder<'p> {
    /// Of a map of `length` bytes, a page space of so many pages, and the data pages of each pack of the document.
    pub fn new(length: u64, page_space: u64, packs: &'p [u64]) -> Self {
        Self {
            packs,
            page_space: page_space.min(MAX_PAGES),
            left: length,
            state: State::Count,
            number: 0,
            filled: 0,
            extents: Vec::new(),
            count: 0,
            column: 0,
            column_left: 0,
            at: 0,
            end: 0,
            ends: vec![0; packs.len()],
            highest: 0,
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When they are not a map's, or not one that this document can have.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), MapError> {
        if bytes.len() as u64 > self.left {
            return Err(malformed("it has more bytes than it should"));
        }
        bytes.iter().try_for_each(|byte| {
            self.left -= 1;
            match self.state {
                State::Count | State::Length => self.fixed(*byte),
                State::Numbers => self.leb128(*byte),
                State::Done => Err(malformed("bytes follow it")),
            }
        })
    }

    /// Says that there are no more bytes.
    ///
    /// # Errors
    /// When it is cut short, or a pack is not used.
    pub fn finish(self) -> Result<Map, MapError> {
        if self.state != State::Done || self.left > 0 {
            return Err(malformed("it is cut short"));
        }
        let next = self.highest + 1;
        if (next as usize) < self.packs.len() {
            return Err(MapError::Unused { pack: next });
        }
        let extents = self.extents;
        Ok(Map { extents })
    }

    fn fixed(&mut self, byte: u8) -> Result<(), MapError> {
        self.number |= u64::from(byte) << (8 * self.filled);
        self.filled += 1;
        if self.filled < NUMBER_BYTES {
            return Ok(());
        }
        self.filled = 0;
        let number = std::mem::take(&mut self.number);
        match self.state {
            State::Count => self.begin(number),
            _ => self.begin_column(number),
        }
    }

    fn begin(&mut self, count: u64) -> Result<(), MapError> {
        if count > MAX_EXTENTS as u64 {
            return Err(MapError::TooMany { count });
        }
        if count == 0 {
            return Err(malformed("it has no extents"));
        }
        if self.packs.is_empty() {
            return Err(malformed("the document names no packs"));
        }
        self.count = count as usize;
        self.state = State::Length;
        Ok(())
    }

    fn begin_column(&mut self, length: u64) -> Result<(), MapError> {
        // A number has a byte at least, in this column and in those that follow it.
        let others = (COLUMNS.len() - 1 - self.column) * (NUMBER_BYTES + self.count);
        let room = self.left.checked_sub(others as u64);
        let fits = room.is_some_and(|room| length == room || (length < room && others > 0));
        if !fits || length < self.count as u64 {
            return Err(malformed("a column has a length that it cannot have"));
        }
        if self.column == 0 {
            self.extents.reserve_exact(self.count);
        }
        self.column_left = length as usize;
        self.at = 0;
        self.end = 0;
        self.state = State::Numbers;
        Ok(())
    }

    fn leb128(&mut self, byte: u8) -> Result<(), MapError> {
        if self.column_left == 0 {
            return Err(malformed("a number passes its column"));
        }
        self.column_left -= 1;
        let low = u64::from(byte & 0x7f);
        if self.filled == 9 && byte > 1 {
            return Err(malformed("a number has more than 64 bits"));
        }
        if self.filled > 0 && byte == 0 {
            return Err(malformed("a number is not in its shortest form"));
        }
        self.number |= low << (7 * self.filled);
        self.filled += 1;
        if byte & 0x80 != 0 {
            return Ok(());
        }
        self.filled = 0;
        let number = std::mem::take(&mut self.number);
        self.take(number).map_err(|what| MapError::Extent {
            number: self.at,
            what,
        })?;
        self.at += 1;
        self.end_column()
    }

    fn end_column(&mut self) -> Result<(), MapError> {
        if self.at < self.count {
            return Ok(());
        }
        if self.column_left > 0 {
            return Err(malformed("a column has more numbers than extents"));
        }
        self.column += 1;
        self.state = if self.column == COLUMNS.len() {
            State::Done
        } else {
            State::Length
        };
        Ok(())
    }

    fn take(&mut self, number: u64) -> Result<(), &'static str> {
        match COLUMNS[self.column] {
            Column::Gap => self.gap(number),
            Column::Pages => self.pages(number),
            Column::Pack => self.pack(number),
            Column::Page => self.page(number),
        }
    }

    /// A gap stays where the first page will be until the pages before it are known.
    fn gap(&mut self, gap: u64) -> Result<(), &'static str> {
        self.end = self.end.saturating_add(gap).saturating_add(1);
        if self.end > self.page_space {
            return Err("it passes the page space");
        }
        self.extents.push(Packed {
            place: gap,
            page: 0,
            pages: 1,
        });
        Ok(())
    }

    fn pages(&mut self, less_one: u64) -> Result<(), &'static str> {
        let extent = &mut self.extents[self.at];
        if less_one >= MAX_PACK_PAGES {
            return Err("it has more pages than a pack");
        }
        let start = self.end + extent.place;
        let end = start + less_one + 1;
        if end > self.page_space {
            return Err("it passes the page space");
        }
        extent.place = start;
        extent.pages = less_one as u32 + 1;
        self.end = end;
        Ok(())
    }

    fn pack(&mut self, pack: u64) -> Result<(), &'static str> {
        if pack >= self.packs.len() as u64 {
            return Err("it names a pack that is not in the document");
        }
        let pack = pack as u32;
        if pack > self.highest + 1 {
            return Err("it uses a pack before one that comes first in the document");
        }
        self.highest = self.highest.max(pack);
        let extent = &mut self.extents[self.at];
        *extent = extent.with_pack(pack);
        Ok(())
    }

    fn page(&mut self, zig_zag: u64) -> Result<(), &'static str> {
        let difference = (zig_zag >> 1) as i64 ^ -((zig_zag & 1) as i64);
        let mut extent = self.extents[self.at];
        let pack = extent.pack() as usize;
        let page = self.ends[pack].checked_add_signed(difference);
        let end = page.and_then(|page| page.checked_add(extent.pages.into()));
        let (Some(page), Some(end)) = (page, end.filter(|end| *end <= self.packs[pack])) else {
            return Err("it passes its pack");
        };
        extent.page = u32::try_from(page).map_err(|_| "it passes its pack")?;
        self.ends[pack] = end;
        let before = self.at.checked_sub(1).map(|before| self.extents[before]);
        if before.is_some_and(|before| before.continues_in(extent)) {
            return Err("it continues the one before, and is not one with it");
        }
        self.extents[self.at] = extent;
        Ok(())
    }
}

fn malformed(what: &'static str) -> MapError {
    MapError::Malformed { what }
}

//! The document of format v2: the entries of format v1, whose bytes are pages of packs that it names. It is compressed as one
//! zstd frame. What comes out of [`PagedDocument::parse`] names packs and a map as a document can; whether they are those of
//! the packs is looked at when these are there, by [`check_packs`](PagedDocument::check_packs).

mod read;

#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::collections::HashSet;
use std::io::{self, BufReader, BufWriter, Read};
use std::ops::Range;

use super::{Document, DocumentError, FileEntry, PIECE, SHORT, check_length, write};
use crate::format::content::ContentId;
use crate::format::pack::{FramePages, Layout, MAX_FRAMES, MAX_PACK_PAGES, PackId};
use crate::format::zstd::{Header, MAX_HEADER_BYTES, Reader, ZstdError};
use crate::words::page::{MAX_PAGES, pages};

/// The most packs of a document.
pub const MAX_PACKS: usize = 256;
/// The most frames of all its packs together.
pub const MAX_ALL_FRAMES: u64 = 4 * 1024 * 1024;

const FORMAT: u64 = 2;
const LEVEL: i32 = 3;

/// A file of format v2. Its content id is missing where it was captured without all of its pages.
pub type PagedFile = FileEntry<Option<ContentId>>;

/// A document of whichever format.
#[cfg_attr(
    not(feature = "registry"),
    expect(
        dead_code,
        reason = "only a registry gives one of which the format is not known"
    )
)]
#[derive(Clone, Debug)]
pub enum AnyDocument {
    /// Of format v1.
    V1(Document),
    /// Of format v2.
    V2(PagedDocument),
}

/// A pack that a document names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackEntry {
    /// Its name.
    pub id: PackId,
    /// How many data pages it has.
    pub pages: u64,
}

/// Where the map is: in frames of the first pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapPlace {
    /// The first of them, by its number in the table.
    pub frame: u32,
    /// How many there are.
    pub frames: u32,
}

/// All entries of a snapshot, and where their bytes are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PagedDocument {
    /// The one with the map first, then by the first page of the page space that uses them.
    pub packs: Vec<PackEntry>,
    /// Where the map is, unless there are no packs because all pages are zero.
    pub map: Option<MapPlace>,
    /// The entries, the order of whose files is that of the page space.
    pub entries: Document<Option<ContentId>>,
}

impl PagedDocument {
    /// Reads and checks a document that is in memory.
    ///
    /// # Errors
    /// When it is malformed, inconsistent, over a limit, or needs what this release does not know.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        Self::read(bytes, bytes.len() as u64)
    }

    /// Reads and checks a document of `length` bytes as it comes.
    ///
    /// # Errors
    /// Those of [`parse`](Self::parse), and of `stream`.
    pub fn read(stream: impl Read, length: u64) -> Result<Self, DocumentError> {
        check_length(length)?;
        let mut stream = stream.take(length);
        let mut start = Vec::with_capacity(MAX_HEADER_BYTES);
        stream
            .by_ref()
            .take(MAX_HEADER_BYTES as u64)
            .read_to_end(&mut start)?;
        let header = Header::parse(&start)?.ok_or(ZstdError::Truncated)?;
        check_length(header.content)?;
        let frame = start.as_slice().chain(stream);
        let document = Self::read_frame(frame, header.content, length)?;
        document.validate()?;
        Ok(document)
    }

    fn read_frame(frame: impl Read, content: u64, length: u64) -> Result<Self, DocumentError> {
        let mut reader = Reader::new(frame, content..=content)?;
        let document = if content <= SHORT {
            let mut bytes = Vec::with_capacity(content as usize);
            reader.by_ref().take(content).read_to_end(&mut bytes)?;
            read::read(&bytes)
        } else {
            // Room is made for what so few bytes can be: hardly a document is shorter by more.
            let room = content.min(length.saturating_mul(32));
            let stream = reader.by_ref().take(content);
            read::read_stream(BufReader::with_capacity(PIECE, stream), room)
        }?;
        reader.finish()?;
        Ok(document)
    }

    /// Checks and writes the document, entries in the order they are in.
    ///
    /// # Errors
    /// When it is inconsistent or over a limit, or an mtime is outside the years 0 to 9999.
    pub fn encode(&self) -> Result<Vec<u8>, DocumentError> {
        self.validate()?;
        let mut length = write::Length::default();
        self.write_json(&mut length)?;
        check_length(length.0)?;
        let mut frame = ::zstd::stream::write::Encoder::new(Vec::new(), LEVEL)?;
        frame.set_pledged_src_size(Some(length.0))?;
        let mut out = BufWriter::with_capacity(PIECE, frame);
        self.write_json(&mut out)?;
        let frame = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        let bytes = frame.finish()?;
        check_length(bytes.len() as u64)?;
        Ok(bytes)
    }

    fn write_json(&self, out: &mut dyn io::Write) -> Result<(), DocumentError> {
        write!(out, r#"{{"format":{FORMAT},"needs":[],"packs":["#)?;
        for (number, PackEntry { id, pages }) in self.packs.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            write!(out, r#"{comma}{{"id":"{id}","pages":{pages}}}"#)?;
        }
        out.write_all(b"],")?;
        if let Some(MapPlace { frame, frames }) = self.map {
            write!(
                out,
                r#""map":{{"pack":0,"frame":{frame},"frames":{frames}}},"#
            )?;
        }
        out.write_all(br#""entries":["#)?;
        write::write_lists(&self.entries, out)
    }

    /// Checks all that can be checked without the packs.
    ///
    /// # Errors
    /// When it is inconsistent or over a limit.
    pub fn validate(&self) -> Result<(), DocumentError> {
        self.entries.validate()?;
        let all = self
            .own_pages()
            .try_fold(0_u64, |sum, (_, pages)| sum.checked_add(pages));
        if all.is_none_or(|all| all > MAX_PAGES) {
            return Err(DocumentError::PageSpace);
        }
        packs_fault(&self.packs, self.map).map_or(Ok(()), |what| Err(DocumentError::Packs { what }))
    }

    /// The files with pages of their own, and how many those are.
    fn own_pages(&self) -> impl Iterator<Item = (&PagedFile, u64)> {
        let files = self.entries.files.iter();
        let own = files.filter(|file| file.hardlink_of.is_none());
        own.map(|file| (file, pages(file.size)))
    }

    /// How many pages the page space has.
    pub fn page_space(&self) -> u64 {
        let own = self.own_pages();
        own.fold(0, |sum, (_, pages)| sum.saturating_add(pages))
    }

    /// Where in the page space each file is, but for second names, which have no pages of their own.
    pub fn places(&self) -> impl Iterator<Item = (&PagedFile, Range<u64>)> {
        let mut end = 0;
        self.own_pages().map(move |(file, pages)| {
            let start: u64 = end;
            end = start.saturating_add(pages);
            (file, start..end)
        })
    }

    /// Whether it says the same of the same bytes, in whichever packs they are. Two documents that leave out what a content is
    /// called do so only where they name the same packs and map.
    #[cfg_attr(
        not(any(test, feature = "fuzzing", feature = "registry")),
        expect(dead_code, reason = "only what a registry has may be equal")
    )]
    pub fn is_equal_to(&self, other: &Self) -> bool {
        let is_told = |file: &PagedFile| file.content.is_some();
        let same_packs = || self.packs == other.packs && self.map == other.map;
        self.entries == other.entries && (self.entries.files.iter().all(is_told) || same_packs())
    }

    /// Looks whether these are the packs that it names, in their order, and have the map where it says. The map then has so
    /// many bytes.
    ///
    /// # Errors
    /// [`DocumentError::Packs`]
    pub fn check_packs<L: Borrow<Layout>>(&self, layouts: &[L]) -> Result<u64, DocumentError> {
        let named = |(entry, layout): (&PackEntry, &L)| {
            let layout = layout.borrow();
            entry.id == layout.id() && entry.pages == layout.pages()
        };
        let fault = |what| DocumentError::Packs { what };
        if layouts.len() != self.packs.len() || !self.packs.iter().zip(layouts).all(named) {
            return Err(fault("they are not those that it names"));
        }
        let frames: u64 = layouts
            .iter()
            .map(|layout| layout.borrow().frames().len() as u64)
            .sum();
        if frames > MAX_ALL_FRAMES {
            return Err(fault("they have more than 4 Mi frames"));
        }
        let (Some(map), Some(first)) = (self.map, layouts.first().map(Borrow::borrow)) else {
            return Ok(0);
        };
        let numbers = (map.frame as usize)..(map.frame as usize + map.frames as usize);
        let before = first.data_frames().len();
        let map_frames = numbers
            .start
            .checked_sub(before)
            .zip(numbers.end.checked_sub(before));
        let frames = map_frames.and_then(|(start, end)| first.map_frames().get(start..end));
        let frames = frames.ok_or(fault("the map is not where it should be"))?;
        Ok(frames.iter().map(|frame| u64::from(frame.length)).sum())
    }
}

fn packs_fault(packs: &[PackEntry], map: Option<MapPlace>) -> Option<&'static str> {
    let has_pages = |pack: &PackEntry| (1..=MAX_PACK_PAGES).contains(&pack.pages);
    let ids: HashSet<_> = packs.iter().map(|pack| pack.id.as_bytes()).collect();
    let all_pages = packs.iter().map(|pack| pack.pages);
    if packs.len() > MAX_PACKS {
        Some("there are more than 256")
    } else if ids.len() != packs.len() {
        Some("one of them is named twice")
    } else if packs
        .first()
        .is_some_and(|pack| pack.pages > MAX_PACK_PAGES)
    {
        Some("one has more pages than a pack can have")
    } else if !packs.iter().skip(1).all(has_pages) {
        Some("one has no pages, or more than a pack can have")
    } else {
        match map {
            None if packs.is_empty() => None,
            None => Some("there are some, and no map"),
            Some(_) if packs.is_empty() => Some("there is a map, and no pack"),
            Some(map) => map_fault(map, least_frames(all_pages)),
        }
    }
}

fn map_fault(map: MapPlace, data_frames: u64) -> Option<&'static str> {
    let end = u64::from(map.frame) + u64::from(map.frames);
    if map.frames == 0 {
        Some("the map has no frames")
    } else if end > u64::from(MAX_FRAMES) {
        Some("the map is behind the last frame that a pack can have")
    } else if data_frames + u64::from(map.frames) > MAX_ALL_FRAMES {
        Some("they have more than 4 Mi frames")
    } else {
        None
    }
}

/// No packs with so many pages have fewer frames.
fn least_frames(pages: impl Iterator<Item = u64>) -> u64 {
    let in_one = u64::from(FramePages::Sixteen.count());
    pages.map(|pages| pages.div_ceil(in_one)).sum()
}

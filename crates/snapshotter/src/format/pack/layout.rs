//! Where the frames of a pack are, from its last bytes. The footer alone says where the table is, and is refused if it is
//! not where the object's length has it; the rows are refused one by one as they are read.

use std::ops::Range;

use super::{
    FOOTER_BYTES, FramePages, MAGIC, MAX_FRAMES, MAX_MAP_FRAME_BYTES, PackError, PackId, ROW_BYTES,
    id_of,
};
use crate::words::page::PAGE_BYTES;

const VERSION: u16 = 1;
/// What of the footer the id is over, in bytes.
const NAMED_BYTES: usize = 24;

/// What is in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Pages.
    Data,
    /// A part of a map.
    Map,
}

/// How a frame is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// As it is.
    Raw,
    /// As one zstd frame.
    Zstd,
}

/// A frame of a pack, as the table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where its stored bytes are in the object.
    pub offset: u64,
    /// How many those are.
    pub stored: u32,
    /// How many bytes it has.
    pub length: u32,
    /// What they are.
    pub kind: Kind,
    /// How they are stored.
    pub codec: Codec,
    /// BLAKE3 of the stored bytes.
    pub checksum: [u8; 32],
}

impl Frame {
    /// Where its stored bytes are in the object.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + u64::from(self.stored)
    }

    /// Looks whether these are its stored bytes.
    ///
    /// # Errors
    /// [`PackError::Damaged`]
    pub fn check(&self, stored: &[u8]) -> Result<(), PackError> {
        let whole = stored.len() == self.stored as usize;
        if whole && blake3::hash(stored) == self.checksum {
            Ok(())
        } else {
            Err(PackError::Damaged)
        }
    }

    /// Its row of the table.
    pub(super) fn row(&self) -> [u8; ROW_BYTES] {
        let mut row = [0; ROW_BYTES];
        row[..4].copy_from_slice(&self.stored.to_le_bytes());
        row[4..8].copy_from_slice(&self.length.to_le_bytes());
        row[8] = match self.kind {
            Kind::Data => 0,
            Kind::Map => 1,
        };
        row[9] = match self.codec {
            Codec::Raw => 0,
            Codec::Zstd => 1,
        };
        row[12..].copy_from_slice(&self.checksum);
        row
    }

    fn of_row(offset: u64, row: &[u8; ROW_BYTES]) -> Result<Self, &'static str> {
        let mut fields = Fields(row);
        let frame = Self {
            offset,
            stored: u32::from_le_bytes(fields.take()),
            length: u32::from_le_bytes(fields.take()),
            kind: match fields.take() {
                [0] => Kind::Data,
                [1] => Kind::Map,
                _ => return Err("its kind is not known"),
            },
            codec: match fields.take() {
                [0] => Codec::Raw,
                [1] => Codec::Zstd,
                _ => return Err("its codec is not known"),
            },
            checksum: {
                let [0, 0] = fields.take() else {
                    return Err("reserved bytes are set");
                };
                fields.take()
            },
        };
        frame.check_lengths().map(|()| frame)
    }

    fn check_lengths(&self) -> Result<(), &'static str> {
        if self.length == 0 || self.stored == 0 {
            return Err("it is empty");
        }
        match self.codec {
            Codec::Raw if self.stored != self.length => Err("it is raw and has two lengths"),
            Codec::Zstd if self.stored > self.length => Err("it is stored in more than its length"),
            _ => Ok(()),
        }
    }
}

/// Takes fields of a fixed record one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    /// Zeros where the record has ended, which none does here.
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }
}

/// A pack's last bytes: what it has, where the table is, and its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    pub(super) frame_pages: FramePages,
    pub(super) frames: u32,
    pub(super) data_frames: u32,
    pub(super) table_at: u64,
    pub(super) id: PackId,
}

impl Footer {
    /// Reads the last bytes of an object of `length` bytes.
    ///
    /// # Errors
    /// When they are no footer that this release knows, or one of an object of another length.
    pub fn parse(bytes: &[u8; FOOTER_BYTES], length: u64) -> Result<Self, PackError> {
        let mut fields = Fields(bytes);
        if bytes[FOOTER_BYTES - MAGIC.len()..] != MAGIC {
            return Err(PackError::Magic);
        }
        let short = |field: [u8; 2]| u16::from_le_bytes(field).into();
        known("version", short(fields.take()), VERSION.into())?;
        known("flags", short(fields.take()), 0)?;
        known(
            "pages of bytes",
            u32::from_le_bytes(fields.take()),
            PAGE_BYTES as u32,
        )?;
        let pages = u32::from_le_bytes(fields.take());
        let frame_pages = FramePages::of_count(pages);
        let frames = u32::from_le_bytes(fields.take());
        let data_frames = u32::from_le_bytes(fields.take());
        known("reserved bytes", u32::from_le_bytes(fields.take()), 0)?;
        let footer = Self {
            frame_pages: frame_pages.ok_or(PackError::Unknown {
                field: "frames of pages",
                found: pages,
            })?,
            frames,
            data_frames,
            table_at: u64::from_le_bytes(fields.take()),
            id: {
                let written = u64::from_le_bytes(fields.take());
                if written != length {
                    return Err(PackError::Lengths);
                }
                PackId::from_bytes(fields.take())
            },
        };
        footer.check(length).map(|()| footer)
    }

    fn check(&self, length: u64) -> Result<(), PackError> {
        if self.frames > MAX_FRAMES {
            let count = self.frames.into();
            return Err(PackError::TooManyFrames { count });
        }
        let end = self.table_at.checked_add(self.table_bytes());
        let end = end.and_then(|end| end.checked_add(FOOTER_BYTES as u64));
        if end == Some(length) && self.data_frames <= self.frames {
            Ok(())
        } else {
            Err(PackError::Lengths)
        }
    }

    fn table_bytes(&self) -> u64 {
        u64::from(self.frames) * ROW_BYTES as u64
    }

    /// Where the table is in the object; at most 44 MiB.
    pub fn table(&self) -> Range<u64> {
        self.table_at..self.table_at + self.table_bytes()
    }

    /// The id that it gives, which [`Layout::parse`] looks at.
    pub fn id(&self) -> PackId {
        self.id
    }

    /// The length of the object in bytes.
    pub fn length(&self) -> u64 {
        self.table().end + FOOTER_BYTES as u64
    }

    /// What the id is over, but for the table.
    fn named(&self) -> [u8; NAMED_BYTES] {
        let mut named = [0; NAMED_BYTES];
        named[..2].copy_from_slice(&VERSION.to_le_bytes());
        named[4..8].copy_from_slice(&(PAGE_BYTES as u32).to_le_bytes());
        named[8..12].copy_from_slice(&self.frame_pages.count().to_le_bytes());
        named[12..16].copy_from_slice(&self.frames.to_le_bytes());
        named[16..20].copy_from_slice(&self.data_frames.to_le_bytes());
        named
    }

    /// The same with the id of this table.
    pub(super) fn with_id_of(mut self, table: &[u8]) -> Self {
        self.id = id_of(&self.named(), table);
        self
    }

    pub(super) fn bytes(&self) -> [u8; FOOTER_BYTES] {
        let mut bytes = [0; FOOTER_BYTES];
        bytes[..NAMED_BYTES].copy_from_slice(&self.named());
        bytes[24..32].copy_from_slice(&self.table_at.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.length().to_le_bytes());
        bytes[40..72].copy_from_slice(self.id.as_bytes());
        bytes[72..].copy_from_slice(&MAGIC);
        bytes
    }
}

fn known(field: &'static str, found: u32, expected: u32) -> Result<(), PackError> {
    if found == expected {
        Ok(())
    } else {
        Err(PackError::Unknown { field, found })
    }
}

/// Where each frame of a pack is, and what it has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub(super) footer: Footer,
    pub(super) frames: Vec<Frame>,
}

impl Layout {
    /// Reads the table that a footer is of.
    ///
    /// # Errors
    /// When it is not the one that the id is of, or a frame in it is not valid.
    pub fn parse(footer: Footer, table: &[u8]) -> Result<Self, PackError> {
        if table.len() as u64 != footer.table_bytes() {
            return Err(PackError::Lengths);
        }
        if id_of(&footer.named(), table) != footer.id {
            return Err(PackError::Id);
        }
        let (rows, _) = table.as_chunks::<ROW_BYTES>();
        let mut frames = Vec::with_capacity(rows.len());
        let mut offset = MAGIC.len() as u64;
        for (number, row) in (0..).zip(rows) {
            let frame = Frame::of_row(offset, row).and_then(|frame| footer.placed(number, frame));
            let frame = frame.map_err(|what| PackError::Frame { number, what })?;
            offset = frame.range().end;
            frames.push(frame);
        }
        if offset == footer.table_at {
            Ok(Self { footer, frames })
        } else {
            Err(PackError::Lengths)
        }
    }

    /// Looks at an object's first bytes, of which nothing else is said anywhere.
    ///
    /// # Errors
    /// [`PackError::Magic`]
    pub fn check_start(start: &[u8; MAGIC.len()]) -> Result<(), PackError> {
        if *start == MAGIC {
            Ok(())
        } else {
            Err(PackError::Magic)
        }
    }

    /// The pack's name.
    pub fn id(&self) -> PackId {
        self.footer.id
    }

    /// The length of the object in bytes.
    pub fn length(&self) -> u64 {
        self.footer.length()
    }

    /// How many pages its data frames have, but for the last.
    pub fn frame_pages(&self) -> FramePages {
        self.footer.frame_pages
    }

    /// All frames, in the order that they are in.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// Those with pages: page `p` of the pack is in number `p / frame_pages`.
    pub fn data_frames(&self) -> &[Frame] {
        &self.frames[..self.footer.data_frames as usize]
    }

    /// Those with parts of a map; the first of them is number [`data_frames`](Self::data_frames)`.len()` of all.
    pub fn map_frames(&self) -> &[Frame] {
        &self.frames[self.footer.data_frames as usize..]
    }

    /// How many data pages it has.
    pub fn pages(&self) -> u64 {
        let Some((last, others)) = self.data_frames().split_last() else {
            return 0;
        };
        let pages_before = others.len() as u64 * u64::from(self.frame_pages().count());
        pages_before + u64::from(last.length) / PAGE_BYTES as u64
    }

    /// Its last bytes: the table and the footer.
    pub fn tail(&self) -> Vec<u8> {
        let mut tail: Vec<u8> = self.frames.iter().flat_map(Frame::row).collect();
        tail.extend(self.footer.bytes());
        tail
    }
}

impl Footer {
    /// A frame that may be at this place of the table.
    fn placed(&self, number: u32, frame: Frame) -> Result<Frame, &'static str> {
        let is_data = number < self.data_frames;
        let length = frame.length as usize;
        let full = self.frame_pages.bytes();
        match frame.kind {
            Kind::Data if !is_data => Err("it has pages, where map frames are"),
            Kind::Map if is_data => Err("it has a map, where pages are"),
            Kind::Map if length > MAX_MAP_FRAME_BYTES => {
                Err("it is longer than a map frame may be")
            }
            Kind::Map => Ok(frame),
            Kind::Data if !length.is_multiple_of(PAGE_BYTES) || length > full => {
                Err("it is not 1 to F pages")
            }
            Kind::Data if length < full && number + 1 < self.data_frames => {
                Err("it has too few pages for one that is not the last")
            }
            Kind::Data => Ok(frame),
        }
    }
}

//! A pack as it is written: frames in their order, then the table and the footer. Whoever compresses does so elsewhere, on as
//! many threads as there are; here the frames only get their places.

use std::io::{self, Write};
use std::ops::Range;

use super::frame::{Encoded, FrameEncoder};
use super::layout::{Footer, Frame, Kind, Layout};
use super::{FramePages, MAGIC, MAX_FRAMES, MAX_MAP_FRAME_BYTES, PackError, PackId};
use crate::words::page::PAGE_BYTES;

/// Writes a pack.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    frame_pages: FramePages,
    at: u64,
    frames: Vec<Frame>,
    data_frames: u32,
    /// The last data frame is there.
    has_last: bool,
}

impl<W: Write> Writer<W> {
    /// Begins a pack.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(mut out: W, frame_pages: FramePages) -> Result<Self, PackError> {
        out.write_all(&MAGIC)?;
        Ok(Self {
            out,
            frame_pages,
            at: MAGIC.len() as u64,
            frames: Vec::new(),
            data_frames: 0,
            has_last: false,
        })
    }

    /// Appends a frame of pages; one with fewer than the others have is the last.
    ///
    /// # Errors
    /// Those of `out`; a frame that cannot come here.
    pub fn push_data(&mut self, frame: &Encoded) -> Result<(), PackError> {
        let full = self.frame_pages.bytes();
        let is_whole =
            frame.length.is_multiple_of(PAGE_BYTES) && (1..=full).contains(&frame.length);
        if !is_whole || self.has_last {
            return Err(
                self.misplaced("it has no whole pages, or comes after the last frame of pages")
            );
        }
        self.append(frame, Kind::Data)?;
        self.has_last = frame.length < full;
        self.data_frames += 1;
        Ok(())
    }

    /// Appends a part of a map. No pages follow it.
    ///
    /// # Errors
    /// Those of `out`; a frame that is too long.
    pub fn push_map(&mut self, frame: &Encoded) -> Result<(), PackError> {
        if !(1..=MAX_MAP_FRAME_BYTES).contains(&frame.length) {
            return Err(self.misplaced("it is empty or longer than a map frame may be"));
        }
        self.has_last = true;
        self.append(frame, Kind::Map)
    }

    /// Takes a map's bytes and cuts them into frames.
    pub fn map<'w>(&'w mut self, encoder: &'w mut FrameEncoder) -> MapFrames<'w, W> {
        let first = self.count();
        MapFrames {
            writer: self,
            encoder,
            first,
            part: Vec::new(),
        }
    }

    /// Ends the pack.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish(mut self) -> Result<(W, Layout), PackError> {
        let table: Vec<u8> = self.frames.iter().flat_map(Frame::row).collect();
        let footer = Footer {
            frame_pages: self.frame_pages,
            frames: self.count(),
            data_frames: self.data_frames,
            table_at: self.at,
            id: PackId::from_bytes([0; 32]),
        };
        let footer = footer.with_id_of(&table);
        self.out.write_all(&table)?;
        self.out.write_all(&footer.bytes())?;
        let frames = self.frames;
        Ok((self.out, Layout { footer, frames }))
    }

    fn count(&self) -> u32 {
        self.frames.len() as u32
    }

    fn misplaced(&self, what: &'static str) -> PackError {
        let number = self.count();
        PackError::Frame { number, what }
    }

    fn append(&mut self, encoded: &Encoded, kind: Kind) -> Result<(), PackError> {
        if self.count() == MAX_FRAMES {
            let count = u64::from(MAX_FRAMES) + 1;
            return Err(PackError::TooManyFrames { count });
        }
        self.out.write_all(&encoded.stored)?;
        // Neither is longer than a map frame may be.
        let frame = Frame {
            offset: self.at,
            stored: encoded.stored.len() as u32,
            length: encoded.length as u32,
            kind,
            codec: encoded.codec,
            checksum: encoded.checksum,
        };
        self.at = frame.range().end;
        self.frames.push(frame);
        Ok(())
    }
}

/// Cuts what is written to it into map frames.
#[derive(Debug)]
pub struct MapFrames<'w, W> {
    writer: &'w mut Writer<W>,
    encoder: &'w mut FrameEncoder,
    first: u32,
    part: Vec<u8>,
}

impl<W: Write> MapFrames<'_, W> {
    /// Writes the last of them. They are these, by their numbers in the table.
    ///
    /// # Errors
    /// Those of the pack.
    pub fn finish(mut self) -> Result<Range<u32>, PackError> {
        self.cut()?;
        Ok(self.first..self.writer.count())
    }

    fn cut(&mut self) -> Result<(), PackError> {
        if self.part.is_empty() {
            return Ok(());
        }
        let frame = self.encoder.encode(std::mem::take(&mut self.part))?;
        self.writer.push_map(&frame)
    }
}

impl<W: Write> Write for MapFrames<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(MAX_MAP_FRAME_BYTES - self.part.len());
        self.part.extend_from_slice(&bytes[..taken]);
        if self.part.len() == MAX_MAP_FRAME_BYTES {
            self.cut().map_err(|error| match error {
                PackError::Io(error) => error,
                error => io::Error::other(error),
            })?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! A piece: an aligned part of a stream in memory, and who sets out, reads and looks into one after the other.

use std::fs::File;
use std::io;

use super::read_at;

/// An aligned part of a stream, and which of its bytes belong where in the file.
pub(crate) struct Piece {
    pub(crate) buffer: Vec<u8>,
    pub(crate) len: usize,
    /// What of the buffer is to be read from the stream's file, and from where.
    pub(crate) reads: Vec<Segment>,
    /// What of the buffer is data, and of which place in the file that the stream is made of.
    pub(crate) data: Vec<Segment>,
    /// Where the extent ends that goes on in the next piece, if one does.
    pub(crate) extent_end: Option<u64>,
}

#[derive(Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) file_offset: u64,
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl Piece {
    pub(crate) fn new(capacity: usize) -> Self {
        Self::within(vec![0; capacity])
    }

    /// A piece in memory that is there already, whatever it holds.
    pub(crate) fn within(buffer: Vec<u8>) -> Self {
        Self {
            buffer,
            len: 0,
            reads: Vec::new(),
            data: Vec::new(),
            extent_end: None,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    pub(crate) fn room(&self) -> usize {
        self.buffer.len() - self.len
    }

    /// The memory, and how much of it is the piece.
    #[cfg(feature = "registry")]
    pub(crate) fn into_parts(self) -> (Vec<u8>, usize) {
        (self.buffer, self.len)
    }

    pub(crate) fn data_size(&self) -> u64 {
        self.data.iter().map(|segment| segment.len as u64).sum()
    }

    /// Each stretch of data and its offset in the file.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.data.iter().map(|segment| {
            let bytes = &self.buffer[segment.start..segment.start + segment.len];
            (bytes, segment.file_offset)
        })
    }

    /// Reads what was set out.
    pub(crate) fn read(&mut self, file: &File) -> io::Result<()> {
        for segment in &self.reads {
            let place = &mut self.buffer[segment.start..segment.start + segment.len];
            read_at(file, place, segment.file_offset)?;
        }
        Ok(())
    }
}

/// An SPF1 stream, piece by piece. Between the two steps a piece is [read](Piece::read), on any thread; each of them sees
/// all pieces in order.
pub(crate) trait Fill: Send {
    /// Says how long the next piece is and what of it is to be read from the file, and writes what is in no file. A piece
    /// is full unless the stream ends in it; after the end come empty ones.
    fn set_out(&mut self, piece: &mut Piece);

    /// Looks into a piece that was read: what of it is data, where that was not known before.
    fn look_into(&mut self, _piece: &mut Piece) -> io::Result<()> {
        Ok(())
    }
}

/// Fills a piece to the brim, or to the end of the stream.
pub(crate) fn fill(source: &mut dyn Fill, file: &File, piece: &mut Piece) -> io::Result<()> {
    source.set_out(piece);
    piece.read(file)?;
    source.look_into(piece)
}

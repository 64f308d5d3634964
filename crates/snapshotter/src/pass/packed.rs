//! Reading a packed blob: a file that is the SPF1 stream itself.
//!
//! Such a file belongs to others too (Dragonfly's daemon has it in its cache), so nobody here writes it, gives it other
//! attributes or believes it: it is only ever read in a pass that hashes all of it and parses it with the bounded
//! decoder, which finds the extents while it reads. A file that grew, shrank or claims what it does not have is as wrong
//! as one with other bytes.

use std::convert::Infallible;
use std::fs::File;
use std::io;

use super::piece::{Fill, Piece, Segment};
use super::{Hashes, Hashing, Output, Progress, pass_over, read_at};
use crate::format::spf::{DecodeError, Decoder, HEADER_BYTES, SpfError, size_in_header};
use crate::fs::Stat;
use crate::words::extent::ExtentMap;

/// The stream in a packed file, and where its data belong.
pub(super) struct Packed {
    position: u64,
    len: u64,
    decoder: Decoder,
}

impl Packed {
    /// `size` is the logical size that the stream has to have, `len` the file's length, both in bytes.
    pub(super) fn new(size: u64, len: u64) -> Self {
        Self {
            position: 0,
            len,
            decoder: Decoder::new(Some(size), Some(len)),
        }
    }

    /// The map, once everything was read.
    fn finish(self) -> io::Result<ExtentMap> {
        self.decoder.finish().map_err(wrong)
    }
}

impl Fill for Packed {
    fn set_out(&mut self, piece: &mut Piece) {
        let left = usize::try_from(self.len - self.position).unwrap_or(usize::MAX);
        piece.len = piece.buffer.len().min(left);
        piece.reads.clear();
        piece.reads.push(Segment {
            file_offset: self.position,
            start: 0,
            len: piece.len,
        });
        self.position += piece.len as u64;
    }

    fn look_into(&mut self, piece: &mut Piece) -> io::Result<()> {
        let Piece {
            buffer,
            len,
            data,
            extent_end,
            ..
        } = piece;
        data.clear();
        let bytes = &buffer[..*len];
        let start = bytes.as_ptr().addr();
        // What the decoder hands on are parts of what it was given.
        let pushed = self.decoder.push(bytes, &mut |file_offset, part| {
            data.push(Segment {
                file_offset,
                start: part.as_ptr().addr() - start,
                len: part.len(),
            });
            Ok::<_, Infallible>(())
        });
        *extent_end = self.decoder.extent_end();
        pushed.map_err(|error| match error {
            DecodeError::Spf(error) => wrong(error),
            DecodeError::Sink(never) => match never {},
        })
    }
}

/// Reads a packed file once; finds its map and what [`pass`](super::stream::pass) finds in a plain one.
///
/// # Errors
/// The operating system's; [`is_wrong`](super::stream::is_wrong) knows the one of a file that is not one packed stream of
/// a file of `size` bytes and nothing else; what `progress` says.
pub(crate) fn pass_packed(
    file: &File,
    size: u64,
    output: Output<'_>,
    hashing: Hashing,
    progress: Progress<'_>,
) -> io::Result<(ExtentMap, Hashes)> {
    let len = Stat::of_file(file)?.size;
    let mut source = Packed::new(size, len);
    let hashes = pass_over(
        &mut source,
        file,
        Some(size),
        len,
        output,
        hashing,
        progress,
    )?;
    Ok((source.finish()?, hashes))
}

/// The logical size that a packed file says it has, in bytes.
///
/// # Errors
/// The operating system's; `UnexpectedEof` for a file that is too short to say one.
pub(crate) fn claimed_size(file: &File) -> io::Result<u64> {
    let mut header = [0; HEADER_BYTES];
    read_at(file, &mut header, 0)?;
    Ok(size_in_header(&header))
}

fn wrong(error: SpfError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

//! Frames of a pack, encoded and decoded one at a time: any number of threads can each have a codec of their own.

use std::fmt;
use std::io;

use super::PackError;
use super::layout::{Codec, Frame};
use crate::format::zstd::Decoder;

/// How frames are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    None,
    /// Each as a zstd frame of this level, where that is shorter.
    Zstd(i32),
}

/// A frame's stored bytes before it has a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    pub(super) stored: Vec<u8>,
    pub(super) length: usize,
    pub(super) codec: Codec,
    pub(super) checksum: [u8; 32],
}

impl Encoded {
    /// How many bytes it takes in a pack.
    pub fn stored(&self) -> usize {
        self.stored.len()
    }
}

/// Makes stored bytes of frames.
pub struct FrameEncoder(Option<zstd::bulk::Compressor<'static>>);

impl FrameEncoder {
    /// # Errors
    /// When there is no memory for it, or there is no such level.
    pub fn new(compression: Compression) -> io::Result<Self> {
        Ok(Self(match compression {
            Compression::None => None,
            Compression::Zstd(level) => Some(zstd::bulk::Compressor::new(level)?),
        }))
    }

    /// Compresses a frame and hashes what is to be stored.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn encode(&mut self, frame: Vec<u8>) -> io::Result<Encoded> {
        let length = frame.len();
        let compressed = match &mut self.0 {
            Some(compressor) => Some(compressor.compress(&frame)?),
            None => None,
        };
        let shorter = compressed.filter(|compressed| compressed.len() < length);
        let (stored, codec) = match shorter {
            Some(compressed) => (compressed, Codec::Zstd),
            None => (frame, Codec::Raw),
        };
        let checksum = blake3::hash(&stored).into();
        Ok(Encoded {
            stored,
            length,
            codec,
            checksum,
        })
    }
}

impl fmt::Debug for FrameEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FrameEncoder").finish_non_exhaustive()
    }
}

/// Makes frames of their stored bytes.
#[derive(Debug)]
pub struct FrameDecoder {
    zstd: Decoder,
    decoded: Vec<u8>,
}

impl FrameDecoder {
    /// # Errors
    /// When there is no memory for it.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            zstd: Decoder::new()?,
            decoded: Vec::new(),
        })
    }

    /// Verifies stored bytes and gives the frame's: those of a raw frame are the same.
    ///
    /// # Errors
    /// When they are not the frame's, or do not decode to its length.
    pub fn decode<'b>(
        &'b mut self,
        frame: &Frame,
        stored: &'b [u8],
    ) -> Result<&'b [u8], PackError> {
        if frame.codec == Codec::Raw {
            frame.check(stored)?;
            return Ok(stored);
        }
        let mut decoded = std::mem::take(&mut self.decoded);
        decoded.resize(frame.length as usize, 0);
        let result = self.decode_into(frame, stored, &mut decoded);
        self.decoded = decoded;
        result.map(|()| self.decoded.as_slice())
    }

    /// The same into a buffer that is as long as the frame.
    ///
    /// # Errors
    /// As [`FrameDecoder::decode`]; what is in the buffer then is nothing.
    pub fn decode_into(
        &mut self,
        frame: &Frame,
        stored: &[u8],
        decoded: &mut [u8],
    ) -> Result<(), PackError> {
        frame.check(stored)?;
        match frame.codec {
            Codec::Raw => decoded.copy_from_slice(stored),
            Codec::Zstd => self.zstd.decode(stored, decoded)?,
        }
        Ok(())
    }
}

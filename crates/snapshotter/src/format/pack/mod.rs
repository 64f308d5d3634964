//! A pack: pages in frames that are compressed each by itself, then a table of the frames and a footer. The pack's id is
//! over the table, the table has a hash of each frame's stored bytes: who knows the id and has the last bytes can verify any
//! frame alone, before a decoder sees it. [`Footer`] and [`Layout`] refuse what is wrong before anything is made for it.

mod frame;
mod layout;
#[cfg(any(feature = "registry", test))]
mod stream;
mod write;

#[cfg(test)]
mod tests;

pub use frame::{Compression, Encoded, FrameDecoder, FrameEncoder};
pub use layout::{Codec, Footer, Frame, Kind, Layout};
#[cfg(any(feature = "registry", test))]
pub use stream::StreamChecker;
pub use write::{MapFrames, Writer};

use std::io;

use thiserror::Error;

use super::zstd::ZstdError;
use crate::words::digest::long_hash;
use crate::words::page::PAGE_BYTES;

/// A pack's first bytes, and its last.
pub const MAGIC: [u8; 8] = *b"SNAPPACK";
/// The footer's length in bytes.
pub const FOOTER_BYTES: usize = 80;
/// The length of a row of the table in bytes.
pub const ROW_BYTES: usize = 44;
/// The most frames of a pack.
pub const MAX_FRAMES: u32 = 1024 * 1024;
/// The longest map frame, in bytes.
pub const MAX_MAP_FRAME_BYTES: usize = 1024 * 1024;
/// The most data pages of a pack.
pub const MAX_PACK_PAGES: u64 = MAX_FRAMES as u64 * FramePages::Sixteen.count() as u64;

const CONTEXT: &str = "io.d7y.snapshotter 2026 pack v2";

long_hash! {
    /// A pack's name: BLAKE3 in key-derivation mode over what its footer says of the table, and the table.
    PackId, "blake3"
}

/// How many pages are compressed together. Whoever reads one of them reads them all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FramePages {
    /// For packs that are read a page here and a page there.
    Four,
    /// For all others: it compresses better.
    #[default]
    Sixteen,
}

impl FramePages {
    /// As a number.
    #[must_use]
    pub const fn count(self) -> u32 {
        match self {
            Self::Four => 4,
            Self::Sixteen => 16,
        }
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.count() as usize * PAGE_BYTES
    }

    const fn of_count(count: u32) -> Option<Self> {
        match count {
            4 => Some(Self::Four),
            16 => Some(Self::Sixteen),
            _ => None,
        }
    }
}

/// Bytes that are no pack, or not the one that was asked for.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PackError {
    /// Other first or last bytes.
    #[error("the pack does not begin and end with SNAPPACK")]
    Magic,
    /// A version, page or frame of another size, or set bits that have no meaning.
    #[error("the pack has {field} {found}, which this release does not know")]
    Unknown {
        /// What is in the footer or in a row.
        field: &'static str,
        /// What it is.
        found: u32,
    },
    /// More frames than [`MAX_FRAMES`].
    #[error("the pack has {count} frames, more than 1,048,576")]
    TooManyFrames {
        /// How many there are.
        count: u64,
    },
    /// Offsets and lengths that don't add up.
    #[error("the lengths in the pack do not add up to its own")]
    Lengths,
    /// A table that the id is not of.
    #[error("the pack's id is not that of its table")]
    Id,
    /// A frame that cannot be one.
    #[error("frame {number} of the pack is not valid: {what}")]
    Frame {
        /// Which, counted from 0.
        number: u32,
        /// What is wrong.
        what: &'static str,
    },
    /// Stored bytes that are not the frame's.
    #[error("the stored bytes of a frame are damaged")]
    Damaged,
    /// Stored bytes that are the frame's, and do not decode.
    #[error("a frame does not decompress")]
    Zstd(#[from] ZstdError),
    /// Bytes that could not be written, or a codec without memory.
    #[error("the pack could not be written or read")]
    Io(#[from] io::Error),
}

fn id_of(start: &[u8], table: &[u8]) -> PackId {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(start).update(table);
    PackId::from_bytes(hasher.finalize().into())
}

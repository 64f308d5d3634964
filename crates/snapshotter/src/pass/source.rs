//! The SPF1 stream of a sparse file, piece by piece: its header and descriptors are written, its data is set out to be read.

use super::piece::{Fill, Piece, Segment};
use crate::format::spf;
use crate::words::extent::ExtentMap;

/// The stream of a sparse file, made from its map and its data.
pub(crate) struct Source<'a> {
    map: &'a ExtentMap,
    /// Header or descriptor bytes that did not fit the last piece.
    pending: Vec<u8>,
    /// Index of the extent being read, and how many of its bytes were.
    extent: usize,
    within: u64,
    opened: bool,
}

impl<'a> Source<'a> {
    pub(crate) fn new(map: &'a ExtentMap) -> Self {
        Self {
            map,
            pending: spf::header(map.size(), map.extents().len() as u64).to_vec(),
            extent: 0,
            within: 0,
            opened: false,
        }
    }

    fn fill_pending(&mut self, piece: &mut Piece) {
        let take = self.pending.len().min(piece.room());
        piece.buffer[piece.len..piece.len + take].copy_from_slice(&self.pending[..take]);
        piece.len += take;
        self.pending.drain(..take);
    }

    fn set_out_data(&mut self, piece: &mut Piece, offset: u64, len: u64) {
        let left = usize::try_from(len - self.within).unwrap_or(usize::MAX);
        let segment = Segment {
            file_offset: offset + self.within,
            start: piece.len,
            len: left.min(piece.room()),
        };
        piece.reads.push(segment);
        piece.data.push(segment);
        piece.len += segment.len;
        self.within += segment.len as u64;
        if self.within == len {
            self.extent += 1;
            self.within = 0;
            self.opened = false;
        }
    }
}

impl Fill for Source<'_> {
    fn set_out(&mut self, piece: &mut Piece) {
        piece.len = 0;
        piece.reads.clear();
        piece.data.clear();
        while piece.room() > 0 {
            if !self.pending.is_empty() {
                self.fill_pending(piece);
            } else if let Some(extent) = self.map.extents().get(self.extent) {
                if !self.opened {
                    self.pending.extend(spf::descriptor(*extent));
                    self.opened = true;
                    continue;
                }
                self.set_out_data(piece, extent.offset, extent.len);
            } else {
                break;
            }
        }
        let extent = self.map.extents().get(self.extent);
        piece.extent_end = extent
            .filter(|_| self.within > 0)
            .map(|extent| extent.end());
    }
}

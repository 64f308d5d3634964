//! BLAKE3 of a stream whose pieces are hashed apart, in any order.
//!
//! BLAKE3 is a binary tree over the input, and a piece is one of its subtrees: its length is a power of two and it begins
//! at a multiple of that (the BLAKE3 paper, section 2.1). So a piece's chaining value needs no other piece, and the root
//! needs only those values. They are joined in order, as soon as both halves of a subtree are there; the last piece, which
//! may be shorter, only at the end, because the root is joined in its own way.

use std::collections::BTreeMap;

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root,
};

use super::PIECE;
use crate::words::digest::Checksum;

const _: () = assert!(PIECE.is_power_of_two() && PIECE >= blake3::CHUNK_LEN);

/// The chaining value of a piece of a stream of more than one. Each but the last is full, and none is empty.
pub(super) fn subtree(index: u64, bytes: &[u8]) -> ChainingValue {
    blake3::Hasher::new()
        .set_input_offset(index * PIECE as u64)
        .update(bytes)
        .finalize_non_root()
}

/// The values of a stream's pieces, joined as far as they can be.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Pieces that are joined.
    joined: u64,
    /// Of ever smaller subtrees, from left to right.
    stack: Vec<ChainingValue>,
    /// Of pieces that came before one to their left did.
    early: BTreeMap<u64, ChainingValue>,
}

impl Tree {
    pub(super) fn put(&mut self, index: u64, value: ChainingValue) {
        self.early.insert(index, value);
        // The one that is the last so far waits: it may stay the last.
        while self.early.len() > 1
            && let Some(first) = self.early.first_entry().filter(|e| *e.key() == self.joined)
        {
            let value = first.remove();
            self.join(value);
        }
    }

    fn join(&mut self, mut value: ChainingValue) {
        self.joined += 1;
        let mut subtrees = self.joined;
        while subtrees.is_multiple_of(2)
            && let Some(left) = self.stack.pop()
        {
            value = merge_subtrees_non_root(&left, &value, Mode::Hash);
            subtrees /= 2;
        }
        self.stack.push(value);
    }

    /// The checksum of a stream of `count` pieces, if all of them were put, and there are at least two.
    pub(super) fn root(mut self, count: u64) -> Option<Checksum> {
        let (last, mut value) = self.early.pop_last()?;
        if !self.early.is_empty() || self.joined != last || last + 1 != count {
            return None;
        }
        while let Some(left) = self.stack.pop() {
            if self.stack.is_empty() {
                let root = merge_subtrees_root(&left, &value, Mode::Hash);
                return Some(Checksum::from_bytes(*root.as_bytes()));
            }
            value = merge_subtrees_non_root(&left, &value, Mode::Hash);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces put in the order of `order`, which has each index once.
    fn hash(stream: &[u8], order: &[usize]) -> Option<Checksum> {
        let pieces: Vec<&[u8]> = stream.chunks(PIECE).collect();
        let mut tree = Tree::default();
        for index in order {
            tree.put(*index as u64, subtree(*index as u64, pieces[*index]));
        }
        tree.root(pieces.len() as u64)
    }

    fn stream(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at / 7 + at / 4099) as u8).collect()
    }

    #[test]
    fn it_is_the_hash_of_the_stream_whatever_the_order() {
        for (pieces, rest) in [(1, 1), (2, 0), (2, 1023), (3, 1024), (4, 0), (7, 5), (9, 0)] {
            let stream = stream(pieces * PIECE + rest);
            let count = pieces + usize::from(rest > 0);
            let forwards: Vec<usize> = (0..count).collect();
            let backwards: Vec<usize> = (0..count).rev().collect();
            let (even, odd): (Vec<_>, Vec<_>) = (0..count).partition(|index| index % 2 == 0);
            let wanted = Some(Checksum::of(&stream));
            for order in [forwards, backwards, [odd, even].concat()] {
                assert_eq!(
                    hash(&stream, &order),
                    wanted,
                    "{pieces} + {rest}: {order:?}"
                );
            }
        }
    }

    #[test]
    fn without_all_pieces_there_is_no_hash() {
        let stream = stream(4 * PIECE);
        for order in [&[][..], &[0], &[0, 1, 2], &[1, 2, 3], &[0, 1, 3]] {
            assert_eq!(hash(&stream, order), None, "{order:?}");
        }
    }
}

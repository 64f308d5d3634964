//! A list of what may go: eight bytes of BLAKE3 for each key, sorted, after a line that says what it is. Whoever takes one for
//! another sends an object once more than needed, or keeps it; what is removed was found to be needed by nobody besides.

use std::collections::HashSet;

use super::shelf::Shelf;
use crate::words::digest::Checksum;
use crate::words::error::{Error, Result};

/// A key's place in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Print(u64);

impl Print {
    pub(super) fn of(key: &str) -> Self {
        let hash = Checksum::of(key.as_bytes());
        let (first, _) = hash.as_bytes().split_at(8);
        let mut bytes = [0; 8];
        bytes.copy_from_slice(first);
        Self(u64::from_le_bytes(bytes))
    }
}

const HEAD: &[u8] = b"snapshotter candidates 1\n";

/// What one list names at most: what is left waits for the next one.
pub(super) const MOST: usize = 2 << 20;

const MOST_BYTES: u64 = (HEAD.len() + 8 * MOST) as u64;

pub(super) fn write(mut prints: Vec<Print>) -> Vec<u8> {
    prints.sort_unstable();
    let mut bytes = HEAD.to_vec();
    bytes.extend(prints.iter().flat_map(|print| print.0.to_le_bytes()));
    bytes
}

fn parse(bytes: &[u8]) -> Option<HashSet<Print>> {
    let (prints, rest) = bytes.strip_prefix(HEAD)?.as_chunks::<8>();
    let print = |bytes: &[u8; 8]| Print(u64::from_le_bytes(*bytes));
    rest.is_empty().then(|| prints.iter().map(print).collect())
}

/// Reads a list; nothing where it has gone.
pub(super) fn read(shelf: &Shelf<'_>, key: &str) -> Result<Option<HashSet<Print>>> {
    let Some(bytes) = shelf.read(key, MOST_BYTES)? else {
        return Ok(None);
    };
    let whole = parse(&bytes).ok_or_else(|| {
        let text = format!("{key} in {} is no list of this release", shelf.place());
        Error::damaged(text)
    })?;
    Ok(Some(whole))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_list_is_read_as_it_was_written(keys in proptest::collection::vec(any::<u64>(), 0..50)) {
            let written = write(keys.iter().copied().map(Print).collect());
            prop_assert_eq!(parse(&written), Some(keys.into_iter().map(Print).collect()));
        }

        #[test]
        fn other_bytes_are_no_list(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(parse(&bytes), None);
        }
    }

    #[test]
    fn a_list_that_is_cut_off_is_none() {
        let mut bytes = write(vec![Print(1), Print(2)]);
        bytes.pop();
        assert_eq!(parse(&bytes), None);
        assert_eq!(parse(HEAD), Some(HashSet::new()));
    }
}

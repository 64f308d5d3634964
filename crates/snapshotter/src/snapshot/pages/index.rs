//! Which pages are known, by their digests: those of the parent, and those that this capture has stored.
//!
//! An entry is 16 bytes: eight of the digest and where it is. Whoever finds one compares the whole digest, which is in a list;
//! of two pages that agree in eight bytes and no further the second is not found, and stored once more. Beyond a limit nothing
//! is added: what is not known costs space, never bytes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

use crate::format::content::PageDigest;

/// Where a known page's digest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// In the parent's list.
    Parent(u64),
    /// In that of the pages which this capture has stored.
    Stored(u64),
}

/// No list is as long as this.
const STORED: u64 = 1 << 63;

impl Known {
    fn place(self) -> u64 {
        match self {
            Self::Parent(place) => place,
            Self::Stored(place) => place | STORED,
        }
    }
}

/// What an entry takes, in bytes: two numbers and a control byte, in a table that is two thirds full.
const ENTRY: usize = 26;

#[derive(Debug)]
pub(super) struct Index {
    entries: HashMap<u64, u64, BuildHasherDefault<AsItIs>>,
    limit: usize,
}

impl Index {
    /// An empty one that takes at most so many bytes.
    pub(super) fn new(bytes: u64) -> Self {
        Self {
            entries: HashMap::default(),
            limit: usize::try_from(bytes).unwrap_or(usize::MAX) / ENTRY,
        }
    }

    pub(super) fn get(&self, digest: &PageDigest) -> Option<Known> {
        let place = *self.entries.get(&tag(digest))?;
        Some(if place & STORED != 0 {
            Known::Stored(place & !STORED)
        } else {
            Known::Parent(place)
        })
    }

    /// Adds a page. Of pages of the parent the first one stays; one that is stored takes the place of such a one, which was
    /// not to be used.
    pub(super) fn add(&mut self, digest: &PageDigest, known: Known) {
        let has_room = self.entries.len() < self.limit;
        match (self.entries.entry(tag(digest)), known) {
            (Entry::Vacant(free), _) if has_room => _ = free.insert(known.place()),
            (Entry::Occupied(mut there), Known::Stored(_)) if *there.get() & STORED == 0 => {
                there.insert(known.place());
            }
            _ => {}
        }
    }
}

fn tag(digest: &PageDigest) -> u64 {
    let (tag, _) = digest.split_first_chunk().unwrap_or((&[0; 8], &[]));
    u64::from_le_bytes(*tag)
}

/// A digest is a hash already.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_stays_and_the_limit_is_kept() {
        let digest = |number: u64| *blake3::hash(&number.to_le_bytes()).as_bytes();
        let mut index = Index::new(100 * ENTRY as u64);
        for number in 0..200 {
            index.add(&digest(number), Known::Stored(number));
            index.add(&digest(number), Known::Parent(number));
        }
        assert_eq!(index.get(&digest(0)), Some(Known::Stored(0)));
        assert_eq!(index.get(&digest(99)), Some(Known::Stored(99)));
        assert_eq!(index.get(&digest(100)), None);
        let mut index = Index::new(100 * ENTRY as u64);
        index.add(&digest(1), Known::Parent(7));
        index.add(&digest(1), Known::Parent(8));
        assert_eq!(index.get(&digest(1)), Some(Known::Parent(7)));
        index.add(&digest(1), Known::Stored(9));
        index.add(&digest(1), Known::Stored(10));
        assert_eq!(index.get(&digest(1)), Some(Known::Stored(9)));
    }
}

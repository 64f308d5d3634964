//! The content id: what the bytes of a file are called in format v2. It is folded from the digests of the pages that are not
//! zero, so it is the same however the file is allocated and mapped, and a list of digests gives it without the bytes.

use crate::words::digest::long_hash;
use crate::words::page::{PAGE_BYTES, bytes_in_page};

const CONTEXT: &str = "io.d7y.snapshotter 2026 content v2";

/// BLAKE3 of a page's 4,096 bytes.
pub type PageDigest = [u8; 32];

long_hash! {
    /// What a file's bytes are called: BLAKE3 in key-derivation mode over its size and the digests of its pages.
    ContentId, "blake3"
}

/// The digest of a page, and nothing of one that is zero, which has no part in a content id.
pub fn page_digest(page: &[u8; PAGE_BYTES]) -> Option<PageDigest> {
    const ZERO: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
    (*page != ZERO).then(|| blake3::hash(page).into())
}

/// Whether the file's page `index` has nothing behind the file's end.
#[cfg_attr(
    not(any(test, feature = "fuzzing")),
    expect(
        dead_code,
        reason = "restores look at what they write: the page need not be whole there"
    )
)]
pub fn has_clean_tail(page: &[u8; PAGE_BYTES], size: u64, index: u64) -> bool {
    page[bytes_in_page(size, index)..]
        .iter()
        .all(|byte| *byte == 0)
}

/// Folds a content id.
#[derive(Clone, Debug)]
pub struct ContentHasher(blake3::Hasher);

impl ContentHasher {
    /// Of a file of `size` bytes.
    pub fn new(size: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(&size.to_le_bytes());
        Self(hasher)
    }

    /// Adds a page that is not zero by its place in the file. They come in ascending order.
    pub fn page(&mut self, index: u64, digest: &PageDigest) {
        self.0.update(&index.to_le_bytes()).update(digest);
    }

    /// What the file's bytes are called.
    pub fn finish(&self) -> ContentId {
        ContentId::from_bytes(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_cost_nothing_and_places_count() {
        let mut page = [0; PAGE_BYTES];
        assert_eq!(page_digest(&page), None);
        page[9] = 1;
        let digest = page_digest(&page).unwrap();
        assert_eq!(digest, *blake3::hash(&page).as_bytes());
        let id = |size, pages: &[u64]| {
            let mut hasher = ContentHasher::new(size);
            pages.iter().for_each(|index| hasher.page(*index, &digest));
            hasher.finish()
        };
        let all = [
            id(0, &[]),
            id(4096, &[]),
            id(8192, &[0]),
            id(8192, &[1]),
            id(8192, &[0, 1]),
            id(8191, &[0, 1]),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().map(ContentId::as_bytes).collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn what_is_behind_the_end_is_seen() {
        let mut page = [0; PAGE_BYTES];
        page[10] = 1;
        assert!(has_clean_tail(&page, 11, 0));
        assert!(!has_clean_tail(&page, 10, 0));
        assert!(has_clean_tail(&page, 4096 + 11, 1) && has_clean_tail(&page, 4096 + 10, 0));
        assert!(!has_clean_tail(&page, 4096, 1));
    }
}

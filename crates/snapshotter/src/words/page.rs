//! Pages of files: what format v2 cuts them into. A page is named by its place in the file or, where all files of a
//! snapshot are laid one after the other, in the page space.

use super::extent::MAX_SIZE;

/// A page's length in bytes.
pub const PAGE_BYTES: usize = 4096;
/// The most pages that all files of a snapshot have together: those of one file of the largest size.
pub const MAX_PAGES: u64 = 1 << 51;

const _: () = assert!(pages(MAX_SIZE) == MAX_PAGES);

/// How many pages a file of `size` bytes has.
pub const fn pages(size: u64) -> u64 {
    size.div_ceil(PAGE_BYTES as u64)
}

/// How many bytes of a file's page `index` are the file's. What follows them in the page has to be zero.
pub const fn bytes_in_page(size: u64, index: u64) -> usize {
    let before = index.saturating_mul(PAGE_BYTES as u64);
    let left = size.saturating_sub(before);
    if left < PAGE_BYTES as u64 {
        left as usize
    } else {
        PAGE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_page_is_the_files_in_part() {
        assert_eq!([0, 1, 4096, 4097].map(pages), [0, 1, 1, 2]);
        assert_eq!(bytes_in_page(0, 0), 0);
        assert_eq!(
            [0, 1, 2].map(|index| bytes_in_page(4097, index)),
            [4096, 1, 0]
        );
        assert_eq!(bytes_in_page(MAX_SIZE, MAX_PAGES - 1), PAGE_BYTES - 1);
        assert_eq!(bytes_in_page(MAX_SIZE, u64::MAX), 0);
    }
}

//! Sums of sizes. Each of them is one that a file can have, but together they may be more than any number holds: a file may
//! be nearly all hole, and a document's sizes are what its maker wrote.

use super::extent::MAX_SIZE;

/// All of these together, in bytes; [`MAX_SIZE`], where the catalog's integers end too, for all that is more.
pub(crate) fn total(sizes: impl IntoIterator<Item = u64>) -> u64 {
    sizes
        .into_iter()
        .fold(0, |sum: u64, size| sum.saturating_add(size).min(MAX_SIZE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_is_exact_until_it_is_the_largest_size() {
        assert_eq!(total([]), 0);
        assert_eq!(total([1, 2, 3]), 6);
        assert_eq!(total([MAX_SIZE - 1, 1]), MAX_SIZE);
        assert_eq!(total([MAX_SIZE, MAX_SIZE, MAX_SIZE]), MAX_SIZE);
        assert_eq!(total([u64::MAX]), MAX_SIZE);
    }
}

//! How a stream is cut for the wire: pure arithmetic.
//!
//! Servers take at most 10,000 parts an upload and want the same size for all but the last. A part has to be in memory
//! as a whole, since it is sent again when sending it fails and the source cannot be read twice.

#![cfg_attr(
    all(not(test), not(feature = "_opendal")),
    expect(dead_code, reason = "a directory takes no parts")
)]

use std::ops::Range;

const MIB: u64 = 1 << 20;

/// The smallest part, and what is asked for at once when fetching, in bytes.
pub(super) const PART: u64 = 8 * MIB;

/// What is planned for. The limit of S3 is 10,000; the rest is slack for those who count differently.
const PARTS: u64 = 9_000;

/// The largest part that is kept in memory. A stream that needs larger ones is beyond what object storages take (5 TiB
/// in most) and is refused.
pub(super) const LARGEST_PART: u64 = 1 << 30;

/// Bytes of a part of a stream of `size` bytes: enough for 9,000 parts at most, in whole MiB, and at least [`PART`].
pub(super) fn part_size(size: u64) -> u64 {
    size.div_ceil(PARTS)
        .checked_next_multiple_of(MIB)
        .unwrap_or(u64::MAX)
        .max(PART)
}

/// The ranges of at most `part` bytes that `whole` is made of, in order.
pub(super) fn ranges(whole: Range<u64>, part: u64) -> impl Iterator<Item = Range<u64>> {
    let mut start = whole.start;
    std::iter::from_fn(move || {
        let end = start.saturating_add(part).min(whole.end);
        let range = (start < end).then_some(start..end);
        start = end;
        range
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIB: u64 = 1 << 40;

    #[test]
    fn parts_stay_small_until_there_would_be_too_many() {
        assert_eq!(part_size(0), PART);
        assert_eq!(part_size(20), PART);
        assert_eq!(part_size(PARTS * PART), PART);
        assert_eq!(part_size(PARTS * PART + 1), PART + MIB);
        assert_eq!(part_size(5 * TIB), 583 * MIB);
        assert!(part_size(5 * TIB) <= LARGEST_PART);
    }

    #[test]
    fn a_plan_of_the_largest_object_has_no_more_parts_than_servers_take() {
        for size in [PARTS * PART, PARTS * PART + 1, 5 * TIB - 1, 5 * TIB] {
            let count = ranges(0..size, part_size(size)).count();
            assert!((1..=10_000).contains(&count), "{count} parts for {size}");
        }
    }

    proptest! {
        #[test]
        fn no_size_needs_more_than_9000_parts(size in 0..=i64::MAX as u64) {
            let part = part_size(size);
            prop_assert!(size.div_ceil(part) <= PARTS);
            prop_assert_eq!(part % MIB, 0);
            prop_assert!(part >= PART);
        }

        #[test]
        fn ranges_cover_everything_once(start in 0_u64..1000, len in 0_u64..5000, part in 1_u64..700) {
            let mut at = start;
            for range in ranges(start..start + len, part) {
                prop_assert_eq!(range.start, at);
                prop_assert!(range.end > range.start && range.end - range.start <= part);
                at = range.end;
            }
            prop_assert_eq!(at, start + len);
        }
    }
}

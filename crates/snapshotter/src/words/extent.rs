//! [`ExtentMap`]: which bytes of a file are data. The digest is over the packed stream, so the map is part of what
//! identifies a blob and is kept with it. Every map is valid from birth: ascending, disjoint, non-empty extents inside
//! a size that a file can have; everything computed from one can therefore neither overflow nor run backwards.

use thiserror::Error;

/// The most extents a file may have.
pub const MAX_EXTENTS: u64 = 16 * 1024 * 1024;
/// The largest size and offset: what `off_t` holds.
pub const MAX_SIZE: u64 = i64::MAX as u64;

const ENCODING_VERSION: u8 = 1;
const SPF_HEADER_BYTES: u64 = 20;
const SPF_DESCRIPTOR_BYTES: u64 = 16;

/// A map that no file can have, or bytes that encode none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ExtentError {
    /// A size above [`MAX_SIZE`].
    #[error("the size {size} is more than a file can have")]
    Size {
        /// The size in bytes.
        size: u64,
    },
    /// An extent of no bytes.
    #[error("the extent at {offset} is empty")]
    Empty {
        /// Where it starts.
        offset: u64,
    },
    /// An extent that starts before the previous one ends.
    #[error("the extent at {offset} starts before the previous one ends, at {end}")]
    Order {
        /// Where it starts.
        offset: u64,
        /// Where the previous one ends.
        end: u64,
    },
    /// An extent that passes the size.
    #[error("the extent at {offset} of {len} bytes passes the size {size}")]
    PastEnd {
        /// Where it starts.
        offset: u64,
        /// Its bytes.
        len: u64,
        /// The file's size in bytes.
        size: u64,
    },
    /// More than [`MAX_EXTENTS`].
    #[error("{count} extents are more than a file may have (16 Mi)")]
    TooMany {
        /// How many there are.
        count: u64,
    },
    /// An encoding that isn't one of ours.
    #[error("the encoded extent map is malformed: {what}")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
}

/// A run of data bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    /// Where it starts, in bytes from the file's start.
    pub offset: u64,
    /// How many bytes it has.
    pub len: u64,
}

impl Extent {
    /// The first byte after it. Meaningful for extents of a valid map.
    pub const fn end(self) -> u64 {
        self.offset.saturating_add(self.len)
    }
}

/// A file's size and its data extents, ascending. Touching extents stay apart: the stream's bytes depend on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExtentMap {
    size: u64,
    extents: Vec<Extent>,
}

impl ExtentMap {
    /// Checks and takes a map.
    ///
    /// # Errors
    /// When the size or the number of extents is over its limit, or an extent is empty, out of order or outside.
    pub fn new(size: u64, extents: Vec<Extent>) -> Result<Self, ExtentError> {
        check_size(size)?;
        check_count(extents.len() as u64)?;
        let mut end = 0;
        for extent in &extents {
            end = check_next(size, end, *extent)?;
        }
        Ok(Self { size, extents })
    }

    /// A file of one hole.
    ///
    /// # Errors
    /// When the size is above [`MAX_SIZE`].
    pub fn hole(size: u64) -> Result<Self, ExtentError> {
        Self::new(size, Vec::new())
    }

    /// A file without holes.
    ///
    /// # Errors
    /// When the size is above [`MAX_SIZE`].
    #[cfg(test)]
    pub fn dense(size: u64) -> Result<Self, ExtentError> {
        let extent = (size > 0).then_some(Extent {
            offset: 0,
            len: size,
        });
        Self::new(size, extent.into_iter().collect())
    }

    /// Adds the next extent.
    ///
    /// # Errors
    /// When it is empty, starts before the last one ends, passes the size, or is one too many.
    pub fn push(&mut self, extent: Extent) -> Result<(), ExtentError> {
        check_count(self.extents.len() as u64 + 1)?;
        let end = self.extents.last().map_or(0, |last| last.end());
        check_next(self.size, end, extent)?;
        self.extents.push(extent);
        Ok(())
    }

    /// The file's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The data extents, ascending.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// How many bytes are data.
    pub fn data_size(&self) -> u64 {
        self.extents.iter().map(|extent| extent.len).sum()
    }

    /// The length of the packed stream, in bytes.
    pub fn stream_size(&self) -> u64 {
        SPF_HEADER_BYTES + SPF_DESCRIPTOR_BYTES * self.extents.len() as u64 + self.data_size()
    }

    /// The gaps, ascending, with the one after the last extent.
    pub fn holes(&self) -> impl Iterator<Item = Extent> {
        let starts = std::iter::once(0).chain(self.extents.iter().map(|extent| extent.end()));
        let ends = self
            .extents
            .iter()
            .map(|extent| extent.offset)
            .chain(std::iter::once(self.size));
        starts
            .zip(ends)
            .filter(|(start, end)| start < end)
            .map(|(start, end)| Extent {
                offset: start,
                len: end - start,
            })
    }

    /// The compact form that the catalog keeps: a version byte, then LEB128 numbers: size, count, and for each extent
    /// its distance from the previous one's end and its length.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![ENCODING_VERSION];
        write_varint(&mut out, self.size);
        write_varint(&mut out, self.extents.len() as u64);
        let mut end = 0;
        for extent in &self.extents {
            write_varint(&mut out, extent.offset - end);
            write_varint(&mut out, extent.len);
            end = extent.end();
        }
        out
    }

    /// Reads what [`ExtentMap::encode`] wrote, and nothing else: each map has one encoding.
    ///
    /// # Errors
    /// For another version, cut or left-over bytes, a number not in its shortest form, or an invalid map.
    pub fn decode(bytes: &[u8]) -> Result<Self, ExtentError> {
        let (&version, mut rest) = bytes.split_first().ok_or(malformed("it is empty"))?;
        if version != ENCODING_VERSION {
            return Err(malformed("its version is not known"));
        }
        let mut map = Self::hole(read_varint(&mut rest)?)?;
        let count = read_varint(&mut rest)?;
        check_count(count)?;
        // An extent takes two bytes at least, so this bounds the allocation by the input.
        if count > rest.len() as u64 / 2 {
            return Err(malformed("it is cut short"));
        }
        map.extents.reserve_exact(count as usize);
        map.read_extents(count, &mut rest)?;
        if rest.is_empty() {
            Ok(map)
        } else {
            Err(malformed("bytes follow its end"))
        }
    }

    fn read_extents(&mut self, count: u64, rest: &mut &[u8]) -> Result<(), ExtentError> {
        let mut end = 0_u64;
        for _ in 0..count {
            let (gap, len) = (read_varint(rest)?, read_varint(rest)?);
            let offset = end
                .checked_add(gap)
                .ok_or(malformed("an offset overflows"))?;
            let extent = Extent { offset, len };
            end = check_next(self.size, end, extent)?;
            self.extents.push(extent);
        }
        Ok(())
    }
}

fn check_size(size: u64) -> Result<(), ExtentError> {
    if size > MAX_SIZE {
        Err(ExtentError::Size { size })
    } else {
        Ok(())
    }
}

fn check_count(count: u64) -> Result<(), ExtentError> {
    if count > MAX_EXTENTS {
        Err(ExtentError::TooMany { count })
    } else {
        Ok(())
    }
}

/// Checks one extent after another that ends at `end`, and gives its own end.
fn check_next(size: u64, end: u64, Extent { offset, len }: Extent) -> Result<u64, ExtentError> {
    if len == 0 {
        return Err(ExtentError::Empty { offset });
    }
    if offset < end {
        return Err(ExtentError::Order { offset, end });
    }
    match offset.checked_add(len) {
        Some(next) if next <= size => Ok(next),
        _ => Err(ExtentError::PastEnd { offset, len, size }),
    }
}

const fn malformed(what: &'static str) -> ExtentError {
    ExtentError::Malformed { what }
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_varint(rest: &mut &[u8]) -> Result<u64, ExtentError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first().ok_or(malformed("it is cut short"))?;
        *rest = tail;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            let shortest = byte != 0 || shift == 0;
            return if shortest {
                Ok(value)
            } else {
                Err(malformed("a number is not in its shortest form"))
            };
        }
    }
    Err(malformed("a number has more than 64 bits"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn extents(pairs: &[(u64, u64)]) -> Vec<Extent> {
        pairs
            .iter()
            .map(|&(offset, len)| Extent { offset, len })
            .collect()
    }

    #[test]
    fn refuses_invalid_maps() {
        let refused: &[(u64, &[(u64, u64)])] = &[
            (MAX_SIZE + 1, &[]),
            (u64::MAX, &[]),
            (10, &[(0, 0)]),
            (0, &[(0, 1)]),
            (10, &[(10, 1)]),
            (10, &[(0, 11)]),
            (10, &[(9, u64::MAX)]),
            (10, &[(u64::MAX, 1)]),
            (10, &[(5, 1), (0, 1)]),
            (10, &[(0, 5), (4, 1)]),
            (10, &[(0, 5), (0, 5)]),
        ];
        for (size, pairs) in refused {
            assert!(
                ExtentMap::new(*size, extents(pairs)).is_err(),
                "{size} {pairs:?}"
            );
        }
    }

    #[test]
    fn refuses_too_many() {
        let over = MAX_EXTENTS + 1;
        let all = (0..over).map(|offset| Extent { offset, len: 1 }).collect();
        assert_eq!(
            ExtentMap::new(over, all),
            Err(ExtentError::TooMany { count: over })
        );
    }

    #[test]
    fn touching_extents_stay_apart() {
        let map = ExtentMap::new(10, extents(&[(0, 5), (5, 5)])).unwrap();
        assert_eq!(map.extents().len(), 2);
        assert_eq!(map.holes().count(), 0);
        assert_eq!(map.stream_size(), 20 + 32 + 10);
        assert_ne!(map, ExtentMap::dense(10).unwrap());
    }

    #[test]
    fn sizes_and_holes() {
        assert_eq!(ExtentMap::dense(0).unwrap().extents(), []);
        assert_eq!(ExtentMap::dense(7).unwrap().extents(), extents(&[(0, 7)]));
        assert_eq!(
            ExtentMap::hole(7).unwrap().holes().collect::<Vec<_>>(),
            extents(&[(0, 7)])
        );
        let map = ExtentMap::new(100, extents(&[(10, 10), (30, 20)])).unwrap();
        assert_eq!(map.data_size(), 30);
        assert_eq!(
            map.holes().collect::<Vec<_>>(),
            extents(&[(0, 10), (20, 10), (50, 50)])
        );
        let largest = ExtentMap::dense(MAX_SIZE).unwrap();
        assert_eq!(largest.stream_size(), MAX_SIZE + 36);
    }

    #[test]
    fn refuses_foreign_encodings() {
        let refused: &[&[u8]] = &[
            b"",
            b"\x00\x00\x00",
            b"\x02\x00\x00",
            b"\x01",
            b"\x01\x00",
            b"\x01\x00\x00\x00",
            b"\x01\x80\x00\x00",
            b"\x01\x0a\x01\x00",
            b"\x01\x0a\x01\x00\x00",
            b"\x01\x0a\x01\x00\x0b",
            b"\x01\x0a\x02\x00\x05",
            b"\x01\x0a\xff\xff\xff\x07",
            b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00",
            b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02\x00",
            b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00",
            b"\x01\x0a\x02\x00\x05\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01",
        ];
        for bytes in refused {
            assert!(ExtentMap::decode(bytes).is_err(), "{bytes:x?} was accepted");
        }
    }

    fn maps() -> impl Strategy<Value = ExtentMap> {
        let pairs = proptest::collection::vec((0_u64..1 << 40, 1_u64..1 << 40), 0..50);
        (pairs, 0_u64..1 << 40).prop_map(|(pairs, tail)| {
            let mut end = 0;
            let all = pairs
                .into_iter()
                .map(|(gap, len)| {
                    let offset = end + gap;
                    end = offset + len;
                    Extent { offset, len }
                })
                .collect();
            ExtentMap::new(end + tail, all).unwrap()
        })
    }

    proptest! {
        #[test]
        fn encoding_round_trips(map in maps()) {
            prop_assert_eq!(ExtentMap::decode(&map.encode()), Ok(map));
        }

        #[test]
        fn no_cut_or_extended_encoding_is_accepted(map in maps(), extra: u8) {
            let mut bytes = map.encode();
            bytes.push(extra);
            prop_assert!(ExtentMap::decode(&bytes).is_err());
            prop_assert!(ExtentMap::decode(&bytes[..bytes.len() - 2]).is_err());
        }

        #[test]
        fn what_is_accepted_is_canonical(tail in proptest::collection::vec(any::<u8>(), 0..12)) {
            let bytes = [&[ENCODING_VERSION][..], &tail].concat();
            if let Ok(map) = ExtentMap::decode(&bytes) {
                prop_assert_eq!(map.encode(), bytes);
            }
        }

        #[test]
        fn holes_and_data_make_the_file(map in maps()) {
            let holes: u64 = map.holes().map(|hole| hole.len).sum();
            prop_assert_eq!(holes + map.data_size(), map.size());
        }

        #[test]
        fn push_agrees_with_new(map in maps()) {
            let mut pushed = ExtentMap::hole(map.size()).unwrap();
            for extent in map.extents() {
                pushed.push(*extent).unwrap();
            }
            prop_assert_eq!(pushed, map);
        }
    }
}

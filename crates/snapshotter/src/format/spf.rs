//! SPF1, the packed sparse stream: a header, then each extent's descriptor and bytes. [`Decoder`] takes the stream in
//! pieces cut anywhere and hands data on as slices of them: it keeps no data, never allocates by a number the stream
//! claims, and checks each descriptor before the sink sees a byte of its extent. What it accepts therefore re-encodes
//! to the same bytes, which is what the digest is over.

use thiserror::Error;

use crate::words::digest::{Checksum, Digest};
use crate::words::extent::{Extent, ExtentError, ExtentMap, MAX_EXTENTS};

/// The stream's first bytes.
pub const MAGIC: [u8; 4] = *b"SPF1";
/// The header's length in bytes.
pub const HEADER_BYTES: usize = 20;
/// An extent descriptor's length in bytes.
pub const DESCRIPTOR_BYTES: usize = 16;

// An extent has a descriptor and at least one byte.
const MIN_EXTENT_BYTES: u64 = DESCRIPTOR_BYTES as u64 + 1;

/// A stream that isn't SPF1, or isn't the one that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SpfError {
    /// Other first bytes.
    #[error("the content doesn't start with SPF1")]
    Magic,
    /// Another logical size than the entry has.
    #[error("the content is of a file of {found} bytes, not {expected}")]
    SizeMismatch {
        /// The size the entry has.
        expected: u64,
        /// The size in the header.
        found: u64,
    },
    /// More extents than the stream, the file or the format has room for.
    #[error("the content claims {count} extents, more than fit")]
    Count {
        /// The count in the header.
        count: u64,
    },
    /// An impossible size or extent.
    #[error("the content's extents are not valid")]
    Extent(#[from] ExtentError),
    /// An extent longer than what the stream still has.
    #[error("the content claims more than its {limit} bytes")]
    Overlong {
        /// The stream's length in bytes.
        limit: u64,
    },
    /// Bytes after the last extent.
    #[error("bytes follow the content's last extent")]
    Trailing,
    /// An end before the last extent's.
    #[error("the content is cut short")]
    Truncated,
    /// Use of a decoder that has failed before.
    #[error("decoding the content has already failed")]
    Failed,
}

/// Why a push failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError<E> {
    /// The stream is wrong.
    #[error("the content is damaged")]
    Spf(#[from] SpfError),
    /// The sink refused data.
    #[error("cannot store the content")]
    Sink(#[source] E),
}

/// The header of a file's stream.
pub fn header(size: u64, count: u64) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..12].copy_from_slice(&size.to_be_bytes());
    bytes[12..].copy_from_slice(&count.to_be_bytes());
    bytes
}

/// The logical size that a header says, whatever else is wrong with it.
pub fn size_in_header(header: &[u8; HEADER_BYTES]) -> u64 {
    let mut size = [0; 8];
    size.copy_from_slice(&header[4..12]);
    u64::from_be_bytes(size)
}

/// What precedes an extent's bytes.
pub fn descriptor(extent: Extent) -> [u8; DESCRIPTOR_BYTES] {
    let mut bytes = [0; DESCRIPTOR_BYTES];
    bytes[..8].copy_from_slice(&extent.offset.to_be_bytes());
    bytes[8..].copy_from_slice(&extent.len.to_be_bytes());
    bytes
}

/// Both hashes of a stream that is already in memory.
pub fn digest_of_stream(stream: &[u8]) -> (Digest, Checksum) {
    (Digest::of(stream), Checksum::of(stream))
}

/// Decodes a stream that arrives in pieces.
#[derive(Debug)]
pub struct Decoder {
    expected_size: Option<u64>,
    max_stream: u64,
    /// Bytes of whole parts (header, descriptors) and of data that were taken.
    position: u64,
    count: u64,
    map: Option<ExtentMap>,
    state: State,
    /// A header or descriptor that isn't complete yet.
    partial: [u8; HEADER_BYTES],
    filled: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    Descriptor,
    Data { offset: u64, left: u64 },
    Done,
    Failed,
}

impl Decoder {
    /// `expected_size` is the entry's logical size, `max_stream` the stream's length or a limit on it, both in bytes.
    /// The more of them is known, the earlier a wrong stream is refused.
    pub fn new(expected_size: Option<u64>, max_stream: Option<u64>) -> Self {
        Self {
            expected_size,
            max_stream: max_stream.unwrap_or(u64::MAX),
            position: 0,
            count: 0,
            map: None,
            state: State::Header,
            partial: [0; HEADER_BYTES],
            filled: 0,
        }
    }

    /// Takes the next piece. `sink` gets the data in order: the file offset and a slice of `input`.
    ///
    /// # Errors
    /// When the stream is wrong or the sink refuses; then the decoder is of no more use.
    pub fn push<E>(
        &mut self,
        input: &[u8],
        sink: &mut impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), DecodeError<E>> {
        let result = self.advance(input, sink);
        if result.is_err() {
            self.state = State::Failed;
        }
        result
    }

    /// Where the extent ends whose data comes next, if the stream is within one.
    pub fn extent_end(&self) -> Option<u64> {
        match self.state {
            State::Data { offset, left } => Some(offset + left),
            _ => None,
        }
    }

    /// The map, once the stream has ended.
    ///
    /// # Errors
    /// When the stream is cut short, or a push has failed.
    pub fn finish(self) -> Result<ExtentMap, SpfError> {
        match (self.state, self.map) {
            (State::Done, Some(map)) => Ok(map),
            (State::Failed, _) => Err(SpfError::Failed),
            _ => Err(SpfError::Truncated),
        }
    }

    fn advance<E>(
        &mut self,
        mut input: &[u8],
        sink: &mut impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), DecodeError<E>> {
        while !input.is_empty() {
            match self.state {
                State::Header => {
                    if self.fill(HEADER_BYTES, &mut input) {
                        self.take_header()?;
                    }
                }
                State::Descriptor => {
                    if self.fill(DESCRIPTOR_BYTES, &mut input) {
                        self.take_descriptor()?;
                    }
                }
                State::Data { offset, left } => {
                    let data = split_at_most(&mut input, left);
                    sink(offset, data).map_err(DecodeError::Sink)?;
                    self.took_data(offset, left, data.len() as u64);
                }
                State::Done => return Err(SpfError::Trailing.into()),
                State::Failed => return Err(SpfError::Failed.into()),
            }
        }
        Ok(())
    }

    /// Moves bytes into `partial`; whether it now holds all `wanted`.
    fn fill(&mut self, wanted: usize, input: &mut &[u8]) -> bool {
        let bytes = split_at_most(input, (wanted - self.filled) as u64);
        self.partial[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
        let complete = self.filled == wanted;
        if complete {
            self.filled = 0;
            self.position += wanted as u64;
        }
        complete
    }

    fn take_header(&mut self) -> Result<(), SpfError> {
        if self.partial[..4] != MAGIC {
            return Err(SpfError::Magic);
        }
        let (size, count) = (self.number(4), self.number(12));
        let map = ExtentMap::hole(size)?;
        if let Some(expected) = self.expected_size
            && expected != size
        {
            return Err(SpfError::SizeMismatch {
                expected,
                found: size,
            });
        }
        self.check_count(size, count)?;
        self.count = count;
        self.map = Some(map);
        self.state = if count == 0 {
            State::Done
        } else {
            State::Descriptor
        };
        Ok(())
    }

    fn check_count(&self, size: u64, count: u64) -> Result<(), SpfError> {
        if self.max_stream < self.position {
            return Err(SpfError::Overlong {
                limit: self.max_stream,
            });
        }
        let room = (self.max_stream - self.position) / MIN_EXTENT_BYTES;
        // Extents neither overlap nor are empty, so a file has at most as many as bytes.
        if count > size.min(room).min(MAX_EXTENTS) {
            return Err(SpfError::Count { count });
        }
        Ok(())
    }

    fn take_descriptor(&mut self) -> Result<(), SpfError> {
        let extent = Extent {
            offset: self.number(0),
            len: self.number(8),
        };
        let map = self.map.as_mut().ok_or(SpfError::Failed)?;
        map.push(extent)?;
        let after = (self.count - map.extents().len() as u64) * MIN_EXTENT_BYTES;
        // No sum overflows: a valid map's stream is below 2^63 + 2^29 bytes.
        if self.position + extent.len + after > self.max_stream {
            return Err(SpfError::Overlong {
                limit: self.max_stream,
            });
        }
        self.state = State::Data {
            offset: extent.offset,
            left: extent.len,
        };
        Ok(())
    }

    fn took_data(&mut self, offset: u64, left: u64, taken: u64) {
        self.position += taken;
        let complete = self
            .map
            .as_ref()
            .is_some_and(|map| map.extents().len() as u64 == self.count);
        self.state = match left - taken {
            0 if complete => State::Done,
            0 => State::Descriptor,
            left => State::Data {
                offset: offset + taken,
                left,
            },
        };
    }

    fn number(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.partial[at..at + 8]);
        u64::from_be_bytes(bytes)
    }
}

fn split_at_most<'a>(input: &mut &'a [u8], most: u64) -> &'a [u8] {
    let taken = usize::try_from(most).map_or(input.len(), |most| most.min(input.len()));
    let (head, tail) = input.split_at(taken);
    *input = tail;
    head
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::words::digest::Sha256;

    type Pieces = Vec<(u64, Vec<u8>)>;

    fn decode(decoder: Decoder, pieces: &[&[u8]]) -> Result<(ExtentMap, Pieces), SpfError> {
        let mut decoder = decoder;
        let mut out = Vec::new();
        for piece in pieces {
            let pushed = decoder.push(piece, &mut |offset, data| {
                out.push((offset, data.to_vec()));
                Ok::<_, Infallible>(())
            });
            match pushed {
                Ok(()) => {}
                Err(DecodeError::Spf(error)) => {
                    assert_eq!(decoder.finish(), Err(SpfError::Failed));
                    return Err(error);
                }
                Err(DecodeError::Sink(never)) => match never {},
            }
        }
        Ok((decoder.finish()?, out))
    }

    fn decode_all(stream: &[u8]) -> Result<(ExtentMap, Pieces), SpfError> {
        decode(Decoder::new(None, None), &[stream])
    }

    fn logical(map: &ExtentMap, pieces: &Pieces) -> Vec<u8> {
        let mut bytes = vec![0; map.size() as usize];
        for (offset, data) in pieces {
            bytes[*offset as usize..][..data.len()].copy_from_slice(data);
        }
        bytes
    }

    fn encode(map: &ExtentMap, bytes: &[u8]) -> Vec<u8> {
        let mut stream = header(map.size(), map.extents().len() as u64).to_vec();
        for extent in map.extents() {
            stream.extend(descriptor(*extent));
            stream.extend(&bytes[extent.offset as usize..extent.end() as usize]);
        }
        stream
    }

    fn stream(size: u64, count: u64, extents: &[(u64, u64, &[u8])]) -> Vec<u8> {
        let mut stream = header(size, count).to_vec();
        for &(offset, len, data) in extents {
            stream.extend(descriptor(Extent { offset, len }));
            stream.extend(data);
        }
        stream
    }

    fn golden() -> std::path::PathBuf {
        Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../testdata/golden"
        ))
        .to_owned()
    }

    fn golden_stream(input: &serde_json::Value) -> Vec<u8> {
        match (input["spf1_file"].as_str(), input["spf1_hex"].as_str()) {
            (Some(file), _) => std::fs::read(golden().join(file)).unwrap(),
            (None, Some(hex)) => from_hex(hex),
            (None, None) => panic!("{input} has no stream"),
        }
    }

    fn from_hex(hex: &str) -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    fn check_golden(input: &serde_json::Value) {
        let name = &input["name"];
        let stream = golden_stream(input);
        if let Some(hex) = input["spf1_hex"].as_str() {
            assert_eq!(stream, from_hex(hex), "{name}");
        }
        let (map, pieces) = decode(
            Decoder::new(input["logical_size"].as_u64(), Some(stream.len() as u64)),
            &[&stream],
        )
        .unwrap();
        let extents: Vec<_> = map
            .extents()
            .iter()
            .map(|extent| [extent.offset, extent.len])
            .collect();
        assert_eq!(serde_json::json!(extents), input["extents"], "{name}");
        assert_eq!(Some(map.size()), input["logical_size"].as_u64(), "{name}");
        assert_eq!(
            Some(map.stream_size()),
            input["spf1_size"].as_u64(),
            "{name}"
        );
        let bytes = logical(&map, &pieces);
        assert_eq!(Sha256::of(&bytes).hex(), input["input_sha256"], "{name}");
        assert_eq!(Sha256::of(&stream).hex(), input["spf1_sha256"], "{name}");
        assert_eq!(
            digest_of_stream(&stream).0.to_string(),
            input["digest"],
            "{name}"
        );
        assert_eq!(
            digest_of_stream(&stream).0.hex(),
            input["store_filename"],
            "{name}"
        );
        assert_eq!(encode(&map, &bytes), stream, "{name}");
    }

    #[test]
    fn golden_vectors() {
        let index = std::fs::read(golden().join("index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
        let inputs = index["inputs"].as_array().unwrap();
        assert_eq!(inputs.len(), 19);
        inputs.iter().for_each(check_golden);
    }

    #[test]
    fn golden_files_are_all_listed() {
        for file in std::fs::read_dir(golden().join("spf1")).unwrap() {
            let stream = std::fs::read(file.unwrap().path()).unwrap();
            let (map, pieces) = decode_all(&stream).unwrap();
            assert_eq!(encode(&map, &logical(&map, &pieces)), stream);
        }
    }

    #[test]
    fn golden_collision_has_one_digest_and_two_checksums() {
        let streams = ["a.bin", "b.bin"].map(|name| {
            let bytes = std::fs::read(golden().join("collision").join(name)).unwrap();
            encode(&ExtentMap::dense(bytes.len() as u64).unwrap(), &bytes)
        });
        let [(a, a_checksum), (b, b_checksum)] =
            [&streams[0], &streams[1]].map(|stream| digest_of_stream(stream));
        assert_eq!(a, b);
        assert_eq!(a.to_string(), "xxh3:9014573cc2906160");
        assert_ne!(a_checksum, b_checksum);
    }

    #[test]
    fn refuses_wrong_streams() {
        use ExtentError as X;
        let over = i64::MAX as u64 + 1;
        let cases: Vec<(&str, Vec<u8>, SpfError)> = vec![
            ("empty", Vec::new(), SpfError::Truncated),
            (
                "magic",
                [b"SPF2", &header(0, 0)[4..]].concat(),
                SpfError::Magic,
            ),
            (
                "cut header",
                header(0, 0)[..19].to_vec(),
                SpfError::Truncated,
            ),
            (
                "size",
                header(over, 0).to_vec(),
                X::Size { size: over }.into(),
            ),
            (
                "offset",
                stream(10, 1, &[(over, 1, b"x")]),
                X::PastEnd {
                    offset: over,
                    len: 1,
                    size: 10,
                }
                .into(),
            ),
            (
                "overflow",
                stream(10, 1, &[(9, u64::MAX, b"x")]),
                X::PastEnd {
                    offset: 9,
                    len: u64::MAX,
                    size: 10,
                }
                .into(),
            ),
            (
                "past end",
                stream(10, 1, &[(9, 2, b"xx")]),
                X::PastEnd {
                    offset: 9,
                    len: 2,
                    size: 10,
                }
                .into(),
            ),
            (
                "descends",
                stream(10, 2, &[(5, 1, b"x"), (0, 1, b"x")]),
                X::Order { offset: 0, end: 6 }.into(),
            ),
            (
                "overlaps",
                stream(10, 2, &[(0, 2, b"xx"), (1, 1, b"x")]),
                X::Order { offset: 1, end: 2 }.into(),
            ),
            (
                "empty extent",
                stream(10, 1, &[(0, 0, b"")]),
                X::Empty { offset: 0 }.into(),
            ),
            (
                "count over size",
                header(1, 2).to_vec(),
                SpfError::Count { count: 2 },
            ),
            (
                "count over limit",
                header(1 << 40, MAX_EXTENTS + 1).to_vec(),
                SpfError::Count {
                    count: MAX_EXTENTS + 1,
                },
            ),
            (
                "count",
                header(1 << 40, u64::MAX).to_vec(),
                SpfError::Count { count: u64::MAX },
            ),
            ("no descriptor", stream(10, 1, &[]), SpfError::Truncated),
            (
                "cut data",
                stream(10, 1, &[(0, 5, b"xxxx")]),
                SpfError::Truncated,
            ),
            (
                "missing extent",
                stream(10, 2, &[(0, 1, b"x")]),
                SpfError::Truncated,
            ),
            (
                "trailing",
                stream(10, 1, &[(0, 1, b"xx")]),
                SpfError::Trailing,
            ),
            (
                "trailing after header",
                [&header(0, 0)[..], b"x"].concat(),
                SpfError::Trailing,
            ),
        ];
        for (name, stream, expected) in cases {
            assert_eq!(decode_all(&stream).unwrap_err(), expected, "{name}");
            let bytewise: Vec<_> = stream.chunks(1).collect();
            assert_eq!(
                decode(Decoder::new(None, None), &bytewise).unwrap_err(),
                expected,
                "{name}, byte by byte"
            );
        }
    }

    #[test]
    fn refuses_another_size() {
        let error = decode(Decoder::new(Some(11), None), &[&header(10, 0)]).unwrap_err();
        assert_eq!(
            error,
            SpfError::SizeMismatch {
                expected: 11,
                found: 10
            }
        );
    }

    #[test]
    fn refuses_what_cannot_fit_a_known_length() {
        let two = stream(10, 2, &[(0, 1, b"x"), (5, 1, b"x")]);
        let length = two.len() as u64;
        assert!(decode(Decoder::new(None, Some(length)), &[&two]).is_ok());
        assert_eq!(
            decode(Decoder::new(None, Some(length - 1)), &[&two]).unwrap_err(),
            SpfError::Count { count: 2 }
        );
        assert_eq!(
            decode(Decoder::new(None, Some(19)), &[&header(0, 0)]).unwrap_err(),
            SpfError::Overlong { limit: 19 }
        );
        // The first extent leaves no room for the second: refused before a byte of it reaches the sink.
        let greedy = stream(10, 2, &[(0, 2, b"xx")]);
        assert_eq!(
            decode(Decoder::new(None, Some(length)), &[&greedy]).unwrap_err(),
            SpfError::Overlong { limit: length }
        );
        let huge = stream(i64::MAX as u64, 1, &[(0, i64::MAX as u64, b"x")]);
        assert_eq!(
            decode(Decoder::new(None, Some(37)), &[&huge]).unwrap_err(),
            SpfError::Overlong { limit: 37 }
        );
    }

    #[test]
    fn a_bad_extent_reaches_no_sink() {
        let mut decoder = Decoder::new(None, None);
        let mut calls = 0;
        let bad = stream(10, 1, &[(9, 2, b"xx")]);
        let pushed = decoder.push(&bad, &mut |_, _| {
            calls += 1;
            Ok::<_, Infallible>(())
        });
        assert!(pushed.is_err());
        assert_eq!(calls, 0);
    }

    #[test]
    fn a_refusing_sink_ends_it() {
        let mut decoder = Decoder::new(None, None);
        let good = stream(10, 1, &[(0, 1, b"x")]);
        assert_eq!(
            decoder.push(&good, &mut |_, _| Err("full")),
            Err(DecodeError::Sink("full"))
        );
        assert_eq!(decoder.push(b"", &mut |_, _| Ok::<_, ()>(())), Ok(()));
        assert_eq!(decoder.finish(), Err(SpfError::Failed));
    }

    proptest! {
        #[test]
        fn cut_anywhere(lens in proptest::collection::vec((0_u64..3, 1_u64..40), 0..6), cuts in proptest::collection::vec(0_usize..400, 0..8)) {
            let mut map = ExtentMap::hole(lens.iter().map(|(gap, len)| gap + len).sum::<u64>() + 1).unwrap();
            let mut end = 0;
            for (gap, len) in lens {
                map.push(Extent { offset: end + gap, len }).unwrap();
                end += gap + len;
            }
            let mut bytes: Vec<u8> = (0..map.size()).map(|at| at as u8 | 1).collect();
            map.holes().for_each(|hole| bytes[hole.offset as usize..hole.end() as usize].fill(0));
            let stream = encode(&map, &bytes);
            prop_assert_eq!(stream.len() as u64, map.stream_size());

            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % (stream.len() + 1)).chain([0, stream.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
            let (decoded, data) = decode(Decoder::new(Some(map.size()), Some(stream.len() as u64)), &pieces).unwrap();
            prop_assert_eq!(logical(&decoded, &data), bytes);
            prop_assert_eq!(decoded, map);
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80), size: u64, count in 0_u64..4) {
            let _ = decode_all(&bytes);
            let _ = decode_all(&[&header(size, count)[..], &bytes].concat());
        }
    }
}

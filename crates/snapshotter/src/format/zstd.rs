//! Zstandard frames from outside (RFC 8878, section 3.1.1). A frame's header and the headers of its blocks are read here
//! before a decoder sees them: it is one frame of a length that is known and allowed, with a window that is small, without
//! a dictionary, and nothing follows it. So the decoder never finds out by itself how much memory or output it needs.

use std::fmt;
use std::io::{self, Read};
use std::ops::RangeInclusive;

use thiserror::Error;

/// The largest window, in bytes.
pub const MAX_WINDOW: u64 = 1 << MAX_WINDOW_LOG;
const MAX_WINDOW_LOG: u32 = 23;
/// No header is longer, in bytes: magic, descriptor, window, length.
pub const MAX_HEADER_BYTES: usize = 4 + 1 + 1 + 8;

const MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();
const MAX_BLOCK_BYTES: u64 = 128 << 10;
const BLOCK_HEADER_BYTES: usize = 3;
const CHECKSUM_BYTES: u32 = 4;

/// Bytes that are not the one frame that is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ZstdError {
    /// Other first bytes: a skippable frame's, perhaps.
    #[error("it does not begin with a zstd frame")]
    Magic,
    /// A header that sets what has to be zero.
    #[error("the zstd frame has a reserved bit set")]
    Reserved,
    /// A frame that names a dictionary.
    #[error("the zstd frame needs a dictionary")]
    Dictionary,
    /// A frame that does not say how long it is.
    #[error("the zstd frame does not say how long its content is")]
    NoLength,
    /// Another length than is allowed.
    #[error("the zstd frame has {found} bytes of content, which is not the right length")]
    Length {
        /// What the header says, in bytes.
        found: u64,
    },
    /// A window above [`MAX_WINDOW`].
    #[error("the zstd frame needs a window of {bytes} bytes; 8 MiB is the limit")]
    Window {
        /// What the header says, in bytes.
        bytes: u64,
    },
    /// A block of a kind or length that there is not.
    #[error("the zstd frame has a block that is not valid")]
    Block,
    /// An end before the frame's.
    #[error("the zstd frame is cut short")]
    Truncated,
    /// Bytes after the frame.
    #[error("bytes follow the zstd frame")]
    Trailing,
    /// What the decoder refuses.
    #[error("the zstd frame does not decompress to what it should be")]
    Content,
}

/// What a frame's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Of the header itself, in bytes.
    pub length: usize,
    /// Of what the frame decompresses to, in bytes.
    pub content: u64,
    window: u64,
    has_checksum: bool,
}

impl Header {
    /// Reads the header that `bytes` begin with: nothing where they are too few.
    ///
    /// # Errors
    /// When it is none, or says what is not allowed, but for the length of the content.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, ZstdError> {
        let known = bytes.len().min(MAGIC.len());
        if bytes[..known] != MAGIC[..known] {
            return Err(ZstdError::Magic);
        }
        let Some(descriptor) = bytes.get(MAGIC.len()) else {
            return Ok(None);
        };
        let shape = Shape::of(*descriptor)?;
        let Some(rest) = bytes.get(MAGIC.len() + 1..shape.header_length()) else {
            return Ok(None);
        };
        shape.read(rest).map(Some)
    }
}

/// What a frame header's descriptor says of the bytes that follow it.
struct Shape {
    single_segment: bool,
    has_checksum: bool,
    length_bytes: usize,
}

impl Shape {
    fn of(descriptor: u8) -> Result<Self, ZstdError> {
        if descriptor & 0b1000 != 0 {
            return Err(ZstdError::Reserved);
        }
        if descriptor & 0b11 != 0 {
            return Err(ZstdError::Dictionary);
        }
        let single_segment = descriptor & 0b10_0000 != 0;
        Ok(Self {
            single_segment,
            has_checksum: descriptor & 0b100 != 0,
            length_bytes: match descriptor >> 6 {
                0 if single_segment => 1,
                0 => return Err(ZstdError::NoLength),
                flag => 1 << flag,
            },
        })
    }

    fn header_length(&self) -> usize {
        MAGIC.len() + 1 + usize::from(!self.single_segment) + self.length_bytes
    }

    /// `rest` is what follows the descriptor.
    fn read(&self, rest: &[u8]) -> Result<Header, ZstdError> {
        let (window, length) = rest.split_at(rest.len() - self.length_bytes);
        let mut content = [0; 8];
        content[..length.len()].copy_from_slice(length);
        let content = u64::from_le_bytes(content) + if length.len() == 2 { 256 } else { 0 };
        let window = window.first().map_or(content, |byte| window_size(*byte));
        if window > MAX_WINDOW {
            return Err(ZstdError::Window { bytes: window });
        }
        Ok(Header {
            length: self.header_length(),
            content,
            window,
            has_checksum: self.has_checksum,
        })
    }
}

fn window_size(descriptor: u8) -> u64 {
    let base = 1 << (10 + (descriptor >> 3));
    base + base / 8 * u64::from(descriptor & 7)
}

/// Walks over a frame that comes in pieces, cut anywhere.
#[derive(Debug)]
pub struct Walk {
    allowed: RangeInclusive<u64>,
    state: State,
    /// A header that is not complete yet.
    partial: [u8; MAX_HEADER_BYTES],
    filled: usize,
    max_block: u64,
    has_checksum: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    BlockHeader,
    Block { left: u32, is_last: bool },
    Checksum { left: u32 },
    Done,
}

impl Walk {
    /// Of a frame whose content has a length that is `allowed`.
    pub fn new(allowed: RangeInclusive<u64>) -> Self {
        Self {
            allowed,
            state: State::Header,
            partial: [0; MAX_HEADER_BYTES],
            filled: 0,
            max_block: 0,
            has_checksum: false,
        }
    }

    /// Looks at the next bytes.
    ///
    /// # Errors
    /// When they are not a frame that is allowed.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), ZstdError> {
        while !bytes.is_empty() {
            let taken = match self.state {
                State::Header => self.header(bytes)?,
                State::BlockHeader => self.block_header(bytes)?,
                State::Block { left, is_last } => self.skip(bytes, left, is_last),
                State::Checksum { left } => self.skip_checksum(bytes, left),
                State::Done => return Err(ZstdError::Trailing),
            };
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Says that there are no more bytes.
    ///
    /// # Errors
    /// When the frame is not complete.
    pub fn finish(&self) -> Result<(), ZstdError> {
        match self.state {
            State::Done => Ok(()),
            _ => Err(ZstdError::Truncated),
        }
    }

    fn header(&mut self, bytes: &[u8]) -> Result<usize, ZstdError> {
        let taken = self.fill(bytes, MAX_HEADER_BYTES);
        let Some(header) = Header::parse(&self.partial[..self.filled])? else {
            return Ok(taken);
        };
        if !self.allowed.contains(&header.content) {
            let found = header.content;
            return Err(ZstdError::Length { found });
        }
        self.max_block = header.window.min(MAX_BLOCK_BYTES);
        self.has_checksum = header.has_checksum;
        self.state = State::BlockHeader;
        let before = self.filled - taken;
        self.filled = 0;
        Ok(header.length - before)
    }

    fn block_header(&mut self, bytes: &[u8]) -> Result<usize, ZstdError> {
        let taken = self.fill(bytes, BLOCK_HEADER_BYTES);
        if self.filled < BLOCK_HEADER_BYTES {
            return Ok(taken);
        }
        self.filled = 0;
        let header = u32::from_le_bytes([self.partial[0], self.partial[1], self.partial[2], 0]);
        let (is_last, kind, size) = (header & 1 == 1, header >> 1 & 3, header >> 3);
        if u64::from(size) > self.max_block || kind == 3 {
            return Err(ZstdError::Block);
        }
        // A run has one byte, however long it comes out.
        let left = if kind == 1 { 1 } else { size };
        self.skip(&[], left, is_last);
        Ok(taken)
    }

    /// Takes `bytes` into what is there of a header, until it has `wanted`.
    fn fill(&mut self, bytes: &[u8], wanted: usize) -> usize {
        let taken = bytes.len().min(wanted - self.filled);
        self.partial[self.filled..][..taken].copy_from_slice(&bytes[..taken]);
        self.filled += taken;
        taken
    }

    fn skip(&mut self, bytes: &[u8], left: u32, is_last: bool) -> usize {
        let (taken, left) = skipped(bytes, left);
        self.state = match left {
            0 if is_last && self.has_checksum => State::Checksum {
                left: CHECKSUM_BYTES,
            },
            0 if is_last => State::Done,
            0 => State::BlockHeader,
            left => State::Block { left, is_last },
        };
        taken
    }

    fn skip_checksum(&mut self, bytes: &[u8], left: u32) -> usize {
        let (taken, left) = skipped(bytes, left);
        self.state = match left {
            0 => State::Done,
            left => State::Checksum { left },
        };
        taken
    }
}

/// How many of `bytes` are among the `left`, and how many of those are left then.
fn skipped(bytes: &[u8], left: u32) -> (usize, u32) {
    let taken = u32::try_from(bytes.len()).map_or(left, |length| length.min(left));
    (taken as usize, left - taken)
}

/// Decodes frames that are in memory.
pub struct Decoder(::zstd::bulk::Decompressor<'static>);

impl Decoder {
    /// # Errors
    /// When there is no memory for it.
    pub fn new() -> io::Result<Self> {
        ::zstd::bulk::Decompressor::new().map(Self)
    }

    /// Decodes `frame` into all of `out`.
    ///
    /// # Errors
    /// When it is not exactly one frame that is allowed and has the length of `out`.
    pub fn decode(&mut self, frame: &[u8], out: &mut [u8]) -> Result<(), ZstdError> {
        let length = out.len() as u64;
        let mut walk = Walk::new(length..=length);
        walk.push(frame)?;
        walk.finish()?;
        match self.0.decompress_to_buffer(frame, out) {
            Ok(written) if written == out.len() => Ok(()),
            _ => Err(ZstdError::Content),
        }
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Decoder").finish_non_exhaustive()
    }
}

/// Reads what a frame that comes as a stream decompresses to. What is wrong with the frame is inside the errors.
pub struct Reader<R: Read>(::zstd::stream::read::Decoder<'static, io::BufReader<Walked<R>>>);

impl<R: Read> Reader<R> {
    /// # Errors
    /// When there is no memory for it.
    pub fn new(frame: R, allowed: RangeInclusive<u64>) -> io::Result<Self> {
        let walked = Walked {
            frame,
            walk: Walk::new(allowed),
            failed: false,
        };
        let mut decoder = ::zstd::stream::read::Decoder::new(walked)?.single_frame();
        decoder.window_log_max(MAX_WINDOW_LOG)?;
        Ok(Self(decoder))
    }

    /// Says that all was read that there should be.
    ///
    /// # Errors
    /// When the frame has more, or does not end where the stream does.
    pub fn finish(mut self) -> io::Result<()> {
        if self.read(&mut [0])? != 0 {
            return Err(io::Error::other(ZstdError::Content));
        }
        let mut rest = self.0.finish();
        io::copy(&mut rest, &mut io::sink())?;
        rest.get_ref().walk.finish().map_err(io::Error::other)
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(out);
        read.map_err(|error| {
            if self.0.get_ref().get_ref().failed {
                return error;
            }
            io::Error::other(match error.kind() {
                io::ErrorKind::UnexpectedEof => ZstdError::Truncated,
                _ => ZstdError::Content,
            })
        })
    }
}

impl<R: Read> fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reader").finish_non_exhaustive()
    }
}

/// Hands on what the walk has seen, and remembers whether that went wrong: other errors are the decoder's.
struct Walked<R> {
    frame: R,
    walk: Walk,
    failed: bool,
}

impl<R: Read> Walked<R> {
    fn next(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.frame.read(out)?;
        self.walk.push(&out[..read]).map_err(io::Error::other)?;
        Ok(read)
    }
}

impl<R: Read> Read for Walked<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.next(out);
        let is_wrong = |error: &io::Error| error.kind() != io::ErrorKind::Interrupted;
        self.failed |= read.as_ref().is_err_and(is_wrong);
        read
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MANY: u64 = u64::MAX;

    fn walk(frame: &[u8]) -> Result<(), ZstdError> {
        let mut walk = Walk::new(0..=MANY);
        walk.push(frame)?;
        walk.finish()
    }

    fn header(descriptor: u8, rest: &[u8]) -> Vec<u8> {
        [&MAGIC[..], &[descriptor], rest].concat()
    }

    /// A frame of one block.
    fn frame(descriptor: u8, rest: &[u8], block: u32, body: &[u8]) -> Vec<u8> {
        let block = &block.to_le_bytes()[..BLOCK_HEADER_BYTES];
        [&header(descriptor, rest), block, body].concat()
    }

    fn compressed(content: &[u8]) -> Vec<u8> {
        ::zstd::bulk::compress(content, 1).unwrap()
    }

    #[test]
    fn headers_say_what_the_rfc_says() {
        let read = |bytes: Vec<u8>| {
            Header::parse(&bytes)
                .unwrap()
                .map(|it| (it.content, it.window))
        };
        assert_eq!(read(header(0x20, &[7])), Some((7, 7)));
        assert_eq!(read(header(0x60, &[1, 1])), Some((513, 513)));
        assert_eq!(read(header(0x40, &[0, 0, 0])), Some((256, 1024)));
        assert_eq!(read(header(0x80, &[0x0f, 0, 0, 1, 0])), Some((65536, 3840)));
        let long = header(0xc0, &[0x68, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(read(long.clone()), Some((1 << 56, 8 << 20)));
        for length in 0..long.len() {
            assert_eq!(Header::parse(&long[..length]), Ok(None), "{length}");
        }
    }

    #[test]
    fn refuses_what_is_not_one_plain_frame() {
        let good = frame(0x20, &[1], 1 | 1 << 3, b"x");
        assert_eq!(walk(&good), Ok(()));
        let refused = |bytes: &[u8], fault| assert_eq!(walk(bytes), Err(fault), "{bytes:x?}");
        refused(b"", ZstdError::Truncated);
        refused(&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0], ZstdError::Magic);
        refused(
            &[&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0], &good[..]].concat(),
            ZstdError::Magic,
        );
        refused(&[0x22, 0xb5, 0x2f, 0xfd], ZstdError::Magic);
        refused(&header(0x28, &[1]), ZstdError::Reserved);
        refused(&header(0x21, &[0, 1]), ZstdError::Dictionary);
        refused(&header(0x23, &[1, 2, 3, 4, 1]), ZstdError::Dictionary);
        refused(&header(0x00, &[0]), ZstdError::NoLength);
        refused(
            &header(0x80, &[0x69, 1, 0, 0, 0]),
            ZstdError::Window { bytes: 9 << 20 },
        );
        let long = ((8_u32 << 20) + 1).to_le_bytes();
        refused(
            &header(0xa0, &long),
            ZstdError::Window {
                bytes: (8 << 20) + 1,
            },
        );
        refused(
            &frame(0x20, &[1], 1 | 3 << 1 | 1 << 3, b"x"),
            ZstdError::Block,
        );
        refused(&frame(0x20, &[1], 1 | 2 << 3, b"xx"), ZstdError::Block);
        refused(&[&good[..], b"x"].concat(), ZstdError::Trailing);
        refused(&[&good[..], &good[..]].concat(), ZstdError::Trailing);
        refused(&good[..good.len() - 1], ZstdError::Truncated);
        // Not the last block, and nothing after it.
        refused(&frame(0x20, &[1], 1 << 3, b"x"), ZstdError::Truncated);
        // A checksum that is not there.
        refused(&frame(0x24, &[1], 1 | 1 << 3, b"x"), ZstdError::Truncated);
        assert_eq!(walk(&frame(0x24, &[1], 1 | 1 << 3, b"x1234")), Ok(()));
        refused(
            &frame(0x24, &[1], 1 | 1 << 3, b"x12345"),
            ZstdError::Trailing,
        );
    }

    #[test]
    fn another_length_is_refused_before_a_decoder_sees_it() {
        let bytes = compressed(&[7; 5000]);
        let mut decoder = Decoder::new().unwrap();
        for length in [0, 4999, 5001] {
            let decoded = decoder.decode(&bytes, &mut vec![0; length]);
            assert_eq!(decoded, Err(ZstdError::Length { found: 5000 }));
        }
        let mut out = [0; 5000];
        assert_eq!(decoder.decode(&bytes, &mut out), Ok(()));
        assert_eq!(out, [7; 5000]);
        let mut reader = Reader::new(&*bytes, 0..=4999).unwrap();
        let error = reader.read(&mut out).unwrap_err();
        let fault = error.get_ref().unwrap().downcast_ref::<ZstdError>();
        assert_eq!(fault, Some(&ZstdError::Length { found: 5000 }));
    }

    // What a frame says of its length is not what its blocks come to.
    #[test]
    fn a_frame_that_says_another_length_than_it_has_is_refused() {
        let run = frame(0x80, &[0x38, 0, 0, 1, 0], 1 | 1 << 1 | 1000 << 3, b"x");
        assert_eq!(walk(&run), Ok(()));
        let decoded = Decoder::new().unwrap().decode(&run, &mut [0; 65536]);
        assert_eq!(decoded, Err(ZstdError::Content));
        let mut reader = Reader::new(&*run, 0..=MANY).unwrap();
        assert!(io::copy(&mut reader, &mut io::sink()).is_err());
    }

    #[test]
    fn a_stream_ends_where_its_frame_does() {
        let content: Vec<u8> = (0..300_000_u32)
            .flat_map(|at| (at / 7).to_le_bytes())
            .collect();
        let bytes = compressed(&content);
        let read = |bytes: &[u8]| {
            let mut reader = Reader::new(bytes, 0..=MANY)?;
            let mut all = Vec::new();
            reader.read_to_end(&mut all)?;
            reader.finish().map(|()| all)
        };
        assert!(read(&bytes).unwrap() == content);
        assert!(read(&bytes[..bytes.len() - 1]).is_err());
        assert!(read(&[&bytes[..], b"x"].concat()).is_err());
        assert!(read(&[&bytes[..], &bytes[..]].concat()).is_err());
        let early = Reader::new(&*bytes, 0..=MANY).unwrap();
        assert!(early.finish().is_err(), "there is more to read");
    }

    proptest! {
        #[test]
        fn what_the_library_writes_is_walked_over_however_it_is_cut(
            content in proptest::collection::vec(0_u8..4, 0..2000),
            repeat in 1_usize..200,
            level in 1..5,
            piece in 1_usize..50,
        ) {
            let content = content.repeat(repeat);
            let bytes = ::zstd::bulk::compress(&content, level).unwrap();
            let mut walk = Walk::new(content.len() as u64..=content.len() as u64);
            for piece in bytes.chunks(piece) {
                prop_assert!(walk.finish().is_err());
                prop_assert_eq!(walk.push(piece), Ok(()));
            }
            prop_assert_eq!(walk.finish(), Ok(()));
            let mut out = vec![0; content.len()];
            prop_assert_eq!(Decoder::new().unwrap().decode(&bytes, &mut out), Ok(()));
            prop_assert_eq!(out, content);
        }

        #[test]
        fn changed_frames_decode_to_their_length_or_not_at_all(
            content in proptest::collection::vec(0_u8..4, 1..600),
            at: usize,
            byte: u8,
        ) {
            let mut bytes = compressed(&content);
            let at = at % bytes.len();
            bytes[at] = byte;
            let mut out = vec![0; content.len()];
            let whole = Decoder::new().unwrap().decode(&bytes, &mut out);
            let length = content.len() as u64;
            let mut reader = Reader::new(&*bytes, length..=length).unwrap();
            let mut streamed = Vec::new();
            let read = reader.read_to_end(&mut streamed).and_then(|_| reader.finish());
            prop_assert_eq!(whole.is_ok(), read.is_ok());
            if whole.is_ok() {
                prop_assert_eq!(streamed, out);
            }
        }
    }
}

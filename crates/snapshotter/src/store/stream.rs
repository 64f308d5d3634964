//! One pass over a file's data: read, hash and copy, each byte once.
//!
//! The unit of work is a *piece*: an aligned part of the file's SPF1 stream, header and descriptors included, with the
//! data read straight into its place. Hashes then always see full aligned pieces (BLAKE3 builds its tree in whole
//! subtrees), whatever the extents are. A stream of more than one piece is worked on by several threads
//! ([`lanes`](super::lanes)), a shorter one by its caller alone.

use std::cell::RefCell;
use std::fs::File;
use std::hash::Hasher;
use std::io;
use std::os::unix::fs::FileExt;

use twox_hash::XxHash3_64;

use super::copy::{Copy, Offer};
use super::lanes;
use crate::format::spf;
use crate::fs::{is_bad_medium, scan};
use crate::words::digest::{Checksum, Digest};
use crate::words::extent::ExtentMap;

/// Bytes of a piece. Large enough to make threads and system calls cheap, small enough to stay in a core's cache.
pub(crate) const PIECE: usize = 1 << 20;

/// What one thread alone reads at once, in bytes.
const ALONE: usize = 256 << 10;

/// Which hashes a pass computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hashing {
    /// Digest and checksum: a capture.
    Both,
    /// The checksum alone: a verification.
    Checksum,
}

/// Where a pass puts the data it reads.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Output<'a> {
    /// Nowhere.
    None,
    /// Into memory, one extent after the other.
    Memory(&'a RefCell<Vec<u8>>),
    /// Into a file that is all hole; `sync_soon` starts the writing to disk early.
    File { file: &'a File, sync_soon: bool },
    /// The same, perhaps, and into another one where that can be.
    #[cfg_attr(
        not(any(feature = "registry", test)),
        expect(dead_code, reason = "nobody waits for what is not fetched")
    )]
    Offered {
        file: Option<&'a File>,
        offer: &'a Offer,
    },
}

#[cfg(any(feature = "registry", test))]
impl<'a> Output<'a> {
    /// Into files that are in no hurry to reach the disk, since their bytes are elsewhere too.
    pub(crate) fn fetched(file: Option<&'a File>, offer: Option<&'a Offer>) -> Self {
        match (file, offer) {
            (file, Some(offer)) => Self::Offered { file, offer },
            (Some(file), None) => Self::File {
                file,
                sync_soon: false,
            },
            (None, None) => Self::None,
        }
    }
}

/// What a pass found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hashes {
    /// Zero where it was not asked for.
    pub(crate) digest: Digest,
    pub(crate) checksum: Checksum,
}

/// Reads the mapped data of `file` once. `progress` hears of every piece's data bytes and can stop the pass.
///
/// # Errors
/// The operating system's; `UnexpectedEof` when the file is shorter than its map; what `progress` says.
pub(crate) fn pass(
    file: &File,
    map: &ExtentMap,
    output: Output<'_>,
    hashing: Hashing,
    progress: &(dyn Fn(u64) -> io::Result<()> + Sync),
) -> io::Result<Hashes> {
    let mut source = Source::new(map);
    let len = map.stream_size();
    // Writing the last extent sets the length, unless a hole follows it.
    let ends = map.extents().last().map(|last| last.end());
    let size = (len > PIECE as u64 || ends != Some(map.size())).then_some(map.size());
    pass_over(&mut source, file, size, len, output, hashing, progress)
}

/// The pass over a stream of `len` bytes in a file. Where there is a `size`, the copies are given it first.
pub(super) fn pass_over(
    source: &mut dyn Fill,
    file: &File,
    size: Option<u64>,
    len: u64,
    output: Output<'_>,
    hashing: Hashing,
    progress: Progress<'_>,
) -> io::Result<Hashes> {
    let copies = match output {
        Output::None => Vec::new(),
        Output::Memory(memory) => {
            let mut take = |piece: &Piece| {
                for (bytes, _) in piece.parts() {
                    memory.borrow_mut().extend_from_slice(bytes);
                }
                Ok(())
            };
            return pass_alone(source, file, &mut take, hashing, progress);
        }
        Output::File { file, sync_soon } => vec![Copy::new(file, sync_soon)],
        Output::Offered { file, offer } => {
            let copy = file.map(|file| Copy::new(file, false));
            copy.into_iter().chain([Copy::offered(offer)]).collect()
        }
    };
    for copy in &copies {
        copy.start(size)?;
    }
    if len > PIECE as u64 {
        return lanes::run(source, file, len, &copies, hashing, progress);
    }
    let mut take = |piece: &Piece| copies.iter().try_for_each(|copy| copy.write_piece(piece));
    pass_alone(source, file, &mut take, hashing, progress)
}

pub(crate) type Progress<'a> = &'a (dyn Fn(u64) -> io::Result<()> + Sync);

thread_local! {
    static ALONES: RefCell<Piece> = RefCell::new(Piece::new(ALONE));
}

fn pass_alone(
    source: &mut dyn Fill,
    file: &File,
    take: &mut dyn FnMut(&Piece) -> io::Result<()>,
    hashing: Hashing,
    progress: Progress<'_>,
) -> io::Result<Hashes> {
    let mut hashers = Hashers::new(hashing);
    ALONES.with_borrow_mut(|piece| {
        loop {
            fill(source, file, piece)?;
            if piece.bytes().is_empty() {
                return io::Result::Ok(());
            }
            hashers.update(piece.bytes());
            take(piece)?;
            progress(piece.data_size())?;
        }
    })?;
    Ok(hashers.finish())
}

/// The hashes of a stream that comes in order.
pub(crate) struct Hashers {
    digest: Option<XxHash3_64>,
    checksum: blake3::Hasher,
}

impl Hashers {
    pub(crate) fn new(hashing: Hashing) -> Self {
        Self {
            digest: (hashing == Hashing::Both).then(XxHash3_64::new),
            checksum: blake3::Hasher::new(),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        if let Some(digest) = &mut self.digest {
            digest.write(bytes);
        }
        self.checksum.update(bytes);
    }

    pub(crate) fn finish(self) -> Hashes {
        Hashes {
            digest: Digest::from_u64(self.digest.map_or(0, |hasher| hasher.finish())),
            checksum: Checksum::from_bytes(*self.checksum.finalize().as_bytes()),
        }
    }
}

/// An aligned part of a stream, and which of its bytes belong where in the file.
pub(super) struct Piece {
    pub(super) buffer: Vec<u8>,
    pub(super) len: usize,
    /// What of the buffer is to be read from the stream's file, and from where.
    pub(super) reads: Vec<Segment>,
    /// What of the buffer is data, and of which place in the file that the stream is made of.
    pub(super) data: Vec<Segment>,
    /// Where the extent ends that goes on in the next piece, if one does.
    pub(super) extent_end: Option<u64>,
}

#[derive(Clone, Copy)]
pub(super) struct Segment {
    pub(super) file_offset: u64,
    pub(super) start: usize,
    pub(super) len: usize,
}

impl Piece {
    pub(super) fn new(capacity: usize) -> Self {
        Self::within(vec![0; capacity])
    }

    /// A piece in memory that is there already, whatever it holds.
    pub(super) fn within(buffer: Vec<u8>) -> Self {
        Self {
            buffer,
            len: 0,
            reads: Vec::new(),
            data: Vec::new(),
            extent_end: None,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    pub(super) fn room(&self) -> usize {
        self.buffer.len() - self.len
    }

    /// The memory, and how much of it is the piece.
    #[cfg(feature = "registry")]
    pub(super) fn into_parts(self) -> (Vec<u8>, usize) {
        (self.buffer, self.len)
    }

    pub(super) fn data_size(&self) -> u64 {
        self.data.iter().map(|segment| segment.len as u64).sum()
    }

    /// Each stretch of data and its offset in the file.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.data.iter().map(|segment| {
            let bytes = &self.buffer[segment.start..segment.start + segment.len];
            (bytes, segment.file_offset)
        })
    }

    /// Reads what was set out.
    pub(super) fn read(&mut self, file: &File) -> io::Result<()> {
        for segment in &self.reads {
            let place = &mut self.buffer[segment.start..segment.start + segment.len];
            read_at(file, place, segment.file_offset)?;
        }
        Ok(())
    }
}

/// An SPF1 stream, piece by piece. Between the two steps a piece is [read](Piece::read), on any thread; each of them sees
/// all pieces in order.
pub(super) trait Fill: Send {
    /// Says how long the next piece is and what of it is to be read from the file, and writes what is in no file. A piece
    /// is full unless the stream ends in it; after the end come empty ones.
    fn set_out(&mut self, piece: &mut Piece);

    /// Looks into a piece that was read: what of it is data, where that was not known before.
    fn look_into(&mut self, _piece: &mut Piece) -> io::Result<()> {
        Ok(())
    }
}

/// Fills a piece to the brim, or to the end of the stream.
pub(super) fn fill(source: &mut dyn Fill, file: &File, piece: &mut Piece) -> io::Result<()> {
    source.set_out(piece);
    piece.read(file)?;
    source.look_into(piece)
}

/// Reads from a file that is not written. What the disk cannot give back is wrong, as bytes are that changed; it is said
/// here, because of a file that is written the same error means something else.
pub(super) fn read_at(file: &File, place: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(place, offset).map_err(unread)
}

fn unread(error: io::Error) -> io::Error {
    if is_bad_medium(&error) {
        io::Error::new(io::ErrorKind::InvalidData, error)
    } else {
        error
    }
}

/// Whether an error of a pass means that the bytes are not what they were: too few of them, not a packed stream, or none
/// that the disk gives back.
pub(crate) fn is_wrong(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
    )
}

/// The stream of a sparse file, made from its map and its data.
pub(super) struct Source<'a> {
    map: &'a ExtentMap,
    /// Header or descriptor bytes that did not fit the last piece.
    pending: Vec<u8>,
    /// Index of the extent being read, and how many of its bytes were.
    extent: usize,
    within: u64,
    opened: bool,
}

impl<'a> Source<'a> {
    pub(super) fn new(map: &'a ExtentMap) -> Self {
        Self {
            map,
            pending: spf::header(map.size(), map.extents().len() as u64).to_vec(),
            extent: 0,
            within: 0,
            opened: false,
        }
    }

    fn fill_pending(&mut self, piece: &mut Piece) {
        let take = self.pending.len().min(piece.room());
        piece.buffer[piece.len..piece.len + take].copy_from_slice(&self.pending[..take]);
        piece.len += take;
        self.pending.drain(..take);
    }

    fn set_out_data(&mut self, piece: &mut Piece, offset: u64, len: u64) {
        let left = usize::try_from(len - self.within).unwrap_or(usize::MAX);
        let segment = Segment {
            file_offset: offset + self.within,
            start: piece.len,
            len: left.min(piece.room()),
        };
        piece.reads.push(segment);
        piece.data.push(segment);
        piece.len += segment.len;
        self.within += segment.len as u64;
        if self.within == len {
            self.extent += 1;
            self.within = 0;
            self.opened = false;
        }
    }
}

impl Fill for Source<'_> {
    fn set_out(&mut self, piece: &mut Piece) {
        piece.len = 0;
        piece.reads.clear();
        piece.data.clear();
        while piece.room() > 0 {
            if !self.pending.is_empty() {
                self.fill_pending(piece);
            } else if let Some(extent) = self.map.extents().get(self.extent) {
                if !self.opened {
                    self.pending.extend(spf::descriptor(*extent));
                    self.opened = true;
                    continue;
                }
                self.set_out_data(piece, extent.offset, extent.len);
            } else {
                break;
            }
        }
        let extent = self.map.extents().get(self.extent);
        piece.extent_end = extent
            .filter(|_| self.within > 0)
            .map(|extent| extent.end());
    }
}

/// Whether every byte outside the map reads as zero: a hole that was written into is found here.
pub(crate) fn holes_are_zero(file: &File, map: &ExtentMap) -> io::Result<bool> {
    let found = scan::extents(file, map.size()).map_err(unread)?;
    let mut buffer = vec![0; ALONE];
    let mut written = found.extents().iter().peekable();
    let mut holes = map.holes().peekable();
    while let (Some(extent), Some(hole)) = (written.peek(), holes.peek()) {
        let (extent_end, hole_end) = (extent.offset + extent.len, hole.offset + hole.len);
        let from = hole.offset.max(extent.offset);
        if !is_zero(file, from, hole_end.min(extent_end), &mut buffer)? {
            return Ok(false);
        }
        if hole_end <= extent_end {
            holes.next();
        } else {
            written.next();
        }
    }
    Ok(true)
}

fn is_zero(file: &File, from: u64, to: u64, buffer: &mut [u8]) -> io::Result<bool> {
    let mut at = from;
    while at < to {
        let len = usize::try_from(to - at).map_or(buffer.len(), |left| left.min(buffer.len()));
        read_at(file, &mut buffer[..len], at)?;
        if buffer[..len].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += len as u64;
    }
    Ok(true)
}

/// Files smaller than this are copied without asking whether they look like a known one, in bytes.
pub(crate) const PROBED: u64 = 1 << 20;

const PAGES: u64 = 64;
const PAGE: u64 = 4096;

/// What a file looks like from afar: BLAKE3 of its size, its extents and 64 pages spread evenly over its data.
///
/// Two files that look alike are *probably* equal: worth hashing before copying, never worth trusting.
pub(crate) fn probe(file: &File, map: &ExtentMap) -> io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&map.encode());
    let mut page = [0_u8; PAGE as usize];
    let step = (map.data_size() / PAGES).max(PAGE);
    let mut extents = map.extents().iter();
    let mut passed = 0;
    let mut current = extents.next();
    for index in 0..PAGES {
        let wanted = index * step;
        while let Some(extent) = current
            && wanted >= passed + extent.len
        {
            passed += extent.len;
            current = extents.next();
        }
        let Some(extent) = current else { break };
        let within = wanted - passed;
        let len = (extent.len - within).min(PAGE) as usize;
        read_at(file, &mut page[..len], extent.offset + within)?;
        hasher.update(&page[..len]);
    }
    Ok(*hasher.finalize().as_bytes())
}

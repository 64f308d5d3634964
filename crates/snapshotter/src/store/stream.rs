//! One pass over a file's data: read, hash and copy, each byte once.
//!
//! The unit of work is a *piece*: an aligned part of the file's SPF1 stream, header and descriptors included, with the
//! data read straight into its place. Hashes then always see full aligned pieces (BLAKE3 builds its tree in whole
//! subtrees), whatever the extents are. Two threads share the work so that neither waits much: one reads and hashes
//! while the other writes; or, with nothing to write, one reads and takes XXH3 while the other takes BLAKE3.

use std::cell::RefCell;
use std::fs::File;
use std::hash::Hasher;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use twox_hash::XxHash3_64;

use crate::format::spf;
use crate::fs::place::start_writeback;
use crate::words::digest::{Checksum, Digest};
use crate::words::extent::ExtentMap;

/// Bytes of a piece. Large enough to make threads and system calls cheap, small enough to stay in a core's cache.
pub(crate) const PIECE: usize = 1 << 20;

/// Pieces in flight: one being read, one being hashed, and slack for uneven speeds.
const PIECES: usize = 4;

/// Streams up to this long are not worth a second thread, in bytes.
pub(super) const SMALL: u64 = 256 << 10;

/// Dirty bytes after which writing to disk is started ahead of the sync.
const WRITEBACK: u64 = 8 << 20;

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
    if let Output::File { file, .. } = output {
        crate::fs::hook::step("write")?;
        // Writing the last extent sets the length, unless a hole follows it.
        if map
            .extents()
            .last()
            .is_none_or(|last| last.end() < map.size())
        {
            file.set_len(map.size())?;
        }
    }
    let mut source = Source::new(file, map);
    pass_over(&mut source, map.stream_size(), output, hashing, progress)
}

/// The pass over a stream of `len` bytes, wherever it comes from.
pub(super) fn pass_over(
    source: &mut dyn Fill,
    len: u64,
    output: Output<'_>,
    hashing: Hashing,
    progress: Progress<'_>,
) -> io::Result<Hashes> {
    let large = len > SMALL;
    match output {
        Output::Memory(memory) => {
            let mut take = |bytes: &[u8], _| {
                memory.borrow_mut().extend_from_slice(bytes);
                Ok(())
            };
            pass_alone(source, &mut take, hashing, progress)
        }
        Output::None if large => pass_overlapped(source, None, hashing, progress),
        Output::None => pass_alone(source, &mut |_, _| Ok(()), hashing, progress),
        Output::File { file, sync_soon } => {
            let mut copy = Copy::new(file, sync_soon);
            if large {
                return pass_overlapped(source, Some(copy), hashing, progress);
            }
            let mut take = |bytes: &[u8], offset| copy.write(bytes, offset);
            pass_alone(source, &mut take, hashing, progress)
        }
    }
}

pub(crate) type Progress<'a> = &'a (dyn Fn(u64) -> io::Result<()> + Sync);

thread_local! {
    static SMALL_PIECE: RefCell<Piece> = RefCell::new(Piece::new(SMALL as usize));
}

fn pass_alone(
    source: &mut dyn Fill,
    take: &mut dyn FnMut(&[u8], u64) -> io::Result<()>,
    hashing: Hashing,
    progress: Progress<'_>,
) -> io::Result<Hashes> {
    let mut hashers = Hashers::new(hashing == Hashing::Both, true);
    SMALL_PIECE.with_borrow_mut(|piece| {
        loop {
            source.fill(piece)?;
            if piece.bytes().is_empty() {
                return io::Result::Ok(());
            }
            hashers.update(piece.bytes());
            piece.for_each_segment(&mut *take)?;
            progress(piece.data_size())?;
        }
    })?;
    Ok(hashers.finish().or(NOTHING))
}

/// Reads here, and does there what is the other half of the work.
fn pass_overlapped(
    source: &mut dyn Fill,
    mut copy: Option<Copy<'_>>,
    hashing: Hashing,
    progress: Progress<'_>,
) -> io::Result<Hashes> {
    let checksum_here = copy.is_some();
    let mut here = Hashers::new(hashing == Hashing::Both, checksum_here);
    let mut there = Hashers::new(false, !checksum_here);
    let (full_sender, full) = sync_channel::<Piece>(PIECES);
    let (empty_sender, empty) = sync_channel::<Piece>(PIECES);
    for _ in 0..PIECES {
        // The channel has room for all of them and its receiver lives here.
        let _ = empty_sender.send(Piece::new(PIECE));
    }
    std::thread::scope(|scope| {
        let other = scope.spawn(move || -> io::Result<Partial> {
            while let Ok(piece) = full.recv() {
                if let Some(copy) = &mut copy {
                    piece.for_each_segment(|bytes, offset| copy.write(bytes, offset))?;
                }
                there.update(piece.bytes());
                // The reader may have stopped on an error: then nobody wants the piece back.
                let _ = empty_sender.send(piece);
            }
            Ok(there.finish())
        });
        let read = read_pieces(source, &mut here, progress, &full_sender, &empty);
        drop(full_sender);
        let there = other
            .join()
            .map_err(|_| io::Error::other("the second thread of a pass panicked"))?;
        // Where the other thread failed, the reader only found it gone.
        let there = there?;
        read?;
        Ok(here.finish().or(there))
    })
}

fn read_pieces(
    source: &mut dyn Fill,
    hashers: &mut Hashers,
    progress: Progress<'_>,
    full: &SyncSender<Piece>,
    empty: &Receiver<Piece>,
) -> io::Result<()> {
    let gone = || io::Error::other("the second thread of a pass is gone");
    loop {
        let mut piece = empty.recv().map_err(|_| gone())?;
        source.fill(&mut piece)?;
        if piece.bytes().is_empty() {
            return Ok(());
        }
        hashers.update(piece.bytes());
        progress(piece.data_size())?;
        full.send(piece).map_err(|_| gone())?;
    }
}

/// The hashes one thread is to compute.
pub(crate) struct Hashers {
    digest: Option<XxHash3_64>,
    checksum: Option<blake3::Hasher>,
}

/// The hashes one thread has computed.
#[derive(Clone, Copy)]
pub(super) struct Partial {
    digest: Option<Digest>,
    checksum: Option<Checksum>,
}

pub(super) const NOTHING: Partial = Partial {
    digest: None,
    checksum: None,
};

impl Hashers {
    pub(super) fn new(digest: bool, checksum: bool) -> Self {
        Self {
            digest: digest.then(XxHash3_64::new),
            checksum: checksum.then(blake3::Hasher::new),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        if let Some(digest) = &mut self.digest {
            digest.write(bytes);
        }
        if let Some(checksum) = &mut self.checksum {
            checksum.update(bytes);
        }
    }

    pub(super) fn finish(self) -> Partial {
        Partial {
            digest: self.digest.map(|hasher| Digest::from_u64(hasher.finish())),
            checksum: self
                .checksum
                .map(|hasher| Checksum::from_bytes(*hasher.finalize().as_bytes())),
        }
    }
}

impl Partial {
    pub(super) fn or(self, other: Self) -> Hashes {
        Hashes {
            digest: self.digest.or(other.digest).unwrap_or(Digest::from_u64(0)),
            checksum: self
                .checksum
                .or(other.checksum)
                .unwrap_or(Checksum::from_bytes([0; 32])),
        }
    }
}

/// An aligned part of a stream, and which of its bytes belong where in the file.
pub(super) struct Piece {
    pub(super) buffer: Vec<u8>,
    pub(super) len: usize,
    pub(super) data: Vec<Segment>,
}

#[derive(Clone, Copy)]
pub(super) struct Segment {
    pub(super) file_offset: u64,
    pub(super) start: usize,
    pub(super) len: usize,
}

impl Piece {
    fn new(capacity: usize) -> Self {
        Self::within(vec![0; capacity])
    }

    /// A piece in memory that is there already, whatever it holds.
    pub(super) fn within(buffer: Vec<u8>) -> Self {
        Self {
            buffer,
            len: 0,
            data: Vec::new(),
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

    /// Calls `take` with each stretch of data and its offset in the file.
    fn for_each_segment(
        &self,
        mut take: impl FnMut(&[u8], u64) -> io::Result<()>,
    ) -> io::Result<()> {
        for segment in &self.data {
            let bytes = &self.buffer[segment.start..segment.start + segment.len];
            take(bytes, segment.file_offset)?;
        }
        Ok(())
    }
}

/// Produces a file's SPF1 stream piece by piece.
pub(super) trait Fill {
    /// Fills a piece to the brim, or to the end of the stream.
    fn fill(&mut self, piece: &mut Piece) -> io::Result<()>;
}

/// Whether an error of a pass means that the bytes are not what they were: too few of them, or not a packed stream.
pub(crate) fn is_wrong(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
    )
}

/// The stream of a sparse file, made from its map and its data.
pub(super) struct Source<'a> {
    file: &'a File,
    map: &'a ExtentMap,
    /// Header or descriptor bytes that did not fit the last piece.
    pending: Vec<u8>,
    /// Index of the extent being read, and how many of its bytes were.
    extent: usize,
    within: u64,
    opened: bool,
}

impl<'a> Source<'a> {
    pub(super) fn new(file: &'a File, map: &'a ExtentMap) -> Self {
        Self {
            file,
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

    fn fill_data(&mut self, piece: &mut Piece, offset: u64, len: u64) -> io::Result<()> {
        let left = usize::try_from(len - self.within).unwrap_or(usize::MAX);
        let segment = Segment {
            file_offset: offset + self.within,
            start: piece.len,
            len: left.min(piece.room()),
        };
        let place = &mut piece.buffer[segment.start..segment.start + segment.len];
        self.file.read_exact_at(place, segment.file_offset)?;
        piece.data.push(segment);
        piece.len += segment.len;
        self.within += segment.len as u64;
        if self.within == len {
            self.extent += 1;
            self.within = 0;
            self.opened = false;
        }
        Ok(())
    }
}

impl Fill for Source<'_> {
    fn fill(&mut self, piece: &mut Piece) -> io::Result<()> {
        piece.len = 0;
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
                self.fill_data(piece, extent.offset, extent.len)?;
            } else {
                break;
            }
        }
        Ok(())
    }
}

/// A copy being made.
pub(super) struct Copy<'a> {
    file: &'a File,
    sync_soon: bool,
    dirty: u64,
}

impl<'a> Copy<'a> {
    pub(super) fn new(file: &'a File, sync_soon: bool) -> Self {
        Self {
            file,
            sync_soon,
            dirty: 0,
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)?;
        self.dirty += bytes.len() as u64;
        if self.sync_soon && self.dirty >= WRITEBACK {
            start_writeback(self.file, 0, offset + bytes.len() as u64);
            self.dirty = 0;
        }
        Ok(())
    }
}

/// Whether every byte outside the map reads as zero: a hole that was written into is found here.
pub(crate) fn holes_are_zero(file: &File, map: &ExtentMap) -> io::Result<bool> {
    let found = crate::fs::scan::extents(file, map.size())?;
    let mut buffer = vec![0; SMALL as usize];
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
        file.read_exact_at(&mut buffer[..len], at)?;
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
        file.read_exact_at(&mut page[..len], extent.offset + within)?;
        hasher.update(&page[..len]);
    }
    Ok(*hasher.finalize().as_bytes())
}

//! One pass over a file's data: read, hash and copy, each byte once.
//!
//! The unit of work is a *piece*: an aligned part of the file's SPF1 stream, header and descriptors included, with the
//! data read straight into its place. Hashes then always see full aligned pieces (BLAKE3 builds its tree in whole
//! subtrees), whatever the extents are. A stream of more than one piece is worked on by several threads
//! ([`lanes`]), a shorter one by its caller alone. Nothing here knows the catalog: a pass is given files and maps.

#[cfg(feature = "registry")]
pub(crate) mod buffers;
mod content;
mod copy;
mod each;
mod hashes;
pub(crate) mod lanes;
mod packed;
pub(crate) mod piece;
mod probe;
pub(crate) mod source;
mod tree;
pub(crate) mod turns;
#[cfg(feature = "registry")]
pub(crate) mod wire;

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

pub(crate) use content::{content_of, copy_of};
pub(crate) use copy::Offer;
#[cfg(feature = "registry")]
pub(crate) use each::both;
pub(crate) use each::{for_each, on_all_cores};
pub(crate) use hashes::{Hashers, Hashes, Hashing};
pub(crate) use packed::{claimed_size, pass_packed};
pub(crate) use probe::{PROBED, holes_are_zero, probe};

use crate::fs::is_bad_medium;
use crate::words::extent::ExtentMap;
use copy::Copy;
use piece::{Fill, Piece, fill};
use source::Source;

/// Bytes of a piece. Large enough to make threads and system calls cheap, small enough to stay in a core's cache.
pub(crate) const PIECE: usize = 1 << 20;

/// What one thread alone reads at once, in bytes.
const ALONE: usize = 256 << 10;

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

/// Reads from a file that is not written. What the disk cannot give back is wrong, as bytes are that changed; it is said
/// here, because of a file that is written the same error means something else.
fn read_at(file: &File, place: &mut [u8], offset: u64) -> io::Result<()> {
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

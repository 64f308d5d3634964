//! One pass over a long stream in a file, by several threads.
//!
//! Each thread, a *lane*, takes the next piece and does everything with it: reads it, hashes it, writes it. So a piece
//! stays in the cache of one core, and lanes wait for each other only where order matters: pieces are set out in order
//! (a short step, before they are read), and in order they are looked into and given to XXH3, which knows no tree. BLAKE3
//! does ([`tree`](super::tree)), and it takes longest. Reading, BLAKE3 and writing, nearly all of the work, need no order.
//!
//! Why no lane waits for ever: the piece whose turn it is was taken by a lane that waits for nobody before its turn; and a
//! lane that fails or panics stops all.

use std::fs::File;
use std::hash::Hasher as _;
use std::io;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use twox_hash::XxHash3_64;

use super::copy::Copy;
use super::piece::{Fill, Piece};
use super::tree::{Tree, subtree};
use super::{Hashes, Hashing, PIECE, Progress};
use crate::words::digest::{Checksum, Digest};

/// Lanes of one pass at most: writes to one file take turns, so more would only wait.
const MOST: usize = 4;

/// Reads, hashes and copies a stream of `len` bytes, more than a piece. Where `source` gives fewer, or a copy cannot be
/// written, or `progress` says so, it fails with the first such error.
pub(super) fn run(
    source: &mut (dyn Fill + '_),
    file: &File,
    len: u64,
    copies: &[Copy<'_>],
    hashing: Hashing,
    progress: Progress<'_>,
) -> io::Result<Hashes> {
    let count = len.div_ceil(PIECE as u64);
    let digest = (hashing == Hashing::Both).then(XxHash3_64::new);
    let pass = Pass {
        file,
        copies,
        progress,
        count,
        order: Mutex::new(Order {
            source,
            digest,
            set_out: 0,
            turn: 0,
            stopped: None,
        }),
        moved: Condvar::new(),
        tree: Mutex::default(),
    };
    let helpers = Helpers::hire(usize::try_from(count - 1).unwrap_or(MOST).min(MOST - 1));
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..helpers.0).map_while(|_| pass.start(scope)).collect();
        pass.run_lane();
        for other in others {
            if let Err(panic) = other.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    pass.finish()
}

struct Pass<'a> {
    file: &'a File,
    copies: &'a [Copy<'a>],
    progress: Progress<'a>,
    /// Pieces.
    count: u64,
    order: Mutex<Order<'a>>,
    /// The turn passed on, or everything stops.
    moved: Condvar,
    tree: Mutex<Tree>,
}

/// What happens in order.
struct Order<'a> {
    source: &'a mut (dyn Fill + 'a),
    digest: Option<XxHash3_64>,
    /// Pieces that are taken.
    set_out: u64,
    /// The piece that is to be looked into.
    turn: u64,
    /// Why nobody goes on.
    stopped: Option<io::Error>,
}

impl<'p> Pass<'p> {
    fn start<'s>(&'s self, scope: &'s Scope<'s, '_>) -> Option<ScopedJoinHandle<'s, ()>> {
        let lane = Builder::new().name("snapshotter-pass".to_owned());
        // Out of threads: slower, and right.
        lane.spawn_scoped(scope, || self.run_lane()).ok()
    }

    fn run_lane(&self) {
        let _guard = StopOnPanic(self);
        let mut piece = Piece::new(PIECE);
        while let Some(index) = self.take(&mut piece) {
            if let Err(error) = self.work(index, &mut piece) {
                self.stop(error);
            }
        }
    }

    /// The next piece to work on.
    fn take(&self, piece: &mut Piece) -> Option<u64> {
        let mut order = self.lock();
        if order.stopped.is_some() || order.set_out == self.count {
            return None;
        }
        order.source.set_out(piece);
        order.set_out += 1;
        Some(order.set_out - 1)
    }

    fn work(&self, index: u64, piece: &mut Piece) -> io::Result<()> {
        piece.read(self.file)?;
        let value = subtree(index, piece.bytes());
        if !self.take_turn(index, piece)? {
            return Ok(());
        }
        for copy in self.copies {
            copy.write_piece(piece)?;
        }
        (self.progress)(piece.data_size())?;
        let mut tree = self.tree.lock().unwrap_or_else(PoisonError::into_inner);
        tree.put(index, value);
        Ok(())
    }

    /// What has to be done in order; `false`: somebody has stopped.
    fn take_turn(&self, index: u64, piece: &mut Piece) -> io::Result<bool> {
        let not_yet = |order: &mut Order<'_>| order.turn != index && order.stopped.is_none();
        let mut order = self
            .moved
            .wait_while(self.lock(), not_yet)
            .unwrap_or_else(PoisonError::into_inner);
        if order.stopped.is_some() {
            return Ok(false);
        }
        order.source.look_into(piece)?;
        if let Some(digest) = &mut order.digest {
            digest.write(piece.bytes());
        }
        order.turn += 1;
        drop(order);
        self.moved.notify_all();
        Ok(true)
    }

    fn stop(&self, error: io::Error) {
        self.lock().stopped.get_or_insert(error);
        self.moved.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Order<'p>> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(self) -> io::Result<Hashes> {
        let order = self.order.into_inner();
        let order = order.unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = order.stopped {
            return Err(error);
        }
        let tree = self.tree.into_inner();
        let tree = tree.unwrap_or_else(PoisonError::into_inner);
        let checksum: Option<Checksum> = tree.root(self.count);
        Ok(Hashes {
            digest: Digest::from_u64(order.digest.map_or(0, |digest| digest.finish())),
            checksum: checksum.ok_or_else(|| io::Error::other("a pass lost a piece"))?,
        })
    }
}

/// Without it, others would wait for the turn of a lane that is gone.
struct StopOnPanic<'a, 'p>(&'a Pass<'p>);

impl Drop for StopOnPanic<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop(io::Error::other("a lane of a pass panicked"));
        }
    }
}

/// Lanes besides those that callers run themselves, of all passes of this process: together they are fewer than the
/// processors, for more would only push each other's pieces out of the caches.
#[derive(Debug)]
pub(crate) struct Helpers(usize);

static HIRED: AtomicUsize = AtomicUsize::new(0);

impl Helpers {
    pub(crate) fn hire(wanted: usize) -> Self {
        let mut got = 0;
        let _ = HIRED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |hired| {
            got = wanted.min((processors() - 1).saturating_sub(hired));
            Some(hired + got)
        });
        Self(got)
    }

    pub(crate) fn count(&self) -> usize {
        self.0
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        HIRED.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// Asked once: the answer takes reading files of the system's.
fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, NonZero::get))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::format::spf::digest_of_stream;
    use crate::pass::copy::Offer;
    use crate::pass::pass_packed;
    use crate::pass::piece::fill;
    use crate::pass::source::Source;
    use crate::pass::{Output, pass};
    use crate::words::extent::{Extent, ExtentMap};

    const MIB: u64 = 1 << 20;

    /// A file with data in these extents, of a size, and its map.
    fn sparse(extents: &[(u64, u64)], size: u64) -> (File, ExtentMap) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        let mut map = ExtentMap::hole(size).unwrap();
        for (offset, len) in extents {
            let byte = |at: u64| ((offset + at) / 3 + at / 4093) as u8;
            let bytes: Vec<u8> = (0..*len).map(byte).collect();
            file.write_all_at(&bytes, *offset).unwrap();
            let (offset, len) = (*offset, *len);
            map.push(Extent { offset, len }).unwrap();
        }
        (file, map)
    }

    fn bytes_of(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    /// The stream, made by one thread.
    fn stream(file: &File, map: &ExtentMap) -> Vec<u8> {
        let mut source = Source::new(map);
        let mut piece = Piece::new(1000);
        let mut stream = Vec::new();
        loop {
            fill(&mut source, file, &mut piece).unwrap();
            if piece.bytes().is_empty() {
                return stream;
            }
            stream.extend_from_slice(piece.bytes());
        }
    }

    fn shapes() -> Vec<(File, ExtentMap)> {
        let many = (0..3000)
            .map(|at| (at * 8192, 4096 - at))
            .collect::<Vec<_>>();
        vec![
            sparse(&[(0, MIB)], MIB),
            sparse(&[(0, 2 * MIB - 36)], 2 * MIB - 36),
            sparse(&[(0, 9 * MIB + 5)], 9 * MIB + 5),
            sparse(&[(4096, 3 * MIB), (8 * MIB, 4097)], 30 * MIB),
            sparse(&many, 3000 * 8192),
        ]
    }

    #[test]
    fn copies_and_hashes_are_those_of_one_thread() {
        for (file, map) in shapes() {
            let stream = stream(&file, &map);
            let (digest, checksum) = digest_of_stream(&stream);
            let copy = tempfile::tempfile().unwrap();
            let offer = Offer::new(tempfile::tempfile().unwrap());
            let output = Output::Offered {
                file: Some(&copy),
                offer: &offer,
            };
            let read = AtomicUsize::new(0);
            let progress = |bytes: u64| {
                read.fetch_add(bytes as usize, Ordering::Relaxed);
                Ok(())
            };
            let hashes = pass(&file, &map, output, Hashing::Both, &progress).unwrap();
            assert_eq!(hashes, Hashes { digest, checksum });
            assert_eq!(read.into_inner() as u64, map.data_size());
            assert!(bytes_of(&copy) == bytes_of(&file));
            assert!(bytes_of(&offer.taken().unwrap()) == bytes_of(&file));

            let packed = tempfile::tempfile().unwrap();
            packed.write_all_at(&stream, 0).unwrap();
            let copy = tempfile::tempfile().unwrap();
            let output = Output::fetched(Some(&copy), None);
            let nothing = |_| Ok(());
            let found = pass_packed(&packed, map.size(), output, Hashing::Both, &nothing).unwrap();
            assert_eq!(found, (map, hashes));
            assert!(bytes_of(&copy) == bytes_of(&file));
        }
    }

    #[test]
    fn a_file_that_shrank_ends_all_lanes() {
        let (file, map) = sparse(&[(0, 20 * MIB)], 20 * MIB);
        for left in [0, 5 * MIB, 20 * MIB - 1] {
            file.set_len(left).unwrap();
            let error = pass(&file, &map, Output::None, Hashing::Both, &|_| Ok(())).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn who_is_told_can_end_all_lanes() {
        let (file, map) = sparse(&[(0, 20 * MIB)], 20 * MIB);
        let told = AtomicUsize::new(0);
        let progress = |_| match told.fetch_add(1, Ordering::Relaxed) {
            0..3 => Ok(()),
            _ => Err(io::ErrorKind::Interrupted.into()),
        };
        let error = pass(&file, &map, Output::None, Hashing::Both, &progress).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        // No lane tells again after it was refused.
        assert!(told.into_inner() <= 3 + MOST);
    }

    #[test]
    fn a_panic_ends_all_lanes_and_is_passed_on() {
        let (file, map) = sparse(&[(0, 20 * MIB)], 20 * MIB);
        let told = AtomicUsize::new(0);
        let progress = |_| match told.fetch_add(1, Ordering::Relaxed) {
            3 => panic!("told"),
            _ => Ok(()),
        };
        let run = || pass(&file, &map, Output::None, Hashing::Both, &progress);
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
    }

    #[test]
    fn a_copy_that_cannot_be_written_ends_all_and_an_offer_only_itself() {
        let (file, map) = sparse(&[(0, 5 * MIB)], 5 * MIB);
        let dir = tempfile::tempdir().unwrap();
        let read_only = || {
            let path = dir.path().join("file");
            std::fs::write(&path, "").unwrap();
            File::open(path).unwrap()
        };
        let offer = Offer::new(read_only());
        let copy = tempfile::tempfile().unwrap();
        let output = Output::Offered {
            file: Some(&copy),
            offer: &offer,
        };
        pass(&file, &map, output, Hashing::Both, &|_| Ok(())).unwrap();
        assert!(bytes_of(&copy) == bytes_of(&file));
        assert!(offer.taken().is_none());
        let copy = read_only();
        let output = Output::fetched(Some(&copy), None);
        assert!(pass(&file, &map, output, Hashing::Both, &|_| Ok(())).is_err());
    }

    #[test]
    fn what_is_not_a_packed_stream_ends_all_lanes() {
        let (file, map) = sparse(&[(0, 5 * MIB), (6 * MIB, 5 * MIB)], 11 * MIB);
        let packed = tempfile::tempfile().unwrap();
        let mut stream = stream(&file, &map);
        // The second descriptor: an extent that begins within the first.
        stream[5 * MIB as usize + 36..][..8].fill(0);
        packed.write_all_at(&stream, 0).unwrap();
        let nothing = |_| Ok(());
        let found = pass_packed(&packed, map.size(), Output::None, Hashing::Both, &nothing);
        assert_eq!(found.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn helpers_are_fewer_than_the_processors() {
        // Other tests hire too: what is certain is the bound.
        let hired: Vec<Helpers> = (0..20).map(|_| Helpers::hire(3)).collect();
        let together: usize = hired.iter().map(|helpers| helpers.0).sum();
        assert!(together < processors());
    }
}

//! Streams on their way to and from other nodes. As in [a pass](super), each byte is read once, hashed once
//! and written once; here the other end of the pass is a transport instead of a file.

use std::fs::File;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;

use super::buffers::Buffers;
use super::copy::Copy;
use super::packed::Packed;
use super::piece::{Fill, Piece, fill};
use super::source::Source;
use super::{Hashers, Hashes, Hashing, PIECE, Progress};
use crate::format::spf::{DecodeError, Decoder, SpfError};

use crate::words::digest::Checksum;
use crate::words::extent::ExtentMap;
use crate::words::form::Form;

/// Pieces that may wait to be hashed.
const WAITING: usize = 4;

/// Produces a blob's stream in pieces that own their memory, and says what their BLAKE3 is. A packed blob is its stream.
///
/// # Errors
/// The operating system's; `UnexpectedEof` when the file is shorter than its map, `InvalidData` when it is no packed
/// stream; what `progress` and `emit` say.
pub(crate) fn read_stream(
    file: &File,
    form: Form,
    map: &ExtentMap,
    progress: Progress<'_>,
    emit: &mut dyn FnMut(Bytes) -> io::Result<()>,
) -> io::Result<Checksum> {
    let mut left = map.stream_size();
    let mut source: Box<dyn Fill + '_> = match form {
        Form::Plain => Box::new(Source::new(map)),
        Form::Packed => Box::new(Packed::new(map.size(), left)),
    };
    let mut hasher = blake3::Hasher::new();
    let buffers = Buffers::new(usize::try_from(left).map_or(PIECE, |left| left.min(PIECE)));
    while left > 0 {
        let mut buffer = buffers.take();
        let mut piece = Piece::within(std::mem::take(buffer.bytes_mut()));
        fill(&mut *source, file, &mut piece)?;
        if piece.bytes().is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hasher.update(piece.bytes());
        progress(piece.data_size())?;
        left -= piece.bytes().len() as u64;
        let (bytes, used) = piece.into_parts();
        *buffer.bytes_mut() = bytes;
        emit(buffer.freeze(used))?;
    }
    Ok(Checksum::from_bytes(*hasher.finalize().as_bytes()))
}

/// Takes a stream that comes from elsewhere into a file that is all hole, and perhaps into a second one. A long stream
/// is hashed on a thread of its own, and the second file written on another, while this one writes the first.
pub(crate) struct Receiving<'a> {
    decoder: Decoder,
    copy: Copy<'a>,
    hashing: StreamHasher,
    second: Option<Second>,
}

/// What came.
pub(crate) struct Received {
    pub(crate) map: ExtentMap,
    pub(crate) hashes: Hashes,
    /// The second file, if it could be written.
    pub(crate) second: Option<File>,
}

impl<'a> Receiving<'a> {
    /// `size` is the logical size that the stream has to have, `limit` bounds its length, both in bytes.
    pub(crate) fn new(
        file: &'a File,
        second: Option<File>,
        size: u64,
        limit: u64,
    ) -> io::Result<Self> {
        // What is elsewhere too is in no hurry to reach the disk.
        let copy = Copy::new(file, false);
        copy.start(Some(size))?;
        Ok(Self {
            decoder: Decoder::new(Some(size), Some(limit)),
            copy,
            hashing: StreamHasher::new(size),
            second: second.and_then(|file| Second::start(file, size, limit).ok()),
        })
    }

    /// Takes more of the stream. Nothing outside the logical size is written.
    pub(crate) fn push(&mut self, bytes: &Bytes) -> Result<(), DecodeError<io::Error>> {
        self.hashing.update(bytes);
        if let Some(second) = &self.second {
            second.push(bytes);
        }
        self.copy.decode(&mut self.decoder, bytes)
    }

    /// What came, once all has.
    pub(crate) fn finish(self) -> Result<Received, SpfError> {
        Ok(Received {
            map: self.decoder.finish()?,
            hashes: self.hashing.finish(),
            second: self.second.and_then(Second::finish),
        })
    }
}

/// A second file for a stream's data. It is an offer: one that cannot be written is dropped, and who wanted it makes
/// its own, and hears there why it cannot.
struct Second {
    pieces: SyncSender<Bytes>,
    thread: JoinHandle<Option<File>>,
}

impl Second {
    fn start(file: File, size: u64, limit: u64) -> io::Result<Self> {
        let (pieces, received) = sync_channel::<Bytes>(WAITING);
        let thread = std::thread::Builder::new()
            .name("snapshotter-copy".to_owned())
            .spawn(move || {
                let mut decoder = Decoder::new(Some(size), Some(limit));
                let copy = Copy::new(&file, false);
                copy.start(Some(size)).ok()?;
                while let Ok(bytes) = received.recv() {
                    copy.decode(&mut decoder, &bytes).ok()?;
                }
                decoder.finish().ok()?;
                Some(file)
            })?;
        Ok(Self { pieces, thread })
    }

    fn push(&self, bytes: &Bytes) {
        // A thread that has given up takes nothing more.
        let _ = self.pieces.send(bytes.clone());
    }

    fn finish(self) -> Option<File> {
        drop(self.pieces);
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Both hashes of a stream.
pub(crate) enum StreamHasher {
    Here(Box<Hashers>),
    There {
        pieces: SyncSender<Bytes>,
        thread: JoinHandle<Hashes>,
    },
}

impl StreamHasher {
    /// For a stream of about this many bytes.
    pub(crate) fn new(size: u64) -> Self {
        if size <= PIECE as u64 {
            return Self::Here(Box::new(Hashers::new(Hashing::Both)));
        }
        let (sender, pieces) = sync_channel::<Bytes>(WAITING);
        let thread = std::thread::Builder::new()
            .name("snapshotter-hash".to_owned())
            .spawn(move || {
                let mut hashers = Hashers::new(Hashing::Both);
                while let Ok(bytes) = pieces.recv() {
                    hashers.update(&bytes);
                }
                hashers.finish()
            });
        match thread {
            Ok(thread) => Self::There {
                pieces: sender,
                thread,
            },
            // Out of threads: slower, and right.
            Err(_) => Self::Here(Box::new(Hashers::new(Hashing::Both))),
        }
    }

    pub(crate) fn update(&mut self, bytes: &Bytes) {
        match self {
            Self::Here(hashers) => hashers.update(bytes),
            // A thread that is gone has panicked, which finishing finds out.
            Self::There { pieces, .. } => drop(pieces.send(bytes.clone())),
        }
    }

    pub(crate) fn finish(self) -> Hashes {
        match self {
            Self::Here(hashers) => hashers.finish(),
            Self::There { pieces, thread } => {
                drop(pieces);
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            }
        }
    }
}

//! A snapshot of one file that somebody writes to a pipe: its bytes go to staging as they come, and what is made there is the blob.
//!
//! Nobody can be stopped who waits for a pipe. So another thread does, and a call that is given up leaves it to its reader.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::opened::{Contents, Given};
use super::planned::{Plan, PlannedFile};
use crate::activity::Activity;
use crate::format::document::{Content, FileEntry};
use crate::fs::{Stat, attributes, end};
use crate::lock::lock;
use crate::store::{Slot, Store};
use crate::words::entry::Attributes;
use crate::words::error::{At, Result};
use crate::words::relpath::RelPath;

/// Files that are made for others have this mode.
const MODE: u32 = 0o644;

/// Bytes that are read ahead at once; so many more wait to be written.
const PIECE: usize = 256 << 10;
const AHEAD: usize = 4;

/// How long nobody looks whether the call was given up.
const LOOK: Duration = Duration::from_millis(100);

/// What another thread reads.
struct Arriving {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: io::Cursor<Vec<u8>>,
}

impl Arriving {
    fn of(mut from: impl Read + Send + 'static) -> io::Result<Self> {
        let (sender, pieces) = sync_channel(AHEAD);
        let read = move || loop {
            let mut piece = Vec::with_capacity(PIECE);
            let read = from.by_ref().take(PIECE as u64).read_to_end(&mut piece);
            let is_last = read.as_ref().map_or(true, |read| *read == 0);
            // Nobody takes it any more: the call is over.
            if sender.send(read.map(|_| piece)).is_err() || is_last {
                return;
            }
        };
        let thread = std::thread::Builder::new().name("snapshotter-stream".to_owned());
        thread.spawn(read)?;
        let piece = io::Cursor::default();
        Ok(Self { pieces, piece })
    }
}

impl Read for Arriving {
    /// `Interrupted`, now and then, while nothing comes.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.piece.position() == self.piece.get_ref().len() as u64 {
            self.piece = match self.pieces.recv_timeout(LOOK) {
                Ok(piece) => io::Cursor::new(piece?),
                Err(RecvTimeoutError::Timeout) => return Err(io::ErrorKind::Interrupted.into()),
                // Its reader panicked: a last piece, which is empty, comes before its thread ends.
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("who reads the stream has panicked"));
                }
            };
        }
        self.piece.read(into)
    }
}

/// A file that was read to its end.
pub(super) struct Streamed<'s> {
    file: File,
    slot: Mutex<Option<Slot<'s>>>,
    entry: FileEntry,
}

impl<'s> Streamed<'s> {
    /// Reads all of it. Blocks for as long as its writer does, or until the call is given up.
    pub(super) fn receive(
        store: &'s Store,
        path: RelPath,
        from: impl Read + Send + 'static,
        activity: &Activity,
    ) -> Result<Self> {
        let from = Arriving::of(from).at("start a thread to read", path.as_path())?;
        let (slot, file) = store.create_slot()?;
        let written = end::copy_to_end(from, &file, &|_| activity.advance(0));
        activity.check()?;
        let size = written.at("capture", path.as_path())?;
        let stat = Stat::of_file(&file).at("examine", path.as_path())?;
        let attributes = Attributes {
            mode: MODE,
            ..attributes::of_stat(&stat)
        };
        let entry = FileEntry {
            path,
            content: Content::SHORTEST,
            read_only: false,
            size,
            attributes,
            hardlink_of: None,
        };
        Ok(Self {
            file,
            slot: Mutex::new(Some(slot)),
            entry,
        })
    }

    pub(super) fn plan(&self) -> Plan {
        Plan {
            files: vec![PlannedFile::of(&self.entry, self.entry.size)],
            ..Plan::default()
        }
    }
}

impl Contents for Streamed<'_> {
    fn open(&self, path: &RelPath) -> Result<Given<'_>> {
        let slot = lock(&self.slot).take();
        Ok(Given {
            file: self.file.try_clone().at("open", path.as_path())?,
            slot,
            attributes: self.entry.attributes.clone(),
        })
    }
}

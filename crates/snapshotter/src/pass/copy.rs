//! Files being written: a copy of another one, or what a stream says. Several threads may write different parts of one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::piece::Piece;
#[cfg(feature = "registry")]
use crate::format::spf::{DecodeError, Decoder};
use crate::fs::ahead::Ahead;
use crate::fs::hook::step;
use crate::fs::place::start_writeback;

/// Dirty bytes after which writing to disk is started ahead of the sync.
const WRITEBACK: u64 = 8 << 20;

/// A copy being made, in a file that is all hole.
#[derive(Debug)]
pub(super) struct Copy<'a> {
    file: &'a File,
    sync_soon: bool,
    written: AtomicU64,
    ahead: Mutex<Ahead>,
    /// Of a copy that need not succeed.
    lost: Option<&'a AtomicBool>,
}

/// A further file that is written where it can be. One that cannot is lost, and nobody hears why: who wanted it makes its
/// own, and hears there.
#[derive(Debug)]
pub(crate) struct Offer {
    file: File,
    lost: AtomicBool,
}

#[cfg_attr(
    not(any(feature = "registry", test)),
    expect(dead_code, reason = "nothing is fetched")
)]
impl Offer {
    pub(crate) fn new(file: File) -> Self {
        Self {
            file,
            lost: AtomicBool::new(false),
        }
    }

    /// The file, if all of it was written.
    pub(crate) fn taken(self) -> Option<File> {
        (!self.lost.into_inner()).then_some(self.file)
    }
}

impl<'a> Copy<'a> {
    /// `sync_soon` starts the writing to disk early.
    pub(super) fn new(file: &'a File, sync_soon: bool) -> Self {
        Self {
            file,
            sync_soon,
            written: AtomicU64::new(0),
            ahead: Mutex::default(),
            lost: None,
        }
    }

    pub(super) fn offered(offer: &'a Offer) -> Self {
        Self {
            lost: Some(&offer.lost),
            ..Self::new(&offer.file, false)
        }
    }

    /// Comes before all writing. Gives the file its length, if it is known.
    pub(super) fn start(&self, size: Option<u64>) -> io::Result<()> {
        self.unless_lost(|file| {
            step("write")?;
            size.map_or(Ok(()), |size| file.set_len(size))
        })
    }

    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.unless_lost(|file| file.write_all_at(bytes, offset))?;
        let len = bytes.len() as u64;
        let before = self.written.fetch_add(len, Ordering::Relaxed);
        if self.sync_soon && before / WRITEBACK != (before + len) / WRITEBACK {
            start_writeback(self.file, 0, 0);
        }
        Ok(())
    }

    /// Writes a piece's data where they belong.
    pub(super) fn write_piece(&self, piece: &Piece) -> io::Result<()> {
        let mut at = 0;
        for (bytes, offset) in piece.parts() {
            self.write(bytes, offset)?;
            at = offset + bytes.len() as u64;
        }
        self.expect(at, piece.extent_end)
    }

    /// Writes the data in the next part of a stream where they belong.
    #[cfg(feature = "registry")]
    pub(super) fn decode(
        &self,
        decoder: &mut Decoder,
        bytes: &[u8],
    ) -> Result<(), DecodeError<io::Error>> {
        let mut at = 0;
        decoder.push(bytes, &mut |offset, data| {
            at = offset + data.len() as u64;
            self.write(data, offset)
        })?;
        self.expect(at, decoder.extent_end())
            .map_err(DecodeError::Sink)
    }

    /// What was written up to `at` goes on, up to the end of its extent.
    pub(super) fn expect(&self, at: u64, extent_end: Option<u64>) -> io::Result<()> {
        let Some(end) = extent_end else {
            return Ok(());
        };
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        self.unless_lost(|file| ahead.expect(file, at, end))
    }

    fn unless_lost(&self, work: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
        let Some(lost) = self.lost else {
            return work(self.file);
        };
        if !lost.load(Ordering::Relaxed) && work(self.file).is_err() {
            lost.store(true, Ordering::Relaxed);
            // Others may need its room.
            let _ = self.file.set_len(0);
        }
        Ok(())
    }
}

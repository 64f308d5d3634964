//! The packs of a capture, in staging. Frames are compressed on all threads and come here in their order; a pack that has as
//! many pages as it may have is ended, and the next one begun. So the bytes do not depend on who was quicker.

use std::fs::File;
use std::io::BufWriter;
use std::sync::Mutex;

use crate::format::map::Map;
use crate::format::pack::{Encoded, FrameEncoder, FramePages, Layout, PackError, Writer};
use crate::fs::dir::sync_file;
use crate::lock::lock;
use crate::pass::turns::Turns;
use crate::store::{Slot, StagedPack, Store, pack_key};
use crate::words::error::{At, Error, ErrorKind, Result};

/// Bytes written at once.
const BUFFER: usize = 256 << 10;

/// Packs being written.
#[derive(Debug)]
pub(super) struct Packing<'s> {
    store: &'s Store,
    frame_pages: FramePages,
    /// Frames of a full pack.
    frames: u64,
    durable: bool,
    pub(super) turns: Turns,
    packs: Mutex<Packs<'s>>,
}

#[derive(Debug, Default)]
struct Packs<'s> {
    open: Option<Open<'s>>,
    sealed: Vec<Sealed<'s>>,
}

#[derive(Debug)]
struct Open<'s> {
    slot: Slot<'s>,
    writer: Writer<BufWriter<File>>,
    frames: u64,
}

/// A pack that is whole.
#[derive(Debug)]
pub(super) struct Sealed<'s> {
    pub(super) staged: StagedPack<'s>,
    pub(super) layout: Layout,
}

impl<'s> Packing<'s> {
    /// Packs of at most so many pages, which is a multiple of a frame's.
    pub(super) fn new(
        store: &'s Store,
        frame_pages: FramePages,
        pages: u64,
        durable: bool,
    ) -> Self {
        Self {
            store,
            frame_pages,
            frames: pages / u64::from(frame_pages.count()),
            durable,
            turns: Turns::default(),
            packs: Mutex::default(),
        }
    }

    /// Appends the frame with this number, once all before it are there.
    pub(super) fn push(&self, number: u64, frame: &Encoded) -> Result<()> {
        let _turn = self
            .turns
            .wait_for(number)
            .map_err(|_| Error::cancelled())?;
        let mut packs = lock(&self.packs);
        let open = self.open(&mut packs)?;
        open.writer
            .push_data(frame)
            .map_err(|error| self.failed(error))?;
        open.frames += 1;
        if open.frames == self.frames {
            self.seal(&mut packs)?;
        }
        Ok(())
    }

    /// The number, among the packs of this capture, of the one that gets the map.
    pub(super) fn last(&self) -> u32 {
        // A document has fewer packs than that.
        u32::try_from(lock(&self.packs).sealed.len()).unwrap_or(u32::MAX)
    }

    /// Ends the last pack with the map in it, and says which of its frames have the map.
    pub(super) fn finish(
        self,
        map: &Map,
        encoder: &mut FrameEncoder,
    ) -> Result<(Vec<Sealed<'s>>, std::ops::Range<u32>)> {
        let mut packs = std::mem::take(&mut *lock(&self.packs));
        let mut out = self.open(&mut packs)?.writer.map(encoder);
        map.write(&mut out)
            .map_err(|error| self.failed(error.into()))?;
        let frames = out.finish().map_err(|error| self.failed(error))?;
        self.seal(&mut packs)?;
        Ok((packs.sealed, frames))
    }

    fn open<'p>(&self, packs: &'p mut Packs<'s>) -> Result<&'p mut Open<'s>> {
        let open = match packs.open.take() {
            Some(open) => open,
            None => {
                let (slot, file) = self.store.create_slot()?;
                let out = BufWriter::with_capacity(BUFFER, file);
                let writer = Writer::new(out, self.frame_pages);
                Open {
                    slot,
                    writer: writer.map_err(|error| self.failed(error))?,
                    frames: 0,
                }
            }
        };
        Ok(packs.open.insert(open))
    }

    fn seal(&self, packs: &mut Packs<'s>) -> Result<()> {
        let Some(open) = packs.open.take() else {
            return Ok(());
        };
        let (out, layout) = open.writer.finish().map_err(|error| self.failed(error))?;
        let file = out
            .into_inner()
            .map_err(|error| self.failed(error.into_error().into()))?;
        if self.durable {
            sync_file(&file).at("sync", self.store.root.staging.path())?;
        }
        let staged = StagedPack {
            slot: open.slot,
            key: pack_key(layout.id()),
            length: layout.length(),
        };
        packs.sealed.push(Sealed { staged, layout });
        Ok(())
    }

    fn failed(&self, error: PackError) -> Error {
        match error {
            PackError::Io(error) => Error::io("write to", self.store.root.staging.path(), error),
            error => {
                Error::new(ErrorKind::Internal, "a pack could not be written").with_source(error)
            }
        }
    }
}

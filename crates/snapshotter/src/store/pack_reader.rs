//! Reading packs: each frame is hashed before a decoder sees it, so what is given out is what was stored or an error.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::pack_pass::{Take, read_frames};
use super::{OpenPack, Store};
use crate::activity::Activity;
use crate::format::document::paged::{MapPlace, PagedDocument};
use crate::format::map;
use crate::format::pack::{FOOTER_BYTES, Footer, Frame, FrameDecoder, Layout, PackError, PackId};
use crate::fs::is_bad_medium;
use crate::words::digest::Checksum;
use crate::words::error::{At, Error, ErrorKind, Result};

/// A pack whose table was read and is right.
#[derive(Debug)]
pub(crate) struct PackReader {
    opened: OpenPack,
    layout: Layout,
}

impl PackReader {
    /// Where its frames are.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Reads stored bytes of frames that lie one after the other.
    ///
    /// # Errors
    /// `Damaged` where the file does not give them.
    pub(crate) fn read_stored(
        &self,
        store: &Store,
        frames: &[Frame],
        stored: &mut Vec<u8>,
    ) -> Result<()> {
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else {
            stored.clear();
            return Ok(());
        };
        // Frames are within the file, whose length was looked at.
        let length = usize::try_from(last.range().end - first.offset).unwrap_or(usize::MAX);
        stored.resize(length, 0);
        let read = self.opened.file.read_exact_at(stored, first.offset);
        read.or_else(|error| self.unreadable(store, error))
    }

    /// Verifies a frame's stored bytes and decodes them into a buffer that is as long as the frame.
    ///
    /// # Errors
    /// `Damaged` where they are not what was stored; the pack is marked then.
    pub(crate) fn decode_into(
        &self,
        store: &Store,
        frame: &Frame,
        decoder: &mut FrameDecoder,
        stored: &[u8],
        decoded: &mut [u8],
    ) -> Result<()> {
        decoder
            .decode_into(frame, stored, decoded)
            .or_else(|error| Err(self.wrong(store, error)?))
    }

    /// Hashes and decodes the frames that are wanted, by their numbers in the table, on all cores.
    ///
    /// # Errors
    /// `Damaged` where one is not what was stored; the pack is marked then.
    pub(super) fn read_frames(
        &self,
        store: &Store,
        wanted: &(dyn Fn(usize) -> bool + Sync),
        activity: &Activity,
        take: Take<'_>,
    ) -> Result<()> {
        match read_frames(&self.opened.file, &self.layout, wanted, activity, take)? {
            Ok(()) => Ok(()),
            Err(PackError::Io(error)) => self.unreadable(store, error),
            Err(error) => Err(self.wrong(store, error)?),
        }
    }

    pub(super) fn opened(&self) -> &OpenPack {
        &self.opened
    }

    fn unreadable<T>(&self, store: &Store, error: io::Error) -> Result<T> {
        if error.kind() == io::ErrorKind::UnexpectedEof || is_bad_medium(&error) {
            return Err(store.found_bad_pack(&self.opened, error)?);
        }
        Err(error).at("read", store.pack_path(&self.opened.pack))
    }

    fn wrong(&self, store: &Store, error: PackError) -> Result<Error> {
        match error {
            PackError::Io(error) => Ok(no_memory(&error)),
            error => store.found_bad_pack(&self.opened, error),
        }
    }
}

/// What frames are decoded with.
pub(crate) fn frame_decoder() -> Result<FrameDecoder> {
    FrameDecoder::new().map_err(|error| no_memory(&error))
}

fn no_memory(error: &io::Error) -> Error {
    let text = format!("there is no memory to decompress with: {error}");
    Error::new(ErrorKind::Internal, text)
}

impl Store {
    /// Opens a pack and reads its table.
    ///
    /// # Errors
    /// `Damaged` where the pack is not here or its table is not right; it is marked then.
    pub(crate) fn read_pack(&self, id: PackId) -> Result<PackReader> {
        self.read_table(self.open_pack(&key(id))?)
    }

    /// Reads the table of an open pack.
    ///
    /// # Errors
    /// `Damaged` where it is not right; the pack is marked then.
    pub(super) fn read_table(&self, opened: OpenPack) -> Result<PackReader> {
        let id = PackId::from_bytes(*opened.pack.key.as_bytes());
        let length = opened.pack.length;
        let layout = read_layout(&opened.file, length);
        let layout = match layout {
            Ok(layout) if layout.id() == id => Ok(layout),
            Ok(_) => Err(PackError::Id),
            Err(error) => Err(error),
        };
        match layout {
            Ok(layout) => Ok(PackReader { opened, layout }),
            Err(PackError::Io(error))
                if error.kind() != io::ErrorKind::UnexpectedEof && !is_bad_medium(&error) =>
            {
                Err(error).at("read", self.pack_path(&opened.pack))
            }
            Err(error) => Err(self.found_bad_pack(&opened, error)?),
        }
    }

    /// A document's map, which is in its first pack.
    ///
    /// # Errors
    /// `Damaged` where the pack is not here or what it has is not a map that can be.
    pub(crate) fn map_of(&self, document: &PagedDocument) -> Result<map::Map> {
        let (Some(place), Some(first)) = (document.map, document.packs.first()) else {
            return Ok(map::Map::default());
        };
        let pack = self.read_pack(first.id)?;
        let pages: Vec<u64> = document.packs.iter().map(|pack| pack.pages).collect();
        self.read_map(&pack, place, document.page_space(), &pages)
    }

    /// Reads the map that is in frames of a pack: `page_space` is how many pages there are, `packs` how many data pages each
    /// pack has that the map may name.
    ///
    /// # Errors
    /// `Damaged` where it is not a map that can be.
    pub(crate) fn read_map(
        &self,
        pack: &PackReader,
        place: MapPlace,
        page_space: u64,
        packs: &[u64],
    ) -> Result<map::Map> {
        let all = pack.layout.frames();
        let before = pack.layout.data_frames().len();
        let (first, count) = (place.frame as usize, place.frames as usize);
        let frames = all.get(first..first + count).filter(|_| first >= before);
        let Some(frames) = frames else {
            let text = format!(
                "the pack {} has no map where one should be",
                pack.layout.id()
            );
            return Err(Error::damaged(text));
        };
        let length = frames.iter().map(|frame| u64::from(frame.length)).sum();
        let mut map = map::Decoder::new(length, page_space, packs);
        let mut decoder =
            FrameDecoder::new().or_else(|error| Err(pack.wrong(self, error.into())?))?;
        let (mut stored, mut bytes) = (Vec::new(), Vec::new());
        for frame in frames {
            pack.read_stored(self, std::slice::from_ref(frame), &mut stored)?;
            bytes.resize(frame.length as usize, 0);
            pack.decode_into(self, frame, &mut decoder, &stored, &mut bytes)?;
            map.push(&bytes).map_err(|error| not_a_map(pack, error))?;
        }
        map.finish().map_err(|error| not_a_map(pack, error))
    }
}

/// The frames are what was stored: so it was stored wrong.
fn not_a_map(pack: &PackReader, error: map::MapError) -> Error {
    Error::damaged(format!(
        "the map in the pack {} is not valid",
        pack.layout.id()
    ))
    .with_source(error)
}

/// Where the frames of a pack are, from a file of this length.
pub(super) fn read_layout(file: &File, length: u64) -> std::result::Result<Layout, PackError> {
    let mut start = [0; 8];
    file.read_exact_at(&mut start, 0)?;
    Layout::check_start(&start)?;
    let mut footer = [0; FOOTER_BYTES];
    let at = length.saturating_sub(FOOTER_BYTES as u64);
    file.read_exact_at(&mut footer, at)?;
    let footer = Footer::parse(&footer, length)?;
    let range = footer.table();
    let mut table = vec![0; (range.end - range.start) as usize];
    file.read_exact_at(&mut table, range.start)?;
    Layout::parse(footer, &table)
}

/// What the store calls it.
pub(crate) fn key(id: PackId) -> Checksum {
    Checksum::from_bytes(*id.as_bytes())
}

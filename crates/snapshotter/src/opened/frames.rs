//! Files of format v2, a frame at a time. Frames that were decoded last stay in memory, within a bound; a frame that several want
//! at once is read and decoded by one of them, for whom the others wait: for that one's disk and processor, and for nothing
//! else. If it fails, each of them tries by itself.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::format::document::paged::PagedDocument;
use crate::format::map::{Extent, Map};
use crate::format::pack::FrameDecoder;
use crate::lock::lock;
use crate::restore::Packs;
use crate::store::{PackReader, Store, frame_decoder};
use crate::words::error::{Error, Result};
use crate::words::page::{PAGE_BYTES, pages};

/// What decoded frames may take of memory, in bytes, for an open snapshot.
const MAX_DECODED: u64 = 32 << 20;
/// About as many fit: those that are not the largest.
const ABOUT: usize = 1024;

const PAGE: u64 = PAGE_BYTES as u64;

/// A frame of a pack, by their numbers.
type Key = (u32, usize);
type Decoded = Arc<Vec<u8>>;

/// The packs of an open snapshot.
#[derive(Debug)]
pub(super) struct Frames {
    packs: Vec<PackReader>,
    map: Map,
    decoded: Cache<Key, Decoded, Length>,
    idle: Mutex<Vec<Decoding>>,
}

#[derive(Clone, Debug)]
struct Length;

impl Weighter<Key, Decoded> for Length {
    fn weight(&self, _: &Key, decoded: &Decoded) -> u64 {
        decoded.len() as u64
    }
}

/// What a thread decodes with.
#[derive(Debug)]
struct Decoding {
    decoder: FrameDecoder,
    stored: Vec<u8>,
}

impl Frames {
    /// Opens the packs that a document names.
    pub(super) fn open(store: &Store, document: &PagedDocument) -> Result<Self> {
        let (packs, map) = Packs::open(store, document)?.into_parts();
        Ok(Self {
            packs,
            map,
            decoded: Cache::with_weighter(ABOUT, MAX_DECODED, Length),
            idle: Mutex::default(),
        })
    }

    /// Bytes of data in a file of this size, whose first page is this one.
    pub(super) fn data_bytes(&self, first: u64, size: u64) -> u64 {
        let data = self.data(first, size);
        data.fold(0, |sum, range| sum + (range.end - range.start))
    }

    /// Where in such a file its data is.
    pub(super) fn data(&self, first: u64, size: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        let all = first..first.saturating_add(pages(size));
        let within = move |page: u64| ((page - first) * PAGE).min(size);
        let extents = self.map.range(all);
        extents.map(move |extent| within(extent.start)..within(extent.end()))
    }

    /// Fills a buffer with the bytes of a file, whose first page is this one, from a place in it on, all of which are before its end.
    ///
    /// # Errors
    /// `Damaged` where a pack does not have them; the pack is marked then.
    pub(super) fn read(
        &self,
        store: &Store,
        first: u64,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<()> {
        let end = offset + buffer.len() as u64;
        let wanted = first + offset / PAGE..first.saturating_add(end.div_ceil(PAGE));
        let (mut at, mut rest) = (offset, buffer);
        for extent in self.map.range(wanted) {
            let start = (extent.start - first) * PAGE;
            let (hole, data);
            (hole, rest) = rest.split_at_mut(start.saturating_sub(at) as usize);
            hole.fill(0);
            at = at.max(start);
            let length = ((extent.end() - first) * PAGE).min(end) - at;
            (data, rest) = rest.split_at_mut(length as usize);
            self.copy(store, &extent, at - start, data)?;
            at += length;
        }
        rest.fill(0);
        Ok(())
    }

    /// Copies bytes of an extent, from a place in it on.
    fn copy(&self, store: &Store, extent: &Extent, at: u64, mut to: &mut [u8]) -> Result<()> {
        let pack = self.packs.get(extent.pack as usize).ok_or_else(beyond)?;
        let per_frame = u64::from(pack.layout().frame_pages().count()) * PAGE;
        let mut at = extent.page * PAGE + at;
        while !to.is_empty() {
            let number = (at / per_frame) as usize;
            let decoded = self.frame(store, pack, (extent.pack, number))?;
            let from = decoded.get((at % per_frame) as usize..);
            let from = from.filter(|from| !from.is_empty()).ok_or_else(beyond)?;
            let length = from.len().min(to.len());
            let (now, later) = to.split_at_mut(length);
            now.copy_from_slice(&from[..length]);
            at += length as u64;
            to = later;
        }
        Ok(())
    }

    fn frame(&self, store: &Store, pack: &PackReader, key: Key) -> Result<Decoded> {
        self.decoded.get_or_insert_with(&key, || {
            let mut decoding = self.take()?;
            let decoded = decode(store, pack, key.1, &mut decoding)?;
            lock(&self.idle).push(decoding);
            Ok(Arc::new(decoded))
        })
    }

    fn take(&self) -> Result<Decoding> {
        if let Some(idle) = lock(&self.idle).pop() {
            return Ok(idle);
        }
        Ok(Decoding {
            decoder: frame_decoder()?,
            stored: Vec::new(),
        })
    }
}

fn decode(store: &Store, pack: &PackReader, number: usize, with: &mut Decoding) -> Result<Vec<u8>> {
    let frames = pack.layout().data_frames();
    let frame = frames.get(number).ok_or_else(beyond)?;
    pack.read_stored(store, std::slice::from_ref(frame), &mut with.stored)?;
    let mut decoded = vec![0; frame.length as usize];
    pack.decode_into(store, frame, &mut with.decoder, &with.stored, &mut decoded)?;
    Ok(decoded)
}

/// The map was compared with the packs when it was read.
fn beyond() -> Error {
    Error::damaged("the map names a page that its pack does not have")
}

//! Pages of packs that are given up, for files that do not have them: what a difference leaves out is read from nowhere else. They
//! are decoded before the capture, into a file without a name, and stored anew when their turn comes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

use crate::format::document::paged::PackEntry;
use crate::format::map::Extent;
use crate::format::pack::FrameDecoder;
use crate::snapshot::Context;
use crate::store::{PackReader, frame_decoder};
use crate::words::error::{At, Error, Result};
use crate::words::page::PAGE_BYTES;

/// Pages by their numbers among those that the parent maps.
#[derive(Debug)]
pub(super) struct Rescued {
    /// Ascending.
    numbers: Vec<u64>,
    file: File,
}

impl Rescued {
    pub(super) fn read(&self, number: u64, page: &mut [u8; PAGE_BYTES]) -> io::Result<()> {
        let at = self.numbers.binary_search(&number);
        let at = at.map_err(|_| io::ErrorKind::NotFound)?;
        self.file.read_exact_at(page, at as u64 * PAGE_BYTES as u64)
    }
}

/// Decodes pages, which ascend. Each part has the number of its first one.
pub(super) fn rescue(
    context: &Context<'_>,
    packs: &[PackEntry],
    parts: impl Iterator<Item = (Extent, u64)>,
) -> Result<Rescued> {
    let staging = context.store.root.staging.path();
    let mut decoding = Decoding::new(context, packs)?;
    let mut out = BufWriter::new(context.store.scratch()?);
    let mut numbers = Vec::new();
    for (part, first) in parts {
        context.activity.check()?;
        for page in 0..part.pages {
            let bytes = decoding.page(part.pack, part.page + page)?;
            out.write_all(bytes).at("write to", staging)?;
            numbers.push(first + page);
        }
    }
    let file = out.into_inner().map_err(io::IntoInnerError::into_error);
    let file = file.at("write to", staging)?;
    Ok(Rescued { numbers, file })
}

/// Packs, and the frame of one that was decoded last.
struct Decoding<'a> {
    context: &'a Context<'a>,
    named: &'a [PackEntry],
    open: HashMap<u32, PackReader>,
    decoder: FrameDecoder,
    stored: Vec<u8>,
    decoded: Vec<u8>,
    frame: Option<(u32, u64)>,
}

impl<'a> Decoding<'a> {
    fn new(context: &'a Context<'a>, named: &'a [PackEntry]) -> Result<Self> {
        Ok(Self {
            context,
            named,
            open: HashMap::new(),
            decoder: frame_decoder()?,
            stored: Vec::new(),
            decoded: Vec::new(),
            frame: None,
        })
    }

    fn page(&mut self, pack: u32, page: u64) -> Result<&[u8]> {
        let store = self.context.store;
        if !self.open.contains_key(&pack) {
            let named = self.named.get(pack as usize).ok_or_else(lacks)?;
            self.open.insert(pack, store.read_pack(named.id)?);
        }
        let reader = self.open.get(&pack).ok_or_else(lacks)?;
        let per_frame = u64::from(reader.layout().frame_pages().count());
        let number = page / per_frame;
        if self.frame != Some((pack, number)) {
            self.frame = None;
            let frames = reader.layout().data_frames();
            let frame = usize::try_from(number).ok().and_then(|at| frames.get(at));
            let frame = frame.ok_or_else(lacks)?;
            reader.read_stored(store, std::slice::from_ref(frame), &mut self.stored)?;
            self.decoded.resize(frame.length as usize, 0);
            let (decoder, stored) = (&mut self.decoder, &self.stored);
            reader.decode_into(store, frame, decoder, stored, &mut self.decoded)?;
            self.frame = Some((pack, number));
        }
        let start = (page % per_frame) as usize * PAGE_BYTES;
        let bytes = self.decoded.get(start..start + PAGE_BYTES);
        bytes.ok_or_else(lacks)
    }
}

fn lacks() -> Error {
    Error::damaged("a pack does not have the pages that the document says")
}

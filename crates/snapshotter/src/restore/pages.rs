//! Files of format v2 out of packs. What files need is sorted by where it is in the packs, so that each frame is read,
//! verified and decoded once for all of them (a guest's memory has its disk's pages too); frames that lie together are read
//! at once, by several threads if there are many.

use std::fs::File;
use std::io;
use std::iter::repeat;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::base::Filled;
use super::difference::pieces;
use crate::activity::Activity;
use crate::format::document::paged::PagedDocument;
use crate::format::map::Map;
use crate::format::pack::{FrameDecoder, PackId};
use crate::fs::ahead::Ahead;
use crate::fs::hook::step;
use crate::lock::lock;
use crate::pass::on_all_cores;
use crate::store::{PackReader, Store, frame_decoder};
use crate::words::error::{At, Error, Result};
use crate::words::page::{PAGE_BYTES, pages};

/// Frames that are read at once.
const TOGETHER: usize = 32;

/// The packs that a snapshot names, open, and its map.
#[derive(Debug)]
pub(crate) struct Packs<'s> {
    pub(super) store: &'s Store,
    packs: Vec<PackReader>,
    map: Map,
    /// Those that no thread uses: what one has decoded last may be what the next file begins with.
    idle: Mutex<Vec<Frames>>,
}

/// Frames of one pack, decoded.
#[derive(Debug)]
struct Frames {
    decoder: FrameDecoder,
    stored: Vec<u8>,
    decoded: Vec<u8>,
    /// Which these are.
    pack: usize,
    frames: Range<usize>,
}

/// Pages that lie together in a pack and in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) pack: usize,
    /// In the pack.
    pub(super) page: u64,
    /// In the file.
    pub(super) at: u64,
    pub(super) pages: u64,
}

/// A file that pages are written into, which is as long as it is to be.
pub(super) struct Writing<'w> {
    pub(super) file: &'w File,
    /// What errors name.
    pub(super) path: PathBuf,
    /// In bytes.
    pub(super) size: u64,
    pub(super) runs: Vec<Run>,
    pub(super) activity: &'w Activity,
}

/// Runs in frames that are read at once.
#[derive(Debug)]
struct Window {
    runs: Range<usize>,
    frames: Range<usize>,
}

impl<'s> Packs<'s> {
    /// Opens the packs of a document and reads its map.
    ///
    /// # Errors
    /// `Damaged` where one is missing or is not what the document says.
    pub(crate) fn open(store: &'s Store, document: &PagedDocument) -> Result<Self> {
        let packs = document.packs.iter().map(|named| store.read_pack(named.id));
        let packs: Vec<PackReader> = packs.collect::<Result<_>>()?;
        let layouts: Vec<_> = packs.iter().map(PackReader::layout).collect();
        document.check_packs(&layouts).map_err(|error| {
            Error::damaged("the document and its packs disagree").with_source(error)
        })?;
        let map = match (document.map, packs.first()) {
            (Some(place), Some(first)) => {
                let pages: Vec<u64> = document.packs.iter().map(|pack| pack.pages).collect();
                store.read_map(first, place, document.page_space(), &pages)?
            }
            _ => Map::default(),
        };
        Ok(Self {
            store,
            packs,
            map,
            idle: Mutex::default(),
        })
    }

    /// The packs in the order of the document, and the map, for who reads in another way.
    pub(crate) fn into_parts(self) -> (Vec<PackReader>, Map) {
        (self.packs, self.map)
    }

    /// Bytes of data in a file of this size, whose first page is this one.
    pub(crate) fn data_size(&self, first: u64, size: u64) -> u64 {
        let mapped: u64 = self
            .map
            .range(range(first, size))
            .map(|extent| extent.pages)
            .sum();
        mapped.saturating_mul(PAGE_BYTES as u64).min(size)
    }

    /// Writes a file's data into an empty file, which becomes so long, and which errors call this. `first` is its first page.
    ///
    /// # Errors
    /// `Damaged` where a pack does not have them; the pack is marked then.
    pub(crate) fn fill(
        &self,
        (file, path): (&File, &Path),
        first: u64,
        size: u64,
        activity: &Activity,
    ) -> Result<()> {
        let runs = self.expect((file, path), first, size)?;
        let (all, blame) = (
            [Writing {
                file,
                path: path.into(),
                size,
                runs,
                activity,
            }],
            |_, error| error,
        );
        self.write(&all, &blame)
    }

    /// Makes an empty file so long and asks for the space of its data; says where they are.
    pub(super) fn expect(
        &self,
        (file, path): (&File, &Path),
        first: u64,
        size: u64,
    ) -> Result<Vec<Run>> {
        step("write")
            .and_then(|()| file.set_len(size))
            .at("write to", path)?;
        let runs = self.runs(first, size);
        ask_for_space(file, &runs, size).at("write to", path)?;
        Ok(runs)
    }

    /// Writes pages into files, in one pass over the packs. `blame` makes an error of one of them that file's.
    ///
    /// # Errors
    /// `Damaged` where a pack does not have them; the pack is marked then.
    pub(super) fn write(
        &self,
        files: &[Writing<'_>],
        blame: &(dyn Fn(usize, Error) -> Error + Sync),
    ) -> Result<()> {
        let of_all = files.iter().enumerate();
        let mut runs: Vec<_> = of_all
            .flat_map(|(to, file)| {
                file.runs
                    .iter()
                    .flat_map(|run| self.cut(*run))
                    .zip(repeat(to))
            })
            .collect();
        runs.sort_unstable_by_key(|(run, _)| (run.pack, run.page));
        let windows = self.windows(&runs);
        let work = |number: usize| {
            let window = &windows[number];
            let runs = &runs[window.runs.clone()];
            let mut frames = self.take()?;
            self.read(&runs[0].0, window, &mut frames)
                .map_err(|error| blame(runs[0].1, error))?;
            for (run, to) in runs {
                files[*to].activity.check()?;
                let written = self.write_run(&files[*to], run, &frames);
                written.map_err(|error| blame(*to, error))?;
            }
            lock(&self.idle).push(frames);
            Ok(())
        };
        on_all_cores(windows.len(), work)
    }

    /// Where the data of a file are, whose first page is this one.
    pub(super) fn runs(&self, first: u64, size: u64) -> Vec<Run> {
        runs(&self.map, first, size)
    }

    /// What a file is that was written whole.
    pub(super) fn filled(&self, first: u64, size: u64) -> Filled {
        let runs = self.runs(first, size);
        Filled {
            written: runs.iter().map(|run| run.pages).sum(),
            extents: pieces(&runs),
        }
    }

    /// The number of a pack in them.
    pub(super) fn number_of(&self, id: PackId) -> Option<usize> {
        self.packs.iter().position(|pack| pack.layout().id() == id)
    }

    /// Cuts a long run where a frame ends, so that each is in a window.
    fn cut(&self, mut run: Run) -> impl Iterator<Item = Run> {
        let per_frame = u64::from(self.packs[run.pack].layout().frame_pages().count());
        let most = TOGETHER as u64 * per_frame;
        std::iter::from_fn(move || {
            let first = run.take(most - run.page % most);
            (first.pages > 0).then_some(first)
        })
    }

    /// Groups sorted runs by frames that are read at once.
    fn windows(&self, runs: &[(Run, usize)]) -> Vec<Window> {
        let mut windows: Vec<Window> = Vec::new();
        for (number, (run, _)) in runs.iter().enumerate() {
            let per_frame = u64::from(self.packs[run.pack].layout().frame_pages().count());
            let first = (run.page / per_frame) as usize;
            let end = (run.page + run.pages).div_ceil(per_frame) as usize;
            match windows.last_mut() {
                Some(last)
                    if runs[last.runs.start].0.pack == run.pack
                        && first <= last.frames.end
                        && end - last.frames.start <= TOGETHER =>
                {
                    last.runs.end = number + 1;
                    last.frames.end = last.frames.end.max(end);
                }
                _ => windows.push(Window {
                    runs: number..number + 1,
                    frames: first..end,
                }),
            }
        }
        windows
    }

    fn take(&self) -> Result<Frames> {
        if let Some(frames) = lock(&self.idle).pop() {
            return Ok(frames);
        }
        Ok(Frames {
            decoder: frame_decoder()?,
            stored: Vec::new(),
            decoded: Vec::new(),
            pack: 0,
            frames: 0..0,
        })
    }

    /// Has the frames of a window decoded.
    fn read(&self, first: &Run, window: &Window, into: &mut Frames) -> Result<()> {
        let has_them = into.pack == first.pack
            && into.frames.start <= window.frames.start
            && into.frames.end >= window.frames.end;
        if has_them {
            return Ok(());
        }
        let pack = &self.packs[first.pack];
        let frames = &pack.layout().data_frames()[window.frames.clone()];
        // What is half done is nothing.
        into.frames = 0..0;
        pack.read_stored(self.store, frames, &mut into.stored)?;
        let length: usize = frames.iter().map(|frame| frame.length as usize).sum();
        // It is never made shorter: what it grows by is zeroed.
        if into.decoded.len() < length {
            into.decoded.resize(length, 0);
        }
        let (mut stored, mut decoded) = (into.stored.as_slice(), into.decoded.as_mut_slice());
        for frame in frames {
            let (of_frame, here);
            (of_frame, stored) = stored.split_at(frame.stored as usize);
            (here, decoded) = decoded.split_at_mut(frame.length as usize);
            pack.decode_into(self.store, frame, &mut into.decoder, of_frame, here)?;
        }
        into.pack = first.pack;
        into.frames = window.frames.clone();
        Ok(())
    }

    /// Writes the pages of a run, which are in these frames. What is behind the end of the file has to be zero.
    fn write_run(&self, to: &Writing<'_>, run: &Run, frames: &Frames) -> Result<()> {
        let bytes = self.bytes(run, frames);
        let at = run.at * PAGE_BYTES as u64;
        let length = bytes
            .len()
            .min(usize::try_from(to.size - at).unwrap_or(usize::MAX));
        let (bytes, beyond) = bytes.split_at(length);
        if beyond.iter().any(|byte| *byte != 0) {
            return Err(Error::damaged("a file's last page goes on behind its end"));
        }
        to.file.write_all_at(bytes, at).at("write to", &to.path)?;
        let told = to.activity.advance(bytes.len() as u64);
        to.activity.check()?;
        told.at("write to", &to.path)
    }

    fn bytes<'f>(&self, run: &Run, frames: &'f Frames) -> &'f [u8] {
        let per_frame = u64::from(self.packs[run.pack].layout().frame_pages().count());
        let first = run.page - frames.frames.start as u64 * per_frame;
        let start = first as usize * PAGE_BYTES;
        &frames.decoded[start..start + run.pages as usize * PAGE_BYTES]
    }
}

/// Where the data of a file are, whose first page is this one.
pub(super) fn runs(map: &Map, first: u64, size: u64) -> Vec<Run> {
    let extents = map.range(range(first, size));
    let runs = extents.map(|extent| Run {
        pack: extent.pack as usize,
        page: extent.page,
        at: extent.start - first,
        pages: extent.pages,
    });
    runs.collect()
}

/// The pages of a file in the page space.
fn range(first: u64, size: u64) -> Range<u64> {
    first..first.saturating_add(pages(size))
}

/// Asks for the space of long runs before anything is written, in their order in the file, which is not that of the writing.
fn ask_for_space(file: &File, runs: &[Run], size: u64) -> io::Result<()> {
    let mut ahead = Ahead::default();
    let mut runs = runs.iter().peekable();
    while let Some(first) = runs.next() {
        let mut end = first.at + first.pages;
        while let Some(next) = runs.next_if(|next| next.at == end) {
            end += next.pages;
        }
        let (mut at, end) = (
            first.at * PAGE_BYTES as u64,
            (end * PAGE_BYTES as u64).min(size),
        );
        while at < end {
            ahead.expect(file, at, end)?;
            at += 1 << 20;
        }
    }
    Ok(())
}

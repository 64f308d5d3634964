//! A pack read from its first frame to its last, on all cores: each frame is hashed and decoded once, and what its pages are is
//! written down beside the packs, 34 bytes a page. From that the contents of any snapshot are checked without reading a
//! frame again, in memory that does not grow with the packs.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, OnceLock};

#[cfg(feature = "registry")]
use super::pack_reader::read_layout;
use super::{PackReader, Store};
use crate::activity::Activity;
use crate::format::content::{PageDigest, page_digest};
use crate::format::pack::{Frame, FrameDecoder, Kind, Layout, PackError, PackId};
use crate::lock::lock;
use crate::pass::on_all_cores;
use crate::words::error::{At, Error, Result};
use crate::words::page::PAGE_BYTES;

/// Stored bytes that a thread reads at once, but for a frame that has more.
const TOGETHER: u64 = 1 << 20;

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageRecord {
    /// Zeros where the page is zero.
    pub(crate) digest: PageDigest,
    /// Its bytes before the zeros at its end: none where it is zero.
    pub(crate) used: u16,
}

const RECORD_BYTES: usize = size_of::<PageDigest>() + size_of::<u16>();

impl PageRecord {
    pub(crate) const ZERO: Self = Self {
        digest: [0; 32],
        used: 0,
    };

    fn of(page: &[u8; PAGE_BYTES]) -> Self {
        let Some(digest) = page_digest(page) else {
            return Self::ZERO;
        };
        let last = page.iter().rposition(|byte| *byte != 0);
        Self {
            digest,
            // At most 4,096.
            used: last.map_or(0, |last| last as u16 + 1),
        }
    }

    fn to_bytes(self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..32].copy_from_slice(&self.digest);
        bytes[32..].copy_from_slice(&self.used.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Self {
        let mut record = Self::ZERO;
        let (digest, used) = bytes.split_at(32);
        record.digest.copy_from_slice(digest);
        record.used = used
            .iter()
            .rev()
            .fold(0, |all, byte| all << 8 | u16::from(*byte));
        record
    }
}

/// Where the records of a pack are, and what else has to fit a document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordedPack {
    start: u64,
    pub(crate) pages: u64,
    pub(crate) frames: u64,
}

/// What the pages of packs are that were read.
#[derive(Debug, Default)]
pub(crate) struct PageRecords {
    file: OnceLock<File>,
    packs: Mutex<Recorded>,
}

#[derive(Debug, Default)]
struct Recorded {
    end: u64,
    packs: HashMap<PackId, RecordedPack>,
}

impl PageRecords {
    /// Makes room for a pack. The file is made with the first one: who has no packs needs none.
    fn reserve(&self, store: &Store, layout: &Layout) -> Result<(RecordedPack, &File)> {
        let mut all = lock(&self.packs);
        let file = match self.file.get() {
            Some(file) => file,
            None => self.file.get_or_init({
                let file = file(store)?;
                || file
            }),
        };
        let pack = RecordedPack {
            start: all.end,
            pages: layout.pages(),
            frames: layout.frames().len() as u64,
        };
        all.end = all.end.saturating_add(pack.pages);
        Ok((pack, file))
    }

    /// The pack, if it was read and was right.
    pub(crate) fn pack(&self, id: PackId) -> Option<RecordedPack> {
        lock(&self.packs).packs.get(&id).copied()
    }

    /// Reads the frames that are wanted, by their numbers in the table, and writes down what their pages are.
    ///
    /// # Errors
    /// `Damaged` where the pack is bad, which is marked then.
    pub(crate) fn record(
        &self,
        store: &Store,
        pack: &PackReader,
        wanted: &(dyn Fn(usize) -> bool + Sync),
        activity: &Activity,
    ) -> Result<()> {
        let (to, file) = self.reserve(store, pack.layout())?;
        let take = |first: u64, records: &[PageRecord]| {
            let bytes: Vec<u8> = records.iter().flat_map(|one| one.to_bytes()).collect();
            let at = (to.start + first) * RECORD_BYTES as u64;
            let written = file.write_all_at(&bytes, at);
            written.at("write to", store.root.staging.path())
        };
        pack.read_frames(store, wanted, activity, &take)?;
        lock(&self.packs).packs.insert(pack.layout().id(), to);
        Ok(())
    }

    /// What pages of a pack are.
    pub(crate) fn read(
        &self,
        pack: RecordedPack,
        pages: Range<u64>,
        into: &mut Vec<PageRecord>,
    ) -> io::Result<()> {
        let count = usize::try_from(pages.end - pages.start).unwrap_or(usize::MAX);
        let mut bytes = vec![[0; RECORD_BYTES]; count];
        let at = (pack.start + pages.start) * RECORD_BYTES as u64;
        let file = self.file.get().ok_or(io::ErrorKind::UnexpectedEof)?;
        file.read_exact_at(bytes.as_flattened_mut(), at)?;
        into.clear();
        into.extend(bytes.iter().map(PageRecord::from_bytes));
        Ok(())
    }
}

/// Where nothing can be written it is in memory.
fn file(store: &Store) -> Result<File> {
    if store.is_read_only() {
        let path = store.root.dir.path();
        return crate::fs::in_memory().at("make a file in memory for", path);
    }
    store.scratch()
}

/// Where pages that were read go: the number of the first one in the pack, and what they are.
pub(super) type Take<'t> = &'t (dyn Fn(u64, &[PageRecord]) -> Result<()> + Sync);

/// Hashes and decodes frames of a pack, by their numbers in the table, in any order.
///
/// # Errors
/// Inside: those of the pack. Else the caller's, who has given up or cannot take what was read.
pub(super) fn read_frames(
    file: &File,
    layout: &Layout,
    wanted: &(dyn Fn(usize) -> bool + Sync),
    activity: &Activity,
    take: Take<'_>,
) -> Result<std::result::Result<(), PackError>> {
    each_group(layout, wanted, &|| activity.check(), &|numbers| {
        read_group(file, layout, numbers, activity, take)
    })
}

/// Hashes all frames of a file that is to be a pack, and says how long that is.
///
/// # Errors
/// Inside: what is wrong with it. Else the caller's, who has given up.
#[cfg(feature = "registry")]
pub(crate) fn whole_pack(
    file: &File,
    id: PackId,
    wanted: &(dyn Fn() -> Result<()> + Sync),
) -> Result<std::result::Result<u64, PackError>> {
    let length = match file.metadata() {
        Ok(metadata) => metadata.len(),
        Err(error) => return Ok(Err(error.into())),
    };
    let layout = match read_layout(file, length) {
        Ok(layout) if layout.id() == id => layout,
        Ok(_) => return Ok(Err(PackError::Id)),
        Err(error) => return Ok(Err(error)),
    };
    let checked = each_group(&layout, &|_| true, wanted, &|numbers| {
        let frames = &layout.frames()[numbers];
        Ok(stored(file, frames, &mut |frame, bytes| frame.check(bytes)))
    });
    Ok(checked?.map(|()| length))
}

/// Works on frames, many at a time, on all cores. The first pack's error ends it.
fn each_group(
    layout: &Layout,
    chosen: &dyn Fn(usize) -> bool,
    wanted: &(dyn Fn() -> Result<()> + Sync),
    work: &(dyn Fn(Range<usize>) -> Result<std::result::Result<(), PackError>> + Sync),
) -> Result<std::result::Result<(), PackError>> {
    let groups = groups(layout, chosen);
    let bad = Mutex::new(None);
    let work = |number: usize| {
        wanted()?;
        work(groups[number].clone())?.map_err(|error| {
            lock(&bad).get_or_insert(error);
            Error::cancelled()
        })
    };
    let result = on_all_cores(groups.len(), work);
    match lock(&bad).take() {
        Some(error) => Ok(Err(error)),
        None => result.map(Ok),
    }
}

/// Frames that lie together and are read at once.
fn groups(layout: &Layout, wanted: &dyn Fn(usize) -> bool) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (number, frame) in layout.frames().iter().enumerate() {
        if !wanted(number) {
            continue;
        }
        bytes += u64::from(frame.stored);
        match groups.last_mut() {
            Some(last) if last.end == number && bytes <= TOGETHER => last.end += 1,
            _ => {
                bytes = u64::from(frame.stored);
                groups.push(number..number + 1);
            }
        }
    }
    groups
}

fn read_group(
    file: &File,
    layout: &Layout,
    numbers: Range<usize>,
    activity: &Activity,
    take: Take<'_>,
) -> Result<std::result::Result<(), PackError>> {
    let first = numbers.start as u64 * u64::from(layout.frame_pages().count());
    let (mut records, mut read) = (Vec::new(), 0);
    let mut add = |frame: &Frame, decoded: &[u8]| {
        read += u64::from(frame.stored);
        if frame.kind == Kind::Data {
            let (pages, _) = decoded.as_chunks::<PAGE_BYTES>();
            records.extend(pages.iter().map(PageRecord::of));
        }
    };
    if let Err(error) = decode(file, &layout.frames()[numbers], &mut add) {
        return Ok(Err(error));
    }
    activity.advance(read).ok();
    if records.is_empty() {
        return Ok(Ok(()));
    }
    take(first, &records).map(Ok)
}

/// Reads frames that lie together, and gives each with its bytes to `take`.
fn decode(
    file: &File,
    frames: &[Frame],
    take: &mut dyn FnMut(&Frame, &[u8]),
) -> std::result::Result<(), PackError> {
    let mut decoder = FrameDecoder::new()?;
    stored(file, frames, &mut |frame, bytes| {
        take(frame, decoder.decode(frame, bytes)?);
        Ok(())
    })
}

/// Who looks at the stored bytes of a frame.
type Look<'t> = &'t mut dyn FnMut(&Frame, &[u8]) -> std::result::Result<(), PackError>;

/// The same with the bytes that are stored, whatever they are.
fn stored(file: &File, frames: &[Frame], take: Look<'_>) -> std::result::Result<(), PackError> {
    let (Some(first), Some(last)) = (frames.first(), frames.last()) else {
        return Ok(());
    };
    // A group's.
    let length = (last.range().end - first.offset) as usize;
    let mut stored = vec![0; length];
    file.read_exact_at(&mut stored, first.offset)?;
    let mut rest = stored.as_slice();
    for frame in frames {
        let (bytes, after) = rest.split_at(frame.stored as usize);
        rest = after;
        take(frame, bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_where_a_page_ends() {
        let mut page = [0; PAGE_BYTES];
        assert_eq!(PageRecord::of(&page), PageRecord::ZERO);
        for at in [0, 1, 255, 256, 4095] {
            page[at] = 1;
            let record = PageRecord::of(&page);
            assert_eq!(usize::from(record.used), at + 1);
            assert_eq!(PageRecord::from_bytes(&record.to_bytes()), record);
        }
    }
}

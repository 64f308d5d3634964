//! How many pages differ between two snapshots of format v2. Where both maps lead to the same page of the same pack it is the
//! same; only the others are read, each frame once, and compared by what they are.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::activity::Activity;
use crate::catalog::Sync;
use crate::format::document::paged::{PagedDocument, PagedFile};
use crate::format::map::Map;
use crate::format::pack::PackId;
use crate::metrics::Operation as Verb;
use crate::store::{Operation, PageRecord, PageRecords, Store};
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::format::Format;
use crate::words::reference::Reference;
use crate::words::relpath::RelPath;

/// A file that two snapshots have, with other bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChangedFile {
    /// Relative to the base directory.
    pub relative_path: PathBuf,
    /// Pages of 4 KiB that are not the same at the same place; what one has not is zero there.
    pub pages: u64,
}

/// A snapshot, its map, and where its files are.
struct Side {
    document: PagedDocument,
    map: Map,
}

/// Pages of a file, or a place in it, that both sides may have.
type Places = (Range<u64>, Range<u64>);

/// The files that both snapshots have and whose bytes differ, by path.
///
/// # Errors
/// `Unsupported` where one of them is not of format v2.
pub(crate) fn changed_pages(
    store: &Arc<Store>,
    from: &Reference,
    to: &Reference,
    activity: &Activity,
) -> Result<Vec<ChangedFile>> {
    let operation = (!store.is_read_only())
        .then(|| store.begin(Verb::Diff))
        .transpose()?;
    let from = Side::open(store, from, operation.as_ref())?;
    let to = Side::open(store, to, operation.as_ref())?;
    let files = files(&from, &to);
    let mut doubtful = Doubtful::default();
    for (_, places) in &files {
        activity.check()?;
        for run in runs(&from, &to, places) {
            doubtful.add(&from, run.from, run.pages);
            doubtful.add(&to, run.to, run.pages);
        }
    }
    let records = doubtful.read(store, activity)?;
    let mut changed = Vec::new();
    for (path, places) in files {
        activity.check()?;
        let mut pages = 0;
        for run in runs(&from, &to, &places) {
            pages += differing(store, &records, (&from, &to), &run, activity)?;
        }
        if pages > 0 {
            let relative_path = path.clone().into();
            changed.push(ChangedFile {
                relative_path,
                pages,
            });
        }
    }
    Ok(changed)
}

impl Side {
    fn open(store: &Store, reference: &Reference, operation: Option<&Operation>) -> Result<Self> {
        let read = |txn: &crate::catalog::Txn<'_>| {
            let snapshot = txn.resolve(reference)?;
            if snapshot.format != Format::V2 {
                let text = format!("{reference} is of format v1, which has no pages to compare");
                return Err(Error::new(ErrorKind::Unsupported, text));
            }
            if let Some(operation) = operation {
                operation.lease(txn, snapshot.id)?;
            }
            txn.paged_document(snapshot.id)
        };
        let document = match operation {
            Some(_) => store.catalog.write(Sync::Normal, read),
            None => store.catalog.read(read),
        };
        let opened = document.and_then(|document| {
            let map = store.map_of(&document)?;
            Ok(Self { document, map })
        });
        opened.map_err(|error| error.with_reference(reference))
    }

    fn pack(&self, number: u32) -> Option<PackId> {
        Some(self.document.packs.get(number as usize)?.id)
    }

    /// By path, the second names of an inode too: what they are called, and where their pages are.
    fn files(&self) -> BTreeMap<&RelPath, (&PagedFile, Range<u64>)> {
        let places: HashMap<&RelPath, Range<u64>> = (self.document.places())
            .map(|(file, place)| (&file.path, place))
            .collect();
        let files = self.document.entries.files.iter().filter_map(|file| {
            let own = file.hardlink_of.as_ref().unwrap_or(&file.path);
            Some((&file.path, (file, places.get(own)?.clone())))
        });
        files.collect()
    }
}

/// Files that both have, unless they are called the same.
fn files<'s>(from: &'s Side, to: &Side) -> Vec<(&'s RelPath, Places)> {
    let theirs = to.files();
    let both = from.files().into_iter().filter_map(|(path, (old, at))| {
        let (new, there) = theirs.get(path)?.clone();
        let is_same = old.content.is_some() && old.content == new.content;
        (!is_same).then_some((path, (at, there)))
    });
    both.collect()
}

/// Pages of a file that may differ: where each side has them, if it has any.
#[derive(Clone, Copy, Debug)]
struct Run {
    from: Option<(u32, u64)>,
    to: Option<(u32, u64)>,
    pages: u64,
}

/// The runs of a file's pages that the two maps lead to different places.
fn runs(from: &Side, to: &Side, (at, there): &Places) -> Vec<Run> {
    let length = (at.end - at.start).max(there.end - there.start);
    let mut runs = Vec::new();
    let (mut old, mut new) = (Cursor::new(&from.map, at), Cursor::new(&to.map, there));
    let mut page = 0;
    while page < length {
        let (from_place, from_end) = old.look(page, length);
        let (to_place, to_end) = new.look(page, length);
        let pages = from_end.min(to_end) - page;
        page += pages;
        let place = |side: &Side, place: Option<(u32, u64)>| {
            place.and_then(|(pack, page)| Some((side.pack(pack)?, page)))
        };
        if place(from, from_place) != place(to, to_place) {
            runs.push(Run {
                from: from_place,
                to: to_place,
                pages,
            });
        }
    }
    runs
}

/// Goes through the extents of a file.
struct Cursor<'m> {
    map: &'m Map,
    place: &'m Range<u64>,
    extent: usize,
}

impl<'m> Cursor<'m> {
    fn new(map: &'m Map, place: &'m Range<u64>) -> Self {
        let extent = map.first_after(place.start);
        Self { map, place, extent }
    }

    /// Where a page of the file is, and up to which one that goes on. Pages ascend.
    fn look(&mut self, page: u64, length: u64) -> (Option<(u32, u64)>, u64) {
        let at = self.place.start.saturating_add(page);
        while self.map.get(self.extent).is_some_and(|one| one.end() <= at) {
            self.extent += 1;
        }
        let extent = self.map.get(self.extent);
        let Some(extent) = extent.filter(|one| one.start < self.place.end && at < self.place.end)
        else {
            return (None, length);
        };
        if extent.start > at {
            return (None, extent.start - self.place.start);
        }
        let end = extent.end().min(self.place.end) - self.place.start;
        (Some((extent.pack, extent.page + (at - extent.start))), end)
    }
}

/// Pages of packs that have to be looked at.
#[derive(Default)]
struct Doubtful(HashMap<PackId, Vec<Range<u64>>>);

impl Doubtful {
    fn add(&mut self, side: &Side, place: Option<(u32, u64)>, pages: u64) {
        let Some((pack, page)) = place else { return };
        let Some(id) = side.pack(pack) else { return };
        let ranges = self.0.entry(id).or_default();
        match ranges.last_mut() {
            Some(last) if last.end == page => last.end += pages,
            _ => ranges.push(page..page + pages),
        }
    }

    /// Reads the frames that have them, each once.
    fn read(self, store: &Store, activity: &Activity) -> Result<PageRecords> {
        let records = PageRecords::default();
        for (id, mut ranges) in self.0 {
            let pack = store.read_pack(id)?;
            let per_frame = u64::from(pack.layout().frame_pages().count());
            let mut wanted = vec![false; pack.layout().frames().len()];
            ranges.sort_unstable_by_key(|range| range.start);
            let mut next = 0;
            for range in ranges {
                if range.end > pack.layout().pages() {
                    let text = format!("a document and the pack {id} disagree about its pages");
                    return Err(Error::damaged(text));
                }
                let (first, end) = (range.start / per_frame, range.end.div_ceil(per_frame));
                // A page may be named any number of times.
                for frame in first.max(next)..end {
                    wanted[frame as usize] = true;
                }
                next = next.max(end);
            }
            records.record(store, &pack, &|frame| wanted[frame], activity)?;
        }
        Ok(records)
    }
}

/// Pages of a run that are compared at once.
const TOGETHER: u64 = 4096;

fn differing(
    store: &Store,
    records: &PageRecords,
    (from, to): (&Side, &Side),
    run: &Run,
    activity: &Activity,
) -> Result<u64> {
    let (mut old, mut new) = (Vec::new(), Vec::new());
    let (mut done, mut differ) = (0, 0);
    while done < run.pages {
        activity.check()?;
        let count = (run.pages - done).min(TOGETHER);
        let read = |side: &Side, place: Option<(u32, u64)>, into: &mut Vec<PageRecord>| {
            into.clear();
            let recorded =
                place.and_then(|(pack, page)| Some((records.pack(side.pack(pack)?)?, page + done)));
            match recorded {
                Some((pack, page)) => records.read(pack, page..page + count, into),
                None => {
                    into.resize(count as usize, PageRecord::ZERO);
                    Ok(())
                }
            }
        };
        let read = read(from, run.from, &mut old).and_then(|()| read(to, run.to, &mut new));
        read.at("read", store.root.staging.path())?;
        differ += old.iter().zip(&new).filter(|(old, new)| old != new).count() as u64;
        done += count;
    }
    Ok(differ)
}

//! Whether packs have the contents that a document of format v2 says. All its packs were read by then and were right, so only
//! what a map makes of their pages is left: each file's content id is folded from the digests that were written down.

use std::fs::File;
use std::io::{BufReader, Read};

use super::describe::{Fault, paged};
use crate::activity::Activity;
use crate::catalog::Snapshot;
use crate::format::content::{ContentHasher, PageDigest};
use crate::format::document::paged::{MAX_ALL_FRAMES, PagedDocument, PagedFile};
use crate::format::map::Map;
use crate::store::{PageRecord, PageRecords, RecordedPack, Store};
use crate::words::error::{At, ErrorKind, Result};
use crate::words::page::bytes_in_page;

/// Looks at one snapshot; `None`: all is well, or it is told of already.
pub(super) fn fault(
    store: &Store,
    snapshot: &Snapshot,
    records: &PageRecords,
    activity: &Activity,
) -> Result<Option<Fault>> {
    let Some(Ok(document)) = paged(store, snapshot)? else {
        return Ok(None);
    };
    let packs = document.packs.iter().map(|pack| records.pack(pack.id));
    let Some(packs) = packs.collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    let fault = |problem: String| Some(Fault::of_contents(snapshot, problem));
    if let Some(problem) = misfit(&document, &packs) {
        return Ok(fault(problem));
    }
    let map = match store.map_of(&document) {
        Ok(map) => map,
        Err(error) if error.kind() == ErrorKind::Damaged => return Ok(fault(error.line())),
        Err(error) => return Err(error),
    };
    let mut folding = Folding {
        store,
        records,
        packs: &packs,
        map: &map,
        list: List::open(store, snapshot, &map)?,
        pages: Vec::new(),
    };
    let wrong = folding.wrong(&document, activity)?;
    if wrong.is_empty() && !folding.list.is_right() && !store.is_read_only() {
        store.drop_page_list(&snapshot.manifest_digest);
    }
    Ok(match wrong.first() {
        None => None,
        Some(first) => fault(format!(
            "its packs do not have the contents of files: {}, {} for one",
            wrong.len(),
            first.path
        )),
    })
}

/// Where the packs cannot be those of the document.
fn misfit(document: &PagedDocument, packs: &[RecordedPack]) -> Option<String> {
    let mut both = document.packs.iter().zip(packs);
    if let Some((named, _)) = both.find(|(named, there)| named.pages != there.pages) {
        return Some(format!(
            "the document and the pack {} disagree about its pages",
            named.id
        ));
    }
    let frames: u64 = packs.iter().map(|pack| pack.frames).sum();
    (frames > MAX_ALL_FRAMES).then(|| "its packs have more than 4 Mi frames".to_owned())
}

/// Pages of which records are read at once.
const TOGETHER: u64 = 4096;

struct Folding<'a> {
    store: &'a Store,
    records: &'a PageRecords,
    packs: &'a [RecordedPack],
    map: &'a Map,
    list: List,
    pages: Vec<PageRecord>,
}

impl Folding<'_> {
    /// The files whose pages do not add up.
    fn wrong<'d>(
        &mut self,
        document: &'d PagedDocument,
        activity: &Activity,
    ) -> Result<Vec<&'d PagedFile>> {
        let mut wrong = Vec::new();
        for (file, place) in document.places() {
            if !self.is_right(file, &place, activity)? {
                wrong.push(file);
            }
        }
        Ok(wrong)
    }

    fn is_right(
        &mut self,
        file: &PagedFile,
        place: &std::ops::Range<u64>,
        activity: &Activity,
    ) -> Result<bool> {
        let mut content = ContentHasher::new(file.size);
        let mut is_clean = true;
        for extent in self.map.range(place.clone()) {
            let pack = self.packs[extent.pack as usize];
            let mut done = 0;
            while done < extent.pages {
                activity.check()?;
                let count = (extent.pages - done).min(TOGETHER);
                let first = extent.page + done;
                let read = self
                    .records
                    .read(pack, first..first + count, &mut self.pages);
                read.at("read", self.store.root.staging.path())?;
                let start = extent.start + done - place.start;
                for (index, page) in (start..).zip(&self.pages) {
                    self.list.compare(&page.digest);
                    is_clean &= usize::from(page.used) <= bytes_in_page(file.size, index);
                    if page.used > 0 {
                        content.page(index, &page.digest);
                    }
                }
                done += count;
            }
        }
        Ok(is_clean && file.content.is_none_or(|id| id == content.finish()))
    }
}

/// The list of page digests that the next capture would compare with.
struct List(Option<BufReader<File>>, bool);

impl List {
    fn open(store: &Store, snapshot: &Snapshot, map: &Map) -> Result<Self> {
        let file = match store.open_page_list(&snapshot.manifest_digest) {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(Self(None, true)),
            Err(error) => {
                tracing::debug!(%error, "a list of page digests cannot be opened");
                return Ok(Self(None, false));
            }
        };
        let length = file.metadata().at("examine", store.root.dir.path())?.len();
        let is_right = length == map.pages() * size_of::<PageDigest>() as u64;
        Ok(Self(Some(BufReader::new(file)), is_right))
    }

    fn compare(&mut self, digest: &PageDigest) {
        let Self(Some(file), is_right) = self else {
            return;
        };
        let mut there = PageDigest::default();
        *is_right = *is_right && file.read_exact(&mut there).is_ok() && there == *digest;
    }

    fn is_right(&self) -> bool {
        self.1
    }
}

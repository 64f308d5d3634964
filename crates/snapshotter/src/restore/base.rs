//! Restoring from a cache entry: the filesystem clones the file of a snapshot that is near, and the pages that differ are
//! written into the clone. Which differ, the two maps say: a page that is at one place of one pack in both is the same.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::job::Job;
use super::pages::{Packs, Run, runs};
use crate::catalog::Snapshot;
use crate::config;
use crate::format::artifact::paged::{Facts, PagedManifest};
use crate::format::content::ContentId;
use crate::format::map::Map;
use crate::fs::place::{Cloning, punch};
use crate::lock::lock;
use crate::store::{Cache, Entry, Linkable, Slot, Store, WORTH_AN_ENTRY, Wanted};
use crate::words::digest::Sha256;
use crate::words::error::{At, ErrorKind, Result};
use crate::words::page::{PAGE_BYTES, pages};
use crate::words::relpath::RelPath;

/// A file in more pieces is not cloned: the filesystem walks them all (XFS takes 24 µs for one).
const MAX_EXTENTS: u64 = 4000;

/// An entry is made anew when more than this part of a file's data is not from the one that was cloned.
const FAR: u64 = 16;

/// The cache, for the files of one snapshot.
#[derive(Debug)]
pub(super) struct Bases<'s> {
    pub(super) cache: Cache<'s>,
    pub(super) packs: &'s Packs<'s>,
    store: &'s Store,
    snapshot: &'s Snapshot,
    parent: Option<Sha256>,
    relatives: Mutex<HashMap<Sha256, Option<Arc<Relative>>>>,
    bounds: config::Cache,
    added: AtomicBool,
}

/// Another snapshot, of which there are entries.
#[derive(Debug)]
struct Relative {
    created_at: i64,
    map: Map,
    /// The number that each of its packs has among those of the snapshot that is restored, if it is one of them.
    packs: Vec<Option<usize>>,
    /// The first page of each file, and its size in bytes.
    files: HashMap<RelPath, (u64, u64)>,
}

/// What is to be done to a file that has become a clone.
#[derive(Debug, Default, PartialEq, Eq)]
struct Difference {
    write: Vec<Run>,
    punch: Vec<Range<u64>>,
}

impl Difference {
    fn pages(&self) -> u64 {
        self.write.iter().map(|run| run.pages).sum()
    }

    fn pieces(&self) -> u64 {
        2 * (self.write.len() + self.punch.len()) as u64
    }
}

/// What a clone was not good for: pages that were written, and in about how many pieces the file is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filled {
    pub(super) written: u64,
    pub(super) extents: u64,
}

impl<'s> Bases<'s> {
    /// Those for a snapshot; `None` where none are kept.
    pub(super) fn open(
        packs: &'s Packs<'s>,
        snapshot: &'s Snapshot,
        bounds: config::Cache,
    ) -> Result<Option<Self>> {
        if bounds.max_bytes == Some(0) || bounds.keep == 0 {
            return Ok(None);
        }
        let store = packs.store;
        let cache = match Cache::open(store) {
            Ok(Some(cache)) => cache,
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            // On a full disk, say: packs have all.
            Err(error) => {
                tracing::debug!(%error, "nothing is cached");
                return Ok(None);
            }
        };
        let manifest = store.catalog.read(|txn| txn.manifest(snapshot.id))?;
        let manifest = PagedManifest::parse(&manifest).ok();
        Ok(Some(Self {
            cache,
            packs,
            store,
            snapshot,
            parent: manifest.and_then(|manifest| Facts::of(&manifest.annotations).parent),
            relatives: Mutex::default(),
            bounds,
            added: AtomicBool::new(false),
        }))
    }

    /// Makes an empty file the clone of a near one and says what is to be written into it; `None`: there is none, or the
    /// filesystem does not clone, and the file is as it was.
    pub(super) fn clone_near(
        &self,
        job: &Job<'_>,
        first: u64,
        file: &File,
        cloning: &Cloning,
    ) -> Result<Option<(Filled, Vec<Run>)>> {
        let size = job.planned.size;
        let wanted = self.packs.runs(first, size);
        for (entry, relative) in self.candidates(&job.planned.path)? {
            let path = &job.planned.path;
            let Some(difference) = lacks(relative.as_deref(), path, &wanted) else {
                continue;
            };
            let written = difference.pages();
            let extents = entry.extents + difference.pieces();
            if written * 2 > pages(job.data_size) || extents > MAX_EXTENTS {
                continue;
            }
            let Some(base) = self.cache.open_base(&entry)? else {
                continue;
            };
            if !cloning.clone(job.device, &base, file).at("clone", PLACE)? {
                return Ok(None);
            }
            file.set_len(size).at("write to", PLACE)?;
            for hole in &difference.punch {
                let (at, end) = (hole.start * PAGE, (hole.end * PAGE).min(size));
                // What is behind the end has gone with it.
                if at < end {
                    punch(file, at, end - at).at("write to", PLACE)?;
                }
            }
            return Ok(Some((Filled { written, extents }, difference.write)));
        }
        Ok(None)
    }

    /// Entries of a path, with their snapshots but for this one's own: the nearest first.
    fn candidates(&self, path: &RelPath) -> Result<Vec<(Entry, Option<Arc<Relative>>)>> {
        let entries = self.cache.bases(path);
        let own = |entry: &&Entry| entry.manifest == self.snapshot.manifest_digest;
        if let Some(own) = entries.iter().find(own) {
            return Ok(vec![(*own, None)]);
        }
        let mut found = Vec::new();
        for entry in entries {
            if let Some(relative) = self.relative(&entry.manifest)? {
                let is_parent = Some(entry.manifest) == self.parent;
                let age = std::cmp::Reverse(relative.created_at);
                found.push(((!is_parent, age), *entry, Some(relative)));
            }
        }
        found.sort_by_key(|(far, ..)| *far);
        let found = found.into_iter();
        Ok(found
            .map(|(_, entry, relative)| (entry, relative))
            .collect())
    }

    /// A snapshot that is the parent or has the same name. It is not what is restored: so nobody need know what is wrong with it.
    fn relative(&self, manifest: &Sha256) -> Result<Option<Arc<Relative>>> {
        if let Some(known) = lock(&self.relatives).get(manifest) {
            return Ok(known.clone());
        }
        let relative = match self.read_relative(manifest) {
            Ok(relative) => relative.map(Arc::new),
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "what is cached of another snapshot is not used");
                None
            }
        };
        lock(&self.relatives).insert(*manifest, relative.clone());
        Ok(relative)
    }

    fn read_relative(&self, manifest: &Sha256) -> Result<Option<Relative>> {
        let catalog = &self.store.catalog;
        let Some(snapshot) = catalog.read(|txn| txn.of_manifest(manifest))? else {
            return Ok(None);
        };
        let is_of_name = snapshot.reference.name() == self.snapshot.reference.name();
        if !is_of_name && Some(*manifest) != self.parent {
            return Ok(None);
        }
        // It is not leased, and may go at any moment.
        let document = catalog.read(|txn| txn.paged_document(snapshot.id))?;
        let map = self.store.map_of(&document)?;
        let packs = document.packs.iter();
        let files = document.places();
        let files = files.map(|(file, place)| (file.path.clone(), (place.start, file.size)));
        Ok(Some(Relative {
            created_at: snapshot.created_at,
            map,
            packs: packs.map(|pack| self.packs.number_of(pack.id)).collect(),
            files: files.collect(),
        }))
    }

    /// Keeps a file that is whole and has no name yet, if it is far from what there is. Best effort: a cache.
    pub(super) fn keep(&self, job: &Job<'_>, file: &File, filled: Filled, cloning: &Cloning) {
        let is_far = filled.written > pages(job.data_size) / FAR;
        if job.data_size < WORTH_AN_ENTRY || !is_far || filled.extents > MAX_EXTENTS {
            return;
        }
        let kept = self.store.create_slot().and_then(|(slot, copy)| {
            if cloning.clone(job.device, file, &copy).at("clone", PLACE)? {
                let manifest = self.snapshot.manifest_digest;
                let path = &job.planned.path;
                self.cache
                    .keep_base(slot, &copy, manifest, path, filled.extents)?;
                self.added.store(true, Ordering::Relaxed);
            }
            Ok(())
        });
        if let Err(error) = kept {
            tracing::debug!(%error, "a file was not kept in the cache");
        }
    }

    /// Keeps an inode that read-only files are linked to.
    pub(super) fn keep_linked(
        &self,
        slot: Slot<'_>,
        file: &File,
        content: ContentId,
        wanted: &Wanted,
    ) -> Result<Option<Linkable<'_>>> {
        self.added.store(true, Ordering::Relaxed);
        let named = (content, self.snapshot.manifest_digest);
        self.cache.keep_linked(slot, file, named, wanted)
    }

    /// Removes what is beyond the bounds.
    pub(super) fn finish(&self) {
        if !self.added.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.cache.trim(self.bounds.keep, self.bounds.max_bytes) {
            tracing::debug!(%error, "the cache was not brought back into its bounds");
        }
    }
}

const PAGE: u64 = PAGE_BYTES as u64;
const PLACE: &str = "the output";

/// What a file of this path in another snapshot lacks; nothing, if it is this snapshot.
fn lacks(relative: Option<&Relative>, path: &RelPath, wanted: &[Run]) -> Option<Difference> {
    let Some(relative) = relative else {
        return Some(Difference::default());
    };
    let (first, size) = *relative.files.get(path)?;
    let mut there = runs(&relative.map, first, size);
    for run in &mut there {
        run.pack = relative.packs[run.pack].unwrap_or(usize::MAX);
    }
    Some(difference(&there, wanted))
}

/// What differs between two files whose packs have the same numbers. Runs ascend.
fn difference(there: &[Run], wanted: &[Run]) -> Difference {
    let mut found = Difference::default();
    let (mut old, mut new) = (
        there.iter().copied().peekable(),
        wanted.iter().copied().peekable(),
    );
    // What is left of both begins at different places, or at one.
    while let (Some(was), Some(is)) = (old.peek_mut(), new.peek_mut()) {
        if was.at < is.at {
            let hole = was.take(is.at - was.at);
            found.hole(&hole);
        } else if is.at < was.at {
            let data = is.take(was.at - is.at);
            found.data(data);
        } else {
            let both = was.pages.min(is.pages);
            let is_same = (was.pack, was.page) == (is.pack, is.page);
            let (_, data) = (was.take(both), is.take(both));
            if !is_same {
                found.data(data);
            }
        }
        while old.next_if(|run| run.pages == 0).is_some() {}
        while new.next_if(|run| run.pages == 0).is_some() {}
    }
    old.for_each(|run| found.hole(&run));
    new.for_each(|run| found.data(run));
    found
}

impl Difference {
    fn data(&mut self, run: Run) {
        match self.write.last_mut() {
            Some(last) if last.is_continued_by(&run) => last.pages += run.pages,
            _ => self.write.push(run),
        }
    }

    fn hole(&mut self, run: &Run) {
        let pages = run.at..run.at + run.pages;
        match self.punch.last_mut() {
            Some(last) if last.end == pages.start => last.end = pages.end,
            _ => self.punch.push(pages),
        }
    }
}

impl Run {
    /// Cuts off the first pages, at most so many.
    pub(super) fn take(&mut self, pages: u64) -> Self {
        let pages = pages.min(self.pages);
        let first = Self { pages, ..*self };
        self.at += pages;
        self.page += pages;
        self.pages -= pages;
        first
    }

    fn is_continued_by(&self, next: &Self) -> bool {
        self.pack == next.pack
            && self.at + self.pages == next.at
            && self.page + self.pages == next.page
    }
}

/// In how many pieces a file is that has these runs alone.
pub(super) fn pieces(runs: &[Run]) -> u64 {
    let apart = runs
        .windows(2)
        .filter(|two| two[0].at + two[0].pages != two[1].at);
    apart.count() as u64 + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is at each page of a file.
    fn spread(runs: &[Run]) -> Vec<Option<(usize, u64)>> {
        let mut pages = vec![None; 64];
        for run in runs {
            for page in 0..run.pages {
                pages[(run.at + page) as usize] = Some((run.pack, run.page + page));
            }
        }
        pages
    }

    fn a_file() -> impl Strategy<Value = Vec<Run>> {
        let one = (0_u64..4, 1_u64..6, 0_usize..2, 0_u64..3);
        proptest::collection::vec(one, 0..8).prop_map(|all| {
            let mut at = 0;
            let run = |(gap, pages, pack, page)| {
                let run = Run {
                    pack,
                    page,
                    at: at + gap,
                    pages,
                };
                at = run.at + pages;
                run
            };
            all.into_iter().map(run).collect()
        })
    }

    proptest! {
        #[test]
        fn a_clone_with_the_difference_is_the_file(old in a_file(), new in a_file()) {
            let found = difference(&old, &new);
            let (before, mut pages) = (spread(&old), spread(&old));
            for hole in &found.punch {
                for page in hole.clone() {
                    prop_assert!(pages[page as usize].take().is_some());
                }
            }
            for (page, written) in spread(&found.write).into_iter().enumerate() {
                if written.is_some() {
                    prop_assert!(before[page] != written);
                    pages[page] = written;
                }
            }
            prop_assert_eq!(pages, spread(&new));
        }
    }
}

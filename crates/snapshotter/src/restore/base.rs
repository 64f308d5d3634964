//! Restoring from a cache entry: the file of a snapshot that is near is cloned, or copied where that is not possible or takes
//! longer, and the pages that differ are written into it. Which differ, the two maps say: a page that is at one place of one pack in both is the same.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::content::Content;
use super::difference::{Difference, difference};
use super::job::Job;
use super::pages::{Packs, Run, runs};
use crate::activity::Activity;
use crate::catalog::Snapshot;
use crate::config;
use crate::format::artifact::paged::{Facts, PagedManifest};
use crate::format::content::ContentId;
use crate::format::map::Map;
use crate::fs::place::Cloning;
use crate::fs::space;
use crate::lock::lock;
use crate::pass::copy_of;
use crate::store::{Cache, Entry, Linkable, Slot, Store, WORTH_AN_ENTRY, Wanted};
use crate::words::digest::Sha256;
use crate::words::error::{At, ErrorKind, Result};
use crate::words::page::pages;
use crate::words::placement::Placement;
use crate::words::relpath::RelPath;

/// A file with more pieces than these bytes go into its data is copied and not cloned: the filesystem walks them all, and XFS takes
/// as long for one (24 µs) as it takes to copy about so much.
const AN_EXTENT: u64 = 32 << 10;

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
    files: HashMap<RelPath, Near>,
}

/// A file of another snapshot.
#[derive(Clone, Copy, Debug)]
struct Near {
    first: u64,
    /// In bytes.
    size: u64,
    content: Option<ContentId>,
}

/// A file that has become what a near one is.
pub(super) struct Started {
    pub(super) filled: Filled,
    /// What is to be written into it.
    pub(super) write: Vec<Run>,
    pub(super) placement: Placement,
}

/// What an entry was not good for: pages that were written, and in about how many pieces the file is.
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

    /// Makes an empty file a near one and says what is to be written into it; `None`: there is none that is what it was, and the
    /// file is empty. Without `cloning` it is not to be a clone.
    pub(super) fn start(
        &self,
        job: &Job<'_>,
        first: u64,
        (file, path): (&File, &Path),
        cloning: Option<&Cloning>,
        activity: &Activity,
    ) -> Result<Option<Started>> {
        let size = job.planned.size;
        let wanted = self.packs.runs(first, size);
        for (entry, relative) in self.candidates(&job.planned.path)? {
            let Some((near, difference)) = near(relative.as_deref(), job, first, &wanted) else {
                continue;
            };
            let written = difference.pages();
            if written * 2 > pages(job.data_size) {
                continue;
            }
            let Some(base) = self.cache.open_base(&entry)? else {
                continue;
            };
            let extents = entry.extents + difference.pieces();
            let cloning = cloning.filter(|_| is_worth_cloning(job, extents));
            let is_clone = match cloning {
                Some(cloning) => cloning.clone(job.device, &base, file).at("clone", path)?,
                None => false,
            };
            let placement = if is_clone {
                Placement::Reflink
            } else if self.copy(&entry, &base, near, (file, path), activity)? {
                Placement::Copy
            } else {
                continue;
            };
            difference.punch_into(file, size).at("write to", path)?;
            return Ok(Some(Started {
                filled: Filled { written, extents },
                write: difference.write,
                placement,
            }));
        }
        Ok(None)
    }

    /// Makes an empty file the copy of an entry, if it still has the bytes that it was given.
    fn copy(
        &self,
        entry: &Entry,
        base: &File,
        near: Near,
        (file, path): (&File, &Path),
        activity: &Activity,
    ) -> Result<bool> {
        let Some(content) = near.content else {
            return Ok(false);
        };
        let copied = copy_of(base, file, near.size, &|| activity.advance(0));
        activity.check()?;
        match copied {
            Ok(found) if found == content => return Ok(true),
            Ok(_) => self.cache.drop_base(entry),
            Err(error) => tracing::debug!(%error, "a cache entry was not copied"),
        }
        // Packs have all.
        file.set_len(0).at("write to", path)?;
        Ok(false)
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
        let files = files.map(|(file, place)| {
            let near = Near {
                first: place.start,
                size: file.size,
                content: file.content,
            };
            (file.path.clone(), near)
        });
        Ok(Some(Relative {
            created_at: snapshot.created_at,
            map,
            packs: packs.map(|pack| self.packs.number_of(pack.id)).collect(),
            files: files.collect(),
        }))
    }

    /// Keeps a file that is whole and has no name yet, if it is far from what there is. Best effort: a cache. Without `cloning` it
    /// is not to be cloned.
    pub(super) fn keep(
        &self,
        job: &Job<'_>,
        file: &File,
        filled: Filled,
        cloning: Option<&Cloning>,
        activity: &Activity,
    ) {
        let is_far = filled.written > pages(job.data_size) / FAR;
        let cloning = cloning.filter(|_| is_worth_cloning(job, filled.extents));
        let is_possible = cloning.is_some() || self.bounds.copies;
        if job.data_size < WORTH_AN_ENTRY || !is_far || !is_possible {
            return;
        }
        let kept = self.store.create_slot().and_then(|(slot, copy)| {
            if self.is_entry(job, file, &copy, cloning, activity)? {
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

    /// Makes an empty file what an entry of a file is, by a clone or, where that is asked for, a copy.
    fn is_entry(
        &self,
        job: &Job<'_>,
        file: &File,
        entry: &File,
        cloning: Option<&Cloning>,
        activity: &Activity,
    ) -> Result<bool> {
        if let Some(cloning) = cloning
            && cloning
                .clone(job.device, file, entry)
                .at("clone", &job.planned.path)?
        {
            return Ok(true);
        }
        let (true, Content::Pages { id: Some(id), .. }) =
            (self.bounds.copies, &job.planned.content)
        else {
            return Ok(false);
        };
        let staging = &self.store.root.staging;
        let here = space::of(staging).at("examine", staging.path())?;
        if here.available < job.data_size {
            return Ok(false);
        }
        let asked = || activity.advance(0);
        let copied = copy_of(file, entry, job.planned.size, &asked);
        Ok(copied.at("copy", &job.planned.path)? == *id)
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

fn is_worth_cloning(job: &Job<'_>, extents: u64) -> bool {
    extents <= job.data_size / AN_EXTENT
}

/// The file of this path in another snapshot, and what it lacks; of this snapshot, without another, nothing.
fn near(
    relative: Option<&Relative>,
    job: &Job<'_>,
    first: u64,
    wanted: &[Run],
) -> Option<(Near, Difference)> {
    let Some(relative) = relative else {
        let Content::Pages { id: content, .. } = job.planned.content else {
            return None;
        };
        let size = job.planned.size;
        let near = Near {
            first,
            size,
            content,
        };
        return Some((near, Difference::default()));
    };
    let near = *relative.files.get(&job.planned.path)?;
    let mut there = runs(&relative.map, near.first, near.size);
    for run in &mut there {
        run.pack = relative.packs[run.pack].unwrap_or(usize::MAX);
    }
    Some((near, difference(&there, wanted)))
}

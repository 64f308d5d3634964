//! Cache entries, under `cache/<boot>/` in the root: whole files with contents of format v2, from which restores are made
//! without decoding a page. Packs are the truth and an entry may go at any moment: whoever uses one has it open, and whoever
//! does not find it decodes.
//!
//! An entry has no row; its name says all there is to say ([`entries`](super::entries)). Nothing is synced: what was made in
//! one boot means nothing in the next.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::sync::Mutex;

use super::trash::take_away;
use super::{Entry, Key, Linkable, PathHash, Slot, Store, Wanted, path_hash};
use crate::format::content::ContentId;
use crate::fs::dir::ignore_absent;
use crate::fs::{Dir, Stat};
use crate::lock::lock;
use crate::words::digest::Sha256;
use crate::words::error::{At, Result};
use crate::words::relpath::RelPath;

/// The directory.
pub(super) const NAME: &str = "cache";

/// Files with less data than this have no entries, in bytes: decoding them takes no longer than finding one.
pub(crate) const WORTH_AN_ENTRY: u64 = 64 << 10;

/// An entry that is there.
#[derive(Debug)]
pub(crate) struct CacheEntry {
    pub(crate) entry: Entry,
    pub(crate) stat: Stat,
}

/// The entries of this boot, as one restore knows them.
#[derive(Debug)]
pub(crate) struct Cache<'s> {
    store: &'s Store,
    dir: Dir,
    linked: Mutex<HashMap<Key, Entry>>,
    bases: HashMap<PathHash, Vec<(Sha256, Entry)>>,
}

impl<'s> Cache<'s> {
    /// Those that are here; `None` where none can be kept.
    pub(crate) fn open(store: &'s Store) -> Result<Option<Self>> {
        let Some(dir) = store.cache_dir(true)? else {
            return Ok(None);
        };
        let (mut linked, mut bases) = (HashMap::new(), HashMap::<_, Vec<_>>::new());
        for entry in dir.names()?.iter().filter_map(|name| Entry::parse(name)) {
            match entry.key {
                Key::Linked { .. } => _ = linked.insert(entry.key, entry),
                Key::Base { manifest, path } => {
                    bases.entry(path).or_default().push((manifest, entry));
                }
            }
        }
        let linked = Mutex::new(linked);
        Ok(Some(Self {
            store,
            dir,
            linked,
            bases,
        }))
    }

    /// An inode to link to that has these bytes and attributes.
    pub(crate) fn linkable(
        &self,
        content: ContentId,
        size: u64,
        wanted: &Wanted,
    ) -> Result<Option<Linkable<'_>>> {
        let key = linked(content, wanted);
        let Some(entry) = lock(&self.linked).get(&key).copied() else {
            return Ok(None);
        };
        let name = entry.name();
        let path = || self.dir.path_of(&name);
        let Some((file, stat)) = self.open_entry(&entry)? else {
            lock(&self.linked).remove(&key);
            return Ok(None);
        };
        let fits = stat.size == size && wanted.matches(&file, &stat).at("examine", path())?;
        let dir = &self.dir;
        Ok(fits.then_some(Linkable { dir, name, stat }))
    }

    /// Makes a staged file, which has its bytes and attributes, an inode to link to.
    pub(crate) fn keep_linked(
        &self,
        slot: Slot<'_>,
        file: &File,
        content: ContentId,
        wanted: &Wanted,
    ) -> Result<Linkable<'_>> {
        let entry = self.keep(slot, file, linked(content, wanted), 0)?;
        lock(&self.linked).insert(entry.key, entry);
        let name = entry.name();
        let stat = Stat::of_file(file).at("examine", self.dir.path_of(&name))?;
        let dir = &self.dir;
        Ok(Linkable { dir, name, stat })
    }

    /// The snapshots of which there is a file of this path, by their manifests.
    pub(crate) fn bases(&self, path: &RelPath) -> &[(Sha256, Entry)] {
        self.bases.get(&path_hash(path)).map_or(&[], Vec::as_slice)
    }

    /// Opens an entry; `None`: it has gone, or is not what it was.
    pub(crate) fn open_base(&self, entry: &Entry) -> Result<Option<File>> {
        Ok(self.open_entry(entry)?.map(|(file, _)| file))
    }

    fn open_entry(&self, entry: &Entry) -> Result<Option<(File, Stat)>> {
        let name = entry.name();
        let path = || self.dir.path_of(&name);
        let file = match self.dir.open_file(&name) {
            Ok(file) => file,
            // Whatever is wrong with it: packs have the bytes too.
            Err(error) => {
                tracing::debug!(%error, path = %path().display(), "a cache entry is not used");
                return Ok(None);
            }
        };
        let stat = Stat::of_file(&file).at("examine", path())?;
        if entry.is(&stat) {
            return Ok(Some((file, stat)));
        }
        tracing::debug!(path = %path().display(), "a cache entry is not what it was");
        if let Err(error) = take_away(&self.dir, &name) {
            tracing::debug!(%error, "a cache entry stays");
        }
        Ok(None)
    }

    /// Makes a staged file the bytes of a file of a snapshot.
    pub(crate) fn keep_base(
        &self,
        slot: Slot<'_>,
        file: &File,
        manifest: Sha256,
        path: &RelPath,
        extents: u64,
    ) -> Result<()> {
        let path = path_hash(path);
        self.keep(slot, file, Key::Base { manifest, path }, extents)
            .map(|_| ())
    }

    fn keep(&self, mut slot: Slot<'_>, file: &File, key: Key, extents: u64) -> Result<Entry> {
        let stat = Stat::of_file(file).at("examine", self.dir.path())?;
        let entry = Entry::of(key, &stat, extents);
        slot.rename_to(&self.dir, &entry.name())?;
        Ok(entry)
    }

    /// Removes what is beyond the bounds: of each file of a name all but the newest `keep`, and of all the oldest.
    pub(crate) fn trim(&self, keep: usize, max_bytes: Option<u64>) -> Result<()> {
        let mut found = self.store.cache_entries()?;
        let names = self.store.catalog.read(|txn| txn.snapshots())?;
        let names: HashMap<Sha256, &str> = names
            .iter()
            .map(|one| (one.manifest_digest, one.reference.name()))
            .collect();
        found.reverse();
        let mut kept = HashMap::<(PathHash, &str), usize>::new();
        let mut bytes = 0_u64;
        for one in found {
            let is_one_too_many = match one.entry.key {
                Key::Linked { .. } => false,
                Key::Base { manifest, path } => match names.get(&manifest) {
                    None => true,
                    Some(name) => {
                        let count = kept.entry((path, name)).or_default();
                        *count += 1;
                        *count > keep
                    }
                },
            };
            bytes = bytes.saturating_add(one.frees());
            if is_one_too_many || max_bytes.is_some_and(|most| bytes > most) {
                bytes = bytes.saturating_sub(one.frees());
                self.store.drop_entry(&self.dir, &one)?;
            }
        }
        Ok(())
    }
}

fn linked(content: ContentId, wanted: &Wanted) -> Key {
    let attributes = wanted.fingerprint;
    Key::Linked {
        content,
        attributes,
    }
}

impl CacheEntry {
    /// Bytes that the filesystem gets back.
    pub(crate) fn frees(&self) -> u64 {
        if self.stat.nlink > 1 {
            return 0;
        }
        self.stat.allocated
    }
}

impl Store {
    /// Where the entries of this boot are; `None` where there are none, or, if they are to be made, where none can be.
    fn cache_dir(&self, make: bool) -> Result<Option<Dir>> {
        if self.boot.is_empty() {
            return Ok(None);
        }
        let boot = OsStr::new(&self.boot);
        let name = OsStr::new(NAME);
        if make && !self.is_read_only() {
            let cache = self.root.dir.ensure_dir(name, 0o700)?;
            return cache.ensure_dir(boot, 0o700).map(Some);
        }
        let is_there = |dir: &Dir, name: &OsStr| -> Result<bool> {
            let there = dir.stat_if_any(name).at("examine", dir.path_of(name))?;
            Ok(there.is_some())
        };
        if make || !is_there(&self.root.dir, name)? {
            return Ok(None);
        }
        let cache = self.root.dir.open_dir(name)?;
        let there = is_there(&cache, boot)?;
        there.then(|| cache.open_dir(boot)).transpose()
    }

    /// The entries that are here, those first that were made or linked to the longest time ago.
    pub(crate) fn cache_entries(&self) -> Result<Vec<CacheEntry>> {
        let Some(dir) = self.cache_dir(false)? else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for name in dir.names()? {
            let stat = dir.stat_if_any(&name).at("examine", dir.path_of(&name))?;
            let entry = Entry::parse(&name);
            found.extend(
                entry
                    .zip(stat)
                    .map(|(entry, stat)| CacheEntry { entry, stat }),
            );
        }
        found.sort_by_key(|one| (one.stat.ctime, one.entry.inode));
        Ok(found)
    }

    /// Opens an entry for reading, whatever became of it.
    pub(crate) fn open_cache_entry(&self, found: &CacheEntry) -> Result<Option<File>> {
        let dir = self.cache_dir(false)?;
        Ok(dir.and_then(|dir| dir.open_file(&found.entry.name()).ok()))
    }

    /// Takes an entry away.
    pub(crate) fn drop_cache_entry(&self, found: &CacheEntry) -> Result<()> {
        match self.cache_dir(false)? {
            Some(dir) => self.drop_entry(&dir, found),
            None => Ok(()),
        }
    }

    fn drop_entry(&self, dir: &Dir, found: &CacheEntry) -> Result<()> {
        take_away(dir, &found.entry.name())
    }

    /// Takes entries away until the filesystem gets so many bytes and inodes back, the oldest first, or only says which would
    /// go. Says how many, and their bytes.
    pub(crate) fn drop_cache_entries(
        &self,
        bytes: u64,
        inodes: u64,
        dry_run: bool,
    ) -> Result<(u64, u64)> {
        let (mut dropped, mut freed) = (0, 0);
        for one in self.cache_entries()? {
            if freed >= bytes && dropped >= inodes {
                break;
            }
            // What has other names gives nothing back.
            if one.frees() > 0 {
                if !dry_run {
                    self.drop_cache_entry(&one)?;
                }
                dropped += 1;
                freed += one.frees();
            }
        }
        Ok((dropped, freed))
    }

    /// Gives up what is cached of a snapshot that goes. What fails here later sweeps take.
    pub(crate) fn drop_caches_of(&self, manifest: &Sha256) {
        self.drop_page_list(manifest);
        let is_of = |one: &CacheEntry| matches!(one.entry.key, Key::Base { manifest: of, .. } if of == *manifest);
        let dropped = self.cache_entries().and_then(|found| {
            let mut of_it = found.iter().filter(|one| is_of(one));
            of_it.try_for_each(|one| self.drop_cache_entry(one))
        });
        if let Err(error) = dropped {
            tracing::debug!(%error, "a cache entry was not removed");
        }
    }

    /// Removes what is no entry, and what other boots have left. Says how many files went.
    pub(super) fn sweep_cache(&self) -> Result<u64> {
        let name = OsStr::new(NAME);
        let there = self.root.dir.stat_if_any(name);
        if there.at("examine", self.root.dir.path_of(name))?.is_none() {
            return Ok(0);
        }
        let cache = self.root.dir.open_dir(name)?;
        let mut swept = 0;
        for boot in cache.names()? {
            let dir = cache.open_dir(&boot)?;
            let is_now = boot == OsStr::new(&self.boot);
            for name in dir.names()? {
                if !is_now || Entry::parse(&name).is_none() {
                    take_away(&dir, &name)?;
                    swept += 1;
                }
            }
            if !is_now {
                ignore_absent(cache.remove_dir(&boot)).at("remove", dir.path())?;
            }
        }
        Ok(swept)
    }
}

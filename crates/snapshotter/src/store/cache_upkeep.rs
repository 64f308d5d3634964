//! The upkeep of what is cached: which entries there are, which go for space, with their snapshot or with their boot, and
//! which move when a snapshot gets another manifest. A failure here costs space for a while; later sweeps take what stayed.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;

use super::cache::{CacheEntry, NAME};
use super::trash::take_away;
use super::{Entry, Key, Store, path_hash};
use crate::fs::dir::ignore_absent;
use crate::fs::{Dir, Stat};
use crate::words::digest::Sha256;
use crate::words::error::{At, Result};
use crate::words::relpath::RelPath;

impl Store {
    /// Where the entries of this boot are; `None` where there are none, or, if they are to be made, where none can be.
    pub(super) fn cache_dir(&self, make: bool) -> Result<Option<Dir>> {
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
        self.cache_dir(false)?
            .map_or_else(|| Ok(Vec::new()), |dir| entries_in(&dir))
    }

    /// Opens an entry for reading, whatever became of it.
    pub(crate) fn open_cache_entry(&self, found: &CacheEntry) -> Result<Option<File>> {
        let dir = self.cache_dir(false)?;
        Ok(dir.and_then(|dir| dir.open_file(&found.entry.name()).ok()))
    }

    /// The entry with the bytes of a file of a snapshot, if there is one that is what it was.
    pub(crate) fn open_base_of(&self, manifest: &Sha256, path: &RelPath) -> Option<File> {
        let dir = self.cache_dir(false).ok().flatten()?;
        let key = Key::Base {
            path: path_hash(path),
        };
        let names = dir.names().ok()?;
        let entries = names.iter().filter_map(|name| Entry::parse(name));
        let mut own = entries.filter(|entry| entry.key == key && entry.manifest == *manifest);
        own.find_map(|entry| {
            let file = dir.open_file(&entry.name()).ok()?;
            entry.is(&Stat::of_file(&file).ok()?).then_some(file)
        })
    }

    /// Takes an entry away.
    pub(crate) fn drop_cache_entry(&self, found: &CacheEntry) -> Result<()> {
        match self.cache_dir(false)? {
            Some(dir) => take_away(&dir, &found.entry.name()),
            None => Ok(()),
        }
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
        let Some(dir) = self.cache_dir(false)? else {
            return Ok((dropped, freed));
        };
        for one in entries_in(&dir)? {
            if freed >= bytes && dropped >= inodes {
                break;
            }
            // What has other names gives nothing back.
            if one.frees() > 0 {
                if !dry_run && let Err(error) = take_away(&dir, &one.entry.name()) {
                    tracing::debug!(%error, "a cache entry stays");
                    continue;
                }
                dropped += 1;
                freed += one.frees();
            }
        }
        Ok((dropped, freed))
    }

    /// Gives up what is cached of snapshots that went, but for what others have names of, and for what is cached of snapshots
    /// that have another name. What fails here later sweeps take.
    pub(crate) fn drop_caches_of(&self, manifests: &[Sha256]) {
        if manifests.is_empty() {
            return;
        }
        match self.catalog.read(|txn| txn.manifests()) {
            Ok(left) => {
                let left: HashSet<Sha256> = left.into_iter().collect();
                let gone = manifests
                    .iter()
                    .filter(|manifest| !left.contains(*manifest));
                gone.for_each(|manifest| self.drop_caches(manifest));
            }
            Err(error) => tracing::debug!(%error, "what is cached of a snapshot that went stays"),
        }
    }

    fn drop_caches(&self, manifest: &Sha256) {
        self.drop_page_list(manifest);
        let dropped = self.each_entry_of(manifest, &|dir, one| {
            if one.is_alone() {
                take_away(dir, &one.entry.name())?;
            }
            Ok(())
        });
        if let Err(error) = dropped {
            tracing::debug!(%error, "a cache entry was not removed");
        }
    }

    /// A snapshot has another manifest from now on.
    #[cfg(feature = "registry")]
    pub(crate) fn move_caches(&self, from: &Sha256, to: &Sha256) {
        if from == to {
            return;
        }
        self.move_page_list(from, to);
        let moved = self.each_entry_of(from, &|dir, one| {
            let name = one.entry.name();
            let now = Entry {
                manifest: *to,
                ..one.entry
            };
            let moved = dir.rename(&name, dir, &now.name());
            ignore_absent(moved).at("rename", dir.path_of(&name))
        });
        if let Err(error) = moved {
            tracing::debug!(%error, "a cache entry was not renamed");
        }
    }

    fn each_entry_of(
        &self,
        manifest: &Sha256,
        each: &dyn Fn(&Dir, &CacheEntry) -> Result<()>,
    ) -> Result<()> {
        let Some(dir) = self.cache_dir(false)? else {
            return Ok(());
        };
        let found = entries_in(&dir)?;
        let mut of_it = found.iter().filter(|one| one.entry.manifest == *manifest);
        of_it.try_for_each(|one| each(&dir, one))
    }

    /// Removes what is no entry, what other boots have left, and what was made for snapshots that are not here and has no other
    /// name. Says how many files went; what cannot go stays, and stops nobody.
    pub(super) fn sweep_cache(&self) -> Result<u64> {
        let mut swept = 0;
        let name = OsStr::new(NAME);
        let there = self.root.dir.stat_if_any(name);
        if there.at("examine", self.root.dir.path_of(name))?.is_none() {
            return Ok(swept);
        }
        let cache = self.root.dir.open_dir(name)?;
        let snapshots = self.catalog.read(|txn| txn.snapshots())?;
        let here: HashSet<Sha256> = snapshots.iter().map(|one| one.manifest_digest).collect();
        for boot in cache.names()? {
            let is_now = boot == OsStr::new(&self.boot);
            let Ok(dir) = cache.open_dir(&boot) else {
                // Gone meanwhile, or none of ours.
                continue;
            };
            for name in dir.names()? {
                if is_now && is_of_use(&dir, &name, &here)? {
                    continue;
                }
                match take_away(&dir, &name) {
                    Ok(()) => swept += 1,
                    Err(error) => tracing::warn!(%error, "what was cached stays"),
                }
            }
            if !is_now && let Err(error) = ignore_absent(cache.remove_dir(&boot)) {
                tracing::warn!(%error, "what another boot has cached stays");
            }
        }
        Ok(swept)
    }
}

fn entries_in(dir: &Dir) -> Result<Vec<CacheEntry>> {
    let mut found = Vec::new();
    for name in dir.names()? {
        let stat = dir.stat_if_any(&name).at("examine", dir.path_of(&name))?;
        let entry = Entry::parse(&name).zip(stat);
        found.extend(entry.map(|(entry, stat)| CacheEntry { entry, stat }));
    }
    found.sort_by_key(|one| (one.stat.ctime, one.entry.inode));
    Ok(found)
}

fn is_of_use(dir: &Dir, name: &OsStr, here: &HashSet<Sha256>) -> Result<bool> {
    let Some(entry) = Entry::parse(name) else {
        return Ok(false);
    };
    let stat = dir.stat_if_any(name).at("examine", dir.path_of(name))?;
    Ok(here.contains(&entry.manifest) || stat.is_some_and(|stat| stat.nlink > 1))
}

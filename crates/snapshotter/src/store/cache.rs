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
    bases: HashMap<PathHash, Vec<Entry>>,
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
                Key::Base { path } => bases.entry(path).or_default().push(entry),
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
        if !fits {
            // Somebody has changed it by another name: nobody links to it again.
            self.forget(content, wanted);
            return Ok(None);
        }
        let dir = &self.dir;
        Ok(Some(Linkable { dir, name, stat }))
    }

    /// Takes away an inode that cannot be linked to any more.
    pub(crate) fn forget(&self, content: ContentId, wanted: &Wanted) {
        if let Some(entry) = lock(&self.linked).remove(&linked(content, wanted)) {
            self.give_up(&entry.name());
        }
    }

    fn give_up(&self, name: &OsStr) {
        if let Err(error) = take_away(&self.dir, name) {
            tracing::debug!(%error, "a cache entry stays");
        }
    }

    /// Makes a staged file, which has its bytes and attributes, an inode to link to; `None` where the filesystem has not kept the
    /// attributes as they were set.
    pub(crate) fn keep_linked(
        &self,
        slot: Slot<'_>,
        file: &File,
        (content, manifest): (ContentId, Sha256),
        wanted: &Wanted,
    ) -> Result<Option<Linkable<'_>>> {
        let stat = Stat::of_file(file).at("examine", self.dir.path())?;
        if !wanted.matches(file, &stat).at("examine", self.dir.path())? {
            return Ok(None);
        }
        let key = linked(content, wanted);
        let entry = self.keep(slot, Entry::of(key, manifest, &stat, 0))?;
        lock(&self.linked).insert(entry.key, entry);
        let name = entry.name();
        let dir = &self.dir;
        Ok(Some(Linkable { dir, name, stat }))
    }

    /// The files of this path that are here, of whichever snapshots.
    pub(crate) fn bases(&self, path: &RelPath) -> &[Entry] {
        self.bases.get(&path_hash(path)).map_or(&[], Vec::as_slice)
    }

    /// Opens an entry; `None`: it has gone, or is not what it was.
    pub(crate) fn open_base(&self, entry: &Entry) -> Result<Option<File>> {
        Ok(self.open_entry(entry)?.map(|(file, _)| file))
    }

    /// Takes away an entry that does not have its bytes.
    pub(crate) fn drop_base(&self, entry: &Entry) {
        tracing::debug!(path = %self.dir.path_of(&entry.name()).display(), "a cache entry is not what it was");
        self.give_up(&entry.name());
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
        self.drop_base(entry);
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
        let stat = Stat::of_file(file).at("examine", self.dir.path())?;
        let entry = Entry::of(Key::Base { path }, manifest, &stat, extents);
        self.keep(slot, entry).map(|_| ())
    }

    fn keep(&self, mut slot: Slot<'_>, entry: Entry) -> Result<Entry> {
        slot.rename_to(&self.dir, &entry.name())?;
        Ok(entry)
    }

    /// Removes what is beyond the bounds: of each file of a name all but the newest `keep`, and of all the oldest.
    pub(crate) fn trim(&self, keep: usize, max_bytes: Option<u64>) -> Result<()> {
        let found = self.store.cache_entries()?;
        let names = self.store.catalog.read(|txn| txn.snapshots())?;
        let names: HashMap<Sha256, &str> = names
            .iter()
            .map(|one| (one.manifest_digest, one.reference.name()))
            .collect();
        let mut kept = HashMap::<(PathHash, &str), usize>::new();
        let mut bytes = 0_u64;
        for one in found.iter().rev() {
            let is_one_too_many = match (one.entry.key, names.get(&one.entry.manifest)) {
                (Key::Linked { .. }, Some(_)) => false,
                (Key::Base { path }, Some(name)) => {
                    let count = kept.entry((path, name)).or_default();
                    *count += 1;
                    *count > keep
                }
                (_, None) => one.is_alone(),
            };
            if is_one_too_many || max_bytes.is_some_and(|most| bytes + one.frees() > most) {
                self.give_up(&one.entry.name());
            } else {
                bytes = bytes.saturating_add(one.frees());
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
    /// Whether it has no other name.
    pub(super) fn is_alone(&self) -> bool {
        self.stat.nlink <= 1
    }

    /// Bytes that the filesystem gets back.
    pub(crate) fn frees(&self) -> u64 {
        if self.is_alone() {
            self.stat.allocated
        } else {
            0
        }
    }
}

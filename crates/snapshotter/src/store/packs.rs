//! Packs in the store: pages of many files, in a file that is named by what is in it and never written again.
//!
//! A pack gets its name and its row as a blob does, under the names lock, and goes as one does. It is never believed: each
//! of its frames is hashed when it is read, so opening one says no more than that it is there and has its length.

use std::fs::File;
use std::io;

use super::{Slot, Store, is_unreadable, now};
use crate::catalog::{BlobState, NewPack, Pack, Shard, StoredName, Sync, Txn, content_name};
use crate::fs::Stat;
use crate::fs::dir::Kind;
use crate::words::digest::Checksum;
use crate::words::error::{At, Error, Result};
use crate::words::form::ObjectKind;

/// A whole pack in staging.
#[derive(Debug)]
pub(crate) struct StagedPack<'s> {
    pub(crate) slot: Slot<'s>,
    pub(crate) key: Checksum,
    /// Of its file, in bytes.
    pub(crate) length: u64,
}

/// How a pack is held that somebody wants to refer to.
#[derive(Debug)]
pub(crate) enum Held {
    /// Its inode is the one that was recorded.
    Vouched,
    /// It has to be read first.
    Doubtful(Pack),
    /// It is not here, or is known to be bad.
    Lacking,
}

/// A pack whose file is open.
#[derive(Debug)]
pub(crate) struct OpenPack {
    pub(crate) pack: Pack,
    pub(crate) file: File,
}

impl Store {
    /// Gives packs their names and rows, and references them from a pending snapshot. Says how many the store had already.
    pub(crate) fn commit_packs(&self, snapshot: i64, packs: &mut [StagedPack<'_>]) -> Result<u64> {
        let mut given = Vec::new();
        let result = self.catalog.write(Sync::Normal, |txn| {
            let shard = txn.shard_of_new()?;
            let name = |pack: &StagedPack<'_>| StoredName::content(name_of(&pack.key, shard));
            given = self.intend(packs.iter().map(name))?;
            let mut had = 0;
            for pack in packs.iter_mut() {
                had += u64::from(self.commit_pack(txn, shard, pack, &mut given)?);
                txn.reference_object(snapshot, &pack.key)?;
            }
            Ok(had)
        });
        if result.is_err() {
            self.sweep_soon(&given);
        }
        result
    }

    /// Whether the store had it.
    fn commit_pack(
        &self,
        txn: &Txn<'_>,
        shard: Shard,
        staged: &mut StagedPack<'_>,
        given: &mut Vec<StoredName>,
    ) -> Result<bool> {
        let found = txn.pack(&staged.key)?;
        if let Some(pack) = &found
            && self.pack_looks_good(pack)?
        {
            return Ok(true);
        }
        let content = &self.root.content;
        let shard = found.map_or(shard, |pack| pack.shard);
        let name = name_of(&staged.key, shard);
        let there = content.stat_if_any(&name);
        match there.at("examine", content.path_of(&name))? {
            // Left or not, whether the name is free is seen next.
            Some(there) if there.kind == Kind::Directory => _ = self.throw_away(content, &name),
            Some(_) => {}
            None => given.push(StoredName::content(name.clone())),
        }
        staged.slot.rename_to(content, &name)?;
        let stat = content.stat(&name).at("examine", content.path_of(&name))?;
        txn.put_pack(&NewPack {
            key: staged.key,
            shard,
            length: staged.length,
            mtime: Some(stat.mtime),
            inode: stat.ino,
            unsynced: Some(self.unsynced_mark()),
            now: now(),
        })?;
        Ok(false)
    }

    /// References packs that are here from a pending snapshot. Says which are not, or may not be what they were.
    #[cfg(feature = "registry")]
    pub(crate) fn reference_packs(
        &self,
        snapshot: i64,
        keys: &[Checksum],
    ) -> Result<Vec<Checksum>> {
        self.catalog.write(Sync::Normal, |txn| {
            let mut lacking = Vec::new();
            for key in keys {
                match txn.pack(key)? {
                    Some(pack) if self.pack_looks_good(&pack)? => {
                        txn.reference_object(snapshot, key)?;
                    }
                    _ => lacking.push(*key),
                }
            }
            Ok(lacking)
        })
    }

    /// References packs that are here from a pending snapshot, those too that have to be read first. Says how each is held.
    pub(crate) fn hold_packs(&self, snapshot: i64, keys: &[Checksum]) -> Result<Vec<Held>> {
        self.catalog.write(Sync::Normal, |txn| {
            let hold = |key: &Checksum| {
                let Some(pack) = txn.pack(key)?.filter(|pack| pack.state == BlobState::Good) else {
                    return Ok(Held::Lacking);
                };
                txn.reference_object(snapshot, key)?;
                if self.pack_looks_good(&pack)? {
                    return Ok(Held::Vouched);
                }
                Ok(Held::Doubtful(pack))
            };
            keys.iter().map(hold).collect()
        })
    }

    /// Whether a pack's file is what its row says, as far as the inode tells.
    fn pack_looks_good(&self, pack: &Pack) -> Result<bool> {
        if pack.state != BlobState::Good || self.is_suspect(pack.unsynced.as_deref()) {
            return Ok(false);
        }
        let name = pack.name();
        let stat = self.root.content.stat_if_any(&name);
        let stat = stat.at("examine", self.root.content.path_of(&name))?;
        Ok(stat.is_some_and(|stat| stat.kind == Kind::File && pack.is_recorded(&stat)))
    }

    /// Opens a pack, whose bytes are for whoever reads them to check.
    ///
    /// # Errors
    /// `Damaged` where it is not here, has another length, or was found bad.
    pub(crate) fn open_pack(&self, key: &Checksum) -> Result<OpenPack> {
        let found = self.catalog.read(|txn| txn.pack(key))?;
        let Some(pack) = found.filter(|pack| pack.state != BlobState::Missing) else {
            return Err(missing(key));
        };
        let name = pack.name();
        let path = || self.root.content.path_of(&name);
        let file = match self.root.content.open_file(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.mark_pack(&pack, BlobState::Missing, |stat| stat.is_none())?;
                return Err(missing(key));
            }
            Err(error) if is_unreadable(&error) => {
                self.mark_pack(&pack, BlobState::Damaged, |_| true)?;
                return Err(bad(key).with_source(Error::io("open", &path(), error)));
            }
            Err(error) => return Err(error).at("open", path()),
        };
        let stat = Stat::of_file(&file).at("examine", path())?;
        let opened = OpenPack { pack, file };
        if stat.kind != Kind::File || stat.size != opened.pack.length {
            return Err(self.found_bad_pack(&opened, "it has another length")?);
        }
        Ok(opened)
    }

    /// Reading a pack gave wrong bytes, or none of some: marks it, unless it has a better file by now, and returns what
    /// there is to say.
    pub(crate) fn found_bad_pack(
        &self,
        opened: &OpenPack,
        why: impl Into<Box<dyn std::error::Error + Send + std::marker::Sync>>,
    ) -> Result<Error> {
        let read = Stat::of_file(&opened.file).at("examine", self.root.content.path())?;
        let is_same = |now: Option<Stat>| now.is_some_and(|now| now.identity() == read.identity());
        self.mark_pack(&opened.pack, BlobState::Damaged, is_same)?;
        let path = self.root.content.path_of(&opened.pack.name());
        Ok(bad(&opened.pack.key)
            .with_path(&path)
            .with_source(Error::damaged(why.into().to_string())))
    }

    /// Where a pack's file is, for errors.
    pub(crate) fn pack_path(&self, pack: &Pack) -> std::path::PathBuf {
        self.root.content.path_of(&pack.name())
    }

    pub(super) fn mark_pack(
        &self,
        pack: &Pack,
        state: BlobState,
        still: impl FnOnce(Option<Stat>) -> bool,
    ) -> Result<()> {
        tracing::error!(pack = %pack.key, ?state, "a stored pack is bad");
        self.note(|txn| {
            let Some(now) = txn.pack(&pack.key)? else {
                return Ok(());
            };
            let name = now.name();
            let stat = self.root.content.stat_if_any(&name);
            if still(stat.at("examine", self.root.content.path_of(&name))?) {
                txn.mark_object(&pack.key, ObjectKind::Pack, state)?;
            }
            Ok(())
        })
    }
}

fn name_of(key: &Checksum, shard: Shard) -> std::ffi::OsString {
    content_name(key, ObjectKind::Pack, shard)
}

fn missing(key: &Checksum) -> Error {
    Error::damaged(format!("the pack {key} is missing"))
        .with_hint("`verify` lists all that is damaged; what was published is fetched again by `verify --repair`")
}

fn bad(key: &Checksum) -> Error {
    Error::damaged(format!("the pack {key} has changed or cannot be read"))
        .with_hint("`verify` lists all that is damaged; what was published is fetched again by `verify --repair`")
}

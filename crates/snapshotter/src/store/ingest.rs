//! Taking files in: slots in staging, and the commit that gives them their names.
//!
//! Small files stay in memory until the commit and are written under their names there: making a name in staging and
//! moving it would cost as much as the file. Until the transaction commits, such a name has no row, so nobody reads it,
//! and what a crash leaves half-written is litter: which names that are is written down before they are given
//! (`intents.rs`).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};

use super::check::has_size;
use super::layout::in_shard;
use super::{Store, now};
use crate::catalog::{
    Blob, BlobState, Confirmed, NewBlob, Shard, StoredName, Sync, Txn, content_name,
};
use crate::fs::dir::{Kind, ignore_absent, sync_file};
use crate::fs::hook::step;
use crate::fs::{Dir, Stat};
use crate::pass::Hashes;
use crate::words::entry::Mtime;
use crate::words::error::{At, Result};
use crate::words::extent::ExtentMap;
use crate::words::form::Form;

/// A file in this owner's staging. Dropping it removes the file, unless it was given its name in the store.
#[derive(Debug)]
pub(crate) struct Slot<'s> {
    dir: &'s Dir,
    name: OsString,
    named: bool,
}

impl Slot<'_> {
    /// Gives the file its name in the store. The caller holds the names lock. What has the name may be the one copy that is on
    /// the disk, so it is not replaced by one that is not.
    pub(super) fn rename_to(&mut self, dir: &Dir, name: &OsStr) -> Result<()> {
        let there = dir.stat_if_any(name).at("examine", dir.path_of(name))?;
        if there.is_some() {
            self.sync()?;
        }
        in_shard(dir, name, || self.dir.rename(&self.name, dir, name))
            .at("store", dir.path_of(name))?;
        self.named = true;
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let path = || self.dir.path_of(&self.name);
        match self.dir.open_file(&self.name) {
            Ok(file) => sync_file(&file).at("sync", path()),
            // A view's mode may shut its owner out.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.dir.sync_filesystem()
            }
            Err(error) => Err(error).at("open", path()),
        }
    }

    /// Whether it has it.
    pub(super) fn is_named(&self) -> bool {
        self.named
    }

    /// The same for an inode that may have that name already, which a rename would leave with both.
    #[cfg(any(feature = "dragonfly", feature = "test-hook"))]
    fn link_over(&mut self, dir: &Dir, name: &OsStr) -> Result<()> {
        self.rename_to(dir, name)?;
        ignore_absent(self.dir.unlink(&self.name)).at("remove", self.dir.path_of(&self.name))
    }

    /// Where it is, for whoever is to make the file.
    #[cfg(any(feature = "dragonfly", feature = "test-hook"))]
    pub(super) fn path(&self) -> std::path::PathBuf {
        self.dir.path_of(&self.name)
    }

    /// Opens what is there, for reading.
    #[cfg(any(feature = "dragonfly", feature = "test-hook"))]
    pub(super) fn open(&self) -> io::Result<File> {
        self.dir.open_file(&self.name)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if self.named {
            return;
        }
        // What stays is in the owner's staging, which goes with the owner.
        if let Err(error) = ignore_absent(self.dir.unlink(&self.name)) {
            tracing::debug!(%error, "a staging file could not be removed");
        }
    }
}

/// A file whose bytes are known, about to become a blob.
#[derive(Debug)]
pub(crate) struct Ingest<'s> {
    pub(crate) payload: Payload<'s>,
    pub(crate) hashes: Hashes,
    pub(crate) map: ExtentMap,
    /// The inode's modification time, where it can be trusted to betray a later change.
    pub(crate) mtime: Option<Mtime>,
    pub(crate) probe: Option<[u8; 32]>,
}

/// Where the bytes of an [`Ingest`] are.
#[derive(Debug)]
pub(crate) enum Payload<'s> {
    /// In a file in staging.
    Slot(Slot<'s>),
    /// In a file in staging that is the SPF1 stream and has names elsewhere.
    #[cfg(any(feature = "dragonfly", feature = "test-hook"))]
    Packed(Slot<'s>),
    /// In memory: all of a small file without holes.
    Bytes(Vec<u8>),
    /// In the store: they were seen to equal a blob's, and not copied.
    Known,
}

impl Payload<'_> {
    /// Whether it is a file, or about to be one, that gets a name.
    fn is_named(&self) -> bool {
        !matches!(self, Self::Known)
    }

    /// The form of the blob it becomes.
    fn form(&self) -> Form {
        match self {
            #[cfg(any(feature = "dragonfly", feature = "test-hook"))]
            Self::Packed(_) => Form::Packed,
            _ => Form::Plain,
        }
    }

    fn slot(&self) -> Option<&Slot<'_>> {
        match self {
            Self::Slot(slot) => Some(slot),
            #[cfg(any(feature = "dragonfly", feature = "test-hook"))]
            Self::Packed(slot) => Some(slot),
            Self::Bytes(_) | Self::Known => None,
        }
    }
}

/// What became of an [`Ingest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ingested {
    /// The slot became the blob.
    Stored,
    /// The store had the bytes already.
    Reused,
    /// There was no slot, and the stored blob has gone or gone bad meanwhile.
    Gone,
}

impl Store {
    /// An empty file in staging.
    pub(crate) fn create_slot(&self) -> Result<(Slot<'_>, File)> {
        let (dir, name) = self.owner()?.slot(&self.root)?;
        let file = dir
            .create_file(&name, 0o600)
            .at("create", dir.path_of(&name))?;
        let named = false;
        Ok((Slot { dir, name, named }, file))
    }

    /// An empty file that goes when it is closed.
    pub(crate) fn scratch(&self) -> Result<File> {
        self.create_slot().map(|(_slot, file)| file)
    }

    /// A name in staging that nothing has yet, and nothing had before.
    #[cfg(any(feature = "dragonfly", feature = "test-hook"))]
    pub(super) fn name_slot(&self) -> Result<Slot<'_>> {
        let (dir, name) = self.owner()?.slot(&self.root)?;
        let named = false;
        Ok(Slot { dir, name, named })
    }

    /// A second name, in staging, of a file of the caller's.
    pub(crate) fn link_slot(&self, file: &File) -> Result<io::Result<Slot<'_>>> {
        let (dir, name) = self.owner()?.slot(&self.root)?;
        let named = false;
        Ok(dir
            .link_file(file, &name)
            .map(|()| Slot { dir, name, named }))
    }

    /// Gives files their names and rows, and references them from a pending snapshot; one outcome an item.
    pub(crate) fn commit(&self, snapshot: i64, items: &mut [Ingest<'_>]) -> Result<Vec<Ingested>> {
        let mut names = Names::default();
        let result = self.catalog.write(Sync::Normal, |txn| {
            names.shard = txn.shard_of_new()?;
            let to_be_given = items.iter().filter(|item| item.payload.is_named());
            names.given = self
                .intend(to_be_given.map(|item| StoredName::content(item.name_in(names.shard))))?;
            items
                .iter_mut()
                .map(|item| self.commit_one(txn, snapshot, item, &mut names))
                .collect()
        });
        let litter = if result.is_ok() {
            names.outlived
        } else {
            names.given
        };
        self.sweep_soon(&litter);
        result
    }

    fn commit_one(
        &self,
        txn: &Txn<'_>,
        snapshot: i64,
        item: &mut Ingest<'_>,
        names: &mut Names,
    ) -> Result<Ingested> {
        let found = txn.blob(&item.hashes.checksum)?;
        let ingested = match found {
            Some(blob) if agrees(&blob, item) && self.looks_good(&blob)? => Ingested::Reused,
            Some(blob) if agrees(&blob, item) && self.is_same_inode(&blob, item)? => {
                let file = Confirmed {
                    inode: self.inode_of(&blob.name())?,
                    mtime: item.mtime,
                    unsynced: Some(self.unsynced_mark()),
                };
                txn.confirm_object(&blob.checksum, blob.form, &file)?;
                Ingested::Reused
            }
            found => {
                let ingested = self.commit_slot(txn, found.as_ref(), item, names)?;
                let other = found.filter(|blob| blob.form != item.payload.form());
                if let (Some(blob), true) = (other, ingested != Ingested::Gone) {
                    // A bad file, which a good one of the other form replaces.
                    let name = StoredName::content(blob.name());
                    txn.orphan(&name)?;
                    names.outlived.push(name);
                }
                ingested
            }
        };
        if ingested != Ingested::Gone {
            txn.reference_object(snapshot, &item.hashes.checksum)?;
        }
        Ok(ingested)
    }

    fn commit_slot(
        &self,
        txn: &Txn<'_>,
        found: Option<&Blob>,
        item: &mut Ingest<'_>,
        names: &mut Names,
    ) -> Result<Ingested> {
        if !item.payload.is_named() {
            return Ok(Ingested::Gone);
        }
        let form = item.payload.form();
        let shard = found.map_or(names.shard, |blob| blob.shard);
        let name = item.name_in(shard);
        let there = match found {
            Some(blob) => self.stat_content(blob)?,
            None => None,
        };
        // Bytes that were only not vouched for are not new.
        let had = there.is_some() && found.is_some_and(|blob| blob.state == BlobState::Good);
        if there.is_some_and(|there| there.kind == Kind::Directory)
            && found.is_some_and(|blob| blob.form == form)
        {
            // Left or not, whether the name is free is seen next.
            let _thrown = self.throw_away(&self.root.content, &name);
        }
        // In another shard than those that are intended.
        if found.is_some() && there.is_none() && !self.has_name(&self.root.content, &name)? {
            names.given.push(StoredName::content(name.clone()));
        }
        self.name_payload(&name, item)?;
        let new = NewBlob {
            checksum: item.hashes.checksum,
            digest: item.hashes.digest,
            form,
            shard,
            map: &item.map,
            mtime: item.mtime,
            inode: Some(self.inode_of(&name)?),
            unsynced: Some(self.unsynced_mark()),
            probe: item.probe,
            now: now(),
        };
        match found {
            Some(_) => txn.replace_blob(&new)?,
            None => txn.insert_blob(&new)?,
        }
        Ok(if had {
            Ingested::Reused
        } else {
            Ingested::Stored
        })
    }

    fn inode_of(&self, name: &OsStr) -> Result<u64> {
        let content = &self.root.content;
        let stat = content.stat(name).at("examine", content.path_of(name))?;
        Ok(stat.ino)
    }

    fn name_payload(&self, name: &OsStr, item: &mut Ingest<'_>) -> Result<()> {
        match &mut item.payload {
            Payload::Slot(slot) => slot.rename_to(&self.root.content, name),
            #[cfg(any(feature = "dragonfly", feature = "test-hook"))]
            Payload::Packed(slot) => slot.link_over(&self.root.content, name),
            Payload::Bytes(bytes) => {
                item.mtime = Some(self.write_content(name, bytes)?);
                Ok(())
            }
            Payload::Known => Ok(()),
        }
    }

    /// Writes a small file under its name, or, where something has that name, beside it and then over it.
    fn write_content(&self, name: &OsStr, bytes: &[u8]) -> Result<Mtime> {
        let content = &self.root.content;
        let path = || content.path_of(name);
        match in_shard(content, name, || content.create_file(name, 0o600)) {
            Ok(file) => write_all(&file, bytes).at("write", path()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let (mut slot, file) = self.create_slot()?;
                let mtime = write_all(&file, bytes).at("write", path())?;
                slot.rename_to(content, name)?;
                Ok(mtime)
            }
            Err(error) => Err(error).at("create", path()),
        }
    }

    /// Whether the slot is a further name of the blob's own inode: a rename over it would do nothing.
    fn is_same_inode(&self, blob: &Blob, item: &Ingest<'_>) -> Result<bool> {
        let Some(slot) = item.payload.slot() else {
            return Ok(false);
        };
        let Some(stored) = self.stat_content(blob)? else {
            return Ok(false);
        };
        let slot = slot
            .dir
            .stat(&slot.name)
            .at("examine", slot.dir.path_of(&slot.name))?;
        Ok(slot.identity() == stored.identity())
    }

    pub(crate) fn stat_content(&self, blob: &Blob) -> Result<Option<Stat>> {
        let name = blob.name();
        self.root
            .content
            .stat_if_any(&name)
            .at("examine", self.root.content.path_of(&name))
    }

    /// Whether a blob's file is what its row says, as far as the inode tells.
    pub(crate) fn looks_good(&self, blob: &Blob) -> Result<bool> {
        if blob.state != BlobState::Good || self.is_suspect(blob.unsynced.as_deref()) {
            return Ok(false);
        }
        let stat = self.stat_content(blob)?;
        Ok(stat.is_some_and(|stat| {
            stat.kind == Kind::File && has_size(blob, &stat, blob.form) && blob.is_recorded(&stat)
        }))
    }
}

/// The names of one commit.
#[derive(Default)]
struct Names {
    /// Where new ones go.
    shard: Shard,
    /// Those that files get, which have no rows if the transaction fails.
    given: Vec<StoredName>,
    /// Those that have none any more if it does not.
    outlived: Vec<StoredName>,
}

impl Ingest<'_> {
    fn name_in(&self, shard: Shard) -> OsString {
        content_name(&self.hashes.checksum, self.payload.form(), shard)
    }
}

/// Whether a row says of a file what its bytes say.
fn agrees(blob: &Blob, item: &Ingest<'_>) -> bool {
    blob.digest == item.hashes.digest && blob.size == item.map.size()
}

fn write_all(mut file: &File, bytes: &[u8]) -> io::Result<Mtime> {
    step("write")?;
    file.write_all(bytes)?;
    Ok(Stat::of_file(file)?.mtime)
}

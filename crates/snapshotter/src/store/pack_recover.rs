//! Getting packs back that no row leads to, or a wrong one: their files are read for what they are. Bad ones are moved aside.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;

use super::pack_pass::read_frames;
use super::pack_reader::read_layout;
use super::recover::is_unreadable;
use super::{NamesOfBlobs, Store, now, settled};
use crate::activity::Activity;
use crate::catalog::{BlobState, NewPack, Pack, Shard, StoredName, Sync, Tree, parse_content_name};
use crate::format::pack::PackError;
use crate::fs::dir::Kind;
use crate::fs::{Dir, Stat};
use crate::words::digest::Checksum;
use crate::words::entry::Mtime;
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::form::ObjectKind;

/// A file that was read and is the pack that its name says.
#[derive(Clone, Debug)]
pub(crate) struct ReadPack {
    pub(crate) length: u64,
    mtime: Option<Mtime>,
    inode: u64,
}

impl ReadPack {
    /// The row it is to have.
    pub(crate) fn row<'a>(
        &self,
        key: Checksum,
        shard: Shard,
        unsynced: Option<&'a str>,
    ) -> NewPack<'a> {
        NewPack {
            key,
            shard,
            length: self.length,
            mtime: self.mtime,
            inode: self.inode,
            unsynced,
            now: now(),
        }
    }
}

/// Reads a file and sees whether it is the pack with this id, every frame of it. `None`: it is not, or cannot be read.
pub(crate) fn read_pack_file(
    dir: &Dir,
    name: &OsStr,
    key: &Checksum,
    activity: &Activity,
) -> Result<Option<ReadPack>> {
    let path = || dir.path_of(name);
    let file = match activity.open(dir, name)? {
        Ok(file) => file,
        Err(error) if is_unreadable(&error) => return Ok(None),
        Err(error) => return Err(error).at("open", path()),
    };
    let before = Stat::of_file(&file).at("examine", path())?;
    if before.kind != Kind::File {
        return Ok(None);
    }
    let mtime = settled(&before);
    let read = match read_layout(&file, before.size) {
        Ok(layout) if layout.id().as_bytes() != key.as_bytes() => return Ok(None),
        Ok(layout) => read_frames(&file, &layout, &|_| true, activity, &|_, _| Ok(()))?,
        Err(error) => Err(error),
    };
    match read {
        Ok(()) => {}
        Err(PackError::Io(error)) if error.kind() == io::ErrorKind::OutOfMemory => {
            let text = "there is no memory to decompress with";
            return Err(Error::new(ErrorKind::Internal, text).with_source(error));
        }
        Err(PackError::Io(error)) if !is_unreadable(&error) => {
            return Err(error).at("read", path());
        }
        Err(_) => return Ok(None),
    }
    let after = Stat::of_file(&file).at("examine", path())?;
    Ok(Some(ReadPack {
        length: before.size,
        mtime: mtime.filter(|_| after.same_bytes_since(&before)),
        inode: after.ino,
    }))
}

impl Store {
    /// Mends a pack with what is here: its own file where only the row was wrong, or one in another shard.
    pub(crate) fn mend_pack(
        &self,
        pack: &Pack,
        names: &NamesOfBlobs,
        activity: &Activity,
    ) -> Result<bool> {
        let Some((name, read, shard)) = self.find_pack(&pack.key, names, activity)? else {
            return Ok(false);
        };
        self.catalog.write(Sync::Full, |txn| {
            let Some(now) = txn.pack(&pack.key)? else {
                return Ok(false);
            };
            if !self.has_content(&name)? {
                return Ok(false);
            }
            txn.put_pack(&read.row(pack.key, shard, Some(self.unsynced_mark())))?;
            if now.shard != shard {
                txn.orphan(&StoredName::content(now.name()))?;
            }
            Ok(true)
        })
    }

    /// Gives a pack that is under its name, in whatever shard, a row again, and a snapshot the reference. `false`: it is not
    /// there, or has other bytes.
    pub(crate) fn adopt_pack(
        &self,
        snapshot: i64,
        key: &Checksum,
        names: &NamesOfBlobs,
        activity: &Activity,
    ) -> Result<bool> {
        let known = self.catalog.read(|txn| txn.pack(key))?;
        let found = match known {
            Some(_) => None,
            None => self.find_pack(key, names, activity)?,
        };
        self.catalog.write(Sync::Full, |txn| {
            match (txn.pack(key)?, &found) {
                (Some(_), _) => {}
                (None, Some((name, read, shard))) if self.has_content(name)? => {
                    txn.put_pack(&read.row(*key, *shard, Some(self.unsynced_mark())))?;
                }
                // Swept meanwhile, or never there: a row needs its file.
                _ => return Ok(false),
            }
            txn.reference_object(snapshot, key)?;
            Ok(true)
        })
    }

    /// A file that has a pack's name, in whatever shard, and its bytes.
    fn find_pack(
        &self,
        key: &Checksum,
        names: &NamesOfBlobs,
        activity: &Activity,
    ) -> Result<Option<(OsString, ReadPack, Shard)>> {
        let names: BTreeSet<&OsStr> = names.of(key, Tree::Content).collect();
        for name in names {
            activity.check()?;
            let Some((_, ObjectKind::Pack, shard)) = parse_content_name(name) else {
                continue;
            };
            if let Some(read) = read_pack_file(&self.root.content, name, key, activity)? {
                return Ok(Some((name.to_owned(), read, shard)));
            }
        }
        Ok(None)
    }

    /// Moves the file of a pack that is marked damaged aside; the pack is missing then. `None`: it is right by now, gone, or no
    /// file.
    pub(crate) fn quarantine_pack(&self, pack: &Pack) -> Result<Option<PathBuf>> {
        self.catalog.write(Sync::Full, |txn| {
            let now = txn.pack(&pack.key)?;
            let Some(now) = now.filter(|now| now.state == BlobState::Damaged) else {
                return Ok(None);
            };
            let name = now.name();
            if !self.has_content(&name)? {
                return Ok(None);
            }
            let aside = self.root.set_aside(&self.root.content, &name)?;
            txn.mark_object(&now.key, ObjectKind::Pack, BlobState::Missing)?;
            Ok(Some(aside))
        })
    }
}

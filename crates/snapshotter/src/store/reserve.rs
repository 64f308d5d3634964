//! What lets the store get out of a full disk: space and inodes that are set aside while there are some.
//!
//! Deleting needs room in the database first, and an owner needs a lease file. So the reserve is a directory of eight
//! files of half a MiB: each that is given up gives back its bytes and its inode, whichever of them there is no more of,
//! and to unlink a file takes neither. A removal may use all of it, because it gives space back. What only records
//! something (a restore's lease, an owner) gets pieces of the first half, so that resuming works on a full disk and
//! removing still does afterwards. It is filled up again whenever there is room: after a removal, and when a root is
//! opened. The catalog's log keeps disk space of its own, so that most small transactions overwrite what is there. On a
//! small disk each of the two is at most an eighth of what is there for it: they must not be why the disk is full.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::time::Duration;

use super::Store;
use super::layout::Root;
use crate::catalog::KEPT_LOG;
use crate::fs::dir::{Kind, ignore_absent};
use crate::fs::{Dir, Stat, place, space};
use crate::words::error::{At, ErrorKind, Result};

pub(super) const NAME: &str = "reserve";
const PIECES: usize = 8;
/// More than the pages that a small transaction writes, in bytes.
const PIECE: u64 = 512 << 10;

/// Each of the reserve and the log's disk space is at most this part of what is left.
const PART: u64 = 8;

/// What the log's index takes at first, in bytes, and what it is extended by.
const INDEX: u64 = 32 << 10;

/// What a log may have to be extended by before an index is, several times over, in bytes.
const LONG: u64 = 128 << 10;

/// What a transaction that changes nothing may take besides the index: pages of the log, and what describes a file's
/// blocks, in bytes.
const NOTHING: u64 = 16 << 10;

/// A page of the index, which is mapped, in bytes.
const PAGE: u64 = 4096;

/// What is not worth asking for, in bytes.
const LEAST: u64 = 64 << 10;

/// How often something is tried again that should have room by now.
const LATER: u32 = 20;

/// Given up for what only records something, one call.
const SLICE: usize = 2;

impl Root {
    /// Fills the reserve up.
    fn fill_reserve(&self) -> Result<()> {
        let dir = self.reserve()?;
        let mut missing = Vec::new();
        let mut held = 0;
        for name in pieces() {
            let there = dir.stat_if_any(&name).at("examine", dir.path_of(&name))?;
            held += there.map_or(0, |there| there.allocated);
            let size = there.map(|there| there.size);
            missing.extend(size.is_none_or(|size| size < PIECE).then_some((name, size)));
        }
        let piece = (self.part(held)? / PIECES as u64).min(PIECE) / PAGE * PAGE;
        for (name, size) in missing {
            if size.is_none_or(|size| size < piece) {
                make_piece(&dir, &name, piece).at("set aside space in", dir.path_of(&name))?;
            }
        }
        Ok(())
    }

    /// How much may be set aside, of what is left and what is set aside already.
    fn part(&self, held: u64) -> Result<u64> {
        let space = space::of(&self.dir).at("examine", self.dir.path())?;
        Ok((space.available + held) / PART)
    }

    fn reserve(&self) -> Result<Dir> {
        let name = OsStr::new(NAME);
        // One file, as it was before the reserve had inodes too.
        let there = self
            .dir
            .stat_if_any(name)
            .at("examine", self.dir.path_of(name))?;
        if there.is_some_and(|there| there.kind == Kind::File) {
            ignore_absent(self.dir.unlink(name)).at("remove", self.dir.path_of(name))?;
        }
        self.dir.ensure_dir(name, 0o700)
    }

    /// Makes room with all of it; whether there was any.
    pub(super) fn give_up_reserve(&self) -> Result<bool> {
        let any = self.give_up(PIECES, 0)?;
        if any {
            self.dir.sync_filesystem()?;
        }
        Ok(any)
    }

    fn give_up(&self, most: usize, keep: usize) -> Result<bool> {
        give_up(&self.dir, most, keep)
    }

    /// What makes sure, before each transaction, that the catalog's index has room, where it may need some; see [`Room`].
    pub(super) fn room(&self) -> Result<Option<Room>> {
        let copies_on_write = space::copies_on_write(&self.metadata);
        let block = space::block_size(&self.metadata).at("examine", self.metadata.path())?;
        if !copies_on_write && block >= PAGE {
            return Ok(None);
        }
        if copies_on_write && let Err(error) = place::overwrite_in_place(&self.metadata) {
            tracing::debug!(%error, "the catalog's files are written elsewhere when they are overwritten");
        }
        let probe = self.with_slice(|| {
            self.metadata
                .create_unnamed(0o600)
                .at("create a file in", self.metadata.path())
        })?;
        Ok(Some(Room {
            probe,
            root: self.dir.reopen()?,
            metadata: self.metadata.reopen()?,
            copies_on_write,
        }))
    }

    /// Does what records something; on a full disk, once more with pieces of the reserve's first half given up.
    pub(super) fn with_slice<T>(&self, record: impl Fn() -> Result<T>) -> Result<T> {
        let result = record();
        if is_full(&result) && self.give_up(SLICE, PIECES / 2)? {
            return self.again(&record);
        }
        result
    }

    /// Does what failed for want of space when some has been given up.
    fn again<T>(&self, work: &dyn Fn() -> Result<T>) -> Result<T> {
        let result = work();
        if !is_full(&result) {
            return result;
        }
        // Some filesystems give back later: btrfs with its next commit, XFS when it has come to it, which asking it for its
        // space brings on.
        self.dir.sync_filesystem()?;
        for _ in 0..LATER {
            let result = work();
            if !is_full(&result) {
                return result;
            }
            space::of(&self.dir).at("examine", self.dir.path())?;
            std::thread::sleep(Duration::from_millis(10));
        }
        work()
    }
}

/// Room for the log's index. The index is mapped memory: where writing to a page of it needs disk space and there is none,
/// the kernel kills the process. So whether there is some is tried with a file before, and what is missing comes from the
/// reserve. On btrfs a page that has reached the disk needs space, at least for what describes it, when it is written again.
/// Where blocks are smaller than a page, SQLite extends the index by one byte a page, and the rest are holes; the first
/// transaction fills them ([`Opening::fill_index`](crate::catalog::Opening)), and then only a long log's index may grow.
/// No descriptor of the index is opened for this: closing it would drop SQLite's locks.
#[derive(Debug)]
pub(crate) struct Room {
    /// Empty, and without a name.
    probe: File,
    root: Dir,
    metadata: Dir,
    copies_on_write: bool,
}

impl Room {
    /// Whether the index has holes until something has been written to it.
    pub(super) fn has_holes(&self) -> bool {
        !self.copies_on_write
    }

    /// Makes room for an index that whoever is the first to open the catalog begins anew.
    ///
    /// # Errors
    /// As [`Room::make`].
    pub(super) fn make_first(&self) -> Result<()> {
        if self.copies_on_write {
            return self.make();
        }
        let (index, log) = (
            self.allocated("catalog.db-shm")?,
            self.allocated("catalog.db-wal")?,
        );
        let of_log = if log < u64::from(KEPT_LOG) {
            NOTHING
        } else {
            0
        };
        self.try_for(INDEX.saturating_sub(index) + of_log)
    }

    /// # Errors
    /// `NoSpace` where there is no room, and nothing in the reserve that would make some.
    pub(crate) fn make(&self) -> Result<()> {
        let is_long = || -> Result<bool> {
            Ok(self.size("catalog.db-shm")? > INDEX
                || self.size("catalog.db-wal")? > KEPT_LOG.into())
        };
        if self.copies_on_write || is_long()? {
            return self.try_for(LONG);
        }
        Ok(())
    }

    /// Half of the reserve stays for what gives space back: `Store::with_reserve`.
    fn try_for(&self, bytes: u64) -> Result<()> {
        let path = self.root.path();
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        loop {
            let tried = place::try_to_write(&self.probe, length).at("write in", path);
            if !is_full(&tried) || !give_up(&self.root, 1, PIECES / 2)? {
                return tried;
            }
            self.root.sync_filesystem()?;
        }
    }

    fn size(&self, name: &str) -> Result<u64> {
        Ok(self.stat(name)?.map_or(0, |there| there.size))
    }

    fn allocated(&self, name: &str) -> Result<u64> {
        Ok(self.stat(name)?.map_or(0, |there| there.allocated))
    }

    fn stat(&self, name: &str) -> Result<Option<Stat>> {
        let name = OsStr::new(name);
        let there = self.metadata.stat_if_any(name);
        there.at("examine", self.metadata.path_of(name))
    }
}

/// Gives pieces up, at most so many, until `keep` are left; says whether any were there.
fn give_up(root: &Dir, most: usize, keep: usize) -> Result<bool> {
    let name = OsStr::new(NAME);
    let there = root.stat_if_any(name).at("examine", root.path_of(name))?;
    match there.map(|there| there.kind) {
        None => return Ok(false),
        Some(Kind::Directory) => {}
        Some(_) => {
            ignore_absent(root.unlink(name)).at("give up", root.path_of(name))?;
            return Ok(true);
        }
    }
    let dir = root.open_dir(name)?;
    let mut there = dir.names()?;
    there.truncate(there.len().saturating_sub(keep).min(most));
    for name in &there {
        ignore_absent(dir.unlink(name)).at("give up", dir.path_of(name))?;
    }
    Ok(!there.is_empty())
}

fn pieces() -> impl Iterator<Item = OsString> {
    (0..PIECES).map(|number| number.to_string().into())
}

fn make_piece(dir: &Dir, name: &OsStr, size: u64) -> io::Result<()> {
    let file = match dir.create_file(name, 0o600) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => dir.open_writable(name),
        made => made,
    }?;
    if size == 0 {
        return Ok(());
    }
    let mut size = size;
    loop {
        match place::allocate(&file, size) {
            // An inode, and what there is.
            Err(error) if ErrorKind::of_io(&error) == ErrorKind::NoSpace && size > LEAST => {
                size /= 2
            }
            result => return result,
        }
    }
}

fn is_full<T>(result: &Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == ErrorKind::NoSpace)
}

impl Store {
    /// Sets aside what is not there yet of the log's disk space and of the reserve. Without room for it the store works all
    /// the same.
    pub(super) fn set_aside_space(&self) {
        let mut result = self.try_to_set_aside();
        if is_full(&result) && space::copies_on_write(&self.root.dir) {
            // What was removed is given back with the next commit.
            result = self
                .root
                .dir
                .sync_filesystem()
                .and_then(|()| self.try_to_set_aside());
        }
        if let Err(error) = result {
            tracing::debug!(%error, "there is no room for all that is to be set aside");
        }
    }

    fn try_to_set_aside(&self) -> Result<()> {
        let (metadata, name) = (&self.root.metadata, OsStr::new("catalog.db-wal"));
        let log = metadata
            .open_writable(name)
            .and_then(|log| Ok((Stat::of_file(&log)?, log)));
        let (there, log) = log.at("open", metadata.path_of(name))?;
        let most = self.root.part(there.allocated)?.min(KEPT_LOG.into());
        place::allocate_beyond(&log, most).at("set aside space for", metadata.path_of(name))?;
        self.root.fill_reserve()
    }

    /// Does what gives space back; on a full disk, once more with the reserve given up.
    pub(crate) fn with_reserve<T>(&self, free: impl Fn() -> Result<T>) -> Result<T> {
        let result = self.with_log(&free);
        if is_full(&result) && self.root.give_up(PIECES, 0)? {
            let result = self.root.again(&free);
            self.set_aside_space();
            return result;
        }
        result
    }

    /// Does what writes a few rows; on a full disk, once more with pieces of the reserve's first half given up.
    pub(crate) fn with_slice<T>(&self, record: impl Fn() -> Result<T>) -> Result<T> {
        let result = self.with_log(&record);
        if is_full(&result) && self.give_up_slice()? {
            let result = self.root.again(&record);
            // What was not needed is set aside again.
            self.set_aside_space();
            return result;
        }
        result
    }

    /// Makes room for what takes hardly any, if pieces of the reserve's first half are left.
    pub(crate) fn give_up_slice(&self) -> Result<bool> {
        self.root.give_up(SLICE, PIECES / 2)
    }

    /// A log that was copied into the database is begun anew, where it has disk space.
    fn with_log<T>(&self, work: &dyn Fn() -> Result<T>) -> Result<T> {
        let result = work();
        if is_full(&result) && self.catalog.checkpoint() {
            return work();
        }
        result
    }
}

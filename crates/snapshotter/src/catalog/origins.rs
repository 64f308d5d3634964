//! Which snapshot a directory was last restored from or captured as. A directory is known by its inode and the time it was
//! made: the number of an inode is given out again, and not at the same nanosecond.

use rusqlite::params;

use super::{Result, Snapshot, Txn};
use crate::fs::{Dir, Stat};
use crate::words::error::At;

/// A directory, wherever it is called what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DirectoryId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// Nanoseconds since 1970.
    pub(crate) born: i64,
}

impl DirectoryId {
    /// An open directory, where its filesystem tells when it was made.
    pub(crate) fn of(dir: &Dir) -> Result<Option<Self>> {
        let stat = Stat::of_file(dir).at("examine", dir.path())?;
        let born = Stat::born(dir).at("examine", dir.path())?;
        Ok(born.map(|born| Self {
            device: stat.dev,
            inode: stat.ino,
            born,
        }))
    }
}

impl Txn<'_> {
    /// The snapshot that a directory has come from, if it is here.
    pub(crate) fn origin(&self, of: &DirectoryId) -> Result<Option<Snapshot>> {
        let found = self.first(
            "SELECT snapshot FROM origins WHERE device = ?1 AND inode = ?2 AND born = ?3",
            params![of.device.cast_signed(), of.inode.cast_signed(), of.born],
            |row| row.get(0),
        )?;
        match found {
            Some(id) => self.snapshot(id),
            None => Ok(None),
        }
    }

    /// Notes what a directory has come from by now.
    pub(crate) fn set_origin(&self, of: &DirectoryId, snapshot: i64) -> Result<()> {
        self.execute(
            "INSERT INTO origins (device, inode, born, snapshot) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (device, inode) DO UPDATE SET born = excluded.born, snapshot = excluded.snapshot",
            params![of.device.cast_signed(), of.inode.cast_signed(), of.born, snapshot],
        )?;
        Ok(())
    }
}

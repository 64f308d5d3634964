//! Whether a pack in the store is what it was: all of it is read, and what is found is written down.

use std::io;

use super::pack_pass::PageRecords;
use super::{OpenPack, Store, is_unreadable, settled};
use crate::activity::Activity;
use crate::catalog::{BlobState, Confirmed, Pack};
use crate::fs::Stat;
use crate::fs::dir::Kind;
use crate::words::error::{At, ErrorKind, Result};
use crate::words::form::ObjectKind;

impl Store {
    /// Reads all of a pack, whatever its row says of it, and marks it as what it is. What its pages are goes to `records`.
    pub(crate) fn check_pack(
        &self,
        pack: &Pack,
        records: &PageRecords,
        activity: &Activity,
    ) -> Result<BlobState> {
        let (opened, before) = match self.open_as_it_is(pack)? {
            Ok(opened) => opened,
            Err(state) => {
                let still = |stat: Option<Stat>| match state {
                    BlobState::Missing => stat.is_none_or(|stat| stat.kind != Kind::File),
                    _ => stat.is_some(),
                };
                self.mark_pack(pack, state, still)?;
                return Ok(state);
            }
        };
        if before.size != pack.length {
            self.found_bad_pack(&opened, "it has another length")?;
            return Ok(BlobState::Damaged);
        }
        let read = self.read_table(opened).and_then(|reader| {
            records.record(self, &reader, &|_| true, activity)?;
            Ok(reader)
        });
        match read {
            Ok(reader) => {
                self.confirm_pack(reader.opened(), &before)?;
                Ok(BlobState::Good)
            }
            Err(error) if error.kind() == ErrorKind::Damaged => Ok(BlobState::Damaged),
            Err(error) => Err(error),
        }
    }

    /// Opens its file, or says what it is without one that can be read.
    fn open_as_it_is(
        &self,
        pack: &Pack,
    ) -> Result<std::result::Result<(OpenPack, Stat), BlobState>> {
        let name = pack.name();
        let path = || self.root.content.path_of(&name);
        let file = match self.root.content.open_file(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Err(BlobState::Missing));
            }
            Err(error) if is_unreadable(&error) => return Ok(Err(BlobState::Damaged)),
            Err(error) => return Err(error).at("open", path()),
        };
        let stat = Stat::of_file(&file).at("examine", path())?;
        let pack = pack.clone();
        Ok(match stat.kind {
            Kind::File => Ok((OpenPack { pack, file }, stat)),
            _ => Err(BlobState::Missing),
        })
    }

    /// The look before and the look after must agree for the time to stand for the bytes that were read.
    fn confirm_pack(&self, opened: &OpenPack, before: &Stat) -> Result<()> {
        let after = Stat::of_file(&opened.file).at("examine", self.root.content.path())?;
        let mtime = settled(before).filter(|_| after.same_bytes_since(before));
        let failed = self.failed_mark();
        let key = &opened.pack.key;
        let unsynced = opened.pack.unsynced.as_deref();
        let unsynced = unsynced.filter(|mark| *mark == self.unsynced_mark() || *mark == failed);
        let file = Confirmed {
            inode: after.ino,
            mtime,
            unsynced,
        };
        self.note(|txn| {
            let Some(now) = txn.pack(key)? else {
                return Ok(());
            };
            let name = now.name();
            let stat = self.root.content.stat_if_any(&name);
            let stat = stat.at("examine", self.root.content.path_of(&name))?;
            if stat.is_some_and(|stat| stat.identity() == after.identity()) {
                txn.confirm_object(key, ObjectKind::Pack, &file)?;
            }
            Ok(())
        })
    }
}

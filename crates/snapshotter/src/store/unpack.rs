//! Making a packed blob plain, when its inode is to be linked to.
//!
//! The file is decoded into a slot in a pass that verifies it, then one transaction renames the slot to the plain name and
//! changes the row's form; after that the packed name, which no row stands for any more, is swept. Why that is safe:
//!
//! * Before the commit the row says packed, so the plain name is litter and nobody reads it. After it the row says plain,
//!   and the packed name is. A crash leaves one row with the file of its form, and perhaps litter for the next sweep.
//! * A reader that read the row before the commit finds the packed file, whose bytes are as right as ever, or nothing;
//!   then it reads the row once more and finds the plain one ([`Store::open_current`]).
//! * Several may do it at once: the row is looked at again under the names lock, and all but the first drop their slots.
//!   What a reader found out about the packed file does not touch a row that says plain by then.
//! * Nothing that was promised is taken back: where the row has no mark, or a snapshot needs the blob whose bytes need not
//!   be anywhere else, the plain file and its name are on the disk before the row that says so. Otherwise the row is
//!   marked like that of any new blob.

use std::collections::HashSet;
use std::fs::File;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::check::OpenBlob;
use super::{Slot, Store, Told, Wanted};
use crate::activity::Activity;
use crate::catalog::{Blob, Confirmed, StoredName, Sync, Txn};
use crate::fs::Stat;
use crate::fs::dir::sync_file;
use crate::limit::wait_a_moment;
use crate::pass::Output;
use crate::words::digest::Checksum;
use crate::words::entry::Mtime;
use crate::words::error::{At, Result};
use crate::words::form::Form;

/// How a try to change a row's form came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Switch {
    Done,
    /// Somebody was quicker, or the row has gone.
    Needless,
    /// The slot has to be on the disk first.
    Unsynced,
}

/// A decoded file on its way to its name.
struct Unpacked<'s> {
    slot: Slot<'s>,
    file: File,
    inode: u64,
    mtime: Mtime,
}

impl Store {
    /// Makes a packed blob plain and opens it. Its new inode gets the wanted attributes, so that it is the first view.
    /// `None` where another thread is at it: then [`Unpacking::wait`], holding nothing that others need, and ask again.
    ///
    /// # Errors
    /// `Damaged` when the packed bytes are not what they were; the row is marked then. `NoSpace`. Those of writing.
    pub(crate) fn unpack(
        &self,
        blob: &Blob,
        wanted: &Wanted,
        privileged: bool,
        activity: &Activity,
    ) -> Result<Option<OpenBlob>> {
        let Some(_turn) = self.unpacking.start(blob.checksum) else {
            return Ok(None);
        };
        // Somebody may have done it since the row was read.
        let now = self.catalog.read(|txn| txn.blob(&blob.checksum))?;
        let blob = now.as_ref().unwrap_or(blob);
        let opened = self.open_good(blob, activity)?;
        if opened.form == Form::Plain {
            return Ok(Some(opened));
        }
        self.replace_packed(blob, &opened, wanted, privileged, activity)?;
        let now = self.catalog.read(|txn| txn.blob(&blob.checksum))?;
        self.open_good(now.as_ref().unwrap_or(blob), activity)
            .map(Some)
    }

    fn replace_packed(
        &self,
        blob: &Blob,
        opened: &OpenBlob,
        wanted: &Wanted,
        privileged: bool,
        activity: &Activity,
    ) -> Result<()> {
        let (slot, file) = self.create_slot()?;
        let _space = self.claim_space(blob.data_size, &file)?;
        let output = Output::File {
            file: &file,
            sync_soon: false,
        };
        self.copy_verified(blob, opened, output, activity, Told::Later)?;
        Self::set_attributes(&file, &wanted.attributes, privileged);
        let stat = Stat::of_file(&file).at("examine", self.root.staging.path())?;
        let mut unpacked = Unpacked {
            slot,
            file,
            inode: stat.ino,
            mtime: stat.mtime,
        };
        if self.switch(blob, &mut unpacked, false)? == Switch::Unsynced {
            sync_file(&unpacked.file).at("sync", self.root.staging.path())?;
            self.switch(blob, &mut unpacked, true)?;
        }
        Ok(())
    }

    /// Gives the plain file its name and the row its form, then sweeps the packed file.
    fn switch(&self, blob: &Blob, unpacked: &mut Unpacked<'_>, synced: bool) -> Result<Switch> {
        let sync = if synced { Sync::Full } else { Sync::Normal };
        let result = self
            .catalog
            .write(sync, |txn| self.switch_row(txn, blob, unpacked, synced));
        let stale = match &result {
            Ok(Switch::Done) => Form::Packed,
            // It got a name and no row.
            Err(_) if unpacked.slot.is_named() => Form::Plain,
            _ => return result,
        };
        self.sweep_soon(&[StoredName::content(blob.name_as(stale))]);
        result
    }

    fn switch_row(
        &self,
        txn: &Txn<'_>,
        blob: &Blob,
        unpacked: &mut Unpacked<'_>,
        synced: bool,
    ) -> Result<Switch> {
        let Some(now) = txn.blob(&blob.checksum)? else {
            return Ok(Switch::Needless);
        };
        if now.form == Form::Plain {
            return Ok(Switch::Needless);
        }
        if !synced && (now.unsynced.is_none() || txn.is_promised(&now.checksum)?) {
            return Ok(Switch::Unsynced);
        }
        let content = &self.root.content;
        let name = now.name_as(Form::Plain);
        self.intend(std::iter::once(StoredName::content(name.clone())))?;
        unpacked.slot.rename_to(content, &name)?;
        if synced {
            // The one sync under the names lock: the row of what was promised must not get ahead of the name.
            self.root.sync_names(now.shard)?;
        }
        let file = Confirmed {
            inode: unpacked.inode,
            mtime: Some(unpacked.mtime),
            unsynced: (!synced).then(|| self.unsynced_mark()),
        };
        txn.make_plain(&now, &file)?;
        txn.orphan(&StoredName::content(now.name()))?;
        Ok(Switch::Done)
    }
}

/// Which blobs are being made plain in this process: the second thread that wants the same one waits instead of decoding
/// it too.
#[derive(Debug, Default)]
pub(crate) struct Unpacking {
    busy: Mutex<HashSet<Checksum>>,
    ended: Condvar,
}

/// One thread's turn with a blob.
struct UnpackTurn<'a> {
    unpacking: &'a Unpacking,
    blob: Checksum,
}

impl Unpacking {
    /// `None`: another thread has its turn.
    fn start(&self, blob: Checksum) -> Option<UnpackTurn<'_>> {
        let is_first = self.lock().insert(blob);
        // Made only where it is given out: dropping it ends the turn.
        is_first.then(|| UnpackTurn {
            unpacking: self,
            blob,
        })
    }

    /// Waits until nobody makes the blob plain. The caller holds no permit and makes none plain itself.
    ///
    /// # Errors
    /// `Cancelled` when the caller gives up first.
    pub(crate) fn wait(&self, blob: Checksum, activity: &Activity) -> Result<()> {
        let mut busy = self.lock();
        while busy.contains(&blob) {
            activity.check()?;
            busy = wait_a_moment(&self.ended, busy);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Checksum>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnpackTurn<'_> {
    fn drop(&mut self) {
        self.unpacking.lock().remove(&self.blob);
        self.unpacking.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Whoever wanted a blob that another thread made plain waited with a permit, which that one's call may have needed, and
    /// did not look whether its own caller had given up.
    #[test]
    fn whoever_gives_up_does_not_wait_until_a_blob_is_plain() {
        let unpacking = Unpacking::default();
        let cancelled = Arc::new(AtomicBool::new(false));
        let activity = Activity::new(Arc::clone(&cancelled), None);
        let blob = |number| Checksum::from_bytes([number; 32]);
        let turn = unpacking.start(blob(1)).unwrap();
        assert!(unpacking.start(blob(1)).is_none());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| unpacking.wait(blob(1), &activity));
            cancelled.store(true, Ordering::Relaxed);
            assert!(waiting.join().unwrap().is_err());
        });
        cancelled.store(false, Ordering::Relaxed);
        unpacking.wait(blob(2), &activity).unwrap();
        drop(turn);
        unpacking.wait(blob(1), &activity).unwrap();
        assert!(unpacking.start(blob(1)).is_some());
    }
}

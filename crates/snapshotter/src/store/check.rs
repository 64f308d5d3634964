//! Opening a blob for use: is it still what was stored?
//!
//! A hardlinked blob can be changed by whoever owns its other name. The row records the inode's number, size and
//! modification time; where they differ, or what reached the disk is unknown, the bytes are hashed before they are used:
//! they are right, and the row is brought up to date, or the row is marked damaged, and the next capture of the same bytes
//! mends it. Without the number, two files of one size and time whose names were exchanged would be given as each other. A
//! time that may be the present is not recorded, because two writes within a tick of the filesystem's clock leave one time.
//! A change that puts the modification time back, or goes through an old mapping after this look, is not seen here: copying
//! restores hash what they copy, and `verify` hashes everything. A packed blob is not hashed here, because whatever reads it
//! does so in a pass that hashes it.
//!
//! A blob is checked by the map in its row, and every byte outside the map has to read as zero. Copies are of the map's
//! extents, so what is written into a blob's hole never comes back.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::{Store, now};
use crate::activity::Activity;
use crate::catalog::{Blob, BlobState, Confirmed, Txn};
use crate::fs::dir::Kind;
use crate::fs::{Stat, is_bad_medium};
use crate::pass::pass_packed;
use crate::pass::{Hashing, Output, holes_are_zero, is_wrong, pass};
use crate::words::entry::Mtime;
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::extent::ExtentMap;
use crate::words::form::Form;

/// A filesystem's time is that of the kernel's last tick.
const TICK: Duration = Duration::from_millis(20);

/// Some filesystems count whole seconds, or two.
const COARSE_TICK: Duration = Duration::from_secs(2);

/// The modification time of a file that is about to be read, if a change from now on is certain to move it.
///
/// A change gives a file the time at which it happens, as its filesystem counts time, so the one time that cannot betray it
/// is the present. A time that is not the inode's change time was left behind, or was set to whatever it is, perhaps a year
/// that is yet to come. One that is the change time is of the last change itself, and may be the present still.
pub(crate) fn settled(before: &Stat) -> Option<Mtime> {
    is_settled(before, now()).then_some(before.mtime)
}

fn is_settled(before: &Stat, now: i64) -> bool {
    let Mtime {
        seconds,
        nanoseconds,
    } = before.mtime;
    let changed = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let tick = if nanoseconds == 0 { COARSE_TICK } else { TICK };
    before.mtime != before.ctime || changed.abs_diff(now.into()) > tick.as_nanos()
}

/// An opened blob whose bytes can be used: those of a plain one as they are, those of a packed one in a pass that
/// verifies them.
#[derive(Debug)]
pub(crate) struct OpenBlob {
    pub(crate) file: File,
    pub(crate) stat: Stat,
    pub(crate) form: Form,
    /// Its modification time, if that betrays every change since it was opened.
    mtime: Option<Mtime>,
}

impl OpenBlob {
    pub(crate) fn new(file: File, form: Form) -> io::Result<Self> {
        let stat = Stat::of_file(&file)?;
        let mtime = settled(&stat);
        Ok(Self {
            file,
            stat,
            form,
            mtime,
        })
    }
}

impl Store {
    /// Opens a blob. A plain one is hashed first where its inode does not vouch for it.
    ///
    /// # Errors
    /// `Damaged` when the file is missing or its bytes changed; the row is marked then.
    pub(crate) fn open_good(&self, blob: &Blob, activity: &Activity) -> Result<OpenBlob> {
        self.require_usable(blob)?;
        let (blob, opened) = match self.open_current(blob, activity) {
            Ok(Some(found)) => found,
            Ok(None) => return Err(self.found_missing(blob)?),
            Err(error) => return Err(error),
        };
        self.require_usable(&blob)?;
        if opened.form == Form::Plain
            && !self.is_vouched(&blob, &opened)
            && !self.rehash(&blob, &opened, activity)?
        {
            return Err(damaged(&blob));
        }
        Ok(opened)
    }

    /// Whether the inode is the one that was recorded when its bytes were known to be right.
    fn is_vouched(&self, blob: &Blob, opened: &OpenBlob) -> bool {
        has_size(blob, &opened.stat, opened.form)
            && blob.is_recorded(&opened.stat)
            && !self.is_suspect(blob.unsynced.as_deref())
    }

    fn require_usable(&self, blob: &Blob) -> Result<()> {
        match blob.state {
            BlobState::Good => Ok(()),
            BlobState::Damaged => Err(damaged(blob)),
            BlobState::Missing => Err(missing(blob)),
        }
    }

    /// A hardlinked file whose owner took the right to read it away is as good as damaged: the next capture of the same
    /// bytes replaces it, and `verify` finds it right again if the right comes back. So is one that the disk has lost.
    pub(super) fn mark_unreadable(&self, blob: &Blob) -> Result<()> {
        tracing::error!(digest = %blob.digest, checksum = %blob.checksum, "a stored blob cannot be read");
        self.note(|txn| {
            // By now it may have been replaced by one that can be read.
            match self.root.content.open_file(&blob.name()) {
                Err(error) if is_unreadable(&error) => {
                    txn.mark_object(&blob.checksum, blob.form, BlobState::Damaged)
                }
                _ => Ok(()),
            }
        })
    }

    /// Opens a blob's file, whatever form it has got since its row was read; `None`: there is none. A form changes before
    /// the file of the old one loses its name, so looking once more after finding nothing finds the new one.
    ///
    /// # Errors
    /// `Damaged` for a file that cannot be read; its row is marked then.
    pub(crate) fn open_current<'b>(
        &self,
        blob: &'b Blob,
        activity: &Activity,
    ) -> Result<Option<(Cow<'b, Blob>, OpenBlob)>> {
        if let Some(opened) = self.open_blob(blob, activity)? {
            return Ok(Some((Cow::Borrowed(blob), opened)));
        }
        match self.catalog.read(|txn| txn.blob(&blob.checksum))? {
            Some(now) if now.name() != blob.name() => {
                let opened = self.open_blob(&now, activity)?;
                Ok(opened.map(|opened| (Cow::Owned(now), opened)))
            }
            _ => Ok(None),
        }
    }

    /// Opens the file of the form that a row says, as it is; `None`: there is none.
    fn open_blob(&self, blob: &Blob, activity: &Activity) -> Result<Option<OpenBlob>> {
        let name = blob.name();
        let path = || self.root.content.path_of(&name);
        let opened = activity.open(&self.root.content, &name)?;
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // A symlink, put there by somebody: not the file that is missing.
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(None),
            Err(error) if is_unreadable(&error) => {
                self.mark_unreadable(blob)?;
                return Err(damaged(blob).with_source(Error::io("open", &path(), error)));
            }
            Err(error) => return Err(error).at("open", path()),
        };
        let opened = OpenBlob::new(file, blob.form).at("examine", path())?;
        Ok((opened.stat.kind == Kind::File).then_some(opened))
    }

    /// Where a blob's file is, for errors.
    pub(crate) fn content_path(&self, blob: &Blob, form: Form) -> PathBuf {
        self.root.content.path_of(&blob.name_as(form))
    }

    /// Reads all of a blob; records and returns whether it is what it was.
    pub(crate) fn rehash(
        &self,
        blob: &Blob,
        opened: &OpenBlob,
        activity: &Activity,
    ) -> Result<bool> {
        let map = self.extents(blob)?;
        let good = self.is_right(blob, &map, opened, activity)?;
        if good {
            self.confirm(blob, opened)?;
        } else {
            self.mark_unless_replaced(blob, opened)?;
        }
        Ok(good)
    }

    /// Whether a blob's file has its bytes. All of them are read.
    pub(crate) fn is_right(
        &self,
        blob: &Blob,
        map: &ExtentMap,
        opened: &OpenBlob,
        activity: &Activity,
    ) -> Result<bool> {
        if !has_size(blob, &opened.stat, opened.form) {
            return Ok(false);
        }
        let progress = |_| activity.advance(0);
        let (file, nowhere, hashing) = (&opened.file, Output::None, Hashing::Checksum);
        let result = match opened.form {
            Form::Plain => pass(file, map, nowhere, hashing, &progress).and_then(|hashes| {
                Ok(hashes.checksum == blob.checksum && holes_are_zero(file, map)?)
            }),
            Form::Packed => pass_packed(file, blob.size, nowhere, hashing, &progress)
                .map(|(found, hashes)| hashes.checksum == blob.checksum && found == *map),
        };
        activity.check()?;
        let path = self.content_path(blob, opened.form);
        match result {
            Err(error) if is_wrong(&error) => {
                tracing::error!(path = %path.display(), %error, "what is stored cannot be read");
                Ok(false)
            }
            result => result.at("read", path),
        }
    }

    /// Reading a blob gave wrong bytes, or none of some: marks it, and returns what there is to say.
    pub(crate) fn found_damaged(
        &self,
        blob: &Blob,
        opened: &OpenBlob,
        why: Option<io::Error>,
    ) -> Result<Error> {
        self.mark_unless_replaced(blob, opened)?;
        let path = self.content_path(blob, opened.form);
        Ok(match why {
            Some(why) => damaged(blob).with_source(Error::io("read", &path, why)),
            None => damaged(blob),
        })
    }

    /// Notes that a packed file was just read and is right, where its inode does not vouch for it yet. Best effort: the
    /// note only saves somebody from fetching or storing the same bytes again.
    pub(super) fn vouch(&self, blob: &Blob, opened: &OpenBlob) {
        if self.is_vouched(blob, opened) {
            return;
        }
        if let Err(error) = self.confirm(blob, opened) {
            tracing::debug!(%error, "a packed blob was found right, which could not be recorded");
        }
    }

    /// The look before and the look after must agree for the time to stand for the bytes that were read.
    fn confirm(&self, blob: &Blob, opened: &OpenBlob) -> Result<()> {
        let after = Stat::of_file(&opened.file).at("examine", self.root.content.path())?;
        let mtime = opened
            .mtime
            .filter(|_| after.same_bytes_since(&opened.stat));
        // Under another boot the bytes came from the disk. After a failed sync under this one they may not have.
        let failed = self.failed_mark();
        let unsynced = match blob.unsynced.as_deref() {
            Some(mark) if mark == self.unsynced_mark() || mark == failed => Some(mark),
            _ => None,
        };
        let file = Confirmed {
            inode: after.ino,
            mtime,
            unsynced,
        };
        self.note(|txn| {
            if self.is_named(blob, opened)? {
                txn.confirm_object(&blob.checksum, opened.form, &file)?;
            }
            Ok(())
        })
    }

    /// Whether the file that was opened is still the one under the blob's name. The caller holds the names lock.
    fn is_named(&self, blob: &Blob, opened: &OpenBlob) -> Result<bool> {
        let name = blob.name_as(opened.form);
        let stat = self
            .root
            .content
            .stat_if_any(&name)
            .at("examine", self.root.content.path_of(&name))?;
        Ok(stat.is_some_and(|stat| stat.identity() == opened.stat.identity()))
    }

    pub(super) fn failed_mark(&self) -> String {
        format!("failed:{}", self.unsynced_mark())
    }

    /// Marks a blob damaged, unless it has a better inode, or another form, by now.
    fn mark_unless_replaced(&self, blob: &Blob, opened: &OpenBlob) -> Result<()> {
        tracing::error!(digest = %blob.digest, checksum = %blob.checksum, "a stored blob is damaged");
        self.note(|txn| {
            if self.is_named(blob, opened)? {
                txn.mark_object(&blob.checksum, opened.form, BlobState::Damaged)?;
            }
            Ok(())
        })
    }

    /// Opening gave nothing: true only if the row is still there and the file, looked for once more, is not.
    pub(crate) fn found_missing(&self, blob: &Blob) -> Result<Error> {
        self.note(|txn| {
            let Some(now) = txn.blob(&blob.checksum)? else {
                return Ok(());
            };
            let stat = self.stat_content(&now)?;
            if !stat.is_some_and(|stat| stat.kind == Kind::File) {
                txn.mark_object(&now.checksum, now.form, BlobState::Missing)?;
            }
            Ok(())
        })?;
        tracing::error!(digest = %blob.digest, checksum = %blob.checksum, "a stored blob is missing");
        Ok(missing(blob))
    }

    /// A blob's map. One that cannot be the blob's is damage like any other: what replaces the blob brings its own.
    pub(crate) fn extents(&self, blob: &Blob) -> Result<ExtentMap> {
        let read = |txn: &Txn<'_>| match txn.extents(blob) {
            Ok(Some(map)) if (map.size(), map.data_size()) == (blob.size, blob.data_size) => {
                Ok(Ok(map))
            }
            Ok(Some(_)) => Ok(Err(damaged(blob))),
            // Removed since its row was read.
            Ok(None) => Ok(Err(missing(blob))),
            Err(error) if error.kind() == ErrorKind::Damaged => Ok(Err(damaged(blob))),
            Err(error) => Err(error),
        };
        let error = match self.catalog.read(read)? {
            Ok(map) => return Ok(map),
            Err(error) => error,
        };
        tracing::error!(digest = %blob.digest, checksum = %blob.checksum, "the extent map of a blob is damaged");
        self.note(|txn| match read(txn)? {
            Err(_) => txn.mark_object(&blob.checksum, blob.form, BlobState::Damaged),
            Ok(_) => Ok(()),
        })?;
        Err(error)
    }
}

/// Whether a file can be the blob's, by its size.
pub(super) fn has_size(blob: &Blob, stat: &Stat, form: Form) -> bool {
    match form {
        Form::Plain => stat.size == blob.size,
        Form::Packed => stat.size == blob.length,
    }
}

/// Whether an error of opening a file is about that file, and not about the store: nobody may read it, or the disk has
/// lost it.
pub(crate) fn is_unreadable(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied || is_bad_medium(error)
}

fn damaged(blob: &Blob) -> Error {
    Error::damaged(format!(
        "the stored bytes of {} ({}) have changed or cannot be read",
        blob.digest, blob.checksum
    ))
    .with_hint("a snapshot of the same bytes mends it; `verify` lists all that is damaged")
}

fn missing(blob: &Blob) -> Error {
    Error::damaged(format!(
        "the stored bytes of {} ({}) are missing",
        blob.digest, blob.checksum
    ))
    .with_hint("a snapshot of the same bytes mends it; `verify` lists all that is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000_000_000;

    /// A file that was last written and last changed these nanoseconds after the present.
    fn stat(written: i64, changed: i64) -> Stat {
        let time = |after: i64| Mtime {
            seconds: (NOW + after).div_euclid(1_000_000_000),
            nanoseconds: u32::try_from((NOW + after).rem_euclid(1_000_000_000)).unwrap(),
        };
        let dir = tempfile::tempdir().unwrap();
        Stat {
            mtime: time(written),
            ctime: time(changed),
            ..Stat::of_file(File::open(dir.path()).unwrap()).unwrap()
        }
    }

    // A time was believed once it was 20 ms old by this process's clock: never for years where it was yet to come, and too
    // soon on a filesystem that counts in seconds, where a second write within one leaves the same time.
    #[test]
    fn the_present_alone_cannot_betray_a_change() {
        const SECOND: i64 = 1_000_000_000;
        const YEAR: i64 = 365 * 86_400 * SECOND;
        let settled = |written, changed| is_settled(&stat(written, changed), NOW);
        for present in [0, -1, -SECOND, SECOND] {
            assert!(!settled(present, present), "{present}");
        }
        // Linked, renamed or given a time since.
        for written in [-YEAR, -SECOND, -1, 1, SECOND, YEAR] {
            assert!(settled(written, 0), "{written}");
        }
        // Where fractions of a second are counted, a little time is enough.
        for written in [-30_000_000, 30_000_001] {
            assert!(settled(written, written), "{written}");
        }
        // Written by a clock that has been set since, or long ago.
        for written in [-YEAR, -3 * SECOND, 3 * SECOND, YEAR] {
            assert!(settled(written, written), "{written}");
        }
    }
}

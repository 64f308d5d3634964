//! Opening a blob for use: is it still what was stored?
//!
//! A hardlinked blob can be changed by whoever owns its other name. The row records the inode's size and modification
//! time; where they differ, or what reached the disk is unknown, the bytes are hashed before they are used. A change
//! that puts the modification time back, or goes through an old mapping after this look, is not seen here: copying
//! restores hash what they copy, and `verify` hashes everything.

use std::fs::File;
use std::io;
use std::time::{Duration, SystemTime};

use super::Store;
use super::layout::content_name;
use super::stream::{Hashing, Output, holes_are_zero, pass};
use crate::activity::Activity;
use crate::catalog::{Blob, BlobState, Sync};
use crate::fs::Stat;
use crate::fs::dir::Kind;
use crate::words::entry::Mtime;
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::extent::ExtentMap;

/// A change within one tick of the kernel's clock can leave the modification time as it was.
const SETTLED: Duration = Duration::from_millis(20);

/// The modification time, if a later change is certain to move it.
pub(crate) fn settled(mtime: Mtime) -> Option<Mtime> {
    let written = SystemTime::UNIX_EPOCH.checked_add(Duration::new(
        u64::try_from(mtime.seconds).unwrap_or(0),
        mtime.nanoseconds,
    ))?;
    let age = SystemTime::now().duration_since(written).ok()?;
    (age >= SETTLED).then_some(mtime)
}

/// An opened blob whose bytes can be used.
#[derive(Debug)]
pub(crate) struct OpenBlob {
    pub(crate) file: File,
    pub(crate) stat: Stat,
}

impl Store {
    /// Opens a blob, hashing it first where its inode does not vouch for it.
    ///
    /// # Errors
    /// `Damaged` when the file is missing or its bytes changed; the row is marked then.
    pub(crate) fn open_good(&self, blob: &Blob, activity: &Activity) -> Result<OpenBlob> {
        self.require_usable(blob)?;
        let opened = match self.open_blob(blob) {
            Ok(Some(opened)) => opened,
            Ok(None) => return Err(self.found_missing(blob)?),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                self.mark_unreadable(blob)?;
                return Err(damaged(blob).with_source(error));
            }
            Err(error) => return Err(error),
        };
        let vouched = opened.stat.size == blob.size
            && Some(opened.stat.mtime) == blob.mtime
            && !self.is_suspect(blob.unsynced.as_deref());
        if !vouched && !self.rehash(blob, &opened, activity)? {
            return Err(damaged(blob));
        }
        Ok(opened)
    }

    fn require_usable(&self, blob: &Blob) -> Result<()> {
        if blob.packed {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{} is stored packed, which this release cannot read",
                    blob.digest
                ),
            ));
        }
        match blob.state {
            BlobState::Good => Ok(()),
            BlobState::Damaged => Err(damaged(blob)),
            BlobState::Missing => Err(missing(blob)),
        }
    }

    /// A hardlinked file whose owner took the right to read it away is as good as damaged: the next capture of the same
    /// bytes replaces it, and `verify` finds it right again if the right comes back.
    pub(crate) fn mark_unreadable(&self, blob: &Blob) -> Result<()> {
        tracing::error!(digest = %blob.digest, checksum = %blob.checksum, "a stored blob cannot be read");
        self.catalog.write(Sync::Normal, |txn| {
            txn.mark_blob(blob.id, BlobState::Damaged)
        })
    }

    /// Opens a blob's file as it is; `None`: there is none.
    pub(crate) fn open_blob(&self, blob: &Blob) -> Result<Option<OpenBlob>> {
        let name = content_name(&blob.checksum);
        let path = || self.root.content.path_of(&name);
        let file = match self.root.content.open_file(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // A symlink, put there by somebody: not the file that is missing.
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(None),
            Err(error) => return Err(error).at("open", path()),
        };
        let stat = Stat::of_file(&file).at("examine", path())?;
        Ok((stat.kind == Kind::File).then_some(OpenBlob { file, stat }))
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

    pub(super) fn is_right(
        &self,
        blob: &Blob,
        map: &ExtentMap,
        opened: &OpenBlob,
        activity: &Activity,
    ) -> Result<bool> {
        let path = || self.root.content.path_of(&content_name(&blob.checksum));
        if opened.stat.size != blob.size {
            return Ok(false);
        }
        let progress = |_| activity.advance(0);
        let result = pass(
            &opened.file,
            map,
            Output::None,
            Hashing::Checksum,
            &progress,
        );
        activity.check()?;
        match result {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(false),
            result => {
                let same = result.at("read", path())?.checksum == blob.checksum;
                Ok(same && holes_are_zero(&opened.file, map).at("read", path())?)
            }
        }
    }

    /// The look before and the look after must agree for the time to stand for the bytes that were read.
    fn confirm(&self, blob: &Blob, opened: &OpenBlob) -> Result<()> {
        let after = Stat::of_file(&opened.file).at("examine", self.root.content.path())?;
        let mtime = settled(after.mtime).filter(|_| after.same_bytes_since(&opened.stat));
        // Under another boot the bytes came from the disk. After a failed sync under this one they may not have.
        let failed = self.failed_mark();
        let unsynced = match blob.unsynced.as_deref() {
            Some(mark) if mark == self.unsynced_mark() || mark == failed => Some(mark),
            _ => None,
        };
        self.catalog.write(Sync::Normal, |txn| {
            txn.confirm_blob(blob.id, mtime, unsynced)
        })
    }

    pub(super) fn failed_mark(&self) -> String {
        format!("failed:{}", self.unsynced_mark())
    }

    /// Marks a blob damaged, unless the name has a better inode by now.
    pub(crate) fn mark_unless_replaced(&self, blob: &Blob, opened: &OpenBlob) -> Result<()> {
        let name = content_name(&blob.checksum);
        tracing::error!(digest = %blob.digest, checksum = %blob.checksum, "a stored blob is damaged");
        self.catalog.write(Sync::Normal, |txn| {
            let stat = self
                .root
                .content
                .stat_if_any(&name)
                .at("examine", self.root.content.path_of(&name))?;
            if stat.is_some_and(|stat| stat.identity() == opened.stat.identity()) {
                txn.mark_blob(blob.id, BlobState::Damaged)?;
            }
            Ok(())
        })
    }

    /// Opening gave nothing: true only if the row is still there and the file, looked for once more, is not.
    pub(crate) fn found_missing(&self, blob: &Blob) -> Result<Error> {
        let name = content_name(&blob.checksum);
        self.catalog.write(Sync::Normal, |txn| {
            let stat = self
                .root
                .content
                .stat_if_any(&name)
                .at("examine", self.root.content.path_of(&name))?;
            let is_file = stat.is_some_and(|stat| stat.kind == Kind::File);
            if txn.blob(blob.id)?.is_some() && !is_file {
                txn.mark_blob(blob.id, BlobState::Missing)?;
            }
            Ok(())
        })?;
        tracing::error!(digest = %blob.digest, checksum = %blob.checksum, "a stored blob is missing");
        Ok(missing(blob))
    }

    pub(crate) fn extents(&self, blob: &Blob) -> Result<ExtentMap> {
        self.catalog.read(|txn| txn.extents(blob))
    }
}

pub(crate) fn damaged(blob: &Blob) -> Error {
    Error::damaged(format!(
        "the stored bytes of {} ({}) have changed",
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

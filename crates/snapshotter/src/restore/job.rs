//! A file that is about to be placed: what its bytes are copied from, and what it is to be.

use std::ffi::OsStr;

use super::content::FileEntry;
use crate::catalog::{Blob, ViewKey};
use crate::store::{OpenBlob, Wanted};
use crate::words::relpath::os_name;

/// A file about to be placed, with all that is known of it.
pub(super) struct Job<'a> {
    pub(super) planned: &'a FileEntry,
    pub(super) source: Source,
    /// Bytes of data in it.
    pub(super) data_size: u64,
    pub(super) wanted: Wanted,
    /// The device of the directory it goes to.
    pub(super) device: u64,
}

/// What a file's bytes are copied from.
pub(super) enum Source {
    Blob(Box<(Blob, OpenBlob)>),
    /// Packs: its pages in the page space from this one on.
    Pages(u64),
}

impl Job<'_> {
    /// The blob with its bytes, if it has one.
    pub(super) fn blob(&self) -> Option<(&Blob, &OpenBlob)> {
        match &self.source {
            Source::Blob(blob) => Some((&blob.0, &blob.1)),
            Source::Pages(_) => None,
        }
    }

    pub(super) fn name(&self) -> &OsStr {
        os_name(self.planned.path.file_name())
    }

    /// What a view of its blob is called by.
    pub(super) fn view(&self) -> Option<ViewKey> {
        let (blob, _) = self.blob()?;
        Some((blob.checksum, self.wanted.fingerprint))
    }
}

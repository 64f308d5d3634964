//! A file of an open snapshot.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use super::blobs::Verified;
use super::{Bytes, Inner, Place};
use crate::activity::Activity;
use crate::fs::is_bad_medium;
use crate::inspect::FileDetails;
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::relpath::RelPath;

/// A file of an open snapshot, read at any place by any number of threads at once.
#[derive(Debug)]
pub struct Reader {
    snapshot: Arc<Inner>,
    number: usize,
    source: Source,
    extents: OnceLock<Vec<Range<u64>>>,
}

#[derive(Debug)]
enum Source {
    Whole(Verified),
    /// Pages from this one of the page space on, and a file that has them all, if one is cached.
    Pages(u64, Option<File>),
}

impl Reader {
    pub(super) fn open(snapshot: &Arc<Inner>, number: usize) -> Result<Self> {
        let file = &snapshot.entries.files[number];
        let source = source(snapshot, file, snapshot.places[number]);
        let path = &file.entry.relative_path;
        Ok(Self {
            snapshot: Arc::clone(snapshot),
            number,
            source: source.map_err(|error| blame(error, snapshot, path))?,
            extents: OnceLock::new(),
        })
    }

    /// What the snapshot says of it.
    #[must_use]
    pub fn details(&self) -> &FileDetails {
        &self.snapshot.entries.files[self.number]
    }

    /// Reads bytes from a place on, all that fit and there are, and says how many; 0 behind the end.
    ///
    /// # Errors
    /// `EIO` for what is damaged or cannot be read, and the log has more; other places can still be read.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let path = &self.details().entry.relative_path;
        self.read(buffer, offset).map_err(|error| {
            let cause = std::error::Error::source(&error);
            tracing::error!(path = %path.display(), offset, %error, cause, "a file of a snapshot cannot be read");
            io::Error::from_raw_os_error(libc::EIO)
        })
    }

    /// Reads all of it, so that what is damaged is found before anything is used, and from then on nothing that is cached.
    ///
    /// # Errors
    /// `Damaged`, with the path.
    pub fn verify(&mut self) -> Result<()> {
        if let Source::Pages(_, cached) = &mut self.source {
            *cached = None;
        }
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        loop {
            match self.read(&mut buffer, at) {
                Ok(0) => return Ok(()),
                Ok(length) => at += length as u64,
                Err(error) => {
                    let path = &self.details().entry.relative_path;
                    return Err(blame(error, &self.snapshot, path));
                }
            }
        }
    }

    /// Where it has data, ascending, in bytes; everything else in it is holes, which read as zeros.
    ///
    /// # Errors
    /// The catalog's.
    pub fn extents(&self) -> Result<&[Range<u64>]> {
        if let Some(known) = self.extents.get() {
            return Ok(known);
        }
        let found = self.find_extents()?;
        Ok(self.extents.get_or_init(|| found))
    }

    fn find_extents(&self) -> Result<Vec<Range<u64>>> {
        let snapshot = &self.snapshot;
        match (&self.source, snapshot.places[self.number], &snapshot.bytes) {
            (Source::Pages(first, _), _, Bytes::Frames(frames)) => {
                let data = frames.data(*first, self.details().size);
                // What lies together here may be in different packs.
                Ok(joined(data))
            }
            (_, Place::Blob(checksum, _), _) => {
                let store = &snapshot.store;
                let blob = super::blobs::blob_of(store, snapshot.snapshot.id, &checksum)?;
                let map = store.extents(&blob)?;
                let extents = map.extents().iter();
                Ok(joined(extents.map(|extent| extent.offset..extent.end())))
            }
            _ => Ok(Vec::new()),
        }
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let left = self.details().size.saturating_sub(offset);
        let length = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let wanted = &mut buffer[..length];
        if length == 0 {
            return Ok(0);
        }
        match (&self.source, &self.snapshot.bytes) {
            (Source::Whole(whole), _) => self.read_whole(whole, wanted, offset)?,
            (Source::Pages(first, cached), Bytes::Frames(frames)) => {
                let is_read = cached.as_ref().is_some_and(|file| {
                    let read = file.read_exact_at(wanted, offset);
                    read.inspect_err(|error| tracing::debug!(%error, "a cache entry was not read"))
                        .is_ok()
                });
                if !is_read {
                    frames.read(&self.snapshot.store, *first, offset, wanted)?;
                }
            }
            (Source::Pages(..), Bytes::Blobs(_)) => return Err(lost()),
        }
        Ok(length)
    }

    fn read_whole(&self, whole: &Verified, wanted: &mut [u8], offset: u64) -> Result<()> {
        let Err(error) = whole.file().read_exact_at(wanted, offset) else {
            return Ok(());
        };
        let is_lost = error.kind() == io::ErrorKind::UnexpectedEof || is_bad_medium(&error);
        match whole {
            Verified::Plain(blob, opened) if is_lost => {
                let store = &self.snapshot.store;
                Err(store.found_damaged(blob, opened, Some(error))?)
            }
            _ => Err(error).at("read", &self.details().entry.relative_path),
        }
    }
}

/// Ranges that touch are one.
fn joined(ranges: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut all: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match all.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => all.push(range),
        }
    }
    all
}

fn source(snapshot: &Inner, file: &FileDetails, place: Place) -> Result<Source> {
    let store = &snapshot.store;
    match (place, &snapshot.bytes) {
        (Place::Blob(checksum, _), Bytes::Blobs(blobs)) => {
            // Nobody gives it up: who waits for it is in the middle of a call of its own.
            let activity = Activity::new(Arc::<AtomicBool>::default(), None);
            let whole = blobs.open(store, snapshot.snapshot.id, &checksum, &activity)?;
            Ok(Source::Whole(whole))
        }
        (Place::Pages(first), Bytes::Frames(_)) => {
            let name = file.hardlink_of.as_ref();
            let name = name.unwrap_or(&file.entry.relative_path);
            let cached = RelPath::normalize(name)
                .ok()
                .and_then(|path| store.open_base_of(&snapshot.snapshot.manifest_digest, &path));
            Ok(Source::Pages(first, cached))
        }
        _ => Err(lost()),
    }
}

fn lost() -> Error {
    Error::damaged("the snapshot's document and its contents disagree")
}

/// An error about a blob or a pack is an error about the file that needs it.
fn blame(error: Error, snapshot: &Inner, path: &Path) -> Error {
    if error.kind() != ErrorKind::Damaged {
        return error;
    }
    let text = format!("{} cannot be read out of the snapshot", path.display());
    Error::damaged(text)
        .with_path(path)
        .with_reference(&snapshot.snapshot.reference)
        .with_hint(error.hint().unwrap_or_default().to_owned())
        .with_source(error)
}

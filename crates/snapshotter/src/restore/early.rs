//! Files of a restore that are written while their blobs are fetched, in the same pass, so that the first restore on a
//! node does not write to the store and then read it all back.
//!
//! They are an offer: a restore that finds one takes it instead of making a copy, and a copy is what it makes where there
//! is none. Each is without a name until then, in a directory that was there before, so a restore that fails leaves
//! nothing, not even its output directory.
//!
//! Other calls wait for a fetch, so it must not wait for one call's output. Therefore early files are made only on the
//! store's own filesystem: where that takes nothing more, nobody can fetch anything anyway.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::plan::Selection;
use crate::format::document::FileEntry;
use crate::fs::Dir;
use crate::fs::place::{cannot_share, reflink};
use crate::store::{Recipient, SpaceClaim, Store};
use crate::words::digest::Checksum;
use crate::words::error::Result;
use crate::words::placement::LinkMode;

/// Smaller files are copied from the store, whose pages are in memory, in bytes.
const WORTH_IT: u64 = 1 << 20;

/// What a restore hopes to be given.
pub(super) struct EarlyFiles {
    selection: Selection,
    link_mode: LinkMode,
    /// Where the files are made: the output directory, or the nearest one above it that is there.
    dir: Dir,
    device: u64,
    /// Whether files of the store's filesystem can share blocks, asked when it matters; `None`: it has no files
    /// without names.
    clones: OnceLock<Option<bool>>,
    held: Mutex<Held>,
    /// Files held open at most.
    most: usize,
}

#[derive(Default)]
struct Held {
    files: HashMap<Checksum, File>,
    /// Handed out or held.
    count: usize,
}

impl EarlyFiles {
    /// Files in a directory, so many at most; `None` where it is not on the store's filesystem.
    pub(super) fn new(
        store: &Store,
        dir: Dir,
        selection: Selection,
        link_mode: LinkMode,
        most: usize,
    ) -> Result<Option<Self>> {
        let device = dir.device()?;
        Ok((device == store.root.device).then(|| Self {
            selection,
            link_mode,
            dir,
            device,
            clones: OnceLock::new(),
            held: Mutex::default(),
            most,
        }))
    }

    /// A file with these bytes, for a directory on that device.
    pub(super) fn take(&self, checksum: &Checksum, device: u64) -> Option<File> {
        if device != self.device {
            return None;
        }
        self.lock().files.remove(checksum)
    }

    /// Whether a restore makes this file by copying it out of the store, and it is worth being early.
    fn is_copied(&self, file: &FileEntry, packed: bool) -> bool {
        let mode = self.link_mode;
        let linked = file.read_only && matches!(mode, LinkMode::Auto | LinkMode::Hardlink);
        let is_wanted = file.size >= WORTH_IT
            && file.hardlink_of.is_none()
            && self.selection.contains(&file.path, false);
        is_wanted && !linked && (packed || mode == LinkMode::Copy || !self.can_clone())
    }

    fn can_clone(&self) -> bool {
        let asked = self.clones.get_or_init(|| clones(&self.dir));
        asked.unwrap_or(true)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recipient for EarlyFiles {
    /// A file that does not fit must not take from the store the room to fetch what is under way: then it is here at
    /// least.
    fn wants<'s>(
        &self,
        store: &'s Store,
        files: &[&FileEntry],
        bytes: u64,
        packed: bool,
    ) -> Option<(File, SpaceClaim<'s>)> {
        if !files.iter().any(|file| self.is_copied(file, packed)) {
            return None;
        }
        let mut held = self.lock();
        if held.count == self.most {
            return None;
        }
        let file = self.dir.create_unnamed(0o600).ok()?;
        let space = store.claim_space(bytes, &file).ok()?;
        held.count += 1;
        Some((file, space))
    }

    fn receive(&self, checksum: Checksum, file: File) {
        self.lock().files.insert(checksum, file);
    }
}

/// Whether files of this filesystem can share blocks; `None`: it has no files without names.
fn clones(dir: &Dir) -> Option<bool> {
    let (one, other) = (
        dir.create_unnamed(0o600).ok()?,
        dir.create_unnamed(0o600).ok()?,
    );
    match reflink(&one, &other) {
        Ok(()) => Some(true),
        Err(error) => cannot_share(&error).then_some(false),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use testkit::mount::{Kind, LoopMount, or_skip};

    use super::*;
    use crate::format::document::Content;
    use crate::fs::space;
    use crate::words::digest::Digest;
    use crate::words::entry::Attributes;
    use crate::words::relpath::RelPath;

    // Each early file looked at what was free, and at no other that was promised: those of one restore could together be
    // larger than the disk, and took the room from the store, whose fetch had been told that it fits.
    #[test]
    fn files_promised_at_once_fit_together() {
        let Some(mount) = or_skip(LoopMount::new(Kind::Ext4, 128 << 20, &[])) else {
            return;
        };
        let store = Store::open(&mount.path().join("root"), None, Duration::from_secs(5)).unwrap();
        let dir = Dir::open(mount.path()).unwrap();
        let request = crate::RestoreRequest::new("vm:v1".parse().unwrap(), mount.path());
        let selection = Selection::new(&request).unwrap();
        let early = EarlyFiles::new(&store, dir, selection, LinkMode::Copy, 32);
        let early = early.unwrap().unwrap();
        let free = space::of(&store.root.dir).unwrap().available;
        let file = FileEntry {
            path: RelPath::from_bytes("memory").unwrap(),
            content: Content::V1 {
                digest: Digest::from_u64(0),
                checksum: None,
            },
            read_only: false,
            size: free,
            attributes: Attributes::default(),
            hardlink_of: None,
        };
        let wants = || early.wants(&store, &[&file], free / 10 * 4, false);
        let (_slot, fetched) = store.create_slot().unwrap();
        let fetching = store.claim_space(free / 10 * 4, &fetched).unwrap();
        let first = wants();
        assert!(first.is_some());
        assert!(wants().is_none());
        drop(fetching);
        assert!(wants().is_some());
    }
}

//! Files of a restore that are written while their blobs are fetched, in the same pass, so that the first restore on a
//! node does not write to the store and then read it all back.
//!
//! They are an offer: a restore that finds one takes it instead of making a copy, and a copy is what it makes where there
//! is none. Each is without a name until then, in a directory that was there before, so a restore that fails leaves
//! nothing, not even its output directory.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::RestoreRequest;
use super::plan::Selection;
use crate::format::document::FileEntry;
use crate::fs::place::{cannot_share, reflink};
use crate::fs::{Dir, Stat, space};
use crate::store::{Recipient, Store};
use crate::words::digest::Checksum;
use crate::words::placement::LinkMode;

/// Smaller files are copied from the store, whose pages are in memory, in bytes.
const WORTH_IT: u64 = 1 << 20;

/// Files held open at most.
const HELD: usize = 64;

/// What a restore hopes to be given.
pub(super) struct EarlyFiles<'a> {
    selection: Selection,
    request: &'a RestoreRequest,
    /// Where the files are made, looked for when one is wanted; `None`: they cannot be.
    place: OnceLock<Option<Place>>,
    store_device: u64,
    held: Mutex<Held>,
}

struct Place {
    dir: Dir,
    device: u64,
    clones: bool,
}

#[derive(Default)]
struct Held {
    files: HashMap<Checksum, File>,
    /// Handed out or held.
    count: usize,
}

impl<'a> EarlyFiles<'a> {
    pub(super) fn new(store: &Store, request: &'a RestoreRequest, selection: Selection) -> Self {
        Self {
            selection,
            request,
            place: OnceLock::new(),
            store_device: store.root.device,
            held: Mutex::default(),
        }
    }

    /// A file with these bytes, for a directory on that device.
    pub(super) fn take(&self, checksum: &Checksum, device: u64) -> Option<File> {
        let place = self.place.get()?.as_ref()?;
        if place.device != device {
            return None;
        }
        self.lock().files.remove(checksum)
    }

    /// Whether a restore makes this file, and it is worth being early.
    fn is_worth_it(&self, file: &FileEntry) -> bool {
        file.size >= WORTH_IT && file.hardlink_of.is_none() && self.selection.contains(&file.path)
    }

    /// Whether a restore would copy this file out of the store.
    fn is_copied(&self, place: &Place, file: &FileEntry, packed: bool) -> bool {
        let mode = self.request.link_mode;
        let beside = place.device == self.store_device;
        let linked =
            file.read_only && beside && matches!(mode, LinkMode::Auto | LinkMode::Hardlink);
        let cloned = beside && place.clones && !packed && mode != LinkMode::Copy;
        !linked && !cloned
    }

    /// A file that does not fit must not take from the store the room to fetch it: then it is here at least.
    fn has_room(&self, place: &Place, bytes: u64, packed: bool) -> bool {
        let for_store = if packed || place.device != self.store_device {
            0
        } else {
            bytes
        };
        space::of(&place.dir).is_ok_and(|space| space.available >= bytes.saturating_add(for_store))
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recipient for EarlyFiles<'_> {
    fn wants(&self, files: &[&FileEntry], bytes: u64, packed: bool) -> Option<File> {
        let mut worth_it = files
            .iter()
            .filter(|file| self.is_worth_it(file))
            .peekable();
        worth_it.peek()?;
        let place = self
            .place
            .get_or_init(|| Place::find(&self.request.output_dir));
        let place = place.as_ref()?;
        if !worth_it.any(|file| self.is_copied(place, file, packed)) {
            return None;
        }
        let mut held = self.lock();
        if held.count == HELD || !self.has_room(place, bytes, packed) {
            return None;
        }
        let file = place.dir.create_unnamed(0o600).ok()?;
        held.count += 1;
        Some(file)
    }

    fn receive(&self, checksum: Checksum, file: File) {
        self.lock().files.insert(checksum, file);
    }
}

impl Place {
    /// The output directory, or the nearest one above it that is there.
    fn find(output: &Path) -> Option<Self> {
        let dir = output.ancestors().find_map(|path| {
            let path = if path.as_os_str().is_empty() {
                Path::new(".")
            } else {
                path
            };
            path.exists().then(|| Dir::open(path).ok())
        })??;
        let device = Stat::of_file(&dir).ok()?.dev;
        let clones = clones(&dir)?;
        Some(Self {
            dir,
            device,
            clones,
        })
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

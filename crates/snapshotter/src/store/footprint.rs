//! What the root takes on the disk, by what it is for: every inode once, however many names it has here, and blocks that several
//! files share once too. So a small file counts a block, and a clone nothing.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::ops::Range;

use super::layout::QUARANTINE;
use super::{Store, cache, page_lists};
use crate::fs::dir::Kind;
use crate::fs::shared::shared;
use crate::fs::{Dir, Stat, space};
use crate::words::error::{At, Result};
use crate::words::total::total;

/// What the root takes on the disk, in bytes that the filesystem has allocated. A file that has a name elsewhere too is counted,
/// though it may stay there; blocks that files of the root share with each other are counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskUsage {
    /// Files of blobs, and what read-only restores of them are hardlinked to.
    pub blob_bytes: u64,
    /// Packs.
    pub pack_bytes: u64,
    /// Cache entries.
    pub cache_bytes: u64,
    /// Lists of page digests: a cache too.
    pub page_list_bytes: u64,
    /// The catalog with its log.
    pub catalog_bytes: u64,
    /// Wrong bytes that `verify` moved aside.
    pub quarantine_bytes: u64,
    /// What is on its way in or out, the space that is set aside for a full disk, and directories.
    pub other_bytes: u64,
}

impl DiskUsage {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        total([
            self.blob_bytes,
            self.pack_bytes,
            self.cache_bytes,
            self.page_list_bytes,
            self.catalog_bytes,
            self.quarantine_bytes,
            self.other_bytes,
        ])
    }

    fn of(&mut self, top: &OsStr, name: &OsStr) -> &mut u64 {
        match top.to_str() {
            Some("storage") if name.as_encoded_bytes().ends_with(b".pack") => &mut self.pack_bytes,
            Some("storage") => &mut self.blob_bytes,
            Some(cache::NAME) => &mut self.cache_bytes,
            Some(page_lists::NAME) => &mut self.page_list_bytes,
            Some("metadata") => &mut self.catalog_bytes,
            Some(QUARANTINE) => &mut self.quarantine_bytes,
            _ => &mut self.other_bytes,
        }
    }
}

/// Files with less than this share no blocks that would be worth asking for, in bytes: nothing smaller is cloned.
const WORTH_ASKING: u64 = 64 << 10;

impl Store {
    /// Looks at every file.
    pub(crate) fn disk_usage(&self) -> Result<DiskUsage> {
        let mut counting = Counting {
            usage: DiskUsage::default(),
            several_names: HashSet::new(),
            shared: Shared::default(),
            // Its files share no blocks.
            asks: !space::is_ext4(&self.root.dir),
        };
        counting.directory(&self.root.dir, None)?;
        Ok(counting.usage)
    }
}

struct Counting {
    usage: DiskUsage,
    /// Inodes with several names that were counted.
    several_names: HashSet<(u64, u64)>,
    shared: Shared,
    asks: bool,
}

impl Counting {
    /// Counts what is in a directory; `top` is the one below the root that it is in. What goes meanwhile is not counted.
    fn directory(&mut self, dir: &Dir, top: Option<&OsStr>) -> Result<()> {
        for name in dir.names()? {
            let stat = dir.stat_if_any(&name).at("examine", dir.path_of(&name))?;
            let Some(stat) = stat else { continue };
            let top = top.unwrap_or(&name);
            match stat.kind {
                Kind::File => self.file(dir, &name, top, &stat)?,
                Kind::Directory => {
                    let other = &mut self.usage.other_bytes;
                    *other = total([*other, stat.allocated]);
                    match dir.open_dir(&name) {
                        Err(error) if error.kind() == crate::ErrorKind::NotFound => {}
                        inner => self.directory(&inner?, Some(top))?,
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn file(&mut self, dir: &Dir, name: &OsStr, top: &OsStr, stat: &Stat) -> Result<()> {
        if stat.nlink > 1 && !self.several_names.insert(stat.identity()) {
            return Ok(());
        }
        let mut bytes = stat.allocated;
        if self.asks
            && bytes >= WORTH_ASKING
            // Who holds a lease on it, or has removed it, keeps it from being asked: it counts in full.
            && let Ok(file) = dir.open_file(name)
        {
            for range in shared(&file).at("examine", dir.path_of(name))? {
                let length = range.end - range.start;
                bytes = bytes.saturating_sub(length - self.shared.add(range));
            }
        }
        let of = self.usage.of(top, name);
        *of = total([*of, bytes]);
        Ok(())
    }
}

/// Places on the disk that were counted: where each begins, and where it ends.
#[derive(Default)]
struct Shared(BTreeMap<u64, u64>);

impl Shared {
    /// Adds one, and says how many bytes of it are new.
    fn add(&mut self, range: Range<u64>) -> u64 {
        let (mut start, mut end) = (range.start, range.end);
        let mut known = 0;
        while let Some((at, until)) = self.0.range(..=end).next_back() {
            let (at, until) = (*at, *until);
            if until < start {
                break;
            }
            self.0.remove(&at);
            known += until.min(range.end).saturating_sub(at.max(range.start));
            (start, end) = (start.min(at), end.max(until));
        }
        self.0.insert(start, end);
        (range.end - range.start) - known
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_byte_is_new_once(ranges in prop::collection::vec((0..200_u64, 1..50_u64), 0..60)) {
            let (mut shared, mut seen) = (Shared::default(), HashSet::new());
            for (start, length) in ranges {
                let fresh = (start..start + length).filter(|byte| seen.insert(*byte)).count();
                prop_assert_eq!(shared.add(start..start + length), fresh as u64);
            }
        }
    }
}

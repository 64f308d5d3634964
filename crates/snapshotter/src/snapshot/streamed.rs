//! A snapshot of one file that somebody writes to a pipe: its bytes go to staging as they come, and what is made there is the blob.

use std::fs::File;
use std::io::Read;
use std::sync::Mutex;

use super::opened::{Contents, Given};
use super::planned::{Plan, PlannedFile};
use crate::activity::Activity;
use crate::format::document::{Content, FileEntry};
use crate::fs::{Stat, attributes, end};
use crate::lock::lock;
use crate::store::{Slot, Store};
use crate::words::entry::Attributes;
use crate::words::error::{At, Result};
use crate::words::relpath::RelPath;

/// Files that are made for others have this mode.
const MODE: u32 = 0o644;

/// A file that was read to its end.
pub(super) struct Streamed<'s> {
    file: File,
    slot: Mutex<Option<Slot<'s>>>,
    entry: FileEntry,
}

impl<'s> Streamed<'s> {
    /// Reads all of it. Blocks for as long as its writer does.
    pub(super) fn receive(
        store: &'s Store,
        path: RelPath,
        from: impl Read,
        activity: &Activity,
    ) -> Result<Self> {
        let (slot, file) = store.create_slot()?;
        let written = end::copy_to_end(from, &file, &|_| activity.advance(0));
        activity.check()?;
        let size = written.at("capture", path.as_path())?;
        let stat = Stat::of_file(&file).at("examine", path.as_path())?;
        let attributes = Attributes {
            mode: MODE,
            ..attributes::of_stat(&stat)
        };
        let entry = FileEntry {
            path,
            content: Content::SHORTEST,
            read_only: false,
            size,
            attributes,
            hardlink_of: None,
        };
        Ok(Self {
            file,
            slot: Mutex::new(Some(slot)),
            entry,
        })
    }

    pub(super) fn plan(&self) -> Plan {
        Plan {
            files: vec![PlannedFile::of(&self.entry, self.entry.size)],
            ..Plan::default()
        }
    }
}

impl Contents for Streamed<'_> {
    fn open(&self, path: &RelPath) -> Result<Given<'_>> {
        let slot = lock(&self.slot).take();
        Ok(Given {
            file: self.file.try_clone().at("open", path.as_path())?,
            slot,
            attributes: self.entry.attributes.clone(),
        })
    }
}

//! What `--dry-run` answers.

use std::io;

use serde::Serialize;
use snapshotter::{EntryKind, PlannedEntry, SnapshotPlan};

use crate::answer::Document;
use crate::output::Page;
use crate::output::human::{bytes, count};
use crate::output::json::{Called, Relative};

/// What would be taken.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    dry_run: bool,
    #[serde(flatten)]
    reference: Called,
    exists: bool,
    files: u64,
    directories: u64,
    symlinks: u64,
    whiteouts: u64,
    logical_bytes: u64,
    data_bytes: u64,
    entries: Vec<Entry>,
}

impl Planned {
    /// From the library's.
    pub fn new(plan: SnapshotPlan) -> Self {
        Self {
            dry_run: true,
            reference: Called::new(&plan.reference),
            exists: plan.exists,
            files: plan.files,
            directories: plan.directories,
            symlinks: plan.symlinks,
            whiteouts: plan.whiteouts,
            logical_bytes: plan.logical_bytes,
            data_bytes: plan.data_bytes,
            entries: plan.entries.iter().map(Entry::new).collect(),
        }
    }
}

impl Document for Planned {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        write_entries(page, &self.entries)?;
        writeln!(
            page.out,
            "{} would have {}, about {} of data. Nothing was taken.",
            self.reference,
            count(self.files, "file"),
            bytes(self.data_bytes)
        )
    }
}

/// A path of a plan.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    #[serde(flatten)]
    path: Relative,
    kind: &'static str,
    read_only: bool,
    size_bytes: u64,
}

impl Entry {
    /// From the library's.
    pub fn new(entry: &PlannedEntry) -> Self {
        Self {
            path: Relative::new(&entry.path),
            kind: match entry.kind {
                EntryKind::Directory => "directory",
                EntryKind::Symlink => "symlink",
                EntryKind::Whiteout => "whiteout",
                _ => "file",
            },
            read_only: entry.read_only,
            size_bytes: entry.size,
        }
    }
}

/// Writes a plan's paths, one a line.
pub fn write_entries(page: &mut Page<'_>, entries: &[Entry]) -> io::Result<()> {
    for entry in entries {
        let size = if entry.kind == "file" {
            bytes(entry.size_bytes)
        } else {
            entry.kind.to_owned()
        };
        let read_only = if entry.read_only { "read-only" } else { "" };
        writeln!(
            page.out,
            "{size:>10}  {read_only:<9}  {}",
            entry.path.shown()
        )?;
    }
    Ok(())
}

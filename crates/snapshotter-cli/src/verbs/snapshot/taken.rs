//! What is told of a snapshot that was taken.

use std::io;

use serde::Serialize;
use snapshotter::{Format, PagedReport, ParentChosen, ParentReport, SnapshotReport};

use crate::answer::Document;
use crate::output::Page;
use crate::output::human::{self, bytes, count};
use crate::output::json::{Called, Placed};
use crate::verbs::push::Published;

/// A snapshot that was taken.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Taken {
    #[serde(flatten)]
    reference: Called,
    manifest_digest: String,
    format: &'static str,
    files: u64,
    directories: u64,
    symlinks: u64,
    whiteouts: u64,
    logical_bytes: u64,
    data_bytes: u64,
    stored_bytes: u64,
    blobs_stored: u64,
    blobs_reused: u64,
    placements: Placed,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    paged: Option<Paged>,
    publication: Option<Published>,
    duration_seconds: f64,
}

impl Taken {
    /// From the library's.
    pub fn new(report: &SnapshotReport) -> Self {
        Self {
            reference: Called::new(&report.reference),
            manifest_digest: report.manifest_digest.to_string(),
            format: match report.paged {
                Some(_) => Format::V2.as_str(),
                None => Format::V1.as_str(),
            },
            files: report.files,
            directories: report.directories,
            symlinks: report.symlinks,
            whiteouts: report.whiteouts,
            logical_bytes: report.logical_bytes,
            data_bytes: report.data_bytes,
            stored_bytes: report.stored_bytes,
            blobs_stored: report.blobs_stored,
            blobs_reused: report.blobs_reused,
            placements: report.placements.into(),
            paged: report.paged.as_ref().map(Paged::new),
            publication: report.publication.as_ref().map(Published::new),
            duration_seconds: report.duration.as_secs_f64(),
        }
    }
}

impl Document for Taken {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        if page.quiet {
            return Ok(());
        }
        page.heading(&self.reference, &self.manifest_digest)?;
        let duration = human::duration(std::time::Duration::from_secs_f64(self.duration_seconds));
        writeln!(
            page.out,
            "  {}, {} of data, {} new to the store, in {duration}",
            count(self.files, "file"),
            bytes(self.data_bytes),
            bytes(self.stored_bytes)
        )?;
        match &self.paged {
            Some(paged) => paged.text(page)?,
            None if self.files > 0 => writeln!(page.out, "  {}", self.placements.shown())?,
            None => {}
        }
        match &self.publication {
            Some(published) => writeln!(page.out, "  published to {}", published.shown()),
            None => Ok(()),
        }
    }
}

/// What one of format v2 took over and stored.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Paged {
    parent: Option<Parent>,
    changed_pages: u64,
    changed_bytes: u64,
    reused_pages: u64,
    reused_bytes: u64,
    inherited_bytes: u64,
    stored_pages: u64,
    packs: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Parent {
    #[serde(flatten)]
    reference: Called,
    manifest_digest: String,
    chosen: &'static str,
}

impl Paged {
    fn new(report: &PagedReport) -> Self {
        Self {
            parent: report.parent.as_ref().map(Parent::new),
            changed_pages: report.changed_pages,
            changed_bytes: report.changed_bytes,
            reused_pages: report.reused_pages,
            reused_bytes: report.reused_bytes,
            inherited_bytes: report.inherited_bytes,
            stored_pages: report.stored_pages,
            packs: report.packs,
        }
    }

    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        let changed = count(self.changed_pages, "page");
        let changed = format!("{changed} ({})", bytes(self.changed_bytes));
        match &self.parent {
            Some(parent) => writeln!(page.out, "  {changed} changed since {}", parent.shown())?,
            None => writeln!(page.out, "  {changed} of data, compared with no snapshot")?,
        }
        if self.inherited_bytes > 0 {
            let inherited = bytes(self.inherited_bytes);
            writeln!(
                page.out,
                "  {inherited} as the parent has it, which was not read"
            )?;
        }
        writeln!(
            page.out,
            "  {} ({}) there already, {} stored; {}",
            count(self.reused_pages, "page"),
            bytes(self.reused_bytes),
            count(self.stored_pages, "page"),
            count(self.packs, "pack")
        )
    }
}

impl Parent {
    fn new(report: &ParentReport) -> Self {
        Self {
            reference: Called::new(&report.reference),
            manifest_digest: report.manifest_digest.to_string(),
            chosen: report.chosen.as_str(),
        }
    }

    fn shown(&self) -> String {
        let why = match self.chosen {
            chosen if chosen == ParentChosen::Origin.as_str() => ", what the directory came from",
            chosen if chosen == ParentChosen::Latest.as_str() => ", the newest of its name",
            _ => "",
        };
        format!("{}{why}", self.reference)
    }
}

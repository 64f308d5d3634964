//! `snapshotter df`.

use std::io;

use serde::Serialize;
use snapshotter::{DiskUsage, ErrorKind, SnapshotUsage, Snapshotter, UsageDetails};

use crate::answer::{Answer, Document};
use crate::context::Context;
use crate::failure::Result;
use crate::output::human::{self, bytes, count};
use crate::output::json::{Called, Named};
use crate::output::{Align, Page, Table};

/// Shows what the store holds, by snapshot, and what its filesystem can still take
///
/// On disk is what the filesystem has allocated for the root, each inode once, and blocks that its files share once.
/// What is shared with other snapshots comes free with the last of them. Reclaimable is what `snapshotter gc` could free:
/// nothing of what is pinned, in use, young or only here, and nothing that has another name elsewhere.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  snapshotter df
  snapshotter df --json | jq .availableBytes")]
pub struct Args {}

/// Runs it.
pub fn run(context: &Context, _: &Args) -> Result<Answer> {
    context.require_store()?;
    // What is configured in no way that works has nothing: what is here can be looked at all the same.
    let used = match context.with_store_and_remote(details) {
        Err(failure) if failure.kind == ErrorKind::InvalidInput => context.with_store(details)?,
        used => used?,
    };
    let root = human::path(&context.root());
    let space = Space::new(root, Named::new(&context.root()), &used.value);
    Ok(Answer::new(space).with_warnings(used.warnings))
}

async fn details(store: &Snapshotter) -> Result<UsageDetails> {
    Ok(store.usage_details().await?)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Space {
    root: Named,
    snapshots: u64,
    logical_bytes: u64,
    data_bytes: u64,
    blobs: u64,
    packs: u64,
    stored_bytes: u64,
    cache_entries: u64,
    cache_bytes: u64,
    allocated_bytes: u64,
    allocated: Allocated,
    reclaimable_bytes: u64,
    filesystem_bytes: u64,
    available_bytes: u64,
    by_snapshot: Vec<One>,
    #[serde(skip)]
    shown_root: String,
}

/// What the root takes on the disk.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Allocated {
    blob_bytes: u64,
    pack_bytes: u64,
    cache_bytes: u64,
    page_list_bytes: u64,
    catalog_bytes: u64,
    quarantine_bytes: u64,
    other_bytes: u64,
}

impl Allocated {
    fn new(disk: &DiskUsage) -> Self {
        Self {
            blob_bytes: disk.blob_bytes,
            pack_bytes: disk.pack_bytes,
            cache_bytes: disk.cache_bytes,
            page_list_bytes: disk.page_list_bytes,
            catalog_bytes: disk.catalog_bytes,
            quarantine_bytes: disk.quarantine_bytes,
            other_bytes: disk.other_bytes,
        }
    }

    /// For people: what there is of it.
    fn shown(&self) -> String {
        let parts = [
            ("blobs", self.blob_bytes),
            ("packs", self.pack_bytes),
            ("cache", self.cache_bytes),
            ("page lists", self.page_list_bytes),
            ("catalog", self.catalog_bytes),
            ("quarantine", self.quarantine_bytes),
            ("other", self.other_bytes),
        ];
        let there = parts.into_iter().filter(|(_, part)| *part > 0);
        let shown: Vec<_> = there
            .map(|(name, part)| format!("{name} {}", bytes(part)))
            .collect();
        shown.join(", ")
    }
}

/// What one snapshot costs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct One {
    #[serde(flatten)]
    reference: Called,
    logical_bytes: u64,
    shared_bytes: u64,
    exclusive_bytes: u64,
    kept: Option<&'static str>,
}

impl One {
    fn new(usage: &SnapshotUsage) -> Self {
        Self {
            reference: Called::new(&usage.reference),
            logical_bytes: usage.logical_bytes,
            shared_bytes: usage.shared_bytes,
            exclusive_bytes: usage.exclusive_bytes,
            kept: usage.kept.map(snapshotter::KeptFor::as_str),
        }
    }

    /// For people.
    fn shown_kept(&self) -> &'static str {
        match self.kept {
            Some("in_use") => "in use",
            Some("recent") => "used lately",
            Some("only_copy") => "only here",
            Some(other) => other,
            None => "",
        }
    }
}

impl Space {
    fn new(shown_root: String, root: Named, details: &UsageDetails) -> Self {
        let usage = &details.usage;
        Self {
            root,
            snapshots: usage.snapshots,
            logical_bytes: usage.logical_bytes,
            data_bytes: usage.data_bytes,
            blobs: usage.blobs,
            packs: usage.packs,
            stored_bytes: usage.stored_bytes,
            cache_entries: usage.cache_entries,
            cache_bytes: usage.cache_bytes,
            allocated_bytes: details.disk.total(),
            allocated: Allocated::new(&details.disk),
            reclaimable_bytes: details.reclaimable_bytes,
            by_snapshot: details.snapshots.iter().map(One::new).collect(),
            filesystem_bytes: usage.filesystem_bytes,
            available_bytes: usage.available_bytes,
            shown_root,
        }
    }
}

impl Document for Space {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        let rows = [
            ("root", self.shown_root.clone(), String::new()),
            ("snapshots", self.snapshots.to_string(), String::new()),
            (
                "size",
                bytes(self.logical_bytes),
                "of all files, with holes".to_owned(),
            ),
            ("data", bytes(self.data_bytes), "in them".to_owned()),
            (
                "stored",
                bytes(self.stored_bytes),
                match self.packs {
                    0 => format!(
                        "in {}: equal bytes are kept once",
                        count(self.blobs, "blob")
                    ),
                    packs => format!(
                        "in {} and {}",
                        count(self.blobs, "blob"),
                        count(packs, "pack")
                    ),
                },
            ),
            (
                "on disk",
                bytes(self.allocated_bytes),
                self.allocated.shown(),
            ),
            (
                "reclaimable",
                bytes(self.reclaimable_bytes),
                "by gc".to_owned(),
            ),
            (
                "available",
                bytes(self.available_bytes),
                format!("of {}", bytes(self.filesystem_bytes)),
            ),
        ];
        let cached = (
            "cached",
            bytes(self.cache_bytes),
            format!(
                "in {} files for restores, given up first",
                self.cache_entries
            ),
        );
        let cached = (self.cache_entries > 0).then_some(cached);
        let (before, after) = rows.split_at(5);
        for (name, value, note) in before.iter().chain(cached.as_ref()).chain(after) {
            writeln!(
                page.out,
                "{}",
                format!("{name:<12} {value:<10}  {note}").trim_end()
            )?;
        }
        self.write_snapshots(page)
    }
}

impl Space {
    fn write_snapshots(&self, page: &mut Page<'_>) -> io::Result<()> {
        if page.quiet || self.by_snapshot.is_empty() {
            return Ok(());
        }
        let mut table = Table::new([
            ("SNAPSHOT", Align::Left),
            ("SIZE", Align::Right),
            ("SHARED", Align::Right),
            ("EXCLUSIVE", Align::Right),
            ("KEPT", Align::Left),
        ]);
        for one in &self.by_snapshot {
            table.row(&[
                &one.reference,
                &bytes(one.logical_bytes),
                &bytes(one.shared_bytes),
                &bytes(one.exclusive_bytes),
                &one.shown_kept(),
            ]);
        }
        writeln!(page.out)?;
        table.write(page.out)
    }
}

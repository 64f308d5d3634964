//! `snapshotter df`.

use std::io;

use serde::Serialize;
use snapshotter::Usage;

use crate::answer::{Answer, Document};
use crate::context::Context;
use crate::failure::Result;
use crate::output::Page;
use crate::output::human::{self, bytes};
use crate::output::json::Named;

/// Shows how much the store holds and what its filesystem can still take
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  snapshotter df
  snapshotter df --json | jq .availableBytes")]
pub struct Args {}

/// Runs it.
pub fn run(context: &Context, _: &Args) -> Result<Answer> {
    context.require_store()?;
    let used = context.with_store(async |store| Ok(store.usage().await?))?;
    let root = human::path(context.root());
    let space = Space::new(root, Named::new(context.root()), used.value);
    Ok(Answer::new(space).with_warnings(used.warning))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Space {
    root: Named,
    snapshots: u64,
    logical_bytes: u64,
    data_bytes: u64,
    blobs: u64,
    stored_bytes: u64,
    filesystem_bytes: u64,
    available_bytes: u64,
    #[serde(skip)]
    shown_root: String,
}

impl Space {
    fn new(shown_root: String, root: Named, usage: Usage) -> Self {
        Self {
            root,
            snapshots: usage.snapshots,
            logical_bytes: usage.logical_bytes,
            data_bytes: usage.data_bytes,
            blobs: usage.blobs,
            stored_bytes: usage.stored_bytes,
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
                format!("in {} blobs: equal bytes are kept once", self.blobs),
            ),
            (
                "available",
                bytes(self.available_bytes),
                format!("of {}", bytes(self.filesystem_bytes)),
            ),
        ];
        for (name, value, note) in rows {
            writeln!(
                page.out,
                "{}",
                format!("{name:<10} {value:<10}  {note}").trim_end()
            )?;
        }
        Ok(())
    }
}

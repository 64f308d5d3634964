//! `snapshotter pin` and `snapshotter unpin`. All references are looked up before the first is changed.

use std::io;

use serde::Serialize;
use snapshotter::{Reference, SnapshotSummary, Snapshotter};

use crate::answer::{Answer, Document};
use crate::context::Context;
use crate::failure::Result;
use crate::hints;
use crate::output::Page;
use crate::output::json::Called;

/// Keeps snapshots from garbage collection, whatever it is told to include
///
/// `snapshotter remove` removes them all the same. `snapshotter list -v` shows which are pinned.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  snapshotter pin vm:golden")]
pub struct Args {
    /// The snapshots: NAME:VERSION
    #[arg(value_name = "REFERENCE", required = true)]
    references: Vec<String>,
}

/// Lets garbage collection have snapshots again
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  snapshotter unpin vm:golden")]
pub struct UnpinArgs {
    /// The snapshots: NAME:VERSION
    #[arg(value_name = "REFERENCE", required = true)]
    references: Vec<String>,
}

/// Runs `pin`.
pub fn pin(context: &Context, args: &Args) -> Result<Answer> {
    set(context, &args.references, true)
}

/// Runs `unpin`.
pub fn unpin(context: &Context, args: &UnpinArgs) -> Result<Answer> {
    set(context, &args.references, false)
}

fn set(context: &Context, references: &[String], pinned: bool) -> Result<Answer> {
    let command = if pinned {
        "pin NAME:VERSION"
    } else {
        "unpin NAME:VERSION"
    };
    let parse = |text: &String| hints::reference(text, command);
    let references: Vec<Reference> = references.iter().map(parse).collect::<Result<_>>()?;
    context.require_store()?;
    let changed = context.with_store(async |store| {
        for reference in &references {
            if let Err(error) = store.find(reference).await {
                return Err(hints::what_is_there(store, error.into()).await);
            }
        }
        let mut changed = Vec::new();
        for reference in &references {
            changed.push(change(store, reference, pinned).await?);
        }
        Ok(changed)
    })?;
    let pins = Pins {
        snapshots: changed.value.iter().map(Pin::new).collect(),
    };
    Ok(Answer::new(pins).with_warnings(changed.warnings))
}

async fn change(
    store: &Snapshotter,
    reference: &Reference,
    pinned: bool,
) -> Result<SnapshotSummary> {
    let changed = if pinned {
        store.pin(reference).await
    } else {
        store.unpin(reference).await
    };
    Ok(changed?)
}

#[derive(Serialize)]
struct Pins {
    snapshots: Vec<Pin>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pin {
    #[serde(flatten)]
    reference: Called,
    manifest_digest: String,
    pinned: bool,
}

impl Pin {
    fn new(summary: &SnapshotSummary) -> Self {
        Self {
            reference: Called::new(&summary.reference),
            manifest_digest: summary.manifest_digest.to_string(),
            pinned: summary.pinned,
        }
    }
}

impl Document for Pins {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        if page.quiet {
            return Ok(());
        }
        self.snapshots.iter().try_for_each(|one| {
            let what = if one.pinned { "pinned" } else { "not pinned" };
            writeln!(page.out, "{} is {what}", one.reference)
        })
    }
}

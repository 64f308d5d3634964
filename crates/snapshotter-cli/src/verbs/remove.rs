//! `snapshotter remove`. All references are looked up before the first snapshot is removed, so a misspelt one removes
//! nothing.

mod remote;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;

use serde::Serialize;
use snapshotter::{Reference, RemoveReport, Snapshotter};

use crate::answer::{Answer, Document};
use crate::context::{Closed, Context};
use crate::failure::{Failure, Result};
use crate::hints;
use crate::output::human::{bytes, count};
use crate::output::json::{self, Called, Warning};
use crate::output::{Page, total};

/// Removes snapshots, and the bytes nothing else needs
///
/// Nothing is removed unless all of them are there. What is being restored loses its name at once and its bytes when the
/// restore ends.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  snapshotter remove vm:v1 vm:v2
  snapshotter remove vm:v1 --dry-run
      only show what would be given back
  snapshotter remove --remote vm:v1
      in the configured registry; what is here stays")]
pub struct Args {
    /// The snapshots: NAME:VERSION
    #[arg(value_name = "REFERENCE", required = true)]
    references: Vec<String>,
    /// Only show what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Remove them from the configured registry, and not here
    ///
    /// That deletes the manifest, and so every version there that is the same snapshot. The bytes stay, because other
    /// snapshots may need them.
    #[arg(long)]
    remote: bool,
}

/// Runs it.
pub fn run(context: &Context, args: &Args) -> Result<Answer> {
    let parse = |text: &String| hints::reference(text, "remove NAME:VERSION");
    let references: Vec<Reference> = args.references.iter().map(parse).collect::<Result<_>>()?;
    if args.remote {
        return remote::run(context, &references, args.dry_run);
    }
    context.require_store()?;
    let done = RefCell::new(Vec::new());
    let closed = context.with_store(async |store| {
        let planned = plan(store, &references).await?;
        if args.dry_run {
            done.replace(planned);
            return Ok(());
        }
        for report in planned {
            let exactly = report.reference.with_digest(report.manifest_digest);
            let removed = store.remove(&exactly).await?;
            done.borrow_mut().push(removed);
        }
        Ok(())
    });
    let done = done.into_inner();
    let (warnings, failure) = unless_nothing_done(done.is_empty(), closed)?;
    let document = Removed::new(args.dry_run, &done, failure.as_ref());
    let left = done.into_iter().flat_map(|report| report.warnings);
    Ok(Answer::new(document)
        .with_warnings(left.map(Warning::from))
        .with_warnings(warnings)
        .with_failure(failure))
}

/// What failed, or was stopped, when some of it was done, is told beside what was: nobody could find out otherwise.
fn unless_nothing_done(
    nothing_done: bool,
    closed: Result<Closed<()>>,
) -> Result<(Vec<Warning>, Option<Failure>)> {
    match closed {
        Ok(closed) => Ok((closed.warnings, None)),
        Err(failure) if nothing_done => Err(failure),
        Err(failure) => Ok((Vec::new(), Some(failure))),
    }
}

/// Each snapshot once, whatever it was called.
async fn plan(store: &Snapshotter, references: &[Reference]) -> Result<Vec<RemoveReport>> {
    let mut seen = BTreeSet::new();
    let mut planned = Vec::new();
    for reference in references {
        match store.plan_removal(reference).await {
            Ok(report) => {
                if seen.insert(report.reference.clone()) {
                    planned.push(report);
                }
            }
            Err(error) => return Err(hints::what_is_there(store, error.into()).await),
        }
    }
    Ok(planned)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Removed {
    dry_run: bool,
    removed: Vec<One>,
    blobs_removed: u64,
    freed_bytes: u64,
    /// What the others could not be removed for.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<serde_json::Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct One {
    #[serde(flatten)]
    reference: Called,
    manifest_digest: String,
    blobs_removed: u64,
    freed_bytes: u64,
}

impl Removed {
    fn new(dry_run: bool, reports: &[RemoveReport], failure: Option<&Failure>) -> Self {
        Self {
            error: failure.map(json::error),
            dry_run,
            removed: reports.iter().map(One::new).collect(),
            blobs_removed: reports.iter().map(|report| report.blobs_removed).sum(),
            freed_bytes: total(reports.iter().map(|report| report.freed_bytes)),
        }
    }
}

impl One {
    fn new(report: &RemoveReport) -> Self {
        Self {
            reference: Called::new(&report.reference),
            manifest_digest: report.manifest_digest.to_string(),
            blobs_removed: report.blobs_removed,
            freed_bytes: report.freed_bytes,
        }
    }
}

impl Document for Removed {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        if page.quiet && !self.dry_run {
            return Ok(());
        }
        let (verb, freed) = if self.dry_run {
            ("would remove", "at least ")
        } else {
            ("removed", "")
        };
        for one in &self.removed {
            writeln!(
                page.out,
                "{verb} {}: {freed}{} freed in {}",
                one.reference,
                bytes(one.freed_bytes),
                count(one.blobs_removed, "blob")
            )?;
        }
        Ok(())
    }
}

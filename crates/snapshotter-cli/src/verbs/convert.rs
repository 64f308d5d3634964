//! `snapshotter convert`.

use std::io;

use serde::Serialize;
use snapshotter::{Compression, ConvertReport, ConvertRequest, ErrorKind, Format, Snapshotter};

use super::snapshot::{Taken, exists, said};
use crate::answer::{Answer, Document};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::hints;
use crate::output::Page;
use crate::output::human;
use crate::output::json::Warning;

/// Keeps a snapshot in another format too
///
/// The new one has the same files with the same bytes and attributes, and the old one stays. It takes no privileges and restores
/// nothing. All that is read is verified. The new one is here alone; `snapshotter push` publishes it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  snapshotter convert vm:v1 vm:v1-pages --format v2
      the next `snapshot --format v2 --parent vm:v1-pages` stores what has changed since vm:v1
  snapshotter convert vm:v7 vm:v7-files --format v1
      what the Go library can read, and `push` publishes
  snapshotter convert vm:v1 vm:v1 --format v2 --force
      in the place of the old one")]
pub struct Args {
    /// The snapshot: NAME:VERSION
    reference: String,
    /// What to call the new one: NAME:VERSION
    new: String,
    /// How to keep it: v1 file by file, v2 in pages
    #[arg(long, value_name = "FORMAT", value_parser = said::<Format>)]
    format: Format,
    /// How to compress the pages of format v2: none, or zstd:1 to zstd:19 [default: zstd:1]
    #[arg(long, value_name = "HOW", value_parser = said::<Compression>)]
    compression: Option<Compression>,
    /// Replace the new version if it exists
    #[arg(long)]
    force: bool,
}

/// Runs it.
pub fn run(context: &Context, args: &Args) -> Result<Answer> {
    let command = "convert NAME:VERSION NAME:VERSION --format v2";
    let reference = hints::reference(&args.reference, command)?;
    let new = hints::new_reference(&args.new, command)?;
    let defaults = &context.settings.draft.snapshot;
    let version = new.version().unwrap_or_default();
    let request = ConvertRequest::new(reference, new.name(), version, args.format)
        .compression(args.compression.unwrap_or(defaults.compression))
        .frame_pages(defaults.frame_pages)
        .force(args.force);
    context.require_store()?;
    let converted = context.with_store(async |store| {
        let progress = context.progress(&new.to_string());
        let observed = store.observed_by(progress.observer());
        match observed.convert(&request).await {
            Ok(report) => Ok(report),
            Err(error) => Err(explain(store, error.into()).await),
        }
    })?;
    let report = converted.value;
    let warnings = report.snapshot.warnings.iter().cloned().map(Warning::from);
    let warnings: Vec<_> = warnings.chain(converted.warnings).collect();
    Ok(Answer::new(Converted::new(&report)).with_warnings(warnings))
}

async fn explain(store: &Snapshotter, failure: Failure) -> Failure {
    match failure.kind {
        ErrorKind::AlreadyExists => exists(failure),
        _ => hints::what_is_there(store, failure).await,
    }
}

#[derive(Serialize)]
struct Converted {
    source: String,
    #[serde(flatten)]
    taken: Taken,
}

impl Converted {
    fn new(report: &ConvertReport) -> Self {
        Self {
            source: report.source.to_string(),
            taken: Taken::new(&report.snapshot),
        }
    }
}

impl Document for Converted {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        self.taken.text(page)?;
        if page.quiet {
            return Ok(());
        }
        let source = human::without_digest(&self.source);
        writeln!(page.out, "  converted from {source}")
    }
}

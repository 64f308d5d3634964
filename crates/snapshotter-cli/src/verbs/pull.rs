//! `snapshotter pull`.

use std::io;
use std::time::Duration;

use serde::Serialize;
use snapshotter::{PullReport, PullRequest, Reference, Snapshotter};

use super::push::object;
use crate::answer::{Answer, Document};
use crate::context::Context;
use crate::failure::Result;
use crate::hints;
use crate::output::Page;
use crate::output::human::{self, bytes, count};
use crate::output::json::{Called, Warning};

/// Fetches snapshots and makes no files of them
///
/// A later restore finds everything here. What the store has is not fetched; of a snapshot that is here, what is damaged or
/// missing is fetched again, and whether its name is another snapshot's in the registry by now is looked up (warning `moved`;
/// `unchecked` where the registry is out of reach).
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  snapshotter pull vm:v1
      `snapshotter restore` does the same, and then makes files
  snapshotter pull vm:v1@sha256:…
      that snapshot and no other, whatever vm:v1 is by now
  snapshotter pull --update vm:latest
      whatever vm:latest is by now, in place of what it was")]
pub struct Args {
    /// The snapshots: NAME:VERSION
    #[arg(value_name = "REFERENCE", required = true)]
    references: Vec<String>,
    /// Take what the registry has under this name by now
    ///
    /// The snapshot that had the name here is called by its digest from then on, NAME:sha256-…, and goes when `gc` finds that it
    /// is elsewhere. One that is pinned or not published keeps its name: that is an error (exit code 4).
    #[arg(long)]
    update: bool,
}

/// Runs it.
pub fn run(context: &Context, args: &Args) -> Result<Answer> {
    let parse = |text: &String| hints::reference(text, "pull NAME:VERSION");
    let references: Vec<Reference> = args.references.iter().map(parse).collect::<Result<_>>()?;
    context.require_registry()?;
    let pulled = context.with_store_and_remote(async |store| {
        let mut reports = Vec::new();
        for reference in references {
            reports.push(pull(context, store, reference, args.update).await?);
        }
        Ok(reports)
    })?;
    let warnings = pulled.value.iter().flat_map(|report| &report.warnings);
    let warnings: Vec<_> = warnings.cloned().map(Warning::from).collect();
    let pulled_all = Pulled {
        pulled: pulled.value.iter().map(One::new).collect(),
    };
    Ok(Answer::new(pulled_all).with_warnings(warnings.into_iter().chain(pulled.warnings)))
}

/// Fetches one.
pub async fn pull(
    context: &Context,
    store: &Snapshotter,
    reference: Reference,
    update: bool,
) -> Result<PullReport> {
    let progress = context.progress(&reference.to_string());
    let observed = store.observed_by(progress.observer());
    let pulled = observed
        .pull(&PullRequest::new(reference).update(update))
        .await;
    pulled.map_err(|error| hints::on_the_way(error.into()))
}

#[derive(Serialize)]
struct Pulled {
    pulled: Vec<One>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct One {
    #[serde(flatten)]
    reference: Called,
    manifest_digest: String,
    replaced: Option<String>,
    kept_as: Option<String>,
    format: &'static str,
    files: u64,
    logical_bytes: u64,
    data_bytes: u64,
    fetched_blobs: u64,
    fetched_bytes: u64,
    reused_blobs: u64,
    duration_seconds: f64,
}

impl One {
    fn new(report: &PullReport) -> Self {
        Self {
            reference: Called::new(&report.reference),
            manifest_digest: report.manifest_digest.to_string(),
            replaced: report.replaced.map(|digest| digest.to_string()),
            kept_as: report.kept_as.as_ref().map(Reference::to_string),
            format: report.format.as_str(),
            files: report.files,
            logical_bytes: report.logical_bytes,
            data_bytes: report.data_bytes,
            fetched_blobs: report.fetched_blobs,
            fetched_bytes: report.fetched_bytes,
            reused_blobs: report.reused_blobs,
            duration_seconds: report.duration.as_secs_f64(),
        }
    }
}

impl Document for Pulled {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        if page.quiet {
            return Ok(());
        }
        for one in &self.pulled {
            page.heading(&one.reference, &one.manifest_digest)?;
            let duration = human::duration(Duration::from_secs_f64(one.duration_seconds));
            writeln!(
                page.out,
                "  {}, {} of data, {} ({}) fetched, {} here already, in {duration}",
                count(one.files, "file"),
                bytes(one.data_bytes),
                count(one.fetched_blobs, object(one.format)),
                bytes(one.fetched_bytes),
                one.reused_blobs
            )?;
            if let Some(kept_as) = &one.kept_as {
                writeln!(page.out, "  what had this name is {kept_as} now")?;
            }
        }
        Ok(())
    }
}

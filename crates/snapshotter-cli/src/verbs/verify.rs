//! `snapshotter verify`.

use std::io;
use std::time::Duration;

use serde::Serialize;
use snapshotter::{BadBlob, ErrorKind, Reference, VerifyReport, VerifyRequest};

use crate::answer::{Answer, Document};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::hints;
use crate::output::human::{self, bytes, count};
use crate::output::{GOOD, Page, STRONG};

/// Reads everything that is stored and sees whether it is what it was
///
/// Without a reference the whole store is checked, and what interrupted commands left there is swept. Exits with 5 if
/// anything is damaged or missing.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  snapshotter verify
      the whole store
  snapshotter verify vm:v1
      what one snapshot needs")]
pub struct Args {
    /// The snapshots to check: NAME:VERSION [default: the whole store]
    #[arg(value_name = "REFERENCE")]
    references: Vec<String>,
}

/// Runs it.
pub fn run(context: &Context, args: &Args) -> Result<Answer> {
    let parse = |text: &String| hints::reference(text, "verify NAME:VERSION");
    let references: Vec<Reference> = args.references.iter().map(parse).collect::<Result<_>>()?;
    context.require_store()?;
    let request = references
        .into_iter()
        .fold(VerifyRequest::all(), VerifyRequest::reference);
    let verified = context.with_store(async |store| {
        let progress = context.progress("verify");
        if request.references.is_empty() {
            let usage = store.usage().await?;
            progress.expect(usage.blobs, usage.stored_bytes);
        } else {
            progress.expect(0, 0);
        }
        let observed = store.observed_by(progress.observer());
        match observed.verify(&request).await {
            Ok(report) => Ok(report),
            Err(error) => {
                drop(progress);
                Err(hints::what_is_there(store, error.into()).await)
            }
        }
    })?;
    let report = Verified::new(&verified.value);
    let failure = report.failure();
    Ok(Answer::new(report)
        .with_warnings(verified.warning)
        .with_failure(failure))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Verified {
    checked_blobs: u64,
    checked_bytes: u64,
    damaged: Vec<Bad>,
    missing: Vec<Bad>,
    mended: u64,
    swept_names: u64,
    duration_seconds: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bad {
    digest: String,
    checksum: String,
    size_bytes: u64,
    snapshots: Vec<String>,
}

impl Verified {
    fn new(report: &VerifyReport) -> Self {
        Self {
            checked_blobs: report.checked_blobs,
            checked_bytes: report.checked_bytes,
            damaged: report.damaged.iter().map(Bad::new).collect(),
            missing: report.missing.iter().map(Bad::new).collect(),
            mended: report.mended,
            swept_names: report.swept_names,
            duration_seconds: report.duration.as_secs_f64(),
        }
    }

    fn failure(&self) -> Option<Failure> {
        let (damaged, missing) = (self.damaged.len() as u64, self.missing.len() as u64);
        if damaged + missing == 0 {
            return None;
        }
        let blobs = count(self.checked_blobs, "blob");
        let message = format!("{damaged} of {blobs} damaged, {missing} missing");
        Some(Failure::new(ErrorKind::Damaged, message).with_hint(
            "a snapshot of the same bytes mends them; else remove the snapshots named and take them anew",
        ))
    }
}

impl Bad {
    fn new(blob: &BadBlob) -> Self {
        Self {
            digest: blob.digest.to_string(),
            checksum: blob.checksum.to_string(),
            size_bytes: blob.size,
            snapshots: blob.snapshots.iter().map(ToString::to_string).collect(),
        }
    }
}

impl Document for Verified {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        let bad = [("damaged", &self.damaged), ("missing", &self.missing)];
        for (what, blob) in bad
            .iter()
            .flat_map(|(what, blobs)| blobs.iter().map(move |blob| (what, blob)))
        {
            writeln!(
                page.out,
                "{STRONG}{what}{STRONG:#} {} ({})",
                blob.checksum,
                bytes(blob.size_bytes)
            )?;
            for snapshot in &blob.snapshots {
                writeln!(page.out, "  needed by {snapshot}")?;
            }
        }
        if page.quiet {
            return Ok(());
        }
        if self.mended > 0 {
            writeln!(page.out, "{} right again", count(self.mended, "blob"))?;
        }
        if self.swept_names > 0 {
            writeln!(
                page.out,
                "{} left by interrupted commands removed",
                count(self.swept_names, "name")
            )?;
        }
        if self.damaged.is_empty() && self.missing.is_empty() {
            let duration = human::duration(Duration::from_secs_f64(self.duration_seconds));
            writeln!(
                page.out,
                "{GOOD}All is well:{GOOD:#} {}, {} of data read in {duration}",
                count(self.checked_blobs, "blob"),
                bytes(self.checked_bytes)
            )?;
        }
        Ok(())
    }
}

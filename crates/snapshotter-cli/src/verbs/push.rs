//! `snapshotter push`. All references are looked up before the first snapshot is sent, so a misspelt one sends nothing.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use serde::Serialize;
use snapshotter::{Format, Publication, PushReport, PushRequest, Reference, Snapshotter};

use super::snapshot::said;
use crate::answer::{Answer, Document};
use crate::context::Context;
use crate::failure::Result;
use crate::hints;
use crate::output::Page;
use crate::output::human::{self, bytes, count};
use crate::output::json::{Called, Warning};

/// Publishes snapshots that are here
///
/// Bytes first, then the description, then the name: others find a snapshot complete or not at all. What is there already
/// is not sent again, so the same command goes on where another was interrupted.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  snapshotter push vm:v1
      to the configured registry and place of contents
  snapshotter push vm:v1 --verify
      reads everything back and compares it
  snapshotter push vm:v7 --format v1
      what Go nodes read, of a snapshot of format v2
  snapshotter list -q 'sandboxes/*' | xargs -r snapshotter push
      all below sandboxes/")]
pub struct Args {
    /// The snapshots: NAME:VERSION
    #[arg(value_name = "REFERENCE", required = true)]
    references: Vec<String>,
    /// Replace the version in the registry, and send everything again
    ///
    /// What is damaged there is mended by it: without, an object that is there with the right size is not sent.
    #[arg(long)]
    force: bool,
    /// Read everything back from there and compare it
    #[arg(long)]
    verify: bool,
    /// Publish it in this format: v1, for Go nodes, of what is kept in v2
    ///
    /// Its files are made from its pages and sent; they do not stay here.
    #[arg(long, value_name = "FORMAT", value_parser = said::<Format>)]
    format: Option<Format>,
}

/// Runs it.
pub fn run(context: &Context, args: &Args) -> Result<Answer> {
    let parse = |text: &String| hints::reference(text, "push NAME:VERSION");
    let references: Vec<Reference> = args.references.iter().map(parse).collect::<Result<_>>()?;
    context.require_registry()?;
    context.require_content("")?;
    context.require_store()?;
    let pushed = context.with_store_and_remote(async |store| {
        let mut reports = Vec::new();
        for reference in look_up(store, &references).await? {
            reports.push(push(context, store, args, reference).await?);
        }
        Ok(reports)
    })?;
    let warnings = pushed.value.iter().flat_map(|report| &report.warnings);
    let warnings: Vec<_> = warnings.cloned().map(Warning::from).collect();
    let pushed_all = Pushed {
        pushed: pushed.value.iter().map(One::new).collect(),
    };
    Ok(Answer::new(pushed_all).with_warnings(warnings.into_iter().chain(pushed.warnings)))
}

/// Each snapshot once, whatever it was called.
async fn look_up(store: &Snapshotter, references: &[Reference]) -> Result<Vec<Reference>> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for reference in references {
        match store.find(reference).await {
            Ok(snapshot) => {
                let name = snapshot.reference;
                if seen.insert(name.clone()) {
                    found.push(name);
                }
            }
            Err(error) => return Err(hints::what_is_there(store, error.into()).await),
        }
    }
    Ok(found)
}

async fn push(
    context: &Context,
    store: &Snapshotter,
    args: &Args,
    reference: Reference,
) -> Result<PushReport> {
    let progress = context.progress(&reference.to_string());
    let request = PushRequest::new(reference)
        .force(args.force)
        .verify(args.verify)
        .format(args.format);
    let observed = store.observed_by(progress.observer());
    let pushed = observed.push(&request).await;
    pushed.map_err(|error| hints::on_the_way(error.into()))
}

/// Where a snapshot was published.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Published {
    place: String,
    /// SHA-256 of the manifest there.
    pub manifest_digest: String,
    /// `v1` or `v2`.
    pub format: &'static str,
    sent_blobs: u64,
    sent_bytes: u64,
}

impl Published {
    /// From the library's.
    pub fn new(publication: &Publication) -> Self {
        Self {
            place: publication.place.clone(),
            manifest_digest: publication.manifest_digest.to_string(),
            format: publication.format.as_str(),
            sent_blobs: publication.sent_blobs,
            sent_bytes: publication.sent_bytes,
        }
    }

    /// `registry.example/vm, 3 blobs (1.0 GiB) sent`.
    pub fn shown(&self) -> String {
        let place = human::visible(&self.place);
        match self.sent_blobs {
            0 => format!("{place}, where all {}s were already", object(self.format)),
            blobs => format!(
                "{place}, {} ({}) sent",
                count(blobs, object(self.format)),
                bytes(self.sent_bytes)
            ),
        }
    }
}

/// What contents are kept in.
pub fn object(format: &str) -> &'static str {
    if format == Format::V2.as_str() {
        "pack"
    } else {
        "blob"
    }
}

#[derive(Serialize)]
struct Pushed {
    pushed: Vec<One>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct One {
    #[serde(flatten)]
    reference: Called,
    #[serde(flatten)]
    published: Published,
    verified_blobs: u64,
    duration_seconds: f64,
}

impl One {
    fn new(report: &PushReport) -> Self {
        Self {
            reference: Called::new(&report.reference),
            published: Published::new(&report.publication),
            verified_blobs: report.verified_blobs,
            duration_seconds: report.duration.as_secs_f64(),
        }
    }
}

impl Document for Pushed {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        if page.quiet {
            return Ok(());
        }
        for one in &self.pushed {
            page.heading(&one.reference, &one.published.manifest_digest)?;
            let duration = human::duration(Duration::from_secs_f64(one.duration_seconds));
            let published = one.published.shown();
            writeln!(page.out, "  published to {published}, in {duration}")?;
            if one.verified_blobs > 0 {
                let blobs = count(one.verified_blobs, object(one.published.format));
                writeln!(page.out, "  {blobs} read back and right")?;
            }
        }
        Ok(())
    }
}

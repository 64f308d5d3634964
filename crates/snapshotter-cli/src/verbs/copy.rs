//! `snapshotter copy`.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueHint;
use serde::Serialize;
use snapshotter::{Config, CopyReport, CopyRequest, Reference, Snapshotter};

use super::push::Published;
use crate::answer::{Answer, Document};
use crate::context::Context;
use crate::failure::Result;
use crate::hints;
use crate::output::Page;
use crate::output::human;
use crate::output::json::{Called, Warning};
use crate::settings::Settings;

/// Copies snapshots from one registry and place of contents to others
///
/// Each end is a configuration file, of which [registry] and [content] count; SNAPSHOTTER_* variables and --env-file do not: nothing
/// says which end they are for. No store is needed: contents go through memory, are verified on the way, and what is
/// there already is not sent.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  snapshotter copy vm:v1 --from near.toml --to far.toml
  snapshotter list --remote -q --config near.toml | xargs -r snapshotter copy --from near.toml --to far.toml
      all that the registry lists")]
pub struct Args {
    /// The snapshots: NAME:VERSION
    #[arg(value_name = "REFERENCE", required = true)]
    references: Vec<String>,
    /// The configuration file of where they are
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    from: PathBuf,
    /// The configuration file of where they are to be
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    to: PathBuf,
    /// Replace the version there, and objects that are there
    #[arg(long)]
    force: bool,
}

/// Runs it.
pub fn run(context: &Context, args: &Args) -> Result<Answer> {
    let parse = |text: &String| hints::reference(text, "copy NAME:VERSION");
    let references: Vec<Reference> = args.references.iter().map(parse).collect::<Result<_>>()?;
    let (from, to) = (
        Settings::of_file(&args.from, &context.global)?,
        Settings::of_file(&args.to, &context.global)?,
    );
    let ends = (from.whole()?, to.whole()?);
    let reports = context.without_store(async {
        let mut reports = Vec::new();
        for reference in references {
            reports.push(copy(context, args, &ends, reference).await?);
        }
        Ok(reports)
    })?;
    let warnings = reports.iter().flat_map(|report| &report.warnings);
    let warnings: Vec<_> = warnings.cloned().map(Warning::from).collect();
    let copied = Copied {
        copied: reports.iter().map(One::new).collect(),
    };
    let exposed = from.warnings().into_iter().chain(to.warnings());
    Ok(Answer::new(copied).with_warnings(warnings.into_iter().chain(exposed)))
}

async fn copy(
    context: &Context,
    args: &Args,
    (from, to): &(Config, Config),
    reference: Reference,
) -> Result<CopyReport> {
    let progress = context.progress(&reference.to_string());
    let request = CopyRequest::new(reference)
        .force(args.force)
        .observed_by(progress.observer());
    let copied = Snapshotter::copy(from, to, &request).await;
    copied.map_err(|error| hints::on_the_way(error.into()))
}

#[derive(Serialize)]
struct Copied {
    copied: Vec<One>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct One {
    #[serde(flatten)]
    reference: Called,
    #[serde(flatten)]
    published: Published,
    reused_blobs: u64,
    duration_seconds: f64,
}

impl One {
    fn new(report: &CopyReport) -> Self {
        Self {
            reference: Called::new(&report.reference),
            published: Published::new(&report.publication),
            reused_blobs: report.reused_blobs,
            duration_seconds: report.duration.as_secs_f64(),
        }
    }
}

impl Document for Copied {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        if page.quiet {
            return Ok(());
        }
        for one in &self.copied {
            page.heading(&one.reference, &one.published.manifest_digest)?;
            let duration = human::duration(Duration::from_secs_f64(one.duration_seconds));
            let published = one.published.shown();
            writeln!(page.out, "  copied to {published}, in {duration}")?;
        }
        Ok(())
    }
}

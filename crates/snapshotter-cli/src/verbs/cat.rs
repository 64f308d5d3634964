//! `snapshotter cat`.

use std::path::PathBuf;

use snapshotter::{ErrorKind, Opened, Reference, Snapshotter};

use crate::answer::Answer;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::hints;
use crate::output::json::Warning;

/// Prints a file of a snapshot
///
/// Nothing is printed before all of its bytes were verified. Where a registry is configured, a snapshot that is not here is fetched
/// first, and stays here.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  snapshotter cat vm:v1 state.json | jq .
  snapshotter cat vm:v1 images/disk.img > disk.img
      `restore` keeps its holes and attributes, too")]
pub struct Args {
    /// The snapshot: NAME:VERSION
    reference: String,
    /// The file, as `snapshotter inspect` shows it
    path: PathBuf,
}

/// Runs it.
pub fn run(context: &Context, args: &Args) -> Result<Answer> {
    let reference = hints::reference(&args.reference, "cat NAME:VERSION PATH")?;
    if context.registry().is_none() {
        context.require_store()?;
    }
    let opened = context.with_store_and_remote(async |store| {
        let snapshot = open(context, store, &reference).await?;
        let verified = snapshot.verified_reader(&args.path).await;
        let reader = verified.map_err(|error| explain(error.into(), &args.reference))?;
        Ok((reader, snapshot.warnings))
    })?;
    let (reader, warnings) = opened.value;
    let warnings = warnings.into_iter().map(Warning::from);
    Ok(Answer::file(reader).with_warnings(warnings.chain(opened.warnings)))
}

/// Opens a snapshot, showing how fetching it gets on.
pub async fn open(context: &Context, store: &Snapshotter, reference: &Reference) -> Result<Opened> {
    let progress = context.progress(&reference.to_string());
    let observed = store.observed_by(progress.observer());
    let error = match observed.open_snapshot(reference).await {
        Ok(opened) => return Ok(opened),
        Err(error) => error.into(),
    };
    Err(match context.registry() {
        Some(_) => hints::on_the_way(error),
        None => hints::what_is_there(store, error).await,
    })
}

fn explain(failure: Failure, reference: &str) -> Failure {
    match failure.kind {
        ErrorKind::NotFound => {
            failure.with_hint(format!("`snapshotter inspect {reference}` shows its files"))
        }
        _ => failure,
    }
}

//! `snapshotter cat`.

use std::path::PathBuf;

use snapshotter::{ErrorKind, Snapshotter};

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
        let mut warnings = Vec::new();
        let is_absent = match store.find(&reference).await {
            Err(error) => error.kind() == ErrorKind::NotFound,
            Ok(_) => false,
        };
        if is_absent && context.registry().is_some() {
            let pulled = super::pull::pull(context, store, reference.clone(), false).await?;
            warnings = pulled.warnings;
        }
        match store.open_file(&reference, &args.path).await {
            Ok(opened) => Ok((opened.file, warnings)),
            Err(error) => Err(explain(store, error.into(), &args.reference).await),
        }
    })?;
    let (file, warnings) = opened.value;
    let warnings = warnings.into_iter().map(Warning::from);
    Ok(Answer::file(file).with_warnings(warnings.chain(opened.warnings)))
}

async fn explain(store: &Snapshotter, failure: Failure, reference: &str) -> Failure {
    if failure.kind == ErrorKind::NotFound && failure.about.path.is_some() {
        return failure.with_hint(format!("`snapshotter inspect {reference}` shows its files"));
    }
    hints::what_is_there(store, failure).await
}

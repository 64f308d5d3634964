//! `snapshotter man DIR`, hidden: the manual pages, written from what clap knows. For packagers, when they build.

use std::path::PathBuf;

use clap::CommandFactory;

use crate::answer::Answer;
use crate::arguments::Arguments;
use crate::failure::{Failure, Result};

/// Writes snapshotter.1, snapshotter-snapshot.1 and so on
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An existing directory
    dir: PathBuf,
}

/// Runs it.
pub fn run(args: &Args) -> Result<Answer> {
    clap_mangen::generate_to(Arguments::command(), &args.dir)
        .map_err(|error| Failure::io("write manual pages into", &args.dir, &error))?;
    Ok(Answer::script(Vec::new()))
}

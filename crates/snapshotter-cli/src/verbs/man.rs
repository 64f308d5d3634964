//! `snapshotter man DIR`, hidden: the manual pages, written from what clap knows. For packagers, when they build.

use std::path::PathBuf;

use clap::Command;

use crate::answer::Answer;
use crate::arguments;
use crate::failure::{Failure, Result};

/// Writes snapshotter.1, snapshotter-snapshot.1 and so on
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An existing directory
    dir: PathBuf,
}

/// Runs it.
pub fn run(args: &Args) -> Result<Answer> {
    let mut command = arguments::command().disable_help_subcommand(true);
    command.build();
    let command = with_usage(command).mut_subcommands(with_usage);
    clap_mangen::generate_to(command, &args.dir)
        .map_err(|error| Failure::io("write manual pages into", &args.dir, &error))?;
    Ok(Answer::script(Vec::new()))
}

/// A SYNOPSIS that is the usage of the help: clap_mangen's own has all options by the alphabet.
fn with_usage(mut command: Command) -> Command {
    let usage = command.render_usage().to_string();
    command.override_usage(usage.trim_start_matches("Usage: ").to_owned())
}

//! `snapshotter completions`.

use clap_complete::Shell;

use crate::answer::Answer;
use crate::arguments;

/// Prints a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  source <(snapshotter completions bash)
      for this shell
  snapshotter completions bash > ~/.local/share/bash-completion/completions/snapshotter
  snapshotter completions zsh > ~/.zfunc/_snapshotter
  snapshotter completions fish > ~/.config/fish/completions/snapshotter.fish")]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Runs it.
pub fn run(args: &Args) -> Answer {
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut arguments::command(),
        "snapshotter",
        &mut script,
    );
    Answer::script(script)
}

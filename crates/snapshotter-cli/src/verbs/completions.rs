//! `snapshotter completions`: the scripts for shells. Those for bash, zsh and fish ask `snapshotter complete` at each TAB.

use clap_complete::Shell;

use crate::answer::Answer;
use crate::arguments;

/// Prints a completion script for a shell
///
/// In bash, zsh and fish names, versions and paths of snapshots are completed too.
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
    let script: &[u8] = match args.shell {
        Shell::Bash => include_bytes!("completions/snapshotter.bash"),
        Shell::Zsh => include_bytes!("completions/snapshotter.zsh"),
        Shell::Fish => include_bytes!("completions/snapshotter.fish"),
        other => return Answer::script(generated(other)),
    };
    Answer::script(script.to_vec())
}

fn generated(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut arguments::command(), "snapshotter", &mut script);
    script
}

//! The command line.

use std::path::{Path, PathBuf};

use crate::Result;
use crate::operation::Operation;

/// What `--help` says.
pub(crate) const HELP: &str = "\
Usage: cargo run --release -p snapshotter-benches -- [OPTIONS]

  --dir DIR      where to work, on ext4 with 30 GiB free (default: below target/)
  --runs N       measured runs of each side of each comparison (default 7)
  --quick        everything a sixteenth of its size: to see that it runs, not to judge it
  --only NAME    only rows whose name (\"dense-1g: restore, writable\") contains NAME
  --output FILE  where the tables go (default: docs/benchmarks.md; with --quick or --only, standard output)";

/// What to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Say how it is used.
    Help,
    /// Run all cases.
    All(Options),
    /// Do one operation and end: what a measured child is.
    Operation(Operation),
}

/// How to run the cases.
#[derive(Debug)]
pub(crate) struct Options {
    /// The work directory; all in it is ours.
    pub(crate) dir: PathBuf,
    /// Measured runs of each side.
    pub(crate) runs: usize,
    /// Divides every size.
    pub(crate) divisor: u64,
    /// Part of the names of the rows to run.
    pub(crate) only: Option<String>,
    /// Where the tables go; `None`: standard output.
    pub(crate) output: Option<PathBuf>,
}

/// Understands the arguments after the program's name.
pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Command> {
    let mut options = Options {
        dir: default_dir()?,
        runs: 7,
        divisor: 1,
        only: None,
        output: None,
    };
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or_else(|| format!("{argument} needs a value"))
        };
        match argument.as_str() {
            "operation" => return Ok(Command::Operation(Operation::parse(&value()?)?)),
            "--help" | "-h" => return Ok(Command::Help),
            "--dir" => options.dir = value()?.into(),
            "--runs" => options.runs = value()?.parse::<usize>()?.max(1),
            "--quick" => options.divisor = 16,
            "--only" => options.only = Some(value()?),
            "--output" => options.output = Some(value()?.into()),
            _ => return Err(format!("unknown option {argument}; see --help").into()),
        }
    }
    let whole = options.divisor == 1 && options.only.is_none();
    if whole && options.output.is_none() {
        options.output = Some(repository().join("docs/benchmarks.md"));
    }
    Ok(Command::All(options))
}

/// Beside the directory of the running binary: below `target/`, wherever that is.
fn default_dir() -> Result<PathBuf> {
    let binary = std::env::current_exe()?;
    let target = binary
        .ancestors()
        .nth(2)
        .ok_or("the binary has no directory")?;
    Ok(target.join("benches"))
}

/// The root of the repository this was built from.
pub(crate) fn repository() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

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
  --plot FILE    measure nothing: take what was measured from FILE, the results.json of a run
  --output FILE  where the tables go (default: docs/benchmarks.md; with --quick or --only, standard output);
                 pictures and results.json go to plots/ beside it, and what they have of rows not measured now stays";

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
    /// What was measured before, to be shown without measuring.
    pub(crate) plot: Option<PathBuf>,
    /// Where the tables go; `None`: standard output.
    pub(crate) output: Option<PathBuf>,
}

impl Options {
    /// Whether this measures all that a page has.
    pub(crate) fn is_whole(&self) -> bool {
        self.divisor == 1 && self.only.is_none() && self.plot.is_none()
    }

    /// Where pictures go.
    pub(crate) fn plots(&self) -> Option<PathBuf> {
        let output = self.output.as_ref()?;
        Some(output.with_file_name("plots"))
    }

    /// Where the numbers are kept.
    pub(crate) fn results(&self) -> Option<PathBuf> {
        Some(self.plots()?.join("results.json"))
    }
}

/// Understands the arguments after the program's name.
pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Command> {
    let mut options = Options {
        dir: default_dir()?,
        runs: 7,
        divisor: 1,
        only: None,
        plot: None,
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
            "--plot" => options.plot = Some(value()?.into()),
            "--output" => options.output = Some(value()?.into()),
            _ => return Err(format!("unknown option {argument}; see --help").into()),
        }
    }
    let is_page = options.is_whole() || options.plot.is_some();
    if is_page && options.output.is_none() {
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

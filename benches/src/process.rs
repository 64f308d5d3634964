//! Starting and timing processes: ours and the peers' alike.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Result;
use crate::operation::Outcome;

/// The cores that everything measured runs on.
pub(crate) const CORES: [usize; 2] = [0, 1];

/// Runs commands one after the other on [`CORES`] and returns the seconds from the start of the first to the end of the
/// last, and what the last printed.
///
/// The children inherit this thread's cores, which costs them nothing, where `taskset` would be one more program to
/// start. Between runs this thread is free to run anywhere.
pub(crate) fn timed(commands: &mut [Command]) -> Result<(f64, String)> {
    let everywhere = sched_getaffinity(None)?;
    let mut two = CpuSet::new();
    for core in CORES {
        two.set(core);
    }
    sched_setaffinity(None, &two)?;
    let result = run_all(commands);
    sched_setaffinity(None, &everywhere)?;
    result
}

/// As [`timed`], for one of ours.
pub(crate) fn timed_operation(command: Command) -> Result<(f64, Outcome)> {
    let (seconds, said) = timed(&mut [command])?;
    Ok((seconds, serde_json::from_str(&said)?))
}

fn run_all(commands: &mut [Command]) -> Result<(f64, String)> {
    let started = Instant::now();
    let mut said = String::new();
    for command in commands {
        said = run(command)?;
    }
    Ok((started.elapsed().as_secs_f64(), said))
}

fn run(command: &mut Command) -> Result<String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    let mut said = String::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_string(&mut said)?;
    }
    let status = child.wait()?;
    if status.success() {
        return Ok(said);
    }
    Err(format!("{command:?} failed: {status}").into())
}

/// `cp -r --reflink=never`, with more options before the paths.
pub(crate) fn cp(options: &[&str], from: &std::path::Path, to: &std::path::Path) -> Command {
    let mut command = Command::new("cp");
    command.args(["-r", "--reflink=never"]).args(options);
    command.arg(from).arg(to);
    command
}

/// `sync -f`: writes everything of the filesystem of `path` to disk.
pub(crate) fn sync_filesystem(path: &std::path::Path) -> Command {
    let mut command = Command::new("sync");
    command.arg("-f").arg(path);
    command
}

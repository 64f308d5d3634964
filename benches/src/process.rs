//! Starting and timing processes: ours and the peers' alike.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::operation::Outcome;
use crate::{Result, settle};

/// The cores that everything measured runs on.
pub(crate) const CORES: [usize; 2] = [0, 1];

/// How a run went.
#[derive(Debug)]
pub(crate) struct Timed {
    /// From the start of the first process to the end of the last.
    pub(crate) seconds: f64,
    /// Cores that were busy with anything else meanwhile: other processes, and the kernel's threads that write to disk.
    pub(crate) others: f64,
    /// Seconds of processor time that they took.
    pub(crate) cpu: f64,
    /// What the last process printed.
    said: String,
}

impl Timed {
    /// What one of ours says of itself.
    pub(crate) fn outcome(&self) -> Result<Outcome> {
        Ok(serde_json::from_str(&self.said)?)
    }
}

/// The priority of everything measured: on a quiet machine it changes nothing, on a busy one it leaves the cores to us.
const NICE: i32 = -15;

/// Runs commands one after the other on [`CORES`].
///
/// The children inherit this thread's cores and priority, which costs them nothing, where `taskset` would be one more
/// program to start. Between runs this thread is as any other.
pub(crate) fn timed(commands: &mut [Command]) -> Result<Timed> {
    let everywhere = sched_getaffinity(None)?;
    let mut two = CpuSet::new();
    for core in CORES {
        two.set(core);
    }
    sched_setaffinity(None, &two)?;
    // Only root may: for others it stays as it is, on both sides.
    let preferred = setpriority_process(None, NICE).is_ok();
    let result = run_all(commands);
    if preferred {
        setpriority_process(None, 0)?;
    }
    sched_setaffinity(None, &everywhere)?;
    result
}

fn run_all(commands: &mut [Command]) -> Result<Timed> {
    let mut said = String::new();
    let (busy, own) = (settle::busy()?, children()?);
    let started = Instant::now();
    for command in commands {
        said = run(command)?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let cpu = children()? - own;
    let others = (settle::busy()? - busy - cpu).max(0.0) / seconds;
    Ok(Timed {
        seconds,
        others,
        cpu,
        said,
    })
}

/// Seconds of processor time of the children that have ended.
fn children() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    // The second field may have spaces in it and ends with a parenthesis.
    let (_, fields) = text.rsplit_once(')').ok_or("no name in /proc/self/stat")?;
    let times = fields.split_whitespace().skip(13).take(2);
    let ticks: Vec<f64> = times
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / 100.0)
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

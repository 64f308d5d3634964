//! `snapshotter mount`.
//!
//! Without `--foreground` the command starts itself once more, with a socket for its standard input: that process opens, mounts,
//! prints what there is to print and writes its exit code to the socket, and then leaves the session and the standard streams of
//! the one that was called. Whatever goes wrong before, it prints itself.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Serialize;
use snapshotter::{Mounted, Opened, Snapshotter};

use super::cat;
use crate::answer::{Answer, Document};
use crate::arguments::Early;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::hints;
use crate::output::human::{self, bytes, count};
use crate::output::json::{Called, Warning};
use crate::output::{Page, Screen, total};

/// Set for the process that serves, whose standard input is then a socket of the one that started it.
const STARTED: &str = "_SNAPSHOTTER_MOUNT_STARTED";

/// Shows a snapshot as a read-only filesystem, without restoring it
///
/// Files are decoded and verified as they are read. The command returns when the filesystem is there, and a process of its own
/// serves it until `snapshotter umount`. The snapshot stays for as long as it is mounted, whatever is removed or collected. Where
/// a registry is configured, a snapshot that is not here is fetched first, all of it, and stays here.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  snapshotter mount vm:v1 /mnt/vm
  cp --sparse=always /mnt/vm/disk.img .
  snapshotter umount /mnt/vm
  snapshotter mount vm:v1 /mnt/vm --foreground
      for a unit of systemd; SIGTERM unmounts")]
pub struct Args {
    /// The snapshot: NAME:VERSION
    reference: String,
    /// An empty directory
    #[arg(value_hint = clap::ValueHint::DirPath)]
    directory: PathBuf,
    /// Serve it in this process, until it is unmounted or a signal comes
    #[arg(long)]
    foreground: bool,
    /// Let other users' processes read it too, as modes and owners say
    #[arg(long)]
    allow_other: bool,
    /// Where the process that serves it writes what it has to say from then on
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    log_file: Option<PathBuf>,
}

/// Runs it.
pub fn run(context: &Context, args: &Args) -> Result<Answer> {
    let reference = hints::reference(&args.reference, "mount NAME:VERSION DIR")?;
    let is_started = std::env::var_os(STARTED).is_some();
    if !args.foreground && !is_started {
        // All has been said by the process that was started.
        std::process::exit(start()?.into());
    }
    if context.registry().is_none() {
        context.require_store()?;
    }
    let log = args.log_file.as_deref().map(open_log).transpose()?;
    let began = Instant::now();
    context.serve(
        async |store: &Snapshotter| {
            let opened = cat::open(context, store, &reference).await?;
            let mut shown = Shown::new(&opened, &args.directory);
            let warnings = opened.warnings.iter().cloned().chain(store.warnings());
            let warnings: Vec<_> = warnings.map(Warning::from).collect();
            let mounted = opened.mount(&args.directory, args.allow_other)?;
            shown.duration_seconds = began.elapsed().as_secs_f64();
            let warnings = warnings.into_iter().chain(context.settings.warnings());
            announce(
                context,
                &Answer::new(shown).with_warnings(warnings),
                is_started,
                log,
            )?;
            Ok(mounted)
        },
        async |mounted: &mut Mounted| Ok(mounted.ended().await?),
    )?;
    Ok(Answer::script(Vec::new()))
}

fn open_log(path: &Path) -> Result<File> {
    let opened = File::options().append(true).create(true).open(path);
    opened.map_err(|error| Failure::io("open", path, &error))
}

/// Starts the process that serves, and waits until it does or has failed. Says what to exit with.
fn start() -> Result<u8> {
    let failed = |error: io::Error| Failure::io("start", Path::new("/proc/self/exe"), &error);
    let (mut ours, theirs) = UnixStream::pair().map_err(failed)?;
    let mut given = std::env::args_os();
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0(given.next().unwrap_or_default())
        .args(given)
        .env(STARTED, "1")
        .stdin(OwnedFd::from(theirs));
    let mut child = command.spawn().map_err(failed)?;
    // With it goes this process's end of the other side.
    drop(command);
    let mut code = [0];
    if ours.read_exact(&mut code).is_ok() {
        return Ok(code[0]);
    }
    let status = child.wait().map_err(failed)?;
    let signal = status.signal().map(|signal| 128 + signal);
    let code = status.code().or(signal);
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// Says that it is mounted, and leaves whoever waited for that.
fn announce(context: &Context, answer: &Answer, is_started: bool, log: Option<File>) -> Result<()> {
    let global = &context.global;
    let early = Early {
        json: global.json,
        color: global.color,
    };
    let printed = Screen::new(&early).with(global).answer(answer);
    let code = printed.map_err(|error| Failure::of_output(&error))?;
    let left = match is_started {
        true => leave(code, log),
        false => log.map_or(Ok(()), |log| Ok(rustix::stdio::dup2_stderr(log)?)),
    };
    // Then nobody waits for it any more, and it is unmounted again.
    left.map_err(|error| Failure::of_output(&error))
}

/// Leaves the session and the streams of the process that was called, and tells it what to exit with.
fn leave(code: u8, log: Option<File>) -> io::Result<()> {
    let mut starter = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    rustix::process::setsid()?;
    rustix::stdio::dup2_stdin(&nothing)?;
    rustix::stdio::dup2_stdout(&nothing)?;
    rustix::stdio::dup2_stderr(log.as_ref().unwrap_or(&nothing))?;
    starter.write_all(&[code])
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    #[serde(flatten)]
    reference: Called,
    manifest_digest: String,
    format: &'static str,
    mount_point: PathBuf,
    pid: u32,
    files: u64,
    logical_bytes: u64,
    duration_seconds: f64,
}

impl Shown {
    fn new(opened: &Opened, directory: &Path) -> Self {
        let files = opened.files().iter();
        let sizes = files.filter(|file| file.hardlink_of.is_none());
        Self {
            reference: Called::new(&opened.reference()),
            manifest_digest: opened.manifest_digest().to_string(),
            format: opened.format().as_str(),
            mount_point: directory.to_owned(),
            pid: std::process::id(),
            files: opened.files().len() as u64,
            logical_bytes: total(sizes.map(|file| file.size)),
            duration_seconds: 0.0,
        }
    }
}

impl Document for Shown {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        if page.quiet {
            return Ok(());
        }
        page.whereabouts(&self.reference, "is mounted on", &self.mount_point)?;
        let duration = human::duration(Duration::from_secs_f64(self.duration_seconds));
        writeln!(
            page.out,
            "  {}, {}, in {duration}, served by process {}",
            count(self.files, "file"),
            bytes(self.logical_bytes),
            self.pid
        )
    }
}

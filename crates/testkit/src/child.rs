//! A child process under observation: what became of it, signals to it, its peak of memory. It is
//! killed when dropped.

use std::fs;
use std::io;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

const INTERVAL: Duration = Duration::from_millis(1);

/// What became of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Stopped by this signal; [`Child::resume`] has it go on.
    Stopped(i32),
    /// Ended with this code.
    Exited(i32),
    /// Ended by this signal.
    Signaled(i32),
}

impl State {
    /// Whether it is over.
    pub fn is_end(self) -> bool {
        !matches!(self, Self::Stopped(_))
    }

    fn of(status: WaitStatus) -> Self {
        let stopped = status.stopping_signal().map(Self::Stopped);
        let exited = || status.exit_status().map(Self::Exited);
        let signaled = || status.terminating_signal().map(Self::Signaled);
        stopped
            .or_else(exited)
            .or_else(signaled)
            .expect("a child stops, exits or is killed")
    }
}

/// A command that runs the test `name` of a module of the running test binary, which is called by its `module_path!()`, again
/// in a process of its own: the test looks at an environment variable to know which of the two it is.
///
/// # Panics
/// If the kernel doesn't say which binary runs.
pub fn this_test(module: &str, name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a running test has a binary"));
    // The harness leaves the name of the crate out.
    let name = match module.split_once("::") {
        Some((_, module)) => format!("{module}::{name}"),
        None => name.to_owned(),
    };
    command.args([
        "--exact",
        &name,
        "--include-ignored",
        "--nocapture",
        "--test-threads=1",
    ]);
    command
}

/// A child process, killed when dropped.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    end: Option<State>,
}

impl Child {
    /// Starts `command`.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        Ok(Self {
            process: command.spawn()?,
            end: None,
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The pipe to its input, if the command asked for one; once.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.process.stdin.take()
    }

    /// The pipe from its output, if the command asked for one; once.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.process.stdout.take()
    }

    /// The pipe from its errors, if the command asked for one; once.
    pub fn stderr(&mut self) -> Option<ChildStderr> {
        self.process.stderr.take()
    }

    /// Waits until it stops or ends. Each stop is told once; the end, each time.
    ///
    /// # Errors
    /// If somebody else has waited for it.
    pub fn wait(&mut self) -> io::Result<State> {
        let state = self.look(WaitOptions::UNTRACED)?;
        Ok(state.expect("who waits gets an answer"))
    }

    /// Whether it stopped or ended since it was last asked.
    ///
    /// # Errors
    /// If somebody else has waited for it.
    pub fn poll(&mut self) -> io::Result<Option<State>> {
        self.look(WaitOptions::UNTRACED | WaitOptions::NOHANG)
    }

    /// Waits until it stops or ends, but no longer than `limit`.
    ///
    /// # Errors
    /// If somebody else has waited for it.
    pub fn wait_for(&mut self, limit: Duration) -> io::Result<Option<State>> {
        let start = Instant::now();
        loop {
            let state = self.poll()?;
            if state.is_some() || start.elapsed() >= limit {
                return Ok(state);
            }
            sleep(INTERVAL);
        }
    }

    /// Waits until it ends, stops passed over, and returns its peak of resident memory too, in
    /// bytes. It is read each millisecond: what is used only after the last reading isn't seen.
    ///
    /// # Errors
    /// If somebody else has waited for it.
    pub fn wait_measured(&mut self) -> io::Result<(State, u64)> {
        let mut peak = 0;
        loop {
            peak = self.peak_rss().map_or(peak, |now| peak.max(now));
            if let Some(end) = self.poll()?.filter(|state| state.is_end()) {
                return Ok((end, peak));
            }
            sleep(INTERVAL);
        }
    }

    /// Its peak of resident memory so far, in bytes; none once it ended.
    pub fn peak_rss(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If it has ended, as far as has been seen.
    pub fn send(&self, signal: Signal) -> io::Result<()> {
        match self.end {
            Some(_) => Err(Errno::SRCH.into()),
            None => Ok(kill_process(self.pid(), signal)?),
        }
    }

    /// Has it go on after a stop.
    ///
    /// # Errors
    /// As [`Child::send`].
    pub fn resume(&self) -> io::Result<()> {
        self.send(Signal::CONT)
    }

    /// Kills it and waits until it is over; nothing where it is.
    ///
    /// # Errors
    /// If somebody else has waited for it.
    pub fn kill(&mut self) -> io::Result<State> {
        if self.end.is_none() {
            self.send(Signal::KILL)?;
        }
        loop {
            let state = self.wait()?;
            if state.is_end() {
                return Ok(state);
            }
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    fn look(&mut self, options: WaitOptions) -> io::Result<Option<State>> {
        if self.end.is_some() {
            return Ok(self.end);
        }
        let status = retry_on_intr(|| waitpid(Some(self.pid()), options))?;
        let state = status.map(|(_, status)| State::of(status));
        self.end = state.filter(|state| state.is_end());
        Ok(state)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::process::Stdio;

    fn shell(script: &str) -> Child {
        Child::spawn(Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn ends_are_told_apart_and_told_again() {
        let mut child = shell("exit 3");
        assert_eq!(child.wait().unwrap(), State::Exited(3));
        assert_eq!(child.wait().unwrap(), State::Exited(3));
        assert_eq!(shell("kill -TERM $$").wait().unwrap(), State::Signaled(15));
    }

    #[test]
    fn a_stopped_child_goes_on() {
        let mut child = shell("kill -STOP $$; exit 4");
        assert_eq!(child.wait().unwrap(), State::Stopped(Signal::STOP.as_raw()));
        assert_eq!(child.wait_for(Duration::from_millis(20)).unwrap(), None);
        child.resume().unwrap();
        assert_eq!(child.wait().unwrap(), State::Exited(4));
    }

    #[test]
    fn signals_arrive_but_not_after_the_end() {
        let mut child = shell("exec sleep 100");
        assert_eq!(child.poll().unwrap(), None);
        child.send(Signal::INT).unwrap();
        assert_eq!(child.wait().unwrap(), State::Signaled(2));
        assert!(child.send(Signal::KILL).is_err());
        assert_eq!(child.kill().unwrap(), State::Signaled(2));
    }

    #[test]
    fn a_dropped_child_is_gone_even_if_stopped() {
        let mut child = shell("kill -STOP $$");
        child.wait().unwrap();
        let process = PathBuf::from(format!("/proc/{}", child.id()));
        assert!(process.exists());
        drop(child);
        assert!(!process.exists());
    }

    #[test]
    fn the_peak_of_memory_is_seen() {
        const NAME: &str = "the_peak_of_memory_is_seen";
        if std::env::var_os("BE_LARGE").is_some() {
            let large = std::hint::black_box(vec![1_u8; 64 << 20]);
            sleep(Duration::from_millis(50));
            drop(large);
            return;
        }
        let mut child = Child::spawn(
            this_test(module_path!(), NAME)
                .env("BE_LARGE", "1")
                .stdout(Stdio::null()),
        )
        .unwrap();
        let (end, peak) = child.wait_measured().unwrap();
        assert_eq!(end, State::Exited(0));
        assert!((64 << 20..128 << 20).contains(&peak), "{peak}");
    }
}

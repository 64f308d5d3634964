//! The library's log on stderr: with `-v` what it does, with `-vv` each request, with `-vvv` also what the libraries below it
//! say, through `tracing` and `log` alike. Without it one thing is told: that a server made the command wait. What else people
//! need to know is in the answer's warnings.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::{MakeWriter, layer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::arguments::{Global, LogFormat, ProgressMode};
use crate::{output, progress};

/// Starts logging, if that was asked for; who serves says what goes wrong, since it has no answer to say it in.
pub fn start(global: &Global, serves: bool) {
    let ours = |level| Targets::new().with_target("snapshotter", level);
    let wanted = match global.verbose {
        0 if global.quiet => return,
        0 if serves => ours(LevelFilter::ERROR),
        0 => Targets::new().with_target("snapshotter::waiting", LevelFilter::WARN),
        1 => ours(LevelFilter::INFO),
        2 => ours(LevelFilter::DEBUG),
        _ => Targets::new().with_default(LevelFilter::TRACE),
    };
    let log = tracing_subscriber::registry().with(wanted);
    match global.log_format {
        // Whoever reads progress as JSON reads nothing else.
        LogFormat::Text
            if global.verbose == 0 && !serves && global.progress != ProgressMode::Json =>
        {
            let bare = layer().with_ansi(false).without_time();
            let bare = bare.with_level(false).with_target(false);
            log.with(bare.with_writer(|| Announced)).init();
        }
        LogFormat::Text if global.verbose > 0 || serves => log
            .with(layer().with_ansi(false).with_writer(AroundBar))
            .init(),
        _ => log.with(layer().json().with_writer(AroundBar)).init(),
    }
}

/// A warning on stderr for what many threads may have to say at once: one of them in a second is enough.
struct Announced;

static LAST: Mutex<Option<Instant>> = Mutex::new(None);

impl io::Write for Announced {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= Duration::from_secs(1)) {
            *last = Some(Instant::now());
            let line = String::from_utf8_lossy(line);
            output::announce(line.trim_end());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Stderr, with the progress bar out of the way while a line is written.
struct AroundBar;

impl MakeWriter<'_> for AroundBar {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

impl io::Write for AroundBar {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // A closed stderr is no reason to stop.
        progress::around_bar(|| io::stderr().write_all(line).ok());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

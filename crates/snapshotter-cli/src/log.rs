//! The library's log on stderr: with `-v` what it does, with `-vv` each request, with `-vvv` also what the libraries below it
//! say, through `tracing` and `log` alike. Without it nothing is installed: what people need to know is in the answer's
//! warnings, and starting is quicker.

use std::io;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::{MakeWriter, layer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::arguments::{Global, LogFormat};
use crate::progress;

/// Starts logging, if that was asked for.
pub fn start(global: &Global) {
    let ours = |level| Targets::new().with_target("snapshotter", level);
    let wanted = match global.verbose {
        0 => return,
        1 => ours(LevelFilter::INFO),
        2 => ours(LevelFilter::DEBUG),
        _ => Targets::new().with_default(LevelFilter::TRACE),
    };
    let log = tracing_subscriber::registry().with(wanted);
    match global.log_format {
        LogFormat::Text => log
            .with(layer().with_ansi(false).with_writer(AroundBar))
            .init(),
        LogFormat::Json => log.with(layer().json().with_writer(AroundBar)).init(),
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

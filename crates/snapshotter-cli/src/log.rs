//! The library's log on stderr, with `-v` and more. Without it nothing is installed: what people need to know is in
//! the answer's warnings, and starting is quicker.

use std::io;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::arguments::{Global, LogFormat};
use crate::progress;

/// Starts logging, if that was asked for.
pub fn start(global: &Global) {
    let level = match global.verbose {
        0 => return,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(AroundBar);
    match global.log_format {
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().init(),
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

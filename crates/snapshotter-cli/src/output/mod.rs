//! The one place that writes to the terminal: answers to stdout, warnings and errors to stderr, or all of it as one
//! JSON document to stdout.

pub mod human;
pub mod json;
mod table;

use std::io::{self, IsTerminal, Write};
use std::time::SystemTime;

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};

pub use table::{Align, Table};

use self::human::visible;
use self::json::Warning;
use crate::answer::Answer;
use crate::arguments::{Early, Global};
use crate::exit;
use crate::failure::Failure;

/// A sum of sizes, in bytes, which says no more than a file can have: as the library's own.
pub fn total(sizes: impl IntoIterator<Item = u64>) -> u64 {
    let most = i64::MAX as u64;
    let add = |sum: u64, size| sum.saturating_add(size).min(most);
    sizes.into_iter().fold(0, add)
}

/// What titles look like.
pub const STRONG: Style = Style::new().bold();
/// What is less important.
pub const FAINT: Style = Style::new().dimmed();
/// What is well.
pub const GOOD: Style = AnsiColor::Green.on_default();
const ERROR: Style = AnsiColor::Red.on_default().bold();
/// What deserves a look.
pub const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();

/// Where a document writes its text.
pub struct Page<'a> {
    /// The text.
    pub out: &'a mut dyn Write,
    /// `-v`: more, and absolute times.
    pub verbose: bool,
    /// `-q`: what was asked for alone.
    pub quiet: bool,
    /// What times are relative to.
    pub now: SystemTime,
}

impl Page<'_> {
    /// A time: relative, or with `-v` absolute.
    pub fn time(&self, time: SystemTime) -> String {
        if self.verbose {
            human::absolute(time)
        } else {
            human::relative(time, self.now)
        }
    }
}

/// How and where things are printed.
pub struct Screen {
    json: bool,
    verbose: bool,
    quiet: bool,
    /// `--strict`.
    pub strict: bool,
}

impl Screen {
    /// From what is known before the arguments are.
    pub fn new(early: &Early) -> Self {
        anstream::ColorChoice::write_global(early.color.into());
        Self {
            json: early.json,
            verbose: false,
            quiet: false,
            strict: false,
        }
    }

    /// With what the arguments say.
    pub fn with(self, global: &Global) -> Self {
        anstream::ColorChoice::write_global(global.color.into());
        Self {
            json: global.json,
            verbose: global.verbose > 0,
            quiet: global.quiet,
            strict: global.strict,
        }
    }

    /// Prints an answer and says what to exit with.
    pub fn answer(&self, answer: &Answer) -> io::Result<u8> {
        let code = answer.code(self.strict);
        let mut text = Vec::new();
        if self.json {
            answer.write_json(&mut text, io::stdout().is_terminal())?;
            write_stdout(&text)?;
            return Ok(code);
        }
        answer.write_text(&mut Page {
            out: &mut text,
            verbose: self.verbose,
            quiet: self.quiet,
            now: SystemTime::now(),
        })?;
        let written = write_stdout(&for_stream(text, &io::stdout()));
        if !self.quiet {
            self.warnings(&answer.warnings);
        }
        if let Some(failure) = &answer.failure {
            write_failure(failure);
        } else if code == exit::WARNINGS {
            write_failure(&strictness(answer.warnings.len()));
        }
        written.map(|()| code)
    }

    /// Prints what went wrong and says what to exit with.
    pub fn failure(&self, failure: &Failure) -> u8 {
        if self.json {
            let mut text = Vec::new();
            let pretty = io::stdout().is_terminal();
            // Who does not listen any more is not told.
            let _ =
                json::write_failure(&mut text, pretty, failure).and_then(|()| write_stdout(&text));
        } else {
            write_failure(failure);
        }
        failure.code
    }

    /// Prints `--help`, `--version` or what is wrong with the arguments, and says what to exit with.
    pub fn usage(&self, error: &clap::Error) -> u8 {
        if !error.use_stderr() {
            let _ = error.print();
            return exit::OK;
        }
        if self.json {
            return self.failure(&json::usage(error));
        }
        let _ = error.print();
        exit::code(snapshotter::ErrorKind::InvalidInput)
    }

    fn warnings(&self, warnings: &[Warning]) {
        let mut text = Vec::new();
        for warning in warnings {
            let _ = writeln!(text, "{WARNING}warning:{WARNING:#} {}", warning.shown());
        }
        write_stderr(text);
    }
}

fn strictness(warnings: usize) -> Failure {
    Failure::new(
        snapshotter::ErrorKind::InvalidInput,
        format!(
            "done, but with {}, which --strict makes an error",
            human::count(warnings as u64, "warning")
        ),
    )
}

fn write_failure(failure: &Failure) {
    let mut text = Vec::new();
    let _ = writeln!(text, "{ERROR}error:{ERROR:#} {}", visible(&failure.message));
    for cause in &failure.causes {
        let _ = writeln!(text, "  caused by: {}", visible(cause));
    }
    if let Some(hint) = &failure.hint {
        let _ = writeln!(text, "   {HINT}hint:{HINT:#} {}", visible(hint));
    }
    write_stderr(text);
}

fn write_stdout(text: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text)?;
    stdout.flush()
}

/// A closed stderr is nothing to fail for.
fn write_stderr(text: Vec<u8>) {
    let text = for_stream(text, &io::stderr());
    let _ = io::stderr().lock().write_all(&text);
}

/// The text as a stream takes it: without colour where that is not wanted.
fn for_stream(text: Vec<u8>, stream: &impl anstream::stream::RawStream) -> Vec<u8> {
    match AutoStream::choice(stream) {
        anstream::ColorChoice::Never => plain(&text),
        _ => text,
    }
}

/// The text without colours. What comes from elsewhere holds no escape characters ([`visible`]), so each of them begins
/// one of ours, which ends with an `m`.
fn plain(text: &[u8]) -> Vec<u8> {
    let mut parts = text.split(|byte| *byte == b'\x1b');
    let mut plain = parts.next().unwrap_or_default().to_vec();
    for part in parts {
        let end = part
            .iter()
            .position(|byte| *byte == b'm')
            .map_or(0, |at| at + 1);
        plain.extend_from_slice(&part[end..]);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_taken_out_and_nothing_else() {
        let text = format!("{STRONG}a{STRONG:#} m [b] {ERROR}c{ERROR:#}\n");
        assert_eq!(plain(text.as_bytes()), b"a m [b] c\n");
        assert_eq!(plain(b""), b"");
    }
}

//! The one place that writes to the terminal: answers to stdout, warnings and errors to stderr, or all of it as one
//! JSON document to stdout.

pub mod human;
pub mod json;
mod stream;
mod table;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::SystemTime;

use anstyle::{AnsiColor, Style};

use snapshotter::Reader;
pub use table::{Align, Row, Table};

use self::human::visible;
use self::json::Warning;
use self::stream::Stream;
use crate::answer::Answer;
use crate::arguments::{Early, Global};
use crate::exit;
use crate::failure::Failure;
use crate::progress;

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
    /// How times are shown.
    pub times: Times,
}

impl Page<'_> {
    /// A time: relative, or with `-v` absolute.
    pub fn time(&self, time: SystemTime) -> String {
        self.times.shown(time)
    }

    /// The line that a snapshot's report begins with: what it is called, and its manifest's digest.
    pub fn heading(&mut self, reference: &str, digest: &str) -> io::Result<()> {
        let name = human::without_digest(reference);
        let digest = format_args!("{FAINT}{digest}{FAINT:#}");
        writeln!(self.out, "{STRONG}{name}{STRONG:#}  {digest}")
    }

    /// The line that the report on one begins with that is to be found somewhere: what it is called, and where it is.
    pub fn whereabouts(&mut self, reference: &str, what: &str, path: &Path) -> io::Result<()> {
        let name = human::without_digest(reference);
        let (what, path) = (format_args!("{FAINT}{what}{FAINT:#}"), human::path(path));
        writeln!(self.out, "{STRONG}{name}{STRONG:#} {what} {path}")
    }
}

/// How times are shown.
#[derive(Clone, Copy)]
pub enum Times {
    /// To the second.
    Absolute,
    /// As seen from then.
    Since(SystemTime),
}

impl Times {
    /// One of them.
    pub fn shown(self, time: SystemTime) -> String {
        match self {
            Self::Absolute => human::absolute(time),
            Self::Since(now) => human::relative(time, now),
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
        if let Some(file) = &answer.file {
            // Not through what takes escapes out of text.
            let mut out = io::stdout().lock();
            copy(file, &mut out)?;
            out.flush()?;
        }
        // An answer may be longer than what there is memory for, so it goes out as it is made.
        let mut out = Stream::new(io::stdout());
        if self.json && answer.file.is_none() {
            answer.write_json(&mut out, io::stdout().is_terminal())?;
            return out.flush().map(|()| code);
        }
        let written = answer.write_text(&mut Page {
            out: &mut out,
            verbose: self.verbose,
            quiet: self.quiet,
            times: if self.verbose {
                Times::Absolute
            } else {
                Times::Since(SystemTime::now())
            },
        });
        let written = written.and_then(|()| out.flush());
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
            let mut out = Stream::new(io::stdout());
            let pretty = io::stdout().is_terminal();
            // Who does not listen any more is not told.
            let _ = json::write_failure(&mut out, pretty, failure).and_then(|()| out.flush());
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

fn copy(file: &Reader, out: &mut impl Write) -> io::Result<()> {
    let (mut piece, mut at) = (vec![0; 1 << 20], 0);
    loop {
        let length = file.read_at(&mut piece, at)?;
        if length == 0 {
            return Ok(());
        }
        out.write_all(&piece[..length])?;
        at += length as u64;
    }
}

/// Prints what deserves a look now, while there is no answer yet.
pub fn announce(text: &str) {
    let mut line = Vec::new();
    let _ = writeln!(line, "{WARNING}warning:{WARNING:#} {}", visible(text));
    progress::around_bar(|| write_stderr(line));
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

/// A closed stderr is nothing to fail for.
fn write_stderr(text: Vec<u8>) {
    let mut out = Stream::new(io::stderr());
    let _ = out.write_all(&text).and_then(|()| out.flush());
}

//! How a call gets on, on stderr: a bar for people, an event a line for programs, nothing for a pipe.
//!
//! The library calls the observer from its worker threads. Events that come after the [`Progress`] has been dropped (a
//! cancelled call is still finishing) are ignored, so nothing is drawn over an error message.

mod standing;
mod work;

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, TermLike};
use serde::Serialize;
use snapshotter::{Event, Observer, Phase, Placement};

use crate::arguments::ProgressMode;
use crate::output::json::Relative;
use crate::output::{human, total};
use standing::Standing;
use work::Work;

/// What is in work, for the bar.
static WORK: Mutex<Work> = Mutex::new(Work::new());

/// The bar that is being drawn, for those who write to stderr meanwhile.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Does something with the bar out of the way.
pub fn around_bar<T>(work: impl FnOnce() -> T) -> T {
    let bar = lock(&BAR).clone();
    match bar {
        Some(bar) => bar.suspend(work),
        None => work(),
    }
}

/// A call that is shown, until this is dropped.
pub struct Progress(Arc<Listener>);

struct Listener(Mutex<Shown>);

enum Shown {
    Nothing,
    Bar(ProgressBar),
    Lines(Lines),
}

impl Progress {
    /// Starts showing a call.
    pub fn start(mode: ProgressMode, quiet: bool, title: &str) -> Self {
        let terminal = io::stderr().is_terminal()
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let shown = match mode {
            ProgressMode::Json => Shown::Lines(Lines::default()),
            ProgressMode::Auto if terminal && !quiet => Shown::Bar(bar(title)),
            ProgressMode::Always => Shown::Bar(bar(title)),
            ProgressMode::Auto | ProgressMode::Never => Shown::Nothing,
        };
        if let Shown::Bar(bar) = &shown {
            *lock(&BAR) = Some(bar.clone());
            *lock(&WORK) = Work::new();
        }
        Self(Arc::new(Listener(Mutex::new(shown))))
    }

    /// For [`Snapshotter::observed_by`](snapshotter::Snapshotter::observed_by).
    pub fn observer(&self) -> Arc<dyn Observer> {
        Arc::clone(&self.0) as _
    }

    /// Says how much there is to check, which the library does not.
    pub fn expect(&self, files: u64, bytes: u64) {
        self.0.event(&Event::Planned {
            phase: Phase::Verify,
            files,
            bytes,
        });
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let shown = std::mem::replace(&mut *lock(&self.0.0), Shown::Nothing);
        match shown {
            Shown::Nothing => {}
            Shown::Bar(bar) => {
                lock(&BAR).take();
                bar.finish_and_clear();
            }
            Shown::Lines(mut lines) => lines.flush(),
        }
    }
}

impl Observer for Listener {
    fn event(&self, event: &Event) {
        match &mut *lock(&self.0) {
            Shown::Nothing => {}
            Shown::Bar(bar) => show(bar, event),
            Shown::Lines(lines) => lines.event(event),
        }
    }
}

/// A panic elsewhere is no reason to lose the bar.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bar(title: &str) -> ProgressBar {
    let target = ProgressDrawTarget::term_like_with_hz(Box::new(Stderr::default()), 10);
    let bar = ProgressBar::with_draw_target(Some(0), target).with_prefix(title.to_owned());
    bar.set_style(style(title, working));
    bar
}

/// Lines of our own making: indicatif's would be wrapped where the terminal is narrow.
fn style(title: &str, lines: fn(&str, &ProgressState) -> String) -> ProgressStyle {
    let title = title.to_owned();
    let draw = move |state: &ProgressState, out: &mut dyn fmt::Write| {
        let lines = lines(&title, state);
        let cut = |line: &str| line.chars().take(columns().into()).collect();
        let lines: Vec<String> = lines.lines().map(cut).collect();
        let _ = out.write_str(&lines.join("\n"));
    };
    ProgressStyle::with_template("{lines}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("lines", draw)
}

fn working(title: &str, state: &ProgressState) -> String {
    let standing = Standing {
        title,
        done: state.pos(),
        total: state.len().unwrap_or(0).max(state.pos()),
        rate: state.per_sec() as u64,
        left: state.eta(),
    };
    let columns = columns().into();
    let work = lock(&WORK).line(columns);
    format!("{}\n{work}", standing.line(columns))
}

fn syncing(title: &str, state: &ProgressState) -> String {
    let (done, elapsed) = (human::bytes(state.pos()), human::duration(state.elapsed()));
    format!("{title} {done} read, waiting for the disk, {elapsed}")
}

/// Draws the bar while nothing is told. Indicatif would do that, and panics where it gets no thread; here the bar then moves
/// only with what is told.
fn keep_moving(bar: &ProgressBar) {
    let bar = bar.downgrade();
    let moving = move || {
        while let Some(bar) = bar.upgrade().filter(|bar| !bar.is_finished()) {
            bar.tick();
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let _ = std::thread::Builder::new().spawn(moving);
}

fn show(bar: &ProgressBar, event: &Event) {
    match event {
        // One call can fetch, then place; or take, then publish: each has the bar for itself.
        Event::Planned { phase, bytes, .. } => {
            if lock(&WORK).begin(*phase).is_none() {
                keep_moving(bar);
            }
            bar.set_style(style(&bar.prefix(), working));
            bar.set_length(*bytes);
            bar.set_position(0);
            bar.reset_eta();
        }
        Event::FileStarted { path, bytes } => lock(&WORK).start(human::path(path), *bytes),
        Event::Progressed { bytes } => bar.inc(*bytes),
        Event::FileFinished { path, .. } => lock(&WORK).finish(&human::path(path)),
        Event::Syncing => bar.set_style(style(&bar.prefix(), syncing)),
        _ => {}
    }
}

/// Stderr as something to draw on, terminal or not: whoever said `always` knows a terminal behind it.
#[derive(Debug, Default)]
struct Stderr {
    /// Where the cursor is. Indicatif fills each line and has the next one begin where a terminal wraps, which is not where
    /// ours ends: it leaves a margin.
    column: AtomicUsize,
}

/// Columns left free for the `^C` that a terminal echoes: if it wrapped, the wrong line would be cleared.
const MARGIN: u16 = 4;

/// What a line may have.
fn columns() -> u16 {
    let size = rustix::termios::tcgetwinsize(io::stderr());
    let columns = size.map_or(0, |size| size.ws_col);
    let columns = if columns == 0 { 80 } else { columns };
    columns.saturating_sub(MARGIN).max(1)
}

impl Stderr {
    fn put(text: &str) -> io::Result<()> {
        // A closed stderr is no reason to stop.
        let _ = io::stderr().write_all(text.as_bytes());
        Ok(())
    }

    fn moved(by: usize, how: char) -> io::Result<()> {
        if by == 0 {
            return Ok(());
        }
        Self::put(&format!("\x1b[{by}{how}"))
    }

    fn begin_line(&self, with: &str) -> io::Result<()> {
        self.column.store(0, Ordering::Relaxed);
        Self::put(with)
    }
}

impl TermLike for Stderr {
    fn width(&self) -> u16 {
        columns()
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        Self::moved(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        Self::moved(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        Self::moved(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        Self::moved(n, 'D')
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        Self::put(line)?;
        self.begin_line("\n")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        let text_columns = text.chars().count();
        if text_columns > 0 && self.column.load(Ordering::Relaxed) >= self.width().into() {
            self.begin_line("\r\n")?;
        }
        self.column.fetch_add(text_columns, Ordering::Relaxed);
        Self::put(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.begin_line("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// `--progress json`.
#[derive(Default)]
struct Lines {
    files: u64,
    done: u64,
    total: u64,
    told: u64,
    last: Option<Instant>,
}

/// Bytes are told no more often than this.
const INTERVAL: Duration = Duration::from_millis(100);

#[derive(Serialize)]
#[serde(
    tag = "event",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
enum Line<'a> {
    Planned {
        phase: &'static str,
        files: u64,
        total_bytes: u64,
    },
    FileStarted {
        #[serde(flatten)]
        path: Relative,
        bytes: u64,
    },
    Progressed {
        done_bytes: u64,
        total_bytes: u64,
    },
    FileFinished {
        #[serde(flatten)]
        path: Relative,
        placement: &'a str,
    },
    Syncing,
}

impl Lines {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Planned {
                phase,
                files,
                bytes,
            } => {
                self.files += files;
                self.total = total([self.total, *bytes]);
                let (files, total_bytes) = (self.files, self.total);
                put(&Line::Planned {
                    phase: work::phase(*phase).0,
                    files,
                    total_bytes,
                });
            }
            Event::FileStarted { path, bytes } => put(&Line::FileStarted {
                path: Relative::new(path),
                bytes: *bytes,
            }),
            Event::Progressed { bytes } => {
                self.done = total([self.done, *bytes]);
                if self.last.is_none_or(|last| last.elapsed() >= INTERVAL) {
                    self.flush();
                }
            }
            Event::FileFinished { path, placement } => finished(path, *placement),
            Event::Syncing => {
                self.flush();
                put(&Line::Syncing);
            }
            _ => {}
        }
    }

    fn flush(&mut self) {
        if self.told == self.done {
            return;
        }
        self.told = self.done;
        self.last = Some(Instant::now());
        put(&Line::Progressed {
            done_bytes: self.done,
            // Bytes on the way to other places are packed, which takes a few more than was planned.
            total_bytes: self.total.max(self.done),
        });
    }
}

fn finished(path: &Path, placement: Placement) {
    let placement = match placement {
        Placement::Hardlink => "hardlink",
        Placement::Reflink => "reflink",
        Placement::Copy => "copy",
        _ => "present",
    };
    let path = Relative::new(path);
    put(&Line::FileFinished { path, placement });
}

fn put(line: &Line<'_>) {
    let Ok(mut text) = serde_json::to_vec(line) else {
        return;
    };
    text.push(b'\n');
    let _ = io::stderr().write_all(&text);
}

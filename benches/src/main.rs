//! Measures Snapshotter against `cp` on this machine and writes the tables as Markdown, with pictures of them.
//!
//! `cargo run --release -p snapshotter-benches` does all of it. Every measured operation is a whole process: this
//! binary, run again with the subcommand of [`operation`], or `cp` and `sync` themselves, all started the same way. How
//! it is made fair is in [`report`]'s text, which ends up above the tables.

mod cases;
mod guest;
mod machine;
mod measure;
mod operation;
mod options;
mod plots;
mod process;
mod report;
mod results;
mod settle;
mod svg;

use std::process::ExitCode;

use options::{Command, Options};
use results::Results;

/// What goes wrong here is for people to read; nothing is handled by kind.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("snapshotter-benches: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<()> {
    match options::parse(std::env::args().skip(1))? {
        Command::Help => {
            say(options::HELP);
            Ok(())
        }
        Command::Operation(operation) => operation.run(),
        Command::All(options) => all(&options),
    }
}

/// Makes the page of what is measured now, or was before. How fast something was is no reason to fail.
fn all(options: &Options) -> Result<()> {
    let mut results = match options.results() {
        Some(kept) if !options.is_whole() => Results::kept(&kept)?,
        _ => Results::default(),
    };
    let newer = match &options.plot {
        Some(file) => Results::read(file)?,
        None => {
            results.admits(options.divisor)?;
            measure(options)?
        }
    };
    results.add(newer)?;
    report::write(&results, options)
}

/// Runs every case that was asked for.
fn measure(options: &Options) -> Result<Results> {
    let work = settle::WorkDir::create(&options.dir)?;
    let moment = machine::moment();
    let mut facts = machine::look(work.path())?;
    let mut bench = measure::Bench::new(options, work.path())?;
    let started = std::time::Instant::now();
    for case in cases::ALL {
        if bench.wants_case(case.name) {
            // Anew for each: files that stay in the cache take what there was.
            let _memory = settle::Fragments::hold()?;
            (case.run)(&mut bench)?;
        }
    }
    facts.extend(report::facts(options, &bench, started.elapsed()));
    work.remove()?;
    Ok(Results::of(&moment, facts, bench))
}

/// Tells how it gets on.
#[expect(clippy::print_stderr, reason = "progress is for the person who waits")]
fn say(text: &str) {
    eprintln!("{text}");
}

/// Gives the result.
#[expect(clippy::print_stdout, reason = "results go to standard output")]
fn print(text: &str) {
    println!("{text}");
}

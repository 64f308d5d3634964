//! The command `snapshotter`: the library's operations for people, scripts and agents.
//!
//! From the command line to the exit code in one sentence: arguments are parsed, settings gathered, the verb run, its
//! answer printed. A verb never prints: it hands back a document and perhaps a failure, so text and JSON say the same.

mod answer;
mod arguments;
mod context;
mod exit;
mod failure;
mod hints;
mod interrupt;
mod limits;
mod log;
mod output;
mod progress;
mod settings;
mod verbs;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::FromArgMatches;

use crate::answer::Answer;
use crate::arguments::{Arguments, Command, Early};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Screen;

fn main() -> ExitCode {
    limits::prepare();
    let given: Vec<OsString> = std::env::args_os().collect();
    let early = Early::look(&given);
    let screen = Screen::new(&early);
    let code = match parse(given, &early) {
        Ok(arguments) => run(arguments, screen),
        Err(error) => screen.usage(&error),
    };
    ExitCode::from(code)
}

fn parse(given: Vec<OsString>, early: &Early) -> Result<Arguments, clap::Error> {
    let mut matches = arguments::command()
        .color(early.color.into())
        .try_get_matches_from(given)?;
    let names = arguments::names(&matches);
    let mut arguments = Arguments::from_arg_matches_mut(&mut matches)?;
    arguments.global.names = names;
    Ok(arguments)
}

fn run(arguments: Arguments, screen: Screen) -> u8 {
    let Arguments { global, command } = arguments;
    let screen = screen.with(&global);
    // Asked at each TAB, and no setting of this call is that of the line which is being typed.
    if let Command::Complete(args) = command {
        return finish(&screen, verbs::complete::run(args));
    }
    log::start(&global, matches!(command, Command::Mount(_)));
    let result = Context::new(global).and_then(|context| verbs::run(&context, command));
    interrupt::now_ends_at_once();
    match result {
        Ok(answer) => finish(&screen, answer),
        Err(failure) => screen.failure(&failure),
    }
}

fn finish(screen: &Screen, answer: Answer) -> u8 {
    screen
        .answer(&answer)
        .unwrap_or_else(|error| match error.kind() {
            // Whoever read the output has seen enough.
            std::io::ErrorKind::BrokenPipe => answer.code(screen.strict),
            _ => screen.failure(&Failure::of_output(&error)),
        })
}

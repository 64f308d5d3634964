//! One file a verb: its arguments, what it does, what it answers.

pub mod cat;
pub mod complete;
pub mod completions;
pub mod config;
pub mod convert;
pub mod copy;
pub mod df;
pub mod diff;
pub mod doctor;
pub mod gc;
pub mod inspect;
pub mod list;
pub mod man;
pub mod mount;
pub mod pin;
pub mod prune;
pub mod ps;
pub mod pull;
pub mod push;
pub mod remove;
pub mod restore;
pub mod snapshot;
pub mod tag;
pub mod umount;
pub mod verify;

use crate::answer::Answer;
use crate::arguments::{self, Command};
use crate::context::Context;
use crate::failure::Result;

/// Runs a verb.
pub fn run(context: &Context, command: Command) -> Result<Answer> {
    use Command::{Complete, Completions, Config, Man, Umount, Version};
    if !matches!(
        command,
        Complete(_) | Completions(_) | Config(_) | Man(_) | Umount(_) | Version
    ) {
        context.settings.require_tenant()?;
    }
    let answer = match command {
        Command::Snapshot(args) => snapshot::run(context, *args),
        Command::Restore(args) => restore::run(context, args),
        Command::Push(args) => push::run(context, &args),
        Command::Pull(args) => pull::run(context, &args),
        Command::Copy(args) => copy::run(context, &args),
        Command::List(args) => list::run(context, &args),
        Command::Cat(args) => cat::run(context, &args),
        Command::Mount(args) => mount::run(context, &args),
        Umount(args) => umount::run(context, &args),
        Command::Inspect(args) => inspect::run(context, &args),
        Command::Convert(args) => convert::run(context, &args),
        Command::Diff(args) => diff::run(context, &args),
        Command::Tag(args) => tag::run(context, &args),
        Command::Prune(args) => prune::run(context, &args),
        Command::Remove(args) => remove::run(context, &args),
        Command::Verify(args) => verify::run(context, &args),
        Command::Df(args) => df::run(context, &args),
        Command::Ps(args) => ps::run(context, &args),
        Command::Gc(args) => gc::run(context, &args),
        Command::Pin(args) => pin::pin(context, &args),
        Command::Unpin(args) => pin::unpin(context, &args),
        Command::Config(args) => config::run(context, &args),
        Command::Doctor(args) => doctor::run(context, &args),
        Complete(args) => Ok(complete::run(args)),
        Command::Completions(args) => Ok(completions::run(&args)),
        Version => Ok(Answer::script(
            arguments::command().render_version().into_bytes(),
        )),
        Command::Man(args) => man::run(&args),
    }?;
    Ok(answer.with_warnings(context.settings.warnings()))
}

//! `snapshotter ps`.

use std::io;

use serde::Serialize;
use snapshotter::Holder;

use crate::answer::{Answer, Document};
use crate::context::Context;
use crate::failure::Result;
use crate::output::json::Time;
use crate::output::{Align, Page, Table};

/// Shows which processes have the store open, and what each holds there
///
/// A snapshot that is held stays until the call that holds it ends: gc leaves it, and remove takes its name alone. Calls are
/// commands, and those of programs with the library. What is dead is not shown.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  snapshotter ps
  snapshotter ps --json | jq '.holders[] | select(.verb == \"restore\")'")]
pub struct Args {}

/// Runs it.
pub fn run(context: &Context, _: &Args) -> Result<Answer> {
    context.require_store()?;
    let found = context.with_store(async |store| Ok(store.holders().await?))?;
    let holders = found.value.iter().map(One::new).collect();
    Ok(Answer::new(Holders { holders }).with_warnings(found.warnings))
}

#[derive(Serialize)]
struct Holders {
    holders: Vec<One>,
}

#[derive(Serialize)]
struct One {
    pid: Option<u32>,
    command: Option<String>,
    verb: Option<&'static str>,
    reference: Option<String>,
    name: Option<String>,
    version: Option<String>,
    since: Option<Time>,
}

impl One {
    fn new(holder: &Holder) -> Self {
        let reference = holder.reference.as_ref();
        let version = reference.and_then(|one| one.version());
        Self {
            pid: holder.pid,
            command: holder.command.clone(),
            verb: holder.operation.map(snapshotter::Operation::as_str),
            reference: reference.map(ToString::to_string),
            name: reference.map(|one| one.name().to_owned()),
            version: version.map(str::to_owned),
            since: holder.since.map(Time),
        }
    }
}

impl Document for Holders {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        if self.holders.is_empty() {
            return match page.quiet {
                true => Ok(()),
                false => writeln!(page.out, "No other process has the store open."),
            };
        }
        let mut table = Table::new([
            ("PID", Align::Right),
            ("VERB", Align::Left),
            ("SNAPSHOT", Align::Left),
            ("SINCE", Align::Left),
            ("COMMAND", Align::Left),
        ]);
        for one in &self.holders {
            let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            table.row(&[
                &or_dash(one.pid.map(|pid| pid.to_string())),
                &one.verb.unwrap_or("-"),
                &or_dash(one.reference.clone()),
                &or_dash(one.since.as_ref().map(|since| page.time(since.0))),
                &one.command.as_deref().unwrap_or("-"),
            ]);
        }
        table.write(page.out)
    }
}

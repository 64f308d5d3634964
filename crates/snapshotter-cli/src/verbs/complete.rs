//! `snapshotter complete`, hidden: what the completion scripts of shells ask at each TAB. It says a candidate a line, and
//! nothing where something is wrong: whoever is typing has not asked for errors. No registry is asked, and a store that
//! somebody keeps locked is given up.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgMatches, Command, FromArgMatches, ValueHint};
use clap_complete::engine::{
    ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter, complete,
};
use snapshotter::{Reference, Snapshotter};

use crate::answer::Answer;
use crate::arguments::{self, Global};
use crate::context::Context;
use crate::failure::Result;

/// Says what a word may become
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The command line up to the cursor, the command itself first; the last word is the one to complete, perhaps empty
    #[arg(last = true)]
    words: Vec<OsString>,
}

/// How long a TAB waits for the store.
const PATIENCE: Duration = Duration::from_millis(500);

/// Runs it.
pub fn run(args: Args) -> Answer {
    let words = args.words;
    let Some(last) = words.len().checked_sub(1) else {
        return Answer::script(Vec::new());
    };
    let here = std::env::current_dir().ok();
    let is_option = |value: &OsStr| value.as_bytes().starts_with(b"-");
    let mut command = completing(&words);
    let empty = words[last].is_empty();
    let mut found = complete(&mut command, words, last, here.as_deref()).unwrap_or_default();
    // Options are for those who began one, unless there is nothing else.
    if empty && found.iter().any(|one| !is_option(one.get_value())) {
        found.retain(|one| !is_option(one.get_value()));
    }
    Answer::script(lines(&found))
}

fn lines(found: &[CompletionCandidate]) -> Vec<u8> {
    let mut text = Vec::new();
    // A name with a line break in it would be two, and one with an escape would do something to the terminal.
    let is_plain =
        |one: &&CompletionCandidate| !one.get_value().as_bytes().iter().any(u8::is_ascii_control);
    for one in found.iter().filter(is_plain) {
        text.extend_from_slice(one.get_value().as_bytes());
        let help = one.get_help().map(ToString::to_string).unwrap_or_default();
        if let Some(first) = help.lines().next() {
            // Writing to a vector does not fail.
            let _ = write!(text, "\t{first}");
        }
        text.push(b'\n');
    }
    text
}

/// The command line, whose arguments know what there is in the store that the words so far speak of.
fn completing(words: &[OsString]) -> Command {
    let matches = arguments::command()
        .ignore_errors(true)
        .try_get_matches_from(&words[..words.len() - 1])
        .ok();
    let here = Here { matches };
    arguments::command().mut_subcommands(|verb| {
        let name = verb.get_name().to_owned();
        verb.mut_args(|arg| match arg.get_id().as_str() {
            "path" if name == "cat" => arg.add(ArgValueCompleter::new(Paths(here.clone()))),
            "paths" if name == "restore" => arg.add(ArgValueCompleter::new(Paths(here.clone()))),
            id if arguments::NAMES.contains(&id) && arg.get_value_hint() != ValueHint::FilePath => {
                let directory = arg.get_value_hint() == ValueHint::DirPath;
                let (here, glob) = (here.clone(), id == "glob");
                arg.add(ArgValueCompleter::new(References {
                    here,
                    glob,
                    directory,
                }))
            }
            _ => arg,
        })
    })
}

/// What was typed so far.
#[derive(Clone)]
struct Here {
    matches: Option<ArgMatches>,
}

impl Here {
    /// Asks the store, if there is one and it can be had at once.
    fn ask<T>(&self, work: impl AsyncFnOnce(&Snapshotter) -> Result<T>) -> Option<T> {
        let matches = self.matches.as_ref()?;
        let mut global = Global::from_arg_matches(matches).ok()?;
        global.names = arguments::names(matches);
        global.timeout = Some(PATIENCE);
        let context = Context::new(global).ok()?;
        context.require_store().ok()?;
        Some(context.with_store(work).ok()?.value)
    }

    /// The snapshot whose paths are to be completed.
    fn reference(&self) -> Option<Reference> {
        let (_, given) = self.matches.as_ref()?.subcommand()?;
        given.get_one::<String>("reference")?.parse().ok()
    }
}

/// Completes names, and versions after a colon.
struct References {
    here: Here,
    /// A name alone will do.
    glob: bool,
    /// A directory will do too.
    directory: bool,
}

impl ValueCompleter for References {
    fn complete(&self, current: &OsStr) -> Vec<CompletionCandidate> {
        let known = self.here.ask(async |store| Ok(store.list().await?));
        let known = known.unwrap_or_default();
        let known: Vec<_> = known.iter().map(|one| &one.reference).collect();
        let typed = current.to_string_lossy();
        let found = references(&known, &typed, self.glob);
        let mut found: Vec<_> = found.into_iter().map(CompletionCandidate::new).collect();
        if self.directory {
            found.extend(PathCompleter::dir().complete(current));
        }
        found
    }
}

fn references(known: &[&Reference], typed: &str, glob: bool) -> Vec<String> {
    let names = known.iter().map(|reference| reference.name());
    let names: BTreeSet<&str> = names.filter(|name| name.starts_with(typed)).collect();
    if glob && !typed.contains(':') {
        return names.into_iter().map(str::to_owned).collect();
    }
    if names.len() > 1 {
        return names.into_iter().map(|name| format!("{name}:")).collect();
    }
    let whole =
        |reference: &&Reference| Some(format!("{}:{}", reference.name(), reference.version()?));
    let whole = known.iter().filter_map(whole);
    whole.filter(|text| text.starts_with(typed)).collect()
}

/// Completes what is in a snapshot, a directory at a time.
struct Paths(Here);

impl ValueCompleter for Paths {
    fn complete(&self, current: &OsStr) -> Vec<CompletionCandidate> {
        let Some(reference) = self.0.reference() else {
            return Vec::new();
        };
        let known = self
            .0
            .ask(async |store| Ok(store.inspect(&reference).await?));
        let paths = known.into_iter().flat_map(|snapshot| snapshot.files);
        steps(paths.map(|file| file.entry.relative_path), current)
            .into_iter()
            .map(CompletionCandidate::new)
            .collect()
    }
}

/// The next component of each path that begins like this.
fn steps(paths: impl Iterator<Item = PathBuf>, typed: &OsStr) -> BTreeSet<OsString> {
    let step = |path: PathBuf| {
        let bytes = Path::as_os_str(&path).as_bytes();
        let rest = bytes.strip_prefix(typed.as_bytes())?;
        let slash = rest.iter().position(|byte| *byte == b'/');
        let end = slash.map_or(bytes.len(), |at| typed.len() + at + 1);
        Some(OsStr::from_bytes(&bytes[..end]).to_owned())
    };
    paths.filter_map(step).collect()
}

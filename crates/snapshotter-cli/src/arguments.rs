//! The command line: what clap needs to know. Each verb's own arguments are beside the verb.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgAction, ArgMatches, CommandFactory, Parser, Subcommand, ValueEnum};
use snapshotter::LinkMode;

use crate::exit;
use crate::settings::parse_duration;
use crate::verbs;

/// The colours of `--help`: the same as those of errors and tables.
const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default())
    .error(AnsiColor::Red.on_default().bold())
    .valid(AnsiColor::Cyan.on_default())
    .invalid(AnsiColor::Yellow.on_default());

/// Takes snapshots of sets of files and restores them
#[derive(Debug, Parser)]
#[command(
    name = "snapshotter",
    bin_name = "snapshotter",
    version,
    about = "Takes snapshots of sets of files and restores them",
    long_about = LONG_ABOUT,
    after_help = AFTER_HELP,
    after_long_help = after_long_help(),
    styles = STYLES,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Arguments {
    /// What every command understands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The command line. The verbs take the global options, and their helps leave them to that of the command itself.
pub fn command() -> clap::Command {
    let command = Arguments::command();
    let global = command.get_arguments().filter(|arg| arg.is_global_set());
    let hidden: Vec<_> = global.map(|arg| arg.clone().hide(true)).collect();
    command.mut_subcommands(|verb| {
        let examples = verb.get_after_long_help().map(|text| format!("{text}\n\n"));
        let long = examples.unwrap_or_default() + OF_GLOBAL;
        verb.args(&hidden)
            .after_help(OF_GLOBAL)
            .after_long_help(long)
    })
}

const OF_GLOBAL: &str =
    "`snapshotter --help` has the global options, such as --root, --json, -q and -v.";

const LONG_ABOUT: &str = "\
Takes snapshots of sets of files (VM and process checkpoints, sparse memory dumps, disk images), names them NAME:VERSION, \
and restores them elsewhere: exactly as they were, fast, and without filling the disk with copies.

Snapshots are kept in a directory, the root. Equal bytes are kept once. Files promised to be read-only are hardlinked in \
and out where the filesystem allows it.";

const AFTER_HELP: &str = "\
Example:
  snapshotter snapshot vm:v1 ./vm      takes a snapshot of everything in ./vm
  snapshotter restore vm:v1 ./copy     puts it into ./copy

With a registry configured, snapshots are published to it, and fetched from it where they are not here.
`snapshotter COMMAND --help` has examples for each command.";

fn after_long_help() -> String {
    format!(
        "\
Example:
  snapshotter snapshot vm:v1 ./vm --read-only memory
  snapshotter list
  snapshotter restore vm:v1 ./copy
  snapshotter remove vm:v1

Settings:
  The root, where snapshots are kept, is the first of these:
    --root DIR
    $SNAPSHOTTER_ROOT_DIR
    root_dir in $XDG_CONFIG_HOME/snapshotter/config.toml
    root_dir in /etc/snapshotter/config.toml
    /var/lib/snapshotter for root, $XDG_DATA_HOME/snapshotter for others
  Snapshots are published to a registry and fetched from it where registry.endpoint is set:
    $SNAPSHOTTER_REGISTRY_ENDPOINT, or endpoint below [registry] in a configuration file
  Their bytes are where content.provider says: s3 and others, fs (a directory), or the registry.
  `snapshotter config` shows all settings and where each came from.

Exit codes:
{}",
        exit::TABLE
    )
}

/// What every command understands.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Where snapshots are kept
    #[arg(long, global = true, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub root: Option<PathBuf>,
    /// With isolation = "name": whose snapshots, where no snapshot is named
    ///
    /// The first component of their names. A command is for one tenant.
    #[arg(long, global = true, value_name = "NAME")]
    pub tenant: Option<String>,
    /// The names that the verb was given.
    #[arg(skip)]
    pub names: Vec<String>,
    /// Read this configuration file instead of the usual ones
    ///
    /// The usual ones are /etc/snapshotter/config.toml and then $XDG_CONFIG_HOME/snapshotter/config.toml.
    /// `snapshotter config --defaults` prints one to start from.
    #[arg(long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Read settings from a file of NAME=VALUE lines too
    ///
    /// SNAPSHOTTER_* variables in it count as if they were set, unless they are. So do REGISTRY_*, CONTENT_* and
    /// DRAGONFLY_*, as the Go library's example calls them: REGISTRY_ENDPOINT is registry.endpoint.
    #[arg(long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub env_file: Option<PathBuf>,
    /// Print one JSON document, errors too (docs/json.md)
    #[arg(long, global = true)]
    pub json: bool,
    /// Print no summary, no warnings and no progress; of a list, the names alone
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print more, and say what is done; twice: each request; thrice: what the libraries say
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Exit with 9 if there are warnings
    #[arg(long, global = true)]
    pub strict: bool,
    /// Send at most this many bytes of contents a second: 10MiB
    #[arg(long, global = true, value_name = "BYTES")]
    pub limit_upload: Option<String>,
    /// Fetch at most this many bytes of contents a second
    #[arg(long, global = true, value_name = "BYTES")]
    pub limit_download: Option<String>,
    /// Work on this many files at once (snapshot_concurrency and restore_concurrency)
    #[arg(short, long, global = true, value_name = "N")]
    pub jobs: Option<String>,
    /// Give up after this long: 30s, 10m, 1h30m
    ///
    /// The command then cleans up as after a signal, and exits with 6. Without it, it takes as long as it takes; single
    /// requests have time limits of their own (registry.timeout, content.timeout).
    #[arg(long, global = true, value_name = "DURATION", value_parser = timeout)]
    pub timeout: Option<Duration>,
    /// When to show progress on stderr; json: an event a line
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        value_enum,
        default_value_t,
        hide_possible_values = false
    )]
    pub progress: ProgressMode,
    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    pub color: Color,
    /// How -v logs on stderr
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        value_enum,
        default_value_t
    )]
    pub log_format: LogFormat,
}

/// The arguments that name snapshots, whatever the verb.
pub const NAMES: [&str; 6] = ["reference", "references", "new", "from", "to", "glob"];

/// What the verb was given that names snapshots.
pub fn names(matches: &ArgMatches) -> Vec<String> {
    let Some((verb, given)) = matches.subcommand() else {
        return Vec::new();
    };
    // Of some verbs they are none, or files.
    let texts = |id| given.try_get_many::<String>(id).ok().flatten();
    NAMES
        .into_iter()
        .filter_map(texts)
        .flatten()
        .filter(|text| verb != "diff" || !verbs::diff::is_directory(text))
        .cloned()
        .collect()
}

fn timeout(text: &str) -> Result<Duration, &'static str> {
    match parse_duration(text) {
        Some(duration) if !duration.is_zero() => Ok(duration),
        Some(_) => Err("it should be longer than zero"),
        None => Err("write a number and a unit (ms, s, m, h, d or w): 30s"),
    }
}

/// When progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    /// A bar, if stderr is a terminal.
    #[default]
    Auto,
    /// A bar.
    Always,
    /// Nothing.
    Never,
    /// An event a line.
    Json,
}

/// When colour is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl From<Color> for clap::ColorChoice {
    fn from(color: Color) -> Self {
        match color {
            Color::Auto => Self::Auto,
            Color::Always => Self::Always,
            Color::Never => Self::Never,
        }
    }
}

impl From<Color> for anstream::ColorChoice {
    fn from(color: Color) -> Self {
        match color {
            Color::Auto => Self::Auto,
            Color::Always => Self::Always,
            Color::Never => Self::Never,
        }
    }
}

/// How the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// How bytes get into the store and out of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Link {
    /// Read-only files: hardlink, else reflink, else copy. Others: reflink, else copy
    #[default]
    Auto,
    /// As auto, with a warning for each read-only file that could not be hardlinked
    Hardlink,
    /// Reflink, else copy with a warning
    Reflink,
    /// Always copy
    Copy,
}

impl From<Link> for LinkMode {
    fn from(link: Link) -> Self {
        match link {
            Link::Auto => Self::Auto,
            Link::Hardlink => Self::Hardlink,
            Link::Reflink => Self::Reflink,
            Link::Copy => Self::Copy,
        }
    }
}

/// The verbs. What each does is told beside it.
#[derive(Debug, Subcommand)]
pub enum Command {
    Snapshot(Box<verbs::snapshot::Args>),
    Restore(verbs::restore::Args),
    Push(verbs::push::Args),
    Pull(verbs::pull::Args),
    Copy(verbs::copy::Args),
    #[command(visible_alias = "ls")]
    List(verbs::list::Args),
    Inspect(verbs::inspect::Args),
    Cat(verbs::cat::Args),
    Mount(verbs::mount::Args),
    Umount(verbs::umount::Args),
    Diff(verbs::diff::Args),
    Convert(verbs::convert::Args),
    Tag(verbs::tag::Args),
    #[command(visible_alias = "rm")]
    Remove(verbs::remove::Args),
    #[command(visible_alias = "forget")]
    Prune(verbs::prune::Args),
    Verify(verbs::verify::Args),
    Df(verbs::df::Args),
    Ps(verbs::ps::Args),
    Gc(verbs::gc::Args),
    Pin(verbs::pin::Args),
    Unpin(verbs::pin::UnpinArgs),
    Config(verbs::config::Args),
    Doctor(verbs::doctor::Args),
    Completions(verbs::completions::Args),
    #[command(hide = true)]
    Complete(verbs::complete::Args),
    /// Prints the version, as --version does
    Version,
    #[command(hide = true)]
    Man(verbs::man::Args),
}

/// What has to be known before the arguments are parsed, because it decides how a wrong one is reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Early {
    /// `--json` was given.
    pub json: bool,
    /// `--color`, if it can be read.
    pub color: Color,
}

impl Early {
    /// Looks for the flags up to `--`. A value of another option that looks like one would be taken for it: then an
    /// error is printed in the wrong form, and nothing else happens.
    pub fn look(given: &[OsString]) -> Self {
        let mut early = Self::default();
        let mut rest = given.iter().skip(1).map(|text| text.to_string_lossy());
        while let Some(text) = rest.next().filter(|text| text != "--") {
            let color = match text.as_ref() {
                "--json" => {
                    early.json = true;
                    None
                }
                "--color" => rest.next(),
                text => text
                    .strip_prefix("--color=")
                    .map(|value| value.to_owned().into()),
            };
            if let Some(color) = color.and_then(|value| Color::from_str(&value, false).ok()) {
                early.color = color;
            }
        }
        early
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn json_and_color_are_seen_before_parsing() {
        let look = |line: &str| {
            let given: Vec<OsString> = line.split(' ').map(Into::into).collect();
            Early::look(&given)
        };
        assert!(look("snapshotter list --json").json);
        assert!(!look("snapshotter list -- --json").json);
        assert_eq!(look("snapshotter --color never x").color, Color::Never);
        assert_eq!(look("snapshotter --color=always x").color, Color::Always);
        assert_eq!(look("snapshotter --color=blue x").color, Color::Auto);
    }
}

//! `snapshotter config`. Opens no store, so it works where the settings are wrong for one.

use std::fmt::Write as _;
use std::io;

use serde::Serialize;
use snapshotter::Config;

use crate::answer::{Answer, Document};
use crate::context::Context;
use crate::failure::Result;
use crate::output::human::visible;
use crate::output::json::{Named, Warning};
use crate::output::{Align, Page, Table};
use crate::settings::{Draft, KEYS, Key, Settings, Source, Value};

/// Shows all settings, their values and where each came from
///
/// Flags win over variables, variables over --env-file, that over configuration files. Each key has a variable: gc.interval
/// is SNAPSHOTTER_GC_INTERVAL. Passwords and keys are never shown.
///
/// For a registry or bucket that is configured, and only then, what nobody set is looked for where other programs have it:
/// Docker's config.json; HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY; for a bucket without keys, where its provider's own
/// tools find them.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  snapshotter config
  snapshotter config --defaults > /etc/snapshotter/config.toml
      a file to start from")]
pub struct Args {
    /// Print a configuration file with the defaults
    #[arg(long)]
    defaults: bool,
}

/// Runs it.
pub fn run(context: &Context, args: &Args) -> Result<Answer> {
    if args.defaults && !context.global.json {
        return Ok(Answer::script(defaults().into_bytes()));
    }
    let settings = &context.settings;
    let effective = if args.defaults {
        Effective::of_defaults()
    } else {
        Effective::new(settings)
    };
    let unknown = settings.foreign_variables().map(|name| {
        Warning::new(
            "unknown_variable",
            format!("{name} is set and means nothing here"),
        )
    });
    Ok(Answer::new(effective).with_warnings(unknown))
}

/// A file whose uncommented lines are the defaults.
fn defaults() -> String {
    let defaults = default_draft();
    let mut text =
        "# Settings of snapshotter. What is commented out shows the default; \"\" is none.\n"
            .to_owned();
    let mut section = "";
    for key in KEYS {
        let (of, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if of != section {
            let _ = write!(text, "\n[{of}]\n");
            section = of;
        }
        let _ = write!(
            text,
            "\n# {}\n# {name} = {}\n",
            key.what,
            (key.get)(&defaults).toml()
        );
    }
    text
}

fn default_draft() -> Draft {
    Draft::new(Config::new("/var/lib/snapshotter"))
}

#[derive(Serialize)]
struct Effective {
    settings: Vec<Setting>,
    files: Vec<File>,
    unused: Vec<Unused>,
}

#[derive(Serialize)]
struct Setting {
    key: &'static str,
    value: Value,
    hidden: bool,
    variable: String,
    source: Origin,
}

#[derive(Serialize)]
struct File {
    #[serde(flatten)]
    path: Named,
    #[serde(rename = "read")]
    there: bool,
    #[serde(skip)]
    shown: String,
}

#[derive(Serialize)]
struct Unused {
    name: String,
    value: Option<String>,
    source: Origin,
}

/// Where a value came from.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Origin {
    Default,
    File { path: String, line: usize },
    Variable { name: String },
    Flag { name: &'static str },
}

impl Origin {
    fn new(source: &Source) -> Self {
        match source {
            Source::Default => Self::Default,
            Source::File(path, line) => Self::File {
                path: path.to_string_lossy().into_owned(),
                line: *line,
            },
            Source::Variable(name) => Self::Variable { name: name.clone() },
            Source::Flag(name) => Self::Flag { name },
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Default => "default".to_owned(),
            Self::File { path, line } => visible(&format!("{path}:{line}")),
            Self::Variable { name } => name.clone(),
            Self::Flag { name } => (*name).to_owned(),
        }
    }
}

impl Setting {
    fn new(key: &Key, draft: &Draft, source: &Source) -> Self {
        let value = (key.get)(draft);
        Self {
            key: key.name,
            hidden: value.is_hidden(),
            value,
            variable: key.variable(),
            source: Origin::new(source),
        }
    }
}

impl Unused {
    fn idle(key: &Key, settings: &Settings) -> Self {
        let value = (key.get)(&settings.draft);
        Self {
            name: key.name.to_owned(),
            value: (!value.is_hidden()).then(|| value.shown()),
            source: Origin::new(settings.source(key.name)),
        }
    }
}

impl Effective {
    fn new(settings: &Settings) -> Self {
        let setting = |key: &Key| Setting::new(key, &settings.draft, settings.source(key.name));
        Self {
            settings: KEYS.iter().map(setting).collect(),
            files: settings
                .files
                .iter()
                .map(|(path, there)| File {
                    path: Named::new(path),
                    there: *there,
                    shown: crate::output::human::path(path),
                })
                .collect(),
            unused: settings
                .foreign
                .iter()
                .map(|foreign| Unused {
                    name: foreign.name.clone(),
                    value: foreign.value.clone(),
                    source: Origin::new(&Source::File(foreign.source.0.clone(), foreign.source.1)),
                })
                .chain(settings.idle().map(|key| Unused::idle(key, settings)))
                .collect(),
        }
    }

    fn of_defaults() -> Self {
        let draft = default_draft();
        let setting = |key: &Key| Setting::new(key, &draft, &Source::Default);
        Self {
            settings: KEYS.iter().map(setting).collect(),
            files: Vec::new(),
            unused: Vec::new(),
        }
    }
}

impl Document for Effective {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        let columns = [
            ("SETTING", Align::Left),
            ("VALUE", Align::Left),
            ("FROM", Align::Left),
        ];
        let mut table = Table::new(columns);
        for setting in &self.settings {
            let value = if setting.value.is_none() {
                "(none)".to_owned()
            } else {
                visible(&setting.value.shown())
            };
            table.row(&[&setting.key, &value, &setting.source.shown()]);
        }
        for unused in &self.unused {
            let value = unused
                .value
                .as_deref()
                .map_or("(hidden)".to_owned(), visible);
            let source = format!("{}, not used by this release", unused.source.shown());
            table.row(&[&unused.name, &value, &source]);
        }
        table.write(page.out)?;
        writeln!(page.out)?;
        for file in &self.files {
            let there = if file.there {
                "read"
            } else {
                "not there, or not readable"
            };
            writeln!(page.out, "{}: {there}", file.shown)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_defaults_are_the_defaults() {
        let uncommented: String = defaults()
            .lines()
            .map(|line| {
                line.strip_prefix("# ")
                    .filter(|line| line.contains(" = "))
                    .unwrap_or(line)
            })
            .map(|line| format!("{line}\n"))
            .collect();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("c.toml");
        std::fs::write(&file, uncommented).unwrap();
        let read = crate::settings::read_file(&file).unwrap();
        assert_eq!(read, default_draft());
    }
}

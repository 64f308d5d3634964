//! The effective settings and where each came from.
//!
//! Places are read from the least to the most important: defaults, configuration files, `--env-file`, variables, flags.
//! Each is turned into assignments to the same table of keys ([`keys`]), so a key is known everywhere or nowhere. What
//! nobody set and other programs have a place for (Docker's credentials, proxies) comes from there last ([`surroundings`]).

mod draft;
mod env_file;
mod exposure;
mod field;
mod file;
mod flags;
mod keys;
mod proxy;
mod rules;
mod snapshots;
mod surroundings;
mod table;
mod tenant;
mod units;
mod value;
mod variables;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use snapshotter::Config;

pub use draft::Draft;
pub use env_file::Foreign;
use file::Expected;
pub use keys::{KEYS, Key};
pub use rules::parse_count;
pub use snapshots::Snapshots;
pub use units::{duration_text, parse_bytes, parse_duration};
pub use value::Value;

use crate::arguments::Global;
use crate::failure::{Failure, Result};
use crate::output::json::Warning;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// A line of a configuration file or an env file.
    File(PathBuf, usize),
    /// A variable.
    Variable(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// One place giving one key a value.
struct Assignment {
    key: &'static Key,
    value: Value,
    source: Source,
}

/// The effective settings.
#[derive(Debug)]
pub struct Settings {
    /// What the keys are set to.
    pub draft: Draft,
    sources: BTreeMap<&'static str, Source>,
    /// The configuration files that are looked for, and whether they are there.
    pub files: Vec<(PathBuf, bool)>,
    /// What `--env-file` sets and this release does not use.
    pub foreign: Vec<Foreign>,
    /// `SNAPSHOTTER_*` variables that mean nothing.
    unknown_variables: Vec<String>,
    /// Files with secrets in them that others can read.
    exposed: BTreeSet<PathBuf>,
}

impl Settings {
    /// Gathers them.
    pub fn gather(global: &Global) -> Result<Self> {
        let mut settings = Self::empty();
        settings.unknown_variables = variables::unknown();
        settings.read_files(global)?;
        if let Some(path) = &global.env_file {
            let read = env_file::read(path)?;
            settings.assign(read.assignments);
            settings.foreign = read.foreign;
        }
        settings.assign(variables::assignments()?);
        settings.assign(flags::assignments(global)?);
        if !settings.sources.contains_key(Key::ROOT.name) {
            settings.draft.config.root_dir = default_root()?;
        }
        settings.assign(surroundings::look(&settings.draft, text_variable));
        settings.choose_tenant(global)?;
        Ok(settings)
    }

    /// What one file says, and the flags; no variable, and no other file.
    pub fn of_file(path: &Path, global: &Global) -> Result<Self> {
        let mut settings = Self::empty();
        settings.files.push((path.to_owned(), true));
        let read = file::read(path, Expected::Certainly)?;
        settings.assign(read.unwrap_or_default());
        settings.assign(flags::assignments(global)?);
        settings.assign(surroundings::look(&settings.draft, text_variable));
        settings.choose_tenant(global)?;
        Ok(settings)
    }

    fn empty() -> Self {
        Self {
            draft: Draft::new(Config::new(PathBuf::new())),
            sources: BTreeMap::new(),
            files: Vec::new(),
            foreign: Vec::new(),
            unknown_variables: Vec::new(),
            exposed: BTreeSet::new(),
        }
    }

    /// The root, or the tenant's in it.
    pub fn root(&self) -> PathBuf {
        self.draft.config.store_dir()
    }

    /// For what is done here: a registry that cannot be used, or is badly configured, is no obstacle.
    pub fn here(&self) -> Config {
        self.draft.config.clone()
    }

    /// With the places that snapshots are published to and fetched from, if they are set.
    pub fn whole(&self) -> Result<Config> {
        surroundings::check_files(&self.draft)?;
        for main in [Key::REGISTRY, Key::CONTENT, Key::DRAGONFLY] {
            if let Some(orphan) = self.orphan(main) {
                let (name, main, source) = (orphan.name, main.name, self.source(orphan.name));
                let text = format!("{name} is set, and {main} is not");
                return Err(Failure::invalid(text)
                    .with_hint(format!("set {main} too; {name} is set by: {source}")));
            }
        }
        if self.draft.registry().is_none() && self.draft.content().is_some() {
            let source = self.source(Key::CONTENT.name);
            return Err(Failure::invalid(
                "content.provider is set, and registry.endpoint is not: snapshots are found through a registry",
            )
            .with_hint(format!(
                "a directory will do: registry.endpoint = \"oci-layout:/path\"; content.provider is set by: {source}"
            )));
        }
        if self.draft.dragonfly().is_some() && self.draft.content().is_none() {
            let source = self.source(Key::DRAGONFLY.name);
            return Err(Failure::invalid(
                "dragonfly.endpoint is set, and content.provider is not: the daemon stands in front of a bucket",
            )
            .with_hint(format!("dragonfly.endpoint is set by: {source}")));
        }
        Ok(self.draft.whole())
    }

    /// A key of a section whose main key is not set: it would do nothing.
    fn orphan(&self, main: &Key) -> Option<&'static Key> {
        self.orphans(main).next()
    }

    fn orphans(&self, main: &Key) -> impl Iterator<Item = &'static Key> {
        let is_set = !(main.get)(&self.draft).is_none();
        let defaults = Draft::new(Config::new(PathBuf::new()));
        KEYS.iter()
            .filter(move |key| !is_set && key.section() == main.section())
            .filter(move |key| (key.get)(&self.draft) != (key.get)(&defaults))
    }

    /// The keys that are set and do nothing, because what they belong to is not set.
    pub fn idle(&self) -> impl Iterator<Item = &'static Key> {
        let mains = [Key::REGISTRY, Key::CONTENT, Key::DRAGONFLY];
        let asks_nobody = self.draft.config.gc.trust_daemon && self.draft.dragonfly().is_none();
        mains
            .into_iter()
            .flat_map(|main| self.orphans(main))
            .chain(Key::named("gc.trust_daemon").filter(|_| asks_nobody))
    }

    /// Where a key's value came from.
    pub fn source(&self, key: &str) -> &Source {
        self.sources.get(key).unwrap_or(&Source::Default)
    }

    /// `SNAPSHOTTER_*` variables that mean nothing and are like no setting's: perhaps others'.
    pub fn foreign_variables(&self) -> impl Iterator<Item = &String> {
        let unknown = self.unknown_variables.iter();
        unknown.filter(|name| variables::misspelt(name).is_none())
    }

    /// What the answer should warn of.
    pub fn warnings(&self) -> Vec<Warning> {
        let names: Vec<_> = self.foreign.iter().map(|foreign| &*foreign.name).collect();
        let unused = (!names.is_empty()).then(|| {
            let names = names.join(", ");
            Warning::new(
                "unused_setting",
                format!("set by --env-file and not used by this release: {names}"),
            )
        });
        let exposed = self.exposed.iter().map(|path| exposure::warning(path));
        let misspelt = self.unknown_variables.iter().filter_map(|name| {
            let meant = variables::misspelt(name)?.variable();
            let text = format!("{name} is set and means nothing here: is {meant} meant?");
            Some(Warning::new("unknown_variable", text))
        });
        unused.into_iter().chain(exposed).chain(misspelt).collect()
    }

    /// Says where a value came from that the library does not like.
    pub fn explain(&self, failure: Failure) -> Failure {
        let named = |key: &&Key| failure.message.split(' ').next() == Some(key.name);
        let about_root = failure.about.path == Some(self.root());
        let hint = match KEYS.iter().find(named) {
            Some(key) => self.way_out(key),
            None if about_root && failure.hint.is_none() => {
                format!("this is the root, from: {}", self.source(Key::ROOT.name))
            }
            None => return failure,
        };
        failure.with_hint(hint)
    }

    /// Says which setting named the directory of contents, where something is wrong with that.
    pub fn explain_contents(&self, failure: Failure) -> Failure {
        let root = &self.draft.content.root;
        let own = self.draft.config.tenant.as_ref().map(|own| root.join(own));
        let is_about = [Some(root), own.as_ref()].contains(&failure.about.path.as_ref());
        let is_about = is_about && failure.about.path.is_some() && failure.hint.is_none();
        if self.draft.provider.is_none() || !is_about {
            return failure;
        }
        let source = self.source("content.root");
        failure.with_hint(format!(
            "this is content.root, from: {source}; it is not made, because a filesystem may not be mounted there"
        ))
    }

    /// Where to change a value that the library does not like.
    fn way_out(&self, key: &Key) -> String {
        let source = self.source(key.name);
        let is_layout = self.draft.registry.endpoint.starts_with("oci-layout:");
        match source {
            Source::Default => format!(
                "set {} in a configuration file, or {}",
                key.name,
                key.variable()
            ),
            _ if key.name == Key::REGISTRY.name && is_layout => {
                format!("the path after oci-layout: has to be absolute; it is set by: {source}")
            }
            _ => format!("it is set by: {source}"),
        }
    }

    fn read_files(&mut self, global: &Global) -> Result<()> {
        let given = global
            .config
            .clone()
            .or_else(|| variable_path("SNAPSHOTTER_CONFIG"));
        let given = given.map(|path| vec![(path, Expected::Certainly)]);
        for (path, expected) in given.unwrap_or_else(usual_files) {
            let read = file::read(&path, expected)?;
            self.files.push((path, read.is_some()));
            self.assign(read.unwrap_or_default());
        }
        Ok(())
    }

    fn assign(&mut self, assignments: impl IntoIterator<Item = Assignment>) {
        for Assignment { key, value, source } in assignments {
            if let Source::File(path, _) = &source
                && value.has_secret()
                && exposure::is_open(path)
            {
                self.exposed.insert(path.clone());
            }
            (key.set)(&mut self.draft, value);
            self.sources.insert(key.name, source);
        }
    }
}

/// A variable that is set to something.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// One that is text; another program's, so what is none is not complained of.
fn text_variable(name: &str) -> Option<String> {
    variable(name)?.into_string().ok()
}

fn variable_path(name: &str) -> Option<PathBuf> {
    variable(name).map(PathBuf::from)
}

/// XDG's rule: what is not absolute does not count.
fn base_directory(name: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |path: &PathBuf| path.is_absolute();
    let home = || variable_path("HOME").filter(absolute);
    variable_path(name)
        .filter(absolute)
        .or_else(|| home().map(|home| home.join(below_home)))
}

fn usual_files() -> Vec<(PathBuf, Expected)> {
    let file = |directory: PathBuf| directory.join("snapshotter/config.toml");
    let mut files = vec![(file("/etc".into()), Expected::Perhaps)];
    if let Some(own) = base_directory("XDG_CONFIG_HOME", ".config") {
        files.push((file(own), Expected::IfReadable));
    }
    files
}

fn default_root() -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/snapshotter".into());
    }
    let data = base_directory("XDG_DATA_HOME", ".local/share");
    data.map(|data| data.join("snapshotter")).ok_or_else(|| {
        Failure::invalid("there is no root: neither XDG_DATA_HOME nor HOME is set")
            .with_hint("say where snapshots are kept with --root DIR or SNAPSHOTTER_ROOT_DIR")
    })
}

fn bad_value(place: &str, why: &str) -> Failure {
    Failure::invalid(format!("{place}: {why}"))
}

/// The key meant by something that is almost its name.
fn nearest(name: &str) -> Option<&'static Key> {
    let last = |name: &str| {
        name.rsplit('.')
            .next()
            .unwrap_or_default()
            .replace('-', "_")
    };
    let likeness = |key: &&Key| strsim::levenshtein(&last(key.name), &last(name));
    let section = name.split_once('.').map(|(section, _)| section);
    KEYS.iter()
        .min_by_key(|key| (likeness(key), key.section() != section))
        .filter(|key| likeness(key) <= 3)
}

/// The line a byte of a text is on, from 1.
fn line_of(text: &str, byte: usize) -> usize {
    1 + text.as_bytes()[..byte.min(text.len())]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
}

/// What one configuration file makes of the defaults.
#[cfg(test)]
pub fn read_file(path: &Path) -> Result<Draft> {
    let mut draft = Draft::new(Config::new(PathBuf::new()));
    for Assignment { key, value, .. } in file::read(path, Expected::Certainly)?.unwrap_or_default()
    {
        (key.set)(&mut draft, value);
    }
    Ok(draft)
}

/// Longer than any file of settings that somebody wrote, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Reads a file of settings; `what` reads after "cannot read". Whatever has the name, it ends.
fn read_text(path: &Path, what: &str) -> Result<String> {
    let bytes = snapshotter::small::read(what, path, MAX_BYTES)?;
    String::from_utf8(bytes).map_err(|_| {
        let text = format!(
            "cannot read {what} {}: it is no text (UTF-8)",
            path.display()
        );
        Failure::invalid(text).with_path(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_has_a_nearest() {
        let nearest = |name| nearest(name).map(|key| key.name);
        assert_eq!(nearest("rootdir"), Some("root_dir"));
        assert_eq!(nearest("batch_size"), Some("gc.batch_size"));
        assert_eq!(nearest("gc.intervall"), Some("gc.interval"));
        assert_eq!(nearest("colour"), None);
        assert_eq!(nearest("content.timout"), Some("content.timeout"));
        assert_eq!(nearest("registry.timout"), Some("registry.timeout"));
    }

    #[test]
    fn lines_are_counted_from_one() {
        assert_eq!(
            (line_of("a\nb", 0), line_of("a\nb", 2), line_of("a", 9)),
            (1, 2, 1)
        );
    }
}

//! The table of keys: the library's configuration fields under the names it gives them, with how a value is read from
//! text and written back. Configuration files, variables, `config` and its defaults all come from here.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use snapshotter::{Config, Durability};

/// A setting.
#[derive(Debug)]
pub struct Key {
    /// `gc.interval`.
    pub name: &'static str,
    /// What it is, for a comment.
    pub what: &'static str,
    /// What its values look like.
    pub shape: Shape,
    /// Its value.
    pub get: fn(&Config) -> Value,
    /// Sets it; the value has the shape.
    pub set: fn(&mut Config, Value),
}

/// What a key's values look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A path.
    Path,
    /// A whole number.
    Count,
    /// A number.
    Percent,
    /// A number with a unit.
    Duration,
    /// true or false.
    Switch,
    /// full or background.
    Durability,
}

/// A key's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// See [`Shape::Path`].
    Path(PathBuf),
    /// See [`Shape::Count`].
    Count(usize),
    /// See [`Shape::Percent`].
    Percent(f64),
    /// See [`Shape::Duration`].
    Duration(Duration),
    /// See [`Shape::Switch`].
    Switch(bool),
    /// See [`Shape::Durability`].
    Durability(Durability),
}

macro_rules! key {
    ($name:literal, $shape:ident, $($field:ident).+, $what:literal) => {
        Key {
            name: $name,
            what: $what,
            shape: Shape::$shape,
            get: |config| Value::$shape(config.$($field).+.clone()),
            set: |config, value| {
                if let Value::$shape(value) = value {
                    config.$($field).+ = value;
                }
            },
        }
    };
}

/// All keys, in the order they are shown.
pub const KEYS: &[Key] = &[
    key!(
        "root_dir",
        Path,
        root_dir,
        "Where snapshots are kept. An absolute path on a local filesystem."
    ),
    key!(
        "snapshot_concurrency",
        Count,
        snapshot_concurrency,
        "How many files a snapshot works on at once."
    ),
    key!(
        "restore_concurrency",
        Count,
        restore_concurrency,
        "How many files a restore or verification works on at once."
    ),
    key!(
        "durability",
        Durability,
        durability,
        "\"full\": a snapshot that is reported has reached the disk. \"background\": it will."
    ),
    key!(
        "busy_timeout",
        Duration,
        busy_timeout,
        "How long to wait for another process that holds the catalog."
    ),
    key!(
        "relaxed_times",
        Switch,
        relaxed_times,
        "Lets read-only restores that differ in the modification time alone share one inode."
    ),
    key!(
        "gc.interval",
        Duration,
        gc.interval,
        "Time between two looks at the disk. Nothing collects garbage yet."
    ),
    key!(
        "gc.disk_high_threshold_percent",
        Percent,
        gc.disk_high_threshold_percent,
        "Collection starts when the filesystem is this full."
    ),
    key!(
        "gc.disk_low_threshold_percent",
        Percent,
        gc.disk_low_threshold_percent,
        "Collection stops when it is no fuller than this."
    ),
    key!(
        "gc.batch_size",
        Count,
        gc.batch_size,
        "Snapshots looked at in one go."
    ),
    key!(
        "gc.min_retention_period",
        Duration,
        gc.min_retention_period,
        "Snapshots used within this time are kept."
    ),
];

impl Key {
    /// The one that flags set too.
    pub const ROOT: &Self = &KEYS[0];

    /// The key of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// `SNAPSHOTTER_GC_INTERVAL`.
    pub fn variable(&self) -> String {
        let name = self.name.replace('.', "_").to_uppercase();
        format!("SNAPSHOTTER_{name}")
    }

    /// Reads a value from text.
    pub fn parse(&self, text: &OsStr) -> Result<Value, String> {
        if self.shape == Shape::Path {
            return Ok(Value::Path(text.into()));
        }
        let known = text.to_str().and_then(|text| self.shape.parse(text.trim()));
        known.ok_or_else(|| self.refuse(&text.to_string_lossy()))
    }

    /// Why a value is not one of this key's.
    pub fn refuse(&self, given: &str) -> String {
        format!(
            "{given:?} is no value for {}: it should be {}",
            self.name,
            self.shape.rule()
        )
    }
}

impl Shape {
    /// What a value should be.
    pub fn rule(self) -> &'static str {
        match self {
            Self::Path => "a path",
            Self::Count => "a whole number",
            Self::Percent => "a number",
            Self::Duration => "a number and a unit (ms, s, m, h or d), \"30s\" for one",
            Self::Switch => "true or false",
            Self::Durability => "\"full\" or \"background\"",
        }
    }

    fn parse(self, text: &str) -> Option<Value> {
        match self {
            Self::Path => Some(Value::Path(text.into())),
            Self::Count => text.parse().ok().map(Value::Count),
            Self::Percent => text.parse().ok().map(Value::Percent),
            Self::Duration => parse_duration(text).map(Value::Duration),
            Self::Switch => text.parse().ok().map(Value::Switch),
            Self::Durability => match text {
                "full" => Some(Value::Durability(Durability::Full)),
                "background" => Some(Value::Durability(Durability::Background)),
                _ => None,
            },
        }
    }

    /// Reads what TOML calls a string, which is not how numbers and switches are written there.
    pub fn parse_string(self, text: &str) -> Option<Value> {
        match self {
            Self::Path | Self::Duration | Self::Durability => self.parse(text),
            Self::Count | Self::Percent | Self::Switch => None,
        }
    }

    /// Reads what TOML writes without quotes.
    pub fn parse_bare(self, text: &str) -> Option<Value> {
        match self {
            Self::Count | Self::Percent | Self::Switch => self.parse(&text.replace('_', "")),
            Self::Path | Self::Duration | Self::Durability => None,
        }
    }
}

/// Units in milliseconds, the largest first.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// `30s`, `1h30m`, `250ms`.
fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut milliseconds = 0u64;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, after) = after.split_at(
            after
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(after.len()),
        );
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
        let part = number.parse::<u64>().ok()?.checked_mul(*size)?;
        milliseconds = milliseconds.checked_add(part)?;
        rest = after.trim_start();
    }
    (!text.is_empty()).then(|| Duration::from_millis(milliseconds))
}

fn duration_text(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, size) in UNITS {
        if rest / size > 0 {
            text.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

impl Value {
    /// For people, and for variables.
    pub fn shown(&self) -> String {
        match self {
            Self::Path(path) => path.to_string_lossy().into_owned(),
            Self::Count(count) => count.to_string(),
            Self::Percent(percent) => percent.to_string(),
            Self::Duration(duration) => duration_text(*duration),
            Self::Switch(switch) => switch.to_string(),
            Self::Durability(Durability::Background) => "background".into(),
            Self::Durability(_) => "full".into(),
        }
    }

    /// As it is written in a configuration file.
    pub fn toml(&self) -> String {
        match self {
            Self::Path(_) | Self::Duration(_) | Self::Durability(_) => {
                format!("{:?}", self.shown())
            }
            Self::Count(_) | Self::Percent(_) | Self::Switch(_) => self.shown(),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => count.serialize(serializer),
            Self::Percent(percent) => percent.serialize(serializer),
            Self::Switch(switch) => switch.serialize(serializer),
            Self::Path(_) | Self::Duration(_) | Self::Durability(_) => {
                self.shown().serialize(serializer)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, milliseconds) in [
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("2d", 172_800_000),
            ("1m 30s", 90_000),
            ("0", 0),
        ] {
            assert_eq!(
                parse_duration(text),
                Some(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for text in ["", "30", "s", "1y", "-1s", "1.5s", "99999999999999999999s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn every_value_is_read_back_from_how_it_is_shown() {
        let config = Config::new("/r");
        for key in KEYS {
            let value = (key.get)(&config);
            assert_eq!(key.parse(value.shown().as_ref()), Ok(value), "{}", key.name);
        }
    }

    #[test]
    fn every_key_sets_itself_and_nothing_else() {
        for key in KEYS {
            let mut config = Config::new("/r");
            let other = match key.shape {
                Shape::Path => Value::Path("/other".into()),
                Shape::Count => Value::Count(7),
                Shape::Percent => Value::Percent(7.5),
                Shape::Duration => Value::Duration(Duration::from_secs(7)),
                Shape::Switch => Value::Switch(true),
                Shape::Durability => Value::Durability(Durability::Background),
            };
            (key.set)(&mut config, other.clone());
            let default = Config::new("/r");
            for each in KEYS {
                let wanted = if each.name == key.name {
                    other.clone()
                } else {
                    (each.get)(&default)
                };
                assert_eq!(
                    (each.get)(&config),
                    wanted,
                    "{} after {}",
                    each.name,
                    key.name
                );
            }
        }
    }
}

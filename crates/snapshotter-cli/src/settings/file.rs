//! Configuration files: TOML with the keys of the table and nothing else. Whatever is wrong is reported with the file
//! and the line.

use std::path::Path;

use snapshotter::ErrorKind;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::value::Shape;
use super::{Assignment, Key, Source, Value, line_of, nearest, read_text, rules};
use crate::failure::{Failure, Result};

/// How sure it is that a file is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Somebody named it.
    Certainly,
    /// The machine may have one.
    Perhaps,
    /// The user may have one; after a change of user, HOME may be another's, whose files are none of ours.
    IfReadable,
}

/// Reads a file, if it is there.
pub fn read(path: &Path, expected: Expected) -> Result<Option<Vec<Assignment>>> {
    match read_text(path, "the configuration file") {
        Ok(text) => parse(path, &text).map(Some),
        Err(failure) if expected.allows(failure.kind) => Ok(None),
        Err(failure) => Err(failure),
    }
}

impl Expected {
    fn allows(self, error: ErrorKind) -> bool {
        match self {
            Self::Certainly => false,
            Self::Perhaps => error == ErrorKind::NotFound,
            Self::IfReadable => {
                matches!(error, ErrorKind::NotFound | ErrorKind::PermissionDenied)
            }
        }
    }
}

fn parse(path: &Path, text: &str) -> Result<Vec<Assignment>> {
    let place = Place { path, text };
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        place.refuse(at, error.message().trim().replace('\n', "; "))
    })?;
    let mut assignments = Vec::new();
    place.table("", table.get_ref(), &mut assignments)?;
    Ok(assignments)
}

struct Place<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Place<'_> {
    fn table(
        &self,
        prefix: &str,
        table: &DeTable<'_>,
        assignments: &mut Vec<Assignment>,
    ) -> Result<()> {
        for (name, value) in table {
            let full = format!("{prefix}{}", name.get_ref());
            match (Key::named(&full), value.get_ref()) {
                (Some(key), _) => {
                    assignments.push(self.assignment(key, name.span().start, value)?)
                }
                (None, DeValue::Table(inner)) if prefix.is_empty() && is_section(&full) => {
                    self.table(&format!("{full}."), inner, assignments)?;
                }
                (None, _) => return Err(self.unknown(&full, name.span().start)),
            }
        }
        Ok(())
    }

    fn assignment(
        &self,
        key: &'static Key,
        at: usize,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Assignment> {
        let parsed = match value.get_ref() {
            DeValue::Array(array) if key.shape == Shape::Rules => {
                let read = rules::read(array);
                Some(Value::Rules(
                    read.map_err(|rules::Wrong(at, why)| self.refuse(at, why))?,
                ))
            }
            DeValue::String(text) => key.shape.parse_string(text),
            DeValue::Integer(number) => key.shape.parse_bare(number.as_str()),
            DeValue::Float(number) => key.shape.parse_bare(number.as_str()),
            DeValue::Boolean(switch) => key.shape.parse_bare(&switch.to_string()),
            _ => None,
        };
        let value = parsed.ok_or_else(|| {
            let given = self.text.get(value.span()).unwrap_or_default();
            self.refuse(at, key.refuse_as(given, toml_rule(key.shape)))
        })?;
        if matches!(&value, Value::Path(path) | Value::File(Some(path)) if !path.is_absolute()) {
            return Err(self
                .refuse(at, format!("{} should be an absolute path", key.name))
                .with_hint("it means the same wherever the command runs; `~` and variables are not replaced"));
        }
        Ok(Assignment {
            key,
            value,
            source: Source::File(self.path.to_owned(), line_of(self.text, at)),
        })
    }

    fn unknown(&self, name: &str, at: usize) -> Failure {
        let hint = match nearest(name) {
            Some(key) => format!("is {} meant? `snapshotter config` lists all keys", key.name),
            None => match nearest_section(name) {
                Some(section) => {
                    format!("is [{section}] meant? `snapshotter config` lists all keys")
                }
                None => "`snapshotter config` lists all keys".to_owned(),
            },
        };
        self.refuse(at, format!("there is no key {name:?}"))
            .with_hint(hint)
    }

    fn refuse(&self, at: usize, why: String) -> Failure {
        let line = line_of(self.text, at);
        Failure::invalid(format!("{}:{line}: {why}", self.path.display())).with_path(self.path)
    }
}

fn is_section(name: &str) -> bool {
    super::KEYS.iter().any(|key| {
        key.name
            .split_once('.')
            .is_some_and(|(section, _)| section == name)
    })
}

fn nearest_section(name: &str) -> Option<&'static str> {
    let distance = |section: &&str| strsim::levenshtein(section, name);
    let sections = super::KEYS.iter().filter_map(super::Key::section);
    sections
        .min_by_key(distance)
        .filter(|section| distance(section) <= 2)
}

fn toml_rule(shape: Shape) -> &'static str {
    match shape {
        Shape::Path | Shape::File => "a path in quotes",
        Shape::Text | Shape::Url | Shape::Secret => "text in quotes",
        shape => shape.rule(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Assignment>> {
        parse(Path::new("c.toml"), text)
    }

    #[test]
    fn keys_and_sections_are_read_with_their_lines() {
        let read =
            read("# comment\nroot_dir = \"/r\"\n\n[gc]\nbatch_size = 1_0\ninterval = \"5m\"\n")
                .unwrap();
        let mut seen: Vec<_> = read
            .iter()
            .map(|a| (a.key.name, a.value.shown(), a.source.to_string()))
            .collect();
        seen.sort();
        let row = |a: &'static str, b: &str, c: &str| (a, b.to_owned(), c.to_owned());
        assert_eq!(
            seen,
            [
                row("gc.batch_size", "10", "c.toml:5"),
                row("gc.interval", "5m", "c.toml:6"),
                row("root_dir", "/r", "c.toml:2"),
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, message) in [
            ("x = 1\n", "c.toml:1: there is no key \"x\""),
            ("\n[gc]\nx = 1\n", "c.toml:3: there is no key \"gc.x\""),
            ("[other]\nx = 1\n", "c.toml:1: there is no key \"other\""),
            ("gc = 1\n", "c.toml:1: there is no key \"gc\""),
            (
                "root_dir = 5\n",
                "c.toml:1: 5 is no value for root_dir: it should be a path in quotes",
            ),
            (
                "root_dir = \"r\"\n",
                "c.toml:1: root_dir should be an absolute path",
            ),
            (
                "\nrelaxed_times = \"true\"\n",
                "c.toml:2: \"true\" is no value for relaxed_times: it should be true or false",
            ),
        ] {
            assert_eq!(
                read(text).err().map(|f| f.message).as_deref(),
                Some(message)
            );
        }
        let broken = read("a = \n").err().unwrap().message;
        assert!(broken.starts_with("c.toml:1: "), "{broken}");
    }

    #[test]
    fn what_may_be_a_secret_is_not_repeated() {
        for text in [
            "[registry]\npassword = hunter2\n",
            "[registry]\npassword = \"hunter2\n",
            "[registry]\npassword = [\"hunter2\"]\n",
            "[registry]\npassword = { hunter2 = 1 }\n",
            "[registry]\nproxy = [\"http://me:hunter2@host\"]\n",
            "[content]\naccess_key_secret = hunter2\"\n",
            "[content]\naccess_key_secret \"hunter2\"\n",
        ] {
            let failure = read(text).err().unwrap();
            assert!(failure.message.starts_with("c.toml:2: "), "{failure:?}");
            assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
        }
        let failure = read("[registry]\npassword = 1234567\n").err().unwrap();
        assert_eq!(
            failure.message,
            "c.toml:2: this is no value for registry.password: it should be text in quotes"
        );
    }

    #[test]
    fn empty_text_sets_nothing() {
        let read = read("[registry]\nca_file = \"\"\npassword = \"\"\n").unwrap();
        assert!(read.iter().all(|assignment| assignment.value.is_none()));
    }
}

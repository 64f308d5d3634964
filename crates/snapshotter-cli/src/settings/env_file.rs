//! `--env-file`: lines of NAME=VALUE, as the Go library's example reads them.
//!
//! `SNAPSHOTTER_*` names are this command's own variables. The names of the example's registry, bucket and daemon,
//! `REGISTRY_*`, `CONTENT_*` and `DRAGONFLY_*`, mean the keys of `[registry]`, `[content]` and `[dragonfly]`, so that one file
//! serves both programs. Others are accepted; they are not used, and the answer says so.

use std::path::{Path, PathBuf};

use super::{Assignment, KEYS, Key, Source, bad_value, read_text};
use crate::failure::{Failure, Result};

/// What a file sets.
pub struct EnvFile {
    pub(super) assignments: Vec<Assignment>,
    /// What this release does not use.
    pub foreign: Vec<Foreign>,
}

/// A name this release does not use.
#[derive(Clone, Debug)]
pub struct Foreign {
    /// `REGISTRY_ENDPOINT`.
    pub name: String,
    /// What it is set to, unless it may be a secret.
    pub value: Option<String>,
    /// Where.
    pub source: (PathBuf, usize),
}

const PREFIXES: [&str; 3] = ["REGISTRY_", "CONTENT_", "DRAGONFLY_"];

/// Reads a file.
pub fn read(path: &Path) -> Result<EnvFile> {
    parse(path, &read_text(path, "the env file")?)
}

fn parse(path: &Path, text: &str) -> Result<EnvFile> {
    let mut read = EnvFile {
        assignments: Vec::new(),
        foreign: Vec::new(),
    };
    for (index, line) in text.lines().enumerate() {
        let place = format!("{}:{}", path.display(), index + 1);
        if let Some((name, value)) =
            split(line).map_err(|why| bad_value(&place, why).with_path(path))?
        {
            read.set(&place, (path, index + 1), name, value)?;
        }
    }
    Ok(read)
}

impl EnvFile {
    fn set(&mut self, place: &str, at: (&Path, usize), name: &str, value: String) -> Result<()> {
        let source = (at.0.to_owned(), at.1);
        if let Some(key) = KEYS.iter().find(|key| is_named(key, name)) {
            if !value.is_empty() {
                let value = key
                    .parse(value.as_ref())
                    .map_err(|why| bad_value(place, &why))?;
                let source = Source::File(source.0, source.1);
                self.assignments.push(Assignment { key, value, source });
            }
            return Ok(());
        }
        if name.starts_with("SNAPSHOTTER_") {
            return Err(unknown(place, name).with_path(at.0));
        }
        let remote = PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        let shown = remote && !is_secret(name) && !value.contains('@');
        let value = shown.then_some(value);
        let name = name.to_owned();
        self.foreign.push(Foreign {
            name,
            value,
            source,
        });
        Ok(())
    }
}

/// Whether a key is meant: by its variable, or as the Go library's example calls it.
fn is_named(key: &Key, name: &str) -> bool {
    let variable = key.variable();
    let bare = variable.strip_prefix("SNAPSHOTTER_");
    variable == name
        || bare == Some(name) && matches!(key.section(), Some("registry" | "content" | "dragonfly"))
}

fn unknown(place: &str, name: &str) -> Failure {
    let short = name.trim_start_matches("SNAPSHOTTER_").to_lowercase();
    let nearest = super::variables::misspelt(name).or_else(|| super::nearest(&short));
    let hint = match nearest {
        Some(key) => format!("is {} meant?", key.variable()),
        None => "`snapshotter config` lists all keys".to_owned(),
    };
    Failure::invalid(format!("{place}: there is no setting {name}")).with_hint(hint)
}

/// Anything that smells of a secret is not shown.
fn is_secret(name: &str) -> bool {
    ["PASSWORD", "SECRET", "TOKEN", "KEY", "CREDENTIAL"]
        .iter()
        .any(|word| name.contains(word))
}

/// The name and value of a line; nothing for an empty one or a comment.
fn split(line: &str) -> Result<Option<(&str, String)>, &'static str> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=').ok_or("this is no NAME=VALUE")?;
    let name = name.trim();
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(valid) {
        return Err("this is no NAME=VALUE");
    }
    unquote(value.trim()).map(|value| Some((name, value)))
}

fn unquote(value: &str) -> Result<String, &'static str> {
    for quote in ['"', '\''] {
        if let Some(rest) = value.strip_prefix(quote) {
            let (inside, after) = rest.split_once(quote).ok_or("the quote is not closed")?;
            return match after.trim_start() {
                "" => Ok(inside.to_owned()),
                after if after.starts_with('#') => Ok(inside.to_owned()),
                _ => Err("something follows the closing quote"),
            };
        }
    }
    let uncommented = value.split(" #").next().unwrap_or_default();
    Ok(uncommented.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<EnvFile> {
        parse(Path::new(".env"), text)
    }

    #[test]
    fn the_go_examples_file_is_read() {
        let read = read(
            "# root\nSNAPSHOTTER_ROOT_DIR=/tmp/.snapshotter\n\nexport REGISTRY_ENDPOINT=\"http://r\" # there\n\
             REGISTRY_USERNAME=admin\nREGISTRY_PASSWORD='a b'\nREGISTRY_NAMESPACE=test\nREGISTRY_INSECURE=true\n\
             DRAGONFLY_ENDPOINT=unix:///run/d.sock\n\
             CONTENT_PROVIDER=s3\nCONTENT_BUCKET=b\nCONTENT_REGION=us-east-1\nCONTENT_ENDPOINT=o.domain\n\
             CONTENT_ACCESS_KEY_ID=x\nCONTENT_ACCESS_KEY_SECRET=y\nDRAGONFLY_MODE=p2p\n",
        )
        .unwrap();
        let set: Vec<_> = read
            .assignments
            .iter()
            .map(|set| format!("{} {:?} {}", set.key.name, set.value, set.source))
            .collect();
        assert_eq!(
            set,
            [
                "root_dir \"/tmp/.snapshotter\" .env:2",
                "registry.endpoint \"http://r\" .env:4",
                "registry.username \"admin\" .env:5",
                "registry.password \"(hidden)\" .env:6",
                "registry.namespace \"test\" .env:7",
                "registry.insecure true .env:8",
                "dragonfly.endpoint \"unix:///run/d.sock\" .env:9",
                "content.provider \"s3\" .env:10",
                "content.bucket \"b\" .env:11",
                "content.region \"us-east-1\" .env:12",
                "content.endpoint \"o.domain\" .env:13",
                "content.access_key_id \"(hidden)\" .env:14",
                "content.access_key_secret \"(hidden)\" .env:15",
            ]
        );
        let foreign: Vec<_> = read
            .foreign
            .iter()
            .map(|foreign| (&*foreign.name, foreign.value.as_deref()))
            .collect();
        assert_eq!(foreign, [("DRAGONFLY_MODE", Some("p2p"))]);
    }

    #[test]
    fn other_names_are_not_ours_and_may_be_secrets() {
        let read = read("REGISTRY_TOKEN=hunter2\nGC_INTERVAL=5m\nROOT_DIR=/x\n").unwrap();
        assert!(read.assignments.is_empty());
        let values: Vec<_> = read.foreign.iter().map(|foreign| &foreign.value).collect();
        assert_eq!(values, [&None, &None, &None]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, message) in [
            ("\nx\n", ".env:2: this is no NAME=VALUE"),
            ("A=\"b\n", ".env:1: the quote is not closed"),
            (
                "SNAPSHOTTER_ROOTDIR=/x\n",
                ".env:1: there is no setting SNAPSHOTTER_ROOTDIR",
            ),
        ] {
            assert_eq!(
                read(text).err().map(|f| f.message).as_deref(),
                Some(message)
            );
        }
    }
}

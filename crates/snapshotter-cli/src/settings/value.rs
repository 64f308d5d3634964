//! What values look like: read from text, written back, and shown. What is secret is read and never shown, not even by
//! `Debug`, so that no later line of code can forget to hide it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use snapshotter::{
    Compression, ContentProvider, Credentials, Durability, Format, FramePages, ParentChoice,
    PruneRule, SharedWith,
};

use super::rules;
use super::snapshots::{compression_text, parent_text, parse_parent};
use super::tenant::Isolation;
use super::units::{bytes_text, duration_text, parse_bytes, parse_duration};

/// What a key's values look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A path.
    Path,
    /// A path, or none.
    File,
    /// Some text, or none.
    Text,
    /// An address, or none; a user and a password in it are not shown.
    Url,
    /// What nobody may see, or nothing.
    Secret,
    /// A whole number.
    Count,
    /// A size, or no limit.
    Bytes,
    /// A number.
    Percent,
    /// A number with a unit.
    Duration,
    /// true or false.
    Switch,
    /// full or background.
    Durability,
    /// A kind of storage, or none.
    Provider,
    /// static or ambient, or what fits.
    Credentials,
    /// nobody, group or everyone.
    SharedWith,
    /// none or name.
    Isolation,
    /// v1 or v2.
    Format,
    /// origin, latest or none.
    Parent,
    /// none, or zstd and a level.
    Compression,
    /// 16 or 4.
    FramePages,
    /// What is kept of which names.
    Rules,
}

/// A key's value. Empty text is none.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// See [`Shape::Path`].
    Path(PathBuf),
    /// See [`Shape::File`].
    File(Option<PathBuf>),
    /// See [`Shape::Text`].
    Text(Option<String>),
    /// See [`Shape::Url`].
    Url(Option<String>),
    /// See [`Shape::Secret`].
    Secret(Option<String>),
    /// See [`Shape::Count`].
    Count(usize),
    /// See [`Shape::Bytes`].
    Bytes(Option<u64>),
    /// See [`Shape::Percent`].
    Percent(f64),
    /// See [`Shape::Duration`].
    Duration(Duration),
    /// See [`Shape::Switch`].
    Switch(bool),
    /// See [`Shape::Durability`].
    Durability(Durability),
    /// See [`Shape::Provider`].
    Provider(Option<ContentProvider>),
    /// See [`Shape::Credentials`].
    Credentials(Option<Credentials>),
    /// See [`Shape::SharedWith`].
    SharedWith(SharedWith),
    /// See [`Shape::Isolation`].
    Isolation(Isolation),
    /// See [`Shape::Format`].
    Format(Format),
    /// See [`Shape::Parent`].
    Parent(ParentChoice),
    /// See [`Shape::Compression`].
    Compression(Compression),
    /// See [`Shape::FramePages`].
    FramePages(FramePages),
    /// See [`Shape::Rules`].
    Rules(Vec<PruneRule>),
}

const PROVIDERS: [ContentProvider; 8] = [
    ContentProvider::S3,
    ContentProvider::Oss,
    ContentProvider::Gcs,
    ContentProvider::Azblob,
    ContentProvider::Obs,
    ContentProvider::Cos,
    ContentProvider::Fs,
    ContentProvider::Registry,
];

impl Shape {
    /// What a value should be.
    pub fn rule(self) -> &'static str {
        match self {
            Self::Path | Self::File => "a path",
            Self::Text | Self::Url | Self::Secret => "text",
            Self::Count => "a whole number",
            Self::Bytes => "a number and a unit, \"100GiB\", \"1.5TiB\" or \"10GB\" for one",
            Self::Percent => "a number",
            Self::Duration => "a number and a unit (ms, s, m, h, d or w), \"30s\" for one",
            Self::Switch => "true or false",
            Self::Durability => "\"full\" or \"background\"",
            Self::Provider => "s3, oss, gcs, azblob, obs, cos, fs or registry",
            Self::Credentials => "\"static\" or \"ambient\"",
            Self::SharedWith => "\"nobody\", \"group\" or \"everyone\"",
            Self::Isolation => "\"none\" or \"name\"",
            Self::Format => "\"v1\" or \"v2\"",
            Self::Parent => "\"origin\", \"latest\" or \"none\"",
            Self::Compression => "\"none\", or \"zstd:\" and a level from 1 to 19",
            Self::FramePages => "16 or 4",
            Self::Rules => {
                "a list of tables with names and what to keep of them, [{ names = [\"vm-*\"], keep_last = 3 }] for one"
            }
        }
    }

    /// Whether a value, even a wrong one, may hold what nobody may see.
    pub fn is_secret(self) -> bool {
        matches!(self, Self::Secret | Self::Url)
    }

    /// Reads a value.
    pub fn parse(self, text: &str) -> Option<Value> {
        let some = (!text.is_empty()).then(|| text.to_owned());
        match self {
            Self::Path => Some(Value::Path(text.into())),
            Self::File => Some(Value::File(some.map(Into::into))),
            Self::Text => Some(Value::Text(some)),
            Self::Url => Some(Value::Url(some)),
            Self::Secret => Some(Value::Secret(some)),
            Self::Count => text.parse().ok().map(Value::Count),
            Self::Bytes if text.is_empty() => Some(Value::Bytes(None)),
            Self::Bytes => parse_bytes(text).map(|bytes| Value::Bytes(Some(bytes))),
            Self::Percent => text.parse().ok().map(Value::Percent),
            Self::Duration => parse_duration(text).map(Value::Duration),
            Self::Switch => text.parse().ok().map(Value::Switch),
            Self::Durability => parse_durability(text).map(Value::Durability),
            Self::Provider => parse_provider(text).map(Value::Provider),
            Self::Credentials => parse_credentials(text).map(Value::Credentials),
            Self::SharedWith => parse_shared_with(text).map(Value::SharedWith),
            Self::Isolation => Isolation::parse(text).map(Value::Isolation),
            Self::Format => text.parse().ok().map(Value::Format),
            Self::Parent => parse_parent(text).map(Value::Parent),
            Self::Compression => text.parse().ok().map(Value::Compression),
            Self::FramePages => text.parse().ok().map(Value::FramePages),
            Self::Rules => rules::parse(text).map(Value::Rules),
        }
    }

    /// Reads what TOML calls a string, which is not how numbers and switches are written there.
    pub fn parse_string(self, text: &str) -> Option<Value> {
        (!self.is_bare()).then(|| self.parse(text)).flatten()
    }

    /// Reads what TOML writes without quotes. A size without a unit may be written so too.
    pub fn parse_bare(self, text: &str) -> Option<Value> {
        (self.is_bare() || self == Self::Bytes)
            .then(|| self.parse(&text.replace('_', "")))
            .flatten()
    }

    fn is_bare(self) -> bool {
        matches!(
            self,
            Self::Count | Self::Percent | Self::Switch | Self::FramePages
        )
    }
}

fn parse_durability(text: &str) -> Option<Durability> {
    match text {
        "full" => Some(Durability::Full),
        "background" => Some(Durability::Background),
        _ => None,
    }
}

fn parse_provider(text: &str) -> Option<Option<ContentProvider>> {
    if text.is_empty() {
        return Some(None);
    }
    // As Dragonfly's daemon and the Go library call them.
    let name = match text {
        "gs" => "gcs",
        "abs" => "azblob",
        name => name,
    };
    let known = PROVIDERS
        .into_iter()
        .find(|provider| provider.as_str() == name);
    known.map(Some)
}

fn parse_credentials(text: &str) -> Option<Option<Credentials>> {
    match text {
        "" => Some(None),
        "static" => Some(Some(Credentials::Static)),
        "ambient" => Some(Some(Credentials::Ambient)),
        _ => None,
    }
}

fn parse_shared_with(text: &str) -> Option<SharedWith> {
    let all = [SharedWith::Nobody, SharedWith::Group, SharedWith::Everyone];
    all.into_iter().find(|others| others.as_str() == text)
}

/// An address without the user and password that may be in it. Whatever comes before the last `@` may be one of them,
/// also in what is no proper address.
fn without_userinfo(url: &str) -> String {
    let Some((before, host)) = url.rsplit_once('@') else {
        return url.to_owned();
    };
    let scheme = ["https://", "http://"]
        .into_iter()
        .find(|scheme| before.starts_with(scheme));
    format!("{}…@{host}", scheme.unwrap_or_default())
}

impl Value {
    /// For people, and for variables: but for what is hidden, it is read back from this.
    pub fn shown(&self) -> String {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        match self {
            Self::Path(it) => path(it),
            Self::File(it) => it.as_deref().map(path).unwrap_or_default(),
            Self::Text(text) => text.clone().unwrap_or_default(),
            Self::Url(url) => url.as_deref().map(without_userinfo).unwrap_or_default(),
            Self::Secret(secret) => secret.as_ref().map_or("", |_| "(hidden)").to_owned(),
            Self::Count(count) => count.to_string(),
            Self::Bytes(bytes) => bytes.map(bytes_text).unwrap_or_default(),
            Self::Percent(percent) => percent.to_string(),
            Self::Duration(duration) => duration_text(*duration),
            Self::Switch(switch) => switch.to_string(),
            Self::Durability(Durability::Background) => "background".into(),
            Self::Durability(_) => "full".into(),
            Self::Provider(provider) => provider.map_or("", ContentProvider::as_str).to_owned(),
            Self::Credentials(None) => String::new(),
            Self::Credentials(Some(Credentials::Ambient)) => "ambient".into(),
            Self::Credentials(Some(_)) => "static".into(),
            Self::SharedWith(others) => others.as_str().to_owned(),
            Self::Isolation(isolation) => isolation.as_str().to_owned(),
            Self::Format(format) => format.as_str().to_owned(),
            Self::Parent(parent) => parent_text(parent),
            Self::Compression(compression) => compression_text(*compression),
            Self::FramePages(pages) => pages.count().to_string(),
            Self::Rules(rules) => rules::text(rules),
        }
    }

    /// Nothing, where there may be something.
    pub fn is_none(&self) -> bool {
        match self {
            Self::Rules(rules) => rules.is_empty(),
            Self::File(None)
            | Self::Text(None)
            | Self::Url(None)
            | Self::Secret(None)
            | Self::Bytes(None)
            | Self::Provider(None)
            | Self::Credentials(None) => true,
            _ => false,
        }
    }

    /// Whether there is something that is not shown.
    pub fn is_hidden(&self) -> bool {
        matches!(self, Self::Secret(Some(_)))
    }

    /// Whether there is something in it that nobody else should see.
    pub fn has_secret(&self) -> bool {
        match self {
            Self::Url(Some(url)) => without_userinfo(url) != *url,
            _ => self.is_hidden(),
        }
    }

    /// As it is written in a configuration file.
    pub fn toml(&self) -> String {
        match self {
            Self::Rules(_) | Self::Count(_) | Self::Percent(_) => self.shown(),
            Self::Switch(_) | Self::FramePages(_) => self.shown(),
            _ => format!("{:?}", self.shown()),
        }
    }
}

/// What is shown of it, so that a secret is not.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.toml())
    }
}

impl Serialize for Value {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => count.serialize(serializer),
            Self::FramePages(pages) => pages.count().serialize(serializer),
            Self::Percent(percent) => percent.serialize(serializer),
            Self::Switch(switch) => switch.serialize(serializer),
            Self::Secret(_) => serializer.serialize_none(),
            value if value.is_none() => serializer.serialize_none(),
            value => value.shown().serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_provider_is_read_by_its_name() {
        for provider in PROVIDERS {
            let value = Shape::Provider.parse(provider.as_str());
            assert_eq!(value, Some(Value::Provider(Some(provider))));
        }
        assert_eq!(Shape::Provider.parse("S3"), None);
    }

    #[test]
    fn what_is_secret_is_shown_nowhere() {
        let secret = Shape::Secret.parse("hunter2").unwrap();
        for url in [
            "http://me:hunter2@proxy:3128",
            "me:hunter2@proxy",
            "https://a@hunter2@host",
        ] {
            let url = Shape::Url.parse(url).unwrap();
            for value in [&secret, &url] {
                let json = serde_json::to_string(value).unwrap();
                let all = format!("{value:?} {} {} {json}", value.shown(), value.toml());
                assert!(!all.contains("hunter2"), "{all}");
            }
        }
        let url = Shape::Url.parse("http://me:hunter2@proxy:3128").unwrap();
        assert_eq!(url.shown(), "http://…@proxy:3128");
    }

    #[test]
    fn empty_text_is_none() {
        for shape in [Shape::File, Shape::Text, Shape::Url, Shape::Secret] {
            assert!(shape.parse("").unwrap().is_none(), "{shape:?}");
        }
    }
}

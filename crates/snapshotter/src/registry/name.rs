//! What a registry is asked for: a repository, and in it a tag or a digest. All three have passed their grammar, so
//! that they can become parts of URLs and paths as they are.

use std::fmt;

use crate::words::digest::Sha256;
use crate::words::error::{Error, Result};
use crate::words::reference::{check_name, check_version};

/// `<namespace>/<name>`: valid, at most 255 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Repository(String);

impl Repository {
    /// The repository of a snapshot's name; the namespace may be empty.
    pub(crate) fn new(namespace: &str, name: &str) -> Result<Self> {
        check_name(name).map_err(|error| Error::invalid(error.to_string()))?;
        let whole = if namespace.is_empty() {
            name.to_owned()
        } else {
            format!("{namespace}/{name}")
        };
        check_name(&whole).map_err(|error| {
            Error::invalid(format!("with the namespace \"{namespace}\", {error}"))
        })?;
        Ok(Self(whole))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) fn check_namespace(namespace: &str) -> Result<()> {
    check_name(namespace).map_err(|error| Error::invalid(format!("registry.namespace: {error}")))
}

/// The name of a snapshot whose repository is `repository`, or nothing where it is not below the namespace or could
/// not be a snapshot's.
pub(super) fn below<'a>(repository: &'a str, namespace: &str) -> Option<&'a str> {
    let name = if namespace.is_empty() {
        repository
    } else {
        repository.strip_prefix(namespace)?.strip_prefix('/')?
    };
    let valid = check_name(name).is_ok() && check_name(repository).is_ok();
    valid.then_some(name)
}

/// A version that has passed its grammar.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tag(String);

impl Tag {
    pub(crate) fn new(version: impl Into<String>) -> Result<Self> {
        let version = version.into();
        check_version(&version).map_err(|error| Error::invalid(error.to_string()))?;
        Ok(Self(version))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Which manifest of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TagOrDigest {
    /// The one that has this version now.
    Tag(Tag),
    /// The one with these bytes.
    Digest(Sha256),
}

impl TagOrDigest {
    pub(crate) fn tag(version: impl Into<String>) -> Result<Self> {
        Tag::new(version).map(Self::Tag)
    }

    /// The digest that was asked for.
    pub(super) fn digest(&self) -> Option<Sha256> {
        match self {
            Self::Tag(_) => None,
            Self::Digest(digest) => Some(*digest),
        }
    }
}

/// As it stands in a URL.
impl fmt::Display for TagOrDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag.as_str()),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_the_name_below_the_namespace() {
        assert_eq!(Repository::new("n/s", "a/b").unwrap().as_str(), "n/s/a/b");
        assert_eq!(Repository::new("", "a").unwrap().as_str(), "a");
        for (namespace, name) in [
            ("n", ""),
            ("n", "../a"),
            ("n", "A"),
            ("n", &"a".repeat(254)),
        ] {
            let error = Repository::new(namespace, name).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn a_name_is_what_is_below_the_namespace() {
        assert_eq!(below("n/a/b", "n"), Some("a/b"));
        assert_eq!(below("a", ""), Some("a"));
        for (repository, namespace) in [("na/b", "n"), ("n", "n"), ("m/a", "n"), ("n/../a", "n")] {
            assert_eq!(below(repository, namespace), None, "{repository}");
        }
    }
}

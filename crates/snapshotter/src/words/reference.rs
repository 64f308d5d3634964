//! [`Reference`]: how people and programs name a snapshot. The checks are OCI's for repositories and tags, written by
//! hand. A name holds neither `:` nor `@` and a version holds neither, so there is one way to split a reference.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::digest::{DigestError, Sha256, excerpt};

/// The longest repository (namespace, slash and name), in bytes.
pub const MAX_NAME_BYTES: usize = 255;
/// The longest version, in bytes.
pub const MAX_VERSION_BYTES: usize = 128;

/// Text that names no snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// The name isn't an OCI repository.
    #[error(
        "the name \"{text}\" is not valid: it should be lower-case letters and digits, joined by '.', '_', '__' or '-', in components joined by '/', at most 255 bytes"
    )]
    Name {
        /// The name, shortened.
        text: String,
    },
    /// The version isn't an OCI tag.
    #[error(
        "the version \"{text}\" is not valid: it should be at most 128 letters, digits, '_', '.' or '-', not starting with '.' or '-'"
    )]
    Version {
        /// The version, shortened.
        text: String,
    },
    /// Neither a version nor a manifest digest.
    #[error("\"{text}\" has no version: write NAME:VERSION")]
    MissingVersion {
        /// The reference, shortened.
        text: String,
    },
    /// What follows the `@` isn't a SHA-256.
    #[error("the manifest digest of \"{text}\" is not valid")]
    ManifestDigest {
        /// The reference, shortened.
        text: String,
        /// What is wrong with it.
        source: DigestError,
    },
}

/// `name:version`, `name:version@sha256:…` or `name@sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    name: String,
    // At least one of the two is there.
    version: Option<String>,
    digest: Option<Sha256>,
}

impl Reference {
    /// `name:version`.
    ///
    /// # Errors
    /// When either breaks its rule.
    pub fn new(
        name: impl Into<String>,
        version: impl Into<String>,
    ) -> Result<Self, ReferenceError> {
        let (name, version) = (name.into(), version.into());
        check_name(&name)?;
        check_version(&version)?;
        Ok(Self {
            name,
            version: Some(version),
            digest: None,
        })
    }

    /// `name@sha256:…`.
    ///
    /// # Errors
    /// When the name breaks its rule.
    pub fn by_digest(name: impl Into<String>, digest: Sha256) -> Result<Self, ReferenceError> {
        let name = name.into();
        check_name(&name)?;
        Ok(Self {
            name,
            version: None,
            digest: Some(digest),
        })
    }

    /// The same reference, pinned to one manifest.
    #[must_use]
    pub fn with_digest(self, digest: Sha256) -> Self {
        Self {
            digest: Some(digest),
            ..self
        }
    }

    /// The snapshot's name, without the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whose it is, where each tenant has a store of its own: the first component of the name.
    pub fn tenant(&self) -> &str {
        tenant_of(&self.name)
    }

    /// The version, where the reference has one.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// The manifest's digest, where the reference has one.
    pub fn manifest_digest(&self) -> Option<Sha256> {
        self.digest
    }
}

/// The first component of a name.
pub(crate) fn tenant_of(name: &str) -> &str {
    name.split_once('/').map_or(name, |(first, _)| first)
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (tagged, digest) = match text.split_once('@') {
            Some((tagged, digest)) => (tagged, Some(parse_digest(digest, text)?)),
            None => (text, None),
        };
        let (name, version) = match tagged.split_once(':') {
            Some((name, version)) => (name, Some(version)),
            None => (tagged, None),
        };
        check_name(name)?;
        version.map_or(Ok(()), check_version)?;
        if version.is_none() && digest.is_none() {
            return Err(ReferenceError::MissingVersion {
                text: excerpt(text),
            });
        }
        Ok(Self {
            name: name.to_owned(),
            version: version.map(str::to_owned),
            digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(version) = &self.version {
            write!(f, ":{version}")?;
        }
        if let Some(digest) = self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Checks a snapshot's name, or a repository (`namespace/name`), against OCI's rule.
///
/// # Errors
/// When it breaks the rule, with a text that shows it.
pub fn check_name(name: &str) -> Result<(), ReferenceError> {
    let valid = name.len() <= MAX_NAME_BYTES && name.split('/').all(is_component);
    if valid {
        Ok(())
    } else {
        Err(ReferenceError::Name {
            text: excerpt(name),
        })
    }
}

/// Checks a version against OCI's rule for tags.
///
/// # Errors
/// When it breaks the rule, with a text that shows it.
pub fn check_version(version: &str) -> Result<(), ReferenceError> {
    let bytes = version.as_bytes();
    let starts = bytes.first().is_some_and(|first| is_word(*first));
    let valid = starts
        && bytes.len() <= MAX_VERSION_BYTES
        && bytes
            .iter()
            .all(|b| is_word(*b) || matches!(b, b'.' | b'-'));
    if valid {
        Ok(())
    } else {
        Err(ReferenceError::Version {
            text: excerpt(version),
        })
    }
}

fn parse_digest(digest: &str, text: &str) -> Result<Sha256, ReferenceError> {
    digest
        .parse()
        .map_err(|source| ReferenceError::ManifestDigest {
            text: excerpt(text),
            source,
        })
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

const fn is_alphanumeric(byte: &u8) -> bool {
    matches!(*byte, b'a'..=b'z' | b'0'..=b'9')
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`: runs of letters and digits with a separator between each two.
fn is_component(component: &str) -> bool {
    let bytes = component.as_bytes();
    let ends =
        bytes.first().is_some_and(is_alphanumeric) && bytes.last().is_some_and(is_alphanumeric);
    ends && bytes
        .split(is_alphanumeric)
        .all(|gap| gap.is_empty() || is_separator(gap))
}

fn is_separator(gap: &[u8]) -> bool {
    matches!(gap, b"." | b"_" | b"__") || gap.iter().all(|byte| *byte == b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn the_three_forms() {
        let digest = DIGEST.parse::<Sha256>().unwrap();
        let tagged = Reference::new("a/b", "v1").unwrap();
        for (text, expected) in [
            ("a/b:v1".to_owned(), tagged.clone()),
            (format!("a/b:v1@{DIGEST}"), tagged.with_digest(digest)),
            (
                format!("a/b@{DIGEST}"),
                Reference::by_digest("a/b", digest).unwrap(),
            ),
        ] {
            assert_eq!(text.parse(), Ok(expected.clone()));
            assert_eq!(expected.to_string(), text);
        }
    }

    #[test]
    fn names() {
        let longest = "a".repeat(255);
        for name in [
            "a",
            "0",
            "a.b",
            "a_b",
            "a__b",
            "a-b",
            "a---b",
            "a/b",
            "a1/b2/c-3",
            "golden-one",
            &longest,
        ] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        let too_long = "a".repeat(256);
        for name in [
            "", "A", "a.", ".a", "-a", "a-", "a..b", "a___b", "a._b", "a-.b", "a_-b", "/a", "a/",
            "a//b", "a b", "é", "a:b", "a@b", "..", "a/../b", "a\n", &too_long,
        ] {
            assert!(check_name(name).is_err(), "{name:?} was accepted");
        }
    }

    #[test]
    fn versions() {
        let longest = "v".repeat(128);
        for version in [
            "v1",
            "_",
            "A",
            "0.1.2-rc.1",
            "a..b",
            "latest",
            "1_",
            "a.",
            "a-",
            &longest,
        ] {
            assert_eq!(check_version(version), Ok(()), "{version}");
        }
        let too_long = "v".repeat(129);
        for version in [
            "", ".a", "-a", "a/b", "a:b", "a@b", "a b", "é", "v+1", "a\n", &too_long,
        ] {
            assert!(check_version(version).is_err(), "{version:?} was accepted");
        }
    }

    #[test]
    fn a_missing_version_is_its_own_error() {
        let error = "name".parse::<Reference>().unwrap_err();
        assert!(matches!(error, ReferenceError::MissingVersion { .. }));
        assert!(error.to_string().contains("NAME:VERSION"));
        assert!(matches!(
            "name:".parse::<Reference>(),
            Err(ReferenceError::Version { .. })
        ));
        assert!(matches!(
            ":v1".parse::<Reference>(),
            Err(ReferenceError::Name { .. })
        ));
        assert!(matches!(
            "".parse::<Reference>(),
            Err(ReferenceError::Name { .. })
        ));
    }

    #[test]
    fn refuses_malformed_references() {
        for text in [
            "a:b:c",
            "a@",
            "a:v1@",
            "@",
            ":",
            "a@b",
            "host:5000/a:v1",
            "a:v1@sha256:ab",
            "a@sha512:00",
            &format!("a@{DIGEST}@{DIGEST}"),
            &format!("a@{DIGEST}:v1"),
            &format!("@{DIGEST}"),
            " a:v1",
            "a:v1 ",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn errors_show_the_rule_and_the_text() {
        let error = check_name("Nope").unwrap_err().to_string();
        assert!(
            error.contains("Nope") && error.contains("lower-case"),
            "{error}"
        );
        let error = check_version("a/b").unwrap_err().to_string();
        assert!(error.contains("a/b") && error.contains("128"), "{error}");
    }

    proptest! {
        #[test]
        fn valid_references_round_trip(
            name in "[a-z0-9]{1,4}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,3}(/[a-z0-9]{1,4}){0,2}",
            version in proptest::option::of("[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}"),
            digest in proptest::option::of(any::<[u8; 32]>()),
        ) {
            let digest = digest.map(Sha256::from_bytes);
            prop_assume!(version.is_some() || digest.is_some());
            let reference = Reference { name, version, digest };
            prop_assert_eq!(reference.to_string().parse(), Ok(reference));
        }

        #[test]
        fn what_is_accepted_prints_the_same(text in "[a-z:@/._-]{0,12}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string(), text);
            }
        }
    }
}

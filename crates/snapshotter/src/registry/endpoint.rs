//! What `registry.endpoint` means: a server's origin, or a directory.

use std::path::{Path, PathBuf};

use reqwest::Url;

use crate::words::error::{Error, Result};

const RULE: &str = "must be https://HOST[:PORT], http://HOST[:PORT], HOST[:PORT] or oci-layout:/ABSOLUTE/PATH, without user, path or query";

/// Where a registry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// A server: scheme, host and port alone.
    Remote(Url),
    /// A directory of image layouts.
    Layout(PathBuf),
}

impl Endpoint {
    /// The one spelling of it.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Remote(url) => url.as_str().trim_end_matches('/').to_owned(),
            // Without doubled slashes, dots, and a slash at the end.
            Self::Layout(path) => {
                let path: PathBuf = path.components().collect();
                format!("oci-layout:{}", path.display())
            }
        }
    }

    /// Reads it. The text is not repeated in the error: somebody may have written a password into it.
    pub(super) fn parse(text: &str) -> Result<Self> {
        if let Some(path) = text.strip_prefix("oci-layout:") {
            return layout(Path::new(path));
        }
        let url = if text.contains("://") {
            Url::parse(text)
        } else {
            Url::parse(&format!("https://{text}"))
        };
        url.ok()
            .filter(is_origin)
            .map(Self::Remote)
            .ok_or_else(refused)
    }
}

fn layout(path: &Path) -> Result<Endpoint> {
    if path.is_absolute() {
        Ok(Endpoint::Layout(path.to_owned()))
    } else {
        Err(refused())
    }
}

fn is_origin(url: &Url) -> bool {
    let no_user = url.username().is_empty() && url.password().is_none();
    let nothing_more = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    matches!(url.scheme(), "http" | "https") && url.has_host() && no_user && nothing_more
}

fn refused() -> Error {
    Error::invalid(format!("registry.endpoint {RULE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_spelling_means() {
        for (text, origin) in [
            ("https://r.example.com", "https://r.example.com/"),
            ("https://r.example.com/", "https://r.example.com/"),
            ("http://localhost:5000", "http://localhost:5000/"),
            ("r.example.com", "https://r.example.com/"),
            ("localhost:5000", "https://localhost:5000/"),
            ("[::1]:5000", "https://[::1]:5000/"),
        ] {
            let expected = Endpoint::Remote(origin.parse().unwrap());
            assert_eq!(Endpoint::parse(text).unwrap(), expected, "{text}");
        }
        let layout = Endpoint::parse("oci-layout:/srv/a b").unwrap();
        assert_eq!(layout, Endpoint::Layout("/srv/a b".into()));
    }

    #[test]
    fn one_registry_has_one_address() {
        for (text, address) in [
            ("R.example.com", "https://r.example.com"),
            ("https://r.example.com:443/", "https://r.example.com"),
            ("http://localhost:5000", "http://localhost:5000"),
            ("oci-layout:/srv//a/./b/", "oci-layout:/srv/a/b"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().address(), address, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_neither() {
        for text in [
            "",
            "https://",
            "ftp://host",
            "https://user:hunter2@host",
            "https://user@host",
            "https://host/path",
            "https://host/?q",
            "https://host/#f",
            "host/path",
            "oci-layout:",
            "oci-layout:relative",
            "a b",
        ] {
            let error = Endpoint::parse(text).unwrap_err().to_string();
            assert!(error.starts_with("registry.endpoint"), "{text}");
            assert!(!error.contains("hunter2"));
        }
    }
}

//! Docker's `config.json`, as far as it knows credentials: `credHelpers`, `credsStore`, `auths`, asked in that order.
//! Nothing of what is in it is shown in an error.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::{Credentials, Helpers, helper};
use crate::fs::small;
use crate::registry::secret::Secret;
use crate::words::error::{Error, ErrorKind, Result};

const MAX_BYTES: u64 = 4 << 20;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct DockerConfig {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// The credentials for `host`, which is `host[:port]`.
pub(super) fn lookup(path: &Path, host: &str, helpers: &Helpers) -> Result<Credentials> {
    let Some(bytes) = read(path)? else {
        return Ok(Credentials::Anonymous);
    };
    // Where JSON is malformed, serde's text could quote it: only the place is told.
    let config: DockerConfig = serde_json::from_slice(&bytes).map_err(|error| {
        malformed(
            path,
            &format!("line {}, column {}", error.line(), error.column()),
        )
    })?;
    let store = config.creds_store.filter(|name| !name.is_empty());
    if let Some(name) = config.cred_helpers.get(host).or(store.as_ref())
        && let Some(found) = helper::ask(name, &server_name(host), helpers)?
    {
        return Ok(found);
    }
    let entry = config
        .auths
        .into_iter()
        .find(|(key, _)| host_of(key) == host);
    entry.map_or(Ok(Credentials::Anonymous), |(_, auth)| {
        auth.into_credentials()
            .ok_or_else(|| malformed(path, &format!("the entry of {host}")))
    })
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match small::read("Docker's configuration", path, MAX_BYTES) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

fn malformed(path: &Path, what: &str) -> Error {
    let text = format!(
        "{} is not a Docker configuration: see {what}",
        path.display()
    );
    Error::new(ErrorKind::InvalidInput, text).with_path(path)
}

impl Auth {
    /// `None` when it is malformed. An entry without anything, as `credsStore` leaves behind, is anonymous.
    fn into_credentials(self) -> Option<Credentials> {
        if let Some(token) = self.identitytoken.filter(|token| !token.is_empty()) {
            return Some(Credentials::Identity(Secret::new(token)));
        }
        if let Some(auth) = self.auth.filter(|auth| !auth.is_empty()) {
            return decode(&auth);
        }
        Some(match self.username.zip(self.password) {
            Some((username, password)) => Credentials::Basic {
                username,
                password: Secret::new(password),
            },
            None => Credentials::Anonymous,
        })
    }
}

fn decode(auth: &str) -> Option<Credentials> {
    let decoded = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
    let (username, password) = decoded.split_once(':')?;
    Some(Credentials::Basic {
        username: username.to_owned(),
        // Docker for Windows once padded these.
        password: Secret::new(password.trim_end_matches('\0')),
    })
}

/// `https://host/v1/` and `host` are the same to Docker.
fn host_of(key: &str) -> &str {
    let rest = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let host = rest.split('/').next().unwrap_or(rest);
    if host == "index.docker.io" {
        return "registry-1.docker.io";
    }
    host
}

/// What a helper knows the host as: Docker Hub has its old name there.
fn server_name(host: &str) -> String {
    if host == "registry-1.docker.io" {
        return "https://index.docker.io/v1/".to_owned();
    }
    host.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(json: &str, host: &str) -> Result<Credentials> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, json).unwrap();
        lookup(&path, host, &Helpers::default())
    }

    fn basic(username: &str, password: &str) -> Credentials {
        Credentials::Basic {
            username: username.into(),
            password: Secret::new(password),
        }
    }

    #[test]
    fn auths() {
        // "u:p:q"
        let json = r#"{"auths":{"https://a.example.com/v1/":{"auth":"dTpwOnE="},"b:5000":{"identitytoken":"t"},
            "c":{},"d":{"username":"x","password":"y"},"https://index.docker.io/v1/":{"auth":"dTpwOnE="}},"x":1}"#;
        for (host, expected) in [
            ("a.example.com", basic("u", "p:q")),
            ("b:5000", Credentials::Identity(Secret::new("t"))),
            ("b", Credentials::Anonymous),
            ("c", Credentials::Anonymous),
            ("d", basic("x", "y")),
            ("registry-1.docker.io", basic("u", "p:q")),
        ] {
            assert_eq!(found(json, host).unwrap(), expected, "{host}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_as_good_as_none() {
        let nowhere = Path::new("/nowhere/config.json");
        let found = lookup(nowhere, "a", &Helpers::default()).unwrap();
        assert_eq!(found, Credentials::Anonymous);
    }

    /// A Docker configuration that was a fifo was waited for without end: reading small files ends, whatever they are.
    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("config.json");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        for path in [&fifo, Path::new("/dev/zero"), dir.path()] {
            let error = lookup(path, "a", &Helpers::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert_eq!(error.path(), Some(path));
        }
    }

    #[test]
    fn a_malformed_file_is_named_and_not_quoted() {
        for json in [
            "hunter2",
            r#"{"auths":{"a":"hunter2"}}"#,
            r#"{"auths":{"a":{"auth":"hunter2!"}}}"#,
            r#"{"auths":{"a":{"auth":"aHVudGVyMg=="}}}"#,
        ] {
            let error = found(json, "a").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("config.json"), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }
}

//! Who to log in as: what the configuration says, else what Docker's configuration and its credential helpers say.
//!
//! Asked for once, and only when the registry wants credentials: an open registry starts no helper.

mod docker_config;
mod helper;

use std::path::PathBuf;
use std::time::Duration;

use super::config::Registry;
use super::secret::Secret;
use crate::threads;
use crate::words::error::Result;

/// What a registry or its token server is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Credentials {
    /// Nothing.
    Anonymous,
    /// User and password.
    Basic { username: String, password: Secret },
    /// A refresh token, which the token server changes into access tokens.
    Identity(Secret),
}

/// How credential helpers are run.
#[derive(Clone, Debug)]
pub(super) struct Helpers {
    /// How long one may take; then it is killed.
    pub(super) limit: Duration,
    /// Where they are; `None` lets the operating system search the path.
    pub(super) dir: Option<PathBuf>,
}

impl Default for Helpers {
    fn default() -> Self {
        Self {
            limit: Duration::from_secs(10),
            dir: None,
        }
    }
}

/// Where credentials come from.
#[derive(Clone, Debug)]
pub(super) struct Source {
    explicit: Option<Credentials>,
    docker_config: Option<PathBuf>,
    helpers: Helpers,
}

impl Source {
    pub(super) fn new(config: &Registry, helpers: Helpers) -> Self {
        let explicit = config.username.clone().zip(config.password.clone());
        Self {
            explicit: explicit.map(|(username, password)| Credentials::Basic {
                username,
                password: Secret::new(password),
            }),
            docker_config: config.docker_config.clone(),
            helpers,
        }
    }

    /// The credentials for a registry, `host[:port]`. Files and helpers are read on a blocking thread.
    pub(super) async fn load(&self, host: &str) -> Result<Credentials> {
        if let Some(explicit) = &self.explicit {
            return Ok(explicit.clone());
        }
        let Some(path) = self.docker_config.clone() else {
            return Ok(Credentials::Anonymous);
        };
        let (host, helpers) = (host.to_owned(), self.helpers.clone());
        threads::run(move || docker_config::lookup(&path, &host, &helpers)).await
    }
}

/// What a Docker configuration says of a host, with no helper to be found.
#[cfg(feature = "fuzzing")]
pub(crate) fn docker_config_without_helpers(path: &std::path::Path, host: &str) -> Result<()> {
    let helpers = Helpers {
        dir: Some(PathBuf::from("/nonexistent")),
        ..Helpers::default()
    };
    docker_config::lookup(path, host, &helpers).map(drop)
}

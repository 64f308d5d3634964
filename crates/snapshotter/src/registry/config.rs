//! Where snapshots' metadata goes: plain data, checked once when it is opened.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::endpoint::Endpoint;
use super::name;
use super::secret::Secret;
use crate::patience::{MIN_RATE, Patience};
use crate::words::error::{Error, Result};
use crate::words::sharing::SharedWith;

/// The registry that holds snapshots' manifests and documents, or the directory that stands in for one.
///
/// The library looks neither into the environment nor into the home directory: proxies and Docker's configuration are
/// used where they are named here.
///
/// ```
/// use snapshotter::Registry;
///
/// let registry = Registry::new("https://registry.example.com", "snapshots").credentials("robot", "secret");
/// assert!(!format!("{registry:?}").contains("secret"));
/// ```
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Registry {
    /// `https://registry.example.com`, `http://localhost:5000`, or a host alone, which means https. Or
    /// `oci-layout:/absolute/path`: a directory with one OCI image layout a repository.
    pub endpoint: String,
    /// What every snapshot's name is put below: the repository is `<namespace>/<name>`. Empty for none.
    pub namespace: String,
    /// The user to log in as, with [`password`](Self::password).
    pub username: Option<String>,
    /// The user's password or token. Never shown.
    pub password: Option<String>,
    /// Accepts any certificate of an https registry, whoever signed it and for whatever host. It encrypts, but does not
    /// tell who is at the other end: prefer [`ca_file`](Self::ca_file). Nothing changes for http. Default `false`.
    pub insecure: bool,
    /// A PEM file with certificates of authorities to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// A Docker `config.json`: its `auths`, `credHelpers` and `credsStore` are asked when the registry wants
    /// credentials and none are given here. A file that is not there is as good as none.
    pub docker_config: Option<PathBuf>,
    /// The proxy all requests go through, `http://host:port`. User and password in it are never shown. Default: none.
    pub proxy: Option<String>,
    /// How long a request may make no progress before it counts as failed. Default 30 seconds. A registry that has
    /// got a stream is given ten times as long to make a blob of it, and what it does not show at once of what it took is waited
    /// for this long; for a directory it is how long to wait for another
    /// process that writes an index.
    pub timeout: Duration,
    /// How few bytes a second, counted over a minute of waiting for the registry, a body may move in either direction
    /// before its request counts as failed. Default 4096 (4 KiB/s); 0 for any number. For a directory it has no meaning.
    pub min_rate: u64,
    /// How long connecting may take. Default 10 seconds.
    pub connect_timeout: Duration,
    /// How often a request is sent again after a failure that may pass: connection errors, timeouts, 429 and 5xx.
    /// Default 4.
    pub retries: u32,
    /// How many bytes of an upload one request may have. Default: all of them, in one request. For proxies that limit the
    /// length of requests.
    pub chunk_bytes: Option<u64>,
    /// Who else may use what is published into a directory. Default: nobody. For a server it has no meaning.
    pub shared_with: SharedWith,
}

impl Registry {
    /// A registry with the defaults.
    #[must_use]
    pub fn new(endpoint: impl Into<String>, namespace: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            namespace: namespace.into(),
            username: None,
            password: None,
            insecure: false,
            ca_file: None,
            docker_config: None,
            proxy: None,
            timeout: Duration::from_secs(30),
            min_rate: MIN_RATE,
            connect_timeout: Duration::from_secs(10),
            retries: 4,
            chunk_bytes: None,
            shared_with: SharedWith::default(),
        }
    }

    /// Sets [`username`](Self::username) and [`password`](Self::password).
    #[must_use]
    pub fn credentials(mut self, username: impl Into<String>, password: impl Into<String>) -> Self {
        self.username = Some(username.into());
        self.password = Some(password.into());
        self
    }

    /// Sets [`insecure`](Self::insecure).
    #[must_use]
    pub fn insecure(mut self, insecure: bool) -> Self {
        self.insecure = insecure;
        self
    }

    /// Sets [`ca_file`](Self::ca_file).
    #[must_use]
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(file.into());
        self
    }

    /// Sets [`docker_config`](Self::docker_config).
    #[must_use]
    pub fn docker_config(mut self, file: impl Into<PathBuf>) -> Self {
        self.docker_config = Some(file.into());
        self
    }

    /// Sets [`proxy`](Self::proxy).
    #[must_use]
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.proxy = Some(url.into());
        self
    }

    /// Sets [`timeout`](Self::timeout).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets [`min_rate`](Self::min_rate), in bytes a second.
    #[must_use]
    pub fn min_rate(mut self, bytes_per_second: u64) -> Self {
        self.min_rate = bytes_per_second;
        self
    }

    /// Sets [`connect_timeout`](Self::connect_timeout).
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets [`retries`](Self::retries).
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Sets [`chunk_bytes`](Self::chunk_bytes).
    #[must_use]
    pub fn chunk_bytes(mut self, bytes: u64) -> Self {
        self.chunk_bytes = Some(bytes);
        self
    }

    /// Sets [`shared_with`](Self::shared_with).
    #[must_use]
    pub fn shared_with(mut self, others: SharedWith) -> Self {
        self.shared_with = others;
        self
    }

    pub(super) fn patience(&self, window: Duration) -> Patience {
        Patience {
            silence: self.timeout,
            min_rate: self.min_rate,
            window,
            setting: "registry.min_rate",
        }
    }

    /// Where it is, for reports and errors.
    pub(crate) fn place(&self) -> String {
        let bare = self.endpoint.trim_end_matches('/');
        ["https://", "http://"]
            .iter()
            .find_map(|scheme| bare.strip_prefix(scheme))
            .unwrap_or(bare)
            .to_owned()
    }

    /// The directory of this machine that is the registry, if it is one.
    pub(crate) fn directory(&self) -> Option<std::path::PathBuf> {
        match Endpoint::parse(&self.endpoint) {
            Ok(Endpoint::Layout(path)) => Some(path),
            _ => None,
        }
    }

    /// Checks every field; says where the registry is.
    pub(crate) fn validate(&self) -> Result<Endpoint> {
        let endpoint = Endpoint::parse(&self.endpoint)?;
        if !self.namespace.is_empty() {
            name::check_namespace(&self.namespace)?;
        }
        self.validate_credentials()?;
        self.validate_proxy()?;
        require(
            !self.timeout.is_zero(),
            "timeout",
            "must be longer than zero",
        )?;
        require(
            !self.connect_timeout.is_zero(),
            "connect_timeout",
            "must be longer than zero",
        )?;
        require(self.retries <= 100, "retries", "must be at most 100")?;
        require(
            self.chunk_bytes.is_none_or(|bytes| bytes >= MIN_CHUNK),
            "chunk_bytes",
            "must be at least 64 KiB",
        )?;
        Ok(endpoint)
    }

    fn validate_credentials(&self) -> Result<()> {
        let both = self.username.is_some() == self.password.is_some();
        require(
            both,
            "username",
            "and registry.password go together: give both or neither",
        )?;
        let username = self.username.as_deref().unwrap_or("user");
        require(
            !username.is_empty() && !username.contains(':'),
            "username",
            "must not be empty and must not contain ':'",
        )
    }

    fn validate_proxy(&self) -> Result<()> {
        let Some(proxy) = &self.proxy else {
            return Ok(());
        };
        let valid = reqwest::Url::parse(proxy)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        require(
            valid,
            "proxy",
            "must be http://HOST:PORT or https://HOST:PORT",
        )
    }
}

/// With less a layer would be more requests than bytes are worth.
const MIN_CHUNK: u64 = 64 << 10;

/// The fields by name, what is secret left out: so that a configuration can be logged.
impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            endpoint,
            namespace,
            username,
            password,
            insecure,
            ca_file,
            docker_config,
            proxy,
            timeout,
            min_rate,
            connect_timeout,
            retries,
            chunk_bytes,
            shared_with,
        } = self;
        f.debug_struct("Registry")
            .field("endpoint", &without_userinfo(endpoint))
            .field("namespace", namespace)
            .field("username", username)
            .field("password", &password.clone().map(Secret::new))
            .field("insecure", insecure)
            .field("ca_file", ca_file)
            .field("docker_config", docker_config)
            .field("proxy", &proxy.as_deref().map(without_userinfo))
            .field("timeout", timeout)
            .field("min_rate", min_rate)
            .field("connect_timeout", connect_timeout)
            .field("retries", retries)
            .field("chunk_bytes", chunk_bytes)
            .field("shared_with", shared_with)
            .finish()
    }
}

/// What may be shown of something that should be a URL and perhaps is none: nothing before its last `@`.
fn without_userinfo(url: &str) -> &str {
    url.rsplit_once('@').map_or(url, |(_, rest)| rest)
}

fn require(holds: bool, field: &str, rule: &str) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::invalid(format!("registry.{field} {rule}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Registry {
        Registry::new("https://registry.example.com", "snapshots")
    }

    #[test]
    fn the_defaults_are_valid() {
        good().validate().unwrap();
        Registry::new("registry.example.com", "")
            .validate()
            .unwrap();
        Registry::new("oci-layout:/srv/snapshots", "a/b")
            .validate()
            .unwrap();
    }

    #[test]
    fn a_bad_field_is_named_and_its_secret_is_not() {
        let user_alone = Registry {
            username: Some("u".into()),
            ..good()
        };
        let password_alone = Registry {
            password: Some("hunter2".into()),
            ..good()
        };
        let cases = [
            (Registry::new("", "n"), "registry.endpoint"),
            (
                Registry::new("https://u:hunter2@host", "n"),
                "registry.endpoint",
            ),
            (Registry::new("https://host", "Bad"), "registry.namespace"),
            (user_alone, "registry.username"),
            (password_alone, "registry.username"),
            (good().credentials("", "hunter2"), "registry.username"),
            (good().credentials("a:b", "hunter2"), "registry.username"),
            (good().proxy("u:hunter2@host"), "registry.proxy"),
            (good().proxy("socks5://u:hunter2@host"), "registry.proxy"),
            (good().timeout(Duration::ZERO), "registry.timeout"),
            (
                good().connect_timeout(Duration::ZERO),
                "registry.connect_timeout",
            ),
            (good().retries(101), "registry.retries"),
            (good().chunk_bytes(1), "registry.chunk_bytes"),
        ];
        for (config, field) in cases {
            let error = config.validate().unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidInput);
            assert!(error.to_string().starts_with(field), "{field}: {error}");
            assert!(
                !format!("{error:?} {config:?}").contains("hunter2"),
                "{error:?} {config:?}"
            );
        }
    }
}

//! Where the daemon is and how it is used: plain data, checked when a handle is opened. No secrets are in here: keys to
//! the bucket are [`Content`](crate::Content)'s.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::words::digest::excerpt;
use crate::words::error::{Error, Result};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Dragonfly's daemon (`dfdaemon`) on this node: contents travel through it, from other nodes where these have them,
/// and from the bucket where they do not. It goes with a [`Content`](crate::Content) that is a bucket, and with nothing
/// else. Where the provider is compiled in, the bucket is also used directly when the daemon fails.
///
/// The daemon is given the content's bucket, region, endpoint and keys, `insecure_skip_verify`, and the name of
/// `credential_path`, which it has to be able to read. Proxies, authorities and time limits are its own.
///
/// ```
/// use snapshotter::Dragonfly;
///
/// let dragonfly = Dragonfly::new("unix:///run/dragonfly/dfdaemon.sock")
///     .storage_dir("/var/lib/snapshotter");
/// assert_eq!(dragonfly.replicas, 2);
/// assert_eq!(Dragonfly::default().endpoint, "unix:///var/run/dragonfly/dfdaemon.sock");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dragonfly {
    /// `unix:///PATH`, `https://HOST:PORT`, or `http://HOST:PORT`, which sends keys to the bucket in the clear. Default:
    /// `unix:///var/run/dragonfly/dfdaemon.sock`.
    pub endpoint: String,
    /// Where the daemon sees this handle's root, if that is not where it is: the daemon opens and makes files there, and
    /// may run in a container. It takes the place of the root in every path that is sent. Absolute.
    pub storage_dir: Option<PathBuf>,
    /// On how many nodes the daemons keep an object that was published through them. Default 2.
    pub replicas: u32,
    /// How long the daemons keep what was published in their caches, between 5 minutes and 7 days. Default: what the
    /// daemon is configured for. The bucket's objects have nothing to do with it.
    pub ttl: Option<Duration>,
    /// Whether this node's daemon keeps what it fetched as it keeps what was published, until the ttl is over. Default
    /// `false`: until it needs the space.
    pub persistent: bool,
    /// How long a download may go without a message. Default 60 s: the daemon tries again by itself, in silence.
    pub idle_timeout: Duration,
    /// How many uploads, and how many downloads, may be under way at once. Default 16.
    pub concurrency: usize,
    /// A file with certificates (PEM) to trust besides the system's, for `https`.
    pub ca_file: Option<PathBuf>,
}

impl Default for Dragonfly {
    fn default() -> Self {
        Self::new("unix:///var/run/dragonfly/dfdaemon.sock")
    }
}

/// An endpoint, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Socket(PathBuf),
    Tcp { uri: String, tls: bool },
}

impl Dragonfly {
    /// The defaults, for a daemon at an endpoint.
    #[must_use]
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            storage_dir: None,
            replicas: 2,
            ttl: None,
            persistent: false,
            idle_timeout: MINUTE,
            concurrency: 16,
            ca_file: None,
        }
    }

    /// Sets [`storage_dir`](Self::storage_dir).
    #[must_use]
    pub fn storage_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.storage_dir = Some(dir.into());
        self
    }

    /// Sets [`replicas`](Self::replicas).
    #[must_use]
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    /// Sets [`ttl`](Self::ttl).
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets [`persistent`](Self::persistent).
    #[must_use]
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = persistent;
        self
    }

    /// Sets [`idle_timeout`](Self::idle_timeout).
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Sets [`concurrency`](Self::concurrency).
    #[must_use]
    pub fn concurrency(mut self, calls: usize) -> Self {
        self.concurrency = calls;
        self
    }

    /// Sets [`ca_file`](Self::ca_file).
    #[must_use]
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(file.into());
        self
    }

    pub(super) fn validate(&self) -> Result<Address> {
        let address = address(&self.endpoint).ok_or_else(|| {
            // A password does not belong here; if somebody puts one, it is not repeated.
            Error::invalid(format!(
                "dragonfly.endpoint \"{}\" must be unix:///PATH, https://HOST:PORT or http://HOST:PORT",
                excerpt(self.endpoint.rsplit('@').next().unwrap_or_default())
            ))
        })?;
        require(
            self.storage_dir
                .as_deref()
                .is_none_or(|dir| dir.is_absolute() && dir.to_str().is_some()),
            "storage_dir",
            "must be an absolute directory",
        )?;
        require(
            (1..=100).contains(&self.replicas),
            "replicas",
            "must be between 1 and 100",
        )?;
        require(
            self.ttl
                .is_none_or(|ttl| (5 * MINUTE..=7 * DAY).contains(&ttl)),
            "ttl",
            "must be between 5 minutes and 7 days",
        )?;
        require(
            !self.idle_timeout.is_zero() && self.idle_timeout <= DAY,
            "idle_timeout",
            "must be longer than zero and at most a day",
        )?;
        require(
            (1..=1024).contains(&self.concurrency),
            "concurrency",
            "must be between 1 and 1024",
        )?;
        let is_tls = matches!(&address, Address::Tcp { tls: true, .. });
        require(
            self.ca_file.is_none() || is_tls,
            "ca_file",
            "is for an https:// endpoint alone",
        )?;
        Ok(address)
    }
}

fn address(endpoint: &str) -> Option<Address> {
    if let Some(path) = endpoint.strip_prefix("unix://") {
        // What the kernel takes for a socket's path, with the zero at its end.
        let fits = Path::new(path).is_absolute() && path.len() < 108 && !path.contains('\0');
        return fits.then(|| Address::Socket(path.into()));
    }
    let (scheme, host) = endpoint.split_once("://")?;
    let tls = match scheme {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let host = host.trim_end_matches('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    let (name, port) = host.rsplit_once(':')?;
    let fits = !name.is_empty() && host.chars().all(plain) && port.parse::<u16>().is_ok();
    fits.then(|| Address::Tcp {
        uri: format!("{scheme}://{}", host.to_ascii_lowercase()),
        tls,
    })
}

fn require(holds: bool, field: &str, rule: &str) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::invalid(format!("dragonfly.{field} {rule}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_sockets_and_servers() {
        let socket = Address::Socket("/var/run/dragonfly/dfdaemon.sock".into());
        assert_eq!(Dragonfly::default().validate().unwrap(), socket);
        for (endpoint, tls) in [
            ("https://Node-1:65000/", true),
            ("http://[::1]:65000", false),
        ] {
            let uri = endpoint.trim_end_matches('/').to_lowercase();
            let expected = Address::Tcp { uri, tls };
            assert_eq!(Dragonfly::new(endpoint).validate().unwrap(), expected);
        }
    }

    #[test]
    fn a_bad_field_is_named() {
        let good = Dragonfly::default;
        let long = format!("unix:///{}", "x".repeat(200));
        let cases = [
            (Dragonfly::new(""), "endpoint"),
            (Dragonfly::new("/run/d.sock"), "endpoint"),
            (Dragonfly::new("unix://run/d.sock"), "endpoint"),
            (Dragonfly::new(long), "endpoint"),
            (Dragonfly::new("https://host"), "endpoint"),
            (Dragonfly::new("https://u:hunter2@host:1"), "endpoint"),
            (good().storage_dir("data"), "storage_dir"),
            (good().replicas(0), "replicas"),
            (good().ttl(Duration::from_secs(299)), "ttl"),
            (good().ttl(8 * DAY), "ttl"),
            (good().idle_timeout(Duration::ZERO), "idle_timeout"),
            (good().concurrency(0), "concurrency"),
            (good().ca_file("/ca.pem"), "ca_file"),
        ];
        for (config, field) in cases {
            let error = config.validate().unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidInput);
            let text = error.to_string();
            assert!(text.starts_with(&format!("dragonfly.{field}")), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}

//! Where content is kept: plain data, checked when a transport is opened.
//!
//! Secrets are in here, so `Debug` is written by hand and says of each only whether it is set.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::patience::MIN_RATE;
#[cfg(feature = "_opendal")]
use crate::patience::Patience;
use crate::words::digest::excerpt;
use crate::words::error::{Error, Result};

/// What kind of storage holds the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ContentProvider {
    /// Amazon S3 and everything that speaks its protocol.
    S3,
    /// Alibaba Cloud Object Storage Service.
    Oss,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azblob,
    /// Huawei Cloud Object Storage Service.
    Obs,
    /// Tencent Cloud Object Storage.
    Cos,
    /// A directory, for example of a network filesystem.
    Fs,
    /// The registry that holds the snapshot's manifest: content as its layers.
    Registry,
}

impl ContentProvider {
    /// The name in configuration files and URLs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Oss => "oss",
            Self::Gcs => "gcs",
            Self::Azblob => "azblob",
            Self::Obs => "obs",
            Self::Cos => "cos",
            Self::Fs => "fs",
            Self::Registry => "registry",
        }
    }

    pub(super) fn is_bucket(self) -> bool {
        !matches!(self, Self::Fs | Self::Registry)
    }
}

impl fmt::Display for ContentProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where the keys to a bucket come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Credentials {
    /// From [`Content`] alone: no environment, profile, metadata service or instance identity is asked.
    #[default]
    Static,
    /// From [`Content`] where it has them, else from wherever the provider's own tools would look.
    Ambient,
}

/// Who besides its user may use a directory that nodes share. What is there already keeps its mode, and so does the directory
/// itself, which whoever shares it makes first: `chgrp` it, and `chmod g+s`, for a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SharedWith {
    /// Nobody: files are 0600 and directories 0700, because memory dumps hold secrets.
    #[default]
    Nobody,
    /// The directory's group may read and publish: files are 0640 and directories 0770.
    Group,
    /// The group may read and publish, and everybody else read: files are 0644 and directories 0775.
    Everyone,
}

impl SharedWith {
    /// The name in configuration files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Group => "group",
            Self::Everyone => "everyone",
        }
    }

    /// Of a file that is never written again.
    pub(crate) fn file_mode(self) -> u32 {
        match self {
            Self::Nobody => 0o600,
            Self::Group => 0o640,
            Self::Everyone => 0o644,
        }
    }

    /// Of a file that all who publish lock, which is opened for writing.
    pub(crate) fn lock_mode(self) -> u32 {
        match self {
            Self::Nobody => 0o600,
            Self::Group => 0o660,
            Self::Everyone => 0o664,
        }
    }

    pub(crate) fn directory_mode(self) -> u32 {
        match self {
            Self::Nobody => 0o700,
            Self::Group => 0o770,
            Self::Everyone => 0o775,
        }
    }
}

/// Where content is kept, and how to get there.
///
/// ```
/// use snapshotter::{Content, ContentProvider};
///
/// let mut content = Content::new(ContentProvider::S3);
/// content.bucket = Some("checkpoints".to_owned());
/// content.endpoint = Some("https://s3.example.com".to_owned());
/// content.access_key_id = Some("AKIA…".to_owned());
/// content.access_key_secret = Some("…".to_owned());
/// assert!(!format!("{content:?}").contains("AKIA"));
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Content {
    /// What kind of storage it is.
    pub provider: ContentProvider,
    /// The bucket (Azure: the container). Required of all but `fs` and `registry`, which have none.
    pub bucket: Option<String>,
    /// The region the bucket is in: S3 alone. Required where `endpoint` is not set, else `us-east-1`.
    pub region: Option<String>,
    /// Scheme, host and perhaps port; `https` where the scheme is left out. Required of `oss`, `azblob`, `obs` and
    /// `cos`. S3 addresses are path-style (`endpoint/bucket/key`) everywhere.
    pub endpoint: Option<String>,
    /// The public half of the key. Azure: the account's name.
    pub access_key_id: Option<String>,
    /// The secret half of the key. Azure: the account's key.
    pub access_key_secret: Option<String>,
    /// The token of a temporary key. Azure: a SAS token, which takes the place of the account's key. Google: an OAuth
    /// access token, which takes the place of `credential_path`. Not known to `obs`.
    pub session_token: Option<String>,
    /// Google: the file with the service account's key (JSON).
    pub credential_path: Option<PathBuf>,
    /// Where keys come from. Default: from here alone.
    pub credentials: Credentials,
    /// `fs`: the directory, absolute. It must be there.
    pub root: PathBuf,
    /// `fs`: who else may use what is published there. Default: nobody.
    pub shared_with: SharedWith,
    /// Accepts any TLS certificate: for tests. Default: no.
    pub insecure_skip_verify: bool,
    /// A file with certificates (PEM) to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// A proxy for all requests, `http://[user:password@]host:port`. None is taken from the environment.
    pub proxy: Option<String>,
    /// How long a request may go without progress. Default: 60 s.
    pub timeout: Duration,
    /// How few bytes a second, counted over a minute of waiting for the server, a body may move in either direction before
    /// its request counts as failed. Default: 4096 (4 KiB/s); 0 for any number. Waiting for Dragonfly's daemon is another
    /// matter ([`Dragonfly::idle_timeout`](crate::Dragonfly)), and a directory has no such limit.
    pub min_rate: u64,
    /// How many more times a request is sent that failed for a reason that may pass. Default: 4.
    pub retries: u32,
}

impl Content {
    /// The defaults for a provider.
    #[must_use]
    pub fn new(provider: ContentProvider) -> Self {
        Self {
            provider,
            bucket: None,
            region: None,
            endpoint: None,
            access_key_id: None,
            access_key_secret: None,
            session_token: None,
            credential_path: None,
            credentials: Credentials::default(),
            root: PathBuf::new(),
            shared_with: SharedWith::default(),
            insecure_skip_verify: false,
            ca_file: None,
            proxy: None,
            timeout: Duration::from_secs(60),
            min_rate: MIN_RATE,
            retries: 4,
        }
    }

    #[cfg(feature = "_opendal")]
    pub(super) fn patience(&self, window: Duration) -> Patience {
        Patience {
            silence: self.timeout,
            min_rate: self.min_rate,
            window,
            setting: "content.min_rate",
        }
    }

    /// Where it is, in one spelling and without secrets: two that are the same place are known as one. `None` for the
    /// registry, which is a place of its own.
    pub(crate) fn address(&self) -> Option<String> {
        let bucket = self.bucket.as_deref().unwrap_or_default();
        match (self.provider, self.endpoint()) {
            (ContentProvider::Registry, _) => None,
            (ContentProvider::Fs, _) => {
                let root: PathBuf = self.root.components().collect();
                Some(format!("fs://{}", root.display()))
            }
            (provider, Some(endpoint)) => Some(format!("{provider}+{endpoint}/{bucket}")),
            (provider, None) => Some(format!("{provider}://{bucket}")),
        }
    }

    /// The endpoint: `https` where there is no scheme, scheme and host in lower case, no default port, no slash at the end.
    pub(crate) fn endpoint(&self) -> Option<String> {
        let endpoint = self.endpoint.as_deref()?;
        let (scheme, rest) = endpoint.split_once("://").unwrap_or(("https", endpoint));
        let scheme = scheme.to_ascii_lowercase();
        let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let host = host.to_ascii_lowercase();
        let port = if scheme == "https" { ":443" } else { ":80" };
        let host = host.strip_suffix(port).unwrap_or(&host);
        Some(format!("{scheme}://{host}{}", path.trim_end_matches('/')))
    }

    pub(crate) fn validate(&self) -> Result<()> {
        self.validate_limits()?;
        self.validate_where()?;
        self.validate_keys()
    }

    fn validate_limits(&self) -> Result<()> {
        let day = Duration::from_secs(24 * 60 * 60);
        require(
            !self.timeout.is_zero() && self.timeout <= day,
            "timeout",
            "must be longer than zero and at most a day",
        )?;
        require(self.retries <= 20, "retries", "must be at most 20")?;
        let proxy = self.proxy.as_deref().unwrap_or("http://proxy");
        require(
            has_scheme(proxy) && !proxy.contains(char::is_whitespace),
            "proxy",
            "must start with http:// or https:// and have no spaces",
        )
    }

    fn validate_where(&self) -> Result<()> {
        if !self.provider.is_bucket() {
            return self.validate_root();
        }
        let bucket = self.bucket.as_deref().unwrap_or_default();
        if !is_bucket_name(bucket) {
            return Err(Error::invalid(format!(
                "content.bucket \"{}\" must be 1 to 255 letters, digits, dots, dashes and underscores",
                excerpt(bucket)
            )));
        }
        require(
            self.root.as_os_str().is_empty(),
            "root",
            "is for provider fs alone",
        )?;
        self.validate_shared()?;
        let needs_endpoint = match self.provider {
            ContentProvider::S3 => self.region.is_none(),
            ContentProvider::Gcs => false,
            _ => true,
        };
        match &self.endpoint {
            None if needs_endpoint && self.provider == ContentProvider::S3 => Err(Error::invalid(
                "content.region must be set where content.endpoint is not",
            )),
            None if needs_endpoint => Err(Error::invalid(format!(
                "content.endpoint must be set for provider {}",
                self.provider
            ))),
            None => Ok(()),
            Some(endpoint) => require(
                is_endpoint(endpoint),
                "endpoint",
                "must be a host, perhaps with http:// or https://, a port and a path, and nothing else",
            ),
        }
    }

    fn validate_root(&self) -> Result<()> {
        let unused = [
            ("bucket", self.bucket.is_some()),
            ("region", self.region.is_some()),
            ("endpoint", self.endpoint.is_some()),
            ("access_key_id", self.access_key_id.is_some()),
            ("access_key_secret", self.access_key_secret.is_some()),
            ("session_token", self.session_token.is_some()),
            ("credential_path", self.credential_path.is_some()),
        ];
        for (field, is_set) in unused {
            if is_set {
                return Err(Error::invalid(format!(
                    "content.{field} has no meaning for provider {}",
                    self.provider
                )));
            }
        }
        if self.provider == ContentProvider::Registry {
            self.validate_shared()?;
        }
        require(
            self.provider == ContentProvider::Registry || self.root.is_absolute(),
            "root",
            "must be an absolute directory for provider fs",
        )
    }

    fn validate_shared(&self) -> Result<()> {
        require(
            self.shared_with == SharedWith::Nobody,
            "shared_with",
            "is for provider fs alone",
        )
    }

    fn validate_keys(&self) -> Result<()> {
        let fields = [
            ("access_key_id", &self.access_key_id),
            ("access_key_secret", &self.access_key_secret),
            ("session_token", &self.session_token),
            ("region", &self.region),
        ];
        for (field, value) in fields {
            let value = value.as_deref().unwrap_or("unset");
            let plain = !value.is_empty() && value.chars().all(|c| c.is_ascii_graphic());
            // The value stays out of the text: it is a secret, if perhaps a mistyped one.
            require(
                plain,
                field,
                "must not be empty and have neither spaces nor other than ASCII characters",
            )?;
        }
        require(
            self.access_key_id.is_some() || self.access_key_secret.is_none(),
            "access_key_id",
            "must be set where access_key_secret is",
        )?;
        match self.provider {
            ContentProvider::Fs | ContentProvider::Registry => Ok(()),
            ContentProvider::Gcs => self.validate_google(),
            ContentProvider::Azblob => self.validate_azure(),
            ContentProvider::Obs if self.session_token.is_some() => Err(Error::invalid(
                "content.session_token is not supported for provider obs",
            )),
            _ => self.validate_pair(self.access_key_secret.is_some()),
        }
    }

    fn validate_azure(&self) -> Result<()> {
        require(
            self.access_key_secret.is_none() || self.session_token.is_none(),
            "session_token",
            "(a SAS token) takes the place of access_key_secret: set one of them for provider azblob",
        )?;
        self.validate_pair(self.access_key_secret.is_some() || self.session_token.is_some())
    }

    fn validate_pair(&self, has_secret: bool) -> Result<()> {
        let is_static = self.credentials == Credentials::Static;
        require(
            !is_static || self.access_key_id.is_some(),
            "access_key_id",
            "must be set with static credentials",
        )?;
        require(
            has_secret || !(is_static || self.access_key_id.is_some()),
            "access_key_secret",
            "must be set where access_key_id is, and with static credentials",
        )
    }

    fn validate_google(&self) -> Result<()> {
        require(
            self.access_key_id.is_none(),
            "access_key_id",
            "has no meaning for provider gcs: set credential_path to a service account's key file",
        )?;
        require(
            self.credential_path.is_none() || self.session_token.is_none(),
            "session_token",
            "takes the place of credential_path: set one of them for provider gcs",
        )?;
        require(
            self.credentials == Credentials::Ambient
                || self.credential_path.is_some()
                || self.session_token.is_some(),
            "credential_path",
            "must be set with static credentials",
        )
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = |secret: &Option<String>| secret.as_ref().map(|_| "set");
        f.debug_struct("Content")
            .field("provider", &self.provider)
            .field("bucket", &self.bucket)
            .field("region", &self.region)
            .field("endpoint", &self.endpoint)
            .field("access_key_id", &set(&self.access_key_id))
            .field("access_key_secret", &set(&self.access_key_secret))
            .field("session_token", &set(&self.session_token))
            .field("credential_path", &self.credential_path)
            .field("credentials", &self.credentials)
            .field("root", &self.root)
            .field("shared_with", &self.shared_with)
            .field("insecure_skip_verify", &self.insecure_skip_verify)
            .field("ca_file", &self.ca_file)
            // It may hold a user and a password.
            .field("proxy", &set(&self.proxy))
            .field("timeout", &self.timeout)
            .field("min_rate", &self.min_rate)
            .field("retries", &self.retries)
            .finish()
    }
}

/// Fails for a provider whose feature is off.
pub(super) fn require_compiled_in(provider: ContentProvider) -> Result<()> {
    let is_in = match provider {
        ContentProvider::S3 => cfg!(feature = "object-storage-s3"),
        ContentProvider::Oss => cfg!(feature = "object-storage-oss"),
        ContentProvider::Gcs => cfg!(feature = "object-storage-gcs"),
        ContentProvider::Azblob => cfg!(feature = "object-storage-azblob"),
        ContentProvider::Obs => cfg!(feature = "object-storage-obs"),
        ContentProvider::Cos => cfg!(feature = "object-storage-cos"),
        ContentProvider::Fs => true,
        ContentProvider::Registry => true,
    };
    if is_in {
        return Ok(());
    }
    Err(Error::new(
        crate::ErrorKind::Unsupported,
        format!("content.provider {provider} is not in this build"),
    )
    .with_hint(format!(
        "build with the feature object-storage-{provider} or object-storage"
    )))
}

fn has_scheme(url: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| {
        url.strip_prefix(scheme)
            .is_some_and(|rest| !rest.is_empty())
    })
}

fn is_bucket_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (1..=255).contains(&name.len()) && name.chars().all(plain) && !name.starts_with('.')
}

fn is_endpoint(endpoint: &str) -> bool {
    let rest = endpoint
        .strip_prefix("https://")
        .or_else(|| endpoint.strip_prefix("http://"))
        .unwrap_or(endpoint);
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '@' | '?' | '#' | '\\' | '"');
    !rest.is_empty() && !rest.starts_with('/') && !rest.contains("://") && rest.chars().all(plain)
}

fn require(holds: bool, field: &str, rule: &str) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::invalid(format!("content.{field} {rule}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_has_one_address_without_secrets() {
        let mut bucket = s3();
        bucket.session_token = Some("hunter2".to_owned());
        for (endpoint, address) in [
            (Some("S3.Example:443/"), "s3+https://s3.example/ckpt"),
            (
                Some("http://s3.example/minio"),
                "s3+http://s3.example/minio/ckpt",
            ),
            (None, "s3://ckpt"),
        ] {
            bucket.endpoint = endpoint.map(str::to_owned);
            assert_eq!(bucket.address().as_deref(), Some(address));
        }
        let mut directory = Content::new(ContentProvider::Fs);
        directory.root = PathBuf::from("/srv//objects/./");
        assert_eq!(directory.address().as_deref(), Some("fs:///srv/objects"));
        assert_eq!(Content::new(ContentProvider::Registry).address(), None);
    }

    fn s3() -> Content {
        let mut content = Content::new(ContentProvider::S3);
        content.bucket = Some("ckpt".to_owned());
        content.endpoint = Some("http://127.0.0.1:9000".to_owned());
        content.access_key_id = Some("id".to_owned());
        content.access_key_secret = Some("hunter2".to_owned());
        content
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn good_ones_pass() {
        s3().validate().unwrap();
        let mut fs = Content::new(ContentProvider::Fs);
        fs.root = "/srv/ckpt".into();
        fs.validate().unwrap();
        Content::new(ContentProvider::Registry).validate().unwrap();
        let mut ambient = s3();
        (ambient.access_key_id, ambient.access_key_secret) = (None, None);
        ambient.credentials = Credentials::Ambient;
        ambient.validate().unwrap();
    }

    #[test]
    fn a_bad_field_is_named() {
        type Change = fn(&mut Content);
        let cases: [(Change, &str); 17] = [
            (|c| c.bucket = None, "bucket"),
            (|c| c.bucket = some("a/../b"), "bucket"),
            (|c| c.endpoint = some("http://user:pw@host"), "endpoint"),
            (|c| c.endpoint = some("ftp://host"), "endpoint"),
            (|c| c.endpoint = None, "region"),
            (|c| c.access_key_id = None, "access_key_id"),
            (|c| c.access_key_secret = None, "access_key_secret"),
            (|c| c.access_key_secret = some("a b"), "access_key_secret"),
            (|c| c.session_token = some(""), "session_token"),
            (|c| c.root = "/x".into(), "root"),
            (|c| c.timeout = Duration::ZERO, "timeout"),
            (|c| c.retries = 21, "retries"),
            (|c| c.proxy = some("proxy:3128"), "proxy"),
            (|c| c.provider = ContentProvider::Fs, "bucket"),
            (|c| c.provider = ContentProvider::Gcs, "access_key_id"),
            (
                |c| {
                    c.provider = ContentProvider::Obs;
                    c.session_token = some("t");
                },
                "session_token",
            ),
            (
                |c| {
                    c.provider = ContentProvider::Azblob;
                    c.session_token = some("sig");
                },
                "session_token",
            ),
        ];
        for (change, field) in cases {
            let mut content = s3();
            change(&mut content);
            let error = content.validate().unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidInput);
            let text = error.to_string();
            assert!(text.starts_with(&format!("content.{field}")), "{text}");
        }
    }

    #[test]
    fn secrets_are_neither_in_debug_nor_in_errors() {
        let mut content = s3();
        content.session_token = some("tok-secret");
        content.proxy = some("http://me:proxy-secret@host");
        let shown = format!("{content:?} {content:#?}");
        content.access_key_secret = some("hunter2 with space");
        let shown = format!("{shown} {:?}", content.validate().unwrap_err());
        for secret in ["hunter2", "tok-secret", "proxy-secret", "\"id\""] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

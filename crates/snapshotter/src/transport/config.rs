//! Where content is kept: plain data, checked when a transport is opened.
//!
//! Secrets are in here, so `Debug` is written by hand and says of each only whether it is set.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::patience::MIN_RATE;
#[cfg(feature = "_opendal")]
use crate::patience::Patience;
use crate::words::sharing::SharedWith;

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
    /// S3: how the server encrypts what is written, `AES256`, `aws:kms` or `aws:kms:dsse`. Default: as the bucket says.
    pub server_side_encryption: Option<String>,
    /// S3: the key for `aws:kms`: an id, an ARN or an alias. Default: the one of the account.
    pub kms_key_id: Option<String>,
    /// S3: the storage class of what is written: `STANDARD_IA`. Not one that has to be asked to restore what it has.
    /// Default: as the server says.
    pub storage_class: Option<String>,
    /// What the names of all objects in the bucket begin with: `tenants/a`. So keys that reach no others are enough. The Go library
    /// knows none. Default: nothing.
    pub prefix: Option<String>,
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
            server_side_encryption: None,
            kms_key_id: None,
            storage_class: None,
            prefix: None,
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
        let bucket = self.place_in_bucket();
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

    /// A tenant's own part of it. A registry is parted by names.
    pub(crate) fn of_tenant(&self, tenant: Option<&str>) -> Self {
        let mut content = self.clone();
        if let Some(tenant) = tenant {
            match self.provider {
                ContentProvider::Registry => {}
                ContentProvider::Fs => content.root.push(tenant),
                _ => {
                    let before = self.prefix.iter().map(String::as_str);
                    let parts: Vec<&str> = before.chain([tenant]).collect();
                    content.prefix = Some(parts.join("/"));
                }
            }
        }
        content
    }

    /// The bucket, and the prefix in it.
    pub(crate) fn place_in_bucket(&self) -> String {
        let bucket = self.bucket.as_deref().unwrap_or_default();
        match &self.prefix {
            Some(prefix) => format!("{bucket}/{prefix}"),
            None => bucket.to_owned(),
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
            .field("server_side_encryption", &self.server_side_encryption)
            .field("kms_key_id", &self.kms_key_id)
            .field("storage_class", &self.storage_class)
            .field("prefix", &self.prefix)
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
        let cases: [(Change, &str); 25] = [
            (|c| c.bucket = None, "bucket"),
            (|c| c.bucket = some("a/../b"), "bucket"),
            (|c| c.endpoint = some("http://user:pw@host"), "endpoint"),
            (|c| c.endpoint = some("ftp://host"), "endpoint"),
            (|c| c.endpoint = None, "region"),
            (|c| c.access_key_id = None, "access_key_id"),
            (|c| c.access_key_secret = None, "access_key_secret"),
            (|c| c.access_key_secret = some("a b"), "access_key_secret"),
            (|c| c.session_token = some(""), "session_token"),
            (
                |c| c.server_side_encryption = some("rot13"),
                "server_side_encryption",
            ),
            (|c| c.kms_key_id = some("alias/ours"), "kms_key_id"),
            (|c| c.storage_class = some("GLACIER"), "storage_class"),
            (|c| c.storage_class = some("standard"), "storage_class"),
            (
                |c| {
                    c.provider = ContentProvider::Oss;
                    c.storage_class = some("IA");
                },
                "storage_class",
            ),
            (|c| c.prefix = some("/a"), "prefix"),
            (|c| c.prefix = some("a/../b"), "prefix"),
            (|c| c.prefix = some("a b"), "prefix"),
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

//! What a configuration of content must be to work: the field that cannot is named.

use std::time::Duration;

use super::config::{Content, ContentProvider, Credentials};
use crate::words::digest::excerpt;
use crate::words::error::{Error, Result};
use crate::words::sharing::SharedWith;

impl Content {
    pub(crate) fn validate(&self) -> Result<()> {
        self.validate_limits()?;
        self.validate_where()?;
        self.validate_writing()?;
        self.validate_keys()
    }

    /// The daemon has an address and keys of its own: what is not said here is no mistake.
    #[cfg(feature = "dragonfly")]
    pub(super) fn validate_behind_daemon(&self) -> Result<()> {
        if !self.is_for_daemon_alone() {
            return self.validate();
        }
        self.validate_limits()?;
        self.validate_bucket()?;
        self.validate_plain()
    }

    /// Whether there is not enough to reach the bucket without a daemon: no address, or no keys where none are looked for.
    /// With Google, where the Go library sends a pair of keys, it is a key file that is.
    #[cfg(feature = "dragonfly")]
    pub(super) fn is_for_daemon_alone(&self) -> bool {
        let has_secret = self.access_key_secret.is_some() || self.session_token.is_some();
        let has_keys = match self.provider {
            ContentProvider::Gcs => self.credential_path.is_some() || self.session_token.is_some(),
            _ => self.access_key_id.is_some() || has_secret,
        };
        let is_google_pair = self.provider == ContentProvider::Gcs && self.access_key_id.is_some();
        let looks_for_keys = self.credentials == Credentials::Ambient && !is_google_pair;
        self.lacks_address() || !(has_keys || looks_for_keys)
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
        self.validate_bucket()?;
        require(
            self.root.as_os_str().is_empty(),
            "root",
            "is for provider fs alone",
        )?;
        self.validate_prefix()?;
        self.validate_shared()?;
        if !self.lacks_address() {
            return self.validate_endpoint();
        }
        Err(match self.provider {
            ContentProvider::S3 => {
                Error::invalid("content.region must be set where content.endpoint is not")
            }
            provider => Error::invalid(format!(
                "content.endpoint must be set for provider {provider}"
            )),
        })
    }

    fn lacks_address(&self) -> bool {
        let needs_endpoint = match self.provider {
            ContentProvider::S3 => self.region.is_none(),
            ContentProvider::Gcs => false,
            _ => true,
        };
        needs_endpoint && self.endpoint.is_none()
    }

    fn validate_bucket(&self) -> Result<()> {
        let bucket = self.bucket.as_deref().unwrap_or_default();
        if is_bucket_name(bucket) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "content.bucket \"{}\" must be 1 to 255 letters, digits, dots, dashes and underscores",
            excerpt(bucket)
        )))
    }

    fn validate_endpoint(&self) -> Result<()> {
        require(
            self.endpoint.as_deref().is_none_or(is_endpoint),
            "endpoint",
            "must be a host, perhaps with http:// or https://, a port and a path, and nothing else",
        )
    }

    fn validate_writing(&self) -> Result<()> {
        let fields = [
            ("server_side_encryption", &self.server_side_encryption),
            ("kms_key_id", &self.kms_key_id),
            ("storage_class", &self.storage_class),
        ];
        for (field, value) in fields {
            let is_s3 = self.provider == ContentProvider::S3;
            require(is_s3 || value.is_none(), field, "is for provider s3 alone")?;
            require(
                value.as_deref().is_none_or(is_plain),
                field,
                "must not be empty and have neither spaces nor other than ASCII characters",
            )?;
        }
        let (encryption, class) = (
            self.server_side_encryption.as_deref(),
            self.storage_class.as_deref(),
        );
        require(
            matches!(
                encryption,
                None | Some("AES256" | "aws:kms" | "aws:kms:dsse")
            ),
            "server_side_encryption",
            "must be AES256, aws:kms or aws:kms:dsse",
        )?;
        require(
            self.kms_key_id.is_none() || encryption.is_some_and(|name| name.starts_with("aws:kms")),
            "kms_key_id",
            "is for content.server_side_encryption aws:kms",
        )?;
        let capital = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        require(
            class.is_none_or(|class| class.chars().all(capital)),
            "storage_class",
            "must be a class as S3 writes it: STANDARD_IA",
        )?;
        require(
            !matches!(class, Some("GLACIER" | "DEEP_ARCHIVE")),
            "storage_class",
            "must be one whose objects can be read at once",
        )
    }

    fn validate_prefix(&self) -> Result<()> {
        let Some(prefix) = &self.prefix else {
            return Ok(());
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_name =
            |part: &str| part.bytes().any(|byte| byte != b'.') && part.bytes().all(is_plain);
        require(
            prefix.len() <= 256 && prefix.split('/').all(is_name),
            "prefix",
            "must be names of letters, digits, `.`, `_` and `-`, with `/` between them alone",
        )
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

    /// What is sent has to be text that can be.
    fn validate_plain(&self) -> Result<()> {
        let fields = [
            ("access_key_id", &self.access_key_id),
            ("access_key_secret", &self.access_key_secret),
            ("session_token", &self.session_token),
            ("region", &self.region),
        ];
        for (field, value) in fields {
            let value = value.as_deref().unwrap_or("unset");
            // The value stays out of the text: it is a secret, if perhaps a mistyped one.
            require(
                is_plain(value),
                field,
                "must not be empty and have neither spaces nor other than ASCII characters",
            )?;
        }
        self.validate_endpoint()
    }

    fn validate_keys(&self) -> Result<()> {
        self.validate_plain()?;
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

fn is_plain(value: &str) -> bool {
    !value.is_empty() && value.chars().all(|c| c.is_ascii_graphic())
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
/// Refuses a configuration in which a daemon has nothing to stand in front of: no registry, or contents that are in no
/// bucket. A request may name a bucket where the configuration names no contents.
#[cfg(feature = "dragonfly")]
pub(crate) fn require_bucket(has_registry: bool, content: Option<&Content>) -> Result<()> {
    match (has_registry, content) {
        (true, Some(content)) if content.provider.is_bucket() => Ok(()),
        (true, None) => Ok(()),
        (_, Some(content)) if !content.provider.is_bucket() => Err(Error::invalid(format!(
            "dragonfly needs content in a bucket: provider {} does not go with it",
            content.provider
        ))
        .with_hint(
            "leave dragonfly out, or set content.provider to s3, oss, gcs, azblob, obs or cos",
        )),
        _ => Err(
            Error::invalid("dragonfly needs a registry and content in a bucket")
                .with_hint("set registry.endpoint and content, or leave dragonfly out"),
        ),
    }
}

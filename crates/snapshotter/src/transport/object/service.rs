//! A configuration as opendal wants it, provider by provider.
//!
//! Configured keys are all there is for S3 and OSS (`keys.rs`). For the others they come first in a chain and are never
//! empty (`Content::validate`), so nothing after them is ever asked; where opendal has switches for the rest of the chain
//! they are thrown as well. The test `static_keys_are_used_whatever_the_environment_says` holds it.

use opendal::{HttpTransporter, OperationContext, Operator};

use super::error::Explain;
use super::http::Http;
#[cfg(feature = "object-storage-gcs")]
use crate::fs::small;
#[cfg(any(feature = "object-storage-gcs", feature = "object-storage-cos"))]
use crate::transport::config::Credentials;
use crate::transport::config::{Content, ContentProvider};
#[cfg(feature = "object-storage-gcs")]
use crate::words::error::Error;
use crate::words::error::Result;

pub(super) fn operator(content: &Content, http: Http, explain: &Explain) -> Result<Operator> {
    #[cfg(feature = "object-storage-gcs")]
    check_key_file(content)?;
    let context = OperationContext::new().with_http_transport(HttpTransporter::new(http));
    let service = service(content)
        .map_err(|error| explain.error("use the configuration of", None, &error))?;
    Ok(service.with_context(context))
}

/// What a key file has at most: Google's have 2 to 3 KiB.
#[cfg(feature = "object-storage-gcs")]
const KEY_FILE: u64 = 1 << 20;

/// opendal would pass over a key file that it cannot use, and say only that there are no keys.
#[cfg(feature = "object-storage-gcs")]
fn check_key_file(content: &Content) -> Result<()> {
    let Some(path) = &content.credential_path else {
        return Ok(());
    };
    let bytes = small::read("the key file", path, KEY_FILE)?;
    // Its content stays out of the error: it is a private key.
    match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes) {
        Ok(key) if key.contains_key("type") => Ok(()),
        _ => Err(Error::invalid(format!(
            "content.credential_path {} must be a key file of Google's, in JSON",
            path.display()
        ))
        .with_path(path)),
    }
}

fn service(content: &Content) -> opendal::Result<Operator> {
    match content.provider {
        #[cfg(feature = "object-storage-s3")]
        ContentProvider::S3 => s3(content),
        #[cfg(feature = "object-storage-oss")]
        ContentProvider::Oss => oss(content),
        #[cfg(feature = "object-storage-gcs")]
        ContentProvider::Gcs => gcs(content),
        #[cfg(feature = "object-storage-azblob")]
        ContentProvider::Azblob => azblob(content),
        #[cfg(feature = "object-storage-obs")]
        ContentProvider::Obs => obs(content),
        #[cfg(feature = "object-storage-cos")]
        ContentProvider::Cos => cos(content),
        _ => unreachable!("opened as something else, or not compiled in"),
    }
}

#[cfg(feature = "object-storage-s3")]
fn s3(content: &Content) -> opendal::Result<Operator> {
    // Path-style, opendal's default: what Dragonfly does, and what works for every host and certificate.
    let mut builder = opendal::services::S3::default()
        .root(prefix(content))
        .bucket(bucket(content))
        .region(content.region.as_deref().unwrap_or("us-east-1"))
        // Buckets with Object Lock take nothing without a checksum, and elsewhere it costs next to nothing.
        .checksum_algorithm("crc32c");
    if let Some(encryption) = &content.server_side_encryption {
        builder = builder.server_side_encryption(encryption);
    }
    if let Some(key) = &content.kms_key_id {
        builder = builder.server_side_encryption_aws_kms_key_id(key);
    }
    if let Some(class) = &content.storage_class {
        builder = builder.default_storage_class(class);
    }
    if let Some(endpoint) = endpoint(content) {
        builder = builder.endpoint(&endpoint);
    }
    if let Some(keys) = super::keys::s3(content) {
        // Also the switch that keeps the environment's endpoint out.
        builder = builder
            .disable_config_load()
            .credential_provider_chain(keys);
    }
    Operator::new(builder)
}

#[cfg(feature = "object-storage-oss")]
fn oss(content: &Content) -> opendal::Result<Operator> {
    let endpoint = endpoint(content).unwrap_or_default();
    let mut builder = opendal::services::Oss::default()
        .root(prefix(content))
        .bucket(bucket(content))
        .endpoint(&endpoint);
    if !is_named_host(&endpoint) {
        builder = builder.addressing_style("path");
    }
    if super::keys::signs_oss(content) {
        builder = builder.skip_signature();
    }
    Operator::new(builder)
}

#[cfg(feature = "object-storage-gcs")]
fn gcs(content: &Content) -> opendal::Result<Operator> {
    let mut builder = opendal::services::Gcs::default()
        .root(prefix(content))
        .bucket(bucket(content));
    if let Some(endpoint) = endpoint(content) {
        builder = builder.endpoint(&endpoint);
    }
    if let Some(path) = &content.credential_path {
        builder = builder.credential_path(&path.to_string_lossy());
    }
    if let Some(token) = &content.session_token {
        builder = builder.token(token.clone());
    }
    if content.credentials == Credentials::Static {
        builder = builder.disable_config_load().disable_vm_metadata();
    }
    Operator::new(builder)
}

#[cfg(feature = "object-storage-azblob")]
fn azblob(content: &Content) -> opendal::Result<Operator> {
    let mut builder = opendal::services::Azblob::default()
        .root(prefix(content))
        .container(bucket(content))
        .endpoint(&endpoint(content).unwrap_or_default());
    if let Some(account) = &content.access_key_id {
        builder = builder.account_name(account);
    }
    if let Some(key) = &content.access_key_secret {
        builder = builder.account_key(key);
    }
    if let Some(token) = &content.session_token {
        builder = builder.sas_token(token);
    }
    Operator::new(builder)
}

#[cfg(feature = "object-storage-obs")]
fn obs(content: &Content) -> opendal::Result<Operator> {
    let mut builder = opendal::services::Obs::default()
        .root(prefix(content))
        .bucket(bucket(content))
        .endpoint(&endpoint(content).unwrap_or_default());
    if let Some((id, secret)) = pair(content) {
        builder = builder.access_key_id(id).secret_access_key(secret);
    }
    Operator::new(builder)
}

#[cfg(feature = "object-storage-cos")]
fn cos(content: &Content) -> opendal::Result<Operator> {
    let mut builder = opendal::services::Cos::default()
        .root(prefix(content))
        .bucket(bucket(content))
        .endpoint(&endpoint(content).unwrap_or_default());
    if let Some((id, secret)) = pair(content) {
        builder = builder.secret_id(id).secret_key(secret);
    }
    if let Some(token) = &content.session_token {
        builder = builder.security_token(token);
    }
    if content.credentials == Credentials::Static {
        builder = builder.disable_config_load();
    }
    Operator::new(builder)
}

/// What names in the bucket begin with.
fn prefix(content: &Content) -> &str {
    content.prefix.as_deref().unwrap_or_default()
}

fn bucket(content: &Content) -> &str {
    content.bucket.as_deref().unwrap_or_default()
}

fn endpoint(content: &Content) -> Option<String> {
    let endpoint = content.endpoint.as_deref()?.trim_end_matches('/');
    if endpoint.contains("://") {
        return Some(endpoint.to_owned());
    }
    Some(format!("https://{endpoint}"))
}

#[cfg(any(feature = "object-storage-obs", feature = "object-storage-cos"))]
fn pair(content: &Content) -> Option<(&str, &str)> {
    Some((
        content.access_key_id.as_deref()?,
        content.access_key_secret.as_deref()?,
    ))
}

/// Whether a bucket's name can be put before the host: not before an address, nor before `localhost`.
#[cfg(feature = "object-storage-oss")]
fn is_named_host(endpoint: &str) -> bool {
    let host = endpoint.split("://").last().unwrap_or_default();
    let host = host.split(['/', ':']).next().unwrap_or_default();
    host.contains('.') && !host.starts_with('[') && host.parse::<std::net::IpAddr>().is_err()
}

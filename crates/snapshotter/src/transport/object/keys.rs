//! Configured keys, handed to the signing code so that they do not come out elsewhere.
//!
//! The signers log what gives them their keys, at the level `debug` and with `Debug`, and the providers of static keys that
//! come with them print the secret there. [`Keys`] does not. It is also all there is: where it is used nobody asks the
//! environment, a profile or an instance's metadata. S3 takes it in place of its chain of providers. OSS has no place for
//! it, so opendal is told not to sign and `http.rs` signs here, with the same code.

use std::fmt;

#[cfg(feature = "object-storage-oss")]
use http::request::Parts;
#[cfg(feature = "object-storage-s3")]
use reqsign_core::ProvideCredentialChain;
#[cfg(feature = "object-storage-oss")]
use reqsign_core::Signer;
use reqsign_core::{Context, ProvideCredential};

use crate::transport::config::Content;
#[cfg(feature = "object-storage-oss")]
use crate::transport::config::ContentProvider;

/// One credential, always the same, never shown.
#[derive(Clone)]
struct Keys<C>(C);

impl<C> fmt::Debug for Keys<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl<C: Clone + Send + Sync + Unpin + 'static> ProvideCredential for Keys<C> {
    type Credential = C;

    async fn provide_credential(&self, _: &Context) -> reqsign_core::Result<Option<C>> {
        Ok(Some(self.0.clone()))
    }
}

/// The configured keys for S3, if there are any.
#[cfg(feature = "object-storage-s3")]
pub(super) fn s3(content: &Content) -> Option<ProvideCredentialChain<reqsign_aws_v4::Credential>> {
    let keys = reqsign_aws_v4::Credential {
        access_key_id: content.access_key_id.clone()?,
        secret_access_key: content.access_key_secret.clone()?,
        session_token: content.session_token.clone(),
        expires_in: None,
    };
    Some(ProvideCredentialChain::new().push(Keys(keys)))
}

/// Signs what opendal leaves unsigned.
#[cfg(feature = "object-storage-oss")]
pub(super) struct Signing(Option<Signer<reqsign_aliyun_oss::Credential>>);

#[cfg(feature = "object-storage-oss")]
impl Signing {
    pub(super) fn new(content: &Content) -> Self {
        Self(oss(content))
    }

    /// Signs one sending of a request: a later one gets a later date.
    pub(super) async fn sign(&self, parts: &mut Parts) -> opendal::Result<()> {
        let Some(signer) = &self.0 else { return Ok(()) };
        // What cannot be signed holds nothing secret, but whoever signs may put it into words that do.
        signer.sign(parts, None).await.map_err(|_| {
            opendal::Error::new(
                opendal::ErrorKind::Unexpected,
                "the request cannot be signed",
            )
        })
    }
}

/// Whether [`Signing`] signs for this configuration, and opendal should not.
#[cfg(feature = "object-storage-oss")]
pub(super) fn signs_oss(content: &Content) -> bool {
    content.provider == ContentProvider::Oss && content.access_key_id.is_some()
}

#[cfg(feature = "object-storage-oss")]
fn oss(content: &Content) -> Option<Signer<reqsign_aliyun_oss::Credential>> {
    if !signs_oss(content) {
        return None;
    }
    let keys = reqsign_aliyun_oss::Credential {
        access_key_id: content.access_key_id.clone()?,
        access_key_secret: content.access_key_secret.clone()?,
        security_token: content.session_token.clone(),
        expires_in: None,
    };
    let bucket = content.bucket.as_deref()?;
    Some(Signer::new(
        Context::new(),
        Keys(keys),
        reqsign_aliyun_oss::RequestSigner::new(bucket),
    ))
}

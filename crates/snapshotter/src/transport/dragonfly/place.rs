//! A bucket as the daemon is told of it: URL, region, endpoint, keys.
//!
//! The daemons know an object by its URL, region and endpoint *as they are spelled*: two spellings of one endpoint are
//! two objects to them, which do not come from each other's nodes. They are sent as somebody wrote them, as the Go library
//! does: nodes of both that are configured alike share what they have.

use super::messages::ObjectStorage;
use crate::transport::config::{Content, ContentProvider, Credentials};
use crate::transport::said::Scrub;
use crate::words::error::{Error, Result};
use crate::words::object::Object;

/// A bucket.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// As in the errors and reports of those who use it directly.
    pub(super) shown: String,
    pub(super) url_of_bucket: String,
    pub(super) storage: ObjectStorage,
    pub(super) scrub: Scrub,
    pub(super) retries: u32,
}

impl Place {
    pub(super) fn new(content: &Content) -> Result<Self> {
        let bucket = content.place_in_bucket();
        let scheme = scheme(content.provider);
        Ok(Self {
            shown: format!("{}://{bucket}", content.provider),
            url_of_bucket: format!("{scheme}://{bucket}"),
            storage: storage(content)?,
            scrub: Scrub::new(content),
            retries: content.retries,
        })
    }

    pub(super) fn url(&self, object: Object) -> String {
        format!("{}/{}", self.url_of_bucket, object.key())
    }
}

/// The daemon's names of the providers.
fn scheme(provider: ContentProvider) -> &'static str {
    match provider {
        ContentProvider::Gcs => "gs",
        ContentProvider::Azblob => "abs",
        provider => provider.as_str(),
    }
}

/// Region, endpoint and both halves of the key are sent also where they are empty, as the Go library does.
fn storage(content: &Content) -> Result<ObjectStorage> {
    let text = |field: &Option<String>| Some(field.clone().unwrap_or_default());
    let credential_path = match &content.credential_path {
        None => None,
        Some(path) => Some(path.to_str().map(str::to_owned).ok_or_else(|| {
            Error::invalid("content.credential_path must be UTF-8 to be sent to dragonfly")
        })?),
    };
    let (session_token, security_token) = tokens(content)?;
    Ok(ObjectStorage {
        region: Some(region(content)),
        endpoint: text(&content.endpoint),
        access_key_id: text(&content.access_key_id),
        access_key_secret: text(&content.access_key_secret),
        session_token,
        credential_path,
        security_token,
        insecure_skip_verify: content.insecure_skip_verify.then_some(true),
    })
}

/// The daemon has two names for a token and takes it for two providers.
fn tokens(content: &Content) -> Result<(Option<String>, Option<String>)> {
    let token = content.session_token.clone();
    match content.provider {
        ContentProvider::S3 => Ok((token, None)),
        ContentProvider::Oss => Ok((None, token)),
        _ if token.is_none() => Ok((None, None)),
        provider => Err(Error::invalid(format!(
            "content.session_token cannot be used with dragonfly and provider {provider}: the daemon takes none"
        ))
        .with_hint(match (provider, content.credentials) {
            (ContentProvider::Gcs, _) => "set content.credential_path, which the daemon must be able to read",
            (_, Credentials::Ambient) => "leave it out: the daemon looks for keys of its own",
            _ => "set content.access_key_secret instead",
        })),
    }
}

fn region(content: &Content) -> String {
    match (&content.region, content.provider) {
        (Some(region), _) => region.clone(),
        // What requests that go straight there are signed for.
        (None, ContentProvider::S3) => "us-east-1".to_owned(),
        (None, _) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::digest::Digest;

    fn content(provider: ContentProvider) -> Content {
        let mut content = Content::new(provider);
        content.bucket = Some("ckpt".to_owned());
        content.endpoint = Some("s3.example".to_owned());
        content.access_key_id = Some("id".to_owned());
        content.access_key_secret = Some("hunter2".to_owned());
        content
    }

    #[test]
    fn urls_are_those_of_the_go_library() {
        for (provider, scheme) in [
            (ContentProvider::S3, "s3"),
            (ContentProvider::Oss, "oss"),
            (ContentProvider::Gcs, "gs"),
            (ContentProvider::Azblob, "abs"),
            (ContentProvider::Obs, "obs"),
            (ContentProvider::Cos, "cos"),
        ] {
            let place = Place::new(&content(provider)).unwrap();
            let url = place.url(Object::stream(Digest::from_u64(0x0abc), None, 20));
            assert_eq!(url, format!("{scheme}://ckpt/xxh3/abc"));
        }
        let index = testkit::golden::index();
        let place = Place::new(&content(ContentProvider::S3)).unwrap();
        for input in &index.inputs {
            let object = Object::stream(input.digest.parse().unwrap(), None, 20);
            let path = |url: &str| url.splitn(4, '/').nth(3).unwrap().to_owned();
            assert_eq!(path(&place.url(object)), path(&input.object_url));
        }
    }

    /// It was sent in a spelling of its own: nodes of the Go library with the same settings shared nothing with ours.
    #[test]
    fn an_endpoint_is_sent_as_it_is_written() {
        let mut spelled = content(ContentProvider::S3);
        for written in [
            "s3.example",
            "https://S3.Example/",
            "https://s3.example:443",
            "HTTP://s3.example:80/Minio/",
        ] {
            spelled.endpoint = Some(written.to_owned());
            let place = Place::new(&spelled).unwrap();
            assert_eq!(place.storage.endpoint.as_deref(), Some(written));
        }
    }

    #[test]
    fn region_endpoint_and_keys_are_sent_also_when_they_are_empty() {
        let mut bare = content(ContentProvider::S3);
        let storage = Place::new(&bare).unwrap().storage;
        assert_eq!(storage.region.as_deref(), Some("us-east-1"));
        assert_eq!(storage.access_key_id.as_deref(), Some("id"));
        assert_eq!(storage.insecure_skip_verify, None);
        bare.provider = ContentProvider::Cos;
        (bare.access_key_id, bare.access_key_secret) = (None, None);
        (bare.region, bare.endpoint) = (None, None);
        let storage = Place::new(&bare).unwrap().storage;
        for field in [
            storage.region,
            storage.endpoint,
            storage.access_key_id,
            storage.access_key_secret,
        ] {
            assert_eq!(field.as_deref(), Some(""));
        }
        assert_eq!(
            (storage.session_token, storage.security_token),
            (None, None)
        );
    }

    #[test]
    fn tokens_go_where_the_daemon_looks_for_them_or_are_refused() {
        let with_token = |provider| {
            let mut content = content(provider);
            content.session_token = Some("token".to_owned());
            Place::new(&content)
        };
        let s3 = with_token(ContentProvider::S3).unwrap().storage;
        assert_eq!(s3.session_token.as_deref(), Some("token"));
        assert_eq!(s3.security_token, None);
        let oss = with_token(ContentProvider::Oss).unwrap().storage;
        assert_eq!(oss.security_token.as_deref(), Some("token"));
        assert_eq!(oss.session_token, None);
        for provider in [
            ContentProvider::Gcs,
            ContentProvider::Azblob,
            ContentProvider::Cos,
        ] {
            let error = with_token(provider).unwrap_err();
            assert!(
                error.to_string().starts_with("content.session_token"),
                "{error}"
            );
            assert!(error.hint().is_some());
        }
    }
}

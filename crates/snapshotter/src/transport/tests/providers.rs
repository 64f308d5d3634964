//! Each provider's configuration as far as a machine without accounts can see it: what is built, where it goes, what it
//! signs with.

use testkit::proxy::{Act, Asked, Weather};

use super::suite::{content, publish};
use crate::pace::Pace;
use crate::transport::object::{ObjectStorage, Tuning};
use crate::transport::{Content, ContentProvider, Existing, open};
use crate::words::error::{Error, ErrorKind};

fn configuration(provider: ContentProvider, endpoint: &str) -> Content {
    let mut content = Content::new(provider);
    content.bucket = Some("ckpt".to_owned());
    content.endpoint = Some(endpoint.to_owned());
    content.retries = 0;
    if provider == ContentProvider::Gcs {
        content.session_token = Some("oauth-token".to_owned());
    } else {
        content.access_key_id = Some("theaccount".to_owned());
        // Base64, as Azure wants it.
        content.access_key_secret = Some("c2VjcmV0LXNlY3JldA==".to_owned());
    }
    content
}

/// What a publication asks a server that refuses everything.
async fn asked(content_of: &Content, weather: &Weather) -> (Vec<Asked>, Error) {
    let tuning = Tuning {
        pace: Pace::QUICK,
        ..Tuning::default()
    };
    let transport = ObjectStorage::tuned(content_of, tuning).unwrap();
    let (object, bytes) = content(1, 100);
    let error = publish(&transport, object, &bytes, Existing::Replace).await;
    (weather.asked(), error.unwrap_err())
}

fn forbidding() -> Weather {
    Weather::alone(|_| {
        Act::Answer(
            "403 Forbidden",
            "",
            b"<Error><Code>AccessDenied</Code></Error>".to_vec(),
        )
    })
}

async fn assert_goes(provider: ContentProvider, path: &str, signed: &str) {
    let weather = forbidding();
    let (asked, error) = asked(&configuration(provider, &weather.endpoint()), &weather).await;
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    let last = asked.last().expect("a request");
    let path = path.replace("KEY", &content(1, 100).0.key());
    let decoded = last.target.replace("%2F", "/");
    assert!(
        decoded.starts_with(&path),
        "{} instead of {path}",
        last.target
    );
    assert!(
        last.head.to_lowercase().contains(&signed.to_lowercase()),
        "{}",
        last.head
    );
}

#[cfg(feature = "object-storage-s3")]
#[tokio::test]
async fn s3_is_path_style() {
    assert_goes(
        ContentProvider::S3,
        "/ckpt/KEY",
        "authorization: AWS4-HMAC-SHA256 Credential=theaccount/",
    )
    .await;
}

#[cfg(feature = "object-storage-oss")]
#[tokio::test]
async fn oss_is_path_style_where_the_host_is_an_address() {
    assert_goes(
        ContentProvider::Oss,
        "/ckpt/KEY",
        "authorization: OSS theaccount:",
    )
    .await;
}

#[cfg(feature = "object-storage-azblob")]
#[tokio::test]
async fn azblob_signs_with_the_accounts_key() {
    assert_goes(
        ContentProvider::Azblob,
        "/ckpt/KEY",
        "authorization: SharedKey theaccount:",
    )
    .await;
}

#[cfg(feature = "object-storage-azblob")]
#[tokio::test]
async fn azblob_takes_a_sas_token_instead() {
    let weather = forbidding();
    let mut content_of = configuration(ContentProvider::Azblob, &weather.endpoint());
    content_of.access_key_secret = None;
    content_of.session_token = Some("sv=2024&sig=abcdefghijklmnop".to_owned());
    let (asked, error) = asked(&content_of, &weather).await;
    assert!(
        asked
            .last()
            .unwrap()
            .target
            .contains("sig=abcdefghijklmnop")
    );
    assert!(!format!("{error:?}").contains("abcdefghijklmnop"));
}

#[cfg(feature = "object-storage-gcs")]
#[tokio::test]
async fn gcs_uses_the_token_it_was_given() {
    assert_goes(
        ContentProvider::Gcs,
        "/upload/storage/v1/b/ckpt/o",
        "authorization: Bearer oauth-token",
    )
    .await;
}

#[cfg(feature = "object-storage-gcs")]
#[tokio::test]
async fn gcs_without_a_usable_key_file_asks_nobody_else() {
    let weather = forbidding();
    let mut content_of = configuration(ContentProvider::Gcs, &weather.endpoint());
    content_of.session_token = None;
    content_of.credential_path = Some("/nonexistent/key.json".into());
    let error = ObjectStorage::open(&content_of).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(weather.asked().is_empty());
}

#[test]
fn every_provider_opens_with_its_usual_endpoint() {
    let endpoints = [
        #[cfg(feature = "object-storage-s3")]
        (ContentProvider::S3, "https://s3.eu-central-1.amazonaws.com"),
        #[cfg(feature = "object-storage-oss")]
        (ContentProvider::Oss, "oss-cn-hangzhou.aliyuncs.com"),
        #[cfg(feature = "object-storage-gcs")]
        (ContentProvider::Gcs, "https://storage.googleapis.com"),
        #[cfg(feature = "object-storage-azblob")]
        (
            ContentProvider::Azblob,
            "https://theaccount.blob.core.windows.net",
        ),
        #[cfg(feature = "object-storage-obs")]
        (ContentProvider::Obs, "obs.cn-north-4.myhuaweicloud.com"),
        #[cfg(feature = "object-storage-cos")]
        (
            ContentProvider::Cos,
            "https://cos.ap-singapore.myqcloud.com",
        ),
    ];
    for (provider, endpoint) in endpoints {
        let transport = open(&configuration(provider, endpoint)).unwrap();
        assert_eq!(transport.place(), format!("{provider}://ckpt"));
    }
}

#[test]
fn the_registry_is_not_a_place_of_its_own() {
    let error = open(&Content::new(ContentProvider::Registry)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

/// A key file that was `/dev/zero` ate all memory: reading small files ends, whatever they are.
#[cfg(feature = "object-storage-gcs")]
#[test]
fn a_key_file_that_does_not_end_is_refused_at_once() {
    let mut content_of = configuration(ContentProvider::Gcs, "http://127.0.0.1:1");
    content_of.session_token = None;
    for path in ["/dev/zero", "/"] {
        content_of.credential_path = Some(path.into());
        let error = open(&content_of).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        let text = format!("cannot read the key file {path}: it ");
        assert!(error.to_string().starts_with(&text), "{error}");
    }
}

//! Redirects: registries send readers of blobs to a storage. The credentials stay at home.

use testkit::weather::Reply;

use super::*;
use crate::ErrorKind;

const SIGNED: &str = "signature=hunter2";

fn blob(weather: &Weather) -> Arc<dyn MetadataRegistry> {
    opened(&Registry::new(weather.url(), "ns").credentials("u", "secret"))
}

/// Wants Basic, then sends on to `target`.
fn sends_to(target: String, status: u16) -> Weather {
    Weather::new(move |asked, _| match asked.header("authorization") {
        None => Reply::status(401).with("WWW-Authenticate", "Basic realm=\"r\""),
        Some(_) => Reply::status(status).with("Location", target.clone()),
    })
}

#[tokio::test]
async fn a_storage_gets_the_request_but_not_the_credentials() {
    for status in [301, 302, 303, 307, 308] {
        let storage = Weather::new(|_, _| Reply::ok("bytes"));
        let home = sends_to(format!("{}/there?{SIGNED}", storage.url()), status);
        assert_eq!(
            blob(&home)
                .blob(&repository(), Sha256::of(b"bytes"), 5)
                .await
                .unwrap(),
            b"bytes"
        );
        let asked = storage.asked();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].target, format!("/there?{SIGNED}"));
        assert_eq!(asked[0].header("authorization"), None);
        assert!(home.asked()[1].header("authorization").is_some());
    }
}

#[tokio::test]
async fn a_storage_that_wants_credentials_gets_none() {
    let thief = Weather::new(|_, _| Reply::ok(r#"{"token":"t"}"#));
    let challenge = format!("Basic realm=\"evil\", Bearer realm=\"{}\"", thief.url());
    let storage =
        Weather::new(move |_, _| Reply::status(401).with("WWW-Authenticate", challenge.clone()));
    let home = sends_to(format!("{}/there?{SIGNED}", storage.url()), 307);
    let registry = blob(&home);
    // The second time the credentials are known, so that it is the storage's challenge which comes first.
    let first = registry.blob(&repository(), Sha256::of(b"bytes"), 5).await;
    first.unwrap_err();
    let second = registry.blob(&repository(), Sha256::of(b"bytes"), 5).await;
    let error = second.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let asked = storage.asked();
    assert_eq!(asked.len(), 2);
    assert!(
        asked
            .iter()
            .all(|asked| asked.header("authorization").is_none())
    );
    assert_eq!(thief.asked(), []);
    assert!(error.to_string().contains(storage.address()), "{error}");
    assert!(!everything_said(&error).contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn loops_and_other_schemes_end() {
    let cases = [
        ("/v2/ns/vm/one/again", "more than 5 redirects", 7),
        (
            "file:///etc/passwd",
            "a redirect to what is no web server",
            2,
        ),
        ("http://[", "a redirect to nowhere", 2),
    ];
    for (target, text, requests) in cases {
        let home = sends_to(target.to_owned(), 307);
        let error = blob(&home)
            .blob(&repository(), Sha256::of(b"bytes"), 5)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(home.asked().len(), requests, "{target}");
    }
}

#[tokio::test]
async fn bytes_are_not_sent_after_a_redirect() {
    let elsewhere = Weather::new(|_, _| Reply::status(201));
    let there = elsewhere.url();
    let home = Weather::new(move |_, _| Reply::status(307).with("Location", there.clone()));
    let error = under(&home)
        .push_manifest(&repository(), &v1(), Bytes::from_static(b"{}"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("307"), "{error}");
    assert_eq!(elsewhere.asked(), []);
}

#[tokio::test]
async fn a_storage_that_breaks_off_does_not_put_its_signature_into_an_error() {
    for reply in [Reply::HangUp, Reply::Cut(vec![0], 5), Reply::status(500)] {
        let storage = Weather::new(move |_, _| reply.clone());
        let home = sends_to(format!("{}/there?{SIGNED}", storage.url()), 307);
        let result = blob(&home)
            .blob(&repository(), Sha256::of(b"bytes"), 5)
            .await;
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(
            error
                .to_string()
                .contains(&format!("{}/there)", storage.url())),
            "{error}"
        );
        assert!(!everything_said(&error).contains("hunter2"), "{error:?}");
    }
}

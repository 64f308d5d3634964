//! Keys stay where they were put: not in errors, not in `Debug`, not in anybody's log; and the environment's stay out.

use std::sync::Mutex;

use testkit::proxy::{Act, Weather};
use testkit::s3::{ACCESS_KEY, S3, SECRET_KEY};

use super::bucket::{configuration, quick};
use super::suite::{content, fetch, publish};
use crate::transport::object::ObjectStorage;
use crate::transport::parts::PART;
use crate::transport::validate::require_compiled_in;
use crate::transport::{Content, ContentProvider, ContentTransport, Existing};
use crate::words::error::Error;

const TOKEN: &str = "SESSIONTOKEN0123456789abcdefgh";

static LOG: Mutex<String> = Mutex::new(String::new());

/// Everything that opendal, reqwest, hyper and rustls say through `log`, however quiet they mean to be.
struct Recorder;

impl log::Log for Recorder {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}\n", record.target(), record.args());
        LOG.lock().unwrap().push_str(&line);
    }

    fn flush(&self) {}
}

fn with_token(endpoint: &str) -> Content {
    let mut content = configuration(endpoint, "ckpt");
    content.session_token = Some(TOKEN.to_owned());
    content.retries = 1;
    content
}

fn all_of(error: &Error) -> String {
    let mut text = format!("{error} {error:?} {error:#?} {:?}", error.hint());
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text += &format!(" {inner} {inner:?} {inner:#?}");
        cause = inner.source();
    }
    text
}

fn assert_clean(text: &str) {
    for secret in [SECRET_KEY, ACCESS_KEY, TOKEN] {
        assert!(!text.contains(secret), "{secret} is in: {text}");
    }
}

async fn errors_of(transport: &ObjectStorage) -> Vec<Error> {
    let (object, bytes) = content(1, 100);
    let (large, many) = content(2, PART + 1);
    vec![
        transport.check().await.unwrap_err(),
        transport.size(object).await.unwrap_err(),
        publish(transport, object, &bytes, Existing::Replace)
            .await
            .unwrap_err(),
        publish(transport, large, &many, Existing::Replace)
            .await
            .unwrap_err(),
        fetch(transport, object, None, 100).await.unwrap_err(),
    ]
}

#[tokio::test]
async fn a_server_that_sends_our_keys_back_does_not_get_them_printed() {
    log::set_logger(&Recorder).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    for status in [
        "403 Forbidden",
        "400 Bad Request",
        "500 Oops",
        "404 Not Found",
        "409 Conflict",
    ] {
        let weather = Weather::alone(move |asked| {
            let echo = format!("{SECRET_KEY}\n{}{TOKEN}{}", asked.head, "x".repeat(5000));
            Act::Answer(status, "x-amz-request-id: 1\r\n", echo.into_bytes())
        });
        let content = with_token(&weather.endpoint());
        let transport = quick(&content);
        assert_clean(&format!("{content:?} {transport:?} {transport:#?}"));
        for error in [
            transport.check().await,
            transport.size(some_object()).await.map(drop),
        ] {
            if let Err(error) = error {
                assert_clean(&all_of(&error));
                assert!(all_of(&error).len() < 4000, "{}", all_of(&error).len());
            }
        }
        if status.starts_with("404") {
            continue;
        }
        for error in errors_of(&transport).await {
            let text = all_of(&error);
            assert_clean(&text);
            assert!(!text.contains("Signature="), "a signature is in: {text}");
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.chars().count() < 600, "{}", cause.len());
            assert!(!cause.chars().any(char::is_control), "{cause}");
        }
        assert!(
            weather
                .asked()
                .iter()
                .any(|asked| asked.head.contains(TOKEN))
        );
    }
    let log = LOG.lock().unwrap().clone();
    assert!(log.contains("reqsign"), "nothing was recorded");
    assert_clean(&log);
}

/// The other half of the next test, in a process of its own: so is the log.
#[tokio::test]
#[ignore = "started by the next test"]
async fn child_that_logs() {
    log::set_logger(&Recorder).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    for provider in [
        ContentProvider::S3,
        ContentProvider::Oss,
        ContentProvider::Azblob,
        ContentProvider::Obs,
        ContentProvider::Cos,
    ] {
        LOG.lock().unwrap().clear();
        let weather = Weather::alone(|_| Act::Close);
        let mut content = with_token(&weather.endpoint());
        content.provider = provider;
        // Azure's is base64 of something.
        content.access_key_secret = Some("VEhFU0VDUkVUVEhFU0VDUkVU".to_owned());
        if matches!(provider, ContentProvider::Obs | ContentProvider::Azblob) {
            content.session_token = None;
        }
        if require_compiled_in(provider).is_err() {
            continue;
        }
        let error = quick(&content).check().await.unwrap_err();
        let log = LOG.lock().unwrap().clone();
        for secret in ["VEhFU0VDUkVUVEhFU0VDUkVU", TOKEN] {
            assert!(!log.contains(secret), "{provider}: {log}");
            assert!(!all_of(&error).contains(secret), "{provider}: {error:?}");
        }
        assert!(log.contains("reqsign") || log.contains("opendal"), "{log}");
    }
}

#[test]
fn no_provider_logs_its_keys_at_any_level() {
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "transport::tests::secrets::child_that_logs",
        ])
        .status()
        .unwrap();
    assert!(status.success());
}

fn some_object() -> crate::words::object::Object {
    content(1, 100).0
}

#[tokio::test]
async fn keys_in_a_proxy_stay_there_too() {
    let weather = Weather::alone(|_| Act::Close);
    let mut content = with_token("http://127.0.0.1:1");
    let proxy = weather
        .endpoint()
        .replace("http://", "http://me:pr0xy-pass@");
    content.proxy = Some(proxy);
    let transport = quick(&content);
    let error = transport.check().await.unwrap_err();
    let text = format!("{} {content:?} {transport:?}", all_of(&error));
    assert!(!text.contains("pr0xy-pass"), "{text}");
}

/// The other half of the next test, in a process of its own: the environment is a process's.
#[tokio::test]
#[ignore = "started by the next test"]
async fn child_with_an_environment() {
    let endpoint = std::env::var("TESTKIT_S3_ENDPOINT").unwrap();
    let transport = quick(&configuration(&endpoint, "ckpt"));
    let (object, bytes) = content(1, 100);
    publish(&transport, object, &bytes, Existing::Keep)
        .await
        .unwrap();
}

#[test]
fn static_keys_are_used_whatever_the_environment_says() {
    let server = S3::start("ckpt");
    let traps = Weather::alone(|_| Act::Close);
    let home = tempfile::tempdir().unwrap();
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "transport::tests::secrets::child_with_an_environment",
        ])
        .env("TESTKIT_S3_ENDPOINT", server.endpoint())
        .env("AWS_ACCESS_KEY_ID", "FROMENV")
        .env("AWS_SECRET_ACCESS_KEY", "from-env")
        .env("AWS_SESSION_TOKEN", "from-env")
        .env("AWS_REGION", "mars-1")
        .env("AWS_PROFILE", "nobody")
        .env("AWS_ENDPOINT_URL", traps.endpoint())
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", traps.endpoint())
        .env("AWS_ROLE_ARN", "arn:aws:iam::1:role/x")
        .env("http_proxy", traps.endpoint())
        .env("HTTP_PROXY", traps.endpoint())
        .env("all_proxy", traps.endpoint())
        .env("HOME", home.path())
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(server.keys().len(), 1);
    assert!(traps.asked().is_empty(), "{:?}", traps.asked());
}

//! Bad weather between us and a bucket: a clear error, nothing half there, and no waiting for ever.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use testkit::buckets::first;
use testkit::proxy::{Act, Asked, Weather};
use testkit::s3::S3;

use super::bucket::{behind, configuration, quick, server_behind};
use super::suite::{SENT, content, fetch, publish};
use crate::pace::Pace;
use crate::transport::object::{ObjectStorage, Tuning};
use crate::transport::parts::PART;
use crate::transport::{ContentTransport, Existing};
use crate::words::error::{Error, ErrorKind};

fn cause(error: &Error) -> String {
    std::error::Error::source(error).map_or_else(String::new, ToString::to_string)
}

/// As Amazon answers for a bucket that is not there. (s3s makes a bucket of whatever is written to.)
fn without_bucket() -> Weather {
    Weather::alone(|asked| {
        let xml = "<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>The specified bucket does not \
                   exist</Message><BucketName>ckpt</BucketName></Error>";
        let body = if asked.method == "HEAD" { "" } else { xml };
        Act::Answer("404 Not Found", "", body.as_bytes().to_vec())
    })
}

#[tokio::test]
async fn a_bucket_that_is_missing_is_named() {
    let weather = without_bucket();
    let transport = behind(&weather);
    for len in [100, PART + 1] {
        let (object, bytes) = content(1, len);
        let errors = [
            publish(&transport, object, &bytes, Existing::Keep)
                .await
                .unwrap_err(),
            fetch(&transport, object, None, len).await.unwrap_err(),
            transport.check().await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{}", cause(&error));
            assert_eq!(error.to_string(), "there is no bucket ckpt");
            assert!(error.hint().unwrap().contains("content.bucket"));
        }
    }
}

#[tokio::test]
async fn wrong_keys_are_permission_denied_with_a_hint() {
    let server = S3::start("ckpt");
    let good = configuration(&server.endpoint(), "ckpt");
    let mut other_secret = good.clone();
    other_secret.access_key_secret = Some("not-the-secret".to_owned());
    let mut other_key = good.clone();
    other_key.access_key_id = Some("NOSUCHKEY".to_owned());
    for content_of in [other_secret, other_key] {
        let transport = quick(&content_of);
        let (object, bytes) = content(1, 100);
        let errors = [
            transport.check().await.unwrap_err(),
            transport.size(object).await.unwrap_err(),
            publish(&transport, object, &bytes, Existing::Replace)
                .await
                .unwrap_err(),
            fetch(&transport, object, None, 100).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(
                error.kind(),
                ErrorKind::PermissionDenied,
                "{error}: {}",
                cause(&error)
            );
            assert!(error.to_string().ends_with("s3://ckpt"), "{error}");
            assert!(error.hint().unwrap().contains("check the keys"));
        }
    }
    assert!(server.keys().is_empty());
}

#[tokio::test]
async fn a_server_that_is_down_is_unavailable() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", port.local_addr().unwrap());
    drop(port);
    let transport = quick(&configuration(&endpoint, "ckpt"));
    let (object, bytes) = content(1, 100);
    let errors = [
        transport.check().await.unwrap_err(),
        publish(&transport, object, &bytes, Existing::Keep)
            .await
            .unwrap_err(),
        fetch(&transport, object, None, 100).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(cause(&error).contains("refused"), "{}", cause(&error));
        assert!(!cause(&error).contains("http://"), "{}", cause(&error));
    }
}

#[tokio::test]
async fn failures_that_pass_are_not_noticed() {
    let failures = [
        Act::Answer("500 Internal Server Error", "", Vec::new()),
        Act::Answer("503 Slow Down", "retry-after: 0\r\n", Vec::new()),
        Act::Answer("429 Too Many Requests", "", Vec::new()),
        Act::Close,
        Act::Lose,
    ];
    for failure in failures {
        let shown = format!("{failure:?}");
        let decide = first(3, |_| true, failure);
        let (server, weather) = server_behind(decide);
        let transport = behind(&weather);
        let (object, bytes) = content(1, 100);
        let sent = publish(&transport, object, &bytes, Existing::Keep).await;
        assert_eq!(sent.unwrap(), SENT, "{shown}");
        assert_eq!(server.keys(), [object.key()]);
    }
}

#[tokio::test]
async fn parts_that_fail_are_sent_again() {
    let is_part = |asked: &Asked| asked.method == "PUT" && asked.target.contains("partNumber=2");
    for failure in [
        Act::Answer("500 Oops", "", Vec::new()),
        Act::Close,
        Act::Lose,
    ] {
        let (server, weather) = server_behind(first(3, is_part, failure));
        let transport = behind(&weather);
        let (object, bytes) = content(1, 3 * PART + 1);
        publish(&transport, object, &bytes, Existing::Keep)
            .await
            .unwrap();
        assert!(std::fs::read(server.object(&object.key())).unwrap() == bytes);
        assert_eq!(server.unfinished_uploads(), 0);
    }
}

#[tokio::test]
async fn a_part_that_never_goes_through_fails_the_upload_and_leaves_nothing() {
    let (server, weather) = server_behind(|asked| {
        if asked.target.contains("partNumber=2") {
            return Act::Answer("500 Oops", "", Vec::new());
        }
        Act::Pass
    });
    let transport = behind(&weather);
    let (object, bytes) = content(1, 8 * PART);
    let error = publish(&transport, object, &bytes, Existing::Keep)
        .await
        .unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Unavailable,
        "{error}: {}",
        cause(&error)
    );
    assert!(server.keys().is_empty());
    assert_eq!(server.unfinished_uploads(), 0);
    assert!(transport.budget().is_whole());
}

#[tokio::test]
async fn a_lost_answer_to_the_last_request_is_not_a_failure() {
    let is_last = |asked: &Asked| asked.method == "POST" && asked.target.contains("uploadId=");
    let (server, weather) = server_behind(first(1, is_last, Act::Lose));
    let transport = behind(&weather);
    let (object, bytes) = content(1, 2 * PART);
    let sent = publish(&transport, object, &bytes, Existing::Keep).await;
    assert_eq!(sent.unwrap(), SENT);
    assert!(std::fs::read(server.object(&object.key())).unwrap() == bytes);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_continued() {
    let cuts = AtomicUsize::new(0);
    let (server, weather) = server_behind(move |asked| match asked.method.as_str() {
        "GET" if cuts.fetch_add(1, Ordering::SeqCst) % 3 != 2 => Act::Cut(1_000_000),
        _ => Act::Pass,
    });
    let (object, bytes) = content(1, 2 * PART + 1);
    server.put(&object.key(), &bytes);
    let back = fetch(&behind(&weather), object, None, u64::MAX).await;
    assert!(back.unwrap() == bytes);
}

#[tokio::test]
async fn an_answer_that_always_breaks_off_is_unavailable() {
    let (server, weather) = server_behind(|_| Act::Cut(10));
    for len in [1000, PART + 1000] {
        let (object, bytes) = content(len, len);
        server.put(&object.key(), &bytes);
        let error = fetch(&behind(&weather), object, None, u64::MAX)
            .await
            .unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::Unavailable,
            "{error}: {}",
            cause(&error)
        );
    }
    assert!(
        weather.asked().len() < 30,
        "{} requests",
        weather.asked().len()
    );
}

#[tokio::test]
async fn a_server_that_says_nothing_is_unavailable() {
    let weather = Weather::alone(|_| Act::Stall);
    let mut content_of = configuration(&weather.endpoint(), "ckpt");
    content_of.timeout = Duration::from_millis(50);
    content_of.retries = 1;
    let transport = quick(&content_of);
    let (object, bytes) = content(1, 100);
    let errors = [
        transport.check().await.unwrap_err(),
        publish(&transport, object, &bytes, Existing::Replace)
            .await
            .unwrap_err(),
        fetch(&transport, object, None, 100).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(cause(&error), "no progress within 50ms");
    }
    assert_eq!(weather.asked().len(), 6);
}

#[tokio::test]
async fn an_answer_larger_than_asked_for_is_refused() {
    let huge = Arc::new(vec![b'x'; 3 << 20]);
    let weather = Weather::alone(move |asked| match asked.method.as_str() {
        "GET" => Act::Answer("200 OK", "", huge.to_vec()),
        _ => Act::Answer("500 Error", "", huge.to_vec()),
    });
    let transport = behind(&weather);
    let (object, bytes) = content(1, 100);
    let error = fetch(&transport, object, None, 1000).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains("at most 1000"), "{error}");
    let error = publish(&transport, object, &bytes, Existing::Replace)
        .await
        .unwrap_err();
    assert!(
        cause(&error).contains("more than was asked for"),
        "{error}: {}",
        cause(&error)
    );
}

#[tokio::test]
async fn a_part_that_is_larger_than_asked_for_is_refused_while_it_comes() {
    let whole = content(1, 5000).1;
    let weather = Weather::alone(move |_| {
        let range = "content-range: bytes 100-199/5000\r\n";
        Act::Answer("206 Partial Content", range, whole.to_vec())
    });
    let (object, _) = content(1, 5000);
    let error = fetch(&behind(&weather), object, Some(100..200), 5000)
        .await
        .unwrap_err();
    assert!(
        cause(&error).contains("more than was asked for"),
        "{error}: {}",
        cause(&error)
    );
}

#[tokio::test]
async fn a_redirect_is_an_error_and_not_followed() {
    let weather = Weather::alone(|_| {
        Act::Answer(
            "301 Moved",
            "location: http://127.0.0.1:1/elsewhere\r\n",
            Vec::new(),
        )
    });
    let transport = behind(&weather);
    let (object, bytes) = content(1, 100);
    let errors = [
        transport.check().await.unwrap_err(),
        publish(&transport, object, &bytes, Existing::Keep)
            .await
            .unwrap_err(),
    ];
    for error in errors {
        assert_eq!(
            error.kind(),
            ErrorKind::InvalidInput,
            "{error}: {}",
            cause(&error)
        );
        assert!(cause(&error).contains("redirects"), "{}", cause(&error));
        assert!(error.hint().unwrap().contains("content.region"));
    }
}

#[tokio::test]
async fn requests_go_through_the_proxy_that_is_configured() {
    let (server, weather) = server_behind(|_| Act::Pass);
    let mut content_of = configuration(&server.endpoint(), "ckpt");
    content_of.proxy = Some(weather.endpoint());
    let (object, bytes) = content(1, 100);
    let transport = quick(&content_of);
    publish(&transport, object, &bytes, Existing::Keep)
        .await
        .unwrap();
    let asked = weather.asked();
    let methods: Vec<_> = asked.iter().map(|asked| &*asked.method).collect();
    assert_eq!(methods, ["HEAD", "PUT", "HEAD"]);
    assert!(
        asked
            .iter()
            .all(|asked| asked.target.starts_with("http://"))
    );
    assert_eq!(server.keys(), [object.key()]);
}

/// Answers that a server of the kind never gives, all with 200: somebody's page, nothing, and no result in XML.
const NO_RESULTS: [&str; 3] = [
    "<html><body>please log in</body></html>",
    "",
    "<?xml version=\"1.0\"?><Nothing></Nothing>",
];

/// A server that answered the completion of an upload with 200 and a page was believed: "published", and nothing was there.
/// Whatever is answered, the object is looked at now; what is not there with its size is not published.
#[tokio::test]
async fn an_upload_that_is_answered_with_200_and_is_not_there_is_unavailable() {
    let completes = |asked: &Asked| asked.method == "POST" && asked.target.contains("uploadId=");
    let puts = |asked: &Asked| asked.method == "PUT" && !asked.target.contains("partNumber=");
    for page in NO_RESULTS {
        for (len, of) in [(100, puts as fn(&Asked) -> bool), (PART + 1, completes)] {
            let (server, weather) = server_behind(move |asked| match of(asked) {
                true => Act::Answer("200 OK", "", page.into()),
                false => Act::Pass,
            });
            let mut content_of = configuration(&weather.endpoint(), "ckpt");
            content_of.retries = 2;
            let transport = quick(&content_of);
            let (object, bytes) = content(1, len);
            for existing in [Existing::Keep, Existing::Replace] {
                let sent = publish(&transport, object, &bytes, existing).await;
                let error = sent.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}: {page}");
                assert!(error.to_string().contains(&object.to_string()), "{error}");
                assert!(error.hint().unwrap().contains("on the way"), "{error:?}");
            }
            assert!(server.keys().is_empty());
            assert!(transport.budget().is_whole());
        }
    }
}

#[tokio::test]
async fn an_object_that_shows_late_is_waited_for_and_one_that_is_there_is_looked_at_once() {
    let is_look = |asked: &Asked| asked.method == "HEAD";
    let late = Act::Answer("404 Not Found", "", Vec::new());
    for hidden in [0, 2] {
        let (_server, weather) = server_behind(first(hidden, is_look, late.clone()));
        let (object, bytes) = content(1, 100);
        let sent = publish(&behind(&weather), object, &bytes, Existing::Replace).await;
        assert_eq!(sent.unwrap(), SENT);
        let looks = weather
            .asked()
            .iter()
            .filter(|asked| is_look(asked))
            .count();
        assert_eq!(looks, 1 + hidden);
    }
}

/// Bears with slow servers for a moment only, and with silent ones for long.
fn impatient(weather: &Weather) -> ObjectStorage {
    let tuning = Tuning {
        pace: Pace::QUICK,
        window: Duration::from_millis(300),
        ..Tuning::default()
    };
    let mut content_of = configuration(&weather.endpoint(), "ckpt");
    content_of.retries = 1;
    ObjectStorage::tuned(&content_of, tuning).unwrap()
}

fn assert_slow(error: &Error) {
    assert_eq!(
        error.kind(),
        ErrorKind::Unavailable,
        "{error}: {}",
        cause(error)
    );
    let cause = cause(error);
    assert!(cause.starts_with("too slow: "), "{cause}");
    assert!(
        cause.ends_with("bytes in 300ms, and content.min_rate is 4096 bytes a second"),
        "{cause}"
    );
}

/// A download of a byte every few milliseconds never ended: each byte was progress.
/// A server has to move `content.min_rate` over a minute of being waited for; here it is a shorter one.
#[tokio::test]
async fn a_bucket_that_trickles_is_unavailable() {
    let (server, weather) = server_behind(|asked| match asked.method.as_str() {
        "GET" => Act::Trickle,
        _ => Act::Pass,
    });
    // Long enough to be too slow, and short enough to end where nobody minds.
    let (object, bytes) = content(1, 300);
    server.put(&object.key(), &bytes);
    let fetched = fetch(&impatient(&weather), object, None, u64::MAX).await;
    assert_slow(&fetched.unwrap_err());
    assert_eq!(weather.asked().len(), 2, "it is tried again");
    let mut patient = configuration(&weather.endpoint(), "ckpt");
    patient.min_rate = 0;
    let fetched = fetch(&quick(&patient), object, None, u64::MAX).await;
    assert!(fetched.unwrap() == bytes);
}

#[tokio::test]
async fn a_bucket_that_takes_a_byte_now_and_then_is_unavailable() {
    let (server, weather) = server_behind(|asked| match asked.method.as_str() {
        "PUT" => Act::Sip,
        _ => Act::Pass,
    });
    for len in [PART, 3 * PART] {
        let (object, bytes) = content(1, len);
        let sent = publish(&impatient(&weather), object, &bytes, Existing::Keep).await;
        assert_slow(&sent.unwrap_err());
    }
    assert!(server.keys().is_empty());
}

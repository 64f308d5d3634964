//! What users of buckets report: each story with the server that does it.

use testkit::buckets;
use testkit::proxy::{Act, Asked, Weather};
use testkit::s3::S3;

use super::bucket::{behind, configuration, quick, server_behind};
use super::suite::{SENT, content, fetch, publish};
use crate::transport::parts::PART;
use crate::transport::{ContentTransport, Existing};
use crate::words::error::{Error, ErrorKind};

/// The whole chain of an error, for people.
fn told(error: &Error) -> String {
    format!("{}: {}: {:?}", error.kind(), error.line(), error.hint())
}

/// A completion that Amazon answers with 200 and an error in the body, as it does when it fails late, failed the whole upload.
/// So did an answer that was empty, or broke off: only its status counted when it was decided whether to send it again.
#[tokio::test]
async fn a_completion_that_fails_inside_a_200_is_sent_again() {
    for bad in [
        buckets::error_inside_200(),
        Act::Answer("200 OK", "", Vec::new()),
    ] {
        let decide = buckets::first(2, buckets::completes, bad);
        let (server, weather) = server_behind(decide);
        let (object, bytes) = content(1, 2 * PART);
        let sent = publish(&behind(&weather), object, &bytes, Existing::Replace).await;
        assert_eq!(sent.unwrap(), SENT);
        assert!(std::fs::read(server.object(&object.key())).unwrap() == bytes);
        assert_eq!(server.unfinished_uploads(), 0);
    }
}

/// The upload was completed, and the answer broke off: the second completion is refused, and the object is there.
#[tokio::test]
async fn a_completion_whose_answer_breaks_off_is_looked_for() {
    let decide = buckets::first(1, buckets::completes, Act::Cut(40));
    let (server, weather) = server_behind(decide);
    let (object, bytes) = content(1, 2 * PART);
    let sent = publish(&behind(&weather), object, &bytes, Existing::Keep).await;
    assert_eq!(sent.unwrap(), SENT);
    assert!(std::fs::read(server.object(&object.key())).unwrap() == bytes);
}

#[tokio::test]
async fn a_beginning_that_is_answered_with_nothing_or_half_is_asked_again() {
    for bad in [Act::Answer("200 OK", "", Vec::new()), Act::Cut(40)] {
        let decide = buckets::first(2, buckets::begins, bad);
        let (server, weather) = server_behind(decide);
        let (object, bytes) = content(1, 2 * PART);
        let sent = publish(&behind(&weather), object, &bytes, Existing::Keep).await;
        assert_eq!(sent.unwrap(), SENT);
        assert!(std::fs::read(server.object(&object.key())).unwrap() == bytes);
    }
}

/// A completion whose answer always broke off was an error of any kind; an upload that never completes is `unavailable`.
#[tokio::test]
async fn what_is_never_answered_whole_is_unavailable() {
    let of: [fn(&Asked) -> bool; 2] = [buckets::begins, buckets::completes];
    for of in of {
        for bad in [
            buckets::error_inside_200(),
            Act::Answer("200 OK", "", Vec::new()),
            Act::Answer("200 OK", "", b"<?xml version=\"1.0\"?><Initi".to_vec()),
        ] {
            let (server, weather) = server_behind(buckets::first(usize::MAX, of, bad));
            let (object, bytes) = content(1, 2 * PART);
            let sent = publish(&behind(&weather), object, &bytes, Existing::Replace).await;
            let error = sent.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", told(&error));
            assert!(server.keys().is_empty());
        }
    }
}

/// Keys that may not list are refused (403) where something is absent, so nothing could ever be published with them.
/// They are refused the look, and not the sending: it is sent without looking.
#[tokio::test]
async fn who_may_not_list_may_send() {
    let server = S3::start("ckpt");
    let weather = Weather::before(server.address(), buckets::without_listing(server.dir()));
    let transport = behind(&weather);
    for len in [100, PART + 1] {
        let (object, bytes) = content(1, len);
        for existing in [Existing::Keep, Existing::Replace] {
            let _ = std::fs::remove_file(server.object(&object.key()));
            let sent = publish(&transport, object, &bytes, existing).await;
            assert_eq!(sent.unwrap(), SENT);
            assert!(fetch(&transport, object, None, len).await.unwrap() == bytes);
        }
        let again = publish(&transport, object, &bytes, Existing::Keep).await;
        assert!(!again.unwrap().sent, "what is there can be looked at");
    }
    assert_eq!(server.unfinished_uploads(), 0);
}

#[tokio::test]
async fn a_permission_that_is_missing_is_named_before_it_is_needed() {
    for permission in ["s3:PutObject", "s3:GetObject"] {
        let (server, weather) = server_behind(buckets::without(permission));
        let error = behind(&weather).rehearse().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().contains(permission), "{}", told(&error));
        assert_eq!(server.unfinished_uploads(), 0);
        assert_eq!(server.keys(), [""; 0], "what cannot be read is removed");
    }
    let (server, weather) = server_behind(buckets::without("s3:DeleteObject"));
    let denied = behind(&weather).rehearse().await.unwrap();
    assert_eq!(denied.len(), 1);
    assert!(denied[0].contains("s3:DeleteObject"), "{denied:?}");
    let mut left = server.keys();
    left.sort();
    assert_eq!(left.len(), 2);
    assert!(left[0].starts_with("packs/doctor-probe-"), "{left:?}");
    assert!(left[1].starts_with("xxh3/doctor-probe-"), "{left:?}");
    let server = S3::start("ckpt");
    let weather = Weather::before(server.address(), buckets::without_listing(server.dir()));
    let denied = behind(&weather).rehearse().await.unwrap();
    assert!(denied[0].contains("s3:ListBucket"), "{denied:?}");
}

/// Policies were written for `xxh3/` alone, as the documentation had them: `doctor` was content, and the first snapshot of format
/// v2 was not published.
#[tokio::test]
async fn keys_that_reach_blobs_and_no_packs_are_named() {
    for (prefix, other) in [("xxh3", "packs"), ("packs", "xxh3")] {
        let (server, weather) = server_behind(move |asked| {
            match asked.target.starts_with(&format!("/ckpt/{prefix}/")) {
                true => Act::Answer("403 Forbidden", "", buckets::error("AccessDenied")),
                false => Act::Pass,
            }
        });
        let error = behind(&weather).rehearse().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        let told = error.to_string();
        assert!(told.contains(&format!("below {prefix}/")), "{told}");
        assert!(!told.contains(&format!("below {other}/")), "{told}");
        assert_eq!(server.keys(), [""; 0]);
    }
}

/// All nodes had one key for their probes: of two doctors at once one removed what the other was about to read.
#[tokio::test]
async fn no_rehearsal_touches_the_probe_of_another() {
    let (_server, weather) = server_behind(|_| Act::Pass);
    let mut probes = std::collections::HashSet::new();
    for number in 1..=2 {
        let before = weather.asked().len();
        behind(&weather).rehearse().await.unwrap();
        let asked = weather.asked().split_off(before);
        let written = asked.into_iter().filter(|asked| asked.method == "DELETE");
        probes.extend(written.map(|asked| asked.target));
        assert_eq!(probes.len(), 2 * number, "{probes:?}");
    }
}

#[tokio::test]
async fn a_rehearsal_sends_in_parts_and_leaves_nothing() {
    let (server, weather) = server_behind(|_| Act::Pass);
    assert!(behind(&weather).rehearse().await.unwrap().is_empty());
    assert!(server.keys().is_empty());
    assert_eq!(server.unfinished_uploads(), 0);
    let asked = weather.asked();
    assert!(asked.iter().any(buckets::completes));
    let methods: Vec<_> = asked.iter().map(|asked| &*asked.method).collect();
    assert!(
        methods.ends_with(&["HEAD", "GET", "DELETE", "HEAD"]),
        "{methods:?}"
    );
    let mut wrong = configuration(&server.endpoint(), "ckpt");
    wrong.access_key_secret = Some("not-the-secret".to_owned());
    let error = quick(&wrong).rehearse().await.unwrap_err();
    assert!(!error.to_string().contains("s3:Put"), "{}", told(&error));
}

/// A clock that is wrong was "permission denied: the server did not say why", since a HEAD has no body.
/// The date of the answer says it.
#[tokio::test]
async fn a_clock_that_is_wrong_is_named() {
    let (_server, weather) = server_behind(buckets::another_time);
    let transport = behind(&weather);
    let (object, bytes) = content(1, 100);
    for error in [
        transport.size(object).await.unwrap_err(),
        transport.rehearse().await.unwrap_err(),
        publish(&transport, object, &bytes, Existing::Keep)
            .await
            .unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        let told = told(&error);
        assert!(told.contains("ahead of the server's"), "{told}");
        assert!(told.contains("set this machine's"), "{told}");
    }
}

/// Buckets with Object Lock refuse what has no checksum.
#[tokio::test]
async fn every_write_has_a_checksum() {
    let (server, weather) = server_behind(buckets::object_lock);
    let transport = behind(&weather);
    for len in [100, 2 * PART + 1] {
        let (object, bytes) = content(1, len);
        let sent = publish(&transport, object, &bytes, Existing::Replace).await;
        assert_eq!(sent.unwrap(), SENT);
        assert!(std::fs::read(server.object(&object.key())).unwrap() == bytes);
    }
    transport.rehearse().await.unwrap();
}

#[tokio::test]
async fn encryption_and_storage_class_go_out_with_what_is_written() {
    let (_server, weather) = server_behind(|asked| match asked.method.as_str() {
        // This server knows no keys.
        "PUT" | "POST" => Act::Answer("400 Bad Request", "", buckets::error("InvalidStorageClass")),
        _ => Act::Pass,
    });
    let mut content_of = configuration(&weather.endpoint(), "ckpt");
    content_of.server_side_encryption = Some("aws:kms".to_owned());
    content_of.kms_key_id = Some("alias/checkpoints".to_owned());
    content_of.storage_class = Some("STANDARD_IA".to_owned());
    for len in [100, 2 * PART] {
        let (object, bytes) = content(1, len);
        let sent = publish(&quick(&content_of), object, &bytes, Existing::Replace).await;
        let error = sent.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{}", told(&error));
        assert!(error.hint().unwrap().contains("content.storage_class"));
    }
    let heads: Vec<_> = weather
        .asked()
        .into_iter()
        .filter(|asked| asked.method != "DELETE")
        .map(|asked| asked.head.to_ascii_lowercase())
        .collect();
    assert_eq!(heads.len(), 2);
    for line in [
        "x-amz-server-side-encryption: aws:kms\r\n",
        "x-amz-server-side-encryption-aws-kms-key-id: alias/checkpoints\r\n",
        "x-amz-storage-class: standard_ia\r\n",
    ] {
        assert!(heads.iter().all(|head| head.contains(line)), "{heads:#?}");
    }
}

/// A server that ignores ranges was an `internal` error: "more than was asked for".
/// What was asked for is taken out of what comes, as long as that is not far in.
#[tokio::test]
async fn a_server_that_ignores_ranges_is_worked_around() {
    let server = S3::start("ckpt");
    let weather = Weather::before(server.address(), buckets::without_ranges(server.dir()));
    let transport = behind(&weather);
    for len in [100, 2 * PART + 1] {
        let (object, bytes) = content(1, len);
        server.put(&object.key(), &bytes);
        assert!(fetch(&transport, object, None, u64::MAX).await.unwrap() == bytes);
        let part = fetch(&transport, object, Some(50..70), u64::MAX).await;
        assert!(part.unwrap() == bytes[50..70]);
        let beyond = fetch(&transport, object, Some(len - 1..len + 1), u64::MAX).await;
        assert_eq!(beyond.unwrap_err().kind(), ErrorKind::Damaged);
    }
}

#[tokio::test]
async fn ranges_that_are_ignored_far_in_are_named() {
    let server = S3::start("ckpt");
    let weather = Weather::before(server.address(), buckets::without_ranges(server.dir()));
    let (object, bytes) = content(1, (64 << 20) + 2 * PART);
    server.put(&object.key(), &bytes);
    let end = bytes.len() as u64;
    let part = fetch(&behind(&weather), object, Some(end - 1..end), u64::MAX).await;
    let error = part.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{}", told(&error));
    assert!(told(&error).contains("ignores ranges"), "{}", told(&error));
}

/// A body that ended well and too early was `internal`, "reader got too little data".
/// The rest is asked for; where there is none the object is damaged.
#[tokio::test]
async fn a_short_body_is_continued_and_damaged_where_nothing_more_comes() {
    for (len, most, whole) in [
        (100, 40, true),
        (PART + 100, 4 << 20, true),
        (100, 0, false),
    ] {
        let server = S3::start("ckpt");
        let weather = Weather::before(server.address(), buckets::short_bodies(server.dir(), most));
        let (object, bytes) = content(1, len);
        server.put(&object.key(), &bytes);
        match fetch(&behind(&weather), object, None, u64::MAX).await {
            Ok(back) => assert!(whole && back == bytes),
            Err(error) => {
                assert!(!whole, "{}", told(&error));
                assert_eq!(error.kind(), ErrorKind::Damaged, "{}", told(&error));
            }
        }
        assert!(weather.asked().len() < 20);
    }
}

/// `internal` is said of our own mistakes. Whatever a server says is none.
#[tokio::test]
async fn nothing_that_a_server_says_is_internal() {
    let codes = [
        "InvalidRequest",
        "NotImplemented",
        "EntityTooLarge",
        "QuotaExceeded",
        "NobodyKnows",
        "",
    ];
    let statuses = [
        "400 X", "405 X", "409 X", "411 X", "412 X", "501 X", "507 X", "418 X",
    ];
    for (code, status) in codes
        .into_iter()
        .flat_map(|code| statuses.map(|status| (code, status)))
    {
        let body = if code.is_empty() {
            Vec::new()
        } else {
            buckets::error(code)
        };
        let weather = Weather::alone(move |_| Act::Answer(status, "", body.clone()));
        let transport = behind(&weather);
        let (object, bytes) = content(1, 100);
        for error in [
            transport.check().await.unwrap_err(),
            transport.rehearse().await.unwrap_err(),
            publish(&transport, object, &bytes, Existing::Replace)
                .await
                .unwrap_err(),
            fetch(&transport, object, None, 100).await.unwrap_err(),
        ] {
            assert_ne!(
                error.kind(),
                ErrorKind::Internal,
                "{status} {code}: {}",
                told(&error)
            );
        }
    }
}

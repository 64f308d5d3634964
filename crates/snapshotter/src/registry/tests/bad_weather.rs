//! What a server or the way to it can do wrong: each is a clear error of the right kind, in bounded time and memory.

use testkit::weather::Reply;

use super::*;
use crate::ErrorKind;
use crate::format::artifact::{EMPTY_BYTES, Manifest, ManifestError};

async fn manifest(weather: &Weather) -> Result<Option<Pulled>> {
    under(weather).manifest(&repository(), &v1()).await
}

#[tokio::test]
async fn down() {
    // Nobody but root may listen there, and nobody does.
    let gone = "http://127.0.0.1:1";
    let registry = opened(&Registry::new(gone, "ns"));
    let error = registry.manifest(&repository(), &v1()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let expected = format!(
        "cannot read the manifest ns/vm/one:v1 ({gone}/v2/ns/vm/one/manifests/v1): cannot connect"
    );
    assert_eq!(error.to_string(), expected);
    assert!(everything_said(&error).contains("refused"), "{error:?}");
}

#[tokio::test]
async fn statuses_have_their_kinds_and_the_registrys_own_words() {
    let cases = [
        (400, ErrorKind::Unsupported),
        (401, ErrorKind::PermissionDenied),
        (403, ErrorKind::PermissionDenied),
        (405, ErrorKind::Unsupported),
        (413, ErrorKind::Unsupported),
        (418, ErrorKind::Unsupported),
        (429, ErrorKind::Unavailable),
        (500, ErrorKind::Unavailable),
        (501, ErrorKind::Unsupported),
        (503, ErrorKind::Unavailable),
        (507, ErrorKind::NoSpace),
    ];
    for (status, kind) in cases {
        let weather = Weather::new(move |_, _| {
            let body = r#"{"errors":[{"code":"NO","message":"not\u001b[2J today","detail":{}}]}"#;
            Reply::Full(status, Vec::new(), body.into())
        });
        let error = manifest(&weather).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(&status.to_string()), "{error}");
        assert!(
            error.to_string().contains(r"NO: not\u{1b}[2J today"),
            "{error}"
        );
        let retried = match status {
            // And once where registries say how to log in.
            401 => 2,
            _ if kind.is_retryable() => 5,
            _ => 1,
        };
        assert_eq!(weather.asked().len(), retried, "{status}");
    }
}

#[tokio::test]
async fn a_blob_that_is_not_there_is_not_found() {
    let weather = Weather::new(|_, _| Reply::status(404));
    let sha256 = Sha256::of(b"x");
    let error = under(&weather)
        .blob(&repository(), sha256, 1)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error.to_string().contains(&format!("ns/vm/one@{sha256}")),
        "{error}"
    );
    assert_eq!(weather.asked().len(), 1);
}

#[tokio::test]
async fn what_passes_is_tried_again() {
    for first in [
        Reply::status(429).with("Retry-After", "3600"),
        Reply::status(500),
        Reply::HangUp,
        Reply::Cut(b"{".to_vec(), 100),
    ] {
        let weather = Weather::new(move |_, number| match number {
            0 | 1 => first.clone(),
            _ => Reply::ok("{}"),
        });
        let pulled = manifest(&weather).await.unwrap().unwrap();
        assert_eq!(pulled.bytes, b"{}");
        assert_eq!(weather.asked().len(), 3);
    }
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let weather = Weather::new(|_, number| match number {
        0 => Reply::status(429).with("Retry-After", "3600"),
        _ => Reply::ok("{}"),
    });
    let tuning = Tuning {
        pace: Pace {
            first: Duration::ZERO,
            longest: Duration::from_millis(200),
        },
        ..quick()
    };
    let registry = open_with(&Registry::new(weather.url(), "ns"), tuning).unwrap();
    let start = std::time::Instant::now();
    registry.manifest(&repository(), &v1()).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn silence_ends() {
    for reply in [Reply::Silence, Reply::Stall(b"{".to_vec(), 100)] {
        let weather = Weather::new(move |_, _| reply.clone());
        let config = Registry::new(weather.url(), "ns")
            .timeout(Duration::from_millis(50))
            .retries(1);
        let error = opened(&config)
            .manifest(&repository(), &v1())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("within 50ms"), "{error}");
    }
}

#[tokio::test]
async fn a_connection_that_closes_in_the_body_is_unavailable() {
    let weather = Weather::new(|_, _| Reply::Cut(vec![1; 10], 1000));
    let error = manifest(&weather).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error.to_string().contains("the connection broke"),
        "{error}"
    );
    assert_eq!(weather.asked().len(), 5);
}

#[tokio::test]
async fn wrong_digests_are_damage() {
    let weather = Weather::new(|asked, _| match asked.path().rsplit('/').next() {
        Some("v1") => Reply::ok("{}").with("Docker-Content-Digest", Sha256::of(b"x").to_string()),
        _ => Reply::ok("{}"),
    });
    let error = manifest(&weather).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(
        error.to_string().contains("the registry says sha256:"),
        "{error}"
    );
    let registry = under(&weather);
    let which = TagOrDigest::Digest(Sha256::of(b"x"));
    let error = registry.manifest(&repository(), &which).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(
        error.to_string().contains("the registry sent sha256:"),
        "{error}"
    );
    let error = registry
        .blob(&repository(), Sha256::of(b"xx"), 2)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(
        error.to_string().contains("its bytes are sha256:"),
        "{error}"
    );
    assert_eq!(weather.asked().len(), 3, "damage is not tried again");
}

#[tokio::test]
async fn bodies_without_end_are_not_read_to_it() {
    let weather = Weather::new(|_, _| Reply::Endless);
    let error = manifest(&weather).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(
        error.to_string().contains("longer than 4194304 bytes"),
        "{error}"
    );
    let registry = under(&weather);
    let sha256 = Sha256::of(b"x");
    let error = registry.blob(&repository(), sha256, 10).await.unwrap_err();
    assert!(
        error.to_string().contains("longer than 10 bytes"),
        "{error}"
    );
    let (result, sent) = pulled(&*registry, &repository(), sha256, 100_000, None).await;
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(sent.len() <= 100_000, "{}", sent.len());
    let error = registry.tags(&repository()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
}

#[tokio::test]
async fn another_artifacts_manifest_comes_as_it_is_and_is_no_snapshot() {
    let index = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","config":{"mediaType":"x","digest":"y","size":0}}"#;
    let weather = Weather::new(move |_, _| Reply::ok(index));
    let pulled = manifest(&weather).await.unwrap().unwrap();
    assert_eq!(pulled.bytes, index.as_bytes());
    let error = Manifest::parse(&pulled.bytes).unwrap_err();
    assert!(
        matches!(error, ManifestError::NotASnapshot { .. }),
        "{error}"
    );
    let accept = weather.asked()[0].header("accept").unwrap().to_owned();
    assert!(accept.contains("image.index.v1+json"), "{accept}");
}

#[tokio::test]
async fn lists_that_go_on_elsewhere_or_nowhere_are_not_followed() {
    let elsewhere = Weather::new(|_, _| Reply::ok(r#"{"tags":["stolen"]}"#));
    let links = [
        format!("<{}/tags?n=1>; rel=\"next\"", elsewhere.url()),
        "</v2/other/tags/list?n=1>; rel=\"next\"".to_owned(),
        "<file:///etc/passwd>; rel=\"next\"".to_owned(),
    ];
    for link in links {
        let weather =
            Weather::new(move |_, _| Reply::ok(r#"{"tags":["v1"]}"#).with("Link", link.clone()));
        let error = under(&weather).tags(&repository()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(
            error
                .to_string()
                .contains("its link to the next page cannot be followed"),
            "{error}"
        );
        assert_eq!(weather.asked().len(), 1);
    }
    assert_eq!(elsewhere.asked(), []);
}

#[tokio::test]
async fn pages_are_gathered_and_impossible_tags_left_out() {
    let weather = Weather::new(|_, number| match number {
        0 => Reply::ok(r#"{"name":"x","tags":["b","../x",""]}"#).with(
            "Link",
            "</v2/ns/vm/one/tags/list?n=1000&last=b>; rel=\"next\"",
        ),
        1 => Reply::ok(r#"{"tags":["a"]}"#).with("Link", "<?last=a>; rel=next"),
        _ => Reply::ok(r#"{"tags":null}"#),
    });
    let tags = under(&weather).tags(&repository()).await.unwrap();
    let tags: Vec<_> = tags.iter().map(Tag::as_str).collect();
    assert_eq!(tags, ["a", "b"]);
    let targets: Vec<_> = weather
        .asked()
        .into_iter()
        .map(|asked| asked.target)
        .collect();
    assert!(
        targets[0].ends_with("?n=1000") && targets[2].ends_with("?last=a"),
        "{targets:?}"
    );
}

#[tokio::test]
async fn a_registry_that_does_not_list_says_so() {
    for status in [401, 403, 404, 405] {
        let weather = Weather::new(move |_, _| Reply::status(status));
        let error = under(&weather).repositories().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{status}");
        assert_eq!(
            error.to_string(),
            "this registry does not list its repositories"
        );
        assert!(error.hint().is_some());
    }
    let nonsense = Weather::new(|_, _| Reply::ok("nonsense"));
    let error = under(&nonsense).repositories().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
}

#[tokio::test]
async fn an_upload_that_broke_off_after_it_was_stored_is_found() {
    let weather = Weather::new(|asked, number| match (asked.method.as_str(), number) {
        ("GET", 0) => Reply::status(404),
        ("GET", _) => Reply::ok(EMPTY_BYTES),
        ("POST", _) => Reply::status(202).with("Location", "/v2/ns/vm/one/blobs/uploads/1?state=s"),
        // The registry has it, but its answer is lost.
        _ => Reply::HangUp,
    });
    let bytes = Bytes::from_static(EMPTY_BYTES);
    under(&weather)
        .push_blob(&repository(), Sha256::of(EMPTY_BYTES), bytes)
        .await
        .unwrap();
    let asked = weather.asked();
    let methods: Vec<_> = asked.iter().map(|asked| asked.method.as_str()).collect();
    assert_eq!(methods, ["GET", "POST", "PUT", "GET"]);
    assert_eq!(asked[2].body, EMPTY_BYTES);
    assert!(
        asked[2].target.contains("state=s&digest=sha256"),
        "{}",
        asked[2].target
    );
}

#[tokio::test]
async fn a_blob_of_another_length_is_damage_that_a_push_reports() {
    let weather = Weather::new(|asked, _| match asked.header("range") {
        None => Reply::ok("{}x"),
        Some(range) => {
            assert_eq!(range, "bytes=1-1");
            Reply::Full(206, Vec::new(), b"}".to_vec()).with("Content-Range", "bytes 1-1/3")
        }
    });
    let bytes = Bytes::from_static(EMPTY_BYTES);
    let error = under(&weather)
        .push_blob(&repository(), Sha256::of(EMPTY_BYTES), bytes)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(
        error.to_string().contains("has it with 3 bytes, not 2"),
        "{error}"
    );
}

/// A link without brackets was no link, and the first page passed for all; one that a proxy had made its own was refused.
#[tokio::test]
async fn lists_are_read_to_their_end_however_the_next_page_is_named() {
    let elsewhere = Weather::new(|_, _| Reply::ok(r#"{"tags":["stolen"]}"#));
    let path = "/v2/ns/vm/one/tags/list?n=1000&last=v1";
    for link in [
        format!("{path}; rel=\"next\""),
        format!("<{path}>"),
        format!("<{}{path}>; rel=\"next\"", elsewhere.url()),
        format!("</prefix{path}>; rel=next"),
    ] {
        let weather = Weather::new(move |asked, _| match asked.target.contains("last=v1") {
            false => Reply::ok(r#"{"tags":["v1"]}"#).with("Link", link.clone()),
            true => Reply::ok(r#"{"tags":["v2"]}"#),
        });
        let tags = under(&weather).tags(&repository()).await.unwrap();
        assert_eq!(tags, ["v1", "v2"].map(|tag| Tag::new(tag).unwrap()));
    }
    assert_eq!(elsewhere.asked(), []);
}

/// A page that is gone when it is asked for was the end of the list.
#[tokio::test]
async fn a_list_whose_next_page_is_not_there_is_no_list() {
    let weather = Weather::new(|_, number| match number {
        0 => Reply::ok(r#"{"tags":["v1"]}"#).with("Link", "<?last=v1>; rel=next"),
        _ => Reply::status(404),
    });
    let error = under(&weather).tags(&repository()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

/// What is full, and how full, is at the end of a long message; and whoever is told so may well write.
#[tokio::test]
async fn a_quota_that_is_full_is_said_as_the_registry_says_it() {
    let long = "x".repeat(200);
    let message = format!("adding {long} would exceed the project's quota: 97.9 of 98 GiB");
    let body = format!(r#"{{"errors":[{{"code":"DENIED","message":"{message}"}}]}}"#);
    let weather = Weather::new(move |_, _| Reply::Full(403, Vec::new(), body.clone().into()));
    let bytes = Bytes::from_static(b"{}");
    let registry = under(&weather);
    let pushed = registry.push_manifest(&repository(), &v1(), bytes);
    let error = pushed.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert!(error.to_string().ends_with(&message), "{error}");
}

/// "Cannot connect", of a server that speaks http and was asked for https.
#[tokio::test]
async fn a_server_without_tls_that_is_asked_for_it_is_named_at_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for mut client in listener.incoming().flatten() {
            let _ = client.read(&mut [0; 512]);
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let registry = opened(&Registry::new(address.to_string(), "ns"));
    let error = registry.manifest(&repository(), &v1()).await.unwrap_err();
    assert!(
        error.to_string().ends_with("it does not speak TLS"),
        "{error:?}"
    );
    assert!(error.hint().unwrap().contains("http://"));
}

/// What the proxy refused, the registry was said to have answered, or nobody.
#[tokio::test]
async fn a_proxy_that_refuses_is_named() {
    for status in [407, 403] {
        let proxy = Weather::new(move |_, _| Reply::status(status));
        let through = |endpoint: &str| {
            let config = Registry::new(endpoint, "ns").retries(0);
            opened(&config.proxy(format!("http://me:hunter2@{}", proxy.address())))
        };
        let https = through("https://registry.invalid");
        let error = https.manifest(&repository(), &v1()).await.unwrap_err();
        let text = format!("cannot connect through the proxy {}", proxy.address());
        assert!(error.to_string().ends_with(&text), "{error}");
        assert!(error.hint().unwrap().contains("registry.proxy"));
        assert!(!everything_said(&error).contains("hunter2"));
    }
    let proxy = Weather::new(|_, _| Reply::status(407));
    let config = Registry::new("http://registry.invalid", "ns");
    let plain = opened(&config.proxy(format!("http://me:hunter2@{}", proxy.address())));
    let error = plain.manifest(&repository(), &v1()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    let text = format!("the proxy {} answered 407", proxy.address());
    assert!(error.to_string().contains(&text), "{error}");
    assert!(!everything_said(&error).contains("hunter2"));
}

/// A registry, or whoever stands before it, answered a PUT with 2xx and had nothing: "published".
/// An answer that does not name the digest is followed by a look, and what is not there is not pushed.
#[tokio::test]
async fn a_blob_that_is_answered_with_201_and_is_not_there_is_unavailable() {
    for reply in [
        Reply::status(201),
        Reply::ok("<html>please log in</html>"),
        Reply::status(202),
    ] {
        let weather = Weather::new(move |asked, _| match asked.method.as_str() {
            "GET" => Reply::status(404),
            "POST" | "PATCH" => Reply::status(202).with("Location", "/v2/ns/up/1"),
            _ => reply.clone(),
        });
        let config = Registry::new(weather.url(), "ns").retries(1);
        let registry = opened(&config.timeout(Duration::from_millis(200)));
        let bytes = Bytes::from_static(EMPTY_BYTES);
        let pushed_whole = registry
            .push_blob(&repository(), Sha256::of(&bytes), bytes.clone())
            .await
            .unwrap_err();
        let so_far = weather.asked().len();
        let streamed = pushed(&*registry, &repository(), &bytes, End::Well).await;
        let streamed = streamed.unwrap_err();
        for error in [pushed_whole, streamed] {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            let text = "the registry took it and does not have it, 200ms later";
            assert!(error.to_string().contains(text), "{error}");
        }
        // What was sent is looked for again and again, and not sent again.
        let asked = weather.asked();
        let mut methods: Vec<_> = asked.iter().map(|asked| &*asked.method).collect();
        let streamed = methods.split_off(so_far);
        for (methods, sending) in [
            (methods, &["GET", "POST", "PUT", "GET"][..]),
            (streamed, &["POST", "PATCH", "PUT", "GET"]),
        ] {
            let (sent, looked) = methods.split_at(sending.len());
            assert_eq!(sent, sending);
            assert!(!looked.is_empty() && looked.iter().all(|method| *method == "GET"));
        }
    }
}

#[tokio::test]
async fn a_blob_that_a_registry_took_for_another_is_damage() {
    let weather = Weather::new(|asked, _| match asked.method.as_str() {
        "GET" => Reply::status(404),
        "POST" => Reply::status(202).with("Location", "/v2/ns/up/1"),
        _ => Reply::status(201).with("Docker-Content-Digest", Sha256::of(b"x").to_string()),
    });
    let bytes = Bytes::from_static(EMPTY_BYTES);
    let pushed = under(&weather)
        .push_blob(&repository(), Sha256::of(EMPTY_BYTES), bytes)
        .await;
    let error = pushed.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(
        error.to_string().contains("the registry says sha256:"),
        "{error}"
    );
}

/// `list --remote` followed links to a next page for as long as there were any: an hour, a day, however empty the pages.
/// A list that comes back to a page, or whose pages hold nearly nothing, ends with an error that says so.
#[tokio::test]
async fn lists_without_end_end() {
    // Round and round, and on and on.
    for (pages, asked, why) in [
        (3, 4, "after 4 pages it comes back to one of them"),
        (usize::MAX, 101, "101 pages have only 0 names"),
    ] {
        let endless = || {
            Weather::new(move |_, number| {
                let link = format!("<?n=1000&last={}>; rel=\"next\"", number % pages);
                Reply::ok(r#"{"tags":[],"repositories":[]}"#).with("Link", link)
            })
        };
        let (tags, names) = (endless(), endless());
        let errors = [
            under(&tags)
                .tags(&repository())
                .await
                .map(drop)
                .unwrap_err(),
            under(&names).repositories().await.map(drop).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            let text = error.to_string();
            assert!(
                text.ends_with(&format!("the list goes on and on: {why}")),
                "{text}"
            );
        }
        assert_eq!((tags.asked().len(), names.asked().len()), (asked, asked));
    }
}

/// Bears with a slow registry for a moment only, and with a silent one for long.
fn impatient(weather: &Weather) -> Arc<dyn MetadataRegistry> {
    let tuning = Tuning {
        window: Duration::from_millis(300),
        ..quick()
    };
    open_with(&Registry::new(weather.url(), "ns").retries(1), tuning).unwrap()
}

fn assert_slow(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let text = error.to_string();
    assert!(text.contains("too slow: "), "{text}");
    let figures = "bytes in 300ms, and registry.min_rate is 4096 bytes a second";
    assert!(text.ends_with(figures), "{text}");
}

/// An answer of a byte every few milliseconds never ended: each byte was progress.
/// A registry has to move `registry.min_rate` over a minute of being waited for; here it is a shorter one.
#[tokio::test]
async fn a_registry_that_trickles_is_unavailable() {
    // Long enough to be too slow, and short enough to end where nobody minds.
    let bytes = some_bytes(7, 300);
    let served = bytes.clone();
    let weather = Weather::new(move |_, _| Reply::Trickle(served.clone()));
    let (registry, sha256) = (impatient(&weather), Sha256::of(&bytes));
    let blob = registry.blob(&repository(), sha256, 300).await;
    assert_slow(&blob.unwrap_err());
    let (streamed, _) = pulled(&*registry, &repository(), sha256, 300, None).await;
    assert_slow(&streamed.unwrap_err());
    assert_eq!(weather.asked().len(), 4, "each is tried again");
    let patient = opened(&Registry::new(weather.url(), "ns").min_rate(0));
    let blob = patient.blob(&repository(), sha256, 300).await;
    assert_eq!(blob.unwrap(), bytes);
}

/// The same for who takes bytes: an upload of a byte every few milliseconds.
#[tokio::test]
async fn a_registry_that_takes_a_byte_now_and_then_is_unavailable() {
    use testkit::proxy::{self, Act};
    let weather = proxy::Weather::alone(|asked| match asked.method.as_str() {
        "POST" => Act::Answer("202 Accepted", "Location: /v2/ns/up/1\r\n", Vec::new()),
        "DELETE" => Act::Answer("204 No Content", "", Vec::new()),
        "GET" => Act::Answer("404 Not Found", "", Vec::new()),
        _ => Act::Sip,
    });
    let tuning = Tuning {
        window: Duration::from_millis(300),
        ..quick()
    };
    let config = Registry::new(weather.endpoint(), "ns").retries(1);
    let registry = open_with(&config, tuning).unwrap();
    let bytes = Bytes::from(some_bytes(8, 16 << 20));
    let whole = registry
        .push_blob(&repository(), Sha256::of(&bytes), bytes.clone())
        .await;
    assert_slow(&whole.unwrap_err());
    let streamed = pushed(&*registry, &repository(), &bytes, End::Well).await;
    assert_slow(&streamed.unwrap_err());
}

/// A connection that broke twice while the last byte was waited for was the answer that the blob is gone: a collection then forgot
/// where a snapshot is.
#[tokio::test]
async fn only_an_answer_that_is_complete_says_that_a_blob_is_absent() {
    let sha256 = Sha256::of(b"0123456789");
    let none = || Reply::Full(200, Vec::new(), Vec::new());
    for (replies, found) in [
        (
            [Reply::Cut(Vec::new(), 10), Reply::Cut(Vec::new(), 10)],
            Presence::Unknown,
        ),
        (
            [Reply::Stall(Vec::new(), 10), Reply::Stall(Vec::new(), 10)],
            Presence::Unknown,
        ),
        ([Reply::Cut(Vec::new(), 10), none()], Presence::Unknown),
        ([none(), Reply::Cut(Vec::new(), 10)], Presence::Unknown),
        ([none(), none()], Presence::Absent),
        ([Reply::status(404), Reply::status(404)], Presence::Absent),
        (
            [Reply::Cut(Vec::new(), 10), Reply::ok("0123456789")],
            Presence::Size(10),
        ),
    ] {
        let weather = Weather::new(move |_, number| replies[number].clone());
        let config = Registry::new(weather.url(), "ns").timeout(Duration::from_millis(100));
        let registry = opened(&config);
        let looked = registry.has_blob(&repository(), sha256, 10).await;
        assert_eq!(looked.unwrap(), found);
    }
}

/// A registry that keeps back how long a blob is was sent it again each time, and confirmed nothing.
#[tokio::test]
async fn the_last_byte_is_enough_where_the_length_is_kept_back() {
    let weather = Weather::new(|asked, _| {
        assert_eq!(asked.method, "GET");
        Reply::Full(206, Vec::new(), b"}".to_vec()).with("Content-Range", "bytes 1-1/*")
    });
    let bytes = Bytes::from_static(EMPTY_BYTES);
    let sha256 = Sha256::of(EMPTY_BYTES);
    let registry = under(&weather);
    registry
        .push_blob(&repository(), sha256, bytes)
        .await
        .unwrap();
    assert_eq!(weather.asked().len(), 1);
    // A collection wants to know how long it is.
    let looked = registry.has_blob(&repository(), sha256, 2).await;
    assert_eq!(looked.unwrap(), Presence::Unknown);
}

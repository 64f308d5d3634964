//! Logging in: Basic, Bearer, refresh tokens, Docker's configuration; and whom credentials are not shown to.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use testkit::child::{self, Child, State};
use testkit::weather::{Asked, Reply};

use super::*;
use crate::ErrorKind;

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A registry that lets in who has `token`, and sends the others to `realm`.
fn guarded(realm: String, token: &'static str) -> Weather {
    Weather::new(move |asked, _| {
        if asked.header("authorization") == Some(&format!("Bearer {token}")) {
            return Reply::ok("{}");
        }
        let challenge = format!(
            "Bearer realm=\"{realm}/token\",service=\"the service\",scope=\"repository:x:pull\""
        );
        Reply::status(401).with("WWW-Authenticate", challenge)
    })
}

fn issuing(body: &'static str) -> Weather {
    Weather::new(move |_, _| Reply::ok(body))
}

async fn manifest(config: &Registry) -> Result<Option<Pulled>> {
    opened(config).manifest(&repository(), &v1()).await
}

#[tokio::test]
async fn basic_is_sent_when_asked_for_and_then_at_once() {
    let weather = Weather::new(|asked, _| match asked.header("authorization") {
        Some(_) => Reply::ok("{}"),
        None => Reply::status(401).with("WWW-Authenticate", "Basic realm=\"r\""),
    });
    let registry = opened(&Registry::new(weather.url(), "ns").credentials("u", "p:q"));
    for _ in 0..2 {
        registry
            .manifest(&repository(), &v1())
            .await
            .unwrap()
            .unwrap();
    }
    let sent: Vec<_> = weather
        .asked()
        .iter()
        .map(|a| a.header("authorization").map(str::to_owned))
        .collect();
    let header = Some(basic("u", "p:q"));
    assert_eq!(sent, [None, header.clone(), header]);
}

#[tokio::test]
async fn a_token_is_got_with_the_password_and_kept() {
    let tokens = issuing(r#"{"token":"t1","expires_in":300}"#);
    let weather = guarded(tokens.url(), "t1");
    let registry = opened(&Registry::new(weather.url(), "ns").credentials("u", "p"));
    for _ in 0..3 {
        registry
            .manifest(&repository(), &v1())
            .await
            .unwrap()
            .unwrap();
    }
    assert_eq!(weather.asked().len(), 4);
    let asked: Vec<Asked> = tokens.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].method, "GET");
    let target = asked[0].target.replace("%3A", ":");
    assert_eq!(
        target,
        "/token?service=the+service&scope=repository:x:pull&account=u"
    );
    assert_eq!(asked[0].header("authorization"), Some(&*basic("u", "p")));
    // Another scope is another token.
    registry
        .push_manifest(&repository(), &v1(), Bytes::from_static(b"{}"))
        .await
        .unwrap();
    assert_eq!(tokens.asked().len(), 2);
}

// A stream is sent once, with the token that is known. Where that had expired, because what was before it took longer than a token
// lasts, the registry refused the stream for good.
#[tokio::test]
async fn a_stream_goes_up_with_a_token_that_is_got_anew() {
    let tokens = issuing(r#"{"access_token":"t1","expires_in":0}"#);
    let challenge = format!("Bearer realm=\"{}/token\",service=\"s\"", tokens.url());
    let weather = Weather::new(move |asked, _| {
        if asked.header("authorization") != Some("Bearer t1") {
            return Reply::status(401).with("WWW-Authenticate", challenge.clone());
        }
        match asked.method.as_str() {
            "PUT" => created(asked),
            _ => Reply::status(202).with("Location", "/v2/ns/up/1"),
        }
    });
    let bytes = some_bytes(6, 100_000);
    let sha256 = pushed(&*under(&weather), &repository(), &bytes, End::Well).await;
    assert_eq!(sha256.unwrap(), Sha256::of(&bytes));
    let asked = weather.asked();
    let patches = asked.iter().filter(|asked| asked.method == "PATCH");
    assert_eq!(patches.count(), 1);
}

#[tokio::test]
async fn an_expired_token_is_not_used_again() {
    let tokens = issuing(r#"{"access_token":"t1","expires_in":0}"#);
    let weather = guarded(tokens.url(), "t1");
    let registry = opened(&Registry::new(weather.url(), "ns"));
    for _ in 0..2 {
        registry
            .manifest(&repository(), &v1())
            .await
            .unwrap()
            .unwrap();
    }
    assert_eq!(tokens.asked().len(), 2);
    assert_eq!(
        tokens.asked()[0].header("authorization"),
        None,
        "nobody has no password"
    );
}

/// Empty beside an `access_token`, the token was believed; and what is no whole number of seconds made it no token.
#[tokio::test]
async fn tokens_of_odd_servers_serve() {
    for body in [
        r#"{"token":"","access_token":"good"}"#,
        r#"{"token":"good","expires_in":0}"#,
        r#"{"token":"good","expires_in":-1}"#,
        r#"{"token":"good","expires_in":299.5}"#,
        r#"{"token":"good","expires_in":"300"}"#,
        r#"{"token":"good","expires_in":"soon"}"#,
    ] {
        let server = issuing(body);
        let weather = guarded(server.url(), "good");
        let registry = opened(&Registry::new(weather.url(), "ns"));
        for _ in 0..2 {
            registry.manifest(&repository(), &v1()).await.unwrap();
        }
    }
}

/// A token that expires between the chunks of an upload, or sooner than it says, ended it: a body has no second try.
#[tokio::test]
async fn a_token_that_expires_while_a_stream_goes_up_is_got_anew() {
    let issued = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&issued);
    let server = Weather::new(move |_, _| {
        let nth = counted.fetch_add(1, Ordering::SeqCst) + 1;
        Reply::ok(format!(r#"{{"token":"t{nth}","expires_in":3600}}"#))
    });
    let challenge = format!("Bearer realm=\"{}\"", server.url());
    // Each token is good for two requests, whatever it says.
    let (uses, taken) = (Mutex::new(HashMap::new()), AtomicUsize::new(0));
    let weather = Weather::new(move |asked, _| {
        let token = asked.header("authorization").unwrap_or_default().to_owned();
        let mut uses = uses.lock().unwrap();
        let used = uses.entry(token.clone()).or_insert(0);
        *used += 1;
        if token.is_empty() || *used > 2 {
            return Reply::status(401).with("WWW-Authenticate", challenge.clone());
        }
        match asked.method.as_str() {
            "PUT" => created(asked),
            method => {
                let more = if method == "PATCH" {
                    asked.body.len()
                } else {
                    0
                };
                let last = taken.fetch_add(more, Ordering::SeqCst) + more;
                Reply::status(202)
                    .with("Location", "/v2/ns/up/1")
                    .with("Range", format!("0-{}", last.saturating_sub(1)))
            }
        }
    });
    let config = Registry::new(weather.url(), "ns").chunk_bytes(64 << 10);
    let bytes = some_bytes(11, 150_000);
    let stored = pushed(&*opened(&config), &repository(), &bytes, End::Well).await;
    assert_eq!(stored.unwrap(), Sha256::of(&bytes));
    assert!(issued.load(Ordering::SeqCst) > 1);
}

#[tokio::test]
async fn a_token_that_the_registry_revoked_is_replaced() {
    let tokens = Weather::new(|_, number| Reply::ok(format!(r#"{{"token":"t{number}"}}"#)));
    let realm = tokens.url();
    let weather = Weather::new(move |asked, number| {
        let token = asked.header("authorization").unwrap_or_default();
        let good = (number < 3 && token == "Bearer t0") || token == "Bearer t1";
        let challenge = format!("Bearer realm=\"{realm}\"");
        match good {
            true => Reply::ok("{}"),
            false => Reply::status(401).with("WWW-Authenticate", challenge),
        }
    });
    let registry = opened(&Registry::new(weather.url(), "ns"));
    for _ in 0..3 {
        registry
            .manifest(&repository(), &v1())
            .await
            .unwrap()
            .unwrap();
    }
    assert_eq!(tokens.asked().len(), 2);
    let scope = tokens.asked()[0]
        .target
        .replace("%3A", ":")
        .replace("%2F", "/");
    assert_eq!(scope, "/?scope=repository:ns/vm/one:pull");
}

#[tokio::test]
async fn a_refresh_token_is_posted() {
    let tokens = issuing(r#"{"access_token":"t1"}"#);
    let weather = guarded(tokens.url(), "t1");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    let json = format!(
        r#"{{"auths":{{"{}":{{"identitytoken":"re fresh"}}}}}}"#,
        weather.address()
    );
    std::fs::write(&file, json).unwrap();
    let config = Registry::new(weather.url(), "ns").docker_config(&file);
    manifest(&config).await.unwrap().unwrap();
    let asked = &tokens.asked()[0];
    assert_eq!(
        (asked.method.as_str(), asked.target.as_str()),
        ("POST", "/token")
    );
    assert_eq!(
        asked.header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    let body = String::from_utf8(asked.body.clone())
        .unwrap()
        .replace("%3A", ":");
    assert_eq!(
        body,
        "service=the+service&scope=repository:x:pull&grant_type=refresh_token&client_id=snapshotter&refresh_token=re+fresh"
    );
}

#[tokio::test]
async fn a_token_server_that_refuses_or_answers_nonsense_is_permission_denied() {
    let cases = [
        Reply::status(401),
        Reply::status(403),
        Reply::status(400),
        Reply::ok("no json hunter2"),
        Reply::ok("{}"),
        Reply::ok(r#"{"token":""}"#),
        Reply::ok("{\"token\":\"hunter2\\n\"}"),
        Reply::status(302).with("Location", "http://127.0.0.1:1/"),
    ];
    for reply in cases {
        let tokens = Weather::new(move |_, _| reply.clone());
        let weather = guarded(tokens.url(), "t1");
        let config = Registry::new(weather.url(), "ns").credentials("u", "hunter2");
        let error = manifest(&config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert!(!everything_said(&error).contains("hunter2"), "{error:?}");
        assert_eq!(tokens.asked().len(), 1);
    }
}

#[tokio::test]
async fn a_token_server_that_is_ill_is_asked_again() {
    let tokens = Weather::new(|_, number| match number {
        0 => Reply::status(503),
        1 => Reply::HangUp,
        _ => Reply::ok(r#"{"token":"t1"}"#),
    });
    let weather = guarded(tokens.url(), "t1");
    manifest(&Registry::new(weather.url(), "ns"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(tokens.asked().len(), 3);
}

#[tokio::test]
async fn a_realm_that_is_no_web_server_is_refused() {
    for realm in ["file:///etc/passwd?x", "nonsense", ""] {
        let weather = Weather::new(move |_, _| {
            Reply::status(401).with("WWW-Authenticate", format!("Bearer realm=\"{realm}\""))
        });
        let config = Registry::new(weather.url(), "ns").credentials("u", "hunter2");
        let error = manifest(&config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("its token server"), "{error}");
    }
}

#[tokio::test]
async fn credentials_of_another_registry_are_not_used() {
    let weather =
        Weather::new(|_, _| Reply::status(401).with("WWW-Authenticate", "Basic realm=\"r\""));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    std::fs::write(
        &file,
        r#"{"auths":{"other.example.com":{"auth":"dTpw"},"127.0.0.1":{"auth":"dTpw"}}}"#,
    )
    .unwrap();
    let config = Registry::new(weather.url(), "ns").docker_config(&file);
    let error = manifest(&config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let asked = weather.asked();
    assert!(
        asked
            .iter()
            .all(|asked| asked.header("authorization").is_none())
    );
}

#[tokio::test]
async fn the_environments_proxy_is_not_asked_for() {
    const DEAD: &str = "http://127.0.0.1:1";
    if std::env::var_os("HTTP_PROXY").is_none_or(|proxy| proxy != DEAD) {
        let name = "the_environments_proxy_is_not_asked_for";
        let mut command = child::this_test(module_path!(), name);
        for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
            command.env(variable, DEAD);
        }
        let end = Child::spawn(&mut command).unwrap().wait();
        assert_eq!(end.unwrap(), State::Exited(0));
        return;
    }
    let weather = Weather::new(|_, _| Reply::ok("{}"));
    let pulled = manifest(&Registry::new(weather.url(), "ns")).await;
    assert!(pulled.unwrap().is_some());
}

#[tokio::test]
async fn a_proxy_is_used_where_it_is_named() {
    let proxy = Weather::new(|_, _| Reply::ok("{}"));
    let config = Registry::new("http://registry.invalid:5000", "ns")
        .proxy(format!("http://pu:hunter2@{}", proxy.address()));
    manifest(&config).await.unwrap().unwrap();
    let asked = &proxy.asked()[0];
    assert_eq!(
        asked.target,
        "http://registry.invalid:5000/v2/ns/vm/one/manifests/v1"
    );
    assert_eq!(
        asked.header("proxy-authorization"),
        Some(&*basic("pu", "hunter2"))
    );
}

//! `-v`, `-vv` and `-vvv`: what is done, each request, what the libraries say; and no secret in any of it.

use crate::support;

use std::sync::atomic::{AtomicUsize, Ordering};

use support::Place;
use testkit::proxy::{Act, Weather};
use testkit::registry::{Kind, RegistryServer, or_skip};
use testkit::s3::{ACCESS_KEY, S3, SECRET_KEY};

const TOKEN: &str = "SESSIONTOKEN0123456789abcdefgh";

/// A registry that wants a password, and a bucket behind something that is busy at first.
fn servers() -> Option<(RegistryServer, S3, Weather, Place)> {
    let registry = or_skip(RegistryServer::start(Kind {
        user: Some(("robot", "hunter2")),
        ..Kind::default()
    }))?;
    let s3 = S3::start("ckpt");
    let busy = AtomicUsize::new(0);
    let weather = Weather::before(s3.address(), move |asked| {
        if asked.method == "PUT" && busy.fetch_add(1, Ordering::SeqCst) == 0 {
            return Act::Answer("503 Slow Down", "retry-after: 1\r\n", Vec::new());
        }
        Act::Pass
    });
    let place = Place::new()
        .set("SNAPSHOTTER_REGISTRY_ENDPOINT", registry.url())
        .set("SNAPSHOTTER_REGISTRY_NAMESPACE", "team")
        .set("SNAPSHOTTER_REGISTRY_USERNAME", "robot")
        .set("SNAPSHOTTER_REGISTRY_PASSWORD", "hunter2")
        .set("SNAPSHOTTER_CONTENT_PROVIDER", "s3")
        .set("SNAPSHOTTER_CONTENT_ENDPOINT", weather.endpoint())
        .set("SNAPSHOTTER_CONTENT_BUCKET", s3.bucket())
        .set("SNAPSHOTTER_CONTENT_ACCESS_KEY_ID", ACCESS_KEY)
        .set("SNAPSHOTTER_CONTENT_ACCESS_KEY_SECRET", SECRET_KEY)
        .set("SNAPSHOTTER_CONTENT_SESSION_TOKEN", TOKEN);
    Some((registry, s3, weather, place))
}

fn assert_no_secret(said: &str) {
    // `robot:hunter2` is in base64 where Basic authentication sends it.
    for secret in [
        "hunter2",
        "cm9ib3Q6aHVudGVyMg",
        SECRET_KEY,
        ACCESS_KEY,
        TOKEN,
        "Signature=",
    ] {
        assert!(!said.contains(secret), "{secret} is in: {said}");
    }
}

/// `-v` printed more columns and no word of what was done: a command that waited half a minute for a server looked stuck.
#[test]
fn each_level_says_more_and_none_a_secret() {
    let Some((_registry, _s3, _weather, place)) = servers() else {
        return;
    };
    let once = place
        .on("one", ["snapshot", "vm:v1", "vm", "-v"])
        .succeeded();
    for line in [
        "to do: 3 files or blobs, about ",
        "blob 1 of 3: xxh3:",
        "retry 1 of 4 in 1.0 s: the server answers 503",
        "PUT manifest vm:v1",
    ] {
        assert!(once.err.contains(line), "{line}: {said}", said = once.err);
    }
    assert!(!once.err.contains("DEBUG"), "{}", once.err);
    let twice = place.on("two", ["pull", "vm:v1", "-vv"]).succeeded();
    for line in [
        "GET manifest vm:v1 from",
        "GET list of files sha256:",
        "/v2/team/vm/manifests/v1: 200 after",
    ] {
        assert!(twice.err.contains(line), "{line}: {said}", said = twice.err);
    }
    let content = twice.err.lines().find(|line| line.contains("/ckpt/xxh3/"));
    assert!(content.unwrap().contains(": 206 after "), "{}", twice.err);
    let elsewhere = |line: &&str| !line.contains(" snapshotter::") && !line.is_empty();
    assert_eq!(twice.err.lines().find(elsewhere), None);
    let thrice = place
        .on("three", ["restore", "vm:v1", "out", "-vvv"])
        .succeeded();
    assert!(thrice.err.contains("TRACE"), "{}", thrice.err);
    assert!(
        thrice.err.lines().any(|line| elsewhere(&line)),
        "no library said anything"
    );
    for said in [once, twice, thrice] {
        assert_no_secret(&said.err);
        assert_no_secret(&said.out);
    }
}

/// A server that asked to be left alone for half a minute made the command look stuck. Waiting ends with the command's time.
#[test]
fn that_a_server_asks_to_wait_is_said_and_the_deadline_ends_it() {
    let registry = testkit::weather::Weather::new(|_, _| {
        testkit::weather::Reply::status(429).with("Retry-After", "3600")
    });
    let place = Place::new()
        .set("SNAPSHOTTER_REGISTRY_ENDPOINT", registry.url())
        .set("SNAPSHOTTER_REGISTRY_NAMESPACE", "team");
    let run = |more: &[&str]| {
        let asking = ["list", "--remote", "vm", "--timeout", "500ms"];
        place.run(asking.iter().chain(more)).exited(6).err
    };
    let says = "a server asked to wait 3600 s; retry 1 of 4 in 30.0 s: ";
    let said = run(&[]);
    assert!(said.starts_with(&format!("warning: {says}")), "{said}");
    assert_eq!(said.matches(says).count(), 1, "{said}");
    assert!(run(&["-v"]).contains(says));
    assert!(!run(&["-q"]).contains(says));
    let events = run(&["--progress", "json"]);
    let first = events.lines().next().unwrap();
    let event: serde_json::Value = serde_json::from_str(first).unwrap();
    assert!(
        event["fields"]["message"]
            .as_str()
            .unwrap()
            .starts_with(says)
    );
}

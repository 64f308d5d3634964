//! `limit_upload` and `limit_download`: transfers take their time, all of a handle's together.

use crate::support_a;

use std::time::{Duration, Instant};

use snapshotter::{
    Config, Content, ContentProvider, ErrorKind, PullRequest, PushRequest, Registry, Snapshotter,
};
use support_a::*;
use testkit::Tree;
use testkit::s3::S3;

const MIB: u64 = 1 << 20;

fn with_bucket(config: Config, place: &Place, s3: &S3) -> Config {
    let content = in_bucket(s3, s3.endpoint());
    let layouts = format!("oci-layout:{}", place.path("layouts").display());
    config
        .registry(Registry::new(layouts, "rates"))
        .content(content)
}

/// Two files of a MiB, taken and not published.
async fn taken(place: &Place, store: &Snapshotter) {
    let source = place.write(
        "source",
        &Tree::new()
            .file("a", random(1, MIB))
            .file("b", random(2, MIB)),
    );
    store
        .snapshot(&all("v1", &source).local(true))
        .await
        .unwrap();
}

/// Two files of a MiB at 2 MiB a second take a second at least, however many are sent at once. Nobody waits where there is no
/// limit, which no test can tell from a machine that is quick.
#[tokio::test]
async fn what_travels_has_the_rate_together() {
    let (here, there, shared, s3) = (Place::new(), Place::new(), Place::new(), S3::start("ckpt"));
    let slow = |config: Config| {
        config
            .limit_upload(Some(2 * MIB))
            .limit_download(Some(2 * MIB))
    };
    let taker = here
        .open_with(|config| slow(with_bucket(config, &shared, &s3)))
        .await;
    taken(&here, &taker).await;
    let started = Instant::now();
    let push = PushRequest::new(reference("test:v1"));
    assert_eq!(taker.push(&push).await.unwrap().publication.sent_blobs, 2);
    assert!(
        started.elapsed() >= Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    let node = there
        .open_with(|config| slow(with_bucket(config, &shared, &s3)))
        .await;
    let started = Instant::now();
    let pull = PullRequest::new(reference("test:v1"));
    assert_eq!(node.pull(&pull).await.unwrap().fetched_blobs, 2);
    assert!(
        started.elapsed() >= Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    assert_sound(&node).await;
}

/// A directory is no network: only its small files, and what was read back of it, went at the rate of one.
#[tokio::test]
async fn directories_have_no_rate() {
    let (here, there, shared) = (Place::new(), Place::new(), Place::new());
    let slow = |config: Config| {
        let mut content = Content::new(ContentProvider::Fs);
        content.root = shared.path("objects");
        let layouts = format!("oci-layout:{}", shared.path("layouts").display());
        config
            .registry(Registry::new(layouts, "rates"))
            .content(content)
            .limit_upload(Some(1024))
            .limit_download(Some(1024))
    };
    std::fs::create_dir(shared.path("objects")).unwrap();
    let taker = here.open_with(slow).await;
    let small = Tree::new().file("a", random(1, 300_000));
    let source = here.write("source", &small);
    let take = all("v1", &source).local(true);
    taker.snapshot(&take).await.unwrap();
    let node = there.open_with(slow).await;
    let travels = async {
        let push = PushRequest::new(reference("test:v1")).verify(true);
        taker.push(&push).await.unwrap();
        node.pull(&PullRequest::new(reference("test:v1")))
            .await
            .unwrap();
    };
    // At the rate it takes five minutes each way.
    let travelled = tokio::time::timeout(Duration::from_secs(60), travels).await;
    travelled.unwrap();
}

#[tokio::test]
async fn a_rate_that_moves_nothing_is_refused() {
    let place = Place::new();
    for limit in [0, 1023] {
        let config = Config::new(place.root()).limit_download(Some(limit));
        let error = Snapshotter::open(config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().starts_with("limit_download"), "{error}");
    }
}

/// Who waits for its turn can be given up.
#[tokio::test]
async fn a_call_that_waits_for_its_turn_can_be_dropped() {
    let (here, shared, s3) = (Place::new(), Place::new(), S3::start("ckpt"));
    let taker = here
        .open_with(|config| with_bucket(config, &shared, &s3).limit_upload(Some(1024)))
        .await;
    taken(&here, &taker).await;
    let push = PushRequest::new(reference("test:v1"));
    let pushed = tokio::time::timeout(Duration::from_millis(300), taker.push(&push)).await;
    assert!(pushed.is_err(), "a MiB at 1 KiB a second takes a while");
    taker.close().await.unwrap();
    let mut keys = s3.keys().into_iter();
    assert!(keys.all(|key| key.starts_with("snapshotter/")));
}

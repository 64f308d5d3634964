//! Whole snapshots through buckets as users meet them: what is published there comes back on another node.

use crate::support_a;

use snapshotter::{
    Content, ContentProvider, ErrorKind, PullRequest, PushRequest, Registry, RestoreRequest,
    Snapshotter,
};
use support_a::*;
use testkit::buckets;
use testkit::compare::assert_same;
use testkit::proxy::{Act, Asked, Weather};
use testkit::s3::{ACCESS_KEY, S3, SECRET_KEY};
use testkit::{Content as Bytes, Tree};

const MIB: u64 = 1 << 20;

/// A file of one part and one of several, of different bytes.
fn checkpoint() -> Tree {
    let extents = vec![(0, 1, 65536), (5 * MIB, 2, 19 * MIB)];
    let memory = Bytes::Sparse {
        size: 32 * MIB,
        extents,
    };
    Tree::new()
        .file("memory", memory)
        .file("state", random(3, 5000))
}

async fn node(own: &Place, shared: &Place, endpoint: String) -> Snapshotter {
    let mut content = Content::new(ContentProvider::S3);
    content.bucket = Some("ckpt".to_owned());
    content.endpoint = Some(endpoint);
    content.access_key_id = Some(ACCESS_KEY.to_owned());
    content.access_key_secret = Some(SECRET_KEY.to_owned());
    let layouts = format!("oci-layout:{}", shared.path("layouts").display());
    own.open_with(|config| {
        config
            .registry(Registry::new(layouts, "field"))
            .content(content)
    })
    .await
}

/// Publishes through one thing and restores through another.
async fn travels(
    server: &S3,
    there: impl Fn(&Asked) -> Act + Send + Sync + 'static,
    back: impl Fn(&Asked) -> Act + Send + Sync + 'static,
) {
    let (here, other, shared) = (Place::new(), Place::new(), Place::new());
    let there = Weather::before(server.address(), there);
    let back = Weather::before(server.address(), back);
    let source = here.write("source", &checkpoint());
    let taker = node(&here, &shared, there.endpoint()).await;
    let report = taker.snapshot(&all("v1", &source)).await.unwrap();
    assert_eq!(report.publication.unwrap().sent_blobs, 2);
    let node = node(&other, &shared, back.endpoint()).await;
    let output = other.path("out");
    node.restore(&RestoreRequest::new(reference("test:v1"), &output))
        .await
        .unwrap();
    assert_same(&source, &output);
    assert_sound(&node).await;
    assert_eq!(server.unfinished_uploads(), 0);
}

#[tokio::test]
async fn keys_that_may_not_list_publish_and_fetch() {
    let server = S3::start("ckpt");
    let (there, back) = (server.dir(), server.dir());
    travels(
        &server,
        buckets::without_listing(there),
        buckets::without_listing(back),
    )
    .await;
}

#[tokio::test]
async fn completions_that_fail_inside_a_200_and_bodies_that_are_short_are_not_noticed() {
    let server = S3::start("ckpt");
    let there = buckets::first(1, buckets::completes, buckets::error_inside_200());
    travels(&server, there, buckets::short_bodies(server.dir(), 3 << 20)).await;
}

#[tokio::test]
async fn a_bucket_with_object_lock_and_one_that_ignores_ranges_are_used() {
    let server = S3::start("ckpt");
    travels(
        &server,
        buckets::object_lock,
        buckets::without_ranges(server.dir()),
    )
    .await;
}

/// What is lost from the bucket is forbidden and not absent to who may not list: the error says so, and nothing is half here.
#[tokio::test]
async fn what_was_lost_is_an_error_that_names_the_permission() {
    let (here, other, shared, server) =
        (Place::new(), Place::new(), Place::new(), S3::start("ckpt"));
    let source = here.write("source", &checkpoint());
    let taker = node(&here, &shared, server.endpoint()).await;
    taker
        .snapshot(&all("v1", &source).local(true))
        .await
        .unwrap();
    taker
        .push(&PushRequest::new(reference("test:v1")))
        .await
        .unwrap();
    server.clear();
    let weather = Weather::before(server.address(), buckets::without_listing(server.dir()));
    let node = node(&other, &shared, weather.endpoint()).await;
    let error = node
        .pull(&PullRequest::new(reference("test:v1")))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    assert!(error.hint().unwrap().contains("may not list"), "{error:?}");
    assert!(node.list().await.unwrap().is_empty());
}

//! The suite against a real S3 protocol server, and how memory is shared there.

use std::sync::Arc;

use testkit::proxy::{Act, Asked, Weather};
use testkit::s3::{ACCESS_KEY, S3, SECRET_KEY};
use tokio::sync::mpsc;

use super::suite::{SENT, Stand, content, content_suite, fetch, publish, source, stream};
use crate::pace::Pace;
use crate::transport::object::{ObjectStorage, Tuning};
use crate::transport::parts::PART;
use crate::transport::{Content, ContentProvider, ContentTransport, Existing, Source, open};
use crate::words::digest::Digest;
use crate::words::object::Object;

/// What leads to the server with its own key.
pub(super) fn configuration(endpoint: &str, bucket: &str) -> Content {
    let mut content = Content::new(ContentProvider::S3);
    content.bucket = Some(bucket.to_owned());
    content.endpoint = Some(endpoint.to_owned());
    content.access_key_id = Some(ACCESS_KEY.to_owned());
    content.access_key_secret = Some(SECRET_KEY.to_owned());
    content
}

/// Tries again without waiting.
pub(super) fn quick(content: &Content) -> ObjectStorage {
    let tuning = Tuning {
        pace: Pace::QUICK,
        ..Tuning::default()
    };
    ObjectStorage::tuned(content, tuning).unwrap()
}

pub(super) fn behind(weather: &Weather) -> ObjectStorage {
    quick(&configuration(&weather.endpoint(), "ckpt"))
}

pub(super) fn server_behind(
    decide: impl Fn(&Asked) -> Act + Send + Sync + 'static,
) -> (S3, Weather) {
    let server = server();
    let weather = Weather::before(server.address(), decide);
    (server, weather)
}

fn server() -> S3 {
    S3::start("ckpt")
}

impl Stand for S3 {
    fn open(&self) -> Arc<dyn ContentTransport> {
        open(&configuration(&self.endpoint(), self.bucket())).unwrap()
    }

    fn put(&self, object: Object, bytes: &[u8]) {
        S3::put(self, &object.key(), bytes);
    }

    fn keys(&self) -> Vec<String> {
        S3::keys(self)
    }

    fn litter(&self) -> usize {
        self.unfinished_uploads()
    }
}

content_suite!(server());

#[tokio::test]
async fn objects_of_the_go_library_come_back_byte_for_byte() {
    super::golden(&server()).await;
}

#[tokio::test]
async fn the_place_is_named_as_in_the_url() {
    assert_eq!(server().open().place(), "s3://ckpt");
}

fn with_budget(server: &S3, budget: u32) -> ObjectStorage {
    let tuning = Tuning {
        budget,
        ..Tuning::default()
    };
    ObjectStorage::tuned(&configuration(&server.endpoint(), "ckpt"), tuning).unwrap()
}

#[tokio::test]
async fn memory_for_two_parts_is_enough_for_any_number_of_uploads_and_downloads() {
    let server = server();
    let transport = Arc::new(with_budget(&server, 2 * PART as u32));
    let tasks: Vec<_> = (0..6_u64)
        .map(|seed| {
            let transport = Arc::clone(&transport);
            tokio::spawn(async move {
                let (object, bytes) = content(seed, 3 * PART + seed);
                let sent = publish(&*transport, object, &bytes, Existing::Keep).await;
                assert_eq!(sent.unwrap(), SENT);
                let back = fetch(&*transport, object, None, u64::MAX).await.unwrap();
                assert!(back == bytes);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(transport.budget().is_whole(), "memory was not given back");
}

#[tokio::test]
async fn a_large_upload_leaves_memory_for_small_ones() {
    let server = server();
    let transport = with_budget(&server, crate::transport::budget::DEFAULT);
    let (large, _) = content(1, 10);
    let (source, begun) = Source::stream(9 * PART);
    let mut waiting = transport.publish(large, Existing::Replace, source);
    let poll = std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx)));
    assert!(poll.await.is_pending(), "it has no bytes yet");
    assert!(!transport.budget().is_whole());
    let (object, bytes) = content(2, PART);
    publish(&transport, object, &bytes, Existing::Keep)
        .await
        .unwrap();
    let back = fetch(&transport, object, None, PART).await.unwrap();
    assert!(back == bytes);
    drop((waiting, begun));
}

#[test]
fn a_runtime_that_shuts_down_in_mid_upload_just_does() {
    let server = server();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let transport = server.open();
    let (source, mut begun) = Source::stream(9 * PART);
    let half = content(1, 2 * PART).1;
    runtime.spawn(async move {
        let object = stream(Digest::from_u64(1), 9 * PART);
        transport.publish(object, Existing::Replace, source).await
    });
    runtime.block_on(async {
        let sender = begun.recv().await.unwrap();
        for piece in half.chunks(1 << 20) {
            sender.send(Ok(piece.to_vec().into())).await.unwrap();
        }
    });
    drop(runtime);
    assert!(server.keys().is_empty());
}

#[tokio::test]
async fn a_part_larger_than_the_whole_budget_still_goes_through() {
    let server = server();
    let transport = with_budget(&server, 1 << 20);
    let (object, bytes) = content(1, 2 * PART + 1);
    publish(&transport, object, &bytes, Existing::Keep)
        .await
        .unwrap();
    assert!(fetch(&transport, object, None, u64::MAX).await.unwrap() == bytes);
    assert!(transport.budget().is_whole());
}

#[tokio::test]
async fn fetched_bytes_count_until_they_are_dropped() {
    let server = server();
    let transport = with_budget(&server, 48 << 20);
    let (object, bytes) = content(1, 1000);
    server.put(&object.key(), &bytes);
    let (sender, mut receiver) = mpsc::channel(8);
    transport.fetch(object, None, sender).await.unwrap();
    let bytes = receiver.recv().await.unwrap();
    assert!(!transport.budget().is_whole());
    drop(bytes);
    while receiver.recv().await.is_some() {}
    assert!(transport.budget().is_whole());
}

#[tokio::test]
async fn memory_comes_back_from_uploads_that_failed_or_were_dropped() {
    let server = server();
    let transport = with_budget(&server, 48 << 20);
    let (object, bytes) = content(1, 3 * PART);
    let short = transport.publish(object, Existing::Keep, source(&bytes, 4 * PART, None));
    short.await.unwrap_err();
    // What was under way is dropped by other tasks: all of the budget is there in the end.
    drop(transport.budget().take(u64::MAX).await);
    let (source, _begun) = Source::stream(4 * PART);
    let mut dropped = transport.publish(object, Existing::Keep, source);
    let poll = std::future::poll_fn(|cx| std::task::Poll::Ready(dropped.as_mut().poll(cx)));
    assert!(poll.await.is_pending());
    drop(dropped);
    drop(transport.budget().take(u64::MAX).await);
}

#[tokio::test]
async fn an_altered_object_is_fetched_as_it_is() {
    let server = server();
    let (object, bytes) = content(1, 1000);
    let mut altered = bytes.to_vec();
    altered[500] ^= 1;
    server.put(&object.key(), &altered);
    // Whoever receives it hashes it: that is the contract, and the place where damage is found.
    assert!(fetch(&*server.open(), object, None, 1000).await.unwrap() == altered);
}

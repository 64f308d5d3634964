//! The suite against a real S3 protocol server, and how memory is shared there.

use testkit::s3::{ACCESS_KEY, S3, SECRET_KEY};
use tokio::sync::mpsc;

use super::suite::{Stand, content, content_suite, fetch, publish, source};
use crate::transport::object::{ObjectStorage, Tuning};
use crate::transport::parts::PART;
use crate::transport::{
    Content, ContentProvider, ContentTransport, Existing, Published, key, open,
};
use crate::words::digest::Digest;

/// What leads to the server with its own key.
pub(super) fn configuration(endpoint: &str, bucket: &str) -> Content {
    let mut content = Content::new(ContentProvider::S3);
    content.bucket = Some(bucket.to_owned());
    content.endpoint = Some(endpoint.to_owned());
    content.access_key_id = Some(ACCESS_KEY.to_owned());
    content.access_key_secret = Some(SECRET_KEY.to_owned());
    content
}

fn server() -> S3 {
    S3::start("ckpt")
}

impl Stand for S3 {
    fn open(&self) -> Box<dyn ContentTransport> {
        open(&configuration(&self.endpoint(), self.bucket())).unwrap()
    }

    fn put(&self, digest: Digest, bytes: &[u8]) {
        S3::put(self, &key(digest), bytes);
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
    let transport = std::sync::Arc::new(with_budget(&server, 2 * PART as u32));
    let tasks: Vec<_> = (0..6_u64)
        .map(|seed| {
            let transport = std::sync::Arc::clone(&transport);
            tokio::spawn(async move {
                let (digest, bytes) = content(seed, 3 * PART + seed);
                let sent = publish(&*transport, digest, &bytes, Existing::Keep).await;
                assert_eq!(sent.unwrap(), Published::Sent);
                let back = fetch(&*transport, digest, None, u64::MAX).await.unwrap();
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
    let (sender, receiver) = mpsc::channel(1);
    let mut waiting = transport.publish(large, 9 * PART, Existing::Replace, receiver);
    let poll = std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx)));
    assert!(poll.await.is_pending(), "it has no bytes yet");
    assert!(!transport.budget().is_whole());
    let (digest, bytes) = content(2, PART);
    publish(&transport, digest, &bytes, Existing::Keep)
        .await
        .unwrap();
    let back = fetch(&transport, digest, None, PART).await.unwrap();
    assert!(back == bytes);
    drop((waiting, sender));
}

#[test]
fn a_runtime_that_shuts_down_in_mid_upload_just_does() {
    let server = server();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let transport = server.open();
    let (sender, receiver) = mpsc::channel(1);
    let half = content(1, 2 * PART).1;
    runtime.spawn(async move {
        let digest = Digest::from_u64(1);
        let sent = transport.publish(digest, 9 * PART, Existing::Replace, receiver);
        sent.await
    });
    runtime.block_on(async {
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
    let (digest, bytes) = content(1, 2 * PART + 1);
    publish(&transport, digest, &bytes, Existing::Keep)
        .await
        .unwrap();
    assert!(fetch(&transport, digest, None, u64::MAX).await.unwrap() == bytes);
    assert!(transport.budget().is_whole());
}

#[tokio::test]
async fn fetched_bytes_count_until_they_are_dropped() {
    let server = server();
    let transport = with_budget(&server, 48 << 20);
    let (digest, bytes) = content(1, 1000);
    server.put(&key(digest), &bytes);
    let (sender, mut receiver) = mpsc::channel(8);
    transport.fetch(digest, None, 1000, sender).await.unwrap();
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
    let (digest, bytes) = content(1, 3 * PART);
    let short = transport.publish(digest, 4 * PART, Existing::Keep, source(&bytes, None));
    short.await.unwrap_err();
    // What was under way is dropped by other tasks: all of the budget is there in the end.
    drop(transport.budget().take(u64::MAX).await);
    let (_sender, receiver) = mpsc::channel(1);
    let mut dropped = transport.publish(digest, 4 * PART, Existing::Keep, receiver);
    let poll = std::future::poll_fn(|cx| std::task::Poll::Ready(dropped.as_mut().poll(cx)));
    assert!(poll.await.is_pending());
    drop(dropped);
    drop(transport.budget().take(u64::MAX).await);
}

#[tokio::test]
async fn an_altered_object_is_fetched_as_it_is() {
    let server = server();
    let (digest, bytes) = content(1, 1000);
    let mut altered = bytes.to_vec();
    altered[500] ^= 1;
    server.put(&key(digest), &altered);
    // Whoever receives it hashes it: that is the contract, and the place where damage is found.
    assert!(fetch(&*server.open(), digest, None, 1000).await.unwrap() == altered);
}

//! The contract as tests: the same for every implementation.
//!
//! An implementation brings a [`Stand`] and says `content_suite!(its_stand)`.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::transport::parts::PART;
use crate::transport::{ContentTransport, Existing, Published};
use crate::words::digest::Digest;
use crate::words::error::{Error, ErrorKind, Result};

/// A place to test against, and a look behind the transport's back.
pub(super) trait Stand {
    fn open(&self) -> Box<dyn ContentTransport>;
    /// Puts an object there, whatever its digest really is.
    fn put(&self, digest: Digest, bytes: &[u8]);
    /// The names of the objects that are visible.
    fn keys(&self) -> Vec<String>;
    /// How many unfinished uploads are left behind.
    fn litter(&self) -> usize;
}

/// One test a promise.
macro_rules! content_suite {
    ($stand:expr) => {
        content_suite!($stand;
            streams_of_all_lengths_come_back_as_they_were,
            what_is_there_is_not_sent_again,
            an_object_of_another_size_is_an_error_until_it_is_replaced,
            a_source_that_ends_early_leaves_nothing,
            a_source_that_brings_too_much_leaves_nothing,
            an_error_in_the_middle_leaves_nothing_and_comes_back,
            an_error_after_the_last_byte_leaves_nothing,
            a_dropped_future_leaves_nothing,
            a_failed_replacement_leaves_what_was_there,
            ranges_come_alone,
            what_is_absent_is_not_found,
            more_than_the_limit_is_refused,
            a_receiver_that_leaves_ends_the_call,
            many_at_once_share_the_memory_and_finish,
            the_check_passes_and_changes_nothing,
        );
    };
    ($stand:expr; $($case:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let stand = $stand;
                crate::transport::tests::suite::$case(&stand).await;
            }
        )*
    };
}
pub(super) use content_suite;

const PIECE: usize = 1 << 20;

/// Bytes that are the same for one seed, and their digest.
pub(super) fn content(seed: u64, len: u64) -> (Digest, Bytes) {
    let bytes = Bytes::from(testkit::prng::random_bytes(seed, len as usize));
    (Digest::of(&bytes), bytes)
}

/// A source of `bytes`, in pieces, then perhaps an error.
pub(super) fn source(bytes: &Bytes, last: Option<Error>) -> mpsc::Receiver<Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(2);
    let mut bytes = bytes.clone();
    tokio::spawn(async move {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            if sender.send(Ok(piece)).await.is_err() {
                return;
            }
        }
        if let Some(error) = last {
            let _ = sender.send(Err(error)).await;
        }
    });
    receiver
}

pub(super) async fn publish(
    transport: &dyn ContentTransport,
    digest: Digest,
    bytes: &Bytes,
    existing: Existing,
) -> Result<Published> {
    let pieces = source(bytes, None);
    let size = bytes.len() as u64;
    transport.publish(digest, size, existing, pieces).await
}

pub(super) async fn fetch(
    transport: &dyn ContentTransport,
    digest: Digest,
    range: Option<Range<u64>>,
    limit: u64,
) -> Result<Vec<u8>> {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(1);
    let consumer = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Some(bytes) = receiver.recv().await {
            all.extend_from_slice(&bytes);
        }
        all
    });
    let said = transport.fetch(digest, range, limit, sender).await;
    let all = consumer.await.unwrap();
    assert!(all.len() as u64 <= limit, "more than the limit came");
    let said = said?;
    assert_eq!(said, all.len() as u64);
    Ok(all)
}

/// Uploads are also cleaned up in the background: soon, but when is nobody's promise.
async fn assert_nothing_left(stand: &impl Stand, keys: &[String]) {
    assert_eq!(stand.keys(), keys);
    for _ in 0..3000 {
        if stand.litter() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} unfinished uploads stay behind", stand.litter());
}

pub(super) async fn streams_of_all_lengths_come_back_as_they_were(stand: &impl Stand) {
    let transport = stand.open();
    let lengths = [0, 20, PIECE as u64, PART, PART + 1, 3 * PART + 12_345];
    for (seed, len) in lengths.into_iter().enumerate() {
        let (digest, bytes) = content(seed as u64, len);
        let sent = publish(&*transport, digest, &bytes, Existing::Keep).await;
        assert_eq!(sent.unwrap(), Published::Sent, "{len}");
        assert_eq!(transport.size(digest).await.unwrap(), Some(len));
        let back = fetch(&*transport, digest, None, len).await.unwrap();
        assert!(back == bytes, "{len} bytes came back as others");
        assert!(stand.keys().contains(&format!("xxh3/{}", digest.hex())));
    }
    assert_eq!(stand.keys().len(), lengths.len());
    assert_eq!(stand.litter(), 0);
}

pub(super) async fn what_is_there_is_not_sent_again(stand: &impl Stand) {
    let transport = stand.open();
    let (digest, bytes) = content(1, 50_000);
    publish(&*transport, digest, &bytes, Existing::Keep)
        .await
        .unwrap();
    let (sender, receiver) = mpsc::channel(1);
    let again = transport.publish(digest, 50_000, Existing::Keep, receiver);
    assert_eq!(again.await.unwrap(), Published::Already);
    assert!(sender.is_closed(), "the source is still wanted");
}

pub(super) async fn an_object_of_another_size_is_an_error_until_it_is_replaced(stand: &impl Stand) {
    let transport = stand.open();
    let (digest, bytes) = content(2, 9 << 20);
    stand.put(digest, b"half an object");
    let error = publish(&*transport, digest, &bytes, Existing::Keep)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let text = error.to_string();
    assert!(
        text.contains("with 14 bytes") && text.contains("9437184"),
        "{text}"
    );
    assert!(
        text.contains(&digest.to_string()) && text.contains(&transport.place()),
        "{text}"
    );
    assert_eq!(transport.size(digest).await.unwrap(), Some(14));
    let replaced = publish(&*transport, digest, &bytes, Existing::Replace).await;
    assert_eq!(replaced.unwrap(), Published::Sent);
    assert!(fetch(&*transport, digest, None, 9 << 20).await.unwrap() == bytes);
    assert_nothing_left(stand, &[format!("xxh3/{}", digest.hex())]).await;
}

async fn assert_not_published(
    stand: &impl Stand,
    bytes: &Bytes,
    size: u64,
    last: Option<Error>,
) -> Error {
    let transport = stand.open();
    let digest = Digest::of(bytes);
    let pieces = source(bytes, last);
    let result = transport
        .publish(digest, size, Existing::Keep, pieces)
        .await;
    assert_eq!(transport.size(digest).await.unwrap(), None);
    assert_nothing_left(stand, &[]).await;
    result.unwrap_err()
}

pub(super) async fn a_source_that_ends_early_leaves_nothing(stand: &impl Stand) {
    for len in [0, 19, PART + 5, 3 * PART] {
        let (_, bytes) = content(3, len);
        let error = assert_not_published(stand, &bytes, len + 1, None).await;
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(
            error.to_string().ends_with("ended 1 bytes early"),
            "{error}"
        );
    }
}

pub(super) async fn a_source_that_brings_too_much_leaves_nothing(stand: &impl Stand) {
    for len in [20, PART + 1, 2 * PART + 1] {
        let (_, bytes) = content(4, len);
        let error = assert_not_published(stand, &bytes, len - 1, None).await;
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(
            error
                .to_string()
                .contains("more than the bytes it announced"),
            "{error}"
        );
    }
}

pub(super) async fn an_error_in_the_middle_leaves_nothing_and_comes_back(stand: &impl Stand) {
    for len in [10, 2 * PART + 1] {
        let (_, bytes) = content(5, len);
        let own = Error::damaged("the blob is damaged");
        let error = assert_not_published(stand, &bytes, len + PART, Some(own)).await;
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert_eq!(error.to_string(), "the blob is damaged");
    }
}

pub(super) async fn an_error_after_the_last_byte_leaves_nothing(stand: &impl Stand) {
    for len in [10, 2 * PART] {
        let (_, bytes) = content(6, len);
        let own = Error::damaged("the file has changed");
        let error = assert_not_published(stand, &bytes, len, Some(own)).await;
        assert_eq!(error.to_string(), "the file has changed");
    }
}

pub(super) async fn a_dropped_future_leaves_nothing(stand: &impl Stand) {
    // Half of the larger one is three parts: by then a multipart upload has begun.
    for len in [2000, 6 * PART] {
        let transport = stand.open();
        let (digest, bytes) = content(7, len);
        let (sender, receiver) = mpsc::channel(1);
        let publishing = tokio::spawn(async move {
            let sent = transport.publish(digest, len, Existing::Keep, receiver);
            sent.await
        });
        let half = bytes.slice(..(len as usize) / 2);
        for piece in half.chunks(PIECE) {
            sender
                .send(Ok(Bytes::copy_from_slice(piece)))
                .await
                .unwrap();
        }
        publishing.abort();
        assert!(publishing.await.unwrap_err().is_cancelled());
        assert_eq!(stand.open().size(digest).await.unwrap(), None);
        assert_nothing_left(stand, &[]).await;
    }
}

pub(super) async fn a_failed_replacement_leaves_what_was_there(stand: &impl Stand) {
    let transport = stand.open();
    let (digest, bytes) = content(8, 2 * PART);
    stand.put(digest, b"what was there");
    let pieces = source(&bytes, Some(Error::damaged("no")));
    let size = bytes.len() as u64;
    let failed = transport
        .publish(digest, size, Existing::Replace, pieces)
        .await;
    assert_eq!(failed.unwrap_err().to_string(), "no");
    assert_eq!(
        fetch(&*transport, digest, None, 14).await.unwrap(),
        b"what was there"
    );
}

pub(super) async fn ranges_come_alone(stand: &impl Stand) {
    let transport = stand.open();
    let len = 2 * PART + 100;
    let (digest, bytes) = content(9, len);
    stand.put(digest, &bytes);
    let ranges = [
        0..1,
        0..len,
        5..5,
        len - 1..len,
        PART - 1..PART + 1,
        3..2 * PART + 50,
    ];
    for range in ranges {
        let part = fetch(&*transport, digest, Some(range.clone()), len)
            .await
            .unwrap();
        let wanted = bytes.slice(range.start as usize..range.end as usize);
        assert!(part == wanted, "{range:?} came as something else");
    }
    for range in [len - 1..len + 1, len..len + 1, len + 5..len + 6, 0..len + 1] {
        let error = fetch(&*transport, digest, Some(range.clone()), u64::MAX)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{range:?}: {error}");
        assert!(
            error.to_string().contains(&format!("has {len} bytes")),
            "{error}"
        );
    }
}

pub(super) async fn what_is_absent_is_not_found(stand: &impl Stand) {
    let transport = stand.open();
    let digest = Digest::from_u64(0xabc);
    assert_eq!(transport.size(digest).await.unwrap(), None);
    for range in [None, Some(0..5), Some(7..7)] {
        let error = fetch(&*transport, digest, range, 100).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains("abc"), "{error}");
    }
}

pub(super) async fn more_than_the_limit_is_refused(stand: &impl Stand) {
    let transport = stand.open();
    for len in [20, PART, PART + 20, 3 * PART] {
        let (digest, bytes) = content(10, len);
        stand.put(digest, &bytes);
        for limit in [0, 1, len - 1] {
            let error = fetch(&*transport, digest, None, limit).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged);
            let rule = format!("has {len} bytes; at most {limit} were expected");
            assert!(error.to_string().ends_with(&rule), "{error}");
        }
        assert!(fetch(&*transport, digest, Some(2..10), 7).await.is_err());
        assert!(fetch(&*transport, digest, Some(2..10), 8).await.is_ok());
    }
}

pub(super) async fn a_receiver_that_leaves_ends_the_call(stand: &impl Stand) {
    let transport = stand.open();
    let (digest, bytes) = content(11, 3 * PART);
    stand.put(digest, &bytes);
    let (sender, mut receiver) = mpsc::channel(1);
    let leaving = tokio::spawn(async move { receiver.recv().await.is_some() });
    let result = transport.fetch(digest, None, u64::MAX, sender).await;
    assert!(leaving.await.unwrap());
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Cancelled);
}

pub(super) async fn many_at_once_share_the_memory_and_finish(stand: &impl Stand) {
    let transport: std::sync::Arc<dyn ContentTransport> = stand.open().into();
    let tasks: Vec<_> = (0..32_u64)
        .map(|seed| {
            let transport = std::sync::Arc::clone(&transport);
            let len = if seed % 4 == 0 {
                2 * PART + seed
            } else {
                1000 * seed
            };
            tokio::spawn(async move {
                let (digest, bytes) = content(100 + seed, len);
                let sent = publish(&*transport, digest, &bytes, Existing::Keep).await;
                assert_eq!(sent.unwrap(), Published::Sent);
                let back = fetch(&*transport, digest, None, len).await.unwrap();
                assert!(back == bytes, "{len} bytes came back as others");
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(stand.keys().len(), 32);
    assert_eq!(stand.litter(), 0);
}

pub(super) async fn the_check_passes_and_changes_nothing(stand: &impl Stand) {
    stand.open().check().await.unwrap();
    assert_nothing_left(stand, &[]).await;
}

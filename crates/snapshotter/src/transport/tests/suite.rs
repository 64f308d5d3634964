//! The contract as tests: the same for every implementation.
//!
//! An implementation brings a [`Stand`] and says `content_suite!(its_stand)`. Half of what is sent there are streams, which
//! have their XXH3-64 for a name, the other half packs, which have their id.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::transport::parts::PART;
use crate::transport::{ContentTransport, Existing, Presence, Published, Source};
use crate::words::digest::{Checksum, Digest, Sha256};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::object::{Object, ObjectId, ObjectKind, ObjectName};

/// A place to test against, and a look behind the transport's back.
pub(crate) trait Stand {
    fn open(&self) -> Arc<dyn ContentTransport>;
    /// Puts an object there, whatever its bytes should be.
    fn put(&self, object: Object, bytes: &[u8]);
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
            several_ranges_come_one_after_the_other,
            a_range_of_a_file_is_a_source,
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
pub(crate) use content_suite;

const PIECE: usize = 1 << 20;

/// What an implementation without names of its own says.
pub(crate) const SENT: Published = Published {
    sent: true,
    sha256: None,
};
pub(crate) const ALREADY: Published = Published {
    sent: false,
    sha256: None,
};

/// Bytes that are the same for one seed, and the object that they are: a stream for an even one, a pack for an odd one.
pub(crate) fn content(seed: u64, len: u64) -> (Object, Bytes) {
    let bytes = Bytes::from(testkit::prng::random_bytes(seed, len as usize));
    let object = match seed % 2 {
        0 => stream(Digest::of(&bytes), len),
        _ => pack(*Checksum::of(&bytes).as_bytes(), len),
    };
    (object, bytes)
}

pub(crate) fn stream(digest: Digest, most: u64) -> Object {
    Object::stream(digest, None, most)
}

pub(crate) fn pack(hash: [u8; 32], most: u64) -> Object {
    let kind = ObjectKind::Pack;
    let id = ObjectId { kind, hash };
    Object {
        name: ObjectName::Id(id),
        id: Some(id),
        most,
    }
}

/// A source of so many bytes that brings these, in pieces, then perhaps an error.
pub(crate) fn source(bytes: &Bytes, size: u64, last: Option<&'static str>) -> Source {
    let (source, mut begun) = Source::stream(size);
    let bytes = bytes.clone();
    tokio::spawn(async move {
        'begun: while let Some(sink) = begun.recv().await {
            let mut left = bytes.clone();
            while !left.is_empty() {
                let piece = left.split_to(left.len().min(PIECE));
                if sink.send(Ok(piece)).await.is_err() {
                    continue 'begun;
                }
            }
            if let Some(text) = last {
                let _ = sink.send(Err(Error::damaged(text))).await;
            }
        }
    });
    source
}

/// Sends it. A name that the place gives it is its SHA-256, and left out of the answer.
pub(crate) async fn publish(
    transport: &dyn ContentTransport,
    object: Object,
    bytes: &Bytes,
    existing: Existing,
) -> Result<Published> {
    let source = source(bytes, bytes.len() as u64, None);
    let published = transport.publish(object, existing, source).await?;
    if let Some(sha256) = published.sha256 {
        assert_eq!(sha256, Sha256::of(bytes));
    }
    let sha256 = None;
    Ok(Published {
        sha256,
        ..published
    })
}

pub(crate) async fn fetch(
    transport: &dyn ContentTransport,
    object: Object,
    range: Option<Range<u64>>,
    most: u64,
) -> Result<Vec<u8>> {
    fetch_ranges(transport, object, range.map(|range| vec![range]), most).await
}

async fn fetch_ranges(
    transport: &dyn ContentTransport,
    object: Object,
    ranges: Option<Vec<Range<u64>>>,
    most: u64,
) -> Result<Vec<u8>> {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(1);
    let consumer = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Some(bytes) = receiver.recv().await {
            all.extend_from_slice(&bytes);
        }
        all
    });
    let object = Object { most, ..object };
    let said = transport.fetch(object, ranges, sender).await;
    let all = consumer.await.unwrap();
    assert!(all.len() as u64 <= most, "more than there may be came");
    let said = said?;
    assert_eq!(said, all.len() as u64);
    Ok(all)
}

/// Whether there is none, as far as the place can tell.
async fn is_absent(transport: &dyn ContentTransport, object: Object) -> bool {
    !matches!(transport.size(object).await.unwrap(), Presence::Size(_))
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

pub(crate) async fn streams_of_all_lengths_come_back_as_they_were(stand: &impl Stand) {
    let transport = stand.open();
    let lengths = [0, 20, PIECE as u64, PART, PART + 1, 3 * PART + 12_345];
    for (seed, len) in lengths.into_iter().enumerate() {
        let (object, bytes) = content(seed as u64, len);
        let sent = publish(&*transport, object, &bytes, Existing::Keep).await;
        assert_eq!(sent.unwrap(), SENT, "{len}");
        let found = transport.size(object).await.unwrap();
        assert_eq!(found, Presence::Size(len));
        let back = fetch(&*transport, object, None, len).await.unwrap();
        assert!(back == bytes, "{len} bytes came back as others");
        assert!(stand.keys().contains(&object.key()));
    }
    assert_eq!(stand.keys().len(), lengths.len());
    assert_eq!(stand.litter(), 0);
}

pub(crate) async fn what_is_there_is_not_sent_again(stand: &impl Stand) {
    let transport = stand.open();
    let (object, bytes) = content(1, 50_000);
    publish(&*transport, object, &bytes, Existing::Keep)
        .await
        .unwrap();
    let (source, mut begun) = Source::stream(50_000);
    let again = transport.publish(object, Existing::Keep, source);
    assert!(!again.await.unwrap().sent);
    assert!(begun.recv().await.is_none(), "the source was begun");
}

pub(crate) async fn an_object_of_another_size_is_an_error_until_it_is_replaced(stand: &impl Stand) {
    let transport = stand.open();
    let (object, bytes) = content(2, 9 << 20);
    stand.put(object, b"half an object");
    let error = publish(&*transport, object, &bytes, Existing::Keep)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let text = error.to_string();
    assert!(
        text.contains("with 14 bytes") && text.contains("9437184"),
        "{text}"
    );
    assert!(
        text.contains(&object.to_string()) && text.contains(&transport.place()),
        "{text}"
    );
    let found = transport.size(object).await.unwrap();
    assert_eq!(found, Presence::Size(14));
    let replaced = publish(&*transport, object, &bytes, Existing::Replace).await;
    assert_eq!(replaced.unwrap(), SENT);
    assert!(fetch(&*transport, object, None, 9 << 20).await.unwrap() == bytes);
    assert_nothing_left(stand, &[object.key()]).await;
}

async fn assert_not_published(
    stand: &impl Stand,
    bytes: &Bytes,
    size: u64,
    last: Option<&'static str>,
) -> Error {
    let transport = stand.open();
    let object = stream(Digest::of(bytes), size);
    let source = source(bytes, size, last);
    let result = transport.publish(object, Existing::Keep, source).await;
    assert!(is_absent(&*transport, object).await);
    assert_nothing_left(stand, &[]).await;
    result.unwrap_err()
}

pub(crate) async fn a_source_that_ends_early_leaves_nothing(stand: &impl Stand) {
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

pub(crate) async fn a_source_that_brings_too_much_leaves_nothing(stand: &impl Stand) {
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

pub(crate) async fn an_error_in_the_middle_leaves_nothing_and_comes_back(stand: &impl Stand) {
    for len in [10, 2 * PART + 1] {
        let (_, bytes) = content(5, len);
        let own = "the blob is damaged";
        let error = assert_not_published(stand, &bytes, len + PART, Some(own)).await;
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert_eq!(error.to_string(), "the blob is damaged");
    }
}

pub(crate) async fn an_error_after_the_last_byte_leaves_nothing(stand: &impl Stand) {
    for len in [10, 2 * PART] {
        let (_, bytes) = content(6, len);
        let own = "the file has changed";
        let error = assert_not_published(stand, &bytes, len, Some(own)).await;
        assert_eq!(error.to_string(), "the file has changed");
    }
}

pub(crate) async fn a_dropped_future_leaves_nothing(stand: &impl Stand) {
    // Half of the larger one is three parts: by then a multipart upload has begun.
    for len in [2000, 6 * PART] {
        let transport = stand.open();
        let (object, bytes) = content(7, len);
        let (source, mut begun) = Source::stream(len);
        let publishing =
            tokio::spawn(async move { transport.publish(object, Existing::Keep, source).await });
        let sender = begun.recv().await.unwrap();
        let half = bytes.slice(..(len as usize) / 2);
        for piece in half.chunks(PIECE) {
            sender
                .send(Ok(Bytes::copy_from_slice(piece)))
                .await
                .unwrap();
        }
        publishing.abort();
        assert!(publishing.await.unwrap_err().is_cancelled());
        assert!(is_absent(&*stand.open(), object).await);
        assert_nothing_left(stand, &[]).await;
    }
}

pub(crate) async fn a_failed_replacement_leaves_what_was_there(stand: &impl Stand) {
    let transport = stand.open();
    let (object, bytes) = content(8, 2 * PART);
    stand.put(object, b"what was there");
    let source = source(&bytes, bytes.len() as u64, Some("no"));
    let failed = transport.publish(object, Existing::Replace, source).await;
    assert_eq!(failed.unwrap_err().to_string(), "no");
    assert_eq!(
        fetch(&*transport, object, None, 14).await.unwrap(),
        b"what was there"
    );
}

pub(crate) async fn ranges_come_alone(stand: &impl Stand) {
    let transport = stand.open();
    let len = 2 * PART + 100;
    let (object, bytes) = content(9, len);
    stand.put(object, &bytes);
    let ranges = [
        0..1,
        0..len,
        5..5,
        len - 1..len,
        PART - 1..PART + 1,
        3..2 * PART + 50,
    ];
    for range in ranges {
        let part = fetch(&*transport, object, Some(range.clone()), len)
            .await
            .unwrap();
        let wanted = bytes.slice(range.start as usize..range.end as usize);
        assert!(part == wanted, "{range:?} came as something else");
    }
    for range in [len - 1..len + 1, len..len + 1, len + 5..len + 6, 0..len + 1] {
        let error = fetch(&*transport, object, Some(range.clone()), u64::MAX)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{range:?}: {error}");
        assert!(
            error.to_string().contains(&format!("has {len} bytes")),
            "{error}"
        );
    }
}

pub(crate) async fn several_ranges_come_one_after_the_other(stand: &impl Stand) {
    let transport = stand.open();
    let len = 2 * PART + 100;
    for seed in [12, 13] {
        let (object, bytes) = content(seed, len);
        stand.put(object, &bytes);
        let apart = [5..9, 9..20, PART - 1..PART + 7, 3..3, 0..2];
        let touching: Vec<_> = (0..len / PART).map(|i| i * PART..(i + 1) * PART).collect();
        for ranges in [apart.to_vec(), touching, vec![3..3, 7..7], Vec::new()] {
            let of = |range: &Range<u64>| bytes.slice(range.start as usize..range.end as usize);
            let wanted: Vec<u8> = ranges.iter().flat_map(of).collect();
            let all = fetch_ranges(&*transport, object, Some(ranges.clone()), len).await;
            assert!(all.unwrap() == wanted, "{ranges:?} came as something else");
        }
        let beyond = vec![0..5, len - 1..len + 1];
        let error = fetch_ranges(&*transport, object, Some(beyond), u64::MAX).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Damaged);
    }
}

pub(crate) async fn a_range_of_a_file_is_a_source(stand: &impl Stand) {
    let transport = stand.open();
    for (seed, len) in [(14, 20), (15, PART + 5)] {
        let (object, bytes) = content(seed, len);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, [b"before", &bytes[..], b"after"].concat()).unwrap();
        let file = || std::fs::File::open(&path).unwrap();
        let source = Source::file(file(), path.clone(), 6..6 + len);
        let sent = transport.publish(object, Existing::Keep, source).await;
        assert!(sent.unwrap().sent);
        assert!(fetch(&*transport, object, None, len).await.unwrap() == bytes);
        let (longer, _) = content(seed + 2, len);
        let source = Source::file(file(), path.clone(), 6..len + 12);
        transport
            .publish(longer, Existing::Keep, source)
            .await
            .unwrap_err();
        assert!(is_absent(&*transport, longer).await);
    }
}

pub(crate) async fn what_is_absent_is_not_found(stand: &impl Stand) {
    let transport = stand.open();
    for object in [stream(Digest::from_u64(0xabc), 9), pack([0xab; 32], 9)] {
        assert!(is_absent(&*transport, object).await);
        for range in [None, Some(0..5), Some(7..7)] {
            let error = fetch(&*transport, object, range, 100).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            assert!(error.to_string().contains(&object.to_string()), "{error}");
        }
    }
}

pub(crate) async fn more_than_the_limit_is_refused(stand: &impl Stand) {
    let transport = stand.open();
    for len in [20, PART, PART + 20, 3 * PART] {
        let (object, bytes) = content(10, len);
        stand.put(object, &bytes);
        for limit in [0, 1, len - 1] {
            let error = fetch(&*transport, object, None, limit).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged);
            let rule = format!("has {len} bytes; at most {limit} were expected");
            assert!(error.to_string().ends_with(&rule), "{error}");
        }
        let part = fetch(&*transport, object, Some(2..10), len).await;
        assert!(part.unwrap() == bytes[2..10]);
    }
}

pub(crate) async fn a_receiver_that_leaves_ends_the_call(stand: &impl Stand) {
    let transport = stand.open();
    let (object, bytes) = content(11, 3 * PART);
    stand.put(object, &bytes);
    let (sender, mut receiver) = mpsc::channel(1);
    let leaving = tokio::spawn(async move { receiver.recv().await.is_some() });
    let result = transport.fetch(object, None, sender).await;
    assert!(leaving.await.unwrap());
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Cancelled);
}

pub(crate) async fn many_at_once_share_the_memory_and_finish(stand: &impl Stand) {
    let transport = stand.open();
    let tasks: Vec<_> = (0..32_u64)
        .map(|seed| {
            let transport = Arc::clone(&transport);
            let len = if seed % 4 == 0 {
                2 * PART + seed
            } else {
                1000 * seed
            };
            tokio::spawn(async move {
                let (object, bytes) = content(100 + seed, len);
                let sent = publish(&*transport, object, &bytes, Existing::Keep).await;
                assert_eq!(sent.unwrap(), SENT);
                let back = fetch(&*transport, object, None, len).await.unwrap();
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

pub(crate) async fn the_check_passes_and_changes_nothing(stand: &impl Stand) {
    stand.open().check().await.unwrap();
    assert_nothing_left(stand, &[]).await;
}

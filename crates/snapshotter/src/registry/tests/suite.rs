//! The contract of [`MetadataRegistry`], one promise a test, run against each implementation.

use std::collections::BTreeMap;

use super::places::{self, Place};
use super::*;
use crate::ErrorKind;
use crate::format::artifact::{EMPTY_BYTES, Manifest};

macro_rules! for_every_registry {
    ($($promise:ident)*) => {
        for_every_registry!(@ open [$($promise)*]);
        for_every_registry!(@ htpasswd [$($promise)*]);
        for_every_registry!(@ private_ca [$($promise)*]);
        for_every_registry!(@ behind_tls [$($promise)*]);
        for_every_registry!(@ layout [$($promise)*]);
    };
    (@ $place:ident [$($promise:ident)*]) => {
        mod $place {
            $(
                #[tokio::test]
                async fn $promise() {
                    let Some(place) = super::places::$place() else { return };
                    super::$promise(&place).await;
                }
            )*
        }
    };
}

for_every_registry! {
    what_was_pushed_comes_back_by_tag_and_by_digest
    what_is_not_there_is_nothing
    pushing_again_is_success
    what_the_go_library_wrote_travels_unchanged
    a_tag_moves_and_the_manifest_it_leaves_stays
    a_manifest_is_not_stored_under_anothers_digest
    blobs_are_never_longer_or_shorter_than_asked_for
    a_blob_is_not_stored_under_anothers_digest
    all_tags_are_listed_in_order
    repositories_are_those_below_the_namespace
    a_deleted_manifest_is_gone_with_its_tags
    a_stream_comes_back_as_it_went
    a_stream_without_its_end_stores_nothing
    any_range_can_be_pulled
    a_receiver_that_closes_ends_the_pull
}

/// Pushes a snapshot with this document and returns its manifest.
pub(super) async fn push(
    place: &Arc<dyn MetadataRegistry>,
    repository: &Repository,
    which: &TagOrDigest,
    document: &[u8],
) -> Vec<u8> {
    let manifest = Manifest::build(document, &[], &BTreeMap::new()).unwrap();
    for blob in [document, EMPTY_BYTES] {
        let bytes = Bytes::copy_from_slice(blob);
        place
            .push_blob(repository, Sha256::of(blob), bytes)
            .await
            .unwrap();
    }
    let digest = place
        .push_manifest(repository, which, manifest.clone().into())
        .await
        .unwrap();
    assert_eq!(digest, Sha256::of(&manifest));
    manifest
}

async fn what_was_pushed_comes_back_by_tag_and_by_digest(place: &Place) {
    let (registry, repository) = (&place.registry, repository());
    let document = some_bytes(1, 300_000);
    let manifest = push(registry, &repository, &v1(), &document).await;
    let by_digest = TagOrDigest::Digest(Sha256::of(&manifest));
    for which in [v1(), by_digest] {
        let pulled = registry
            .manifest(&repository, &which)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(pulled.bytes, manifest);
        assert_eq!(pulled.digest, Sha256::of(&manifest));
    }
    let (sha256, size) = (Sha256::of(&document), document.len() as u64);
    assert_eq!(
        registry.has_blob(&repository, sha256, size).await.unwrap(),
        Presence::Size(size)
    );
    assert_eq!(
        registry.blob(&repository, sha256, size).await.unwrap(),
        document
    );
}

async fn what_is_not_there_is_nothing(place: &Place) {
    let (registry, absent) = (&place.registry, Sha256::of(b"absent"));
    push(
        registry,
        &Repository::new("ns", "there").unwrap(),
        &v1(),
        b"{}",
    )
    .await;
    for name in ["there", "nowhere"] {
        let repository = Repository::new("ns", name).unwrap();
        for which in [TagOrDigest::tag("v2").unwrap(), TagOrDigest::Digest(absent)] {
            assert_eq!(registry.manifest(&repository, &which).await.unwrap(), None);
        }
        let found = registry.has_blob(&repository, absent, 6).await;
        assert_eq!(found.unwrap(), Presence::Absent);
        let error = registry.blob(&repository, absent, 6).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        let (result, bytes) = pulled(&**registry, &repository, absent, 6, None).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::NotFound);
        assert!(bytes.is_empty());
        assert!(!registry.delete_manifest(&repository, absent).await.unwrap());
    }
    let nowhere = Repository::new("ns", "nowhere").unwrap();
    assert_eq!(registry.tags(&nowhere).await.unwrap(), []);
}

/// Its manifests have `"layers":null`.
async fn what_the_go_library_wrote_travels_unchanged(place: &Place) {
    let registry = &place.registry;
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/golden");
    let golden = std::path::Path::new(golden);
    let index = std::fs::read(golden.join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    for snapshot in index["snapshots"].as_array().unwrap() {
        let read = |key: &str| std::fs::read(golden.join(snapshot[key].as_str().unwrap())).unwrap();
        let (manifest, document) = (read("manifest_file"), read("config_file"));
        let (sha256, size) = (Sha256::of(&document), document.len() as u64);
        registry
            .push_blob(&repository(), sha256, document.clone().into())
            .await
            .unwrap();
        let digest = registry
            .push_manifest(&repository(), &v1(), manifest.clone().into())
            .await
            .unwrap();
        assert_eq!(digest.to_string(), snapshot["manifest_sha256"]);
        let pulled = registry.manifest(&repository(), &v1()).await.unwrap();
        assert_eq!(pulled.unwrap().bytes, manifest);
        let pulled = registry.blob(&repository(), sha256, size).await.unwrap();
        assert_eq!(pulled, document);
    }
}

async fn pushing_again_is_success(place: &Place) {
    let (registry, repository) = (&place.registry, repository());
    let first = push(registry, &repository, &v1(), b"{}").await;
    let second = push(registry, &repository, &v1(), b"{}").await;
    assert_eq!(first, second);
    assert_eq!(registry.tags(&repository).await.unwrap().len(), 1);
}

async fn a_tag_moves_and_the_manifest_it_leaves_stays(place: &Place) {
    let (registry, repository) = (&place.registry, repository());
    let first = push(registry, &repository, &v1(), b"{}").await;
    let second = push(registry, &repository, &v1(), b"[]").await;
    let now = registry
        .manifest(&repository, &v1())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(now.bytes, second);
    let left = TagOrDigest::Digest(Sha256::of(&first));
    let left = registry
        .manifest(&repository, &left)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(left.bytes, first);
}

async fn a_manifest_is_not_stored_under_anothers_digest(place: &Place) {
    let (registry, repository) = (&place.registry, repository());
    let manifest = push(registry, &repository, &v1(), b"{}").await;
    let own = TagOrDigest::Digest(Sha256::of(&manifest));
    registry
        .push_manifest(&repository, &own, manifest.clone().into())
        .await
        .unwrap();
    let other = TagOrDigest::Digest(Sha256::of(b"other"));
    assert_eq!(
        registry
            .push_manifest(&repository, &other, manifest.into())
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::InvalidInput
    );
    let huge = Bytes::from(vec![b' '; 4 << 20 | 1]);
    assert_eq!(
        registry
            .push_manifest(&repository, &v1(), huge)
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Unsupported
    );
}

async fn blobs_are_never_longer_or_shorter_than_asked_for(place: &Place) {
    let (registry, repository) = (&place.registry, repository());
    let bytes = some_bytes(2, 100_000);
    let sha256 = Sha256::of(&bytes);
    registry
        .push_blob(&repository, sha256, bytes.into())
        .await
        .unwrap();
    for size in [0, 99_999, 100_001] {
        let error = registry.blob(&repository, sha256, size).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{size}: {error}");
        let (result, sent) = pulled(&*place.registry, &repository, sha256, size, None).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Damaged, "{size}");
        assert!(sent.len() as u64 <= size);
    }
}

async fn a_blob_is_not_stored_under_anothers_digest(place: &Place) {
    let (registry, repository, other) = (&place.registry, repository(), Sha256::of(b"other"));
    assert_eq!(
        registry
            .push_blob(&repository, other, Bytes::from_static(b"bytes"))
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::InvalidInput
    );
    let found = registry.has_blob(&repository, other, 5).await;
    assert_eq!(found.unwrap(), Presence::Absent);
}

async fn all_tags_are_listed_in_order(place: &Place) {
    let (registry, repository) = (&place.registry, repository());
    for version in ["v2", "v10", "V1", "_"] {
        push(
            registry,
            &repository,
            &TagOrDigest::tag(version).unwrap(),
            b"{}",
        )
        .await;
    }
    let tags = registry.tags(&repository).await.unwrap();
    let tags: Vec<_> = tags.iter().map(Tag::as_str).collect();
    assert_eq!(tags, ["V1", "_", "v10", "v2"]);
}

async fn repositories_are_those_below_the_namespace(place: &Place) {
    let registry = &place.registry;
    assert_eq!(registry.repositories().await.unwrap(), [""; 0]);
    for (namespace, name) in [
        ("ns", "b"),
        ("ns", "a"),
        ("ns", "a/c"),
        ("other", "d"),
        ("ns2", "e"),
    ] {
        let repository = Repository::new(namespace, name).unwrap();
        push(registry, &repository, &v1(), b"{}").await;
    }
    assert_eq!(registry.repositories().await.unwrap(), ["a", "a/c", "b"]);
}

async fn a_deleted_manifest_is_gone_with_its_tags(place: &Place) {
    let (registry, repository) = (&place.registry, repository());
    let manifest = push(registry, &repository, &v1(), b"{}").await;
    let v2 = TagOrDigest::tag("v2").unwrap();
    push(registry, &repository, &v2, b"[]").await;
    let digest = Sha256::of(&manifest);
    assert!(registry.delete_manifest(&repository, digest).await.unwrap());
    assert!(!registry.delete_manifest(&repository, digest).await.unwrap());
    for which in [v1(), TagOrDigest::Digest(digest)] {
        assert_eq!(registry.manifest(&repository, &which).await.unwrap(), None);
    }
    assert!(registry.manifest(&repository, &v2).await.unwrap().is_some());
    assert_eq!(registry.tags(&repository).await.unwrap().len(), 1);
}

async fn a_stream_comes_back_as_it_went(place: &Place) {
    let (registry, repository) = (&*place.registry, repository());
    for length in [20, 70_000, 3_000_000] {
        let bytes = some_bytes(3, length);
        let sha256 = pushed(registry, &repository, &bytes, End::Well).await;
        let (sha256, size) = (sha256.unwrap(), length as u64);
        assert_eq!(sha256, Sha256::of(&bytes));
        assert_eq!(
            registry.has_blob(&repository, sha256, size).await.unwrap(),
            Presence::Size(size)
        );
        let (result, back) = pulled(registry, &repository, sha256, size, None).await;
        result.unwrap();
        assert!(back == bytes, "{length}");
    }
}

async fn a_stream_without_its_end_stores_nothing(place: &Place) {
    let (registry, repository) = (&*place.registry, repository());
    let bytes = some_bytes(4, 500_000);
    let early = pushed(registry, &repository, &bytes, End::Early).await;
    let error = early.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal, "{error:?}");
    assert!(error.to_string().ends_with("1 bytes early"), "{error}");
    let failed = pushed(
        registry,
        &repository,
        &bytes,
        End::Failed("the blob is damaged"),
    )
    .await;
    let error = failed.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
    assert_eq!(error.to_string(), "the blob is damaged");
    let found = registry
        .has_blob(&repository, Sha256::of(&bytes), 500_000)
        .await;
    assert_eq!(found.unwrap(), Presence::Absent);
}

async fn any_range_can_be_pulled(place: &Place) {
    let (registry, repository) = (&*place.registry, repository());
    let bytes = some_bytes(5, 2_500_000);
    let (sha256, size) = (Sha256::of(&bytes), bytes.len() as u64);
    registry
        .push_blob(&repository, sha256, bytes.clone().into())
        .await
        .unwrap();
    for range in [
        0..1,
        0..0,
        7..2_000_000,
        2_499_999..size,
        size..size,
        0..size,
    ] {
        let (result, part) = pulled(registry, &repository, sha256, size, Some(range.clone())).await;
        result.unwrap();
        let expected = &bytes[range.start as usize..range.end as usize];
        assert!(part == expected, "{range:?}: {} bytes", part.len());
    }
    let (result, _) = pulled(registry, &repository, sha256, size, Some(5..size + 1)).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput);
}

async fn a_receiver_that_closes_ends_the_pull(place: &Place) {
    let (registry, repository) = (&place.registry, repository());
    let bytes = some_bytes(6, 2_500_000);
    let (sha256, size) = (Sha256::of(&bytes), bytes.len() as u64);
    registry
        .push_blob(&repository, sha256, bytes.into())
        .await
        .unwrap();
    let (sink, source) = mpsc::channel(1);
    drop(source);
    let pull = registry.pull_stream(&repository, sha256, size, None, sink);
    assert_eq!(pull.await.unwrap_err().kind(), ErrorKind::Cancelled);
}

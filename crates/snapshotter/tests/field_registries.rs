//! What registries, and proxies before them, do in the field: each is a quirk of a registry that works otherwise, and one
//! node's snapshots reach another through all of them.

use crate::support_a;

use snapshotter::{
    Content, ContentProvider, Error, ErrorKind, Format, PullRequest, PushRequest, Registry,
    RestoreRequest, SnapshotRequest, Snapshotter, VerifyRequest,
};
use std::time::Duration;
use support_a::*;
use testkit::compare::assert_same;
use testkit::container_registry::{self, ContainerRegistry, PASSWORD};
use testkit::quirks::{Quirk, Quirky};
use testkit::registry::{Kind, RegistryServer, or_skip};
use testkit::weather::Asked;

const NAMESPACE: &str = "snapshots";

/// Larger than one piece of a stream, so that a part of it can be lost.
const LONG: u64 = 3 << 20;

fn quirky(quirk: Quirk) -> (Quirky, Registry) {
    let server = Quirky::new(quirk);
    let registry = Registry::new(server.url(), NAMESPACE).credentials("robot", "hunter2");
    (server, registry)
}

async fn node(place: &Place, registry: &Registry) -> Snapshotter {
    let (registry, content) = (registry.clone(), Content::new(ContentProvider::Registry));
    place
        .open_with(|config| config.registry(registry).content(content))
        .await
}

fn taking(version: &str, base: &std::path::Path) -> SnapshotRequest {
    SnapshotRequest::new("vm", version, base)
}

/// Two snapshots that share a file are published, and another node restores both. Says how many blobs were sent for each.
async fn travels(registry: &Registry) -> Result<[u64; 2], Error> {
    let (here, there) = (Place::new(), Place::new());
    let (one, other) = (node(&here, registry).await, node(&there, registry).await);
    let mut sent = [0, 0];
    for (nth, version) in ["v1", "v2"].into_iter().enumerate() {
        let tree = vm(nth as u64).file("long", random(7, LONG));
        let source = here.write(version, &tree);
        let taken = one.snapshot(&taking(version, &source)).await?;
        sent[nth] = taken.publication.unwrap().sent_blobs;
        let output = there.fresh();
        let restoring = RestoreRequest::new(reference(&format!("vm:{version}")), &output);
        other.restore(&restoring).await?;
        assert_same(&source, &output);
    }
    Ok(sent)
}

/// "Took the manifest and does not have it" was said at once of registries that show it a little later.
#[tokio::test]
async fn a_registry_whose_reads_lag_behind_its_writes_is_waited_for() {
    let (_server, registry) = quirky(Quirk::Lags(2));
    let (here, store) = (Place::new(), registry.clone());
    let store = node(&here, &store).await;
    for (nth, force) in [false, true].into_iter().enumerate() {
        let source = here.write(&format!("source-{force}"), &vm(nth as u64));
        let taking = taking("v1", &source).force(force);
        let taken = store.snapshot(&taking).await.unwrap();
        assert!(taken.publication.is_some());
    }
}

#[tokio::test]
async fn a_registry_that_never_shows_what_it_took_is_named() {
    let (_server, registry) = quirky(Quirk::Lags(usize::MAX));
    let here = Place::new();
    let store = node(&here, &registry.timeout(Duration::from_millis(500))).await;
    let source = here.write("source", &vm(1));
    let error = store.snapshot(&taking("v1", &source)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("lag behind"), "{error}");
}

fn of<'a>(asked: &'a [Asked], method: &'a str) -> impl Iterator<Item = &'a Asked> {
    asked.iter().filter(move |asked| asked.method == method)
}

/// One that other people wrote, in another language than docker-registry: it says how to log in where Docker asks first and
/// nowhere else, takes bytes with PATCH alone, has uploads under another path, says no length of what it sends, and knows no
/// ranges, so that what is there cannot be told from what a cache says is there, and is sent again.
#[tokio::test]
async fn snapshots_travel_through_a_registry_by_other_people() {
    let Some(server) = container_registry::or_skip(ContainerRegistry::start()) else {
        return;
    };
    let registry = Registry::new(server.url(), NAMESPACE).credentials("robot", PASSWORD);
    assert_eq!(travels(&registry).await.unwrap(), [3, 3]);
    let here = Place::new();
    let store = node(&here, &registry).await;
    let (before, after) = (here.write("before", &vm(1)), here.write("after", &vm(2)));
    for format in [Format::V1, Format::V2] {
        let version = format.as_str();
        let taking = |source| SnapshotRequest::new("other", version, source).format(format);
        store.snapshot(&taking(&before)).await.unwrap();
        store.snapshot(&taking(&after).force(true)).await.unwrap();
        let name = reference(&format!("other:{version}"));
        let pushing = PushRequest::new(name.clone()).verify(true);
        assert!(store.push(&pushing).await.unwrap().verified_blobs > 0);
        let there = Place::new();
        let output = there.fresh();
        let other = node(&there, &registry).await;
        other.pull(&PullRequest::new(name.clone())).await.unwrap();
        let restoring = RestoreRequest::new(name, &output);
        other.restore(&restoring).await.unwrap();
        assert_same(&after, &output);
    }
    let wrong = registry.credentials("robot", "wrong-horse");
    let error = travels(&wrong).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
}

/// The first publication worked, and every later one that shared a blob failed: HEAD was believed in everything.
#[tokio::test]
async fn blobs_that_head_does_not_tell_of_are_found_by_their_last_byte() {
    for quirk in [
        Quirk::None,
        Quirk::HeadNotAllowed,
        Quirk::HeadWithoutLength,
        Quirk::HeadOfNoLength,
        Quirk::HeadForbiddenAtStorage,
    ] {
        let (_server, registry) = quirky(quirk);
        assert_eq!(travels(&registry).await.unwrap(), [3, 1], "{quirk:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_looked_for_is_sent_again() {
    let (_server, registry) = quirky(Quirk::HeadNotAllowedNorRanges);
    assert_eq!(travels(&registry).await.unwrap(), [3, 3]);
}

#[tokio::test]
async fn uploads_go_where_the_registry_says() {
    for quirk in [
        Quirk::LocationRelative,
        Quirk::LocationAbsolute,
        Quirk::LocationElsewhere,
        Quirk::LocationOnce,
        Quirk::PostRedirected,
        Quirk::PostCreated,
    ] {
        let (_server, registry) = quirky(quirk);
        assert_eq!(travels(&registry).await.unwrap(), [3, 1], "{quirk:?}");
    }
}

#[tokio::test]
async fn an_upload_without_a_place_names_the_url_and_the_usual_cause() {
    let (server, registry) = quirky(Quirk::PostWithoutLocation);
    let error = travels(&registry).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let url = format!("({}/v2/snapshots/vm/blobs/uploads/)", server.url());
    assert!(error.to_string().contains(&url), "{error}");
    let says = "answered 202 Accepted and does not say where the bytes go";
    assert!(error.to_string().contains(says), "{error}");
    assert!(error.hint().unwrap().contains("proxy"), "{error:?}");
}

/// A layer had one attempt: a 500 in the middle of a long upload was the end of the snapshot's publication.
#[tokio::test]
async fn an_upload_that_fails_goes_on_where_the_registry_is_or_begins_again() {
    for quirk in [500, 503, 429].map(|status| Quirk::FailsOnce("PATCH", status)) {
        assert_goes_on(quirk).await;
    }
    assert_goes_on(Quirk::HangsUpOnce("PATCH")).await;
    for quirk in [
        Quirk::FailsOnce("PUT", 500),
        Quirk::FailsOnce("PUT", 429),
        Quirk::HangsUpOnce("PUT"),
        Quirk::ForgetsOnce("PATCH", 500),
        Quirk::ForgetsOnce("PATCH", 404),
        Quirk::ForgetsOnce("PUT", 500),
        Quirk::ForgetsOnce("PUT", 404),
    ] {
        let (_server, registry) = quirky(quirk);
        assert_eq!(travels(&registry).await.unwrap(), [3, 1], "{quirk:?}");
    }
}

/// What the registry had is not sent again.
async fn assert_goes_on(quirk: Quirk) {
    let (server, registry) = quirky(quirk);
    assert_eq!(travels(&registry).await.unwrap(), [3, 1], "{quirk:?}");
    let asked = server.asked();
    let resumed = of(&asked, "PATCH").filter(|asked| asked.header("content-range").is_some());
    assert_eq!(resumed.count(), 1, "{quirk:?}");
}

/// What was published stays what the tag means, and the error is the registry's own words. The name was another snapshot's here
/// from then on: what was taken is called by its digest now, and whoever restores the name gets what others get.
#[tokio::test]
async fn a_tag_that_may_not_move_is_said_to_be_one_and_the_name_stays_here_too() {
    for format in [Format::V1, Format::V2] {
        let (server, registry) = quirky(Quirk::Immutable);
        let here = Place::new();
        let store = node(&here, &registry).await;
        let take = async |version: &str, seed| {
            let name = format!("source-{seed}");
            let source = match here.path(&name) {
                there if there.exists() => there,
                _ => here.write(&name, &vm(seed)),
            };
            let taking = taking(version, &source).force(true).format(format);
            (source, store.snapshot(&taking).await)
        };
        let (before, taken) = take("v1", 1).await;
        let published = server.manifest("snapshots/vm:v1");
        let digest = taken.unwrap().manifest_digest;
        let mut kept = Vec::new();
        for seed in [2, 3, 2] {
            let (after, forced) = take("v1", seed).await;
            let error = forced.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            let says = "TAG_IMMUTABLE: the tag cannot be overwritten";
            assert!(error.to_string().ends_with(says), "{error}");
            assert_eq!(server.manifest("snapshots/vm:v1"), published);
            let hint = error.hint().unwrap();
            assert!(hint.starts_with("vm:v1 is here what it was"), "{hint}");
            kept.push((after, reference(hint.rsplit(' ').next().unwrap())));
        }
        kept.push((before, reference("vm:v1")));
        for (source, name) in kept {
            let output = here.fresh();
            let restoring = RestoreRequest::new(name, &output);
            store.restore(&restoring).await.unwrap();
            assert_same(&source, &output);
        }
        let listed = store.list().await.unwrap();
        let named = listed
            .iter()
            .find(|one| one.reference == reference("vm:v1"));
        assert_eq!(named.unwrap().manifest_digest, digest);
        assert!(!named.unwrap().publications.is_empty());
        // What was taken twice has one name, but for its time, which format v2 notes.
        let names = if format == Format::V1 { 3 } else { 4 };
        assert_eq!(listed.len(), names);
        assert!(
            store
                .verify(&VerifyRequest::all())
                .await
                .unwrap()
                .is_sound()
        );
    }
}

/// A snapshot that could not be sent is one that will be: it has the name, and what had it is gone.
#[tokio::test]
async fn a_registry_that_does_not_answer_leaves_the_name_with_what_was_taken() {
    let (server, registry) = quirky(Quirk::None);
    let here = Place::new();
    let store = node(&here, &registry.retries(0)).await;
    let before = here.write("before", &vm(1));
    store.snapshot(&taking("v1", &before)).await.unwrap();
    drop(server);
    let after = here.write("after", &vm(2));
    let forced = store.snapshot(&taking("v1", &after).force(true)).await;
    assert_eq!(forced.unwrap_err().kind(), ErrorKind::Unavailable);
    let output = here.fresh();
    let restoring = RestoreRequest::new(reference("vm:v1"), &output);
    store.restore(&restoring).await.unwrap();
    assert_same(&after, &output);
    assert_eq!(store.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_limit_on_requests_is_named_and_chunks_get_below_it() {
    let (_server, registry) = quirky(Quirk::Limit(1 << 20));
    let error = travels(&registry).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("413"), "{error}");
    let hint = error.hint().unwrap();
    assert!(hint.contains("registry.chunk_bytes"), "{hint}");

    let (server, registry) = quirky(Quirk::Limit(1 << 20));
    let registry = registry.chunk_bytes(1 << 20);
    assert_eq!(travels(&registry).await.unwrap(), [3, 1]);
    let asked = server.asked();
    let long = |asked: &&Asked| asked.body.len() == 1 << 20;
    assert!(of(&asked, "PATCH").filter(long).count() >= 3);
    let all_say = |asked: &Asked| asked.header("content-length").is_some();
    assert!(of(&asked, "PATCH").all(all_say), "a proxy sees the length");
}

/// A list of files is a request of its own, and may be too long for one too.
#[tokio::test]
async fn a_long_list_of_files_is_sent_in_chunks() {
    let (_server, registry) = quirky(Quirk::Limit(64 << 10));
    let registry = registry.chunk_bytes(64 << 10);
    let place = Place::new();
    let store = node(&place, &registry).await;
    let names = (0..1000).map(|nth| format!("file-{nth:04}"));
    let tree = names.fold(testkit::Tree::new(), |tree, name| tree.file(&name, "same"));
    let source = place.write("source", &tree);
    store.snapshot(&taking("v1", &source)).await.unwrap();
}

#[tokio::test]
async fn chunks_that_fail_go_on_too() {
    for quirk in [
        Quirk::FailsOnce("PATCH", 500),
        Quirk::ForgetsOnce("PATCH", 500),
        Quirk::HangsUpOnce("PATCH"),
        Quirk::ForgetsOnce("PUT", 500),
    ] {
        let (_server, registry) = quirky(quirk);
        let registry = registry.chunk_bytes(1 << 20);
        assert_eq!(travels(&registry).await.unwrap(), [3, 1], "{quirk:?}");
    }
}

/// What garbage collection removed, the registry's cache said was there: the next snapshot that shared a blob was "published",
/// other nodes could not restore it, and pushing it with force sent nothing.
async fn assert_mended(registry: &Registry, collect: impl Fn()) {
    let here = Place::new();
    let one = node(&here, registry).await;
    let source = here.write("source", &vm(1));
    let pushing = PushRequest::new(reference("vm:v1"));
    one.snapshot(&taking("v1", &source)).await.unwrap();
    collect();
    let taken = one.snapshot(&taking("v2", &source)).await.unwrap();
    assert_eq!(taken.publication.unwrap().sent_blobs, 2);
    let restore = async |version: &str| {
        let there = Place::new();
        let (other, output) = (node(&there, registry).await, there.fresh());
        let restoring = RestoreRequest::new(reference(version), &output);
        other.restore(&restoring).await.unwrap();
        assert_same(&source, &output);
    };
    restore("vm:v2").await;
    for pushing in [
        pushing.clone().force(true),
        pushing.clone().verify(true),
        pushing,
    ] {
        collect();
        let pushed = one.push(&pushing).await.unwrap();
        assert_eq!(pushed.publication.sent_blobs, 2, "{pushing:?}");
        restore("vm:v1").await;
    }
}

#[tokio::test]
async fn what_a_cache_says_is_there_and_is_not_is_sent() {
    let (server, registry) = quirky(Quirk::None);
    assert_mended(&registry, || server.collect()).await;
}

#[tokio::test]
async fn what_docker_registry_has_collected_is_sent_again() {
    let kind = Kind {
        delete: true,
        ..Kind::default()
    };
    let Some(server) = or_skip(RegistryServer::start(kind)) else {
        return;
    };
    let registry = Registry::new(server.url(), NAMESPACE);
    assert_mended(&registry, || {
        // Without its manifests all that it has is garbage.
        let manifests = "docker/registry/v2/repositories/snapshots/vm/_manifests";
        let _ = std::fs::remove_dir_all(server.data().join(manifests));
        server.collect_garbage().unwrap();
    })
    .await;
}

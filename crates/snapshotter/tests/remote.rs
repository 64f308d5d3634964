//! Two nodes and what is between them: a snapshot taken here is restored there, through real servers and through
//! directories that stand in for them.

use crate::support_a;

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use snapshotter::{
    Content, ContentProvider, ErrorKind, Format, LinkMode, PullRequest, PushRequest, Registry,
    RestoreRequest, SnapshotRequest, SnapshotState, Snapshotter,
};
use support_a::*;
use testkit::compare::assert_same;
use testkit::proxy::Cutting;
use testkit::registry::{Kind, RegistryServer, or_skip};
use testkit::s3::S3;
use testkit::{Content as Bytes, Tree};

/// What two nodes share.
struct Between {
    registry: Registry,
    content: Content,
    _servers: (Option<RegistryServer>, Option<S3>),
}

impl Between {
    /// A directory with image layouts, and one with objects.
    fn directories(place: &Place) -> Self {
        let layouts = place.path("layouts");
        let objects = place.path("objects");
        fs::create_dir_all(&objects).unwrap();
        let mut content = Content::new(ContentProvider::Fs);
        content.root = objects;
        Self {
            registry: Registry::new(format!("oci-layout:{}", layouts.display()), "snapshots"),
            content,
            _servers: (None, None),
        }
    }

    /// A registry that keeps the contents too.
    fn registry_alone() -> Option<Self> {
        let server = or_skip(RegistryServer::start(Kind {
            delete: true,
            ..Kind::default()
        }))?;
        Some(Self {
            registry: Registry::new(server.url(), "snapshots"),
            content: Content::new(ContentProvider::Registry),
            _servers: (Some(server), None),
        })
    }

    /// A registry and a bucket.
    fn registry_and_bucket() -> Option<Self> {
        let server = or_skip(RegistryServer::start(Kind {
            user: Some(("robot", "hunter2")),
            ..Kind::default()
        }))?;
        let s3 = S3::start("checkpoints");
        let content = in_bucket(&s3, s3.endpoint());
        Some(Self {
            registry: Registry::new(server.url(), "team/snapshots").credentials("robot", "hunter2"),
            content,
            _servers: (Some(server), Some(s3)),
        })
    }

    /// A node: a root of its own, and this between it and the others.
    async fn node(&self, place: &Place) -> Snapshotter {
        place
            .open_with(|config| {
                config
                    .registry(self.registry.clone())
                    .content(self.content.clone())
            })
            .await
    }

    fn objects(&self) -> Vec<PathBuf> {
        objects_below(&self.content.root)
            .into_iter()
            .map(|object| self.content.root.join(object))
            .collect()
    }
}

/// A VM's files: memory with holes, a disk, small ones, links.
fn checkpoint() -> Tree {
    Tree::new()
        .file(
            "memory",
            Bytes::Sparse {
                size: 24 * MIB,
                extents: vec![(0, 1, 65536), (5 * MIB, 2, 3 * MIB), (20 * MIB, 3, 4096)],
            },
        )
        .file("images/disk.img", random(4, 10 * MIB))
        .file("state.json", "{}")
        .file("empty", "")
        .symlink("latest", "state.json")
        .hardlink("state-too.json", "state.json")
        .mode("state.json", 0o600)
        .mtime("memory", OLD.0, OLD.1)
}

const MIB: u64 = 1 << 20;

fn request(version: &str, source: &Path) -> SnapshotRequest {
    SnapshotRequest::new("vm", version, source).read_only("memory")
}

/// Takes a snapshot on one node and restores it on another, which then has all of it.
async fn travels(between: &Between) {
    let (here, there) = (Place::new(), Place::new());
    let source = here.write("source", &checkpoint());
    let store = between.node(&here).await;
    let taken = store
        .snapshot(&request("v1", &source).annotation("kernel", "6.18"))
        .await
        .unwrap();
    let publication = taken.publication.unwrap();
    assert_eq!(publication.sent_blobs, 4);
    assert_eq!(
        store.list().await.unwrap()[0].state,
        SnapshotState::Published
    );

    let other = between.node(&there).await;
    let output = there.fresh();
    let given = other
        .restore(&RestoreRequest::new(reference("vm:v1"), &output))
        .await
        .unwrap();
    assert_eq!(given.manifest_digest, taken.manifest_digest);
    assert_eq!(given.fetched_blobs, 4);
    assert_eq!(given.warnings, []);
    assert_same(&source, &output);

    let summary = &other.list().await.unwrap()[0];
    assert_eq!(summary.state, SnapshotState::Fetched);
    assert_eq!(summary.reference, reference("vm:v1"));
    assert_eq!(
        (summary.files, summary.logical_bytes, summary.data_bytes),
        (taken.files, taken.logical_bytes, taken.data_bytes)
    );
    let details = other.inspect(&reference("vm:v1")).await.unwrap();
    assert_eq!(details.annotations["kernel"], "6.18");
    assert_sound(&other).await;

    // What is here is not fetched again, and goes when it is removed.
    let again = other
        .restore(&RestoreRequest::new(reference("vm:v1"), there.fresh()))
        .await
        .unwrap();
    assert_eq!(again.fetched_blobs, 0);
    other.remove(&reference("vm:v1")).await.unwrap();
    there.assert_empty();
    assert_sound(&store).await;
}

#[tokio::test]
async fn a_snapshot_travels_through_directories() {
    let place = Place::new();
    travels(&Between::directories(&place)).await;
}

#[tokio::test]
async fn a_snapshot_travels_through_a_registry_alone() {
    if let Some(between) = Between::registry_alone() {
        travels(&between).await;
    }
}

#[tokio::test]
async fn a_snapshot_travels_through_a_registry_and_a_bucket() {
    if let Some(between) = Between::registry_and_bucket() {
        travels(&between).await;
    }
}

#[tokio::test]
async fn a_registry_alone_is_enough_whatever_content_is_configured() {
    let Some(between) = Between::registry_alone() else {
        return;
    };
    let (here, there) = (Place::new(), Place::new());
    let source = here.write("source", &checkpoint());
    let store = between.node(&here).await;
    store.snapshot(&request("v1", &source)).await.unwrap();
    let other = there
        .open_with(|config| config.registry(between.registry.clone()))
        .await;
    let output = there.fresh();
    let restore = RestoreRequest::new(reference("vm:v1"), &output);
    other.restore(&restore).await.unwrap();
    assert_same(&source, &output);
}

#[tokio::test]
async fn only_what_is_new_is_sent_and_fetched() {
    let (place, here, there) = (Place::new(), Place::new(), Place::new());
    let between = Between::directories(&place);
    let source = here.write("source", &checkpoint());
    let (store, other) = (between.node(&here).await, between.node(&there).await);
    store.snapshot(&request("v1", &source)).await.unwrap();
    other
        .pull(&PullRequest::new(reference("vm:v1")))
        .await
        .unwrap();
    fs::write(source.join("state.json"), "{\"more\":1}").unwrap();
    let taken = store.snapshot(&request("v2", &source)).await.unwrap();
    assert_eq!(taken.publication.unwrap().sent_blobs, 1);
    let pulled = other
        .pull(&PullRequest::new(reference("vm:v2")))
        .await
        .unwrap();
    assert_eq!((pulled.fetched_blobs, pulled.reused_blobs), (1, 3));
    let again = other
        .pull(&PullRequest::new(reference("vm:v2")))
        .await
        .unwrap();
    assert_eq!((again.fetched_blobs, again.reused_blobs), (0, 4));
    assert_eq!(between.objects().len(), 5);
}

/// Two tenants of one node and one bucket or directory take the same files: neither has anything of the other's, and neither sees
/// that the other has them.
#[tokio::test]
async fn a_tenant_finds_nothing_of_another_here_or_there() {
    for format in [Format::V1, Format::V2] {
        let place = Place::new();
        let all = [
            Some(Between::directories(&place)),
            Between::registry_and_bucket(),
        ];
        for between in all.into_iter().flatten() {
            tenants_are_apart(&between, &Place::new(), format).await;
        }
    }
}

async fn tenants_are_apart(between: &Between, here: &Place, format: Format) {
    let source = here.write("source", &checkpoint());
    let mut figures = Vec::new();
    let mut inodes = HashSet::new();
    for tenant in ["a", "b"] {
        if between.content.provider == ContentProvider::Fs {
            fs::create_dir_all(between.content.root.join(tenant)).unwrap();
        }
        let store = here
            .open_with(|config| {
                let config = config.tenant(Some(tenant.to_owned()));
                config
                    .registry(between.registry.clone())
                    .content(between.content.clone())
            })
            .await;
        let name = format!("{tenant}/vm");
        // A hard link of what the caller has would be the caller's sharing.
        let taking = SnapshotRequest::new(&name, "v1", &source).format(format);
        let taken = store
            .snapshot(&taking.link_mode(LinkMode::Copy))
            .await
            .unwrap();
        let output = here.fresh();
        let restore = RestoreRequest::new(reference(&format!("{name}:v1")), &output);
        store.restore(&restore).await.unwrap();
        let sent = taken.publication.unwrap();
        figures.push((taken.stored_bytes, sent.sent_blobs, sent.sent_bytes));
        let root = here.root().join("tenants").join(tenant);
        // Of what stays: the number of an inode that went, a lease's for one, is given to the next.
        let parts = ["storage", "cache", "digests"].map(|part| root.join(part));
        let parts = parts.into_iter().filter(|part| part.exists());
        let files = parts.flat_map(|part| {
            let files = files_below(&part).into_iter();
            files.map(move |file| part.join(file)).collect::<Vec<_>>()
        });
        let restored = files_below(&output)
            .into_iter()
            .map(|file| output.join(file));
        let own: HashSet<_> = files.chain(restored).map(|file| inode(&file)).collect();
        assert!(own.is_disjoint(&inodes), "an inode is of both");
        inodes.extend(own);
        let listed = store.list_remote(None).await.unwrap();
        assert_eq!(listed.len(), 1, "{listed:?}");

        // Nothing of another's is named, made, looked at or fetched.
        let of_other = reference("c/vm:v1");
        let other = SnapshotRequest::new("c/vm", "v1", &source);
        let refused = [
            store.snapshot(&other.local(true)).await.unwrap_err(),
            store
                .pull(&PullRequest::new(of_other.clone()))
                .await
                .unwrap_err(),
            store.remove_remote(&of_other).await.unwrap_err(),
        ];
        for error in refused {
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().contains("tenant"), "{error}");
        }
        store.close().await.unwrap();
    }
    assert_eq!(figures[0], figures[1]);
    assert!(figures[0].0 > 0 && figures[0].1 > 0);
}

#[tokio::test]
async fn a_fetched_read_only_file_is_linked_and_not_copied() {
    let (place, here, there) = (Place::new(), Place::new(), Place::new());
    let between = Between::directories(&place);
    let source = here.write("source", &checkpoint());
    between
        .node(&here)
        .await
        .snapshot(&request("v1", &source))
        .await
        .unwrap();
    let other = between.node(&there).await;
    let output = there.fresh();
    let restore = RestoreRequest::new(reference("vm:v1"), &output);
    let given = other.restore(&restore).await.unwrap();
    assert_eq!(given.placements.hardlink.files, 1);
    assert_eq!(files_in(&there.views()), Vec::<PathBuf>::new());
    assert_eq!(fs::metadata(output.join("memory")).unwrap().nlink(), 2);
}

#[tokio::test]
async fn a_local_snapshot_is_pushed_later_and_read_back() {
    let (place, here) = (Place::new(), Place::new());
    let between = Between::directories(&place);
    let source = here.write("source", &checkpoint());
    let store = between.node(&here).await;
    let taken = store
        .snapshot(&request("v1", &source).local(true))
        .await
        .unwrap();
    assert_eq!(taken.publication, None);
    assert_eq!(
        store.list().await.unwrap()[0].state,
        SnapshotState::Unpublished
    );
    assert_eq!(between.objects().len(), 0);
    let push = PushRequest::new(reference("vm:v1")).verify(true);
    let pushed = store.push(&push).await.unwrap();
    assert_eq!(
        (pushed.publication.sent_blobs, pushed.verified_blobs),
        (4, 4)
    );
    assert_eq!(pushed.publication.manifest_digest, taken.manifest_digest);
    // Again is no error and sends nothing.
    let pushed = store.push(&push).await.unwrap();
    assert_eq!(
        (pushed.publication.sent_blobs, pushed.verified_blobs),
        (0, 4)
    );
}

#[tokio::test]
async fn a_version_that_exists_there_is_not_replaced_unless_forced() {
    let (place, here, there) = (Place::new(), Place::new(), Place::new());
    let between = Between::directories(&place);
    let source = here.write("source", &checkpoint());
    let (store, other) = (between.node(&here).await, between.node(&there).await);
    let first = store.snapshot(&request("v1", &source)).await.unwrap();
    let own = there.write("own", &Tree::new().file("a", "other"));
    let error = other.snapshot(&request("v1", &own)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(other.list().await.unwrap().is_empty());
    there.assert_empty();
    // Taken in private, it cannot be pushed either, and stays.
    other
        .snapshot(&request("v1", &own).local(true))
        .await
        .unwrap();
    let push = PushRequest::new(reference("vm:v1"));
    let error = other.push(&push).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(
        other.list().await.unwrap()[0].state,
        SnapshotState::Unpublished
    );
    let forced = other.push(&push.force(true)).await.unwrap();
    assert_ne!(forced.publication.manifest_digest, first.manifest_digest);
    // The old one is still found by its digest, and does not take the version's name here.
    let old = reference(&format!("vm:v1@{}", first.manifest_digest));
    let pulled = other.pull(&PullRequest::new(old.clone())).await.unwrap();
    assert_eq!(pulled.manifest_digest, first.manifest_digest);
    assert_ne!(pulled.reference.version(), Some("v1"));
    let output = there.fresh();
    let restore = RestoreRequest::new(reference(&format!("vm@{}", first.manifest_digest)), &output);
    assert_eq!(other.restore(&restore).await.unwrap().fetched_blobs, 0);
    assert_same(&source, &output);
}

/// `push --force` skipped what was there with the right size, so an object that was damaged in its bucket could not be mended: only
/// `--verify` said that it was.
#[tokio::test]
async fn a_forced_push_mends_what_is_damaged_with_the_right_size() {
    let (place, here) = (Place::new(), Place::new());
    let between = Between::directories(&place);
    let source = here.write("source", &checkpoint());
    let store = between.node(&here).await;
    store.snapshot(&request("v1", &source)).await.unwrap();
    let objects = objects_below(&place.path("objects"));
    let damaged = place.path("objects").join(&objects[0]);
    let right = fs::read(&damaged).unwrap();
    fs::write(&damaged, vec![0; right.len()]).unwrap();
    let push = PushRequest::new(reference("vm:v1"));
    let error = store.push(&push.clone().verify(true)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert_eq!(store.push(&push).await.unwrap().publication.sent_blobs, 0);
    let forced = push.force(true).verify(true);
    let forced = store.push(&forced).await.unwrap();
    assert_eq!(forced.publication.sent_blobs, objects.len() as u64);
    assert!(fs::read(&damaged).unwrap() == right);
    // What replaces a version by taking another snapshot sends what is new.
    let again = request("v1", &source).force(true);
    let again = store.snapshot(&again).await.unwrap();
    assert_eq!(again.publication.unwrap().sent_blobs, 0);
}

#[tokio::test]
async fn damaged_and_missing_blobs_are_fetched_again() {
    let (place, here) = (Place::new(), Place::new());
    let between = Between::directories(&place);
    let source = here.write("source", &checkpoint());
    let store = between.node(&here).await;
    store
        .snapshot(&request("v1", &source).link_mode(snapshotter::LinkMode::Copy))
        .await
        .unwrap();
    for (index, blob) in here.blobs().iter().enumerate() {
        if index % 2 == 0 {
            fs::remove_file(blob).unwrap();
        } else {
            overwrite(blob, 0, b"damage");
        }
    }
    for no_clobber in [false, true] {
        let output = here.fresh();
        let restore = RestoreRequest::new(reference("vm:v1"), &output).no_clobber(no_clobber);
        let given = store.restore(&restore).await.unwrap();
        assert_eq!(given.fetched_blobs, if no_clobber { 0 } else { 4 });
        assert_same(&source, &output);
    }
    assert_sound(&store).await;
}

#[tokio::test]
async fn what_comes_back_altered_is_damaged_and_leaves_nothing() {
    let (place, here, there) = (Place::new(), Place::new(), Place::new());
    let between = Between::directories(&place);
    let source = here.write("source", &checkpoint());
    let store = between.node(&here).await;
    store.snapshot(&request("v1", &source)).await.unwrap();
    let largest = between
        .objects()
        .into_iter()
        .max_by_key(|object| fs::metadata(object).unwrap().len())
        .unwrap();
    let whole = fs::read(&largest).unwrap();
    let other = between.node(&there).await;
    let mut flipped = whole.clone();
    flipped[MIB as usize] ^= 1;
    let longer = [&whole[..], b"more"].concat();
    for altered in [
        &flipped[..],
        &whole[..whole.len() - 1],
        &longer,
        b"",
        b"SPF1",
    ] {
        fs::write(&largest, altered).unwrap();
        let output = there.fresh();
        let restore = RestoreRequest::new(reference("vm:v1"), &output);
        let error = other.restore(&restore).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
        assert!(!output.exists());
        assert!(other.list().await.unwrap().is_empty());
        there.assert_empty();
    }
    // `push --verify` finds it, and a forced push mends it.
    fs::write(&largest, &flipped).unwrap();
    let push = PushRequest::new(reference("vm:v1")).verify(true);
    assert_eq!(
        store.push(&push).await.unwrap_err().kind(),
        ErrorKind::Damaged
    );
    fs::remove_file(&largest).unwrap();
    store.push(&push).await.unwrap();
    other
        .pull(&PullRequest::new(reference("vm:v1")))
        .await
        .unwrap();
}

#[tokio::test]
async fn stored_bytes_that_changed_are_not_published() {
    let (place, here) = (Place::new(), Place::new());
    let between = Between::directories(&place);
    let source = here.write("source", &Tree::new().file("disk", random(1, 3 * MIB)));
    let store = between.node(&here).await;
    store
        .snapshot(&SnapshotRequest::new("vm", "v1", &source).local(true))
        .await
        .unwrap();
    let blob = here.only_blob();
    // Not even where the change hides its traces.
    overwrite_secretly(&blob, 2 * MIB, b"x");
    let error = store
        .push(&PushRequest::new(reference("vm:v1")))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
    assert_eq!(between.objects(), Vec::<PathBuf>::new());
    let error = store.inspect_remote(&reference("vm:v1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_publish_that_fails_keeps_the_snapshot() {
    let (place, here) = (Place::new(), Place::new());
    let between = Between::directories(&place);
    let source = here.write("source", &checkpoint());
    let store = between.node(&here).await;
    fs::remove_dir(&between.content.root).unwrap();
    let error = store.snapshot(&request("v1", &source)).await.unwrap_err();
    assert!(error.hint().is_some(), "{error:?}");
    assert_eq!(
        store.list().await.unwrap()[0].state,
        SnapshotState::Unpublished
    );
    fs::create_dir(&between.content.root).unwrap();
    store
        .push(&PushRequest::new(reference("vm:v1")))
        .await
        .unwrap();
    assert_eq!(
        store.list().await.unwrap()[0].state,
        SnapshotState::Published
    );
    assert_sound(&store).await;
}

/// Blobs that are marked as perhaps not on the disk.
fn marked(place: &Place) -> i64 {
    let catalog = rusqlite::Connection::open(place.root().join("metadata/catalog.db")).unwrap();
    let count = "SELECT count(*) FROM objects WHERE unsynced IS NOT NULL";
    catalog.query_row(count, [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn closing_waits_for_the_disk_where_the_bytes_are_nowhere_else() {
    for fails in [false, true] {
        let (place, here) = (Place::new(), Place::new());
        let between = Between::directories(&place);
        let source = here.write("source", &checkpoint());
        let store = between.node(&here).await;
        if fails {
            fs::remove_dir(&between.content.root).unwrap();
        }
        let published = store.snapshot(&request("v1", &source)).await;
        assert_eq!(published.is_err(), fails);
        store.close().await.unwrap();
        assert_eq!(marked(&here) == 0, fails, "fails: {fails}");
    }
}

#[tokio::test]
async fn what_is_published_is_synced_when_the_handle_lives_on() {
    let (place, here) = (Place::new(), Place::new());
    let between = Between::directories(&place);
    let source = here.write("source", &checkpoint());
    let store = between.node(&here).await;
    store.snapshot(&request("v1", &source)).await.unwrap();
    while marked(&here) > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_request_may_name_another_registry_and_content() {
    let (place, elsewhere, here) = (Place::new(), Place::new(), Place::new());
    let (usual, other) = (
        Between::directories(&place),
        Between::directories(&elsewhere),
    );
    let source = here.write("source", &checkpoint());
    let store = usual.node(&here).await;
    let taken = request("v1", &source)
        .registry(other.registry.clone())
        .content(other.content.clone());
    let usual_one = request("v2", &source);
    let (one, two) = tokio::join!(store.snapshot(&taken), store.snapshot(&usual_one));
    assert_ne!(
        one.unwrap().publication.unwrap().place,
        two.unwrap().publication.unwrap().place
    );
    let there = Place::new();
    let bare = there.open().await;
    let pull = PullRequest::new(reference("vm:v1"));
    assert_eq!(
        bare.pull(&pull).await.unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    let pull = pull.registry(other.registry).content(other.content);
    bare.pull(&pull).await.unwrap();
    let pull = PullRequest::new(reference("vm:v2"))
        .registry(usual.registry)
        .content(usual.content);
    bare.pull(&pull).await.unwrap();
    assert_eq!(bare.list().await.unwrap().len(), 2);
}

#[tokio::test]
async fn calls_at_once_fetch_each_blob_once() {
    let (place, here, there) = (Place::new(), Place::new(), Place::new());
    let between = Between::directories(&place);
    let source = here.write("source", &checkpoint());
    let store = between.node(&here).await;
    store.snapshot(&request("v1", &source)).await.unwrap();
    let other = between.node(&there).await;
    let outputs: Vec<PathBuf> = (0..6).map(|_| there.fresh()).collect();
    let mut calls = tokio::task::JoinSet::new();
    for output in outputs.clone() {
        let other = other.clone();
        calls.spawn(async move {
            let restore = RestoreRequest::new(reference("vm:v1"), output);
            other.restore(&restore).await.unwrap().fetched_blobs
        });
    }
    let fetched: u64 = calls.join_all().await.into_iter().sum();
    assert_eq!(fetched, 4);
    for output in outputs {
        assert_same(&source, &output);
    }
    assert_eq!(other.list().await.unwrap().len(), 1);
    assert_sound(&other).await;
}

/// Each call leads some of the blobs and follows the other for the rest, and commits many at once: neither may wait for
/// what the other keeps back.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_fetch_the_same_small_files_in_opposite_order_end() {
    const FILES: usize = 700;
    let (place, here) = (Place::new(), Place::new());
    let between = Between::directories(&place);
    let store = between.node(&here).await;
    let tree = |name: &dyn Fn(usize) -> usize| {
        (0..FILES).fold(Tree::new(), |tree, index| {
            // Some with a hole, which are not kept in memory.
            let content = match index % 7 {
                0 => Bytes::Sparse {
                    size: 12_288,
                    extents: vec![(8192, index as u64, 4096)],
                },
                _ => random(index as u64, 100),
            };
            tree.file(format!("{:04}", name(index)), content)
        })
    };
    let forwards = here.write("forwards", &tree(&|index| index));
    let backwards = here.write("backwards", &tree(&|index| FILES - index));
    store.snapshot(&request("v1", &forwards)).await.unwrap();
    store.snapshot(&request("v2", &backwards)).await.unwrap();
    for _ in 0..3 {
        let there = Place::new();
        let other = between.node(&there).await;
        let mut calls = tokio::task::JoinSet::new();
        for (version, source) in [("v1", &forwards), ("v2", &backwards)] {
            let (other, output, source) = (other.clone(), there.fresh(), source.clone());
            calls.spawn(async move {
                let reference = reference(&format!("vm:{version}"));
                let restore = RestoreRequest::new(reference, &output);
                let fetched = other.restore(&restore).await.unwrap().fetched_blobs;
                assert_same(&source, &output);
                fetched
            });
        }
        let fetched: u64 = calls.join_all().await.into_iter().sum();
        assert_eq!(fetched, FILES as u64);
        assert_sound(&other).await;
    }
}

#[tokio::test]
async fn what_is_there_is_listed_shown_and_removed() {
    let (place, here, there) = (Place::new(), Place::new(), Place::new());
    let between = Between::directories(&place);
    let source = here.write("source", &checkpoint());
    let store = between.node(&here).await;
    let taken = store.snapshot(&request("v1", &source)).await.unwrap();
    let other = between.node(&there).await;
    for name in [None, Some("vm")] {
        let listed = other.list_remote(name).await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].reference, reference("vm:v1"));
    }
    let details = other.inspect_remote(&reference("vm:v1")).await.unwrap();
    assert_eq!(details.manifest_digest, taken.manifest_digest);
    assert_eq!(details.files.len(), 5);
    let diagnosis = other.diagnose_remote().await.unwrap().unwrap();
    assert_eq!(
        (diagnosis.registry_error, diagnosis.content_error),
        (None, None)
    );
    let removed = other.remove_remote(&reference("vm:v1")).await.unwrap();
    assert_eq!(removed, taken.manifest_digest);
    for error in [
        other.inspect_remote(&reference("vm:v1")).await.unwrap_err(),
        other.remove_remote(&reference("vm:v1")).await.unwrap_err(),
        other
            .pull(&PullRequest::new(reference("vm:v1")))
            .await
            .unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    }
    assert!(other.list_remote(None).await.unwrap().is_empty());
    let error = other.list_remote(Some("vm")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    assert_sound(&store).await;
}

#[tokio::test]
async fn a_handle_that_is_dropped_after_a_fetch_is_closed_at_once() {
    let (place, here, there) = (Place::new(), Place::new(), Place::new());
    let between = Between::directories(&place);
    let source = here.write("source", &checkpoint());
    let store = between.node(&here).await;
    store.snapshot(&request("v1", &source)).await.unwrap();
    let other = between.node(&there).await;
    let pull = PullRequest::new(reference("vm:v1"));
    other.pull(&pull).await.unwrap();
    drop(other);
    assert_eq!(
        files_in(&there.root().join("leases")),
        Vec::<PathBuf>::new()
    );
}

/// A push with its contents in the registry failed when a connection broke, however far it was. It goes on where the
/// registry can tell, and begins that file anew where it cannot: this one cannot.
#[tokio::test]
async fn a_push_whose_connection_is_cut_goes_on() {
    let Some(server) = or_skip(RegistryServer::start(Kind::default())) else {
        return;
    };
    let way = Cutting::before(server.address().parse().unwrap(), 3_000_000);
    let (here, there) = (Place::new(), Place::new());
    let between = |endpoint: String| Between {
        registry: Registry::new(endpoint, "snapshots"),
        content: Content::new(ContentProvider::Registry),
        _servers: (None, None),
    };
    let source = here.write("source", &Tree::new().file("disk", random(5, 9_000_000)));
    let node = between(way.endpoint()).node(&here).await;
    take(&node, "v1", &source).await;
    assert!(way.has_cut());
    let other = between(server.url()).node(&there).await;
    let output = there.fresh();
    assert_eq!(give(&other, "v1", &output).await.fetched_blobs, 1);
    assert_same(&source, &output);
}

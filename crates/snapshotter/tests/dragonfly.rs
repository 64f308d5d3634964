//! Two nodes, a daemon on each, one bucket: a checkpoint moves from node to node through the daemons, and past them where
//! they cannot be used.

use crate::support_a;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use snapshotter::{
    Capability, Config, Content, ContentProvider, Dragonfly, ErrorKind, PullRequest, PushRequest,
    Registry, RestoreRequest, SnapshotRequest, Snapshotter, VerifyRequest, Warning, WarningKind,
};
use support_a::*;
use testkit::compare::assert_same;
use testkit::dragonfly::{Asked, Call, Cluster, Download, End, FakeDaemon, Gate, Options, Upload};
use testkit::s3::S3;
use testkit::{Content as Bytes, Tree};

const MIB: u64 = 1 << 20;

/// What the nodes share: a directory as the registry, a bucket, a scheduler.
struct Between {
    shared: Place,
    s3: S3,
    cluster: Cluster,
}

/// A node: a root and a daemon.
struct Node {
    place: Place,
    daemon: FakeDaemon,
    store: Snapshotter,
}

impl Between {
    fn new() -> Self {
        let s3 = S3::start("checkpoints");
        Self {
            shared: Place::new(),
            cluster: Cluster::over(s3.bucket(), s3.dir()),
            s3,
        }
    }

    fn registry(&self) -> Registry {
        let layouts = self.shared.path("layouts");
        Registry::new(format!("oci-layout:{}", layouts.display()), "snapshots")
    }

    fn content(&self) -> Content {
        let mut content = in_bucket(&self.s3, self.s3.endpoint());
        content.retries = 0;
        content
    }

    async fn node(&self) -> Node {
        let place = Place::new();
        let daemon = FakeDaemon::start(&self.cluster, Options::default());
        let store = place
            .open_with(|config| {
                config
                    .registry(self.registry())
                    .content(self.content())
                    .dragonfly(Dragonfly::new(daemon.endpoint()))
            })
            .await;
        Node {
            place,
            daemon,
            store,
        }
    }
}

/// A VM's files: memory with holes, a disk, small ones.
fn checkpoint() -> Tree {
    Tree::new()
        .file(
            "memory",
            Bytes::Sparse {
                size: 24 * MIB,
                extents: vec![(0, 1, 65536), (5 * MIB, 2, 3 * MIB), (20 * MIB, 3, 4096)],
            },
        )
        .file(
            "images/disk.img",
            Bytes::Random {
                seed: 4,
                len: 6 * MIB,
            },
        )
        .file("state.json", "{}")
        .file("empty", "")
        .mtime("memory", OLD.0, OLD.1)
}

fn request(version: &str, source: &Path) -> SnapshotRequest {
    SnapshotRequest::new("vm", version, source).read_only("memory")
}

fn restore(output: &Path) -> RestoreRequest {
    RestoreRequest::new(reference("vm:v1"), output)
}

fn assert_direct(warnings: &[Warning], because: &str) {
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0].kind, WarningKind::Direct);
    assert!(warnings[0].message.contains(because), "{warnings:?}");
}

#[tokio::test]
async fn a_checkpoint_moves_from_node_to_node_through_their_daemons() {
    let between = Between::new();
    let (here, there) = (between.node().await, between.node().await);
    let source = here.place.write("source", &checkpoint());
    let taken = here.store.snapshot(&request("v1", &source)).await.unwrap();
    assert_eq!(taken.warnings, []);
    assert_eq!(taken.publication.unwrap().sent_blobs, 4);
    assert_eq!(here.daemon.uploads().len(), 4);
    let mut keys = between.s3.keys();
    keys.retain(|key| !key.starts_with("snapshotter/"));
    assert_eq!(keys.len(), 4);
    // The bucket has other bytes now: what comes right has come from the other node.
    for key in keys {
        let object = between.s3.object(&key);
        let length = fs::metadata(&object).unwrap().len();
        fs::write(&object, vec![0; usize::try_from(length).unwrap()]).unwrap();
    }
    let output = there.place.fresh();
    let given = there.store.restore(&restore(&output)).await.unwrap();
    assert_eq!((given.fetched_blobs, &given.warnings[..]), (4, &[][..]));
    assert_same(&source, &output);
    assert_eq!(there.daemon.downloads().len(), 4);
    assert_sound(&there.store).await;
    // What is here is not asked for again.
    let again = there.store.restore(&restore(&there.place.fresh())).await;
    assert_eq!(again.unwrap().fetched_blobs, 0);
    assert_eq!(there.daemon.downloads().len(), 4);
    for node in [here, there] {
        let root = node.place.root();
        node.store.close().await.unwrap();
        assert!(files_below(&root.join("staging")).is_empty());
    }
}

#[tokio::test]
async fn daemons_that_are_gone_are_gone_around_and_each_report_says_so() {
    let between = Between::new();
    let (here, there) = (between.node().await, between.node().await);
    let (
        Node {
            place,
            daemon,
            store,
        },
        other,
    ) = (here, there.store.clone());
    drop(daemon);
    drop(there.daemon);
    let source = place.write("source", &checkpoint());
    let taken = store.snapshot(&request("v1", &source)).await.unwrap();
    assert_direct(&taken.warnings, "dfdaemon.sock");
    assert_eq!(taken.publication.unwrap().sent_blobs, 4);
    let output = there.place.fresh();
    let given = other.restore(&restore(&output)).await.unwrap();
    assert_direct(&given.warnings, "dfdaemon.sock");
    assert_same(&source, &output);
    // Nothing is to be sent or fetched any more: nothing to warn of.
    let pushed = store.push(&PushRequest::new(reference("vm:v1"))).await;
    assert_eq!(pushed.unwrap().warnings, []);
    let pulled = other.pull(&PullRequest::new(reference("vm:v1"))).await;
    assert_eq!(pulled.unwrap().warnings, []);
}

/// A pull dropped what its call had gathered: its report never had a warning, and `--strict` never anything to fail for.
/// Each verb filled its report by itself, and what it was told of is put there in one place now.
#[tokio::test]
async fn pushes_pulls_and_repairs_that_go_around_a_daemon_say_so_too() {
    let between = Between::new();
    let (here, there) = (between.node().await, between.node().await);
    let source = here.place.write("source", &checkpoint());
    let local = request("v1", &source).local(true);
    assert_eq!(here.store.snapshot(&local).await.unwrap().warnings, []);
    drop(here.daemon);
    drop(there.daemon);
    let pushed = here.store.push(&PushRequest::new(reference("vm:v1"))).await;
    assert_direct(&pushed.unwrap().warnings, "dfdaemon.sock");
    let pulled = there
        .store
        .pull(&PullRequest::new(reference("vm:v1")))
        .await;
    let pulled = pulled.unwrap();
    assert_eq!(pulled.fetched_blobs, 4);
    assert_direct(&pulled.warnings, "dfdaemon.sock");
    let blobs = there.place.blobs();
    let largest = blobs.iter().max_by_key(|blob| stat(blob).len()).unwrap();
    fs::remove_file(largest).unwrap();
    let repaired = there.store.verify(&VerifyRequest::all().repair(true)).await;
    let repaired = repaired.unwrap();
    assert_eq!(repaired.repaired.len(), 1);
    assert_direct(&repaired.warnings, "dfdaemon.sock");
}

#[tokio::test]
async fn a_scheduler_that_is_down_is_gone_around() {
    let between = Between::new();
    let (here, there) = (between.node().await, between.node().await);
    between.cluster.set_scheduler_down(true);
    let source = here.place.write("source", &checkpoint());
    let taken = here.store.snapshot(&request("v1", &source)).await.unwrap();
    assert_direct(&taken.warnings, "currently unavailable");
    let output = there.place.fresh();
    let given = there.store.restore(&restore(&output)).await.unwrap();
    assert_direct(&given.warnings, "currently unavailable");
    assert_same(&source, &output);
}

#[tokio::test]
async fn wrong_bytes_of_a_daemon_are_fetched_again_from_the_bucket() {
    let between = Between::new();
    let (here, there) = (between.node().await, between.node().await);
    let source = here.place.write("source", &checkpoint());
    here.store.snapshot(&request("v1", &source)).await.unwrap();
    there.daemon.answer_downloads(|_, number| match number {
        0 => Download::Damage,
        _ => Download::Well,
    });
    let output = there.place.fresh();
    let given = there.store.restore(&restore(&output)).await.unwrap();
    assert_direct(&given.warnings, "brought wrong bytes");
    assert_same(&source, &output);
    assert_sound(&there.store).await;
}

#[tokio::test]
async fn wrong_bytes_of_daemon_and_bucket_are_damaged_and_leave_nothing() {
    let between = Between::new();
    let (here, there) = (between.node().await, between.node().await);
    let source = here.place.write("source", &checkpoint());
    here.store.snapshot(&request("v1", &source)).await.unwrap();
    drop(here.daemon);
    for key in between.s3.keys() {
        let object = between.s3.object(&key);
        let mut bytes = fs::read(&object).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&object, bytes).unwrap();
    }
    let output = there.place.fresh();
    let error = there.store.restore(&restore(&output)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(!output.exists());
    assert_eq!(there.store.list().await.unwrap(), []);
}

#[tokio::test]
async fn a_call_that_is_given_up_does_not_cut_its_uploads_off_and_closing_waits_for_them() {
    let between = Between::new();
    let node = between.node().await;
    let gate = Gate::default();
    let held = gate.clone();
    node.daemon
        .answer_uploads(move |_, _| Upload::Hold(held.clone()));
    let source = node.place.write(
        "source",
        &Tree::new().file("disk", Bytes::Random { seed: 1, len: MIB }),
    );
    let store = node.store.clone();
    let taking = tokio::spawn(async move { store.snapshot(&request("v1", &source)).await });
    gate.reached(1).await;
    taking.abort();
    assert!(taking.await.unwrap_err().is_cancelled());
    let closing = node.store.clone();
    let closing = tokio::spawn(async move { closing.close().await });
    // The file is read for as long as the daemon has not answered.
    let staging = node.place.root().join("staging");
    assert_eq!(files_below(&staging).len(), 1);
    assert!(!closing.is_finished());
    gate.open();
    closing.await.unwrap().unwrap();
    assert!(files_below(&staging).is_empty());
    assert_eq!(
        between
            .s3
            .keys()
            .iter()
            .filter(|key| !key.starts_with("snapshotter/"))
            .count(),
        1
    );
    assert_eq!(between.cluster.uploading(), 0);
    let upload = |call: &Call| matches!(call.asked, Asked::Upload(_));
    let upload = node.daemon.calls().into_iter().find(upload).unwrap();
    assert_eq!((upload.end, upload.deadline), (Some(End::Answered), None));
}

#[tokio::test]
async fn what_a_request_names_instead_goes_through_the_daemon_if_it_is_a_bucket() {
    let between = Between::new();
    let node = between.node().await;
    let source = node.place.write("source", &checkpoint());
    let local = request("v1", &source).local(true);
    node.store.snapshot(&local).await.unwrap();
    let mut directory = Content::new(ContentProvider::Fs);
    directory.root = node.place.path("objects");
    fs::create_dir(&directory.root).unwrap();
    let push = PushRequest::new(reference("vm:v1"));
    let pushed = node.store.push(&push.clone().content(directory)).await;
    assert_eq!(pushed.unwrap().publication.sent_blobs, 4);
    assert!(node.daemon.uploads().is_empty());
    let mut token = between.content();
    token.insecure_skip_verify = true;
    let pushed = node.store.push(&push.content(token)).await.unwrap();
    assert_eq!(
        (pushed.publication.sent_blobs, &pushed.warnings[..]),
        (4, &[][..])
    );
    let uploads = node.daemon.uploads();
    assert_eq!(uploads.len(), 4);
    let storage = uploads[0].object_storage.as_ref().unwrap();
    assert_eq!(storage.insecure_skip_verify, Some(true));
}

#[tokio::test]
async fn reading_back_reads_the_bucket_and_not_the_daemons_cache() {
    let between = Between::new();
    let node = between.node().await;
    let source = node.place.write("source", &checkpoint());
    node.store.snapshot(&request("v1", &source)).await.unwrap();
    let verify = PushRequest::new(reference("vm:v1")).verify(true);
    assert_eq!(node.store.push(&verify).await.unwrap().verified_blobs, 4);
    let keys = between.s3.keys().into_iter();
    let mut keys = keys.filter(|key| key.starts_with("xxh3/"));
    let object = between.s3.object(&keys.next().unwrap());
    let mut bytes = fs::read(&object).unwrap();
    bytes[10] ^= 1;
    fs::write(&object, bytes).unwrap();
    let error = node.store.push(&verify).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
}

#[tokio::test]
async fn a_diagnosis_tries_the_daemon() {
    let between = Between::new();
    let node = between.node().await;
    let found = node.store.diagnose_remote().await.unwrap().unwrap();
    let dragonfly = found.dragonfly.unwrap();
    assert_eq!(dragonfly.endpoint, node.daemon.endpoint());
    assert_eq!(dragonfly.error, None);
    assert_eq!(dragonfly.files, Some(Capability::Yes));
    assert_eq!(dragonfly.hardlink, Some(Capability::Yes));
    assert_eq!(found.content_error, None);
    node.store.close().await.unwrap();
    node.place.assert_empty();
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_before_a_root_is_made() {
    let between = Between::new();
    let root = between.shared.path("root");
    let config = || Config::new(&root).registry(between.registry());
    let daemon = Dragonfly::new("unix:///nowhere/dfdaemon.sock");
    let mut layers = Content::new(ContentProvider::Registry);
    layers.retries = 0;
    let cases = [
        config().dragonfly(daemon.clone()).content(layers),
        Config::new(&root).dragonfly(daemon.clone()),
        config()
            .content(between.content())
            .dragonfly(daemon.clone().ttl(Duration::from_secs(1))),
        config()
            .content(between.content())
            .dragonfly(Dragonfly::new("dfdaemon.sock")),
    ];
    for config in cases {
        let error = Snapshotter::open(config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().starts_with("dragonfly"), "{error}");
    }
    assert!(!root.exists());
    // One that is not there is no mistake: it may come.
    let config = config().content(between.content()).dragonfly(daemon);
    let store = Snapshotter::open(config).await.unwrap();
    let found = store.diagnose_remote().await.unwrap().unwrap();
    let (kind, text) = found.dragonfly.unwrap().error.unwrap();
    assert_eq!(kind, ErrorKind::Unavailable);
    assert!(text.contains("/nowhere/dfdaemon.sock"), "{text}");
}

/// The blobs of a node, packed ones and plain ones.
fn forms(node: &Node) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let is_packed = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "spf");
    node.place.blobs().into_iter().partition(is_packed)
}

#[tokio::test]
async fn what_a_daemon_delivers_is_one_inode_with_its_cache_until_it_is_linked_to() {
    let between = Between::new();
    let (here, there) = (between.node().await, between.node().await);
    let source = here.place.write("source", &checkpoint());
    here.store.snapshot(&request("v1", &source)).await.unwrap();
    let output = there.place.fresh();
    let given = there.store.restore(&restore(&output)).await.unwrap();
    assert_same(&source, &output);
    // The disk, which is writable, is the daemon's file; the memory was decoded, and the output is a link to it.
    let (packed, plain) = forms(&there);
    assert_eq!((packed.len(), plain.len()), (1, 3));
    let cached: Vec<_> = there
        .daemon
        .downloads()
        .iter()
        .filter_map(|asked| {
            let storage = asked.object_storage.as_ref()?;
            there.daemon.cached(&asked.url, storage)
        })
        .map(|path| inode(&path))
        .collect();
    assert!(cached.contains(&inode(&packed[0])));
    assert_eq!(given.placements.hardlink.files, 1);
    assert_eq!(stat(&output.join("memory")).nlink(), 2);
    assert_eq!(stat(&output.join("images/disk.img")).nlink(), 1);
    assert_sound(&there.store).await;
}

#[tokio::test]
async fn a_pull_keeps_what_was_delivered_and_a_restore_makes_of_it_what_it_needs() {
    let between = Between::new();
    let (here, there) = (between.node().await, between.node().await);
    let source = here.place.write("source", &checkpoint());
    here.store.snapshot(&request("v1", &source)).await.unwrap();
    let pull = PullRequest::new(reference("vm:v1"));
    assert_eq!(there.store.pull(&pull).await.unwrap().fetched_blobs, 4);
    // The two small files are not worth an inode that others may change.
    let (packed, plain) = forms(&there);
    assert_eq!((packed.len(), plain.len()), (2, 2));
    let output = there.place.fresh();
    let given = there.store.restore(&restore(&output)).await.unwrap();
    assert_eq!(given.fetched_blobs, 0);
    assert_same(&source, &output);
    assert_eq!(forms(&there).0.len(), 1);
    assert_sound(&there.store).await;
}

#[tokio::test]
async fn wrong_bytes_of_a_daemon_are_fetched_from_the_bucket_and_the_report_says_so() {
    let between = Between::new();
    let (here, there) = (between.node().await, between.node().await);
    let source = here.place.write("source", &checkpoint());
    here.store.snapshot(&request("v1", &source)).await.unwrap();
    there.daemon.answer_downloads(|_, _| Download::Damage);
    let output = there.place.fresh();
    let given = there.store.restore(&restore(&output)).await.unwrap();
    assert_same(&source, &output);
    assert_eq!((given.fetched_blobs, given.warnings.len()), (4, 4));
    for warning in &given.warnings {
        assert_eq!(warning.kind, WarningKind::Direct);
        assert!(
            warning.message.contains("the bucket right ones"),
            "{warning:?}"
        );
    }
    assert_eq!(there.daemon.downloads().len(), 4);
    assert_sound(&there.store).await;
    assert!(files_below(&there.place.root().join("staging")).is_empty());
}

#[tokio::test]
async fn a_restore_that_is_given_up_while_a_daemon_delivers_leaves_nothing() {
    let between = Between::new();
    let (here, there) = (between.node().await, between.node().await);
    let source = here.place.write("source", &checkpoint());
    here.store.snapshot(&request("v1", &source)).await.unwrap();
    let gate = Gate::default();
    let held = gate.clone();
    there.daemon.answer_downloads(move |_, _| Download::Hold {
        after: 0,
        gate: held.clone(),
    });
    let (store, output) = (there.store.clone(), there.place.fresh());
    let wanted = restore(&output);
    let restoring = tokio::spawn(async move { store.restore(&wanted).await });
    gate.reached(1).await;
    restoring.abort();
    assert!(restoring.await.unwrap_err().is_cancelled());
    there.store.close().await.unwrap();
    gate.open();
    there.place.assert_empty();
    assert!(!output.exists());
}

/// The packs of a node's store.
fn packs(node: &Node) -> Vec<PathBuf> {
    let content = node.place.content();
    let all = files_below(&content).into_iter();
    let packs = all.filter(|path| path.extension().is_some_and(|end| end == "pack"));
    packs.map(|path| content.join(path)).collect()
}

#[tokio::test]
async fn packs_are_uploaded_where_they_are_and_delivered_as_what_they_stay() {
    let between = Between::new();
    let (here, there) = (between.node().await, between.node().await);
    let source = here.place.write("source", &checkpoint());
    for step in 1..=3_u64 {
        let state = fs::OpenOptions::new()
            .write(true)
            .open(source.join("memory"));
        let page = [u8::try_from(step).unwrap(); 4096];
        std::os::unix::fs::FileExt::write_all_at(&state.unwrap(), &page, 5 * MIB + step * 4096)
            .unwrap();
        let version = format!("v{step}");
        let request = request(&version, &source).format(snapshotter::Format::V2);
        let taken = here.store.snapshot(&request).await.unwrap();
        assert_eq!(taken.warnings, []);
        assert_eq!(taken.publication.unwrap().sent_blobs, 1);
        assert_eq!(here.daemon.uploads().len() as u64, step);
        let reference = reference(&format!("vm:{version}"));
        let pulled = there
            .store
            .pull(&PullRequest::new(reference))
            .await
            .unwrap();
        assert_eq!((pulled.fetched_blobs, pulled.reused_blobs), (1, step - 1));
        assert_eq!(pulled.warnings, []);
    }
    // One inode in the store and in the daemon's cache, on both sides: nothing was copied.
    for node in [&here, &there] {
        let packs = packs(node);
        assert_eq!(packs.len(), 3);
        for pack in packs {
            assert_eq!(
                fs::metadata(&pack).unwrap().nlink(),
                2,
                "{}",
                pack.display()
            );
        }
    }
    let output = there.place.fresh();
    let request = RestoreRequest::new(reference("vm:v3"), &output);
    there.store.restore(&request).await.unwrap();
    assert_same(&source, &output);
    assert_sound(&there.store).await;
    for node in [here, there] {
        let root = node.place.root();
        node.store.close().await.unwrap();
        assert!(files_below(&root.join("staging")).is_empty());
    }
}

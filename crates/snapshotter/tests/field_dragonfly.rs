//! A node beside nodes of the Go library, which need a daemon's socket and no more, and name a bucket as its settings do.

use crate::support_a;

use std::path::{Path, PathBuf};

use snapshotter::{
    Config, Content, ContentProvider, Dragonfly, Registry, RestoreRequest, SnapshotRequest,
    SnapshotState, Snapshotter,
};
use support_a::*;
use testkit::compare::assert_same;
use testkit::dragonfly::{Cluster, FakeDaemon, Options};
use testkit::proxy::{Act, Weather};
use testkit::s3::S3;

/// A directory as the registry, a bucket, a scheduler.
struct Between {
    shared: Place,
    s3: S3,
    cluster: Cluster,
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

    fn config(&self, root: PathBuf, content: Content, daemon: &FakeDaemon) -> Config {
        let layouts = format!("oci-layout:{}", self.shared.path("layouts").display());
        Config::new(root)
            .registry(Registry::new(layouts, "snapshots"))
            .content(content)
            .dragonfly(Dragonfly::new(daemon.endpoint()))
    }

    async fn node(&self, place: &Place, content: &Content) -> (Snapshotter, FakeDaemon) {
        let daemon = FakeDaemon::start(&self.cluster, Options::default());
        let config = self.config(place.root(), content.clone(), &daemon);
        (Snapshotter::open(config).await.unwrap(), daemon)
    }

    /// Without address and keys.
    fn bare(&self) -> Content {
        let mut content = Content::new(ContentProvider::S3);
        content.bucket = Some(self.s3.bucket().to_owned());
        content
    }

    fn at(&self, endpoint: String) -> Content {
        let mut content = in_bucket(&self.s3, endpoint);
        content.retries = 0;
        content
    }
}

fn taking(version: &str, base: &Path) -> SnapshotRequest {
    SnapshotRequest::new("vm", version, base)
}

/// Two snapshots that share a file go from node to node.
async fn travels(between: &Between, content: &Content) {
    let (here, there) = (Place::new(), Place::new());
    let (one, _daemon) = between.node(&here, content).await;
    let (other, _daemon_there) = between.node(&there, content).await;
    for (seed, version, sent) in [(1, "v1", 2), (2, "v2", 1)] {
        let source = here.write(version, &vm(seed));
        let taken = one.snapshot(&taking(version, &source)).await.unwrap();
        assert_eq!(taken.publication.unwrap().sent_blobs, sent, "{version}");
        let name = reference(&format!("vm:{version}"));
        let found = one.find(&name).await.unwrap();
        assert_eq!(found.state, SnapshotState::Published);
        let output = there.fresh();
        let restoring = RestoreRequest::new(name, &output);
        other.restore(&restoring).await.unwrap();
        assert_same(&source, &output);
    }
}

/// The bucket was asked first, and without its address or keys, or where this node does not reach it, nothing was published.
#[tokio::test]
async fn a_daemon_alone_is_enough() {
    let between = Between::new();
    travels(&between, &between.bare()).await;
}

#[tokio::test]
async fn a_bucket_that_this_node_does_not_reach_is_the_daemons_matter() {
    let between = Between::new();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    travels(&between, &between.at(endpoint)).await;
}

#[tokio::test]
async fn keys_that_this_node_may_not_use_are_the_daemons_matter() {
    let between = Between::new();
    let mut content = between.at(between.s3.endpoint());
    content.access_key_secret = Some("another".to_owned());
    travels(&between, &content).await;
}

/// It was asked by who publishes, and again by who sends.
#[tokio::test]
async fn a_bucket_is_asked_once_for_a_new_blob() {
    let (between, here) = (Between::new(), Place::new());
    let proxy = Weather::before(between.s3.address(), |_| Act::Pass);
    let (store, daemon) = between.node(&here, &between.at(proxy.endpoint())).await;
    let source = here.write("source", &vm(1));
    store.snapshot(&taking("v1", &source)).await.unwrap();
    assert_eq!(daemon.uploads().len(), 2);
    let asked: Vec<_> = proxy
        .asked()
        .into_iter()
        .filter(|asked| !asked.target.contains("snapshotter/"))
        .map(|asked| asked.method)
        .collect();
    assert_eq!(asked, ["HEAD", "HEAD"]);
}

/// The task of an object is named after the endpoint as it is spelled.
#[tokio::test]
async fn the_daemon_is_told_the_endpoint_as_it_is_written() {
    let (between, here) = (Between::new(), Place::new());
    let written = between.s3.endpoint().replace("127.0.0.1", "LocalHost");
    let written = format!("{written}/");
    let (store, daemon) = between.node(&here, &between.at(written.clone())).await;
    let source = here.write("source", &vm(1));
    store.snapshot(&taking("v1", &source)).await.unwrap();
    for upload in daemon.uploads() {
        let storage = upload.object_storage.unwrap();
        assert_eq!(storage.endpoint.as_deref(), Some(&*written));
    }
}

/// Google's bucket with the pair of keys that the Go library has settings for.
#[tokio::test]
async fn the_go_librarys_keys_for_google_go_to_the_daemon() {
    let (between, here) = (Between::new(), Place::new());
    let mut content = between.bare();
    content.provider = ContentProvider::Gcs;
    content.access_key_id = Some("GOOG1".to_owned());
    content.access_key_secret = Some("hunter2".to_owned());
    let (store, daemon) = between.node(&here, &content).await;
    let source = here.write("source", &vm(1));
    // The cluster has S3 alone.
    let _ = store.snapshot(&taking("v1", &source)).await;
    let upload = daemon.uploads().into_iter().next().unwrap();
    assert!(
        upload.url.starts_with("gs://checkpoints/xxh3/"),
        "{}",
        upload.url
    );
    let storage = upload.object_storage.unwrap();
    assert_eq!(storage.access_key_id.as_deref(), Some("GOOG1"));
    assert_eq!(storage.access_key_secret.as_deref(), Some("hunter2"));
}

/// A root given as `../x` went to the daemon as `/cwd/../x`, which is another directory where something on the way is a link.
#[tokio::test]
async fn the_daemon_is_told_clean_paths() {
    let (between, here) = (Between::new(), Place::new());
    let below = here.path("a/b");
    std::fs::create_dir_all(&below).unwrap();
    std::os::unix::fs::symlink(&below, here.path("link")).unwrap();
    let daemon = FakeDaemon::start(&between.cluster, Options::default());
    let root = here.path("link/../store");
    let content = between.at(between.s3.endpoint());
    let store = Snapshotter::open(between.config(root, content.clone(), &daemon));
    let store = store.await.unwrap();
    let source = here.write("source", &vm(1));
    store.snapshot(&taking("v1", &source)).await.unwrap();
    let expected = here.path("a/store").canonicalize().unwrap();
    for upload in daemon.uploads() {
        assert!(
            Path::new(&upload.path).starts_with(&expected),
            "{}",
            upload.path
        );
    }
    let there = Place::new();
    std::fs::create_dir_all(there.path("x")).unwrap();
    let daemon = FakeDaemon::start(&between.cluster, Options::default());
    let config = between.config(there.path("x/../store"), content, &daemon);
    let other = Snapshotter::open(config).await.unwrap();
    let output = there.fresh();
    let restoring = RestoreRequest::new(reference("vm:v1"), &output);
    other.restore(&restoring).await.unwrap();
    assert_same(&source, &output);
    for download in daemon.downloads() {
        assert!(!download.output_path.unwrap().contains(".."));
    }
}

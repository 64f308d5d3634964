//! Where snapshots are besides here: garbage collection never releases the last copy, whatever others did to the other
//! one, and the rows that say where a snapshot is are revised by whoever looks.

use crate::support_a;
use crate::support_b;
use crate::support_c;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use snapshotter::{
    Config, Content, ContentProvider, Dragonfly, ErrorKind, Gc, GcReport, GcRequest, KeptFor,
    PullRequest, PushRequest, Registry, SnapshotState, SnapshotSummary, Snapshotter, VerifyRequest,
    WarningKind,
};
use support_a::*;
use support_b::outside::catalog;
use support_c::{Layouts, Sky, bucket, directory};
use testkit::Tree;
use testkit::compare::assert_same;
use testkit::dragonfly::{Cluster, FakeDaemon, Options};
use testkit::proxy::{Act, Weather};
use testkit::registry::{Kind, RegistryServer, or_skip};
use testkit::s3::S3;

/// The machine's own disk may be as full as it likes, and nobody collects but who is told to.
fn calm() -> Gc {
    let mut gc = Gc::default();
    gc.disk_high_threshold_percent = 100.0;
    gc.disk_low_threshold_percent = 100.0;
    gc.background = false;
    gc.min_retention_period = Duration::ZERO;
    gc
}

/// All that is elsewhere too.
fn published() -> GcRequest {
    GcRequest::new().max_bytes(0)
}

/// What nodes share: directories, or whatever stands in for them.
struct Between {
    place: Place,
    registry: Registry,
    content: Content,
}

impl Between {
    fn directories() -> Self {
        let place = Place::new();
        Self {
            registry: Layouts(place.path("layouts")).registry(),
            content: directory(&place.path("objects")),
            place,
        }
    }

    /// With something else for the registry.
    fn with_registry(registry: Registry) -> Self {
        Self {
            registry,
            ..Self::directories()
        }
    }

    fn with_content(content: Content) -> Self {
        Self {
            content,
            ..Self::directories()
        }
    }

    async fn open(&self, node: &Place) -> Snapshotter {
        self.open_with(node, |config| config).await
    }

    async fn open_with(&self, node: &Place, change: impl FnOnce(Config) -> Config) -> Snapshotter {
        let (registry, content) = (self.registry.clone(), self.content.clone());
        node.open_with(|config| change(config.registry(registry).content(content).gc(calm())))
            .await
    }

    /// A node that has taken and published `test:v1` and more, each with a file of its own.
    async fn with_published(&self, versions: usize) -> Node {
        let place = Place::new();
        let store = self.open(&place).await;
        let mut sources = Vec::new();
        for number in 1..=versions {
            let source = place.write(&format!("v{number}"), &vm(number as u64));
            take(&store, &format!("v{number}"), &source).await;
            sources.push(source);
        }
        Node {
            place,
            store,
            sources,
        }
    }

    /// The files of all objects.
    fn objects(&self) -> Vec<PathBuf> {
        let root = self.place.path("objects");
        let below = objects_below(&root);
        below.into_iter().map(|object| root.join(object)).collect()
    }
}

struct Node {
    place: Place,
    store: Snapshotter,
    sources: Vec<PathBuf>,
}

impl Node {
    async fn summary(&self) -> SnapshotSummary {
        let mut list = self.store.list().await.unwrap();
        list.retain(|one| one.reference == reference("test:v1"));
        list.pop().expect("test:v1 is here")
    }

    async fn collect(&self) -> GcReport {
        self.store.gc(&published()).await.unwrap()
    }

    /// A dry run says what the collection then does.
    async fn collect_after_a_dry_run(&self) -> GcReport {
        let dry = self.store.gc(&published().dry_run(true)).await.unwrap();
        let report = self.collect().await;
        assert_eq!(dry.released, report.released);
        let stay = |report: &GcReport| report.kept.unconfirmed + report.kept.only_copies;
        assert_eq!(stay(&dry), stay(&report), "{dry:?} {report:?}");
        report
    }

    /// It is kept as an only copy, nobody is asked, and it comes back from what is here.
    async fn stays_as_only_copy(&self) {
        let report = self.collect_after_a_dry_run().await;
        assert!(report.released.is_empty(), "{report:?}");
        assert_eq!((report.kept.only_copies, report.kept.unconfirmed), (1, 0));
        assert_eq!(report.warnings, []);
        let details = self.store.usage_details().await.unwrap();
        assert_eq!(details.snapshots[0].kept, Some(KeptFor::OnlyCopy));
        self.comes_back().await;
    }

    /// It was said to be elsewhere, is not, and stays; from then on that is known, unless it was a dry run that found out.
    /// The warning says `why`.
    async fn stays_because(&self, why: &str) {
        let report = self.store.gc(&published().dry_run(true)).await.unwrap();
        self.was_kept(&report, why);
        assert_eq!(self.summary().await.state, SnapshotState::Published);
        let report = self.collect().await;
        self.was_kept(&report, why);
        let summary = self.summary().await;
        assert_eq!(summary.state, SnapshotState::Unpublished, "{summary:?}");
        assert_eq!(summary.publications, []);
        let report = self.collect().await;
        assert!(report.released.is_empty(), "{report:?}");
        self.comes_back().await;
    }

    fn was_kept(&self, report: &GcReport, why: &str) {
        assert!(report.released.is_empty(), "{report:?}");
        assert_eq!((report.kept.only_copies, report.kept.unconfirmed), (0, 1));
        assert_eq!(report.warnings.len(), 1, "{report:?}");
        assert_eq!(report.warnings[0].kind, WarningKind::Kept);
        let said = &report.warnings[0].message;
        assert!(said.contains("test:v1") && said.contains(why), "{said}");
    }

    /// It could not be asked for, and stays; what is known of it stays too.
    async fn stays_for_now(&self, why: &str) {
        for request in [published().dry_run(true), published()] {
            let report = self.store.gc(&request).await.unwrap();
            self.was_kept(&report, why);
        }
        assert_eq!(self.summary().await.state, SnapshotState::Published);
        self.comes_back().await;
    }

    async fn comes_back(&self) {
        let output = self.place.fresh();
        give(&self.store, "v1", &output).await;
        assert_same(&self.sources[0], &output);
    }

    /// It goes, and comes back from elsewhere.
    async fn goes(&self) {
        let report = self.collect_after_a_dry_run().await;
        assert_eq!(report.released.len(), 1, "{report:?}");
        assert_eq!(report.warnings, []);
        self.place.assert_empty();
        self.comes_back().await;
    }

    /// Publishing it again makes it what may go.
    async fn goes_once_it_is_pushed_again(&self) {
        let request = PushRequest::new(reference("test:v1"));
        self.store.push(&request).await.unwrap();
        assert_eq!(self.summary().await.state, SnapshotState::Published);
        self.goes().await;
    }
}

#[tokio::test]
async fn what_is_published_says_where() {
    let between = Between::directories();
    let node = between.with_published(1).await;
    let summary = node.summary().await;
    assert_eq!(summary.state, SnapshotState::Published);
    let [at] = &summary.publications[..] else {
        panic!("{summary:?}");
    };
    let layouts = between.place.path("layouts");
    let expected = format!("oci-layout:{}/snapshots/test", layouts.display());
    assert_eq!(at.registry.as_deref(), Some(&*expected));
    let objects = between.place.path("objects");
    assert_eq!(at.content, Some(format!("fs://{}", objects.display())));
    assert_eq!(at.manifest_digest, summary.manifest_digest);
    assert!(at.seen_at >= summary.created_at);
    // The same where it was fetched from.
    let there = Place::new();
    let other = between.open(&there).await;
    let pull = PullRequest::new(reference("test:v1"));
    other.pull(&pull).await.unwrap();
    let details = other.inspect(&reference("test:v1")).await.unwrap();
    assert_eq!(details.summary.state, SnapshotState::Fetched);
    let [fetched] = &details.summary.publications[..] else {
        panic!("{details:?}");
    };
    assert_eq!(
        (&fetched.registry, &fetched.content),
        (&at.registry, &at.content)
    );
    // And what nobody published is nowhere.
    let local = there.write("local", &vm(7));
    let local = all("v7", &local).local(true);
    other.snapshot(&local).await.unwrap();
    let pinned = other.pin(&reference("test:v7")).await.unwrap();
    assert_eq!(pinned.publications, []);
}

#[tokio::test]
async fn a_place_is_known_by_one_spelling() {
    let between = Between::directories();
    let node = between.with_published(1).await;
    node.store.close().await.unwrap();
    let mut content = between.content.clone();
    content.root = between.place.path("./objects//");
    let registry = Registry::new(
        format!("oci-layout:{}//", between.place.path("layouts/.").display()),
        "snapshots",
    );
    let respelled = Between {
        registry,
        content,
        place: Place::new(),
    };
    let store = respelled.open(&node.place).await;
    Node { store, ..node }.goes().await;
}

// "Published" was a state for ever: `remove --remote` and then gc deleted the last copy, though "what is here stays".
// Removing a manifest forgets that the snapshot is there, so it is an only copy again, without asking anybody.
#[tokio::test]
async fn what_was_removed_from_the_registry_is_an_only_copy() {
    let between = Between::directories();
    let node = between.with_published(1).await;
    let removed = node.store.remove_remote(&reference("test:v1")).await;
    let summary = node.summary().await;
    assert_eq!(removed.unwrap(), summary.manifest_digest);
    assert_eq!(summary.state, SnapshotState::Unpublished);
    node.stays_as_only_copy().await;
    node.goes_once_it_is_pushed_again().await;
}

// The same in a real registry that keeps the contents too; there, removing says that there is nothing, the second time.
// Every version that is the same snapshot goes with its manifest, and is forgotten with it.
#[tokio::test]
async fn what_was_removed_from_a_real_registry_is_an_only_copy() {
    let server = RegistryServer::start(Kind {
        delete: true,
        ..Kind::default()
    });
    let Some(server) = or_skip(server) else {
        return;
    };
    let between = Between {
        registry: Registry::new(server.url(), "snapshots"),
        content: Content::new(ContentProvider::Registry),
        place: Place::new(),
    };
    let node = between.with_published(1).await;
    let same = all("v2", &node.sources[0]);
    node.store.snapshot(&same).await.unwrap();
    let report = node.store.gc(&published().dry_run(true)).await.unwrap();
    assert_eq!((report.released.len(), report.warnings.len()), (2, 0));
    node.store
        .remove_remote(&reference("test:v1"))
        .await
        .unwrap();
    let list = node.store.list().await.unwrap();
    let digests: Vec<_> = list.iter().map(|one| one.manifest_digest).collect();
    for one in &list {
        let went = digests.iter().all(|digest| *digest == digests[0])
            || one.reference == reference("test:v1");
        assert_eq!(one.state == SnapshotState::Unpublished, went, "{one:?}");
    }
    let again = node.store.remove_remote(&reference("test:v1")).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::NotFound);
    node.store.remove(&reference("test:v2")).await.unwrap();
    node.stays_as_only_copy().await;
    node.goes_once_it_is_pushed_again().await;
}

// gc believed its own memory: another node removed the manifest, and gc deleted the copy that was the last by then.
// The registry is asked for the manifest before a snapshot goes, and what it says is remembered.
#[tokio::test]
async fn what_another_node_removed_from_the_registry_stays() {
    let between = Between::directories();
    let node = between.with_published(1).await;
    let (elsewhere, removed) = (Place::new(), reference("test:v1"));
    let other = between.open(&elsewhere).await;
    other.remove_remote(&removed).await.unwrap();
    assert_eq!(node.summary().await.state, SnapshotState::Published);
    node.stays_because("has test:v1 no more; `push` publishes it again")
        .await;
    node.goes_once_it_is_pushed_again().await;
}

// Without a registry nothing can be fetched again, and gc released what had once been published all the same.
// No registry configured: everything here is an only copy.
#[tokio::test]
async fn without_a_registry_every_snapshot_is_an_only_copy() {
    let between = Between::directories();
    let node = between.with_published(1).await;
    node.store.close().await.unwrap();
    let store = node.place.open_with(|config| config.gc(calm())).await;
    let node = Node { store, ..node };
    assert_eq!(node.summary().await.state, SnapshotState::Published);
    node.stays_as_only_copy().await;
}

// The same with another registry, or another place of contents, in which the snapshot never was.
// What counts is the configured remote: a publication elsewhere is none there.
#[tokio::test]
async fn what_is_published_somewhere_else_is_an_only_copy() {
    let (between, other) = (Between::directories(), Between::directories());
    let node = between.with_published(1).await;
    node.store.close().await.unwrap();
    let layouts = between.place.path("layouts");
    let namespace = Registry::new(format!("oci-layout:{}", layouts.display()), "others");
    for (registry, content) in [
        (&other.registry, &other.content),
        (&other.registry, &between.content),
        (&between.registry, &other.content),
        (&namespace, &between.content),
    ] {
        let configured = Between {
            registry: registry.clone(),
            content: content.clone(),
            place: Place::new(),
        };
        let store = configured.open(&node.place).await;
        let node = Node {
            store,
            place: Place::new(),
            sources: node.sources.clone(),
        };
        node.stays_as_only_copy().await;
        node.store.close().await.unwrap();
    }
    let store = between.open(&node.place).await;
    Node { store, ..node }.goes().await;
}

// A push to a registry that the call alone named made a snapshot "published", and gc released it, though nothing that is
// configured has it.
#[tokio::test]
async fn what_was_pushed_to_a_registry_named_in_the_call_alone_is_an_only_copy() {
    let (between, other) = (Between::directories(), Between::directories());
    let place = Place::new();
    let store = between.open(&place).await;
    let source = place.write("v1", &vm(1));
    store
        .snapshot(&all("v1", &source).local(true))
        .await
        .unwrap();
    let request = PushRequest::new(reference("test:v1"))
        .registry(other.registry.clone())
        .content(other.content.clone());
    store.push(&request).await.unwrap();
    let node = Node {
        place,
        store,
        sources: vec![source],
    };
    assert_eq!(node.summary().await.publications.len(), 1);
    node.stays_as_only_copy().await;
    let request = PushRequest::new(reference("test:v1"));
    node.store.push(&request).await.unwrap();
    assert_eq!(node.summary().await.publications.len(), 2);
    node.goes().await;
}

// Another node replaced the version by force: gc released ours, and `restore test:v1` then gave other content with success.
// A name that is another snapshot's by now keeps the copy here.
#[tokio::test]
async fn a_version_that_another_node_replaced_stays() {
    let between = Between::directories();
    let node = between.with_published(1).await;
    let elsewhere = Place::new();
    let other = between.open(&elsewhere).await;
    let source = elsewhere.write("v1", &vm(2));
    let request = all("v1", &source).force(true);
    other.snapshot(&request).await.unwrap();
    node.stays_because("has another snapshot as test:v1, sha256:")
        .await;
    // A push finds the same, and is told.
    let push = PushRequest::new(reference("test:v1"));
    let error = node.store.push(&push).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    node.stays_as_only_copy().await;
    node.store.push(&push.force(true)).await.unwrap();
    node.goes().await;
}

// The manifest was there and an object was not: gc released the only file that still had the bytes.
// Each object whose last copy here would go is asked for, with its size.
#[tokio::test]
async fn what_an_object_is_lost_of_stays() {
    for lose in [
        |object: &Path| fs::remove_file(object).unwrap(),
        |object: &Path| fs::write(object, "cut").unwrap(),
    ] {
        let between = Between::directories();
        let node = between.with_published(1).await;
        lose(&between.objects()[1]);
        node.stays_because("has not 1 of its objects, xxh3:").await;
        node.store
            .push(&PushRequest::new(reference("test:v1")).force(true))
            .await
            .unwrap();
        node.goes().await;
    }
}

#[tokio::test]
async fn what_a_layer_or_the_list_of_files_is_lost_of_stays() {
    for lost in ["own", "document"] {
        let place = Place::new();
        let layouts = Layouts(place.path("layouts"));
        let between = Between {
            registry: layouts.registry(),
            content: Content::new(ContentProvider::Registry),
            place,
        };
        let node = between.with_published(1).await;
        let details = node.store.inspect(&reference("test:v1")).await.unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&details.manifest).unwrap();
        let (digest, why) = match lost {
            "own" => (&manifest["layers"][0]["digest"], "has not 1 of its objects"),
            _ => (&manifest["config"]["digest"], "has not its list of files"),
        };
        let hex = digest.as_str().unwrap().trim_start_matches("sha256:");
        let blob = layouts
            .layout("snapshots/test")
            .join("blobs/sha256")
            .join(hex);
        fs::remove_file(blob).unwrap();
        node.stays_because(why).await;
        node.goes_once_it_is_pushed_again().await;
    }
}

/// A bucket, and a daemon before it that keeps its objects where it likes.
struct Behind {
    s3: S3,
    daemon: FakeDaemon,
    between: Between,
}

impl Behind {
    fn new(objects: impl FnOnce(&S3, &Place) -> PathBuf) -> Self {
        let (s3, place) = (S3::start("checkpoints"), Place::new());
        let cluster = Cluster::over(s3.bucket(), objects(&s3, &place));
        Self {
            daemon: FakeDaemon::start(&cluster, Options::default()),
            between: Between {
                registry: Layouts(place.path("layouts")).registry(),
                content: bucket(&s3, s3.endpoint()),
                place,
            },
            s3,
        }
    }

    async fn node(&self, trust_daemon: bool) -> Node {
        let place = Place::new();
        let mut gc = calm();
        gc.trust_daemon = trust_daemon;
        let dragonfly = Dragonfly::new(self.daemon.endpoint());
        let store = self
            .between
            .open_with(&place, |config| config.dragonfly(dragonfly).gc(gc))
            .await;
        let source = place.write("v1", &vm(1));
        take(&store, "v1", &source).await;
        Node {
            place,
            store,
            sources: vec![source],
        }
    }
}

// A daemon said that it had put the objects into the bucket, and they never came there: gc released the only copy.
// A daemon's word is not believed where the bucket can be asked, whatever gc.trust_daemon says.
#[tokio::test]
async fn what_the_bucket_never_had_stays() {
    for trust_daemon in [false, true] {
        let behind = Behind::new(|_, place| {
            let nowhere = place.path("nowhere");
            fs::create_dir(&nowhere).unwrap();
            nowhere
        });
        let node = behind.node(trust_daemon).await;
        let keys = behind.s3.keys();
        assert!(keys.iter().all(|key| key.starts_with("snapshotter/")));
        node.stays_because("has not 2 of its objects").await;
    }
}

#[tokio::test]
async fn what_a_daemon_brought_to_the_bucket_goes() {
    let behind = Behind::new(|s3, _| s3.dir());
    let node = behind.node(false).await;
    let report = node.collect_after_a_dry_run().await;
    assert_eq!((report.released.len(), report.warnings.len()), (1, 0));
    node.comes_back().await;
}

#[tokio::test]
async fn a_daemons_word_counts_only_where_that_is_configured_and_the_bucket_cannot_be_asked() {
    for trust_daemon in [false, true] {
        let behind = Behind::new(|s3, _| s3.dir());
        let node = behind.node(trust_daemon).await;
        drop(behind.s3);
        if trust_daemon {
            let report = node.collect_after_a_dry_run().await;
            assert_eq!((report.released.len(), report.warnings.len()), (1, 0));
        } else {
            node.stays_for_now("could not be asked").await;
        }
    }
}

#[tokio::test]
async fn a_daemons_word_is_not_made_up() {
    let behind = Behind::new(|s3, _| s3.dir());
    let node = behind.node(true).await;
    let forgotten = catalog(&node.place.root()).execute(
        "DELETE FROM object_places WHERE object = (SELECT min(object) FROM object_places)",
        [],
    );
    assert_eq!(forgotten.unwrap(), 1);
    drop(behind.s3);
    node.stays_for_now("could not be asked").await;
}

// Who cannot be asked has perhaps lost everything, and gc did not ask at all.
// What nobody answers for stays, what is known of it too, and it goes once somebody answers.
#[tokio::test]
async fn while_the_registry_does_not_answer_nothing_goes() {
    let layouts = Place::new();
    let sky = Sky::over(Layouts(layouts.path("layouts")));
    let between = Between::with_registry(sky.registry());
    let node = between.with_published(1).await;
    sky.storms
        .set(|_| Some(testkit::weather::Reply::status(503)));
    node.stays_for_now("could not be asked").await;
    sky.storms.clear();
    node.goes().await;
}

#[tokio::test]
async fn after_three_in_a_row_that_could_not_be_asked_for_nobody_is_asked_any_more() {
    let layouts = Place::new();
    let sky = Sky::over(Layouts(layouts.path("layouts")));
    let between = Between::with_registry(sky.registry());
    let node = between.with_published(5).await;
    let before = sky.asked("/").len();
    sky.storms
        .set(|_| Some(testkit::weather::Reply::status(503)));
    let report = node.collect().await;
    assert_eq!((report.released.len(), report.kept.unconfirmed), (0, 5));
    let last = |report: &GcReport| {
        let mut texts = report.warnings.iter().map(|warning| &warning.message);
        texts.any(|text| text.starts_with("2 more snapshots are kept"))
    };
    assert!(report.warnings.len() == 4 && last(&report), "{report:?}");
    assert_eq!(sky.asked("/").len() - before, 3);
    // One that cannot be asked for does not stand in the others' way.
    sky.storms.set(|asked| {
        let is_first = asked.path().ends_with("/manifests/v1");
        is_first.then(|| testkit::weather::Reply::status(503))
    });
    let report = node.collect().await;
    assert_eq!((report.released.len(), report.kept.unconfirmed), (4, 1));
}

#[tokio::test]
async fn while_the_contents_place_does_not_answer_nothing_goes() {
    let s3 = S3::start("checkpoints");
    let closed = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&closed);
    let proxy = Weather::before(s3.address(), move |_| {
        match answers.load(Ordering::SeqCst) {
            true => Act::Close,
            false => Act::Pass,
        }
    });
    let between = Between::with_content(bucket(&s3, proxy.endpoint()));
    let node = between.with_published(1).await;
    closed.store(true, Ordering::SeqCst);
    node.stays_for_now("could not be asked").await;
    closed.store(false, Ordering::SeqCst);
    node.goes().await;
}

#[tokio::test]
async fn a_directory_of_contents_that_is_not_mounted_has_not_lost_anything() {
    let between = Between::directories();
    let node = between.with_published(1).await;
    let (objects, away) = (between.place.path("objects"), between.place.path("away"));
    fs::rename(&objects, &away).unwrap();
    node.stays_for_now("could not be asked").await;
    // A place to mount at is there, and empty.
    fs::create_dir(&objects).unwrap();
    node.stays_for_now("it may not be mounted").await;
    fs::remove_dir(&objects).unwrap();
    fs::rename(&away, &objects).unwrap();
    node.goes().await;
}

#[tokio::test]
async fn only_copies_go_without_asking_where_that_is_wanted() {
    let layouts = Place::new();
    let sky = Sky::over(Layouts(layouts.path("layouts")));
    let between = Between::with_registry(sky.registry());
    let node = between.with_published(1).await;
    let before = sky.asked("/").len();
    let request = published().include_unpublished(true);
    let report = node.store.gc(&request).await.unwrap();
    assert_eq!(report.released.len(), 1);
    assert_eq!(sky.asked("/").len(), before);
}

/// What was asked of a registry and a bucket by collecting several snapshots at once.
async fn asked_for(snapshots: usize) -> (Vec<String>, usize) {
    let (s3, layouts) = (S3::start("checkpoints"), Place::new());
    let sky = Sky::over(Layouts(layouts.path("layouts")));
    let proxy = Weather::before(s3.address(), |_| Act::Pass);
    let between = Between {
        registry: sky.registry(),
        content: bucket(&s3, proxy.endpoint()),
        place: layouts,
    };
    let node = between.with_published(snapshots).await;
    let (before, heads) = (sky.asked("/").len(), proxy.asked().len());
    let report = node.collect().await;
    assert_eq!(report.released.len(), snapshots, "{report:?}");
    assert_eq!(report.warnings, []);
    node.place.assert_empty();
    let asked = sky.asked("/");
    let methods = asked[before..].iter().map(|asked| asked.method.clone());
    let objects = &proxy.asked()[heads..];
    assert!(objects.iter().all(|asked| asked.method == "HEAD"));
    (methods.collect(), objects.len())
}

#[tokio::test]
async fn a_released_snapshot_costs_two_requests_and_one_for_each_object() {
    assert_eq!(
        asked_for(1).await,
        (vec!["GET".to_owned(), "GET".to_owned()], 2)
    );
    // Each has an object of its own, and all share one.
    let (registry, objects) = asked_for(4).await;
    assert_eq!((registry.len(), objects), (8, 5));
}

#[tokio::test]
async fn an_object_that_is_needed_here_is_not_asked_for() {
    let between = Between::directories();
    let node = between.with_published(1).await;
    let own = node.store.inspect(&reference("test:v1")).await.unwrap();
    let shared = own
        .files
        .iter()
        .find(|file| file.entry.relative_path == Path::new("shared"));
    let hex = shared
        .unwrap()
        .digest
        .unwrap()
        .to_string()
        .replace("xxh3:", "");
    fs::remove_file(between.place.path("objects/xxh3").join(hex)).unwrap();
    // One that stays needs the file whose object is lost.
    let source = node.place.write("v2", &vm(2));
    let request = all("v2", &source).local(true);
    node.store.snapshot(&request).await.unwrap();
    let report = node.collect().await;
    assert_eq!((report.released.len(), report.kept.only_copies), (1, 1));
    let output = node.place.fresh();
    give(&node.store, "v2", &output).await;
    assert_same(&source, &output);
}

/// Calls `meddle` once, when the registry is asked for a list of files in a collection.
async fn collect_while(sky: &Sky, node: &Node, meddle: impl FnOnce() + Send + 'static) -> GcReport {
    let meddle = Mutex::new(Some(meddle));
    sky.storms.set(move |asked| {
        if asked.path().contains("/blobs/")
            && let Some(meddle) = meddle.lock().unwrap().take()
        {
            meddle();
        }
        None
    });
    node.collect().await
}

// Between the asking and the releasing somebody removes the manifest through this very store: gc went on all the same.
// The transaction that releases looks whether what it relies on is still written down.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_forgotten_while_it_is_asked_for_stays() {
    let layouts = Place::new();
    let sky = Sky::over(Layouts(layouts.path("layouts")));
    let between = Between::with_registry(sky.registry());
    let node = between.with_published(1).await;
    let root = node.place.root();
    let report = collect_while(&sky, &node, move || {
        let forgotten = catalog(&root).execute("DELETE FROM publications", []);
        assert_eq!(forgotten.unwrap(), 1);
    })
    .await;
    assert!(report.released.is_empty(), "{report:?}");
    assert_eq!(node.summary().await.state, SnapshotState::Unpublished);
    node.comes_back().await;
}

// A blob that another snapshot needed was not asked for; that one is removed meanwhile, and the blob's last copy would have
// gone with the snapshot that was chosen.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_becomes_the_last_copy_while_others_are_asked_for_stays() {
    let layouts = Place::new();
    let sky = Sky::over(Layouts(layouts.path("layouts")));
    let between = Between::with_registry(sky.registry());
    let node = between.with_published(1).await;
    let source = node.place.write("v2", &vm(2));
    let request = all("v2", &source).local(true);
    node.store.snapshot(&request).await.unwrap();
    for object in between.objects() {
        if fs::metadata(&object).unwrap().len() > 50_000 {
            fs::remove_file(object).unwrap();
        }
    }
    assert_eq!(between.objects().len(), 1);
    let store = node.store.clone();
    let runtime = tokio::runtime::Handle::current();
    let report = collect_while(&sky, &node, move || {
        let removed = reference("test:v2");
        runtime.block_on(store.remove(&removed)).unwrap();
    })
    .await;
    assert!(report.released.is_empty(), "{report:?}");
    assert_eq!(report.kept.unconfirmed, 1);
    node.comes_back().await;
}

// A pull or a repair that finds nothing there, where rows say that there is something, left the rows as they were.
#[tokio::test]
async fn a_repair_that_finds_nothing_there_is_remembered() {
    let between = Between::directories();
    let node = between.with_published(1).await;
    for object in between.objects() {
        fs::remove_file(object).unwrap();
    }
    fs::remove_file(&node.place.blobs()[0]).unwrap();
    verify(&node.store).await;
    let pull = PullRequest::new(reference("test:v1"));
    let error = node.store.pull(&pull).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(node.summary().await.state, SnapshotState::Unpublished);
}

#[tokio::test]
async fn rows_of_places_that_are_gone_are_found_and_dropped_by_a_repair() {
    let between = Between::directories();
    let node = between.with_published(1).await;
    let damaged = catalog(&node.place.root());
    damaged
        .execute_batch("PRAGMA foreign_keys = OFF; DELETE FROM places WHERE kind = 1;")
        .unwrap();
    let report = verify(&node.store).await;
    assert_eq!(report.catalog.len(), 3, "{report:?}");
    let repair = VerifyRequest::all().repair(true);
    assert!(node.store.verify(&repair).await.unwrap().is_sound());
    node.stays_as_only_copy().await;
    node.goes_once_it_is_pushed_again().await;
}

/// Makes a catalog as one of the last release becomes, which knew that snapshots are published, and not where.
async fn as_before(node: Node) -> Node {
    node.store.close().await.unwrap();
    catalog(&node.place.root())
        .execute_batch(
            "DELETE FROM object_places; DELETE FROM publications; DELETE FROM places;
             INSERT INTO places (id, kind, address) VALUES (100, 2, '');
             INSERT INTO publications SELECT id, 100, 100, manifest_digest, 0 FROM snapshots;",
        )
        .unwrap();
    node
}

#[tokio::test]
async fn what_an_older_release_published_is_asked_for_where_it_may_be() {
    let (between, other) = (Between::directories(), Between::directories());
    let node = as_before(between.with_published(1).await).await;
    // It is not there, which says nothing of where it is.
    let store = other.open(&node.place).await;
    let node = Node { store, ..node };
    let summary = node.summary().await;
    assert_eq!(summary.state, SnapshotState::Published);
    assert_eq!(
        (
            &summary.publications[0].registry,
            summary.publications.len()
        ),
        (&None, 1)
    );
    node.stays_for_now_and_is_unknown().await;
    node.store.close().await.unwrap();
    let store = between.open(&node.place).await;
    let node = Node { store, ..node };
    let dry = node.store.gc(&published().dry_run(true)).await.unwrap();
    assert_eq!(dry.released.len(), 1, "{dry:?}");
    assert_eq!(node.summary().await.publications[0].registry, None);
    node.goes().await;
}

impl Node {
    async fn stays_for_now_and_is_unknown(&self) {
        let report = self.collect().await;
        self.was_kept(&report, "it may not be mounted");
        assert_eq!(self.summary().await.publications[0].registry, None);
        self.comes_back().await;
    }
}

#[tokio::test]
async fn what_an_older_release_published_is_forgotten_when_it_is_removed_there() {
    let between = Between::directories();
    let node = as_before(between.with_published(1).await).await;
    let store = between.open(&node.place).await;
    let node = Node { store, ..node };
    node.store
        .remove_remote(&reference("test:v1"))
        .await
        .unwrap();
    node.stays_as_only_copy().await;
}

// The worker was given no remote: what it may release it has to ask for as well.
#[tokio::test]
async fn the_worker_asks_too() {
    let between = Between::directories();
    let node = between.with_published(2).await;
    let elsewhere = Place::new();
    let other = between.open(&elsewhere).await;
    other.remove_remote(&reference("test:v1")).await.unwrap();
    node.store.close().await.unwrap();
    let mut gc = calm();
    gc.background = true;
    gc.interval = Duration::from_millis(1);
    gc.max_bytes = Some(0);
    let store = between.open_with(&node.place, |config| config.gc(gc)).await;
    let node = Node { store, ..node };
    while node.store.list().await.unwrap().len() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(node.summary().await.state, SnapshotState::Unpublished);
    node.comes_back().await;
}

// The rows were forgotten after the manifest had gone: a collection that had asked before released the last copy in between.
// By the time the registry is told to delete, nothing here says that the snapshot is there, and a deletion that fails
// leaves an only copy.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_an_only_copy_before_the_registry_deletes_it() {
    let layouts = Place::new();
    let sky = Sky::over(Layouts(layouts.path("layouts")));
    let between = Between::with_registry(sky.registry());
    let node = between.with_published(1).await;
    let root = node.place.root();
    let noted = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&noted);
    sky.storms.set(move |asked| {
        if asked.method == "DELETE" {
            let count = |sql| catalog(&root).query_row(sql, [], |row| row.get::<_, i64>(0));
            let rows = count("SELECT count(*) FROM publications").unwrap();
            seen.lock().unwrap().push(rows);
        }
        None
    });
    let removed = node.store.remove_remote(&reference("test:v1")).await;
    assert_eq!(removed.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(*noted.lock().unwrap(), [0]);
    assert_eq!(node.summary().await.state, SnapshotState::Unpublished);
    node.goes_once_it_is_pushed_again().await;
}

// A sync that failed was a line in the log, and the manifest was deleted: the last copy might not have been on the disk.
// What cannot be made durable here stays in the registry.
#[tokio::test]
async fn what_cannot_be_made_durable_is_not_removed_from_the_registry() {
    let layouts = Place::new();
    let sky = Sky::over(Layouts(layouts.path("layouts")));
    let between = Between::with_registry(sky.registry());
    let node = between.with_published(1).await;
    let root = node.place.root();
    let marked = catalog(&root).execute("UPDATE objects SET unsynced = 'another boot'", []);
    assert_eq!(marked.unwrap(), 2);
    let content = support_b::outside::content(&root);
    let blob = content.join(files_below(&content).pop().unwrap());
    let away = node.place.path("away");
    fs::rename(&blob, &away).unwrap();
    std::os::unix::fs::symlink(&away, &blob).unwrap();
    let removed = node.store.remove_remote(&reference("test:v1")).await;
    let error = removed.unwrap_err();
    assert!(error.to_string().starts_with("cannot open"), "{error}");
    let asked = sky.asked("/manifests/");
    assert!(asked.iter().all(|asked| asked.method != "DELETE"));
    assert_eq!(node.summary().await.state, SnapshotState::Published);
}

// A share that was not mounted for one look made everything "unpublished" until somebody pushed it, and a dry run did too.
// A directory that lacks a layout altogether could not be asked, and once it is mounted again nothing has changed.
#[tokio::test]
async fn layouts_that_are_not_mounted_have_not_lost_anything() {
    for (hidden, stays) in [
        ("layouts", None),
        ("layouts", Some("layouts")),
        ("layouts/snapshots/test", Some("layouts/snapshots/test")),
        (
            "layouts/snapshots/test",
            Some("layouts/snapshots/test/blobs/sha256"),
        ),
    ] {
        let between = Between::directories();
        let node = between.with_published(1).await;
        let (layouts, away) = (between.place.path(hidden), between.place.path("away"));
        fs::rename(&layouts, &away).unwrap();
        if let Some(stays) = stays {
            fs::create_dir_all(between.place.path(stays)).unwrap();
        }
        node.stays_for_now("it may not be mounted").await;
        if stays.is_some() {
            fs::remove_dir_all(&layouts).unwrap();
        }
        fs::rename(&away, &layouts).unwrap();
        node.goes().await;
    }
}

// The same for a pull that found a file damaged here and nothing there: it forgot that the snapshot was there.
#[tokio::test]
async fn a_pull_from_what_is_not_mounted_forgets_nothing() {
    let between = Between::directories();
    let node = between.with_published(1).await;
    let objects = between.place.path("objects/xxh3");
    let away = between.place.path("away");
    fs::rename(&objects, &away).unwrap();
    let content = support_b::outside::content(&node.place.root());
    for blob in files_below(&content) {
        fs::remove_file(content.join(blob)).unwrap();
    }
    node.store.verify(&VerifyRequest::all()).await.unwrap();
    let pull = PullRequest::new(reference("test:v1"));
    let error = node.store.pull(&pull).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(node.summary().await.state, SnapshotState::Published);
    fs::rename(&away, &objects).unwrap();
    node.store.pull(&pull).await.unwrap();
    node.comes_back().await;
}

// Three snapshots that the registry does not let us ask for stood in the way of all others, in every collection.
// Only silence makes a collection give up; what is wrong with one snapshot keeps that one.
#[tokio::test]
async fn what_is_wrong_with_some_snapshots_keeps_those_alone() {
    let layouts = Place::new();
    let sky = Sky::over(Layouts(layouts.path("layouts")));
    let between = Between::with_registry(sky.registry());
    let node = between.with_published(5).await;
    sky.storms.set(|asked| {
        let ends = |part| asked.path().ends_with(part);
        let status = match () {
            () if ends("/manifests/v1") || ends("/manifests/v2") => 403,
            () if ends("/manifests/v3") => 401,
            () => return None,
        };
        Some(testkit::weather::Reply::status(status))
    });
    let report = node.collect().await;
    assert_eq!((report.released.len(), report.kept.unconfirmed), (2, 3));
    assert_eq!(report.warnings.len(), 3, "{report:?}");
    assert_eq!(node.summary().await.state, SnapshotState::Published);
}

// What is elsewhere may reach the disk late; found not to be elsewhere, it was the last copy, and still waited.
// Whoever finds out has it synced: closing the handle waits for that.
#[tokio::test]
async fn what_is_found_to_be_an_only_copy_is_made_durable() {
    for finder in ["gc", "push", "pull"] {
        let between = Between::directories();
        let node = between.with_published(1).await;
        node.store.close().await.unwrap();
        let catalog = catalog(&node.place.root());
        let mark = "UPDATE objects SET unsynced = 'another boot'";
        assert_eq!(catalog.execute(mark, []).unwrap(), 2);
        let elsewhere = Place::new();
        let other = between.open(&elsewhere).await;
        other.remove_remote(&reference("test:v1")).await.unwrap();
        let store = between.open(&node.place).await;
        let node = Node { store, ..node };
        match finder {
            "gc" => {
                node.collect().await;
            }
            "push" => {
                // It finds out, and gets no further.
                let objects = between.place.path("objects");
                fs::remove_dir_all(&objects).unwrap();
                let push = PushRequest::new(reference("test:v1"));
                node.store.push(&push).await.unwrap_err();
            }
            _ => {
                let content = support_b::outside::content(&node.place.root());
                fs::remove_file(content.join(files_below(&content).pop().unwrap())).unwrap();
                for object in between.objects() {
                    fs::remove_file(object).unwrap();
                }
                let pull = PullRequest::new(reference("test:v1"));
                node.store.pull(&pull).await.unwrap_err();
            }
        }
        assert_eq!(node.summary().await.state, SnapshotState::Unpublished);
        node.store.close().await.unwrap();
        let count = "SELECT count(*) FROM objects WHERE unsynced IS NOT NULL";
        let left = catalog.query_row(count, [], |row| row.get::<_, i64>(0));
        assert_eq!(left.unwrap(), 0, "{finder}");
    }
}

// A pull of what is here and was never published reported that it had reused nothing.
#[tokio::test]
async fn a_pull_of_what_is_only_here_says_what_was_here() {
    let between = Between::directories();
    let place = Place::new();
    let store = between.open(&place).await;
    let source = place.write("v1", &vm(1));
    let request = all("v1", &source).local(true);
    store.snapshot(&request).await.unwrap();
    let pull = PullRequest::new(reference("test:v1"));
    let report = store.pull(&pull).await.unwrap();
    assert_eq!((report.fetched_blobs, report.reused_blobs), (0, 2));
}

// Small blobs, and every call that follows their flights, waited until large ones had come.
// With one permit the small ones come first.
#[tokio::test]
async fn small_blobs_are_fetched_before_large_ones() {
    let layouts = Place::new();
    let sky = Sky::over(Layouts(layouts.path("layouts")));
    let between = Between {
        registry: sky.registry(),
        content: Content::new(ContentProvider::Registry),
        place: layouts,
    };
    let (here, there) = (Place::new(), Place::new());
    let tree = Tree::new()
        .file("a", random(1, 3 << 20))
        .file("b", random(2, 2 << 20))
        .file("c", random(3, 5_000));
    let source = here.write("v1", &tree);
    take(&between.open(&here).await, "v1", &source).await;
    let store = between
        .open_with(&there, |config| config.restore_concurrency(1))
        .await;
    let before = sky.asked("/blobs/").len();
    let pull = PullRequest::new(reference("test:v1"));
    store.pull(&pull).await.unwrap();
    let sizes = sky.asked("/blobs/").into_iter().skip(before).map(|asked| {
        let digest = asked.path().rsplit('/').next().unwrap().to_owned();
        let blob = sky.layouts.blob("snapshots/test", &digest);
        blob.unwrap().len()
    });
    // The list of files comes before all.
    let large: Vec<bool> = sizes.skip(1).map(|size| size > 1 << 20).collect();
    assert_eq!(large, [false, true, true]);
}

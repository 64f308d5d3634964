//! What a name means by now: a version that was replaced in the registry after it was pulled.

use crate::support_a;

use std::path::Path;
use std::time::Duration;

use snapshotter::{
    Content, ContentProvider, ErrorKind, Gc, GcRequest, PullReport, PullRequest, PushRequest,
    Reference, Registry, RestoreRequest, SnapshotRequest, Snapshotter, Warning, WarningKind,
};
use support_a::*;
use testkit::Tree;
use testkit::compare::assert_same;
use testkit::proxy::{Act, Weather};

/// Directories that nodes share.
struct Shared {
    place: Place,
}

impl Shared {
    fn new() -> Self {
        let place = Place::new();
        std::fs::create_dir_all(place.path("objects")).unwrap();
        Self { place }
    }

    async fn node(&self, own: &Place) -> Snapshotter {
        let mut content = Content::new(ContentProvider::Fs);
        content.root = self.place.path("objects");
        let layouts = format!("oci-layout:{}", self.place.path("layouts").display());
        let mut gc = Gc::default();
        gc.background = false;
        gc.min_retention_period = Duration::ZERO;
        own.open_with(|config| {
            config
                .gc(gc)
                .registry(Registry::new(layouts, "nodes"))
                .content(content)
        })
        .await
    }

    /// The registry without a manifest.
    fn remove_manifest(&self, hex: &str) {
        let layouts = self.place.path("layouts");
        let gone = files_below(&layouts)
            .into_iter()
            .filter(|path| path.ends_with(hex));
        let removed = gone
            .map(|path| std::fs::remove_file(layouts.join(path)).unwrap())
            .count();
        assert_eq!(removed, 1);
    }

    /// The registry, but not there.
    fn hide(&self) {
        std::fs::rename(self.place.path("layouts"), self.place.path("hidden")).unwrap();
        std::fs::write(self.place.path("layouts"), "no directory").unwrap();
    }
}

async fn publish(node: &Snapshotter, source: &Path, text: &str) -> Reference {
    Tree::new().file("state", text).write_to(source).unwrap();
    let request = SnapshotRequest::new("vm", "v1", source).force(true);
    node.snapshot(&request).await.unwrap().reference
}

fn v1() -> Reference {
    reference("vm:v1")
}

async fn pull(node: &Snapshotter, update: bool) -> PullReport {
    let request = PullRequest::new(v1()).update(update);
    node.pull(&request).await.unwrap()
}

fn kinds(warnings: &[Warning]) -> Vec<WarningKind> {
    warnings.iter().map(|warning| warning.kind).collect()
}

/// `pull` of a version that was here said "done" and looked at nothing, while the registry had replaced it.
#[tokio::test]
async fn a_version_that_moved_is_said_and_taken_where_that_is_asked_for() {
    let shared = Shared::new();
    let (here, there, source) = (Place::new(), Place::new(), Place::new());
    let (taker, node) = (shared.node(&here).await, shared.node(&there).await);
    let first = publish(&taker, &source.path("one"), "first").await;
    assert_eq!(pull(&node, false).await.warnings, []);
    assert_eq!(pull(&node, true).await.warnings, [], "it is the same");
    let second = publish(&taker, &source.path("two"), "second").await;
    let report = pull(&node, false).await;
    assert_eq!(kinds(&report.warnings), [WarningKind::Moved]);
    assert_eq!((&report.reference, report.replaced), (&first, None));
    let report = pull(&node, true).await;
    assert_eq!(kinds(&report.warnings), []);
    assert_eq!(report.reference, second);
    assert_eq!(report.replaced, first.manifest_digest());
    let listed = node.list().await.unwrap();
    assert_eq!(listed.len(), 2, "{listed:?}");
    let output = there.path("out");
    let restore = RestoreRequest::new(v1(), &output);
    node.restore(&restore).await.unwrap();
    assert_same(&source.path("two"), &output);
    assert!(
        node.verify(&snapshotter::VerifyRequest::all())
            .await
            .unwrap()
            .damaged
            .is_empty()
    );
}

/// The name was another one's in the registry, whose garbage collection takes what has no tag: `pull --update` removed what had
/// it here, which may have been the last copy.
#[tokio::test]
async fn what_an_update_replaced_stays_until_a_collection_knows_that_it_is_elsewhere() {
    let shared = Shared::new();
    let (here, there, source) = (Place::new(), Place::new(), Place::new());
    let (taker, node) = (shared.node(&here).await, shared.node(&there).await);
    let first = publish(&taker, &source.path("one"), "first").await;
    pull(&node, false).await;
    publish(&taker, &source.path("two"), "second").await;
    let report = pull(&node, true).await;
    let kept_as = report.kept_as.unwrap();
    let hex = first.manifest_digest().unwrap().hex();
    assert_eq!(kept_as, reference(&format!("vm:sha256-{hex}")));
    // The registry collects what has no tag.
    shared.remove_manifest(&hex);
    let all = GcRequest::new().max_bytes(0);
    node.gc(&all).await.unwrap();
    shared.hide();
    let by_digest: Reference = format!("vm@sha256:{hex}").parse().unwrap();
    for named in [kept_as, by_digest] {
        let output = there.path(&named.to_string().replace(':', "-"));
        node.restore(&RestoreRequest::new(named, &output))
            .await
            .unwrap();
        assert_same(&source.path("one"), &output);
    }
}

/// Once more here under its digest, it needs no second row; and a name that is another one's is not taken from that.
#[tokio::test]
async fn what_is_replaced_and_here_by_its_digest_is_here_once() {
    let shared = Shared::new();
    let (here, there, source) = (Place::new(), Place::new(), Place::new());
    let (taker, node) = (shared.node(&here).await, shared.node(&there).await);
    let first = publish(&taker, &source.path("one"), "first").await;
    let digest = first.manifest_digest().unwrap();
    let by_digest: Reference = format!("vm@{digest}").parse().unwrap();
    node.pull(&PullRequest::new(by_digest)).await.unwrap();
    pull(&node, false).await;
    publish(&taker, &source.path("two"), "second").await;
    let report = pull(&node, true).await;
    assert_eq!(
        report.kept_as.unwrap().version(),
        Some(&*format!("sha256-{}", digest.hex()))
    );
    assert_eq!(node.list().await.unwrap().len(), 2);
    // The other way round: somebody calls a snapshot as the one that is to make way would be called.
    let elsewhere = Place::new();
    let node = shared.node(&elsewhere).await;
    pull(&node, false).await;
    let digest = v1_digest(&node).await;
    let squatter = SnapshotRequest::new("vm", format!("sha256-{digest}"), source.path("one"));
    node.snapshot(&squatter.local(true)).await.unwrap();
    publish(&taker, &source.path("three"), "third").await;
    let update = PullRequest::new(v1()).update(true);
    let error = node.pull(&update).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(v1_digest(&node).await, digest);
}

async fn v1_digest(node: &Snapshotter) -> String {
    let details = node.inspect(&v1()).await.unwrap();
    details.summary.manifest_digest.hex()
}

#[tokio::test]
async fn what_is_pinned_or_nowhere_else_is_never_replaced() {
    let shared = Shared::new();
    let (here, there, source) = (Place::new(), Place::new(), Place::new());
    let (taker, node) = (shared.node(&here).await, shared.node(&there).await);
    publish(&taker, &source.path("one"), "first").await;
    pull(&node, false).await;
    node.pin(&v1()).await.unwrap();
    publish(&taker, &source.path("two"), "second").await;
    let update = PullRequest::new(v1()).update(true);
    let error = node.pull(&update).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("is pinned"), "{error}");
    node.unpin(&v1()).await.unwrap();
    node.pull(&update).await.unwrap();
    // Taken here, and published by nobody.
    let alone = Place::new();
    let node = shared.node(&alone).await;
    Tree::new()
        .file("own", "own")
        .write_to(&source.path("own"))
        .unwrap();
    let own = SnapshotRequest::new("vm", "v1", source.path("own")).local(true);
    let own = node.snapshot(&own).await.unwrap().reference;
    let error = node.pull(&update).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("is nowhere else"), "{error}");
    let report = pull(&node, false).await;
    assert_eq!(kinds(&report.warnings), [WarningKind::Moved]);
    assert_eq!(report.reference, own);
    let force = PushRequest::new(v1()).force(true);
    node.push(&force).await.unwrap();
    assert_eq!(pull(&node, false).await.warnings, []);
}

#[tokio::test]
async fn a_registry_out_of_reach_is_no_error_for_what_is_here() {
    let shared = Shared::new();
    let (here, there, source) = (Place::new(), Place::new(), Place::new());
    let (taker, node) = (shared.node(&here).await, shared.node(&there).await);
    let first = publish(&taker, &source.path("one"), "first").await;
    pull(&node, false).await;
    shared.hide();
    for update in [false, true] {
        let report = pull(&node, update).await;
        assert_eq!(kinds(&report.warnings), [WarningKind::Unchecked]);
        assert_eq!(report.reference, first);
    }
    // Whoever says which one is asked nothing.
    let exact = PullRequest::new(first);
    assert_eq!(node.pull(&exact).await.unwrap().warnings, []);
    let absent = PullRequest::new(reference("vm:v2"));
    node.pull(&absent).await.unwrap_err();
}

/// Connections that nobody answers took all attempts of `registry.retries`, two minutes and more, and a call with a limit failed,
/// though everything was here.
#[tokio::test]
async fn a_registry_that_never_answers_does_not_hold_what_is_here() {
    let shared = Shared::new();
    let (here, there, source) = (Place::new(), Place::new(), Place::new());
    let (taker, node) = (shared.node(&here).await, shared.node(&there).await);
    let first = publish(&taker, &source.path("one"), "first").await;
    pull(&node, false).await;
    let nobody = ([127, 0, 0, 1], 9).into();
    let silent_server = Weather::before(nobody, |_| Act::Stall);
    let silent = Registry::new(silent_server.endpoint(), "nodes");
    let request = PullRequest::new(v1()).registry(silent);
    // The attempts have two minutes and a half.
    let pulled = tokio::time::timeout(Duration::from_secs(45), node.pull(&request)).await;
    let report = pulled.unwrap().unwrap();
    assert_eq!(kinds(&report.warnings), [WarningKind::Unchecked]);
    let said = &report.warnings[0].message;
    assert!(said.contains("no answer within 5s"), "{said}");
    assert_eq!(report.reference, first);
}

/// A version that was fetched by its digest, while its name was another one's here, was not found by what it was asked for.
#[tokio::test]
async fn what_was_fetched_by_its_digest_is_found_by_what_it_was_asked_for() {
    let shared = Shared::new();
    let (here, there, source) = (Place::new(), Place::new(), Place::new());
    let (taker, node) = (shared.node(&here).await, shared.node(&there).await);
    let first = publish(&taker, &source.path("one"), "first").await;
    pull(&node, false).await;
    let second = publish(&taker, &source.path("two"), "second").await;
    let report = node.pull(&PullRequest::new(second.clone())).await.unwrap();
    assert_eq!(report.manifest_digest, second.manifest_digest().unwrap());
    shared.hide();
    for (reference, source) in [(first, source.path("one")), (second, source.path("two"))] {
        let output = there.path(&reference.manifest_digest().unwrap().hex());
        node.restore(&RestoreRequest::new(reference, &output))
            .await
            .unwrap();
        assert_same(&source, &output);
    }
}

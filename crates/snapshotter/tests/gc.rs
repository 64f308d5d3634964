//! Garbage collection: what goes, what stays, what comes free, and that nobody at work is disturbed by it, whether it runs
//! in the same process or in another.

use crate::support_a;
use crate::support_b;
use crate::support_c;

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use snapshotter::{
    Config, Content, ContentProvider, ErrorKind, Format, Gc, GcReport, GcRequest, GcStop,
    KeepReason, KeptFor, Operation, PruneReport, PruneRequest, PruneRule, PullRequest, PushRequest,
    RestoreRequest, Retention, SnapshotRequest, Snapshotter, VerifyRequest,
};
use support_a::*;
use support_b::Handle;
use support_b::children::{part, playing, start, tell, told};
use support_b::outside::{assert_at_rest, assert_rows_and_files_agree, catalog, names};
use support_c::{Layouts, Sky, directory};
use testkit::Tree;
use testkit::child::State;
use testkit::compare::assert_same;
use testkit::mount::{Kind, LoopMount, or_skip};

const MIB: u64 = 1 << 20;

/// Where children start.
#[test]
fn children_start_here() {
    match part().as_deref() {
        None => {}
        Some("collector") => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            let root = told("ROOT");
            runtime.block_on(async {
                let store = Snapshotter::open(Config::new(root).gc(calm()))
                    .await
                    .unwrap();
                store.gc(&everything()).await.unwrap();
                store.close().await.unwrap();
            });
        }
        Some(part) => panic!("nobody plays {part}"),
    }
}

/// The machine's own disk may be as full as it likes.
fn calm() -> Gc {
    let mut gc = Gc::default();
    gc.disk_high_threshold_percent = 100.0;
    gc.disk_low_threshold_percent = 100.0;
    gc
}

/// All that may go, however young and empty the disk.
fn everything() -> GcRequest {
    published().include_unpublished(true)
}

/// All that is elsewhere too.
fn published() -> GcRequest {
    GcRequest::new()
        .max_bytes(0)
        .min_retention_period(Duration::ZERO)
}

fn released(report: &GcReport) -> Vec<String> {
    let gone = report.released.iter();
    gone.map(|one| one.reference.to_string()).collect()
}

async fn listed(store: &Snapshotter) -> Vec<String> {
    let list = store.list().await.unwrap();
    let mut names: Vec<String> = list.iter().map(|one| one.reference.to_string()).collect();
    names.sort();
    names
}

/// A root whose snapshots are published in directories beside it.
struct Node {
    place: Place,
}

impl Node {
    fn new() -> Self {
        Self {
            place: Place::new(),
        }
    }

    async fn open(&self) -> Snapshotter {
        self.open_with(|config| config).await
    }

    async fn open_with(&self, change: impl FnOnce(Config) -> Config) -> Snapshotter {
        let registry = Layouts(self.place.path("layouts")).registry();
        let content = directory(&self.place.path("objects"));
        self.place
            .open_with(|config| change(config.registry(registry).content(content).gc(calm())))
            .await
    }

    /// Takes and publishes `test:VERSION`.
    async fn take(&self, store: &Snapshotter, version: &str, seed: u64) -> PathBuf {
        let source = self.place.write(version, &vm(seed));
        store.snapshot(&all(version, &source)).await.unwrap();
        source
    }

    /// The same, kept here alone.
    async fn take_here(&self, store: &Snapshotter, version: &str, seed: u64) -> PathBuf {
        let source = self.place.write(version, &vm(seed));
        let request = all(version, &source).local(true);
        store.snapshot(&request).await.unwrap();
        source
    }
}

#[tokio::test]
async fn what_is_published_goes_and_what_is_only_here_stays_unless_asked_for() {
    let node = Node::new();
    let store = node.open().await;
    node.take(&store, "v1", 1).await;
    node.take_here(&store, "v2", 2).await;
    let report = store.gc(&published()).await.unwrap();
    assert_eq!(released(&report), ["test:v1"]);
    assert_eq!(report.kept.only_copies, 1);
    let shortfall = report.shortfall.unwrap();
    assert_eq!(shortfall.reason, GcStop::NothingLeft);
    assert_eq!(shortfall.missing.store_bytes, 90_000);
    let report = store.gc(&everything()).await.unwrap();
    assert_eq!(released(&report), ["test:v2"]);
    assert_eq!(report.shortfall, None);
    node.place.assert_empty();
}

#[tokio::test]
async fn what_was_released_is_fetched_again() {
    let node = Node::new();
    let store = node.open().await;
    let source = node.take(&store, "v1", 1).await;
    store.gc(&published()).await.unwrap();
    assert!(listed(&store).await.is_empty());
    let output = node.place.fresh();
    let report = give(&store, "v1", &output).await;
    assert_eq!(report.fetched_blobs, 2);
    assert_same(&source, &output);
}

#[tokio::test]
async fn blobs_that_something_else_needs_stay() {
    let node = Node::new();
    let store = node.open().await;
    node.take(&store, "v1", 1).await;
    let kept = node.take_here(&store, "v2", 2).await;
    let report = store.gc(&published()).await.unwrap();
    assert_eq!((report.blobs_released, report.released_bytes), (1, 40_000));
    let output = node.place.fresh();
    give(&store, "v2", &output).await;
    assert_same(&kept, &output);
    assert_sound(&store).await;
}

#[tokio::test]
async fn nothing_goes_that_would_free_nothing() {
    let node = Node::new();
    let store = node.open().await;
    let source = node.take_here(&store, "v1", 1).await;
    // The same files, published: all its bytes are v1's too.
    store.snapshot(&all("v2", &source)).await.unwrap();
    let report = store.gc(&published()).await.unwrap();
    assert!(report.released.is_empty(), "{report:?}");
    assert_eq!(listed(&store).await, ["test:v1", "test:v2"]);
}

#[tokio::test]
async fn a_pinned_snapshot_stays_until_it_is_unpinned_or_removed() {
    let node = Node::new();
    let store = node.open().await;
    node.take_here(&store, "v1", 1).await;
    node.take_here(&store, "v2", 2).await;
    for version in ["test:v1", "test:v2", "test:v1"] {
        assert!(store.pin(&reference(version)).await.unwrap().pinned);
    }
    let report = store.gc(&everything()).await.unwrap();
    assert_eq!((report.released.len(), report.kept.pinned), (0, 2));
    assert!(!store.unpin(&reference("test:v1")).await.unwrap().pinned);
    let report = store.gc(&everything()).await.unwrap();
    assert_eq!(released(&report), ["test:v1"]);
    store.remove(&reference("test:v2")).await.unwrap();
    node.place.assert_empty();
    let error = store.pin(&reference("test:v2")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_snapshot_used_within_the_retention_period_stays() {
    let node = Node::new();
    let store = node.open().await;
    node.take(&store, "v1", 1).await;
    let young = published().min_retention_period(Duration::from_secs(3600));
    let report = store.gc(&young).await.unwrap();
    assert_eq!((report.released.len(), report.kept.recent), (0, 1));
}

#[tokio::test]
async fn the_least_recently_used_goes_first_and_no_more_than_is_needed() {
    let node = Node::new();
    let store = node.open().await;
    for (version, seed) in [("v1", 1), ("v2", 2), ("v3", 3)] {
        node.take(&store, version, seed).await;
    }
    give(&store, "v1", &node.place.fresh()).await;
    // 170 000 bytes are there, 40 000 of them each one's own.
    let report = store.gc(&published().max_bytes(131_000)).await.unwrap();
    assert_eq!(released(&report), ["test:v2"]);
    assert_eq!(report.wanted.store_bytes, 39_000);
    assert_eq!(listed(&store).await, ["test:v1", "test:v3"]);
}

#[tokio::test]
async fn a_dry_run_says_what_the_same_call_then_does() {
    let node = Node::new();
    let store = node.open().await;
    for (version, seed) in [("v1", 1), ("v2", 2), ("v3", 3)] {
        node.take(&store, version, seed).await;
    }
    let request = published().max_bytes(90_000);
    let planned = store.gc(&request.clone().dry_run(true)).await.unwrap();
    assert!(planned.dry_run);
    assert_eq!(listed(&store).await.len(), 3);
    let done = store.gc(&request).await.unwrap();
    assert_eq!(released(&planned), ["test:v1", "test:v2"]);
    assert_eq!(planned.released, done.released);
    assert_eq!(planned.blobs_released, done.blobs_released);
    assert_eq!(planned.released_bytes, done.released_bytes);
    assert_eq!(planned.wanted, done.wanted);
}

#[tokio::test]
async fn a_file_with_another_name_frees_nothing_and_is_not_released_for_the_disk() {
    let node = Node::new();
    let mut gc = calm();
    gc.disk_high_threshold_percent = 0.000_001;
    gc.disk_low_threshold_percent = 0.000_001;
    gc.min_retention_period = Duration::ZERO;
    let store = node.open_with(|config| config.gc(gc)).await;
    let source = node.place.write("v1", &vm(1));
    let taken = store.snapshot(&all_read_only("v1", &source)).await.unwrap();
    if taken.placements.hardlink.files < 2 {
        return testkit::mount::report_skip("this filesystem does not hardlink");
    }
    let details = store.usage_details().await.unwrap();
    assert_eq!(details.reclaimable_bytes, 0);
    let report = store.gc(&GcRequest::new()).await.unwrap();
    assert!(report.released.is_empty(), "{report:?}");
    assert!(report.wanted.disk_bytes > 0);
    assert_eq!(report.shortfall.unwrap().reason, GcStop::NothingLeft);
    // Its other name goes: now it is worth it.
    fs::remove_dir_all(&source).unwrap();
    assert!(store.usage_details().await.unwrap().reclaimable_bytes >= 90_000);
    let report = store.gc(&GcRequest::new()).await.unwrap();
    assert_eq!(released(&report), ["test:v1"]);
    node.place.assert_empty();
}

#[tokio::test]
async fn usage_tells_what_is_shared_and_why_what_is_kept() {
    let node = Node::new();
    let mut gc = calm();
    gc.min_retention_period = Duration::ZERO;
    let store = node.open_with(|config| config.gc(gc)).await;
    node.take(&store, "v1", 1).await;
    node.take_here(&store, "v2", 2).await;
    node.take_here(&store, "v3", 3).await;
    store.pin(&reference("test:v3")).await.unwrap();
    let details = store.usage_details().await.unwrap();
    for (one, kept) in
        details
            .snapshots
            .iter()
            .zip([Some(KeptFor::Pinned), Some(KeptFor::OnlyCopy), None])
    {
        assert_eq!((one.shared_bytes, one.exclusive_bytes), (50_000, 40_000));
        assert_eq!(one.kept, kept, "{}", one.reference);
    }
    assert_eq!(details.usage.stored_bytes, 170_000);
    assert!((40_000..90_000).contains(&details.reclaimable_bytes));
}

#[tokio::test]
async fn what_dead_owners_left_is_swept_and_names_the_store_did_not_give_up_stay() {
    let node = Node::new();
    let store = node.open().await;
    node.take(&store, "v1", 1).await;
    let strange = node.place.content().join("a".repeat(64));
    fs::write(&strange, "not this store's to throw away").unwrap();
    let given_up = node.place.content().join("b".repeat(64));
    fs::write(&given_up, "litter").unwrap();
    let note = format!("INSERT INTO orphans VALUES (0, '0000/{}')", "b".repeat(64));
    catalog(&node.place.root()).execute(&note, []).unwrap();
    let orphan = node.place.root().join("staging/0123456789abcdef");
    fs::create_dir_all(&orphan).unwrap();
    fs::write(orphan.join("slot"), "half").unwrap();
    let dry = store.gc(&GcRequest::new().dry_run(true)).await.unwrap();
    assert!(dry.swept_names == 0 && orphan.exists());
    let report = store.gc(&GcRequest::new()).await.unwrap();
    assert_eq!((report.swept_names, report.released.len()), (1, 0));
    assert!(!orphan.exists() && !given_up.exists() && strange.exists());
    let report = store.verify(&VerifyRequest::all()).await.unwrap();
    assert_eq!((report.swept_names, report.unknown_blobs), (0, 1));
    assert!(strange.exists());
}

/// A filesystem of its own, small enough to fill.
struct Small {
    mount: LoopMount,
    elsewhere: Place,
}

impl Small {
    fn new(kind: Kind, size: u64) -> Option<Self> {
        Some(Self {
            mount: or_skip(LoopMount::new(kind, size, &[]))?,
            elsewhere: Place::new(),
        })
    }

    async fn open(&self, gc: Gc) -> Snapshotter {
        let registry = Layouts(self.elsewhere.path("layouts")).registry();
        let content = directory(&self.elsewhere.path("objects"));
        let config = Config::new(self.mount.path().join("root"))
            .registry(registry)
            .content(content)
            .gc(gc);
        Snapshotter::open(config).await.unwrap()
    }
}

fn used_percent(usage: &snapshotter::Usage) -> f64 {
    100.0 - usage.available_bytes as f64 / usage.filesystem_bytes as f64 * 100.0
}

#[tokio::test]
async fn a_full_disk_is_brought_below_the_low_threshold() {
    let Some(small) = Small::new(Kind::Ext4, 64 * MIB) else {
        return;
    };
    let mut gc = Gc::default();
    gc.min_retention_period = Duration::ZERO;
    gc.batch_size = 2;
    gc.background = false;
    let store = small.open(gc).await;
    let mut taken = 0;
    while used_percent(&store.usage().await.unwrap()) < 90.0 {
        let tree = Tree::new().file("memory", random(taken, 4 * MIB));
        let source = small.elsewhere.write(&format!("s{taken}"), &tree);
        take(&store, &format!("v{taken:03}"), &source).await;
        taken += 1;
    }
    let report = store.gc(&GcRequest::new()).await.unwrap();
    let used = used_percent(&store.usage().await.unwrap());
    assert!((60.0..=70.0).contains(&used), "{used} {report:?}");
    assert_eq!(report.shortfall, None);
    assert!(report.freed_bytes >= report.wanted.disk_bytes);
    // The oldest went, and nothing goes while the disk is not too full again.
    assert_eq!(report.released[0].reference, reference("test:v000"));
    let again = store.gc(&GcRequest::new()).await.unwrap();
    assert!(again.released.is_empty() && again.wanted.disk_bytes == 0);
}

#[tokio::test]
async fn collection_stops_when_the_filesystem_gets_nothing_back() {
    let Some(small) = Small::new(Kind::Xfs, 400 * MIB) else {
        return;
    };
    let mut gc = calm();
    gc.disk_high_threshold_percent = 0.1;
    gc.disk_low_threshold_percent = 0.1;
    gc.min_retention_period = Duration::ZERO;
    gc.batch_size = 1;
    gc.background = false;
    let store = small.open(gc).await;
    for number in 0..4 {
        let tree = Tree::new().file("disk", random(number, 8 * MIB));
        let source = small.mount.path().join(format!("s{number}"));
        tree.write_to(&source).unwrap();
        let report = take(&store, &format!("v{number}"), &source).await;
        assert_eq!(report.placements.reflink.files, 1, "{report:?}");
    }
    let report = store.gc(&GcRequest::new()).await.unwrap();
    assert_eq!(report.shortfall.unwrap().reason, GcStop::NotHelping);
    assert_eq!(released(&report), ["test:v0"], "{report:?}");
}

/// Both handles of this process and another process collect all they may.
async fn collect_from_everywhere(own: &Snapshotter, root: &Path) -> GcReport {
    let report = own.gc(&everything()).await.unwrap();
    let other = Snapshotter::open(Config::new(root).gc(calm()))
        .await
        .unwrap();
    other.gc(&everything()).await.unwrap();
    other.close().await.unwrap();
    let mut command = playing(module_path!(), "collector");
    tell(&mut command, "ROOT", root);
    let mut child = start(&mut command);
    let end = tokio::task::spawn_blocking(move || child.wait().unwrap());
    assert_eq!(end.await.unwrap(), State::Exited(0));
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_is_not_disturbed() {
    let node = Node::new();
    let store = node.open().await;
    let source = node.take(&store, "v1", 1).await;
    let gate = Arc::new(Gate::default());
    let output = node.place.fresh();
    let (observed, request) = (store.observed_by(gate.clone()), to("v1", &output));
    let restoring = tokio::spawn(async move { observed.restore(&request).await });
    gate.reached().await;
    let report = collect_from_everywhere(&store, &node.place.root()).await;
    assert_eq!((report.released.len(), report.kept.in_use), (0, 1));
    gate.open();
    restoring.await.unwrap().unwrap();
    assert_same(&source, &output);
    assert_eq!(
        released(&store.gc(&everything()).await.unwrap()),
        ["test:v1"]
    );
    node.place.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_is_not_disturbed() {
    let node = Node::new();
    let store = node
        .open_with(|config| config.snapshot_concurrency(1))
        .await;
    // Its bytes are there already, and what they are there for goes meanwhile.
    let source = node.take(&store, "v1", 1).await;
    let gate = Arc::new(Gate::default());
    let (observed, request) = (
        store.observed_by(gate.clone()),
        all("v2", &source).local(true),
    );
    let taking = tokio::spawn(async move { observed.snapshot(&request).await });
    gate.reached().await;
    let report = collect_from_everywhere(&store, &node.place.root()).await;
    assert_eq!(released(&report), ["test:v1"]);
    gate.open();
    taking.await.unwrap().unwrap();
    let output = node.place.fresh();
    give(&store, "v2", &output).await;
    assert_same(&source, &output);
    assert_sound(&store).await;
}

/// Lets requests through but the ones that ask for a blob after the first `free`.
#[derive(Default)]
struct Barrier {
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Barrier {
    fn wait(&self, free: usize) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        self.changed.notify_all();
        if state.0 <= free {
            return;
        }
        while !state.1 {
            state = self.changed.wait(state).unwrap();
        }
    }

    fn reached(&self, count: usize) {
        let state = self.state.lock().unwrap();
        let waited = self
            .changed
            .wait_timeout_while(state, Duration::from_secs(60), |state| state.0 < count);
        assert!(!waited.unwrap().1.timed_out(), "nobody came");
    }

    fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_is_not_disturbed() {
    let (between, here, there) = (Place::new(), Place::new(), Place::new());
    let sky = Sky::over(Layouts(between.path("layouts")));
    let content = Content::new(ContentProvider::Registry);
    let layouts = sky.layouts.registry();
    let publisher = here
        .open_with(|config| config.registry(layouts).content(content.clone()))
        .await;
    let source = here.write("source", &vm(1));
    take(&publisher, "v1", &source).await;
    let registry = sky.registry();
    let store = there
        .open_with(|config| {
            let config = config.registry(registry).content(content);
            config.restore_concurrency(1)
        })
        .await;
    // The document and one file have come, the other is on its way: for ever, if need be.
    let barrier = Arc::new(Barrier::default());
    let held = Arc::clone(&barrier);
    sky.storms.set(move |asked| {
        if asked.method == "GET" && asked.path().contains("/blobs/") {
            held.wait(2);
        }
        None
    });
    let pulling = {
        let store = store.clone();
        tokio::spawn(async move { store.pull(&PullRequest::new(reference("test:v1"))).await })
    };
    let arrived = Arc::clone(&barrier);
    tokio::task::spawn_blocking(move || arrived.reached(3))
        .await
        .unwrap();
    // One that shares a blob with it comes and goes.
    let other = there.write("other", &vm(2));
    store
        .snapshot(&all("v2", &other).local(true))
        .await
        .unwrap();
    let report = collect_from_everywhere(&store, &there.root()).await;
    assert_eq!(released(&report), ["test:v2"]);
    barrier.open();
    pulling.await.unwrap().unwrap();
    let output = there.fresh();
    give(&store, "v1", &output).await;
    assert_same(&source, &output);
    assert_sound(&store).await;
}

/// Waits for something that comes by itself.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn eager() -> Gc {
    let mut gc = calm();
    gc.interval = Duration::from_millis(1);
    gc.max_bytes = Some(0);
    gc.min_retention_period = Duration::ZERO;
    gc
}

#[tokio::test]
async fn a_handle_collects_in_the_background_until_it_is_closed() {
    let node = Node::new();
    let store = node.open_with(|config| config.gc(eager())).await;
    node.take(&store, "v1", 1).await;
    until("v1 goes", async || listed(&store).await.is_empty()).await;
    until("it is counted", async || {
        store.metrics().evicted_snapshots == 1
    })
    .await;
    store.close().await.unwrap();
    let rounds = store.metrics().operations[Operation::Gc as usize].succeeded;
    assert!(rounds > 0);
    let other = node.open().await;
    let source = node.place.path("v1");
    other.snapshot(&all("v2", &source)).await.unwrap();
    other.close().await.unwrap();
    let after = store.metrics().operations[Operation::Gc as usize].succeeded;
    assert_eq!(rounds, after, "nobody collects any more");
    assert_at_rest(&node.place.root());
}

#[tokio::test]
async fn a_handle_that_is_dropped_collects_no_more() {
    let node = Node::new();
    let store = node.open_with(|config| config.gc(eager())).await;
    drop(store);
    assert!(names(&node.place.root().join("leases")).is_empty());
    assert_at_rest(&node.place.root());
}

#[tokio::test]
async fn nothing_is_collected_in_the_background_where_that_is_off() {
    let node = Node::new();
    let mut gc = eager();
    gc.background = false;
    let store = node.open_with(|config| config.gc(gc)).await;
    node.take(&store, "v1", 1).await;
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let own: Vec<String> = threads
        .map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default())
        .filter(|name| name.starts_with("snapshotter-gc"))
        .collect();
    // Tests that share this process may have workers; under nextest each has its own.
    if std::env::var_os("NEXTEST").is_some() {
        assert!(own.is_empty(), "{own:?}");
    }
    assert_eq!(listed(&store).await, ["test:v1"]);
}

#[tokio::test]
async fn the_worker_survives_its_own_errors_and_says_so() {
    let node = Node::new();
    let store = node
        .open_with(|config| config.gc(eager()).busy_timeout(Duration::from_millis(1)))
        .await;
    let held = catalog(&node.place.root());
    // What it has to do something about, now that it cannot.
    let litter = node.place.content().join("a".repeat(64));
    fs::create_dir_all(node.place.content()).unwrap();
    fs::write(&litter, "litter").unwrap();
    let note = format!("INSERT INTO orphans VALUES (0, '0000/{}')", "a".repeat(64));
    held.execute_batch(&format!("{note}; BEGIN IMMEDIATE"))
        .unwrap();
    until("a round fails", async || {
        let metrics = store.metrics();
        let gc = &metrics.operations[Operation::Gc as usize];
        gc.failures.iter().any(|(kind, _)| *kind == ErrorKind::Busy)
            && metrics.gc_last_error.is_some()
    })
    .await;
    held.execute_batch("ROLLBACK").unwrap();
    until("a later round succeeds", async || {
        !litter.exists() && store.metrics().gc_last_error.is_none()
    })
    .await;
}

#[tokio::test]
async fn what_a_handle_does_is_counted() {
    let node = Node::new();
    let store = node.open().await;
    let source = node.take(&store, "v1", 1).await;
    store.snapshot(&all("v2", &source)).await.unwrap();
    give(&store, "v1", &node.place.fresh()).await;
    give_fails(&store, "v9", &node.place.fresh()).await;
    store.gc(&published()).await.unwrap();
    let metrics = store.metrics();
    assert_eq!(
        (metrics.captured_bytes, metrics.stored_bytes),
        (180_000, 90_000)
    );
    // The second snapshot found both; what a restore finds is not counted.
    assert_eq!((metrics.blob_hits, metrics.blob_misses), (2, 2));
    assert_eq!(metrics.restored_bytes, 90_000);
    assert_eq!(
        (metrics.evicted_snapshots, metrics.evicted_bytes),
        (2, 90_000)
    );
    let restore = &metrics.operations[Operation::Restore as usize];
    assert_eq!(restore.succeeded, 1);
    assert_eq!(restore.failures, [(ErrorKind::NotFound, 1)]);
    assert_eq!(restore.latency.count(), 2);
    let text = metrics.to_prometheus(&store.usage().await.unwrap());
    for line in [
        "snapshotter_operations_total{operation=\"restore\",outcome=\"error\"} 1",
        "snapshotter_failures_total{operation=\"restore\",kind=\"not_found\"} 1",
        "snapshotter_operation_seconds_bucket{operation=\"restore\",le=\"+Inf\"} 2",
        "snapshotter_operation_seconds_count{operation=\"snapshot\"} 2",
        "snapshotter_evicted_snapshots_total 2",
        "snapshotter_store_bytes 0",
        "# TYPE snapshotter_operation_seconds histogram",
    ] {
        assert!(text.lines().any(|one| one == line), "{line} in\n{text}");
    }
}

// Rows that went left their pages to the catalog for ever: it was as large as it had ever been.
#[tokio::test]
async fn a_catalog_that_is_mostly_free_is_made_smaller_while_others_have_it_open() {
    let node = Node::new();
    let (store, other) = (node.open().await, node.open().await);
    let source = node.take(&store, "v1", 1).await;
    let size = || {
        fs::metadata(node.place.root().join("metadata/catalog.db"))
            .unwrap()
            .len()
    };
    let grow = "CREATE TABLE gone (bytes BLOB); INSERT INTO gone VALUES (zeroblob(40 << 20)); DROP TABLE gone;
        PRAGMA wal_checkpoint";
    catalog(&node.place.root()).execute_batch(grow).unwrap();
    assert!(size() > 40 << 20);
    other.gc(&GcRequest::new().dry_run(true)).await.unwrap();
    assert!(size() > 40 << 20);
    other.gc(&GcRequest::new()).await.unwrap();
    assert!(size() < 1 << 20, "{}", size());
    // Who had it open goes on by the same file.
    assert_eq!(store.list().await.unwrap().len(), 1);
    store.snapshot(&all("v2", &source)).await.unwrap();
    give(&other, "v2", &node.place.fresh()).await;
    assert!(
        store
            .verify(&VerifyRequest::all())
            .await
            .unwrap()
            .damaged
            .is_empty()
    );
    assert!(node.open().await.warnings().is_empty());
}

/// Two agents by mistake, with a command beside them, all of them collecting.
#[tokio::test(flavor = "multi_thread")]
async fn two_agents_and_a_command_may_collect_at_once() {
    let node = Node::new();
    let one = node.open_with(|config| config.gc(eager())).await;
    let other = node.open_with(|config| config.gc(eager())).await;
    let over = AtomicBool::new(false);
    let source = node.place.write("source", &vm(1));
    let work = async {
        for round in 0..12 {
            let (name, version) = (["one", "other"][round % 2], format!("v{round}"));
            let request = SnapshotRequest::new(name, &version, &source);
            [&one, &other][round % 2].snapshot(&request).await.unwrap();
            let output = node.place.fresh();
            let reference = reference(&format!("{name}:{version}"));
            // Released or not: it comes back.
            let request = RestoreRequest::new(reference, &output);
            [&other, &one][round % 2].restore(&request).await.unwrap();
            assert_same(&source, &output);
        }
        over.store(true, Ordering::SeqCst);
    };
    let command = async {
        while !over.load(Ordering::SeqCst) {
            let mut command = playing(module_path!(), "collector");
            tell(&mut command, "ROOT", node.place.root());
            let mut child = start(&mut command);
            let end = tokio::task::spawn_blocking(move || child.wait().unwrap());
            assert_eq!(end.await.unwrap(), State::Exited(0));
        }
    };
    tokio::join!(work, command);
    one.close().await.unwrap();
    other.close().await.unwrap();
    let root = node.place.root();
    tokio::task::spawn_blocking(move || {
        let handle = Handle::open(&root).unwrap();
        handle.assert_clean();
        handle.close().unwrap();
        assert_at_rest(&root);
        assert_rows_and_files_agree(&root);
    })
    .await
    .unwrap();
}

fn last(count: u64) -> PruneRule {
    let mut keep = Retention::default();
    keep.last = count;
    PruneRule::new(["test"], keep)
}

fn daily(count: u64) -> PruneRule {
    let mut keep = Retention::default();
    keep.daily = count;
    PruneRule::new(["test"], keep)
}

/// What went, and what stayed for which reasons.
fn verdict(report: &PruneReport) -> (Vec<&str>, Vec<(&str, Vec<KeepReason>)>) {
    let removed = report.removed.iter();
    let removed = removed.map(|one| one.reference.version().unwrap());
    let kept = report.kept.iter();
    let kept = kept.map(|one| (one.reference.version().unwrap(), one.reasons.clone()));
    (removed.collect(), kept.collect())
}

#[tokio::test]
async fn pruning_removes_what_no_rule_keeps_and_nothing_that_is_pinned_or_an_only_copy() {
    let place = Place::new();
    let store = place.open().await;
    for number in 1..=4 {
        let source = place.write(&format!("v{number}"), &vm(number));
        take(&store, &format!("v{number}"), &source).await;
    }
    store.pin(&reference("test:v1")).await.unwrap();
    let nothing = store.prune(&PruneRequest::new([last(0)])).await;
    assert_eq!(nothing.unwrap_err().kind(), ErrorKind::InvalidInput);

    let careful = PruneRequest::new([last(1)]);
    let report = store.prune(&careful).await.unwrap();
    let only = |version| (version, vec![KeepReason::OnlyCopy]);
    let stays = [
        ("v4", vec![KeepReason::Last]),
        only("v3"),
        only("v2"),
        ("v1", vec![KeepReason::Pinned]),
    ];
    assert_eq!(verdict(&report), (vec![], stays.to_vec()));

    let asked = PruneRequest::new([last(1).include_unpublished(true)]);
    let planned = store.prune(&asked.clone().dry_run(true)).await.unwrap();
    assert_eq!(store.list().await.unwrap().len(), 4);
    let report = store.prune(&asked).await.unwrap();
    let stays = vec![
        ("v4", vec![KeepReason::Last]),
        ("v1", vec![KeepReason::Pinned]),
    ];
    assert_eq!(verdict(&report), (vec!["v3", "v2"], stays));
    assert_eq!(verdict(&planned), verdict(&report));
    // Each has a file of its own, and one that all share.
    assert!(
        report
            .removed
            .iter()
            .all(|one| (one.blobs_removed, one.freed_bytes) == (1, 40_000))
    );
    assert_eq!(planned.removed, report.removed);
    assert_eq!(store.list().await.unwrap().len(), 2);
    assert_sound(&store).await;
    // Nothing is left to do.
    assert!(store.prune(&asked).await.unwrap().removed.is_empty());
    store.close().await.unwrap();
    assert_at_rest(&place.root());
}

#[tokio::test]
async fn the_first_rule_that_has_a_name_counts_and_one_version_stays() {
    let place = Place::new();
    let store = place.open().await;
    let source = place.write("vm", &vm(1));
    for name in ["test", "other", "third"] {
        for version in ["v1", "v2"] {
            let request = SnapshotRequest::new(name, version, &source);
            store.snapshot(&request).await.unwrap();
        }
    }
    let mut named = Retention::default();
    named.versions = vec!["none-*".to_owned()];
    let rules = [
        last(2),
        PruneRule::new(["t*", "o*"], named).include_unpublished(true),
    ];
    let report = store.prune(&PruneRequest::new(rules)).await.unwrap();
    let removed: Vec<_> = report
        .removed
        .iter()
        .map(|one| one.reference.to_string())
        .collect();
    assert_eq!(removed, ["other:v1", "third:v1"]);
    let newest = report
        .kept
        .iter()
        .filter(|one| one.reasons == [KeepReason::Newest]);
    assert_eq!(newest.count(), 2);
}

/// A snapshot of format v2 names its parent's packs by reference: the parent goes, and what was made from it is whole, can be
/// restored, and is a parent in its turn.
#[tokio::test]
async fn a_parent_may_be_pruned_before_what_was_made_from_it() {
    let place = Place::new();
    let store = place.open().await;
    let source = place.write("vm", &vm(1));
    let pages = |version: &str| all(version, &source).format(Format::V2);
    store.snapshot(&pages("v1")).await.unwrap();
    fs::write(source.join("own"), vec![5; 40_000]).unwrap();
    let second = store.snapshot(&pages("v2")).await.unwrap();
    assert!(second.paged.unwrap().parent.is_some());
    let report = store
        .prune(&PruneRequest::new([last(1).include_unpublished(true)]))
        .await
        .unwrap();
    assert_eq!(verdict(&report).0, ["v1"]);
    let out = place.fresh();
    give(&store, "v2", &out).await;
    assert_same(&source, &out);
    assert_sound(&store).await;
    fs::write(source.join("own"), vec![6; 40_000]).unwrap();
    let third = store.snapshot(&pages("v3")).await.unwrap();
    assert!(third.paged.unwrap().parent.is_some());
    let out = place.fresh();
    give(&store, "v3", &out).await;
    assert_same(&source, &out);
}

/// In the registry the manifests say when each was taken; one that says nothing stays, and one that is the same manifest as one
/// that stays. Fetched ones are as old here as they are there.
#[tokio::test]
async fn the_registry_is_pruned_by_what_manifests_say() {
    let place = Place::new();
    let registry = Layouts(place.path("layouts")).registry();
    let content = directory(&place.path("objects"));
    let open = async |node: &Place| {
        let (registry, content) = (registry.clone(), content.clone());
        node.open_with(|config| config.registry(registry).content(content))
            .await
    };
    let store = open(&place).await;
    let source = place.write("vm", &vm(1));
    let created = "org.opencontainers.image.created";
    for (version, day) in [("v1", 1), ("v2", 2), ("v2-again", 2), ("v3", 2), ("v4", 3)] {
        let time = format!("2026-03-0{day}T0{}:00:00Z", &version[1..2]);
        let request = all(version, &source).annotation(created, time);
        store.snapshot(&request).await.unwrap();
    }
    take(&store, "timeless", &source).await;
    let node = Place::new();
    let other = open(&node).await;
    for version in ["v1", "v2", "v3", "v4"] {
        let request = PullRequest::new(reference(&format!("test:{version}")));
        other.pull(&request).await.unwrap();
    }

    let request = PruneRequest::new([daily(2)]);
    let planned = store
        .prune_remote(&request.clone().dry_run(true))
        .await
        .unwrap();
    assert_eq!(store.list_remote(Some("test")).await.unwrap().len(), 6);
    let report = store.prune_remote(&request).await.unwrap();
    let stays = vec![
        ("timeless", vec![KeepReason::Undated]),
        ("v4", vec![KeepReason::Daily]),
        ("v3", vec![KeepReason::Daily]),
    ];
    assert_eq!(verdict(&report), (vec!["v2", "v2-again", "v1"], stays));
    assert_eq!(verdict(&planned), verdict(&report));
    let there: Vec<_> = store.list_remote(Some("test")).await.unwrap();
    assert_eq!(there.len(), 3);
    // Here they are only copies now, and on the other node they are as old as they are there.
    let report = store.prune(&PruneRequest::new([last(1)])).await.unwrap();
    let only = report
        .kept
        .iter()
        .filter(|one| one.reasons == [KeepReason::OnlyCopy]);
    assert_eq!(only.count(), 3);
    // Its rows say that they are there, and were believed: what others had removed went here too.
    let report = other.prune(&request).await.unwrap();
    assert_eq!(verdict(&report).0, <[&str; 0]>::default());
    assert_eq!(report.warnings.len(), 2, "{:?}", report.warnings);
    let request = PruneRequest::new([daily(2).include_unpublished(true)]);
    let report = other.prune(&request).await.unwrap();
    assert_eq!(verdict(&report).0, ["v2", "v1"]);

    // The same manifest under two names: it stays with either.
    for version in ["w1", "w2"] {
        let request = all(version, &source).annotation(created, "2026-03-09T00:00:00Z");
        store.snapshot(&request).await.unwrap();
    }
    let report = store
        .prune_remote(&PruneRequest::new([last(1)]))
        .await
        .unwrap();
    let same = report
        .kept
        .iter()
        .filter(|one| one.reasons == [KeepReason::Same]);
    assert_eq!(same.count(), 1);
    store
        .push(&PushRequest::new(reference("test:w1")))
        .await
        .unwrap();
}

/// One more name keeps what the snapshot needs, moves nothing, and is as immutable as any.
#[tokio::test]
async fn a_tag_is_a_snapshot_like_any_other_and_moves_no_bytes() {
    let place = Place::new();
    let store = place.open().await;
    let source = place.write("vm", &vm(1));
    let pages = |version: &str| all(version, &source).format(Format::V2);
    let first = store.snapshot(&pages("v1")).await.unwrap();
    let (old, stable) = (reference("test:v1"), reference("golden/vm:stable"));
    let before = store.usage().await.unwrap();
    let tagged = store.tag(&old, &stable, false).await.unwrap();
    assert_eq!(
        (tagged.manifest_digest, tagged.replaced),
        (first.manifest_digest, None)
    );
    let after = store.usage().await.unwrap();
    assert_eq!((before.snapshots, after.snapshots), (1, 2));
    assert_eq!(
        (before.packs, before.stored_bytes),
        (after.packs, after.stored_bytes)
    );
    assert_eq!(
        store.document(&old).await.unwrap(),
        store.document(&stable).await.unwrap()
    );
    let (one, other) = (store.find(&old).await, store.find(&stable).await);
    assert_eq!(one.unwrap().created_at, other.unwrap().created_at);
    // Again it is the same.
    assert_eq!(
        store.tag(&old, &stable, false).await.unwrap().replaced,
        None
    );

    fs::write(source.join("own"), vec![5; 40_000]).unwrap();
    let second = store.snapshot(&pages("v2")).await.unwrap();
    let new = reference("test:v2");
    let taken = store.tag(&new, &stable, false).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    let nothing = store
        .tag(&reference("test:v9"), &stable, true)
        .await
        .unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::NotFound);
    let moved = store.tag(&new, &stable, true).await.unwrap();
    assert_eq!(moved.replaced, Some(first.manifest_digest));
    store.remove(&new).await.unwrap();
    store.remove(&old).await.unwrap();
    let out = place.fresh();
    let request = RestoreRequest::new(stable.clone(), &out);
    let restored = store.restore(&request).await.unwrap();
    assert_eq!(restored.manifest_digest, second.manifest_digest);
    assert_same(&source, &out);
    // Its list of page digests is still here: the next capture reads no pack for it.
    assert_eq!(names(&place.root().join("digests")).len(), 1);
    assert_sound(&store).await;
    store.close().await.unwrap();
    assert_at_rest(&place.root());
}

/// 300,000 files of a byte were 3 MiB by their data and 1.2 GB on the disk; and what is cloned was counted as often as it is.
#[tokio::test]
async fn what_is_on_the_disk_is_counted_as_the_disk_has_it() {
    for kind in [Kind::Ext4, Kind::Xfs] {
        let Some(mount) = or_skip(LoopMount::new(kind, 512 * MIB, &[])) else {
            continue;
        };
        let store = Snapshotter::open(Config::new(mount.path().join("root")).gc(calm())).await;
        let store = store.unwrap();
        let nothing = store.usage_details().await.unwrap().disk;
        assert_eq!(nothing.blob_bytes, 0);
        assert!(
            nothing.catalog_bytes > 0 && nothing.other_bytes > 0,
            "{nothing:?}"
        );
        let source = mount.path().join("small");
        fs::create_dir(&source).unwrap();
        for number in 0..100 {
            fs::write(source.join(number.to_string()), number.to_string()).unwrap();
        }
        let request = SnapshotRequest::new("small", "v1", &source);
        store.snapshot(&request).await.unwrap();
        let details = store.usage_details().await.unwrap();
        assert_eq!(details.disk.blob_bytes, 100 * 4096);
        assert!(details.usage.stored_bytes < 200);
        assert!(details.disk.total() > details.disk.blob_bytes + details.disk.catalog_bytes);

        // A view of it is a clone where the filesystem clones, and a copy elsewhere.
        let source = mount.path().join("large");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("memory"), vec![7; 16 << 20]).unwrap();
        let request = all_read_only("v1", &source).link_mode(snapshotter::LinkMode::Copy);
        store.snapshot(&request).await.unwrap();
        let changed = Tree::new().file("memory", testkit::Content::Bytes(vec![7; 16 << 20]));
        let other = mount.path().join("other");
        changed.write_to(&other).unwrap();
        fs::set_permissions(other.join("memory"), fs::Permissions::from_mode(0o400)).unwrap();
        let request = all_read_only("v2", &other).link_mode(snapshotter::LinkMode::Copy);
        store.snapshot(&request).await.unwrap();
        for version in ["v1", "v2"] {
            give(&store, version, &mount.path().join(version)).await;
        }
        let disk = store.usage_details().await.unwrap().disk;
        let large = disk.blob_bytes - 100 * 4096;
        let storage = mount.path().join("root/storage");
        let files = files_below(&storage).into_iter();
        let files = files.map(|path| fs::metadata(storage.join(path)).unwrap());
        let files = files.filter(|file| file.len() == 16 << 20);
        let inodes = files.map(|file| file.ino()).collect::<HashSet<_>>().len() as u64;
        assert!(inodes > 1);
        match kind {
            Kind::Ext4 => assert_eq!(large, inodes * (16 << 20)),
            _ => assert!(
                (16 << 20..17 << 20).contains(&large),
                "{large} of {inodes} inodes"
            ),
        }
    }
}

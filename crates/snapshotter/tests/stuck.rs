//! What one call waits for holds no other call: an output that takes nothing more, a file under somebody's lease.

use crate::support_a;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use snapshotter::{
    Config, Content, ContentProvider, PullRequest, Registry, RestoreReport, RestoreRequest,
    SnapshotRequest, Snapshotter,
};
use support_a::*;
use testkit::child::{Child, State, this_test};
use testkit::compare::assert_same;
use testkit::lease::WriteLease;
use testkit::mount::{BindMount, Frozen, Kind, LoopMount, or_skip};
use testkit::{Content as Bytes, Tree};
use tokio::task::JoinHandle;

const MIB: u64 = 1 << 20;

/// A call that takes longer hangs. Less than the 45 seconds after which the kernel takes a lease away.
const PATIENCE: Duration = Duration::from_secs(30);

/// Names a directory for a test that runs itself in a process of its own.
const CHILD: &str = "STUCK_TEST_DIRECTORY";

async fn in_time<T>(call: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(PATIENCE, call).await;
    ended.unwrap_or_else(|_| panic!("it hangs"))
}

/// Waits for what will happen, and fails where it does not.
async fn until(what: impl Fn() -> bool) {
    in_time(async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// Whether some thread of this process waits for a frozen filesystem.
fn somebody_is_stuck() -> bool {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    tasks.flatten().any(|task| {
        let waits = fs::read_to_string(task.path().join("wchan")).unwrap_or_default();
        waits.contains("percpu_rwsem_wait") || waits.contains("percpu_down_read")
    })
}

fn tree() -> Tree {
    let random = |seed, len| Bytes::Random { seed, len };
    Tree::new()
        .file("disk.img", random(1, 8 * MIB))
        .file("memory.img", random(2, 8 * MIB))
        .file("sub/state.json", random(3, 20_000))
}

async fn node(place: &Place, name: &str) -> Snapshotter {
    let mut content = Content::new(ContentProvider::Fs);
    content.root = place.path("objects");
    fs::create_dir_all(&content.root).unwrap();
    let layouts = format!("oci-layout:{}", place.path("layouts").display());
    let config = Config::new(place.path(name))
        .registry(Registry::new(layouts, "snapshots"))
        .content(content)
        .restore_concurrency(1);
    Snapshotter::open(config).await.unwrap()
}

/// Publishes `vm:v1` and `vm:v2`, and says where they are.
async fn published(place: &Place) -> PathBuf {
    let source = place.write("source", &tree());
    let first = node(place, "first").await;
    for version in ["v1", "v2"] {
        let request = SnapshotRequest::new("vm", version, &source);
        first.snapshot(&request).await.unwrap();
    }
    first.close().await.unwrap();
    source
}

type Restoring = JoinHandle<snapshotter::Result<RestoreReport>>;

fn restore(store: &Snapshotter, version: &str, output: &Path) -> Restoring {
    let request = RestoreRequest::new(reference(&format!("vm:{version}")), output);
    let store = store.clone();
    tokio::spawn(async move { store.restore(&request).await })
}

async fn pull(store: &Snapshotter, version: &str) {
    let request = PullRequest::new(reference(&format!("vm:{version}")));
    in_time(store.pull(&request)).await.unwrap();
}

fn frozen_later() -> Option<LoopMount> {
    or_skip(LoopMount::new(Kind::Ext4, 128 * MIB, &[]))
}

/// Files of an output were made within the fetch that other calls wait for: a restore to a filesystem that had stopped
/// held a pull of the same snapshot, which had nothing to do with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_restore_to_a_frozen_output_holds_no_pull() {
    let Some(mount) = frozen_later() else { return };
    let place = Place::new();
    let source = published(&place).await;
    let second = node(&place, "second").await;
    let output = mount.path().join("output");
    fs::create_dir(&output).unwrap();
    let Some(frozen) = or_skip(Frozen::new(mount.path())) else {
        return;
    };
    let slow = restore(&second, "v1", &output);
    until(somebody_is_stuck).await;
    pull(&second, "v1").await;
    drop(frozen);
    in_time(slow).await.unwrap().unwrap();
    assert_same(&source, &output);
}

/// All restores, fetches and verifications of a handle had one set of permits: one output that had stopped took them all,
/// one a file, and everything else waited with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_output_keeps_only_the_permits_of_its_own_filesystem() {
    let Some(mount) = frozen_later() else { return };
    let place = Place::new();
    let source = published(&place).await;
    let second = node(&place, "second").await;
    pull(&second, "v1").await;
    let outputs = [mount.path().join("one"), place.fresh()];
    for output in &outputs {
        fs::create_dir_all(output.join("sub")).unwrap();
    }
    // A filesystem in the middle of an output is one of its own too.
    let inner = mount.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let Some(_inner) = or_skip(BindMount::new(&inner, &outputs[1].join("sub"))) else {
        return;
    };
    let Some(frozen) = or_skip(Frozen::new(mount.path())) else {
        return;
    };
    let slow = outputs
        .each_ref()
        .map(|output| restore(&second, "v1", output));
    until(somebody_is_stuck).await;
    let healthy = place.fresh();
    in_time(restore(&second, "v1", &healthy))
        .await
        .unwrap()
        .unwrap();
    assert_same(&source, &healthy);
    pull(&second, "v2").await;
    in_time(assert_sound(&second)).await;
    drop(frozen);
    for call in slow {
        in_time(call).await.unwrap().unwrap();
    }
    for output in &outputs {
        assert_same(&source, output);
    }
}

/// A file of this content, and its lease.
fn leased(place: &Place) -> Option<(PathBuf, WriteLease)> {
    let base = place.write("base", &Tree::new().file("file", "bytes"));
    let lease = or_skip(WriteLease::take(&base.join("file")))?;
    Some((base, lease))
}

/// Processor time of this process, in clock ticks.
fn ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split(' ').collect();
    fields[12].parse::<u64>().unwrap() + fields[13].parse::<u64>().unwrap()
}

/// The kernel says EAGAIN for a file under a write lease, and opening it was tried again without a pause: a processor was
/// busy for as long as the holder of the lease, a file server, took to let go.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_lease_costs_nothing() {
    if std::env::var_os(CHILD).is_none() {
        let mut command = this_test(module_path!(), "waiting_for_a_lease_costs_nothing");
        let mut child = Child::spawn(command.env(CHILD, "")).unwrap();
        assert_eq!(child.wait().unwrap(), State::Exited(0));
        return;
    }
    let place = Place::new();
    let Some((base, lease)) = leased(&place) else {
        return;
    };
    let store = place.open().await;
    let taking = tokio::spawn({
        let (store, base) = (store.clone(), base.clone());
        async move { store.snapshot(&all("v1", &base)).await }
    });
    until(|| lease.is_asked_for().unwrap()).await;
    // Of two seconds, two hundred ticks long, less than a tenth may be worked.
    let (before, started) = (ticks(), Instant::now());
    while started.elapsed() < Duration::from_secs(2) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let worked = ticks() - before;
    assert!(!taking.is_finished());
    drop(lease);
    in_time(taking).await.unwrap().unwrap();
    assert!(worked < 20, "{worked} ticks of work in two seconds");
}

/// Whoever waited for a lease did not look whether the caller had given up, and the handle could not be closed until the
/// kernel had taken the lease away.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_lease_ends_when_the_caller_gives_up() {
    let place = Place::new();
    let Some((base, lease)) = leased(&place) else {
        return;
    };
    let store = place.open().await;
    let request = all("v1", &base);
    tokio::select! {
        taken = store.snapshot(&request) => panic!("the lease is held: {taken:?}"),
        () = until(|| lease.is_asked_for().unwrap()) => {}
    }
    in_time(store.close()).await.unwrap();
    place.assert_empty();
}

/// A blob that is a hardlink of a user's file is under that file's lease too: restoring it, and verifying it, failed with
/// "Resource temporarily unavailable" at once.
#[tokio::test(flavor = "multi_thread")]
async fn stored_files_under_a_lease_are_waited_for() {
    let place = Place::new();
    let base = place.write("base", &Tree::new().file("file", "bytes"));
    age(&base.join("file"));
    let store = place.open().await;
    take_read_only(&store, "v1", &base).await;
    assert_eq!(inode(&base.join("file")), inode(&place.only_blob()));
    let output = place.fresh();
    let call: [fn(Snapshotter, PathBuf) -> JoinHandle<()>; 2] = [
        |store, output| tokio::spawn(async move { drop(give(&store, "v1", &output).await) }),
        |store, _| tokio::spawn(async move { assert_sound(&store).await }),
    ];
    for call in call {
        let Some(lease) = or_skip(WriteLease::take(&base.join("file"))) else {
            return;
        };
        let running = call(store.clone(), output.clone());
        until(|| lease.is_asked_for().unwrap() || running.is_finished()).await;
        drop(lease);
        in_time(running).await.unwrap();
    }
    assert_same(&base, &output);
}

/// What is in the output already is compared, and is under somebody's lease.
#[tokio::test(flavor = "multi_thread")]
async fn files_in_the_output_under_a_lease_are_waited_for() {
    let place = Place::new();
    let base = place.write("base", &Tree::new().file("file", "bytes"));
    let store = place.open().await;
    take(&store, "v1", &base).await;
    let output = place.fresh();
    give(&store, "v1", &output).await;
    let Some(lease) = or_skip(WriteLease::take(&output.join("file"))) else {
        return;
    };
    let again = tokio::spawn({
        let (store, output) = (store.clone(), output.clone());
        async move { give(&store, "v1", &output).await }
    });
    until(|| lease.is_asked_for().unwrap()).await;
    drop(lease);
    let again = in_time(again).await.unwrap();
    assert_eq!(again.placements.present.files, 1);
}

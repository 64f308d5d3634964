//! Herds: calls of one handle that want the same blobs at once, as when a node starts many sandboxes of one snapshot. One
//! call fetches a blob and the others wait for it. All must end, with the right bytes, whatever the others do.

use crate::support_a;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use snapshotter::{
    Config, Content, ContentProvider, ErrorKind, Event, Observer, PullRequest, Registry,
    RestoreRequest, SnapshotRequest, Snapshotter,
};
use support_a::*;
use testkit::compare::assert_same;
use testkit::prng::Prng;
use testkit::{Content as Bytes, Tree};
use tokio::task::JoinHandle;

/// How many rounds are drawn.
const ROUNDS: &str = "HERD_ROUNDS";

/// What they are drawn by: to have a round once more.
const SEED: &str = "HERD_SEED";

/// A herd that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(180);

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap())
}

/// Ends the process where what it guards does not end: a call that hangs cannot be made to end otherwise.
struct Guard(Arc<(Mutex<bool>, Condvar)>);

impl Guard {
    fn new(what: String) -> Self {
        let ended = Arc::<(Mutex<bool>, Condvar)>::default();
        let seen = Arc::clone(&ended);
        std::thread::spawn(move || {
            let waited = seen
                .1
                .wait_timeout_while(seen.0.lock().unwrap(), PATIENCE, |ended| !*ended);
            if waited.unwrap().1.timed_out() {
                let _ = writeln!(std::io::stderr(), "a herd hangs: {what}");
                std::process::abort();
            }
        });
        Self(ended)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

/// Snapshots of so many files each, which have their first files in common. They are published.
struct Published {
    place: Place,
    sources: BTreeMap<u64, PathBuf>,
}

/// Most are small and kept in memory until they are committed; some have a hole, are a file of their own, or are large.
fn bytes(index: u64) -> Bytes {
    match index % 97 {
        7 | 40 => Bytes::Sparse {
            size: 12_288,
            extents: vec![(8192, index, 4096)],
        },
        20 | 60 => random(index, 20_000),
        50 => random(index, 1_200_000),
        _ => random(index, 100 + index),
    }
}

fn random(index: u64, len: u64) -> Bytes {
    let seed = index + 1;
    Bytes::Random { seed, len }
}

impl Published {
    async fn new(counts: impl IntoIterator<Item = u64>) -> Self {
        let place = Place::new();
        let here = open(&place, &place.path("first"), 5).await;
        let mut sources = BTreeMap::new();
        // Each once.
        for count in counts.into_iter().collect::<BTreeSet<u64>>() {
            // Half of them the other way round, so that calls meet head-on.
            let name = |index| match count % 2 {
                0 => format!("{index:04}"),
                _ => format!("{:04}", 1000 - index),
            };
            let tree = (0..count).fold(Tree::new(), |tree, index| {
                tree.file(name(index), bytes(index))
            });
            let source = place.write(&format!("source-{count}"), &tree);
            let request = SnapshotRequest::new("vm", format!("v{count}"), &source);
            here.snapshot(&request).await.unwrap();
            sources.insert(count, source);
        }
        here.close().await.unwrap();
        Self { place, sources }
    }

    fn counts(&self) -> Vec<u64> {
        self.sources.keys().copied().collect()
    }

    /// A node that has nothing yet.
    async fn node(&self, there: &Place, concurrency: usize) -> Snapshotter {
        open(&self.place, &there.root(), concurrency).await
    }

    fn objects(&self) -> PathBuf {
        self.place.path("objects/xxh3")
    }
}

async fn open(between: &Place, root: &Path, concurrency: usize) -> Snapshotter {
    let mut content = Content::new(ContentProvider::Fs);
    content.root = between.path("objects");
    fs::create_dir_all(&content.root).unwrap();
    let layouts = format!("oci-layout:{}", between.path("layouts").display());
    let config = Config::new(root)
        .registry(Registry::new(layouts, "snapshots"))
        .content(content)
        .restore_concurrency(concurrency);
    Snapshotter::open(config).await.unwrap()
}

/// One call of a herd: a restore where there is an output.
#[derive(Clone, Debug)]
struct Call {
    count: u64,
    output: Option<PathBuf>,
}

/// Starts a call, which says how many blobs it fetched.
fn start(store: &Snapshotter, call: &Call) -> JoinHandle<snapshotter::Result<u64>> {
    let (store, call) = (store.clone(), call.clone());
    let reference = reference(&format!("vm:v{}", call.count));
    tokio::spawn(async move {
        Ok(match call.output {
            Some(output) => {
                let request = RestoreRequest::new(reference, output);
                store.restore(&request).await?.fetched_blobs
            }
            None => {
                store
                    .pull(&PullRequest::new(reference))
                    .await?
                    .fetched_blobs
            }
        })
    })
}

/// Runs a herd to its end, and says how many blobs it fetched.
async fn run(published: &Published, store: &Snapshotter, calls: &[Call]) -> u64 {
    let running: Vec<_> = calls.iter().map(|call| start(store, call)).collect();
    let mut fetched = 0;
    for call in running {
        fetched += call.await.unwrap().unwrap();
    }
    assert_right(published, calls);
    assert_sound(store).await;
    fetched
}

fn assert_right(published: &Published, calls: &[Call]) {
    for call in calls {
        if let Some(output) = &call.output {
            assert_same(&published.sources[&call.count], output);
        }
    }
}

/// A herd over one snapshot, or two.
fn draw(prng: &mut Prng, counts: &[u64], there: &Place) -> Vec<Call> {
    let (one, other) = (*prng.pick(counts), *prng.pick(counts));
    let other = *prng.pick(&[one, other]);
    let calls = 2 + prng.below(15);
    let draw = |_| Call {
        count: *prng.pick(&[one, other]),
        output: (prng.below(3) > 0).then(|| there.fresh()),
    };
    (0..calls).map(draw).collect()
}

/// Calls held permits while they waited for blobs that others fetched, and those needed permits to go on: two restores of
/// one snapshot with 200 small files, at the default settings, hung for ever.
#[tokio::test(flavor = "multi_thread")]
async fn herds_of_restores_and_pulls_end_with_the_right_bytes() {
    let seed = number(SEED).unwrap_or_else(rand_seed);
    let mut prng = Prng::new(seed);
    // Most are few: those hung most often.
    let mut few = |_| {
        let most = 1 + prng.below(700);
        1 + prng.below(most)
    };
    let drawn: Vec<u64> = (0..6).map(&mut few).collect();
    let published = Published::new([1, 2, 4, 10, 50, 200, 700].into_iter().chain(drawn)).await;
    let counts = published.counts();
    for round in 0..number(ROUNDS).unwrap_or(10) {
        let there = Place::new();
        let concurrency = *prng.pick(&[1, 2, 5, 5, 5, 16]);
        let calls = draw(&mut prng, &counts, &there);
        let what = format!("{SEED}={seed}, round {round}, {concurrency} permits, {calls:?}");
        writeln!(std::io::stdout(), "{what}").unwrap();
        let guard = Guard::new(what);
        let store = published.node(&there, concurrency).await;
        let fetched = run(&published, &store, &calls).await;
        // Each blob once, unless it was led again between being found missing and being asked for.
        let largest = calls.iter().map(|call| call.count).max().unwrap();
        assert_eq!(fetched, largest);
        store.close().await.unwrap();
        drop(guard);
    }
}

fn rand_seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_nanos() as u64
}

/// With one permit a call that waited for another one held the only permit there was: two calls hung always.
#[tokio::test(flavor = "multi_thread")]
async fn a_herd_with_one_permit_ends() {
    let published = Published::new([60]).await;
    let _guard = Guard::new("one permit".to_owned());
    let there = Place::new();
    let store = published.node(&there, 1).await;
    let call = |restores: bool| Call {
        count: 60,
        output: restores.then(|| there.fresh()),
    };
    let calls: Vec<Call> = (0..8).map(|index| call(index % 2 == 0)).collect();
    assert_eq!(run(&published, &store, &calls).await, 60);
}

/// Says when a call has told of so many bytes that came.
struct After {
    events: AtomicU64,
    reached: Arc<AtomicBool>,
}

impl Observer for After {
    fn event(&self, event: &Event) {
        if let Event::Progressed { .. } = event
            && self.events.fetch_sub(1, Ordering::SeqCst) == 1
        {
            self.reached.store(true, Ordering::SeqCst);
        }
    }
}

/// What a leader had brought when its caller gave up was kept from those who waited until the leader's other files had
/// come; now it is given to them. Whoever gives up, and when, the others end, and have it all.
#[tokio::test(flavor = "multi_thread")]
async fn a_herd_whose_leader_gives_up_ends() {
    let published = Published::new([300]).await;
    for events in [1, 2, 30, 200, 290] {
        let _guard = Guard::new(format!("the leader gives up after {events} events"));
        let there = Place::new();
        let store = published.node(&there, 5).await;
        let reached = Arc::<AtomicBool>::default();
        let observer = After {
            events: AtomicU64::new(events),
            reached: Arc::clone(&reached),
        };
        let leader = start(
            &store.observed_by(Arc::new(observer)),
            &Call {
                count: 300,
                output: None,
            },
        );
        let calls: Vec<Call> = (0..5)
            .map(|index| Call {
                count: 300,
                output: (index % 2 == 0).then(|| there.fresh()),
            })
            .collect();
        let running: Vec<_> = calls.iter().map(|call| start(&store, call)).collect();
        while !reached.load(Ordering::SeqCst) && !leader.is_finished() {
            tokio::task::yield_now().await;
        }
        leader.abort();
        for call in running {
            call.await.unwrap().unwrap();
        }
        assert_right(&published, &calls);
        assert_sound(&store).await;
        store.close().await.unwrap();
    }
}

/// A leader that failed waited at its end for all who had waited for it. Each of them has to try for itself, and say why
/// it cannot have the file; when it can be had, all can.
#[tokio::test(flavor = "multi_thread")]
async fn a_herd_whose_leaders_fail_ends_and_the_next_one_succeeds() {
    let published = Published::new([120]).await;
    let _guard = Guard::new("leaders fail".to_owned());
    let objects = files_in(&published.objects());
    let (object, aside) = (&objects[60], published.place.path("aside"));
    fs::rename(object, &aside).unwrap();
    let there = Place::new();
    let store = published.node(&there, 5).await;
    let calls: Vec<Call> = (0..7)
        .map(|index| Call {
            count: 120,
            output: (index % 2 == 0).then(|| there.fresh()),
        })
        .collect();
    let running: Vec<_> = calls.iter().map(|call| start(&store, call)).collect();
    for call in running {
        let error = call.await.unwrap().unwrap_err();
        assert_ne!(error.kind(), ErrorKind::Cancelled, "{error}");
    }
    assert!(store.list().await.unwrap().is_empty());
    fs::rename(&aside, object).unwrap();
    assert_eq!(run(&published, &store, &calls).await, 120);
}

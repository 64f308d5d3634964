//! Calls beside each other on one store: who reads does not wait for who waits to write, and a call that looks at rows
//! without a lease never takes one row for another.

use crate::support_a;
use crate::support_b;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use snapshotter::{Config, Event, Observer, Snapshotter, VerifyRequest};
use support_a::*;
use support_b::outside::catalog;
use testkit::Tree;

/// The bug: a handle had one connection to its catalog, so while one thread waited for another process that was writing,
/// listing took as long (3.8 s instead of 0.2 ms, up to `busy_timeout`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_who_reads_waits_for_somebody_who_waits_to_write() {
    let place = Place::new();
    let base = place.write("base", &Tree::new().file("f", "bytes"));
    let config = Config::new(place.root()).busy_timeout(Duration::from_secs(600));
    let store = Snapshotter::open(config).await.unwrap();
    take(&store, "v1", &base).await;
    let held = catalog(&place.root());
    held.execute_batch("BEGIN IMMEDIATE").unwrap();
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.pin(&reference("test:v1")).await.map(drop) })
        })
        .collect();
    for _ in 0..100 {
        assert_eq!(store.list().await.unwrap().len(), 1);
        store.inspect(&reference("test:v1")).await.unwrap();
        store.usage_details().await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(writers.iter().all(|writer| !writer.is_finished()));
    held.execute_batch("ROLLBACK").unwrap();
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
}

type Work = Box<dyn FnOnce() + Send>;

/// Does something, once, in the middle of a call.
struct Meanwhile(Mutex<Option<Work>>);

impl Observer for Meanwhile {
    fn event(&self, event: &Event) {
        if matches!(event, Event::Progressed { bytes } if *bytes > 0)
            && let Some(work) = self.0.lock().unwrap().take()
        {
            std::thread::spawn(work).join().unwrap();
        }
    }
}

/// The bug: rows were known by their ids, which SQLite gives out again. A verification that had read its list before a
/// snapshot was replaced by another one reported that the new one's files were missing.
#[tokio::test]
async fn a_verification_blames_no_snapshot_that_was_taken_meanwhile() {
    let place = Place::new();
    let one = place.write("1", &Tree::new().file("a", "first"));
    let two = place.write("2", &Tree::new().file("b", "second").file("c", "another"));
    let three = place.write("3", &Tree::new().file("d", "third").file("e", "and more"));
    let store = Snapshotter::open(Config::new(place.root()).restore_concurrency(1))
        .await
        .unwrap();
    take(&store, "v1", &one).await;
    take(&store, "v2", &two).await;
    let root = place.root();
    let work: Work = Box::new(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let other = Snapshotter::open(Config::new(root)).await.unwrap();
            other.remove(&reference("test:v2")).await.unwrap();
            take(&other, "v3", &three).await;
            other.close().await.unwrap();
        });
    });
    let observed = store.observed_by(Arc::new(Meanwhile(Mutex::new(Some(work)))));
    let report = observed.verify(&VerifyRequest::all()).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(store.list().await.unwrap().len(), 2);
    assert_sound(&store).await;
}

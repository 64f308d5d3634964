//! Closing: what it waits for, and who waits for it.

use crate::support_a;

use std::sync::Arc;
use std::time::Duration;

use snapshotter::Snapshotter;
use support_a::*;
use tokio::time::timeout;

/// As long as it takes to see that somebody waits.
const WHILE: Duration = Duration::from_millis(100);

/// A store with a call that stands at a gate, and was given up by whoever made it.
async fn with_a_call_given_up(place: &Place) -> (Snapshotter, Arc<Gate>) {
    let source = place.write("vm", &vm(1));
    let store = place.open().await;
    let gate = Arc::<Gate>::default();
    let observed = store.observed_by(gate.clone());
    let call = tokio::spawn(async move { observed.snapshot(&all("v1", &source)).await });
    gate.reached().await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    (store, gate)
}

fn is_at_rest(place: &Place) -> bool {
    files_in(&place.root().join("leases")).is_empty()
}

/// A second closing returned at once, while the first was still waiting: who went on by its word found leases, staging and
/// a call that was still running.
#[tokio::test]
async fn whoever_closes_waits_for_calls_and_for_whoever_closes() {
    let place = Place::new();
    let (store, gate) = with_a_call_given_up(&place).await;
    let first = tokio::spawn({
        let store = store.clone();
        async move { store.close().await }
    });
    while store.list().await.is_ok() {
        tokio::task::yield_now().await;
    }
    let mut second = Box::pin(store.close());
    assert!(timeout(WHILE, &mut second).await.is_err());
    assert!(!first.is_finished() && !is_at_rest(&place));
    gate.open();
    second.await.unwrap();
    assert!(is_at_rest(&place));
    first.await.unwrap().unwrap();
    store.close().await.unwrap();
}

/// The last handle gone, a call that had been given up went on alone: a process that ended then left what it had staged.
#[tokio::test]
async fn dropping_the_last_handle_waits_for_its_calls() {
    let place = Place::new();
    let (store, gate) = with_a_call_given_up(&place).await;
    let dropping = std::thread::spawn(move || drop(store));
    tokio::time::sleep(WHILE).await;
    assert!(!dropping.is_finished() && !is_at_rest(&place));
    gate.open();
    dropping.join().unwrap();
    assert!(is_at_rest(&place));
}

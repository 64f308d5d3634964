//! What a publication believes of packs, and what it may not: a belief is of what was seen, has an end, and costs nobody a
//! checkpoint that is needed.

use crate::support_a;
use crate::support_b;
use crate::travel;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use snapshotter::{
    Content, ContentProvider, Format, GcRequest, PushRequest, RebuildRequest, Registry,
    RestoreRequest, SnapshotRequest, Snapshotter,
};
use support_a::*;
use support_b::outside::catalog;
use testkit::proxy::{Act, Weather};
use travel::*;
use travel::{take, vm};

const HOUR: i64 = 3600 * 1_000_000_000;

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_nanos()).unwrap()
}

/// When each pack was seen at the place, in the order of their rows.
fn seen(here: &Place) -> Vec<i64> {
    let catalog = catalog(&here.root());
    let sql = "SELECT seen_at FROM object_places ORDER BY object";
    let mut rows = catalog.prepare(sql).unwrap();
    let rows = rows.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

/// The packs were seen so many hours ago, the first the longest.
fn age(here: &Place, hours: i64) {
    let sql = "UPDATE object_places SET seen_at = ?1 + object";
    let changed = catalog(&here.root())
        .execute(sql, [now() - hours * HOUR])
        .unwrap();
    assert!(changed > 0);
}

async fn chain(
    between: &Between,
    here: &Place,
    machine: &mut Machine,
    steps: std::ops::Range<u64>,
) {
    let store = between.node(here).await;
    for step in steps {
        machine.works(&[step]);
        take(&store, machine, &format!("v{step}")).await;
    }
    store.close().await.unwrap();
}

// Every publication made all rows new, also those of packs that it had only believed in: of a pack that was deleted there
// nobody would ever have heard.
#[tokio::test]
async fn a_belief_does_not_renew_itself() {
    let (between, here) = (Between::directories(), Place::new());
    let mut machine = Machine::new(&here);
    chain(&between, &here, &mut machine, 1..4).await;
    age(&here, 11);
    let aged = seen(&here);
    let store = between.node(&here).await;
    machine.works(&[9]);
    let taken = take(&store, &machine, "v4").await;
    assert_eq!(taken.publication.unwrap().sent_blobs, 1);
    store.close().await.unwrap();
    let after = seen(&here);
    assert!(after[0] > aged[0], "the oldest was looked for");
    assert_eq!(after[1..3], aged[1..3]);
    // Nobody has looked for these, and this time one of them has its turn.
    fs::remove_file(&between.packs()[0]).unwrap();
    age(&here, 13);
    let store = between.node(&here).await;
    machine.works(&[10]);
    let taken = take(&store, &machine, "v5").await;
    assert_eq!(taken.publication.unwrap().sent_blobs, 2);
    assert_eq!(between.packs().len(), 5);
}

#[tokio::test]
async fn of_what_is_believed_the_oldest_is_looked_for() {
    let (between, here) = (Between::directories(), Place::new());
    let mut machine = Machine::new(&here);
    chain(&between, &here, &mut machine, 1..2).await;
    let oldest = between.packs().remove(0);
    chain(&between, &here, &mut machine, 2..4).await;
    age(&here, 1);
    fs::remove_file(&oldest).unwrap();
    // Where one has gone nothing is believed.
    let other = between.packs().remove(0);
    fs::remove_file(&other).unwrap();
    let store = between.node(&here).await;
    machine.works(&[9]);
    let taken = take(&store, &machine, "v4").await;
    assert_eq!(taken.publication.unwrap().sent_blobs, 3);
    assert!(oldest.exists() && other.exists());
}

// A clock that was ahead for an hour made beliefs without end.
#[tokio::test]
async fn what_a_clock_that_was_ahead_saw_is_looked_for() {
    let (between, here) = (Between::directories(), Place::new());
    let mut machine = Machine::new(&here);
    chain(&between, &here, &mut machine, 1..3).await;
    age(&here, -100);
    for pack in between.packs() {
        fs::remove_file(pack).unwrap();
    }
    let store = between.node(&here).await;
    machine.works(&[9]);
    let taken = take(&store, &machine, "v3").await;
    assert_eq!(taken.publication.unwrap().sent_blobs, 3);
}

// The packs were there and no manifest named them, so nothing said what they were called, and the next push ended with
// "the registry has a pack and does not say what it calls it".
#[tokio::test]
async fn a_publication_that_was_interrupted_is_taken_up() {
    let Some(between) = Between::registry_alone() else {
        return;
    };
    let server = between.servers.0.as_ref().unwrap();
    let address = server.url().strip_prefix("http://").unwrap().parse();
    let breaks = Arc::new(AtomicBool::new(true));
    let broken = Arc::clone(&breaks);
    let weather = Weather::before(address.unwrap(), move |asked| {
        let is_manifest = asked.method == "PUT" && asked.target.contains("/manifests/");
        if is_manifest && broken.load(Ordering::SeqCst) {
            return Act::Answer("403 Forbidden", "", Vec::new());
        }
        Act::Pass
    });
    let registry = Registry::new(weather.endpoint(), "snapshots").chunk_bytes(8 << 20);
    let (here, there) = (Place::new(), Place::new());
    let machine = Machine::new(&here);
    let content = || Content::new(ContentProvider::Registry);
    let store = here
        .open_with(|config| config.registry(registry).content(content()))
        .await;
    let request = machine.request("v1").local(true);
    store.snapshot(&request).await.unwrap();
    let push = PushRequest::new(vm("v1"));
    store.push(&push).await.unwrap_err();
    breaks.store(false, Ordering::SeqCst);
    store.push(&push).await.unwrap();
    let output = there.fresh();
    restore(&between.node(&there).await, "v1", &output).await;
    assert_is(&machine, &output);
}

// The row of a pack whose file was lost has no length, so the one in the bucket was never it: collection called the snapshot
// the only copy, a push said that it is lost, and one to a registry made a manifest in which the layer has no bytes.
#[tokio::test]
async fn a_pack_that_is_missing_here_is_the_one_that_is_there() {
    for between in [Between::directories(), Between::layout_alone()] {
        let here = Place::new();
        let mut machine = Machine::new(&here);
        chain(&between, &here, &mut machine, 1..3).await;
        break_index(&here.root().join("metadata/catalog.db"));
        fs::remove_file(pack_files(&here).remove(0)).unwrap();
        let config = snapshotter::Config::new(here.root())
            .registry(between.registry.clone())
            .content(between.content.clone());
        let report = Snapshotter::rebuild(&config, &RebuildRequest::new()).await;
        assert_eq!(report.unwrap().snapshots.len(), 2);
        let store = between.node(&here).await;
        let pushed = store.push(&PushRequest::new(vm("v2"))).await.unwrap();
        assert_eq!(pushed.publication.sent_blobs, 0);
        let everything = GcRequest::new()
            .max_bytes(0)
            .min_retention_period(Duration::ZERO)
            .dry_run(true);
        let collected = store.gc(&everything).await.unwrap();
        assert_eq!(collected.kept.unconfirmed, 0, "{collected:?}");
        let output = here.fresh();
        let given = restore(&store, "v2", &output).await;
        assert_eq!(given.fetched_blobs, 1, "{given:?}");
        assert_is(&machine, &output);
        assert_sound(&store).await;
    }
}

// The layers of the first manifest came along into the second, whose registry has none of them.
#[tokio::test]
async fn what_went_to_a_registry_goes_to_a_bucket_too() {
    let here = Place::new();
    let machine = Machine::new(&here);
    let orders = [
        [Between::layout_alone(), Between::directories()],
        [Between::directories(), Between::layout_alone()],
    ];
    for (number, order) in orders.into_iter().enumerate() {
        let name = format!("vm{number}");
        let request = SnapshotRequest::new(&name, "v1", &machine.dir)
            .format(Format::V2)
            .local(true);
        let reference = reference(&format!("{name}:v1"));
        order[0].node(&here).await.snapshot(&request).await.unwrap();
        for between in &order {
            let store = between.node(&here).await;
            store
                .push(&PushRequest::new(reference.clone()))
                .await
                .unwrap();
            store.close().await.unwrap();
            let there = Place::new();
            let output = there.fresh();
            let request = RestoreRequest::new(reference.clone(), &output);
            let empty = between.node(&there).await;
            assert_eq!(empty.restore(&request).await.unwrap().fetched_blobs, 1);
            assert_is(&machine, &output);
        }
        assert_sound(&order[0].node(&here).await).await;
    }
}

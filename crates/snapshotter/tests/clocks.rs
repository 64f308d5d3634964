//! Files and snapshots with times that are yet to come, as those of a machine whose clock was ahead and was set right.

use crate::support_a;
use crate::support_b;

use std::time::Duration;

use snapshotter::{ErrorKind, Gc, GcRequest};
use support_a::*;
use support_b::outside::catalog;
use testkit::Tree;
use testkit::tree::set_mtime;

/// In the year 2096.
const FUTURE: i64 = 4_000_000_000;

/// A file whose time was yet to come was hashed before each use, because its time was only recorded once it was past: a
/// read-only restore took as long as reading, for years.
#[tokio::test]
async fn a_file_from_the_future_is_known_by_its_time_as_any_other() {
    let place = Place::new();
    let source = place.write("vm", &Tree::new().file("memory", random(1, 100_000)));
    let memory = source.join("memory");
    set_mtime(&memory, (FUTURE, 5)).unwrap();
    let store = place.open().await;
    let taken = take_read_only(&store, "v1", &source).await;
    assert_eq!(taken.placements.hardlink.files, 1);
    let recorded = || {
        let sql = "SELECT mtime_seconds FROM objects";
        let row = catalog(&place.root()).query_row(sql, [], |row| row.get::<_, Option<i64>>(0));
        row.unwrap()
    };
    assert_eq!(recorded(), Some(FUTURE));
    // Its owner gives it another: it is hashed once, and known by that.
    set_mtime(&memory, (FUTURE + 7, 0)).unwrap();
    give(&store, "v1", &place.fresh()).await;
    assert_eq!(recorded(), Some(FUTURE + 7));
    // A change is seen as ever.
    overwrite(&memory, 5, b"other");
    let error = give_fails(&store, "v1", &place.fresh()).await;
    assert_eq!(error.kind(), ErrorKind::Damaged);
}

/// A snapshot that was used while the clock was ahead counted as used just now until the clock was there again: it was
/// never collected.
#[tokio::test]
async fn a_use_that_is_yet_to_come_counts_as_one_now() {
    let place = Place::new();
    let source = place.write("vm", &vm(1));
    let store = place
        .open_with(|config| {
            let mut gc = Gc::default();
            gc.disk_high_threshold_percent = 100.0;
            config.gc(gc)
        })
        .await;
    take(&store, "v1", &source).await;
    let set = "UPDATE snapshots SET last_accessed_at = ?1";
    let to_come = FUTURE * 1_000_000_000;
    catalog(&place.root()).execute(set, [to_come]).unwrap();
    let all = GcRequest::new().max_bytes(0).include_unpublished(true);
    // Looking changes nothing.
    let looked = store.gc(&all.clone().dry_run(true)).await.unwrap();
    assert_eq!(looked.kept.recent, 1);
    let used = || {
        let sql = "SELECT last_accessed_at FROM snapshots";
        let row = catalog(&place.root()).query_row(sql, [], |row| row.get::<_, i64>(0));
        row.unwrap()
    };
    assert_eq!(used(), to_come);
    // It is young for as long as what was used now is.
    let report = store.gc(&all).await.unwrap();
    assert_eq!((report.kept.recent, report.released.len()), (1, 0));
    assert!(used() < to_come);
    let soon = all.min_retention_period(Duration::from_nanos(1));
    assert_eq!(store.gc(&soon).await.unwrap().released.len(), 1);
}

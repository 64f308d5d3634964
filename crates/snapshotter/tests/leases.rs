//! What a call relies on ends with the call, however it ends.

use crate::support_b;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use snapshotter::{Config, Event, Observer};
use support_b::outside::{assert_rows_and_files_agree, catalog};
use support_b::{Handle, checkpoint, keepsake, request};

/// Panics as soon as a call has done something.
struct Panics;

impl Observer for Panics {
    fn event(&self, event: &Event) {
        assert!(
            !matches!(event, Event::Progressed { .. } | Event::FileFinished { .. }),
            "an observer's mistake"
        );
    }
}

/// A root, with a registry and a place of contents in directories where the library has them.
fn config(dir: &Path, root: &str) -> Config {
    let config = Config::new(dir.join(root));
    #[cfg(feature = "registry")]
    let config = {
        let objects = dir.join("objects");
        fs::create_dir_all(&objects).unwrap();
        let mut content = snapshotter::Content::new(snapshotter::ContentProvider::Fs);
        content.root = objects;
        let layouts = format!("oci-layout:{}", dir.join("layouts").display());
        let registry = snapshotter::Registry::new(layouts, "ns");
        config.registry(registry).content(content)
    };
    config
}

/// Nothing is leased, pending or staged, though the handle is open.
#[track_caller]
fn assert_nothing_leased(root: &Path) {
    let catalog = catalog(root);
    let count = |sql: &str| {
        catalog
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    assert_eq!(count("SELECT count(*) FROM leases"), 0);
    let unseen = "SELECT count(*) FROM snapshots WHERE state = 0 OR removed = 1";
    assert_eq!(count(unseen), 0);
    let staged = testkit::fsstat::entries(&root.join("staging")).unwrap();
    assert!(staged.iter().all(|(_, found)| found.is_dir()), "{staged:?}");
    assert_rows_and_files_agree(root);
}

#[track_caller]
fn assert_panics<T>(call: impl FnOnce() -> T) {
    assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
}

// An observer that panicked left its call's lease behind: until the handle was closed, garbage collection took the snapshot
// for one in use, `remove` freed nothing, and what a capture had stored so far stayed.
#[test]
fn a_call_whose_observer_panics_leaves_nothing_leased() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    checkpoint().write_to(&path("one")).unwrap();
    keepsake().write_to(&path("other")).unwrap();
    let handle = Handle::with(config(dir.path(), "root")).unwrap();
    handle
        .snapshot(&request("one", "v1", &path("one")))
        .unwrap();
    let handle = handle.observed_by(Arc::new(Panics));
    assert_panics(|| handle.restore("one:v1", &path("output")));
    assert_nothing_leased(&path("root"));
    assert_panics(|| handle.snapshot(&request("other", "v1", &path("other"))));
    assert_nothing_leased(&path("root"));
    #[cfg(feature = "registry")]
    {
        let node = Handle::with(config(dir.path(), "node")).unwrap();
        let node = node.observed_by(Arc::new(Panics));
        assert_panics(|| node.pull("one:v1"));
        assert_nothing_leased(&path("node"));
        assert_panics(|| node.restore("one:v1", &path("again")));
        assert_nothing_leased(&path("node"));
        // What is sent for the first time is told of.
        fs::remove_dir_all(path("objects")).unwrap();
        fs::remove_dir_all(path("layouts")).unwrap();
        fs::create_dir(path("objects")).unwrap();
        assert_panics(|| handle.push("one:v1"));
        assert_nothing_leased(&path("root"));
    }
    handle.remove("one:v1").unwrap();
    assert_eq!(handle.usage().unwrap().blobs, 0);
    handle.close().unwrap();
}

//! Sizes that are more together than any number holds.

use crate::support_a;

use std::fs::{self, File};
use std::path::Path;

use snapshotter::{
    Config, Content, ContentProvider, GcRequest, PullRequest, PushRequest, RebuildRequest,
    Registry, SnapshotRequest, Snapshotter,
};
use support_a::{assert_sound, reference, to};
use testkit::mount::{TmpfsMount, or_skip};

/// The largest size that a file can have, and that a report says.
const MOST: u64 = i64::MAX.unsigned_abs();

fn config(root: &Path, between: &Path) -> Config {
    let mut content = Content::new(ContentProvider::Fs);
    content.root = between.join("objects");
    fs::create_dir_all(&content.root).unwrap();
    let layouts = format!("oci-layout:{}", between.join("layouts").display());
    Config::new(root)
        .registry(Registry::new(layouts, "ns"))
        .content(content)
}

/// Three sparse files of nearly the largest size, or a document that says there are, overflowed every sum of sizes: a panic
/// where overflow is checked, nonsense where it is not, and `usage` failed in the database. A sum now says the most there is.
#[tokio::test]
async fn files_that_are_more_together_than_a_number_holds_travel_and_are_counted() {
    let Some(mount) = or_skip(TmpfsMount::new(256 << 20)) else {
        return;
    };
    let at = |name: &str| mount.path().join(name);
    fs::create_dir(at("vm")).unwrap();
    for less in 0..3 {
        let file = File::create(at("vm").join(format!("file-{less}"))).unwrap();
        file.set_len(MOST - less).unwrap();
    }
    let request = SnapshotRequest::new("test", "v1", at("vm")).local(true);
    let here = Snapshotter::open(config(&at("here"), &at("between")))
        .await
        .unwrap();
    let plan = here.plan_snapshot(&request).await.unwrap();
    assert_eq!((plan.logical_bytes, plan.data_bytes), (MOST, 0));
    let taken = here.snapshot(&request).await.unwrap();
    assert_eq!((taken.logical_bytes, taken.data_bytes), (MOST, 0));
    let second = SnapshotRequest::new("test", "v2", at("vm")).local(true);
    here.snapshot(&second).await.unwrap();
    assert_eq!(here.list().await.unwrap()[0].logical_bytes, MOST);
    let usage = here.usage_details().await.unwrap();
    assert_eq!(usage.usage.logical_bytes, MOST);
    here.gc(&GcRequest::new().max_bytes(0)).await.unwrap();
    let name = reference("test:v1");
    here.push(&PushRequest::new(name.clone()).verify(true))
        .await
        .unwrap();

    let there = config(&at("there"), &at("between"));
    let other = Snapshotter::open(there.clone()).await.unwrap();
    let remote = other.inspect_remote(&name).await.unwrap();
    assert_eq!((remote.logical_bytes, remote.files.len()), (MOST, 3));
    let pulled = other.pull(&PullRequest::new(name)).await.unwrap();
    assert_eq!((pulled.fetched_blobs, pulled.logical_bytes), (3, MOST));
    let request = to("v1", &at("output"));
    let plan = other.plan_restore(&request).await.unwrap();
    assert_eq!(plan.logical_bytes, MOST);
    let given = other.restore(&request).await.unwrap();
    assert_eq!((given.files, given.logical_bytes), (3, MOST));
    let restored = fs::metadata(at("output").join("file-2")).unwrap();
    assert_eq!(restored.len(), MOST - 2);
    assert_sound(&other).await;
    other.close().await.unwrap();

    fs::remove_dir_all(at("there/metadata")).unwrap();
    let rebuilt = Snapshotter::rebuild(&there, &RebuildRequest::new()).await;
    assert_eq!(rebuilt.unwrap().checked_blobs, 3);
    let other = Snapshotter::open(there).await.unwrap();
    assert_eq!(other.list().await.unwrap()[0].logical_bytes, MOST);
}

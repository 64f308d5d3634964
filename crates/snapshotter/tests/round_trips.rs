//! How often a registry is asked: as often for many files as for one, unless it keeps their contents too.

use crate::support_a;
use crate::support_c;

use snapshotter::{Config, RestoreRequest, Snapshotter};
use support_a::*;
use support_c::{Layouts, Sky, directory};
use testkit::{Content as Bytes, Tree};

/// The requests of publishing and of a restore on another node.
async fn asked(files: u64) -> (Vec<String>, Vec<String>) {
    let (between, here, there) = (Place::new(), Place::new(), Place::new());
    let sky = Sky::over(Layouts(between.path("layouts")));
    let objects = directory(&between.path("objects"));
    let node = |place: &Place| {
        let config = Config::new(place.root()).registry(sky.registry());
        Snapshotter::open(config.content(objects.clone()))
    };
    let tree = (0..files).fold(Tree::new(), |tree, seed| {
        let bytes = Bytes::Random { seed, len: 100 };
        tree.file(format!("directory/file-{seed}"), bytes)
    });
    let source = here.write("source", &tree);
    take(&node(&here).await.unwrap(), "v1", &source).await;
    let so_far = sky.asked("/").len();
    let request = RestoreRequest::new(reference("test:v1"), there.fresh());
    let given = node(&there).await.unwrap().restore(&request).await.unwrap();
    assert_eq!(given.fetched_blobs, files);

    let all = sky.asked("/");
    let methods = |asked: &[testkit::weather::Asked]| {
        asked.iter().map(|asked| asked.method.clone()).collect()
    };
    (methods(&all[..so_far]), methods(&all[so_far..]))
}

#[tokio::test]
async fn many_files_ask_the_registry_as_often_as_one() {
    let one = asked(1).await;
    assert_eq!(asked(300).await, one);
    assert!(one.0.len() <= 12 && one.1.len() <= 3, "{one:?}");
}

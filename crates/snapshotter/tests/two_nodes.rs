//! The example's three checkpoints, taken on one node and restored on another, by each way there is between two nodes.

use crate::support_a;

#[path = "../examples/checkpoint.rs"]
#[expect(dead_code, reason = "only the example's checkpoints are used here")]
mod checkpoint;

use std::fs;

use checkpoint::Checkpoint;
use snapshotter::{Content, ContentProvider, Registry, RestoreRequest, Snapshotter};
use support_a::*;
use testkit::registry::{Kind, RegistryServer, or_skip};
use testkit::s3::S3;

/// Takes all three at once on one node, and restores them at once on another.
async fn moves(registry: Registry, content: Content) {
    let (here, there) = (Place::new(), Place::new());
    let node = |place: &Place| {
        let (registry, content, root) = (registry.clone(), content.clone(), place.root());
        async move {
            let config = snapshotter::Config::new(root);
            let config = config.registry(registry).content(content);
            Snapshotter::open(config).await.unwrap()
        }
    };
    let sources = here.path("sources");
    let made: Vec<Checkpoint> = (1..=3)
        .map(|number| Checkpoint::make(&sources, number).unwrap())
        .collect();

    let first = node(&here).await;
    let requests: Vec<_> = made.iter().map(Checkpoint::request).collect();
    tokio::try_join!(
        first.snapshot(&requests[0]),
        first.snapshot(&requests[1]),
        first.snapshot(&requests[2]),
    )
    .unwrap();
    first.close().await.unwrap();

    let second = node(&there).await;
    let output = |checkpoint: &Checkpoint| there.path("restored").join(&checkpoint.name);
    let requests: Vec<_> = made
        .iter()
        .map(|made| {
            let name = format!("{}:{}", made.name, made.version);
            RestoreRequest::new(reference(&name), output(made))
        })
        .collect();
    let (one, two, three) = tokio::try_join!(
        second.restore(&requests[0]),
        second.restore(&requests[1]),
        second.restore(&requests[2]),
    )
    .unwrap();
    for checkpoint in &made {
        checkpoint.compare(&output(checkpoint)).unwrap();
    }
    // Of 18 files, two share the disk, three the other memory and three a text: each came once.
    let fetched: u64 = [&one, &two, &three]
        .map(|given| given.fetched_blobs)
        .iter()
        .sum();
    assert_eq!(fetched, 13);
    for given in [one, two, three] {
        assert_eq!(given.placements.hardlink.files, 5);
        assert_eq!(given.placements.copy.files, 1);
        assert_eq!(given.warnings, []);
    }
    assert_sound(&second).await;
}

fn open_registry() -> Option<RegistryServer> {
    or_skip(RegistryServer::start(Kind::default()))
}

fn registry(server: &RegistryServer) -> Registry {
    Registry::new(server.url(), "checkpoints")
}

fn directory(place: &Place) -> Content {
    let mut content = Content::new(ContentProvider::Fs);
    content.root = place.path("objects");
    fs::create_dir_all(&content.root).unwrap();
    content
}

#[tokio::test]
async fn checkpoints_move_through_a_registry_and_a_bucket() {
    let Some(server) = open_registry() else {
        return;
    };
    let s3 = S3::start("checkpoints");
    let content = in_bucket(&s3, s3.endpoint());
    moves(registry(&server), content).await;
}

#[tokio::test]
async fn checkpoints_move_through_a_registry_and_a_directory() {
    let between = Place::new();
    if let Some(server) = open_registry() {
        moves(registry(&server), directory(&between)).await;
    }
}

#[tokio::test]
async fn checkpoints_move_through_a_registry_alone() {
    if let Some(server) = open_registry() {
        moves(registry(&server), Content::new(ContentProvider::Registry)).await;
    }
}

#[tokio::test]
async fn checkpoints_move_through_an_image_layout_and_a_directory() {
    let between = Place::new();
    let layout = format!("oci-layout:{}", between.path("layout").display());
    moves(Registry::new(layout, "checkpoints"), directory(&between)).await;
}

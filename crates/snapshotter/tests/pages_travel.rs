//! Snapshots of format v2 between nodes: a checkpoint sends and fetches its own pack, whatever is between them, and what comes
//! wrong is never used.

use crate::support_a;
use crate::travel;

use std::fs;
use std::os::unix::fs::MetadataExt;

use snapshotter::{
    ContentProvider, ErrorKind, Format, GcRequest, ParentChoice, PullRequest, PushRequest,
    Registry, RestoreRequest, SnapshotRequest, SnapshotState, Snapshotter,
};
use support_a::*;
use testkit::proxy::{Act, Weather};
use travel::*;
use travel::{take, vm};

#[tokio::test]
async fn a_chain_travels_and_each_step_costs_its_own_pack() {
    for between in Between::all() {
        let (here, there) = (Place::new(), Place::new());
        let mut machine = Machine::new(&here);
        let (first, second) = (between.node(&here).await, between.node(&there).await);
        for step in 1..=4 {
            let version = format!("v{step}");
            machine.works(&[step, 100 + step]);
            let taken = take(&first, &machine, &version).await;
            let published = taken.publication.unwrap();
            assert_eq!(published.sent_blobs, 1);
            let pulled = second.pull(&PullRequest::new(vm(&version))).await.unwrap();
            assert_eq!((pulled.fetched_blobs, pulled.reused_blobs), (1, step - 1));
            assert_eq!(pulled.fetched_bytes, published.sent_bytes);
            assert_eq!(pulled.manifest_digest, taken.manifest_digest);
            if step > 1 {
                assert!(published.sent_bytes < 4096, "{published:?}");
            }
            let output = there.fresh();
            let given = restore(&second, &version, &output).await;
            assert_eq!(given.fetched_blobs, 0);
            assert_is(&machine, &output);
        }
        // On an empty node, at once, with what the newest needs.
        let third = Place::new();
        let empty = between.node(&third).await;
        let output = third.fresh();
        let given = restore(&empty, "v4", &output).await;
        assert_eq!(given.fetched_blobs, 4);
        assert_is(&machine, &output);
        // What was restored there goes on there.
        let elsewhere = Machine {
            dir: output,
            seed: 77,
        };
        let mut elsewhere = elsewhere;
        elsewhere.works(&[9]);
        let taken = take(&empty, &elsewhere, "v5").await;
        let paged = taken.paged.unwrap();
        assert_eq!(paged.parent.unwrap().reference, vm("v4"));
        assert_eq!(paged.stored_pages, 1);
        assert_eq!(taken.publication.unwrap().sent_blobs, 1);
        let back = here.fresh();
        let given = restore(&first, "v5", &back).await;
        assert_eq!(given.fetched_blobs, 1);
        assert_is(&elsewhere, &back);
        for store in [&first, &second, &empty] {
            assert_sound(store).await;
        }
        let pushed = first
            .push(&PushRequest::new(vm("v5")).verify(true))
            .await
            .unwrap();
        assert_eq!(
            (pushed.publication.sent_blobs, pushed.verified_blobs),
            (0, 5)
        );
    }
}

#[tokio::test]
async fn calls_at_once_fetch_each_pack_once() {
    let between = Between::directories();
    let (here, there) = (Place::new(), Place::new());
    let mut machine = Machine::new(&here);
    let first = between.node(&here).await;
    take(&first, &machine, "v1").await;
    machine.works(&[3]);
    take(&first, &machine, "v2").await;
    let second = between.node(&there).await;
    let mut calls = tokio::task::JoinSet::new();
    let outputs: Vec<_> = (0..6).map(|_| there.fresh()).collect();
    for (number, output) in outputs.iter().enumerate() {
        let version = if number.is_multiple_of(2) { "v1" } else { "v2" };
        let request = RestoreRequest::new(vm(version), output);
        let second = second.clone();
        calls.spawn(async move { second.restore(&request).await.unwrap().fetched_blobs });
    }
    let fetched: u64 = calls.join_all().await.into_iter().sum();
    assert_eq!(fetched, 2);
    for output in outputs.iter().skip(1).step_by(2) {
        assert_is(&machine, output);
    }
    assert_sound(&second).await;
}

#[tokio::test]
async fn what_is_damaged_here_is_fetched_again() {
    for between in Between::all() {
        let (here, there) = (Place::new(), Place::new());
        let mut machine = Machine::new(&here);
        let first = between.node(&here).await;
        take(&first, &machine, "v1").await;
        machine.works(&[3]);
        take(&first, &machine, "v2").await;
        let second = between.node(&there).await;
        second.pull(&PullRequest::new(vm("v2"))).await.unwrap();
        // A frame, a table, a file.
        for (number, damage) in ["frame", "table", "file"].into_iter().enumerate() {
            for pack in pack_files(&there) {
                let length = fs::metadata(&pack).unwrap().len();
                match damage {
                    "frame" => overwrite(&pack, 9, b"wrong"),
                    "table" => overwrite(&pack, length - 90, b"wrong"),
                    _ => fs::remove_file(&pack).unwrap(),
                }
            }
            let output = there.fresh();
            if number == 1 {
                let report = verify(&second).await;
                assert_eq!(report.damaged.len(), 2, "{damage}");
                let repaired = second
                    .verify(&snapshotter::VerifyRequest::all().repair(true))
                    .await
                    .unwrap();
                assert_eq!(repaired.repaired.len(), 2, "{damage} {repaired:?}");
            }
            let given = restore(&second, "v2", &output).await;
            let fetched = if number == 1 { 0 } else { 2 };
            assert_eq!(given.fetched_blobs, fetched, "{damage}");
            assert_is(&machine, &output);
            assert_sound(&second).await;
        }
    }
}

#[tokio::test]
async fn what_comes_back_altered_is_damaged_and_leaves_nothing() {
    let between = Between::directories();
    let (here, there) = (Place::new(), Place::new());
    let machine = Machine::new(&here);
    let first = between.node(&here).await;
    take(&first, &machine, "v1").await;
    let pack = between.packs().remove(0);
    let whole = fs::read(&pack).unwrap();
    let second = between.node(&there).await;
    let ends = [
        0,
        8,
        whole.len() / 2,
        whole.len() - 81,
        whole.len() - 80,
        whole.len() - 1,
    ];
    for at in ends {
        let mut altered = whole.clone();
        altered[at] ^= 1;
        let short = &whole[..at];
        let mut long = whole.clone();
        long.insert(at, 0);
        for bytes in [&altered, short, &long] {
            fs::write(&pack, bytes).unwrap();
            let output = there.fresh();
            let failed = second
                .restore(&RestoreRequest::new(vm("v1"), &output))
                .await
                .unwrap_err();
            assert_eq!(failed.kind(), ErrorKind::Damaged, "{at} {failed:?}");
            let text = format!("{failed:?}");
            assert!(text.contains("pack:"), "{text}");
            assert!(!output.exists() || files_below(&output).is_empty());
        }
    }
    there.assert_empty();
    fs::write(&pack, &whole).unwrap();
    let output = there.fresh();
    restore(&second, "v1", &output).await;
    assert_is(&machine, &output);
}

// Somebody's pack in the place of another: each is right for itself.
#[tokio::test]
async fn a_pack_in_the_place_of_another_is_not_it() {
    let between = Between::directories();
    let (here, there) = (Place::new(), Place::new());
    let mut machine = Machine::new(&here);
    let first = between.node(&here).await;
    take(&first, &machine, "v1").await;
    machine.works(&[3]);
    take(&first, &machine, "v2").await;
    let packs = between.packs();
    let (one, other) = (fs::read(&packs[0]).unwrap(), fs::read(&packs[1]).unwrap());
    fs::write(&packs[0], other).unwrap();
    fs::write(&packs[1], one).unwrap();
    let second = between.node(&there).await;
    let failed = second.pull(&PullRequest::new(vm("v2"))).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Damaged);
    there.assert_empty();
}

#[tokio::test]
async fn stored_bytes_that_changed_are_not_published() {
    let between = Between::directories();
    let here = Place::new();
    let machine = Machine::new(&here);
    let store = between.node(&here).await;
    store
        .snapshot(&machine.request("v1").local(true))
        .await
        .unwrap();
    overwrite(&pack_files(&here)[0], 20, b"wrong");
    let failed = store.push(&PushRequest::new(vm("v1"))).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Damaged);
    assert!(between.packs().is_empty());
}

#[tokio::test]
async fn a_version_is_taken_unless_it_has_the_same_files() {
    let between = Between::directories();
    let (here, there) = (Place::new(), Place::new());
    let mut machine = Machine::new(&here);
    let first = between.node(&here).await;
    let taken = take(&first, &machine, "v1").await;
    // The same files in another store, whose pack is another: other compression.
    let second = between.node(&there).await;
    let again = machine
        .request("v1")
        .local(true)
        .compression(snapshotter::Compression::None);
    second.snapshot(&again).await.unwrap();
    let pushed = second.push(&PushRequest::new(vm("v1"))).await.unwrap();
    assert_eq!(pushed.publication.manifest_digest, taken.manifest_digest);
    assert_eq!(pushed.publication.sent_blobs, 0);
    assert_eq!(between.packs().len(), 1);
    // Other files.
    machine.works(&[1]);
    let other = Place::new();
    let third = between.node(&other).await;
    let request = machine.request("v1").local(true);
    third.snapshot(&request).await.unwrap();
    let refused = third.push(&PushRequest::new(vm("v1"))).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    assert_eq!(between.packs().len(), 1);
    let forced = third
        .push(&PushRequest::new(vm("v1")).force(true))
        .await
        .unwrap();
    assert_eq!(forced.publication.sent_blobs, 1);
    let empty = Place::new();
    let output = empty.fresh();
    restore(&between.node(&empty).await, "v1", &output).await;
    assert_is(&machine, &output);
}

// What was seen a while ago is believed to be there; one is looked for, and tells of a bucket that was emptied.
#[tokio::test]
async fn what_a_bucket_lost_is_sent_again() {
    let between = Between::directories();
    let here = Place::new();
    let mut machine = Machine::new(&here);
    let store = between.node(&here).await;
    for step in 1..4 {
        machine.works(&[step]);
        take(&store, &machine, &format!("v{step}")).await;
    }
    for pack in between.packs() {
        fs::remove_file(pack).unwrap();
    }
    machine.works(&[7]);
    let taken = take(&store, &machine, "v4").await;
    assert_eq!(taken.publication.unwrap().sent_blobs, 4);
    // One that is not looked for: only who asks for all finds out.
    let lost = &between.packs()[1];
    fs::remove_file(lost).unwrap();
    let pushed = store
        .push(&PushRequest::new(vm("v4")).verify(true))
        .await
        .unwrap();
    assert_eq!(
        (pushed.publication.sent_blobs, pushed.verified_blobs),
        (1, 4)
    );
    assert!(lost.exists());
}

/// What the last publication of a chain of so many asked for, and how many packs it sent.
async fn requests(steps: u64) -> Option<(Vec<String>, u64)> {
    let between = Between::registry_and_bucket()?;
    let (server, s3) = &between.servers;
    let (server, s3) = (server.as_ref().unwrap(), s3.as_ref().unwrap());
    let address = server.url().strip_prefix("http://").unwrap().parse();
    let to_registry = Weather::before(address.unwrap(), |_| Act::Pass);
    let to_bucket = Weather::before(s3.address(), |_| Act::Pass);
    let registry = Registry::new(to_registry.endpoint(), "snapshots");
    let mut content = between.content.clone();
    content.endpoint = Some(to_bucket.endpoint());
    let here = Place::new();
    let mut machine = Machine::new(&here);
    let store = here
        .open_with(|config| config.registry(registry).content(content))
        .await;
    let (mut sent, mut before) = (0, (0, 0));
    for step in 1..=steps {
        machine.works(&[step]);
        before = (to_registry.asked().len(), to_bucket.asked().len());
        let taken = take(&store, &machine, &format!("v{step}")).await;
        sent = taken.publication.unwrap().sent_blobs;
    }
    let (registry, bucket) = (to_registry.asked(), to_bucket.asked());
    let asked = registry[before.0..].iter().chain(&bucket[before.1..]);
    let asked = asked.map(|one| format!("{} {}", one.method, one.target));
    Some((asked.collect(), sent))
}

#[tokio::test]
async fn a_publication_asks_as_little_at_generation_forty_as_at_the_second() {
    let Some((early, _)) = requests(2).await else {
        return;
    };
    let Some((late, sent)) = requests(40).await else {
        return;
    };
    assert_eq!(sent, 1);
    assert!(late.len() <= 15, "{late:#?}");
    assert!(late.len() <= early.len(), "{early:#?} {late:#?}");
}

#[tokio::test]
async fn what_is_elsewhere_may_go_here_and_comes_back() {
    for between in Between::all() {
        let here = Place::new();
        let mut machine = Machine::new(&here);
        let store = between.node(&here).await;
        take(&store, &machine, "v1").await;
        machine.works(&[2]);
        take(&store, &machine, "v2").await;
        let everything = GcRequest::new()
            .max_bytes(0)
            .min_retention_period(std::time::Duration::ZERO);
        let collected = store.gc(&everything).await.unwrap();
        assert_eq!(collected.released.len(), 2, "{collected:?}");
        assert!(pack_files(&here).is_empty());
        let output = here.fresh();
        let given = restore(&store, "v2", &output).await;
        assert_eq!(given.fetched_blobs, 2);
        assert_is(&machine, &output);
    }
}

#[tokio::test]
async fn what_has_gone_elsewhere_stays_here() {
    let between = Between::directories();
    let here = Place::new();
    let machine = Machine::new(&here);
    let store = between.node(&here).await;
    take(&store, &machine, "v1").await;
    fs::write(between.content.root.join("packs/other"), "").unwrap();
    fs::remove_file(&between.packs()[0]).unwrap();
    let everything = GcRequest::new()
        .max_bytes(0)
        .min_retention_period(std::time::Duration::ZERO);
    let collected = store.gc(&everything).await.unwrap();
    assert_eq!(collected.released, []);
    assert_eq!(collected.kept.unconfirmed, 1, "{collected:?}");
    restore(&store, "v1", &here.fresh()).await;
}

#[tokio::test]
async fn what_the_registry_says_is_shown() {
    let between = Between::directories();
    let here = Place::new();
    let machine = Machine::new(&here);
    let store = between.node(&here).await;
    take(&store, &machine, "v1").await;
    let there = store.inspect_remote(&vm("v1")).await.unwrap();
    let here = store.inspect(&vm("v1")).await.unwrap();
    assert_eq!(there.files, here.files);
    assert_eq!(there.annotations, here.annotations);
    assert!(between.place.path("layouts").exists());
}

#[tokio::test]
async fn a_lost_catalog_is_rebuilt_from_the_registry() {
    let between = Between::directories();
    let here = Place::new();
    let machine = Machine::new(&here);
    let store = between.node(&here).await;
    take(&store, &machine, "v1").await;
    store.close().await.unwrap();
    fs::remove_dir_all(here.root().join("metadata")).unwrap();
    let config = snapshotter::Config::new(here.root())
        .registry(between.registry.clone())
        .content(between.content.clone());
    let report = Snapshotter::rebuild(&config, &snapshotter::RebuildRequest::new())
        .await
        .unwrap();
    assert_eq!(report.snapshots.len(), 1, "{report:?}");
    let store = between.node(&here).await;
    let output = here.fresh();
    let given = restore(&store, "v1", &output).await;
    assert_eq!(given.fetched_blobs, 0);
    assert_is(&machine, &output);
    assert_sound(&store).await;
    let inodes: Vec<u64> = pack_files(&here)
        .iter()
        .map(|pack| fs::metadata(pack).unwrap().ino())
        .collect();
    assert_eq!(inodes.len(), 1);
}

#[tokio::test]
async fn a_chain_is_copied_from_one_place_to_another_and_what_is_wrong_is_not() {
    for from in Between::all() {
        let here = Place::new();
        let mut machine = Machine::new(&here);
        let store = from.node(&here).await;
        take(&store, &machine, "v1").await;
        machine.works(&[3]);
        take(&store, &machine, "v2").await;
        for to in Between::all() {
            let config = |between: &Between| {
                snapshotter::Config::new(here.root())
                    .registry(between.registry.clone())
                    .content(between.content.clone())
            };
            let copy = async |version: &str| {
                let request = snapshotter::CopyRequest::new(vm(version));
                Snapshotter::copy(&config(&from), &config(&to), &request).await
            };
            let first = copy("v1").await.unwrap();
            assert_eq!((first.publication.sent_blobs, first.reused_blobs), (1, 0));
            let second = copy("v2").await.unwrap();
            // A registry is asked for what it has; an image layout knows only what its manifests name.
            assert!(second.publication.sent_blobs <= 2, "{second:?}");
            let again = copy("v2").await.unwrap();
            assert_eq!(again.publication.sent_blobs, 0);
            let there = Place::new();
            let output = there.fresh();
            restore(&to.node(&there).await, "v2", &output).await;
            assert_is(&machine, &output);
        }
    }
    let (from, to, here) = (Between::directories(), Between::directories(), Place::new());
    let machine = Machine::new(&here);
    take(&from.node(&here).await, &machine, "v1").await;
    let pack = from.packs().remove(0);
    let whole = fs::read(&pack).unwrap();
    let config = |between: &Between| {
        snapshotter::Config::new(here.root())
            .registry(between.registry.clone())
            .content(between.content.clone())
    };
    for at in [0, 9, whole.len() / 2, whole.len() - 90, whole.len() - 1] {
        let mut altered = whole.clone();
        altered[at] ^= 1;
        for bytes in [&altered[..], &whole[..at]] {
            fs::write(&pack, bytes).unwrap();
            let request = snapshotter::CopyRequest::new(vm("v1"));
            let failed = Snapshotter::copy(&config(&from), &config(&to), &request).await;
            assert_eq!(failed.unwrap_err().kind(), ErrorKind::Damaged, "{at}");
            assert!(to.packs().is_empty());
        }
    }
}

// It looks at no media type: a list of files that were JSON would be restored as one without files.
#[tokio::test]
async fn the_go_library_finds_no_json_in_a_list_of_files_of_format_v2() {
    let between = Between::directories();
    let here = Place::new();
    let machine = Machine::new(&here);
    let store = between.node(&here).await;
    take(&store, &machine, "v1").await;
    let manifest = store.inspect(&vm("v1")).await.unwrap().manifest;
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let config = manifest["config"]["digest"].as_str().unwrap();
    let blobs = between.place.path("layouts/snapshots/vm/blobs/sha256");
    let document = fs::read(blobs.join(config.strip_prefix("sha256:").unwrap())).unwrap();
    assert!(serde_json::from_slice::<serde_json::Value>(&document).is_err());
    assert_eq!(document[..4], [0x28, 0xb5, 0x2f, 0xfd], "a zstd frame");
}

// For nodes with the Go library, which reads format v1 alone. The bytes that it sends are looked at in `interchange.rs`.
#[tokio::test]
async fn pages_are_published_in_format_v1_and_nothing_of_that_stays() {
    for between in Between::all() {
        let (here, there) = (Place::new(), Place::new());
        let mut machine = Machine::new(&here);
        let store = between.node(&here).await;
        for (step, version) in ["v1", "v2"].into_iter().enumerate() {
            machine.works(&[step as u64]);
            store
                .snapshot(&machine.request(version).local(true))
                .await
                .unwrap();
        }
        let before = files_below(&here.content());
        let push = PushRequest::new(vm("v2"))
            .format(Some(Format::V1))
            .verify(true);
        let pushed = store.push(&push).await.unwrap();
        assert_eq!(
            (pushed.publication.sent_blobs, pushed.verified_blobs),
            (3, 3)
        );
        // It is not what is here: that is nowhere else.
        let kept = store.list().await.unwrap();
        let kept: Vec<_> = kept.iter().map(|one| (one.format, one.state)).collect();
        assert_eq!(kept, [(Format::V2, SnapshotState::Unpublished); 2]);
        assert_eq!(files_below(&here.content()), before);
        assert_sound(&store).await;

        // The same again is the same, and the other form is another snapshot.
        let again = store.push(&push).await.unwrap().publication;
        let published = pushed.publication.manifest_digest;
        let in_registry = between.content.provider == ContentProvider::Registry;
        // What layers are called that it does not have, a store does not know.
        let sent = if in_registry { 3 } else { 0 };
        assert_eq!((again.sent_blobs, again.manifest_digest), (sent, published));
        let paged = PushRequest::new(vm("v2"));
        let refused = store.push(&paged).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
        let output = there.fresh();
        let other = between.node(&there).await;
        restore(&other, "v2", &output).await;
        assert_is(&machine, &output);
        assert_eq!(other.find(&vm("v2")).await.unwrap().format, Format::V1);

        // And the way back; then the pages are published no more.
        store.push(&paged.force(true)).await.unwrap();
        let refused = store.push(&push).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
        store.push(&push.clone().force(true)).await.unwrap();
        let found = store.find(&vm("v2")).await.unwrap();
        assert_eq!(found.state, SnapshotState::Unpublished);
        // What is kept in format v1 is not published in pages.
        let odd = PushRequest::new(vm("v2")).format(Some(Format::V2));
        let refused = other.push(&odd).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
    }
}

/// A version that was replaced, `snapshot --force`, sent all of its packs, also those that are its parent's.
#[tokio::test]
async fn a_version_that_is_replaced_sends_what_is_new_alone() {
    for between in Between::all() {
        let here = Place::new();
        let mut machine = Machine::new(&here);
        let store = between.node(&here).await;
        take(&store, &machine, "v1").await;
        for seed in [1, 2] {
            machine.works(&[seed]);
            let parent = ParentChoice::Snapshot(vm("v1"));
            let request = machine.request("v2").force(true).parent(parent);
            let taken = store.snapshot(&request).await.unwrap();
            let published = taken.publication.unwrap();
            assert_eq!(published.sent_blobs, 1);
            assert!(published.sent_bytes < 20 * PAGE, "{published:?}");
        }
        let pushed = store
            .push(&PushRequest::new(vm("v2")).force(true))
            .await
            .unwrap();
        let packs = store.inspect(&vm("v2")).await.unwrap().packs.len();
        assert_eq!(pushed.publication.sent_blobs, packs as u64);
        assert!(packs > 1);
    }
}

// A fork is published under another name: its packs are in the registry already, in the repository that it came from.
#[tokio::test]
async fn a_fork_into_another_repository_sends_its_own_pack_alone() {
    let Some(between) = Between::registry_alone() else {
        return;
    };
    let (here, there) = (Place::new(), Place::new());
    let mut machine = Machine::new(&here);
    let store = between.node(&here).await;
    take(&store, &machine, "v1").await;
    machine.works(&[4]);
    let fork = SnapshotRequest::new("fork", "v1", &machine.dir).format(Format::V2);
    let taken = store.snapshot(&fork).await.unwrap();
    assert_eq!(taken.paged.unwrap().packs, 2);
    let published = taken.publication.unwrap();
    assert_eq!(published.sent_blobs, 1);
    assert!(published.sent_bytes < 8192, "{published:?}");
    let output = there.fresh();
    let empty = between.node(&there).await;
    let request = RestoreRequest::new(reference("fork:v1"), &output);
    assert_eq!(empty.restore(&request).await.unwrap().fetched_blobs, 2);
    assert_is(&machine, &output);
}

// One bucket, two tenants: what one has is not the other's, nor looked for there.
#[tokio::test]
async fn tenants_with_prefixes_share_nothing_in_a_bucket() {
    let Some(between) = Between::registry_and_bucket() else {
        return;
    };
    let here = Place::new();
    let machine = Machine::new(&here);
    for tenant in ["tenants/a", "tenants/b"] {
        let (node, other) = (Place::new(), Place::new());
        let config = |config: snapshotter::Config| {
            let mut registry = between.registry.clone();
            registry.namespace = tenant.to_owned();
            let mut content = between.content.clone();
            content.prefix = Some(tenant.to_owned());
            config.registry(registry).content(content)
        };
        let store = node.open_with(config).await;
        let taken = store.snapshot(&machine.request("v1")).await.unwrap();
        assert_eq!(taken.publication.unwrap().sent_blobs, 1, "{tenant}");
        let output = other.fresh();
        restore(&other.open_with(config).await, "v1", &output).await;
        assert_is(&machine, &output);
    }
    let mut keys = between.servers.1.as_ref().unwrap().keys();
    assert!(
        keys.iter().all(|key| key.starts_with("tenants/")),
        "{keys:?}"
    );
    keys.retain(|key| !key.contains("/snapshotter/"));
    assert_eq!(keys.len(), 2);
    for tenant in ["tenants/a/packs/", "tenants/b/packs/"] {
        assert!(keys.iter().any(|key| key.starts_with(tenant)), "{keys:?}");
    }
}

/// A tag in the registry is the same manifest under another name: contents elsewhere stay where they are, layers are mounted, and
/// only a directory, which mounts nothing, gets them again where the new name has a layout of its own.
#[tokio::test]
async fn a_tag_in_the_registry_moves_no_bytes_where_it_mounts() {
    for between in Between::all() {
        let (here, there) = (Place::new(), Place::new());
        let mut machine = Machine::new(&here);
        let store = between.node(&here).await;
        take(&store, &machine, "v1").await;
        let of_v1 = SnapshotRequest::new("old", "v1", &machine.dir);
        store.snapshot(&of_v1).await.unwrap();
        let mounts = !between.registry.endpoint.starts_with("oci-layout:")
            || between.content.provider == snapshotter::ContentProvider::Fs;
        for (name, of) in [("golden/vm", vm("v1")), ("golden/old", reference("old:v1"))] {
            let new = reference(&format!("{name}:stable"));
            let tagged = store.tag_remote(&of, &new, false).await.unwrap();
            let described = store.inspect_remote(&of).await.unwrap();
            assert_eq!(
                tagged.publication.manifest_digest,
                described.manifest_digest
            );
            assert_eq!(tagged.publication.sent_blobs == 0, mounts, "{tagged:?}");
            let again = store.tag_remote(&of, &new, false).await.unwrap();
            assert_eq!(again.publication.sent_blobs, 0);
            let output = there.fresh();
            let request = RestoreRequest::new(new, &output);
            between.node(&there).await.restore(&request).await.unwrap();
            assert_is(&machine, &output);
        }
        // Of the same name nothing is even mounted.
        let tagged = store
            .tag_remote(&vm("v1"), &vm("stable"), false)
            .await
            .unwrap();
        assert_eq!(tagged.publication.sent_blobs, 0);
        machine.works(&[3]);
        let second = take(&store, &machine, "v2").await;
        let taken = store
            .tag_remote(&vm("v2"), &vm("stable"), false)
            .await
            .unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
        store
            .tag_remote(&vm("v2"), &vm("stable"), true)
            .await
            .unwrap();
        let described = store.inspect_remote(&vm("stable")).await.unwrap();
        assert_eq!(
            described.manifest_digest,
            second.publication.unwrap().manifest_digest
        );
        let nothing = store
            .tag_remote(&vm("v9"), &vm("v10"), false)
            .await
            .unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::NotFound);
        // What was tagged here goes out without its bytes.
        store.tag(&vm("v2"), &vm("here"), false).await.unwrap();
        let pushed = store.push(&PushRequest::new(vm("here"))).await.unwrap();
        assert_eq!(pushed.publication.sent_blobs, 0);
    }
}

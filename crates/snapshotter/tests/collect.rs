//! `collect_remote` against real places: a directory, and two S3 servers by different people.

use crate::support_a;
use crate::travel;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use snapshotter::{
    CollectReport, CollectRequest, Config, Content, ContentProvider, CopyRequest, Error, ErrorKind,
    Format, KeepReason, PruneRequest, PruneRule, PushRequest, Registry, Retention, Snapshotter,
    WarningKind,
};
use support_a::*;
use testkit::buckets;
use testkit::compare::assert_same;
use testkit::moto::{self, Moto};
use testkit::proxy::{Act, Asked, Weather};
use testkit::s3::S3;
use travel::{Between, Machine, assert_is, restore};

fn at_once() -> CollectRequest {
    CollectRequest::new()
        .no_other_publishers(true)
        .grace(Duration::ZERO)
}

async fn collect(between: &Between, request: &CollectRequest) -> Result<CollectReport, Error> {
    let config = Config::new(between.place.path("no-root"))
        .registry(between.registry.clone())
        .content(between.content.clone());
    Snapshotter::collect_remote(&config, request).await
}

/// Collects until nothing is left that may go: a server whose times are whole seconds tells what was sent in the second in
/// which a list was written from what was there before only by keeping both. Says how many objects went.
async fn collect_all(between: &Between) -> u64 {
    let mut removed = 0;
    for _ in 0..40 {
        let report = collect(between, &at_once()).await.unwrap();
        assert_eq!(report.warnings, []);
        removed += report.removed;
        if report.candidates == 0 {
            return removed;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("something never goes");
}

fn with_layouts(content: impl FnOnce(&Place) -> Content) -> Between {
    let place = Place::new();
    let layouts = format!("oci-layout:{}", place.path("layouts").display());
    Between {
        registry: Registry::new(layouts, "snapshots"),
        content: content(&place),
        place,
        servers: (None, None),
    }
}

fn bucket(s3: &S3) -> Between {
    with_layouts(|_| {
        let mut content = in_bucket(s3, s3.endpoint());
        content.prefix = Some("tenants/a".to_owned());
        content
    })
}

fn in_moto(moto: &Moto) -> Content {
    let mut content = Content::new(ContentProvider::S3);
    content.bucket = Some(moto.bucket().to_owned());
    content.endpoint = Some(moto.endpoint());
    content.access_key_id = Some("id".to_owned());
    content.access_key_secret = Some("secret".to_owned());
    content
}

/// The objects of a directory, without records.
fn objects(between: &Between) -> Vec<PathBuf> {
    let root = &between.content.root;
    let of = |prefix: &str| match root.join(prefix).exists() {
        true => files_in(&root.join(prefix)),
        false => Vec::new(),
    };
    let mut all = of("xxh3");
    all.extend(of("packs"));
    all.sort();
    all
}

fn records(between: &Between, of: &str) -> Vec<PathBuf> {
    let dir = between.content.root.join("snapshotter").join(of);
    match dir.exists() {
        true => files_in(&dir),
        false => Vec::new(),
    }
}

/// A file's bytes as the store keeps them of a snapshot in format v1.
async fn take(store: &Snapshotter, here: &Place, version: &str, seed: u64) -> PathBuf {
    let source = here.write(&format!("source-{version}"), &vm(seed));
    support_a::take(store, version, &source).await;
    source
}

/// Two snapshots of each format share something; one of each goes, and what the others need stays.
async fn what_nothing_names_goes(between: &Between) {
    let (here, other) = (Place::new(), Place::new());
    let store = between.node(&here).await;
    take(&store, &here, "v1", 1).await;
    let kept = take(&store, &here, "v2", 2).await;
    let mut guest = Machine::new(&here);
    for version in ["v1", "v2"] {
        guest.works(&[3, 4]);
        travel::take(&store, &guest, version).await;
    }
    assert_eq!(collect_all(between).await, 0);
    for removed in ["test:v1", "vm:v1"] {
        store.remove_remote(&reference(removed)).await.unwrap();
    }
    let first = collect(between, &at_once()).await.unwrap();
    assert_eq!((first.removed, first.publishers), (0, 1));
    assert_eq!((first.manifests, first.objects), (2, 5), "{first:?}");
    // The packs of a lineage are all needed by its last one.
    assert_eq!(first.candidates, 1, "{first:?}");
    assert_eq!(collect_all(between).await, 1);
    let node = between.node(&other).await;
    let output = other.fresh();
    give(&node, "v2", &output).await;
    assert_same(&kept, &output);
    let output = other.fresh();
    restore(&node, "v2", &output).await;
    assert_is(&guest, &output);
    // What is here can be published once more: what went is sent again.
    let again = store.push(&PushRequest::new(reference("test:v1"))).await;
    assert_eq!(again.unwrap().publication.sent_blobs, 1);
}

#[tokio::test]
async fn what_nothing_names_goes_from_a_directory() {
    what_nothing_names_goes(&Between::directories()).await;
}

#[tokio::test]
async fn what_nothing_names_goes_from_below_a_prefix_in_a_bucket() {
    let s3 = S3::start("checkpoints");
    s3.put("xxh3/abc", b"somebody else's");
    what_nothing_names_goes(&bucket(&s3)).await;
    assert!(s3.object("xxh3/abc").exists());
}

#[tokio::test]
async fn what_nothing_names_goes_from_another_server_s_bucket() {
    let Some(moto) = moto::or_skip(Moto::start("checkpoints")) else {
        return;
    };
    what_nothing_names_goes(&with_layouts(|_| in_moto(&moto))).await;
}

#[tokio::test]
async fn what_nothing_names_goes_where_a_server_has_the_manifests() {
    let kind = testkit::registry::Kind {
        delete: true,
        ..Default::default()
    };
    let server = testkit::registry::RegistryServer::start(kind);
    let Some(server) = testkit::registry::or_skip(server) else {
        return;
    };
    let mut between = Between::directories();
    between.registry = Registry::new(server.url(), "team/sandboxes");
    between.servers = (Some(server), None);
    what_nothing_names_goes(&between).await;
}

#[tokio::test]
async fn a_list_has_to_be_a_grace_old_and_what_is_not_contents_stays() {
    let between = Between::directories();
    let here = Place::new();
    let store = between.node(&here).await;
    take(&store, &here, "v1", 1).await;
    for name in ["abc", "README", "doctor-probe-0"] {
        let object = between.content.root.join("xxh3").join(name);
        fs::write(&object, "x").unwrap();
        // What was written in one tick of the kernel's clock with the list is as young as the list.
        let before = SystemTime::now() - Duration::from_secs(10);
        let object = fs::File::options().append(true).open(object).unwrap();
        object.set_modified(before).unwrap();
    }
    let request = at_once().grace(Duration::from_secs(3600));
    let first = collect(&between, &request).await.unwrap();
    assert_eq!(
        (first.candidates, first.candidate_bytes, first.objects),
        (2, 2, 4)
    );
    let ripe = first.ripe_at.unwrap();
    assert!(ripe > SystemTime::now() + Duration::from_secs(3000));
    let second = collect(&between, &request).await.unwrap();
    assert_eq!((second.removed, second.candidates), (0, 2));
    assert_eq!(second.ripe_at, Some(ripe));
    let dry = at_once().dry_run(true).no_other_publishers(false);
    let said = collect(&between, &dry).await.unwrap();
    assert_eq!(
        (said.removed, said.dry_run, objects(&between).len()),
        (2, true, 5)
    );
    assert_eq!(records(&between, "collection").len(), 1);
    let third = collect(&between, &at_once()).await.unwrap();
    assert_eq!(
        (third.removed, third.removed_bytes, third.candidates),
        (2, 2, 0)
    );
    assert!(between.content.root.join("xxh3/README").exists());
    assert_eq!(records(&between, "collection").len(), 1);
}

fn kind(result: Result<CollectReport, Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[tokio::test]
async fn nothing_goes_unless_all_who_publish_are_known_and_read() {
    let between = Between::directories();
    let here = Place::new();
    let store = between.node(&here).await;
    // Nothing at all.
    assert_eq!(collect(&between, &at_once()).await.unwrap().objects, 0);
    take(&store, &here, "v1", 1).await;
    // Somebody in another registry, of whom the first knows nothing.
    let mut second = Between::directories();
    second.content = between.content.clone();
    second.registry.namespace = "other".to_owned();
    let elsewhere = Place::new();
    let source = take(&second.node(&elsewhere).await, &elsewhere, "v9", 9).await;
    fs::write(between.content.root.join("xxh3/abc"), "x").unwrap();
    assert_eq!(collect(&between, &at_once()).await.unwrap().publishers, 2);

    let others = CollectRequest::new().grace(Duration::ZERO);
    let error = collect(&between, &others).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.hint().unwrap().contains("--no-other-publishers"));

    // His registry is not mounted, then one list of files is damaged, then one manifest is of a release to come.
    let (there, away) = (second.place.path("layouts"), second.place.path("away"));
    fs::rename(&there, &away).unwrap();
    let error = collect(&between, &at_once()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(
        error.to_string().contains(&there.display().to_string()),
        "{error}"
    );
    fs::rename(&away, &there).unwrap();
    let blobs = there.join("other/test/blobs/sha256");
    for blob in files_in(&blobs) {
        let bytes = fs::read(&blob).unwrap();
        fs::write(&blob, "{}").unwrap();
        let read = at_once().dry_run(true);
        if let Err(error) = collect(&between, &read).await {
            assert!(error.to_string().contains("other/test"), "{error}");
        } else {
            // OCI's empty blob is what it was.
            assert_eq!(bytes, b"{}");
        }
        fs::write(&blob, &bytes).unwrap();
    }
    // A record that nobody can read.
    let record = &records(&between, "publishers")[0];
    let bytes = fs::read(record).unwrap();
    fs::write(record, "[]").unwrap();
    assert_eq!(
        kind(collect(&between, &at_once()).await),
        ErrorKind::Damaged
    );
    fs::write(record, bytes).unwrap();
    assert_eq!(objects(&between).len(), 4);
    assert_eq!(collect_all(&between).await, 1);
    let output = elsewhere.fresh();
    let third = Place::new();
    give(&second.node(&third).await, "v9", &output).await;
    assert_same(&source, &output);

    // Records that somebody removed: first that of a publisher, then all.
    fs::remove_file(&records(&between, "publishers")[0]).unwrap();
    let nobody = kind(collect(&between, &at_once()).await);
    assert_eq!(nobody, ErrorKind::Damaged);
    fs::remove_dir_all(between.content.root.join("snapshotter")).unwrap();
    let nobody = kind(collect(&between, &at_once()).await);
    assert_eq!(nobody, ErrorKind::NotFound);
    assert_eq!(objects(&between).len(), 3);
    let own = Between::layout_alone();
    assert_eq!(
        kind(collect(&own, &at_once()).await),
        ErrorKind::Unsupported
    );
}

/// Of what was published before records were left nothing told, so the first two collections took it all, as long as somebody
/// said that there are no other publishers.
#[tokio::test]
async fn what_an_older_release_published_stays_where_the_registry_lists_it() {
    let between = Between::directories();
    let here = Place::new();
    let store = between.node(&here).await;
    take(&store, &here, "v1", 1).await;
    let source = here.write("other", &vm(2));
    let mut other = all("v1", &source);
    other.name = "old/vm".to_owned();
    store.snapshot(&other).await.unwrap();
    let [record] = &records(&between, "names/snapshots/old/vm")[..] else {
        panic!()
    };
    fs::remove_file(record).unwrap();
    assert_eq!(collect_all(&between).await, 0);
    store.remove_remote(&reference("old/vm:v1")).await.unwrap();
    assert!(collect_all(&between).await > 0);
}

/// A collection for a tenant looked where all tenants' contents are: nothing of anybody's ever went.
#[tokio::test]
async fn a_collection_for_a_tenant_is_of_what_is_theirs() {
    let between = Between::directories();
    let config = |here: &Place, tenant: &str| {
        let content = between.content.root.join(tenant);
        fs::create_dir_all(content).unwrap();
        let config = Config::new(here.root()).registry(between.registry.clone());
        config
            .content(between.content.clone())
            .tenant(Some(tenant.to_owned()))
    };
    let here = Place::new();
    for (seed, tenant) in ["ada", "bob"].into_iter().enumerate() {
        let store = Snapshotter::open(config(&here, tenant)).await.unwrap();
        for version in ["v1", "v2"] {
            let mut request = all(
                version,
                &here.write(
                    &format!("{tenant}-{version}"),
                    &vm(2 * seed as u64 + u64::from(version == "v2")),
                ),
            );
            request.name = tenant.to_owned();
            request.annotations = [("of".to_owned(), version.to_owned())].into();
            store.snapshot(&request).await.unwrap();
        }
    }
    let of_bob = || files_below(&between.content.root.join("bob")).len();
    let before = of_bob();
    let ada = config(&here, "ada");
    let store = Snapshotter::open(ada.clone()).await.unwrap();
    let collected = Snapshotter::collect_remote(&ada, &at_once()).await.unwrap();
    assert_eq!((collected.publishers, collected.candidates), (1, 0));
    store.remove_remote(&reference("ada:v1")).await.unwrap();
    let mut removed = 0;
    for _ in 0..3 {
        removed += Snapshotter::collect_remote(&ada, &at_once())
            .await
            .unwrap()
            .removed;
    }
    assert!(removed > 0);
    assert_eq!(of_bob(), before);
    let outside = config(&here, "ada").tenant(Some("../bob".to_owned()));
    assert_eq!(
        kind(Snapshotter::collect_remote(&outside, &at_once()).await),
        ErrorKind::InvalidInput
    );
}

#[tokio::test]
async fn what_a_version_left_is_needed_for_a_grace_more() {
    let between = Between::directories();
    let here = Place::new();
    let store = between.node(&here).await;
    take(&store, &here, "v1", 1).await;
    let other = Place::new();
    let mover = between.node(&other).await;
    let source = other.write("source", &vm(2));
    let request = all("v1", &source).local(true);
    mover.snapshot(&request).await.unwrap();
    let push = PushRequest::new(reference("test:v1"));
    assert_eq!(
        mover.push(&push).await.unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    assert_eq!(records(&between, "moved").len(), 0);
    mover.push(&push.force(true)).await.unwrap();
    assert_eq!(records(&between, "moved").len(), 1);
    let day = at_once().grace(Duration::from_secs(86_400));
    let report = collect(&between, &day).await.unwrap();
    assert_eq!((report.manifests, report.candidates), (2, 0));
    // After it the old manifest's own file goes, and the record.
    assert_eq!(collect_all(&between).await, 1);
    assert_eq!(records(&between, "moved").len(), 0);
    assert_eq!(objects(&between).len(), 2);
}

/// A bucket before which somebody stands who sees each request that is about this.
fn watched(
    s3: &S3,
    part: &'static str,
    act: impl Fn(&Asked) -> Act + Send + Sync + 'static,
) -> (Weather, Content) {
    let weather = Weather::before(s3.address(), move |asked| {
        match asked.target.contains(part) {
            true => act(asked),
            false => Act::Pass,
        }
    });
    let content = in_bucket(s3, weather.endpoint());
    (weather, content)
}

fn is_list(asked: &Asked) -> bool {
    asked.method == "GET"
        && asked.target.contains("list-type=2")
        && asked.target.contains("collection")
}

/// A list of all that is in a bucket, written as a collector writes it.
async fn list_all(s3: &S3) {
    let nobody_s = with_layouts(|_| in_bucket(s3, s3.endpoint()));
    let here = Place::new();
    let store = nobody_s.node(&here).await;
    take(&store, &here, "v0", 77).await;
    for _ in 0..40 {
        let report = collect(&nobody_s, &at_once()).await.unwrap();
        if report.candidates >= 2 {
            break;
        }
    }
    assert_eq!(collection(s3, ".list").len(), 1);
}

fn collection(s3: &S3, end: &str) -> Vec<String> {
    let keys = s3.keys().into_iter();
    keys.filter(|key| key.starts_with("snapshotter/collection") && key.ends_with(end))
        .collect()
}

fn contents(dir: &Path) -> Vec<PathBuf> {
    files_in(&dir.join("xxh3"))
}

/// A publisher who was stopped for so long that two collections came in between: he had found all there.
#[tokio::test]
async fn what_went_while_a_publisher_was_stopped_is_sent_again_before_it_is_published() {
    for format in [Format::V1, Format::V2] {
        let s3 = S3::start("checkpoints");
        let (dir, readings) = (s3.dir(), AtomicUsize::new(0));
        let (weather, content) = watched(&s3, "collection", move |asked| {
            if is_list(asked) && readings.fetch_add(1, Ordering::SeqCst) == 3 {
                // All that a collection leaves: another list than before, and none of the objects.
                for prefix in ["xxh3", "packs"] {
                    let _ = fs::remove_dir_all(dir.join(prefix));
                }
                let list = dir.join("snapshotter/collection/0000000000000000.list");
                fs::create_dir_all(list.parent().unwrap()).unwrap();
                fs::write(list, "snapshotter candidates 1\n").unwrap();
            }
            Act::Pass
        });
        let between = with_layouts(|_| content);
        let here = Place::new();
        let store = between.node(&here).await;
        let source = here.write("source", &vm(1));
        let request = all("v1", &source).format(format);
        let taken = store.snapshot(&request).await.unwrap();
        let push = PushRequest::new(reference("test:v1"));
        let pushed = store.push(&push).await.unwrap();
        // The second reading was the second publication's first, and the third its last.
        let sent = taken.publication.unwrap().sent_blobs;
        assert_eq!(pushed.publication.sent_blobs, sent, "{format:?}");
        let other = Place::new();
        let output = other.fresh();
        give(&between.node(&other).await, "v1", &output).await;
        assert_same(&source, &output);
        drop(weather);
    }
}

/// What is on a list is sent whatever is there, so that a collector passes it; while one is at work that is waited for.
#[tokio::test]
async fn who_needs_what_is_being_removed_waits_for_that_and_nobody_else_does() {
    let s3 = S3::start("checkpoints");
    let dir = s3.dir();
    let lease = dir.join("snapshotter/collection/00000000000000ff.lease");
    let (path, waits) = (lease.clone(), Arc::new(AtomicBool::new(false)));
    let (readings, has_waited) = (AtomicUsize::new(0), Arc::clone(&waits));
    let (_weather, content) = watched(&s3, "collection", move |asked| {
        if is_list(asked) && path.exists() && readings.fetch_add(1, Ordering::SeqCst) == 3 {
            // He read it at first, at the end, and then twice in vain.
            has_waited.store(true, Ordering::SeqCst);
            fs::remove_file(&path).unwrap();
        }
        Act::Pass
    });
    let between = with_layouts(|_| content);
    let here = Place::new();
    let store = between.node(&here).await;
    let needed = take(&store, &here, "v1", 1).await;
    take(&store, &here, "v3", 3).await;
    store.remove_remote(&reference("test:v1")).await.unwrap();
    list_all(&s3).await;
    let before: Vec<SystemTime> = contents(&dir).iter().map(|path| written(path)).collect();
    fs::write(&lease, "").unwrap();
    // Nobody listed this.
    take(&store, &here, "v2", 55).await;
    assert!(!waits.load(Ordering::SeqCst));
    fs::write(&lease, "").unwrap();
    let again = store.push(&PushRequest::new(reference("test:v1"))).await;
    // The other file somebody needs.
    assert_eq!(again.unwrap().publication.sent_blobs, 1);
    assert!(waits.load(Ordering::SeqCst));
    let after: Vec<SystemTime> = contents(&dir).iter().map(|path| written(path)).collect();
    assert_ne!(before, after);
    let other = Place::new();
    let output = other.fresh();
    give(&between.node(&other).await, "v1", &output).await;
    assert_same(&needed, &output);
}

fn written(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

#[tokio::test]
async fn two_collectors_at_once_are_one() {
    let between = Between::directories();
    let here = Place::new();
    take(&between.node(&here).await, &here, "v1", 1).await;
    let lease = between
        .content
        .root
        .join("snapshotter/collection/00000000000000ff.lease");
    fs::create_dir_all(lease.parent().unwrap()).unwrap();
    fs::write(&lease, "").unwrap();
    assert_eq!(kind(collect(&between, &at_once()).await), ErrorKind::Busy);
    assert_eq!(
        records(&between, "collection"),
        std::slice::from_ref(&lease)
    );
    let long_ago = SystemTime::now() - Duration::from_secs(301);
    let file = fs::File::options().write(true).open(&lease).unwrap();
    file.set_modified(long_ago).unwrap();
    assert_eq!(collect(&between, &at_once()).await.unwrap().objects, 2);
}

/// A bucket that does not let an object go: others do.
#[tokio::test]
async fn what_a_lock_keeps_is_named_and_the_rest_goes() {
    let s3 = S3::start("checkpoints");
    s3.put("xxh3/abc", b"locked");
    s3.put("xxh3/abd", b"not locked");
    let (_weather, content) = watched(&s3, "xxh3/abc", |asked| match &*asked.method {
        "DELETE" => Act::Answer("403 Forbidden", "", buckets::error("AccessDenied")),
        _ => Act::Pass,
    });
    let between = with_layouts(|_| content);
    let here = Place::new();
    take(&between.node(&here).await, &here, "v1", 1).await;
    let mut refused = 0;
    for _ in 0..40 {
        let report = collect(&between, &at_once()).await.unwrap();
        for warning in &report.warnings {
            assert_eq!(warning.kind, WarningKind::Locked);
            assert!(warning.message.starts_with("xxh3/abc stays"), "{warning:?}");
        }
        refused = report.refused;
        if refused == 1 && report.candidates == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(refused, 1);
    assert!(s3.object("xxh3/abc").exists() && !s3.object("xxh3/abd").exists());
}

/// Keys for contents alone publish as before, and that is said.
#[tokio::test]
async fn who_cannot_leave_a_record_publishes_and_is_warned() {
    let s3 = S3::start("checkpoints");
    let (_weather, content) = watched(&s3, "snapshotter/", |asked| match &*asked.method {
        "HEAD" => Act::Answer("403 Forbidden", "", Vec::new()),
        _ => Act::Answer("403 Forbidden", "", buckets::error("AccessDenied")),
    });
    let between = with_layouts(|_| content);
    let here = Place::new();
    let store = between.node(&here).await;
    let source = here.write("source", &vm(1));
    let taken = store.snapshot(&all("v1", &source)).await.unwrap();
    let kinds: Vec<_> = taken.warnings.iter().map(|warning| warning.kind).collect();
    assert_eq!(kinds, [WarningKind::Unregistered]);
    assert_eq!(s3.keys().len(), 2);
}

#[tokio::test]
async fn a_copy_is_a_publication() {
    let (near, far) = (Between::directories(), Between::directories());
    let here = Place::new();
    take(&near.node(&here).await, &here, "v1", 1).await;
    let config = |between: &Between| {
        Config::new(between.place.path("no-root"))
            .registry(between.registry.clone())
            .content(between.content.clone())
    };
    let request = CopyRequest::new(reference("test:v1"));
    Snapshotter::copy(&config(&near), &config(&far), &request)
        .await
        .unwrap();
    fs::write(far.content.root.join("xxh3/abc"), "x").unwrap();
    assert_eq!(collect_all(&far).await, 1);
    assert_eq!(objects(&far).len(), 2);
    Snapshotter::copy(&config(&near), &config(&far), &request)
        .await
        .unwrap();
    assert_eq!(records(&far, "publishers").len(), 1);
}

/// A tag relies on what another name has there: when that goes, a collection leaves what the tag needs.
#[tokio::test]
async fn what_a_tag_needs_stays_when_the_old_name_goes() {
    let (between, here, there) = (Between::directories(), Place::new(), Place::new());
    let mut machine = Machine::new(&here);
    let store = between.node(&here).await;
    travel::take(&store, &machine, "v1").await;
    let (old, new) = (travel::vm("v1"), reference("golden/vm:stable"));
    store.tag_remote(&old, &new, false).await.unwrap();
    let output = there.fresh();
    machine.works(&[3]);
    travel::take(&store, &machine, "v2").await;
    store.remove_remote(&old).await.unwrap();
    store.remove_remote(&travel::vm("v2")).await.unwrap();
    // The pack of v2's own page.
    assert_eq!(collect_all(&between).await, 1);
    let request = snapshotter::RestoreRequest::new(new, &output);
    between.node(&there).await.restore(&request).await.unwrap();
    assert!(output.join("memory").exists());
    assert_sound(&between.node(&there).await).await;
}

/// Whoever's name a tag took in the registry went on to say that it is there, and the next prune took the last copy.
#[tokio::test]
async fn what_loses_its_name_there_to_a_tag_is_an_only_copy_here() {
    let (between, here) = (Between::directories(), Place::new());
    let mut machine = Machine::new(&here);
    let store = between.node(&here).await;
    for version in ["v1", "v2"] {
        machine.works(&[3]);
        travel::take(&store, &machine, version).await;
    }
    let (v1, v2) = (travel::vm("v1"), travel::vm("v2"));
    store.tag_remote(&v2, &v1, true).await.unwrap();
    let mut keep = Retention::default();
    keep.last = 1;
    let prune = PruneRequest::new([PruneRule::new(vec!["*".to_owned()], keep)]);
    let pruned = store.prune(&prune).await.unwrap();
    assert_eq!(pruned.removed.len(), 0);
    let reasons = pruned
        .kept
        .iter()
        .find(|one| one.reference.version() == v1.version());
    assert_eq!(reasons.unwrap().reasons, [KeepReason::OnlyCopy]);
}

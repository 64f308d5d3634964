//! The artifacts themselves: what the Go library made restores here, and what we publish is looked at with other eyes
//! than ours, byte for byte as format v1 says.

use crate::support_a;
use crate::support_c;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use snapshotter::{
    Config, Content, ContentProvider, CopyRequest, ErrorKind, Format, PullRequest, PushRequest,
    Registry, RestoreRequest, Sha256 as Digest, SnapshotRequest, SnapshotState, Snapshotter,
};
use support_a::*;
use support_c::*;
use testkit::compare::assert_same;
use testkit::registry::{Kind, RegistryServer, or_skip};
use testkit::s3::S3;
use testkit::{Content as Bytes, Tree, fsstat, golden, http};

const EMPTY: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
const DIGEST_KEY: &str = "io.d7y.snapshotter.digest";

// ---- what the Go library made ----

/// Pushes a blob as any client would.
fn push_blob(address: &str, repository: &str, bytes: &[u8]) {
    let begin = format!("/v2/{repository}/blobs/uploads/");
    let begun = http::send(address, "POST", &begin, &[], b"").unwrap();
    assert_eq!(begun.status, 202);
    let session = begun.header("location").unwrap();
    let (_, target) = session.split_once(address).unwrap();
    let digest = sha256(bytes).replace(':', "%3A");
    let target = format!("{target}&digest={digest}");
    let pushed = http::send(address, "PUT", &target, &[], bytes).unwrap();
    assert_eq!(pushed.status, 201);
}

fn push_golden(address: &str, snapshot: &golden::Snapshot) {
    push_blob(address, &snapshot.repository, &snapshot.config());
    let target = format!("/v2/{}/manifests/{}", snapshot.repository, snapshot.tag);
    let headers = [("Content-Type", &*snapshot.content_type)];
    let pushed = http::send(address, "PUT", &target, &headers, &snapshot.manifest()).unwrap();
    assert_eq!(pushed.status, 201);
}

/// Restores a golden snapshot and compares every file with what the Go library was given.
async fn restores(place: &Place, registry: &Registry, content: &Content, one: &golden::Snapshot) {
    let store = place
        .open_with(|config| config.registry(registry.clone()).content(content.clone()))
        .await;
    let name = one.repository.strip_prefix("snapshotter/").unwrap();
    let output = place.fresh();
    let wanted = reference(&format!("{name}:{}", one.tag));
    let restore = RestoreRequest::new(wanted, &output);
    let report = store.restore(&restore).await.unwrap();
    assert_eq!(report.manifest_digest.to_string(), one.manifest_sha256);
    assert_eq!(report.fetched_blobs, one.objects.len() as u64);
    let document: Value = serde_json::from_slice(&one.config()).unwrap();
    let files = document["files"].as_array().unwrap();
    assert_eq!(report.files, files.len() as u64);
    assert_eq!(
        fsstat::paths(&output)
            .unwrap()
            .iter()
            .filter(|path| output.join(path).is_file())
            .count(),
        files.len()
    );
    for file in files {
        compare(file, &output);
    }
    assert_sound(&store).await;
}

fn compare(entry: &Value, output: &Path) {
    let index = golden::index();
    let name = entry["relativePath"].as_str().unwrap();
    let input = index
        .inputs
        .iter()
        .find(|input| entry["digest"] == *input.digest)
        .unwrap();
    let path = output.join(name);
    let hex = sha256(&fs::read(&path).unwrap());
    assert_eq!(hex, format!("sha256:{}", input.input_sha256), "{name}");
    let stat = fs::metadata(&path).unwrap();
    assert_eq!(stat.len(), input.logical_size, "{name}");
    assert_eq!(
        u64::from(stat.mode() & 0o7777),
        entry["metadata"]["mode"],
        "{name}"
    );
    if input.name == name {
        let nanos = stat.mtime() * 1_000_000_000 + stat.mtime_nsec();
        assert_eq!(nanos, input.mtime_ns, "{name}");
    }
    if fsstat::block_size(output).unwrap() == 4096 {
        assert_eq!(spf1(&path).0, input.digest, "{name} has other holes");
    }
}

#[tokio::test]
async fn golden_snapshots_restore_from_a_registry_and_a_bucket() {
    let Some(server) = or_skip(RegistryServer::start(Kind::default())) else {
        return;
    };
    let (s3, place, index) = (S3::start("test-bucket"), Place::new(), golden::index());
    for input in &index.inputs {
        s3.put(&format!("xxh3/{}", input.store_filename), &input.spf1());
    }
    let registry = Registry::new(server.url(), "snapshotter");
    for snapshot in &index.snapshots {
        push_golden(server.address(), snapshot);
        // Each on a node of its own, and on one that has the others.
        let content = bucket(&s3, s3.endpoint());
        restores(&Place::new(), &registry, &content, snapshot).await;
    }
    let store = place
        .open_with(|config| {
            config
                .registry(registry)
                .content(bucket(&s3, s3.endpoint()))
        })
        .await;
    for snapshot in &index.snapshots {
        let name = snapshot.repository.strip_prefix("snapshotter/").unwrap();
        let wanted = reference(&format!("{name}@{}", snapshot.manifest_sha256));
        store.pull(&PullRequest::new(wanted)).await.unwrap();
    }
    assert_eq!(store.list().await.unwrap().len(), index.snapshots.len());
    assert_sound(&store).await;
}

#[tokio::test]
async fn golden_snapshots_restore_from_directories() {
    let (between, index) = (Place::new(), golden::index());
    let layouts = Layouts(between.path("layouts"));
    let content = directory(&between.path("objects"));
    fs::create_dir(content.root.join("xxh3")).unwrap();
    for input in &index.inputs {
        let object = content.root.join("xxh3").join(&input.store_filename);
        fs::write(object, input.spf1()).unwrap();
    }
    let mut registry = layouts.registry();
    registry.namespace = "snapshotter".to_owned();
    for snapshot in &index.snapshots {
        layouts.put_blob(&snapshot.repository, &snapshot.config());
        let manifest = snapshot.manifest();
        layouts.put_manifest(&snapshot.repository, &snapshot.tag, &manifest);
        restores(&Place::new(), &registry, &content, snapshot).await;
    }
}

/// Both colliding files in one directory.
fn twins(place: &Place) -> PathBuf {
    let [a, b] = golden::COLLISION.map(|path| fs::read(path).unwrap());
    place.write("twins", &Tree::new().file("a.bin", a).file("b.bin", b))
}

#[tokio::test]
async fn two_files_with_one_address_are_kept_apart_here_and_not_published_together() {
    let (between, here) = (Place::new(), Place::new());
    let layouts = Layouts(between.path("layouts"));
    let content = directory(&between.path("objects"));
    let source = twins(&here);
    let store = here
        .open_with(|config| config.registry(layouts.registry()).content(content.clone()))
        .await;
    let request = SnapshotRequest::new("twins", "v1", &source);
    let error = store.snapshot(&request).await.unwrap_err();
    let both = ["a.bin", "b.bin"].map(|name| spf1(&source.join(name)));
    assert_eq!(both[0].0, both[1].0);
    let said = Said::of(&error);
    said.is(
        ErrorKind::AlreadyExists,
        &[&both[0].0, &both[0].1, &both[1].1],
    );
    said.hints("change a byte");
    assert_eq!(objects_below(&content.root), Vec::<PathBuf>::new());
    assert_eq!(layouts.manifest("snapshots/twins", "v1"), None);
    let list = store.list().await.unwrap();
    assert_eq!(list[0].state, SnapshotState::Unpublished);
    let output = here.fresh();
    let restore = RestoreRequest::new(reference("twins:v1"), &output);
    store.restore(&restore).await.unwrap();
    assert_same(&source, &output);
}

#[tokio::test]
async fn of_two_files_with_one_address_the_second_is_not_published_over_the_first() {
    let (between, here, there) = (Place::new(), Place::new(), Place::new());
    let layouts = Layouts(between.path("layouts"));
    let content = directory(&between.path("objects"));
    let source = twins(&here);
    let open = async |place: &Place| {
        place
            .open_with(|config| config.registry(layouts.registry()).content(content.clone()))
            .await
    };
    let store = open(&here).await;
    let request = |version: &str, file: &str| {
        SnapshotRequest::new("twins", version, &source).file(snapshotter::File::new(file))
    };
    store.snapshot(&request("a", "a.bin")).await.unwrap();
    let error = store.snapshot(&request("b", "b.bin")).await.unwrap_err();
    let both = ["a.bin", "b.bin"].map(|name| spf1(&source.join(name)));
    Said::of(&error).is(ErrorKind::AlreadyExists, &[&both[0].1, &both[1].1]);
    // A node that knows the other one alone takes the object for its own; whoever fetches it finds out.
    let other = open(&there).await;
    other.snapshot(&request("b", "b.bin")).await.unwrap();
    let third = Place::new();
    let third_store = open(&third).await;
    let pull = PullRequest::new(reference("twins:b"));
    let error = third_store.pull(&pull).await.unwrap_err();
    Said::of(&error).is(
        ErrorKind::Damaged,
        &[&both[1].0, "has other bytes", &both[0].1],
    );
    third.assert_empty();
    let pull = PullRequest::new(reference("twins:a"));
    third_store.pull(&pull).await.unwrap();
}

/// A copy found the first one where it looked for the second, and published a snapshot that nobody can restore.
#[tokio::test]
async fn two_files_with_one_address_are_not_copied_together() {
    let (from, to, here) = (Place::new(), Place::new(), Place::new());
    let layouts = Layouts(from.path("layouts"));
    let content = directory(&from.path("objects"));
    let source = twins(&here);
    let store = here
        .open_with(|config| config.registry(layouts.registry()).content(content.clone()))
        .await;
    let one = SnapshotRequest::new("twins", "v1", &source);
    let one = one.file(snapshotter::File::new("a.bin"));
    store.snapshot(&one).await.unwrap();
    let both = SnapshotRequest::new("twins", "v2", &source).local(true);
    store.snapshot(&both).await.unwrap();
    // As somebody else would publish both: the manifest of the first, with the list of both.
    let document = store.document(&reference("twins:v2")).await.unwrap();
    let manifest = layouts.manifest("snapshots/twins", "v1").unwrap();
    let mut manifest: Value = serde_json::from_slice(&manifest).unwrap();
    manifest["config"]["digest"] = layouts.put_blob("snapshots/twins", &document).into();
    manifest["config"]["size"] = document.len().into();
    layouts.put_manifest("snapshots/twins", "v2", manifest.to_string().as_bytes());
    let config = |layouts: &Layouts, content: Content| {
        let config = Config::new(here.path("no-store"));
        config.registry(layouts.registry()).content(content)
    };
    let there = (Layouts(to.path("layouts")), directory(&to.path("objects")));
    let (from, to) = (config(&layouts, content), config(&there.0, there.1.clone()));
    let request = CopyRequest::new(reference("twins:v2"));
    let error = Snapshotter::copy(&from, &to, &request).await.unwrap_err();
    let both = ["a.bin", "b.bin"].map(|name| spf1(&source.join(name)));
    let said = Said::of(&error);
    said.is(
        ErrorKind::AlreadyExists,
        &[&both[0].0, &both[0].1, &both[1].1],
    );
    assert_eq!(objects_below(&there.1.root), Vec::<PathBuf>::new());
    assert_eq!(there.0.manifest("snapshots/twins", "v2"), None);
}

// ---- what we make ----

const MTIME: &str = "2020-09-13T12:26:40.123456789Z";

/// Two files and a second name, all as old as [`MTIME`] says.
fn vm() -> Tree {
    let sparse = Bytes::Sparse {
        size: 1 << 20,
        extents: vec![(0, 1, 65536), (1 << 19, 2, 4096)],
    };
    let tree = Tree::new()
        .file("memory", sparse)
        .file("state<1>&.json", "{}")
        .hardlink("twice", "state<1>&.json")
        .symlink("latest", "memory");
    ["memory", "state<1>&.json", "latest"]
        .iter()
        .fold(tree, |tree, path| tree.mtime(path, OLD.0, OLD.1))
        .mode("memory", 0o600)
        .mode("state<1>&.json", 0o644)
}

fn request(source: &Path) -> SnapshotRequest {
    SnapshotRequest::new("vm", "v1", source)
        .read_only("memory")
        .annotation("org.example.kernel", "6.18")
}

/// The document of [`vm`] as the format page has it.
fn expected_document(source: &Path) -> String {
    let own = fs::metadata(source.join("memory")).unwrap();
    let metadata = |mode: u32, size: u64, typeflag: u32| {
        format!(
            r#""metadata":{{"mode":{mode},"uid":{},"gid":{},"size":{size},"mtime":"{MTIME}","typeflag":{typeflag}}}"#,
            own.uid(),
            own.gid()
        )
    };
    let file = |name: &str, shown: &str, read_only: bool, mode: u32, more: &str| {
        let path = source.join(name);
        let (digest, checksum) = spf1(&path);
        let size = fs::metadata(path).unwrap().len();
        format!(
            r#"{{"digest":"{digest}","readOnly":{read_only},"relativePath":"{shown}",{},"checksum":"{checksum}"{more}}}"#,
            metadata(mode, size, 0)
        )
    };
    let escaped = r"state\u003c1\u003e\u0026.json";
    let files = [
        file("memory", "memory", true, 0o600, ""),
        file("state<1>&.json", escaped, false, 0o644, ""),
        file(
            "twice",
            "twice",
            false,
            0o644,
            &format!(r#","hardlinkOf":"{escaped}""#),
        ),
    ];
    format!(
        r#"{{"files":[{}],"symlinks":[{{"relativePath":"latest","target":"memory",{}}}]}}"#,
        files.join(","),
        metadata(0o777, 6, 2)
    )
}

/// The manifest as the format page has it, but for the layers.
fn expected_manifest(document: &[u8], layers: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","artifactType":"{ARTIFACT_TYPE}","config":{{"mediaType":"{CONFIG_TYPE}","digest":"{}","size":{}}},"layers":[{layers}],"annotations":{{"org.example.kernel":"6.18"}}}}"#,
        sha256(document),
        document.len()
    )
}

fn empty_layer() -> String {
    format!(r#"{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{EMPTY}","size":2}}"#)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A blob of a registry, which is what its name says.
fn blob(address: &str, repository: &str, digest: &str) -> Vec<u8> {
    let answer = http::get(address, &format!("/v2/{repository}/blobs/{digest}")).unwrap();
    assert_eq!(answer.status, 200, "{digest}");
    assert_eq!(sha256(&answer.body), digest);
    answer.body
}

/// The manifest that a registry has, which it knows by the digest we said.
fn manifest(address: &str, repository: &str, digest: Digest) -> Vec<u8> {
    let target = format!("/v2/{repository}/manifests/v1");
    let headers = [("Accept", MANIFEST_TYPE)];
    let answer = http::send(address, "GET", &target, &headers, b"").unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some(MANIFEST_TYPE));
    let digest = digest.to_string();
    assert_eq!(answer.header("docker-content-digest"), Some(&*digest));
    assert_eq!(sha256(&answer.body), digest);
    answer.body
}

/// A packed stream of one of the files, told by its digest.
fn assert_stream(source: &Path, digest: &str, stream: &[u8]) {
    assert_eq!(xxh3(stream), digest);
    let files = ["memory", "state<1>&.json"].map(|name| source.join(name));
    let file = files.iter().find(|file| spf1(file).0 == digest);
    let file = file.unwrap_or_else(|| panic!("{digest} is no file's"));
    assert_eq!(blake3(stream), spf1(file).1);
    assert!(unpacked(stream) == fs::read(file).unwrap());
}

fn digests(source: &Path) -> BTreeSet<String> {
    let files = ["memory", "state<1>&.json"];
    files.map(|name| spf1(&source.join(name)).0).into()
}

/// Publishes it in format v1, in whichever one it is kept here.
async fn publish(store: &Snapshotter, source: &Path, format: Format) -> Digest {
    if format == Format::V1 {
        return store
            .snapshot(&request(source))
            .await
            .unwrap()
            .manifest_digest;
    }
    let taking = request(source).format(format).local(true);
    store.snapshot(&taking).await.unwrap();
    let push = PushRequest::new(reference("vm:v1")).format(Some(Format::V1));
    let pushed = store.push(&push).await.unwrap().publication;
    assert_eq!(pushed.format, Format::V1);
    pushed.manifest_digest
}

/// When it was taken is noted of one of format v2, and stays with it.
fn without_time(manifest: &[u8], kept: Format) -> Vec<u8> {
    let key = r#","org.opencontainers.image.created":"#;
    let (before, after) = match text(manifest).split_once(key) {
        Some((before, after)) => (before, &after[r#""2020-09-13T12:26:40Z""#.len()..]),
        None => (text(manifest), ""),
    };
    assert_eq!(after.is_empty(), kept == Format::V1);
    format!("{before}{after}").into_bytes()
}

#[tokio::test]
async fn what_we_push_to_a_registry_and_a_bucket_is_what_the_format_says() {
    pushed_to_a_registry_and_a_bucket(Format::V1).await;
}

#[tokio::test]
async fn pages_pushed_in_format_v1_are_what_the_format_says() {
    pushed_to_a_registry_and_a_bucket(Format::V2).await;
    pushed_to_a_registry_alone(Format::V2).await;
}

async fn pushed_to_a_registry_and_a_bucket(format: Format) {
    let Some(server) = or_skip(RegistryServer::start(Kind::default())) else {
        return;
    };
    let (s3, here) = (S3::start("checkpoints"), Place::new());
    let source = here.write("source", &vm());
    let registry = Registry::new(server.url(), "team/snapshots");
    let store = here
        .open_with(|config| {
            config
                .registry(registry)
                .content(bucket(&s3, s3.endpoint()))
        })
        .await;
    let published = publish(&store, &source, format).await;
    let repository = "team/snapshots/vm";
    let document = expected_document(&source);
    let manifest = manifest(server.address(), repository, published);
    let manifest = without_time(&manifest, format);
    assert_eq!(
        text(&manifest),
        expected_manifest(document.as_bytes(), &empty_layer())
    );
    let config = blob(server.address(), repository, &sha256(document.as_bytes()));
    assert_eq!(text(&config), document);
    assert_eq!(blob(server.address(), repository, EMPTY), b"{}");
    // The objects, and nothing else.
    let keys: BTreeSet<String> = s3
        .keys()
        .iter()
        .filter(|key| !key.starts_with("snapshotter/"))
        .map(|key| key.replacen("xxh3/", "xxh3:", 1))
        .collect();
    assert_eq!(keys, digests(&source));
    assert_eq!(s3.unfinished_uploads(), 0);
    for key in s3
        .keys()
        .into_iter()
        .filter(|key| !key.starts_with("snapshotter/"))
    {
        let stream = fs::read(s3.object(&key)).unwrap();
        assert_stream(&source, &key.replace('/', ":"), &stream);
    }
    let tags = http::get(server.address(), &format!("/v2/{repository}/tags/list")).unwrap();
    let tags: Value = serde_json::from_slice(&tags.body).unwrap();
    assert_eq!(tags["tags"], serde_json::json!(["v1"]));
}

/// The layers of a snapshot with its contents in the registry: text as the format page has it, and each one's bytes.
fn assert_layers(source: &Path, manifest: &[u8], blob: impl Fn(&str) -> Vec<u8>) -> String {
    let parsed: Value = serde_json::from_slice(manifest).unwrap();
    let mut texts = Vec::new();
    let mut seen = BTreeSet::new();
    for layer in parsed["layers"].as_array().unwrap() {
        let name = layer["digest"].as_str().unwrap();
        let digest = layer["annotations"][DIGEST_KEY].as_str().unwrap();
        let stream = blob(name);
        assert_eq!(sha256(&stream), name);
        assert_stream(source, digest, &stream);
        seen.insert(digest.to_owned());
        texts.push(format!(
            r#"{{"mediaType":"{CONTENT_TYPE}","digest":"{name}","size":{},"annotations":{{"{DIGEST_KEY}":"{digest}"}}}}"#,
            stream.len()
        ));
    }
    assert_eq!(seen, digests(source));
    texts.join(",")
}

#[tokio::test]
async fn what_we_push_to_a_registry_alone_is_what_the_format_says() {
    pushed_to_a_registry_alone(Format::V1).await;
}

async fn pushed_to_a_registry_alone(format: Format) {
    let Some(server) = or_skip(RegistryServer::start(Kind::default())) else {
        return;
    };
    let here = Place::new();
    let source = here.write("source", &vm());
    let registry = Registry::new(server.url(), NAMESPACE);
    let content = Content::new(ContentProvider::Registry);
    let store = here
        .open_with(|config| config.registry(registry).content(content))
        .await;
    let published = publish(&store, &source, format).await;
    let manifest = manifest(server.address(), "snapshots/vm", published);
    let manifest = without_time(&manifest, format);
    let layers = assert_layers(&source, &manifest, |name| {
        blob(server.address(), "snapshots/vm", name)
    });
    let document = expected_document(&source);
    assert_eq!(
        text(&manifest),
        expected_manifest(document.as_bytes(), &layers)
    );
    let config = sha256(document.as_bytes());
    assert_eq!(
        text(&blob(server.address(), "snapshots/vm", &config)),
        document
    );
}

#[tokio::test]
async fn what_we_push_to_a_directory_is_an_image_layout() {
    for content in [ContentProvider::Fs, ContentProvider::Registry] {
        let (between, here) = (Place::new(), Place::new());
        let layouts = Layouts(between.path("layouts"));
        let (source, objects) = (here.write("source", &vm()), between.path("objects"));
        let content = match content {
            ContentProvider::Fs => directory(&objects),
            other => Content::new(other),
        };
        let in_layers = content.provider == ContentProvider::Registry;
        let store = here
            .open_with(|config| config.registry(layouts.registry()).content(content))
            .await;
        store.snapshot(&request(&source)).await.unwrap();
        let layout = layouts.layout("snapshots/vm");
        let version: Value =
            serde_json::from_slice(&fs::read(layout.join("oci-layout")).unwrap()).unwrap();
        assert_eq!(version["imageLayoutVersion"], "1.0.0");
        let manifest = layouts.manifest("snapshots/vm", "v1").unwrap();
        let layers = if in_layers {
            assert_layers(&source, &manifest, |name| {
                layouts.blob("snapshots/vm", name).unwrap()
            })
        } else {
            empty_layer()
        };
        let document = expected_document(&source);
        assert_eq!(
            text(&manifest),
            expected_manifest(document.as_bytes(), &layers)
        );
        // Manifest, document and layers, each what its name says, and nothing else.
        let blobs = files_in(&layout.join("blobs/sha256"));
        assert_eq!(blobs.len(), if in_layers { 4 } else { 3 });
        for path in blobs {
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(sha256(&fs::read(&path).unwrap()), format!("sha256:{name}"));
        }
        if !in_layers {
            for object in objects_below(&objects) {
                let digest = object.to_str().unwrap().replace('/', ":");
                let stream = fs::read(objects.join(&object)).unwrap();
                assert_stream(&source, &digest, &stream);
            }
            assert_eq!(objects_below(&objects).len(), 2);
        }
    }
}

// ---- other people's tools ----

/// What skopeo prints; nothing, after saying so, where it is not installed.
fn skopeo(arguments: &[&str]) -> Option<Vec<u8>> {
    let output = match Command::new("skopeo").args(arguments).output() {
        Ok(output) => output,
        Err(error) => {
            testkit::mount::report_skip(format_args!("skopeo: {error}"));
            return None;
        }
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "skopeo {arguments:?}: {said}");
    Some(output.stdout)
}

#[tokio::test]
async fn skopeo_shows_and_copies_what_we_push() {
    let Some(server) = or_skip(RegistryServer::start(Kind::default())) else {
        return;
    };
    let (between, here, there) = (Place::new(), Place::new(), Place::new());
    let source = here.write("source", &vm());
    let layouts = Layouts(between.path("layouts"));
    let remote = Registry::new(server.url(), NAMESPACE);
    let content = Content::new(ContentProvider::Registry);
    let store = here
        .open_with(|config| config.registry(remote.clone()).content(content))
        .await;
    store.snapshot(&request(&source)).await.unwrap();
    let push = PushRequest::new(reference("vm:v1")).registry(layouts.registry());
    store.push(&push).await.unwrap();
    let manifest = layouts.manifest("snapshots/vm", "v1").unwrap();

    let in_layout = format!("oci:{}:v1", layouts.layout("snapshots/vm").display());
    let in_registry = format!("docker://{}/snapshots/vm:v1", server.address());
    let Some(shown) = skopeo(&["inspect", "--raw", &in_layout]) else {
        return;
    };
    assert_eq!(text(&shown), text(&manifest));
    let shown = skopeo(&["inspect", "--raw", "--tls-verify=false", &in_registry]).unwrap();
    assert_eq!(text(&shown), text(&manifest));

    // From the registry to a layout, and from the layout to the registry, under other names.
    let copies = Layouts(between.path("copies"));
    fs::create_dir_all(copies.layout("snapshots")).unwrap();
    let to_layout = format!("oci:{}:v1", copies.layout("snapshots/vm").display());
    let to_registry = format!("docker://{}/copies/vm:v1", server.address());
    let plain = ["--insecure-policy", "copy", "--preserve-digests"];
    let copy = |tls: &str, from: &str, to: &str| {
        skopeo(&[&plain[..], &[tls, from, to]].concat()).unwrap();
    };
    copy("--src-tls-verify=false", &in_registry, &to_layout);
    copy("--dest-tls-verify=false", &in_layout, &to_registry);
    for registry in [copies.registry(), Registry::new(server.url(), "copies")] {
        let there = Place::new();
        let other = there.open_with(|config| config.registry(registry)).await;
        let output = there.fresh();
        let restore = RestoreRequest::new(reference("vm:v1"), &output);
        let report = other.restore(&restore).await.unwrap();
        assert_eq!(report.manifest_digest.to_string(), sha256(&manifest));
        assert_same(&source, &output);
    }
    drop(there);
}

// ---- one snapshot, one digest ----

#[tokio::test]
async fn one_input_has_one_manifest_digest_on_every_node() {
    let (between, here, there) = (Place::new(), Place::new(), Place::new());
    let layouts = Layouts(between.path("layouts"));
    let content = directory(&between.path("objects"));
    let mut taken = Vec::new();
    for (place, concurrency) in [(&here, 1), (&there, 5)] {
        let source = place.write("source", &vm());
        let (registry, content) = (layouts.registry(), content.clone());
        let store = place
            .open_with(|config| {
                config
                    .registry(registry)
                    .content(content)
                    .snapshot_concurrency(concurrency)
            })
            .await;
        let local = request(&source).local(true);
        let report = store.snapshot(&local).await.unwrap();
        let push = PushRequest::new(reference("vm:v1"));
        let pushed = store.push(&push).await.unwrap().publication;
        assert_eq!(pushed.manifest_digest, report.manifest_digest);
        taken.push((report.manifest_digest, pushed.sent_blobs));
    }
    // The second one found everything there, and that is no conflict.
    assert_eq!(taken[0], (taken[1].0, 2));
    assert_eq!(taken[1].1, 0);
}

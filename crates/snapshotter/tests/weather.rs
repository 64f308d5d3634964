//! Bad weather between a node and the others: whatever a registry or a bucket does, the error says what was being done
//! and where, nothing is half here or half there, and the same call succeeds when the weather clears.

use crate::support_a;
use crate::support_c;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use snapshotter::{
    Config, Content, ContentProvider, Error, ErrorKind, PullRequest, PushRequest, Registry,
    RestoreRequest, SnapshotRequest, SnapshotState, Snapshotter,
};
use support_a::*;
use support_c::*;
use testkit::compare::assert_same;
use testkit::mount::{TmpfsMount, or_skip};
use testkit::proxy::{self, Act};
use testkit::s3::{S3, SECRET_KEY};
use testkit::weather::{Asked, Reply};
use testkit::{Content as Bytes, Tree};

const KIB: u64 = 1 << 10;
const REPOSITORY: &str = "snapshots/vm";
const MANIFEST: &str = "/v2/snapshots/vm/manifests/v1";

/// A snapshot that one node has published through image layouts, and another node that wants it through a registry.
struct Scene {
    _between: Place,
    here: Place,
    there: Place,
    source: PathBuf,
    sky: Sky,
    content: Content,
    /// Of the document.
    config: String,
}

fn vm() -> Tree {
    Tree::new()
        .file(
            "memory",
            Bytes::Sparse {
                size: 512 * KIB,
                extents: vec![(0, 1, 65536), (256 * KIB, 2, 4096)],
            },
        )
        .file(
            "disk",
            Bytes::Random {
                seed: 3,
                len: 300 * KIB,
            },
        )
        .file("state.json", "{}")
        .symlink("latest", "state.json")
}

fn taking(source: &Path) -> SnapshotRequest {
    SnapshotRequest::new("vm", "v1", source).read_only("memory")
}

fn pulling() -> PullRequest {
    PullRequest::new(reference("vm:v1"))
}

fn pushing() -> PushRequest {
    PushRequest::new(reference("vm:v1"))
}

impl Scene {
    /// Nothing is published yet.
    fn new() -> Self {
        let (between, here) = (Place::new(), Place::new());
        Self {
            source: here.write("source", &vm()),
            sky: Sky::over(Layouts(between.path("layouts"))),
            content: directory(&between.path("objects")),
            _between: between,
            here,
            there: Place::new(),
            config: String::new(),
        }
    }

    /// Contents are objects in a directory.
    async fn published() -> Self {
        let scene = Self::new();
        let content = scene.content.clone();
        scene.publish(content).await
    }

    /// Contents are layers.
    async fn published_in_layers() -> Self {
        let scene = Self::new();
        scene.publish(Content::new(ContentProvider::Registry)).await
    }

    async fn publish(mut self, content: Content) -> Self {
        let layouts = self.sky.layouts.registry();
        let store = self
            .here
            .open_with(|config| config.registry(layouts).content(content))
            .await;
        store.snapshot(&taking(&self.source)).await.unwrap();
        store.close().await.unwrap();
        self.config = self.manifest()["config"]["digest"]
            .as_str()
            .unwrap()
            .to_owned();
        self
    }

    fn manifest(&self) -> Value {
        let bytes = self.sky.layouts.manifest(REPOSITORY, "v1").unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    /// The node that wants it.
    async fn node(&self) -> Snapshotter {
        self.node_with(self.sky.registry(), self.content.clone())
            .await
    }

    async fn node_with(&self, registry: Registry, content: Content) -> Snapshotter {
        self.there
            .open_with(|config| config.registry(registry).content(content))
            .await
    }

    /// What a fetch says in this weather.
    async fn fetch_in(
        &self,
        storm: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static,
    ) -> Said {
        self.sky.storms.set(storm);
        let other = self.node().await;
        let said = self.fails(&other).await;
        self.sky.storms.clear();
        self.clears(&other).await;
        said
    }

    /// Pulls and restores: both fail alike and leave nothing.
    async fn fails(&self, other: &Snapshotter) -> Said {
        let pulled = other.pull(&pulling()).await.unwrap_err();
        self.assert_nothing(other).await;
        let output = self.there.fresh();
        let restore = RestoreRequest::new(reference("vm:v1"), &output);
        let restored = other.restore(&restore).await.unwrap_err();
        self.assert_nothing(other).await;
        assert!(!output.exists(), "there is an output");
        for error in [&pulled, &restored] {
            assert_eq!(error.reference(), Some(&reference("vm:v1")), "{error:?}");
        }
        let (pulled, restored) = (Said::of(&pulled), Said::of(&restored));
        assert_eq!(pulled.kind, restored.kind, "{pulled:?} {restored:?}");
        assert_eq!(pulled.text, restored.text);
        pulled
    }

    async fn assert_nothing(&self, other: &Snapshotter) {
        assert!(other.list().await.unwrap().is_empty(), "it is listed");
        self.there.assert_empty();
    }

    /// The same handle fetches it all, with patience.
    async fn clears(&self, other: &Snapshotter) {
        let output = self.there.fresh();
        let calm = Registry::new(self.sky.url(), NAMESPACE);
        let restore = RestoreRequest::new(reference("vm:v1"), &output)
            .registry(calm)
            .content(self.content.clone());
        assert_eq!(other.restore(&restore).await.unwrap().fetched_blobs, 3);
        assert_same(&self.source, &output);
        assert_sound(other).await;
    }
}

/// The reply for requests of these paths alone.
fn at(
    part: &'static str,
    reply: Reply,
) -> impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static {
    move |asked| asked.path().contains(part).then(|| reply.clone())
}

// ---- a registry in bad weather ----

#[tokio::test]
async fn a_registry_that_is_down_is_unavailable_and_named() {
    let scene = Scene::published().await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let registry = Registry::new(format!("http://{address}"), NAMESPACE).retries(0);
    let other = scene.node_with(registry, scene.content.clone()).await;
    let said = scene.fails(&other).await;
    said.is(
        ErrorKind::Unavailable,
        &[
            "cannot read the manifest snapshots/vm:v1",
            &address.to_string(),
            "cannot connect",
        ],
    );
    scene.clears(&other).await;
}

#[tokio::test]
async fn statuses_of_a_registry_have_their_kinds_and_hints() {
    for (status, kind, hint) in [
        (401, ErrorKind::PermissionDenied, Some("registry.username")),
        (403, ErrorKind::PermissionDenied, Some("credentials")),
        (429, ErrorKind::Unavailable, None),
        (500, ErrorKind::Unavailable, None),
    ] {
        for (part, doing) in [
            ("/manifests/", "cannot read the manifest snapshots/vm:v1 ("),
            ("/blobs/", "cannot read the blob snapshots/vm@sha256:"),
        ] {
            let scene = Scene::published().await;
            let reply = Reply::status(status).with("Retry-After", "3600");
            let said = scene.fetch_in(at(part, reply)).await;
            said.is(kind, &[doing, &scene.sky.url(), &status.to_string()]);
            if let Some(hint) = hint {
                said.hints(hint);
            }
            // Each call asked once, and the last one succeeded.
            assert_eq!(scene.sky.asked("/manifests/v1").len(), 3);
        }
    }
}

#[tokio::test]
async fn a_snapshot_that_the_registry_does_not_have_is_not_found() {
    let scene = Scene::published().await;
    let said = scene.fetch_in(at("/manifests/", Reply::status(404))).await;
    let place = scene.sky.url().replace("http://", "");
    said.is(
        ErrorKind::NotFound,
        &["there is no snapshot vm:v1, neither here nor in", &place],
    );
}

#[tokio::test]
async fn a_document_that_the_registry_does_not_have_is_named() {
    let scene = Scene::published().await;
    let said = scene.fetch_in(at("/blobs/", Reply::status(404))).await;
    said.is(
        ErrorKind::NotFound,
        &["cannot read the blob snapshots/vm@", &scene.config, "404"],
    );
}

#[tokio::test]
async fn weather_that_passes_is_waited_out() {
    for reply in [
        Reply::status(500),
        Reply::status(429).with("Retry-After", "0"),
        Reply::HangUp,
        Reply::Cut(b"{".to_vec(), 100),
    ] {
        let scene = Scene::published().await;
        let first = AtomicBool::new(true);
        scene.sky.storms.set(move |asked: &Asked| {
            let first = asked.path() == MANIFEST && first.swap(false, Ordering::SeqCst);
            first.then(|| reply.clone())
        });
        let other = scene
            .node_with(scene.sky.registry().retries(1), scene.content.clone())
            .await;
        other.pull(&pulling()).await.unwrap();
        assert_eq!(scene.sky.asked("/manifests/v1").len(), 2);
        assert_sound(&other).await;
    }
}

#[tokio::test]
async fn a_registry_that_never_answers_is_given_up() {
    for reply in [Reply::Silence, Reply::Stall(b"{".to_vec(), 100)] {
        let scene = Scene::published().await;
        scene.sky.storms.set(at("/manifests/", reply));
        let hasty = scene.sky.registry().timeout(Duration::from_millis(100));
        let other = scene.node_with(hasty, scene.content.clone()).await;
        let said = scene.fails(&other).await;
        said.is(
            ErrorKind::Unavailable,
            &[
                "cannot read the manifest snapshots/vm:v1",
                "no progress within 100ms",
            ],
        );
        scene.sky.storms.clear();
        scene.clears(&other).await;
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_unavailable() {
    for part in ["/manifests/", "/blobs/"] {
        let scene = Scene::published().await;
        let said = scene
            .fetch_in(at(part, Reply::Cut(b"{\"files\":".to_vec(), 400)))
            .await;
        said.is(
            ErrorKind::Unavailable,
            &["cannot read the", "snapshots/vm", "the connection broke"],
        );
    }
}

#[tokio::test]
async fn an_answer_without_end_is_damage_and_is_not_read_to_it() {
    for (part, limit) in [
        ("/manifests/", "the answer is longer than 4194304 bytes"),
        ("/blobs/", "the answer is longer than"),
    ] {
        let scene = Scene::published().await;
        let said = scene.fetch_in(at(part, Reply::Endless)).await;
        said.is(
            ErrorKind::Damaged,
            &["cannot read the", "snapshots/vm", limit],
        );
    }
}

#[tokio::test]
async fn redirects_that_go_in_circles_end() {
    for (part, to) in [("/manifests/", MANIFEST), ("/blobs/", "/v2/x/blobs/y")] {
        let scene = Scene::published().await;
        let round = Reply::status(307).with("Location", to);
        let said = scene.fetch_in(at(part, round)).await;
        said.is(
            ErrorKind::Unsupported,
            &["cannot read the", "snapshots/vm", "more than 5 redirects"],
        );
    }
}

#[tokio::test]
async fn a_manifest_that_is_not_what_the_registry_says_it_is_is_damage() {
    let scene = Scene::published().await;
    let other = sha256(b"other");
    let bytes = scene.sky.layouts.manifest(REPOSITORY, "v1").unwrap();
    let reply = Reply::ok(bytes).with("Docker-Content-Digest", &*other);
    let said = scene.fetch_in(at("/manifests/", reply)).await;
    said.is(
        ErrorKind::Damaged,
        &[
            "cannot read the manifest snapshots/vm:v1",
            "the registry says",
            &other,
        ],
    );
}

#[tokio::test]
async fn another_manifest_than_the_digest_asked_for_is_damage() {
    let scene = Scene::published().await;
    let bytes = scene.sky.layouts.manifest(REPOSITORY, "v1").unwrap();
    let asked_for = sha256(&bytes);
    scene
        .sky
        .storms
        .set(at("/manifests/", Reply::ok(bytes.repeat(2))));
    let other = scene.node().await;
    let pinned = PullRequest::new(reference(&format!("vm@{asked_for}")));
    let error = other.pull(&pinned).await.unwrap_err();
    Said::of(&error).is(
        ErrorKind::Damaged,
        &[
            "cannot read the manifest snapshots/vm@",
            "the registry sent",
            &asked_for,
        ],
    );
    scene.assert_nothing(&other).await;
    scene.sky.storms.clear();
    other.pull(&pinned).await.unwrap();
}

#[tokio::test]
async fn a_document_with_other_bytes_is_damage() {
    let scene = Scene::published().await;
    let mut bytes = scene.sky.layouts.blob(REPOSITORY, &scene.config).unwrap();
    bytes[20] ^= 1;
    let said = scene
        .fetch_in(at("/blobs/", Reply::ok(bytes.clone())))
        .await;
    said.is(
        ErrorKind::Damaged,
        &[
            "cannot read the blob snapshots/vm@",
            &scene.config,
            &sha256(&bytes),
        ],
    );
}

#[tokio::test]
async fn a_document_of_another_length_than_said_is_damage() {
    for length in [1, 10_000] {
        let scene = Scene::published().await;
        let mut bytes = scene.sky.layouts.blob(REPOSITORY, &scene.config).unwrap();
        bytes.resize(length, b' ');
        let said = scene.fetch_in(at("/blobs/", Reply::ok(bytes))).await;
        said.is(ErrorKind::Damaged, &["cannot read the blob", "bytes"]);
    }
}

// ---- manifests and documents that lie ----

/// A snapshot made by hand: one file in one object.
struct Forgery {
    place: Place,
    layouts: Layouts,
    content: Content,
    store: Snapshotter,
}

const BYTES: &[u8] = b"the bytes of the only file";

/// What a Go library or we would write of it.
fn honest() -> Value {
    let stream = packed(BYTES);
    json!({"files": [{
        "digest": xxh3(&stream),
        "readOnly": false,
        "relativePath": "a",
        "metadata": {"mode": 420, "uid": 0, "gid": 0, "size": BYTES.len(), "mtime": "2020-01-01T00:00:00Z", "typeflag": 0},
        "checksum": blake3(&stream),
    }]})
}

impl Forgery {
    async fn new() -> Self {
        let place = Place::new();
        let layouts = Layouts(place.path("layouts"));
        let content = directory(&place.path("objects"));
        let stream = packed(BYTES);
        let key = xxh3(&stream).replace(':', "/");
        fs::create_dir(content.root.join("xxh3")).unwrap();
        fs::write(content.root.join(key), stream).unwrap();
        let store = place
            .open_with(|config| config.registry(layouts.registry()).content(content.clone()))
            .await;
        Self {
            place,
            layouts,
            content,
            store,
        }
    }

    fn put(&self, document: &[u8], manifest: &[u8]) {
        self.layouts.put_blob(REPOSITORY, document);
        self.layouts.put_manifest(REPOSITORY, "v1", manifest);
    }

    /// What is said of a document under a manifest that pins it.
    async fn document(&self, document: &[u8]) -> Said {
        self.put(document, manifest_of(document).to_string().as_bytes());
        self.fails().await
    }

    /// The same of a change of the honest one.
    async fn changed(&self, change: impl FnOnce(&mut Value)) -> Said {
        let mut document = honest();
        change(&mut document);
        self.document(document.to_string().as_bytes()).await
    }

    /// What is said of a change of the manifest of the honest document.
    async fn manifest(&self, change: impl FnOnce(&mut Value)) -> Said {
        let document = honest().to_string();
        let mut manifest = manifest_of(document.as_bytes());
        change(&mut manifest);
        self.put(document.as_bytes(), manifest.to_string().as_bytes());
        self.fails().await
    }

    /// Pulling and restoring fail alike and leave nothing; what is honest takes its place.
    async fn fails(&self) -> Said {
        let pulled = self.store.pull(&pulling()).await.unwrap_err();
        let output = self.place.fresh();
        let restore = RestoreRequest::new(reference("vm:v1"), &output);
        let restored = self.store.restore(&restore).await.unwrap_err();
        assert_eq!(pulled.to_string(), restored.to_string());
        assert_eq!(pulled.reference(), Some(&reference("vm:v1")));
        assert!(self.store.list().await.unwrap().is_empty());
        assert!(!output.exists());
        self.place.assert_empty();
        let document = honest().to_string();
        let manifest = manifest_of(document.as_bytes()).to_string();
        self.put(document.as_bytes(), manifest.as_bytes());
        self.store.restore(&restore).await.unwrap();
        assert_eq!(fs::read(output.join("a")).unwrap(), BYTES);
        self.store.remove(&reference("vm:v1")).await.unwrap();
        Said::of(&pulled)
    }

    fn object(&self) -> PathBuf {
        self.content.root.join(&files_below(&self.content.root)[0])
    }
}

fn with_another_file(document: &mut Value, path: &str) {
    let mut file = document["files"][0].clone();
    file["relativePath"] = path.into();
    document["files"].as_array_mut().unwrap().push(file);
}

const UNUSABLE: &str = "the document of vm:v1 cannot be used";

#[tokio::test]
async fn paths_that_are_not_below_the_output_are_refused() {
    let forgery = Forgery::new().await;
    for path in ["..", "../x", "/../x", "a/../../x", "", "/", "b\0c"] {
        let said = forgery
            .changed(|document| with_another_file(document, path))
            .await;
        said.is(
            ErrorKind::Damaged,
            &[UNUSABLE, "a path in the document is not valid"],
        );
    }
}

#[tokio::test]
async fn paths_that_are_there_twice_or_below_a_file_are_refused() {
    let forgery = Forgery::new().await;
    let said = forgery
        .changed(|document| {
            with_another_file(document, "./a");
            document["files"][1]["metadata"]["mode"] = 0o600.into();
        })
        .await;
    said.is(
        ErrorKind::Damaged,
        &[UNUSABLE, "\"a\" is in the document twice"],
    );
    let said = forgery
        .changed(|document| with_another_file(document, "a/b"))
        .await;
    said.is(ErrorKind::Damaged, &[UNUSABLE, "\"a/b\" is below \"a\""]);
}

/// Whatever is asked for is listed as it was asked for there, twice too: such snapshots were refused here.
#[tokio::test]
async fn files_that_the_go_library_lists_are_restored_where_it_restores_them() {
    let forgery = Forgery::new().await;
    let mut document = honest();
    document["files"][0]["relativePath"] = "./a".into();
    for path in ["/b", "c//d", "x/../e", "f/g/", "a", "./a"] {
        with_another_file(&mut document, path);
    }
    let document = document.to_string();
    let manifest = manifest_of(document.as_bytes()).to_string();
    forgery.put(document.as_bytes(), manifest.as_bytes());
    let output = forgery.place.fresh();
    let restoring = RestoreRequest::new(reference("vm:v1"), &output);
    forgery.store.restore(&restoring).await.unwrap();
    let expected = ["a", "b", "c/d", "e", "f/g"].map(PathBuf::from);
    assert_eq!(files_below(&output), expected);
    assert_sound(&forgery.store).await;
}

#[tokio::test]
async fn digests_and_checksums_of_another_form_are_refused() {
    let forgery = Forgery::new().await;
    for (key, values) in [
        (
            "digest",
            ["xxh3:0", "xxh3:../../etc/passwd", "sha256:00", "xxh3:ABC"],
        ),
        ("checksum", ["", "blake3:", "blake3:../..", "md5:00"]),
    ] {
        // An honest digest of nothing that is there is another matter.
        for value in values.iter().skip(usize::from(key == "digest")) {
            let said = forgery
                .changed(|document| document["files"][0][key] = (*value).into())
                .await;
            said.is(
                ErrorKind::Damaged,
                &[
                    UNUSABLE,
                    "the content of \"a\" is not named by a valid digest",
                ],
            );
        }
    }
}

#[tokio::test]
async fn a_checksum_that_the_bytes_do_not_have_is_damage() {
    let forgery = Forgery::new().await;
    let wrong = blake3(b"other");
    let said = forgery
        .changed(|document| document["files"][0]["checksum"] = (*wrong).into())
        .await;
    let place = forgery.content.root.display().to_string();
    said.is(
        ErrorKind::Damaged,
        &["has other bytes", &place, &blake3(&packed(BYTES))],
    );
}

#[tokio::test]
async fn a_size_that_the_bytes_do_not_have_is_damage() {
    let forgery = Forgery::new().await;
    for size in [0, 1, BYTES.len() + 1, 1 << 20] {
        let said = forgery
            .changed(|document| document["files"][0]["metadata"]["size"] = size.into())
            .await;
        said.is(
            ErrorKind::Damaged,
            &[
                &xxh3(&packed(BYTES)),
                &forgery.content.root.display().to_string(),
            ],
        );
    }
    let said = forgery
        .changed(|document| document["files"][0]["metadata"]["size"] = u64::MAX.into())
        .await;
    said.is(ErrorKind::Damaged, &[UNUSABLE, "more than a file can have"]);
}

#[tokio::test]
async fn a_document_that_is_not_json_of_its_shape_is_refused() {
    let forgery = Forgery::new().await;
    let nested = "[".repeat(200_000);
    let keyed = r#"{"a":"#.repeat(200_000);
    for document in [
        "",
        "\0",
        "null",
        "[]",
        "{}x",
        r#"{"files":7}"#,
        &nested,
        &keyed,
    ] {
        let said = forgery.document(document.as_bytes()).await;
        said.is(
            ErrorKind::Damaged,
            &[UNUSABLE, "the document is not JSON of the right shape"],
        );
    }
}

#[tokio::test]
async fn nesting_in_a_key_that_nobody_knows_does_no_harm() {
    let forgery = Forgery::new().await;
    let depth = 200_000;
    let mut document = honest().to_string();
    document.truncate(document.len() - 1);
    document += &format!(",\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    let manifest = manifest_of(document.as_bytes()).to_string();
    forgery.put(document.as_bytes(), manifest.as_bytes());
    forgery.store.pull(&pulling()).await.unwrap();
}

#[tokio::test]
async fn a_document_of_another_size_than_its_descriptor_says_is_damage() {
    let forgery = Forgery::new().await;
    let real = honest().to_string().len();
    for size in [0, real - 1, real + 1, 200 << 20] {
        let said = forgery
            .manifest(|manifest| manifest["config"]["size"] = size.into())
            .await;
        let expected = format!("it has {real} bytes, not {size}");
        said.is(ErrorKind::Damaged, &["snapshots/vm", &expected]);
    }
    let said = forgery
        .manifest(|manifest| manifest["config"]["size"] = (1_u64 << 40).into())
        .await;
    said.is(
        ErrorKind::Damaged,
        &[
            "the manifest of vm:v1 cannot be used",
            "256 MiB is the limit",
        ],
    );
}

#[tokio::test]
async fn a_manifest_of_another_artifact_is_said_to_be_no_snapshot() {
    let forgery = Forgery::new().await;
    let refused = "the manifest of vm:v1 cannot be used: it is not a snapshot";
    let said = forgery
        .manifest(|manifest| manifest["artifactType"] = "application/vnd.cncf.helm".into())
        .await;
    said.is(
        ErrorKind::Unsupported,
        &[refused, "artifact type", "vnd.cncf.helm"],
    );
    let said = forgery
        .manifest(|manifest| {
            manifest["config"]["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
        })
        .await;
    said.is(ErrorKind::Unsupported, &[refused, "image.config"]);
}

#[tokio::test]
async fn an_index_of_manifests_is_said_to_be_no_snapshot() {
    let forgery = Forgery::new().await;
    for media_type in [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ] {
        let said = forgery
            .manifest(|manifest| {
                *manifest = json!({
                    "schemaVersion": 2,
                    "mediaType": media_type,
                    "manifests": [{"mediaType": MANIFEST_TYPE, "digest": sha256(b""), "size": 0}],
                });
            })
            .await;
        said.is(
            ErrorKind::Unsupported,
            &[
                "the manifest of vm:v1 cannot be used: it is not a snapshot",
                media_type,
            ],
        );
    }
}

#[tokio::test]
async fn a_manifest_that_is_not_json_of_its_shape_is_damage() {
    let forgery = Forgery::new().await;
    let nested = "[".repeat(200_000);
    for manifest in ["", "no", "[]", "null", "{}", &nested] {
        forgery.put(b"{}", manifest.as_bytes());
        let said = forgery.fails().await;
        said.is(
            ErrorKind::Damaged,
            &[
                "the manifest of vm:v1 cannot be used",
                "not JSON of the right shape",
            ],
        );
    }
    for digest in ["sha256:", "sha256:../../x", "md5:00"] {
        let said = forgery
            .manifest(|manifest| manifest["config"]["digest"] = digest.into())
            .await;
        said.is(
            ErrorKind::Damaged,
            &[
                "the manifest of vm:v1",
                "the digest of the document is not valid",
            ],
        );
    }
}

// ---- contents in bad weather ----

#[tokio::test]
async fn an_object_that_is_missing_altered_shorter_or_longer_is_named() {
    let forgery = Forgery::new().await;
    let whole = packed(BYTES);
    let digest = xxh3(&whole);
    let mut altered = whole.clone();
    altered[50] ^= 1;
    let object = forgery.object();
    let cases = [
        (None, ErrorKind::NotFound, "there is no"),
        (Some(altered), ErrorKind::Damaged, "has other bytes"),
        (
            Some(whole[..whole.len() - 1].to_vec()),
            ErrorKind::Damaged,
            "is damaged: the content claims more than its",
        ),
        (
            Some([&whole[..], b"x"].concat()),
            ErrorKind::Damaged,
            "bytes follow the content's last extent",
        ),
        (Some(whole.repeat(50)), ErrorKind::Damaged, "at most"),
        (
            Some(vec![0; whole.len()]),
            ErrorKind::Damaged,
            "the content doesn't start with SPF1",
        ),
    ];
    let document = honest().to_string();
    let manifest = manifest_of(document.as_bytes()).to_string();
    forgery.put(document.as_bytes(), manifest.as_bytes());
    for (bytes, kind, text) in cases {
        match bytes {
            Some(bytes) => fs::write(&object, bytes).unwrap(),
            None => fs::remove_file(&object).unwrap(),
        }
        let output = forgery.place.fresh();
        let restore = RestoreRequest::new(reference("vm:v1"), &output);
        let error = forgery.store.restore(&restore).await.unwrap_err();
        let place = format!("fs://{}", forgery.content.root.display());
        Said::of(&error).is(kind, &[&digest, &place, text]);
        assert!(forgery.store.list().await.unwrap().is_empty());
        assert!(!output.exists());
        forgery.place.assert_empty();
        fs::write(&object, &whole).unwrap();
        forgery.store.restore(&restore).await.unwrap();
        forgery.store.remove(&reference("vm:v1")).await.unwrap();
    }
}

/// A bucket, and a proxy before it whose weather a test makes.
struct Bucket {
    s3: S3,
    proxy: proxy::Weather,
    storms: Storms<proxy::Asked, Act>,
}

impl Bucket {
    /// The keys of contents.
    fn contents(&self) -> Vec<String> {
        let mut keys = self.s3.keys();
        keys.retain(|key| !key.starts_with("snapshotter/"));
        keys
    }

    fn new() -> Self {
        let s3 = S3::start("checkpoints");
        let storms: Storms<proxy::Asked, Act> = Storms::none();
        let shared = storms.clone();
        let proxy = proxy::Weather::before(s3.address(), move |asked| {
            shared.of(asked).unwrap_or(Act::Pass)
        });
        Self { s3, proxy, storms }
    }

    fn content(&self) -> Content {
        bucket(&self.s3, self.proxy.endpoint())
    }

    /// A snapshot whose contents are here.
    async fn published(&self) -> Scene {
        let mut scene = Scene::new();
        scene.content = self.content();
        let content = scene.content.clone();
        scene.publish(content).await
    }

    /// What a fetch says while requests for objects are treated like this.
    async fn fetch_in(&self, act: Act) -> Said {
        let scene = self.published().await;
        let other = scene.node().await;
        self.storms.set(move |_| Some(act.clone()));
        let said = scene.fails(&other).await;
        self.storms.clear();
        scene.clears(&other).await;
        said
    }
}

const NO_BUCKET: &str = "<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>The specified bucket does not \
                         exist</Message><BucketName>checkpoints</BucketName></Error>";

#[tokio::test]
async fn a_bucket_that_is_missing_is_named_with_a_hint() {
    let bucket = Bucket::new();
    let answer = Act::Answer("404 Not Found", "", NO_BUCKET.into());
    let said = bucket.fetch_in(answer).await;
    said.is(
        ErrorKind::NotFound,
        &["there is no bucket checkpoints", "NoSuchBucket"],
    )
    .hints("content.bucket");
}

#[tokio::test]
async fn wrong_keys_are_permission_denied_with_a_hint() {
    let bucket = Bucket::new();
    let scene = bucket.published().await;
    let mut wrong = scene.content.clone();
    wrong.access_key_secret = Some("not/the/secret/at/all".to_owned());
    let other = scene.node_with(scene.sky.registry(), wrong).await;
    let said = scene.fails(&other).await;
    said.is(
        ErrorKind::PermissionDenied,
        &["cannot fetch xxh3:", "in s3://checkpoints"],
    )
    .hints("check the keys");
    scene.clears(&other).await;
}

#[tokio::test]
async fn a_bucket_that_does_not_answer_well_is_unavailable() {
    for act in [
        Act::Close,
        Act::Answer("503 Slow Down", "", Vec::new()),
        Act::Answer("500 Oops", "Retry-After: 3600\r\n", Vec::new()),
        Act::Answer("429 Too Many", "", Vec::new()),
        Act::Cut(10),
    ] {
        let bucket = Bucket::new();
        let said = bucket.fetch_in(act).await;
        said.is(
            ErrorKind::Unavailable,
            &["cannot fetch xxh3:", "in s3://checkpoints"],
        );
    }
}

#[tokio::test]
async fn a_bucket_that_never_answers_is_given_up() {
    let bucket = Bucket::new();
    let scene = bucket.published().await;
    let mut hasty = scene.content.clone();
    hasty.timeout = Duration::from_millis(100);
    let other = scene.node_with(scene.sky.registry(), hasty).await;
    bucket.storms.set(|_| Some(Act::Stall));
    let said = scene.fails(&other).await;
    said.is(
        ErrorKind::Unavailable,
        &[
            "cannot fetch xxh3:",
            "in s3://checkpoints",
            "no progress within 100ms",
        ],
    );
    bucket.storms.clear();
    scene.clears(&other).await;
}

#[tokio::test]
async fn objects_of_a_bucket_that_are_missing_or_others_are_named() {
    let bucket = Bucket::new();
    let scene = bucket.published().await;
    let other = scene.node().await;
    let key = bucket
        .s3
        .keys()
        .into_iter()
        .max_by_key(|key| fs::metadata(bucket.s3.object(key)).unwrap().len())
        .unwrap();
    let digest = key.replace('/', ":");
    let whole = fs::read(bucket.s3.object(&key)).unwrap();
    let mut altered = whole.clone();
    altered[5000] ^= 1;
    for (bytes, kind, text) in [
        (None, ErrorKind::NotFound, "there is no"),
        (Some(altered), ErrorKind::Damaged, "has other bytes"),
        (
            Some(whole[..5000].to_vec()),
            ErrorKind::Damaged,
            "the content is cut short",
        ),
        (
            Some([&whole[..], b"more"].concat()),
            ErrorKind::Damaged,
            "bytes follow",
        ),
    ] {
        match bytes {
            Some(bytes) => bucket.s3.put(&key, &bytes),
            None => fs::remove_file(bucket.s3.object(&key)).unwrap(),
        }
        let said = scene.fails(&other).await;
        said.is(kind, &[&digest, "in s3://checkpoints", text]);
    }
    bucket.s3.put(&key, &whole);
    scene.clears(&other).await;
}

#[tokio::test]
async fn layers_that_are_missing_altered_or_cut_are_named() {
    for kind in ["missing", "altered", "shorter", "longer", "cut"] {
        let scene = Scene::published_in_layers().await;
        let layers = scene.manifest()["layers"].as_array().unwrap().clone();
        let layer = layers
            .iter()
            .max_by_key(|layer| layer["size"].as_u64())
            .unwrap();
        let digest = layer["digest"].as_str().unwrap().to_owned();
        let mut bytes = scene.sky.layouts.blob(REPOSITORY, &digest).unwrap();
        let (reply, expected, text) = match kind {
            "missing" => (Reply::status(404), ErrorKind::NotFound, "404"),
            "cut" => {
                let whole = bytes.len();
                bytes.truncate(1000);
                (
                    Reply::Cut(bytes, whole),
                    ErrorKind::Unavailable,
                    "the connection broke",
                )
            }
            _ => {
                let text = match kind {
                    "altered" => "its bytes are sha256:",
                    _ => "bytes, not",
                };
                match kind {
                    "altered" => bytes[5000] ^= 1,
                    "shorter" => bytes.truncate(5000),
                    _ => bytes.push(0),
                }
                (Reply::ok(bytes), ErrorKind::Damaged, text)
            }
        };
        let path = digest.clone();
        let said = scene
            .fetch_in(move |asked| asked.path().ends_with(&path).then(|| reply.clone()))
            .await;
        said.is(expected, &["cannot read the blob snapshots/vm@", &digest]);
        // An altered stream is found out by whichever of the two hashes comes first.
        if kind != "altered" {
            said.is(expected, &[text]);
        }
    }
}

// ---- publishing in bad weather ----

impl Scene {
    /// The node that publishes.
    async fn publisher(&self) -> Snapshotter {
        let registry = self.sky.registry().timeout(Duration::from_secs(5));
        let content = self.content.clone();
        self.here
            .open_with(|config| config.registry(registry).content(content))
            .await
    }

    /// What taking a snapshot says, which stays here; when the weather clears, a push makes up for it.
    async fn publish_in(
        &self,
        storm: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static,
    ) -> Said {
        let store = self.publisher().await;
        self.sky.storms.set(storm);
        let error = store.snapshot(&taking(&self.source)).await.unwrap_err();
        assert_eq!(error.reference(), Some(&reference("vm:v1")));
        self.assert_unpublished(&store).await;
        let again = store.push(&pushing()).await.unwrap_err();
        assert_eq!(doing(&again), doing(&error));
        self.sky.storms.clear();
        self.assert_unpublished(&store).await;
        store.push(&pushing().verify(true)).await.unwrap();
        assert_eq!(state(&store).await, SnapshotState::Published);
        assert_sound(&store).await;
        self.clears(&self.node().await).await;
        Said::of(&error)
    }

    /// It is here and whole, and nobody else can find it.
    async fn assert_unpublished(&self, store: &Snapshotter) {
        assert_eq!(state(store).await, SnapshotState::Unpublished);
        assert_eq!(self.sky.layouts.manifest(REPOSITORY, "v1"), None);
        assert_no_rest(&self.here);
        assert_sound(store).await;
    }
}

/// What was being done, without the place, which for an upload is a new one each time.
fn doing(error: &Error) -> String {
    let text = error.to_string();
    text.split(" (").next().unwrap().to_owned()
}

async fn state(store: &Snapshotter) -> SnapshotState {
    let list = store.list().await.unwrap();
    assert_eq!(list.len(), 1);
    list[0].state
}

/// Nothing is being stored or thrown away.
fn assert_no_rest(place: &Place) {
    for part in ["staging", "trash"] {
        let left = files_below(&place.root().join(part));
        assert!(left.is_empty(), "{part} still has {left:?}");
    }
}

/// The reply for requests of this method and these paths.
fn when(
    method: &'static str,
    part: &'static str,
    reply: Reply,
) -> impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static {
    move |asked| (asked.method == method && asked.path().contains(part)).then(|| reply.clone())
}

#[tokio::test]
async fn a_registry_that_cannot_be_asked_for_the_version_keeps_a_snapshot_from_being_taken() {
    let scene = Scene::new();
    let store = scene.publisher().await;
    for (reply, kind) in [
        (Reply::HangUp, ErrorKind::Unavailable),
        (Reply::status(401), ErrorKind::PermissionDenied),
        (Reply::status(500), ErrorKind::Unavailable),
    ] {
        scene.sky.storms.set(at("/manifests/", reply));
        let error = store.snapshot(&taking(&scene.source)).await.unwrap_err();
        Said::of(&error).is(
            kind,
            &["cannot read the manifest snapshots/vm:v1", &scene.sky.url()],
        );
        assert!(store.list().await.unwrap().is_empty());
        scene.here.assert_empty();
        // It can be taken for later.
        store
            .snapshot(&taking(&scene.source).local(true))
            .await
            .unwrap();
        let error = store.push(&pushing()).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        scene.assert_unpublished(&store).await;
        store.remove(&reference("vm:v1")).await.unwrap();
    }
    scene.sky.storms.clear();
    store.snapshot(&taking(&scene.source)).await.unwrap();
    assert_eq!(state(&store).await, SnapshotState::Published);
}

#[tokio::test]
async fn a_registry_that_refuses_what_is_pushed_leaves_the_snapshot_unpublished() {
    for (method, part, doing) in [
        (
            "POST",
            "/blobs/uploads/",
            "cannot begin an upload to snapshots/vm",
        ),
        (
            "PUT",
            "/blobs/uploads/",
            "cannot push the blob snapshots/vm@sha256:",
        ),
        (
            "PUT",
            "/manifests/",
            "cannot push the manifest snapshots/vm:v1",
        ),
    ] {
        for (reply, kind) in [
            (Reply::status(401), ErrorKind::PermissionDenied),
            (Reply::status(403), ErrorKind::PermissionDenied),
            (Reply::status(413), ErrorKind::Unsupported),
            (Reply::status(429), ErrorKind::Unavailable),
            (Reply::status(500), ErrorKind::Unavailable),
            (Reply::HangUp, ErrorKind::Unavailable),
        ] {
            let scene = Scene::new();
            let said = scene.publish_in(when(method, part, reply)).await;
            said.is(kind, &[doing, &scene.sky.url()]);
            assert!(said.hint.is_some(), "{said:?}");
        }
    }
}

#[tokio::test]
async fn a_registry_that_refuses_contents_leaves_the_snapshot_unpublished() {
    for (method, kind) in [("POST", 403), ("PATCH", 500), ("PUT", 500)] {
        let mut scene = Scene::new();
        scene.content = Content::new(ContentProvider::Registry);
        let said = scene
            .publish_in(when(method, "/blobs/uploads/", Reply::status(kind)))
            .await;
        let kind = match kind {
            403 => ErrorKind::PermissionDenied,
            _ => ErrorKind::Unavailable,
        };
        said.is(kind, &["snapshots/vm", &scene.sky.url()]);
    }
}

#[tokio::test]
async fn of_two_that_push_one_version_at_once_one_is_told_so() {
    let scene = Scene::new();
    let store = scene.publisher().await;
    let document = honest().to_string();
    let other = manifest_of(document.as_bytes()).to_string().into_bytes();
    let theirs = sha256(&other);
    let pushed = AtomicBool::new(false);
    scene.sky.storms.set(move |asked: &Asked| {
        let put = asked.method == "PUT" && asked.path() == MANIFEST;
        let after = pushed.fetch_or(put, Ordering::SeqCst);
        (after && asked.path() == MANIFEST).then(|| Reply::ok(other.clone()))
    });
    let error = store.snapshot(&taking(&scene.source)).await.unwrap_err();
    let said = Said::of(&error);
    said.is(
        ErrorKind::AlreadyExists,
        &["the snapshot vm:v1 already exists in", &theirs],
    );
    said.hints("choose another version");
    assert_eq!(state(&store).await, SnapshotState::Unpublished);
}

#[tokio::test]
async fn a_bucket_that_refuses_contents_leaves_the_snapshot_unpublished() {
    let denied =
        "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>no</Message></Error>";
    for (act, kind, text) in [
        (
            Act::Answer("404 Not Found", "", NO_BUCKET.into()),
            ErrorKind::NotFound,
            "there is no bucket checkpoints",
        ),
        (
            Act::Answer("403 Forbidden", "", denied.into()),
            ErrorKind::PermissionDenied,
            "in s3://checkpoints",
        ),
        (
            Act::Answer("503 Slow Down", "", Vec::new()),
            ErrorKind::Unavailable,
            "in s3://checkpoints",
        ),
        (Act::Close, ErrorKind::Unavailable, "in s3://checkpoints"),
    ] {
        let bucket = Bucket::new();
        let mut scene = Scene::new();
        scene.content = bucket.content();
        let store = scene.publisher().await;
        // A HEAD's 404 means that the object is not there, whatever the reason.
        bucket
            .storms
            .set(move |asked| (asked.method == "PUT").then(|| act.clone()));
        let error = store.snapshot(&taking(&scene.source)).await.unwrap_err();
        let said = Said::of(&error);
        said.is(kind, &[text]);
        assert!(said.hint.is_some(), "{said:?}");
        scene.assert_unpublished(&store).await;
        assert_eq!(bucket.contents(), Vec::<String>::new());
        bucket.storms.clear();
        let pushed = store.push(&pushing()).await.unwrap();
        assert_eq!(pushed.publication.sent_blobs, 3);
        scene.clears(&scene.node().await).await;
    }
}

/// What is answered by somebody who is no registry and no bucket, always with 200.
const PAGE: &str = "<html><body>please log in</body></html>";

/// A proxy's page to log in, answered with 200 in the registry's place, was taken for success: "published", and nobody
/// could restore it. What the answer does not prove is looked for.
#[tokio::test]
async fn a_registry_that_takes_blobs_and_does_not_have_them_leaves_the_snapshot_unpublished() {
    let published = async |content: Option<Content>| {
        let mut scene = Scene::new();
        scene.content = content.unwrap_or(scene.content);
        let said = scene
            .publish_in(when("PUT", "/blobs/uploads/", Reply::ok(PAGE)))
            .await;
        said.is(
            ErrorKind::Unavailable,
            &[
                "cannot push the blob snapshots/vm@sha256:",
                &scene.sky.url(),
                "the registry took it and does not have it",
            ],
        );
    };
    // Each waits, and tries again.
    let registry = Content::new(ContentProvider::Registry);
    tokio::join!(published(None), published(Some(registry)));
}

/// A bucket's server that answered the completion of an upload, or a PUT, with 200 and a page was believed: "published",
/// and the bytes were nowhere. Objects are looked at after they were sent.
#[tokio::test]
async fn a_bucket_that_takes_contents_and_does_not_have_them_leaves_the_snapshot_unpublished() {
    let (bucket, mut scene) = (Bucket::new(), Scene::new());
    scene.content = bucket.content();
    let large = Bytes::Random {
        seed: 9,
        len: 9 << 20,
    };
    scene.source = scene
        .here
        .write("large", &Tree::new().file("memory", large));
    let store = scene.publisher().await;
    let request = SnapshotRequest::new("vm", "v1", &scene.source);
    store.snapshot(&request.local(true)).await.unwrap();
    for page in [PAGE, "", "<Nothing></Nothing>"] {
        bucket.storms.set(move |asked| {
            let completes = asked.method == "POST" && asked.target.contains("uploadId=");
            completes.then(|| Act::Answer("200 OK", "", page.into()))
        });
        let error = store.push(&pushing()).await.unwrap_err();
        let said = Said::of(&error);
        said.is(ErrorKind::Unavailable, &["xxh3:", "s3://checkpoints"])
            .hints("on the way");
        scene.assert_unpublished(&store).await;
        assert_eq!(bucket.contents(), Vec::<String>::new());
    }
    bucket.storms.clear();
    let pushed = store.push(&pushing().verify(true)).await.unwrap();
    assert_eq!(pushed.publication.sent_blobs, 1);
    assert_eq!(state(&store).await, SnapshotState::Published);
}

// ---- a full disk ----

#[tokio::test]
async fn a_disk_without_room_is_said_before_anything_is_fetched() {
    let Some(mount) = or_skip(TmpfsMount::new(8 << 20)) else {
        return;
    };
    let scene = scene_with(16 << 20).await;
    let (other, root) = on(&mount, &scene, |store| store).await;
    let error = other.pull(&pulling()).await.unwrap_err();
    let said = Said::of(&error);
    said.is(
        ErrorKind::NoSpace,
        &["17 MiB are needed and", "are free on the filesystem of"],
    );
    said.hints("remove snapshots");
    assert_nothing_at(&other, &root).await;
    // The manifest and the document, but no layer.
    assert_eq!(scene.sky.asked("/blobs/").len(), 1);
}

#[tokio::test]
async fn a_disk_that_fills_up_while_fetching_leaves_nothing_and_says_so() {
    let Some(mount) = or_skip(TmpfsMount::new(32 << 20)) else {
        return;
    };
    let scene = scene_with(8 << 20).await;
    let filler = mount.path().join("filler");
    let full = filler.clone();
    let observer = OnProgress::new(move |number| {
        if number == 0 {
            fill(&full);
        }
    });
    let (other, root) = on(&mount, &scene, |store| store.observed_by(observer)).await;
    let error = other.pull(&pulling()).await.unwrap_err();
    Said::of(&error).is(ErrorKind::NoSpace, &["cannot write", "staging"]);
    fs::remove_file(filler).unwrap();
    assert_nothing_at(&other, &root).await;
    let (again, _) = (other.pull(&pulling()).await.unwrap(), root);
    assert_eq!(again.fetched_blobs, 1);
    assert_sound(&other).await;
}

/// A snapshot of one file of so many bytes, in layers.
async fn scene_with(bytes: u64) -> Scene {
    let mut scene = Scene::new();
    scene.source = scene.here.write(
        "one",
        &Tree::new().file(
            "memory",
            Bytes::Random {
                seed: 9,
                len: bytes,
            },
        ),
    );
    scene.publish(Content::new(ContentProvider::Registry)).await
}

/// A node with its root on a filesystem.
async fn on(
    mount: &TmpfsMount,
    scene: &Scene,
    with: impl FnOnce(Snapshotter) -> Snapshotter,
) -> (Snapshotter, PathBuf) {
    let root = mount.path().join("root");
    let config = Config::new(&root).registry(scene.sky.registry());
    (with(Snapshotter::open(config).await.unwrap()), root)
}

async fn assert_nothing_at(store: &Snapshotter, root: &Path) {
    assert!(store.list().await.unwrap().is_empty());
    for part in ["storage", "staging", "trash"] {
        let left = files_below(&root.join(part));
        assert!(left.is_empty(), "{part} still has {left:?}");
    }
}

/// Writes until nothing more goes in.
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = fs::File::create(path).unwrap();
    let mut piece = vec![1_u8; 1 << 20];
    while !piece.is_empty() {
        if file.write_all(&piece).is_err() {
            piece.truncate(piece.len() / 2);
        }
    }
}

// ---- calls that are given up ----

/// Something that is held back until a test lets it go.
#[derive(Clone, Default)]
struct Held(Arc<(Mutex<bool>, std::sync::Condvar)>);

impl Held {
    fn wait(&self) {
        let released = self.0.0.lock().unwrap();
        drop(
            self.0
                .1
                .wait_while(released, |released| !*released)
                .unwrap(),
        );
    }

    fn release(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

/// Waits for what will happen, and fails where it does not.
async fn until(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "it does not happen"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Runs a call until something has happened, then gives it up.
async fn give_up_when<T: fmt::Debug>(call: impl Future<Output = T>, what: impl Fn() -> bool) {
    tokio::select! {
        biased;
        result = call => panic!("it was to be held back: {result:?}"),
        () = until(what) => {}
    }
}

impl Scene {
    /// Holds the only layer back.
    fn hold_layer(&self) -> (Held, String) {
        let held = Held::default();
        let layer = self.manifest()["layers"][0].clone();
        let digest = layer["digest"].as_str().unwrap().to_owned();
        let (waiting, part) = (held.clone(), digest.clone());
        self.sky.storms.set(move |asked: &Asked| {
            if asked.path().contains(&part) {
                waiting.wait();
            }
            None
        });
        (held, digest)
    }
}

#[tokio::test]
async fn a_fetch_that_another_call_waits_for_goes_on_when_its_own_is_given_up() {
    let log = Log::installed();
    let scene = scene_with(100_000).await;
    let (held, layer) = scene.hold_layer();
    let digest = scene.manifest()["layers"][0]["annotations"]["io.d7y.snapshotter.digest"]
        .as_str()
        .unwrap()
        .to_owned();
    let other = scene.node().await;
    let outputs = [scene.there.fresh(), scene.there.fresh()];
    let [first, second] = outputs
        .clone()
        .map(|output| RestoreRequest::new(reference("vm:v1"), output));
    let leader = Box::pin(other.restore(&first));
    let follower = tokio::spawn({
        let (other, sky) = (other.clone(), scene.sky.asked("").len());
        assert_eq!(sky, 0);
        let asked = scene.sky.asker();
        let layer = layer.clone();
        async move {
            until(|| asked(&layer) == 1).await;
            other.restore(&second).await
        }
    });
    let follows = || log.says(&["waiting for another call that fetches it", &digest]);
    give_up_when(leader, follows).await;
    held.release();
    follower.await.unwrap().unwrap();
    assert_same(&scene.source, &outputs[1]);
    assert!(!outputs[0].exists());
    assert_eq!(scene.sky.asked(&layer).len(), 1);
    assert_sound(&other).await;
}

/// A leader that failed waited for those who followed it, and they for the leader's permits. The next one tries for itself.
#[tokio::test]
async fn a_fetch_that_another_call_waits_for_is_tried_again_by_that_one_when_it_fails() {
    let log = Log::installed();
    let scene = scene_with(100_000).await;
    let held = Held::default();
    let layer = scene.manifest()["layers"][0].clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let blob = text(&layer["digest"]);
    let digest = text(&layer["annotations"]["io.d7y.snapshotter.digest"]);
    let (waiting, part) = (held.clone(), blob.clone());
    let is_first = AtomicBool::new(true);
    scene.sky.storms.set(move |asked: &Asked| {
        if !asked.path().contains(&part) || !is_first.swap(false, Ordering::SeqCst) {
            return None;
        }
        waiting.wait();
        Some(Reply::status(404))
    });
    let other = scene.node().await;
    let restore = |output: &Path| {
        let request = RestoreRequest::new(reference("vm:v1"), output);
        let other = other.clone();
        tokio::spawn(async move { other.restore(&request).await })
    };
    let outputs = [scene.there.fresh(), scene.there.fresh()];
    let leader = restore(&outputs[0]);
    let asked = scene.sky.asker();
    until(|| asked(&blob) == 1).await;
    let follower = restore(&outputs[1]);
    until(|| log.says(&["waiting for another call that fetches it", &digest])).await;
    held.release();
    leader.await.unwrap().unwrap_err();
    follower.await.unwrap().unwrap();
    assert_same(&scene.source, &outputs[1]);
    assert!(!outputs[0].exists());
    assert_eq!(scene.sky.asked(&blob).len(), 2);
    assert_sound(&other).await;
}

#[tokio::test]
async fn a_pull_that_is_given_up_leaves_nothing() {
    let scene = scene_with(100_000).await;
    let (held, layer) = scene.hold_layer();
    let observer: Arc<Recorder> = Arc::default();
    let watch = Arc::downgrade(&observer);
    let other = scene.node().await;
    let observed = other.observed_by(observer);
    give_up_when(observed.pull(&pulling()), || {
        scene.sky.asked(&layer).len() == 1
    })
    .await;
    drop(observed);
    // The call ends though the server still says nothing.
    gone(watch).await;
    scene.assert_nothing(&other).await;
    held.release();
    scene.sky.storms.clear();
    other.pull(&pulling()).await.unwrap();
    assert_sound(&other).await;
}

#[tokio::test]
async fn a_snapshot_that_is_given_up_before_it_is_taken_leaves_nothing() {
    let scene = Scene::new();
    scene.sky.storms.set(at("/manifests/", Reply::Silence));
    let observer: Arc<Recorder> = Arc::default();
    let watch = Arc::downgrade(&observer);
    let store = scene.publisher().await;
    let observed = store.observed_by(observer);
    give_up_when(observed.snapshot(&taking(&scene.source)), || {
        scene.sky.asked("/manifests/").len() == 1
    })
    .await;
    drop(observed);
    gone(watch).await;
    assert!(store.list().await.unwrap().is_empty());
    scene.here.assert_empty();
    scene.sky.storms.clear();
    store.snapshot(&taking(&scene.source)).await.unwrap();
    assert_eq!(state(&store).await, SnapshotState::Published);
}

#[tokio::test]
async fn a_publication_that_is_given_up_stops_sending_and_keeps_the_snapshot() {
    // One that is in memory when it is sent, and one that is not even taken.
    for bytes in [100_000, 12 << 20] {
        let bucket = Bucket::new();
        let mut scene = Scene::new();
        scene.source = scene.here.write(
            "one",
            &Tree::new().file(
                "memory",
                Bytes::Random {
                    seed: 9,
                    len: bytes,
                },
            ),
        );
        scene.content = bucket.content();
        scene.content.timeout = Duration::from_secs(3600);
        bucket
            .storms
            .set(|asked| (asked.method != "HEAD").then_some(Act::Stall));
        let observer: Arc<Recorder> = Arc::default();
        let watch = Arc::downgrade(&observer);
        let store = scene.publisher().await;
        let observed = store.observed_by(observer);
        let asked = || {
            bucket
                .proxy
                .asked()
                .iter()
                .any(|asked| asked.method != "HEAD")
        };
        give_up_when(observed.snapshot(&taking(&scene.source)), asked).await;
        drop(observed);
        gone(watch).await;
        assert!(bucket.proxy.wait_for_leaving(1), "it is still sent");
        scene.assert_unpublished(&store).await;
        bucket.storms.clear();
        store.push(&pushing()).await.unwrap();
        assert_eq!(bucket.contents().len(), 1);
        assert_eq!(bucket.s3.unfinished_uploads(), 0);
    }
}

// ---- secrets ----

const PASSWORD: &str = "hunter2-of-the-registry";
const TOKEN: &str = "SESSIONTOKEN0123456789abcdefgh";

/// Everything that anybody in this process logs, however quietly.
struct Log(Mutex<String>);

static LOG: Log = Log(Mutex::new(String::new()));

impl Log {
    fn installed() -> &'static Self {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            tracing::subscriber::set_global_default(&LOG).unwrap();
            log::set_logger(&LOG).unwrap();
            log::set_max_level(log::LevelFilter::Trace);
        });
        &LOG
    }

    fn line(&self, line: &fmt::Arguments<'_>) {
        let mut all = self.0.lock().unwrap();
        all.push_str(&line.to_string());
        all.push('\n');
    }

    /// Whether one line has all of these.
    fn says(&self, parts: &[&str]) -> bool {
        let all = self.0.lock().unwrap();
        all.lines()
            .any(|line| parts.iter().all(|part| line.contains(part)))
    }
}

/// The S3 server of these tests is in this process too, and may log what it gets.
fn is_of_others(target: &str) -> bool {
    target.starts_with("s3s")
}

/// The fields of an event or span as one line.
#[derive(Default)]
struct Fields(String);

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        self.0 += &format!("{field}={value:?} ");
    }
}

impl tracing::Subscriber for &'static Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        !is_of_others(metadata.target())
    }

    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        let mut fields = Fields::default();
        span.record(&mut fields);
        self.line(&format_args!("{} {}", span.metadata().name(), fields.0));
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        let mut fields = Fields::default();
        values.record(&mut fields);
        self.line(&format_args!("{}", fields.0));
    }

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.line(&format_args!("{} {}", event.metadata().target(), fields.0));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        !is_of_others(metadata.target())
    }

    fn log(&self, record: &log::Record<'_>) {
        if log::Log::enabled(self, record.metadata()) {
            self.line(&format_args!("{} {}", record.target(), record.args()));
        }
    }

    fn flush(&self) {}
}

#[track_caller]
fn assert_no_secret(text: &str) {
    use base64::Engine as _;
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("robot:{PASSWORD}"));
    for secret in [PASSWORD, TOKEN, SECRET_KEY, &basic] {
        let found = text.lines().find(|line| line.contains(secret));
        assert_eq!(found, None, "{secret} is shown");
    }
}

/// All that can be printed of an error.
fn all_of(error: &Error) -> String {
    let Said { text, hint, .. } = Said::of(error);
    format!("{text}\n{hint:?}\n{error:?}\n{error:#?}")
}

/// The registry wants the password, and everything is done once.
async fn everything(scene: &Scene) -> Vec<Error> {
    let registry = scene.sky.registry().credentials("robot", PASSWORD);
    let config = Config::new(scene.here.root())
        .registry(registry.clone())
        .content(scene.content.clone());
    assert_no_secret(&format!("{config:?}\n{config:#?}"));
    let store = Snapshotter::open(config).await.unwrap();
    let other = scene.node_with(registry, scene.content.clone()).await;
    assert_no_secret(&format!("{store:?}\n{store:#?}"));
    let output = scene.there.fresh();
    let restore = RestoreRequest::new(reference("vm:v1"), &output);
    let vm = reference("vm:v1");
    [
        store.snapshot(&taking(&scene.source)).await.map(drop),
        store
            .push(&pushing().verify(true).force(true))
            .await
            .map(drop),
        other.inspect_remote(&vm).await.map(drop),
        other.list_remote(Some("vm")).await.map(drop),
        other.pull(&pulling()).await.map(drop),
        other.restore(&restore).await.map(drop),
        other.remove_remote(&vm).await.map(drop),
        other.diagnose_remote().await.map(|diagnosis| {
            assert_no_secret(&format!("{diagnosis:?}"));
        }),
    ]
    .into_iter()
    .filter_map(Result::err)
    .collect()
}

/// Lets in who knows the password.
fn guarded(asked: &Asked) -> Option<Reply> {
    let login = Reply::status(401).with("WWW-Authenticate", "Basic realm=\"x\"");
    asked.header("authorization").is_none().then_some(login)
}

#[tokio::test]
async fn secrets_are_in_no_error_no_debug_and_no_log() {
    let log = Log::installed();
    for weather in ["fair", "registry", "bucket"] {
        let bucket = Bucket::new();
        let mut scene = Scene::new();
        scene.content = bucket.content();
        scene.content.session_token = Some(TOKEN.to_owned());
        scene.sky.storms.set(guarded);
        match weather {
            // Servers that send back what they got.
            "registry" => scene.sky.storms.set(|asked| {
                guarded(asked).or_else(|| {
                    let body = format!(
                        "{{\"errors\":[{{\"code\":\"NO\",\"message\":{:?}}}]}}",
                        asked.path()
                    );
                    Some(Reply::Full(403, Vec::new(), body.into_bytes()))
                })
            }),
            "bucket" => bucket.storms.set(|asked| {
                let echo = format!("{SECRET_KEY}\n{}", asked.head);
                Some(Act::Answer("403 Forbidden", "", echo.into_bytes()))
            }),
            _ => {}
        }
        let errors = everything(&scene).await;
        for error in &errors {
            assert_no_secret(&all_of(error));
        }
        // This registry deletes nothing, and lists no tags of a name that it does not have.
        match weather {
            "fair" => assert_eq!(errors.len(), 2, "{errors:?}"),
            _ => assert!(errors.len() >= 4, "{weather}: {errors:?}"),
        }
        assert!(
            bucket
                .proxy
                .asked()
                .iter()
                .all(|asked| asked.head.contains(TOKEN))
        );
    }
    assert!(log.says(&["vm:v1"]), "nothing was logged");
    let all = log.0.lock().unwrap().clone();
    assert_no_secret(&all);
}

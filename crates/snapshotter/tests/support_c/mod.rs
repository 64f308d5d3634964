//! What tests of remotes share: a directory of image layouts and of objects, written and read by hand, and a registry
//! before it whose weather a test makes.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use snapshotter::{Content, ContentProvider, Error, ErrorKind, Registry};
use testkit::s3::{ACCESS_KEY, S3, SECRET_KEY};
use testkit::weather::{Asked, Reply, Weather};

pub const NAMESPACE: &str = "snapshots";
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const ARTIFACT_TYPE: &str = "application/vnd.cncf.dragonfly.snapshotter.manifest.v1+json";
pub const CONFIG_TYPE: &str = "application/vnd.cncf.dragonfly.snapshotter.config.v1+json";
pub const CONTENT_TYPE: &str = "application/vnd.cncf.dragonfly.snapshotter.content.v1.spf";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// `sha256:` and hex.
pub fn sha256(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// `xxh3:` and hex.
pub fn xxh3(bytes: &[u8]) -> String {
    format!("xxh3:{:x}", twox_hash::XxHash3_64::oneshot(bytes))
}

/// `blake3:` and hex.
pub fn blake3(bytes: &[u8]) -> String {
    format!("blake3:{}", blake3::hash(bytes).to_hex())
}

/// The manifest of a document without content layers.
pub fn manifest_of(document: &[u8]) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "digest": sha256(document), "size": document.len()},
        "layers": null,
    })
}

/// The packed stream of a file that is all data.
pub fn packed(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_be_bytes();
    let parts: [&[u8]; 6] = [
        b"SPF1",
        &length,
        &1_u64.to_be_bytes(),
        &0_u64.to_be_bytes(),
        &length,
        bytes,
    ];
    parts.concat()
}

/// What a packed stream is the stream of: size and pieces, read in the simplest way that refuses everything wrong.
pub fn unpacked(stream: &[u8]) -> Vec<u8> {
    let number = |at: usize| {
        let bytes: [u8; 8] = stream[at..at + 8].try_into().unwrap();
        usize::try_from(u64::from_be_bytes(bytes)).unwrap()
    };
    assert_eq!(&stream[..4], b"SPF1");
    let (mut file, count, mut at, mut end) = (vec![0; number(4)], number(12), 20, 0);
    for _ in 0..count {
        let (offset, length) = (number(at), number(at + 8));
        assert!(offset >= end && length > 0, "extents ascend");
        at += 16;
        file[offset..offset + length].copy_from_slice(&stream[at..at + length]);
        at += length;
        end = offset + length;
    }
    assert_eq!(at, stream.len(), "nothing follows");
    file
}

/// A directory of OCI image layouts.
#[derive(Clone, Debug)]
pub struct Layouts(pub PathBuf);

impl Layouts {
    pub fn registry(&self) -> Registry {
        Registry::new(format!("oci-layout:{}", self.0.display()), NAMESPACE)
    }

    /// The layout of a repository, namespace included.
    pub fn layout(&self, repository: &str) -> PathBuf {
        self.0.join(repository)
    }

    fn blob_path(&self, repository: &str, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").expect("a SHA-256");
        self.layout(repository).join("blobs/sha256").join(hex)
    }

    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        let path = self.blob_path(repository, &digest);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        digest
    }

    /// Puts a manifest under a tag, in place of what had it.
    pub fn put_manifest(&self, repository: &str, tag: &str, manifest: &[u8]) -> String {
        let digest = self.put_blob(repository, manifest);
        let mut entries = self.index(repository);
        entries.retain(|entry| entry["annotations"][REF_NAME] != tag);
        entries.push(json!({
            "mediaType": MANIFEST_TYPE,
            "digest": digest,
            "size": manifest.len(),
            "annotations": {REF_NAME: tag},
        }));
        let index = json!({"schemaVersion": 2, "manifests": entries});
        let layout = self.layout(repository);
        fs::write(layout.join("index.json"), index.to_string()).unwrap();
        let version = r#"{"imageLayoutVersion":"1.0.0"}"#;
        fs::write(layout.join("oci-layout"), version).unwrap();
        digest
    }

    fn index(&self, repository: &str) -> Vec<Value> {
        let Ok(bytes) = fs::read(self.layout(repository).join("index.json")) else {
            return Vec::new();
        };
        let index: Value = serde_json::from_slice(&bytes).unwrap();
        index["manifests"].as_array().unwrap().clone()
    }

    pub fn blob(&self, repository: &str, digest: &str) -> Option<Vec<u8>> {
        fs::read(self.blob_path(repository, digest)).ok()
    }

    /// By tag or digest.
    pub fn manifest(&self, repository: &str, which: &str) -> Option<Vec<u8>> {
        if which.starts_with("sha256:") {
            return self.blob(repository, which);
        }
        let index = self.index(repository);
        let entry = index
            .iter()
            .find(|entry| entry["annotations"][REF_NAME] == which)?;
        self.blob(repository, entry["digest"].as_str().unwrap())
    }
}

type Storm<Q, A> = Arc<dyn Fn(&Q) -> Option<A> + Send + Sync>;

/// What becomes of requests, as long as it does not clear.
pub struct Storms<Q, A>(Arc<Mutex<Option<Storm<Q, A>>>>);

impl<Q, A> Clone for Storms<Q, A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<Q, A> Storms<Q, A> {
    pub fn none() -> Self {
        Self(Arc::new(Mutex::new(None)))
    }

    pub fn set(&self, storm: impl Fn(&Q) -> Option<A> + Send + Sync + 'static) {
        *self.0.lock().unwrap() = Some(Arc::new(storm));
    }

    pub fn clear(&self) {
        *self.0.lock().unwrap() = None;
    }

    pub fn of(&self, asked: &Q) -> Option<A> {
        let storm = self.0.lock().unwrap().clone();
        storm.and_then(|storm| storm(asked))
    }
}

/// A registry over image layouts that does what a test says first.
pub struct Sky {
    server: Weather,
    counts: Arc<Mutex<Vec<String>>>,
    pub layouts: Layouts,
    pub storms: Storms<Asked, Reply>,
}

impl Sky {
    pub fn over(layouts: Layouts) -> Self {
        let storms = Storms::none();
        let (shared, shown, uploads) = (storms.clone(), layouts.clone(), Uploads::default());
        let counts: Arc<Mutex<Vec<String>>> = Arc::default();
        let counted = Arc::clone(&counts);
        let server = Weather::new(move |asked, number| {
            counted.lock().unwrap().push(asked.path().to_owned());
            let storm = shared.of(asked);
            storm.unwrap_or_else(|| answer(&shown, &uploads, asked, number))
        });
        Self {
            server,
            counts,
            layouts,
            storms,
        }
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    /// How to reach it; nothing is tried twice.
    pub fn registry(&self) -> Registry {
        Registry::new(self.url(), NAMESPACE).retries(0)
    }

    /// Counts the requests whose path has a part, for who outlives a borrow of this.
    pub fn asker(&self) -> impl Fn(&str) -> usize + Send + Sync + 'static {
        let counts = Arc::clone(&self.counts);
        move |part| {
            let paths = counts.lock().unwrap();
            paths.iter().filter(|path| path.contains(part)).count()
        }
    }

    /// The requests whose path has this part.
    pub fn asked(&self, part: &str) -> Vec<Asked> {
        let mut asked = self.server.asked();
        asked.retain(|asked| asked.path().contains(part));
        asked
    }
}

#[derive(Default)]
struct Uploads(Mutex<HashMap<String, Vec<u8>>>);

impl Uploads {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<u8>>> {
        self.0.lock().unwrap()
    }
}

fn answer(layouts: &Layouts, uploads: &Uploads, asked: &Asked, number: usize) -> Reply {
    let path = asked.path().strip_prefix("/v2/").unwrap_or_default();
    if let Some((repository, which)) = path.split_once("/manifests/") {
        return match &*asked.method {
            "PUT" => {
                let digest = layouts.put_manifest(repository, which, &asked.body);
                Reply::status(201).with("Docker-Content-Digest", digest)
            }
            "DELETE" => Reply::status(405),
            _ => found(layouts.manifest(repository, which)),
        };
    }
    let Some((repository, rest)) = path.split_once("/blobs/") else {
        return Reply::status(404);
    };
    let session = format!("/v2/{repository}/blobs/uploads/{number}");
    match &*asked.method {
        "POST" => Reply::status(202).with("Location", session),
        "PATCH" => {
            let body = asked.body.clone();
            uploads.lock().insert(asked.path().to_owned(), body);
            Reply::status(202).with("Location", asked.path())
        }
        "PUT" => {
            let streamed = uploads.lock().remove(asked.path());
            let body = streamed.unwrap_or_else(|| asked.body.clone());
            let digest = layouts.put_blob(repository, &body);
            Reply::status(201).with("Docker-Content-Digest", digest)
        }
        "DELETE" => Reply::status(204),
        _ => found(layouts.blob(repository, rest)),
    }
}

fn found(bytes: Option<Vec<u8>>) -> Reply {
    bytes.map_or_else(|| Reply::status(404), Reply::ok)
}

/// Objects in a directory.
pub fn directory(root: &Path) -> Content {
    fs::create_dir_all(root).unwrap();
    let mut content = Content::new(ContentProvider::Fs);
    content.root = root.to_owned();
    content
}

/// Objects in a bucket, reached at `endpoint`; nothing is tried twice.
pub fn bucket(s3: &S3, endpoint: String) -> Content {
    let mut content = Content::new(ContentProvider::S3);
    content.bucket = Some(s3.bucket().to_owned());
    content.endpoint = Some(endpoint);
    content.access_key_id = Some(ACCESS_KEY.to_owned());
    content.access_key_secret = Some(SECRET_KEY.to_owned());
    content.retries = 0;
    content
}

/// An error as people read it.
#[derive(Debug)]
pub struct Said {
    pub kind: ErrorKind,
    /// Texts of it and its causes.
    pub text: String,
    pub hint: Option<String>,
}

impl Said {
    pub fn of(error: &Error) -> Self {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            text += &format!(": {inner}");
            cause = inner.source();
        }
        Self {
            kind: error.kind(),
            text,
            hint: error.hint().map(str::to_owned),
        }
    }

    /// It is of this kind, and says all of this.
    #[track_caller]
    pub fn is(&self, kind: ErrorKind, parts: &[&str]) -> &Self {
        assert_eq!(self.kind, kind, "{self:?}");
        for part in parts {
            assert!(self.text.contains(part), "{part} is not in {self:?}");
        }
        self
    }

    /// It says what to do.
    #[track_caller]
    pub fn hints(&self, part: &str) {
        let hint = self.hint.as_deref().unwrap_or_default();
        assert!(hint.contains(part), "{part} is not hinted at in {self:?}");
    }
}

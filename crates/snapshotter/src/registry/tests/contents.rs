//! A registry as a transport of contents: the suite of transports, against an image layout and a server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tempfile::TempDir;
use testkit::registry::{Kind, RegistryServer, or_skip};

use super::places::layout_config;
use super::*;
use crate::transport::ContentTransport;
use crate::transport::tests::suite::{Stand, content_suite};
use crate::words::object::{Object, ObjectName};

/// A registry whose files can be looked at.
struct Shelf {
    registry: Arc<dyn MetadataRegistry>,
    /// Where blobs are, each with its digest as its name or as that of its directory.
    blobs: PathBuf,
    /// What was opened, and what was put there: which blob is which object is known to them alone.
    opened: Mutex<Vec<Arc<RegistryContent>>>,
    put: Mutex<Layers>,
    _keep: Box<dyn std::any::Any + Send + Sync>,
}

impl Shelf {
    fn new(config: &Registry, blobs: PathBuf, keep: impl std::any::Any + Send + Sync) -> Self {
        Self {
            registry: opened(config),
            blobs,
            opened: Mutex::default(),
            put: Mutex::default(),
            _keep: Box::new(keep),
        }
    }

    /// What each blob is that has a name, those that were replaced left out.
    fn names(&self) -> BTreeMap<String, ObjectName> {
        let mut layers = self.put.lock().unwrap().clone();
        for opened in &*self.opened.lock().unwrap() {
            layers.extend(opened.layers.lock().unwrap().clone());
        }
        let named = layers.iter();
        named
            .map(|(name, layer)| (layer.sha256.hex(), *name))
            .collect()
    }
}

fn layout() -> Shelf {
    let dir = TempDir::new().unwrap();
    let blobs = dir.path().join(repository().as_str()).join("blobs/sha256");
    Shelf::new(&layout_config(dir.path()), blobs, dir)
}

fn server() -> Option<Shelf> {
    let server = or_skip(RegistryServer::start(Kind::default()))?;
    let blobs = server.data().join("docker/registry/v2/blobs/sha256");
    Some(Shelf::new(
        &Registry::new(server.url(), "ns"),
        blobs,
        server,
    ))
}

/// The names of all files, or of the directories that have them where they are all called `data`.
fn files(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        match &*name(&path) {
            _ if path.is_dir() => names.extend(files(&path)),
            "data" => names.push(name(dir)),
            other => names.push(other.to_owned()),
        }
    }
    names
}

impl Stand for Shelf {
    fn open(&self) -> Arc<dyn ContentTransport> {
        let layers = self.put.lock().unwrap().clone();
        let content = Arc::new(RegistryContent::new(&self.registry, &repository(), layers));
        self.opened.lock().unwrap().push(Arc::clone(&content));
        content
    }

    /// Those that are open learn of it, as from a manifest.
    fn put(&self, object: Object, bytes: &[u8]) {
        let (sha256, size) = (Sha256::of(bytes), bytes.len() as u64);
        let layer = StoredLayer { sha256, size };
        self.put.lock().unwrap().insert(object.name, layer);
        for opened in &*self.opened.lock().unwrap() {
            opened.layers.lock().unwrap().insert(object.name, layer);
        }
        let (registry, bytes) = (Arc::clone(&self.registry), Bytes::copy_from_slice(bytes));
        let push = async move { registry.push_blob(&repository(), sha256, bytes).await };
        let runtime = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| runtime.block_on(push)).unwrap();
    }

    /// A blob that has no name is shown as it is: nobody should have stored it. What was put there and replaced stays.
    fn keys(&self) -> Vec<String> {
        let names = self.names();
        let was_put = |hex: &String| names.contains_key(hex) || !self.was_replaced(hex);
        let blobs = files(&self.blobs).into_iter();
        let blobs = blobs.filter(|name| !name.starts_with('.')).filter(was_put);
        let mut keys: Vec<_> = blobs
            .map(|hex| names.get(&hex).map_or(hex, |name| name.key()))
            .collect();
        keys.sort();
        keys
    }

    /// An upload that was cut off is a server's to purge.
    fn litter(&self) -> usize {
        let blobs = files(&self.blobs).into_iter();
        blobs.filter(|name| name.starts_with('.')).count()
    }
}

impl Shelf {
    fn was_replaced(&self, hex: &str) -> bool {
        let put = self.put.lock().unwrap();
        put.values().any(|layer| layer.sha256.hex() == hex)
    }
}

mod in_layouts {
    use super::*;

    content_suite!(layout());
}

mod in_servers {
    use super::*;

    content_suite!(match server() {
        Some(server) => server,
        None => return,
    });
}

/// A layer that is longer than the file can be is refused before it is asked for, and so is one that the manifest has not.
#[tokio::test]
async fn a_layer_is_held_to_what_the_manifest_says() {
    let weather = Weather::new(|_, _| Reply::ok("123456789"));
    let object = crate::transport::tests::suite::stream(crate::Digest::from_u64(1), 8);
    let (sha256, size) = (Sha256::of(b"123456789"), 9);
    let layers = Layers::from([(object.name, StoredLayer { sha256, size })]);
    for (layers, kind) in [
        (layers, crate::ErrorKind::Damaged),
        (Layers::new(), crate::ErrorKind::NotFound),
    ] {
        let content = RegistryContent::new(&under(&weather), &repository(), layers);
        let (sink, _pieces) = mpsc::channel(1);
        let error = content.fetch(object, None, sink).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(
            error
                .to_string()
                .contains("xxh3:1 in the registry's ns/vm/one"),
            "{error}"
        );
    }
    assert!(weather.asked().is_empty());
}

//! Two nodes with something between them, and a machine whose checkpoints travel.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use snapshotter::{
    Content, ContentProvider, Format, Registry, RestoreRequest, SnapshotReport, SnapshotRequest,
    Snapshotter,
};
use testkit::Tree;
use testkit::compare::{Holes, Options, assert_same_with};
use testkit::registry::{Kind, RegistryServer, or_skip};
use testkit::s3::S3;

use crate::support_a::*;

pub const PAGE: u64 = 4096;

/// What two nodes share.
pub struct Between {
    pub place: Place,
    pub registry: Registry,
    pub content: Content,
    pub servers: (Option<RegistryServer>, Option<S3>),
}

impl Between {
    pub fn directories() -> Self {
        let place = Place::new();
        let layouts = format!("oci-layout:{}", place.path("layouts").display());
        let mut content = Content::new(ContentProvider::Fs);
        content.root = place.path("objects");
        fs::create_dir_all(&content.root).unwrap();
        Self {
            registry: Registry::new(layouts, "snapshots"),
            content,
            place,
            servers: (None, None),
        }
    }

    pub fn layout_alone() -> Self {
        let content = Content::new(ContentProvider::Registry);
        Self {
            content,
            ..Self::directories()
        }
    }

    pub fn registry_alone() -> Option<Self> {
        let kind = Kind {
            delete: true,
            ..Kind::default()
        };
        let server = or_skip(RegistryServer::start(kind))?;
        Some(Self {
            place: Place::new(),
            registry: Registry::new(server.url(), "snapshots"),
            content: Content::new(ContentProvider::Registry),
            servers: (Some(server), None),
        })
    }

    pub fn registry_and_bucket() -> Option<Self> {
        let server = or_skip(RegistryServer::start(Kind::default()))?;
        let s3 = S3::start("checkpoints");
        let content = in_bucket(&s3, s3.endpoint());
        Some(Self {
            place: Place::new(),
            registry: Registry::new(server.url(), "snapshots"),
            content,
            servers: (Some(server), Some(s3)),
        })
    }

    pub fn all() -> impl Iterator<Item = Self> {
        let here = [Some(Self::directories()), Some(Self::layout_alone())];
        let servers = [Self::registry_alone(), Self::registry_and_bucket()];
        here.into_iter().chain(servers).flatten()
    }

    pub async fn node(&self, place: &Place) -> Snapshotter {
        place
            .open_with(|config| {
                config
                    .registry(self.registry.clone())
                    .content(self.content.clone())
            })
            .await
    }

    /// The packs of a directory.
    pub fn packs(&self) -> Vec<PathBuf> {
        let packs = self.content.root.join("packs");
        let mut found: Vec<_> = files_in(&packs);
        found.sort();
        found
    }
}

/// A machine's files, of which the memory changes.
pub struct Machine {
    pub dir: PathBuf,
    pub seed: u64,
}

impl Machine {
    pub fn new(place: &Place) -> Self {
        let tree = Tree::new()
            .file("memory", random(1, 200 * PAGE))
            .file("disk", random(2, 50 * PAGE + 7))
            .file("state.json", "{}")
            .symlink("latest", "state.json")
            .hardlink("state-too.json", "state.json");
        Self {
            dir: place.write("machine", &tree),
            seed: 10,
        }
    }

    pub fn works(&mut self, pages: &[u64]) {
        self.seed += 1;
        let memory = fs::OpenOptions::new()
            .write(true)
            .open(self.dir.join("memory"))
            .unwrap();
        for page in pages {
            let text = format!("{} {page};", self.seed).repeat(PAGE as usize);
            memory
                .write_all_at(&text.as_bytes()[..PAGE as usize], page * PAGE)
                .unwrap();
        }
    }

    pub fn request(&self, version: &str) -> SnapshotRequest {
        SnapshotRequest::new("vm", version, &self.dir).format(Format::V2)
    }
}

pub async fn take(store: &Snapshotter, machine: &Machine, version: &str) -> SnapshotReport {
    store.snapshot(&machine.request(version)).await.unwrap()
}

pub fn assert_is(machine: &Machine, output: &Path) {
    let options = Options {
        holes: Holes::NoMoreDataThan,
        ..Options::default()
    };
    assert_same_with(&machine.dir, output, &options);
}

pub fn vm(version: &str) -> snapshotter::Reference {
    reference(&format!("vm:{version}"))
}

pub async fn restore(
    store: &Snapshotter,
    version: &str,
    output: &Path,
) -> snapshotter::RestoreReport {
    let request = RestoreRequest::new(vm(version), output);
    store.restore(&request).await.unwrap()
}

pub fn pack_files(place: &Place) -> Vec<PathBuf> {
    let is_pack = |path: &PathBuf| path.extension().is_some_and(|end| end == "pack");
    let content = place.content();
    let all = files_below(&content).into_iter();
    all.map(|path| content.join(path)).filter(is_pack).collect()
}

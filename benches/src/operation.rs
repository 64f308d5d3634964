//! One operation of the library as a process: open a root, do it, close, say what it took.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};
use snapshotter::{
    CollectRequest, Compression, Config, Content, ContentProvider, Dragonfly, Durability, File,
    Format, ParentChoice, Placements, PruneRequest, PruneRule, PullRequest, PushRequest, Registry,
    RestoreRequest, Retention, SnapshotRequest, Snapshotter,
};

use crate::Result;

/// What a measured child does. It travels as JSON in one argument.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Operation {
    /// The store.
    pub(crate) root: PathBuf,
    /// The snapshot's version.
    pub(crate) version: String,
    /// What is done.
    pub(crate) action: Action,
    /// What this node shares with others.
    pub(crate) between: Option<Between>,
}

/// What nodes share.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Between {
    /// The registry's address.
    pub(crate) registry: String,
    /// Where contents are.
    pub(crate) place: Place,
}

/// Where contents are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Place {
    /// In a directory.
    Directory(PathBuf),
    /// In a bucket.
    S3 {
        /// The server's URL.
        endpoint: String,
        /// The bucket.
        bucket: String,
        /// The key's id.
        key: String,
        /// The key.
        secret: String,
        /// The daemon on the way there, if there is one.
        daemon: Option<String>,
    },
}

impl Between {
    /// With a directory as the registry.
    pub(crate) fn layouts(layouts: &Path, place: Place) -> Self {
        Self {
            registry: format!("oci-layout:{}", layouts.display()),
            place,
        }
    }

    fn registry(&self) -> Registry {
        Registry::new(&self.registry, "bench")
    }

    fn content(&self) -> Content {
        match &self.place {
            Place::Directory(root) => {
                let mut content = Content::new(ContentProvider::Fs);
                content.root = root.clone();
                content
            }
            Place::S3 {
                endpoint,
                bucket,
                key,
                secret,
                ..
            } => {
                let mut content = Content::new(ContentProvider::S3);
                content.endpoint = Some(endpoint.clone());
                content.bucket = Some(bucket.clone());
                content.access_key_id = Some(key.clone());
                content.access_key_secret = Some(secret.clone());
                content
            }
        }
    }
}

/// Which files of format v2 a restore keeps, and uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cached {
    None,
    Clones,
    /// Where the filesystem does not clone, too.
    Copies,
}

/// What is done with a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Action {
    /// Take it.
    Snapshot {
        /// The directory to take.
        source: PathBuf,
        /// Whether its files are promised not to change.
        read_only: bool,
        /// Whether to wait until it is on the disk.
        durable: bool,
        /// In format v2: how.
        paged: Option<Paged>,
    },
    /// Restore it into this directory.
    Restore {
        /// The directory.
        output: PathBuf,
        /// Which files are kept and used.
        cached: Cached,
    },
    /// Remove it from the store.
    Remove,
    /// Publish it.
    Push,
    /// Fetch it into the store.
    Pull,
    /// Take many, and publish them where something is shared.
    Fill(Many),
    /// Of each name, remove all but so many.
    Prune {
        /// How many of each name stay.
        keep: u64,
    },
    /// Remove what nothing needs from the place of contents.
    Collect,
}

/// Many snapshots of small files that no other one has.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Many {
    /// Names.
    pub(crate) names: u64,
    /// Versions of each.
    pub(crate) versions: u64,
    /// Files of each version.
    pub(crate) files: u64,
}

/// How pages are taken.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Paged {
    /// Not compressed.
    pub(crate) plain: bool,
    /// The version to compare with, where it is not where the directory came from.
    pub(crate) parent: Option<String>,
}

/// What a child says of itself when it is done.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Bytes it asked the kernel to read, from any file.
    pub(crate) read: u64,
    /// Bytes it asked the kernel to write, to any file.
    pub(crate) written: u64,
    /// Bytes that had to come from the disk.
    pub(crate) fetched: u64,
    /// Peak of its resident memory, in bytes.
    pub(crate) peak: u64,
    /// Files that were hardlinked.
    pub(crate) hardlinked: u64,
    /// Files that were copied.
    pub(crate) copied: u64,
    /// Files that were there already.
    pub(crate) present: u64,
    /// Packs that a snapshot of format v2 names.
    #[serde(default)]
    pub(crate) packs: u64,
    /// Snapshots that were removed for being old.
    #[serde(default)]
    pub(crate) pruned: u64,
    /// Manifests that a collection read.
    #[serde(default)]
    pub(crate) manifests: u64,
    /// Objects that it found.
    #[serde(default)]
    pub(crate) objects: u64,
}

const NAME: &str = "bench";

impl Operation {
    /// Takes a snapshot.
    pub(crate) fn snapshot(root: &Path, version: &str, source: &Path) -> Self {
        Self {
            root: root.into(),
            version: version.into(),
            action: Action::Snapshot {
                source: source.into(),
                read_only: false,
                durable: true,
                paged: None,
            },
            between: None,
        }
    }

    /// Does what is of no single snapshot.
    pub(crate) fn of_all(root: &Path, action: Action) -> Self {
        Self {
            root: root.into(),
            version: String::new(),
            action,
            between: None,
        }
    }

    /// The same on a node that shares something with others.
    pub(crate) fn between(mut self, between: &Between) -> Self {
        self.between = Some(between.clone());
        self
    }

    /// Publishes a snapshot.
    pub(crate) fn push(root: &Path, version: &str) -> Self {
        Self {
            root: root.into(),
            version: version.into(),
            action: Action::Push,
            between: None,
        }
    }

    /// Fetches a snapshot.
    pub(crate) fn pull(root: &Path, version: &str) -> Self {
        Self {
            root: root.into(),
            version: version.into(),
            action: Action::Pull,
            between: None,
        }
    }

    /// The same of files that are promised not to change; for a snapshot.
    pub(crate) fn read_only(mut self, value: bool) -> Self {
        if let Action::Snapshot { read_only, .. } = &mut self.action {
            *read_only = value;
        }
        self
    }

    /// The same, returning before all is on the disk; for a snapshot.
    pub(crate) fn background(mut self) -> Self {
        if let Action::Snapshot { durable, .. } = &mut self.action {
            *durable = false;
        }
        self
    }

    /// The same in format v2, compressed or `plain`; for a snapshot.
    pub(crate) fn paged(mut self, plain: bool) -> Self {
        if let Action::Snapshot { paged, .. } = &mut self.action {
            let parent = None;
            *paged = Some(Paged { plain, parent });
        }
        self
    }

    /// The same against this version; for one of format v2.
    pub(crate) fn parent(mut self, version: &str) -> Self {
        if let Action::Snapshot {
            paged: Some(paged), ..
        } = &mut self.action
        {
            paged.parent = Some(version.to_owned());
        }
        self
    }

    /// Removes a snapshot.
    pub(crate) fn remove(root: &Path, version: &str) -> Self {
        Self {
            root: root.into(),
            version: version.into(),
            action: Action::Remove,
            between: None,
        }
    }

    /// Restores a snapshot.
    pub(crate) fn restore(root: &Path, version: &str, output: &Path) -> Self {
        Self {
            root: root.into(),
            version: version.into(),
            action: Action::Restore {
                output: output.into(),
                cached: Cached::Clones,
            },
            between: None,
        }
    }

    /// The same from packs and blobs alone.
    pub(crate) fn without_cache(mut self) -> Self {
        if let Action::Restore { cached, .. } = &mut self.action {
            *cached = Cached::None;
        }
        self
    }

    /// The same, keeping copies where the filesystem does not clone.
    pub(crate) fn copying(mut self) -> Self {
        if let Action::Restore { cached, .. } = &mut self.action {
            *cached = Cached::Copies;
        }
        self
    }

    /// The reverse of what [`Operation::command`] passes on.
    pub(crate) fn parse(argument: &str) -> Result<Self> {
        Ok(serde_json::from_str(argument)?)
    }

    /// The command that does it.
    pub(crate) fn command(&self) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("operation").arg(serde_json::to_string(self)?);
        Ok(command)
    }

    /// Does it, and prints the [`Outcome`].
    pub(crate) fn run(&self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let mut outcome = runtime.block_on(self.perform())?;
        drop(runtime);
        outcome.look()?;
        crate::print(&serde_json::to_string(&outcome)?);
        Ok(())
    }

    fn reference(&self) -> snapshotter::Reference {
        let reference = format!("{NAME}:{}", self.version).parse();
        reference.expect("versions here are plain words")
    }

    async fn perform(&self) -> snapshotter::Result<Outcome> {
        let durability = match self.action {
            Action::Snapshot { durable: false, .. } | Action::Fill(_) => Durability::Background,
            _ => Durability::Full,
        };
        let mut config = Config::new(&self.root).durability(durability);
        match self.action {
            Action::Restore {
                cached: Cached::None,
                ..
            } => config.cache.max_bytes = Some(0),
            Action::Restore { cached, .. } => config.cache.copies = cached == Cached::Copies,
            _ => {}
        }
        if let Some(between) = &self.between {
            config = config
                .registry(between.registry())
                .content(between.content());
            if let Place::S3 {
                daemon: Some(daemon),
                ..
            } = &between.place
            {
                config = config.dragonfly(Dragonfly::new(daemon));
            }
        }
        if matches!(self.action, Action::Collect) {
            let request = CollectRequest::new().no_other_publishers(true);
            let report = Snapshotter::collect_remote(&config, &request).await?;
            return Ok(Outcome {
                manifests: report.manifests,
                objects: report.objects,
                ..Outcome::default()
            });
        }
        let snapshotter = Snapshotter::open(config).await?;
        let outcome = self.call(&snapshotter).await?;
        snapshotter.close().await?;
        Ok(outcome)
    }

    async fn call(&self, snapshotter: &Snapshotter) -> snapshotter::Result<Outcome> {
        match &self.action {
            Action::Snapshot {
                source,
                read_only,
                paged,
                ..
            } => {
                let files = File::new(".").read_only(*read_only);
                let mut request = SnapshotRequest::new(NAME, &self.version, source).file(files);
                if let Some(paged) = paged {
                    request = paged.apply(request);
                }
                let report = snapshotter.snapshot(&request).await?;
                Ok(Outcome {
                    packs: report.paged.map_or(0, |paged| paged.packs),
                    ..Outcome::of(&report.placements)
                })
            }
            Action::Push => {
                snapshotter
                    .push(&PushRequest::new(self.reference()))
                    .await?;
                Ok(Outcome::default())
            }
            Action::Pull => {
                snapshotter
                    .pull(&PullRequest::new(self.reference()))
                    .await?;
                Ok(Outcome::default())
            }
            Action::Remove => {
                snapshotter.remove(&self.reference()).await?;
                Ok(Outcome::default())
            }
            Action::Fill(many) => {
                many.take(snapshotter, &self.root.with_extension("source"))
                    .await?;
                Ok(Outcome::default())
            }
            Action::Prune { keep } => {
                let mut retention = Retention::default();
                retention.last = *keep;
                let rule = PruneRule::new(["*"], retention).include_unpublished(true);
                let report = snapshotter.prune(&PruneRequest::new([rule])).await?;
                Ok(Outcome {
                    pruned: report.removed.len() as u64,
                    ..Outcome::default()
                })
            }
            Action::Collect => unreachable!("is done without a store"),
            Action::Restore { output, .. } => {
                let request = RestoreRequest::new(self.reference(), output);
                let report = snapshotter.restore(&request).await?;
                Ok(Outcome::of(&report.placements))
            }
        }
    }
}

impl Many {
    async fn take(self, snapshotter: &Snapshotter, source: &Path) -> snapshotter::Result<()> {
        fs::create_dir_all(source).expect("the work directory is written to");
        for number in 0..self.names * self.versions {
            for file in 0..self.files {
                let path = source.join(format!("f{file}"));
                fs::write(path, format!("{number} {file}")).expect("the source is written to");
            }
            let name = format!("{NAME}/{}", number % self.names);
            let version = format!("v{}", number / self.names);
            let request = SnapshotRequest::new(name, version, source).file(File::new("."));
            snapshotter.snapshot(&request).await?;
        }
        Ok(())
    }
}

impl Paged {
    fn apply(&self, request: SnapshotRequest) -> SnapshotRequest {
        let request = request.format(Format::V2);
        let request = match &self.parent {
            Some(parent) => {
                let parent = format!("{NAME}:{parent}").parse();
                let parent = parent.expect("versions here are plain words");
                request.parent(ParentChoice::Snapshot(parent))
            }
            None => request,
        };
        if self.plain {
            request.compression(Compression::None)
        } else {
            request
        }
    }
}

impl Outcome {
    fn of(placements: &Placements) -> Self {
        Self {
            hardlinked: placements.hardlink.files,
            copied: placements.copy.files,
            present: placements.present.files,
            ..Self::default()
        }
    }

    /// Adds what the kernel knows of this process.
    fn look(&mut self) -> Result<()> {
        let io = fs::read_to_string("/proc/self/io")?;
        self.read = number(&io, "rchar:")?;
        self.written = number(&io, "wchar:")?;
        self.fetched = number(&io, "read_bytes:")?;
        self.peak = number(&fs::read_to_string("/proc/self/status")?, "VmHWM:")? * 1024;
        Ok(())
    }
}

/// The number on the line that starts with `name`.
pub(crate) fn number(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|line| line.split_whitespace().next());
    Ok(word.ok_or_else(|| format!("no {name} in /proc"))?.parse()?)
}

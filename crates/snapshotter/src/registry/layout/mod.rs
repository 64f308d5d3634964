//! A directory as a registry: one OCI image layout a repository, at `<directory>/<namespace>/<name>`.
//!
//! Blobs are written under a name of their own, synced and renamed, so a blob that is there is whole. `index.json`
//! names the manifests; it is replaced in the same way, by whoever holds the lock beside it, so that of several
//! processes none loses another's entry. Directories are 0700 and files 0600, as memory dumps hold
//! secrets, unless they are shared with others.

mod blobs;
mod dir;
mod index;
mod streams;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use self::dir::{Home, RepositoryDir};
use super::config::Registry;
use super::{MetadataRegistry, Pending, Pulled, Repository, Tag, TagOrDigest};
use crate::threads;
use crate::transport::{Presence, Source};
use crate::words::digest::Sha256;
use crate::words::error::Result;

/// A directory of image layouts. Its work is done on blocking threads.
#[derive(Debug)]
pub(super) struct Layout {
    home: Arc<Home>,
}

impl Layout {
    pub(super) fn new(path: PathBuf, config: &Registry) -> Self {
        Self {
            home: Arc::new(Home {
                path,
                namespace: config.namespace.clone(),
                shared_with: config.shared_with,
                patience: config.timeout,
            }),
        }
    }

    /// Runs `work` where a repository is; `absent` is what is said of one that is not there.
    fn read<T: Send + 'static>(
        &self,
        repository: &Repository,
        absent: impl FnOnce() -> Result<T> + Send + 'static,
        work: impl FnOnce(&RepositoryDir) -> Result<T> + Send + 'static,
    ) -> Pending<T> {
        let (home, repository) = (Arc::clone(&self.home), repository.clone());
        blocking(move || match home.open(&repository)? {
            Some(dir) => work(&dir),
            None => absent(),
        })
    }

    /// Runs `work` where a repository is, made if it is not there.
    fn write<T: Send + 'static>(
        &self,
        repository: &Repository,
        work: impl FnOnce(RepositoryDir, Duration) -> Result<T> + Send + 'static,
    ) -> Pending<T> {
        let (home, repository) = (Arc::clone(&self.home), repository.clone());
        blocking(move || work(home.create(&repository)?, home.patience))
    }
}

fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Pending<T> {
    Box::pin(threads::run(work))
}

impl MetadataRegistry for Layout {
    fn manifest(&self, repository: &Repository, which: &TagOrDigest) -> Pending<Option<Pulled>> {
        let which = which.clone();
        self.read(repository, || Ok(None), move |dir| dir.manifest(&which))
    }

    fn blob(&self, repository: &Repository, sha256: Sha256, size: u64) -> Pending<Vec<u8>> {
        let missing = self.home.missing(repository, sha256);
        let read = move |dir: &RepositoryDir| dir.blob(sha256, size);
        self.read(repository, || Err(missing), read)
    }

    fn has_blob(&self, repository: &Repository, sha256: Sha256, _size: u64) -> Pending<Presence> {
        let absent = || Ok(Presence::Absent);
        self.read(repository, absent, move |dir| {
            dir.has_blob(sha256).map(Presence::from)
        })
    }

    /// A directory that is not mounted has no repositories.
    fn check_sight(&self, repository: &Repository) -> Pending<()> {
        let out_of_sight = self.home.out_of_sight(repository);
        self.read(repository, || Err(out_of_sight), |dir| dir.require_marked())
    }

    fn push_blob(&self, repository: &Repository, sha256: Sha256, bytes: Bytes) -> Pending<()> {
        self.write(repository, move |dir, _| dir.push_blob(sha256, &bytes))
    }

    fn push_manifest(
        &self,
        repository: &Repository,
        which: &TagOrDigest,
        bytes: Bytes,
    ) -> Pending<Sha256> {
        let which = which.clone();
        self.write(repository, move |dir, patience| {
            dir.push_manifest(&which, &bytes, patience)
        })
    }

    fn tags(&self, repository: &Repository) -> Pending<Vec<Tag>> {
        self.read(repository, || Ok(Vec::new()), RepositoryDir::tags)
    }

    fn repositories(&self) -> Pending<Vec<String>> {
        let home = Arc::clone(&self.home);
        blocking(move || home.repositories())
    }

    fn writable(&self) -> Pending<()> {
        let home = Arc::clone(&self.home);
        blocking(move || home.writable())
    }

    fn delete_manifest(&self, repository: &Repository, digest: Sha256) -> Pending<bool> {
        let patience = self.home.patience;
        self.read(
            repository,
            || Ok(false),
            move |dir| dir.delete_manifest(digest, patience),
        )
    }

    fn push_stream(&self, repository: &Repository, source: Source) -> Pending<Sha256> {
        let size = source.size();
        let draft = self.write(repository, move |dir, _| dir.begin_blob(size));
        Box::pin(async move {
            let (mut draft, mut pieces) = (draft.await?, source.begin().await?);
            while pieces.left() > 0 {
                let bytes = pieces.next(u64::MAX).await?;
                draft = threads::run(move || draft.append(&bytes)).await?;
            }
            pieces.finish().await?;
            threads::run(move || draft.publish()).await
        })
    }

    fn pull_stream(
        &self,
        repository: &Repository,
        sha256: Sha256,
        size: u64,
        range: Option<Range<u64>>,
        sink: mpsc::Sender<Bytes>,
    ) -> Pending<()> {
        let missing = self.home.missing(repository, sha256);
        self.read(
            repository,
            || Err(missing),
            move |dir| dir.pull_stream(sha256, size, range, &sink),
        )
    }
}

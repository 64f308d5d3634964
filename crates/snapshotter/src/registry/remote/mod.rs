//! A registry that speaks the OCI distribution protocol.

mod answer;
mod auth;
mod blobs;
mod body;
mod challenge;
mod download;
mod http;
mod lag;
mod lists;
mod manifests;
mod mount;
mod presence;
mod token;
mod upload;

pub(super) use self::download::within;
pub(super) use self::manifests::checked;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use reqwest::{Method, Url};
use tokio::sync::mpsc;

use self::http::{Http, Request};
use super::config::Registry;
use super::{MetadataRegistry, Pending, Pulled, Repository, Tag, TagOrDigest, Tuning};
use crate::transport::{Presence, Source};
use crate::words::digest::Sha256;
use crate::words::error::{Error, ErrorKind, Result};

/// A client of one registry; connections and tokens are shared by all calls.
#[derive(Debug)]
pub(super) struct Remote {
    http: Http,
    namespace: String,
}

impl Remote {
    pub(super) fn new(config: &Registry, origin: Url, tuning: Tuning) -> Result<Self> {
        Ok(Self {
            http: Http::new(config, origin, tuning)?,
            namespace: config.namespace.clone(),
        })
    }

    /// A request in a repository. `path` begins after its name; `actions` are what a token has to allow.
    fn request(
        &self,
        method: Method,
        repository: &Repository,
        path: &str,
        actions: &str,
        doing: String,
    ) -> Result<Request> {
        let url = self.url(&format!("v2/{repository}/{path}"))?;
        let scope = scope(repository, actions);
        Ok(Request::new(method, url, scope, doing))
    }

    fn url(&self, path: &str) -> Result<Url> {
        self.http.origin.join(path).map_err(|error| {
            Error::new(ErrorKind::Internal, "a path that makes no URL").with_source(error)
        })
    }
}

const PULL: &str = "pull";
const PUSH: &str = "pull,push";
const DELETE: &str = "delete";

fn scope(repository: &Repository, actions: &str) -> String {
    format!("repository:{repository}:{actions}")
}

/// The same for calls that outlive what they were made with.
#[derive(Debug)]
pub(super) struct Shared(Arc<Remote>);

impl Shared {
    pub(super) fn new(config: &Registry, origin: Url, tuning: Tuning) -> Result<Self> {
        Ok(Self(Arc::new(Remote::new(config, origin, tuning)?)))
    }

    fn remote(&self) -> Arc<Remote> {
        Arc::clone(&self.0)
    }
}

impl MetadataRegistry for Shared {
    fn manifest(&self, repository: &Repository, which: &TagOrDigest) -> Pending<Option<Pulled>> {
        Box::pin(
            self.remote()
                .get_manifest(repository.clone(), which.clone()),
        )
    }

    fn blob(&self, repository: &Repository, sha256: Sha256, size: u64) -> Pending<Vec<u8>> {
        Box::pin(self.remote().get_blob(repository.clone(), sha256, size))
    }

    fn has_blob(&self, repository: &Repository, sha256: Sha256, size: u64) -> Pending<Presence> {
        Box::pin(self.remote().find_blob(repository.clone(), sha256, size))
    }

    fn mount(
        &self,
        repository: &Repository,
        from: &Repository,
        sha256: Sha256,
        size: u64,
    ) -> Pending<bool> {
        let (repository, from) = (repository.clone(), from.clone());
        Box::pin(self.remote().mount_blob(repository, from, sha256, size))
    }

    fn push_blob(&self, repository: &Repository, sha256: Sha256, bytes: Bytes) -> Pending<()> {
        Box::pin(self.remote().put_blob(repository.clone(), sha256, bytes))
    }

    fn push_manifest(
        &self,
        repository: &Repository,
        which: &TagOrDigest,
        bytes: Bytes,
    ) -> Pending<Sha256> {
        Box::pin(
            self.remote()
                .put_manifest(repository.clone(), which.clone(), bytes),
        )
    }

    fn settle_manifest(
        &self,
        repository: &Repository,
        which: &TagOrDigest,
        manifest: Bytes,
        before: Option<Sha256>,
    ) -> Pending<Option<Sha256>> {
        let (repository, which) = (repository.clone(), which.clone());
        Box::pin(
            self.remote()
                .settle_manifest(repository, which, manifest, before),
        )
    }

    fn tags(&self, repository: &Repository) -> Pending<Vec<Tag>> {
        Box::pin(self.remote().list_tags(repository.clone()))
    }

    fn repositories(&self) -> Pending<Vec<String>> {
        Box::pin(self.remote().list_repositories())
    }

    fn delete_manifest(&self, repository: &Repository, digest: Sha256) -> Pending<bool> {
        Box::pin(self.remote().remove_manifest(repository.clone(), digest))
    }

    fn push_stream(&self, repository: &Repository, source: Source) -> Pending<Sha256> {
        Box::pin(self.remote().upload(repository.clone(), source))
    }

    fn pull_stream(
        &self,
        repository: &Repository,
        sha256: Sha256,
        size: u64,
        range: Option<Range<u64>>,
        sink: mpsc::Sender<Bytes>,
    ) -> Pending<()> {
        Box::pin(
            self.remote()
                .download(repository.clone(), sha256, size, range, sink),
        )
    }
}

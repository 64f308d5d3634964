//! A registry that speaks the OCI distribution protocol.

mod answer;
mod auth;
mod blobs;
mod body;
mod challenge;
mod download;
mod http;
mod lists;
mod manifests;
mod token;
mod upload;

pub(super) use self::download::within;
pub(super) use self::manifests::checked;

use std::ops::Range;

use bytes::Bytes;
use reqwest::{Method, Url};
use tokio::sync::mpsc;

use self::http::{Http, Request};
use super::config::Registry;
use super::{MetadataRegistry, Pending, Pulled, Repository, Tag, TagOrDigest, Tuning};
use crate::transport::Source;
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

impl MetadataRegistry for Remote {
    fn manifest<'a>(
        &'a self,
        repository: &'a Repository,
        which: &'a TagOrDigest,
    ) -> Pending<'a, Option<Pulled>> {
        Box::pin(self.get_manifest(repository, which))
    }

    fn blob<'a>(
        &'a self,
        repository: &'a Repository,
        sha256: Sha256,
        size: u64,
    ) -> Pending<'a, Vec<u8>> {
        Box::pin(self.get_blob(repository, sha256, size))
    }

    fn has_blob<'a>(
        &'a self,
        repository: &'a Repository,
        sha256: Sha256,
    ) -> Pending<'a, Option<u64>> {
        Box::pin(self.head_blob(repository, sha256))
    }

    fn push_blob<'a>(
        &'a self,
        repository: &'a Repository,
        sha256: Sha256,
        bytes: Bytes,
    ) -> Pending<'a, ()> {
        Box::pin(self.put_blob(repository, sha256, bytes))
    }

    fn push_manifest<'a>(
        &'a self,
        repository: &'a Repository,
        which: &'a TagOrDigest,
        bytes: Bytes,
    ) -> Pending<'a, Sha256> {
        Box::pin(self.put_manifest(repository, which, bytes))
    }

    fn tags<'a>(&'a self, repository: &'a Repository) -> Pending<'a, Vec<Tag>> {
        Box::pin(self.list_tags(repository))
    }

    fn repositories(&self) -> Pending<'_, Vec<String>> {
        Box::pin(self.list_repositories())
    }

    fn delete_manifest<'a>(
        &'a self,
        repository: &'a Repository,
        digest: Sha256,
    ) -> Pending<'a, bool> {
        Box::pin(self.remove_manifest(repository, digest))
    }

    fn push_stream<'a>(
        &'a self,
        repository: &'a Repository,
        source: Source,
    ) -> Pending<'a, Sha256> {
        Box::pin(self.upload(repository, source))
    }

    fn pull_stream<'a>(
        &'a self,
        repository: &'a Repository,
        sha256: Sha256,
        size: u64,
        range: Option<Range<u64>>,
        sink: mpsc::Sender<Bytes>,
    ) -> Pending<'a, ()> {
        Box::pin(self.download(repository, sha256, size, range, sink))
    }
}

//! Registries: where snapshots' manifests and documents live, and, without another content store, their bytes too.
//!
//! [`MetadataRegistry`] is the contract. [`remote`] speaks the OCI distribution protocol, [`layout`] keeps one OCI
//! image layout a repository in a directory; `tests/suite.rs` holds both to it. On either, [`RegistryContent`] is a
//! transport of contents, held to that contract. Whatever comes back is untrusted:
//! it is bounded while it is read and checked against its digest before anybody sees it, and `urls` are never followed.

mod config;
mod content;
mod credentials;
mod endpoint;
mod layout;
mod name;
mod remote;
mod secret;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

pub use config::Registry;
pub(crate) use content::{Layers, RegistryContent, StoredLayer};
#[cfg(feature = "fuzzing")]
pub(crate) use credentials::docker_config_without_helpers;
pub(crate) use endpoint::Endpoint;
pub(crate) use name::{Repository, Tag, TagOrDigest};

use crate::pace::Pace;
use crate::patience;
use crate::transport::{Presence, Source};
use crate::words::digest::Sha256;
use crate::words::error::Result;

/// How many names a list may have, of repositories, of tags, or of both.
pub(crate) const MAX_NAMES: usize = 1_000_000;

/// A call that is under way. It borrows nothing.
pub(crate) type Pending<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// A manifest as it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pulled {
    /// SHA-256 of `bytes`, computed here.
    pub(crate) digest: Sha256,
    /// The manifest, at most [`MAX_MANIFEST_BYTES`](crate::format::artifact::MAX_MANIFEST_BYTES). Nothing is known of
    /// it but that: it may be some other artifact's.
    pub(crate) bytes: Vec<u8>,
}

/// Manifests and blobs of repositories.
///
/// For every implementation:
///
/// - Calls may run at once, from several tasks and several processes.
/// - Dropping a call gives it up. What it was writing is then complete or not there.
/// - Pushing is idempotent: the same bytes again are success, and cheap where they are there already.
/// - A blob can be read as soon as pushing it returned, a manifest as soon as it has settled. Blobs come first: a registry may refuse a manifest whose
///   blobs it lacks.
/// - A repository that does not exist is one without manifests, tags and blobs.
///
/// Errors: `PermissionDenied` for 401, 403 and credentials that cannot be had; `NotFound` for a blob that is read and
/// not there; `Damaged` for bytes that are not what their digest or size says; `Unavailable` when the registry cannot
/// be reached or cannot serve now, after the configured retries; `Unsupported` for what this registry does not do.
pub(crate) trait MetadataRegistry: fmt::Debug + Send + Sync {
    /// The manifest, or nothing where there is none. One that is asked for by digest has that digest.
    fn manifest(&self, repository: &Repository, which: &TagOrDigest) -> Pending<Option<Pulled>>;

    /// A blob of exactly `size` bytes, in memory. No more than that is read.
    fn blob(&self, repository: &Repository, sha256: Sha256, size: u64) -> Pending<Vec<u8>>;

    /// Whether there is a blob that should have `size` bytes, and how many it has. No more than its last byte is looked at.
    fn has_blob(&self, repository: &Repository, sha256: Sha256, size: u64) -> Pending<Presence>;

    /// Whether a repository that lacks something has lost it: an error where all of it may only be out of sight.
    fn check_sight(&self, _repository: &Repository) -> Pending<()> {
        // Who answers has looked.
        Box::pin(std::future::ready(Ok(())))
    }

    /// Gives a repository a blob that another one of this registry has, without its bytes. `false`: the registry does not do
    /// that, or not for us, or the other has it not.
    fn mount(
        &self,
        _repository: &Repository,
        _from: &Repository,
        _sha256: Sha256,
        _size: u64,
    ) -> Pending<bool> {
        Box::pin(std::future::ready(Ok(false)))
    }

    /// Stores bytes that are in memory; they have to have this SHA-256.
    fn push_blob(&self, repository: &Repository, sha256: Sha256, bytes: Bytes) -> Pending<()>;

    /// Stores a manifest and returns its digest. A tag that is there moves; the manifest it leaves can still be read by
    /// digest. A digest has to be the manifest's.
    fn push_manifest(
        &self,
        repository: &Repository,
        which: &TagOrDigest,
        bytes: Bytes,
    ) -> Pending<Sha256>;

    /// What can be read under a name after `manifest` was pushed there, where `before` was: the reads of some registries lag
    /// behind their writes, so what was there before is an answer only after a while.
    fn settle_manifest(
        &self,
        repository: &Repository,
        which: &TagOrDigest,
        _manifest: Bytes,
        _before: Option<Sha256>,
    ) -> Pending<Option<Sha256>> {
        let found = self.manifest(repository, which);
        Box::pin(async move { Ok(found.await?.map(|found| found.digest)) })
    }

    /// A repository's tags, in byte order.
    fn tags(&self, repository: &Repository) -> Pending<Vec<Tag>>;

    /// The names below the namespace that have a repository, without the namespace, in byte order.
    fn repositories(&self) -> Pending<Vec<String>>;

    /// Deletes a manifest and its tags; says whether there was one. Its blobs stay.
    fn delete_manifest(&self, repository: &Repository, digest: Sha256) -> Pending<bool>;

    /// Whether something could be stored, as far as that can be told without storing anything: a server does not say.
    fn writable(&self) -> Pending<()> {
        Box::pin(async { Ok(()) })
    }

    /// Stores a stream as it comes, without holding it in memory, and returns its SHA-256.
    ///
    /// What the source fails with becomes this call's error, and nothing is stored; nor is a source that ends early. It is
    /// begun anew where a connection breaks: what the other side has by then is not sent again, if it can say how much
    /// that is.
    fn push_stream(&self, repository: &Repository, source: Source) -> Pending<Sha256>;

    /// Sends a blob of `size` bytes, or a range of it, to `sink` in order.
    ///
    /// **What was sent is unverified until this returns `Ok`**, and with a range it stays so: only whole blobs have a
    /// digest. Never more than was asked for is sent. A lost connection is resumed where it broke. A receiver that
    /// closes ends it with `Cancelled`.
    fn pull_stream(
        &self,
        repository: &Repository,
        sha256: Sha256,
        size: u64,
        range: Option<Range<u64>>,
        sink: mpsc::Sender<Bytes>,
    ) -> Pending<()>;
}

/// Checks the configuration and makes the registry that it names. Nothing is read or sent yet but `ca_file`.
pub(crate) fn open(config: &Registry) -> Result<Arc<dyn MetadataRegistry>> {
    open_with(config, Tuning::default())
}

fn open_with(config: &Registry, tuning: Tuning) -> Result<Arc<dyn MetadataRegistry>> {
    Ok(match config.validate()? {
        Endpoint::Remote(origin) => Arc::new(remote::Shared::new(config, origin, tuning)?),
        Endpoint::Layout(path) => Arc::new(layout::Layout::new(path, config)),
    })
}

/// What only tests change.
#[derive(Clone, Debug)]
struct Tuning {
    /// How long to wait between retries.
    pace: Pace,
    /// How long a slow registry is borne with.
    window: Duration,
    /// Where credential helpers are.
    helpers: credentials::Helpers,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            pace: Pace::default(),
            window: patience::WINDOW,
            helpers: credentials::Helpers::default(),
        }
    }
}

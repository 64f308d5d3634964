//! A snapshot's way to other nodes and back: publish (contents, document, manifest, in this order, so that a name that
//! resolves is complete) and fetch (the other way round, everything checked before it gets a name).
//!
//! Nothing here knows of files: it moves blobs and packs between the store and a registry with its content, and snapshots between
//! the catalog and the registry.

mod announce;
mod collect;
mod commit;
mod confirm;
mod contents;
mod copy;
mod download;
mod fetch;
mod flight;
mod mend;
mod packs;
mod places;
mod publish;
mod pull;
mod push;
mod remove;
mod resolve;
mod runtime;
mod send;
mod stage;
mod summary;
mod survey;
mod tag;
mod text;
mod visible;

use std::sync::Arc;

pub(crate) use collect::run as collect;
pub use collect::{CollectReport, CollectRequest};
pub(crate) use confirm::Asked;
pub(crate) use copy::run as copy;
pub use copy::{CopyReport, CopyRequest};
pub(crate) use fetch::{Context, Fetched, run as fetch};
pub(crate) use flight::Flights;
pub(crate) use mend::{repair, repair_description};
pub(crate) use pull::run as pull;
pub use pull::{PullReport, PullRequest};
pub(crate) use push::{AsV1, publish_new, run as push};
pub use push::{PushReport, PushRequest};
pub(crate) use remove::run as remove;
pub use summary::{RemoteSummaries, RemoteSummary};
pub use survey::{RemoteDetails, RemoteDiagnosis, RemoteSnapshot};
pub(crate) use tag::run as tag;

use crate::activity::Activity;
use crate::config::Config;
use crate::format::artifact::paged::AnyManifest;
use crate::rate::Rates;
use crate::registry::{self, MetadataRegistry, Pulled, Registry, Repository, TagOrDigest};
use crate::store::require_own;
use crate::transport::{self, Content, ContentProvider, Daemon, Way};
use crate::words::digest::Sha256;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::reference::Reference;
use runtime::{Wanted, wait};

/// A registry and the place of its snapshots' contents, opened: nothing has been sent yet.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    registry: Arc<dyn MetadataRegistry>,
    namespace: String,
    tenant: Option<String>,
    /// For reports and errors.
    endpoint: String,
    addresses: Addresses,
    content: Place,
    rates: Arc<Rates>,
}

/// Both halves, each in the one spelling by which its place is known.
#[derive(Clone, Debug)]
struct Addresses {
    registry: String,
    /// `None` where contents are in the registry, or nobody said where.
    content: Option<String>,
}

/// Where contents are published.
#[derive(Clone, Debug)]
enum Place {
    /// Nobody said: snapshots whose contents are in the registry can still be fetched.
    Unknown,
    /// As layers of the manifest.
    Registry,
    /// In a bucket or directory.
    Elsewhere(Way),
}

impl Remote {
    /// [`open`](Self::open) of a whole configuration.
    pub(crate) fn configured(
        config: &Config,
        daemon: Option<&Arc<Daemon>>,
    ) -> Result<Option<Self>> {
        Self::open(
            config.tenant.as_deref(),
            config.registry.as_ref(),
            config.content.as_ref(),
            daemon,
        )
    }

    /// Checks a configuration and opens what it describes; none where there is no registry.
    pub(crate) fn open(
        tenant: Option<&str>,
        registry: Option<&Registry>,
        content: Option<&Content>,
        daemon: Option<&Arc<Daemon>>,
    ) -> Result<Option<Self>> {
        let content = content.map(|content| content.of_tenant(tenant));
        let content = content.as_ref();
        let Some(config) = registry else {
            return match content {
                None => Ok(None),
                Some(_) => Err(Error::invalid(
                    "content needs a registry: snapshots are found through one",
                )
                .with_hint("set registry.endpoint; a directory will do: oci-layout:/path")),
            };
        };
        runtime::start()?;
        Ok(Some(Self {
            registry: registry::open(config)?,
            namespace: config.namespace.clone(),
            tenant: tenant.map(str::to_owned),
            endpoint: config.place(),
            addresses: Addresses {
                registry: config.validate()?.address(),
                content: content.and_then(Content::address),
            },
            content: match content {
                None => Place::Unknown,
                Some(content) if content.provider == ContentProvider::Registry => Place::Registry,
                Some(content) => Place::Elsewhere(transport::way(content, daemon)?),
            },
            rates: Arc::default(),
        }))
    }

    /// The same at these rates.
    pub(crate) fn at(self, rates: &Arc<Rates>) -> Self {
        let rates = Arc::clone(rates);
        Self { rates, ..self }
    }

    /// The same for one call, which hears what it should report.
    #[cfg_attr(
        not(feature = "dragonfly"),
        expect(unused_variables, reason = "only daemons are gone around")
    )]
    pub(crate) fn of_call(self, activity: &Activity) -> Self {
        #[cfg(feature = "dragonfly")]
        if let Place::Elsewhere(way) = self.content {
            let content = Place::Elsewhere(way.warning(activity.warnings()));
            return Self { content, ..self };
        }
        self
    }

    /// Whether contents go to their bucket through a daemon.
    fn has_daemon(&self) -> bool {
        #[cfg(feature = "dragonfly")]
        if let Place::Elsewhere(way) = &self.content {
            return way.daemon().is_some();
        }
        false
    }

    fn repository(&self, reference: &Reference) -> Result<Repository> {
        require_own(self.tenant.as_deref(), reference)?;
        Repository::new(&self.namespace, reference.name())
    }

    /// What a snapshot is called there.
    fn place_of(&self, repository: &Repository) -> String {
        format!("{}/{repository}", self.endpoint)
    }

    /// The manifest a reference names, or nothing.
    fn find(&self, reference: &Reference, activity: &Activity) -> Result<Option<Pulled>> {
        self.find_while(reference, &|| activity.check())
    }

    fn find_while(&self, reference: &Reference, wanted: Wanted<'_>) -> Result<Option<Pulled>> {
        let which = match (reference.manifest_digest(), reference.version()) {
            (Some(digest), _) => TagOrDigest::Digest(digest),
            (None, Some(version)) => TagOrDigest::tag(version)?,
            (None, None) => return Ok(None),
        };
        let repository = self.repository(reference)?;
        tracing::info!("GET manifest {reference} from {}", self.endpoint);
        wait(wanted, self.registry.manifest(&repository, &which))
            .map_err(|error| error.with_reference(reference))
    }

    /// The manifest that a reference names there, as it is, and its digest.
    pub(crate) fn manifest(
        &self,
        reference: &Reference,
        activity: &Activity,
    ) -> Result<Option<(Sha256, Vec<u8>)>> {
        let found = self.find(reference, activity)?;
        Ok(found.map(|found| (found.digest, found.bytes)))
    }

    /// The digest a version has there.
    fn published(&self, reference: &Reference, activity: &Activity) -> Result<Option<Sha256>> {
        Ok(self.find(reference, activity)?.map(|found| found.digest))
    }

    /// Refuses a version that is taken there.
    pub(crate) fn require_new(&self, reference: &Reference, activity: &Activity) -> Result<()> {
        match self.published(reference, activity)? {
            None => Ok(()),
            Some(digest) => Err(self.taken(reference, digest)),
        }
    }

    fn taken(&self, reference: &Reference, by: Sha256) -> Error {
        Error::new(
            ErrorKind::AlreadyExists,
            format!(
                "the snapshot {reference} already exists in {}, as {by}",
                self.endpoint
            ),
        )
        .with_reference(reference)
        .with_hint("versions are immutable: choose another version, or replace this one with force")
    }
}

/// Waits for what a daemon must not be cut off from. Blocks, on a thread of its own: the last handle may be dropped within
/// a runtime, where nobody may wait for another one.
#[cfg(feature = "dragonfly")]
pub(crate) fn settle(daemon: &Daemon) {
    if daemon.is_settled() {
        return;
    }
    std::thread::scope(|scope| {
        let waiting = std::thread::Builder::new().spawn_scoped(scope, || {
            if let Ok(runtime) = runtime::start() {
                runtime.block_on(daemon.settled());
            }
        });
        if let Err(error) = waiting {
            tracing::warn!(%error, "uploads may be cut off: there is no thread to wait for them on");
        }
    });
}

/// A manifest's bytes as what they say; they come from outside.
fn parse_manifest(bytes: &[u8], reference: &Reference) -> Result<AnyManifest> {
    use crate::format::artifact::ManifestError;
    AnyManifest::parse(bytes).map_err(|error| {
        let kind = match error {
            ManifestError::NotASnapshot { .. } | ManifestError::SchemaVersion { .. } => {
                ErrorKind::Unsupported
            }
            _ => ErrorKind::Damaged,
        };
        Error::new(kind, format!("the manifest of {reference} cannot be used"))
            .with_reference(reference)
            .with_source(error)
    })
}

/// Two things that say what a snapshot is, and say that it is of two formats.
fn formats_differ(reference: &Reference) -> Error {
    let text = format!("the manifest of {reference} and its row here are of two formats");
    Error::damaged(text).with_reference(reference)
}

//! A catalog for a store that lost its own.
//!
//! Blobs are found by reading every file under `storage/`: its name says which bytes it should have. Snapshots are found
//! where their documents still are: in what can be read of the damaged catalog, and in the registry. Whatever is then
//! needed by none of them becomes a snapshot of its own, `lost-and-found`, so that it is neither litter nor out of
//! sight; what has other bytes than its name says is moved to `quarantine/`. Nothing is deleted.
//!
//! A catalog that is whole, and older than the store, is added to in the same way (`take_in.rs`).

mod found;
mod naming;
mod take_in;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::activity::Activity;
use crate::catalog::{Catalog, Condition, Salvage, salvage};
use crate::config::Config;
use crate::fs::dir::ignore_absent;
use crate::fs::lock::{self, Lock};
use crate::fs::random_name;
use crate::limit::Limit;
use crate::remote::Remote;
use crate::store::Store;
use crate::store::layout::Root;
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::progress::{Observer, Warning, WarningKind};
use crate::words::reference::Reference;
use naming::Naming;

/// How to make a catalog anew.
///
/// ```
/// use snapshotter::RebuildRequest;
///
/// let request = RebuildRequest::new().reference("sandboxes/vm-1:v3".parse()?);
/// assert_eq!(request.references.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct RebuildRequest {
    /// Snapshots to look for in the registry. Empty: all that it lists.
    pub references: Vec<Reference>,
    /// Who hears how it gets on.
    pub observer: Option<Arc<dyn Observer>>,
}

impl RebuildRequest {
    /// Looks for all snapshots that the registry lists.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a snapshot; the first one replaces "all".
    #[must_use]
    pub fn reference(mut self, reference: Reference) -> Self {
        self.references.push(reference);
        self
    }

    /// Sets [`observer`](Self::observer).
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }
}

impl std::fmt::Debug for RebuildRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RebuildRequest")
            .field("references", &self.references)
            .finish_non_exhaustive()
    }
}

/// What a rebuilt catalog has, and what it has not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RebuildReport {
    /// The snapshots that are in it.
    pub snapshots: Vec<RebuiltSnapshot>,
    /// How many snapshots it had already, where it was whole and was added to; none where it was made.
    pub kept_snapshots: Option<u64>,
    /// Snapshots of the registry of which some contents are here, and not all: they are not in the catalog. Pulling them
    /// fetches the rest.
    pub incomplete: Vec<Reference>,
    /// The snapshot made of blobs that no known snapshot needs, each a file called by its checksum; more than one where
    /// they are too many for one. Removing it frees them.
    pub lost_and_found: Vec<Reference>,
    /// Blobs in it.
    pub unnamed_blobs: u64,
    /// Packs that it keeps. Without a document nobody knows whose pages they have, so it has no files of them.
    pub unnamed_packs: u64,
    /// Bytes of data in those blobs, and stored bytes of those packs.
    pub unnamed_bytes: u64,
    /// Files with the bytes their names say.
    pub checked_blobs: u64,
    /// Packs whose frames are all right.
    pub checked_packs: u64,
    /// Bytes of data in those blobs, and stored bytes of those packs.
    pub checked_bytes: u64,
    /// Where the files are now that have other bytes than their names say. Nothing uses or removes them there.
    pub quarantined: Vec<PathBuf>,
    /// Where the damaged catalog is now, if there was one.
    pub old_catalog: Option<PathBuf>,
    /// How long the call took.
    pub duration: Duration,
    /// What the caller may care about.
    pub warnings: Vec<Warning>,
}

/// A snapshot in a rebuilt catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RebuiltSnapshot {
    /// Its name and version.
    pub reference: Reference,
    /// Whether the registry described it; else the damaged catalog did.
    pub from_registry: bool,
    /// Blobs or packs of it that are not here. They are listed as missing, and fetched again where the snapshot was published.
    pub missing_blobs: u64,
}

/// Makes a catalog. Blocks.
pub(crate) fn run(
    config: &Config,
    remote: Option<&Remote>,
    request: &RebuildRequest,
    activity: &Activity,
) -> Result<RebuildReport> {
    let started = Instant::now();
    let root = Root::open(&config.root_dir, config.tenant.as_deref())?;
    if root.read_only.is_some() {
        return Err(crate::catalog::is_read_only(root.dir.path()));
    }
    let path = root.catalog_path();
    refuse_other_roots(&root)?;
    let own = root.exclude()?;
    let owners = require_nobody(&root)?;
    let broken = match condition(&root, config.busy_timeout, activity)? {
        Condition::Whole => {
            keep_old(&root)?;
            drop(owners);
            let store = Store::open_locked(root, own, config.busy_timeout)?;
            return take_in::run(&store, config, remote, request, activity);
        }
        Condition::Broken => true,
        Condition::Empty => false,
    };
    let salvage = set_aside(&root, broken)?;
    let limit = Limit::new(config.restore_concurrency);
    let found = found::read_all(&root, &limit, &salvage, activity)?;
    let naming = Naming::new(&found, salvage, HashSet::new(), remote, request, activity)?;
    root.content.sync_filesystem()?;
    activity.check()?;
    let mut report = Catalog::create(&path, root.generation()?, config.busy_timeout, |txn| {
        let quarantined = found.settle(&root)?;
        let mut report = naming.write(txn, &found, &|_| Ok(true))?;
        report.quarantined = quarantined;
        Ok(report)
    })?;
    // The new one is complete: that the old one keeps its name is no failure.
    report.old_catalog = keep_old(&root).unwrap_or_else(|error| {
        activity.warn(WarningKind::Deferred, None, error.to_string());
        Some(root.metadata.path_of(OsStr::new(REBUILDING)))
    });
    report.checked_blobs = found.blobs.len() as u64;
    report.checked_packs = found.packs.len() as u64;
    report.checked_bytes = found.data_bytes();
    report.duration = started.elapsed();
    drop((own, owners));
    Ok(report)
}

fn refuse_other_roots(root: &Root) -> Result<()> {
    match root.require_unused() {
        Err(error) if error.kind() == ErrorKind::Unsupported => Err(error),
        _ => Ok(()),
    }
}

fn is_whole(root: &Root) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        format!(
            "the store {} has a catalog that is whole",
            root.dir.path().display()
        ),
    )
    .with_path(root.dir.path())
    .with_hint("`verify` with repair mends what is damaged in it")
}

/// Takes the locks of all dead owners, so that none of them is one of the release before, which shares nothing. A live one
/// writes into a catalog that is no longer there, or soon not.
fn require_nobody(root: &Root) -> Result<Vec<Lock>> {
    let mut locks = Vec::new();
    for name in root.leases.names()? {
        let path = || root.leases.path_of(&name);
        match lock::take_over(&root.leases, &name).at("lock", path())? {
            Some(lock) => locks.push(lock),
            None => return Err(root.is_used(root.leases.stat(&name))),
        }
    }
    Ok(locks)
}

const CATALOG: &str = "catalog.db";

/// Where the damaged catalog is until the new one is complete: a rebuild that dies is followed by one that looks here.
const REBUILDING: &str = "rebuilding";

fn condition(root: &Root, busy_timeout: Duration, activity: &Activity) -> Result<Condition> {
    let there = root
        .metadata
        .stat_if_any(OsStr::new(CATALOG))
        .at("examine", root.catalog_path())?;
    match there {
        None => Ok(Condition::Empty),
        Some(_) => Catalog::condition(
            &root.catalog_path(),
            root.generation()?,
            busy_timeout,
            activity.cancelled(),
        ),
    }
}

/// Moves a broken catalog out of the way, and reads what it, or one moved there before, still says.
fn set_aside(root: &Root, broken: bool) -> Result<Salvage> {
    let name = OsStr::new(REBUILDING);
    if broken {
        keep_old(root)?;
        let aside = root.metadata.ensure_dir(name, 0o700)?;
        for suffix in ["", "-wal", "-shm"] {
            let file = format!("{CATALOG}{suffix}");
            let file = OsStr::new(&file);
            ignore_absent(root.metadata.rename(file, &aside, file))
                .at("set aside", root.metadata.path_of(file))?;
        }
        root.metadata.sync()?;
    }
    let there = root.metadata.stat_if_any(name);
    if there.at("examine", root.metadata.path())?.is_none() {
        return Ok(Salvage::default());
    }
    Ok(salvage(&root.metadata.path_of(name).join(CATALOG)))
}

/// Gives a catalog that was set aside a name that the next rebuild does not look at.
fn keep_old(root: &Root) -> Result<Option<PathBuf>> {
    let metadata = &root.metadata;
    let random = random_name().at("read random bytes for", metadata.path())?;
    let to = format!("damaged-{random}");
    let to = OsStr::new(&to);
    match metadata.rename(OsStr::new(REBUILDING), metadata, to) {
        Ok(()) => Ok(Some(metadata.path_of(to))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).at("rename", metadata.path_of(to)),
    }
}

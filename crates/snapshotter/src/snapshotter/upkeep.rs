//! What a handle does for its store: checking, collecting, counting, and making a catalog anew.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};

use super::Snapshotter;
use super::calls::{CancelOnDrop, WaitOnDrop};
use crate::activity;
use crate::config::Config;
use crate::diagnose::{self, Diagnosis};
use crate::gc::{self, GcReport, GcRequest, UsageDetails};
use crate::inspect::{self, Usage};
use crate::metrics::{Kept, Metrics, Operation};
use crate::rebuild::{self, RebuildReport, RebuildRequest};
use crate::remote::Remote;
use crate::store::Holder;
use crate::threads;
use crate::verify::{self, VerifyReport, VerifyRequest};
use crate::words::error::Result;

impl Snapshotter {
    /// Makes a catalog for a store that has lost its own, or has a damaged one, or one that is older than it, from what is left: blobs by reading all
    /// files of the store, snapshots from what can be read of the damaged catalog and from the configured registry. Files
    /// that no known snapshot needs become one that is called `lost-and-found`; files with other bytes than their names
    /// say are moved to `quarantine/` in the root. Nothing is deleted, and nothing is changed before all has been read.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let config = snapshotter::Config::new(dir.path().join("store"));
    /// # snapshotter::Snapshotter::open(config.clone()).await?.close().await?;
    /// # std::fs::remove_dir_all(dir.path().join("store/metadata"))?;
    /// use snapshotter::{RebuildRequest, Snapshotter};
    ///
    /// let report = Snapshotter::rebuild(&config, &RebuildRequest::new()).await?;
    /// println!("{} snapshots, {} blobs without one", report.snapshots.len(), report.unnamed_blobs);
    /// let snapshotter = Snapshotter::open(config).await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// `AlreadyExists` where the catalog is whole; `Busy` while another process uses the store, or where there is no thread; `Unsupported` for a Go
    /// library's root or a newer store; the filesystem's. What the registry cannot say is a warning.
    #[tracing::instrument(skip_all)]
    pub async fn rebuild(config: &Config, request: &RebuildRequest) -> Result<RebuildReport> {
        config.validate()?;
        let (running, ended) = mpsc::channel();
        // There is no handle to close: whoever gives up waits here.
        let _waits = WaitOnDrop(ended);
        let cancelled = Arc::new(AtomicBool::new(false));
        let _guard = CancelOnDrop(Arc::clone(&cancelled));
        let (config, request) = (config.clone(), request.clone());
        threads::run(move || {
            let _running: mpsc::Sender<()> = running;
            #[cfg(feature = "registry")]
            // Of what is elsewhere, descriptions alone are read: no daemon brings those.
            let remote = Remote::configured(&config, None)?;
            #[cfg(not(feature = "registry"))]
            let remote: Option<Remote> = None;
            activity::run(cancelled, request.observer.clone(), |activity| {
                rebuild::run(&config, remote.as_ref(), &request, activity)
            })
        })
        .await
    }

    /// What this machine, the root's filesystem and, where given, an existing output directory can do together. Makes
    /// and removes small files in both.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # std::fs::create_dir(dir.path().join("vm"))?;
    /// # std::fs::write(dir.path().join("vm/memory"), "bytes")?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let snapshotter = snapshotter::Snapshotter::open(snapshotter::Config::new(dir.path().join("store"))).await?;
    /// let diagnosis = snapshotter.diagnose(Some(dir.path())).await?;
    /// assert!(diagnosis.output.is_some_and(|output| output.same_filesystem));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NotFound` and `PermissionDenied` for the directory; the filesystem's.
    pub async fn diagnose(&self, output_dir: Option<&Path>) -> Result<Diagnosis> {
        let output_dir = output_dir.map(Path::to_owned);
        self.run(move |_, store, _| diagnose::run(store, output_dir.as_deref()))
            .await
    }

    /// Reads stored blobs and compares them with what they were, and looks whether the catalog holds together. Damage is
    /// reported and remembered, not an error; with [`repair`](VerifyRequest::repair) it is mended where that is possible.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let snapshotter = snapshotter::Snapshotter::open(snapshotter::Config::new(dir.path().join("store"))).await?;
    /// use snapshotter::VerifyRequest;
    ///
    /// let report = snapshotter.verify(&VerifyRequest::all()).await?;
    /// assert!(report.damaged.is_empty() && report.missing.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NotFound` for a snapshot that is not there; the catalog's and the filesystem's.
    #[tracing::instrument(skip_all)]
    pub async fn verify(&self, request: &VerifyRequest) -> Result<VerifyReport> {
        let request = request.clone();
        self.counted(Operation::Verify, move |inner, store, activity| {
            let remote = inner.remote_of_repair(&request, activity);
            let context = remote.as_ref().map(|remote| crate::remote::Context {
                store,
                limit: &inner.restores.transfers,
                flights: &inner.flights,
                remote,
                activity,
            });
            let limit = inner.restores.of_device(store.root.device);
            verify::run(store, &limit, &request, context.as_ref(), activity)
        })
        .await
    }

    /// What the store holds and what its filesystem can still take.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let snapshotter = snapshotter::Snapshotter::open(snapshotter::Config::new(dir.path().join("store"))).await?;
    /// assert_eq!(snapshotter.usage().await?.snapshots, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// The catalog's and the filesystem's.
    pub async fn usage(&self) -> Result<Usage> {
        self.run(|_, store, _| inspect::usage(store)).await
    }

    /// The same snapshot by snapshot, with what each shares with others and what garbage collection could free. Looks at
    /// every file of the store.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let snapshotter = snapshotter::Snapshotter::open(snapshotter::Config::new(dir.path().join("store"))).await?;
    /// let details = snapshotter.usage_details().await?;
    /// for snapshot in &details.snapshots {
    ///     println!("{}: {} bytes of its own", snapshot.reference, snapshot.exclusive_bytes);
    /// }
    /// assert_eq!(details.reclaimable_bytes, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// The catalog's and the filesystem's.
    pub async fn usage_details(&self) -> Result<UsageDetails> {
        self.run(|inner, store, _| {
            gc::usage_details(store, inner.remote.as_ref(), &inner.config.gc)
        })
        .await
    }

    /// Collects garbage: sweeps what belongs to nothing, then releases snapshots while the disk or the store is too full.
    ///
    /// Only those go that can be fetched again, are not pinned, not in use and not young: the least recently used first, and
    /// none whose going would free nothing. Whether they can be fetched again, the configured registry and place of contents
    /// are asked right before, in a dry run too: for the manifest under the snapshot's name and for each object that would be
    /// nowhere else. What is not there, and what nobody answers for, stays, with a warning. Without a registry every snapshot
    /// is an only copy. It ends when it is enough, when nothing is left that may go, or when the filesystem has no more room
    /// after a release than before; the report says which. A call that fails or is cancelled has released what it has
    /// released.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # std::fs::create_dir(dir.path().join("vm"))?;
    /// # std::fs::write(dir.path().join("vm/memory"), "bytes")?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let snapshotter = snapshotter::Snapshotter::open(snapshotter::Config::new(dir.path().join("store"))).await?;
    /// # snapshotter.snapshot(&snapshotter::SnapshotRequest::new("vm", "v1", dir.path().join("vm"))).await?;
    /// use snapshotter::GcRequest;
    /// use std::time::Duration;
    ///
    /// let all = GcRequest::new().max_bytes(0).min_retention_period(Duration::ZERO);
    /// let report = snapshotter.gc(&all).await?;
    /// // Its only copy is here.
    /// assert_eq!((report.released.len(), report.kept.only_copies), (0, 1));
    ///
    /// let report = snapshotter.gc(&all.include_unpublished(true)).await?;
    /// assert_eq!(report.released_bytes, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// The catalog's and the filesystem's.
    #[tracing::instrument(skip_all)]
    pub async fn gc(&self, request: &GcRequest) -> Result<GcReport> {
        let request = request.clone();
        self.counted(Operation::Gc, move |inner, store, activity| {
            let (remote, config) = (inner.configured(activity), &inner.config.gc);
            let report = gc::run(store, remote.as_ref(), config, &request, activity)?;
            inner.metrics.count(|metrics| report.count_in(metrics));
            Ok(report)
        })
        .await
    }

    /// What all handles of this root have done, of whatever process, since there first was one. Each adds what it counted when a
    /// call ends, so a process that is killed loses its last call at most; a power cut may take more.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// use snapshotter::{Config, GcRequest, Operation, Snapshotter};
    ///
    /// for _ in 0..2 {
    ///     let snapshotter = Snapshotter::open(Config::new(dir.path().join("store"))).await?;
    ///     snapshotter.gc(&GcRequest::new()).await?;
    ///     snapshotter.close().await?;
    /// }
    /// let snapshotter = Snapshotter::open(Config::new(dir.path().join("store"))).await?;
    /// let totals = snapshotter.total_metrics().await?;
    /// assert_eq!(totals.operations[Operation::Gc as usize].succeeded, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// The filesystem's.
    pub async fn total_metrics(&self) -> Result<Metrics> {
        self.run(|inner, store, _| {
            inner.keep_counters(store, Kept::PATIENCE);
            Kept::all(&store.root.dir)
        })
        .await
    }

    /// Who has the root open, and what each holds there: which snapshots are kept for which call of which process, since when.
    /// What is dead is not shown, and this handle only if it holds something.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let snapshotter = snapshotter::Snapshotter::open(snapshotter::Config::new(dir.path().join("store"))).await?;
    /// for holder in snapshotter.holders().await? {
    ///     println!("{:?} holds {:?}", holder.pid, holder.reference);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// The catalog's and the filesystem's.
    pub async fn holders(&self) -> Result<Vec<Holder>> {
        self.run(|_, store, _| store.holders()).await
    }

    /// What this handle and its clones have done since it was opened. Does not block; a closed handle still knows.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.inner.metrics.now()
    }
}

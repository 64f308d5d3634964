//! The handle people hold.
//!
//! Every call runs to its end on a thread of its own; the future only waits for it. Dropping the future tells the call to
//! stop, and the call cleans up after itself, so a cancelled call leaves nothing behind whichever await it was dropped at.
//! Closing, and dropping the last handle, waits for calls that were dropped too.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, mpsc};
use std::thread::{self, ThreadId};

use crate::activity::{self, Activity, Report};
use crate::config::Config;
use crate::diagnose::{self, Diagnosis};
use crate::gc::{self, GcReport, GcRequest, UsageDetails, Worker};
use crate::inspect::{self, RemoveReport, SnapshotDetails, SnapshotSummary, Usage};
use crate::limit::Limits;
use crate::metrics::{Metrics, Operation, Recorder};
use crate::rebuild::{self, RebuildReport, RebuildRequest};
use crate::remote::{Flights, Remote};
use crate::restore::{self, RestorePlan, RestoreReport, RestoreRequest};
use crate::snapshot::{self, SnapshotPlan, SnapshotReport, SnapshotRequest};
use crate::store::{Store, WENT_BACK};
use crate::threads;
use crate::verify::{self, VerifyReport, VerifyRequest};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::progress::{Observer, Warning, WarningKind};
use crate::words::reference::Reference;

/// An open store of snapshots. Clones share it; all methods may be called at once from any thread.
///
/// Methods are async; the work is done on threads of the library's own. Dropping a returned future cancels the call. Where the
/// system has no thread for a call it fails with `Busy`, and has done nothing; one that is running goes on with the threads
/// that it has.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # std::fs::create_dir(dir.path().join("vm"))?;
/// # std::fs::write(dir.path().join("vm/memory"), "bytes")?;
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use snapshotter::{Config, RestoreRequest, SnapshotRequest, Snapshotter};
///
/// let snapshotter = Snapshotter::open(Config::new(dir.path().join("store"))).await?;
/// let taken = snapshotter
///     .snapshot(&SnapshotRequest::new("vm", "v1", dir.path().join("vm")))
///     .await?;
/// snapshotter
///     .restore(&RestoreRequest::new(taken.reference, dir.path().join("copy")))
///     .await?;
/// assert_eq!(std::fs::read(dir.path().join("copy/memory"))?, b"bytes");
/// snapshotter.close().await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })
/// # }
/// ```
#[derive(Clone)]
pub struct Snapshotter {
    pub(crate) inner: Arc<Inner>,
    observer: Option<Arc<dyn Observer>>,
    /// Closes with the last clone: running calls have the rest too.
    _open: Arc<Open>,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) snapshots: Limits,
    pub(crate) restores: Limits,
    /// What the configuration describes; requests may name others.
    pub(crate) remote: Option<Remote>,
    /// Shared by what requests name instead.
    #[cfg(feature = "registry")]
    daemon: Option<Arc<crate::transport::Daemon>>,
    pub(crate) flights: Flights,
    pub(crate) metrics: Arc<Recorder>,
    /// Collects in the background, where that is configured.
    worker: Option<Worker>,
    /// `None` once closed.
    store: RwLock<Option<Arc<Store>>>,
    calls: Calls,
    /// Held while somebody closes, so that nobody finds it closed before it is.
    closing: Mutex<()>,
}

impl std::fmt::Debug for Snapshotter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshotter")
            .field("config", &self.inner.config)
            .finish_non_exhaustive()
    }
}

impl Snapshotter {
    /// Opens a root, making it if it is not there, and cleans up after processes that died in it.
    ///
    /// The library leaves signals alone: a program whose files may not grow without bounds (`ulimit -f`) has to catch or ignore
    /// `SIGXFSZ`, and gets `NoSpace` then.
    ///
    /// A root on a read-only mount is opened for reading: nothing is written to it, calls that would have to fail with
    /// `PermissionDenied`, and no lease keeps what is read from being removed by a process that has it mounted writable.
    ///
    /// # Errors
    /// `InvalidInput` for a configuration field (named), and for symlinks in the root; `PermissionDenied` where the root cannot be written;
    /// `Unsupported` on a network filesystem, for a newer store or a Go library's root; `Damaged` when the store has
    /// lost its catalog; `Busy` when another process keeps the catalog locked.
    pub async fn open(config: Config) -> Result<Self> {
        config.validate()?;
        #[cfg(feature = "registry")]
        let daemon = config.daemon()?;
        #[cfg(feature = "registry")]
        let remote = Remote::open(
            config.registry.as_ref(),
            config.content.as_ref(),
            daemon.as_ref(),
        )?;
        #[cfg(not(feature = "registry"))]
        let remote: Option<Remote> = None;
        let store = {
            let config = config.clone();
            let opened = move || {
                let store = Store::open(&config.root_dir, config.busy_timeout)?;
                #[cfg(feature = "registry")]
                require_outside(&store, config.registry.as_ref(), config.content.as_ref())?;
                Ok(store)
            };
            Arc::new(threads::run(opened).await?)
        };
        #[cfg(feature = "dragonfly")]
        if let Some(daemon) = &daemon
            && !store.is_read_only()
        {
            daemon.settle_in(&config.root_dir, &store.staging()?)?;
        }
        let metrics = Arc::<Recorder>::default();
        let collected = remote.clone();
        let worker = Worker::start(&store, collected, config.gc, Arc::clone(&metrics));
        let inner = Arc::new(Inner {
            snapshots: Limits::new(config.snapshot_concurrency),
            restores: Limits::new(config.restore_concurrency),
            remote,
            #[cfg(feature = "registry")]
            daemon,
            flights: Flights::default(),
            metrics,
            worker,
            store: RwLock::new(Some(store)),
            calls: Calls::default(),
            closing: Mutex::default(),
            config,
        });
        Ok(Self {
            _open: Arc::new(Open(Arc::clone(&inner))),
            inner,
            observer: None,
        })
    }

    /// What is wrong with the store as such, which no single call can be blamed for: a catalog that is older than the store, a
    /// root that others can change. Empty: nothing, or the handle is closed.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let Ok(store) = self.inner.store() else {
            return Vec::new();
        };
        let warning = |kind, message| Warning {
            kind,
            path: None,
            message,
        };
        let older = store.went_back().then(|| WENT_BACK.to_owned());
        let exposed = store.root.exposure().ok().flatten();
        let older = older.map(|text| warning(WarningKind::CatalogOlder, text));
        let exposed = exposed.map(|text| warning(WarningKind::Exposed, text));
        older.into_iter().chain(exposed).collect()
    }

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
            let remote = Remote::open(config.registry.as_ref(), config.content.as_ref(), None)?;
            #[cfg(not(feature = "registry"))]
            let remote: Option<Remote> = None;
            activity::run(cancelled, request.observer.clone(), |activity| {
                rebuild::run(&config, remote.as_ref(), &request, activity)
            })
        })
        .await
    }

    /// The same store, with calls that tell `observer` how they get on.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # std::fs::create_dir(dir.path().join("vm"))?;
    /// # std::fs::write(dir.path().join("vm/state"), "bytes")?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// use snapshotter::{Config, Event, Observer, SnapshotRequest, Snapshotter};
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    ///
    /// #[derive(Default)]
    /// struct Bytes(AtomicU64);
    /// impl Observer for Bytes {
    ///     fn event(&self, event: &Event) {
    ///         if let Event::Progressed { bytes } = event {
    ///             self.0.fetch_add(*bytes, Ordering::Relaxed);
    ///         }
    ///     }
    /// }
    ///
    /// let bytes = Arc::new(Bytes::default());
    /// let snapshotter = Snapshotter::open(Config::new(dir.path().join("store"))).await?;
    /// snapshotter
    ///     .observed_by(bytes.clone())
    ///     .snapshot(&SnapshotRequest::new("vm", "v1", dir.path().join("vm")))
    ///     .await?;
    /// assert_eq!(bytes.0.load(Ordering::Relaxed), 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    #[must_use]
    pub fn observed_by(&self, observer: Arc<dyn Observer>) -> Self {
        Self {
            observer: Some(observer),
            ..self.clone()
        }
    }

    /// Takes a snapshot.
    ///
    /// Nothing is visible unless the call succeeds; with [`Durability::Full`](crate::Durability::Full) the snapshot is
    /// then on the disk. A cancelled or failed call gives back what it stored.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # std::fs::create_dir(dir.path().join("vm"))?;
    /// # std::fs::write(dir.path().join("vm/memory"), "bytes")?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let snapshotter = snapshotter::Snapshotter::open(snapshotter::Config::new(dir.path().join("store"))).await?;
    /// use snapshotter::{File, SnapshotRequest};
    ///
    /// let request = SnapshotRequest::new("vm", "v1", dir.path().join("vm"))
    ///     .file(File::new("memory").read_only(true));
    /// let report = snapshotter.snapshot(&request).await?;
    /// assert_eq!((report.files, report.blobs_stored), (1, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` for a request that makes no sense; `NotFound` for a path that is not there; `AlreadyExists` when
    /// the version exists; `Busy` when a file keeps changing while it is read; `NoSpace`; `PermissionDenied`;
    /// `Unsupported` beyond the format's limits.
    #[tracing::instrument(skip_all, fields(name = request.name, version = request.version))]
    pub async fn snapshot(&self, request: &SnapshotRequest) -> Result<SnapshotReport> {
        let request = request.clone();
        self.counted(Operation::Snapshot, move |inner, store, activity| {
            let durability = inner.config.durability;
            let remote = inner.remote_of_snapshot(&request, activity)?;
            let (limits, remote) = (&inner.snapshots, remote.as_ref());
            let report = snapshot::run(store, limits, durability, &request, remote, activity)?;
            inner.metrics.count(|metrics| {
                metrics.captured_bytes += report.data_bytes;
                metrics.stored_bytes += report.stored_bytes;
                metrics.blob_hits += report.blobs_reused;
                metrics.blob_misses += report.blobs_stored;
                let publication = report.publication.as_ref();
                metrics.sent_bytes += publication.map_or(0, |sent| sent.sent_bytes);
            });
            Ok(report)
        })
        .await
    }

    /// Restores a snapshot.
    ///
    /// Each file appears under its name whole or not at all; a failed or cancelled call leaves those that were done.
    /// Nothing outside `output_dir` is touched, whatever the snapshot says. The output is not synced to disk.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # std::fs::create_dir(dir.path().join("vm"))?;
    /// # std::fs::write(dir.path().join("vm/memory"), "bytes")?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let snapshotter = snapshotter::Snapshotter::open(snapshotter::Config::new(dir.path().join("store"))).await?;
    /// # snapshotter.snapshot(&snapshotter::SnapshotRequest::new("vm", "v1", dir.path().join("vm"))).await?;
    /// use snapshotter::RestoreRequest;
    ///
    /// let request = RestoreRequest::new("vm:v1".parse()?, dir.path().join("copy"));
    /// let report = snapshotter.restore(&request).await?;
    /// assert_eq!(report.files, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NotFound` for the snapshot or a path in it; `AlreadyExists` for what may not be replaced; `Damaged`, with the
    /// path, for a file whose stored bytes have changed or gone; `NoSpace`; `PermissionDenied`.
    #[tracing::instrument(skip_all, fields(reference = %request.reference))]
    pub async fn restore(&self, request: &RestoreRequest) -> Result<RestoreReport> {
        let request = request.clone();
        self.counted(Operation::Restore, move |inner, store, activity| {
            let relaxed = inner.config.relaxed_times;
            let remote = inner.remote_of_restore(&request, activity)?;
            let remote = remote.as_ref().map(|remote| (remote, &inner.flights));
            let report = restore::run(store, &inner.restores, relaxed, &request, remote, activity)?;
            inner.metrics.count(|metrics| {
                metrics.restored_bytes += report.data_bytes;
                metrics.fetched_bytes += report.fetched_bytes;
                metrics.blob_misses += report.fetched_blobs;
            });
            Ok(report)
        })
        .await
    }

    /// All snapshots, by name, the newest version of each name first.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let snapshotter = snapshotter::Snapshotter::open(snapshotter::Config::new(dir.path().join("store"))).await?;
    /// for snapshot in snapshotter.list().await? {
    ///     println!("{} {} bytes", snapshot.reference, snapshot.logical_bytes);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// The catalog's.
    pub async fn list(&self) -> Result<Vec<SnapshotSummary>> {
        self.run(|_, store, _| inspect::list(store)).await
    }

    /// Everything a snapshot says of itself.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # std::fs::create_dir(dir.path().join("vm"))?;
    /// # std::fs::write(dir.path().join("vm/memory"), "bytes")?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let snapshotter = snapshotter::Snapshotter::open(snapshotter::Config::new(dir.path().join("store"))).await?;
    /// # snapshotter.snapshot(&snapshotter::SnapshotRequest::new("vm", "v1", dir.path().join("vm"))).await?;
    /// let details = snapshotter.inspect(&"vm:v1".parse()?).await?;
    /// assert_eq!(details.files[0].size, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NotFound`; `Damaged` when its records are not valid.
    pub async fn inspect(&self, reference: &Reference) -> Result<SnapshotDetails> {
        let reference = reference.clone();
        self.run(move |_, store, _| inspect::inspect(store, &reference))
            .await
    }

    /// Removes a snapshot and gives back the space nothing else needs.
    ///
    /// Its name is free at once. A restore of it that is running goes on unharmed, and the space comes back after it.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # std::fs::create_dir(dir.path().join("vm"))?;
    /// # std::fs::write(dir.path().join("vm/memory"), "bytes")?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let snapshotter = snapshotter::Snapshotter::open(snapshotter::Config::new(dir.path().join("store"))).await?;
    /// # snapshotter.snapshot(&snapshotter::SnapshotRequest::new("vm", "v1", dir.path().join("vm"))).await?;
    /// snapshotter.remove(&"vm:v1".parse()?).await?;
    /// assert_eq!(snapshotter.usage().await?.stored_bytes, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NotFound`; the catalog's.
    #[tracing::instrument(skip_all, fields(reference = %reference))]
    pub async fn remove(&self, reference: &Reference) -> Result<RemoveReport> {
        let reference = reference.clone();
        self.counted(Operation::Remove, move |_, store, activity| {
            inspect::remove(store, &reference, activity)
        })
        .await
    }

    /// What a snapshot would take, without taking it.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # std::fs::create_dir(dir.path().join("vm"))?;
    /// # std::fs::write(dir.path().join("vm/memory"), "bytes")?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let snapshotter = snapshotter::Snapshotter::open(snapshotter::Config::new(dir.path().join("store"))).await?;
    /// use snapshotter::SnapshotRequest;
    ///
    /// let plan = snapshotter
    ///     .plan_snapshot(&SnapshotRequest::new("vm", "v1", dir.path().join("vm")))
    ///     .await?;
    /// assert_eq!((plan.files, plan.logical_bytes, plan.exists), (1, 5, false));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`snapshot`](Self::snapshot) that reading directories can find.
    pub async fn plan_snapshot(&self, request: &SnapshotRequest) -> Result<SnapshotPlan> {
        let request = request.clone();
        self.run(move |inner, store, activity| {
            snapshot::plan(store, &inner.snapshots, &request, activity)
        })
        .await
    }

    /// What a restore would make, without making it. Of a snapshot that is not here the registry is asked, and its contents
    /// stay where they are.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # std::fs::create_dir(dir.path().join("vm"))?;
    /// # std::fs::write(dir.path().join("vm/memory"), "bytes")?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let snapshotter = snapshotter::Snapshotter::open(snapshotter::Config::new(dir.path().join("store"))).await?;
    /// # snapshotter.snapshot(&snapshotter::SnapshotRequest::new("vm", "v1", dir.path().join("vm"))).await?;
    /// use snapshotter::RestoreRequest;
    ///
    /// let request = RestoreRequest::new("vm:v1".parse()?, dir.path().join("copy"));
    /// let plan = snapshotter.plan_restore(&request).await?;
    /// assert_eq!((plan.files, plan.existing.len()), (1, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`restore`](Self::restore) that the catalog, the registry and the output's names can find.
    pub async fn plan_restore(&self, request: &RestoreRequest) -> Result<RestorePlan> {
        let request = request.clone();
        self.run(move |inner, store, activity| {
            let remote = inner.remote_of_restore(&request, activity)?;
            restore::preview(store, remote.as_ref(), &request, activity)
        })
        .await
    }

    /// What removing a snapshot would give back.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # std::fs::create_dir(dir.path().join("vm"))?;
    /// # std::fs::write(dir.path().join("vm/memory"), "bytes")?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let snapshotter = snapshotter::Snapshotter::open(snapshotter::Config::new(dir.path().join("store"))).await?;
    /// # snapshotter.snapshot(&snapshotter::SnapshotRequest::new("vm", "v1", dir.path().join("vm"))).await?;
    /// let plan = snapshotter.plan_removal(&"vm:v1".parse()?).await?;
    /// assert_eq!((plan.blobs_removed, plan.freed_bytes), (1, 5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NotFound`; the catalog's; `Damaged` where it is older than the store.
    pub async fn plan_removal(&self, reference: &Reference) -> Result<RemoveReport> {
        let reference = reference.clone();
        self.run(move |_, store, _| inspect::plan_removal(store, &reference))
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
            let remote = inner.remote_of_repair(&request, activity)?;
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

    /// Pins a snapshot: garbage collection never releases it, whatever it is told to include. `remove` still does.
    /// Pinning twice is pinning once.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # std::fs::create_dir(dir.path().join("vm"))?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let snapshotter = snapshotter::Snapshotter::open(snapshotter::Config::new(dir.path().join("store"))).await?;
    /// # snapshotter.snapshot(&snapshotter::SnapshotRequest::new("vm", "v1", dir.path().join("vm"))).await?;
    /// assert!(snapshotter.pin(&"vm:v1".parse()?).await?.pinned);
    /// assert!(!snapshotter.unpin(&"vm:v1".parse()?).await?.pinned);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NotFound`; the catalog's.
    pub async fn pin(&self, reference: &Reference) -> Result<SnapshotSummary> {
        self.set_pinned(reference, true).await
    }

    /// Takes a snapshot's pin away, if it has one.
    ///
    /// # Errors
    /// `NotFound`; the catalog's.
    pub async fn unpin(&self, reference: &Reference) -> Result<SnapshotSummary> {
        self.set_pinned(reference, false).await
    }

    async fn set_pinned(&self, reference: &Reference, pinned: bool) -> Result<SnapshotSummary> {
        let reference = reference.clone();
        self.run(move |_, store, _| inspect::set_pinned(store, &reference, pinned))
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
            let (remote, config) = (inner.remote_of_gc(activity)?, &inner.config.gc);
            let report = gc::run(store, remote.as_ref(), config, &request, activity)?;
            inner.metrics.count(|metrics| report.count_in(metrics));
            Ok(report)
        })
        .await
    }

    /// What this handle and its clones have done since it was opened. Does not block; a closed handle still knows.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.inner.metrics.now()
    }

    /// Closes the store for this handle and its clones: stops garbage collection, waits for running calls and background
    /// syncs, and, for as long as [`Dragonfly`](crate::Config)'s idle timeout, for uploads whose calls were given up; then
    /// gives its leases and staging back. Later calls fail with `Cancelled`. Dropping the last clone does the same, blocking.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let snapshotter = snapshotter::Snapshotter::open(snapshotter::Config::new(dir.path().join("store"))).await?;
    /// snapshotter.close().await?;
    /// assert!(snapshotter.list().await.is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// The catalog's and the filesystem's; the store is closed all the same.
    pub async fn close(&self) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        match threads::begin(move || inner.close()) {
            Ok(closed) => closed.await,
            // Without a thread to do it on it is done here: what is not closed leaves leases behind.
            Err(_) => self.inner.close(),
        }
    }

    /// As [`run`](Self::run), and counts the call.
    pub(crate) async fn counted<T: Report + Send + 'static>(
        &self,
        operation: Operation,
        work: impl FnOnce(&Inner, &Arc<Store>, &Activity) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run(move |inner, store, activity| {
            let started = std::time::Instant::now();
            let result = work(inner, store, activity);
            let failure = result.as_ref().err();
            inner.metrics.ended(operation, started.elapsed(), failure);
            result
        })
        .await
    }

    pub(crate) async fn run<T: Report + Send + 'static>(
        &self,
        work: impl FnOnce(&Inner, &Arc<Store>, &Activity) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let _guard = CancelOnDrop(Arc::clone(&cancelled));
        let (inner, observer) = (Arc::clone(&self.inner), self.observer.clone());
        let span = tracing::Span::current();
        threads::run(move || {
            let _entered = span.enter();
            let _running = inner.calls.begin();
            let store = inner.store()?;
            activity::run(cancelled, observer, |activity| {
                work(&inner, &store, activity)
            })
        })
        .await
    }
}

/// Refuses directories inside the store as what nodes share: the store would take what is in them for its own.
#[cfg(feature = "registry")]
fn require_outside(
    store: &Store,
    registry: Option<&crate::Registry>,
    content: Option<&crate::Content>,
) -> Result<()> {
    if let Some(path) = registry.and_then(crate::Registry::directory) {
        store
            .root
            .require_path_outside("registry.endpoint", &path)?;
    }
    let is_directory = |content: &&crate::Content| content.provider == crate::ContentProvider::Fs;
    if let Some(content) = content.filter(is_directory) {
        store
            .root
            .require_path_outside("content.root", &content.root)?;
    }
    Ok(())
}

#[cfg(feature = "registry")]
impl Inner {
    /// The configured remote, or another where a request names one: then both halves may come from either. For one call.
    pub(crate) fn remote(
        &self,
        registry: Option<&crate::Registry>,
        content: Option<&crate::Content>,
        activity: &Activity,
    ) -> Result<Option<Remote>> {
        let remote = if registry.is_none() && content.is_none() {
            self.remote.clone()
        } else {
            require_outside(&*self.store()?, registry, content)?;
            Remote::open(
                registry.or(self.config.registry.as_ref()),
                content.or(self.config.content.as_ref()),
                self.daemon.as_ref(),
            )?
        };
        Ok(remote.map(|remote| remote.of_call(activity)))
    }

    fn remote_of_snapshot(
        &self,
        request: &SnapshotRequest,
        activity: &Activity,
    ) -> Result<Option<Remote>> {
        if request.local {
            return Ok(None);
        }
        self.remote(
            request.registry.as_ref(),
            request.content.as_ref(),
            activity,
        )
    }

    fn remote_of_restore(
        &self,
        request: &RestoreRequest,
        activity: &Activity,
    ) -> Result<Option<Remote>> {
        self.remote(
            request.registry.as_ref(),
            request.content.as_ref(),
            activity,
        )
    }

    fn remote_of_repair(
        &self,
        request: &VerifyRequest,
        activity: &Activity,
    ) -> Result<Option<Remote>> {
        if !request.repair {
            return Ok(None);
        }
        self.remote(None, None, activity)
    }

    fn remote_of_gc(&self, activity: &Activity) -> Result<Option<Remote>> {
        self.remote(None, None, activity)
    }
}

#[cfg(not(feature = "registry"))]
impl Inner {
    fn remote_of_snapshot(&self, _: &SnapshotRequest, _: &Activity) -> Result<Option<Remote>> {
        Ok(None)
    }

    fn remote_of_restore(&self, _: &RestoreRequest, _: &Activity) -> Result<Option<Remote>> {
        Ok(None)
    }

    fn remote_of_repair(&self, _: &VerifyRequest, _: &Activity) -> Result<Option<Remote>> {
        Ok(None)
    }

    fn remote_of_gc(&self, _: &Activity) -> Result<Option<Remote>> {
        Ok(None)
    }
}

impl Inner {
    fn store(&self) -> Result<Arc<Store>> {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        store.clone().ok_or_else(|| {
            Error::new(ErrorKind::Cancelled, "the store has been closed")
                .with_path(&self.config.root_dir)
        })
    }

    fn close(&self) -> Result<()> {
        let _closing = lock(&self.closing);
        if let Some(worker) = &self.worker {
            worker.stop();
        }
        let taken = self
            .store
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(store) = taken else {
            return Ok(());
        };
        self.calls.wait();
        store.finish_background();
        // They read files in this store's staging.
        #[cfg(feature = "dragonfly")]
        if let Some(daemon) = &self.daemon {
            crate::remote::settle(daemon);
        }
        store.close()
    }
}

/// What all clones of a handle share and no call has.
struct Open(Arc<Inner>);

impl Drop for Open {
    fn drop(&mut self) {
        // A call's observer may have the last clone, and no call can wait for itself: its store closes as it ends.
        if self.0.calls.has_this_thread() {
            return;
        }
        // What fails here is the next opener's to clean up.
        if let Err(error) = self.0.close() {
            tracing::debug!(%error, "the store was not closed cleanly");
        }
    }
}

/// The threads on which a handle's calls are running.
#[derive(Default)]
struct Calls {
    running: Mutex<Vec<ThreadId>>,
    ended: Condvar,
}

/// A running call. It has the store for no longer than this.
struct Running<'a>(&'a Calls);

impl Calls {
    fn begin(&self) -> Running<'_> {
        lock(&self.running).push(thread::current().id());
        Running(self)
    }

    fn has_this_thread(&self) -> bool {
        lock(&self.running).contains(&thread::current().id())
    }

    /// Waits until none is running.
    fn wait(&self) {
        let running = lock(&self.running);
        let _none = self
            .ended
            .wait_while(running, |running| !running.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let own = thread::current().id();
        lock(&self.0.running).retain(|thread| *thread != own);
        self.0.ended.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a call's end, which drops the other side.
struct WaitOnDrop(mpsc::Receiver<()>);

impl Drop for WaitOnDrop {
    fn drop(&mut self) {
        let _ = self.0.recv();
    }
}

/// Tells a call to stop when its future is dropped; when the call is over, nobody listens any more.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

//! The handle people hold.
//!
//! Every call runs to its end on a thread of its own; the future only waits for it. Dropping the future tells the call to
//! stop, and the call cleans up after itself, so a cancelled call leaves nothing behind whichever await it was dropped at.
//! Closing, and dropping the last handle, waits for calls that were dropped too.

mod calls;
mod local;
mod reading;
#[cfg(feature = "registry")]
mod remotes;
mod retention;
mod upkeep;
mod which_remote;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use crate::activity::{self, Activity, Report};
use crate::config::Config;
use crate::gc::Worker;
use crate::limit::Limits;
use crate::lock::lock;
use crate::metrics::{Kept, Operation, Recorder};
use crate::remote::{Flights, Remote};
use crate::store::{Store, WENT_BACK};
use crate::threads;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::progress::{Observer, Warning, WarningKind};
use calls::{Calls, CancelOnDrop};

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
    #[cfg(feature = "registry")]
    rates: Arc<crate::rate::Rates>,
    /// Shared by what requests name instead.
    #[cfg(feature = "registry")]
    daemon: Option<Arc<crate::transport::Daemon>>,
    pub(crate) flights: Flights,
    pub(crate) metrics: Arc<Recorder>,
    /// What of it is in the root.
    kept: Arc<Kept>,
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
        let remote = Remote::configured(&config, daemon.as_ref())?;
        #[cfg(feature = "registry")]
        let rates = Arc::new(crate::rate::Rates::new(
            config.limit_upload,
            config.limit_download,
        ));
        #[cfg(feature = "registry")]
        let remote = remote.map(|remote| remote.at(&rates));
        #[cfg(not(feature = "registry"))]
        let remote: Option<Remote> = None;
        let store = {
            let config = config.clone();
            let opened = move || {
                let (root, tenant) = (&config.root_dir, config.tenant.as_deref());
                let store = Store::open(root, tenant, config.busy_timeout)?;
                #[cfg(feature = "registry")]
                which_remote::require_outside(
                    &store,
                    config.registry.as_ref(),
                    config.content.as_ref(),
                )?;
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
        let (metrics, kept) = (Arc::<Recorder>::default(), Arc::<Kept>::default());
        let collected = remote.clone();
        let worker = Worker::start(
            &store,
            collected,
            config.gc,
            (Arc::clone(&metrics), Arc::clone(&kept)),
        );
        let inner = Arc::new(Inner {
            snapshots: Limits::new(config.snapshot_concurrency),
            restores: Limits::new(config.restore_concurrency),
            remote,
            #[cfg(feature = "registry")]
            rates,
            #[cfg(feature = "registry")]
            daemon,
            flights: Flights::default(),
            metrics,
            kept,
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
            inner.keep_counters(store, Duration::ZERO);
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

impl Inner {
    fn store(&self) -> Result<Arc<Store>> {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        store.clone().ok_or_else(|| {
            Error::new(ErrorKind::Cancelled, "the store has been closed")
                .with_path(&self.config.root_dir)
        })
    }

    /// Adds what was counted to what the root has.
    fn keep_counters(&self, store: &Store, patience: Duration) {
        if !store.is_read_only() {
            self.kept
                .add(patience, &store.root.dir, &self.metrics.now());
        }
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
        self.keep_counters(&store, Kept::PATIENCE);
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

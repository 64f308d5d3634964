//! What a handle does with remotes.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};

use super::Snapshotter;
use super::calls::{CancelOnDrop, WaitOnDrop};
use crate::activity::{self, Activity, Report};
use crate::config::Config;
use crate::convert;
use crate::limit::Limits;
use crate::metrics::Operation;
use crate::rate::Rates;
use crate::remote::{
    self, CollectReport, CollectRequest, Context, CopyReport, CopyRequest, PullReport, PullRequest,
    PushReport, PushRequest, Remote, RemoteDetails, RemoteDiagnosis, RemoteSnapshot,
    RemoteSummaries,
};
use crate::threads;
use crate::words::digest::Sha256;
use crate::words::error::{Error, Result};
use crate::words::progress::Observer;
use crate::words::reference::Reference;

impl Snapshotter {
    /// Publishes a snapshot that is here: contents first, then the document, then the manifest, so that others find it
    /// complete or not at all. What is there already is not sent again, so a push that failed is resumed by another.
    ///
    /// ```no_run
    /// # async fn example(snapshotter: snapshotter::Snapshotter) -> Result<(), snapshotter::Error> {
    /// use snapshotter::PushRequest;
    ///
    /// let report = snapshotter.push(&PushRequest::new("vm:v1".parse().unwrap())).await?;
    /// println!("{} is in {}", report.reference, report.publication.place);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NotFound` where the snapshot is not here; `AlreadyExists` where the version is another snapshot there, or an object
    /// has another size; `InvalidInput` without a configured registry and content; `PermissionDenied` and `Unavailable` as
    /// the servers say; `Damaged` when stored bytes are.
    #[tracing::instrument(skip_all, fields(reference = %request.reference))]
    pub async fn push(&self, request: &PushRequest) -> Result<PushReport> {
        let request = request.clone();
        self.counted(Operation::Push, move |inner, store, activity| {
            let remote = require(inner.remote(
                store,
                request.registry.as_ref(),
                request.content.as_ref(),
                activity,
            )?)?;
            let as_v1: remote::AsV1<'_> = &|operation, snapshot| {
                convert::as_v1(store, &inner.snapshots, (operation, snapshot), activity)
            };
            let report = remote::push(
                store,
                &inner.snapshots.transfers,
                &remote,
                (&request, as_v1),
                activity,
            )?;
            let sent = report.publication.sent_bytes;
            inner.metrics.count(|metrics| metrics.sent_bytes += sent);
            Ok(report)
        })
        .await
    }

    /// Brings a snapshot here and makes no files of it: a later restore finds everything in the store. What the store has
    /// is not fetched; of a snapshot that is here, what is damaged or missing is fetched again.
    ///
    /// ```no_run
    /// # async fn example(snapshotter: snapshotter::Snapshotter) -> Result<(), snapshotter::Error> {
    /// use snapshotter::PullRequest;
    ///
    /// let report = snapshotter.pull(&PullRequest::new("vm:v1".parse().unwrap())).await?;
    /// println!("{} bytes fetched", report.fetched_bytes);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NotFound` where neither the store nor the registry has it; `Damaged` for what comes and is not what it should be;
    /// `InvalidInput` without a configured registry; `PermissionDenied` and `Unavailable` as the servers say; `NoSpace`.
    #[tracing::instrument(skip_all, fields(reference = %request.reference))]
    pub async fn pull(&self, request: &PullRequest) -> Result<PullReport> {
        let request = request.clone();
        self.counted(Operation::Pull, move |inner, store, activity| {
            let remote = require(inner.remote(
                store,
                request.registry.as_ref(),
                request.content.as_ref(),
                activity,
            )?)?;
            let context = Context {
                store,
                limit: &inner.restores.transfers,
                flights: &inner.flights,
                remote: &remote,
                activity,
            };
            let report = remote::pull(&context, &request)?;
            inner.metrics.count(|metrics| {
                metrics.fetched_bytes += report.fetched_bytes;
                metrics.blob_hits += report.reused_blobs;
                metrics.blob_misses += report.fetched_blobs;
            });
            Ok(report)
        })
        .await
    }

    /// Copies a snapshot from where one configuration says to where another does, contents too, and keeps nothing of it: no
    /// store is opened, and `root_dir` and the daemon of both have no meaning. Contents are verified on the way; what is there
    /// already is not sent. The files are the same snapshot's there; its manifest is another one where contents are in the
    /// registry at one end, because it names them.
    ///
    /// ```no_run
    /// # async fn example(near: snapshotter::Config, far: snapshotter::Config) -> Result<(), snapshotter::Error> {
    /// use snapshotter::{CopyRequest, Snapshotter};
    ///
    /// let request = CopyRequest::new("vm:v1".parse().unwrap());
    /// let report = Snapshotter::copy(&near, &far, &request).await?;
    /// println!("{} is in {}", report.reference, report.publication.place);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NotFound` where it is not there; `Damaged` for what comes and is not what it should be, and nothing has its name then;
    /// `AlreadyExists` where the version is another snapshot there; `InvalidInput` without a registry in both and contents
    /// in the second; `PermissionDenied` and `Unavailable` as the servers say.
    #[tracing::instrument(skip_all, fields(reference = %request.reference))]
    pub async fn copy(from: &Config, to: &Config, request: &CopyRequest) -> Result<CopyReport> {
        let (from, to, request) = (from.clone(), to.clone(), request.clone());
        storeless(request.observer.clone(), move |activity| {
            let limits = Limits::new(to.snapshot_concurrency);
            let (from, to) = (open(&from, "from")?, open(&to, "to")?);
            remote::copy((&from, &to), &limits.transfers, &request, activity)
                .map_err(|error| error.with_reference(&request.reference))
        })
        .await
    }

    /// Removes what no manifest needs from the place of contents that a configuration names, for all who publish there: their
    /// registries have to be within reach. The first call lists what may go, one that comes a grace later removes it. No store
    /// is opened, and `root_dir` and the daemon have no meaning.
    ///
    /// ```no_run
    /// # async fn example(config: snapshotter::Config) -> Result<(), snapshotter::Error> {
    /// use snapshotter::{CollectRequest, Snapshotter};
    ///
    /// let request = CollectRequest::new().no_other_publishers(true);
    /// let report = Snapshotter::collect_remote(&config, &request).await?;
    /// println!("{} removed, {} may go later", report.removed, report.candidates);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` without a registry and contents, and where others may publish; `Unsupported` where contents are in the
    /// registry; `NotFound` where there are contents and nobody is known to publish; `Busy` while another collection is under
    /// way. Whatever is named there and cannot be read is an error too, of the kind that reading it had, and nothing is removed.
    #[tracing::instrument(skip_all)]
    pub async fn collect_remote(
        config: &Config,
        request: &CollectRequest,
    ) -> Result<CollectReport> {
        let (config, request) = (config.clone(), request.clone());
        storeless(None, move |activity| {
            remote::collect(&config, &request, activity)
        })
        .await
    }

    /// The snapshots in the configured registry: all versions of a name, or, where the registry can list its
    /// repositories, of all names below the namespace.
    ///
    /// # Errors
    /// `NotFound` for a name that has no versions; `Unsupported` where the registry does not list its repositories; those of reaching it.
    pub async fn list_remote(&self, name: Option<&str>) -> Result<Vec<RemoteSnapshot>> {
        let name = name.map(str::to_owned);
        self.run(move |inner, _, activity| {
            require(inner.configured(activity))?.list(name.as_deref(), activity)
        })
        .await
    }

    /// What the configured registry says of snapshots in short, as a list shows it: their manifests are read, side by side,
    /// 1000 at most. With `sizes`, lists of files that are not long are read where the manifest does not say how much it is:
    /// that is where it is of format v1. What cannot be read is left out, with a warning.
    ///
    /// # Errors
    /// `Cancelled`; `InvalidInput` without a configured registry.
    pub async fn summarize_remote(
        &self,
        references: &[Reference],
        sizes: bool,
    ) -> Result<RemoteSummaries> {
        let references = references.to_vec();
        self.run(move |inner, _, activity| {
            let remote = require(inner.configured(activity))?;
            remote.summaries(&inner.restores.transfers, &references, sizes, activity)
        })
        .await
    }

    /// What the configured registry says of a snapshot, which need not be here.
    ///
    /// # Errors
    /// `NotFound`; `Damaged` and `Unsupported` for what is no snapshot; those of reaching the registry.
    pub async fn inspect_remote(&self, reference: &Reference) -> Result<RemoteDetails> {
        let reference = reference.clone();
        self.run(move |inner, _, activity| {
            require(inner.configured(activity))?.describe(&reference, activity)
        })
        .await
    }

    /// Deletes a snapshot's manifest in the configured registry, and with it every version that is the same snapshot. Its
    /// contents stay, because other snapshots may need them, and what is here stays too: its only copy is then here, so it is
    /// made durable first, and garbage collection keeps it. Returns the manifest's digest.
    ///
    /// # Errors
    /// `NotFound`; `Unsupported` where the registry does not delete, or it is no snapshot; those of reaching it.
    pub async fn remove_remote(&self, reference: &Reference) -> Result<Sha256> {
        let reference = reference.clone();
        self.run(move |inner, store, activity| {
            let remote = require(inner.configured(activity))?;
            remote::remove(store, &remote, &reference, activity)
        })
        .await
    }

    /// Whether the configured registry and place of contents can be reached and let this process in; `None` where none is
    /// configured. A bucket is tried as a publication uses it: a probe of 5 MiB, `xxh3/doctor-probe-…`, is sent in parts
    /// and one of 2 bytes, `packs/doctor-probe-…`, at once; they are looked at, read and removed, if the keys may remove. Changes nothing else, but for Dragonfly: whether its daemon finds files in the root is tried with the packed
    /// stream of an empty file, an object of 20 bytes that is in the bucket afterwards.
    ///
    /// # Errors
    /// `Cancelled`. What is wrong with a server is in the diagnosis.
    pub async fn diagnose_remote(&self) -> Result<Option<RemoteDiagnosis>> {
        self.run(move |inner, _, activity| {
            let remote = inner.remote.as_ref();
            remote.map(|remote| remote.diagnose(activity)).transpose()
        })
        .await
    }
}

/// Runs a call that has no handle to close: whoever gives up waits here.
async fn storeless<T: Report + Send + 'static>(
    observer: Option<Arc<dyn Observer>>,
    work: impl FnOnce(&Activity) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (running, ended) = mpsc::channel();
    let _waits = WaitOnDrop(ended);
    let cancelled = Arc::new(AtomicBool::new(false));
    let _guard = CancelOnDrop(Arc::clone(&cancelled));
    threads::run(move || {
        let _running: mpsc::Sender<()> = running;
        activity::run(cancelled, observer, work)
    })
    .await
}

/// One end of a copy.
fn open(config: &Config, which: &str) -> Result<Remote> {
    let rates = Arc::new(Rates::new(config.limit_upload, config.limit_download));
    let remote = Remote::configured(config, None)?;
    remote.map(|remote| remote.at(&rates)).ok_or_else(|| {
        Error::invalid(format!("the configuration to copy {which} has no registry"))
            .with_hint("set registry.endpoint in it; a directory will do: oci-layout:/path")
    })
}

pub(super) fn require(remote: Option<Remote>) -> Result<Remote> {
    remote.ok_or_else(|| {
        Error::invalid("no registry is configured")
            .with_hint("set registry.endpoint; a directory will do: oci-layout:/path")
    })
}

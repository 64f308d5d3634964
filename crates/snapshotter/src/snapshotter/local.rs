//! What a handle does with the snapshots of its own store.

use super::Snapshotter;
use crate::convert::{self, ConvertReport, ConvertRequest};
use crate::inspect::{self, ChangedFile, RemoveReport, SnapshotDetails, SnapshotSummary};
use crate::metrics::Operation;
use crate::restore::{self, RestorePlan, RestoreReport, RestoreRequest};
use crate::snapshot::{self, SnapshotPlan, SnapshotReport, SnapshotRequest};
use crate::words::error::Result;
use crate::words::reference::Reference;

impl Snapshotter {
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
        self.take(request, None).await
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
            let remote = inner.remote_of_restore(store, &request, activity)?;
            let remote = remote.as_ref().map(|remote| (remote, &inner.flights));
            let (limits, config) = (&inner.restores, &inner.config);
            let report = restore::run(store, limits, config, &request, remote, activity)?;
            inner.metrics.count(|metrics| {
                metrics.restored_bytes += report.data_bytes;
                metrics.fetched_bytes += report.fetched_bytes;
                metrics.blob_misses += report.fetched_blobs;
            });
            Ok(report)
        })
        .await
    }

    /// Keeps a snapshot in another format too, under a name of its own: the same files with the same bytes and attributes. It needs
    /// no privileges, restores nothing, and leaves the old snapshot as it is. The new one is here alone; `push` publishes it.
    ///
    /// Both formats keep the same, but for one thing: zeros that were written are a hole in format v2.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # std::fs::create_dir(dir.path().join("vm"))?;
    /// # std::fs::write(dir.path().join("vm/memory"), "bytes")?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let snapshotter = snapshotter::Snapshotter::open(snapshotter::Config::new(dir.path().join("store"))).await?;
    /// # snapshotter.snapshot(&snapshotter::SnapshotRequest::new("vm", "v1", dir.path().join("vm"))).await?;
    /// use snapshotter::{ConvertRequest, Format};
    ///
    /// let request = ConvertRequest::new("vm:v1".parse()?, "vm", "v1-pages", Format::V2);
    /// let report = snapshotter.convert(&request).await?;
    /// assert_eq!(report.snapshot.files, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NotFound` for a snapshot that is not here; `AlreadyExists` when the new version exists; `InvalidInput` where it is of that
    /// format already; `Damaged`, with the path, for a file whose stored bytes have changed or gone; `NoSpace`; `Unsupported`
    /// beyond the format's limits.
    #[tracing::instrument(skip_all, fields(reference = %request.reference, name = request.name, version = request.version))]
    pub async fn convert(&self, request: &ConvertRequest) -> Result<ConvertReport> {
        let request = request.clone();
        self.counted(Operation::Convert, move |inner, store, activity| {
            let durability = inner.config.durability;
            convert::run(store, &inner.snapshots, durability, &request, activity)
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

    /// What [`list`](Self::list) says of one snapshot.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn find(&self, reference: &Reference) -> Result<SnapshotSummary> {
        let reference = reference.clone();
        self.run(move |_, store, _| inspect::find(store, &reference))
            .await
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

    /// The files that two snapshots of format v2 both have, with other bytes, and how many pages of each differ. Only what the
    /// two do not share is read.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # std::fs::create_dir(dir.path().join("vm"))?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let snapshotter = snapshotter::Snapshotter::open(snapshotter::Config::new(dir.path().join("store"))).await?;
    /// # for (version, bytes) in [("v1", "old"), ("v2", "new")] {
    /// #     std::fs::write(dir.path().join("vm/memory"), bytes)?;
    /// #     let request = snapshotter::SnapshotRequest::new("vm", version, dir.path().join("vm"));
    /// #     snapshotter.snapshot(&request.format(snapshotter::Format::V2)).await?;
    /// # }
    /// let changed = snapshotter.changed_pages(&"vm:v1".parse()?, &"vm:v2".parse()?).await?;
    /// assert_eq!(changed[0].pages, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NotFound`; `Unsupported` where one is of format v1; `Damaged` where a pack of one is bad or missing.
    pub async fn changed_pages(
        &self,
        from: &Reference,
        to: &Reference,
    ) -> Result<Vec<ChangedFile>> {
        let (from, to) = (from.clone(), to.clone());
        self.counted(Operation::Diff, move |_, store, activity| {
            inspect::changed_pages(store, &from, &to, activity)
        })
        .await
    }

    /// A snapshot's document, byte for byte as it is (or would be) in a registry: up to 256 MiB.
    ///
    /// # Errors
    /// `NotFound`; `Damaged` when it is not what was stored.
    pub async fn document(&self, reference: &Reference) -> Result<Vec<u8>> {
        let reference = reference.clone();
        self.run(move |_, store, _| inspect::document(store, &reference))
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
            let remote = inner.remote_of_restore(store, &request, activity)?;
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
}

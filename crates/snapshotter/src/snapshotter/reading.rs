//! How a handle takes snapshots, of a stream too, and what it reads of them without restoring it.

use std::io::Read;
use std::path::PathBuf;

use super::Snapshotter;
use crate::metrics::Operation;
use crate::opened::{self, Opened};
use crate::read::{self, DirectoryDetails};
use crate::snapshot::{self, SnapshotReport, SnapshotRequest, Stream};
use crate::words::error::Result;
use crate::words::reference::Reference;

impl Snapshotter {
    /// Takes a snapshot of one file, whose bytes come from a reader: a pipe, for one. `path` is what the file is called in it; of the
    /// request, what is about directories (`base_dir`, `files`, patterns) means nothing. A call that is given up leaves the
    /// reader to a thread, which ends when that next gives something.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let snapshotter = snapshotter::Snapshotter::open(snapshotter::Config::new(dir.path().join("store"))).await?;
    /// use snapshotter::SnapshotRequest;
    ///
    /// let request = SnapshotRequest::new("dump", "v1", "");
    /// let report = snapshotter.snapshot_stream(&request, "all.sql", &b"bytes"[..]).await?;
    /// assert_eq!((report.files, report.logical_bytes), (1, 5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`snapshot`](Self::snapshot); what the reader says.
    #[tracing::instrument(skip_all, fields(name = request.name, version = request.version))]
    pub async fn snapshot_stream(
        &self,
        request: &SnapshotRequest,
        path: impl Into<PathBuf>,
        reader: impl Read + Send + 'static,
    ) -> Result<SnapshotReport> {
        self.take(request, Some((path.into(), Box::new(reader))))
            .await
    }

    /// Opens a snapshot, whose files are then read where they are. Of one that is not here all is fetched first, as
    /// [`restore`](Self::restore) does. It stays until what this returns and all of its readers are dropped, or this handle is
    /// [closed](Self::close); clones of the handle are not needed for that.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # std::fs::create_dir(dir.path().join("vm"))?;
    /// # std::fs::write(dir.path().join("vm/memory"), "bytes")?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let snapshotter = snapshotter::Snapshotter::open(snapshotter::Config::new(dir.path().join("store"))).await?;
    /// # snapshotter.snapshot(&snapshotter::SnapshotRequest::new("vm", "v1", dir.path().join("vm"))).await?;
    /// let opened = snapshotter.open_snapshot(&"vm:v1".parse()?).await?;
    /// assert_eq!(opened.files()[0].size, 5);
    /// let mut bytes = [0; 3];
    /// opened.reader("memory")?.read_at(&mut bytes, 2)?;
    /// assert_eq!(&bytes, b"tes");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NotFound`; `Damaged` where its document, or in format v2 a pack, is damaged or missing and cannot be fetched; those of
    /// fetching it.
    #[tracing::instrument(skip_all, fields(%reference))]
    pub async fn open_snapshot(&self, reference: &Reference) -> Result<Opened> {
        let reference = reference.clone();
        let opened = self.counted(Operation::Read, move |inner, store, activity| {
            let remote = inner.configured(activity);
            let remote = remote.as_ref().map(|remote| (remote, &inner.flights));
            opened::open(store, &inner.restores, &reference, remote, activity)
        });
        let opened = opened.await?;
        opened.keep_open(self.clone());
        Ok(opened)
    }

    /// Compares a directory with a snapshot that is here. Files that both have in one size are read.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # std::fs::create_dir(dir.path().join("vm"))?;
    /// # std::fs::write(dir.path().join("vm/memory"), "bytes")?;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let snapshotter = snapshotter::Snapshotter::open(snapshotter::Config::new(dir.path().join("store"))).await?;
    /// # snapshotter.snapshot(&snapshotter::SnapshotRequest::new("vm", "v1", dir.path().join("vm"))).await?;
    /// let found = snapshotter.compare_directory(&"vm:v1".parse()?, dir.path().join("vm")).await?;
    /// assert!(found.changed.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NotFound` for the snapshot or the directory; `PermissionDenied` for what cannot be read; `Damaged` for what the snapshot
    /// has no right bytes of.
    #[tracing::instrument(skip_all, fields(%reference))]
    pub async fn compare_directory(
        &self,
        reference: &Reference,
        directory: impl Into<PathBuf>,
    ) -> Result<DirectoryDetails> {
        let (reference, directory) = (reference.clone(), directory.into());
        self.counted(Operation::Diff, move |inner, store, activity| {
            read::compare(store, &inner.snapshots, &reference, &directory, activity)
        })
        .await
    }

    pub(super) async fn take(
        &self,
        request: &SnapshotRequest,
        stream: Option<Stream>,
    ) -> Result<SnapshotReport> {
        let request = request.clone();
        self.counted(Operation::Snapshot, move |inner, store, activity| {
            let durability = inner.config.durability;
            let remote = inner.remote_of_snapshot(store, &request, activity)?;
            let (limits, remote) = (&inner.snapshots, remote.as_ref());
            let what = (&request, stream);
            let report = snapshot::run(store, limits, durability, what, remote, activity)?;
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
}

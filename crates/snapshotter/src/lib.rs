//! Snapshot and restore sets of files: VM and process checkpoints, sparse memory dumps, disk images, directories.
//!
//! A [`Snapshotter`] keeps snapshots under one directory, its root. [`snapshot`](Snapshotter::snapshot) takes the files
//! below a base directory and stores each file's bytes once, under their BLAKE3; [`restore`](Snapshotter::restore) puts
//! them somewhere else, exactly as they were, or says what it cannot. Holes stay holes, hardlinks hardlinks, times keep
//! their nanoseconds. Files promised to be read-only are hardlinked in and out where the filesystem allows it, so that
//! resuming a checkpoint copies nothing.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let checkpoint = dir.path().join("vm-1");
//! # std::fs::create_dir(&checkpoint)?;
//! # std::fs::write(checkpoint.join("memory"), vec![7; 100_000])?;
//! # std::fs::write(checkpoint.join("disk.img"), "blocks")?;
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! use snapshotter::{Config, File, RestoreRequest, SnapshotRequest, Snapshotter};
//!
//! let snapshotter = Snapshotter::open(Config::new(dir.path().join("store"))).await?;
//!
//! // Pause the VM, then:
//! let taken = snapshotter
//!     .snapshot(
//!         &SnapshotRequest::new("sandboxes/vm-1", "v1", &checkpoint)
//!             .file(File::new("memory").read_only(true))
//!             .file(File::new("disk.img")),
//!     )
//!     .await?;
//! println!("{}: {} files, {} bytes new", taken.reference, taken.files, taken.stored_bytes);
//!
//! // Somewhere else, some other time:
//! let request = RestoreRequest::new("sandboxes/vm-1:v1".parse()?, dir.path().join("vm-2"));
//! let restored = snapshotter.restore(&request).await?;
//! assert_eq!(restored.files, 2);
//! snapshotter.close().await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })
//! # }
//! ```
//!
//! A handle is `Clone + Send + Sync`, its methods are async and cancelled by dropping them, and several processes can use one
//! root at once. Beside `snapshot` and `restore` there are [`list`](Snapshotter::list), [`inspect`](Snapshotter::inspect),
//! [`remove`](Snapshotter::remove), [`pin`](Snapshotter::pin), [`gc`](Snapshotter::gc), [`verify`](Snapshotter::verify), which
//! repairs, [`rebuild`](Snapshotter::rebuild), [`usage`](Snapshotter::usage) and [`metrics`](Snapshotter::metrics). A handle
//! collects garbage in the background, unless [`Gc::background`] is off.
//!
//! # Features
//!
//! None is on by default, and without any a snapshot stays on its machine.
//!
//! | feature | brings | is built with it |
//! |---|---|---|
//! | `registry` | snapshots that travel: names and lists of files in an OCI registry or image layout, contents there too or in a directory (`push`, `pull`, `copy`, restores from elsewhere) | reqwest, rustls |
//! | `object-storage` | contents straight in a bucket, of any provider below; `registry` | opendal |
//! | `object-storage-s3`, `-gcs`, `-azblob`, `-oss`, `-obs`, `-cos` | the same for one provider: Amazon S3 and what speaks as it, Google, Azure, Alibaba, Huawei, Tencent | opendal's service for it |
//! | `mount` | a snapshot as a read-only filesystem ([`Opened::mount`]) | fuser |
//! | `dragonfly` | contents through Dragonfly's daemon, which has them from other nodes, in front of a bucket; `registry` | tonic |
//!
//! The features `test-hook` and `fuzzing` are for this project's own tests and are no part of the API.
//!
//! # What it is not
//!
//! Not a containerd snapshotter plugin and not a CSI snapshotter: it knows files, not container layers or volumes. It
//! does not pause what writes the files; a file that changes while it is read is an error.
//!
//! The library never prints, never reads the environment and never looks into the home directory. It logs through
//! [`tracing`] and tells an [`Observer`] how it gets on.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "snapshotter needs Linux: openat2, O_TMPFILE, FICLONE, F_SETLEASE and SEEK_DATA have no portable counterpart"
);

mod activity;
mod catalog;
mod config;
mod confirmation;
mod convert;
mod diagnose;
mod format;
mod fs;
mod gc;
#[cfg(feature = "registry")]
mod http;
mod inspect;
mod limit;
mod lock;
mod metrics;
#[cfg(feature = "mount")]
mod mount;
mod opened;
#[cfg(feature = "registry")]
mod pace;
mod pass;
#[cfg(feature = "registry")]
mod patience;
mod prune;
#[cfg(feature = "registry")]
mod rate;
mod read;
mod rebuild;
#[cfg(feature = "registry")]
mod registry;
#[cfg(feature = "registry")]
mod remote;
#[cfg(not(feature = "registry"))]
#[path = "remote_absent.rs"]
mod remote;
mod reports;
mod restore;
mod snapshot;
mod snapshotter;
mod store;
mod threads;
#[cfg(feature = "registry")]
mod tls;
#[cfg(feature = "registry")]
mod transport;
mod verify;
mod words;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;

#[doc(hidden)]
pub mod small {
    //! Files that the command reads as the library reads its own: not part of the API.
    pub use crate::fs::small::{read, read_from};
}

#[cfg(feature = "test-hook")]
#[doc(hidden)]
pub mod hook {
    //! Stops the world at the Nth change: for tests alone.
    pub use crate::fs::hook::{Action, arm, count};
    pub use crate::store::pack::pack;
}

pub use config::{Cache, Config, Durability, Gc};
pub use convert::{ConvertReport, ConvertRequest};
pub use diagnose::{Diagnosis, OutputDiagnosis};
pub use format::content::ContentId;
pub use format::pack::PackId;
pub use gc::{
    GcAmount, GcReport, GcRequest, GcShortfall, GcStop, KeptFor, KeptSnapshots, ReleasedSnapshot,
    SnapshotUsage, UsageDetails,
};
pub use inspect::{
    ChangedFile, FileDetails, PackDetails, PathDetails, PublishedAt, RemoveReport, SnapshotDetails,
    SnapshotState, SnapshotSummary, SymlinkDetails, TagReport, Usage,
};
pub use metrics::{Histogram, Metrics, Operation, OperationMetrics};
#[cfg(feature = "mount")]
pub use mount::{Mounted, unmount};
pub use opened::{Opened, Reader};
pub use prune::{
    KeepReason, KeptSnapshot, PruneReport, PruneRequest, PruneRule, PrunedSnapshot, Retention,
};
pub use read::DirectoryDetails;
pub use rebuild::{RebuildReport, RebuildRequest, RebuiltSnapshot};
#[cfg(feature = "registry")]
pub use registry::Registry;
#[cfg(feature = "registry")]
pub use remote::{
    CollectReport, CollectRequest, CopyReport, CopyRequest, PullReport, PullRequest, PushReport,
    PushRequest, RemoteDetails, RemoteDiagnosis, RemoteSnapshot, RemoteSummaries, RemoteSummary,
};
pub use restore::{RestorePlan, RestoreReport, RestoreRequest};
pub use snapshot::{
    Compression, EntryKind, File, Format, FramePages, PagedReport, ParentChoice, ParentChosen,
    ParentReport, PlannedEntry, SnapshotPlan, SnapshotReport, SnapshotRequest,
};
pub use snapshotter::Snapshotter;
pub use store::{DiskUsage, Holder};
#[cfg(feature = "registry")]
pub use transport::{Content, ContentProvider, Credentials};
#[cfg(feature = "dragonfly")]
pub use transport::{Dragonfly, DragonflyDiagnosis};
pub use verify::{BadBlob, BadSnapshot, Subset, VerifyReport, VerifyRequest};
pub use words::capability::Capability;
pub use words::digest::{Checksum, Digest, DigestError, Sha256};
pub use words::error::{Error, ErrorKind, Result};
pub use words::placement::{LinkMode, Placement, PlacementCount, Placements};
pub use words::progress::{Event, Observer, Phase, Warning, WarningKind};
pub use words::publication::Publication;
pub use words::reference::{Reference, ReferenceError};
#[cfg(feature = "registry")]
pub use words::sharing::SharedWith;

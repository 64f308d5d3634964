//! Configuration: plain data, checked once when a handle is opened.

use std::path::PathBuf;
use std::time::Duration;

use crate::words::error::{Error, Result};
use crate::words::reference::Reference;

/// How a [`Snapshotter`](crate::Snapshotter) works. Field names and defaults follow the Go library where it has them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Where snapshots are kept. Made (0700) if it is not there. Must be on a local filesystem; on the one the
    /// snapshotted and restored files are on, read-only files are hardlinked instead of copied.
    pub root_dir: PathBuf,
    /// Whose snapshots these are: the first component of all their names, `a` of `a/vm:v1`. A tenant has a store of its own,
    /// `tenants/<tenant>` in the root, and a place of contents of its own in the configured one: `<prefix>/<tenant>` in a bucket,
    /// the directory `<tenant>`, which has to be there, in a directory. So a handle neither finds nor shares what another
    /// tenant's has stored or sent. Names of others are refused. Default `None`: one store for all names.
    pub tenant: Option<String>,
    /// How many files all snapshot calls of a handle work on at once, on each filesystem they read; and how many files all
    /// calls that publish send at once. Default 5.
    pub snapshot_concurrency: usize,
    /// How many files all restore and verify calls of a handle work on at once, on each filesystem: that of the output for a
    /// restore, that of the store for a verification, so that one that is stuck holds no other. And how many files all calls
    /// of a handle fetch at once, which counts for itself. Default 5. Both are fewer where this process's limit on open files,
    /// as it is when the handle is opened, has no room for so many; the library does not change that limit.
    pub restore_concurrency: usize,
    /// When a snapshot call returns. Default [`Durability::Full`].
    pub durability: Durability,
    /// How long a call waits for another process that holds the catalog before it fails with
    /// [`Busy`](crate::ErrorKind::Busy). Default 30 seconds.
    pub busy_timeout: Duration,
    /// Lets read-only restores that differ in the modification time alone share one inode, so that such a file comes
    /// back with the time it had in another snapshot. Default `false`.
    pub relaxed_times: bool,
    /// When the disk is cleaned up.
    pub gc: Gc,
    /// Whole files that restores of format v2 are made from.
    pub cache: Cache,
    /// How many bytes of contents a second all calls of a handle send together; to directories as many as there are, and what
    /// Dragonfly's daemon sends is the daemon's. Default `None`, no limit.
    #[cfg(feature = "registry")]
    pub limit_upload: Option<u64>,
    /// The same for those that they fetch. Default `None`, no limit.
    #[cfg(feature = "registry")]
    pub limit_download: Option<u64>,
    /// Where snapshots are published to and fetched from. Default: nowhere, and everything stays here.
    #[cfg(feature = "registry")]
    pub registry: Option<crate::Registry>,
    /// Where their bytes are. Default: nowhere to publish to; what has its bytes in the registry can be fetched.
    #[cfg(feature = "registry")]
    pub content: Option<crate::Content>,
    /// Dragonfly's daemon, through which contents in a bucket travel. Default: none, and they go straight there.
    #[cfg(feature = "dragonfly")]
    pub dragonfly: Option<crate::Dragonfly>,
}

/// When a snapshot call returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// When the snapshot would survive a power cut: it is on the disk, or published, and can be fetched again.
    #[default]
    Full,
    /// When the snapshot would survive the death of this process. It is synced in the background; after a power cut
    /// before that, its bytes are hashed before their first use, and what was lost is reported as damaged.
    Background,
}

/// Cache entries: whole files with contents of format v2, in the root, beside the packs that are the truth. Read-only files are
/// hardlinks of one; writable ones are clones of one, where the filesystem clones, or copies, with the pages written that differ. They last until the next boot, and garbage collection takes them before anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cache {
    /// Bytes that the filesystem keeps for them. What is hardlinked from outside counts nothing. Default `None`, no limit but
    /// the disk's thresholds; 0: there are none.
    pub max_bytes: Option<u64>,
    /// How many entries of a path there are for each name of snapshots, the newest. Default 1; 0: there are none.
    pub keep: usize,
    /// Whether entries of writable files are kept where the filesystem does not clone, and copied from. Each then takes its place
    /// on the disk a second time, and the restore that makes it writes twice; the next ones copy what they would decode, which is
    /// faster where there are few cores. Default `false`.
    pub copies: bool,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            max_bytes: None,
            keep: 1,
            copies: false,
        }
    }
}

/// Garbage collection: which snapshots go when the disk or the store is too full. Those go that the configured registry and
/// place of contents have, which is asked right before, and that are not pinned, not in use and not young, the least recently
/// used first.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Gc {
    /// Whether a thread of the handle collects while the handle is open. Default `true`. Without it,
    /// [`Snapshotter::gc`](crate::Snapshotter::gc) collects when it is called. The command works without it: it collects
    /// when told to, by `snapshotter gc`.
    pub background: bool,
    /// Time between two looks at the disk in the background, and before the first one. Default 5 minutes.
    pub interval: Duration,
    /// Collection starts when the filesystem is this full, in percent, of bytes or of inodes. What this process may not write
    /// to, such as root's reserve, counts as full. Default 90.
    pub disk_high_threshold_percent: f64,
    /// Collection stops when the filesystem is no fuller than this, in percent. Default 70.
    pub disk_low_threshold_percent: f64,
    /// Bytes of data the store may hold, however empty the disk is: the `stored_bytes` of [`Usage`](crate::Usage).
    /// Default `None`, no limit. It bounds what is collected, not what is taken: a snapshot is never refused for it.
    pub max_bytes: Option<u64>,
    /// Snapshots released between two looks at what that was good for. Default 10.
    pub batch_size: usize,
    /// Snapshots used within this time are kept. Default 5 minutes.
    pub min_retention_period: Duration,
    /// Whether snapshots go too whose only copy is here. Nobody is asked then. Default `false`.
    pub include_unpublished: bool,
    /// Whether a Dragonfly daemon's word is enough that a bucket has an object, where the bucket cannot be asked from here.
    /// Default `false`: such snapshots stay.
    pub trust_daemon: bool,
}

impl Default for Gc {
    fn default() -> Self {
        Self {
            background: true,
            interval: Duration::from_secs(300),
            disk_high_threshold_percent: 90.0,
            disk_low_threshold_percent: 70.0,
            max_bytes: None,
            batch_size: 10,
            min_retention_period: Duration::from_secs(300),
            include_unpublished: false,
            trust_daemon: false,
        }
    }
}

impl Config {
    /// The defaults, with snapshots kept under `root_dir`.
    #[must_use]
    pub fn new(root_dir: impl Into<PathBuf>) -> Self {
        Self {
            root_dir: root_dir.into(),
            tenant: None,
            snapshot_concurrency: 5,
            restore_concurrency: 5,
            durability: Durability::default(),
            busy_timeout: Duration::from_secs(30),
            relaxed_times: false,
            gc: Gc::default(),
            cache: Cache::default(),
            #[cfg(feature = "registry")]
            limit_upload: None,
            #[cfg(feature = "registry")]
            limit_download: None,
            #[cfg(feature = "registry")]
            registry: None,
            #[cfg(feature = "registry")]
            content: None,
            #[cfg(feature = "dragonfly")]
            dragonfly: None,
        }
    }

    /// Sets [`tenant`](Self::tenant).
    #[must_use]
    pub fn tenant(mut self, tenant: Option<String>) -> Self {
        self.tenant = tenant;
        self
    }

    /// Where the store is: the root, or the tenant's in it.
    #[must_use]
    pub fn store_dir(&self) -> PathBuf {
        crate::store::store_dir(&self.root_dir, self.tenant.as_deref())
    }

    /// Sets [`limit_upload`](Self::limit_upload).
    #[cfg(feature = "registry")]
    #[must_use]
    pub fn limit_upload(mut self, bytes_per_second: Option<u64>) -> Self {
        self.limit_upload = bytes_per_second;
        self
    }

    /// Sets [`limit_download`](Self::limit_download).
    #[cfg(feature = "registry")]
    #[must_use]
    pub fn limit_download(mut self, bytes_per_second: Option<u64>) -> Self {
        self.limit_download = bytes_per_second;
        self
    }

    /// Sets [`registry`](Self::registry).
    #[cfg(feature = "registry")]
    #[must_use]
    pub fn registry(mut self, registry: crate::Registry) -> Self {
        self.registry = Some(registry);
        self
    }

    /// Sets [`content`](Self::content).
    #[cfg(feature = "registry")]
    #[must_use]
    pub fn content(mut self, content: crate::Content) -> Self {
        self.content = Some(content);
        self
    }

    /// Sets [`dragonfly`](Self::dragonfly).
    #[cfg(feature = "dragonfly")]
    #[must_use]
    pub fn dragonfly(mut self, dragonfly: crate::Dragonfly) -> Self {
        self.dragonfly = Some(dragonfly);
        self
    }

    /// Sets [`snapshot_concurrency`](Self::snapshot_concurrency).
    #[must_use]
    pub fn snapshot_concurrency(mut self, files: usize) -> Self {
        self.snapshot_concurrency = files;
        self
    }

    /// Sets [`restore_concurrency`](Self::restore_concurrency).
    #[must_use]
    pub fn restore_concurrency(mut self, files: usize) -> Self {
        self.restore_concurrency = files;
        self
    }

    /// Sets [`durability`](Self::durability).
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Sets [`busy_timeout`](Self::busy_timeout).
    #[must_use]
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// Sets [`relaxed_times`](Self::relaxed_times).
    #[must_use]
    pub fn relaxed_times(mut self, relaxed: bool) -> Self {
        self.relaxed_times = relaxed;
        self
    }

    /// Sets [`gc`](Self::gc).
    #[must_use]
    pub fn gc(mut self, gc: Gc) -> Self {
        self.gc = gc;
        self
    }

    /// Sets [`cache`](Self::cache).
    #[must_use]
    pub fn cache(mut self, cache: Cache) -> Self {
        self.cache = cache;
        self
    }

    /// The daemon, checked; none without the feature `dragonfly`.
    #[cfg(feature = "registry")]
    pub(crate) fn daemon(&self) -> Result<Option<std::sync::Arc<crate::transport::Daemon>>> {
        #[cfg(feature = "dragonfly")]
        if let Some(dragonfly) = &self.dragonfly {
            let daemon = crate::transport::Daemon::open(dragonfly)?;
            crate::transport::require_bucket(self.registry.is_some(), self.content.as_ref())?;
            return Ok(Some(daemon));
        }
        Ok(None)
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let positive = |count: usize, field: &str| {
            require(
                (1..=1024).contains(&count),
                field,
                "must be between 1 and 1024",
            )
        };
        require(
            !self.root_dir.as_os_str().is_empty(),
            "root_dir",
            "must not be empty",
        )?;
        let is_tenant = |name: &String| {
            Reference::new(name, "v").is_ok_and(|reference| reference.tenant() == name)
        };
        require(
            self.tenant.as_ref().is_none_or(is_tenant),
            "tenant",
            "must be the first component of a snapshot's name",
        )?;
        positive(self.snapshot_concurrency, "snapshot_concurrency")?;
        positive(self.restore_concurrency, "restore_concurrency")?;
        require(
            i32::try_from(self.busy_timeout.as_millis()).is_ok(),
            "busy_timeout",
            "must be at most 24 days",
        )?;
        #[cfg(feature = "registry")]
        for (limit, field) in [
            (self.limit_upload, "limit_upload"),
            (self.limit_download, "limit_download"),
        ] {
            require(
                limit.is_none_or(|limit| limit >= 1024),
                field,
                "must be at least 1024 bytes a second",
            )?;
        }
        self.gc.validate()
    }
}

impl Gc {
    fn validate(&self) -> Result<()> {
        let percent = |value: f64, field: &str| {
            require(
                value > 0.0 && value <= 100.0,
                field,
                "must be above 0 and at most 100",
            )
        };
        require(
            !self.interval.is_zero(),
            "gc.interval",
            "must be longer than zero",
        )?;
        percent(
            self.disk_high_threshold_percent,
            "gc.disk_high_threshold_percent",
        )?;
        percent(
            self.disk_low_threshold_percent,
            "gc.disk_low_threshold_percent",
        )?;
        require(
            self.disk_low_threshold_percent <= self.disk_high_threshold_percent,
            "gc.disk_low_threshold_percent",
            "must not be above gc.disk_high_threshold_percent",
        )?;
        require(self.batch_size > 0, "gc.batch_size", "must be at least 1")
    }
}

fn require(holds: bool, field: &str, rule: &str) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::invalid(format!("{field} {rule}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        Config::new("/var/lib/snapshotter").validate().unwrap();
    }

    #[test]
    fn a_bad_field_is_named() {
        let good = || Config::new("/r");
        let gc = |change: fn(&mut Gc)| {
            let mut gc = Gc::default();
            change(&mut gc);
            good().gc(gc)
        };
        let cases = [
            (Config::new(""), "root_dir"),
            (good().tenant(Some("a/b".to_owned())), "tenant"),
            (good().tenant(Some("..".to_owned())), "tenant"),
            (good().tenant(Some(String::new())), "tenant"),
            (good().snapshot_concurrency(0), "snapshot_concurrency"),
            (good().restore_concurrency(5000), "restore_concurrency"),
            (good().busy_timeout(Duration::MAX), "busy_timeout"),
            (gc(|gc| gc.interval = Duration::ZERO), "gc.interval"),
            (gc(|gc| gc.batch_size = 0), "gc.batch_size"),
            (
                gc(|gc| gc.disk_high_threshold_percent = f64::NAN),
                "gc.disk_high_threshold_percent",
            ),
            (
                gc(|gc| gc.disk_low_threshold_percent = 95.0),
                "gc.disk_low_threshold_percent",
            ),
        ];
        for (config, field) in cases {
            let error = config.validate().unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidInput);
            assert!(error.to_string().starts_with(field), "{error}");
        }
    }
}

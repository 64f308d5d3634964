//! What to restore, and what a report says.

use std::path::PathBuf;
use std::time::Duration;

use crate::words::digest::Sha256;
use crate::words::format::Format;
use crate::words::placement::{LinkMode, Placements};
use crate::words::progress::Warning;
use crate::words::reference::Reference;

/// Which snapshot to restore, and where to.
///
/// ```
/// use snapshotter::RestoreRequest;
///
/// let request = RestoreRequest::new("sandboxes/vm-1:v3".parse()?, "/run/vm-2")
///     .path("memory")
///     .no_clobber(true);
/// assert_eq!(request.reference.version(), Some("v3"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RestoreRequest {
    /// The snapshot.
    pub reference: Reference,
    /// Where to put it. Made if it is not there. Symlinks on the way to it are followed; none below it is.
    pub output_dir: PathBuf,
    /// What to restore, relative to `output_dir`; a directory stands for all its descendants. Empty: everything.
    pub paths: Vec<PathBuf>,
    /// Patterns by gitignore's rules; of what is asked for, only what they match is restored, and what is below a directory that
    /// they match. Empty: all of it.
    pub include: Vec<String>,
    /// Patterns of what is not restored, though it is asked for, and not deleted either.
    pub exclude: Vec<String>,
    /// Deletes what is in the output and not in the snapshot: of what is asked for (`paths`, `include`), and nothing of what
    /// `exclude` matches. No symlink is followed, and what is mounted there is left, with a warning. Default `false`.
    pub delete: bool,
    /// How bytes get out of the store.
    pub link_mode: LinkMode,
    /// Refuses to replace anything that exists, before anything is written. Default `false`: files are replaced, each
    /// atomically, and what is already right is left as it is.
    pub no_clobber: bool,
    /// Restores set-user-ID and set-group-ID bits too, where owners can be restored. Default `false`: they are left out, with
    /// a warning. Ask for it only where the snapshot is trusted as root is.
    pub setid: bool,
    /// The registry to fetch from instead of the configured one, for this call.
    #[cfg(feature = "registry")]
    pub registry: Option<crate::Registry>,
    /// The place of contents to use instead of the configured one, for this call.
    #[cfg(feature = "registry")]
    pub content: Option<crate::Content>,
}

impl RestoreRequest {
    /// Whether all of the snapshot is asked for.
    pub(super) fn is_whole(&self) -> bool {
        self.paths.is_empty() && self.include.is_empty() && self.exclude.is_empty()
    }

    /// A restore of everything in a snapshot.
    #[must_use]
    pub fn new(reference: Reference, output_dir: impl Into<PathBuf>) -> Self {
        Self {
            reference,
            output_dir: output_dir.into(),
            paths: Vec::new(),
            include: Vec::new(),
            exclude: Vec::new(),
            delete: false,
            link_mode: LinkMode::default(),
            no_clobber: false,
            setid: false,
            #[cfg(feature = "registry")]
            registry: None,
            #[cfg(feature = "registry")]
            content: None,
        }
    }

    /// Adds a path to restore; the first one replaces "everything".
    #[must_use]
    pub fn path(mut self, path: impl Into<PathBuf>) -> Self {
        self.paths.push(path.into());
        self
    }

    /// Adds paths to restore.
    #[must_use]
    pub fn paths<P: Into<PathBuf>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.paths.extend(paths.into_iter().map(Into::into));
        self
    }

    /// Adds a pattern to [`include`](Self::include).
    #[must_use]
    pub fn include(mut self, pattern: impl Into<String>) -> Self {
        self.include.push(pattern.into());
        self
    }

    /// Adds a pattern to [`exclude`](Self::exclude).
    #[must_use]
    pub fn exclude(mut self, pattern: impl Into<String>) -> Self {
        self.exclude.push(pattern.into());
        self
    }

    /// Sets [`delete`](Self::delete).
    #[must_use]
    pub fn delete(mut self, delete: bool) -> Self {
        self.delete = delete;
        self
    }

    /// Sets [`link_mode`](Self::link_mode).
    #[must_use]
    pub fn link_mode(mut self, link_mode: LinkMode) -> Self {
        self.link_mode = link_mode;
        self
    }

    /// Sets [`no_clobber`](Self::no_clobber).
    #[must_use]
    pub fn no_clobber(mut self, no_clobber: bool) -> Self {
        self.no_clobber = no_clobber;
        self
    }

    /// Sets [`setid`](Self::setid).
    #[must_use]
    pub fn setid(mut self, setid: bool) -> Self {
        self.setid = setid;
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
}

/// What a restore call did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoreReport {
    /// The snapshot, with its manifest's digest.
    pub reference: Reference,
    /// SHA-256 of the manifest.
    pub manifest_digest: Sha256,
    /// Of the snapshot.
    pub format: Format,
    /// Regular files restored, second names of one inode included.
    pub files: u64,
    /// Directories restored.
    pub directories: u64,
    /// Symbolic links restored.
    pub symlinks: u64,
    /// Whiteouts of overlayfs restored.
    pub whiteouts: u64,
    /// Names in the output, directories too, that were not in the snapshot and were deleted.
    pub deleted: u64,
    /// Sizes of the files, holes included, each inode once, in bytes.
    pub logical_bytes: u64,
    /// Bytes of data in them, holes excluded, each inode once.
    pub data_bytes: u64,
    /// How the bytes got into the output.
    pub placements: Placements,
    /// Blobs that were fetched for it.
    pub fetched_blobs: u64,
    /// Their packed streams' lengths, in bytes.
    pub fetched_bytes: u64,
    /// How long the call took.
    pub duration: Duration,
    /// What the caller may care about.
    pub warnings: Vec<Warning>,
}

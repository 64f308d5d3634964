//! What to take a snapshot of, and what a report says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::pages::PagedReport;
use super::words::{Compression, Format, FramePages, ParentChoice};
use crate::fs::small;
use crate::words::digest::Sha256;
use crate::words::error::{Error, Result};
use crate::words::patterns::{self, Patterns, Reach};
use crate::words::placement::{LinkMode, Placements};
use crate::words::progress::Warning;
use crate::words::publication::Publication;
use crate::words::reference::Reference;

/// What [`SnapshotRequest::index_bytes`] is where nobody says it.
const INDEX_BYTES: u64 = 256 << 20;

/// What a file of patterns may have, in bytes.
const MAX_PATTERNS_BYTES: u64 = 1 << 20;

/// What to take a snapshot of, and what to call it.
///
/// ```
/// use snapshotter::{File, LinkMode, SnapshotRequest};
///
/// let request = SnapshotRequest::new("sandboxes/vm-1", "v3", "/run/vm-1")
///     .file(File::new("memory").read_only(true))
///     .file(File::new("disk.img"))
///     .annotation("kernel", "6.18")
///     .link_mode(LinkMode::Auto);
/// assert_eq!(request.files.len(), 2);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SnapshotRequest {
    /// Repository path components: lower-case letters, digits and single separators, joined by `/`.
    pub name: String,
    /// A tag: up to 128 letters, digits, `_`, `.` and `-`, the first a letter, digit or `_`. Immutable once taken.
    pub version: String,
    /// The directory that paths are relative to. Symlinks on the way to it are followed; none below it is.
    pub base_dir: PathBuf,
    /// What to take. Empty: everything below `base_dir`, writable.
    pub files: Vec<File>,
    /// Patterns of paths to treat as read-only too, each from the top: `*` stays within a component, `**` crosses them, a
    /// directory means everything below it, and `!` takes back what an earlier one said.
    pub read_only: Vec<String>,
    /// Patterns of paths to leave out, by gitignore's rules: without a slash at any depth, else from the top; `**`, `dir/` and
    /// `!` are as there.
    pub exclude: Vec<String>,
    /// Files of such patterns, one a line; blank lines and comments are as in `.gitignore`. They come before those of
    /// [`exclude`](Self::exclude).
    pub exclude_from: Vec<PathBuf>,
    /// Stays on the filesystem of each directory that is asked for: where another one is mounted, the directory is taken and
    /// nothing in it. Default `false`.
    pub one_file_system: bool,
    /// Leaves out, with a warning each, what permissions keep from being read. Default `false`: it is the error.
    pub skip_unreadable: bool,
    /// Reads block devices among [`files`](Self::files), as files of their size. Default `false`: such a path is the error.
    pub devices: bool,
    /// Replaces the version if it exists. Default `false`: versions are immutable.
    pub force: bool,
    /// How files get into the store.
    pub link_mode: LinkMode,
    /// How it is kept. Default [`Format::V1`].
    pub format: Format,
    /// What a snapshot of format v2 is compared with: pages that are the same are not stored again. Default
    /// [`ParentChoice::Origin`].
    pub parent: ParentChoice,
    /// How pages of format v2 are compressed. Default `zstd:1`.
    pub compression: Compression,
    /// How many pages of format v2 are compressed together. Default 16; 4 for packs that are to be read a page here and a page
    /// there. The parent's packs may have the other.
    pub frame_pages: FramePages,
    /// Memory for finding pages again that moved, in bytes: 26 for each page of the parent that is not zero, and for each
    /// one that is stored. Beyond it such pages are stored again. Default 256 MiB.
    pub index_bytes: u64,
    /// Free text that travels in the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Keeps the snapshot here even where a registry is configured; `push` publishes it later. Default `false`.
    #[cfg(feature = "registry")]
    pub local: bool,
    /// The registry to publish to instead of the configured one, for this call.
    #[cfg(feature = "registry")]
    pub registry: Option<crate::Registry>,
    /// The place of contents to use instead of the configured one, for this call.
    #[cfg(feature = "registry")]
    pub content: Option<crate::Content>,
}

/// A file or directory to take a snapshot of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct File {
    /// Relative to the base directory. A directory stands for all its descendants, `.` for the base directory itself;
    /// where both a directory and something in it are listed, the nearer one decides.
    pub relative_path: PathBuf,
    /// The caller's promise that the file's bytes will not be changed in place any more. It is then hardlinked instead
    /// of copied, in and out, and all restores of it share one inode and page cache.
    pub read_only: bool,
    /// The file is a difference: its data are pages that changed since the parent, zeros among them, and its holes are as the
    /// parent has them. A virtual machine's monitor writes such files. Of format v2, and only where the parent is named with
    /// its digest, has the file in the same size, and the filesystem tells holes page by page; else it is refused. The file has to
    /// be written with `write(2)`, since a mapping writes more than was written to, and copied with its holes as they are.
    pub diff: bool,
}

impl File {
    /// A writable file, or a directory of such.
    #[must_use]
    pub fn new(relative_path: impl Into<PathBuf>) -> Self {
        Self {
            relative_path: relative_path.into(),
            read_only: false,
            diff: false,
        }
    }

    /// Sets [`read_only`](Self::read_only).
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Sets [`diff`](Self::diff).
    #[must_use]
    pub fn diff(mut self, diff: bool) -> Self {
        self.diff = diff;
        self
    }
}

impl SnapshotRequest {
    /// A snapshot of everything below `base_dir`.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        version: impl Into<String>,
        base_dir: impl Into<PathBuf>,
    ) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            base_dir: base_dir.into(),
            files: Vec::new(),
            read_only: Vec::new(),
            exclude: Vec::new(),
            exclude_from: Vec::new(),
            one_file_system: false,
            skip_unreadable: false,
            devices: false,
            force: false,
            link_mode: LinkMode::default(),
            format: Format::default(),
            parent: ParentChoice::default(),
            compression: Compression::default(),
            frame_pages: FramePages::default(),
            index_bytes: INDEX_BYTES,
            annotations: BTreeMap::new(),
            #[cfg(feature = "registry")]
            local: false,
            #[cfg(feature = "registry")]
            registry: None,
            #[cfg(feature = "registry")]
            content: None,
        }
    }

    /// Adds a file or directory; the first one replaces "everything".
    #[must_use]
    pub fn file(mut self, file: File) -> Self {
        self.files.push(file);
        self
    }

    /// Adds files or directories.
    #[must_use]
    pub fn files(mut self, files: impl IntoIterator<Item = File>) -> Self {
        self.files.extend(files);
        self
    }

    /// Adds a pattern to [`read_only`](Self::read_only).
    #[must_use]
    pub fn read_only(mut self, glob: impl Into<String>) -> Self {
        self.read_only.push(glob.into());
        self
    }

    /// Adds a pattern to [`exclude`](Self::exclude).
    #[must_use]
    pub fn exclude(mut self, glob: impl Into<String>) -> Self {
        self.exclude.push(glob.into());
        self
    }

    /// Adds a file of patterns to [`exclude_from`](Self::exclude_from).
    #[must_use]
    pub fn exclude_from(mut self, file: impl Into<PathBuf>) -> Self {
        self.exclude_from.push(file.into());
        self
    }

    /// Sets [`one_file_system`](Self::one_file_system).
    #[must_use]
    pub fn one_file_system(mut self, one_file_system: bool) -> Self {
        self.one_file_system = one_file_system;
        self
    }

    /// Sets [`skip_unreadable`](Self::skip_unreadable).
    #[must_use]
    pub fn skip_unreadable(mut self, skip_unreadable: bool) -> Self {
        self.skip_unreadable = skip_unreadable;
        self
    }

    /// Sets [`devices`](Self::devices).
    #[must_use]
    pub fn devices(mut self, devices: bool) -> Self {
        self.devices = devices;
        self
    }

    /// Sets [`force`](Self::force).
    #[must_use]
    pub fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    /// Sets [`link_mode`](Self::link_mode).
    #[must_use]
    pub fn link_mode(mut self, link_mode: LinkMode) -> Self {
        self.link_mode = link_mode;
        self
    }

    /// Sets [`format`](Self::format).
    #[must_use]
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// Sets [`parent`](Self::parent).
    #[must_use]
    pub fn parent(mut self, parent: ParentChoice) -> Self {
        self.parent = parent;
        self
    }

    /// Sets [`compression`](Self::compression).
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Sets [`frame_pages`](Self::frame_pages).
    #[must_use]
    pub fn frame_pages(mut self, frame_pages: FramePages) -> Self {
        self.frame_pages = frame_pages;
        self
    }

    /// Sets [`index_bytes`](Self::index_bytes).
    #[must_use]
    pub fn index_bytes(mut self, index_bytes: u64) -> Self {
        self.index_bytes = index_bytes;
        self
    }

    /// Adds an annotation.
    #[must_use]
    pub fn annotation(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }

    /// Sets [`local`](Self::local).
    #[cfg(feature = "registry")]
    #[must_use]
    pub fn local(mut self, local: bool) -> Self {
        self.local = local;
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

impl SnapshotRequest {
    pub(super) fn reference(&self) -> Result<Reference> {
        Reference::new(&self.name, &self.version).map_err(|error| Error::invalid(error.to_string()))
    }

    /// All patterns of what to leave out.
    pub(super) fn excluded(&self) -> Result<Patterns> {
        let mut all = Vec::new();
        for file in &self.exclude_from {
            let what = "the file of patterns";
            let text = String::from_utf8(small::read(what, file, MAX_PATTERNS_BYTES)?);
            let text =
                text.map_err(|_| Error::invalid(format!("{what} is no UTF-8")).with_path(file))?;
            all.extend(patterns::of_lines(&text));
        }
        all.extend_from_slice(&self.exclude);
        Patterns::new("exclude", &all, Reach::Anywhere)
    }
}

/// What a snapshot call did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotReport {
    /// The snapshot, with its manifest's digest: its identity.
    pub reference: Reference,
    /// SHA-256 of the manifest.
    pub manifest_digest: Sha256,
    /// Regular files, second names of one inode included.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Whiteouts of overlayfs.
    pub whiteouts: u64,
    /// Sizes of the regular files, holes included, each inode once, in bytes.
    pub logical_bytes: u64,
    /// Bytes of data in them, holes excluded, each inode once.
    pub data_bytes: u64,
    /// Bytes of data the store did not have before.
    pub stored_bytes: u64,
    /// Blobs the store did not have before.
    pub blobs_stored: u64,
    /// Blobs it had.
    pub blobs_reused: u64,
    /// How the bytes got into the store.
    pub placements: Placements,
    /// What a snapshot of format v2 took over and stored; `None` in format v1.
    pub paged: Option<PagedReport>,
    /// Where it was published, if it was.
    pub publication: Option<Publication>,
    /// How long the call took.
    pub duration: Duration,
    /// What the caller may care about.
    pub warnings: Vec<Warning>,
}

//! What to convert, and what a report says.

use crate::snapshot::{Compression, Format, FramePages, SnapshotReport, SnapshotRequest};
use crate::words::reference::Reference;

/// A snapshot to be kept in another format too, and what to call it there.
///
/// ```
/// use snapshotter::{ConvertRequest, Format};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let request = ConvertRequest::new("vm:v1".parse()?, "vm", "v1-pages", Format::V2);
/// assert!(!request.force);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConvertRequest {
    /// The snapshot, which stays as it is.
    pub reference: Reference,
    /// What the new one is called; the same name as the old one's, or another.
    pub name: String,
    /// Its version. Immutable once it is there.
    pub version: String,
    /// The format that the new one is kept in, which is another one than the old one's.
    pub format: Format,
    /// How pages of format v2 are compressed. Default `zstd:1`.
    pub compression: Compression,
    /// How many pages of format v2 are compressed together. Default 16.
    pub frame_pages: FramePages,
    /// Replaces the version if it exists. Default `false`.
    pub force: bool,
}

impl ConvertRequest {
    /// A snapshot in another format, under a name and version of its own.
    #[must_use]
    pub fn new(
        reference: Reference,
        name: impl Into<String>,
        version: impl Into<String>,
        format: Format,
    ) -> Self {
        Self {
            reference,
            name: name.into(),
            version: version.into(),
            format,
            compression: Compression::default(),
            frame_pages: FramePages::default(),
            force: false,
        }
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

    /// Sets [`force`](Self::force).
    #[must_use]
    pub fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    /// What is taken of what is given. Packs of the old snapshot are nobody's parents.
    pub(super) fn taking(&self) -> SnapshotRequest {
        SnapshotRequest::new(&self.name, &self.version, "")
            .format(self.format)
            .parent(crate::snapshot::ParentChoice::None)
            .compression(self.compression)
            .frame_pages(self.frame_pages)
            .force(self.force)
    }
}

/// What a conversion did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConvertReport {
    /// The snapshot that was converted, with its manifest's digest.
    pub source: Reference,
    /// The new one, which is here alone; `push` publishes it.
    pub snapshot: SnapshotReport,
}

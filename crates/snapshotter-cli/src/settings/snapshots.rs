//! `[snapshot]`: what snapshots are taken as where no flag says it, and how such values are written.

use snapshotter::{Compression, Format, FramePages, ParentChoice, SnapshotRequest};

/// The defaults of a snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshots {
    /// How it is kept.
    pub format: Format,
    /// What it is compared with.
    pub parent: ParentChoice,
    /// How its pages are compressed.
    pub compression: Compression,
    /// How many pages are compressed together.
    pub frame_pages: FramePages,
    /// Memory for finding pages again.
    pub index_bytes: u64,
}

impl Default for Snapshots {
    /// The library's.
    fn default() -> Self {
        let request = SnapshotRequest::new("", "", "");
        Self {
            format: request.format,
            parent: request.parent,
            compression: request.compression,
            frame_pages: request.frame_pages,
            index_bytes: request.index_bytes,
        }
    }
}

/// A parent that is not one snapshot by name: a setting is for all.
pub fn parse_parent(text: &str) -> Option<ParentChoice> {
    let parsed = text.parse().ok();
    parsed.filter(|parent| !matches!(parent, ParentChoice::Snapshot(_)))
}

/// As it is read back.
pub fn parent_text(parent: &ParentChoice) -> String {
    match parent {
        ParentChoice::Snapshot(reference) => reference.to_string(),
        ParentChoice::Latest => "latest".to_owned(),
        ParentChoice::None => "none".to_owned(),
        _ => "origin".to_owned(),
    }
}

/// As it is read back.
pub fn compression_text(compression: Compression) -> String {
    match compression {
        Compression::Zstd(level) => format!("zstd:{level}"),
        _ => "none".to_owned(),
    }
}

//! What was captured, as a document and a manifest.

use std::collections::BTreeMap;

use super::capture::{Captured, CapturedFile};
use super::walk::Plan;
use crate::catalog::Totals;
use crate::format::artifact::Manifest;
use crate::format::document::{
    Content, DirectoryEntry, Document, FileEntry, SymlinkEntry, WhiteoutEntry,
};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::relpath::RelPath;

/// A snapshot's artifacts and what it amounts to.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) document: Vec<u8>,
    pub(super) manifest: Vec<u8>,
    pub(super) totals: Totals,
}

pub(super) fn describe(
    plan: &Plan,
    captured: &Captured,
    annotations: &BTreeMap<String, String>,
) -> Result<Described> {
    let mut document = Document {
        files: files(plan, captured),
        directories: plan
            .directories
            .iter()
            .map(|(path, attributes)| DirectoryEntry {
                path: path.clone(),
                attributes: attributes.clone(),
            })
            .collect(),
        symlinks: plan
            .symlinks
            .iter()
            .map(|symlink| SymlinkEntry {
                path: symlink.path.clone(),
                target: symlink.target.clone(),
                attributes: symlink.attributes.clone(),
            })
            .collect(),
        whiteouts: plan
            .whiteouts
            .iter()
            .map(|(path, attributes)| WhiteoutEntry {
                path: path.clone(),
                attributes: attributes.clone(),
            })
            .collect(),
    };
    document.sort();
    let inodes = captured.files.iter();
    let totals = Totals::new(
        document.files.len(),
        inodes.map(|file| (file.size, file.data_size)),
    );
    let encoded = document.encode().map_err(cannot_describe)?;
    let manifest = Manifest::build(&encoded, &[], annotations).map_err(cannot_describe)?;
    Ok(Described {
        document: encoded,
        manifest,
        totals,
    })
}

fn cannot_describe(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("the snapshot cannot be described in format v1: {error}"),
    )
    .with_source(error)
}

fn files(plan: &Plan, captured: &Captured) -> Vec<FileEntry> {
    plan.files
        .iter()
        .zip(&captured.files)
        .flat_map(|(planned, captured)| {
            let first = entry(&planned.path, None, planned.read_only, captured);
            let others = planned
                .others
                .iter()
                .map(|path| entry(path, Some(&planned.path), planned.read_only, captured));
            std::iter::once(first).chain(others).collect::<Vec<_>>()
        })
        .collect()
}

fn entry(
    path: &RelPath,
    hardlink_of: Option<&RelPath>,
    read_only: bool,
    captured: &CapturedFile,
) -> FileEntry {
    FileEntry {
        path: path.clone(),
        content: Content::V1 {
            digest: captured.hashes.digest,
            checksum: Some(captured.hashes.checksum),
        },
        read_only,
        size: captured.size,
        attributes: captured.attributes.clone(),
        hardlink_of: hardlink_of.cloned(),
    }
}

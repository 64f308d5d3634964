//! What was captured, as a document and a manifest.

use std::collections::BTreeMap;

use super::capture::CapturedFile;
use super::planned::{Plan, PlannedFile};
use super::walk::IN_PARTS;
use crate::catalog::Totals;
use crate::format::artifact::Manifest;
use crate::format::document::{Content, Document, DocumentError, Encoded, FileEntry};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::relpath::RelPath;

/// A snapshot's artifacts and what it amounts to.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) document: Encoded,
    pub(super) manifest: Vec<u8>,
    pub(super) totals: Totals,
}

pub(super) fn describe(
    plan: Plan,
    captured: Vec<CapturedFile>,
    annotations: &BTreeMap<String, String>,
) -> Result<Described> {
    let inodes = captured.iter().map(|file| (file.size, file.data_size));
    let totals = Totals::new(plan.names(), inodes);
    let mut document = Document {
        files: files(plan.files, captured),
        directories: plan.directories,
        symlinks: plan.symlinks,
        whiteouts: plan.whiteouts,
    };
    document.sort();
    let document = document.into_encoded().map_err(cannot_describe)?;
    let name = (document.sha256(), document.length());
    let manifest = Manifest::build_for(name, &[], annotations);
    Ok(Described {
        document,
        manifest: manifest.map_err(|error| not_in_v1(&error).with_source(error))?,
        totals,
    })
}

/// Says why something has no place in a document.
pub(super) fn cannot_describe(error: DocumentError) -> Error {
    use DocumentError as E;
    let said = match error {
        E::TooLarge { .. } | E::TooManyEntries | E::TooManyXattrs => {
            not_in_v1(&error).with_hint(IN_PARTS)
        }
        _ => not_in_v1(&error),
    };
    said.with_source(error)
}

fn not_in_v1(error: &dyn std::error::Error) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("the snapshot cannot be described in format v1: {error}"),
    )
}

/// Entries made between two times that memory is given back.
const CHUNK: usize = 64 << 10;

/// Taken from the ends of both lists, which become shorter meanwhile: a million files are not in memory twice.
fn files(mut planned: Vec<PlannedFile>, mut captured: Vec<CapturedFile>) -> Vec<FileEntry> {
    let mut files = Vec::with_capacity(planned.len());
    while let (Some(planned_one), Some(one)) = (planned.pop(), captured.pop()) {
        let PlannedFile {
            path,
            others,
            read_only,
            ..
        } = planned_one;
        for other in others {
            let of = Some(path.clone());
            files.push(entry(other, of, read_only, one.clone()));
        }
        files.push(entry(path, None, read_only, one));
        if planned.len().is_multiple_of(CHUNK) {
            planned.shrink_to_fit();
            captured.shrink_to_fit();
        }
    }
    files
}

fn entry(
    path: RelPath,
    hardlink_of: Option<RelPath>,
    read_only: bool,
    captured: CapturedFile,
) -> FileEntry {
    FileEntry {
        path,
        content: Content::V1 {
            digest: captured.hashes.digest,
            checksum: Some(captured.hashes.checksum),
        },
        read_only,
        size: captured.size,
        attributes: captured.attributes,
        hardlink_of,
    }
}

//! What a restore would make, without making it: the same plan, and a look at what is in the way.

use std::path::PathBuf;

use super::content::{Content, of_blobs, of_pages};
use super::delete;
use super::directories::OutputDir;
use super::plan::{Plan, plan};
use super::{RestoreRequest, near_output};
use crate::ErrorKind;
use crate::activity::Activity;
use crate::format::document::Document;
use crate::format::document::paged::AnyDocument;
use crate::fs::Dir;
use crate::remote::Remote;
use crate::snapshot::{EntryKind, PlannedEntry};
use crate::store::Store;
use crate::words::digest::Sha256;
use crate::words::error::{At, Result};
use crate::words::format::Format;
use crate::words::progress::{Warning, WarningKind};
use crate::words::reference::Reference;
use crate::words::relpath::{RelPath, os_name};
use crate::words::total::total;

/// What a restore would make.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestorePlan {
    /// The snapshot, with its manifest's digest.
    pub reference: Reference,
    /// SHA-256 of the manifest.
    pub manifest_digest: Sha256,
    /// What would be made, by path.
    pub entries: Vec<PlannedEntry>,
    /// Files, symbolic links and whiteouts that are in the output already: replaced unless they are right, or refused by
    /// `no_clobber`.
    pub existing: Vec<PathBuf>,
    /// What `delete` would delete, directories too.
    pub extra: Vec<PathBuf>,
    /// Regular files, second names of one inode included.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Whiteouts of overlayfs.
    pub whiteouts: u64,
    /// Sizes of the files, holes included, each inode once, in bytes.
    pub logical_bytes: u64,
    /// What the caller may care about.
    pub warnings: Vec<Warning>,
}

/// Plans and reports. Of what is not here the registry is asked, and nothing is fetched but the description. Blocks.
pub(crate) fn run(
    store: &Store,
    remote: Option<&Remote>,
    request: &RestoreRequest,
    activity: &Activity,
) -> Result<RestorePlan> {
    let (reference, manifest_digest, document) = match (described_here(store, request), remote) {
        (Err(error), Some(remote)) if error.kind() == ErrorKind::NotFound => {
            let (manifest, _, document) = remote.description(&request.reference, activity)?;
            let document = match document {
                AnyDocument::V1(document) => of_blobs(document),
                AnyDocument::V2(document) => of_pages(document),
            };
            (request.reference.clone(), Sha256::of(&manifest), document)
        }
        (here, _) => here?,
    };
    let plan = plan(document, request, usize::MAX)?;
    let (existing, extra) = match output_if_any(store, request)? {
        None => (Vec::new(), Vec::new()),
        Some(output) => {
            output.require_foreign(&plan)?;
            let extra = delete::find(&output, &plan, activity)?;
            let extra = extra.into_iter().map(|(path, _)| path.into()).collect();
            (existing(&output, &plan)?, extra)
        }
    };
    for text in plan.selection.complaints() {
        activity.warn(WarningKind::Unmatched, None, text);
    }
    Ok(RestorePlan {
        reference: reference.with_digest(manifest_digest),
        manifest_digest,
        existing,
        extra,
        files: (plan.files.len() + plan.links.len()) as u64,
        directories: plan.directories.len() as u64,
        symlinks: plan.symlinks.len() as u64,
        whiteouts: plan.whiteouts.len() as u64,
        logical_bytes: total(plan.files.iter().map(|file| file.size)),
        entries: entries(&plan),
        warnings: Vec::new(),
    })
}

fn described_here(
    store: &Store,
    request: &RestoreRequest,
) -> Result<(Reference, Sha256, Document<Content>)> {
    let (snapshot, document) = store.catalog.read(|txn| {
        let snapshot = txn.resolve(&request.reference)?;
        let document = match snapshot.format {
            Format::V2 => of_pages(txn.paged_document(snapshot.id)?),
            Format::V1 => of_blobs(txn.document(snapshot.id)?),
        };
        Ok((snapshot, document))
    })?;
    Ok((snapshot.reference, snapshot.manifest_digest, document))
}

fn output_if_any<'a>(store: &'a Store, request: &RestoreRequest) -> Result<Option<OutputDir<'a>>> {
    near_output(store, &request.output_dir)?;
    match Dir::open(&request.output_dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        result => OutputDir::new(store, result?).map(Some),
    }
}

fn existing(output: &OutputDir<'_>, plan: &Plan) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in plan.names() {
        if exists(output, path)? {
            found.push(path.as_path().to_owned());
        }
    }
    found.sort();
    Ok(found)
}

fn exists(output: &OutputDir<'_>, path: &RelPath) -> Result<bool> {
    let Some(dir) = output.open_if_any(path.parent().as_ref())? else {
        return Ok(false);
    };
    let name = os_name(path.file_name());
    let stat = dir.stat_if_any(name).at("examine", dir.path_of(name))?;
    Ok(stat.is_some())
}

fn entries(plan: &Plan) -> Vec<PlannedEntry> {
    let mut entries = Vec::new();
    for entry in &plan.files {
        let others = plan.others(&entry.path).iter().map(|link| &link.path);
        for path in std::iter::once(&entry.path).chain(others) {
            let path = path.as_path();
            entries.push(PlannedEntry::new(
                path,
                EntryKind::File,
                entry.read_only,
                entry.size,
            ));
        }
    }
    for directory in &plan.directories {
        let path = directory.path.as_path();
        entries.push(PlannedEntry::new(path, EntryKind::Directory, false, 0));
    }
    for symlink in &plan.symlinks {
        let path = symlink.path.as_path();
        entries.push(PlannedEntry::new(path, EntryKind::Symlink, false, 0));
    }
    for whiteout in &plan.whiteouts {
        let path = whiteout.path.as_path();
        entries.push(PlannedEntry::new(path, EntryKind::Whiteout, false, 0));
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries
}

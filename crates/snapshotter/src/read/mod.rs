//! What a snapshot has, read without being restored: one file, and whether a directory is what it was.
//!
//! A file is handed out once all of it was verified, open: what becomes of its blob or of the snapshot afterwards changes nothing of
//! it. So a program that reads half of it has read right bytes.

mod directory;

pub use directory::DirectoryDetails;
pub(crate) use directory::compare;

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use crate::activity::Activity;
use crate::catalog::Snapshot;
use crate::convert;
use crate::metrics::Operation as Verb;
use crate::store::{Operation, Store};
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::reference::Reference;
use crate::words::relpath::RelPath;

/// A file of a snapshot, open for reading from its beginning, with its bytes verified.
#[derive(Debug)]
#[non_exhaustive]
pub struct SnapshotFile {
    /// The snapshot, with its manifest's digest.
    pub reference: Reference,
    /// It. Nobody else writes it, and it is not to be written.
    pub file: File,
    /// Its size, holes included, in bytes.
    pub size: u64,
}

/// Opens a file of a snapshot. Blocks until it is verified.
pub(crate) fn open_file(
    store: &Arc<Store>,
    reference: &Reference,
    path: &Path,
    activity: &Activity,
) -> Result<SnapshotFile> {
    let wanted = RelPath::normalize(path)
        .map_err(|error| Error::invalid(error.to_string()).with_path(path))?;
    let (_operation, source) = leased(store, reference, Verb::Read)?;
    let (plan, contents) = convert::contents(store, &source, activity)?;
    let Some(first) = plan.first_name(&wanted) else {
        let text = format!("the snapshot has no file {wanted}");
        return Err(Error::new(ErrorKind::NotFound, text)
            .with_path(path)
            .with_reference(reference));
    };
    let opened = contents
        .open(first)
        .map_err(|error| error.with_reference(reference));
    let mut file = opened?.file;
    let size = file.seek(SeekFrom::End(0)).at("read", path)?;
    file.rewind().at("read", path)?;
    Ok(SnapshotFile {
        reference: source.reference.with_digest(source.manifest_digest),
        file,
        size,
    })
}

/// A snapshot that stays for as long as the operation, which a root on a read-only mount has none of.
fn leased(
    store: &Arc<Store>,
    reference: &Reference,
    verb: Verb,
) -> Result<(Option<Operation>, Snapshot)> {
    let operation = (!store.is_read_only())
        .then(|| store.begin(verb))
        .transpose()?;
    let found = match &operation {
        Some(operation) => operation.find(reference),
        None => store.catalog.read(|txn| txn.resolve(reference)),
    };
    let found = found.map_err(|error| error.with_reference(reference))?;
    Ok((operation, found))
}

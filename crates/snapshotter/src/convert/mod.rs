//! A snapshot in the other format: the same files with the same bytes and attributes under a new name, taken as a snapshot is,
//! but for where the files come from: out of blobs ([`blobs`]) or packs ([`pages`]) instead of a directory.
//!
//! Attributes go from document to document and never onto a file, so it takes no privileges. All bytes are verified on the way:
//! those of a blob by its checksum, those of pages by their frames and the file's content id. The old snapshot is leased until
//! the new one is visible; what is half done is in staging, or a pending snapshot's, and goes with its owner.

mod blobs;
mod pages;
mod request;

pub use request::{ConvertReport, ConvertRequest};

use std::sync::Arc;

use crate::activity::Activity;
use crate::catalog::Snapshot;
use crate::config::Durability;
use crate::format::artifact::paged::Facts;
use crate::inspect;
use crate::limit::Limits;
use crate::metrics::Operation as Verb;
use crate::snapshot::{Contents, Material, Plan, SnapshotReport, SnapshotRequest, from_document};
use crate::store::{Operation, Store};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::format::Format;
use crate::words::relpath::RelPath;
use blobs::Blobs;
use pages::Pages;

/// Files of at least so many bytes are checked against the free space before they are written.
const LARGE: u64 = 1 << 20;

/// Converts a snapshot. Blocks.
pub(crate) fn run(
    store: &Arc<Store>,
    limits: &Limits,
    durability: Durability,
    request: &ConvertRequest,
    activity: &Activity,
) -> Result<ConvertReport> {
    store.catalog.require_writable()?;
    let operation = store.begin(Verb::Convert)?;
    let reference = &request.reference;
    let source = operation
        .find(reference)
        .map_err(|error| error.with_reference(reference))?;
    if source.format == request.format {
        let text = format!(
            "{reference} is kept in format {} already",
            source.format.as_str()
        );
        return Err(Error::invalid(text).with_reference(reference));
    }
    let call = Call {
        store,
        limits,
        durability,
        operation: &operation,
        hidden: false,
        activity,
    };
    let (_, snapshot) = call.convert(&source, request.taking())?;
    let source = source.reference.with_digest(source.manifest_digest);
    Ok(ConvertReport { source, snapshot })
}

/// Makes what a snapshot of format v2 is in format v1, under its own name, for as long as the operation lasts: nobody finds it, and
/// with the operation it goes, whichever way that ends. So what can be done with a snapshot is done with this.
#[cfg(feature = "registry")]
pub(crate) fn as_v1(
    store: &Arc<Store>,
    limits: &Limits,
    (operation, source): (&Operation, &Snapshot),
    activity: &Activity,
) -> Result<Snapshot> {
    let call = Call {
        store,
        limits,
        durability: Durability::Background,
        operation,
        hidden: true,
        activity,
    };
    let reference = source.reference.clone();
    let version = reference.version().unwrap_or_default();
    let request = ConvertRequest::new(reference.clone(), reference.name(), version, Format::V1);
    let (id, taken) = call.convert(source, request.taking())?;
    Ok(Snapshot {
        id,
        format: Format::V1,
        manifest_digest: taken.manifest_digest,
        ..source.clone()
    })
}

struct Call<'a> {
    store: &'a Arc<Store>,
    limits: &'a Limits,
    durability: Durability,
    operation: &'a Operation,
    hidden: bool,
    activity: &'a Activity,
}

impl Call<'_> {
    fn convert(
        &self,
        source: &Snapshot,
        mut taking: SnapshotRequest,
    ) -> Result<(i64, SnapshotReport)> {
        let manifest = self.store.catalog.read(|txn| txn.manifest(source.id))?;
        taking.annotations = Facts::callers(inspect::annotations(&manifest)?);
        let opened = contents(self.store, source, self.activity);
        let taken = opened.and_then(|(plan, contents)| self.take(&taking, plan, &*contents));
        taken.map_err(|error| match error.kind() {
            ErrorKind::Damaged => error.with_reference(&source.reference),
            _ => error,
        })
    }

    fn take(
        &self,
        taking: &SnapshotRequest,
        plan: Plan,
        contents: &dyn Contents,
    ) -> Result<(i64, SnapshotReport)> {
        let material = Material {
            plan,
            contents,
            operation: self.operation,
            hidden: self.hidden,
        };
        let (store, limits) = (self.store, self.limits);
        from_document(
            store,
            limits,
            self.durability,
            taking,
            material,
            self.activity,
        )
    }
}

/// What a snapshot lists, and its files, each verified when it is opened.
pub(crate) fn contents<'s>(
    store: &'s Store,
    source: &Snapshot,
    activity: &'s Activity,
) -> Result<(Plan, Box<dyn Contents + 's>)> {
    Ok(match source.format {
        Format::V2 => {
            let (plan, pages) = Pages::open(store, source, activity)?;
            (plan, Box::new(pages))
        }
        Format::V1 => {
            let (plan, blobs) = Blobs::open(store, source, activity)?;
            (plan, Box::new(blobs))
        }
    })
}

/// An error about a blob or a pack is an error about the file that needs it.
fn blame(error: Error, path: &RelPath) -> Error {
    if error.kind() != ErrorKind::Damaged {
        return error;
    }
    Error::damaged(format!("{path} cannot be read out of the snapshot"))
        .with_path(path.as_path())
        .with_hint(error.hint().unwrap_or_default().to_owned())
        .with_source(error)
}

fn not_listed(path: &RelPath) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("{path} is not a file of the snapshot"),
    )
}

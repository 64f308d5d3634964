//! What a directory is in comparison with a snapshot.

mod directory;

pub use directory::DirectoryDetails;
pub(crate) use directory::compare;

use std::sync::Arc;

use crate::catalog::Snapshot;
use crate::metrics::Operation as Verb;
use crate::store::{Operation, Store};
use crate::words::error::Result;
use crate::words::reference::Reference;

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

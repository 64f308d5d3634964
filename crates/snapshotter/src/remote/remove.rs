//! `remove_remote`: takes a snapshot out of the registry, and writes down that it is not there any more.

use super::Remote;
use crate::activity::Activity;
use crate::catalog::Sync;
use crate::store::Store;
use crate::words::digest::Sha256;
use crate::words::error::{ErrorKind, Result};
use crate::words::reference::Reference;

/// Removes it there. What is here stays, and is from then on an only copy: it reaches the disk before the other one goes.
/// Blocks.
pub(super) fn run(
    store: &Store,
    remote: &Remote,
    reference: &Reference,
    activity: &Activity,
) -> Result<Sha256> {
    let registry = remote.address(reference)?;
    let prepare = |digest| {
        let of_it = store
            .catalog
            .read(|txn| txn.snapshots_of_manifest(reference.name(), digest))?;
        of_it.iter().for_each(|id| store.sync_now(*id));
        Ok(())
    };
    match remote.remove(reference, prepare, activity) {
        Ok(digest) => {
            store.catalog.write(Sync::Normal, |txn| {
                txn.forget_manifest(&registry, reference.name(), digest)
            })?;
            Ok(digest)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            store.catalog.write(Sync::Normal, |txn| {
                let here = txn.find(reference)?;
                here.map_or(Ok(()), |here| txn.forget_publication(here.id, &registry))
            })?;
            Err(error)
        }
        result => result,
    }
}

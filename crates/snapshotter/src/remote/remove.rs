//! `remove_remote`: takes a snapshot out of the registry. Before the manifest goes, what is here is made durable and the
//! rows that say it is there are forgotten, so that a collection that has asked already releases nothing in between: it
//! looks at the row once more as it releases. Whatever fails on the way leaves only copies, which are kept.

use super::Remote;
use crate::activity::Activity;
use crate::catalog::Sync;
use crate::store::Store;
use crate::words::digest::Sha256;
use crate::words::error::{ErrorKind, Result};
use crate::words::reference::Reference;

/// Removes it there. What is here stays, and is from then on an only copy: it reaches the disk before the other one goes,
/// or that one stays. Blocks.
pub(crate) fn run(
    store: &Store,
    remote: &Remote,
    reference: &Reference,
    activity: &Activity,
) -> Result<Sha256> {
    let prepare = |digest| give_up(store, remote, reference, digest);
    match remote.remove(reference, prepare, activity) {
        // What was fetched or pushed meanwhile has noted that it is there.
        Ok(digest) => forget(store, remote, reference, digest).map(|()| digest),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let registry = remote.address(reference)?;
            store.catalog.write(Sync::Normal, |txn| {
                let here = txn.find(reference)?;
                here.map_or(Ok(()), |here| txn.forget_publication(here.id, &registry))
            })?;
            Err(error)
        }
        result => result,
    }
}

/// A manifest is about to lose its name there: what is here of it reaches the disk first, and is an only copy from then on.
pub(super) fn give_up(
    store: &Store,
    remote: &Remote,
    reference: &Reference,
    digest: Sha256,
) -> Result<()> {
    let name = reference.name();
    let of_it = store
        .catalog
        .read(|txn| txn.snapshots_of_manifest(name, digest))?;
    of_it.iter().try_for_each(|id| store.sync_snapshot(*id))?;
    forget(store, remote, reference, digest)
}

fn forget(store: &Store, remote: &Remote, reference: &Reference, digest: Sha256) -> Result<()> {
    let registry = remote.address(reference)?;
    let contents = remote.address_of_contents(&remote.repository(reference)?);
    store.catalog.write(Sync::Normal, |txn| {
        // What nothing names any more may be collected there.
        txn.doubt_objects_at(&registry)?;
        txn.doubt_objects_at(&contents)?;
        txn.forget_manifest(&registry, reference.name(), digest)
    })
}

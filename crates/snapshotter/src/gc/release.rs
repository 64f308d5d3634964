//! Letting a snapshot go, and finding out what that was good for.
//!
//! The row goes in the transaction that looks once more whether it may: under the names lock nobody can take a lease, a
//! pin or a reference in between, or learn that a registry has lost the snapshot, since each of these is a transaction under
//! the same lock. Then the names of the blobs that nothing needs any more are swept as after a removal: whoever has taken the
//! same bytes meanwhile has a row, and keeps the name. That is enough:
//!
//! * Nobody loses the last copy: what goes was elsewhere a moment ago, as far as this store can know. Who removes it there at
//!   that very moment, on another node, removes what nobody here asked to keep.
//! * Nobody at work loses anything: a restore, a push and a fetch lease their snapshot, a capture its pending one, under the
//!   same lock. Either they came first, then the release sees the lease; or it came first, then the snapshot is gone for all.
//! * Nobody loses a shared blob: its row goes only when nothing references it, pending snapshots included, and its name only
//!   in the sweep, which looks for a row again.
//! * A crash loses nothing: the row goes with its references in one FULL transaction, and names that are left are litter.

use super::choose::Amount;
use crate::activity::Activity;
use crate::catalog::{Doomed, Relied, Snapshot, Sync};
use crate::fs::space::{self, Space};
use crate::store::Store;
use crate::words::error::{At, Result};
use crate::words::format::Format;

/// Lets a snapshot go; `None`: something has changed since it was chosen, and it stays.
pub(super) fn release(
    store: &Store,
    chosen: &Snapshot,
    relied: Option<&Relied>,
    activity: &Activity,
) -> Result<Option<Doomed>> {
    store.expect_orphans();
    let doomed = store.with_reserve(|| {
        store
            .catalog
            .write(Sync::Full, |txn| txn.release_unused(chosen, relied))
    })?;
    if let Some(doomed) = &doomed {
        store.sweep_removed(doomed, activity);
        if chosen.format == Format::V2 {
            store.drop_caches_of(&[chosen.manifest_digest]);
        }
    }
    Ok(doomed)
}

pub(super) fn space(store: &Store) -> Result<Space> {
    space::of(&store.root.dir).at("examine", store.root.dir.path())
}

/// What is free after a release that should have freed so much.
pub(super) fn space_after(store: &Store, before: Space, expected: Amount) -> Result<Space> {
    // Not longer: what is shared with files elsewhere never comes back.
    const QUESTIONS: u32 = 5;
    space::settled(&store.root.dir, QUESTIONS, &|now| {
        let has_bytes = now.available.saturating_sub(before.available) >= expected.disk;
        let inodes = now.available_inodes.saturating_sub(before.available_inodes);
        has_bytes && (now.inodes == 0 || inodes >= expected.inodes)
    })
}

//! Who wants fetched bytes besides the store.

use std::fs::File;

use super::{SpaceClaim, Store};
use crate::format::document::FileEntry;
use crate::words::digest::Checksum;

/// Wants files with fetched bytes: they are written in the pass that fetches, so that nothing is read back for them.
#[cfg_attr(
    not(feature = "registry"),
    expect(dead_code, reason = "nothing is fetched")
)]
pub(crate) trait Recipient: Sync {
    /// An empty file, if one is wanted. `files` all have the content that is about to come, which takes about so many
    /// `bytes`, and which the store has claimed space for; `packed` says that the store has it already, packed, so that it
    /// cannot be cloned from there. The file's own space is claimed until all of it has been written.
    fn wants<'s>(
        &self,
        store: &'s Store,
        files: &[&FileEntry],
        bytes: u64,
        packed: bool,
    ) -> Option<(File, SpaceClaim<'s>)>;

    /// The file has the bytes with that checksum, and they are the right ones.
    fn receive(&self, checksum: Checksum, file: File);
}

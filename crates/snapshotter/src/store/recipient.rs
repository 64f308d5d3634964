//! Who wants fetched bytes besides the store.

use std::fs::File;

use crate::format::document::FileEntry;
use crate::words::digest::Checksum;

/// Wants files with fetched bytes: they are written in the pass that fetches, so that nothing is read back for them.
#[cfg_attr(
    not(feature = "registry"),
    expect(dead_code, reason = "nothing is fetched")
)]
pub(crate) trait Recipient: Sync {
    /// An empty file, if one is wanted. `files` all have the content that is about to come, which takes about so many
    /// `bytes`; `packed` says that the store has it already, packed, so that it cannot be cloned from there.
    fn wants(&self, files: &[&FileEntry], bytes: u64, packed: bool) -> Option<File>;

    /// The file has the bytes with that checksum, and they are the right ones.
    fn receive(&self, checksum: Checksum, file: File);
}

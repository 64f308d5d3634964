//! What publishing did: part of reports.

use super::digest::Sha256;
use super::format::Format;

/// Where a snapshot was published, and what that took.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Publication {
    /// The registry and repository.
    pub place: String,
    /// SHA-256 of the manifest there, the snapshot's identity. With contents in the registry it names them, so it is not
    /// known before.
    pub manifest_digest: Sha256,
    /// Of the snapshot.
    pub format: Format,
    /// Blobs, or packs in format v2, that were not there before.
    pub sent_blobs: u64,
    /// Their lengths as they are sent, in bytes.
    pub sent_bytes: u64,
}

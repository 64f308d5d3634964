//! What garbage collection asks the remote about a snapshot, and what it may be told. A build that can have no remote has
//! the words all the same, so that collecting is written once.
#![cfg_attr(
    not(feature = "registry"),
    expect(dead_code, reason = "nobody can have a remote to ask")
)]

use crate::catalog::{Blob, Pack, PublicationRow, Relied, Snapshot};
use crate::words::error::Error;

/// What is asked of a snapshot.
pub(crate) struct Question<'a> {
    pub(crate) snapshot: &'a Snapshot,
    /// The row that says where it is.
    pub(crate) said: &'a PublicationRow,
    /// Those of its blobs that would be nowhere else.
    pub(crate) blobs: &'a [Blob],
    /// Those of its packs.
    pub(crate) packs: &'a [Pack],
    /// Whether a daemon's word counts where the bucket cannot be asked.
    pub(crate) trust_daemon: bool,
    /// Whether what turns out to be otherwise is written down.
    pub(crate) revises: bool,
}

/// Snapshots in a row that could not be asked for, after which a call asks about no more.
pub(crate) const PATIENCE: usize = 3;

/// Why a snapshot is kept that could not be asked for.
pub(crate) fn could_not_be_asked(error: &Error) -> String {
    let why = error.line();
    format!("whether it is elsewhere could not be asked: {why}")
}

/// What the remote says.
pub(crate) enum Answer {
    /// All of it is there.
    There(Relied),
    /// Something is not, or is another's: for people.
    Otherwise(String),
    /// It could not be asked.
    Unknown(Error),
}

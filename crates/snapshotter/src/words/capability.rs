//! [`Capability`]: what was tried on a filesystem or a daemon, and whether it works.

use std::io;

/// Whether something works.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Capability {
    /// It does.
    Yes,
    /// It does not, and why.
    No(String),
}

impl Capability {
    pub(crate) fn of(result: io::Result<()>) -> Self {
        match result {
            Ok(()) => Self::Yes,
            Err(error) => Self::No(error.to_string()),
        }
    }
}

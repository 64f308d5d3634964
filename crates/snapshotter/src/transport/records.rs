//! What nodes leave for each other beside the contents, and how contents go: [`Records`]. Only who publishes and who collects
//! calls these; a place that is reached through a daemon alone has none.

use tokio::sync::mpsc;

use super::Call;
use crate::words::error::{Error, ErrorKind};

/// An object as a list has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// All of its key but the configured prefix.
    pub(crate) key: String,
    pub(crate) size: u64,
    /// When it was last written, by the clock of the place, in nanoseconds since 1970.
    pub(crate) modified: i64,
}

/// Objects by their keys, which are paths of plain names: those of contents, and small records below `snapshotter/`.
///
/// What was written is listed and read by whoever asks from then on. Errors are as those of
/// [`ContentTransport`](super::ContentTransport).
pub(crate) trait Records: Send + Sync {
    /// Gives all objects whose keys begin with `prefix`, which ends with a slash, to `sink`, in any order. A place without any
    /// has none. A receiver that is dropped ends the call with `Cancelled`.
    fn list(&self, prefix: String, sink: mpsc::Sender<Listed>) -> Call<'_, ()>;

    /// What is said of an object, if it is there.
    fn look(&self, key: String) -> Call<'_, Option<Listed>>;

    /// A record of at most `most` bytes, if it is there.
    fn read(&self, key: String, most: u64) -> Call<'_, Option<Vec<u8>>>;

    /// Writes a record, whole or not at all, over one that is there.
    fn write(&self, key: String, bytes: Vec<u8>) -> Call<'_, ()>;

    /// Removes an object, or finds that it is not there. `PermissionDenied` and `Unsupported`: it stays, and the others need not.
    fn remove(&self, key: String) -> Call<'_, ()>;
}

fn too_long(key: &str, place: &str, size: u64) -> Error {
    let text = format!("{key} in {place} has {size} bytes, which is too long");
    Error::new(ErrorKind::Damaged, text)
}

pub(super) fn check_length(
    key: &str,
    place: &str,
    size: u64,
    most: u64,
) -> crate::words::error::Result<()> {
    match size <= most {
        true => Ok(()),
        false => Err(too_long(key, place, size)),
    }
}

/// Nanoseconds since 1970, of seconds and nanoseconds that some clock says.
pub(super) fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

//! Two files of one address, of which one can be published.

use super::Publishing;
use crate::catalog::Content;
use crate::words::digest::{Checksum, Digest};
use crate::words::error::{Error, ErrorKind, Result};

impl Publishing<'_> {
    pub(super) fn refuse_published_twins(&self, contents: &[Content]) -> Result<()> {
        self.store.catalog.read(|txn| {
            for blob in contents {
                if let Some(other) = txn.published_twin(blob.digest, &blob.checksum)? {
                    return Err(twins(blob.digest, &blob.checksum, &other));
                }
            }
            Ok(())
        })
    }
}

/// An object has one address, its XXH3-64, which is not collision resistant: two files of one digest cannot both be
/// published. They are in the order of their digests.
pub(in crate::remote) fn refuse_twins(
    contents: impl Iterator<Item = (Digest, Checksum)> + Clone,
) -> Result<()> {
    let mut pairs = contents.clone().zip(contents.skip(1));
    match pairs.find(|(one, other)| one.0 == other.0 && one.1 != other.1) {
        Some((one, other)) => Err(twins(one.0, &other.1, &one.1)),
        None => Ok(()),
    }
}

fn twins(digest: Digest, one: &Checksum, other: &Checksum) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        format!("{digest} is the address of two different files, {one} and {other}; only one of them can be published"),
    )
    .with_hint("somebody made these files for it; change a byte of one, and its address changes")
}

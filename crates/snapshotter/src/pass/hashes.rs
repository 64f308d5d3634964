//! The two hashes of a stream, and which of them are wanted.

use std::hash::Hasher;

use twox_hash::XxHash3_64;

use crate::words::digest::{Checksum, Digest};

/// Which hashes a pass computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hashing {
    /// Digest and checksum: a capture.
    Both,
    /// The checksum alone: a verification.
    Checksum,
}

/// What a pass found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hashes {
    /// Zero where it was not asked for.
    pub(crate) digest: Digest,
    pub(crate) checksum: Checksum,
}

/// The hashes of a stream that comes in order.
pub(crate) struct Hashers {
    digest: Option<XxHash3_64>,
    checksum: blake3::Hasher,
}

impl Hashers {
    pub(crate) fn new(hashing: Hashing) -> Self {
        Self {
            digest: (hashing == Hashing::Both).then(XxHash3_64::new),
            checksum: blake3::Hasher::new(),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        if let Some(digest) = &mut self.digest {
            digest.write(bytes);
        }
        self.checksum.update(bytes);
    }

    pub(crate) fn finish(self) -> Hashes {
        Hashes {
            digest: Digest::from_u64(self.digest.map_or(0, |hasher| hasher.finish())),
            checksum: Checksum::from_bytes(*self.checksum.finalize().as_bytes()),
        }
    }
}

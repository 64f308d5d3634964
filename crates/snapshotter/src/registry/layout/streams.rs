//! Blobs that do not fit into memory.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use sha2::Digest as _;
use tokio::sync::mpsc;

use super::blobs::name;
use super::dir::RepositoryDir;
use crate::fs::Dir;
use crate::fs::durable::Draft;
use crate::registry::remote::within;
use crate::words::digest::Sha256;
use crate::words::error::{At, Error, Result};

const CHUNK: u64 = 1 << 20;

/// A blob on its way to its name. Dropping it before [`BlobDraft::publish`] leaves nothing.
pub(super) struct BlobDraft {
    file: Draft<Dir>,
    hasher: sha2::Sha256,
    /// What it will have, in bytes.
    size: u64,
}

impl BlobDraft {
    pub(super) fn append(mut self, bytes: &[u8]) -> Result<Self> {
        self.hasher.update(bytes);
        self.file.append(bytes, self.size)?;
        Ok(self)
    }

    pub(super) fn publish(mut self) -> Result<Sha256> {
        let sha256 = Sha256::from_bytes(self.hasher.finalize().into());
        self.file.publish(&name(sha256), true)?;
        Ok(sha256)
    }
}

impl RepositoryDir {
    pub(super) fn begin_blob(self, size: u64) -> Result<BlobDraft> {
        Ok(BlobDraft {
            file: Draft::create(self.blobs, self.shared_with.file_mode())?,
            hasher: sha2::Sha256::new(),
            size,
        })
    }

    pub(super) fn pull_stream(
        &self,
        sha256: Sha256,
        size: u64,
        range: Option<Range<u64>>,
        sink: &mpsc::Sender<Bytes>,
    ) -> Result<()> {
        let whole = range.is_none();
        let Range { start, end } = within(size, range)?;
        let path = self.blobs.path_of(&name(sha256));
        let mut file = self.open_blob(sha256, size)?;
        file.seek(SeekFrom::Start(start)).at("read", &path)?;
        let (mut hasher, mut at) = (sha2::Sha256::new(), start);
        while at < end {
            let length = (end - at).min(CHUNK);
            let mut chunk = BytesMut::zeroed(usize::try_from(length).unwrap_or(0));
            match file.read_exact(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(self.damaged(sha256, &format!("it ends before {size} bytes")));
                }
                result => result.at("read", &path)?,
            }
            if whole {
                hasher.update(&chunk);
            }
            at += length;
            sink.blocking_send(chunk.freeze())
                .map_err(|_| Error::cancelled())?;
        }
        let found = Sha256::from_bytes(hasher.finalize().into());
        if whole && found != sha256 {
            return Err(self.damaged(sha256, &format!("its bytes are {found}")));
        }
        Ok(())
    }
}

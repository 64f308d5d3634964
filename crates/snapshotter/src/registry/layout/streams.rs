//! Blobs that do not fit into memory.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use sha2::Digest as _;
use tokio::sync::mpsc;

use super::blobs::name;
use super::dir::RepositoryDir;
use crate::fs::durable::Draft;
use crate::registry::Piece;
use crate::registry::remote::within;
use crate::words::digest::Sha256;
use crate::words::error::{At, Error, ErrorKind, Result};

const CHUNK: u64 = 1 << 20;

impl RepositoryDir {
    /// The draft gets its name only after [`Piece::End`]; on every other way out it is removed.
    pub(super) fn push_stream(
        &self,
        mut pieces: mpsc::Receiver<io::Result<Piece>>,
    ) -> Result<(Sha256, u64)> {
        let mut draft = Draft::create(&self.blobs, self.shared_with.file_mode())?;
        let (mut hasher, mut size) = (sha2::Sha256::new(), 0);
        loop {
            match pieces.blocking_recv() {
                Some(Ok(Piece::Bytes(bytes))) => {
                    hasher.update(&bytes);
                    size += bytes.len() as u64;
                    draft.write(&bytes)?;
                }
                Some(Ok(Piece::End)) => break,
                Some(Err(error)) => {
                    let path = self.dir.path().display();
                    let text = format!("cannot push a stream to {path}: it could not be read");
                    return Err(Error::new(ErrorKind::of_io(&error), text).with_source(error));
                }
                None => return Err(Error::cancelled()),
            }
        }
        let sha256 = Sha256::from_bytes(hasher.finalize().into());
        draft.publish(&name(sha256))?;
        Ok((sha256, size))
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

//! The packed stream as a publication reads it: cut where it is needed, and held to its announced length.
//!
//! The length is what tells a whole stream from one whose sender died: a channel says the same at both ends. So a
//! publication makes its object visible only after [`Source::finish`], which waits for the channel to close.

use bytes::Bytes;

use super::Pieces;
use crate::words::digest::Digest;
use crate::words::error::{Error, ErrorKind, Result};

/// A stream of a known length.
pub(super) struct Source {
    digest: Digest,
    size: u64,
    left: u64,
    rest: Bytes,
    pieces: Pieces,
}

impl Source {
    pub(super) fn new(digest: Digest, size: u64, pieces: Pieces) -> Self {
        Self {
            digest,
            size,
            left: size,
            rest: Bytes::new(),
            pieces,
        }
    }

    /// Bytes that are still to come.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// The next bytes, at least one and at most `most`. Not to be called when nothing is left.
    ///
    /// # Errors
    /// The source's own; `Internal` when the channel closes too early.
    pub(super) async fn next(&mut self, most: u64) -> Result<Bytes> {
        while self.rest.is_empty() {
            self.rest = self.receive().await?.ok_or_else(|| self.too_short())?;
        }
        let most = usize::try_from(most.min(self.left)).unwrap_or(usize::MAX);
        let bytes = self.rest.split_to(self.rest.len().min(most));
        self.left -= bytes.len() as u64;
        Ok(bytes)
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// As [`Source::next`].
    #[cfg(feature = "_opendal")]
    pub(super) async fn part(&mut self, len: u64) -> Result<Vec<Bytes>> {
        let mut part = Vec::new();
        let mut missing = len;
        while missing > 0 {
            let bytes = self.next(missing).await?;
            missing -= bytes.len() as u64;
            part.push(bytes);
        }
        Ok(part)
    }

    /// Waits for the end of the stream, which must be here.
    ///
    /// # Errors
    /// The source's own; `Internal` when there are more bytes.
    pub(super) async fn finish(mut self) -> Result<()> {
        debug_assert_eq!(self.left, 0);
        while self.rest.is_empty() {
            match self.receive().await? {
                Some(bytes) => self.rest = bytes,
                None => return Ok(()),
            }
        }
        Err(self.error("gave more than the bytes it announced"))
    }

    async fn receive(&mut self) -> Result<Option<Bytes>> {
        self.pieces.recv().await.transpose()
    }

    fn too_short(&self) -> Error {
        self.error(&format!("ended {} bytes early", self.left))
    }

    fn error(&self, what: &str) -> Error {
        let (digest, size) = (self.digest, self.size);
        Error::new(
            ErrorKind::Internal,
            format!("the stream of {digest}, {size} bytes, {what}"),
        )
    }
}

//! What is published: a known number of bytes, which are read from their beginning as often as sending them takes.
//!
//! The length is what tells a whole stream from one whose sender died: a channel says the same at both ends. So a stream is
//! over when its channel closes after all bytes, and a publication makes its object visible only after
//! [`Pieces::finish`], which waits for that. Who reads a stream keeps its last bytes back until they are known to be right.

use std::fs::File;
use std::future::poll_fn;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::files::{PIECE, read_ahead};
use crate::pass::buffers::Buffers;
use crate::words::error::{Error, ErrorKind, Result};

/// Pieces between whoever reads a stream and whoever sends it.
const AHEAD: usize = 4;

/// Where the pieces of a stream go, in order. An `Err` gives the publication up, which then fails with it. Pieces may be of
/// any length, empty ones too; each should own its memory, since a slice keeps alive what it was cut from.
pub(crate) type SourceSink = mpsc::Sender<Result<Bytes>>;

/// A source of `size` bytes.
#[derive(Debug)]
pub(crate) struct Source {
    size: u64,
    from: From,
}

#[derive(Debug)]
enum From {
    /// Somebody who reads the stream, and hears where it is to go.
    Stream(mpsc::Sender<SourceSink>),
    File(Arc<File>, PathBuf, Range<u64>),
    Bytes(Bytes),
}

impl Source {
    /// A stream, and what tells its reader that it is to begin: once, or again where a connection broke.
    pub(crate) fn stream(size: u64) -> (Self, mpsc::Receiver<SourceSink>) {
        let (begun, asked) = mpsc::channel(1);
        let from = From::Stream(begun);
        (Self { size, from }, asked)
    }

    /// A range of a file, which is as it should be.
    pub(crate) fn file(file: File, path: PathBuf, range: Range<u64>) -> Self {
        Self {
            size: range.end.saturating_sub(range.start),
            from: From::File(Arc::new(file), path, range),
        }
    }

    /// Bytes in memory.
    pub(crate) fn bytes(bytes: Bytes) -> Self {
        Self {
            size: bytes.len() as u64,
            from: From::Bytes(bytes),
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The file that it is all of.
    #[cfg(feature = "dragonfly")]
    pub(crate) fn whole_file(&self) -> Option<&File> {
        match &self.from {
            From::File(file, _, range) if range.start == 0 => {
                let is_whole = file.metadata().is_ok_and(|file| file.len() == range.end);
                is_whole.then_some(&**file)
            }
            _ => None,
        }
    }

    /// All bytes, from the first one. What is left of an earlier beginning is not waited for.
    ///
    /// # Errors
    /// `Busy` where there is no thread to read a file.
    pub(crate) async fn begin(&self) -> Result<Pieces> {
        let pieces = match &self.from {
            From::Stream(begun) => {
                let (sink, pieces) = mpsc::channel(AHEAD);
                // Where nobody takes it, it is dropped: a stream that ends at once.
                let _ = begun.send(sink).await;
                pieces
            }
            From::Bytes(bytes) => {
                let (sink, pieces) = mpsc::channel(1);
                // There is room for one.
                let _ = sink.try_send(Ok(bytes.clone()));
                pieces
            }
            From::File(file, path, range) => read_ahead(
                Arc::clone(file),
                path.clone(),
                range.clone(),
                Buffers::new(PIECE as usize),
            )?,
        };
        Ok(Pieces {
            size: self.size,
            missing: self.size,
            rest: Bytes::new(),
            pieces,
        })
    }
}

/// The bytes of a source, held to its length.
#[derive(Debug)]
pub(crate) struct Pieces {
    size: u64,
    /// Bytes that have not come.
    missing: u64,
    /// Bytes that have, and were not given on.
    rest: Bytes,
    pieces: mpsc::Receiver<Result<Bytes>>,
}

impl Pieces {
    /// Bytes that are still to be given.
    pub(crate) fn left(&self) -> u64 {
        self.missing.saturating_add(self.rest.len() as u64)
    }

    /// The next bytes, at least one and at most `most`. Not to be called when nothing is left.
    ///
    /// # Errors
    /// The source's own; `Internal` when it ends too early.
    pub(crate) async fn next(&mut self, most: u64) -> Result<Bytes> {
        if self.rest.is_empty() {
            let next = poll_fn(|cx| self.poll_next(cx)).await?;
            self.rest = next.ok_or_else(|| self.too_short())?;
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Ok(self.rest.split_to(self.rest.len().min(most)))
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// As [`Pieces::next`].
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

    /// Waits for the end of the source, which must be here.
    ///
    /// # Errors
    /// The source's own; `Internal` when there are more bytes.
    pub(crate) async fn finish(mut self) -> Result<()> {
        debug_assert_eq!(self.left(), 0);
        poll_fn(|cx| self.poll_next(cx)).await.map(drop)
    }

    /// The next piece, as it came; `None`: all have, and the source has ended well.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        loop {
            let Some(bytes) = ready!(self.pieces.poll_recv(cx)).transpose()? else {
                return Poll::Ready(match self.missing {
                    0 => Ok(None),
                    _ => Err(self.too_short()),
                });
            };
            self.missing = self
                .missing
                .checked_sub(bytes.len() as u64)
                .ok_or_else(|| self.error("gave more than the bytes it announced"))?;
            if !bytes.is_empty() {
                return Poll::Ready(Ok(Some(bytes)));
            }
        }
    }

    /// Takes no more pieces: whoever sends them is to stop.
    pub(crate) fn close(&mut self) {
        self.pieces.close();
    }

    fn too_short(&self) -> Error {
        self.error(&format!("ended {} bytes early", self.missing))
    }

    fn error(&self, what: &str) -> Error {
        let text = format!("the source of {} bytes {what}", self.size);
        Error::new(ErrorKind::Internal, text)
    }
}

//! Bodies on the wire. What goes out tells how it gets on; what comes in is bounded in bytes and in silence.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use http_body::{Body, Frame, SizeHint};
use opendal::{Buffer, Error, ErrorKind, Result};
use tokio::time::{Instant, Sleep};

/// Sent at once: small enough for a slow line to show progress within the time limit.
const SLICE: usize = 256 << 10;

/// Counts what the connection has taken of a request's body.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(Arc<AtomicU64>);

impl Progress {
    pub(super) fn taken(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A request's body: the buffer's own bytes, uncopied.
pub(super) struct Outgoing {
    buffer: Buffer,
    slice: Bytes,
    progress: Progress,
}

impl Outgoing {
    pub(super) fn new(buffer: Buffer, progress: Progress) -> Self {
        Self {
            buffer,
            slice: Bytes::new(),
            progress,
        }
    }

    fn left(&self) -> u64 {
        (self.buffer.len() + self.slice.len()) as u64
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.slice.is_empty() {
            let Some(next) = self.buffer.next() else {
                return Poll::Ready(None);
            };
            self.slice = next;
        }
        let len = self.slice.len().min(SLICE);
        let bytes = self.slice.split_to(len);
        self.progress.0.fetch_add(len as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}

/// A response's body.
pub(super) struct Incoming {
    body: Pin<Box<reqwest::Body>>,
    silence: Pin<Box<Sleep>>,
    timeout: Duration,
    /// Bytes that may still come.
    left: u64,
}

impl Incoming {
    pub(super) fn new(body: reqwest::Body, most: u64, timeout: Duration) -> Self {
        Self {
            body: Box::pin(body),
            silence: Box::pin(tokio::time::sleep(timeout)),
            timeout,
            left: most,
        }
    }

    fn account(&mut self, bytes: Bytes) -> Result<Buffer> {
        let len = bytes.len() as u64;
        if len > self.left {
            return Err(Error::new(
                ErrorKind::Unexpected,
                "the server sent more than was asked for",
            ));
        }
        self.left -= len;
        Ok(bytes.into())
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Buffer>>> {
        ready!(self.silence.as_mut().poll(cx));
        Poll::Ready(Some(Err(silent(self.timeout))))
    }
}

impl Stream for Incoming {
    type Item = Result<Buffer>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Buffer>>> {
        loop {
            let Poll::Ready(frame) = self.body.as_mut().poll_frame(cx) else {
                return self.poll_silence(cx);
            };
            let deadline = Instant::now() + self.timeout;
            self.silence.as_mut().reset(deadline);
            return Poll::Ready(match frame {
                None => None,
                Some(Err(error)) => Some(Err(super::http::failed(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if bytes.is_empty() => continue,
                    Ok(bytes) => Some(self.account(bytes)),
                    // Trailers say nothing to us.
                    Err(_) => continue,
                },
            });
        }
    }
}

/// The error for a server that makes no progress.
pub(super) fn silent(timeout: Duration) -> Error {
    let text = format!("no progress for {} ms", timeout.as_millis());
    Error::new(ErrorKind::Unexpected, text).set_temporary()
}

//! Bodies on the wire. What goes out tells how it gets on; what comes in is bounded in bytes and in time.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use http_body::{Body, Frame, SizeHint};
use opendal::{Buffer, Error, ErrorKind, Result};
use tokio::time::Sleep;

use crate::patience::{Patience, Progress, SLICE, Stuck};

/// A request's body: the buffer's own bytes, uncopied.
pub(super) struct Outgoing {
    buffer: Buffer,
    slice: Bytes,
    progress: Arc<Progress>,
}

impl Outgoing {
    pub(super) fn new(buffer: Buffer, progress: Arc<Progress>) -> Self {
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
        self.progress.sent(len);
        if self.left() == 0 {
            self.progress.sent_all();
        }
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
    progress: Progress,
    sleep: Pin<Box<Sleep>>,
    /// Bytes that may still come.
    left: u64,
}

impl Incoming {
    pub(super) fn new(body: reqwest::Body, most: u64, patience: Patience) -> Self {
        Self {
            body: Box::pin(body),
            progress: Progress::incoming(patience),
            sleep: Box::pin(tokio::time::sleep(patience.silence)),
            left: most,
        }
    }

    fn account(&mut self, bytes: Bytes) -> Result<Buffer> {
        self.progress.came(bytes.len());
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

    fn poll_stuck(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Buffer>>> {
        let stuck = ready!(self.progress.poll_stuck(self.sleep.as_mut(), cx));
        Poll::Ready(Some(Err(stuck_error(stuck))))
    }
}

impl Stream for Incoming {
    type Item = Result<Buffer>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Buffer>>> {
        self.progress.waits_for_server();
        loop {
            let Poll::Ready(frame) = self.body.as_mut().poll_frame(cx) else {
                return self.poll_stuck(cx);
            };
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

/// The error for a server that is waited for no longer.
pub(super) fn stuck_error(stuck: Stuck) -> Error {
    Error::new(ErrorKind::Unexpected, stuck.to_string()).set_temporary()
}

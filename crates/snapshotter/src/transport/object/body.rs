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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;

    /// A body that brings what a test sends.
    struct Brought(mpsc::Receiver<Bytes>);

    impl Body for Brought {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let bytes = ready!(self.0.poll_recv(cx));
            Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
        }
    }

    /// A body of so many pieces, one every so many seconds, taken by somebody who is as slow or slower.
    async fn received(length: usize, pieces: u32, theirs: u64, ours: u64) -> Result<usize> {
        let (sink, source) = mpsc::channel(1);
        let patience = Patience {
            silence: Duration::from_secs(30),
            min_rate: 4096,
            window: Duration::from_secs(60),
            setting: "content.min_rate",
        };
        let mut incoming = Incoming::new(reqwest::Body::wrap(Brought(source)), u64::MAX, patience);
        tokio::spawn(async move {
            for _ in 0..pieces {
                tokio::time::sleep(Duration::from_secs(theirs)).await;
                let _ = sink.send(Bytes::from(vec![0; length])).await;
            }
        });
        let mut taken = 0;
        while let Some(buffer) =
            std::future::poll_fn(|cx| Pin::new(&mut incoming).poll_next(cx)).await
        {
            taken += buffer?.len();
            tokio::time::sleep(Duration::from_secs(ours)).await;
        }
        Ok(taken)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_nobody_takes_for_an_hour_is_not_the_servers_fault_and_a_slow_one_is() {
        assert_eq!(received(8192, 100, 1, 0).await.unwrap(), 819_200);
        // Bytes that wait are not waited for, and those that are get their time from when they are asked for.
        assert_eq!(received(8192, 100, 0, 3600).await.unwrap(), 819_200);
        assert_eq!(received(1 << 20, 3, 29, 3600).await.unwrap(), 3 << 20);
        let slow = received(100, 1000, 1, 0).await.unwrap_err();
        assert!(
            slow.is_temporary() && slow.message().starts_with("too slow: "),
            "{slow}"
        );
        let silent = received(1 << 20, 2, 31, 0).await.unwrap_err();
        assert_eq!(silent.message(), "no progress within 30s");
    }
}

//! Bodies on the wire. What goes out tells how it gets on; what comes in is bounded in bytes and in time.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use crate::patience::{Patience, Progress, SLICE, Stuck};

/// Bytes in memory as a request's body, uncopied; its length is known.
pub(crate) struct Outgoing<I> {
    pieces: I,
    slice: Bytes,
    left: u64,
    progress: Arc<Progress>,
}

impl<I> Outgoing<I> {
    /// Pieces that have so many bytes together.
    pub(crate) fn new(pieces: I, bytes: u64, progress: Arc<Progress>) -> Self {
        Self {
            pieces,
            slice: Bytes::new(),
            left: bytes,
            progress,
        }
    }
}

impl<I: Iterator<Item = Bytes> + Unpin> Body for Outgoing<I> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        while self.slice.is_empty() {
            let Some(next) = self.pieces.next() else {
                return Poll::Ready(None);
            };
            self.slice = next;
        }
        let len = self.slice.len().min(SLICE);
        let bytes = self.slice.split_to(len);
        self.left = self.left.saturating_sub(len as u64);
        self.progress.sent(len);
        if self.left == 0 {
            self.progress.sent_all();
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Why no more of a body comes.
#[derive(Debug)]
pub(crate) enum Broken {
    Connection(reqwest::Error),
    Stuck(Stuck),
    TooLong,
}

/// An answer's body.
#[derive(Debug)]
pub(crate) struct Incoming {
    body: Pin<Box<reqwest::Body>>,
    progress: Progress,
    sleep: Pin<Box<Sleep>>,
    /// Bytes that may still come.
    left: u64,
}

impl Incoming {
    pub(crate) fn new(body: reqwest::Body, most: u64, patience: Patience) -> Self {
        Self {
            body: Box::pin(body),
            progress: Progress::incoming(patience),
            sleep: Box::pin(tokio::time::sleep(patience.silence)),
            left: most,
        }
    }

    /// How long its bytes were waited for.
    pub(crate) fn waited(&self) -> Duration {
        self.progress.waited()
    }

    /// The next bytes; `None`: all have come.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        poll_fn(|cx| self.poll_next(cx)).await.transpose()
    }

    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Broken>>> {
        self.progress.waits_for_server();
        loop {
            let Poll::Ready(frame) = self.body.as_mut().poll_frame(cx) else {
                let stuck = self.progress.poll_stuck(self.sleep.as_mut(), cx);
                return stuck.map(|stuck| Some(Err(Broken::Stuck(stuck))));
            };
            return Poll::Ready(match frame {
                None => None,
                Some(Err(error)) => Some(Err(Broken::Connection(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if bytes.is_empty() => continue,
                    Ok(bytes) => Some(self.account(bytes)),
                    // Trailers say nothing to us.
                    Err(_) => continue,
                },
            });
        }
    }

    fn account(&mut self, bytes: Bytes) -> Result<Bytes, Broken> {
        self.progress.came(bytes.len());
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or(Broken::TooLong)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::iter;
    use std::task::ready;

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
    async fn received(length: usize, pieces: u32, theirs: u64, ours: u64) -> Result<usize, Broken> {
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
        while let Some(bytes) = incoming.next().await? {
            taken += bytes.len();
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
            matches!(slow, Broken::Stuck(Stuck::Slow { .. })),
            "{slow:?}"
        );
        let silent = received(1 << 20, 2, 31, 0).await.unwrap_err();
        let limit = Duration::from_secs(30);
        assert!(matches!(silent, Broken::Stuck(Stuck::Silent(silent)) if silent == limit));
    }

    #[tokio::test]
    async fn a_large_piece_goes_in_slices_that_each_are_progress_and_no_more_comes_than_was_asked_for()
     {
        let bytes = Bytes::from(vec![7; 2 * SLICE + 1]);
        let patience = Patience {
            silence: Duration::from_secs(30),
            min_rate: 0,
            window: Duration::from_secs(60),
            setting: "content.min_rate",
        };
        let outgoing = || {
            let progress = Arc::new(Progress::outgoing(patience));
            Outgoing::new(iter::once(bytes.clone()), bytes.len() as u64, progress)
        };
        let (mut body, mut lengths) = (outgoing(), Vec::new());
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            lengths.push(frame.unwrap().into_data().unwrap().len());
        }
        assert_eq!(lengths, [SLICE, SLICE, 1]);
        let most = bytes.len() as u64 - 1;
        let mut incoming = Incoming::new(reqwest::Body::wrap(outgoing()), most, patience);
        let mut come = 0;
        let ended = loop {
            match incoming.next().await {
                Ok(Some(bytes)) => come += bytes.len(),
                ended => break ended,
            }
        };
        assert!(matches!(ended, Err(Broken::TooLong)));
        assert_eq!(come, 2 * SLICE);
    }
}

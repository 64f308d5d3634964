//! What is sent: it tells how it gets on, so that an upload may take hours, but not without end.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use sha2::Digest as _;
use tokio::sync::mpsc;

use crate::patience::{Progress, SLICE};
use crate::registry::Piece;
use crate::words::digest::Sha256;

/// Bytes in memory as a body; its length is known.
pub(super) struct Whole {
    pub(super) left: Bytes,
    pub(super) progress: Arc<Progress>,
}

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let length = self.left.len().min(SLICE);
        let slice = self.left.split_to(length);
        self.progress.sent(length);
        if self.left.is_empty() {
            self.progress.sent_all();
        }
        Poll::Ready((!slice.is_empty()).then(|| Ok(Frame::data(slice))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

/// What became of a stream.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is still being sent, or the sending was given up.
    Unfinished,
    /// [`Piece::End`] came.
    Finished(Sha256, u64),
    /// An error came instead.
    Failed(io::Error),
    /// Its sender is gone.
    Abandoned,
}

/// A stream as a body. Its end is the body's end only after [`Piece::End`]; otherwise the body fails, and with it the
/// connection, so that no server can take a part for the whole.
pub(super) struct Stream {
    pieces: mpsc::Receiver<io::Result<Piece>>,
    /// Of a piece that is larger than what is handed over at once.
    rest: Bytes,
    progress: Arc<Progress>,
    hasher: sha2::Sha256,
    size: u64,
    outcome: Arc<Mutex<Outcome>>,
}

impl Stream {
    pub(super) fn new(
        pieces: mpsc::Receiver<io::Result<Piece>>,
        progress: Arc<Progress>,
    ) -> (Self, Arc<Mutex<Outcome>>) {
        let outcome = Arc::new(Mutex::new(Outcome::Unfinished));
        let stream = Self {
            pieces,
            rest: Bytes::new(),
            progress,
            hasher: sha2::Sha256::new(),
            size: 0,
            outcome: Arc::clone(&outcome),
        };
        (stream, outcome)
    }

    fn take(&mut self, bytes: Bytes) {
        self.hasher.update(&bytes);
        self.size += bytes.len() as u64;
        self.rest = bytes;
    }

    fn finish(&mut self) -> Option<io::Result<Frame<Bytes>>> {
        let sha256 = Sha256::from_bytes(self.hasher.finalize_reset().into());
        self.end(Outcome::Finished(sha256, self.size))
    }

    fn end(&mut self, outcome: Outcome) -> Option<io::Result<Frame<Bytes>>> {
        self.progress.sent_all();
        let finished = matches!(outcome, Outcome::Finished(..));
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
        (!finished).then(|| Err(io::Error::other("the stream did not end")))
    }
}

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        // An empty chunk would end the body.
        while self.rest.is_empty() {
            let Poll::Ready(piece) = self.pieces.poll_recv(cx) else {
                self.progress.waits_for_us();
                return Poll::Pending;
            };
            match piece {
                Some(Ok(Piece::Bytes(bytes))) => self.take(bytes),
                Some(Ok(Piece::End)) => return Poll::Ready(self.finish()),
                Some(Err(error)) => return Poll::Ready(self.end(Outcome::Failed(error))),
                None => return Poll::Ready(self.end(Outcome::Abandoned)),
            }
        }
        let length = self.rest.len().min(SLICE);
        self.progress.sent(length);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::patience::Patience;

    const LIMIT: Duration = Duration::from_secs(30);

    fn progress() -> Arc<Progress> {
        Arc::new(Progress::outgoing(Patience {
            silence: LIMIT,
            min_rate: 4096,
            window: LIMIT * 2,
            setting: "registry.min_rate",
        }))
    }

    async fn frame<B: http_body::Body + Unpin>(
        body: &mut B,
    ) -> Option<Result<Frame<B::Data>, B::Error>> {
        std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_whose_sender_takes_its_time_is_waited_for() {
        let (sink, source) = mpsc::channel(1);
        let progress = progress();
        let (mut stream, outcome) = Stream::new(source, Arc::clone(&progress));
        tokio::spawn(async move {
            tokio::time::sleep(LIMIT * 10).await;
            let _ = sink.send(Ok(Piece::End)).await;
        });
        let ended = progress.watch(frame(&mut stream)).await;
        assert!(ended.expect("it is waited for").is_none());
        let outcome = outcome.lock().unwrap();
        assert!(matches!(*outcome, Outcome::Finished(_, 0)), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_large_piece_goes_in_slices_that_each_are_progress() {
        let (sink, source) = mpsc::channel(2);
        let bytes = Bytes::from(vec![7; 2 * SLICE + 1]);
        sink.send(Ok(Piece::Bytes(bytes.clone()))).await.unwrap();
        sink.send(Ok(Piece::End)).await.unwrap();
        let (mut stream, outcome) = Stream::new(source, progress());
        let whole = Whole {
            left: bytes.clone(),
            progress: progress(),
        };
        let mut lengths = Vec::new();
        while let Some(frame) = frame(&mut stream).await {
            lengths.push(frame.unwrap().into_data().unwrap().len());
        }
        assert_eq!(lengths, [SLICE, SLICE, 1]);
        let mut whole = whole;
        assert_eq!(
            frame(&mut whole)
                .await
                .unwrap()
                .unwrap()
                .into_data()
                .unwrap()
                .len(),
            SLICE
        );
        let outcome = outcome.lock().unwrap();
        let expected = (Sha256::of(&bytes), bytes.len() as u64);
        assert!(
            matches!(*outcome, Outcome::Finished(sha256, size) if (sha256, size) == expected),
            "{outcome:?}"
        );
    }
}

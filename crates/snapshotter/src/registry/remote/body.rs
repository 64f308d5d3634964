//! What is sent, and how far it got: an upload may take hours, but not half a minute without a byte.

use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use sha2::Digest as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::registry::Piece;
use crate::words::digest::Sha256;

/// How much of bytes in memory is handed over at once: each time is a sign of progress.
const SLICE: usize = 256 << 10;

/// When a request last made progress.
#[derive(Debug)]
pub(super) struct Beat(Mutex<State>);

#[derive(Debug)]
struct State {
    last: Instant,
    /// The bytes to send are not there yet: it is us who are slow, not the network.
    waiting: bool,
}

impl Beat {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            last: Instant::now(),
            waiting: false,
        })))
    }

    fn set(&self, waiting: bool) {
        *self.lock() = State {
            last: Instant::now(),
            waiting,
        };
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deadline(&self, limit: Duration) -> Instant {
        let state = self.lock();
        if state.waiting {
            Instant::now() + limit
        } else {
            state.last + limit
        }
    }

    /// Runs a request; `None` once it made no progress for so long.
    pub(super) async fn watch<F: Future>(&self, limit: Duration, request: F) -> Option<F::Output> {
        let mut request = pin!(request);
        loop {
            if let Ok(output) = timeout_at(self.deadline(limit), request.as_mut()).await {
                return Some(output);
            }
            if self.deadline(limit) <= Instant::now() {
                return None;
            }
        }
    }
}

/// Bytes in memory as a body; its length is known.
pub(super) struct Whole {
    pub(super) left: Bytes,
    pub(super) beat: Arc<Beat>,
}

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.beat.set(false);
        let length = self.left.len().min(SLICE);
        let slice = self.left.split_to(length);
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
    beat: Arc<Beat>,
    hasher: sha2::Sha256,
    size: u64,
    outcome: Arc<Mutex<Outcome>>,
}

impl Stream {
    pub(super) fn new(
        pieces: mpsc::Receiver<io::Result<Piece>>,
        beat: Arc<Beat>,
    ) -> (Self, Arc<Mutex<Outcome>>) {
        let outcome = Arc::new(Mutex::new(Outcome::Unfinished));
        let stream = Self {
            pieces,
            beat,
            hasher: sha2::Sha256::new(),
            size: 0,
            outcome: Arc::clone(&outcome),
        };
        (stream, outcome)
    }

    fn end(&mut self, outcome: Outcome) -> Option<io::Result<Frame<Bytes>>> {
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
        loop {
            let Poll::Ready(piece) = self.pieces.poll_recv(cx) else {
                self.beat.set(true);
                return Poll::Pending;
            };
            self.beat.set(false);
            return Poll::Ready(match piece {
                // An empty chunk would end the body.
                Some(Ok(Piece::Bytes(bytes))) if bytes.is_empty() => continue,
                Some(Ok(Piece::Bytes(bytes))) => {
                    self.hasher.update(&bytes);
                    self.size += bytes.len() as u64;
                    Some(Ok(Frame::data(bytes)))
                }
                Some(Ok(Piece::End)) => {
                    let sha256 = Sha256::from_bytes(self.hasher.finalize_reset().into());
                    let size = self.size;
                    self.end(Outcome::Finished(sha256, size))
                }
                Some(Err(error)) => self.end(Outcome::Failed(error)),
                None => self.end(Outcome::Abandoned),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_request_without_progress_ends_and_one_with_progress_goes_on() {
        let beat = Beat::new();
        let silent = beat.watch(LIMIT, std::future::pending::<()>()).await;
        assert_eq!(silent, None);
        let busy = async {
            for _ in 0..10 {
                tokio::time::sleep(LIMIT / 2).await;
                beat.set(false);
            }
        };
        beat.set(false);
        assert_eq!(beat.watch(LIMIT, busy).await, Some(()));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_our_own_bytes_is_no_fault_of_the_network() {
        let beat = Beat::new();
        beat.set(true);
        let slow = tokio::time::sleep(LIMIT * 10);
        assert_eq!(beat.watch(LIMIT, slow).await, Some(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_whose_sender_takes_its_time_is_waited_for() {
        let (sink, source) = mpsc::channel(1);
        let beat = Beat::new();
        let (mut stream, outcome) = Stream::new(source, Arc::clone(&beat));
        tokio::spawn(async move {
            tokio::time::sleep(LIMIT * 10).await;
            let _ = sink.send(Ok(Piece::End)).await;
        });
        let frame =
            std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut stream), cx));
        let ended = beat.watch(LIMIT, frame).await.expect("it is waited for");
        assert!(ended.is_none());
        let outcome = outcome.lock().unwrap();
        assert!(matches!(*outcome, Outcome::Finished(_, 0)), "{outcome:?}");
    }
}

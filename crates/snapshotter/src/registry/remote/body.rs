//! A stream that is sent: it tells how it gets on, so that an upload may take hours, but not without end.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use sha2::Digest as _;

use crate::lock::lock;
use crate::patience::{Progress, SLICE};
use crate::transport::Pieces;
use crate::words::digest::Sha256;
use crate::words::error::Error;

/// What became of a stream.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is still being sent, or the sending was given up.
    Unfinished,
    /// All came.
    Finished(Sha256),
    /// An error came instead, or not all.
    Failed(Error),
}

/// A stream that is sent, in one request or several, one after the other. It is known also when their bodies are gone.
#[derive(Debug)]
pub(super) struct Sent {
    flow: Mutex<Flow>,
    bytes: AtomicU64,
}

#[derive(Debug)]
struct Flow {
    pieces: Pieces,
    /// Of a piece that is larger than what is handed over at once.
    rest: Bytes,
    hasher: sha2::Sha256,
    outcome: Outcome,
}

impl Flow {
    /// The next bytes, at most so many; `None` at the end. The first end counts.
    fn poll(&mut self, most: u64, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if self.rest.is_empty() {
            match ready!(self.pieces.poll_next(cx)) {
                Ok(Some(bytes)) => {
                    self.hasher.update(&bytes);
                    self.rest = bytes;
                }
                ended => return Poll::Ready(self.ended(ended.map(drop))),
            }
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let bytes = self.rest.split_to(self.rest.len().min(most));
        Poll::Ready(Ok(Some(bytes)))
    }

    /// Bytes came to an end, or an error came instead.
    fn ended(&mut self, end: Result<(), Error>) -> io::Result<Option<Bytes>> {
        if matches!(self.outcome, Outcome::Unfinished) {
            self.outcome = match end {
                Ok(()) => {
                    let sha256 = Sha256::from_bytes(self.hasher.finalize_reset().into());
                    Outcome::Finished(sha256)
                }
                Err(error) => Outcome::Failed(error),
            };
        }
        match self.outcome {
            Outcome::Finished(_) => Ok(None),
            _ => Err(io::Error::other("the stream did not end")),
        }
    }
}

impl Sent {
    pub(super) fn new(pieces: Pieces) -> Arc<Self> {
        Arc::new(Self {
            flow: Mutex::new(Flow {
                pieces,
                rest: Bytes::new(),
                hasher: sha2::Sha256::new(),
                outcome: Outcome::Unfinished,
            }),
            bytes: AtomicU64::new(0),
        })
    }

    /// What became of it, once the request is over. Whoever sends it is to stop: a server may answer before it has read the
    /// body, and the connection goes on waiting for it to.
    pub(super) fn end(&self) -> Outcome {
        let mut flow = lock(&self.flow);
        flow.pieces.close();
        std::mem::replace(&mut flow.outcome, Outcome::Unfinished)
    }

    /// How many bytes were handed to connections.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Leaves out what the other side has already: it is only hashed. Where the stream ends before, so does this.
    pub(super) async fn skip(&self, mut bytes: u64, progress: &Progress) {
        progress.waits_for_us();
        while bytes > 0 {
            match poll_fn(|cx| lock(&self.flow).poll(bytes, cx)).await {
                Ok(Some(skipped)) => bytes -= skipped.len() as u64,
                Ok(None) | Err(_) => {
                    progress.sent_all();
                    return;
                }
            }
        }
        progress.waits_for_server();
    }

    /// Hashes the rest, where the other side has all of it.
    pub(super) async fn skip_all(&self, progress: &Progress) {
        self.skip(u64::MAX, progress).await;
    }

    /// All that is left, as a body that ends where the source ends.
    pub(super) fn rest(self: &Arc<Self>, progress: &Arc<Progress>) -> Stream {
        Stream {
            sent: Arc::clone(self),
            progress: Arc::clone(progress),
            left: None,
        }
    }

    /// The next bytes, as a body that says how many they are.
    pub(super) fn part(self: &Arc<Self>, bytes: u64, progress: &Arc<Progress>) -> Stream {
        Stream {
            left: Some(bytes),
            ..self.rest(progress)
        }
    }
}

/// A stream as a body. Its end is the body's end only where the source has ended well; otherwise the body fails, and with it
/// the connection, so that no server can take a part for the whole.
pub(super) struct Stream {
    sent: Arc<Sent>,
    progress: Arc<Progress>,
    /// How much of it is still to come in this request, where it is not for all.
    left: Option<u64>,
}

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == Some(0) {
            return Poll::Ready(None);
        }
        let most = self.left.unwrap_or(u64::MAX).min(SLICE as u64);
        let Poll::Ready(next) = lock(&self.sent.flow).poll(most, cx) else {
            self.progress.waits_for_us();
            return Poll::Pending;
        };
        let Some(bytes) = next.transpose() else {
            self.progress.sent_all();
            return Poll::Ready(None);
        };
        let bytes = bytes.inspect_err(|_| self.progress.sent_all())?;
        self.progress.sent(bytes.len());
        self.sent
            .bytes
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.left = self.left.map(|left| left - bytes.len() as u64);
        if self.left == Some(0) {
            self.progress.sent_all();
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::patience::Patience;
    use crate::transport::Source;

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
        poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_whose_sender_takes_its_time_is_waited_for() {
        let (source, mut begun) = Source::stream(0);
        let progress = progress();
        let (pieces, sink) = tokio::join!(source.begin(), begun.recv());
        let sent = Sent::new(pieces.unwrap());
        let mut stream = sent.rest(&progress);
        tokio::spawn(async move {
            tokio::time::sleep(LIMIT * 10).await;
            drop(sink);
        });
        let ended = progress.watch(frame(&mut stream)).await;
        assert!(ended.expect("it is waited for").is_none());
        let outcome = sent.end();
        assert!(matches!(outcome, Outcome::Finished(_)), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_large_piece_goes_in_slices_that_each_are_progress() {
        let bytes = Bytes::from(vec![7; 2 * SLICE + 1]);
        let (source, mut begun) = Source::stream(bytes.len() as u64);
        let (pieces, sink) = tokio::join!(source.begin(), begun.recv());
        sink.unwrap().send(Ok(bytes.clone())).await.unwrap();
        let sent = Sent::new(pieces.unwrap());
        let mut stream = sent.rest(&progress());
        let mut lengths = Vec::new();
        while let Some(frame) = frame(&mut stream).await {
            lengths.push(frame.unwrap().into_data().unwrap().len());
        }
        assert_eq!(lengths, [SLICE, SLICE, 1]);
        let outcome = sent.end();
        let expected = Sha256::of(&bytes);
        assert!(
            matches!(outcome, Outcome::Finished(sha256) if sha256 == expected),
            "{outcome:?}"
        );
    }
}

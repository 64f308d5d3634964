//! A stream that is sent: it tells how it gets on, so that an upload may take hours, but not without end.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
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

/// A stream as a body. Its end is the body's end only where the source has ended well; otherwise the body fails, and with it
/// the connection, so that no server can take a part for the whole.
pub(super) struct Stream {
    /// Of a piece that is larger than what is handed over at once.
    rest: Bytes,
    progress: Arc<Progress>,
    hasher: sha2::Sha256,
    sent: Arc<Sent>,
}

/// What is known of a stream, also when its body is gone.
#[derive(Debug)]
pub(super) struct Sent {
    pieces: Mutex<Pieces>,
    outcome: Mutex<Outcome>,
    bytes: AtomicU64,
}

impl Sent {
    /// What became of it, once the request is over. Whoever sends it is to stop: a server may answer before it has read the
    /// body, and the connection goes on waiting for it to.
    pub(super) fn end(&self) -> Outcome {
        lock(&self.pieces).close();
        std::mem::replace(&mut *lock(&self.outcome), Outcome::Unfinished)
    }

    /// How many bytes were handed to the connection.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Error>> {
        lock(&self.pieces).poll_next(cx)
    }
}

impl Stream {
    pub(super) fn new(pieces: Pieces, progress: Arc<Progress>) -> (Self, Arc<Sent>) {
        let sent = Arc::new(Sent {
            pieces: Mutex::new(pieces),
            outcome: Mutex::new(Outcome::Unfinished),
            bytes: AtomicU64::new(0),
        });
        let stream = Self {
            rest: Bytes::new(),
            progress,
            hasher: sha2::Sha256::new(),
            sent: Arc::clone(&sent),
        };
        (stream, sent)
    }

    /// Leaves out what the other side has already: it is only hashed. Where the stream ends before, so does this.
    pub(super) async fn skip(&mut self, mut bytes: u64) {
        self.progress.waits_for_us();
        while bytes > 0 {
            match poll_fn(|cx| self.sent.poll(cx)).await {
                Ok(Some(piece)) => {
                    let skipped = piece
                        .len()
                        .min(usize::try_from(bytes).unwrap_or(usize::MAX));
                    self.take(piece);
                    let _ = self.rest.split_to(skipped);
                    bytes -= skipped as u64;
                }
                ended => {
                    self.ended(ended.map(drop));
                    return;
                }
            }
        }
        self.progress.waits_for_server();
    }

    /// Hashes the rest, where the other side has all of it.
    pub(super) async fn skip_all(&mut self) {
        self.skip(u64::MAX).await;
    }

    fn take(&mut self, bytes: Bytes) {
        self.hasher.update(&bytes);
        self.rest = bytes;
    }

    /// What came instead of more bytes; the first end counts.
    fn ended(&mut self, end: Result<(), Error>) -> Option<io::Result<Frame<Bytes>>> {
        self.progress.sent_all();
        let outcome = match end {
            Ok(()) => {
                let sha256 = Sha256::from_bytes(self.hasher.finalize_reset().into());
                Outcome::Finished(sha256)
            }
            Err(error) => Outcome::Failed(error),
        };
        let mut known = lock(&self.sent.outcome);
        if matches!(*known, Outcome::Unfinished) {
            *known = outcome;
        }
        let finished = matches!(*known, Outcome::Finished(_));
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
        if self.rest.is_empty() {
            let Poll::Ready(piece) = self.sent.poll(cx) else {
                self.progress.waits_for_us();
                return Poll::Pending;
            };
            match piece {
                Ok(Some(bytes)) => self.take(bytes),
                ended => return Poll::Ready(self.ended(ended.map(drop))),
            }
        }
        let length = self.rest.len().min(SLICE);
        self.progress.sent(length);
        self.sent.bytes.fetch_add(length as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
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
        let (mut stream, sent) = Stream::new(pieces.unwrap(), Arc::clone(&progress));
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
        let (mut stream, sent) = Stream::new(pieces.unwrap(), progress());
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

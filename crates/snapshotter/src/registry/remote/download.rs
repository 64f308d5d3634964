//! A blob, or a range of it, as a stream. A connection that breaks is resumed where it broke; the digest is over what
//! was sent to the receiver, so pieces of different connections that do not fit together do not pass.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{CONTENT_RANGE, RANGE};
use sha2::Digest as _;
use tokio::sync::mpsc;

use super::answer::Answer;
use super::http::Request;
use super::{PULL, Remote};
use crate::http::Failure;
use crate::patience::least;
use crate::registry::Repository;
use crate::words::digest::{Sha256, excerpt};
use crate::words::error::{Error, ErrorKind, Result};

/// After this much progress, made at no less than the least rate, earlier failures are forgotten. Less would let a server
/// keep us for ever, byte by byte or connection by connection.
const PROGRESS: u64 = 1 << 20;

/// How far a transfer was when failures were last forgotten, and how long the registry was waited for since.
pub(super) struct Headway {
    mark: u64,
    pub(super) waited: Duration,
}

impl Headway {
    pub(super) fn from(mark: u64) -> Self {
        let waited = Duration::ZERO;
        Self { mark, waited }
    }

    /// Whether there was enough of it, up to here, to forget failures.
    pub(super) fn is_made(&mut self, at: u64, min_rate: u64) -> bool {
        let moved = at.saturating_sub(self.mark);
        let is_made = moved >= PROGRESS.max(least(min_rate, self.waited));
        if is_made {
            *self = Self::from(at);
        }
        is_made
    }
}

impl Remote {
    pub(super) async fn download(
        self: Arc<Self>,
        repository: Repository,
        sha256: Sha256,
        size: u64,
        range: Option<Range<u64>>,
        sink: mpsc::Sender<Bytes>,
    ) -> Result<()> {
        let doing = format!("read the blob {repository}@{sha256}");
        let path = format!("blobs/{sha256}");
        let request = self.request(Method::GET, &repository, &path, PULL, doing)?;
        let mut transfer = Transfer::new(request, size, range, sink)?;
        let mut attempts = self.http.attempts();
        while transfer.at < transfer.end {
            if let Err(failure) = self.advance(&mut transfer).await {
                let min_rate = self.http.patience.min_rate;
                if transfer.headway.is_made(transfer.at, min_rate) {
                    attempts.restart();
                }
                attempts.again(failure).await?;
            }
        }
        transfer.verify(sha256)
    }

    async fn advance(&self, transfer: &mut Transfer) -> Result<(), Failure> {
        let mut answer = self.http.open(&transfer.request()).await?;
        let received = self.receive(transfer, &mut answer).await;
        transfer.headway.waited += answer.waited();
        received
    }

    async fn receive(&self, transfer: &mut Transfer, answer: &mut Answer) -> Result<(), Failure> {
        let mut skip = transfer.skip(answer).await?;
        while let Some(mut bytes) = answer.next().await? {
            let skipped = bytes.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
            let _ = bytes.split_to(skipped);
            skip -= skipped as u64;
            if transfer.take(bytes, answer).await? {
                return Ok(());
            }
        }
        if transfer.at < transfer.end {
            let text = format!("it ends after {} bytes of {}", transfer.at, transfer.size);
            return Err(answer.error(ErrorKind::Damaged, &text).into());
        }
        Ok(())
    }
}

/// How far it got.
struct Transfer {
    request: Request,
    size: u64,
    at: u64,
    end: u64,
    headway: Headway,
    /// Only whole blobs have a digest.
    hasher: Option<sha2::Sha256>,
    sink: mpsc::Sender<Bytes>,
}

impl Transfer {
    fn new(
        request: Request,
        size: u64,
        range: Option<Range<u64>>,
        sink: mpsc::Sender<Bytes>,
    ) -> Result<Self> {
        let hasher = range.is_none().then(sha2::Sha256::new);
        let Range { start, end } = within(size, range)?;
        Ok(Self {
            request,
            size,
            at: start,
            end,
            headway: Headway::from(start),
            hasher,
            sink,
        })
    }

    fn request(&self) -> Request {
        let request = self.request.clone();
        if self.at == 0 && self.end == self.size {
            return request;
        }
        request.header(RANGE, &format!("bytes={}-{}", self.at, self.end - 1))
    }

    /// How many bytes of the answer come before those that are wanted: all of them where the server takes no ranges.
    async fn skip(&self, answer: &mut Answer) -> Result<u64, Failure> {
        let damaged = |text: String| Err(answer.error(ErrorKind::Damaged, &text).into());
        match answer.status().as_u16() {
            200 => match answer.length() {
                Some(length) if length != self.size => {
                    damaged(format!("it has {length} bytes, not {}", self.size))
                }
                _ => Ok(self.at),
            },
            206 => {
                let said = answer.header(&CONTENT_RANGE).unwrap_or_default();
                if starts_at(said, self.at, self.size) {
                    return Ok(0);
                }
                damaged(format!(
                    "it sent the range \"{}\" for one from {}",
                    excerpt(said),
                    self.at
                ))
            }
            416 => damaged(format!("it has fewer bytes than {}", self.size)),
            _ => {
                answer.collect(0).await?;
                Err(answer.refused().into())
            }
        }
    }

    /// Passes bytes on; says whether they are all there. A whole blob is read to its end, to see that it is one.
    async fn take(&mut self, bytes: Bytes, answer: &Answer) -> Result<bool, Failure> {
        let left = self.end - self.at;
        let cut_short = self.end < self.size;
        if bytes.len() as u64 > left && !cut_short {
            let text = format!("it has more than {} bytes", self.size);
            return Err(answer.error(ErrorKind::Damaged, &text).into());
        }
        let wanted = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let bytes = bytes.slice(..wanted);
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes);
        }
        self.at += wanted as u64;
        if wanted > 0 && self.sink.send(bytes).await.is_err() {
            return Err(Error::cancelled().into());
        }
        Ok(cut_short && self.at == self.end)
    }

    fn verify(self, sha256: Sha256) -> Result<()> {
        let Some(hasher) = self.hasher else {
            return Ok(());
        };
        let found = Sha256::from_bytes(hasher.finalize().into());
        if found == sha256 {
            return Ok(());
        }
        let text = format!("cannot {}: its bytes are {found}", self.request.doing);
        Err(Error::damaged(text))
    }
}

/// The range that is asked for; it has to be one of the blob's.
pub(in crate::registry) fn within(size: u64, range: Option<Range<u64>>) -> Result<Range<u64>> {
    let range = range.unwrap_or(0..size);
    if range.start <= range.end && range.end <= size {
        return Ok(range);
    }
    Err(Error::invalid(format!(
        "{}..{} is no range of {size} bytes",
        range.start, range.end
    )))
}

/// `bytes START-LAST/TOTAL`, where the total may be unknown.
fn starts_at(content_range: &str, start: u64, size: u64) -> bool {
    let parsed = || {
        let (range, total) = content_range.strip_prefix("bytes ")?.split_once('/')?;
        let (first, _) = range.split_once('-')?;
        let fits = total == "*" || total.parse() == Ok(size);
        Some(fits && first.parse() == Ok(start))
    };
    parsed().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        assert!(starts_at("bytes 5-9/10", 5, 10));
        assert!(starts_at("bytes 5-9/*", 5, 10));
        for wrong in ["", "bytes 4-9/10", "bytes 5-9/11", "bytes */10", "5-9/10"] {
            assert!(!starts_at(wrong, 5, 10), "{wrong}");
        }
    }

    #[test]
    fn ranges_are_the_blobs() {
        assert_eq!(within(10, None).unwrap(), 0..10);
        assert_eq!(within(10, Some(3..10)).unwrap(), 3..10);
        for range in [3..11, 11..12, Range { start: 4, end: 3 }] {
            assert!(within(10, Some(range)).is_err());
        }
    }
}

//! Fetching: the daemon makes a file, and tells piece by piece how far it is.
//!
//! The file has its full size from the beginning, and is zeros where nothing has arrived; it stays so when the download
//! fails. So its size says nothing: the pieces that were told do, and the end of the stream. A download that is not known
//! to be whole is unlinked, and the next attempt gets another name, which a daemon that has not understood yet cannot write
//! to. Whether the bytes are the right ones is for the caller to find out.

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::mpsc;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::file::{Named, Written};
use super::messages::{
    DOWNLOAD, DownloadPersistentTaskRequest, DownloadPersistentTaskResponse, Piece, PieceFinished,
    Told,
};
use super::verdict::{UNSEEN, Way};
use super::{Failure, ThroughDaemon};
use crate::transport::files::read_into;
use crate::transport::{ContentTransport, beyond_limit, wanted};
use crate::words::digest::Digest;
use crate::words::error::{Error, ErrorKind, Result};

/// How many bytes a caller has heard of: a second attempt brings the first ones again.
struct Heard<'a> {
    bytes: u64,
    told: &'a (dyn Fn(u64) + Send + Sync),
}

impl Heard<'_> {
    fn reached(&mut self, bytes: u64) {
        if bytes > self.bytes {
            (self.told)(bytes - self.bytes);
            self.bytes = bytes;
        }
    }
}

/// The distinct pieces of an attempt.
#[derive(Default)]
struct Arrived {
    length: Option<u64>,
    numbers: HashSet<u32>,
    bytes: u64,
}

impl Arrived {
    /// A piece may be told of before, and then is no new one.
    fn take(&mut self, piece: Piece) {
        if piece.length > 0 && self.numbers.insert(piece.number) {
            self.bytes = self.bytes.saturating_add(piece.length);
        }
    }

    /// Never more than there is.
    fn bytes(&self) -> u64 {
        self.bytes.min(self.length.unwrap_or(0))
    }
}

impl ThroughDaemon {
    pub(super) async fn bring(
        &self,
        digest: Digest,
        range: Option<Range<u64>>,
        limit: u64,
        sink: mpsc::Sender<Bytes>,
    ) -> Result<u64> {
        // The daemon brings all of it; the limit is for what is handed on.
        let most = if range.is_some() { u64::MAX } else { limit };
        let heard = Heard {
            bytes: 0,
            told: &|_| {},
        };
        let (named, size) = match self.download(digest, most, None, heard).await {
            Ok(done) => done,
            Err((failure, _)) => {
                return match self.instead(&failure) {
                    Some(direct) => direct.fetch(digest, range, limit, sink).await,
                    None => Err(failure.error),
                };
            }
        };
        let wanted = wanted(digest, &self.place.shown, size, range.as_ref(), limit)?;
        let (file, path) = (named.open()?, named.path());
        let (budget, buffers) = (self.daemon.budget.clone(), self.daemon.buffers.clone());
        read_into(sink, file, path, wanted, budget, buffers).await
    }

    pub(super) async fn bring_file(
        &self,
        digest: Digest,
        limit: u64,
        path: &Path,
        told: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<u64> {
        let heard = Heard { bytes: 0, told };
        let (named, size) = match self.download(digest, limit, Some(path), heard).await {
            Ok(done) => done,
            Err((failure, heard)) => match self.instead(&failure) {
                Some(direct) => {
                    self.write(direct.as_ref(), digest, limit, path, heard)
                        .await?
                }
                None => return Err(failure.error),
            },
        };
        named.keep_as(path.file_name().unwrap_or_default())?;
        Ok(size)
    }

    /// The object as a file that this process writes, from the bucket itself.
    async fn write(
        &self,
        direct: &dyn ContentTransport,
        digest: Digest,
        limit: u64,
        path: &Path,
        mut heard: Heard<'_>,
    ) -> Result<(Named, u64)> {
        let named = Named::beside(path, &self.daemon)?;
        let mut written = Written::new(named.create()?, named.path());
        let (sink, pieces) = mpsc::channel(2);
        let writing = async {
            // Dropped at the end, whichever it is: a sender that goes on finds nobody.
            let mut pieces = pieces;
            while let Some(bytes) = pieces.recv().await {
                written = written.append_all(bytes).await?;
                heard.reached(written.len());
            }
            Ok(written.len())
        };
        let (fetched, size) = tokio::join!(direct.fetch(digest, None, limit, sink), writing);
        // What went wrong here is what the other side was given up for.
        let size = size?;
        fetched?;
        Ok((named, size))
    }

    /// Downloads until it is whole, or nothing helps: to a fresh name in staging, or beside `path`.
    async fn download<'h>(
        &self,
        digest: Digest,
        limit: u64,
        path: Option<&Path>,
        mut heard: Heard<'h>,
    ) -> Result<(Named, u64), (Failure, Heard<'h>)> {
        match self.attempts(digest, limit, path, &mut heard).await {
            Ok(done) => Ok(done),
            Err(failure) => Err((failure, heard)),
        }
    }

    async fn attempts(
        &self,
        digest: Digest,
        limit: u64,
        path: Option<&Path>,
        heard: &mut Heard<'_>,
    ) -> Result<(Named, u64), Failure> {
        let Ok(_permit) = self.daemon.downloads.acquire().await else {
            unreachable!("nobody closes the semaphore");
        };
        let mut attempt = 1;
        loop {
            self.ready().await?;
            let named = match path {
                Some(path) => Named::beside(path, &self.daemon)?,
                None => Named::staged(&self.daemon)?,
            };
            let link = !self.daemon.copies.load(Ordering::Relaxed);
            let failure = match self.attempt(digest, limit, &named, link, heard).await {
                Ok(size) => return Ok((named, size)),
                Err(failure) => failure,
            };
            drop(named);
            if failure.way == Way::NoLink && link {
                // It copies then. That does not change while both stay where they are.
                self.daemon.copies.store(true, Ordering::Relaxed);
                continue;
            }
            if !self.goes_on(failure.way, attempt) {
                return Err(failure);
            }
            tracing::debug!(error = %super::line(&failure.error), "a download is tried again");
            self.daemon.back_off(attempt).await;
            attempt += 1;
        }
    }

    async fn attempt(
        &self,
        digest: Digest,
        limit: u64,
        named: &Named,
        link: bool,
        heard: &mut Heard<'_>,
    ) -> Result<u64, Failure> {
        let failed = |status: &Status| self.failure("fetch", digest, status);
        let request = DownloadPersistentTaskRequest {
            url: self.place.url(digest),
            object_storage: Some(self.place.storage.clone()),
            persistent: self.daemon.config.persistent,
            output_path: Some(self.daemon.there(&named.path())?),
            force_hard_link: link,
        };
        let mut stream = self
            .in_time(digest, self.start(request))
            .await?
            .map_err(|status| failed(&status))?;
        let mut arrived = Arrived::default();
        while let Some(message) = self
            .in_time(digest, stream.message())
            .await?
            .map_err(|status| failed(&status))?
        {
            match message.told {
                Some(Told::Started(started)) => {
                    let length = started.content_length;
                    if length > limit {
                        return Err(beyond_limit(digest, &self.place.shown, length, limit).into());
                    }
                    arrived.length = Some(length);
                }
                Some(Told::PieceFinished(PieceFinished { piece: Some(piece) })) => {
                    arrived.take(piece);
                    heard.reached(arrived.bytes());
                }
                _ => {}
            }
        }
        self.whole(digest, named, &arrived)
    }

    /// Compares what was told with what is there.
    fn whole(&self, digest: Digest, named: &Named, arrived: &Arrived) -> Result<u64, Failure> {
        let length = arrived.length.unwrap_or(0);
        let is_told = arrived.length.is_some() && arrived.bytes == length;
        let found = match named.open().and_then(|file| named.stat_of(&file)) {
            Ok(stat) => stat.size,
            Err(error) => return Err(self.unusable(digest, error)),
        };
        if is_told && found == length {
            return Ok(length);
        }
        Err(Failure {
            error: Error::new(
                ErrorKind::Unavailable,
                format!(
                    "the {} ended the download of {digest} after {} of {length} bytes, in a file of {found}",
                    self.daemon.shown(),
                    arrived.bytes
                ),
            ),
            way: Way::Again,
        })
    }

    /// The daemon has made a file, and not here; or one that is not for us: the inode in its cache may be what another
    /// user had it publish.
    fn unusable(&self, digest: Digest, error: Error) -> Failure {
        let by = self.daemon.shown();
        let made = match error.kind() {
            ErrorKind::NotFound => Error::new(
                ErrorKind::InvalidInput,
                format!("the {by} fetched {digest} into a file that is not in this root"),
            )
            .with_hint(UNSEEN),
            kind => Error::new(
                kind,
                format!("the {by} fetched {digest} into a file that cannot be read"),
            ),
        };
        Failure {
            error: made.with_source(error),
            way: Way::Aside,
        }
    }

    async fn start(
        &self,
        request: DownloadPersistentTaskRequest,
    ) -> Result<Streaming<DownloadPersistentTaskResponse>, Status> {
        let mut grpc = self.daemon.grpc().await?;
        let path = http::uri::PathAndQuery::from_static(DOWNLOAD);
        let codec = ProstCodec::default();
        let answer = grpc.server_streaming(Request::new(request), path, codec);
        Ok(answer.await?.into_inner())
    }

    /// A deadline does not bound a stream: what bounds it is how long it may be silent.
    async fn in_time<T>(
        &self,
        digest: Digest,
        next: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let limit = self.daemon.config.idle_timeout;
        tokio::time::timeout(limit, next)
            .await
            .map_err(|_| Failure {
                error: Error::new(
                    ErrorKind::Unavailable,
                    format!(
                        "the {} has said nothing of {digest} for {} ms",
                        self.daemon.shown(),
                        limit.as_millis()
                    ),
                )
                .with_hint("dragonfly.idle_timeout is how long it may"),
                way: Way::Again,
            })
    }
}

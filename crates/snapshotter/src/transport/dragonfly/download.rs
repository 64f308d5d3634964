//! Fetching: the daemon makes a file, and tells piece by piece how far it is.
//!
//! The file has its full size from the beginning, and is zeros where nothing has arrived; it stays so when the download
//! fails. So its size says nothing: the pieces that were told do, and the end of the stream. A download that is not known
//! to be whole is unlinked, and the next attempt gets another name, which a daemon that has not understood yet cannot write
//! to. Whether the bytes are the right ones is for the caller to find out.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::Ordering;

use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::file::Named;
use super::messages::{
    DOWNLOAD, DownloadPersistentTaskRequest, DownloadPersistentTaskResponse, Piece, PieceFinished,
    Told,
};
use super::verdict::{UNSEEN, Way};
use super::{Failure, ThroughDaemon};
use crate::transport::files::read_into;
use crate::transport::{Ranges, Sink, beyond_most, wanted};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::object::Object;

/// How many bytes a caller has heard of: a second attempt brings the first ones again.
pub(super) struct Heard<'a> {
    bytes: u64,
    progress: &'a (dyn Fn(u64) + Send + Sync),
}

impl<'a> Heard<'a> {
    pub(super) fn new(progress: &'a (dyn Fn(u64) + Send + Sync)) -> Self {
        Self { bytes: 0, progress }
    }

    pub(super) fn nobody() -> Self {
        Self::new(&|_| {})
    }

    pub(super) fn reached(&mut self, bytes: u64) {
        if bytes > self.bytes {
            (self.progress)(bytes - self.bytes);
            self.bytes = bytes;
        }
    }
}

/// A file with all bytes of an object, which goes unless it is kept.
#[derive(Debug)]
pub(super) struct Downloaded {
    pub(super) named: Named,
    pub(super) size: u64,
}

impl Downloaded {
    /// Gives it its own name, which is beside the one it has, and says how long it is.
    pub(super) fn keep_as(self, path: &Path) -> Result<u64> {
        self.named.keep_as(path.file_name().unwrap_or_default())?;
        Ok(self.size)
    }
}

/// The distinct pieces of an attempt, of which the daemon has told.
#[derive(Default)]
struct PiecesTold {
    length: Option<u64>,
    numbers: HashSet<u32>,
    bytes: u64,
}

impl PiecesTold {
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
    /// Hands on what is wanted of a file: the daemon brings all of it.
    pub(super) async fn hand_on(
        &self,
        object: Object,
        downloaded: Downloaded,
        ranges: Ranges,
        sink: Sink,
    ) -> Result<u64> {
        let Downloaded { named, size } = downloaded;
        let wanted = wanted(object, &self.place.shown, size, ranges)?;
        let (file, path) = (named.open()?, named.path());
        let (budget, buffers) = (self.daemon.budget.clone(), self.daemon.buffers.clone());
        read_into(sink, file, path, wanted, budget, buffers).await
    }

    /// Downloads until it is whole, or nothing helps: to a fresh name in staging, or beside `path`.
    pub(super) async fn download(
        &self,
        object: Object,
        path: Option<&Path>,
        heard: &mut Heard<'_>,
    ) -> Result<Downloaded, Failure> {
        let Ok(_permit) = self.daemon.downloads.acquire().await else {
            unreachable!("nobody closes the semaphore");
        };
        let mut attempts = self.daemon.attempts(self.place.retries);
        loop {
            self.ready().await?;
            let named = match path {
                Some(path) => Named::beside(path, &self.daemon)?,
                None => Named::staged(&self.daemon)?,
            };
            let link = !self.daemon.copies.load(Ordering::Relaxed);
            let failure = match self.attempt(object, &named, link, heard).await {
                Ok(size) => return Ok(Downloaded { named, size }),
                Err(failure) => failure,
            };
            drop(named);
            if failure.way == Way::NoLink && link {
                // It copies then. That does not change while both stay where they are.
                self.daemon.copies.store(true, Ordering::Relaxed);
                continue;
            }
            self.again(&mut attempts, failure).await?;
        }
    }

    async fn attempt(
        &self,
        object: Object,
        named: &Named,
        link: bool,
        heard: &mut Heard<'_>,
    ) -> Result<u64, Failure> {
        let failed = |status: &Status| self.failure("fetch", object, status);
        let request = DownloadPersistentTaskRequest {
            url: self.place.url(object),
            object_storage: Some(self.place.storage.clone()),
            persistent: self.daemon.config.persistent,
            output_path: Some(self.daemon.there(&named.path())?),
            force_hard_link: link,
        };
        let mut stream = self
            .in_time(object, self.start(request))
            .await?
            .map_err(|status| failed(&status))?;
        let mut pieces = PiecesTold::default();
        while let Some(message) = self
            .in_time(object, stream.message())
            .await?
            .map_err(|status| failed(&status))?
        {
            match message.told {
                Some(Told::Started(started)) => {
                    let length = started.content_length;
                    if length > object.most {
                        return Err(beyond_most(object, &self.place.shown, length).into());
                    }
                    pieces.length = Some(length);
                }
                Some(Told::PieceFinished(PieceFinished { piece: Some(piece) })) => {
                    pieces.take(piece);
                    heard.reached(pieces.bytes());
                }
                _ => {}
            }
        }
        self.whole(object, named, &pieces)
    }

    /// Compares what was told with what is there.
    fn whole(&self, object: Object, named: &Named, pieces: &PiecesTold) -> Result<u64, Failure> {
        let length = pieces.length.unwrap_or(0);
        let is_told = pieces.length.is_some() && pieces.bytes == length;
        let found = match named.open().and_then(|file| named.stat_of(&file)) {
            Ok(stat) => stat.size,
            Err(error) => return Err(self.unusable(object, error)),
        };
        if is_told && found == length {
            return Ok(length);
        }
        Err(Failure {
            error: Error::new(
                ErrorKind::Unavailable,
                format!(
                    "the {} ended the download of {object} after {} of {length} bytes, in a file of {found}",
                    self.daemon.shown(),
                    pieces.bytes
                ),
            ),
            way: Way::Again,
        })
    }

    /// The daemon has made a file, and not here; or one that is not for us: the inode in its cache may be what another
    /// user had it publish.
    fn unusable(&self, object: Object, error: Error) -> Failure {
        let by = self.daemon.shown();
        let made = match error.kind() {
            ErrorKind::NotFound => Error::new(
                ErrorKind::InvalidInput,
                format!("the {by} fetched {object} into a file that is not in this root"),
            )
            .with_hint(UNSEEN),
            kind => Error::new(
                kind,
                format!("the {by} fetched {object} into a file that cannot be read"),
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
        object: Object,
        next: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let limit = self.daemon.config.idle_timeout;
        tokio::time::timeout(limit, next)
            .await
            .map_err(|_| Failure {
                error: Error::new(
                    ErrorKind::Unavailable,
                    format!(
                        "the {} has said nothing of {object} for {} ms",
                        self.daemon.shown(),
                        limit.as_millis()
                    ),
                )
                .with_hint("dragonfly.idle_timeout is how long it may"),
                way: Way::Again,
            })
    }
}

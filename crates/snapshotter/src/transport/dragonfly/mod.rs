//! Content through Dragonfly's daemon: [`ThroughDaemon`], in front of a bucket.
//!
//! The daemon reads files and makes files; no content crosses the connection. An upload is a file in staging that it
//! opens, puts into the bucket and keeps in its cache; a download is a file that it makes in staging, from the nodes that
//! have the object or from the bucket, as one more name of the file in its cache where both are on one filesystem.
//!
//! Where the bucket's provider is compiled in, the bucket stands behind the daemon: what is in it decides what is
//! published, and when the daemon cannot be used, contents go there and come from there directly, with a warning. What is
//! wrong with the bucket itself or with the keys is an error either way.

mod config;
mod daemon;
mod download;
mod file;
mod messages;
mod place;
mod probe;
mod upload;
mod verdict;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tonic::Status;

pub use config::Dragonfly;
pub(crate) use daemon::Daemon;
pub use probe::DragonflyDiagnosis;

use self::place::Place;
#[cfg(test)]
pub(super) use self::verdict::DOWN;
use self::verdict::{Verdict, Way, judge, text};
use super::config::Content;
use super::said::Said;
use super::validate::require_compiled_in;
use super::{Call, ContentTransport, Existing, Pieces, Published};
use crate::activity::Warnings;
use crate::words::digest::Digest;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::progress::WarningKind;

/// What tests make small.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tuning {
    /// The wait before the first retry is twice that; each further one waits twice as long.
    pub(super) backoff: Duration,
    /// How long connecting may take.
    pub(super) connect: Duration,
    /// How long the question whether it serves may take.
    pub(super) answer: Duration,
    /// How long a daemon that failed is left alone by those who can do without it.
    pub(super) rest: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            backoff: Duration::from_millis(200),
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(10),
            rest: Duration::from_secs(10),
        }
    }
}

/// A bucket behind a daemon.
#[derive(Clone, Debug)]
pub(super) struct ThroughDaemon {
    daemon: Arc<Daemon>,
    place: Arc<Place>,
    /// The bucket without the daemon, where its provider is compiled in.
    direct: Option<Arc<dyn ContentTransport>>,
    /// Where to say that the daemon was not used, and whether it was said: once a call is enough.
    warnings: Option<Arc<Warnings>>,
    has_warned: Arc<AtomicBool>,
}

/// Why a call to the daemon failed, and what to do about it.
#[derive(Debug)]
struct Failure {
    error: Error,
    way: Way,
}

/// Our own mistakes and those of our filesystem: no daemon and no bucket helps.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            error,
            way: Way::Final,
        }
    }
}

impl ThroughDaemon {
    pub(super) fn open(daemon: &Arc<Daemon>, content: &Content) -> Result<Self> {
        let place = Place::new(content)?;
        let direct = match require_compiled_in(content.provider) {
            Ok(()) => Some(Arc::from(super::open(content)?)),
            Err(_) => None,
        };
        Ok(Self {
            daemon: Arc::clone(daemon),
            place: Arc::new(place),
            direct,
            warnings: None,
            has_warned: Arc::default(),
        })
    }

    /// The same without the bucket, as where its provider is not compiled in.
    pub(super) fn without_direct(&self) -> Self {
        Self {
            direct: None,
            ..self.clone()
        }
    }

    /// Asks whether the daemon serves: once, where the bucket can be used without it.
    async fn ready(&self) -> Result<(), Failure> {
        let ready = match self.direct {
            Some(_) => self.daemon.ready_now().await,
            None => self.daemon.ready(self.place.retries + 1).await,
        };
        ready.map_err(|error| Failure {
            error,
            way: Way::Down,
        })
    }

    /// Whether a failed call is worth another attempt.
    fn goes_on(&self, way: Way, attempt: u32) -> bool {
        let is_passing = match way {
            Way::Again | Way::Wedged => true,
            // The daemon has tried by itself for a good while.
            Way::Down => self.direct.is_none(),
            _ => false,
        };
        is_passing && attempt <= self.place.retries
    }

    /// The bucket, where it can do what the daemon could not; then the caller is told.
    fn instead(&self, failure: &Failure) -> Option<&Arc<dyn ContentTransport>> {
        let direct = self.direct.as_ref()?;
        match failure.way {
            Way::Down | Way::Again | Way::Wedged | Way::Aside | Way::NoLink => {
                self.warn(&failure.error);
                Some(direct)
            }
            Way::Exists | Way::Final => None,
        }
    }

    fn warn(&self, why: &Error) {
        let text = format!(
            "contents take the way past dragonfly, straight to and from {}: {}",
            self.place.shown,
            line(why)
        );
        match &self.warnings {
            Some(warnings) if !self.has_warned.swap(true, Ordering::Relaxed) => {
                warnings.warn(WarningKind::Direct, None, text);
            }
            _ => tracing::debug!("{text}"),
        }
    }

    /// `doing` reads after "cannot": `publish`.
    fn failure(&self, doing: &str, digest: Digest, status: &Status) -> Failure {
        let Verdict { way, kind, hint } = judge(status);
        let said = self.place.scrub.line(&text(status));
        match way {
            // Perhaps it is not there any more.
            Way::Again => self.daemon.doubt(),
            Way::Down => self.daemon.rest(&said),
            _ => {}
        }
        let error = match kind {
            ErrorKind::NotFound if hint.is_none() => super::absent(digest, &self.place.shown),
            kind => Error::new(
                kind,
                format!(
                    "cannot {doing} {digest} in {} through the {}",
                    self.place.shown,
                    self.daemon.shown()
                ),
            ),
        };
        let error = error.with_source(Said(said));
        Failure {
            error: match hint {
                Some(hint) => error.with_hint(hint),
                None => error,
            },
            way,
        }
    }
}

/// An error, its cause and its hint in one line.
fn line(error: &Error) -> String {
    let mut line = error.to_string();
    if let Some(cause) = std::error::Error::source(error) {
        line += &format!(": {cause}");
    }
    if let Some(hint) = error.hint() {
        line += &format!("; {hint}");
    }
    line
}

impl ContentTransport for ThroughDaemon {
    fn place(&self) -> String {
        self.place.shown.clone()
    }

    /// What is in the bucket decides, and the daemon cannot be asked for that: what it and its scheduler know is what is
    /// in their caches.
    fn size(&self, digest: Digest) -> Call<'_, Option<u64>> {
        Box::pin(async move {
            match &self.direct {
                Some(direct) => direct.size(digest).await,
                None => Ok(None),
            }
        })
    }

    fn can_be_asked(&self) -> bool {
        self.direct.is_some()
    }

    fn publish(
        &self,
        digest: Digest,
        size: u64,
        existing: Existing,
        pieces: Pieces,
    ) -> Call<'_, Published> {
        Box::pin(self.send(digest, size, existing, pieces))
    }

    fn fetch(
        &self,
        digest: Digest,
        range: Option<Range<u64>>,
        limit: u64,
        sink: mpsc::Sender<Bytes>,
    ) -> Call<'_, u64> {
        Box::pin(self.bring(digest, range, limit, sink))
    }

    fn delivers_files(&self) -> bool {
        true
    }

    fn fetch_file<'a>(
        &'a self,
        digest: Digest,
        limit: u64,
        path: &'a Path,
        told: &'a (dyn Fn(u64) + Send + Sync),
    ) -> Option<Call<'a, u64>> {
        Some(Box::pin(self.bring_file(digest, limit, path, told)))
    }

    fn direct(&self) -> Option<Arc<dyn ContentTransport>> {
        self.direct.clone()
    }

    fn warning(&self, to: &Arc<Warnings>) -> Option<Arc<dyn ContentTransport>> {
        Some(Arc::new(Self {
            warnings: Some(Arc::clone(to)),
            has_warned: Arc::default(),
            ..self.clone()
        }))
    }

    fn probe(&self) -> Option<Call<'_, DragonflyDiagnosis>> {
        Some(Box::pin(self.diagnose()))
    }

    /// The bucket, if it can be asked: whether the daemon works, [`probe`](Self::probe) says.
    fn check(&self) -> Call<'_, ()> {
        Box::pin(async move {
            match &self.direct {
                Some(direct) => direct.check().await,
                None => self.ready().await.map_err(|failure| failure.error),
            }
        })
    }
}

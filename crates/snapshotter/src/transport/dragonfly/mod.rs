//! Content through Dragonfly's daemon: [`ThroughDaemon`], in front of a bucket.
//!
//! The daemon reads files and makes files; no content crosses the connection. An upload is a file in staging that it
//! opens, puts into the bucket and keeps in its cache; a download is a file that it makes in staging, from the nodes that
//! have the object or from the bucket, as one more name of the file in its cache where both are on one filesystem.
//!
//! Where the bucket's provider is compiled in, the bucket stands behind the daemon (`fallback.rs`).

mod config;
mod daemon;
mod download;
mod fallback;
mod file;
mod messages;
mod place;
mod probe;
mod upload;
mod verdict;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tonic::Status;

pub use config::Dragonfly;
pub(crate) use daemon::Daemon;
pub use probe::DragonflyDiagnosis;

use self::download::Heard;
use self::fallback::WithFallback;
use self::place::Place;
#[cfg(test)]
pub(super) use self::verdict::DOWN;
use self::verdict::{Verdict, Way, judge, text};
use super::config::Content;
use super::said::Said;
use super::{
    Call, ContentTransport, Existing, FileDelivery, Presence, Published, Ranges, Sink, Source,
};
use crate::activity::Warnings;
use crate::http::Attempts;
use crate::pace::Pace;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::object::Object;

/// What tests make small.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tuning {
    /// How long to wait before another attempt.
    pub(super) pace: Pace,
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
            pace: Pace {
                first: Duration::from_millis(400),
                longest: Duration::from_secs(13),
            },
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(10),
            rest: Duration::from_secs(10),
        }
    }
}

/// A bucket behind a daemon, and the daemon alone: what it cannot do fails.
#[derive(Clone, Debug)]
pub(crate) struct ThroughDaemon {
    daemon: Arc<Daemon>,
    place: Arc<Place>,
    /// Somebody goes around the daemon where it cannot be used: it is not waited for then.
    has_fallback: bool,
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
        Ok(Self {
            daemon: Arc::clone(daemon),
            place: Arc::new(Place::new(content)?),
            has_fallback: false,
        })
    }

    /// The same, with the bucket itself for what the daemon cannot do, if it can be reached. Who goes there tells
    /// `warnings`.
    pub(super) fn with_fallback(
        &self,
        bucket: Option<&Arc<dyn ContentTransport>>,
        warnings: Option<&Arc<Warnings>>,
    ) -> Arc<dyn ContentTransport> {
        match bucket {
            Some(bucket) => Arc::new(WithFallback::new(self, bucket, warnings)),
            None => Arc::new(self.clone()),
        }
    }

    /// Asks whether the daemon serves: once, where the bucket can be used without it.
    async fn ready(&self) -> Result<(), Failure> {
        let ready = if self.has_fallback {
            self.daemon.ready_now().await
        } else {
            self.daemon.ready(self.place.retries).await
        };
        ready.map_err(|error| Failure {
            error,
            way: Way::Down,
        })
    }

    /// Waits before another attempt at a call that failed, where one is worth it; else gives the failure back.
    async fn again(&self, attempts: &mut Attempts, failure: Failure) -> Result<(), Failure> {
        let is_passing = match failure.way {
            Way::Again | Way::Wedged => true,
            // The daemon has tried by itself for a good while.
            Way::Down => !self.has_fallback,
            _ => false,
        };
        if !is_passing || attempts.are_over() {
            return Err(failure);
        }
        attempts.wait(None, &line(&failure.error)).await;
        Ok(())
    }

    /// `doing` reads after "cannot": `publish`.
    fn failure(&self, doing: &str, object: Object, status: &Status) -> Failure {
        let Verdict { way, kind, hint } = judge(status);
        let said = self.place.scrub.line(&text(status));
        match way {
            // Perhaps it is not there any more.
            Way::Again => self.daemon.doubt(),
            Way::Down => self.daemon.rest(&said),
            _ => {}
        }
        let error = match kind {
            ErrorKind::NotFound if hint.is_none() => super::absent(object, &self.place.shown),
            kind => Error::new(
                kind,
                format!(
                    "cannot {doing} {object} in {} through the {}",
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

    /// The daemon cannot be asked what is in the bucket: what it and its scheduler know is what is in their caches.
    fn size(&self, _: Object) -> Call<'_, Presence> {
        Box::pin(std::future::ready(Ok(Presence::Unknown)))
    }

    fn publish(&self, object: Object, existing: Existing, source: Source) -> Call<'_, Published> {
        Box::pin(self.send(object, existing, source))
    }

    fn fetch(&self, object: Object, ranges: Ranges, sink: Sink) -> Call<'_, u64> {
        Box::pin(async move {
            let downloaded = self.download(object, None, &mut Heard::nobody()).await;
            let downloaded = downloaded.map_err(|failure| failure.error)?;
            self.hand_on(object, downloaded, ranges, sink).await
        })
    }

    fn deliveries(&self) -> Option<&dyn FileDelivery> {
        Some(self)
    }

    fn check(&self) -> Call<'_, ()> {
        Box::pin(async move { self.ready().await.map_err(|failure| failure.error) })
    }
}

impl FileDelivery for ThroughDaemon {
    fn fetch_file<'a>(
        &'a self,
        object: Object,
        path: &'a Path,
        progress: &'a (dyn Fn(u64) + Send + Sync),
    ) -> Call<'a, u64> {
        Box::pin(async move {
            let mut heard = Heard::new(progress);
            let downloaded = self.download(object, Some(path), &mut heard).await;
            downloaded.map_err(|failure| failure.error)?.keep_as(path)
        })
    }
}

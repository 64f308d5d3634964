//! The bucket behind the daemon: [`WithFallback`].
//!
//! What is in the bucket decides what is published: what the daemon says is there and the bucket says is not is sent to the bucket.
//! When the daemon cannot be used, contents go to the bucket and come from
//! there directly, and the call is warned. What is wrong with the bucket itself or with the keys is an error either way.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;

use super::download::{Downloaded, Heard};
use super::file::{Named, Written};
use super::verdict::Way;
use super::{Failure, ThroughDaemon, line};
use crate::activity::Warnings;
use crate::transport::{
    Call, ContentTransport, Existing, FileDelivery, Presence, Published, Ranges, Records, Sink,
    Source, kept,
};
use crate::words::error::{Error, Result};
use crate::words::object::Object;
use crate::words::progress::WarningKind;

/// A daemon, and the bucket for what it cannot do.
#[derive(Debug)]
pub(super) struct WithFallback {
    through: ThroughDaemon,
    bucket: Arc<dyn ContentTransport>,
    /// Where to say that the daemon was not used, and whether it was said: once a call is enough.
    warnings: Option<Arc<Warnings>>,
    has_warned: AtomicBool,
}

impl WithFallback {
    pub(super) fn new(
        through: &ThroughDaemon,
        bucket: &Arc<dyn ContentTransport>,
        warnings: Option<&Arc<Warnings>>,
    ) -> Self {
        Self {
            through: ThroughDaemon {
                has_fallback: true,
                ..through.clone()
            },
            bucket: Arc::clone(bucket),
            warnings: warnings.map(Arc::clone),
            has_warned: AtomicBool::new(false),
        }
    }

    /// The bucket, where it can do what the daemon could not; then the caller is told.
    fn instead(&self, failure: Failure) -> Result<&dyn ContentTransport> {
        match failure.way {
            Way::Down | Way::Again | Way::Wedged | Way::Aside | Way::NoLink => {
                self.warn(&failure.error);
                Ok(&*self.bucket)
            }
            Way::Exists | Way::Final => Err(failure.error),
        }
    }

    fn warn(&self, why: &Error) {
        let text = format!(
            "contents take the way past dragonfly, straight to and from {}: {}",
            self.through.place.shown,
            line(why)
        );
        match &self.warnings {
            Some(warnings) if !self.has_warned.swap(true, Ordering::Relaxed) => {
                warnings.warn(WarningKind::Direct, None, text);
            }
            _ => tracing::debug!("{text}"),
        }
    }

    async fn send(&self, object: Object, existing: Existing, source: Source) -> Result<Published> {
        match self.bucket.size(object).await {
            Ok(Presence::Size(found)) if existing == Existing::Keep => {
                return kept(object, &self.place(), found, source.size());
            }
            // The daemon never replaces an object.
            Ok(Presence::Size(_)) => return self.bucket.publish(object, existing, source).await,
            Ok(Presence::Absent | Presence::Unknown) => {}
            Err(error) => tracing::debug!(%error, "the daemon is to look into the bucket"),
        }
        self.send_unseen(object, existing, source).await
    }

    /// The daemon looks into the bucket by itself.
    async fn send_unseen(
        &self,
        object: Object,
        existing: Existing,
        source: Source,
    ) -> Result<Published> {
        let staged = match self.through.stage(&source).await {
            Ok(staged) => staged,
            Err(failure) => {
                let bucket = self.instead(failure)?;
                return bucket.publish(object, existing, source).await;
            }
        };
        // From here on it is a file.
        drop(source);
        let bucket = match self.through.upload(object, &staged).await {
            Ok(()) => return Ok(Published::unnamed(true)),
            Err(failure) if failure.way == Way::Exists => {
                // It was in the bucket, or another node was quicker.
                if existing == Existing::Keep
                    && let Some(published) = self.found(object, staged.size()).await?
                {
                    return Ok(published);
                }
                &*self.bucket
            }
            Err(failure) => self.instead(failure)?,
        };
        bucket.publish(object, existing, staged.source()?).await
    }

    /// What the daemon says is there, unless the bucket says that it is not: the daemon may speak of what it keeps itself.
    async fn found(&self, object: Object, size: u64) -> Result<Option<Published>> {
        match self.bucket.size(object).await {
            Ok(Presence::Size(found)) => kept(object, &self.place(), found, size).map(Some),
            Ok(Presence::Absent) => Ok(None),
            Ok(Presence::Unknown) => Ok(Some(Published::unnamed(false))),
            Err(error) => {
                // The daemon has looked there.
                tracing::debug!(%error, "the bucket is not asked again");
                Ok(Some(Published::unnamed(false)))
            }
        }
    }

    async fn receive(&self, object: Object, ranges: Ranges, sink: Sink) -> Result<u64> {
        match self
            .through
            .download(object, None, &mut Heard::nobody())
            .await
        {
            Ok(downloaded) => self.through.hand_on(object, downloaded, ranges, sink).await,
            Err(failure) => self.instead(failure)?.fetch(object, ranges, sink).await,
        }
    }

    async fn receive_file(
        &self,
        object: Object,
        path: &Path,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<u64> {
        let mut heard = Heard::new(progress);
        let downloaded = match self.through.download(object, Some(path), &mut heard).await {
            Ok(downloaded) => downloaded,
            Err(failure) => {
                self.write(self.instead(failure)?, object, path, &mut heard)
                    .await?
            }
        };
        downloaded.keep_as(path)
    }

    /// The object as a file that this process writes, from the bucket itself.
    async fn write(
        &self,
        bucket: &dyn ContentTransport,
        object: Object,
        path: &Path,
        heard: &mut Heard<'_>,
    ) -> Result<Downloaded> {
        let named = Named::beside(path, &self.through.daemon)?;
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
        let (fetched, size) = tokio::join!(bucket.fetch(object, None, sink), writing);
        // What went wrong here is what the other side was given up for.
        let size = size?;
        fetched?;
        Ok(Downloaded { named, size })
    }
}

impl ContentTransport for WithFallback {
    fn place(&self) -> String {
        self.through.place()
    }

    fn size(&self, object: Object) -> Call<'_, Presence> {
        self.bucket.size(object)
    }

    fn publish(&self, object: Object, existing: Existing, source: Source) -> Call<'_, Published> {
        Box::pin(self.send(object, existing, source))
    }

    fn publish_unseen(&self, object: Object, source: Source) -> Call<'_, Published> {
        Box::pin(self.send_unseen(object, Existing::Keep, source))
    }

    fn fetch(&self, object: Object, ranges: Ranges, sink: Sink) -> Call<'_, u64> {
        Box::pin(self.receive(object, ranges, sink))
    }

    fn deliveries(&self) -> Option<&dyn FileDelivery> {
        Some(self)
    }

    fn records(&self) -> Option<&dyn Records> {
        self.bucket.records()
    }

    /// Whether the daemon works, [`ThroughDaemon::diagnose`] says.
    fn check(&self) -> Call<'_, ()> {
        self.bucket.check()
    }
}

impl FileDelivery for WithFallback {
    fn fetch_file<'a>(
        &'a self,
        object: Object,
        path: &'a Path,
        progress: &'a (dyn Fn(u64) + Send + Sync),
    ) -> Call<'a, u64> {
        Box::pin(self.receive_file(object, path, progress))
    }
}

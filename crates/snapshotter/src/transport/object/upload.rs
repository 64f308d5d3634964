//! Sending: one request for what fits a part, a multipart upload for the rest.
//!
//! opendal's writer keeps one part back until the next one comes, so that it can tell a single part from several, and
//! `concurrency` more under way. An upload therefore takes its memory at the start, for all of that and for the part
//! being filled (`budget.rs` has the argument): three parts at once where the budget has room, else two, else one after
//! the other. The object becomes visible by the last request alone, and that is sent after the source has ended well. What
//! the server answers to it is not believed: the object is looked at.

use opendal::{Buffer, Writer};
use tokio::runtime::Handle;

use super::{CONCURRENCY, ObjectStorage};
use crate::http::Attempts;
use crate::transport::budget::{Share, Window, held_by};
use crate::transport::parts::{LARGEST_PART, part_size};
use crate::transport::{Existing, Pieces, Presence, Published, Source, kept, look_first};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::object::Object;

impl ObjectStorage {
    pub(super) async fn send(
        &self,
        object: Object,
        existing: Existing,
        source: Source,
    ) -> Result<Published> {
        let size = source.size();
        let part = part_size(size);
        if part > LARGEST_PART {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("{object} has {size} bytes: too large for an object"),
            ));
        }
        if existing == Existing::Keep
            && let Presence::Size(found) = look_first(self, object).await?
        {
            return kept(object, &self.place, found, size);
        }
        let pieces = source.begin().await?;
        let sent = if size <= part {
            self.send_at_once(object, pieces).await
        } else {
            self.send_in_parts(object, pieces, part).await
        };
        match sent {
            // The last answer may have got lost, and its retry been refused, after the object became visible.
            Err(Failed::Last(error)) if existing == Existing::Keep => {
                match self.stat(object).await {
                    Ok(Some(found)) if found == size => Ok(Published::unnamed(true)),
                    _ => Err(error),
                }
            }
            Err(Failed::Last(error) | Failed::Early(error)) => Err(error),
            Ok(()) => {
                self.confirm(object, size).await?;
                Ok(Published::unnamed(true))
            }
        }
    }

    /// Looks for an object that a server has just said it took. A completion may be answered with 200 and an error in its
    /// body, and whoever stands before the server may answer in its place, with a page to log in for one. One look is
    /// enough where the object is there; where it is not, others follow at the usual pace.
    async fn confirm(&self, object: Object, size: u64) -> Result<()> {
        let mut looks = Attempts::new(self.pace, self.retries);
        loop {
            let found = self.stat(object).await?;
            if found == Some(size) {
                return Ok(());
            }
            if looks.are_over() {
                return Err(untaken(object, &self.place, found, size));
            }
            looks.wait(None, &"what was sent is not there yet").await;
        }
    }

    async fn send_at_once(&self, object: Object, mut pieces: Pieces) -> Result<(), Failed> {
        let share = std::sync::Arc::new(self.budget.take(pieces.left()).await);
        let part = pieces.part(pieces.left()).await?;
        let buffer: Buffer = part
            .into_iter()
            .map(|bytes| held_by(bytes, share.clone()))
            .collect();
        pieces.finish().await?;
        match self.operator.write(&object.key(), buffer).await {
            Ok(_) => Ok(()),
            Err(error) => Err(Failed::Last(self.unsent(object, &error))),
        }
    }

    async fn send_in_parts(
        &self,
        object: Object,
        mut pieces: Pieces,
        part: u64,
    ) -> Result<(), Failed> {
        let (window, concurrency) = self.window(part).await;
        let key = object.key();
        let writer = self.operator.writer_with(&key).concurrent(concurrency);
        let writer = writer.await.map_err(|error| self.unsent(object, &error))?;
        let mut upload = Upload::new(writer);
        let result = self
            .write_parts(object, &mut pieces, part, &window, &mut upload)
            .await;
        let result = match result {
            Ok(()) => pieces.finish().await.map_err(Failed::from),
            failed => failed,
        };
        if let Err(failed) = result {
            upload.abort().await;
            return Err(failed);
        }
        match upload.close().await {
            Ok(()) => Ok(()),
            Err(error) => {
                upload.abort().await;
                Err(Failed::Last(self.unsent(object, &error)))
            }
        }
    }

    async fn write_parts(
        &self,
        object: Object,
        pieces: &mut Pieces,
        part: u64,
        window: &Window,
        upload: &mut Upload,
    ) -> Result<(), Failed> {
        while pieces.left() > 0 {
            let turn = window.turn().await;
            let len = part.min(pieces.left());
            let bytes = pieces.part(len).await?;
            let buffer: Buffer = bytes
                .into_iter()
                .map(|bytes| held_by(bytes, turn.clone()))
                .collect();
            drop(turn);
            let written = upload.write(buffer).await;
            written.map_err(|error| self.unsent(object, &error))?;
        }
        Ok(())
    }

    /// Memory for the parts an upload holds at once, and how many of them may be under way.
    async fn window(&self, part: u64) -> (Window, usize) {
        for concurrency in [CONCURRENCY, 2] {
            let parts = concurrency + 2;
            let bytes = part.saturating_mul(parts as u64);
            if let Some(share) = self.try_window(bytes) {
                return (Window::new(share, parts), concurrency);
            }
        }
        // With one at a time the writer sends a part before it takes the next: the one kept back, and the one filled.
        let share = self.budget.take(part.saturating_mul(2)).await;
        (Window::new(share, 2), 1)
    }

    fn try_window(&self, bytes: u64) -> Option<Share> {
        // More than the budget is only ever given to those who cannot do with less.
        (bytes <= self.budget.total()).then(|| self.budget.try_take(bytes))?
    }

    fn unsent(&self, object: Object, error: &opendal::Error) -> Error {
        let error = self.explain.error("publish", Some(object), error);
        if error.kind() == ErrorKind::NotFound && error.hint().is_none() {
            // What was not found is the upload: the server has forgotten it, or somebody has aborted it.
            return Error::new(
                ErrorKind::Unavailable,
                format!(
                    "the upload of {object} to {} was given up by the server",
                    self.place
                ),
            )
            .with_source(error);
        }
        error
    }
}

fn untaken(object: Object, place: &str, found: Option<u64>, size: u64) -> Error {
    let what = match found {
        Some(found) => format!("has it with {found} bytes, not {size}"),
        None => "does not have it".to_owned(),
    };
    Error::new(
        ErrorKind::Unavailable,
        format!("{place} took {object} and {what}"),
    )
    .with_hint("something on the way answers in its place, or it fails without saying so")
}

/// How far an upload came.
enum Failed {
    /// The object cannot have become visible.
    Early(Error),
    /// The request that makes it visible was sent, and failed as far as we know.
    Last(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Early(error)
    }
}

/// A multipart upload under way. Dropped before its end, as by a dropped future, it is aborted in the background.
pub(super) struct Upload(Option<Writer>);

impl Upload {
    pub(super) fn new(writer: Writer) -> Self {
        Self(Some(writer))
    }

    pub(super) async fn write(&mut self, buffer: Buffer) -> opendal::Result<()> {
        match &mut self.0 {
            Some(writer) => writer.write(buffer).await,
            None => unreachable!("written to after its end"),
        }
    }

    pub(super) async fn close(&mut self) -> opendal::Result<()> {
        if let Some(writer) = &mut self.0 {
            writer.close().await?;
        }
        self.0 = None;
        Ok(())
    }

    pub(super) async fn abort(mut self) {
        if let Some(writer) = &mut self.0 {
            abort(writer).await;
        }
        self.0 = None;
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(mut writer) = self.0.take() else {
            return;
        };
        if let Ok(runtime) = Handle::try_current() {
            // The bare writer: a runtime that shuts down drops the task at once, which must not start another one.
            runtime.spawn(async move { abort(&mut writer).await });
        }
    }
}

/// Somebody who could not finish may not be able to abort either: the bucket's own rules then clean up.
async fn abort(writer: &mut Writer) {
    if let Err(error) = writer.abort().await {
        tracing::debug!(kind = %error.kind(), "an upload could not be aborted");
    }
}

//! Publishing: a file in staging, and a call that nothing cuts off.
//!
//! An upload that is cancelled, or runs into a deadline, leaves its object "Uploading" at the scheduler, and every further
//! one fails until that record expires, a day later. So the call is a task of its own, without a deadline, which goes on
//! when its caller is gone, and the file it reads stays for as long as it does.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use super::daemon::Daemon;
use super::file::{Named, stage};
use super::messages::{PersistentTask, Span, UPLOAD, UploadPersistentTaskRequest};
use super::verdict::Way;
use super::{Failure, ThroughDaemon};
use crate::transport::files::read_ahead;
use crate::transport::source::Source;
use crate::transport::{ContentTransport, Existing, Pieces, Published, other_size};
use crate::words::digest::Digest;
use crate::words::error::{Error, ErrorKind, Result};

/// Who holds the place under the limit and the file: the caller, and the call.
struct Upload {
    file: Named,
    _permit: OwnedSemaphorePermit,
}

impl ThroughDaemon {
    pub(super) async fn send(
        &self,
        digest: Digest,
        size: u64,
        existing: Existing,
        pieces: Pieces,
    ) -> Result<Published> {
        if let Some(direct) = &self.direct
            && let Some(found) = direct.size(digest).await?
        {
            return match existing {
                Existing::Keep if found == size => Ok(Published::Already),
                Existing::Keep => Err(other_size(digest, &self.place.shown, found, size)),
                // The daemon never replaces an object.
                Existing::Replace => direct.publish(digest, size, existing, pieces).await,
            };
        }
        if let Err(failure) = self.ready().await {
            return match self.instead(&failure) {
                Some(direct) => direct.publish(digest, size, existing, pieces).await,
                None => Err(failure.error),
            };
        }
        let permit = match Arc::clone(&self.daemon.uploads).acquire_owned().await {
            Ok(permit) => permit,
            Err(_) => unreachable!("nobody closes the semaphore"),
        };
        let file = stage(&self.daemon, Source::new(digest, size, pieces)).await?;
        let upload = Arc::new(Upload {
            file,
            _permit: permit,
        });
        match self.upload(digest, &upload).await {
            Ok(()) => Ok(Published::Sent),
            Err(failure) if failure.way == Way::Exists => {
                self.found(digest, size, existing, &upload).await
            }
            Err(failure) => match self.instead(&failure) {
                Some(direct) => put(direct.as_ref(), digest, size, existing, &upload, self).await,
                None => Err(failure.error),
            },
        }
    }

    /// Uploads until it is there, or nothing helps.
    async fn upload(&self, digest: Digest, upload: &Arc<Upload>) -> Result<(), Failure> {
        let request = UploadPersistentTaskRequest {
            url: self.place.url(digest),
            object_storage: Some(self.place.storage.clone()),
            path: self.daemon.there(&upload.file.path())?,
            persistent_replica_count: self.daemon.config.replicas.into(),
            ttl: self.daemon.config.ttl.map(|ttl| Span {
                seconds: ttl.as_secs().cast_signed(),
                nanos: ttl.subsec_nanos().cast_signed(),
            }),
        };
        let mut attempt = 1;
        loop {
            let failure = match self.detached(request.clone(), upload).await {
                Ok(()) => return Ok(()),
                Err(status) => self.failure("publish", digest, &status),
            };
            if !self.goes_on(failure.way, attempt) {
                return Err(failure);
            }
            tracing::debug!(error = %super::line(&failure.error), "an upload is tried again");
            self.daemon.back_off(attempt).await;
            attempt += 1;
            self.ready().await?;
        }
    }

    /// One call. It goes on when this future is dropped: nobody aborts the task.
    async fn detached(
        &self,
        request: UploadPersistentTaskRequest,
        upload: &Arc<Upload>,
    ) -> Result<(), Status> {
        let upload = Arc::clone(upload);
        let under_way = self.daemon.begin();
        let daemon = Arc::clone(&self.daemon);
        let call = tokio::spawn(async move {
            let answer = call(&daemon, request).await;
            // In this order: who waits for all uploads to end finds no file any more.
            drop(upload);
            drop(under_way);
            answer
        });
        match call.await {
            Ok(answer) => answer,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(Status::cancelled("the runtime is shutting down")),
        }
    }

    /// It was in the bucket, or another node was quicker.
    async fn found(
        &self,
        digest: Digest,
        size: u64,
        existing: Existing,
        upload: &Upload,
    ) -> Result<Published> {
        let Some(direct) = &self.direct else {
            return match existing {
                Existing::Keep => Ok(Published::Already),
                Existing::Replace => Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "{digest} is in {}, and the daemon replaces nothing",
                        self.place.shown
                    ),
                )
                .with_hint("a build with the provider's object-storage feature replaces it")),
            };
        };
        match (direct.size(digest).await?, existing) {
            (Some(found), Existing::Keep) if found != size => {
                Err(other_size(digest, &self.place.shown, found, size))
            }
            (_, Existing::Keep) => Ok(Published::Already),
            (_, Existing::Replace) => {
                put(direct.as_ref(), digest, size, existing, upload, self).await
            }
        }
    }
}

/// Puts a staged file straight into the bucket. Its pieces hold no memory of ours that the bucket's transport could wait
/// for: it takes its own, for as many as it keeps.
async fn put(
    direct: &dyn ContentTransport,
    digest: Digest,
    size: u64,
    existing: Existing,
    upload: &Upload,
    through: &ThroughDaemon,
) -> Result<Published> {
    let file = upload.file.open()?;
    let path = upload.file.path();
    let pieces = read_ahead(file, path, 0..size, through.daemon.buffers.clone())?;
    direct.publish(digest, size, existing, pieces).await
}

async fn call(daemon: &Daemon, request: UploadPersistentTaskRequest) -> Result<(), Status> {
    let mut grpc = daemon.grpc().await?;
    let path = http::uri::PathAndQuery::from_static(UPLOAD);
    let codec = ProstCodec::<UploadPersistentTaskRequest, PersistentTask>::default();
    grpc.unary(Request::new(request), path, codec).await?;
    Ok(())
}

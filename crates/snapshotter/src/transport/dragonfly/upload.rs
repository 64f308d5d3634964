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
use crate::transport::{Existing, Published, Source};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::object::Object;

/// What is to be uploaded, as a file, and the place under the limit: the caller holds both, and the call.
pub(super) struct Staged {
    file: Named,
    size: u64,
    _permit: OwnedSemaphorePermit,
}

impl Staged {
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The file, for somebody else to send.
    pub(super) fn source(&self) -> Result<Source> {
        let file = self.file.open()?;
        Ok(Source::file(file, self.file.path(), 0..self.size))
    }
}

impl ThroughDaemon {
    /// Through the daemon alone, which replaces nothing.
    pub(super) async fn send(
        &self,
        object: Object,
        existing: Existing,
        source: Source,
    ) -> Result<Published> {
        let sent = async { self.upload(object, &self.stage(&source).await?).await };
        match (sent.await, existing) {
            (Ok(()), _) => Ok(Published::unnamed(true)),
            (Err(failure), Existing::Keep) if failure.way == Way::Exists => {
                Ok(Published::unnamed(false))
            }
            (Err(failure), Existing::Replace) if failure.way == Way::Exists => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{object} is in {}, and the daemon replaces nothing",
                    self.place.shown
                ),
            )
            .with_hint("a build with the provider's object-storage feature replaces it")),
            (Err(failure), _) => Err(failure.error),
        }
    }

    /// Makes a file for a daemon that serves. Otherwise the source is not begun.
    pub(super) async fn stage(&self, source: &Source) -> Result<Arc<Staged>, Failure> {
        self.ready().await?;
        let permit = match Arc::clone(&self.daemon.uploads).acquire_owned().await {
            Ok(permit) => permit,
            Err(_) => unreachable!("nobody closes the semaphore"),
        };
        Ok(Arc::new(Staged {
            file: stage(&self.daemon, source).await?,
            size: source.size(),
            _permit: permit,
        }))
    }

    /// Uploads until it is there, or nothing helps.
    pub(super) async fn upload(&self, object: Object, staged: &Arc<Staged>) -> Result<(), Failure> {
        let request = UploadPersistentTaskRequest {
            url: self.place.url(object),
            object_storage: Some(self.place.storage.clone()),
            path: self.daemon.there(&staged.file.path())?,
            persistent_replica_count: self.daemon.config.replicas.into(),
            ttl: self.daemon.config.ttl.map(|ttl| Span {
                seconds: ttl.as_secs().cast_signed(),
                nanos: ttl.subsec_nanos().cast_signed(),
            }),
        };
        let mut attempts = self.daemon.attempts(self.place.retries);
        loop {
            let failure = match self.detached(request.clone(), staged).await {
                Ok(()) => return Ok(()),
                Err(status) => self.failure("publish", object, &status),
            };
            self.again(&mut attempts, failure).await?;
            self.ready().await?;
        }
    }

    /// One call. It goes on when this future is dropped: nobody aborts the task.
    async fn detached(
        &self,
        request: UploadPersistentTaskRequest,
        staged: &Arc<Staged>,
    ) -> Result<(), Status> {
        let staged = Arc::clone(staged);
        let under_way = self.daemon.begin();
        let daemon = Arc::clone(&self.daemon);
        let call = tokio::spawn(async move {
            let answer = call(&daemon, request).await;
            // In this order: who waits for all uploads to end finds no file any more.
            drop(staged);
            drop(under_way);
            answer
        });
        match call.await {
            Ok(answer) => answer,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(Status::cancelled("the runtime is shutting down")),
        }
    }
}

async fn call(daemon: &Daemon, request: UploadPersistentTaskRequest) -> Result<(), Status> {
    let mut grpc = daemon.grpc().await?;
    let path = http::uri::PathAndQuery::from_static(UPLOAD);
    let codec = ProstCodec::<UploadPersistentTaskRequest, PersistentTask>::default();
    grpc.unary(Request::new(request), path, codec).await?;
    Ok(())
}

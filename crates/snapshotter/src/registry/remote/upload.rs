//! A stream as a blob: POST opens an upload, one PATCH takes all bytes as they come, PUT with the digest makes it a blob.
//!
//! The PATCH is one chunked request, as Docker and skopeo send it, because that is what every registry takes. Until the
//! PUT there is no blob, and the PUT is sent only after [`Piece::End`]; the registry checks the digest itself. So
//! neither a lost connection nor a dead sender can leave a part that passes for the whole. Nor is the answer to the PUT
//! believed by its status alone: it names the digest, or a look finds the blob.

use std::io;
use std::mem;
use std::sync::{Arc, PoisonError};

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, Url};
use tokio::sync::mpsc;

use super::answer::Answer;
use super::blobs::{BINARY, SMALL};
use super::body::{Outcome, Stream};
use super::http::Request;
use super::{PUSH, Remote, scope};
use crate::patience::Progress;
use crate::registry::retry::Failure;
use crate::registry::{Piece, Repository};
use crate::words::digest::Sha256;
use crate::words::error::{Error, ErrorKind, Result};

/// How much longer than for a request a registry may take to make a blob of what it got: some copy it.
const COMMIT_PATIENCE: u32 = 10;

impl Remote {
    pub(super) async fn upload(
        &self,
        repository: &Repository,
        pieces: mpsc::Receiver<io::Result<Piece>>,
    ) -> Result<(Sha256, u64)> {
        let session = self.open_session(repository).await?;
        let request = self.patch_request(repository, &session);
        let progress = self.http.progress(&request);
        let (stream, outcome) = Stream::new(pieces, Arc::clone(&progress));
        let sent = self.patch(&request, stream, &progress).await;
        let outcome = mem::replace(
            &mut *outcome.lock().unwrap_or_else(PoisonError::into_inner),
            Outcome::Unfinished,
        );
        match (outcome, sent) {
            (Outcome::Finished(sha256, size), Ok(session)) => {
                self.commit(repository, &session, sha256, size).await?;
                Ok((sha256, size))
            }
            (outcome, sent) => {
                self.discard(repository, &session).await;
                Err(why(repository, outcome, sent.err()))
            }
        }
    }

    async fn open_session(&self, repository: &Repository) -> Result<Url> {
        let mut attempts = self.http.attempts();
        loop {
            match self.begin_upload(repository).await {
                Ok(session) => return Ok(session),
                Err(failure) => attempts.again(failure).await?,
            }
        }
    }

    fn patch_request(&self, repository: &Repository, session: &Url) -> Request {
        let doing = format!("push a stream to {repository}");
        let scope = scope(repository, PUSH);
        Request::new(Method::PATCH, session.clone(), scope, doing).header(CONTENT_TYPE, BINARY)
    }

    async fn patch(
        &self,
        request: &Request,
        stream: Stream,
        progress: &Progress,
    ) -> Result<Url, Failure> {
        let authorization = self.http.authorization(&request.scope);
        let body = Some(reqwest::Body::wrap(stream));
        let answer = self
            .http
            .dispatch(
                request,
                &request.url,
                authorization.as_ref(),
                body,
                progress,
            )
            .await?;
        let mut answer = answer.check().await?;
        answer.collect(SMALL).await?;
        match answer.status().as_u16() {
            200..=204 => Ok(self.session(&answer)?),
            _ => Err(answer.refused().into()),
        }
    }

    async fn commit(
        &self,
        repository: &Repository,
        session: &Url,
        sha256: Sha256,
        size: u64,
    ) -> Result<()> {
        let mut request = self.commit_request(repository, session, sha256);
        let patience = self.http.patience.silence.saturating_mul(COMMIT_PATIENCE);
        request.silence = Some(patience);
        let request = request.body(bytes::Bytes::new());
        let taken = self.send_commit(repository, &request, sha256, size).await?;
        let Some(answer) = taken else { return Ok(()) };
        // The session is over: a second PUT would be refused. What is left is to look, at the usual pace.
        let mut attempts = self.http.attempts();
        loop {
            match self.confirm(repository, sha256, size, &answer).await {
                Ok(()) => return Ok(()),
                Err(failure) => attempts.again(failure).await?,
            }
        }
    }

    /// Gets an answer, or nothing where the blob is found instead: an attempt that failed may have been the one that made
    /// it, so before the next one comes a look.
    async fn send_commit(
        &self,
        repository: &Repository,
        request: &Request,
        sha256: Sha256,
        size: u64,
    ) -> Result<Option<Answer>> {
        let mut attempts = self.http.attempts();
        let mut first = true;
        loop {
            let tried = async {
                if !first && self.is_there(repository, sha256, size).await? {
                    return Ok(None);
                }
                self.try_commit(request).await.map(Some)
            };
            match tried.await {
                Ok(taken) => return Ok(taken),
                Err(failure) => attempts.again(failure).await?,
            }
            first = false;
        }
    }

    async fn try_commit(&self, request: &Request) -> Result<Answer, Failure> {
        let answer = self.http.exchange_once(request, SMALL).await?;
        match answer.status().as_u16() {
            200..=204 => Ok(answer),
            _ => Err(answer.refused().into()),
        }
    }

    /// Tells the registry to forget an upload: a courtesy, once, whatever comes of it.
    async fn discard(&self, repository: &Repository, session: &Url) {
        let doing = format!("discard an upload to {repository}");
        let scope = scope(repository, PUSH);
        let request = Request::new(Method::DELETE, session.clone(), scope, doing);
        if let Err(failure) = self.http.exchange_once(&request, SMALL).await {
            tracing::debug!(error = %failure.error, "an upload is left for the registry to purge");
        }
    }
}

/// The stream's own failure comes before the request's, which is only its consequence.
fn why(repository: &Repository, outcome: Outcome, sent: Option<Failure>) -> Error {
    let cannot = format!("cannot push a stream to {repository}");
    match (outcome, sent) {
        (Outcome::Failed(error), _) => Error::new(
            ErrorKind::of_io(&error),
            format!("{cannot}: it could not be read"),
        )
        .with_source(error),
        (Outcome::Abandoned, _) => Error::cancelled(),
        (_, Some(failure)) => failure.error,
        (_, None) => {
            let text = format!("{cannot}: the registry answered before it had all bytes");
            Error::new(ErrorKind::Unavailable, text)
        }
    }
}

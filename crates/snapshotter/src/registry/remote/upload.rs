//! A stream as a blob: POST opens an upload, one PATCH takes all bytes as they come, PUT with the digest makes it a blob.
//!
//! The PATCH is one chunked request, as Docker and skopeo send it, because that is what every registry takes. Until the
//! PUT there is no blob, and the PUT is sent only after [`Piece::End`]; the registry checks the digest itself. So
//! neither a lost connection nor a dead sender can leave a part that passes for the whole.

use std::io;
use std::mem;
use std::sync::PoisonError;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, Url};
use tokio::sync::mpsc;

use super::blobs::{BINARY, SMALL};
use super::body::{Beat, Outcome, Stream};
use super::http::Request;
use super::{PUSH, Remote, scope};
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
        let beat = Beat::new();
        let (stream, outcome) = Stream::new(pieces, beat.clone());
        let sent = self.patch(repository, &session, stream, &beat).await;
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

    async fn patch(
        &self,
        repository: &Repository,
        session: &Url,
        stream: Stream,
        beat: &Beat,
    ) -> Result<Url, Failure> {
        let doing = format!("push a stream to {repository}");
        let scope = scope(repository, PUSH);
        let request =
            Request::new(Method::PATCH, session.clone(), scope, doing).header(CONTENT_TYPE, BINARY);
        let authorization = self.http.authorization(&request.scope);
        let body = reqwest::Body::wrap(stream);
        let answer = self
            .http
            .dispatch(&request, session, authorization.as_ref(), Some(body), beat)
            .await?;
        let mut answer = answer.check().await?;
        answer.collect(SMALL).await?;
        match answer.status().as_u16() {
            200..=204 => Ok(self.session(&answer)?),
            _ => Err(answer.refused().into()),
        }
    }

    /// An attempt that failed may have been the one that made the blob, so before the next one comes a look.
    async fn commit(
        &self,
        repository: &Repository,
        session: &Url,
        sha256: Sha256,
        size: u64,
    ) -> Result<()> {
        let mut request = self.commit_request(repository, session, sha256);
        request.limit = Some(self.http.timeout.saturating_mul(COMMIT_PATIENCE));
        let request = request.body(bytes::Bytes::new());
        let mut attempts = self.http.attempts();
        let mut first = true;
        loop {
            match self
                .try_commit(repository, &request, sha256, size, first)
                .await
            {
                Ok(()) => return Ok(()),
                Err(failure) => attempts.again(failure).await?,
            }
            first = false;
        }
    }

    async fn try_commit(
        &self,
        repository: &Repository,
        request: &Request,
        sha256: Sha256,
        size: u64,
        first: bool,
    ) -> Result<(), Failure> {
        if !first && self.is_there(repository, sha256, size).await? {
            return Ok(());
        }
        let answer = self.http.exchange_once(request, SMALL).await?;
        match answer.status().as_u16() {
            200..=204 => Ok(()),
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

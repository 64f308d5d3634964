//! A stream as a blob: POST opens an upload, PATCH takes bytes as they come, PUT with the digest makes it a blob.
//!
//! The first PATCH is one chunked request for all, as Docker and skopeo send it, because that is what every registry takes;
//! with `registry.chunk_bytes` each has so many bytes and says which, for proxies that take no longer ones. Where one breaks, the registry is asked how far it is, and another PATCH goes on from there; a registry that does not say
//! (the reference implementation forgets an upload that was cut off) is sent everything again, in an upload of its own. The
//! stream is begun anew for each of them, since what was sent may not have arrived, and hashed from its beginning: so
//! whatever a registry says that it has, only the right bytes get the digest.
//!
//! Until the PUT there is no blob, and the PUT is sent only when the source has ended well; the registry checks the digest
//! itself. So neither a lost connection nor a dead sender can leave a part that passes for the whole. Nor
//! is the answer to the PUT believed by its status alone: it names the digest, or a look finds the blob.

use std::sync::Arc;

use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Method, Url};

use super::answer::Answer;
use super::blobs::{BINARY, SMALL};
use super::body::{Outcome, Sent, Stream};
use super::download::Headway;
use super::http::Request;
use super::{PUSH, Remote, scope};
use crate::http::{Attempts, Failure};
use crate::patience::Progress;
use crate::registry::Repository;
use crate::transport::Source;
use crate::words::digest::Sha256;
use crate::words::error::{Error, ErrorKind, Result};

/// How much longer than for a request a registry may take to make a blob of what it got: some copy it.
const COMMIT_PATIENCE: u32 = 10;

/// An upload under way.
struct Upload<'a> {
    repository: &'a Repository,
    source: Source,
    session: Url,
    /// How many bytes the registry has.
    at: u64,
    /// Whether it is believed when it says that.
    resumes: bool,
    headway: Headway,
}

impl Upload<'_> {
    /// Whether a registry refuses to go on where it said that it was: 400, 404, 416, or a digest of its own. Once that was so,
    /// it is not believed any more.
    fn contradicts(&self, error: &Error) -> bool {
        use ErrorKind::{Damaged, NotFound, Unsupported};
        let refuses = matches!(error.kind(), Damaged | NotFound | Unsupported);
        self.resumes && self.at > 0 && refuses
    }

    fn answered_early(&self) -> Error {
        let text = format!(
            "cannot push a stream to {}: the registry answered before it had all bytes",
            self.repository
        );
        Error::new(ErrorKind::Unavailable, text)
    }
}

/// Why an upload got no further.
enum Broken {
    /// What is to be sent ends, or cannot be read.
    Stream(Error),
    /// The registry, or the way to it.
    Sending(Failure),
    /// The registry has it all, and makes no blob of it.
    Commit(Error),
}

impl Remote {
    pub(super) async fn upload(
        self: Arc<Self>,
        repository: Repository,
        source: Source,
    ) -> Result<Sha256> {
        let mut upload = Upload {
            repository: &repository,
            source,
            session: self.open_session(&repository).await?,
            at: 0,
            resumes: true,
            headway: Headway::from(0),
        };
        match self.send(&mut upload).await {
            Err(Broken::Commit(error)) => Err(error),
            Err(Broken::Stream(error) | Broken::Sending(Failure { error, .. })) => {
                self.discard(&repository, &upload.session).await;
                Err(error)
            }
            Ok(stored) => Ok(stored),
        }
    }

    /// Sends all, in as many attempts as that takes and are allowed.
    async fn send(&self, upload: &mut Upload<'_>) -> Result<Sha256, Broken> {
        let mut attempts = self.http.attempts();
        loop {
            let failure = match self.try_send(upload, &mut attempts).await {
                // What it says it has may be something else: all of it once more, and no more believing.
                Err(Broken::Commit(error)) if upload.contradicts(&error) => None,
                Err(Broken::Sending(failure)) if upload.contradicts(&failure.error) => None,
                // It has forgotten the upload, after an error of its own perhaps.
                Err(Broken::Commit(error) | Broken::Sending(Failure { error, .. }))
                    if error.kind() == ErrorKind::NotFound =>
                {
                    Some(Failure::transient(error, None))
                }
                Err(Broken::Sending(failure)) => Some(failure),
                result => return result,
            };
            match failure {
                Some(failure) => attempts.again(failure).await.map_err(sending)?,
                None => upload.resumes = false,
            }
            self.go_on(upload, &mut attempts).await.map_err(sending)?;
        }
    }

    /// Sends what the registry has not.
    async fn try_send(
        &self,
        upload: &mut Upload<'_>,
        attempts: &mut Attempts,
    ) -> Result<Sha256, Broken> {
        let (from, size) = (upload.at, upload.source.size());
        let sent = Sent::new(upload.source.begin().await.map_err(Broken::Stream)?);
        let answered = self.send_rest(upload, &sent).await;
        let repository = upload.repository;
        // The stream's own failure comes first: the request's is only its consequence.
        let failure = match (sent.end(), answered) {
            (Outcome::Finished(sha256), Ok(())) => {
                let made = self.commit(repository, &upload.session, sha256, size).await;
                return made.map(|()| sha256).map_err(Broken::Commit);
            }
            (Outcome::Failed(error), _) => return Err(Broken::Stream(error)),
            (Outcome::Unfinished, Ok(())) => upload.answered_early().into(),
            (_, Err(failure)) => failure,
        };
        let min_rate = self.http.patience.min_rate;
        if upload.headway.is_made(from + sent.bytes(), min_rate) {
            attempts.restart();
        }
        Err(Broken::Sending(failure))
    }

    /// Sends it in one request, or in as many as it takes where their length is limited.
    async fn send_rest(&self, upload: &mut Upload<'_>, sent: &Arc<Sent>) -> Result<(), Failure> {
        let size = upload.source.size();
        let progress = self.http.progress(None);
        sent.skip(upload.at, &progress).await;
        if upload.at == size && size > 0 {
            sent.skip_all(&progress).await;
            return Ok(());
        }
        let Some(chunk) = self.http.chunk else {
            let stream = sent.rest(&progress);
            return self
                .patch(upload, size - upload.at, stream, &progress)
                .await;
        };
        while upload.at < size {
            let (before, bytes) = (sent.bytes(), chunk.min(size - upload.at));
            let progress = self.http.progress(None);
            let stream = sent.part(bytes, &progress);
            self.patch(upload, bytes, stream, &progress).await?;
            if sent.bytes() - before < bytes {
                return Err(upload.answered_early().into());
            }
            upload.at += bytes;
        }
        sent.skip_all(&progress).await;
        Ok(())
    }

    /// Goes on where the registry says that it is, or else begins anew.
    async fn go_on(&self, upload: &mut Upload<'_>, attempts: &mut Attempts) -> Result<()> {
        while upload.resumes {
            match self.ask(upload).await {
                Ok(Some((session, at))) => {
                    (upload.session, upload.at) = (session, at);
                    return Ok(());
                }
                Err(failure) if failure.may_pass() => attempts.again(failure).await?,
                Ok(None) | Err(_) => break,
            }
        }
        self.discard(upload.repository, &upload.session).await;
        upload.session = self.open_session(upload.repository).await?;
        upload.at = 0;
        Ok(())
    }

    /// How far the registry is with an upload, and where it goes on; `None` where it does not say.
    async fn ask(&self, upload: &Upload<'_>) -> Result<Option<(Url, u64)>, Failure> {
        let doing = format!("ask how far an upload to {} is", upload.repository);
        let scope = scope(upload.repository, PUSH);
        let request = Request::new(Method::GET, upload.session.clone(), scope, doing);
        let answer = self.http.exchange_once(&request, SMALL).await?;
        let said = answer.header(&RANGE).and_then(received);
        let at = said.filter(|at| *at <= upload.source.size());
        let session = match answer.header(&LOCATION) {
            Some(_) => self.session(&answer).ok(),
            None => Some(upload.session.clone()),
        };
        Ok(session.zip(at).filter(|_| answer.status().is_success()))
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

    fn patch_request(&self, upload: &Upload<'_>, bytes: u64) -> Request {
        let doing = format!("push a stream to {}", upload.repository);
        let scope = scope(upload.repository, PUSH);
        let request = Request::new(Method::PATCH, upload.session.clone(), scope, doing)
            .header(CONTENT_TYPE, BINARY);
        if upload.at == 0 && self.http.chunk.is_none() {
            return request;
        }
        let last = (upload.at + bytes).saturating_sub(1);
        request.header(CONTENT_RANGE, &format!("{}-{last}", upload.at))
    }

    /// Sends the next `bytes`, and learns where the upload goes on.
    async fn patch(
        &self,
        upload: &mut Upload<'_>,
        bytes: u64,
        stream: Stream,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let request = self.patch_request(upload, bytes);
        let body = reqwest::Body::wrap(stream);
        let answered = self.http.send_once(&request, body, progress).await;
        upload.headway.waited += progress.waited();
        let mut answer = answered?;
        answer.collect(SMALL).await?;
        match answer.status().as_u16() {
            200..=204 if answer.header(&LOCATION).is_none() => Ok(()),
            200..=204 => {
                upload.session = self.session(&answer)?;
                Ok(())
            }
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
    pub(super) async fn discard(&self, repository: &Repository, session: &Url) {
        let doing = format!("discard an upload to {repository}");
        let scope = scope(repository, PUSH);
        let request = Request::new(Method::DELETE, session.clone(), scope, doing);
        if let Err(failure) = self.http.exchange_once(&request, SMALL).await {
            tracing::debug!(error = %failure.error, "an upload is left for the registry to purge");
        }
    }
}

fn sending(error: Error) -> Broken {
    Broken::Sending(error.into())
}

/// How many bytes a `Range` says there are: `0-LAST`. Some say `0-0` of nothing, so that says nothing.
fn received(range: &str) -> Option<u64> {
    let (first, last) = range.trim_start_matches("bytes=").split_once('-')?;
    let last: u64 = last.parse().ok()?;
    (first == "0" && last > 0).then(|| last.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_what_was_received() {
        assert_eq!(received("0-9"), Some(10));
        assert_eq!(received("bytes=0-9"), Some(10));
        for nothing in ["", "0-0", "1-9", "9", "0-", "0-x", "bytes 0-9/10"] {
            assert_eq!(received(nothing), None, "{nothing}");
        }
    }
}

//! Blobs that fit into memory: documents, and OCI's empty layer.

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Method, Url};
use std::sync::Arc;

use super::answer::Answer;
use super::http::{Request, same_origin};
use super::{PULL, PUSH, Remote, scope};
use crate::http::Failure;
use crate::registry::Repository;
use crate::words::digest::Sha256;
use crate::words::error::{Error, ErrorKind, Result};

pub(super) const SMALL: u64 = 64 << 10;
pub(super) const BINARY: &str = "application/octet-stream";

impl Remote {
    pub(super) async fn get_blob(
        self: Arc<Self>,
        repository: Repository,
        sha256: Sha256,
        size: u64,
    ) -> Result<Vec<u8>> {
        let doing = format!("read the blob {repository}@{sha256}");
        let path = format!("blobs/{sha256}");
        let request = self.request(Method::GET, &repository, &path, PULL, doing)?;
        let answer = self.http.exchange(&request, size).await?;
        if answer.status() != 200 {
            return Err(answer.refused());
        }
        let (length, found) = (answer.body().len() as u64, Sha256::of(answer.body()));
        if length != size {
            let text = format!("it has {length} bytes, not {size}");
            return Err(answer.error(ErrorKind::Damaged, &text));
        }
        if found != sha256 {
            let text = format!("its bytes are {found}");
            return Err(answer.error(ErrorKind::Damaged, &text));
        }
        Ok(answer.into_body())
    }

    pub(super) async fn head_blob(
        self: Arc<Self>,
        repository: Repository,
        sha256: Sha256,
    ) -> Result<Option<u64>> {
        let request = self.head_request(&repository, sha256)?;
        length(&self.http.exchange(&request, SMALL).await?)
    }

    fn head_request(&self, repository: &Repository, sha256: Sha256) -> Result<Request> {
        let doing = format!("look for the blob {repository}@{sha256}");
        let path = format!("blobs/{sha256}");
        self.request(Method::HEAD, repository, &path, PULL, doing)
    }

    /// All or nothing: what failed may have been stored all the same, so each attempt begins by looking.
    pub(super) async fn put_blob(
        self: Arc<Self>,
        repository: Repository,
        sha256: Sha256,
        bytes: Bytes,
    ) -> Result<()> {
        if Sha256::of(&bytes) != sha256 {
            let text = format!("the bytes that are to be stored as {sha256} are others");
            return Err(Error::invalid(text));
        }
        let mut attempts = self.http.attempts();
        loop {
            match self.try_put_blob(&repository, sha256, &bytes).await {
                Ok(()) => return Ok(()),
                Err(failure) => attempts.again(failure).await?,
            }
        }
    }

    async fn try_put_blob(
        &self,
        repository: &Repository,
        sha256: Sha256,
        bytes: &Bytes,
    ) -> Result<(), Failure> {
        let size = bytes.len() as u64;
        if self.is_there(repository, sha256, size).await? {
            return Ok(());
        }
        let session = self.begin_upload(repository).await?;
        let request = self
            .commit_request(repository, &session, sha256)
            .header(CONTENT_TYPE, BINARY)
            .body(bytes.clone());
        let answer = self.http.exchange_once(&request, SMALL).await?;
        match answer.status().as_u16() {
            200..=204 => self.confirm(repository, sha256, size, &answer).await,
            _ => Err(answer.refused().into()),
        }
    }

    /// Makes sure that a registry has what it has just said it took: whoever stands before it may answer in its place, with
    /// a page to log in for one. An answer that names the digest is proof, others are followed by one look.
    pub(super) async fn confirm(
        &self,
        repository: &Repository,
        sha256: Sha256,
        size: u64,
        answer: &Answer,
    ) -> Result<(), Failure> {
        if answer.names("blob", sha256)? || self.is_there(repository, sha256, size).await? {
            return Ok(());
        }
        let text = "the registry took it and does not have it";
        let error = answer.error(ErrorKind::Unavailable, text);
        Err(Failure::transient(error, None))
    }

    /// Whether a blob needs no pushing. One of another length is damage that pushing could not mend.
    pub(super) async fn is_there(
        &self,
        repository: &Repository,
        sha256: Sha256,
        size: u64,
    ) -> Result<bool, Failure> {
        let request = self.head_request(repository, sha256)?;
        let answer = self.http.exchange_once(&request, SMALL).await?;
        match length(&answer)? {
            Some(found) if found != size => {
                let text = format!("the registry has it with {found} bytes, not {size}");
                Err(answer.error(ErrorKind::Damaged, &text).into())
            }
            found => Ok(found.is_some()),
        }
    }

    /// Opens an upload: where its bytes go. One that is never finished is the registry's to purge.
    pub(super) async fn begin_upload(&self, repository: &Repository) -> Result<Url, Failure> {
        let doing = format!("begin an upload to {repository}");
        let request = self.request(Method::POST, repository, "blobs/uploads/", PUSH, doing)?;
        let request = request.body(Bytes::new());
        let answer = self.http.exchange_once(&request, SMALL).await?;
        match answer.status().as_u16() {
            202 => Ok(self.session(&answer)?),
            _ => Err(answer.refused().into()),
        }
    }

    /// Where an upload goes on. Never at another origin: the bytes and the credentials are the registry's alone.
    pub(super) fn session(&self, answer: &Answer) -> Result<Url> {
        answer
            .header(&LOCATION)
            .and_then(|location| answer.url().join(location).ok())
            .filter(|url| same_origin(url, &self.http.origin))
            .ok_or_else(|| {
                let text = "the registry wants the bytes at no place of its own";
                answer.error(ErrorKind::Unsupported, text)
            })
    }

    /// The request that makes an upload a blob. The registry checks the digest: it cannot store other bytes.
    pub(super) fn commit_request(
        &self,
        repository: &Repository,
        session: &Url,
        sha256: Sha256,
    ) -> Request {
        let mut url = session.clone();
        url.query_pairs_mut()
            .append_pair("digest", &sha256.to_string());
        let doing = format!("push the blob {repository}@{sha256}");
        Request::new(Method::PUT, url, scope(repository, PUSH), doing)
    }
}

fn length(answer: &Answer) -> Result<Option<u64>> {
    match answer.status().as_u16() {
        200 => answer.length().map(Some).ok_or_else(|| {
            answer.error(
                ErrorKind::Unsupported,
                "the registry does not say its length",
            )
        }),
        404 => Ok(None),
        _ => Err(answer.refused()),
    }
}

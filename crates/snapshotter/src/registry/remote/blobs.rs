//! Blobs that fit into memory: documents, and OCI's empty layer.

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Method, Url};
use std::sync::Arc;

use super::answer::{Answer, shown};
use super::http::Request;
use super::lag::Lag;
use super::{PULL, PUSH, Remote, scope};
use crate::http::Failure;
use crate::registry::Repository;
use crate::transport::{Presence, Source};
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
        let size = bytes.len() as u64;
        if self.http.chunk.is_none_or(|chunk| size <= chunk) {
            match self.try_put_blob(&repository, sha256, &bytes).await {
                Ok(()) => return Ok(()),
                Err(failure) => self.http.attempts().again(failure).await?,
            }
        }
        // Some registries take no bytes with PUT: this is how Docker sends them.
        let found = Arc::clone(&self).find_blob(repository.clone(), sha256, size);
        if found.await? != Presence::Size(size) {
            self.upload(repository, Source::bytes(bytes)).await?;
        }
        Ok(())
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
    /// a page to log in for one. An answer that names the digest is proof, others are followed by looks, until one finds it.
    pub(super) async fn confirm(
        &self,
        repository: &Repository,
        sha256: Sha256,
        size: u64,
        answer: &Answer,
    ) -> Result<(), Failure> {
        if answer.names("blob", sha256)? {
            return Ok(());
        }
        let mut lag = Lag::of(&self.http);
        while !self.is_there(repository, sha256, size).await? {
            if !lag.is_borne().await {
                let limit = self.http.patience.silence;
                let text = format!(
                    "the registry took it and does not have it, {limit:?} later: either whoever answered was not the \
                     registry, or its reads lag behind its writes"
                );
                return Err(answer.error(ErrorKind::Unavailable, &text).into());
            }
        }
        Ok(())
    }

    /// Opens an upload: where its bytes go. One that is never finished is the registry's to purge.
    pub(super) async fn begin_upload(&self, repository: &Repository) -> Result<Url, Failure> {
        let doing = format!("begin an upload to {repository}");
        let request = self.request(Method::POST, repository, "blobs/uploads/", PUSH, doing)?;
        let request = request.body(Bytes::new());
        let answer = self.http.exchange_once(&request, SMALL).await?;
        match answer.status().as_u16() {
            200..=202 => Ok(self.session(&answer)?),
            _ => Err(answer.refused().into()),
        }
    }

    /// Where an upload goes on. It may be at another host, which gets the bytes that are to be published there, and never the
    /// credentials.
    pub(super) fn session(&self, answer: &Answer) -> Result<Url> {
        let location = answer.header(&LOCATION);
        let joined = location.and_then(|location| answer.url().join(location).ok());
        let why = match joined {
            Some(url) => match upload_target(&self.http.origin, url) {
                Ok(url) => return Ok(url),
                Err(url) => format!("the registry wants the bytes at {}", shown(&url)),
            },
            None => format!(
                "the registry answered {} and does not say where the bytes go",
                answer.status()
            ),
        };
        Err(answer.error(ErrorKind::Unsupported, &why).with_hint(
            "a proxy before the registry may answer in its place, or not tell it the address that clients use (X-Forwarded-Proto, Host)",
        ))
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

/// Where bytes may be sent to from a registry that is at `origin`. One that does not know of the TLS before it says http.
fn upload_target(origin: &Url, mut url: Url) -> std::result::Result<Url, Url> {
    let is_home = url.host_str() == origin.host_str();
    let is_same_port = matches!(url.port(), None | Some(80)) || url.port() == origin.port();
    if origin.scheme() == "https" && url.scheme() == "http" && is_home && is_same_port {
        // Neither fails between http and https.
        let _ = url.set_port(origin.port());
        let _ = url.set_scheme("https");
    }
    let is_safe = url.scheme() == "https" || (url.scheme() == "http" && origin.scheme() == "http");
    if is_safe { Ok(url) } else { Err(url) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_where_the_registry_says_but_never_from_https_to_http() {
        let url = |text: &str| Url::parse(text).unwrap();
        for (origin, said, sent) in [
            ("https://r", "https://r/up", Some("https://r/up")),
            ("https://r", "http://r/up", Some("https://r/up")),
            ("https://r:5000", "http://r/up", Some("https://r:5000/up")),
            (
                "https://r:5000",
                "http://r:5000/up",
                Some("https://r:5000/up"),
            ),
            ("https://r", "http://r:8080/up", None),
            ("https://r", "http://other/up", None),
            (
                "https://r",
                "https://other/up?s=1",
                Some("https://other/up?s=1"),
            ),
            ("http://r:5000", "http://other/up", Some("http://other/up")),
            ("http://r", "file:///up", None),
        ] {
            let target = upload_target(&url(origin), url(said)).ok();
            assert_eq!(target, sent.map(url), "{origin} {said}");
        }
    }
}

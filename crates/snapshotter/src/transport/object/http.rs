//! opendal's requests over our client: retried, timed and bounded here, below everything else.
//!
//! A request's body is in memory, so any request can be sent again; what an upload's part or a completion means does not
//! change by being said twice (a completion whose answer got lost fails the second time, which `upload.rs` resolves by
//! looking at the object). Retrying here rather than around an operation keeps parts that are under way at the same time
//! from failing each other, and lets a server say how long to wait.

use std::error::Error as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use http::header::{CONTENT_LENGTH, RANGE};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport, Result};
use reqwest::{Body, Client, ClientBuilder};

use super::Tuning;
#[cfg(feature = "object-storage-oss")]
use super::keys::Signing;
use crate::http::{Attempts, Broken, Incoming, Outgoing, Settings, asked_for, client, may_pass};
use crate::pace::Pace;
use crate::patience::{Patience, Progress, Stuck};
use crate::transport::config::Content;

/// A connection that is not there by then will not be.
const CONNECT: Duration = Duration::from_secs(15);

/// Answers that are not an object's bytes: XML, JSON, error pages, in bytes.
const ANSWER: u64 = 1 << 20;

pub(super) struct Http {
    client: Client,
    patience: Patience,
    retries: u32,
    pace: Pace,
    #[cfg(feature = "object-storage-oss")]
    signing: Signing,
}

impl Http {
    pub(super) fn new(content: &Content, tuning: Tuning) -> crate::Result<Self> {
        let settings = Settings {
            section: "content",
            ca_file: content.ca_file.as_deref(),
            insecure: content.insecure_skip_verify,
            proxy: content.proxy.as_deref(),
            connect_timeout: content.timeout.min(CONNECT),
        };
        Ok(Self {
            client: client(&settings, ClientBuilder::http1_only)?,
            patience: content.patience(tuning.window),
            retries: content.retries,
            pace: tuning.pace,
            #[cfg(feature = "object-storage-oss")]
            signing: Signing::new(content),
        })
    }

    async fn send(&self, parts: &Parts, body: Buffer) -> Result<Response<Body>> {
        #[cfg(feature = "object-storage-oss")]
        let parts = &{
            let mut parts = parts.clone();
            self.signing.sign(&mut parts).await?;
            parts
        };
        let progress = Arc::new(Progress::outgoing(self.patience));
        let body = match body.len() as u64 {
            0 => Body::default(),
            bytes => Body::wrap(Outgoing::new(body, bytes, Arc::clone(&progress))),
        };
        let mut request = Request::new(body);
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = parts.uri.clone();
        *request.headers_mut() = parts.headers.clone();
        let request = reqwest::Request::try_from(request).map_err(failed)?;
        let answer = progress.watch(self.client.execute(request)).await;
        Ok(answer.map_err(stuck_error)?.map_err(failed)?.into())
    }

    fn receive(&self, parts: &Parts, response: Response<Body>) -> Result<Response<HttpBody>> {
        let (head, body) = response.into_parts();
        let size = head
            .headers
            .get(CONTENT_LENGTH)
            .filter(|_| parts.method != Method::HEAD)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        let most = most(parts, head.status);
        let stream = Answered(Incoming::new(body, most, self.patience));
        Ok(Response::from_parts(head, HttpBody::new(stream, size)))
    }
}

impl HttpTransport for Http {
    async fn fetch(&self, request: Request<Buffer>) -> Result<Response<HttpBody>> {
        let (parts, body) = request.into_parts();
        let mut attempts = Attempts::new(self.pace, self.retries);
        loop {
            let outcome = self.send(&parts, body.clone()).await;
            let asked = match &outcome {
                Ok(response) if !may_pass(response.status()) => {
                    refused(&parts.method, response.status())?;
                    return self.receive(&parts, outcome?);
                }
                Ok(response) => asked_for(response.headers()),
                Err(_) => None,
            };
            if attempts.are_over() {
                return self.receive(&parts, outcome?);
            }
            drop(outcome);
            attempts.wait(asked).await;
        }
    }
}

/// An answer's body as opendal takes it.
struct Answered(Incoming);

impl Stream for Answered {
    type Item = Result<Buffer>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Buffer>>> {
        let next = self.0.poll_next(cx);
        next.map(|next| next.map(|bytes| bytes.map(Buffer::from).map_err(broken)))
    }
}

fn broken(broken: Broken) -> Error {
    match broken {
        Broken::Connection(error) => failed(error),
        Broken::Stuck(stuck) => stuck_error(stuck),
        Broken::TooLong => {
            let text = "the server sent more than was asked for";
            Error::new(ErrorKind::Unexpected, text)
        }
    }
}

/// The error for a server that is waited for no longer.
fn stuck_error(stuck: Stuck) -> Error {
    Error::new(ErrorKind::Unexpected, stuck.to_string()).set_temporary()
}

/// Statuses that opendal could only pass on without a word: of redirects, and of refusals whose body a HEAD lacks.
fn refused(method: &Method, status: StatusCode) -> Result<()> {
    let (kind, text) = match status.as_u16() {
        301 | 302 | 307 | 308 => (
            ErrorKind::ConfigInvalid,
            "the server redirects to another place: the bucket is in another region or at another endpoint",
        ),
        400 if method == Method::HEAD => (
            ErrorKind::ConfigInvalid,
            "the server calls the request bad (400): the region may be another one",
        ),
        401 => (
            ErrorKind::PermissionDenied,
            "the server wants other keys (401)",
        ),
        407 => (
            ErrorKind::PermissionDenied,
            "the proxy wants a user and a password (407)",
        ),
        _ => return Ok(()),
    };
    Err(Error::new(kind, text))
}

/// What may come in answer to a request, in bytes.
fn most(parts: &Parts, status: StatusCode) -> u64 {
    if parts.method != Method::GET || !status.is_success() {
        return ANSWER;
    }
    let range = parts.headers.get(RANGE).and_then(|range| {
        let (first, last) = range
            .to_str()
            .ok()?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
        last.checked_sub(first)?.checked_add(1)
    });
    range.unwrap_or(ANSWER)
}

/// An error of the connection, in words, without its URL: it may pass.
fn failed(error: reqwest::Error) -> Error {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    Error::new(ErrorKind::Unexpected, text).set_temporary()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(range: Option<&str>) -> Parts {
        let mut request = Request::get("http://host/key").body(()).unwrap();
        if let Some(range) = range {
            request.headers_mut().insert(RANGE, range.parse().unwrap());
        }
        request.into_parts().0
    }

    #[test]
    fn an_answer_may_be_as_long_as_what_was_asked_for() {
        assert_eq!(most(&get(Some("bytes=10-19")), StatusCode::OK), 10);
        assert_eq!(most(&get(Some("bytes=5-")), StatusCode::OK), ANSWER);
        assert_eq!(most(&get(None), StatusCode::OK), ANSWER);
        let missing = most(&get(Some("bytes=0-99999999")), StatusCode::NOT_FOUND);
        assert_eq!(missing, ANSWER);
    }
}

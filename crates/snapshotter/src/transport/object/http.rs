//! opendal's requests over our client: retried, timed and bounded here, below everything else.
//!
//! A request's body is in memory, so any request can be sent again; what an upload's part or a completion means does not
//! change by being said twice (a completion whose answer got lost fails the second time, which `upload.rs` resolves by
//! looking at the object). Retrying here rather than around an operation keeps parts that are under way at the same time
//! from failing each other, and lets a server say how long to wait.

use std::error::Error as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_core::Stream;
use http::request::Parts;
use http::{Method, Request, Response};
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport, Result};
use reqwest::{Body, Client, ClientBuilder};

use super::Tuning;
use super::answers::{Wanted, hides_an_error, length, refused};
#[cfg(feature = "object-storage-oss")]
use super::keys::Signing;
use crate::http::{
    Attempts, Broken, Incoming, Outgoing, Settings, asked_for, client, may_pass, told,
};
use crate::pace::Pace;
use crate::patience::{Patience, Progress, Stuck};
use crate::transport::config::Content;

/// A connection that is not there by then will not be.
const CONNECT: Duration = Duration::from_secs(15);

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
        let started = Instant::now();
        let answer = match progress.watch(self.client.execute(request)).await {
            Ok(answer) => answer.map_err(failed),
            Err(stuck) => Err(stuck_error(stuck)),
        };
        let answer = answer.map(Response::from);
        let error = answer.as_ref().map_err(Error::message);
        told(
            &parts.method,
            &parts.uri.to_string(),
            started,
            &error,
            |answer| answer.status(),
        );
        answer
    }

    /// The answer to one attempt, and whether there should be another one.
    async fn attempt(&self, parts: &Parts, body: Buffer) -> Result<Attempt> {
        let response = self.send(parts, body).await?;
        let (status, asked) = (response.status(), asked_for(response.headers()));
        if may_pass(status) {
            let answer = self.receive(parts, response)?;
            return Ok(Attempt::again(answer, asked));
        }
        refused(&parts.method, status, response.headers())?;
        let answer = self.receive(parts, response)?;
        if parts.method == Method::POST && status.is_success() {
            return settled(answer).await;
        }
        Ok(Attempt::last(answer))
    }

    fn receive(&self, parts: &Parts, response: Response<Body>) -> Result<Response<HttpBody>> {
        let (mut head, body) = response.into_parts();
        let wanted = Wanted::of(parts, &mut head)?;
        let size = length(&head.headers).filter(|_| parts.method != Method::HEAD);
        let most = match wanted.is_all {
            true => wanted.take,
            false => u64::MAX,
        };
        let incoming = Incoming::new(body, most, self.patience);
        let stream = Answered::Coming(Box::new((incoming, wanted)));
        Ok(Response::from_parts(head, HttpBody::new(stream, size)))
    }
}

/// What came of one sending of a request.
struct Attempt {
    answer: Response<HttpBody>,
    may_pass: bool,
    /// How long the server wants to be left alone.
    asked: Option<Duration>,
}

impl Attempt {
    fn last(answer: Response<HttpBody>) -> Self {
        Self {
            answer,
            may_pass: false,
            asked: None,
        }
    }

    fn again(answer: Response<HttpBody>, asked: Option<Duration>) -> Self {
        Self {
            answer,
            may_pass: true,
            asked,
        }
    }
}

/// Reads a success that may be none: only its body tells. One that breaks off is an error that may pass.
async fn settled(answer: Response<HttpBody>) -> Result<Attempt> {
    let (head, mut body) = answer.into_parts();
    let body = body.to_buffer().await?;
    let hides_an_error = hides_an_error(&body.to_bytes());
    let size = body.len() as u64;
    let body = HttpBody::new(Answered::Came(Some(body)), Some(size));
    let answer = Response::from_parts(head, body);
    Ok(match hides_an_error {
        true => Attempt::again(answer, None),
        false => Attempt::last(answer),
    })
}

impl HttpTransport for Http {
    async fn fetch(&self, request: Request<Buffer>) -> Result<Response<HttpBody>> {
        let (parts, body) = request.into_parts();
        let mut attempts = Attempts::new(self.pace, self.retries);
        loop {
            let outcome = self.attempt(&parts, body.clone()).await;
            let (may_pass, asked) = match &outcome {
                Ok(attempt) => (attempt.may_pass, attempt.asked),
                Err(error) => (error.is_temporary(), None),
            };
            if !may_pass || attempts.are_over() {
                return outcome.map(|attempt| attempt.answer);
            }
            let why = match outcome {
                Ok(attempt) => format!("the server answers {}", attempt.answer.status()),
                Err(error) => error.message().to_owned(),
            };
            attempts.wait(asked, &why).await;
        }
    }
}

/// An answer's body as opendal takes it.
enum Answered {
    Coming(Box<(Incoming, Wanted)>),
    Came(Option<Buffer>),
}

impl Stream for Answered {
    type Item = Result<Buffer>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Buffer>>> {
        let (incoming, wanted) = match &mut *self {
            Self::Coming(coming) => &mut **coming,
            Self::Came(body) => return Poll::Ready(body.take().map(Ok)),
        };
        // What follows a part is left where it is: the connection ends here.
        while wanted.is_all || wanted.take > 0 {
            let Some(mut bytes) = ready!(incoming.poll_next(cx)).transpose().map_err(broken)?
            else {
                break;
            };
            if !wanted.is_all {
                bytes = part_of(bytes, wanted);
            }
            if !bytes.is_empty() {
                return Poll::Ready(Some(Ok(Buffer::from(bytes))));
            }
        }
        Poll::Ready(None)
    }
}

/// What of these bytes is wanted; the rest of what is wanted is in those that follow.
fn part_of(mut bytes: Bytes, wanted: &mut Wanted) -> Bytes {
    let past = bytes
        .len()
        .min(usize::try_from(wanted.skip).unwrap_or(usize::MAX));
    wanted.skip -= past as u64;
    let mut bytes = bytes.split_off(past);
    bytes.truncate(usize::try_from(wanted.take).unwrap_or(usize::MAX));
    wanted.take -= bytes.len() as u64;
    bytes
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

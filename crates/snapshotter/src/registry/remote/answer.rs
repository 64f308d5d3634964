//! What a server answered: a status to sort by, and a body that is bounded while it is read.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName};
use reqwest::{StatusCode, Url};
use serde::Deserialize;

use crate::http::{Broken, Failure, Incoming, asked_for, may_pass};
use crate::patience::{Patience, Stuck};
use crate::tls::is_no_tls;
use crate::words::digest::{Sha256, excerpt, visible};
use crate::words::error::{Error, ErrorKind, Result};

/// How much of an error's body is read, and no more of it is shown than fits a line.
const MAX_ERROR_BYTES: u64 = 64 << 10;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// An answer; its body is read piece by piece or by [`Answer::collect`].
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    /// The body's, where it was said.
    length: Option<u64>,
    url: Url,
    doing: String,
    incoming: Incoming,
    body: Vec<u8>,
}

impl Answer {
    pub(super) fn new(
        response: reqwest::Response,
        url: Url,
        doing: &str,
        patience: Patience,
    ) -> Self {
        Self {
            status: response.status(),
            headers: response.headers().clone(),
            length: response.content_length(),
            url,
            doing: doing.to_owned(),
            incoming: Incoming::new(response.into(), u64::MAX, patience),
            body: Vec::new(),
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// Where it came from in the end.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    /// What `Content-Length` says, to a HEAD too.
    pub(super) fn length(&self) -> Option<u64> {
        self.header(&CONTENT_LENGTH)?.parse().ok()
    }

    /// Whether the registry names this digest as what it has; naming another one contradicts. Another algorithm than
    /// SHA-256 says nothing of it.
    pub(super) fn names(&self, what: &str, digest: Sha256) -> Result<bool> {
        match self.header(&CONTENT_DIGEST) {
            Some(said) if said == digest.to_string() => Ok(true),
            Some(said) if said.starts_with("sha256:") => {
                let text = format!(
                    "the {what} is {digest}, the registry says {}",
                    excerpt(said)
                );
                Err(self.error(ErrorKind::Damaged, &text))
            }
            _ => Ok(false),
        }
    }

    /// What [`Answer::collect`] has read.
    pub(super) fn into_body(self) -> Vec<u8> {
        self.body
    }

    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// The next bytes of the body. A lost connection, silence and slowness may pass.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        self.incoming.next().await.map_err(|broken| match broken {
            Broken::Connection(error) => failure_of(&self.doing, &self.url, None, error),
            Broken::Stuck(stuck) => stuck_at(&self.doing, &self.url, stuck),
            Broken::TooLong => self.too_long(u64::MAX).into(),
        })
    }

    /// How long its bytes were waited for.
    pub(super) fn waited(&self) -> Duration {
        self.incoming.waited()
    }

    /// Reads the body. More than `limit` bytes are damage: nothing is stored that way.
    pub(super) async fn collect(&mut self, limit: u64) -> Result<(), Failure> {
        let limit = if self.status().is_success() {
            limit
        } else {
            MAX_ERROR_BYTES
        };
        // A length that is announced saves growing, and reading what is too long anyway. (HEAD's is no body's.)
        match self.length {
            Some(length) if length > limit && self.status().is_success() => {
                return Err(self.too_long(limit).into());
            }
            Some(length) => self
                .body
                .reserve_exact(usize::try_from(length.min(limit)).unwrap_or(0)),
            None => {}
        }
        while let Some(bytes) = self.next().await? {
            let room = limit - self.body.len() as u64;
            if bytes.len() as u64 <= room {
                self.body.extend_from_slice(&bytes);
            } else if self.status().is_success() {
                return Err(self.too_long(limit).into());
            } else {
                break;
            }
        }
        Ok(())
    }

    fn too_long(&self, limit: u64) -> Error {
        let text = format!("the answer is longer than {limit} bytes");
        self.error(ErrorKind::Damaged, &text)
    }

    /// Passes everything but 401, 403, 5xx and what may pass.
    pub(super) async fn check(mut self) -> Result<Self, Failure> {
        let transient = may_pass(self.status);
        if !transient && !matches!(self.status.as_u16(), 401 | 403 | 500..) {
            return Ok(self);
        }
        let after = asked_for(&self.headers);
        // The status says enough where the body cannot be read.
        let _ = self.collect(0).await;
        let error = self.refused();
        Err(if transient {
            Failure::transient(error, after)
        } else {
            error.into()
        })
    }

    /// The error for a status that was not hoped for; the body was read.
    pub(super) fn refused(&self) -> Error {
        let status = self.status();
        let said = self.said();
        // Who is told so has the right to write, and no room.
        let is_full = matches!(status.as_u16(), 400 | 403 | 413)
            && said.to_ascii_lowercase().contains("quota");
        if is_full {
            return self.error(ErrorKind::NoSpace, &said);
        }
        let error = self.error(kind_of(status), &said);
        match status.as_u16() {
            401 => {
                error.with_hint("check registry.username and registry.password, or docker login")
            }
            403 => error.with_hint("these credentials may not do that here"),
            413 => error.with_hint(
                "the registry, or a proxy before it, limits how long a request may be (nginx: client_max_body_size): \
                 set registry.chunk_bytes below that limit, or have it raised",
            ),
            _ => error,
        }
    }

    /// An error about this answer.
    pub(super) fn error(&self, kind: ErrorKind, why: &str) -> Error {
        Error::new(kind, text(&self.doing, &self.url, why))
    }

    /// The status and what the registry says of it: codes and messages, each as one line.
    fn said(&self) -> String {
        let mut said = format!("the registry answered {}", self.status());
        let body: ErrorBody = serde_json::from_slice(&self.body).unwrap_or_default();
        for entry in body.errors.iter().take(3) {
            let parts = [&entry.code, &entry.message].map(|part| line(part));
            let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            said.push_str("; ");
            said.push_str(&parts.join(": "));
        }
        said
    }
}

#[derive(Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
}

#[derive(Default, Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

fn kind_of(status: StatusCode) -> ErrorKind {
    match status.as_u16() {
        401 | 403 => ErrorKind::PermissionDenied,
        404 => ErrorKind::NotFound,
        507 => ErrorKind::NoSpace,
        408 | 429 => ErrorKind::Unavailable,
        501 | 505 => ErrorKind::Unsupported,
        500.. => ErrorKind::Unavailable,
        _ => ErrorKind::Unsupported,
    }
}

/// What a registry says, whole, as one line: a quota's message has what is full and how full it is.
fn line(text: &str) -> String {
    const LONGEST: usize = 1000;
    text.chars().take(LONGEST).flat_map(visible).collect()
}

/// The failure of a request or a body. Whatever happens on the way may pass, but what cannot be built cannot, and who speaks
/// no TLS will not.
pub(super) fn failure_of(
    doing: &str,
    url: &Url,
    proxy: Option<&str>,
    error: reqwest::Error,
) -> Failure {
    if is_no_tls(&error) {
        let error = Error::new(
            ErrorKind::Unavailable,
            text(doing, url, "it does not speak TLS"),
        )
        .with_source(error.without_url())
        .with_hint("where it speaks http, registry.endpoint has to begin with http://");
        return error.into();
    }
    let through = proxy.map(|proxy| format!("cannot connect through the proxy {proxy}"));
    let why = if error.is_connect() {
        through.as_deref().unwrap_or("cannot connect")
    } else if error.is_body() || error.is_decode() {
        "the connection broke"
    } else {
        "the request failed"
    };
    let builder = error.is_builder();
    let kind = if builder {
        ErrorKind::Internal
    } else {
        ErrorKind::Unavailable
    };
    // The URL may have a query with a signature, and is in our text already.
    let is_proxys = proxy.is_some() && error.is_connect();
    let mut error = Error::new(kind, text(doing, url, why)).with_source(error.without_url());
    if is_proxys {
        error = error.with_hint(PROXY);
    }
    if builder {
        error.into()
    } else {
        Failure::transient(error, None)
    }
}

const PROXY: &str = "registry.proxy, or the environment, names it: it has to let connections to this host pass, and its URL has \
    to have the user and password that it wants";

/// A proxy that answered in the registry's place, because it does not know who asks.
pub(super) fn unknown_to_proxy(doing: &str, url: &Url, proxy: &str) -> Error {
    let why = format!("the proxy {proxy} answered 407 Proxy Authentication Required");
    Error::new(ErrorKind::PermissionDenied, text(doing, url, &why)).with_hint(PROXY)
}

/// The failure of a request that is waited for no longer.
pub(super) fn stuck_at(doing: &str, url: &Url, stuck: Stuck) -> Failure {
    let text = text(doing, url, &stuck.to_string());
    Failure::transient(Error::new(ErrorKind::Unavailable, text), None)
}

fn text(doing: &str, url: &Url, why: &str) -> String {
    format!("cannot {doing} ({}): {why}", shown(url))
}

/// A URL as errors show it: without user, query and fragment, which may hold secrets.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Refused by URLs that cannot have them.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

//! One request: logged in, redirected, timed, its answer bounded while it is read and its failures sorted into those
//! that may pass and those that stay.
//!
//! Redirects are followed by hand, for GET, HEAD and a POST without a body alone: five at most, never from https to http, and never with the
//! credentials to another origin.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{
    AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION, WWW_AUTHENTICATE,
};
use reqwest::{Method, StatusCode, Url};

use super::answer::{Answer, failure_of, shown, stuck_at, unknown_to_proxy};
use super::auth::Auth;
use super::challenge::{self, Challenge};
use crate::http::{self, Attempts, Failure, Outgoing, Settings};
use crate::pace::Pace;
use crate::patience::{Patience, Progress};
use crate::registry::Tuning;
use crate::registry::config::Registry;
use crate::registry::credentials::Source;
use crate::words::error::{Error, ErrorKind, Result};

const MAX_REDIRECTS: usize = 5;

/// A request that can be sent again.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    /// What a token has to allow: `repository:a/b:pull`.
    pub(super) scope: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
    /// How long the registry may be silent, where that is not the usual time.
    pub(super) silence: Option<Duration>,
    /// Reads after "cannot": `read the manifest a/b:v1`.
    pub(super) doing: String,
}

impl Request {
    pub(super) fn new(method: Method, url: Url, scope: String, doing: String) -> Self {
        let headers = HeaderMap::new();
        Self {
            method,
            url,
            scope,
            headers,
            body: None,
            silence: None,
            doing,
        }
    }

    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        // Values are constants and digits.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    pub(super) fn body(mut self, bytes: Bytes) -> Self {
        self.body = Some(bytes);
        self
    }
}

/// A client of one registry.
#[derive(Debug)]
pub(super) struct Http {
    client: reqwest::Client,
    /// Its host and port, for errors.
    proxy: Option<String>,
    pub(super) origin: Url,
    auth: Auth,
    pub(super) patience: Patience,
    pub(super) pace: Pace,
    retries: u32,
    /// How many bytes of an upload a request may have.
    pub(super) chunk: Option<u64>,
}

impl Http {
    pub(super) fn new(config: &Registry, origin: Url, tuning: Tuning) -> Result<Self> {
        let client = client(config)?;
        let source = Source::new(config, tuning.helpers);
        let patience = config.patience(tuning.window);
        Ok(Self {
            auth: Auth::new(client.clone(), &origin, source, patience),
            proxy: config.proxy.as_deref().and_then(host_of),
            client,
            origin,
            patience,
            pace: tuning.pace,
            retries: config.retries,
            chunk: config.chunk_bytes,
        })
    }

    pub(super) fn attempts(&self) -> Attempts {
        Attempts::new(self.pace, self.retries)
    }

    /// Sends it until there is an answer that stays, and reads that with at most `limit` bytes.
    pub(super) async fn exchange(&self, request: &Request, limit: u64) -> Result<Answer> {
        let mut attempts = self.attempts();
        loop {
            match self.exchange_once(request, limit).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => attempts.again(failure).await?,
            }
        }
    }

    /// Sends it once.
    pub(super) async fn exchange_once(
        &self,
        request: &Request,
        limit: u64,
    ) -> Result<Answer, Failure> {
        let mut answer = self.open(request).await?;
        answer.collect(limit).await?;
        Ok(answer)
    }

    /// Sends it once; the answer's body is still to be read. Answers of 401, 403, 429 and 5xx are failures already.
    pub(super) async fn open(&self, request: &Request) -> Result<Answer, Failure> {
        let known = self.auth.known(&request.scope);
        let answer = self.follow(request, known).await?;
        let answer = match self.login(request, &answer).await? {
            Some(header) => self.follow(request, Some(header)).await?,
            None => answer,
        };
        answer.check().await
    }

    /// The header that answers a 401, where there is one.
    async fn login(
        &self,
        request: &Request,
        answer: &Answer,
    ) -> Result<Option<HeaderValue>, Failure> {
        let asked_here = same_origin(answer.url(), &self.origin);
        if answer.status() != StatusCode::UNAUTHORIZED || !asked_here {
            return Ok(None);
        }
        let mut challenges = challenges(answer);
        if challenges.is_empty() {
            challenges = self.challenged().await?;
        }
        self.auth.answer(&challenges, &request.scope).await
    }

    /// Some registries say how to log in only where Docker asks first.
    async fn challenged(&self) -> Result<Vec<Challenge>, Failure> {
        let doing = "find out how to log in".to_owned();
        let url = self.origin.join("v2/");
        let url = url.map_err(|error| Error::invalid(error.to_string()))?;
        let request = Request::new(Method::GET, url, String::new(), doing);
        let answer = self.send(&request, &request.url, None).await?;
        Ok(challenges(&answer))
    }

    /// Sends a body that cannot be sent twice, with a token that is still good. Should that be refused all the same, the next
    /// attempt has another one.
    pub(super) async fn send_once(
        &self,
        request: &Request,
        body: reqwest::Body,
        progress: &Progress,
    ) -> Result<Answer, Failure> {
        let at_home = same_origin(&request.url, &self.origin);
        let known = match at_home {
            true => self.auth.renewed(&request.scope).await?,
            false => None,
        };
        let answer = self
            .dispatch(request, &request.url, known.as_ref(), Some(body), progress)
            .await?;
        match self.login(request, &answer).await? {
            Some(header) if Some(&header) != known.as_ref() => {
                Err(Failure::transient(answer.refused(), None))
            }
            _ => answer.check().await,
        }
    }

    async fn follow(
        &self,
        request: &Request,
        authorization: Option<HeaderValue>,
    ) -> Result<Answer, Failure> {
        let mut url = request.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let at_home = same_origin(&url, &self.origin);
            let answer = self
                .send(request, &url, authorization.as_ref().filter(|_| at_home))
                .await?;
            match redirect(request, &url, &answer)? {
                Some(next) => url = next,
                None => return Ok(answer),
            }
        }
        let text = format!("more than {MAX_REDIRECTS} redirects");
        Err(refused(request, &request.url, &text).into())
    }

    async fn send(
        &self,
        request: &Request,
        url: &Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, Failure> {
        let progress = self.progress(request.silence);
        let body = request.body.as_ref().map(|bytes| {
            let (bytes, length) = (bytes.clone(), bytes.len() as u64);
            let progress = Arc::clone(&progress);
            reqwest::Body::wrap(Outgoing::new(std::iter::once(bytes), length, progress))
        });
        self.dispatch(request, url, authorization, body, &progress)
            .await
    }

    /// What watches a request that is about to be sent.
    pub(super) fn progress(&self, silence: Option<Duration>) -> Arc<Progress> {
        let silence = silence.unwrap_or(self.patience.silence);
        Arc::new(Progress::outgoing(Patience {
            silence,
            ..self.patience
        }))
    }

    async fn dispatch(
        &self,
        request: &Request,
        url: &Url,
        authorization: Option<&HeaderValue>,
        body: Option<reqwest::Body>,
        progress: &Progress,
    ) -> Result<Answer, Failure> {
        let mut builder = self
            .client
            .request(request.method.clone(), url.clone())
            .headers(request.headers.clone());
        if let Some(value) = authorization {
            builder = builder.header(AUTHORIZATION, value.clone());
        }
        if let Some(body) = body {
            builder = builder.body(body);
        }
        let started = Instant::now();
        let result = match progress.watch(builder.send()).await {
            Ok(result) => result.map_err(|error| {
                let proxy = self.proxy.as_deref();
                failure_of(&request.doing, url, proxy, error)
            }),
            Err(stuck) => Err(stuck_at(&request.doing, url, stuck)),
        };
        http::told(&request.method, &shown(url), started, &result, |response| {
            response.status()
        });
        let response = result?;
        if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED
            && let Some(proxy) = &self.proxy
        {
            return Err(unknown_to_proxy(&request.doing, url, proxy).into());
        }
        Ok(Answer::new(
            response,
            url.clone(),
            &request.doing,
            self.patience,
        ))
    }
}

/// How an answer says that one could log in.
fn challenges(answer: &Answer) -> Vec<Challenge> {
    let values = answer.headers().get_all(WWW_AUTHENTICATE).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(challenge::parse).collect()
}

/// A proxy without its user and password.
fn host_of(proxy: &str) -> Option<String> {
    let url = Url::parse(proxy).ok()?;
    let host = url.host_str()?;
    Some(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

pub(super) fn client(config: &Registry) -> Result<reqwest::Client> {
    let settings = Settings {
        section: "registry",
        ca_file: config.ca_file.as_deref(),
        insecure: config.insecure,
        proxy: config.proxy.as_deref(),
        connect_timeout: config.connect_timeout,
    };
    http::client(&settings, |builder| builder)
}

pub(super) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host_str() == b.host_str()
        && a.port_or_known_default() == b.port_or_known_default()
}

/// Where an answer sends a GET or HEAD, or a POST that opens an upload. Other methods' redirects are answers like any other.
fn redirect(request: &Request, from: &Url, answer: &Answer) -> Result<Option<Url>> {
    let moved = match request.method {
        Method::GET | Method::HEAD => &[301, 302, 303, 307, 308][..],
        // With others it would become a GET.
        Method::POST if request.body.as_ref().is_none_or(Bytes::is_empty) => &[307, 308],
        _ => &[],
    };
    if !moved.contains(&answer.status().as_u16()) {
        return Ok(None);
    }
    target(from, answer.header(&LOCATION))
        .map(Some)
        .map_err(|why| refused(request, from, why))
}

fn target(from: &Url, location: Option<&str>) -> std::result::Result<Url, &'static str> {
    let target = location
        .and_then(|location| from.join(location).ok())
        .ok_or("a redirect to nowhere")?;
    match (from.scheme(), target.scheme()) {
        (_, "https") | ("http", "http") => Ok(target),
        ("https", "http") => Err("a redirect from https to http"),
        _ => Err("a redirect to what is no web server"),
    }
}

fn refused(request: &Request, url: &Url, what: &str) -> Error {
    let text = format!(
        "cannot {} ({}): the registry answered with {what}",
        request.doing,
        shown(url)
    );
    Error::new(ErrorKind::Unsupported, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_never_leave_https_and_the_web() {
        let url = |text: &str| Url::parse(text).unwrap();
        let (https, http) = (url("https://a/x/y"), url("http://a/x/y"));
        for (from, location, expected) in [
            (&https, "z", Ok(url("https://a/x/z"))),
            (&https, "https://b/z", Ok(url("https://b/z"))),
            (&https, "//b/z", Ok(url("https://b/z"))),
            (&http, "http://b/z", Ok(url("http://b/z"))),
            (&http, "https://b/z", Ok(url("https://b/z"))),
            (&https, "http://a/z", Err("a redirect from https to http")),
            (
                &http,
                "ftp://a/z",
                Err("a redirect to what is no web server"),
            ),
            (
                &https,
                "file:///z",
                Err("a redirect to what is no web server"),
            ),
            (&https, "https://", Err("a redirect to nowhere")),
        ] {
            assert_eq!(target(from, Some(location)), expected, "{location}");
        }
        assert!(target(&https, None).is_err());
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |a: &str, b: &str| same_origin(&a.parse().unwrap(), &b.parse().unwrap());
        assert!(same("https://a/x", "https://a:443/y?z"));
        for other in ["http://a/", "https://b/", "https://a:444/", "https://a.b/"] {
            assert!(!same("https://a/", other), "{other}");
        }
    }
}

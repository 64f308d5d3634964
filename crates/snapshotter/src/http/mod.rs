//! HTTP as registries and object storage speak it: one client, one account of how a body gets on, one rule for which answers
//! may be other ones the next time. Each has its own words for what went wrong.

mod attempts;
mod body;
mod client;

use std::fmt::Display;
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use time::OffsetDateTime;

pub(crate) use attempts::{Attempts, Failure};
pub(crate) use body::{Broken, Incoming, Outgoing};
pub(crate) use client::{Settings, client};

use crate::pace::retry_after;

/// Tells the log of a request and what came of it. Its URL is without user and query, and no header is told: there are
/// secrets in all of these.
pub(crate) fn told<T, E: Display>(
    method: &Method,
    url: &str,
    started: Instant,
    result: &Result<T, E>,
    status: impl FnOnce(&T) -> StatusCode,
) {
    let (took, url) = (
        started.elapsed().as_millis(),
        url.split(['?', '#']).next().unwrap_or(url),
    );
    match result {
        Ok(answer) => {
            tracing::debug!(
                "{method} {url}: {} after {took} ms",
                status(answer).as_u16()
            );
        }
        Err(error) => tracing::debug!("{method} {url}: {error}, after {took} ms"),
    }
}

/// Whether a request that is answered so is worth another attempt.
pub(crate) fn may_pass(status: StatusCode) -> bool {
    match status.as_u16() {
        501 | 505 | 507 => false,
        code => matches!(code, 408 | 429 | 500..),
    }
}

/// How long a server asks to be left alone.
pub(crate) fn asked_for(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    retry_after(value, OffsetDateTime::now_utc())
}

//! Content in a bucket: [`ObjectStorage`], the transport over opendal.
//!
//! opendal knows the providers' protocols and signatures; it does here what it is told and no more. Requests go through
//! our own HTTP transport (`http.rs`), which is where retries, time limits and bounds on answers are; its retry and
//! timeout layers, its reqwest client, its logging and its look at the environment stay out.

mod answers;
mod download;
mod error;
mod http;
#[cfg(any(feature = "object-storage-s3", feature = "object-storage-oss"))]
mod keys;
mod records;
mod rehearsal;
mod service;
mod upload;

use std::time::Duration;

use opendal::{ErrorKind, Operator};

use self::error::Explain;
use super::budget::{self, Budget};
use super::config::Content;
use super::{Call, ContentTransport, Existing, Presence, Published, Ranges, Records, Sink, Source};
use crate::pace::Pace;
use crate::patience;
use crate::words::digest::Digest;
use crate::words::error::Result;
use crate::words::object::{Object, ObjectName};

/// Parts of one object under way at once. With the two that an upload holds besides, it leaves a part's worth of the
/// budget to others for as long as it lasts.
const CONCURRENCY: usize = 3;

/// What tests make small.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tuning {
    /// All buffers together, in bytes.
    pub(super) budget: u32,
    pub(super) pace: Pace,
    /// How long a slow server is borne with.
    pub(super) window: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            budget: budget::DEFAULT,
            pace: Pace {
                first: Duration::from_millis(200),
                longest: Duration::from_secs(20),
            },
            window: patience::WINDOW,
        }
    }
}

/// A bucket.
#[derive(Debug)]
pub(super) struct ObjectStorage {
    operator: Operator,
    place: String,
    explain: Explain,
    budget: Budget,
    retries: u32,
    pace: Pace,
}

impl ObjectStorage {
    pub(super) fn open(content: &Content) -> Result<Self> {
        Self::tuned(content, Tuning::default())
    }

    pub(super) fn tuned(content: &Content, tuning: Tuning) -> Result<Self> {
        let explain = Explain::new(content);
        let http = http::Http::new(content, tuning)?;
        let operator = service::operator(content, http, &explain)?;
        Ok(Self {
            operator,
            place: explain.place().to_owned(),
            explain,
            budget: Budget::new(tuning.budget),
            retries: content.retries,
            pace: tuning.pace,
        })
    }

    async fn stat(&self, object: Object) -> Result<Option<u64>> {
        match self.operator.stat(&object.key()).await {
            Ok(metadata) => Ok(Some(metadata.content_length())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.explain.error("look for", Some(object), &error)),
        }
    }

    /// A HEAD has no body, so it cannot tell an absent bucket from an absent object; a GET can.
    async fn look(&self) -> Result<()> {
        let key = ObjectName::Digest(Digest::from_u64(0)).key();
        match self.operator.read_with(&key).range(0..1).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::RangeNotSatisfied => Ok(()),
            Err(error) if error::is_absent_object(&error) => Ok(()),
            Err(error) => Err(self.explain.error("reach", None, &error)),
        }
    }

    #[cfg(test)]
    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }
}

impl ContentTransport for ObjectStorage {
    fn place(&self) -> String {
        self.place.clone()
    }

    fn size(&self, object: Object) -> Call<'_, Presence> {
        Box::pin(async move { self.stat(object).await.map(Presence::from) })
    }

    fn publish(&self, object: Object, existing: Existing, source: Source) -> Call<'_, Published> {
        Box::pin(self.send(object, existing, source))
    }

    fn fetch(&self, object: Object, ranges: Ranges, sink: Sink) -> Call<'_, u64> {
        Box::pin(self.receive(object, ranges, sink))
    }

    fn check(&self) -> Call<'_, ()> {
        Box::pin(self.look())
    }

    fn records(&self) -> Option<&dyn Records> {
        Some(self)
    }

    fn rehearse(&self) -> Call<'_, Vec<&'static str>> {
        Box::pin(self.try_out())
    }
}

//! How contents reach other nodes: objects, each under its name, to and from where those find them.
//!
//! [`ContentTransport`] is the contract; every implementation passes `tests/suite.rs`. What crosses it is opaque here: a
//! transport neither hashes nor parses. Whoever fetches verifies (the bytes come from outside), and whoever publishes
//! knows the size before the first byte, which is what makes a whole upload recognizable as whole.

mod budget;
mod config;
mod directory;
#[cfg(feature = "dragonfly")]
mod dragonfly;
mod files;
#[cfg(feature = "_opendal")]
mod object;
mod parts;
mod records;
#[cfg(any(feature = "_opendal", feature = "dragonfly"))]
mod said;
mod source;
#[cfg(test)]
pub(crate) mod tests;
mod validate;

use std::fs::File;
use std::ops::Range;
#[cfg(feature = "dragonfly")]
use std::path::Path;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

pub use config::{Content, ContentProvider, Credentials};
#[cfg(feature = "dragonfly")]
pub(crate) use dragonfly::Daemon;
#[cfg(feature = "dragonfly")]
pub use dragonfly::{Dragonfly, DragonflyDiagnosis};

/// Without the feature `dragonfly` there is none. The type stays, with no value.
#[cfg(not(feature = "dragonfly"))]
#[derive(Debug)]
pub(crate) enum Daemon {}

pub(crate) use records::{Listed, Records};
pub(crate) use source::{Pieces, Source, SourceSink};
#[cfg(feature = "dragonfly")]
pub(crate) use validate::require_bucket;

#[cfg(feature = "dragonfly")]
use crate::activity::Warnings;
use crate::words::digest::Sha256;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::object::Object;
use crate::words::total::total;

/// What a method of a transport gives: a future that owns nothing but its borrow and may move between threads.
pub(crate) type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// Which bytes of an object are wanted, in which order; `None`: all.
pub(crate) type Ranges = Option<Vec<Range<u64>>>;

/// Where fetched bytes go.
pub(crate) type Sink = mpsc::Sender<Bytes>;

/// What to do about an object that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    /// One of the same size is taken for ours and nothing is sent. One of another size is an `AlreadyExists` error that
    /// names both sizes: it is a damaged upload or the other one of a pair of files with one XXH3-64, and only the
    /// caller can know whether somebody relies on it.
    Keep,
    /// Send, whatever is there: for objects that were found to be damaged. What was there stays until the new one is
    /// whole.
    Replace,
}

/// What became of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    /// It was sent, and is whole; otherwise an object of that size was there, and nothing was.
    pub(crate) sent: bool,
    /// What the place calls it, where that is a registry.
    pub(crate) sha256: Option<Sha256>,
}

impl Published {
    fn unnamed(sent: bool) -> Self {
        let sha256 = None;
        Self { sent, sha256 }
    }
}

/// Whether a place has an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It has, with so many bytes.
    Size(u64),
    /// It has not, perhaps because there is no bucket.
    Absent,
    /// Only sending it would tell.
    Unknown,
}

impl From<Option<u64>> for Presence {
    fn from(size: Option<u64>) -> Self {
        size.map_or(Self::Absent, Self::Size)
    }
}

/// Moves objects to and from a place that other nodes reach.
///
/// # The contract
///
/// * **Whole or not at all.** An object is visible under its name only with all its bytes. An error from the source, a
///   source of another length than was announced, a failing server, a dropped future: each leaves what was there before.
///   Unfinished remains (parts of a multipart upload) are cleaned up as far as the server can still be reached. What a
///   server says it took is looked at before it counts as sent.
/// * **Size is not identity.** A transport compares sizes and nothing else. Fetched bytes are unverified.
/// * **Memory is bounded.** All buffers of one transport, whatever the number of calls under way, come from one budget.
///   A call waits for its share before it holds any, or while what it holds gets free without it (`budget.rs`). So the
///   bytes a call hands out count until they are dropped, and **who holds fetched bytes must not wait for another call
///   of the same transport**. A registry has no buffers of its own: a call holds what its channel has room for.
/// * **Retries are inside.** A method that fails has already tried again what was worth it, and `Unavailable` means that
///   the whole call may succeed later. A server that makes no progress for the configured time, or too little, counts as
///   unavailable.
/// * **Cancelling is dropping.** A dropped future stops reading its source and sending.
/// * **Errors** name the object and the place, and hold no secret and at most a line of what a server said. `NotFound`
///   is said of an absent object (except by [`size`](Self::size)) and of an absent bucket or directory, which its text
///   tells apart.
///
/// Methods must be called within a tokio runtime that has time and I/O enabled.
pub(crate) trait ContentTransport: Send + Sync + std::fmt::Debug {
    /// Where it leads, for reports and errors: `s3://bucket`. No secrets.
    fn place(&self) -> String;

    /// Whether an object is there, and with which size. One of another size than the caller's is not ours.
    fn size(&self, object: Object) -> Call<'_, Presence>;

    /// Sends an object that has exactly the bytes of its source. Where nothing has to be sent the source is not begun.
    fn publish(&self, object: Object, existing: Existing, source: Source) -> Call<'_, Published>;

    /// The same for who has just looked, and found nothing or could not ask: what is there is kept, and may be found out late.
    fn publish_unseen(&self, object: Object, source: Source) -> Call<'_, Published> {
        self.publish(object, Existing::Keep, source)
    }

    /// Brings an object, or ranges of it one after the other, into `sink`, and says how many bytes that were.
    ///
    /// A closed channel alone does not mean that all is there: the result does. An object that is larger than
    /// [`Object::most`] is `Damaged`, said before its bytes are asked for where the server tells the size. A range that
    /// reaches beyond the object is `Damaged` too. A receiver that is dropped ends the call with `Cancelled`.
    fn fetch(&self, object: Object, ranges: Ranges, sink: Sink) -> Call<'_, u64>;

    /// Whether the place can be reached, exists and may be read, as far as that can be found out without changing it.
    fn check(&self) -> Call<'_, ()>;

    /// What a publication does, with probes: what of it cannot be done is an error, and what else is not permitted is said.
    /// Where there is nothing to try, whether it can be reached.
    fn rehearse(&self) -> Call<'_, Vec<&'static str>> {
        Box::pin(async { self.check().await.map(|()| Vec::new()) })
    }

    /// Whether a place that lacks something has lost it: an error where all of it may only be out of sight.
    fn check_sight(&self) -> Call<'_, ()> {
        self.check()
    }

    /// Records and removal, where the place itself can be reached.
    fn records(&self) -> Option<&dyn Records> {
        None
    }

    /// Objects as the files that they are here, where they are.
    fn local_files(&self) -> Option<&dyn LocalFiles> {
        None
    }

    /// Objects as files that somebody makes here, where that costs less than a stream.
    #[cfg(feature = "dragonfly")]
    fn deliveries(&self) -> Option<&dyn FileDelivery> {
        None
    }
}

/// A transport whose objects are files here already: who needs all of one reads it where it is, and nothing is handed over.
pub(crate) trait LocalFiles {
    /// Opens an object, and says where it is.
    ///
    /// # Errors
    /// As [`ContentTransport::fetch`].
    fn open(&self, object: Object) -> Call<'_, (File, PathBuf)>;
}

/// A transport that makes files of objects.
#[cfg(feature = "dragonfly")]
pub(crate) trait FileDelivery {
    /// Brings an object as a file that holds its bytes, and says how many.
    ///
    /// `path` is absolute, in the handle's staging, in a directory that exists, and nothing has that name. When the call
    /// has succeeded the file has it, **perhaps as one more name of a file in somebody's cache: nobody may write it, or
    /// change its mode or owner**. It may belong to another user, and can be read. Its bytes are unverified. After an
    /// error, or when the future is dropped, nothing has that name.
    ///
    /// `progress` hears of bytes as they arrive, of each once; together they are at most those of the object.
    ///
    /// # Errors
    /// As [`ContentTransport::fetch`].
    fn fetch_file<'a>(
        &'a self,
        object: Object,
        path: &'a Path,
        progress: &'a (dyn Fn(u64) + Send + Sync),
    ) -> Call<'a, u64>;
}

/// The way to the place that a configuration describes.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// What takes contents there, and brings them.
    pub(crate) transport: Arc<dyn ContentTransport>,
    /// The place itself, where the transport leads there by a detour that may deliver other bytes: what to ask for an
    /// object that came damaged, since who kept wrong bytes gives them again.
    pub(crate) direct: Option<Arc<dyn ContentTransport>>,
    #[cfg(feature = "dragonfly")]
    daemon: Option<dragonfly::ThroughDaemon>,
}

impl Way {
    fn straight(transport: Arc<dyn ContentTransport>) -> Self {
        Self {
            transport,
            direct: None,
            #[cfg(feature = "dragonfly")]
            daemon: None,
        }
    }

    #[cfg(feature = "dragonfly")]
    fn through(daemon: &Arc<Daemon>, content: &Content) -> Result<Self> {
        let direct: Option<Arc<dyn ContentTransport>> =
            match validate::require_compiled_in(content.provider) {
                Ok(()) if !content.is_for_daemon_alone() => Some(open(content)?),
                _ => None,
            };
        let daemon = dragonfly::ThroughDaemon::open(daemon, content)?;
        Ok(Self {
            transport: daemon.with_fallback(direct.as_ref(), None),
            direct,
            daemon: Some(daemon),
        })
    }

    /// The same for one call, whose warnings go to `to`.
    #[cfg(feature = "dragonfly")]
    pub(crate) fn warning(mut self, to: &Arc<Warnings>) -> Self {
        if let Some(daemon) = &self.daemon {
            self.transport = daemon.with_fallback(self.direct.as_ref(), Some(to));
        }
        self
    }

    /// What stands before the bucket.
    #[cfg(feature = "dragonfly")]
    pub(crate) fn daemon(&self) -> Option<&dragonfly::ThroughDaemon> {
        self.daemon.as_ref()
    }
}

/// Opens what a configuration describes. Nothing is sent yet.
///
/// # Errors
/// `InvalidInput` for a configuration that cannot work, and for [`ContentProvider::Registry`], which is not a place of
/// its own; `Unsupported` for a provider that was not compiled in.
fn open(content: &Content) -> Result<Arc<dyn ContentTransport>> {
    content.validate()?;
    validate::require_compiled_in(content.provider)?;
    match content.provider {
        ContentProvider::Registry => Err(Error::invalid(
            "content.provider registry keeps content in the registry of the snapshot: there is no storage of its own",
        )),
        ContentProvider::Fs => Ok(Arc::new(directory::Directory::open(
            &content.root,
            content.shared_with,
        ))),
        #[cfg(feature = "_opendal")]
        _ => Ok(Arc::new(object::ObjectStorage::open(content)?)),
        #[cfg(not(feature = "_opendal"))]
        _ => unreachable!("not compiled in"),
    }
}

/// Finds the way: a bucket may be reached through a daemon. What is no bucket has no use for one. Nothing is sent yet.
///
/// # Errors
/// As [`open`].
pub(crate) fn way(content: &Content, daemon: Option<&Arc<Daemon>>) -> Result<Way> {
    match daemon {
        #[cfg(feature = "dragonfly")]
        Some(daemon) if content.provider.is_bucket() => {
            content.validate_behind_daemon()?;
            Way::through(daemon, content)
        }
        _ => open(content).map(Way::straight),
    }
}

/// Looks for an object that is sent if it is not there. Buckets forbid looking for what is absent to those who may not list:
/// that is no reason not to send it.
pub(crate) async fn look_first(
    transport: &dyn ContentTransport,
    object: Object,
) -> Result<Presence> {
    match transport.size(object).await {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(Presence::Unknown),
        found => found,
    }
}

pub(crate) fn absent(object: Object, place: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("there is no {object} in {place}"),
    )
}

/// What there is to say of an object that is to be kept: it is ours if it has our size.
pub(crate) fn kept(object: Object, place: &str, found: u64, size: u64) -> Result<Published> {
    if found == size {
        return Ok(Published::unnamed(false));
    }
    Err(other_size(object, place, found, size))
}

fn other_size(object: Object, place: &str, found: u64, size: u64) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        format!("{object} is in {place} with {found} bytes; it should have {size}"),
    )
    .with_hint("the object is damaged, or belongs to another file with the same XXH3-64; publishing with force replaces it")
}

fn beyond_most(object: Object, place: &str, size: u64) -> Error {
    Error::damaged(format!(
        "{object} in {place} has {size} bytes; at most {} were expected",
        object.most
    ))
}

/// The ranges to fetch of an object of `size` bytes, those that touch as one.
pub(crate) fn wanted(
    object: Object,
    place: &str,
    size: u64,
    ranges: Ranges,
) -> Result<Vec<Range<u64>>> {
    if size > object.most {
        return Err(beyond_most(object, place, size));
    }
    let Some(ranges) = ranges else {
        return Ok(std::iter::once(0..size).collect());
    };
    let mut wanted: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        if range.end > size || range.start > range.end {
            return Err(Error::damaged(format!(
                "{object} in {place} has {size} bytes; bytes {} to {} were asked for",
                range.start, range.end
            )));
        }
        match wanted.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => wanted.push(range),
        }
    }
    Ok(wanted)
}

fn total_of(ranges: &[Range<u64>]) -> u64 {
    total(ranges.iter().map(|range| range.end - range.start))
}

fn receiver_gone() -> Error {
    Error::new(ErrorKind::Cancelled, "the receiver of the content is gone")
}

//! How content travels: packed streams, each under its digest, to and from where other nodes find them.
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
#[cfg(any(feature = "_opendal", feature = "dragonfly"))]
mod said;
mod source;
#[cfg(test)]
mod tests;
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

use crate::activity::Warnings;
use crate::words::digest::Digest;
use crate::words::error::{Error, Result};

/// What a method of a transport gives: a future that owns nothing but its borrow and may move between threads.
pub(crate) type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// The packed stream on its way out, in order. An `Err` anywhere before the channel closes gives the upload up.
pub(crate) type Pieces = mpsc::Receiver<Result<Bytes>>;

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
pub(crate) enum Published {
    /// An object of that size was there; nothing was sent.
    Already,
    /// The object was sent and is whole.
    Sent,
}

/// Moves packed streams to and from a place that other nodes reach. An object's name is `xxh3/<hex>` of its digest.
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
///   of the same transport**.
/// * **Retries are inside.** A method that fails has already tried again what was worth it, and `Unavailable` means that
///   the whole call may succeed later. A server that makes no progress for the configured time, or too little, counts as
///   unavailable.
/// * **Cancelling is dropping.** A dropped future stops reading its source and sending.
/// * **Errors** name the digest and the place, and hold no secret and at most a line of what a server said. `NotFound`
///   is said of an absent object (except by [`size`](Self::size)) and of an absent bucket or directory, which its text
///   tells apart.
///
/// Methods must be called within a tokio runtime that has time and I/O enabled.
pub(crate) trait ContentTransport: Send + Sync + std::fmt::Debug {
    /// Where it leads, for reports and errors: `s3://bucket`. No secrets.
    fn place(&self) -> String;

    /// The size of an object, or `None` where there is none, perhaps because there is no bucket, or where only sending it
    /// would tell. An object of another size than the caller's is not ours.
    fn size(&self, digest: Digest) -> Call<'_, Option<u64>>;

    /// Whether [`size`](Self::size) finds out what is there: not where only a daemon could be asked.
    fn can_be_asked(&self) -> bool {
        true
    }

    /// Sends a packed stream of exactly `size` bytes.
    ///
    /// `pieces` may be of any length, empty ones too; each should own its memory, since a slice keeps alive what it was
    /// cut from. The stream is complete when the channel closes after `size` bytes: a source that has something to check
    /// at its end (did the file change?) sends its verdict before it drops the sender. A channel that closes earlier is
    /// an `Internal` error, as is one that brings more; a source's own `Err` comes back unchanged.
    ///
    /// Where nothing has to be sent the channel is closed unread: its sender finds it so and stops.
    fn publish(
        &self,
        digest: Digest,
        size: u64,
        existing: Existing,
        pieces: Pieces,
    ) -> Call<'_, Published>;

    /// Brings an object, or a range of it, into `sink` in order, and says how many bytes that were.
    ///
    /// A closed channel alone does not mean that all is there: the result does. `limit` bounds what may come; an object
    /// or range that is larger is `Damaged`, said before its bytes are asked for where the server tells the size. A range
    /// that reaches beyond the object is `Damaged` too. A receiver that is dropped ends the call with `Cancelled`.
    fn fetch(
        &self,
        digest: Digest,
        range: Option<Range<u64>>,
        limit: u64,
        sink: mpsc::Sender<Bytes>,
    ) -> Call<'_, u64>;

    /// Opens an object that is a file already, of at most `limit` bytes, and says where it is: who needs all of it reads
    /// it there, and nothing is handed over. `None` where objects are behind a connection.
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch).
    fn open(&self, _digest: Digest, _limit: u64) -> Option<Call<'_, (File, PathBuf)>> {
        None
    }

    /// Whether [`fetch_file`](Self::fetch_file) is there: a name for the file is to be made before it is called.
    #[cfg(feature = "dragonfly")]
    fn delivers_files(&self) -> bool {
        false
    }

    /// Brings an object as a file that holds its packed stream, where that costs less than a stream would, and says how
    /// long it is; `None` where a transport has only streams.
    ///
    /// `path` is absolute, in the handle's staging, in a directory that exists, and nothing has that name. When the call
    /// has succeeded the file has it, with at most `limit` bytes, **perhaps as one more name of a file in somebody's
    /// cache: nobody may write it, or change its mode or owner**. It may belong to another user, and can be read. Its bytes
    /// are unverified. After an error, or when the future is dropped, nothing has that name.
    ///
    /// `told` hears of bytes as they arrive, of each once; together they are at most those of the object.
    #[cfg(feature = "dragonfly")]
    fn fetch_file<'a>(
        &'a self,
        _digest: Digest,
        _limit: u64,
        _path: &'a Path,
        _told: &'a (dyn Fn(u64) + Send + Sync),
    ) -> Option<Call<'a, u64>> {
        None
    }

    /// The place itself, where this transport leads there by a detour that may deliver other bytes: what to ask for an
    /// object that came damaged, since who kept wrong bytes gives them again.
    fn direct(&self) -> Option<Arc<dyn ContentTransport>> {
        None
    }

    /// The same transport for one call, whose warnings go to `to`; `None` where it never has any.
    fn warning(&self, _to: &Arc<Warnings>) -> Option<Arc<dyn ContentTransport>> {
        None
    }

    /// Tries the daemon on the way, where there is one.
    #[cfg(feature = "dragonfly")]
    fn probe(&self) -> Option<Call<'_, DragonflyDiagnosis>> {
        None
    }

    /// Whether the place can be reached, exists and may be read, as far as that can be found out without changing it.
    fn check(&self) -> Call<'_, ()>;

    /// Whether a place that lacks something has lost it: an error where all of it may only be out of sight.
    fn check_sight(&self) -> Call<'_, ()> {
        self.check()
    }
}

/// Opens what a configuration describes. Nothing is sent yet.
///
/// # Errors
/// `InvalidInput` for a configuration that cannot work, and for [`ContentProvider::Registry`], which is not a place of
/// its own; `Unsupported` for a provider that was not compiled in.
pub(crate) fn open(content: &Content) -> Result<Box<dyn ContentTransport>> {
    content.validate()?;
    validate::require_compiled_in(content.provider)?;
    match content.provider {
        ContentProvider::Registry => Err(Error::invalid(
            "content.provider registry keeps content in the registry of the snapshot: there is no storage of its own",
        )),
        ContentProvider::Fs => Ok(Box::new(directory::Directory::open(
            &content.root,
            content.shared_with,
        ))),
        #[cfg(feature = "_opendal")]
        _ => Ok(Box::new(object::ObjectStorage::open(content)?)),
        #[cfg(not(feature = "_opendal"))]
        _ => unreachable!("not compiled in"),
    }
}

/// The same, where a bucket is reached through a daemon. What is no bucket has no use for one.
pub(crate) fn open_with(
    content: &Content,
    daemon: Option<&Arc<Daemon>>,
) -> Result<Box<dyn ContentTransport>> {
    match daemon {
        #[cfg(feature = "dragonfly")]
        Some(daemon) if content.provider.is_bucket() => {
            content.validate()?;
            Ok(Box::new(dragonfly::ThroughDaemon::open(daemon, content)?))
        }
        _ => open(content),
    }
}

/// Refuses a configuration in which a daemon has nothing to stand in front of: no registry, or contents that are in no
/// bucket. A request may name a bucket where the configuration names no contents.
#[cfg(feature = "dragonfly")]
pub(crate) fn require_bucket(
    registry: Option<&crate::Registry>,
    content: Option<&Content>,
) -> Result<()> {
    match (registry, content) {
        (Some(_), Some(content)) if content.provider.is_bucket() => Ok(()),
        (Some(_), None) => Ok(()),
        (_, Some(content)) if !content.provider.is_bucket() => Err(Error::invalid(format!(
            "dragonfly needs content in a bucket: provider {} does not go with it",
            content.provider
        ))
        .with_hint(
            "leave dragonfly out, or set content.provider to s3, oss, gcs, azblob, obs or cos",
        )),
        _ => Err(
            Error::invalid("dragonfly needs a registry and content in a bucket")
                .with_hint("set registry.endpoint and content, or leave dragonfly out"),
        ),
    }
}

/// An object's key: the same in every bucket and directory, as format v1 says.
fn key(digest: Digest) -> String {
    format!("xxh3/{}", digest.hex())
}

fn absent(digest: Digest, place: &str) -> Error {
    Error::new(
        crate::ErrorKind::NotFound,
        format!("there is no {digest} in {place}"),
    )
}

fn other_size(digest: Digest, place: &str, found: u64, size: u64) -> Error {
    Error::new(
        crate::ErrorKind::AlreadyExists,
        format!("{digest} is in {place} with {found} bytes; it should have {size}"),
    )
    .with_hint("the object is damaged, or belongs to another file with the same XXH3-64; publishing with force replaces it")
}

fn beyond_limit(digest: Digest, place: &str, size: u64, limit: u64) -> Error {
    Error::damaged(format!(
        "{digest} in {place} has {size} bytes; at most {limit} were expected"
    ))
}

fn beyond_end(digest: Digest, place: &str, size: u64, range: &Range<u64>) -> Error {
    Error::damaged(format!(
        "{digest} in {place} has {size} bytes; bytes {} to {} were asked for",
        range.start, range.end
    ))
}

/// The range to fetch of an object of `size` bytes, checked against what may come.
fn wanted(
    digest: Digest,
    place: &str,
    size: u64,
    range: Option<&Range<u64>>,
    limit: u64,
) -> Result<Range<u64>> {
    let wanted = range.cloned().unwrap_or(0..size);
    if wanted.end > size || wanted.start > wanted.end {
        return Err(beyond_end(digest, place, size, &wanted));
    }
    if wanted.end - wanted.start > limit {
        return Err(beyond_limit(
            digest,
            place,
            wanted.end - wanted.start,
            limit,
        ));
    }
    Ok(wanted)
}

fn receiver_gone() -> Error {
    Error::new(
        crate::ErrorKind::Cancelled,
        "the receiver of the content is gone",
    )
}

//! Where the bytes of a snapshot are: in object storage, each packed stream under its digest, or in the registry, as
//! layers of the snapshot's own manifest. Here both are "send this blob" and "bring that one"; what comes is hashed
//! before it gets a name, and what goes is hashed while it goes, so neither side ever gets wrong bytes unnoticed.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::runtime::{self, Wanted, wait};
use crate::activity::Activity;
use crate::catalog::Blob;
use crate::format::artifact::Layer;
use crate::format::spf::{DecodeError, Decoder};
use crate::pass::wire::{Received, Receiving, StreamHasher, feed};
use crate::pass::{Hashers, Hashes, Hashing, is_wrong};
use crate::registry::{MetadataRegistry, Piece, Repository, Sink, Source};
use crate::store::{OpenBlob, Store};
use crate::transport::{ContentTransport, Existing, Published};
use crate::words::digest::{Checksum, Digest, Sha256};
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::extent::ExtentMap;
use crate::words::progress::Event;

/// Pieces between the thread that reads or writes the file and the one that talks to the server.
const AHEAD: usize = 4;

/// A blob on its way out.
pub(super) struct Outgoing<'a> {
    store: &'a Store,
    blob: &'a Blob,
    map: &'a ExtentMap,
    opened: OpenBlob,
    /// Bytes of data of which the observer has heard: a stream may have to be begun again.
    told: AtomicU64,
}

impl<'a> Outgoing<'a> {
    /// Opens a blob whose map is known.
    pub(super) fn open(
        store: &'a Store,
        blob: &'a Blob,
        map: &'a ExtentMap,
        activity: &Activity,
    ) -> Result<Self> {
        let opened = store.open_good(blob, activity)?;
        Ok(Self {
            store,
            blob,
            map,
            opened,
            told: AtomicU64::new(0),
        })
    }

    /// Reads the file into a channel. The last piece is held back until the bytes are known to be the blob's: then the
    /// other side never completes anything wrong.
    fn feed<T: Send>(
        &self,
        sink: &mpsc::Sender<T>,
        wrap: impl Fn(Bytes) -> T,
        activity: &Activity,
    ) -> Result<()> {
        let mut held: Option<Bytes> = None;
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let send = |piece: Bytes| {
            if hand_over(sink, wrap(piece), activity) {
                Ok(())
            } else {
                Err(gone())
            }
        };
        let mut emit = |piece: Bytes| held.replace(piece).map_or(Ok(()), send);
        let read = AtomicU64::new(0);
        let progress = |bytes| {
            let read = read.fetch_add(bytes, Ordering::Relaxed) + bytes;
            let told = self.told.fetch_max(read, Ordering::Relaxed);
            activity.advance(read.saturating_sub(told))
        };
        let fed = feed(
            &self.opened.file,
            self.opened.form,
            self.map,
            &progress,
            &mut emit,
        );
        activity.check()?;
        let damaged = |why| self.store.found_damaged(self.blob, &self.opened, why);
        let checksum = match fed {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) if is_wrong(&error) => return Err(damaged(Some(error))?),
            fed => fed.at("read", self.store.content_path(self.blob, self.opened.form))?,
        };
        if checksum != self.blob.checksum {
            return Err(damaged(None)?);
        }
        if let Some(last) = held {
            // A receiver that is gone says why by itself.
            hand_over(sink, wrap(last), activity);
            activity.check()?;
        }
        Ok(())
    }
}

/// Sends a blob to object storage, unless it is there.
pub(super) fn publish(
    transport: &Arc<dyn ContentTransport>,
    outgoing: &Outgoing<'_>,
    existing: Existing,
    activity: &Activity,
) -> Result<Published> {
    let (digest, size) = (outgoing.blob.digest, outgoing.map.stream_size());
    let (sink, pieces) = mpsc::channel(AHEAD);
    let transport = Arc::clone(transport);
    let call = runtime::start()?
        .spawn(async move { transport.publish(digest, size, existing, pieces).await });
    let fed = outgoing.feed(&sink, Ok, activity);
    if let Err(error) = &fed {
        // The transport gives up what it has; the reason is kept here.
        let reason = Error::new(error.kind(), "the stored bytes cannot be sent");
        hand_over(&sink, Err(reason), activity);
    }
    drop(sink);
    let ended = wait(&|| activity.check(), joined(call));
    fed?;
    ended
}

/// Sends a blob to the registry and says what its packed stream is called there.
pub(super) fn push(
    registry: &Arc<dyn MetadataRegistry>,
    repository: &Repository,
    outgoing: &Outgoing<'_>,
    activity: &Activity,
) -> Result<Sha256> {
    let feed = |sink: &Sink| outgoing.feed(sink, |bytes| Ok(Piece::Bytes(bytes)), activity);
    let size = outgoing.map.stream_size();
    push_stream(registry, repository, size, &feed, activity)
}

/// Sends a stream to the registry and says what it is called there. `feed` gives all of it, whenever it is begun.
pub(super) fn push_stream(
    registry: &Arc<dyn MetadataRegistry>,
    repository: &Repository,
    size: u64,
    feed: &dyn Fn(&Sink) -> Result<()>,
    activity: &Activity,
) -> Result<Sha256> {
    let (source, mut begun) = Source::new(size);
    let (registry, repository) = (Arc::clone(registry), repository.clone());
    let call =
        runtime::start()?.spawn(async move { registry.push_stream(&repository, source).await });
    let mut fed = Ok(());
    while fed.is_ok()
        && let Ok(Some(sink)) = wait(&|| activity.check(), async { Ok(begun.recv().await) })
    {
        fed = feed(&sink);
        // Only what was read to its end and is right gets an end.
        let end = match &fed {
            Ok(()) => Ok(Piece::End),
            Err(_) => Err(io::Error::other("the stored bytes cannot be sent")),
        };
        hand_over(&sink, end, activity);
    }
    // There is nobody any more to begin it again.
    drop(begun);
    let ended = wait(&|| activity.check(), joined(call));
    fed?;
    let (sha256, sent) = ended?;
    if sent != size {
        let text = format!("of a stream of {size} bytes {sent} were sent");
        return Err(Error::new(ErrorKind::Internal, text));
    }
    Ok(sha256)
}

/// Where a snapshot's bytes come from.
pub(super) enum Origin<'a> {
    Transport(&'a Arc<dyn ContentTransport>),
    Layers {
        registry: &'a Arc<dyn MetadataRegistry>,
        repository: &'a Repository,
        layers: HashMap<Digest, Layer>,
    },
}

/// A blob on its way in.
pub(super) struct Incoming {
    pub(super) digest: Digest,
    pub(super) checksum: Option<Checksum>,
    /// Logical bytes.
    pub(super) size: u64,
}

/// Empty files to fill: the store's, with the directory it is in, for errors, and perhaps one for somebody who wants the
/// same bytes at once.
pub(super) struct Staging<'a> {
    pub(super) file: &'a File,
    pub(super) dir: &'a Path,
    pub(super) second: Option<File>,
}

impl Incoming {
    /// The longest packed stream that a file of this size can have.
    fn limit(&self) -> u64 {
        let extents = self.size.min(crate::words::extent::MAX_EXTENTS);
        crate::format::spf::HEADER_BYTES as u64
            + self.size
            + extents * crate::format::spf::DESCRIPTOR_BYTES as u64
    }
}

impl Origin<'_> {
    /// What a blob is called in the registry, where it comes from there.
    pub(super) fn sha256(&self, digest: Digest) -> Option<Sha256> {
        match self {
            Self::Transport(_) => None,
            Self::Layers { layers, .. } => layers.get(&digest).map(|layer| layer.sha256),
        }
    }

    /// The place itself, where the way there is through somebody's cache.
    pub(super) fn direct(&self) -> Option<Arc<dyn ContentTransport>> {
        match self {
            Self::Transport(transport) => transport.direct(),
            Self::Layers { .. } => None,
        }
    }

    /// How many bytes a blob will come in, where that is known or cheap to ask.
    pub(super) fn size(&self, incoming: &Incoming, wanted: Wanted<'_>) -> Result<u64> {
        Ok(match self {
            Self::Layers { layers, .. } => layers
                .get(&incoming.digest)
                .map_or(incoming.size, |layer| layer.size),
            Self::Transport(_) if incoming.size < LARGE => incoming.size,
            Self::Transport(transport) => {
                wait(wanted, transport.size(incoming.digest))?.unwrap_or(incoming.size)
            }
        })
    }

    /// A blob's packed stream as a file, unchecked, where it is one there.
    pub(super) fn open(
        &self,
        incoming: &Incoming,
        wanted: Wanted<'_>,
    ) -> Option<Result<(File, PathBuf)>> {
        let Self::Transport(transport) = self else {
            return None;
        };
        let call = transport.open(incoming.digest, incoming.limit())?;
        Some(wait(wanted, call))
    }

    /// Brings a blob into empty files. What it says has been checked: the digest, the checksum where there is one, the
    /// size, and that it is one packed stream and nothing else.
    pub(super) fn fetch(
        &self,
        incoming: &Incoming,
        staging: Staging<'_>,
        wanted: Wanted<'_>,
        told: &dyn Fn(u64),
    ) -> Result<Received> {
        let Staging { file, dir, second } = staging;
        let mut receiving =
            Receiving::new(file, second, incoming.size, incoming.limit()).at("write to", dir)?;
        self.pull(incoming, wanted, &mut |bytes| {
            told(bytes.len() as u64);
            receiving.push(bytes).map_err(|error| match error {
                DecodeError::Spf(error) => self.wrong(incoming, error),
                DecodeError::Sink(error) => Error::io("write to", dir, error),
            })
        })?;
        let received = receiving
            .finish()
            .map_err(|error| self.wrong(incoming, error))?;
        self.check(incoming, &received.hashes)?;
        Ok(received)
    }

    /// Brings a blob into memory: its data, one extent after the other. Checked as by [`fetch`](Self::fetch).
    pub(super) fn fetch_small(
        &self,
        incoming: &Incoming,
        wanted: Wanted<'_>,
        told: &dyn Fn(u64),
    ) -> Result<(Vec<u8>, ExtentMap, Hashes)> {
        let mut decoder = Decoder::new(Some(incoming.size), Some(incoming.limit()));
        let mut hashers = Hashers::new(Hashing::Both);
        let mut data = Vec::new();
        self.pull(incoming, wanted, &mut |bytes| {
            told(bytes.len() as u64);
            hashers.update(bytes);
            let mut keep = |_, part: &[u8]| {
                data.extend_from_slice(part);
                Ok::<_, Infallible>(())
            };
            decoder.push(bytes, &mut keep).map_err(|error| match error {
                DecodeError::Spf(error) => self.wrong(incoming, error),
                DecodeError::Sink(never) => match never {},
            })
        })?;
        let map = decoder
            .finish()
            .map_err(|error| self.wrong(incoming, error))?;
        let hashes = hashers.finish();
        self.check(incoming, &hashes)?;
        Ok((data, map, hashes))
    }

    /// Whether [`deliver`](Self::deliver) is there.
    #[cfg(feature = "dragonfly")]
    pub(super) fn delivers(&self) -> bool {
        matches!(self, Self::Transport(transport) if transport.delivers_files())
    }

    /// Brings a blob as a file with its packed stream, unchecked, and says how long that is; `None` where only streams
    /// come from.
    #[cfg(feature = "dragonfly")]
    pub(super) fn deliver(
        &self,
        incoming: &Incoming,
        path: &Path,
        wanted: Wanted<'_>,
        told: &(dyn Fn(u64) + Send + Sync),
    ) -> Option<Result<u64>> {
        let Self::Transport(transport) = self else {
            return None;
        };
        let call = transport.fetch_file(incoming.digest, incoming.limit(), path, told)?;
        Some(wait(wanted, call))
    }

    /// Reads a blob back and compares it, keeping nothing.
    pub(super) fn compare(&self, incoming: &Incoming, activity: &Activity) -> Result<()> {
        let mut hasher = StreamHasher::new(incoming.size);
        self.pull(incoming, &|| activity.check(), &mut |bytes| {
            activity.tell(|| Event::Progressed {
                bytes: bytes.len() as u64,
            });
            hasher.update(bytes);
            Ok(())
        })?;
        self.check(incoming, &hasher.finish())
    }

    pub(super) fn check(&self, incoming: &Incoming, hashes: &Hashes) -> Result<()> {
        let same = hashes.digest == incoming.digest
            && incoming
                .checksum
                .is_none_or(|checksum| checksum == hashes.checksum);
        if same {
            return Ok(());
        }
        Err(Error::damaged(format!(
            "{} in {} has other bytes: they are {} ({})",
            incoming.digest,
            self.place(),
            hashes.digest,
            hashes.checksum
        )))
    }

    pub(super) fn wrong(
        &self,
        incoming: &Incoming,
        error: impl std::error::Error + Send + Sync + 'static,
    ) -> Error {
        Error::damaged(format!(
            "{} in {} is damaged",
            incoming.digest,
            self.place()
        ))
        .with_source(error)
    }

    fn place(&self) -> String {
        match self {
            Self::Transport(transport) => transport.place(),
            Self::Layers { repository, .. } => format!("the registry's {repository}"),
        }
    }

    /// Runs a download there and takes its pieces here.
    fn pull(
        &self,
        incoming: &Incoming,
        wanted: Wanted<'_>,
        take: &mut dyn FnMut(&Bytes) -> Result<()>,
    ) -> Result<()> {
        receive(|sink| self.start(incoming, sink), wanted, take)
    }

    fn start(
        &self,
        incoming: &Incoming,
        sink: mpsc::Sender<Bytes>,
    ) -> Result<JoinHandle<Result<()>>> {
        let (digest, limit) = (incoming.digest, incoming.limit());
        let runtime = runtime::start()?;
        match self {
            Self::Transport(transport) => {
                let transport = Arc::clone(transport);
                Ok(runtime.spawn(async move {
                    transport.fetch(digest, None, limit, sink).await.map(drop)
                }))
            }
            Self::Layers {
                registry,
                repository,
                layers,
            } => {
                let layer = *layers.get(&digest).ok_or_else(|| {
                    Error::damaged(format!("the snapshot's manifest has no layer for {digest}"))
                })?;
                if layer.size > limit {
                    return Err(Error::damaged(format!(
                        "the layer of {digest} has {} bytes; at most {limit} were expected",
                        layer.size
                    )));
                }
                let (registry, repository) = (Arc::clone(registry), (*repository).clone());
                Ok(runtime.spawn(async move {
                    registry
                        .pull_stream(&repository, layer.sha256, layer.size, None, sink)
                        .await
                }))
            }
        }
    }
}

/// Starts a download elsewhere and takes its pieces here.
pub(super) fn receive(
    start: impl FnOnce(mpsc::Sender<Bytes>) -> Result<JoinHandle<Result<()>>>,
    wanted: Wanted<'_>,
    take: &mut dyn FnMut(&Bytes) -> Result<()>,
) -> Result<()> {
    let (sink, mut pieces) = mpsc::channel(AHEAD);
    let call = start(sink)?;
    let taken = loop {
        match wait(wanted, async { Ok(pieces.recv().await) }) {
            Ok(Some(bytes)) => {
                if let Err(error) = take(&bytes) {
                    break Err(error);
                }
            }
            Ok(None) => break Ok(()),
            Err(cancelled) => break Err(cancelled),
        }
    };
    // A download that nobody takes any more ends by that.
    drop(pieces);
    match taken {
        Ok(()) => wait(wanted, joined(call)),
        Err(error) => {
            call.abort();
            Err(error)
        }
    }
}

/// Files from this size on are worth asking how long their stream is, in bytes.
const LARGE: u64 = 4 << 20;

/// Gives the other side something, as soon as it takes it, and says whether it did. A caller that gives up meanwhile is
/// not held by a server that takes nothing.
pub(super) fn hand_over<T: Send>(sink: &mpsc::Sender<T>, item: T, activity: &Activity) -> bool {
    let taken = wait(&|| activity.check(), async { Ok(sink.send(item).await) });
    matches!(taken, Ok(Ok(())))
}

/// What a call comes to. Who stops waiting for it stops the call: a task goes on when its handle is dropped.
async fn joined<T>(call: JoinHandle<Result<T>>) -> Result<T> {
    let mut call = Stopped(call);
    match (&mut call.0).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Error::cancelled()),
    }
}

/// Stops its task when it is dropped.
struct Stopped<T>(JoinHandle<T>);

impl<T> Drop for Stopped<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

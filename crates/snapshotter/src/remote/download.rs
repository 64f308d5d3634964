//! One blob from wherever contents are, as bytes: into files, into memory, or compared and dropped. What comes is hashed while
//! it comes, and nothing of it is used before the hash is right.

use std::convert::Infallible;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::runtime::{Wanted, stream, wait};
use crate::activity::Activity;
use crate::catalog::Blob;
use crate::format::spf::{DESCRIPTOR_BYTES, DecodeError, Decoder, HEADER_BYTES};
use crate::pass::wire::{Received, Receiving, StreamHasher};
use crate::pass::{Hashers, Hashes, Hashing};
use crate::rate::Rate;
use crate::transport::{ContentTransport, Presence};
use crate::words::digest::{Checksum, Digest};
use crate::words::error::{At, Error, Result};
use crate::words::extent::{ExtentMap, MAX_EXTENTS};
use crate::words::object::Object;
use crate::words::progress::Event;

/// A content as it is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) digest: Digest,
    /// `None`: the Go library wrote down the digest alone.
    pub(super) checksum: Option<Checksum>,
    /// Logical bytes.
    pub(super) size: u64,
}

impl Asked {
    pub(super) fn of(blob: &Blob) -> Self {
        Self {
            digest: blob.digest,
            checksum: Some(blob.checksum),
            size: blob.size,
        }
    }

    /// The packed stream: the longest one that a file of this size can have.
    pub(super) fn object(&self) -> Object {
        let extents = self.size.min(MAX_EXTENTS);
        let longest = HEADER_BYTES as u64 + self.size + extents * DESCRIPTOR_BYTES as u64;
        Object::stream(self.digest, self.checksum, longest)
    }
}

/// One content, the way that it comes, and whether it is still wanted.
pub(super) struct Download<'a> {
    pub(super) transport: &'a Arc<dyn ContentTransport>,
    pub(super) rate: &'a Rate,
    pub(super) asked: Asked,
    /// How many bytes will come, where the manifest says it.
    pub(super) len: Option<u64>,
    pub(super) wanted: Wanted<'a>,
}

impl Download<'_> {
    /// About how many bytes will come: the place is asked where that is worth it.
    pub(super) fn len(&self) -> Result<u64> {
        if self.len.is_some() || self.asked.size < LARGE {
            return Ok(self.len.unwrap_or(self.asked.size));
        }
        let found = wait(self.wanted, self.transport.size(self.asked.object()))?;
        Ok(match found {
            Presence::Size(size) => size,
            Presence::Absent | Presence::Unknown => self.asked.size,
        })
    }

    /// The packed stream as the file that it is there, unchecked; `None` where it is none.
    pub(super) fn open(&self) -> Option<Result<(File, PathBuf)>> {
        let files = self.transport.local_files()?;
        Some(wait(self.wanted, files.open(self.asked.object())))
    }

    /// The packed stream as a file that somebody makes at `path`, unchecked, and how long it is.
    #[cfg(feature = "dragonfly")]
    pub(super) fn deliver(
        &self,
        deliveries: &dyn crate::transport::FileDelivery,
        path: &Path,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<u64> {
        let delivered = deliveries.fetch_file(self.asked.object(), path, progress);
        wait(self.wanted, delivered)
    }

    /// Fills an empty file in the directory `dir`, and perhaps a second one for somebody who wants the same bytes at once. What
    /// this says has been checked: the digest, the checksum where there is one, the size, and that
    /// it is one packed stream and nothing else.
    pub(super) fn write_to(
        &self,
        file: &File,
        dir: &Path,
        second: Option<File>,
        progress: &dyn Fn(u64),
    ) -> Result<Received> {
        let (size, most) = (self.asked.size, self.asked.object().most);
        let mut receiving = Receiving::new(file, second, size, most).at("write to", dir)?;
        self.pieces(&mut |bytes| {
            progress(bytes.len() as u64);
            receiving.push(bytes).map_err(|error| match error {
                DecodeError::Spf(error) => self.wrong(error),
                DecodeError::Sink(error) => Error::io("write to", dir, error),
            })
        })?;
        let received = receiving.finish().map_err(|error| self.wrong(error))?;
        self.check(&received.hashes)?;
        Ok(received)
    }

    /// Its data in memory, one extent after the other. Checked as by [`write_to`](Self::write_to).
    pub(super) fn read(&self, progress: &dyn Fn(u64)) -> Result<(Vec<u8>, ExtentMap, Hashes)> {
        let most = self.asked.object().most;
        let mut decoder = Decoder::new(Some(self.asked.size), Some(most));
        let mut hashers = Hashers::new(Hashing::Both);
        let mut data = Vec::new();
        self.pieces(&mut |bytes| {
            progress(bytes.len() as u64);
            hashers.update(bytes);
            let mut keep = |_, part: &[u8]| {
                data.extend_from_slice(part);
                Ok::<_, Infallible>(())
            };
            decoder.push(bytes, &mut keep).map_err(|error| match error {
                DecodeError::Spf(error) => self.wrong(error),
                DecodeError::Sink(never) => match never {},
            })
        })?;
        let map = decoder.finish().map_err(|error| self.wrong(error))?;
        let hashes = hashers.finish();
        self.check(&hashes)?;
        Ok((data, map, hashes))
    }

    /// Reads it and compares it, keeping nothing.
    pub(super) fn compare(&self, activity: &Activity) -> Result<()> {
        let mut hasher = StreamHasher::new(self.asked.size);
        self.pieces(&mut |bytes| {
            activity.tell(|| Event::Progressed {
                bytes: bytes.len() as u64,
            });
            hasher.update(bytes);
            Ok(())
        })?;
        self.check(&hasher.finish())
    }

    /// Hands on what comes, the last piece only when all are right. What is handed on is memory of its own: a download waits
    /// for that which it has given out, and whoever is given it may hold it for long.
    pub(super) fn relay(
        &self,
        activity: &Activity,
        give: &mut dyn FnMut(Bytes) -> Result<()>,
    ) -> Result<()> {
        let mut hasher = StreamHasher::new(self.asked.size);
        let mut last: Option<Bytes> = None;
        self.pieces(&mut |bytes| {
            activity.tell(|| Event::Progressed {
                bytes: bytes.len() as u64,
            });
            hasher.update(bytes);
            let piece = Bytes::copy_from_slice(bytes);
            last.replace(piece).map_or(Ok(()), &mut *give)
        })?;
        self.check(&hasher.finish())?;
        last.map_or(Ok(()), give)
    }

    pub(super) fn check(&self, hashes: &Hashes) -> Result<()> {
        let Asked {
            digest, checksum, ..
        } = self.asked;
        if hashes.digest == digest && checksum.is_none_or(|checksum| checksum == hashes.checksum) {
            return Ok(());
        }
        Err(Error::damaged(format!(
            "{digest} in {} has other bytes: they are {} ({})",
            self.transport.place(),
            hashes.digest,
            hashes.checksum
        )))
    }

    pub(super) fn wrong(&self, error: impl std::error::Error + Send + Sync + 'static) -> Error {
        let place = self.transport.place();
        Error::damaged(format!("{} in {place} is damaged", self.asked.digest)).with_source(error)
    }

    fn pieces(&self, take: &mut dyn FnMut(&Bytes) -> Result<()>) -> Result<()> {
        let of = (self.asked.object(), None);
        stream(self.transport, of, self.rate, self.wanted, take)
    }
}

/// Files from this size on are worth asking how long their stream is, in bytes.
const LARGE: u64 = 4 << 20;

//! Records in a bucket, and the removal of what is in it.

use std::future::poll_fn;
use std::pin::Pin;

use futures_core::Stream;
use opendal::{Buffer, ErrorKind as TheirKind, Metadata};
use tokio::sync::mpsc;

use super::ObjectStorage;
use crate::transport::records::{Listed, Records, check_length, nanoseconds};
use crate::transport::{Call, receiver_gone};
use crate::words::error::{Error, ErrorKind, Result};

/// What one answer may have of a record, in bytes.
const PIECE: u64 = 8 << 20;

impl ObjectStorage {
    async fn list_below(&self, prefix: &str, sink: mpsc::Sender<Listed>) -> Result<()> {
        let failed = |error| self.explain.error("list", None, &error);
        let lister = self.operator.lister_with(prefix).recursive(true);
        let mut lister = lister.await.map_err(failed)?;
        while let Some(entry) = poll_fn(|cx| Pin::new(&mut lister).poll_next(cx)).await {
            let (key, metadata) = entry.map_err(failed)?.into_parts();
            if key.ends_with('/') {
                continue;
            }
            let listed = match modified(&metadata) {
                Some(modified) => self.listed(key, &metadata, modified),
                None => match self.look_at(key).await? {
                    Some(listed) => listed,
                    None => continue,
                },
            };
            sink.send(listed).await.map_err(|_| receiver_gone())?;
        }
        Ok(())
    }

    fn listed(&self, key: String, metadata: &Metadata, modified: i64) -> Listed {
        let size = metadata.content_length();
        Listed {
            key,
            size,
            modified,
        }
    }

    async fn look_at(&self, key: String) -> Result<Option<Listed>> {
        let metadata = match self.operator.stat(&key).await {
            Err(error) if error.kind() == TheirKind::NotFound => return Ok(None),
            found => found.map_err(|error| self.explain.error("look into", None, &error))?,
        };
        let modified = modified(&metadata).ok_or_else(|| {
            let text = format!("{} does not say when {key} was written", self.place);
            Error::new(ErrorKind::Unsupported, text)
        })?;
        Ok(Some(self.listed(key, &metadata, modified)))
    }

    /// In ranges: an answer without one has to be short.
    async fn read_all(&self, key: String, most: u64) -> Result<Option<Vec<u8>>> {
        let Some(found) = self.look_at(key.clone()).await? else {
            return Ok(None);
        };
        check_length(&key, &self.place, found.size, most)?;
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < found.size {
            let at = bytes.len() as u64;
            let end = found.size.min(at + PIECE);
            let piece = match self.operator.read_with(&key).range(at..end).await {
                // Removed meanwhile, or replaced by a shorter one.
                Err(error)
                    if matches!(
                        error.kind(),
                        TheirKind::NotFound | TheirKind::RangeNotSatisfied
                    ) =>
                {
                    return Ok(None);
                }
                read => read.map_err(|error| self.explain.error("read from", None, &error))?,
            };
            if piece.is_empty() {
                return Ok(None);
            }
            bytes.extend_from_slice(&piece.to_vec());
        }
        Ok(Some(bytes))
    }
}

fn modified(metadata: &Metadata) -> Option<i64> {
    let at = metadata.last_modified()?.into_inner();
    Some(nanoseconds(at.as_second(), at.subsec_nanosecond().into()))
}

impl Records for ObjectStorage {
    fn list(&self, prefix: String, sink: mpsc::Sender<Listed>) -> Call<'_, ()> {
        Box::pin(async move { self.list_below(&prefix, sink).await })
    }

    fn look(&self, key: String) -> Call<'_, Option<Listed>> {
        Box::pin(self.look_at(key))
    }

    fn read(&self, key: String, most: u64) -> Call<'_, Option<Vec<u8>>> {
        Box::pin(self.read_all(key, most))
    }

    fn write(&self, key: String, bytes: Vec<u8>) -> Call<'_, ()> {
        Box::pin(async move {
            let written = self.operator.write(&key, Buffer::from(bytes)).await;
            written.map_err(|error| self.explain.error("write a record to", None, &error))?;
            Ok(())
        })
    }

    fn remove(&self, key: String) -> Call<'_, ()> {
        Box::pin(async move {
            let removed = self.operator.delete(&key).await;
            removed.map_err(|error| self.explain.error("remove an object from", None, &error))
        })
    }
}

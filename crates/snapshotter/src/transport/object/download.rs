//! Fetching: the first part tells the object's size, the others follow at the same time and are handed on in order.
//!
//! A part that breaks off is continued from where it broke, as often as a request is retried; what came of it stays. Two
//! tasks share the work: one takes memory for the next part and starts it, the other waits for the oldest and hands its
//! bytes on. `budget.rs` says why they cannot wait for each other for ever.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_core::Stream;
use opendal::{Error as TheirError, ErrorKind as TheirKind, Operator, Reader};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::error::is_short;
use super::{CONCURRENCY, ObjectStorage};
use crate::transport::budget::{Budget, Share, held_by};
use crate::transport::parts::{PART, ranges};
use crate::transport::{Ranges, Sink, absent, receiver_gone, total_of, wanted};
use crate::words::error::Result;
use crate::words::object::Object;

impl ObjectStorage {
    pub(super) async fn receive(&self, object: Object, ranges: Ranges, sink: Sink) -> Result<u64> {
        let explain = |error: &TheirError| self.explain.error("fetch", Some(object), error);
        // An answer to any byte tells the size; without a byte to ask for there is no answer.
        let begin = match &ranges {
            Some(ranges) => match ranges.iter().find(|range| range.start < range.end) {
                Some(range) => range.clone(),
                None => return self.find(object, ranges.clone()).await,
            },
            None => 0..object.most.max(1),
        };
        let parts = Parts {
            operator: self.operator.clone(),
            key: object.key(),
            retries: self.retries,
        };
        let len = PART.min(begin.end - begin.start);
        let mut share = self.budget.take(len).await;
        let first = parts
            .first(begin.start, len)
            .await
            .map_err(|error| explain(&error))?;
        let mut left = wanted(object, &self.place, first.size, ranges)?;
        let total = total_of(&left);
        share.shrink(first.len());
        left.retain(|range| range.start < range.end);
        if let Some(range) = left.first_mut() {
            range.start += first.len();
        }
        let mut started = Started::spawn(parts, left, self.budget.clone());
        hand_on(first.pieces, share, &sink).await?;
        while let Some((pieces, share)) = started.next().await {
            hand_on(pieces.map_err(|error| explain(&error))?, share, &sink).await?;
        }
        Ok(total)
    }

    /// Checks ranges without a byte.
    async fn find(&self, object: Object, ranges: Vec<Range<u64>>) -> Result<u64> {
        let size = self.stat(object).await?;
        let size = size.ok_or_else(|| absent(object, &self.place))?;
        wanted(object, &self.place, size, Some(ranges)).map(|_| 0)
    }
}

async fn hand_on(pieces: Vec<Bytes>, share: Share, sink: &Sink) -> Result<()> {
    let share = Arc::new(share);
    for bytes in pieces {
        let bytes = held_by(bytes, Arc::clone(&share));
        sink.send(bytes).await.map_err(|_| receiver_gone())?;
    }
    Ok(())
}

/// The parts of one object.
#[derive(Clone)]
struct Parts {
    operator: Operator,
    key: String,
    retries: u32,
}

/// The start of an object, which tells how large all of it is.
struct First {
    size: u64,
    pieces: Vec<Bytes>,
}

impl First {
    fn len(&self) -> u64 {
        self.pieces.iter().map(|bytes| bytes.len() as u64).sum()
    }
}

impl Parts {
    /// Up to `len` bytes from `start` on, less where the object ends.
    async fn first(&self, start: u64, len: u64) -> Result<First, TheirError> {
        let mut attempt = 0;
        loop {
            let reader = self.operator.reader(&self.key).await?;
            let mut pieces = Vec::new();
            let received =
                receive_first(&reader, start..start.saturating_add(len), &mut pieces).await;
            match received {
                Ok(size) => return Ok(First { size, pieces }),
                Err(error) if is_short(&error) && !pieces.is_empty() => {
                    // The others are asked for the rest, and find out whether there is any.
                    if let Some(metadata) = reader.metadata() {
                        let size = metadata.content_length();
                        return Ok(First { size, pieces });
                    }
                    return Err(error);
                }
                Err(error) if error.kind() == TheirKind::RangeNotSatisfied => {
                    // Nothing is there from `start` on: perhaps it is empty, perhaps shorter than somebody thinks.
                    let size = self.operator.stat(&self.key).await?.content_length();
                    return Ok(First {
                        size,
                        pieces: Vec::new(),
                    });
                }
                Err(error) if self.give_up(&reader, &error, &mut attempt) => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// All bytes of a range.
    async fn whole(&self, range: Range<u64>) -> Result<Vec<Bytes>, TheirError> {
        let mut pieces = Vec::new();
        let mut attempt = 0;
        let mut at = range.start;
        loop {
            let reader = self.operator.reader(&self.key).await?;
            let received = receive(&reader, at..range.end, &mut pieces).await;
            at = range.start + pieces.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
            match received {
                Ok(()) => return Ok(pieces),
                Err(error) if self.give_up(&reader, &error, &mut attempt) => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// Requests were retried below. What is left here are answers that broke off, or ended too early: those that told of
    /// their object.
    fn give_up(&self, reader: &Reader, error: &TheirError, attempt: &mut u32) -> bool {
        *attempt += 1;
        let may_go_on = error.is_temporary() || is_short(error);
        let broke_off = reader.metadata().is_some() && may_go_on;
        !broke_off || *attempt > self.retries
    }
}

/// Receives exactly `range`.
async fn receive(
    reader: &Reader,
    range: Range<u64>,
    pieces: &mut Vec<Bytes>,
) -> Result<(), TheirError> {
    if range.start == range.end {
        return Ok(());
    }
    let mut stream = Box::pin(reader.clone().into_stream(range).await?);
    while let Some(buffer) = next(stream.as_mut()).await {
        pieces.extend(buffer?);
    }
    Ok(())
}

/// Receives `range`, or less of it where the object ends before; the answer's head tells the object's size.
async fn receive_first(
    reader: &Reader,
    range: Range<u64>,
    pieces: &mut Vec<Bytes>,
) -> Result<u64, TheirError> {
    let mut stream = Box::pin(reader.clone().into_stream(range.clone()).await?);
    let mut got = 0;
    loop {
        let buffer = next(stream.as_mut()).await.transpose()?;
        let size = reader.metadata().map(|metadata| metadata.content_length());
        let size = size.ok_or_else(|| {
            TheirError::new(
                TheirKind::Unexpected,
                "the server does not tell the object's size",
            )
        })?;
        got += buffer.as_ref().map_or(0, |buffer| buffer.len() as u64);
        let is_end = buffer.is_none();
        pieces.extend(buffer.into_iter().flatten());
        if is_end || range.start + got >= range.end.min(size) {
            return Ok(size);
        }
    }
}

async fn next<S: Stream>(mut stream: Pin<&mut S>) -> Option<S::Item> {
    std::future::poll_fn(|cx| stream.as_mut().poll_next(cx)).await
}

type Part = (Result<Vec<Bytes>, TheirError>, Share);

/// Parts under way, oldest first. Dropping it stops them.
struct Started {
    parts: mpsc::Receiver<Running>,
    starter: JoinHandle<()>,
}

struct Running(JoinHandle<Part>);

impl Started {
    fn spawn(parts: Parts, left: Vec<Range<u64>>, budget: Budget) -> Self {
        // One more is in the starter's hand.
        let (sender, receiver) = mpsc::channel(CONCURRENCY - 1);
        let starter = tokio::spawn(async move {
            for range in left.into_iter().flat_map(|range| ranges(range, PART)) {
                let share = budget.take(range.end - range.start).await;
                let parts = parts.clone();
                let part = tokio::spawn(async move { (parts.whole(range).await, share) });
                if sender.send(Running(part)).await.is_err() {
                    return;
                }
            }
        });
        Self {
            parts: receiver,
            starter,
        }
    }

    async fn next(&mut self) -> Option<Part> {
        let mut running = self.parts.recv().await?;
        match (&mut running.0).await {
            Ok(part) => Some(part),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.starter.abort();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

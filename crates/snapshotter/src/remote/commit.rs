//! Staged blobs get their names: small ones many in a transaction, each for this call's snapshot and for those of the calls
//! that follow its flight, which then lands.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use super::fetch::{BATCH, Fetching};
use super::flight::Lead;
use super::stage::StagedBlob;
use crate::catalog::Sync;
use crate::lock::lock;
use crate::pass::Hashes;
use crate::store::{Ingest, Ingested, Payload};
use crate::words::digest::{Checksum, Sha256};
use crate::words::error::{Error, Result};
use crate::words::extent::ExtentMap;

/// A blob that is staged, and whoever waits for it.
pub(super) struct Uncommitted<'a> {
    pub(super) staged: StagedBlob<'a>,
    pub(super) sha256: Option<Sha256>,
    pub(super) lead: Lead<'a>,
}

impl<'a> Fetching<'a> {
    /// Keeps a small blob until there are enough of them.
    pub(super) fn add(&self, one: Uncommitted<'a>) -> Result<()> {
        let batch = {
            let mut waiting = lock(&self.uncommitted);
            waiting.push(one);
            if waiting.len() < BATCH {
                return Ok(());
            }
            std::mem::take(&mut *waiting)
        };
        self.commit(batch)
    }

    pub(super) fn commit_waiting(&self) -> Result<()> {
        let batch = std::mem::take(&mut *lock(&self.uncommitted));
        self.commit(batch)
    }

    /// Commits blobs, gives them to those who follow, and lands their flights.
    pub(super) fn commit(&self, batch: Vec<Uncommitted<'a>>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut given: HashMap<i64, Vec<Ingest<'static>>> = HashMap::new();
        for one in &batch {
            let Ingest { map, hashes, .. } = &one.staged.ingest;
            for follower in one.lead.followers() {
                let item = in_store(map.size(), *hashes)?;
                given.entry(follower).or_default().push(item);
            }
        }
        let (staged, flights): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|one| ((one.staged, one.sha256), one.lead))
            .unzip();
        self.commit_staged(staged)?;
        for (follower, mut items) in given {
            // One that has given up has no snapshot any more, and any other looks for itself.
            if let Err(error) = self.context.store.commit(follower, &mut items) {
                tracing::debug!(%error, "a follower was not given what came");
            }
        }
        drop(flights);
        Ok(())
    }

    fn commit_staged(&self, batch: Vec<(StagedBlob<'a>, Option<Sha256>)>) -> Result<()> {
        let store = self.context.store;
        let (mut ingests, rest): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|(staged, sha256)| (staged.ingest, (staged.second, sha256)))
            .unzip();
        let outcomes = store.commit(self.snapshot, &mut ingests)?;
        let mut layers = Vec::new();
        for ((outcome, ingest), (second, sha256)) in outcomes.iter().zip(&ingests).zip(rest) {
            if let (Ingested::Stored | Ingested::Reused, Some(sha256)) = (outcome, sha256) {
                layers.push((ingest.hashes.checksum, sha256));
            }
            if let (Some(recipient), Some(second)) = (self.recipient, second) {
                recipient.receive(ingest.hashes.checksum, second);
            }
            self.fetched_blobs.fetch_add(1, Ordering::Relaxed);
            self.fetched_bytes
                .fetch_add(ingest.map.stream_size(), Ordering::Relaxed);
        }
        if layers.is_empty() {
            return Ok(());
        }
        // What came as a layer need not be sent to that registry again.
        store.catalog.write(Sync::Normal, |txn| {
            let set = |(blob, sha256): &(Checksum, Sha256)| txn.set_sha256(blob, *sha256);
            layers.iter().try_for_each(set)
        })
    }
}

/// Bytes that are in the store already.
pub(super) fn in_store(size: u64, hashes: Hashes) -> Result<Ingest<'static>> {
    let map = ExtentMap::hole(size)
        .map_err(|error| Error::damaged("a blob's row has no valid size").with_source(error))?;
    Ok(Ingest {
        payload: Payload::Known,
        hashes,
        map,
        mtime: None,
        probe: None,
    })
}

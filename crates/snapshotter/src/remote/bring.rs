//! One blob from where it is into the store: as a stream, decoded while it comes, or as a file that somebody delivers,
//! which is kept packed where nobody needs it plain. Either way the bytes are read once here, hashed in that pass, and
//! written once for each file that is made of them; wrong ones never get a name.

use std::fs::File;
use std::io;
use std::sync::atomic::Ordering;

use super::content::{Origin, Staging};
use super::fetch::{Fetching, Need};
use super::runtime::Wanted;
use crate::catalog::Sync;
use crate::fs::{Stat, attributes, is_privileged};
use crate::store::stream::{Hashes, Hashing, Output, is_wrong};
use crate::store::{Ingest, Ingested, Offer, Payload, Slot, pass_packed};
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::extent::ExtentMap;
use crate::words::progress::Event;

/// A blob that has come, and is right.
struct Brought<'s> {
    ingest: Ingest<'s>,
    /// A file with its bytes for the recipient.
    second: Option<File>,
}

impl Fetching<'_> {
    /// Brings a blob and commits it.
    pub(super) fn bring(
        &self,
        origin: &Origin<'_>,
        need: &Need<'_>,
        wanted: Wanted<'_>,
    ) -> Result<()> {
        #[cfg(feature = "dragonfly")]
        if let Some(brought) = self.delivered(origin, need, wanted)? {
            return self.commit(origin, need, brought);
        }
        if let Some(brought) = self.opened(origin, need, wanted)? {
            return self.commit(origin, need, brought);
        }
        let brought = self.streamed(origin, need, wanted)?;
        self.commit(origin, need, brought)
    }

    /// Reads an object that is a file here already; `None` where none is.
    fn opened(
        &self,
        origin: &Origin<'_>,
        need: &Need<'_>,
        wanted: Wanted<'_>,
    ) -> Result<Option<Brought<'_>>> {
        let incoming = need.incoming();
        let Some(opened) = origin.open(&incoming, wanted) else {
            return Ok(None);
        };
        let (object, path) = opened?;
        let len = Stat::of_file(&object).at("examine", &path)?.size;
        let staging = self.context.store.root.staging.path();
        let progress = |bytes| {
            self.context.activity.tell(|| Event::Progressed { bytes });
            wanted().map_err(|_| io::ErrorKind::Interrupted.into())
        };
        let second = self.second(need, len, false);
        let brought = self.decoded(need, len, second, |output| {
            let read = pass_packed(&object, incoming.size, output, Hashing::Both, &progress);
            wanted()?;
            let found = read.map_err(|error| match error {
                error if is_wrong(&error) => origin.wrong(&incoming, error),
                error if ErrorKind::of_io(&error) == ErrorKind::NoSpace => {
                    Error::io("write to", staging, error)
                }
                error => Error::io("read", &path, error),
            })?;
            origin.check(&incoming, &found.1)?;
            Ok(found)
        })?;
        Ok(Some(brought))
    }

    /// A file of the store, and perhaps a second one, that `read` decodes a stream of `len` bytes into.
    fn decoded(
        &self,
        need: &Need<'_>,
        len: u64,
        second: Option<File>,
        read: impl FnOnce(Output<'_>) -> Result<(ExtentMap, Hashes)>,
    ) -> Result<Brought<'_>> {
        let store = self.context.store;
        let _space = store.claim_space(len)?;
        let (slot, file) = store.create_slot()?;
        let offer = second.map(Offer::new);
        let (map, hashes) = read(Output::fetched(Some(&file), offer.as_ref()))?;
        Ok(Brought {
            ingest: self.plain(need, slot, &file, hashes, map)?,
            second: offer.and_then(Offer::taken),
        })
    }

    fn streamed(
        &self,
        origin: &Origin<'_>,
        need: &Need<'_>,
        wanted: Wanted<'_>,
    ) -> Result<Brought<'_>> {
        let store = self.context.store;
        let incoming = need.incoming();
        let bytes = origin.size(&incoming, wanted)?;
        let _space = store.claim_space(bytes)?;
        let (slot, file) = store.create_slot()?;
        let told = |bytes| self.context.activity.tell(|| Event::Progressed { bytes });
        let staging = Staging {
            file: &file,
            dir: store.root.staging.path(),
            second: self.second(need, bytes, false),
        };
        let received = origin.fetch(&incoming, staging, wanted, &told)?;
        let ingest = self.plain(need, slot, &file, received.hashes, received.map)?;
        let second = received.second;
        Ok(Brought { ingest, second })
    }

    /// A second file for the recipient, for a blob of about so many bytes; `packed` where it is there, and cannot be cloned.
    fn second(&self, need: &Need<'_>, bytes: u64, packed: bool) -> Option<File> {
        self.recipient?.wants(&need.files, bytes, packed)
    }

    /// A file of the store with checked bytes. It gets the attributes of the first read-only file with them: it is that
    /// file's view then.
    fn plain<'s>(
        &self,
        need: &Need<'_>,
        slot: Slot<'s>,
        file: &File,
        hashes: Hashes,
        map: ExtentMap,
    ) -> Result<Ingest<'s>> {
        if let Some(attributes) = need.attributes() {
            for unset in attributes::set(file, attributes, is_privileged()) {
                // Not a view then: a restore makes one when it needs it.
                tracing::debug!(what = unset.what, error = %unset.error, "an attribute was not set in the store");
            }
        }
        let stat = Stat::of_file(file).at("examine", self.context.store.root.staging.path())?;
        Ok(Ingest {
            payload: Payload::Slot(slot),
            hashes,
            map,
            mtime: Some(stat.mtime),
            probe: None,
        })
    }

    fn commit(&self, origin: &Origin<'_>, need: &Need<'_>, brought: Brought<'_>) -> Result<()> {
        let store = self.context.store;
        let bytes = brought.ingest.map.stream_size();
        let checksum = brought.ingest.hashes.checksum;
        let committed = store.commit(self.snapshot, &mut [brought.ingest])?;
        // What came as a layer need not be sent to that registry again.
        if let ([Ingested::Stored(blob) | Ingested::Reused(blob)], Some(sha256)) =
            (&committed[..], origin.sha256(need.digest))
        {
            store
                .catalog
                .write(Sync::Normal, |txn| txn.set_sha256(*blob, sha256))?;
        }
        if let (Some(recipient), Some(second)) = (self.recipient, brought.second) {
            recipient.receive(checksum, second);
        }
        self.fetched_blobs.fetch_add(1, Ordering::Relaxed);
        self.fetched_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(feature = "dragonfly")]
mod delivery {
    use std::io;

    use super::{Brought, Fetching, Need, Offer, Origin, Wanted};
    use crate::store::stream::Output;
    use crate::store::{Delivered, Delivery};
    use crate::words::error::{ErrorKind, Result};
    use crate::words::progress::Event;

    /// Shorter streams are not worth a file of their own that others may change, in bytes.
    const WORTH_KEEPING: u64 = 256 << 10;

    impl Fetching<'_> {
        /// `None` where only streams come from.
        pub(super) fn delivered(
            &self,
            origin: &Origin<'_>,
            need: &Need<'_>,
            wanted: Wanted<'_>,
        ) -> Result<Option<Brought<'_>>> {
            if !origin.delivers() {
                return Ok(None);
            }
            let delivery = self.context.store.reserve_delivery()?;
            let told = |bytes| self.context.activity.tell(|| Event::Progressed { bytes });
            let incoming = need.incoming();
            let Some(len) = origin.deliver(&incoming, delivery.path(), wanted, &told) else {
                return Ok(None);
            };
            let len = len?;
            let second = self.second(need, len, true);
            // A read-only file is linked to, which nobody does to a file that is somebody else's too.
            let is_linked =
                self.recipient.is_some() && second.is_none() && need.attributes().is_some();
            if is_linked || len <= WORTH_KEEPING {
                let brought = self.decoded(need, len, None, |output| {
                    let delivered = self.read(origin, need, &delivery, output, wanted)?;
                    Ok((delivered.map, delivered.hashes))
                })?;
                return Ok(Some(brought));
            }
            let offer = second.map(Offer::new);
            let output = Output::fetched(None, offer.as_ref());
            let delivered = self.read(origin, need, &delivery, output, wanted)?;
            Ok(Some(Brought {
                ingest: delivery.into_ingest(delivered),
                second: offer.and_then(Offer::taken),
            }))
        }

        /// Reads what was delivered, and checks it.
        fn read(
            &self,
            origin: &Origin<'_>,
            need: &Need<'_>,
            delivery: &Delivery<'_>,
            output: Output<'_>,
            wanted: Wanted<'_>,
        ) -> Result<Delivered> {
            let incoming = need.incoming();
            let progress = |_| wanted().map_err(|_| io::ErrorKind::Interrupted.into());
            let read = delivery.read(incoming.size, output, &progress);
            wanted()?;
            let delivered = read.map_err(|error| match error.kind() {
                ErrorKind::Damaged => origin.wrong(&incoming, error),
                _ => error,
            })?;
            origin.check(&incoming, &delivered.hashes)?;
            Ok(delivered)
        }
    }
}

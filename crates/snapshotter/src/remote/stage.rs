//! One blob into the store's staging: from a stream, decoded while it comes, from a file that is here already, or from one
//! that somebody delivers, which is kept packed where nobody needs it plain. Either way the bytes are read once here, hashed in
//! that pass, and written once for each file that is made of them; wrong ones never get a name.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::download::Download;
use super::resolve::Need;
use crate::activity::Activity;
use crate::fs::hook::step;
use crate::fs::{Stat, is_privileged};
use crate::pass::{Hashes, Hashing, Offer, Output, is_wrong, pass_packed};
use crate::store::{Ingest, Payload, Recipient, Slot, SpaceClaim, Store};
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::extent::ExtentMap;
use crate::words::progress::Event;

/// A blob that is in staging, and is right.
pub(super) struct StagedBlob<'s> {
    pub(super) ingest: Ingest<'s>,
    /// A file with its bytes for the recipient.
    pub(super) second: Option<File>,
}

/// Files up to this size are kept in memory until they are committed, in bytes.
const IN_MEMORY: u64 = 16 << 10;

/// Where blobs are staged.
#[derive(Clone, Copy)]
pub(super) struct Stage<'a> {
    pub(super) store: &'a Store,
    pub(super) recipient: Option<&'a dyn Recipient>,
    pub(super) activity: &'a Activity,
}

impl<'a> Stage<'a> {
    /// Fetches a blob, for the store to commit.
    pub(super) fn fetch(&self, need: &Need<'_>, download: &Download<'_>) -> Result<StagedBlob<'a>> {
        #[cfg(feature = "dragonfly")]
        if let Some(deliveries) = download.transport.deliveries() {
            return self.delivered(need, download, deliveries);
        }
        match download.open() {
            Some(opened) => self.read_file(need, download, opened?),
            None => self.read_stream(need, download),
        }
    }

    /// Reads an object that is a file here already.
    fn read_file(
        &self,
        need: &Need<'_>,
        download: &Download<'_>,
        (object, path): (File, PathBuf),
    ) -> Result<StagedBlob<'a>> {
        let len = Stat::of_file(&object).at("examine", &path)?.size;
        let staging = self.store.root.staging.path();
        let progress = |bytes| {
            self.activity.tell(|| Event::Progressed { bytes });
            (download.wanted)().map_err(|_| io::ErrorKind::Interrupted.into())
        };
        self.decoded(need, len, true, |output| {
            let read = pass_packed(&object, need.size(), output, Hashing::Both, &progress);
            (download.wanted)()?;
            let found = read.map_err(|error| match error {
                error if is_wrong(&error) => download.wrong(error),
                error if ErrorKind::of_io(&error) == ErrorKind::NoSpace => {
                    Error::io("write to", staging, error)
                }
                error => Error::io("read", &path, error),
            })?;
            download.check(&found.1)?;
            Ok(found)
        })
    }

    /// What `read` decodes a stream of `len` bytes into: a file of the store, and, where it may be, a second one; or
    /// memory, for a small file without holes.
    fn decoded(
        &self,
        need: &Need<'_>,
        len: u64,
        shared: bool,
        read: impl FnOnce(Output<'_>) -> Result<(ExtentMap, Hashes)>,
    ) -> Result<StagedBlob<'a>> {
        let store = self.store;
        if need.is_kept_in_memory() {
            let memory = RefCell::new(Vec::new());
            let (map, hashes) = read(Output::Memory(&memory))?;
            return self.small(memory.into_inner(), map, hashes);
        }
        let (slot, file) = store.create_slot()?;
        let _space = store.claim_space(len, &file)?;
        let second = shared.then(|| self.second(need, len, false)).flatten();
        let (second, _second_space) = second.unzip();
        let offer = second.map(Offer::new);
        let (map, hashes) = read(Output::fetched(Some(&file), offer.as_ref()))?;
        Ok(StagedBlob {
            ingest: self.plain(need, slot, &file, hashes, map)?,
            second: offer.and_then(Offer::taken),
        })
    }

    fn read_stream(&self, need: &Need<'_>, download: &Download<'_>) -> Result<StagedBlob<'a>> {
        let store = self.store;
        let progress = |bytes| self.activity.tell(|| Event::Progressed { bytes });
        if need.is_kept_in_memory() {
            let (data, map, hashes) = download.read(&progress)?;
            return self.small(data, map, hashes);
        }
        let bytes = download.len()?;
        let (slot, file) = store.create_slot()?;
        let _space = store.claim_space(bytes, &file)?;
        let (second, _second_space) = self.second(need, bytes, false).unzip();
        let dir = store.root.staging.path();
        let received = download.write_to(&file, dir, second, &progress)?;
        let ingest = self.plain(need, slot, &file, received.hashes, received.map)?;
        let second = received.second;
        Ok(StagedBlob { ingest, second })
    }

    /// A small file whose data are in memory, one extent after the other.
    fn small(&self, data: Vec<u8>, map: ExtentMap, hashes: Hashes) -> Result<StagedBlob<'a>> {
        let (payload, mtime) = if map.data_size() == map.size() {
            (Payload::Bytes(data), None)
        } else {
            let (slot, file) = self.store.create_slot()?;
            let path = self.store.root.staging.path();
            write_sparse(&file, &data, &map).at("write to", path)?;
            let stat = Stat::of_file(&file).at("examine", path)?;
            (Payload::Slot(slot), Some(stat.mtime))
        };
        let ingest = Ingest {
            payload,
            hashes,
            map,
            mtime,
            probe: None,
        };
        let second = None;
        Ok(StagedBlob { ingest, second })
    }

    /// A second file for the recipient, for a blob of about so many bytes; `packed` where it is there, and cannot be cloned.
    fn second(&self, need: &Need<'_>, bytes: u64, packed: bool) -> Option<(File, SpaceClaim<'a>)> {
        let store = self.store;
        self.recipient?.wants(store, need.files, bytes, packed)
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
            // As most restores want them.
            Store::set_attributes(file, &attributes.without_setid(), is_privileged());
        }
        let stat = Stat::of_file(file).at("examine", self.store.root.staging.path())?;
        Ok(Ingest {
            payload: Payload::Slot(slot),
            hashes,
            map,
            mtime: Some(stat.mtime),
            probe: None,
        })
    }
}

impl Need<'_> {
    /// A read-only file with the bytes is to be a view: it needs its attributes before it has its name.
    fn is_kept_in_memory(&self) -> bool {
        self.size() <= IN_MEMORY && self.attributes().is_none()
    }
}

fn write_sparse(file: &File, mut data: &[u8], map: &ExtentMap) -> io::Result<()> {
    step("write")?;
    file.set_len(map.size())?;
    for extent in map.extents() {
        // It is all in memory.
        let (part, rest) = data.split_at(extent.len as usize);
        file.write_all_at(part, extent.offset)?;
        data = rest;
    }
    Ok(())
}

#[cfg(feature = "dragonfly")]
mod delivery {
    use std::io;

    use super::{Download, Need, Offer, Stage, StagedBlob};
    use crate::pass::Output;
    use crate::store::{Delivered, Delivery};
    use crate::transport::FileDelivery;
    use crate::words::error::{ErrorKind, Result};
    use crate::words::progress::Event;

    /// Shorter streams are not worth a file of their own that others may change, in bytes.
    const WORTH_KEEPING: u64 = 256 << 10;

    impl<'a> Stage<'a> {
        /// Has somebody make a file, and reads that.
        pub(super) fn delivered(
            &self,
            need: &Need<'_>,
            download: &Download<'_>,
            deliveries: &dyn FileDelivery,
        ) -> Result<StagedBlob<'a>> {
            let delivery = self.store.reserve_delivery()?;
            let progress = |bytes| self.activity.tell(|| Event::Progressed { bytes });
            let len = download.deliver(deliveries, delivery.path(), &progress)?;
            let (second, _space) = self.second(need, len, true).unzip();
            // A read-only file is linked to, which nobody does to a file that is somebody else's too.
            let is_linked =
                self.recipient.is_some() && second.is_none() && need.attributes().is_some();
            if is_linked || len <= WORTH_KEEPING {
                return self.decoded(need, len, false, |output| {
                    let delivered = read(need, download, &delivery, output)?;
                    Ok((delivered.map, delivered.hashes))
                });
            }
            let offer = second.map(Offer::new);
            let output = Output::fetched(None, offer.as_ref());
            let delivered = read(need, download, &delivery, output)?;
            Ok(StagedBlob {
                ingest: delivery.into_ingest(delivered),
                second: offer.and_then(Offer::taken),
            })
        }
    }

    /// Reads what was delivered, and checks it.
    fn read(
        need: &Need<'_>,
        download: &Download<'_>,
        delivery: &Delivery<'_>,
        output: Output<'_>,
    ) -> Result<Delivered> {
        let progress = |_| (download.wanted)().map_err(|_| io::ErrorKind::Interrupted.into());
        let read = delivery.read(need.size(), output, &progress);
        (download.wanted)()?;
        let delivered = read.map_err(|error| match error.kind() {
            ErrorKind::Damaged => download.wrong(error),
            _ => error,
        })?;
        download.check(&delivered.hashes)?;
        Ok(delivered)
    }
}

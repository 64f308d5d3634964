//! One blob from where it is into the store: as a stream, decoded while it comes, or as a file that somebody delivers,
//! which is kept packed where nobody needs it plain. Either way the bytes are read once here, hashed in that pass, and
//! written once for each file that is made of them; wrong ones never get a name.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::content::{Origin, Staging};
use super::fetch::Fetching;
use super::resolve::Need;
use super::runtime::Wanted;
use crate::fs::hook::step;
use crate::fs::{Stat, is_privileged};
use crate::pass::{Hashes, Hashing, Offer, Output, is_wrong, pass_packed};
use crate::store::{Ingest, Payload, Slot, SpaceClaim, Store};
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::extent::ExtentMap;
use crate::words::progress::Event;

/// A blob that has come, and is right.
pub(super) struct Brought<'s> {
    pub(super) ingest: Ingest<'s>,
    /// A file with its bytes for the recipient.
    pub(super) second: Option<File>,
}

/// Files up to this size are kept in memory until they are committed, in bytes.
const IN_MEMORY: u64 = 16 << 10;

impl<'a> Fetching<'a> {
    /// Brings a blob, for the store to commit.
    pub(super) fn bring(
        &self,
        origin: &Origin<'_>,
        need: &Need<'_>,
        wanted: Wanted<'_>,
    ) -> Result<Brought<'a>> {
        #[cfg(feature = "dragonfly")]
        if let Some(brought) = self.delivered(origin, need, wanted)? {
            return Ok(brought);
        }
        if let Some(brought) = self.opened(origin, need, wanted)? {
            return Ok(brought);
        }
        self.streamed(origin, need, wanted)
    }

    /// Reads an object that is a file here already; `None` where none is.
    fn opened(
        &self,
        origin: &Origin<'_>,
        need: &Need<'_>,
        wanted: Wanted<'_>,
    ) -> Result<Option<Brought<'a>>> {
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
        let brought = self.decoded(need, len, true, |output| {
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

    /// What `read` decodes a stream of `len` bytes into: a file of the store, and, where it may be, a second one; or
    /// memory, for a small file without holes.
    fn decoded(
        &self,
        need: &Need<'_>,
        len: u64,
        shared: bool,
        read: impl FnOnce(Output<'_>) -> Result<(ExtentMap, Hashes)>,
    ) -> Result<Brought<'a>> {
        let store = self.context.store;
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
    ) -> Result<Brought<'a>> {
        let store = self.context.store;
        let incoming = need.incoming();
        let told = |bytes| self.context.activity.tell(|| Event::Progressed { bytes });
        if need.is_kept_in_memory() {
            let (data, map, hashes) = origin.fetch_small(&incoming, wanted, &told)?;
            return self.small(data, map, hashes);
        }
        let bytes = origin.size(&incoming, wanted)?;
        let (slot, file) = store.create_slot()?;
        let _space = store.claim_space(bytes, &file)?;
        let (second, _second_space) = self.second(need, bytes, false).unzip();
        let staging = Staging {
            file: &file,
            dir: store.root.staging.path(),
            second,
        };
        let received = origin.fetch(&incoming, staging, wanted, &told)?;
        let ingest = self.plain(need, slot, &file, received.hashes, received.map)?;
        let second = received.second;
        Ok(Brought { ingest, second })
    }

    /// A small file whose data are in memory, one extent after the other.
    fn small(&self, data: Vec<u8>, map: ExtentMap, hashes: Hashes) -> Result<Brought<'a>> {
        let (payload, mtime) = if map.data_size() == map.size() {
            (Payload::Bytes(data), None)
        } else {
            let (slot, file) = self.context.store.create_slot()?;
            let path = self.context.store.root.staging.path();
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
        Ok(Brought { ingest, second })
    }

    /// A second file for the recipient, for a blob of about so many bytes; `packed` where it is there, and cannot be cloned.
    fn second(&self, need: &Need<'_>, bytes: u64, packed: bool) -> Option<(File, SpaceClaim<'a>)> {
        let store = self.context.store;
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
        let stat = Stat::of_file(file).at("examine", self.context.store.root.staging.path())?;
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
        self.incoming().size <= IN_MEMORY && self.attributes().is_none()
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

    use super::{Brought, Fetching, Need, Offer, Origin, Wanted};
    use crate::pass::Output;
    use crate::store::{Delivered, Delivery};
    use crate::words::error::{ErrorKind, Result};
    use crate::words::progress::Event;

    /// Shorter streams are not worth a file of their own that others may change, in bytes.
    const WORTH_KEEPING: u64 = 256 << 10;

    impl<'a> Fetching<'a> {
        /// `None` where only streams come from.
        pub(super) fn delivered(
            &self,
            origin: &Origin<'_>,
            need: &Need<'_>,
            wanted: Wanted<'_>,
        ) -> Result<Option<Brought<'a>>> {
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
            let (second, _space) = self.second(need, len, true).unzip();
            // A read-only file is linked to, which nobody does to a file that is somebody else's too.
            let is_linked =
                self.recipient.is_some() && second.is_none() && need.attributes().is_some();
            if is_linked || len <= WORTH_KEEPING {
                let brought = self.decoded(need, len, false, |output| {
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

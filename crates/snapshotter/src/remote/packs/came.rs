//! One pack as a file in staging, whichever way it comes, and whether it is whole.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::activity::Activity;
use crate::catalog::Snapshot;
use crate::format::pack::{PackError, PackId};
use crate::fs::hook::step;
use crate::limit::Limit;
use crate::rate::Rate;
use crate::registry::Layers;
use crate::remote::Remote;
use crate::remote::runtime::{Wanted, stream, wait};
use crate::store::{StagedPack, Store, whole_pack};
use crate::transport::{ContentTransport, Presence, absent};
use crate::words::digest::Checksum;
use crate::words::error::{At, Error, Result};
use crate::words::object::Object;
use crate::words::progress::{Event, Phase};
use crate::words::total::total;

/// Reads the packs of a snapshot as others would get them, and keeps nothing. Says how many there are.
pub(in crate::remote) fn read_back(
    store: &Store,
    limit: &Limit,
    remote: &Remote,
    (snapshot, layers): (&Snapshot, Layers),
    activity: &Activity,
) -> Result<u64> {
    let packs = store
        .catalog
        .read(|txn| txn.packs_of_snapshot(snapshot.id))?;
    activity.tell(|| Event::Planned {
        phase: Phase::ReadBack,
        files: packs.len() as u64,
        bytes: total(packs.iter().map(|pack| pack.length)),
    });
    let repository = remote.repository(&snapshot.reference)?;
    let contents = remote.contents(&repository, layers)?;
    // What a daemon on this node has in its cache is what it was given: others get what is behind it.
    let transport = contents.direct.as_ref().unwrap_or(&contents.transport);
    limit.for_each(activity, packs.len(), |index| {
        let pack = &packs[index];
        let came = Came {
            store,
            transport,
            object: Object::pack(*pack.key.as_bytes(), pack.length),
            key: pack.key,
            likely: pack.length,
            rate: &remote.rates.download,
            wanted: &|| activity.check(),
            activity,
        };
        came.staged(Some(pack.length)).map(drop)
    })?;
    Ok(packs.len() as u64)
}

/// One pack, and the way that it comes.
pub(super) struct Came<'a, 's> {
    pub(super) store: &'s Store,
    pub(super) transport: &'a Arc<dyn ContentTransport>,
    pub(super) object: Object,
    pub(super) key: Checksum,
    /// About how many bytes will come.
    pub(super) likely: u64,
    pub(super) rate: &'a Rate,
    pub(super) wanted: Wanted<'a>,
    pub(super) activity: &'a Activity,
}

impl<'s> Came<'_, 's> {
    /// Brings it as a stream, or from the file that it is here; it may be known how long it is.
    pub(super) fn staged(&self, length: Option<u64>) -> Result<StagedPack<'s>> {
        let (slot, file) = self.store.create_slot()?;
        let length = length.map_or_else(|| self.length(), Ok)?;
        if length > self.object.most {
            return Err(self.wrong(PackError::Lengths));
        }
        let _space = self.store.claim_space(length, &file)?;
        match self.transport.local_files() {
            Some(files) => {
                let (from, path) = wait(self.wanted, files.open(self.object))?;
                self.copy(&from, &path, &file)?;
            }
            None => self.receive(&file)?,
        }
        let (length, key) = (self.whole(&file)?, self.key);
        Ok(StagedPack { slot, key, length })
    }

    /// Has somebody make it a file.
    #[cfg(feature = "dragonfly")]
    pub(super) fn delivered(
        &self,
        deliveries: &dyn crate::transport::FileDelivery,
    ) -> Result<StagedPack<'s>> {
        let delivery = self.store.reserve_delivery()?;
        let told = |bytes| self.told(bytes);
        let made = deliveries.fetch_file(self.object, delivery.path(), &told);
        wait(self.wanted, made)?;
        let length = self.whole(&delivery.open()?)?;
        Ok(delivery.into_pack(self.key, length))
    }

    /// How long a file is, if it is all of the pack.
    fn whole(&self, file: &File) -> Result<u64> {
        let id = PackId::from_bytes(*self.key.as_bytes());
        // Others may wait for it when this caller has given up.
        let whole = whole_pack(file, id, &|| (self.wanted)())?;
        whole.map_err(|error| match error {
            PackError::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                Error::io("read", self.staging(), error)
            }
            error => self.wrong(error),
        })
    }

    fn staging(&self) -> &Path {
        self.store.root.staging.path()
    }

    fn told(&self, bytes: u64) {
        self.activity.tell(|| Event::Progressed { bytes });
    }

    /// How many bytes will come.
    fn length(&self) -> Result<u64> {
        Ok(match wait(self.wanted, self.transport.size(self.object))? {
            Presence::Size(size) => size,
            Presence::Absent => return Err(absent(self.object, &self.transport.place())),
            Presence::Unknown => self.likely,
        })
    }

    fn receive(&self, file: &File) -> Result<()> {
        let mut at = 0;
        let mut take = |bytes: &Bytes| {
            write(file, bytes, &mut at).at("write to", self.staging())?;
            self.told(bytes.len() as u64);
            Ok(())
        };
        let of = (self.object, None);
        stream(self.transport, of, self.rate, self.wanted, &mut take)
    }

    fn copy(&self, mut from: &File, path: &Path, file: &File) -> Result<()> {
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        loop {
            (self.wanted)()?;
            let read = from.read(&mut buffer).at("read", path)?;
            if read == 0 {
                return Ok(());
            }
            if at + read as u64 > self.object.most {
                return Err(self.wrong(PackError::Lengths));
            }
            write(file, &buffer[..read], &mut at).at("write to", self.staging())?;
            self.told(read as u64);
        }
    }

    fn wrong(&self, error: PackError) -> Error {
        let place = self.transport.place();
        Error::damaged(format!("{} in {place} is damaged", self.object)).with_source(error)
    }
}

fn write(file: &File, bytes: &[u8], at: &mut u64) -> io::Result<()> {
    step("write")?;
    file.write_all_at(bytes, *at)?;
    *at += bytes.len() as u64;
    Ok(())
}

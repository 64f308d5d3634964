//! What is read and compared: blobs and packs, which are found, judged and mended in their own ways and told of in one.

use std::path::PathBuf;

use super::{BadBlob, Check, Found, Verdict};
use crate::activity::Activity;
use crate::catalog::{Blob, BlobState, Pack};
use crate::format::pack::PackId;
use crate::limit::Limit;
use crate::store::{NamesOfBlobs, Store};
use crate::words::digest::Checksum;
use crate::words::error::{ErrorKind, Result};
use crate::words::total::total;

/// An object's row as it was when its turn came.
#[derive(Clone, Debug)]
pub(super) enum Object {
    Blob(Blob),
    Pack(Pack),
}

impl Object {
    pub(super) fn key(&self) -> Checksum {
        match self {
            Self::Blob(blob) => blob.checksum,
            Self::Pack(pack) => pack.key,
        }
    }

    fn state_before(&self) -> BlobState {
        match self {
            Self::Blob(blob) => blob.state,
            Self::Pack(pack) => pack.state,
        }
    }

    /// Bytes that are read.
    fn bytes(&self) -> u64 {
        match self {
            Self::Blob(blob) => blob.data_size,
            Self::Pack(pack) => pack.length,
        }
    }

    /// What it is marked as by now; `None`: it was removed.
    pub(super) fn state(&self, store: &Store) -> Result<Option<BlobState>> {
        store.catalog.read(|txn| match self {
            Self::Blob(blob) => Ok(txn.blob(&blob.checksum)?.map(|now| now.state)),
            Self::Pack(pack) => Ok(txn.pack(&pack.key)?.map(|now| now.state)),
        })
    }

    /// Mends it with what is here.
    pub(super) fn mend(
        &self,
        store: &Store,
        names: &NamesOfBlobs,
        activity: &Activity,
    ) -> Result<bool> {
        match self {
            Self::Blob(blob) => store.mend(blob, names, activity),
            Self::Pack(pack) => store.mend_pack(pack, names, activity),
        }
    }

    /// Moves its wrong bytes aside.
    pub(super) fn quarantine(&self, store: &Store) -> Result<Option<PathBuf>> {
        match self {
            Self::Blob(blob) => store.quarantine(blob),
            Self::Pack(pack) => store.quarantine_pack(pack),
        }
    }
}

impl Check<'_> {
    pub(super) fn objects(&self, limit: &Limit, objects: &[Object]) -> Result<()> {
        limit.for_each(self.activity, objects.len(), |index| {
            self.object(&objects[index])
        })
    }

    fn object(&self, object: &Object) -> Result<()> {
        self.activity.check()?;
        if self.subset.is_some_and(|subset| !subset.has(&object.key())) {
            return Ok(());
        }
        let verdict = match object {
            Object::Blob(blob) => self.judge(blob)?,
            Object::Pack(pack) => self.judge_pack(pack)?,
        };
        if let Object::Blob(blob) = object {
            self.activity.advance(blob.data_size).ok();
        }
        let bad = match verdict {
            Verdict::Damaged | Verdict::Missing => Some(self.describe(object)?),
            Verdict::Right | Verdict::Gone => None,
        };
        let mut found = crate::lock::lock(&self.found);
        match (verdict, bad) {
            (Verdict::Gone, _) => {}
            (verdict, Some(bad)) => {
                let entry = (object.clone(), bad, verdict);
                found.bad.insert(object.key(), entry);
                found.count(object);
            }
            _ => {
                found.mended += u64::from(object.state_before() != BlobState::Good);
                found.count(object);
            }
        }
        Ok(())
    }

    fn judge_pack(&self, pack: &Pack) -> Result<Verdict> {
        let object = Object::Pack(pack.clone());
        match self.store.check_pack(pack, self.records, self.activity) {
            Ok(BlobState::Good) => Ok(Verdict::Right),
            Ok(BlobState::Missing) => self.confirmed(&object, Verdict::Missing),
            Ok(BlobState::Damaged) => self.confirmed(&object, Verdict::Damaged),
            // What is wrong with the catalog is heard there.
            Err(error) if error.kind() == ErrorKind::Damaged => {
                self.confirmed(&object, Verdict::Damaged)
            }
            Err(error) => Err(error),
        }
    }

    fn describe(&self, object: &Object) -> Result<BadBlob> {
        let key = object.key();
        let snapshots = self.store.catalog.read(|txn| txn.snapshots_of_blob(&key))?;
        let (blob, pack) = match object {
            Object::Blob(blob) => (Some(blob), None),
            Object::Pack(pack) => (None, Some(pack)),
        };
        Ok(BadBlob {
            digest: blob.map(|blob| blob.digest),
            checksum: blob.map(|blob| blob.checksum),
            pack: pack.map(|pack| PackId::from_bytes(*pack.key.as_bytes())),
            size: blob.map_or(object.bytes(), |blob| blob.size),
            snapshots,
            quarantined: None,
        })
    }
}

impl Found {
    fn count(&mut self, object: &Object) {
        match object {
            Object::Blob(_) => self.checked_blobs += 1,
            Object::Pack(_) => self.checked_packs += 1,
        }
        self.checked_bytes = total([self.checked_bytes, object.bytes()]);
    }
}

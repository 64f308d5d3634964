//! Space that copies in progress still take, so that one is refused before it is begun rather than when the disk is full.
//!
//! What a copy has written is missing from what the filesystem has free, so a claim counts only what its file has not got
//! yet: the file is asked.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Store;
use crate::fs::{Dir, space};
use crate::words::error::{At, Error, ErrorKind, Result};

/// How often a filesystem is asked whether it has given back what was removed.
const QUESTIONS: u32 = 50;

/// The claims of a handle.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<Vec<Arc<Claim>>>);

#[derive(Debug)]
struct Claim {
    bytes: u64,
    file: File,
}

impl Claim {
    fn left(&self) -> u64 {
        let taken = self.file.metadata().map_or(0, |file| file.blocks() * 512);
        self.bytes.saturating_sub(taken)
    }
}

/// Space set aside for a copy until this is dropped.
#[derive(Debug)]
pub(crate) struct SpaceClaim<'s> {
    claims: &'s Claims,
    own: Arc<Claim>,
}

impl Drop for SpaceClaim<'_> {
    fn drop(&mut self) {
        self.claims
            .lock()
            .retain(|one| !Arc::ptr_eq(one, &self.own));
    }
}

impl Claims {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Claim>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left(&self) -> u64 {
        let running: Vec<_> = self.lock().iter().map(Arc::clone).collect();
        let left = running.iter().map(|claim| claim.left());
        left.fold(0, u64::saturating_add)
    }
}

impl Store {
    /// Checks that the filesystem can take a copy of so many bytes into an empty file, counting the copies already running
    /// in this handle.
    ///
    /// # Errors
    /// `NoSpace`; those of asking.
    pub(crate) fn claim_space(&self, bytes: u64, file: &File) -> Result<SpaceClaim<'_>> {
        let path = self.root.dir.path();
        let file = file.try_clone().at("claim space for a file in", path)?;
        let own = Arc::new(Claim { bytes, file });
        self.claims.lock().push(Arc::clone(&own));
        let claims = &self.claims;
        let claim = SpaceClaim { claims, own };
        self.require_space(&self.root.dir, claims.left())?;
        Ok(claim)
    }

    /// Gives up what is cached, where that is on the same filesystem. Says whether there was something.
    fn make_room(&self, dir: &Dir, bytes: u64) -> Result<bool> {
        if self.is_read_only() || dir.device()? != self.root.device {
            return Ok(false);
        }
        let (dropped, _) = self.drop_cache_entries(bytes, 0, false)?;
        Ok(dropped > 0)
    }

    /// Refuses to start what cannot fit into a directory's filesystem. Only in the store's own does removing snapshots help.
    pub(crate) fn require_space(&self, dir: &Dir, needed: u64) -> Result<()> {
        let path = dir.path();
        let mut available = space::of(dir).at("examine", path)?.available;
        while needed > available && self.make_room(dir, needed - available)? {
            let now = space::settled(dir, QUESTIONS, &|now| needed <= now.available)?;
            available = now.available;
        }
        if needed <= available {
            return Ok(());
        }
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let (needed, available) = (mib(needed), mib(available));
        let text = format!(
            "{needed} MiB are needed and {available} MiB are free on the filesystem of {}",
            path.display()
        );
        let error = Error::new(ErrorKind::NoSpace, text).with_path(path);
        Err(if dir.device()? == self.root.dir.device()? {
            error.with_hint(
                "remove snapshots that are no longer needed, or choose a larger filesystem: `usage` shows what each takes, and why it is kept",
            )
        } else {
            error
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::time::Duration;

    use testkit::mount::{Kind, LoopMount, or_skip};

    use super::*;

    // What a copy had written was counted twice, as its claim and as missing from what is free: the second of two large
    // snapshots was refused on a disk with room for both.
    #[test]
    fn a_claim_counts_what_is_not_written_yet() {
        for kind in [Kind::Ext4, Kind::Xfs, Kind::Btrfs] {
            let Some(mount) = or_skip(LoopMount::new(kind, 320 << 20, &[])) else {
                continue;
            };
            let store =
                Store::open(&mount.path().join("root"), None, Duration::from_secs(5)).unwrap();
            let all = space::of(&store.root.dir).unwrap().available;
            let (_one, first) = store.create_slot().unwrap();
            let claim = store.claim_space(all / 10 * 6, &first).unwrap();
            let (_other, second) = store.create_slot().unwrap();
            let refused = store.claim_space(all / 2, &second).unwrap_err();
            assert_eq!(refused.kind(), crate::ErrorKind::NoSpace);
            let piece = vec![7; 1 << 20];
            for at in (0..all / 10 * 6).step_by(piece.len()) {
                first.write_all_at(&piece, at).unwrap();
            }
            store.claim_space(all / 10 * 2, &second).unwrap();
            drop(claim);
        }
    }
}

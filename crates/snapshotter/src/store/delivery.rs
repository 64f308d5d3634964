//! Packed files that somebody else puts into staging: Dragonfly's daemon, which hardlinks one from its cache.
//!
//! 1. [`Store::reserve_delivery`] gives a path at which nothing is; whoever delivers makes a file there.
//! 2. [`Delivery::read`] reads it once: hashes it, parses it, and may decode it into a file at the same time.
//! 3. Where the caller finds the hashes right, [`Delivery::into_ingest`] makes it a packed blob with the next commit, at
//!    no cost of space. Or what was decoded into a slot of our own is committed, as with any other fetch, and the
//!    delivered name goes with the [`Delivery`].
//!
//! What is not committed is unlinked when it is dropped, and with the owner's staging at the latest. The inode belongs to
//! whoever made it: it is never written, and its mode, owner and times are never set.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::{Ingest, Payload, Slot, StagedPack, Store};
use crate::fs::Stat;
use crate::fs::dir::Kind;
use crate::pass::pass_packed;
use crate::pass::{Hashes, Hashing, Output, Progress, is_wrong};
use crate::words::digest::Checksum;
use crate::words::entry::Mtime;
use crate::words::error::{At, Error, Result};
use crate::words::extent::ExtentMap;

/// A path in staging for a file that somebody else makes.
#[derive(Debug)]
pub(crate) struct Delivery<'s> {
    slot: Slot<'s>,
    path: PathBuf,
}

/// What one reading of a delivered file found. Nothing of it is trusted yet: the caller compares the hashes.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) map: ExtentMap,
    pub(crate) hashes: Hashes,
    /// The inode's modification time, where it can be trusted to betray a later change.
    mtime: Option<Mtime>,
}

impl Store {
    /// Reserves a fresh path for one delivery; each attempt needs its own. Its directory is there, the file is not.
    pub(crate) fn reserve_delivery(&self) -> Result<Delivery<'_>> {
        let slot = self.name_slot()?;
        let path = slot.path();
        let path = std::path::absolute(&path).at("find", path)?;
        Ok(Delivery { slot, path })
    }
}

impl<'s> Delivery<'s> {
    /// What was delivered, where the caller found that it is all of a pack.
    pub(crate) fn into_pack(self, key: Checksum, length: u64) -> StagedPack<'s> {
        let slot = self.slot;
        StagedPack { slot, key, length }
    }

    /// Where the file is to be made; absolute.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the delivered file once, all of it, as the packed stream of a file of `size` logical bytes; `output`
    /// receives the file itself, decoded. At most `size` bytes are written, wherever the stream says they belong, and no
    /// allocation follows a number that the stream claims. `progress` hears of data bytes and can stop it. Blocks.
    ///
    /// # Errors
    /// `Damaged` when no regular file is there, or it is not one packed stream of that size and nothing else; it may have
    /// been decoded in part by then. `Busy` when it changed meanwhile. What `progress` said, as an error of reading.
    pub(crate) fn read(
        &self,
        size: u64,
        output: Output<'_>,
        progress: Progress<'_>,
    ) -> Result<Delivered> {
        let file = self.open()?;
        let before = Stat::of_file(&file).at("examine", &self.path)?;
        if before.kind != Kind::File {
            return Err(self.damaged("is no regular file"));
        }
        let (map, hashes) = match pass_packed(&file, size, output, Hashing::Both, progress) {
            Err(error) if is_wrong(&error) => {
                return Err(self
                    .damaged("is not the content it should be")
                    .with_source(error));
            }
            result => result.at("read", &self.path)?,
        };
        let after = Stat::of_file(&file).at("examine", &self.path)?;
        if !after.same_bytes_since(&before) {
            return Err(Error::new(
                crate::ErrorKind::Busy,
                format!("{} changed while it was read", self.path.display()),
            )
            .with_path(&self.path));
        }
        // A daemon delivers what it has just written, so its time is nearly always the present. Whoever reads a packed file
        // hashes all of it, and only who does not would be told too late of a change within this tick of the clock.
        let mtime = Some(before.mtime);
        Ok(Delivered { map, hashes, mtime })
    }

    /// Opens what was delivered.
    pub(crate) fn open(&self) -> Result<File> {
        match self.slot.open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(self.damaged("was not delivered"))
            }
            // A symlink, a socket.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO)) => {
                Err(self.damaged("is no regular file"))
            }
            result => result.at("open", &self.path),
        }
    }

    fn damaged(&self, what: &str) -> Error {
        Error::damaged(format!("{} {what}", self.path.display())).with_path(&self.path)
    }

    /// Keeps the file as it is: what [`Store::commit`] takes to make it a packed blob. Where the store has the bytes
    /// already, in either form, the commit keeps those and drops this.
    pub(crate) fn into_ingest(self, delivered: Delivered) -> Ingest<'s> {
        Ingest {
            payload: Payload::Packed(self.slot),
            hashes: delivered.hashes,
            map: delivered.map,
            mtime: delivered.mtime,
            probe: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileExt, MetadataExt};
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::catalog::Sync;
    use crate::format::spf;
    use crate::store::{Ingested, now};
    use crate::words::digest::{Checksum, Digest};
    use crate::words::error::ErrorKind;
    use crate::words::extent::Extent;
    use crate::words::form::Form;

    const SIZE: u64 = 10_000;

    /// A store, and a directory that stands for a daemon's cache.
    struct Scene {
        dir: tempfile::TempDir,
        store: Store,
    }

    impl Scene {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store =
                Store::open(&dir.path().join("root"), None, Duration::from_secs(5)).unwrap();
            Self { dir, store }
        }

        /// A file of the daemon's, as old as a cache's files are.
        fn cached(&self, stream: &[u8]) -> PathBuf {
            let path = self.dir.path().join("cached");
            fs::write(&path, stream).unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(9))
                .unwrap();
            path
        }

        fn delivered(&self, cached: &Path) -> Delivery<'_> {
            let delivery = self.store.reserve_delivery().unwrap();
            fs::hard_link(cached, delivery.path()).unwrap();
            delivery
        }

        fn commit(&self, ingest: Ingest<'_>) -> Ingested {
            let reference = "a:b".parse().unwrap();
            let owner = self.store.owner().unwrap().name();
            let snapshot = self
                .store
                .catalog
                .write(Sync::Normal, |txn| {
                    let snapshot = txn.insert_pending(&reference, now())?;
                    txn.insert_lease(owner, 0, snapshot)?;
                    Ok(snapshot)
                })
                .unwrap();
            self.store.commit(snapshot, &mut [ingest]).unwrap()[0]
        }

        fn blob(&self, stream: &[u8]) -> crate::catalog::Blob {
            let checksum = Checksum::of(stream);
            let found = self.store.catalog.read(|txn| txn.blob(&checksum));
            found.unwrap().unwrap()
        }

        fn staged(&self) -> usize {
            let staging = self.dir.path().join("root/staging");
            let shards = fs::read_dir(staging.join(self.store.owner().unwrap().name())).unwrap();
            shards
                .map(|shard| fs::read_dir(shard.unwrap().path()).unwrap().count())
                .sum()
        }
    }

    fn read(delivery: &Delivery<'_>) -> Result<Delivered> {
        delivery.read(SIZE, Output::None, &|_| Ok(()))
    }

    /// A hole, data, a hole.
    fn stream() -> Vec<u8> {
        let extent = Extent {
            offset: 4096,
            len: 5,
        };
        let mut stream = spf::header(SIZE, 1).to_vec();
        stream.extend(spf::descriptor(extent));
        stream.extend(b"bytes");
        stream
    }

    #[test]
    fn a_reserved_path_is_fresh_absolute_and_gone_when_it_is_dropped() {
        let scene = Scene::new();
        let (one, other) = (
            scene.store.reserve_delivery().unwrap(),
            scene.store.reserve_delivery().unwrap(),
        );
        assert_ne!(one.path(), other.path());
        for delivery in [one, other] {
            assert!(delivery.path().is_absolute());
            assert!(!delivery.path().exists());
            fs::write(delivery.path(), "something").unwrap();
        }
        assert_eq!(scene.staged(), 0);
    }

    #[test]
    fn a_delivered_file_becomes_a_packed_blob_and_keeps_all_that_is_the_daemons() {
        let scene = Scene::new();
        let cached = scene.cached(&stream());
        let before = fs::metadata(&cached).unwrap();
        let decoded = tempfile::tempfile().unwrap();
        let output = Output::File {
            file: &decoded,
            sync_soon: false,
        };
        let delivery = scene.delivered(&cached);
        let delivered = delivery.read(SIZE, output, &|_| Ok(())).unwrap();
        assert_eq!(delivered.hashes.digest, Digest::of(&stream()));
        assert_eq!(delivered.hashes.checksum, Checksum::of(&stream()));
        let mut bytes = [0; SIZE as usize];
        decoded.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(decoded.metadata().unwrap().len(), SIZE);
        assert_eq!(&bytes[4096..4101], b"bytes");
        assert!(
            bytes[..4096]
                .iter()
                .chain(&bytes[4101..])
                .all(|byte| *byte == 0)
        );

        let committed = scene.commit(delivery.into_ingest(delivered));
        assert!(matches!(committed, Ingested::Stored));
        let blob = scene.blob(&stream());
        assert_eq!(
            (blob.form, blob.size, blob.data_size),
            (Form::Packed, SIZE, 5)
        );
        assert!(scene.store.looks_good(&blob).unwrap());
        let stored = fs::metadata(scene.store.content_path(&blob, Form::Packed)).unwrap();
        assert_eq!(stored.ino(), before.ino());
        assert_eq!(stored.mode(), before.mode());
        assert_eq!(stored.modified().unwrap(), before.modified().unwrap());
        assert_eq!(scene.staged(), 0);
    }

    #[test]
    fn what_is_delivered_twice_is_stored_once() {
        let scene = Scene::new();
        let cached = scene.cached(&stream());
        let outcomes = [0; 3].map(|_| {
            let delivery = scene.delivered(&cached);
            let delivered = read(&delivery).unwrap();
            scene.commit(delivery.into_ingest(delivered))
        });
        assert!(matches!(outcomes[0], Ingested::Stored));
        assert!(matches!(
            outcomes[1..],
            [Ingested::Reused, Ingested::Reused]
        ));
        assert_eq!(fs::metadata(&cached).unwrap().nlink(), 2);
        // Even where the row says nothing good of the inode, which has the name already.
        let blob = scene.blob(&stream());
        scene
            .store
            .catalog
            .write(Sync::Normal, |txn| {
                txn.mark_object(
                    &blob.checksum,
                    blob.form,
                    crate::catalog::BlobState::Damaged,
                )
            })
            .unwrap();
        let delivery = scene.delivered(&cached);
        let delivered = read(&delivery).unwrap();
        scene.commit(delivery.into_ingest(delivered));
        assert!(scene.store.looks_good(&scene.blob(&stream())).unwrap());
        assert_eq!(fs::metadata(&cached).unwrap().nlink(), 2);
        assert_eq!(scene.staged(), 0);
    }

    #[test]
    fn a_file_whose_time_moved_is_not_vouched_for_until_it_was_read_again() {
        let scene = Scene::new();
        let cached = scene.cached(&stream());
        let delivery = scene.delivered(&cached);
        let delivered = read(&delivery).unwrap();
        scene.commit(delivery.into_ingest(delivered));
        let blob = scene.blob(&stream());
        assert!(scene.store.looks_good(&blob).unwrap());
        let file = File::options().write(true).open(&cached).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(600))
            .unwrap();
        assert!(!scene.store.looks_good(&blob).unwrap());
        let activity = crate::activity::Activity::new(std::sync::Arc::default(), None);
        let opened = scene.store.open_good(&blob, &activity).unwrap();
        let told = crate::store::Told::Later;
        scene
            .store
            .copy_verified(&blob, &opened, Output::None, &activity, told)
            .unwrap();
        assert!(scene.store.looks_good(&scene.blob(&stream())).unwrap());
    }

    #[test]
    fn what_is_not_one_packed_stream_of_the_size_is_damaged() {
        let good = stream();
        let with = |at: usize, bytes: &[u8]| {
            let mut stream = good.clone();
            stream[at..at + bytes.len()].copy_from_slice(bytes);
            stream
        };
        let wrong = [
            ("empty", Vec::new()),
            ("magic", with(3, b"2")),
            ("size", with(11, &[0])),
            ("count", with(12, &[0xff; 8])),
            ("one extent more", with(19, &[2])),
            ("offset", with(20, &[0xff; 8])),
            ("length", with(28, &[0x7f; 8])),
            ("cut", good[..good.len() - 1].to_vec()),
            ("trailing", [&good[..], b"x"].concat()),
        ];
        let scene = Scene::new();
        for (what, stream) in wrong {
            let delivery = scene.delivered(&scene.cached(&stream));
            let decoded = tempfile::tempfile().unwrap();
            let output = Output::File {
                file: &decoded,
                sync_soon: false,
            };
            let error = delivery.read(SIZE, output, &|_| Ok(())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{what}: {error}");
            assert!(decoded.metadata().unwrap().len() <= SIZE, "{what}");
            drop(delivery);
            assert_eq!(scene.staged(), 0, "{what}");
        }
    }

    #[test]
    fn what_is_no_file_is_damaged() {
        let scene = Scene::new();
        let cached = scene.cached(&stream());
        let absent = scene.store.reserve_delivery().unwrap();
        let symlink = scene.store.reserve_delivery().unwrap();
        std::os::unix::fs::symlink(cached, symlink.path()).unwrap();
        let fifo = scene.store.reserve_delivery().unwrap();
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, fifo.path(), mode).unwrap();
        for delivery in [absent, symlink, fifo] {
            let error = read(&delivery).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
            assert_eq!(error.path(), Some(delivery.path()));
        }
        assert_eq!(scene.staged(), 0);
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_not_believed() {
        let scene = Scene::new();
        let cached = scene.cached(&stream());
        let delivery = scene.delivered(&cached);
        let error = delivery
            .read(SIZE, Output::None, &|_| {
                fs::write(&cached, stream()).unwrap();
                Ok(())
            })
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    }
}

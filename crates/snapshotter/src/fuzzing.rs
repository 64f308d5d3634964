//! The parsers, and what is done with what they read, for the fuzz targets: not part of the API.

pub mod format {
    //! What crosses the wire.
    pub use crate::format::{artifact, content, document, map, pack, spf, zstd};
}

pub mod words {
    //! Pure values.
    pub use crate::words::{digest, entry, extent, page, reference, relpath};
}

pub mod restore {
    //! Restores of documents that nobody vouches for.

    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use crate::activity::Activity;
    use crate::catalog::{Blob, Finished, State, Sync, Totals};
    use crate::config::{Config, Durability};
    use crate::format::artifact::Manifest;
    use crate::limit::Limits;
    use crate::restore::{self, RestoreReport, RestoreRequest};
    use crate::snapshot::{self, SnapshotRequest};
    use crate::store::{Store, now};
    use crate::words::error::{Error, Result};
    use crate::words::reference::Reference;

    /// A root with some blobs, into whose catalog any document can be put.
    #[derive(Debug)]
    pub struct Stage {
        store: Arc<Store>,
        limits: Limits,
        blobs: Vec<Blob>,
    }

    /// How documents name a blob.
    #[derive(Clone, Debug)]
    pub struct Content {
        /// `xxh3:…`
        pub digest: String,
        /// `blake3:…`
        pub checksum: String,
        /// In bytes.
        pub size: u64,
    }

    fn activity() -> Activity {
        Activity::new(Arc::new(AtomicBool::new(false)), None)
    }

    impl Stage {
        /// A root with the files of a directory.
        ///
        /// # Errors
        /// Those of opening it and of taking a snapshot.
        pub fn new(root: &Path, files: &Path) -> Result<Self> {
            let store = Arc::new(Store::open(root, None, Duration::from_secs(5))?);
            let limits = Limits::new(1);
            let request = SnapshotRequest::new("base", "v1", files);
            snapshot::run(
                &store,
                &limits,
                Durability::Background,
                (&request, None),
                None,
                &activity(),
            )?;
            let blobs = store.catalog.read(|txn| txn.blobs_after(None, 100))?;
            Ok(Self {
                store,
                limits,
                blobs,
            })
        }

        /// What documents can name.
        pub fn contents(&self) -> impl Iterator<Item = Content> {
            self.blobs.iter().map(|blob| Content {
                digest: blob.digest.to_string(),
                checksum: blob.checksum.to_string(),
                size: blob.size,
            })
        }

        /// Restores a document as that of a snapshot which has all blobs, and forgets it.
        ///
        /// # Errors
        /// Those of the restore.
        pub fn restore(&self, document: &[u8], output: &Path) -> Result<RestoreReport> {
            let reference =
                Reference::new("fuzz", "v1").map_err(|_| Error::invalid("reference"))?;
            let manifest = Manifest::build(document, &[], &std::collections::BTreeMap::new())
                .map_err(|_| Error::invalid("manifest"))?;
            let snapshot = self.store.catalog.write(Sync::Normal, |txn| {
                let snapshot = txn.insert_pending(&reference, now())?;
                for blob in &self.blobs {
                    txn.reference_object(snapshot, &blob.checksum)?;
                }
                let finished = Finished {
                    format: crate::words::format::Format::V1,
                    state: State::Taken,
                    manifest: &manifest,
                    document: &document.to_vec(),
                    totals: Totals::default(),
                    now: now(),
                };
                txn.finish_snapshot(snapshot, &finished)?;
                Ok(snapshot)
            })?;
            let request = RestoreRequest::new(reference, output);
            let restored = restore::run(
                &self.store,
                &self.limits,
                &Config::new(""),
                &request,
                None,
                &activity(),
            );
            let doomed = self.store.catalog.write(Sync::Normal, |txn| {
                txn.mark_removed(snapshot)?;
                txn.doom_abandoned(&[snapshot])
            })?;
            assert_eq!(doomed.objects, 0, "the base snapshot keeps all blobs");
            restored
        }
    }
}

#[cfg(feature = "registry")]
pub mod travel {
    //! Streams that come, into files, and back.

    use std::fs::File;

    use bytes::Bytes;

    use crate::pass::wire::{Receiving, read_stream};
    use crate::words::digest::Checksum;
    use crate::words::form::Form;

    /// Takes a stream in pieces into an empty file of `size` bytes, and reads it back: the stream, and both checksums.
    /// `None`: it was refused.
    ///
    /// # Panics
    /// When a file cannot be written or read.
    pub fn there_and_back(
        file: &File,
        size: u64,
        limit: u64,
        pieces: &[&[u8]],
    ) -> Option<(Vec<u8>, Checksum, Checksum)> {
        let mut receiving = Receiving::new(file, None, size, limit).ok()?;
        for piece in pieces {
            receiving.push(&Bytes::copy_from_slice(piece)).ok()?;
        }
        let received = receiving.finish().ok()?;
        let mut stream = Vec::new();
        let read = read_stream(
            file,
            Form::Plain,
            &received.map,
            &|_| Ok(()),
            &mut |bytes| {
                stream.extend_from_slice(&bytes);
                Ok(())
            },
        );
        let read = read.expect("what was received can be read");
        Some((stream, received.hashes.checksum, read))
    }
}

#[cfg(feature = "registry")]
pub mod config {
    //! What the library reads of a configuration.

    use std::path::Path;

    use crate::config::Config;
    use crate::words::error::Result;

    /// The checks of an opening, registry and place of contents included.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(config: &Config) -> Result<()> {
        config.validate()?;
        if let Some(registry) = &config.registry {
            registry.validate()?;
        }
        config
            .content
            .as_ref()
            .map_or(Ok(()), crate::Content::validate)
    }

    /// Looks a host up in a Docker configuration file. Runs no helper.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn docker_config(path: &Path, host: &str) -> Result<()> {
        crate::registry::docker_config_without_helpers(path, host)
    }
}

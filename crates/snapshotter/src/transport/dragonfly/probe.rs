//! What `diagnose_remote` finds out about a daemon, by having it do what it is there for: with the packed stream of the
//! empty file, 20 bytes, which is a proper object of every bucket.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ThroughDaemon;
use super::file::Named;
use crate::format::spf;
use crate::transport::{Existing, FileDelivery, Source};
use crate::words::capability::Capability;
use crate::words::digest::{Checksum, Digest};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::object::Object;

/// Whether Dragonfly's daemon can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DragonflyDiagnosis {
    /// Where the daemon is.
    pub endpoint: String,
    /// What is wrong with the socket, or with the daemon's health: kind and text.
    pub error: Option<(ErrorKind, String)>,
    /// Whether it reads and makes files in the root: found with a small object, which is then in the bucket. `None` where
    /// the daemon cannot be asked.
    pub files: Option<Capability>,
    /// Whether a file that it brings is one more name of the one in its cache; if not, it is a copy. `None` where it made
    /// no file.
    pub hardlink: Option<Capability>,
}

impl ThroughDaemon {
    pub(crate) async fn diagnose(&self) -> Result<DragonflyDiagnosis> {
        let mut diagnosis = DragonflyDiagnosis {
            endpoint: self.daemon.config.endpoint.clone(),
            error: None,
            files: None,
            hardlink: None,
        };
        if let Err(error) = self.daemon.ready(0).await {
            diagnosis.error = Some((error.kind(), super::line(&error)));
            return Ok(diagnosis);
        }
        match self.try_files().await {
            Ok(names) => {
                diagnosis.files = Some(Capability::Yes);
                diagnosis.hardlink = Some(match names {
                    2.. => Capability::Yes,
                    _ if self.daemon.copies.load(Ordering::Relaxed) => {
                        Capability::No("the daemon's storage is on another filesystem".to_owned())
                    }
                    _ => Capability::No("the daemon made a copy".to_owned()),
                });
            }
            Err(error) => {
                let hint = error.hint().map(|hint| format!(" ({hint})"));
                let text = super::line(&error) + &hint.unwrap_or_default();
                diagnosis.files = Some(Capability::No(text));
            }
        }
        Ok(diagnosis)
    }

    /// Sends the object and has it brought back, through the daemon alone, and says how many names its file has.
    async fn try_files(&self) -> Result<u64> {
        let alone = Self {
            place: Arc::new(super::Place {
                retries: 0,
                ..(*self.place).clone()
            }),
            ..self.clone()
        };
        let bytes = spf::header(0, 0);
        let size = bytes.len() as u64;
        let object = Object::stream(Digest::of(&bytes), Some(Checksum::of(&bytes)), size);
        let (source, mut begun) = Source::stream(size);
        let feed = async move {
            // An upload that is not needed takes nothing.
            if let Some(sink) = begun.recv().await {
                let _ = sink.send(Ok(bytes.to_vec().into())).await;
            }
        };
        let (sent, ()) = tokio::join!(alone.send(object, Existing::Keep, source), feed);
        sent?;
        let path = self.fresh()?;
        let named = Named::at(&path)?;
        alone.fetch_file(object, &path, &|_| {}).await?;
        let mut back = vec![0; bytes.len()];
        let file = named.open()?;
        if file.read_exact_at(&mut back, 0).is_err() || back != bytes {
            return Err(Error::damaged(format!(
                "the {} brought other bytes than it was given",
                self.daemon.shown()
            ))
            .with_path(path));
        }
        Ok(named.stat_of(&file)?.nlink)
    }

    fn fresh(&self) -> Result<PathBuf> {
        let (dir, name) = self.daemon.slot()?;
        Ok(dir.path_of(&name))
    }
}

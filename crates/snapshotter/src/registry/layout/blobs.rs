//! Blobs: files named by their SHA-256. They are checked whenever they are read, and mended when the right bytes come by.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};

use super::dir::RepositoryDir;
use crate::fs::Stat;
use crate::fs::dir::Kind;
use crate::fs::durable;
use crate::words::digest::Sha256;
use crate::words::error::{At, Error, ErrorKind, Result};

impl RepositoryDir {
    pub(super) fn blob(&self, sha256: Sha256, size: u64) -> Result<Vec<u8>> {
        let file = self.open_blob(sha256, size)?;
        let mut bytes = Vec::new();
        file.take(size + 1)
            .read_to_end(&mut bytes)
            .at("read", self.blobs.path_of(&name(sha256)))?;
        let found = Sha256::of(&bytes);
        if bytes.len() as u64 != size || found != sha256 {
            return Err(self.damaged(sha256, &format!("its bytes are {found}")));
        }
        Ok(bytes)
    }

    pub(super) fn has_blob(&self, sha256: Sha256) -> Result<Option<u64>> {
        let name = name(sha256);
        let stat = self
            .blobs
            .stat_if_any(&name)
            .at("examine", self.blobs.path_of(&name))?;
        Ok(stat
            .filter(|stat| stat.kind == Kind::File)
            .map(|stat| stat.size))
    }

    pub(super) fn push_blob(&self, sha256: Sha256, bytes: &[u8]) -> Result<()> {
        if Sha256::of(bytes) != sha256 {
            let text = format!("the bytes that are to be stored as {sha256} are others");
            return Err(Error::invalid(text));
        }
        match self.blob(sha256, bytes.len() as u64) {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Damaged) => {
                let mode = self.shared_with.file_mode();
                durable::replace(&self.blobs, &name(sha256), bytes, mode)
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a blob of this size.
    pub(super) fn open_blob(&self, sha256: Sha256, size: u64) -> Result<File> {
        let name = name(sha256);
        let path = self.blobs.path_of(&name);
        let file = match self.blobs.open_file(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let text = format!("there is no blob {}", path.display());
                return Err(Error::new(ErrorKind::NotFound, text).with_path(path));
            }
            result => result.at("open", &path)?,
        };
        let stat = Stat::of_file(&file).at("examine", &path)?;
        if stat.kind != Kind::File {
            return Err(self.damaged(sha256, "it is not a file"));
        }
        if stat.size != size {
            let text = format!("it has {} bytes, not {size}", stat.size);
            return Err(self.damaged(sha256, &text));
        }
        Ok(file)
    }

    pub(super) fn damaged(&self, sha256: Sha256, why: &str) -> Error {
        let path = self.blobs.path_of(&name(sha256));
        Error::damaged(format!("the blob {} is damaged: {why}", path.display())).with_path(path)
    }
}

pub(super) fn name(sha256: Sha256) -> OsString {
    sha256.hex().into()
}

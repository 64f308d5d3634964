//! Where a repository's image layout is, and which names in it are taken.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::fs::Dir;
use crate::fs::durable::{self, ensure_dir};
use crate::registry::Repository;
use crate::registry::name::below;
use crate::words::digest::Sha256;
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::sharing::SharedWith;

pub(super) const MARKER: &str = "oci-layout";
const MARKER_BYTES: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
pub(super) const BLOBS: &str = "blobs";
const SHA256: &str = "sha256";
pub(super) const INDEX: &str = "index.json";

/// Names of a layout that could be components of a repository's name. (The lock's and drafts' begin with a dot.)
const TAKEN: [&str; 3] = [MARKER, BLOBS, INDEX];

/// The directory of all layouts.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) path: PathBuf,
    pub(super) namespace: String,
    /// Who else may use what is made here.
    pub(super) shared_with: SharedWith,
    /// How long to wait for another process that holds an index.
    pub(super) patience: Duration,
}

/// One repository's layout, open.
#[derive(Debug)]
pub(super) struct RepositoryDir {
    pub(super) dir: Dir,
    pub(super) blobs: Dir,
    pub(super) shared_with: SharedWith,
}

impl Home {
    /// A repository that is there. Symlinks below the directory itself are refused.
    pub(super) fn open(&self, repository: &Repository) -> Result<Option<RepositoryDir>> {
        check(repository)?;
        absent_is_none(self.open_present(repository))
    }

    fn open_present(&self, repository: &Repository) -> Result<RepositoryDir> {
        let mut dir = Dir::open(&self.path)?;
        for component in repository.as_str().split('/') {
            dir = dir.open_dir(OsStr::new(component))?;
        }
        let blobs = dir.open_dir(OsStr::new(BLOBS))?;
        let blobs = blobs.open_dir(OsStr::new(SHA256))?;
        Ok(self.opened(dir, blobs))
    }

    fn opened(&self, dir: Dir, blobs: Dir) -> RepositoryDir {
        RepositoryDir {
            dir,
            blobs,
            shared_with: self.shared_with,
        }
    }

    /// A repository, made where it is not there. The marker comes last: only with it is a directory a repository.
    pub(super) fn create(&self, repository: &Repository) -> Result<RepositoryDir> {
        check(repository)?;
        let mode = self.shared_with.directory_mode();
        let mut dir = Dir::create_all(&self.path, mode)?;
        for component in repository.as_str().split('/') {
            dir = ensure_dir(&dir, OsStr::new(component), mode)?;
        }
        let blobs = ensure_dir(&dir, OsStr::new(BLOBS), mode)?;
        let blobs = ensure_dir(&blobs, OsStr::new(SHA256), mode)?;
        let marker = OsStr::new(MARKER);
        let there = dir.stat_if_any(marker).at("examine", dir.path_of(marker))?;
        if there.is_none() {
            durable::replace(&dir, marker, MARKER_BYTES, self.shared_with.file_mode())?;
        }
        Ok(self.opened(dir, blobs))
    }

    pub(super) fn out_of_sight(&self, repository: &Repository) -> Error {
        out_of_sight(&self.path.join(repository.as_str()))
    }

    pub(super) fn missing(&self, repository: &Repository, sha256: Sha256) -> Error {
        let text = format!(
            "there is no blob {repository}@{sha256} in {}",
            self.path.display()
        );
        Error::new(ErrorKind::NotFound, text).with_path(&self.path)
    }

    /// Whether the directory can be written, or where it is not there, made. Nothing is.
    pub(super) fn writable(&self) -> Result<()> {
        let is_there = |path: &&Path| path.symlink_metadata().is_ok();
        let there = self.path.ancestors().find(is_there).unwrap_or(&self.path);
        durable::may_write(there).at("write in", there)
    }

    pub(super) fn repositories(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        if let Some(dir) = absent_is_none(Dir::open(&self.path))? {
            collect(&dir, "", &mut found)?;
        }
        let names = found.iter().filter_map(|name| below(name, &self.namespace));
        let mut names: Vec<_> = names.map(str::to_owned).collect();
        names.sort_unstable();
        Ok(names)
    }
}

impl RepositoryDir {
    /// What a repository has from its first manifest on.
    pub(super) fn require_marked(&self) -> Result<()> {
        for name in [MARKER, INDEX].map(OsStr::new) {
            let found = self.dir.stat_if_any(name);
            if found.at("examine", self.dir.path_of(name))?.is_none() {
                return Err(out_of_sight(self.dir.path()));
            }
        }
        Ok(())
    }
}

fn out_of_sight(path: &Path) -> Error {
    let text = format!(
        "there is no image layout at {}; it may not be mounted",
        path.display()
    );
    Error::new(ErrorKind::Unavailable, text).with_path(path)
}

/// Every directory with a marker. What is longer than a repository may be is not looked into, so that it ends.
fn collect(dir: &Dir, prefix: &str, found: &mut Vec<String>) -> Result<()> {
    for name in dir.names()? {
        let whole = format!("{prefix}{}", name.to_string_lossy());
        let is_dir = durable::is_dir(dir, &name).at("examine", dir.path_of(&name))?;
        if !is_dir || TAKEN.iter().any(|taken| name == *taken) || below(&whole, "").is_none() {
            continue;
        }
        let inner = dir.open_dir(&name)?;
        let marker = OsStr::new(MARKER);
        let marked = inner
            .stat_if_any(marker)
            .at("examine", inner.path_of(marker))?;
        if marked.is_some() {
            found.push(whole.clone());
        }
        collect(&inner, &format!("{whole}/"), found)?;
    }
    Ok(())
}

fn check(repository: &Repository) -> Result<()> {
    let taken = repository
        .as_str()
        .split('/')
        .find(|component| TAKEN.contains(component));
    taken.map_or(Ok(()), |taken| {
        let text =
            format!("{repository} cannot be in an image layout: \"{taken}\" has a meaning there");
        Err(Error::new(ErrorKind::Unsupported, text))
    })
}

fn absent_is_none<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

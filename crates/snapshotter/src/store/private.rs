//! Whose the root is: no symlinks lead out of it, and nobody else can change it.

use std::ffi::OsStr;

use super::layout::{FEW_NAMES, Root, each_shard};
use crate::catalog::Shard;
use crate::fs::dir::Kind;
use crate::fs::space::ReadOnly;
use crate::fs::{Dir, Stat, own_ids};
use crate::words::error::{At, Error, Result};

/// Others than the owner may write.
const OTHERS_WRITE: u32 = 0o022;

/// What SQLite opens.
const CATALOG_FILES: [&str; 4] = [
    "catalog.db",
    "catalog.db-wal",
    "catalog.db-shm",
    "catalog.db-journal",
];

impl Root {
    /// Refuses symlinks where the store's own files and shards are: what is at their other end is not the store's, and would
    /// be written and removed as if it were. Directories were opened as such, and so is whatever else has a name in one.
    ///
    /// # Errors
    /// `InvalidInput` names the first one.
    pub(super) fn refuse_symlinks(&self) -> Result<()> {
        for name in CATALOG_FILES.map(OsStr::new) {
            refuse_symlink(&self.metadata, name)?;
        }
        for tree in [&self.content, &self.views] {
            if Stat::of_file(tree).at("examine", tree.path())?.size < FEW_NAMES {
                tree.for_each_name(|name| match Shard::parse(name) {
                    Some(_) => refuse_symlink(tree, name).map(|_| ()),
                    None => Ok(()),
                })?;
            } else {
                each_shard(|name| refuse_symlink(tree, name))?;
            }
        }
        Ok(())
    }

    /// Says that everybody can change the root, or somebody else than the user of this process and root; `None`: nobody can.
    pub(crate) fn exposure(&self) -> Result<Option<String>> {
        let path = self.dir.path();
        let stat = Stat::of_file(&self.dir).at("examine", path)?;
        let (shown, own) = (path.display(), own_ids().0);
        if stat.mode & OTHERS_WRITE != 0 {
            let text = format!(
                "others can change the root {shown}, whose mode is {:04o}: whoever does, decides what is restored; 0700 keeps \
                 it private",
                stat.mode
            );
            return Ok(Some(text));
        }
        let is_others = stat.uid != own && stat.uid != 0;
        Ok(is_others.then(|| {
            format!(
                "the root {shown} belongs to the user {}, who can change all that is restored from it by the user {own}",
                stat.uid
            )
        }))
    }
}

/// Says whether there is something.
fn refuse_symlink(dir: &Dir, name: &OsStr) -> Result<bool> {
    let found = dir.stat_if_any(name).at("examine", dir.path_of(name))?;
    match found {
        Some(found) if found.kind == Kind::Symlink => Err(is_symlink(dir, name)),
        found => Ok(found.is_some()),
    }
}

fn is_symlink(dir: &Dir, name: &OsStr) -> Error {
    let path = dir.path_of(name);
    let text = format!(
        "{} is a symlink, and has to be the store's own",
        path.display()
    );
    Error::invalid(text).with_path(path).with_hint(
        "move what it points to there; only the root itself may be reached through symlinks, and mounts are fine",
    )
}

/// Why a directory of the store was not opened.
pub(super) fn in_store(
    error: Error,
    dir: &Dir,
    name: &OsStr,
    read_only: Option<ReadOnly>,
) -> Error {
    let there = dir.stat_if_any(name).ok().flatten();
    match there.map(|there| there.kind) {
        Some(Kind::Symlink) => is_symlink(dir, name),
        None if read_only.is_some() => {
            error.with_hint("the root is on a read-only mount, and there is no whole store in it")
        }
        _ => error,
    }
}

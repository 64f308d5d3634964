//! Names on their way out, and names that cannot go.
//!
//! A name is moved to the trash under the names lock, which is quick, and unlinked after it; that of a small file is unlinked
//! at once. In the trash it has the owner's name before its own, so that it takes no directory and the owner's reaper finds
//! it. Where nothing more can be named, it is unlinked in place. What the system does not let go (an immutable file, a mount
//! on it, a directory that only grows) is left where it is, and whoever asked says so: it is tried again whenever somebody
//! sweeps, and nothing else waits for it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;

use super::Store;
use crate::activity::Activity;
use crate::catalog::Doomed;
use crate::fs::dir::{Kind, ignore_absent};
use crate::fs::{Dir, random_name};
use crate::words::error::{Error, Result};
use crate::words::progress::{Warning, WarningKind};

/// What became of a name.
#[derive(Debug)]
pub(super) enum Thrown {
    /// It is called that in the trash, and unlinked from there by [`Store::unlink_trashed`].
    Trashed(OsString),
    Unlinked,
    /// It was gone.
    Absent,
    Left(Left),
}

/// A name that could not be taken away.
#[derive(Debug)]
pub(crate) struct Left {
    path: PathBuf,
    error: io::Error,
}

impl Left {
    pub(super) fn new(dir: &Dir, name: &OsStr, error: io::Error) -> Self {
        let path = dir.path_of(name);
        tracing::warn!(path = %path.display(), %error, "what belongs to nothing cannot be removed and stays");
        Self { path, error }
    }

    /// For a report.
    pub(crate) fn warning(&self) -> Warning {
        Warning {
            kind: WarningKind::Deferred,
            path: Some(self.path.clone()),
            message: format!(
                "what belongs to nothing could not be removed and stays until a later sweep: {}",
                self.error
            ),
        }
    }
}

/// What a sweep did.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    /// Names that went.
    pub(crate) names: u64,
    pub(crate) left: Vec<Left>,
}

impl Swept {
    /// Names what was left in the call's report, and says how many names went.
    pub(crate) fn tell(self, activity: &Activity) -> u64 {
        for left in &self.left {
            activity.push(left.warning());
        }
        self.names
    }
}

impl Store {
    /// Sweeps what a call has removed, which it has whatever becomes of the names: what is left of them is litter, and told.
    pub(crate) fn sweep_removed(&self, doomed: &Doomed, activity: &Activity) {
        let swept = self.with_reserve(|| self.sweep_doomed(doomed));
        self.set_aside_space();
        match swept {
            Ok(swept) => _ = swept.tell(activity),
            Err(error) => activity.warn(
                WarningKind::Deferred,
                error.path(),
                format!("what nothing needs any more could not be removed yet: {error}"),
            ),
        }
    }

    /// Takes a name away. The caller holds the names lock, and has made this handle an owner if it could.
    pub(super) fn throw_away(&self, dir: &Dir, name: &OsStr) -> Thrown {
        if !is_small(dir, name)
            && let Some(to) = self.name_in_trash()
        {
            match dir.rename(name, &self.root.trash, &to) {
                Ok(()) => return Thrown::Trashed(to),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Thrown::Absent,
                // It may go all the same: names in the trash take space, and cannot be those of other filesystems.
                Err(_) => {}
            }
        }
        match dir.unlink(name) {
            Ok(()) => Thrown::Unlinked,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Thrown::Absent,
            Err(error) => Thrown::Left(Left::new(dir, name, error)),
        }
    }

    fn name_in_trash(&self) -> Option<OsString> {
        let owner = self.owner.get()?;
        let random = random_name().ok()?;
        Some(format!("{}.{random}", owner.name()).into())
    }

    /// Unlinks what was moved to the trash; nobody needs to hold anything. A directory that somebody made under `storage/`
    /// is as much litter as a file.
    pub(super) fn unlink_trashed(&self, name: &OsStr, left: &mut Vec<Left>) {
        remove_all(&self.root.trash, name, left);
    }

    /// Empties an owner's staging and trash as far as it can be done.
    pub(super) fn empty(&self, owner: &str) -> Result<Vec<Left>> {
        let mut left = Vec::new();
        let name = OsStr::new(owner);
        if self
            .root
            .staging
            .stat_if_any(name)
            .is_ok_and(|there| there.is_some())
        {
            remove_all(&self.root.staging, name, &mut left);
        }
        for name in self.root.trash.names()? {
            if trash_owner(&name) == owner {
                remove_all(&self.root.trash, &name, &mut left);
            }
        }
        Ok(left)
    }
}

/// Files that occupy up to this much are unlinked at once, which is as quick as moving them, in bytes: of a snapshot that
/// died there may be a million.
const SMALL: u64 = 64 << 10;

fn is_small(dir: &Dir, name: &OsStr) -> bool {
    let there = dir.stat_if_any(name);
    there.is_ok_and(|there| {
        there.is_some_and(|there| there.kind == Kind::File && there.allocated <= SMALL)
    })
}

/// Whose name in the trash it is. Earlier releases made a directory an owner.
pub(super) fn trash_owner(name: &OsStr) -> String {
    let name = name.to_string_lossy();
    let owner = name.split_once('.').map_or(&*name, |(owner, _)| owner);
    owner.to_owned()
}

/// Takes away whatever has a name, a directory with all that is in it too.
pub(super) fn take_away(dir: &Dir, name: &OsStr) -> Result<()> {
    let mut left = Vec::new();
    remove_all(dir, name, &mut left);
    match left.pop() {
        Some(Left { path, error }) => Err(Error::io("remove", &path, error)),
        None => Ok(()),
    }
}

/// Removes a name and everything below it, but for what cannot be removed.
fn remove_all(dir: &Dir, name: &OsStr, left: &mut Vec<Left>) {
    let before = left.len();
    let is_dir = matches!(dir.stat_if_any(name), Ok(Some(stat)) if stat.kind == Kind::Directory);
    if is_dir && let Ok(inner) = dir.open_dir(name) {
        for name in inner.names().unwrap_or_default() {
            remove_all(&inner, &name, left);
        }
    }
    if left.len() > before {
        return;
    }
    let removed = if is_dir {
        dir.remove_dir(name)
    } else {
        dir.unlink(name)
    };
    if let Err(error) = ignore_absent(removed) {
        left.push(Left::new(dir, name, error));
    }
}

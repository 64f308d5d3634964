//! Lists of page digests, one a snapshot of format v2, under `digests/` in the root: what the next capture compares with. A list
//! is a cache. It has no row and belongs to whichever snapshot has the manifest that it is named by; without it, it is made
//! again from the packs, all of which are read. What is in one is believed only where it adds up to the content ids of the
//! snapshot's document.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;

use super::trash::Left;
use super::{Slot, Store};
use crate::fs::Dir;
use crate::fs::dir::ignore_absent;
use crate::words::digest::Sha256;
use crate::words::error::{At, Result};

/// The directory.
pub(super) const NAME: &str = "digests";

fn name_of(manifest: &Sha256) -> OsString {
    manifest.hex().into()
}

impl Store {
    fn page_lists(&self) -> Result<Option<Dir>> {
        let name = OsStr::new(NAME);
        let there = self.root.dir.stat_if_any(name);
        match there.at("examine", self.root.dir.path_of(name))? {
            Some(_) => self.root.dir.open_dir(name).map(Some),
            None => Ok(None),
        }
    }

    /// The list of the snapshot with this manifest, unchecked, where there is one.
    pub(crate) fn open_page_list(&self, manifest: &Sha256) -> Result<Option<File>> {
        let Some(lists) = self.page_lists()? else {
            return Ok(None);
        };
        let name = name_of(manifest);
        match lists.open_file(&name) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).at("open", lists.path_of(&name)),
        }
    }

    /// Gives a list its name. What fails here costs the next capture the making of one.
    pub(crate) fn keep_page_list(&self, manifest: &Sha256, mut list: Slot<'_>) {
        let lists = self.root.dir.ensure_dir(OsStr::new(NAME), 0o700);
        let kept = lists.and_then(|lists| list.rename_to(&lists, &name_of(manifest)));
        if let Err(error) = kept {
            tracing::debug!(%error, "a list of page digests was not kept");
        }
    }

    /// Gives up the lists of a name but for these, its newest snapshot's and that one's parent's, which another capture may
    /// start from too: so a name has two, however long its chain.
    pub(crate) fn drop_other_page_lists(&self, name: &str, stay: &[Sha256]) {
        match self.catalog.read(|txn| txn.manifests_of(name)) {
            Ok(all) => {
                let others = all.iter().filter(|one| !stay.contains(one));
                others.for_each(|other| self.drop_page_list(other));
            }
            Err(error) => tracing::debug!(%error, "lists of page digests were not removed"),
        }
    }

    /// A snapshot has another manifest from now on.
    #[cfg(feature = "registry")]
    pub(super) fn move_page_list(&self, from: &Sha256, to: &Sha256) {
        let moved = self.page_lists().and_then(|lists| match lists {
            Some(lists) if from != to => {
                let moved = lists.rename(&name_of(from), &lists, &name_of(to));
                ignore_absent(moved).at("rename", lists.path_of(&name_of(from)))
            }
            _ => Ok(()),
        });
        if let Err(error) = moved {
            // The next capture makes it again.
            tracing::debug!(%error, "a list of page digests was not renamed");
        }
    }

    /// Gives up the list of the snapshot with this manifest, if there is one. It is a cache: what fails here costs a file that
    /// the next whole sweep takes.
    pub(crate) fn drop_page_list(&self, manifest: &Sha256) {
        let dropped = self.page_lists().and_then(|lists| match lists {
            Some(lists) => {
                let name = name_of(manifest);
                ignore_absent(lists.unlink(&name)).at("remove", lists.path_of(&name))
            }
            None => Ok(()),
        });
        if let Err(error) = dropped {
            tracing::debug!(%error, "a list of page digests was not removed");
        }
    }

    /// Removes lists of snapshots that are not here any more. Says how many, and which could not be removed.
    pub(super) fn sweep_page_lists(&self) -> Result<(u64, Vec<Left>)> {
        let (mut swept, mut left) = (0, Vec::new());
        let Some(lists) = self.page_lists()? else {
            return Ok((swept, left));
        };
        let names = lists.names()?;
        let snapshots = self.catalog.read(|txn| txn.snapshots())?;
        let needed = snapshots.iter().map(|one| name_of(&one.manifest_digest));
        let needed: HashSet<OsString> = needed.collect();
        for name in names.iter().filter(|name| !needed.contains(*name)) {
            match ignore_absent(lists.unlink(name)) {
                Ok(()) => swept += 1,
                Err(error) => left.push(Left::new(&lists, name, error)),
            }
        }
        Ok((swept, left))
    }
}

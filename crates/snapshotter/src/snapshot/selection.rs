//! Which paths a request names, and what it promises of each.

use std::collections::BTreeMap;

use super::File;
use super::walk::stat_beneath;
use crate::fs::Dir;
use crate::words::error::{Error, Result};
use crate::words::relpath::{RelPath, is_base};

/// The requested paths and the promise made for each. The base directory itself is `None`.
#[derive(Debug, Default)]
pub(super) struct Selection(BTreeMap<Option<RelPath>, bool>);

impl Selection {
    pub(super) fn new(files: &[File]) -> Result<Self> {
        let mut selected = BTreeMap::new();
        for file in files {
            let path = selected_path(file)?;
            match selected.insert(path, file.read_only) {
                Some(other) if other != file.read_only => {
                    return Err(Error::invalid(format!(
                        "files lists {} both as read-only and as writable",
                        file.relative_path.display()
                    ))
                    .with_path(&file.relative_path));
                }
                _ => {}
            }
        }
        if selected.is_empty() {
            selected.insert(None, false);
        }
        Ok(Self(selected))
    }

    /// The paths that no other selected path contains: where walking starts.
    pub(super) fn starts(&self) -> impl Iterator<Item = Option<&RelPath>> {
        self.0.keys().map(Option::as_ref).filter(|path| {
            path.is_none_or(|path| !self.0.contains_key(&None) && !self.contains_ancestor(path))
        })
    }

    fn contains_ancestor(&self, path: &RelPath) -> bool {
        let mut parent = path.parent();
        while let Some(path) = parent {
            parent = path.parent();
            if self.0.contains_key(&Some(path)) {
                return true;
            }
        }
        false
    }

    /// The promise of the nearest selected path at or above this one.
    pub(super) fn read_only(&self, path: &RelPath) -> bool {
        let mut at = Some(path.clone());
        loop {
            if let Some(read_only) = self.0.get(&at) {
                return *read_only;
            }
            match at {
                Some(path) => at = path.parent(),
                None => return false,
            }
        }
    }

    /// Whether a path was asked for by name, and not for being in a directory.
    pub(super) fn names(&self, path: &RelPath) -> bool {
        self.0.contains_key(&Some(path.clone()))
    }

    /// A selected path inside a selected directory was not started from: it must exist all the same.
    pub(super) fn require_all_found(&self, base: &Dir) -> Result<()> {
        for path in self.0.keys().flatten() {
            if self.0.contains_key(&None) || self.contains_ancestor(path) {
                stat_beneath(base, path)?;
            }
        }
        Ok(())
    }
}

fn selected_path(file: &File) -> Result<Option<RelPath>> {
    let given = &file.relative_path;
    if is_base(given) {
        return Ok(None);
    }
    RelPath::normalize(given).map(Some).map_err(|error| {
        Error::invalid(format!("files: {error}"))
            .with_path(given)
            .with_hint("paths are relative to base_dir and stay inside it")
    })
}

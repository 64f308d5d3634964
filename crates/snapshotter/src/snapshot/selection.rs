//! Which paths a request names, and what it promises of each.

use std::collections::BTreeMap;

use super::File;
use super::walk::stat_beneath;
use crate::fs::Dir;
use crate::words::error::{Error, Result};
use crate::words::relpath::{RelPath, is_base};

/// What a request says of a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Said {
    read_only: bool,
    diff: bool,
}

/// The requested paths and what is said of each. The base directory itself is `None`.
#[derive(Debug, Default)]
pub(super) struct Selection(BTreeMap<Option<RelPath>, Said>);

impl Selection {
    pub(super) fn new(files: &[File]) -> Result<Self> {
        let mut selected = BTreeMap::new();
        for file in files {
            let path = selected_path(file)?;
            let said = Said {
                read_only: file.read_only,
                diff: file.diff,
            };
            let Some(other) = selected.insert(path, said).filter(|other| *other != said) else {
                continue;
            };
            let both = if other.read_only == said.read_only {
                "as a difference and as a whole"
            } else {
                "as read-only and as writable"
            };
            let path = &file.relative_path;
            let text = format!("files lists {} both {both}", path.display());
            return Err(Error::invalid(text).with_path(path));
        }
        if selected.is_empty() {
            selected.insert(None, Said::default());
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
            if let Some(said) = self.0.get(&at) {
                return said.read_only;
            }
            match at {
                Some(path) => at = path.parent(),
                None => return false,
            }
        }
    }

    /// The paths that are said to be differences.
    pub(super) fn diffs(&self) -> impl Iterator<Item = &RelPath> {
        let diffs = self.0.iter().filter(|(_, said)| said.diff);
        diffs.filter_map(|(path, _)| path.as_ref())
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

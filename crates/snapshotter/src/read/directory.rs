//! What a directory is in comparison with a snapshot. Nothing is stored.
//!
//! Only files that both have in one size are read. One of format v1 has the bytes that its checksum says, if it has its holes where the
//! snapshot's has; else what its pages are called decides, as always in format v2, since a hole and zeros are the same to who reads.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::leased;
use crate::activity::Activity;
use crate::convert;
use crate::format::content::ContentId;
use crate::fs::scan;
use crate::inspect::{self, FileDetails, PathDetails, SymlinkDetails};
use crate::limit::Limits;
use crate::metrics::Operation as Verb;
use crate::pass::{Hashing, Output, content_of, pass};
use crate::snapshot::{Contents, SnapshotRequest, listed};
use crate::store::Store;
use crate::words::error::{At, Error, Result};
use crate::words::progress::Warning;
use crate::words::reference::Reference;
use crate::words::relpath::RelPath;

/// What is in a directory, in a snapshot's words. Files have no names of contents, but for `changed`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectoryDetails {
    /// Its regular files, by path. A promise is the snapshot's: a directory makes none.
    pub files: Vec<FileDetails>,
    /// Its directories, by path.
    pub directories: Vec<PathDetails>,
    /// Its symbolic links, by path.
    pub symlinks: Vec<SymlinkDetails>,
    /// Its whiteouts, by path.
    pub whiteouts: Vec<PathDetails>,
    /// Files that the snapshot has too, with other bytes.
    pub changed: Vec<PathBuf>,
    /// What the caller may care about.
    pub warnings: Vec<Warning>,
}

/// Compares. Blocks.
pub(crate) fn compare(
    store: &Arc<Store>,
    limits: &Limits,
    reference: &Reference,
    directory: &Path,
    activity: &Activity,
) -> Result<DirectoryDetails> {
    let (_operation, source) = leased(store, reference, Verb::Diff)?;
    let pinned = source.reference.clone().with_digest(source.manifest_digest);
    let details = inspect::inspect(store, &pinned)?;
    let (_, contents) = convert::contents(store, &source, activity)?;
    let files = details.files.iter();
    let known = files.map(|file| (file.entry.relative_path.as_path(), file));
    let compared = Compared {
        known: known.collect(),
        contents: &*contents,
        activity,
    };
    let request = SnapshotRequest::new("directory", "now", directory);
    let look = |path: &RelPath, file: &File, size| compared.is_changed(path, file, size);
    let document = listed(store, limits, &request, activity, &look)?;
    let changed = document.files.iter().filter(|file| file.content);
    let changed = changed.map(|file| file.path.as_path().to_owned()).collect();
    let mut found = inspect::entries(document.map(|_| None::<ContentId>));
    for file in &mut found.files {
        let was = compared.known.get(file.entry.relative_path.as_path());
        file.read_only = was.is_some_and(|was| was.read_only);
    }
    Ok(DirectoryDetails {
        files: found.files,
        directories: found.directories,
        symlinks: found.symlinks,
        whiteouts: found.whiteouts,
        changed,
        warnings: Vec::new(),
    })
}

struct Compared<'a> {
    known: HashMap<&'a Path, &'a FileDetails>,
    contents: &'a dyn Contents,
    activity: &'a Activity,
}

impl Compared<'_> {
    fn is_changed(&self, path: &RelPath, file: &File, size: u64) -> Result<bool> {
        let Some(known) = self.known.get(path.as_path()) else {
            return Ok(false);
        };
        if known.size != size {
            return Ok(true);
        }
        let at = |result: io::Result<bool>| match result {
            // It became shorter meanwhile.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            result => result.at("read", path.as_path()),
        };
        let is_same = at(self.has_checksum(known, file));
        self.activity.check()?;
        if is_same? {
            return Ok(false);
        }
        let wanted = self.content_of_known(known)?;
        let found = content_of(file, size, &|| self.activity.advance(0));
        self.activity.check()?;
        at(found.map(|found| found == wanted)).map(|is_same| !is_same)
    }

    fn has_checksum(&self, known: &FileDetails, file: &File) -> io::Result<bool> {
        if known.content.is_some() || known.digest.is_none() {
            return Ok(false);
        }
        let map = scan::extents(file, known.size)?;
        let progress = |bytes| self.activity.advance(bytes);
        let found = pass(file, &map, Output::None, Hashing::Both, &progress)?;
        Ok(match known.checksum {
            Some(checksum) => checksum == found.checksum,
            // Of the Go library.
            None => known.digest == Some(found.digest),
        })
    }

    fn content_of_known(&self, known: &FileDetails) -> Result<ContentId> {
        if let Some(content) = known.content {
            return Ok(content);
        }
        let first = known
            .hardlink_of
            .as_ref()
            .unwrap_or(&known.entry.relative_path);
        let first = RelPath::normalize(first).map_err(|error| Error::damaged(error.to_string()))?;
        let given = self.contents.open(&first)?;
        let content = content_of(&given.file, known.size, &|| self.activity.advance(0));
        self.activity.check()?;
        content.at("read", first.as_path())
    }
}

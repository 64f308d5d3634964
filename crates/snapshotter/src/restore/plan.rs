//! What a restore has to make, worked out from the document alone.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use crate::format::document::{Document, FileEntry, SymlinkEntry};
use crate::snapshot::is_base;
use crate::words::entry::Attributes;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::relpath::RelPath;

/// What is to be made. The document has been validated: paths are unique, relative and normal, and nothing that is not
/// a directory has entries below it.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Every directory there has to be, parents first.
    pub(super) directories: Vec<PlannedDirectory>,
    /// Regular files, those of a directory together.
    pub(super) files: Vec<FileEntry>,
    /// Further names of files in `files`, those of a file together.
    pub(super) links: Vec<Link>,
    pub(super) symlinks: Vec<SymlinkEntry>,
}

impl Plan {
    /// Every path that will be a file or a symlink.
    pub(super) fn names(&self) -> impl Iterator<Item = &RelPath> {
        self.files
            .iter()
            .map(|file| &file.path)
            .chain(self.links.iter().map(|link| &link.path))
            .chain(self.symlinks.iter().map(|symlink| &symlink.path))
    }

    /// The files in small groups, each of one directory, so that one directory's files can be shared between threads.
    pub(super) fn groups(&self) -> Vec<&[FileEntry]> {
        let mut groups = Vec::new();
        let mut left = self.files.as_slice();
        while !left.is_empty() {
            let (group, rest) = left.split_at(length_of_group(left));
            groups.push(group);
            left = rest;
        }
        groups
    }

    /// The names in the output that are to share a file's inode.
    pub(super) fn others(&self, file: &RelPath) -> &[Link] {
        let first = self.links.partition_point(|link| link.of < *file);
        let count = self.links[first..].partition_point(|link| link.of == *file);
        &self.links[first..first + count]
    }
}

/// How many files at the beginning of a list, which is not empty, are a group.
fn length_of_group(files: &[FileEntry]) -> usize {
    let parent = files[0].path.split().0;
    let mut bytes = 0_u64;
    let fits = |file: &&FileEntry| {
        bytes = bytes.saturating_add(file.size);
        file.path.split().0 == parent && bytes <= GROUP_BYTES
    };
    files.iter().take(GROUP).take_while(fits).count().max(1)
}

#[derive(Debug)]
pub(super) struct PlannedDirectory {
    pub(super) path: RelPath,
    /// What the snapshot says of it; `None`: only a parent of something.
    pub(super) attributes: Option<Attributes>,
    /// Whether it was asked for, or is only on the way to something that was.
    pub(super) selected: bool,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) path: RelPath,
    /// The file in `files` it is a further name of.
    pub(super) of: RelPath,
}

/// Files of a group at most.
const GROUP: usize = 64;

/// Files of a group hold at most this many bytes, unless it is one file.
const GROUP_BYTES: u64 = 4 << 20;

/// Works out what to make of a document, or of the part below `paths`.
pub(super) fn plan(document: Document, paths: &[PathBuf]) -> Result<Plan> {
    let selection = Selection::new(paths)?;
    selection.require_all_found(&document)?;
    let mut directories = Directories::default();
    for entry in document.directories {
        let selected = selection.contains(&entry.path);
        directories.know(entry.path, entry.attributes, selected);
    }
    let (mut files, mut symlinks) = (document.files, document.symlinks);
    symlinks.retain(|entry| selection.contains(&entry.path));
    files.retain(|entry| selection.contains(&entry.path));
    for path in files
        .iter()
        .map(|file| &file.path)
        .chain(symlinks.iter().map(|symlink| &symlink.path))
    {
        directories.need_parents(path)?;
    }
    let links = split_links(&mut files, &selection);
    files.sort_unstable_by(|a, b| a.path.split().cmp(&b.path.split()));
    Ok(Plan {
        directories: directories.planned()?,
        files,
        links,
        symlinks,
    })
}

/// The paths asked for; none means all.
pub(super) struct Selection(Vec<(RelPath, PathBuf)>);

impl Selection {
    pub(super) fn new(paths: &[PathBuf]) -> Result<Self> {
        if paths.iter().any(|given| is_base(given)) {
            return Ok(Self(Vec::new()));
        }
        let selected = paths.iter().map(|given| {
            let path = RelPath::normalize(given).map_err(|error| {
                Error::invalid(format!("paths: {error}"))
                    .with_path(given)
                    .with_hint("paths are relative to output_dir and stay inside it")
            })?;
            Ok((path, given.clone()))
        });
        Ok(Self(selected.collect::<Result<_>>()?))
    }

    pub(super) fn contains(&self, path: &RelPath) -> bool {
        self.0.is_empty()
            || self
                .0
                .iter()
                .any(|(selected, _)| path.starts_with(selected))
    }

    fn require_all_found(&self, document: &Document) -> Result<()> {
        for (selected, given) in &self.0 {
            let mut paths = document
                .files
                .iter()
                .map(|entry| &entry.path)
                .chain(document.directories.iter().map(|entry| &entry.path))
                .chain(document.symlinks.iter().map(|entry| &entry.path));
            if !paths.any(|path| path.starts_with(selected)) {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("the snapshot has no {}", given.display()),
                )
                .with_path(given));
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Directories {
    known: HashMap<RelPath, (Attributes, bool)>,
    needed: BTreeMap<RelPath, ()>,
}

impl Directories {
    fn know(&mut self, path: RelPath, attributes: Attributes, selected: bool) {
        self.known.insert(path, (attributes, selected));
    }

    fn need_parents(&mut self, path: &RelPath) -> Result<()> {
        for ancestor in path.ancestors() {
            let ancestor =
                RelPath::from_bytes(ancestor).map_err(|error| Error::damaged(error.to_string()))?;
            if self.needed.insert(ancestor, ()).is_some() {
                // Its own parents were added with it.
                break;
            }
        }
        Ok(())
    }

    /// A path sorts after its parents, because they are prefixes of it.
    fn planned(mut self) -> Result<Vec<PlannedDirectory>> {
        let selected: Vec<RelPath> = self
            .known
            .iter()
            .filter(|(_, (_, selected))| *selected)
            .map(|(path, _)| path.clone())
            .collect();
        for path in selected {
            self.need_parents(&path)?;
            self.needed.insert(path, ());
        }
        let known = &mut self.known;
        Ok(self
            .needed
            .into_keys()
            .map(|path| match known.remove(&path) {
                Some((attributes, selected)) => PlannedDirectory {
                    path,
                    attributes: Some(attributes),
                    selected,
                },
                None => PlannedDirectory {
                    path,
                    attributes: None,
                    selected: false,
                },
            })
            .collect())
    }
}

/// Takes the further names out. Where the first name was not asked for, the next one takes its place.
fn split_links(files: &mut Vec<FileEntry>, selection: &Selection) -> Vec<Link> {
    let further: Vec<FileEntry> = files
        .extract_if(.., |entry| entry.hardlink_of.is_some())
        .collect();
    let mut instead: HashMap<RelPath, RelPath> = HashMap::new();
    let mut links = Vec::new();
    for mut entry in further {
        // Only such entries were taken.
        let Some(of) = entry.hardlink_of.take() else {
            continue;
        };
        let path = entry.path.clone();
        if selection.contains(&of) {
            links.push(Link { path, of });
        } else if let Some(of) = instead.get(&of).cloned() {
            links.push(Link { path, of });
        } else {
            instead.insert(of, path);
            files.push(entry);
        }
    }
    links.sort_by(|a, b| a.of.cmp(&b.of));
    links
}

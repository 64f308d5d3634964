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
    /// Regular files by directory: small groups, so that one directory's files can be shared between threads.
    pub(super) groups: Vec<Group>,
    /// Further names of files in `groups`.
    pub(super) links: Vec<Link>,
    pub(super) symlinks: Vec<SymlinkEntry>,
}

impl Plan {
    /// Every path that will be a file or a symlink.
    pub(super) fn names(&self) -> impl Iterator<Item = &RelPath> {
        self.groups
            .iter()
            .flat_map(|group| group.files.iter().map(|file| &file.entry.path))
            .chain(self.links.iter().map(|link| &link.path))
            .chain(self.symlinks.iter().map(|symlink| &symlink.path))
    }
}

#[derive(Debug)]
pub(super) struct PlannedDirectory {
    pub(super) path: RelPath,
    /// What the snapshot says of it; `None`: only a parent of something.
    pub(super) attributes: Option<Attributes>,
    /// Whether it was asked for, or is only on the way to something that was.
    pub(super) selected: bool,
}

/// Files in one directory.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) parent: Option<RelPath>,
    pub(super) files: Vec<PlannedFile>,
}

#[derive(Debug)]
pub(super) struct PlannedFile {
    pub(super) entry: FileEntry,
    /// Names in the output that are to share its inode.
    pub(super) others: Vec<RelPath>,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) path: RelPath,
    /// The file in `groups` it is a further name of.
    pub(super) of: RelPath,
}

/// Files of a group hold at most this many bytes, unless it is one file.
const GROUP_BYTES: u64 = 4 << 20;

/// Works out what to make of a document, or of the part below `paths`, in groups of so many files at most.
pub(super) fn plan(document: Document, paths: &[PathBuf], together: usize) -> Result<Plan> {
    let selection = Selection::new(paths)?;
    selection.require_all_found(&document)?;
    let mut directories = Directories::default();
    for entry in document.directories {
        let selected = selection.contains(&entry.path);
        directories.know(entry.path, entry.attributes, selected);
    }
    let symlinks: Vec<SymlinkEntry> = document
        .symlinks
        .into_iter()
        .filter(|entry| selection.contains(&entry.path))
        .collect();
    let files: Vec<FileEntry> = document
        .files
        .into_iter()
        .filter(|entry| selection.contains(&entry.path))
        .collect();
    for path in files
        .iter()
        .map(|file| &file.path)
        .chain(symlinks.iter().map(|symlink| &symlink.path))
    {
        directories.need_parents(path)?;
    }
    let (files, links) = split_links(files);
    Ok(Plan {
        directories: directories.planned()?,
        groups: group(files, together),
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

/// Separates first names from further ones. Where the first name was not asked for, the next one takes its place.
fn split_links(files: Vec<FileEntry>) -> (Vec<PlannedFile>, Vec<Link>) {
    let mut index: HashMap<RelPath, usize> = HashMap::new();
    let mut planned: Vec<PlannedFile> = Vec::with_capacity(files.len());
    let (mains, seconds): (Vec<_>, Vec<_>) = files
        .into_iter()
        .partition(|entry| entry.hardlink_of.is_none());
    for entry in mains {
        index.insert(entry.path.clone(), planned.len());
        planned.push(PlannedFile {
            entry,
            others: Vec::new(),
        });
    }
    let mut links = Vec::new();
    for entry in seconds {
        // The partition left only entries that name another.
        let Some(of) = entry.hardlink_of.clone() else {
            continue;
        };
        if let Some(&main) = index.get(&of) {
            let main = &mut planned[main];
            main.others.push(entry.path.clone());
            links.push(Link {
                path: entry.path,
                of: main.entry.path.clone(),
            });
        } else {
            index.insert(of, planned.len());
            planned.push(PlannedFile {
                entry,
                others: Vec::new(),
            });
        }
    }
    (planned, links)
}

fn group(mut files: Vec<PlannedFile>, together: usize) -> Vec<Group> {
    files.sort_by(|a, b| {
        (a.entry.path.parent(), a.entry.path.file_name())
            .cmp(&(b.entry.path.parent(), b.entry.path.file_name()))
    });
    let mut groups: Vec<Group> = Vec::new();
    let mut bytes = 0;
    for file in files {
        let parent = file.entry.path.parent();
        let size = file.entry.size;
        match groups.last_mut() {
            Some(group)
                if group.parent == parent
                    && group.files.len() < together
                    && bytes + size <= GROUP_BYTES =>
            {
                bytes += size;
                group.files.push(file);
            }
            _ => {
                bytes = size;
                groups.push(Group {
                    parent,
                    files: vec![file],
                });
            }
        }
    }
    groups
}

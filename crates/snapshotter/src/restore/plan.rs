//! What a restore has to make, worked out from the document alone.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use super::RestoreRequest;
use super::content::{Content, FileEntry};
use crate::format::document::{Document, SymlinkEntry, WhiteoutEntry};
use crate::words::entry::{Attributes, SETID_BITS};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::patterns::{Patterns, Reach};
use crate::words::relpath::{RelPath, is_base};

/// What is to be made. The document has been validated: paths are unique, relative and normal, and nothing that is not
/// a directory has entries below it.
#[derive(Debug)]
pub(super) struct Plan {
    /// Every directory there has to be, parents first.
    pub(super) directories: Vec<PlannedDirectory>,
    /// Regular files, those of a directory together.
    pub(super) files: Vec<FileEntry>,
    /// Files of a group at most.
    together: usize,
    /// Further names of files in `files`, those of a file together.
    pub(super) links: Vec<Link>,
    pub(super) symlinks: Vec<SymlinkEntry>,
    pub(super) whiteouts: Vec<WhiteoutEntry>,
    pub(super) selection: Selection,
    /// What the snapshot has, asked for or not; only where the rest is to be deleted.
    pub(super) all: Option<Listed>,
}

impl Plan {
    /// Every path that will not be a directory.
    pub(super) fn names(&self) -> impl Iterator<Item = &RelPath> {
        self.files
            .iter()
            .map(|file| &file.path)
            .chain(self.links.iter().map(|link| &link.path))
            .chain(self.symlinks.iter().map(|symlink| &symlink.path))
            .chain(self.whiteouts.iter().map(|whiteout| &whiteout.path))
    }

    /// Takes the set-user-ID and set-group-ID bits off all files and directories, and returns which of those had any.
    pub(super) fn leave_out_setid(&mut self) -> Vec<RelPath> {
        let files = self.files.iter_mut();
        let files = files.map(|file| (&file.path, &mut file.attributes));
        let directories = self.directories.iter_mut().filter_map(|directory| {
            let attributes = directory.attributes.as_mut()?;
            Some((&directory.path, attributes))
        });
        let mut had = Vec::new();
        for (path, attributes) in files.chain(directories) {
            if attributes.mode & SETID_BITS != 0 {
                attributes.mode &= !SETID_BITS;
                had.push(path.clone());
            }
        }
        had
    }

    /// The files in small groups, each of one directory, so that one directory's files can be shared between threads.
    pub(super) fn groups(&self) -> Vec<&[FileEntry]> {
        let mut groups = Vec::new();
        let mut left = self.files.as_slice();
        while !left.is_empty() {
            let (group, rest) = left.split_at(length_of_group(left, self.together));
            groups.push(group);
            left = rest;
        }
        groups
    }

    /// The file with this name among `files`.
    pub(super) fn file(&self, path: &RelPath) -> Option<&FileEntry> {
        let found = self
            .files
            .binary_search_by(|file| file.path.split().cmp(&path.split()));
        found.ok().map(|index| &self.files[index])
    }

    /// The names in the output that are to share a file's inode.
    pub(super) fn others(&self, file: &RelPath) -> &[Link] {
        let first = self.links.partition_point(|link| link.of < *file);
        let count = self.links[first..].partition_point(|link| link.of == *file);
        &self.links[first..first + count]
    }
}

/// How many files at the beginning of a list, which is not empty, are a group.
fn length_of_group(files: &[FileEntry], together: usize) -> usize {
    let parent = files[0].path.split().0;
    let mut bytes = 0_u64;
    let fits = |file: &&FileEntry| {
        // What is in pages is read from its packs in one pass, whatever its size.
        if matches!(file.content, Content::Blob { .. }) {
            bytes = bytes.saturating_add(file.size);
        }
        file.path.split().0 == parent && bytes <= GROUP_BYTES
    };
    files.iter().take(together).take_while(fits).count().max(1)
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

/// Files of a group hold at most this many bytes, unless it is one file.
const GROUP_BYTES: u64 = 4 << 20;

/// Works out what to make of a document, or of the part that is asked for, in groups of so many files at most.
pub(super) fn plan(
    document: Document<Content>,
    request: &RestoreRequest,
    together: usize,
) -> Result<Plan> {
    if request.delete && request.no_clobber {
        return Err(Error::invalid("delete and no_clobber exclude each other"));
    }
    let selection = Selection::new(request)?;
    let listed = (request.delete || !selection.asked.is_empty()).then(|| Listed::of(&document));
    if let Some(listed) = &listed {
        selection.require_all_found(listed)?;
    }
    let mut directories = Directories::default();
    for entry in document.directories {
        let selected = selection.contains(&entry.path, true);
        directories.know(entry.path, entry.attributes, selected);
    }
    let (mut files, mut symlinks) = (document.files, document.symlinks);
    let mut whiteouts = document.whiteouts;
    files.retain(|entry| selection.contains(&entry.path, false));
    symlinks.retain(|entry| selection.contains(&entry.path, false));
    whiteouts.retain(|entry| selection.contains(&entry.path, false));
    for path in files
        .iter()
        .map(|file| &file.path)
        .chain(symlinks.iter().map(|symlink| &symlink.path))
        .chain(whiteouts.iter().map(|whiteout| &whiteout.path))
    {
        directories.need_parents(path)?;
    }
    let links = split_links(&mut files, &selection);
    files.sort_unstable_by(|a, b| a.path.split().cmp(&b.path.split()));
    Ok(Plan {
        directories: directories.planned()?,
        files,
        together,
        links,
        symlinks,
        whiteouts,
        selection,
        all: listed.filter(|_| request.delete),
    })
}

/// The paths of a document with a slash at their end, in byte order: what is below a directory follows it there, and nothing else
/// comes between.
#[derive(Debug)]
pub(super) struct Listed(Vec<Vec<u8>>);

impl Listed {
    fn of<C>(document: &Document<C>) -> Self {
        let files = document.files.iter().map(|entry| &entry.path);
        let directories = document.directories.iter().map(|entry| &entry.path);
        let symlinks = document.symlinks.iter().map(|entry| &entry.path);
        let whiteouts = document.whiteouts.iter().map(|entry| &entry.path);
        let paths = files.chain(directories).chain(symlinks).chain(whiteouts);
        let mut paths: Vec<Vec<u8>> = paths.map(with_slash).collect();
        paths.sort_unstable();
        Self(paths)
    }

    /// Whether it is listed, or anything below it.
    pub(super) fn has(&self, path: &RelPath) -> bool {
        self.has_below(&with_slash(path))
    }

    fn has_below(&self, path: &[u8]) -> bool {
        let first = self.0.partition_point(|listed| listed.as_slice() < path);
        let next = self.0.get(first);
        next.is_some_and(|next| next.starts_with(path))
    }
}

/// What is asked for: paths, of which none means all, and patterns. Paths are compared with a slash at their end, as
/// [`Listed`] has them.
#[derive(Debug)]
pub(super) struct Selection {
    asked: Vec<(Vec<u8>, PathBuf)>,
    /// Those that are below no other, in byte order: the last one that is not after a path is the one it is in, or none is.
    tops: Vec<Vec<u8>>,
    include: Patterns,
    exclude: Patterns,
}

impl Selection {
    pub(super) fn new(request: &RestoreRequest) -> Result<Self> {
        let all = request.paths.iter().any(|given| is_base(given));
        let paths = if all { &[] } else { request.paths.as_slice() };
        let asked = paths.iter().map(|given| {
            let path = RelPath::normalize(given).map_err(|error| {
                Error::invalid(format!("paths: {error}"))
                    .with_path(given)
                    .with_hint("paths are relative to output_dir and stay inside it")
            })?;
            Ok((with_slash(&path), given.clone()))
        });
        let asked: Vec<(Vec<u8>, PathBuf)> = asked.collect::<Result<_>>()?;
        let mut tops: Vec<Vec<u8>> = asked.iter().map(|(path, _)| path.clone()).collect();
        tops.sort_unstable();
        tops.dedup_by(|path, top| path.starts_with(top));
        Ok(Self {
            asked,
            tops,
            include: Patterns::new("include", &request.include, Reach::Anywhere)?,
            exclude: Patterns::new("exclude", &request.exclude, Reach::Anywhere)?,
        })
    }

    pub(super) fn contains(&self, path: &RelPath, is_dir: bool) -> bool {
        self.is_in_paths(path)
            && (self.include.is_empty() || self.include.covers(path, is_dir))
            && !self.exclude.excludes(path, is_dir)
    }

    /// What there is to say of patterns that matched nothing.
    pub(super) fn complaints(&self) -> impl Iterator<Item = String> {
        let complaints = self.include.complaints().into_iter();
        complaints.chain(self.exclude.complaints())
    }

    fn is_in_paths(&self, path: &RelPath) -> bool {
        if self.tops.is_empty() {
            return true;
        }
        let path = with_slash(path);
        let after = self.tops.partition_point(|top| *top <= path);
        after > 0 && path.starts_with(&self.tops[after - 1])
    }

    fn require_all_found(&self, listed: &Listed) -> Result<()> {
        let absent = self
            .asked
            .iter()
            .find(|(asked, _)| !listed.has_below(asked));
        let Some((_, given)) = absent else {
            return Ok(());
        };
        let text = format!("the snapshot has no {}", given.display());
        Err(Error::new(ErrorKind::NotFound, text).with_path(given))
    }
}

fn with_slash(path: &RelPath) -> Vec<u8> {
    [path.as_bytes(), b"/"].concat()
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
        if selection.contains(&of, false) {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::document::DirectoryEntry;

    fn directories(paths: impl IntoIterator<Item = RelPath>) -> Document {
        let entry = |path| DirectoryEntry {
            path,
            attributes: Attributes::default(),
        };
        Document {
            directories: paths.into_iter().map(entry).collect(),
            ..Document::default()
        }
    }

    fn selected(paths: impl IntoIterator<Item = String>) -> Selection {
        let request = RestoreRequest::new("vm:v1".parse().unwrap(), "output");
        Selection::new(&request.paths(paths)).unwrap()
    }

    // Each path of the document was compared with each that was asked for: a restore of a part by 20,000 paths made ten
    // thousand million steps before it made a file.
    #[test]
    fn twenty_thousand_paths_of_twenty_thousand_entries_are_looked_up() {
        let name = |number: u32| format!("directory-{number}/memory");
        let paths = (0..20_000).map(name);
        let entries = (0..20_000).map(|number| RelPath::from_bytes(name(number)).unwrap());
        let selection = selected(paths);
        let document = directories(entries);
        selection.require_all_found(&Listed::of(&document)).unwrap();
        let mut found = document.directories.iter();
        assert!(found.all(|entry| selection.contains(&entry.path, true)));
        // What is compared does not grow with what is asked for.
        assert_eq!(selection.tops.len(), 20_000);
    }

    proptest! {
        #[test]
        fn a_part_is_what_is_asked_for_and_all_below(
            asked in prop::collection::vec("[ab-]{1,2}(/[ab-]{1,2}){0,3}", 1..8),
            path in "[ab-]{1,2}(/[ab-]{1,2}){0,4}",
        ) {
            let path = RelPath::from_bytes(path).unwrap();
            let selection = selected(asked.clone());
            let asked = asked.into_iter().map(|one| RelPath::from_bytes(one).unwrap());
            let asked: Vec<RelPath> = asked.collect();
            let is_in = asked.iter().any(|one| path.starts_with(one));
            prop_assert_eq!(selection.contains(&path, true), is_in);
            let all_found = asked.iter().all(|one| path.starts_with(one));
            let listed = Listed::of(&directories([path]));
            prop_assert_eq!(selection.require_all_found(&listed).is_ok(), all_found);
        }
    }
}

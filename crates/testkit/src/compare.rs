//! Finds every difference between two directory trees: names, kinds, bytes, holes, shared inodes,
//! modes, times, owners, extended attributes and link targets. Follows no symlink; the attributes
//! of the two base directories don't count.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, FileType, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::extents::{self, Extent};
use crate::fsstat::entries;

const CHUNK: u64 = 1 << 20;
const LISTED: usize = 60;

/// What is asked of the holes of a file. The size and every byte must be equal in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Holes {
    /// The same extents.
    #[default]
    Exact,
    /// Data only where the expected file has data: it may have more holes.
    NoMoreDataThan,
    /// Nothing.
    Ignore,
}

/// What is asked of names that share an inode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sharing {
    /// The same names share.
    #[default]
    Exact,
    /// Names that share an inode in the expected tree do so in the actual one; others may too.
    MayShareMore,
    /// Nothing.
    Ignore,
}

/// What counts as a difference; the default leaves nothing out.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where files have holes.
    pub holes: Holes,
    /// Which names are one inode.
    pub sharing: Sharing,
    /// Permission bits, setuid and its like included.
    pub mode: bool,
    /// Modification times, to the nanosecond.
    pub mtime: bool,
    /// Owner and group: compared only when root runs the test.
    pub owner: bool,
    /// `user.*` extended attributes.
    pub xattrs: bool,
    /// Attributes of directories; without it only that they are there.
    pub directories: bool,
    /// Attributes of symlinks; without it only where they lead.
    pub symlinks: bool,
    /// The actual tree may have names that the expected one hasn't.
    pub subset: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            holes: Holes::Exact,
            sharing: Sharing::Exact,
            mode: true,
            mtime: true,
            owner: true,
            xattrs: true,
            directories: true,
            symlinks: true,
            subset: false,
        }
    }
}

impl Options {
    /// Only names, kinds, bytes and link targets.
    pub fn contents() -> Self {
        Self {
            holes: Holes::Ignore,
            sharing: Sharing::Ignore,
            mode: false,
            mtime: false,
            owner: false,
            xattrs: false,
            directories: false,
            symlinks: false,
            subset: false,
        }
    }
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where, relative to the two directories; empty for these themselves.
    pub path: PathBuf,
    /// What.
    pub what: What,
}

/// What differs: the expected first, then the actual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It isn't in the actual tree.
    Missing,
    /// It isn't in the expected tree.
    Unexpected,
    /// One is a file, say, and one a directory.
    Kind(&'static str, &'static str),
    /// Size of a file.
    Size(u64, u64),
    /// The first byte that differs is at this offset.
    Bytes(u64),
    /// Extents of data.
    Holes(Vec<Extent>, Vec<Extent>),
    /// The names of the path's inode in the tree.
    Sharing(Vec<PathBuf>, Vec<PathBuf>),
    /// Permission bits.
    Mode(u32, u32),
    /// Seconds and nanoseconds.
    Mtime((i64, i64), (i64, i64)),
    /// Owner and group.
    Owner((u32, u32), (u32, u32)),
    /// The value of an extended attribute, if it is there.
    Xattr(OsString, Option<Vec<u8>>, Option<Vec<u8>>),
    /// Where a symlink leads.
    Target(PathBuf, PathBuf),
    /// Numbers of a device.
    Device(u64, u64),
    /// It couldn't be compared.
    Unreadable(String),
}

/// All differences, by path. Empty: the trees are the same.
pub fn compare(expected: &Path, actual: &Path) -> Vec<Difference> {
    compare_with(expected, actual, &Options::default())
}

/// As [`compare`], with less (or more) asked.
pub fn compare_with(expected: &Path, actual: &Path, options: &Options) -> Vec<Difference> {
    match Comparison::new(expected, actual, options) {
        Ok(comparison) => comparison.run(),
        Err(error) => vec![Difference {
            path: PathBuf::new(),
            what: What::Unreadable(error.to_string()),
        }],
    }
}

/// Panics with the list of all differences if there are any.
///
/// # Panics
/// That is what it is for.
#[track_caller]
pub fn assert_same(expected: &Path, actual: &Path) {
    assert_same_with(expected, actual, &Options::default());
}

/// As [`assert_same`], with less (or more) asked.
///
/// # Panics
/// That is what it is for.
#[track_caller]
pub fn assert_same_with(expected: &Path, actual: &Path, options: &Options) {
    let differences = compare_with(expected, actual, options);
    assert!(
        differences.is_empty(),
        "{}",
        listing(expected, actual, &differences)
    );
}

fn listing(expected: &Path, actual: &Path, differences: &[Difference]) -> String {
    let count = differences.len();
    let mut text = format!(
        "{} and {} differ ({count}):\n",
        expected.display(),
        actual.display()
    );
    for difference in differences.iter().take(LISTED) {
        text += &format!("  {difference}\n");
    }
    if count > LISTED {
        text += &format!("  and {} more\n", count - LISTED);
    }
    text
}

type Entries = BTreeMap<PathBuf, Metadata>;

/// Two trees that are being compared.
struct Comparison<'a> {
    options: &'a Options,
    bases: [&'a Path; 2],
    entries: [Entries; 2],
    found: Vec<Difference>,
}

impl<'a> Comparison<'a> {
    fn new(expected: &'a Path, actual: &'a Path, options: &'a Options) -> io::Result<Self> {
        let entries = [entries(expected)?, entries(actual)?];
        Ok(Self {
            options,
            bases: [expected, actual],
            entries,
            found: Vec::new(),
        })
    }

    fn run(mut self) -> Vec<Difference> {
        self.names();
        for (path, pair) in self.common() {
            if let Err(error) = self.pair(&path, &pair) {
                self.add(&path, What::Unreadable(error.to_string()));
            }
        }
        if self.options.sharing != Sharing::Ignore {
            self.sharing();
        }
        self.found.sort_by(|one, other| one.path.cmp(&other.path));
        self.found
    }

    fn add(&mut self, path: &Path, what: What) {
        self.found.push(Difference {
            path: path.into(),
            what,
        });
    }

    fn add_if_unequal<T: PartialEq>(
        &mut self,
        path: &Path,
        what: fn(T, T) -> What,
        [expected, actual]: [T; 2],
    ) {
        if expected != actual {
            self.add(path, what(expected, actual));
        }
    }

    fn names(&mut self) {
        let only_in = |one: &Entries, other: &Entries| -> Vec<PathBuf> {
            one.keys()
                .filter(|path| !other.contains_key(*path))
                .cloned()
                .collect()
        };
        let [expected, actual] = &self.entries;
        let (missing, unexpected) = (only_in(expected, actual), only_in(actual, expected));
        for path in missing {
            self.add(&path, What::Missing);
        }
        for path in unexpected
            .iter()
            .filter(|_| !self.options.subset)
            .cloned()
            .collect::<Vec<_>>()
        {
            self.add(&path, What::Unexpected);
        }
    }

    fn common(&self) -> Vec<(PathBuf, [Metadata; 2])> {
        let [expected, actual] = &self.entries;
        let both = |(path, one): (&PathBuf, &Metadata)| {
            Some((path.clone(), [one.clone(), actual.get(path)?.clone()]))
        };
        expected.iter().filter_map(both).collect()
    }

    fn pair(&mut self, path: &Path, pair: &[Metadata; 2]) -> io::Result<()> {
        let kinds = pair.each_ref().map(|metadata| kind(metadata.file_type()));
        if kinds[0] != kinds[1] {
            self.add(path, What::Kind(kinds[0], kinds[1]));
            return Ok(());
        }
        self.attributes(path, pair)?;
        match kinds[0] {
            "file" => self.file(path, pair),
            "symlink" => self.target(path),
            _ => {
                self.add_if_unequal(path, What::Device, pair.each_ref().map(MetadataExt::rdev));
                Ok(())
            }
        }
    }

    fn attributes(&mut self, path: &Path, pair: &[Metadata; 2]) -> io::Result<()> {
        let (is_dir, is_symlink) = (pair[0].is_dir(), pair[0].is_symlink());
        if (is_dir && !self.options.directories) || (is_symlink && !self.options.symlinks) {
            return Ok(());
        }
        if self.options.mode && !is_symlink {
            self.add_if_unequal(
                path,
                What::Mode,
                pair.each_ref().map(|metadata| metadata.mode() & 0o7777),
            );
        }
        if self.options.mtime {
            self.add_if_unequal(
                path,
                What::Mtime,
                pair.each_ref()
                    .map(|metadata| (metadata.mtime(), metadata.mtime_nsec())),
            );
        }
        if self.options.owner && rustix::process::geteuid().is_root() {
            self.add_if_unequal(
                path,
                What::Owner,
                pair.each_ref()
                    .map(|metadata| (metadata.uid(), metadata.gid())),
            );
        }
        if self.options.xattrs {
            self.xattrs(path)
        } else {
            Ok(())
        }
    }

    fn xattrs(&mut self, path: &Path) -> io::Result<()> {
        let [expected, actual] = self.bases.map(|base| user_xattrs(&base.join(path)));
        let (expected, actual) = (expected?, actual?);
        let names: BTreeSet<&OsString> = expected.keys().chain(actual.keys()).collect();
        for name in names {
            let (one, other) = (expected.get(name).cloned(), actual.get(name).cloned());
            if one != other {
                self.add(path, What::Xattr(name.clone(), one, other));
            }
        }
        Ok(())
    }

    fn target(&mut self, path: &Path) -> io::Result<()> {
        let [expected, actual] = self.bases.map(|base| fs::read_link(base.join(path)));
        self.add_if_unequal(path, What::Target, [expected?, actual?]);
        Ok(())
    }

    fn file(&mut self, path: &Path, pair: &[Metadata; 2]) -> io::Result<()> {
        if pair[0].len() != pair[1].len() {
            self.add(path, What::Size(pair[0].len(), pair[1].len()));
            return Ok(());
        }
        let one_inode_in_both_trees = inode(&pair[0]) == inode(&pair[1]);
        if one_inode_in_both_trees {
            return Ok(());
        }
        let [expected, actual] = self.bases.map(|base| extents::open(&base.join(path)));
        let (expected, actual) = (expected?, actual?);
        let data = [extents::of_file(&expected)?, extents::of_file(&actual)?];
        if let Some(offset) =
            first_difference(&expected, &actual, &extents::union(&data[0], &data[1]))?
        {
            self.add(path, What::Bytes(offset));
        }
        self.holes(path, data);
        Ok(())
    }

    fn holes(&mut self, path: &Path, [expected, actual]: [Vec<Extent>; 2]) {
        let fine = match self.options.holes {
            Holes::Exact => expected == actual,
            Holes::NoMoreDataThan => extents::covers(&expected, &actual),
            Holes::Ignore => true,
        };
        if !fine {
            self.add(path, What::Holes(expected, actual));
        }
    }

    /// Compares, for the names that both trees have, the sets of names that are one inode.
    fn sharing(&mut self) {
        let common = self.common();
        let of = |side: usize| {
            groups(
                common
                    .iter()
                    .map(|(path, pair)| (path.as_path(), &pair[side])),
            )
        };
        let [expected, actual] = [of(0), of(1)];
        let mut seen = BTreeSet::new();
        for (path, names) in &expected {
            let others = &actual[path];
            let fine = match self.options.sharing {
                Sharing::MayShareMore => names.is_subset(others),
                _ => names == others,
            };
            if !fine && seen.insert((names, others)) {
                let list = |names: &BTreeSet<&Path>| names.iter().map(PathBuf::from).collect();
                self.found.push(Difference {
                    path: path.into(),
                    what: What::Sharing(list(names), list(others)),
                });
            }
        }
    }
}

/// For each path that isn't a directory, all paths that are the same inode.
fn groups<'p>(
    paths: impl Iterator<Item = (&'p Path, &'p Metadata)>,
) -> BTreeMap<&'p Path, BTreeSet<&'p Path>> {
    let mut names: HashMap<(u64, u64), BTreeSet<&Path>> = HashMap::new();
    let files: Vec<_> = paths.filter(|(_, metadata)| !metadata.is_dir()).collect();
    for (path, metadata) in &files {
        names.entry(inode(metadata)).or_default().insert(path);
    }
    files
        .into_iter()
        .map(|(path, metadata)| (path, names[&inode(metadata)].clone()))
        .collect()
}

fn inode(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn kind(file_type: FileType) -> &'static str {
    match file_type {
        t if t.is_file() => "file",
        t if t.is_dir() => "directory",
        t if t.is_symlink() => "symlink",
        t if t.is_fifo() => "fifo",
        t if t.is_socket() => "socket",
        t if t.is_char_device() => "character device",
        _ => "block device",
    }
}

/// Reads only where one of the two has data: elsewhere both are zeros.
fn first_difference(expected: &File, actual: &File, data: &[Extent]) -> io::Result<Option<u64>> {
    let mut buffers = [vec![0; CHUNK as usize], vec![0; CHUNK as usize]];
    for (start, length) in data {
        for at in (*start..start + length).step_by(CHUNK as usize) {
            let now = CHUNK.min(start + length - at) as usize;
            let [one, other] = &mut buffers;
            expected.read_exact_at(&mut one[..now], at)?;
            actual.read_exact_at(&mut other[..now], at)?;
            if one[..now] != other[..now] {
                let inside = one
                    .iter()
                    .zip(&*other)
                    .position(|(one, other)| one != other);
                return Ok(inside.map(|inside| at + inside as u64));
            }
        }
    }
    Ok(None)
}

/// The `user.*` attributes of a path, a symlink's own; none where the filesystem has none.
fn user_xattrs(path: &Path) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
    let mut list = Vec::with_capacity(64 << 10);
    match rustix::fs::llistxattr(path, rustix::buffer::spare_capacity(&mut list)) {
        Ok(_) => {}
        Err(Errno::NOTSUP) => return Ok(BTreeMap::new()),
        Err(error) => return Err(error.into()),
    }
    list.split(|byte| *byte == 0)
        .filter(|name| name.starts_with(b"user."))
        .map(|name| Ok((std::ffi::OsStr::from_bytes(name).into(), xattr(path, name)?)))
        .collect()
}

fn xattr(path: &Path, name: &[u8]) -> io::Result<Vec<u8>> {
    let mut value = Vec::with_capacity(64 << 10);
    rustix::fs::lgetxattr(path, name, rustix::buffer::spare_capacity(&mut value))?;
    Ok(value)
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.path, self.what)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(f, "missing"),
            Self::Unexpected => write!(f, "not expected"),
            Self::Kind(expected, actual) => {
                write!(f, "a {expected} was expected, this is a {actual}")
            }
            Self::Size(expected, actual) => write!(f, "size {expected} was expected, is {actual}"),
            Self::Bytes(offset) => write!(f, "bytes differ from offset {offset} on"),
            Self::Holes(expected, actual) => write!(
                f,
                "data at {} was expected, is at {}",
                Short(expected),
                Short(actual)
            ),
            Self::Sharing(expected, actual) => write!(
                f,
                "one inode was expected for {}, is for {}",
                Short(expected),
                Short(actual)
            ),
            Self::Mode(expected, actual) => {
                write!(f, "mode {expected:04o} was expected, is {actual:04o}")
            }
            Self::Mtime(expected, actual) => {
                write!(f, "mtime {expected:?} was expected, is {actual:?}")
            }
            Self::Owner(expected, actual) => {
                write!(f, "owner {expected:?} was expected, is {actual:?}")
            }
            Self::Xattr(name, expected, actual) => write!(
                f,
                "{name:?} {} was expected, is {}",
                Value(expected),
                Value(actual)
            ),
            Self::Target(expected, actual) => {
                write!(f, "target {expected:?} was expected, is {actual:?}")
            }
            Self::Device(expected, actual) => {
                write!(f, "device {expected:#x} was expected, is {actual:#x}")
            }
            Self::Unreadable(error) => write!(f, "can't be compared: {error}"),
        }
    }
}

/// A list that may be long: the start of it.
struct Short<'a, T>(&'a [T]);

impl<T: fmt::Debug> fmt::Display for Short<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            0..=8 => write!(f, "{:?}", self.0),
            more => write!(f, "{:?} and {} more", &self.0[..8], more - 8),
        }
    }
}

/// An attribute's value, if it is there.
struct Value<'a>(&'a Option<Vec<u8>>);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => write!(
                f,
                "\"{}\" ({} bytes)",
                value[..value.len().min(40)].escape_ascii(),
                value.len()
            ),
            None => write!(f, "(none)"),
        }
    }
}

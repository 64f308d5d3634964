//! The names under a root, and opening or making it.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use super::private::in_store;
use super::tenant::{Tenant, store_dir};
use super::{cache, page_lists, reserve};
use crate::catalog::{Shard, Tree};
use crate::fs::counter::Counter;
use crate::fs::dir::Kind;
use crate::fs::lock::{self, Lock};
use crate::fs::space::ReadOnly;
use crate::fs::{Dir, Stat, is_privileged, space};
use crate::words::error::{At, Error, ErrorKind, Result};

/// The open directories of a root.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) dir: Dir,
    pub(crate) content: Dir,
    pub(crate) views: Dir,
    pub(crate) staging: Dir,
    pub(crate) trash: Dir,
    pub(crate) leases: Dir,
    pub(crate) metadata: Dir,
    /// Whose it is, where each tenant has its own.
    pub(super) tenant: Option<Tenant>,
    /// Where nothing can be written.
    pub(crate) read_only: Option<ReadOnly>,
    /// The device the store is on: files on another can be neither hardlinked nor reflinked.
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// Where wrong bytes are moved, when there are some.
pub(super) const QUARANTINE: &str = "quarantine";

const CATALOG: &str = "catalog.db";

/// Memory dumps hold secrets: nobody but the owner of the root looks inside.
const PRIVATE: u32 = 0o700;

/// A directory of this size has hundreds of names at most, in bytes.
pub(super) const FEW_NAMES: u64 = 64 << 10;

/// Shards that are not there in front of one that is, at most: an earlier release's objects had none, and count (a shard is
/// for 65,536).
const NOT_BEGUN: u32 = 256;

impl Root {
    /// Opens a root, making what is missing of its directories.
    ///
    /// # Errors
    /// `Unsupported` on a network filesystem and for a Go library's root; `PermissionDenied` where it cannot be written.
    pub(crate) fn open(path: &Path, tenant: Option<&str>) -> Result<Self> {
        let own = &store_dir(path, tenant);
        let dir = Dir::create_all(own, PRIVATE).map_err(|error| in_root(error, own))?;
        refuse_network_filesystem(&dir)?;
        let mut root = Self::open_directories(dir).map_err(|error| in_root(error, own))?;
        root.refuse_symlinks()?;
        if let Some(name) = tenant {
            let above = Dir::open(path)?.identity()?;
            let name = name.to_owned();
            root.tenant = Some(Tenant { name, above });
        }
        Ok(root)
    }

    fn open_directories(dir: Dir) -> Result<Self> {
        let read_only = space::read_only(&dir).at("examine", dir.path())?;
        let open = |of: &Dir, name: &str| {
            let name = OsStr::new(name);
            let opened = match read_only {
                Some(_) => of.open_dir(name),
                None => of.ensure_dir(name, PRIVATE),
            };
            opened.map_err(|error| in_store(error, of, name, read_only))
        };
        let metadata = open(&dir, "metadata")?;
        let storage = open(&dir, "storage")?;
        let under_storage = |name: &str| open(&open(&storage, name)?, "blake3");
        let stat = Stat::of_file(&dir).at("examine", dir.path())?;
        let root = Self {
            content: under_storage("content")?,
            views: under_storage("snapshot")?,
            staging: open(&dir, "staging")?,
            trash: open(&dir, "trash")?,
            leases: open(&dir, "leases")?,
            metadata,
            tenant: None,
            read_only,
            device: stat.dev,
            inode: stat.ino,
            dir,
        };
        root.sync_directories(&storage)?;
        Ok(root)
    }

    /// Makes the names of the directories durable before there is a catalog, whose promises are of what is in them. Whoever
    /// made them may not have come to that: so whoever finds no catalog does it, and nobody who finds one need.
    fn sync_directories(&self, storage: &Dir) -> Result<()> {
        let catalog = OsStr::new(CATALOG);
        let path = || self.metadata.path_of(catalog);
        let has_catalog = self.metadata.stat_if_any(catalog).at("examine", path())?;
        if has_catalog.is_some() {
            return Ok(());
        }
        for name in ["content", "snapshot"].map(OsStr::new) {
            storage.open_dir(name)?.sync()?;
        }
        storage.sync()?;
        self.dir.sync()?;
        // Those that the root is in may be as new. What is not ours to look at was there before, as is another filesystem.
        let above = self.dir.path().ancestors().skip(1);
        let above = above.map_while(|path| Dir::open(path).ok());
        above
            .take_while(|dir| dir.device().is_ok_and(|device| device == self.device))
            .try_for_each(|dir| dir.sync())
    }

    /// The directories of the store that are there now, as inodes: what leads to one, such as a mount, makes no difference.
    pub(crate) fn own_directories(&self) -> Result<OwnDirectories> {
        let mut own = OwnDirectories(HashSet::from([(self.device, self.inode)]));
        // What is in it is a store too, if another tenant's.
        own.0.extend(self.tenant.as_ref().map(|own| own.above));
        let top = [
            &self.content,
            &self.views,
            &self.leases,
            &self.metadata,
            &self.staging,
            &self.trash,
        ];
        for dir in top {
            own.0.insert(dir.identity()?);
        }
        let others = [
            "storage",
            "storage/content",
            "storage/snapshot",
            QUARANTINE,
            reserve::NAME,
            page_lists::NAME,
        ];
        for name in others {
            own.add(&self.dir, OsStr::new(name))?;
        }
        for owners in [&self.staging, &self.trash] {
            own.add_below(owners)?;
        }
        if own.add(&self.dir, OsStr::new(cache::NAME))? {
            own.add_below(&self.dir.open_dir(OsStr::new(cache::NAME))?)?;
        }
        for tree in [&self.content, &self.views] {
            if Stat::of_file(tree).at("examine", tree.path())?.size < FEW_NAMES {
                own.add_below(tree)?;
            } else {
                own.add_shards(tree)?;
            }
        }
        Ok(own)
    }

    /// Refuses a directory of the caller's that is inside the root: what is done there would be done to the store. Gives the
    /// store's directories, by which others are told from them.
    pub(crate) fn require_outside(&self, field: &str, dir: &Dir) -> Result<OwnDirectories> {
        let own = self.own_directories()?;
        // A parent that may not be looked at is not ours.
        if dir.is_within(|dir| own.contains(dir)).unwrap_or(false) {
            return Err(self.is_inside(format!("{field} {}", dir.path().display()), dir.path()));
        }
        Ok(own)
    }

    /// Says that this process has the store open, until the lock is dropped. A lease file would take an inode, and is for
    /// those who lease something.
    ///
    /// # Errors
    /// `Busy` while somebody has the store for itself.
    pub(crate) fn share(&self) -> Result<Lock> {
        let shared = lock::share(&self.metadata).at("lock", self.metadata.path())?;
        shared.ok_or_else(|| self.is_used(Stat::of_file(&self.metadata)))
    }

    /// Has the store for oneself, until the lock is dropped.
    ///
    /// # Errors
    /// `Busy` while anybody has it open.
    pub(crate) fn exclude(&self) -> Result<Lock> {
        let own = lock::exclude(&self.metadata).at("lock", self.metadata.path())?;
        own.ok_or_else(|| self.is_used(Stat::of_file(&self.metadata)))
    }

    /// The error of a store whose lock, of this file, somebody else holds.
    pub(crate) fn is_used(&self, locked: io::Result<Stat>) -> Error {
        let path = self.dir.path();
        let who = locked.map_or("another process".to_owned(), |locked| lock::holder(&locked));
        Error::new(
            ErrorKind::Busy,
            format!("{who} uses the store {}", path.display()),
        )
        .with_path(path)
        .with_hint("stop what uses it, and try again; `ps` shows what it holds")
    }

    /// Refuses a path whose directory, there or to be made, is inside the root.
    #[cfg(feature = "registry")]
    pub(crate) fn require_path_outside(&self, field: &str, path: &Path) -> Result<()> {
        match Dir::nearest(path) {
            Ok(near) => self.require_outside(field, &near).map(|_| ()),
            // Whoever uses it says what is wrong with it.
            Err(_) => Ok(()),
        }
    }

    /// The error of a directory that is the store's.
    pub(crate) fn is_inside(&self, what: impl std::fmt::Display, path: &Path) -> Error {
        let root = self.dir.path().display();
        Error::invalid(format!("{what} is inside the store {root}")).with_path(path)
    }

    /// Where the catalog is.
    pub(crate) fn catalog_path(&self) -> PathBuf {
        self.metadata.path_of(OsStr::new(CATALOG))
    }

    /// The number that a catalog which went back in time is behind of.
    pub(crate) fn generation(&self) -> Result<Counter> {
        Counter::new(&self.dir, "generation")
    }

    /// The directory of one of the trees of names.
    pub(crate) fn tree(&self, tree: Tree) -> &Dir {
        match tree {
            Tree::Content => &self.content,
            Tree::Views => &self.views,
        }
    }

    /// Every name in a tree, those in its shards with their directories, in byte order within each.
    pub(crate) fn names(&self, tree: Tree) -> Result<Vec<OsString>> {
        let dir = self.tree(tree);
        let mut names = Vec::new();
        for name in dir.names()? {
            let is_shard = Shard::parse(&name).is_some()
                && dir
                    .stat_if_any(&name)
                    .at("examine", dir.path_of(&name))?
                    .is_some_and(|stat| stat.kind == Kind::Directory);
            if is_shard {
                let inner = dir.open_dir(&name)?.names()?;
                names.extend(inner.iter().map(|inner| join(&name, inner)));
            } else {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Makes the names of a shard durable, and its own.
    pub(crate) fn sync_names(&self, shard: Shard) -> Result<()> {
        if let Some(directory) = shard.directory() {
            self.content.open_dir(&directory)?.sync()?;
        }
        self.content.sync()
    }

    /// Refuses to start a catalog over a store that has lost its own, or over somebody else's root.
    pub(crate) fn require_unused(&self) -> Result<()> {
        let path = self.dir.path();
        let go = OsStr::new("snapshotter.db");
        if self.metadata.stat_if_any(go).at("examine", path)?.is_some() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("{} is a root of the Go library", path.display()),
            )
            .with_path(path)
            .with_hint("choose another root: snapshots travel between the two through the registry, not on disk"));
        }
        let is_empty = |tree| Ok(self.names(tree)?.is_empty());
        if is_empty(Tree::Content)? && is_empty(Tree::Views)? {
            return Ok(());
        }
        Err(Error::damaged(format!("the store {} has lost its catalog", path.display()))
            .with_path(path)
            .with_hint("put metadata/ back from a backup, or let `rebuild` make a catalog of what is there"))
    }
}

/// The directories of a store, as inodes.
#[derive(Debug)]
pub(crate) struct OwnDirectories(HashSet<(u64, u64)>);

impl OwnDirectories {
    /// Whether a directory is one of the store's.
    pub(crate) fn contains(&self, dir: &Stat) -> bool {
        self.0.contains(&dir.identity())
    }

    /// Shards beside the many names of an earlier release, which need not be listed for that.
    fn add_shards(&mut self, tree: &Dir) -> Result<()> {
        each_shard(|name| self.add(tree, name))
    }

    /// Owners' directories and shards come and go.
    fn add_below(&mut self, dir: &Dir) -> Result<()> {
        for name in dir.names()? {
            self.add(dir, &name)?;
        }
        Ok(())
    }

    /// Adds a directory, if it is there and one.
    fn add(&mut self, dir: &Dir, name: &OsStr) -> Result<bool> {
        let stat = dir.stat_if_any(name).at("examine", dir.path_of(name))?;
        let found = stat.filter(|stat| stat.kind == Kind::Directory);
        self.0.extend(found.map(|found| found.identity()));
        Ok(found.is_some())
    }
}

/// Visits the names of shards until too many are not there, which `visit` says.
pub(super) fn each_shard(mut visit: impl FnMut(&OsStr) -> Result<bool>) -> Result<()> {
    let mut absent = 0;
    for name in (0..).map_while(|number| Shard::numbered(number).directory()) {
        absent = if visit(&name)? { 0 } else { absent + 1 };
        if absent > NOT_BEGUN {
            break;
        }
    }
    Ok(())
}

/// Makes a name in a tree of names. The first one in a shard makes its directory.
pub(crate) fn in_shard<T>(
    tree: &Dir,
    name: &OsStr,
    make: impl Fn() -> io::Result<T>,
) -> io::Result<T> {
    let shard = Path::new(name).parent().unwrap_or(Path::new(""));
    match make() {
        Err(error) if error.kind() == io::ErrorKind::NotFound && shard != Path::new("") => {
            tree.make_dir(shard.as_os_str(), PRIVATE)?;
            // Whoever owns the store goes on using it, whoever made this one.
            tree.give_to_owner(shard.as_os_str());
            make()
        }
        result => result,
    }
}

fn join(directory: &OsStr, name: &OsStr) -> OsString {
    Path::new(directory).join(name).into_os_string()
}

fn in_root(error: Error, path: &Path) -> Error {
    if error.kind() != ErrorKind::PermissionDenied {
        return error;
    }
    let hint = if is_privileged() {
        "the filesystem is mounted read-only, or refuses root: choose another root_dir"
    } else {
        "choose a root_dir this user can write, or run as the user that owns it"
    };
    Error::new(
        ErrorKind::PermissionDenied,
        format!("the root {} cannot be written", path.display()),
    )
    .with_path(path)
    .with_source(error)
    .with_hint(hint)
}

fn refuse_network_filesystem(dir: &Dir) -> Result<()> {
    let Some(name) = space::network_filesystem(dir).at("examine", dir.path())? else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::Unsupported,
        format!(
            "the root {} is on {name}, a network filesystem",
            dir.path().display()
        ),
    )
    .with_path(dir.path())
    .with_hint("locks and shared memory do not reach other machines there: choose a local disk"))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Shards beside the names of an earlier release were left out, and so was the reserve.
    #[test]
    fn shards_beside_many_names_are_the_stores_own() {
        let temporary = tempfile::tempdir().unwrap();
        let root = Root::open(temporary.path(), None).unwrap();
        for number in 0..2000 {
            std::fs::write(root.content.path().join(format!("{number:064x}")), "").unwrap();
        }
        assert!(Stat::of_file(&root.content).unwrap().size >= FEW_NAMES);
        let shard = root
            .content
            .ensure_dir(OsStr::new("0004"), PRIVATE)
            .unwrap();
        let reserve = root.dir.ensure_dir(OsStr::new("reserve"), PRIVATE).unwrap();
        let own = root.own_directories().unwrap();
        for dir in [&shard, &reserve, &root.content] {
            assert!(own.contains(&Stat::of_file(dir).unwrap()));
        }
    }
}

//! What the machine can do: asked by trying, because no table of filesystems is ever complete.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::fs::{Dir, Stat, beneath, is_privileged, place, random_name, space};
use crate::store::Store;
use crate::words::capability::Capability;
use crate::words::error::{At, Result};

/// What this machine and the root's filesystem can do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// The root.
    pub root_dir: PathBuf,
    /// The type of the filesystem it is on, `ext4` for one.
    pub filesystem: String,
    /// The size of that filesystem, in bytes.
    pub filesystem_bytes: u64,
    /// What this process could still write there, in bytes.
    pub available_bytes: u64,
    /// Whether this process may set owners and read every extended attribute.
    pub privileged: bool,
    /// Whether the kernel has `openat2`; without it paths are opened component by component.
    pub openat2: bool,
    /// Files this process may have open.
    pub open_files_limit: u64,
    /// Whether the root is on a read-only mount: what is there can be read, and is kept by no lease meanwhile.
    pub read_only: bool,
    /// What the root and an output directory can do together.
    pub output: Option<OutputDiagnosis>,
}

/// What the root and an output directory can do together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutputDiagnosis {
    /// The output directory.
    pub dir: PathBuf,
    /// The type of the filesystem it is on.
    pub filesystem: String,
    /// What this process could still write there, in bytes.
    pub available_bytes: u64,
    /// Whether it is on the root's filesystem.
    pub same_filesystem: bool,
    /// Read-only files can be hardlinks into the store.
    pub hardlink: Capability,
    /// Writable files can share blocks with the store.
    pub reflink: Capability,
    /// Files get their names when they are complete; otherwise a crash can leave a temporary name.
    pub unnamed_files: Capability,
}

/// Tries. Blocks.
pub(crate) fn run(store: &Store, output: Option<&Path>) -> Result<Diagnosis> {
    let root = &store.root.dir;
    let space = space::of(root).at("examine", root.path())?;
    Ok(Diagnosis {
        root_dir: root.path().to_owned(),
        filesystem: filesystem(root)?,
        filesystem_bytes: space.total,
        available_bytes: space.available,
        privileged: is_privileged(),
        openat2: beneath::has_openat2(root),
        open_files_limit: crate::fs::open_files_limit(),
        read_only: store.is_read_only(),
        output: output.map(|path| examine_output(store, path)).transpose()?,
    })
}

fn filesystem(dir: &Dir) -> Result<String> {
    space::filesystem(dir).at("examine", dir.path())
}

fn examine_output(store: &Store, path: &Path) -> Result<OutputDiagnosis> {
    let dir = Dir::open(path)?;
    let stat = Stat::of_file(&dir).at("examine", path)?;
    let stored = match store.is_read_only() {
        true => None,
        false => Some(store.create_slot()?),
    };
    let shares = |try_to: fn(&Dir, &File) -> io::Result<()>| match &stored {
        Some((_slot, stored)) => Capability::of(try_to(&dir, stored)),
        None => Capability::No("the root is on a read-only mount".to_owned()),
    };
    if let Some((_slot, stored)) = &stored {
        place::allocate(stored, 4096).at("write to", store.root.dir.path())?;
    }
    Ok(OutputDiagnosis {
        filesystem: filesystem(&dir)?,
        available_bytes: space::of(&dir).at("examine", path)?.available,
        same_filesystem: stat.dev == store.root.device,
        hardlink: shares(try_hardlink),
        reflink: shares(try_reflink),
        unnamed_files: Capability::of(dir.create_unnamed(0o600).map(drop)),
        dir: path.to_owned(),
    })
}

fn try_hardlink(dir: &Dir, stored: &File) -> io::Result<()> {
    let name = random_name()?;
    let name = OsStr::new(&name);
    dir.link_file(stored, name)?;
    dir.unlink(name)
}

fn try_reflink(dir: &Dir, stored: &File) -> io::Result<()> {
    let name = random_name()?;
    let name = OsStr::new(&name);
    let file = dir.create_file(name, 0o600)?;
    let cloned = place::reflink(stored, &file);
    dir.unlink(name)?;
    cloned
}

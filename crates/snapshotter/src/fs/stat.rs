//! What the system says of an inode.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{FileType, SeekFrom};

use crate::words::entry::Mtime;

/// What the filesystem says of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) kind: Kind,
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    pub(crate) nlink: u64,
    /// Permission bits, and set-user-ID, set-group-ID and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) allocated: u64,
    pub(crate) mtime: Mtime,
    pub(crate) ctime: Mtime,
}

/// What sort of inode it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    Socket,
    Fifo,
    /// A character device 0/0: overlayfs has them where a name of a lower layer was removed.
    Whiteout,
    BlockDevice,
    Device,
}

impl Kind {
    fn of(file_type: FileType) -> Self {
        match file_type {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::Socket => Self::Socket,
            FileType::Fifo => Self::Fifo,
            FileType::BlockDevice => Self::BlockDevice,
            _ => Self::Device,
        }
    }
}

impl Stat {
    #[expect(
        clippy::unnecessary_cast,
        reason = "the widths of stat's fields differ between architectures"
    )]
    pub(super) fn of(stat: &rustix::fs::Stat) -> Self {
        Self {
            kind: match FileType::from_raw_mode(stat.st_mode) {
                FileType::CharacterDevice if stat.st_rdev == 0 => Kind::Whiteout,
                file_type => Kind::of(file_type),
            },
            dev: stat.st_dev as u64,
            ino: stat.st_ino as u64,
            nlink: stat.st_nlink as u64,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            allocated: u64::try_from(stat.st_blocks).unwrap_or(0) * 512,
            mtime: mtime_of(stat.st_mtime as i64, stat.st_mtime_nsec as u64),
            ctime: mtime_of(stat.st_ctime as i64, stat.st_ctime_nsec as u64),
        }
    }

    /// Reads an open file's. What an open block device holds is its size, of which its inode does not tell.
    pub(crate) fn of_file(file: impl AsFd) -> io::Result<Self> {
        let mut stat = Self::of(&rustix::fs::fstat(&file)?);
        if stat.kind == Kind::BlockDevice {
            stat.size = rustix::fs::seek(&file, SeekFrom::End(0))?;
            stat.allocated = stat.size;
            rustix::fs::seek(&file, SeekFrom::Start(0))?;
        }
        Ok(stat)
    }

    /// When an open file's inode was made, in nanoseconds since 1970; `None` where the filesystem does not tell.
    pub(crate) fn born(file: impl AsFd) -> io::Result<Option<i64>> {
        use rustix::fs::{AtFlags, StatxFlags, statx};
        let said = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME)?;
        let tells = StatxFlags::from_bits_retain(said.stx_mask).contains(StatxFlags::BTIME);
        let born = said.stx_btime;
        let seconds = tells
            .then(|| born.tv_sec.checked_mul(1_000_000_000))
            .flatten();
        Ok(seconds.and_then(|seconds| seconds.checked_add(born.tv_nsec.into())))
    }

    /// Which inode it is.
    pub(crate) fn identity(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }

    /// Whether an earlier look saw the same bytes, as far as the inode tells.
    pub(crate) fn unchanged_since(&self, earlier: &Self) -> bool {
        self.same_bytes_since(earlier) && self.ctime == earlier.ctime
    }

    /// Like [`Stat::unchanged_since`], blind to changes of names and attributes.
    pub(crate) fn same_bytes_since(&self, earlier: &Self) -> bool {
        self.size == earlier.size && self.mtime == earlier.mtime
    }
}

fn mtime_of(seconds: i64, nanoseconds: u64) -> Mtime {
    Mtime {
        seconds,
        nanoseconds: u32::try_from(nanoseconds).unwrap_or(0),
    }
}

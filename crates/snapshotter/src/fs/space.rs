//! How much a filesystem can take, and whether it is one that a store can live on.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use super::Dir;
use crate::words::error::{At, Result};

/// A filesystem's size and what is left of it for this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    /// In bytes.
    pub(crate) total: u64,
    /// In bytes.
    pub(crate) available: u64,
    /// How many there can be; 0 where the filesystem does not say (btrfs).
    pub(crate) inodes: u64,
    pub(crate) available_inodes: u64,
}

/// Asks the filesystem a directory is on.
pub(crate) fn of(dir: &Dir) -> io::Result<Space> {
    let stat = rustix::fs::fstatvfs(dir)?;
    Ok(Space {
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
        available: stat.f_bavail.saturating_mul(stat.f_frsize),
        inodes: stat.f_files,
        available_inodes: stat.f_favail,
    })
}

/// How long is waited before a filesystem is asked again.
const LATER: Duration = Duration::from_millis(10);

/// What is free after something was removed, as soon as that is enough; after so many more questions, whatever it is. Some
/// filesystems give back later: btrfs with its next commit, which a sync brings on, XFS when it has come to it, which asking
/// brings on.
///
/// # Errors
/// Those of asking.
pub(crate) fn settled(dir: &Dir, questions: u32, enough: &dyn Fn(&Space) -> bool) -> Result<Space> {
    let ask = || of(dir).at("examine", dir.path());
    let now = ask()?;
    if enough(&now) {
        return Ok(now);
    }
    dir.sync_filesystem()?;
    for _ in 0..questions {
        let now = ask()?;
        if enough(&now) {
            return Ok(now);
        }
        std::thread::sleep(LATER);
    }
    ask()
}

/// Who cannot write to a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadOnly {
    /// Whoever uses this mount; by another one somebody may be writing.
    Here,
    /// Nobody.
    Everywhere,
}

/// Whether a directory is on a read-only mount; `None`: it is not.
pub(crate) fn read_only(dir: &Dir) -> io::Result<Option<ReadOnly>> {
    let flags = rustix::fs::fstatvfs(dir)?.f_flag;
    let read_only = flags.contains(rustix::fs::StatVfsMountFlags::RDONLY);
    Ok(read_only.then(|| match is_sealed(dir) {
        Some(true) => ReadOnly::Everywhere,
        _ => ReadOnly::Here,
    }))
}

/// Whether the filesystem itself, and not only the mount, is read-only, where the kernel tells (proc(5),
/// `/proc/pid/mountinfo`): the first options are the mount's, the last ones the filesystem's.
fn is_sealed(dir: &Dir) -> Option<bool> {
    let about = format!("/proc/self/fdinfo/{}", dir.as_fd().as_raw_fd());
    let about = std::fs::read_to_string(about).ok()?;
    let id = about
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mut lines = mounts.lines();
    let line = lines.find(|line| line.split(' ').next() == Some(id.trim()))?;
    let (_, filesystem) = line.split_once(" - ")?;
    let options = filesystem.rsplit(' ').next()?;
    Some(options.split(',').any(|option| option == "ro"))
}

/// The unit in which a filesystem gives disk space, in bytes.
pub(crate) fn block_size(dir: &Dir) -> io::Result<u64> {
    Ok(rustix::fs::fstatvfs(dir)?.f_frsize)
}

/// Filesystem types (statfs(2), `linux/magic.h`) on which locks and shared memory maps do not reach other machines.
const NETWORK: [(u64, &str); 11] = [
    (0x6969, "nfs"),
    (0x517B, "smb"),
    (0xFF53_4D42, "cifs"),
    (0xFE53_4D42, "smb2"),
    (0x00C3_6400, "ceph"),
    (0x0BD0_0BD3, "lustre"),
    (0x5346_414F, "afs"),
    (0x0102_1997, "9p"),
    (0x7375_7245, "coda"),
    (0x1983_0326, "beegfs"),
    (0x4750_4653, "gpfs"),
];

/// The common local ones.
const LOCAL: [(u64, &str); 10] = [
    (0xEF53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683E, "btrfs"),
    (0x0102_1994, "tmpfs"),
    (0x794C_7630, "overlay"),
    (0x2FC1_2FC1, "zfs"),
    (0xF2F5_2010, "f2fs"),
    (0xCA45_1A4E, "bcachefs"),
    (0x6573_5546, "fuse"),
    (0x8584_58F6, "ramfs"),
];

/// The name of the network filesystem a directory is on, if it is on one.
pub(crate) fn network_filesystem(dir: &Dir) -> io::Result<Option<&'static str>> {
    Ok(name_of(magic(dir)?, &NETWORK))
}

/// Whether a file is on ext4 (or one of its forerunners, which have the same number). `false` where that cannot be told.
pub(crate) fn is_ext4(file: &impl AsFd) -> bool {
    const EXT4: u64 = 0xEF53;
    magic(file).is_ok_and(|magic| magic == EXT4)
}

/// Why holes of a file are not told page by page; `None`: they are.
pub(crate) fn hides_pages(file: &impl AsFd) -> io::Result<Option<&'static str>> {
    const TMPFS: u64 = 0x0102_1994;
    const KNOWN: [u64; 4] = [0xEF53, 0x5846_5342, 0x9123_683E, TMPFS];
    let stat = rustix::fs::fstatfs(file)?;
    let magic = magic(file)?;
    // Where there are huge pages, this is as long as they are.
    let huge = magic == TMPFS && rustix::fs::fstat(file)?.st_blksize > 4096;
    let blocks = u64::try_from(stat.f_bsize).unwrap_or(u64::MAX);
    Ok(match magic {
        magic if !KNOWN.contains(&magic) => Some("it is not on ext4, XFS, btrfs or tmpfs"),
        _ if huge => Some(LONG_BLOCKS),
        _ => too_long(blocks, rustix::param::page_size()),
    })
}

const LONG_BLOCKS: &str = "its filesystem has blocks above 4 KiB";

/// What makes data come in pieces that are longer than a page of 4 KiB, in bytes both: blocks, and pages of the system, since what
/// is written to one of those is written as one.
fn too_long(blocks: u64, system_page: usize) -> Option<&'static str> {
    match (blocks, system_page) {
        (4097.., _) => Some(LONG_BLOCKS),
        (_, 4097..) => Some("this system has pages above 4 KiB"),
        _ => None,
    }
}

/// Whether a directory is on a filesystem that writes elsewhere what is overwritten, and so needs space for it: btrfs.
/// `false` where that cannot be told.
pub(crate) fn copies_on_write(dir: &Dir) -> bool {
    const BTRFS: u64 = 0x9123_683E;
    magic(dir).is_ok_and(|magic| magic == BTRFS)
}

/// The name of the filesystem a directory is on, or its number.
pub(crate) fn filesystem(dir: &Dir) -> io::Result<String> {
    let magic = magic(dir)?;
    let name = name_of(magic, &LOCAL).or_else(|| name_of(magic, &NETWORK));
    Ok(name.map_or_else(|| format!("{magic:#x}"), str::to_owned))
}

fn name_of(magic: u64, table: &[(u64, &'static str)]) -> Option<&'static str> {
    table
        .iter()
        .find(|(number, _)| *number == magic)
        .map(|(_, name)| *name)
}

#[expect(
    clippy::cast_sign_loss,
    reason = "the type's width and sign differ between architectures; magic numbers are 32 bits"
)]
fn magic(file: &impl AsFd) -> io::Result<u64> {
    Ok((rustix::fs::fstatfs(file)?.f_type as u64) & 0xFFFF_FFFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// aarch64 has systems with pages of 16 and 64 KiB: a write of one page there brings zeros for those beside it.
    #[test]
    fn what_comes_in_longer_pieces_than_pages_is_no_difference() {
        assert_eq!(too_long(4096, 4096), None);
        assert_eq!(too_long(1024, 4096), None);
        assert_eq!(too_long(8192, 4096), Some(LONG_BLOCKS));
        for page in [16 << 10, 64 << 10] {
            let why = too_long(4096, page).unwrap();
            assert!(why.contains("pages above 4 KiB"), "{why}");
        }
    }
}

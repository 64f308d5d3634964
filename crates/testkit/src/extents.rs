//! Where a file has data and where it has holes, as `SEEK_DATA` and `SEEK_HOLE` tell it.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{OFlags, SeekFrom, seek};
use rustix::io::Errno;

/// Offset and length of a run of data.
pub type Extent = (u64, u64);

/// The data of the file at `path`, in order, neighbours joined, cut at the file's size.
///
/// # Errors
/// If the file can't be opened (a symlink isn't followed) or the filesystem refuses to say.
pub fn of_path(path: &Path) -> io::Result<Vec<Extent>> {
    of_file(&open(path)?)
}

/// As [`of_path`], of an open file. Moves the file's position.
///
/// # Errors
/// If the filesystem refuses to say.
pub fn of_file(file: &File) -> io::Result<Vec<Extent>> {
    let size = file.metadata()?.len();
    let mut extents = Vec::new();
    let mut at = 0;
    while let Some(start) = next_data(file, at)?.filter(|start| *start < size) {
        let end = seek(file, SeekFrom::Hole(start))?.min(size);
        push_joined(&mut extents, (start, end - start));
        at = end;
    }
    Ok(extents)
}

/// Opens a regular file to read it, without following a symlink or waiting for a fifo's writer.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?.into())
}

/// All that is in `one` or in `other`.
pub(crate) fn union(one: &[Extent], other: &[Extent]) -> Vec<Extent> {
    let mut all = [one, other].concat();
    all.sort_unstable();
    let mut joined = Vec::new();
    for extent in all {
        push_joined(&mut joined, extent);
    }
    joined
}

/// Whether all of `inner` is in `outer`.
pub(crate) fn covers(outer: &[Extent], inner: &[Extent]) -> bool {
    union(outer, inner) == union(outer, &[])
}

fn next_data(file: &File, at: u64) -> io::Result<Option<u64>> {
    match seek(file, SeekFrom::Data(at)) {
        Ok(start) => Ok(Some(start)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn push_joined(extents: &mut Vec<Extent>, (start, length): Extent) {
    match extents.last_mut() {
        Some(last) if start <= last.0 + last.1 => last.1 = last.1.max(start + length - last.0),
        _ => extents.push((start, length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn data_between_holes_is_found() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        assert_eq!(of_file(&file).unwrap(), []);
        file.write_all_at(&[1; 65536], 65536).unwrap();
        file.write_all_at(&[1; 65536], 131_072).unwrap();
        assert_eq!(of_file(&file).unwrap(), [(65536, 131_072)]);
    }

    #[test]
    fn the_last_extent_ends_with_the_file() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"abc", 0).unwrap();
        assert_eq!(of_file(&file).unwrap(), [(0, 3)]);
    }

    #[test]
    fn unions_join_neighbours_and_overlaps() {
        assert_eq!(
            union(&[(0, 4), (20, 5)], &[(4, 2), (22, 8)]),
            [(0, 6), (20, 10)]
        );
        assert!(covers(&[(0, 4), (4, 4)], &[(1, 6)]));
        assert!(!covers(&[(0, 4)], &[(3, 2)]));
        assert!(covers(&[], &[]));
    }
}

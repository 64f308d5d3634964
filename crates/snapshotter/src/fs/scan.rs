//! Where a file has data: `SEEK_DATA` and `SEEK_HOLE`.
//!
//! The whole map is taken before the first byte is read, because reading makes unwritten extents show as data.

use std::fs::File;
use std::io;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::words::extent::{Extent, ExtentMap};

/// The extents of a file of `size` bytes, clamped to it. A filesystem that cannot tell has one extent.
///
/// # Errors
/// The operating system's, and `Unsupported` for a file with more extents than a map can have.
pub(crate) fn extents(file: &File, size: u64) -> io::Result<ExtentMap> {
    let unsupported = |error| io::Error::new(io::ErrorKind::Unsupported, error);
    let mut map = ExtentMap::hole(size).map_err(unsupported)?;
    let mut from = 0;
    while let Some(extent) = next(file, from, size)? {
        from = extent.end();
        map.push(extent).map_err(unsupported)?;
    }
    Ok(map)
}

fn next(file: &File, from: u64, size: u64) -> io::Result<Option<Extent>> {
    if from >= size {
        return Ok(None);
    }
    let offset = match rustix::fs::seek(file, SeekFrom::Data(from)) {
        Ok(offset) => offset.max(from),
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => from,
        Err(error) => return Err(error.into()),
    };
    if offset >= size {
        return Ok(None);
    }
    let end = match rustix::fs::seek(file, SeekFrom::Hole(offset)) {
        // A file that shrank, or an answer that does not advance: the reader will notice the change.
        Ok(end) if end > offset => end.min(size),
        Ok(_) | Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => size,
        Err(error) => return Err(error.into()),
    };
    Ok(Some(Extent {
        offset,
        len: end - offset,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn holes_between_data_are_found_and_the_end_is_clamped() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(&[1; 4096], 65536).unwrap();
        file.write_all_at(&[2; 100], (1 << 20) - 100).unwrap();
        let map = extents(&file, 1 << 20).unwrap();
        let covered: u64 = map.extents().iter().map(|e| e.len).sum();
        assert!(map.extents().iter().any(|e| e.offset <= 65536));
        assert_eq!(map.size(), 1 << 20);
        assert!(covered <= 1 << 20);
        assert!(map.extents().iter().all(|e| e.offset + e.len <= 1 << 20));
    }

    #[test]
    fn an_empty_file_and_a_single_hole_have_no_extents() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(extents(&file, 0).unwrap().extents(), []);
        file.set_len(1 << 20).unwrap();
        assert_eq!(extents(&file, 1 << 20).unwrap().extents(), []);
    }
}

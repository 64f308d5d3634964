//! Lists of page digests: what pages are, without the pages. A list is written from its start to its end, in a file without a
//! name, and read at any place; its end, which may not be in the file yet, is in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::format::content::PageDigest;

/// A digest's length in bytes.
const BYTES: usize = size_of::<PageDigest>();

/// Digests that are written, or read, at once.
const TOGETHER: usize = 2048;

/// A list, as it grows.
#[derive(Debug)]
pub(super) struct Digests {
    file: File,
    written: u64,
    end: Vec<PageDigest>,
}

impl Digests {
    /// An empty list in an empty file.
    pub(super) fn new(file: File) -> Self {
        Self {
            file,
            written: 0,
            end: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.written + self.end.len() as u64
    }

    pub(super) fn push(&mut self, digest: PageDigest) -> io::Result<()> {
        self.end.push(digest);
        if self.end.len() == TOGETHER {
            self.write_end()?;
        }
        Ok(())
    }

    fn write_end(&mut self) -> io::Result<()> {
        let at = self.written * BYTES as u64;
        self.file.write_all_at(self.end.as_flattened(), at)?;
        self.written += self.end.len() as u64;
        self.end.clear();
        Ok(())
    }

    /// The digest with this number, from 0.
    pub(super) fn get(&self, number: u64) -> io::Result<PageDigest> {
        if let Some(at) = number.checked_sub(self.written) {
            let digest = self.end.get(usize::try_from(at).unwrap_or(usize::MAX));
            return digest
                .copied()
                .ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
        }
        read(&self.file, number)
    }

    /// The file, with all of them in it.
    pub(super) fn into_file(mut self) -> io::Result<File> {
        self.write_end()?;
        Ok(self.file)
    }
}

fn read(file: &File, number: u64) -> io::Result<PageDigest> {
    let mut digest = [0; BYTES];
    file.read_exact_at(&mut digest, number * BYTES as u64)?;
    Ok(digest)
}

/// A list that is whole, read mostly in its order.
#[derive(Debug)]
pub(super) struct DigestReader {
    file: File,
    first: u64,
    held: Vec<PageDigest>,
}

impl DigestReader {
    pub(super) fn new(file: File) -> Self {
        Self {
            file,
            first: 0,
            held: Vec::new(),
        }
    }

    /// The digest with this number, from 0; those that follow it come with it.
    pub(super) fn get(&mut self, number: u64, count: u64) -> io::Result<PageDigest> {
        let at = number.wrapping_sub(self.first);
        if let Some(digest) = usize::try_from(at).ok().and_then(|at| self.held.get(at)) {
            return Ok(*digest);
        }
        let left = count.checked_sub(number).filter(|left| *left > 0);
        let left = left.ok_or(io::ErrorKind::UnexpectedEof)?;
        let together = usize::try_from(left).unwrap_or(TOGETHER).min(TOGETHER);
        self.held.resize(together, [0; BYTES]);
        self.first = number;
        let bytes = self.held.as_flattened_mut();
        if let Err(error) = self.file.read_exact_at(bytes, number * BYTES as u64) {
            self.held.clear();
            return Err(error);
        }
        Ok(self.held[0])
    }

    pub(super) fn into_file(self) -> File {
        self.file
    }

    /// One alone.
    pub(super) fn one(&self, number: u64) -> io::Result<PageDigest> {
        read(&self.file, number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u64) -> PageDigest {
        *blake3::hash(&number.to_le_bytes()).as_bytes()
    }

    #[test]
    fn what_is_written_is_read_wherever_it_is_by_then() {
        const COUNT: u64 = 3 * TOGETHER as u64 + 7;
        let mut list = Digests::new(tempfile::tempfile().unwrap());
        for number in 0..COUNT {
            list.push(digest(number)).unwrap();
        }
        assert_eq!(list.len(), COUNT);
        for number in [0, 1, 2047, 2048, COUNT - 8, COUNT - 1] {
            assert_eq!(list.get(number).unwrap(), digest(number));
        }
        assert!(list.get(COUNT).is_err());
        let mut reader = DigestReader::new(list.into_file().unwrap());
        for number in (0..COUNT).chain([5, 4000, 3, COUNT - 1]) {
            assert_eq!(reader.get(number, COUNT).unwrap(), digest(number));
            assert_eq!(reader.one(number).unwrap(), digest(number));
        }
        assert!(reader.get(COUNT, COUNT).is_err());
        assert!(reader.get(COUNT, COUNT + 1).is_err());
    }
}

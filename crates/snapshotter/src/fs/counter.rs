//! A number in a file of its own that only grows. It is written in one piece and never waited for: what a crash or a power
//! cut leaves is an older number, and that is all its readers rely on.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use super::Dir;
use super::hook::step;
use crate::words::error::Result;

/// Digits of the largest number, and the end of the line.
const LENGTH: usize = 21;

/// The file, which need not be there.
#[derive(Debug)]
pub(crate) struct Counter {
    dir: Dir,
    name: &'static str,
    file: OnceLock<std::fs::File>,
}

impl Counter {
    /// The one of this name in a directory.
    pub(crate) fn new(dir: &Dir, name: &'static str) -> Result<Self> {
        Ok(Self {
            dir: dir.reopen()?,
            name,
            file: OnceLock::new(),
        })
    }

    /// The number; `None` where there is none that can be read.
    pub(crate) fn read(&self) -> Option<u64> {
        let file = self.dir.open_file(OsStr::new(self.name)).ok()?;
        let mut text = [0; LENGTH];
        file.read_exact_at(&mut text, 0).ok()?;
        let digits = text.strip_suffix(b"\n")?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// Writes a number down, unless a larger one is there. Best effort: a number that is too small is less of a warning,
    /// never a false one.
    pub(crate) fn raise(&self, number: u64) {
        if self.read().is_some_and(|there| there >= number) {
            return;
        }
        if let Err(error) = self.write(number) {
            tracing::debug!(%error, name = self.name, "a number could not be written down");
        }
    }

    fn write(&self, number: u64) -> io::Result<()> {
        let file = match self.file.get() {
            Some(file) => file,
            None => {
                let opened = self.open()?;
                self.file.get_or_init(|| opened)
            }
        };
        step("write")?;
        file.write_all_at(format!("{number:020}\n").as_bytes(), 0)
    }

    fn open(&self) -> io::Result<std::fs::File> {
        let name = OsStr::new(self.name);
        match self.dir.create_file(name, 0o600) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.dir.open_writable(name)
            }
            result => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_grows_and_is_read_back_and_anything_else_is_none() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Dir::open(temporary.path()).unwrap();
        let counter = Counter::new(&dir, "number").unwrap();
        assert_eq!(counter.read(), None);
        counter.raise(7);
        counter.raise(u64::MAX);
        counter.raise(8);
        assert_eq!(Counter::new(&dir, "number").unwrap().read(), Some(u64::MAX));
        for odd in ["", "7", "0000000000000000000x\n", "+0000000000000000007\n"] {
            std::fs::write(temporary.path().join("number"), odd).unwrap();
            let read = counter.read();
            assert!(read.is_none() || odd.starts_with('+'), "{odd:?}: {read:?}");
        }
    }
}

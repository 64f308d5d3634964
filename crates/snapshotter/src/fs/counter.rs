//! A number in a file of its own that only grows. It is written in one piece and never waited for: what a crash or a power
//! cut leaves is an older number, and that is all its readers rely on. Who reads while another process writes may see a part
//! of each number; a check behind it tells that from a number, and then there is none.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use super::Dir;
use super::hook::step;
use crate::words::digest::Digest;
use crate::words::error::Result;

/// Digits of the largest number.
const DIGITS: usize = 20;

/// The digits, a blank, the check in hexadecimal, the end of the line.
const LENGTH: usize = DIGITS + 18;

/// No counter comes to this: a larger number was written by something else.
const LARGEST: u64 = 1 << 62;

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
        parse(&text).filter(|number| *number <= LARGEST)
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
        file.write_all_at(line(number).as_bytes(), 0)
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

fn line(number: u64) -> String {
    let digits = format!("{number:020}");
    let check = Digest::of(digits.as_bytes()).as_u64();
    format!("{digits} {check:016x}\n")
}

/// The number of a whole line.
fn parse(text: &[u8; LENGTH]) -> Option<u64> {
    let digits = std::str::from_utf8(&text[..DIGITS]).ok()?;
    let number = digits.parse().ok()?;
    (text == line(number).as_bytes()).then_some(number)
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
        counter.raise(LARGEST);
        counter.raise(8);
        assert_eq!(Counter::new(&dir, "number").unwrap().read(), Some(LARGEST));
        let plus = line(7).replacen('0', "+", 1);
        for odd in ["", "7", "00000000000000000007\n", &plus] {
            std::fs::write(temporary.path().join("number"), odd).unwrap();
            assert_eq!(counter.read(), None, "{odd:?}");
        }
    }

    // A number read while another process wrote it was larger than both: the catalog was said to have gone back.
    #[test]
    fn parts_of_two_numbers_are_none() {
        let (old, new) = (line(199), line(200));
        for end in 1..LENGTH {
            let torn = format!("{}{}", &new[..end], &old[end..]);
            let read = parse(torn.as_bytes().try_into().unwrap());
            let whole = torn == old || torn == new;
            assert!(read.is_none() || whole, "{torn:?}: {read:?}");
        }
    }
}

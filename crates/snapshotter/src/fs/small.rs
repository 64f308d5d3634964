//! Small files that people name: configurations, keys, certificates. They are read whole, and whatever has the name, reading
//! it ends: it is opened without waiting, and what is longer than such a file can be is refused.
//!
//! A fifo is refused, because it may have no writer, and then it either blocks or looks empty. What the shell opened for
//! the command (`/dev/stdin`, or `/dev/fd/63` for `<(…)`) is a pipe too, but one that somebody writes and that ends; it is
//! read as it is. A character device is read without waiting: `/dev/null` is an empty file, `/dev/zero` one that is too long.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

use super::stat::{Kind, Stat};
use crate::words::error::{Error, Result};

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NOCTTY);

/// Reads a file of at most `limit` bytes. `what` reads after "cannot read": `the env file`. Blocks for as long as the disk
/// does, and for a pipe of the shell's for as long as its writer does.
///
/// # Errors
/// `InvalidInput` for what is longer and for what is no file; else what the operating system says.
pub fn read(what: &str, path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = open(path).map_err(|error| unread(what, path, error))?;
    let stat = Stat::of_file(&file).map_err(|error| unread(what, path, error))?;
    match stat.kind {
        Kind::Directory => return Err(refused(what, path, "it is a directory")),
        Kind::Fifo if !is_of_the_shell(path) => {
            return Err(refused(what, path, "it is a fifo, not a file"));
        }
        Kind::File if stat.size > limit => return Err(too_long(what, path, limit)),
        _ => {}
    }
    read_from(what, path, file, limit)
}

/// The same of what is open already; `path` is for errors.
///
/// # Errors
/// As [`read`].
pub fn read_from(what: &str, path: &Path, from: impl Read, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unread(what, path, error))?;
    if bytes.len() as u64 > limit {
        return Err(too_long(what, path, limit));
    }
    Ok(bytes)
}

fn open(path: &Path) -> io::Result<File> {
    let flags = match is_of_the_shell(path) {
        true => OPEN,
        false => OPEN.union(OFlags::NONBLOCK),
    };
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?.into())
}

/// Whether it is a descriptor that this process was started with.
fn is_of_the_shell(path: &Path) -> bool {
    path == Path::new("/dev/stdin")
        || ["/dev/fd", "/proc/self/fd"]
            .iter()
            .any(|dir| path.parent() == Some(Path::new(dir)))
}

fn unread(what: &str, path: &Path, error: io::Error) -> Error {
    Error::io(&format!("read {what}"), path, error)
}

fn too_long(what: &str, path: &Path, limit: u64) -> Error {
    refused(what, path, &format!("it has more than {limit} bytes"))
}

fn refused(what: &str, path: &Path, why: &str) -> Error {
    Error::invalid(format!("cannot read {what} {}: {why}", path.display())).with_path(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::process::Command;

    use super::*;
    use crate::ErrorKind;

    fn said(path: &Path) -> String {
        let error = read("the test", path, 10).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert_eq!(error.path(), Some(path));
        error.to_string()
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for (bytes, fits) in [("", true), ("0123456789", true), ("0123456789a", false)] {
            std::fs::write(&path, bytes).unwrap();
            match fits {
                true => assert_eq!(read("the test", &path, 10).unwrap(), bytes.as_bytes()),
                false => assert!(said(&path).ends_with("it has more than 10 bytes")),
            }
        }
        let nowhere = read("the test", &dir.path().join("none"), 10).unwrap_err();
        assert_eq!(nowhere.kind(), ErrorKind::NotFound);
    }

    /// `--config /dev/zero` ate all memory, and a fifo that nobody writes was waited for without end.
    /// Whatever has the name is now opened without waiting and read up to a limit.
    #[test]
    fn whatever_has_the_name_reading_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        assert!(
            Command::new("mkfifo")
                .arg(&fifo)
                .status()
                .unwrap()
                .success()
        );
        assert!(said(&fifo).ends_with("it is a fifo, not a file"));
        assert!(said(dir.path()).ends_with("it is a directory"));
        assert!(said(Path::new("/dev/zero")).ends_with("it has more than 10 bytes"));
        assert_eq!(read("the test", Path::new("/dev/null"), 10).unwrap(), b"");
        // Files that do not say their size.
        assert!(said(Path::new("/proc/self/status")).ends_with("more than 10 bytes"));
    }

    #[test]
    fn what_the_shell_opened_is_read_and_bounded_too() {
        for dir in ["/dev/fd", "/proc/self/fd"] {
            let piped = |bytes: &[u8]| {
                let (source, mut sink) = io::pipe().unwrap();
                sink.write_all(bytes).unwrap();
                let path = Path::new(dir).join(source.as_raw_fd().to_string());
                (source, path)
            };
            let (_source, path) = piped(b"pipe");
            assert_eq!(read("the test", &path, 10).unwrap(), b"pipe");
            let (_source, path) = piped(b"0123456789a");
            assert!(said(&path).ends_with("it has more than 10 bytes"));
        }
    }
}

//! Records in a directory, and the removal of what is in it. A key is a path of plain names, each of which is a directory but the
//! last.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use super::Directory;
use crate::fs::Dir;
use crate::fs::dir::Kind;
use crate::fs::durable::{ensure_dir, replace};
use crate::fs::temporary::reap;
use crate::threads;
use crate::transport::records::{Listed, Records, check_length, nanoseconds};
use crate::transport::{Call, receiver_gone};
use crate::words::error::{At, Error, ErrorKind, Result};

/// A key's directory and name.
fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('/').unwrap_or(("", key))
}

/// A directory below another, if it is there.
fn below(root: &Path, path: &str) -> Result<Option<Dir>> {
    let mut dir = Dir::open(root)?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        dir = match dir.open_dir(OsStr::new(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
    }
    Ok(Some(dir))
}

fn look(root: &Path, key: &str) -> Result<Option<Listed>> {
    let (path, name) = split(key);
    let Some(dir) = below(root, path)? else {
        return Ok(None);
    };
    let found = dir.stat_if_any(OsStr::new(name));
    let found = found.at("look at", dir.path_of(OsStr::new(name)))?;
    Ok(found
        .filter(|stat| stat.kind == Kind::File)
        .map(|stat| Listed {
            key: key.to_owned(),
            size: stat.size,
            modified: nanoseconds(stat.mtime.seconds, stat.mtime.nanoseconds.into()),
        }))
}

/// Directories are read one after the other; what was begun and has no name yet is nobody's.
fn list(root: &Path, prefix: &str, sink: &mpsc::Sender<Listed>) -> Result<()> {
    let mut left = vec![prefix.trim_end_matches('/').to_owned()];
    while let Some(path) = left.pop() {
        let Some(dir) = below(root, &path)? else {
            continue;
        };
        dir.for_each_name(|name| {
            let Some(plain) = name.to_str().filter(|name| !name.starts_with('.')) else {
                return Ok(());
            };
            let key = format!("{path}/{plain}");
            let found = dir.stat_if_any(name).at("look at", dir.path_of(name))?;
            match found {
                Some(stat) if stat.kind == Kind::Directory => left.push(key),
                Some(stat) if stat.kind == Kind::File => {
                    let modified = nanoseconds(stat.mtime.seconds, stat.mtime.nanoseconds.into());
                    let size = stat.size;
                    let listed = Listed {
                        key,
                        size,
                        modified,
                    };
                    sink.blocking_send(listed).map_err(|_| receiver_gone())?;
                }
                _ => {}
            }
            Ok(())
        })?;
    }
    Ok(())
}

impl Directory {
    /// Runs file calls on a thread for them.
    fn of_root<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> Result<T> + Send + 'static,
    ) -> Call<'_, T> {
        let root: PathBuf = self.root.clone();
        Box::pin(threads::run(move || work(&root)))
    }
}

impl Records for Directory {
    fn list(&self, prefix: String, sink: mpsc::Sender<Listed>) -> Call<'_, ()> {
        self.of_root(move |root| list(root, &prefix, &sink))
    }

    fn look(&self, key: String) -> Call<'_, Option<Listed>> {
        self.of_root(move |root| look(root, &key))
    }

    fn read(&self, key: String, most: u64) -> Call<'_, Option<Vec<u8>>> {
        self.of_root(move |root| {
            let Some(found) = look(root, &key)? else {
                return Ok(None);
            };
            let path = root.join(&key);
            check_length(&key, &root.display().to_string(), found.size, most)?;
            match crate::fs::small::read("a record", &path, most) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                read => read.map(Some),
            }
        })
    }

    fn write(&self, key: String, bytes: Vec<u8>) -> Call<'_, ()> {
        let shared_with = self.shared_with;
        self.of_root(move |root| {
            let (path, name) = split(&key);
            let mut dir = Dir::open(root)?;
            for part in path.split('/') {
                dir = ensure_dir(&dir, OsStr::new(part), shared_with.directory_mode())?;
            }
            reap(&dir);
            replace(&dir, OsStr::new(name), &bytes, shared_with.file_mode())
        })
    }

    fn remove(&self, key: String) -> Call<'_, ()> {
        self.of_root(move |root| {
            let (path, name) = split(&key);
            let Some(dir) = below(root, path)? else {
                return Ok(());
            };
            match dir.unlink(OsStr::new(name)) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                // An immutable file, say: the others may go.
                Err(error) if is_refusal(&error) => {
                    let text = format!("cannot remove {}", root.join(&key).display());
                    Err(Error::new(ErrorKind::PermissionDenied, text).with_source(error))
                }
                removed => removed.at("remove", root.join(&key)),
            }
        })
    }
}

fn is_refusal(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::PermissionDenied
}

//! What a cache entry is called: what it is, and which inode with which modification time. So a name never means another file
//! than the one that it was given to, and one that was written to is known by that.

use std::ffi::{OsStr, OsString};

use crate::format::content::ContentId;
use crate::fs::Stat;
use crate::fs::dir::Kind;
use crate::words::digest::Sha256;
use crate::words::entry::Mtime;
use crate::words::relpath::RelPath;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// An inode with these bytes and attributes: read-only files are hardlinks of it.
    Linked {
        content: ContentId,
        attributes: [u8; 16],
    },
    /// The bytes of a file of a snapshot: writable files are clones of it. It has no other name.
    Base { path: PathHash },
}

/// What stands where a content would, in the name of what is called by its path.
const BASE: &str = "base";

/// Stands for a path in a name.
pub(crate) type PathHash = [u8; 16];

/// The first half of the BLAKE3 of a path.
pub(crate) fn path_hash(path: &RelPath) -> PathHash {
    let hash = blake3::hash(path.as_path().as_os_str().as_encoded_bytes());
    let mut half = PathHash::default();
    half.copy_from_slice(&hash.as_bytes()[..16]);
    half
}

/// What a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    /// Of the snapshot that it was made for.
    pub(crate) manifest: Sha256,
    pub(super) inode: u64,
    pub(super) mtime: Mtime,
    /// In about how many pieces its filesystem has it.
    pub(crate) extents: u64,
}

impl Entry {
    pub(super) fn of(key: Key, manifest: Sha256, stat: &Stat, extents: u64) -> Self {
        Self {
            key,
            manifest,
            inode: stat.ino,
            mtime: stat.mtime,
            extents,
        }
    }

    pub(super) fn name(&self) -> OsString {
        let (what, which) = match &self.key {
            Key::Linked {
                content,
                attributes,
            } => (content.hex(), attributes),
            Key::Base { path } => (BASE.to_owned(), path),
        };
        let which = u128::from_be_bytes(*which);
        let manifest = self.manifest.hex();
        let Mtime {
            seconds,
            nanoseconds,
        } = self.mtime;
        let (inode, extents) = (self.inode, self.extents);
        format!("{what}.{which:032x}.{manifest}.{inode}.{seconds}.{nanoseconds}.{extents}").into()
    }

    pub(super) fn parse(name: &OsStr) -> Option<Self> {
        let parts: Vec<&str> = name.to_str()?.split('.').collect();
        let [what, which, manifest, inode, seconds, nanoseconds, extents] = parts[..] else {
            return None;
        };
        let which = u128::from_str_radix(which, 16).ok()?.to_be_bytes();
        let key = match what {
            BASE => Key::Base { path: which },
            content => Key::Linked {
                content: format!("blake3:{content}").parse().ok()?,
                attributes: which,
            },
        };
        let mtime = Mtime {
            seconds: seconds.parse().ok()?,
            nanoseconds: nanoseconds.parse().ok()?,
        };
        let entry = Self {
            key,
            manifest: format!("sha256:{manifest}").parse().ok()?,
            inode: inode.parse().ok()?,
            mtime,
            extents: extents.parse().ok()?,
        };
        (entry.name() == name).then_some(entry)
    }

    /// Whether this is the file that was given the name, as it was then.
    pub(super) fn is(&self, stat: &Stat) -> bool {
        let alone = stat.nlink == 1 || matches!(self.key, Key::Linked { .. });
        let same = (stat.ino, stat.mtime) == (self.inode, self.mtime);
        stat.kind == Kind::File && same && alone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_an_entry_is() {
        let mtime = Mtime {
            seconds: -7,
            nanoseconds: 999_999_999,
        };
        let keys = [
            Key::Linked {
                content: ContentId::from_bytes([0xab; 32]),
                attributes: [0; 16],
            },
            Key::Base {
                path: path_hash(&RelPath::from_bytes("vm/memory").unwrap()),
            },
        ];
        for key in keys {
            let entry = Entry {
                key,
                manifest: Sha256::of(b"manifest"),
                inode: u64::MAX,
                mtime,
                extents: 3,
            };
            assert_eq!(Entry::parse(&entry.name()), Some(entry));
            assert!(entry.name().len() < 255);
            let mut longer = entry.name();
            longer.push("0");
            assert_ne!(Entry::parse(&longer), Some(entry));
        }
        for name in ["", "base", "x.y.1.2.3.4.5", "base.00.ab.1.2.3.4"] {
            assert_eq!(Entry::parse(OsStr::new(name)), None, "{name}");
        }
    }
}

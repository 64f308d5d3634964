//! Reading and setting modes, owners, times and extended attributes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use super::hook::step;
use super::{Dir, Stat};
use crate::words::entry::{Attributes, Mtime};

/// Attributes a host's own policy sets on every file: copying them to another host would be wrong or refused.
const POLICY: [&str; 3] = ["security.selinux", "security.ima", "security.evm"];

/// An attribute that could not be set, and why.
#[derive(Debug)]
pub(crate) struct Unset {
    pub(crate) what: String,
    pub(crate) error: io::Error,
}

/// The attributes of an open file or directory. `stat` is what [`Stat::of_file`] said of it.
pub(crate) fn of_file(file: impl AsFd, stat: &Stat) -> io::Result<Attributes> {
    Ok(Attributes {
        xattrs: xattrs(file.as_fd())?,
        ..of_stat(stat)
    })
}

/// The attributes that `stat` alone tells: all of a symlink's.
pub(crate) fn of_stat(stat: &Stat) -> Attributes {
    Attributes {
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        mtime: stat.mtime,
        xattrs: BTreeMap::new(),
    }
}

fn xattrs(file: impl AsFd) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let privileged = super::is_privileged();
    for name in xattr_names(&file)?.split(|byte| *byte == 0) {
        // A name that is not UTF-8 has no place in a document, and no filesystem tool makes one.
        let Ok(name) = std::str::from_utf8(name) else {
            continue;
        };
        if !is_wanted(name, privileged) {
            continue;
        }
        if let Some(value) = xattr_value(&file, name)? {
            found.insert(name.to_owned(), value);
        }
    }
    Ok(found)
}

fn is_wanted(name: &str, privileged: bool) -> bool {
    name.starts_with("user.") || (!name.is_empty() && privileged && !POLICY.contains(&name))
}

/// The kernel's limit for a list of names and for a value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`), in bytes.
const XATTR_MAX: usize = 65536;

fn xattr_names(file: impl AsFd) -> io::Result<Vec<u8>> {
    let mut small = [0_u8; 256];
    match rustix::fs::flistxattr(&file, &mut small) {
        Ok(len) => return Ok(small[..len].to_vec()),
        Err(Errno::RANGE) => {}
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    }
    let mut large = vec![0_u8; XATTR_MAX];
    let len = rustix::fs::flistxattr(&file, large.as_mut_slice())?;
    large.truncate(len);
    Ok(large)
}

fn xattr_value(file: impl AsFd, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0_u8; XATTR_MAX];
    match rustix::fs::fgetxattr(&file, name, value.as_mut_slice()) {
        Ok(len) => {
            value.truncate(len);
            value.shrink_to_fit();
            Ok(Some(value))
        }
        // Removed meanwhile, or listed without being readable.
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::ACCESS | Errno::PERM) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sets everything on an open file or directory and says what could not be set.
///
/// The owner comes first because changing it clears capabilities, the time last because everything else moves it.
pub(crate) fn set(file: impl AsFd, wanted: &Attributes, privileged: bool) -> Vec<Unset> {
    let file = file.as_fd();
    let mut unset = Vec::new();
    if privileged {
        let owner = step("chown").and_then(|()| set_owner(file, wanted));
        note(&mut unset, "the owner", owner);
    }
    note(
        &mut unset,
        "inherited attributes",
        remove_unwanted(file, wanted, privileged),
    );
    set_xattrs(file, wanted, privileged, &mut unset);
    let mode = step("chmod").and_then(|()| set_mode(file, wanted.mode));
    note(&mut unset, "the mode", mode);
    let time =
        step("utimens").and_then(|()| Ok(rustix::fs::futimens(file, &modified_at(wanted.mtime))?));
    note(&mut unset, "the modification time", time);
    unset
}

/// Sets the owner and time of what cannot be opened: a symlink, a whiteout.
pub(crate) fn set_unopened(
    dir: &Dir,
    name: &OsStr,
    wanted: &Attributes,
    privileged: bool,
) -> Vec<Unset> {
    let mut unset = Vec::new();
    if privileged {
        let owner = step("chown").and_then(|()| {
            let (uid, gid) = ids(wanted);
            Ok(rustix::fs::chownat(
                dir,
                name,
                uid,
                gid,
                AtFlags::SYMLINK_NOFOLLOW,
            )?)
        });
        note(&mut unset, "the owner", owner);
    }
    let time = step("utimens").and_then(|()| {
        Ok(rustix::fs::utimensat(
            dir,
            name,
            &modified_at(wanted.mtime),
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    });
    note(&mut unset, "the modification time", time);
    unset
}

/// Sets those that differ. What its owner may not write takes none, so it is made writable for as long as that takes.
fn set_xattrs(file: impl AsFd, wanted: &Attributes, privileged: bool, unset: &mut Vec<Unset>) {
    let differs = |name: &str, value: &[u8]| !matches!(xattr_value(&file, name), Ok(Some(found)) if found == value);
    let mut writable = privileged;
    for (name, value) in &wanted.xattrs {
        if !differs(name, value) {
            continue;
        }
        if !writable {
            writable = true;
            let mode = step("chmod").and_then(|()| set_mode(&file, wanted.mode | 0o200));
            note(unset, "the mode", mode);
        }
        let result = step("setxattr").and_then(|()| {
            let flags = XattrFlags::empty();
            Ok(rustix::fs::fsetxattr(&file, name.as_str(), value, flags)?)
        });
        note(unset, name, result);
    }
}

fn set_mode(file: impl AsFd, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?)
}

/// A directory's default access list, for one, goes on to what is made in it.
fn remove_unwanted(file: impl AsFd, wanted: &Attributes, privileged: bool) -> io::Result<()> {
    for name in xattr_names(&file)?.split(|byte| *byte == 0) {
        let Ok(name) = std::str::from_utf8(name) else {
            continue;
        };
        let ours = is_wanted(name, privileged) || name.starts_with("system.posix_acl_");
        if ours && !wanted.xattrs.contains_key(name) {
            step("removexattr")?;
            rustix::fs::fremovexattr(&file, name)?;
        }
    }
    Ok(())
}

fn set_owner(file: impl AsFd, wanted: &Attributes) -> io::Result<()> {
    let (uid, gid) = ids(wanted);
    Ok(rustix::fs::fchown(file, uid, gid)?)
}

/// `u32::MAX` means "leave it" to the kernel, and is nobody's id.
fn ids(wanted: &Attributes) -> (Option<Uid>, Option<Gid>) {
    (
        (wanted.uid != u32::MAX).then(|| Uid::from_raw(wanted.uid)),
        (wanted.gid != u32::MAX).then(|| Gid::from_raw(wanted.gid)),
    )
}

fn modified_at(mtime: Mtime) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.seconds,
            tv_nsec: mtime.nanoseconds.into(),
        },
    }
}

fn note(unset: &mut Vec<Unset>, what: &str, result: io::Result<()>) {
    if let Err(error) = result {
        unset.push(Unset {
            what: what.to_owned(),
            error,
        });
    }
}

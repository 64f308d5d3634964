//! Mounting and unmounting what this process serves through the kernel's FUSE.
//!
//! A mount says in its source what it is and who serves it, `NAME:VERSION#PID`, and in its type whose: so that nothing else is
//! unmounted by mistake, and who unmounts can wait for the process that served it.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{hook, own_ids};
use crate::words::error::{At, Error, ErrorKind, Result};

/// What `lseek` is asked by.
pub(crate) const SEEK_DATA: i32 = libc::SEEK_DATA;
pub(crate) const SEEK_HOLE: i32 = libc::SEEK_HOLE;

const DEVICE: &str = "/dev/fuse";
const TYPE: &str = "fuse.snapshotter";

/// A mount of a snapshot, as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Where it is.
    pub(crate) point: PathBuf,
    /// What it is, and which process serves it.
    pub(crate) source: OsString,
}

/// Mounts on a directory. What the kernel asks comes from what this returns; when that is closed, or this process dies, every
/// request is an error.
///
/// It is not mounted read-only: then the kernel would refuse to open files for writing, which programs do that only read. Set-user-ID
/// bits and devices mean nothing there.
///
/// # Errors
/// `Unsupported` without FUSE; `PermissionDenied` for who may not mount.
pub(crate) fn mount(mount: &Mount, allow_other: bool) -> Result<OwnedFd> {
    let device = File::options().read(true).write(true).open(DEVICE);
    let device = device.map_err(unavailable)?;
    let (uid, gid) = own_ids();
    let others = if allow_other { ",allow_other" } else { "" };
    let options = format!(
        "fd={},rootmode=40000,user_id={uid},group_id={gid},default_permissions{others}",
        device.as_raw_fd()
    );
    let options = CString::new(options).map_err(io::Error::from);
    let options = options.at("mount", &mount.point)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    hook::step("mount").at("mount", &mount.point)?;
    let mounted =
        rustix::mount::mount(&mount.source, &mount.point, TYPE, flags, options.as_c_str());
    match mounted {
        Ok(()) => Ok(device.into()),
        Err(Errno::NODEV) => Err(unavailable(Errno::NODEV.into())),
        Err(error) => {
            let error = Error::io("mount", &mount.point, error.into());
            Err(error.with_hint("mounting takes root, or CAP_SYS_ADMIN"))
        }
    }
}

fn unavailable(error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        _ => ErrorKind::Unsupported,
    };
    Error::new(kind, "this machine does not let a process serve a filesystem")
        .with_source(Error::io("open", Path::new(DEVICE), error))
        .with_hint("it takes the kernel's module fuse and the device /dev/fuse; in a container both have to be given to it")
}

/// The mount of a snapshot at a path, dead ones included.
///
/// # Errors
/// The operating system's.
pub(crate) fn find(path: &Path) -> io::Result<Option<Mount>> {
    let point = resolve(path)?;
    let all = std::fs::read("/proc/self/mountinfo")?;
    let lines = all.split(|byte| *byte == b'\n');
    // The last one lies above the others.
    let mut found = lines.filter_map(parse).filter(|(at, ..)| *at == point);
    Ok(found
        .next_back()
        .filter(|(_, kind, _)| kind == TYPE)
        .map(|(point, _, source)| Mount { point, source }))
}

/// A path without symlinks, of a mount that is dead too, at which nothing can be asked.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    match (std::fs::canonicalize(path), path.file_name()) {
        (Err(error), Some(name)) if error.raw_os_error() == Some(libc::ENOTCONN) => {
            let above = path.parent().filter(|above| !above.as_os_str().is_empty());
            let above = above.unwrap_or(Path::new(".")).canonicalize()?;
            Ok(above.join(name))
        }
        (resolved, _) => resolved,
    }
}

/// A line of `mountinfo`: where, which type, from what.
fn parse(line: &[u8]) -> Option<(PathBuf, OsString, OsString)> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dash = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
    let text = |at: usize| Some(OsString::from_vec(unescaped(fields.get(at)?)));
    Some((text(4)?.into(), text(dash + 1)?, text(dash + 2)?))
}

/// Spaces and the like are written as a backslash and three octal digits.
fn unescaped(mut text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    while let Some((byte, rest)) = text.split_first() {
        let code = rest
            .get(..3)
            .and_then(|code| std::str::from_utf8(code).ok());
        let code = code.and_then(|code| u8::from_str_radix(code, 8).ok());
        match code.filter(|_| *byte == b'\\') {
            Some(code) => {
                plain.push(code);
                text = &rest[3..];
            }
            None => {
                plain.push(*byte);
                text = rest;
            }
        }
    }
    plain
}

impl Mount {
    /// Of a snapshot, served by this process.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) fn new(path: &Path, what: &str) -> io::Result<Self> {
        Ok(Self {
            point: resolve(path)?,
            source: format!("{what}#{}", std::process::id()).into(),
        })
    }

    /// The process that serves it, or did.
    pub(crate) fn server(&self) -> Option<u32> {
        let number = self.source.as_bytes().rsplit(|byte| *byte == b'#').next()?;
        std::str::from_utf8(number).ok()?.parse().ok()
    }

    /// What is mounted there.
    pub(crate) fn what(&self) -> &OsStr {
        let source = self.source.as_bytes();
        let end = source.iter().rposition(|byte| *byte == b'#');
        OsStr::from_bytes(&source[..end.unwrap_or(source.len())])
    }

    /// Whether somebody answers there. Waits for the answer.
    ///
    /// # Errors
    /// Another than that nobody does.
    pub(crate) fn answers(&self) -> io::Result<bool> {
        match rustix::fs::statfs(&self.point) {
            Ok(_) => Ok(true),
            Err(Errno::NOTCONN | Errno::CONNABORTED) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes it away, unless somebody uses it.
    ///
    /// # Errors
    /// `EBUSY` where somebody does.
    pub(crate) fn unmount(&self) -> io::Result<()> {
        self.take_away(UnmountFlags::NOFOLLOW)
    }

    /// Takes its name away at once, and the rest when nobody uses it any more.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) fn detach(&self) -> io::Result<()> {
        self.take_away(UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
    }

    fn take_away(&self, flags: UnmountFlags) -> io::Result<()> {
        hook::step("unmount")?;
        Ok(rustix::mount::unmount(&self.point, flags)?)
    }

    /// Waits until the process that served it has ended, but not longer than this. It may be another container's, of which nothing
    /// is known here.
    pub(crate) fn wait_for_server(&self, limit: Duration) {
        let own = std::process::id();
        let server = self.server().filter(|pid| *pid != own);
        let server = server.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let Some(Ok(server)) = server.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
            return;
        };
        let limit = Timespec::try_from(limit).ok();
        let mut wait = [PollFd::new(&server, PollFlags::IN)];
        // Who is interrupted has waited long enough, too.
        let _ = poll(&mut wait, limit.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_says_where_which_type_and_from_what() {
        let line = br"36 35 0:52 / /mnt/a\040b\134c rw,nosuid shared:1 master:2 - fuse.snapshotter vm:v1#77 rw,user_id=0";
        let (point, kind, source) = parse(line).unwrap();
        assert_eq!(point, Path::new(r"/mnt/a b\c"));
        assert_eq!(kind, TYPE);
        let mount = Mount { point, source };
        assert_eq!(
            (mount.server(), mount.what()),
            (Some(77), OsStr::new("vm:v1"))
        );
        for line in ["", "36 35 0:52 / /mnt rw - ", "1 2 3 4 5 6 7 8 9"] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
        assert_eq!(unescaped(br"a\04"), br"a\04");
    }
}

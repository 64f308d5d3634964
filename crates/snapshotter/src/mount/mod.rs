//! An open snapshot as a read-only filesystem, served through FUSE by threads of this process.
//!
//! What is there never changes, so the kernel keeps all it was told. A file that is opened for writing is opened, since programs do
//! that which only read (QEMU does with a guest's memory), and each write is refused (`EROFS`). Such a file goes past the kernel's
//! cache and cannot be mapped shared: what is written into a mapping would be in that cache, and would be read by others.
//!
//! The process that serves may die: the kernel then answers every request with `ENOTCONN`, and [`unmount`] takes the rest away.
//! A store is not covered by what is served from it. Nothing here unmounts by a path alone: another mount may be there by then.

mod filesystem;
mod served;
mod tree;

use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use fuser::{Session, SessionACL};

use crate::fs::fuse::{self, Mount};
use crate::fs::{Dir, Stat};
use crate::opened::Opened;
use crate::threads;
use crate::words::error::{At, Error, ErrorKind, Result};
use served::Served;

/// Threads that answer, whatever the number of processors: one may be hashing a file.
const FEWEST: usize = 4;
const MOST: usize = 32;

/// How long who unmounts waits for the process that served.
const PATIENCE: Duration = Duration::from_secs(10);

/// A snapshot that is mounted. When this is dropped the mount has no name any more, and what is still open there is served until
/// it is closed or this process ends.
#[must_use = "it is unmounted when this is dropped"]
pub struct Mounted {
    mount: Mount,
    ended: Pin<Box<dyn Future<Output = Result<()>> + Send>>,
    is_over: bool,
}

impl std::fmt::Debug for Mounted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mounted")
            .field("mount", &self.mount)
            .finish_non_exhaustive()
    }
}

impl Opened {
    /// Mounts the snapshot on an empty directory, read-only, for this user's processes or, with `allow_other`, for all. It answers
    /// when this returns. Blocks.
    ///
    /// # Errors
    /// `InvalidInput` for a directory that is not empty or has to do with the store; `Unsupported` on a machine without FUSE;
    /// `PermissionDenied` for who may not mount.
    pub fn mount(self, directory: impl AsRef<Path>, allow_other: bool) -> Result<Mounted> {
        let directory = directory.as_ref();
        self.require_suitable(directory)?;
        let reference = &self.snapshot().reference;
        let mount = Mount::new(directory, &reference.to_string());
        let mount = mount.at("mount on", directory)?;
        let served = Served::new(self);
        let device = fuse::mount(&mount, allow_other)?;
        let mut mounted = Mounted {
            mount,
            ended: Box::pin(async { Ok(()) }),
            is_over: false,
        };
        let session = Session::from_fd(served, device, acl(allow_other), config(allow_other));
        let session = session.at("serve", directory)?;
        let place = directory.to_owned();
        mounted.ended = Box::pin(threads::begin(move || session.run().at("serve", place))?);
        if !mounted.mount.answers().at("examine", directory)? {
            let text = "what was mounted does not answer";
            return Err(Error::new(ErrorKind::Internal, text).with_path(directory));
        }
        Ok(mounted)
    }

    fn require_suitable(&self, directory: &Path) -> Result<()> {
        let there = fuse::find(directory);
        if let Ok(Some(mount)) = there
            && !mount.answers().at("examine", directory)?
        {
            let text = format!(
                "a snapshot was mounted on {}, and who served it is dead",
                directory.display()
            );
            let error = Error::new(ErrorKind::Unavailable, text).with_path(directory);
            return Err(error.with_hint("`umount` takes the rest of it away"));
        }
        let dir = Dir::open(directory)?;
        let root = &self.store().root;
        root.require_outside("the mount point", &dir)?;
        let point = Stat::of_file(&dir).at("examine", directory)?;
        let is_point = |dir: &Stat| dir.identity() == point.identity();
        if root.dir.is_within(is_point).unwrap_or(false) {
            let text =
                "the store is inside the mount point, and what is served from it would cover it";
            return Err(Error::invalid(text).with_path(directory));
        }
        if !dir.names()?.is_empty() {
            let text = format!("the mount point {} is not empty", directory.display());
            return Err(Error::invalid(text).with_path(directory));
        }
        Ok(())
    }
}

fn acl(allow_other: bool) -> SessionACL {
    match allow_other {
        true => SessionACL::All,
        false => SessionACL::Owner,
    }
}

fn config(allow_other: bool) -> fuser::Config {
    let mut config = fuser::Config::default();
    let processors = std::thread::available_parallelism().map_or(FEWEST, usize::from);
    config.acl = acl(allow_other);
    config.n_threads = Some((processors * 2).clamp(FEWEST, MOST));
    config.clone_fd = true;
    config
}

impl Mounted {
    /// Returns when it was unmounted and nothing of it is in use any more.
    ///
    /// # Errors
    /// Those of serving it.
    pub async fn ended(&mut self) -> Result<()> {
        if self.is_over {
            return Ok(());
        }
        let ended = self.ended.as_mut().await;
        self.is_over = true;
        ended
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Something else may be there by now.
        let there = fuse::find(&self.mount.point);
        let is_ours = there.is_ok_and(|there| there.as_ref() == Some(&self.mount));
        if is_ours && let Err(error) = self.mount.detach() {
            tracing::warn!(%error, point = %self.mount.point.display(), "a mount stays");
        }
    }
}

/// Unmounts a snapshot, whichever process serves it, also where that has died, and waits for its end. Says which snapshot it was.
///
/// # Errors
/// `NotFound` where no snapshot is mounted; `Busy` where somebody uses it; `PermissionDenied`.
pub async fn unmount(directory: impl AsRef<Path>) -> Result<String> {
    let directory = directory.as_ref().to_owned();
    threads::run(move || take_away(&directory)).await
}

fn take_away(directory: &Path) -> Result<String> {
    let found = fuse::find(directory).at("examine", directory)?;
    let mount = found.ok_or_else(|| {
        let text = format!("no snapshot is mounted on {}", directory.display());
        Error::new(ErrorKind::NotFound, text).with_path(directory)
    })?;
    let is_alive = mount.answers().at("examine", directory)?;
    let result = match is_alive {
        true => mount.unmount(),
        // Whoever has something open there gets nothing but errors.
        false => mount.detach(),
    };
    result.map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY) => {
            let text = format!("{} is in use", directory.display());
            Error::new(ErrorKind::Busy, text)
                .with_path(directory)
                .with_hint("`fuser -vm DIR` shows by whom; SIGTERM for the process that serves it ends it all the same")
        }
        _ => Error::io("unmount", directory, error),
    })?;
    if is_alive {
        mount.wait_for_server(PATIENCE);
    }
    Ok(mount.what().to_string_lossy().into_owned())
}

//! Filesystems of one's own, in a file through a loop device or in memory. What a machine can't
//! give is a [`Skip`], never a silent pass: see [`report_skip`].

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

/// Set to 1, this makes a test that can't have its filesystem fail.
pub const REQUIRE: &str = "TESTKIT_REQUIRE_MOUNTS";

const PATIENCE: Duration = Duration::from_secs(30);

/// Why a test can't run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    why: String,
    /// Nothing that can be installed or configured would help.
    lacking: bool,
}

impl Skip {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        let why = why.into();
        Self {
            why,
            lacking: false,
        }
    }

    /// For what this kernel or this hardware was found not to have: a skip even where filesystems are required.
    pub fn lacking(why: impl Into<String>) -> Self {
        let why = why.into();
        Self { why, lacking: true }
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// Says loudly, past the capture of a test's output, that a test was skipped.
pub fn report_skip(why: impl fmt::Display) {
    let thread = std::thread::current();
    let line = format!("skipped: {}: {why}\n", thread.name().unwrap_or("a test"));
    let _ = std::io::stderr().write_all(line.as_bytes());
    let _ = std::io::stdout().write_all(line.as_bytes());
}

/// What was asked for, or nothing after [`report_skip`]:
/// `let Some(mount) = or_skip(LoopMount::new(..)) else { return };`
///
/// # Panics
/// If there is nothing, for another reason than [`Skip::lacking`], and the environment has `TESTKIT_REQUIRE_MOUNTS=1`.
#[track_caller]
pub fn or_skip<T>(asked: Result<T, Skip>) -> Option<T> {
    or_skip_if(REQUIRE, asked)
}

#[track_caller]
pub(crate) fn or_skip_if<T>(variable: &str, asked: Result<T, Skip>) -> Option<T> {
    let required = std::env::var_os(variable).is_some_and(|value| value == "1");
    asked
        .map_err(|why| {
            assert!(why.lacking || !required, "{variable}=1, but: {why}");
            report_skip(why);
        })
        .ok()
}

/// Reports why and returns from the test.
#[macro_export]
macro_rules! skip {
    ($($why:tt)+) => {{
        $crate::mount::report_skip(format_args!($($why)+));
        return;
    }};
}

/// Which filesystem. All have blocks of 4 KiB unless `mkfs` is told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Has reflinks; takes at least 300 MiB.
    Xfs,
    /// Has no reflinks.
    Ext4,
    /// Has reflinks; takes at least 110 MiB.
    Btrfs,
}

impl Kind {
    fn program(self) -> &'static str {
        match self {
            Self::Xfs => "mkfs.xfs",
            Self::Ext4 => "mkfs.ext4",
            Self::Btrfs => "mkfs.btrfs",
        }
    }

    /// Quiet, over whatever is there. For ext4, blocks of 4 KiB, which it has by itself only from
    /// 512 MiB on, and none of them kept for root, who runs the tests.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Xfs | Self::Btrfs => &["-q", "-f"],
            Self::Ext4 => &["-q", "-F", "-m", "0", "-b", "4096"],
        }
    }
}

/// A filesystem in a sparse temporary file, mounted until this is dropped.
#[derive(Debug)]
pub struct LoopMount {
    mounted: Mounted,
}

impl LoopMount {
    /// Makes and mounts one of `size` bytes, with these mount options (`"noatime"`) besides.
    ///
    /// # Errors
    /// If this machine can't: says why.
    pub fn new(kind: Kind, size: u64, options: &[&str]) -> Result<Self, Skip> {
        Self::formatted(kind, size, &[], options)
    }

    /// As [`LoopMount::new`], with arguments for `mkfs` (`["-b", "size=1024"]`).
    ///
    /// # Errors
    /// If this machine can't: says why.
    pub fn formatted(kind: Kind, size: u64, mkfs: &[&str], options: &[&str]) -> Result<Self, Skip> {
        need_root()?;
        let home = Home::new()?;
        let image = home.dir.path().join("image");
        File::create_new(&image)
            .and_then(|file| file.set_len(size))
            .map_err(skip_of("the image"))?;
        run(Command::new(kind.program())
            .args(kind.arguments())
            .args(mkfs)
            .arg(&image))?;
        let options = [&["loop"], options].concat().join(",");
        mount(&[
            "-o".as_ref(),
            options.as_ref(),
            image.as_ref(),
            home.point.as_ref(),
        ])?;
        Ok(Self {
            mounted: Mounted(home),
        })
    }

    /// What a power cut at this moment would leave, mounted elsewhere: only what has reached the device. (Mount with
    /// `commit=300`, or the journal writes by itself.)
    ///
    /// # Errors
    /// If this machine can't: says why.
    pub fn after_power_cut(&self) -> Result<Self, Skip> {
        let home = Home::new()?;
        let image = home.dir.path().join("image");
        run(Command::new("cp")
            .arg("--sparse=always")
            .args([&self.mounted.0.dir.path().join("image"), &image]))?;
        mount(&[
            "-o".as_ref(),
            "loop".as_ref(),
            image.as_ref(),
            home.point.as_ref(),
        ])?;
        Ok(Self {
            mounted: Mounted(home),
        })
    }

    /// Makes what begins with these bytes unreadable, as bad sectors are: a byte of it is changed on the device, beneath a
    /// filesystem that keeps checksums (btrfs). Nothing may be open there.
    ///
    /// # Errors
    /// If this machine can't: says why.
    ///
    /// # Panics
    /// If the bytes are nowhere.
    pub fn spoil(&self, bytes: &[u8]) -> Result<(), Skip> {
        let home = &self.mounted.0;
        unmount(&home.point, UnmountFlags::NOFOLLOW)
            .map_err(|error| Skip::new(format!("cannot unmount: {error}")))?;
        let image = home.dir.path().join("image");
        let spoiled = spoil(&image, bytes).map_err(skip_of("the image"))?;
        assert!(spoiled > 0, "they are not in the image");
        mount(&[
            "-o".as_ref(),
            "loop".as_ref(),
            image.as_ref(),
            home.point.as_ref(),
        ])
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mounted.0.point
    }
}

/// A block device with these bytes, until this is dropped.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    _home: TempDir,
}

impl LoopDevice {
    /// Makes one; of an odd end, whole sectors are there.
    ///
    /// # Errors
    /// If this machine can't: says why.
    pub fn new(bytes: &[u8]) -> Result<Self, Skip> {
        need_root()?;
        let home = TempDir::with_prefix("testkit-device-").map_err(skip_of("a directory"))?;
        let image = home.path().join("image");
        std::fs::write(&image, bytes).map_err(skip_of("the image"))?;
        let mut losetup = Command::new("losetup");
        losetup.args(["--find", "--show"]).arg(&image);
        let output = losetup.output().map_err(skip_of("losetup"))?;
        if !output.status.success() {
            return Err(failure("losetup".as_ref(), &output));
        }
        let path = String::from_utf8_lossy(&output.stdout).trim().into();
        Ok(Self { path, _home: home })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = run(Command::new("losetup").arg("--detach").arg(&self.path));
    }
}

/// Changes a byte of each block that begins with these, and says how many there are.
fn spoil(image: &Path, bytes: &[u8]) -> std::io::Result<usize> {
    let file = File::options().read(true).write(true).open(image)?;
    let mut block = [0; 4096];
    let mut spoiled = 0;
    for at in (0..file.metadata()?.len()).step_by(block.len()) {
        file.read_exact_at(&mut block, at)?;
        if block.starts_with(bytes) {
            file.write_all_at(&[!bytes[0]], at)?;
            spoiled += 1;
        }
    }
    file.sync_all()?;
    Ok(spoiled)
}

/// A filesystem in memory, mounted until this is dropped.
#[derive(Debug)]
pub struct TmpfsMount {
    mounted: Mounted,
}

impl TmpfsMount {
    /// Mounts one of at most `size` bytes.
    ///
    /// # Errors
    /// If this machine can't: says why.
    pub fn new(size: u64) -> Result<Self, Skip> {
        Self::with_options(size, &[])
    }

    /// As [`TmpfsMount::new`], with these mount options (`"nr_inodes=100"`) besides.
    ///
    /// # Errors
    /// If this machine can't: says why.
    pub fn with_options(size: u64, options: &[&str]) -> Result<Self, Skip> {
        need_root()?;
        let home = Home::new()?;
        let options = [&[format!("size={size}").as_str()], options]
            .concat()
            .join(",");
        let how = ["-t", "tmpfs", "-o", &options, "testkit"].map(OsStr::new);
        mount(&[&how[..], &[home.point.as_ref()]].concat())?;
        Ok(Self {
            mounted: Mounted(home),
        })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mounted.0.point
    }
}

/// A directory mounted a second time, so that links do not go from one place to the other, until this is dropped.
#[derive(Debug)]
pub struct BindMount {
    point: PathBuf,
}

impl BindMount {
    /// Mounts `directory` on `point`, a directory too.
    ///
    /// # Errors
    /// If this machine can't: says why.
    pub fn new(directory: &Path, point: &Path) -> Result<Self, Skip> {
        need_root()?;
        mount(&["--bind".as_ref(), directory.as_ref(), point.as_ref()])?;
        let point = point.to_owned();
        Ok(Self { point })
    }
}

impl Drop for BindMount {
    fn drop(&mut self) {
        let _ = unmount(&self.point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
}

/// A directory over another one (overlayfs), mounted until this is dropped.
#[derive(Debug)]
pub struct OverlayMount {
    home: Home,
}

impl OverlayMount {
    /// Mounts `upper`, which takes the changes, over `lower`; `work` is an empty directory beside `upper`.
    ///
    /// # Errors
    /// If this machine can't: says why.
    pub fn new(lower: &Path, upper: &Path, work: &Path) -> Result<Self, Skip> {
        need_root()?;
        let home = Home::new()?;
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        let how = ["-t", "overlay", "-o", &options, "testkit"].map(OsStr::new);
        mount(&[&how[..], &[home.point.as_ref()]].concat())?;
        Ok(Self { home })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.home.point
    }
}

impl Drop for OverlayMount {
    fn drop(&mut self) {
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        let _ = unmount(&self.home.point, flags);
    }
}

/// A filesystem that takes no change until this is dropped: whoever writes to it waits, and cannot be interrupted.
#[derive(Debug)]
pub struct Frozen {
    point: PathBuf,
}

impl Frozen {
    /// Freezes what is mounted there. Drop this before the mount.
    ///
    /// # Errors
    /// If this machine can't: says why.
    pub fn new(point: &Path) -> Result<Self, Skip> {
        need_root()?;
        run(Command::new("fsfreeze").arg("-f").arg(point))?;
        let point = point.to_owned();
        Ok(Self { point })
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = run(Command::new("fsfreeze").arg("-u").arg(&self.point));
    }
}

/// A temporary directory with the mount point in it, nothing mounted.
#[derive(Debug)]
struct Home {
    dir: TempDir,
    point: PathBuf,
}

impl Home {
    fn new() -> Result<Self, Skip> {
        let dir =
            TempDir::with_prefix("testkit-mount-").map_err(skip_of("a temporary directory"))?;
        let point = dir.path().join("mounted");
        std::fs::create_dir(&point).map_err(skip_of("the mount point"))?;
        Ok(Self { dir, point })
    }
}

/// The same with something mounted on the mount point. The kernel frees the loop device, which
/// `mount` set up to go with its last user.
#[derive(Debug)]
struct Mounted(Home);

impl Drop for Mounted {
    fn drop(&mut self) {
        let point = &self.0.point;
        if unmount(point, UnmountFlags::NOFOLLOW) == Err(Errno::BUSY) {
            let _ = unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
    }
}

fn need_root() -> Result<(), Skip> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err(Skip::new("mounting takes root"))
    }
}

/// Runs `mount`; where another process took the loop device first, again.
fn mount(arguments: &[&OsStr]) -> Result<(), Skip> {
    let start = Instant::now();
    loop {
        match run(Command::new("mount").args(arguments)) {
            Err(skip) if was_race(&skip.why) && start.elapsed() < PATIENCE => {
                sleep(Duration::from_millis(50))
            }
            result => return result,
        }
    }
}

fn was_race(why: &str) -> bool {
    [
        "failed to setup loop device",
        "busy",
        "temporarily unavailable",
        "could not find any free loop",
    ]
    .iter()
    .any(|symptom| why.contains(symptom))
}

/// Runs what sets a filesystem up.
///
/// # Errors
/// If this machine has no such program, or it fails: says why.
pub fn run(command: &mut Command) -> Result<(), Skip> {
    let program: OsString = command.get_program().into();
    let output = command
        .env("LC_ALL", "C")
        .output()
        .map_err(skip_of(&program.to_string_lossy()))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(failure(&program, &output))
    }
}

fn failure(program: &OsStr, output: &Output) -> Skip {
    let said = String::from_utf8_lossy(&output.stderr);
    Skip::new(format!(
        "{}: {}: {}",
        program.display(),
        output.status,
        said.trim()
    ))
}

fn skip_of(what: &str) -> impl FnOnce(std::io::Error) -> Skip {
    move |error| Skip::new(format!("{what}: {error}"))
}

//! Bringing the machine into the same state before every run.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};

use crate::Result;
use crate::operation::number;

/// The directory everything happens in, removed at the very end.
pub(crate) struct WorkDir(PathBuf);

impl WorkDir {
    /// Makes it. Something left there by an earlier run that did not get to its end is an error, because removing many
    /// files makes ext4 slow for minutes afterwards.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::create_dir(path).map_err(|error| {
            format!(
                "{}: {error}; if it is left over from an earlier run, remove it and wait five minutes: ext4 makes files slowly after many were removed",
                path.display()
            )
        })?;
        Ok(Self(path.canonicalize()?))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Removes it and all in it.
    pub(crate) fn remove(self) -> Result<()> {
        Ok(fs::remove_dir_all(&self.0)?)
    }
}

/// Memory to prepare at most, in bytes.
const PREPARED: u64 = 64 << 30;

/// Memory to leave alone, in bytes: for whatever else the machine does.
const SPARED: u64 = 2 << 30;

/// Half of what is given back to the host at once (2 MiB), in bytes.
const FRAGMENT: u64 = 1 << 20;

/// Memory that the host has backed, and that stays so.
///
/// A virtual machine may give free memory back to its host, and the first touch of such a page then costs ten times
/// what it should: a run would be judged by the memory it happened to get. Only whole free blocks are given back. So this
/// takes nearly all memory and frees all but one page of each fragment: what is free in between is never a whole block.
///
/// The memory is a file's, whose pages go when they are told to; a heap might keep them.
pub(crate) struct Fragments(#[expect(dead_code, reason = "for as long as it is open")] OwnedFd);

impl Fragments {
    /// Prepares as much as the machine can spare, for as long as it is held.
    pub(crate) fn hold() -> Result<Self> {
        let meminfo = fs::read_to_string("/proc/meminfo")?;
        let spare = (number(&meminfo, "MemAvailable:")? * 1024).saturating_sub(SPARED);
        let len = spare.clamp(FRAGMENT, PREPARED) / FRAGMENT * FRAGMENT;
        let page = rustix::param::page_size() as u64;
        let memory = memfd_create("fragments", MemfdFlags::CLOEXEC)?;
        fallocate(&memory, FallocateFlags::empty(), 0, len)?;
        for at in (0..len).step_by(FRAGMENT as usize) {
            let free = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&memory, free, at + page, FRAGMENT - page)?;
        }
        Ok(Self(memory))
    }
}

/// Longest wait for other processes before a run goes ahead all the same.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long the machine must have been quiet.
const QUIET: Duration = Duration::from_millis(300);

/// Cores that may be busy with something else: the others are enough for what is measured.
const NOISE: f64 = 1.2;

/// Waits until other processes leave the machine alone, within reason.
pub(crate) fn wait_for_quiet() -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        let before = busy()?;
        std::thread::sleep(QUIET);
        if (busy()? - before) / QUIET.as_secs_f64() <= NOISE {
            break;
        }
    }
    Ok(())
}

/// Seconds that all cores together have been busy since the machine started.
pub(crate) fn busy() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let numbers = line.split_whitespace().skip(1);
    let ticks: Vec<f64> = numbers
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()?;
    // User, nice, system; then idle and waiting; then interrupts. Ticks are hundredths of a second.
    let counted = |(index, _): &(usize, &f64)| matches!(index, 0..=2 | 5..=6);
    let busy = ticks.iter().enumerate().filter(counted);
    Ok(busy.map(|(_, ticks)| ticks).sum::<f64>() / 100.0)
}

/// Removes what an earlier run left under `path`, if anything.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", path.display()).into())
        }
        _ => Ok(()),
    }
}

/// Writes everything to disk, so that no run pays for what another left behind.
pub(crate) fn sync() {
    rustix::fs::sync();
}

/// Reads every file under `path` until nothing comes from the disk any more.
pub(crate) fn warm(path: &Path) -> Result<()> {
    for _ in 0..5 {
        let before = fetched()?;
        read_all(path)?;
        if fetched()? == before {
            return Ok(());
        }
    }
    Err(format!("{} does not stay in the page cache", path.display()).into())
}

fn fetched() -> Result<u64> {
    number(&fs::read_to_string("/proc/self/io")?, "read_bytes:")
}

fn read_all(path: &Path) -> Result<()> {
    let mut buffer = vec![0; 1 << 18];
    for (name, metadata) in testkit::fsstat::entries(path)? {
        if metadata.is_file() {
            let file = path.join(name);
            // Holes cost nothing to keep in memory and a lot to read.
            for (offset, len) in testkit::extents::of_path(&file)? {
                read_part(&file, offset, len, &mut buffer)?;
            }
        }
    }
    Ok(())
}

fn read_part(path: &Path, offset: u64, len: u64, buffer: &mut [u8]) -> Result<()> {
    use std::io::Seek;
    let mut file = File::open(path)?;
    file.seek(io::SeekFrom::Start(offset))?;
    let mut part = file.take(len);
    while part.read(buffer)? > 0 {}
    Ok(())
}

//! Three checkpoints of a virtual machine: snapshotted at once, restored, and compared byte for byte.
//!
//!     cargo run --release --example checkpoint [DIRECTORY]
//!
//! Everything happens in a temporary directory that is removed at the end, or in DIRECTORY, which must be empty or not
//! there yet and is kept. It takes about 1 GiB of disk space for a few seconds.
#![expect(clippy::print_stdout, reason = "an example shows what happened")]
#![expect(clippy::print_stderr, reason = "an example says what went wrong")]

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Instant, SystemTime};

use snapshotter::{
    Config, Error, File, PlacementCount, Placements, RestoreReport, RestoreRequest, SnapshotReport,
    SnapshotRequest, Snapshotter, VerifyRequest, Warning,
};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

#[tokio::main]
async fn main() -> ExitCode {
    match run(std::env::args_os().nth(1).map(PathBuf::from)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            explain(&*error);
            ExitCode::FAILURE
        }
    }
}

async fn run(directory: Option<PathBuf>) -> Result<()> {
    match directory {
        Some(directory) => {
            require_empty(&directory)?;
            show(&directory).await?;
            println!("\nEverything is still in {}.", directory.display());
        }
        None => {
            let directory = tempfile::Builder::new()
                .prefix("snapshotter-example-")
                .tempdir()?;
            show(directory.path()).await?;
            directory.close()?;
        }
    }
    Ok(())
}

fn require_empty(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)?;
    match fs::read_dir(directory)?.next() {
        None => Ok(()),
        Some(_) => Err(format!("{} is not empty", directory.display()).into()),
    }
}

/// What a person would do, step by step.
async fn show(directory: &Path) -> Result<()> {
    println!("Making three checkpoints in {}", directory.display());
    let checkpoints = (1..=3)
        .map(|number| Checkpoint::make(directory, number))
        .collect::<Result<Vec<_>>>()?;
    println!();
    describe(&checkpoints[0]);

    let snapshotter = Snapshotter::open(Config::new(directory.join("store"))).await?;
    take(&snapshotter, &checkpoints).await?;
    for checkpoint in &checkpoints {
        restore(&snapshotter, checkpoint, directory).await?;
    }
    summarize(&snapshotter).await?;
    snapshotter.close().await?;
    Ok(())
}

async fn take(snapshotter: &Snapshotter, checkpoints: &[Checkpoint]) -> Result<()> {
    let requests: Vec<_> = checkpoints.iter().map(Checkpoint::request).collect();
    let started = Instant::now();
    let (one, two, three) = tokio::try_join!(
        snapshotter.snapshot(&requests[0]),
        snapshotter.snapshot(&requests[1]),
        snapshotter.snapshot(&requests[2]),
    )?;
    heading(&format!(
        "Snapshots, three at once, on the disk after {:.2?}",
        started.elapsed()
    ));
    for report in [one, two, three] {
        show_snapshot(&report);
    }
    Ok(())
}

async fn restore(
    snapshotter: &Snapshotter,
    checkpoint: &Checkpoint,
    directory: &Path,
) -> Result<()> {
    let output = directory.join("restored").join(&checkpoint.name);
    let reference = format!("{}:{}", checkpoint.name, checkpoint.version).parse()?;
    let report = snapshotter
        .restore(&RestoreRequest::new(reference, &output))
        .await?;
    if checkpoint.number == 1 {
        heading("Restores, one after the other");
    }
    show_restore(&report);
    let compared = checkpoint.compare(&output)?;
    line("compared", &compared);
    Ok(())
}

async fn summarize(snapshotter: &Snapshotter) -> Result<()> {
    let verified = snapshotter.verify(&VerifyRequest::all()).await?;
    if !verified.damaged.is_empty() || !verified.missing.is_empty() {
        return Err("the store is damaged".into());
    }
    let usage = snapshotter.usage().await?;
    heading("The store");
    println!(
        "  {} snapshots of {}, of which {} are data",
        usage.snapshots,
        human(usage.logical_bytes),
        human(usage.data_bytes)
    );
    line(
        "kept once",
        &format!("{} in {} blobs", human(usage.stored_bytes), usage.blobs),
    );
    line(
        "verified",
        &format!(
            "{} blobs, {} read in {:.2?}, none damaged",
            verified.checked_blobs,
            human(verified.checked_bytes),
            verified.duration
        ),
    );
    line(
        "disk has",
        &format!("{} left", human(usage.available_bytes)),
    );
    Ok(())
}

// What the checkpoints are made of.

/// One paused machine's files.
pub(crate) struct Checkpoint {
    number: u64,
    pub(crate) name: String,
    pub(crate) version: String,
    directory: PathBuf,
    files: Vec<MadeFile>,
}

/// A file as it was when it had just been written.
struct MadeFile {
    name: &'static str,
    read_only: bool,
    content: Content,
    mode: u32,
    modified: SystemTime,
    allocated: u64,
}

/// What a file holds, kept so that a restored file is compared with what was meant, and not with a file that may share
/// its inode.
enum Content {
    Text(String),
    /// Pages of pseudo-random bytes in some places, holes elsewhere.
    Pages {
        size: u64,
        seed: u64,
        extents: Vec<Extent>,
    },
}

struct Extent {
    offset: u64,
    len: u64,
}

impl Checkpoint {
    /// The first two share the disk image; all share the template's memory and one JSON file. The rest is their own.
    pub(crate) fn make(directory: &Path, number: u64) -> Result<Self> {
        let name = format!("ckpt{number}");
        let checkpoint = directory.join("checkpoints").join(&name);
        fs::create_dir_all(&checkpoint)?;
        let metadata =
            format!("{{\"vm\": \"sandbox-{number}\", \"vcpus\": 2, \"memory_mib\": 1168}}\n");
        let snapshot = "{\"format\": 1, \"memory\": \"mem_2C_1168M\", \"state\": \"state\"}\n";
        let files = [
            ("mem_2C_1168M", true, sparse(1168 * MIB, 48 * MIB, number)),
            ("memory", true, dense(10 * MIB, 10)),
            ("state", true, dense(256 * KIB, 20 + number)),
            ("disk.img", false, dense(50 * MIB, 30 + number / 3)),
            ("metadata.json", true, Content::Text(metadata)),
            ("snapshot.json", true, Content::Text(snapshot.to_owned())),
        ];
        let files = files
            .into_iter()
            .map(|(name, read_only, content)| {
                MadeFile::write(&checkpoint, name, read_only, content)
            })
            .collect::<io::Result<_>>()?;
        Ok(Self {
            number,
            name,
            version: format!("v{number}"),
            directory: checkpoint,
            files,
        })
    }

    pub(crate) fn request(&self) -> SnapshotRequest {
        let files = self
            .files
            .iter()
            .map(|file| File::new(file.name).read_only(file.read_only));
        SnapshotRequest::new(&self.name, &self.version, &self.directory)
            .files(files)
            .annotation("made-by", "examples/checkpoint.rs")
    }

    pub(crate) fn compare(&self, output: &Path) -> Result<String> {
        let started = Instant::now();
        let found = fs::read_dir(output)?.count();
        if found != self.files.len() {
            return Err(format!("{} has {found} entries", output.display()).into());
        }
        for file in &self.files {
            file.compare(output)?;
        }
        let bytes = self.files.iter().map(|file| file.content.size()).sum();
        Ok(format!(
            "equal: {} in {} files, modes, times and holes ({:.2?})",
            human(bytes),
            self.files.len(),
            started.elapsed()
        ))
    }
}

impl MadeFile {
    fn write(
        directory: &Path,
        name: &'static str,
        read_only: bool,
        content: Content,
    ) -> io::Result<Self> {
        let file = fs::File::create_new(directory.join(name))?;
        content.write(&file)?;
        file.set_permissions(Permissions::from_mode(0o640))?;
        let metadata = file.metadata()?;
        Ok(Self {
            name,
            read_only,
            content,
            mode: metadata.mode(),
            modified: metadata.modified()?,
            allocated: allocated(&metadata),
        })
    }

    fn compare(&self, directory: &Path) -> Result<()> {
        let path = directory.join(self.name);
        let differs = |what: &str| Err(format!("{}: {what}", path.display()).into());
        let file = fs::File::open(&path)?;
        let metadata = file.metadata()?;
        if metadata.len() != self.content.size() {
            return differs("the size differs");
        }
        if metadata.mode() != self.mode || metadata.modified()? != self.modified {
            return differs("the mode or the modification time differs");
        }
        if let Some(at) = self.content.first_difference(&file)? {
            return differs(&format!("the bytes differ near {at}"));
        }
        // Filesystems round as they like; a hole that was filled shows all the same.
        if allocated(&metadata) > self.allocated + self.allocated / 4 + MIB {
            return differs("holes have been filled");
        }
        Ok(())
    }
}

impl Content {
    fn size(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Pages { size, .. } => *size,
        }
    }

    fn write(&self, file: &fs::File) -> io::Result<()> {
        match self {
            Self::Text(text) => file.write_all_at(text.as_bytes(), 0),
            Self::Pages {
                size,
                seed,
                extents,
            } => {
                file.set_len(*size)?;
                each_block(*size, extents, |offset, len, data| {
                    if data {
                        file.write_all_at(&bytes(*seed, offset, len), offset)?;
                    }
                    Ok(true)
                })
                .map(drop)
            }
        }
    }

    /// Reads a file and says where it isn't this. What the kernel calls a hole is zeros without being read.
    fn first_difference(&self, file: &fs::File) -> io::Result<Option<u64>> {
        match self {
            Self::Text(text) => {
                let mut read = vec![0; text.len()];
                file.read_exact_at(&mut read, 0)?;
                Ok((read != text.as_bytes()).then_some(0))
            }
            Self::Pages {
                size,
                seed,
                extents,
            } => {
                let mut read = vec![0; BLOCK as usize];
                let zeros = vec![0; BLOCK as usize];
                each_block(*size, extents, |offset, len, data| {
                    if !data && is_hole(file, offset, len) {
                        return Ok(true);
                    }
                    let read = &mut read[..len];
                    file.read_exact_at(read, offset)?;
                    Ok(if data {
                        read == bytes(*seed, offset, len)
                    } else {
                        read == &zeros[..len]
                    })
                })
            }
        }
    }
}

const BLOCK: u64 = 128 * KIB;

/// Calls `visit` with the offset and length of each piece of a file, at most a block, and whether it is data. Returns
/// the offset at which `visit` returned `false`, if it did.
fn each_block(
    size: u64,
    extents: &[Extent],
    mut visit: impl FnMut(u64, usize, bool) -> io::Result<bool>,
) -> io::Result<Option<u64>> {
    let mut at = 0;
    let mut piece = |end: u64, data: bool| -> io::Result<Option<u64>> {
        while at < end {
            let len = (end - at).min(BLOCK);
            if !visit(at, len as usize, data)? {
                return Ok(Some(at));
            }
            at += len;
        }
        Ok(None)
    };
    for extent in extents {
        for (end, data) in [(extent.offset, false), (extent.offset + extent.len, true)] {
            if let Some(at) = piece(end, data)? {
                return Ok(Some(at));
            }
        }
    }
    piece(size, false)
}

fn is_hole(file: &fs::File, offset: u64, len: usize) -> bool {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset)) {
        Ok(data) => data >= offset + len as u64,
        Err(error) => error == rustix::io::Errno::NXIO,
    }
}

/// What belongs at an offset: BLAKE3's output stream for the seed and the offset.
fn bytes(seed: u64, offset: u64, len: usize) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(&seed.to_le_bytes())
        .update(&offset.to_le_bytes());
    let mut out = vec![0; len];
    hasher.finalize_xof().fill(&mut out);
    out
}

fn dense(size: u64, seed: u64) -> Content {
    let extents = vec![Extent {
        offset: 0,
        len: size,
    }];
    Content::Pages {
        size,
        seed,
        extents,
    }
}

/// Memory as a guest leaves it: mostly untouched, the rest scattered.
fn sparse(size: u64, data: u64, seed: u64) -> Content {
    let count = data / BLOCK;
    let stride = size / count;
    let pages = (stride - BLOCK) / (4 * KIB);
    let extents = (0..count)
        .map(|number| Extent {
            offset: (number * stride).next_multiple_of(4 * KIB)
                + (number * 7919 + seed) % (pages - 1) * 4 * KIB,
            len: BLOCK,
        })
        .collect();
    Content::Pages {
        size,
        seed,
        extents,
    }
}

fn allocated(metadata: &fs::Metadata) -> u64 {
    metadata.blocks() * 512
}

// What is printed.

fn describe(checkpoint: &Checkpoint) {
    for file in &checkpoint.files {
        println!(
            "  {:<14}{:>11}  {:>11} on disk  {}",
            file.name,
            human(file.content.size()),
            human(file.allocated),
            if file.read_only {
                "read-only"
            } else {
                "writable"
            }
        );
    }
}

fn show_snapshot(report: &SnapshotReport) {
    println!("  {}", report.reference);
    line(
        "content",
        &format!(
            "{} files, {}, of which {} are data",
            report.files,
            human(report.logical_bytes),
            human(report.data_bytes)
        ),
    );
    line(
        "new",
        &format!(
            "{} in {} blobs; {} in {} blobs were there already",
            human(report.stored_bytes),
            report.blobs_stored,
            human(report.placements.present.bytes),
            report.blobs_reused
        ),
    );
    line("stored by", &placements(&report.placements));
    line("time", &format!("{:.2?}", report.duration));
    warnings(&report.warnings);
}

fn show_restore(report: &RestoreReport) {
    println!("  {}", report.reference);
    line("placed by", &placements(&report.placements));
    line("time", &format!("{:.2?}", report.duration));
    warnings(&report.warnings);
}

fn placements(placements: &Placements) -> String {
    let named = [
        ("hardlink", placements.hardlink),
        ("reflink", placements.reflink),
        ("copy", placements.copy),
        ("already there", placements.present),
    ];
    let used: Vec<_> = named
        .into_iter()
        .filter(|(_, count)| *count != PlacementCount::default())
        .map(|(name, count)| format!("{name} {} ({})", count.files, human(count.bytes)))
        .collect();
    used.join(", ")
}

fn warnings(warnings: &[Warning]) {
    for warning in warnings {
        let path = warning.path.as_deref().unwrap_or(Path::new("."));
        line(
            "warning",
            &format!("{}: {}", path.display(), warning.message),
        );
    }
}

fn heading(text: &str) {
    println!("\n{text}");
}

fn line(what: &str, text: &str) {
    println!("    {what:<10}{text}");
}

fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = usize::from(unit > 0);
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// An error, what caused it, and what to do about it.
fn explain(error: &(dyn std::error::Error + 'static)) {
    eprintln!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("caused by: {error}");
        cause = error.source();
    }
    if let Some(hint) = error.downcast_ref::<Error>().and_then(Error::hint) {
        eprintln!("hint: {hint}");
    }
}

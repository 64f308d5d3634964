//! `snapshotter snapshot`.

mod planned;
mod taken;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::ValueHint;
use snapshotter::{
    Compression, ErrorKind, File, Format, ParentChoice, SnapshotRequest, Snapshotter, small,
};

use crate::answer::Answer;
use crate::arguments::Link;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::hints;
use crate::output::json::Warning;
use crate::settings::Snapshots;
use planned::Planned;
pub use planned::{Entry, write_entries};
pub use taken::Taken;

/// Takes a snapshot of files and calls it NAME:VERSION
///
/// Versions are immutable: what exists is replaced only with --force. Nothing is visible unless the command succeeds, and
/// then the snapshot is on the disk.
///
/// Where a registry is configured it is published too, unless --local is given. If only that fails, the snapshot is kept
/// here, and `snapshotter push` publishes it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  snapshotter snapshot vm:v1 /run/vm
      everything below /run/vm
  snapshotter snapshot vm:v2 /run/vm memory disk.img --read-only memory
      two files; `memory` will not be written any more and is hardlinked instead of copied
  snapshotter snapshot vm:v3 /run/vm --exclude '*.log' --exclude '/cache/' --annotation kernel=6.18
      without any log and without ./cache; quote patterns, or the shell replaces them
  snapshotter snapshot vm:v4 /run/vm --local
      is not published, though a registry is configured
  snapshotter snapshot vm:v5 /run/vm --format v2
      stores only the pages that changed since /run/vm was restored or taken in this format
  snapshotter snapshot vm:v6 /run/vm --format v2 --parent vm:v5@sha256:… --diff memory
      `memory` has the pages that changed since vm:v5, as a virtual machine's monitor writes them
  pg_dump all | snapshotter snapshot db:v1 --stdin all.sql
      one file, whose bytes another program writes
  find . -name '*.img' -print0 | snapshotter snapshot images:v1 . --files-from0 -
      what another program found")]
pub struct Args {
    /// What to call it: NAME:VERSION
    reference: String,
    /// The directory that PATHs and GLOBs are relative to
    #[arg(value_hint = ValueHint::DirPath, required_unless_present = "stdin")]
    base_dir: Option<PathBuf>,
    /// What to take; a directory means everything below it [default: everything]
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    paths: Vec<PathBuf>,
    /// Promise that these files will not be written any more
    ///
    /// They are hardlinked instead of copied, in and out, and all restores of them share one page cache. A GLOB is from
    /// BASE_DIR: `*` stays within a directory, `**` crosses them and alone means everything; a directory means everything below.
    #[arg(long, value_name = "GLOB")]
    read_only: Vec<String>,
    /// Leave these out: patterns as in .gitignore
    ///
    /// Without a slash a pattern matches at any depth, with one from BASE_DIR: `*.log`, `/log`, `log/` (directories alone),
    /// `a/**/b`. `!` takes back what an earlier pattern said, unless a whole directory is left out.
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Leave out what the patterns in this file say, one a line; blank lines and # comments are none
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    exclude_from: Vec<PathBuf>,
    /// Take nothing of other filesystems that are mounted below BASE_DIR or a PATH; their mount points are kept
    #[arg(short = 'x', long)]
    one_file_system: bool,
    /// Leave out what may not be read, with a warning each, instead of failing
    #[arg(long)]
    skip_unreadable: bool,
    /// Read block devices that are PATHs, as files of their size
    #[arg(long)]
    devices: bool,
    /// Take the PATHs in this file too, one a line; - is the standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    files_from: Vec<PathBuf>,
    /// The same with a NUL after each PATH, as `find -print0` writes them
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    files_from0: Vec<PathBuf>,
    /// Take one file, PATH, whose bytes come from the standard input
    #[arg(
        long,
        value_name = "PATH",
        conflicts_with_all = ["base_dir", "paths", "files_from", "files_from0", "read_only", "exclude", "exclude_from",
            "one_file_system", "skip_unreadable", "devices", "diff", "dry_run"]
    )]
    stdin: Option<PathBuf>,
    /// Keep a note with the snapshot
    #[arg(long, value_name = "KEY=VALUE", value_parser = annotation)]
    annotation: Vec<(String, String)>,
    /// How bytes get into the store
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    link_mode: Link,
    /// How to keep it: v1 file by file, v2 in pages, of which only those are stored that changed [default: v1]
    #[arg(long, value_name = "FORMAT", value_parser = said::<Format>)]
    format: Option<Format>,
    /// What to compare one of format v2 with: NAME:VERSION, origin, latest or none [default: origin]
    ///
    /// `origin` is the snapshot that BASE_DIR was last restored from, or that was last taken of it; `latest` the newest of the
    /// same name. Packs of a parent hold pages that it had and this one has not: `none` is for what leaves your hands.
    #[arg(long, value_name = "PARENT", value_parser = said::<ParentChoice>)]
    parent: Option<ParentChoice>,
    /// Take this file as a difference: data are pages that changed, holes are as the parent has them
    ///
    /// Needs `--format v2` and `--parent NAME:VERSION@sha256:…`, a file of the same size there, and ext4, XFS, btrfs or tmpfs
    /// on a system with pages of 4 KiB. The file has to be written with write(2) and not through a mapping, which writes zeros around
    /// what changed, and copied with its holes exactly as they are: `cp --sparse=always`, `rsync -S` and `dd conv=sparse` make holes
    /// of zeros that were written. May be given more than once, beside PATHs.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    diff: Vec<PathBuf>,
    /// How to compress the pages of format v2: none, or zstd:1 to zstd:19 [default: zstd:1]
    #[arg(long, value_name = "HOW", value_parser = said::<Compression>)]
    compression: Option<Compression>,
    /// Replace the version if it exists
    #[arg(long)]
    force: bool,
    /// Keep it here alone: do not publish it
    #[arg(long)]
    local: bool,
    /// Only show what would be taken
    #[arg(long)]
    dry_run: bool,
}

/// Reads what the library reads.
pub fn said<T: FromStr<Err = snapshotter::Error>>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|error: snapshotter::Error| error.to_string())
}

fn annotation(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE"),
    }
}

/// Runs it.
pub fn run(context: &Context, args: Args) -> Result<Answer> {
    let dry_run = args.dry_run;
    let base = args.base().to_owned();
    let stdin = args.stdin.clone();
    let paths = args.all_paths()?;
    let request = args.request(&paths, &context.settings.draft.snapshot)?;
    let explain = |error: snapshotter::Error| explain(error.into(), &base, &paths);
    if dry_run {
        return plan(context, &request, explain);
    }
    let title = format!("{}:{}", request.name, request.version);
    let take = async |store: &Snapshotter| {
        let progress = context.progress(&title);
        let store = store.observed_by(progress.observer());
        let taken = match stdin {
            Some(path) => store.snapshot_stream(&request, path, io::stdin()).await,
            None => store.snapshot(&request).await,
        };
        match taken.map_err(explain) {
            Ok(taken) => Ok(taken),
            Err(failure) => {
                // A parent is all that has to be there.
                let failure = hints::what_is_there(&store, failure).await;
                match request.local || request.force {
                    true => Err(failure),
                    false => Err(hints::taken(&store, &title, failure).await),
                }
            }
        }
    };
    let taken = if request.local {
        context.with_store(take)?
    } else {
        if context.registry().is_some() {
            context.require_content("; --local publishes nothing")?;
        }
        context.with_store_and_remote(take)?
    };
    let warnings = taken.value.warnings.iter().cloned().map(Warning::from);
    let warnings: Vec<_> = warnings.chain(taken.warnings).collect();
    Ok(Answer::new(Taken::new(&taken.value)).with_warnings(warnings))
}

/// What would be taken. A root that is not there stays so: an empty one elsewhere says the same.
fn plan(
    context: &Context,
    request: &SnapshotRequest,
    explain: impl FnOnce(snapshotter::Error) -> Failure,
) -> Result<Answer> {
    let planned = async |store: &Snapshotter| store.plan_snapshot(request).await.map_err(explain);
    let planned = if context.has_store() {
        context.with_store(planned)?
    } else {
        context.with_empty_store(planned)?
    };
    let plan = planned.value;
    let refused = (plan.exists && !request.force).then(|| {
        let what = format!("the snapshot {} already exists", plan.reference);
        exists(Failure::new(ErrorKind::AlreadyExists, what))
    });
    let warnings: Vec<Warning> = plan.warnings.iter().cloned().map(Warning::from).collect();
    Ok(Answer::new(Planned::new(plan))
        .with_warnings(warnings)
        .with_failure(refused))
}

impl Args {
    fn base(&self) -> &Path {
        self.base_dir.as_deref().unwrap_or(Path::new("."))
    }

    fn all_paths(&self) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for path in &self.paths {
            paths.push(hints::relative(path, self.base(), "BASE_DIR")?);
        }
        let lists = (self.files_from.iter().map(|list| (list, b'\n')))
            .chain(self.files_from0.iter().map(|list| (list, b'\0')));
        let mut listed = false;
        for (list, end) in lists {
            listed = true;
            for path in read_list(list, end)? {
                paths.push(hints::relative(&path, self.base(), "BASE_DIR")?);
            }
        }
        if listed && paths.is_empty() {
            return Err(Failure::invalid("the list of files is empty")
                .with_hint("without --files-from, everything below BASE_DIR is taken"));
        }
        Ok(paths)
    }

    /// All that is taken; differences are a part of what is taken else.
    fn files(&self, paths: &[PathBuf]) -> Result<Vec<File>> {
        let diff = |path: &PathBuf| hints::relative(path, self.base(), "BASE_DIR");
        let diffs: Vec<_> = self.diff.iter().map(diff).collect::<Result<_>>()?;
        let whole = paths.iter().filter(|path| !diffs.contains(path));
        let mut files: Vec<_> = whole.map(File::new).collect();
        if paths.is_empty() && !diffs.is_empty() {
            files.push(File::new("."));
        }
        files.extend(diffs.iter().map(|path| File::new(path).diff(true)));
        Ok(files)
    }

    fn request(self, paths: &[PathBuf], defaults: &Snapshots) -> Result<SnapshotRequest> {
        let command = "snapshot NAME:VERSION BASE_DIR";
        let reference = hints::new_reference(&self.reference, command)?;
        let version = reference.version().unwrap_or_default();
        let files = self.files(paths)?;
        let format = self.format.unwrap_or(defaults.format);
        if format == Format::V1 && (self.parent.is_some() || self.compression.is_some()) {
            let text = "--parent and --compression are for format v2, and this snapshot is to be of format v1";
            return Err(Failure::invalid(text).with_hint("add --format v2"));
        }
        let mut request = SnapshotRequest::new(reference.name(), version, self.base())
            .files(files)
            .one_file_system(self.one_file_system)
            .skip_unreadable(self.skip_unreadable)
            .devices(self.devices)
            .force(self.force)
            .local(self.local)
            .format(format)
            .parent(self.parent.unwrap_or_else(|| defaults.parent.clone()))
            .compression(self.compression.unwrap_or(defaults.compression))
            .frame_pages(defaults.frame_pages)
            .index_bytes(defaults.index_bytes)
            .link_mode(self.link_mode.into());
        request.read_only = self.read_only;
        request.exclude = self.exclude;
        request.exclude_from = self.exclude_from;
        request.annotations = self.annotation.into_iter().collect();
        Ok(request)
    }
}

/// What a snapshot's own list of its files may have, in bytes: longer ones could not be kept.
const MAX_LIST_BYTES: u64 = 256 << 20;

fn read_list(list: &Path, end: u8) -> Result<Vec<PathBuf>> {
    let what = "the list of files";
    let bytes = match list.as_os_str() == "-" {
        true => small::read_from(what, list, io::stdin(), MAX_LIST_BYTES)?,
        false => small::read(what, list, MAX_LIST_BYTES)?,
    };
    let names = bytes
        .split(|byte| *byte == end)
        .filter(|name| !name.is_empty());
    Ok(names.map(|name| OsStr::from_bytes(name).into()).collect())
}

fn explain(failure: Failure, base: &Path, paths: &[PathBuf]) -> Failure {
    match failure.kind {
        ErrorKind::AlreadyExists => exists(failure),
        ErrorKind::InvalidInput if base.is_file() => failure.with_hint(format!(
            "to take one file, name its directory first: {}",
            one_file(base)
        )),
        _ => hints::on_the_way(hints::missing_path(failure, base, paths)),
    }
}

fn one_file(file: &Path) -> String {
    let directory = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    format!("{} {name}", directory.unwrap_or(Path::new(".")).display())
}

/// Says what to do where a version is there already.
pub fn exists(failure: Failure) -> Failure {
    failure.with_hint("choose another version, or replace this one with --force")
}

//! `snapshotter restore`.

use std::io;
use std::path::{Path, PathBuf};

use clap::ValueHint;
use serde::Serialize;
use snapshotter::{ErrorKind, RestorePlan, RestoreReport, RestoreRequest, Snapshotter};

use super::push::object;
use super::snapshot::{Entry, write_entries};
use crate::answer::{Answer, Document};
use crate::arguments::Link;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::hints;
use crate::output::Page;
use crate::output::human::{self, bytes, count};
use crate::output::json::{Called, Placed, Relative, Warning};

/// Restores a snapshot into OUTPUT_DIR
///
/// Files appear under their names whole or not at all. What is there already is replaced, each file at once, unless it is
/// right; nothing that is not part of the snapshot is touched, but with --delete.
///
/// Where a registry is configured, what is not here is fetched first, and stays here; --dry-run only asks for its description.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  snapshotter restore vm:v1 /run/vm-2
      everything; the directory is made if it is not there
  snapshotter restore vm:v1 /run/vm-2 memory disk.img
      two files
  snapshotter restore vm:v1 /run/vm-2 --no-clobber
      only if nothing would be replaced
  snapshotter restore vm:v1 /run/vm-2 --include '*.json' --exclude /cache/
      all JSON files but those in cache
  snapshotter restore vm:v1 /run/vm-2 --delete --dry-run
      only show what would happen: what would be replaced, and what would be deleted")]
pub struct Args {
    /// The snapshot: NAME:VERSION
    reference: String,
    /// Where to put it; made if it is not there
    #[arg(value_hint = ValueHint::DirPath)]
    output_dir: PathBuf,
    /// What to restore; a directory means everything below it [default: everything]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Restore only what these match, and what is below: patterns as in .gitignore
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Leave these out, in the same form
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Delete what is in OUTPUT_DIR and not in the snapshot
    ///
    /// With PATHs or --include only of what they name, and nothing that --exclude matches. No symlink is followed, and what is
    /// mounted below OUTPUT_DIR stays. Try it with --dry-run first.
    #[arg(long, conflicts_with = "no_clobber")]
    delete: bool,
    /// Refuse to replace anything, before anything is written
    #[arg(long)]
    no_clobber: bool,
    /// Restore set-user-ID and set-group-ID bits too, as root
    ///
    /// Without it they are left out, with a warning: a snapshot with such files is to be trusted as root is.
    #[arg(long)]
    setid: bool,
    /// How bytes get out of the store
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    link_mode: Link,
    /// Only show what would be restored
    #[arg(long)]
    dry_run: bool,
}

/// Runs it.
pub fn run(context: &Context, args: Args) -> Result<Answer> {
    let dry_run = args.dry_run;
    let request = args.request()?;
    if context.registry().is_none() {
        context.require_store()?;
    }
    if dry_run {
        return plan(context, &request);
    }
    let title = request.reference.to_string();
    let restored = context.with_store_and_remote(async |store| {
        let progress = context.progress(&title);
        let observed = store.observed_by(progress.observer());
        match observed.restore(&request).await {
            Ok(report) => Ok(report),
            Err(error) => {
                drop(progress);
                Err(absent(context, store, error.into(), &request).await)
            }
        }
    })?;
    let report = restored.value;
    let warnings = report.warnings.iter().cloned().map(Warning::from);
    let warnings: Vec<_> = warnings.chain(restored.warnings).collect();
    Ok(Answer::new(Restored::new(&report, &request.output_dir)).with_warnings(warnings))
}

/// What would happen. Nothing is made or fetched to find out: where there is no store, an empty one stands in for it.
fn plan(context: &Context, request: &RestoreRequest) -> Result<Answer> {
    let work = async |store: &Snapshotter| match store.plan_restore(request).await {
        Ok(plan) => Ok(plan),
        Err(error) => Err(absent(context, store, error.into(), request).await),
    };
    let planned = if context.has_store() {
        context.with_store_and_remote(work)?
    } else {
        context.with_remote(work)?
    };
    let plan = planned.value;
    let refused = (request.no_clobber && !plan.existing.is_empty()).then(|| {
        let first = request.output_dir.join(&plan.existing[0]);
        let what = format!("{} already exists", first.display());
        clobbers(Failure::new(ErrorKind::AlreadyExists, what).with_path(first))
    });
    let warnings = plan.warnings.iter().cloned().map(Warning::from);
    Ok(Answer::new(Planned::new(&plan))
        .with_warnings(warnings.chain(planned.warnings))
        .with_failure(refused))
}

/// Says where to look for what was not found.
async fn absent(
    context: &Context,
    store: &Snapshotter,
    failure: Failure,
    request: &RestoreRequest,
) -> Failure {
    let failure = match context.registry() {
        Some(_) => hints::on_the_way(failure),
        None => hints::what_is_there(store, failure).await,
    };
    explain(failure, request)
}

impl Args {
    fn request(self) -> Result<RestoreRequest> {
        let reference = hints::reference(&self.reference, "restore NAME:VERSION OUTPUT_DIR")?;
        let mut request = RestoreRequest::new(reference, self.output_dir)
            .link_mode(self.link_mode.into())
            .no_clobber(self.no_clobber)
            .delete(self.delete)
            .setid(self.setid);
        request.include = self.include;
        request.exclude = self.exclude;
        for path in &self.paths {
            let path = hints::relative(path, &request.output_dir, "OUTPUT_DIR")?;
            // The base itself is everything, which the library says by naming nothing.
            if path.as_os_str() == "." {
                request.paths.clear();
                break;
            }
            request.paths.push(path);
        }
        Ok(request)
    }
}

fn explain(failure: Failure, request: &RestoreRequest) -> Failure {
    match failure.kind {
        ErrorKind::AlreadyExists if request.no_clobber => clobbers(failure),
        ErrorKind::NotFound if failure.about.path.is_some() && !request.paths.is_empty() => failure
            .with_hint(format!(
                "`snapshotter inspect {}` shows its paths",
                request.reference
            )),
        _ => failure,
    }
}

fn clobbers(failure: Failure) -> Failure {
    failure.with_hint(
        "leave out --no-clobber to replace what is there, or restore into another directory",
    )
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Restored {
    #[serde(flatten)]
    reference: Called,
    manifest_digest: String,
    format: &'static str,
    files: u64,
    directories: u64,
    symlinks: u64,
    whiteouts: u64,
    deleted: u64,
    logical_bytes: u64,
    data_bytes: u64,
    placements: Placed,
    fetched_blobs: u64,
    fetched_bytes: u64,
    duration_seconds: f64,
    #[serde(skip)]
    output_dir: PathBuf,
}

impl Restored {
    fn new(report: &RestoreReport, output_dir: &Path) -> Self {
        Self {
            reference: Called::new(&report.reference),
            manifest_digest: report.manifest_digest.to_string(),
            format: report.format.as_str(),
            files: report.files,
            directories: report.directories,
            symlinks: report.symlinks,
            whiteouts: report.whiteouts,
            deleted: report.deleted,
            logical_bytes: report.logical_bytes,
            data_bytes: report.data_bytes,
            placements: report.placements.into(),
            fetched_blobs: report.fetched_blobs,
            fetched_bytes: report.fetched_bytes,
            duration_seconds: report.duration.as_secs_f64(),
            output_dir: output_dir.to_owned(),
        }
    }
}

impl Document for Restored {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        if page.quiet {
            return Ok(());
        }
        page.whereabouts(&self.reference, "is in", &self.output_dir)?;
        let duration = human::duration(std::time::Duration::from_secs_f64(self.duration_seconds));
        writeln!(
            page.out,
            "  {}, {} of data, in {duration}",
            count(self.files, "file"),
            bytes(self.data_bytes)
        )?;
        if self.files > 0 {
            writeln!(page.out, "  {}", self.placements.shown())?;
        }
        if self.deleted > 0 {
            let names = count(self.deleted, "name");
            writeln!(
                page.out,
                "  {names} that the snapshot does not have deleted"
            )?;
        }
        if self.fetched_blobs > 0 {
            let packs = count(self.fetched_blobs, object(self.format));
            writeln!(
                page.out,
                "  {packs} ({}) fetched",
                bytes(self.fetched_bytes)
            )?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Planned {
    dry_run: bool,
    #[serde(flatten)]
    reference: Called,
    manifest_digest: String,
    files: u64,
    directories: u64,
    symlinks: u64,
    whiteouts: u64,
    logical_bytes: u64,
    entries: Vec<Entry>,
    existing: Vec<Relative>,
    to_delete: Vec<Relative>,
}

impl Planned {
    fn new(plan: &RestorePlan) -> Self {
        Self {
            dry_run: true,
            reference: Called::new(&plan.reference),
            manifest_digest: plan.manifest_digest.to_string(),
            files: plan.files,
            directories: plan.directories,
            symlinks: plan.symlinks,
            whiteouts: plan.whiteouts,
            logical_bytes: plan.logical_bytes,
            entries: plan.entries.iter().map(Entry::new).collect(),
            existing: relative(&plan.existing),
            to_delete: relative(&plan.extra),
        }
    }
}

fn relative(paths: &[PathBuf]) -> Vec<Relative> {
    paths.iter().map(|path| Relative::new(path)).collect()
}

impl Document for Planned {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        write_entries(page, &self.entries)?;
        for path in &self.existing {
            writeln!(page.out, "there already: {}", path.shown())?;
        }
        for path in &self.to_delete {
            writeln!(page.out, "would be deleted: {}", path.shown())?;
        }
        writeln!(
            page.out,
            "{}, {} with holes, would be restored. Nothing was written.",
            count(self.files, "file"),
            bytes(self.logical_bytes)
        )
    }
}

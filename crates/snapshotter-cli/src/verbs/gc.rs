//! `snapshotter gc`: once, or again and again with `--watch`.

mod metrics;
mod remote;
mod watch;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueHint;
use serde::Serialize;
use snapshotter::{
    CollectRequest, GcReport, GcRequest, GcStop, KeptSnapshots, PruneReport, PrunedSnapshot,
    ReleasedSnapshot,
};

use super::prune::Removed;
use crate::answer::{Answer, Document};
use crate::context::Context;
use crate::failure::Result;
use crate::output::Page;
use crate::output::human::{bytes, count};
use crate::output::json::{Called, Time, Warning};
use crate::settings::{parse_bytes, parse_duration};

/// Frees space where the disk or the store is too full
///
/// Removes what belongs to nothing, then releases snapshots. The disk is too full from gc.disk_high_threshold_percent on, until it is at gc.disk_low_threshold_percent; the store when
/// it holds more than gc.max_bytes. Snapshots go that can be fetched again, and are not pinned, in use or young, the least
/// recently used first. Whether they can, the configured registry and place of contents are asked right before, in a
/// --dry-run too; what is not there, and what nobody answers for, stays. No other command collects anything.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  snapshotter gc
      as much as the settings want
  snapshotter gc --max-bytes 100GiB --dry-run
      only show what would go
  snapshotter gc --max-bytes 0 --retention 0
      everything that may go
  snapshotter gc --remote --no-other-publishers
      in the bucket, for all who publish there: lists what may go, and removes it a day later
  snapshotter gc --watch --metrics-file /var/lib/node_exporter/snapshotter.prom
      every gc.interval, until a signal comes: for nodes without an agent")]
pub struct Args {
    /// Only show what would go
    #[arg(long, conflicts_with = "watch")]
    dry_run: bool,
    /// Free what the store holds above this: 100GiB, 512MiB, 0 [default: gc.max_bytes]
    #[arg(long, value_name = "BYTES", value_parser = size)]
    max_bytes: Option<u64>,
    /// Keep what was used within this time: 1h, 30m, 0 [default: gc.min_retention_period]
    #[arg(long, value_name = "DURATION", value_parser = period)]
    retention: Option<Duration>,
    /// Let snapshots go too whose only copy is here, and ask nobody
    #[arg(long)]
    include_unpublished: bool,
    /// Go on until a signal comes, looking every gc.interval
    ///
    /// Before each look, old versions are pruned as the settings' [[prune.rule]] say, here alone.
    ///
    /// With --json, a document a line. What goes wrong is reported, and the next look comes all the same. Ends as every
    /// command that is interrupted: with 130 or 143.
    #[arg(long)]
    watch: bool,
    /// Remove what no manifest names from the configured bucket or directory, and nothing here
    ///
    /// For all who publish there, whatever their registry and namespace. The first call lists what may go; one that comes --grace
    /// later removes it and lists what may go next. One regular call a bucket is enough.
    #[arg(long, conflicts_with_all = ["watch", "max_bytes", "retention", "include_unpublished"])]
    remote: bool,
    /// With --remote: how long what nothing needs stays after it was listed [default: 24h]
    #[arg(long, value_name = "DURATION", value_parser = period, requires = "remote")]
    grace: Option<Duration>,
    /// With --remote: nobody publishes there but this release and later ones
    ///
    /// The Go library, older releases and nodes that reach the bucket through Dragonfly alone leave no record of what they
    /// publish: what they need would be removed. Required, but in a --dry-run.
    #[arg(long, requires = "remote")]
    no_other_publishers: bool,
    /// Write metrics for Prometheus to this file after each look, replacing it at once
    ///
    /// Of all commands and programs that ever used this root.
    #[arg(long, value_name = "FILE", conflicts_with = "remote", value_hint = ValueHint::FilePath)]
    metrics_file: Option<PathBuf>,
}

fn size(text: &str) -> Result<u64, &'static str> {
    parse_bytes(text).ok_or("write a number and a unit: 100GiB, 1.5TiB or 10GB")
}

/// Reads an argument that is some time.
pub fn period(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).ok_or("write a number and a unit (ms, s, m, h, d or w): 1h")
}

/// Runs it.
pub fn run(context: &Context, args: &Args) -> Result<Answer> {
    if args.remote {
        return remote::run(context, &args.remote_request());
    }
    let request = args.request();
    if args.watch {
        return watch::run(context, &request, args.metrics_file.as_deref());
    }
    context.require_store()?;
    let collected = context.with_store_and_remote(async |store| {
        let collected = store.gc(&request).await;
        // A collection that failed is among them.
        if let Some(path) = &args.metrics_file {
            metrics::write(store, path).await?;
        }
        Ok(collected?)
    })?;
    Ok(answer(&collected.value, &PruneReport::default()).with_warnings(collected.warnings))
}

impl Args {
    fn remote_request(&self) -> CollectRequest {
        let request = CollectRequest::new()
            .dry_run(self.dry_run)
            .no_other_publishers(self.no_other_publishers);
        match self.grace {
            Some(grace) => request.grace(grace),
            None => request,
        }
    }

    fn request(&self) -> GcRequest {
        let mut request = GcRequest::new().dry_run(self.dry_run);
        if let Some(bytes) = self.max_bytes {
            request = request.max_bytes(bytes);
        }
        if let Some(period) = self.retention {
            request = request.min_retention_period(period);
        }
        if self.include_unpublished {
            request = request.include_unpublished(true);
        }
        request
    }
}

/// What a collection did, and what was pruned before; what it could not do is a warning.
fn answer(report: &GcReport, pruned: &PruneReport) -> Answer {
    let kept = pruned
        .warnings
        .iter()
        .chain(&report.warnings)
        .cloned()
        .map(Warning::from);
    Answer::new(Collected::new(report, &pruned.removed))
        .with_warnings(kept)
        .with_warnings(too_little(report))
}

fn too_little(report: &GcReport) -> Option<Warning> {
    let shortfall = report.shortfall.as_ref()?;
    let missing = shortfall.missing;
    let limits = [
        (
            missing.disk_bytes,
            bytes(missing.disk_bytes),
            "too much on the disk",
        ),
        (
            missing.store_bytes,
            bytes(missing.store_bytes),
            "too much in the store",
        ),
        (
            missing.inodes,
            count(missing.inodes, "inode"),
            "too many on the disk",
        ),
    ];
    let over = limits.iter().filter(|(amount, ..)| *amount > 0);
    let over: Vec<_> = over
        .map(|(_, amount, what)| format!("{amount} {what}"))
        .collect();
    let why = match shortfall.reason {
        GcStop::NotHelping => {
            "releasing freed nothing: the files share their blocks with others, are held open, or somebody fills the disk"
                .to_owned()
        }
        _ => format!("nothing more may go that frees anything{}", kept(report.kept)),
    };
    let text = format!("there is still {}; {why}", over.join(" and "));
    Some(Warning::new("gc_shortfall", text))
}

fn kept(kept: KeptSnapshots) -> String {
    let reasons = [
        (
            kept.only_copies,
            "only here (push them, or --include-unpublished)",
        ),
        (kept.unconfirmed, "not confirmed to be elsewhere"),
        (kept.pinned, "pinned"),
        (kept.recent, "used lately (--retention)"),
        (kept.in_use, "in use"),
    ];
    let there = reasons.iter().filter(|(number, _)| *number > 0);
    let said: Vec<_> = there
        .map(|(number, why)| format!("{number} {why}"))
        .collect();
    match said.is_empty() {
        true => String::new(),
        false => format!("; kept: {}", said.join(", ")),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Collected {
    dry_run: bool,
    pruned: Vec<Removed>,
    wanted: Amount,
    released: Vec<Released>,
    blobs_released: u64,
    released_bytes: u64,
    cache_entries: u64,
    cache_bytes: u64,
    freed_bytes: u64,
    kept: Kept,
    shortfall: Option<Shortfall>,
    swept_names: u64,
    duration_seconds: f64,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct Amount {
    disk_bytes: u64,
    store_bytes: u64,
    inodes: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Released {
    #[serde(flatten)]
    reference: Called,
    manifest_digest: String,
    last_accessed_at: Time,
    blobs: u64,
    bytes: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    pinned: u64,
    in_use: u64,
    recent: u64,
    only_copies: u64,
    unconfirmed: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shortfall {
    #[serde(flatten)]
    missing: Amount,
    reason: &'static str,
}

impl From<snapshotter::GcAmount> for Amount {
    fn from(amount: snapshotter::GcAmount) -> Self {
        Self {
            disk_bytes: amount.disk_bytes,
            store_bytes: amount.store_bytes,
            inodes: amount.inodes,
        }
    }
}

impl Collected {
    fn new(report: &GcReport, pruned: &[PrunedSnapshot]) -> Self {
        let kept = report.kept;
        Self {
            dry_run: report.dry_run,
            pruned: pruned.iter().map(Removed::new).collect(),
            wanted: report.wanted.into(),
            released: report.released.iter().map(Released::new).collect(),
            blobs_released: report.blobs_released,
            released_bytes: report.released_bytes,
            cache_entries: report.cache_entries,
            cache_bytes: report.cache_bytes,
            freed_bytes: report.freed_bytes,
            kept: Kept {
                pinned: kept.pinned,
                in_use: kept.in_use,
                recent: kept.recent,
                only_copies: kept.only_copies,
                unconfirmed: kept.unconfirmed,
            },
            shortfall: report.shortfall.as_ref().map(|shortfall| Shortfall {
                missing: shortfall.missing.into(),
                reason: shortfall.reason.as_str(),
            }),
            swept_names: report.swept_names,
            duration_seconds: report.duration.as_secs_f64(),
        }
    }
}

impl Released {
    fn new(released: &ReleasedSnapshot) -> Self {
        Self {
            reference: Called::new(&released.reference),
            manifest_digest: released.manifest_digest.to_string(),
            last_accessed_at: Time(released.last_accessed_at),
            blobs: released.blobs,
            bytes: released.bytes,
        }
    }
}

impl Document for Collected {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        if page.quiet && !self.dry_run {
            return Ok(());
        }
        let verb = if self.dry_run {
            "would release"
        } else {
            "released"
        };
        for one in &self.pruned {
            writeln!(page.out, "pruned {}: {}", one.reference(), one.freed())?;
        }
        if self.cache_entries > 0 {
            let entries = count(self.cache_entries, "cached file");
            writeln!(page.out, "{verb} {entries}: {}", bytes(self.cache_bytes))?;
        }
        for one in &self.released {
            let used = page.time(one.last_accessed_at.0);
            let freed = format!("{} in {}", bytes(one.bytes), count(one.blobs, "blob"));
            writeln!(page.out, "{verb} {}: {freed}, used {used}", one.reference)?;
        }
        if self.swept_names > 0 {
            let names = count(self.swept_names, "name");
            writeln!(page.out, "{names} left by interrupted commands removed")?;
        }
        self.sum(page)
    }
}

impl Collected {
    fn sum(&self, page: &mut Page<'_>) -> io::Result<()> {
        if !self.released.is_empty() {
            let would = if self.dry_run { "would be " } else { "" };
            return writeln!(
                page.out,
                "{} {would}released: {} of data, {} freed on the disk",
                count(self.released.len() as u64, "snapshot"),
                bytes(self.released_bytes),
                bytes(self.freed_bytes)
            );
        }
        let Amount {
            disk_bytes,
            store_bytes,
            inodes,
        } = self.wanted;
        if disk_bytes == 0 && store_bytes == 0 && inodes == 0 {
            writeln!(
                page.out,
                "Nothing to free: neither the disk nor the store is too full."
            )
        } else {
            writeln!(page.out, "No snapshot released.")
        }
    }

    /// Whether a person would want to hear of it.
    fn is_news(&self) -> bool {
        !self.released.is_empty()
            || !self.pruned.is_empty()
            || self.cache_entries > 0
            || self.swept_names > 0
            || self.shortfall.is_some()
            || self.kept.unconfirmed > 0
    }
}

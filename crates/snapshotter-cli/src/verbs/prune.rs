//! `snapshotter prune`.

use std::io;
use std::time::Duration;

use glob::Pattern;
use serde::Serialize;
use snapshotter::{
    KeepReason, KeptSnapshot, PruneReport, PruneRequest, PruneRule, PrunedSnapshot, Retention,
    Snapshotter,
};

use super::gc::period;
use crate::answer::{Answer, Document};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::hints;
use crate::output::human::{self, bytes, count};
use crate::output::json::{Called, Time};
use crate::output::{Align, Page, Table, total};
use crate::settings::parse_count;

/// Removes old versions, and keeps those that --keep-* says
///
/// The rules are restic's: each --keep-hourly, -daily and so on keeps the newest version of each of the last N hours or days
/// that have one, and the oldest version of a name while there are fewer. What any of them keeps stays, and so does one version
/// of each name, what is pinned, and what is only here unless --include-unpublished is given. Hours, days, weeks (from Monday
/// on), months and years are UTC's.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  snapshotter prune vm --keep-last 3 --dry-run
      only show what would go, and why the others stay
  snapshotter prune 'sandboxes/*' --keep-hourly 24 --keep-daily 7 --keep-version 'release-*'
  snapshotter prune --all --keep-within 30d --keep-monthly 12
  snapshotter prune --remote vm --keep-last 10
      in the configured registry; what is here stays")]
pub struct Args {
    /// The names; `*` means anything
    #[arg(
        value_name = "NAME",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    glob: Vec<String>,
    /// All names
    #[arg(long)]
    all: bool,
    /// Prune the configured registry, and not here
    ///
    /// By the time that each manifest says; what says none stays. The bytes stay there, because other snapshots may need them.
    #[arg(long, conflicts_with = "include_unpublished")]
    remote: bool,
    /// Let snapshots go too that are nowhere else
    #[arg(long)]
    include_unpublished: bool,
    /// Only show what would go, and why the others stay
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    keep: Keep,
}

/// What stays of each name.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What to keep of each name")]
struct Keep {
    /// The newest N versions; unlimited or -1: all
    #[arg(long, value_name = "N", value_parser = number, allow_negative_numbers = true)]
    keep_last: Option<u64>,
    /// The newest version of each of the last N hours that have one
    #[arg(long, value_name = "N", value_parser = number, allow_negative_numbers = true)]
    keep_hourly: Option<u64>,
    /// The same of days
    #[arg(long, value_name = "N", value_parser = number, allow_negative_numbers = true)]
    keep_daily: Option<u64>,
    /// The same of weeks
    #[arg(long, value_name = "N", value_parser = number, allow_negative_numbers = true)]
    keep_weekly: Option<u64>,
    /// The same of months
    #[arg(long, value_name = "N", value_parser = number, allow_negative_numbers = true)]
    keep_monthly: Option<u64>,
    /// The same of years
    #[arg(long, value_name = "N", value_parser = number, allow_negative_numbers = true)]
    keep_yearly: Option<u64>,
    /// What was taken within this time before the newest version: 12h, 30d
    #[arg(long, value_name = "DURATION", value_parser = period)]
    keep_within: Option<Duration>,
    /// Versions that match, 'release-*' for one; may be given several times
    #[arg(long, value_name = "GLOB")]
    keep_version: Vec<String>,
}

fn number(text: &str) -> Result<u64, &'static str> {
    parse_count(text).ok_or("write a number, or unlimited")
}

impl Keep {
    fn retention(&self) -> Retention {
        let mut keep = Retention::default();
        keep.last = self.keep_last.unwrap_or_default();
        keep.hourly = self.keep_hourly.unwrap_or_default();
        keep.daily = self.keep_daily.unwrap_or_default();
        keep.weekly = self.keep_weekly.unwrap_or_default();
        keep.monthly = self.keep_monthly.unwrap_or_default();
        keep.yearly = self.keep_yearly.unwrap_or_default();
        keep.within = self.keep_within.unwrap_or_default();
        keep.versions.clone_from(&self.keep_version);
        keep
    }
}

/// Runs it.
pub fn run(context: &Context, args: &Args) -> Result<Answer> {
    let keep = args.keep.retention();
    if keep.is_empty() {
        return Err(Failure::invalid("nothing says what to keep").with_hint(
            "add --keep-last 3, --keep-daily 7, --keep-within 30d, --keep-version GLOB or others: `snapshotter prune --help`",
        ));
    }
    let names = if args.all {
        vec!["*".to_owned()]
    } else {
        args.glob.clone()
    };
    let rule = PruneRule::new(names.clone(), keep).include_unpublished(args.include_unpublished);
    let request = PruneRequest::new([rule]).dry_run(args.dry_run);
    let closed = if args.remote {
        let work = async |store: &Snapshotter| {
            let pruned = store.prune_remote(&request).await;
            pruned.map_err(|error| hints::there(error.into()))
        };
        context.require_registry()?;
        // A store here is told that what it has is an only copy now.
        if context.has_store() && !args.dry_run {
            context.with_store_and_remote(work)?
        } else {
            context.with_remote(work)?
        }
    } else {
        context.require_store()?;
        context.with_store_and_remote(async |store| Ok(store.prune(&request).await?))?
    };
    let pruned = Pruned::new(&closed.value, &names, args.remote);
    Ok(Answer::new(pruned)
        .with_warnings(closed.value.warnings.into_iter().map(Into::into))
        .with_warnings(closed.warnings))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pruned {
    dry_run: bool,
    remote: bool,
    kept: Vec<Kept>,
    removed: Vec<Removed>,
    blobs_removed: u64,
    freed_bytes: u64,
    undated: usize,
    #[serde(skip)]
    only_copies: usize,
    /// Names that nothing has.
    #[serde(skip)]
    unmatched: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    #[serde(flatten)]
    reference: Called,
    taken_at: Option<Time>,
    reasons: Vec<&'static str>,
}

/// A snapshot that went.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Removed {
    #[serde(flatten)]
    reference: Called,
    manifest_digest: String,
    taken_at: Time,
    blobs_removed: u64,
    freed_bytes: u64,
}

impl Removed {
    /// From the library's report.
    pub fn new(one: &PrunedSnapshot) -> Self {
        Self {
            reference: Called::new(&one.reference),
            manifest_digest: one.manifest_digest.to_string(),
            taken_at: Time(one.taken_at),
            blobs_removed: one.blobs_removed,
            freed_bytes: one.freed_bytes,
        }
    }

    /// What came free, for people.
    pub fn freed(&self) -> String {
        let blobs = count(self.blobs_removed, "blob");
        format!("{} freed in {blobs}", bytes(self.freed_bytes))
    }

    /// What went, for people.
    pub fn reference(&self) -> &str {
        &self.reference
    }
}

impl Kept {
    fn new(one: &KeptSnapshot) -> Self {
        Self {
            reference: Called::new(&one.reference),
            taken_at: one.taken_at.map(Time),
            reasons: one.reasons.iter().map(|reason| reason.as_str()).collect(),
        }
    }

    fn shown_reasons(&self) -> String {
        let shown = |reason: &&'static str| match *reason {
            "newest" => "the newest of its name",
            "only_copy" => "only here",
            "undated" => "says no time",
            "same" => "the same as one that stays",
            "changed" => "changed meanwhile",
            other => other,
        };
        let shown: Vec<_> = self.reasons.iter().map(shown).collect();
        shown.join(", ")
    }
}

impl Pruned {
    fn new(report: &PruneReport, names: &[String], remote: bool) -> Self {
        let kept = report.kept.iter().map(|one| one.reference.name());
        let all: Vec<_> = kept
            .chain(report.removed.iter().map(|one| one.reference.name()))
            .collect();
        let is_unmatched = |name: &&String| {
            let pattern = Pattern::new(name);
            pattern.is_ok_and(|pattern| !all.iter().any(|name| pattern.matches(name)))
        };
        let because = |reason: KeepReason| {
            let kept = report.kept.iter();
            kept.filter(|one| one.reasons.contains(&reason)).count()
        };
        Self {
            dry_run: report.dry_run,
            remote,
            kept: report.kept.iter().map(Kept::new).collect(),
            removed: report.removed.iter().map(Removed::new).collect(),
            blobs_removed: report.removed.iter().map(|one| one.blobs_removed).sum(),
            freed_bytes: total(report.removed.iter().map(|one| one.freed_bytes)),
            undated: because(KeepReason::Undated),
            only_copies: because(KeepReason::OnlyCopy),
            unmatched: names.iter().filter(is_unmatched).cloned().collect(),
        }
    }
}

impl Document for Pruned {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        if page.quiet && !self.dry_run {
            return Ok(());
        }
        for name in &self.unmatched {
            writeln!(page.out, "No snapshot matches {}.", human::visible(name))?;
        }
        if !page.quiet {
            self.write_kept(page)?;
        }
        let verb = if self.dry_run {
            "would remove"
        } else {
            "removed"
        };
        for one in &self.removed {
            let taken = page.time(one.taken_at.0);
            let freed = match self.remote {
                true => one.manifest_digest.clone(),
                false => one.freed(),
            };
            writeln!(page.out, "{verb} {}, taken {taken}: {freed}", one.reference)?;
        }
        self.sum(page)
    }
}

impl Pruned {
    fn write_kept(&self, page: &mut Page<'_>) -> io::Result<()> {
        if self.kept.is_empty() {
            return Ok(());
        }
        let titles = ["SNAPSHOT", "TAKEN", "KEPT"].map(|title| (title, Align::Left));
        let mut table = Table::new(titles);
        for one in &self.kept {
            let taken = one.taken_at.as_ref().map(|time| page.time(time.0));
            let taken = taken.unwrap_or_default();
            table.row(&[&one.reference, &taken, &one.shown_reasons()]);
        }
        table.write(page.out)?;
        writeln!(page.out)
    }

    fn sum(&self, page: &mut Page<'_>) -> io::Result<()> {
        let would = if self.dry_run { "would be " } else { "" };
        let removed = count(self.removed.len() as u64, "snapshot");
        write!(
            page.out,
            "{removed} {would}removed, {} kept",
            self.kept.len()
        )?;
        if self.undated > 0 {
            write!(
                page.out,
                ", {} of them because they say no time",
                self.undated
            )?;
        }
        if self.only_copies > 0 {
            let text = "because they are nowhere else (push them, or --include-unpublished)";
            write!(page.out, ", {} of them {text}", self.only_copies)?;
        }
        if self.remote {
            return writeln!(page.out);
        }
        let least = if self.dry_run { "at least " } else { "" };
        writeln!(
            page.out,
            "; {least}{} {would}freed",
            bytes(self.freed_bytes)
        )
    }
}

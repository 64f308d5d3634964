//! `snapshotter gc --remote`.

use std::io;

use serde::Serialize;
use snapshotter::{CollectReport, CollectRequest, Snapshotter};

use crate::answer::{Answer, Document};
use crate::context::Context;
use crate::failure::Result;
use crate::hints;
use crate::output::Page;
use crate::output::human::{bytes, count, visible};
use crate::output::json::{Time, Warning};

/// Removes what no manifest needs from the place of contents, or says what would go.
pub fn run(context: &Context, request: &CollectRequest) -> Result<Answer> {
    context.require_registry()?;
    let config = context.settings.whole()?;
    let report = context.without_store(async {
        let collected = Snapshotter::collect_remote(&config, request).await;
        collected.map_err(|error| hints::there(error.into()))
    })?;
    let warnings = report.warnings.iter().cloned().map(Warning::from);
    Ok(Answer::new(Collected::new(&report)).with_warnings(warnings))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Collected {
    dry_run: bool,
    remote: bool,
    place: String,
    publishers: u64,
    manifests: u64,
    objects: u64,
    bytes: u64,
    removed: u64,
    removed_bytes: u64,
    candidates: u64,
    candidate_bytes: u64,
    refused: u64,
    ripe_at: Option<Time>,
    duration_seconds: f64,
}

impl Collected {
    fn new(report: &CollectReport) -> Self {
        Self {
            dry_run: report.dry_run,
            remote: true,
            place: report.place.clone(),
            publishers: report.publishers,
            manifests: report.manifests,
            objects: report.objects,
            bytes: report.bytes,
            removed: report.removed,
            removed_bytes: report.removed_bytes,
            candidates: report.candidates,
            candidate_bytes: report.candidate_bytes,
            refused: report.refused,
            ripe_at: report.ripe_at.map(Time),
            duration_seconds: report.duration.as_secs_f64(),
        }
    }
}

impl Document for Collected {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        if page.quiet && !self.dry_run {
            return Ok(());
        }
        let place = visible(&self.place);
        if self.manifests > 0 || self.objects > 0 {
            writeln!(
                page.out,
                "{place}: {} of {}, named by {} of {}",
                count(self.objects, "object"),
                bytes(self.bytes),
                count(self.manifests, "manifest"),
                count(self.publishers, "publisher"),
            )?;
            let removed = if self.dry_run {
                "would be removed"
            } else {
                "removed"
            };
            let number = count(self.removed, "object");
            writeln!(
                page.out,
                "  {number} ({}) {removed}",
                bytes(self.removed_bytes)
            )?;
        } else if self.ripe_at.is_some() {
            writeln!(page.out, "{place}: the list of what may go is too young")?;
        } else {
            writeln!(page.out, "{place}: nothing is there")?;
        }
        if self.candidates > 0 {
            let when = self.ripe_at.map(|at| page.time(at.0));
            let when = when
                .map(|when| format!(", from {when} on"))
                .unwrap_or_default();
            let number = count(self.candidates, "object");
            writeln!(page.out, "  {number} may go later{when}")?;
        }
        Ok(())
    }
}

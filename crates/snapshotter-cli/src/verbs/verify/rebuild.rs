//! `snapshotter verify --rebuild`.

use std::io;
use std::time::Duration;

use serde::Serialize;
use snapshotter::{RebuildReport, RebuildRequest, Reference, Snapshotter};

use super::checked;
use crate::answer::{Answer, Document};
use crate::context::Context;
use crate::failure::Result;
use crate::output::human::{self, bytes, count};
use crate::output::json::{Called, Named, Warning};
use crate::output::{GOOD, Page, STRONG};

/// Runs it.
pub fn run(context: &Context, references: Vec<Reference>) -> Result<Answer> {
    let config = context.settings.whole()?;
    let progress = context.progress("rebuild");
    progress.expect(0, 0);
    let request = RebuildRequest::new().observed_by(progress.observer());
    let request = references
        .into_iter()
        .fold(request, RebuildRequest::reference);
    let report = context.without_store(async {
        let rebuilt = Snapshotter::rebuild(&config, &request).await;
        rebuilt.map_err(Into::into)
    });
    drop(progress);
    let report = report?;
    let warnings: Vec<_> = report.warnings.iter().cloned().map(Warning::from).collect();
    Ok(Answer::new(Rebuilt::new(&report)).with_warnings(warnings))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rebuilt {
    rebuilt: Vec<One>,
    kept_snapshots: Option<u64>,
    incomplete: Vec<String>,
    lost_and_found: Vec<String>,
    unnamed_blobs: u64,
    unnamed_packs: u64,
    unnamed_bytes: u64,
    checked_blobs: u64,
    checked_packs: u64,
    checked_bytes: u64,
    quarantined: Vec<Named>,
    old_catalog: Option<Named>,
    duration_seconds: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct One {
    #[serde(flatten)]
    reference: Called,
    from: &'static str,
    missing_blobs: u64,
}

impl Rebuilt {
    fn new(report: &RebuildReport) -> Self {
        let texts = |references: &[Reference]| references.iter().map(ToString::to_string).collect();
        Self {
            rebuilt: report
                .snapshots
                .iter()
                .map(|one| One {
                    reference: Called::new(&one.reference),
                    from: if one.from_registry {
                        "registry"
                    } else {
                        "catalog"
                    },
                    missing_blobs: one.missing_blobs,
                })
                .collect(),
            kept_snapshots: report.kept_snapshots,
            incomplete: texts(&report.incomplete),
            lost_and_found: texts(&report.lost_and_found),
            unnamed_blobs: report.unnamed_blobs,
            unnamed_packs: report.unnamed_packs,
            unnamed_bytes: report.unnamed_bytes,
            checked_blobs: report.checked_blobs,
            checked_packs: report.checked_packs,
            checked_bytes: report.checked_bytes,
            quarantined: report
                .quarantined
                .iter()
                .map(|path| Named::new(path))
                .collect(),
            old_catalog: report.old_catalog.as_deref().map(Named::new),
            duration_seconds: report.duration.as_secs_f64(),
        }
    }
}

impl Document for Rebuilt {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        for one in &self.rebuilt {
            write!(
                page.out,
                "{STRONG}{}{STRONG:#}  from the {}",
                one.reference, one.from
            )?;
            match one.missing_blobs {
                0 => writeln!(page.out)?,
                missing => writeln!(page.out, ", {} missing", count(missing, "blob"))?,
            }
        }
        for reference in &self.incomplete {
            writeln!(
                page.out,
                "{STRONG}{reference}{STRONG:#}  is in the registry and not all here: `snapshotter pull` fetches the rest"
            )?;
        }
        for reference in &self.lost_and_found {
            writeln!(
                page.out,
                "{STRONG}{reference}{STRONG:#}  files that no known snapshot needs, by their checksums; \
                 `snapshotter remove` frees them"
            )?;
        }
        if self.unnamed_packs > 0 {
            let packs = count(self.unnamed_packs, "pack");
            writeln!(
                page.out,
                "  {packs} with pages of nobody knows which files: kept by it, and not restored"
            )?;
        }
        if page.quiet {
            return Ok(());
        }
        for path in &self.quarantined {
            writeln!(page.out, "wrong bytes moved to {}", path.shown())?;
        }
        if let Some(path) = &self.old_catalog {
            writeln!(page.out, "the damaged catalog is kept in {}", path.shown())?;
        }
        match self.kept_snapshots {
            Some(kept) => self.trusted_again(page, kept),
            None => self.made(page),
        }
    }
}

impl Rebuilt {
    fn made(&self, page: &mut Page<'_>) -> io::Result<()> {
        let duration = human::duration(Duration::from_secs_f64(self.duration_seconds));
        writeln!(
            page.out,
            "{GOOD}The catalog is made:{GOOD:#} {}, {} of data read in {duration}",
            checked(self.checked_blobs, self.checked_packs),
            bytes(self.checked_bytes)
        )
    }

    /// Of a catalog that was whole and older than the store.
    fn trusted_again(&self, page: &mut Page<'_>, kept: u64) -> io::Result<()> {
        let lacks = if self.checked_blobs + self.checked_packs == 0 && self.quarantined.is_empty() {
            "lacks nothing and "
        } else {
            ""
        };
        let kept = count(kept, "snapshot");
        write!(
            page.out,
            "{GOOD}The catalog {lacks}is trusted again:{GOOD:#} kept {kept}"
        )?;
        if !self.rebuilt.is_empty() {
            let taken_in = count(self.rebuilt.len() as u64, "snapshot");
            write!(page.out, "; took in {taken_in} from the registry")?;
        }
        if !self.lost_and_found.is_empty() {
            let unnamed = self.unnamed_blobs + self.unnamed_packs;
            let are = if unnamed == 1 { "is" } else { "are" };
            write!(
                page.out,
                "; {} that none of them needs {are} in {}; names of unpublished snapshots taken since cannot be recovered",
                count(unnamed, "file"),
                self.lost_and_found.join(", ")
            )?;
        }
        writeln!(page.out)
    }
}

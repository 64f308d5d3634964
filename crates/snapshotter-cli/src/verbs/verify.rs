//! `snapshotter verify`.

mod rebuild;

use std::io;
use std::time::Duration;

use serde::Serialize;
use snapshotter::{
    BadBlob, BadSnapshot, ErrorKind, Reference, Subset, VerifyReport, VerifyRequest,
};

use super::snapshot::said;
use crate::answer::{Answer, Document};
use crate::context::Context;
use crate::failure::{Failure, Result, with_our_verb};
use crate::hints;
use crate::output::human::{self, bytes, count};
use crate::output::json::{Called, Named, Warning};
use crate::output::{GOOD, Page, STRONG};

/// Reads everything that is stored and sees whether it is what it was
///
/// Without a reference the whole store is checked, and what interrupted commands left there is swept. Exits with 5 if
/// anything is damaged or missing. With --repair that is mended from what is here, or fetched again where the snapshot was
/// published; what cannot be, and has wrong bytes, is moved to quarantine/ in the root.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  snapshotter verify
      the whole store
  snapshotter verify vm:v1
      what one snapshot needs
  snapshotter verify --subset 5%
      a twentieth of all bytes, another one each time
  snapshotter verify --repair
      mends what it finds
  snapshotter verify --rebuild
      makes a catalog for a store that has lost its own")]
pub struct Args {
    /// The snapshots to check: NAME:VERSION [default: the whole store]
    #[arg(value_name = "REFERENCE")]
    references: Vec<String>,
    /// Mend what is found: from what is here, or by fetching it again
    #[arg(long, conflicts_with = "rebuild")]
    repair: bool,
    /// Read a part alone: 5%, another one each time, or 7/20, the seventh of twenty
    ///
    /// All records are looked at all the same, and nothing is swept. The answer says which part it was.
    #[arg(long, value_name = "PART", value_parser = said::<Subset>, conflicts_with = "rebuild")]
    subset: Option<Subset>,
    /// Make a new catalog from the files of the store, what can be read of the old one, and the registry
    ///
    /// For a store whose catalog is gone, damaged, or older than it, while nothing else uses it: one that is whole and older
    /// keeps what it has, and takes in the rest. REFERENCEs are then the snapshots to look
    /// for in the registry; without them, all that it lists. Files that no known snapshot needs become one that is called
    /// lost-and-found. Nothing is deleted.
    #[arg(long)]
    rebuild: bool,
}

/// Runs it.
pub fn run(context: &Context, args: &Args) -> Result<Answer> {
    let parse = |text: &String| hints::reference(text, "verify NAME:VERSION");
    let references: Vec<Reference> = args.references.iter().map(parse).collect::<Result<_>>()?;
    context.require_store()?;
    if args.rebuild {
        return rebuild::run(context, references);
    }
    let mut request = references
        .into_iter()
        .fold(VerifyRequest::all(), VerifyRequest::reference)
        .repair(args.repair);
    request.subset = args.subset;
    let config = if args.repair {
        context.settings.whole()?
    } else {
        context.settings.here()
    };
    let verified = context.with(config, async |store| {
        let progress = context.progress("verify");
        if request.references.is_empty() {
            let usage = store.usage().await?;
            let parts = args.subset.map_or(1, |subset| subset.of().into());
            let objects = usage.blobs + usage.packs;
            progress.expect(objects / parts, usage.stored_bytes / parts);
        } else {
            progress.expect(0, 0);
        }
        let observed = store.observed_by(progress.observer());
        match observed.verify(&request).await {
            Ok(report) => Ok(report),
            Err(error) => {
                drop(progress);
                Err(hints::what_is_there(store, error.into()).await)
            }
        }
    })?;
    let warnings: Vec<_> = verified
        .value
        .warnings
        .iter()
        .cloned()
        .map(Warning::from)
        .collect();
    let older = verified.warnings.iter().find(|one| one.is_older_catalog());
    let report = Verified::new(&verified.value, older.map(Warning::shown));
    let failure = report.failure();
    // To people the failure says it, to programs the kind of the warning.
    let told = |one: &Warning| context.global.json || !one.is_older_catalog();
    let on_opening = verified.warnings.into_iter().filter(told);
    Ok(Answer::new(report)
        .with_warnings(warnings.into_iter().chain(on_opening))
        .with_failure(failure))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Verified {
    #[serde(skip_serializing_if = "Option::is_none")]
    subset: Option<Part>,
    checked_blobs: u64,
    checked_packs: u64,
    checked_bytes: u64,
    damaged: Vec<Bad>,
    missing: Vec<Bad>,
    mended: u64,
    repaired: Vec<Bad>,
    damaged_snapshots: Vec<BadDescription>,
    repaired_snapshots: Vec<String>,
    catalog: Vec<String>,
    swept_names: u64,
    unknown_blobs: u64,
    unknown_bytes: u64,
    duration_seconds: f64,
    /// What is said of a catalog that is older than the store, which is one of `catalog`.
    #[serde(skip)]
    older: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bad {
    digest: Option<String>,
    checksum: Option<String>,
    pack: Option<String>,
    size_bytes: u64,
    snapshots: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quarantined: Option<Named>,
}

#[derive(Clone, Copy, Serialize)]
struct Part {
    part: u32,
    of: u32,
}

#[derive(Serialize)]
struct BadDescription {
    #[serde(flatten)]
    reference: Called,
    problem: String,
}

impl Verified {
    fn new(report: &VerifyReport, older: Option<String>) -> Self {
        let part = |subset: Subset| Part {
            part: subset.part(),
            of: subset.of(),
        };
        Self {
            subset: report.subset.map(part),
            checked_blobs: report.checked_blobs,
            checked_packs: report.checked_packs,
            checked_bytes: report.checked_bytes,
            damaged: report.damaged.iter().map(Bad::new).collect(),
            missing: report.missing.iter().map(Bad::new).collect(),
            mended: report.mended,
            repaired: report.repaired.iter().map(Bad::new).collect(),
            damaged_snapshots: report
                .damaged_snapshots
                .iter()
                .map(BadDescription::new)
                .collect(),
            repaired_snapshots: report
                .repaired_snapshots
                .iter()
                .map(ToString::to_string)
                .collect(),
            catalog: report
                .catalog
                .iter()
                .map(|text| with_our_verb(text))
                .collect(),
            swept_names: report.swept_names,
            unknown_blobs: report.unknown_blobs,
            unknown_bytes: report.unknown_bytes,
            duration_seconds: report.duration.as_secs_f64(),
            older,
        }
    }

    /// What is wrong with the catalog as a database.
    fn catalog_damage(&self) -> impl Iterator<Item = &String> {
        let older = self.older.as_ref();
        self.catalog.iter().filter(move |text| Some(*text) != older)
    }

    fn failure(&self) -> Option<Failure> {
        let (damaged, missing) = (self.damaged.len() as u64, self.missing.len() as u64);
        let described = self.damaged_snapshots.len() as u64;
        let fail =
            |message: String, hint| Some(Failure::new(ErrorKind::Damaged, message).with_hint(hint));
        if self.catalog_damage().next().is_some() {
            let hint = "`snapshotter verify --rebuild` makes a new one and keeps this, or takes in what it does not know";
            return fail("the catalog is damaged".to_owned(), hint);
        }
        let hint = "a snapshot of the same bytes mends them, and --repair what was published or is here otherwise; else remove \
                    the snapshots named and take them anew";
        if damaged + missing > 0 {
            return fail(
                format!(
                    "{damaged} of {} damaged, {missing} missing",
                    checked(self.checked_blobs, self.checked_packs)
                ),
                hint,
            );
        }
        if described > 0 {
            let snapshots = count(described, "snapshot");
            return fail(format!("the descriptions of {snapshots} damaged"), hint);
        }
        let older = self.older.as_ref().filter(|_| !self.catalog.is_empty());
        older.map(|text| Failure::new(ErrorKind::Damaged, text))
    }
}

/// `3 blobs`, and packs where there are any.
fn checked(blobs: u64, packs: u64) -> String {
    let blobs = count(blobs, "blob");
    match packs {
        0 => blobs,
        packs => format!("{blobs} and {}", count(packs, "pack")),
    }
}

impl Bad {
    fn new(blob: &BadBlob) -> Self {
        Self {
            digest: blob.digest.map(|digest| digest.to_string()),
            checksum: blob.checksum.map(|checksum| checksum.to_string()),
            pack: blob.pack.map(|pack| pack.to_string()),
            size_bytes: blob.size,
            snapshots: blob.snapshots.iter().map(ToString::to_string).collect(),
            quarantined: blob.quarantined.as_deref().map(Named::new),
        }
    }
}

impl BadDescription {
    fn new(bad: &BadSnapshot) -> Self {
        Self {
            reference: Called::new(&bad.reference),
            problem: bad.problem.clone(),
        }
    }
}

impl Document for Verified {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        for problem in self.catalog_damage() {
            writeln!(
                page.out,
                "{STRONG}catalog{STRONG:#} {}",
                human::visible(problem)
            )?;
        }
        for bad in &self.damaged_snapshots {
            let problem = human::visible(&bad.problem);
            writeln!(
                page.out,
                "{STRONG}damaged{STRONG:#} {}: {problem}",
                bad.reference
            )?;
        }
        for (what, blobs) in [("damaged", &self.damaged), ("missing", &self.missing)] {
            for blob in blobs {
                blob.text(page, what)?;
            }
        }
        if page.quiet {
            return Ok(());
        }
        for blob in &self.repaired {
            blob.text(page, "repaired")?;
        }
        for reference in &self.repaired_snapshots {
            writeln!(page.out, "{STRONG}repaired{STRONG:#} {reference}")?;
        }
        self.rest(page)
    }
}

impl Bad {
    fn text(&self, page: &mut Page<'_>, what: &str) -> io::Result<()> {
        let size = bytes(self.size_bytes);
        let name = match &self.pack {
            Some(pack) => format!("pack {pack}"),
            None => self.checksum.clone().unwrap_or_default(),
        };
        writeln!(page.out, "{STRONG}{what}{STRONG:#} {name} ({size})")?;
        for snapshot in &self.snapshots {
            writeln!(page.out, "  needed by {snapshot}")?;
        }
        match &self.quarantined {
            Some(aside) => writeln!(page.out, "  moved to {}", aside.shown()),
            None => Ok(()),
        }
    }
}

impl Verified {
    fn rest(&self, page: &mut Page<'_>) -> io::Result<()> {
        if self.mended > 0 {
            let what = match self.checked_packs {
                0 => "blob",
                _ => "object",
            };
            writeln!(page.out, "{} right again", count(self.mended, what))?;
        }
        if self.swept_names > 0 {
            writeln!(
                page.out,
                "{} left by interrupted commands removed",
                count(self.swept_names, "name")
            )?;
        }
        if self.unknown_blobs > 0 {
            writeln!(
                page.out,
                "{} ({}) not in the catalog, and kept: `snapshotter verify --rebuild` takes them in",
                count(self.unknown_blobs, "whole file"),
                bytes(self.unknown_bytes)
            )?;
        }
        if self.failure().is_none() {
            let duration = human::duration(Duration::from_secs_f64(self.duration_seconds));
            let what = match self.subset {
                Some(Part { part, of }) => format!("Part {part} of {of}"),
                None => "All".to_owned(),
            };
            writeln!(
                page.out,
                "{GOOD}{what} is well:{GOOD:#} {}, {} of data read in {duration}",
                checked(self.checked_blobs, self.checked_packs),
                bytes(self.checked_bytes)
            )?;
        }
        Ok(())
    }
}

//! `snapshotter tag`.

use std::io;

use serde::Serialize;
use snapshotter::{CopyReport, Snapshotter, TagReport};

use crate::answer::{Answer, Document};
use crate::context::Context;
use crate::failure::Result;
use crate::hints;
use crate::output::Page;
use crate::output::human::{bytes, count, visible, without_digest};
use crate::output::json::Called;

/// Gives a snapshot one more name
///
/// No byte of its files is copied. The new name is a snapshot like any other: it can be pinned, removed and pushed, and what it
/// needs stays when the old one goes.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  snapshotter tag vm:v3 vm:stable
  snapshotter tag vm:v4 vm:stable --force
      moves the name
  snapshotter tag --remote vm:v3 golden/vm:2026
      in the configured registry, which mounts what it has")]
pub struct Args {
    /// The snapshot: NAME:VERSION
    #[arg(value_name = "REFERENCE")]
    reference: String,
    /// What to call it too: NAME:VERSION
    #[arg(value_name = "NEW")]
    new: String,
    /// Take the name from another snapshot that has it
    ///
    /// That is then removed, and here the bytes that nothing else needs with it.
    #[arg(long)]
    force: bool,
    /// Do it in the configured registry, and not here
    #[arg(long)]
    remote: bool,
}

/// Runs it.
pub fn run(context: &Context, args: &Args) -> Result<Answer> {
    let parse = |text: &str| hints::reference(text, "tag NAME:VERSION NAME:VERSION");
    let source = parse(&args.reference)?;
    let name = hints::new_reference(&args.new, "tag NAME:VERSION NAME:VERSION")?;
    let force = args.force;
    if args.remote {
        let work = async |store: &Snapshotter| {
            let tagged = store.tag_remote(&source, &name, force).await;
            tagged.map_err(|error| hints::there(error.into()))
        };
        context.require_registry()?;
        // A store here is told that what had the name is an only copy now.
        let tagged = match context.has_store() {
            true => context.with_store_and_remote(work)?,
            false => context.with_remote(work)?,
        };
        let answer = Answer::new(Tagged::there(&args.reference, &tagged.value));
        return Ok(answer
            .with_warnings(tagged.value.warnings.into_iter().map(Into::into))
            .with_warnings(tagged.warnings));
    }
    context.require_store()?;
    let tagged = context.with_store(async |store: &Snapshotter| {
        match store.tag(&source, &name, force).await {
            Ok(tagged) => Ok(tagged),
            Err(error) => Err(hints::what_is_there(store, error.into()).await),
        }
    })?;
    let answer = Answer::new(Tagged::here(&args.reference, &tagged.value));
    Ok(answer
        .with_warnings(tagged.value.warnings.into_iter().map(Into::into))
        .with_warnings(tagged.warnings))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tagged {
    source: String,
    #[serde(flatten)]
    reference: Called,
    manifest_digest: String,
    /// Where that is.
    place: Option<String>,
    replaced: Option<String>,
    sent_blobs: u64,
    sent_bytes: u64,
}

impl Tagged {
    fn here(source: &str, report: &TagReport) -> Self {
        Self {
            source: source.to_owned(),
            reference: Called::new(&report.reference),
            manifest_digest: report.manifest_digest.to_string(),
            place: None,
            replaced: report.replaced.map(|digest| digest.to_string()),
            sent_blobs: 0,
            sent_bytes: 0,
        }
    }

    fn there(source: &str, report: &CopyReport) -> Self {
        let publication = &report.publication;
        Self {
            source: source.to_owned(),
            reference: Called::new(&report.reference),
            manifest_digest: publication.manifest_digest.to_string(),
            place: Some(publication.place.clone()),
            replaced: None,
            sent_blobs: publication.sent_blobs,
            sent_bytes: publication.sent_bytes,
        }
    }
}

impl Document for Tagged {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        if page.quiet {
            return Ok(());
        }
        let name = without_digest(&self.reference);
        let place = self.place.as_deref().map(visible);
        let place = place
            .map(|place| format!(" in {place}"))
            .unwrap_or_default();
        write!(page.out, "{} is {name}{place} too", self.source)?;
        if let Some(replaced) = &self.replaced {
            write!(page.out, "; it was {replaced}")?;
        }
        if self.sent_blobs > 0 {
            let blobs = count(self.sent_blobs, "blob");
            write!(page.out, "; {} sent in {blobs}", bytes(self.sent_bytes))?;
        }
        writeln!(page.out)
    }
}

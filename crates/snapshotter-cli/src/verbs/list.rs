//! `snapshotter list`.

use std::fmt::Display;
use std::io;

use glob::Pattern;
use serde::Serialize;
use snapshotter::{Format, PublishedAt, Reference, RemoteSummary, Sha256, SnapshotSummary};

use crate::answer::{Answer, Document};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::hints;
use crate::output::human::{self, bytes};
use crate::output::json::{Called, Published, Time, Warning, as_text};
use crate::output::{Align, Page, Table};

/// Lists snapshots, the newest version of each name first
///
/// With -q their references alone, one a line; with -v more columns and absolute times.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  snapshotter list
  snapshotter list vm
      all versions of vm
  snapshotter list 'sandboxes/*'
      everything below sandboxes/
  snapshotter list --remote vm
      all versions of vm in the configured registry
  snapshotter list -q 'vm:test-*' | xargs -r snapshotter remove
      removes what matches")]
pub struct Args {
    /// Only those whose name, or NAME:VERSION, matches; `*` means anything
    glob: Option<String>,
    /// List what is in the configured registry
    ///
    /// Not every registry tells the names it has; the versions of one NAME it tells. When a snapshot was taken, and how much
    /// it is, annotations of its manifest tell in format v2. With -v the lists of files of format v1 are read for that.
    #[arg(long)]
    remote: bool,
}

/// Runs it.
pub fn run(context: &Context, args: &Args) -> Result<Answer> {
    let pattern = args.glob.as_deref().map(pattern).transpose()?;
    if args.remote {
        return remote(context, args.glob.as_deref(), pattern.as_ref());
    }
    context.require_store()?;
    let listed = context.with_store(async |store| Ok(store.list().await?))?;
    let wanted = |snapshot: &SnapshotSummary| match &pattern {
        Some(pattern) => matches(pattern, &snapshot.reference),
        None => true,
    };
    let snapshots = listed.value.into_iter().filter(wanted);
    let list = List {
        snapshots: snapshots.map(Row).collect(),
        nothing: match &args.glob {
            Some(glob) => format!("No snapshot matches {glob}."),
            None => format!("No snapshots in {}.", human::path(&context.root())),
        },
    };
    Ok(Answer::new(list).with_warnings(listed.warnings))
}

/// What the registry has. A GLOB that leaves no doubt about the name asks for that name: that takes one request, and
/// works where the registry does not tell its names.
fn remote(context: &Context, glob: Option<&str>, pattern: Option<&Pattern>) -> Result<Answer> {
    let name = glob.and_then(literal_name);
    let listed = context.with_remote(async |store| {
        let listed = store.list_remote(name).await;
        let listed = listed.map_err(|error| hints::there(error.into()))?;
        let references = listed.into_iter().map(|snapshot| snapshot.reference);
        let wanted = |reference: &Reference| pattern.is_none_or(|it| matches(it, reference));
        let references: Vec<Reference> = references.filter(wanted).collect();
        let names_only = context.global.quiet && !context.global.json;
        if names_only {
            return Ok(Err(references));
        }
        let sizes = context.global.verbose > 0;
        Ok(Ok(store.summarize_remote(&references, sizes).await?))
    })?;
    let said = match listed.value {
        Ok(said) => said,
        // No manifest is read for their names.
        Err(references) => {
            return Ok(Answer::script(lines(&references)).with_warnings(listed.warnings));
        }
    };
    let list = RemoteList {
        snapshots: said.snapshots.into_iter().map(RemoteRow).collect(),
        nothing: match glob {
            Some(glob) => format!("No snapshot matches {glob}."),
            None => format!(
                "No snapshots in {}.",
                context.registry().unwrap_or_default()
            ),
        },
    };
    let unread = said.warnings.into_iter().map(Warning::from);
    Ok(Answer::new(list).with_warnings(listed.warnings.into_iter().chain(unread)))
}

fn lines(references: &[Reference]) -> Vec<u8> {
    let lines = references.iter().map(|reference| format!("{reference}\n"));
    lines.collect::<String>().into_bytes()
}

/// The name in `vm` and in `vm:v*`.
fn literal_name(glob: &str) -> Option<&str> {
    let (name, _) = glob.split_once(':').unwrap_or((glob, ""));
    (!name.contains(['*', '?', '['])).then_some(name)
}

fn pattern(glob: &str) -> Result<Pattern> {
    Pattern::new(glob).map_err(|error| {
        Failure::invalid(format!("{glob:?} is not a pattern: {}", error.msg))
            .with_hint("`*` means anything, `?` one character: 'vm:*', 'sandboxes/*'")
    })
}

fn matches(pattern: &Pattern, reference: &Reference) -> bool {
    pattern.matches(reference.name()) || pattern.matches(&reference.to_string())
}

#[derive(Serialize)]
struct RemoteList {
    snapshots: Vec<RemoteRow>,
    #[serde(skip)]
    nothing: String,
}

/// A snapshot in a list: the library's own, as below.
struct RemoteRow(RemoteSummary);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RemoteFields {
    #[serde(flatten)]
    reference: Called,
    manifest_digest: Option<String>,
    format: Option<&'static str>,
    created_at: Option<Time>,
    files: Option<u64>,
    logical_bytes: Option<u64>,
}

impl Serialize for RemoteRow {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(summary) = self;
        let fields = RemoteFields {
            reference: Called::new(&summary.reference),
            manifest_digest: summary.manifest_digest.map(|digest| digest.to_string()),
            format: summary.format.map(Format::as_str),
            created_at: summary.created_at.map(Time),
            files: summary.files,
            logical_bytes: summary.logical_bytes,
        };
        fields.serialize(serializer)
    }
}

impl RemoteRow {
    fn add_to(&self, table: &mut Table, page: &Page<'_>) {
        let Self(summary) = self;
        let files = summary.files.map(|files| files.to_string());
        let cells: [&dyn Display; 6] = [
            &summary.reference,
            &or_blank(files),
            &or_blank(summary.logical_bytes.map(bytes)),
            &or_blank(summary.created_at.map(|time| page.time(time))),
            &or_blank(summary.format.map(Format::as_str)),
            &or_blank(summary.manifest_digest),
        ];
        if page.verbose {
            table.row(&cells);
        } else {
            // Of the digest what tells two apart, so that a line is no longer than a terminal.
            let digest = format!("{:.19}", or_blank(summary.manifest_digest));
            table.row(&[cells[0], cells[3], &digest]);
        }
    }
}

/// What the registry says, or nothing.
fn or_blank(value: Option<impl Display>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

impl Document for RemoteList {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        if self.snapshots.is_empty() {
            return writeln!(page.out, "{}", self.nothing);
        }
        let mut titles = vec![
            ("SNAPSHOT", Align::Left),
            ("FILES", Align::Right),
            ("SIZE", Align::Right),
            ("TAKEN", Align::Left),
            ("FORMAT", Align::Left),
            ("MANIFEST", Align::Left),
        ];
        if !page.verbose {
            titles = vec![titles[0], titles[3], titles[5]];
        }
        let mut table = Table::new(titles);
        for row in &self.snapshots {
            row.add_to(&mut table, page);
        }
        table.write(page.out)
    }
}

#[derive(Serialize)]
struct List {
    snapshots: Vec<Row>,
    #[serde(skip)]
    nothing: String,
}

/// A snapshot in a list: the library's own, because lists are long and copies take time.
struct Row(SnapshotSummary);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    #[serde(flatten)]
    reference: Called,
    #[serde(serialize_with = "as_text")]
    manifest_digest: Sha256,
    format: &'static str,
    state: &'static str,
    pinned: bool,
    created_at: Time,
    last_accessed_at: Time,
    files: u64,
    logical_bytes: u64,
    data_bytes: u64,
    publications: Vec<Published>,
}

impl Serialize for Row {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(summary) = self;
        let fields = Fields {
            reference: Called::new(&summary.reference),
            manifest_digest: summary.manifest_digest,
            format: summary.format.as_str(),
            state: summary.state.as_str(),
            pinned: summary.pinned,
            created_at: Time(summary.created_at),
            last_accessed_at: Time(summary.last_accessed_at),
            files: summary.files,
            logical_bytes: summary.logical_bytes,
            data_bytes: summary.data_bytes,
            publications: summary.publications.iter().map(Published::new).collect(),
        };
        fields.serialize(serializer)
    }
}

impl Row {
    fn add_to(&self, table: &mut Table, page: &Page<'_>) {
        let Self(summary) = self;
        let pinned = if summary.pinned { ", pinned" } else { "" };
        let cells: [&dyn Display; 10] = [
            &summary.reference,
            &summary.files,
            &bytes(summary.logical_bytes),
            &bytes(summary.data_bytes),
            &page.time(summary.created_at),
            &page.time(summary.last_accessed_at),
            &summary.format.as_str(),
            &format_args!("{}{pinned}", summary.state.as_str()),
            &summary.manifest_digest,
            &places(&summary.publications),
        ];
        table.row(if page.verbose { &cells } else { &cells[..6] });
    }
}

/// The registries that have a snapshot, for people, and where its contents are if that is elsewhere.
fn places(publications: &[PublishedAt]) -> String {
    let place = |at: &PublishedAt| {
        let registry = at.registry.as_deref().unwrap_or("unknown");
        let elsewhere = at.content.as_deref().filter(|place| *place != registry);
        let content = elsewhere.map(|place| format!(" ({place})"));
        human::visible(&(registry.to_owned() + &content.unwrap_or_default()))
    };
    let known = publications.iter().map(place);
    known.collect::<Vec<_>>().join(", ")
}

impl Document for List {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        if page.quiet {
            return self
                .snapshots
                .iter()
                .try_for_each(|row| writeln!(page.out, "{}", row.0.reference));
        }
        if self.snapshots.is_empty() {
            return writeln!(page.out, "{}", self.nothing);
        }
        let mut titles = vec![
            ("SNAPSHOT", Align::Left),
            ("FILES", Align::Right),
            ("SIZE", Align::Right),
            ("DATA", Align::Right),
            ("TAKEN", Align::Left),
            ("USED", Align::Left),
        ];
        if page.verbose {
            titles.extend([
                ("FORMAT", Align::Left),
                ("STATE", Align::Left),
                ("MANIFEST", Align::Left),
                ("ALSO IN", Align::Left),
            ]);
        }
        let mut table = Table::new(titles);
        for row in &self.snapshots {
            row.add_to(&mut table, page);
        }
        table.write(page.out)
    }
}

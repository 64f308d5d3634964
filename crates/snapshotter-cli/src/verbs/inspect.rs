//! `snapshotter inspect`.

use std::collections::BTreeMap;
use std::io;

use serde::{Serialize, Serializer};
use snapshotter::{
    FileDetails, Format, PackDetails, PathDetails, Reference, RemoteDetails, SnapshotDetails,
    SymlinkDetails,
};

use crate::answer::{Answer, Document};
use crate::context::Context;
use crate::failure;
use crate::hints;
use crate::output::human::{self, bytes, count};
use crate::output::json::{Called, Published, Relative, Time, base64, text_and_bytes};
use crate::output::{Align, Page, Row, Table, Times};

/// Shows everything a snapshot says of itself
///
/// With -v digests, checksums, owners and extended attributes too.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  snapshotter inspect vm:v1
  snapshotter inspect --remote vm:v1
      what the configured registry says of it
  snapshotter inspect vm:v1 --json | jq -r '.files[].relativePath'")]
pub struct Args {
    /// The snapshot: NAME:VERSION
    reference: String,
    /// Ask the configured registry, and fetch nothing
    #[arg(long)]
    remote: bool,
}

/// Runs it.
pub fn run(context: &Context, args: &Args) -> failure::Result<Answer> {
    let reference = hints::reference(&args.reference, "inspect NAME:VERSION")?;
    if args.remote {
        return remote(context, &reference);
    }
    context.require_store()?;
    let seen = context.with_store(async |store| match store.inspect(&reference).await {
        Ok(details) => Ok(details),
        Err(error) => Err(hints::what_is_there(store, error.into()).await),
    })?;
    Ok(Answer::new(Inspected::new(seen.value)).with_warnings(seen.warnings))
}

fn remote(context: &Context, reference: &Reference) -> failure::Result<Answer> {
    let seen = context.with_remote(async |store| {
        let seen = store.inspect_remote(reference).await;
        seen.map_err(|error| hints::there(error.into()))
    })?;
    Ok(Answer::new(Inspected::of_remote(seen.value)).with_warnings(seen.warnings))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Inspected {
    #[serde(flatten)]
    reference: Called,
    manifest_digest: String,
    format: &'static str,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    here: Option<Here>,
    annotations: BTreeMap<String, String>,
    logical_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_bytes: Option<u64>,
    // There may be a million: each is written as it is made.
    #[serde(serialize_with = "files")]
    files: Vec<FileDetails>,
    #[serde(serialize_with = "entries")]
    directories: Vec<PathDetails>,
    #[serde(serialize_with = "symlinks")]
    symlinks: Vec<SymlinkDetails>,
    #[serde(serialize_with = "entries")]
    whiteouts: Vec<PathDetails>,
}

fn files<S: Serializer>(files: &[FileDetails], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(files.iter().map(File::new))
}

fn entries<S: Serializer>(entries: &[PathDetails], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(entries.iter().map(Entry::new))
}

fn symlinks<S: Serializer>(links: &[SymlinkDetails], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(links.iter().map(Symlink::new))
}

/// What only a store knows.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Here {
    state: &'static str,
    pinned: bool,
    created_at: Time,
    last_accessed_at: Time,
    publications: Vec<Published>,
    exclusive_bytes: u64,
    packs: Vec<Pack>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pack {
    pack: String,
    pages: u64,
    size_bytes: u64,
    exclusive: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(flatten)]
    entry: Entry,
    digest: Option<String>,
    checksum: Option<String>,
    content: Option<String>,
    read_only: bool,
    size_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    hardlink_of: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hardlink_of_bytes: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Symlink {
    #[serde(flatten)]
    entry: Entry,
    target: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_bytes: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(flatten)]
    path: Relative,
    mode: u32,
    uid: u32,
    gid: u32,
    modified_at: Time,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
}

impl Inspected {
    fn new(details: SnapshotDetails) -> Self {
        let summary = details.summary;
        Self {
            reference: Called::new(&summary.reference),
            manifest_digest: summary.manifest_digest.to_string(),
            format: summary.format.as_str(),
            here: Some(Here {
                state: summary.state.as_str(),
                pinned: summary.pinned,
                created_at: Time(summary.created_at),
                last_accessed_at: Time(summary.last_accessed_at),
                publications: summary.publications.iter().map(Published::new).collect(),
                exclusive_bytes: details.exclusive_bytes,
                packs: details.packs.iter().map(Pack::new).collect(),
            }),
            annotations: details.annotations,
            logical_bytes: summary.logical_bytes,
            data_bytes: Some(summary.data_bytes),
            files: details.files,
            directories: details.directories,
            symlinks: details.symlinks,
            whiteouts: details.whiteouts,
        }
    }

    fn of_remote(details: RemoteDetails) -> Self {
        Self {
            reference: Called::new(&details.reference),
            manifest_digest: details.manifest_digest.to_string(),
            format: Format::V1.as_str(),
            here: None,
            annotations: details.annotations,
            logical_bytes: details.logical_bytes,
            data_bytes: None,
            files: details.files,
            directories: details.directories,
            symlinks: details.symlinks,
            whiteouts: details.whiteouts,
        }
    }
}

impl Pack {
    fn new(pack: &PackDetails) -> Self {
        Self {
            pack: pack.id.to_string(),
            pages: pack.pages,
            size_bytes: pack.length,
            exclusive: pack.exclusive,
        }
    }
}

impl Here {
    fn text(&self, page: &mut Page<'_>, format: &str) -> io::Result<()> {
        if self.packs.is_empty() {
            return Ok(());
        }
        let stored = self
            .packs
            .iter()
            .fold(0, |sum: u64, pack| sum.saturating_add(pack.size_bytes));
        writeln!(
            page.out,
            "  format {format}, {} ({}), {} for itself alone",
            count(self.packs.len() as u64, "pack"),
            bytes(stored),
            bytes(self.exclusive_bytes)
        )
    }
}

impl File {
    fn new(file: &FileDetails) -> Self {
        let (hardlink_of, bytes) = file.hardlink_of.as_deref().map(text_and_bytes).unzip();
        Self {
            entry: Entry::new(&file.entry),
            digest: file.digest.map(|digest| digest.to_string()),
            checksum: file.checksum.map(|checksum| checksum.to_string()),
            content: file.content.map(|content| content.to_string()),
            read_only: file.read_only,
            size_bytes: file.size,
            hardlink_of,
            hardlink_of_bytes: bytes.flatten(),
        }
    }
}

impl Symlink {
    fn new(symlink: &SymlinkDetails) -> Self {
        let (target, target_bytes) = text_and_bytes(&symlink.target);
        Self {
            entry: Entry::new(&symlink.entry),
            target,
            target_bytes,
        }
    }
}

impl Entry {
    fn new(details: &PathDetails) -> Self {
        let encode = |(name, value): (&String, &Vec<u8>)| (name.clone(), base64(value));
        Self {
            path: Relative::new(&details.relative_path),
            mode: details.mode,
            uid: details.uid,
            gid: details.gid,
            modified_at: Time(details.modified),
            xattrs: details.xattrs.iter().map(encode).collect(),
        }
    }
}

/// `rw-r--r--`, as `ls` shows them.
fn permissions(mode: u32) -> String {
    let is_set = |bit: u32| mode >> bit & 1 == 1;
    let mut shown = String::new();
    for (class, special) in [(2, 's'), (1, 's'), (0, 't')] {
        let (read, write, run) = (class * 3 + 2, class * 3 + 1, class * 3);
        shown.push(if is_set(read) { 'r' } else { '-' });
        shown.push(if is_set(write) { 'w' } else { '-' });
        shown.push(match (is_set(9 + class), is_set(run)) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => special,
            (true, false) => special.to_ascii_uppercase(),
        });
    }
    shown
}

impl Document for Inspected {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        page.heading(&self.reference, &self.manifest_digest)?;
        if let Some(here) = &self.here {
            writeln!(
                page.out,
                "  taken {}, used {}, {}{}",
                page.time(here.created_at.0),
                page.time(here.last_accessed_at.0),
                here.state,
                if here.pinned { ", pinned" } else { "" }
            )?;
            for at in &here.publications {
                writeln!(page.out, "  {}", at.shown(page))?;
            }
            here.text(page, self.format)?;
        }
        let data = self
            .data_bytes
            .map(|data| format!(" ({} of data)", bytes(data)));
        writeln!(
            page.out,
            "  {}, {}{}",
            count(self.files.len() as u64, "file"),
            bytes(self.logical_bytes),
            data.unwrap_or_default()
        )?;
        for (key, value) in &self.annotations {
            let note = human::visible(&format!("{key} = {value}"));
            writeln!(page.out, "  {note}")?;
        }
        writeln!(page.out)?;
        let times = page.times;
        titles().write_each(page.out, &|row| self.rows(times, row))?;
        if page.verbose {
            self.write_verbose(page)
        } else {
            Ok(())
        }
    }
}

fn titles() -> Table {
    Table::new([
        ("MODE", Align::Left),
        ("OWNER", Align::Left),
        ("SIZE", Align::Right),
        ("MODIFIED", Align::Left),
        ("READ-ONLY", Align::Left),
        ("PATH", Align::Left),
    ])
}

impl Inspected {
    fn rows(&self, times: Times, row: Row<'_>) -> io::Result<()> {
        let mut row =
            |kind: char, entry: &PathDetails, size: &str, read_only: bool, after: &str| {
                row(&[
                    &format_args!("{kind}{}", permissions(entry.mode)),
                    &format_args!("{}:{}", entry.uid, entry.gid),
                    &size,
                    &times.shown(entry.modified),
                    &if read_only { "yes" } else { "" },
                    &format_args!("{}{after}", human::path(&entry.relative_path)),
                ])
            };
        for directory in &self.directories {
            row('d', directory, "", false, "/")?;
        }
        for file in &self.files {
            let after = file.hardlink_of.as_deref();
            let after = after.map(|other| format!(" = {}", human::path(other)));
            let (size, after) = (bytes(file.size), after.unwrap_or_default());
            row('-', &file.entry, &size, file.read_only, &after)?;
        }
        for symlink in &self.symlinks {
            let after = format!(" -> {}", human::path(&symlink.target));
            row('l', &symlink.entry, "", false, &after)?;
        }
        for whiteout in &self.whiteouts {
            row('c', whiteout, "", false, " is hidden")?;
        }
        Ok(())
    }

    fn write_verbose(&self, page: &mut Page<'_>) -> io::Result<()> {
        for file in self.files.iter().map(File::new) {
            writeln!(page.out, "{}", file.entry.path.shown())?;
            if let Some(digest) = &file.digest {
                let checksum = file.checksum.as_deref().unwrap_or("no checksum");
                writeln!(page.out, "  {digest}\n  {checksum}")?;
            } else {
                let content = file.content.as_deref().unwrap_or("no content id");
                writeln!(page.out, "  {content}")?;
            }
            for (name, value) in &file.entry.xattrs {
                writeln!(page.out, "  {} = {value} (base64)", human::visible(name))?;
            }
        }
        Ok(())
    }
}

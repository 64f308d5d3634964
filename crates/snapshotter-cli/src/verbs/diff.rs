//! `snapshotter diff`: what one snapshot has that another has not. Of format v1 it is read from the two documents alone, because
//! equal checksums are equal bytes; of format v2 the pages that the two do not share are counted. A snapshot of the one and one
//! of the other have no names of contents in common, so only sizes are compared, and that is said.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use anstyle::AnsiColor;
use serde::Serialize;
use snapshotter::{FileDetails, Format, PathDetails, Reference, SnapshotDetails, Snapshotter};

use crate::answer::{Answer, Document};
use crate::context::Context;
use crate::failure::Result;
use crate::hints;
use crate::output::Page;
use crate::output::human::{bytes, count};
use crate::output::json::Relative;

/// Compares two snapshots
///
/// Exits with 0 whether they differ or not; `--json` has the lists.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  snapshotter diff vm:v1 vm:v2
      + is only in vm:v2, - only in vm:v1, ~ is in both and differs in what is named
  snapshotter diff vm:v1 vm:v2 --json | jq '.changed | length'")]
pub struct Args {
    /// The older snapshot: NAME:VERSION
    #[arg(value_name = "REFERENCE")]
    from: String,
    /// The newer snapshot: NAME:VERSION
    #[arg(value_name = "REFERENCE")]
    to: String,
}

/// Runs it.
pub fn run(context: &Context, args: &Args) -> Result<Answer> {
    let command = "diff NAME:VERSION NAME:VERSION";
    let from = hints::reference(&args.from, command)?;
    let to = hints::reference(&args.to, command)?;
    context.require_store()?;
    let seen = context.with_store(async |store| {
        let (from, to) = (inspect(store, &from).await?, inspect(store, &to).await?);
        let pages = pages(store, &from, &to).await?;
        Ok((from, to, pages))
    })?;
    let (from, to, pages) = seen.value;
    let difference = Difference::between(&sorted(from), &sorted(to), &pages);
    Ok(Answer::new(difference).with_warnings(seen.warnings))
}

/// How many pages of which files differ, where both have pages.
async fn pages(
    store: &Snapshotter,
    from: &SnapshotDetails,
    to: &SnapshotDetails,
) -> Result<BTreeMap<PathBuf, u64>> {
    if [from, to].map(|one| one.summary.format) != [Format::V2; 2] {
        return Ok(BTreeMap::new());
    }
    let names = [from, to].map(|one| {
        let summary = &one.summary;
        summary
            .reference
            .clone()
            .with_digest(summary.manifest_digest)
    });
    let changed = store.changed_pages(&names[0], &names[1]).await?;
    let changed = changed
        .into_iter()
        .map(|file| (file.relative_path, file.pages));
    Ok(changed.collect())
}

async fn inspect(store: &Snapshotter, reference: &Reference) -> Result<SnapshotDetails> {
    match store.inspect(reference).await {
        Ok(details) => Ok(details),
        Err(error) => Err(hints::what_is_there(store, error.into()).await),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Difference {
    from: Side,
    to: Side,
    added: Vec<Line>,
    removed: Vec<Line>,
    changed: Vec<Change>,
    unchanged: u64,
    contents_compared: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Side {
    reference: String,
    manifest_digest: String,
    format: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    #[serde(flatten)]
    path: Relative,
    kind: &'static str,
    size_bytes: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    #[serde(flatten)]
    path: Relative,
    kind: &'static str,
    what: Vec<&'static str>,
    from_size_bytes: u64,
    to_size_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed_pages: Option<u64>,
}

/// A path of a snapshot, of whatever kind.
struct Item<'a> {
    details: &'a PathDetails,
    body: Body<'a>,
}

enum Body<'a> {
    File(&'a FileDetails),
    Directory,
    Symlink(&'a Path),
    Whiteout,
}

impl Difference {
    fn between(
        from: &SnapshotDetails,
        to: &SnapshotDetails,
        pages: &BTreeMap<PathBuf, u64>,
    ) -> Self {
        let (mut old, mut new) = (items(from).peekable(), items(to).peekable());
        let mut difference = Self {
            from: Side::new(from),
            to: Side::new(to),
            added: Vec::new(),
            removed: Vec::new(),
            changed: Vec::new(),
            unchanged: 0,
            contents_compared: from.summary.format == to.summary.format,
        };
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return difference,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.path().cmp(new.path()),
            };
            let old = old.next_if(|_| order.is_le());
            let new = new.next_if(|_| order.is_ge());
            match (&old, &new) {
                (Some(old), Some(new)) => {
                    difference.compare(old, new, pages.get(new.path()).copied());
                }
                (old, new) => {
                    difference.removed.extend(old.as_ref().map(Item::line));
                    difference.added.extend(new.as_ref().map(Item::line));
                }
            }
        }
    }

    fn compare(&mut self, old: &Item<'_>, new: &Item<'_>, changed_pages: Option<u64>) {
        let what = old.differences(new, changed_pages);
        if what.is_empty() {
            self.unchanged += 1;
            return;
        }
        self.changed.push(Change {
            path: Relative::new(&old.details.relative_path),
            kind: new.kind(),
            what,
            from_size_bytes: old.size(),
            to_size_bytes: new.size(),
            changed_pages,
        });
    }
}

impl Side {
    fn new(details: &SnapshotDetails) -> Self {
        Self {
            reference: details.summary.reference.to_string(),
            manifest_digest: details.summary.manifest_digest.to_string(),
            format: details.summary.format.as_str(),
        }
    }
}

/// Two documents may list a million paths each, so their lists are sorted where they are.
fn sorted(mut snapshot: SnapshotDetails) -> SnapshotDetails {
    let by_path = |a: &PathDetails, b: &PathDetails| a.relative_path.cmp(&b.relative_path);
    let (files, symlinks) = (&mut snapshot.files, &mut snapshot.symlinks);
    files.sort_unstable_by(|a, b| by_path(&a.entry, &b.entry));
    symlinks.sort_unstable_by(|a, b| by_path(&a.entry, &b.entry));
    snapshot.directories.sort_unstable_by(by_path);
    snapshot.whiteouts.sort_unstable_by(by_path);
    snapshot
}

/// What is in a sorted snapshot, by path.
fn items(snapshot: &SnapshotDetails) -> impl Iterator<Item = Item<'_>> {
    let files = snapshot.files.iter().map(|file| Item {
        details: &file.entry,
        body: Body::File(file),
    });
    let directories = snapshot.directories.iter().map(|details| Item {
        details,
        body: Body::Directory,
    });
    let whiteouts = snapshot.whiteouts.iter().map(|details| Item {
        details,
        body: Body::Whiteout,
    });
    let symlinks = snapshot.symlinks.iter().map(|symlink| Item {
        details: &symlink.entry,
        body: Body::Symlink(&symlink.target),
    });
    merged(merged(files, directories), merged(symlinks, whiteouts))
}

fn merged<'a>(
    one: impl Iterator<Item = Item<'a>>,
    other: impl Iterator<Item = Item<'a>>,
) -> impl Iterator<Item = Item<'a>> {
    let (mut one, mut other) = (one.peekable(), other.peekable());
    std::iter::from_fn(move || match (one.peek(), other.peek()) {
        (Some(first), Some(second)) if first.path() > second.path() => other.next(),
        (None, _) => other.next(),
        _ => one.next(),
    })
}

impl Item<'_> {
    fn path(&self) -> &Path {
        &self.details.relative_path
    }

    fn kind(&self) -> &'static str {
        match self.body {
            Body::File(_) => "file",
            Body::Directory => "directory",
            Body::Symlink(_) => "symlink",
            Body::Whiteout => "whiteout",
        }
    }

    fn size(&self) -> u64 {
        match self.body {
            Body::File(file) => file.size,
            _ => 0,
        }
    }

    fn line(&self) -> Line {
        Line {
            path: Relative::new(&self.details.relative_path),
            kind: self.kind(),
            size_bytes: self.size(),
        }
    }

    /// What two entries of one path differ in; of different kinds, that alone.
    fn differences(&self, other: &Self, changed_pages: Option<u64>) -> Vec<&'static str> {
        let mut found = Vec::new();
        match (&self.body, &other.body) {
            (Body::File(old), Body::File(new)) => {
                let is_same = changed_pages.is_none() && same_bytes(old, new);
                found.extend((!is_same).then_some("content"));
                found.extend((old.read_only != new.read_only).then_some("readOnly"));
                found.extend((old.hardlink_of != new.hardlink_of).then_some("hardlinkOf"));
            }
            (Body::Symlink(old), Body::Symlink(new)) => {
                found.extend((old != new).then_some("target"));
            }
            (Body::Directory, Body::Directory) | (Body::Whiteout, Body::Whiteout) => {}
            _ => return vec!["kind"],
        }
        let (old, new) = (self.details, other.details);
        found.extend((old.mode != new.mode).then_some("mode"));
        found.extend(((old.uid, old.gid) != (new.uid, new.gid)).then_some("owner"));
        found.extend((old.modified != new.modified).then_some("modifiedAt"));
        found.extend((old.xattrs != new.xattrs).then_some("xattrs"));
        found
    }
}

/// As far as names of contents say: the digest alone where a snapshot of the Go library has no checksum, and the size where the
/// two have no names in common, or pages were counted.
fn same_bytes(old: &FileDetails, new: &FileDetails) -> bool {
    match (old.checksum, new.checksum, old.digest, new.digest) {
        (Some(old), Some(new), ..) => old == new,
        (.., Some(old_digest), Some(new_digest)) => {
            old.size == new.size && old_digest == new_digest
        }
        _ => old.size == new.size,
    }
}

impl Document for Difference {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        let (added, removed, changed) = (
            AnsiColor::Green.on_default(),
            AnsiColor::Red.on_default(),
            AnsiColor::Yellow.on_default(),
        );
        for line in &self.removed {
            writeln!(page.out, "{removed}- {}{removed:#}", line.path.shown())?;
        }
        for line in &self.added {
            writeln!(page.out, "{added}+ {}{added:#}", line.path.shown())?;
        }
        for change in &self.changed {
            let path = change.path.shown();
            writeln!(page.out, "{changed}~ {path}{changed:#}  {}", change.shown())?;
        }
        if page.quiet {
            return Ok(());
        }
        writeln!(
            page.out,
            "{} added, {} removed, {} changed, {} the same",
            self.added.len(),
            self.removed.len(),
            self.changed.len(),
            self.unchanged
        )?;
        if !self.contents_compared {
            writeln!(
                page.out,
                "one is of format {}, the other of format {}: of their contents only the sizes were compared",
                self.from.format, self.to.format
            )?;
        }
        Ok(())
    }
}

impl Change {
    fn shown(&self) -> String {
        let words = self.what.iter().map(|what| match *what {
            "content" => self.shown_content(),
            "kind" => format!("is a {} now", self.kind),
            "modifiedAt" => "time".to_owned(),
            "readOnly" => "read-only".to_owned(),
            "hardlinkOf" => "hardlinks".to_owned(),
            "xattrs" => "extended attributes".to_owned(),
            what => what.to_owned(),
        });
        words.collect::<Vec<_>>().join(", ")
    }

    fn shown_content(&self) -> String {
        let (from, to) = (self.from_size_bytes, self.to_size_bytes);
        let sizes = (from != to).then(|| format!("{} -> {}", bytes(from), bytes(to)));
        let pages = self.changed_pages.map(|pages| count(pages, "page"));
        let notes: Vec<String> = sizes.into_iter().chain(pages).collect();
        match notes.is_empty() {
            true => "content".to_owned(),
            false => format!("content ({})", notes.join(", ")),
        }
    }
}

//! `snapshotter diff`: what one snapshot has that another has not. Read from the two documents alone; no stored bytes
//! are looked at, because equal checksums are equal bytes.

use std::cmp::Ordering;
use std::io;
use std::path::Path;

use anstyle::AnsiColor;
use serde::Serialize;
use snapshotter::{FileDetails, PathDetails, Reference, SnapshotDetails, Snapshotter};

use crate::answer::{Answer, Document};
use crate::context::Context;
use crate::failure::Result;
use crate::hints;
use crate::output::Page;
use crate::output::human::bytes;
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
    let seen = context
        .with_store(async |store| Ok((inspect(store, &from).await?, inspect(store, &to).await?)))?;
    let (from, to) = (sorted(seen.value.0), sorted(seen.value.1));
    Ok(Answer::new(Difference::between(&from, &to)).with_warnings(seen.warnings))
}

async fn inspect(store: &Snapshotter, reference: &Reference) -> Result<SnapshotDetails> {
    match store.inspect(reference).await {
        Ok(details) => Ok(details),
        Err(error) => Err(hints::what_is_there(store, error.into()).await),
    }
}

#[derive(Serialize)]
struct Difference {
    from: Side,
    to: Side,
    added: Vec<Line>,
    removed: Vec<Line>,
    changed: Vec<Change>,
    unchanged: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Side {
    reference: String,
    manifest_digest: String,
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
    fn between(from: &SnapshotDetails, to: &SnapshotDetails) -> Self {
        let (mut old, mut new) = (items(from).peekable(), items(to).peekable());
        let mut difference = Self {
            from: Side::new(from),
            to: Side::new(to),
            added: Vec::new(),
            removed: Vec::new(),
            changed: Vec::new(),
            unchanged: 0,
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
                (Some(old), Some(new)) => difference.compare(old, new),
                (old, new) => {
                    difference.removed.extend(old.as_ref().map(Item::line));
                    difference.added.extend(new.as_ref().map(Item::line));
                }
            }
        }
    }

    fn compare(&mut self, old: &Item<'_>, new: &Item<'_>) {
        let what = old.differences(new);
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
        });
    }
}

impl Side {
    fn new(details: &SnapshotDetails) -> Self {
        Self {
            reference: details.summary.reference.to_string(),
            manifest_digest: details.summary.manifest_digest.to_string(),
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
    fn differences(&self, other: &Self) -> Vec<&'static str> {
        let mut found = Vec::new();
        match (&self.body, &other.body) {
            (Body::File(old), Body::File(new)) => {
                found.extend((!same_bytes(old, new)).then_some("content"));
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

/// The digest alone where a snapshot of the Go library has no checksum.
fn same_bytes(old: &FileDetails, new: &FileDetails) -> bool {
    match (old.checksum, new.checksum) {
        (Some(old), Some(new)) => old == new,
        _ => old.size == new.size && old.digest == new.digest,
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
        )
    }
}

impl Change {
    fn shown(&self) -> String {
        let words = self.what.iter().map(|what| match *what {
            "content" if self.from_size_bytes != self.to_size_bytes => format!(
                "content ({} -> {})",
                bytes(self.from_size_bytes),
                bytes(self.to_size_bytes)
            ),
            "kind" => format!("is a {} now", self.kind),
            "modifiedAt" => "time".to_owned(),
            "readOnly" => "read-only".to_owned(),
            "hardlinkOf" => "hardlinks".to_owned(),
            "xattrs" => "extended attributes".to_owned(),
            what => what.to_owned(),
        });
        words.collect::<Vec<_>>().join(", ")
    }
}

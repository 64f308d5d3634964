//! `snapshotter diff`: what one snapshot, or a directory, has that another has not. Of format v1 it is read from the two documents alone, because
//! equal checksums are equal bytes; of format v2 the pages that the two do not share are counted. A snapshot of the one and one
//! of the other have no names of contents in common, so only sizes are compared, and that is said.

mod tree;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use anstyle::AnsiColor;
use clap::ValueHint;
use serde::Serialize;
use snapshotter::{Format, Reference, SnapshotDetails, Snapshotter};

use crate::answer::{Answer, Document};
use crate::context::Context;
use crate::failure::Result;
use crate::hints;
use crate::output::Page;
use crate::output::human::{bytes, count};
use crate::output::json::{Called, Named, Relative, Warning};
use tree::{Item, Tree, items};

/// Compares two snapshots, or a snapshot with a directory
///
/// Of a directory, files are read that the snapshot has in the same size. Exits with 0 whether they differ or not; `--json` has the lists.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  snapshotter diff vm:v1 vm:v2
      + is only in vm:v2, - only in vm:v1, ~ is in both and differs in what is named
  snapshotter diff vm:v1 /run/vm
      what has changed in /run/vm since; write ./NAME for a directory that is called as a snapshot
  snapshotter diff vm:v1 vm:v2 --json | jq '.changed | length'")]
pub struct Args {
    /// The older snapshot: NAME:VERSION
    #[arg(value_name = "REFERENCE")]
    from: String,
    /// The newer snapshot, NAME:VERSION, or a directory
    #[arg(value_name = "REFERENCE|DIR", value_hint = ValueHint::DirPath)]
    to: String,
}

/// Whether an argument that may be either is a directory and no snapshot.
pub fn is_directory(text: &str) -> bool {
    let path = Path::new(text);
    let is_path = path.is_absolute() || text.starts_with('.');
    is_path || (text.parse::<Reference>().is_err() && path.is_dir())
}

/// Runs it.
pub fn run(context: &Context, args: &Args) -> Result<Answer> {
    let command = "diff NAME:VERSION NAME:VERSION";
    let from = hints::reference(&args.from, command)?;
    if is_directory(&args.to) {
        return with_directory(context, &from, Path::new(&args.to));
    }
    let to = hints::reference(&args.to, "diff NAME:VERSION DIR")?;
    context.require_store()?;
    let seen = context.with_store(async |store| {
        let (from, to) = (inspect(store, &from).await?, inspect(store, &to).await?);
        let pages = pages(store, &from, &to).await?;
        Ok((from, to, pages))
    })?;
    let (from, to, pages) = seen.value;
    let sides = [Side::new(&from), Side::new(&to)];
    let pages = pages.into_iter().map(|(path, pages)| (path, Some(pages)));
    let difference = Difference::between(sides, &Tree::of(from), &Tree::of(to), &pages.collect());
    Ok(Answer::new(difference).with_warnings(seen.warnings))
}

fn with_directory(context: &Context, from: &Reference, directory: &Path) -> Result<Answer> {
    context.require_store()?;
    let seen = context.with_store(async |store| {
        let progress = context.progress("diff");
        let details = inspect(store, from).await?;
        let observed = store.observed_by(progress.observer());
        let found = observed.compare_directory(from, directory).await?;
        Ok((details, found))
    })?;
    let (from, found) = seen.value;
    let sides = [Side::new(&from), Side::directory(directory)];
    let changed = found.changed.iter().map(|path| (path.clone(), None));
    let warnings: Vec<_> = found.warnings.iter().cloned().map(Warning::from).collect();
    let changed = changed.collect();
    let found = Tree {
        files: found.files,
        directories: found.directories,
        symlinks: found.symlinks,
        whiteouts: found.whiteouts,
    };
    let difference = Difference::between(sides, &Tree::of(from), &found.sorted(), &changed);
    Ok(Answer::new(difference).with_warnings(warnings.into_iter().chain(seen.warnings)))
}

/// Files with other bytes, and how many of their pages differ where that was counted.
type Changed = BTreeMap<PathBuf, Option<u64>>;

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
#[serde(rename_all = "camelCase", untagged, rename_all_fields = "camelCase")]
enum Side {
    Snapshot {
        #[serde(flatten)]
        reference: Called,
        manifest_digest: String,
        format: &'static str,
    },
    Directory {
        #[serde(flatten)]
        directory: Named,
    },
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

impl Line {
    fn of(item: &Item<'_>) -> Self {
        Self {
            path: Relative::new(item.path()),
            kind: item.kind(),
            size_bytes: item.size(),
        }
    }
}

impl Difference {
    fn between([from, to]: [Side; 2], old: &Tree, new: &Tree, changed: &Changed) -> Self {
        let (mut old, mut new) = (items(old).peekable(), items(new).peekable());
        let mut difference = Self {
            contents_compared: match (from.format(), to.format()) {
                (Some(from), Some(to)) => from == to,
                _ => true,
            },
            from,
            to,
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
                (Some(old), Some(new)) => {
                    difference.compare(old, new, changed.get(new.path()).copied());
                }
                (old, new) => {
                    difference.removed.extend(old.as_ref().map(Line::of));
                    difference.added.extend(new.as_ref().map(Line::of));
                }
            }
        }
    }

    fn compare(&mut self, old: &Item<'_>, new: &Item<'_>, changed: Option<Option<u64>>) {
        let what = old.differences(new, changed.is_some());
        if what.is_empty() {
            self.unchanged += 1;
            return;
        }
        self.changed.push(Change {
            path: Relative::new(old.path()),
            kind: new.kind(),
            what,
            from_size_bytes: old.size(),
            to_size_bytes: new.size(),
            changed_pages: changed.flatten(),
        });
    }
}

impl Side {
    fn directory(path: &Path) -> Self {
        Self::Directory {
            directory: Named::new(path),
        }
    }

    fn format(&self) -> Option<&'static str> {
        match self {
            Self::Snapshot { format, .. } => Some(format),
            Self::Directory { .. } => None,
        }
    }

    fn new(details: &SnapshotDetails) -> Self {
        Self::Snapshot {
            reference: Called::new(&details.summary.reference),
            manifest_digest: details.summary.manifest_digest.to_string(),
            format: details.summary.format.as_str(),
        }
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
        if let (false, Some(from), Some(to)) =
            (self.contents_compared, self.from.format(), self.to.format())
        {
            writeln!(
                page.out,
                "one is of format {from}, the other of format {to}: of their contents only the sizes were compared"
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

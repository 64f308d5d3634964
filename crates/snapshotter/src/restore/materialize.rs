//! Blobs into files.
//!
//! Read-only files become hardlinks of a view, so that all restores on a node share its pages; writable ones are cloned
//! or copied. A copy is hashed while it is made and gets its name only if the hash is right. Nothing is ever written
//! through an inode that was there before.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::content::{Content, FileEntry};
use super::delete;
use super::directories::{self, unless_mounted};
use super::job::{Job, Source};
use super::plan::Plan;
use super::{Context, Restored, others};
use crate::catalog::{Blob, Txn};
use crate::fs::{Dir, own_ids};
use crate::lock::lock;
use crate::pass::for_each;
use crate::store::{Linkable, OpenBlob, Wanted};
use crate::words::entry::Attributes;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::form::Form;
use crate::words::placement::{LinkMode, Placement, Placements};
use crate::words::progress::{Event, Phase, WarningKind};
use crate::words::relpath::RelPath;
use crate::words::total::total;

/// How often a link is tried whose source was replaced in the same moment, or has no room for one more.
pub(super) const ATTEMPTS: u32 = 16;

/// Makes everything in a plan.
pub(super) fn all(context: &Context<'_>, snapshot: i64, mut plan: Plan) -> Result<Restored> {
    let mut restored = Restored {
        files: (plan.files.len() + plan.links.len()) as u64,
        directories: plan
            .directories
            .iter()
            .filter(|directory| directory.attributes.is_some())
            .count() as u64,
        symlinks: plan.symlinks.len() as u64,
        whiteouts: plan.whiteouts.len() as u64,
        ..Restored::default()
    };
    look_up(context, snapshot, &mut plan.files, &mut restored)?;
    let plan = &plan;
    context.activity.tell(|| Event::Planned {
        phase: Phase::Write,
        files: plan.files.len() as u64,
        bytes: restored.data_bytes,
    });
    context.output.require_foreign(plan)?;
    if context.no_clobber {
        directories::refuse_existing(context, plan)?;
    }
    let extra = delete::find(context.output, plan, context.activity)?;
    let made = directories::make(context, plan)?;
    for whiteout in &plan.whiteouts {
        let result = others::whiteout(context, whiteout);
        if unless_mounted(context, &whiteout.path, result)?.is_none() {
            restored.whiteouts -= 1;
        }
    }
    let placing = Placing {
        context,
        plan,
        snapshot,
        placements: Mutex::default(),
        left: Mutex::default(),
    };
    let mut left = plan.groups();
    while !left.is_empty() {
        left = placing.groups(&left)?;
    }
    for link in &plan.links {
        placing.link(link)?;
    }
    for symlink in &plan.symlinks {
        let result = others::symlink(context, symlink);
        if unless_mounted(context, &symlink.path, result)?.is_none() {
            restored.symlinks -= 1;
        }
    }
    let deleted = delete::extra(context, extra);
    directories::finish(context, plan, &made)?;
    restored.deleted = deleted?;
    for text in plan.selection.complaints() {
        context.activity.warn(WarningKind::Unmatched, None, text);
    }
    let left = placing.left.into_inner();
    let left = left.unwrap_or_else(PoisonError::into_inner);
    restored.files -= left.files;
    restored.logical_bytes -= left.logical_bytes;
    restored.data_bytes -= left.data_bytes;
    restored.placements = placing
        .placements
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    Ok(restored)
}

/// Looks every content up before anything is made: a document that names unknown content fails with nothing done.
fn look_up(
    context: &Context<'_>,
    snapshot: i64,
    files: &mut [FileEntry],
    restored: &mut Restored,
) -> Result<()> {
    let read = |txn: &Txn<'_>| txn.contents_of_snapshot(snapshot);
    let contents = context.store.catalog.read(read)?;
    for file in files {
        let data_size = match file.content {
            Content::Blob { digest, checksum } => {
                let found = contents.find_named(digest, checksum.as_ref(), file.size);
                let found = found.ok_or_else(|| disagree(file))?;
                // Those of the Go library have no checksums.
                let checksum = Some(found.checksum);
                file.content = Content::Blob { digest, checksum };
                found.data_size
            }
            Content::Pages { first, .. } => context
                .packs
                .map_or(0, |packs| packs.data_size(first, file.size)),
        };
        restored.logical_bytes = total([restored.logical_bytes, file.size]);
        restored.data_bytes = total([restored.data_bytes, data_size]);
    }
    Ok(())
}

fn disagree(file: &FileEntry) -> Error {
    Error::damaged(format!(
        "the snapshot's document and its blobs disagree about {}",
        file.path
    ))
    .with_path(file.path.as_path())
}

/// What was left because something is mounted on it: how many names, and the bytes of the files that have none.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub(super) files: u64,
    pub(super) logical_bytes: u64,
    pub(super) data_bytes: u64,
    /// First names.
    pub(super) paths: HashSet<RelPath>,
}

/// What became of a file.
enum Placed {
    There(Placement),
    /// It is to be made of its pages, of which this is the first.
    FromPages(u64),
}

pub(super) struct Placing<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) plan: &'a Plan,
    snapshot: i64,
    pub(super) placements: Mutex<Placements>,
    /// What was left because something is mounted on it.
    pub(super) left: Mutex<Left>,
}

impl<'a> Placing<'a> {
    /// Places groups, and returns those that need a blob which another thread makes plain, once it has.
    fn groups(&self, groups: &[&'a [FileEntry]]) -> Result<Vec<&'a [FileEntry]>> {
        let later = Mutex::new(Vec::new());
        let threads = self.context.limits.threads(groups.len());
        for_each(threads, groups.len(), |index| {
            let group = groups[index];
            if let Some(file) = self.group(group)? {
                lock(&later).push((group, file));
            }
            Ok(())
        })?;
        let later = later.into_inner().unwrap_or_else(PoisonError::into_inner);
        // With no permit, and making nothing plain that others wait for.
        for (_, file) in &later {
            self.wait_for(file)?;
        }
        Ok(later.into_iter().map(|(group, _)| group).collect())
    }

    /// Waits while another thread makes a file's blob plain.
    pub(super) fn wait_for(&self, planned: &FileEntry) -> Result<()> {
        let unpacking = &self.context.store.unpacking;
        match planned.content.checksum() {
            Some(checksum) => unpacking.wait(checksum, self.context.activity),
            None => Err(disagree(planned)),
        }
    }

    /// The blobs of files, which only those are that the snapshot references. What has pages has none.
    pub(super) fn blobs(&self, files: &[FileEntry]) -> Result<Vec<Option<Blob>>> {
        if self.context.packs.is_some() {
            return Ok(files.iter().map(|_| None).collect());
        }
        self.context.store.catalog.read(|txn| {
            let blob = |file: &FileEntry| {
                let found = match file.content.checksum() {
                    Some(checksum) => txn.blob_of_snapshot(self.snapshot, &checksum)?,
                    None => None,
                };
                found.ok_or_else(|| disagree(file)).map(Some)
            };
            files.iter().map(blob).collect()
        })
    }

    /// Places the files of a group; or none of them, and returns one whose blob another thread makes plain.
    fn group(&self, group: &'a [FileEntry]) -> Result<Option<&'a FileEntry>> {
        let parent = group.first().and_then(|file| file.path.parent());
        let parent = self.context.output.open(parent.as_ref())?;
        let device = parent.device()?;
        let limit = self.context.limits.of_device(device);
        let _permit = limit.permit(self.context.activity)?;
        let mut jobs = Vec::with_capacity(group.len());
        for (planned, blob) in group.iter().zip(self.blobs(group)?) {
            match self.open(planned, blob, device)? {
                Some(job) => jobs.push(job),
                None => return Ok(Some(planned)),
            }
        }
        let mut sources = self.views(&jobs)?;
        let mut of_pages = Vec::new();
        for (job, source) in jobs.iter().zip(&mut sources) {
            self.context.activity.check()?;
            let placed = self
                .place(&parent, job, source.take())
                .map_err(|error| error.with_path(parent.path_of(job.name())));
            match unless_mounted(self.context, &job.planned.path, placed)? {
                Some(Placed::There(placement)) => self.count(job, placement),
                Some(Placed::FromPages(first)) => of_pages.push((job, first)),
                None => self.leave(job),
            }
        }
        self.place_pages(&parent, &of_pages)?;
        Ok(None)
    }

    /// Opens a file's blob; `None` where another thread makes it plain.
    pub(super) fn open(
        &self,
        planned: &'a FileEntry,
        blob: Option<Blob>,
        device: u64,
    ) -> Result<Option<Job<'a>>> {
        let wanted = Wanted::new(self.effective(planned), self.context.relaxed_times);
        let (source, data_size) = match (&planned.content, blob) {
            (Content::Pages { first, .. }, _) => {
                let packs = self.context.packs;
                let data_size = packs.map_or(0, |packs| packs.data_size(*first, planned.size));
                (Source::Pages(*first), data_size)
            }
            (Content::Blob { .. }, Some(blob)) => {
                let Some(opened) = self.open_blob(planned, &blob, &wanted, device)? else {
                    return Ok(None);
                };
                let data_size = blob.data_size;
                (Source::Blob(Box::new((blob, opened))), data_size)
            }
            (Content::Blob { .. }, None) => return Err(disagree(planned)),
        };
        Ok(Some(Job {
            planned,
            source,
            data_size,
            wanted,
            device,
        }))
    }

    /// Nobody links to a packed file: such a blob becomes plain first.
    fn open_blob(
        &self,
        planned: &FileEntry,
        blob: &Blob,
        wanted: &Wanted,
        device: u64,
    ) -> Result<Option<OpenBlob>> {
        let context = self.context;
        let opened = context.store.open_good(blob, context.activity);
        let opened = opened.map_err(|error| blame(error, planned))?;
        if opened.form != Form::Packed || !self.wants_link(planned, device) {
            return Ok(Some(opened));
        }
        context
            .store
            .unpack(blob, wanted, context.privileged, context.activity)
            .map_err(|error| blame(error, planned))
    }

    /// What this process may set: without privileges, files are its own and have `user.*` attributes only.
    fn effective(&self, entry: &FileEntry) -> Attributes {
        let mut attributes = entry.attributes.clone();
        if !self.context.privileged {
            (attributes.uid, attributes.gid) = own_ids();
            let before = attributes.xattrs.len();
            attributes
                .xattrs
                .retain(|name, _| name.starts_with("user."));
            if attributes.xattrs.len() < before {
                self.context.activity.warn(
                    WarningKind::Attribute,
                    Some(entry.path.as_path()),
                    "extended attributes outside user.* need privileges and were left out",
                );
            }
        }
        attributes
    }

    pub(super) fn count(&self, job: &Job<'_>, placement: Placement) {
        lock(&self.placements).count(placement, job.data_size);
        // Copies have told of their bytes while they ran.
        if placement != Placement::Copy {
            let _ = self.context.activity.advance(job.data_size);
        }
        self.context.activity.tell(|| Event::FileFinished {
            path: job.planned.path.as_path().to_owned(),
            placement,
        });
    }

    pub(super) fn leave(&self, job: &Job<'_>) {
        let mut left = lock(&self.left);
        left.files += 1;
        left.logical_bytes = total([left.logical_bytes, job.planned.size]);
        left.data_bytes = total([left.data_bytes, job.data_size]);
        left.paths.insert(job.planned.path.clone());
    }

    /// Whether a file becomes a hardlink, if that can be made.
    pub(super) fn wants_link(&self, planned: &FileEntry, device: u64) -> bool {
        planned.read_only
            // From one mount to another nothing can be linked.
            && !self.context.store.is_read_only()
            && device == self.context.store.root.device
            && matches!(self.context.link_mode, LinkMode::Auto | LinkMode::Hardlink)
    }

    /// Gives a file its name: linked where there is something to link to, else as it is, else made, but for what is made of
    /// pages.
    fn place(&self, parent: &Dir, job: &Job<'_>, source: Option<Linkable<'a>>) -> Result<Placed> {
        let file = job.planned;
        self.context.activity.start(&file.path, file.size);
        if let Some(source) = source {
            if let Some(placement) = self.hardlink(parent, job, source)? {
                return Ok(Placed::There(placement));
            }
        } else if job.planned.read_only && self.context.link_mode == LinkMode::Hardlink {
            self.warn(job, self.why_not_linked(job));
        }
        if self.is_present(parent, job)? {
            return Ok(Placed::There(Placement::Present));
        }
        match job.source {
            Source::Pages(first) => Ok(Placed::FromPages(first)),
            Source::Blob(_) => self.write(parent, job).map(Placed::There),
        }
    }

    fn why_not_linked(&self, job: &Job<'_>) -> &'static str {
        if self.context.store.is_read_only() {
            "not hardlinked: the output is on another mount than the store"
        } else if job.device != self.context.store.root.device {
            "not hardlinked: the output is on another filesystem than the store"
        } else {
            "not hardlinked: it is stored in pages, and small or not kept in the cache"
        }
    }

    pub(super) fn warn(&self, job: &Job<'_>, message: &str) {
        self.context.activity.warn(
            WarningKind::LinkMode,
            Some(job.planned.path.as_path()),
            message,
        );
    }
}

/// An error about a blob is an error about the file that needs it.
pub(super) fn blame(error: Error, planned: &FileEntry) -> Error {
    if error.kind() != ErrorKind::Damaged {
        return error;
    }
    Error::damaged(format!("{} cannot be restored", planned.path))
        .with_path(planned.path.as_path())
        .with_hint(error.hint().unwrap_or_default().to_owned())
        .with_source(error)
}

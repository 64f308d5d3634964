//! Files into blobs: each is read ([`reading`](super::reading)) and committed, in batches.
//!
//! A file counts as captured only if it looked the same before and after it was read. The look compares size,
//! modification and change time; the last also moves when somebody else links the file or sets an attribute, so a
//! second read that finds the same bytes is believed.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::Context;
use super::opened::Opened;
use super::planned::{Plan, PlannedFile};
use super::reading::Reading;
use super::walk::vanished;
use crate::fs::place::Cloning;
use crate::pass::Hashes;
use crate::store::{Ingest, Ingested};
use crate::words::digest::Checksum;
use crate::words::entry::Attributes;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::placement::{LinkMode, Placement};
use crate::words::progress::{Event, WarningKind};

/// What a plan's files became, in its order.
#[derive(Debug, Default)]
pub(super) struct Captured {
    pub(super) files: Vec<CapturedFile>,
    /// Blobs whose files, though not their names, are on the disk already.
    pub(super) synced: HashSet<Checksum>,
}

/// What one of a plan's files became.
#[derive(Clone, Debug)]
pub(super) enum Outcome<T> {
    /// It is captured, under all its names unless its first one was another file's by then, which was captured instead.
    Taken(T, bool),
    /// Its first name has gone.
    Gone,
}

impl<T> Outcome<T> {
    fn captured(self) -> Option<T> {
        match self {
            Self::Taken(file, _) => Some(file),
            Self::Gone => None,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct CapturedFile {
    pub(super) hashes: Hashes,
    pub(super) attributes: Attributes,
    pub(super) size: u64,
    pub(super) data_size: u64,
    pub(super) placement: Placement,
    /// Whether this snapshot brought the blob.
    pub(super) stored: bool,
}

/// A file in staging, not yet committed.
pub(super) struct Staged<'s> {
    pub(super) ingest: Ingest<'s>,
    pub(super) source: Source,
}

/// What a file in staging was made of, and how.
pub(super) struct Source {
    pub(super) index: usize,
    pub(super) attributes: Attributes,
    pub(super) placement: Placement,
    pub(super) synced: bool,
    /// Whether it is not the file that was planned, which matters where that has further names.
    pub(super) replaced: bool,
}

pub(super) const TORN: &str =
    "written through a mapping while it was read: its bytes may be of several moments";

/// Files are committed in batches of this many, or as soon as one of at least [`LARGE`] bytes is ready.
const BATCH: usize = 1024;

/// Files from this size on are synced by the thread that wrote them, while others are still read, in bytes.
pub(super) const LARGE: u64 = 1 << 20;

/// Captures every file of a plan and references the blobs from the pending snapshot. What has gone since it was planned
/// is not in the plan any more.
pub(super) fn all(context: &Context<'_>, snapshot: i64, plan: &mut Plan) -> Result<Captured> {
    let mut on_disk = HashSet::new();
    let files = in_rounds(plan, |files, plan| {
        let (outcomes, synced) = capture(context, snapshot, files, plan)?;
        on_disk.extend(synced);
        Ok(outcomes)
    })?;
    let synced = on_disk;
    Ok(Captured { files, synced })
}

/// Captures every file of a plan, and those names once more whose file was another one by then.
pub(super) fn in_rounds<T>(
    plan: &mut Plan,
    mut capture: impl FnMut(&[PlannedFile], &Plan) -> Result<Vec<Outcome<T>>>,
) -> Result<Vec<T>> {
    let mut captured = Vec::new();
    let mut files = std::mem::take(&mut plan.files);
    while !files.is_empty() {
        let outcomes = capture(&files, plan)?;
        let mut left = Vec::new();
        let kept = |(file, outcome): (PlannedFile, &Outcome<T>)| match outcome {
            Outcome::Taken(_, false) => Some(file),
            Outcome::Taken(_, true) => Some(file.only(&mut left)),
            Outcome::Gone => {
                file.only(&mut left);
                None
            }
        };
        // Each list becomes the next one where it is: a million files are not in memory twice.
        let kept = files.into_iter().zip(&outcomes).filter_map(kept).collect();
        append(&mut plan.files, kept);
        let done = outcomes.into_iter().filter_map(Outcome::captured).collect();
        append(&mut captured, done);
        files = left;
    }
    Ok(captured)
}

fn append<T>(all: &mut Vec<T>, mut more: Vec<T>) {
    if all.is_empty() {
        *all = more;
    } else {
        all.append(&mut more);
    }
}

/// Captures files of a plan and says what each became.
fn capture(
    context: &Context<'_>,
    snapshot: i64,
    files: &[PlannedFile],
    plan: &Plan,
) -> Result<(Vec<Outcome<CapturedFile>>, HashSet<Checksum>)> {
    let capture = Capture {
        context,
        snapshot,
        cloning: Cloning::default(),
        staged: Mutex::default(),
        done: Mutex::new(vec![None; files.len()]),
        synced: Mutex::default(),
        files,
        plan,
    };
    let (limit, activity) = (context.limit, context.activity);
    limit.for_each(activity, files.len(), |index| capture.file(index))?;
    capture.commit_rest()?;
    capture.finish()
}

pub(super) struct Capture<'a> {
    pub(super) context: &'a Context<'a>,
    snapshot: i64,
    pub(super) cloning: Cloning,
    staged: Mutex<Vec<Staged<'a>>>,
    done: Mutex<Vec<Option<Outcome<CapturedFile>>>>,
    synced: Mutex<HashSet<Checksum>>,
    pub(super) files: &'a [PlannedFile],
    /// What the files are from.
    pub(super) plan: &'a Plan,
}

/// What may still be tried for a file.
#[derive(Clone, Copy, Debug)]
struct How {
    hardlink: bool,
    /// Whether hashing before copying is worth it.
    known: bool,
    /// Whether its size says nothing: it is read until there is no more.
    to_end: bool,
}

impl How {
    /// In any way; looking whether the bytes are `known` is one.
    fn any(known: bool) -> Self {
        Self {
            hardlink: true,
            known,
            to_end: false,
        }
    }
}

/// How a try to read a file came out.
pub(super) enum Attempt<'s> {
    Same(Staged<'s>),
    /// Only the change time moved: believed if another read finds the same bytes.
    Touched(Staged<'s>),
    Changed,
    /// Somebody opened it for writing after the first look: not to be hardlinked.
    Writer,
    /// It gave other bytes when it was read once more, and its times tell nothing of it: somebody writes it through a
    /// mapping.
    Torn(Staged<'s>),
    /// It ended before its size, which is still that.
    Short,
    /// It is not there any more, or something else is.
    Gone(Error),
}

impl Attempt<'_> {
    /// What is believed because of its times is not if it was `torn`.
    pub(super) fn or_torn(self, torn: bool) -> Self {
        match self {
            Self::Same(staged) | Self::Touched(staged) if torn => Self::Torn(staged),
            attempt => attempt,
        }
    }
}

impl<'a> Capture<'a> {
    fn file(&self, index: usize) -> Result<()> {
        self.context.activity.check()?;
        let Some(staged) = self.stage(index, How::any(true))? else {
            return Ok(());
        };
        let large = staged.ingest.map.data_size() >= LARGE;
        let batch = {
            let mut waiting = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.push(staged);
            if waiting.len() < BATCH && !large {
                return Ok(());
            }
            std::mem::take(&mut *waiting)
        };
        self.commit(batch)
    }

    fn commit_rest(&self) -> Result<()> {
        let rest = std::mem::take(&mut *self.staged.lock().unwrap_or_else(PoisonError::into_inner));
        self.commit(rest)
    }

    fn finish(self) -> Result<(Vec<Outcome<CapturedFile>>, HashSet<Checksum>)> {
        let done = self
            .done
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let outcomes: Option<Vec<Outcome<CapturedFile>>> = done.into_iter().collect();
        let outcomes = outcomes.ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                "a file was neither captured nor refused",
            )
        })?;
        let synced = self
            .synced
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        Ok((outcomes, synced))
    }

    /// Commits staged files. Those whose known blob vanished meanwhile are read again, this time with a copy.
    fn commit(&self, batch: Vec<Staged<'a>>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let (mut ingests, sources): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|staged| (staged.ingest, staged.source))
            .unzip();
        let outcomes = self.context.store.commit(self.snapshot, &mut ingests)?;
        let mut gone = Vec::new();
        for ((outcome, ingest), source) in outcomes.into_iter().zip(ingests).zip(sources) {
            match outcome {
                Ingested::Stored => self.record(source, &ingest, true),
                Ingested::Reused => self.record(source, &ingest, false),
                Ingested::Gone => gone.push(source.index),
            }
        }
        self.capture_again(&gone)
    }

    fn capture_again(&self, gone: &[usize]) -> Result<()> {
        for &index in gone {
            let staged = self.stage(index, How::any(false))?;
            self.commit(staged.into_iter().collect())?;
        }
        Ok(())
    }

    fn record(&self, source: Source, ingest: &Ingest<'_>, stored: bool) {
        if stored && source.synced {
            self.synced
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(ingest.hashes.checksum);
        }
        let placement = if stored {
            source.placement
        } else {
            Placement::Present
        };
        let file = CapturedFile {
            hashes: ingest.hashes,
            attributes: source.attributes,
            size: ingest.map.size(),
            data_size: ingest.map.data_size(),
            placement,
            stored,
        };
        self.settle(source.index, Outcome::Taken(file, source.replaced));
        self.context.activity.tell(|| Event::FileFinished {
            path: self.files[source.index].path.as_path().to_owned(),
            placement,
        });
    }

    fn settle(&self, index: usize, outcome: Outcome<CapturedFile>) {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(outcome);
    }

    /// Reads a file until two looks agree: at most twice, plus once for a writer that appeared, and twice as often if it is
    /// open for writing all the time. `None`: it has gone.
    fn stage(&self, index: usize, mut how: How) -> Result<Option<Staged<'a>>> {
        let mut touched: Option<Hashes> = None;
        let (mut changes, mut torn) = (0, false);
        loop {
            match self.attempt(index, how)? {
                Attempt::Same(staged) => return Ok(Some(staged)),
                Attempt::Touched(staged) if touched == Some(staged.ingest.hashes) => {
                    return Ok(Some(staged));
                }
                Attempt::Touched(staged) => {
                    touched = Some(staged.ingest.hashes);
                    changes += 1;
                }
                Attempt::Torn(staged) if torn => {
                    self.warn(&self.files[index], WarningKind::Writer, TORN);
                    return Ok(Some(staged));
                }
                Attempt::Torn(_) => torn = true,
                Attempt::Changed => changes += 1,
                Attempt::Writer => how.hardlink = false,
                Attempt::Short => how.to_end = true,
                Attempt::Gone(error) => {
                    vanished(
                        self.context,
                        &self.plan.selection,
                        &self.files[index].path,
                        error,
                    )?;
                    self.settle(index, Outcome::Gone);
                    return Ok(None);
                }
            }
            if changes == 2 {
                return Err(changed(&self.path(index)));
            }
        }
    }

    pub(super) fn path(&self, index: usize) -> std::path::PathBuf {
        self.context.base.path().join(&self.files[index].path)
    }

    fn attempt(&self, index: usize, how: How) -> Result<Attempt<'a>> {
        let planned = &self.files[index];
        let mut reading = match Opened::open(self.context, planned)? {
            Ok(opened) => Reading::new(self, index, opened),
            Err(gone) => return Ok(Attempt::Gone(gone)),
        };
        let size = reading.opened.before.size;
        self.context.activity.start(&planned.path, size);
        if let Some(slot) = reading.opened.slot.take() {
            return reading.by_taking(slot);
        }
        if how.to_end || reading.opened.goes_beyond()? {
            return reading.by_reading_to_end();
        }
        let mode = self.context.link_mode;
        if planned.read_only
            && !planned.is_device
            && how.hardlink
            && matches!(mode, LinkMode::Auto | LinkMode::Hardlink)
            && let Some(attempt) = reading.by_hardlink()?
        {
            return Ok(attempt);
        }
        let occupied = reading.opened.before.allocated;
        if self
            .cloning
            .is_worth_it(reading.opened.before.dev, occupied, mode)
            && let Some(attempt) = reading.by_reflink()?
        {
            return Ok(attempt);
        }
        if mode == LinkMode::Reflink {
            self.warn(
                planned,
                WarningKind::LinkMode,
                "copied: the filesystem cannot reflink it",
            );
        }
        if how.known
            && let Some(attempt) = reading.by_recognition()?
        {
            return Ok(attempt);
        }
        reading.by_copy()
    }

    pub(super) fn warn(&self, planned: &PlannedFile, kind: WarningKind, message: &str) {
        self.context
            .activity
            .warn(kind, Some(planned.path.as_path()), message);
    }
}

pub(super) fn changed(path: &std::path::Path) -> Error {
    Error::new(
        ErrorKind::Busy,
        format!("{} kept changing while it was read", path.display()),
    )
    .with_path(path)
    .with_hint("pause whatever writes it, then take the snapshot again")
}

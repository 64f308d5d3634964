//! Files into blobs: each is linked, cloned or copied into staging, hashed in the same pass, and committed in batches.
//!
//! A file counts as captured only if it looked the same before and after it was read. The look compares size,
//! modification and change time; the last also moves when somebody else links the file or sets an attribute, so a
//! second read that finds the same bytes is believed.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::sync::{Mutex, PoisonError};

use super::Context;
use super::walk::{Plan, PlannedFile};
use crate::fs::dir::{Kind, sync_file};
use crate::fs::place::{Cloning, Writers, cannot_share, writers};
use crate::fs::{Stat, attributes, beneath, is_privileged, scan};
use crate::pass::{Hashes, Hashing, Output, PROBED, pass, probe};
use crate::store::{Ingest, Ingested, Payload, settled};
use crate::words::digest::Checksum;
use crate::words::entry::Attributes;
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::extent::ExtentMap;
use crate::words::placement::{LinkMode, Placement};
use crate::words::progress::{Event, WarningKind};

/// What a plan's files became, in its order.
#[derive(Debug)]
pub(super) struct Captured {
    pub(super) files: Vec<CapturedFile>,
    /// Blobs whose files, though not their names, are on the disk already.
    pub(super) synced: HashSet<Checksum>,
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
struct Staged<'s> {
    index: usize,
    ingest: Ingest<'s>,
    attributes: Attributes,
    placement: Placement,
    synced: bool,
}

/// Files are committed in batches of this many, or as soon as one of at least [`LARGE`] bytes is ready.
const BATCH: usize = 1024;

/// Writable files without holes up to this size are kept in memory until their batch is committed, in bytes.
const IN_MEMORY: u64 = 16 << 10;

/// Files from this size on are synced by the thread that wrote them, while others are still read, in bytes.
const LARGE: u64 = 1 << 20;

/// Captures every file of a plan and references the blobs from the pending snapshot.
pub(super) fn all(context: &Context<'_>, snapshot: i64, plan: &Plan) -> Result<Captured> {
    let capture = Capture {
        context,
        snapshot,
        cloning: Cloning::default(),
        staged: Mutex::default(),
        done: Mutex::new(vec![None; plan.files.len()]),
        synced: Mutex::default(),
        plan,
    };
    let (limit, activity) = (context.limit, context.activity);
    limit.for_each(activity, plan.files.len(), |index| capture.file(index))?;
    capture.commit_rest()?;
    capture.finish()
}

struct Capture<'a> {
    context: &'a Context<'a>,
    snapshot: i64,
    cloning: Cloning,
    staged: Mutex<Vec<Staged<'a>>>,
    done: Mutex<Vec<Option<CapturedFile>>>,
    synced: Mutex<HashSet<Checksum>>,
    plan: &'a Plan,
}

/// What may still be tried for a file.
#[derive(Clone, Copy, Debug)]
struct How {
    hardlink: bool,
    /// Whether hashing before copying is worth it.
    known: bool,
}

/// How a try to read a file came out.
enum Attempt<'s> {
    Same(Staged<'s>),
    /// Only the change time moved: believed if another read finds the same bytes.
    Touched(Staged<'s>),
    Changed,
    /// Somebody opened it for writing after the first look: not to be hardlinked.
    Writer,
}

impl<'a> Capture<'a> {
    fn file(&self, index: usize) -> Result<()> {
        self.context.activity.check()?;
        let how = How {
            hardlink: true,
            known: true,
        };
        let staged = self.stage(index, how)?;
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

    fn finish(self) -> Result<Captured> {
        let done = self
            .done
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let files: Option<Vec<CapturedFile>> = done.into_iter().collect();
        Ok(Captured {
            files: files.ok_or_else(|| {
                Error::new(
                    ErrorKind::Internal,
                    "a file was neither captured nor refused",
                )
            })?,
            synced: self
                .synced
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner),
        })
    }

    /// Commits staged files. Those whose known blob vanished meanwhile are read again, this time with a copy.
    fn commit(&self, batch: Vec<Staged<'a>>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let (mut ingests, rest): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|staged| {
                let Staged {
                    index,
                    ingest,
                    attributes,
                    placement,
                    synced,
                } = staged;
                (ingest, (index, attributes, placement, synced))
            })
            .unzip();
        let outcomes = self.context.store.commit(self.snapshot, &mut ingests)?;
        let mut gone = Vec::new();
        for ((outcome, ingest), (index, attributes, placement, synced)) in
            outcomes.into_iter().zip(ingests).zip(rest)
        {
            let stored = match outcome {
                Ingested::Stored => true,
                Ingested::Reused => false,
                Ingested::Gone => {
                    gone.push(index);
                    continue;
                }
            };
            if stored && synced {
                self.synced
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(ingest.hashes.checksum);
            }
            let placement = if stored {
                placement
            } else {
                Placement::Present
            };
            self.record(
                index,
                CapturedFile {
                    hashes: ingest.hashes,
                    attributes,
                    size: ingest.map.size(),
                    data_size: ingest.map.data_size(),
                    placement,
                    stored,
                },
            );
        }
        self.capture_again(&gone)
    }

    fn capture_again(&self, gone: &[usize]) -> Result<()> {
        for &index in gone {
            let how = How {
                hardlink: true,
                known: false,
            };
            let staged = self.stage(index, how)?;
            self.commit(vec![staged])?;
        }
        Ok(())
    }

    fn record(&self, index: usize, file: CapturedFile) {
        let placement = file.placement;
        self.done.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(file);
        self.context.activity.tell(|| Event::FileFinished {
            path: self.plan.files[index].path.as_path().to_owned(),
            placement,
        });
    }

    /// Reads a file until two looks agree: at most twice, plus once for a writer that appeared.
    fn stage(&self, index: usize, mut how: How) -> Result<Staged<'a>> {
        let mut touched: Option<Hashes> = None;
        let mut changes = 0;
        loop {
            match self.attempt(index, how)? {
                Attempt::Same(staged) => return Ok(staged),
                Attempt::Touched(staged) if touched == Some(staged.ingest.hashes) => {
                    return Ok(staged);
                }
                Attempt::Touched(staged) => {
                    touched = Some(staged.ingest.hashes);
                    changes += 1;
                }
                Attempt::Changed => changes += 1,
                Attempt::Writer => how.hardlink = false,
            }
            if changes == 2 {
                return Err(self.changed(index));
            }
        }
    }

    fn changed(&self, index: usize) -> Error {
        let path = self.path(index);
        Error::new(
            ErrorKind::Busy,
            format!("{} kept changing while it was read", path.display()),
        )
        .with_path(path)
        .with_hint("pause whatever writes it, then take the snapshot again")
    }

    fn path(&self, index: usize) -> std::path::PathBuf {
        self.context.base.path().join(&self.plan.files[index].path)
    }

    fn attempt(&self, index: usize, how: How) -> Result<Attempt<'a>> {
        let planned = &self.plan.files[index];
        let activity = self.context.activity;
        let wanted = || activity.advance(0);
        let opened = beneath::open_file(self.context.base, &planned.path, &wanted);
        activity.check()?;
        let file = opened.at("open", self.context.base.path().join(&planned.path))?;
        let reading = Reading::open(self, index, file)?;
        let mode = self.context.link_mode;
        if planned.read_only
            && how.hardlink
            && matches!(mode, LinkMode::Auto | LinkMode::Hardlink)
            && let Some(attempt) = reading.by_hardlink()?
        {
            return Ok(attempt);
        }
        let occupied = reading.before.allocated;
        if self.cloning.is_worth_it(reading.before.dev, occupied, mode)
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

    fn warn(&self, planned: &PlannedFile, kind: WarningKind, message: &str) {
        self.context
            .activity
            .warn(kind, Some(planned.path.as_path()), message);
    }
}

/// An opened source file and the first look at it.
struct Reading<'c, 'a> {
    capture: &'c Capture<'a>,
    index: usize,
    file: std::fs::File,
    before: Stat,
    attributes: Attributes,
}

impl<'c, 'a> Reading<'c, 'a> {
    fn open(capture: &'c Capture<'a>, index: usize, file: std::fs::File) -> Result<Self> {
        let path = || capture.path(index);
        let before = Stat::of_file(&file).at("examine", path())?;
        if before.kind != Kind::File {
            return Err(Error::new(
                ErrorKind::Busy,
                format!("{} is no longer a regular file", path().display()),
            )
            .with_path(path()));
        }
        let attributes =
            attributes::of_file(&file, &before).at("read the attributes of", path())?;
        Ok(Self {
            capture,
            index,
            file,
            before,
            attributes,
        })
    }

    fn planned(&self) -> &PlannedFile {
        &self.capture.plan.files[self.index]
    }

    fn path(&self) -> std::path::PathBuf {
        self.capture.path(self.index)
    }

    fn warn(&self, kind: WarningKind, message: &str) {
        self.capture.warn(self.planned(), kind, message);
    }

    /// Makes the file itself the blob: no bytes move. `None`: not possible, try the next way.
    fn by_hardlink(&self) -> Result<Option<Attempt<'a>>> {
        let insists = self.capture.context.link_mode == LinkMode::Hardlink;
        match writers(&self.file) {
            Writers::None => {}
            Writers::Some => {
                self.warn(
                    WarningKind::Writer,
                    "not hardlinked: somebody has it open for writing",
                );
                return Ok(None);
            }
            Writers::Unknown => {
                self.warn(
                    WarningKind::Writer,
                    "not hardlinked: whether somebody has it open for writing cannot be found out",
                );
                return Ok(None);
            }
        }
        let slot = match self.capture.context.store.link_slot(&self.file)? {
            Ok(slot) => slot,
            Err(error) if cannot_share(&error) || error.kind() == io::ErrorKind::NotFound => {
                if insists {
                    self.warn(WarningKind::LinkMode, &format!("not hardlinked: {error}"));
                }
                return Ok(None);
            }
            Err(error) => return Err(error).at("link", self.path()),
        };
        // Linking moved the change time: the look to compare with is this one.
        let before = Stat::of_file(&self.file).at("examine", self.path())?;
        let mtime = settled(&before);
        let map = self.map(&self.file, &before)?;
        let Some(hashes) = self.read(&map, Output::None)? else {
            return Ok(Some(Attempt::Changed));
        };
        let synced = self.sync_large(&self.file, &map)?;
        if writers(&self.file) != Writers::None {
            return Ok(Some(Attempt::Writer));
        }
        let after = Stat::of_file(&self.file).at("examine", self.path())?;
        let probe = self.probe(&self.file, &map)?;
        let ingest = Ingest {
            payload: Payload::Slot(slot),
            hashes,
            map,
            mtime,
            probe,
        };
        let staged = self.staged(ingest, Placement::Hardlink, synced);
        Ok(Some(judge(staged, &before, &after)))
    }

    /// Clones the file's blocks, then hashes the clone, which nobody else can change.
    fn by_reflink(&self) -> Result<Option<Attempt<'a>>> {
        let (slot, clone) = self.capture.context.store.create_slot()?;
        let cloning = &self.capture.cloning;
        if !cloning
            .clone(self.before.dev, &self.file, &clone)
            .at("clone", self.path())?
        {
            return Ok(None);
        }
        let after = Stat::of_file(&self.file).at("examine", self.path())?;
        let cloned = Stat::of_file(&clone).at("examine", self.path())?;
        let map = self.map(&clone, &cloned)?;
        let Some(hashes) = self.read_from(&clone, &map, Output::None)? else {
            return Ok(Some(Attempt::Changed));
        };
        let probe = self.probe(&clone, &map)?;
        let staged = self.finish_slot(slot, &clone, hashes, map, probe, Placement::Reflink)?;
        Ok(Some(judge(staged, &self.before, &after)))
    }

    /// Hashes a file that looks like a stored one, without copying it. `None`: it looks like none, or is not it.
    fn by_recognition(&self) -> Result<Option<Attempt<'a>>> {
        if self.before.size < PROBED {
            return Ok(None);
        }
        let map = self.map(&self.file, &self.before)?;
        let Some(probe) = self.probe(&self.file, &map)? else {
            return Ok(None);
        };
        let store = self.capture.context.store;
        let alike = store.catalog.read(|txn| txn.blobs_by_probe(&probe))?;
        let mut usable = false;
        for blob in &alike {
            usable |= store.looks_good(blob)?;
        }
        if !usable {
            return Ok(None);
        }
        let Some(hashes) = self.read(&map, Output::None)? else {
            return Ok(Some(Attempt::Changed));
        };
        if alike.iter().all(|blob| blob.checksum != hashes.checksum) {
            return Ok(None);
        }
        let after = Stat::of_file(&self.file).at("examine", self.path())?;
        let ingest = Ingest {
            payload: Payload::Known,
            hashes,
            map,
            mtime: None,
            probe: Some(probe),
        };
        let staged = self.staged(ingest, Placement::Present, false);
        Ok(Some(judge(staged, &self.before, &after)))
    }

    /// Copies the file's data, hashing it on the way.
    fn by_copy(&self) -> Result<Attempt<'a>> {
        let store = self.capture.context.store;
        let map = self.map(&self.file, &self.before)?;
        if map.size() <= IN_MEMORY && map.data_size() == map.size() && !self.planned().read_only {
            return self.by_copy_in_memory(map);
        }
        let (slot, copy) = store.create_slot()?;
        let claim = if map.data_size() >= LARGE {
            Some(store.claim_space(map.data_size(), &copy)?)
        } else {
            None
        };
        let output = Output::File {
            file: &copy,
            sync_soon: self.capture.context.durable,
        };
        let Some(hashes) = self.read(&map, output)? else {
            return Ok(Attempt::Changed);
        };
        drop(claim);
        let after = Stat::of_file(&self.file).at("examine", self.path())?;
        let probe = self.probe(&copy, &map)?;
        let staged = self.finish_slot(slot, &copy, hashes, map, probe, Placement::Copy)?;
        Ok(judge(staged, &self.before, &after))
    }

    fn by_copy_in_memory(&self, map: ExtentMap) -> Result<Attempt<'a>> {
        let bytes = RefCell::new(Vec::new());
        let Some(hashes) = self.read(&map, Output::Memory(&bytes))? else {
            return Ok(Attempt::Changed);
        };
        let after = Stat::of_file(&self.file).at("examine", self.path())?;
        let ingest = Ingest {
            payload: Payload::Bytes(bytes.into_inner()),
            hashes,
            map,
            mtime: None,
            probe: None,
        };
        let staged = self.staged(ingest, Placement::Copy, false);
        Ok(judge(staged, &self.before, &after))
    }

    /// Gives a file of our own its attributes, if it is to be a view, and syncs it if it is large.
    fn finish_slot(
        &self,
        slot: crate::store::Slot<'a>,
        file: &std::fs::File,
        hashes: Hashes,
        map: ExtentMap,
        probe: Option<[u8; 32]>,
        placement: Placement,
    ) -> Result<Staged<'a>> {
        if self.planned().read_only {
            for unset in attributes::set(file, &self.attributes, is_privileged()) {
                // Not a view then: a restore makes one when it needs it.
                tracing::debug!(what = unset.what, error = %unset.error, "an attribute was not set in the store");
            }
        }
        let synced = self.sync_large(file, &map)?;
        let stat = Stat::of_file(file).at("examine", self.path())?;
        let ingest = Ingest {
            payload: Payload::Slot(slot),
            hashes,
            map,
            mtime: Some(stat.mtime),
            probe,
        };
        Ok(self.staged(ingest, placement, synced))
    }

    fn staged(&self, ingest: Ingest<'a>, placement: Placement, synced: bool) -> Staged<'a> {
        Staged {
            index: self.index,
            ingest,
            attributes: self.attributes.clone(),
            placement,
            synced,
        }
    }

    fn map(&self, file: &std::fs::File, stat: &Stat) -> Result<ExtentMap> {
        scan::extents(file, stat.size).at("find the extents of", self.path())
    }

    fn read(&self, map: &ExtentMap, output: Output<'_>) -> Result<Option<Hashes>> {
        self.read_from(&self.file, map, output)
    }

    /// One pass; `None`: the file shrank meanwhile.
    fn read_from(
        &self,
        file: &std::fs::File,
        map: &ExtentMap,
        output: Output<'_>,
    ) -> Result<Option<Hashes>> {
        let activity = self.capture.context.activity;
        let progress = |bytes| activity.advance(bytes);
        let result = pass(file, map, output, Hashing::Both, &progress);
        activity.check()?;
        match result {
            Ok(hashes) => Ok(Some(hashes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error).at("capture", self.path()),
        }
    }

    fn probe(&self, file: &std::fs::File, map: &ExtentMap) -> Result<Option<[u8; 32]>> {
        if map.size() < PROBED {
            return Ok(None);
        }
        match probe(file, map) {
            Ok(probe) => Ok(Some(probe)),
            // It shrank: the look afterwards will tell.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error).at("read", self.path()),
        }
    }

    fn sync_large(&self, file: &std::fs::File, map: &ExtentMap) -> Result<bool> {
        if !self.capture.context.durable || map.data_size() < LARGE {
            return Ok(false);
        }
        sync_file(file).at("sync", self.path())?;
        Ok(true)
    }
}

fn judge<'a>(staged: Staged<'a>, before: &Stat, after: &Stat) -> Attempt<'a> {
    if after.unchanged_since(before) {
        Attempt::Same(staged)
    } else if after.same_bytes_since(before) {
        Attempt::Touched(staged)
    } else {
        Attempt::Changed
    }
}

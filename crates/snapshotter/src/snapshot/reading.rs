//! One file into staging: linked, cloned or copied, and hashed in the same pass.
//!
//! What was promised to be read-only is hardlinked, if a read lease can be had before and after it was hashed: the kernel
//! refuses one while a descriptor or a mapping can write. Else the file is cloned. Where that is not possible and it looks like a
//! stored one (size, extents, 64 spread pages), it is hashed before it is copied. A copy is the last way.
//!
//! Writing through a mapping moves a file's time when a page is first written, and on tmpfs never. So what is copied is read
//! once more if it is small, or if somebody has it open for writing: equal bytes are those that it had between the two
//! readings. Where they differ twice, the second copy is kept with a warning; an error would keep every tree with a mapped log
//! in it from being taken. A clone needs no second reading, since it is made at one moment. What this cannot see is somebody
//! who opens a larger file after it was asked about, on a filesystem without times for mappings; nor, without `CAP_LEASE`, who
//! has other users' files open.

use std::cell::RefCell;
use std::io;
use std::os::unix::fs::FileExt;

use super::capture::{Attempt, Capture, LARGE, Source, Staged};
use super::opened::Opened;
use super::planned::PlannedFile;
use crate::fs::dir::sync_file;
use crate::fs::place::{Writers, cannot_share, writers};
use crate::fs::{Stat, end, is_privileged, scan};
use crate::pass::{Hashes, Hashing, Output, PROBED, Progress, pass, probe};
use crate::store::{Ingest, Payload, Store, settled};
use crate::words::error::{At, Result};
use crate::words::extent::ExtentMap;
use crate::words::placement::{LinkMode, Placement};
use crate::words::progress::WarningKind;

/// Writable files without holes up to this size are kept in memory until their batch is committed, in bytes.
const IN_MEMORY: u64 = 16 << 10;

/// A source file that is being read.
pub(super) struct Reading<'c, 'a> {
    capture: &'c Capture<'a>,
    index: usize,
    pub(super) opened: Opened<'a>,
}

impl<'c, 'a> Reading<'c, 'a> {
    pub(super) fn new(capture: &'c Capture<'a>, index: usize, opened: Opened<'a>) -> Self {
        Self {
            capture,
            index,
            opened,
        }
    }

    fn planned(&self) -> &PlannedFile {
        &self.capture.files[self.index]
    }

    fn path(&self) -> std::path::PathBuf {
        self.capture.path(self.index)
    }

    fn warn(&self, kind: WarningKind, message: &str) {
        self.capture.warn(self.planned(), kind, message);
    }

    /// Makes the file itself the blob: no bytes move. `None`: not possible, try the next way.
    pub(super) fn by_hardlink(&self) -> Result<Option<Attempt<'a>>> {
        let insists = self.capture.context.link_mode == LinkMode::Hardlink;
        match writers(&self.opened.file) {
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
        let slot = match self.capture.context.store.link_slot(&self.opened.file)? {
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
        let before = self.opened.look()?;
        let mtime = settled(&before);
        let map = self.map(&self.opened.file, &before)?;
        let Some(hashes) = self.read(&map, Output::None)? else {
            return self.short().map(Some);
        };
        let synced = self.sync_large(&self.opened.file, &map)?;
        if writers(&self.opened.file) != Writers::None {
            return Ok(Some(Attempt::Writer));
        }
        let after = self.opened.look()?;
        let probe = self.probe(&self.opened.file, &map)?;
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

    /// Makes a file that was made for this the blob.
    pub(super) fn by_taking(&self, slot: crate::store::Slot<'a>) -> Result<Attempt<'a>> {
        let file = &self.opened.file;
        let map = self.map(file, &self.opened.before)?;
        let Some(hashes) = self.read(&map, Output::None)? else {
            return Ok(Attempt::Changed);
        };
        let probe = self.probe(file, &map)?;
        let staged = self.finish_slot(slot, file, hashes, map, probe, Placement::Copy)?;
        Ok(Attempt::Same(staged))
    }

    /// Copies all that it gives and then hashes the copy: nobody can say how long it is, nor that it has holes.
    pub(super) fn by_reading_to_end(&self) -> Result<Attempt<'a>> {
        let (slot, copy) = self.capture.context.store.create_slot()?;
        let activity = self.capture.context.activity;
        let copied = end::copy_to_end(&self.opened.file, &copy, &|_| activity.advance(0));
        activity.check()?;
        let size = copied.at("capture", self.path())?;
        let map = scan::extents(&copy, size).at("find the extents of", self.path())?;
        let Some(hashes) = self.read_from(&copy, &map, Output::None)? else {
            return Ok(Attempt::Changed);
        };
        let after = self.opened.look()?;
        let probe = self.probe(&copy, &map)?;
        let staged = self.finish_slot(slot, &copy, hashes, map, probe, Placement::Copy)?;
        Ok(judge(staged, &self.opened.before, &after))
    }

    /// It was shorter than its size told: it shrank, or never was that long.
    fn short(&self) -> Result<Attempt<'a>> {
        let same = self.opened.look()?.same_bytes_since(&self.opened.before);
        Ok(if same {
            Attempt::Short
        } else {
            Attempt::Changed
        })
    }

    /// Clones the file's blocks, then hashes the clone, which nobody else can change.
    pub(super) fn by_reflink(&self) -> Result<Option<Attempt<'a>>> {
        let (slot, clone) = self.capture.context.store.create_slot()?;
        let cloning = &self.capture.cloning;
        if !cloning
            .clone(self.opened.before.dev, &self.opened.file, &clone)
            .at("clone", self.path())?
        {
            return Ok(None);
        }
        let after = self.opened.look()?;
        let cloned = Stat::of_file(&clone).at("examine", self.path())?;
        let map = self.map(&clone, &cloned)?;
        let Some(hashes) = self.read_from(&clone, &map, Output::None)? else {
            return Ok(Some(Attempt::Changed));
        };
        let probe = self.probe(&clone, &map)?;
        let staged = self.finish_slot(slot, &clone, hashes, map, probe, Placement::Reflink)?;
        Ok(Some(judge(staged, &self.opened.before, &after)))
    }

    /// Hashes a file that looks like a stored one, without copying it. `None`: it looks like none, or is not it.
    pub(super) fn by_recognition(&self) -> Result<Option<Attempt<'a>>> {
        if self.opened.before.size < PROBED {
            return Ok(None);
        }
        let map = self.map(&self.opened.file, &self.opened.before)?;
        let Some(probe) = self.probe(&self.opened.file, &map)? else {
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
            return self.short().map(Some);
        };
        if alike.iter().all(|blob| blob.checksum != hashes.checksum) {
            return Ok(None);
        }
        let after = self.opened.look()?;
        let ingest = Ingest {
            payload: Payload::Known,
            hashes,
            map,
            mtime: None,
            probe: Some(probe),
        };
        let staged = self.staged(ingest, Placement::Present, false);
        Ok(Some(judge(staged, &self.opened.before, &after)))
    }

    /// Copies the file's data, hashing it on the way.
    pub(super) fn by_copy(&self) -> Result<Attempt<'a>> {
        let store = self.capture.context.store;
        let map = self.map(&self.opened.file, &self.opened.before)?;
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
        let written = self.opened.is_open_for_writing();
        let Some(hashes) = self.read(&map, output)? else {
            return self.short();
        };
        drop(claim);
        let torn = written && !self.reads_the_same(&map, &hashes)?;
        let after = self.opened.look()?;
        let probe = self.probe(&copy, &map)?;
        let staged = self.finish_slot(slot, &copy, hashes, map, probe, Placement::Copy)?;
        Ok(judge(staged, &self.opened.before, &after).or_torn(torn))
    }

    fn by_copy_in_memory(&self, map: ExtentMap) -> Result<Attempt<'a>> {
        let bytes = RefCell::new(Vec::new());
        let Some(hashes) = self.read(&map, Output::Memory(&bytes))? else {
            return self.short();
        };
        let bytes = bytes.into_inner();
        // Cheaper than to ask whether anybody could write it.
        let torn = !self.gives_again(&bytes).at("capture", self.path())?;
        let after = self.opened.look()?;
        let ingest = Ingest {
            payload: Payload::Bytes(bytes),
            hashes,
            map,
            mtime: None,
            probe: None,
        };
        let staged = self.staged(ingest, Placement::Copy, false);
        Ok(judge(staged, &self.opened.before, &after).or_torn(torn))
    }

    fn gives_again(&self, bytes: &[u8]) -> io::Result<bool> {
        let mut again = vec![0; bytes.len()];
        match self.opened.file.read_exact_at(&mut again, 0) {
            Ok(()) => Ok(again == bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads the file once more. If it gives the same bytes, they are those that it had between the two readings.
    fn reads_the_same(&self, map: &ExtentMap, hashes: &Hashes) -> Result<bool> {
        let activity = self.capture.context.activity;
        let progress = |_| activity.advance(0);
        let again = self.pass(
            &self.opened.file,
            map,
            Output::None,
            Hashing::Checksum,
            &progress,
        )?;
        Ok(again.is_some_and(|again| again.checksum == hashes.checksum))
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
            // As most restores want them.
            Store::set_attributes(
                file,
                &self.opened.attributes.without_setid(),
                is_privileged(),
            );
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
        let planned = self.capture.plan.identity(self.planned());
        Staged {
            ingest,
            source: Source {
                index: self.index,
                attributes: self.opened.attributes.clone(),
                placement,
                synced,
                replaced: planned.is_some_and(|planned| planned != self.opened.before.identity()),
            },
        }
    }

    fn map(&self, file: &std::fs::File, stat: &Stat) -> Result<ExtentMap> {
        scan::extents(file, stat.size).at("find the extents of", self.path())
    }

    fn read(&self, map: &ExtentMap, output: Output<'_>) -> Result<Option<Hashes>> {
        self.read_from(&self.opened.file, map, output)
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
        self.pass(file, map, output, Hashing::Both, &progress)
    }

    fn pass(
        &self,
        file: &std::fs::File,
        map: &ExtentMap,
        output: Output<'_>,
        hashing: Hashing,
        progress: Progress<'_>,
    ) -> Result<Option<Hashes>> {
        let result = pass(file, map, output, hashing, progress);
        self.capture.context.activity.check()?;
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
